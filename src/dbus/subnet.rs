use super::{
    Context, Error, Kind,
    access::{Action, Verb},
    export::{Dirty, Exported, Known, Shared},
    info::{Changes, SubnetInfo},
    path,
    value::{self, Dictionary},
};
use crate::{
    intent::{SubnetDraft, SubnetId},
    reconciler::{Command, View},
};
use std::{collections::BTreeMap, sync::Arc};
use zbus::{Connection, OwnedObjectPath, interface, message::Header};

/// `org.vmfabric1.Subnet`, documented in `dbus/org.vmfabric1.Subnet.xml`.
#[derive(Debug)]
pub struct SubnetObject {
    context: Arc<Context>,
    id: SubnetId,
    info: Shared<SubnetInfo>,
}

impl Exported for SubnetObject {
    type Id = SubnetId;
    type Info = SubnetInfo;

    fn read(view: &View, id: SubnetId) -> Option<SubnetInfo> {
        view.intent.subnet(id).map(|subnet| SubnetInfo::of(subnet, view))
    }

    fn changes(old: &SubnetInfo, new: &SubnetInfo) -> Changes {
        SubnetInfo::changes(old, new)
    }

    fn path(id: SubnetId) -> OwnedObjectPath {
        path::subnet(id)
    }

    fn make(context: &Arc<Context>, id: SubnetId, info: Shared<SubnetInfo>) -> Self {
        Self { context: Arc::clone(context), id, info }
    }

    fn known(known: &mut Known) -> &mut BTreeMap<SubnetId, Shared<SubnetInfo>> {
        &mut known.subnets
    }
}

#[interface(name = "org.vmfabric1.Subnet", introspection_docs = false)]
impl SubnetObject {
    async fn update(
        &self,
        changes: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Change, Kind::Subnet)).await?;
        let draft = self.context.handle.view().intent.subnet(self.id).map(SubnetDraft::of);
        let patch = value::patch_of(&changes, draft)?;
        self.context.handle.call(|reply| Command::UpdateSubnet(self.id, patch, reply)).await?;
        self.context.sync(bus, Dirty::subnet(self.id)).await
    }

    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Delete, Kind::Subnet)).await?;
        self.context.handle.call(|reply| Command::DeleteSubnet(self.id, reply)).await?;
        self.context.sync(bus, Dirty::subnet(self.id)).await
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.id.to_string()
    }

    #[zbus(property)]
    fn network(&self) -> OwnedObjectPath {
        self.info.read(|info| info.network.clone())
    }

    #[zbus(property)]
    fn name(&self) -> String {
        self.info.read(|info| info.name.clone())
    }

    #[zbus(property)]
    fn cidr(&self) -> String {
        self.info.read(|info| info.cidr.clone())
    }

    #[zbus(property)]
    fn gateway(&self) -> String {
        self.info.read(|info| info.gateway.clone())
    }

    #[zbus(property)]
    fn host_address(&self) -> String {
        self.info.read(|info| info.host_address.clone())
    }

    #[zbus(property)]
    fn pools(&self) -> Vec<String> {
        self.info.read(|info| info.pools.clone())
    }

    #[zbus(property)]
    fn dhcp(&self) -> bool {
        self.info.read(|info| info.dhcp)
    }

    #[zbus(property)]
    fn dns_servers(&self) -> Vec<String> {
        self.info.read(|info| info.dns_servers.clone())
    }

    #[zbus(property)]
    fn host_routes(&self) -> Vec<(String, String)> {
        self.info.read(|info| info.host_routes.clone())
    }

    #[zbus(property)]
    fn forward(&self) -> String {
        self.info.read(|info| info.forward.clone())
    }

    #[zbus(property)]
    fn lease_seconds(&self) -> u32 {
        self.info.read(|info| info.lease_seconds)
    }

    #[zbus(property)]
    fn dhcp_options(&self) -> Vec<String> {
        self.info.read(|info| info.dhcp_options.clone())
    }

    #[zbus(property)]
    fn dhcp_boot(&self) -> Vec<String> {
        self.info.read(|info| info.dhcp_boot.clone())
    }

    #[zbus(property)]
    fn dhcp_relays(&self) -> Vec<String> {
        self.info.read(|info| info.dhcp_relays.clone())
    }

    #[zbus(property)]
    fn ipv6_mode(&self) -> String {
        self.info.read(|info| info.ipv6_mode.clone())
    }

    #[zbus(property)]
    fn pd_block(&self) -> String {
        self.info.read(|info| info.pd_block.clone())
    }

    #[zbus(property)]
    fn pd_length(&self) -> u8 {
        self.info.read(|info| info.pd_length)
    }

    #[zbus(property)]
    fn ntp_servers(&self) -> Vec<String> {
        self.info.read(|info| info.ntp_servers.clone())
    }

    #[zbus(property)]
    fn dhcp_pool_full(&self) -> bool {
        self.info.read(|info| info.dhcp_pool_full)
    }

    #[zbus(property)]
    fn status(&self) -> String {
        self.info.read(|info| info.status.clone())
    }

    #[zbus(property)]
    fn problems(&self) -> Vec<String> {
        self.info.read(|info| info.problems.clone())
    }
}
