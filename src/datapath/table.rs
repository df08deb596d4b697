use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// An nftables family that we keep a table in (nft(8), "ADDRESS FAMILIES").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Bridge,
    Inet,
}

impl Family {
    pub fn as_str(self) -> &'static str {
        match self {
            Family::Bridge => "bridge",
            Family::Inet => "inet",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The set of the bridge table whose elements are the ports that may speak: one enters last and leaves first.
pub const BOUND: &str = "bound";

/// One of our tables: a fixed skeleton of sets and chains, and the elements of the sets, which alone change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// The body of `table FAMILY vmfabric { … }` in nft's language, without elements. Observed: the text that it was
    /// loaded from where the kernel's rules are still those, else something that equals no skeleton.
    pub skeleton: String,
    /// Elements by set, each as nft writes it: `vnet0`, `192.0.2.0/24`, `a . b`.
    pub sets: BTreeMap<String, BTreeSet<String>>,
}
