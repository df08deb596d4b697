//! The daemon; see vmfabricd(8).

fn main() -> std::process::ExitCode {
    vmfabric::daemon::main()
}
