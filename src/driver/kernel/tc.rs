//! What bounds links' traffic, by rtnetlink's traffic control (`linux/pkt_sched.h`, `linux/pkt_cls.h`), in messages of our
//! own making: netlink-packet-route knows neither TBF nor policers.
//!
//! To a guest: a token bucket at the root of its tap, with a fair queue in it, so that what is too much waits. From a
//! guest: a policer where its frames come in, as libvirt has it too; what is too much is dropped, for a host's queue of
//! what a guest sends would be the guest's to fill. Both are known by numbers that nobody else uses. The kinds are
//! libvirt's, too, so that it can take their place with its own commands at any time (`virsh domiftune`).

use super::netlink::{Error, Netlink};
use crate::{
    backend::DriverError,
    datapath::{Bandwidth, Limit, Way},
};
use netlink_packet_core::{NLA_F_NESTED, NLM_F_CREATE, NLM_F_ECHO, NLM_F_REPLACE, NlasIterator};

/// The token bucket's handle, `766d:`, and the one class in it.
const SHAPER: u32 = 0x766d_0000;
const SHAPER_CLASS: u32 = SHAPER | 1;
/// The fair queue's handle says what is to be at the root after it: what the kernel puts there, or `noqueue`. libvirt gives
/// its taps that, but to one that is hot-plugged later than it is found here, and then finds the place taken.
const AFTER_DEFAULT: u32 = 0x766e_0000;
const AFTER_NOQUEUE: u32 = 0x766f_0000;
/// The policer's preference, and so its place among other filters.
const PREFERENCE: u32 = 0x766d;
/// `TC_H_ROOT`, `TC_H_INGRESS`, the handle of the latter, and what filters of it name as their parent.
const ROOT: u32 = 0xffff_ffff;
const INGRESS_PARENT: u32 = 0xffff_fff1;
const INGRESS: u32 = 0xffff_0000;
const INGRESS_FILTERS: u32 = 0xffff_fff2;
/// Packets and bytes that wait for a guest at most.
const QUEUE_PACKETS: u32 = 1_000;
const QUEUE_BYTES: u32 = 4 << 20;
/// `ETH_P_ALL`, `TC_LINKLAYER_ETHERNET`, `TC_ACT_SHOT`, `TC_ACT_UNSPEC` (others' filters are asked next).
const ALL_PROTOCOLS: u16 = 3;
const ETHERNET: u8 = 1;
const DROP: u32 = 2;
const GO_ON: u32 = u32::MAX;
/// `PSCHED_SHIFT`: a tick has 64 ns.
const TICK_SHIFT: u32 = 6;

/// `TCA_…`.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const STATS: u16 = 3;
/// Of a `tc_stats`: behind 8 bytes of bytes and 4 of packets.
const STATS_DROPS: usize = 12;
/// `TCA_TBF_…`.
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
/// `TCA_FQ_CODEL_…`.
const FQ_CODEL_LIMIT: u16 = 2;
const FQ_CODEL_MEMORY: u16 = 9;
/// `TCA_MATCHALL_ACT`, `TCA_ACT_KIND`, `TCA_ACT_OPTIONS`.
const MATCHALL_ACT: u16 = 2;
const ACT_KIND: u16 = 1;
const ACT_OPTIONS: u16 = 2;
/// `TCA_POLICE_…`.
const POLICE_TBF: u16 = 1;
const POLICE_RATE: u16 = 2;
const POLICE_RESULT: u16 = 5;
const POLICE_RATE64: u16 = 8;
/// The offsets of a `tc_ratespec` in `tc_tbf_qopt` and `tc_police`, and of the burst in ticks.
const TBF_TICKS: usize = 28;
const POLICE_TICKS: usize = 12;
const POLICE_SPEC: usize = 20;
/// Of a `tc_ratespec`: where its rate is.
const SPEC_RATE: usize = 8;

/// All links' limits, by index.
pub(super) fn all(netlink: &mut Netlink) -> Result<Vec<(u32, Way, Limit)>, DriverError> {
    let qdiscs = netlink.dump(libc::RTM_GETQDISC, &message(0, 0, 0, 0), &mut |payload, found| {
        found.extend(Qdisc::decode(payload));
    })?;
    let mut limits = Vec::new();
    for qdisc in qdiscs {
        limits.extend(limit_of(netlink, qdisc)?);
    }
    Ok(limits)
}

