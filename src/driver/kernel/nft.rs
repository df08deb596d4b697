//! Our nftables tables: changes as text for libnftables, listings read back.

use crate::{
    backend::DriverError,
    datapath::{Change, Family, Mismatch, Table},
    ffi::nftables::Context,
    net::{IfName, IpNet},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::IpAddr,
};

/// What an observed table says in place of a skeleton when its rules are none that we know.
const ALTERED: &str = "altered";
/// Skeletons that we remember; a planner has a handful.
const REMEMBERED: usize = 16;
/// How many elements one command takes, so that no error text repeats a line of megabytes.
const CHUNK: usize = 256;
const NOT_FOUND: &str = "No such file or directory";

/// A table as it stands: `structure` is all but the elements, in nft's own writing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub structure: String,
    pub sets: BTreeMap<String, BTreeSet<String>>,
    /// An element that we would never write is there.
    pub foreign: bool,
}

/// The tables of one network namespace.
#[derive(Debug)]
pub(super) struct Nft {
    context: Context,
    /// Skeletons with the structure that the kernel makes of each.
    known: Vec<(Family, String, String)>,
}

impl Nft {
    pub fn open() -> Result<Self, DriverError> {
        let context = Context::new().ok_or_else(|| DriverError::Nftables("libnftables cannot be opened".into()))?;
        Ok(Self { context, known: Vec::new() })
    }

    pub fn knows(&self, family: Family, skeleton: &str) -> bool {
        self.known.iter().any(|(f, text, _)| (*f, text.as_str()) == (family, skeleton))
    }

    pub fn remember(&mut self, family: Family, skeleton: String, structure: String) {
        if self.known.len() >= REMEMBERED {
            self.known.remove(0);
        }
        self.known.push((family, skeleton, structure));
    }

    pub fn observe(&mut self, family: Family) -> Result<Option<Table>, DriverError> {
        let Some(listing) = list(&mut self.context, family).map_err(error)? else { return Ok(None) };
        let skeleton = self
            .known
            .iter()
            .find(|(f, _, structure)| *f == family && *structure == listing.structure && !listing.foreign)
            .map_or_else(|| ALTERED.to_owned(), |(_, text, _)| text.clone());
        Ok(Some(Table { skeleton, sets: listing.sets }))
    }

    /// All of the changes, or none.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), DriverError> {
        let Err(text) = self.context.run(&transaction(changes)?) else { return Ok(()) };
        if !text.contains(NOT_FOUND) {
            return Err(error(text));
        }
        // A table is gone; or an element that was to go has gone before, which is as good.
        let mut standing = BTreeMap::new();
        for family in changes.iter().filter_map(family_of) {
            standing.insert(family, list(&mut self.context, family).map_err(error)?);
        }
        let narrowed: Vec<Change> = changes.iter().map(|change| narrow(change, &standing)).collect::<Result<_, _>>()?;
        if narrowed == changes {
            return Err(error(text));
        }
        self.context.run(&transaction(&narrowed)?).map(drop).map_err(error)
    }
}

/// What the kernel makes of each skeleton: to be run in a namespace that nobody uses.
pub(super) fn structures(skeletons: &[(Family, String)]) -> Result<Vec<Option<String>>, DriverError> {
    let mut nft = Nft::open()?;
    skeletons
        .iter()
        .map(|(family, skeleton)| {
            let table = Table { skeleton: skeleton.clone(), sets: BTreeMap::new() };
            if let Err(why) = nft.apply(&[Change::ReplaceTable { family: *family, table }]) {
                tracing::warn!(%family, %why, "this kernel does not take the rules of table vmfabric");
                return Ok(None);
            }
            Ok(list(&mut nft.context, *family).map_err(error)?.map(|listing| listing.structure))
        })
        .collect()
}

/// `CONFIG_NFT_BRIDGE_META`: likewise in a namespace that nobody uses.
pub(super) fn has_bridge_meta() -> Result<bool, DriverError> {
    let rules =
        "table bridge probe {\nchain c {\ntype filter hook prerouting priority 0\nmeta ibrname \"probe\" drop\n}\n}";
    Ok(Nft::open()?.context.run(rules).is_ok())
}

fn list(context: &mut Context, family: Family) -> Result<Option<Listing>, String> {
    match context.run(&format!("list table {family} vmfabric")) {
        Ok(text) => Ok(Some(parse(&text))),
        Err(text) if text.contains(NOT_FOUND) => Ok(None),
        Err(text) => Err(text),
    }
}

