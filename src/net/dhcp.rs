//! DHCPv4 options and boot files as people write them.

use super::{DomainName, Ipv4Net, ParseError, serde_as_text};
use std::{fmt, net::Ipv4Addr, str::FromStr, sync::Arc};

/// An option with its value: `ntp-servers=10.0.0.1,10.0.0.2`, or by number and type `150:ip=10.0.0.5`. With a class,
/// `43:hex@MSFT 5.0=0104`, only for clients whose vendor class identifier (option 60) begins so.
///
/// Types: `ip`, `u8`, `u16`, `u32`, `i32` (several separated by commas), `bool`, `text`, `hex`, `names` (RFC 3397) and
/// `routes` (RFC 3442, `10.9.0.0/16 via 10.0.0.9`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DhcpOption {
    code: u8,
    class: Option<Arc<str>>,
    data: Arc<[u8]>,
    text: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ip,
    Unsigned(u8),
    Signed,
    Bool,
    Text,
    Hex,
    Names,
    Routes,
}

/// Name, code, type (IANA's registry of BOOTP vendor extensions and DHCP options).
const NAMED: &[(&str, u8, Kind)] = &[
    ("time-offset", 2, Kind::Signed),
    ("routers", 3, Kind::Ip),
    ("time-servers", 4, Kind::Ip),
    ("dns-servers", 6, Kind::Ip),
    ("log-servers", 7, Kind::Ip),
    ("host-name", 12, Kind::Text),
    ("domain-name", 15, Kind::Text),
    ("root-path", 17, Kind::Text),
    ("mtu", 26, Kind::Unsigned(2)),
    ("ntp-servers", 42, Kind::Ip),
    ("vendor-specific", 43, Kind::Hex),
    ("netbios-name-servers", 44, Kind::Ip),
    ("renewal-time", 58, Kind::Unsigned(4)),
    ("rebinding-time", 59, Kind::Unsigned(4)),
    ("vendor-class", 60, Kind::Text),
    ("tftp-server-name", 66, Kind::Text),
    ("bootfile-name", 67, Kind::Text),
    ("posix-timezone", 100, Kind::Text),
    ("tzdb-timezone", 101, Kind::Text),
    ("ipv6-only-wait", 108, Kind::Unsigned(4)),
    ("captive-portal", 114, Kind::Text),
    ("domain-search", 119, Kind::Names),
    ("static-routes", 121, Kind::Routes),
    ("tftp-server-address", 150, Kind::Ip),
    ("wpad", 252, Kind::Text),
];

/// What the server itself says, or the exchange: the mask, the lease, message types, identifiers, overload, echoes.
const RESERVED: &[u8] = &[0, 1, 50, 51, 52, 53, 54, 55, 56, 57, 61, 80, 81, 82, 97, 118, 255];

/// Bytes. Longer values are split (RFC 3396), and no reply has room for more.
const MAX_DATA: usize = 512;

impl DhcpOption {
    pub fn code(&self) -> u8 {
        self.code
    }

    /// The vendor class that it is for.
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }

    /// As in the packet, without code and length. May be longer than 255 bytes.
    pub fn data(&self) -> &[u8] {
        &self.data
    }
}

impl FromStr for DhcpOption {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = |why: String| ParseError::DhcpOption { text: text.to_owned(), why };
        let (head, value) = text.split_once('=').ok_or_else(|| bad("write NAME=VALUE or CODE:TYPE=VALUE".into()))?;
        let (key, class) = match head.split_once('@') {
            Some((key, class)) if !class.is_empty() => (key, Some(class)),
            Some(_) => return Err(bad("a vendor class is missing after '@'".into())),
            None => (head, None),
        };
        let (code, kind) = match key.split_once(':') {
            Some((code, kind)) => (number(code.trim()).map_err(bad)?, Kind::of(kind.trim()).map_err(bad)?),
            None => named(key.trim()).map_err(bad)?,
        };
        if RESERVED.contains(&code) {
            return Err(bad(format!("option {code} is the server's own to say")));
        }
        let data = kind.encode(value.trim()).map_err(bad)?;
        match data.len() {
            0 => Err(bad("the value is empty".into())),
            length if length > MAX_DATA => {
                Err(bad(format!("the value takes {length} bytes; {MAX_DATA} are the limit")))
            }
            _ => Ok(Self { code, class: class.map(Into::into), data: data.into(), text: text.into() }),
        }
    }
}

