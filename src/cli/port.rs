use super::{
    CliError, Output,
    client::{Client, Inventory, read},
    domain,
    field::{self, Fields, Form, Key, put, put_all},
    opt,
    security::{GroupRef, SecurityOptions, groups, merged, names, on_off},
    short,
};
use crate::{
    dbus::{Kind, PortInfo, parse_path},
    intent::{AddressPair, ResourceName},
    net::{BootRule, ClientId, DhcpOption, DnsLabel, MacAddr},
};
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Make a port on a network, before a guest needs it
    Create(Create),
    /// List ports
    #[command(visible_alias = "ls")]
    List {
        /// Of this network only
        #[arg(add = ArgValueCompleter::new(super::complete::networks))]
        network: Option<String>,
    },
    /// Show all of a port, with its problems
    Show {
        /// Name, id or MAC address
        #[arg(add = ArgValueCompleter::new(super::complete::ports))]
        name: String,
    },
    /// Change fields: address=10.0.0.9 dns-name=web; KEY= takes the default back
    ///
    /// Fields: name, mac, address, trunk, only-tagged, dns-name, dhcp-option, boot, client-id, device, port-security,
    /// security-group, isolated, allowed-address, rate-in, rate-out, burst-in, burst-out, dscp. Several values of one
    /// field are separated by commas, DHCP options by semicolons.
    Set {
        /// Name, id or MAC address
        #[arg(add = ArgValueCompleter::new(super::complete::ports))]
        name: String,
        #[arg(
            value_name = "KEY=VALUE",
            required_unless_present_any = [
                "port_security", "security_groups", "no_security_group", "isolated", "allowed_addresses", "rate_in",
                "rate_out", "burst_in", "burst_out", "dscp",
            ]
        )]
        fields: Vec<String>,
        #[command(flatten)]
        security: SecurityOptions,
        #[command(flatten)]
        traffic: Traffic,
    },
    /// Delete ports
    #[command(visible_alias = "rm")]
    Delete {
        /// Names, ids or MAC addresses
        #[arg(required = true, add = ArgValueCompleter::new(super::complete::ports))]
        names: Vec<String>,
    },
}

impl PortCommand {
    pub fn mutates(&self) -> bool {
        !matches!(self, Self::List { .. } | Self::Show { .. })
    }
}

#[derive(Debug, Args)]
pub struct Create {
    /// Name or id of the network
    #[arg(add = ArgValueCompleter::new(super::complete::networks))]
    network: String,
    #[arg(long)]
    name: Option<ResourceName>,
    /// MAC address of the guest's NIC [default: one of vmfabric's own]
    #[arg(long)]
    mac: Option<MacAddr>,
    /// IP address; may be repeated [default: a free one]
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<IpAddr>,
    /// VLANs that the guest sees tagged, 10,20-29 say
    #[arg(long, value_name = "VIDS")]
    trunk: Option<String>,
    /// Drop untagged frames of a trunk
    #[arg(long, requires = "trunk")]
    only_tagged: bool,
    /// Name in the network's DNS
    #[arg(long, value_name = "LABEL")]
    dns_name: Option<DnsLabel>,
    /// DHCP option, ntp-servers=10.0.0.1 or 150:ip=10.0.0.5; may be repeated
    #[arg(long = "dhcp-option", value_name = "OPTION=VALUE")]
    dhcp_options: Vec<DhcpOption>,
    /// Network boot: server=ADDRESS, bios=FILE, uefi-x64=FILE, ipxe=URL, http-x64=URL; may be repeated
    #[arg(long = "boot", value_name = "WHOM=FILE")]
    dhcp_boot: Vec<BootRule>,
    /// Client identifier (option 61) that gets the port's address too, in hexadecimal or text:NAME
    #[arg(long = "client-id", value_name = "ID")]
    dhcp_client_id: Option<ClientId>,
    /// The guest that it is for
    #[arg(long, value_name = "UUID|NAME")]
    device: Option<String>,
    #[command(flatten)]
    security: SecurityOptions,
    #[command(flatten)]
    traffic: Traffic,
}

