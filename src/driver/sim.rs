//! A kernel made of values, for tests: does changes as [`Datapath::apply`] says, and fails when told to.

use crate::{
    backend::{ApplyError, Driver, DriverError},
    datapath::{BridgeSettings, Change, Connection, Datapath, Family, Link, LinkChange, LinkKind, Observed, Table},
    net::IfName,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The simulated host: clones share one state, which outlives every driver.
#[derive(Debug, Clone, Default)]
pub struct SimHost(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    observed: Observed,
    /// Changes that still succeed; `None`: all.
    budget: Option<usize>,
    refuses_limits: bool,
    applied: Vec<Change>,
    connections: Vec<Connection>,
    /// How often somebody asked for them.
    listed: usize,
}

/// A driver of a [`SimHost`].
#[derive(Debug)]
pub struct SimDriver(SimHost);

impl SimHost {
    pub fn new(observed: Observed) -> Self {
        Self(Arc::new(Mutex::new(State { observed, ..State::default() })))
    }

    pub fn driver(&self) -> SimDriver {
        SimDriver(self.clone())
    }

    /// Looks at the state, or alters it as somebody else would.
    pub fn with<T>(&self, look: impl FnOnce(&mut Observed) -> T) -> T {
        look(&mut self.state().observed)
    }

    pub fn observed(&self) -> Observed {
        self.state().observed.clone()
    }

    /// A link that others made: a tap, a NIC.
    pub fn plug(&self, name: IfName, mut link: Link) {
        link.kind.get_or_insert_with(|| LinkKind::Other("tun".into()));
        link.master.get_or_insert(None);
        link.up.get_or_insert(false);
        link.mtu.get_or_insert(1500);
        link.alias.get_or_insert_default();
        self.state().observed.datapath.links.insert(name, link);
    }

    /// Takes a link away, with all that the kernel removes along with it.
    pub fn unplug(&self, name: &IfName) {
        self.state().observed.datapath.forget_link(name);
    }

    /// Takes all limits of traffic away, as somebody else does.
    pub fn drop_limits(&self) {
        self.state().observed.datapath.limits.clear();
    }

    /// After `changes` more, each one fails, and so do questions for connections, until told otherwise (`None`: never).
    pub fn fail_after(&self, changes: Option<usize>) {
        self.state().budget = changes;
    }

    /// Whether it takes no limits of traffic, though it says that it does.
    pub fn refuse_limits(&self, refuses: bool) {
        self.state().refuses_limits = refuses;
    }

    /// The changes done since the last call.
    pub fn take_applied(&self) -> Vec<Change> {
        std::mem::take(&mut self.state().applied)
    }

    /// What passes through the host as a connection from now on.
    pub fn connect(&self, connection: Connection) {
        self.state().connections.push(connection);
    }

    pub fn connections(&self) -> Vec<Connection> {
        self.state().connections.clone()
    }

    /// How often the connections were listed.
    pub fn times_listed(&self) -> usize {
        self.state().listed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that failed while it held the state is no reason for others to fail.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, change: &Change) -> Result<(), DriverError> {
        if let Some(budget) = &mut self.budget {
            *budget = budget.checked_sub(1).ok_or_else(|| DriverError::Netlink("a failure made for a test".into()))?;
        }
        if self.refuses_limits && change.is_limit() {
            return Err(DriverError::Netlink("a limit that is refused for a test".into()));
        }
        let change = self.as_kernel_would(change)?;
        self.observed.datapath.apply(&change)?;
        self.applied.push(change);
        Ok(())
    }

    /// A kernel without VLAN filtering refuses VLANs and has no default PVID.
    fn as_kernel_would(&self, change: &Change) -> Result<Change, DriverError> {
        if self.observed.capabilities.bridge_vlan_filtering {
            return Ok(change.clone());
        }
        let lacking = || Err(DriverError::Netlink("the kernel lacks CONFIG_BRIDGE_VLAN_FILTERING".into()));
        match change {
            Change::AddVlan { .. } => lacking(),
            Change::CreateLink { name, link } => match link.bridge() {
                Some(settings) if settings.vlan_filtering => lacking(),
                Some(_) => {
                    let kind = LinkKind::Bridge(BridgeSettings { vlan_filtering: false, default_pvid: None });
                    let link = Link { kind: Some(kind), ..link.clone() };
                    Ok(Change::CreateLink { name: name.clone(), link })
                }
                None => Ok(change.clone()),
            },
            Change::SetLink { change: set, .. } if set.vlan_filtering == Some(true) => lacking(),
            Change::SetLink { name, change: set } => {
                let change = LinkChange { default_pvid: None, ..set.clone() };
                Ok(Change::SetLink { name: name.clone(), change })
            }
            _ => Ok(change.clone()),
        }
    }
}

impl Driver for SimDriver {
    async fn observe(&mut self) -> Result<Observed, DriverError> {
        Ok(self.0.observed())
    }

    async fn observe_links(&mut self, links: &BTreeSet<IfName>) -> Result<Datapath, DriverError> {
        let state = self.0.state();
        let all = &state.observed.datapath;
        let mut part = Datapath::default();
        part.links
            .extend(all.links.iter().filter(|(name, _)| links.contains(*name)).map(|(n, l)| (n.clone(), l.clone())));
        part.vlans.extend(all.vlans.iter().filter(|((name, _), _)| links.contains(name)).map(|(k, v)| (k.clone(), *v)));
        part.limits.extend(
            all.limits.iter().filter(|((name, _), _)| links.contains(name)).map(|(k, l)| (k.clone(), l.clone())),
        );
        part.sysctls.extend(
            all.sysctls
                .iter()
                .filter(|(key, _)| key.link().is_some_and(|link| links.contains(link)))
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        Ok(part)
    }

    async fn listed(&mut self, tables: &BTreeMap<Family, Table>) -> Result<BTreeMap<Family, Table>, DriverError> {
        Ok(tables.clone())
    }

    /// Unlike the kernel's transactions, stops within a run of nftables changes too: a caller must bear both.
    async fn apply(&mut self, changes: &[Change]) -> Result<(), ApplyError> {
        let mut state = self.0.state();
        for (done, change) in changes.iter().enumerate() {
            state.apply(change).map_err(|source| ApplyError { done, change: change.to_string(), source })?;
        }
        Ok(())
    }

    async fn connections(&mut self, zones: &BTreeSet<u16>) -> Result<Vec<Connection>, DriverError> {
        let mut state = self.0.state();
        state.listed += 1;
        if state.budget == Some(0) {
            return Err(DriverError::Netlink("a failure made for a test".into()));
        }
        Ok(state.connections.iter().filter(|connection| zones.contains(&connection.zone)).cloned().collect())
    }

    async fn delete_connections(&mut self, connections: &[Connection]) -> Result<usize, DriverError> {
        let mut state = self.0.state();
        let before = state.connections.len();
        state.connections.retain(|connection| !connections.contains(connection));
        Ok(before - state.connections.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::Capabilities;

    fn name(name: &str) -> IfName {
        name.parse().expect("a link's name")
    }

    fn bridge(vlan_filtering: bool) -> Change {
        let kind = Some(LinkKind::Bridge(BridgeSettings { vlan_filtering, default_pvid: Some(0) }));
        Change::CreateLink { name: name("vmf-a"), link: Link { kind, ..Link::default() } }
    }

    fn attach(tap: &str) -> Change {
        let change = LinkChange { master: Some(Some(name("vmf-a"))), up: Some(true), ..LinkChange::default() };
        Change::SetLink { name: name(tap), change }
    }

    #[tokio::test]
    async fn fails_when_told_and_remembers_what_was_done() {
        let host = SimHost::default();
        host.plug(name("vnet0"), Link::default());
        host.fail_after(Some(1));
        let changes = [bridge(false), attach("vnet0")];
        let error = host.driver().apply(&changes).await.expect_err("a failure");
        assert_eq!((error.done, error.change), (1, changes[1].to_string()));
        host.fail_after(None);
        host.driver().apply(&changes[1..]).await.expect("now it works");
        assert_eq!(host.take_applied().len(), 2);
        assert_eq!(host.observed().datapath.links[&name("vnet0")].master(), Some(&name("vmf-a")));
        host.unplug(&name("vnet0"));
        let links = [name("vnet0"), name("vmf-a")].into();
        let seen = host.driver().observe_links(&links).await.expect("observed");
        assert_eq!(seen.links.keys().collect::<Vec<_>>(), [&name("vmf-a")]);
    }

    #[tokio::test]
    async fn lacks_what_its_kernel_lacks() {
        let host = SimHost::default();
        assert!(host.driver().apply(&[bridge(true)]).await.is_err());
        host.driver().apply(&[bridge(false)]).await.expect("made");
        let settings = host.with(|observed| observed.datapath.links[&name("vmf-a")].bridge().copied());
        assert_eq!(settings, Some(BridgeSettings { vlan_filtering: false, default_pvid: None }));
        let capabilities = Capabilities { bridge_vlan_filtering: true, ..Capabilities::default() };
        let able = SimHost::new(Observed { capabilities, ..Observed::default() });
        able.driver().apply(&[bridge(true)]).await.expect("made");
    }
}
