//! Security groups: what some rule of some group allows, and answers to it.

use super::{
    Grant, IpPacket, Packet, Payload, State, Upper,
    index::Policy,
    packet::{IGMP, TCP, icmp6},
};
use crate::intent::{Direction, Ethertype, Port, Protocol, Rule};
use std::net::IpAddr;

/// What connection tracking says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tracking {
    New,
    Established,
    /// It cannot open a connection and belongs to none.
    Invalid,
    /// Not a matter of connections; each packet counts for itself.
    Untracked,
}

/// Why a port's groups stop a packet; may be empty, where no rule allows it.
type Refusal = &'static str;

impl Policy<'_> {
    /// What a port's groups say of a packet, as it leaves the guest (egress) or reaches it (ingress).
    pub(super) fn check_groups(
        &self,
        port: &Port,
        direction: Direction,
        packet: &Packet,
        state: State,
    ) -> Result<Grant, Refusal> {
        let Some(port) = self.intent.port(port.id) else { return Err("its port is gone") };
        let Some(groups) = self.groups_of(port) else { return Ok(Grant::Unfiltered) };
        let groups: Vec<_> = groups.collect();
        let ip = match &packet.payload {
            Payload::Arp { .. } | Payload::Rarp => return Ok(Grant::Configuration),
            Payload::Other(_) => return Err("it is neither ARP nor IP"),
            Payload::Ip(ip) => ip,
        };
        if is_configuration(ip, direction) {
            return Ok(Grant::Configuration);
        }
        // Groups of one port are all of one kind.
        if groups.first().is_some_and(|group| group.stateful) {
            match track(packet, ip, state) {
                Tracking::Established => return Ok(Grant::Established),
                Tracking::Invalid => return Err("it belongs to no connection and can open none"),
                Tracking::New | Tracking::Untracked => {}
            }
        }
        let remote = if direction == Direction::Egress { ip.destination } else { ip.source };
        let allows = |rule: &&Rule| {
            rule.direction == direction
                && is_of(rule.ethertype, ip.source)
                && covers(rule.protocol, ip)
                && self.is_remote(rule.remote, remote, port.network)
        };
        for group in groups {
            if let Some(rule) = group.rules.iter().find(allows) {
                return Ok(Grant::Rule { group: group.id, rule: rule.id });
            }
        }
        Err("")
    }
}

/// What a guest needs to have addresses at all, and to be reached by multicast. Whose ports may not play server or router
/// are kept from it where they send.
fn is_configuration(ip: &IpPacket, direction: Direction) -> bool {
    use icmp6::{
        MLD_DONE, MLD_QUERY, MLD_REPORT, MLD2_REPORT, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION,
        ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION,
    };
    let icmp6 = ip.icmp6();
    let neighbours = matches!(icmp6, Some(NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT));
    let dhcp = |ports| ip.udp() == Some(ports);
    let listeners = ip.protocol() == IGMP || matches!(icmp6, Some(MLD_REPORT | MLD_DONE | MLD2_REPORT));
    neighbours
        || listeners
        || match direction {
            Direction::Egress => {
                icmp6 == Some(ROUTER_SOLICITATION)
                    || (ip.source.is_ipv4() && dhcp((68, 67)))
                    || (ip.source.is_ipv6() && dhcp((546, 547)))
            }
            Direction::Ingress => {
                matches!(icmp6, Some(ROUTER_ADVERTISEMENT | MLD_QUERY))
                    || (ip.source.is_ipv4() && dhcp((67, 68)))
                    || (ip.source.is_ipv6() && dhcp((547, 546)))
            }
        }
}

/// As the kernel's trackers do (`nf_conntrack_proto_*.c`), but that TCP opens with a SYN alone: a connection that was
/// revoked must not come back to life from the other side.
fn track(packet: &Packet, ip: &IpPacket, state: State) -> Tracking {
    if packet.is_group_addressed() {
        return Tracking::Untracked;
    }
    if state == State::Established {
        return Tracking::Established;
    }
    let opens = match ip.upper {
        Upper::Ports { protocol: TCP, opens, .. } => opens,
        Upper::Ports { .. } | Upper::Other(_) => true,
        // Echo, timestamp, information and address mask requests.
        Upper::Icmp { kind, .. } if ip.source.is_ipv4() => matches!(kind, 8 | 13 | 15 | 17),
        Upper::Icmp { kind: icmp6::ECHO_REQUEST | icmp6::NODE_INFORMATION, .. } => true,
        Upper::Icmp { kind: icmp6::MLD_QUERY..=icmp6::NEIGHBOUR_ADVERTISEMENT | icmp6::MLD2_REPORT, .. } => {
            return Tracking::Untracked;
        }
        Upper::Icmp { .. } => false,
    };
    if opens { Tracking::New } else { Tracking::Invalid }
}

fn is_of(ethertype: Ethertype, address: IpAddr) -> bool {
    match ethertype {
        Ethertype::Ipv4 => address.is_ipv4(),
        Ethertype::Ipv6 => address.is_ipv6(),
    }
}

/// Whether a rule speaks of what is above IP.
fn covers(rule: Protocol, ip: &IpPacket) -> bool {
    match rule {
        Protocol::Any => true,
        Protocol::Number { protocol } => ip.protocol() == protocol,
        Protocol::Ports { protocol, first, last } => match ip.upper {
            Upper::Ports { protocol: own, destination, .. } => own == protocol && (first..=last).contains(&destination),
            _ => false,
        },
        Protocol::Icmp { kind, code } => match ip.upper {
            Upper::Icmp { kind: own, code: own_code, .. } => {
                kind.is_none_or(|kind| kind == own) && code.is_none_or(|code| code == own_code)
            }
            _ => false,
        },
    }
}
