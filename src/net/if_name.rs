use super::{ParseError, serde_as_text};
use std::{fmt, str::FromStr, sync::Arc};

/// A network interface's name as Linux takes it: 1 to 15 bytes (`IFNAMSIZ - 1`), printable ASCII, no `/`, `:`, `%`
/// or white space (`dev_valid_name`, and what iproute2 and nft can say). Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(Arc<str>);

impl IfName {
    pub const MAX: usize = 15;

    pub fn new(name: &str) -> Result<Self, ParseError> {
        let bad = |why| Err(ParseError::IfName { name: name.to_owned(), why });
        match name {
            "" => bad("it is empty"),
            "." | ".." => bad("it is a directory"),
            "all" | "default" => bad("sysctl gives that name another meaning"),
            _ if name.len() > Self::MAX => bad("it is longer than 15 bytes, Linux's limit"),
            _ if !name
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%' | b'"' | b'\\' | b'*')) =>
            {
                bad("it has a character that interface names cannot have")
            }
            _ => Ok(Self(name.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for IfName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::new(text)
    }
}

serde_as_text!(IfName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_linux_or_our_tools_refuse() {
        for good in ["eth0", "vmf-nat", "enp0s31f6.4094", "a23456789012345"] {
            assert_eq!(IfName::new(good).expect("valid").as_str(), good);
        }
        for bad in ["", ".", "..", "all", "a234567890123456", "a/b", "a b", "a:b", "a\"b", "vnet*", "é"] {
            assert!(IfName::new(bad).is_err(), "{bad}");
        }
    }
}
