//! The command line; see `vmfabric --help`.

fn main() -> std::process::ExitCode {
    vmfabric::cli::main()
}
