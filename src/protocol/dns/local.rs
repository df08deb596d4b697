//! Which questions are answered here, and who is asked the others.

use super::{
    answer::{Outcome, write_address},
    name::WireName,
    query::{Query, Rcode, rtype},
    reverse::ReverseName,
    special::{self, Special},
    writer::Writer,
    zone::{SharedZone, Zone},
};
use crate::net::{DnsForwarder, DomainName};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// CNAMEs that are followed from one question.
const MAX_ALIASES: usize = 8;

/// Who is asked about a domain, by its name; the most specific counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes(HashMap<Box<[u8]>, Arc<[SocketAddr]>>);

impl Routes {
    /// Where two speak of one domain, the resolvers are tried in their order. Those of `first` replace what `then` says
    /// of the same domain.
    pub fn new<'a>(
        first: impl IntoIterator<Item = &'a DnsForwarder>,
        then: impl IntoIterator<Item = &'a DnsForwarder>,
    ) -> Self {
        let mut routes = Self::gather(then);
        routes.extend(Self::gather(first));
        Self(routes.into_iter().map(|(domain, servers)| (domain, servers.into())).collect())
    }

    fn gather<'a>(forwarders: impl IntoIterator<Item = &'a DnsForwarder>) -> HashMap<Box<[u8]>, Vec<SocketAddr>> {
        let mut routes: HashMap<Box<[u8]>, Vec<SocketAddr>> = HashMap::new();
        for forwarder in forwarders {
            let domain = forwarder.domain.as_ref().map(DomainName::as_str).unwrap_or_default();
            let Some(domain) = WireName::from_text(domain) else { continue };
            let servers = routes.entry((*domain).into()).or_default();
            servers.extend(forwarder.server.filter(|server| !servers.contains(server)));
        }
        routes
    }

    /// The resolvers of a name, and where the domain that has them begins in it.
    fn find(&self, name: &WireName) -> Option<(usize, &Arc<[SocketAddr]>)> {
        if self.0.is_empty() {
            return None;
        }
        name.suffixes().find_map(|above| Some((name.len() - above.len(), self.0.get(above)?)))
    }
}

/// What a network may ask of whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The host's and the network's forwarders.
    pub routes: Routes,
    /// Domains of this host's other networks that must not leak to an upstream resolver: see [`hides`].
    pub hidden: Arc<HashSet<Box<[u8]>>>,
    /// Whether reverse names of private addresses that are not ours stay here (RFC 6303).
    pub local_reverse: bool,
    /// Whether an upstream's answer with a private address is refused (DNS rebinding).
    pub refuse_private: bool,
    /// How long after its end an answer may be given where the upstreams fail, seconds; 0: never (RFC 8767).
    pub stale_seconds: u32,
}

impl Policy {
    /// How long after its end an answer may be given; `None`: never.
    pub(super) fn max_stale(&self) -> Option<Duration> {
        (self.stale_seconds > 0).then(|| Duration::from_secs(self.stale_seconds.into()))
    }
}

/// Whether other networks' questions about a network's domain stay on this host. Only where nobody else can serve it
/// (`.internal` is nobody's): another network's name must not hide a public domain.
pub fn hides(domain: &DomainName) -> bool {
    domain.as_str().ends_with(".internal")
}

/// What one network's guests see.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub zone: &'a Zone,
    /// Other networks' zones that it may see.
    pub visible: &'a [SharedZone],
    pub policy: &'a Policy,
    /// Whether nobody else is asked: so the host itself is answered, whose own resolver would be asked.
    pub zones_only: bool,
}

/// What is to be done with a question.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one of them at a time, on the stack")]
pub(super) enum Local {
    /// The answer stands in the writer.
    Answered(Rcode),
    /// Somebody else is to be asked for this name: these resolvers, or the usual ones. The writer holds the CNAMEs on
    /// the way there.
    Forward { name: WireName, servers: Option<Arc<[SocketAddr]>> },
}

