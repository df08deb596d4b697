//! All that people want in one document: what it changes of an intent, and an intent as a document.
//!
//! Resources are known by their names (a port without one by its network and MAC address), so that a document means the
//! same on every host. What a resource does not say has its default; a port's MAC address and addresses stay as they
//! are where the document does not speak of them.

use super::{
    AddressGroupDraft, AddressGroupId, Change, HostConfig, Intent, IntentError, NetworkDraft, NetworkId, Origin, Port,
    PortDraft, PortId, SecurityGroup, SecurityGroupDraft, SecurityGroupId, SubnetDraft, SubnetId, check,
    document_fields as fields,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};
use uuid::Uuid;

/// Resources to be. Keys are those of the drafts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    pub address_groups: Vec<AddressGroupDraft>,
    pub security_groups: Vec<SecurityGroupDraft>,
    pub networks: Vec<NetworkDraft>,
    pub subnets: Vec<SubnetDraft>,
    pub ports: Vec<PortDraft>,
}

/// Why a document is refused, and where in it: `ports[2].mac` say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DocumentError {
    /// Empty: about no place in it.
    pub path: String,
    pub source: IntentError,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => self.source.fmt(f),
            path => write!(f, "{path}: {}", self.source),
        }
    }
}

/// What a document changes.
#[derive(Debug, Clone, Default)]
pub struct DocumentPlan {
    /// To be applied by [`Intent::apply_whole`].
    pub changes: Vec<Change>,
    /// The same for people, in an order in which they can be read.
    pub differences: Vec<Difference>,
    /// What is not in the document and stays all the same, each with the reason.
    pub kept: Vec<String>,
    /// The intent with the changes.
    pub after: Intent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Create,
    Update,
    Delete,
}

/// One resource that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub action: Action,
    /// `network`, `subnet`, `port`, `security_group` or `address_group`.
    pub kind: String,
    pub name: String,
    /// Of one that goes: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// Values as JSON; `None`: not said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    pub field: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// Names of ports without a name, as people see them.
pub(super) fn port_label(intent: &Intent, port: &Port) -> String {
    match &port.name {
        Some(name) => name.to_string(),
        None => {
            let network = intent.network(port.network).map(|network| network.name.as_str());
            format!("{} on {}", port.mac, network.unwrap_or_default())
        }
    }
}

/// What a document makes of an intent. `seed` decides the identities of what is new: the same seed, the same document
/// and the same intent give the same changes. `leased` tells which addresses others hold by DHCP alone.
pub fn plan_document(
    document: &Document,
    prune: bool,
    intent: &Intent,
    host: &HostConfig,
    seed: Uuid,
    leased: impl Fn(SubnetId, IpAddr) -> bool,
) -> Result<DocumentPlan, DocumentError> {
    let mut planning = Planning {
        before: intent,
        after: intent.clone(),
        host,
        seed,
        prune,
        puts: Vec::new(),
        deletes: Vec::new(),
        differences: Vec::new(),
        kept: Vec::new(),
        unnamed_groups: BTreeSet::new(),
        unnamed_address_groups: BTreeSet::new(),
    };
    let ports = planning.match_ports(document)?;
    if prune {
        planning.prune(document, &ports.iter().flatten().copied().collect());
    }
    planning.put_address_groups(&document.address_groups)?;
    planning.put_security_groups(&document.security_groups)?;
    planning.put_networks(&document.networks)?;
    planning.put_subnets(&document.subnets, &leased)?;
    planning.put_ports(&document.ports, &ports, leased)?;
    planning.finish()
}

/// The intent as a document, without what guests made and what is at its default.
pub fn export_document(intent: &Intent, host: &HostConfig) -> Map<String, Value> {
    fields::export(intent, host)
}

pub(super) struct Planning<'a> {
    pub before: &'a Intent,
    /// With what was planned so far; not valid meanwhile.
    pub after: Intent,
    pub host: &'a HostConfig,
    seed: Uuid,
    pub prune: bool,
    /// With their places in the document.
    puts: Vec<(Change, String)>,
    pub deletes: Vec<Change>,
    pub differences: Vec<Difference>,
    pub kept: Vec<String>,
    pub unnamed_groups: BTreeSet<SecurityGroupId>,
    pub unnamed_address_groups: BTreeSet<AddressGroupId>,
}

type Planned<T> = Result<T, DocumentError>;

fn at(path: impl Into<String>, source: IntentError) -> DocumentError {
    DocumentError { path: path.into(), source }
}

fn place(list: &str, index: usize) -> String {
    format!("{list}[{index}]")
}

