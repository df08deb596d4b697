use crate::net::{AddressRange, MacAddr};
use std::net::IpAddr;

/// Picks a free address for a NIC. The search starts at a place that its MAC decides, so that the same NIC finds the
/// same address again although nothing was kept of it, and so that a choice costs the same however many are held.
///
/// `None`: all of the pools are taken.
pub fn pick_address(pools: &[AddressRange], mac: MacAddr, taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let total: u128 = pools.iter().map(AddressRange::size).sum();
    if total == 0 {
        return None;
    }
    let start = spread(mac) % total;
    let mut skipped = 0;
    let (mut head, mut tail): (Vec<_>, Vec<_>) = Default::default();
    for pool in pools {
        let cut = start.saturating_sub(skipped).min(pool.size());
        tail.push(pool.iter_from(cut));
        head.push(pool.iter().take(usize::try_from(cut).unwrap_or(usize::MAX)));
        skipped += pool.size();
    }
    // A pool of 2^64 addresses is never searched whole: no more addresses can be taken than there are ports.
    tail.into_iter().flatten().chain(head.into_iter().flatten()).find(|address| !taken(*address))
}

/// FNV-1a: a hash that is the same in every release, as the addresses that follow from it should be.
fn spread(mac: MacAddr) -> u128 {
    let hash = mac
        .octets()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3));
    u128::from(hash ^ (hash >> 32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn finds_every_address_and_then_none() {
        let pools: Vec<AddressRange> =
            ["10.0.0.10-10.0.0.19", "10.0.0.40-10.0.0.44"].iter().map(|p| p.parse().expect("range")).collect();
        let mac: MacAddr = "52:54:00:00:00:07".parse().expect("mac");
        let mut taken = BTreeSet::new();
        while let Some(address) = pick_address(&pools, mac, |a| taken.contains(&a)) {
            assert!(taken.insert(address), "{address} twice");
            assert!(pools.iter().any(|p| p.contains(address)));
        }
        assert_eq!(taken.len(), 15);
        assert_eq!(pick_address(&pools, mac, |_| false), pick_address(&pools, mac, |_| false));
        assert_eq!(pick_address(&[], mac, |_| false), None);
    }
}
