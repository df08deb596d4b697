//! The direction of imports, and what the pure modules do without (docs/architecture.md, "Layers").
//!
//! 1. A first-level module of `src/` uses only modules of earlier layers in [`LAYERS`]; modules of one layer do not use
//!    each other. A binary uses only what [`BINARIES`] grants it.
//! 2. The modules in [`PURE`] use nothing of [`IMPURE`]: `now` and random bits come in as arguments.
//! 3. `unsafe` stands only where [`UNSAFE`] says.
//!
//! Code that is compiled for tests alone (`#[cfg(test)]`, or in a module that is) is free of 1 and 2.
//!
//! The source is read as tokens, as the compiler reads it: comments, texts and formatting cannot mislead, and paths
//! within macros count too. Modules are found by their `mod` declarations from `src/lib.rs` on.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const LAYERS: &[&[&str]] = &[
    &["net"],
    &["intent", "datapath"],
    &["policy"],
    &["planner", "diff", "protocol"],
    &["backend", "ffi"],
    &["store", "libvirt", "driver"],
    &["server"],
    &["reconciler"],
    &["dbus", "metrics"],
    &["cli", "daemon"],
];

/// Modules that use less than their layer would let them: the command line is a client of the bus and nothing more.
const NARROW: &[(&str, &[&str])] = &[("ffi", &[]), ("cli", &["net", "intent", "dbus"])];

const BINARIES: &[(&str, &[&str])] = &[
    ("vmfabric", &["cli"]),
    ("vmfabricd", &["daemon"]),
    // The hook shares formats with the daemon, and the index that it reads when the daemon is dead.
    ("vmfabric-hook", &["intent", "libvirt", "server", "reconciler"]),
];

const PURE: &[&str] = &["net", "intent", "datapath", "policy", "planner", "diff", "protocol"];

/// Paths, or beginnings of paths; the last, without `::`, is a name wherever it stands.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::stdin",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "getrandom",
    "libc",
    "netlink_sys",
    "nix",
    "rand",
    "rtnetlink",
    "rusqlite",
    "socket2",
    "tokio",
    "virt",
    "zbus",
    "new_v4",
];

/// Files, or folders, with `unsafe` in them, and how often.
const UNSAFE: &[(&str, usize)] =
    &[("src/ffi/", usize::MAX), ("src/libvirt/events.rs", usize::MAX), ("src/daemon/mod.rs", 1)];

/// A path that source text names: `crate::net::IfName`, say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mention {
    path: Vec<String>,
    test: bool,
}

/// A `mod name;`.
#[derive(Debug)]
struct Declaration {
    name: String,
    /// Of `#[path = "…"]`.
    file: Option<String>,
    /// The modules in braces around it.
    inside: Vec<String>,
    test: bool,
}

#[derive(Debug, Default)]
struct Source {
    mentions: Vec<Mention>,
    modules: Vec<Declaration>,
    /// How often the word stands there.
    unsafes: usize,
}

impl Source {
    /// `module`: the path of the module that the text is, for `super`.
    fn read(text: &str, module: &[String], test: bool) -> Self {
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{module:?}: {error}"));
        let mut source = Self::default();
        source.scan(tokens, module, &[], test);
        source
    }

