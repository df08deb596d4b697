//! Our nftables tables: changes as text for libnftables, listings read back.

use crate::{
    backend::DriverError,
    datapath::{Change, Datapath, Family, Hold, Mismatch, Obstacle, Set, Table, Text, UserChain},
    ffi::nftables::Context,
    net::{IfName, protocol},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// How many elements one command takes, so that no error text repeats a line of megabytes.
const CHUNK: usize = 256;
const NOT_FOUND: &str = "No such file or directory";

/// The tables of one network namespace.
#[derive(Debug)]
pub(super) struct Nft {
    context: Context,
    /// Its tables are held ([`Hold`]) by the context's socket.
    holds: bool,
}

/// What a table is held by. The kernel refuses changes of a held table that leave it out.
const HELD: &str = "flags owner, persist;";

impl Nft {
    pub fn open(holds: bool) -> Result<Self, DriverError> {
        let context = Context::new().ok_or_else(|| DriverError::Nftables("libnftables cannot be opened".into()))?;
        Ok(Self { context, holds })
    }

    pub fn observe(&mut self, family: Family) -> Result<Option<Table>, DriverError> {
        list(&mut self.context, family).map_err(error)
    }

    /// Every chain of every table, whosever it is.
    pub fn chains(&mut self) -> Result<Vec<Chain>, DriverError> {
        self.context.run("list chains").map(|text| parse_chains(&text)).map_err(error)
    }

    /// Base chains of others that drop what they do not know, in tables where no rule names a link of ours. Tables that
    /// have a place for our entries are none.
    pub fn obstacles(&mut self, chains: &[Chain], datapath: &Datapath) -> Result<Vec<Obstacle>, DriverError> {
        let ours: BTreeSet<&IfName> = datapath
            .links
            .iter()
            .filter(|(_, link)| link.is_owned() && link.master().is_none())
            .map(|(n, _)| n)
            .collect();
        let mut found = Vec::new();
        for chain in chains {
            let (family, table) = (chain.family.as_str(), chain.table.as_str());
            let Some((hook, true)) = &chain.base else { continue };
            let shown = matches!((family, hook.as_str()), ("ip" | "inet", "forward" | "input") | ("bridge", _));
            let provided = |c: &Chain| {
                let users = UserChain::ALL.iter().any(|user| c.name == user.name(false));
                (c.family.as_str(), c.table.as_str()) == (family, table) && users
            };
            if !shown || table == "vmfabric" || chains.iter().any(provided) {
                continue;
            }
            // Gone meanwhile, or of a name that cannot be said: no more is known of it.
            let Ok(text) = self.context.run(&format!("list table {family} {table}")) else { continue };
            let named = |link: &IfName| text.contains(&format!("\"{link}\"")) || text.contains("\"vmf-*\"");
            let links: BTreeSet<IfName> = ours.iter().filter(|link| !named(link)).map(|link| (*link).clone()).collect();
            if !links.is_empty() {
                let [family, table, chain] = [&chain.family, &chain.table, &chain.name].map(String::clone);
                found.push(Obstacle::Chain { family, table, chain, hook: hook.clone(), links });
            }
        }
        Ok(found)
    }

    /// All of the changes, or none.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), DriverError> {
        let Err(text) = self.context.run(&transaction(changes, self.holds)?) else { return Ok(()) };
        if !text.contains(NOT_FOUND) {
            return Err(error(text));
        }
        // A table is gone; or an element that was to go has gone before, which is as good.
        let mut standing = BTreeMap::new();
        for family in changes.iter().filter_map(Change::family) {
            standing.insert(family, list(&mut self.context, family).map_err(error)?);
        }
        let narrowed: Vec<Change> = changes.iter().map(|change| narrow(change, &standing)).collect::<Result<_, _>>()?;
        if narrowed == changes {
            return Err(error(text));
        }
        self.context.run(&transaction(&narrowed, self.holds)?).map(drop).map_err(error)
    }
}

