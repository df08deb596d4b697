//! Our networks as libvirt networks of the same name: [`plan_publish`] decides, [`apply`] does it.
//!
//! A libvirt network is ours by its UUID alone: those wanted now and those published earlier. Every other is left as it
//! is, whatever its name. A `<forward mode='bridge'/>` network owns nothing in the kernel, so that stopping one takes
//! nothing away from the guests on it.

use super::domain_xml::{self, XmlError, children, escape};
use crate::net::IfName;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};
use uuid::Uuid;
use virt::{connect::Connect, error::ErrorNumber, network::Network, sys};

/// A network of ours as libvirt shall show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedNetwork {
    pub uuid: Uuid,
    pub name: String,
    pub bridge: IfName,
}

/// A libvirt network as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingNetwork {
    pub uuid: Uuid,
    pub name: String,
    pub autostart: bool,
    /// The persistent configuration, if there is one.
    pub config: Option<Shape>,
    /// What runs, if it does.
    pub live: Option<Shape>,
}

impl ExistingNetwork {
    /// Not where it forwards in another way: a network that was taken over may have been given back under its UUID.
    pub(super) fn may_be_ours(&self) -> bool {
        let bridged = |shape: &Option<Shape>| shape.as_ref().is_none_or(|s| s.forward.as_deref() == Some("bridge"));
        bridged(&self.config) && bridged(&self.live)
    }
}

/// The part of a libvirt network's XML that is compared with what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape {
    pub forward: Option<String>,
    pub bridge: Option<String>,
}

impl Shape {
    fn of(network: &PublishedNetwork) -> Self {
        Self { forward: Some("bridge".to_owned()), bridge: Some(network.bridge.to_string()) }
    }
}

/// One call to libvirt's network driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishAction {
    Stop { uuid: Uuid, name: String },
    Undefine { uuid: Uuid, name: String },
    Define(PublishedNetwork),
    Autostart { uuid: Uuid, name: String },
    Start { uuid: Uuid, name: String },
}

impl PublishAction {
    /// The network that it is about.
    pub fn uuid(&self) -> Uuid {
        match self {
            Self::Define(network) => network.uuid,
            Self::Stop { uuid, .. }
            | Self::Undefine { uuid, .. }
            | Self::Autostart { uuid, .. }
            | Self::Start { uuid, .. } => *uuid,
        }
    }
}

impl fmt::Display for PublishAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop { name, .. } => write!(f, "stop libvirt network '{name}'"),
            Self::Undefine { name, .. } => write!(f, "undefine libvirt network '{name}'"),
            Self::Define(network) => write!(f, "define libvirt network '{}' on {}", network.name, network.bridge),
            Self::Autostart { name, .. } => write!(f, "set autostart of libvirt network '{name}'"),
            Self::Start { name, .. } => write!(f, "start libvirt network '{name}'"),
        }
    }
}

/// Why a network is not in libvirt as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error(
        "libvirt has a network '{name}' ({holder}) that is not vmfabric's; it is left alone. Rename one of the two, or \
         remove libvirt's: virsh net-destroy {name}; virsh net-undefine {name}"
    )]
    NameTaken { name: String, holder: Uuid },
    #[error("two networks are to be published with the name or UUID of '{name}'; rename one")]
    Duplicate { name: String },
    #[error("libvirt cannot have a network named '{name}': {why}; rename the network")]
    Name { name: String, why: &'static str },
    #[error("cannot {action}: {reason}")]
    Libvirt { action: String, reason: String },
}

impl PublishError {
    /// Whether trying again may help though nothing has changed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Libvirt { .. })
    }
}

/// What to do, in order, and which of the wanted networks cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishPlan {
    pub actions: Vec<PublishAction>,
    pub errors: BTreeMap<Uuid, PublishError>,
}