/// One link's.
pub(super) fn of_link(netlink: &mut Netlink, index: u32) -> Result<Vec<(Way, Limit)>, DriverError> {
    let mut limits = Vec::new();
    for parent in [ROOT, INGRESS_PARENT] {
        if let Some(qdisc) = get(netlink, index, parent)? {
            limits.extend(limit_of(netlink, qdisc)?.map(|(_, way, limit)| (way, limit)));
        }
    }
    Ok(limits)
}

/// What links' limits, whosever they are, have dropped: to a guest as its queue was full, and from it.
pub(super) fn drops(netlink: &mut Netlink) -> Result<Vec<(u32, &'static str, u64)>, Error> {
    netlink.dump(libc::RTM_GETQDISC, &message(0, 0, 0, 0), &mut |payload, found| {
        let [index, handle, parent] = [4, 8, 12].map(|at| u32_at(payload, at).unwrap_or_default());
        let reason = match parent {
            ROOT if handle != 0 => "rate_in",
            INGRESS_PARENT => "rate_out",
            _ => return,
        };
        let stats = payload.get(20..).and_then(|rest| attributes(rest).find(|(kind, _)| *kind == STATS));
        if let Some(drops) = stats.and_then(|(_, stats)| u32_at(stats, STATS_DROPS)).filter(|drops| *drops != 0) {
            found.push((index, reason, drops.into()));
        }
    })
}

/// `is_tap`: libvirt makes it, and is to find it as it makes its taps.
pub(super) fn set(
    netlink: &mut Netlink,
    index: u32,
    is_tap: bool,
    way: Way,
    limit: &Bandwidth,
) -> Result<(), DriverError> {
    match way {
        Way::Out => shape(netlink, index, is_tap, limit),
        Way::In => police(netlink, index, limit),
    }
}

/// Takes ours away; what is gone already is as good.
pub(super) fn delete(netlink: &mut Netlink, index: u32, way: Way) -> Result<(), DriverError> {
    match way {
        Way::Out => {
            let mut noqueue = false;
            let queue = message(index, AFTER_NOQUEUE, SHAPER_CLASS, 0);
            ask(netlink, libc::RTM_GETQDISC, &queue, &mut |payload| noqueue |= Qdisc::decode(payload).is_some())?;
            gone(netlink.request(libc::RTM_DELQDISC, &message(index, SHAPER, ROOT, 0)))?;
            match noqueue {
                true => create(netlink, libc::RTM_NEWQDISC, &with(message(index, 0, ROOT, 0), KIND, b"noqueue\0")),
                false => Ok(()),
            }
        }
        Way::In => {
            gone(netlink.request(libc::RTM_DELTFILTER, &message(index, 0, INGRESS_FILTERS, filter_info())))?;
            let left = filters(netlink, index)?;
            let ingress = get(netlink, index, INGRESS_PARENT)?.is_some_and(|qdisc| qdisc.kind == "ingress");
            match ingress && left.is_empty() {
                true => gone(netlink.request(libc::RTM_DELQDISC, &message(index, INGRESS, INGRESS_PARENT, 0))),
                false => Ok(()),
            }
        }
    }
}

/// Whether this kernel has the parts, tried on the loopback link of a namespace that nobody uses.
pub(super) fn tried(netlink: &mut Netlink, way: Way) -> bool {
    const LOOPBACK: u32 = 1;
    set(netlink, LOOPBACK, false, way, &Bandwidth { rate: 125_000, burst: 70_000 }).is_ok()
}

/// Whether what a message of traffic control tells the end of was ours, or was where ours could be.
pub(super) fn concerns_us(payload: &[u8]) -> bool {
    let [parent, info] = [12, 16].map(|at| u32_at(payload, at).unwrap_or_default());
    matches!(parent, ROOT | INGRESS_PARENT) || parent == INGRESS_FILTERS && info >> 16 == PREFERENCE
}

