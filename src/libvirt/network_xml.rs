//! libvirt's own networks as drafts of ours, and what of them has no counterpart.
//!
//! Format: <https://libvirt.org/formatnetwork.html>. What is read is either in a draft or named in
//! [`Imported::left_out`]; what libvirt writes of itself (bridge, UUIDs, defaults) is passed over.

mod ip;

use super::domain_xml::{self, XmlError, children, clip, field};
use crate::{
    intent::{Forward, NetworkDraft, PortDraft, ResourceName, SubnetDraft},
    net::{DnsForwarder, DnsLabel, DnsRecord, DomainName, IfName, RecordData, RecordName, RecordTarget, VlanId},
};
use roxmltree::Node;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};
use uuid::Uuid;

/// The most lines about what is left out.
const MAX_NOTES: usize = 200;
/// A TXT record's strings (RFC 1035 section 3.3), bytes.
const TXT_STRING: usize = 255;
const TXT_ALL: usize = 2048;

/// A libvirt network, in our words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    pub uuid: Option<Uuid>,
    pub name: ResourceName,
    /// Its mode as libvirt calls it; `isolated` for a network without `<forward>`.
    pub mode: String,
    /// The bridge that its guests are on.
    pub bridge: Option<IfName>,
    /// For mode `bridge` the physical network is still to be found: the one with this bridge.
    pub network: NetworkDraft,
    pub subnets: Vec<SubnetDraft>,
    /// Reservations.
    pub ports: Vec<PortDraft>,
    /// What guests that name a port group get from it.
    pub portgroups: BTreeMap<String, PortGroup>,
    /// What is not carried over, each with the reason and what to do.
    pub left_out: Vec<String>,
}

