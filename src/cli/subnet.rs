use super::{
    CliError, Output,
    client::{Client, Inventory},
    field::{self, Fields, Form, Key, put, put_all},
    opt, short,
};
use crate::{
    dbus::{Kind, SubnetInfo, parse_path},
    intent::{Forward, Ipv6Mode, ResourceName},
    net::{AddressRange, BootRule, DhcpOption, IpNet, Ipv6Net},
};
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use serde::Serialize;
use std::net::{IpAddr, Ipv6Addr};

#[derive(Debug, Subcommand)]
pub enum SubnetCommand {
    /// Make a subnet on a network
    Create(Box<Create>),
    /// List subnets
    #[command(visible_alias = "ls")]
    List {
        /// Of this network only
        #[arg(add = ArgValueCompleter::new(super::complete::networks))]
        network: Option<String>,
    },
    /// Show all of a subnet, with its problems
    Show {
        #[arg(add = ArgValueCompleter::new(super::complete::subnets))]
        name: String,
    },
    /// Change fields: dhcp=no dns=10.0.0.53,10.0.0.54; KEY= takes the default back
    ///
    /// Fields: name, cidr, gateway, host-address, pool, dhcp, dns, route, forward, lease-time, dhcp-option, boot, relay,
    /// ipv6-mode, pd-block, pd-length, ntp.
    /// Several values of one field are separated by commas, DHCP options by semicolons.
    Set {
        #[arg(add = ArgValueCompleter::new(super::complete::subnets))]
        name: String,
        #[arg(required = true, value_name = "KEY=VALUE")]
        fields: Vec<String>,
    },
    /// Delete subnets; ports lose their addresses in them
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(required = true, add = ArgValueCompleter::new(super::complete::subnets))]
        names: Vec<String>,
    },
}

impl SubnetCommand {
    pub fn mutates(&self) -> bool {
        !matches!(self, Self::List { .. } | Self::Show { .. })
    }
}

#[derive(Debug, Args)]
pub struct Create {
    /// Name or id of the network
    #[arg(add = ArgValueCompleter::new(super::complete::networks))]
    network: String,
    /// The block, 10.0.0.0/24 or 2001:db8:7::/64 say
    cidr: IpNet,
    /// Default: the network's name
    #[arg(long)]
    name: Option<ResourceName>,
    /// The router that guests are told of [default: the first address where the host forwards]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<IpAddr>,
    /// What the host itself holds [default: the gateway where it forwards; one for DHCP where it only serves; none
    /// behind relay agents]
    #[arg(long, value_name = "ADDRESS")]
    host_address: Option<IpAddr>,
    /// Addresses that guests may get, FIRST-LAST; may be repeated [default: all that is left]
    #[arg(long = "pool", value_name = "FIRST-LAST")]
    pools: Vec<AddressRange>,
    /// Serve DHCP and DNS [default: on local networks]
    #[arg(long, conflicts_with = "no_dhcp")]
    dhcp: bool,
    /// Serve neither DHCP nor DNS
    #[arg(long)]
    no_dhcp: bool,
    /// Name server that guests are told of; may be repeated [default: this host]
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Route that guests are told of; may be repeated
    #[arg(long = "route", value_name = "DESTINATION=NEXTHOP")]
    routes: Vec<String>,
    /// What the host does with packets to and from elsewhere: none, routed or nat
    #[arg(long)]
    forward: Option<Forward>,
    /// How long a lease lasts, 1h say, or infinite
    #[arg(long, value_name = "TIME", value_parser = field::seconds)]
    lease_time: Option<u32>,
    /// DHCP option, ntp-servers=10.0.0.1 or 150:ip=10.0.0.5; may be repeated
    #[arg(long = "dhcp-option", value_name = "OPTION=VALUE")]
    dhcp_options: Vec<DhcpOption>,
    /// Network boot: server=ADDRESS, bios=FILE, uefi-x64=FILE, ipxe=URL, http-x64=URL; may be repeated
    #[arg(long = "boot", value_name = "WHOM=FILE")]
    dhcp_boot: Vec<BootRule>,
    /// Relay agent to serve, by its address in this subnet; may be repeated
    #[arg(long = "relay", value_name = "ADDRESS")]
    dhcp_relays: Vec<IpAddr>,
    /// How guests come by IPv6 addresses: slaac, stateful or stateless [default: stateful, on local networks]
    #[arg(long, value_name = "MODE")]
    ipv6_mode: Option<Ipv6Mode>,
    /// IPv6 block to delegate prefixes from, to guests that are routers
    #[arg(long, value_name = "BLOCK")]
    pd_block: Option<Ipv6Net>,
    /// Length of a delegated prefix [default: 64]
    #[arg(long, value_name = "BITS", requires = "pd_block")]
    pd_length: Option<u8>,
    /// Time server that guests of an IPv6 subnet are told of; may be repeated
    #[arg(long = "ntp", value_name = "ADDRESS")]
    ntp_servers: Vec<Ipv6Addr>,
}

