//! Which port a guest's NIC has. First match wins: a port made for the guest and MAC; the wish in the guest's metadata;
//! the libvirt network that offers one of ours; a bridge of ours.

use super::{
    Change, Device, HostConfig, Intent, IntentError, Network, NetworkId, Origin, Port, PortId, PortSecurity,
    SecurityGroupId, Segment, SubnetId, Trunk,
};
use crate::net::{IfName, MacAddr, VlanId};
use std::{collections::BTreeSet, net::IpAddr};
use uuid::Uuid;

/// A NIC as a guest's definition describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicRequest {
    pub domain: Uuid,
    pub domain_name: String,
    pub mac: MacAddr,
    pub source: NicSource,
    /// The network or port that the guest's metadata asks for, by name or id.
    pub wish_network: Option<String>,
    pub wish_port: Option<String>,
    /// What the metadata says of security; `None`: nothing. Groups by name or id.
    pub wish_groups: Option<Vec<String>>,
    pub wish_port_security: Option<bool>,
    /// libvirt's `<vlan>`: tagged VLANs of a trunk, or the one of an access port.
    pub vlans: BTreeSet<VlanId>,
    pub native_vlan: Option<VlanId>,
    pub trunk: bool,
}

impl NicRequest {
    pub fn guest(&self) -> Device {
        Device { domain: self.domain, name: self.domain_name.clone() }
    }
}

/// Where a NIC is plugged in, in libvirt's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NicSource {
    /// `<source network=…>`; the bridge is known once it runs.
    Network {
        name: String,
        bridge: Option<IfName>,
    },
    Bridge(IfName),
    /// `<interface type='ethernet'>`.
    Ethernet,
    Other,
}

/// What a NIC's lookup gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// It is not on a network of ours.
    NotOurs,
    Port(PortId),
    /// It is to have this port, which is not made yet.
    New(Box<Port>),
}

/// Why a NIC that is ours has no port. The text names the NIC, the network and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("NIC {mac} of guest '{guest}': {why}")]
pub struct ResolveError {
    pub mac: MacAddr,
    pub guest: String,
    pub why: String,
}

/// Finds the port of a NIC, or makes the plan of one.
pub fn resolve(
    intent: &Intent,
    host: &HostConfig,
    nic: &NicRequest,
    leased: impl Fn(SubnetId, IpAddr) -> bool,
) -> Result<Resolution, ResolveError> {
    let fail = |why: String| ResolveError { mac: nic.mac, guest: nic.domain_name.clone(), why };
    let resolution = find(intent, host, nic, leased)?;
    let port = match &resolution {
        Resolution::NotOurs => return Ok(resolution),
        Resolution::New(port) => Some(&**port),
        Resolution::Port(id) => intent.port(*id),
    };
    match port {
        Some(port) => {
            check_vlan(intent, nic, port).and_then(|()| check_wish(intent, host, nic, port)).map_err(fail)?;
            Ok(resolution)
        }
        None => Ok(resolution),
    }
}

/// Refuses an access VLAN that is not the network's: a guest is not to be silently elsewhere than its definition says.
fn check_vlan(intent: &Intent, nic: &NicRequest, port: &Port) -> Result<(), String> {
    let Some(wanted) = nic.vlans.first().filter(|_| !nic.trunk) else { return Ok(()) };
    let Some(network) = intent.network(port.network) else { return Ok(()) };
    let (name, is) = match &network.segment {
        Segment::Vlan { vid, .. } if vid == wanted => return Ok(()),
        Segment::Vlan { vid, .. } => (&network.name, format!("is VLAN {vid}")),
        Segment::Flat { .. } | Segment::Local => (&network.name, "has no VLAN".to_owned()),
    };
    Err(format!(
        "it asks for VLAN {wanted}, and network '{name}' {is}; take the <vlan> (in the metadata: vlan=) out, or plug it into \
         the network that is VLAN {wanted}. A NIC that is to see tagged frames says trunk='{wanted}' in the metadata"
    ))
}

