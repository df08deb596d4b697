//! Many datagrams in one call: recvmmsg(2) and sendmmsg(2).
#![allow(unsafe_code)]

use std::{
    io,
    mem::{MaybeUninit, size_of},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd},
};

/// The most datagrams of one batch.
pub const BATCH: usize = 64;
/// A longer datagram is cut off.
pub const DATAGRAM: usize = 1280;

/// Room for a batch of datagrams that came in, and for an answer to each. Holds no pointers between calls.
pub struct Batch {
    received: Vec<[u8; DATAGRAM]>,
    lengths: [usize; BATCH],
    addresses: Vec<libc::sockaddr_storage>,
    address_lengths: [libc::socklen_t; BATCH],
    count: usize,
    answers: Vec<Vec<u8>>,
    answered: Vec<usize>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Default for Batch {
    fn default() -> Self {
        // SAFETY: a `sockaddr_storage` is plain integers, for which zero is a value.
        let address: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
        Self {
            received: vec![[0; DATAGRAM]; BATCH],
            lengths: [0; BATCH],
            addresses: vec![address; BATCH],
            address_lengths: [0; BATCH],
            count: 0,
            answers: vec![Vec::new(); BATCH],
            answered: Vec::with_capacity(BATCH),
        }
    }
}

impl Batch {
    /// Takes in what waits at a nonblocking datagram socket; `WouldBlock` where nothing does. How many they are: fewer
    /// than [`BATCH`] means that nothing more waited at that moment.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.count = 0;
        self.answered.clear();
        // SAFETY: `mmsghdr` and `iovec` are integers and pointers, for which zero is a value.
        let mut vectors: [libc::iovec; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        for (((header, vector), buffer), address) in
            headers.iter_mut().zip(&mut vectors).zip(&mut self.received).zip(&mut self.addresses)
        {
            *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: DATAGRAM };
            header.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: each header points at a buffer, an address and a vector that live until the call is over, with their
        // true sizes; the kernel writes within those.
        let got = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                flags as _,
                std::ptr::null_mut(),
            )
        };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        self.count = got.min(BATCH);
        for (at, header) in headers.iter().enumerate().take(self.count) {
            self.lengths[at] = (header.msg_len as usize).min(DATAGRAM);
            self.address_lengths[at] = header.msg_hdr.msg_namelen;
        }
        Ok(self.count)
    }

    /// A datagram that came in, from where, and the buffer for its answer.
    pub fn get(&mut self, at: usize) -> Option<(&[u8], SocketAddr, &mut Vec<u8>)> {
        if at >= self.count {
            return None;
        }
        let from = address_of(self.addresses.get(at)?)?;
        Some((&self.received[at][..self.lengths[at]], from, self.answers.get_mut(at)?))
    }

    /// The answer to that datagram is to be sent.
    pub fn answer(&mut self, at: usize) {
        if at < self.count && self.answered.len() < BATCH {
            self.answered.push(at);
        }
    }

    /// Sends the answers. One that cannot be sent is left out, as a network might lose it; so are all behind it where
    /// the socket's buffer is full. How many were sent.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> usize {
        // SAFETY: as in `receive`.
        let mut vectors: [libc::iovec; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: as in `receive`.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        for ((header, vector), &at) in headers.iter_mut().zip(&mut vectors).zip(&self.answered) {
            let answer = &self.answers[at];
            *vector = libc::iovec { iov_base: answer.as_ptr().cast_mut().cast(), iov_len: answer.len() };
            header.msg_hdr.msg_name = std::ptr::from_ref(&self.addresses[at]).cast_mut().cast();
            header.msg_hdr.msg_namelen = self.address_lengths[at];
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        let (mut next, mut sent) = (0, 0);
        while next < self.answered.len() {
            let rest = &mut headers[next..self.answered.len()];
            // SAFETY: each header points at an answer, an address and a vector that live until the call is over, with
            // their true sizes; the kernel only reads those.
            let done = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            };
            match usize::try_from(done) {
                Ok(done) => {
                    (next, sent) = (next + done.max(1), sent + done);
                }
                Err(_) => match io::Error::last_os_error().kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => break,
                    _ => next += 1,
                },
            }
        }
        self.answered.clear();
        for answer in &mut self.answers {
            // A single long answer must not keep its room for ever.
            answer.shrink_to(DATAGRAM);
        }
        sent
    }
}

fn address_of(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says what it is, and a `sockaddr_storage` is at least as large and as aligned.
            let v4 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
            match ip {
                IpAddr::V6(ip) => {
                    let port = u16::from_be(v6.sin6_port);
                    Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
                }
                IpAddr::V4(ip) => Some(SocketAddrV4::new(ip, u16::from_be(v6.sin6_port)).into()),
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::UdpSocket, os::fd::AsFd};

    #[test]
    fn batches_come_and_are_answered() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
        server.set_nonblocking(true).expect("nonblocking");
        let mut batch = Batch::default();
        let empty = batch.receive(server.as_fd()).expect_err("nothing waits");
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);

        let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
        client.connect(server.local_addr().expect("address")).expect("connect");
        for n in 0..5u8 {
            client.send(&[n; 3]).expect("send");
        }
        assert_eq!(batch.receive(server.as_fd()).expect("they wait"), 5);
        for at in 0..5 {
            let (bytes, from, answer) = batch.get(at).expect("received");
            assert_eq!((bytes, from), (&[at as u8; 3][..], client.local_addr().expect("address")));
            *answer = vec![at as u8 + 100];
            if at != 2 {
                batch.answer(at);
            }
        }
        assert!(batch.get(5).is_none());
        assert_eq!(batch.send(server.as_fd()), 4);
        let mut buffer = [0; 8];
        for expected in [100, 101, 103, 104] {
            assert_eq!(client.recv(&mut buffer).expect("answer"), 1);
            assert_eq!(buffer[0], expected);
        }
    }
}
