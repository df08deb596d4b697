//! The seams between the pure core and the world: what a host's kernel and a store must be able to do.

use crate::{
    datapath::{Change, Connection, Datapath, Family, Observed, Table},
    intent,
    net::{DnsLabel, IfName, Ipv6Net, MacAddr},
    protocol::{
        dhcpv4::{ClientKey, Lease},
        dhcpv6,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::IpAddr,
    sync::Arc,
};
use uuid::Uuid;

/// A host's kernel: what it has, and the doing of changes.
pub trait Driver: Send + 'static {
    /// All that plans rest on.
    fn observe(&mut self) -> impl Future<Output = Result<Observed, DriverError>> + Send;

    /// Just these links and the VLANs that they belong to; a link that does not exist is absent.
    fn observe_links(&mut self, links: &BTreeSet<IfName>)
    -> impl Future<Output = Result<Datapath, DriverError>> + Send;

    /// The tables as they are listed once they are loaded, without elements: tried where no guest is.
    fn listed(
        &mut self,
        tables: &BTreeMap<Family, Table>,
    ) -> impl Future<Output = Result<BTreeMap<Family, Table>, DriverError>> + Send;

    /// Does the changes in order and stops at the first that fails. Neighbouring nftables changes are one transaction.
    fn apply(&mut self, changes: &[Change]) -> impl Future<Output = Result<(), ApplyError>> + Send;

    /// The connections that the kernel tracks in these zones.
    fn connections(
        &mut self,
        zones: &BTreeSet<u16>,
    ) -> impl Future<Output = Result<Vec<Connection>, DriverError>> + Send;

    /// Makes the kernel forget connections, so that what belongs to them has to be allowed anew; gives how many were
    /// still there.
    fn delete_connections(
        &mut self,
        connections: &[Connection],
    ) -> impl Future<Output = Result<usize, DriverError>> + Send;
}

/// What a host's links have carried and lost, for whoever asks: beside the [`Driver`], so that nobody waits for it.
pub trait Counters: std::fmt::Debug + Send + Sync + 'static {
    /// As of now or of a moment ago. Blocks for as long as the kernel takes.
    fn read(&self) -> Result<Arc<Counted>, DriverError>;
}

/// A link that packets came in by, and their source.
pub type Sender = (IfName, IpAddr);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counted {
    pub links: BTreeMap<IfName, LinkCounters>,
    /// What the host itself did not take or route of what guests sent, by reason.
    pub senders: BTreeMap<Sender, BTreeMap<&'static str, Count>>,
}

impl Counted {
    /// Of a tap whose guest is these senders to the host.
    pub fn of(&self, tap: &IfName, senders: &[Sender]) -> Option<LinkCounters> {
        let mut link = self.links.get(tap)?.clone();
        for (reason, count) in senders.iter().filter_map(|sender| self.senders.get(sender)).flatten() {
            let sum = link.drops.entry(reason).or_default();
            *sum = Count { packets: sum.packets + count.packets, bytes: sum.bytes + count.bytes };
        }
        Some(link)
    }
}

/// Packets and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

/// Since the link, or what counts, was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkCounters {
    /// Of a tap: what its guest sent.
    pub came_in: Count,
    /// Of a tap: what its guest was sent.
    pub went_out: Count,
    /// Packets that the link itself could not take in, or give out (a guest that does not read).
    pub lost_in: u64,
    pub lost_out: u64,
    /// What filters and rates dropped, by reason. Those of rates count packets alone.
    pub drops: BTreeMap<&'static str, Count>,
}

#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("netlink: {0}")]
    Netlink(String),
    #[error("nftables: {0}")]
    Nftables(String),
    #[error("firewalld: {0}")]
    Firewalld(String),
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("vmfabricd lacks the right to change this host's network; run it as root, or give it CAP_NET_ADMIN")]
    NotPermitted,
    #[error("{0}")]
    Mismatch(#[from] crate::datapath::Mismatch),
}

/// A change that failed; those before it are done.
#[derive(Debug, thiserror::Error)]
#[error("{change}: {source}")]
pub struct ApplyError {
    /// How many of the changes were done.
    pub done: usize,
    /// The text of the one that failed.
    pub change: String,
    pub source: DriverError,
}

/// What the kernel tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// A link appeared or changed; as it is now.
    Link {
        name: IfName,
        link: crate::datapath::Link,
        mac: Option<[u8; 6]>,
    },
    Gone {
        name: IfName,
    },
    /// An address or route changed.
    Layer3,
    /// What bounds a link's traffic was taken away or replaced.
    Limits,
    /// Somebody else changed our nftables tables.
    Tables,
    /// Somebody else deleted one of them.
    TablesGone,
    /// Somebody changed other packet filters.
    Neighbours,
    /// Messages were lost, or are too many to tell one by one: observe everything.
    Overrun,
}

