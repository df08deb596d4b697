use super::{
    Context, Error, Kind,
    access::{Action, Verb},
    export::{Dirty, Exported, Known, Shared},
    info::{Changes, NetworkInfo},
    path,
    value::{self, Dictionary},
};
use crate::{
    intent::{NetworkDraft, NetworkId},
    net::ParseError,
    reconciler::{Command, RecordFilter, View},
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
        self.context.authorize(bus, &header, Action::Of(Verb::Change, Kind::Network)).await?;
        let draft = {
            let view = self.context.handle.view();
            view.intent.network(self.id).map(|network| NetworkDraft::of_in(network, &view.intent))
        };
        let patch = value::patch_of(&changes, draft)?;
        self.context.handle.call(|reply| Command::UpdateNetwork(self.id, patch, reply)).await?;
        self.context.sync(bus, Dirty::network(self.id)).await
    }

    async fn add_record(
        &self,
        record: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Change, Kind::Network)).await?;
        let record = record.parse().map_err(|error: ParseError| Error::InvalidArgument(error.to_string()))?;
        self.context.handle.call(|reply| Command::AddRecord(self.id, record, reply)).await?;
        self.context.sync(bus, Dirty::network(self.id)).await
    }

    #[zbus(out_args("removed"))]
    async fn remove_records(
        &self,
        name: String,
        r#type: String,
        data: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<u32, Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Change, Kind::Network)).await?;
        let name = name.parse().map_err(|error: ParseError| Error::InvalidArgument(error.to_string()))?;
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let which = RecordFilter { name, type_name: some(r#type), data: some(data) };
        let removed = self.context.handle.call(|reply| Command::RemoveRecords(self.id, which, reply)).await?;
        self.context.sync(bus, Dirty::network(self.id)).await?;
        Ok(removed)
    }

    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Delete, Kind::Network)).await?;
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
    fn dns_records(&self) -> Vec<String> {
        self.info.read(|info| info.dns_records.clone())
    }

    #[zbus(property)]
    fn dns_forwarders(&self) -> Vec<String> {
        self.info.read(|info| info.dns_forwarders.clone())
    }

    #[zbus(property)]
    fn dns_shared_with(&self) -> Vec<OwnedObjectPath> {
        self.info.read(|info| info.dns_shared_with.clone())
    }

    #[zbus(property)]
    fn dns_forward_unknown(&self) -> bool {
        self.info.read(|info| info.dns_forward_unknown)
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

    #[zbus(property)]
    fn port_security(&self) -> bool {
        self.info.read(|info| info.port_security)
    }

    #[zbus(property)]
    fn security_groups(&self) -> Vec<OwnedObjectPath> {
        self.info.read(|info| info.security_groups.clone())
    }

    #[zbus(property)]
    fn isolated(&self) -> bool {
        self.info.read(|info| info.isolated)
    }
}
