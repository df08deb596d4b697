use super::Question;
use hickory_proto::{
    op::{Edns, LowerQuery, Metadata, OpCode, ResponseCode},
    rr::DNSClass,
};

/// The one question of a request, or the response code that it earns instead.
///
/// One question exactly (RFC 9619), opcode QUERY, EDNS version 0 (RFC 6891 section 6.1.3), class IN. Zone transfers
/// and the types of the message layer (RFC 6895 section 3.1) are not questions for a resolver.
pub fn question<'a>(
    header: &Metadata,
    queries: &'a [LowerQuery],
    edns: Option<&Edns>,
) -> Result<Question<'a>, ResponseCode> {
    if header.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    if edns.is_some_and(|edns| edns.version() > 0) {
        return Err(ResponseCode::BADVERS);
    }
    let [query] = queries else { return Err(ResponseCode::FormErr) };
    let query = query.original();
    match u16::from(query.query_type) {
        OPT => return Err(ResponseCode::FormErr),
        TKEY..=MAILA => return Err(ResponseCode::Refused),
        _ => {}
    }
    if query.query_class != DNSClass::IN {
        return Err(ResponseCode::Refused);
    }
    Ok(Question { name: &query.name, record_type: query.query_type })
}

const OPT: u16 = 41;
/// TKEY, TSIG, IXFR, AXFR, MAILB, MAILA.
const TKEY: u16 = 249;
const MAILA: u16 = 254;

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::{
        op::{MessageType, Query},
        rr::{Name, RecordType},
    };

    fn verdict(op_code: OpCode, types: &[RecordType], class: DNSClass, version: Option<u8>) -> Option<ResponseCode> {
        let queries: Vec<LowerQuery> = types
            .iter()
            .map(|&t| {
                let mut query = Query::query(Name::from_ascii("a.b.").expect("name"), t);
                query.query_class = class;
                query.into()
            })
            .collect();
        let edns = version.map(|version| {
            let mut edns = Edns::new();
            edns.set_version(version);
            edns
        });
        question(&Metadata::new(1, MessageType::Query, op_code), &queries, edns.as_ref()).err()
    }

    #[test]
    fn only_plain_questions_pass() {
        use RecordType as T;
        let (query, class) = (OpCode::Query, DNSClass::IN);
        assert_eq!(verdict(query, &[T::A], class, None), None);
        assert_eq!(verdict(query, &[T::ANY], class, Some(0)), None);
        assert_eq!(verdict(query, &[T::Unknown(65280)], class, Some(0)), None);
        assert_eq!(verdict(query, &[], class, None), Some(ResponseCode::FormErr));
        assert_eq!(verdict(query, &[T::A, T::A], class, None), Some(ResponseCode::FormErr));
        assert_eq!(verdict(query, &[T::OPT], class, None), Some(ResponseCode::FormErr));
        assert_eq!(verdict(query, &[T::A], class, Some(1)), Some(ResponseCode::BADVERS));
        assert_eq!(verdict(query, &[T::A], DNSClass::CH, None), Some(ResponseCode::Refused));
        for transfer in [T::AXFR, T::IXFR, T::TSIG, T::Unknown(253)] {
            assert_eq!(verdict(query, &[transfer], class, None), Some(ResponseCode::Refused));
        }
        for op_code in [OpCode::Update, OpCode::Notify, OpCode::Status, OpCode::Unknown(9)] {
            assert_eq!(verdict(op_code, &[T::A], class, None), Some(ResponseCode::NotImp));
        }
    }
}
