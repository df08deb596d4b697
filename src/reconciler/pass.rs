//! A full pass: observe, plan, diff, apply, and look again.

use super::{Engine, Notice, Outlets, Problem, Subject, previous_sysctls::memo};
use crate::{
    backend::{Driver, Store, Write},
    datapath::{Change, Family, Sysctl, element_link},
    diff::{Scope, diff},
    intent::{Intent, PortId},
    net::IfName,
    planner::{BOUND, Input, Plan, plan},
};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// How often a pass looks again at what it did before it says that something does not stick.
const ROUNDS: usize = 3;

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    /// What a full pass would do on the host as it was last seen.
    pub(super) async fn plan_now(&mut self) -> (Plan, Vec<Change>) {
        self.plan_for(None).await
    }

    /// The same for another intent than the one that holds.
    pub(super) async fn plan_for(&mut self, intent: Option<&Intent>) -> (Plan, Vec<Change>) {
        let mut plan = {
            let view = self.view();
            plan(Input {
                intent: intent.unwrap_or(&view.intent),
                host: &view.host,
                attachments: &self.taps,
                observed: &self.observed,
                previous: &self.previous,
                delegated: &view.delegated,
            })
        };
        self.fill_listed(&mut plan).await;
        let changes = diff(&self.observed.datapath, &plan.desired, Scope::Full);
        (plan, changes)
    }

    pub(super) async fn full_pass(&mut self) {
        let started = Instant::now();
        let (mut made, mut failures, mut wanted) = (0, Vec::new(), None);
        for round in 0..ROUNDS {
            if let Err(error) = self.observe().await {
                failures.push(Problem::new(Subject::Host, format!("the kernel cannot be asked: {error}")));
                break;
            }
            let (plan, mut changes) = self.plan_now().await;
            self.yielded.spare(&mut changes);
            self.plan_problems = plan.problems;
            wanted = Some(plan.desired.sysctls);
            self.verify_attachments(&changes);
            if changes.is_empty() {
                break;
            }
            if round + 1 == ROUNDS && failures.is_empty() {
                let text = changes.first().map(ToString::to_string).unwrap_or_default();
                let text = format!("a change does not stick, as if somebody takes it back: {text}");
                failures.push(Problem::new(Subject::Host, text));
                break;
            }
            if let Err(error) = self.remember_previous(&changes).await {
                failures.push(Problem::new(Subject::Host, error.to_string()));
                break;
            }
            made += changes.len();
            failures = self.apply_all(changes).await;
        }
        failures.extend(self.revoke(failures.is_empty()).await);
        let failed = !failures.is_empty();
        self.retry_later(failed || !self.service_problems.is_empty());
        self.plan_problems.extend(failures);
        if let Some(wanted) = wanted
            && let Err(error) = self.forget_previous(&wanted).await
        {
            tracing::warn!(%error, "what the kernel had before cannot be forgotten yet");
        }
        {
            let mut view = self.view_mut();
            view.passes += 1;
            view.last_changes = made;
            view.changes += made as u64;
            view.failed_passes += u64::from(failed);
            view.passes_took.observe(started.elapsed());
            view.capabilities = self.observed.capabilities;
        }
        if made > 0 {
            tracing::info!(changes = made, problems = self.plan_problems.len(), "host brought in line");
            // Gateways may have come or gone, and servers sit on them.
            self.touch_all();
        }
    }

    pub(super) async fn observe(&mut self) -> Result<(), crate::backend::DriverError> {
        let observed = self.driver.observe().await?;
        self.yielded.note(&self.observed.datapath, &observed.datapath, Instant::now());
        self.observed = observed;
        let links = &self.observed.datapath.links;
        let gone: Vec<PortId> =
            self.taps.iter().filter(|(_, tap)| !links.contains_key(*tap)).map(|(p, _)| *p).collect();
        if !gone.is_empty() {
            self.mark_dirty();
        }
        gone.into_iter().for_each(|port| self.tap_gone(port));
        Ok(())
    }

    /// Applies changes in order. Where one fails, those that concern the same link are left out and the rest is done:
    /// one bad uplink must not keep the other guests waiting, and no port that is not in place may speak.
    pub(super) async fn apply_all(&mut self, changes: Vec<Change>) -> Vec<Problem> {
        let (mut problems, mut failed) = (Vec::new(), BTreeSet::<IfName>::new());
        let mut rest = changes;
        while !rest.is_empty() {
            for change in &rest {
                tracing::debug!(%change, "apply");
            }
            match self.driver.apply(&rest).await {
                Ok(()) => {
                    self.note_done(&rest);
                    break;
                }
                Err(error) => {
                    let done = error.done.min(rest.len());
                    self.note_done(&rest[..done]);
                    tracing::warn!(change = %error.change, error = %error.source, "a change failed");
                    if rest.get(done).and_then(Change::family) == Some(Family::Bridge) {
                        // No port may be let in whose filters are not.
                        problems.push(Problem::new(Subject::Host, error.to_string()));
                        break;
                    }
                    let link = rest.get(done).and_then(concerned);
                    let subject = link.as_ref().map_or(Subject::Host, |link| self.subject_of(link));
                    let partial = rest.get(done).is_some_and(Change::is_limit);
                    problems.push(Problem { partial, ..Problem::new(subject, error.to_string()) });
                    // A port may speak without its rate.
                    failed.extend(link.filter(|_| !partial));
                    rest = rest.into_iter().skip(done + 1).filter_map(|change| spare(change, &failed)).collect();
                }
            }
        }
        problems
    }

    /// The picture of the host follows what was done to it, until it is observed anew.
    pub(super) fn note_done(&mut self, changes: &[Change]) {
        for change in changes {
            // Where the picture is behind, the next observation mends it.
            let _ = self.observed.datapath.apply(change);
        }
    }

    /// Whom a link's failure concerns: the port of a tap, or the network of a bridge.
    fn subject_of(&self, link: &IfName) -> Subject {
        if let Some((port, _)) = self.taps.iter().find(|(_, tap)| *tap == link) {
            return Subject::Port(*port);
        }
        let view = self.view();
        let mut networks = view.intent.networks();
        let network = networks.find(|network| view.bridge_of(network) == Some(link));
        network.map_or(Subject::Host, |network| Subject::Network(network.id))
    }

    /// A port is verified when nothing is left to change about it.
    pub(super) fn verify_attachments(&mut self, left: &[Change]) {
        let unsettled: BTreeSet<IfName> =
            left.iter().filter(|change| !change.is_limit()).flat_map(concerned_all).collect();
        let broken: BTreeSet<PortId> = self
            .plan_problems
            .iter()
            .filter(|problem| !problem.partial)
            .filter_map(|problem| match problem.subject {
                Subject::Port(port) => Some(port),
                _ => None,
            })
            .collect();
        let mut changed = Vec::new();
        for (port, attachment) in &mut self.view_mut().attachments {
            let verified = !unsettled.contains(&attachment.tap) && !broken.contains(port);
            if attachment.verified != verified {
                attachment.verified = verified;
                changed.push(*port);
            }
        }
        changed.into_iter().for_each(|port| self.notify(Notice::PortChanged(port)));
    }

    /// Before a kernel parameter of a link that is not ours is changed, what it was is on disk.
    async fn remember_previous(&mut self, changes: &[Change]) -> Result<(), crate::backend::StoreError> {
        let observed = &self.observed.datapath;
        let mut fresh: BTreeMap<Sysctl, String> = changes
            .iter()
            .filter_map(|change| match change {
                Change::SetSysctl { key, .. } if !self.previous.contains_key(key) => {
                    if let Some(link) = key.link() {
                        observed.links.get(link).filter(|link| !link.is_owned())?;
                    }
                    Some((key.clone(), observed.sysctls.get(key).cloned().unwrap_or_else(|| "0".into())))
                }
                _ => None,
            })
            .collect();
        if fresh.contains_key(&Sysctl::Ipv6ForwardingPath) {
            // The kernel changes these with it; a stop before they are put back must not leave them so.
            let others = observed.sysctls.iter().filter(|(key, _)| {
                let link = key.link().and_then(|link| observed.links.get(link));
                matches!(key, Sysctl::Ipv6Forwarding(_)) && link.is_some_and(|link| !link.is_owned())
            });
            let others = others.filter(|(key, _)| !self.previous.contains_key(*key));
            let others: Vec<_> = others.map(|(key, value)| (key.clone(), value.clone())).collect();
            for (key, value) in others {
                fresh.entry(key).or_insert(value);
            }
        }
        if !fresh.is_empty() {
            let writes = fresh.iter().map(|(key, value)| Write::PutMemo { key: memo(key), value: value.clone() });
            self.store.commit(writes.collect()).await?;
            self.previous.extend(fresh);
        }
        Ok(())
    }

    /// What is as it was before us needs no memory any more.
    async fn forget_previous(&mut self, wanted: &BTreeMap<Sysctl, String>) -> Result<(), crate::backend::StoreError> {
        if self.previous.is_empty() {
            return Ok(());
        }
        let observed = &self.observed.datapath;
        let over: Vec<Sysctl> = self
            .previous
            .iter()
            .filter(|(key, before)| {
                let gone = key.link().is_some_and(|link| !observed.links.contains_key(link));
                gone || wanted.get(key) == Some(before) && observed.sysctls.get(key) == Some(before)
            })
            .map(|(key, _)| key.clone())
            .collect();
        if !over.is_empty() {
            self.store.commit(over.iter().map(|key| Write::DeleteMemo { key: memo(key) }).collect()).await?;
            self.previous.retain(|key, _| !over.contains(key));
        }
        Ok(())
    }
}

