//! What the DHCP and DNS servers of a network are to say, from the intent.

use super::View;
use crate::{
    datapath::Datapath,
    intent::{Forward, HostDns, Network, NetworkDns, NetworkId, Origin, Port, Segment, Subnet},
    net::{BootRule, DnsLabel, DnsRecord, DomainName, IfName, IpNet},
    planner::gateway_name,
    protocol::{
        dhcpv4::{self, ClientKey, Host, Scope},
        dhcpv6,
        dns::{NameSource, Policy, Routes},
        ra,
    },
    server::clock::LeaseClock,
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};
use uuid::Uuid;

mod ipv6;

/// The services of one network.
#[derive(Debug)]
pub struct NetworkServices {
    pub network: NetworkId,
    pub lease_clock: LeaseClock,
    /// `None`: nobody is served DHCP.
    pub scope: Option<Scope>,
    /// `None`: nothing is advertised, and nobody is served DHCPv6.
    pub ipv6: Option<Ipv6Service>,
    /// `None`: nobody is served DNS.
    pub dns: Option<DnsService>,
}

/// What a network is told by advertisements and DHCPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv6Service {
    pub scope: dhcpv6::Scope,
    /// `None`: the host is on none of its IPv6 subnets, and serves relay agents alone.
    pub router: Option<ra::Router>,
}

/// A network's names, and where they are asked for.
#[derive(Debug)]
pub struct DnsService {
    pub interface: IfName,
    pub addresses: Vec<IpAddr>,
    pub domain: DomainName,
    pub blocks: Vec<IpNet>,
    pub names: Vec<DnsEntry>,
    pub records: Vec<DnsRecord>,
    /// Whether names in the domain that nobody has do not exist.
    pub local: bool,
    /// Networks whose guests may ask for these names.
    pub shared_with: BTreeSet<NetworkId>,
    /// Who is asked about other names; `hidden` is for who knows all networks.
    pub policy: Policy,
    pub rate_limit: u32,
}

#[derive(Debug)]
pub struct DnsEntry {
    /// The port, or for what a guest calls itself its lease: see [`lease_owner`].
    pub owner: Uuid,
    pub label: DnsLabel,
    pub source: NameSource,
    pub addresses: Vec<IpAddr>,
}

/// `datapath`: what there is of the host, since a server needs its interface.
pub(super) fn services_of(view: &View, datapath: &Datapath, id: NetworkId) -> NetworkServices {
    let nothing = NetworkServices { network: id, lease_clock: view.lease_clock, scope: None, ipv6: None, dns: None };
    let Some(network) = view.intent.network(id) else { return nothing };
    let Some(interface) = interface_of(view, network).filter(|interface| datapath.links.contains_key(interface)) else {
        return nothing;
    };
    let held = view.intent.subnets_of(id).filter(|subnet| {
        let address = subnet.host_address.and_then(|a| IpNet::new(a, subnet.cidr.prefix_len()).ok());
        address.is_some_and(|address| datapath.addresses.contains(&(interface.clone(), address)))
    });
    let subnets: Vec<&Subnet> = held.collect();
    let addresses: Vec<IpAddr> = subnets.iter().filter_map(|subnet| subnet.host_address).collect();
    if addresses.is_empty() {
        return nothing;
    }
    NetworkServices {
        network: id,
        lease_clock: view.lease_clock,
        scope: scope_of(view, network, &interface, &subnets),
        ipv6: ipv6::service_of(view, network, &interface, &subnets, datapath),
        dns: Some(DnsService {
            interface,
            addresses,
            domain: network.domain(),
            blocks: view.intent.subnets_of(id).map(|subnet| subnet.cidr).collect(),
            names: names_of(view, network),
            records: network.dns.records.clone(),
            local: !network.dns.forward_unknown,
            shared_with: network.dns.shared_with.clone(),
            policy: policy_of(&network.dns, &view.host.dns),
            rate_limit: view.host.dns.rate_limit,
        }),
    }
}

fn policy_of(network: &NetworkDns, host: &HostDns) -> Policy {
    Policy {
        routes: Routes::new(&network.forwarders, &host.forwarders),
        local_reverse: host.local_reverse,
        refuse_private: host.refuse_private,
        stale_seconds: host.stale_seconds,
        ..Policy::default()
    }
}

const LOWEST: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn interface_of(view: &View, network: &Network) -> Option<IfName> {
    let bridge = match network.segment.physical_network() {
        None => network.bridge.as_ref()?,
        Some(name) => view.host.physical_networks.get(name).filter(|physical| physical.is_own())?.bridge(),
    };
    Some(gateway_name(network, bridge))
}

