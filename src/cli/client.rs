//! The daemon as commands see it: one connection, and everything it exports in one call.

use super::CliError;
use crate::dbus::{
    self, AddressGroupInfo, BUS_NAME, Dictionary, Error, Kind, ManagerInfo, NetworkInfo, PortInfo, ROOT,
    SecurityGroupInfo, SubnetInfo,
    proxy::{ManagerProxy, ResourceProxy},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;
use zbus::{Connection, OwnedObjectPath, connection, fdo, names::InterfaceName};

/// How long an answer may take: a person may be typing a password.
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug)]
pub struct Client {
    pub bus: Connection,
    pub manager: ManagerProxy<'static>,
}

/// Every resource, by id.
#[derive(Debug, Default)]
pub struct Inventory {
    pub networks: BTreeMap<Uuid, NetworkInfo>,
    pub subnets: BTreeMap<Uuid, SubnetInfo>,
    pub ports: BTreeMap<Uuid, PortInfo>,
    pub groups: BTreeMap<Uuid, SecurityGroupInfo>,
    pub address_groups: BTreeMap<Uuid, AddressGroupInfo>,
}

impl Client {
    /// To the system bus, or the one that `DBUS_SYSTEM_BUS_ADDRESS` names.
    pub async fn connect() -> Result<Self, CliError> {
        let bus = connection::Builder::system().method_timeout(PATIENCE).build().await;
        Self::on(bus.map_err(|error| CliError::Unreachable(format!("the system bus: {error}")))?).await
    }

    pub async fn on(bus: Connection) -> Result<Self, CliError> {
        let manager = ManagerProxy::builder(&bus).cache_properties(zbus::proxy::CacheProperties::No);
        let manager = manager.build().await?;
        Ok(Self { bus, manager })
    }

    pub async fn inventory(&self) -> Result<Inventory, CliError> {
        let objects = fdo::ObjectManagerProxy::new(&self.bus, BUS_NAME, ROOT).await?;
        let mut inventory = Inventory::default();
        for (path, mut interfaces) in objects.get_managed_objects().await? {
            let Some((kind, id)) = dbus::parse_path(&path) else { continue };
            let Some(properties) = interfaces.remove(kind.interface()) else { continue };
            match kind {
                Kind::Network => drop(inventory.networks.insert(id, read(&properties)?)),
                Kind::Subnet => drop(inventory.subnets.insert(id, read(&properties)?)),
                Kind::Port => drop(inventory.ports.insert(id, read(&properties)?)),
                Kind::SecurityGroup => drop(inventory.groups.insert(id, read(&properties)?)),
                Kind::AddressGroup => drop(inventory.address_groups.insert(id, read(&properties)?)),
            }
        }
        Ok(inventory)
    }

    pub async fn status(&self) -> Result<(ManagerInfo, String), CliError> {
        let properties = fdo::PropertiesProxy::new(&self.bus, BUS_NAME, ROOT).await?;
        let all = properties.get_all(InterfaceName::from_static_str_unchecked("org.vmfabric1.Manager")).await?;
        let version = all.get("Version").and_then(|version| dbus::to_json(version)).unwrap_or_default();
        Ok((read(&all)?, version.as_str().unwrap_or_default().to_owned()))
    }

    /// The object of a resource by name, id, or the beginning of an id as tables show it.
    pub async fn find(&self, kind: Kind, name: &str) -> Result<OwnedObjectPath, CliError> {
        let found = match kind {
            Kind::Network => self.manager.get_network(name).await,
            Kind::Subnet => self.manager.get_subnet(name).await,
            Kind::Port => self.manager.get_port(name).await,
            Kind::SecurityGroup => self.manager.get_security_group(name).await,
            Kind::AddressGroup => self.manager.get_address_group(name).await,
        };
        match found {
            Err(Error::NotFound(text)) if name.len() >= 4 && name.bytes().all(|b| b.is_ascii_hexdigit()) => {
                let inventory = self.inventory().await?;
                let mut ids = inventory.ids(kind).filter(|id| id.simple().to_string().starts_with(name));
                match (ids.next(), ids.next()) {
                    (Some(id), None) => Ok(kind.path(id)),
                    (Some(_), Some(_)) => Err(CliError::Usage(format!(
                        "more than one {} has an id that begins with '{name}'",
                        kind.words()
                    ))),
                    (None, _) => Err(CliError::NotFound(text)),
                }
            }
            found => found.map_err(CliError::of),
        }
    }

    pub async fn resource(&self, kind: Kind, path: OwnedObjectPath) -> Result<ResourceProxy<'static>, CliError> {
        ResourceProxy::new(&self.bus, kind, path).await.map_err(CliError::of)
    }

    /// Deletes several; none where one of the names is wrong.
    pub async fn delete(&self, kind: Kind, names: &[String]) -> Result<(), CliError> {
        let mut resources = Vec::new();
        for name in names {
            let path = self.find(kind, name).await?;
            resources.push(self.resource(kind, path).await?);
        }
        for resource in resources {
            resource.delete().await.map_err(CliError::of)?;
        }
        Ok(())
    }

    pub async fn update(&self, kind: Kind, name: &str, fields: &super::field::Fields) -> Result<(), CliError> {
        let path = self.find(kind, name).await?;
        self.resource(kind, path).await?.update(fields).await.map_err(CliError::of)
    }
}

impl Inventory {
    fn ids(&self, kind: Kind) -> Box<dyn Iterator<Item = Uuid> + '_> {
        match kind {
            Kind::Network => Box::new(self.networks.keys().copied()),
            Kind::Subnet => Box::new(self.subnets.keys().copied()),
            Kind::Port => Box::new(self.ports.keys().copied()),
            Kind::SecurityGroup => Box::new(self.groups.keys().copied()),
            Kind::AddressGroup => Box::new(self.address_groups.keys().copied()),
        }
    }

    /// A network's name by its object.
    pub fn network_name(&self, path: &str) -> String {
        let network = dbus::parse_path(path).and_then(|(_, id)| self.networks.get(&id));
        network.map(|network| network.name.clone()).unwrap_or_default()
    }
}

/// Properties as what they describe.
pub fn read<T: DeserializeOwned>(properties: &Dictionary) -> Result<T, CliError> {
    let field = |(key, value): (&String, &zbus::OwnedVariant)| Some((key.clone(), dbus::to_json(value)?));
    let object = Value::Object(properties.iter().filter_map(field).collect());
    serde_json::from_value(object).map_err(|error| CliError::Protocol(error.to_string()))
}
