//! A packet of somebody's choice, followed from end to end.

use super::{
    Domain, Drop, Grant, IpPacket, Packet, Payload, Peer, State, Step, Upper, Verdict, explain::describe,
    index::Policy, packet::icmp6,
};
use crate::{
    intent::{IntentError, NetworkId, Port, PortId},
    net::protocol,
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is to be followed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// A port (name, id, MAC address), an IP address, or `host`.
    pub from: String,
    /// The same.
    pub to: String,
    /// A name (tcp, udp, icmp, …) or number; default: ICMP echo.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Destination port.
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default)]
    pub source_port: Option<u16>,
    #[serde(default)]
    pub icmp_type: Option<u8>,
    #[serde(default)]
    pub icmp_code: Option<u8>,
    /// The tag that a trunk port sends it with.
    #[serde(default)]
    pub vlan: Option<u16>,
}

/// A packet's way in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trace {
    pub packet: String,
    pub steps: Vec<String>,
    pub allowed: bool,
    /// The name of the drop's counter, `group-in` say.
    pub reason: Option<String>,
    /// The port whose filter drops it.
    pub port: Option<String>,
}

/// Why nothing could be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    #[error(transparent)]
    Intent(#[from] IntentError),
    #[error("{0}")]
    Invalid(String),
}

/// One end of a way.
#[derive(Debug, Clone, Copy)]
enum End<'a> {
    Port(&'a Port),
    Host,
    Address(IpAddr),
}

pub fn trace(policy: &Policy<'_>, request: &Request) -> Result<Trace, TraceError> {
    let from = end(policy, &request.from, None)?;
    let near = match from {
        End::Port(port) => Some(port.network),
        _ => None,
    };
    let to = end(policy, &request.to, near)?;
    let (source, destination) = addresses(policy, from, to)?;
    let upper = upper(request, source.is_ipv6())?;
    let ip = IpPacket::new(source, destination, upper);
    let verdict = follow(policy, request, from, to, &ip)?;
    Ok(tell(policy, &ip, &verdict))
}

fn end<'a>(policy: &Policy<'a>, text: &str, near: Option<NetworkId>) -> Result<End<'a>, TraceError> {
    if text == "host" {
        return Ok(End::Host);
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        return Ok(End::Port(policy.intent.find_port(text)?));
    };
    if policy.is_host(address) {
        return Ok(End::Address(address));
    }
    if let Some(network) = near
        && let Some(port) = policy.holders(network, address).into_iter().next()
    {
        return Ok(End::Port(port));
    }
    let routed = policy.gateway_subnet(address).map(|subnet| subnet.network);
    let holder = routed.and_then(|network| policy.holders(network, address).into_iter().next());
    if near.is_some() || holder.is_some() {
        return Ok(holder.map_or(End::Address(address), End::Port));
    }
    let mut holders = policy.intent.networks().flat_map(|network| policy.holders(network.id, address));
    match (holders.next(), holders.next()) {
        (None, _) => Ok(End::Address(address)),
        (Some(port), None) => Ok(End::Port(port)),
        (Some(_), Some(_)) => Err(TraceError::Invalid(format!("several ports have {address}; name the port"))),
    }
}

/// Of one family and, where there is a choice, of one subnet.
fn addresses(policy: &Policy<'_>, from: End<'_>, to: End<'_>) -> Result<(IpAddr, IpAddr), TraceError> {
    let own = |end: End<'_>, other: End<'_>| -> Vec<IpAddr> {
        match end {
            End::Address(address) => vec![address],
            End::Port(port) => {
                let all: Vec<_> = port.addresses().collect();
                let bare = policy.intent.subnets_of(port.network).next().is_none();
                if all.is_empty() && bare {
                    vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
                } else {
                    all
                }
            }
            End::Host => match other {
                End::Port(port) => {
                    policy.intent.subnets_of(port.network).filter_map(|subnet| subnet.host_address).collect()
                }
                End::Address(address) => {
                    policy.gateway_subnet(address).and_then(|subnet| subnet.host_address).into_iter().collect()
                }
                End::Host => Vec::new(),
            },
        }
    };
    let (sources, destinations) = (own(from, to), own(to, from));
    let pairs = || sources.iter().flat_map(|source| destinations.iter().map(move |to| (*source, *to)));
    let one_subnet = |(a, b): &(IpAddr, IpAddr)| {
        policy.intent.subnets().any(|subnet| subnet.cidr.contains(a) && subnet.cidr.contains(b))
    };
    let one_family = |(a, b): &(IpAddr, IpAddr)| a.is_ipv4() == b.is_ipv4();
    pairs().filter(one_family).find(one_subnet).or_else(|| pairs().find(one_family)).ok_or_else(|| {
        TraceError::Invalid(
            "the two ends have no addresses of one family; name an address for an end that has several".into(),
        )
    })
}

