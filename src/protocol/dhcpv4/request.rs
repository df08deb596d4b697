use super::ClientKey;
use crate::net::{DnsLabel, MacAddr};
use dhcproto::v4::{
    MAGIC, MessageType, OptionCode,
    borrowed::{DhcpOptionIterator, Message},
};
use std::{net::Ipv4Addr, str};

/// A client's message: what of it a server acts on.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) kind: MessageType,
    pub(super) xid: u32,
    pub(super) flags: u16,
    pub(super) ciaddr: Ipv4Addr,
    pub(super) giaddr: Ipv4Addr,
    pub(super) mac: MacAddr,
    pub(super) requested: Option<Ipv4Addr>,
    pub(super) server_id: Option<Ipv4Addr>,
    pub(super) lease_time: Option<u32>,
    /// Option 61 as it came, to be echoed (RFC 6842).
    pub(super) client_id: Option<Vec<u8>>,
    pub(super) parameters: Option<Vec<u8>>,
    /// Bytes of a UDP payload that the client takes.
    pub(super) max_size: usize,
    pub(super) host_name: Option<DnsLabel>,
    /// Option 81's flags and its name as it came.
    pub(super) fqdn: Option<Fqdn>,
    /// Option 80 (RFC 4039).
    pub(super) rapid_commit: bool,
    /// Option 60, bytes.
    pub(super) vendor_class: Option<Vec<u8>>,
    /// Option 77 names iPXE.
    pub(super) ipxe: bool,
    /// Option 93, its first (RFC 4578 section 2.1).
    pub(super) arch: Option<u16>,
    /// Option 97 as it came, to be echoed (RFC 4578 section 2.3).
    pub(super) machine: Option<Vec<u8>>,
    /// Option 82 as it came, to be echoed (RFC 3046 section 2.2).
    pub(super) relay_info: Option<Vec<u8>>,
}

/// Option 81 (RFC 4702).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fqdn {
    pub(super) flags: u8,
    pub(super) label: Option<DnsLabel>,
}

impl Fqdn {
    /// The server is to update A records.
    pub(super) const S: u8 = 0x01;
    /// The server overrode the client's wish.
    pub(super) const O: u8 = 0x02;
    /// The name is in wire format.
    pub(super) const E: u8 = 0x04;
    /// The server is to update nothing.
    pub(super) const N: u8 = 0x08;
}

/// IPv4 and UDP header.
const OVERHEAD: usize = 28;

/// What every client takes (RFC 2131 section 2): an IP datagram of 576 bytes.
pub(super) const MIN_SIZE: usize = 576 - OVERHEAD;
/// What an Ethernet frame takes.
const MAX_SIZE: usize = 1500 - OVERHEAD;

