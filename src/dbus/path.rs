//! Object paths: `/org/vmfabric1/{network,subnet,port}/<32 hex digits of the id>`.

use crate::intent::{NetworkId, PortId, SubnetId};
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
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Network => "network",
            Kind::Subnet => "subnet",
            Kind::Port => "port",
        }
    }

    pub fn interface(self) -> &'static str {
        match self {
            Kind::Network => "org.vmfabric1.Network",
            Kind::Subnet => "org.vmfabric1.Subnet",
            Kind::Port => "org.vmfabric1.Port",
        }
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

/// What a path names; `None` for one that is not a resource's.
pub fn parse(path: &str) -> Option<(Kind, Uuid)> {
    let (kind, id) = path.strip_prefix(ROOT)?.strip_prefix('/')?.split_once('/')?;
    let kind = [Kind::Network, Kind::Subnet, Kind::Port].into_iter().find(|known| known.as_str() == kind)?;
    Some((kind, Uuid::try_parse(id).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_back() {
        let id = Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0);
        assert_eq!(Kind::Port.path(id).as_str(), "/org/vmfabric1/port/123456789abcdef0123456789abcdef0");
        assert_eq!(parse(Kind::Port.path(id).as_str()), Some((Kind::Port, id)));
        for other in [ROOT, "/", "/org/vmfabric1/port", "/org/vmfabric1/router/00", "/org/vmfabric1/port/x"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
