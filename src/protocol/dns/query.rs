//! A guest's question, read by hand: this runs for every datagram.

use super::name::WireName;

/// Record types that the server itself knows (IANA, "Resource Record (RR) TYPEs").
pub mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const DNSKEY: u16 = 48;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
    pub const ANY: u16 = 255;
}

/// What fits every path without fragments (dnsflagday.net/2020).
pub const MAX_UDP_PAYLOAD: u16 = 1232;
/// The least that everybody takes by UDP (RFC 1035 section 4.2.1).
pub const MIN_UDP_PAYLOAD: u16 = 512;

pub const HEADER: usize = 12;
pub(super) const CLASS_IN: u16 = 1;

/// Bits of the header's third and fourth byte (RFC 1035 section 4.1.1, RFC 4035 section 3).
pub mod flag {
    pub const QR: u16 = 0x8000;
    pub const AA: u16 = 0x0400;
    pub const TC: u16 = 0x0200;
    pub const RD: u16 = 0x0100;
    pub const RA: u16 = 0x0080;
    pub const AD: u16 = 0x0020;
    pub const CD: u16 = 0x0010;
    pub const OPCODE: u16 = 0x7800;
    pub const RCODE: u16 = 0x000f;
}

/// Response codes (IANA, "DNS RCODEs").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    /// Twelve bits; the upper eight are in the OPT record (RFC 6891 section 6.1.3).
    BadVers = 16,
}

/// What a guest can take (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    pub payload: u16,
    pub dnssec_ok: bool,
}

/// One question in class IN, with what of its message bears on the answer.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    pub id: u16,
    pub flags: u16,
    pub name: WireName,
    /// The question's bytes, name as spelt; an answer repeats them.
    pub question: &'a [u8],
    pub record_type: u16,
    pub edns: Option<Edns>,
}

/// Why a message is no such question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No answer at all: it is too short to be one, or a response, and to answer that could go on for ever.
    Silence,
    /// An answer without a question.
    Code { id: u16, flags: u16, code: Rcode, edns: bool },
}

impl<'a> Query<'a> {
    /// One question exactly (RFC 9619), opcode QUERY, its name uncompressed, EDNS version 0 (RFC 6891 section 6.1.3),
    /// class IN, nothing behind it. Zone transfers and the types of the message layer (RFC 6895 section 3.1) are not
    /// questions for a resolver.
    pub fn parse(message: &'a [u8]) -> Result<Self, Fault> {
        let Some((header, _)) = message.split_first_chunk::<HEADER>() else { return Err(Fault::Silence) };
        let (id, flags) = (u16_at(header, 0), u16_at(header, 2));
        if flags & flag::QR != 0 {
            return Err(Fault::Silence);
        }
        let fault = |code, edns| Fault::Code { id, flags, code, edns };
        if flags & flag::OPCODE != 0 {
            return Err(fault(Rcode::NotImp, false));
        }
        let malformed = fault(Rcode::FormErr, false);
        if [u16_at(header, 4), u16_at(header, 6), u16_at(header, 8)] != [1, 0, 0] {
            return Err(malformed);
        }
        let name = plain_name(message).ok_or(malformed)?;
        let end = HEADER + name.len() + 4;
        let question = message.get(HEADER..end).ok_or(malformed)?;
        let (record_type, class) = (u16_at(question, name.len()), u16_at(question, name.len() + 2));
        let edns = read_additional(message, end, u16_at(header, 10)).ok_or(malformed)?;
        if edns.is_some_and(|(_, version)| version > 0) {
            return Err(fault(Rcode::BadVers, true));
        }
        let code = match record_type {
            0 | rtype::OPT => Some(Rcode::FormErr),
            TKEY..=MAILA => Some(Rcode::Refused),
            _ if class != CLASS_IN => Some(Rcode::Refused),
            _ => None,
        };
        match code {
            Some(code) => Err(fault(code, edns.is_some())),
            None => Ok(Self { id, flags, name, question, record_type, edns: edns.map(|(edns, _)| edns) }),
        }
    }

    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// How long a datagram its sender can take.
    pub fn udp_limit(&self) -> usize {
        let payload = self.edns.map_or(MIN_UDP_PAYLOAD, |e| e.payload.clamp(MIN_UDP_PAYLOAD, MAX_UDP_PAYLOAD));
        payload.into()
    }
}

/// TKEY, TSIG, IXFR, AXFR, MAILB, MAILA.
const TKEY: u16 = 249;
const MAILA: u16 = 254;

/// The question's name, which has nothing before it that it could point at.
fn plain_name(message: &[u8]) -> Option<WireName> {
    let (name, after) = WireName::read(message, HEADER)?;
    (after == HEADER + name.len()).then_some(name)
}

