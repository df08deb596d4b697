//! What clients ask of security groups and address groups.

use super::{
    CommandError, Reply,
    commit::{Answer, Planned},
};
use crate::{
    intent::{
        AddressGroup, AddressGroupDraft, AddressGroupId, Change, Intent, IntentError, RuleDraft, SecurityGroup,
        SecurityGroupDraft, SecurityGroupId, patched,
    },
    net::IpNet,
};
use serde_json::{Map, Value};
use uuid::Uuid;

/// A command about a security group or an address group.
#[derive(Debug)]
pub enum GroupCommand {
    Create(SecurityGroupDraft, Reply<SecurityGroupId>),
    Update(SecurityGroupId, Map<String, Value>, Reply<()>),
    Delete(SecurityGroupId, Reply<()>),
    /// All of them or none; answers with their ids.
    AddRules(SecurityGroupId, Vec<RuleDraft>, Reply<Vec<Uuid>>),
    /// By id, or as a line of text: what of it is there.
    RemoveRule(SecurityGroupId, String, Reply<()>),
    CreateAddresses(AddressGroupDraft, Reply<AddressGroupId>),
    UpdateAddresses(AddressGroupId, Map<String, Value>, Reply<()>),
    DeleteAddresses(AddressGroupId, Reply<()>),
    AddAddresses(AddressGroupId, Vec<IpNet>, Reply<()>),
    /// All of them must be there.
    RemoveAddresses(AddressGroupId, Vec<IpNet>, Reply<()>),
}

/// The way to whoever asked, who may be gone; the change stands all the same.
fn answer<T: Send + 'static>(reply: Reply<T>, value: T) -> Answer {
    Box::new(move |result| drop(reply.send(result.map(|()| value))))
}

impl GroupCommand {
    /// Completes the command against what is there now.
    pub(crate) fn plan(self, intent: &Intent) -> Planned {
        let put = |group: Result<SecurityGroup, IntentError>| group.map(Change::PutSecurityGroup);
        let put_addresses = |group: Result<AddressGroup, IntentError>| group.map(Change::PutAddressGroup);
        let (change, answer) = match self {
            Self::Create(draft, reply) => {
                let id = SecurityGroupId(Uuid::new_v4());
                (put(draft.complete(id, intent)), answer(reply, id))
            }
            Self::Update(id, patch, reply) => (put(updated(intent, id, patch)), answer(reply, ())),
            Self::Delete(id, reply) => (Ok(Change::DeleteSecurityGroup(id)), answer(reply, ())),
            Self::AddRules(id, rules, reply) => match with_rules(intent, id, rules) {
                Ok((group, added)) => (put(Ok(group)), answer(reply, added)),
                Err(error) => (Err(error), answer(reply, Vec::new())),
            },
            Self::RemoveRule(id, rule, reply) => (put(without_rule(intent, id, &rule)), answer(reply, ())),
            Self::CreateAddresses(draft, reply) => {
                let id = AddressGroupId(Uuid::new_v4());
                (put_addresses(Ok(draft.complete(id))), answer(reply, id))
            }
            Self::UpdateAddresses(id, patch, reply) => {
                (put_addresses(updated_addresses(intent, id, patch)), answer(reply, ()))
            }
            Self::DeleteAddresses(id, reply) => (Ok(Change::DeleteAddressGroup(id)), answer(reply, ())),
            Self::AddAddresses(id, more, reply) => (put_addresses(with_addresses(intent, id, more)), answer(reply, ())),
            Self::RemoveAddresses(id, fewer, reply) => {
                (put_addresses(without_addresses(intent, id, &fewer)), answer(reply, ()))
            }
        };
        Planned { change: change.map_err(CommandError::from), answer }
    }
}

fn updated(intent: &Intent, id: SecurityGroupId, patch: Map<String, Value>) -> Result<SecurityGroup, IntentError> {
    let old = intent.find_security_group(&id.to_string())?;
    patched(&SecurityGroupDraft::of(old), patch)?.complete(id, intent)
}

fn with_rules(
    intent: &Intent,
    id: SecurityGroupId,
    rules: Vec<RuleDraft>,
) -> Result<(SecurityGroup, Vec<Uuid>), IntentError> {
    let mut group = intent.find_security_group(&id.to_string())?.clone();
    let rules = rules.into_iter().map(|rule| rule.complete(intent, &group)).collect::<Result<Vec<_>, _>>()?;
    let added = rules.iter().map(|rule| rule.id).collect();
    group.rules.extend(rules);
    Ok((group, added))
}

fn without_rule(intent: &Intent, id: SecurityGroupId, rule: &str) -> Result<SecurityGroup, IntentError> {
    let mut group = intent.find_security_group(&id.to_string())?.clone();
    let before = group.rules.len();
    match rule.parse::<Uuid>() {
        Ok(id) => group.rules.retain(|rule| rule.id != id),
        Err(_) => {
            let rules = RuleDraft::parse(rule)?.into_iter().map(|rule| rule.complete(intent, &group));
            let unwanted = rules.map(|rule| rule.map(|rule| rule.says())).collect::<Result<Vec<_>, _>>()?;
            group.rules.retain(|rule| !unwanted.contains(&rule.says()));
        }
    }
    if group.rules.len() < before {
        return Ok(group);
    }
    let name = rule.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect();
    let hint = format!(" in security group '{}'; 'vmfabric security-group show {0}' lists its rules", group.name);
    Err(IntentError::NotFound { kind: "rule", name, hint })
}

fn updated_addresses(
    intent: &Intent,
    id: AddressGroupId,
    patch: Map<String, Value>,
) -> Result<AddressGroup, IntentError> {
    let old = intent.find_address_group(&id.to_string())?;
    Ok(patched(&AddressGroupDraft::of(old), patch)?.complete(id))
}

fn with_addresses(intent: &Intent, id: AddressGroupId, more: Vec<IpNet>) -> Result<AddressGroup, IntentError> {
    let mut group = intent.find_address_group(&id.to_string())?.clone();
    group.addresses.extend(more);
    Ok(group)
}

fn without_addresses(intent: &Intent, id: AddressGroupId, fewer: &[IpNet]) -> Result<AddressGroup, IntentError> {
    let mut group = intent.find_address_group(&id.to_string())?.clone();
    for address in fewer {
        if !group.addresses.remove(address) {
            let hint = format!(" in address group '{}'; 'vmfabric address-group show {0}' lists them", group.name);
            return Err(IntentError::NotFound { kind: "address", name: address.to_string(), hint });
        }
    }
    Ok(group)
}
