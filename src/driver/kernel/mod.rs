//! The Linux kernel of one network namespace: rtnetlink, nftables and `/proc/sys`.
//!
//! All of it runs on one thread of its own, for its calls block, libnftables is bound to a thread, and a thread keeps
//! the network namespace that it was made in.

mod apply;
mod changer;
mod conntrack;
mod counters;
mod decode;
mod encode;
mod iptables;
mod namespace;
mod netlink;
mod nft;
mod observe;
mod tc;
mod watch;
mod watch_tables;

pub use counters::KernelCounters;
pub use watch::{CAPACITY, watch, watch_into};

use crate::{
    backend::{ApplyError, Driver, DriverError},
    datapath::{Capabilities, Change, Connection, Datapath, Family, Observed, Table, Way},
    net::IfName,
};
use netlink::Netlink;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nft::Nft;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::{mpsc, oneshot};

/// The name of the driver's thread, by which its own changes are told from others'; the kernel keeps 15 bytes.
const THREAD: &str = "vmfabric-kernel";

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// The kernel of the network namespace that it was made in.
#[derive(Debug)]
pub struct KernelDriver {
    jobs: mpsc::Sender<Job>,
    capabilities: Capabilities,
}

/// What lives on the driver's thread.
#[derive(Debug)]
struct Worker {
    netlink: Netlink,
    nft: Nft,
    /// Opened when connections are first asked for.
    conntrack: Option<Netlink>,
    capabilities: Capabilities,
}

impl KernelDriver {
    /// Opens the kernel of the calling thread's network namespace, and tries in a throwaway one what it can do. Blocks
    /// for tens of milliseconds; wants `CAP_NET_ADMIN` and, for the throwaway namespace, `CAP_SYS_ADMIN`.
    pub fn new() -> Result<Self, DriverError> {
        let (jobs, mut queue) = mpsc::channel::<Job>(1);
        let (opened, ready) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name(THREAD.into())
            .spawn(move || {
                let mut worker = match Worker::open() {
                    Ok(worker) => worker,
                    Err(error) => return drop(opened.send(Err(error))),
                };
                if opened.send(Ok(worker.capabilities)).is_err() {
                    return;
                }
                while let Some(job) = queue.blocking_recv() {
                    job(&mut worker);
                }
            })
            .map_err(|source| DriverError::Io { path: "a thread for the kernel driver".into(), source })?;
        let capabilities = ready.recv().map_err(|_| gone())??;
        Ok(Self { jobs, capabilities })
    }

    /// What this kernel can do, tried once.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Runs `work` on the driver's thread. Dropping the future does not stop work that has begun.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Result<T, DriverError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |worker| drop(reply.send(work(worker))));
        self.jobs.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

impl Driver for KernelDriver {
    async fn observe(&mut self) -> Result<Observed, DriverError> {
        self.run(Worker::observe).await?
    }

    async fn observe_links(&mut self, links: &BTreeSet<IfName>) -> Result<Datapath, DriverError> {
        let links = links.clone();
        self.run(move |worker| worker.observe_links(&links)).await?
    }

    async fn listed(&mut self, tables: &BTreeMap<Family, Table>) -> Result<BTreeMap<Family, Table>, DriverError> {
        let tables: Vec<_> = tables.iter().map(|(family, table)| (*family, table.clone())).collect();
        let told = self.run(|_| namespace::in_throwaway(|| nft::listed(tables))).await??;
        Ok(told.into_iter().collect())
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<(), ApplyError> {
        let Some(first) = changes.first().map(ToString::to_string) else { return Ok(()) };
        let changes = changes.to_vec();
        let applied = self.run(move |worker| worker.apply(&changes)).await;
        applied.map_err(|source| ApplyError { done: 0, change: first, source })?
    }

    async fn connections(&mut self, zones: &BTreeSet<u16>) -> Result<Vec<Connection>, DriverError> {
        let zones = zones.clone();
        self.run(move |worker| conntrack::list(worker.conntrack()?, &zones)).await?
    }

    async fn delete_connections(&mut self, connections: &[Connection]) -> Result<usize, DriverError> {
        let connections = connections.to_vec();
        self.run(move |worker| conntrack::delete(worker.conntrack()?, &connections)).await?
    }
}

impl Worker {
    fn open() -> Result<Self, DriverError> {
        let capabilities = namespace::in_throwaway(|| {
            Ok(Capabilities {
                bridge_vlan_filtering: observe::has_bridge_vlan_filtering(&mut Netlink::open()?)?,
                shaping: tc::tried(&mut Netlink::open()?, Way::Out),
                policing: tc::tried(&mut Netlink::open()?, Way::In),
                nft_bridge_meta: nft::takes("meta ibrname \"probe\" drop")?,
                bridge_conntrack: nft::takes("ct state established accept")?,
                nft_log: nft::takes("log prefix \"probe\"")?,
                nft_owner: nft::knows_holds()?,
            })
        })?;
        Ok(Self { netlink: Netlink::open()?, nft: Nft::open(capabilities.nft_owner)?, conntrack: None, capabilities })
    }

    fn conntrack(&mut self) -> Result<&mut Netlink, DriverError> {
        match &mut self.conntrack {
            Some(netlink) => Ok(netlink),
            closed => Ok(closed.insert(Netlink::of(NETLINK_NETFILTER)?)),
        }
    }
}

fn gone() -> DriverError {
    DriverError::Netlink("the driver's thread has ended; restart vmfabricd".into())
}
