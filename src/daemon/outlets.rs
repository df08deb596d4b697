//! The servers and libvirt, driven by the loop.

use crate::{
    backend::{LeaseRecord, Store, Write},
    intent::NetworkId,
    libvirt::{LibvirtHandle, publish::PublishedNetwork},
    net::{DnsLabel, DomainName, IfName, IpNet},
    planner::{Problem, Subject},
    protocol::{
        dhcpv4::{Lease, LeaseChange, Scope},
        dns::{NameSource, Zone, ZoneError},
    },
    reconciler::{DnsEntry, DnsService, HookIndex, NetworkServices, Outlets},
    server::{
        clock::LeaseClock,
        dhcpv4::{CommitError, DhcpEvent, DhcpServer, LeaseStore},
        dns::{DnsListen, DnsServer, SharedZone, Upstreams},
    },
};
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Leases in the daemon's store: on disk when the commit returns.
#[derive(Debug)]
pub struct StoredLeases<S>(pub Arc<S>);

impl<S: Store> LeaseStore for StoredLeases<S> {
    async fn commit(&self, changes: Vec<LeaseChange>) -> Vec<Result<(), CommitError>> {
        let write = |change: &LeaseChange| match change {
            LeaseChange::Put(lease) => Write::PutLease(lease.into()),
            LeaseChange::Remove(lease) => Write::DeleteLease { network: lease.network, address: lease.address.into() },
        };
        if self.0.commit(changes.iter().map(write).collect()).await.is_ok() {
            return changes.iter().map(|_| Ok(())).collect();
        }
        // One that cannot be stored, for want of space say, is not to take the others along.
        let alone = changes.iter().map(|change| self.0.commit(vec![write(change)]));
        join_all(alone).await.into_iter().map(|result| result.map_err(CommitError::new)).collect()
    }

    async fn load(&self, network: Uuid) -> Result<Vec<Lease>, CommitError> {
        let records = self.0.leases(network).await.map_err(CommitError::new)?;
        Ok(records.iter().filter_map(LeaseRecord::to_v4).collect())
    }
}

/// All that serves guests, and libvirt.
#[derive(Debug)]
pub struct Services<S> {
    pub leases: Arc<StoredLeases<S>>,
    pub dhcp_events: mpsc::Sender<DhcpEvent>,
    pub upstreams: Arc<Upstreams>,
    pub libvirt: Option<LibvirtHandle>,
    pub index_path: PathBuf,
    networks: BTreeMap<NetworkId, Served>,
}

#[derive(Debug, Default)]
struct Served {
    dhcp: Option<(Scope, DhcpServer)>,
    dns: Option<ServedDns>,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct ServedDns {
    interface: IfName,
    addresses: Vec<IpAddr>,
    domain: DomainName,
    blocks: Vec<IpNet>,
    zone: SharedZone,
    server: DnsServer,
}

impl<S: Store> Services<S> {
    pub fn new(
        store: Arc<S>,
        dhcp_events: mpsc::Sender<DhcpEvent>,
        upstreams: Arc<Upstreams>,
        libvirt: Option<LibvirtHandle>,
        index_path: PathBuf,
    ) -> Self {
        let leases = Arc::new(StoredLeases(store));
        Self { leases, dhcp_events, upstreams, libvirt, index_path, networks: BTreeMap::new() }
    }

    async fn serve_dhcp(&self, served: &mut Served, services: &mut NetworkServices) {
        match (served.dhcp.take(), services.scope.take()) {
            (Some((old, server)), Some(new)) if old.interface == new.interface => {
                if old == new {
                    served.dhcp = Some((old, server));
                } else if server.update(new.clone()).await.is_ok() {
                    served.dhcp = Some((new, server));
                } else {
                    self.start_dhcp(served, new, services.lease_clock).await;
                }
            }
            (old, new) => {
                if let Some((_, server)) = old {
                    server.stop().await;
                }
                if let Some(scope) = new {
                    self.start_dhcp(served, scope, services.lease_clock).await;
                }
            }
        }
    }

    async fn start_dhcp(&self, served: &mut Served, scope: Scope, clock: LeaseClock) {
        let (network, interface) = (NetworkId(scope.network), scope.interface.clone());
        match DhcpServer::start(scope.clone(), clock, self.leases.clone(), self.dhcp_events.clone()).await {
            Ok(server) => {
                tracing::info!(%network, %interface, "serving DHCP");
                served.dhcp = Some((scope, server));
            }
            Err(error) => served.problems.push(Problem::new(Subject::Network(network), error.to_string())),
        }
    }

