use super::{Log, Paths, clean_up, run};
use clap::Parser;
use std::{path::PathBuf, process::ExitCode};

/// Networks for the virtual machines of a libvirt host.
#[derive(Debug, Parser)]
#[command(name = "vmfabricd", version)]
struct Args {
    /// The configuration file; it need not exist.
    #[arg(long, value_name = "FILE", default_value = "/etc/vmfabric/vmfabricd.toml")]
    config: PathBuf,
    /// error, warn, info, debug or trace; overrides the configuration.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Take vmfabric's links, filters and libvirt networks away, and end. Guests that run lose their networks; what is
    /// configured stays stored. The daemon must be stopped.
    #[arg(long)]
    clean_up: bool,
}

/// The daemon's whole life. Here, and not in the program: what is polled in the library is compiled with it, once.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let log = Log::start(args.log_level);
    let paths = Paths { config: args.config, ..Paths::default() };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("no threads can be had: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome =
        runtime.block_on(async { if args.clean_up { clean_up(&paths).await } else { run(paths, log).await } });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
