//! What people want: networks, subnets and ports, and what makes a set of them valid.
//!
//! An [`Intent`] changes only through [`Intent::apply`], which checks the change against all that is there and gives
//! back what undoes it.

mod address;
mod change;
mod check;
mod check_ipv6;
mod check_security;
mod dns;
mod document;
mod document_fields;
mod document_prune;
mod draft;
mod draft_security;
mod error;
mod host;
mod name;
mod network;
mod port;
mod resolve;
mod rule;
mod security;
mod set;
mod subnet;

pub use address::pick_address;
pub use change::{Change, Undo};
pub use dns::{HostDns, MAX_FORWARDERS, MAX_RECORDS, NetworkDns};
pub use document::{
    Action, Difference, Document, DocumentError, DocumentPlan, FieldChange, export_document, plan_document,
};
pub use draft::{NetworkDraft, PortDraft, SubnetDraft, patched};
pub use draft_security::{AddressGroupDraft, PairDraft, SecurityGroupDraft};
pub use error::IntentError;
pub use host::{Bridging, DhcpLimits, HostConfig, HostService, PhysicalNetwork};
pub use name::ResourceName;
pub use network::{Network, Segment};
pub use port::{Device, FixedIp, Origin, Port, Trunk};
pub use resolve::{NicRequest, NicSource, Resolution, ResolveError, changes_for, guest_port_id, resolve};
pub use rule::{RemoteDraft, RuleDraft, RuleDrafts, parse_prefix};
pub use security::{
    AddressGroup, AddressPair, Direction, Ethertype, NetworkSecurity, PortSecurity, Protection, Protocol, Qos, Rate,
    Remote, Rule, SecurityGroup,
};
pub use set::Intent;
pub use subnet::{Delegation, Forward, HostRoute, Ipv6Mode, Subnet, first_host, last_host};

use uuid::Uuid;

macro_rules! id_type {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub Uuid);

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}
id_type!(
    /// A [`Network`]'s identity; also the UUID of the libvirt network that offers it.
    NetworkId
);
id_type!(
    /// A [`Subnet`]'s identity.
    SubnetId
);
id_type!(
    /// A [`Port`]'s identity.
    PortId
);
id_type!(
    /// A [`SecurityGroup`]'s identity.
    SecurityGroupId
);
id_type!(
    /// An [`AddressGroup`]'s identity.
    AddressGroupId
);