/// Steps from what libvirt has to what is wanted; none where nothing differs.
///
/// All that frees a name comes before all that takes one, so that two networks may swap names. A network that cannot
/// have its new name keeps its old one.
pub fn plan_publish(
    existing: &[ExistingNetwork],
    wanted: &[PublishedNetwork],
    earlier: &BTreeSet<Uuid>,
) -> PublishPlan {
    let errors = refused(existing, wanted, earlier);
    let by_uuid: HashMap<Uuid, &ExistingNetwork> = existing.iter().map(|network| (network.uuid, network)).collect();
    let all_wanted: BTreeSet<Uuid> = wanted.iter().map(|network| network.uuid).collect();
    let (mut free, mut take) = (Vec::new(), Vec::new());

    let unwanted = |n: &&ExistingNetwork| earlier.contains(&n.uuid) && !all_wanted.contains(&n.uuid) && n.may_be_ours();
    for network in existing.iter().filter(unwanted) {
        remove(network, &mut free);
    }
    for network in wanted.iter().filter(|network| !errors.contains_key(&network.uuid)) {
        let (uuid, name) = (network.uuid, network.name.clone());
        let mut found = by_uuid.get(&uuid).copied();
        if let Some(renamed) = found.filter(|found| found.name != name) {
            // libvirt refuses to define a known UUID under another name.
            remove(renamed, &mut free);
            found = None;
        }
        let shape = Some(Shape::of(network));
        let (config, live) = found.map_or((None, None), |found| (found.config.as_ref(), found.live.as_ref()));
        if config != shape.as_ref() {
            take.push(PublishAction::Define(network.clone()));
        }
        if live != shape.as_ref() {
            if live.is_some() {
                // Only now: an active network that is not persistent would vanish when stopped.
                take.push(PublishAction::Stop { uuid, name: name.clone() });
            }
            take.push(PublishAction::Start { uuid, name: name.clone() });
        }
        // Last: guests can do without, should it fail.
        if !found.is_some_and(|found| found.autostart && found.config.is_some()) {
            take.push(PublishAction::Autostart { uuid, name });
        }
    }
    free.append(&mut take);
    PublishPlan { actions: free, errors }
}

fn remove(network: &ExistingNetwork, actions: &mut Vec<PublishAction>) {
    let (uuid, name) = (network.uuid, network.name.clone());
    if network.live.is_some() {
        actions.push(PublishAction::Stop { uuid, name: name.clone() });
    }
    if network.config.is_some() {
        actions.push(PublishAction::Undefine { uuid, name });
    }
}

fn refused(
    existing: &[ExistingNetwork],
    wanted: &[PublishedNetwork],
    earlier: &BTreeSet<Uuid>,
) -> BTreeMap<Uuid, PublishError> {
    let mut errors = BTreeMap::new();
    let (mut names, mut uuids) = (BTreeSet::new(), BTreeSet::new());
    for network in wanted {
        let name = network.name.clone();
        if !uuids.insert(network.uuid) || !names.insert(&network.name) {
            errors.insert(network.uuid, PublishError::Duplicate { name });
        } else if let Err(why) = check_name(&network.name) {
            errors.insert(network.uuid, PublishError::Name { name, why });
        }
    }
    let holders: HashMap<&str, Uuid> = existing.iter().map(|network| (network.name.as_str(), network.uuid)).collect();
    let ours = |uuid: &Uuid| earlier.contains(uuid) || uuids.contains(uuid);
    // A network that cannot be renamed keeps its name, which may refuse that name to the next one.
    loop {
        let taken: Vec<_> = wanted
            .iter()
            .filter(|network| !errors.contains_key(&network.uuid))
            .filter_map(|network| Some((network, *holders.get(network.name.as_str())?)))
            .filter(|(network, holder)| *holder != network.uuid && (!ours(holder) || errors.contains_key(holder)))
            .map(|(network, holder)| (network.uuid, PublishError::NameTaken { name: network.name.clone(), holder }))
            .collect();
        if taken.is_empty() {
            return errors;
        }
        errors.extend(taken);
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("it is empty"),
        _ if name.len() > 255 => Err("it is longer than 255 bytes"),
        _ if name.contains('/') => Err("it has a '/'"),
        _ if name.chars().any(char::is_control) => Err("it has a control character"),
        _ if name.trim() != name => Err("it begins or ends with a space"),
        _ => Ok(()),
    }
}

