//! Commands against the service in front of a core that only remembers.

use super::{Arguments, CliError, Output, client::Client, run};
use crate::{
    backend::LeaseRecord,
    dbus::tests::{Bench, bus::Bus, within},
    reconciler::{Attachment, Notice, Problem, Subject},
};
use clap::{CommandFactory, Parser};
use serde_json::{Value, json};
use std::{
    io::Write,
    process::ExitCode,
    sync::{Arc, Mutex},
};

/// What a command printed.
#[derive(Debug, Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("UTF-8")
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn start(command: &str, client: zbus::Connection, printed: Printed) -> Result<ExitCode, CliError> {
    let arguments = Arguments::try_parse_from(format!("vmfabric {command}").split_whitespace()).expect("valid usage");
    let client = Client::on(client).await?;
    let mut out = Output::to(arguments.json, printed);
    run(arguments, &client, &mut out).await
}

async fn vmfabric(bench: &Bench, command: &str) -> Result<(ExitCode, String), CliError> {
    let printed = Printed::default();
    let code = within(start(command, bench.client.clone(), printed.clone())).await?;
    Ok((code, printed.text()))
}

async fn prints(bench: &Bench, command: &str) -> String {
    vmfabric(bench, command).await.unwrap_or_else(|error| panic!("{command}: {error}")).1
}

async fn document(bench: &Bench, command: &str) -> Value {
    serde_json::from_str(&prints(bench, &format!("--json {command}")).await).expect("JSON")
}

async fn fails(bench: &Bench, command: &str, code: u8) -> String {
    let error = vmfabric(bench, command).await.expect_err(command);
    assert_eq!(error.exit_code(), ExitCode::from(code), "{command}: {error}");
    error.to_string()
}

/// Lines without the ids, which differ from run to run.
fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn the_arguments_are_consistent() {
    Arguments::command().debug_assert();
    let usage = |command: &str| Arguments::try_parse_from(format!("vmfabric {command}").split_whitespace());
    for bad in [
        "network create blue --vlan 10",
        "network create blue --physical lan --vlan 4095",
        "network create -bad",
        "subnet create blue 10.0.0.0/33",
        "subnet create blue 10.0.0.0/24 --pool 10.0.0.9-10.0.0.1",
        "port create blue --mac 01:00:5e:00:00:01",
        "port create blue --only-tagged",
        "network set blue",
        "port set web",
        "port set web --rate-in fast",
        "port set web --allowed-address 10.0.0.1/24",
        "port set web --dscp 64",
        "network set blue --isolated perhaps",
        "port set web --security-group a --no-security-group",
        "security-group rule add web",
        "network delete",
    ] {
        assert_eq!(usage(bad).expect_err(bad).exit_code(), 2);
    }
}

#[tokio::test]
async fn records() {
    let bench = Bench::start().await;
    prints(&bench, "network create blue --forwarder corp.example=10.0.0.53 --forwarder 10.0.0.54:5353").await;
    prints(&bench, "network create red --shared-with blue").await;
    prints(&bench, "record create blue www A 10.0.0.9 --ttl 60").await;
    prints(&bench, "record create blue _sip._tcp SRV 0 5 5060 www").await;
    prints(&bench, "record create blue @ TXT -- v=spf1 -all").await;
    prints(&bench, "record create red *.dev CNAME www").await;
    let listed = prints(&bench, "record list").await;
    assert_eq!(
        words(&listed),
        [
            &["NETWORK", "NAME", "TTL", "TYPE", "DATA"][..],
            &["blue", "@", "-", "TXT", "\"v=spf1\"", "\"-all\""],
            &["blue", "_sip._tcp", "-", "SRV", "0", "5", "5060", "www"],
            &["blue", "www", "60", "A", "10.0.0.9"],
            &["red", "*.dev", "-", "CNAME", "www"],
        ]
    );
    assert_eq!(
        document(&bench, "record list red").await,
        json!([{"network": "red", "fqdn": "*.dev.red.internal", "name": "*.dev", "ttl": null, "type": "CNAME", "data": "www"}])
    );
    prints(&bench, "record delete blue www A 10.0.0.9").await;
    prints(&bench, "record delete blue @").await;
    assert_eq!(document(&bench, "record list blue").await.as_array().map(Vec::len), Some(1));
    fails(&bench, "record create blue www A nonsense", 2).await;
    fails(&bench, "record create blue www SOA x", 2).await;
    fails(&bench, "record create green www A 10.0.0.1", 3).await;
    let shown = document(&bench, "network show red").await;
    assert_eq!(shown["dns_shared_with"], json!(["blue"]));
    prints(&bench, "network set blue forwarders=corp.example= forward-unknown=yes").await;
    let shown = document(&bench, "network show blue").await;
    assert_eq!((&shown["dns_forwarders"], &shown["dns_forward_unknown"]), (&json!(["corp.example="]), &json!(true)));
}

