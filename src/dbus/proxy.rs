//! The client's side. Errors arrive as [`Error`], by name.

use super::{Error, value::Dictionary};
use std::collections::HashMap;
use zbus::{OwnedObjectPath, Variant};

/// `org.vmfabric1.Manager`.
#[zbus::proxy(interface = "org.vmfabric1.Manager", default_service = "org.vmfabric1", default_path = "/org/vmfabric1")]
pub trait Manager {
    #[zbus(allow_interactive_auth)]
    fn create_network(&self, properties: &HashMap<&str, Variant<'_>>) -> Result<OwnedObjectPath, Error>;

    #[zbus(allow_interactive_auth)]
    fn create_subnet(&self, properties: &HashMap<&str, Variant<'_>>) -> Result<OwnedObjectPath, Error>;

    #[zbus(allow_interactive_auth)]
    fn create_port(&self, properties: &HashMap<&str, Variant<'_>>) -> Result<OwnedObjectPath, Error>;

    fn get_network(&self, name: &str) -> Result<OwnedObjectPath, Error>;

    fn get_subnet(&self, name: &str) -> Result<OwnedObjectPath, Error>;

    fn get_port(&self, name: &str) -> Result<OwnedObjectPath, Error>;

    fn list_leases(&self, network: &str) -> Result<Vec<Dictionary>, Error>;

    fn plan(&self) -> Result<Vec<String>, Error>;

    fn explain(&self, port: &str) -> Result<Dictionary, Error>;

    fn trace(&self, packet: &HashMap<&str, Variant<'_>>) -> Result<Dictionary, Error>;

    #[zbus(allow_interactive_auth)]
    fn set_log_level(&self, level: &str) -> Result<(), Error>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> Result<String, Error>;

    #[zbus(property(emits_changed_signal = "false"))]
    fn log_level(&self) -> Result<String, Error>;
}

/// What networks, subnets and ports have in common: `Update` and `Delete`. Their properties are read whole, as
/// [`NetworkInfo`](super::NetworkInfo) and its like.
#[derive(Debug, Clone)]
pub struct ResourceProxy<'a>(zbus::Proxy<'a>);

impl<'a> ResourceProxy<'a> {
    pub async fn new(bus: &zbus::Connection, kind: super::Kind, path: OwnedObjectPath) -> Result<Self, Error> {
        let builder: zbus::proxy::Builder<'_, zbus::Proxy<'a>> = zbus::proxy::Builder::new(bus);
        let builder = builder.destination(super::BUS_NAME).path(path).interface(kind.interface());
        Ok(Self(builder.cache_properties(zbus::proxy::CacheProperties::No).build().await?))
    }

    /// Replaces some fields; an empty string takes one back to its default.
    pub async fn update(&self, changes: &HashMap<&str, Variant<'_>>) -> Result<(), Error> {
        self.call("Update", &(changes,)).await
    }

    pub async fn delete(&self) -> Result<(), Error> {
        self.call("Delete", &()).await
    }

    /// Of a network: one more DNS record.
    pub async fn add_record(&self, record: &str) -> Result<(), Error> {
        self.call("AddRecord", &(record,)).await
    }

    /// Of a network: a name's DNS records, of a type and with that data where these are not empty; how many they were.
    pub async fn remove_records(&self, name: &str, kind: &str, data: &str) -> Result<u32, Error> {
        let flags = zbus::proxy::MethodFlags::ALLOW_INTERACTIVE_AUTH;
        let removed = self.0.call_with_flags("RemoveRecords", flags, &(name, kind, data)).await?;
        Ok(removed.unwrap_or_default())
    }

    async fn call<B: serde::Serialize + zbus::wire::DynamicType>(&self, method: &str, body: &B) -> Result<(), Error> {
        let flags = zbus::proxy::MethodFlags::ALLOW_INTERACTIVE_AUTH;
        self.0.call_with_flags::<_, _, ()>(method, flags, body).await?;
        Ok(())
    }
}
