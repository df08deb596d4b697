//! Rules as people write them: in one line, or field by field.
//!
//! ```text
//! DIRECTION [ipv4|ipv6] [PROTOCOL [PORT[-PORT] | TYPE[/CODE]]] [from|to REMOTE]
//! ```
//! `ingress tcp 22 from 192.0.2.0/24`, `egress any`, `ingress icmp echo-request from group web`. What fits both families
//! and names none is a rule for each.

use super::{Direction, Ethertype, Intent, IntentError, Protocol, Remote, Rule, SecurityGroup};
use crate::net::{
    IpNet,
    protocol::{self, digits},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, net::IpAddr, str::FromStr};
use uuid::Uuid;

/// Bytes of a rule's text.
const MAX_TEXT: usize = 512;

/// A rule to be; groups are named as people name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleDraft {
    pub direction: Direction,
    pub ethertype: Ethertype,
    pub protocol: Protocol,
    pub remote: RemoteDraft,
    pub description: String,
}

/// [`Remote`] with names, or ids, of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteDraft {
    Any,
    Prefix(IpNet),
    Group(String),
    AddressGroup(String),
    Host,
}

/// ICMP types by name: (type, code) with IPv4 (RFC 792) and with IPv6 (RFC 4443).
type Message = (&'static str, (u8, Option<u8>), (u8, Option<u8>));
const MESSAGES: &[Message] = &[
    ("echo-request", (8, None), (128, None)),
    ("echo-reply", (0, None), (129, None)),
    ("destination-unreachable", (3, None), (1, None)),
    ("packet-too-big", (3, Some(4)), (2, None)),
    ("time-exceeded", (11, None), (3, None)),
    ("parameter-problem", (12, None), (4, None)),
];

impl Ethertype {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A prefix, or one address; host bits must be zero.
pub fn parse_prefix(text: &str) -> Result<IpNet, IntentError> {
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let prefix = text.parse::<IpNet>().ok().or_else(alone).ok_or_else(|| {
        IntentError::Invalid(format!("'{}' is neither an address nor a prefix; write 192.0.2.0/24 say", clip(text)))
    })?;
    match prefix.trunc() {
        truncated if truncated == prefix => Ok(prefix),
        truncated => Err(IntentError::HostBitsSet { cidr: prefix, truncated }),
    }
}

/// Text for an error: no longer than a line, nothing that a terminal would obey.
fn clip(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl Rule {
    /// What it allows, so that two rules that say the same are told.
    pub fn says(&self) -> (Direction, Ethertype, Protocol, Remote) {
        let remote = match self.remote {
            Remote::Prefix(prefix) if prefix.prefix_len() == 0 => Remote::Any,
            remote => remote,
        };
        (self.direction, self.ethertype, plain(self.ethertype, self.protocol), remote)
    }

    /// The rule of a group in one line, as [`RuleDraft::parse`] reads it: groups by their names, its own by the one that
    /// it gets.
    pub fn text(&self, intent: &Intent, group: &SecurityGroup) -> String {
        let mut draft = RuleDraft::of(self);
        match &mut draft.remote {
            RemoteDraft::Group(name) if self.remote == Remote::Group(group.id) => group.name.as_str().clone_into(name),
            RemoteDraft::Group(name) => {
                if let Ok(known) = intent.find_security_group(name) {
                    known.name.as_str().clone_into(name);
                }
            }
            RemoteDraft::AddressGroup(name) => {
                if let Ok(known) = intent.find_address_group(name) {
                    known.name.as_str().clone_into(name);
                }
            }
            RemoteDraft::Any | RemoteDraft::Prefix(_) | RemoteDraft::Host => {}
        }
        draft.to_string()
    }
}

/// One form of those that mean the same.
fn plain(ethertype: Ethertype, protocol: Protocol) -> Protocol {
    match (ethertype, protocol) {
        (_, Protocol::Ports { protocol, first: 0, last: u16::MAX }) => Protocol::Number { protocol },
        (Ethertype::Ipv4, Protocol::Number { protocol: protocol::ICMP })
        | (Ethertype::Ipv6, Protocol::Number { protocol: protocol::ICMPV6 }) => {
            Protocol::Icmp { kind: None, code: None }
        }
        (_, protocol) => protocol,
    }
}

impl RuleDraft {
    pub fn of(rule: &Rule) -> Self {
        Self {
            direction: rule.direction,
            ethertype: rule.ethertype,
            protocol: rule.protocol,
            remote: match rule.remote {
                Remote::Any => RemoteDraft::Any,
                Remote::Prefix(prefix) => RemoteDraft::Prefix(prefix),
                Remote::Group(id) => RemoteDraft::Group(id.to_string()),
                Remote::AddressGroup(id) => RemoteDraft::AddressGroup(id.to_string()),
                Remote::Host => RemoteDraft::Host,
            },
            description: rule.description.clone(),
        }
    }

    /// All traffic in one direction, both families.
    pub fn all(direction: Direction, remote: &RemoteDraft) -> [Self; 2] {
        [Ethertype::Ipv4, Ethertype::Ipv6].map(|ethertype| Self {
            direction,
            ethertype,
            protocol: Protocol::Any,
            remote: remote.clone(),
            description: String::new(),
        })
    }

    /// The rule in a group: its identity follows from what it says (RFC 9562 v5), as no two of a group say the same.
    /// The group that it is for may be named though it is not made yet.
    pub fn complete(self, intent: &Intent, group: &SecurityGroup) -> Result<Rule, IntentError> {
        let remote = match &self.remote {
            RemoteDraft::Any => Remote::Any,
            RemoteDraft::Prefix(prefix) if prefix.prefix_len() == 0 => Remote::Any,
            RemoteDraft::Prefix(prefix) => Remote::Prefix(*prefix),
            RemoteDraft::Group(name) if *name == group.name.as_str() || *name == group.id.to_string() => {
                Remote::Group(group.id)
            }
            RemoteDraft::Group(name) => Remote::Group(intent.find_security_group(name)?.id),
            RemoteDraft::AddressGroup(name) => Remote::AddressGroup(intent.find_address_group(name)?.id),
            RemoteDraft::Host => Remote::Host,
        };
        let protocol = plain(self.ethertype, self.protocol);
        let (direction, ethertype, description) = (self.direction, self.ethertype, self.description);
        let mut rule = Rule { id: Uuid::nil(), direction, ethertype, protocol, remote, description };
        let said = RuleDraft::of(&rule).to_string();
        rule.id = Uuid::new_v5(&group.id.0, said.as_bytes());
        Ok(rule)
    }

    /// Reads one line: one rule, or one for each family.
    pub fn parse(text: &str) -> Result<Vec<Self>, IntentError> {
        if text.len() > MAX_TEXT {
            return Err(IntentError::Invalid(format!("a rule of {} bytes is too long", text.len())));
        }
        let parsed = RuleFields::from_text(text).and_then(RuleFields::expand);
        parsed.map_err(|error| match error {
            IntentError::Invalid(why) => IntentError::Invalid(format!("rule '{}': {why}", clip(text.trim()))),
            other => other,
        })
    }
}

impl fmt::Display for RuleDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.direction.as_str(), self.ethertype.as_str())?;
        let icmp = match self.ethertype {
            Ethertype::Ipv4 => "icmp",
            Ethertype::Ipv6 => "icmpv6",
        };
        match self.protocol {
            Protocol::Any => f.write_str("any")?,
            Protocol::Ports { protocol, first, last } if first == last => {
                write!(f, "{} {first}", protocol::name(protocol))?;
            }
            Protocol::Ports { protocol, first, last } => write!(f, "{} {first}-{last}", protocol::name(protocol))?,
            Protocol::Icmp { kind: Some(kind), code: Some(code) } => write!(f, "{icmp} {kind}/{code}")?,
            Protocol::Icmp { kind: Some(kind), code: None } => write!(f, "{icmp} {kind}")?,
            Protocol::Icmp { kind: None, .. } => f.write_str(icmp)?,
            Protocol::Number { protocol } => f.write_str(&protocol::name(protocol))?,
        }
        let preposition = match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        match &self.remote {
            RemoteDraft::Any => Ok(()),
            RemoteDraft::Prefix(prefix) => write!(f, " {preposition} {prefix}"),
            RemoteDraft::Group(name) => write!(f, " {preposition} group {name}"),
            RemoteDraft::AddressGroup(name) => write!(f, " {preposition} address-group {name}"),
            RemoteDraft::Host => write!(f, " {preposition} host"),
        }
    }
}

