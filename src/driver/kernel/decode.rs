//! What the kernel's messages say, in our vocabulary. Only the attributes that we use are read, so that no exotic link
//! elsewhere on the host can spoil an observation.

use super::encode::OWN_ROUTES;
use crate::{
    datapath::{Address, BridgeSettings, Link, LinkKind, VlanEntry},
    net::{IfName, IpNet, Ipv6Net, MacAddr, VlanId},
};
use netlink_packet_core::NlasIterator;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `IFLA_BR_VLAN_FILTERING`, `IFLA_BR_VLAN_DEFAULT_PVID` (`linux/if_link.h`).
const BR_VLAN_FILTERING: u16 = 7;
const BR_VLAN_DEFAULT_PVID: u16 = 39;
/// `IFLA_VLAN_ID`, `IFLA_VLAN_PROTOCOL`.
const VLAN_ID: u16 = 1;
const VLAN_PROTOCOL: u16 = 5;
const ETH_P_8021Q: u16 = 0x8100;
/// `IFLA_BRIDGE_VLAN_INFO` and the flags in it (`linux/if_bridge.h`).
const BRIDGE_VLAN_INFO: u16 = 2;
const VLAN_INFO_PVID: u16 = 1 << 1;
const VLAN_INFO_UNTAGGED: u16 = 1 << 2;
const VLAN_INFO_RANGE_BEGIN: u16 = 1 << 3;
const VLAN_INFO_RANGE_END: u16 = 1 << 4;
/// `BRIDGE_VLANDB_ENTRY`, `BRIDGE_VLANDB_ENTRY_INFO`, `BRIDGE_VLANDB_ENTRY_RANGE`.
const VLANDB_ENTRY: u16 = 1;
const VLANDB_ENTRY_INFO: u16 = 1;
const VLANDB_ENTRY_RANGE: u16 = 2;
/// `IFLA_INET_CONF` and `IPV4_DEVCONF_FORWARDING` in it, less one (`linux/ip.h`).
const INET_CONF: u16 = 1;
const INET_FORWARDING: usize = 0;
/// `IFLA_INET6_CONF`, and `DEVCONF_FORWARDING`, `DEVCONF_ACCEPT_RA` and `DEVCONF_DISABLE_IPV6` in it (`linux/ipv6.h`).
const INET6_CONF: u16 = 2;
const INET6_FORWARDING: usize = 0;
const INET6_ACCEPT_RA: usize = 3;
const INET6_DISABLED: usize = 26;
/// `RTPROT_RA` (`linux/rtnetlink.h`).
const FROM_ADVERTISEMENT: u8 = 9;
/// What the kernel has no name for: NICs, and lo.
const PLAIN: &str = "device";

/// A link as a message tells it: others are named by index.
#[derive(Debug, Default)]
pub(super) struct RawLink {
    pub family: u8,
    pub index: u32,
    pub name: String,
    pub up: bool,
    pub master: Option<u32>,
    pub mac: Option<[u8; 6]>,
    pub forwarding: Option<u32>,
    /// `None`: IPv6 does not run on the link.
    pub ipv6_disabled: Option<u32>,
    pub ipv6_forwarding: Option<u32>,
    pub ipv6_accept_ra: Option<u32>,
    /// Of an `AF_BRIDGE` message.
    pub vlans: Vec<(VlanId, VlanEntry)>,
    mtu: Option<u32>,
    alias: String,
    kind: Option<String>,
    bridge: Option<BridgeSettings>,
    vlan: Option<(u16, u16)>,
    /// The index of the link below, and whether it is in this namespace.
    below: Option<u32>,
    below_elsewhere: bool,
}