/// A chain, as others make them too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub family: String,
    pub table: String,
    pub name: String,
    /// Of a base chain: the hook, and whether it drops what no rule decides on.
    pub base: Option<(String, bool)>,
}

fn parse_chains(text: &str) -> Vec<Chain> {
    let (mut chains, mut family, mut table) = (Vec::<Chain>::new(), String::new(), String::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["table", of, name, "{", ..] => (family, table) = ((*of).to_owned(), (*name).to_owned()),
            ["chain", name, "{"] => chains.push(Chain {
                family: family.clone(),
                table: table.clone(),
                name: (*name).to_owned(),
                base: None,
            }),
            ["type", "filter", "hook", hook, rest @ ..] => {
                if let Some(chain) = chains.last_mut() {
                    chain.base = Some(((*hook).to_owned(), rest.ends_with(&["policy", "drop;"])));
                }
            }
            _ => {}
        }
    }
    chains
}

/// What nft lists for each table once it is loaded: to be run in a namespace that nobody uses.
pub(super) fn listed(tables: Vec<(Family, Table)>) -> Result<Vec<(Family, Table)>, DriverError> {
    let mut nft = Nft::open(false)?;
    let mut told = Vec::new();
    for (family, mut table) in tables {
        table.hold = Hold::Open;
        table.sets.values_mut().for_each(|set| set.elements.clear());
        nft.apply(&[Change::ReplaceTable { family, table }])?;
        told.extend(nft.observe(family)?.map(|table| (family, table)));
        nft.apply(&[Change::DeleteTable { family }])?;
    }
    Ok(told)
}

/// Whether the kernel takes a rule in a chain of the bridge family; likewise in a namespace that nobody uses.
pub(super) fn takes(rule: &str) -> Result<bool, DriverError> {
    let hook = "type filter hook prerouting priority 0";
    let commands = format!("table bridge probe {{\nchain c {{\n{hook}\n{rule}\n}}\n}}\ndelete table bridge probe");
    Ok(Nft::open(false)?.context.run(&commands).is_ok())
}

/// Whether kernel and libnftables know tables that are held; likewise.
pub(super) fn knows_holds() -> Result<bool, DriverError> {
    let commands = format!("table inet probe {{ {HELD} }}\ndestroy table inet probe");
    Ok(Nft::open(false)?.context.run(&commands).is_ok())
}

fn list(context: &mut Context, family: Family) -> Result<Option<Table>, String> {
    match context.run(&format!("list table {family} vmfabric")) {
        Ok(text) => Ok(Some(parse(&text))),
        Err(text) if text.contains(NOT_FOUND) => Ok(None),
        Err(text) => Err(text),
    }
}

/// Leaves out of a deletion what is not there.
fn narrow(change: &Change, standing: &BTreeMap<Family, Option<Table>>) -> Result<Change, Mismatch> {
    let Some(family) = change.family() else { return Ok(change.clone()) };
    match (change, standing.get(&family)) {
        (Change::ReplaceTable { .. }, _) | (_, None) => Ok(change.clone()),
        (_, Some(None)) => Err(Mismatch::NoTable(family)),
        (Change::DeleteElements { set, elements, .. }, Some(Some(table))) => {
            let there = table.elements(set);
            let elements = elements.iter().filter(|e| there.is_some_and(|there| there.contains(*e))).cloned().collect();
            Ok(Change::DeleteElements { family, set: set.clone(), elements })
        }
        _ => Ok(change.clone()),
    }
}

