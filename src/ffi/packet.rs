//! Packet sockets (packet(7)): their addresses, and waiting for them; room for what comes in, for any socket.
#![allow(unsafe_code)]

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockAddr, Socket};
use std::{io, mem::size_of, os::fd::AsFd};
use tokio::io::{
    Interest,
    unix::{AsyncFd, AsyncFdReadyGuard},
};

/// `ETH_P_IP`.
pub const ETHERTYPE_IPV4: u16 = 0x0800;

/// `ETH_P_IPV6`.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// `ETH_P_ARP`.
pub const ETHERTYPE_ARP: u16 = 0x0806;

/// A `sockaddr_ll`: to bind to an interface, or to send a frame to `destination` through it. `interface` is an
/// interface index, `ethertype` in host byte order.
pub fn link_address(interface: u32, ethertype: u16, destination: [u8; 6]) -> io::Result<SockAddr> {
    let index = i32::try_from(interface).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let [a, b, c, d, e, f] = destination;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [a, b, c, d, e, f, 0, 0],
    };
    // SAFETY: the storage is a `sockaddr_storage`, which is larger than a `sockaddr_ll` and at least as aligned; all of
    // the address is written, and its length and family are set to fit.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

/// Room for `bytes` that wait to be read: past net.core.rmem_max where we may (CAP_NET_ADMIN), else up to it.
pub fn set_receive_buffer(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &bytes)?;
    }
    Ok(())
}

const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

/// A nonblocking socket that the runtime watches for packets.
#[derive(Debug)]
pub struct WatchedSocket(AsyncFd<Socket>);

impl WatchedSocket {
    /// To be called within a runtime.
    pub fn new(socket: Socket) -> io::Result<Self> {
        // SAFETY: a `Socket` owns its descriptor, names the same one always and closes it only when it is dropped;
        // this type hands out only shared references, so nobody can put another in its place.
        unsafe { AsyncFd::register_with_interest(socket, INTEREST) }.map(Self).map_err(io::Error::from)
    }

    pub fn socket(&self) -> &Socket {
        self.0.get_ref()
    }

    /// Waits for a packet, or for an error such as the loss of the interface.
    pub async fn ready(&self) -> io::Result<AsyncFdReadyGuard<'_, Socket>> {
        self.0.ready(INTEREST).await
    }
}
