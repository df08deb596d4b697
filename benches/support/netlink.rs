//! rtnetlink by hand: the bare attach that figures are compared with, and what the kernel says of links.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::TimeVal,
};
use std::io;

/// An open socket for requests.
pub struct Wire(Socket);

impl Wire {
    pub fn open() -> Self {
        let mut socket = Socket::new(NETLINK_ROUTE).expect("a netlink socket");
        socket.bind_auto().expect("an address");
        socket.connect(&SocketAddr::new(0, 0)).expect("the kernel");
        Self(socket)
    }

    /// Puts a link on a bridge, and waits for the acknowledgement.
    pub fn attach(&self, link: u32, bridge: u32) {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes.push(LinkAttribute::Controller(bridge));
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK;
        let payload = NetlinkPayload::from(RouteNetlinkMessage::SetLink(message));
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0).expect("sent");
        let mut answer = Vec::with_capacity(8192);
        self.0.recv(&mut answer, 0).expect("an answer");
        let error = answer.get(16..20).map(|code| i32::from_ne_bytes(code.try_into().expect("four bytes")));
        assert_eq!(error, Some(0), "attach: {:?}", error.map(|code| io::Error::from_raw_os_error(-code)));
    }
}

/// Links as the kernel tells of them.
pub struct Monitor(Socket, Vec<u8>);

/// A link's name, whether it is up, and its alias.
pub struct Told {
    pub name: String,
    pub up: bool,
    pub alias: String,
}

impl Monitor {
    pub fn open() -> Self {
        let mut socket = Socket::new(NETLINK_ROUTE).expect("a netlink socket");
        setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).expect("a large buffer");
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(30, 0)).expect("a deadline");
        socket.bind(&SocketAddr::new(0, 1)).expect("the group of links");
        Self(socket, Vec::with_capacity(1 << 16))
    }

    /// The next messages; waits 30 s at most.
    pub fn next(&mut self) -> Vec<Told> {
        self.1.clear();
        self.0.recv(&mut self.1, 0).expect("a message within 30 s");
        let mut told = Vec::new();
        let mut rest = self.1.as_slice();
        while let Ok(buffer) = NetlinkBuffer::new_checked(rest) {
            let length = (buffer.length() as usize).next_multiple_of(4);
            if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                && let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = message.payload
            {
                told.push(Self::told(link));
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        told
    }

    /// Throws away what was told so far.
    pub fn skip(&mut self) {
        loop {
            self.1.clear();
            if self.0.recv(&mut self.1, libc::MSG_DONTWAIT).is_err() {
                return;
            }
        }
    }

    fn told(link: LinkMessage) -> Told {
        let up = link.header.flags.contains(LinkFlags::Up);
        let mut told = Told { name: String::new(), up, alias: String::new() };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => told.name = name,
                LinkAttribute::IfAlias(alias) => told.alias = alias,
                _ => {}
            }
        }
        told
    }
}
