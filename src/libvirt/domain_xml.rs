//! Domain XML and hook XML as plain values. Needs neither libvirt nor a connection: the hook binary uses it too.
//!
//! Formats: <https://libvirt.org/formatdomain.html#network-interfaces>, <https://libvirt.org/hooks.html>.

use crate::net::{IfName, MacAddr, ParseError, VlanId};
use roxmltree::{Document, Node, ParsingOptions};
use std::{collections::HashMap, fmt, str::FromStr};
use uuid::Uuid;

/// The namespace of vmfabric's own `<metadata>` in a domain.
pub const METADATA_NS: &str = "https://vmfabric.org/xmlns/domain/1.0";
/// The largest XML that is read, in bytes; libvirt's own limit for one string (`REMOTE_STRING_MAX`).
pub const MAX_XML: usize = 4 << 20;
/// The most elements, texts and comments in one XML.
const MAX_NODES: u32 = 200_000;
const MAX_NICS: usize = 1024;
const MAX_WARNINGS: usize = 20;

/// What a domain's XML says about its networking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    pub uuid: Uuid,
    pub name: String,
    /// libvirt's number of a running domain. `None`: the XML describes a domain that does not run.
    pub id: Option<u32>,
    pub nics: Vec<Nic>,
    /// What was passed over in vmfabric's metadata: unknown attributes, a MAC that no NIC has.
    pub warnings: Vec<String>,
}

/// One `<interface>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    pub mac: MacAddr,
    pub source: NicSource,
    /// `<target dev>` of a network, bridge or ethernet NIC. In live XML it is the tap.
    pub tap: Option<IfName>,
    pub vlan: Option<NicVlan>,
    pub link_up: bool,
    /// `<port isolated='yes'/>`: no traffic to other isolated ports.
    pub isolated: bool,
    /// libvirt's name of the device, `net0`; the same that device events carry.
    pub alias: Option<String>,
    /// What vmfabric's metadata asks for this NIC.
    pub wish: Option<Wish>,
}

/// Where a NIC is plugged in. What cannot be a network or bridge of ours is `Other`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NicSource {
    /// A libvirt network. `bridge` and `portid` are there in live XML only, where libvirt writes the type of the
    /// bridge that it chose, with the network's name beside it.
    Network {
        name: String,
        bridge: Option<IfName>,
        portid: Option<Uuid>,
        portgroup: Option<String>,
    },
    Bridge {
        name: IfName,
    },
    Ethernet,
    Other,
}

/// `<vlan>`: an access port with one tag, or a trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicVlan {
    pub trunk: bool,
    /// In ascending order, never empty; holds `native` too.
    pub tags: Vec<VlanId>,
    /// The VLAN of a trunk's untagged frames.
    pub native: Option<VlanId>,
    /// `nativeMode='tagged'`: frames of the native VLAN leave tagged all the same.
    pub native_tagged: bool,
}

/// `<vmfabric:interface mac= network= port= vlan= trunk= native= security-groups= port-security=/>`.
///
/// `network` and `port` are names or UUIDs. `vlan='10'`, or `trunk='10,20-29'` with perhaps `native='10'`, stands in for
/// `<vlan>`, which libvirt before 11.0 refuses on such NICs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    pub network: Option<String>,
    pub port: Option<String>,
    pub vlan: Option<NicVlan>,
    /// Names or ids; empty: in no group.
    pub security_groups: Option<Vec<String>>,
    pub port_security: Option<bool>,
}

/// What libvirt's `network` hook gets on stdin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkHook {
    pub network_name: String,
    pub network_uuid: Uuid,
    /// At `port-created` and `port-deleted`.
    pub port: Option<NetworkPort>,
}

