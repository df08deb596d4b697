//! Looking for addresses on the link by ARP (RFC 5227): two probes; who answers within a while has it.

use crate::{
    ffi::packet::{ETHERTYPE_ARP, WatchedSocket, link_address},
    net::MacAddr,
};
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, SockFilter, Socket, Type};
use std::{
    collections::{HashSet, VecDeque},
    io,
    net::Ipv4Addr,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

/// From a probe to the next, and from the last to the verdict. Guests are a bridge away, and a busy one needs a while.
const WAIT: Duration = Duration::from_millis(150);
const PROBES: u8 = 2;
/// Answers taken in at a time.
const BATCH: usize = 256;

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) address: Ipv4Addr,
    /// Who has it.
    pub(super) holder: Option<MacAddr>,
}

/// As many addresses as the engine asks for, which limits itself.
#[derive(Debug)]
pub(super) struct Prober {
    socket: WatchedSocket,
    index: u32,
    mac: [u8; 6],
    pending: HashSet<Ipv4Addr>,
    /// When each is due, and how often it was asked for. All wait equally long, so they are in order.
    schedule: VecDeque<(Instant, Ipv4Addr, u8)>,
}

impl Prober {
    /// `mac`: the interface's own.
    pub(super) fn open(index: u32, mac: [u8; 6]) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        socket.attach_filter(&arp_filter())?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(1 << 18)?;
        socket.bind(&link_address(index, ETHERTYPE_ARP, [0; 6])?)?;
        let socket = WatchedSocket::new(socket)?;
        Ok(Self { socket, index, mac, pending: HashSet::new(), schedule: VecDeque::new() })
    }

    pub(super) fn start(&mut self, address: Ipv4Addr, now: Instant) {
        if self.pending.insert(address) {
            self.send(address);
            self.schedule.push_back((now + WAIT, address, 1));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.schedule.front().map(|(at, ..)| *at)
    }

    /// Asks again, or decides.
    pub(super) fn tick(&mut self, now: Instant, verdicts: &mut Vec<Verdict>) {
        while let Some((_, address, asked)) = self.schedule.front().copied().filter(|(at, ..)| *at <= now) {
            self.schedule.pop_front();
            if !self.pending.contains(&address) {
                continue;
            }
            if asked < PROBES {
                self.send(address);
                self.schedule.push_back((now + WAIT, address, asked + 1));
            } else {
                self.pending.remove(&address);
                verdicts.push(Verdict { address, holder: None });
            }
        }
    }

    /// Waits for ARP packets and takes in those that tell of an address that is looked for.
    pub(super) async fn receive(&self, verdicts: &mut Vec<Verdict>) -> io::Result<()> {
        let mut ready = self.socket.ready().await?;
        let mut buffer = [0; 64];
        for _ in 0..BATCH {
            match ready.try_io(|socket| Ok(recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer)?)) {
                Ok(Ok((length, Some(link)))) if link.pkttype() != libc::PACKET_OUTGOING => {
                    let told = buffer.get(..length).and_then(told);
                    verdicts.extend(told.filter(|verdict| self.pending.contains(&verdict.address)));
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => break,
            }
        }
        Ok(())
    }

    /// An address of which the verdict is known needs no further probe.
    pub(super) fn settle(&mut self, address: Ipv4Addr) -> bool {
        self.pending.remove(&address)
    }

    fn send(&self, address: Ipv4Addr) {
        let packet = request(self.mac, address);
        // Where the queue is full the probe is lost; there is a second one.
        let _ = link_address(self.index, ETHERTYPE_ARP, [0xff; 6])
            .and_then(|everybody| self.socket.socket().send_to(&packet, &everybody));
    }
}

/// An ARP probe: no sender's address, so that nobody's cache changes (RFC 5227 section 1.1).
fn request(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(mac);
    packet.extend([0; 4]);
    packet.extend([0; 6]);
    packet.extend(address.octets());
    packet
}

/// The sender of an ARP packet, and the address that it says it has.
fn told(packet: &[u8]) -> Option<Verdict> {
    let (head, rest) = packet.split_first_chunk::<8>()?;
    let (mac, rest) = rest.split_first_chunk::<6>()?;
    let address = Ipv4Addr::from(*rest.first_chunk::<4>()?);
    let sound = head[..6] == [0, 1, 8, 0, 6, 4] && !address.is_unspecified();
    sound.then_some(Verdict { address, holder: Some(MacAddr::new(*mac).ok()?) })
}

/// ARP packets that name a sender.
fn arp_filter() -> [SockFilter; 4] {
    let load_word = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let ret = (libc::BPF_RET | libc::BPF_K) as u16;
    [
        SockFilter::new(load_word, 0, 0, 14),
        SockFilter::new(equal, 0, 1, 0),
        SockFilter::new(ret, 0, 0, 0),
        SockFilter::new(ret, 0, 0, u32::MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_tells_nothing_and_an_answer_its_sender() {
        let address = Ipv4Addr::new(10, 0, 0, 9);
        let mut packet = request([2, 0, 0, 0, 0, 1], address);
        assert_eq!((packet.len(), told(&packet)), (28, None));
        packet[14..18].copy_from_slice(&address.octets());
        let holder = MacAddr::new([2, 0, 0, 0, 0, 1]).ok();
        assert_eq!(told(&packet), Some(Verdict { address, holder }));
        for cut in 0..18 {
            assert_eq!(told(&packet[..cut]), None);
        }
        packet[4] = 8;
        assert_eq!(told(&packet), None);
    }
}
