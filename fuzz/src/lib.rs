//! What each target does with its input. A panic is a finding.
//!
//! A new target: a module here with `pub fn run(bytes: &[u8])`, three lines in `fuzz_targets/`, a `[[bin]]` in
//! `Cargo.toml`, seeds in `corpus/NAME/*.seed`, and its name in `TARGETS` of `fuzz/run`.
//! Findings go to `regressions/NAME/` and are run by `cargo test` here (`make fuzz` does that first).

pub mod dhcpv4;
pub mod dhcpv6;
pub mod dns;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// All seeds, and all that was found once.
    fn replay(target: &str, run: fn(&[u8])) {
        let mut replayed = 0;
        for folder in ["corpus", "regressions"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target);
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.expect("an entry").path();
                run(&fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
                replayed += 1;
            }
        }
        assert!(replayed > 0, "{target} has no seeds");
    }

    #[test]
    fn dhcpv4() {
        replay("dhcpv4", super::dhcpv4::run);
    }

    #[test]
    fn dhcpv6() {
        replay("dhcpv6", super::dhcpv6::run);
    }

    #[test]
    fn dns() {
        replay("dns", super::dns::run);
    }
}
