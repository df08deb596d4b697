//! The loop's part in taking over libvirt's networks: the intent in one commit, and out of it again.

use super::{CommandError, Engine, Notice, Outlets, Problem, Reply, Subject, View};
use crate::{
    backend::{Driver, LeaseRecord, Store, Write},
    datapath::{Change as KernelChange, LinkChange},
    intent::{
        Change, Intent, IntentError, NetworkDraft, NetworkId, Origin, PortDraft, PortId, SubnetDraft, SubnetId,
        guest_port_id,
    },
    libvirt::{lease_file::FoundLease, takeover::Existing},
    net::{DnsLabel, IfName, MacAddr},
    protocol::dhcpv4::NEVER,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What a network was in libvirt, so that it can be given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportMemo {
    pub uuid: Uuid,
    pub name: String,
    pub xml: String,
    pub autostart: bool,
    pub active: bool,
    pub persistent: bool,
    /// The bridge that it had.
    pub bridge: Option<IfName>,
}

impl ImportMemo {
    pub fn new(network: &Existing, bridge: Option<IfName>) -> Self {
        let Existing { uuid, name, xml, autostart, active, persistent } = network.clone();
        Self { uuid, name, xml, autostart, active, persistent, bridge }
    }

    pub fn existing(&self) -> Existing {
        let Self { uuid, name, xml, autostart, active, persistent, .. } = self.clone();
        Existing { uuid, name, xml, autostart, active, persistent }
    }

    pub fn id(&self) -> NetworkId {
        NetworkId(self.uuid)
    }

    /// The store's name of it.
    pub fn key(id: NetworkId) -> String {
        format!("import:{id}")
    }

    pub(super) fn all(memos: &[(String, String)]) -> BTreeMap<NetworkId, Self> {
        let ours = memos.iter().filter(|(key, _)| key.starts_with("import:"));
        ours.filter_map(|(_, value)| serde_json::from_str::<Self>(value).ok()).map(|memo| (memo.id(), memo)).collect()
    }
}

/// A network that is to be ours.
#[derive(Debug, Clone)]
pub struct TakeOver {
    pub id: NetworkId,
    pub network: NetworkDraft,
    pub subnets: Vec<SubnetDraft>,
    pub ports: Vec<PortDraft>,
    pub guests: Vec<TakenGuest>,
    pub leases: Vec<FoundLease>,
    /// The bridge that goes, whose addresses are in nobody's way.
    pub old_bridge: Option<IfName>,
}

/// A guest's NIC that gets a port beforehand, as it would by itself, with the address that it has.
#[derive(Debug, Clone)]
pub struct TakenGuest {
    pub guest: Uuid,
    pub mac: MacAddr,
    pub port: PortDraft,
}

#[derive(Debug)]
pub enum ImportCommand {
    /// Whether [`ImportCommand::TakeOver`] of the same would do; says the networks' bridges.
    Check(Vec<TakeOver>, Reply<Vec<Option<IfName>>>),
    /// Notes what is about to be taken from libvirt.
    Remember(Vec<ImportMemo>, Reply<()>),
    /// All networks in one commit, and what they need in the kernel.
    TakeOver(Vec<TakeOver>, Reply<()>),
    /// Takes networks away with all that is on them. The memos stay.
    Abandon(Vec<NetworkId>, Reply<()>),
    /// Plugs those taps that are on no bridge into these: libvirt does not for a network that it started anew.
    Plug(BTreeMap<IfName, IfName>, Reply<()>),
    /// Whether libvirt has none of these from us any more.
    AreWithdrawn(Vec<NetworkId>, Reply<bool>),
    Forget(Vec<NetworkId>, Reply<()>),
}

struct Prepared {
    changes: Vec<Change>,
    leases: Vec<LeaseRecord>,
    bridges: Vec<Option<IfName>>,
}

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    pub(super) async fn serve_import_command(&mut self, command: ImportCommand) {
        match command {
            ImportCommand::Check(all, reply) => {
                drop(reply.send(self.prepare_import(&all).await.map(|prepared| prepared.bridges)));
            }
            ImportCommand::Remember(memos, reply) => drop(reply.send(self.remember_imports(memos).await)),
            ImportCommand::TakeOver(all, reply) => drop(reply.send(self.take_over(all).await)),
            ImportCommand::Abandon(ids, reply) => drop(reply.send(self.abandon(ids).await)),
            ImportCommand::Plug(taps, reply) => drop(reply.send(self.plug(taps).await)),
            ImportCommand::AreWithdrawn(ids, reply) => {
                drop(reply.send(Ok(ids.iter().all(|id| !self.published.contains(&id.0)))));
            }
            ImportCommand::Forget(ids, reply) => drop(reply.send(self.forget_imports(&ids).await)),
        }
    }

    async fn prepare_import(&mut self, all: &[TakeOver]) -> Result<Prepared, CommandError> {
        let prepared = prepare(&self.view(), all)?;
        for (change, old) in prepared.changes.iter().filter_map(|change| match change {
            Change::PutSubnet(subnet) => {
                Some((subnet, all.iter().find(|one| one.id == subnet.network).and_then(|one| one.old_bridge.as_ref())))
            }
            _ => None,
        }) {
            self.refuse_host_overlap(change, old).await?;
        }
        Ok(prepared)
    }

    async fn remember_imports(&mut self, memos: Vec<ImportMemo>) -> Result<(), CommandError> {
        let write = |memo: &ImportMemo| {
            let value = serde_json::to_string(memo).map_err(|error| CommandError::Import(error.to_string()))?;
            Ok(Write::PutMemo { key: ImportMemo::key(memo.id()), value })
        };
        let writes = memos.iter().map(write).collect::<Result<Vec<_>, CommandError>>()?;
        self.commit_with(Vec::new(), writes).await?;
        self.view_mut().imports.extend(memos.into_iter().map(|memo| (memo.id(), memo)));
        Ok(())
    }

    async fn forget_imports(&mut self, ids: &[NetworkId]) -> Result<(), CommandError> {
        let writes = ids.iter().map(|id| Write::DeleteMemo { key: ImportMemo::key(*id) }).collect();
        self.commit_with(Vec::new(), writes).await?;
        self.view_mut().imports.retain(|id, _| !ids.contains(id));
        Ok(())
    }

    async fn take_over(&mut self, all: Vec<TakeOver>) -> Result<(), CommandError> {
        let Prepared { changes, leases, .. } = self.prepare_import(&all).await?;
        let writes = leases.iter().cloned().map(Write::PutLease).collect();
        self.commit_with(changes, writes).await?;
        {
            let mut view = self.view_mut();
            for lease in leases {
                view.leases.insert((NetworkId(lease.network), lease.address), lease);
            }
        }
        let ids: BTreeSet<NetworkId> = all.iter().map(|one| one.id).collect();
        ids.iter().for_each(|id| self.notify(Notice::LeasesChanged(*id)));
        self.touched.extend(&ids);
        // Guests are without network until this is done.
        self.full_pass().await;
        self.flush().await;
        let problems = self.plan_problems.iter().chain(&self.service_problems);
        let of_these = |problem: &&Problem| matches!(problem.subject, Subject::Network(id) if ids.contains(&id));
        match problems.into_iter().find(of_these) {
            Some(problem) => Err(CommandError::Import(problem.message.clone())),
            None => Ok(()),
        }
    }

    async fn abandon(&mut self, ids: Vec<NetworkId>) -> Result<(), CommandError> {
        let (changes, leases, ports) = {
            let view = self.view();
            let there: Vec<NetworkId> = ids.into_iter().filter(|id| view.intent.network(*id).is_some()).collect();
            let changes: Vec<Change> = there.iter().map(|id| Change::DeleteNetwork(*id)).collect();
            let leases: Vec<_> = view.leases.keys().filter(|(network, _)| there.contains(network)).copied().collect();
            let ports: Vec<PortId> =
                there.iter().flat_map(|id| view.intent.ports_of(*id)).map(|port| port.id).collect();
            (changes, leases, ports)
        };
        let writes = leases.iter().map(|(n, address)| Write::DeleteLease { network: n.0, address: *address }).collect();
        self.commit_with(changes, writes).await?;
        self.view_mut().leases.retain(|key, _| !leases.contains(key));
        ports.into_iter().for_each(|port| self.detach(port));
        // Servers end before their links do.
        self.flush().await;
        self.full_pass().await;
        Ok(())
    }

    async fn plug(&mut self, taps: BTreeMap<IfName, IfName>) -> Result<(), CommandError> {
        let seen = self.driver.observe_links(&taps.keys().cloned().collect()).await?;
        let loose = |tap: &IfName| seen.links.get(tap).is_some_and(|link| link.master().is_none() && !link.is_owned());
        for (name, bridge) in taps.into_iter().filter(|(tap, _)| loose(tap)) {
            let change = LinkChange { master: Some(Some(bridge)), ..LinkChange::default() };
            let change = KernelChange::SetLink { name, change };
            let plugged = self.driver.apply(&[change]).await;
            plugged.map_err(|error| CommandError::Import(error.to_string()))?;
        }
        Ok(())
    }
}