#[tokio::test]
async fn documents() {
    let bench = Bench::start().await;
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("lab.yaml");
    let file = file.to_str().expect("UTF-8");
    std::fs::write(
        file,
        "networks:\n- name: lab\n  dns_records: [www A 10.7.0.9]\nsubnets:\n- {network: lab, cidr: 10.7.0.0/24, forward: nat}\n\
         ports:\n- name: db\n  network: lab\n  mac: 52:54:00:00:00:01\n  addresses: [10.7.0.50]\n",
    )
    .expect("written");
    let (code, shown) = vmfabric(&bench, &format!("apply -f {file} --dry-run")).await.expect("valid");
    assert_eq!(code, ExitCode::from(8));
    for line in ["+ network lab", "+ port db", "    + bridge vmf-lab", "Plan: 3 to create, 0 to change, 0 to delete."] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
    }
    assert_eq!(bench.core.view().intent.networks().len(), 0);

    assert!(
        prints(&bench, &format!("apply -f {file} --yes")).await.ends_with("Done: 3 created, 0 changed, 0 deleted.\n")
    );
    let again = prints(&bench, &format!("apply -f {file} --yes --prune")).await;
    assert_eq!(again, "Nothing to do: all is as the document says.\n");
    assert!(prints(&bench, "network list").await.contains("lab"), "the bus has it as soon as apply returns");

    // What export prints is what apply takes, in every format.
    for format in ["toml", "yaml", "json"] {
        let exported = folder.path().join(format!("export.{format}"));
        std::fs::write(&exported, prints(&bench, &format!("export --format {format}")).await).expect("written");
        let applied = document(&bench, &format!("apply -f {} --prune", exported.display())).await;
        assert_eq!(applied, json!({"applied": false, "changes": [], "kept": [], "host_changes": []}));
    }

    // One fault, and nothing is done; it is said where.
    let bad = |text: &str| {
        std::fs::write(file, format!("networks:\n- name: red\nports:\n- name: x\n  network: lab\n{text}\n"))
    };
    bad("  mtu: 1400").expect("written");
    let text = fails(&bench, &format!("apply -f {file} --yes"), 2).await;
    assert!(text.starts_with(&format!("{file}:6: ports[0].mtu: unknown field `mtu`")), "{text}");
    bad("  addresses: [10.9.0.1]").expect("written");
    let text = fails(&bench, &format!("apply -f {file} --yes"), 2).await;
    assert!(text.starts_with(&format!("{file}:4: ports[0]: address 10.9.0.1 is outside")), "{text}");
    bad("  mac: 52:54:00:00:00:01").expect("written");
    let text = fails(&bench, &format!("apply -f {file} --yes"), 4).await;
    assert!(text.contains("52:54:00:00:00:01 is used already on network 'lab' by port 'db'; choose another"), "{text}");
    fails(&bench, "network show red", 3).await;
    assert!(fails(&bench, "apply -f /nonexistent.toml", 2).await.contains("/nonexistent.toml"));

    // A plan that is another by now is not done.
    let plan = json!({"networks": [{"name": "amber"}]}).to_string();
    let manager = bench.manager().await;
    let shown = manager.apply(&plan, &[("dry_run", true.into())].into()).await.expect("valid");
    let id: String = shown["plan"].clone().try_into().expect("text");
    prints(&bench, "network create amber").await;
    let late = manager.apply(&plan, &[("plan", id.as_str().into())].into()).await;
    assert!(matches!(late, Err(crate::dbus::Error::Conflict(_))), "{late:?}");
    let odd = manager.apply(&plan, &[("purge", true.into())].into()).await;
    assert!(matches!(&odd, Err(crate::dbus::Error::InvalidArgument(text)) if text.contains("purge")), "{odd:?}");

    std::fs::write(file, "{}").expect("written");
    let pruned = document(&bench, &format!("apply -f {file} --prune --yes")).await;
    let gone: Vec<_> = pruned["changes"].as_array().expect("a list").iter().map(|c| &c["name"]).collect();
    assert_eq!((&pruned["applied"], gone.len()), (&json!(true), 4), "{pruned}");
    assert_eq!(document(&bench, "network list").await, json!([]));
}

