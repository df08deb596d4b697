//! Who touches our nftables tables besides us, as the kernel tells it (`NFNLGRP_NFTABLES`).

use super::{THREAD, netlink::HEADER};
use crate::backend::LinkEvent;
use netlink_packet_core::{NetlinkBuffer, NlasIterator};
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt};
use std::{future::poll_fn, io};
use tokio::sync::mpsc;

const DATAGRAM: usize = 64 * 1024;
const RECEIVE_BUFFER: usize = 4 << 20;
/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const GROUP: u32 = 7;
const SUBSYSTEM: u16 = 10;
/// `NFT_MSG_NEWGEN`, which ends a transaction, and its `NFTA_GEN_PROC_NAME` (linux/netfilter/nf_tables.h).
const NEWGEN: u16 = 15;
const PROCESS: u16 = 3;
/// The first attribute of every message about a part of a table is the table's name.
const TABLE: u16 = 1;
/// Of `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;

/// Tells [`LinkEvent::Tables`] whenever another process has changed a table named as ours, until the receiver is gone.
pub(super) fn watch(events: mpsc::Sender<LinkEvent>) -> io::Result<()> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    if setsockopt(socket.socket_ref(), sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = setsockopt(socket.socket_ref(), sockopt::RcvBuf, &RECEIVE_BUFFER);
    }
    socket.socket_mut().bind(&SocketAddr::new(0, 1 << (GROUP - 1)))?;
    tokio::spawn(run(socket, events));
    Ok(())
}

async fn run(socket: TokioSocket, events: mpsc::Sender<LinkEvent>) {
    let (mut buffer, mut reader) = (Vec::with_capacity(DATAGRAM), Reader::default());
    loop {
        buffer.clear();
        let touched = tokio::select! {
            () = events.closed() => return,
            received = poll_fn(|cx| socket.poll_recv(cx, &mut buffer)) => match received {
                Ok(()) if buffer.len() < DATAGRAM => reader.read(&buffer),
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => true,
                Err(error) => return tracing::error!(%error, "nftables are no longer watched"),
            },
        };
        if touched && events.send(LinkEvent::Tables).await.is_err() {
            return;
        }
    }
}

#[derive(Debug, Default)]
struct Reader {
    /// The transaction that is being told concerns a table of ours.
    ours: bool,
}

impl Reader {
    /// Whether somebody else changed a table of ours.
    fn read(&mut self, mut datagram: &[u8]) -> bool {
        let mut touched = false;
        while !datagram.is_empty() {
            let Ok(message) = NetlinkBuffer::new_checked(datagram) else { return true };
            let length = message.length() as usize;
            let attributes = datagram.get(HEADER + FAMILY_HEADER..length).unwrap_or_default();
            match (message.message_type() >> 8, message.message_type() & 0xff) {
                (SUBSYSTEM, NEWGEN) => {
                    let ours = std::mem::take(&mut self.ours);
                    touched |= ours && !says(attributes, PROCESS, THREAD);
                }
                (SUBSYSTEM, _) => self.ours |= says(attributes, TABLE, "vmfabric"),
                _ => {}
            }
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        touched
    }
}

/// Whether a text attribute says this.
fn says(attributes: &[u8], kind: u16, words: &str) -> bool {
    let mut found = NlasIterator::new(attributes).flatten().filter(|nla| nla.kind() == kind);
    found.next().is_some_and(|nla| nla.value().strip_suffix(&[0]).unwrap_or(nla.value()) == words.as_bytes())
}