/// The changes in nft's language.
fn transaction(changes: &[Change], holds: bool) -> Result<String, DriverError> {
    let mut text = String::new();
    let mut rest = changes;
    while let Some(first) = rest.first() {
        let Some(family) = first.family() else { return Ok(text) };
        // Chains may refer to one another, and to the sets beside them: they go in as one block.
        let is_part =
            |c: &Change| matches!(c, Change::AddSet { .. } | Change::PutChain { .. }) && c.family() == Some(family);
        let parts = rest.iter().take_while(|change| is_part(change)).count();
        if parts > 0 {
            block(&mut text, family, &rest[..parts], holds)?;
            rest = &rest[parts..];
            continue;
        }
        let deletions = rest
            .iter()
            .take_while(|change| matches!(change, Change::DeleteChain { .. }) && change.family() == Some(family))
            .count();
        if deletions > 0 {
            delete_chains(&mut text, family, &rest[..deletions])?;
            rest = &rest[deletions..];
            continue;
        }
        single(&mut text, first)?;
        rest = &rest[1..];
    }
    Ok(text)
}

// Writing to a String cannot fail: what `write!` gives is dropped throughout.

fn block(text: &mut String, family: Family, parts: &[Change], holds: bool) -> Result<(), DriverError> {
    for part in parts {
        if let Change::PutChain { chain, rules, .. } = part {
            let chain = name(chain)?;
            let hook = rules.hook().map(|hook| format!(" {{ {hook} }}")).unwrap_or_default();
            let _ = write!(text, "add chain {family} vmfabric {chain}{hook}\nflush chain {family} vmfabric {chain}\n");
        }
    }
    let held = if holds { HELD } else { "" };
    let _ = writeln!(text, "table {family} vmfabric {{ {held}");
    for part in parts {
        match part {
            Change::AddSet { set, spec, .. } => define_set(text, set, spec)?,
            Change::PutChain { chain, rules, .. } => define_chain(text, chain, rules)?,
            _ => {}
        }
    }
    text.push_str("}\n");
    Ok(())
}

fn define_set(text: &mut String, set: &str, spec: &Text) -> Result<(), DriverError> {
    let (kind, body) = spec.source.split_once(' ').unwrap_or(("set", ""));
    let _ = writeln!(text, "{kind} {} {{\n{body}\n}}", name(set)?);
    Ok(())
}

fn define_chain(text: &mut String, chain: &str, rules: &Text) -> Result<(), DriverError> {
    let _ = writeln!(text, "chain {} {{\n{}\n}}", name(chain)?, rules.source);
    Ok(())
}

/// Chains that are to go may call one another.
fn delete_chains(text: &mut String, family: Family, deletions: &[Change]) -> Result<(), DriverError> {
    for verb in ["flush", "delete"] {
        for deletion in deletions {
            if let Change::DeleteChain { chain, .. } = deletion {
                let _ = writeln!(text, "{verb} chain {family} vmfabric {}", name(chain)?);
            }
        }
    }
    Ok(())
}

fn single(text: &mut String, change: &Change) -> Result<(), DriverError> {
    match change {
        Change::ReplaceTable { family, table } => {
            let t = format!("table {family} vmfabric");
            let _ = match table.hold {
                // One that is there may be held or open: `add` knows only one of them.
                Hold::Held => writeln!(text, "destroy {t}\n{t} {{ {HELD}"),
                _ => writeln!(text, "{t} {{ }}\ndelete {t}\n{t} {{"),
            };
            for (set, Set { spec, .. }) in &table.sets {
                define_set(text, set, spec)?;
            }
            for (chain, rules) in &table.chains {
                define_chain(text, chain, rules)?;
            }
            text.push_str("}\n");
            table.sets.iter().try_for_each(|(set, content)| elements(text, "add", *family, set, &content.elements))
        }
        Change::ClaimTable { family } => {
            let _ = writeln!(text, "table {family} vmfabric {{ {HELD} }}");
            Ok(())
        }
        Change::DeleteTable { family } => {
            let _ = writeln!(text, "delete table {family} vmfabric");
            Ok(())
        }
        Change::DeleteSet { family, set } => {
            let _ = writeln!(text, "delete set {family} vmfabric {}", name(set)?);
            Ok(())
        }
        Change::AddElements { family, set, elements: new } => elements(text, "add", *family, set, new),
        Change::DeleteElements { family, set, elements: gone } => elements(text, "delete", *family, set, gone),
        Change::ForgetElements { family, set, elements: gone } => {
            // What is not there cannot be deleted.
            elements(text, "add", *family, set, gone)?;
            elements(text, "delete", *family, set, gone)
        }
        _ => Ok(()),
    }
}

