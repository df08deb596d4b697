//! Our leases in libvirt's lease files: see [`lease_file`].

use crate::{
    backend::LeaseRecord,
    intent::{Network, Segment},
    libvirt::lease_file::{self, ByBridge},
    net::IfName,
    protocol::dhcpv4::NEVER,
    reconciler::{Handle, Notice, View},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::{
    sync::broadcast::{
        Receiver,
        error::{RecvError, TryRecvError},
    },
    time::{Instant as Due, sleep_until, timeout_at},
};

/// From a lease to the file: leases that come together are one write.
const GATHER: Duration = Duration::from_millis(50);
/// A write is followed by a pause of so many times its length, so that this takes a hundredth of a processor at most:
/// those that read the files look once a second or less, and who has 60,000 leases needs the processor to grant more.
const REST: u32 = 100;
/// How often the wall clock is looked at, by which the files tell the leases' ends.
const TICK: Duration = Duration::from_secs(60);
/// Seconds that the wall clock may be off before all files are written anew.
const DRIFT: u64 = 2;

/// What is to be looked at.
#[derive(Debug, PartialEq, Eq)]
enum Marked {
    Bridges(BTreeSet<IfName>),
    All,
}

/// Keeps the files in step until the loop ends. Those of bridges that are not ours are left alone.
pub async fn follow(handle: Handle, folder: PathBuf) {
    let mut notices = handle.watch();
    let mut files = Files::new(folder);
    let mut marked = Marked::All;
    loop {
        let began = Instant::now();
        let (leases, shift) = {
            let view = handle.view();
            let picked = match &marked {
                Marked::All => leases_of(&view, |_| true),
                Marked::Bridges(only) => leases_of(&view, |bridge| only.contains(bridge)),
            };
            (picked, view.lease_clock.wall_shift())
        };
        let work = tokio::task::spawn_blocking(move || {
            files.write(leases, marked);
            files
        });
        // It does not panic, and is not cancelled.
        let Ok(done) = work.await else { return };
        files = done;
        let rest = Due::now() + (began.elapsed() * REST).max(GATHER);
        match next(&handle, &mut notices, rest, shift).await {
            Some(next) => marked = next,
            None => return,
        }
    }
}

/// What has changed since, not before `rest`. `None`: the loop has ended.
async fn next(handle: &Handle, notices: &mut Receiver<Notice>, rest: Due, shift: i64) -> Option<Marked> {
    loop {
        let first = match timeout_at(Due::now() + TICK, notices.recv()).await {
            Err(_) if handle.view().lease_clock.wall_shift().abs_diff(shift) > DRIFT => return Some(Marked::All),
            Err(_) => continue,
            Ok(Err(RecvError::Closed)) => return None,
            Ok(first) => first.ok(),
        };
        let mut marked = Marked::Bridges(BTreeSet::new());
        note(handle, &mut marked, first);
        if marked == Marked::Bridges(BTreeSet::new()) {
            continue;
        }
        sleep_until(rest.max(Due::now() + GATHER)).await;
        loop {
            match notices.try_recv() {
                Ok(notice) => note(handle, &mut marked, Some(notice)),
                Err(TryRecvError::Lagged(_)) => note(handle, &mut marked, None),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(marked),
            }
        }
    }
}

/// `None`: some notices are lost.
fn note(handle: &Handle, marked: &mut Marked, notice: Option<Notice>) {
    let network = match notice {
        Some(Notice::LeasesChanged(network) | Notice::NetworkAdded(network)) => network,
        // libvirt removes the file of a network that it lets go, under which another may be offered.
        None | Some(Notice::NetworkRemoved(_) | Notice::NetworkChanged(_) | Notice::LibvirtNetworksChanged) => {
            *marked = Marked::All;
            return;
        }
        Some(_) => return,
    };
    let view = handle.view();
    let bridge = view.intent.network(network).and_then(|network| own_bridge(&view, network));
    if let (Marked::Bridges(bridges), Some(bridge)) = (marked, bridge) {
        bridges.insert(bridge.clone());
    }
}

/// The bridge of a network where it is one that we made.
pub(super) fn own_bridge<'a>(view: &'a View, network: &'a Network) -> Option<&'a IfName> {
    let own = match &network.segment {
        Segment::Local => true,
        segment => {
            let physical = segment.physical_network().and_then(|name| view.host.physical_networks.get(name));
            physical.is_some_and(|physical| physical.is_own())
        }
    };
    view.bridge_of(network).filter(|_| own)
}

fn leases_of(view: &View, pick: impl Fn(&IfName) -> bool) -> ByBridge {
    let networks = view.intent.networks().filter_map(|network| Some((network.id, own_bridge(view, network)?)));
    let bridges: BTreeMap<_, _> = networks.filter(|(_, bridge)| pick(bridge)).collect();
    let mut found: ByBridge = bridges.values().map(|bridge| ((*bridge).clone(), Vec::new())).collect();
    // Asked once: the clock costs more than all else that a lease needs here.
    let shift = view.lease_clock.wall_shift();
    // A delegated prefix is no address of the guest.
    for ((network, _), lease) in view.leases.iter().filter(|(_, lease)| lease.prefix_length.is_none()) {
        let Some(list) = bridges.get(network).and_then(|bridge| found.get_mut(*bridge)) else { continue };
        let expires = if lease.expires == NEVER { 0 } else { lease.expires.saturating_add_signed(shift) };
        list.push(LeaseRecord { expires, ..lease.clone() });
    }
    found
}

/// The files that there are, and what they say.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    /// By bridge; what an unchanged file is told by.
    written: BTreeMap<IfName, String>,
    /// What was complained of last.
    complaint: Option<String>,
}

