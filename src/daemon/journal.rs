//! Messages to journald in its own protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>). A field `domain` is
//! `VMFABRIC_DOMAIN`, to be searched for, and stands in the message too, which is all that `journalctl` shows.

use std::{
    fmt::{Debug, Write as _},
    io,
    os::unix::net::UnixDatagram,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

const SOCKET: &str = "/run/systemd/journal/socket";
/// A value is cut here, so that a message fits into a datagram whatever a guest or caller makes us say.
const MAX_VALUE: usize = 4096;

/// Sends what it is told; a journal that does not take it is no reason to stop.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    identifier: String,
}

impl Journal {
    pub(super) fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        let program = std::env::current_exe().ok();
        let name = program.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
        Ok(Self { socket, identifier: name.unwrap_or_else(|| "vmfabricd".to_owned()) })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        let bytes = entry.bytes(*event.metadata().level(), event.metadata().target(), &self.identifier);
        // There is nobody else to tell.
        let _ = self.socket.send(&bytes);
    }
}

/// One message as it is gathered.
#[derive(Debug, Default)]
struct Entry {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Entry {
    fn bytes(mut self, level: Level, target: &str, identifier: &str) -> Vec<u8> {
        for (name, value) in &self.fields {
            // A string cannot refuse to be written to.
            let _ = write!(self.message, " {name}={value}");
        }
        let priority = match level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            _ => "7",
        };
        let mut bytes = Vec::with_capacity(256);
        put(&mut bytes, "MESSAGE", &self.message);
        put(&mut bytes, "PRIORITY", priority);
        put(&mut bytes, "SYSLOG_IDENTIFIER", identifier);
        put(&mut bytes, "VMFABRIC_MODULE", target);
        for (name, value) in &self.fields {
            put(&mut bytes, &format!("VMFABRIC_{}", name.to_ascii_uppercase()), value);
        }
        bytes
    }

    fn take(&mut self, field: &Field, mut value: String) {
        if value.len() > MAX_VALUE {
            let end = (0..=MAX_VALUE).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
            value.truncate(end);
            value.push('…');
        }
        if field.name() == "message" { self.message = value } else { self.fields.push((field.name(), value)) }
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.take(field, format!("{value:?}"));
    }
}

/// With its length, so that a value may have line breaks.
fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b'\n');
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn fields_are_in_the_message_and_beside_it_and_nothing_ends_an_entry_early() {
        let folder = tempfile::tempdir().expect("a folder");
        let journald = UnixDatagram::bind(folder.path().join("socket")).expect("a socket");
        let socket = UnixDatagram::unbound().expect("a socket");
        socket.connect(folder.path().join("socket")).expect("connects");
        let journal = Journal { socket, identifier: "vmfabricd".to_owned() };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), || {
            let long = "ä".repeat(MAX_VALUE);
            tracing::warn!(domain = "web\nPRIORITY=0", port = %7, long, "port is {}", "up");
        });
        let mut bytes = vec![0; 1 << 16];
        let length = journald.recv(&mut bytes).expect("an entry");
        let (mut rest, mut fields) = (&bytes[..length], Vec::new());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let name = String::from_utf8(rest[..end].to_vec()).expect("text");
            let size = u64::from_le_bytes(rest[end + 1..end + 9].try_into().expect("eight bytes")) as usize;
            fields.push((name, String::from_utf8(rest[end + 9..end + 9 + size].to_vec()).expect("text")));
            rest = &rest[end + 10 + size..];
        }
        let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert!(
            field("MESSAGE").is_some_and(|text| text.starts_with("port is up domain=web\nPRIORITY=0 port=7 long=ä"))
        );
        assert_eq!(field("PRIORITY"), Some("4"));
        assert_eq!(field("VMFABRIC_DOMAIN"), Some("web\nPRIORITY=0"));
        assert_eq!(field("VMFABRIC_PORT"), Some("7"));
        assert!(field("VMFABRIC_LONG").is_some_and(|text| text.len() <= MAX_VALUE + '…'.len_utf8()));
    }
}