fn number(code: &str) -> Result<u8, String> {
    code.parse().map_err(|_| format!("'{code}' is no option's number; use 2 to 254"))
}

fn named(name: &str) -> Result<(u8, Kind), String> {
    let known = NAMED.iter().find(|(known, ..)| *known == name).map(|(_, code, kind)| (*code, *kind));
    known.ok_or_else(|| {
        let names: Vec<_> = NAMED.iter().map(|(name, ..)| *name).collect();
        format!("there is no option '{name}'; write CODE:TYPE=VALUE, or one of {}", names.join(", "))
    })
}

impl Kind {
    fn of(name: &str) -> Result<Self, String> {
        Ok(match name {
            "ip" => Self::Ip,
            "u8" => Self::Unsigned(1),
            "u16" => Self::Unsigned(2),
            "u32" => Self::Unsigned(4),
            "i32" => Self::Signed,
            "bool" => Self::Bool,
            "text" => Self::Text,
            "hex" => Self::Hex,
            "names" => Self::Names,
            "routes" => Self::Routes,
            other => {
                return Err(format!(
                    "'{other}' is no type; use ip, u8, u16, u32, i32, bool, text, hex, names or routes"
                ));
            }
        })
    }

    fn encode(self, value: &str) -> Result<Vec<u8>, String> {
        let items = || value.split(',').map(str::trim);
        match self {
            Self::Ip => items()
                .map(|item| item.parse::<Ipv4Addr>().map_err(|_| format!("'{item}' is not an IPv4 address")))
                .try_fold(Vec::new(), |mut all, address| {
                    all.extend(address?.octets());
                    Ok(all)
                }),
            Self::Unsigned(width) => items().try_fold(Vec::new(), |mut all, item| {
                let number = item.parse::<u32>().ok().filter(|n| width == 4 || *n < 1 << (8 * u32::from(width)));
                let number = number.ok_or_else(|| format!("'{item}' is not a number of {width} bytes"))?;
                all.extend(&number.to_be_bytes()[4 - usize::from(width)..]);
                Ok(all)
            }),
            Self::Signed => items().try_fold(Vec::new(), |mut all, item| {
                let number = item.parse::<i32>().map_err(|_| format!("'{item}' is not a number of 4 bytes"))?;
                all.extend(number.to_be_bytes());
                Ok(all)
            }),
            Self::Bool => match value {
                "true" | "yes" => Ok(vec![1]),
                "false" | "no" => Ok(vec![0]),
                _ => Err(format!("'{value}' is neither true nor false")),
            },
            Self::Text if value.bytes().any(|b| b == 0) => Err("a text has no NUL in it".into()),
            Self::Text => Ok(value.as_bytes().to_vec()),
            Self::Hex => hex(value),
            Self::Names => items().try_fold(Vec::new(), |mut all, item| {
                let name = DomainName::new(item).map_err(|error| error.to_string())?;
                put_name(&mut all, name.as_str());
                Ok(all)
            }),
            Self::Routes => items().try_fold(Vec::new(), |mut all, item| {
                put_route(&mut all, item)?;
                Ok(all)
            }),
        }
    }
}

/// Bytes as hexadecimal digits, with or without colons between them.
pub fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b':' | b' ')).collect();
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    digits.chunks(2).map(pair).collect::<Option<_>>().ok_or_else(|| format!("'{text}' is not bytes in hexadecimal"))
}

/// A checked name in wire format (RFC 1035 section 3.1), uncompressed.
pub fn put_name(out: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        // A label has at most 63 bytes.
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
}

fn put_route(out: &mut Vec<u8>, text: &str) -> Result<(), String> {
    let bad = || format!("'{text}' is not a route; write 10.9.0.0/16 via 10.0.0.9");
    let (to, via) = text.split_once(" via ").ok_or_else(bad)?;
    let to: Ipv4Net = to.trim().parse().map_err(|_| bad())?;
    let via: Ipv4Addr = via.trim().parse().map_err(|_| bad())?;
    encode_route(out, to, via);
    Ok(())
}

