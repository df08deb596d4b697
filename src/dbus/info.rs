//! Each object's properties as one value: what the daemon exports and clients read.

use super::path;
use crate::{
    intent::{
        AddressGroup, AddressPair, Network, NetworkSecurity, Origin, Port, Protection, Rate, RuleDraft, RuleDrafts,
        SecurityGroup, SecurityGroupId, Segment, Subnet,
    },
    reconciler::{Health, LibvirtStatus, Subject, View},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use zbus::{OwnedObjectPath, SerializeDict, Type, Variant};

/// The properties that differ, by name, as `PropertiesChanged` carries them.
pub type Changes = HashMap<&'static str, Variant<'static>>;

macro_rules! changes {
    ($old:ident, $new:ident: $($name:literal => $field:ident),* $(,)?) => {{
        let mut changes = Changes::new();
        $(if $old.$field != $new.$field {
            changes.insert($name, Variant::from($new.$field.clone()));
        })*
        changes
    }};
}

/// `org.vmfabric1.Network`. Where a text or number is absent it is empty or 0.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, SerializeDict, Type)]
#[serde(rename_all = "PascalCase")]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
pub struct NetworkInfo {
    pub id: String,
    pub name: String,
    /// `local`, `flat` or `vlan`.
    pub segment: String,
    pub physical_network: String,
    pub vlan: u16,
    /// The bridge that guests' taps are on.
    pub bridge: String,
    /// Bytes; what guests are told.
    pub mtu: u16,
    pub dns_domain: String,
    /// Lines of a zone file without the class: `NAME [TTL] TYPE DATA`.
    pub dns_records: Vec<String>,
    /// `DOMAIN=ADDRESS`, or `ADDRESS` for all names.
    pub dns_forwarders: Vec<String>,
    /// Networks whose guests may ask for this one's names.
    pub dns_shared_with: Vec<OwnedObjectPath>,
    pub dns_forward_unknown: bool,
    /// As people write them, `ntp-servers=10.0.0.1`.
    pub dhcp_options: Vec<String>,
    pub dhcp_boot: Vec<String>,
    pub subnets: Vec<OwnedObjectPath>,
    /// What ports have that say nothing of their own.
    pub port_security: bool,
    pub security_groups: Vec<OwnedObjectPath>,
    pub isolated: bool,
    /// `active`, or `error` where there are problems.
    pub status: String,
    pub problems: Vec<String>,
}

/// `org.vmfabric1.Subnet`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, SerializeDict, Type)]
#[serde(rename_all = "PascalCase")]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
pub struct SubnetInfo {
    pub id: String,
    pub network: OwnedObjectPath,
    pub name: String,
    pub cidr: String,
    pub gateway: String,
    pub host_address: String,
    /// `FIRST-LAST` each.
    pub pools: Vec<String>,
    pub dhcp: bool,
    pub dns_servers: Vec<String>,
    /// Destination and next hop.
    pub host_routes: Vec<(String, String)>,
    /// `none`, `routed` or `nat`.
    pub forward: String,
    /// 4294967295: for ever.
    pub lease_seconds: u32,
    pub dhcp_options: Vec<String>,
    pub dhcp_boot: Vec<String>,
    pub dhcp_relays: Vec<String>,
    /// `slaac`, `stateful` or `stateless`.
    pub ipv6_mode: String,
    pub pd_block: String,
    pub pd_length: u8,
    pub ntp_servers: Vec<String>,
    /// No address of the pools is left for another guest.
    pub dhcp_pool_full: bool,
    pub status: String,
    pub problems: Vec<String>,
}

/// `org.vmfabric1.Port`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, SerializeDict, Type)]
#[serde(rename_all = "PascalCase")]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
pub struct PortInfo {
    pub id: String,
    pub network: OwnedObjectPath,
    pub name: String,
    pub mac: String,
    pub addresses: Vec<String>,
    /// Empty: an access port.
    pub trunk_vlans: Vec<u16>,
    pub trunk_only_tagged: bool,
    pub dns_name: String,
    pub dhcp_options: Vec<String>,
    pub dhcp_boot: Vec<String>,
    pub dhcp_client_id: String,
    /// UUID of the libvirt domain that it is for.
    pub device: String,
    /// That domain's name, where known.
    pub device_name: String,
    /// `admin` or `guest`: who made it, and so who deletes it.
    pub origin: String,
    /// `down`, `build`, `active` or `error`.
    pub status: String,
    /// The running guest's interface on the host.
    pub tap: String,
    /// UUID of the running guest.
    pub domain: String,
    /// As applied, its network's say included.
    pub port_security: bool,
    pub isolated: bool,
    /// Its own.
    pub security_groups: Vec<OwnedObjectPath>,
    /// Those that apply.
    pub effective_security_groups: Vec<OwnedObjectPath>,
    /// Whether groups apply: what none of them allows is dropped.
    pub filtered: bool,
    /// Which of `port_security`, `security_groups` and `isolated` its network says.
    pub inherited: Vec<String>,
    /// Prefix and MAC address; empty: its own.
    pub allowed_address_pairs: Vec<(String, String)>,
    /// 1,000 bits per second; 0: no limit.
    pub egress_kbps: u32,
    /// 1,000 bits; 0: a tenth of a second's worth to the guest, eight tenths from it.
    pub egress_burst_kb: u32,
    pub ingress_kbps: u32,
    pub ingress_burst_kb: u32,
    /// -1: packets keep theirs.
    pub dscp: i16,
    pub problems: Vec<String>,
}

/// `org.vmfabric1.SecurityGroup`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, SerializeDict, Type)]
#[serde(rename_all = "PascalCase")]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
pub struct SecurityGroupInfo {
    pub id: String,
    pub name: String,
    pub description: String,
    pub stateful: bool,
    pub rules: Rules,
}

/// The rules of a group, as `aa{sv}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Type)]
#[serde(transparent)]
#[zbus(signature = "aa{sv}")]
pub struct Rules(pub Vec<RuleInfo>);

/// A rule: its id beside the fields that made it; groups by their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    pub id: String,
    pub rule: RuleDraft,
}

