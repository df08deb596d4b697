//! What security groups, address groups and what ports say of security must satisfy.

use super::{
    AddressGroup, AddressGroupId, AddressPair, Ethertype, Intent, IntentError, Network, Port, PortSecurity, Protection,
    Protocol, Qos, Remote, Rule, SecurityGroup, SecurityGroupId, check::describe,
};
use crate::net::{IpNet, protocol};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a description (Neutron: 255).
const MAX_DESCRIPTION: usize = 255;
/// How many users an error names.
const MAX_NAMED: usize = 5;

fn invalid<T>(why: String) -> Result<T, IntentError> {
    Err(IntentError::Invalid(why))
}

pub(super) fn check_group(intent: &Intent, group: &SecurityGroup) -> Result<(), IntentError> {
    let old = intent.security_group(group.id);
    if old.is_none() && intent.security_groups().len() >= SecurityGroup::MAX_GROUPS {
        return invalid(format!("there are {} security groups, the most there can be", SecurityGroup::MAX_GROUPS));
    }
    if let Some(other) = intent.security_groups().find(|other| other.id != group.id && other.name == group.name) {
        return Err(IntentError::NameTaken { kind: "security group", name: other.name.to_string() });
    }
    if group.is_default() && group.name.as_str() != SecurityGroup::DEFAULT_NAME {
        return invalid("the security group 'default' keeps its name, by which configurations know it".into());
    }
    check_description(&group.description)?;
    if group.rules.len() > SecurityGroup::MAX_RULES {
        let (name, count) = (&group.name, group.rules.len());
        return invalid(format!(
            "security group '{name}' would have {count} rules; {} are the most. Put addresses into an address group \
             (vmfabric address-group create), which one rule names",
            SecurityGroup::MAX_RULES
        ));
    }
    let (mut said, mut ids) = (BTreeMap::new(), BTreeSet::new());
    for rule in &group.rules {
        let text = || rule.text(intent, group);
        check_rule(intent, group, rule).map_err(|error| match error {
            IntentError::Invalid(why) => IntentError::Invalid(format!("rule '{}': {why}", text())),
            other => other,
        })?;
        if said.insert(rule.says(), rule.id).is_some() {
            return Err(IntentError::RuleTaken { rule: text(), group: group.name.clone() });
        }
        if !ids.insert(rule.id) {
            return invalid(format!("two rules of security group '{}' have the id {}", group.name, rule.id));
        }
    }
    match old {
        Some(old) if old.stateful != group.stateful => check_statefulness(intent, group),
        _ => Ok(()),
    }
}

fn check_description(text: &str) -> Result<(), IntentError> {
    match text.len() {
        len if len > MAX_DESCRIPTION => {
            invalid(format!("a description of {len} bytes is too long; {MAX_DESCRIPTION} are the most"))
        }
        _ if text.chars().any(char::is_control) => invalid("a description has no control characters".into()),
        _ => Ok(()),
    }
}

fn check_rule(intent: &Intent, group: &SecurityGroup, rule: &Rule) -> Result<(), IntentError> {
    check_description(&rule.description)?;
    match rule.protocol {
        Protocol::Any | Protocol::Icmp { code: None, .. } | Protocol::Icmp { kind: Some(_), .. } => {}
        Protocol::Icmp { .. } => return invalid("an ICMP code needs its type".into()),
        Protocol::Ports { protocol, .. } if !protocol::has_ports(protocol) => {
            let name = protocol::name(protocol);
            return invalid(format!("{name} has no ports; tcp, udp, sctp, udplite and dccp have"));
        }
        Protocol::Ports { first, last, .. } if first > last => {
            return invalid(format!("the ports {first}-{last} are none; write the lower one first"));
        }
        Protocol::Ports { .. } => {}
        Protocol::Number { protocol } if protocol::is_extension_header(protocol) => {
            return invalid(format!("{protocol} is an extension header of IPv6, not a protocol"));
        }
        Protocol::Number { protocol: protocol::ICMPV6 } if rule.ethertype == Ethertype::Ipv4 => {
            return invalid("ICMPv6 goes with ipv6".into());
        }
        Protocol::Number { protocol: protocol::ICMP } if rule.ethertype == Ethertype::Ipv6 => {
            return invalid("ICMP goes with ipv4; with ipv6 it is icmpv6".into());
        }
        Protocol::Number { .. } => {}
    }
    match rule.remote {
        Remote::Any | Remote::Host => Ok(()),
        Remote::Prefix(prefix) => check_prefix(prefix, rule.ethertype),
        Remote::Group(id) if id == group.id => Ok(()),
        Remote::Group(id) => intent.find_security_group(&id.to_string()).map(drop),
        Remote::AddressGroup(id) => intent.find_address_group(&id.to_string()).map(drop),
    }
}

