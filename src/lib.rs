//! vmfabric: networks for the virtual machines of a libvirt host.
//!
//! `docs/architecture.md` is the map. A module imports only from those above it in this list; everything down to
//! [`protocol`] is pure: no sockets, files, SQL, clock or randomness.

pub mod net;

pub mod ffi;

pub mod intent;

pub mod datapath;

pub mod policy;

pub mod planner;

pub mod diff;

pub mod protocol;

pub mod backend;

pub mod store;

pub mod libvirt;

pub mod driver;

pub mod server;

pub mod reconciler;

pub mod dbus;

pub mod metrics;

pub mod cli;

pub mod daemon;
