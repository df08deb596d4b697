//! What an upstream resolver is asked, and what it says. Nothing that it says is trusted to be well-formed.

use super::{
    name::WireName,
    query::{CLASS_IN, HEADER, flag, rtype, u16_at, u32_at},
    special::is_private_address,
    writer,
};
use std::net::IpAddr;

/// The longest that anything may be kept, seconds: a day, as others do; RFC 8767 section 4 wants a bound.
const MAX_TTL: u32 = 86_400;
/// The longest that "there is none" may be kept, seconds (RFC 2308 section 5).
const MAX_NEGATIVE_TTL: u32 = 3_600;

/// A question for an upstream resolver, with what of the guest's header bears on the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub name: WireName,
    pub record_type: u16,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
}

impl Ask {
    /// The message. `id` and `case` are random: what an answer must repeat (RFC 5452 sections 4.5 and 9).
    pub fn message(&self, id: u16, case: &[u8]) -> Vec<u8> {
        let checking = if self.checking_disabled { flag::CD } else { 0 };
        // AD asks for the AD bit in the answer (RFC 6840 section 5.7).
        writer::question(id, flag::RD | flag::AD | checking, &self.name, self.record_type, self.dnssec_ok, case)
    }
}

/// What a datagram is to a question that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Answer,
    /// The same by TCP.
    Truncated,
    /// The right name in other letters: not proven to be from whom it should, so ask by TCP.
    OtherCase,
    /// Somebody else's, or nobody's: the true one may still come.
    Stray,
}

/// Compares an answer's id and question with those of the question that was sent.
pub fn classify(sent: &[u8], answer: &[u8]) -> Reply {
    let flags = u16_at(answer, 2);
    let ours = answer.len() >= HEADER && answer.get(..2) == sent.get(..2);
    if !ours || flags & flag::QR == 0 || flags & flag::OPCODE != 0 {
        return Reply::Stray;
    }
    let Some((name, after)) = WireName::read(sent, HEADER) else { return Reply::Stray };
    let asked = sent.get(HEADER..after + 4).unwrap_or_default();
    let repeated = answer.get(HEADER..after + 4).unwrap_or_default();
    let count = u16_at(answer, 4);
    // A server that cannot read the question cannot repeat it (RFC 6891 section 7), nor has it to.
    if count == 0 && flags & flag::RCODE == 1 && answer.len() == HEADER {
        return Reply::Answer;
    }
    let split =
        |question: &'_ [u8]| question.split_at_checked(name.len()).map(|(n, t)| (n.to_ascii_lowercase(), t.to_vec()));
    if count != 1 || split(asked) != split(repeated) || split(asked).is_none() {
        return Reply::Stray;
    }
    match () {
        () if asked != repeated => Reply::OtherCase,
        () if flags & flag::TC != 0 => Reply::Truncated,
        () => Reply::Answer,
    }
}

/// What an answer says, ready to be repeated: all after its question, without the OPT record and what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// Compression pointers in it count from the message's beginning; the question before it has always the same
    /// length.
    pub body: Box<[u8]>,
    pub counts: [u16; 3],
    pub code: u16,
    pub authentic: bool,
    /// Where in `body` times to live stand.
    pub ttls: Box<[u16]>,
    /// How long it may be kept, seconds. `None`: not at all.
    pub ttl: Option<u32>,
    /// A private address is among the answers.
    pub private: bool,
}

/// Why an answer cannot be given to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAnswer {
    #[error("it is malformed")]
    Malformed,
    /// Of the EDNS between it and us.
    #[error("it has an extended response code")]
    Extended,
}

/// Whether an answer that [`classify`] calls one can be given to guests; if not, another resolver may do better.
pub fn is_readable(message: &[u8], ask: &Ask) -> bool {
    Said::read(message, ask).is_ok()
}

/// Whether a resolver says that it cannot or will not answer; another one may do better.
pub fn is_refusal(message: &[u8]) -> bool {
    !matches!(u16_at(message, 2) & flag::RCODE, 0 | 3)
}

struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

struct Record<'m> {
    start: usize,
    ttl_at: usize,
    kind: u16,
    class: u16,
    ttl: u32,
    data_at: usize,
    data: &'m [u8],
}