/// The OPT record of the additional section, with its version. Others, such as a TSIG that we cannot check, say
/// nothing to us. `None`: malformed, as with two OPT records (RFC 6891 section 6.1.1).
#[expect(clippy::option_option, reason = "whether there is one, and whether it can be read")]
fn read_additional(message: &[u8], mut at: usize, count: u16) -> Option<Option<(Edns, u8)>> {
    let mut found = None;
    for _ in 0..count {
        let (name, after) = WireName::read(message, at)?;
        let fixed = message.get(after..after + 10)?;
        at = after + 10 + usize::from(u16_at(fixed, 8));
        if u16_at(fixed, 0) == rtype::OPT {
            let edns = Edns { payload: u16_at(fixed, 2), dnssec_ok: fixed[6] & 0x80 != 0 };
            if found.replace((edns, fixed[5])).is_some() || *name != *WireName::ROOT {
                return None;
            }
        }
    }
    (at == message.len()).then_some(found)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[a, b]) => u16::from_be_bytes([a, b]),
        _ => 0,
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::{
        op::{Edns as TheirEdns, Message, MessageType, OpCode, Query as TheirQuery},
        rr::{DNSClass, Name, RecordType},
    };

    fn message(op_code: OpCode, types: &[RecordType], class: DNSClass, version: Option<u8>) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, op_code);
        for &record_type in types {
            let mut query = TheirQuery::query(Name::from_ascii("A.b.").expect("name"), record_type);
            query.query_class = class;
            message.add_query(query);
        }
        if let Some(version) = version {
            let mut edns = TheirEdns::new();
            edns.set_version(version).set_max_payload(4096).set_dnssec_ok(true);
            message.set_edns(edns);
        }
        message.to_vec().expect("encodes")
    }

    fn verdict(op_code: OpCode, types: &[RecordType], class: DNSClass, version: Option<u8>) -> Option<Rcode> {
        match Query::parse(&message(op_code, types, class, version)) {
            Ok(_) => None,
            Err(Fault::Code { id: 7, code, .. }) => Some(code),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_plain_questions_pass() {
        use RecordType as T;
        let (query, class) = (OpCode::Query, DNSClass::IN);
        assert_eq!(verdict(query, &[T::A], class, None), None);
        assert_eq!(verdict(query, &[T::ANY], class, Some(0)), None);
        assert_eq!(verdict(query, &[T::Unknown(65280)], class, Some(0)), None);
        assert_eq!(verdict(query, &[], class, None), Some(Rcode::FormErr));
        assert_eq!(verdict(query, &[T::A, T::A], class, None), Some(Rcode::FormErr));
        assert_eq!(verdict(query, &[T::OPT], class, None), Some(Rcode::FormErr));
        assert_eq!(verdict(query, &[T::A], class, Some(1)), Some(Rcode::BadVers));
        assert_eq!(verdict(query, &[T::A], DNSClass::CH, None), Some(Rcode::Refused));
        for transfer in [T::AXFR, T::IXFR, T::TSIG, T::Unknown(253)] {
            assert_eq!(verdict(query, &[transfer], class, None), Some(Rcode::Refused));
        }
        for op_code in [OpCode::Update, OpCode::Notify, OpCode::Status, OpCode::Unknown(9)] {
            assert_eq!(verdict(op_code, &[T::A], class, None), Some(Rcode::NotImp));
        }
    }

    #[test]
    fn what_it_reads_is_what_was_asked() {
        let bytes = message(OpCode::Query, &[RecordType::AAAA], DNSClass::IN, Some(0));
        let query = Query::parse(&bytes).expect("a question");
        assert_eq!((query.id, query.record_type, query.name.to_string()), (7, rtype::AAAA, "a.b.".into()));
        assert_eq!(query.question, b"\x01A\x01b\0\0\x1c\0\x01");
        assert_eq!(query.edns, Some(Edns { payload: 4096, dnssec_ok: true }));
        assert_eq!(query.udp_limit(), 1232);
    }

    #[test]
    fn what_is_malformed_earns_an_error_and_what_is_no_question_nothing() {
        let good = message(OpCode::Query, &[RecordType::A], DNSClass::IN, Some(0));
        for len in 0..good.len() {
            let fault = Query::parse(&good[..len]).expect_err("cut");
            assert_eq!(fault == Fault::Silence, len < HEADER, "{len}");
        }
        let mut response = good.clone();
        response[2] |= 0x80;
        assert_eq!(Query::parse(&response).expect_err("a response"), Fault::Silence);
        let formerr = |bytes: Vec<u8>| {
            let fault = Query::parse(&bytes).expect_err("malformed");
            assert!(matches!(fault, Fault::Code { code: Rcode::FormErr, .. }), "{fault:?}");
        };
        formerr([&good[..], b"x"].concat());
        let mut two = [&good[..], &good[good.len() - 11..]].concat();
        two[11] = 2;
        formerr(two);
        let mut pointing = message(OpCode::Query, &[RecordType::A], DNSClass::IN, None);
        pointing.splice(HEADER..HEADER + 5, [0xc0, 2]);
        formerr(pointing);
    }
}
