//! How guests learn that their gateway has another MAC address: they are asked for theirs, and note who asks.

use crate::net::{IfName, MacAddr};
use nix::net::if_::if_nametoindex;
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddrV6},
    time::Duration,
};
use tokio::time::Instant;

/// Nobody listens there (RFC 863).
const DISCARD: u16 = 9;
/// How long an address may take to be the host's own, and how often it is tried.
const ADDRESS_READY: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

/// Asks guests for their MAC addresses: by that they learn the gateway's new one (RFC 826), which they would else look
/// for only when they miss it.
pub async fn greet(addresses: Vec<IpAddr>) {
    let sent = async {
        let socket = tokio::net::UdpSocket::bind(("0.0.0.0", 0)).await?;
        for address in addresses {
            socket.send_to(&[], (address, DISCARD)).await?;
        }
        std::io::Result::Ok(())
    };
    if let Err(error) = sent.await {
        tracing::debug!(%error, "guests were not greeted");
    }
}

/// The same from the host's IPv6 addresses (RFC 4861 section 7.2.3), which are its own a second or two after they were added
/// (RFC 4862 section 5.4).
pub async fn greet_ipv6(bridge: IfName, from: Vec<Ipv6Addr>, guests: Vec<MacAddr>) {
    let Ok(scope) = if_nametoindex(bridge.as_str()) else { return };
    let deadline = Instant::now() + ADDRESS_READY;
    for address in from {
        let socket = loop {
            match tokio::net::UdpSocket::bind((address, 0)).await {
                Ok(socket) => break socket,
                Err(_) if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
                Err(error) => return tracing::debug!(%address, %error, "guests were not greeted"),
            }
        };
        for mac in &guests {
            let to = SocketAddrV6::new(mac.link_local(), DISCARD, 0, scope);
            if let Err(error) = socket.send_to(&[], to).await {
                tracing::debug!(%address, %error, "a guest was not greeted");
            }
        }
    }
}