/// Refuses a wish for security that cannot be heeded: a guest is not to start less filtered than its definition says.
fn check_wish(intent: &Intent, host: &HostConfig, nic: &NicRequest, port: &Port) -> Result<(), String> {
    let wished = wished_security(intent, nic, &port.security)?;
    if nic.wish_port_security == Some(false) && !host.metadata_port_security_off {
        return Err("its metadata takes port security off, which this host does not allow; take port-security='off' \
             out, or set metadata_port_security_off = true in [filter] of vmfabricd.toml and reload"
            .to_owned());
    }
    if port.origin == Origin::Admin && wished != port.security {
        let name = port.name.as_ref().map_or_else(|| port.id.to_string(), ToString::to_string);
        return Err(format!(
            "its metadata asks for other security than port {name} has, which an administrator made; change the one \
             (vmfabric port set {name} …) or the other"
        ));
    }
    Ok(())
}

/// A port's security as the metadata wishes it; what that leaves out stays.
fn wished_security(intent: &Intent, nic: &NicRequest, own: &PortSecurity) -> Result<PortSecurity, String> {
    let groups = nic.wish_groups.as_ref().map(|names| names.iter().map(|name| find_group(intent, name)).collect());
    Ok(PortSecurity {
        groups: groups.transpose()?.or_else(|| own.groups.clone()),
        port_security: nic.wish_port_security.or(own.port_security),
        ..own.clone()
    })
}

fn find_group(intent: &Intent, name: &str) -> Result<SecurityGroupId, String> {
    intent.find_security_group(name).map(|group| group.id).map_err(|_| {
        format!(
            "its metadata asks for security group '{name}', which does not exist; make it with \
             'vmfabric security-group create {name}', or change the metadata"
        )
    })
}

fn find(
    intent: &Intent,
    host: &HostConfig,
    nic: &NicRequest,
    leased: impl Fn(SubnetId, IpAddr) -> bool,
) -> Result<Resolution, ResolveError> {
    let fail = |why: String| ResolveError { mac: nic.mac, guest: nic.domain_name.clone(), why };
    if let Some(port) = intent.port_by_device(nic.domain, nic.mac) {
        return Ok(match find_network(intent, host, nic) {
            // A guest's own port follows its definition to another network; one that a person made stays.
            Ok(Some(network)) if network.id != port.network && port.origin == Origin::Guest => {
                fresh(intent, network, nic, leased).map_err(|error| fail(error.to_string()))?
            }
            _ => Resolution::Port(port.id),
        });
    }
    if let Some(wish) = &nic.wish_port {
        let port = intent.find_port(wish).map_err(|error| {
            fail(format!("its metadata asks for a port: {error}; make it with 'vmfabric port create'"))
        })?;
        if port.mac != nic.mac {
            return Err(fail(format!("port '{wish}' has MAC address {}; give the NIC that address", port.mac)));
        }
        return taken_by_other(intent, port, nic).map_err(fail);
    }
    let Some(network) = find_network(intent, host, nic).map_err(fail)? else { return Ok(Resolution::NotOurs) };
    if let Some(port) = intent.port_by_mac(network.id, nic.mac) {
        return taken_by_other(intent, port, nic).map_err(fail);
    }
    fresh(intent, network, nic, leased).map_err(|error| fail(error.to_string()))
}

fn taken_by_other(intent: &Intent, port: &Port, nic: &NicRequest) -> Result<Resolution, String> {
    match &port.device {
        Some(device) if device.domain != nic.domain => {
            let network = intent.network(port.network).map_or("?", |network| network.name.as_str());
            let holder = if device.name.is_empty() { device.domain.to_string() } else { format!("'{}'", device.name) };
            Err(format!(
                "its MAC address is used on network '{network}' by guest {holder}; give one of them another, or delete port {}",
                port.id
            ))
        }
        _ => Ok(Resolution::Port(port.id)),
    }
}

