//! Requests for the kernel.

use crate::{
    datapath::{Address, BridgeSettings, LinkChange, Route, VlanEntry},
    net::{IfName, IpNet, MacAddr, VlanId},
};
use netlink_packet_core::DefaultNla;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{
        AfSpecBridge, BridgeFlag, BridgeStpState, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoData, InfoKind,
        InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
    },
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType},
};
use std::net::IpAddr;

/// `RTM_GETVLAN` (kernel 5.6), which netlink-packet-route does not know.
pub(super) const RTM_GETVLAN: u16 = 114;

/// A link by its name, the key of all that we do.
pub(super) fn link(name: &IfName) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message
}

/// One link, read: without its counters.
pub(super) fn get_link(name: &IfName) -> LinkMessage {
    let mut message = link(name);
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

pub(super) fn get_link_at(index: u32) -> LinkMessage {
    let mut message = all_links();
    message.header.index = index;
    message
}

pub(super) fn all_links() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

/// All bridges and bridge ports with their VLANs, in ranges: a trunk of 4,094 would outgrow a message otherwise.
pub(super) fn all_bridge_ports() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed, LinkExtentMask::SkipStats]));
    message
}

/// A `br_vlan_msg` (`linux/if_bridge.h`): family, padding, index.
pub(super) fn vlans_of(index: u32) -> Vec<u8> {
    let mut message = vec![libc::AF_BRIDGE as u8, 0, 0, 0];
    message.extend(index.to_ne_bytes());
    message
}

pub(super) fn all_addresses() -> AddressMessage {
    AddressMessage::default()
}

/// A family's routes of the main table.
pub(super) fn main_routes(family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message
}

/// A route of ours in the main table.
pub(super) fn route(index: u32, route: &Route) -> RouteMessage {
    let mut message = main_routes(AddressFamily::Inet6);
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.protocol = RouteProtocol::from(OWN_ROUTES);
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet6(route.destination.network())));
    message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet6(route.via)));
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

/// The protocol number of our routes: one that nobody has in `/etc/iproute2/rt_protos`.
pub(super) const OWN_ROUTES: u8 = 118;

/// A bridge with no STP; it forwards at once.
///
/// Kernels without VLAN filtering refuse the word even where it is to be off, so it is left out.
///
/// The kernel counts an MTU as set by hand, and keeps it as ports come and go, only where it is changed after the
/// creation (`br_change_mtu`): `mtu` is what the bridge starts with, and must be another than it is to have.
pub(super) fn create_bridge(
    name: &IfName,
    settings: BridgeSettings,
    mac: Option<MacAddr>,
    mtu: Option<u32>,
) -> LinkMessage {
    let mut message = link(name);
    let mut data = vec![InfoBridge::StpState(BridgeStpState::Disabled)];
    data.extend(bridge_settings(settings.vlan_filtering.then_some(true), settings.default_pvid));
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(data))]));
    message
}

pub(super) fn create_vlan(name: &IfName, parent: u32, id: VlanId, mac: Option<MacAddr>) -> LinkMessage {
    let mut message = link(name);
    message.attributes.push(LinkAttribute::Link(parent));
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vlan),
        LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id.get())])),
    ]));
    message
}

/// All changes in one message. The kernel does them in this order: bridge settings, address, MTU, alias, master, and
/// (from 5.15) the flags last: a port is up only when it is in place.
pub(super) fn set_link(name: &IfName, change: &LinkChange, master: Option<u32>) -> LinkMessage {
    let mut message = link(name);
    if let Some(up) = change.up {
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    }
    if changes_bridge(change) {
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(bridge_settings(change.vlan_filtering, change.default_pvid))),
        ]));
    }
    message.attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
    message.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
    // Without the NUL that `LinkAttribute::IfAlias` adds: an alias of no bytes is how one is taken away.
    let alias = change.alias.as_ref().map(|alias| DefaultNla::new(libc::IFLA_IFALIAS, alias.as_bytes().to_vec()));
    message.attributes.extend(alias.map(LinkAttribute::Other));
    message.attributes.extend(master.map(LinkAttribute::Controller));
    message
}

pub(super) fn changes_bridge(change: &LinkChange) -> bool {
    change.vlan_filtering.is_some() || change.default_pvid.is_some()
}

fn bridge_settings(vlan_filtering: Option<bool>, default_pvid: Option<u16>) -> Vec<InfoBridge> {
    let filtering = vlan_filtering.map(InfoBridge::VlanFiltering);
    filtering.into_iter().chain(default_pvid.map(InfoBridge::VlanDefaultPvid)).collect()
}

/// VLANs of a port, or of the bridge itself.
pub(super) fn vlans(index: u32, is_bridge: bool, vlans: &[(VlanId, VlanEntry)]) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    let target = is_bridge.then_some(AfSpecBridge::Flags(BridgeFlag::LowerDev));
    let entries = vlans.iter().map(|(vid, entry)| {
        let (pvid, untagged) = entry.flags();
        let mut flags = BridgeVlanInfoFlags::empty();
        flags.set(BridgeVlanInfoFlags::Pvid, pvid);
        flags.set(BridgeVlanInfoFlags::Untagged, untagged);
        AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid: vid.get() })
    });
    message.attributes.push(LinkAttribute::AfSpecBridge(target.into_iter().chain(entries).collect()));
    message
}

pub(super) fn address(index: u32, address: &Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.header.family = match address {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    if let IpNet::V6(_) = address {
        // The host alone gives addresses there; a server is to listen at once, before any guest is.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    if let (IpAddr::V4(broadcast), 0..=30) = (address.broadcast(), address.prefix_len()) {
        message.attributes.push(AddressAttribute::Broadcast(broadcast));
    }
    message
}
