use super::{CliError, Output, client::Client, opt, time::left};
use crate::dbus;
use clap::Subcommand;
use clap_complete::engine::ArgValueCompleter;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// List DHCP leases, and prefixes that were delegated
    #[command(visible_alias = "ls")]
    List {
        /// Of this network only
        #[arg(add = ArgValueCompleter::new(super::complete::networks))]
        network: Option<String>,
    },
}

/// A lease as it comes from the bus.
#[derive(Debug, Deserialize)]
struct Received {
    network: String,
    network_name: String,
    address: String,
    mac: String,
    client: Vec<u8>,
    iaid: u32,
    prefix_length: u8,
    host_name: String,
    port: String,
    expires: u64,
}

/// The JSON form of a lease.
#[derive(Debug, Serialize)]
struct Lease<'a> {
    network: &'a str,
    network_id: &'a str,
    address: &'a str,
    /// Of a delegated prefix, whose first address is `address`.
    prefix_length: Option<u8>,
    mac: &'a str,
    /// The DHCP client identifier, or the DUID, in hexadecimal.
    client: String,
    /// DHCPv6: which of the client's associations it is; 0 for DHCPv4.
    iaid: u32,
    host_name: Option<&'a str>,
    /// Id.
    port: Option<&'a str>,
    /// Seconds since 1970.
    expires: u64,
}

pub async fn run(command: LeaseCommand, client: &Client, out: &mut Output) -> Result<(), CliError> {
    let LeaseCommand::List { network } = command;
    let leases = client.manager.list_leases(network.as_deref().unwrap_or_default()).await.map_err(CliError::of)?;
    let received = |lease: &dbus::Dictionary| {
        let field = |(key, value): (&String, &zbus::OwnedVariant)| Some((key.clone(), dbus::to_json(value)?));
        let object: Map<String, Value> = lease.iter().filter_map(field).collect();
        serde_json::from_value(Value::Object(object)).map_err(|error| CliError::Protocol(error.to_string()))
    };
    let received: Vec<Received> = leases.iter().map(received).collect::<Result<_, _>>()?;
    let leases: Vec<_> = received.iter().map(describe).collect();
    out.table(&leases, &["network", "address", "mac", "host name", "expires in"], |lease| {
        vec![
            lease.network.to_owned(),
            match lease.prefix_length {
                Some(length) => format!("{}/{length}", lease.address),
                None => lease.address.to_owned(),
            },
            lease.mac.to_owned(),
            lease.host_name.unwrap_or_default().to_owned(),
            left(lease.expires),
        ]
    })
}

fn describe(lease: &Received) -> Lease<'_> {
    Lease {
        network: &lease.network_name,
        network_id: &lease.network,
        address: &lease.address,
        prefix_length: Some(lease.prefix_length).filter(|length| *length > 0),
        iaid: lease.iaid,
        mac: &lease.mac,
        client: lease.client.iter().map(|byte| format!("{byte:02x}")).collect(),
        host_name: opt(&lease.host_name),
        port: opt(&lease.port),
        expires: lease.expires,
    }
}