fn find_network<'a>(intent: &'a Intent, host: &HostConfig, nic: &NicRequest) -> Result<Option<&'a Network>, String> {
    if let Some(wish) = &nic.wish_network {
        let found = intent.find_network(wish);
        return found.map(Some).map_err(|_| {
            format!("its metadata asks for network '{wish}', which does not exist; make it with 'vmfabric network create {wish}'")
        });
    }
    let bridge = match &nic.source {
        NicSource::Network { name, bridge } => {
            if let Ok(network) = intent.find_network(name) {
                // A libvirt network of the same name that is not the one we offer has another bridge.
                let ours = bridge_of(network, host);
                let same = bridge.is_none() || bridge.as_ref() == ours;
                return Ok(same.then_some(network));
            }
            bridge.as_ref()
        }
        NicSource::Bridge(bridge) => Some(bridge),
        NicSource::Ethernet | NicSource::Other => None,
    };
    bridge.map_or(Ok(None), |bridge| network_on_bridge(intent, host, nic, bridge))
}

fn bridge_of<'a>(network: &'a Network, host: &'a HostConfig) -> Option<&'a IfName> {
    match network.segment.physical_network() {
        None => network.bridge.as_ref(),
        Some(name) => host.physical_networks.get(name).map(|physical| physical.bridge()),
    }
}

/// On a bridge that carries several networks the NIC's own VLAN decides.
fn network_on_bridge<'a>(
    intent: &'a Intent,
    host: &HostConfig,
    nic: &NicRequest,
    bridge: &IfName,
) -> Result<Option<&'a Network>, String> {
    if let Some(local) = intent.networks().find(|network| network.bridge.as_ref() == Some(bridge)) {
        return Ok(Some(local));
    }
    let Some((name, physical)) = host.physical_networks.iter().find(|(_, physical)| physical.bridge() == bridge) else {
        return Ok(None);
    };
    let wanted = nic.native_vlan.or_else(|| (!nic.trunk).then(|| nic.vlans.first().copied()).flatten());
    let found = intent.networks().find(|network| match (&network.segment, wanted) {
        (Segment::Vlan { physical_network, vid }, Some(wanted)) => physical_network == name && *vid == wanted,
        (Segment::Flat { physical_network }, None) => physical_network == name,
        _ => false,
    });
    match (found, wanted) {
        (Some(network), _) => Ok(Some(network)),
        // Whoever plugs into somebody else's bridge without asking for a network of ours is not ours.
        (None, _) if !physical.is_own() => Ok(None),
        (None, Some(vid)) => Err(format!(
            "bridge {bridge} has no network for VLAN {vid}; make it with 'vmfabric network create NAME --vlan {vid} --physical {name}'"
        )),
        (None, None) => Err(format!(
            "bridge {bridge} has no network for untagged frames; name a network in the guest's metadata, or make one with 'vmfabric network create NAME --physical {name}'"
        )),
    }
}

fn fresh(
    intent: &Intent,
    network: &Network,
    nic: &NicRequest,
    leased: impl Fn(SubnetId, IpAddr) -> bool,
) -> Result<Resolution, IntentError> {
    Ok(Resolution::New(Box::new(Port {
        id: guest_port_id(nic.domain, nic.mac, network.id),
        network: network.id,
        name: None,
        mac: nic.mac,
        fixed_ips: intent.allot(network, nic.mac, leased)?,
        trunk: trunk_of(nic),
        dns_name: None,
        dhcp_options: Vec::new(),
        dhcp_boot: Vec::new(),
        dhcp_client_id: None,
        device: Some(nic.guest()),
        security: PortSecurity::default(),
        origin: Origin::Guest,
    })))
}

fn trunk_of(nic: &NicRequest) -> Option<Trunk> {
    nic.trunk.then(|| Trunk {
        native: nic.native_vlan.is_some(),
        tagged: nic.vlans.iter().copied().filter(|vid| Some(*vid) != nic.native_vlan).collect(),
    })
}

/// The identity of the port that a NIC gets by itself: the same for the same guest, MAC and network (RFC 9562 v5).
pub fn guest_port_id(domain: Uuid, mac: MacAddr, network: NetworkId) -> PortId {
    let mut name = domain.as_bytes().to_vec();
    name.extend(mac.octets());
    PortId(Uuid::new_v5(&network.0, &name))
}