#[derive(Debug, Args)]
pub struct Traffic {
    /// Address, or prefix, that the guest may use besides its own, with another MAC address perhaps; may be repeated
    #[arg(long = "allowed-address", value_name = "IP[/LEN][,MAC]")]
    allowed_addresses: Vec<AddressPair>,
    /// What the guest is sent at most: bits per second, 500k, 100M or 1G
    #[arg(long, value_name = "RATE", value_parser = field::kilobits)]
    rate_in: Option<u32>,
    /// What the guest sends at most
    #[arg(long, value_name = "RATE", value_parser = field::kilobits)]
    rate_out: Option<u32>,
    /// What may be sent to the guest at once: bits, 500k or 8M [default: a tenth of a second's worth]
    #[arg(long, value_name = "BITS", value_parser = field::kilobits)]
    burst_in: Option<u32>,
    /// What the guest may send at once [default: eight tenths of a second's worth]
    #[arg(long, value_name = "BITS", value_parser = field::kilobits)]
    burst_out: Option<u32>,
    /// DSCP that is written into what the guest sends, 0 to 63
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..64))]
    dscp: Option<u8>,
}

impl Traffic {
    fn put(&self, fields: &mut Fields) {
        put_all(fields, "allowed_address_pairs", &self.allowed_addresses);
        let numbers = [
            ("ingress_kbps", self.rate_in),
            ("egress_kbps", self.rate_out),
            ("ingress_burst_kb", self.burst_in),
            ("egress_burst_kb", self.burst_out),
        ];
        fields.extend(numbers.into_iter().filter_map(|(field, number)| Some((field, number?.into()))));
        fields.extend(self.dscp.map(|dscp| ("dscp", dscp.into())));
    }
}

const KEYS: &[Key] = &[
    Key { names: &["name"], field: "name", form: Form::Text },
    Key { names: &["mac"], field: "mac", form: Form::Text },
    Key { names: &["address", "addresses"], field: "addresses", form: Form::Texts },
    Key { names: &["trunk", "trunk_vlans"], field: "trunk_vlans", form: Form::Vlans },
    Key { names: &["only-tagged", "trunk_only_tagged"], field: "trunk_only_tagged", form: Form::Flag },
    Key { names: &["dns-name", "dns_name"], field: "dns_name", form: Form::Text },
    Key { names: &["dhcp-option", "dhcp_options"], field: "dhcp_options", form: Form::Lines },
    Key { names: &["boot", "dhcp_boot"], field: "dhcp_boot", form: Form::Texts },
    Key { names: &["client-id", "dhcp_client_id"], field: "dhcp_client_id", form: Form::Text },
    Key { names: &["device"], field: "device", form: Form::Domain },
    Key { names: &["port-security", "port_security"], field: "port_security", form: Form::Flag },
    Key { names: &["security-group", "security_groups"], field: "security_groups", form: Form::Texts },
    Key { names: &["isolated"], field: "isolated", form: Form::Flag },
    Key { names: &["allowed-address", "allowed_address_pairs"], field: "allowed_address_pairs", form: Form::Pairs },
    Key { names: &["rate-in", "ingress_kbps"], field: "ingress_kbps", form: Form::Kilobits },
    Key { names: &["rate-out", "egress_kbps"], field: "egress_kbps", form: Form::Kilobits },
    Key { names: &["burst-in", "ingress_burst_kb"], field: "ingress_burst_kb", form: Form::Kilobits },
    Key { names: &["burst-out", "egress_burst_kb"], field: "egress_burst_kb", form: Form::Kilobits },
    Key { names: &["dscp"], field: "dscp", form: Form::Number },
];

