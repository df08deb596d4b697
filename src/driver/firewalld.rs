//! firewalld, over its D-Bus interface (firewalld.dbus(5)): our links in a zone of ours, at run time only.
//!
//! It answers in its own time, and not at all while it reloads: a task of its own asks it, and what it told last is at
//! hand at any moment.

use crate::{
    backend::{DriverError, LinkEvent},
    datapath::{Admission, ZONE},
    net::IfName,
};
use futures_util::StreamExt as _;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};
use zbus::{Connection, fdo::DBusProxy, names::BusName, proxy};

const NAME: &str = "org.fedoraproject.FirewallD1";
/// How long a change may take, the others of its kind included: guests that start wait behind it.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long firewalld may take for one answer; it starts and reloads in seconds.
const ANSWER: Duration = Duration::from_secs(30);
const RECONNECT: Duration = Duration::from_secs(5);
/// More links than one host has.
const CALLS: usize = 16;

#[proxy(
    interface = "org.fedoraproject.FirewallD1",
    default_service = "org.fedoraproject.FirewallD1",
    default_path = "/org/fedoraproject/FirewallD1"
)]
trait Firewall {
    #[zbus(signal)]
    fn reloaded(&self) -> zbus::Result<()>;
}

#[proxy(
    interface = "org.fedoraproject.FirewallD1.zone",
    default_service = "org.fedoraproject.FirewallD1",
    default_path = "/org/fedoraproject/FirewallD1"
)]
trait Zone {
    #[zbus(name = "getZones")]
    fn get_zones(&self) -> zbus::Result<Vec<String>>;
    #[zbus(name = "getActiveZones")]
    fn get_active_zones(&self) -> zbus::Result<HashMap<String, HashMap<String, Vec<String>>>>;
    #[zbus(name = "addInterface")]
    fn add_interface(&self, zone: &str, interface: &str) -> zbus::Result<String>;
    #[zbus(name = "removeInterface")]
    fn remove_interface(&self, zone: &str, interface: &str) -> zbus::Result<String>;
    #[zbus(signal)]
    fn interface_added(&self, zone: String, interface: String) -> zbus::Result<()>;
    #[zbus(signal)]
    fn interface_removed(&self, zone: String, interface: String) -> zbus::Result<()>;
    #[zbus(signal)]
    fn zone_of_interface_changed(&self, zone: String, interface: String) -> zbus::Result<()>;
}

/// What firewalld has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Whether it knows our zone.
    pub has_zone: bool,
    /// The zone of each link that is in one.
    pub zones: BTreeMap<IfName, String>,
}

#[derive(Debug)]
struct Call {
    links: BTreeSet<IfName>,
    admit: bool,
    reply: oneshot::Sender<Result<(), String>>,
}

/// A firewalld, where one runs.
#[derive(Debug)]
pub struct Firewalld {
    /// `None` until that is known; within, `None` where none runs.
    state: watch::Receiver<Option<Option<State>>>,
    calls: mpsc::Sender<Call>,
}

impl Firewalld {
    /// Follows the firewalld on the system's bus, until the value is dropped. Each change of what it has is told as
    /// [`LinkEvent::Neighbours`]. To be called within a tokio runtime.
    pub fn watch(events: Option<mpsc::Sender<LinkEvent>>) -> Self {
        let (told, state) = watch::channel(None);
        let (calls, inbox) = mpsc::channel(CALLS);
        tokio::spawn(Follower { told, calls: inbox, events }.run());
        Self { state, calls }
    }

    /// Waits until it is known whether there is one, or for too long.
    pub async fn known(&mut self) {
        let _ = tokio::time::timeout(PATIENCE, self.state.wait_for(Option::is_some)).await;
    }

    pub(super) fn state(&self) -> Option<State> {
        self.state.borrow().clone().flatten()
    }

    pub(super) async fn change(&self, admissions: &BTreeSet<Admission>, admit: bool) -> Result<(), DriverError> {
        let link = |admission: &Admission| match admission {
            Admission::Zone(link) => Some(link.clone()),
            _ => None,
        };
        let (reply, answer) = oneshot::channel();
        let call = Call { links: admissions.iter().filter_map(link).collect(), admit, reply };
        let slow = || DriverError::Firewalld("it does not answer; it may be about to reload".into());
        self.calls.try_send(call).map_err(|_| slow())?;
        let answer = tokio::time::timeout(PATIENCE, answer).await.map_err(|_| slow())?;
        answer.map_err(|_| slow())?.map_err(DriverError::Firewalld)
    }
}