const KEYS: &[Key] = &[
    Key { names: &["name"], field: "name", form: Form::Text },
    Key { names: &["cidr"], field: "cidr", form: Form::Text },
    Key { names: &["gateway"], field: "gateway", form: Form::Text },
    Key { names: &["host-address", "host_address"], field: "host_address", form: Form::Text },
    Key { names: &["pool", "pools"], field: "pools", form: Form::Texts },
    Key { names: &["dhcp"], field: "dhcp", form: Form::Flag },
    Key { names: &["dns", "dns_servers"], field: "dns_servers", form: Form::Texts },
    Key { names: &["route", "host_routes"], field: "host_routes", form: Form::Routes },
    Key { names: &["forward"], field: "forward", form: Form::Text },
    Key { names: &["lease-time", "lease_seconds"], field: "lease_seconds", form: Form::Seconds },
    Key { names: &["dhcp-option", "dhcp_options"], field: "dhcp_options", form: Form::Lines },
    Key { names: &["boot", "dhcp_boot"], field: "dhcp_boot", form: Form::Texts },
    Key { names: &["relay", "dhcp_relays"], field: "dhcp_relays", form: Form::Texts },
    Key { names: &["ipv6-mode", "ipv6_mode"], field: "ipv6_mode", form: Form::Text },
    Key { names: &["pd-block", "pd_block"], field: "pd_block", form: Form::Text },
    Key { names: &["pd-length", "pd_length"], field: "pd_length", form: Form::Number },
    Key { names: &["ntp", "ntp_servers"], field: "ntp_servers", form: Form::Texts },
];

/// The JSON form of a subnet.
#[derive(Debug, Serialize)]
struct Subnet<'a> {
    id: &'a str,
    name: &'a str,
    network: String,
    network_id: Option<String>,
    cidr: &'a str,
    gateway: Option<&'a str>,
    host_address: Option<&'a str>,
    /// `FIRST-LAST` each.
    pools: &'a [String],
    dhcp: bool,
    dns_servers: &'a [String],
    host_routes: Vec<Route<'a>>,
    /// `none`, `routed` or `nat`.
    forward: &'a str,
    /// 4294967295: for ever.
    lease_seconds: u32,
    /// As people write them.
    dhcp_options: &'a [String],
    dhcp_boot: &'a [String],
    dhcp_relays: &'a [String],
    /// `slaac`, `stateful` or `stateless`.
    ipv6_mode: Option<&'a str>,
    pd_block: Option<&'a str>,
    pd_length: Option<u8>,
    ntp_servers: &'a [String],
    dhcp_pool_full: bool,
    /// `active` or `error`.
    status: &'a str,
    problems: &'a [String],
}

#[derive(Debug, Serialize)]
struct Route<'a> {
    destination: &'a str,
    next_hop: &'a str,
}

pub async fn run(command: SubnetCommand, client: &Client, out: &mut Output) -> Result<(), CliError> {
    match command {
        SubnetCommand::Create(create) => {
            let path = client.manager.create_subnet(&create.fields()?).await.map_err(CliError::of)?;
            show(client, &path, out).await
        }
        SubnetCommand::List { network } => {
            let only = match network {
                Some(network) => Some(client.find(Kind::Network, &network).await?),
                None => None,
            };
            let inventory = client.inventory().await?;
            let wanted = |subnet: &&SubnetInfo| only.as_ref().is_none_or(|only| *only == subnet.network);
            let mut subnets: Vec<_> =
                inventory.subnets.values().filter(wanted).map(|subnet| describe(subnet, &inventory)).collect();
            subnets.sort_by(|a, b| (&a.network, a.name).cmp(&(&b.network, b.name)));
            out.table(&subnets, &["name", "id", "network", "cidr", "gateway", "dhcp", "forward", "status"], |subnet| {
                vec![
                    subnet.name.to_owned(),
                    short(subnet.id),
                    subnet.network.clone(),
                    subnet.cidr.to_owned(),
                    subnet.gateway.unwrap_or_default().to_owned(),
                    yes_no(subnet.dhcp),
                    subnet.forward.to_owned(),
                    subnet.status.to_owned(),
                ]
            })
        }
        SubnetCommand::Show { name } => {
            let path = client.find(Kind::Subnet, &name).await?;
            show(client, &path, out).await
        }
        SubnetCommand::Set { name, fields } => client.update(Kind::Subnet, &name, &field::parse(KEYS, &fields)?).await,
        SubnetCommand::Delete { names } => client.delete(Kind::Subnet, &names).await,
    }
}

