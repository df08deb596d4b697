//! Security groups as chains: one per group and direction, whatever number of ports has it; one per set of groups that
//! some port has; and the addresses of who a rule speaks of in sets, so that a new member changes no rule.

use super::{Guest, program::TRACKING};
use crate::{
    datapath::{Set, Table},
    intent::{
        AddressGroupId, Direction, Ethertype, Forward, Intent, Network, Port, Protection, Protocol, Remote, Rule,
        SecurityGroup, SecurityGroupId,
    },
    net::IpNet,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// Fills the table with what guests' groups need.
pub(super) struct Groups<'a> {
    intent: &'a Intent,
    /// The table as it stands: sets that it has already are not gathered anew by a part of a plan.
    standing: Option<&'a Table>,
    /// By group, the ports that are in it; made when a rule first asks.
    members: Option<BTreeMap<SecurityGroupId, Vec<&'a Port>>>,
}

impl<'a> Groups<'a> {
    pub fn new(intent: &'a Intent, standing: Option<&'a Table>) -> Self {
        Self { intent, standing, members: None }
    }

    /// Gives the chain of all rules for a guest's packets of one direction; none where it has no group.
    pub fn chain_of(&mut self, guest: &Guest<'a>, direction: Direction, table: &mut Table) -> Option<String> {
        let groups = guest.protection.groups?.iter().filter_map(|id| self.intent.security_group(*id));
        let chains: Vec<String> = groups.map(|group| self.group(group, guest, direction, table)).collect();
        match chains.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            several => {
                let name = format!("ports_{:016x}_{}", fnv(&several.join(" ")), way(direction));
                let jumps: Vec<String> = several.iter().map(|chain| format!("jump {chain}")).collect();
                table.chains.entry(name.clone()).or_insert_with(|| jumps.join("\n").into());
                Some(name)
            }
        }
    }

    /// Gives the chain of a group's rules. Who is meant by some of them depends on the network.
    fn group(
        &mut self,
        group: &'a SecurityGroup,
        guest: &Guest<'a>,
        direction: Direction,
        table: &mut Table,
    ) -> String {
        let rules: Vec<&Rule> = group.rules.iter().filter(|rule| rule.direction == direction).collect();
        let local = rules.iter().any(|rule| matches!(rule.remote, Remote::Group(_) | Remote::Host));
        let id = group.id.0.simple();
        let name = match local {
            true => format!("group_{id}_{}_{}", guest.network.zone, way(direction)),
            false => format!("group_{id}_{}", way(direction)),
        };
        if !table.chains.contains_key(&name) {
            let verdict = if group.stateful { format!("goto allow_{}", way(direction)) } else { "accept".to_owned() };
            let text = self.rules(&rules, guest.network, direction, &verdict, table);
            table.chains.insert(name.clone(), text.into());
        }
        name
    }

    fn rules(
        &mut self,
        rules: &[&'a Rule],
        network: &'a Network,
        direction: Direction,
        verdict: &str,
        table: &mut Table,
    ) -> String {
        // Ports of the same ends become one lookup.
        let mut ports: BTreeMap<(Ethertype, Remote, u8), Vec<(u16, u16)>> = BTreeMap::new();
        let mut text = String::new();
        for rule in rules {
            if let Protocol::Ports { protocol, first, last } = rule.protocol {
                ports.entry((rule.ethertype, rule.remote, protocol)).or_default().push((first, last));
                continue;
            }
            for ends in self.ends(rule.ethertype, rule.remote, network, direction, table) {
                let _ = writeln!(text, "{ends}{}{verdict}", matching(rule.protocol, rule.ethertype));
            }
        }
        for ((ethertype, remote, protocol), ranges) in ports {
            for ends in self.ends(ethertype, remote, network, direction, table) {
                let _ = writeln!(text, "{ends}meta l4proto {protocol} th dport {} {verdict}", merged(ranges.clone()));
            }
        }
        text.trim_end().to_owned()
    }

    /// What says where a packet is from, or for: one condition for each set that it may be in.
    fn ends(
        &mut self,
        ethertype: Ethertype,
        remote: Remote,
        network: &'a Network,
        direction: Direction,
        table: &mut Table,
    ) -> Vec<String> {
        let digit = digit(ethertype);
        let family = match ethertype {
            Ethertype::Ipv4 => "ip",
            Ethertype::Ipv6 => "ip6",
        };
        let side = match direction {
            Direction::Ingress => "saddr",
            Direction::Egress => "daddr",
        };
        let one_of = |set: String| format!("meta protocol {family} {family} {side} @{set} ");
        let sets = match remote {
            Remote::Any => return vec![format!("meta protocol {family} ")],
            Remote::Prefix(prefix) => {
                return vec![format!("meta protocol {family} {family} {side} {} ", plain(&prefix))];
            }
            Remote::AddressGroup(id) => self.address_group(id, ethertype, table),
            Remote::Group(id) => self.gathered(members_set(ethertype, id, network), ethertype, table, |groups| {
                groups.addresses_of(id, network)
            }),
            Remote::Host => {
                let base = format!("host{digit}_{}", network.zone);
                let intent = self.intent;
                self.gathered(base, ethertype, table, |_| {
                    let own = intent.subnets_of(network.id).filter_map(|subnet| subnet.host_address);
                    own.map(IpNet::from).collect()
                })
            }
        };
        sets.into_iter().map(one_of).collect()
    }

    fn address_group(&self, id: AddressGroupId, ethertype: Ethertype, table: &mut Table) -> Vec<String> {
        let digit = digit(ethertype);
        let name = format!("addresses{digit}_{}", id.0.simple());
        let known = self.standing.is_some_and(|standing| standing.sets.contains_key(&name));
        table.sets.entry(name.clone()).or_insert_with(|| {
            let spec = format!("set type ipv{digit}_addr; flags interval");
            let all = self.intent.address_group(id).map(|group| &group.addresses).into_iter().flatten().copied();
            let these: Vec<IpNet> = all.filter(|net| is_of(net, ethertype) && !known).collect();
            Set::new(&spec, IpNet::aggregate(&these).iter().map(plain).collect())
        });
        vec![name]
    }

    /// The names of the sets of some addresses: of single ones, and of prefixes where there are any.
    fn gathered(
        &mut self,
        base: String,
        ethertype: Ethertype,
        table: &mut Table,
        gather: impl FnOnce(&mut Self) -> BTreeSet<IpNet>,
    ) -> Vec<String> {
        let prefixes = format!("{base}_prefixes");
        let standing = self.standing.filter(|standing| standing.sets.contains_key(&base));
        if !table.sets.contains_key(&base) {
            let digit = digit(ethertype);
            let all: Vec<IpNet> = match standing {
                // A full plan keeps it complete.
                Some(_) => Vec::new(),
                None => gather(self).into_iter().filter(|net| is_of(net, ethertype)).collect(),
            };
            let (single, wide): (Vec<IpNet>, Vec<IpNet>) = all.into_iter().partition(is_single);
            let single = single.iter().map(plain).collect();
            table.sets.insert(base.clone(), Set::new(&format!("set type ipv{digit}_addr"), single));
            if !wide.is_empty() || standing.is_some_and(|standing| standing.sets.contains_key(&prefixes)) {
                let wide = IpNet::aggregate(&wide).iter().map(plain).collect();
                let spec = format!("set type ipv{digit}_addr; flags interval");
                table.sets.insert(prefixes.clone(), Set::new(&spec, wide));
            }
        }
        let wide = table.sets.contains_key(&prefixes).then_some(prefixes);
        [base].into_iter().chain(wide).collect()
    }

    /// The addresses by which members of a group are known on a network: those on it, and those that the host routes
    /// there.
    fn addresses_of(&mut self, group: SecurityGroupId, network: &Network) -> BTreeSet<IpNet> {
        let intent = self.intent;
        let members = self.members.get_or_insert_with(|| members(intent));
        let ports = members.get(&group).into_iter().flatten();
        ports.flat_map(|port| known_addresses(intent, port, network)).collect()
    }

    /// Adds a port that is new to the sets of members that stand already.
    pub fn join(&self, port: &Port, network: &Network, table: &mut Table) {
        let (Some(standing), Some(groups)) = (self.standing, Protection::of(&network.security, &port.security).groups)
        else {
            return;
        };
        for (group, other) in groups.iter().flat_map(|g| self.intent.networks().map(move |n| (g, n))) {
            for ethertype in [Ethertype::Ipv4, Ethertype::Ipv6] {
                let base = members_set(ethertype, *group, other);
                let Some(set) = standing.sets.get(&base) else { continue };
                let own = known_addresses(self.intent, port, other).into_iter().filter(|net| is_of(net, ethertype));
                let single: Vec<String> = own.filter(is_single).map(|net| plain(&net)).collect();
                let entry = table.sets.entry(base).or_insert_with(|| Set { spec: set.spec.clone(), ..Set::default() });
                entry.elements.extend(single);
            }
        }
    }
}

