//! What each target does with its input. A panic is a finding.
//!
//! A new target: a module here with `pub fn run(bytes: &[u8])`, three lines in `fuzz_targets/`, a `[[bin]]` in
//! `Cargo.toml`, seeds in `corpus/NAME/*.seed`, and its name in `TARGETS` of `fuzz/run`.
//! Findings go to `regressions/NAME/`; `tests/fuzz.rs` runs them, and the seeds, as any test.

pub mod dhcpv4;
