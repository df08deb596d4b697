//! What a change must satisfy beside all that is there already.

use super::{
    Bridging, Change, Forward, HostConfig, Intent, IntentError, Network, Port, Segment, Subnet, check_security,
};
use crate::net::{BootRule, DhcpOption, IpNet, VlanId};
use std::net::IpAddr;

/// Per network, subnet or port; a reply has no room for more.
const MAX_OPTIONS: usize = 64;
const MAX_RELAYS: usize = 64;

pub(super) fn check(intent: &Intent, change: &Change, host: &HostConfig) -> Result<(), IntentError> {
    match change {
        Change::PutNetwork(network) => check_network(intent, network, host),
        Change::PutSubnet(subnet) => check_subnet(intent, subnet, host),
        Change::PutPort(port) => check_port(intent, port, host),
        Change::DeleteNetwork(id) => intent.network(*id).map(drop).ok_or_else(|| IntentError::not_found("network", id)),
        Change::DeleteSubnet(id) => intent.subnet(*id).map(drop).ok_or_else(|| IntentError::not_found("subnet", id)),
        Change::DeletePort(id) => intent.port(*id).map(drop).ok_or_else(|| IntentError::not_found("port", id)),
        Change::PutSecurityGroup(group) => check_security::check_group(intent, group),
        Change::DeleteSecurityGroup(id) => check_security::check_group_delete(intent, intent, *id),
        Change::PutAddressGroup(group) => check_security::check_address_group(intent, group),
        Change::DeleteAddressGroup(id) => check_security::check_address_group_delete(intent, intent, *id),
    }
}

/// Whether a change may be one of several that lead from one valid intent to another; `after` has all of them.
pub(super) fn check_between(
    before: &Intent,
    after: &Intent,
    change: &Change,
    host: &HostConfig,
) -> Result<(), IntentError> {
    match change {
        Change::PutNetwork(network) => {
            if before.network(network.id).is_some_and(|old| old.segment != network.segment) {
                refuse_ports(after, network)?;
            }
            check_network(after, network, host)?;
            after.ports_of(network.id).try_for_each(|port| check_security::check_unprotected(network, port))
        }
        Change::PutSubnet(subnet) => {
            check_subnet_stays(before, subnet)?;
            check_subnet(after, subnet, host)
        }
        Change::PutPort(port) => {
            check_port_stays(before, port)?;
            check_holders(before, after, port)?;
            check_port(after, port, host)
        }
        Change::PutSecurityGroup(group) => {
            check_security::check_group(after, group)?;
            check_security::check_statefulness(after, group)?;
            check_security::check_counts(after)
        }
        Change::PutAddressGroup(group) => {
            check_security::check_address_group(after, group)?;
            check_security::check_counts(after)
        }
        Change::DeleteSecurityGroup(id) => check_security::check_group_delete(before, after, *id),
        Change::DeleteAddressGroup(id) => check_security::check_address_group_delete(before, after, *id),
        Change::DeleteNetwork(_) | Change::DeleteSubnet(_) | Change::DeletePort(_) => check(before, change, host),
    }
}

/// What is unique and was another port's that still has it: indexes know the last one alone.
fn check_holders(before: &Intent, after: &Intent, port: &Port) -> Result<(), IntentError> {
    let still = |id: super::PortId| after.port(id).filter(|other| other.id != port.id);
    for ip in &port.fixed_ips {
        let holder = before.address_holder(ip.subnet, ip.address).and_then(still);
        if let Some(holder) = holder.filter(|holder| holder.fixed_ips.contains(ip)) {
            return Err(IntentError::AddressTaken { address: ip.address, port: describe(holder) });
        }
    }
    if let Some(name) = &port.name
        && let Some(holder) = before.port_named(name.as_str()).and_then(|holder| still(holder.id))
        && holder.name.as_ref() == Some(name)
    {
        return Err(IntentError::NameTaken { kind: "port", name: name.to_string() });
    }
    let holder = before.port_by_mac(port.network, port.mac).and_then(|holder| still(holder.id));
    if let (Some(holder), Some(network)) = (holder.filter(|h| h.mac == port.mac), after.network(port.network)) {
        let (network, port) = (network.name.clone(), describe(holder));
        return Err(IntentError::MacTaken { mac: holder.mac, network, port });
    }
    Ok(())
}

fn refuse_ports(intent: &Intent, network: &Network) -> Result<(), IntentError> {
    match intent.ports_of(network.id).next() {
        None => Ok(()),
        Some(_) => Err(IntentError::Invalid(format!(
            "network '{}' has ports, so its segment cannot change; make a new network and move the guests",
            network.name
        ))),
    }
}

