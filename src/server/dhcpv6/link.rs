//! The sockets of one served interface.
//!
//! A packet socket receives and sends, as for DHCPv4. A UDP socket holds port 547 on the interface, so that a second
//! server is noticed, and joins the groups that guests send to, so that a bridge that snoops brings them here; it takes
//! in nothing.

use super::frame::{self, Content};
use crate::{
    ffi::packet::{ETHERTYPE_IPV6, WatchedSocket, link_address, set_receive_buffer},
    net::{IfName, MacAddr},
    protocol::{
        dhcpv6::{ALL_SERVERS, ALL_SERVERS_OF_SITE, Datagram, SERVER_PORT},
        ra::{ALL_NODES, ALL_ROUTERS, Destination, Output, Solicitation},
    },
    server::dhcpv4::{ServeError, holders, ports::PortFinder},
};
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{LinkAddr, recvfrom},
};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::AsRawFd,
};

/// Bytes.
const RECEIVE_BUFFER: usize = 2 << 20;
/// A message of a relay agent (RFC 8415 section 7.3).
const RELAY_FORW: u8 = 12;

#[derive(Debug)]
pub(super) struct Link {
    packets: WatchedSocket,
    _port: Socket,
    index: u32,
    pub(super) ports: PortFinder,
    /// The interface's link-local address, from which all is sent.
    source: Ipv6Addr,
}

/// What arrived for this server.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) source: Ipv6Addr,
    /// Source of the frame.
    pub(super) mac: MacAddr,
    pub(super) content: Message,
}

#[derive(Debug)]
pub(super) enum Message {
    Dhcp { payload: Vec<u8>, unicast: bool },
    Solicitation(Solicitation),
}

impl Link {
    pub(super) fn open(interface: &IfName) -> Result<Self, ServeError> {
        let fault = |source| fault(interface, source);
        let index = if_nametoindex(interface.as_str())
            .map_err(|source| ServeError::NoInterface { interface: interface.clone(), source: source.into() })?;
        let port = hold_port(interface, index)?;
        let packets = packet_socket(index).map_err(fault)?;
        let packets = WatchedSocket::new(packets).map_err(fault)?;
        let ports = PortFinder::open(index).map_err(fault)?;
        let mac = MacAddr::new(ports.mac).map_err(|error| fault(io::Error::other(error)))?;
        Ok(Self { packets, _port: port, index, ports, source: mac.link_local() })
    }

    /// Waits for a packet and takes all that came with it, at most `most`. An error means that the interface is gone or
    /// down.
    pub(super) async fn receive(&self, buffer: &mut [u8], most: usize, into: &mut Vec<Received>) -> io::Result<()> {
        let mut ready = self.packets.ready().await?;
        for _ in 0..most {
            match ready.try_io(|socket| Ok(recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer)?)) {
                Ok(Ok((length, Some(link)))) => {
                    into.extend(buffer.get(..length).and_then(|packet| accept(packet, &link)));
                }
                Ok(Ok((_, None))) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => break,
            }
        }
        Ok(())
    }

    /// Where the queue is full the packet is lost, as on any wire.
    pub(super) fn reply(&self, datagram: &Datagram) -> io::Result<()> {
        let source = SocketAddrV6::new(self.source, SERVER_PORT, 0, 0);
        let packet = frame::build_udp(source, datagram.socket_addr(), &datagram.payload);
        self.send(packet, datagram.mac.octets())
    }

    pub(super) fn advertise(&self, output: &Output) -> io::Result<()> {
        let (address, mac) = match output.destination {
            Destination::AllNodes => (ALL_NODES, [0x33, 0x33, 0, 0, 0, 1]),
            Destination::Host { address, mac } => (address, mac.octets()),
        };
        self.send(frame::build_icmp(self.source, address, &output.message), mac)
    }

    fn send(&self, packet: Option<Vec<u8>>, mac: [u8; 6]) -> io::Result<()> {
        let packet = packet.ok_or(io::ErrorKind::InvalidInput)?;
        self.packets.socket().send_to(&packet, &link_address(self.index, ETHERTYPE_IPV6, mac)?).map(drop)
    }
}

