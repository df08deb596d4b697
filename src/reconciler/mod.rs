//! The loop that makes the kernel what the intent says: one task owns all changes; readers see its [`View`].

mod bootstrap;
mod commands;
mod commit;
mod documents;
mod engine;
mod group_commands;
mod guests;
mod handle;
mod hook;
mod import;
pub mod importer;
mod index;
mod leases;
mod libvirt;
mod links;
mod listed_texts;
mod outlets;
mod pass;
mod previous_sysctls;
mod revoke;
mod services;
mod view;
mod yielded;

#[cfg(test)]
mod tests;

pub use crate::planner::{Problem, Subject};
pub use documents::{DocumentRequest, PreparedDocument};
pub use engine::{Engine, Inputs, StartError};
pub use group_commands::GroupCommand;
pub use guests::source_of;
pub use handle::{Command, CommandError, Handle, Notice, RecordFilter, Reply};
pub use import::{ImportCommand, ImportMemo, TakeOver, TakenGuest};
pub use index::HookIndex;
pub use outlets::Outlets;
pub(crate) use previous_sysctls::{forget_former_boot, forgetting, previous_of};
pub use services::{DnsEntry, DnsService, Ipv6Service, NetworkServices, lease_owner};
pub use view::{Attachment, Health, LibvirtStatus, PortStatus, View};
