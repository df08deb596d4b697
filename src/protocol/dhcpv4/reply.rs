use super::{
    INFINITE,
    options::{Options, code},
    request::Fqdn,
};
use crate::net::dhcp::put_name;
use dhcproto::v4::{MAGIC, MessageType};
use std::{borrow::Cow, net::Ipv4Addr};

/// BOOTP's message size, which some relays and clients still insist on (RFC 1542 section 2.1).
const MIN_MESSAGE: usize = 300;

/// The fields that may hold options too (RFC 2132 section 9.3), as offset and length.
const SNAME: (usize, usize) = (44, 64);
const FILE: (usize, usize) = (108, 128);

/// What a reply says besides echoing the request.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    pub(super) kind: MessageType,
    pub(super) server: Ipv4Addr,
    pub(super) yiaddr: Ipv4Addr,
    /// Seconds.
    pub(super) lease_time: Option<u32>,
    /// An ACK to a DISCOVER (RFC 4039).
    pub(super) rapid: bool,
    /// The name that the client has now, fully qualified where the subnet has a domain.
    pub(super) name: Option<String>,
    pub(super) options: Options<'a>,
}

/// Options in the order in which they are to be sent.
type Wanted<'a> = Vec<(u8, Cow<'a, [u8]>)>;

impl Reply<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let request = self.options.request;
        let nak = self.kind == MessageType::Nak;
        let mut message = Vec::with_capacity(request.max_size);
        message.extend([2, 1, 6, 0]);
        message.extend(request.xid.to_be_bytes());
        message.extend([0, 0]);
        // A relay broadcasts a NAK: the client's address is wrong (RFC 2131 section 4.3.2).
        message.extend((request.flags | if nak && request.relayed() { 0x8000 } else { 0 }).to_be_bytes());
        message.extend(if nak { [0; 4] } else { request.ciaddr.octets() });
        message.extend(self.yiaddr.octets());
        let next_server = self.options.next_server().filter(|_| !nak).unwrap_or(Ipv4Addr::UNSPECIFIED);
        message.extend(next_server.octets());
        message.extend(request.giaddr.octets());
        message.extend(request.mac.octets());
        message.resize(236, 0);
        message.extend(MAGIC);

        let file = self.options.boot_file().filter(|file| !nak && file.len() < FILE.1);
        if let Some(file) = file {
            message[FILE.0..FILE.0 + file.len()].copy_from_slice(file.as_bytes());
        }
        self.put_options(&mut message, file.is_none());
        if message.len() < MIN_MESSAGE {
            message.resize(MIN_MESSAGE, 0);
        }
        message
    }

    /// What must be said, then the rest as far as there is room: in the options field, then in `file` and `sname`.
    fn put_options(&self, message: &mut Vec<u8>, file_is_free: bool) {
        let request = self.options.request;
        let start = message.len();
        for (known, data) in self.required() {
            put(message, known, &data);
        }
        // The end marker, and option 82 last of all (RFC 3046 section 2.2).
        let relay_info = request.relay_info.as_deref();
        let tail = 1 + relay_info.map_or(0, |info| 2 + info.len());
        let room = request.max_size.saturating_sub(tail);
        let wanted = self.wanted();
        let fits = message.len() + wanted.iter().map(|(_, data)| encoded_length(data)).sum::<usize>() <= room;
        if fits {
            wanted.iter().for_each(|(known, data)| put(message, *known, data));
        } else {
            overload(message, wanted, room, file_is_free, start);
        }
        if let Some(info) = relay_info {
            put(message, code::RELAY_INFO, info);
        }
        message.push(code::END);
    }

    fn required(&self) -> Wanted<'_> {
        let request = self.options.request;
        let mut all: Wanted<'_> = vec![
            (code::MESSAGE_TYPE, vec![self.kind.into()].into()),
            (code::SERVER_ID, self.server.octets().to_vec().into()),
        ];
        if let Some(seconds) = self.lease_time {
            all.push((code::LEASE_TIME, seconds.to_be_bytes().to_vec().into()));
            let (renewal, rebinding) = match seconds {
                INFINITE => (INFINITE, INFINITE),
                _ => (seconds / 2, seconds - seconds / 8),
            };
            // What was set for a full lease must not outlast a shorter one.
            let set = |known, default: u32| match self.options.get(known).as_deref().map(TryInto::<[u8; 4]>::try_into) {
                Some(Ok(bytes)) if u32::from_be_bytes(bytes) < seconds => u32::from_be_bytes(bytes),
                _ => default,
            };
            let rebinding = set(code::REBINDING_TIME, rebinding);
            let renewal = set(code::RENEWAL_TIME, renewal).min(rebinding);
            all.push((code::RENEWAL_TIME, renewal.to_be_bytes().to_vec().into()));
            all.push((code::REBINDING_TIME, rebinding.to_be_bytes().to_vec().into()));
        }
        if let Some(id) = &request.client_id {
            all.push((code::CLIENT_ID, id.as_slice().into()));
        }
        if self.kind == MessageType::Nak {
            all.push((code::MESSAGE, b"this address is not yours here"[..].into()));
            return all;
        }
        if self.rapid {
            all.push((code::RAPID_COMMIT, Cow::Borrowed(&[])));
        }
        if let Some(mask) = self.options.get(code::SUBNET_MASK) {
            all.push((code::SUBNET_MASK, mask));
        }
        if self.options.wants_http() && self.options.boot_file().is_some() {
            all.push((code::VENDOR_CLASS, b"HTTPClient"[..].into()));
        }
        if let Some(machine) = &request.machine {
            all.push((code::MACHINE_ID, machine.as_slice().into()));
        }
        if let Some(fqdn) = &request.fqdn {
            all.push((code::FQDN, self.fqdn(fqdn).into()));
        }
        all
    }

    /// Option 81 (RFC 4702 section 4): the server keeps A and PTR records by itself.
    fn fqdn(&self, asked: &Fqdn) -> Vec<u8> {
        let refused = asked.flags & Fqdn::N;
        let overrode = if refused == 0 && asked.flags & Fqdn::S == 0 { Fqdn::O } else { 0 };
        let updates = if refused == 0 { Fqdn::S } else { 0 };
        let wire = asked.flags & Fqdn::E;
        let mut data = vec![wire | refused | overrode | updates, 255, 255];
        let name = self.name.as_deref().unwrap_or_default();
        if wire == 0 {
            data.extend(name.as_bytes());
        } else {
            put_name(&mut data, name);
        }
        data
    }

    /// What the client asks for, in its order; all that there is where it has no wishes.
    fn wanted(&self) -> Wanted<'_> {
        if self.kind == MessageType::Nak {
            return Vec::new();
        }
        let options = self.options;
        let mut seen = [false; 256];
        let said = [
            code::SUBNET_MASK,
            code::LEASE_TIME,
            code::RENEWAL_TIME,
            code::REBINDING_TIME,
            code::CLIENT_ID,
            code::FQDN,
        ];
        said.iter().for_each(|known| seen[usize::from(*known)] = true);
        seen[usize::from(code::VENDOR_CLASS)] = options.wants_http();
        let mut codes = match &options.request.parameters {
            Some(wanted) => wanted.clone(),
            None => options.codes(),
        };
        // A file that is too long for its field has no other place.
        if options.boot_file().is_some_and(|file| file.len() >= FILE.1 || options.wants_http()) {
            codes.insert(0, code::BOOTFILE_NAME);
        }
        let fresh = codes.into_iter().filter(|known| !std::mem::replace(&mut seen[usize::from(*known)], true));
        fresh.filter_map(|known| Some((known, options.get(known)?))).collect()
    }
}