/// The JSON form of a port.
#[derive(Debug, Serialize)]
struct Port<'a> {
    id: &'a str,
    name: Option<&'a str>,
    network: String,
    network_id: Option<String>,
    mac: &'a str,
    addresses: &'a [String],
    /// Empty: an access port.
    trunk_vlans: &'a [u16],
    trunk_only_tagged: bool,
    dns_name: Option<&'a str>,
    /// As people write them.
    dhcp_options: &'a [String],
    dhcp_boot: &'a [String],
    dhcp_client_id: Option<&'a str>,
    /// UUID and name of the guest that it is for.
    device: Option<&'a str>,
    device_name: Option<&'a str>,
    /// `admin` or `guest`.
    origin: &'a str,
    /// `down`, `build`, `active`, `degraded` or `error`.
    status: &'a str,
    /// The running guest's interface on the host, and its UUID.
    tap: Option<&'a str>,
    domain: Option<&'a str>,
    /// As applied, its network's say included.
    port_security: bool,
    isolated: bool,
    /// Its own.
    security_groups: Vec<GroupRef<'a>>,
    /// Those that apply.
    effective_security_groups: Vec<GroupRef<'a>>,
    /// Whether groups apply.
    filtered: bool,
    /// Which of `port_security`, `security_groups` and `isolated` its network says.
    inherited: &'a [String],
    allowed_address_pairs: Vec<Pair<'a>>,
    /// 1,000 bits per second, and 1,000 bits; `null`: no limit, and a tenth of a second's worth to the guest,
    /// eight tenths from it.
    egress_kbps: Option<u32>,
    egress_burst_kb: Option<u32>,
    ingress_kbps: Option<u32>,
    ingress_burst_kb: Option<u32>,
    dscp: Option<i16>,
    problems: &'a [String],
    /// `port show` alone; `null`: no running guest has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics: Option<Statistics>,
}

/// Packets by reason.
pub type Drops = BTreeMap<String, u64>;

/// What a running guest's NIC carried, as the guest sees it.
#[derive(Debug, Serialize, Deserialize)]
struct Statistics {
    sent_bytes: u64,
    sent_packets: u64,
    received_bytes: u64,
    received_packets: u64,
    /// That the guest did not take in time.
    unread_packets: u64,
    drops: Drops,
}

pub fn dropped(drops: &Drops) -> String {
    match drops.is_empty() {
        true => "none".to_owned(),
        false => drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", "),
    }
}

#[derive(Debug, Serialize)]
struct Pair<'a> {
    ip: &'a str,
    /// `null`: the port's own.
    mac: Option<&'a str>,
}

pub async fn run(command: PortCommand, client: &Client, out: &mut Output) -> Result<(), CliError> {
    match command {
        PortCommand::Create(create) => {
            let path = client.manager.create_port(&create.fields()?).await.map_err(CliError::of)?;
            show(client, &path, out).await
        }
        PortCommand::List { network } => {
            let only = match network {
                Some(network) => Some(client.find(Kind::Network, &network).await?),
                None => None,
            };
            let inventory = client.inventory().await?;
            let wanted = |port: &&PortInfo| only.as_ref().is_none_or(|only| *only == port.network);
            let mut ports: Vec<_> =
                inventory.ports.values().filter(wanted).map(|port| describe(port, &inventory)).collect();
            ports.sort_by(|a, b| (&a.network, a.name, a.mac).cmp(&(&b.network, b.name, b.mac)));
            out.table(&ports, &["name", "id", "network", "mac", "addresses", "guest", "tap", "status"], |port| {
                vec![
                    port.name.unwrap_or_default().to_owned(),
                    short(port.id),
                    port.network.clone(),
                    port.mac.to_owned(),
                    port.addresses.join(", "),
                    port.guest(),
                    port.tap.unwrap_or_default().to_owned(),
                    port.status.to_owned(),
                ]
            })
        }
        PortCommand::Show { name } => {
            let path = client.find(Kind::Port, &name).await?;
            show(client, &path, out).await
        }
        PortCommand::Set { name, fields, security, traffic } => {
            let mut options = Fields::new();
            security.put(&mut options);
            traffic.put(&mut options);
            client.update(Kind::Port, &name, &merged(field::parse(KEYS, &fields)?, options)?).await
        }
        PortCommand::Delete { names } => client.delete(Kind::Port, &names).await,
    }
}