    fn scan(&mut self, tokens: TokenStream, module: &[String], inside: &[String], test: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        // Attributes wait for the item that they belong to, which is a test's until this token.
        let (mut attributes, mut test_until) = (Vec::new(), 0);
        let mut at = 0;
        while at < tokens.len() {
            let here = test || at < test_until;
            match &tokens[at] {
                TokenTree::Punct(p) if p.as_char() == '#' => {
                    if let Some(TokenTree::Group(group)) = tokens.get(at + 1) {
                        attributes.push(group.stream());
                        let cfg_test = group.stream().to_string().replace(' ', "") == "cfg(test)";
                        if cfg_test && group.delimiter() == Delimiter::Bracket {
                            test_until = test_until.max(end_of_item(&tokens, at + 2));
                        }
                        self.scan(group.stream(), module, inside, here);
                        at += 1;
                    }
                    at += 1;
                }
                TokenTree::Ident(word) if word == "mod" => {
                    if let Some(TokenTree::Ident(name)) = tokens.get(at + 1) {
                        let name = name.to_string();
                        match tokens.get(at + 2) {
                            Some(TokenTree::Group(body)) => {
                                let extend = |path: &[String]| [path, std::slice::from_ref(&name)].concat();
                                self.scan(body.stream(), &extend(module), &extend(inside), here);
                            }
                            _ => {
                                let file = attributes.iter().find_map(path_attribute);
                                self.modules.push(Declaration { name, file, inside: inside.to_vec(), test: here });
                            }
                        }
                        at += 2;
                    }
                    attributes.clear();
                    at += 1;
                }
                TokenTree::Ident(word) if word == "unsafe" => {
                    self.unsafes += 1;
                    at += 1;
                }
                TokenTree::Ident(_) => {
                    let mut paths = Vec::new();
                    let next = read_path(&tokens, at, &mut Vec::new(), &mut paths);
                    let paths = paths.into_iter().map(|path| absolute(path, module));
                    self.mentions.extend(paths.map(|path| Mention { path, test: here }));
                    at = next;
                }
                TokenTree::Group(group) => {
                    self.scan(group.stream(), module, inside, here);
                    // That of `pub(super)` comes before the item.
                    if group.delimiter() != Delimiter::Parenthesis {
                        attributes.clear();
                    }
                    at += 1;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
            }
        }
    }
}

/// One past the last token of the item at `at`: a `;`, or the body in braces unless it is a `use`, whose braces are none.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let mut is_use = false;
    for (offset, token) in tokens[at..].iter().enumerate() {
        match token {
            TokenTree::Ident(word) if word == "use" => is_use = true,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && !is_use => return at + offset + 1,
            TokenTree::Punct(p) if p.as_char() == ';' => return at + offset + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The file of a `path = "…"`.
fn path_attribute(attribute: &TokenStream) -> Option<String> {
    let text = attribute.to_string();
    Some(text.strip_prefix("path")?.trim_start().strip_prefix('=')?.trim().trim_matches('"').to_owned())
}

/// Reads `a::b::{c, d::e}` from `at` on into whole paths; gives the token after it.
fn read_path(tokens: &[TokenTree], at: usize, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = prefix.len();
    let mut at = at;
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(word)) => prefix.push(word.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace && prefix.len() > depth => {
                read_group(group.stream(), prefix, found);
                prefix.truncate(depth);
                return at + 1;
            }
            // `*`, or the `<` of a turbofish.
            _ => break,
        }
        at += 1;
        if !is_colons(tokens, at) {
            break;
        }
        at += 2;
    }
    if prefix.len() > depth {
        found.push(prefix.clone());
    }
    prefix.truncate(depth);
    at
}

fn read_group(group: TokenStream, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = group.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(word) if word == "self" => {
                found.push(prefix.clone());
                at += 1;
            }
            // The new name after `as` is no path.
            TokenTree::Ident(word) if word == "as" => at += 2,
            TokenTree::Ident(_) => at = read_path(&tokens, at, prefix, found),
            _ => at += 1,
        }
    }
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    colon(at) && colon(at + 1)
}

/// With `self` and `super` told from the crate's root; what begins otherwise stays as it is.
fn absolute(path: Vec<String>, module: &[String]) -> Vec<String> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    if ups == 0 {
        return path;
    }
    let mut whole = vec!["crate".to_owned()];
    whole.extend(module.iter().take(module.len().saturating_sub(ups)).cloned());
    whole.extend(path.into_iter().skip(ups));
    whole
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Why a module may not use another one; `None`: it may.
fn import_fault(user: &str, used: &str) -> Option<String> {
    if user == used {
        return None;
    }
    let (Some(above), Some(below)) = (layer_of(user), layer_of(used)) else {
        return Some(format!("'{user}' or '{used}' is in no layer"));
    };
    let narrow = NARROW.iter().find(|(module, _)| *module == user);
    let allowed = narrow.map_or(below < above, |(_, granted)| granted.contains(&used));
    (!allowed).then(|| format!("'{user}' must not use '{used}'"))
}

fn impure(path: &[String]) -> Option<&'static str> {
    let text = path.join("::");
    IMPURE.iter().copied().find(|item| match item.contains("::") {
        true => text == *item || text.strip_prefix(item).is_some_and(|rest| rest.starts_with("::")),
        false if *item == "new_v4" => path.iter().any(|part| part == item),
        // A crate; a mere variable of that name has nothing after it.
        false => path.len() > 1 && path[0] == *item,
    })
}

