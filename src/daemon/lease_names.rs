//! Leases' names in DNS, at the moment of the lease.

use crate::{
    backend::LeaseRecord,
    intent::NetworkId,
    net::DnsLabel,
    protocol::{
        dns::{NameSource, Zone, ZoneError},
        lease::LeaseChange,
    },
    reconciler::{DnsEntry, lease_owner},
    server::dns::SharedZone,
};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// How long what a lease said goes before what the loop says of that address: the loop hears of leases later, and may
/// say what was true before. Far longer than the loop takes for an event.
const AHEAD: Duration = Duration::from_secs(5);

/// The zones that leases have names in.
#[derive(Debug, Default)]
pub struct LeaseNames(Mutex<HashMap<Uuid, Names>>);

#[derive(Debug)]
struct Names {
    zone: SharedZone,
    recent: HashMap<Uuid, Instant>,
    swept: Instant,
}

impl LeaseNames {
    /// Leases of a network have names in that zone from now on.
    pub fn add(&self, network: NetworkId, zone: SharedZone) {
        let names = Names { zone: zone.clone(), recent: HashMap::new(), swept: Instant::now() };
        self.lock().entry(network.0).or_insert(names).zone = zone;
    }

    pub fn remove(&self, network: NetworkId) {
        self.lock().remove(&network.0);
    }

    /// A lease was stored, or removed.
    pub fn note(&self, change: &LeaseChange<LeaseRecord>) {
        let (LeaseChange::Put(lease) | LeaseChange::Remove(lease)) = change;
        let owner = lease_owner(lease.network, lease.address);
        let zone = {
            let mut all = self.lock();
            let Some(names) = all.get_mut(&lease.network) else { return };
            let now = Instant::now();
            if now.duration_since(names.swept) > AHEAD {
                names.swept = now;
                names.recent.retain(|_, at| now.duration_since(*at) < AHEAD);
            }
            names.recent.insert(owner, now);
            names.zone.clone()
        };
        let label = lease.host_name.as_deref().and_then(|name| DnsLabel::new(name).ok());
        zone.update(|zone| match (change, label) {
            (LeaseChange::Put(LeaseRecord { address, .. }), Some(label)) => {
                publish(zone, owner, NameSource::Dhcp, label, vec![*address]);
            }
            _ => drop(zone.withdraw(owner, NameSource::Dhcp)),
        });
    }

    /// Makes a zone's names these, but for those that leases spoke of a moment ago.
    pub fn update(&self, network: NetworkId, zone: &mut Zone, names: Vec<DnsEntry>) {
        let mut by_key: BTreeMap<(Uuid, NameSource), (DnsLabel, Vec<IpAddr>)> = BTreeMap::new();
        for entry in names {
            let slot = by_key.entry((entry.owner, entry.source)).or_insert_with(|| (entry.label, Vec::new()));
            slot.1.extend(entry.addresses);
        }
        let now = Instant::now();
        let recent = self.lock().get(&network.0).map(|names| names.recent.clone()).unwrap_or_default();
        let recent = |owner: &Uuid| recent.get(owner).is_some_and(|at| now.duration_since(*at) < AHEAD);
        zone.retain(|owner, source| by_key.contains_key(&(owner, source)) || recent(&owner));
        for ((owner, source), (label, addresses)) in by_key {
            if source != NameSource::Dhcp || !recent(&owner) {
                publish(zone, owner, source, label, addresses);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Names>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn publish(zone: &mut Zone, owner: Uuid, source: NameSource, label: DnsLabel, addresses: Vec<IpAddr>) {
    match zone.publish(owner, source, label, 0, addresses) {
        Ok(()) => {}
        // A guest that calls itself so gets no name, and its lease all the same.
        Err(error @ ZoneError::Trusted(_)) => tracing::info!(%error, "a name is not served"),
        Err(error) => tracing::warn!(%error, "a name is not served"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::MacAddr;

    fn lease(name: Option<&str>, last: u8) -> LeaseRecord {
        LeaseRecord {
            network: Uuid::nil(),
            address: [10, 0, 0, last].into(),
            client: vec![1, 2, 3, 4, 5, 6, last],
            iaid: None,
            prefix_length: None,
            mac: MacAddr::local([0, 0, 0, last]),
            host_name: name.map(str::to_owned),
            port: None,
            expires: 1,
        }
    }

    fn entry(name: &str, last: u8) -> DnsEntry {
        let address = IpAddr::from([10, 0, 0, last]);
        let (owner, source) = (lease_owner(Uuid::nil(), address), NameSource::Dhcp);
        DnsEntry { owner, label: name.parse().expect("label"), source, addresses: vec![address] }
    }

    #[test]
    fn a_lease_goes_before_what_the_loop_does_not_know_yet() {
        let network = NetworkId(Uuid::nil());
        let block = "10.0.0.0/24".parse().expect("block");
        let zone = Zone::new(Uuid::nil(), "lab.internal".parse().expect("domain"), [block], []).expect("zone");
        let (names, zone) = (LeaseNames::default(), SharedZone::new(zone));
        let shown = || {
            let zone = zone.read();
            let mut shown: Vec<_> = zone.names().filter(|(_, a)| !a.is_empty()).map(|(n, _)| n.to_owned()).collect();
            shown.sort();
            shown.join(" ")
        };
        names.add(network, zone.clone());
        names.note(&LeaseChange::Put(lease(Some("web"), 9)));
        assert_eq!(shown(), "web");
        zone.update(|zone| names.update(network, zone, vec![entry("old", 8)]));
        assert_eq!(shown(), "old web");
        names.note(&LeaseChange::Put(lease(Some("renamed"), 9)));
        zone.update(|zone| names.update(network, zone, vec![entry("web", 9)]));
        assert_eq!(shown(), "renamed");
        names.note(&LeaseChange::Remove(lease(None, 9)));
        zone.update(|zone| names.update(network, zone, vec![entry("renamed", 9)]));
        assert_eq!(shown(), "");
        names.note(&LeaseChange::Put(lease(None, 8)));
        assert_eq!(shown(), "");
        names.remove(network);
        names.note(&LeaseChange::Put(lease(Some("late"), 9)));
        assert_eq!(shown(), "");
    }
}