/// The set of the addresses by which members of a group are known on a network.
fn members_set(ethertype: Ethertype, group: SecurityGroupId, network: &Network) -> String {
    format!("members{}_{}_{}", digit(ethertype), group.0.simple(), network.zone)
}

/// As in nft's `ipv4_addr` and `ipv6_addr`.
fn digit(ethertype: Ethertype) -> u8 {
    match ethertype {
        Ethertype::Ipv4 => 4,
        Ethertype::Ipv6 => 6,
    }
}

/// The ports in each group.
fn members(intent: &Intent) -> BTreeMap<SecurityGroupId, Vec<&Port>> {
    let mut members: BTreeMap<SecurityGroupId, Vec<&Port>> = BTreeMap::new();
    for port in intent.ports() {
        let Some(network) = intent.network(port.network) else { continue };
        for group in Protection::of(&network.security, &port.security).groups.into_iter().flatten() {
            members.entry(*group).or_default().push(port);
        }
    }
    members
}

/// The addresses that a port is known by on a network.
fn known_addresses(intent: &Intent, port: &Port, network: &Network) -> Vec<IpNet> {
    let own = port.fixed_ips.iter().map(|ip| IpNet::from(ip.address));
    let all = own.chain(port.security.address_pairs.iter().map(|pair| pair.ip));
    if port.network == network.id {
        return all.collect();
    }
    // The host routes between the subnets that it has an address in.
    let routed = |subnet: &&crate::intent::Subnet| subnet.host_address.is_some() && subnet.forward != Forward::None;
    if !intent.subnets_of(network.id).any(|subnet| routed(&subnet)) {
        return Vec::new();
    }
    let blocks: Vec<IpNet> = intent.subnets_of(port.network).filter(routed).map(|subnet| subnet.cidr).collect();
    all.filter(|net| blocks.iter().any(|block| block.contains(net))).collect()
}