fn upper(request: &Request, ipv6: bool) -> Result<Upper, TraceError> {
    let icmp = if ipv6 { protocol::ICMPV6 } else { protocol::ICMP };
    let number = match request.protocol.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None if request.port.is_some() => protocol::TCP,
        None | Some("icmp" | "icmpv6" | "ipv6-icmp") => icmp,
        Some("udp-lite") => protocol::UDPLITE,
        Some(text) => protocol::number(text).ok_or_else(|| {
            TraceError::Invalid(format!("'{text}' is no protocol; use tcp, udp, sctp, icmp or a number from 0 to 255"))
        })?,
    };
    match number {
        protocol if protocol::has_ports(protocol) => {
            let destination = request.port.ok_or_else(|| TraceError::Invalid("name the destination port".into()))?;
            // The first of the ephemeral ones (RFC 6335).
            let source = request.source_port.unwrap_or(49152);
            Ok(Upper::Ports { protocol, source, destination, opens: true })
        }
        number if request.port.is_some() => {
            Err(TraceError::Invalid(format!("{} has no ports", protocol::title(number))))
        }
        number if number == icmp => {
            let echo = if ipv6 { icmp6::ECHO_REQUEST } else { 8 };
            let kind = request.icmp_type.unwrap_or(echo);
            Ok(Upper::Icmp { kind, code: request.icmp_code.unwrap_or(0), target: None, link_layer: None })
        }
        number => Ok(Upper::Other(number)),
    }
}

/// As the guest's own routes would lead it: neighbours by the bridge, others by the gateway.
fn follow(
    policy: &Policy<'_>,
    request: &Request,
    from: End<'_>,
    to: End<'_>,
    ip: &IpPacket,
) -> Result<Verdict, TraceError> {
    let packet = |source: [u8; 6], destination: [u8; 6]| Packet {
        source,
        destination,
        tags: request.vlan.into_iter().collect(),
        payload: Payload::Ip(ip.clone()),
    };
    let state = State::New;
    match (from, to) {
        (End::Port(sender), End::Port(receiver)) if neighbours(policy, sender, receiver, ip) => {
            let packet = packet(sender.mac.octets(), receiver.mac.octets());
            Ok(policy.bridged(Peer::Port(sender.id), receiver.id, &packet, state))
        }
        (End::Port(sender), _) => {
            // Who it is does not matter to any filter.
            let packet = packet(sender.mac.octets(), [2, 0, 0, 0, 0, 0]);
            let to_host = matches!(to, End::Host) || policy.is_host(ip.destination);
            let own = policy.intent.subnets_of(sender.network).find(|subnet| subnet.cidr.contains(&ip.source));
            let by_host = own.is_some_and(|own| own.host_address.is_some() && own.gateway == own.host_address);
            Ok(if to_host || by_host {
                policy.to_host(sender.id, &packet, state)
            } else {
                policy.to_wire(sender.id, &packet, state)
            })
        }
        (End::Host, End::Port(receiver)) => {
            Ok(policy.bridged(Peer::Host, receiver.id, &packet([0; 6], receiver.mac.octets()), state))
        }
        (End::Address(address), End::Port(receiver)) if policy.is_host(address) => {
            Ok(policy.bridged(Peer::Host, receiver.id, &packet([0; 6], receiver.mac.octets()), state))
        }
        (End::Address(address), End::Port(receiver)) => {
            let near = policy.intent.subnets_of(receiver.network).any(|subnet| subnet.cidr.contains(&address));
            if near {
                let wire = Peer::Wire(receiver.network);
                Ok(policy.bridged(wire, receiver.id, &packet([0; 6], receiver.mac.octets()), state))
            } else {
                Ok(policy.from_outside(ip, state))
            }
        }
        (End::Host, End::Host) => {
            Err(TraceError::Invalid("what the host sends to itself passes no filter of vmfabric".into()))
        }
        (End::Host | End::Address(_), End::Host | End::Address(_)) => {
            Err(TraceError::Invalid("neither end is a port; name one, or an address that a port has".into()))
        }
    }
}

/// Whether one reaches the other without a router.
fn neighbours(policy: &Policy<'_>, sender: &Port, receiver: &Port, ip: &IpPacket) -> bool {
    let mut subnets = policy.intent.subnets_of(receiver.network).peekable();
    let bare = subnets.peek().is_none();
    let on_link = subnets.any(|subnet| subnet.cidr.contains(&ip.source) && subnet.cidr.contains(&ip.destination));
    let one_network = sender.network == receiver.network || sender.trunk.is_some() || receiver.trunk.is_some();
    one_network && (bare || on_link || !policy.intent.subnets().any(|subnet| subnet.cidr.contains(&ip.destination)))
}

