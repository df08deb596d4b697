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

    #[zbus(allow_interactive_auth)]
    fn create_security_group(&self, properties: &HashMap<&str, Variant<'_>>) -> Result<OwnedObjectPath, Error>;

    #[zbus(allow_interactive_auth)]
    fn create_address_group(&self, properties: &HashMap<&str, Variant<'_>>) -> Result<OwnedObjectPath, Error>;

    fn get_network(&self, name: &str) -> Result<OwnedObjectPath, Error>;

    fn get_subnet(&self, name: &str) -> Result<OwnedObjectPath, Error>;

    fn get_port(&self, name: &str) -> Result<OwnedObjectPath, Error>;

    fn get_security_group(&self, name: &str) -> Result<OwnedObjectPath, Error>;

    fn get_address_group(&self, name: &str) -> Result<OwnedObjectPath, Error>;

    fn list_leases(&self, network: &str) -> Result<Vec<Dictionary>, Error>;

    fn plan(&self) -> Result<Vec<String>, Error>;

    #[zbus(allow_interactive_auth)]
    fn apply(&self, document: &str, options: &HashMap<&str, Variant<'_>>) -> Result<Dictionary, Error>;

    fn export(&self) -> Result<String, Error>;

    fn explain(&self, port: &str) -> Result<Dictionary, Error>;

    fn trace(&self, packet: &HashMap<&str, Variant<'_>>) -> Result<Dictionary, Error>;

    #[zbus(allow_interactive_auth)]
    fn import_libvirt(&self, options: &HashMap<&str, Variant<'_>>) -> Result<Vec<Dictionary>, Error>;

    #[zbus(allow_interactive_auth)]
    fn set_log_level(&self, level: &str) -> Result<(), Error>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> Result<String, Error>;

    #[zbus(property(emits_changed_signal = "false"))]
    fn log_level(&self) -> Result<String, Error>;
}

/// What networks, subnets, ports and groups have in common: `Update` and `Delete`. Their properties are read whole, as
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

    /// Of a security group.
    pub async fn add_rule(&self, rule: &HashMap<&str, Variant<'_>>) -> Result<Vec<String>, Error> {
        self.ask("AddRule", &(rule,)).await
    }

    /// Of a security group; by id, or as a line of text.
    pub async fn remove_rule(&self, rule: &str) -> Result<(), Error> {
        self.call("RemoveRule", &(rule,)).await
    }

    /// Of an address group.
    pub async fn add_addresses(&self, addresses: &[String]) -> Result<(), Error> {
        self.call("AddAddresses", &(addresses,)).await
    }

    /// Of an address group.
    pub async fn remove_addresses(&self, addresses: &[String]) -> Result<(), Error> {
        self.call("RemoveAddresses", &(addresses,)).await
    }

    /// Of a network: one more DNS record.
    pub async fn add_record(&self, record: &str) -> Result<(), Error> {
        self.call("AddRecord", &(record,)).await
    }

    /// Of a network: a name's DNS records, of a type and with that data where these are not empty; how many they were.
    pub async fn remove_records(&self, name: &str, kind: &str, data: &str) -> Result<u32, Error> {
        self.ask("RemoveRecords", &(name, kind, data)).await
    }

    /// Of a port: what a running guest's NIC carried.
    pub async fn get_statistics(&self) -> Result<Dictionary, Error> {
        self.ask("GetStatistics", &()).await
    }

    async fn call<B: serde::Serialize + zbus::wire::DynamicType>(&self, method: &str, body: &B) -> Result<(), Error> {
        self.ask(method, body).await
    }

    async fn ask<B, R>(&self, method: &str, body: &B) -> Result<R, Error>
    where
        B: serde::Serialize + zbus::wire::DynamicType,
        R: for<'d> zbus::wire::DynamicDeserialize<'d>,
    {
        let flags = zbus::proxy::MethodFlags::ALLOW_INTERACTIVE_AUTH;
        let answer = self.0.call_with_flags::<_, _, R>(method, flags, body).await?;
        // None only where no reply was asked for.
        answer.ok_or_else(|| Error::Failed("no answer came".into()))
    }
}
