//! What the fuzzer starts from, and what it has found, run as any test: `make fuzz` looks for more.

#[path = "../fuzz/src/dhcpv4.rs"]
mod dhcpv4;
#[path = "../fuzz/src/dhcpv6.rs"]
mod dhcpv6;
#[path = "../fuzz/src/dns.rs"]
mod dns;

use proptest::prelude::*;
use std::{fs, path::Path};

/// The seeds of a target, and its former findings.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let folders = ["corpus", "regressions"].map(|folder| fuzz.join(folder).join(target));
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let inputs: Vec<_> = files.map(|file| fs::read(file.expect("an entry").path()).expect("a file")).collect();
    assert!(!inputs.is_empty(), "{target} has no seeds");
    inputs
}

#[test]
fn seeds_and_findings_of_dhcpv4() {
    inputs("dhcpv4").iter().for_each(|input| dhcpv4::run(input));
}

#[test]
fn seeds_and_findings_of_dhcpv6() {
    inputs("dhcpv6").iter().for_each(|input| dhcpv6::run(input));
}

#[test]
fn seeds_and_findings_of_dns() {
    inputs("dns").iter().for_each(|input| dns::run(input));
}

/// Seeds of a target put one after another in any order, cut and altered: a fuzzer without eyes.
fn altered(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seeds = inputs(target);
    let parts = prop::collection::vec(any::<prop::sample::Index>(), 1..12);
    let steps = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 12);
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..24);
    (parts, steps, flips).prop_map(move |(parts, steps, flips)| {
        let mut input = Vec::new();
        for (part, step) in parts.iter().zip(steps) {
            input.extend(part.get(&seeds));
            input.extend(step);
        }
        for (at, value) in flips {
            let at = at.index(input.len());
            input[at] = value;
        }
        input
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn altered_seeds_of_dhcpv4(input in altered("dhcpv4")) {
        dhcpv4::run(&input);
    }

    #[test]
    fn altered_seeds_of_dhcpv6(input in altered("dhcpv6")) {
        dhcpv6::run(&input);
    }
}