/// Durable memory: intent, leases, and what must survive a restart to undo what we did.
pub trait Store: Send + Sync + 'static {
    fn load(&self) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// The leases of one network, those that ran out too.
    fn leases(&self, network: Uuid) -> impl Future<Output = Result<Vec<LeaseRecord>, StoreError>> + Send;

    /// Commits all of the writes or none of them; on disk when it returns. Calls that overlap share one commit.
    fn commit(&self, writes: Vec<Write>) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// All that a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    pub networks: Vec<intent::Network>,
    pub subnets: Vec<intent::Subnet>,
    pub ports: Vec<intent::Port>,
    pub security_groups: Vec<intent::SecurityGroup>,
    pub address_groups: Vec<intent::AddressGroup>,
    pub leases: Vec<LeaseRecord>,
    /// Networks that libvirt was given by us.
    pub published: Vec<Uuid>,
    /// Small facts by key: `default-network-made`, `sysctl:net/ipv4/conf/eth0/forwarding`.
    pub memos: Vec<(String, String)>,
}

impl Loaded {
    /// The intent, as the changes that make it; in the order in which they can be made.
    pub fn take_intent(&mut self) -> Vec<intent::Change> {
        use intent::Change;
        let mut changes = Vec::new();
        changes.extend(std::mem::take(&mut self.address_groups).into_iter().map(Change::PutAddressGroup));
        changes.extend(std::mem::take(&mut self.security_groups).into_iter().map(Change::PutSecurityGroup));
        changes.extend(std::mem::take(&mut self.networks).into_iter().map(Change::PutNetwork));
        changes.extend(std::mem::take(&mut self.subnets).into_iter().map(Change::PutSubnet));
        changes.extend(std::mem::take(&mut self.ports).into_iter().map(Change::PutPort));
        changes
    }
}

/// A DHCP lease, or delegated prefix, at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    pub network: Uuid,
    pub address: IpAddr,
    /// IPv4: the client identifier (RFC 2132 section 9.14), or the hardware type and address where it sent none.
    /// IPv6: the DUID.
    pub client: Vec<u8>,
    /// IPv6: which of the client's identity associations it is.
    pub iaid: Option<u32>,
    /// IPv6: the length of a delegated prefix; `None`: it is an address.
    pub prefix_length: Option<u8>,
    pub mac: MacAddr,
    pub host_name: Option<String>,
    pub port: Option<Uuid>,
    /// Seconds since 1970.
    pub expires: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Intent(intent::Change),
    PutLease(LeaseRecord),
    DeleteLease { network: Uuid, address: IpAddr },
    PutPublished(Uuid),
    DeletePublished(Uuid),
    PutMemo { key: String, value: String },
    DeleteMemo { key: String },
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("{path} is in use by another process; only one vmfabricd can run on a host (systemctl status vmfabricd)")]
    Locked { path: String },
    #[error("the disk that holds {path} is full; free some space: nothing was changed")]
    Full { path: String },
    #[error(
        "{path} is damaged ({detail}); restore it from a backup, or move it away and start vmfabricd anew: running guests keep their networks"
    )]
    Damaged { path: String, detail: String },
    #[error(
        "{path} was written by a newer vmfabricd (schema {found}, this one knows {known}); install that version again"
    )]
    TooNew { path: String, found: u32, known: u32 },
    #[error("{path}: {detail}")]
    Io { path: String, detail: String },
    #[error("the store is closed")]
    Closed,
}

impl From<&Lease> for LeaseRecord {
    fn from(lease: &Lease) -> Self {
        Self {
            network: lease.network,
            address: lease.address.into(),
            client: lease.client.as_bytes().to_vec(),
            iaid: None,
            prefix_length: None,
            mac: lease.mac,
            host_name: lease.host_name.as_ref().map(ToString::to_string),
            port: lease.port,
            expires: lease.expires,
        }
    }
}

impl From<&dhcpv6::Lease> for LeaseRecord {
    fn from(lease: &dhcpv6::Lease) -> Self {
        Self {
            network: lease.network,
            address: lease.address().into(),
            client: lease.duid.to_vec(),
            iaid: Some(lease.iaid),
            prefix_length: lease.is_delegated().then(|| lease.prefix.prefix_len()),
            mac: lease.mac,
            host_name: lease.host_name.as_ref().map(ToString::to_string),
            port: lease.port,
            expires: lease.expires,
        }
    }
}

impl LeaseRecord {
    /// `None` for one that is not DHCPv6's.
    pub fn to_v6(&self) -> Option<dhcpv6::Lease> {
        let IpAddr::V6(address) = self.address else { return None };
        Some(dhcpv6::Lease {
            network: self.network,
            prefix: Ipv6Net::new(address, self.prefix_length.unwrap_or(128)).ok()?,
            duid: self.client.as_slice().into(),
            iaid: self.iaid?,
            mac: self.mac,
            host_name: self.host_name.as_deref().and_then(|name| DnsLabel::new(name).ok()),
            port: self.port,
            expires: self.expires,
        })
    }

    /// `None` for one that is not DHCPv4's, or that no DHCPv4 client can have had.
    pub fn to_v4(&self) -> Option<Lease> {
        let IpAddr::V4(address) = self.address else { return None };
        Some(Lease {
            network: self.network,
            address,
            client: ClientKey::new(&self.client)?,
            mac: self.mac,
            host_name: self.host_name.as_deref().and_then(|name| DnsLabel::new(name).ok()),
            port: self.port,
            expires: self.expires,
        })
    }
}
