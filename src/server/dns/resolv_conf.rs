//! The host's own resolvers, from `/etc/resolv.conf`.

use std::{
    collections::HashSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The most resolvers that are read: systemd-resolved lists those of every link, our own gateways among them.
const MAX_SERVERS: usize = 4096;

/// systemd-resolved's stub listeners (systemd-resolved.service(8)): they keep to the host's own view of each link, so
/// its real upstreams are asked instead.
const STUBS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// A resolv.conf(5), read again when it changes.
#[derive(Debug)]
pub(super) struct ResolvConf {
    path: PathBuf,
    /// What systemd-resolved writes its upstreams to.
    resolved: PathBuf,
    seen: Option<[Option<Stamp>; 2]>,
}

/// What tells one state of a file from another: it may be replaced (another inode) or written in place.
type Stamp = (SystemTime, u64, u64);

impl ResolvConf {
    pub fn new(path: PathBuf, resolved: PathBuf) -> Self {
        Self { path, resolved, seen: None }
    }

    /// Whether it is these files.
    pub fn reads(&self, path: &Path, resolved: &Path) -> bool {
        self.path == path && self.resolved == resolved
    }

    /// The resolvers, if they may have changed since the last call; `None` if not, or if the file cannot be read just
    /// now (it is being replaced, say), when what was known stays good.
    pub fn changed(&mut self) -> Option<Vec<SocketAddr>> {
        let stamps = [stamp(&self.path), stamp(&self.resolved)];
        if self.seen == Some(stamps) {
            return None;
        }
        match self.read() {
            Ok(servers) => {
                self.seen = Some(stamps);
                Some(servers)
            }
            Err(error) => {
                if self.seen.replace(stamps).is_none_or(|seen| seen != stamps) {
                    tracing::warn!(path = %self.path.display(), %error, "cannot read the host's resolvers");
                }
                None
            }
        }
    }

    fn read(&self) -> io::Result<Vec<SocketAddr>> {
        let servers = parse(&fs::read_to_string(&self.path)?);
        let stub = |server: &SocketAddr| matches!(server.ip(), IpAddr::V4(a) if STUBS.contains(&a));
        if servers.is_empty() || !servers.iter().all(stub) {
            return Ok(servers);
        }
        match fs::read_to_string(&self.resolved).map(|text| parse(&text)) {
            Ok(real) if !real.is_empty() => Ok(real),
            // The stub is better than nothing.
            _ => Ok(servers),
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.ino(), meta.len()))
}

/// The `nameserver` lines, in order, each once.
fn parse(text: &str) -> Vec<SocketAddr> {
    let (mut servers, mut seen) = (Vec::new(), HashSet::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(server) = words.next().and_then(server) else { continue };
        if servers.len() < MAX_SERVERS && seen.insert(server) {
            servers.push(server);
        }
    }
    servers
}

/// An address, with `%interface` behind it where it is link-local.
fn server(text: &str) -> Option<SocketAddr> {
    const PORT: u16 = 53;
    let Some((address, interface)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, PORT));
    };
    let scope = nix::net::if_::if_nametoindex(interface).ok().or_else(|| interface.parse().ok())?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(servers: Vec<SocketAddr>) -> Vec<String> {
        servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reads_nameserver_lines() {
        let text = "# nameserver 9.9.9.9\n;x\nsearch a b\nnameserver\t10.0.0.1  # first\nnameserver 10.0.0.1\n\
                    nameserver fd00::1\nnameserver fe80::1%lo\nnameserver nonsense\nnameserver\noptions edns0\n";
        let lo = nix::net::if_::if_nametoindex("lo").expect("loopback");
        assert_eq!(addresses(parse(text)), ["10.0.0.1:53", "[fd00::1]:53", &format!("[fe80::1%{lo}]:53")]);
        let many: String = (0..5000).map(|n| format!("nameserver 10.0.{}.{}\n", n / 250, n % 250)).collect();
        assert_eq!(parse(&many).len(), MAX_SERVERS);
    }

    #[test]
    fn looks_behind_the_stub_and_follows_changes() {
        let dir = tempfile::tempdir().expect("directory");
        let (path, resolved) = (dir.path().join("resolv.conf"), dir.path().join("resolved.conf"));
        let mut conf = ResolvConf::new(path.clone(), resolved.clone());
        assert_eq!(conf.changed(), None, "there is no file");

        fs::write(&path, "nameserver 127.0.0.53\n").expect("write");
        assert_eq!(conf.changed().map(addresses), Some(vec!["127.0.0.53:53".into()]), "nothing better is known");
        assert_eq!(conf.changed(), None);
        fs::write(&resolved, "nameserver 10.1.1.1\n").expect("write");
        assert_eq!(conf.changed().map(addresses), Some(vec!["10.1.1.1:53".into()]));

        let replacement = dir.path().join("new");
        fs::write(&replacement, "nameserver 10.2.2.2\n").expect("write");
        fs::rename(&replacement, &path).expect("rename");
        assert_eq!(conf.changed().map(addresses), Some(vec!["10.2.2.2:53".into()]));
        fs::remove_file(&path).expect("remove");
        assert_eq!(conf.changed(), None, "what was known stays good");
    }
}
