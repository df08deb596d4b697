//! libvirt: domain XML, the connection with its events, and the networks that are published into it.

pub mod domain_xml;
