//! The way of changes of the intent into the store. Commands that come together are committed together: however many
//! clients wait, the disk is waited for once.

use super::{Command, CommandError, Engine, Notice, Outlets, View, engine::BATCH};
use crate::{
    backend::{Driver, Store, StoreError, Write},
    intent::{self, Change, HostConfig, Intent, IntentError, NetworkId, Undo},
    policy::takes_away,
};
use std::{collections::BTreeSet, ops::ControlFlow, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// How long commands are gathered: who waits, waits for the disk, and hooks wait too.
const PLANNING: Duration = Duration::from_millis(5);

/// A command as the change that it is, and the way to whoever asked.
pub(crate) struct Planned {
    pub change: Result<Change, CommandError>,
    pub answer: Answer,
}

pub(crate) type Answer = Box<dyn FnOnce(Result<(), CommandError>) + Send>;

/// Changes that the intent has, and the store has not.
#[derive(Debug)]
pub(super) struct Staged {
    writes: Vec<Write>,
    undo: Undo,
    notices: Vec<Notice>,
    networks: BTreeSet<NetworkId>,
    takes_away: bool,
    deletes: bool,
}

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    /// Serves a command with those that wait behind it and are one change each, in their order and as one commit.
    pub(super) async fn serve_commands(
        &mut self,
        first: Command,
        queue: &mut mpsc::Receiver<Command>,
    ) -> ControlFlow<()> {
        let begun = Instant::now();
        let (mut staged, mut made, mut other) = (Vec::new(), Vec::new(), None);
        let (mut next, mut room) = (Some(first), BATCH);
        while let Some(command) = next.take() {
            room -= 1;
            let planned = match self.planned(command) {
                Ok(planned) => planned,
                Err(command) => {
                    other = Some(*command);
                    break;
                }
            };
            let stage = |change: Change| {
                staged.push(self.stage(Intent::apply, vec![change.clone()], Vec::new())?);
                Ok(change)
            };
            match planned.change.and_then(stage) {
                Ok(change) => made.push((change, planned.answer)),
                Err(error) => (planned.answer)(Err(error)),
            }
            if room > 0 && begun.elapsed() < PLANNING {
                next = queue.try_recv().ok();
            }
        }
        self.settle_all(staged, made).await;
        match other {
            Some(Command::Stop(reply)) => {
                drop(reply.send(Ok(())));
                return ControlFlow::Break(());
            }
            Some(other) => self.serve_command(other).await,
            None => {}
        }
        ControlFlow::Continue(())
    }

    /// Commits these together; where the store refuses, each alone, since what frees space, or is small, may pass.
    async fn settle_all(&mut self, staged: Vec<Staged>, made: Vec<(Change, Answer)>) {
        if staged.is_empty() {
            return;
        }
        let settled = self.settle(staged).await;
        if settled.is_err() && made.len() > 1 {
            for (change, answer) in made {
                let alone = self.commit(vec![change]).await;
                answer(alone);
            }
        } else {
            made.into_iter().for_each(|(_, answer)| answer(settled.clone().map_err(CommandError::from)));
        }
        self.mark_dirty();
    }

    /// Applies changes as one (see [`Intent::apply_whole`]) and commits them.
    pub(super) async fn commit_whole(&mut self, changes: Vec<Change>, more: Vec<Write>) -> Result<(), CommandError> {
        self.commit_by(Intent::apply_whole, changes, more).await
    }

    /// Applies changes to the intent and commits them; where the store refuses, nothing has changed.
    pub(super) async fn commit(&mut self, changes: Vec<Change>) -> Result<(), CommandError> {
        self.commit_with(changes, Vec::new()).await
    }

    /// The same, with other writes in the same commit.
    pub(super) async fn commit_with(&mut self, changes: Vec<Change>, more: Vec<Write>) -> Result<(), CommandError> {
        self.commit_by(Intent::apply, changes, more).await
    }

    async fn commit_by(
        &mut self,
        apply: fn(&mut Intent, Vec<Change>, &HostConfig) -> Result<Undo, IntentError>,
        changes: Vec<Change>,
        more: Vec<Write>,
    ) -> Result<(), CommandError> {
        if changes.is_empty() && more.is_empty() {
            return Ok(());
        }
        let staged = self.stage(apply, changes, more)?;
        Ok(self.settle(vec![staged]).await?)
    }

    fn stage(
        &mut self,
        apply: fn(&mut Intent, Vec<Change>, &HostConfig) -> Result<Undo, IntentError>,
        changes: Vec<Change>,
        more: Vec<Write>,
    ) -> Result<Staged, IntentError> {
        let mut view = self.view_mut();
        let View { intent, host, .. } = &mut *view;
        let (notices, networks) = (notices_of(intent, &changes), networks_of(intent, &changes));
        let takes_away = changes.iter().any(|change| takes_away(intent, change));
        let undo = apply(intent, changes.clone(), host)?;
        let deletes = |change: &Change| {
            matches!(change, Change::DeleteNetwork(_) | Change::DeleteSubnet(_) | Change::DeletePort(_))
        };
        let deletes = changes.iter().any(deletes);
        let writes = changes.into_iter().map(Write::Intent).chain(more).collect();
        Ok(Staged { writes, undo, notices, networks, takes_away, deletes })
    }

    /// Commits all of them or, where the store refuses, takes all of them back.
    async fn settle(&mut self, mut staged: Vec<Staged>) -> Result<(), StoreError> {
        let writes = staged.iter_mut().flat_map(|staged| std::mem::take(&mut staged.writes)).collect();
        if let Err(error) = self.store.commit(writes).await {
            let mut notices = Vec::new();
            for staged in staged.into_iter().rev() {
                self.view_mut().intent.undo(staged.undo);
                notices.extend(staged.notices);
            }
            // Who looked meanwhile has seen it.
            notices.into_iter().for_each(|notice| self.notify(notice));
            return Err(error);
        }
        if staged.iter().any(|staged| staged.takes_away) {
            self.revoking = true;
            self.mark_dirty();
        }
        if staged.iter().any(|staged| staged.deletes) {
            self.forget_orphans();
        }
        let mut notices = Vec::new();
        for staged in staged {
            self.touched.extend(staged.networks);
            // A network changes with each of its ports.
            let fresh = staged.notices.into_iter().filter(|notice| !notices.contains(notice)).collect::<Vec<_>>();
            notices.extend(fresh);
        }
        self.refresh_index();
        if notices.iter().any(Notice::is_of_a_network) {
            self.publish_anew().await;
            // A guest that runs already may have waited for it.
            self.outlets.refresh();
        }
        notices.into_iter().for_each(|notice| self.notify(notice));
        Ok(())
    }

    /// Drops what spoke of ports and networks that are gone.
    fn forget_orphans(&mut self) {
        let mut view = self.view_mut();
        let View { intent, attachments, leases, full_pools, .. } = &mut *view;
        full_pools.retain(|subnet| intent.subnet(*subnet).is_some());
        attachments.retain(|port, _| intent.port(*port).is_some());
        leases.retain(|(network, _), _| intent.network(*network).is_some());
        drop(view);
        let view = self.view.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.taps.retain(|port, _| view.intent.port(*port).is_some());
        self.dhcp_problems.retain(|(network, trouble), _| trouble.concerns(&view.intent, *network));
        self.leaving.retain(|port| view.intent.port(*port).is_some());
    }
}