/// Rates in 1,000 bits per second, bursts in 1,000 bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortGroup {
    pub default: bool,
    /// What the guest is sent.
    pub ingress: Option<(u32, Option<u32>)>,
    /// What the guest sends.
    pub egress: Option<(u32, Option<u32>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Xml(#[from] XmlError),
    #[error("libvirt's network '{name}' cannot be taken over: {why}")]
    Unsupported { name: String, why: String },
}

/// Reads `<network>`, from `virsh net-dumpxml` or a file.
pub fn parse_network(xml: &str) -> Result<Imported, ImportError> {
    let doc = domain_xml::document(xml)?;
    let root = domain_xml::rooted(&doc, "network")?;
    let name = field(root, "network", "name")?;
    let refuse = |why: String| ImportError::Unsupported { name: clip(name), why };
    let resource = ResourceName::new(name).map_err(|error| refuse(format!("{error}; rename it in libvirt first")))?;
    let mode = match first(root, "forward") {
        None => "isolated",
        Some(forward) => forward.attribute("mode").unwrap_or("nat"),
    };
    let forward = match mode {
        "nat" => Forward::Nat,
        "route" | "open" => Forward::Routed,
        "isolated" | "bridge" => Forward::None,
        "private" | "vepa" | "passthrough" | "hostdev" => {
            return Err(refuse(format!(
                "mode '{mode}' gives guests the host's NIC itself, past any bridge; leave it in libvirt"
            )));
        }
        other => return Err(refuse(format!("its mode '{}' is not known", clip(other)))),
    };
    let bridge = first(root, "bridge").and_then(|bridge| bridge.attribute("name")).map(IfName::new).transpose();
    let bridge = bridge.map_err(|error| refuse(error.to_string()))?;
    if mode == "bridge" && bridge.is_none() {
        return Err(refuse("its guests use macvtap on the host's NIC, past any bridge; leave it in libvirt".into()));
    }
    if first(root, "virtualport").is_some() {
        return Err(refuse("it is on Open vSwitch or 802.1Qbg (<virtualport>); leave it in libvirt".into()));
    }
    let mut reader = Reader {
        imported: Imported {
            uuid: domain_xml::parsed_field(root, "network", "uuid").ok(),
            network: NetworkDraft {
                // As it was: libvirt's networks have neither; `vmfabric network set` switches them on.
                port_security: Some(false),
                security_groups: Some(Vec::new()),
                ..NetworkDraft::named(resource.clone())
            },
            name: resource,
            mode: mode.to_owned(),
            bridge,
            subnets: Vec::new(),
            ports: Vec::new(),
            portgroups: BTreeMap::new(),
            left_out: Vec::new(),
        },
        nat6: false,
    };
    reader.network(root, forward);
    Ok(reader.imported)
}

struct Reader {
    imported: Imported,
    /// `<nat ipv6='yes'>`; else mode `nat` routes IPv6.
    nat6: bool,
}

impl Reader {
    fn leave(&mut self, what: impl Into<String>) {
        match self.imported.left_out.len() {
            len if len < MAX_NOTES => self.imported.left_out.push(what.into()),
            MAX_NOTES => self.imported.left_out.push("… and more".into()),
            _ => {}
        }
    }

    /// The value where it is one; else it is left out with the reason.
    fn value<T: FromStr<Err: Display>>(&mut self, what: &str, text: Option<&str>) -> Option<T> {
        let text = text?.trim();
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.leave(format!("{what} '{}': {error}", clip(text)));
                None
            }
        }
    }

    fn network(&mut self, root: Node<'_, '_>, forward: Forward) {
        if let Some(domain) = first(root, "domain") {
            self.imported.network.dns_domain = self.value("domain", domain.attribute("name"));
            // Else libvirt's dnsmasq asks the host's resolvers for names in it that nobody has.
            self.imported.network.dns_forward_unknown =
                self.imported.network.dns_domain.is_some() && domain.attribute("localOnly") != Some("yes");
            if domain.attribute("register") == Some("yes") && self.imported.network.dns_forward_unknown {
                self.leave(
                    "domain register='yes': systemd-resolved is told where unknown names in the domain are nobody \
                     else's (vmfabric network set NETWORK forward-unknown=no)",
                );
            }
        }
        self.imported.network.mtu = self.value("mtu", first(root, "mtu").and_then(|mtu| mtu.attribute("size")));
        if first(root, "port").is_some_and(|port| port.attribute("isolated") == Some("yes")) {
            self.imported.network.isolated = Some(true);
        }
        self.vlan(root);
        if let Some(node) = first(root, "forward") {
            self.forward(node);
        }
        self.dns(root);
        for ip in children(root, "ip") {
            self.ip(ip, forward);
        }
        for route in children(root, "route") {
            self.route(route);
        }
        for group in children(root, "portgroup") {
            self.portgroup(group);
        }
        self.odds(root);
    }

    fn vlan(&mut self, root: Node<'_, '_>) {
        let Some(vlan) = first(root, "vlan") else { return };
        let tags: Vec<&str> = children(vlan, "tag").filter_map(|tag| tag.attribute("id")).collect();
        match tags.as_slice() {
            [tag] if vlan.attribute("trunk") != Some("yes") && self.imported.mode == "bridge" => {
                self.imported.network.vlan = self.value::<VlanId>("vlan", Some(tag));
            }
            _ => self.leave(
                "vlan: a trunk is a port's here; say it in the guest's metadata (trunk='10,20') or by 'vmfabric port \
                 create --trunk'",
            ),
        }
    }

    fn forward(&mut self, node: Node<'_, '_>) {
        if let Some(nat) = first(node, "nat") {
            if first(nat, "address").is_some() {
                self.leave("nat address: guests leave with the address of the host's interface, not with a pool's");
            }
            if first(nat, "port").is_some() {
                self.leave("nat port: the kernel picks source ports from all there are");
            }
            self.nat6 = nat.attribute("ipv6") == Some("yes");
        }
        let links: BTreeSet<&str> = children(node, "interface").filter_map(|link| link.attribute("dev")).collect();
        let links: BTreeSet<&str> = links.into_iter().chain(node.attribute("dev")).collect();
        if !links.is_empty() {
            let links = links.into_iter().map(clip).collect::<Vec<_>>().join(", ");
            self.leave(format!(
                "forward dev {links}: guests leave by the links with a default route and those of [forwarding] egress in \
                 vmfabricd.toml, whichever the route says"
            ));
        }
        if self.imported.mode == "open" {
            self.leave(
                "forward mode 'open': becomes routed, which forwards both ways; who may reach whom is for the host's \
                 own filter as before, or for security groups",
            );
        }
    }

    fn dns(&mut self, root: Node<'_, '_>) {
        let Some(dns) = first(root, "dns") else { return };
        if dns.attribute("enable") == Some("no") {
            self.leave("dns enable='no': names are served all the same, at the gateway's address");
        }
        if dns.attribute("forwardPlainNames") == Some("yes") {
            self.leave("dns forwardPlainNames='yes': names without a dot are never asked of others");
        }
        for forwarder in children(dns, "forwarder") {
            let domain = self.value::<DomainName>("dns forwarder domain", forwarder.attribute("domain"));
            if forwarder.attribute("domain").is_some() && domain.is_none() {
                continue;
            }
            let server = match forwarder.attribute("addr") {
                None => {
                    let domain = domain.map_or_else(|| "all names".to_owned(), |domain| domain.to_string());
                    self.leave(format!("dns forwarder for {domain} without address: the host's resolvers are asked"));
                    continue;
                }
                Some(text) => {
                    let port = forwarder.attribute("port").map_or(Ok(53), str::parse::<u16>);
                    match (text.trim().parse::<IpAddr>(), port) {
                        (Ok(address), Ok(port)) => DnsForwarder::server(&SocketAddr::new(address, port).to_string()),
                        _ => None,
                    }
                }
            };
            match server {
                Some(server) => {
                    let forwarder = DnsForwarder { domain, server: Some(server) };
                    self.imported.network.dns_forwarders.push(forwarder);
                }
                None => self.leave("dns forwarder: its address is none that can be asked"),
            }
        }
        for host in children(dns, "host") {
            let Some(address) = self.value::<IpAddr>("dns host", host.attribute("ip")) else { continue };
            let data = match address {
                IpAddr::V4(v4) => RecordData::A(v4),
                IpAddr::V6(v6) => RecordData::Aaaa(v6),
            };
            for name in children(host, "hostname").filter_map(|name| name.text()) {
                self.record("dns host", name.trim(), data.clone());
            }
        }
        for txt in children(dns, "txt") {
            let (name, text) = (txt.attribute("name").unwrap_or_default(), txt.attribute("value").unwrap_or_default());
            match strings(text) {
                Some(strings) => self.record("dns txt", name, RecordData::Txt(strings)),
                None => self.leave(format!("dns txt '{}': a text has 1 to {TXT_ALL} bytes", clip(name))),
            }
        }
        for srv in children(dns, "srv") {
            self.srv(srv);
        }
    }

    fn srv(&mut self, srv: Node<'_, '_>) {
        let text = |name| srv.attribute(name).map(str::trim).filter(|text| !text.is_empty());
        let label = |name| text(name).unwrap_or_default().trim_start_matches('_').to_owned();
        let mut name = format!("_{}._{}", label("service"), label("protocol"));
        if let Some(domain) = text("domain") {
            name = format!("{name}.{}", domain.trim_end_matches('.'));
        }
        let number = |name| text(name).map_or(Ok(0), str::parse::<u16>);
        let target = text("target").map(|target| self.target(target));
        let (Ok(port), Ok(priority), Ok(weight)) = (number("port"), number("priority"), number("weight")) else {
            return self.leave(format!("dns srv '{}': port, priority or weight is out of range", clip(&name)));
        };
        match target {
            Some(Ok(target)) => self.record("dns srv", &name, RecordData::Srv { priority, weight, port, target }),
            _ => self.leave(format!("dns srv '{}': its target is no name", clip(&name))),
        }
    }

    /// One label is a name in the domain; so is what ends with it.
    fn target(&self, text: &str) -> Result<RecordTarget, crate::net::ParseError> {
        RecordTarget::new(text.trim_end_matches('.'))
    }

    /// libvirt's names are whole, or one label that means the same in the domain.
    fn record(&mut self, what: &str, name: &str, data: RecordData) {
        let domain = self.domain();
        let name = name.trim_end_matches('.');
        let bare = name.strip_suffix(domain.as_str()).and_then(|name| name.strip_suffix('.'));
        let within = match bare {
            Some(bare) => Some(bare),
            None if name == domain.as_str() => Some(RecordName::DOMAIN),
            // A service's name has its dots before the domain.
            None if !name.contains('.') || what == "dns srv" && name.matches('.').count() == 1 => Some(name),
            None => None,
        };
        let Some(within) = within else {
            return self
                .leave(format!("{what} '{}': only names in the network's domain ({domain}) are served", clip(name)));
        };
        match RecordName::new(within) {
            Ok(name) => {
                let record = DnsRecord { name, ttl: None, data };
                if !self.imported.network.dns_records.contains(&record) {
                    self.imported.network.dns_records.push(record);
                }
            }
            Err(error) => self.leave(format!("{what} '{}': {error}", clip(name))),
        }
    }

    fn domain(&self) -> String {
        let own = self.imported.network.dns_domain.as_ref().map(ToString::to_string);
        own.unwrap_or_else(|| {
            let label = DnsLabel::from_free_text(self.imported.name.as_str());
            format!("{}.internal", label.as_ref().map_or("network", |label| label.as_str()))
        })
    }

    fn route(&mut self, route: Node<'_, '_>) {
        let text = |name| clip(route.attribute(name).unwrap_or_default());
        let length = route.attribute("prefix").or(route.attribute("netmask")).map(clip).unwrap_or_default();
        self.leave(format!(
            "route to {}/{length} via {}: the host's own routes are not ours to set; give it to the host's network \
             configuration, on the new bridge",
            text("address"),
            text("gateway")
        ));
    }

    fn portgroup(&mut self, node: Node<'_, '_>) {
        let name = node.attribute("name").unwrap_or_default();
        let shown = clip(name);
        let mut group = PortGroup { default: node.attribute("default") == Some("yes"), ..PortGroup::default() };
        if let Some(bandwidth) = first(node, "bandwidth") {
            // libvirt's inbound is what the guest receives; its units are kilobytes and kilobytes a second.
            group.ingress = self.rate(&format!("portgroup '{shown}' inbound"), first(bandwidth, "inbound"));
            group.egress = self.rate(&format!("portgroup '{shown}' outbound"), first(bandwidth, "outbound"));
        }
        for (element, why) in [
            ("vlan", "VLANs are a network's or a port's: say it in the guest's metadata"),
            ("virtualport", "there is no Open vSwitch and no 802.1Qbg here"),
        ] {
            if first(node, element).is_some() {
                self.leave(format!("portgroup '{shown}' {element}: {why}"));
            }
        }
        if node.attribute("trustGuestRxFilters") == Some("yes") {
            self.leave(format!("portgroup '{shown}' trustGuestRxFilters: it is macvtap's"));
        }
        self.leave(format!(
            "portgroup '{shown}': the guests that name it now get its limits on their ports; later ones need theirs \
             (vmfabric port set PORT egress_kbps=…)"
        ));
        self.imported.portgroups.insert(name.to_owned(), group);
    }

    fn rate(&mut self, what: &str, node: Option<Node<'_, '_>>) -> Option<(u32, Option<u32>)> {
        let node = node?;
        for other in ["peak", "floor"] {
            if node.attribute(other).is_some() {
                self.leave(format!("{what} {other}: a limit is a rate and a burst here"));
            }
        }
        // Kilobytes of 1,024 bytes a second, and KiB (formatnetwork.html, "Quality of service").
        let kbit =
            |text: &str| text.trim().parse::<u64>().ok().and_then(|n| u32::try_from(n.checked_mul(8192)? / 1000).ok());
        let average = node.attribute("average").and_then(kbit).filter(|rate| *rate > 0)?;
        Some((average, node.attribute("burst").and_then(kbit).filter(|burst| *burst > 0)))
    }

    fn odds(&mut self, root: Node<'_, '_>) {
        if first(root, "bandwidth").is_some() {
            self.leave(
                "bandwidth: a network has no limit for all its guests together; ports have theirs (vmfabric port set \
                 PORT egress_kbps=…)",
            );
        }
        if let Some(bridge) = first(root, "bridge") {
            if let Some(zone) = bridge.attribute("zone") {
                self.leave(format!("bridge zone '{}': the bridge is in firewalld's zone 'vmfabric'", clip(zone)));
            }
            if bridge.attribute("macTableManager") == Some("libvirt") {
                self.leave("bridge macTableManager='libvirt': the bridge learns addresses by itself");
            }
            if bridge.attribute("delay").is_some_and(|delay| delay.trim() != "0") && self.imported.mode != "bridge" {
                self.leave("bridge delay: ports forward at once, since the bridge runs no spanning tree");
            }
        }
        if root.attribute("ipv6") == Some("yes") {
            self.leave("ipv6='yes': guests of one network reach each other by IPv6 anyhow");
        }
        if root.attribute("trustGuestRxFilters") == Some("yes") {
            self.leave("trustGuestRxFilters: it is macvtap's");
        }
        for element in ["title", "description", "metadata"] {
            if first(root, element).is_some() {
                self.leave(format!("{element}: networks have a name alone"));
            }
        }
        let options = root.children().filter(|node| node.tag_name().name() == "options");
        for option in options.flat_map(|options| options.children().filter(Node::is_element)) {
            let value = clip(option.attribute("value").unwrap_or_default());
            self.leave(format!("dnsmasq option '{value}': no dnsmasq serves it; see dhcp-option and forwarders"));
        }
    }
}

fn first<'a, 'i: 'a>(node: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    children(node, name).next()
}

/// In pieces that fit, cut between characters.
fn strings(text: &str) -> Option<Vec<std::sync::Arc<str>>> {
    if text.is_empty() || text.len() > TXT_ALL {
        return None;
    }
    let (mut pieces, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let cut = (0..=rest.len().min(TXT_STRING)).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(cut);
        pieces.push(piece.into());
        rest = after;
    }
    Some(pieces)
}

#[cfg(test)]
#[path = "network_xml_tests.rs"]
mod tests;
