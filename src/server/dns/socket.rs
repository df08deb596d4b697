use super::ServeError;
use crate::{
    ffi::packet::{WatchedSocket, set_receive_buffer},
    net::IfName,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
};
use tokio::net::TcpListener;

/// Room for some thousand questions, so that a flood can be told from a pause of this host before others' are lost.
const RECEIVE_BUFFER: usize = 4 << 20;
const BACKLOG: i32 = 128;

/// A UDP socket and a TCP listener at one address, that hear only what comes in by `interface`. The address need not
/// be up yet. Port 0 is any free one (tests).
pub(super) fn bind(interface: &IfName, address: IpAddr, port: u16) -> Result<(WatchedSocket, TcpListener), ServeError> {
    let failed = |port, error| ServeError::new(interface, address, port, error);
    let udp = open(interface, address, port, Type::DGRAM).map_err(|e| failed(port, e))?;
    let bound = udp.local_addr().map_err(|e| failed(port, e))?;
    let port = bound.as_socket().map_or(port, |at| at.port());
    let udp = WatchedSocket::new(udp).map_err(|e| failed(port, e))?;
    let tcp = open(interface, address, port, Type::STREAM).map_err(|e| failed(port, e))?;
    let tcp = TcpListener::from_std(tcp.into()).map_err(|e| failed(port, e))?;
    Ok((udp, tcp))
}

fn open(interface: &IfName, address: IpAddr, port: u16, kind: Type) -> io::Result<Socket> {
    let at = scoped(interface, address, port)?;
    let (domain, protocol) =
        (Domain::for_address(at), if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP });
    let socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    // Before bind(2), so that the kernel weighs conflicts on this interface only.
    socket.bind_device(Some(interface.as_str().as_bytes()))?;
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    if kind == Type::STREAM {
        // Only past connections' remains: another listener still conflicts.
        socket.set_reuse_address(true)?;
    } else {
        set_receive_buffer(&socket, RECEIVE_BUFFER)?;
    }
    socket.bind(&at.into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

fn scoped(interface: &IfName, address: IpAddr, port: u16) -> io::Result<SocketAddr> {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            let scope = nix::net::if_::if_nametoindex(interface.as_str())?;
            Ok(SocketAddrV6::new(v6, port, 0, scope).into())
        }
        _ => Ok(SocketAddr::new(address, port)),
    }
}
