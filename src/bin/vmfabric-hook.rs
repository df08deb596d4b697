//! What libvirt's hooks run: asks vmfabricd to bring a guest's NICs up and waits for it, so that the guest's first
//! instruction finds them up. See <https://libvirt.org/hooks.html>.
//!
//! Only an operation that comes before the guest runs may fail: a failure at `reconnect`, say, would kill a guest that
//! runs. Everything else prints nothing and succeeds, whatever happens.

use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    io::{self, Read, Write},
    process::ExitCode,
    time::{Duration, Instant},
};
use vmfabric::{
    intent::NicSource,
    libvirt::domain_xml::{self, MAX_XML, parse_domain, parse_network_hook},
    reconciler::{HookIndex, source_of},
    server::hook::{HookAnswer, HookRequest, SOCKET},
};

/// How long the start of a guest of ours waits for the daemon.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long the start of any other guest waits, and the end of a guest for a place in the daemon's queue.
const BRIEF: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).map(Some).chain(std::iter::repeat(None)).map(Option::unwrap_or_default);
    let mut next = || args.next().unwrap_or_default();
    let request = HookRequest { driver: next(), object: next(), operation: next(), sub_operation: next() };
    let may_fail = matches!(
        (request.driver.as_str(), request.operation.as_str(), request.sub_operation.as_str()),
        ("qemu", "prepare" | "start", "begin") | ("network", "port-created", _)
    );
    let mut xml = Vec::new();
    let read = io::stdin().take(MAX_XML as u64 + 1).read_to_end(&mut xml);
    if !may_fail {
        // Told, not asked.
        let _ = send(&request, &xml, BRIEF);
        return ExitCode::SUCCESS;
    }
    let claimed = claimed(&request, &xml);
    let patience = if claimed.is_some() { DEADLINE } else { BRIEF };
    let outcome = match read {
        Ok(_) => ask(&request, &xml, patience),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(HookAnswer { refuse: None }) => ExitCode::SUCCESS,
        Ok(HookAnswer { refuse: Some(reason) }) => fail(&reason),
        Err(error) => match claimed {
            None => ExitCode::SUCCESS,
            Some(what) => fail(&format!(
                "{what} is on a network of vmfabric, and vmfabricd does not answer ({error}), so that it would not be \
                 connected; start it with 'systemctl start vmfabricd', see 'journalctl -u vmfabricd'"
            )),
        },
    }
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("vmfabric: {reason}");
    ExitCode::FAILURE
}

fn send(request: &HookRequest, xml: &[u8], patience: Duration) -> io::Result<Socket> {
    let mut socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // On a Unix socket this bounds the wait for a place in the queue, too (unix(7), SO_SNDTIMEO).
    socket.set_write_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(SOCKET)?)?;
    let mut message = serde_json::to_vec(request)?;
    message.push(b'\n');
    message.extend_from_slice(xml);
    socket.write_all(&message)?;
    socket.shutdown(std::net::Shutdown::Write)?;
    Ok(socket)
}

fn ask(request: &HookRequest, xml: &[u8], patience: Duration) -> io::Result<HookAnswer> {
    let deadline = Instant::now() + patience;
    let mut socket = send(request, xml, patience)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let mut chunk = [0; 4096];
        match socket.read(&mut chunk) {
            Ok(0) => return Err(io::Error::other("it closed the connection")),
            Ok(n) => answer.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer within {} s", patience.as_secs()),
                ));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// What of this guest is ours, as far as the index on disk tells. `None`: nothing.
fn claimed(request: &HookRequest, xml: &[u8]) -> Option<String> {
    let index: Option<HookIndex> = match std::fs::read(HookIndex::PATH) {
        Ok(index) => serde_json::from_slice(&index).ok(),
        // There never was a daemon.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(_) => None,
    };
    let claims = |domain, mac, source: &NicSource, wish| match &index {
        Some(index) => index.claims(domain, mac, source, wish),
        None => HookIndex::may_claim(source, wish),
    };
    let xml = std::str::from_utf8(xml).ok()?;
    if request.driver == "network" {
        let hook = parse_network_hook(xml).ok()?;
        let port = hook.port?;
        let source = NicSource::Network { name: hook.network_name, bridge: port.bridge };
        let ours = claims(port.owner_uuid, port.mac, &source, false);
        return ours.then(|| format!("NIC {} of guest '{}'", port.mac, port.owner_name));
    }
    let domain = match parse_domain(xml) {
        Ok(domain) => domain,
        // What speaks of us and cannot be understood is not let through.
        Err(error) => return xml.contains(domain_xml::METADATA_NS).then(|| format!("a guest ({error})")),
    };
    let ours = |nic: &&domain_xml::Nic| claims(domain.uuid, nic.mac, &source_of(&nic.source), nic.wish.is_some());
    let nic = domain.nics.iter().find(ours)?;
    Some(format!("NIC {} of guest '{}'", nic.mac, domain.name))
}