#[tokio::test]
async fn networks() {
    let bench = Bench::start().await;
    prints(
        &bench,
        "network create blue --physical lan --vlan 10 --mtu 1450 --domain blue.lab \
         --dhcp-option ntp-servers=10.0.0.3,10.0.0.4 --boot bios=a.kpxe",
    )
    .await;
    prints(&bench, "network create amber").await;
    prints(&bench, "subnet create amber 10.0.0.0/24").await;
    prints(&bench, "port create amber").await;
    let listed = prints(&bench, "network list").await;
    let listed = words(&listed);
    assert_eq!(listed[0], ["NAME", "ID", "SEGMENT", "BRIDGE", "SUBNETS", "PORTS", "STATUS"]);
    assert_eq!((listed[1][0], &listed[1][2..]), ("amber", &["local", "vmf-amber", "10.0.0.0/24", "1", "active"][..]));
    assert_eq!(
        (listed[2][0], &listed[2][2..]),
        ("blue", &["VLAN", "10", "on", "lan", "vmf-lan", "-", "0", "active"][..])
    );

    let mut shown = document(&bench, "network show blue").await;
    let id = shown["id"].take();
    let id = id.as_str().expect("an id");
    assert_eq!(
        shown,
        json!({"id": null, "name": "blue", "segment": "vlan", "physical_network": "lan", "vlan": 10,
            "bridge": "vmf-lan", "mtu": 1450, "dns_domain": "blue.lab", "dns_records": 0, "dns_forwarders": [],
            "dns_shared_with": [], "dns_forward_unknown": false, "subnets": [], "ports": 0,
            "port_security": true, "security_groups": [], "isolated": false,
            "dhcp_options": ["ntp-servers=10.0.0.3,10.0.0.4"], "dhcp_boot": ["bios=a.kpxe"],
            "status": "active", "problems": []})
    );
    prints(&bench, "network set blue mtu= vlan=20 domain=red.lab dhcp-option=23:u8=64;wpad=http://a boot=").await;
    let shown = document(&bench, &format!("network show {}", &id[..8])).await;
    assert_eq!((&shown["dhcp_options"], &shown["dhcp_boot"]), (&json!(["23:u8=64", "wpad=http://a"]), &json!([])));
    fails(&bench, "network set blue dhcp-option=ntp=1", 2).await;
    assert_eq!((&shown["mtu"], &shown["vlan"], &shown["dns_domain"]), (&json!(1500), &json!(20), &json!("red.lab")));

    fails(&bench, "network create blue", 4).await;
    fails(&bench, "network show green", 3).await;
    fails(&bench, "network set blue colour=red", 2).await;
    fails(&bench, "network set blue vlan=5000", 2).await;
    fails(&bench, "network create disk-full", 1).await;
    // All or none of them.
    fails(&bench, "network delete blue green", 3).await;
    prints(&bench, "network delete blue amber").await;
    assert_eq!(document(&bench, "network list").await, json!([]));
}

