//! The doing of changes.

use super::{Worker, encode, iptables, netlink, observe::get_link, tc};
use crate::{
    backend::{ApplyError, DriverError},
    datapath::{Bandwidth, BridgeSettings, Change, Link, LinkChange, LinkKind, Mismatch, Sysctl, VlanEntry, Way},
    net::{IfName, VlanId},
};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};
use nix::net::if_::if_nametoindex;
use std::io;

const NO_VLAN_FILTERING: &str =
    "the kernel lacks VLAN filtering for bridges (CONFIG_BRIDGE_VLAN_FILTERING); networks with VLANs need it";
const NO_VLAN_LINKS: &str = "the kernel lacks 802.1Q interfaces (CONFIG_VLAN_8021Q, module 8021q)";
/// What one message of VLANs holds; each takes 8 bytes.
const VLANS_PER_MESSAGE: usize = 1024;

impl Worker {
    pub(super) fn apply(&mut self, changes: &[Change]) -> Result<(), ApplyError> {
        let mut done = 0;
        for group in changes.chunk_by(belong_together) {
            self.apply_group(group).map_err(|source| ApplyError { done, change: describe(group), source })?;
            done += group.len();
        }
        Ok(())
    }

    fn apply_group(&mut self, group: &[Change]) -> Result<(), DriverError> {
        match group {
            [Change::AddVlan { link, .. }, ..] => {
                let vlans: Vec<(VlanId, VlanEntry)> = group
                    .iter()
                    .filter_map(|change| match change {
                        Change::AddVlan { vid, entry, .. } => Some((*vid, *entry)),
                        _ => None,
                    })
                    .collect();
                vlans
                    .chunks(VLANS_PER_MESSAGE)
                    .try_for_each(|vlans| self.change_vlans(RouteNetlinkMessage::SetLink, link, vlans))
            }
            [first, ..] if first.family().is_some() => self.nft.apply(group),
            [change] => self.apply_one(change),
            _ => Ok(()),
        }
    }

    fn apply_one(&mut self, change: &Change) -> Result<(), DriverError> {
        match change {
            Change::CreateLink { name, link } => self.create_link(name, link),
            Change::SetLink { name, change } => self.set_link(name, change),
            Change::DeleteLink { name } => self
                .netlink
                .change(0, RouteNetlinkMessage::DelLink(encode::link(name)))
                .map_err(|error| on_link(name, error)),
            Change::DeleteVlan { link, vid } => {
                self.change_vlans(RouteNetlinkMessage::DelLink, link, &[(*vid, VlanEntry::Tagged)])
            }
            Change::AddAddress { link, address } => {
                let message = encode::address(index_of(link)?, address);
                let outcome =
                    self.netlink.change(NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewAddress(message));
                outcome.map_err(|error| on_link(link, error))
            }
            Change::DeleteAddress { link, address } => {
                match self.netlink.change(0, RouteNetlinkMessage::DelAddress(encode::address(index_of(link)?, address)))
                {
                    Err(error) if error.errno() == Some(libc::EADDRNOTAVAIL) => Ok(()),
                    outcome => outcome.map_err(|error| on_link(link, error)),
                }
            }
            Change::AddRoute(route) => {
                let message = RouteNetlinkMessage::NewRoute(encode::route(index_of(&route.link)?, route));
                let outcome = self.netlink.change(NLM_F_CREATE | NLM_F_REPLACE, message);
                outcome.map_err(|error| on_link(&route.link, error))
            }
            Change::DeleteRoute(route) => {
                let message = RouteNetlinkMessage::DelRoute(encode::route(index_of(&route.link)?, route));
                match self.netlink.change(0, message) {
                    Err(error) if error.errno() == Some(libc::ESRCH) => Ok(()),
                    outcome => outcome.map_err(|error| on_link(&route.link, error)),
                }
            }
            Change::SetSysctl { key, value } => set_sysctl(key, value),
            Change::SetLimit { link, way, limit } => self.set_limit(link, *way, limit),
            Change::DeleteLimit { link, way } => tc::delete(&mut self.netlink, index_of(link)?, *way),
            Change::Admit { at, admissions } => iptables::change(*at, admissions, true),
            Change::Withdraw { at, admissions } => iptables::change(*at, admissions, false),
            // They go in groups only.
            _ => self.apply_group(std::slice::from_ref(change)),
        }
    }

    fn set_limit(&mut self, link: &IfName, way: Way, limit: &Bandwidth) -> Result<(), DriverError> {
        let raw = get_link(&mut self.netlink, link)?.ok_or_else(|| Mismatch::NoLink(link.clone()))?;
        let index = raw.index;
        let is_tap = raw.into_link(|_| None).kind == Some(LinkKind::Other("tun".into()));
        tc::set(&mut self.netlink, index, is_tap, way, limit)
    }

