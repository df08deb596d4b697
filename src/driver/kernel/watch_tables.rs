//! Who touches our nftables tables besides us, and whether others' tables change, as the kernel tells it
//! (`NFNLGRP_NFTABLES`).

use super::{THREAD, netlink::HEADER};
use crate::{backend::LinkEvent, ffi::packet::set_receive_buffer};
use netlink_packet_core::{NetlinkBuffer, NlasIterator};
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER};
use std::{future::poll_fn, io, time::Duration};
use tokio::{sync::mpsc, time::Instant};

const DATAGRAM: usize = 64 * 1024;
const RECEIVE_BUFFER: usize = 4 << 20;
/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const GROUP: u32 = 7;
const SUBSYSTEM: u16 = 10;
/// `NFT_MSG_NEWGEN`, which ends a transaction, and its `NFTA_GEN_PROC_NAME` (linux/netfilter/nf_tables.h).
const NEWGEN: u16 = 15;
const PROCESS: u16 = 3;
/// `NFT_MSG_DELTABLE`.
const DELTABLE: u16 = 2;
/// `NFT_MSG_NEWTABLE` to `NFT_MSG_DELRULE`, but for the questions among them: tables, chains, rules.
const STRUCTURE: [u16; 6] = [0, 2, 3, 5, 6, 8];
/// Others' changes are told when they have come to rest: who reloads its rules step by step, as ufw does, fails where an
/// entry of ours comes in between. Where they never rest, after the second time.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// The first attribute of every message about a part of a table is the table's name.
const TABLE: u16 = 1;
/// Of `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;

/// Tells [`LinkEvent::Tables`] whenever another process has changed a table named as ours, [`LinkEvent::TablesGone`]
/// where it deleted one, and [`LinkEvent::Neighbours`] when chains or rules of other tables have changed, until the
/// receiver is gone.
pub(super) fn watch(events: mpsc::Sender<LinkEvent>) -> io::Result<()> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    let _ = set_receive_buffer(socket.socket_ref(), RECEIVE_BUFFER);
    socket.socket_mut().bind(&SocketAddr::new(0, 1 << (GROUP - 1)))?;
    tokio::spawn(run(socket, events));
    Ok(())
}

async fn run(socket: TokioSocket, events: mpsc::Sender<LinkEvent>) {
    let (mut buffer, mut reader) = (Vec::with_capacity(DATAGRAM), Reader::default());
    // Since when others' changes wait to be told, and until when.
    let (mut since, mut due) = (None::<Instant>, None::<Instant>);
    loop {
        buffer.clear();
        let seen = tokio::select! {
            () = events.closed() => return,
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                (since, due) = (None, None);
                if events.send(LinkEvent::Neighbours).await.is_err() {
                    return;
                }
                continue;
            }
            received = poll_fn(|cx| socket.poll_recv(cx, &mut buffer)) => match received {
                Ok(()) if buffer.len() < DATAGRAM => reader.read(&buffer),
                Ok(()) => Seen::ALL,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Seen::default(),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Seen::ALL,
                Err(error) => return tracing::error!(%error, "nftables are no longer watched"),
            },
        };
        if seen.others {
            let now = Instant::now();
            due = Some((now + REST.0).min(*since.get_or_insert(now) + REST.1));
        }
        let event = if seen.gone { LinkEvent::TablesGone } else { LinkEvent::Tables };
        if seen.ours && events.send(event).await.is_err() {
            return;
        }
    }
}

/// What messages tell.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// Somebody else changed a table of ours.
    ours: bool,
    /// … and deleted one.
    gone: bool,
    /// Chains or rules of other tables are not what they were.
    others: bool,
}

impl Seen {
    const ALL: Seen = Seen { ours: true, gone: true, others: true };
}

#[derive(Debug, Default)]
struct Reader {
    /// What the transaction that is being told concerns.
    under_way: Seen,
}

impl Reader {
    fn read(&mut self, mut datagram: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while !datagram.is_empty() {
            let Ok(message) = NetlinkBuffer::new_checked(datagram) else { return Seen::ALL };
            let length = message.length() as usize;
            let attributes = datagram.get(HEADER + FAMILY_HEADER..length).unwrap_or_default();
            match (message.message_type() >> 8, message.message_type() & 0xff) {
                (SUBSYSTEM, NEWGEN) => {
                    let done = std::mem::take(&mut self.under_way);
                    let theirs = done.ours && !says(attributes, PROCESS, THREAD);
                    (seen.ours, seen.gone) = (seen.ours | theirs, seen.gone | theirs && done.gone);
                    seen.others |= done.others;
                }
                (SUBSYSTEM, kind) if says(attributes, TABLE, "vmfabric") => {
                    self.under_way.ours = true;
                    self.under_way.gone |= kind == DELTABLE;
                }
                (SUBSYSTEM, kind) => self.under_way.others |= STRUCTURE.contains(&kind),
                _ => {}
            }
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        seen
    }
}

/// Whether a text attribute says this.
fn says(attributes: &[u8], kind: u16, words: &str) -> bool {
    let mut found = NlasIterator::new(attributes).flatten().filter(|nla| nla.kind() == kind);
    found.next().is_some_and(|nla| nla.value().strip_suffix(&[0]).unwrap_or(nla.value()) == words.as_bytes())
}
