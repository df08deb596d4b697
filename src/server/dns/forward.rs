//! One question asked of one upstream resolver (RFC 1035 section 4.2, RFC 5452).

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    serialize::binary::DecodeError,
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

/// What fits every path without fragments (dnsflagday.net/2020).
pub(super) const MAX_UDP_PAYLOAD: u16 = 1232;
/// How long one upstream has for its answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A question to pass on, with what of the guest's header bears on the answer.
#[derive(Debug, Clone)]
pub(super) struct Forward {
    pub query: Query,
    pub recursion_desired: bool,
    pub authentic_data: bool,
    pub checking_disabled: bool,
    pub dnssec_ok: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Timeout,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the answer makes no sense: {0}")]
    Malformed(#[from] DecodeError),
    #[error("the question cannot be written: {0}")]
    Question(#[from] hickory_proto::ProtoError),
    #[error("the answer is to another question")]
    Mismatch,
}

impl Forward {
    /// Asks `server`, by TCP where the answer does not fit into a datagram.
    pub async fn exchange(&self, server: SocketAddr) -> Result<Message, ExchangeError> {
        // The id is from hickory's thread-local ChaCha generator.
        let message = self.message(Message::query());
        let id = message.metadata.id;
        let bytes = message.to_vec()?;
        let asked = async {
            match self.by_udp(server, id, &bytes).await? {
                Some(answer) => Ok(answer),
                None => self.by_tcp(server, id, &bytes).await,
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(ExchangeError::Timeout))
    }

    fn message(&self, mut message: Message) -> Message {
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.authentic_data = self.authentic_data;
        message.metadata.checking_disabled = self.checking_disabled;
        message.add_query(self.query.clone());
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP_PAYLOAD).set_version(0).set_dnssec_ok(self.dnssec_ok);
        message.set_edns(edns);
        message
    }

    /// `None` where the answer is truncated. What is not the answer is ignored: whoever guesses at the id must not make
    /// the true answer be missed.
    async fn by_udp(&self, server: SocketAddr, id: u16, question: &[u8]) -> Result<Option<Message>, ExchangeError> {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // A socket of its own: the kernel draws the source port at random, and connected it hears only this server, and
        // at once where nobody listens there.
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(server).await?;
        socket.send(question).await?;
        let mut buffer = [0; 4096];
        loop {
            let received = socket.recv(&mut buffer).await?;
            let Some(answer) = buffer.get(..received) else { continue };
            if truncated(answer, id) {
                return Ok(None);
            }
            if let Ok(answer) = self.parse(answer, id) {
                return Ok(Some(answer));
            }
        }
    }

    async fn by_tcp(&self, server: SocketAddr, id: u16, question: &[u8]) -> Result<Message, ExchangeError> {
        let mut stream = TcpStream::connect(server).await?;
        let len = u16::try_from(question.len()).map_err(io::Error::other)?;
        stream.write_all(&[&len.to_be_bytes(), question].concat()).await?;
        let len = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(len)];
        stream.read_exact(&mut answer).await?;
        self.parse(&answer, id)
    }

    fn parse(&self, answer: &[u8], id: u16) -> Result<Message, ExchangeError> {
        let answer = Message::from_vec(answer)?;
        let header = &answer.metadata;
        let ours = header.id == id && header.message_type == MessageType::Response && header.op_code == OpCode::Query;
        // A server that cannot read the question cannot repeat it.
        let repeats = match answer.queries.as_slice() {
            [query] => *query == self.query,
            [] => header.response_code == ResponseCode::FormErr,
            _ => false,
        };
        if ours && repeats { Ok(answer) } else { Err(ExchangeError::Mismatch) }
    }
}

/// Whether these are the id, the QR and the TC bit of a cut-off answer; its rest need not be readable.
fn truncated(answer: &[u8], id: u16) -> bool {
    let [a, b] = id.to_be_bytes();
    matches!(answer, [x, y, flags, ..] if [*x, *y] == [a, b] && flags & 0x82 == 0x82)
}
