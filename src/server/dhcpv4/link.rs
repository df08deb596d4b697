//! The sockets of one served interface.
//!
//! A packet socket receives and sends: it tells the frame's source, which no guest can be allowed to lie about, and it
//! reaches clients that cannot answer ARP. A UDP socket holds port 67 on the interface, so that the kernel answers no
//! renewal with "port unreachable" and a second server is noticed; it takes in nothing.

use super::{ServeError, frame, holders, ports::PortFinder, probe::Prober};
use crate::{
    ffi::packet::{ETHERTYPE_IPV4, WatchedSocket, link_address, set_receive_buffer},
    net::{IfName, MacAddr},
    protocol::dhcpv4::{Datagram, SERVER_PORT},
};
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{LinkAddr, recvfrom},
};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
};

/// Bytes.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Where the relay agent's address is (RFC 2131 section 2).
const GIADDR: std::ops::Range<usize> = 24..28;

#[derive(Debug)]
pub(super) struct Link {
    packets: WatchedSocket,
    _port: Socket,
    index: u32,
    pub(super) ports: PortFinder,
    pub(super) prober: Prober,
}

/// What arrived for port 67.
#[derive(Debug)]
pub(super) struct Received<'a> {
    pub(super) source: SocketAddrV4,
    /// Source of the frame.
    pub(super) mac: MacAddr,
    pub(super) destination: Ipv4Addr,
    pub(super) payload: &'a [u8],
}

impl Link {
    pub(super) fn open(interface: &IfName) -> Result<Self, ServeError> {
        let fault = |source| fault(interface, source);
        let index = if_nametoindex(interface.as_str())
            .map_err(|source| ServeError::NoInterface { interface: interface.clone(), source: source.into() })?;
        let port = hold_port(interface)?;
        let packets = packet_socket(index).map_err(fault)?;
        let packets = WatchedSocket::new(packets).map_err(fault)?;
        let ports = PortFinder::open(index).map_err(fault)?;
        let prober = Prober::open(index, ports.mac).map_err(fault)?;
        Ok(Self { packets, _port: port, index, ports, prober })
    }

    /// Waits for a packet and gives all that came with it, at most `most`, to `act`. An error means that the interface
    /// is gone or down.
    pub(super) async fn receive(
        &self,
        buffer: &mut [u8],
        most: usize,
        mut act: impl FnMut(Received<'_>),
    ) -> io::Result<()> {
        let mut ready = self.packets.ready().await?;
        for _ in 0..most {
            match ready.try_io(|socket| Ok(recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer)?)) {
                Ok(Ok((length, Some(link)))) => {
                    if let Some(received) = buffer.get(..length).and_then(|packet| accept(packet, &link)) {
                        act(received);
                    }
                }
                Ok(Ok((_, None))) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => break,
            }
        }
        Ok(())
    }

    /// Sends from `server`, port 67. Where the queue is full the packet is lost, as on any wire.
    pub(super) fn send(&self, server: Ipv4Addr, datagram: &Datagram) -> io::Result<()> {
        let destination = datagram.destination;
        let source = SocketAddrV4::new(server, SERVER_PORT);
        let packet =
            frame::build(source, destination.socket_addr(), &datagram.payload).ok_or(io::ErrorKind::InvalidInput)?;
        let mac = destination.mac().map_or([0xff; 6], MacAddr::octets);
        let address = link_address(self.index, ETHERTYPE_IPV4, mac)?;
        self.packets.socket().send_to(&packet, &address).map(drop)
    }
}

fn accept<'a>(packet: &'a [u8], link: &LinkAddr) -> Option<Received<'a>> {
    if !matches!(link.pkttype(), libc::PACKET_HOST | libc::PACKET_BROADCAST) || link.halen() != 6 {
        return None;
    }
    let mac = MacAddr::new(link.addr()?).ok()?;
    let parsed = frame::parse(packet).filter(|packet| packet.destination.port() == SERVER_PORT)?;
    // Relay agents speak from the server's port (RFC 2131 section 4.1), which guests may not.
    let relayed = parsed.payload.get(GIADDR).is_some_and(|giaddr| giaddr != [0; 4]);
    if relayed && parsed.source.port() != SERVER_PORT {
        return None;
    }
    Some(Received { source: parsed.source, mac, destination: *parsed.destination.ip(), payload: parsed.payload })
}

/// Bound without SO_REUSEADDR, so that a server that is there already is noticed: with it, two would share the port and
/// both answer. Shared afterwards, since a dnsmasq of another interface, libvirt's say, binds all of them before it
/// chooses its own.
fn hold_port(interface: &IfName) -> Result<Socket, ServeError> {
    let bind = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
        socket.bind_device(Some(interface.as_str().as_bytes()))?;
        socket.bind(&SockAddr::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVER_PORT)))?;
        socket.set_reuse_address(true)?;
        Ok(socket)
    };
    bind().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::PortTaken {
            interface: interface.clone(),
            port: SERVER_PORT,
            holders: holders::of_udp_port("udp", SERVER_PORT),
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
    socket.attach_filter(&dhcp_filter())?;
    socket.set_nonblocking(true)?;
    // Room for a burst of many guests.
    set_receive_buffer(&socket, RECEIVE_BUFFER)?;
    socket.bind(&link_address(index, ETHERTYPE_IPV4, [0; 6])?)?;
    Ok(socket)
}

const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Unfragmented UDP to port 67, the packet beginning with the IPv4 header.
fn dhcp_filter() -> [SockFilter; 9] {
    let load_byte = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    let load_half = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    let load_header_length = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
    let load_half_after_header = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let any_bit = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    [
        SockFilter::new(load_byte, 0, 0, 9),
        SockFilter::new(equal, 0, 5, libc::IPPROTO_UDP as u32),
        SockFilter::new(load_half, 0, 0, 6),
        SockFilter::new(any_bit, 3, 0, 0x3fff),
        SockFilter::new(load_header_length, 0, 0, 0),
        SockFilter::new(load_half_after_header, 0, 0, 2),
        SockFilter::new(equal, 1, 0, SERVER_PORT as u32),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}
