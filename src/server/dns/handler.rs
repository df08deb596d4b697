use super::{
    SharedZone,
    forward::{Forward, MAX_UDP_PAYLOAD},
    limit::Limit,
    upstream::Upstreams,
};
use crate::protocol::dns::{Answer, Question, question};
use futures_util::future::BoxFuture;
use hickory_proto::{
    op::{Edns, Header, Message, Metadata, ResponseCode},
    rr::Record,
    serialize::binary::{BinDecodable, BinDecoder, BinEncoder},
};
use hickory_server::{
    net::{runtime::Time, xfer::Protocol},
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::{MessageResponseBuilder, Queries},
};
use std::sync::Arc;

/// Questions of a network that are with the upstreams, all its guests together and each.
const MAX_FORWARDED: usize = 128;
const MAX_FORWARDED_PER_CLIENT: usize = 32;

/// Answers one network's guests.
#[derive(Debug, Clone)]
pub(super) struct Handler(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    zone: SharedZone,
    upstreams: Arc<Upstreams>,
    forwarded: Arc<Limit>,
}

struct Response {
    header: Metadata,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Handler {
    pub fn new(zone: SharedZone, upstreams: Arc<Upstreams>) -> Self {
        let forwarded = Limit::new(MAX_FORWARDED, MAX_FORWARDED_PER_CLIENT);
        Self(Arc::new(Inner { zone, upstreams, forwarded }))
    }

    async fn respond(&self, request: &Request, mut handle: impl ResponseHandler) -> ResponseInfo {
        let none = no_queries();
        let plain = is_plain(&request.queries);
        let queries = if plain { &request.queries } else { &none };
        let mut response = self.response(request, plain).await;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            // Also the limit to which the answer is cut.
            edns.set_max_payload(asked.max_payload().clamp(512, MAX_UDP_PAYLOAD));
            edns.set_version(0).set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        if request.protocol() == Protocol::Udp && !response.fits(request, edns.as_ref()) {
            response = Response::empty(response.header);
            response.header.truncation = true;
        }
        let message = MessageResponseBuilder::new(queries, edns.as_ref()).build(
            response.header,
            &response.answers,
            &response.authorities,
            [],
            &response.additionals,
        );
        match handle.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(client = %request.src(), %error, "cannot send a DNS answer");
                Header { metadata: response.header, counts: Default::default() }.into()
            }
        }
    }

    async fn response(&self, request: &Request, plain: bool) -> Response {
        let mut header = Metadata::response_from_request(&request.metadata);
        header.recursion_available = true;
        let question = match question(&request.metadata, request.queries.queries(), request.edns.as_ref()) {
            Ok(question) if plain => question,
            Ok(_) => return Response::code(header, ResponseCode::FormErr),
            Err(code) => return Response::code(header, code),
        };
        let answer = self.0.zone.read().answer(&question);
        let mut response = Response::empty(header);
        response.header.authoritative = true;
        match answer {
            Answer::Records(records) => response.answers = records,
            Answer::NoData(soa) => response.authorities = soa.into_iter().map(|soa| *soa).collect(),
            Answer::NxDomain(soa) => {
                response.header.response_code = ResponseCode::NXDomain;
                response.authorities = soa.into_iter().map(|soa| *soa).collect();
            }
            Answer::Forward => return self.forward(request, &question, header).await,
        }
        response
    }

    async fn forward(&self, request: &Request, question: &Question<'_>, header: Metadata) -> Response {
        let Some(_slot) = self.0.forwarded.take(request.src().ip()) else {
            return Response::code(header, ResponseCode::ServFail);
        };
        let asked = &request.metadata;
        let dnssec_ok = request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        let forward = Forward {
            query: hickory_proto::op::Query::query(question.name.clone(), question.record_type),
            recursion_desired: asked.recursion_desired,
            authentic_data: asked.authentic_data,
            checking_disabled: asked.checking_disabled,
            dnssec_ok,
        };
        match self.0.upstreams.ask(&forward).await {
            Ok(answer) => Response::relayed(header, answer, asked.authentic_data || dnssec_ok),
            Err(error) => {
                tracing::debug!(name = %question.name, %error, "cannot resolve");
                Response::code(header, ResponseCode::ServFail)
            }
        }
    }

    /// FORMERR to a message of which only the header can be read. Whether it could be sent.
    pub async fn malformed(header: &[u8; 12], mut handle: impl ResponseHandler) -> bool {
        let Ok(header) = Header::read(&mut BinDecoder::new(header)) else { return false };
        let queries = no_queries();
        let message = MessageResponseBuilder::new(&queries, None).error_msg(&header, ResponseCode::FormErr);
        handle.send_response(message).await.is_ok()
    }
}

fn no_queries() -> Queries {
    Queries::read(&mut BinDecoder::new(&[]), 0).expect("nothing is read from nothing")
}

/// Whether it is one question with its name in full. The answer repeats the question's bytes, where a compression
/// pointer, which has nothing before it to point at, would point at who knows what.
fn is_plain(queries: &Queries) -> bool {
    let [_] = queries.queries() else { return false };
    let mut rest = queries.as_bytes();
    while let Some((&len, after)) = rest.split_first() {
        if len == 0 {
            return after.len() == 4;
        }
        let Some(next) = after.get(usize::from(len)..).filter(|_| len < 64) else { return false };
        rest = next;
    }
    false
}

impl Response {
    fn empty(header: Metadata) -> Self {
        Self { header, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new() }
    }

    fn code(mut header: Metadata, code: ResponseCode) -> Self {
        header.response_code = code;
        Self::empty(header)
    }

    /// An upstream's answer, as ours: what it says of its own authority and abilities is not true of us.
    fn relayed(mut header: Metadata, answer: Message, wants_authentic: bool) -> Self {
        let theirs = answer.metadata;
        if theirs.response_code.high() > 0 {
            // Of the EDNS between it and us.
            return Self::code(header, ResponseCode::ServFail);
        }
        header.response_code = theirs.response_code;
        header.authentic_data = theirs.authentic_data && wants_authentic;
        Self { header, answers: answer.answers, authorities: answer.authorities, additionals: answer.additionals }
    }

    /// Whether it goes into the datagram that the guest can take. If not, it is sent empty: half a record set is of no
    /// use, and would crowd out the OPT record (RFC 6891 section 7).
    fn fits(&self, request: &Request, edns: Option<&Edns>) -> bool {
        // Four addresses and an SOA fit into 512 bytes beside the longest name.
        if self.header.authoritative && self.answers.len() <= 4 {
            return true;
        }
        let limit = edns.map_or(512, Edns::max_payload);
        let mut bytes = Vec::with_capacity(512);
        let message = MessageResponseBuilder::new(&request.queries, edns).build(
            self.header,
            &self.answers,
            &self.authorities,
            [],
            &self.additionals,
        );
        let encoded = message.destructive_emit(&mut BinEncoder::new(&mut bytes));
        encoded.is_ok() && bytes.len() <= usize::from(limit)
    }
}

impl RequestHandler for Handler {
    // What `#[async_trait]` would make of it.
    fn handle_request<'a, 'b, 'f, R, T>(&'a self, request: &'b Request, handle: R) -> BoxFuture<'f, ResponseInfo>
    where
        R: ResponseHandler + 'f,
        T: Time + 'f,
        'a: 'f,
        'b: 'f,
        Self: 'f,
    {
        Box::pin(self.respond(request, handle))
    }
}
