//! Resources as they stand in a document: the fields of their drafts, with names for identities.

use super::{
    AddressGroup, AddressGroupDraft, HostConfig, Intent, Network, NetworkDraft, Port, PortDraft, Rule, RuleDraft,
    SecurityGroup, SecurityGroupDraft, SecurityGroupId, Subnet, SubnetDraft,
    document::{FieldChange, is_prunable},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

type Fields = Map<String, Value>;

fn fields(draft: &impl Serialize) -> Fields {
    match serde_json::to_value(draft) {
        Ok(Value::Object(fields)) => fields,
        _ => Fields::new(),
    }
}

fn group_names(intent: &Intent, groups: &BTreeSet<SecurityGroupId>) -> Vec<String> {
    let mut names: Vec<String> =
        groups.iter().filter_map(|id| intent.security_group(*id)).map(|group| group.name.to_string()).collect();
    names.sort();
    names
}

pub fn of_address_group(group: &AddressGroup) -> Fields {
    fields(&AddressGroupDraft::of(group))
}

pub fn of_security_group(intent: &Intent, group: &SecurityGroup) -> Fields {
    let rules = SecurityGroupDraft { rules: None, ..SecurityGroupDraft::of(group) };
    let mut fields = fields(&rules);
    fields.insert("rules".into(), rule_lines(intent, group).into());
    fields
}

/// A rule a line; what is said of both families is said once.
fn rule_lines(intent: &Intent, group: &SecurityGroup) -> Vec<Value> {
    let texts: Vec<(&Rule, String)> = group.rules.iter().map(|rule| (rule, rule.text(intent, group))).collect();
    let mut said = BTreeSet::new();
    let mut lines = Vec::new();
    for (rule, text) in &texts {
        if said.contains(&rule.id) {
            continue;
        }
        let both = text.replacen(" ipv4 ", " ", 1).replacen(" ipv6 ", " ", 1);
        let drafts = RuleDraft::parse(&both).unwrap_or_default();
        let twins: Vec<&Rule> = drafts
            .iter()
            .filter_map(|draft| {
                let same = |(other, text): &&(&Rule, String)| {
                    *text == draft.to_string() && other.description == rule.description
                };
                texts.iter().find(same).map(|(rule, _)| *rule)
            })
            .collect();
        let line = if drafts.len() == 2 && twins.len() == 2 { &both } else { text };
        said.insert(rule.id);
        if line == &both {
            said.extend(twins.iter().map(|rule| rule.id));
        }
        lines.push(match rule.description.as_str() {
            "" => Value::from(line.as_str()),
            description => json!({ "rule": line, "description": description }),
        });
    }
    lines
}

pub fn of_network(intent: &Intent, network: &Network) -> Fields {
    let mut draft = NetworkDraft::of_in(network, intent);
    draft.security_groups = Some(group_names(intent, &network.security.groups)).filter(|names| !names.is_empty());
    draft.port_security = draft.port_security.filter(|on| !on);
    draft.isolated = draft.isolated.filter(|on| *on);
    let shared = draft.dns_shared_with.iter().filter_map(|id| intent.find_network(id).ok());
    draft.dns_shared_with = shared.map(|network| network.name.to_string()).collect();
    draft.dns_shared_with.sort();
    fields(&draft)
}

fn network_name(intent: &Intent, network: super::NetworkId) -> String {
    intent.network(network).map(|network| network.name.to_string()).unwrap_or_default()
}

pub fn of_subnet(intent: &Intent, subnet: &Subnet) -> Fields {
    fields(&SubnetDraft { network: network_name(intent, subnet.network), ..SubnetDraft::of(subnet) })
}

pub fn of_port(intent: &Intent, port: &Port) -> Fields {
    let mut draft = PortDraft { network: network_name(intent, port.network), ..PortDraft::of(port) };
    draft.security_groups = port.security.groups.as_ref().map(|groups| group_names(intent, groups));
    fields(&draft)
}

/// What differs, by field.
pub fn changes(old_fields: &Fields, new_fields: &Fields) -> Vec<FieldChange> {
    let keys: BTreeSet<&String> = old_fields.keys().chain(new_fields.keys()).collect();
    let text = |value: Option<&Value>| value.map(Value::to_string);
    let is_update = !old_fields.is_empty();
    let change = |key: &String| {
        let (old, new) = (old_fields.get(key), new_fields.get(key));
        (old != new && (key != "name" || is_update)).then(|| FieldChange {
            field: key.clone(),
            old: text(old),
            new: text(new),
        })
    };
    keys.into_iter().filter_map(change).collect()
}

/// Leaves out what would be so without being said.
fn minimal<D: DeserializeOwned, T: PartialEq>(
    mut fields: Fields,
    said: &[&str],
    resource: &T,
    complete: impl Fn(D) -> Option<T>,
) -> Value {
    let keys: Vec<String> = fields.keys().filter(|key| !said.contains(&key.as_str())).cloned().collect();
    for key in keys {
        let Some(value) = fields.remove(&key) else { continue };
        let without = serde_json::from_value(Value::Object(fields.clone())).ok().and_then(&complete);
        if without.as_ref() != Some(resource) {
            fields.insert(key, value);
        }
    }
    Value::Object(fields)
}

pub fn export(intent: &Intent, host: &HostConfig) -> Fields {
    let mut document = Fields::new();
    let mut list = |key: &str, mut items: Vec<Value>| {
        let name = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        // A port without a name comes after those that have one.
        items.sort_by_cached_key(|item| {
            let own = name(item, "name");
            (own.is_empty(), own, name(item, "network"), name(item, "mac"))
        });
        if !items.is_empty() {
            document.insert(key.to_owned(), items.into());
        }
    };
    list("address_groups", intent.address_groups().map(|group| Value::Object(of_address_group(group))).collect());
    let group = |group: &SecurityGroup| {
        let mut fields = of_security_group(intent, group);
        if group.stateful {
            fields.remove("stateful");
        }
        Value::Object(fields)
    };
    list("security_groups", intent.security_groups().map(group).collect());
    let network = |network: &Network| {
        let mut fields = of_network(intent, network);
        if network.security.groups.is_empty() && !host.default_security_groups.is_empty() {
            fields.insert("security_groups".into(), json!([]));
        }
        minimal(fields, &["name", "security_groups"], network, |draft: NetworkDraft| {
            draft.complete(network.id, intent, Some(network)).ok()
        })
    };
    list("networks", intent.networks().map(network).collect());
    let subnet = |subnet: &Subnet| {
        let said = ["name", "network", "cidr"];
        minimal(of_subnet(intent, subnet), &said, subnet, |draft: SubnetDraft| draft.complete(subnet.id, intent).ok())
    };
    list("subnets", intent.subnets().map(subnet).collect());
    let ports = intent.ports().filter(|port| is_prunable(port));
    list("ports", ports.map(|port| Value::Object(of_port(intent, port))).collect());
    document
}
