//! The loop that makes the kernel what the intent says: one task owns all changes; readers see its [`View`].

mod handle;
mod view;

pub use crate::planner::{Problem, Subject};
pub use handle::{Command, CommandError, Handle, Notice, Reply};
pub use view::{Attachment, Health, LibvirtStatus, PortStatus, View};
