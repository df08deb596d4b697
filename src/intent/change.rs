use super::{
    AddressGroup, AddressGroupId, Network, NetworkId, Port, PortId, SecurityGroup, SecurityGroupId, Subnet, SubnetId,
};

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
    PutSecurityGroup(SecurityGroup),
    /// Refused while a port, a network or a rule names it.
    DeleteSecurityGroup(SecurityGroupId),
    PutAddressGroup(AddressGroup),
    /// Refused while a rule names it.
    DeleteAddressGroup(AddressGroupId),
}

/// What takes an applied change back.
#[derive(Debug, Default)]
#[must_use = "an applied change that does not reach the store must be undone"]
pub struct Undo(pub(super) Vec<Change>);
