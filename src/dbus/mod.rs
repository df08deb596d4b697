//! `org.vmfabric1` on the system bus: a Manager, and an object for each network, subnet, port, security group and
//! address group.
//!
//! Everybody who may talk to the name may read; what changes something asks polkit first. `dbus/*.xml` documents the
//! interfaces, and a test holds them to what is exported.

mod access;
mod address_group;
mod document;
mod error;
mod export;
mod info;
mod insight;
mod managed;
mod manager;
mod network;
mod path;
mod port;
pub mod proxy;
mod security_group;
mod subnet;
#[cfg(test)]
pub(crate) mod tests;
mod turns;
mod value;

pub use access::Access;
pub use error::Error;
pub use info::{AddressGroupInfo, ManagerInfo, NetworkInfo, PortInfo, RuleInfo, SecurityGroupInfo, SubnetInfo};
pub use path::{Kind, ROOT, parse as parse_path};
pub use value::{Dictionary, to_json};

use crate::{
    backend::{Counters, LinkCounters},
    intent::PortId,
    reconciler::{Handle, Notice},
};
use access::Action;
use export::{Dirty, Exporter, Shared};
use futures_util::StreamExt;
use std::{sync::Arc, time::Duration};
use tokio::{sync::broadcast, task::JoinSet, time::timeout};
use turns::{Turn, Turns};
use zbus::{
    Connection, connection, fdo,
    fdo::{RequestNameFlags, RequestNameReply},
    message::Header,
};

pub const BUS_NAME: &str = "org.vmfabric1";

