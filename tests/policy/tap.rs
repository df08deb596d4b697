//! A tap that this process holds, as QEMU holds a guest's.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
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