impl RawLink {
    /// Of an `ifinfomsg` and its attributes.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let mut link = Self {
            family: *payload.first()?,
            index: u32_at(payload, 4)?,
            up: u32_at(payload, 8)? & libc::IFF_UP as u32 != 0,
            ..Self::default()
        };
        attributes(payload.get(16..)?, |kind, value| match kind {
            libc::IFLA_IFNAME => link.name = string(value),
            libc::IFLA_MASTER => link.master = u32_at(value, 0).filter(|index| *index != 0),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0),
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
            libc::IFLA_IFALIAS => link.alias = string(value),
            libc::IFLA_LINK => link.below = u32_at(value, 0).filter(|index| *index != 0),
            libc::IFLA_LINK_NETNSID => link.below_elsewhere = true,
            libc::IFLA_LINKINFO => link.decode_info(value),
            libc::IFLA_AF_SPEC => link.decode_families(value),
            _ => {}
        });
        Some(link)
    }

    fn decode_info(&mut self, info: &[u8]) {
        attributes(info, |kind, value| match kind {
            libc::IFLA_INFO_KIND => self.kind = Some(string(value)),
            // The kind comes first (`rtnl_link_info_fill`).
            libc::IFLA_INFO_DATA if self.kind.as_deref() == Some("bridge") => {
                let mut settings = BridgeSettings { vlan_filtering: false, default_pvid: None };
                attributes(value, |kind, value| match kind {
                    BR_VLAN_FILTERING => settings.vlan_filtering = value.first().is_some_and(|on| *on != 0),
                    BR_VLAN_DEFAULT_PVID => settings.default_pvid = u16_at(value, 0),
                    _ => {}
                });
                self.bridge = Some(settings);
            }
            libc::IFLA_INFO_DATA if self.kind.as_deref() == Some("vlan") => {
                let (mut id, mut protocol) = (0, ETH_P_8021Q);
                attributes(value, |kind, value| match kind {
                    VLAN_ID => id = u16_at(value, 0).unwrap_or(0),
                    VLAN_PROTOCOL => protocol = u16_at(value, 0).map_or(0, u16::from_be),
                    _ => {}
                });
                self.vlan = Some((id, protocol));
            }
            _ => {}
        });
    }

    fn decode_families(&mut self, families: &[u8]) {
        if i32::from(self.family) == libc::AF_BRIDGE {
            let mut range = None;
            return attributes(families, |kind, value| {
                if let (BRIDGE_VLAN_INFO, Some(flags), Some(vid)) = (kind, u16_at(value, 0), u16_at(value, 2)) {
                    match flags & (VLAN_INFO_RANGE_BEGIN | VLAN_INFO_RANGE_END) {
                        VLAN_INFO_RANGE_BEGIN => range = Some(vid),
                        VLAN_INFO_RANGE_END => expand(range.take().unwrap_or(vid), vid, flags, &mut self.vlans),
                        _ => expand(vid, vid, flags, &mut self.vlans),
                    }
                }
            });
        }
        attributes(families, |family, value| match i32::from(family) {
            libc::AF_INET => attributes(value, |kind, value| {
                if kind == INET_CONF {
                    self.forwarding = u32_at(value, INET_FORWARDING * 4);
                }
            }),
            libc::AF_INET6 => attributes(value, |kind, value| {
                if kind == INET6_CONF {
                    self.ipv6_disabled = u32_at(value, INET6_DISABLED * 4);
                    self.ipv6_forwarding = u32_at(value, INET6_FORWARDING * 4);
                    self.ipv6_accept_ra = u32_at(value, INET6_ACCEPT_RA * 4);
                }
            }),
            _ => {}
        });
    }

    /// With the names that `name_of` knows; a master without a name that we can say is "not known".
    pub fn into_link(self, mut name_of: impl FnMut(u32) -> Option<IfName>) -> Link {
        let master = match self.master {
            None => Some(None),
            Some(index) => name_of(index).map(Some),
        };
        let parent = self.below.filter(|_| !self.below_elsewhere).and_then(&mut name_of);
        let kind = match (self.bridge, self.vlan, parent) {
            (Some(settings), _, _) => LinkKind::Bridge(settings),
            (None, Some((id, ETH_P_8021Q)), Some(parent)) if VlanId::new(id).is_ok() => {
                LinkKind::Vlan { parent, id: VlanId::new(id).unwrap_or(VlanId::DEFAULT) }
            }
            _ => LinkKind::Other(self.kind.unwrap_or_else(|| PLAIN.into())),
        };
        Link {
            kind: Some(kind),
            master,
            up: Some(self.up),
            mtu: self.mtu,
            mac: self.mac.and_then(|mac| MacAddr::new(mac).ok()),
            alias: Some(self.alias),
        }
    }
}