/// The daemon's log, as its level is seen and set at run time.
pub trait LogControl: Send + Sync + 'static {
    fn level(&self) -> String;

    /// Takes `error`, `warn`, `info`, `debug`, `trace`, or whatever finer directives the daemon understands. The
    /// error tells a person what would be right.
    fn set_level(&self, level: &str) -> Result<(), String>;
}

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum DbusError {
    #[error("the name {BUS_NAME} is taken on the bus; is another vmfabricd running (systemctl status vmfabricd)?")]
    NameTaken,
    #[error(
        "the bus does not let this process have the name {BUS_NAME}: {0}. Run as root, with org.vmfabric1.conf in \
         /usr/share/dbus-1/system.d"
    )]
    NameRefused(String),
    #[error("the bus was silent for too long while {0}")]
    Silent(&'static str),
    #[error("D-Bus: {0}")]
    Bus(#[from] zbus::Error),
}

/// How long the bus may take for one step of the way to being served on it. A host has thousands of objects at most, and
/// they take some 0.2 ms each.
const PATIENCE: Duration = Duration::from_secs(20);

async fn in_time<T, E>(step: &'static str, work: impl Future<Output = Result<T, E>>) -> Result<T, DbusError>
where
    DbusError: From<E>,
{
    Ok(timeout(PATIENCE, work).await.map_err(|_| DbusError::Silent(step))??)
}

/// What every object needs.
struct Context {
    handle: Handle,
    exporter: Exporter,
    access: Access,
    log: Box<dyn LogControl>,
    counters: Arc<dyn Counters>,
    /// One asks the kernel at a time; who waits shares the answer.
    counting: tokio::sync::Semaphore,
    /// A plan costs the loop a full pass.
    plans: Turns,
    /// A list of all objects is megabytes.
    lists: Turns,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Context {
    /// The gate of every mutation: small enough, and by somebody who may.
    async fn authorize(&self, bus: &Connection, header: &Header<'_>, action: Action) -> Result<(), Error> {
        value::check_size(header, action.max_body())?;
        self.access.check(bus, header, action).await
    }

    async fn sync(self: &Arc<Self>, bus: &Connection, dirty: Dirty) -> Result<(), Error> {
        Ok(self.exporter.sync(self, bus, dirty).await?)
    }

    /// What a port carried and lost; `None` where no guest runs with it.
    async fn counters(&self, port: PortId) -> Result<Option<LinkCounters>, Error> {
        let (tap, senders) = {
            let view = self.handle.view();
            let Some((attachment, port)) = view.attachments.get(&port).zip(view.intent.port(port)) else {
                return Ok(None);
            };
            (attachment.tap.clone(), view.senders_of(port))
        };
        let _turn = self.counting.acquire().await.map_err(|_| Error::Failed("vmfabricd is stopping".into()))?;
        let counters = Arc::clone(&self.counters);
        let read = tokio::task::spawn_blocking(move || counters.read()).await;
        let all = read.map_err(|_| Error::Failed("vmfabricd is stopping".into()))?;
        let all = all.map_err(|error| Error::Failed(format!("the kernel cannot be asked: {error}")))?;
        Ok(Some(all.of(&tap, &senders).unwrap_or_default()))
    }

    /// A turn of the caller's.
    async fn turn(&self, turns: &Turns, bus: &Connection, header: &Header<'_>) -> Result<Turn, Error> {
        turns.take(self.access.uid_of_caller(bus, header).await?).await
    }
}

/// The running service. It ends when dropped.
#[derive(Debug)]
pub struct Service {
    bus: Connection,
    lost: fdo::NameLostStream,
    /// Ends with it.
    _follower: JoinSet<()>,
}

impl Service {
    /// Waits until the connection or the name is lost (the bus was restarted, say). Then drop this, connect again and
    /// [`serve`] again.
    pub async fn lost(&mut self) {
        while let Some(signal) = self.lost.next().await {
            if signal.args().is_ok_and(|args| args.name == BUS_NAME) {
                return;
            }
        }
    }

    /// Gives the name back: callers see at once that nobody serves any more.
    pub async fn stop(self) {
        // The connection may be gone already; either way the name is free.
        let _ = self.bus.release_name(BUS_NAME).await;
    }
}

/// Connects, exports everything that is there, follows what comes, and takes the name last, so that whoever sees the
/// name sees all of it.
pub async fn serve(
    bus: connection::Builder<'_>,
    handle: Handle,
    log: impl LogControl,
    counters: Arc<dyn Counters>,
) -> Result<Service, DbusError> {
    serve_to(bus, handle, log, Access::default(), counters).await
}

async fn serve_to(
    bus: connection::Builder<'_>,
    handle: Handle,
    log: impl LogControl,
    access: Access,
    counters: Arc<dyn Counters>,
) -> Result<Service, DbusError> {
    // Subscribed before the view is read: nothing falls between.
    let notices = handle.watch();
    let manager = Shared::new(ManagerInfo::of(&handle.view()));
    let context = Arc::new(Context {
        handle,
        exporter: Exporter::new(manager.clone()),
        access,
        log: Box::new(log),
        counters,
        counting: tokio::sync::Semaphore::new(1),
        plans: Turns::new(4, 16),
        lists: Turns::new(8, 128),
    });
    // The builder waits until calls are taken. On a connection that is there already, an object server starts some time
    // after it is first asked for, and a call that comes before that is never answered (z-galaxy/zbus#1109).
    let bus = bus
        .serve_at(ROOT, manager::Manager::new(Arc::clone(&context), manager))
        .serve_at(ROOT, managed::ObjectManager(Arc::clone(&context)));
    let bus = in_time("connecting", bus.build()).await?;
    in_time("making the objects", context.exporter.sync_all(&context, &bus)).await?;
    let mut follower = JoinSet::new();
    follower.spawn(follow(Arc::clone(&context), bus.clone(), notices));
    let lost = async { fdo::DBusProxy::new(&bus).await?.receive_name_lost().await };
    let lost = in_time("watching the name", lost).await?;
    let name = bus.request_name_with_flags(BUS_NAME, RequestNameFlags::DO_NOT_QUEUE);
    let name = timeout(PATIENCE, name).await.map_err(|_| DbusError::Silent("taking the name"))?;
    let service = Service { bus, lost, _follower: follower };
    match name {
        Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => Ok(service),
        Ok(RequestNameReply::Exists | RequestNameReply::InQueue) | Err(zbus::Error::NameTaken) => {
            Err(DbusError::NameTaken)
        }
        Err(zbus::Error::FDO(error)) if matches!(*error, fdo::Error::AccessDenied(_)) => {
            Err(DbusError::NameRefused(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

async fn follow(context: Arc<Context>, bus: Connection, notices: broadcast::Receiver<Notice>) {
    if let Err(error) = context.exporter.follow(&context, &bus, notices).await {
        tracing::warn!(%error, "the connection to the bus is lost; D-Bus clients see no changes until it is back");
    }
}
