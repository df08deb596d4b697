//! What the kernel has, asked one question after another on one blocking socket, and read leniently: a link of a kind
//! that this program does not know must not hide the others. Changes go through rtnetlink.

use super::changer::Changer;
use crate::backend::DriverError;
use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{MsgFlags, recv};
use std::{io, os::fd::AsRawFd};

pub(super) const HEADER: usize = 16;
/// What the kernel puts in one datagram at most, with room to spare (`netlink_dump`: 32 KiB).
const DATAGRAM: usize = 256 * 1024;
/// `NLM_F_ACK_TLVS`: attributes follow the error.
const ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words.
pub(super) const ATTR_MSG: u16 = 1;
/// How often a dump that raced with a change is done anew.
const RETRIES: usize = 16;

#[derive(Debug)]
pub(super) enum Error {
    /// The kernel refused; `message` is its extended acknowledgement, where there is one.
    Refused {
        errno: i32,
        message: Option<String>,
    },
    Socket(io::Error),
    /// An answer that is not netlink as we know it.
    Malformed,
    /// Links came and went while they were being listed.
    Interrupted,
}

impl Error {
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

impl From<Error> for DriverError {
    fn from(error: Error) -> Self {
        match error {
            // With words of its own the kernel means the request, not the right to make it.
            Error::Refused { errno: libc::EPERM | libc::EACCES, message: None } => DriverError::NotPermitted,
            Error::Refused { errno, message: Some(message) } => {
                DriverError::Netlink(format!("{message} ({})", io::Error::from_raw_os_error(errno)))
            }
            Error::Refused { errno, message: None } => {
                DriverError::Netlink(io::Error::from_raw_os_error(errno).to_string())
            }
            Error::Socket(error) => DriverError::Netlink(error.to_string()),
            Error::Malformed => DriverError::Netlink("the kernel's answer cannot be read".into()),
            Error::Interrupted => {
                DriverError::Netlink("the host's links change faster than they can be listed; try again".into())
            }
        }
    }
}

/// A socket of the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    /// Opened by the first change.
    changer: Option<Changer>,
}

impl Netlink {
    pub fn open() -> Result<Self, DriverError> {
        Self::of(NETLINK_ROUTE)
    }

    /// A socket of one of the kernel's netlink families (`NETLINK_…`).
    pub fn of(protocol: isize) -> Result<Self, DriverError> {
        let open = || {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            // Connected: takes messages from the kernel only.
            socket.connect(&SocketAddr::new(0, 0))?;
            // Older kernels lack these; they give less to read, or more to skip.
            let _ = socket.set_ext_ack(true);
            let _ = socket.set_cap_ack(true);
            let _ = socket.set_netlink_get_strict_chk(true);
            Ok(socket)
        };
        let socket = open().map_err(Error::Socket)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; DATAGRAM], changer: None })
    }

    /// A change: waits for the acknowledgement.
    pub fn change(&mut self, flags: u16, message: RouteNetlinkMessage) -> Result<(), Error> {
        let changer = match &mut self.changer {
            Some(changer) => changer,
            closed => closed.insert(Changer::open().map_err(Error::Socket)?),
        };
        changer.change(flags, message)
    }

    /// One object, handed to `each`.
    pub fn get(&mut self, kind: u16, message: &impl Emitable, each: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        self.exchange(kind, 0, &bytes(message), each)
    }

    /// A change that rtnetlink is not for: waits for the acknowledgement.
    pub fn request(&mut self, kind: u16, message: &[u8]) -> Result<(), Error> {
        self.exchange(kind, 0, message, &mut |_| {})
    }

    /// A request with flags of its own; what is answered is handed to `each`.
    pub fn ask(&mut self, kind: u16, flags: u16, message: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        self.exchange(kind, flags, message, each)
    }

    /// All objects, from one moment: what an interrupted dump brought is thrown away.
    pub fn dump<T>(
        &mut self,
        kind: u16,
        message: &[u8],
        decode: &mut dyn FnMut(&[u8], &mut Vec<T>),
    ) -> Result<Vec<T>, Error> {
        for _ in 0..RETRIES {
            let mut objects = Vec::new();
            match self.exchange(kind, NLM_F_DUMP, message, &mut |payload| decode(payload, &mut objects)) {
                Ok(()) => return Ok(objects),
                Err(Error::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Interrupted)
    }

    fn exchange(&mut self, kind: u16, flags: u16, payload: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + payload.len()).map_err(|_| Error::Malformed)?;
        let mut message = Vec::with_capacity(HEADER + payload.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(payload);
        self.socket.send(&message, 0).map_err(Error::Socket)?;

        let sequence = self.sequence;
        let mut interrupted = false;
        loop {
            let mut datagram = self.receive()?;
            while !datagram.is_empty() {
                let message = NetlinkBuffer::new_checked(datagram).map_err(|_| Error::Malformed)?;
                let length = message.length() as usize;
                if message.sequence_number() == sequence {
                    interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                    let payload = datagram.get(HEADER..length).ok_or(Error::Malformed)?;
                    match message.message_type() {
                        NLMSG_ERROR => return outcome(payload, message.flags()),
                        NLMSG_DONE if interrupted => return Err(Error::Interrupted),
                        NLMSG_DONE => return outcome(payload, 0),
                        _ => each(payload),
                    }
                }
                datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    fn receive(&mut self) -> Result<&[u8], Error> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) => return self.buffer.get(..length).ok_or(Error::Malformed),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(Error::Socket(error.into())),
            }
        }
    }
}

pub(super) fn bytes(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

/// Of an `NLMSG_ERROR` or `NLMSG_DONE` (kernel `Documentation/userspace-api/netlink/intro.rst`).
fn outcome(payload: &[u8], flags: u16) -> Result<(), Error> {
    let code = match payload.first_chunk() {
        Some(code) => i32::from_ne_bytes(*code),
        None => 0,
    };
    if code == 0 {
        return Ok(());
    }
    let mut message = None;
    // The request's header stands between: capped acknowledgements hold no more of it.
    if let Some(attributes) = payload.get(4 + HEADER..).filter(|_| flags & ACK_TLVS != 0) {
        for attribute in NlasIterator::new(attributes).map_while(Result::ok) {
            if attribute.kind() == ATTR_MSG {
                let text = String::from_utf8_lossy(attribute.value());
                message = Some(text.trim_end_matches('\0').to_owned());
            }
        }
    }
    Err(Error::Refused { errno: code.saturating_neg(), message })
}