/// Of a `br_vlan_msg` (`RTM_NEWVLAN`): the link's index and VLANs.
pub(super) fn decode_vlans(payload: &[u8], vlans: &mut Vec<(VlanId, VlanEntry)>) {
    attributes(payload.get(8..).unwrap_or_default(), |kind, entry| {
        if kind != VLANDB_ENTRY {
            return;
        }
        let (mut info, mut last) = (None, None);
        attributes(entry, |kind, value| match kind {
            VLANDB_ENTRY_INFO => info = u16_at(value, 0).zip(u16_at(value, 2)),
            VLANDB_ENTRY_RANGE => last = u16_at(value, 0),
            _ => {}
        });
        if let Some((flags, first)) = info {
            expand(first, last.unwrap_or(first), flags, vlans);
        }
    });
}

fn expand(first: u16, last: u16, flags: u16, vlans: &mut Vec<(VlanId, VlanEntry)>) {
    let entry = VlanEntry::from_flags(flags & VLAN_INFO_PVID != 0, flags & VLAN_INFO_UNTAGGED != 0);
    vlans.extend((first..=last.min(4094)).filter_map(|vid| Some((VlanId::new(vid).ok()?, entry))));
}

/// Of an `ifaddrmsg`: the link's index and the address. Link-local IPv6 addresses are the kernel's own: `None`.
pub(super) fn decode_address(payload: &[u8]) -> Option<(u32, Address)> {
    let (family, prefix, index) = (i32::from(*payload.first()?), *payload.get(1)?, u32_at(payload, 4)?);
    let (mut local, mut address) = (None, None);
    attributes(payload.get(8..)?, |kind, value| match kind {
        libc::IFA_LOCAL => local = ip(family, value),
        libc::IFA_ADDRESS => address = ip(family, value),
        _ => {}
    });
    // Where both are given the other is the far end of a point-to-point link.
    let address = local.or(address)?;
    if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return None;
    }
    Some((index, IpNet::new(address, prefix).ok()?))
}

/// A default route of the main table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DefaultRoute {
    pub ipv6: bool,
    /// Whether it was learnt from router advertisements.
    pub advertised: bool,
    /// The indices of the links that it leaves by.
    pub links: Vec<u32>,
}

/// Whether an `rtmsg` is a default route of the main table.
pub(super) fn decode_default_route(payload: &[u8]) -> Option<DefaultRoute> {
    let header: &[u8; 12] = payload.first_chunk()?;
    let (family, prefix, kind) = (i32::from(header[0]), header[1], header[7]);
    let ipv6 = family == libc::AF_INET6;
    if !(ipv6 || family == libc::AF_INET) || prefix != 0 || kind != libc::RTN_UNICAST {
        return None;
    }
    let (mut table, mut links) = (u32::from(header[4]), Vec::new());
    attributes(payload.get(12..)?, |kind, value| match kind {
        libc::RTA_TABLE => table = u32_at(value, 0).unwrap_or(table),
        libc::RTA_OIF => links.extend(u32_at(value, 0)),
        libc::RTA_MULTIPATH => {
            // A row of `rtnexthop`: length, flags, hops, index.
            let mut hops = value;
            while let (Some(length), Some(index)) = (u16_at(hops, 0), u32_at(hops, 4)) {
                links.push(index);
                hops = hops.get(usize::from(length.max(8)).next_multiple_of(4)..).unwrap_or_default();
            }
        }
        _ => {}
    });
    let advertised = header[5] == FROM_ADVERTISEMENT;
    (table == u32::from(libc::RT_TABLE_MAIN)).then_some(DefaultRoute { ipv6, advertised, links })
}

