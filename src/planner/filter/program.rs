//! The fixed part of the bridge table: the chains that every frame goes through, and the sets that they look into.
//!
//! Each rule about a protocol says `meta protocol` itself: what nft would put in its place reads the frame's type, which
//! is VLAN on a trunk, and the rule would not match.

use crate::datapath::{BOUND, Set, Table, Text};
use std::{collections::BTreeSet, fmt::Write};

/// Our bridges: nothing passes there but from and to what is bound.
pub(super) const BRIDGES: &str = "bridges";
/// Sets of links, by what they mean.
pub(super) const SECURED: &str = "secured";
pub(super) const ACCESS: &str = "access";
/// What its addresses are nobody knows: they are not checked.
pub(super) const FREE: &str = "free";
/// The same for what it says in neighbour discovery: an address pair that is a block would need a set of intervals.
pub(super) const ND_FREE: &str = "nd_free";
pub(super) const ISOLATED: &str = "isolated";
/// Source addresses by link.
pub(super) const MACS: &str = "macs";
pub(super) const ADDRESSES4: &str = "addresses4";
pub(super) const ADDRESSES6: &str = "addresses6";
pub(super) const PREFIXES4: &str = "prefixes4";
pub(super) const PREFIXES6: &str = "prefixes6";
pub(super) const ND_TARGETS: &str = "nd_targets";
pub(super) const ND_MACS: &str = "nd_macs";
pub(super) const RS_MACS: &str = "rs_macs";
/// Ports that groups apply to: what none of their rules lets through is dropped.
pub(super) const GROUPED: &str = "grouped";
/// Those of them whose groups remember connections.
pub(super) const STATEFUL: &str = "stateful";
/// Which rules a grouped port has, by direction.
pub(super) const OUT: &str = "out";
pub(super) const IN: &str = "in";
/// Which DSCP a port's packets get.
pub(super) const MARKS: &str = "marks";
/// Connection tracking.
pub(super) const TRACKED: &str = "tracked";
pub(super) const HOST_MACS: &str = "host_macs";
pub(super) const ZONES: &str = "zones";
pub(super) const VLAN_ZONES: &str = "vlan_zones";
/// The chain that is there where connections are tracked.
pub(super) const TRACKING: &str = "tracking";

const SETS: [(&str, &str); 19] = [
    (BRIDGES, "set type ifname"),
    (BOUND, "set type ifname"),
    (SECURED, "set type ifname"),
    (ACCESS, "set type ifname"),
    (FREE, "set type ifname"),
    (ND_FREE, "set type ifname"),
    (ISOLATED, "set type ifname"),
    (MACS, "set type ifname . ether_addr"),
    (ADDRESSES4, "set type ifname . ether_addr . ipv4_addr"),
    (ADDRESSES6, "set type ifname . ether_addr . ipv6_addr"),
    (PREFIXES4, "set type ifname . ether_addr . ipv4_addr; flags interval"),
    (PREFIXES6, "set type ifname . ether_addr . ipv6_addr; flags interval"),
    (ND_TARGETS, "set typeof iifname . @th,64,128"),
    (ND_MACS, "set typeof iifname . @th,208,48"),
    (RS_MACS, "set typeof iifname . @th,80,48"),
    (GROUPED, "set type ifname"),
    (OUT, "map type ifname : verdict"),
    (IN, "map type ifname : verdict"),
    (MARKS, "map type ifname : verdict"),
];

const TRACKING_SETS: [(&str, &str); 5] = [
    (STATEFUL, "set type ifname"),
    (TRACKED, "set type ifname"),
    (HOST_MACS, "set type ether_addr"),
    (ZONES, "map typeof iifname : ct zone"),
    (VLAN_ZONES, "map typeof iifname . vlan id : ct zone"),
];

/// Why a frame from a guest is dropped: each a chain `drop_REASON` that counts by link in `drops_REASON`.
const SENT_REASONS: [&str; 17] = [
    "vlan",
    "control",
    "mac",
    "storm",
    "ethertype",
    "arp",
    "ip",
    "ip6",
    "nd",
    "dhcp",
    "ra",
    "redirect",
    "options",
    "fragment",
    "isolation",
    "invalid_out",
    "group_out",
];
/// Likewise for a frame to a guest.
const RECEIVED_REASONS: [&str; 3] = ["foreign", "invalid_in", "group_in"];

