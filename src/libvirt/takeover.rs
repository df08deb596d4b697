//! libvirt's side of taking over its networks: what there is, and moving guests' NICs from bridge to bridge. A connection
//! of its own; all of it blocks.

use super::{
    connection::DomainError,
    domain_xml::{Domain, NicSource, parse_domain},
    events::{SessionError, open_bare},
    nic_source::{Source, with_source},
    publish::parse_shape,
};
use crate::net::{IfName, MacAddr};
use uuid::Uuid;
use virt::{
    connect::Connect,
    domain::Domain as VirtDomain,
    error::{Error, ErrorNumber},
    network::Network,
    sys,
};

#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    #[error("libvirt at {uri} cannot be reached: {why}")]
    Connect { uri: String, why: String },
    #[error("libvirt: cannot {action}: {why}")]
    Call { action: String, why: String },
    #[error("guest '{guest}': {why}")]
    Guest { guest: String, why: String },
}

/// A network as libvirt has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    pub uuid: Uuid,
    pub name: String,
    /// As it is defined, or as it runs where it is not.
    pub xml: String,
    pub autostart: bool,
    pub active: bool,
    pub persistent: bool,
}

/// A guest, and what it looks like while it runs and when it starts next.
#[derive(Debug)]
pub struct Guest {
    pub uuid: Uuid,
    pub name: String,
    pub live: Option<Result<Domain, DomainError>>,
    pub config: Option<Result<Domain, DomainError>>,
}

