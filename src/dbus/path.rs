//! Object paths: `/org/vmfabric1/{network,subnet,port,security_group,address_group}/<32 hex digits of the id>`.

use crate::intent::{AddressGroupId, NetworkId, PortId, SecurityGroupId, SubnetId};
use uuid::Uuid;
use zbus::{ObjectPath, OwnedObjectPath};

/// Where the Manager and the ObjectManager are.
pub const ROOT: &str = "/org/vmfabric1";

/// The kinds of resources that have objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Network,
    Subnet,
    Port,
    SecurityGroup,
    AddressGroup,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Network, Self::Subnet, Self::Port, Self::SecurityGroup, Self::AddressGroup];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Network => "network",
            Kind::Subnet => "subnet",
            Kind::Port => "port",
            Kind::SecurityGroup => "security_group",
            Kind::AddressGroup => "address_group",
        }
    }

    pub fn interface(self) -> &'static str {
        match self {
            Kind::Network => "org.vmfabric1.Network",
            Kind::Subnet => "org.vmfabric1.Subnet",
            Kind::Port => "org.vmfabric1.Port",
            Kind::SecurityGroup => "org.vmfabric1.SecurityGroup",
            Kind::AddressGroup => "org.vmfabric1.AddressGroup",
        }
    }

    /// As people say it.
    pub fn words(self) -> String {
        self.as_str().replace('_', " ")
    }

    pub fn path(self, id: Uuid) -> OwnedObjectPath {
        let path = format!("{ROOT}/{}/{}", self.as_str(), id.simple());
        ObjectPath::try_from(path).expect("letters, digits and slashes are an object path").into()
    }
}

pub fn network(id: NetworkId) -> OwnedObjectPath {
    Kind::Network.path(id.0)
}

pub fn subnet(id: SubnetId) -> OwnedObjectPath {
    Kind::Subnet.path(id.0)
}

pub fn port(id: PortId) -> OwnedObjectPath {
    Kind::Port.path(id.0)
}

pub fn security_group(id: SecurityGroupId) -> OwnedObjectPath {
    Kind::SecurityGroup.path(id.0)
}

pub fn address_group(id: AddressGroupId) -> OwnedObjectPath {
    Kind::AddressGroup.path(id.0)
}

/// What a path names; `None` for one that is not a resource's.
pub fn parse(path: &str) -> Option<(Kind, Uuid)> {
    let (kind, id) = path.strip_prefix(ROOT)?.strip_prefix('/')?.split_once('/')?;
    let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    Some((kind, Uuid::try_parse(id).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_back() {
        let id = Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0);
        assert_eq!(Kind::Port.path(id).as_str(), "/org/vmfabric1/port/123456789abcdef0123456789abcdef0");
        for kind in Kind::ALL {
            assert_eq!(parse(kind.path(id).as_str()), Some((kind, id)));
        }
        for other in [ROOT, "/", "/org/vmfabric1/port", "/org/vmfabric1/router/00", "/org/vmfabric1/port/x"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