/// The changes that make the networks, tried on a copy of the intent.
fn prepare(view: &View, all: &[TakeOver]) -> Result<Prepared, CommandError> {
    let mut scratch = view.intent.clone();
    let mut prepared = Prepared { changes: Vec::new(), leases: Vec::new(), bridges: Vec::new() };
    let mut put = |scratch: &mut Intent, change: Change| -> Result<(), IntentError> {
        // The copy goes with its changes.
        let _ = scratch.apply(vec![change.clone()], &view.host)?;
        prepared.changes.push(change);
        Ok(())
    };
    for one in all {
        let network = one.network.clone().with_defaults(&view.host).complete(one.id, &scratch, None)?;
        prepared.bridges.push(network.bridge.clone());
        put(&mut scratch, Change::PutNetwork(network))?;
        for draft in &one.subnets {
            let id = SubnetId(Uuid::new_v5(&one.id.0, draft.cidr.to_string().as_bytes()));
            let subnet = draft.clone().complete(id, &scratch)?;
            put(&mut scratch, Change::PutSubnet(subnet))?;
        }
        for draft in &one.ports {
            let port = draft.clone().complete(PortId(Uuid::new_v4()), &scratch, None, |_, _| false)?;
            put(&mut scratch, Change::PutPort(port))?;
        }
        for guest in &one.guests {
            let id = guest_port_id(guest.guest, guest.mac, one.id);
            let mut port = guest.port.clone().complete(id, &scratch, None, |_, _| false)?;
            // It is the guest's when libvirt has moved the NIC: a tap that we took before would be busy.
            port.origin = Origin::Guest;
            put(&mut scratch, Change::PutPort(port))?;
        }
    }
    for one in all {
        let within = |lease: &&FoundLease| scratch.subnets_of(one.id).any(|s| s.cidr.contains(&lease.address));
        for lease in one.leases.iter().filter(within) {
            let expires = match lease.expires {
                0 => NEVER,
                at => at.saturating_sub(view.lease_clock.to_wall(0)),
            };
            prepared.leases.push(LeaseRecord {
                network: one.id.0,
                address: lease.address,
                client: lease.client.clone(),
                mac: lease.mac,
                host_name: lease.host_name.as_deref().and_then(DnsLabel::from_free_text).map(|label| label.to_string()),
                port: scratch.port_by_mac(one.id, lease.mac).map(|port| port.id.0),
                expires,
                iaid: lease.iaid,
                prefix_length: None,
            });
        }
    }
    Ok(prepared)
}
