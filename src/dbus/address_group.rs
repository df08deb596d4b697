use super::{
    Context, Error, Kind,
    access::{Action, Verb},
    export::{Dirty, Exported, Known, Shared},
    info::{AddressGroupInfo, Changes},
    path,
    value::{self, Dictionary},
};
use crate::{
    intent::{AddressGroupDraft, AddressGroupId, parse_prefix},
    net::IpNet,
    reconciler::{Command, GroupCommand, View},
};
use std::{collections::BTreeMap, sync::Arc};
use zbus::{Connection, OwnedObjectPath, interface, message::Header};

/// `org.vmfabric1.AddressGroup`, documented in `dbus/org.vmfabric1.AddressGroup.xml`.
#[derive(Debug)]
pub struct AddressGroupObject {
    context: Arc<Context>,
    id: AddressGroupId,
    info: Shared<AddressGroupInfo>,
}

impl Exported for AddressGroupObject {
    type Id = AddressGroupId;
    type Info = AddressGroupInfo;

    fn read(view: &View, id: AddressGroupId) -> Option<AddressGroupInfo> {
        view.intent.address_group(id).map(AddressGroupInfo::of)
    }

    fn changes(old: &AddressGroupInfo, new: &AddressGroupInfo) -> Changes {
        AddressGroupInfo::changes(old, new)
    }

    fn path(id: AddressGroupId) -> OwnedObjectPath {
        path::address_group(id)
    }

    fn make(context: &Arc<Context>, id: AddressGroupId, info: Shared<AddressGroupInfo>) -> Self {
        Self { context: Arc::clone(context), id, info }
    }

    fn known(known: &mut Known) -> &mut BTreeMap<AddressGroupId, Shared<AddressGroupInfo>> {
        &mut known.address_groups
    }
}

#[interface(name = "org.vmfabric1.AddressGroup", introspection_docs = false)]
impl AddressGroupObject {
    async fn update(
        &self,
        changes: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Change, Kind::AddressGroup)).await?;
        let draft = self.context.handle.view().intent.address_group(self.id).map(AddressGroupDraft::of);
        let patch = value::patch_of(&changes, draft)?;
        self.context.handle.call(|reply| Command::Group(GroupCommand::UpdateAddresses(self.id, patch, reply))).await?;
        self.context.sync(bus, Dirty::address_group(self.id)).await
    }

    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Delete, Kind::AddressGroup)).await?;
        self.context.handle.call(|reply| Command::Group(GroupCommand::DeleteAddresses(self.id, reply))).await?;
        self.context.sync(bus, Dirty::address_group(self.id)).await
    }

    async fn add_addresses(
        &self,
        addresses: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Change, Kind::AddressGroup)).await?;
        let more = prefixes(&addresses)?;
        self.context.handle.call(|reply| Command::Group(GroupCommand::AddAddresses(self.id, more, reply))).await?;
        self.context.sync(bus, Dirty::address_group(self.id)).await
    }

    async fn remove_addresses(
        &self,
        addresses: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Change, Kind::AddressGroup)).await?;
        let fewer = prefixes(&addresses)?;
        self.context.handle.call(|reply| Command::Group(GroupCommand::RemoveAddresses(self.id, fewer, reply))).await?;
        self.context.sync(bus, Dirty::address_group(self.id)).await
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
    fn description(&self) -> String {
        self.info.read(|info| info.description.clone())
    }

    #[zbus(property)]
    fn addresses(&self) -> Vec<String> {
        self.info.read(|info| info.addresses.clone())
    }
}

fn prefixes(texts: &[String]) -> Result<Vec<IpNet>, Error> {
    texts.iter().map(|text| parse_prefix(text).map_err(Error::from)).collect()
}