/// The link that a change is about.
fn concerned(change: &Change) -> Option<IfName> {
    match change {
        Change::CreateLink { name, .. } | Change::SetLink { name, .. } | Change::DeleteLink { name } => {
            Some(name.clone())
        }
        Change::AddVlan { link, .. }
        | Change::DeleteVlan { link, .. }
        | Change::AddAddress { link, .. }
        | Change::DeleteAddress { link, .. }
        | Change::SetLimit { link, .. }
        | Change::DeleteLimit { link, .. } => Some(link.clone()),
        Change::AddRoute(route) | Change::DeleteRoute(route) => Some(route.link.clone()),
        Change::SetSysctl { key, .. } => key.link().cloned(),
        _ => None,
    }
}

/// All links that a change is about, with those that it lets speak.
fn concerned_all(change: &Change) -> Vec<IfName> {
    match change {
        Change::AddElements { set, elements, .. } | Change::DeleteElements { set, elements, .. } if set == BOUND => {
            elements.iter().filter_map(|element| element_link(element)).collect()
        }
        other => concerned(other).into_iter().collect(),
    }
}

/// A change without what rests on links that failed.
fn spare(change: Change, failed: &BTreeSet<IfName>) -> Option<Change> {
    match change {
        Change::AddElements { family, set, mut elements } if set == BOUND => {
            elements.retain(|element| element_link(element).is_none_or(|link| !failed.contains(&link)));
            (!elements.is_empty()).then_some(Change::AddElements { family, set, elements })
        }
        Change::SetLink { ref change, .. } if change.master.iter().flatten().any(|master| failed.contains(master)) => {
            None
        }
        other => concerned(&other).is_none_or(|link| !failed.contains(&link)).then_some(other),
    }
}
