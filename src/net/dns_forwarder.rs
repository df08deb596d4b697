use super::{DomainName, ParseError, serde_as_text};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// Who is asked for the names of a domain, itself included: `DOMAIN=ADDRESS`, `DOMAIN=ADDRESS:PORT`, `DOMAIN=` for
/// nobody (its names do not exist), or without `DOMAIN=` for all names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsForwarder {
    pub domain: Option<DomainName>,
    /// `None`: nobody, only with a domain.
    pub server: Option<SocketAddr>,
}

impl DnsForwarder {
    /// An address, with a port where it is not 53.
    pub fn server(text: &str) -> Option<SocketAddr> {
        let with_port = text.parse::<SocketAddr>().ok();
        let server = with_port.or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)));
        server.filter(|server| server.port() != 0 && !server.ip().is_unspecified() && !server.ip().is_multicast())
    }
}

impl FromStr for DnsForwarder {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (domain, server) = match text.split_once('=') {
            Some((domain, server)) => (Some(DomainName::new(domain)?), server),
            None => (None, text),
        };
        let server = match (server, &domain) {
            ("", Some(_)) => None,
            _ => Some(Self::server(server).ok_or_else(|| ParseError::DnsForwarder(text.to_owned()))?),
        };
        Ok(Self { domain, server })
    }
}

impl fmt::Display for DnsForwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(domain) = &self.domain {
            write!(f, "{domain}=")?;
        }
        match self.server {
            Some(server) if server.port() == 53 => server.ip().fmt(f),
            Some(server) => server.fmt(f),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for DnsForwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

serde_as_text!(DnsForwarder);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_they_are_written() {
        for (text, written) in [
            ("Corp.Example=10.0.0.53", "corp.example=10.0.0.53"),
            ("corp.example=[fd00::53]:5353", "corp.example=[fd00::53]:5353"),
            ("10.0.0.53:53", "10.0.0.53"),
            ("fd00::53", "fd00::53"),
            ("nowhere.example=", "nowhere.example="),
        ] {
            let forwarder: DnsForwarder = text.parse().expect(text);
            assert_eq!(forwarder.to_string(), written);
            assert_eq!(written.parse::<DnsForwarder>().expect("written"), forwarder);
        }
        for bad in ["", "=10.0.0.1", "corp=dns.corp", "0.0.0.0", "10.0.0.53:0", "a..b=10.0.0.1"] {
            assert!(bad.parse::<DnsForwarder>().is_err(), "{bad}");
        }
    }
}