/// The destination, gateway and link of an `rtmsg` that is a route of ours.
pub(super) fn decode_own_route(payload: &[u8]) -> Option<(Ipv6Net, Ipv6Addr, u32)> {
    let header: &[u8; 12] = payload.first_chunk()?;
    if i32::from(header[0]) != libc::AF_INET6 || header[5] != OWN_ROUTES {
        return None;
    }
    let (mut destination, mut via, mut link) = (None, None, None);
    attributes(payload.get(12..)?, |kind, value| match (kind, ip(libc::AF_INET6, value)) {
        (libc::RTA_DST, Some(IpAddr::V6(address))) => destination = Ipv6Net::new(address, header[1]).ok(),
        (libc::RTA_GATEWAY, Some(IpAddr::V6(address))) => via = Some(address),
        (libc::RTA_OIF, _) => link = u32_at(value, 0),
        _ => {}
    });
    Some((destination?, via?, link?))
}

fn attributes(bytes: &[u8], mut each: impl FnMut(u16, &[u8])) {
    for attribute in NlasIterator::new(bytes).map_while(Result::ok) {
        each(attribute.kind(), attribute.value());
    }
}

fn string(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn ip(family: i32, value: &[u8]) -> Option<IpAddr> {
    match family {
        libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).expect("short");
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn route(prefix: u8, table: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let family = u8::try_from(libc::AF_INET).expect("small");
        let mut bytes = vec![family, prefix, 0, 0, table, 0, 0, libc::RTN_UNICAST, 0, 0, 0, 0];
        bytes.extend(attributes.concat());
        bytes
    }

    #[test]
    fn default_routes_name_all_their_links() {
        let hop = |index: u32| [&8u16.to_ne_bytes()[..], &[0, 0], &index.to_ne_bytes()].concat();
        let to = |links: &[u32]| DefaultRoute { ipv6: false, advertised: false, links: links.to_vec() };
        let multipath = attribute(libc::RTA_MULTIPATH, &[hop(3), hop(4)].concat());
        let single = attribute(libc::RTA_OIF, &7u32.to_ne_bytes());
        assert_eq!(decode_default_route(&route(0, 254, &[multipath])), Some(to(&[3, 4])));
        assert_eq!(decode_default_route(&route(0, 254, std::slice::from_ref(&single))), Some(to(&[7])));
        assert_eq!(decode_default_route(&route(8, 254, std::slice::from_ref(&single))), None);
        assert_eq!(decode_default_route(&route(0, 99, &[single])), None);
        // A hop that claims no length does not hold the reader up.
        let stuck = attribute(libc::RTA_MULTIPATH, &[&[0; 4][..], &9u32.to_ne_bytes()].concat());
        assert_eq!(decode_default_route(&route(0, 254, &[stuck])), Some(to(&[9])));
    }

    #[test]
    fn ranges_of_vlans_are_told_one_by_one() {
        let info = |flags: u16, vid: u16| [flags.to_ne_bytes(), vid.to_ne_bytes()].concat();
        let entry =
            [attribute(VLANDB_ENTRY_INFO, &info(0, 4090)), attribute(VLANDB_ENTRY_RANGE, &u16::MAX.to_ne_bytes())];
        let mut vlans = Vec::new();
        decode_vlans(&[vec![0; 8], attribute(VLANDB_ENTRY, &entry.concat())].concat(), &mut vlans);
        let ids: Vec<u16> = vlans.iter().map(|(vid, _)| vid.get()).collect();
        assert_eq!(ids, [4090, 4091, 4092, 4093, 4094]);

        let mut link = RawLink { family: u8::try_from(libc::AF_BRIDGE).expect("small"), ..RawLink::default() };
        let entries = [
            info(VLAN_INFO_PVID | VLAN_INFO_UNTAGGED, 7),
            info(VLAN_INFO_RANGE_BEGIN, 10),
            info(VLAN_INFO_RANGE_END, 12),
        ];
        link.decode_families(&entries.map(|info| attribute(BRIDGE_VLAN_INFO, &info)).concat());
        let ids: Vec<(u16, VlanEntry)> = link.vlans.iter().map(|(vid, entry)| (vid.get(), *entry)).collect();
        let tagged = VlanEntry::Tagged;
        assert_eq!(ids, [(7, VlanEntry::Native), (10, tagged), (11, tagged), (12, tagged)]);
    }

    #[test]
    fn a_message_cut_short_is_no_link() {
        assert!(RawLink::decode(&[0; 11]).is_none() && decode_address(&[2, 24]).is_none());
        assert!(decode_default_route(&[2; 11]).is_none());
    }
}