impl Files {
    fn new(folder: PathBuf) -> Self {
        Self { folder, written: BTreeMap::new(), complaint: None }
    }

    fn write(&mut self, leases: ByBridge, marked: Marked) {
        // Without libvirt nobody reads them.
        if !self.folder.is_dir() {
            self.written.clear();
            return;
        }
        let gone = |bridge: &IfName| match &marked {
            Marked::All => !leases.contains_key(bridge),
            Marked::Bridges(only) => only.contains(bridge) && !leases.contains_key(bridge),
        };
        let gone: Vec<IfName> = self.written.keys().filter(|bridge| gone(bridge)).cloned().collect();
        let mut complaint = None;
        for bridge in gone {
            self.written.remove(&bridge);
            complaint = remove(&self.folder, &bridge).err().or(complaint);
        }
        for (bridge, leases) in leases {
            let (text, left_out) = lease_file::render(&leases);
            if left_out > 0 {
                complaint =
                    Some(io::Error::other(format!("{left_out} leases of {bridge} are more than libvirt reads")));
            }
            let there = self.folder.join(lease_file::file_name(&bridge)).exists();
            if there && self.written.get(&bridge) == Some(&text) {
                continue;
            }
            match replace(&self.folder, &bridge, &text) {
                Ok(()) => drop(self.written.insert(bridge, text)),
                Err(error) => complaint = Some(error),
            }
        }
        let complaint = complaint.map(|error| error.to_string());
        if let Some(error) = complaint.as_ref().filter(|error| Some(*error) != self.complaint.as_ref()) {
            let folder = self.folder.display();
            tracing::warn!(%folder, error, "virsh net-dhcp-leases and domifaddr do not show all leases of vmfabric");
        }
        self.complaint = complaint;
    }
}

/// Written beside and renamed, so that libvirt never reads half of it; for all to read, as dnsmasq's are (nss).
fn replace(folder: &Path, bridge: &IfName, text: &str) -> io::Result<()> {
    let fresh = folder.join(format!(".{}.vmfabric", lease_file::file_name(bridge)));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    fs::rename(&fresh, folder.join(lease_file::file_name(bridge)))
}

/// Removes a bridge's file, where there is one.
pub(super) fn remove(folder: &Path, bridge: &IfName) -> io::Result<()> {
    match fs::remove_file(folder.join(lease_file::file_name(bridge))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::MacAddr;

    fn name(text: &str) -> IfName {
        IfName::new(text).expect("a name")
    }

    fn lease(last: u8) -> LeaseRecord {
        LeaseRecord {
            network: uuid::Uuid::nil(),
            address: [10, 0, 0, last].into(),
            client: vec![1],
            mac: MacAddr::local([0, 0, 0, last]),
            host_name: None,
            port: None,
            expires: 9,
            iaid: None,
            prefix_length: None,
        }
    }

    #[test]
    fn files_come_and_go_with_the_bridges_and_others_stay() {
        let folder = tempfile::tempdir().expect("directory");
        let path = |file: &str| folder.path().join(file);
        fs::write(path("virbr0.status"), "libvirt's").expect("write");
        let mut files = Files::new(folder.path().to_owned());
        let both = || ByBridge::from([(name("vmf-a"), vec![lease(1)]), (name("vmf-b"), vec![])]);
        files.write(both(), Marked::All);
        let text = fs::read_to_string(path("vmf-a.status")).expect("file");
        assert!(text.contains("10.0.0.1"), "{text}");
        assert_eq!(fs::metadata(path("vmf-a.status")).expect("file").permissions().mode() & 0o777, 0o644);
        // What libvirt took away is there again though nothing has changed.
        fs::remove_file(path("vmf-a.status")).expect("remove");
        files.write(both(), Marked::All);
        assert!(path("vmf-a.status").exists());
        // A look at one says nothing of the other.
        files.write(ByBridge::from([(name("vmf-b"), vec![lease(2)])]), Marked::Bridges([name("vmf-b")].into()));
        assert!(path("vmf-a.status").exists());
        files.write(ByBridge::from([(name("vmf-b"), vec![])]), Marked::All);
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .expect("directory")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["virbr0.status", "vmf-b.status"]);
    }
}