fn check_subnet_stays(before: &Intent, subnet: &Subnet) -> Result<(), IntentError> {
    if before.subnet(subnet.id).is_some_and(|old| old.network != subnet.network) {
        let why = "a subnet stays on its network; delete it and make it anew".to_owned();
        return Err(IntentError::BadSubnet { cidr: subnet.cidr, why });
    }
    Ok(())
}

fn check_port_stays(before: &Intent, port: &Port) -> Result<(), IntentError> {
    if before.port(port.id).is_some_and(|old| old.network != port.network) {
        return Err(IntentError::Invalid("a port stays on its network; delete it and make it anew".into()));
    }
    Ok(())
}

fn check_network(intent: &Intent, network: &Network, host: &HostConfig) -> Result<(), IntentError> {
    if let Some(old) = intent.network(network.id)
        && old.segment != network.segment
    {
        refuse_ports(intent, network)?;
    }
    let ipv6 = intent.subnets_of(network.id).find(|subnet| matches!(subnet.cidr, IpNet::V6(_)));
    if let (Some(subnet), Some(..1280)) = (ipv6, network.mtu) {
        return Err(IntentError::Invalid(format!(
            "an mtu below 1280 carries no IPv6 (RFC 8200), which subnet '{}' has; use 1280 to 65535",
            subnet.name
        )));
    }
    if network.mtu.is_some_and(|mtu| mtu < 576) {
        return Err(IntentError::Invalid("an mtu below 576 carries no DHCP (RFC 2131); use 576 to 65535".into()));
    }
    for other in intent.networks().filter(|other| other.id != network.id) {
        if other.name == network.name {
            return Err(IntentError::NameTaken { kind: "network", name: network.name.to_string() });
        }
        if other.bridge.is_some() && other.bridge == network.bridge {
            let bridge = network.bridge.as_ref().map_or("", |b| b.as_str());
            return Err(IntentError::Invalid(format!("bridge {bridge} belongs to network '{}'", other.name)));
        }
        check_segments(network, other)?;
    }
    check_security::check_network(intent, network)?;
    super::dns::check(intent, network)?;
    check_dhcp(&network.dhcp_options, &network.dhcp_boot)?;
    check_physical(network, host)
}

fn check_dhcp(options: &[DhcpOption], boot: &[BootRule]) -> Result<(), IntentError> {
    let invalid = |text: String| Err(IntentError::Invalid(text));
    if options.len() > MAX_OPTIONS || boot.len() > MAX_OPTIONS {
        return invalid(format!("at most {MAX_OPTIONS} DHCP options and boot rules are told"));
    }
    for (i, option) in options.iter().enumerate() {
        if options[..i].iter().any(|other| (other.code(), other.class()) == (option.code(), option.class())) {
            return invalid(format!("DHCP option {} is given twice", option.code()));
        }
    }
    for (i, rule) in boot.iter().enumerate() {
        if boot[..i].iter().any(|other| other.selector() == rule.selector()) {
            return invalid(format!("the boot rule '{rule}' has another for the same clients beside it"));
        }
    }
    Ok(())
}

fn check_segments(network: &Network, other: &Network) -> Result<(), IntentError> {
    match (&network.segment, &other.segment) {
        (Segment::Vlan { physical_network: a, vid }, Segment::Vlan { physical_network: b, vid: taken })
            if a == b && vid == taken =>
        {
            Err(IntentError::VlanTaken { vid: *vid, physical_network: a.clone(), network: other.name.clone() })
        }
        (Segment::Flat { physical_network: a }, Segment::Flat { physical_network: b }) if a == b => {
            Err(IntentError::FlatTaken { physical_network: a.clone(), network: other.name.clone() })
        }
        _ => Ok(()),
    }
}

