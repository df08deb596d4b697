//! What the kernel tells without being asked.

use super::{
    decode::{RawLink, decode_default_route},
    netlink::Netlink,
    observe::{dump_links, names},
    tc,
};
use crate::{
    backend::{DriverError, LinkEvent},
    ffi::packet::set_receive_buffer,
    net::IfName,
};
use netlink_packet_core::NetlinkBuffer;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use std::{collections::HashMap, future::poll_fn, io, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// Events that wait for their reader.
pub const CAPACITY: usize = 4096;
/// Bytes that wait in the kernel, some thousand messages.
const RECEIVE_BUFFER: usize = 8 << 20;
const DATAGRAM: usize = 64 * 1024;
const HEADER: usize = 16;
/// Who takes a limit away may be about to put one of its own there, as libvirt is, whose command would find ours again.
const REST: Duration = Duration::from_secs(2);
/// `RTNLGRP_LINK`, `RTNLGRP_TC`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE` as bits of the old form.
const GROUPS: u32 = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 6;

/// Follows links, IPv4 addresses, IPv4 default routes and what others do to nftables in the calling thread's network
/// namespace, until the receiver is dropped. Events that do not fit into the channel, or that the kernel had no room for, come as one
/// [`LinkEvent::Overrun`]. To be called within a tokio runtime.
pub fn watch() -> Result<mpsc::Receiver<LinkEvent>, DriverError> {
    let (events, receiver) = mpsc::channel(CAPACITY);
    watch_into(events)?;
    Ok(receiver)
}

/// The same, into a channel that others tell of too.
pub fn watch_into(events: mpsc::Sender<LinkEvent>) -> Result<(), DriverError> {
    let socket = open().map_err(|error| DriverError::Netlink(format!("links cannot be watched: {error}")))?;
    // After the subscription, so that no link is missed.
    let names = names(&dump_links(&mut Netlink::open()?)?);
    super::watch_tables::watch(events.clone())
        .map_err(|error| DriverError::Netlink(format!("nftables cannot be watched: {error}")))?;
    tokio::spawn(Watcher { socket, events, names, overrun: false, limits: None }.run());
    Ok(())
}

fn open() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    let _ = set_receive_buffer(socket.socket_ref(), RECEIVE_BUFFER);
    socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
    Ok(socket)
}

struct Watcher {
    socket: TokioSocket,
    events: mpsc::Sender<LinkEvent>,
    names: HashMap<u32, IfName>,
    /// An overrun is still to be told; until then nothing else need be.
    overrun: bool,
    /// Limits that somebody took away are told then.
    limits: Option<Instant>,
}

impl Watcher {
    async fn run(mut self) {
        let events = self.events.clone();
        let mut buffer = Vec::with_capacity(DATAGRAM);
        loop {
            buffer.clear();
            tokio::select! {
                () = events.closed() => return,
                permit = events.reserve(), if self.overrun => {
                    let Ok(permit) = permit else { return };
                    permit.send(LinkEvent::Overrun);
                    self.overrun = false;
                }
                () = tokio::time::sleep_until(self.limits.unwrap_or_else(Instant::now)), if self.limits.is_some() => {
                    self.limits = None;
                    self.overrun |= self.events.try_send(LinkEvent::Limits).is_err();
                }
                received = poll_fn(|cx| self.socket.poll_recv(cx, &mut buffer)) => match received {
                    // A full buffer may be a message cut short.
                    Ok(()) if buffer.len() < DATAGRAM => self.read(&buffer),
                    Ok(()) => self.overrun = true,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // The kernel dropped messages.
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.overrun = true,
                    Err(error) => return tracing::error!(%error, "links are no longer watched"),
                },
            }
        }
    }

    fn read(&mut self, mut datagram: &[u8]) {
        while !datagram.is_empty() {
            let Ok(message) = NetlinkBuffer::new_checked(datagram) else { return self.overrun = true };
            let length = message.length() as usize;
            let payload = datagram.get(HEADER..length).unwrap_or_default();
            let event = match message.message_type() {
                libc::RTM_NEWLINK => RawLink::decode(payload).and_then(|link| self.changed(link)),
                libc::RTM_DELLINK => RawLink::decode(payload).and_then(|link| self.gone(link)),
                libc::RTM_DELQDISC | libc::RTM_DELTFILTER => {
                    if tc::concerns_us(payload) {
                        self.limits = Some(Instant::now() + REST);
                    }
                    None
                }
                libc::RTM_NEWADDR | libc::RTM_DELADDR => Some(LinkEvent::Layer3),
                // Other routes concern nobody here, and a router may have a million that change.
                libc::RTM_NEWROUTE | libc::RTM_DELROUTE => decode_default_route(payload).map(|_| LinkEvent::Layer3),
                _ => None,
            };
            if let Some(event) = event
                && !self.overrun
            {
                self.overrun = self.events.try_send(event).is_err();
            }
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    fn changed(&mut self, raw: RawLink) -> Option<LinkEvent> {
        let name = IfName::new(&raw.name).ok()?;
        let bridging = i32::from(raw.family) == libc::AF_BRIDGE;
        let former = self.names.insert(raw.index, name.clone());
        let mac = raw.mac;
        let mut link = raw.into_link(|index| self.names.get(&index).cloned());
        if bridging {
            // A port's VLANs or state: such a message tells neither kind nor alias.
            (link.kind, link.alias) = (None, None);
            // Such a message about a bridge itself names it as its own master.
            link.master = link.master.map(|master| master.filter(|master| *master != name));
        }
        // A link that was renamed is gone under its former name, which no message tells.
        if let Some(former) = former.filter(|former| *former != name) {
            self.send_gone(former);
        }
        Some(LinkEvent::Link { name, link, mac })
    }

    fn send_gone(&mut self, name: IfName) {
        if !self.overrun {
            self.overrun = self.events.try_send(LinkEvent::Gone { name }).is_err();
        }
    }

    fn gone(&mut self, raw: RawLink) -> Option<LinkEvent> {
        // Of the family AF_BRIDGE: it left its bridge, as the RTM_NEWLINK that follows tells.
        if i32::from(raw.family) == libc::AF_BRIDGE {
            return None;
        }
        let name = self.names.remove(&raw.index).or_else(|| IfName::new(&raw.name).ok())?;
        Some(LinkEvent::Gone { name })
    }
}