fn family_of(change: &Change) -> Option<Family> {
    match change {
        Change::ReplaceTable { family, .. }
        | Change::DeleteTable { family }
        | Change::AddElements { family, .. }
        | Change::DeleteElements { family, .. } => Some(*family),
        _ => None,
    }
}

/// Leaves out of a deletion what is not there.
fn narrow(change: &Change, standing: &BTreeMap<Family, Option<Listing>>) -> Result<Change, Mismatch> {
    let table = |family| match standing.get(family) {
        Some(None) => Err(Mismatch::NoTable(*family)),
        listing => Ok(listing.and_then(Option::as_ref)),
    };
    Ok(match change {
        Change::DeleteTable { family } | Change::AddElements { family, .. } => {
            table(family)?;
            change.clone()
        }
        Change::DeleteElements { family, set, elements } => {
            let there = table(family)?.and_then(|listing| listing.sets.get(set));
            let elements = elements.iter().filter(|e| there.is_some_and(|there| there.contains(*e))).cloned().collect();
            Change::DeleteElements { family: *family, set: set.clone(), elements }
        }
        _ => change.clone(),
    })
}

/// The changes in nft's language.
fn transaction(changes: &[Change]) -> Result<String, DriverError> {
    let mut text = String::new();
    for change in changes {
        // Writing to a String cannot fail.
        let _ = match change {
            Change::ReplaceTable { family, table } => {
                let skeleton = &table.skeleton;
                let t = format!("table {family} vmfabric");
                let _ = write!(text, "{t} {{ }}\ndelete {t}\n{t} {{\n{skeleton}\n}}\n");
                table.sets.iter().try_for_each(|(set, elements)| command(&mut text, "add", *family, set, elements))?;
                Ok(())
            }
            Change::DeleteTable { family } => writeln!(text, "delete table {family} vmfabric"),
            Change::AddElements { family, set, elements } => {
                command(&mut text, "add", *family, set, elements)?;
                Ok(())
            }
            Change::DeleteElements { family, set, elements } => {
                command(&mut text, "delete", *family, set, elements)?;
                Ok(())
            }
            _ => Ok(()),
        };
    }
    Ok(text)
}

fn command(
    text: &mut String,
    verb: &str,
    family: Family,
    set: &str,
    elements: &BTreeSet<String>,
) -> Result<(), DriverError> {
    if set.is_empty() || !set.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return Err(DriverError::Nftables(format!("'{set}' cannot name a set")));
    }
    let elements: Vec<String> = elements.iter().map(|element| quote(element)).collect::<Result<_, _>>()?;
    for chunk in elements.chunks(CHUNK) {
        let _ = writeln!(text, "{verb} element {family} vmfabric {set} {{ {} }}", chunk.join(", "));
    }
    Ok(())
}

/// An element as nft reads it: each part quoted, for `10.0.0.1` may be a link's name, and links' names may be words of
/// the language. Only what is an address, a prefix or a link's name passes.
fn quote(element: &str) -> Result<String, DriverError> {
    let parts: Option<Vec<String>> = element
        .split(" . ")
        .map(|part| match (part.split_once('/'), part.parse::<IpNet>()) {
            (Some((address, length)), Ok(_)) => Some(format!("\"{address}\"/{length}")),
            (None, _) if is_plain(part) => Some(format!("\"{part}\"")),
            _ => None,
        })
        .collect();
    let bad = || DriverError::Nftables(format!("'{element}' is no element of our sets"));
    Ok(parts.ok_or_else(bad)?.join(" . "))
}

fn is_plain(part: &str) -> bool {
    part.parse::<IfName>().is_ok() || part.parse::<IpAddr>().is_ok()
}

