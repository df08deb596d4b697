//! Looks for what is wrong with a host, whether the daemon runs or not, and says how to mend it.

mod host;

use super::{
    CliError, Output,
    client::{Client, Inventory},
    output::printable,
};
use crate::dbus::{BUS_NAME, ManagerInfo};
use host::Host;
use serde::Serialize;
use std::process::{Command, ExitCode, Stdio};
use zbus::fdo;

/// The JSON form of a diagnosis.
#[derive(Debug, Serialize)]
struct Diagnosis {
    /// No check is at `error`; the exit code says the same.
    ok: bool,
    daemon_running: bool,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    /// `ok`, `warning`, `error`, or `skipped` where it cannot be told.
    state: State,
    findings: Vec<Finding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Skipped,
    Warning,
    Error,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    /// What to do; what is wrong may say it already.
    mend: Option<String>,
}

/// What the daemon tells, where it runs.
struct Told {
    info: ManagerInfo,
    inventory: Inventory,
}

impl Check {
    fn of(check: &'static str, found: Vec<(State, String, Option<String>)>) -> Self {
        let state = found.iter().map(|(state, ..)| *state).max().unwrap_or(State::Ok);
        let findings = found.into_iter().map(|(_, what, mend)| Finding { what, mend }).collect();
        Self { check, state, findings }
    }
}

type Found = Vec<(State, String, Option<String>)>;

fn error(found: &mut Found, what: impl Into<String>, mend: impl Into<String>) {
    found.push((State::Error, what.into(), Some(mend.into())));
}

fn warning(found: &mut Found, what: impl Into<String>, mend: impl Into<String>) {
    found.push((State::Warning, what.into(), Some(mend.into())));
}

fn skipped(found: &mut Found, why: &str) {
    found.push((State::Skipped, why.to_owned(), None));
}

