//! Domain names as they stand in messages (RFC 1035 section 3.1): length-prefixed labels and the root's empty one.

use std::{fmt, ops::Deref};

/// The longest name, bytes, with its length bytes and the root label (RFC 1035 section 2.3.4).
pub const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;

/// A whole name, uncompressed and in lower case, so that equal names have equal bytes (RFC 4343).
#[derive(Clone, Copy)]
pub struct WireName {
    len: u8,
    bytes: [u8; MAX_NAME],
}

impl WireName {
    pub const ROOT: Self = Self { len: 1, bytes: [0; MAX_NAME] };

    /// From text without escapes, with or without the final dot. `None` where it is no name.
    pub fn from_text(text: &str) -> Option<Self> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        if bare.is_empty() {
            return Some(Self::ROOT);
        }
        bare.split('.').try_fold(Builder::new(), Builder::label)?.end()
    }

    /// From the labels of a name, the leftmost first.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        labels.into_iter().try_fold(Builder::new(), Builder::label)?.end()
    }

    /// Reads the name that begins at `offset` of a message, following compression pointers (RFC 1035 section 4.1.4),
    /// and says where what comes after it begins. Each pointer must point before the one that led to it, so that
    /// reading ends.
    pub fn read(message: &[u8], offset: usize) -> Option<(Self, usize)> {
        let mut builder = Builder::new();
        let (mut at, mut before, mut after) = (offset, offset, None);
        loop {
            let len = *message.get(at)?;
            match len >> 6 {
                0 if len == 0 => return Some((builder.end()?, after.unwrap_or(at + 1))),
                0 => {
                    let end = at + 1 + usize::from(len);
                    builder = builder.label(message.get(at + 1..end)?)?;
                    at = end;
                }
                3 => {
                    let target = usize::from(len & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                    if target >= before {
                        return None;
                    }
                    after.get_or_insert(at + 2);
                    (at, before) = (target, target);
                }
                _ => return None,
            }
        }
    }

    pub fn labels(&self) -> Labels<'_> {
        labels(self)
    }

    /// Labels without the root's.
    pub fn depth(&self) -> usize {
        self.labels().count()
    }

    /// Where `apex` begins in this name, which is at or below it.
    pub fn below(&self, apex: &[u8]) -> Option<usize> {
        let start = self.len().checked_sub(apex.len())?;
        let mut at = 0;
        while at < start {
            at += 1 + usize::from(self[at]);
        }
        (at == start && self[start..] == *apex).then_some(start)
    }

    /// Where its last `depth` labels begin; the root's is not counted.
    pub fn suffix(&self, depth: usize) -> usize {
        let mut at = 0;
        for _ in depth..self.depth() {
            at += 1 + usize::from(self[at]);
        }
        at
    }

    /// The same below another name.
    pub fn prepend(label: &[u8], apex: &[u8]) -> Option<Self> {
        Self::from_labels(std::iter::once(label).chain(labels(apex)))
    }

    /// The beginnings of the name itself and of all its parents, the root last.
    pub fn suffixes(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = Some(0);
        std::iter::from_fn(move || {
            let start = at?;
            let len = usize::from(self[start]);
            at = (len > 0).then_some(start + 1 + len);
            Some(&self[start..])
        })
    }
}

impl Deref for WireName {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl PartialEq for WireName {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for WireName {}

/// With what is not printable as `\DDD` (RFC 1035 section 5.1).
impl fmt::Display for WireName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.depth() == 0 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                    b'!'..=b'~' => write!(f, "{}", char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for WireName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The labels of an uncompressed name, or of its beginning, without the root's.
pub fn labels(wire: &[u8]) -> Labels<'_> {
    Labels(wire)
}

#[derive(Debug, Clone)]
pub struct Labels<'a>(&'a [u8]);

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&len, rest) = self.0.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(len)).filter(|_| len > 0)?;
        self.0 = rest;
        Some(label)
    }
}

struct Builder {
    len: usize,
    bytes: [u8; MAX_NAME],
}

impl Builder {
    fn new() -> Self {
        Self { len: 0, bytes: [0; MAX_NAME] }
    }

    fn label(mut self, label: impl AsRef<[u8]>) -> Option<Self> {
        let label = label.as_ref();
        let len = u8::try_from(label.len()).ok().filter(|&len| len > 0 && usize::from(len) <= MAX_LABEL)?;
        // Room for the root's label is kept.
        let end = self.len + 1 + label.len();
        let slot = self.bytes.get_mut(self.len..end).filter(|_| end < MAX_NAME)?;
        slot[0] = len;
        slot[1..].copy_from_slice(label);
        slot[1..].make_ascii_lowercase();
        self.len = end;
        Some(self)
    }

    fn end(self) -> Option<WireName> {
        let len = u8::try_from(self.len + 1).ok()?;
        Some(WireName { len, bytes: self.bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WireName {
        WireName::from_text(text).expect("name")
    }

    #[test]
    fn texts_become_wire_names() {
        assert_eq!(*name("Web.Lab."), *b"\x03web\x03lab\0");
        assert_eq!(*name("."), *b"\0");
        assert_eq!(name("a.b").to_string(), "a.b.");
        assert_eq!(WireName::from_labels([&b"a.\\b\0"[..]]).expect("name").to_string(), "a\\.\\\\b\\000.");
        let long = vec!["a".repeat(49); 5].join(".");
        assert_eq!(name(&format!("{long}.abc")).len(), 255);
        for bad in ["a..b", ".a", &"a".repeat(64), &format!("{long}.abcd")] {
            assert_eq!(WireName::from_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn suffixes_end_at_labels() {
        let web = name("web.lab.internal");
        assert_eq!(web.below(&name("lab.internal")), Some(4));
        assert_eq!(web.below(&name(".")), Some(web.len() - 1));
        assert_eq!(web.below(&web), Some(0));
        assert_eq!(name("weblab.internal").below(&name("lab.internal")), None);
        // A label whose bytes look like a name.
        let sly = WireName::from_labels([&b"x\x03lab\x08internal"[..]]).expect("name");
        assert_eq!(sly.below(&name("lab.internal")), None);
        assert_eq!(web.suffix(2), 4);
        assert_eq!(web.suffixes().count(), 4);
        assert_eq!(WireName::prepend(b"WEB", &name("lab.internal")), Some(web));
    }

    #[test]
    fn reading_follows_pointers_backwards_only() {
        let message = b"\x03lab\0\x03WEB\xc0\x00!";
        assert_eq!(WireName::read(message, 5), Some((name("web.lab"), 11)));
        for bad in [&b"\xc0\x00"[..], b"\x01a\xc0\x00", b"\xc0\x02\xc0\x00", b"\x40a\0", b"\x05ab", b""] {
            assert_eq!(WireName::read(bad, 0), None, "{bad:?}");
        }
    }
}
