//! What clients ask for.

use super::{Command, CommandError, Engine, ImportMemo, Outlets, RecordFilter, Reply, View, commit::Planned};
use crate::{
    backend::{Driver, Store, Write},
    intent::{
        Change, IntentError, Network, NetworkDraft, NetworkId, Origin, Port, PortDraft, PortId, Subnet, SubnetDraft,
        SubnetId, patched,
    },
    net::{DnsRecord, IfName, IpNet},
};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, net::IpAddr};
use uuid::Uuid;

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    /// Those that [`Engine::planned`] does not take.
    pub(super) async fn serve_command(&mut self, command: Command) {
        // Whoever asked may be gone; the change stands all the same.
        match command {
            Command::AddRecord(id, record, reply) => drop(reply.send(self.add_record(id, record).await)),
            Command::RemoveRecords(id, which, reply) => drop(reply.send(self.remove_records(id, which).await)),
            Command::DeleteNetwork(id, reply) => drop(reply.send(self.delete_network(id).await)),
            Command::CreateSubnet(draft, reply) => drop(reply.send(self.create_subnet(draft).await)),
            Command::UpdateSubnet(id, patch, reply) => drop(reply.send(self.update_subnet(id, patch).await)),
            Command::Plan(reply) => drop(reply.send(self.show_plan().await)),
            Command::Apply(request, reply) => drop(reply.send(self.apply_document(*request).await)),
            Command::PlanWith(after, changes, reply) => drop(reply.send(self.plan_with(&after, &changes).await)),
            Command::Ping(reply) => drop(reply.send(Ok(()))),
            Command::Import(command) => self.serve_import_command(command).await,
            // The loop's end, and what is one change each and is taken together.
            Command::Stop(_)
            | Command::CreateNetwork(..)
            | Command::UpdateNetwork(..)
            | Command::DeleteSubnet(..)
            | Command::CreatePort(..)
            | Command::UpdatePort(..)
            | Command::DeletePort(..)
            | Command::Group(_) => {}
        }
    }

    /// A command that is one change and nothing else, completed against what is there now; others come back.
    pub(super) fn planned(&self, command: Command) -> Result<Planned, Box<Command>> {
        let view = self.view();
        Ok(match command {
            Command::CreateNetwork(draft, reply) => made(reply, new_network(&view, draft), Change::PutNetwork),
            Command::UpdateNetwork(id, patch, reply) => {
                made(reply, updated_network(&view, id, patch), Change::PutNetwork)
            }
            Command::DeleteSubnet(id, reply) => {
                made(reply, deletable_subnet(&view, id), move |()| Change::DeleteSubnet(id))
            }
            Command::CreatePort(draft, reply) => made(reply, new_port(&view, draft), Change::PutPort),
            Command::UpdatePort(id, patch, reply) => made(reply, updated_port(&view, id, patch), Change::PutPort),
            Command::DeletePort(id, reply) => made(reply, deletable_port(&view, id), move |()| Change::DeletePort(id)),
            Command::Group(command) => command.plan(&view.intent),
            other => return Err(Box::new(other)),
        })
    }

    async fn add_record(&mut self, id: NetworkId, record: DnsRecord) -> Result<(), CommandError> {
        let mut network = self.view().intent.find_network(&id.to_string())?.clone();
        network.dns.records.push(record);
        self.commit_and_mark(Change::PutNetwork(network)).await?;
        // Whoever made it may ask for it next.
        self.flush().await;
        Ok(())
    }

    async fn remove_records(&mut self, id: NetworkId, which: RecordFilter) -> Result<u32, CommandError> {
        let mut network = self.view().intent.find_network(&id.to_string())?.clone();
        let before = network.dns.records.len();
        network.dns.records.retain(|record| !which.matches(record));
        let removed = before - network.dns.records.len();
        if removed == 0 {
            let what = [Some(which.name.to_string()), which.type_name, which.data];
            let what = what.into_iter().flatten().collect::<Vec<_>>().join(" ");
            return Err(IntentError::not_found("DNS record", what).into());
        }
        self.commit_and_mark(Change::PutNetwork(network)).await?;
        self.flush().await;
        Ok(u32::try_from(removed).unwrap_or(u32::MAX))
    }

    async fn delete_network(&mut self, id: NetworkId) -> Result<(), CommandError> {
        {
            let view = self.view();
            let network = view.intent.find_network(&id.to_string())?;
            let what = format!("network '{}'", network.name);
            let ports: Vec<&Port> = view.intent.ports_of(id).collect();
            refuse_if_used(&view, &what, ports.iter().copied())?;
            let kept: Vec<String> = ports
                .iter()
                .filter(|port| port.origin == Origin::Admin)
                .map(|port| port.name.as_ref().map_or_else(|| port.id.to_string(), ToString::to_string))
                .collect();
            if !kept.is_empty() {
                let by = format!("ports that were made by hand: {}", kept.join(", "));
                let remedy = format!("delete them first: vmfabric port delete {}", kept.join(" "));
                return Err(CommandError::InUse { what, by, remedy });
            }
        }
        let memo = self.view().imports.contains_key(&id).then(|| Write::DeleteMemo { key: ImportMemo::key(id) });
        self.commit_with(vec![Change::DeleteNetwork(id)], memo.into_iter().collect()).await?;
        self.view_mut().imports.remove(&id);
        self.mark_dirty();
        Ok(())
    }

    async fn create_subnet(&mut self, draft: SubnetDraft) -> Result<Subnet, CommandError> {
        let subnet = draft.complete(SubnetId(Uuid::new_v4()), &self.view().intent)?;
        self.refuse_host_overlap(&subnet, None).await?;
        self.put_subnet(&subnet).await?;
        Ok(subnet)
    }

    async fn put_subnet(&mut self, subnet: &Subnet) -> Result<(), CommandError> {
        let changes = {
            let view = self.view();
            view.intent.with_subnet(subnet, |address| leased(&view, subnet.id, address))
        };
        self.commit(changes).await?;
        self.mark_dirty();
        Ok(())
    }

    async fn update_subnet(&mut self, id: SubnetId, patch: Map<String, Value>) -> Result<Subnet, CommandError> {
        let subnet = {
            let view = self.view();
            let old = view.intent.find_subnet(&id.to_string())?;
            patched(&SubnetDraft::of(old), patch)?.complete(id, &view.intent)?
        };
        self.refuse_host_overlap(&subnet, None).await?;
        self.put_subnet(&subnet).await?;
        Ok(subnet)
    }

    pub(super) async fn commit_and_mark(&mut self, change: Change) -> Result<(), CommandError> {
        self.commit(vec![change]).await?;
        self.mark_dirty();
        Ok(())
    }

    /// A block that this host is already in would take the host's own neighbours from it.
    /// `except`: a bridge that is about to go.
    pub(super) async fn refuse_host_overlap(
        &mut self,
        subnet: &Subnet,
        except: Option<&IfName>,
    ) -> Result<(), CommandError> {
        if subnet.host_address.is_none() {
            return Ok(());
        }
        self.observe().await?;
        self.check_host_overlap(subnet, except)
    }

    /// The same, on the host as it was last seen.
    pub(super) fn check_host_overlap(&self, subnet: &Subnet, except: Option<&IfName>) -> Result<(), CommandError> {
        let observed = &self.observed.datapath;
        let foreign = observed
            .addresses
            .iter()
            .filter(|(link, _)| Some(link) != except && !observed.links.get(link).is_some_and(|l| l.is_owned()));
        for (link, address) in foreign {
            if address.contains(&subnet.cidr.network()) || subnet.cidr.contains(&address.addr()) {
                let other = IpNet::trunc(address);
                let link = link.to_string();
                return Err(IntentError::HostOverlap { cidr: subnet.cidr, other, link }.into());
            }
        }
        Ok(())
    }

    async fn show_plan(&mut self) -> Result<Vec<String>, CommandError> {
        self.observe().await?;
        Ok(self.plan_now().await.1.iter().map(ToString::to_string).collect())
    }
}