/// `org.vmfabric1.AddressGroup`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, SerializeDict, Type)]
#[serde(rename_all = "PascalCase")]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
pub struct AddressGroupInfo {
    pub id: String,
    pub name: String,
    pub description: String,
    /// Prefixes.
    pub addresses: Vec<String>,
}

/// `org.vmfabric1.Manager`, without what is constant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManagerInfo {
    /// `ok` or `degraded`.
    pub health: String,
    /// What is wrong anywhere, each with what to do.
    pub problems: Vec<String>,
    /// `connected`, `connecting` or `disconnected`.
    pub libvirt_status: String,
    /// Why it is disconnected.
    pub libvirt_detail: String,
    pub capabilities: BTreeMap<String, bool>,
    pub networks: u32,
    pub subnets: u32,
    pub ports: u32,
    pub security_groups: u32,
    pub address_groups: u32,
    /// Ports that a running guest has.
    pub attached_ports: u32,
    pub leases: u32,
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

fn paths<'a>(groups: impl IntoIterator<Item = &'a SecurityGroupId>) -> Vec<OwnedObjectPath> {
    groups.into_iter().map(|id| path::security_group(*id)).collect()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn problems(view: &View, subject: Subject) -> Vec<String> {
    view.problems_of(subject).map(|problem| problem.message.clone()).collect()
}

fn status(problems: &[String]) -> String {
    if problems.is_empty() { "active" } else { "error" }.to_owned()
}

impl NetworkInfo {
    pub fn of(network: &Network, view: &View) -> Self {
        let (segment, vlan) = match &network.segment {
            Segment::Local => ("local", 0),
            Segment::Flat { .. } => ("flat", 0),
            Segment::Vlan { vid, .. } => ("vlan", vid.get()),
        };
        let physical = network.segment.physical_network();
        let physical_bridge = physical.and_then(|name| view.host.physical_networks.get(name)).map(|p| p.bridge());
        let problems = problems(view, Subject::Network(network.id));
        Self {
            id: network.id.to_string(),
            name: network.name.to_string(),
            segment: segment.to_owned(),
            physical_network: text(physical),
            vlan,
            bridge: text(network.bridge.as_ref().or(physical_bridge)),
            mtu: network.effective_mtu(),
            dns_domain: network.domain().to_string(),
            dns_records: texts(&network.dns.records),
            dns_forwarders: texts(&network.dns.forwarders),
            dns_shared_with: network
                .dns
                .shared_with
                .iter()
                .filter(|id| view.intent.network(**id).is_some())
                .map(|id| path::network(*id))
                .collect(),
            dns_forward_unknown: network.dns.forward_unknown,
            dhcp_options: texts(&network.dhcp_options),
            dhcp_boot: texts(&network.dhcp_boot),
            subnets: view.intent.subnets_of(network.id).map(|subnet| path::subnet(subnet.id)).collect(),
            port_security: network.security.port_security,
            security_groups: paths(&network.security.groups),
            isolated: network.security.isolated,
            status: status(&problems),
            problems,
        }
    }

    pub fn changes(old: &Self, new: &Self) -> Changes {
        changes!(old, new: "Name" => name, "Segment" => segment, "PhysicalNetwork" => physical_network,
            "Vlan" => vlan, "Bridge" => bridge, "Mtu" => mtu, "DnsDomain" => dns_domain, "DnsRecords" => dns_records,
            "DnsForwarders" => dns_forwarders, "DnsSharedWith" => dns_shared_with,
            "DnsForwardUnknown" => dns_forward_unknown, "DhcpOptions" => dhcp_options, "DhcpBoot" => dhcp_boot,
            "Subnets" => subnets,
            "PortSecurity" => port_security, "SecurityGroups" => security_groups, "Isolated" => isolated,
            "Status" => status, "Problems" => problems)
    }

    /// Whether it shows this.
    pub(super) fn has_security(&self, security: &NetworkSecurity) -> bool {
        self.port_security == security.port_security
            && self.isolated == security.isolated
            && self.security_groups == paths(&security.groups)
    }
}

impl SubnetInfo {
    pub fn of(subnet: &Subnet, view: &View) -> Self {
        let problems = problems(view, Subject::Subnet(subnet.id));
        let route = |route: &crate::intent::HostRoute| (route.destination.to_string(), route.next_hop.to_string());
        Self {
            id: subnet.id.to_string(),
            network: path::network(subnet.network),
            name: subnet.name.to_string(),
            cidr: subnet.cidr.to_string(),
            gateway: text(subnet.gateway),
            host_address: text(subnet.host_address),
            pools: texts(&subnet.pools),
            dhcp: subnet.dhcp,
            dns_servers: texts(&subnet.dns_servers),
            host_routes: subnet.host_routes.iter().map(route).collect(),
            forward: subnet.forward.to_string(),
            lease_seconds: subnet.lease_seconds,
            dhcp_options: texts(&subnet.dhcp_options),
            dhcp_boot: texts(&subnet.dhcp_boot),
            dhcp_relays: texts(&subnet.dhcp_relays),
            ipv6_mode: text(subnet.ipv6_mode),
            pd_block: text(subnet.delegation.map(|delegation| delegation.block)),
            pd_length: subnet.delegation.map_or(0, |delegation| delegation.length),
            ntp_servers: texts(&subnet.ntp_servers),
            dhcp_pool_full: view.full_pools.contains(&subnet.id),
            status: status(&problems),
            problems,
        }
    }

    pub fn changes(old: &Self, new: &Self) -> Changes {
        changes!(old, new: "Network" => network, "Name" => name, "Cidr" => cidr, "Gateway" => gateway,
            "HostAddress" => host_address, "Pools" => pools, "Dhcp" => dhcp, "DnsServers" => dns_servers,
            "HostRoutes" => host_routes, "Forward" => forward, "LeaseSeconds" => lease_seconds,
            "DhcpOptions" => dhcp_options, "DhcpBoot" => dhcp_boot, "DhcpRelays" => dhcp_relays,
            "Ipv6Mode" => ipv6_mode, "PdBlock" => pd_block, "PdLength" => pd_length, "NtpServers" => ntp_servers,
            "DhcpPoolFull" => dhcp_pool_full, "Status" => status,
            "Problems" => problems)
    }
}

impl PortInfo {
    pub fn of(port: &Port, view: &View) -> Self {
        let attachment = view.attachments.get(&port.id);
        let guest = attachment.and_then(|attachment| attachment.guest.as_ref());
        let trunk = port.trunk.as_ref();
        let default = NetworkSecurity::default();
        let network = view.intent.network(port.network);
        let own = &port.security;
        let applied = Protection::of(network.map_or(&default, |network| &network.security), own);
        let inherited = [
            ("port_security", own.port_security.is_none()),
            ("security_groups", own.groups.is_none()),
            ("isolated", own.isolated.is_none()),
        ];
        let pair = |pair: &AddressPair| (pair.ip.to_string(), text(pair.mac));
        let kbps = |rate: Option<Rate>| rate.map_or(0, |rate| rate.kbps);
        let burst = |rate: Option<Rate>| rate.map_or(0, |rate| rate.burst_kb);
        Self {
            id: port.id.to_string(),
            network: path::network(port.network),
            name: text(port.name.as_ref()),
            mac: port.mac.to_string(),
            addresses: texts(port.fixed_ips.iter().map(|ip| ip.address)),
            trunk_vlans: trunk.map(|trunk| trunk.tagged.iter().map(|vid| vid.get()).collect()).unwrap_or_default(),
            trunk_only_tagged: trunk.is_some_and(|trunk| !trunk.native),
            dns_name: text(port.dns_name.as_ref()),
            dhcp_options: texts(&port.dhcp_options),
            dhcp_boot: texts(&port.dhcp_boot),
            dhcp_client_id: text(port.dhcp_client_id.as_ref()),
            device: text(port.device.as_ref().map(|device| device.domain)),
            device_name: text(guest.or(port.device.as_ref()).map(|device| &device.name)),
            origin: match port.origin {
                Origin::Admin => "admin",
                Origin::Guest => "guest",
            }
            .to_owned(),
            status: view.port_status(port.id).as_str().to_owned(),
            tap: text(attachment.map(|attachment| &attachment.tap)),
            domain: text(guest.map(|guest| guest.domain)),
            port_security: applied.port_security,
            isolated: applied.isolated,
            security_groups: paths(own.groups.iter().flatten()),
            effective_security_groups: paths(applied.groups.into_iter().flatten()),
            filtered: applied.groups.is_some(),
            inherited: texts(inherited.into_iter().filter(|(_, from)| *from).map(|(name, _)| name)),
            allowed_address_pairs: own.address_pairs.iter().map(pair).collect(),
            egress_kbps: kbps(own.qos.egress),
            egress_burst_kb: burst(own.qos.egress),
            ingress_kbps: kbps(own.qos.ingress),
            ingress_burst_kb: burst(own.qos.ingress),
            dscp: own.qos.dscp.map_or(-1, i16::from),
            problems: problems(view, Subject::Port(port.id)),
        }
    }

    pub fn changes(old: &Self, new: &Self) -> Changes {
        changes!(old, new: "Name" => name, "Mac" => mac, "Addresses" => addresses, "TrunkVlans" => trunk_vlans,
            "TrunkOnlyTagged" => trunk_only_tagged, "DnsName" => dns_name, "DhcpOptions" => dhcp_options,
            "DhcpBoot" => dhcp_boot, "DhcpClientId" => dhcp_client_id, "Device" => device,
            "DeviceName" => device_name, "Origin" => origin, "Status" => status, "Tap" => tap, "Domain" => domain,
            "PortSecurity" => port_security, "Isolated" => isolated, "SecurityGroups" => security_groups,
            "EffectiveSecurityGroups" => effective_security_groups, "Filtered" => filtered, "Inherited" => inherited,
            "AllowedAddressPairs" => allowed_address_pairs, "EgressKbps" => egress_kbps,
            "EgressBurstKb" => egress_burst_kb, "IngressKbps" => ingress_kbps, "IngressBurstKb" => ingress_burst_kb,
            "Dscp" => dscp, "Problems" => problems)
    }
}

impl SecurityGroupInfo {
    pub fn of(group: &SecurityGroup) -> Self {
        let rule = |rule: &crate::intent::Rule| RuleInfo { id: rule.id.to_string(), rule: RuleDraft::of(rule) };
        Self {
            id: group.id.to_string(),
            name: group.name.to_string(),
            description: group.description.clone(),
            stateful: group.stateful,
            rules: Rules(group.rules.iter().map(rule).collect()),
        }
    }

    pub fn changes(old: &Self, new: &Self) -> Changes {
        changes!(old, new: "Name" => name, "Description" => description, "Stateful" => stateful, "Rules" => rules)
    }
}

impl AddressGroupInfo {
    pub fn of(group: &AddressGroup) -> Self {
        Self {
            id: group.id.to_string(),
            name: group.name.to_string(),
            description: group.description.clone(),
            addresses: texts(&group.addresses),
        }
    }

    pub fn changes(old: &Self, new: &Self) -> Changes {
        changes!(old, new: "Name" => name, "Description" => description, "Addresses" => addresses)
    }
}

impl Rules {
    pub fn dictionaries(&self) -> Vec<HashMap<String, Variant<'static>>> {
        self.0.iter().map(RuleInfo::dictionary).collect()
    }
}