fn check_prefix(prefix: IpNet, ethertype: Ethertype) -> Result<(), IntentError> {
    if prefix.trunc() != prefix {
        return Err(IntentError::HostBitsSet { cidr: prefix, truncated: prefix.trunc() });
    }
    match (prefix, ethertype) {
        (IpNet::V4(_), Ethertype::Ipv4) | (IpNet::V6(_), Ethertype::Ipv6) => Ok(()),
        _ => invalid(format!("{prefix} is not of {}", ethertype.as_str())),
    }
}

/// Groups of one port are all of one kind: a flow cannot be tracked and not tracked.
pub(super) fn check_statefulness(intent: &Intent, group: &SecurityGroup) -> Result<(), IntentError> {
    let mixed = |set: &BTreeSet<SecurityGroupId>| {
        let others = set.iter().filter(|id| **id != group.id).filter_map(|id| intent.security_group(*id));
        set.contains(&group.id).then(|| others.into_iter().find(|other| other.stateful != group.stateful)).flatten()
    };
    let kind = if group.stateful { "stateful" } else { "stateless" };
    let refuse = |user: String, other: &SecurityGroup| {
        let (name, other) = (&group.name, &other.name);
        invalid(format!(
            "security group '{name}' cannot become {kind}: {user} has it beside '{other}', and groups of one port are \
             all stateful or all stateless; take one of the two away there first"
        ))
    };
    for network in intent.networks() {
        if let Some(other) = mixed(&network.security.groups) {
            return refuse(format!("network '{}'", network.name), other);
        }
    }
    for port in intent.ports() {
        if let Some(other) = port.security.groups.as_ref().and_then(mixed) {
            return refuse(format!("port {}", describe(port)), other);
        }
    }
    Ok(())
}

/// How many of them there are; an intent that others check one by one never has more.
pub(super) fn check_counts(intent: &Intent) -> Result<(), IntentError> {
    if intent.security_groups().len() > SecurityGroup::MAX_GROUPS {
        return invalid(format!("there would be more than {} security groups", SecurityGroup::MAX_GROUPS));
    }
    if intent.address_groups().len() > AddressGroup::MAX_GROUPS {
        return invalid(format!("there would be more than {} address groups", AddressGroup::MAX_GROUPS));
    }
    Ok(())
}

/// It is in `before`; nothing in `after` may name it.
pub(super) fn check_group_delete(before: &Intent, after: &Intent, id: SecurityGroupId) -> Result<(), IntentError> {
    let group = before.find_security_group(&id.to_string())?;
    let intent = after;
    if group.is_default() {
        return invalid("the security group 'default' is not deleted; change its rules, or name others".into());
    }
    let networks = intent.networks().filter(|network| network.security.groups.contains(&id));
    let ports = intent.ports().filter(|port| port.security.groups.as_ref().is_some_and(|groups| groups.contains(&id)));
    let rules = rule_users(intent, Remote::Group(id)).filter(|user| user.id != id);
    let users = networks
        .map(|network| format!("network '{}'", network.name))
        .chain(ports.map(|port| format!("port {}", describe(port))))
        .chain(rules.map(|group| format!("a rule of security group '{}'", group.name)));
    refuse_used(format!("security group '{}'", group.name), users)
}

pub(super) fn check_address_group_delete(
    before: &Intent,
    after: &Intent,
    id: AddressGroupId,
) -> Result<(), IntentError> {
    let group = before.find_address_group(&id.to_string())?;
    let users = rule_users(after, Remote::AddressGroup(id));
    let users = users.map(|group| format!("a rule of security group '{}'", group.name));
    refuse_used(format!("address group '{}'", group.name), users)
}

fn rule_users(intent: &Intent, remote: Remote) -> impl Iterator<Item = &SecurityGroup> {
    intent.security_groups().filter(move |group| group.rules.iter().any(|rule| rule.remote == remote))
}

fn refuse_used(what: String, users: impl Iterator<Item = String>) -> Result<(), IntentError> {
    let mut users = users.peekable();
    if users.peek().is_none() {
        return Ok(());
    }
    let mut by: Vec<String> = users.by_ref().take(MAX_NAMED).collect();
    let more = users.count();
    if more > 0 {
        by.push(format!("{more} more"));
    }
    Err(IntentError::InUse { what, by: by.join(", ") })
}

