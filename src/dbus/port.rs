use super::{
    Context, Error, Kind,
    access::{Action, Verb},
    export::{Dirty, Exported, Known, Shared},
    info::{Changes, PortInfo},
    insight, path,
    value::{self, Dictionary},
};
use crate::{
    intent::{PortDraft, PortId},
    reconciler::{Command, View},
};
use std::{collections::BTreeMap, sync::Arc};
use zbus::{Connection, OwnedObjectPath, interface, message::Header};

/// `org.vmfabric1.Port`, documented in `dbus/org.vmfabric1.Port.xml`.
#[derive(Debug)]
pub struct PortObject {
    context: Arc<Context>,
    id: PortId,
    info: Shared<PortInfo>,
}

impl Exported for PortObject {
    type Id = PortId;
    type Info = PortInfo;

    fn read(view: &View, id: PortId) -> Option<PortInfo> {
        view.intent.port(id).map(|port| PortInfo::of(port, view))
    }

    fn changes(old: &PortInfo, new: &PortInfo) -> Changes {
        PortInfo::changes(old, new)
    }

    fn path(id: PortId) -> OwnedObjectPath {
        path::port(id)
    }

    fn make(context: &Arc<Context>, id: PortId, info: Shared<PortInfo>) -> Self {
        Self { context: Arc::clone(context), id, info }
    }

    fn known(known: &mut Known) -> &mut BTreeMap<PortId, Shared<PortInfo>> {
        &mut known.ports
    }
}

#[interface(name = "org.vmfabric1.Port", introspection_docs = false)]
impl PortObject {
    async fn update(
        &self,
        changes: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Change, Kind::Port)).await?;
        let draft = self.context.handle.view().intent.port(self.id).map(PortDraft::of);
        let patch = value::patch_of(&changes, draft)?;
        self.context.handle.call(|reply| Command::UpdatePort(self.id, patch, reply)).await?;
        self.context.sync(bus, Dirty::port(self.id)).await
    }

    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Delete, Kind::Port)).await?;
        self.context.handle.call(|reply| Command::DeletePort(self.id, reply)).await?;
        self.context.sync(bus, Dirty::port(self.id)).await
    }

    #[zbus(out_args("statistics"))]
    async fn get_statistics(&self) -> Result<insight::Answer, Error> {
        match self.context.counters(self.id).await? {
            Some(counters) => insight::statistics(&counters),
            None => Ok(insight::Answer::new()),
        }
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.id.to_string()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn network(&self) -> OwnedObjectPath {
        self.info.read(|info| info.network.clone())
    }

    #[zbus(property)]
    fn name(&self) -> String {
        self.info.read(|info| info.name.clone())
    }

    #[zbus(property)]
    fn mac(&self) -> String {
        self.info.read(|info| info.mac.clone())
    }

    #[zbus(property)]
    fn addresses(&self) -> Vec<String> {
        self.info.read(|info| info.addresses.clone())
    }

    #[zbus(property)]
    fn trunk_vlans(&self) -> Vec<u16> {
        self.info.read(|info| info.trunk_vlans.clone())
    }

    #[zbus(property)]
    fn trunk_only_tagged(&self) -> bool {
        self.info.read(|info| info.trunk_only_tagged)
    }

    #[zbus(property)]
    fn dns_name(&self) -> String {
        self.info.read(|info| info.dns_name.clone())
    }

    #[zbus(property)]
    fn device(&self) -> String {
        self.info.read(|info| info.device.clone())
    }

    #[zbus(property)]
    fn device_name(&self) -> String {
        self.info.read(|info| info.device_name.clone())
    }

    #[zbus(property)]
    fn origin(&self) -> String {
        self.info.read(|info| info.origin.clone())
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
    fn dhcp_client_id(&self) -> String {
        self.info.read(|info| info.dhcp_client_id.clone())
    }

    #[zbus(property)]
    fn status(&self) -> String {
        self.info.read(|info| info.status.clone())
    }

    #[zbus(property)]
    fn tap(&self) -> String {
        self.info.read(|info| info.tap.clone())
    }

    #[zbus(property)]
    fn domain(&self) -> String {
        self.info.read(|info| info.domain.clone())
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
    fn isolated(&self) -> bool {
        self.info.read(|info| info.isolated)
    }

    #[zbus(property)]
    fn security_groups(&self) -> Vec<OwnedObjectPath> {
        self.info.read(|info| info.security_groups.clone())
    }

    #[zbus(property)]
    fn effective_security_groups(&self) -> Vec<OwnedObjectPath> {
        self.info.read(|info| info.effective_security_groups.clone())
    }

    #[zbus(property)]
    fn filtered(&self) -> bool {
        self.info.read(|info| info.filtered)
    }

    #[zbus(property)]
    fn inherited(&self) -> Vec<String> {
        self.info.read(|info| info.inherited.clone())
    }

    #[zbus(property)]
    fn allowed_address_pairs(&self) -> Vec<(String, String)> {
        self.info.read(|info| info.allowed_address_pairs.clone())
    }

    #[zbus(property)]
    fn egress_kbps(&self) -> u32 {
        self.info.read(|info| info.egress_kbps)
    }

    #[zbus(property)]
    fn egress_burst_kb(&self) -> u32 {
        self.info.read(|info| info.egress_burst_kb)
    }

    #[zbus(property)]
    fn ingress_kbps(&self) -> u32 {
        self.info.read(|info| info.ingress_kbps)
    }

    #[zbus(property)]
    fn ingress_burst_kb(&self) -> u32 {
        self.info.read(|info| info.ingress_burst_kb)
    }

    #[zbus(property)]
    fn dscp(&self) -> i16 {
        self.info.read(|info| info.dscp)
    }
}
