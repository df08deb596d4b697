//! What a fresh host gets, so that the daemon is useful without any configuration: a network, and a security group.

use super::{CommandError, Engine, Outlets};
use crate::{
    backend::{Driver, Store, Write},
    intent::{Change, Forward, NetworkDraft, NetworkId, ResourceName, SecurityGroup, SubnetDraft, SubnetId},
    net::{IfName, IpNet, Ipv4Net},
};
use std::{collections::BTreeSet, net::Ipv4Addr};
use uuid::Uuid;

/// The memo that says that the first network was made, so that one that was deleted does not come back.
pub(super) const MADE: &str = "default-network-made";
const NAME: &str = "nat";

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    /// The security group `default`, where it is missing: at the first start, and after an upgrade.
    pub(super) async fn make_default_group(&mut self) -> Result<(), CommandError> {
        let group = SecurityGroup::default_group()?;
        {
            let view = self.view();
            if view.intent.security_group(group.id).is_some() {
                return Ok(());
            }
            if let Ok(other) = view.intent.find_security_group(SecurityGroup::DEFAULT_NAME) {
                tracing::warn!(id = %other.id, "a security group of somebody's is called 'default'; none is made");
                return Ok(());
            }
        }
        match self.commit(vec![Change::PutSecurityGroup(group)]).await {
            // What runs goes on without it; the next start tries again.
            Err(CommandError::Store(error)) => tracing::warn!(%error, "the security group 'default' is not made yet"),
            result => result?,
        }
        Ok(())
    }

    pub(super) async fn make_default_network(&mut self) -> Result<(), CommandError> {
        let Some(cidr) = self.free_block() else {
            tracing::warn!(
                "no block of 192.168.0.0/16 is free on this host, so that no network was made; make one with 'vmfabric network create'"
            );
            return Ok(());
        };
        let name = ResourceName::new(NAME).expect("a constant that is a name");
        let network = {
            let view = self.view();
            let draft = NetworkDraft::named(name.clone()).with_defaults(&view.host);
            draft.complete(NetworkId(Uuid::new_v4()), &view.intent, None)
        };
        let network = match network {
            Ok(network) => network,
            // Rather no network than one that is open where the administrator wants it filtered.
            Err(error) => {
                tracing::warn!(%error, "no network was made: filter.default_security_groups of vmfabricd.toml");
                return Ok(());
            }
        };
        let mut with_network = self.view().intent.clone();
        let host = self.view().host.clone();
        // Only to complete the subnet against; what counts is the commit below.
        let _ = with_network.apply(vec![Change::PutNetwork(network.clone())], &host)?;
        let subnet = SubnetDraft {
            name: Some(name),
            forward: Some(Forward::Nat),
            ..SubnetDraft::new(network.id.to_string(), cidr)
        };
        let subnet = subnet.complete(SubnetId(Uuid::new_v4()), &with_network)?;
        tracing::info!(network = NAME, %cidr, "first start: made a network for guests");
        let made = Write::PutMemo { key: MADE.to_owned(), value: cidr.to_string() };
        self.commit_with(vec![Change::PutNetwork(network), Change::PutSubnet(subnet)], vec![made]).await
    }

    /// 192.168.123.0/24, or the next that this host does not use.
    fn free_block(&self) -> Option<IpNet> {
        let taken: &BTreeSet<(IfName, IpNet)> = &self.observed.datapath.addresses;
        (123..=254).chain(2..123).find_map(|third| {
            let block = IpNet::V4(Ipv4Net::new(Ipv4Addr::new(192, 168, third, 0), 24).ok()?);
            let overlaps = taken.iter().any(|(_, a)| a.contains(&block.network()) || block.contains(&a.addr()));
            (!overlaps).then_some(block)
        })
    }
}