    async fn serve_dns(&self, served: &mut Served, network: NetworkId, wanted: Option<DnsService>) {
        let Some(wanted) = wanted else {
            if let Some(old) = served.dns.take() {
                old.server.stop().await;
            }
            return;
        };
        let same = |old: &ServedDns| {
            old.interface == wanted.interface
                && old.addresses == wanted.addresses
                && old.domain == wanted.domain
                && old.blocks == wanted.blocks
        };
        if let Some(old) = served.dns.take_if(|old| !same(old)) {
            old.server.stop().await;
        }
        let mut complain = |text: String| served.problems.push(Problem::new(Subject::Network(network), text));
        if served.dns.is_none() {
            let zone =
                match Zone::new(network.0, wanted.domain.clone(), wanted.blocks.clone(), wanted.addresses.clone()) {
                    Ok(zone) => SharedZone::new(zone),
                    Err(error) => return complain(error.to_string()),
                };
            let listen = DnsListen {
                network: network.0,
                interface: wanted.interface.clone(),
                addresses: wanted.addresses.clone(),
                port: DnsListen::PORT,
            };
            match DnsServer::start(listen, zone.clone(), self.upstreams.clone()) {
                Ok(server) => {
                    tracing::info!(%network, interface = %wanted.interface, "serving DNS");
                    served.dns = Some(ServedDns {
                        interface: wanted.interface,
                        addresses: wanted.addresses,
                        domain: wanted.domain,
                        blocks: wanted.blocks,
                        zone,
                        server,
                    });
                }
                Err(error) => return complain(error.to_string()),
            }
        }
        if let Some(dns) = &served.dns {
            dns.zone.update(|zone| update_names(zone, wanted.names));
        }
    }
}

fn update_names(zone: &mut Zone, names: Vec<DnsEntry>) {
    let mut by_key: BTreeMap<(Uuid, NameSource), (DnsLabel, Vec<IpAddr>)> = BTreeMap::new();
    for entry in names {
        let slot = by_key.entry((entry.owner, entry.source)).or_insert_with(|| (entry.label, Vec::new()));
        slot.1.extend(entry.addresses);
    }
    let gateway = zone.network();
    zone.retain(|owner, source| owner == gateway || by_key.contains_key(&(owner, source)));
    for ((owner, source), (label, addresses)) in by_key {
        match zone.publish(owner, source, label, 0, addresses) {
            Ok(()) => {}
            // A guest that calls itself so gets no name, and its lease all the same.
            Err(error @ ZoneError::Trusted(_)) => tracing::info!(%error, "a name is not served"),
            Err(error) => tracing::warn!(%error, "a name is not served"),
        }
    }
}

impl<S: Store> Outlets for Services<S> {
    async fn serve(&mut self, services: Vec<NetworkServices>) -> Vec<Problem> {
        for mut service in services {
            let network = service.network;
            let mut served = self.networks.remove(&network).unwrap_or_default();
            served.problems.clear();
            self.serve_dhcp(&mut served, &mut service).await;
            self.serve_dns(&mut served, network, service.dns.take()).await;
            if served.dhcp.is_some() || served.dns.is_some() || !served.problems.is_empty() {
                self.networks.insert(network, served);
            }
        }
        self.networks.values().flat_map(|served| &served.problems).cloned().collect()
    }

    fn publish(&mut self, wanted: Vec<PublishedNetwork>, earlier: BTreeSet<Uuid>) {
        if let Some(libvirt) = &self.libvirt {
            libvirt.publish(wanted, earlier);
        }
    }

    fn refresh(&mut self) {
        if let Some(libvirt) = &self.libvirt {
            libvirt.refresh();
        }
    }

    fn refresh_domain(&mut self, domain: Uuid) {
        if let Some(libvirt) = &self.libvirt {
            libvirt.refresh_domain(domain);
        }
    }

    /// Written beside and renamed, so that a hook never reads half of it.
    fn write_index(&mut self, index: &HookIndex) -> std::io::Result<()> {
        let fresh = self.index_path.with_extension("new");
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(index)?)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.index_path)
    }
}
