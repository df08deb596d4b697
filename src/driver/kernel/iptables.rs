//! Our entries in the chains that Docker and ufw keep for others': put in and taken out by iptables itself, so that its
//! programs can read what is there and each entry is a transaction of its own kind.

use super::{Worker, nft};
use crate::{
    backend::DriverError,
    datapath::{Admission, Iptables, Mismatch, Neighbour, Obstacle, TAG, UserChain},
    net::{IfName, protocol},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
    process::{Command, Output, Stdio},
};

/// Seconds that iptables waits for another that holds its lock.
const PATIENCE: &str = "2";

impl Worker {
    /// What others' chains for entries there are, with those of ours.
    pub(super) fn neighbours(
        &mut self,
        chains: &[nft::Chain],
        obstacles: &mut BTreeSet<Obstacle>,
    ) -> Result<BTreeMap<Neighbour, BTreeSet<Admission>>, DriverError> {
        let mut found = BTreeMap::new();
        for tables in Iptables::ALL {
            let family = if tables.ipv6 { "ip6" } else { "ip" };
            if tables.legacy && !has_legacy_filter(tables.ipv6) {
                continue;
            }
            for chain in UserChain::ALL {
                let name = chain.name(tables.ipv6);
                let is_it = |c: &nft::Chain| c.family == family && c.table == "filter" && c.name == name;
                if !tables.legacy && !chains.iter().any(is_it) {
                    continue;
                }
                match run(tables.program(), &["-w", PATIENCE, "-S", name], "") {
                    Ok(output) if output.status.success() => {
                        let entries = String::from_utf8_lossy(&output.stdout).lines().filter_map(parse).collect();
                        found.insert(Neighbour::Chain(tables, chain), entries);
                    }
                    // No such chain.
                    Ok(output) if output.status.code() == Some(1) => {}
                    Ok(output) => return Err(failure(tables.program(), &output)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound && !tables.legacy => {
                        obstacles.insert(Obstacle::NoProgram(tables));
                    }
                    // Whoever made tables of this kind came with a program of its own; nothing tells whose they are.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(DriverError::Io { path: tables.program().into(), source }),
                }
            }
        }
        Ok(found)
    }
}

/// Puts entries in (or takes them out): all, or none.
pub(super) fn change(at: Neighbour, admissions: &BTreeSet<Admission>, admit: bool) -> Result<(), DriverError> {
    let Neighbour::Chain(tables, chain) = at else { return Err(Mismatch::NoNeighbour(at).into()) };
    let name = chain.name(tables.ipv6);
    let verb = match (admit, chain) {
        (false, _) => "-D",
        // It may end in a rule that returns.
        (true, UserChain::DockerUser) => "-I",
        // What somebody denied before by ufw's own rules stays so.
        (true, UserChain::UfwForward | UserChain::UfwInput) => "-A",
    };
    let mut rules = String::new();
    for admission in admissions {
        let rule = rule(admission).ok_or_else(|| {
            DriverError::Nftables(format!(
                "{} cannot be told '{admission}': a name that it reads otherwise",
                tables.program()
            ))
        })?;
        rules.push_str(&format!("{verb} {name} {rule} -j ACCEPT\n"));
    }
    let program = format!("{}-restore", tables.program());
    let commands = format!("*filter\n{rules}COMMIT\n");
    let output = run(&program, &["-w", PATIENCE, "--noflush"], &commands)
        .map_err(|source| DriverError::Io { path: program.clone(), source })?;
    if output.status.success() { Ok(()) } else { Err(failure(&program, &output)) }
}

/// Whether there is a legacy table `filter`: to ask iptables would make one.
fn has_legacy_filter(ipv6: bool) -> bool {
    // This thread's network namespace is not always that of the process.
    let path = format!("/proc/thread-self/net/{}_tables_names", if ipv6 { "ip6" } else { "ip" });
    std::fs::read_to_string(path).is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").current_dir("/");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // It reads all before it writes anything of length. What it does not read it will complain of.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    match written {
        Err(error) if output.status.success() => Err(error),
        _ => Ok(output),
    }
}

fn failure(program: &str, output: &Output) -> DriverError {
    let text = String::from_utf8_lossy(&output.stderr);
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it gives no reason");
    DriverError::Nftables(format!("{program}: {}: {first}", output.status))
}

/// The match of an entry as iptables lists it.
fn rule(admission: &Admission) -> Option<String> {
    // A `+` at the end is a wildcard, and quotes and backslashes are the language's own.
    let plain = |link: &IfName| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'@');
        link.as_str().bytes().all(plain)
    };
    let plainly = match admission {
        Admission::Forward { from, to } => plain(to) && from.as_ref().is_none_or(plain),
        Admission::Service { from, .. } => plain(from),
        Admission::Zone(_) => return None,
    };
    if !plainly {
        return None;
    }
    let matches = match admission {
        Admission::Forward { from: None, to } => format!("-o {to}"),
        Admission::Forward { from: Some(from), to } => format!("-i {from} -o {to}"),
        Admission::Service { from, protocol, port } => {
            let protocol = protocol::name(*protocol);
            format!("-i {from} -p {protocol} -m {protocol} --dport {port}")
        }
        Admission::Zone(_) => return None,
    };
    Some(format!("{matches} -m comment --comment {TAG}"))
}

/// An entry of ours among the lines of `iptables -S`; any other line is somebody else's.
fn parse(line: &str) -> Option<Admission> {
    let body = line.strip_prefix("-A ")?.split_once(' ')?.1.strip_suffix(" -j ACCEPT")?;
    let words: Vec<&str> = body.split(' ').collect();
    let link = |name: &str| name.parse::<IfName>().ok();
    let admission = match words.as_slice() {
        ["-o", to, "-m", ..] => Admission::Forward { from: None, to: link(to)? },
        ["-i", from, "-o", to, ..] => Admission::Forward { from: Some(link(from)?), to: link(to)? },
        ["-i", from, "-p", protocol, "-m", _, "--dport", port, ..] => {
            let protocol = protocol::number(protocol).filter(|number| protocol::has_ports(*number))?;
            Admission::Service { from: link(from)?, protocol, port: port.parse().ok()? }
        }
        _ => return None,
    };
    (rule(&admission)? == body).then_some(admission)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_ours_are_told_from_others() {
        let link = |name: &str| name.parse::<IfName>().expect("a link");
        let all = [
            Admission::Forward { from: None, to: link("vmf-nat") },
            Admission::Forward { from: Some(link("vmf-nat")), to: link("eth0") },
            Admission::Service { from: link("vmf-lan.10"), protocol: 17, port: 53 },
            Admission::Service { from: link("vmf-lan.10"), protocol: 132, port: 7 },
        ];
        for admission in all {
            let line = format!("-A DOCKER-USER {} -j ACCEPT", rule(&admission).expect("a rule"));
            assert_eq!(parse(&line), Some(admission), "{line}");
        }
        for other in [
            "-N DOCKER-USER",
            "-A DOCKER-USER -j RETURN",
            "-A DOCKER-USER -o vmf-nat -j ACCEPT",
            "-A DOCKER-USER -o vmf-nat -m comment --comment \"vmfabric too\" -j ACCEPT",
            "-A DOCKER-USER -o vmf-nat -m comment --comment vmfabric -j DROP",
            "-A DOCKER-USER -s 192.0.2.1/32 -o vmf-nat -m comment --comment vmfabric -j ACCEPT",
            "-A DOCKER-USER -o vmf+nat/ -m comment --comment vmfabric -j ACCEPT",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert_eq!(rule(&Admission::Zone(link("vmf-nat"))), None);
    }
}
