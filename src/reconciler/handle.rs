use super::{
    GroupCommand, ImportCommand, View,
    documents::{DocumentRequest, PreparedDocument},
};
use crate::{
    backend::{DriverError, StoreError},
    intent::{
        AddressGroupId, Change, DocumentError, Intent, IntentError, Network, NetworkDraft, NetworkId, Port, PortDraft,
        PortId, SecurityGroupId, Subnet, SubnetDraft, SubnetId,
    },
    net::{DnsRecord, RecordName},
};
use serde_json::{Map, Value};
use std::sync::{Arc, RwLock, RwLockReadGuard};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Where a command's result goes.
pub type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// What clients ask of the loop. Names are resolved and drafts completed in the loop, against what is there then.
#[derive(Debug)]
pub enum Command {
    CreateNetwork(NetworkDraft, Reply<Network>),
    UpdateNetwork(NetworkId, Map<String, Value>, Reply<Network>),
    AddRecord(NetworkId, DnsRecord, Reply<()>),
    /// Of a network: all of a name, or those of a type, or with that data too. How many they were.
    RemoveRecords(NetworkId, RecordFilter, Reply<u32>),
    DeleteNetwork(NetworkId, Reply<()>),
    CreateSubnet(SubnetDraft, Reply<Subnet>),
    UpdateSubnet(SubnetId, Map<String, Value>, Reply<Subnet>),
    DeleteSubnet(SubnetId, Reply<()>),
    CreatePort(PortDraft, Reply<Port>),
    UpdatePort(PortId, Map<String, Value>, Reply<Port>),
    DeletePort(PortId, Reply<()>),
    Group(GroupCommand),
    Import(ImportCommand),
    /// What a full pass would change now, as text, one line a change.
    Plan(Reply<Vec<String>>),
    /// All changes of a document, in one commit.
    Apply(Box<DocumentRequest>, Reply<PreparedDocument>),
    /// What a full pass would change if the intent were this one, which these changes make.
    PlanWith(Box<Intent>, Vec<Change>, Reply<Vec<String>>),
    /// Answered by a loop that is alive.
    Ping(Reply<()>),
    /// Ends the loop; what runs stays as it is.
    Stop(Reply<()>),
}

/// Which records are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFilter {
    pub name: RecordName,
    /// As [`RecordData::type_name`](crate::net::RecordData::type_name) gives it.
    pub type_name: Option<String>,
    /// As it is written.
    pub data: Option<String>,
}

impl RecordFilter {
    pub fn matches(&self, record: &DnsRecord) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w.eq_ignore_ascii_case(is));
        record.name == self.name
            && same(&self.type_name, record.data.type_name())
            && same(&self.data, &record.data.to_string())
    }
}

/// Why a command was refused. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Intent(#[from] IntentError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("{what} is in use by {by}; {remedy}")]
    InUse { what: String, by: String, remedy: String },
    #[error("{0}")]
    Import(String),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(
        "what is there has changed since this plan was made, so that it would do something else now; make a new one"
    )]
    PlanChanged,
    #[error("vmfabricd is busy with more requests than it queues; try again")]
    Busy,
    #[error("vmfabricd is stopping")]
    Stopping,
}

/// What has changed, for those who watch. A receiver that lags reads the whole [`View`] again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    NetworkAdded(NetworkId),
    NetworkChanged(NetworkId),
    NetworkRemoved(NetworkId),
    SubnetAdded(SubnetId),
    SubnetChanged(SubnetId),
    SubnetRemoved(SubnetId),
    PortAdded(PortId),
    PortChanged(PortId),
    PortRemoved(PortId),
    SecurityGroupAdded(SecurityGroupId),
    SecurityGroupChanged(SecurityGroupId),
    SecurityGroupRemoved(SecurityGroupId),
    AddressGroupAdded(AddressGroupId),
    AddressGroupChanged(AddressGroupId),
    AddressGroupRemoved(AddressGroupId),
    LeasesChanged(NetworkId),
    /// libvirt has taken, or let go, networks of ours.
    LibvirtNetworksChanged,
    /// Health, problems, libvirt's state.
    StatusChanged,
}

impl Notice {
    pub(super) fn is_of_a_network(&self) -> bool {
        matches!(self, Self::NetworkAdded(_) | Self::NetworkChanged(_) | Self::NetworkRemoved(_))
    }
}

/// The way to the loop, for any number of holders.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    view: Arc<RwLock<View>>,
    notices: broadcast::Sender<Notice>,
    libvirt_uri: Arc<str>,
    importing: Arc<tokio::sync::Mutex<()>>,
}

impl Handle {
    pub fn new(commands: mpsc::Sender<Command>, view: Arc<RwLock<View>>, notices: broadcast::Sender<Notice>) -> Self {
        Self { commands, view, notices, libvirt_uri: "".into(), importing: Arc::default() }
    }

    /// Where libvirt is, for those who take over its networks.
    pub fn with_libvirt(self, uri: &str) -> Self {
        Self { libvirt_uri: uri.into(), ..self }
    }

    pub(super) fn libvirt_uri(&self) -> Arc<str> {
        Arc::clone(&self.libvirt_uri)
    }

    /// One take-over at a time.
    pub(super) async fn import_turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.importing).lock_owned().await
    }

    /// The state as of now. Hold it briefly and never across an await.
    pub fn view(&self) -> RwLockReadGuard<'_, View> {
        // A poisoned lock means that a writer panicked between two assignments; the data is still whole values.
        self.view.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn watch(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Sends a command and waits for its result: `handle.call(|reply| Command::Plan(reply)).await`.
    pub async fn call<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, CommandError> {
        let (reply, result) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CommandError::Busy,
            mpsc::error::TrySendError::Closed(_) => CommandError::Stopping,
        })?;
        result.await.map_err(|_| CommandError::Stopping)?
    }
}
