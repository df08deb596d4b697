use super::{
    CliError, Output,
    client::{Client, Inventory},
    field::{self, Fields, Form, Key, put, put_all},
    opt,
    security::{GroupRef, SecurityOptions, groups, merged, names, on_off},
    short,
};
use crate::{
    dbus::{Kind, NetworkInfo, SubnetInfo, parse_path},
    intent::ResourceName,
    net::{BootRule, DhcpOption, DnsForwarder, DomainName, VlanId},
};
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use serde::Serialize;

#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make a network: local to this host, or on a physical network, flat or with a VLAN
    Create(Create),
    /// List networks
    #[command(visible_alias = "ls")]
    List,
    /// Show all of a network, with its problems
    Show {
        #[arg(add = ArgValueCompleter::new(super::complete::networks))]
        name: String,
    },
    /// Change fields: mtu=1450 domain=lab.internal; KEY= takes the default back
    ///
    /// Fields: name, physical, vlan, mtu, domain, port-security, security-group, isolated, dhcp-option, boot;
    /// forwarders=corp.example=10.0.0.53,192.0.2.53 (who is asked about other names), shared-with=web,db (networks that
    /// see this one's names), forward-unknown=yes (names in the domain that nobody has are asked of others). Several
    /// values of one field are separated by commas, DHCP options by semicolons.
    Set {
        #[arg(add = ArgValueCompleter::new(super::complete::networks))]
        name: String,
        #[arg(
            value_name = "KEY=VALUE",
            required_unless_present_any = ["port_security", "security_groups", "no_security_group", "isolated"]
        )]
        fields: Vec<String>,
        #[command(flatten)]
        security: SecurityOptions,
    },
    /// Delete networks with their subnets and ports
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(required = true, add = ArgValueCompleter::new(super::complete::networks))]
        names: Vec<String>,
    },
}

impl NetworkCommand {
    pub fn mutates(&self) -> bool {
        !matches!(self, Self::List | Self::Show { .. })
    }
}

#[derive(Debug, Args)]
pub struct Create {
    name: ResourceName,
    /// Physical network of vmfabricd.toml that carries it
    #[arg(long, value_name = "NAME")]
    physical: Option<ResourceName>,
    /// VLAN ID on the physical network; without it the network is flat (untagged)
    #[arg(long, value_name = "VID", requires = "physical")]
    vlan: Option<VlanId>,
    /// What guests are told, bytes [default: 1500]
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u16>,
    /// Where guests' names live [default: NAME.internal]
    #[arg(long)]
    domain: Option<DomainName>,
    /// Who is asked about other names: DOMAIN=ADDRESS, DOMAIN= for nobody, or ADDRESS for all; may be repeated
    #[arg(long = "forwarder", value_name = "[DOMAIN=]ADDRESS")]
    forwarders: Vec<DnsForwarder>,
    /// A network whose guests may ask for this one's names; may be repeated
    #[arg(long, value_name = "NETWORK")]
    shared_with: Vec<String>,
    #[command(flatten)]
    security: SecurityOptions,
    /// DHCP option, ntp-servers=10.0.0.1 or 150:ip=10.0.0.5; may be repeated
    #[arg(long = "dhcp-option", value_name = "OPTION=VALUE")]
    dhcp_options: Vec<DhcpOption>,
    /// Network boot: server=ADDRESS, bios=FILE, uefi-x64=FILE, ipxe=URL, http-x64=URL; may be repeated
    #[arg(long = "boot", value_name = "WHOM=FILE")]
    dhcp_boot: Vec<BootRule>,
}