/// The libvirt network XML of one of ours.
pub fn network_xml(network: &PublishedNetwork) -> String {
    let PublishedNetwork { uuid, name, bridge } = network;
    let (name, bridge) = (escape(name), escape(bridge.as_str()));
    format!(
        "<network><name>{name}</name><uuid>{uuid}</uuid><forward mode='bridge'/><bridge name='{bridge}'/></network>"
    )
}

/// Reads the compared part of a `<network>`.
pub fn parse_shape(xml: &str) -> Result<Shape, XmlError> {
    let doc = domain_xml::document(xml)?;
    let root = domain_xml::rooted(&doc, "network")?;
    Ok(Shape {
        // libvirt's default mode, where <forward> names none, is nat.
        forward: children(root, "forward").next().map(|f| f.attribute("mode").unwrap_or("nat").to_owned()),
        bridge: children(root, "bridge").find_map(|b| b.attribute("name")).map(str::to_owned),
    })
}

/// All networks that libvirt has. Blocks.
pub(super) fn list(connect: &Connect) -> Result<Vec<ExistingNetwork>, virt::error::Error> {
    let mut found = Vec::new();
    for network in connect.list_all_networks(0)? {
        match read(&network) {
            Ok(network) => found.push(network),
            // Undefined since it was listed.
            Err(e) if e.code() == ErrorNumber::NoNetwork => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

fn read(network: &Network) -> Result<ExistingNetwork, virt::error::Error> {
    let shape = |flags| {
        let xml = network.get_xml_desc(flags).or_else(|e| match e.code() {
            // The `test:` driver knows no flags.
            ErrorNumber::InvalidArg => network.get_xml_desc(0),
            _ => Err(e),
        })?;
        // XML that cannot be read differs from all that is wanted.
        Ok(parse_shape(&xml).unwrap_or_default())
    };
    let config = network.is_persistent()?.then(|| shape(sys::VIR_NETWORK_XML_INACTIVE)).transpose()?;
    Ok(ExistingNetwork {
        uuid: network.get_uuid()?,
        name: network.get_name()?,
        // A transient network has none, and asking is an error.
        autostart: config.is_some() && network.get_autostart()?,
        live: network.is_active()?.then(|| shape(0)).transpose()?,
        config,
    })
}

/// Carries the plan out and adds what failed to its errors: the steps of one network after its first failure are left
/// out. Blocks.
pub(super) fn apply(connect: &Connect, plan: PublishPlan) -> BTreeMap<Uuid, PublishError> {
    let mut errors = plan.errors;
    for action in plan.actions {
        let uuid = action.uuid();
        if errors.contains_key(&uuid) {
            continue;
        }
        match step(connect, &action) {
            Ok(()) => tracing::info!(network = %uuid, "{action}"),
            Err(e) => {
                let reason = e.message().to_owned();
                errors.insert(uuid, PublishError::Libvirt { action: action.to_string(), reason });
            }
        }
    }
    errors
}

fn step(connect: &Connect, action: &PublishAction) -> Result<(), virt::error::Error> {
    let network = |uuid: &Uuid| Network::lookup_by_uuid(connect, *uuid);
    match action {
        PublishAction::Stop { uuid, .. } => network(uuid).and_then(|network| network.destroy()),
        PublishAction::Undefine { uuid, .. } => network(uuid).and_then(|network| network.undefine()),
        PublishAction::Define(wanted) => Network::define_xml(connect, &network_xml(wanted)).map(drop),
        PublishAction::Autostart { uuid, .. } => network(uuid)?.set_autostart(true).map(drop),
        PublishAction::Start { uuid, .. } => network(uuid)?.create().map(drop),
    }
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
