//! systemd-resolved, over D-Bus (org.freedesktop.resolve1(5)): this host asks the network's own DNS server for the names
//! of a network's domain and addresses, and for no others.
//!
//! What resolved is told belongs to the link: it is gone with the link and with resolved, so that both are followed.
//! resolved uses a link's servers while the link has a carrier: while a guest is there.

use crate::net::IfName;
use futures_util::StreamExt as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use zbus::{Connection, fdo::DBusProxy, names::BusName, proxy};

const NAME: &str = "org.freedesktop.resolve1";
/// How long resolved may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);
const RECONNECT: Duration = Duration::from_secs(5);
/// How often links are looked at: one that was made anew has lost what resolved knew of it.
const LOOK: Duration = Duration::from_secs(10);
/// resolved takes 256 domains of a link (LINK_SEARCH_DOMAINS_MAX).
pub const MAX_DOMAINS: usize = 250;

#[proxy(
    interface = "org.freedesktop.resolve1.Manager",
    default_service = "org.freedesktop.resolve1",
    default_path = "/org/freedesktop/resolve1"
)]
trait Resolve {
    #[zbus(name = "SetLinkDNS")]
    fn set_link_dns(&self, link: i32, servers: &[(i32, Vec<u8>)]) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDomains")]
    fn set_link_domains(&self, link: i32, domains: &[(&str, bool)]) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDefaultRoute")]
    fn set_link_default_route(&self, link: i32, enable: bool) -> zbus::Result<()>;
    #[zbus(name = "SetLinkLLMNR")]
    fn set_link_llmnr(&self, link: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkMulticastDNS")]
    fn set_link_multicast_dns(&self, link: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDNSOverTLS")]
    fn set_link_dns_over_tls(&self, link: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDNSSEC")]
    fn set_link_dnssec(&self, link: i32, mode: &str) -> zbus::Result<()>;
    fn revert_link(&self, link: i32) -> zbus::Result<()>;
}

/// What resolved is to know of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkNames {
    pub servers: Vec<IpAddr>,
    /// At most [`MAX_DOMAINS`]; names in these alone are asked for here.
    pub domains: Vec<String>,
}

pub type Wanted = BTreeMap<IfName, LinkNames>;

/// Keeps resolved told until it is dropped; what it was told stays then, as the links do.
#[derive(Debug)]
pub struct Resolved {
    wanted: watch::Sender<Wanted>,
}

impl Resolved {
    /// Follows the resolved on the system's bus, where one runs; none is started. Within a tokio runtime.
    pub fn watch() -> Self {
        let (wanted, inbox) = watch::channel(Wanted::new());
        tokio::spawn(Follower { wanted: inbox, told: BTreeMap::new(), refused: BTreeSet::new() }.run());
        Self { wanted }
    }

    /// Just these links are to be known; does not wait.
    pub fn set(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|known| {
            let changed = *known != wanted;
            *known = wanted;
            changed
        });
    }
}

struct Follower {
    wanted: watch::Receiver<Wanted>,
    /// What resolved was told, and the index that the link had.
    told: BTreeMap<IfName, (i32, LinkNames)>,
    /// What was complained of.
    refused: BTreeSet<(IfName, String)>,
}

impl Follower {
    async fn run(mut self) {
        loop {
            match self.follow().await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "systemd-resolved cannot be told"),
            }
            self.told.clear();
            tokio::time::sleep(RECONNECT).await;
            if self.wanted.has_changed().is_err() {
                return;
            }
        }
    }

    /// Until nobody wants anything any more, or the bus is lost.
    async fn follow(&mut self) -> zbus::Result<()> {
        let bus = zbus::connection::Builder::system().method_timeout(ANSWER).build().await?;
        let names = DBusProxy::new(&bus).await?;
        let mut owners = names.receive_name_owner_changed_with_args(&[(0, NAME)]).await?;
        let resolve = ResolveProxy::new(&bus).await?;
        loop {
            // To call it would start it, where the bus may.
            let name = BusName::try_from(NAME).map_err(zbus::Error::from)?;
            if names.name_has_owner(name).await.unwrap_or(false) {
                self.tell(&bus, &resolve).await;
            } else {
                self.told.clear();
            }
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return Ok(()) },
                owner = owners.next() => match owner {
                    // It is another one, who knows nothing.
                    Some(_) => self.told.clear(),
                    None => {
                        let lost = Arc::new(std::io::ErrorKind::NotConnected.into());
                        return Err(zbus::Error::InputOutput(lost));
                    }
                },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn tell(&mut self, _bus: &Connection, resolve: &ResolveProxy<'_>) {
        let wanted = self.wanted.borrow_and_update().clone();
        let index = |link: &IfName| nix::net::if_::if_nametoindex(link.as_str()).ok().and_then(|i| i.try_into().ok());
        let gone: Vec<IfName> = self.told.keys().filter(|link| !wanted.contains_key(*link)).cloned().collect();
        for link in gone {
            let known = self.told.remove(&link).map(|(known, _)| known);
            // A link that is gone took all with it.
            if known.is_some() && index(&link) == known {
                let outcome = resolve.revert_link(known.unwrap_or_default()).await;
                self.note(&link, outcome, "systemd-resolved no longer asks here");
            }
        }
        for (link, names) in wanted {
            let Some(index) = index(&link) else { continue };
            if self.told.get(&link).is_some_and(|told| *told == (index, names.clone())) {
                continue;
            }
            let outcome = set(resolve, index, &names).await;
            let done = outcome.is_ok();
            self.note(&link, outcome, "systemd-resolved asks here for the network's names");
            if done {
                self.told.insert(link, (index, names));
            }
        }
    }

    fn note(&mut self, link: &IfName, outcome: zbus::Result<()>, done: &str) {
        match outcome {
            Ok(()) => {
                self.refused.retain(|(refused, _)| refused != link);
                tracing::info!(%link, "{done}");
            }
            Err(error) => {
                // It is tried again every few seconds.
                if self.refused.insert((link.clone(), error.to_string())) {
                    tracing::warn!(%link, %error, "systemd-resolved does not take the network's names");
                }
            }
        }
    }
}

/// The server comes last: until then nothing is asked there, and at no time what is not its own.
async fn set(resolve: &ResolveProxy<'_>, link: i32, names: &LinkNames) -> zbus::Result<()> {
    // Our server is on this host and does not sign. Guests are not asked who has which name.
    resolve.set_link_dnssec(link, "no").await?;
    resolve.set_link_dns_over_tls(link, "no").await?;
    resolve.set_link_llmnr(link, "no").await?;
    resolve.set_link_multicast_dns(link, "no").await?;
    resolve.set_link_default_route(link, false).await?;
    let domains: Vec<(&str, bool)> = names.domains.iter().map(|domain| (domain.as_str(), true)).collect();
    resolve.set_link_domains(link, &domains).await?;
    resolve.set_link_dns(link, &names.servers.iter().map(address).collect::<Vec<_>>()).await
}

/// Family and octets.
fn address(address: &IpAddr) -> (i32, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    }
}
