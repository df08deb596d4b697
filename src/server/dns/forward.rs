//! One question asked of one upstream resolver (RFC 1035 section 4.2, RFC 5452).

use crate::protocol::dns::{Ask, Reply, classify, is_readable};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

/// How long one upstream has for its answer.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Timeout,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the answer makes no sense")]
    Malformed,
    #[error("the answer is to another question")]
    Mismatch,
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// Asks `server`, by TCP where the answer does not fit into a datagram, or is not proven to be the server's.
pub(super) async fn exchange(ask: &Ask, server: SocketAddr) -> Result<Vec<u8>, ExchangeError> {
    // An id and each letter's case, from the kernel's generator; the source port is the kernel's too.
    let mut random = [0; 34];
    getrandom::fill(&mut random)?;
    let [a, b, case @ ..] = random;
    let question = ask.message(u16::from_be_bytes([a, b]), &case);
    let asked = async {
        let answer = match by_udp(server, &question).await? {
            Some(answer) => answer,
            None => by_tcp(server, &question).await?,
        };
        if is_readable(&answer, ask) { Ok(answer) } else { Err(ExchangeError::Malformed) }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(ExchangeError::Timeout))
}

/// `None` where it must be asked by TCP. What is not the answer is ignored: whoever guesses at the id must not make the
/// true answer be missed.
async fn by_udp(server: SocketAddr, question: &[u8]) -> Result<Option<Vec<u8>>, ExchangeError> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A socket of its own: the kernel draws the source port at random, and connected it hears only this server, and at
    // once where nobody listens there.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = [0; 4096];
    loop {
        let received = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..received).unwrap_or_default();
        match classify(question, answer) {
            Reply::Answer => return Ok(Some(answer.to_vec())),
            Reply::Truncated | Reply::OtherCase => return Ok(None),
            Reply::Stray => {}
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &[u8]) -> Result<Vec<u8>, ExchangeError> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), question].concat()).await?;
    let len = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(len)];
    stream.read_exact(&mut answer).await?;
    match classify(question, &answer) {
        // A connection to the server is proof enough.
        Reply::Answer | Reply::OtherCase => Ok(answer),
        Reply::Truncated | Reply::Stray => Err(ExchangeError::Mismatch),
    }
}
