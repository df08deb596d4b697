//! What a port may send and receive, line by line.

use super::index::{Policy, macs};
use crate::{
    intent::{Direction, Ethertype, IntentError, Port, PortId, Protocol, Remote, Rule},
    net::protocol,
};
use serde::Serialize;

/// All that bounds a port's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub port: String,
    pub name: Option<String>,
    pub network: String,
    /// MAC addresses that it may send from.
    pub macs: Vec<String>,
    /// IP addresses that it may send from; empty where port security is off, or the network has no subnets.
    pub addresses: Vec<String>,
    /// Whether what it sends is checked for being its own.
    pub port_security: bool,
    pub isolated: bool,
    /// `null`: not filtered by groups.
    pub groups: Option<Vec<String>>,
    /// Whether answers to what is allowed are allowed, too.
    pub stateful: bool,
    pub sends: Vec<Line>,
    pub receives: Vec<Line>,
    /// What keeps it from working, each with what to do.
    pub problems: Vec<String>,
}

/// Something that passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub what: String,
    /// The security group whose rule it is; else it passes for every port.
    pub group: Option<String>,
    pub rule: Option<String>,
}

pub fn explain(policy: &Policy<'_>, id: PortId) -> Result<Explanation, IntentError> {
    let missing = || IntentError::not_found("port", id);
    let port = policy.intent.port(id).ok_or_else(missing)?;
    let protection = policy.protection(port).ok_or_else(missing)?;
    let network = policy.network(port).ok_or_else(missing)?;
    let groups: Option<Vec<_>> = policy.groups_of(port).map(Iterator::collect);
    let checked = protection.port_security && policy.intent.subnets_of(network.id).next().is_some();
    let fixed = port.fixed_ips.iter().map(|ip| ip.address.to_string());
    let pairs = port.security.address_pairs.iter().map(|pair| match pair.mac {
        Some(mac) => format!("{} from {mac}", pair.ip),
        None => pair.ip.to_string(),
    });
    Ok(Explanation {
        port: port.id.to_string(),
        name: port.name.as_ref().map(ToString::to_string),
        network: network.name.to_string(),
        macs: macs(port).map(|mac| mac.to_string()).collect(),
        addresses: if checked { fixed.chain(pairs).collect() } else { Vec::new() },
        port_security: protection.port_security,
        isolated: protection.isolated,
        stateful: groups.iter().flatten().any(|group| group.stateful),
        groups: groups.map(|groups| groups.iter().map(|group| group.name.to_string()).collect()),
        sends: lines(policy, port, Direction::Egress),
        receives: lines(policy, port, Direction::Ingress),
        problems: Vec::new(),
    })
}

fn lines(policy: &Policy<'_>, port: &Port, direction: Direction) -> Vec<Line> {
    let always = |what: String| Line { what, group: None, rule: None };
    let Some(groups) = policy.groups_of(port) else {
        let secured = policy.protection(port).is_some_and(|protection| protection.port_security);
        return vec![always(
            match (direction, secured) {
                (Direction::Egress, true) => {
                    "anything from its own addresses, but what servers, routers and switches send"
                }
                (Direction::Egress, false) => "anything, from any address",
                (Direction::Ingress, true) => "anything that is for its MAC addresses, broadcast and multicast",
                (Direction::Ingress, false) => "anything on its network",
            }
            .to_owned(),
        )];
    };
    let mut lines = vec![always(
        match direction {
            Direction::Egress => "address configuration: ARP, neighbour discovery, DHCP requests",
            Direction::Ingress => {
                "address configuration: ARP, neighbour discovery, this host's DHCP and router advertisements"
            }
        }
        .to_owned(),
    )];
    let groups: Vec<_> = groups.collect();
    if groups.iter().any(|group| group.stateful) {
        lines.push(always("answers to what it was allowed".to_owned()));
    }
    for group in groups {
        for rule in group.rules.iter().filter(|rule| rule.direction == direction) {
            lines.push(Line {
                what: describe(policy, rule),
                group: Some(group.name.to_string()),
                rule: Some(rule.id.to_string()),
            });
        }
    }
    lines
}

/// A rule in words: `IPv4 TCP 443 from members of group web`.
pub(super) fn describe(policy: &Policy<'_>, rule: &Rule) -> String {
    let ethertype = match rule.ethertype {
        Ethertype::Ipv4 => "IPv4",
        Ethertype::Ipv6 => "IPv6",
    };
    let protocol = match rule.protocol {
        Protocol::Any => String::new(),
        Protocol::Number { protocol } => format!(" {}", protocol::title(protocol)),
        Protocol::Ports { protocol, first, last } if first == last => format!(" {} {first}", protocol::title(protocol)),
        Protocol::Ports { protocol, first, last } => format!(" {} {first}-{last}", protocol::title(protocol)),
        Protocol::Icmp { kind: None, .. } => " ICMP".to_owned(),
        Protocol::Icmp { kind: Some(kind), code: None } => format!(" ICMP type {kind}"),
        Protocol::Icmp { kind: Some(kind), code: Some(code) } => format!(" ICMP type {kind} code {code}"),
    };
    let preposition = if rule.direction == Direction::Egress { "to" } else { "from" };
    let remote = match rule.remote {
        Remote::Any => "anywhere".to_owned(),
        Remote::Prefix(prefix) => prefix.to_string(),
        Remote::Host => "this host".to_owned(),
        Remote::Group(id) => {
            let name = policy.intent.security_group(id).map(|group| group.name.to_string());
            format!("members of group {}", name.unwrap_or_else(|| id.to_string()))
        }
        Remote::AddressGroup(id) => {
            let name = policy.intent.address_group(id).map(|group| group.name.to_string());
            format!("addresses of {}", name.unwrap_or_else(|| id.to_string()))
        }
    };
    format!("{ethertype}{protocol} {preposition} {remote}")
}