/// Destination descriptor and router (RFC 3442).
pub fn encode_route(out: &mut Vec<u8>, to: Ipv4Net, via: Ipv4Addr) {
    out.push(to.prefix_len());
    out.extend(&to.network().octets()[..usize::from(to.prefix_len().div_ceil(8))]);
    out.extend(via.octets());
}

impl fmt::Display for DhcpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

serde_as_text!(DhcpOption);

/// Part of what a network boot is told: `server=10.0.0.5`, `bios=undionly.kpxe`, `uefi-x64=ipxe.efi`,
/// `ipxe=http://10.0.0.5/boot.ipxe`, `http-x64=http://10.0.0.5/boot.efi`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootRule {
    selector: BootSelector,
    value: Arc<str>,
}

/// What a boot rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BootSelector {
    /// The next server's address (`siaddr`).
    Server,
    /// The file for any client without a rule of its own.
    File,
    /// A client architecture (RFC 4578 section 2.1, and IANA's registry).
    Arch(u16),
    /// A client that is iPXE already (user class `iPXE`).
    Ipxe,
    /// A client of UEFI HTTP boot (vendor class `HTTPClient`) without a rule for its architecture.
    Http,
}

/// The names of architectures (IANA, "Processor Architecture Types").
const ARCHITECTURES: &[(&str, u16)] = &[
    ("bios", 0),
    ("uefi-x86", 6),
    ("uefi-x64", 7),
    ("uefi-arm32", 10),
    ("uefi-arm64", 11),
    ("http-x86", 15),
    ("http-x64", 16),
    ("http-arm32", 18),
    ("http-arm64", 19),
    ("http-bios", 20),
];

impl BootRule {
    pub fn selector(&self) -> BootSelector {
        self.selector
    }

    pub fn value(&self) -> &str {
        &self.value
    }
}

impl FromStr for BootRule {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = |why: String| ParseError::BootRule { text: text.to_owned(), why };
        let (key, value) = text.split_once('=').ok_or_else(|| bad("write WHOM=FILE, bios=undionly.kpxe say".into()))?;
        let selector = match key.trim() {
            "server" => BootSelector::Server,
            "file" => BootSelector::File,
            "ipxe" => BootSelector::Ipxe,
            "http" => BootSelector::Http,
            other => {
                let named = ARCHITECTURES.iter().find(|(name, _)| *name == other).map(|(_, number)| *number);
                let number = named.or_else(|| other.strip_prefix("arch-")?.parse().ok());
                BootSelector::Arch(number.ok_or_else(|| {
                    let names: Vec<_> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
                    bad(format!("'{other}' is not server, file, ipxe, http, arch-NUMBER, {}", names.join(", ")))
                })?)
            }
        };
        let value = value.trim();
        if selector == BootSelector::Server && value.parse::<Ipv4Addr>().is_err() {
            return Err(bad(format!("'{value}' is not an IPv4 address")));
        }
        match value.len() {
            1..=255 if value.bytes().all(|b| b.is_ascii_graphic()) => Ok(Self { selector, value: value.into() }),
            _ => Err(bad("a file's name has 1 to 255 printable characters without spaces".into())),
        }
    }
}

impl fmt::Display for BootRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.selector {
            BootSelector::Server => write!(f, "server={}", self.value),
            BootSelector::File => write!(f, "file={}", self.value),
            BootSelector::Ipxe => write!(f, "ipxe={}", self.value),
            BootSelector::Http => write!(f, "http={}", self.value),
            BootSelector::Arch(number) => match ARCHITECTURES.iter().find(|(_, known)| *known == number) {
                Some((name, _)) => write!(f, "{name}={}", self.value),
                None => write!(f, "arch-{number}={}", self.value),
            },
        }
    }
}

serde_as_text!(BootRule);

/// A DHCP client identifier (RFC 2132 section 9.14), 2 to 255 bytes: `01:52:54:00:ab:cd:01`, or `text:NAME` for type 0
/// and a text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<[u8]>);

