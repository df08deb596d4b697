//! What advertisements and DHCPv6 say on a network.

use super::Ipv6Service;
use crate::{
    datapath::Datapath,
    intent::{Forward, Ipv6Mode, Network, Port, Segment, Subnet},
    net::{IfName, IpNet, Ipv6Net},
    protocol::{dhcpv6, ra},
    reconciler::View,
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// How long hosts may use a prefix that is advertised, and use it by choice, in seconds.
const PREFIX_VALID: u32 = 86_400;
const PREFIX_PREFERRED: u32 = 14_400;

/// `held`: the subnets that the host has its address in.
pub(super) fn service_of(
    view: &View,
    network: &Network,
    interface: &IfName,
    held: &[&Subnet],
    datapath: &Datapath,
) -> Option<Ipv6Service> {
    let on_link: Vec<&Subnet> = held.iter().copied().filter(|subnet| subnet.ipv6_mode.is_some()).collect();
    // Those that lie behind relay agents need no address of this host.
    let relayed = view.intent.subnets_of(network.id);
    let relayed = relayed.filter(|subnet| subnet.is_behind_relays() && subnet.ipv6_mode.is_some());
    let all: Vec<&Subnet> = on_link.iter().copied().chain(relayed).collect();
    if all.is_empty() {
        return None;
    }
    let local = network.segment == Segment::Local;
    let ports = view.intent.ports_of(network.id);
    // On a network that other hosts share, only those who are here are answered.
    let ports = ports.filter(|port| local || view.attachments.contains_key(&port.id));
    let scope = dhcpv6::Scope {
        network: network.id.0,
        interface: interface.clone(),
        server_id: view.server_id.clone(),
        subnets: all.iter().filter_map(|subnet| subnet_of(network, subnet, local)).collect(),
        hosts: ports.flat_map(|port| hosts_of(port, &all)).collect(),
        relays: all.iter().flat_map(|subnet| &subnet.dhcp_relays).copied().filter_map(v6).collect(),
        rapid_commit: local,
        leases_per_port: view.host.dhcp.leases_per_port,
        packets_per_port: view.host.dhcp.packets_per_port,
    };
    let mac = datapath.links.get(interface).and_then(|link| link.mac);
    let router = mac.filter(|_| !on_link.is_empty()).map(|mac| router_of(network, &on_link, mac));
    Some(Ipv6Service { scope, router })
}

fn router_of(network: &Network, subnets: &[&Subnet], mac: crate::net::MacAddr) -> ra::Router {
    let has = |modes: &[Ipv6Mode]| subnets.iter().any(|s| s.ipv6_mode.is_some_and(|mode| modes.contains(&mode)));
    let prefix = |subnet: &&Subnet| {
        Some(ra::Prefix {
            net: net_of(subnet)?,
            autonomous: subnet.autoconfigured(),
            valid: PREFIX_VALID,
            preferred: PREFIX_PREFERRED,
        })
    };
    let routes = subnets.iter().flat_map(|subnet| &subnet.host_routes).filter_map(|route| match route.destination {
        IpNet::V6(net) => Some(net),
        IpNet::V4(_) => None,
    });
    let servers: BTreeSet<Ipv6Addr> = subnets.iter().flat_map(|subnet| dns_of(subnet)).collect();
    ra::Router {
        mac,
        // A host that forwards nothing is no router.
        default_router: subnets.iter().any(|subnet| subnet.forward != Forward::None),
        managed: has(&[Ipv6Mode::Stateful]),
        other: has(&[Ipv6Mode::Stateful, Ipv6Mode::Stateless]),
        mtu: network.mtu.map(u32::from),
        prefixes: subnets.iter().filter_map(prefix).collect(),
        routes: routes.collect(),
        dns_servers: servers.into_iter().collect(),
        search: vec![network.domain()],
    }
}

fn subnet_of(network: &Network, subnet: &Subnet, local: bool) -> Option<dhcpv6::Subnet> {
    Some(dhcpv6::Subnet {
        id: subnet.id.0,
        prefix: net_of(subnet)?,
        on_link: subnet.host_address.is_some(),
        stateful: subnet.ipv6_mode == Some(Ipv6Mode::Stateful),
        pools: subnet.pools.clone(),
        routers: {
            let held = subnet.host_address.into_iter().chain(subnet.gateway);
            held.chain(subnet.dhcp_relays.iter().copied()).filter_map(v6).collect()
        },
        lease_time: Duration::from_secs(subnet.lease_seconds.into()),
        dynamic: local,
        delegation: subnet.delegation.map(|delegation| (delegation.block, delegation.length)),
        dns_servers: dns_of(subnet),
        domain: Some(network.domain()),
        ntp_servers: subnet.ntp_servers.clone(),
    })
}

fn hosts_of<'a>(port: &'a Port, served: &'a [&Subnet]) -> impl Iterator<Item = dhcpv6::Host> + 'a {
    let ips = port.fixed_ips.iter().filter(|ip| served.iter().any(|subnet| subnet.id == ip.subnet));
    ips.filter_map(|ip| {
        let (mac, host_name, port) = (port.mac, port.dns_name.clone(), port.id.0);
        Some(dhcpv6::Host { mac, address: v6(ip.address)?, host_name, port })
    })
}

/// The name servers that guests are told of: the host, where nobody chose others.
fn dns_of(subnet: &Subnet) -> Vec<Ipv6Addr> {
    match subnet.dns_servers.as_slice() {
        [] => subnet.host_address.and_then(v6).into_iter().collect(),
        given => given.iter().copied().filter_map(v6).collect(),
    }
}

fn net_of(subnet: &Subnet) -> Option<Ipv6Net> {
    match subnet.cidr {
        IpNet::V6(net) => Some(net),
        IpNet::V4(_) => None,
    }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}
