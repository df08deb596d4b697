use crate::intent::{NetworkId, PortId, SubnetId};

/// What a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    Host,
    Network(NetworkId),
    Subnet(SubnetId),
    Port(PortId),
}

/// Something that is wanted and cannot be, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub subject: Subject,
    pub message: String,
    /// The subject works all the same, only not in all that it is to do.
    pub partial: bool,
}

impl Problem {
    pub fn new(subject: Subject, message: impl Into<String>) -> Self {
        Self { subject, message: message.into(), partial: false }
    }

    pub fn partial(subject: Subject, message: impl Into<String>) -> Self {
        Self { partial: true, ..Self::new(subject, message) }
    }
}