fn made<T: Clone + Send + 'static>(
    reply: Reply<T>,
    made: Result<T, CommandError>,
    change: impl FnOnce(T) -> Change,
) -> Planned {
    let (change, value) = match made {
        Ok(value) => (Ok(change(value.clone())), Some(value)),
        Err(error) => (Err(error), None),
    };
    // Where there is no value the result is the error.
    let answer = move |result: Result<(), CommandError>| {
        drop(reply.send(result.and_then(|()| value.ok_or(CommandError::Stopping))));
    };
    Planned { change, answer: Box::new(answer) }
}

fn new_network(view: &View, draft: NetworkDraft) -> Result<Network, CommandError> {
    Ok(draft.with_defaults(&view.host).complete(NetworkId(Uuid::new_v4()), &view.intent, None)?)
}

fn updated_network(view: &View, id: NetworkId, patch: Map<String, Value>) -> Result<Network, CommandError> {
    let old = view.intent.find_network(&id.to_string())?;
    let draft = patched(&NetworkDraft::of_in(old, &view.intent), patch)?.with_defaults(&view.host);
    Ok(draft.complete(id, &view.intent, Some(old))?)
}

fn deletable_subnet(view: &View, id: SubnetId) -> Result<(), CommandError> {
    let subnet = view.intent.find_subnet(&id.to_string())?;
    let holders = view.intent.ports_of(subnet.network);
    let holders = holders.filter(|port| port.fixed_ips.iter().any(|ip| ip.subnet == id));
    refuse_if_used(view, &format!("subnet '{}'", subnet.name), holders)
}

