//! What the kernel has.

use super::{
    Worker,
    decode::{RawLink, decode_address, decode_default_route, decode_vlans},
    encode,
    netlink::{self, Netlink, bytes},
    tc,
};
use crate::{
    backend::DriverError,
    datapath::{BridgeSettings, Datapath, Family, Link, LinkKind, Observed, Sysctl, VlanEntry},
    net::{IfName, VlanId},
};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use std::collections::{BTreeSet, HashMap};

impl Worker {
    /// Five dumps and two listings, however many links there are; and one for each that somebody's filters wait at.
    pub(super) fn observe(&mut self) -> Result<Observed, DriverError> {
        let links = dump_links(&mut self.netlink)?;
        let names = names(&links);
        let mut datapath = Datapath::default();
        for link in links {
            insert(&mut datapath, link, |index| names.get(&index).cloned());
        }
        if self.capabilities.bridge_vlan_filtering {
            for port in dump_bridge_ports(&mut self.netlink)? {
                // A link that came after the first dump is not half told.
                if let Some(name) = names.get(&port.index) {
                    datapath.vlans.extend(port.vlans.into_iter().map(|(vid, entry)| ((name.clone(), vid), entry)));
                }
            }
        }
        if self.can_limit() {
            let limits = tc::all(&mut self.netlink)?.into_iter();
            datapath
                .limits
                .extend(limits.filter_map(|(index, way, limit)| Some(((names.get(&index)?.clone(), way), limit))));
        }
        let addresses =
            self.netlink.dump(libc::RTM_GETADDR, &bytes(&encode::all_addresses()), &mut |payload, found| {
                found.extend(decode_address(payload));
            })?;
        let addresses = addresses.into_iter();
        datapath.addresses.extend(addresses.filter_map(|(index, address)| Some((names.get(&index)?.clone(), address))));
        let routes = self.netlink.dump(libc::RTM_GETROUTE, &bytes(&encode::main_routes()), &mut |payload, found| {
            found.extend(decode_default_route(payload).unwrap_or_default());
        });
        let routes = match routes {
            // A namespace that never had a route has no table of them.
            Err(error) if error.errno() == Some(libc::ENOENT) => Vec::new(),
            routes => routes?,
        };
        let default_route_links = routes.iter().filter_map(|index| names.get(index).cloned()).collect();
        for family in [Family::Bridge, Family::Inet] {
            datapath.tables.extend(self.nft.observe(family)?.map(|table| (family, table)));
        }
        let chains = self.nft.chains()?;
        let mut obstacles = BTreeSet::new();
        datapath.admissions = self.neighbours(&chains, &mut obstacles)?;
        obstacles.extend(self.nft.obstacles(&chains, &datapath)?);
        Ok(Observed {
            datapath,
            default_route_links,
            capabilities: self.capabilities,
            obstacles,
            zoned: BTreeSet::new(),
        })
    }

    pub(super) fn observe_links(&mut self, links: &BTreeSet<IfName>) -> Result<Datapath, DriverError> {
        let mut datapath = Datapath::default();
        let mut names = HashMap::new();
        for name in links {
            let Some(raw) = get_link(&mut self.netlink, name)? else { continue };
            // The kernel also finds links by their other names (`IFLA_ALT_IFNAME`).
            if raw.name != name.as_str() {
                continue;
            }
            let index = raw.index;
            names.insert(index, name.clone());
            let netlink = &mut self.netlink;
            let link = insert(&mut datapath, raw, |index| {
                let known = names.get(&index).cloned();
                let name = known.or_else(|| name_of(netlink, index))?;
                names.insert(index, name.clone());
                Some(name)
            });
            let bridged = link.is_some_and(|link| link.is_bridge() || link.master().is_some());
            if bridged && self.capabilities.bridge_vlan_filtering {
                let vlans = self.vlans_of(index)?.into_iter();
                datapath.vlans.extend(vlans.map(|(vid, entry)| ((name.clone(), vid), entry)));
            }
            if self.can_limit() {
                let limits = tc::of_link(&mut self.netlink, index)?.into_iter();
                datapath.limits.extend(limits.map(|(way, limit)| ((name.clone(), way), limit)));
            }
        }
        Ok(datapath)
    }

