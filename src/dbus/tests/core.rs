//! A core that only remembers: commands change an intent in memory, and nothing becomes of it.

use crate::{
    backend::StoreError,
    intent::{Change, HostConfig, Intent, NetworkDraft, NetworkId, PortDraft, PortId, SubnetDraft, SubnetId, patched},
    reconciler::{
        Command, CommandError, DocumentRequest, GroupCommand, Handle, LibvirtStatus, Notice, PreparedDocument, View,
    },
};
use std::sync::{Arc, RwLock, RwLockWriteGuard};
use tokio::sync::{broadcast, mpsc};
use uuid::Uuid;

/// The test's hands on the core.
#[derive(Debug, Clone)]
pub struct Core {
    pub handle: Handle,
    view: Arc<RwLock<View>>,
    pub notices: broadcast::Sender<Notice>,
}

/// A network of this name meets a full disk.
pub const DISK_FULL: &str = "disk-full";

impl Core {
    pub fn start(host: HostConfig) -> Self {
        let (commands, mut requests) = mpsc::channel(64);
        let core = Self::stalled(commands, host);
        let answering = core.clone();
        tokio::spawn(async move {
            while let Some(command) = requests.recv().await {
                answering.answer(command);
            }
        });
        core
    }

    /// A core that nobody runs.
    pub fn stalled(commands: mpsc::Sender<Command>, host: HostConfig) -> Self {
        let view = View { host, libvirt: LibvirtStatus::Connected, ..View::default() };
        let view = Arc::new(RwLock::new(view));
        let (notices, _) = broadcast::channel(16);
        Self { handle: Handle::new(commands, Arc::clone(&view), notices.clone()), view, notices }
    }

    pub fn view(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().expect("no test panics with the view in hand")
    }

    pub fn tell(&self, notice: Notice) {
        // Nobody listens in tests that have no service yet.
        let _ = self.notices.send(notice);
    }

    fn answer(&self, command: Command) {
        // A caller that went away wants no reply.
        match command {
            Command::CreateNetwork(draft, reply) => drop(reply.send(self.create_network(draft))),
            Command::UpdateNetwork(id, patch, reply) => drop(reply.send(self.change(|intent, _| {
                let old = intent.find_network(&id.to_string())?;
                let new = patched(&NetworkDraft::of_in(old, intent), patch)?.complete(id, intent, Some(old))?;
                Ok((Change::PutNetwork(new.clone()), new, Notice::NetworkChanged(id)))
            }))),
            Command::AddRecord(id, record, reply) => drop(reply.send(self.change(|intent, _| {
                let mut network = intent.find_network(&id.to_string())?.clone();
                network.dns.records.push(record);
                Ok((Change::PutNetwork(network), (), Notice::NetworkChanged(id)))
            }))),
            Command::RemoveRecords(id, which, reply) => drop(reply.send(self.change(|intent, _| {
                let mut network = intent.find_network(&id.to_string())?.clone();
                let before = network.dns.records.len();
                network.dns.records.retain(|record| !which.matches(record));
                let removed = (before - network.dns.records.len()) as u32;
                Ok((Change::PutNetwork(network), removed, Notice::NetworkChanged(id)))
            }))),
            Command::Import(_) => {}
            Command::DeleteNetwork(id, reply) => drop(reply.send(self.delete_network(id))),
            Command::CreateSubnet(draft, reply) => drop(reply.send(self.create_subnet(draft))),
            Command::UpdateSubnet(id, patch, reply) => drop(reply.send(self.change(|intent, _| {
                let old = intent.find_subnet(&id.to_string())?;
                let new = patched(&SubnetDraft::of(old), patch)?.complete(id, intent)?;
                Ok((Change::PutSubnet(new.clone()), new, Notice::SubnetChanged(id)))
            }))),
            Command::DeleteSubnet(id, reply) => {
                drop(reply.send(self.change(|_, _| Ok((Change::DeleteSubnet(id), (), Notice::SubnetRemoved(id))))))
            }
            Command::CreatePort(draft, reply) => drop(reply.send(self.create_port(draft))),
            Command::UpdatePort(id, patch, reply) => drop(reply.send(self.change(|intent, _| {
                let old = intent.find_port(&id.to_string())?;
                let new = patched(&PortDraft::of(old), patch)?.complete(id, intent, Some(old), |_, _| false)?;
                Ok((Change::PutPort(new.clone()), new, Notice::PortChanged(id)))
            }))),
            Command::DeletePort(id, reply) => {
                drop(reply.send(self.change(|_, _| Ok((Change::DeletePort(id), (), Notice::PortRemoved(id))))))
            }
            Command::Group(command) => self.serve_group(command),
            Command::Apply(request, reply) => drop(reply.send(self.apply(&request))),
            Command::PlanWith(after, _, reply) => {
                let bridges = after.networks().filter_map(|network| network.bridge.as_ref());
                drop(reply.send(Ok(bridges.map(|bridge| format!("+ bridge {bridge}")).collect())));
            }
            Command::Plan(reply) => drop(reply.send(Ok(vec!["+ bridge vmf-blue".into()]))),
            Command::Ping(reply) | Command::Stop(reply) => drop(reply.send(Ok(()))),
        }
    }

