//! What the servers of all networks have done, for whoever asks: beside the loop, which starts and stops them.

use super::{
    dhcpv4::{DhcpMeter, Stopped},
    dhcpv6::Ipv6Meter,
    dns::{DnsMeter, Took},
};
use crate::protocol::{dhcpv4, dhcpv6, dns::DnsStats};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use uuid::Uuid;

/// How long a server may take to tell.
const PATIENCE: Duration = Duration::from_secs(1);

/// The servers that run, by network.
#[derive(Debug, Default)]
pub struct Meters(Mutex<BTreeMap<Uuid, NetworkMeters>>);

#[derive(Debug, Clone, Default)]
pub struct NetworkMeters {
    pub dhcp: Option<DhcpMeter>,
    pub ipv6: Option<Ipv6Meter>,
    pub dns: Option<DnsMeter>,
}

/// What one network's servers did since they were started.
#[derive(Debug, Default)]
pub struct Reading {
    /// With how many packets were left unread, as their port sent too many.
    pub dhcp: Option<(dhcpv4::Stats, u64)>,
    /// Likewise.
    pub dhcpv6: Option<(dhcpv6::Stats, u64)>,
    pub dns: Option<(DnsStats, Took)>,
}

impl Meters {
    pub fn set(&self, network: Uuid, meters: NetworkMeters) {
        match meters.dhcp.is_some() || meters.ipv6.is_some() || meters.dns.is_some() {
            true => drop(self.all().insert(network, meters)),
            false => drop(self.all().remove(&network)),
        }
    }

    /// Of all; a server that does not answer in time is left out.
    pub async fn read(&self) -> BTreeMap<Uuid, Reading> {
        let all = self.all().clone();
        let mut readings = BTreeMap::new();
        for (network, meters) in all {
            let dhcp = in_time(meters.dhcp.as_ref().map(DhcpMeter::stats)).await;
            let dhcpv6 = in_time(meters.ipv6.as_ref().map(Ipv6Meter::stats)).await;
            let dns = meters.dns.and_then(|dns| dns.read());
            readings.insert(network, Reading { dhcp, dhcpv6, dns });
        }
        readings
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Uuid, NetworkMeters>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn in_time<T>(answer: Option<impl Future<Output = Result<T, Stopped>>>) -> Option<T> {
    timeout(PATIENCE, answer?).await.ok()?.ok()
}

/// Asks a server that runs.
pub(super) async fn ask<C, T>(
    commands: mpsc::Sender<C>,
    command: impl FnOnce(oneshot::Sender<T>) -> C,
) -> Result<T, Stopped> {
    let (answer, told) = oneshot::channel();
    commands.send(command(answer)).await.map_err(|_| Stopped)?;
    // It would keep the server alive.
    drop(commands);
    told.await.map_err(|_| Stopped)
}