fn tell(policy: &Policy<'_>, ip: &IpPacket, verdict: &Verdict) -> Trace {
    let mut steps: Vec<String> = verdict.steps.iter().map(|step| sentence(policy, step)).collect();
    if let Err(drop) = &verdict.outcome {
        steps.push(end_of(policy, drop));
    }
    let drop = verdict.outcome.err();
    Trace {
        packet: packet_text(ip),
        steps,
        allowed: verdict.is_allowed(),
        reason: drop.map(|drop| drop.reason.to_string()),
        port: drop.and_then(|drop| drop.port).map(|port| port.to_string()),
    }
}

fn packet_text(ip: &IpPacket) -> String {
    let protocol = protocol::title(ip.protocol());
    match ip.upper {
        Upper::Ports { source, destination, .. } => {
            format!("{protocol} from {} port {source} to {} port {destination}", ip.source, ip.destination)
        }
        Upper::Icmp { kind, code, .. } => {
            format!("{protocol} type {kind} code {code} from {} to {}", ip.source, ip.destination)
        }
        Upper::Other(_) => format!("{protocol} from {} to {}", ip.source, ip.destination),
    }
}

fn port_name(policy: &Policy<'_>, id: PortId) -> String {
    let port = policy.intent.port(id);
    port.map_or_else(|| id.to_string(), |port| port.name.as_ref().map_or(port.mac.to_string(), ToString::to_string))
}

fn sentence(policy: &Policy<'_>, step: &Step) -> String {
    let intent = policy.intent;
    let network = |id: NetworkId| intent.network(id).map_or(id.to_string(), |network| network.name.to_string());
    let subnet = |id| intent.subnet(id).map_or(String::new(), |subnet| format!("{} ({})", subnet.name, subnet.cidr));
    match step {
        Step::Secured { port } => {
            format!("{}: port security: its own addresses, and nothing forbidden", port_name(policy, *port))
        }
        Step::Unsecured { port } => format!("{}: port security is off: nothing is checked", port_name(policy, *port)),
        Step::Out { port, grant } => format!("{}: out: {}", port_name(policy, *port), granted(policy, *grant)),
        Step::In { port, grant } => format!("{}: in: {}", port_name(policy, *port), granted(policy, *grant)),
        Step::Bridged { domain: Domain::Network(id) } => {
            let segment = intent.network(*id).map_or(String::new(), |network| format!(" ({})", network.segment));
            format!("bridged on network {}{segment}", network(*id))
        }
        Step::Bridged { domain: Domain::Vlan { physical, vid } } => {
            format!("bridged in VLAN {vid} on {physical}, which no network is of")
        }
        Step::HostService { name } => format!("the host takes it: {name}"),
        Step::Routed { from, to } => {
            let place = |id: &Option<_>| id.map_or("the world outside".to_owned(), subnet);
            format!("routed by the host from {} to {}", place(from), place(to))
        }
        Step::Masqueraded { subnet: id } => {
            format!("leaves with the host's own address: subnet {} has forward nat", subnet(*id))
        }
        Step::Leaves { network: Some(id) } => {
            format!("leaves to network {}, where no port has that address", network(*id))
        }
        Step::Leaves { network: None } => "leaves this host".to_owned(),
    }
}

fn granted(policy: &Policy<'_>, grant: Grant) -> String {
    match grant {
        Grant::Unfiltered => "in no security group, nothing is filtered".to_owned(),
        Grant::Configuration => "address configuration passes always".to_owned(),
        Grant::Established => "belongs to a connection that was allowed".to_owned(),
        Grant::Rule { group, rule } => {
            let Some(group) = policy.intent.security_group(group) else { return group.to_string() };
            let found = group.rules.iter().find(|own| own.id == rule);
            let text = found.map_or(String::new(), |found| describe(policy, found));
            format!("group {} allows {text} (rule {rule})", group.name)
        }
    }
}

fn end_of(policy: &Policy<'_>, drop: &Drop) -> String {
    let place = drop.port.map_or("the host".to_owned(), |port| port_name(policy, port));
    let detail = if drop.detail.is_empty() { String::new() } else { format!(": {}", drop.detail) };
    let mut text = format!("{place}: dropped ({}): {}{detail}", drop.reason, drop.reason.text());
    let filtered = matches!(drop.reason, super::Reason::GroupIn | super::Reason::GroupOut);
    if let Some(port) = drop.port.filter(|_| filtered).and_then(|id| policy.intent.port(id)) {
        let names: Vec<_> = policy.groups_of(port).into_iter().flatten().map(|group| group.name.to_string()).collect();
        text += &if names.is_empty() { " (it is in no group)".to_owned() } else { format!(" ({})", names.join(", ")) };
    }
    text
}
