//! The service on a bus of its own, in front of a core that only remembers.

/// The text of an expected refusal.
macro_rules! refused {
    ($result:expr, $name:ident) => {
        match $result {
            Err($crate::dbus::Error::$name(text)) => text,
            other => panic!("expected {}, got {other:?}", stringify!($name)),
        }
    };
}

mod access;
pub mod bus;
mod calls;
pub mod core;
mod groups;
mod introspection;
mod signals;

use super::{Access, Dictionary, Error, LogControl, Service, proxy::ManagerProxy, serve_to};
use crate::{
    backend::{Count, Counted, Counters, DriverError, LinkCounters},
    intent::{Bridging, HostConfig, PhysicalNetwork, ResourceName},
    net::{IfName, VlanId},
};
use bus::Bus;
use core::Core;
use roxmltree::Document;
use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};
use zbus::{Connection, Variant};

/// Fails the test where something does not come.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("within 20 seconds")
}

/// A daemon's log.
#[derive(Debug)]
pub struct Log(Mutex<String>);

impl Default for Log {
    fn default() -> Self {
        Self(Mutex::new("info".into()))
    }
}

impl LogControl for Log {
    fn level(&self) -> String {
        self.0.lock().expect("not poisoned").clone()
    }

    fn set_level(&self, level: &str) -> Result<(), String> {
        if !["error", "warn", "info", "debug", "trace"].contains(&level) {
            return Err(format!("'{level}' is not a log level"));
        }
        *self.0.lock().expect("not poisoned") = level.to_owned();
        Ok(())
    }
}

/// What the tap `vnet0` carried.
#[derive(Debug)]
struct Taps;

impl Counters for Taps {
    fn read(&self) -> Result<Arc<Counted>, DriverError> {
        let count = |packets, bytes| Count { packets, bytes };
        let drops = [("mac", count(3, 180))].into();
        let link = LinkCounters { came_in: count(1, 1500), went_out: count(2, 120), drops, ..LinkCounters::default() };
        let links = [(IfName::new("vnet0").expect("a name"), link)].into();
        Ok(Arc::new(Counted { links, ..Counted::default() }))
    }
}

pub async fn serve_with(
    bus: zbus::connection::Builder<'_>,
    handle: crate::reconciler::Handle,
    log: Log,
    access: Access,
) -> Result<Service, super::DbusError> {
    serve_to(bus, handle, log, access, Arc::new(Taps)).await
}

/// A bus, a core, the service and one client.
#[derive(Debug)]
pub struct Bench {
    pub client: Connection,
    pub core: Core,
    pub service: Service,
    pub bus: Bus,
}

/// Each interface, and the file that says what it has.
const FILES: [(&str, &str); 6] = [
    ("org.vmfabric1.Manager", include_str!("../../../dbus/org.vmfabric1.Manager.xml")),
    ("org.vmfabric1.Network", include_str!("../../../dbus/org.vmfabric1.Network.xml")),
    ("org.vmfabric1.Subnet", include_str!("../../../dbus/org.vmfabric1.Subnet.xml")),
    ("org.vmfabric1.Port", include_str!("../../../dbus/org.vmfabric1.Port.xml")),
    ("org.vmfabric1.SecurityGroup", include_str!("../../../dbus/org.vmfabric1.SecurityGroup.xml")),
    ("org.vmfabric1.AddressGroup", include_str!("../../../dbus/org.vmfabric1.AddressGroup.xml")),
];

fn parse(xml: &str) -> Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    Document::parse_with_options(xml, options).expect("XML")
}

/// One physical network, `lan`.
pub fn host() -> HostConfig {
    let name = |text| IfName::new(text).expect("valid");
    let lan = PhysicalNetwork {
        bridging: Bridging::Own { uplink: name("eth1"), bridge: name("vmf-lan"), take_host_nic: false },
        vlans: VlanId::new(2).expect("valid")..=VlanId::new(4094).expect("valid"),
        native_vlan: VlanId::DEFAULT,
    };
    let physical_networks = [(ResourceName::new("lan").expect("valid"), lan)].into();
    HostConfig { physical_networks, ..HostConfig::default() }
}

impl Bench {
    /// Whoever runs the test may do everything.
    pub async fn start() -> Self {
        Self::with(Access::new(Some(nix::unistd::getuid().as_raw()))).await
    }

    pub async fn with(access: Access) -> Self {
        Self::on(Bus::start(), access).await
    }

    pub async fn on(bus: Bus, access: Access) -> Self {
        let core = Core::start(host());
        let service = within(serve_with(bus.builder(), core.handle.clone(), Log::default(), access)).await;
        Self { client: bus.connect().await, core, service: service.expect("the service starts"), bus }
    }

    pub async fn manager(&self) -> ManagerProxy<'static> {
        ManagerProxy::new(&self.client).await.expect("a proxy needs no answer")
    }

    pub async fn create(&self, kind: &str, properties: &[(&str, Variant<'_>)]) -> Result<zbus::OwnedObjectPath, Error> {
        let manager = self.manager().await;
        let copy = |value: &Variant<'_>| value.try_to_owned().expect("no file descriptors").into();
        let properties: HashMap<&str, Variant<'_>> = properties.iter().map(|(key, v)| (*key, copy(v))).collect();
        within(async {
            match kind {
                "network" => manager.create_network(&properties).await,
                "security_group" => manager.create_security_group(&properties).await,
                "address_group" => manager.create_address_group(&properties).await,
                "subnet" => manager.create_subnet(&properties).await,
                _ => manager.create_port(&properties).await,
            }
        })
        .await
    }

    pub async fn properties(&self, path: &str, interface: &str) -> Dictionary {
        let proxy =
            zbus::fdo::PropertiesProxy::builder(&self.client).destination(super::BUS_NAME).path(path.to_owned());
        let proxy = proxy.build().await.expect("a proxy");
        let interface = zbus::names::InterfaceName::try_from(interface.to_owned()).expect("an interface");
        within(proxy.get_all(interface)).await.expect("the object has properties")
    }

    /// Network blue with 10.0.0.0/24, and port web on it; security group web and address group dc.
    pub async fn populate(&self) {
        self.create("network", &[("name", "blue".into())]).await.expect("network");
        let subnet = [("network", "blue".into()), ("cidr", "10.0.0.0/24".into()), ("forward", "nat".into())];
        self.create("subnet", &subnet).await.expect("subnet");
        self.create("port", &[("network", "blue".into()), ("name", "web".into())]).await.expect("port");
        self.create("security_group", &[("name", "web".into())]).await.expect("security group");
        let addresses = vec!["192.0.2.7", "2001:db8::/32"];
        self.create("address_group", &[("name", "dc".into()), ("addresses", addresses.into())]).await.expect("group");
    }

    /// Of what `populate` made: each interface, an object that has it, and its file.
    async fn described(&self) -> [(&'static str, String, &'static str); 6] {
        let manager = self.manager().await;
        let paths = [
            "/org/vmfabric1".to_owned(),
            manager.get_network("blue").await.expect("there").to_string(),
            manager.get_subnet("blue").await.expect("there").to_string(),
            manager.get_port("web").await.expect("there").to_string(),
            manager.get_security_group("web").await.expect("there").to_string(),
            manager.get_address_group("dc").await.expect("there").to_string(),
        ];
        std::array::from_fn(|at| (FILES[at].0, paths[at].clone(), FILES[at].1))
    }
}
