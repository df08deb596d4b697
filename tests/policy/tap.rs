//! A tap that this process holds, as QEMU holds a guest's.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Makes the tap; it goes with this value.
    #[allow(unsafe_code)]
    pub fn open(name: &str) -> Self {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
        let file = file.expect("/dev/net/tun");
        // SAFETY: all zero is a value of this plain structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).expect("small");
        // SAFETY: the descriptor is open, and the kernel reads and writes one `ifreq`.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        assert_eq!(done, 0, "TUNSETIFF {name}: {}", std::io::Error::last_os_error());
        Self(file)
    }

    /// The guest sends. The kernel has dealt with the frame when this returns.
    pub fn send(&mut self, frame: &[u8]) {
        self.0.write_all(frame).expect("the tap is up");
    }

    /// What the guest has been sent since the last time.
    pub fn received(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            match self.0.read(&mut buffer) {
                Ok(length) => frames.push(buffer[..length].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return frames,
                Err(error) => panic!("the tap cannot be read: {error}"),
            }
        }
    }
}

/// A packet socket of the host on one of its links, as a DHCP server has.
#[derive(Debug)]
pub struct HostSocket(OwnedFd);

impl HostSocket {
    #[allow(unsafe_code)]
    pub fn open(link: &str) -> Self {
        let all = i32::from(u16::try_from(libc::ETH_P_ALL).expect("small").to_be());
        // SAFETY: a socket is made; the descriptor is this one's alone.
        let socket = unsafe {
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(socket >= 0, "a packet socket: {}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(socket)
        };
        let name = std::ffi::CString::new(link).expect("a link's name");
        // SAFETY: all zero is a value of this plain structure, and the name ends with NUL.
        let (mut address, index): (libc::sockaddr_ll, u32) =
            unsafe { (std::mem::zeroed(), libc::if_nametoindex(name.as_ptr())) };
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("small");
        address.sll_protocol = u16::try_from(all).expect("small");
        address.sll_ifindex = index.cast_signed();
        let length = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("small");
        // SAFETY: the address is as long as said.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "{link}: {}", std::io::Error::last_os_error());
        Self(socket)
    }

    pub fn send(&self, frame: &[u8]) {
        nix::unistd::write(&self.0, frame).expect("the link is up");
    }
}
