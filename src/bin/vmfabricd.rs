//! The daemon; see vmfabricd(8).

use clap::Parser;
use std::{path::PathBuf, process::ExitCode};
use vmfabric::daemon::{Log, Paths, clean_up, run};

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

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let args = Args::parse();
    let log = Log::start(args.log_level);
    let paths = Paths { config: args.config, ..Paths::default() };
    let outcome = if args.clean_up { clean_up(&paths).await } else { run(paths, log).await };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
