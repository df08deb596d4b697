//! DNS over TCP (RFC 7766) from hickory's parts. Its own `Server` accepts without limit, and turns in a busy loop when
//! the process has no file descriptor left: one guest could take the whole daemon down.

use super::{limit::Limit, service::Service};
use futures_util::StreamExt;
use hickory_proto::op::SerialMessage;
use hickory_server::{
    net::{BufDnsStreamHandle, DnsStreamHandle, runtime::iocompat::AsyncIoTokioAsStd, tcp::TcpStream},
    server::TimeoutStream,
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
pub(super) async fn serve(listener: TcpListener, service: Arc<Service>, limit: Arc<Limit>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Some(slot) = limit.take(peer.ip()) else { continue };
                    let service = Arc::clone(&service);
                    connections.spawn(async move {
                        connection(stream, peer, service).await;
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

async fn connection(stream: tokio::net::TcpStream, peer: SocketAddr, service: Arc<Service>) {
    let (stream, mut answers) = TcpStream::from_stream_with_buffer_size(AsyncIoTokioAsStd(stream), peer, WRITE_QUEUE);
    let mut questions = TimeoutStream::new(stream, IDLE);
    while let Some(Ok(message)) = questions.next().await {
        if !message_in(&message.into_parts().0, peer, &service, &mut answers).await {
            return;
        }
    }
}

/// Answers one message; `false` where it earns no answer and the connection is not worth keeping.
async fn message_in(bytes: &[u8], peer: SocketAddr, service: &Arc<Service>, answers: &mut BufDnsStreamHandle) -> bool {
    match service.answer_tcp(bytes, peer).await {
        Some(answer) => answers.send(SerialMessage::new(answer, peer)).is_ok(),
        None => false,
    }
}