/// `client`: where there is a bus.
pub async fn run(client: Result<&Client, &CliError>, out: &mut Output) -> Result<ExitCode, CliError> {
    let host = Host::default();
    let bus_error = client.err().map(ToString::to_string);
    let told = match client {
        Ok(client) => ask(client).await?,
        Err(_) => None,
    };
    let mut checks = vec![Check::of("daemon", daemon(&host, told.as_ref(), bus_error.as_deref()))];
    checks.extend(examine(&host, told.as_ref()));
    let ok = checks.iter().all(|check| check.state != State::Error);
    let diagnosis = Diagnosis { ok, daemon_running: told.is_some(), checks };
    if out.json {
        out.document(&diagnosis)?
    } else {
        print(&diagnosis, out)?
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Without starting it: the bus would.
async fn ask(client: &Client) -> Result<Option<Told>, CliError> {
    let bus = fdo::DBusProxy::new(&client.bus).await?;
    if !bus.name_has_owner(BUS_NAME.try_into()?).await? {
        return Ok(None);
    }
    let (info, _) = client.status().await?;
    Ok(Some(Told { info, inventory: client.inventory().await? }))
}

fn examine(host: &Host, told: Option<&Told>) -> Vec<Check> {
    vec![
        Check::of("problems that vmfabricd sees", problems(told)),
        Check::of("kernel", kernel(host, told)),
        Check::of("libvirt", libvirt(host, told)),
        Check::of("libvirt's hooks", hooks(host)),
        Check::of("br_netfilter", br_netfilter(host)),
        Check::of("rp_filter", rp_filter(host)),
        Check::of("other DHCP servers", dhcp_servers(host)),
        Check::of("NetworkManager and systemd-networkd", managers(host)),
        Check::of("MTU", mtus(host, told)),
        Check::of("disk space", disk(host)),
    ]
}

fn daemon(host: &Host, told: Option<&Told>, bus_error: Option<&str>) -> Found {
    let mut found = Found::new();
    let policies = ["usr/share/dbus-1/system.d", "etc/dbus-1/system.d"].map(|at| format!("{at}/{BUS_NAME}.conf"));
    if !policies.iter().any(|policy| host.exists(policy)) {
        error(
            &mut found,
            format!("the bus has no policy for {BUS_NAME}, so that nobody may talk with vmfabricd"),
            format!(
                "install {BUS_NAME}.conf into /usr/share/dbus-1/system.d (make install, or the package), then: systemctl reload dbus"
            ),
        );
    }
    if let Some(why) = bus_error {
        error(
            &mut found,
            format!("there is no system bus: {}", why.lines().next().unwrap_or_default()),
            "start it: systemctl start dbus",
        );
    }
    let systemd = host.exists("run/systemd/system");
    if told.is_none() && bus_error.is_none() {
        let mend = match systemd {
            true => "systemctl start vmfabricd; what ended it: journalctl -u vmfabricd -e",
            false => "start vmfabricd",
        };
        error(
            &mut found,
            "vmfabricd does not run: guests cannot start on its networks; those that run keep theirs",
            mend,
        );
    }
    if systemd {
        match unit_state("vmfabricd.service").as_deref() {
            Some("enabled" | "static" | "enabled-runtime" | "alias") | None => {}
            Some("masked") => error(&mut found, "the unit vmfabricd is masked", "systemctl unmask vmfabricd"),
            Some(state) => warning(
                &mut found,
                format!("the unit vmfabricd is {state}: it does not start with the host"),
                "systemctl enable vmfabricd",
            ),
        }
    }
    found
}

fn unit_state(unit: &str) -> Option<String> {
    let output = Command::new("systemctl").args(["is-enabled", unit]).stdin(Stdio::null()).output().ok()?;
    let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!state.is_empty()).then_some(state)
}

fn problems(told: Option<&Told>) -> Found {
    let mut found = Found::new();
    match told {
        None => skipped(&mut found, "vmfabricd, which looks for firewalls in the way and the like, does not run"),
        Some(told) => {
            found.extend(told.info.problems.iter().map(|problem| (State::Error, problem.clone(), None)));
        }
    }
    found
}

/// What vmfabricd asks of the kernel: name, option, module, what for.
const PARTS: &[(&str, &str, Option<&str>, &str)] = &[
    (
        "bridge_vlan_filtering",
        "CONFIG_BRIDGE_VLAN_FILTERING",
        None,
        "networks on VLANs and physical networks cannot be made",
    ),
    (
        "nft_bridge_meta",
        "CONFIG_NFT_BRIDGE_META",
        Some("nft_meta_bridge"),
        "nothing bounds what a port sends before its filters are in place",
    ),
    (
        "bridge_conntrack",
        "CONFIG_NF_CONNTRACK_BRIDGE",
        Some("nf_conntrack_bridge"),
        "guests in stateful security groups cannot start",
    ),
];

fn kernel(host: &Host, told: Option<&Told>) -> Found {
    let mut found = Found::new();
    let release = host.read("proc/sys/kernel/osrelease").unwrap_or_default();
    let config = host.read(&format!("boot/config-{release}"));
    for (name, option, module, lack) in PARTS {
        let by_config = config.as_ref().map(|config| {
            config.lines().any(|line| line.strip_prefix(option).is_some_and(|value| value == "=y" || value == "=m"))
        });
        let tried = told.and_then(|told| told.info.capabilities.get(*name).copied());
        let has = tried.or(by_config).or_else(|| module.and_then(|module| host.has_module(module)));
        let module_there = module.is_some_and(|module| host.has_module(module) == Some(true));
        match has {
            Some(true) => {}
            Some(false) if module_there => {
                let module = module.unwrap_or_default();
                error(
                    &mut found,
                    format!("this kernel's {module} is not loaded: {lack}"),
                    format!("modprobe {module}; systemctl restart vmfabricd"),
                );
            }
            Some(false) => error(
                &mut found,
                format!("this kernel ({release}) is without {option}: {lack}"),
                "boot your distribution's standard kernel, or one that has it",
            ),
            None => skipped(
                &mut found,
                &format!("nothing tells whether this kernel has {option}; start vmfabricd, which tries"),
            ),
        }
    }
    found
}

const LIBVIRT: [&str; 2] = ["libvirtd", "virtqemud"];

fn libvirt(host: &Host, told: Option<&Told>) -> Found {
    let mut found = Found::new();
    let runs = LIBVIRT.iter().any(|name| !host.processes(name).is_empty());
    let sockets = ["run/libvirt/libvirt-sock", "run/libvirt/virtqemud-sock"];
    match told {
        Some(told) if told.info.libvirt_status != "connected" => error(
            &mut found,
            format!("vmfabricd is not connected with libvirt: {}", told.info.libvirt_detail),
            "systemctl start libvirtd (or virtqemud.socket); vmfabricd connects by itself",
        ),
        None if !runs && !sockets.iter().any(|socket| host.exists(socket)) => {
            error(&mut found, "libvirt does not run", "systemctl start libvirtd (or virtqemud.socket)");
        }
        _ => {}
    }
    found
}

fn hooks(host: &Host) -> Found {
    let mut found = Found::new();
    let reinstall =
        "install the package again, or run make install; then: systemctl try-restart libvirtd virtqemud virtnetworkd";
    for (hook, lack) in [
        ("etc/libvirt/hooks/qemu.d/vmfabric", "guests start before their ports are in place"),
        ("etc/libvirt/hooks/network.d/vmfabric", "NICs on libvirt's networks get their ports late"),
    ] {
        if !host.exists(hook) {
            error(&mut found, format!("libvirt's hook /{hook} is missing: {lack}"), reinstall);
        } else if !host.executable(hook) {
            error(
                &mut found,
                format!("libvirt's hook /{hook} is not executable: {lack}"),
                format!("chmod 755 /{hook}"),
            );
        } else {
            let text = host.read(hook).unwrap_or_default();
            let program = text.split_whitespace().find(|word| word.ends_with("/vmfabric-hook"));
            if let Some(program) = program.filter(|program| !host.executable(program)) {
                error(&mut found, format!("/{hook} runs {program}, which is not there"), reinstall);
            }
            // libvirt looks for hooks when it starts, and calls none that came later.
            for name in LIBVIRT {
                let late = host
                    .processes(name)
                    .into_iter()
                    .filter_map(|pid| host.began(pid))
                    .any(|began| host.changed(hook).is_some_and(|changed| changed > began + 1));
                if late {
                    warning(
                        &mut found,
                        format!("{name} has run since before /{hook} was installed, and may not know it"),
                        format!("systemctl restart {name}; guests go on"),
                    );
                }
            }
        }
    }
    found
}

fn br_netfilter(host: &Host) -> Found {
    let mut found = Found::new();
    let calls: Vec<&str> = ["iptables", "ip6tables", "arptables"]
        .into_iter()
        .filter(|table| host.read(&format!("proc/sys/net/bridge/bridge-nf-call-{table}")).as_deref() == Some("1"))
        .collect();
    if !calls.is_empty() {
        let keys: Vec<_> = calls.iter().map(|table| format!("net.bridge.bridge-nf-call-{table}=0")).collect();
        warning(
            &mut found,
            format!(
                "br_netfilter shows what guests send on their bridge to {} too, whose rules may drop it",
                calls.join(", ")
            ),
            format!(
                "if nothing (Kubernetes, say) needs it: sysctl -w {}, and the same in /etc/sysctl.d",
                keys.join(" ")
            ),
        );
    }
    found
}

fn rp_filter(host: &Host) -> Found {
    let mut found = Found::new();
    let strict = host.read("proc/sys/net/ipv4/conf/all/rp_filter").as_deref() == Some("1");
    let routes = host.default_routes();
    if strict && routes > 1 {
        warning(
            &mut found,
            format!(
                "rp_filter is strict, and this host has {routes} default routes: answers to guests that come in by \
                 another link than questions leave by are dropped"
            ),
            "sysctl -w net.ipv4.conf.all.rp_filter=2, and the same in /etc/sysctl.d",
        );
    }
    found
}

fn dhcp_servers(host: &Host) -> Found {
    let mut found = Found::new();
    for holder in host.udp_holders(67) {
        let Some((pid, name)) = holder.process else {
            skipped(&mut found, "only root sees who has UDP port 67; run this as root");
            continue;
        };
        let command = host.read(&format!("proc/{pid}/cmdline")).unwrap_or_default();
        // libvirt's own are bound to its bridges.
        if name == "vmfabricd" || command.contains("/libvirt/dnsmasq/") {
            continue;
        }
        warning(
            &mut found,
            format!("{name} (process {pid}) has UDP port 67: guests may be answered by two DHCP servers"),
            format!(
                "keep {name} off vmfabric's bridges (dnsmasq: except-interface=vmf-* and bind-dynamic), or stop it"
            ),
        );
    }
    found
}

fn managers(host: &Host) -> Found {
    let mut found = Found::new();
    for (process, files, fault) in [
        (
            "NetworkManager",
            ["usr/lib/NetworkManager/conf.d/10-vmfabric.conf", "etc/NetworkManager/conf.d/10-vmfabric.conf"],
            "takes vmfabric's bridges and guests' taps for its own",
        ),
        (
            "systemd-networkd",
            ["usr/lib/systemd/network/10-vmfabric.network", "etc/systemd/network/10-vmfabric.network"],
            "may configure vmfabric's bridges and guests' taps",
        ),
    ] {
        if !host.processes(process).is_empty() && !files.iter().any(|file| host.exists(file)) {
            error(
                &mut found,
                format!("{process} runs and {fault}: /{} is missing", files[0]),
                format!("install the package again, or run make install; then: systemctl reload {process}"),
            );
        }
    }
    found
}

fn mtus(host: &Host, told: Option<&Told>) -> Found {
    let mut found = Found::new();
    let Some(told) = told else {
        skipped(&mut found, "vmfabricd, which knows the networks, does not run");
        return found;
    };
    for network in told.inventory.networks.values() {
        let wanted = u32::from(network.mtu);
        // Flat and VLAN networks share their bridge's uplink; a tap's MTU follows its network.
        for link in host.bridge_ports(&network.bridge).into_iter().filter(|link| !link.starts_with("vnet")) {
            if let Some(mtu) = host.mtu(&link).filter(|mtu| *mtu < wanted) {
                error(
                    &mut found,
                    format!(
                        "network '{}' tells guests an MTU of {wanted}, and {link} carries {mtu}: large packets are lost",
                        network.name
                    ),
                    format!("vmfabric network set {} mtu={mtu}, or: ip link set {link} mtu {wanted}", network.name),
                );
            }
        }
    }
    found
}

fn disk(host: &Host) -> Found {
    let mut found = Found::new();
    let path = if host.exists("var/lib/vmfabric") { "var/lib/vmfabric" } else { "var/lib" };
    const MIB: u64 = 1024 * 1024;
    match host.free(path) {
        Some(free) if free < 16 * MIB => error(
            &mut found,
            format!("/{path} has {} KiB left: no new lease, network or port can be stored", free / 1024),
            "free some space on that file system",
        ),
        Some(free) if free < 128 * MIB => {
            warning(&mut found, format!("/{path} has {} MiB left", free / MIB), "free some space on that file system");
        }
        Some(_) => {}
        None => skipped(&mut found, "it cannot be asked for"),
    }
    found
}

fn print(diagnosis: &Diagnosis, out: &mut Output) -> Result<(), CliError> {
    for check in &diagnosis.checks {
        let (colour, word) = match check.state {
            State::Ok => (32, "ok"),
            State::Skipped => (36, "skipped"),
            State::Warning => (33, "warning"),
            State::Error => (31, "error"),
        };
        let padding = " ".repeat(9 - word.len());
        out.line(format!("{}{padding}{}", out.tinted(colour, word), check.check))?;
        for finding in &check.findings {
            out.line(format!("         {}", printable(&finding.what)))?;
            if let Some(mend) = &finding.mend {
                out.line(format!("         -> {}", printable(mend)))?;
            }
        }
    }
    let count = |state: State| diagnosis.checks.iter().filter(|check| check.state == state).count();
    match (count(State::Error), count(State::Warning)) {
        (0, 0) => out.line("Nothing is wrong."),
        (errors, warnings) => out.line(format!("{errors} with errors, {warnings} with warnings.")),
    }
}

#[cfg(test)]
mod tests;