/// All faults of one file of the library. `file` is below the package, `module` its path from the crate's root.
fn faults(file: &str, module: &[String], source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(user) = module.first() else { return faults };
    for Mention { path, .. } in source.mentions.iter().filter(|mention| !mention.test) {
        if let [root, used, ..] = path.as_slice()
            && root == "crate"
            // A macro's or type's name at the root is not a module's.
            && layer_of(used).is_some()
            && let Some(fault) = import_fault(user, used)
        {
            faults.push(format!("{file}: {fault} ({})", path.join("::")));
        }
        if PURE.contains(&user.as_str())
            && let Some(what) = impure(path)
        {
            faults.push(format!("{file}: '{user}' is pure and must not use {what} ({})", path.join("::")));
        }
    }
    let allowed = UNSAFE.iter().find(|(place, _)| file.starts_with(place)).map_or(0, |(_, times)| *times);
    if source.unsafes > allowed {
        faults.push(format!("{file}: unsafe is not for here"));
    }
    faults
}

/// Reads a module's file and those of the modules that it declares.
fn walk(
    root: &Path,
    file: &Path,
    module: &[String],
    test: bool,
    seen: &mut BTreeSet<PathBuf>,
    found: &mut Vec<String>,
) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let source = Source::read(&text, module, test);
    let shown = file.strip_prefix(root).expect("within the package").display().to_string();
    found.extend(faults(&shown, module, &source));
    seen.insert(file.to_owned());
    let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("a name");
    let folder = file.parent().expect("a folder");
    let own = if ["mod", "lib"].contains(&stem) { folder.to_owned() } else { folder.join(stem) };
    for declared in &source.modules {
        let own = declared.inside.iter().fold(own.clone(), |folder, name| folder.join(name));
        let below = match &declared.file {
            // `#[path]` counts from the folder of the file that says it, unless within braces.
            Some(path) if declared.inside.is_empty() => folder.join(path),
            Some(path) => own.join(path),
            None => {
                let flat = own.join(format!("{}.rs", declared.name));
                if flat.exists() { flat } else { own.join(&declared.name).join("mod.rs") }
            }
        };
        let path = [module, &declared.inside, std::slice::from_ref(&declared.name)].concat();
        walk(root, &below, &path, declared.test, seen, found);
    }
}

fn rust_files(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(path);
        }
    }
}

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn imports_go_one_way_and_pure_modules_are_pure() {
    let root = package();
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    walk(&root, &root.join("src/lib.rs"), &[], false, &mut seen, &mut found);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));

    let mut all = BTreeSet::new();
    rust_files(&root.join("src"), &mut all);
    all.retain(|file| !file.starts_with(root.join("src/bin")));
    let missed: Vec<_> = all.difference(&seen).collect();
    assert!(missed.is_empty(), "no module declares these, so that nothing checks them: {missed:?}");
}

#[test]
fn every_first_level_module_has_a_layer() {
    let text = fs::read_to_string(package().join("src/lib.rs")).expect("src/lib.rs");
    let declared = Source::read(&text, &[], false).modules;
    let declared: BTreeSet<&str> = declared.iter().map(|module| module.name.as_str()).collect();
    let layered: BTreeSet<&str> = LAYERS.iter().flat_map(|layer| layer.iter().copied()).collect();
    assert_eq!(declared, layered);
}

