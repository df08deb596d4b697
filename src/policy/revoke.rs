//! Which connections a change of policy ends: the kernel lets pass what belongs to a connection, whatever the rules
//! have become since it was opened.

use super::{
    IpPacket, Packet, Payload, State, Upper,
    index::Policy,
    path::{is_group_address, may_forward},
};
use crate::{
    datapath::{Connection, Tuple, TupleUpper},
    intent::{Change, Direction, Intent, Network, NetworkId, Port, Rule, SecurityGroup, Segment},
    net::VlanId,
};
use std::{collections::BTreeSet, net::IpAddr};

/// Whom an address belongs to.
struct End<'a> {
    /// Ports that may have it.
    ports: Vec<&'a Port>,
    /// Whether somebody else may: the host, a machine beyond the uplink or the router.
    others: bool,
}

/// Of these connections those that could not be opened any more. One is judged by its original direction, and by what
/// NAT made of it. Those that touch no port and no address of ours are none of our business.
///
/// `host`: all addresses that the host itself has.
pub fn revoked<'c>(policy: &Policy<'_>, connections: &'c [Connection], host: &BTreeSet<IpAddr>) -> Vec<&'c Connection> {
    connections.iter().filter(|connection| !policy.may_go_on(connection, host)).collect()
}

impl Policy<'_> {
    fn may_go_on(&self, connection: &Connection, host: &BTreeSet<IpAddr>) -> bool {
        let (first, answer) = (&connection.original, &connection.reply);
        if is_group_address(first.destination) {
            return true;
        }
        if connection.zone != 0 {
            let network = self.by_zone.get(&connection.zone);
            let vlan = connection.zone.checked_sub(Network::VLAN_ZONES).and_then(|vid| VlanId::new(vid).ok());
            let end = |address| match (network, vlan) {
                (Some(network), _) => Some(self.end(network.id, address, false)),
                // A VLAN that only trunks have.
                (None, Some(vid)) => {
                    let ports: Vec<&Port> = self.trunks_with(vid, None, address).collect();
                    Some(End { others: ports.is_empty(), ports })
                }
                (None, None) => None,
            };
            let (Some(sender), Some(receiver)) = (end(first.source), end(first.destination)) else {
                return true;
            };
            let packet = packet(connection.protocol, first, first.source, first.destination);
            return self.lets(&sender, Direction::Egress, &packet) && self.lets(&receiver, Direction::Ingress, &packet);
        }
        // The receiver is who answers; what it sees as the sender is whom it answers to.
        let source = self.gateway_subnet(first.source).filter(|_| !host.contains(&first.source));
        let target = self.gateway_subnet(answer.source).filter(|_| !host.contains(&answer.source));
        let sent = packet(connection.protocol, first, first.source, first.destination);
        let mut received = packet(connection.protocol, first, answer.destination, answer.source);
        set_destination_port(&mut received, answer);
        if let Some(subnet) = source
            && !self.lets(&self.end(subnet.network, first.source, true), Direction::Egress, &sent)
        {
            return false;
        }
        if let Some(subnet) = target
            && !self.lets(&self.end(subnet.network, answer.source, true), Direction::Ingress, &received)
        {
            return false;
        }
        match (source, target) {
            (None, None) => true,
            // To the host itself, or from it.
            (Some(_), None) if host.contains(&answer.source) => {
                sent.ip().is_none_or(|ip| self.serve(&mut Vec::new(), ip, State::New).is_ok())
            }
            (None, Some(_)) if host.contains(&first.source) => true,
            (Some(source), Some(target)) if source.network == target.network => true,
            (source, target) => may_forward(source, target).is_ok(),
        }
    }

    fn end(&self, network: NetworkId, address: IpAddr, via_host: bool) -> End<'_> {
        let mut ports = self.holders(network, address);
        let subnets: Vec<_> = self.intent.subnets_of(network).collect();
        if ports.is_empty() {
            // Nothing says whose addresses these ports' are.
            let unchecked = |port: &&Port| {
                subnets.is_empty() || self.protection(port).is_none_or(|protection| !protection.port_security)
            };
            ports = self.intent.ports_of(network).filter(unchecked).collect();
        }
        let local = self.intent.network(network).is_some_and(|network| network.segment == Segment::Local);
        let ours = subnets.iter().any(|subnet| subnet.cidr.contains(&address));
        let gateway = via_host && self.is_host(address);
        End { others: ports.is_empty() && (!local || !ours || gateway), ports }
    }

    /// Whether any of those who may have sent or received a packet may do so.
    fn lets(&self, end: &End<'_>, direction: Direction, packet: &Packet) -> bool {
        let allows = |port: &&Port| self.check_groups(port, direction, packet, State::New).is_ok();
        end.others || end.ports.iter().any(allows)
    }
}

/// A first packet of a connection.
fn packet(protocol: u8, tuple: &Tuple, source: IpAddr, destination: IpAddr) -> Packet {
    let upper = match tuple.upper {
        TupleUpper::Ports { source, destination } => Upper::Ports { protocol, source, destination, opens: true },
        TupleUpper::Icmp { kind, code, .. } => Upper::Icmp { kind, code, target: None, link_layer: None },
        TupleUpper::None => Upper::Other(protocol),
    };
    let payload = Payload::Ip(IpPacket::new(source, destination, upper));
    Packet { source: [0; 6], destination: [0; 6], tags: Vec::new(), payload }
}

/// The port that NAT made of the destination's: the one that answers come from.
fn set_destination_port(packet: &mut Packet, answer: &Tuple) {
    if let Payload::Ip(ip) = &mut packet.payload
        && let Upper::Ports { destination, .. } = &mut ip.upper
        && let TupleUpper::Ports { source, .. } = answer.upper
    {
        *destination = source;
    }
}

/// Whether a change, seen from the intent before it, may end connections. What only adds never does, so that a guest's
/// start need not look at any.
pub fn takes_away(before: &Intent, change: &Change) -> bool {
    match change {
        Change::DeleteNetwork(_) | Change::DeleteSubnet(_) | Change::DeletePort(_) => true,
        // Refused while somebody names them.
        Change::DeleteSecurityGroup(_) | Change::DeleteAddressGroup(_) => false,
        Change::PutNetwork(new) => {
            before.network(new.id).is_some_and(|old| old.security != new.security || old.zone != new.zone)
        }
        Change::PutSubnet(new) => before
            .subnet(new.id)
            .is_some_and(|old| (old.cidr, old.host_address, old.forward) != (new.cidr, new.host_address, new.forward)),
        Change::PutPort(new) => before.port(new.id).is_some_and(|old| {
            let kept = |ip| new.fixed_ips.contains(ip);
            old.network != new.network || old.security != new.security || !old.fixed_ips.iter().all(kept)
        }),
        Change::PutSecurityGroup(new) => before.security_group(new.id).is_some_and(|old| narrows(old, new)),
        Change::PutAddressGroup(new) => {
            before.address_group(new.id).is_some_and(|old| !old.addresses.is_subset(&new.addresses))
        }
    }
}

fn narrows(old: &SecurityGroup, new: &SecurityGroup) -> bool {
    let kept = |rule: &Rule| new.rules.iter().any(|other| other.says() == rule.says());
    old.stateful != new.stateful || !old.rules.iter().all(kept)
}
