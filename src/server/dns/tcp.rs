//! DNS over TCP (RFC 7766) from hickory's parts. Its own `Server` accepts without limit, and turns in a busy loop when
//! the process has no file descriptor left: one guest could take the whole daemon down.

use super::{handler::Handler, limit::Limit};
use futures_util::StreamExt;
use hickory_server::{
    net::{
        BufDnsStreamHandle,
        runtime::{TokioTime, iocompat::AsyncIoTokioAsStd},
        tcp::TcpStream,
        xfer::Protocol,
    },
    server::{Request, RequestHandler, ResponseHandle, TimeoutStream},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};

/// RFC 7766 section 6.2.3 asks for a few seconds.
const IDLE: Duration = Duration::from_secs(10);
/// Before the next try when no connection can be accepted (no file descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Answers that wait to be written, per connection; questions are read one at a time.
const WRITE_QUEUE: usize = 8;

/// Serves connections until dropped; those over the limit are closed at once.
pub(super) async fn serve(listener: TcpListener, handler: Handler, limit: Arc<Limit>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Some(slot) = limit.take(peer.ip()) else { continue };
                    let handler = handler.clone();
                    connections.spawn(async move {
                        connection(stream, peer, handler).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, peer: SocketAddr, handler: Handler) {
    let (stream, answers) = TcpStream::from_stream_with_buffer_size(AsyncIoTokioAsStd(stream), peer, WRITE_QUEUE);
    let mut questions = TimeoutStream::new(stream, IDLE);
    while let Some(Ok(message)) = questions.next().await {
        if !message_in(message.into_parts().0, peer, &handler, answers.clone()).await {
            return;
        }
    }
}

/// Answers one message; `false` where it was none and the connection is not worth keeping.
async fn message_in(bytes: Vec<u8>, peer: SocketAddr, handler: &Handler, answers: BufDnsStreamHandle) -> bool {
    let answers = ResponseHandle::new(peer, answers, Protocol::Tcp);
    let header = bytes.first_chunk::<12>().copied();
    match Request::from_bytes(bytes, peer, Protocol::Tcp) {
        Ok(request) if is_response(request.as_slice()) => false,
        Ok(request) => {
            handler.handle_request::<_, TokioTime>(&request, answers).await;
            true
        }
        Err(_) => match header {
            Some(header) if !is_response(&header) => Handler::malformed(&header, answers).await,
            _ => false,
        },
    }
}

/// The QR bit (RFC 1035 section 4.1.1).
fn is_response(message: &[u8]) -> bool {
    message.get(2).is_none_or(|flags| flags & 0x80 != 0)
}
