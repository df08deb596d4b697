//! `vmfabric`, the command line: one more client of the daemon's D-Bus interface.
//!
//! `--json` prints one document (for `watch`, one a line) in a form that only grows within a major version: what is
//! absent is `null`, a list is an array. The structures that say "the JSON form of" are its description.

mod address_group;
mod agent;
mod apply;
mod client;
mod complete;
mod doctor;
mod document_text;
mod domain;
mod error;
mod explain;
mod field;
mod import;
mod lease;
mod log_level;
mod logs;
mod network;
mod output;
mod plan;
mod port;
mod progress;
mod record;
mod security;
mod security_group;
mod status;
mod subnet;
#[cfg(test)]
mod tests;
mod time;
mod topology;
mod trace;
mod watch;

pub use error::CliError;
pub use output::Output;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use client::Client;
use std::process::ExitCode;

/// Networks for the virtual machines of this host
#[derive(Debug, Parser)]
#[command(name = "vmfabric", version, after_help = error::EXIT_CODES, max_term_width = 100)]
pub struct Arguments {
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show how vmfabricd, libvirt and the kernel are, and what is wrong
    Status,
    /// Networks: isolated layer-2 domains
    #[command(subcommand, visible_alias = "net")]
    Network(network::NetworkCommand),
    /// Subnets: blocks of addresses on networks
    #[command(subcommand)]
    Subnet(subnet::SubnetCommand),
    /// Ports: the guests' places on networks
    #[command(subcommand)]
    Port(port::PortCommand),
    /// Security groups: what ports may send and receive
    #[command(subcommand, visible_alias = "sg")]
    SecurityGroup(security_group::SecurityGroupCommand),
    /// Address groups: addresses that rules of security groups name
    #[command(subcommand)]
    AddressGroup(address_group::AddressGroupCommand),
    /// DNS records: names in a network's domain beside the guests'
    #[command(subcommand)]
    Record(record::RecordCommand),
    /// Take over networks that are libvirt's own, with their guests, leases and reservations
    ImportLibvirt(import::ImportCommand),
    /// DHCP leases
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Make networks, subnets, ports and groups what a document says, all of it or nothing; shows what changes first
    Apply(apply::Apply),
    /// Print all that people want of this host as a document for apply
    Export(apply::Export),
    /// Show what vmfabricd would change on this host now, without changing it
    Plan,
    /// Show what hangs on what: physical networks, bridges, VLANs, networks, guests, addresses
    Topology(topology::Topology),
    /// Look for what is wrong with this host, and say how to mend it; works without vmfabricd too
    Doctor,
    /// Show what a port may send and receive, and which security group allows it
    Explain {
        /// Name, id or MAC address
        #[arg(add = ArgValueCompleter::new(complete::ports))]
        port: String,
    },
    /// Follow a packet through VLANs, port security, security groups, routing and NAT, and show what stops it
    Trace(trace::TraceCommand),
    /// Show what vmfabricd logged of a port or a guest
    Logs(logs::Logs),
    /// Print changes as they come, until interrupted
    Watch,
    /// Show or set what vmfabricd logs: error, warn, info, debug or trace
    LogLevel { level: Option<String> },
}

impl Command {
    /// Whether polkit has a say in it.
    fn mutates(&self) -> bool {
        match self {
            Command::Network(command) => command.mutates(),
            Command::Subnet(command) => command.mutates(),
            Command::Port(command) => command.mutates(),
            Command::SecurityGroup(command) => command.mutates(),
            Command::AddressGroup(command) => command.mutates(),
            Command::Record(command) => command.mutates(),
            Command::ImportLibvirt(_) => true,
            Command::LogLevel { level } => level.is_some(),
            Command::Apply(apply) => !apply.dry_run,
            Command::Status
            | Command::Lease(_)
            | Command::Export(_)
            | Command::Topology(_)
            | Command::Doctor
            | Command::Logs(_)
            | Command::Plan
            | Command::Explain { .. }
            | Command::Trace(_)
            | Command::Watch => false,
        }
    }
}

/// The command's whole life.
pub fn main() -> ExitCode {
    // Where a shell asks for completions, they are printed, and that is all.
    clap_complete::CompleteEnv::with_factory(Arguments::command).bin("vmfabric").completer("vmfabric").complete();
    let arguments = Arguments::parse();
    let mut out = Output::stdout(arguments.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("vmfabric: {error}");
            return ExitCode::FAILURE;
        }
    };
    let _agent = if arguments.command.mutates() { agent::Agent::start() } else { None };
    let result = runtime.block_on(async {
        match (Client::connect().await, &arguments.command) {
            (Ok(client), _) => run(arguments, &client, &mut out).await,
            (Err(error), Command::Doctor) => doctor::run(Err(&error), &mut out).await,
            (Err(error), _) => match arguments.command {
                Command::Logs(command) => logs::run(command, None, out.json).await,
                // Without a bus too.
                _ => Err(error),
            },
        }
    });
    result.unwrap_or_else(|error| {
        let code = error.exit_code();
        if code != ExitCode::SUCCESS {
            eprintln!("vmfabric: {}", output::printable_lines(&error.to_string()));
        }
        code
    })
}

async fn run(arguments: Arguments, client: &Client, out: &mut Output) -> Result<ExitCode, CliError> {
    match arguments.command {
        Command::Status => return status::run(client, out).await,
        Command::Apply(command) => return apply::run(command, client, out).await,
        Command::Doctor => return doctor::run(Ok(client), out).await,
        Command::Logs(command) => return logs::run(command, Some(client), out.json).await,
        Command::Topology(command) => topology::run(command, client, out).await?,
        Command::Export(command) => apply::export(command, client, out).await?,
        Command::Plan => return plan::run(client, out).await,
        Command::Trace(command) => return trace::run(command, client, out).await,
        Command::Explain { port } => explain::run(&port, client, out).await?,
        Command::Network(command) => network::run(command, client, out).await?,
        Command::Subnet(command) => subnet::run(command, client, out).await?,
        Command::Port(command) => port::run(command, client, out).await?,
        Command::SecurityGroup(command) => security_group::run(command, client, out).await?,
        Command::AddressGroup(command) => address_group::run(command, client, out).await?,
        Command::Record(command) => record::run(command, client, out).await?,
        Command::Lease(command) => lease::run(command, client, out).await?,
        Command::ImportLibvirt(command) => import::run(command, client, out).await?,
        Command::Watch => watch::run(client, out).await?,
        Command::LogLevel { level } => log_level::run(level, client, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// D-Bus's empty text as absent.
fn opt(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// As much of an id as tables show; commands take it too.
fn short(id: &str) -> String {
    id.chars().take(8).collect()
}
