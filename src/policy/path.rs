//! A packet's way: out of a guest, over a bridge or through the host, into another guest.

use super::{
    Drop, IpPacket, Packet, Reason, Step, Verdict,
    index::{Policy, macs},
    packet::{UDP, icmp6},
    source::{is_control, tag_is_allowed},
    verdict::Domain,
};
use crate::intent::{Direction, Forward, NetworkId, Port, PortId, Segment, Subnet};
use std::net::IpAddr;

/// Where a packet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Port(PortId),
    /// Some machine beyond the uplink of a network.
    Wire(NetworkId),
    /// This host itself.
    Host,
}

/// Whether a packet belongs to a connection that was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    New,
    Established,
}

impl Policy<'_> {
    /// A frame that stays on a bridge: from a port or the wire to a port.
    pub fn bridged(&self, from: Peer, to: PortId, packet: &Packet, state: State) -> Verdict {
        verdict(|steps| {
            let sender = match from {
                Peer::Port(id) => Some(self.port(id)?),
                _ => None,
            };
            let to = self.port(to)?;
            let domain = match (sender, from) {
                (Some(sender), _) => self.domain(sender, packet),
                (None, Peer::Wire(network)) => Some(Domain::Network(network)),
                (None, _) => Some(Domain::Network(to.network)),
            };
            if let Some(sender) = sender {
                self.leave(steps, sender, packet, state)?;
            }
            let Some(domain) = domain.filter(|domain| self.is_in(to, domain)) else {
                return Err(dropped(Reason::Vlan, Some(to.id), "the two are on different networks"));
            };
            if from != Peer::Host {
                steps.push(Step::Bridged { domain });
            }
            self.enter(steps, sender, to, packet, state)
        })
    }

    /// A packet for the host's own MAC address: for the host itself, or to be routed.
    pub fn to_host(&self, from: PortId, packet: &Packet, state: State) -> Verdict {
        verdict(|steps| {
            let sender = self.port(from)?;
            self.leave(steps, sender, packet, state)?;
            let Some(ip) = packet.ip() else { return Ok(()) };
            if self.is_host(ip.destination) || packet.is_group_addressed() {
                return self.serve(steps, ip, state);
            }
            let arrived = self.domain(sender, packet).as_ref().and_then(Domain::network);
            self.route(steps, arrived, ip, state)
        })
    }

    /// A frame for some machine beyond the uplink, or a router that is not this host.
    pub fn to_wire(&self, from: PortId, packet: &Packet, state: State) -> Verdict {
        verdict(|steps| {
            let sender = self.port(from)?;
            let domain = self.domain(sender, packet);
            let network = domain.as_ref().and_then(Domain::network);
            self.leave(steps, sender, packet, state)?;
            steps.extend(domain.map(|domain| Step::Bridged { domain }));
            steps.push(Step::Leaves { network });
            Ok(())
        })
    }

    /// A packet that comes to the host from outside, to be routed.
    pub fn from_outside(&self, ip: &IpPacket, state: State) -> Verdict {
        verdict(|steps| self.route(steps, None, ip, state))
    }

    fn port(&self, id: PortId) -> Result<&Port, Drop> {
        self.intent.port(id).ok_or(dropped(Reason::Vlan, Some(id), "there is no such port"))
    }

    /// Out of a guest: port security, then the groups' egress.
    fn leave(&self, steps: &mut Vec<Step>, port: &Port, packet: &Packet, state: State) -> Result<(), Drop> {
        if !self.protection(port).is_some_and(|protection| protection.port_security) {
            // VLANs are the bridge's matter; no setting lets a port out of its own.
            if self.domain(port, packet).is_none() {
                return Err(dropped(Reason::Vlan, Some(port.id), ""));
            }
            // Of these a bridge without spanning tree forwards but one (kernel `br_handle_frame`).
            if is_control(packet.destination)
                && packet.destination[..5] == [1, 0x80, 0xc2, 0, 0]
                && packet.destination[5] != 0
            {
                return Err(dropped(Reason::Control, Some(port.id), "bridges keep it"));
            }
            steps.push(Step::Unsecured { port: port.id });
            return Ok(());
        }
        self.check_source(port, packet).map_err(|reason| dropped(reason, Some(port.id), ""))?;
        steps.push(Step::Secured { port: port.id });
        let grant = self.check_groups(port, Direction::Egress, packet, state);
        let grant = grant.map_err(|detail| dropped(Reason::GroupOut, Some(port.id), detail))?;
        steps.push(Step::Out { port: port.id, grant });
        Ok(())
    }

    /// Into a guest: isolation, MAC address, then the groups' ingress.
    fn enter(
        &self,
        steps: &mut Vec<Step>,
        from: Option<&Port>,
        port: &Port,
        packet: &Packet,
        state: State,
    ) -> Result<(), Drop> {
        let Some(protection) = self.protection(port) else {
            return Err(dropped(Reason::Vlan, Some(port.id), "its network is gone"));
        };
        // As bridges have it: isolated ports reach those that are not.
        let isolated = |port| self.protection(port).is_some_and(|protection| protection.isolated);
        if from.is_some_and(isolated) && protection.isolated {
            return Err(dropped(Reason::Isolation, Some(port.id), ""));
        }
        if !protection.port_security {
            steps.push(Step::Unsecured { port: port.id });
            return Ok(());
        }
        if !packet.is_group_addressed() && !macs(port).any(|mac| mac.octets() == packet.destination) {
            return Err(dropped(Reason::Foreign, Some(port.id), ""));
        }
        let grant = self.check_groups(port, Direction::Ingress, packet, state);
        let grant = grant.map_err(|detail| dropped(Reason::GroupIn, Some(port.id), detail))?;
        steps.push(Step::In { port: port.id, grant });
        Ok(())
    }

    /// What guests may reach on the host itself.
    pub(super) fn serve(&self, steps: &mut Vec<Step>, ip: &IpPacket, state: State) -> Result<(), Drop> {
        let name = match ip.upper {
            super::Upper::Icmp { kind: 8, .. } if ip.source.is_ipv4() => Some("ping"),
            super::Upper::Icmp { kind: icmp6::ECHO_REQUEST, .. } if ip.source.is_ipv6() => Some("ping"),
            super::Upper::Icmp { kind, .. } if ip.source.is_ipv6() => match kind {
                icmp6::ROUTER_SOLICITATION | icmp6::NEIGHBOUR_SOLICITATION | icmp6::NEIGHBOUR_ADVERTISEMENT => {
                    Some("neighbours")
                }
                icmp6::MLD_QUERY..=icmp6::MLD_DONE | icmp6::MLD2_REPORT => Some("listeners"),
                _ => None,
            },
            super::Upper::Other(super::packet::IGMP) => Some("listeners"),
            super::Upper::Ports { protocol, destination, .. } => match (protocol, destination) {
                (UDP, 67) if ip.source.is_ipv4() => Some("DHCP"),
                (UDP, 547) if ip.source.is_ipv6() => Some("DHCP"),
                (UDP | super::packet::TCP, 53) => Some("DNS"),
                service => self.host_services.contains(&service).then_some("host_services"),
            },
            _ => None,
        };
        let name = name.or((state == State::Established).then_some("answer"));
        let name = name.ok_or(dropped(Reason::Host, None, ""))?;
        steps.push(Step::HostService { name });
        Ok(())
    }

    /// Back to the network that it came from, or by the subnets' forward mode, which goes by address: nat out and to
    /// routed ones, routed both ways.
    fn route(
        &self,
        steps: &mut Vec<Step>,
        arrived: Option<NetworkId>,
        ip: &IpPacket,
        state: State,
    ) -> Result<(), Drop> {
        let source = self.gateway_subnet(ip.source);
        let target = self.gateway_subnet(ip.destination);
        let same_link = arrived.filter(|network| target.is_some_and(|target| target.network == *network));
        let refused = |detail| dropped(Reason::Forward, None, detail);
        if matches!(ip.udp(), Some((67, 68) | (68, 67) | (546, 547) | (547, 546))) {
            return Err(refused("DHCP stays on its link"));
        }
        if let Some(network) = same_link
            && [ip.source, ip.destination].iter().all(|address| self.is_isolated(network, *address))
        {
            return Err(dropped(Reason::Isolation, None, "nor through their gateway"));
        }
        if state == State::New && same_link.is_none() {
            may_forward(source, target).map_err(refused)?;
        }
        steps.push(Step::Routed { from: source.map(|subnet| subnet.id), to: target.map(|subnet| subnet.id) });
        if let Some(subnet) = source.filter(|subnet| target.is_none() && subnet.forward == Forward::Nat) {
            steps.push(Step::Masqueraded { subnet: subnet.id });
        }
        let holder = target.and_then(|subnet| self.holders(subnet.network, ip.destination).into_iter().next());
        let Some(port) = holder else {
            steps.push(Step::Leaves { network: target.map(|subnet| subnet.network) });
            return Ok(());
        };
        let packet = Packet {
            // Whoever routes has a MAC address that no filter asks for.
            source: [0; 6],
            destination: port.mac.octets(),
            tags: Vec::new(),
            payload: super::Payload::Ip(ip.clone()),
        };
        self.enter(steps, None, port, &packet, state)
    }

    fn is_isolated(&self, network: NetworkId, address: IpAddr) -> bool {
        let isolated = |port: &&Port| self.protection(port).is_some_and(|protection| protection.isolated);
        self.holders(network, address).iter().any(|port| port.network == network && isolated(port))
    }

    /// The layer-2 domain that a port's frame is in; none where its tags are not the port's.
    pub(super) fn domain(&self, port: &Port, packet: &Packet) -> Option<Domain> {
        // A local network's bridge knows no VLANs: what is tagged there is the guests' own matter.
        let network = self.intent.network(port.network)?;
        let secured = self.protection(port).is_some_and(|protection| protection.port_security);
        if !secured && network.segment == Segment::Local {
            return Some(Domain::Network(network.id));
        }
        if !tag_is_allowed(port, packet) {
            return None;
        }
        let Some(vid) = packet.tags.first() else { return Some(Domain::Network(port.network)) };
        self.vlan(port, *vid)
    }

    /// The domain of a VLAN where a port is: a network, or a VLAN that only trunks have.
    fn vlan(&self, port: &Port, vid: u16) -> Option<Domain> {
        let physical = self.intent.network(port.network)?.segment.physical_network()?;
        let is_it = |segment: &Segment| match segment {
            Segment::Vlan { physical_network, vid: own } => physical_network == physical && own.get() == vid,
            _ => false,
        };
        let network = self.intent.networks().find(|network| is_it(&network.segment));
        Some(match network {
            Some(network) => Domain::Network(network.id),
            None => Domain::Vlan { physical: physical.clone(), vid },
        })
    }

    /// Whether a port hears a domain.
    fn is_in(&self, port: &Port, domain: &Domain) -> bool {
        let untagged = port.trunk.as_ref().is_none_or(|trunk| trunk.native);
        if untagged && *domain == Domain::Network(port.network) {
            return true;
        }
        let tagged = port.trunk.iter().flat_map(|trunk| &trunk.tagged);
        tagged.into_iter().any(|vid| self.vlan(port, vid.get()).as_ref() == Some(domain))
    }
}

/// Whether subnets of two networks let a connection from one to the other (`None`: the world outside) be opened through
/// the host.
pub(super) fn may_forward(source: Option<&Subnet>, target: Option<&Subnet>) -> Result<(), &'static str> {
    match (source, target) {
        (None, None) => Err("neither end is in a subnet that the host routes"),
        (Some(subnet), _) if subnet.forward == Forward::None => Err("the sender's subnet has forward none"),
        (_, Some(subnet)) if subnet.forward == Forward::None => Err("the destination's subnet has forward none"),
        (_, Some(subnet)) if subnet.forward == Forward::Nat => {
            Err("the destination's subnet has forward nat, which lets answers in alone")
        }
        _ => Ok(()),
    }
}

/// Whether an address is one that many hear.
pub(super) fn is_group_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

fn dropped(reason: Reason, port: Option<PortId>, detail: &'static str) -> Drop {
    Drop { reason, port, detail }
}

fn verdict(judge: impl FnOnce(&mut Vec<Step>) -> Result<(), Drop>) -> Verdict {
    let mut steps = Vec::new();
    let outcome = judge(&mut steps);
    Verdict { steps, outcome }
}