/// A protocol by its name or number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProtocolField(u8);

impl Serialize for ProtocolField {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&protocol::name(self.0))
    }
}

/// A rule field by field, named as Neutron names them where it has them; the form on D-Bus and in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFields {
    /// The rest in one line.
    #[serde(default, skip_serializing)]
    rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    direction: Option<Direction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ethertype: Option<Ethertype>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<ProtocolField>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port_range_min: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port_range_max: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    icmp_type: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    icmp_code: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remote_ip_prefix: Option<PrefixText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remote_group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remote_address_group: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    remote_host: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    description: String,
    /// An ICMP type that both families have, under two numbers.
    #[serde(skip)]
    message: Option<usize>,
}

/// A prefix or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PrefixText(pub IpNet);

impl fmt::Display for PrefixText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PrefixText {
    type Err = IntentError;

    fn from_str(text: &str) -> Result<Self, IntentError> {
        parse_prefix(text).map(Self)
    }
}

crate::net::serde_as_text!(PrefixText);

impl<'de> Deserialize<'de> for ProtocolField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ProtocolField;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a protocol's name or number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ProtocolField, E> {
                protocol_of(text).map(ProtocolField).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ProtocolField, E> {
                u8::try_from(number)
                    .map(ProtocolField)
                    .map_err(|_| E::custom(format!("{number} is no protocol; 0 to 255")))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ProtocolField, E> {
                u8::try_from(number)
                    .map(ProtocolField)
                    .map_err(|_| E::custom(format!("{number} is no protocol; 0 to 255")))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn protocol_of(text: &str) -> Result<u8, IntentError> {
    protocol::number(text).ok_or_else(|| {
        IntentError::Invalid(format!(
            "'{}' is no protocol; use any, a number from 1 to 255, or one of {}",
            clip(text),
            protocol::names()
        ))
    })
}

impl RuleFields {
    fn of(draft: &RuleDraft) -> Self {
        let icmp = match draft.ethertype {
            Ethertype::Ipv4 => protocol::ICMP,
            Ethertype::Ipv6 => protocol::ICMPV6,
        };
        let mut fields = Self {
            direction: Some(draft.direction),
            ethertype: Some(draft.ethertype),
            description: draft.description.clone(),
            ..Self::default()
        };
        match draft.protocol {
            Protocol::Any => {}
            Protocol::Ports { protocol, first, last } => {
                fields.protocol = Some(ProtocolField(protocol));
                (fields.port_range_min, fields.port_range_max) = (Some(first), Some(last));
            }
            Protocol::Icmp { kind, code } => {
                fields.protocol = Some(ProtocolField(icmp));
                (fields.icmp_type, fields.icmp_code) = (kind, code);
            }
            Protocol::Number { protocol } => fields.protocol = Some(ProtocolField(protocol)),
        }
        match &draft.remote {
            RemoteDraft::Any => {}
            RemoteDraft::Prefix(prefix) => fields.remote_ip_prefix = Some(PrefixText(*prefix)),
            RemoteDraft::Group(name) => fields.remote_group = Some(name.clone()),
            RemoteDraft::AddressGroup(name) => fields.remote_address_group = Some(name.clone()),
            RemoteDraft::Host => fields.remote_host = true,
        }
        fields
    }

    fn from_text(text: &str) -> Result<Self, IntentError> {
        let bad = |why: String| Err(IntentError::Invalid(why));
        let mut words = text.split_whitespace().peekable();
        let mut fields = Self::default();
        let direction = match words.next() {
            Some("ingress" | "in") => Direction::Ingress,
            Some("egress" | "out") => Direction::Egress,
            other => {
                let found = other.map_or_else(String::new, |word| format!(", not with '{}'", clip(word)));
                return bad(format!("it begins with ingress or egress{found}: 'ingress tcp 22 from 192.0.2.0/24' say"));
            }
        };
        fields.direction = Some(direction);
        fields.ethertype = match words.peek() {
            Some(&"ipv4") => Some(Ethertype::Ipv4),
            Some(&"ipv6") => Some(Ethertype::Ipv6),
            _ => None,
        };
        if fields.ethertype.is_some() {
            words.next();
        }
        let is_preposition = |word: &&str| matches!(*word, "from" | "to");
        if let Some(word) = words.next_if(|word| !is_preposition(word))
            && word != "any"
        {
            let number = protocol_of(word)?;
            fields.protocol = Some(ProtocolField(number));
            if let Some(detail) = words.next_if(|word| !is_preposition(word)) {
                fields.detail(number, detail)?;
            }
        }
        let (right, wrong) = match direction {
            Direction::Ingress => ("from", "to"),
            Direction::Egress => ("to", "from"),
        };
        match words.next() {
            None => {}
            Some(word) if word == right => match (words.next(), words.next()) {
                (Some("any"), None) => {}
                (Some("host"), None) => fields.remote_host = true,
                (Some("group"), Some(name)) => fields.remote_group = Some(name.to_owned()),
                (Some("address-group"), Some(name)) => fields.remote_address_group = Some(name.to_owned()),
                (Some(prefix), None) => fields.remote_ip_prefix = Some(prefix.parse()?),
                _ => {
                    return bad(format!("after '{right}' comes a prefix, any, host, group NAME or address-group NAME"));
                }
            },
            Some(word) if word == wrong => return bad(format!("{} goes with '{right}'", direction.as_str())),
            Some(word) => return bad(format!("'{}' is not understood here; '{right} …' may follow", clip(word))),
        }
        match words.next() {
            Some(word) => bad(format!("'{}' is too much", clip(word))),
            None => Ok(fields),
        }
    }

    /// Ports, or an ICMP type.
    fn detail(&mut self, number: u8, text: &str) -> Result<(), IntentError> {
        let bad = |why: String| Err(IntentError::Invalid(why));
        if number == protocol::ICMP || number == protocol::ICMPV6 {
            if let Some(message) = MESSAGES.iter().position(|(name, ..)| *name == text) {
                self.message = Some(message);
                return Ok(());
            }
            let (kind, code) = text.split_once('/').map_or((text, None), |(kind, code)| (kind, Some(code)));
            self.icmp_type = digits(kind);
            self.icmp_code = code.and_then(digits);
            if self.icmp_type.is_none() || self.icmp_code.is_some() != code.is_some() {
                let names: Vec<_> = MESSAGES.iter().map(|(name, ..)| *name).collect();
                return bad(format!("'{}' is no ICMP type; write TYPE, TYPE/CODE or {}", clip(text), names.join(", ")));
            }
            return Ok(());
        }
        if !protocol::has_ports(number) {
            return bad(format!("{} has no ports, so '{}' is too much", protocol::name(number), clip(text)));
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (digits(first), digits(last)) {
            (Some(first), Some(last)) => {
                (self.port_range_min, self.port_range_max) = (Some(first), Some(last));
                Ok(())
            }
            _ => bad(format!("'{}' is no port; write 22 or 8000-8080, at most 65535", clip(text))),
        }
    }

    /// The rules that it means: one for each family that fits.
    fn expand(self) -> Result<Vec<RuleDraft>, IntentError> {
        let bad = |why: &str| Err(IntentError::Invalid(why.to_owned()));
        let Some(direction) = self.direction else { return bad("direction is missing; ingress or egress") };
        let remote = self.remote()?;
        let families: Vec<Ethertype> = [Ethertype::Ipv4, Ethertype::Ipv6]
            .into_iter()
            .filter(|family| self.ethertype.is_none_or(|wanted| wanted == *family))
            .filter(|family| match (&remote, family) {
                (RemoteDraft::Prefix(prefix), Ethertype::Ipv4) => prefix.addr().is_ipv4(),
                (RemoteDraft::Prefix(prefix), Ethertype::Ipv6) => prefix.addr().is_ipv6(),
                _ => true,
            })
            .collect();
        if families.is_empty() {
            return bad("its prefix is of the other family; leave ipv4 and ipv6 out, or change the prefix");
        }
        let mut rules = Vec::new();
        for ethertype in families {
            if let Some(protocol) = self.protocol(ethertype)? {
                let (remote, description) = (remote.clone(), self.description.clone());
                rules.push(RuleDraft { direction, ethertype, protocol, remote, description });
            }
        }
        if rules.is_empty() {
            return bad(
                "ICMP's types are numbered otherwise with IPv6, and ICMPv6 goes with ipv6 alone; write icmp for ipv4 \
                 and icmpv6 for ipv6",
            );
        }
        Ok(rules)
    }

    fn remote(&self) -> Result<RemoteDraft, IntentError> {
        let mut remotes = Vec::new();
        remotes.extend(self.remote_ip_prefix.map(|prefix| RemoteDraft::Prefix(prefix.0)));
        remotes.extend(self.remote_group.clone().map(RemoteDraft::Group));
        remotes.extend(self.remote_address_group.clone().map(RemoteDraft::AddressGroup));
        remotes.extend(self.remote_host.then_some(RemoteDraft::Host));
        match remotes.len() {
            0 => Ok(RemoteDraft::Any),
            1 => Ok(remotes.remove(0)),
            _ => Err(IntentError::Invalid(
                "give one of remote_ip_prefix, remote_group, remote_address_group and remote_host".into(),
            )),
        }
    }

    /// What it means in a family; `None` where it means nothing there.
    fn protocol(&self, ethertype: Ethertype) -> Result<Option<Protocol>, IntentError> {
        let bad = |why: &str| Err(IntentError::Invalid(why.to_owned()));
        let ports = (self.port_range_min, self.port_range_max);
        let Some(ProtocolField(number)) = self.protocol else {
            return match (ports, self.icmp_type, self.icmp_code) {
                ((None, None), None, None) => Ok(Some(Protocol::Any)),
                _ => bad("ports and ICMP types need a protocol"),
            };
        };
        if number == protocol::ICMP || number == protocol::ICMPV6 {
            if ports != (None, None) {
                return bad("ICMP has no ports; use icmp_type and icmp_code");
            }
            return Ok(self.icmp(number, ethertype));
        }
        if self.icmp_type.is_some() || self.icmp_code.is_some() {
            return bad("icmp_type and icmp_code go with icmp and icmpv6");
        }
        match ports {
            (None, None) => Ok(Some(plain(ethertype, Protocol::Number { protocol: number }))),
            (Some(first), last) => {
                let last = last.unwrap_or(first);
                Ok(Some(plain(ethertype, Protocol::Ports { protocol: number, first, last })))
            }
            (None, Some(_)) => bad("port_range_max needs port_range_min"),
        }
    }

    fn icmp(&self, number: u8, ethertype: Ethertype) -> Option<Protocol> {
        // ICMP is ICMPv6 with IPv6, as in Neutron; the number of a type says which of the two is meant.
        let fits = match (number, ethertype) {
            (protocol::ICMPV6, family) => family == Ethertype::Ipv6,
            (_, Ethertype::Ipv4) => true,
            (_, Ethertype::Ipv6) => self.icmp_type.is_none() || self.ethertype.is_some(),
        };
        let named = self.message.and_then(|at| MESSAGES.get(at)).map(|(_, v4, v6)| match ethertype {
            Ethertype::Ipv4 => *v4,
            Ethertype::Ipv6 => *v6,
        });
        let (kind, code) = named.map_or((self.icmp_type, self.icmp_code), |(kind, code)| (Some(kind), code));
        fits.then_some(Protocol::Icmp { kind, code })
    }
}

impl Serialize for RuleDraft {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RuleFields::of(self).serialize(serializer)
    }
}

/// What one text, or one set of fields, means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleDrafts(pub Vec<RuleDraft>);

impl<'de> Deserialize<'de> for RuleDrafts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = RuleDrafts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rule in one line, or its fields")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RuleDrafts, E> {
                RuleDraft::parse(text).map(RuleDrafts).map_err(E::custom)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<RuleDrafts, A::Error> {
                let fields = RuleFields::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let Some(text) = &fields.rule else {
                    return fields.expand().map(RuleDrafts).map_err(de::Error::custom);
                };
                let alone = RuleFields {
                    rule: Some(text.clone()),
                    description: fields.description.clone(),
                    ..RuleFields::default()
                };
                if alone != fields {
                    return Err(de::Error::custom("'rule' says all but the description; leave the other keys out"));
                }
                let mut rules = RuleDraft::parse(text).map_err(de::Error::custom)?;
                rules.iter_mut().for_each(|rule| rule.description.clone_from(&fields.description));
                Ok(RuleDrafts(rules))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
#[path = "rule_tests.rs"]
pub(super) mod tests;
