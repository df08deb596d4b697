//! What a zone says of a name. A zone is data; this is a function of it and the question.

use super::{
    name::WireName,
    query::{Rcode, rtype},
    reverse::{ReverseName, apex_depth, apex_len},
    writer::{Section, Writer},
    zone::{RECORD_TTL, StaticRecord, Zone},
};
use std::net::IpAddr;

/// How long, in seconds, a "there is none" may be kept (RFC 2308 section 4): a guest that asks a moment too early soon
/// asks again.
pub const NEGATIVE_TTL: u32 = 3;

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one of them at a time, on the stack")]
pub(super) enum Outcome {
    /// The answer stands in the writer.
    Answered(Rcode),
    /// A CNAME stands in the writer, and this is where it leads.
    Follow(WireName),
    /// Nothing of ours.
    Forward,
}

const NODATA: Outcome = Outcome::Answered(Rcode::NoError);
const NXDOMAIN: Outcome = Outcome::Answered(Rcode::NxDomain);

/// What there is of a name.
#[derive(Debug, Clone, Copy)]
struct Found<'z> {
    /// A guest's.
    addresses: Option<&'z [IpAddr]>,
    records: Option<&'z [StaticRecord]>,
}

impl Zone {
    /// The answer for a name whose end, from `apex` on, is this zone's own name.
    pub(super) fn answer_own(&self, name: &WireName, apex: usize, kind: u16, writer: &mut Writer<'_>) -> Outcome {
        if apex == 0 {
            return self.answer_apex(name, kind, writer);
        }
        let soa = |outcome, writer: &mut Writer<'_>| {
            self.write_soa(&name[apex..], Section::Authority, writer);
            outcome
        };
        let found = self.find(&name[..apex]);
        let found = found.or_else(|| self.wildcard(name, apex));
        let Some(found) = found else {
            return if self.local { soa(NXDOMAIN, writer) } else { Outcome::Forward };
        };
        match found.write(name, kind, writer) {
            Some(outcome) => outcome,
            None => soa(NODATA, writer),
        }
    }

    /// A name without a dot. Guests' names and records answer, as with dnsmasq; `None` for others.
    pub(super) fn answer_bare(&self, name: &WireName, kind: u16, writer: &mut Writer<'_>) -> Option<Outcome> {
        let found = self.find(&name[..name.len() - 1])?;
        Some(found.write(name, kind, writer).unwrap_or(NODATA))
    }

    fn find(&self, labels: &[u8]) -> Option<Found<'_>> {
        let single = labels.split_first().filter(|(len, label)| usize::from(**len) == label.len());
        let addresses = single.and_then(|(_, label)| self.addresses(label));
        let records = if self.has_records() { self.records(labels) } else { None };
        (addresses.is_some() || records.is_some()).then_some(Found { addresses, records })
    }

    /// The asterisk below the closest name above that exists (RFC 4592 section 3.3.1).
    fn wildcard(&self, name: &WireName, apex: usize) -> Option<Found<'_>> {
        if !self.has_records() {
            return None;
        }
        for above in name.suffixes().skip(1) {
            let at = name.len() - above.len();
            let closest = at >= apex || self.find(&name[at..apex]).is_some();
            if closest {
                let owner = [b"\x01*", &name[at.min(apex)..apex]].concat();
                return Some(Found { addresses: None, records: Some(self.records(&owner)?) });
            }
        }
        None
    }

    fn answer_apex(&self, name: &WireName, kind: u16, writer: &mut Writer<'_>) -> Outcome {
        match kind {
            rtype::SOA | rtype::ANY => self.write_soa(name, Section::Answer, writer),
            rtype::NS => writer.record(Section::Answer, name, rtype::NS, RECORD_TTL, |w| w.name(&self.server)),
            _ => {
                let found = Found { addresses: None, records: self.records(b"") };
                return found.write(name, kind, writer).unwrap_or_else(|| {
                    self.write_soa(name, Section::Authority, writer);
                    NODATA
                });
            }
        }
        NODATA
    }

    /// `None` where the reverse name is not of this network.
    pub(super) fn answer_reverse(
        &self,
        name: &WireName,
        reverse: &ReverseName,
        kind: u16,
        writer: &mut Writer<'_>,
    ) -> Option<Outcome> {
        let soa = |depth: usize, outcome, writer: &mut Writer<'_>| {
            self.write_soa(&name[name.suffix(depth)..], Section::Authority, writer);
            outcome
        };
        let Some(address) = reverse.address() else {
            let prefix = self.prefixes.iter().find(|prefix| prefix.contains(&reverse.block))?;
            return Some(match reverse.below {
                true => soa(apex_depth(prefix), NXDOMAIN, writer),
                false if reverse.block.prefix_len() == apex_len(prefix) => self.answer_reverse_apex(name, kind, writer),
                // Between the apex and the addresses: whether any stands below is not worth finding out, and to say
                // "no such name" would deny them all (RFC 8020). A prefix within a zone's block has its apex above.
                false => soa(apex_depth(prefix), NODATA, writer),
            });
        };
        let depth = self.reverse_depth(&reverse.block);
        let target = self.name_of(address);
        let ours = target.is_some();
        let Some(target) = target.filter(|_| !reverse.below) else {
            return match depth {
                Some(depth) => Some(soa(depth, NXDOMAIN, writer)),
                None => ours.then_some(NXDOMAIN),
            };
        };
        if matches!(kind, rtype::PTR | rtype::ANY) {
            writer.record(Section::Answer, name, rtype::PTR, RECORD_TTL, |w| w.name(&target));
            return Some(NODATA);
        }
        Some(match depth {
            Some(depth) => soa(depth, NODATA, writer),
            None => NODATA,
        })
    }

    fn answer_reverse_apex(&self, name: &WireName, kind: u16, writer: &mut Writer<'_>) -> Outcome {
        match kind {
            rtype::SOA | rtype::ANY => self.write_soa(name, Section::Answer, writer),
            rtype::NS => writer.record(Section::Answer, name, rtype::NS, RECORD_TTL, |w| w.name(&self.server)),
            _ => self.write_soa(name, Section::Authority, writer),
        }
        NODATA
    }

    fn write_soa(&self, owner: &[u8], section: Section, writer: &mut Writer<'_>) {
        writer.record(section, owner, rtype::SOA, NEGATIVE_TTL, |w| {
            w.name(&self.server);
            w.name(&self.hostmaster);
            [self.serial, 3600, 600, 86_400, NEGATIVE_TTL].into_iter().for_each(|number| w.u32(number));
        });
    }
}