pub(super) fn check_address_group(intent: &Intent, group: &AddressGroup) -> Result<(), IntentError> {
    if intent.address_group(group.id).is_none() && intent.address_groups().len() >= AddressGroup::MAX_GROUPS {
        return invalid(format!("there are {} address groups, the most there can be", AddressGroup::MAX_GROUPS));
    }
    if let Some(other) = intent.address_groups().find(|other| other.id != group.id && other.name == group.name) {
        return Err(IntentError::NameTaken { kind: "address group", name: other.name.to_string() });
    }
    check_description(&group.description)?;
    let count = group.addresses.len();
    if count > AddressGroup::MAX_ADDRESSES {
        let (name, most) = (&group.name, AddressGroup::MAX_ADDRESSES);
        return invalid(format!("address group '{name}' would have {count} addresses; {most} are the most"));
    }
    match group.addresses.iter().find(|address| address.trunc() != **address) {
        Some(bad) => Err(IntentError::HostBitsSet { cidr: *bad, truncated: bad.trunc() }),
        None => Ok(()),
    }
}

fn check_groups(intent: &Intent, groups: &BTreeSet<SecurityGroupId>) -> Result<(), IntentError> {
    if groups.len() > PortSecurity::MAX_GROUPS {
        return invalid(format!("{} security groups are too many; {} are the most", groups.len(), {
            PortSecurity::MAX_GROUPS
        }));
    }
    let mut first: Option<&SecurityGroup> = None;
    for id in groups {
        let group = intent.find_security_group(&id.to_string())?;
        match first {
            Some(first) if first.stateful != group.stateful => {
                let (stateful, stateless) = if first.stateful { (first, group) } else { (group, first) };
                return invalid(format!(
                    "security group '{}' is stateful and '{}' is stateless; groups of one port are all of one kind",
                    stateful.name, stateless.name
                ));
            }
            _ => first = Some(group),
        }
    }
    Ok(())
}

pub(super) fn check_network(intent: &Intent, network: &Network) -> Result<(), IntentError> {
    check_groups(intent, &network.security.groups)?;
    let loosened = intent.network(network.id).is_some_and(|old| old.security.port_security);
    if loosened && !network.security.port_security {
        for port in intent.ports_of(network.id) {
            check_unprotected(network, port)?;
        }
    }
    Ok(())
}

pub(super) fn check_port(intent: &Intent, network: &Network, port: &Port) -> Result<(), IntentError> {
    check_groups(intent, port.security.groups.as_ref().unwrap_or(&BTreeSet::new()))?;
    check_unprotected(network, port)?;
    check_pairs(&port.security.address_pairs)?;
    check_qos(&port.security.qos)
}

/// What would not be heeded is refused: nobody is to believe a port filtered that is not.
pub(super) fn check_unprotected(network: &Network, port: &Port) -> Result<(), IntentError> {
    if Protection::of(&network.security, &port.security).port_security {
        return Ok(());
    }
    let (name, own) = (describe(port), &port.security);
    if own.groups.as_ref().is_some_and(|groups| !groups.is_empty()) {
        return invalid(format!(
            "port {name} has security groups, which need port security: without it nothing tells whose a packet is. \
             Take the groups away first (vmfabric port set … --no-security-group), or leave port security on"
        ));
    }
    if !own.address_pairs.is_empty() {
        return invalid(format!(
            "port {name} has allowed addresses, which mean nothing without port security; take them away first"
        ));
    }
    Ok(())
}

fn check_pairs(pairs: &BTreeSet<AddressPair>) -> Result<(), IntentError> {
    if pairs.len() > PortSecurity::MAX_PAIRS {
        let (count, most) = (pairs.len(), PortSecurity::MAX_PAIRS);
        return invalid(format!("{count} allowed addresses are too many; {most} are the most: use prefixes"));
    }
    match pairs.iter().find(|pair| pair.ip.trunc() != pair.ip) {
        Some(bad) => Err(IntentError::HostBitsSet { cidr: bad.ip, truncated: bad.ip.trunc() }),
        None => Ok(()),
    }
}

fn check_qos(qos: &Qos) -> Result<(), IntentError> {
    if let Some(dscp) = qos.dscp.filter(|dscp| *dscp > 63) {
        return invalid(format!("DSCP {dscp} is out of range; DSCPs are 0 to 63 (RFC 2474)"));
    }
    if qos.egress.iter().chain(&qos.ingress).any(|rate| rate.kbps == 0) {
        return invalid("a rate of 0 would let nothing pass; leave it out for no limit".into());
    }
    Ok(())
}

#[cfg(test)]
#[path = "check_security_tests.rs"]
mod tests;
