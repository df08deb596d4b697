mod crash;
mod damage;
mod files;
mod full;
mod memory;
mod property;
mod round;

use crate::{
    backend::{LeaseRecord, Loaded, Store, StoreError, Write},
    intent::{
        AddressGroup, AddressGroupId, Change, Device, Direction, Ethertype, FixedIp, Forward, Network, NetworkId,
        Origin, Port, PortId, Protocol, Remote, ResourceName, Rule, SecurityGroup, SecurityGroupId, Segment, Subnet,
        SubnetId,
    },
};
use std::{future::Future, path::PathBuf};
use tempfile::TempDir;
use uuid::Uuid;

/// A directory that goes with the test, and a database's path in it.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("vmfabric.db");
    (directory, path)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn network(n: u8) -> Network {
    Network {
        id: network_id(n),
        name: format!("net{n}").parse().expect("a name"),
        segment: Segment::Local,
        bridge: Some(format!("vmf-net{n}").parse().expect("an interface name")),
        mtu: Some(9000),
        dns_domain: Some("lab.internal".parse().expect("a domain name")),
        zone: u16::from(n) + 1,
        security: crate::intent::NetworkSecurity::default(),
        dns: crate::intent::NetworkDns {
            records: vec!["www 60 A 10.0.0.9".parse().expect("a record")],
            forwarders: vec!["corp.example=10.0.0.53".parse().expect("a forwarder")],
            ..crate::intent::NetworkDns::default()
        },
        dhcp_options: vec!["43:hex@MSFT 5.0=0104".parse().expect("an option")],
        dhcp_boot: vec!["bios=undionly.kpxe".parse().expect("a rule")],
    }
}

/// `10.0.N.0/24`.
fn subnet(n: u8, of: u8) -> Subnet {
    let text = |end: &str| format!("10.0.{n}.{end}");
    let host = text("1").parse().expect("an address");
    Subnet {
        id: subnet_id(n),
        network: network_id(of),
        name: format!("sub{n}").parse().expect("a name"),
        cidr: text("0/24").parse().expect("a block"),
        gateway: Some(host),
        host_address: Some(host),
        pools: vec![format!("{}-{}", text("10"), text("99")).parse().expect("a range")],
        dhcp: true,
        dns_servers: vec!["9.9.9.9".parse().expect("an address")],
        host_routes: Vec::new(),
        forward: Forward::Nat,
        lease_seconds: 3600,
        dhcp_options: vec!["ntp-servers=10.0.0.1".parse().expect("an option")],
        dhcp_boot: Vec::new(),
        dhcp_relays: Vec::new(),
        ipv6_mode: None,
        delegation: None,
        ntp_servers: Vec::new(),
    }
}

/// `addresses` are pairs of a subnet and the last octet.
fn port(n: u8, of: u8, addresses: &[(u8, u8)]) -> Port {
    let fixed_ip = |(subnet, octet): &(u8, u8)| FixedIp {
        subnet: subnet_id(*subnet),
        address: format!("10.0.{subnet}.{octet}").parse().expect("an address"),
    };
    Port {
        id: port_id(n),
        network: network_id(of),
        name: None,
        mac: format!("52:54:00:00:00:{n:02x}").parse().expect("a MAC address"),
        fixed_ips: addresses.iter().map(fixed_ip).collect(),
        trunk: None,
        dns_name: Some(format!("guest{n}").parse().expect("a label")),
        dhcp_options: Vec::new(),
        dhcp_boot: Vec::new(),
        dhcp_client_id: Some(format!("text:guest{n}").parse().expect("an identifier")),
        device: Some(Device { domain: Uuid::from_u128(u128::from(n)), name: format!("guest {n} ü") }),
        security: crate::intent::PortSecurity::default(),
        origin: Origin::Guest,
    }
}

