use super::{
    request::Request,
    scope::{Host, Subnet},
};
use dhcproto::{
    Encodable, Encoder,
    v4::{DhcpOption, MAGIC, MessageType, OptionCode},
};
use hickory_proto::rr::Name;
use std::net::Ipv4Addr;

/// BOOTP's message size, which some relays and clients still insist on (RFC 1542 section 2.1).
const MIN_MESSAGE: usize = 300;

/// One subnet's configuration options, encoded once.
#[derive(Debug)]
pub(super) struct OptionSet(Vec<(u8, Vec<u8>)>);

impl OptionSet {
    pub(super) fn new(subnet: &Subnet) -> Self {
        let mut options = vec![DhcpOption::SubnetMask(subnet.prefix.netmask())];
        options.extend(subnet.router.map(|router| DhcpOption::Router(vec![router])));
        if !subnet.dns_servers.is_empty() {
            options.push(DhcpOption::DomainNameServer(subnet.dns_servers.clone()));
        }
        if let Some(domain) = &subnet.domain {
            options.push(DhcpOption::DomainName(domain.to_string()));
            options.extend(Name::from_ascii(format!("{domain}.")).ok().map(|n| DhcpOption::DomainSearch(vec![n])));
        }
        options.extend(subnet.mtu.map(DhcpOption::InterfaceMtu));
        if subnet.prefix.prefix_len() < 31 {
            options.push(DhcpOption::BroadcastAddr(subnet.prefix.broadcast()));
        }
        if !subnet.host_routes.is_empty() {
            // Who understands option 121 ignores the router option (RFC 3442), so the default route is repeated here.
            let default = subnet.router.map(|router| (Default::default(), router));
            let routes = subnet.host_routes.iter().map(|(to, via)| (to.trunc(), *via));
            options.push(DhcpOption::ClasslessStaticRoute(routes.chain(default).collect()));
        }
        Self(options.iter().map(|option| (OptionCode::from(option).into(), encoded(option))).collect())
    }

    fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.iter().find(|(c, _)| *c == code).map(|(_, bytes)| bytes.as_slice())
    }
}

/// What a reply says besides echoing the request.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    pub(super) kind: MessageType,
    pub(super) server: Ipv4Addr,
    pub(super) yiaddr: Ipv4Addr,
    /// Seconds.
    pub(super) lease_time: Option<u32>,
    pub(super) options: Option<&'a OptionSet>,
    pub(super) host: Option<&'a Host>,
}

impl Reply<'_> {
    pub(super) fn encode(&self, request: &Request) -> Vec<u8> {
        let nak = self.kind == MessageType::Nak;
        let mut message = Vec::with_capacity(request.max_size);
        message.extend([2, 1, 6, 0]);
        message.extend(request.xid.to_be_bytes());
        message.extend([0, 0]);
        // A relay broadcasts a NAK: the client's address is wrong (RFC 2131 section 4.3.2).
        message.extend((request.flags | if nak && request.relayed() { 0x8000 } else { 0 }).to_be_bytes());
        message.extend(if nak { [0; 4] } else { request.ciaddr.octets() });
        message.extend(self.yiaddr.octets());
        message.extend([0; 4]);
        message.extend(request.giaddr.octets());
        message.extend(request.mac.octets());
        message.resize(236, 0);
        message.extend(MAGIC);

        put(&mut message, OptionCode::MessageType, &[self.kind.into()]);
        put(&mut message, OptionCode::ServerIdentifier, &self.server.octets());
        if let Some(seconds) = self.lease_time {
            put(&mut message, OptionCode::AddressLeaseTime, &seconds.to_be_bytes());
            put(&mut message, OptionCode::Renewal, &(seconds / 2).to_be_bytes());
            put(&mut message, OptionCode::Rebinding, &(seconds - seconds / 8).to_be_bytes());
        }
        if let Some(id) = &request.client_id {
            put(&mut message, OptionCode::ClientIdentifier, id);
        }
        // The end marker, and option 82 last of all.
        let relay_info = request.relay_info.as_deref().unwrap_or_default();
        let tail = 1 + if relay_info.is_empty() { 0 } else { 2 + relay_info.len() };
        self.configuration(&mut message, request, request.max_size.saturating_sub(tail));
        if !relay_info.is_empty() {
            put(&mut message, OptionCode::RelayAgentInformation, relay_info);
        }
        message.push(OptionCode::End.into());
        if message.len() < MIN_MESSAGE {
            message.resize(MIN_MESSAGE, 0);
        }
        message
    }

    /// The subnet mask always, then what the client asks for, in its order, as far as there is room; all that there is
    /// where it has no wishes.
    fn configuration(&self, message: &mut Vec<u8>, request: &Request, room: usize) {
        let Some(set) = self.options else { return };
        let name = self.host.and_then(|host| host.host_name.as_ref());
        let name = name.map(|name| encoded(&DhcpOption::Hostname(name.to_string())));
        let mut add = |code: u8| {
            let option = if code == u8::from(OptionCode::Hostname) { name.as_deref() } else { set.get(code) };
            if let Some(bytes) = option
                && message.len() + bytes.len() <= room
            {
                message.extend(bytes);
            }
        };
        let mask = u8::from(OptionCode::SubnetMask);
        add(mask);
        match &request.parameters {
            Some(wanted) => {
                let mut seen = [false; 256];
                seen[usize::from(mask)] = true;
                wanted
                    .iter()
                    .filter(|code| !std::mem::replace(&mut seen[usize::from(**code)], true))
                    .for_each(|c| add(*c));
            }
            None => {
                set.0.iter().filter(|(code, _)| *code != mask).for_each(|(code, _)| add(*code));
                add(OptionCode::Hostname.into());
            }
        }
    }
}

/// An option of at most 255 bytes.
fn put(message: &mut Vec<u8>, code: OptionCode, data: &[u8]) {
    if let Ok(length) = u8::try_from(data.len()) {
        message.extend([code.into(), length]);
        message.extend(data);
    }
}

/// Empty where an option cannot be encoded.
fn encoded(option: &DhcpOption) -> Vec<u8> {
    let mut bytes = Vec::new();
    match option.encode(&mut Encoder::new(&mut bytes)) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}
