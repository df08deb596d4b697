//! `<ip>`: a subnet, whom it serves by DHCP, and for whom it reserves an address.

use super::{Reader, first};
use crate::{
    intent::{Forward, Ipv6Mode, PortDraft, Subnet, SubnetDraft},
    libvirt::domain_xml::{children, clip},
    net::{AddressRange, BootRule, DnsLabel, IpNet, Ipv4Net, Ipv6Net, MacAddr},
};
use roxmltree::Node;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Reader {
    pub(super) fn ip(&mut self, ip: Node<'_, '_>, forward: Forward) {
        let text = ip.attribute("address").unwrap_or_default();
        let Some(address) = self.value::<IpAddr>("ip address", Some(text)) else { return };
        let (cidr, forward) = match address {
            IpAddr::V4(v4) => (self.cidr(ip, v4).map(IpNet::from), forward),
            IpAddr::V6(v6) if forward == Forward::Nat && !self.nat6 => (self.cidr6(ip, v6), Forward::Routed),
            IpAddr::V6(v6) => (self.cidr6(ip, v6), forward),
        };
        let Some(cidr) = cidr else { return };
        if ip.attribute("localPtr") == Some("yes") {
            self.leave(format!("ip {address} localPtr: see local_reverse in [dns] of vmfabricd.toml"));
        }
        let dhcp = first(ip, "dhcp");
        let mut subnet = SubnetDraft {
            gateway: (forward != Forward::None).then_some(address),
            host_address: Some(address),
            pools: Some(Vec::new()),
            dhcp: Some(dhcp.is_some()),
            forward: Some(forward),
            ipv6_mode: self.ipv6_mode(&cidr, dhcp.is_some()),
            ..SubnetDraft::new(self.imported.name.to_string(), cidr)
        };
        if let Some(dhcp) = dhcp {
            self.dhcp(dhcp, address, &mut subnet);
        }
        if let Some(tftp) = first(ip, "tftp") {
            self.leave(format!(
                "tftp root '{}': there is no TFTP server here; run one (tftpd-hpa, say) at {address}, which guests go on \
                 being told of",
                clip(tftp.attribute("root").unwrap_or_default())
            ));
        }
        self.imported.subnets.push(subnet);
    }

    /// As libvirt has its dnsmasq announce it: DHCPv6 where there is `<dhcp>`, else addresses of the guests' own
    /// making (`networkDnsmasqConfContents`: `ra-only`).
    fn ipv6_mode(&mut self, cidr: &IpNet, dhcp: bool) -> Option<Ipv6Mode> {
        match cidr {
            IpNet::V4(_) => None,
            IpNet::V6(_) if dhcp => Some(Ipv6Mode::Stateful),
            IpNet::V6(net) if net.prefix_len() == 64 => Some(Ipv6Mode::Slaac),
            IpNet::V6(net) => {
                self.leave(format!(
                    "router advertisements for {net}: guests make addresses of a prefix of 64 bits alone"
                ));
                None
            }
        }
    }

    /// Without a prefix libvirt takes 64 bits (`virSocketAddrGetIPPrefix`).
    fn cidr6(&mut self, ip: Node<'_, '_>, address: Ipv6Addr) -> Option<IpNet> {
        let prefix = ip.attribute("prefix").map_or(Some(64), |prefix| self.value("ip prefix", Some(prefix)))?;
        match Ipv6Net::new(address, prefix) {
            Ok(net) => Some(net.trunc().into()),
            Err(_) => {
                self.leave(format!("ip {address}: a prefix of {prefix} bits is none"));
                None
            }
        }
    }

    fn cidr(&mut self, ip: Node<'_, '_>, address: Ipv4Addr) -> Option<Ipv4Net> {
        let prefix = match (ip.attribute("prefix"), ip.attribute("netmask")) {
            (Some(prefix), _) => self.value::<u8>("ip prefix", Some(prefix))?,
            (None, Some(mask)) => {
                let mask = self.value::<Ipv4Addr>("ip netmask", Some(mask))?;
                let (bits, length) = (mask.to_bits(), mask.to_bits().leading_ones());
                if bits.checked_shl(length).unwrap_or(0) != 0 {
                    self.leave(format!("ip netmask '{mask}': its bits have a gap"));
                    return None;
                }
                u8::try_from(length).ok()?
            }
            // As libvirt, by the address's class (virSocketAddrGetIPPrefix).
            (None, None) => match address.octets()[0] {
                0..=127 => 8,
                128..=191 => 16,
                192..=223 => 24,
                _ => {
                    self.leave(format!("ip {address}: no netmask and no class that has one"));
                    return None;
                }
            },
        };
        match Ipv4Net::new(address, prefix) {
            Ok(net) => Some(net.trunc()),
            Err(_) => {
                self.leave(format!("ip {address}: a prefix of {prefix} bits is none"));
                None
            }
        }
    }

    fn dhcp(&mut self, dhcp: Node<'_, '_>, host: IpAddr, subnet: &mut SubnetDraft) {
        let mut pools = Vec::new();
        for range in children(dhcp, "range") {
            let ends = |name| range.attribute(name).and_then(|text| text.trim().parse::<IpAddr>().ok());
            let pool = ends("start").zip(ends("end")).and_then(|(start, end)| AddressRange::new(start, end).ok());
            match pool.filter(|pool| pool.within(&subnet.cidr)) {
                Some(pool) => pools.extend(without(pool, host)),
                None => self.leave(format!(
                    "dhcp range {} to {}: it is not in {}",
                    clip(range.attribute("start").unwrap_or_default()),
                    clip(range.attribute("end").unwrap_or_default()),
                    subnet.cidr
                )),
            }
            if let Some(lease) = first(range, "lease") {
                match lease_seconds(lease) {
                    Some(seconds) if subnet.lease_seconds.is_none_or(|known| known == seconds) => {
                        subnet.lease_seconds = Some(seconds);
                    }
                    _ => self.leave("dhcp range lease: a subnet has one lease time, the first range's"),
                }
            }
        }
        subnet.pools = Some(pools);
        for entry in children(dhcp, "host") {
            self.host(entry, subnet.cidr);
        }
        if let Some(bootp) = first(dhcp, "bootp") {
            let server = bootp.attribute("server").map_or_else(|| host.to_string(), |server| server.trim().to_owned());
            let file = bootp.attribute("file").unwrap_or_default();
            for text in [format!("file={file}"), format!("server={server}")] {
                subnet.dhcp_boot.extend(self.value::<BootRule>("bootp", Some(&text)));
            }
        }
    }

    fn host(&mut self, entry: Node<'_, '_>, cidr: IpNet) {
        let text = |name| entry.attribute(name).map(str::trim);
        let shown = clip(text("mac").or(text("name")).or(text("id")).or(text("ip")).unwrap_or("?"));
        let mac = match (text("mac"), text("id")) {
            (Some(mac), _) => self.value::<MacAddr>("dhcp host", Some(mac)),
            (None, id) => {
                let mac = id.and_then(mac_of_duid);
                if mac.is_none() {
                    self.leave(format!(
                        "dhcp host {shown}: it names no MAC address, by which reservations are made here"
                    ));
                }
                mac
            }
        };
        let Some(mac) = mac else { return };
        let Some(address) = self.value::<IpAddr>("dhcp host ip", text("ip")) else {
            if text("ip").is_none() {
                self.leave(format!("dhcp host {shown}: it reserves no address; the guest's name is known by itself"));
            }
            return;
        };
        if !cidr.contains(&address) {
            return self.leave(format!("dhcp host {shown}: {address} is not in {cidr}"));
        }
        if first(entry, "lease").is_some() {
            self.leave(format!("dhcp host {shown} lease: the subnet's lease time is for all"));
        }
        let dns_name = text("name").and_then(DnsLabel::from_free_text);
        let known = self.imported.ports.iter_mut().find(|port| port.mac == Some(mac));
        if let Some(PortDraft { addresses: Some(addresses), .. }) = known {
            // A guest may have an address of each family.
            if addresses.iter().any(|known| known.is_ipv4() == address.is_ipv4()) {
                return self.leave(format!("dhcp host {shown}: its MAC address has a reservation already"));
            }
            return addresses.push(address);
        }
        self.imported.ports.push(PortDraft {
            mac: Some(mac),
            addresses: Some(vec![address]),
            dns_name,
            ..PortDraft::on(self.imported.name.to_string())
        });
    }
}