fn lease(of: u8, octet: u8) -> LeaseRecord {
    LeaseRecord {
        network: network_id(of).0,
        address: format!("10.0.{of}.{octet}").parse().expect("an address"),
        client: vec![1, 0, 255, octet],
        iaid: None,
        prefix_length: None,
        mac: format!("52:54:00:00:01:{octet:02x}").parse().expect("a MAC address"),
        host_name: Some("naïve\u{0}name".into()),
        port: Some(port_id(octet).0),
        expires: 4_000_000_000,
    }
}

fn network_id(n: u8) -> NetworkId {
    NetworkId(Uuid::from_u128(0x1000 + u128::from(n)))
}

fn subnet_id(n: u8) -> SubnetId {
    SubnetId(Uuid::from_u128(0x2000 + u128::from(n)))
}

fn port_id(n: u8) -> PortId {
    PortId(Uuid::from_u128(0x3000 + u128::from(n)))
}

fn put_network(n: u8) -> Write {
    Write::Intent(Change::PutNetwork(network(n)))
}

fn memo(key: impl Into<String>) -> Write {
    Write::PutMemo { key: key.into(), value: "1".into() }
}

fn keys(loaded: &Loaded) -> Vec<&str> {
    loaded.memos.iter().map(|(key, _)| key.as_str()).collect()
}

/// One of each kind, and two of most.
fn group(n: u8) -> SecurityGroup {
    let rule = |n: u8, remote| Rule {
        id: Uuid::from_u128(0x6000 + u128::from(n)),
        direction: Direction::Ingress,
        ethertype: Ethertype::Ipv4,
        protocol: Protocol::Ports { protocol: 6, first: 22, last: 22 },
        remote,
        description: String::new(),
    };
    let remotes = [Remote::Any, Remote::Host, Remote::Group(SecurityGroupId(Uuid::from_u128(0x5001)))];
    SecurityGroup {
        id: SecurityGroupId(Uuid::from_u128(0x5000 + u128::from(n))),
        name: ResourceName::new(&format!("group-{n}")).expect("a name"),
        description: "what it is for".into(),
        stateful: n == 1,
        rules: remotes.into_iter().zip(1..).map(|(remote, n)| rule(n, remote)).collect(),
    }
}

fn address_group(n: u8) -> AddressGroup {
    AddressGroup {
        id: AddressGroupId(Uuid::from_u128(0x7000 + u128::from(n))),
        name: ResourceName::new(&format!("addresses-{n}")).expect("a name"),
        description: String::new(),
        addresses: ["192.0.2.0/24", "2001:db8::1/128"].map(|net| net.parse().expect("a prefix")).into(),
    }
}

async fn fill(store: &impl Store) -> Result<Loaded, StoreError> {
    let mut v6 = lease(2, 7);
    v6.address = "fd00::7".parse().expect("an address");
    (v6.host_name, v6.port, v6.expires) = (None, None, u64::MAX);
    let mut whole = Loaded {
        networks: vec![network(1), network(2)],
        subnets: vec![subnet(1, 1), subnet(2, 2), subnet(3, 2)],
        ports: vec![port(1, 1, &[(1, 20)]), port(2, 2, &[(3, 20), (2, 20)]), port(3, 2, &[])],
        security_groups: vec![group(1), group(2)],
        address_groups: vec![address_group(1)],
        leases: vec![lease(1, 9), lease(1, 10), v6],
        published: vec![network_id(1).0, Uuid::from_u128(0x1fff)],
        memos: vec![("default-network-made".into(), "yes".into()), ("sysctl:net/ipv4/ip_forward".into(), "0".into())],
    };
    let kept = whole.clone();
    let writes = (whole.take_intent().into_iter().map(Write::Intent))
        .chain(whole.leases.into_iter().map(Write::PutLease))
        .chain(whole.published.into_iter().map(Write::PutPublished))
        .chain(whole.memos.into_iter().map(|(key, value)| Write::PutMemo { key, value }));
    store.commit(writes.collect()).await?;
    Ok(kept)
}