fn elements(
    text: &mut String,
    verb: &str,
    family: Family,
    set: &str,
    elements: &BTreeSet<String>,
) -> Result<(), DriverError> {
    let set = name(set)?;
    if let Some(bad) = elements.iter().find(|element| !is_element(element)) {
        return Err(DriverError::Nftables(format!("'{bad}' is no element of our sets")));
    }
    let elements: Vec<&str> = elements.iter().map(String::as_str).collect();
    for chunk in elements.chunks(CHUNK) {
        let _ = writeln!(text, "{verb} element {family} vmfabric {set} {{ {} }}", chunk.join(", "));
    }
    Ok(())
}

/// A name of ours for a set or a chain, as it is.
fn name(name: &str) -> Result<&str, DriverError> {
    let good = !name.is_empty() && name.len() < 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if good { Ok(name) } else { Err(DriverError::Nftables(format!("'{name}' cannot name a set or a chain"))) }
}

/// Whether it is an element as we write them: links' names in quotes, addresses, prefixes and numbers, joined by ` . `;
/// a map's value after ` : `. No ranges, comments, wildcards, timeouts.
fn is_element(element: &str) -> bool {
    let (key, value) = element.split_once(" : ").map_or((element, None), |(key, value)| (key, Some(value)));
    let value_is_good = value.is_none_or(|value| {
        let verdict = ["goto ", "jump "].iter().find_map(|word| value.strip_prefix(word)).unwrap_or(value);
        verdict.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !verdict.is_empty()
    });
    let part_is_good = |part: &str| match part.strip_prefix('"').and_then(|part| part.strip_suffix('"')) {
        Some(name) => name.parse::<IfName>().is_ok(),
        None => {
            let first = part.bytes().next();
            let plain = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'.' | b':' | b'/' | b'x');
            first.is_some_and(|b| b.is_ascii_hexdigit() || b == b':') && part.bytes().all(plain)
                || protocol::number(part).is_some_and(|n| protocol::has_ports(n) && protocol::name(n) == part)
        }
    };
    value_is_good && key.split(" . ").all(part_is_good)
}

/// Reads a listing (`nft -s list table`).
fn parse(text: &str) -> Table {
    let mut table = Table::default();
    let mut lines = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty());
    while let Some(line) = lines.next() {
        let Some(head) = line.strip_suffix('{') else {
            match line.strip_prefix("flags ") {
                Some("owner,persist") => table.hold = Hold::Held,
                Some("persist") => table.hold = Hold::Left,
                // Other flags may put it to sleep.
                _ => table.foreign |= line != "}",
            }
            continue;
        };
        let mut words = head.split_whitespace();
        let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
        let body = lines.by_ref().take_while(|line| *line != "}");
        match kind {
            "set" | "map" => {
                let set = parse_set(kind, body, &mut table.foreign);
                table.sets.insert(name, set);
            }
            "chain" => {
                let rules: Vec<&str> = body.collect();
                let text = Text { source: String::new(), listed: rules.join("\n") };
                table.chains.insert(name, text);
            }
            _ => {
                body.for_each(drop);
                table.foreign = true;
            }
        }
    }
    table
}