#[tokio::test]
async fn subnets_and_ports() {
    let bench = Bench::start().await;
    prints(&bench, "network create blue --physical lan").await;
    let created = prints(
        &bench,
        "--json subnet create blue 10.0.0.0/24 --gateway 10.0.0.1 --host-address 10.0.0.2 --pool 10.0.0.10-10.0.0.19 \
         --pool 10.0.0.30-10.0.0.39 --dhcp --dns 10.0.0.53 --route 10.9.0.0/16=10.0.0.9 --lease-time 2h --relay 10.0.0.4",
    )
    .await;
    let mut created: Value = serde_json::from_str(&created).expect("JSON");
    for id in ["id", "network_id"] {
        assert!(created[id].take().is_string());
    }
    assert_eq!(
        created,
        json!({"id": null, "network_id": null, "name": "blue", "network": "blue", "cidr": "10.0.0.0/24",
            "gateway": "10.0.0.1", "host_address": "10.0.0.2",
            "pools": ["10.0.0.10-10.0.0.19", "10.0.0.30-10.0.0.39"], "dhcp": true, "dns_servers": ["10.0.0.53"],
            "host_routes": [{"destination": "10.9.0.0/16", "next_hop": "10.0.0.9"}], "forward": "none",
            "lease_seconds": 7200, "dhcp_options": [], "dhcp_boot": [], "dhcp_relays": ["10.0.0.4"],
            "ipv6_mode": null, "pd_block": null, "pd_length": null, "ntp_servers": [],
            "dhcp_pool_full": false, "status": "active", "problems": []})
    );
    prints(&bench, "subnet set blue dhcp=no route= dns=1.1.1.1,9.9.9.9 lease-time=infinite").await;
    let shown = prints(&bench, "subnet show blue").await;
    let shown = words(&shown);
    for line in [&["dhcp", "no"][..], &["routes", "-"], &["dns", "1.1.1.1"], &["lease", "time", "infinite"]] {
        assert!(shown.contains(&line.to_vec()), "{line:?} in {shown:?}");
    }

    let device = "6c1f6a0e-8a38-4f0d-9a35-0d5d5a2b7c11";
    let create = "port create blue --name web --mac 52:54:00:00:00:07 --address 10.0.0.12 --trunk 10,20";
    prints(&bench, &format!("{create} --only-tagged --dns-name www --client-id text:web --device {device}")).await;
    let mut port = document(&bench, "port show 52:54:00:00:00:07").await;
    for id in ["id", "network_id"] {
        assert!(port[id].take().is_string());
    }
    assert_eq!(
        port,
        json!({"id": null, "network_id": null, "name": "web", "network": "blue", "mac": "52:54:00:00:00:07",
            "addresses": ["10.0.0.12"], "trunk_vlans": [10, 20], "trunk_only_tagged": true, "dns_name": "www",
            "dhcp_options": [], "dhcp_boot": [], "dhcp_client_id": "00:77:65:62",
            "device": device, "device_name": null, "origin": "admin", "status": "down", "tap": null,
            "domain": null, "port_security": true, "isolated": false, "security_groups": [],
            "effective_security_groups": [], "filtered": false,
            "inherited": ["port_security", "security_groups", "isolated"], "allowed_address_pairs": [],
            "egress_kbps": null, "egress_burst_kb": null, "ingress_kbps": null, "ingress_burst_kb": null,
            "dscp": null, "problems": []})
    );
    fails(&bench, "port create blue --mac 52:54:00:00:00:07", 4).await;
    fails(&bench, "port set web address=10.7.0.1", 2).await;
    let listed = prints(&bench, "port list blue").await;
    assert_eq!(words(&listed)[1][0], "web");
    assert_eq!(words(&prints(&bench, "subnet list").await)[1][3], "10.0.0.0/24");
    fails(&bench, "port list green", 3).await;
    prints(&bench, "port delete web").await;
    prints(&bench, "subnet delete blue").await;
}