    /// Makes the link, then sets what can only be set on one that is there; a link that is not wholly made is removed.
    fn create_link(&mut self, name: &IfName, link: &Link) -> Result<(), DriverError> {
        let message = match &link.kind {
            Some(LinkKind::Bridge(settings)) => {
                let start = link.mtu.map(|mtu| if mtu == 1500 { 1499 } else { 1500 });
                encode::create_bridge(name, *settings, link.mac, start)
            }
            Some(LinkKind::Vlan { parent, id }) => encode::create_vlan(name, index_of(parent)?, *id, link.mac),
            Some(LinkKind::Other(_)) | None => {
                return Err(DriverError::Netlink(format!(
                    "vmfabric makes bridges and VLAN interfaces only, not {name}"
                )));
            }
        };
        let created = self.netlink.change(NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(message));
        created.map_err(|error| self.not_created(name, link, error))?;
        self.finish(name, link).inspect_err(|_| {
            if let Err(error) = self.netlink.change(0, RouteNetlinkMessage::DelLink(encode::link(name))) {
                tracing::warn!(link = %name, ?error, "a link that is not wholly made cannot be removed");
            }
        })
    }

    fn finish(&mut self, name: &IfName, link: &Link) -> Result<(), DriverError> {
        if let Some(LinkKind::Bridge(settings)) = &link.kind {
            self.check_bridge(name, Some(settings.vlan_filtering), settings.default_pvid)?;
        }
        let rest = LinkChange {
            master: link.master.clone().filter(Option::is_some),
            up: link.up.filter(|up| *up),
            mtu: link.mtu,
            alias: link.alias.clone(),
            ..LinkChange::default()
        };
        if rest.is_empty() { Ok(()) } else { self.set_link(name, &rest) }
    }

    fn not_created(&mut self, name: &IfName, link: &Link, error: netlink::Error) -> DriverError {
        let vlan = matches!(link.kind, Some(LinkKind::Vlan { .. }));
        match error.errno() {
            // A VLAN interface may also clash with another of the same ID under another name.
            Some(libc::EEXIST) if index_of(name).is_ok() => Mismatch::LinkExists(name.clone()).into(),
            Some(libc::EOPNOTSUPP) if link.bridge().is_some_and(|bridge| bridge.vlan_filtering) => {
                DriverError::Netlink(NO_VLAN_FILTERING.into())
            }
            Some(libc::EOPNOTSUPP) if vlan => DriverError::Netlink(NO_VLAN_LINKS.into()),
            _ => error.into(),
        }
    }

    fn set_link(&mut self, name: &IfName, change: &LinkChange) -> Result<(), DriverError> {
        let master = match &change.master {
            Some(Some(master)) => Some(index_of(master)?),
            Some(None) => Some(0),
            None => None,
        };
        let filters = self.capabilities.bridge_vlan_filtering;
        if change.vlan_filtering == Some(true) && !filters {
            return Err(DriverError::Netlink(NO_VLAN_FILTERING.into()));
        }
        // Otherwise such a kernel is as asked; it would refuse, or ignore, the words.
        let change = &LinkChange {
            vlan_filtering: change.vlan_filtering.filter(|_| filters),
            default_pvid: change.default_pvid.filter(|_| filters),
            ..change.clone()
        };
        // Only RTM_NEWLINK takes a bridge's own settings; without NLM_F_CREATE it makes nothing.
        let message = encode::set_link(name, change, master);
        let message = match encode::changes_bridge(change) {
            true => RouteNetlinkMessage::NewLink(message),
            false => RouteNetlinkMessage::SetLink(message),
        };
        self.netlink.change(0, message).map_err(|error| on_link(name, error))?;
        self.check_bridge(name, change.vlan_filtering, change.default_pvid)
    }

    /// Reads back what was asked for: kernels without VLAN filtering take the settings and ignore them.
    fn check_bridge(
        &mut self,
        name: &IfName,
        vlan_filtering: Option<bool>,
        default_pvid: Option<u16>,
    ) -> Result<(), DriverError> {
        if vlan_filtering.is_none() && default_pvid.is_none() {
            return Ok(());
        }
        let raw = get_link(&mut self.netlink, name)?.ok_or_else(|| Mismatch::NoLink(name.clone()))?;
        let Some(LinkKind::Bridge(is)) = raw.into_link(|_| None).kind else {
            return Err(DriverError::Netlink(format!("{name} is not a bridge")));
        };
        let BridgeSettings { vlan_filtering: filters, default_pvid: pvid } = is;
        if vlan_filtering == Some(true) && (!filters || pvid.is_none()) {
            return Err(DriverError::Netlink(NO_VLAN_FILTERING.into()));
        }
        let differs = vlan_filtering.is_some_and(|asked| asked != filters)
            || matches!((default_pvid, pvid), (Some(asked), Some(is)) if asked != is);
        if differs {
            return Err(DriverError::Netlink(format!("the kernel did not take the VLAN settings of {name}: {is:?}")));
        }
        Ok(())
    }

