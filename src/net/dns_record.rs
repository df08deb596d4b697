use super::{DnsLabel, DomainName, ParseError, serde_as_text};
use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

/// The longest time that a record may be kept, seconds: a week.
const MAX_TTL: u32 = 7 * 86_400;
/// A character-string's length fits a byte (RFC 1035 section 3.3).
const MAX_STRING: usize = 255;
/// The most text that one TXT record carries, bytes.
const MAX_TEXT: usize = 2048;

/// A record that a person gives a name in a network's domain. As text it is a line of a zone file (RFC 1035 section
/// 5.1) without the class: `NAME [TTL] TYPE DATA`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsRecord {
    pub name: RecordName,
    /// Seconds that an answer may be kept. `None`: the server's default.
    pub ttl: Option<u32>,
    pub data: RecordData,
}

/// A name below a network's domain: `www`, `_sip._tcp`, `*.dev`, or `@` for the domain itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordName(Arc<str>);

/// Where a record leads: one label is a name in the network's domain, more of them are a whole name; `@` is the domain.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordTarget(Arc<str>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordData {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(RecordTarget),
    Mx {
        preference: u16,
        exchange: RecordTarget,
    },
    /// RFC 2782.
    Srv {
        priority: u16,
        weight: u16,
        port: u16,
        target: RecordTarget,
    },
    /// Strings of at most 255 bytes.
    Txt(Vec<Arc<str>>),
}

impl RecordName {
    pub const DOMAIN: &str = "@";

    pub fn new(text: &str) -> Result<Self, ParseError> {
        let bad = |why| ParseError::DnsName { name: text.to_owned(), why };
        if text.len() > 200 {
            return Err(bad("it is longer than 200 bytes"));
        }
        let below = text.strip_prefix("*.").unwrap_or(if matches!(text, "*" | Self::DOMAIN) { "" } else { text });
        if !below.is_empty() || text.ends_with('.') {
            below.split('.').try_for_each(check_label).map_err(bad)?;
        }
        if text.is_empty() { Err(bad("it is empty")) } else { Ok(Self(text.to_ascii_lowercase().into())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its labels, the leftmost first; none for the domain itself.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.split('.').filter(|label| *label != Self::DOMAIN)
    }

    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }
}

impl RecordTarget {
    pub fn new(text: &str) -> Result<Self, ParseError> {
        let bad = |why| ParseError::DnsName { name: text.to_owned(), why };
        let bare = text.strip_suffix('.').unwrap_or(text);
        if bare.len() > 253 {
            return Err(bad("it is longer than 253 bytes"));
        }
        if text != RecordName::DOMAIN {
            bare.split('.').try_for_each(check_label).map_err(bad)?;
        }
        Ok(Self(bare.to_ascii_lowercase().into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole name that is meant in a network with that domain.
    pub fn within(&self, domain: &DomainName) -> String {
        match &*self.0 {
            RecordName::DOMAIN => domain.to_string(),
            name if name.contains('.') => name.to_owned(),
            label => format!("{label}.{domain}"),
        }
    }
}

/// Letters, digits, hyphens and underscores: services' names begin with one (RFC 8552).
fn check_label(label: &str) -> Result<(), &'static str> {
    DnsLabel::new(&label.replace('_', "x")).map(drop).map_err(|error| match error {
        ParseError::DnsName { why, .. } => why,
        _ => "it is no label",
    })
}

impl RecordData {
    pub const TYPES: &str = "A, AAAA, CNAME, MX, SRV or TXT";

    pub fn type_name(&self) -> &'static str {
        match self {
            Self::A(_) => "A",
            Self::Aaaa(_) => "AAAA",
            Self::Cname(_) => "CNAME",
            Self::Mx { .. } => "MX",
            Self::Srv { .. } => "SRV",
            Self::Txt(_) => "TXT",
        }
    }

    /// `words`: what stands behind the type, quotes taken away.
    pub fn parse(type_name: &str, words: &[String]) -> Result<Self, ParseError> {
        let bad =
            |why: &str| ParseError::DnsRecord { text: format!("{type_name} {}", words.join(" ")), why: why.into() };
        let number = |text: &str| text.parse::<u16>().map_err(|_| bad(&format!("'{text}' is no number up to 65535")));
        let upper = type_name.to_ascii_uppercase();
        match (upper.as_str(), words) {
            ("A", [address]) => Ok(Self::A(address.parse().map_err(|_| bad("it takes an IPv4 address"))?)),
            ("AAAA", [address]) => Ok(Self::Aaaa(address.parse().map_err(|_| bad("it takes an IPv6 address"))?)),
            ("CNAME", [target]) => Ok(Self::Cname(RecordTarget::new(target)?)),
            ("MX", [preference, exchange]) => {
                Ok(Self::Mx { preference: number(preference)?, exchange: RecordTarget::new(exchange)? })
            }
            ("SRV", [priority, weight, port, target]) => Ok(Self::Srv {
                priority: number(priority)?,
                weight: number(weight)?,
                port: number(port)?,
                target: RecordTarget::new(target)?,
            }),
            ("TXT", [_, ..]) => {
                if words.iter().any(|text| text.len() > MAX_STRING) {
                    return Err(bad("a string is longer than 255 bytes; split it into several"));
                }
                if words.iter().map(|text| text.len() + 1).sum::<usize>() > MAX_TEXT {
                    return Err(bad("it is longer than 2048 bytes"));
                }
                if words.iter().any(|text| text.contains(char::is_control)) {
                    return Err(bad("it holds control characters"));
                }
                Ok(Self::Txt(words.iter().map(|text| text.as_str().into()).collect()))
            }
            ("A" | "AAAA", _) => Err(bad("it takes one address")),
            ("CNAME", _) => Err(bad("it takes one name")),
            ("MX", _) => Err(bad("it takes PREFERENCE and NAME")),
            ("SRV", _) => Err(bad("it takes PRIORITY WEIGHT PORT NAME")),
            ("TXT", _) => Err(bad("it takes one string or more")),
            _ => Err(bad(&format!("'{type_name}' is not a type of record; use {}", Self::TYPES))),
        }
    }
}

impl fmt::Display for RecordData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(address) => address.fmt(f),
            Self::Aaaa(address) => address.fmt(f),
            Self::Cname(target) => target.fmt(f),
            Self::Mx { preference, exchange } => write!(f, "{preference} {exchange}"),
            Self::Srv { priority, weight, port, target } => write!(f, "{priority} {weight} {port} {target}"),
            Self::Txt(strings) => {
                for (i, text) in strings.iter().enumerate() {
                    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
                    write!(f, "{}\"{escaped}\"", if i > 0 { " " } else { "" })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for DnsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        if let Some(ttl) = self.ttl {
            write!(f, "{ttl} ")?;
        }
        write!(f, "{} {}", self.data.type_name(), self.data)
    }
}

impl fmt::Debug for DnsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for RecordData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {self}", self.type_name())
    }
}