impl ClientId {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bytes = match text.strip_prefix("text:") {
            Some(name) => Some([&[0], name.as_bytes()].concat()),
            None => hex(text).ok(),
        };
        let bytes = bytes.filter(|bytes| (2..=255).contains(&bytes.len()));
        bytes.map(|bytes| Self(bytes.into())).ok_or_else(|| ParseError::ClientId(text.to_owned()))
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

serde_as_text!(ClientId);

#[cfg(test)]
mod tests {
    use super::*;

    fn option(text: &str) -> DhcpOption {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn options_become_bytes() {
        let cases: [(&str, u8, &[u8]); 12] = [
            ("ntp-servers=10.0.0.1, 10.0.0.2", 42, &[10, 0, 0, 1, 10, 0, 0, 2]),
            ("150:ip=10.0.0.5", 150, &[10, 0, 0, 5]),
            ("mtu=9000", 26, &[0x23, 0x28]),
            ("23:u8=64", 23, &[64]),
            ("224:u32=1,2", 224, &[0, 0, 0, 1, 0, 0, 0, 2]),
            ("time-offset=-1", 2, &[255; 4]),
            ("19:bool=true", 19, &[1]),
            ("wpad=http://a/b=c", 252, b"http://a/b=c"),
            ("vendor-specific=01:04:0a", 43, &[1, 4, 10]),
            ("domain-search=a.b,c", 119, &[1, b'a', 1, b'b', 0, 1, b'c', 0]),
            (
                "static-routes=10.9.0.0/16 via 10.0.0.9, 0.0.0.0/0 via 10.0.0.1",
                121,
                &[16, 10, 9, 10, 0, 0, 9, 0, 10, 0, 0, 1],
            ),
            ("43:hex@MSFT 5.0=ff", 43, &[255]),
        ];
        for (text, code, data) in cases {
            let option = option(text);
            assert_eq!((option.code(), option.data()), (code, data), "{text}");
            assert_eq!(option.to_string(), text);
        }
        assert_eq!(option("43:hex@MSFT 5.0=ff").class(), Some("MSFT 5.0"));
    }

    #[test]
    fn what_is_no_option_is_refused_with_what_would_be() {
        for (text, told) in [
            ("ntp=1.2.3.4", "ntp-servers"),
            ("42=1.2.3.4", "CODE:TYPE=VALUE"),
            ("42:ip", "CODE:TYPE=VALUE"),
            ("42:adr=1", "use ip"),
            ("300:ip=1.2.3.4", "2 to 254"),
            ("53:u8=1", "server's own"),
            ("42:ip=1.2.3", "IPv4"),
            ("26:u16=65536", "2 bytes"),
            ("43:hex=0", "hexadecimal"),
            ("43:hex@=00", "vendor class"),
            ("12:text=", "empty"),
            ("121:routes=10.0.0.0/8", "via"),
        ] {
            let error = text.parse::<DhcpOption>().expect_err(text).to_string();
            assert!(error.contains(told), "{error}");
        }
        assert!(format!("12:text={}", "x".repeat(513)).parse::<DhcpOption>().is_err());
    }

    #[test]
    fn boot_rules_and_client_ids() {
        for text in
            ["server=10.0.0.5", "file=a", "bios=undionly.kpxe", "uefi-x64=x.efi", "arch-31=b", "ipxe=http://h/x"]
        {
            assert_eq!(text.parse::<BootRule>().expect(text).to_string(), text);
        }
        assert_eq!("arch-7=x".parse::<BootRule>().expect("valid").to_string(), "uefi-x64=x");
        for bad in ["server=host", "bios=", "mips=x", "file=a b", "x"] {
            assert!(bad.parse::<BootRule>().is_err(), "{bad}");
        }
        assert_eq!("text:db".parse::<ClientId>().expect("valid").to_string(), "00:64:62");
        assert_eq!("01525400abcd01".parse::<ClientId>().expect("valid").as_bytes().len(), 7);
        for bad in ["", "01", "0x", "text:"] {
            assert!(bad.parse::<ClientId>().is_err(), "{bad}");
        }
    }
}