/// Each reason for which a frame is dropped, with the set of the bridge table that counts them by link.
pub(super) fn reasons() -> impl Iterator<Item = (String, &'static str)> {
    SENT_REASONS.iter().chain(&RECEIVED_REASONS).map(|reason| (format!("drops_{reason}"), *reason))
}

/// The second and third rule say of a plain packet, which most are, what all that follows would: one lookup for four. What
/// has options or fragments, goes to many, or from or to a DHCP server is none. (nft 1.0.6 makes one comparison of two `!=` with
/// neighbouring fields, which is another condition; of sets it does not.)
const ANTISPOOF: &str = "\
ether type { 8021q, 8021ad } iifname @access goto drop_vlan
meta protocol ip ether daddr & 01:00:00:00:00:00 != 01:00:00:00:00:00 ip hdrlength 5 ip protocol { tcp, udp } th sport != { 67, 547 } th dport != { 67, 547 } \
iifname . ether saddr . ip saddr @addresses4 return
meta protocol ip6 ether daddr & 01:00:00:00:00:00 != 01:00:00:00:00:00 ip6 nexthdr { tcp, udp } th sport != { 67, 547 } th dport != { 67, 547 } \
iifname . ether saddr . ip6 saddr @addresses6 return
meta protocol { 8021q, 8021ad } goto drop_vlan
ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 goto drop_control
ether daddr { 01:00:0c:cc:cc:cc, 01:00:0c:cc:cc:cd } goto drop_control
iifname . ether saddr != @macs goto drop_mac
ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 jump storms
meta protocol vmap { arp : goto spoof_arp, 0x8035 : return, ip : goto spoof_ip, ip6 : goto spoof_ip6 }
goto drop_ethertype";

/// Broadcast and multicast reach all, and one socket takes a network's questions for addresses: were it full of one
/// guest's, others would not be heard. A thousand a second is more than either needs.
const STORMS: &str = "\
update @storm { iifname limit rate over 1000/second burst 2000 packets } goto drop_storm";

const SPOOF_ARP: &str = "\
meta protocol arp arp htype != 1 goto drop_arp
meta protocol arp arp ptype != ip goto drop_arp
meta protocol arp arp hlen != 6 goto drop_arp
meta protocol arp arp plen != 4 goto drop_arp
meta protocol arp iifname . arp saddr ether != @macs goto drop_arp
iifname @free return
meta protocol arp arp saddr ip 0.0.0.0 arp operation request return
meta protocol arp iifname . arp saddr ether . arp saddr ip @addresses4 return
meta protocol arp iifname . arp saddr ether . arp saddr ip @prefixes4 return
goto drop_arp";

/// A fragment beyond the first has no ports; its first one was judged.
const SPOOF_IP: &str = "\
meta protocol ip ip hdrlength > 5 ip protocol != igmp goto drop_options
meta protocol ip ip hdrlength > 6 goto drop_options
meta protocol ip ip hdrlength 6 ip option ra missing goto drop_options
meta protocol ip ip frag-off & 16383 != 0 ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 goto drop_fragment
meta protocol ip udp sport 67 goto drop_dhcp
meta protocol ip udp dport 67 ether daddr & 01:00:00:00:00:00 != 01:00:00:00:00:00 jump storms
meta protocol ip icmp type redirect goto drop_redirect
iifname @free return
meta protocol ip iifname . ether saddr . ip saddr @addresses4 return
meta protocol ip iifname . ether saddr . ip saddr @prefixes4 return
meta protocol ip ip saddr 0.0.0.0 udp sport 68 udp dport 67 return
meta protocol ip ip saddr 0.0.0.0 ip protocol igmp return
goto drop_ip";