impl Create {
    fn fields(&self) -> Result<Fields, CliError> {
        let mut fields = Fields::from([("network", self.network.clone().into())]);
        put(&mut fields, "name", self.name.as_ref());
        put(&mut fields, "mac", self.mac);
        put(&mut fields, "dns_name", self.dns_name.as_ref());
        put_all(&mut fields, "addresses", &self.addresses);
        put_all(&mut fields, "dhcp_options", &self.dhcp_options);
        put_all(&mut fields, "dhcp_boot", &self.dhcp_boot);
        put(&mut fields, "dhcp_client_id", self.dhcp_client_id.as_ref());
        if let Some(trunk) = &self.trunk {
            fields.insert("trunk_vlans", field::vlans(trunk)?.into());
            fields.insert("trunk_only_tagged", self.only_tagged.into());
        }
        if let Some(device) = &self.device {
            fields.insert("device", domain::uuid_of(device)?.to_string().into());
        }
        self.security.put(&mut fields);
        self.traffic.put(&mut fields);
        Ok(fields)
    }
}

impl Port<'_> {
    /// The guest that it is for, or that has it.
    fn guest(&self) -> String {
        let uuid = self.domain.or(self.device).map(short);
        self.device_name.map(str::to_owned).or(uuid).unwrap_or_default()
    }

    /// A flag, and who says so.
    fn said(&self, flag: bool, field: &str) -> String {
        let whose = if self.inherited.iter().any(|name| name == field) { ", as its network says" } else { "" };
        format!("{}{whose}", on_off(flag))
    }

    fn groups(&self) -> String {
        if !self.filtered {
            let why = if self.port_security { "" } else { ", as port security is off" };
            return format!("none: not filtered by groups{why}");
        }
        let whose = if self.security_groups.is_empty() { " (its network's)" } else { "" };
        match names(&self.effective_security_groups).as_str() {
            "" => "none: nothing but address configuration passes".to_owned(),
            names => format!("{names}{whose}"),
        }
    }

    fn kind(&self) -> String {
        if self.trunk_vlans.is_empty() {
            return "access".to_owned();
        }
        let vids: Vec<_> = self.trunk_vlans.iter().map(ToString::to_string).collect();
        let untagged = if self.trunk_only_tagged { "dropped" } else { "the network's" };
        format!("trunk of {}; untagged frames are {untagged}", vids.join(", "))
    }
}

fn rate(kbps: Option<u32>, burst: Option<u32>) -> String {
    let burst = burst.map_or_else(String::new, |kb| format!(", {kb} kbit at once"));
    kbps.map_or_else(|| "no limit".to_owned(), |kbps| format!("{kbps} kbit/s{burst}"))
}

fn describe<'a>(port: &'a PortInfo, inventory: &'a Inventory) -> Port<'a> {
    let some = |number: u32| Some(number).filter(|number| *number != 0);
    Port {
        id: &port.id,
        name: opt(&port.name),
        network: inventory.network_name(&port.network),
        network_id: parse_path(&port.network).map(|(_, id)| id.to_string()),
        mac: &port.mac,
        addresses: &port.addresses,
        trunk_vlans: &port.trunk_vlans,
        trunk_only_tagged: port.trunk_only_tagged,
        dns_name: opt(&port.dns_name),
        dhcp_options: &port.dhcp_options,
        dhcp_boot: &port.dhcp_boot,
        dhcp_client_id: opt(&port.dhcp_client_id),
        device: opt(&port.device),
        device_name: opt(&port.device_name),
        origin: &port.origin,
        status: &port.status,
        tap: opt(&port.tap),
        domain: opt(&port.domain),
        port_security: port.port_security,
        isolated: port.isolated,
        security_groups: groups(&port.security_groups, inventory),
        effective_security_groups: groups(&port.effective_security_groups, inventory),
        filtered: port.filtered,
        inherited: &port.inherited,
        allowed_address_pairs: port.allowed_address_pairs.iter().map(|(ip, mac)| Pair { ip, mac: opt(mac) }).collect(),
        egress_kbps: some(port.egress_kbps),
        egress_burst_kb: some(port.egress_burst_kb),
        ingress_kbps: some(port.ingress_kbps),
        ingress_burst_kb: some(port.ingress_burst_kb),
        dscp: Some(port.dscp).filter(|dscp| *dscp >= 0),
        problems: &port.problems,
        statistics: None,
    }
}

