//! What the benches share: clocks, percentiles, and a table that a person can read.
#![allow(dead_code, reason = "each bench uses a part of it")]

pub mod daemon;
pub mod netlink;
pub mod ports;

use nix::time::{ClockId, clock_gettime};
use std::{
    fmt,
    process::{Command, ExitCode},
    time::Duration,
};

/// Runs this bench again in a private host of the test rig, with `--inside`.
pub fn in_a_private_host(bench: &str, seconds: u32) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("bench {bench}: needs root: it makes namespaces and runs the daemon in them");
        return ExitCode::FAILURE;
    }
    let rig = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rig/private-host");
    let own = std::env::current_exe().expect("the path of this program");
    let status = Command::new(rig).args(["-t", &seconds.to_string(), "--"]).arg(own).arg("--inside").status();
    if status.expect("the rig runs").success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// CPU time of the calling thread.
pub fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock that Linux has").into()
}

/// One cell of the table.
#[derive(Debug, Clone)]
pub enum Figure {
    Time(Duration),
    /// Samples of one thing.
    Spread(Vec<Duration>),
    Text(String),
    None,
}

impl Figure {
    /// The sample that `share` of all do not exceed.
    pub fn percentile(samples: &[Duration], share: f64) -> Duration {
        let mut sorted = samples.to_vec();
        sorted.sort();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The same relative to `floor`.
    pub fn ratio(&self, floor: Duration) -> Figure {
        let times = |time: Duration| match time.as_secs_f64() / floor.as_secs_f64() {
            ratio if ratio < 1.0 => format!("{ratio:.3}x"),
            ratio => format!("{ratio:.1}x"),
        };
        match self {
            Figure::Spread(samples) => Figure::Text(format!(
                "{} / {}",
                times(Self::percentile(samples, 0.5)),
                times(Self::percentile(samples, 0.99))
            )),
            Figure::Time(time) => Figure::Text(times(*time)),
            other => other.clone(),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Figure::Time(time) => millis(*time),
            Figure::Spread(samples) => {
                format!("{} / {}", millis(Self::percentile(samples, 0.5)), millis(Self::percentile(samples, 0.99)))
            }
            Figure::Text(text) => text.clone(),
            Figure::None => String::new(),
        };
        f.pad(&text)
    }
}

fn millis(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

/// A table that is printed as it grows.
#[derive(Debug)]
pub struct Report;

impl Report {
    pub fn new(title: &str) -> Self {
        println!("\n{title}");
        Self
    }

    pub fn head(&self, columns: &[&str]) {
        let cells: String = columns.iter().map(|column| format!(" {column:>19}")).collect();
        println!("{:<52} {:>9}{cells}", "", "asked");
    }

    pub fn row(&self, what: &str, asked: &str, figures: &[Figure]) {
        let cells: String = figures.iter().map(|figure| format!(" {figure:>19}")).collect();
        println!("{what:<52} {asked:>9}{cells}");
    }

    pub fn note(&self, text: impl fmt::Display) {
        println!("  {text}");
    }
}
