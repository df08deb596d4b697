//! What DHCPv4 and DHCPv6 have in common: leases' times, whom they are counted for, and the table of who has what.

mod stock;
mod table;

pub use table::Limits;
pub(in crate::protocol) use table::{Binding, End, GRACE, Holder, InFlight, State, Table};

use crate::net::MacAddr;
use std::{fmt, hash::Hash};

/// Seconds since 1970, by a clock that nobody sets while leases run: they outlive the process and the boot.
pub type UnixSeconds = u64;

/// The lease time that has no end (RFC 2131 section 3.3, RFC 8415 section 7.7), and the expiry of such a lease.
pub const INFINITE: u32 = u32::MAX;
pub const NEVER: UnixSeconds = u64::MAX;

/// A port of the host, by which what one guest takes is counted: the interface where it is known, else the frame's
/// source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(u64);

impl Origin {
    pub fn interface(index: u32) -> Self {
        Self(u64::from(index))
    }

    pub fn mac(mac: MacAddr) -> Self {
        let [a, b, c, d, e, f] = mac.octets();
        Self(u64::from_be_bytes([1, 0, a, b, c, d, e, f]))
    }
}

/// What the lease store has to do. Its key is (network, address).
///
/// Nothing is removed when a lease runs out: the row stays until the address goes to another client, so that a client
/// that comes back gets its old address, across restarts too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseChange<L> {
    /// Insert, or replace whatever lease the address had.
    Put(L),
    /// Delete the row of this network and address, if there is one.
    Remove(L),
}

impl<L> LeaseChange<L> {
    pub fn lease(&self) -> &L {
        match self {
            Self::Put(lease) | Self::Remove(lease) => lease,
        }
    }
}

/// What there is to be had, in groups that are handed out by themselves: a subnet's addresses, say.
pub(in crate::protocol) trait Space {
    /// What is leased.
    type Address: Copy + Ord + Hash + fmt::Debug;
    type Client: Clone + Eq + Hash + fmt::Debug;
    /// Sorts before every address.
    const LOWEST: Self::Address;

    fn groups(&self) -> usize;
    /// How many reservations there are.
    fn hosts(&self) -> usize;
    /// How many addresses the pools span, saturating.
    fn pooled(&self) -> usize;
    /// The group that an address is of.
    fn group_of(&self, address: Self::Address) -> Option<usize>;
    /// The group whose pools may give this address to an unknown client.
    fn dynamic_at(&self, address: Self::Address) -> Option<usize>;
    /// The first and last number of one pool of a group.
    fn pool(&self, group: usize, index: usize) -> Option<(u128, u128)>;
    /// The address of a number in a pool of the group.
    fn address(&self, group: usize, number: u128) -> Self::Address;
    /// Whether an unknown client may hold an address that lies in a pool of this group.
    fn assignable(&self, group: usize, address: Self::Address) -> bool;
    /// Whether an address that was never handed out is looked for on the link before it is.
    fn probes(&self) -> bool;
}
