//! What filters take to load and to change, beside Neutron's rules for iptables for the same ports and groups.
//!
//! `cargo bench --bench filter` (root), in a network namespace of its own. Stateless groups, so that it runs on kernels
//! without bridge conntrack: loading and changing stateful ones takes two rules more for each set of groups.

mod support;

use nix::sched::{CloneFlags, unshare};
use std::{
    collections::BTreeSet,
    process::ExitCode,
    time::{Duration, Instant},
};
use support::{
    Figure, Report,
    ports::{Groups, RULES, host, neutron, restore},
};
use vmfabric::{
    backend::Driver,
    datapath::{Change as KernelChange, Datapath, Family},
    diff::{Scope, diff},
    driver::kernel::KernelDriver,
    planner::{plan, plan_ports},
};

const SAMPLES: usize = 20;

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("bench filter: needs root: it loads tables in a network namespace");
        return ExitCode::FAILURE;
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for ports in [1_000, 10_000] {
        let report = Report::new(&format!("filters of {ports} ports, {RULES} rules each"));
        report.head(&["vmfabric", "iptables"]);
        runtime.block_on(run(ports, &report));
    }
    ExitCode::SUCCESS
}

async fn run(ports: u32, report: &Report) {
    let mut driver = KernelDriver::new().expect("a driver");
    let mut host = host(ports, Groups::Stateless);
    // All but the last, which comes later.
    let (last, tap) = host.attachments.pop_last().expect("ports");
    let before = cpu();
    let desired = plan(host.input()).desired;
    let planned = cpu() - before;
    let table = desired.tables[&Family::Bridge].clone();
    let replace = KernelChange::ReplaceTable { family: Family::Bridge, table };
    let (start, before) = (Instant::now(), cpu());
    driver.apply(std::slice::from_ref(&replace)).await.expect("loaded");
    let (loaded, loading) = (start.elapsed(), cpu() - before);
    host.observed.datapath = Datapath { tables: desired.tables.clone(), ..host.observed.datapath };
    let _ = host.observed.datapath.tables.remove(&Family::Inet);
    for (name, link) in &desired.links {
        host.observed.datapath.links.entry(name.clone()).or_insert_with(|| link.clone());
    }

    // One port more, from its plan to the kernel, and away again.
    host.attachments.insert(last, tap.clone());
    let links = BTreeSet::from([tap.clone()]);
    let (mut added, mut joined) = (Vec::new(), Vec::new());
    for n in 0..SAMPLES {
        let before = cpu();
        let part = plan_ports(host.input(), &[last]);
        let changes = diff(&host.observed.datapath, &part.desired, Scope::Links(&links));
        let changes: Vec<KernelChange> = changes.into_iter().filter(|change| change.family().is_some()).collect();
        driver.apply(&changes).await.expect("added");
        added.push(cpu() - before);
        let undo: Vec<KernelChange> = changes.into_iter().filter_map(undone).collect();
        driver.apply(&undo).await.expect("taken away");
        // One member more of a group that all ports' rules name.
        let set = desired.tables[&Family::Bridge].sets.keys().find(|set| set.starts_with("members4")).expect("members");
        let elements = BTreeSet::from([format!("192.0.2.{n}")]);
        let join = KernelChange::AddElements { family: Family::Bridge, set: set.clone(), elements };
        let before = cpu();
        driver.apply(std::slice::from_ref(&join)).await.expect("joined");
        joined.push(cpu() - before);
        driver.apply(&undone(join).into_iter().collect::<Vec<_>>()).await.expect("left");
    }
    driver.apply(&[KernelChange::DeleteTable { family: Family::Bridge }]).await.expect("deleted");

    let (start, before) = (Instant::now(), children());
    restore("iptables-restore", &[], &neutron(0..ports));
    let (their_load, their_loading) = (start.elapsed(), children() - before);
    let mut theirs = Vec::new();
    for n in 0..3 {
        let before = children();
        restore("iptables-restore", &["--noflush"], &neutron(ports + n..ports + n + 1));
        theirs.push(children() - before);
    }
    restore("iptables-restore", &[], "*filter\nCOMMIT\n");

    report.row("plan", "", &[Figure::Time(planned)]);
    report.row("load, wall", "< 2 s with 10,000", &[Figure::Time(loaded), Figure::Time(their_load)]);
    report.row("load, CPU", "", &[Figure::Time(loading), Figure::Time(their_loading)]);
    report.row("one port added, CPU", "< 2 ms", &[median(added), median(theirs)]);
    report.row("one member added, CPU", "< 2 ms", &[median(joined)]);
}

fn undone(change: KernelChange) -> Option<KernelChange> {
    match change {
        KernelChange::AddElements { family, set, elements } => {
            Some(KernelChange::DeleteElements { family, set, elements })
        }
        _ => None,
    }
}

fn median(mut samples: Vec<Duration>) -> Figure {
    samples.sort();
    Figure::Time(samples[samples.len() / 2])
}

/// CPU time of this process, the kernel's for it included.
fn cpu() -> Duration {
    spent(nix::sys::resource::UsageWho::RUSAGE_SELF)
}

/// The same of the processes that it waited for.
fn children() -> Duration {
    spent(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)
}

fn spent(who: nix::sys::resource::UsageWho) -> Duration {
    let usage = nix::sys::resource::getrusage(who).expect("usage");
    let time = |value: nix::sys::time::TimeVal| {
        Duration::new(value.tv_sec().unsigned_abs(), u32::try_from(value.tv_usec() * 1000).unwrap_or_default())
    };
    time(usage.user_time()) + time(usage.system_time())
}
