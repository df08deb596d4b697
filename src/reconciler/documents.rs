//! Documents of all that people want: what one would change, and doing it in one commit.

use super::{CommandError, Engine, ImportMemo, Outlets, View, commands::refuse_if_used};
use crate::{
    backend::{Driver, Store, Write},
    intent::{Change, Document, DocumentPlan, Intent, NetworkId, Subnet, SubnetId, plan_document},
};
use std::net::IpAddr;
use uuid::Uuid;

/// A document to apply.
#[derive(Debug, Clone, Default)]
pub struct DocumentRequest {
    pub document: Document,
    /// Whether what it does not name goes; guests' ports never do.
    pub prune: bool,
    /// The identity of the plan that was agreed to: another one is refused.
    pub plan: Option<String>,
}

/// What a document changes on this host.
#[derive(Debug, Clone, Default)]
pub struct PreparedDocument {
    /// The same again for the same changes.
    pub id: String,
    pub plan: DocumentPlan,
}

impl DocumentRequest {
    /// Works out the changes against what is there; pure but for identities, which follow from the agreed plan.
    pub fn prepare(&self, view: &View) -> Result<PreparedDocument, CommandError> {
        let agreed = self.plan.as_deref();
        let seed = agreed.and_then(|plan| plan.split_once('/')).and_then(|(seed, _)| seed.parse().ok());
        let seed = seed.unwrap_or_else(Uuid::new_v4);
        let leased = |subnet: SubnetId, address: IpAddr| super::commands::leased(view, subnet, address);
        let plan = plan_document(&self.document, self.prune, &view.intent, &view.host, seed, leased)?;
        let text = serde_json::to_vec(&(&plan.differences, &plan.kept)).unwrap_or_default();
        let id = format!("{seed}/{}", Uuid::new_v5(&seed, &text));
        if agreed.is_some_and(|agreed| agreed != id) {
            return Err(CommandError::PlanChanged);
        }
        plan.changes.iter().try_for_each(|change| refuse_used(view, &plan, change))?;
        Ok(PreparedDocument { id, plan })
    }
}

/// What a running guest needs is not taken from it.
fn refuse_used(view: &View, plan: &DocumentPlan, change: &Change) -> Result<(), CommandError> {
    match change {
        Change::DeletePort(id) if plan.after.port(*id).is_none() => {
            let Some(port) = view.intent.port(*id) else { return Ok(()) };
            let name = port.name.as_ref().map_or_else(|| id.to_string(), ToString::to_string);
            refuse_if_used(view, &format!("port '{name}'"), [port])
        }
        Change::PutPort(new) => {
            let Some(old) = view.intent.port(new.id) else { return Ok(()) };
            let domain = |port: &crate::intent::Port| port.device.as_ref().map(|device| device.domain);
            if old.mac == new.mac && domain(old) == domain(new) {
                return Ok(());
            }
            let name = old.name.as_ref().map_or_else(|| old.id.to_string(), ToString::to_string);
            refuse_if_used(view, &format!("port '{name}'"), [old])
        }
        Change::DeleteSubnet(id) => {
            let Some(subnet) = view.intent.subnet(*id) else { return Ok(()) };
            let holders = view.intent.ports_of(subnet.network);
            let holders = holders.filter(|port| port.fixed_ips.iter().any(|ip| ip.subnet == *id));
            refuse_if_used(view, &format!("subnet '{}'", subnet.name), holders)
        }
        Change::DeleteNetwork(id) => {
            let name = view.intent.network(*id).map(|network| network.name.to_string()).unwrap_or_default();
            refuse_if_used(view, &format!("network '{name}'"), view.intent.ports_of(*id))
        }
        _ => Ok(()),
    }
}

/// The subnets of a plan that want an address of the host.
fn on_host(changes: &[Change]) -> impl Iterator<Item = &Subnet> {
    changes.iter().filter_map(|change| match change {
        Change::PutSubnet(subnet) if subnet.host_address.is_some() => Some(subnet),
        _ => None,
    })
}

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    pub(super) async fn apply_document(&mut self, request: DocumentRequest) -> Result<PreparedDocument, CommandError> {
        let prepared = request.prepare(&self.view())?;
        if on_host(&prepared.plan.changes).next().is_some() {
            self.observe().await?;
            self.check_host_overlaps(&prepared.plan.changes)?;
        }
        // What was taken over from libvirt and is deleted is not to come back.
        let imports: Vec<NetworkId> = {
            let view = self.view();
            let gone = prepared.plan.changes.iter().filter_map(|change| match change {
                Change::DeleteNetwork(id) => Some(*id),
                _ => None,
            });
            gone.filter(|id| view.imports.contains_key(id)).collect()
        };
        let memos = imports.iter().map(|id| Write::DeleteMemo { key: ImportMemo::key(*id) }).collect();
        self.commit_whole(prepared.plan.changes.clone(), memos).await?;
        self.view_mut().imports.retain(|id, _| !imports.contains(id));
        if !prepared.plan.changes.is_empty() {
            self.mark_dirty();
        }
        Ok(prepared)
    }

    /// What a full pass would change on this host with the changes of a document, one line a change.
    pub(super) async fn plan_with(&mut self, after: &Intent, changes: &[Change]) -> Result<Vec<String>, CommandError> {
        self.observe().await?;
        self.check_host_overlaps(changes)?;
        Ok(self.plan_for(Some(after)).await.1.iter().map(ToString::to_string).collect())
    }

    fn check_host_overlaps(&self, changes: &[Change]) -> Result<(), CommandError> {
        on_host(changes).try_for_each(|subnet| self.check_host_overlap(subnet, None))
    }
}
