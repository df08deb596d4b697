//! The socket that libvirt's hooks speak to: root only, one request a connection.
//!
//! Request: one line of JSON ([`HookRequest`]), then the XML, to the end of what the hook sends. Answer: one line of
//! JSON ([`HookAnswer`]).

use crate::libvirt::domain_xml::{Domain, MAX_XML, NetworkPort, parse_domain, parse_network_hook};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
};

/// Where the hook finds the daemon.
pub const SOCKET: &str = "/run/vmfabric/hook.sock";
/// Connections served at a time; a host does not start more guests at once.
const CONNECTIONS: usize = 256;
const PATIENCE: Duration = Duration::from_secs(30);

/// The arguments that libvirt gave the hook (<https://libvirt.org/hooks.html>).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRequest {
    /// `qemu` or `network`.
    pub driver: String,
    pub object: String,
    pub operation: String,
    pub sub_operation: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookAnswer {
    /// Why the guest must not start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refuse: Option<String>,
}

/// What a hook was run for.
#[derive(Debug)]
pub enum HookEvent {
    /// `qemu prepare begin`: the taps are not made yet.
    Prepare(Domain),
    /// `qemu start begin`: the taps are there, the guest's CPUs do not run.
    Start(Domain),
    /// Any other operation: libvirt's state has changed, and it is not asked now. `ended`: the guest's taps may be gone.
    Changed { domain: Domain, ended: bool },
    /// `network port-created`: a NIC is about to be plugged into a libvirt network.
    PortCreated { network: String, port: NetworkPort },
}

/// A hook that waits.
#[derive(Debug)]
pub struct HookCall {
    pub event: HookEvent,
    /// `Err`: the guest must not start, and why.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// Serves until the listener is dropped by the caller's end.
pub async fn serve(listener: UnixListener, calls: mpsc::Sender<HookCall>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    if let Err(error) = tokio::time::timeout(PATIENCE, serve_one(stream, calls)).await {
                        tracing::warn!(%error, "a hook was not served");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a hook could not connect");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_one(mut stream: UnixStream, calls: mpsc::Sender<HookCall>) {
    // The socket's mode keeps others out; this holds even where somebody changed it.
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0) {
        return;
    }
    let mut bytes = Vec::new();
    let mut limited = (&mut stream).take(MAX_XML as u64 + 4096);
    if limited.read_to_end(&mut bytes).await.is_err() {
        return;
    }
    let answer = HookAnswer { refuse: answer(&bytes, calls).await.err() };
    if let Ok(mut line) = serde_json::to_vec(&answer) {
        line.push(b'\n');
        // A hook that gave up waiting has decided by itself.
        let _ = stream.write_all(&line).await;
    }
}

async fn answer(bytes: &[u8], calls: mpsc::Sender<HookCall>) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the hook's input is not UTF-8".to_owned())?;
    let (head, xml) = text.split_once('\n').ok_or("the hook's request has no XML")?;
    let request: HookRequest = serde_json::from_str(head).map_err(|error| format!("the hook's request: {error}"))?;
    let Some(event) = event_of(&request, xml)? else { return Ok(()) };
    let (reply, result) = oneshot::channel();
    let stopping = "vmfabricd is stopping; start it (systemctl start vmfabricd), then the guest";
    calls.send(HookCall { event, reply }).await.map_err(|_| stopping.to_owned())?;
    result.await.map_err(|_| stopping.to_owned())?
}

/// `Ok(None)`: nothing to do.
fn event_of(request: &HookRequest, xml: &str) -> Result<Option<HookEvent>, String> {
    let domain = || parse_domain(xml).map_err(|error| error.to_string());
    Ok(match (request.driver.as_str(), request.operation.as_str(), request.sub_operation.as_str()) {
        ("qemu", "prepare", "begin") => Some(HookEvent::Prepare(domain()?)),
        ("qemu", "start", "begin") => Some(HookEvent::Start(domain()?)),
        // Nothing else may fail, whatever the XML is.
        ("qemu", operation, _) => {
            let ended = matches!(operation, "stopped" | "release");
            domain().ok().map(|domain| HookEvent::Changed { domain, ended })
        }
        ("network", "port-created", _) => {
            let hook = parse_network_hook(xml).map_err(|error| error.to_string())?;
            hook.port.map(|port| HookEvent::PortCreated { network: hook.network_name, port })
        }
        _ => None,
    })
}