fn new_port(view: &View, draft: PortDraft) -> Result<Port, CommandError> {
    let id = PortId(Uuid::new_v4());
    Ok(draft.complete(id, &view.intent, None, |subnet, address| leased(view, subnet, address))?)
}

fn updated_port(view: &View, id: PortId, patch: Map<String, Value>) -> Result<Port, CommandError> {
    let old = view.intent.find_port(&id.to_string())?;
    let draft = patched(&PortDraft::of(old), patch)?;
    let port = draft.complete(id, &view.intent, Some(old), |subnet, address| leased(view, subnet, address))?;
    if port.mac != old.mac || port.device.as_ref().map(|d| d.domain) != old.device.as_ref().map(|d| d.domain) {
        refuse_if_used(view, &format!("port {id}"), [old])?;
    }
    Ok(port)
}

fn deletable_port(view: &View, id: PortId) -> Result<(), CommandError> {
    let port = view.intent.find_port(&id.to_string())?;
    refuse_if_used(view, &format!("port {id}"), [port])
}

pub(super) fn leased(view: &View, subnet: SubnetId, address: IpAddr) -> bool {
    let network = view.intent.subnet(subnet).map(|subnet| subnet.network);
    let lease = network.and_then(|network| view.leases.get(&(network, address)));
    lease.is_some_and(|lease| lease.expires > view.lease_clock.now())
}

pub(super) fn refuse_if_used<'a>(
    view: &View,
    what: &str,
    ports: impl IntoIterator<Item = &'a Port>,
) -> Result<(), CommandError> {
    let in_use = ports.into_iter().filter_map(|port| Some((port, view.attachments.get(&port.id)?)));
    let guests: BTreeSet<String> = in_use
        .map(|(port, attachment)| match attachment.guest.as_ref().or(port.device.as_ref()) {
            Some(guest) if !guest.name.is_empty() => format!("guest '{}'", guest.name),
            _ => format!("the guest with NIC {}", port.mac),
        })
        .collect();
    if guests.is_empty() {
        return Ok(());
    }
    let by = guests.into_iter().collect::<Vec<_>>().join(", ");
    let remedy = "shut it down or unplug the NIC first".to_owned();
    Err(CommandError::InUse { what: what.to_owned(), by, remedy })
}