/// Refuses what stands in a list twice.
fn once<K: Ord + fmt::Display>(list: &str, what: &str, keys: impl Iterator<Item = K>) -> Planned<()> {
    let mut seen = BTreeMap::new();
    for (index, key) in keys.enumerate() {
        if let Some(first) = seen.get(&key) {
            let why = format!("{what} '{key}' is at {} already; name each once", place(list, *first));
            return Err(at(place(list, index), IntentError::Invalid(why)));
        }
        seen.insert(key, index);
    }
    Ok(())
}

impl Planning<'_> {
    fn id(&self, kind: &str, key: &str) -> Uuid {
        Uuid::new_v5(&self.seed, format!("{kind}/{key}").as_bytes())
    }

    /// Takes a resource as it is to be.
    fn put(&mut self, change: Change, path: &str) {
        let mut undo = Vec::new();
        self.after.replace(change.clone(), &mut undo);
        if let Change::PutPort(port) = &change {
            self.take_back(port.id);
        }
        self.puts.push((change, path.to_owned()));
    }

    /// A port that several parts of the document change is put once, as the last one has it.
    fn take_back(&mut self, port: PortId) {
        self.puts.retain(|(change, _)| !matches!(change, Change::PutPort(put) if put.id == port));
    }

    /// Puts something into the picture that is not complete yet, for others to refer to.
    fn sketch(&mut self, change: Change) {
        self.after.replace(change, &mut Vec::new());
    }

    fn put_address_groups(&mut self, drafts: &[AddressGroupDraft]) -> Planned<()> {
        once("address_groups", "address group", drafts.iter().map(|draft| &draft.name))?;
        for (index, draft) in drafts.iter().enumerate() {
            let old = self.before.find_address_group(draft.name.as_str()).ok();
            let id = old.map_or_else(|| AddressGroupId(self.id("address_group", draft.name.as_str())), |old| old.id);
            let new = draft.clone().complete(id);
            if old != Some(&new) {
                self.put(Change::PutAddressGroup(new), &place("address_groups", index));
            }
        }
        Ok(())
    }

    /// Their rules may name one another, so that all are there before any is complete.
    fn put_security_groups(&mut self, drafts: &[SecurityGroupDraft]) -> Planned<()> {
        once("security_groups", "security group", drafts.iter().map(|draft| &draft.name))?;
        let mut ids = Vec::new();
        for draft in drafts {
            let old = self.before.find_security_group(draft.name.as_str()).ok();
            let new = match draft.name.as_str() {
                SecurityGroup::DEFAULT_NAME => SecurityGroup::default_id(),
                name => SecurityGroupId(self.id("security_group", name)),
            };
            let id = old.map_or(new, |old| old.id);
            ids.push(id);
            if old.is_none() {
                let (name, description) = (draft.name.clone(), String::new());
                let shell = SecurityGroup { id, name, description, stateful: true, rules: Vec::new() };
                self.sketch(Change::PutSecurityGroup(shell));
            }
        }
        for (index, (draft, id)) in drafts.iter().zip(ids).enumerate() {
            let path = place("security_groups", index);
            let new = draft.clone().complete(id, &self.after);
            let new = new.map_err(|error| at(format!("{path}.rules"), self.explained(error)))?;
            if self.before.security_group(id).is_none_or(|old| !same_group(old, &new)) {
                self.put(Change::PutSecurityGroup(new), &path);
            }
        }
        Ok(())
    }

    /// In two steps too: each may share its names with others.
    fn put_networks(&mut self, drafts: &[NetworkDraft]) -> Planned<()> {
        once("networks", "network", drafts.iter().map(|draft| &draft.name))?;
        let before = self.before;
        let mut ids = Vec::new();
        for (index, draft) in drafts.iter().enumerate() {
            let old = before.find_network(draft.name.as_str()).ok();
            let id = old.map_or_else(|| NetworkId(self.id("network", draft.name.as_str())), |old| old.id);
            ids.push(id);
            if old.is_none() {
                let alone = NetworkDraft { dns_shared_with: Vec::new(), ..draft.clone() };
                let alone = alone.with_defaults(self.host).complete(id, &self.after, None);
                let alone = alone.map_err(|error| at(place("networks", index), self.explained(error)))?;
                self.sketch(Change::PutNetwork(alone));
            }
        }
        for (index, (draft, id)) in drafts.iter().zip(ids).enumerate() {
            let path = place("networks", index);
            // What the sketch chose is kept.
            let known = self.after.network(id).cloned();
            let new = draft.clone().with_defaults(self.host).complete(id, &self.after, known.as_ref());
            let new = new.map_err(|error| at(&path, self.explained(error)))?;
            if before.network(id) != Some(&new) {
                self.put(Change::PutNetwork(new), &path);
            }
        }
        Ok(())
    }

    fn put_subnets(&mut self, drafts: &[SubnetDraft], leased: impl Fn(SubnetId, IpAddr) -> bool) -> Planned<()> {
        let name = |draft: &SubnetDraft| draft.name.as_ref().map_or_else(|| draft.network.clone(), ToString::to_string);
        once("subnets", "subnet", drafts.iter().map(name))?;
        for (index, draft) in drafts.iter().enumerate() {
            let path = place("subnets", index);
            let network = self.after.find_network(&draft.network);
            let network = network.map_err(|error| at(format!("{path}.network"), self.explained(error)))?;
            // One without a name has its network's: a name that is free would be another one each time.
            let draft = SubnetDraft { name: draft.name.clone().or(Some(network.name.clone())), ..draft.clone() };
            let key = name(&draft);
            let old = self.before.find_subnet(&key).ok();
            let id = old.map_or_else(|| SubnetId(self.id("subnet", &key)), |old| old.id);
            let new = draft.complete(id, &self.after).map_err(|error| at(&path, error))?;
            if old != Some(&new) {
                for change in self.after.with_subnet(&new, |address| leased(id, address)) {
                    self.put(change, &path);
                }
            }
        }
        Ok(())
    }

    /// Which ports the document speaks of: by name, else by network and MAC address.
    fn match_ports(&self, document: &Document) -> Planned<Vec<Option<PortId>>> {
        let key = |draft: &PortDraft| match (&draft.name, draft.mac) {
            (Some(name), _) => name.to_string(),
            (None, Some(mac)) => format!("{mac} on {}", draft.network),
            (None, None) => String::new(),
        };
        if let Some(index) = document.ports.iter().position(|draft| key(draft).is_empty()) {
            let why = "a port needs a name or a mac, by which it is known when the document is applied again";
            return Err(at(place("ports", index), IntentError::Invalid(why.into())));
        }
        once("ports", "port", document.ports.iter().map(key))?;
        let by_name = |draft: &PortDraft| {
            let name = draft.name.as_ref()?;
            self.before.port_named(name.as_str()).map(|port| port.id)
        };
        let mut found: Vec<Option<PortId>> = document.ports.iter().map(by_name).collect();
        let mut taken: BTreeSet<PortId> = found.iter().flatten().copied().collect();
        for (draft, found) in document.ports.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            let network = self.before.find_network(&draft.network).ok();
            let port = network.zip(draft.mac).and_then(|(network, mac)| self.before.port_by_mac(network.id, mac));
            let port = port.filter(|port| port.name.is_none());
            *found = port.map(|port| port.id).filter(|id| taken.insert(*id));
        }
        Ok(found)
    }

    fn put_ports(
        &mut self,
        drafts: &[PortDraft],
        found: &[Option<PortId>],
        leased: impl Fn(SubnetId, IpAddr) -> bool,
    ) -> Planned<()> {
        let mut wanted = Vec::new();
        for (index, (draft, found)) in drafts.iter().zip(found).enumerate() {
            let path = place("ports", index);
            let network = self.after.find_network(&draft.network);
            let network = network.map_err(|error| at(format!("{path}.network"), self.explained(error)))?;
            let old = found.and_then(|id| self.before.port(id));
            // A subnet that is pruned took its addresses along already.
            let held = found.and_then(|id| self.after.port(id)).into_iter().flat_map(|port| &port.fixed_ips);
            let blocks: Vec<_> = self.after.subnets_of(network.id).map(|subnet| subnet.cidr).collect();
            let held: Vec<IpAddr> =
                held.map(|ip| ip.address).filter(|a| blocks.iter().any(|block| block.contains(a))).collect();
            let mac = draft.mac.or(old.map(|old| old.mac));
            let addresses = draft.addresses.clone().or(Some(held).filter(|held| !held.is_empty()));
            wanted.push((path, PortDraft { mac, addresses, ..draft.clone() }, old));
        }
        // All leave before one comes back, so that they may trade what is unique; those that choose an address come last.
        for id in found.iter().flatten() {
            self.sketch(Change::DeletePort(*id));
            self.take_back(*id);
        }
        wanted.sort_by_key(|(_, draft, _)| draft.addresses.is_none());
        for (path, draft, old) in wanted {
            let key = match (&draft.name, draft.mac) {
                (Some(name), _) => name.to_string(),
                (None, mac) => format!("{}/{}", draft.network, mac.map(|mac| mac.to_string()).unwrap_or_default()),
            };
            let id = old.map_or_else(|| PortId(self.id("port", &key)), |old| old.id);
            let new = draft.complete(id, &self.after, old, &leased);
            let new = new.map_err(|error| at(&path, self.explained(error)))?;
            if old == Some(&new) {
                self.sketch(Change::PutPort(new));
            } else {
                self.put(Change::PutPort(new), &path);
            }
        }
        Ok(())
    }

    /// A name that is missing because the document prunes it is told so.
    fn explained(&self, error: IntentError) -> IntentError {
        let IntentError::NotFound { kind, name, hint } = error else { return error };
        let was = match kind {
            "network" => self.before.find_network(&name).is_ok(),
            "security group" => self.before.find_security_group(&name).is_ok(),
            "address group" => self.before.find_address_group(&name).is_ok(),
            _ => false,
        };
        let list = kind.replace(' ', "_");
        let hint = match was && self.prune {
            true => format!(" any more: the document does not name it under {list}s, so that it is pruned"),
            false => hint,
        };
        IntentError::NotFound { kind, name, hint }
    }

    /// Orders the changes as a store takes them, and checks the whole.
    fn finish(mut self) -> Planned<DocumentPlan> {
        if self.prune {
            self.prune_groups();
        }
        for (change, path) in &self.puts {
            check::check_between(self.before, &self.after, change, self.host).map_err(|error| at(path, error))?;
        }
        for change in &self.deletes {
            check::check_between(self.before, &self.after, change, self.host).map_err(|error| at("", error))?;
        }
        let differences: Vec<Difference> = self.puts.iter().map(|(change, _)| self.difference(change)).collect();
        let (ports_gone, gone): (Vec<_>, Vec<_>) =
            self.deletes.into_iter().partition(|change| matches!(change, Change::DeletePort(_)));
        let mut changes = ports_gone;
        // A port whose MAC address another one takes is out of the way before.
        changes.extend(self.puts.iter().filter_map(|(change, _)| match change {
            Change::PutPort(port) if self.before.port(port.id).is_some_and(|old| old.mac != port.mac) => {
                Some(Change::DeletePort(port.id))
            }
            _ => None,
        }));
        changes.extend(self.puts.into_iter().map(|(change, _)| change));
        changes.extend(gone);
        let differences = [differences, self.differences].concat();
        Ok(DocumentPlan { changes, differences, kept: self.kept, after: self.after })
    }

    fn difference(&self, change: &Change) -> Difference {
        let (before, after) = (self.before, &self.after);
        let (kind, name, old, new) = match change {
            Change::PutAddressGroup(new) => {
                let old = before.address_group(new.id).map(fields::of_address_group);
                ("address_group", new.name.to_string(), old, fields::of_address_group(new))
            }
            Change::PutSecurityGroup(new) => {
                let old = before.security_group(new.id).map(|old| fields::of_security_group(before, old));
                ("security_group", new.name.to_string(), old, fields::of_security_group(after, new))
            }
            Change::PutNetwork(new) => {
                let old = before.network(new.id).map(|old| fields::of_network(before, old));
                ("network", new.name.to_string(), old, fields::of_network(after, new))
            }
            Change::PutSubnet(new) => {
                let old = before.subnet(new.id).map(|old| fields::of_subnet(before, old));
                ("subnet", new.name.to_string(), old, fields::of_subnet(after, new))
            }
            Change::PutPort(new) => {
                let old = before.port(new.id).map(|old| fields::of_port(before, old));
                ("port", port_label(after, new), old, fields::of_port(after, new))
            }
            // Told by who deletes.
            _ => ("", String::new(), None, Map::new()),
        };
        let action = if old.is_some() { Action::Update } else { Action::Create };
        let fields = fields::changes(&old.unwrap_or_default(), &new);
        Difference { action, kind: kind.to_owned(), name, fields }
    }

    pub fn delete(&mut self, change: Change, kind: &str, name: impl fmt::Display) {
        self.sketch(change.clone());
        self.deletes.push(change);
        let (name, fields) = (name.to_string(), Vec::new());
        self.differences.push(Difference { action: Action::Delete, kind: kind.to_owned(), name, fields });
    }
}

/// The order of rules means nothing.
fn same_group(old: &SecurityGroup, new: &SecurityGroup) -> bool {
    let sorted = |group: &SecurityGroup| {
        let mut rules = group.rules.clone();
        rules.sort_by_key(|rule| rule.id);
        SecurityGroup { rules, ..group.clone() }
    };
    sorted(old) == sorted(new)
}

/// Whether a port goes when a document that does not name it is applied with pruning.
pub(super) fn is_prunable(port: &Port) -> bool {
    port.origin == Origin::Admin
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
