use super::{CliError, Output, client::Client, error::DEGRADED};
use serde::Serialize;
use std::{collections::BTreeMap, process::ExitCode};

/// The JSON form of the status.
#[derive(Debug, Serialize)]
struct Status {
    version: String,
    /// `ok` or `degraded`.
    health: String,
    /// What is wrong, each with what to do.
    problems: Vec<String>,
    libvirt: Libvirt,
    /// What the kernel has.
    capabilities: BTreeMap<String, bool>,
    networks: u32,
    subnets: u32,
    ports: u32,
    attached_ports: u32,
    leases: u32,
}

#[derive(Debug, Serialize)]
struct Libvirt {
    /// `connected`, `connecting` or `disconnected`.
    status: String,
    detail: Option<String>,
}

pub async fn run(client: &Client, out: &mut Output) -> Result<ExitCode, CliError> {
    let (info, version) = client.status().await?;
    let status = Status {
        version,
        health: info.health,
        problems: info.problems,
        libvirt: Libvirt { status: info.libvirt_status, detail: Some(info.libvirt_detail).filter(|t| !t.is_empty()) },
        capabilities: info.capabilities,
        networks: info.networks,
        subnets: info.subnets,
        ports: info.ports,
        attached_ports: info.attached_ports,
        leases: info.leases,
    };
    if out.json {
        out.document(&status)?;
    } else {
        print(&status, out)?;
    }
    Ok(if status.health == "ok" { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) })
}

fn print(status: &Status, out: &mut Output) -> Result<(), CliError> {
    let libvirt = [Some(status.libvirt.status.as_str()), status.libvirt.detail.as_deref()];
    let has = |(name, has): (&String, &bool)| match name.as_str() {
        "bridge_vlan_filtering" => format!("{} VLANs on bridges", with(*has)),
        "nft_bridge_meta" => format!("{} rules for all ports of a bridge", with(*has)),
        "bridge_conntrack" => format!("{} connections tracked on bridges", with(*has)),
        "nft_owner" => format!("{} tables that nobody else can change", with(*has)),
        other => format!("{} {other}", with(*has)),
    };
    let kernel: Vec<_> = status.capabilities.iter().map(has).collect();
    out.fields(&[
        ("health", status.health.clone()),
        ("libvirt", libvirt.into_iter().flatten().collect::<Vec<_>>().join("\n")),
        ("kernel", kernel.join("\n")),
        ("networks", status.networks.to_string()),
        ("subnets", status.subnets.to_string()),
        ("ports", format!("{}, {} in use by running guests", status.ports, status.attached_ports)),
        ("leases", status.leases.to_string()),
        ("version", status.version.clone()),
        ("problems", if status.problems.is_empty() { "none".to_owned() } else { status.problems.join("\n") }),
    ])
}

fn with(has: bool) -> &'static str {
    if has { "with" } else { "without" }
}
