//! What filters cost a packet between two guests on a bridge: nothing loaded, port security alone, security groups, and
//! Neutron's rules for iptables (behind br_netfilter), with 10 and with 10,000 ports present. iptables is measured with 10
//! and with 1,000, between two ports in the middle of them: its price grows with those before, and loading 10,000 takes it
//! many minutes on such a host.
//!
//! `cargo bench --bench packets` (root), on the rig's User Mode Linux host, whose kernel has every part. Two ports are
//! taps that this process sends and receives by; the others are in the rules alone, since the bridge finds a port by a
//! hash. Figures are wall-clock time on that host's only core, the best of many short runs: read their ratios.

mod support;
#[path = "../tests/policy/tap.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod tap;

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};
use support::{
    Figure, Report,
    ports::{Groups, OPEN, host, mac, neutron, restore},
};
use tap::Tap;
use vmfabric::{
    backend::Driver,
    datapath::{Change as KernelChange, Family},
    driver::kernel::KernelDriver,
    planner::plan,
};

const THERE: &str = "VMFABRIC_BENCH_ON_UML";
/// Of a run: fewer than fit into a tap's queue.
const PACKETS: u32 = 400;
/// The ports that are there.
const PAIR: [u32; 2] = [4, 5];
const RUNS: usize = 30;
const ROUNDS: usize = 4;

fn main() -> ExitCode {
    if std::env::var_os(THERE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(measure());
        return ExitCode::SUCCESS;
    }
    let here = std::env::current_exe().expect("this program");
    let done = Command::new("tests/rig/umlrun")
        .args(["-m", "2G", "-t", "1200", "--"])
        .arg(here)
        .env(THERE, "1")
        .status()
        .expect("tests/rig/umlrun; run by cargo bench");
    if done.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure() {
    sh("ip link add vmf-net0 address 02:00:00:00:00:01 type bridge; ip link set vmf-net0 up
        sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.bridge.bridge-nf-call-iptables=0");
    let mut taps = PAIR.map(|n| Tap::open(&format!("vnet{n}")));
    sh(&format!("for n in {} {}; do ip link set vnet$n master vmf-net0 up; done", PAIR[0], PAIR[1]));
    let mut driver = KernelDriver::new().expect("a driver");
    for (ports, theirs) in [(10, 10), (10_000, 1_000)] {
        let kinds = [
            ("no filter".to_owned(), Filter::None),
            ("port security".to_owned(), Filter::Ours(Groups::None)),
            ("stateless groups".to_owned(), Filter::Ours(Groups::Stateless)),
            ("stateful groups".to_owned(), Filter::Ours(Groups::Stateful)),
            (format!("iptables, {theirs} ports"), Filter::Theirs),
        ];
        let mut times = [Duration::MAX; 5];
        // In turn, and again: for seconds at a time such a host is slower than at others.
        for _ in 0..ROUNDS {
            for ((_, filter), time) in kinds.iter().zip(&mut times) {
                *time = (*time).min(measured(filter, ports, theirs, &mut driver, &mut taps).await);
            }
        }
        let report = Report::new(&format!("a packet between two guests, {ports} ports present"));
        report.head(&["per packet", "price", "of iptables' price"]);
        let [bare, .., iptables] = times;
        let price = |time: Duration| time.saturating_sub(bare);
        for ((what, filter), time) in kinds.iter().zip(times) {
            let share = format!("{:.2}", price(time).as_secs_f64() / price(iptables).as_secs_f64());
            let asked = if matches!(filter, Filter::Ours(_)) { "<= 0.5" } else { "" };
            report.row(what, asked, &[micros(time), micros(price(time)), Figure::Text(share)]);
        }
    }
}

enum Filter {
    None,
    Ours(Groups),
    Theirs,
}

/// What a packet takes with the filter loaded, for so many ports, or so many of theirs.
async fn measured(
    filter: &Filter,
    ports: u32,
    theirs: u32,
    driver: &mut KernelDriver,
    taps: &mut [Tap; 2],
) -> Duration {
    match filter {
        Filter::None => best(taps),
        Filter::Ours(groups) => {
            let host = host(ports, *groups);
            let table = plan(host.input()).desired.tables[&Family::Bridge].clone();
            driver.apply(&[KernelChange::ReplaceTable { family: Family::Bridge, table }]).await.expect("loaded");
            let time = best(taps);
            driver.apply(&[KernelChange::DeleteTable { family: Family::Bridge }]).await.expect("deleted");
            time
        }
        Filter::Theirs => {
            // The pair in the middle.
            let first = theirs / 2 + PAIR[1];
            restore("iptables-restore", &[], &neutron((0..theirs).map(|n| (first + n) % theirs)));
            sh("sysctl -qw net.bridge.bridge-nf-call-iptables=1");
            let time = best(taps);
            sh("sysctl -qw net.bridge.bridge-nf-call-iptables=0");
            restore("iptables-restore", &[], "*filter\nCOMMIT\n");
            time
        }
    }
}

/// The best of many runs: what the host did besides is not the packets' price.
fn best(taps: &mut [Tap; 2]) -> Duration {
    let there = frame(PAIR[0], PAIR[1]);
    let back = frame(PAIR[1], PAIR[0]);
    taps[0].send(&there);
    taps[1].send(&back);
    taps.iter_mut().for_each(|tap| drop(tap.received()));
    let run = || {
        let start = Instant::now();
        for _ in 0..PACKETS {
            taps[0].send(&there);
        }
        let took = start.elapsed();
        let got = taps[1].received().iter().filter(|got| got.starts_with(&there)).count();
        assert_eq!(got, PACKETS as usize, "every packet arrives");
        took / PACKETS
    };
    std::iter::repeat_with(run).take(RUNS).min().expect("runs")
}

/// A UDP datagram of 64 bytes between two ports, which their groups' last rules let through.
fn frame(from: u32, to: u32) -> Vec<u8> {
    let ether = |n| mac(n).split(':').map(|part| u8::from_str_radix(part, 16).expect("hex")).collect::<Vec<_>>();
    let mut ip = vec![0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 10 + from as u8, 10, 0, 0, 10 + to as u8];
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let [high, low] = OPEN.to_be_bytes();
    let udp = [high, low, high, low, 0, 30, 0, 0];
    [ether(to), ether(from), vec![8, 0], ip, udp.to_vec(), vec![0; 22]].concat()
}

fn micros(time: Duration) -> Figure {
    Figure::Text(format!("{:.2} us", time.as_secs_f64() * 1e6))
}

fn sh(command: &str) {
    let done = Command::new("sh").args(["-ec", command]).status().expect("sh");
    assert!(done.success(), "{command}");
}