impl Serialize for Rules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.dictionaries().serialize(serializer)
    }
}

impl From<Rules> for Variant<'static> {
    fn from(rules: Rules) -> Self {
        rules.dictionaries().into()
    }
}

impl RuleInfo {
    fn dictionary(&self) -> HashMap<String, Variant<'static>> {
        let mut dictionary = HashMap::from([("id".to_owned(), Variant::from(self.id.clone()))]);
        let Ok(Value::Object(fields)) = serde_json::to_value(&self.rule) else { return dictionary };
        for (key, value) in fields {
            let value: Variant<'static> = match value {
                Value::String(text) => text.into(),
                Value::Bool(flag) => flag.into(),
                Value::Number(n) => match n.as_u64() {
                    // ICMP types and codes are bytes, ports are not.
                    Some(n) if key.starts_with("icmp_") => u8::try_from(n).unwrap_or(u8::MAX).into(),
                    n => u16::try_from(n.unwrap_or_default()).unwrap_or(u16::MAX).into(),
                },
                Value::Null | Value::Array(_) | Value::Object(_) => continue,
            };
            dictionary.insert(key, value);
        }
        dictionary
    }
}

impl<'de> Deserialize<'de> for RuleInfo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields: Map<String, Value> = Map::deserialize(deserializer)?;
        let id = fields.remove("id").as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        let rules: RuleDrafts = serde_json::from_value(Value::Object(fields)).map_err(de::Error::custom)?;
        let rule = rules.0.into_iter().next().ok_or_else(|| de::Error::custom("a rule says nothing"))?;
        Ok(Self { id, rule })
    }
}