#[tokio::test]
async fn groups() {
    let bench = Bench::start().await;
    prints(&bench, "network create blue").await;
    prints(&bench, "address-group create office 192.0.2.0/24 2001:db8::7 --description Berlin").await;
    prints(&bench, "security-group create web").await;
    prints(&bench, "security-group create jump --no-rules --stateless").await;
    let added = prints(&bench, "security-group rule add web ingress tcp 8000-8080 from address-group office").await;
    assert_eq!(words(&added).len(), 2, "{added}");
    assert!(added.contains("ingress ipv6 tcp 8000-8080 from address-group office"), "{added}");
    let added = prints(&bench, "--json sg rule add web ingress icmp 8/0 from host --description ping").await;
    let added: Value = serde_json::from_str(&added).expect("JSON");
    assert_eq!(
        added,
        json!([{"id": added[0]["id"], "rule": "ingress ipv4 icmp 8/0 from host", "direction": "ingress",
            "ethertype": "ipv4", "protocol": "icmp", "port_range_min": null, "port_range_max": null, "icmp_type": 8,
            "icmp_code": 0, "remote_ip_prefix": null, "remote_group": null, "remote_address_group": null,
            "remote_host": true, "description": "ping"}])
    );
    assert!(fails(&bench, "sg rule add web ingress tcp ssh", 2).await.contains("'ssh' is no port"));
    assert!(fails(&bench, "sg rule add web ingress from group dbs", 3).await.contains("no security group 'dbs'"));
    assert!(fails(&bench, "sg rule add web egress", 4).await.contains("has the rule 'egress ipv4 any' already"));

    prints(&bench, "network set blue --security-group web --isolated on").await;
    prints(
        &bench,
        "port create blue --name p --allowed-address 10.9.0.0/24,52:54:00:00:00:09 --allowed-address 10.0.0.7 \
         --rate-in 100M --rate-out 1G --burst-out 8M --dscp 46",
    )
    .await;
    let shown = prints(&bench, "port show p").await;
    for line in [
        "port security      on, as its network says",
        "security groups    web (its network's)",
        "isolated           on, as its network says",
        "rate in            100000 kbit/s",
        "rate out           1000000 kbit/s, 8000 kbit at once",
        "dscp               46",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    let port = document(&bench, "port show p").await;
    assert_eq!(
        port["allowed_address_pairs"],
        json!([{"ip": "10.0.0.7/32", "mac": null}, {"ip": "10.9.0.0/24", "mac": "52:54:00:00:00:09"}])
    );
    prints(&bench, "port set p --no-security-group isolated=off allowed-address= dscp=").await;
    let shown = prints(&bench, "port show p").await;
    assert!(shown.contains("none: nothing but address configuration passes"), "{shown}");
    assert!(fails(&bench, "port set p isolated=off --isolated on", 2).await.contains("given twice"));
    assert!(fails(&bench, "port set p --security-group web --port-security off", 2).await.contains("port security"));
    prints(&bench, "port set p --port-security off").await;
    assert!(prints(&bench, "port show p").await.contains("not filtered by groups, as port security is off"));
    prints(&bench, "port set p port-security= security-group=web").await;

    let listed = prints(&bench, "security-group list").await;
    assert_eq!(words(&listed)[2][2..], ["yes", "5", "blue", "1", "-"]);
    assert_eq!(words(&prints(&bench, "address-group list").await)[1][2..], ["2", "web", "Berlin"]);
    assert!(fails(&bench, "sg delete web", 4).await.contains("in use by network 'blue', port 'p'"));
    assert!(fails(&bench, "address-group delete office", 4).await.contains("a rule of security group 'web'"));

    // By what it says, and by the beginning of its id.
    prints(&bench, "sg rule remove web ingress tcp 8000-8080 from address-group office").await;
    let id = added[0]["id"].as_str().expect("an id");
    prints(&bench, &format!("sg rule remove web {}", &id[..8])).await;
    assert!(fails(&bench, "sg rule remove web ingress tcp 1", 3).await.contains("'vmfabric security-group show web'"));
    prints(&bench, "address-group add office 198.51.100.1").await;
    prints(&bench, "address-group remove office 192.0.2.0/24").await;
    let office = document(&bench, "address-group show office").await;
    assert_eq!(office["addresses"], json!(["198.51.100.1/32", "2001:db8::7/128"]));
    prints(&bench, "address-group delete office").await;
    prints(&bench, "sg set web name=www stateful=no").await;
    assert_eq!(document(&bench, "network show blue").await["security_groups"][0]["name"], "www");
}

#[tokio::test]
async fn status_plan_leases_and_log_level() {
    let bench = Bench::start().await;
    bench.populate().await;
    let (code, text) = vmfabric(&bench, "status").await.expect("answered");
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    assert!(words(&text).contains(&vec!["health", "ok"]), "{text}");

    let message = "port 67 is taken by dnsmasq; stop it".to_owned();
    bench.core.view().problems.push(Problem::new(Subject::Host, message.clone()));
    bench.core.tell(Notice::StatusChanged);
    within(async {
        while vmfabric(&bench, "status").await.expect("answered").0 == ExitCode::SUCCESS {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (code, text) = vmfabric(&bench, "--json status").await.expect("answered");
    assert_eq!(code, ExitCode::from(7));
    let status: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&status["health"], &status["problems"]), (&json!("degraded"), &json!([message])));
    assert_eq!(status["libvirt"], json!({"status": "connected", "detail": null}));

    let (code, text) = vmfabric(&bench, "plan").await.expect("answered");
    assert_eq!((code, text.as_str()), (ExitCode::from(8), "+ bridge vmf-blue\n"));

    let network = bench.core.view().intent.find_network("blue").expect("there").id;
    let lease = LeaseRecord {
        network: network.0,
        address: [10, 0, 0, 7].into(),
        client: vec![1, 0x52],
        iaid: None,
        prefix_length: None,
        mac: "52:54:00:00:00:01".parse().expect("valid"),
        host_name: Some("we\x1bb".into()),
        port: None,
        expires: 1,
    };
    bench.core.view().leases.insert((network, lease.address), lease);
    let listed = prints(&bench, "lease list blue").await;
    assert_eq!(words(&listed)[1], ["blue", "10.0.0.7", "52:54:00:00:00:01", "we\u{fffd}b", "expired"]);
    let leases = document(&bench, "lease list").await;
    assert_eq!(leases[0]["client"], json!("0152"));
    // Of two clocks that are read one after the other.
    assert!((0..=3).contains(&leases[0]["expires"].as_u64().expect("a time")));

    prints(&bench, "log-level debug").await;
    assert_eq!(prints(&bench, "log-level").await, "debug\n");
    fails(&bench, "log-level loud", 2).await;
}

#[tokio::test]
async fn watch_prints_what_happens() {
    let bench = Bench::start().await;
    let (people, programs) = (Printed::default(), Printed::default());
    let watching = [
        tokio::spawn(start("watch", bench.bus.connect().await, people.clone())),
        tokio::spawn(start("watch --json", bench.bus.connect().await, programs.clone())),
    ];
    let shows = async |printed: &Printed, text: &str| {
        within(async {
            while !printed.text().contains(text) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    // Until both listen, changes are made again.
    let mut n = 0;
    while people.text().is_empty() || programs.text().is_empty() {
        n += 1;
        prints(&bench, &format!("network create n{n}")).await;
    }
    bench.populate().await;
    shows(&people, "port web: added").await;
    let id = bench.core.view().intent.find_port("web").expect("there").id;
    let tap = crate::net::IfName::new("vnet0").expect("valid");
    bench.core.view().attachments.insert(id, Attachment { tap, guest: None, verified: true });
    bench.core.tell(Notice::PortChanged(id));
    shows(&people, "port web: status active, tap vnet0").await;
    shows(&programs, r#""name":"web","properties":{"status":"active","tap":"vnet0"}"#).await;
    bench.service.stop().await;
    shows(&people, "vmfabricd: stopped").await;
    for line in programs.text().lines() {
        let event: Value = serde_json::from_str(line).expect("one document a line");
        assert!(event["time"].is_u64() && event["event"].is_string() && event["kind"].is_string(), "{line}");
    }
    watching.into_iter().for_each(|watch| watch.abort());
}

#[tokio::test]
async fn a_daemon_that_is_not_there() {
    let bus = Bus::start();
    for command in ["status", "network list", "network create blue", "plan", "lease list"] {
        let error = within(start(command, bus.connect().await, Printed::default())).await.expect_err(command);
        assert_eq!(error.exit_code(), ExitCode::from(6), "{command}: {error}");
        assert!(error.to_string().contains("systemctl start vmfabricd"), "{error}");
    }
}

#[tokio::test]
async fn explanations_and_traces() {
    let bench = Bench::start().await;
    bench.populate().await;
    prints(&bench, "port create blue --name db").await;
    let explained = document(&bench, "explain web").await;
    assert_eq!((&explained["port_security"], &explained["groups"]), (&json!(true), &Value::Null));
    assert_eq!(explained["receives"][0]["group"], Value::Null);
    let shown = prints(&bench, "explain web").await;
    assert!(shown.contains("not filtered by groups"), "{shown}");
    fails(&bench, "explain nobody", 3).await;

    let shown = prints(&bench, "trace --from web --to db --port 443").await;
    let last = shown.lines().last().expect("lines");
    assert!(shown.starts_with("TCP from 10.0.0.") && last == "It passes.", "{shown}");
    let traced = document(&bench, "trace --from web --to 192.0.2.1").await;
    assert_eq!((&traced["allowed"], &traced["reason"]), (&json!(true), &Value::Null));
    let (code, shown) = vmfabric(&bench, "trace --from 192.0.2.1 --to web --icmp 8/0").await.expect("traced");
    assert!(code == ExitCode::from(9) && shown.contains("dropped (forward)"), "{shown}");
    fails(&bench, "trace --from nobody --to web", 3).await;
    fails(&bench, "trace --from web --to host --proto tcp", 2).await;
}