#[test]
fn binaries_use_what_they_are_granted() {
    let root = package();
    let mut all = BTreeSet::new();
    rust_files(&root.join("src/bin"), &mut all);
    let mut found = Vec::new();
    for file in &all {
        let name = file.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let granted = BINARIES.iter().find(|(binary, _)| *binary == name);
        let granted = granted.unwrap_or_else(|| panic!("BINARIES does not know {name}")).1;
        let source = Source::read(&fs::read_to_string(file).expect("a binary's source"), &[], false);
        for Mention { path, .. } in &source.mentions {
            if let [root, used, ..] = path.as_slice()
                && root == "vmfabric"
                && !granted.contains(&used.as_str())
            {
                found.push(format!("src/bin/{name}.rs must not use '{used}' ({})", path.join("::")));
            }
        }
        if source.unsafes > 0 {
            found.push(format!("src/bin/{name}.rs: unsafe is not for here"));
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn module(path: &str) -> Vec<String> {
    path.split("::").map(str::to_owned).collect()
}

fn faults_of(path: &str, text: &str) -> Vec<String> {
    faults("f.rs", &module(path), &Source::read(text, &module(path), false))
}

#[test]
fn bad_sources_are_found_out() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("planner::port", "use crate::diff::Scope;", &["f.rs: 'planner' must not use 'diff' (crate::diff::Scope)"]),
        (
            "intent",
            "use crate::{\n  net::{self, IfName},\n  store::{sqlite::{SqliteStore as S, Other}, *},\n};",
            &[
                "f.rs: 'intent' must not use 'store' (crate::store::sqlite::SqliteStore)",
                "f.rs: 'intent' must not use 'store' (crate::store::sqlite::Other)",
            ],
        ),
        ("net", "use crate::{self as all, planner};", &["f.rs: 'net' must not use 'planner' (crate::planner)"]),
        ("net::mac", "fn f() -> super::super::driver::X {}", &["f.rs: 'net' must not use 'driver' (crate::driver::X)"]),
        ("net", "m! { if x { crate::dbus::y(1) } }", &["f.rs: 'net' must not use 'dbus' (crate::dbus::y)"]),
        ("net", "macro_rules! m { () => { $crate::cli::z() } }", &["f.rs: 'net' must not use 'cli' (crate::cli::z)"]),
        (
            "net",
            "mod a { mod b { use super::super::super::daemon; } }",
            &["f.rs: 'net' must not use 'daemon' (crate::daemon)"],
        ),
        (
            "cli",
            "use crate::reconciler::Command;",
            &["f.rs: 'cli' must not use 'reconciler' (crate::reconciler::Command)"],
        ),
        ("libvirt", "fn f(x: &crate::driver::X) {}", &["f.rs: 'libvirt' must not use 'driver' (crate::driver::X)"]),
        (
            "diff",
            "use std::{fs, net::{IpAddr, UdpSocket}};\nfn f() { ::std::time::SystemTime::now(); tokio::spawn(g()); }",
            &[
                "f.rs: 'diff' is pure and must not use std::fs (std::fs)",
                "f.rs: 'diff' is pure and must not use std::net::UdpSocket (std::net::UdpSocket)",
                "f.rs: 'diff' is pure and must not use std::time::SystemTime (std::time::SystemTime::now)",
                "f.rs: 'diff' is pure and must not use tokio (tokio::spawn)",
            ],
        ),
        (
            "intent",
            "fn f() -> Uuid { Uuid::new_v4() }",
            &["f.rs: 'intent' is pure and must not use new_v4 (Uuid::new_v4)"],
        ),
        ("store", "fn f() { unsafe { g() } }", &["f.rs: unsafe is not for here"]),
        (
            "net",
            "#[cfg(test)] use crate::{store::X};\n#[cfg(test)]\nmod tests { use crate::store::Y; }\nuse crate::store::Z;",
            &["f.rs: 'net' must not use 'store' (crate::store::Z)"],
        ),
    ];
    for (path, text, expected) in cases {
        assert_eq!(&faults_of(path, text), expected, "{text}");
    }
}

#[test]
fn good_sources_pass() {
    let cases = [
        ("server::dns", "use crate::{libvirt::domain_xml::Domain, net::IfName, protocol::dns};"),
        ("net", "//! [`crate::planner`] and `std::fs`\nconst A: &str = \"crate::planner\"; // use crate::store;"),
        ("planner::bridge", "use super::Input; use std::{net::IpAddr, time::Duration}; fn f(rand: u8) { rand + 1 }"),
        ("intent", "use crate::net::serde_as_text; crate::net::serde_as_text!(Name);"),
        ("reconciler", "use crate::backend::{Driver, Store}; use tokio::sync::mpsc; fn f() { Uuid::new_v4(); }"),
        ("diff", "#[cfg(test)]\nmod tests { use tokio::fs; use crate::{driver::sim, planner}; }"),
    ];
    for (path, text) in cases {
        assert_eq!(faults_of(path, text), Vec::<String>::new(), "{text}");
    }
    let one = Source::read("fn f() { unsafe { g() } }", &module("daemon"), false);
    assert!(faults("src/daemon/mod.rs", &module("daemon"), &one).is_empty());
    let two = Source::read("fn f() { unsafe { g() }\n unsafe { g() } }", &module("daemon"), false);
    assert_eq!(faults("src/daemon/mod.rs", &module("daemon"), &two), ["src/daemon/mod.rs: unsafe is not for here"]);
}