impl FromStr for DnsRecord {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = |why: &str| ParseError::DnsRecord { text: text.to_owned(), why: why.to_owned() };
        let words = words(text).map_err(bad)?;
        let [name, rest @ ..] = words.as_slice() else { return Err(bad("write NAME [TTL] TYPE DATA")) };
        let (ttl, rest) = match rest {
            [ttl, rest @ ..] if ttl.bytes().all(|b| b.is_ascii_digit()) && !ttl.is_empty() => {
                let ttl = ttl.parse().ok().filter(|ttl| *ttl <= MAX_TTL);
                (Some(ttl.ok_or_else(|| bad("a time to live is at most 604800 seconds"))?), rest)
            }
            rest => (None, rest),
        };
        let [type_name, data @ ..] = rest else { return Err(bad("write NAME [TTL] TYPE DATA")) };
        let data = RecordData::parse(type_name, data)?;
        Ok(Self { name: RecordName::new(name)?, ttl, data })
    }
}

/// Words, or texts in double quotes, in which a backslash takes away a quote's or backslash's meaning.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&next) = chars.peek() {
        if next.is_whitespace() {
            chars.next();
            continue;
        }
        let quoted = next == '"';
        if quoted {
            chars.next();
        }
        let mut word = String::new();
        loop {
            match chars.next() {
                Some('"') if quoted => break,
                Some('\\') => word.push(chars.next().ok_or("a backslash ends it")?),
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => word.push(c),
                None if quoted => return Err("a quote is not closed"),
                None => break,
            }
        }
        words.push(word);
    }
    Ok(words)
}

macro_rules! text_type {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl FromStr for $type {
            type Err = ParseError;
            fn from_str(text: &str) -> Result<Self, ParseError> {
                Self::new(text)
            }
        }
    };
}
text_type!(RecordName);
text_type!(RecordTarget);
serde_as_text!(DnsRecord);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        for (line, written) in [
            ("WWW A 192.0.2.1", "www A 192.0.2.1"),
            ("@ 60 mx 10 mail", "@ 60 MX 10 mail"),
            ("*.dev AAAA fd00::1", "*.dev AAAA fd00::1"),
            ("_sip._tcp srv 0 5 5060 sip.example.com.", "_sip._tcp SRV 0 5 5060 sip.example.com"),
            ("* CNAME @", "* CNAME @"),
            ("t TXT \"a \\\"b\\\" \\\\\" c", "t TXT \"a \\\"b\\\" \\\\\" \"c\""),
        ] {
            let record: DnsRecord = line.parse().expect(line);
            assert_eq!(record.to_string(), written);
            assert_eq!(written.parse::<DnsRecord>().expect("written"), record);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, why) in [
            ("www", "write NAME [TTL] TYPE DATA"),
            ("www A 192.0.2.300", "IPv4 address"),
            ("www SOA a", "use A, AAAA, CNAME"),
            ("www MX mail", "PREFERENCE and NAME"),
            ("www 999999999 A 192.0.2.1", "at most 604800"),
            ("a..b A 192.0.2.1", "a label is empty"),
            ("a.*.b A 192.0.2.1", "only letters"),
            ("www. A 192.0.2.1", "a label is empty"),
            ("t TXT \"open", "not closed"),
            (&format!("t TXT {}", "x".repeat(256)), "255 bytes"),
            (&format!("t TXT{}", " abcdefg".repeat(300)), "2048 bytes"),
        ] {
            let error = line.parse::<DnsRecord>().expect_err(line).to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn targets_without_a_dot_are_in_the_domain() {
        let domain = DomainName::new("lab.internal").expect("domain");
        let within = |text: &str| RecordTarget::new(text).expect("target").within(&domain);
        assert_eq!(within("web"), "web.lab.internal");
        assert_eq!(within("@"), "lab.internal");
        assert_eq!(within("www.example.com."), "www.example.com");
    }
}