fn carried(count: Option<(u64, u64)>) -> String {
    count.map(|(bytes, packets)| format!("{bytes} bytes in {packets} packets")).unwrap_or_default()
}

async fn show(client: &Client, path: &str, out: &mut Output) -> Result<(), CliError> {
    let inventory = client.inventory().await?;
    let info = parse_path(path).and_then(|(_, id)| inventory.ports.get(&id));
    let mut port = describe(info.ok_or_else(|| CliError::NotFound("it is there no more".into()))?, &inventory);
    if port.tap.is_some() {
        let object = path.try_into().map_err(|_| CliError::Protocol(format!("'{path}' is no object")))?;
        // Of a daemon that does not tell, the rest is shown.
        port.statistics = match client.resource(Kind::Port, object).await?.get_statistics().await {
            Ok(answer) => read(&answer).ok(),
            Err(_) => None,
        };
    }
    if out.json {
        return out.document(&port);
    }
    let made_by = match port.origin {
        "guest" => "a guest's NIC; goes when the guest is undefined",
        _ => "an administrator",
    };
    let pairs = port.allowed_address_pairs.iter();
    let pairs: Vec<_> =
        pairs.map(|pair| [Some(pair.ip), pair.mac].into_iter().flatten().collect::<Vec<_>>().join(" ")).collect();
    out.fields(&[
        ("name", port.name.unwrap_or_default().to_owned()),
        ("id", port.id.to_owned()),
        ("network", port.network.clone()),
        ("mac", port.mac.to_owned()),
        ("addresses", port.addresses.join("\n")),
        ("kind", port.kind()),
        ("dns name", port.dns_name.unwrap_or_default().to_owned()),
        ("dhcp options", port.dhcp_options.join("\n")),
        ("boot", port.dhcp_boot.join("\n")),
        ("client id", port.dhcp_client_id.unwrap_or_default().to_owned()),
        ("for guest", [port.device_name, port.device].into_iter().flatten().collect::<Vec<_>>().join(" ")),
        ("made by", made_by.to_owned()),
        ("status", port.status.to_owned()),
        ("tap", port.tap.unwrap_or_default().to_owned()),
        ("running guest", port.domain.unwrap_or_default().to_owned()),
        ("port security", port.said(port.port_security, "port_security")),
        ("security groups", port.groups()),
        ("isolated", port.said(port.isolated, "isolated")),
        ("allowed addresses", pairs.join("\n")),
        ("rate in", rate(port.ingress_kbps, port.ingress_burst_kb)),
        ("rate out", rate(port.egress_kbps, port.egress_burst_kb)),
        ("dscp", port.dscp.map(|dscp| dscp.to_string()).unwrap_or_default()),
        ("sent", carried(port.statistics.as_ref().map(|s| (s.sent_bytes, s.sent_packets)))),
        ("received", carried(port.statistics.as_ref().map(|s| (s.received_bytes, s.received_packets)))),
        ("dropped", port.statistics.as_ref().map(|s| dropped(&s.drops)).unwrap_or_default()),
        ("problems", port.problems.join("\n")),
    ])
}