impl ManagerInfo {
    pub fn of(view: &View) -> Self {
        let (libvirt_status, libvirt_detail) = match &view.libvirt {
            LibvirtStatus::Connected => ("connected", ""),
            LibvirtStatus::Connecting => ("connecting", ""),
            LibvirtStatus::Disconnected { reason } => ("disconnected", reason.as_str()),
        };
        let capabilities = [
            ("bridge_vlan_filtering", view.capabilities.bridge_vlan_filtering),
            ("nft_bridge_meta", view.capabilities.nft_bridge_meta),
            ("bridge_conntrack", view.capabilities.bridge_conntrack),
            ("nft_owner", view.capabilities.nft_owner),
        ];
        let mut problems: Vec<String> = view.problems.iter().map(|problem| described(problem, view)).collect();
        problems.sort();
        Self {
            health: match view.health() {
                Health::Ok => "ok",
                Health::Degraded => "degraded",
            }
            .to_owned(),
            problems,
            libvirt_status: libvirt_status.to_owned(),
            libvirt_detail: libvirt_detail.to_owned(),
            capabilities: capabilities.into_iter().map(|(name, has)| (name.to_owned(), has)).collect(),
            networks: count(view.intent.networks().len()),
            subnets: count(view.intent.subnets().len()),
            ports: count(view.intent.ports().len()),
            security_groups: count(view.intent.security_groups().len()),
            address_groups: count(view.intent.address_groups().len()),
            attached_ports: count(view.attachments.len()),
            leases: count(view.leases.len()),
        }
    }

    pub fn changes(old: &Self, new: &Self) -> Changes {
        changes!(old, new: "Health" => health, "Problems" => problems, "LibvirtStatus" => libvirt_status,
            "LibvirtDetail" => libvirt_detail, "Capabilities" => capabilities, "Networks" => networks,
            "Subnets" => subnets, "Ports" => ports, "SecurityGroups" => security_groups,
            "AddressGroups" => address_groups, "AttachedPorts" => attached_ports, "Leases" => leases)
    }
}

/// A problem with what it is about.
fn described(problem: &crate::reconciler::Problem, view: &View) -> String {
    let named = |kind: &str, name: String| format!("{kind} {name}: {}", problem.message);
    match problem.subject {
        Subject::Host => problem.message.clone(),
        Subject::Network(id) => {
            named("network", view.intent.network(id).map_or_else(|| id.to_string(), |n| n.name.to_string()))
        }
        Subject::Subnet(id) => {
            named("subnet", view.intent.subnet(id).map_or_else(|| id.to_string(), |s| s.name.to_string()))
        }
        Subject::Port(id) => {
            let name = view.intent.port(id).and_then(|port| port.name.as_ref());
            named("port", name.map_or_else(|| id.to_string(), ToString::to_string))
        }
    }
}