const KEYS: &[Key] = &[
    Key { names: &["name"], field: "name", form: Form::Text },
    Key { names: &["physical", "physical_network"], field: "physical_network", form: Form::Text },
    Key { names: &["vlan"], field: "vlan", form: Form::Number },
    Key { names: &["mtu"], field: "mtu", form: Form::Number },
    Key { names: &["domain", "dns_domain"], field: "dns_domain", form: Form::Text },
    Key { names: &["port-security", "port_security"], field: "port_security", form: Form::Flag },
    Key { names: &["security-group", "security_groups"], field: "security_groups", form: Form::Texts },
    Key { names: &["isolated"], field: "isolated", form: Form::Flag },
    Key { names: &["forwarders", "dns_forwarders"], field: "dns_forwarders", form: Form::Texts },
    Key { names: &["shared-with", "dns_shared_with"], field: "dns_shared_with", form: Form::Texts },
    Key { names: &["forward-unknown", "dns_forward_unknown"], field: "dns_forward_unknown", form: Form::Flag },
    Key { names: &["dhcp-option", "dhcp_options"], field: "dhcp_options", form: Form::Lines },
    Key { names: &["boot", "dhcp_boot"], field: "dhcp_boot", form: Form::Texts },
];

/// The JSON form of a network.
#[derive(Debug, Serialize)]
struct Network<'a> {
    id: &'a str,
    name: &'a str,
    /// `local`, `flat` or `vlan`.
    segment: &'a str,
    physical_network: Option<&'a str>,
    vlan: Option<u16>,
    bridge: Option<&'a str>,
    mtu: u16,
    dns_domain: &'a str,
    /// How many there are; `record list` shows them.
    dns_records: usize,
    dns_forwarders: &'a [String],
    /// Names.
    dns_shared_with: Vec<&'a str>,
    dns_forward_unknown: bool,
    /// As people write them.
    dhcp_options: &'a [String],
    dhcp_boot: &'a [String],
    subnets: Vec<SubnetSummary<'a>>,
    /// How many there are.
    ports: usize,
    /// What ports have that say nothing of their own.
    port_security: bool,
    security_groups: Vec<GroupRef<'a>>,
    isolated: bool,
    /// `active` or `error`.
    status: &'a str,
    problems: &'a [String],
}

#[derive(Debug, Serialize)]
struct SubnetSummary<'a> {
    id: &'a str,
    name: &'a str,
    cidr: &'a str,
}

pub async fn run(command: NetworkCommand, client: &Client, out: &mut Output) -> Result<(), CliError> {
    match command {
        NetworkCommand::Create(create) => {
            let path = client.manager.create_network(&create.fields()).await.map_err(CliError::of)?;
            show(client, &path, out).await
        }
        NetworkCommand::List => {
            let inventory = client.inventory().await?;
            let mut networks: Vec<_> = inventory.networks.values().map(|n| describe(n, &inventory)).collect();
            networks.sort_by_key(|network| network.name);
            out.table(&networks, &["name", "id", "segment", "bridge", "subnets", "ports", "status"], |network| {
                vec![
                    network.name.to_owned(),
                    short(network.id),
                    network.carried(),
                    network.bridge.unwrap_or_default().to_owned(),
                    network.subnets.iter().map(|subnet| subnet.cidr).collect::<Vec<_>>().join(", "),
                    network.ports.to_string(),
                    network.status.to_owned(),
                ]
            })
        }
        NetworkCommand::Show { name } => {
            let path = client.find(Kind::Network, &name).await?;
            show(client, &path, out).await
        }
        NetworkCommand::Set { name, fields, security } => {
            let mut options = Fields::new();
            security.put(&mut options);
            client.update(Kind::Network, &name, &merged(field::parse(KEYS, &fields)?, options)?).await
        }
        NetworkCommand::Delete { names } => client.delete(Kind::Network, &names).await,
    }
}

impl Create {
    fn fields(&self) -> Fields {
        let mut fields = Fields::from([("name", self.name.to_string().into())]);
        put(&mut fields, "physical_network", self.physical.as_ref());
        put(&mut fields, "dns_domain", self.domain.as_ref());
        put_all(&mut fields, "dns_forwarders", &self.forwarders);
        put_all(&mut fields, "dns_shared_with", &self.shared_with);
        put_all(&mut fields, "dhcp_options", &self.dhcp_options);
        put_all(&mut fields, "dhcp_boot", &self.dhcp_boot);
        fields.extend(self.vlan.map(|vid| ("vlan", vid.get().into())));
        fields.extend(self.mtu.map(|mtu| ("mtu", mtu.into())));
        self.security.put(&mut fields);
        fields
    }
}