/// The parts of a pool on both sides of an address.
fn without(pool: AddressRange, host: IpAddr) -> Vec<AddressRange> {
    if !pool.contains(host) {
        return vec![pool];
    }
    let (below, above) = match host {
        IpAddr::V4(host) => {
            let at = |bits: Option<u32>| bits.map(|bits| IpAddr::from(Ipv4Addr::from(bits)));
            (at(host.to_bits().checked_sub(1)), at(host.to_bits().checked_add(1)))
        }
        IpAddr::V6(host) => {
            let at = |bits: Option<u128>| bits.map(|bits| IpAddr::from(Ipv6Addr::from(bits)));
            (at(host.to_bits().checked_sub(1)), at(host.to_bits().checked_add(1)))
        }
    };
    let parts = [below.map(|last| (pool.first(), last)), above.map(|first| (first, pool.last()))];
    parts.into_iter().flatten().filter_map(|(first, last)| AddressRange::new(first, last).ok()).collect()
}

/// The Ethernet address in a DUID that is made of one (RFC 8415 sections 11.2 and 11.4), octets in hexadecimal with colons.
fn mac_of_duid(text: &str) -> Option<MacAddr> {
    let octets: Option<Vec<u8>> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
    let mac: &[u8] = match octets.as_deref()? {
        [0, 1, 0, 1, _, _, _, _, mac @ ..] | [0, 3, 0, 1, mac @ ..] => mac,
        _ => return None,
    };
    MacAddr::new(mac.try_into().ok()?).ok()
}

/// `<lease expiry unit>`; 0 is for ever.
fn lease_seconds(lease: Node<'_, '_>) -> Option<u32> {
    let expiry: u64 = lease.attribute("expiry")?.trim().parse().ok()?;
    let unit = match lease.attribute("unit").unwrap_or("minutes") {
        "seconds" => 1,
        "minutes" => 60,
        "hours" => 3600,
        _ => return None,
    };
    match expiry.checked_mul(unit)? {
        0 => Some(Subnet::INFINITE_LEASE),
        seconds => u32::try_from(seconds).ok(),
    }
}