/// A first fragment that ends before the header above IP hides it from every rule (RFC 7112): it has no `l4proto`. With
/// options the kernel takes the number that they name for the header, though that may be in another fragment.
const SPOOF_IP6: &str = "\
meta protocol ip6 exthdr rt exists goto drop_options
meta protocol ip6 exthdr frag exists jump fragment6
meta protocol ip6 udp sport 547 goto drop_dhcp
meta protocol ip6 udp dport 547 ether daddr & 01:00:00:00:00:00 != 01:00:00:00:00:00 jump storms
meta protocol ip6 meta l4proto ipv6-icmp icmpv6 type nd-router-advert goto drop_ra
meta protocol ip6 meta l4proto ipv6-icmp icmpv6 type nd-redirect goto drop_redirect
meta protocol ip6 meta l4proto ipv6-icmp icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } jump spoof_nd
iifname @free return
meta protocol ip6 iifname . ether saddr . ip6 saddr @addresses6 return
meta protocol ip6 iifname . ether saddr . ip6 saddr @prefixes6 return
meta protocol ip6 ip6 saddr :: meta l4proto ipv6-icmp icmpv6 type { nd-router-solicit, nd-neighbor-solicit, 131, 143 } return
goto drop_ip6";

const FRAGMENT6: &str = "\
ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 goto drop_fragment
meta protocol ip6 frag frag-off != 0 return
meta protocol ip6 exthdr dst exists goto drop_fragment
meta protocol ip6 exthdr hbh exists goto drop_fragment
meta l4proto { tcp, udp, ipv6-icmp, sctp, dccp, udplite, esp, ah, gre } return
goto drop_fragment";

/// No extension headers (RFC 6980), the port's own target, and at most one option: its own link-layer address, or the
/// nonce of RFC 7527 with `::` as source.
const SPOOF_ND: &str = "\
meta protocol ip6 ip6 nexthdr != ipv6-icmp goto drop_nd
meta protocol ip6 meta l4proto ipv6-icmp icmpv6 type nd-router-solicit goto spoof_rs
meta protocol ip6 meta l4proto ipv6-icmp icmpv6 type nd-neighbor-advert iifname != @nd_free iifname . @th,64,128 != @nd_targets goto drop_nd
meta protocol ip6 ip6 saddr :: iifname != @nd_free iifname . @th,64,128 != @nd_targets goto drop_nd
meta protocol ip6 ip6 length 24 return
meta protocol ip6 ip6 length != 32 goto drop_nd
meta protocol ip6 ip6 saddr :: @th,192,16 0x0e01 return
meta protocol ip6 @th,192,16 { 0x0101, 0x0201 } iifname . @th,208,48 @nd_macs return
goto drop_nd";

const SPOOF_RS: &str = "\
meta protocol ip6 ip6 length 8 return
meta protocol ip6 ip6 length 16 @th,64,16 0x0101 iifname . @th,80,48 @rs_macs return
goto drop_nd";

/// What stays on a bridge is tracked in its network's zone; what is for the host in zone 0, where the host's own stack
/// has it too; what goes to many is not tracked.
const TRACKING_RULES: &str = "\
type filter hook prerouting priority -300; policy accept;
ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 meta ibrname @tracked notrack accept
ether daddr @host_macs accept
ct zone set iifname . vlan id map @vlan_zones accept
ct zone set iifname map @zones accept
meta ibrname @tracked notrack";

/// Before br_netfilter, which goes on behind all hooks of its own priority, 0 (`br_nf_hook_thresh`).
const ISOLATION: &str = "\
type filter hook forward priority -10; policy accept;
iifname @isolated oifname @isolated goto drop_isolation";

/// The connection marks of an end that refused: of who opened the connection, and of who was to answer. The host's stack
/// confirms what it forwards before the guest's port has judged it, so that the connection is known though nothing of it
/// arrived, and the guest's answer would pass as one. Each end's port tests and changes its own bit alone: what one end
/// lets through says nothing of the other.
const OPENER_REFUSED: u32 = 0x4000_0000;
const ANSWERER_REFUSED: u32 = 0x8000_0000;

/// By connection tracking's direction of a packet, the bit of the end that it leaves (`out`), or reaches (`in`).
fn refused_at(way: &str) -> [(&'static str, u32); 2] {
    match way {
        "out" => [("original", OPENER_REFUSED), ("reply", ANSWERER_REFUSED)],
        _ => [("original", ANSWERER_REFUSED), ("reply", OPENER_REFUSED)],
    }
}

/// What has a connection that can bear a mark.
const TRACKED_STATES: &str = "established,related,new";

/// What a guest must be able to say to have addresses at all, whatever its groups.
const CONFIG_OUT: &str = "\
meta protocol { arp, 0x8035 } accept
meta protocol ip udp sport 68 udp dport 67 accept
meta protocol ip ip protocol igmp accept
meta protocol ip6 meta l4proto ipv6-icmp icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, 131, 132, 143 } accept
meta protocol ip6 udp sport 546 udp dport 547 accept";

