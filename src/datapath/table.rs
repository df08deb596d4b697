use crate::net::IfName;
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

/// One of our tables, `table FAMILY vmfabric`: sets and maps, and the chains whose rules look into them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    pub sets: BTreeMap<String, Set>,
    pub chains: BTreeMap<String, Text>,
    /// Observed: holds what we never make, so that it must be made anew.
    pub foreign: bool,
    pub hold: Hold,
}

/// Who may change a table (`owner` and `persist` of nft(8)'s table flags).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hold {
    /// Everybody with the capability; `nft flush ruleset` takes it away.
    #[default]
    Open,
    /// The process that claimed it has ended: everybody, until another claims it.
    Left,
    /// The process that claimed it alone, as long as it lives.
    Held,
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Set {
    /// `set` or `map`, then its body without elements: `set type ifname`.
    pub spec: Text,
    /// Each as nft writes it: `"vnet0"`, `192.0.2.0/24`, `"a" . "b"`, and of a map `KEY : VALUE`. Nothing of a set that
    /// packets fill (`flags dynamic`).
    pub elements: BTreeSet<String>,
}

/// Part of a table in nft's language. Two are equal where nft lists them alike.
#[derive(Debug, Clone, Default)]
pub struct Text {
    /// What is loaded; empty where observed. Not always what is listed, even in meaning: listings leave out what a
    /// rule's other words seem to imply.
    pub source: String,
    /// What nft lists once it is loaded, as far as is known.
    pub listed: String,
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.listed == other.listed
    }
}

impl Eq for Text {}

impl From<String> for Text {
    fn from(source: String) -> Self {
        Self { listed: source.clone(), source }
    }
}

impl From<&str> for Text {
    fn from(source: &str) -> Self {
        source.to_owned().into()
    }
}

impl Text {
    /// Whether it is a chain that the kernel calls, whose first line cannot be changed while it is there.
    pub fn hook(&self) -> Option<&str> {
        self.listed.lines().next().map(str::trim).filter(|line| line.starts_with("type "))
    }
}

impl Set {
    pub fn new(spec: &str, elements: BTreeSet<String>) -> Self {
        Self { spec: spec.into(), elements }
    }

    /// Whether packets fill it.
    pub fn is_dynamic(&self) -> bool {
        self.spec.listed.lines().any(|line| line.trim_start().starts_with("flags") && line.contains("dynamic"))
    }

    /// The elements that begin with a link.
    pub fn of_link(&self, link: &IfName) -> impl Iterator<Item = &String> {
        let first = link_element(link);
        self.elements.range(first.clone()..).take_while(move |element| element.starts_with(&first))
    }
}

impl Table {
    pub fn elements(&self, set: &str) -> Option<&BTreeSet<String>> {
        self.sets.get(set).map(|set| &set.elements)
    }

    /// Whether a link is an element of a set of links.
    pub fn has_link(&self, set: &str, link: &str) -> bool {
        self.elements(set).is_some_and(|elements| elements.contains(&link_element(link)))
    }

    /// Every text, to be told what nft lists for it.
    pub fn texts_mut(&mut self) -> impl Iterator<Item = &mut Text> {
        self.sets.values_mut().map(|set| &mut set.spec).chain(self.chains.values_mut())
    }
}

/// A link as nft writes it as an element.
pub fn link_element(link: impl fmt::Display) -> String {
    format!("\"{link}\"")
}

/// The link that an element begins with.
pub fn element_link(element: &str) -> Option<IfName> {
    IfName::new(element.strip_prefix('"')?.split_once('"')?.0).ok()
}
