//! What links carried and what our filters dropped, read beside the driver: on sockets of its own, so that whoever asks
//! waits neither for the loop nor makes it wait.

use super::{
    decode::RawLink,
    netlink::{Netlink, bytes},
    tc,
};
use crate::{
    backend::{Count, Counted, Counters, DriverError, LinkCounters},
    net::IfName,
};
use netlink_packet_route::link::LinkMessage;
use netlink_sys::protocols::NETLINK_NETFILTER;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How old an answer may be: many who ask at once share one.
const FRESH: Duration = Duration::from_millis(500);
/// `NFNL_SUBSYS_NFTABLES`, `NFT_MSG_GETSETELEM`, `NFPROTO_BRIDGE` (linux/netfilter/nf_tables.h).
const GET_ELEMENTS: u16 = 10 << 8 | 13;
const BRIDGE: u8 = 7;
/// `NFPROTO_INET`.
const INET: u8 = 1;
/// `IFNAMSIZ` (linux/if.h): what a name takes in a key.
const NAME: usize = 16;
/// `NFTA_SET_ELEM_LIST_…`.
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
/// `NFTA_SET_ELEM_KEY`, `NFTA_SET_ELEM_EXPR`; `NFTA_DATA_VALUE`; `NFTA_EXPR_DATA`; `NFTA_COUNTER_…`.
const ELEMENT_KEY: u16 = 1;
const ELEMENT_EXPRESSION: u16 = 7;
const DATA_VALUE: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;
/// `IFLA_STATS64`: a `rtnl_link_stats64`, whose first eight numbers are packets, bytes, errors and drops, each received
/// and sent.
const STATS64: u16 = 23;

/// The counters of the network namespace that it was made in.
#[derive(Debug)]
pub struct KernelCounters {
    /// Each set of our bridge table that counts, with what is counted there.
    reasons: Vec<(String, &'static str)>,
    /// Likewise of our inet table, by link and source.
    host_reasons: Vec<(String, &'static str)>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    links: Netlink,
    filters: Netlink,
    last: Option<(Instant, Arc<Counted>)>,
}

impl KernelCounters {
    /// `reasons`: for each reason of a drop the set of the bridge table that counts them by link; `host_reasons`: the
    /// sets of the inet table that count them by link and source.
    pub fn new(
        reasons: impl IntoIterator<Item = (String, &'static str)>,
        host_reasons: impl IntoIterator<Item = (String, &'static str)>,
    ) -> Result<Self, DriverError> {
        let inner = Inner { links: Netlink::open()?, filters: Netlink::of(NETLINK_NETFILTER)?, last: None };
        let (reasons, host_reasons) = (reasons.into_iter().collect(), host_reasons.into_iter().collect());
        Ok(Self { reasons, host_reasons, inner: Mutex::new(inner) })
    }
}

impl Counters for KernelCounters {
    fn read(&self) -> Result<Arc<Counted>, DriverError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counters)) = inner.last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(Arc::clone(counters));
        }
        let counters = Arc::new(inner.read(&self.reasons, &self.host_reasons)?);
        inner.last = Some((Instant::now(), Arc::clone(&counters)));
        Ok(counters)
    }
}

