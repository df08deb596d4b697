//! The servers and libvirt, driven by the loop.

use super::lease_names::LeaseNames;
use crate::{
    backend::{LeaseRecord, Store, Write},
    intent::NetworkId,
    libvirt::{LibvirtHandle, publish::PublishedNetwork},
    net::{DomainName, IfName, IpNet},
    planner::{Problem, Subject},
    protocol::{
        dhcpv4::{self, Scope},
        dhcpv6,
        dns::{Policy, Zone, hidden_key, hides, reverse_zones},
        lease::LeaseChange,
    },
    reconciler::{DnsService, HookIndex, Ipv6Service, NetworkServices, Outlets},
    server::{
        clock::LeaseClock,
        dhcpv4::{DhcpEvent, DhcpServer},
        dhcpv6::Ipv6Server,
        dns::{DnsListen, DnsScope, DnsServer, DnsShared, SharedZone},
        leases::{CommitError, LeaseStore},
        meters::{Meters, NetworkMeters},
        resolved::{LinkNames, MAX_DOMAINS, Resolved},
        thread::ServerThread,
    },
};
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt::Display,
    io::Write as _,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Leases in the daemon's store: on disk, and their names in DNS, when the commit returns. So a guest's name answers
/// before the guest has its ACK.
#[derive(Debug)]
pub struct StoredLeases<S> {
    store: Arc<S>,
    names: LeaseNames,
}

impl<S> StoredLeases<S> {
    pub fn new(store: Arc<S>) -> Self {
        Self { store, names: LeaseNames::default() }
    }
}

/// A lease of either family.
pub trait AtRest: Clone + Send + Sync + 'static {
    fn record(&self) -> LeaseRecord;
    /// `None` for one of the other family.
    fn of(record: &LeaseRecord) -> Option<Self>;
}

impl AtRest for dhcpv4::Lease {
    fn record(&self) -> LeaseRecord {
        self.into()
    }

    fn of(record: &LeaseRecord) -> Option<Self> {
        record.to_v4()
    }
}

impl AtRest for dhcpv6::Lease {
    fn record(&self) -> LeaseRecord {
        self.into()
    }

    fn of(record: &LeaseRecord) -> Option<Self> {
        record.to_v6()
    }
}

impl<S: Store, L: AtRest> LeaseStore<L> for StoredLeases<S> {
    async fn commit(&self, changes: Vec<LeaseChange<L>>) -> Vec<Result<(), CommitError>> {
        let records = changes.iter().map(|change| match change {
            LeaseChange::Put(lease) => LeaseChange::Put(lease.record()),
            LeaseChange::Remove(lease) => LeaseChange::Remove(lease.record()),
        });
        let changes: Vec<LeaseChange<LeaseRecord>> = records.collect();
        let write = |change: &LeaseChange<LeaseRecord>| match change {
            LeaseChange::Put(lease) => Write::PutLease(lease.clone()),
            LeaseChange::Remove(lease) => Write::DeleteLease { network: lease.network, address: lease.address },
        };
        if self.store.commit(changes.iter().map(write).collect()).await.is_ok() {
            changes.iter().for_each(|change| self.names.note(change));
            return changes.iter().map(|_| Ok(())).collect();
        }
        // One that cannot be stored, for want of space say, is not to take the others along.
        let alone = changes.iter().map(async |change| {
            self.store.commit(vec![write(change)]).await.map_err(CommitError::new)?;
            self.names.note(change);
            Ok(())
        });
        join_all(alone).await
    }

    async fn load(&self, network: Uuid) -> Result<Vec<L>, CommitError> {
        let records = self.store.leases(network).await.map_err(CommitError::new)?;
        Ok(records.iter().filter_map(L::of).collect())
    }
}

/// All that serves guests, and libvirt.
#[derive(Debug)]
pub struct Services<S> {
    pub leases: Arc<StoredLeases<S>>,
    pub dhcp_events: mpsc::Sender<DhcpEvent>,
    pub dns: Arc<DnsShared>,
    /// Where DHCP and advertisements are served from.
    pub dhcp: ServerThread,
    pub libvirt: Option<LibvirtHandle>,
    pub index_path: PathBuf,
    pub resolved: Option<Resolved>,
    pub meters: Arc<Meters>,
    networks: BTreeMap<NetworkId, Served>,
}

