//! `vmfabricd --clean-up`: takes away what vmfabric has in the kernel and in libvirt, for when it leaves the host. The
//! intent stays in the store, so that a daemon started later makes all of it again.

use super::{Config, DaemonError, Paths, io_error, lease_files};
use crate::{
    backend::{Driver, DriverError, Loaded, Store as _, StoreError, Write},
    diff::{Scope, diff},
    driver::{firewalld::Firewalld, host::HostDriver, kernel::KernelDriver},
    intent::{HostConfig, Intent},
    libvirt::{self, LibvirtConfig, LibvirtEvent, lease_file},
    planner::{self, Input},
    reconciler::{forget_former_boot, forgetting, previous_of},
    server::clock::boot_id,
    store::sqlite::SqliteStore,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::sync::mpsc;
use uuid::Uuid;

/// How often it looks again at what it took away.
const ROUNDS: usize = 3;
/// How long libvirt may take, its start by its socket included.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes the links, addresses, filters and kernel parameters away that are ours, then our networks from libvirt; does as
/// much as it can. Guests that run lose their networks.
///
/// Errors: [`DaemonError::Store`] where a daemon runs (nothing is done then); [`DaemonError::LeftBehind`].
pub async fn clean_up(paths: &Paths) -> Result<(), DaemonError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(DaemonError::NotRoot);
    }
    let store = open(paths)?;
    let loaded = match &store {
        Some(store) => {
            forget_former_boot(store, &boot_id()).await?;
            store.load().await?
        }
        None => Loaded::default(),
    };
    let mut left = Vec::new();
    match KernelDriver::new() {
        Ok(kernel) => {
            let mut firewalld = Firewalld::watch(None);
            firewalld.known().await;
            left.extend(leave_kernel(&mut HostDriver::new(kernel, firewalld), &loaded).await?);
        }
        Err(error) => left.push(error.to_string()),
    }
    if let Some(store) = store.as_ref().filter(|_| left.is_empty()) {
        // From here on these parameters are others' alone.
        store.commit(forgetting(&loaded).collect()).await?;
    }
    for bridge in loaded.networks.iter().filter_map(|network| network.bridge.as_ref()) {
        if let Err(error) = lease_files::remove(&paths.lease_files, bridge) {
            left.push(format!("{}: {error}", paths.lease_files.join(lease_file::file_name(bridge)).display()));
        }
    }
    let published: BTreeSet<Uuid> = loaded.published.into_iter().collect();
    if !published.is_empty() {
        let uri =
            Config::load(&paths.config).map_or_else(|_| LibvirtConfig::default().uri, |config| config.libvirt_uri);
        let (removed, complaints) = leave_libvirt(uri, published).await?;
        left.extend(complaints);
        if let Some(store) = &store {
            store.commit(removed.into_iter().map(Write::DeletePublished).collect()).await?;
        }
    }
    if left.is_empty() { Ok(()) } else { Err(DaemonError::LeftBehind(left.join("; "))) }
}

/// The store, which no daemon has now. `None` where there is none that can be read: what is in the kernel is known by
/// its alias all the same.
fn open(paths: &Paths) -> Result<Option<SqliteStore>, DaemonError> {
    if !paths.database.exists() {
        return Ok(None);
    }
    match SqliteStore::open(&paths.database) {
        Ok(store) => Ok(Some(store)),
        Err(error @ StoreError::Locked { .. }) => Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "cleaning up without the store");
            Ok(None)
        }
    }
}

/// Makes the kernel what it would be if nothing were wanted. Gives what did not go.
async fn leave_kernel(driver: &mut impl Driver, loaded: &Loaded) -> Result<Vec<String>, DriverError> {
    let (intent, host, attachments) = (Intent::default(), HostConfig::default(), BTreeMap::new());
    let previous = previous_of(loaded);
    let mut left = Vec::new();
    for _ in 0..ROUNDS {
        let observed = driver.observe().await?;
        let input = Input {
            intent: &intent,
            host: &host,
            attachments: &attachments,
            observed: &observed,
            previous: &previous,
            delegated: &[],
        };
        let mut changes = diff(&observed.datapath, &planner::plan(input).desired, Scope::Full);
        left.clear();
        if changes.is_empty() {
            break;
        }
        // One that fails does not keep the others.
        while !changes.is_empty() {
            let done = match driver.apply(&changes).await {
                Ok(()) => changes.len(),
                Err(error) => {
                    left.push(error.to_string());
                    (error.done + 1).min(changes.len())
                }
            };
            let rest = changes.split_off(done);
            changes.iter().for_each(|change| tracing::info!(%change, "clean up"));
            changes = rest;
        }
    }
    Ok(left)
}

