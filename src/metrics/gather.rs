//! Which metrics there are, and where they come from. Names and units: <https://prometheus.io/docs/practices/naming>.

use super::text::{Exposition, Format, Kind};
use crate::{
    backend::{Counted, Counters, LinkCounters, Sender},
    intent::{Network, NetworkId},
    net::IfName,
    protocol::{dhcpv4, dhcpv6},
    reconciler::{Handle, LibvirtStatus, PortStatus, Subject, View},
    server::{
        Histogram,
        meters::{Meters, Reading},
    },
};
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

/// Whom metrics are asked of.
#[derive(Debug, Clone)]
pub struct Sources {
    pub handle: Handle,
    pub counters: Arc<dyn Counters>,
    pub meters: Arc<Meters>,
}

/// What is taken from the view while it is held.
#[derive(Debug, Default)]
struct Taken {
    connected: bool,
    problems: [(&'static str, usize); 4],
    statuses: BTreeMap<&'static str, usize>,
    subnets: usize,
    passes: Histogram,
    bring_ups: Histogram,
    last_changes: usize,
    changes: u64,
    failed_passes: u64,
    networks: BTreeMap<Uuid, TakenNetwork>,
    /// Ports of running guests: tap, network, name or id, and what else tells them.
    ports: Vec<TakenPort>,
}

#[derive(Debug)]
struct TakenNetwork {
    name: String,
    leases: usize,
    pools: Vec<Pool>,
}

#[derive(Debug)]
struct Pool {
    subnet: String,
    size: f64,
    used: usize,
    full: bool,
}

#[derive(Debug)]
struct TakenPort {
    tap: IfName,
    senders: Vec<Sender>,
    network: String,
    /// Its name, or its id where it has none.
    port: String,
    mac: String,
    domain: String,
}

impl Sources {
    /// All of them, or `None` where the kernel does not tell.
    pub(super) async fn gather(&self, format: Format) -> Option<String> {
        let counters = Arc::clone(&self.counters);
        let counted = tokio::task::spawn_blocking(move || counters.read()).await.ok()?;
        let counted = counted.inspect_err(|error| tracing::warn!(%error, "links' counters cannot be read")).ok()?;
        let readings = self.meters.read().await;
        let taken = Taken::of(&self.handle.view());
        // Megabytes of text, with ten thousand ports.
        tokio::task::spawn_blocking(move || write(format, &taken, &counted, &readings)).await.ok()
    }
}

impl Taken {
    fn of(view: &View) -> Self {
        let mut problems = [("host", 0), ("network", 0), ("port", 0), ("subnet", 0)];
        for problem in &view.problems {
            let at = match problem.subject {
                Subject::Host => 0,
                Subject::Network(_) => 1,
                Subject::Port(_) => 2,
                Subject::Subnet(_) => 3,
            };
            problems[at].1 += 1;
        }
        let mut statuses: BTreeMap<&'static str, usize> =
            PortStatus::ALL.iter().map(|status| (status.as_str(), 0)).collect();
        for port in view.intent.ports() {
            *statuses.entry(view.port_status(port.id).as_str()).or_default() += 1;
        }
        let networks: BTreeMap<Uuid, TakenNetwork> =
            view.intent.networks().map(|network| (network.id.0, taken_network(view, network))).collect();
        let name_of = |network: NetworkId| networks.get(&network.0).map(|known| known.name.clone());
        let attached = view.attachments.iter();
        let ports = attached.filter_map(|(id, attachment)| {
            let port = view.intent.port(*id)?;
            let guest = attachment.guest.as_ref().or(port.device.as_ref());
            Some(TakenPort {
                tap: attachment.tap.clone(),
                senders: view.senders_of(port),
                network: name_of(port.network)?,
                port: port.name.as_ref().map_or_else(|| id.to_string(), ToString::to_string),
                mac: port.mac.to_string(),
                domain: guest.map(|guest| guest.name.clone()).unwrap_or_default(),
            })
        });
        Self {
            connected: view.libvirt == LibvirtStatus::Connected,
            problems,
            statuses,
            subnets: view.intent.subnets().count(),
            passes: view.passes_took.clone(),
            bring_ups: view.bring_ups_took.clone(),
            last_changes: view.last_changes,
            changes: view.changes,
            failed_passes: view.failed_passes,
            ports: ports.collect(),
            networks,
        }
    }
}

fn taken_network(view: &View, network: &Network) -> TakenNetwork {
    let held = view.leases.range((network.id, std::net::Ipv4Addr::UNSPECIFIED.into())..);
    let held: Vec<_> = held.take_while(|((id, _), _)| *id == network.id).map(|((_, address), _)| *address).collect();
    let pools = view.intent.subnets_of(network.id).filter(|subnet| !subnet.pools.is_empty()).map(|subnet| Pool {
        subnet: subnet.cidr.to_string(),
        size: subnet.pools.iter().map(|pool| pool.size() as f64).sum(),
        used: held.iter().filter(|address| subnet.pools.iter().any(|pool| pool.contains(**address))).count(),
        full: view.full_pools.contains(&subnet.id),
    });
    TakenNetwork { name: network.name.to_string(), leases: held.len(), pools: pools.collect() }
}

fn write(format: Format, taken: &Taken, counted: &Counted, readings: &BTreeMap<Uuid, Reading>) -> String {
    let mut text = Exposition::new(format);
    write_host(&mut text, taken);
    write_ports(&mut text, taken, counted);
    write_pools(&mut text, taken);
    let named: Vec<(&str, &Reading)> = readings
        .iter()
        .filter_map(|(network, reading)| Some((taken.networks.get(network)?.name.as_str(), reading)))
        .collect();
    write_dhcp(&mut text, &named);
    write_dns(&mut text, &named);
    text.finish()
}

fn write_host(text: &mut Exposition, taken: &Taken) {
    text.family("vmfabric_build_info", Kind::Gauge, None, "The version of vmfabricd; always 1.");
    text.value(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family("vmfabric_libvirt_connected", Kind::Gauge, None, "Whether libvirt is connected.");
    text.value(&[], u8::from(taken.connected));
    text.family("vmfabric_problems", Kind::Gauge, None, "What vmfabric status lists, by what it is about.");
    for (subject, count) in taken.problems {
        text.value(&[("subject", subject)], count);
    }
    text.family("vmfabric_networks", Kind::Gauge, None, "Networks that are defined.");
    text.value(&[], taken.networks.len());
    text.family("vmfabric_subnets", Kind::Gauge, None, "Subnets that are defined.");
    text.value(&[], taken.subnets);
    text.family("vmfabric_ports", Kind::Gauge, None, "Ports that are defined, by status.");
    for (status, count) in &taken.statuses {
        text.value(&[("status", status)], count);
    }
    text.family(
        "vmfabric_reconcile_duration_seconds",
        Kind::Histogram,
        Some("seconds"),
        "How long full passes took: what the host has is compared with what it should have, and changed.",
    );
    text.histogram(&[], &taken.passes);
    text.family(
        "vmfabric_port_bring_up_duration_seconds",
        Kind::Histogram,
        Some("seconds"),
        "How long guests' NICs waited for their ports.",
    );
    text.histogram(&[], &taken.bring_ups);
    text.family("vmfabric_plan_changes", Kind::Gauge, None, "Changes that the last full pass made.");
    text.value(&[], taken.last_changes);
    text.family("vmfabric_reconcile_changes", Kind::Counter, None, "Changes that full passes made.");
    text.value(&[], taken.changes);
    text.family("vmfabric_reconcile_retries", Kind::Counter, None, "Full passes that failed and were tried again.");
    text.value(&[], taken.failed_passes);
}

fn write_ports(text: &mut Exposition, taken: &Taken, counted: &Counted) {
    let ports: Vec<(&TakenPort, LinkCounters)> =
        taken.ports.iter().filter_map(|port| Some((port, counted.of(&port.tap, &port.senders)?))).collect();
    text.family("vmfabric_port_info", Kind::Gauge, None, "Ports of running guests, with what else is known; always 1.");
    for (port, _) in &ports {
        let tap = port.tap.to_string();
        let more = [("mac", port.mac.as_str()), ("tap", &tap), ("domain", &port.domain)];
        text.value(&[&labels(port)[..], &more].concat(), 1);
    }
    type Value = fn(&LinkCounters) -> u64;
    let families: [(&str, Option<&str>, &str, Value); 5] = [
        ("vmfabric_port_sent_bytes", Some("bytes"), "What guests sent.", |link| link.came_in.bytes),
        ("vmfabric_port_sent_packets", Some("packets"), "Frames that guests sent.", |link| link.came_in.packets),
        ("vmfabric_port_received_bytes", Some("bytes"), "What guests were sent.", |link| link.went_out.bytes),
        ("vmfabric_port_received_packets", Some("packets"), "Frames that guests were sent.", |link| {
            link.went_out.packets
        }),
        ("vmfabric_port_unread_packets", Some("packets"), "Frames that guests did not take in time.", |link| {
            link.lost_out
        }),
    ];
    for (name, unit, help, value) in families {
        text.family(name, Kind::Counter, unit, help);
        for (port, link) in &ports {
            text.value(&labels(port), value(link));
        }
    }
    text.family(
        "vmfabric_port_dropped_packets",
        Kind::Counter,
        Some("packets"),
        "Frames from and to guests that were dropped, by reason.",
    );
    for (port, link) in &ports {
        for (reason, count) in &link.drops {
            text.value(&[&labels(port)[..], &[("reason", reason)]].concat(), count.packets);
        }
    }
}

fn labels(port: &TakenPort) -> [(&str, &str); 2] {
    [("network", &port.network), ("port", &port.port)]
}

fn write_pools(text: &mut Exposition, taken: &Taken) {
    text.family("vmfabric_leases", Kind::Gauge, None, "DHCP leases that run.");
    for network in taken.networks.values() {
        text.value(&[("network", &network.name)], network.leases);
    }
    type Value = fn(&Pool) -> f64;
    let families: [(&str, &str, Value); 3] = [
        ("vmfabric_pool_addresses", "Addresses of a subnet's DHCP pools.", |pool| pool.size),
        ("vmfabric_pool_leased_addresses", "Those of them that are leased.", |pool| pool.used as f64),
        ("vmfabric_pool_full", "Whether a guest was refused as none was free.", |pool| f64::from(u8::from(pool.full))),
    ];
    for (name, help, value) in families {
        text.family(name, Kind::Gauge, None, help);
        for network in taken.networks.values() {
            for pool in &network.pools {
                text.value(&[("network", &network.name), ("subnet", &pool.subnet)], value(pool));
            }
        }
    }
}

/// What one DHCP server did.
struct Served<'a> {
    network: &'a str,
    protocol: &'static str,
    received: u64,
    replies: Vec<(&'static str, u64)>,
    unanswered: Vec<(&'static str, u64)>,
    events: Vec<(&'static str, u64)>,
}

impl<'a> Served<'a> {
    /// `held_back`: left unread, as their port sent too many.
    fn v4(network: &'a str, (stats, held_back): &(dhcpv4::Stats, u64)) -> Self {
        Self {
            network,
            protocol: "dhcpv4",
            received: stats.received + held_back,
            replies: vec![("offer", stats.offers), ("ack", stats.acks), ("nak", stats.naks)],
            unanswered: vec![
                ("malformed", stats.malformed),
                ("spoofed", stats.spoofed),
                ("ignored", stats.ignored),
                ("limited", stats.limited),
                ("flood", *held_back),
            ],
            events: vec![("release", stats.releases), ("decline", stats.declines), ("conflict", stats.conflicts)],
        }
    }

    fn v6(network: &'a str, (stats, held_back): &(dhcpv6::Stats, u64)) -> Self {
        Self {
            network,
            protocol: "dhcpv6",
            received: stats.received + held_back,
            replies: vec![("advertise", stats.advertises), ("reply", stats.replies)],
            unanswered: vec![
                ("malformed", stats.malformed),
                ("ignored", stats.ignored),
                ("limited", stats.limited),
                ("flood", *held_back),
            ],
            events: vec![("release", stats.releases), ("decline", stats.declines)],
        }
    }
}

fn write_dhcp(text: &mut Exposition, readings: &[(&str, &Reading)]) {
    let v4 = readings.iter().filter_map(|(network, reading)| Some(Served::v4(network, reading.dhcp.as_ref()?)));
    let v6 = readings.iter().filter_map(|(network, reading)| Some(Served::v6(network, reading.dhcpv6.as_ref()?)));
    let served: Vec<_> = v4.chain(v6).collect();
    text.family("vmfabric_dhcp_received_messages", Kind::Counter, None, "DHCP messages that came in.");
    for server in &served {
        text.value(&[("network", server.network), ("protocol", server.protocol)], server.received);
    }
    type Counts<'a> = fn(&'a Served<'a>) -> &'a [(&'static str, u64)];
    let families: [(&str, &str, &str, Counts); 3] = [
        ("vmfabric_dhcp_replies", "DHCP replies, by type.", "type", |server| &server.replies),
        ("vmfabric_dhcp_unanswered_messages", "DHCP messages without reply, by reason.", "reason", |server| {
            &server.unanswered
        }),
        (
            "vmfabric_dhcp_events",
            "Addresses that clients gave back or refused, or that were in use.",
            "event",
            |server| &server.events,
        ),
    ];
    for (name, help, label, counts) in families {
        text.family(name, Kind::Counter, None, help);
        for server in &served {
            for (kind, count) in counts(server) {
                text.value(&[("network", server.network), ("protocol", server.protocol), (label, kind)], count);
            }
        }
    }
}

fn write_dns(text: &mut Exposition, readings: &[(&str, &Reading)]) {
    let served: Vec<_> =
        readings.iter().filter_map(|(network, reading)| Some((*network, reading.dns.as_ref()?))).collect();
    text.family("vmfabric_dns_queries", Kind::Counter, None, "DNS questions of guests.");
    for (network, (stats, _)) in &served {
        text.value(&[("network", network)], stats.queries);
    }
    text.family("vmfabric_dns_answers", Kind::Counter, None, "DNS questions by what answered them: names of the network, the cache, or resolvers upstream; joined ones waited with an equal question.");
    for (network, (stats, _)) in &served {
        for (source, count) in
            [("local", stats.local), ("cache", stats.cached), ("upstream", stats.forwarded), ("joined", stats.joined)]
        {
            text.value(&[("network", network), ("source", source)], count);
        }
    }
    text.family(
        "vmfabric_dns_stale_answers",
        Kind::Counter,
        None,
        "Answers that had run out and were given all the same (RFC 8767).",
    );
    for (network, (stats, _)) in &served {
        text.value(&[("network", network)], stats.stale);
    }
    text.family(
        "vmfabric_dns_refused_queries",
        Kind::Counter,
        None,
        "DNS questions that were not answered, or answers that were not passed on, by reason.",
    );
    for (network, (stats, _)) in &served {
        for (reason, count) in [
            ("rate", stats.held_back),
            ("busy", stats.busy),
            ("malformed", stats.dropped),
            ("rebinding", stats.rebinding),
        ] {
            text.value(&[("network", network), ("reason", reason)], count);
        }
    }
    let (mut here, mut upstream) = (Histogram::default(), Histogram::default());
    for (_, (_, took)) in &served {
        here.add(&took.here);
        upstream.add(&took.upstream);
    }
    text.family(
        "vmfabric_dns_response_duration_seconds",
        Kind::Histogram,
        Some("seconds"),
        "How long answers took, of all networks: those given at once, and those asked of resolvers upstream.",
    );
    text.histogram(&[("source", "here")], &here);
    text.histogram(&[("source", "upstream")], &upstream);
}