impl Network<'_> {
    /// The segment in words.
    fn carried(&self) -> String {
        match (self.physical_network, self.vlan) {
            (Some(physical), Some(vid)) => format!("VLAN {vid} on {physical}"),
            (Some(physical), None) => format!("{} on {physical}", self.segment),
            (None, _) => self.segment.to_owned(),
        }
    }
}

fn describe<'a>(network: &'a NetworkInfo, inventory: &'a Inventory) -> Network<'a> {
    let id = network.id.parse().unwrap_or_default();
    let path = Kind::Network.path(id);
    let subnets = network.subnets.iter().filter_map(|path| inventory.subnets.get(&parse_path(path)?.1));
    let named = |path: &'a zbus::OwnedObjectPath| Some(inventory.networks.get(&parse_path(path)?.1)?.name.as_str());
    let summary = |subnet: &'a SubnetInfo| SubnetSummary { id: &subnet.id, name: &subnet.name, cidr: &subnet.cidr };
    Network {
        id: &network.id,
        name: &network.name,
        segment: &network.segment,
        physical_network: opt(&network.physical_network),
        vlan: Some(network.vlan).filter(|vid| *vid != 0),
        bridge: opt(&network.bridge),
        mtu: network.mtu,
        dns_domain: &network.dns_domain,
        dns_records: network.dns_records.len(),
        dns_forwarders: &network.dns_forwarders,
        dns_shared_with: network.dns_shared_with.iter().filter_map(named).collect(),
        dns_forward_unknown: network.dns_forward_unknown,
        dhcp_options: &network.dhcp_options,
        dhcp_boot: &network.dhcp_boot,
        subnets: subnets.map(summary).collect(),
        ports: inventory.ports.values().filter(|port| port.network == path).count(),
        port_security: network.port_security,
        security_groups: groups(&network.security_groups, inventory),
        isolated: network.isolated,
        status: &network.status,
        problems: &network.problems,
    }
}

async fn show(client: &Client, path: &str, out: &mut Output) -> Result<(), CliError> {
    let inventory = client.inventory().await?;
    let info = parse_path(path).and_then(|(_, id)| inventory.networks.get(&id));
    let network = describe(info.ok_or_else(|| CliError::NotFound("it is there no more".into()))?, &inventory);
    if out.json {
        return out.document(&network);
    }
    let subnets: Vec<_> = network.subnets.iter().map(|subnet| format!("{} ({})", subnet.name, subnet.cidr)).collect();
    out.fields(&[
        ("name", network.name.to_owned()),
        ("id", network.id.to_owned()),
        ("segment", network.carried()),
        ("bridge", network.bridge.unwrap_or_default().to_owned()),
        ("mtu", network.mtu.to_string()),
        ("domain", network.dns_domain.to_owned()),
        ("records", network.dns_records.to_string()),
        ("forwarders", network.dns_forwarders.join("\n")),
        ("shared with", network.dns_shared_with.join(", ")),
        ("unknown names", if network.dns_forward_unknown { "forwarded" } else { "do not exist" }.to_owned()),
        ("dhcp options", network.dhcp_options.join("\n")),
        ("boot", network.dhcp_boot.join("\n")),
        ("subnets", subnets.join("\n")),
        ("ports", network.ports.to_string()),
        ("port security", on_off(network.port_security).to_owned()),
        ("security groups", names(&network.security_groups)),
        ("isolated", on_off(network.isolated).to_owned()),
        ("status", network.status.to_owned()),
        ("problems", network.problems.join("\n")),
    ])
}