/// Takes these networks from libvirt. Gives those that are gone, and what keeps the others.
async fn leave_libvirt(uri: String, published: BTreeSet<Uuid>) -> Result<(BTreeSet<Uuid>, Vec<String>), DaemonError> {
    let (events, mut inbox) = mpsc::channel(64);
    let config = LibvirtConfig { uri, ..LibvirtConfig::default() };
    let libvirt = libvirt::spawn(config, events).map_err(io_error("the libvirt thread cannot start"))?;
    libvirt.publish(Vec::new(), published.clone());
    let answer = async {
        while let Some(event) = inbox.recv().await {
            match event {
                LibvirtEvent::Published(published) => return Ok(published),
                LibvirtEvent::Disconnected { reason } => return Err(reason),
                _ => {}
            }
        }
        Err("the connection to libvirt is lost".to_owned())
    };
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    Ok(match answer.unwrap_or_else(|_| Err(format!("libvirt does not answer in {} s", PATIENCE.as_secs()))) {
        Ok(answer) => {
            answer.removed.iter().for_each(|network| tracing::info!(%network, "taken from libvirt"));
            (answer.removed, answer.not_removed.values().map(ToString::to_string).collect())
        }
        Err(reason) => {
            let all: Vec<String> = published.iter().map(ToString::to_string).collect();
            let how = "with libvirt running: virsh net-destroy UUID; virsh net-undefine UUID";
            (BTreeSet::new(), vec![format!("libvirt keeps our networks {} ({reason}); {how}", all.join(", "))])
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        datapath::{BridgeSettings, Family, Link, LinkKind, Sysctl, Table},
        driver::sim::SimHost,
        net::IfName,
    };

    fn name(text: &str) -> IfName {
        IfName::new(text).expect("a name")
    }

    #[tokio::test]
    async fn takes_away_what_is_ours_and_nothing_else() {
        let host = SimHost::default();
        let settings = BridgeSettings { vlan_filtering: false, default_pvid: None };
        let bridge = Some(LinkKind::Bridge(settings));
        let ours = |what: &str| Some(format!("vmfabric:{what}"));
        host.plug(name("virbr0"), Link { kind: bridge.clone(), ..Link::default() });
        host.plug(name("vmf-nat"), Link { kind: bridge, alias: ours("network/n"), ..Link::default() });
        let master = Some(Some(name("vmf-nat")));
        host.plug(name("vnet0"), Link { master: master.clone(), alias: ours("port/p"), ..Link::default() });
        host.plug(name("eth1"), Link { master, alias: ours("uplink/lan"), ..Link::default() });
        host.plug(name("eth0"), Link::default());
        let forwarding = Sysctl::Ipv4Forwarding(name("eth0"));
        host.with(|observed| {
            observed.datapath.sysctls.insert(forwarding.clone(), "1".into());
            observed.datapath.tables.insert(Family::Inet, Table::default());
        });
        let memos = vec![(format!("sysctl:{}", forwarding.path()), "0".to_owned())];
        let left = leave_kernel(&mut host.driver(), &Loaded { memos, ..Loaded::default() }).await;
        assert_eq!(left.expect("the simulated kernel works"), Vec::<String>::new());
        let datapath = host.observed().datapath;
        let links: Vec<&str> = datapath.links.keys().map(IfName::as_str).collect();
        assert_eq!(links, ["eth0", "eth1", "virbr0", "vnet0"]);
        assert!(datapath.links.values().all(|link| !link.is_owned() && link.master().is_none()));
        assert!(datapath.tables.is_empty());
        assert_eq!(datapath.sysctls[&forwarding], "0");
    }
}
