//! What a subnet must satisfy for its family's sake.

use super::{Delegation, IntentError, Ipv6Mode, Network, Subnet};
use crate::net::{IpNet, Ipv4Net, Ipv6Net};

/// What IPv6 needs to carry (RFC 8200 section 5).
const MIN_MTU: u16 = 1280;
/// How many prefixes one block is divided into, as a power of two.
const MAX_DELEGATED_BITS: u8 = 16;

pub(super) fn check_v4_block(subnet: &Subnet, block: Ipv4Net) -> Result<(), IntentError> {
    let bad = |why: &str| Err(bad(subnet, why));
    if block.prefix_len() > 30 || block.prefix_len() < 8 {
        return bad("a prefix length from 8 to 30 is needed");
    }
    if block.network().is_loopback() || block.network().is_multicast() || block.network().is_unspecified() {
        return bad("guests cannot have loopback, multicast or zero addresses");
    }
    if subnet.ipv6_mode.is_some() || subnet.delegation.is_some() {
        return bad("ipv6_mode, pd_block and pd_length are for IPv6 blocks; leave them out");
    }
    if !subnet.ntp_servers.is_empty() {
        return bad("ntp_servers is for IPv6 blocks; use the DHCP option ntp-servers");
    }
    Ok(())
}

pub(super) fn check_v6_block(network: &Network, subnet: &Subnet, block: Ipv6Net) -> Result<(), IntentError> {
    let bad = |why: &str| Err(bad(subnet, why));
    if block.prefix_len() > 126 || block.prefix_len() < 48 {
        return bad("a prefix length from 48 to 126 is needed; 64 is the usual one");
    }
    if !usable(block) {
        return bad(
            "guests cannot have loopback, multicast, link-local or mapped addresses; use a global or a fd00::/8 block",
        );
    }
    if network.mtu.is_some_and(|mtu| mtu < MIN_MTU) {
        return bad("its network's mtu is below 1280, which carries no IPv6 (RFC 8200); raise the mtu");
    }
    if subnet.autoconfigured() && block.prefix_len() != 64 {
        return bad("guests make addresses of 64-bit prefixes only (RFC 4862); use a /64, or ipv6_mode stateful");
    }
    if subnet.autoconfigured() && !subnet.pools.is_empty() {
        return bad("guests make their own addresses with this ipv6_mode; take the pools out, or use stateful");
    }
    if subnet.dhcp != matches!(subnet.ipv6_mode, Some(Ipv6Mode::Stateful | Ipv6Mode::Stateless)) {
        return bad("dhcp follows from ipv6_mode: stateful and stateless serve it, slaac does not; leave dhcp out");
    }
    if subnet.ipv6_mode.is_some() && subnet.host_address.is_none() && subnet.dhcp_relays.is_empty() {
        return bad("ipv6_mode needs an address of the host; set host_address or gateway");
    }
    if !subnet.dhcp_options.is_empty() || !subnet.dhcp_boot.is_empty() {
        return bad("dhcp_options and dhcp_boot are DHCPv4's; use dns_servers and ntp_servers");
    }
    if let Some(server) = subnet.dns_servers.iter().find(|server| server.is_ipv4()) {
        return bad(&format!(
            "the name server {server} is not an IPv6 address; guests of an IPv4 subnet are told of it there"
        ));
    }
    for route in &subnet.host_routes {
        if !matches!(route.destination, IpNet::V6(_)) || Some(route.next_hop) != subnet.host_address {
            return bad(&format!(
                "a router tells routes through itself only (RFC 4191), so the next hop of {} is to be the host's address",
                route.destination
            ));
        }
    }
    subnet.delegation.map_or(Ok(()), |delegation| check_delegation(subnet, delegation))
}

fn check_delegation(subnet: &Subnet, Delegation { block, length }: Delegation) -> Result<(), IntentError> {
    let bad = |why: &str| Err(bad(subnet, why));
    if block.trunc() != block {
        return bad(&format!("pd_block {block} is not a network address; did you mean {}?", block.trunc()));
    }
    if !usable(block) {
        return bad("pd_block cannot be loopback, multicast, link-local or mapped; use a global or a fd00::/8 block");
    }
    if !subnet.dhcp {
        return bad("prefixes are delegated by DHCPv6; use ipv6_mode stateful or stateless");
    }
    if length < block.prefix_len() || length > 64 || length - block.prefix_len() > MAX_DELEGATED_BITS {
        return bad(&format!(
            "pd_length is the length of one delegated prefix: from {} to {} for the pd_block {block}",
            block.prefix_len(),
            64.min(block.prefix_len() + MAX_DELEGATED_BITS)
        ));
    }
    if overlap(IpNet::V6(block), subnet.cidr) {
        return bad("pd_block overlaps the subnet itself; guests would be given prefixes of their own link");
    }
    Ok(())
}