fn parse_set<'a>(kind: &str, mut body: impl Iterator<Item = &'a str>, foreign: &mut bool) -> Set {
    let (mut spec, mut found) = (vec![kind.to_owned()], BTreeSet::new());
    while let Some(line) = body.next() {
        let Some(first) = line.strip_prefix("elements = {") else {
            // Newer versions tell there how many elements a set has.
            let fixed = if line.starts_with("size ") { line.split(" # ").next().unwrap_or(line) } else { line };
            spec.push(fixed.to_owned());
            continue;
        };
        let mut elements = first.to_owned();
        while !closed(&elements) {
            let Some(line) = body.next() else { break };
            elements.push(' ');
            elements.push_str(line);
        }
        let elements = elements.trim_end().strip_suffix('}').unwrap_or(&elements);
        found.extend(split(elements).map(str::to_owned));
    }
    let mut set = Set { spec: Text { source: String::new(), listed: spec.join("\n") }, elements: found };
    if set.is_dynamic() {
        set.elements.clear();
    }
    *foreign |= !set.elements.iter().all(|element| is_element(element));
    set
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

    #[test]
    fn only_elements_pass() {
        for good in [
            "\"vnet0\"",
            "\"drop\"",
            "\"10.0.0.1\"",
            "192.0.2.0/24",
            "192.0.2.1",
            "::/0",
            "\"a\" . \"b-c\"",
            "\"a\" . 52:54:00:00:00:01 . fe80::1",
            "\"a\" . 0xfe80000000000000 : 7",
            "\"a\" : goto in_1",
            "\"a\" : jump group_1",
            "\"a\" : accept",
        ] {
            assert!(is_element(good), "{good}");
        }
        for bad in [
            "",
            "a b",
            "a\" }; flush ruleset; {",
            "\"a/b\"",
            "\"vnet*\"",
            "a\n",
            "10.0.0.2-10.0.0.9",
            "\"a\" comment \"b\"",
            "\"a\" timeout 3s",
            "\"a\" : goto x; flush",
            "\"a\" : ",
        ] {
            assert!(!is_element(bad), "{bad}");
        }
    }

    #[test]
    fn a_listing_is_read() {
        let table = parse(
            "table inet vmfabric {\n\tset a {\n\t\ttype ifname\n\t\telements = { \"tap1\",\n\t\t\t     \"tap2\" }\n\t}\n\n\
             \tset b {\n\t\ttype ifname . ifname\n\t\tsize 9 # count 1\n\t\telements = { \"x\" . \"y\" }\n\t}\n\n\
             \tset d {\n\t\ttype ifname\n\t\tflags dynamic\n\t\telements = { \"x\" counter }\n\t}\n\n\
             \tmap m {\n\t\ttype ifname : verdict\n\t\telements = { \"x\" : goto c }\n\t}\n\n\
             \tchain c {\n\t\tip saddr { 10.0.0.1, 10.0.0.2 } drop\n\t\taccept\n\t}\n}\n",
        );
        let elements = |name: &str| table.sets[name].elements.iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(elements("a"), ["\"tap1\"", "\"tap2\""]);
        assert_eq!(elements("b"), ["\"x\" . \"y\""]);
        assert!(elements("d").is_empty());
        assert_eq!(elements("m"), ["\"x\" : goto c"]);
        assert_eq!(table.sets["b"].spec.listed, "set\ntype ifname . ifname\nsize 9");
        assert_eq!(table.chains["c"].listed, "ip saddr { 10.0.0.1, 10.0.0.2 } drop\naccept");
        assert!(!table.foreign);
    }

    #[test]
    fn what_we_never_write_is_foreign() {
        for strange in ["10.0.0.2-10.0.0.9", "\"vnet*\"", "\"a\" comment \"b, } c\"", "\"a\" timeout 3s"] {
            let table = parse(&format!(
                "table inet vmfabric {{\n\tset a {{\n\t\telements = {{ \"x\", {strange} }}\n\t}}\n}}\n"
            ));
            assert!(table.foreign && table.sets["a"].elements.contains("\"x\""), "{strange}");
        }
        assert!(parse("table inet vmfabric {\n\tflags dormant\n}\n").foreign);
        assert!(parse("table inet vmfabric {\n\tcounter c {\n\t\tpackets 0\n\t}\n}\n").foreign);
    }
}
