//! `org.freedesktop.DBus.ObjectManager` (D-Bus specification, "Standard Interfaces"), from what is exported already.
//!
//! zbus's own asks each object for each property, and builds all of it in memory once more before it is sent: with
//! 10,000 ports half of a second. This one has the same name, and so zbus announces what comes and goes for it.

use super::{
    Context, Error,
    address_group::AddressGroupObject,
    export::{Exported, Known},
    network::NetworkObject,
    port::PortObject,
    security_group::SecurityGroupObject,
    subnet::SubnetObject,
    turns::Turn,
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{borrow::Cow, collections::HashMap, sync::Arc};
use zbus::{
    Connection, ObjectPath, Type, Variant, interface, message::Header, names::InterfaceName,
    object_server::SignalEmitter,
};

#[derive(Debug)]
pub struct ObjectManager(pub(super) Arc<Context>);

#[interface(name = "org.freedesktop.DBus.ObjectManager", introspection_docs = false)]
impl ObjectManager {
    #[zbus(out_args("object_paths_interfaces_and_properties"))]
    async fn get_managed_objects(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<Objects, Error> {
        let turn = self.0.turn(&self.0.lists, bus, &header).await?;
        Ok(self.0.exporter.objects(turn).await)
    }

    #[zbus(signal)]
    async fn interfaces_added(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces_and_properties: HashMap<InterfaceName<'_>, HashMap<&str, Variant<'_>>>,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn interfaces_removed(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces: Cow<'_, [InterfaceName<'_>]>,
    ) -> zbus::Result<()>;
}

/// All objects with their properties, as of one moment.
#[derive(Debug, Type)]
#[zbus(signature = "a{oa{sa{sv}}}")]
pub struct Objects {
    networks: Snapshot<NetworkObject>,
    subnets: Snapshot<SubnetObject>,
    ports: Snapshot<PortObject>,
    groups: Snapshot<SecurityGroupObject>,
    address_groups: Snapshot<AddressGroupObject>,
    /// Until it is sent.
    _turn: Turn,
}

#[derive(Debug)]
struct Snapshot<E: Exported>(Vec<(E::Id, Arc<E::Info>)>);

impl<E: Exported> Snapshot<E> {
    fn of(known: &mut Known) -> Self {
        Self(E::known(known).iter().map(|(id, info)| (*id, info.now())).collect())
    }

    fn add_to<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>
    where
        E::Info: Serialize,
    {
        for (id, info) in &self.0 {
            map.serialize_entry(&E::path(*id), &OfInterface(E::name(), &**info))?;
        }
        Ok(())
    }
}

impl Objects {
    pub(super) fn of(known: &mut Known, turn: Turn) -> Self {
        Self {
            networks: Snapshot::of(known),
            subnets: Snapshot::of(known),
            ports: Snapshot::of(known),
            groups: Snapshot::of(known),
            address_groups: Snapshot::of(known),
            _turn: turn,
        }
    }
}

impl Serialize for Objects {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.networks.add_to(&mut map)?;
        self.subnets.add_to(&mut map)?;
        self.ports.add_to(&mut map)?;
        self.groups.add_to(&mut map)?;
        self.address_groups.add_to(&mut map)?;
        map.end()
    }
}

/// The one interface of ours that an object has, `a{sa{sv}}`.
struct OfInterface<'a, T>(InterfaceName<'static>, &'a T);

impl<T: Serialize> Serialize for OfInterface<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(&self.0, self.1)?;
        map.end()
    }
}
