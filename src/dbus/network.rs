use super::{
    Context, Error,
    access::Action,
    export::{Dirty, Exported, Known, Shared},
    info::{Changes, NetworkInfo},
    path,
    value::{self, Dictionary},
};
use crate::{
    intent::{NetworkDraft, NetworkId},
    reconciler::{Command, View},
};
use std::{collections::BTreeMap, sync::Arc};
use zbus::{Connection, OwnedObjectPath, interface, message::Header};

/// `org.vmfabric1.Network`, documented in `dbus/org.vmfabric1.Network.xml`.
#[derive(Debug)]
pub struct NetworkObject {
    context: Arc<Context>,
    id: NetworkId,
    info: Shared<NetworkInfo>,
}

impl Exported for NetworkObject {
    type Id = NetworkId;
    type Info = NetworkInfo;

    fn read(view: &View, id: NetworkId) -> Option<NetworkInfo> {
        view.intent.network(id).map(|network| NetworkInfo::of(network, view))
    }

    fn changes(old: &NetworkInfo, new: &NetworkInfo) -> Changes {
        NetworkInfo::changes(old, new)
    }

    fn path(id: NetworkId) -> OwnedObjectPath {
        path::network(id)
    }

    fn make(context: &Arc<Context>, id: NetworkId, info: Shared<NetworkInfo>) -> Self {
        Self { context: Arc::clone(context), id, info }
    }

    fn known(known: &mut Known) -> &mut BTreeMap<NetworkId, Shared<NetworkInfo>> {
        &mut known.networks
    }
}

#[interface(name = "org.vmfabric1.Network", introspection_docs = false)]
impl NetworkObject {
    async fn update(
        &self,
        changes: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::ManageNetworks).await?;
        let patch = value::to_patch(&changes)?;
        let draft = self.context.handle.view().intent.network(self.id).map(NetworkDraft::of);
        value::check_patch(draft, &patch)?;
        self.context.handle.call(|reply| Command::UpdateNetwork(self.id, patch, reply)).await?;
        self.context.sync(bus, Dirty::network(self.id)).await
    }

    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::ManageNetworks).await?;
        self.context.handle.call(|reply| Command::DeleteNetwork(self.id, reply)).await?;
        self.context.sync(bus, Dirty::network(self.id)).await
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.id.to_string()
    }

    #[zbus(property)]
    fn name(&self) -> String {
        self.info.read(|info| info.name.clone())
    }

    #[zbus(property)]
    fn segment(&self) -> String {
        self.info.read(|info| info.segment.clone())
    }

    #[zbus(property)]
    fn physical_network(&self) -> String {
        self.info.read(|info| info.physical_network.clone())
    }

    #[zbus(property)]
    fn vlan(&self) -> u16 {
        self.info.read(|info| info.vlan)
    }

    #[zbus(property)]
    fn bridge(&self) -> String {
        self.info.read(|info| info.bridge.clone())
    }

    #[zbus(property)]
    fn mtu(&self) -> u16 {
        self.info.read(|info| info.mtu)
    }

    #[zbus(property)]
    fn dns_domain(&self) -> String {
        self.info.read(|info| info.dns_domain.clone())
    }

    #[zbus(property)]
    fn subnets(&self) -> Vec<OwnedObjectPath> {
        self.info.read(|info| info.subnets.clone())
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
    fn status(&self) -> String {
        self.info.read(|info| info.status.clone())
    }

    #[zbus(property)]
    fn problems(&self) -> Vec<String> {
        self.info.read(|info| info.problems.clone())
    }
}