/// Puts options where they fit, and says which fields hold some (option 52).
fn overload(message: &mut Vec<u8>, wanted: Wanted<'_>, room: usize, file_is_free: bool, start: usize) {
    // Option 52 itself.
    let room = room.saturating_sub(3);
    let mut fields: Vec<(u8, (usize, usize), usize)> = Vec::new();
    if file_is_free {
        fields.push((1, FILE, 0));
    }
    fields.push((2, SNAME, 0));
    for (known, data) in wanted {
        let length = encoded_length(&data);
        if message.len() + length <= room {
            put(message, known, &data);
            continue;
        }
        // Each field ends with an end marker of its own.
        let field = fields.iter_mut().find(|(_, (_, size), used)| used + length < *size && data.len() <= 255);
        if let Some((_, (at, _), used)) = field {
            let mut bytes = Vec::with_capacity(length);
            put(&mut bytes, known, &data);
            message[*at + *used..*at + *used + length].copy_from_slice(&bytes);
            *used += length;
        }
    }
    let mut flags = 0;
    for (flag, (at, _), used) in fields {
        if used > 0 {
            message[at + used] = code::END;
            flags |= flag;
        }
    }
    if flags != 0 {
        // Before what it tells of: right behind the message type.
        message.splice(start + 3..start + 3, [code::OVERLOAD, 1, flags]);
    }
}

fn encoded_length(data: &[u8]) -> usize {
    data.len() + 2 * data.len().div_ceil(255).max(1)
}

/// Longer values are split (RFC 3396).
fn put(message: &mut Vec<u8>, known: u8, data: &[u8]) {
    if data.is_empty() {
        message.extend([known, 0]);
    }
    for part in data.chunks(255) {
        // At most 255.
        message.extend([known, part.len() as u8]);
        message.extend(part);
    }
}
