use super::{
    CliError, Output,
    client::{Client, read},
    error::DROPPED,
    field::Fields,
};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::process::ExitCode;

/// The first packet of a connection.
#[derive(Debug, Args)]
pub struct TraceCommand {
    /// Who sends: a port (name, id or MAC address), an IP address, or 'host'
    #[arg(long, value_name = "PORT|ADDRESS|host")]
    from: String,
    /// Whom it is for: the same
    #[arg(long, value_name = "PORT|ADDRESS|host")]
    to: String,
    /// tcp, udp, sctp, icmp, … or a protocol's number [default: tcp with --port, else an ICMP echo request]
    #[arg(long)]
    proto: Option<String>,
    /// Destination port
    #[arg(long)]
    port: Option<u16>,
    /// Source port [default: 49152]
    #[arg(long, requires = "port")]
    source_port: Option<u16>,
    /// ICMP type, and code [default code: 0]
    #[arg(long, value_name = "TYPE[/CODE]", value_parser = icmp, conflicts_with_all = ["proto", "port"])]
    icmp: Option<(u8, u8)>,
    /// The VLAN tag that a trunk port sends it with
    #[arg(long, value_name = "VID")]
    vlan: Option<u16>,
}

/// The JSON form of a packet's way.
#[derive(Debug, Serialize, Deserialize)]
struct Trace {
    packet: String,
    steps: Vec<String>,
    allowed: bool,
    /// `null`, or the name of the drop's counter.
    #[serde(default)]
    reason: Option<String>,
    /// The id of the port whose filter drops it.
    #[serde(default)]
    port: Option<String>,
}

fn icmp(text: &str) -> Result<(u8, u8), String> {
    let (kind, code) = text.split_once('/').unwrap_or((text, "0"));
    match (kind.parse(), code.parse()) {
        (Ok(kind), Ok(code)) => Ok((kind, code)),
        _ => Err("write TYPE or TYPE/CODE, each from 0 to 255: 8/0 is an echo request".into()),
    }
}

pub async fn run(command: TraceCommand, client: &Client, out: &mut Output) -> Result<ExitCode, CliError> {
    let mut request = Fields::from([("from", command.from.into()), ("to", command.to.into())]);
    request.extend(command.proto.map(|proto| ("protocol", proto.into())));
    request.extend(command.port.map(|port| ("port", port.into())));
    request.extend(command.source_port.map(|port| ("source_port", port.into())));
    if let Some((kind, code)) = command.icmp {
        request.extend([("icmp_type", kind.into()), ("icmp_code", code.into())]);
    }
    request.extend(command.vlan.map(|vid| ("vlan", vid.into())));
    let trace: Trace = read(&client.manager.trace(&request).await.map_err(CliError::of)?)?;
    if out.json {
        out.document(&trace)?;
    } else {
        out.line(super::output::printable(&trace.packet))?;
        for (number, step) in trace.steps.iter().enumerate() {
            out.line(format_args!("{:>3}. {}", number + 1, super::output::printable(step)))?;
        }
        out.line(if trace.allowed { "It passes." } else { "It does not pass." })?;
    }
    Ok(if trace.allowed { ExitCode::SUCCESS } else { ExitCode::from(DROPPED) })
}