/// `<networkport>`: a NIC's place on a libvirt network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPort {
    pub uuid: Uuid,
    pub owner_name: String,
    pub owner_uuid: Uuid,
    pub mac: MacAddr,
    pub bridge: Option<IfName>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    #[error("the XML has {0} bytes; at most {MAX_XML} are read")]
    TooLarge(usize),
    #[error("the XML cannot be read: {0}")]
    Malformed(String),
    #[error("<{expected}> was expected, not <{found}>")]
    Root { expected: &'static str, found: String },
    #[error("<{parent}> has no usable <{child}>: {why}")]
    Field { parent: &'static str, child: &'static str, why: String },
    #[error("domain '{domain}' has {count} network interfaces; at most {MAX_NICS} are handled")]
    TooManyNics { domain: String, count: usize },
    #[error("domain '{domain}', {nic}: {why}")]
    Nic { domain: String, nic: NicRef, why: String },
    #[error("domain '{domain}', vmfabric metadata of {nic}: {why}")]
    Metadata { domain: String, nic: NicRef, why: String },
}

/// Which NIC an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NicRef {
    Mac(MacAddr),
    /// Counted from 1, in the order of the XML.
    Position(usize),
}

impl fmt::Display for NicRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => write!(f, "NIC {mac}"),
            Self::Position(n) => write!(f, "interface number {n}"),
        }
    }
}

/// Parses `<domain>`, live or inactive.
pub fn parse_domain(xml: &str) -> Result<Domain, XmlError> {
    let doc = document(xml)?;
    let root = rooted(&doc, "domain")?;
    let name = field(root, "domain", "name")?.to_owned();
    let uuid = parsed_field(root, "domain", "uuid")?;
    let id = root.attribute("id").and_then(|id| id.parse().ok());
    let interfaces: Vec<_> = children(root, "devices").flat_map(|devices| children(devices, "interface")).collect();
    if interfaces.len() > MAX_NICS {
        return Err(XmlError::TooManyNics { domain: clip(&name), count: interfaces.len() });
    }
    let nics = interfaces
        .into_iter()
        .enumerate()
        .map(|(index, node)| nic(node, index + 1, &name))
        .collect::<Result<Vec<_>, _>>()?;
    let mut domain = Domain { uuid, name, id, nics, warnings: Vec::new() };
    metadata(root, &mut domain)?;
    Ok(domain)
}

/// Parses `<hookData>`, the stdin of libvirt's `network` hook.
pub fn parse_network_hook(xml: &str) -> Result<NetworkHook, XmlError> {
    let doc = document(xml)?;
    let root = rooted(&doc, "hookData")?;
    let network = child(root, "hookData", "network")?;
    let port = children(root, "networkport").next().map(network_port).transpose()?;
    Ok(NetworkHook {
        network_name: field(network, "network", "name")?.to_owned(),
        network_uuid: parsed_field(network, "network", "uuid")?,
        port,
    })
}

fn network_port(node: Node<'_, '_>) -> Result<NetworkPort, XmlError> {
    let owner = child(node, "networkport", "owner")?;
    let address = child(node, "networkport", "mac")?.attribute("address").unwrap_or_default();
    let bad = |e: crate::net::ParseError| XmlError::Field { parent: "networkport", child: "mac", why: e.to_string() };
    Ok(NetworkPort {
        uuid: parsed_field(node, "networkport", "uuid")?,
        owner_name: field(owner, "owner", "name")?.to_owned(),
        owner_uuid: parsed_field(owner, "owner", "uuid")?,
        mac: address.parse().map_err(bad)?,
        bridge: children(node, "plug").find_map(|plug| IfName::new(plug.attribute("bridge")?).ok()),
    })
}