fn accept(packet: &[u8], link: &LinkAddr) -> Option<Received> {
    if !matches!(link.pkttype(), libc::PACKET_HOST | libc::PACKET_MULTICAST) || link.halen() != 6 {
        return None;
    }
    let mac = MacAddr::new(link.addr()?).ok()?;
    let parsed = frame::parse(packet)?;
    let content = match parsed.content {
        // Relay agents speak from the server's port (RFC 8415 section 7.2), which guests may not.
        Content::Udp { source_port, payload: [RELAY_FORW, ..], .. } if source_port != SERVER_PORT => return None,
        Content::Udp { destination_port: SERVER_PORT, payload, .. } => {
            // To another group, or to a server elsewhere that this host only routes to.
            let unicast = !parsed.destination.is_multicast();
            if !unicast && !is_for_servers(parsed.destination, payload) {
                return None;
            }
            Message::Dhcp { payload: payload.to_vec(), unicast }
        }
        Content::Udp { .. } => return None,
        Content::Icmp(message) => Message::Solicitation(Solicitation::parse(message, parsed.source, parsed.hop_limit)?),
    };
    Some(Received { source: parsed.source, mac, content })
}

/// Clients and relay agents of the link have one group, relay agents of the site another (RFC 8415 section 7.1).
fn is_for_servers(group: Ipv6Addr, payload: &[u8]) -> bool {
    group == ALL_SERVERS || group == ALL_SERVERS_OF_SITE && payload.first() == Some(&RELAY_FORW)
}

/// As for DHCPv4: bound without SO_REUSEADDR, so that a server that is there already is noticed; shared afterwards.
fn hold_port(interface: &IfName, index: u32) -> Result<Socket, ServeError> {
    let bind = || {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
        socket.set_only_v6(true)?;
        socket.bind_device(Some(interface.as_str().as_bytes()))?;
        socket.bind(&SockAddr::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, SERVER_PORT, 0, 0)))?;
        socket.set_reuse_address(true)?;
        for group in [ALL_SERVERS, ALL_SERVERS_OF_SITE, ALL_ROUTERS] {
            socket.join_multicast_v6(&group, index)?;
        }
        Ok(socket)
    };
    bind().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::PortTaken {
            interface: interface.clone(),
            port: SERVER_PORT,
            holders: holders::of_udp_port("udp6", SERVER_PORT),
        },
        _ => fault(interface, source),
    })
}

fn fault(interface: &IfName, source: io::Error) -> ServeError {
    let interface = interface.clone();
    match source.kind() {
        io::ErrorKind::PermissionDenied => ServeError::NotPermitted { interface, source },
        _ => ServeError::Socket { interface, source },
    }
}

fn packet_socket(index: u32) -> io::Result<Socket> {
    // Protocol 0 receives nothing until the filter is in and the interface is chosen.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    socket.attach_filter(&filter())?;
    socket.set_nonblocking(true)?;
    // Room for a burst of many guests.
    set_receive_buffer(&socket, RECEIVE_BUFFER)?;
    socket.bind(&link_address(index, ETHERTYPE_IPV6, [0; 6])?)?;
    Ok(socket)
}

const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// UDP to port 547 and router solicitations, the packet beginning with the IPv6 header, without extension headers.
fn filter() -> [SockFilter; 8] {
    let load_byte = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    let load_half = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    [
        SockFilter::new(load_byte, 0, 0, 6),
        SockFilter::new(equal, 2, 0, libc::IPPROTO_UDP as u32),
        SockFilter::new(load_byte, 0, 0, 40),
        SockFilter::new(equal, 2, 3, 133),
        SockFilter::new(load_half, 0, 0, 42),
        SockFilter::new(equal, 0, 1, SERVER_PORT as u32),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_agents_may_ask_all_servers_of_the_site_and_clients_those_of_the_link() {
        let (solicit, relayed) = ([1, 0, 0, 1], [RELAY_FORW, 0]);
        assert!(is_for_servers(ALL_SERVERS, &solicit) && is_for_servers(ALL_SERVERS, &relayed));
        assert!(is_for_servers(ALL_SERVERS_OF_SITE, &relayed) && !is_for_servers(ALL_SERVERS_OF_SITE, &solicit));
        assert!(!is_for_servers(ALL_ROUTERS, &relayed));
    }
}