fn scope_of(view: &View, network: &Network, interface: &IfName, subnets: &[&Subnet]) -> Option<Scope> {
    let mut own = subnets.iter().filter(|subnet| subnet.dhcp).filter_map(|subnet| v4(subnet.host_address?));
    let server_address = own.next()?;
    // Those that lie behind relay agents need no address of this host.
    let relayed = view.intent.subnets_of(network.id);
    let relayed = relayed.filter(|subnet| subnet.is_behind_relays());
    let served = subnets.iter().copied().chain(relayed).filter(|subnet| matches!(subnet.cidr, IpNet::V4(_)));
    let served: Vec<&Subnet> = served.filter(|subnet| subnet.dhcp).collect();
    let local = network.segment == Segment::Local;
    let hosts = view
        .intent
        .ports_of(network.id)
        // On a network that other hosts share, only those who are here are answered.
        .filter(|port| local || view.attachments.contains_key(&port.id))
        .filter_map(|port| host_of(port, &served))
        .collect();
    Some(Scope {
        network: network.id.0,
        interface: interface.clone(),
        server_address,
        other_addresses: own.collect(),
        subnets: served.iter().filter_map(|subnet| subnet_of(network, subnet, local)).collect(),
        hosts,
        relays: served.iter().flat_map(|subnet| &subnet.dhcp_relays).copied().filter_map(v4).collect(),
        rapid_commit: local,
        probe: true,
        leases_per_port: view.host.dhcp.leases_per_port,
        packets_per_port: view.host.dhcp.packets_per_port,
    })
}

fn host_of(port: &Port, served: &[&Subnet]) -> Option<Host> {
    let ip = port.fixed_ips.iter().find(|ip| served.iter().any(|subnet| subnet.id == ip.subnet))?;
    Some(Host {
        mac: port.mac,
        client: port.dhcp_client_id.as_ref().and_then(|id| ClientKey::new(id.as_bytes())),
        address: v4(ip.address)?,
        host_name: port.dns_name.clone(),
        port: port.id.0,
        options: port.dhcp_options.clone(),
        boot: port.dhcp_boot.clone(),
    })
}

fn subnet_of(network: &Network, subnet: &Subnet, local: bool) -> Option<dhcpv4::Subnet> {
    let IpNet::V4(prefix) = subnet.cidr else { return None };
    let dns_servers = match subnet.dns_servers.as_slice() {
        [] => subnet.host_address.and_then(v4).into_iter().collect(),
        given => given.iter().copied().filter_map(v4).collect(),
    };
    let route = |route: &crate::intent::HostRoute| match route.destination {
        IpNet::V4(destination) => Some((destination, v4(route.next_hop)?)),
        IpNet::V6(_) => None,
    };
    let through_host = subnet.gateway == subnet.host_address && subnet.forward == Forward::None;
    Some(dhcpv4::Subnet {
        id: subnet.id.0,
        prefix,
        on_link: subnet.host_address.is_some(),
        // A host that forwards nothing is no router.
        router: subnet.gateway.and_then(v4).filter(|_| !through_host),
        dns_servers,
        domain: Some(network.domain()),
        mtu: network.mtu,
        host_routes: subnet.host_routes.iter().filter_map(route).collect(),
        pools: subnet.pools.clone(),
        lease_time: Duration::from_secs(subnet.lease_seconds.into()),
        dynamic: local,
        options: merged(&subnet.dhcp_options, &network.dhcp_options, |option| {
            (option.code(), option.class().map(str::to_owned))
        }),
        boot: merged(&subnet.dhcp_boot, &network.dhcp_boot, BootRule::selector),
    })
}

/// Those of the subnet, and of the network's those that the subnet does not replace.
fn merged<T: Clone, K: PartialEq>(own: &[T], general: &[T], key: impl Fn(&T) -> K) -> Vec<T> {
    let inherited = general.iter().filter(|outer| own.iter().all(|inner| key(inner) != key(outer)));
    own.iter().chain(inherited).cloned().collect()
}

/// The names of a network's guests: the port's own, the domain's, and what the guest calls itself; the zone ranks them.
fn names_of(view: &View, network: &Network) -> Vec<DnsEntry> {
    let mut names = Vec::new();
    for port in view.intent.ports_of(network.id) {
        let addresses: Vec<IpAddr> = port.fixed_ips.iter().map(|ip| ip.address).collect();
        if addresses.is_empty() {
            continue;
        }
        let of_domain = port.device.as_ref().and_then(|device| DnsLabel::from_free_text(&device.name));
        let given = port.name.as_ref().filter(|_| port.origin == Origin::Admin);
        let given = given.and_then(|name| DnsLabel::from_free_text(name.as_str()));
        let owner = port.id.0;
        if let Some(label) = port.dns_name.clone() {
            names.push(DnsEntry { owner, label, source: NameSource::Port, addresses: addresses.clone() });
        }
        if let Some(label) = of_domain.or(given) {
            names.push(DnsEntry { owner, label, source: NameSource::Domain, addresses });
        }
    }
    let leases = view.leases.range((network.id, LOWEST)..).take_while(|((id, _), _)| *id == network.id);
    for (_, lease) in leases {
        let Some(label) = lease.host_name.as_deref().and_then(|name| DnsLabel::new(name).ok()) else { continue };
        let owner = lease_owner(network.id.0, lease.address);
        names.push(DnsEntry { owner, label, source: NameSource::Dhcp, addresses: vec![lease.address] });
    }
    names
}

/// Whose name it is that a guest gave itself: a lease's, which has one address of a network.
pub fn lease_owner(network: Uuid, address: IpAddr) -> Uuid {
    Uuid::new_v5(&network, address.to_string().as_bytes())
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
