//! Answers, written byte by byte into one buffer that is used again for the next.

use super::{
    name::{WireName, labels},
    query::{CLASS_IN, HEADER, Query, Rcode, flag, rtype, u16_at},
};

/// Names that compression can point at are remembered up to this many; later ones are written in full.
const MAX_TARGETS: usize = 48;
/// What a compression pointer can reach (RFC 1035 section 4.1.4).
const MAX_OFFSET: usize = 0x3fff;
const OPT_LEN: usize = 11;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Answer = 0,
    Authority = 1,
}

/// Writes one response. Sections must be written in their order.
#[derive(Debug)]
pub(super) struct Writer<'b> {
    out: &'b mut Vec<u8>,
    counts: [u16; 2],
    targets: [u16; MAX_TARGETS],
    known: usize,
    limit: usize,
}

impl<'b> Writer<'b> {
    /// Begins an answer to `query`, of at most `limit` bytes.
    pub fn new(out: &'b mut Vec<u8>, query: &Query<'_>, limit: usize) -> Self {
        out.clear();
        out.extend_from_slice(&[0; HEADER]);
        out.extend_from_slice(query.question);
        let mut writer = Self { out, counts: [0; 2], targets: [0; MAX_TARGETS], known: 0, limit };
        writer.remember(HEADER, query.name.len() - 1);
        writer
    }

    /// The labels of a name that stands at `start` in full are where later names can point.
    fn remember(&mut self, start: usize, len: usize) {
        let mut at = start;
        while at < start + len && at <= MAX_OFFSET && self.known < MAX_TARGETS {
            self.targets[self.known] = at as u16;
            self.known += 1;
            at += 1 + usize::from(self.out[at]);
        }
    }

    pub fn answers(&self) -> u16 {
        self.counts[0]
    }