fn shape(netlink: &mut Netlink, index: u32, is_tap: bool, limit: &Bandwidth) -> Result<(), DriverError> {
    let before = get(netlink, index, ROOT)?;
    let mut parms = spec(limit).to_vec();
    parms.extend([0; 12]); // no peak rate
    // A limit for the queue that is there until the fair one is.
    for value in [u32::try_from(limit.burst).unwrap_or(u32::MAX).saturating_add(QUEUE_BYTES / 16), ticks(limit), 0] {
        parms.extend(value.to_ne_bytes());
    }
    let mut options = with(Vec::new(), TBF_PARMS, &parms);
    if let Some(rate) = wide(limit) {
        options = with(options, TBF_RATE64, &rate);
    }
    options = with(options, TBF_BURST, &u32::try_from(limit.burst).unwrap_or(u32::MAX).to_ne_bytes());
    let root = with(message(index, SHAPER, ROOT, 0), KIND, b"tbf\0");
    create(netlink, libc::RTM_NEWQDISC, &with(root, OPTIONS | NLA_F_NESTED, &options))?;
    if before.as_ref().is_some_and(|before| before.handle == SHAPER) && has_queue(netlink, index)? {
        return Ok(());
    }
    let noqueue = is_tap || before.is_some_and(|before| before.kind == "noqueue" && before.handle != 0);
    let handle = if noqueue { AFTER_NOQUEUE } else { AFTER_DEFAULT };
    let mut options = with(Vec::new(), FQ_CODEL_LIMIT, &QUEUE_PACKETS.to_ne_bytes());
    options = with(options, FQ_CODEL_MEMORY, &QUEUE_BYTES.to_ne_bytes());
    let queue = with(message(index, handle, SHAPER_CLASS, 0), KIND, b"fq_codel\0");
    create(netlink, libc::RTM_NEWQDISC, &with(queue, OPTIONS | NLA_F_NESTED, &options))
}

/// Whether the token bucket has its fair queue already.
fn has_queue(netlink: &mut Netlink, index: u32) -> Result<bool, DriverError> {
    let mut found = false;
    for handle in [AFTER_DEFAULT, AFTER_NOQUEUE] {
        let queue = message(index, handle, SHAPER_CLASS, 0);
        ask(netlink, libc::RTM_GETQDISC, &queue, &mut |payload| found |= Qdisc::decode(payload).is_some())?;
    }
    Ok(found)
}

/// A filter of this kind cannot be changed: the next takes its place, and for an instant there is none.
fn police(netlink: &mut Netlink, index: u32, limit: &Bandwidth) -> Result<(), DriverError> {
    if get(netlink, index, INGRESS_PARENT)?.is_none() {
        let ingress = with(message(index, INGRESS, INGRESS_PARENT, 0), KIND, b"ingress\0");
        create(netlink, libc::RTM_NEWQDISC, &ingress)?;
    }
    gone(netlink.request(libc::RTM_DELTFILTER, &message(index, 0, INGRESS_FILTERS, filter_info())))?;
    // `tc_police`: index, action, limit, burst, mtu, rate, peak rate, counts, capabilities.
    let mut parms = Vec::new();
    for value in [0, DROP, 0, ticks(limit), 0] {
        parms.extend(u32::to_ne_bytes(value));
    }
    parms.extend(spec(limit));
    parms.extend([0; 24]);
    let mut options = with(Vec::new(), POLICE_TBF, &parms);
    options = with(options, POLICE_RATE, &rate_table(limit));
    if let Some(rate) = wide(limit) {
        options = with(options, POLICE_RATE64, &rate);
    }
    options = with(options, POLICE_RESULT, &GO_ON.to_ne_bytes());
    let action = with(with(Vec::new(), ACT_KIND, b"police\0"), ACT_OPTIONS | NLA_F_NESTED, &options);
    let actions = with(Vec::new(), 1 | NLA_F_NESTED, &action);
    let options = with(Vec::new(), MATCHALL_ACT | NLA_F_NESTED, &actions);
    let filter = with(message(index, 0, INGRESS_FILTERS, filter_info()), KIND, b"matchall\0");
    create(netlink, libc::RTM_NEWTFILTER, &with(filter, OPTIONS | NLA_F_NESTED, &options))
}