impl Create {
    fn fields(&self) -> Result<Fields, CliError> {
        let mut fields =
            Fields::from([("network", self.network.clone().into()), ("cidr", self.cidr.to_string().into())]);
        put(&mut fields, "name", self.name.as_ref());
        put(&mut fields, "gateway", self.gateway);
        put(&mut fields, "host_address", self.host_address);
        put(&mut fields, "forward", self.forward);
        put_all(&mut fields, "pools", &self.pools);
        put_all(&mut fields, "dns_servers", &self.dns);
        put_all(&mut fields, "dhcp_options", &self.dhcp_options);
        put_all(&mut fields, "dhcp_boot", &self.dhcp_boot);
        put_all(&mut fields, "dhcp_relays", &self.dhcp_relays);
        put(&mut fields, "ipv6_mode", self.ipv6_mode);
        put(&mut fields, "pd_block", self.pd_block);
        put_all(&mut fields, "ntp_servers", &self.ntp_servers);
        fields.extend(self.pd_length.map(|length| ("pd_length", length.into())));
        if self.dhcp || self.no_dhcp {
            fields.insert("dhcp", self.dhcp.into());
        }
        if !self.routes.is_empty() {
            fields.insert("host_routes", field::routes(&self.routes)?);
        }
        fields.extend(self.lease_time.map(|seconds| ("lease_seconds", seconds.into())));
        Ok(fields)
    }
}

fn lease_time(seconds: u32) -> String {
    if seconds == crate::intent::Subnet::INFINITE_LEASE { "infinite".to_owned() } else { format!("{seconds} s") }
}

/// `BLOCK as /LENGTH`.
fn delegates(subnet: &Subnet<'_>) -> String {
    subnet.pd_block.zip(subnet.pd_length).map(|(block, length)| format!("{block} as /{length}")).unwrap_or_default()
}

fn yes_no(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}

fn describe<'a>(subnet: &'a SubnetInfo, inventory: &Inventory) -> Subnet<'a> {
    let routes = subnet.host_routes.iter();
    Subnet {
        id: &subnet.id,
        name: &subnet.name,
        network: inventory.network_name(&subnet.network),
        network_id: parse_path(&subnet.network).map(|(_, id)| id.to_string()),
        cidr: &subnet.cidr,
        gateway: opt(&subnet.gateway),
        host_address: opt(&subnet.host_address),
        pools: &subnet.pools,
        dhcp: subnet.dhcp,
        dns_servers: &subnet.dns_servers,
        host_routes: routes.map(|(destination, next_hop)| Route { destination, next_hop }).collect(),
        forward: &subnet.forward,
        lease_seconds: subnet.lease_seconds,
        dhcp_options: &subnet.dhcp_options,
        dhcp_boot: &subnet.dhcp_boot,
        dhcp_relays: &subnet.dhcp_relays,
        ipv6_mode: opt(&subnet.ipv6_mode),
        pd_block: opt(&subnet.pd_block),
        pd_length: Some(subnet.pd_length).filter(|length| *length > 0),
        ntp_servers: &subnet.ntp_servers,
        dhcp_pool_full: subnet.dhcp_pool_full,
        status: &subnet.status,
        problems: &subnet.problems,
    }
}

async fn show(client: &Client, path: &str, out: &mut Output) -> Result<(), CliError> {
    let inventory = client.inventory().await?;
    let info = parse_path(path).and_then(|(_, id)| inventory.subnets.get(&id));
    let subnet = describe(info.ok_or_else(|| CliError::NotFound("it is there no more".into()))?, &inventory);
    if out.json {
        return out.document(&subnet);
    }
    let routes: Vec<_> = subnet.host_routes.iter().map(|r| format!("{} via {}", r.destination, r.next_hop)).collect();
    let mut fields = vec![
        ("name", subnet.name.to_owned()),
        ("id", subnet.id.to_owned()),
        ("network", subnet.network.clone()),
        ("cidr", subnet.cidr.to_owned()),
        ("gateway", subnet.gateway.unwrap_or_default().to_owned()),
        ("host address", subnet.host_address.unwrap_or_default().to_owned()),
        ("pools", subnet.pools.join("\n")),
        ("dhcp", yes_no(subnet.dhcp)),
        ("dns", subnet.dns_servers.join("\n")),
        ("routes", routes.join("\n")),
        ("forward", subnet.forward.to_owned()),
        ("lease time", lease_time(subnet.lease_seconds)),
        ("dhcp options", subnet.dhcp_options.join("\n")),
        ("boot", subnet.dhcp_boot.join("\n")),
        ("relays", subnet.dhcp_relays.join("\n")),
        ("pool", if subnet.dhcp_pool_full { "full" } else { "has free addresses" }.to_owned()),
        ("status", subnet.status.to_owned()),
        ("problems", subnet.problems.join("\n")),
    ];
    if subnet.cidr.contains(':') {
        let own = [
            ("ipv6 mode", subnet.ipv6_mode.unwrap_or("none").to_owned()),
            ("delegates", delegates(&subnet)),
            ("time servers", subnet.ntp_servers.join("\n")),
        ];
        // Beside what it tells guests otherwise.
        let at = fields.iter().position(|(name, _)| *name == "dhcp options").unwrap_or(fields.len());
        fields.retain(|(name, _)| !matches!(*name, "dhcp options" | "boot"));
        fields.splice(at..at, own);
    }
    out.fields(&fields)
}