fn check_physical(network: &Network, host: &HostConfig) -> Result<(), IntentError> {
    let Some(name) = network.segment.physical_network() else { return Ok(()) };
    let Some(physical) = host.physical_networks.get(name) else {
        let known: Vec<_> = host.physical_networks.keys().map(|n| format!("'{n}'")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(IntentError::UnknownPhysicalNetwork { name: name.clone(), known });
    };
    match &network.segment {
        Segment::Vlan { vid, .. } => check_vid(*vid, name, physical),
        _ => Ok(()),
    }
}

fn check_vid(vid: VlanId, name: &super::ResourceName, physical: &super::PhysicalNetwork) -> Result<(), IntentError> {
    let physical_network = name.clone();
    if !physical.vlans.contains(&vid) {
        let (first, last) = (*physical.vlans.start(), *physical.vlans.end());
        return Err(IntentError::VlanNotAllowed { vid, physical_network, first, last });
    }
    if physical.is_own() && vid == physical.native_vlan {
        return Err(IntentError::VlanIsNative { vid, physical_network });
    }
    Ok(())
}

fn check_subnet(intent: &Intent, subnet: &Subnet, host: &HostConfig) -> Result<(), IntentError> {
    let cidr = subnet.cidr;
    let bad = |why: &str| Err(IntentError::BadSubnet { cidr, why: why.to_owned() });
    let network = intent.network(subnet.network).ok_or_else(|| IntentError::not_found("network", subnet.network))?;
    check_subnet_stays(intent, subnet)?;
    if cidr.trunc() != cidr {
        return Err(IntentError::HostBitsSet { cidr, truncated: cidr.trunc() });
    }
    match cidr {
        IpNet::V4(block) => super::check_ipv6::check_v4_block(subnet, block)?,
        IpNet::V6(block) => super::check_ipv6::check_v6_block(network, subnet, block)?,
    }
    if subnet.lease_seconds < 60 {
        return bad("a lease lasts at least 60 seconds");
    }
    if subnet.forward != Forward::None && subnet.host_address.is_none() {
        return bad("forward needs a gateway, which the host holds");
    }
    if subnet.forward != Forward::None && subnet.gateway != subnet.host_address {
        return bad("with forward nat or routed the host is the gateway: host_address and gateway must be one");
    }
    if let Some(relay) = subnet.dhcp_relays.iter().find(|relay| !cidr.contains(*relay)) {
        return bad(&format!(
            "the relay agent {relay} is outside; it is known by its address in this subnet (giaddr, or link-address)"
        ));
    }
    if subnet.dhcp_relays.len() > MAX_RELAYS {
        return bad(&format!("it has more than {MAX_RELAYS} relay agents"));
    }
    check_dhcp(&subnet.dhcp_options, &subnet.dhcp_boot)?;
    if subnet.dhcp && subnet.host_address.is_none() && subnet.dhcp_relays.is_empty() {
        return bad("dhcp needs an address for the host to serve from; set host_address or gateway");
    }
    if subnet.host_address.is_some() && foreign_bridge(network, host) {
        return bad("its network is on a bridge that vmfabric does not own, where it puts no address of the host; \
             use dhcp=false and forward=none, and the DHCP server and router of that network");
    }
    let reserved = [("gateway", subnet.gateway), ("host's address", subnet.host_address)];
    for (what, address) in reserved.into_iter().filter_map(|(what, a)| Some((what, a?))) {
        inside(cidr, address)?;
        if subnet.pools.iter().any(|pool| pool.contains(address)) {
            return bad(&format!("the {what} {address} is in a pool; cut it out of the pool"));
        }
        if let Some(holder) = intent.address_holder(subnet.id, address) {
            return Err(IntentError::AddressTaken { address, port: holder.to_string() });
        }
    }
    check_pools(subnet)?;
    for ip in intent.ports_of(subnet.network).flat_map(|port| &port.fixed_ips).filter(|ip| ip.subnet == subnet.id) {
        inside(cidr, ip.address)?;
    }
    check_overlaps(intent, subnet)
}

fn foreign_bridge(network: &Network, host: &HostConfig) -> bool {
    let physical = network.segment.physical_network().and_then(|name| host.physical_networks.get(name));
    physical.is_some_and(|physical| matches!(physical.bridging, Bridging::Existing { .. }))
}

fn check_pools(subnet: &Subnet) -> Result<(), IntentError> {
    for (i, pool) in subnet.pools.iter().enumerate() {
        inside(subnet.cidr, pool.first())?;
        inside(subnet.cidr, pool.last())?;
        if let Some(other) = subnet.pools[..i].iter().find(|other| other.overlaps(pool)) {
            let why = format!("the pools {other} and {pool} overlap");
            return Err(IntentError::BadSubnet { cidr: subnet.cidr, why });
        }
    }
    Ok(())
}

/// Overlapping blocks are refused on one network, and where both want the host's own layer 3.
fn check_overlaps(intent: &Intent, subnet: &Subnet) -> Result<(), IntentError> {
    for other in intent.subnets().filter(|other| other.id != subnet.id) {
        if other.name == subnet.name {
            return Err(IntentError::NameTaken { kind: "subnet", name: subnet.name.to_string() });
        }
        super::check_ipv6::check_delegations(subnet, other)?;
        let overlap = subnet.cidr.contains(&other.cidr) || other.cidr.contains(&subnet.cidr);
        let both_on_host = subnet.host_address.is_some() && other.host_address.is_some();
        if overlap && (both_on_host || subnet.network == other.network) {
            let network = intent.network(other.network).map(|n| n.name.clone());
            return match network {
                Some(network) => Err(IntentError::SubnetOverlap { cidr: subnet.cidr, other: other.cidr, network }),
                None => Err(IntentError::not_found("network", other.network)),
            };
        }
    }
    Ok(())
}

/// Whether an address can be a host's in the block: inside, and neither the network's own nor the broadcast address.
fn inside(cidr: IpNet, address: IpAddr) -> Result<(), IntentError> {
    if !cidr.contains(&address) {
        return Err(IntentError::OutsideSubnet { address, cidr });
    }
    let what = match cidr {
        IpNet::V4(_) if address == cidr.network() => "network address",
        IpNet::V4(_) if address == cidr.broadcast() => "broadcast address",
        IpNet::V6(net) if address == cidr.network() && net.prefix_len() < 127 => "address of every router",
        _ => return Ok(()),
    };
    Err(IntentError::AddressReserved { address, what, cidr })
}

fn check_port(intent: &Intent, port: &Port, host: &HostConfig) -> Result<(), IntentError> {
    let network = intent.network(port.network).ok_or_else(|| IntentError::not_found("network", port.network))?;
    check_port_stays(intent, port)?;
    if let Some(other) = intent.port_by_mac(port.network, port.mac).filter(|other| other.id != port.id) {
        let (network, port) = (network.name.clone(), describe(other));
        return Err(IntentError::MacTaken { mac: other.mac, network, port });
    }
    if let Some(device) = &port.device
        && let Some(other) = intent.port_by_device(device.domain, port.mac).filter(|other| other.id != port.id)
    {
        return Err(IntentError::Invalid(format!(
            "NIC {} of guest {} has port {} already; delete that one first",
            port.mac,
            device.domain,
            describe(other)
        )));
    }
    if let Some(name) = &port.name
        && intent.port_named(name.as_str()).is_some_and(|other| other.id != port.id)
    {
        return Err(IntentError::NameTaken { kind: "port", name: name.to_string() });
    }
    check_dhcp(&port.dhcp_options, &port.dhcp_boot)?;
    let same_client = |other: &&Port| other.id != port.id && other.dhcp_client_id == port.dhcp_client_id;
    if let Some(client) = &port.dhcp_client_id
        && let Some(other) = intent.ports_of(port.network).find(same_client)
    {
        return Err(IntentError::Invalid(format!("DHCP client {client} has port {} already", describe(other))));
    }
    check_addresses(intent, port)?;
    check_security::check_port(intent, network, port)?;
    check_trunk(network, port, host)
}

fn check_addresses(intent: &Intent, port: &Port) -> Result<(), IntentError> {
    for (i, ip) in port.fixed_ips.iter().enumerate() {
        let subnet = intent.subnet(ip.subnet).ok_or_else(|| IntentError::not_found("subnet", ip.subnet))?;
        if subnet.network != port.network {
            return Err(IntentError::Invalid(format!(
                "subnet '{}' is not on the port's network; choose an address of one that is",
                subnet.name
            )));
        }
        inside(subnet.cidr, ip.address)?;
        for (what, address) in [("gateway", subnet.gateway), ("host's address", subnet.host_address)] {
            if address == Some(ip.address) {
                return Err(IntentError::AddressReserved { address: ip.address, what, cidr: subnet.cidr });
            }
        }
        let holder = intent.address_holder(ip.subnet, ip.address).filter(|holder| *holder != port.id);
        if let Some(holder) = holder.and_then(|id| intent.port(id)) {
            return Err(IntentError::AddressTaken { address: ip.address, port: describe(holder) });
        }
        if port.fixed_ips[..i].contains(ip) {
            return Err(IntentError::Invalid(format!("address {} is given twice", ip.address)));
        }
    }
    Ok(())
}

fn check_trunk(network: &Network, port: &Port, host: &HostConfig) -> Result<(), IntentError> {
    let Some(trunk) = &port.trunk else { return Ok(()) };
    let Some(name) = network.segment.physical_network() else {
        return Err(IntentError::Invalid(format!(
            "network '{}' is local and has no VLANs; a trunk port needs a flat or VLAN network",
            network.name
        )));
    };
    let Some(physical) = host.physical_networks.get(name) else { return Ok(()) };
    if let Segment::Vlan { vid, .. } = &network.segment
        && trunk.native
        && trunk.tagged.contains(vid)
    {
        return Err(IntentError::Invalid(format!("VLAN {vid} is the trunk's native VLAN, so it cannot be tagged too")));
    }
    trunk.tagged.iter().try_for_each(|vid| check_vid(*vid, name, physical))
}

/// How an error names a port.
pub(super) fn describe(port: &Port) -> String {
    match (&port.name, &port.device) {
        (Some(name), _) => format!("'{name}'"),
        (None, Some(device)) if !device.name.is_empty() => format!("{} (guest '{}')", port.id, device.name),
        _ => port.id.to_string(),
    }
}