fn matching(protocol: Protocol, ethertype: Ethertype) -> String {
    match protocol {
        Protocol::Any => String::new(),
        Protocol::Number { protocol } => format!("meta l4proto {protocol} "),
        Protocol::Ports { protocol, first, last } => format!("meta l4proto {protocol} th dport {first}-{last} "),
        Protocol::Icmp { kind, code } => {
            let (number, word) = if ethertype == Ethertype::Ipv4 { (1, "icmp") } else { (58, "icmpv6") };
            let mut text = format!("meta l4proto {number} ");
            if let Some(kind) = kind {
                let _ = write!(text, "{word} type {kind} ");
            }
            if let Some(code) = code {
                let _ = write!(text, "{word} code {code} ");
            }
            text
        }
    }
}

/// Ranges as one set of nft's, which takes none that overlap.
fn merged(mut ranges: Vec<(u16, u16)>) -> String {
    ranges.sort_unstable();
    let mut apart: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match apart.last_mut() {
            Some((_, end)) if u32::from(first) <= u32::from(*end) + 1 => *end = last.max(*end),
            _ => apart.push((first, last)),
        }
    }
    let words: Vec<String> =
        apart.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    match words.as_slice() {
        [one] => one.clone(),
        many => format!("{{ {} }}", many.join(", ")),
    }
}

/// A prefix as nft lists it.
pub(in crate::planner) fn plain(net: &IpNet) -> String {
    if is_single(net) { net.addr().to_string() } else { net.trunc().to_string() }
}

pub(in crate::planner) fn is_single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

fn is_of(net: &IpNet, ethertype: Ethertype) -> bool {
    matches!((net, ethertype), (IpNet::V4(_), Ethertype::Ipv4) | (IpNet::V6(_), Ethertype::Ipv6))
}

fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    }
}

/// FNV-1a, the same in every release, so that names stay.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Whether a table tracks connections.
pub(super) fn tracks(table: &Table) -> bool {
    table.chains.contains_key(TRACKING)
}