    fn can_limit(&self) -> bool {
        self.capabilities.shaping || self.capabilities.policing
    }

    fn vlans_of(&mut self, index: u32) -> Result<Vec<(VlanId, VlanEntry)>, DriverError> {
        match self.netlink.dump(encode::RTM_GETVLAN, &encode::vlans_of(index), &mut decode_vlans) {
            Ok(vlans) => Ok(vlans),
            // Its master is no bridge, or it is gone.
            Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::ENODEV)) => Ok(Vec::new()),
            // Before 5.6 there is only the list of all ports.
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => {
                let ports = dump_bridge_ports(&mut self.netlink)?;
                Ok(ports.into_iter().filter(|port| port.index == index).flat_map(|port| port.vlans).collect())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Puts a link and its sysctls in, unless its name is one that we cannot say: such a link is never ours.
fn insert(datapath: &mut Datapath, raw: RawLink, name_of: impl FnMut(u32) -> Option<IfName>) -> Option<&Link> {
    let name = IfName::new(&raw.name).ok()?;
    // From the message itself: files would cost two reads a link.
    let forwarding = raw.forwarding.map(|value| (Sysctl::Ipv4Forwarding(name.clone()), value));
    // IPv6 does not run where the kernel tells nothing of it.
    let disabled = (Sysctl::Ipv6Disabled(name.clone()), raw.ipv6_disabled.unwrap_or(1));
    datapath.sysctls.extend(forwarding.into_iter().chain([disabled]).map(|(key, value)| (key, value.to_string())));
    let link = raw.into_link(name_of);
    datapath.links.insert(name.clone(), link);
    datapath.links.get(&name)
}

/// `None`: there is no such link.
pub(super) fn get_link(netlink: &mut Netlink, name: &IfName) -> Result<Option<RawLink>, DriverError> {
    let mut link = None;
    match netlink.get(libc::RTM_GETLINK, &encode::get_link(name), &mut |payload| link = RawLink::decode(payload)) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        outcome => outcome.map(|()| link).map_err(DriverError::from),
    }
}

fn name_of(netlink: &mut Netlink, index: u32) -> Option<IfName> {
    let mut link = None;
    let message = encode::get_link_at(index);
    netlink.get(libc::RTM_GETLINK, &message, &mut |payload| link = RawLink::decode(payload)).ok()?;
    IfName::new(&link?.name).ok()
}

pub(super) fn dump_links(netlink: &mut Netlink) -> Result<Vec<RawLink>, netlink::Error> {
    netlink.dump(libc::RTM_GETLINK, &bytes(&encode::all_links()), &mut |payload, links| {
        links.extend(RawLink::decode(payload));
    })
}

fn dump_bridge_ports(netlink: &mut Netlink) -> Result<Vec<RawLink>, netlink::Error> {
    netlink.dump(libc::RTM_GETLINK, &bytes(&encode::all_bridge_ports()), &mut |payload, links| {
        links.extend(RawLink::decode(payload));
    })
}

pub(super) fn names(links: &[RawLink]) -> HashMap<u32, IfName> {
    links.iter().filter_map(|link| Some((link.index, IfName::new(&link.name).ok()?))).collect()
}

/// `CONFIG_BRIDGE_VLAN_FILTERING`, tried with a bridge: to be run in a namespace that nobody uses.
pub(super) fn has_bridge_vlan_filtering(netlink: &mut Netlink) -> Result<bool, DriverError> {
    let Ok(name) = IfName::new("probe") else { return Ok(false) };
    let settings = BridgeSettings { vlan_filtering: true, default_pvid: Some(0) };
    let bridge = encode::create_bridge(&name, settings, None, None);
    match netlink.change(NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(bridge)) {
        Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => return Ok(false),
        outcome => outcome?,
    }
    let link = get_link(netlink, &name)?.map(|raw| raw.into_link(|_| None));
    Ok(link.and_then(|link| link.kind) == Some(LinkKind::Bridge(settings)))
}
