//! Keeps the objects on the bus in step with the reconciler's view.
//!
//! Level-triggered, as the loop itself: whatever a notice says, its object is made to match the view of that moment.
//! So a method can bring its own object up to date before it replies, and the notice that follows finds nothing to do.

use super::{
    Context,
    address_group::AddressGroupObject,
    info::{AddressGroupInfo, Changes, ManagerInfo, NetworkInfo, PortInfo, SecurityGroupInfo, SubnetInfo},
    managed::Objects,
    manager::Manager,
    network::NetworkObject,
    path::{self, ROOT},
    port::PortObject,
    security_group::SecurityGroupObject,
    subnet::SubnetObject,
    turns::Turn,
};
use crate::{
    intent::{AddressGroupId, Change, NetworkId, PortId, SecurityGroupId, SubnetId},
    reconciler::{Notice, Subject, View},
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    sync::{
        Mutex,
        broadcast::{
            self,
            error::{RecvError, TryRecvError},
        },
    },
    time::{Instant, sleep_until},
};
use zbus::{
    Connection, OwnedObjectPath, fdo,
    object_server::{Interface, SignalEmitter},
};

/// From one look at how many leases there are to the next.
const LEASES_PAUSE: Duration = Duration::from_millis(100);

/// An object's properties, shared by the object, which reads them, and the exporter, which replaces them.
#[derive(Debug)]
pub struct Shared<T>(Arc<RwLock<Arc<T>>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Shared<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    pub fn now(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn read<R>(&self, what: impl FnOnce(&T) -> R) -> R {
        what(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn replace(&self, value: Arc<T>) -> Arc<T> {
        std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), value)
    }
}

/// A kind of object that comes and goes.
pub trait Exported: Interface + Sized {
    type Id: Copy + Ord + Send + Sync;
    type Info: Send + Sync;

    /// Its properties now; `None` where the resource is no more.
    fn read(view: &View, id: Self::Id) -> Option<Self::Info>;
    fn changes(old: &Self::Info, new: &Self::Info) -> Changes;
    fn path(id: Self::Id) -> OwnedObjectPath;
    fn make(context: &Arc<Context>, id: Self::Id, info: Shared<Self::Info>) -> Self;
    fn known(known: &mut Known) -> &mut BTreeMap<Self::Id, Shared<Self::Info>>;
}

/// What is on the bus.
#[derive(Debug)]
pub struct Known {
    pub networks: BTreeMap<NetworkId, Shared<NetworkInfo>>,
    pub subnets: BTreeMap<SubnetId, Shared<SubnetInfo>>,
    pub ports: BTreeMap<PortId, Shared<PortInfo>>,
    pub groups: BTreeMap<SecurityGroupId, Shared<SecurityGroupInfo>>,
    pub address_groups: BTreeMap<AddressGroupId, Shared<AddressGroupInfo>>,
    manager: Shared<ManagerInfo>,
    /// What had problems when problems were last looked at.
    troubled: BTreeSet<Subject>,
    /// How many pieces of work are done.
    rounds: u64,
}

/// Brings objects up to date, one at a time. What many ask for at once is one piece of work.
#[derive(Debug)]
pub struct Exporter {
    known: Mutex<Known>,
    asked: std::sync::Mutex<Asked>,
}

/// What the next piece of work is to bring up to date.
#[derive(Debug, Default)]
struct Asked {
    dirty: Dirty,
    /// Which piece of work that will be.
    round: u64,
}

/// What may differ between the bus and the view.
#[derive(Debug, Default, Clone)]
pub struct Dirty {
    networks: BTreeSet<NetworkId>,
    subnets: BTreeSet<SubnetId>,
    ports: BTreeSet<PortId>,
    groups: BTreeSet<SecurityGroupId>,
    address_groups: BTreeSet<AddressGroupId>,
    problems: bool,
}

impl Exporter {
    pub fn new(manager: Shared<ManagerInfo>) -> Self {
        let known = Known {
            networks: BTreeMap::new(),
            subnets: BTreeMap::new(),
            ports: BTreeMap::new(),
            groups: BTreeMap::new(),
            address_groups: BTreeMap::new(),
            manager,
            troubled: BTreeSet::new(),
            rounds: 0,
        };
        Self { known: Mutex::new(known), asked: std::sync::Mutex::default() }
    }

    /// Makes the objects that may differ, and the Manager, match the view.
    pub async fn sync(&self, context: &Arc<Context>, bus: &Connection, dirty: Dirty) -> zbus::Result<()> {
        let mine = {
            let mut asked = self.asked();
            asked.dirty.merge(dirty);
            asked.round
        };
        let mut known = self.known.lock().await;
        if known.rounds > mine {
            return Ok(());
        }
        let round = Round::begin(self);
        known.bring_up(context, bus, round.dirty.clone()).await?;
        known.rounds = round.end();
        Ok(())
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn objects(&self, turn: Turn) -> Objects {
        Objects::of(&mut *self.known.lock().await, turn)
    }

    /// Makes every object match the view.
    pub async fn sync_all(&self, context: &Arc<Context>, bus: &Connection) -> zbus::Result<()> {
        let mut all = Dirty::default();
        {
            let known = self.known.lock().await;
            all.networks.extend(known.networks.keys());
            all.subnets.extend(known.subnets.keys());
            all.ports.extend(known.ports.keys());
            all.groups.extend(known.groups.keys());
            all.address_groups.extend(known.address_groups.keys());
        }
        {
            let view = context.handle.view();
            all.networks.extend(view.intent.networks().map(|network| network.id));
            all.subnets.extend(view.intent.subnets().map(|subnet| subnet.id));
            all.ports.extend(view.intent.ports().map(|port| port.id));
            all.groups.extend(view.intent.security_groups().map(|group| group.id));
            all.address_groups.extend(view.intent.address_groups().map(|group| group.id));
        }
        self.sync(context, bus, all).await
    }

    /// Follows the notices until the loop ends. Notices that come together are one piece of work; those of leases wait
    /// for each other a moment, since many come while guests boot, and only the Manager's count of them changes.
    pub async fn follow(
        &self,
        context: &Arc<Context>,
        bus: &Connection,
        mut notices: broadcast::Receiver<Notice>,
    ) -> zbus::Result<()> {
        // When to look at the leases, if some have changed; when that was done last.
        let (mut leases_due, mut leases_seen) = (None, Instant::now());
        loop {
            let mut dirty = Dirty::default();
            let mut lagged = false;
            tokio::select! {
                notice = notices.recv() => match notice {
                    Ok(Notice::LeasesChanged(_)) => {
                        leases_due.get_or_insert(leases_seen + LEASES_PAUSE);
                        continue;
                    }
                    Ok(notice) => dirty.note(notice),
                    Err(RecvError::Lagged(_)) => lagged = true,
                    Err(RecvError::Closed) => return Ok(()),
                },
                () = sleep_until(leases_due.unwrap_or(leases_seen)), if leases_due.is_some() => {}
            }
            (leases_due, leases_seen) = (None, Instant::now());
            loop {
                match notices.try_recv() {
                    Ok(notice) => dirty.note(notice),
                    Err(TryRecvError::Lagged(_)) => lagged = true,
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            if lagged {
                self.sync_all(context, bus).await?;
            } else {
                self.sync(context, bus, dirty).await?;
            }
        }
    }
}

/// A piece of work that is under way. Where it fails, or who does it goes away, what it took is to be done still, by
/// those that wait for it.
struct Round<'a> {
    exporter: &'a Exporter,
    dirty: Dirty,
    done: u64,
}

impl<'a> Round<'a> {
    fn begin(exporter: &'a Exporter) -> Self {
        let mut asked = exporter.asked();
        asked.round += 1;
        Self { exporter, dirty: std::mem::take(&mut asked.dirty), done: asked.round }
    }

    /// How many pieces of work are done with it.
    fn end(mut self) -> u64 {
        self.dirty = Dirty::default();
        self.done
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.exporter.asked().dirty.merge(std::mem::take(&mut self.dirty));
    }
}

impl Known {
    async fn bring_up(&mut self, context: &Arc<Context>, bus: &Connection, mut dirty: Dirty) -> zbus::Result<()> {
        let troubled = dirty.spread(self, &context.handle.view());
        for id in dirty.address_groups {
            sync_one::<AddressGroupObject>(self, context, bus, id).await?;
        }
        for id in dirty.groups {
            sync_one::<SecurityGroupObject>(self, context, bus, id).await?;
        }
        for id in dirty.networks {
            sync_one::<NetworkObject>(self, context, bus, id).await?;
        }
        for id in dirty.subnets {
            sync_one::<SubnetObject>(self, context, bus, id).await?;
        }
        for id in dirty.ports {
            sync_one::<PortObject>(self, context, bus, id).await?;
        }
        let now = Arc::new(ManagerInfo::of(&context.handle.view()));
        let old = self.manager.replace(Arc::clone(&now));
        emit(bus, OwnedObjectPath::try_from(ROOT)?, Manager::name(), ManagerInfo::changes(&old, &now)).await?;
        if let Some(troubled) = troubled {
            self.troubled = troubled;
        }
        Ok(())
    }
}

impl Dirty {
    pub fn network(id: NetworkId) -> Self {
        Self { networks: [id].into(), ..Self::default() }
    }

    pub fn subnet(id: SubnetId) -> Self {
        Self { subnets: [id].into(), ..Self::default() }
    }

    pub fn port(id: PortId) -> Self {
        Self { ports: [id].into(), ..Self::default() }
    }

    pub fn group(id: SecurityGroupId) -> Self {
        Self { groups: [id].into(), ..Self::default() }
    }

    pub fn address_group(id: AddressGroupId) -> Self {
        Self { address_groups: [id].into(), ..Self::default() }
    }

    /// What changes of the intent are about.
    pub fn of(changes: &[Change]) -> Self {
        let mut dirty = Self::default();
        for change in changes {
            match change {
                Change::PutNetwork(network) => drop(dirty.networks.insert(network.id)),
                Change::DeleteNetwork(id) => drop(dirty.networks.insert(*id)),
                Change::PutSubnet(subnet) => drop(dirty.subnets.insert(subnet.id)),
                Change::DeleteSubnet(id) => drop(dirty.subnets.insert(*id)),
                Change::PutPort(port) => {
                    dirty.networks.insert(port.network);
                    dirty.ports.insert(port.id);
                }
                Change::DeletePort(id) => drop(dirty.ports.insert(*id)),
                Change::PutSecurityGroup(group) => drop(dirty.groups.insert(group.id)),
                Change::DeleteSecurityGroup(id) => drop(dirty.groups.insert(*id)),
                Change::PutAddressGroup(group) => drop(dirty.address_groups.insert(group.id)),
                Change::DeleteAddressGroup(id) => drop(dirty.address_groups.insert(*id)),
            }
        }
        dirty
    }

    fn note(&mut self, notice: Notice) {
        match notice {
            Notice::NetworkAdded(id) | Notice::NetworkChanged(id) | Notice::NetworkRemoved(id) => {
                self.networks.insert(id);
            }
            Notice::SubnetAdded(id) | Notice::SubnetChanged(id) | Notice::SubnetRemoved(id) => {
                self.subnets.insert(id);
            }
            Notice::PortAdded(id) | Notice::PortChanged(id) | Notice::PortRemoved(id) => {
                self.ports.insert(id);
            }
            Notice::SecurityGroupAdded(id) | Notice::SecurityGroupChanged(id) | Notice::SecurityGroupRemoved(id) => {
                self.groups.insert(id);
            }
            Notice::AddressGroupAdded(id) | Notice::AddressGroupChanged(id) | Notice::AddressGroupRemoved(id) => {
                self.address_groups.insert(id);
            }
            // The Manager is looked at in any case.
            Notice::LeasesChanged(_) | Notice::LibvirtNetworksChanged => {}
            Notice::StatusChanged => self.problems = true,
        }
    }

    fn merge(&mut self, other: Self) {
        self.networks.extend(other.networks);
        self.subnets.extend(other.subnets);
        self.ports.extend(other.ports);
        self.groups.extend(other.groups);
        self.address_groups.extend(other.address_groups);
        self.problems |= other.problems;
    }

    /// Adds what shows in its properties that others changed, or goes with them. Gives what has problems now, where that
    /// was to be looked at.
    fn spread(&mut self, known: &Known, view: &View) -> Option<BTreeSet<Subject>> {
        for id in self.networks.iter().filter(|id| view.intent.network(**id).is_none()) {
            let gone = path::network(*id);
            let of_it = |network: &OwnedObjectPath| *network == gone;
            self.subnets.extend(known.subnets.iter().filter(|(_, s)| s.read(|s| of_it(&s.network))).map(|(id, _)| id));
            self.ports.extend(known.ports.iter().filter(|(_, p)| p.read(|p| of_it(&p.network))).map(|(id, _)| id));
        }
        for id in &self.networks {
            // Ports that say nothing of their own have what their network says.
            let (Some(network), Some(known)) = (view.intent.network(*id), known.networks.get(id)) else { continue };
            if known.read(|known| !known.has_security(&network.security)) {
                self.ports.extend(view.intent.ports_of(*id).map(|port| port.id));
            }
        }
        for id in &self.subnets {
            let was_on = known.subnets.get(id).map(|subnet| subnet.read(|subnet| subnet.network.clone()));
            let was_on = was_on.and_then(|network| path::parse(&network)).map(|(_, id)| NetworkId(id));
            self.networks.extend(was_on);
            match view.intent.subnet(*id) {
                Some(subnet) => self.networks.extend([subnet.network]),
                // Its ports have lost their addresses in it.
                None => self.ports.extend(was_on.iter().flat_map(|n| view.intent.ports_of(*n)).map(|port| port.id)),
            }
        }
        let troubled: BTreeSet<_> =
            self.problems.then(|| view.problems.iter().map(|problem| problem.subject).collect())?;
        for subject in known.troubled.union(&troubled) {
            match subject {
                Subject::Host => {}
                Subject::Network(id) => drop(self.networks.insert(*id)),
                Subject::Subnet(id) => drop(self.subnets.insert(*id)),
                Subject::Port(id) => drop(self.ports.insert(*id)),
            }
        }
        Some(troubled)
    }
}

/// Makes one object match the view.
async fn sync_one<E: Exported>(
    known: &mut Known,
    context: &Arc<Context>,
    bus: &Connection,
    id: E::Id,
) -> zbus::Result<()> {
    let known = E::known(known);
    let now = E::read(&context.handle.view(), id);
    match (known.get(&id), now) {
        (Some(shared), Some(now)) => {
            let now = Arc::new(now);
            let old = shared.replace(Arc::clone(&now));
            emit(bus, E::path(id), E::name(), E::changes(&old, &now)).await
        }
        (None, Some(now)) => {
            let shared = Shared::new(now);
            bus.object_server().at(E::path(id), E::make(context, id, shared.clone())).await?;
            known.insert(id, shared);
            Ok(())
        }
        (Some(_), None) => {
            known.remove(&id);
            bus.object_server().remove::<E, _>(E::path(id)).await.map(drop)
        }
        (None, None) => Ok(()),
    }
}

async fn emit(
    bus: &Connection,
    path: OwnedObjectPath,
    interface: zbus::names::InterfaceName<'static>,
    changes: Changes,
) -> zbus::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let emitter = SignalEmitter::new(bus, path)?;
    fdo::Properties::properties_changed(&emitter, interface, changes, Cow::Borrowed(&[])).await
}