/// The changes that make a resolution true.
pub fn changes_for(intent: &Intent, resolution: &Resolution, nic: &NicRequest) -> Vec<Change> {
    // That it can be heeded was made sure of when the port was found.
    let security = |own: &PortSecurity| wished_security(intent, nic, own).unwrap_or_else(|_| own.clone());
    match resolution {
        Resolution::NotOurs => Vec::new(),
        Resolution::New(port) => {
            let old = intent.port_by_device(nic.domain, nic.mac).map(|old| Change::DeletePort(old.id));
            let port = Port { security: security(&port.security), ..(**port).clone() };
            old.into_iter().chain([Change::PutPort(port)]).collect()
        }
        Resolution::Port(id) => match intent.port(*id) {
            // The guest was renamed, or its trunk has other VLANs. A port that a person made keeps what they said of it.
            Some(port) if port.origin == Origin::Guest => {
                let now = Port {
                    device: Some(nic.guest()),
                    trunk: trunk_of(nic),
                    security: security(&port.security),
                    ..port.clone()
                };
                if now == *port { Vec::new() } else { vec![Change::PutPort(now)] }
            }
            _ => Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::{Bridging, NetworkDraft, PhysicalNetwork, ResourceName};

    fn vid(id: u16) -> VlanId {
        VlanId::new(id).expect("VLAN")
    }

    fn trunk_nic(tagged: &[u16]) -> NicRequest {
        NicRequest {
            domain: Uuid::from_u128(1),
            domain_name: "fw".into(),
            mac: "52:54:00:00:00:01".parse().expect("mac"),
            source: NicSource::Bridge(IfName::new("vmf-lan").expect("name")),
            wish_network: Some("lab".into()),
            wish_port: None,
            wish_groups: None,
            wish_port_security: None,
            vlans: tagged.iter().copied().map(vid).collect(),
            native_vlan: None,
            trunk: !tagged.is_empty(),
        }
    }

    #[test]
    fn an_access_vlan_is_the_networks_own() {
        let mut intent = Intent::default();
        let name = |text: &str| ResourceName::new(text).expect("name");
        let bridging = Bridging::Existing { bridge: IfName::new("br0").expect("name") };
        let physical = PhysicalNetwork { bridging, vlans: vid(1)..=vid(4094), native_vlan: vid(1) };
        let host = HostConfig { physical_networks: [(name("p"), physical)].into(), ..HostConfig::default() };
        for (id, network, vlan) in [(1, "lab", None), (2, "ten", Some(vid(10)))] {
            let physical_network = vlan.map(|_| name("p"));
            let draft = NetworkDraft { physical_network, vlan, ..NetworkDraft::named(name(network)) };
            let network = draft.complete(NetworkId(Uuid::from_u128(id)), &intent, None).expect("complete");
            let _ = intent.apply(vec![Change::PutNetwork(network)], &host).expect("fits");
        }
        let nic = |network: &str, vlans: &[u16]| NicRequest {
            source: NicSource::Network { name: network.into(), bridge: None },
            wish_network: None,
            vlans: vlans.iter().copied().map(vid).collect(),
            trunk: false,
            ..trunk_nic(&[])
        };
        for (network, vlans, why) in [
            ("lab", &[][..], ""),
            ("lab", &[10], "'lab' has no VLAN"),
            ("ten", &[10], ""),
            ("ten", &[], ""),
            ("ten", &[11], "'ten' is VLAN 10"),
        ] {
            match resolve(&intent, &host, &nic(network, vlans), |_, _| false) {
                Ok(_) => assert_eq!(why, "", "{network} {vlans:?}"),
                Err(error) => assert!(!why.is_empty() && error.to_string().contains(why), "{error}"),
            }
        }
    }

    #[test]
    fn metadata_says_a_nics_security() {
        let mut intent = Intent::default();
        let mut host = HostConfig::default();
        let name = |text: &str| ResourceName::new(text).expect("name");
        let lab = NetworkDraft::named(name("lab")).complete(NetworkId(Uuid::from_u128(2)), &intent, None);
        let web: crate::intent::SecurityGroupDraft =
            serde_json::from_value(serde_json::json!({"name": "web"})).expect("draft");
        let web = web.complete(SecurityGroupId(Uuid::from_u128(3)), &intent).expect("complete");
        let changes = vec![Change::PutNetwork(lab.expect("complete")), Change::PutSecurityGroup(web.clone())];
        let _ = intent.apply(changes, &host).expect("applied");
        let mut nic = trunk_nic(&[]);
        let heed = |intent: &mut Intent, nic: &NicRequest, host: &HostConfig| -> Result<PortSecurity, String> {
            let resolution = resolve(intent, host, nic, |_, _| false).map_err(|error| error.to_string())?;
            let _ = intent.apply(changes_for(intent, &resolution, nic), host).expect("applied");
            Ok(intent.port_by_device(nic.domain, nic.mac).expect("its port").security.clone())
        };

        nic.wish_groups = Some(vec!["dbs".into()]);
        let refused = heed(&mut intent, &nic, &host).expect_err("no such group");
        assert!(refused.contains("security group 'dbs', which does not exist; make it with"), "{refused}");
        assert_eq!(intent.ports().len(), 0);
        nic.wish_groups = Some(vec!["web".into()]);
        assert_eq!(heed(&mut intent, &nic, &host).expect("a port").groups, Some([web.id].into()));
        // A port that is there follows, and keeps what is not said.
        nic.wish_groups = Some(Vec::new());
        assert_eq!(heed(&mut intent, &nic, &host).expect("a port").groups, Some([].into()));
        nic.wish_groups = None;
        assert_eq!(heed(&mut intent, &nic, &host).expect("a port").groups, Some([].into()));
        nic.wish_port_security = Some(false);
        let refused = heed(&mut intent, &nic, &host).expect_err("not allowed");
        assert!(refused.contains("metadata_port_security_off = true"), "{refused}");
        host.metadata_port_security_off = true;
        assert_eq!(heed(&mut intent, &nic, &host).expect("a port").port_security, Some(false));

        // What an administrator says of a port holds.
        let mut port = intent.ports().next().expect("a port").clone();
        (port.origin, port.security) = (Origin::Admin, PortSecurity::default());
        let _ = intent.apply(vec![Change::PutPort(port)], &host).expect("applied");
        let refused = heed(&mut intent, &nic, &host).expect_err("an administrator's");
        assert!(refused.contains("which an administrator made"), "{refused}");
    }

    #[test]
    fn a_guests_own_port_follows_the_vlans_of_its_definition() {
        let bridging = Bridging::Own {
            uplink: IfName::new("eth1").expect("name"),
            bridge: IfName::new("vmf-lan").expect("name"),
            take_host_nic: false,
        };
        let lan = ResourceName::new("lan").expect("name");
        let physical = PhysicalNetwork { bridging, vlans: vid(1)..=vid(4094), native_vlan: vid(1) };
        let host = HostConfig { physical_networks: [(lan.clone(), physical)].into(), ..HostConfig::default() };
        let mut intent = Intent::default();
        let name = ResourceName::new("lab").expect("name");
        let draft = NetworkDraft { physical_network: Some(lan), ..NetworkDraft::named(name) };
        let network = draft.complete(NetworkId(Uuid::from_u128(2)), &intent, None).expect("complete");
        let _ = intent.apply(vec![Change::PutNetwork(network)], &host).expect("applied");
        for tagged in [&[20u16, 30][..], &[20], &[]] {
            let nic = trunk_nic(tagged);
            let resolution = resolve(&intent, &host, &nic, |_, _| false).expect("resolved");
            let changes = changes_for(&intent, &resolution, &nic);
            let _ = intent.apply(changes, &host).expect("applied");
            let port = intent.port_by_device(nic.domain, nic.mac).expect("its port");
            let has: Vec<u16> = port.trunk.iter().flat_map(|trunk| &trunk.tagged).map(|vid| vid.get()).collect();
            assert_eq!(has, tagged);
            let again = resolve(&intent, &host, &nic, |_, _| false).expect("resolved");
            assert_eq!(changes_for(&intent, &again, &nic), []);
        }
    }
}