/// And to hear: other guests' ports keep those from saying it that may not.
const CONFIG_IN: &str = "\
meta protocol { arp, 0x8035 } accept
meta protocol ip udp sport 67 udp dport 68 accept
meta protocol ip ip protocol igmp accept
meta protocol ip6 meta l4proto ipv6-icmp icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, 130, 131, 132, 143 } accept
meta protocol ip6 udp sport 547 udp dport 546 accept";

const CHAINS: [(&str, &str); 11] = [
    ("antispoof", ANTISPOOF),
    ("storms", STORMS),
    ("spoof_arp", SPOOF_ARP),
    ("spoof_ip", SPOOF_IP),
    ("spoof_ip6", SPOOF_IP6),
    ("fragment6", FRAGMENT6),
    ("spoof_nd", SPOOF_ND),
    ("spoof_rs", SPOOF_RS),
    ("isolation", ISOLATION),
    ("config_out", CONFIG_OUT),
    ("config_in", CONFIG_IN),
];

/// Before every other filter of frames that come in, so that nothing that another table does lets an unbound port speak;
/// and before connection tracking, whose entries a spoofed packet must not make. Then what is written into what ports
/// send, as it is known whose it is.
fn prerouting(meta: bool) -> String {
    let unbound = if meta { "iifname != @bound meta ibrname @bridges counter drop\n" } else { "" };
    format!(
        "type filter hook prerouting priority -360; policy accept;\n\
         {unbound}\
         iifname @secured jump antispoof\n\
         iifname vmap @marks"
    )
}

/// After every other filter of frames that leave, so that nothing that another table does lets an unbound port hear.
fn postrouting(meta: bool, tracks: bool) -> String {
    let unbound = if meta { "oifname != @bound meta obrname @bridges counter drop\n" } else { "" };
    format!(
        "type filter hook postrouting priority 350; policy accept;\n\
         {unbound}\
         ether daddr & 01:00:00:00:00:00 != 01:00:00:00:00:00 oifname . ether daddr != @macs oifname @secured goto drop_foreign\n{}",
        grouped("in", tracks)
    )
}

/// After connection tracking.
fn egress(tracks: bool) -> String {
    format!("type filter hook prerouting priority -150; policy accept;\n{}", grouped("out", tracks))
}

/// What a grouped port's packets go through: answers first, then what configuration needs, then the rules of its groups.
/// All that can be is said here once: the kernel walks all that a new element of the map leads to (`nft_table_validate`),
/// and for every other element again.
fn grouped(way: &str, tracks: bool) -> String {
    let link = if way == "in" { "oifname" } else { "iifname" };
    let (answers, refuse) = match tracks {
        true => (format!("{link} @{STATEFUL} jump answers_{way}\n"), format!("{link} @{STATEFUL} goto refuse_{way}\n")),
        false => (String::new(), String::new()),
    };
    format!(
        "{answers}{link} != @{GROUPED} accept\njump config_{way}\n{link} vmap @{way}\n{refuse}goto drop_group_{way}"
    )
}

/// What a connection that is known lets pass. What this end of it refused before is judged anew: its own groups may let
/// it out, though they let nobody open it from outside.
fn answers(way: &str) -> String {
    let mut text = String::new();
    for (direction, bit) in refused_at(way) {
        let _ = writeln!(text, "ct direction {direction} ct state established,related ct mark & {bit} == 0 accept");
    }
    // Before `invalid`, which is what the host's own ARP and DHCP answers are: they never meet connection tracking.
    let _ = writeln!(text, "jump config_{way}\nct state invalid goto drop_invalid_{way}");
    // What was revoked must not come back to life from the other side.
    let _ = write!(text, "tcp flags & (fin | syn | rst | ack) != syn ct state {TRACKED_STATES} goto refuse_{way}");
    text
}

/// What is dropped and told goes through here: of what is too much, nothing is told. One for the whole host.
const LOG_RATE: &str = "limit rate over 10/second burst 20 packets drop";