fn notices_of(intent: &Intent, changes: &[Change]) -> Vec<Notice> {
    changes
        .iter()
        .flat_map(|change| match change {
            Change::PutNetwork(n) if intent.network(n.id).is_some() => vec![Notice::NetworkChanged(n.id)],
            Change::PutNetwork(n) => vec![Notice::NetworkAdded(n.id)],
            Change::DeleteNetwork(id) => {
                let ports = intent.ports_of(*id).map(|port| Notice::PortRemoved(port.id));
                let subnets = intent.subnets_of(*id).map(|subnet| Notice::SubnetRemoved(subnet.id));
                ports.chain(subnets).chain([Notice::NetworkRemoved(*id)]).collect()
            }
            Change::PutSubnet(s) if intent.subnet(s.id).is_some() => vec![Notice::SubnetChanged(s.id)],
            Change::PutSubnet(s) => vec![Notice::SubnetAdded(s.id), Notice::NetworkChanged(s.network)],
            Change::DeleteSubnet(id) => {
                let network = intent.subnet(*id).map(|subnet| Notice::NetworkChanged(subnet.network));
                [Notice::SubnetRemoved(*id)].into_iter().chain(network).collect()
            }
            Change::PutPort(p) if intent.port(p.id).is_some() => vec![Notice::PortChanged(p.id)],
            Change::PutPort(p) => vec![Notice::PortAdded(p.id), Notice::NetworkChanged(p.network)],
            Change::PutSecurityGroup(g) if intent.security_group(g.id).is_some() => {
                vec![Notice::SecurityGroupChanged(g.id)]
            }
            Change::PutSecurityGroup(g) => vec![Notice::SecurityGroupAdded(g.id)],
            Change::DeleteSecurityGroup(id) => vec![Notice::SecurityGroupRemoved(*id)],
            Change::PutAddressGroup(g) if intent.address_group(g.id).is_some() => {
                vec![Notice::AddressGroupChanged(g.id)]
            }
            Change::PutAddressGroup(g) => vec![Notice::AddressGroupAdded(g.id)],
            Change::DeleteAddressGroup(id) => vec![Notice::AddressGroupRemoved(*id)],
            Change::DeletePort(id) => {
                let network = intent.port(*id).map(|port| Notice::NetworkChanged(port.network));
                [Notice::PortRemoved(*id)].into_iter().chain(network).collect()
            }
        })
        .collect()
}

fn networks_of(intent: &Intent, changes: &[Change]) -> BTreeSet<NetworkId> {
    let network = |change: &Change| match change {
        Change::PutNetwork(intent::Network { id, .. }) | Change::DeleteNetwork(id) => Some(*id),
        Change::PutSubnet(subnet) => Some(subnet.network),
        Change::DeleteSubnet(id) => intent.subnet(*id).map(|subnet| subnet.network),
        Change::PutPort(port) => Some(port.network),
        Change::DeletePort(id) => intent.port(*id).map(|port| port.network),
        Change::PutSecurityGroup(_)
        | Change::DeleteSecurityGroup(_)
        | Change::PutAddressGroup(_)
        | Change::DeleteAddressGroup(_) => None,
    };
    changes.iter().filter_map(network).collect()
}