impl Guest {
    /// The NICs that run on a network or bridge, and those that will.
    pub fn nics_on(&self, network: &str, bridge: Option<&IfName>) -> Vec<GuestNic> {
        let mut found: Vec<GuestNic> = Vec::new();
        for (live, domain) in [(true, &self.live), (false, &self.config)] {
            let Some(Ok(domain)) = domain else { continue };
            for nic in &domain.nics {
                let (on_network, portgroup, at) = match &nic.source {
                    NicSource::Network { name, portgroup, bridge, .. } if name == network => {
                        (true, portgroup.clone(), bridge.clone())
                    }
                    NicSource::Bridge { name } if Some(name) == bridge => (false, None, Some(name.clone())),
                    _ => continue,
                };
                match found.iter_mut().find(|known| known.mac == nic.mac) {
                    Some(known) => known.config |= !live,
                    None => {
                        let tap = nic.tap.clone().filter(|_| live);
                        let mac = nic.mac;
                        found.push(GuestNic { mac, on_network, portgroup, bridge: at, tap, live, config: !live });
                    }
                }
            }
        }
        found
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestNic {
    pub mac: MacAddr,
    /// By `<source network>`; else by the bridge's name.
    pub on_network: bool,
    pub portgroup: Option<String>,
    /// What its network came to, while it runs.
    pub bridge: Option<IfName>,
    /// Where it runs.
    pub tap: Option<IfName>,
    pub live: bool,
    pub config: bool,
}

#[derive(Debug)]
pub struct Host(Connect);

impl Host {
    pub fn open(uri: &str) -> Result<Self, TakeOverError> {
        let failed = |e: SessionError| TakeOverError::Connect { uri: uri.to_owned(), why: e.to_string() };
        open_bare(uri).map(Self).map_err(failed)
    }

    pub fn networks(&self) -> Result<Vec<Existing>, TakeOverError> {
        let failed = call("list its networks");
        let mut found = Vec::new();
        for network in self.0.list_all_networks(0).map_err(&failed)? {
            match read(&network) {
                Ok(network) => found.push(network),
                Err(e) if e.code() == ErrorNumber::NoNetwork => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(found)
    }

    pub fn guests(&self) -> Result<Vec<Guest>, TakeOverError> {
        let listed = self.0.list_all_domains(0).map_err(call("list its guests"))?;
        let guest = |domain: &VirtDomain| -> Result<Guest, Error> {
            let read = |flags| match domain.get_xml_desc(flags) {
                Ok(xml) => parse_domain(&xml).map_err(DomainError::from),
                Err(e) => Err(DomainError::Libvirt(e.message().to_owned())),
            };
            let (active, persistent) = (domain.is_active()?, domain.is_persistent()?);
            Ok(Guest {
                uuid: domain.get_uuid()?,
                name: domain.get_name()?,
                live: active.then(|| read(0)),
                config: persistent.then(|| read(sys::VIR_DOMAIN_XML_INACTIVE)),
            })
        };
        // One that has gone meanwhile is none.
        Ok(listed.iter().filter_map(|domain| guest(domain).ok()).collect())
    }

    /// Its bridge and its DHCP and DNS servers go; its definition stays.
    pub fn stop_network(&self, uuid: Uuid) -> Result<(), TakeOverError> {
        let network = Network::lookup_by_uuid(&self.0, uuid).map_err(call("find the network"))?;
        match network.is_active() {
            Ok(true) => network.destroy().map_err(call("stop the network")),
            _ => Ok(()),
        }
    }

    /// Whether the network runs as one of ours: its guests are on this bridge.
    pub fn runs_on(&self, uuid: Uuid, bridge: &IfName) -> bool {
        let shape = Network::lookup_by_uuid(&self.0, uuid).ok().filter(|network| network.is_active().unwrap_or(false));
        let shape = shape.and_then(|network| network.get_xml_desc(0).ok()).and_then(|xml| parse_shape(&xml).ok());
        shape.is_some_and(|shape| {
            shape.forward.as_deref() == Some("bridge") && shape.bridge.as_deref() == Some(bridge.as_str())
        })
    }

    /// Defines the network as it was, and starts it where it ran.
    pub fn restore_network(&self, old: &Existing) -> Result<(), TakeOverError> {
        let action = |what: &str| call(format!("{what} network '{}' as it was", old.name));
        if old.xml.contains('\0') {
            return Err(TakeOverError::Call { action: "define the network".into(), why: "its XML has a NUL".into() });
        }
        if !old.persistent {
            return Network::create_xml(&self.0, &old.xml).map(drop).map_err(action("make"));
        }
        let network = Network::define_xml(&self.0, &old.xml).map_err(action("define"))?;
        network.set_autostart(old.autostart).map_err(action("set autostart of"))?;
        if old.active && !network.is_active().unwrap_or(false) {
            network.create().map_err(action("start"))?;
        }
        Ok(())
    }

    /// Plugs a guest's NIC in elsewhere: in what runs, or in what will.
    pub fn move_nic(&self, guest: Uuid, mac: MacAddr, to: &Source, live: bool) -> Result<(), TakeOverError> {
        let domain = VirtDomain::lookup_by_uuid(&self.0, guest).map_err(call("find the guest"))?;
        let name = domain.get_name().unwrap_or_else(|_| guest.to_string());
        let fail = |why: String| TakeOverError::Guest { guest: name.clone(), why };
        let (xml_flags, change_flags) = match live {
            true => (0, sys::VIR_DOMAIN_AFFECT_LIVE),
            false => (sys::VIR_DOMAIN_XML_INACTIVE, sys::VIR_DOMAIN_AFFECT_CONFIG),
        };
        let xml = domain.get_xml_desc(xml_flags).map_err(|e| fail(e.message().to_owned()))?;
        let device = with_source(&xml, mac, to).ok_or_else(|| fail(format!("its NIC {mac} is gone")))?;
        let moved = domain.update_device_flags(&device, change_flags);
        moved.map(drop).map_err(|e| fail(format!("its NIC {mac} does not move: {}", e.message())))
    }
}

fn read(network: &Network) -> Result<Existing, Error> {
    let persistent = network.is_persistent()?;
    Ok(Existing {
        uuid: network.get_uuid()?,
        name: network.get_name()?,
        xml: network.get_xml_desc(if persistent { sys::VIR_NETWORK_XML_INACTIVE } else { 0 })?,
        autostart: persistent && network.get_autostart()?,
        active: network.is_active()?,
        persistent,
    })
}

fn call(action: impl Into<String>) -> impl Fn(Error) -> TakeOverError {
    let action = action.into();
    move |e| TakeOverError::Call { action: action.clone(), why: e.message().to_owned() }
}
