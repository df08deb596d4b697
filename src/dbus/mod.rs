//! dbus.