struct Follower {
    told: watch::Sender<Option<Option<State>>>,
    calls: mpsc::Receiver<Call>,
    events: Option<mpsc::Sender<LinkEvent>>,
}

impl Follower {
    async fn run(mut self) {
        loop {
            match self.follow().await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "firewalld cannot be asked"),
            }
            self.tell(None).await;
            tokio::select! {
                () = self.told.closed() => return,
                () = tokio::time::sleep(RECONNECT) => {}
            }
        }
    }

    /// Until nobody wants to know any more, or the bus is lost.
    async fn follow(&mut self) -> zbus::Result<()> {
        let bus = zbus::connection::Builder::system().method_timeout(ANSWER).build().await?;
        let names = DBusProxy::new(&bus).await?;
        let mut owners = names.receive_name_owner_changed_with_args(&[(0, NAME)]).await?;
        let (firewall, zone) = (FirewallProxy::new(&bus).await?, ZoneProxy::new(&bus).await?);
        let mut reloads = firewall.receive_reloaded().await?;
        let mut added = zone.receive_interface_added().await?;
        let mut removed = zone.receive_interface_removed().await?;
        let mut moved = zone.receive_zone_of_interface_changed().await?;
        let lost = || zbus::Error::InputOutput(std::sync::Arc::new(std::io::ErrorKind::NotConnected.into()));
        loop {
            let state = self.ask(&bus, &names, &zone).await;
            self.tell(state).await;
            tokio::select! {
                () = self.told.closed() => return Ok(()),
                call = self.calls.recv() => match call {
                    Some(call) => change(&zone, call).await,
                    None => return Ok(()),
                },
                signal = owners.next() => drop(signal.ok_or_else(lost)?),
                signal = reloads.next() => drop(signal.ok_or_else(lost)?),
                signal = added.next() => drop(signal.ok_or_else(lost)?),
                signal = removed.next() => drop(signal.ok_or_else(lost)?),
                signal = moved.next() => drop(signal.ok_or_else(lost)?),
            }
        }
    }

    async fn ask(&self, bus: &Connection, names: &DBusProxy<'_>, zone: &ZoneProxy<'_>) -> Option<State> {
        // To call it would start it, where the bus may.
        let name = BusName::try_from(NAME).ok()?;
        if !names.name_has_owner(name).await.ok()? || bus.unique_name().is_none() {
            return None;
        }
        let (known, active) = match (zone.get_zones().await, zone.get_active_zones().await) {
            (Ok(known), Ok(active)) => (known, active),
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(%error, "firewalld does not tell its zones");
                return None;
            }
        };
        let zones = active.into_iter().flat_map(|(zone, mut what)| {
            let links = what.remove("interfaces").unwrap_or_default();
            links.into_iter().filter_map(move |link| Some((link.parse().ok()?, zone.clone())))
        });
        Some(State { has_zone: known.iter().any(|zone| zone == ZONE), zones: zones.collect() })
    }

    async fn tell(&self, state: Option<State>) {
        let changed = self.told.send_if_modified(|told| {
            let changed = told.as_ref() != Some(&state);
            *told = Some(state);
            changed
        });
        if let Some(events) = self.events.as_ref().filter(|_| changed) {
            // Whoever reads them may wait for an answer from here: a full channel must not keep both.
            let _ = events.try_send(LinkEvent::Neighbours);
        }
    }
}

async fn change(zone: &ZoneProxy<'_>, call: Call) {
    let mut outcome = Ok(());
    for link in &call.links {
        let done = match call.admit {
            true => zone.add_interface(ZONE, link.as_str()).await,
            false => zone.remove_interface(ZONE, link.as_str()).await,
        };
        match done {
            Ok(_) => {}
            // It is as it should be.
            Err(zbus::Error::MethodError(_, Some(text), _))
                if text.starts_with("ZONE_ALREADY_SET") || text.starts_with("UNKNOWN_INTERFACE") => {}
            Err(error) => outcome = Err(format!("{link}: {error}")),
        }
    }
    let _ = call.reply.send(outcome);
}
