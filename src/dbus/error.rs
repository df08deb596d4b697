//! What D-Bus callers are refused with: `org.vmfabric1.Error.*`.

use crate::{
    intent::{DocumentError, IntentError},
    reconciler::CommandError,
};

/// A refused call. The text says what is wrong and what to do; nothing has changed.
#[derive(Debug, Clone, zbus::DBusError)]
#[zbus(prefix = "org.vmfabric1.Error")]
pub enum Error {
    /// The bus itself: connection lost, nobody owns the name, a malformed message.
    #[zbus(error)]
    Bus(zbus::Error),
    /// No resource has that name or id.
    NotFound(String),
    /// An argument is unknown, malformed or out of range.
    InvalidArgument(String),
    /// The name, address, VLAN or block belongs to another resource.
    Conflict(String),
    /// The pools have no free address.
    AddressExhausted(String),
    /// A running guest needs the resource.
    InUse(String),
    /// polkit says no, or cannot be asked.
    NotAuthorized(String),
    /// Too many requests at once; try again.
    Busy(String),
    /// The change could not be put on disk.
    StoreFailed(String),
    /// Anything else.
    Failed(String),
}

impl From<IntentError> for Error {
    fn from(error: IntentError) -> Self {
        let text = error.to_string();
        match error {
            IntentError::NotFound { .. } => Error::NotFound(text),
            IntentError::NameTaken { .. }
            | IntentError::MacTaken { .. }
            | IntentError::AddressTaken { .. }
            | IntentError::SubnetOverlap { .. }
            | IntentError::HostOverlap { .. }
            | IntentError::VlanTaken { .. }
            | IntentError::FlatTaken { .. }
            | IntentError::RuleTaken { .. } => Error::Conflict(text),
            IntentError::InUse { .. } => Error::InUse(text),
            IntentError::PoolExhausted { .. } => Error::AddressExhausted(text),
            _ => Error::InvalidArgument(text),
        }
    }
}

impl From<DocumentError> for Error {
    fn from(error: DocumentError) -> Self {
        let text = error.to_string();
        match error.source.into() {
            Error::NotFound(_) => Error::NotFound(text),
            Error::Conflict(_) => Error::Conflict(text),
            Error::InUse(_) => Error::InUse(text),
            Error::AddressExhausted(_) => Error::AddressExhausted(text),
            _ => Error::InvalidArgument(text),
        }
    }
}

impl From<CommandError> for Error {
    fn from(error: CommandError) -> Self {
        let text = error.to_string();
        match error {
            CommandError::Intent(error) => error.into(),
            CommandError::Document(error) => error.into(),
            CommandError::PlanChanged => Error::Conflict(text),
            CommandError::Store(_) => Error::StoreFailed(text),
            CommandError::InUse { .. } => Error::InUse(text),
            CommandError::Busy => Error::Busy(text),
            CommandError::Driver(_) | CommandError::Import(_) | CommandError::Stopping => Error::Failed(text),
        }
    }
}
