use super::{ParseError, serde_as_text};
use std::{fmt, str::FromStr, sync::Arc};

/// One label of a host name (RFC 1123 section 2.1): letters, digits and hyphens, at most 63, lower-cased.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsLabel(Arc<str>);

impl DnsLabel {
    pub fn new(text: &str) -> Result<Self, ParseError> {
        match check_label(text) {
            Ok(()) => Ok(Self(text.to_ascii_lowercase().into())),
            Err(why) => Err(ParseError::DnsName { name: text.to_owned(), why }),
        }
    }

    /// The label that a free-form name (of a libvirt domain, say) suggests: what cannot stand in a host name becomes a
    /// hyphen. `None` where nothing is left.
    pub fn from_free_text(text: &str) -> Option<Self> {
        let mapped: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let cut = mapped.trim_matches('-');
        let cut = cut.get(..cut.len().min(63))?.trim_end_matches('-');
        Self::new(cut).ok()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A domain name of one or more host-name labels, lower-cased, without the final dot, at most 253 bytes (RFC 1035
/// section 2.3.4).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(Arc<str>);

impl DomainName {
    pub fn new(text: &str) -> Result<Self, ParseError> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        let bad = |why| ParseError::DnsName { name: text.to_owned(), why };
        if bare.len() > 253 {
            return Err(bad("it is longer than 253 bytes"));
        }
        bare.split('.').try_for_each(check_label).map_err(bad)?;
        Ok(Self(bare.to_ascii_lowercase().into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_label(label: &str) -> Result<(), &'static str> {
    if label.is_empty() {
        return Err("a label is empty");
    }
    if label.len() > 63 {
        return Err("a label is longer than 63 bytes");
    }
    if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err("only letters, digits and hyphens may stand in it");
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err("a label begins or ends with a hyphen");
    }
    Ok(())
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
        serde_as_text!($type);
    };
}
text_type!(DnsLabel);
text_type!(DomainName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_names() {
        assert_eq!(DnsLabel::new("Web-1").expect("valid").as_str(), "web-1");
        assert_eq!(DomainName::new("Lab.Example.").expect("valid").as_str(), "lab.example");
        for bad in ["", "-a", "a-", "a_b", "a.b", &"a".repeat(64)] {
            assert!(DnsLabel::new(bad).is_err(), "{bad}");
        }
        for bad in ["", ".", "a..b", &"abc.".repeat(64)] {
            assert!(DomainName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn free_text_becomes_a_label() {
        let label = |text| DnsLabel::from_free_text(text).map(|l| l.as_str().to_owned());
        assert_eq!(label("Web_server.1"), Some("web-server-1".into()));
        assert_eq!(label("__"), None);
        assert_eq!(label(&"x".repeat(80)), Some("x".repeat(63)));
    }
}
