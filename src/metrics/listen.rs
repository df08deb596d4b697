//! Where metrics are asked for, and how many may ask.

use super::{Sources, http, text::Format};
use std::{
    fmt, io, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::PathBuf, str::FromStr, sync::Arc, time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Connections at a time, idle ones too; more wait in the socket's queue.
const CONNECTIONS: usize = 64;
/// Answers at a time: each is a text of megabytes with thousands of ports.
const ANSWERS: usize = 4;
/// From a socket that cannot be had, or a connection that cannot be taken, to the next attempt.
const RETRY: Duration = Duration::from_secs(5);
/// For a request to come, and for its answer to be taken, whole.
const PATIENCE: Duration = Duration::from_secs(3);
/// Whoever may log in may read them, as over D-Bus.
const SOCKET_MODE: u32 = 0o666;

/// `127.0.0.1:9177`, `[::1]:9177` or `unix:/run/vmfabric/metrics.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    #[error("'{0}' is no place to listen; write 127.0.0.1:9177, [::1]:9177 or unix:/run/vmfabric/metrics.sock")]
    Malformed(String),
    #[error(
        "{0} is not a loopback address, and metrics are told to everybody who can reach it; listen on 127.0.0.1:{port}, \
         and let a reverse proxy with TLS and a password, or Prometheus on this host, pass them on", port = .0.port()
    )]
    NotLoopback(SocketAddr),
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let malformed = || ListenError::Malformed(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            // As sun_path holds (unix(7)).
            let fits = path.is_absolute() && path.as_os_str().len() < 108;
            return if fits { Ok(Listen::Unix(path)) } else { Err(malformed()) };
        }
        let address: SocketAddr = text.parse().map_err(|_| malformed())?;
        match address.ip().is_loopback() && address.port() != 0 {
            true => Ok(Listen::Tcp(address)),
            false if address.port() == 0 => Err(malformed()),
            false => Err(ListenError::NotLoopback(address)),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A text that keeps its turn until it is sent.
struct Answer {
    text: String,
    _turn: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "what counts is its end")] SocketFile),
}

/// Goes with whoever listens there.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Serves until it is dropped; waits for a socket that cannot be had yet.
pub async fn serve(listen: Listen, sources: Sources) {
    let socket = loop {
        match open(&listen).await {
            Ok(socket) => break socket,
            Err(error) => tracing::warn!(%listen, %error, "metrics cannot be served there; trying again"),
        }
        tokio::time::sleep(RETRY).await;
    };
    tracing::info!(%listen, "serving metrics");
    let turns = Arc::new(Semaphore::new(CONNECTIONS));
    let sources = Arc::new(sources);
    let answers = Arc::new(Semaphore::new(ANSWERS));
    // They end with this task.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match accept(&socket).await {
            Ok(connection) => {
                let (sources, answers) = (Arc::clone(&sources), Arc::clone(&answers));
                connections.spawn(async move {
                    http::answer(connection, PATIENCE, |format: Format| async move {
                        let turn = answers.acquire_owned().await.ok()?;
                        Some(Answer { text: sources.gather(format).await?, _turn: turn })
                    })
                    .await;
                    drop(turn);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for metrics is not taken");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn accept(socket: &Socket) -> io::Result<Box<dyn Connection>> {
    Ok(match socket {
        Socket::Tcp(socket) => Box::new(socket.accept().await?.0),
        Socket::Unix(socket, _) => Box::new(socket.accept().await?.0),
    })
}

async fn open(listen: &Listen) -> io::Result<Socket> {
    match listen {
        Listen::Tcp(address) => TcpListener::bind(address).await.map(Socket::Tcp),
        Listen::Unix(path) => {
            match std::fs::symlink_metadata(path) {
                // Only a socket that nobody serves any more makes place.
                Ok(there) if std::os::unix::fs::FileTypeExt::is_socket(&there.file_type()) => {
                    if tokio::net::UnixStream::connect(path).await.is_ok() {
                        return Err(io::ErrorKind::AddrInUse.into());
                    }
                    std::fs::remove_file(path)?;
                }
                Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file is there, and no socket")),
                Err(_) => {}
            }
            let socket = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
            Ok(Socket::Unix(socket, SocketFile(path.clone())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_may_ask() {
        for good in ["127.0.0.1:9177", "[::1]:9177", "127.9.9.9:1", "unix:/run/vmfabric/metrics.sock"] {
            assert_eq!(good.parse::<Listen>().expect("valid").to_string(), good);
        }
        for bad in ["", "9177", "localhost:9177", "127.0.0.1", "127.0.0.1:0", "unix:run/x", "unix:"] {
            assert!(matches!(bad.parse::<Listen>(), Err(ListenError::Malformed(_))), "{bad}");
        }
        for open in ["0.0.0.0:9177", "[::]:9177", "192.0.2.1:9177", "[::ffff:127.0.0.1]:9177"] {
            let error = open.parse::<Listen>().expect_err("open to others").to_string();
            assert!(error.contains("listen on 127.0.0.1:9177"), "{error}");
        }
    }
}