/// What is delegated is nobody else's: no subnet's, and not delegated by another.
pub(super) fn check_delegations(subnet: &Subnet, other: &Subnet) -> Result<(), IntentError> {
    let block = |subnet: &Subnet| subnet.delegation.map(|delegation| IpNet::V6(delegation.block));
    let mut pairs =
        [(block(subnet), Some(other.cidr)), (Some(subnet.cidr), block(other)), (block(subnet), block(other))]
            .into_iter()
            .filter_map(|(own, other)| Some((own?, other?)));
    match pairs.find(|(own, other)| overlap(*own, *other)) {
        Some((own, theirs)) => {
            Err(bad(subnet, &format!("{own} overlaps {theirs} of subnet '{}'; choose another block", other.name)))
        }
        None => Ok(()),
    }
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn usable(block: Ipv6Net) -> bool {
    let address = block.network();
    // `::/96` and `::ffff:0:0/96` stand for IPv4.
    let embedded = address.to_bits() >> 48 == 0;
    !embedded && !address.is_multicast() && !address.is_unicast_link_local()
}

fn bad(subnet: &Subnet, why: &str) -> IntentError {
    IntentError::BadSubnet { cidr: subnet.cidr, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use serde_json::{Value, json};
    use uuid::Uuid;

    struct Lab(Intent);

    impl Lab {
        fn new() -> Self {
            let mut lab = Self(Intent::default());
            let name = ResourceName::new("lab").expect("a name");
            let network = NetworkDraft::named(name).complete(NetworkId(Uuid::from_u128(1)), &lab.0, None);
            lab.apply(vec![Change::PutNetwork(network.expect("a network"))]).expect("valid");
            lab
        }

        fn apply(&mut self, changes: Vec<Change>) -> Result<(), String> {
            self.0.apply(changes, &HostConfig::default()).map(drop).map_err(|error| error.to_string())
        }

        /// Makes or replaces the subnet of that number.
        fn put(&mut self, n: u128, draft: SubnetDraft) -> Result<Subnet, String> {
            let subnet = draft.complete(SubnetId(Uuid::from_u128(n)), &self.0).map_err(|error| error.to_string())?;
            self.apply(self.0.with_subnet(&subnet, |_| false))?;
            Ok(subnet)
        }

        fn make(&mut self, n: u128, cidr: &str, more: Value) -> Result<Subnet, String> {
            let mut fields = json!({"network": "lab", "cidr": cidr});
            fields.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
            let draft: SubnetDraft = serde_json::from_value(fields).map_err(|error| error.to_string())?;
            self.put(n, draft)
        }

        fn change(&mut self, n: u128, patch: Value) -> Result<Subnet, String> {
            let old = self.0.subnet(SubnetId(Uuid::from_u128(n))).expect("it is there");
            let draft = patched(&SubnetDraft::of(old), patch.as_object().expect("fields").clone());
            self.put(n, draft.map_err(|error| error.to_string())?)
        }

        fn port(&mut self, n: u8, more: Value) -> Result<(), String> {
            let mut fields = json!({"network": "lab", "mac": format!("52:54:00:00:00:{n:02x}")});
            fields.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
            let draft: PortDraft = serde_json::from_value(fields).map_err(|error| error.to_string())?;
            let id = PortId(Uuid::from_u128(n.into()));
            let port = draft.complete(id, &self.0, self.0.port(id), |_, _| false).map_err(|error| error.to_string())?;
            self.apply(vec![Change::PutPort(port)])
        }

        fn addresses(&self, n: u128) -> Vec<String> {
            let port = self.0.port(PortId(Uuid::from_u128(n))).expect("it is there");
            port.fixed_ips.iter().map(|ip| ip.address.to_string()).collect()
        }
    }

    #[test]
    fn defaults_fit() {
        let mut lab = Lab::new();
        let plain = lab.make(2, "2001:db8:7::/64", json!({"forward": "routed"})).expect("valid");
        assert_eq!((plain.ipv6_mode, plain.dhcp), (Some(Ipv6Mode::Stateful), true));
        assert_eq!(plain.host_address.map(|a| a.to_string()).as_deref(), Some("2001:db8:7::1"));
        assert_eq!(plain.gateway, plain.host_address);
        assert_eq!(plain.pools[0].to_string(), "2001:db8:7::1000-2001:db8:7::ffff");
        let slaac = lab.change(2, json!({"ipv6_mode": "slaac"})).expect("valid");
        assert_eq!((slaac.dhcp, slaac.pools.len()), (false, 0));
        let back = lab.change(2, json!({"ipv6_mode": "stateful"})).expect("valid");
        assert_eq!(back, plain);
        let small = lab.make(3, "2001:db8:8::/120", json!({})).expect("valid");
        assert_eq!(small.pools[0].to_string(), "2001:db8:8::2-2001:db8:8::ff");
        let silent = lab.make(4, "2001:db8:9::/64", json!({"dhcp": false})).expect("valid");
        assert_eq!((silent.ipv6_mode, silent.host_address), (None, None));
        let pd = lab.make(5, "2001:db8:a::/64", json!({"pd_block": "2001:db8:b000::/56"})).expect("valid");
        assert_eq!(pd.delegation.map(|d| d.length), Some(64));
    }

    #[test]
    fn a_subnet_behind_relay_agents_is_no_place_for_the_host_nor_its_guests() {
        let mut lab = Lab::new();
        // There is no other address yet that they could be answered from.
        let alone = lab.make(1, "10.70.0.0/24", json!({"dhcp_relays": ["10.70.0.1"]})).expect("valid");
        assert_eq!(alone.host_address.map(|a| a.to_string()).as_deref(), Some("10.70.0.2"));
        // DHCPv6 speaks from the link-local address.
        let far = lab.make(3, "fd00:70::/64", json!({"dhcp_relays": ["fd00:70::1"]})).expect("valid");
        assert!(far.is_behind_relays(), "{far:?}");
        lab.make(4, "fd00:71::/64", json!({})).expect("valid");
        lab.port(1, json!({})).expect("valid");
        let [first, second] = lab.addresses(1).try_into().expect("one of each family");
        assert!(first.starts_with("10.70.0.") && second.starts_with("fd00:71::"), "{first} {second}");
        // In front of the others by its id.
        for (n, cidr, relay) in [(0, "10.69.0.0/24", "10.69.0.1"), (2, "fd00:69::/64", "fd00:69::1")] {
            let far = lab.make(n, cidr, json!({"dhcp_relays": [relay]})).expect("valid");
            assert!(far.is_behind_relays() && !far.pools.is_empty(), "{far:?}");
        }
        assert_eq!(lab.addresses(1), [first, second]);
        lab.port(2, json!({})).expect("valid");
        assert!(lab.addresses(2)[0].starts_with("10.70.0.") && lab.addresses(2)[1].starts_with("fd00:71::"));
        let given = lab.change(2, json!({"host_address": "fd00:69::5"})).expect("valid");
        assert!(!given.is_behind_relays());
        assert!(lab.change(2, json!({"host_address": null})).expect("valid").is_behind_relays());
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        let mut lab = Lab::new();
        lab.make(2, "fd00:1::/64", json!({"pd_block": "fd00:2::/60"})).expect("valid");
        for (cidr, more, told) in [
            ("2001:db8::/32", json!({}), "48 to 126"),
            ("2001:db8::/127", json!({}), "48 to 126"),
            ("2001:db8::1/64", json!({}), "did you mean 2001:db8::/64"),
            ("fe80::/64", json!({}), "link-local"),
            ("ff02::/64", json!({}), "multicast"),
            ("::/64", json!({}), "mapped"),
            ("2001:db8::/80", json!({"ipv6_mode": "slaac"}), "/64"),
            (
                "2001:db8::/64",
                json!({"ipv6_mode": "slaac", "pools": ["2001:db8::5-2001:db8::9"]}),
                "take the pools out",
            ),
            ("2001:db8::/64", json!({"ipv6_mode": "slaac", "dhcp": true}), "leave dhcp out"),
            ("2001:db8::/64", json!({"ipv6_mode": "stateful", "dhcp": false}), "leave dhcp out"),
            ("2001:db8::/64", json!({"dns_servers": ["10.0.0.1"]}), "not an IPv6 address"),
            ("2001:db8::/64", json!({"dhcp_options": ["ntp-servers=10.0.0.1"]}), "DHCPv4's"),
            (
                "2001:db8::/64",
                json!({"host_routes": [{"destination": "fd09::/16", "next_hop": "2001:db8::9"}]}),
                "through itself",
            ),
            ("2001:db8::/64", json!({"gateway": "2001:db8::", "forward": "routed"}), "address of every router"),
            ("2001:db8::/64", json!({"pd_block": "2001:db8::/48"}), "overlaps the subnet itself"),
            ("2001:db8::/64", json!({"pd_block": "2001:db8:8::/48", "pd_length": 65}), "from 48 to 64"),
            ("2001:db8::/64", json!({"pd_block": "2001:db8:8::1/48"}), "did you mean 2001:db8:8::/48"),
            ("2001:db8::/64", json!({"pd_block": "fd00:2::/64"}), "overlaps fd00:2::/60 of subnet 'lab'"),
            ("2001:db8::/64", json!({"pd_block": "fd00:1::/64"}), "overlaps fd00:1::/64"),
            ("fd00:2:0:8::/64", json!({}), "overlaps fd00:2::/60"),
            ("2001:db8::/64", json!({"pd_length": 60}), "needs a pd_block"),
            ("2001:db8::/64", json!({"ipv6_mode": "slaac", "pd_block": "fd08::/60"}), "delegated by DHCPv6"),
            ("10.0.0.0/24", json!({"ipv6_mode": "slaac"}), "for IPv6 blocks"),
            ("10.0.0.0/24", json!({"ntp_servers": ["fd00::1"]}), "ntp-servers"),
        ] {
            let error = lab.make(9, cidr, more.clone()).expect_err(cidr);
            assert!(error.contains(told), "{cidr} {more}: {error}");
        }
        let mut network = lab.0.network(NetworkId(Uuid::from_u128(1))).expect("there").clone();
        network.mtu = Some(1000);
        let error = lab.apply(vec![Change::PutNetwork(network)]).expect_err("too small");
        assert!(error.contains("1280"), "{error}");
    }

    #[test]
    fn ports_follow_the_mode_of_their_subnet() {
        let mut lab = Lab::new();
        lab.make(2, "10.0.0.0/24", json!({})).expect("valid");
        lab.port(1, json!({"addresses": ["10.0.0.5"]})).expect("valid");
        lab.port(3, json!({"addresses": []})).expect("valid");
        lab.make(4, "2001:db8:7::/64", json!({})).expect("valid");
        let given = lab.addresses(1);
        assert!(given.len() == 2 && given[1].starts_with("2001:db8:7::"), "{given:?}");
        assert_eq!(lab.addresses(3), [""; 0], "none, as was asked for");
        // A port that is new has one of each family.
        lab.port(5, json!({})).expect("valid");
        assert_eq!(lab.addresses(5).len(), 2);
        lab.change(4, json!({"ipv6_mode": "slaac"})).expect("valid");
        assert_eq!(lab.addresses(1), ["10.0.0.5", "2001:db8:7:0:5054:ff:fe00:1"]);
        assert_eq!(lab.addresses(3), ["2001:db8:7:0:5054:ff:fe00:3"]);
        lab.change(4, json!({"cidr": "2001:db8:8::/64", "gateway": null, "host_address": null})).expect("renumbered");
        assert_eq!(lab.addresses(1), ["10.0.0.5", "2001:db8:8:0:5054:ff:fe00:1"]);
        // A guest with another MAC address makes another one.
        lab.port(1, json!({"mac": "52:54:00:00:00:77", "addresses": lab.addresses(1)})).expect("valid");
        assert_eq!(lab.addresses(1), ["10.0.0.5", "2001:db8:8:0:5054:ff:fe00:77"]);
        lab.change(4, json!({"ipv6_mode": "stateful"})).expect("valid");
        assert_eq!(lab.addresses(1), ["10.0.0.5", "2001:db8:8:0:5054:ff:fe00:77"], "it stays its own");
    }
}