impl<'m> Reader<'m> {
    fn record(&mut self) -> Option<Record<'m>> {
        let start = self.at;
        let (_, after) = WireName::read(self.message, start)?;
        let fixed = self.message.get(after..after + 10)?;
        let data_at = after + 10;
        let data = self.message.get(data_at..data_at + usize::from(u16_at(fixed, 8)))?;
        self.at = data_at + data.len();
        // A time to live with its highest bit set is 0 (RFC 2181 section 8).
        let ttl = Some(u32_at(fixed, 4)).filter(|ttl| ttl >> 31 == 0).unwrap_or(0);
        Some(Record { start, ttl_at: after + 4, kind: u16_at(fixed, 0), class: u16_at(fixed, 2), ttl, data_at, data })
    }
}

impl Said {
    /// Reads an answer of which [`classify`] says that it is one to a question for a name as long as `name`.
    pub fn read(message: &[u8], ask: &Ask) -> Result<Self, BadAnswer> {
        let flags = u16_at(message, 2);
        let body_at = HEADER + ask.name.len() + 4;
        let code = flags & flag::RCODE;
        let authentic = flags & flag::AD != 0;
        let empty =
            Self { body: [].into(), counts: [0; 3], code, authentic, ttls: [].into(), ttl: None, private: false };
        if u16_at(message, 4) == 0 {
            return Ok(empty);
        }
        let mut reader = Reader { message, at: body_at };
        let (mut counts, mut ttls, mut private) = ([0u16; 3], Vec::new(), false);
        let (mut least, mut negative) = (u32::MAX, None);
        let mut end = body_at;
        'sections: for (section, kept) in counts.iter_mut().enumerate() {
            for _ in 0..u16_at(message, 6 + 2 * section) {
                let record = reader.record().ok_or(BadAnswer::Malformed)?;
                if record.kind == rtype::OPT {
                    if record.ttl >> 24 != 0 {
                        return Err(BadAnswer::Extended);
                    }
                    end = record.start;
                    break 'sections;
                }
                if section == 0 {
                    private |= record.class == CLASS_IN && is_private(record.kind, record.data).unwrap_or(true);
                }
                if record.kind == rtype::SOA && section == 1 {
                    let minimum = soa_minimum(message, &record).ok_or(BadAnswer::Malformed)?;
                    negative.get_or_insert(record.ttl.min(minimum));
                }
                least = least.min(record.ttl);
                ttls.push(u16::try_from(record.ttl_at - body_at).map_err(|_| BadAnswer::Malformed)?);
                *kept += 1;
                end = reader.at;
            }
        }
        if end == body_at && reader.at != message.len() && counts == [0; 3] && u16_at(message, 10) == 0 {
            return Err(BadAnswer::Malformed);
        }
        let ttl = match (code, counts[0]) {
            // A CNAME that leads to nothing is negative too (RFC 2308 section 2).
            (0, 1..) if negative.is_none() => Some(least.min(MAX_TTL)),
            (0 | 3, _) => negative.map(|ttl| ttl.min(least).min(MAX_NEGATIVE_TTL)),
            _ => None,
        };
        let body = message.get(body_at..end).ok_or(BadAnswer::Malformed)?.into();
        Ok(Self { body, counts, ttls: ttls.into(), ttl, private, ..empty })
    }
}

fn soa_minimum(message: &[u8], record: &Record<'_>) -> Option<u32> {
    let (_, after) = WireName::read(message, record.data_at)?;
    let (_, after) = WireName::read(message, after)?;
    let end = record.data_at + record.data.len();
    (after + 20 == end).then(|| u32_at(message, after + 16))
}

/// Whether a record leads to a private address, by the hints of a service binding too (RFC 9460 section 7.3). `None`
/// where it cannot be read.
fn is_private(kind: u16, data: &[u8]) -> Option<bool> {
    match kind {
        rtype::A => Some(is_private_address(IpAddr::from(<[u8; 4]>::try_from(data).ok()?))),
        rtype::AAAA => Some(is_private_address(IpAddr::from(<[u8; 16]>::try_from(data).ok()?))),
        rtype::SVCB | rtype::HTTPS => {
            // Its target name is never compressed.
            let (_, mut at) = WireName::read(data.get(2..)?, 0)?;
            at += 2;
            let mut private = false;
            while at < data.len() {
                let value = data.get(at + 4..at + 4 + usize::from(u16_at(data.get(at..at + 4)?, 2)))?;
                match u16_at(data, at) {
                    IPV4_HINT => private |= value.chunks(4).any(|a| is_private(rtype::A, a).unwrap_or(true)),
                    IPV6_HINT => private |= value.chunks(16).any(|a| is_private(rtype::AAAA, a).unwrap_or(true)),
                    _ => {}
                }
                at += 4 + value.len();
            }
            Some(private)
        }
        _ => Some(false),
    }
}

const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;
