//! The loop that makes the kernel what the intent says: one task owns all changes; readers see its [`View`].

mod bootstrap;
mod commands;
mod engine;
mod guests;
mod handle;
mod hook;
mod index;
mod leases;
mod libvirt;
mod links;
mod outlets;
mod pass;
mod services;
mod view;

#[cfg(test)]
mod tests;

pub use crate::planner::{Problem, Subject};
pub(crate) use engine::previous_of;
pub use engine::{Engine, Inputs, StartError};
pub use guests::source_of;
pub use handle::{Command, CommandError, Handle, Notice, Reply};
pub use index::HookIndex;
pub use outlets::Outlets;
pub use services::{DnsEntry, DnsService, NetworkServices};
pub use view::{Attachment, Health, LibvirtStatus, PortStatus, View};