impl View<'_> {
    pub(super) fn answer(&self, query: &Query<'_>, writer: &mut Writer<'_>) -> Local {
        let mut name = query.name;
        for _ in 0..MAX_ALIASES {
            match self.step(&name, query.record_type, writer) {
                Outcome::Answered(code) => return Local::Answered(code),
                Outcome::Follow(target) => name = target,
                Outcome::Forward => return self.forward(name, query.record_type, writer),
            }
        }
        writer.restart(query);
        Local::Answered(Rcode::ServFail)
    }

    /// What the zones say.
    fn step(&self, name: &WireName, kind: u16, writer: &mut Writer<'_>) -> Outcome {
        let route = self.policy.routes.find(name).map(|(at, _)| at);
        let own = name.below(&self.zone.apex);
        if self.visible.is_empty() {
            if let Some(at) = own {
                // A forwarder for a part of the domain.
                return if route.is_some_and(|route| route < at) {
                    Outcome::Forward
                } else {
                    self.zone.answer_own(name, at, kind, writer)
                };
            }
        } else if let Some(outcome) = self.best_zone(name, own, route, kind, writer) {
            return outcome;
        }
        if let Some(reverse) = ReverseName::parse(name) {
            let mut zones = self.visible.iter();
            let own = self.zone.answer_reverse(name, &reverse, kind, writer);
            let found = own.or_else(|| zones.find_map(|z| z.read().answer_reverse(name, &reverse, kind, writer)));
            return found.unwrap_or(Outcome::Forward);
        }
        let bare = name.first().is_some_and(|&len| len > 0 && usize::from(len) + 2 == name.len());
        if bare && let Some(outcome) = self.zone.answer_bare(name, kind, writer) {
            return outcome;
        }
        Outcome::Forward
    }

    /// The zone with the longest name counts; its own before another network's.
    fn best_zone(
        &self,
        name: &WireName,
        own: Option<usize>,
        route: Option<usize>,
        kind: u16,
        writer: &mut Writer<'_>,
    ) -> Option<Outcome> {
        let other = self.visible.iter().filter_map(|zone| Some((name.below(&zone.read().apex)?, zone)));
        let other = other.min_by_key(|(at, _)| *at);
        let (at, zone) = match (own, other) {
            (Some(own), Some((at, zone))) if at < own => (at, Some(zone)),
            (Some(own), _) => (own, None),
            (None, Some((at, zone))) => (at, Some(zone)),
            (None, None) => return None,
        };
        if route.is_some_and(|route| route < at) {
            return Some(Outcome::Forward);
        }
        Some(match zone {
            None => self.zone.answer_own(name, at, kind, writer),
            // It may have got another name meanwhile.
            Some(zone) => match zone.read() {
                zone if name.below(&zone.apex) == Some(at) => zone.answer_own(name, at, kind, writer),
                _ => return None,
            },
        })
    }

    fn forward(&self, name: WireName, kind: u16, writer: &mut Writer<'_>) -> Local {
        if let Some((_, servers)) = self.policy.routes.find(&name) {
            return match servers.is_empty() {
                true => Local::Answered(Rcode::NxDomain),
                false => Local::Forward { name, servers: Some(Arc::clone(servers)) },
            };
        }
        match special::classify(&name) {
            Some(Special::Localhost) => {
                match kind {
                    rtype::A | rtype::ANY => write_address(&name, IpAddr::V4(Ipv4Addr::LOCALHOST), writer),
                    rtype::AAAA => write_address(&name, IpAddr::V6(Ipv6Addr::LOCALHOST), writer),
                    _ => {}
                }
                return Local::Answered(Rcode::NoError);
            }
            Some(Special::Nothing) => return Local::Answered(Rcode::NxDomain),
            Some(Special::Empty) => return Local::Answered(Rcode::NoError),
            None => {}
        }
        // A name without a dot is a typing error or leaves the site's search list, and no upstream's concern. What
        // validators ask of top-level domains does pass.
        let for_top_level = matches!(kind, rtype::DS | rtype::DNSKEY | rtype::NS | rtype::SOA);
        let bare = name.depth() == 1 && !for_top_level;
        let hidden = !self.policy.hidden.is_empty() && self.is_hidden(&name);
        if bare || hidden || self.policy.local_reverse && special::is_private_reverse(&name) {
            return Local::Answered(Rcode::NxDomain);
        }
        Local::Forward { name, servers: None }
    }

    fn is_hidden(&self, name: &WireName) -> bool {
        // Its own domain gets here only where unknown names in it are an upstream's.
        let own = name.below(&self.zone.apex).is_some();
        !own && name.ends_with(b"\x08internal\0") && name.suffixes().any(|above| self.policy.hidden.contains(above))
    }
}

/// A domain as [`Policy::hidden`] keeps it.
pub fn hidden_key(domain: &DomainName) -> Option<Box<[u8]>> {
    Some((*WireName::from_text(domain.as_str())?).into())
}
