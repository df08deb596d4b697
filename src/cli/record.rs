use super::{
    CliError, Output,
    client::{Client, Inventory},
};
use crate::{
    dbus::{Kind, NetworkInfo},
    net::{DnsRecord, RecordData, RecordName},
};
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use serde::Serialize;

#[derive(Debug, Subcommand)]
pub enum RecordCommand {
    /// Give a name in a network's domain a record: record create lab www A 192.0.2.1
    Create(Create),
    /// List records
    #[command(visible_alias = "ls")]
    List {
        /// Of this network only
        #[arg(add = ArgValueCompleter::new(super::complete::networks))]
        network: Option<String>,
    },
    /// Delete a name's records: all, or those of a type, or one
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(add = ArgValueCompleter::new(super::complete::networks))]
        network: String,
        name: RecordName,
        #[arg(value_name = "TYPE")]
        kind: Option<String>,
        /// As `record list` shows it
        data: Vec<String>,
    },
}

impl RecordCommand {
    pub fn mutates(&self) -> bool {
        !matches!(self, Self::List { .. })
    }
}

#[derive(Debug, Args)]
pub struct Create {
    #[arg(add = ArgValueCompleter::new(super::complete::networks))]
    network: String,
    /// Below the network's domain; @ is the domain itself, *.NAME all that is not there
    name: RecordName,
    /// A, AAAA, CNAME, MX, SRV or TXT
    #[arg(value_name = "TYPE")]
    kind: String,
    /// A, AAAA: ADDRESS; CNAME: NAME; MX: PREFERENCE NAME; SRV: PRIORITY WEIGHT PORT NAME; TXT: TEXT... A NAME without a dot is
    /// in the domain
    #[arg(required = true)]
    data: Vec<String>,
    /// How long answers may be kept [default: 30]
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
}

/// The JSON form of a record.
#[derive(Debug, Serialize)]
struct Record {
    network: String,
    /// The whole name.
    fqdn: String,
    name: String,
    /// Seconds; `null`: the server's default.
    ttl: Option<u32>,
    #[serde(rename = "type")]
    kind: &'static str,
    data: String,
}

pub async fn run(command: RecordCommand, client: &Client, out: &mut Output) -> Result<(), CliError> {
    match command {
        RecordCommand::Create(create) => {
            let data = RecordData::parse(&create.kind, &create.data).map_err(|e| CliError::Usage(e.to_string()))?;
            let record = DnsRecord { name: create.name, ttl: create.ttl, data };
            let path = client.find(Kind::Network, &create.network).await?;
            client.resource(Kind::Network, path).await?.add_record(&record.to_string()).await.map_err(CliError::of)
        }
        RecordCommand::List { network } => {
            let records = list(&client.inventory().await?, client, network).await?;
            out.table(&records, &["network", "name", "ttl", "type", "data"], |record| {
                vec![
                    record.network.clone(),
                    record.name.clone(),
                    record.ttl.map(|ttl| ttl.to_string()).unwrap_or_default(),
                    record.kind.to_owned(),
                    record.data.clone(),
                ]
            })
        }
        RecordCommand::Delete { network, name, kind, data } => {
            let kind = kind.unwrap_or_default();
            let data = match data.as_slice() {
                [] => String::new(),
                data => RecordData::parse(&kind, data).map_err(|e| CliError::Usage(e.to_string()))?.to_string(),
            };
            let path = client.find(Kind::Network, &network).await?;
            let network = client.resource(Kind::Network, path).await?;
            network.remove_records(name.as_str(), &kind, &data).await.map(drop).map_err(CliError::of)
        }
    }
}

async fn list(inventory: &Inventory, client: &Client, network: Option<String>) -> Result<Vec<Record>, CliError> {
    let only = match network {
        Some(name) => Some(client.find(Kind::Network, &name).await?),
        None => None,
    };
    let wanted = |network: &&NetworkInfo| {
        let path = network.id.parse().map(|id| Kind::Network.path(id));
        only.as_ref().is_none_or(|only| path.as_ref() == Ok(only))
    };
    let mut records: Vec<Record> = Vec::new();
    for network in inventory.networks.values().filter(wanted) {
        for line in &network.dns_records {
            let record: DnsRecord = line.parse().map_err(|error| CliError::Protocol(format!("{line}: {error}")))?;
            records.push(describe(network, &record));
        }
    }
    records.sort_by(|a, b| (&a.network, &a.name, a.kind, &a.data).cmp(&(&b.network, &b.name, b.kind, &b.data)));
    Ok(records)
}

fn describe(network: &NetworkInfo, record: &DnsRecord) -> Record {
    let fqdn = match record.name.as_str() {
        RecordName::DOMAIN => network.dns_domain.clone(),
        name => format!("{name}.{}", network.dns_domain),
    };
    Record {
        network: network.name.clone(),
        fqdn,
        name: record.name.to_string(),
        ttl: record.ttl,
        kind: record.data.type_name(),
        data: record.data.to_string(),
    }
}