/// Splits a listing (`nft -s list table`) into structure and elements.
fn parse(text: &str) -> Listing {
    let mut listing = Listing::default();
    let mut set = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let words = line.trim_start();
        let Some(first) = words.strip_prefix("elements = {").filter(|_| !set.is_empty()) else {
            if let Some(name) = words.strip_prefix("set ").and_then(|rest| rest.strip_suffix(" {")) {
                name.clone_into(&mut set);
                listing.sets.insert(set.clone(), BTreeSet::new());
            } else if words == "}" {
                set.clear();
            }
            // Newer versions tell there how many elements a set has.
            let fixed = if words.starts_with("size ") { line.split(" # ").next().unwrap_or(line) } else { line };
            listing.structure.push_str(fixed);
            listing.structure.push('\n');
            continue;
        };
        let mut body = first.to_owned();
        while !closed(&body) {
            let Some(line) = lines.next() else { break };
            body.push(' ');
            body.push_str(line.trim_start());
        }
        let body = body.trim_end().strip_suffix('}').unwrap_or(&body);
        let elements = listing.sets.entry(set.clone()).or_default();
        for element in split(body) {
            match unquote(element) {
                Some(element) => {
                    elements.insert(element);
                }
                None => listing.foreign = true,
            }
        }
    }
    listing
}

/// Whether a `}` outside quotes ends the text.
fn closed(body: &str) -> bool {
    body.trim_end().ends_with('}') && body.matches('"').count().is_multiple_of(2)
}

/// At commas outside quotes.
fn split(body: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    body.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
    .map(str::trim)
    .filter(|element| !element.is_empty())
}

/// An element as we write it; `None` for what we never write: ranges, comments, wildcards, timeouts.
fn unquote(element: &str) -> Option<String> {
    let parts: Option<Vec<&str>> = element
        .split(" . ")
        .map(|part| match part.strip_prefix('"').and_then(|part| part.strip_suffix('"')) {
            Some(name) => name.parse::<IfName>().is_ok().then_some(name),
            None => (part.parse::<IpAddr>().is_ok() || part.parse::<IpNet>().is_ok()).then_some(part),
        })
        .collect();
    parts.map(|parts| parts.join(" . "))
}

fn error(text: String) -> DriverError {
    if text.contains("Operation not permitted") {
        return DriverError::NotPermitted;
    }
    // nft shows the command below each error; the first says enough.
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('^'));
    let first = lines.next().unwrap_or("libnftables gives no reason").trim_start_matches("Error: ");
    let command: String = lines.next().unwrap_or_default().chars().take(200).collect();
    DriverError::Nftables(if command.is_empty() { first.to_owned() } else { format!("{first}: {command}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(elements: &[&str]) -> BTreeSet<String> {
        elements.iter().map(|&element| element.to_owned()).collect()
    }

    #[test]
    fn elements_are_quoted_and_nothing_else_passes() {
        for (element, text) in [
            ("vnet0", "\"vnet0\""),
            ("drop", "\"drop\""),
            ("192.0.2.0/24", "\"192.0.2.0\"/24"),
            ("192.0.2.1", "\"192.0.2.1\""),
            ("a . b-c", "\"a\" . \"b-c\""),
        ] {
            assert_eq!(quote(element).expect(element), text);
        }
        for bad in ["", "a b", "a\" }; flush ruleset; {", "a/b", "vnet*", "a\n", "192.0.2.1-192.0.2.1000"] {
            assert!(quote(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_listing_splits_into_structure_and_elements() {
        let listing = parse(
            "table inet vmfabric {\n\tset a {\n\t\ttype ifname\n\t\telements = { \"tap1\",\n\t\t\t     \"tap2\" }\n\t}\n\n\
             \tset b {\n\t\ttype ifname . ifname\n\t\tsize 9 # count 1\n\t\telements = { \"x\" . \"y\" }\n\t}\n\n\
             \tset n {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\telements = { 10.0.0.1, 192.0.2.0/24 }\n\t}\n}\n",
        );
        assert_eq!(listing.sets["a"], set(&["tap1", "tap2"]));
        assert_eq!(listing.sets["b"], set(&["x . y"]));
        assert_eq!(listing.sets["n"], set(&["10.0.0.1", "192.0.2.0/24"]));
        assert!(!listing.foreign && !listing.structure.contains("elements") && !listing.structure.contains("count"));
    }

    #[test]
    fn what_we_never_write_is_foreign() {
        for foreign in ["10.0.0.2-10.0.0.9", "\"vnet*\"", "\"a\" comment \"b, } c\"", "\"a\" timeout 3s"] {
            let listing = parse(&format!(
                "table inet vmfabric {{\n\tset a {{\n\t\telements = {{ \"x\", {foreign} }}\n\t}}\n}}\n"
            ));
            assert!(listing.foreign, "{foreign}");
            assert_eq!(listing.sets["a"], set(&["x"]), "{foreign}");
        }
    }
}