impl Found<'_> {
    /// Writes what there is of that type; `None` where there is nothing. ANY gets one type, not all there is (RFC 8482
    /// section 4.1).
    fn write(&self, owner: &WireName, kind: u16, writer: &mut Writer<'_>) -> Option<Outcome> {
        let records = self.records.unwrap_or_default();
        if let [alias, ..] = records
            && let Some(target) = alias.alias()
        {
            writer.record(Section::Answer, owner, rtype::CNAME, alias.ttl, |w| alias.write(w));
            let asked = matches!(kind, rtype::CNAME | rtype::ANY);
            return Some(if asked { NODATA } else { Outcome::Follow(target) });
        }
        let is_address = |kind| matches!(kind, rtype::A | rtype::AAAA);
        // What a person wrote down goes before what a guest has.
        let written = records.iter().any(|record| is_address(record.kind));
        let addresses = self.addresses.filter(|_| !written).unwrap_or_default();
        let before = writer.answers();
        let kind = match kind {
            rtype::ANY => match (records.first(), addresses.first()) {
                (_, Some(address)) => kind_of(address),
                (Some(record), None) => record.kind,
                (None, None) => return None,
            },
            kind => kind,
        };
        for record in records.iter().filter(|record| record.kind == kind) {
            writer.record(Section::Answer, owner, kind, record.ttl, |w| record.write(w));
        }
        if is_address(kind) {
            for address in addresses.iter().filter(|address| kind_of(address) == kind) {
                write_address(owner, *address, writer);
            }
        }
        (writer.answers() > before).then_some(NODATA)
    }
}

fn kind_of(address: &IpAddr) -> u16 {
    if address.is_ipv4() { rtype::A } else { rtype::AAAA }
}

pub(super) fn write_address(owner: &[u8], address: IpAddr, writer: &mut Writer<'_>) {
    writer.record(Section::Answer, owner, kind_of(&address), RECORD_TTL, |w| match address {
        IpAddr::V4(v4) => w.bytes(&v4.octets()),
        IpAddr::V6(v6) => w.bytes(&v6.octets()),
    });
}

#[cfg(test)]
mod tests;