fn nic(node: Node<'_, '_>, position: usize, domain: &str) -> Result<Nic, XmlError> {
    let fail = |nic, why| XmlError::Nic { domain: clip(domain), nic, why };
    let mac = children(node, "mac").find_map(|mac| mac.attribute("address")).ok_or_else(|| {
        fail(NicRef::Position(position), "it has no MAC address; write <mac address='52:54:00:12:34:56'/>".to_owned())
    })?;
    let mac: MacAddr = mac.parse().map_err(|_| fail(NicRef::Position(position), mac_help(mac)))?;
    let at_mac = |why| fail(NicRef::Mac(mac), why);

    let source = source(node).map_err(at_mac)?;
    let (tap, vlan) = if source == NicSource::Other {
        (None, None)
    } else {
        let target = children(node, "target").find_map(|target| target.attribute("dev"));
        (target.and_then(|dev| IfName::new(dev).ok()), vlan_element(node).map_err(at_mac)?)
    };
    Ok(Nic {
        mac,
        source,
        tap,
        vlan,
        link_up: children(node, "link").all(|link| link.attribute("state") != Some("down")),
        isolated: children(node, "port").any(|port| port.attribute("isolated") == Some("yes")),
        alias: children(node, "alias").find_map(|alias| alias.attribute("name")).map(str::to_owned),
        wish: None,
    })
}

fn source(node: Node<'_, '_>) -> Result<NicSource, String> {
    let from = children(node, "source").next();
    let attribute = |name| from.and_then(|source| source.attribute(name));
    let bridge = attribute("bridge").and_then(|name| IfName::new(name).ok());
    Ok(match (node.attribute("type").unwrap_or_default(), attribute("network"), bridge) {
        ("network" | "bridge", Some(name), bridge) => {
            let portid = attribute("portid").map(Uuid::parse_str).transpose();
            NicSource::Network {
                name: name.to_owned(),
                bridge,
                portid: portid.map_err(|e| format!("the portid of its <source> is no UUID: {e}"))?,
                portgroup: attribute("portgroup").map(str::to_owned),
            }
        }
        ("bridge", None, Some(name)) => NicSource::Bridge { name },
        ("ethernet", ..) => NicSource::Ethernet,
        _ => NicSource::Other,
    })
}

fn vlan_element(node: Node<'_, '_>) -> Result<Option<NicVlan>, String> {
    let Some(vlan) = children(node, "vlan").next() else { return Ok(None) };
    let mut tags = Vec::new();
    let mut native = None;
    for tag in children(vlan, "tag") {
        let id = tag.attribute("id").ok_or("a <tag> of its <vlan> has no id; write <tag id='10'/>")?;
        let id: VlanId = id.parse().map_err(|_| vlan_help(id))?;
        tags.push(id);
        match tag.attribute("nativeMode") {
            None => {}
            Some(mode @ ("tagged" | "untagged")) if native.is_none() => native = Some((id, mode == "tagged")),
            Some("tagged" | "untagged") => return Err("two tags of its <vlan> have a nativeMode; keep one".to_owned()),
            Some(mode) => return Err(format!("nativeMode='{}' is neither 'tagged' nor 'untagged'", clip(mode))),
        }
    }
    tags.sort_unstable();
    tags.dedup();
    if tags.is_empty() {
        return Err("its <vlan> has no <tag>; write <vlan><tag id='10'/></vlan>".to_owned());
    }
    // As libvirt reads it (virNetDevVlanParse): several tags or a native one make a trunk.
    let trunk = vlan.attribute("trunk") == Some("yes") || tags.len() > 1 || native.is_some();
    Ok(Some(NicVlan {
        trunk,
        tags,
        native: native.map(|(id, _)| id),
        native_tagged: native.is_some_and(|(_, tagged)| tagged),
    }))
}