/// What bounds a direction of a link, if this is at its root or where its frames come in.
fn limit_of(netlink: &mut Netlink, qdisc: Qdisc) -> Result<Option<(u32, Way, Limit)>, DriverError> {
    let of = |way, limit| Some((qdisc.index, way, limit));
    Ok(match (qdisc.parent, qdisc.limit) {
        (ROOT, Some(limit)) if qdisc.handle == SHAPER => of(Way::Out, Limit::Ours(limit)),
        // What the kernel puts there by itself has no handle.
        (ROOT, _) if qdisc.handle != 0 && qdisc.kind != "noqueue" => of(Way::Out, Limit::Others(qdisc.kind)),
        (INGRESS_PARENT, _) => {
            let filters = filters(netlink, qdisc.index)?;
            match filters.iter().find_map(|filter| filter.limit) {
                Some(limit) => of(Way::In, Limit::Ours(limit)),
                None if filters.iter().all(|filter| filter.is_ours) => None,
                None => of(Way::In, Limit::Others(qdisc.kind)),
            }
        }
        _ => None,
    })
}

fn filters(netlink: &mut Netlink, index: u32) -> Result<Vec<Filter>, DriverError> {
    let all = netlink.dump(libc::RTM_GETTFILTER, &message(index, 0, INGRESS_FILTERS, 0), &mut |payload, found| {
        found.extend(Filter::decode(payload));
    });
    match all {
        // The link has no such place, or is gone.
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::ENOENT | libc::ENODEV)) => Ok(Vec::new()),
        all => Ok(all?),
    }
}

fn get(netlink: &mut Netlink, index: u32, parent: u32) -> Result<Option<Qdisc>, DriverError> {
    let mut found = None;
    ask(netlink, libc::RTM_GETQDISC, &message(index, 0, parent, 0), &mut |payload| found = Qdisc::decode(payload))?;
    Ok(found)
}