    fn change_vlans(
        &mut self,
        wrap: fn(LinkMessage) -> RouteNetlinkMessage,
        link: &IfName,
        vlans: &[(VlanId, VlanEntry)],
    ) -> Result<(), DriverError> {
        let index = index_of(link)?;
        // A port takes them through its bridge. What has no bridge above it may be one itself.
        match self.netlink.change(0, wrap(encode::vlans(index, false, vlans))) {
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => {}
            outcome => return outcome.map_err(|error| on_link(link, error)),
        }
        if !self.capabilities.bridge_vlan_filtering {
            return Err(DriverError::Netlink(NO_VLAN_FILTERING.into()));
        }
        match self.netlink.change(0, wrap(encode::vlans(index, true, vlans))) {
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Err(Mismatch::NotAPort(link.clone()).into()),
            outcome => outcome.map_err(|error| on_link(link, error)),
        }
    }
}

/// Neighbours that the kernel takes as one.
fn belong_together(a: &Change, b: &Change) -> bool {
    match (a, b) {
        (Change::AddVlan { link, .. }, Change::AddVlan { link: next, .. }) => link == next,
        _ => a.family().is_some() && a.family() == b.family(),
    }
}

fn describe(group: &[Change]) -> String {
    match group {
        [] => String::new(),
        [change] => change.to_string(),
        [first, rest @ ..] => format!("{first}, and {} more with it", rest.len()),
    }
}

fn index_of(name: &IfName) -> Result<u32, Mismatch> {
    if_nametoindex(name.as_str()).map_err(|_| Mismatch::NoLink(name.clone()))
}

fn on_link(name: &IfName, error: netlink::Error) -> DriverError {
    match error.errno() {
        Some(libc::ENODEV) => Mismatch::NoLink(name.clone()).into(),
        _ => error.into(),
    }
}

/// Sysctls of network namespaces follow the thread that writes them: this one.
fn set_sysctl(key: &Sysctl, value: &str) -> Result<(), DriverError> {
    if *key == Sysctl::Ipv6ForwardingPath {
        return set_forwarding_path(value);
    }
    let path = format!("/proc/sys/{}", key.path());
    let Err(source) = std::fs::write(&path, value) else { return Ok(()) };
    match (source.kind(), key) {
        (io::ErrorKind::NotFound, _) if key.link().is_some_and(|link| index_of(link).is_err()) => {
            Err(key.link().map_or(DriverError::NotPermitted, |link| Mismatch::NoLink(link.clone()).into()))
        }
        // IPv6 does not run there anyway.
        (io::ErrorKind::NotFound, Sysctl::Ipv6Disabled(_)) if value == "1" => Ok(()),
        (io::ErrorKind::PermissionDenied, _) => Err(DriverError::NotPermitted),
        _ => Err(DriverError::Io { path, source }),
    }
}

const IPV6_CONF: &str = "/proc/sys/net/ipv6/conf";

/// The kernel sets all links with it, and new ones' default (kernel `Documentation/networking/ip-sysctl.rst`,
/// `conf/all/forwarding`): links that are hosts would be hosts no more, and no longer hear of their routers.
fn set_forwarding_path(value: &str) -> Result<(), DriverError> {
    let fail = |path: &str| {
        let path = path.to_owned();
        move |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => DriverError::NotPermitted,
            _ => DriverError::Io { path, source },
        }
    };
    let mut before = Vec::new();
    for entry in std::fs::read_dir(IPV6_CONF).map_err(fail(IPV6_CONF))? {
        let path = entry.map_err(fail(IPV6_CONF))?.path();
        if path.file_name().is_some_and(|name| name != "all") {
            let path = path.join("forwarding");
            // A link may have gone meanwhile.
            before.extend(std::fs::read_to_string(&path).ok().map(|value| (path, value)));
        }
    }
    let path = format!("{IPV6_CONF}/all/forwarding");
    std::fs::write(&path, value).map_err(fail(&path))?;
    let mut outcome = Ok(());
    for (path, value) in before.into_iter().filter(|(_, before)| before.trim() != value) {
        match std::fs::write(&path, value.trim()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                outcome = Err(fail(&path.display().to_string())(error));
            }
            _ => {}
        }
    }
    outcome
}
