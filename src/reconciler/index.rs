use super::View;
use crate::{
    intent::{NicSource, Origin, ResourceName, Segment},
    net::{IfName, MacAddr},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// What tells whether a NIC is ours, for a hook that finds no daemon: kept on disk, and small.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HookIndex {
    pub networks: BTreeSet<String>,
    pub bridges: BTreeSet<IfName>,
    /// NICs that a port was made for beforehand.
    pub nics: BTreeSet<(Uuid, MacAddr)>,
}

impl HookIndex {
    /// Where the hook finds it.
    pub const PATH: &str = "/var/lib/vmfabric/hook-index.json";

    pub fn of(view: &View) -> Self {
        let intent = &view.intent;
        let local = intent.networks().filter_map(|network| network.bridge.clone());
        // On somebody else's bridge a NIC that names no network is ours where one of ours is flat there.
        let flat = |name: &ResourceName| {
            let wanted = Segment::Flat { physical_network: name.clone() };
            intent.networks().any(|network| network.segment == wanted)
        };
        let physical = view.host.physical_networks.iter().filter(|(name, physical)| physical.is_own() || flat(name));
        let physical = physical.map(|(_, physical)| physical.bridge().clone());
        let admin = intent.ports().filter(|port| port.origin == Origin::Admin);
        Self {
            networks: intent.networks().map(|network| network.name.to_string()).collect(),
            bridges: local.chain(physical).collect(),
            nics: admin.filter_map(|port| Some((port.device.as_ref()?.domain, port.mac))).collect(),
        }
    }

    /// Whether a NIC is on a network of ours. `wish`: vmfabric's metadata speaks of it.
    pub fn claims(&self, domain: Uuid, mac: MacAddr, source: &NicSource, wish: bool) -> bool {
        let placed = match source {
            NicSource::Network { name, bridge } => {
                self.networks.contains(name) || bridge.as_ref().is_some_and(|bridge| self.bridges.contains(bridge))
            }
            NicSource::Bridge(bridge) => self.bridges.contains(bridge),
            NicSource::Ethernet | NicSource::Other => false,
        };
        wish || placed || self.nics.contains(&(domain, mac))
    }

    /// The same where the index is there and cannot be read: it may have named any network and any bridge.
    pub fn may_claim(source: &NicSource, wish: bool) -> bool {
        wish || matches!(source, NicSource::Network { .. } | NicSource::Bridge(_))
    }
}