    /// A record; `data` writes its data.
    pub fn record(&mut self, section: Section, owner: &[u8], kind: u16, ttl: u32, data: impl FnOnce(&mut Self)) {
        self.name(owner);
        let [type_hi, type_lo] = kind.to_be_bytes();
        let [_, class] = CLASS_IN.to_be_bytes();
        let [a, b, c, d] = ttl.to_be_bytes();
        self.out.extend_from_slice(&[type_hi, type_lo, 0, class, a, b, c, d, 0, 0]);
        let start = self.out.len();
        data(self);
        let len = u16::try_from(self.out.len() - start).unwrap_or(u16::MAX);
        self.out[start - 2..start].copy_from_slice(&len.to_be_bytes());
        self.counts[section as usize] += 1;
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// A name, with a pointer for as much of its end as stands there already.
    pub fn name(&mut self, wire: &[u8]) {
        let start = self.out.len();
        let mut rest = wire;
        while let Some((&len, after)) = rest.split_first().filter(|(len, _)| **len > 0) {
            if let Some(target) = self.targets[..self.known].iter().find(|t| self.stands_at(usize::from(**t), rest)) {
                let pointer = 0xc000 | target;
                self.remember(start, wire.len() - rest.len());
                self.u16(pointer);
                return;
            }
            let label = usize::from(len);
            self.out.extend_from_slice(&rest[..=label]);
            rest = &after[label..];
        }
        self.remember(start, wire.len() - rest.len());
        self.out.push(0);
    }

    /// Whether the name at `at` is `wire`, in whatever case.
    fn stands_at(&self, mut at: usize, wire: &[u8]) -> bool {
        let mut wanted = labels(wire);
        loop {
            let len = self.out.get(at).copied().unwrap_or(0);
            if len & 0xc0 == 0xc0 {
                // Only what this writer wrote, which points backwards.
                at = usize::from(u16_at(self.out, at) & 0x3fff);
                continue;
            }
            let label = self.out.get(at + 1..at + 1 + usize::from(len)).filter(|_| len > 0);
            match (label, wanted.next()) {
                (None, None) => return true,
                (Some(found), Some(label)) if found.eq_ignore_ascii_case(label) => at += 1 + label.len(),
                _ => return false,
            }
        }
    }

    /// Takes back what was written after the question.
    pub fn restart(&mut self, query: &Query<'_>) {
        self.out.truncate(HEADER + query.question.len());
        self.counts = [0; 2];
        self.known = 0;
        self.remember(HEADER, query.name.len() - 1);
    }

    /// Ends it, as [`finish`] does.
    pub fn end(self, query: &Query<'_>, flags: u16, code: Rcode) {
        let [answers, authorities] = self.counts;
        finish(self.out, query, flags, code as u16, [answers, authorities, 0], self.limit);
    }
}

/// Appends the OPT record where the question had one and fills in the header of an answer whose other parts stand.
/// Longer than `limit` bytes it becomes an empty answer that says so: half a record set is of no use (RFC 2181
/// section 9). `flags`: those beside QR, RA, and what the question gives.
pub(super) fn finish(
    out: &mut Vec<u8>,
    query: &Query<'_>,
    mut flags: u16,
    code: u16,
    mut counts: [u16; 3],
    limit: usize,
) {
    let opt_len = if query.edns.is_some() { OPT_LEN } else { 0 };
    if out.len() + opt_len > limit {
        out.truncate(HEADER + query.question.len());
        flags |= flag::TC;
        counts = [0; 3];
    }
    if let Some(edns) = query.edns {
        opt(out, edns.dnssec_ok, code);
        counts[2] += 1;
    }
    let flags = flag::QR | flag::RA | flags | query.flags & (flag::RD | flag::CD) | code & flag::RCODE;
    let [answers, authorities, additionals] = counts;
    header(out, query.id, flags, [1, answers, authorities, additionals]);
}

/// RFC 6891 section 6.1.2.
fn opt(out: &mut Vec<u8>, dnssec_ok: bool, code: u16) {
    let [size_hi, size_lo] = super::query::MAX_UDP_PAYLOAD.to_be_bytes();
    let [_, kind] = rtype::OPT.to_be_bytes();
    let high = (code >> 4).to_be_bytes()[1];
    out.extend_from_slice(&[0, 0, kind, size_hi, size_lo, high, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
}

fn header(out: &mut [u8], id: u16, flags: u16, counts: [u16; 4]) {
    let fields = [id, flags, counts[0], counts[1], counts[2], counts[3]];
    for (slot, field) in out.chunks_exact_mut(2).zip(fields) {
        slot.copy_from_slice(&field.to_be_bytes());
    }
}

/// An answer of a header alone, or with an OPT record.
pub(super) fn fault(out: &mut Vec<u8>, id: u16, flags: u16, code: Rcode, edns: bool) {
    out.clear();
    out.extend_from_slice(&[0; HEADER]);
    if edns {
        opt(out, false, code as u16);
    }
    let kept = flags & (flag::OPCODE | flag::RD | flag::CD);
    header(out, id, flag::QR | flag::RA | kept | code as u16 & flag::RCODE, [0, 0, 0, u16::from(edns)]);
}

/// A message that asks a resolver for `name`, whose letters' case is what `case` has bits for (RFC 5452 section 9.2;
/// draft-vixie-dnsext-dns0x20).
pub(super) fn question(id: u16, flags: u16, name: &WireName, kind: u16, dnssec_ok: bool, case: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    out.extend_from_slice(name);
    let mut at = HEADER;
    while let Some(len) = out.get(at).copied().map(usize::from).filter(|&len| len > 0) {
        for (place, byte) in out.iter_mut().enumerate().skip(at + 1).take(len) {
            if case.get(place / 8 % case.len().max(1)).is_some_and(|bits| bits >> (place % 8) & 1 == 1) {
                byte.make_ascii_uppercase();
            }
        }
        at += 1 + len;
    }
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    opt(&mut out, dnssec_ok, 0);
    header(&mut out, id, flags, [1, 0, 0, 1]);
    out
}