/// Older kernels send the answer to those who listen, and to who asks for an echo.
fn ask(netlink: &mut Netlink, kind: u16, message: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<(), DriverError> {
    gone(netlink.ask(kind, NLM_F_ECHO, message, each))
}

fn create(netlink: &mut Netlink, kind: u16, message: &[u8]) -> Result<(), DriverError> {
    Ok(netlink.ask(kind, NLM_F_CREATE | NLM_F_REPLACE, message, &mut |_| {})?)
}

fn gone(outcome: Result<(), Error>) -> Result<(), DriverError> {
    match outcome {
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// A `tcmsg`.
fn message(index: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut message = vec![0; 4];
    for value in [index, handle, parent, info] {
        message.extend(value.to_ne_bytes());
    }
    message
}

fn filter_info() -> u32 {
    PREFERENCE << 16 | u32::from(ALL_PROTOCOLS.to_be())
}

pub(super) fn with(mut message: Vec<u8>, kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

/// A `tc_ratespec`: the size of a cell of the rate table, the link layer, and the rate.
fn spec(limit: &Bandwidth) -> [u8; 12] {
    let mut spec = [0; 12];
    (spec[0], spec[1]) = (CELL, ETHERNET);
    spec[SPEC_RATE..].copy_from_slice(&u32::try_from(limit.rate).unwrap_or(u32::MAX).to_ne_bytes());
    spec
}

/// The rate of 64 bits, for one that does not fit into 32.
fn wide(limit: &Bandwidth) -> Option<[u8; 8]> {
    u32::try_from(limit.rate).is_err().then(|| limit.rate.to_ne_bytes())
}

fn ticks(limit: &Bandwidth) -> u32 {
    ticks_of(limit.burst, limit.rate)
}

fn ticks_of(bytes: u64, rate: u64) -> u32 {
    let ticks = (u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1))) >> TICK_SHIFT;
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// Cells of 256 bytes: 256 of them are a super-frame.
const CELL: u8 = 8;

/// The time that packets take, by their size in cells: asked of everybody who makes a policer, and used by none since 3.8.
fn rate_table(limit: &Bandwidth) -> Vec<u8> {
    (1u64..=256).flat_map(|cells| ticks_of(cells << CELL, limit.rate).to_ne_bytes()).collect()
}

struct Qdisc {
    index: u32,
    handle: u32,
    parent: u32,
    kind: String,
    /// Of a token bucket.
    limit: Option<Bandwidth>,
}

impl Qdisc {
    fn decode(payload: &[u8]) -> Option<Self> {
        let [index, handle, parent] = [4, 8, 12].map(|at| u32_at(payload, at));
        let (kind, options) = kind_and_options(payload.get(20..)?);
        let mut limit = None;
        if kind == "tbf" {
            let (mut parms, mut rate) = (None, None);
            for (kind, value) in attributes(options) {
                match kind {
                    TBF_PARMS => parms = Some(value),
                    TBF_RATE64 => rate = u64_at(value),
                    _ => {}
                }
            }
            limit = parms.and_then(|parms| bandwidth(parms, 0, TBF_TICKS, rate));
        }
        Some(Self { index: index?, handle: handle?, parent: parent?, kind, limit })
    }
}

struct Filter {
    is_ours: bool,
    /// Of ours.
    limit: Option<Bandwidth>,
}

impl Filter {
    fn decode(payload: &[u8]) -> Option<Self> {
        let is_ours = u32_at(payload, 16)? >> 16 == PREFERENCE;
        let (kind, options) = kind_and_options(payload.get(20..)?);
        let limit = (is_ours && kind == "matchall").then(|| policer(options)).flatten();
        Some(Self { is_ours, limit })
    }
}

fn policer(options: &[u8]) -> Option<Bandwidth> {
    let actions = attributes(options).find(|(kind, _)| *kind == MATCHALL_ACT)?.1;
    let (_, action) = attributes(actions).next()?;
    let options = attributes(action).find(|(kind, _)| *kind == ACT_OPTIONS)?.1;
    let parms = attributes(options).find(|(kind, _)| *kind == POLICE_TBF)?.1;
    let rate = attributes(options).find(|(kind, _)| *kind == POLICE_RATE64).and_then(|(_, value)| u64_at(value));
    bandwidth(parms, POLICE_SPEC, POLICE_TICKS, rate)
}

fn bandwidth(parms: &[u8], spec: usize, ticks: usize, wide: Option<u64>) -> Option<Bandwidth> {
    let rate = wide.or_else(|| u32_at(parms, spec + SPEC_RATE).map(u64::from))?;
    let nanoseconds = u128::from(u32_at(parms, ticks)?) << TICK_SHIFT;
    let burst = u64::try_from(nanoseconds * u128::from(rate) / 1_000_000_000).ok()?;
    Some(Bandwidth { rate, burst })
}

fn kind_and_options(bytes: &[u8]) -> (String, &[u8]) {
    let (mut kind, mut options) = (String::new(), &[][..]);
    for (number, value) in attributes(bytes) {
        match number {
            KIND => kind = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
            OPTIONS => options = value,
            _ => {}
        }
    }
    (kind, options)
}

pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let attribute = NlasIterator::new(rest).next()?.ok()?;
        let length = usize::from(attribute.length()).max(4);
        let value = rest.get(4..length)?;
        let kind = attribute.kind();
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().copied().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_is_nothing() {
        let root = with(message(7, SHAPER, ROOT, 0), KIND, b"tbf\0");
        let parms =
            [&spec(&Bandwidth { rate: 1_250_000, burst: 0 })[..], &[0; 12], &[0; 4], &1_562_500u32.to_ne_bytes()];
        let whole = with(root, OPTIONS, &with(Vec::new(), TBF_PARMS, &parms.concat()));
        let qdisc = Qdisc::decode(&whole).expect("a queue");
        assert_eq!(qdisc.limit, Some(Bandwidth { rate: 1_250_000, burst: 125_000 }));
        for length in 0..whole.len() {
            let cut = Qdisc::decode(&whole[..length]);
            assert!(cut.is_none_or(|qdisc| qdisc.limit.is_none()), "{length}");
        }
    }

    #[test]
    fn bursts_are_told_in_ticks() {
        for (rate, burst) in
            [(125, 7_500), (1_250_000, 125_000), (1_250_000_000, 125_000_000), (12_500_000_000, 4 << 30)]
        {
            let limit = Bandwidth { rate, burst };
            let back = u64::from(ticks(&limit)) * 64 * rate / 1_000_000_000;
            assert_eq!(Bandwidth { rate, burst: back }, limit, "{back}");
        }
    }
}
