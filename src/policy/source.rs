//! Port security: what a guest sends is its own, and is nothing that only servers, routers and switches send.

use super::{
    Options, Packet, Payload, Reason, Upper,
    index::{Policy, macs},
    packet::{IGMP, icmp6},
};
use crate::{intent::Port, net::MacAddr};
use std::net::IpAddr;

impl Policy<'_> {
    /// Whether a port with port security may send this.
    pub(super) fn check_source(&self, port: &Port, packet: &Packet) -> Result<(), Reason> {
        check(tag_is_allowed(port, packet), Reason::Vlan)?;
        check(!is_control(packet.destination), Reason::Control)?;
        check(macs(port).any(|mac| mac.octets() == packet.source), Reason::Mac)?;
        match &packet.payload {
            Payload::Other(_) => Err(Reason::Ethertype),
            Payload::Rarp => Ok(()),
            Payload::Arp { request, sender_mac, sender_ip } => {
                let sender = macs(port).any(|mac| mac.octets() == *sender_mac);
                let probe = *request && sender_ip.is_unspecified();
                check(sender && (probe || self.owns(port, *sender_mac, (*sender_ip).into())), Reason::Arp)
            }
            Payload::Ip(ip) => {
                let allowed = match ip.options {
                    Options::None => true,
                    Options::RouterAlert => ip.source.is_ipv6() || ip.protocol() == IGMP,
                    Options::Other => false,
                };
                check(allowed, Reason::Options)?;
                check(!(ip.fragment && packet.is_group_addressed()), Reason::Fragment)?;
                match (ip.source, ip.destination) {
                    (IpAddr::V4(source), _) => {
                        // Who has no address yet asks for one, and joins groups (RFC 3376 section 4.2.13).
                        let unnumbered =
                            source.is_unspecified() && (ip.udp() == Some((68, 67)) || ip.protocol() == IGMP);
                        check(unnumbered || self.owns(port, packet.source, source.into()), Reason::Ip)?;
                    }
                    (IpAddr::V6(source), _) => {
                        const UNNUMBERED: [u8; 4] = [
                            icmp6::NEIGHBOUR_SOLICITATION,
                            icmp6::ROUTER_SOLICITATION,
                            icmp6::MLD_REPORT,
                            icmp6::MLD2_REPORT,
                        ];
                        let unnumbered =
                            source.is_unspecified() && ip.icmp6().is_some_and(|kind| UNNUMBERED.contains(&kind));
                        check(unnumbered || self.owns(port, packet.source, source.into()), Reason::Ip6)?;
                    }
                }
                self.check_role(port, packet)
            }
        }
    }

    /// No server, no router, nobody else's neighbour.
    fn check_role(&self, port: &Port, packet: &Packet) -> Result<(), Reason> {
        let Some(ip) = packet.ip() else { return Ok(()) };
        check(!matches!(ip.udp(), Some((67 | 547, _))), Reason::Dhcp)?;
        let Upper::Icmp { kind, target, link_layer, .. } = ip.upper else { return Ok(()) };
        if ip.source.is_ipv4() {
            return check(kind != 5, Reason::Redirect);
        }
        check(kind != icmp6::ROUTER_ADVERTISEMENT, Reason::Ra)?;
        check(kind != icmp6::REDIRECT, Reason::Redirect)?;
        // Who asks without having an address is about to take it.
        let claims = kind == icmp6::NEIGHBOUR_ADVERTISEMENT
            || kind == icmp6::NEIGHBOUR_SOLICITATION && ip.source.is_unspecified();
        let own = |target| macs(port).any(|mac| self.owns(port, mac.octets(), target));
        check(!claims || target.is_none_or(own), Reason::Nd)?;
        let names_neighbour =
            [icmp6::ROUTER_SOLICITATION, icmp6::NEIGHBOUR_SOLICITATION, icmp6::NEIGHBOUR_ADVERTISEMENT].contains(&kind);
        let link_layer = link_layer.filter(|_| names_neighbour);
        check(link_layer.is_none_or(|named| macs(port).any(|mac| mac.octets() == named)), Reason::Nd)
    }

    /// Whether an address is a port's own, as the owner of this MAC address. Where the network has no subnets there are
    /// no addresses to compare with.
    fn owns(&self, port: &Port, mac: [u8; 6], address: IpAddr) -> bool {
        if self.intent.subnets_of(port.network).next().is_none() {
            return true;
        }
        let fixed = mac == port.mac.octets() && port.fixed_ips.iter().any(|ip| ip.address == address);
        let link_local = MacAddr::new(mac).is_ok_and(|mac| address == IpAddr::V6(mac.link_local()));
        let pair = port.security.address_pairs.iter().any(|pair| {
            let holder = pair.mac.unwrap_or(port.mac);
            holder.octets() == mac && pair.ip.contains(&address)
        });
        fixed || link_local || pair
    }
}

fn check(good: bool, reason: Reason) -> Result<(), Reason> {
    if good { Ok(()) } else { Err(reason) }
}

/// An access port's frames have no tag; a trunk's have one at most, of its VLANs, and none only where it has a native one.
pub(super) fn tag_is_allowed(port: &Port, packet: &Packet) -> bool {
    match (&port.trunk, packet.tags.as_slice()) {
        (None, tags) => tags.is_empty(),
        (Some(trunk), []) => trunk.native,
        (Some(trunk), [tag]) => trunk.tagged.iter().any(|vid| vid.get() == *tag),
        (Some(_), _) => false,
    }
}

/// The addresses that bridges keep to a link (IEEE 802.1Q section 8.6.3), and Cisco's.
pub(super) fn is_control(destination: [u8; 6]) -> bool {
    let [link @ .., last] = destination;
    (link == [0x01, 0x80, 0xc2, 0, 0] && last <= 0x0f)
        || [[0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcc], [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd]].contains(&destination)
}