impl Inner {
    fn read(
        &mut self,
        reasons: &[(String, &'static str)],
        host_reasons: &[(String, &'static str)],
    ) -> Result<Counted, DriverError> {
        let links = self.links.dump(libc::RTM_GETLINK, &bytes(&LinkMessage::default()), &mut |payload, found| {
            found.extend(carried(payload));
        })?;
        let names: HashMap<u32, IfName> = links.iter().map(|(index, name, _)| (*index, name.clone())).collect();
        let mut counters: BTreeMap<IfName, LinkCounters> =
            links.into_iter().map(|(_, name, counters)| (name, counters)).collect();
        // A kernel without queues has no drops of theirs.
        for (index, reason, packets) in tc::drops(&mut self.links).unwrap_or_default() {
            if let Some(link) = names.get(&index).and_then(|name| counters.get_mut(name)) {
                link.drops.insert(reason, Count { packets, bytes: 0 });
            }
        }
        for (set, reason) in reasons {
            for (name, _, count) in self.elements(BRIDGE, set)? {
                if let Some(link) = counters.get_mut(&name) {
                    link.drops.insert(reason, count);
                }
            }
        }
        let mut counted = Counted { links: counters, ..Counted::default() };
        for (set, reason) in host_reasons {
            for (name, source, count) in self.elements(INET, set)? {
                let Some(source) = source else { continue };
                counted.senders.entry((name, source)).or_default().insert(reason, count);
            }
        }
        Ok(counted)
    }

    /// What a set counts; nothing where there is none, as while there is no network.
    fn elements(&mut self, family: u8, set: &str) -> Result<Vec<Element>, DriverError> {
        let counted = self.filters.dump(GET_ELEMENTS, &elements_of(family, set), &mut |payload, found| {
            decode_elements(payload, found);
        });
        match counted {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
            counted => Ok(counted?),
        }
    }
}

fn carried(payload: &[u8]) -> Option<(u32, IfName, LinkCounters)> {
    let raw = RawLink::decode(payload)?;
    let mut numbers = [0u64; 8];
    if let Some((_, stats)) = tc::attributes(payload.get(16..)?).find(|(kind, _)| *kind == STATS64) {
        for (number, bytes) in numbers.iter_mut().zip(stats.chunks_exact(8)) {
            *number = bytes.first_chunk().copied().map(u64::from_ne_bytes)?;
        }
    }
    let [rx_packets, tx_packets, rx_bytes, tx_bytes, _, _, rx_dropped, tx_dropped] = numbers;
    let counters = LinkCounters {
        came_in: Count { packets: rx_packets, bytes: rx_bytes },
        went_out: Count { packets: tx_packets, bytes: tx_bytes },
        lost_in: rx_dropped,
        lost_out: tx_dropped,
        drops: BTreeMap::new(),
    };
    Some((raw.index, IfName::new(&raw.name).ok()?, counters))
}

/// A link, a source where the set goes by it too, and what was counted.
type Element = (IfName, Option<IpAddr>, Count);

/// An `nfgenmsg`, the table and the set.
fn elements_of(family: u8, set: &str) -> Vec<u8> {
    let message = tc::with(vec![family, 0, 0, 0], LIST_TABLE, b"vmfabric\0");
    tc::with(message, LIST_SET, &[set.as_bytes(), b"\0"].concat())
}

/// The links and counters of a message of elements; what is not understood is left out.
fn decode_elements(payload: &[u8], found: &mut Vec<Element>) {
    let inside = |bytes, kind| tc::attributes(bytes).find(|(number, _)| *number == kind).map(|(_, value)| value);
    let Some(elements) = payload.get(4..).and_then(|rest| inside(rest, LIST_ELEMENTS)) else { return };
    for (_, element) in tc::attributes(elements) {
        let Some(key) = inside(element, ELEMENT_KEY).and_then(|key| inside(key, DATA_VALUE)) else { continue };
        let (name, source) = key.split_at(NAME.min(key.len()));
        let name = String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or_default());
        let source = match source.len() {
            4 => source.first_chunk().map(|octets: &[u8; 4]| IpAddr::from(*octets)),
            16 => source.first_chunk().map(|octets: &[u8; 16]| IpAddr::from(*octets)),
            _ => None,
        };
        let counter = inside(element, ELEMENT_EXPRESSION).and_then(|counter| inside(counter, EXPRESSION_DATA));
        let (Ok(name), Some(counter)) = (IfName::new(&name), counter) else { continue };
        let number =
            |kind| inside(counter, kind).and_then(|bytes| bytes.first_chunk().copied()).map(u64::from_be_bytes);
        let (Some(packets), Some(bytes)) = (number(COUNTER_PACKETS), number(COUNTER_BYTES)) else { continue };
        found.push((name, source, Count { packets, bytes }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_and_nonsense_is_not() {
        let counter =
            tc::with(tc::with(Vec::new(), COUNTER_BYTES, &7u64.to_be_bytes()), COUNTER_PACKETS, &3u64.to_be_bytes());
        let element = |name: &[u8], source: &[u8]| {
            let mut key = name.to_vec();
            key.resize(NAME, 0);
            key.extend(source);
            let element = tc::with(Vec::new(), ELEMENT_KEY, &tc::with(Vec::new(), DATA_VALUE, &key));
            tc::with(
                element,
                ELEMENT_EXPRESSION,
                &tc::with(tc::with(Vec::new(), 1, b"counter\0"), EXPRESSION_DATA, &counter),
            )
        };
        let elements = [(&b"vnet0"[..], &[][..]), (b"a/b", &[]), (b"vmf-a", &[10, 0, 0, 9]), (b"vmf-a", &[0xfd; 16])];
        let elements = elements.iter().fold(Vec::new(), |all, (name, source)| tc::with(all, 1, &element(name, source)));
        let message = tc::with(vec![BRIDGE, 0, 0, 0], LIST_ELEMENTS, &elements);
        let mut found = Vec::new();
        decode_elements(&message, &mut found);
        let count = Count { packets: 3, bytes: 7 };
        let [tap, bridge] = ["vnet0", "vmf-a"].map(|name| IfName::new(name).expect("a name"));
        let [v4, v6] = ["10.0.0.9", "fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd"].map(|a| a.parse().ok());
        assert_eq!(found, [(tap, None, count), (bridge.clone(), v4, count), (bridge, v6, count)]);
        for length in 0..message.len() {
            decode_elements(&message[..length], &mut found);
        }
        assert!(found.iter().all(|(_, _, count)| count.packets == 3));
    }
}