fn metadata(root: Node<'_, '_>, domain: &mut Domain) -> Result<(), XmlError> {
    let ours = children(root, "metadata")
        .flat_map(|metadata| metadata.children())
        .filter(|node| node.tag_name().namespace() == Some(METADATA_NS));
    let (ours, others): (Vec<_>, Vec<_>) = ours.partition(|node| node.tag_name().name() == "domain");
    for other in others {
        let name = clip(other.tag_name().name());
        warn(domain, || format!("vmfabric metadata: <{name}> is not known and was passed over; write <domain>"));
    }
    let mut by_mac: HashMap<MacAddr, Vec<usize>> = HashMap::new();
    for (index, nic) in domain.nics.iter().enumerate() {
        by_mac.entry(nic.mac).or_default().push(index);
    }
    let entries = ours.into_iter().flat_map(|node| node.children()).filter(Node::is_element);
    for (index, entry) in entries.enumerate() {
        let name = entry.tag_name();
        if name.namespace() != Some(METADATA_NS) || name.name() != "interface" {
            warn(domain, || format!("vmfabric metadata: <{}> is not known and was passed over", clip(name.name())));
            continue;
        }
        let (mac, wish) = wish(entry, index + 1, domain)?;
        match by_mac.get(&mac).map(Vec::as_slice) {
            None | Some([]) => warn(domain, || format!("vmfabric metadata: no NIC has the MAC address {mac}")),
            Some(&[at]) if domain.nics[at].wish.is_none() => domain.nics[at].wish = Some(wish),
            Some([_]) => return Err(bad_wish(domain, NicRef::Mac(mac), "it is there twice; keep one")),
            Some(_) => {
                return Err(bad_wish(domain, NicRef::Mac(mac), "several NICs have this MAC; give each its own"));
            }
        }
    }
    Ok(())
}

fn wish(entry: Node<'_, '_>, position: usize, domain: &mut Domain) -> Result<(MacAddr, Wish), XmlError> {
    let Some(text) = entry.attribute("mac") else {
        return Err(bad_wish(
            domain,
            NicRef::Position(position),
            "mac is missing; write <vmfabric:interface mac='52:54:00:12:34:56' network='NAME'/>",
        ));
    };
    let mac = text.parse().map_err(|_| bad_wish(domain, NicRef::Position(position), &mac_help(text)))?;
    let at_mac = |why: String| bad_wish(domain, NicRef::Mac(mac), &why);
    let name = |key: &str| match entry.attribute(key) {
        Some(text) if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) => {
            Err(at_mac(format!("{key}='{}' is no name and no UUID", clip(text))))
        }
        text => Ok(text.map(str::to_owned)),
    };
    let wish = Wish {
        network: name("network")?,
        port: name("port")?,
        vlan: wished_vlan(entry).map_err(at_mac)?,
        security_groups: entry.attribute("security-groups").map(wished_groups).transpose().map_err(at_mac)?,
        port_security: entry.attribute("port-security").map(on_or_off).transpose().map_err(at_mac)?,
    };
    for attribute in entry.attributes().map(|attribute| attribute.name()) {
        // A slip of the pen is not to leave a guest open.
        if !WISHES.contains(&attribute) && ["secur", "group"].iter().any(|part| attribute.contains(part)) {
            let why = format!("{} is not known; write security-groups='web' or port-security='off'", clip(attribute));
            return Err(bad_wish(domain, NicRef::Mac(mac), &why));
        }
        if !WISHES.contains(&attribute) {
            let nic = NicRef::Mac(mac);
            warn(domain, || {
                format!("vmfabric metadata of {nic}: {} is not known and was passed over", clip(attribute))
            });
        }
    }
    Ok((mac, wish))
}

/// What an `interface` of the metadata may say.
const WISHES: [&str; 8] = ["mac", "network", "port", "vlan", "trunk", "native", "security-groups", "port-security"];
/// The most security groups that a NIC may name.
const MAX_GROUPS: usize = 64;

/// Names separated by commas; none at all: in no group.
fn wished_groups(text: &str) -> Result<Vec<String>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = text.split(',').map(str::trim).take(MAX_GROUPS + 1).collect();
    match names.iter().find(|name| name.is_empty() || name.len() > 255 || name.chars().any(char::is_control)) {
        Some(bad) => Err(format!("security-groups has '{}', which is no name and no UUID", clip(bad))),
        None if names.len() > MAX_GROUPS => Err(format!("security-groups names more than {MAX_GROUPS}")),
        None => Ok(names.into_iter().map(str::to_owned).collect()),
    }
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("port-security='{}' is neither 'on' nor 'off'", clip(text))),
    }
}