#[derive(Debug, Default)]
struct Served {
    dhcp: Option<(Scope, DhcpServer)>,
    ipv6: Option<(Ipv6Service, Ipv6Server)>,
    dns: Option<ServedDns>,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct ServedDns {
    interface: IfName,
    addresses: Vec<IpAddr>,
    domain: DomainName,
    blocks: Vec<IpNet>,
    shared_with: BTreeSet<NetworkId>,
    local: bool,
    policy: Policy,
    rate_limit: u32,
    zone: SharedZone,
    server: DnsServer,
}

/// A server, or why there is none.
fn started<T, E: Display>(server: std::io::Result<Result<T, E>>) -> Result<T, String> {
    server.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

impl<S: Store> Services<S> {
    pub fn new(
        store: Arc<S>,
        dhcp_events: mpsc::Sender<DhcpEvent>,
        dns: Arc<DnsShared>,
        dhcp: ServerThread,
        libvirt: Option<LibvirtHandle>,
        index_path: PathBuf,
        resolved: Option<Resolved>,
    ) -> Self {
        let leases = Arc::new(StoredLeases::new(store));
        Self {
            leases,
            dhcp_events,
            dns,
            dhcp,
            libvirt,
            index_path,
            resolved,
            meters: Arc::default(),
            networks: BTreeMap::new(),
        }
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

    /// Advertisements and DHCPv6.
    async fn serve_ipv6(&self, served: &mut Served, services: &mut NetworkServices) {
        match (served.ipv6.take(), services.ipv6.take()) {
            (Some((old, server)), Some(new)) if old.scope.interface == new.scope.interface => {
                if old == new {
                    served.ipv6 = Some((old, server));
                } else if server.update(new.scope.clone(), new.router.clone()).await.is_ok() {
                    served.ipv6 = Some((new, server));
                } else {
                    self.start_ipv6(served, new, services.lease_clock).await;
                }
            }
            (old, new) => {
                if let Some((_, server)) = old {
                    server.stop().await;
                }
                if let Some(new) = new {
                    self.start_ipv6(served, new, services.lease_clock).await;
                }
            }
        }
    }

    async fn start_ipv6(&self, served: &mut Served, service: Ipv6Service, clock: LeaseClock) {
        let Ipv6Service { scope, router } = service.clone();
        let (network, interface) = (NetworkId(scope.network), scope.interface.clone());
        let start = Ipv6Server::start(scope, router, clock, self.leases.clone(), self.dhcp_events.clone());
        match started(self.dhcp.run(start).await) {
            Ok(server) => {
                tracing::info!(%network, %interface, "serving IPv6");
                served.ipv6 = Some((service, server));
            }
            Err(error) => served.problems.push(Problem::new(Subject::Network(network), error)),
        }
    }

    async fn start_dhcp(&self, served: &mut Served, scope: Scope, clock: LeaseClock) {
        let (network, interface) = (NetworkId(scope.network), scope.interface.clone());
        let start = DhcpServer::start(scope.clone(), clock, self.leases.clone(), self.dhcp_events.clone());
        match started(self.dhcp.run(start).await) {
            Ok(server) => {
                tracing::info!(%network, %interface, "serving DHCP");
                served.dhcp = Some((scope, server));
            }
            Err(error) => served.problems.push(Problem::new(Subject::Network(network), error)),
        }
    }

    async fn serve_dns(&self, served: &mut Served, network: NetworkId, wanted: Option<DnsService>) {
        let Some(wanted) = wanted else {
            if let Some(old) = served.dns.take() {
                self.leases.names.remove(network);
                old.server.stop().await;
            }
            return;
        };
        let same_sockets = |old: &ServedDns| old.interface == wanted.interface && old.addresses == wanted.addresses;
        let old = match served.dns.take() {
            Some(old) if !same_sockets(&old) => {
                let ServedDns { zone, domain, blocks, server, .. } = old;
                server.stop().await;
                Err(Some((zone, domain, blocks)))
            }
            Some(old) => Ok(old),
            None => Err(None),
        };
        match self.dns_of(network, old, &wanted) {
            Ok(dns) => {
                // Leases of from now on are noted; those of before are in what is wanted.
                self.leases.names.add(network, dns.zone.clone());
                let left_out = dns.zone.update(|zone| {
                    self.leases.names.update(network, zone, wanted.names);
                    zone.set_local(wanted.local);
                    let left_out = zone.set_records(&wanted.records);
                    left_out.into_iter().map(ToString::to_string).collect::<Vec<_>>()
                });
                let text = |record| format!("the DNS record '{record}' is too long with the network's domain");
                let left_out = left_out.into_iter().map(|r| Problem::new(Subject::Network(network), text(r)));
                served.problems.extend(left_out);
                served.dns = Some(dns);
            }
            Err(error) => served.problems.push(Problem::new(Subject::Network(network), error.to_string())),
        }
    }

    /// A server that listens where it should, with a zone of the right name; what is in it is not cared for. `old`: what
    /// there is, with the server where its sockets are the right ones.
    fn dns_of(
        &self,
        network: NetworkId,
        old: Result<ServedDns, Option<(SharedZone, DomainName, Vec<IpNet>)>>,
        wanted: &DnsService,
    ) -> Result<ServedDns, String> {
        let fresh = || {
            let (domain, blocks) = (wanted.domain.clone(), wanted.blocks.clone());
            Zone::new(network.0, domain, blocks, wanted.addresses.clone()).map_err(|error| error.to_string())
        };
        let zone = match &old {
            Ok(ServedDns { zone, domain, blocks, .. }) | Err(Some((zone, domain, blocks))) => {
                if *domain != wanted.domain {
                    let fresh = fresh()?;
                    zone.update(|zone| *zone = fresh);
                } else if *blocks != wanted.blocks || old.is_err() {
                    let (blocks, addresses) = (wanted.blocks.clone(), wanted.addresses.clone());
                    zone.update(|zone| zone.set_subnets(blocks, addresses)).map_err(|error| error.to_string())?;
                }
                zone.clone()
            }
            Err(None) => SharedZone::new(fresh()?),
        };
        let server = match old {
            Ok(old) => old.server,
            Err(_) => {
                let listen = DnsListen {
                    network: network.0,
                    interface: wanted.interface.clone(),
                    addresses: wanted.addresses.clone(),
                    port: DnsListen::PORT,
                };
                let scope = DnsScope { policy: wanted.policy.clone(), ..DnsScope::default() };
                let server = DnsServer::start(listen, zone.clone(), scope, self.dns.clone());
                server.map_err(|error| error.to_string())?
            }
        };
        Ok(ServedDns {
            interface: wanted.interface.clone(),
            addresses: wanted.addresses.clone(),
            domain: wanted.domain.clone(),
            blocks: wanted.blocks.clone(),
            shared_with: wanted.shared_with.clone(),
            local: wanted.local,
            policy: wanted.policy.clone(),
            rate_limit: wanted.rate_limit,
            zone,
            server,
        })
    }

    /// Tells each server which other networks' names its guests may see, and which must not leave the host.
    fn connect_zones(&self) {
        let all = || self.networks.iter().filter_map(|(id, served)| Some((*id, served.dns.as_ref()?)));
        let hidden: HashSet<_> =
            all().filter(|(_, dns)| hides(&dns.domain)).filter_map(|(_, d)| hidden_key(&d.domain)).collect();
        let hidden = Arc::new(hidden);
        let mut visible: BTreeMap<NetworkId, Vec<SharedZone>> = BTreeMap::new();
        for (id, dns) in all() {
            for other in dns.shared_with.iter().filter(|other| **other != id) {
                visible.entry(*other).or_default().push(dns.zone.clone());
            }
        }
        for (id, dns) in all() {
            let policy = Policy { hidden: Arc::clone(&hidden), ..dns.policy.clone() };
            let visible = visible.remove(&id).unwrap_or_default();
            dns.server.set_scope(DnsScope { visible, policy, rate_limit: dns.rate_limit });
        }
    }
}

/// What this host is to ask a network's server for.
fn host_names(dns: &ServedDns) -> Option<(IfName, LinkNames)> {
    let link_local = |address: &&IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let servers: Vec<IpAddr> = dns.addresses.iter().filter(|address| !link_local(address)).copied().collect();
    // Where names that nobody here has are others', the host asks those others.
    let domain = dns.local.then(|| dns.domain.to_string());
    let mut domains: Vec<String> = domain.into_iter().chain(dns.blocks.iter().flat_map(reverse_zones)).collect();
    domains.truncate(MAX_DOMAINS);
    (!servers.is_empty()).then(|| (dns.interface.clone(), LinkNames { servers, domains }))
}

impl<S: Store> Outlets for Services<S> {
    async fn serve(&mut self, services: Vec<NetworkServices>) -> Vec<Problem> {
        for mut service in services {
            let network = service.network;
            let mut served = self.networks.remove(&network).unwrap_or_default();
            served.problems.clear();
            // First, so that no lease is without its name.
            self.serve_dns(&mut served, network, service.dns.take()).await;
            self.serve_dhcp(&mut served, &mut service).await;
            self.serve_ipv6(&mut served, &mut service).await;
            let dhcp = served.dhcp.as_ref().map(|(_, server)| server.meter());
            let dns = served.dns.as_ref().map(|dns| dns.server.meter());
            let ipv6 = served.ipv6.as_ref().map(|(_, server)| server.meter());
            self.meters.set(network.0, NetworkMeters { dhcp, ipv6, dns });
            if served.dhcp.is_some() || served.ipv6.is_some() || served.dns.is_some() || !served.problems.is_empty() {
                self.networks.insert(network, served);
            }
        }
        self.connect_zones();
        if let Some(resolved) = &self.resolved {
            resolved.set(self.networks.values().filter_map(|served| host_names(served.dns.as_ref()?)).collect());
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