/// Not a message that a client on Ethernet sends to a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Request {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let message = Message::new(bytes).map_err(|_| Malformed)?;
        // Op BOOTREQUEST, hardware type Ethernet, six bytes long; dhcproto trusts the length when it cuts chaddr.
        if bytes[..3] != [1, 1, 6] || bytes[236..240] != MAGIC {
            return Err(Malformed);
        }
        let mac = message.chaddr().try_into().map_err(|_| Malformed)?;
        let mut request = Self {
            kind: MessageType::Unknown(0),
            xid: message.xid(),
            flags: message.flags().into(),
            ciaddr: message.ciaddr(),
            giaddr: message.giaddr(),
            mac: MacAddr::new(mac).map_err(|_| Malformed)?,
            requested: None,
            server_id: None,
            lease_time: None,
            client_id: None,
            parameters: None,
            max_size: MIN_SIZE,
            host_name: None,
            fqdn: None,
            rapid_commit: false,
            vendor_class: None,
            ipxe: false,
            arch: None,
            machine: None,
            relay_info: None,
        };
        let mut host = None;
        let overload = request.options(message.opts(), &mut host)?;
        // Options may go on in 'file' and then in 'sname' (RFC 2132 section 9.3).
        if overload & 1 != 0 {
            request.options(DhcpOptionIterator::new(&bytes[108..236]), &mut host)?;
        }
        if overload & 2 != 0 {
            request.options(DhcpOptionIterator::new(&bytes[44..108]), &mut host)?;
        }
        request.host_name = match &request.fqdn {
            // The client wants no name of it.
            Some(fqdn) if fqdn.flags & Fqdn::N != 0 => None,
            Some(fqdn) => fqdn.label.clone().or(host),
            None => host,
        };
        match request.kind {
            MessageType::Unknown(0) => Err(Malformed),
            _ => Ok(request),
        }
    }

    fn options(&mut self, options: DhcpOptionIterator<'_>, host: &mut Option<DnsLabel>) -> Result<u8, Malformed> {
        let mut overload = 0;
        for option in options {
            let data = option.data();
            match option.code() {
                OptionCode::MessageType => self.kind = MessageType::from(u8::from_be_bytes(fixed(data)?)),
                OptionCode::OptionOverload => overload = u8::from_be_bytes(fixed(data)?),
                OptionCode::RequestedIpAddress => self.requested = Some(fixed(data)?.into()),
                OptionCode::ServerIdentifier => self.server_id = Some(fixed(data)?.into()),
                OptionCode::AddressLeaseTime => self.lease_time = Some(u32::from_be_bytes(fixed(data)?)),
                OptionCode::MaxMessageSize => {
                    let size = usize::from(u16::from_be_bytes(fixed(data)?));
                    self.max_size = size.saturating_sub(OVERHEAD).clamp(MIN_SIZE, MAX_SIZE);
                }
                OptionCode::ClientIdentifier if data.len() <= 255 => self.client_id = Some(data.to_vec()),
                OptionCode::ClientIdentifier => return Err(Malformed),
                OptionCode::ParameterRequestList => self.parameters = Some(data.iter().copied().take(255).collect()),
                OptionCode::RelayAgentInformation if data.len() <= 255 => self.relay_info = Some(data.to_vec()),
                OptionCode::Hostname => *host = first_label(data),
                OptionCode::ClientFQDN => self.fqdn = fqdn(data),
                OptionCode::ClassIdentifier if data.len() <= 255 => self.vendor_class = Some(data.to_vec()),
                OptionCode::UserClass => self.ipxe |= is_ipxe(data),
                OptionCode::ClientSystemArchitecture => {
                    self.arch = data.first_chunk().map(|first| u16::from_be_bytes(*first));
                }
                OptionCode::ClientMachineIdentifier if data.len() <= 255 => self.machine = Some(data.to_vec()),
                OptionCode::RapidCommit => self.rapid_commit = true,
                _ => {}
            }
        }
        Ok(overload)
    }

    /// Who asks, where no reservation says so already.
    pub(super) fn client(&self) -> ClientKey {
        self.client_id.as_deref().and_then(ClientKey::new).unwrap_or_else(|| ClientKey::hardware(self.mac))
    }

    pub(super) fn wants_broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    pub(super) fn vendor_class(&self) -> &[u8] {
        self.vendor_class.as_deref().unwrap_or_default()
    }

    pub(super) fn relayed(&self) -> bool {
        !self.giaddr.is_unspecified()
    }
}

fn fixed<const N: usize>(data: &[u8]) -> Result<[u8; N], Malformed> {
    data.try_into().map_err(|_| Malformed)
}

/// The first label of a dotted name; clients may send their whole name, and some end it with NUL.
fn first_label(data: &[u8]) -> Option<DnsLabel> {
    let label = data.split(|b| matches!(b, b'.' | 0)).next()?;
    DnsLabel::new(str::from_utf8(label).ok()?).ok()
}

/// Option 81: flags, two result codes, then a name in wire format where flag E is set, else in ASCII (RFC 4702).
fn fqdn(data: &[u8]) -> Option<Fqdn> {
    let (head, name) = data.split_at_checked(3)?;
    let wire = || {
        let (length, rest) = name.split_first()?;
        DnsLabel::new(str::from_utf8(rest.get(..usize::from(*length))?).ok()?).ok()
    };
    let label = if head[0] & Fqdn::E == 0 { first_label(name) } else { wire() };
    Some(Fqdn { flags: head[0], label })
}

/// iPXE sends its name bare; RFC 3004 wants lengths before the classes.
fn is_ipxe(data: &[u8]) -> bool {
    let mut rest = data;
    let mut found = data == b"iPXE";
    while let Some((length, tail)) = rest.split_first()
        && let Some((class, tail)) = tail.split_at_checked(usize::from(*length))
    {
        found |= class == b"iPXE";
        rest = tail;
    }
    found
}