fn wished_vlan(entry: Node<'_, '_>) -> Result<Option<NicVlan>, String> {
    let id = |text: &str| text.trim().parse::<VlanId>().map_err(|_| vlan_help(text));
    match (entry.attribute("vlan"), entry.attribute("trunk"), entry.attribute("native")) {
        (None, None, None) => Ok(None),
        (Some(vlan), None, None) => {
            Ok(Some(NicVlan { trunk: false, tags: vec![id(vlan)?], native: None, native_tagged: false }))
        }
        (Some(_), _, _) => {
            Err("vlan makes an access port, trunk and native make a trunk; write one or the other".to_owned())
        }
        (None, None, Some(_)) => Err("native needs trunk; write trunk='10,20' native='10'".to_owned()),
        (None, Some(trunk), native) => {
            let native = native.map(id).transpose()?;
            let mut tags: Vec<VlanId> = native.into_iter().collect();
            for part in trunk.split(',') {
                tags.extend(VlanId::parse_range(part).map_err(|error| match error {
                    ParseError::Vlan(text) => vlan_help(&text),
                    other => format!("trunk: {other}"),
                })?);
                if tags.len() > 4095 {
                    return Err("trunk names VLANs more than once; write each once".to_owned());
                }
            }
            tags.sort_unstable();
            tags.dedup();
            Ok(Some(NicVlan { trunk: true, tags, native, native_tagged: false }))
        }
    }
}

fn bad_wish(domain: &Domain, nic: NicRef, why: &str) -> XmlError {
    XmlError::Metadata { domain: clip(&domain.name), nic, why: why.to_owned() }
}

fn warn(domain: &mut Domain, text: impl FnOnce() -> String) {
    if domain.warnings.len() < MAX_WARNINGS {
        domain.warnings.push(text());
    }
}

fn mac_help(text: &str) -> String {
    format!("'{}' is no unicast MAC address; write it as 52:54:00:12:34:56", clip(text))
}

fn vlan_help(text: &str) -> String {
    format!("VLAN '{}' is out of range; VLAN IDs are 1 to 4094", clip(text))
}

/// The first 64 characters, without control characters, so that hostile text cannot flood or forge a log.
pub(super) fn clip(text: &str) -> String {
    let mut shown: String = text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Reads XML of bounded size, without DTDs and thus without entities of its own.
pub(super) fn document(xml: &str) -> Result<Document<'_>, XmlError> {
    if xml.len() > MAX_XML {
        return Err(XmlError::TooLarge(xml.len()));
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, entity_resolver: None };
    Document::parse_with_options(xml, options).map_err(|e| XmlError::Malformed(clip(&e.to_string())))
}

/// The root element, where it has this name.
pub(super) fn rooted<'a, 'i>(doc: &'a Document<'i>, expected: &'static str) -> Result<Node<'a, 'i>, XmlError> {
    let root = doc.root_element();
    if root.has_tag_name(expected) {
        Ok(root)
    } else {
        Err(XmlError::Root { expected, found: clip(root.tag_name().name()) })
    }
}

pub(super) fn children<'a, 'i: 'a>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| child.has_tag_name(name))
}

fn child<'a, 'i>(node: Node<'a, 'i>, parent: &'static str, name: &'static str) -> Result<Node<'a, 'i>, XmlError> {
    children(node, name).next().ok_or_else(|| XmlError::Field { parent, child: name, why: "it is missing".to_owned() })
}

pub(super) fn field<'a>(node: Node<'a, '_>, parent: &'static str, name: &'static str) -> Result<&'a str, XmlError> {
    match child(node, parent, name)?.text().map(str::trim) {
        None | Some("") => Err(XmlError::Field { parent, child: name, why: "it is empty".to_owned() }),
        Some(text) => Ok(text),
    }
}

pub(super) fn parsed_field<T: FromStr<Err: fmt::Display>>(
    node: Node<'_, '_>,
    parent: &'static str,
    name: &'static str,
) -> Result<T, XmlError> {
    let parsed = field(node, parent, name)?.parse();
    parsed.map_err(|e: T::Err| XmlError::Field { parent, child: name, why: e.to_string() })
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;").replace('"', "&quot;")
}

#[cfg(test)]
#[path = "domain_xml_tests.rs"]
mod tests;
