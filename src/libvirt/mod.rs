//! libvirt: domain XML, the connection with its events, and the networks that are published into it.

mod backoff;
mod connection;
pub mod domain_xml;
mod events;
pub mod lease_file;
mod mailbox;
pub mod network_xml;
pub mod nic_source;
pub mod publish;
pub mod takeover;

pub use connection::{DomainError, DomainState, LibvirtConfig, LibvirtEvent, LibvirtHandle, Published, spawn};
