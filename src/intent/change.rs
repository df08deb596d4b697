use super::{Network, NetworkId, Port, PortId, Subnet, SubnetId};

/// One change of the intent. `Put` makes or replaces whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    PutNetwork(Network),
    /// Its subnets and ports go with it.
    DeleteNetwork(NetworkId),
    PutSubnet(Subnet),
    /// Its ports lose their addresses in it.
    DeleteSubnet(SubnetId),
    PutPort(Port),
    DeletePort(PortId),
}

/// What takes an applied change back.
#[derive(Debug, Default)]
#[must_use = "an applied change that does not reach the store must be undone"]
pub struct Undo(pub(super) Vec<Change>);