    fn apply(&self, request: &DocumentRequest) -> Result<PreparedDocument, CommandError> {
        let mut view = self.view();
        let prepared = request.prepare(&view)?;
        let host = view.host.clone();
        let _undo = view.intent.apply_whole(prepared.plan.changes.clone(), &host)?;
        Ok(prepared)
    }

    fn serve_group(&self, command: GroupCommand) {
        let planned = command.plan(&self.handle.view().intent);
        let result = planned.change.and_then(|change| {
            self.change(|_, _| {
                let notice = match &change {
                    Change::PutSecurityGroup(group) => Notice::SecurityGroupChanged(group.id),
                    Change::DeleteSecurityGroup(id) => Notice::SecurityGroupRemoved(*id),
                    Change::PutAddressGroup(group) => Notice::AddressGroupChanged(group.id),
                    Change::DeleteAddressGroup(id) => Notice::AddressGroupRemoved(*id),
                    other => panic!("{other:?} is not about a group"),
                };
                Ok((change, (), notice))
            })
        });
        (planned.answer)(result);
    }

    pub fn create_network(&self, draft: NetworkDraft) -> Result<crate::intent::Network, CommandError> {
        if draft.name.as_str() == DISK_FULL {
            return Err(StoreError::Full { path: "/var/lib/vmfabric/vmfabric.db".into() }.into());
        }
        let id = NetworkId(Uuid::new_v4());
        self.change(|intent, _| {
            let network = draft.complete(id, intent, None)?;
            Ok((Change::PutNetwork(network.clone()), network, Notice::NetworkAdded(id)))
        })
    }

    pub fn create_subnet(&self, draft: SubnetDraft) -> Result<crate::intent::Subnet, CommandError> {
        let id = SubnetId(Uuid::new_v4());
        self.change(|intent, _| {
            let subnet = draft.complete(id, intent)?;
            Ok((Change::PutSubnet(subnet.clone()), subnet, Notice::SubnetAdded(id)))
        })
    }

    pub fn create_port(&self, draft: PortDraft) -> Result<crate::intent::Port, CommandError> {
        let id = PortId(Uuid::new_v4());
        self.change(|intent, _| {
            let port = draft.complete(id, intent, None, |_, _| false)?;
            Ok((Change::PutPort(port.clone()), port, Notice::PortAdded(id)))
        })
    }

    fn delete_network(&self, id: NetworkId) -> Result<(), CommandError> {
        self.change(|intent, attached| {
            if intent.ports_of(id).any(|port| attached.contains(&port.id)) {
                return Err(CommandError::InUse {
                    what: format!("network {id}"),
                    by: "guest 'web'".into(),
                    remedy: "shut it down".into(),
                });
            }
            Ok((Change::DeleteNetwork(id), (), Notice::NetworkRemoved(id)))
        })
    }

    fn change<T>(
        &self,
        what: impl FnOnce(&Intent, &[PortId]) -> Result<(Change, T, Notice), CommandError>,
    ) -> Result<T, CommandError> {
        let notice;
        let result;
        {
            let mut view = self.view();
            let attached: Vec<_> = view.attachments.keys().copied().collect();
            let (change, value, told) = what(&view.intent, &attached)?;
            let host = view.host.clone();
            let _undo = view.intent.apply(vec![change], &host)?;
            (notice, result) = (told, value);
        }
        self.tell(notice);
        Ok(result)
    }
}
