//! Changes of links and addresses, through rtnetlink.

use super::netlink::{ATTR_MSG, Error, HEADER};
use futures_util::StreamExt as _;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::AsyncSocket as _;
use rtnetlink::Handle;
use std::io;
use tokio::runtime::{Builder, Runtime};

/// A connection in the network namespace of the thread that opened it, driven by whoever waits for an answer.
#[derive(Debug)]
pub(super) struct Changer {
    runtime: Runtime,
    handle: Handle,
}

impl Changer {
    pub fn open() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let _context = runtime.enter();
        let (mut connection, handle, _unasked) = rtnetlink::new_connection()?;
        let socket = connection.socket_mut().socket_mut();
        // Older kernels lack these; their refusals come without words.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        drop(_context);
        runtime.spawn(connection);
        Ok(Self { runtime, handle })
    }

    /// Waits for the acknowledgement.
    pub fn change(&mut self, flags: u16, message: RouteNetlinkMessage) -> Result<(), Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let handle = &mut self.handle;
        self.runtime.block_on(async {
            let mut answers = handle.request(request).map_err(|error| Error::Socket(io::Error::other(error)))?;
            while let Some(answer) = answers.next().await {
                if let NetlinkPayload::Error(error) = answer.payload {
                    return match error.code {
                        None => Ok(()),
                        Some(code) => Err(Error::Refused {
                            errno: code.get().saturating_neg(),
                            message: kernel_words(&error.header),
                        }),
                    };
                }
            }
            // An acknowledgement without an error ends the answers.
            Ok(())
        })
    }
}

/// The extended acknowledgement that follows the request's header, where the kernel gives one.
fn kernel_words(after_code: &[u8]) -> Option<String> {
    let attributes = NlasIterator::new(after_code.get(HEADER..)?).map_while(Result::ok);
    let mut words = attributes.filter(|attribute| attribute.kind() == ATTR_MSG);
    words.next().map(|words| String::from_utf8_lossy(words.value()).trim_end_matches('\0').to_owned())
}
