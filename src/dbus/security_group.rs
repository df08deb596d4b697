use super::{
    Context, Error, Kind,
    access::{Action, Verb},
    export::{Dirty, Exported, Known, Shared},
    info::{Changes, SecurityGroupInfo},
    path,
    value::{self, Dictionary},
};
use crate::{
    intent::{RuleDrafts, SecurityGroupDraft, SecurityGroupId},
    reconciler::{Command, GroupCommand, View},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use zbus::{Connection, OwnedObjectPath, Variant, interface, message::Header};

/// `org.vmfabric1.SecurityGroup`, documented in `dbus/org.vmfabric1.SecurityGroup.xml`.
#[derive(Debug)]
pub struct SecurityGroupObject {
    context: Arc<Context>,
    id: SecurityGroupId,
    info: Shared<SecurityGroupInfo>,
}

impl Exported for SecurityGroupObject {
    type Id = SecurityGroupId;
    type Info = SecurityGroupInfo;

    fn read(view: &View, id: SecurityGroupId) -> Option<SecurityGroupInfo> {
        view.intent.security_group(id).map(SecurityGroupInfo::of)
    }

    fn changes(old: &SecurityGroupInfo, new: &SecurityGroupInfo) -> Changes {
        SecurityGroupInfo::changes(old, new)
    }

    fn path(id: SecurityGroupId) -> OwnedObjectPath {
        path::security_group(id)
    }

    fn make(context: &Arc<Context>, id: SecurityGroupId, info: Shared<SecurityGroupInfo>) -> Self {
        Self { context: Arc::clone(context), id, info }
    }

    fn known(known: &mut Known) -> &mut BTreeMap<SecurityGroupId, Shared<SecurityGroupInfo>> {
        &mut known.groups
    }
}

#[interface(name = "org.vmfabric1.SecurityGroup", introspection_docs = false)]
impl SecurityGroupObject {
    async fn update(
        &self,
        changes: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Change, Kind::SecurityGroup)).await?;
        let draft = self.context.handle.view().intent.security_group(self.id).map(SecurityGroupDraft::of);
        let patch = value::patch_of(&changes, draft)?;
        self.context.handle.call(|reply| Command::Group(GroupCommand::Update(self.id, patch, reply))).await?;
        self.context.sync(bus, Dirty::group(self.id)).await
    }

    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Delete, Kind::SecurityGroup)).await?;
        self.context.handle.call(|reply| Command::Group(GroupCommand::Delete(self.id, reply))).await?;
        self.context.sync(bus, Dirty::group(self.id)).await
    }

    /// By the keys of a rule, or by `rule`, which says all of it in one line. One rule, or one for each family.
    #[zbus(out_args("ids"))]
    async fn add_rule(
        &self,
        rule: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<Vec<String>, Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Change, Kind::SecurityGroup)).await?;
        let rules: RuleDrafts = value::parse(&rule)?;
        let added =
            self.context.handle.call(|reply| Command::Group(GroupCommand::AddRules(self.id, rules.0, reply))).await?;
        self.context.sync(bus, Dirty::group(self.id)).await?;
        Ok(added.iter().map(ToString::to_string).collect())
    }

    async fn remove_rule(
        &self,
        rule: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Change, Kind::SecurityGroup)).await?;
        self.context.handle.call(|reply| Command::Group(GroupCommand::RemoveRule(self.id, rule, reply))).await?;
        self.context.sync(bus, Dirty::group(self.id)).await
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
    fn stateful(&self) -> bool {
        self.info.read(|info| info.stateful)
    }

    #[zbus(property)]
    fn rules(&self) -> Vec<HashMap<String, Variant<'static>>> {
        self.info.read(|info| info.rules.dictionaries())
    }
}