/// Its chain, where drops are told.
pub(in crate::planner) fn log_rate(logs: bool) -> Option<(String, Text)> {
    logs.then(|| ("log_rate".to_owned(), LOG_RATE.into()))
}

/// What counts a drop, and perhaps tells of it, before it is done.
pub(in crate::planner) fn drop_rules(reason: &str, counts: &str, logs: bool) -> String {
    let told = match logs {
        true => format!("jump log_rate\nlog prefix \"vmfabric drop {reason}: \" level info\n"),
        false => String::new(),
    };
    format!("{counts}{told}drop")
}

/// What the table's fixed part depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The kernel has nft's bridge meta.
    pub meta: bool,
    /// Some port's groups are stateful.
    pub tracks: bool,
    /// Drops are written into the kernel's log.
    pub logs: bool,
}

/// The table as it is without ports.
pub(super) fn fixed(Shape { meta, tracks, logs }: Shape) -> Table {
    let mut table = Table::default();
    let tracking_sets = TRACKING_SETS.iter().filter(|_| tracks);
    for (name, spec) in SETS.iter().chain(tracking_sets) {
        table.sets.insert((*name).to_owned(), Set::new(spec, BTreeSet::new()));
    }
    table.sets.insert(
        "storm".into(),
        Set::new("set type ifname; size 65536; flags dynamic,timeout; timeout 10s", BTreeSet::new()),
    );
    table.chains.extend(CHAINS.iter().map(|(name, rules)| ((*name).to_owned(), Text::from(*rules))));
    for (name, rules) in
        [("prerouting", prerouting(meta)), ("egress", egress(tracks)), ("postrouting", postrouting(meta, tracks))]
    {
        table.chains.insert(name.to_owned(), rules.into());
    }
    if tracks {
        for way in ["in", "out"] {
            let marking = |mark: fn(u32) -> String| {
                refused_at(way).map(|(direction, bit)| {
                    format!("ct direction {direction} ct state {TRACKED_STATES} ct mark set ct mark {}\n", mark(bit))
                })
            };
            let refuse = marking(|bit| format!("| {bit:#x}")).concat() + "goto drop_group_" + way;
            // Nothing but a rule that lets it pass clears the bit: between clearing and setting it again others would pass.
            let allow = marking(|bit| format!("& {}", !bit)).concat() + "accept";
            table.chains.insert(format!("answers_{way}"), answers(way).into());
            table.chains.insert(format!("refuse_{way}"), refuse.into());
            table.chains.insert(format!("allow_{way}"), allow.into());
        }
        table.chains.insert(TRACKING.to_owned(), TRACKING_RULES.into());
    }
    table.chains.extend(log_rate(logs));
    let sent = SENT_REASONS.iter().map(|reason| (reason, "iifname"));
    for (reason, link) in sent.chain(RECEIVED_REASONS.iter().map(|reason| (reason, "oifname"))) {
        let spec = "set type ifname; size 65536; flags dynamic";
        table.sets.insert(format!("drops_{reason}"), Set::new(spec, BTreeSet::new()));
        let counts = format!("update @drops_{reason} {{ {link} counter }}\n");
        table.chains.insert(format!("drop_{reason}"), drop_rules(reason, &counts, logs).into());
    }
    table
}

/// The rules that write a DSCP (RFC 2474); what tells of congestion beside it stays.
pub(super) fn marking(dscp: u8) -> String {
    format!("meta protocol ip ip dscp set {dscp}\nmeta protocol ip6 ip6 dscp set {dscp}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_about_a_protocol_names_it() {
        let about = ["ip ", "ip6 ", "arp ", "icmp ", "icmpv6 ", "udp ", "exthdr ", "frag "];
        let hooks =
            [("prerouting", prerouting(true)), ("egress", egress(true)), ("postrouting", postrouting(true, true))];
        let fixed = CHAINS.iter().map(|(chain, rules)| (*chain, (*rules).to_owned()));
        for (chain, rules) in fixed.chain(hooks) {
            for rule in rules.lines().filter(|rule| !rule.starts_with("type ")) {
                let words = format!("{rule} ");
                let speaks = about.iter().any(|word| words.starts_with(word) || words.contains(&format!(" {word}")));
                assert!(!speaks || words.contains("meta protocol"), "{chain}: {rule}");
            }
        }
        assert!(STORMS.contains("iifname"));
    }
}
