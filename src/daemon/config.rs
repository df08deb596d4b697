//! `/etc/vmfabric/vmfabricd.toml`: the facts of this host. Every error names the file, the line and the key.

use crate::{
    intent::{Bridging, DhcpLimits, HostConfig, HostDns, PhysicalNetwork, ResourceName},
    metrics::Listen,
    net::{DnsForwarder, DomainName, IfName, VlanId},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    ops::{Range, RangeInclusive},
    path::Path,
    str::FromStr,
};
use toml::Spanned;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub host: HostConfig,
    pub libvirt_uri: String,
    /// Empty: the host's own resolvers.
    pub upstream_dns: Vec<SocketAddr>,
    /// A `tracing` filter.
    pub log_level: String,
    /// `None`: nobody is told metrics.
    pub metrics: Option<Listen>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}:{line}: {key}: {why}")]
    Bad { path: String, line: usize, key: String, why: String },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    libvirt: Libvirt,
    dhcp: Dhcp,
    dns: Dns,
    log: Log,
    forwarding: Forwarding,
    filter: Filter,
    metrics: Metrics,
    physical_networks: BTreeMap<Spanned<String>, Physical>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Libvirt {
    uri: String,
}

impl Default for Libvirt {
    fn default() -> Self {
        Self { uri: "qemu:///system".to_owned() }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Dhcp {
    leases_per_port: Option<Spanned<i64>>,
    packets_per_port: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Dns {
    upstream: Vec<Spanned<String>>,
    forwarders: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
    refuse_private: bool,
    local_reverse: bool,
    serve_stale_seconds: Option<Spanned<i64>>,
    rate_limit: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Log {
    level: Spanned<String>,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Spanned::new(0..0, "info".to_owned()) }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Forwarding {
    egress: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Filter {
    default_security_groups: Vec<Spanned<String>>,
    host_services: Vec<Spanned<String>>,
    metadata_port_security_off: bool,
    log_drops: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Metrics {
    listen: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Physical {
    interface: Option<Spanned<String>>,
    bridge: Option<Spanned<String>>,
    vlans: Option<Spanned<String>>,
    native_vlan: Option<Spanned<i64>>,
    take_host_nic: Option<Spanned<bool>>,
}

impl Config {
    /// Reads the file; where there is none, all is default.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::parse("", ""),
            Err(source) => Err(ConfigError::Read { path: path.display().to_string(), source }),
        }
    }

    /// `path` is for errors.
    pub fn parse(text: &str, path: &str) -> Result<Self, ConfigError> {
        let bad = |span: Option<Range<usize>>, why: String| {
            let (line, key) = locate(text, span.map_or(0, |span| span.start));
            ConfigError::Bad { path: path.to_owned(), line, key, why }
        };
        let file: File = toml::from_str(text).map_err(|error| bad(error.span(), error.message().to_owned()))?;
        let fail = |(span, why): (Range<usize>, String)| bad(Some(span), why);
        let level = file.log.level;
        super::log::filter_of(level.get_ref()).map_err(|why| fail((level.span(), why)))?;
        let mut host = HostConfig::default();
        let DhcpLimits { leases_per_port, packets_per_port } = host.dhcp;
        host.dhcp = DhcpLimits {
            leases_per_port: limit(file.dhcp.leases_per_port.as_ref(), leases_per_port).map_err(fail)?,
            packets_per_port: limit(file.dhcp.packets_per_port.as_ref(), packets_per_port).map_err(fail)?,
        };
        for link in &file.forwarding.egress {
            host.egress.insert(interface(link).map_err(fail)?);
        }
        for group in &file.filter.default_security_groups {
            host.default_security_groups.push(parsed(group).map_err(fail)?);
        }
        for service in &file.filter.host_services {
            host.host_services.insert(parsed(service).map_err(fail)?);
        }
        host.metadata_port_security_off = file.filter.metadata_port_security_off;
        host.log_drops = file.filter.log_drops;
        let metrics = file.metrics.listen.as_ref().filter(|listen| !listen.get_ref().is_empty());
        let metrics = metrics.map(parsed).transpose().map_err(fail)?;
        let mut users = BTreeMap::new();
        for (name, physical) in &file.physical_networks {
            let (name, physical) = physical_network(name, physical).map_err(fail)?;
            let link = match &physical.bridging {
                Bridging::Own { uplink, .. } => uplink,
                Bridging::Existing { bridge } => bridge,
            };
            if let Some(other) = users.insert(link.clone(), name.clone()) {
                let span = file.physical_networks.keys().find(|key| key.get_ref() == name.as_str()).map(Spanned::span);
                return Err(bad(span, format!("{link} is the physical network '{other}' already")));
            }
            host.physical_networks.insert(name, physical);
        }
        host.dns = dns(&file.dns).map_err(fail)?;
        let upstream_dns = file.dns.upstream.iter().map(server).collect::<Result<_, _>>().map_err(fail)?;
        Ok(Self { host, libvirt_uri: file.libvirt.uri, upstream_dns, log_level: level.into_inner(), metrics })
    }
}

type Fault = (Range<usize>, String);

fn limit(given: Option<&Spanned<i64>>, default: u32) -> Result<u32, Fault> {
    let Some(given) = given else { return Ok(default) };
    let number = *given.get_ref();
    u32::try_from(number).map_err(|_| (given.span(), format!("{number} is no limit; use 1 or more, or 0 for none")))
}

fn physical_network(key: &Spanned<String>, table: &Physical) -> Result<(ResourceName, PhysicalNetwork), Fault> {
    let name = ResourceName::new(key.get_ref()).map_err(|error| (key.span(), error.to_string()))?;
    let native_vlan = match &table.native_vlan {
        None => VlanId::DEFAULT,
        Some(id) => {
            let number = u16::try_from(*id.get_ref()).unwrap_or(0);
            VlanId::new(number).map_err(|_| (id.span(), format!("{} is no VLAN; use 1 to 4094", id.get_ref())))?
        }
    };
    let bridging = match (&table.interface, &table.bridge) {
        (Some(uplink), None) => Bridging::Own {
            uplink: interface(uplink)?,
            bridge: own_bridge(&name, uplink)?,
            take_host_nic: table.take_host_nic.as_ref().is_some_and(|take| *take.get_ref()),
        },
        (None, Some(bridge)) => {
            if let Some(take) = &table.take_host_nic {
                return Err((take.span(), "it goes with interface, not with bridge".to_owned()));
            }
            Bridging::Existing { bridge: interface(bridge)? }
        }
        (Some(_), Some(bridge)) => {
            return Err((
                bridge.span(),
                "give interface (vmfabric makes the bridge) or bridge (it exists), not both".into(),
            ));
        }
        (None, None) => {
            return Err((key.span(), "give interface = \"NIC\", or bridge = \"BRIDGE\" that exists".into()));
        }
    };
    let vlans = match &table.vlans {
        None => VlanId::LOWEST..=VlanId::HIGHEST,
        Some(text) => vlan_range(text.get_ref()).map_err(|why| (text.span(), why))?,
    };
    Ok((name, PhysicalNetwork { bridging, vlans, native_vlan }))
}

/// The bridge that we make for a physical network.
fn own_bridge(name: &ResourceName, uplink: &Spanned<String>) -> Result<IfName, Fault> {
    let bridge = format!("vmf-{}", name.as_str().to_ascii_lowercase());
    IfName::new(&bridge).map_err(|_| {
        let why =
            format!("physical network '{name}' has a name too long for its bridge {bridge}; use at most 11 characters");
        (uplink.span(), why)
    })
}

fn parsed<T: FromStr<Err: fmt::Display>>(text: &Spanned<String>) -> Result<T, Fault> {
    text.get_ref().parse().map_err(|error: T::Err| (text.span(), error.to_string()))
}

fn interface(name: &Spanned<String>) -> Result<IfName, Fault> {
    IfName::new(name.get_ref()).map_err(|error| (name.span(), error.to_string()))
}

fn vlan_range(text: &str) -> Result<RangeInclusive<VlanId>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let parse = |id: &str| id.trim().parse::<VlanId>().map_err(|error| error.to_string());
    let (first, last) = (parse(first)?, parse(last)?);
    if first > last { Err(format!("'{text}' is empty; write FIRST-LAST")) } else { Ok(first..=last) }
}

fn dns(table: &Dns) -> Result<HostDns, Fault> {
    let mut forwarders = Vec::new();
    for (name, servers) in &table.forwarders {
        let domain = DomainName::new(name.get_ref()).map_err(|error| (name.span(), error.to_string()))?;
        if servers.is_empty() {
            forwarders.push(DnsForwarder { domain: Some(domain.clone()), server: None });
        }
        for address in servers {
            forwarders.push(DnsForwarder { domain: Some(domain.clone()), server: Some(server(address)?) });
        }
    }
    let number = |value: &Option<Spanned<i64>>, most: u32| match value {
        None => Ok(0),
        Some(value) => {
            let number = u32::try_from(*value.get_ref()).ok().filter(|number| *number <= most);
            number.ok_or_else(|| (value.span(), format!("{} is out of range; use 0 to {most}", value.get_ref())))
        }
    };
    Ok(HostDns {
        forwarders,
        refuse_private: table.refuse_private,
        local_reverse: table.local_reverse,
        stale_seconds: number(&table.serve_stale_seconds, MAX_STALE_SECONDS)?,
        rate_limit: number(&table.rate_limit, 1_000_000)?,
    })
}

/// RFC 8767 section 5 suggests 1 to 3 days; a week is more than enough.
const MAX_STALE_SECONDS: u32 = 7 * 86_400;

fn server(text: &Spanned<String>) -> Result<SocketAddr, Fault> {
    let address = text.get_ref();
    DnsForwarder::server(address).ok_or_else(|| {
        (text.span(), format!("'{address}' is not a name server; write its IP address, or ADDRESS:PORT"))
    })
}

/// The line (from 1) of a place in the text, and the key that it belongs to.
fn locate(text: &str, offset: usize) -> (usize, String) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count();
    let mut section = String::new();
    let mut key = String::new();
    for (number, content) in text.lines().enumerate().take(line + 1) {
        let content = content.trim();
        if let Some(header) = content.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = header.trim().to_owned();
            key.clear();
        } else if let Some((name, _)) = content.split_once('=')
            && name.trim().chars().all(|c| c.is_ascii_alphanumeric() || "._-\"'".contains(c))
        {
            key = name.trim().to_owned();
        } else if number == line && !content.is_empty() && key.is_empty() {
            key = content.to_owned();
        }
    }
    let path: Vec<&str> = [section.as_str(), key.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
    (line + 1, if path.is_empty() { "the file".to_owned() } else { path.join(".") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::HostService;

    fn error(text: &str) -> String {
        Config::parse(text, "f.toml").expect_err("must fail").to_string()
    }

    #[test]
    fn reads_a_whole_file() {
        let text = "\
            [libvirt]\nuri = \"test:///default\"\n\
            [dhcp]\nleases_per_port = 0\n\
            [dns]\nupstream = [\"192.0.2.53\", \"[2001:db8::53]:5353\"]\nrate_limit = 500\n\
            [dns.forwarders]\n\"corp.example\" = [\"10.0.0.53\"]\n\"no.example\" = []\n\
            [log]\nlevel = \"debug\"\n\
            [forwarding]\negress = [\"tun0\"]\n\
            [metrics]\nlisten = \"unix:/run/vmfabric/metrics.sock\"\n\
            [filter]\nlog_drops = true\ndefault_security_groups = [\"default\"]\nhost_services = [\"tcp/3128\"]\n\
            [physical_networks.lan]\ninterface = \"eth1\"\nvlans = \"100-199\"\n\
            [physical_networks.dc]\nbridge = \"br0\"\nnative_vlan = 4094\n";
        let config = Config::parse(text, "f.toml").expect("valid");
        let limits = DhcpLimits { leases_per_port: 0, ..DhcpLimits::default() };
        assert_eq!(config.host.dhcp, limits);
        assert_eq!(config.upstream_dns[0].to_string(), "192.0.2.53:53");
        assert_eq!(format!("{:?}", config.host.dns.forwarders), "[corp.example=10.0.0.53, no.example=]");
        assert_eq!((config.host.dns.rate_limit, config.host.dns.refuse_private), (500, false));
        let lan = &config.host.physical_networks[&ResourceName::new("lan").expect("name")];
        assert_eq!(lan.bridge().as_str(), "vmf-lan");
        assert_eq!(lan.vlans, VlanId::new(100).expect("id")..=VlanId::new(199).expect("id"));
        assert_eq!(config.host.default_security_groups, [ResourceName::new("default").expect("name")]);
        assert!(config.host.host_services.contains(&HostService { protocol: 6, port: 3128 }));
        assert!(config.host.log_drops && !config.host.metadata_port_security_off);
        assert_eq!(config.metrics.expect("there").to_string(), "unix:/run/vmfabric/metrics.sock");
        assert_eq!(Config::parse("[metrics]\nlisten = \"\"\n", "").expect("valid").metrics, None);
        assert_eq!(Config::parse("", "").expect("valid").libvirt_uri, "qemu:///system");
    }

    #[test]
    fn every_error_names_file_line_and_key() {
        let cases = [
            ("[log]\nlevel = 7\n", "f.toml:2: log.level: "),
            ("[dhcp]\npackets_per_port = -1\n", "f.toml:2: dhcp.packets_per_port: -1 is no limit"),
            (
                "[metrics]\nlisten = \"0.0.0.0:9177\"\n",
                "f.toml:2: metrics.listen: 0.0.0.0:9177 is not a loopback address",
            ),
            (
                "[metrics]\nlisten = \"9177\"\n",
                "f.toml:2: metrics.listen: '9177' is no place to listen; write 127.0.0.1:9177",
            ),
            ("[lgo]\n", "f.toml:1: lgo: unknown field"),
            ("a = \n", "f.toml:1: a: "),
            ("[filter]\nhost_services = [\"tcp\"]\n", "f.toml:2: filter.host_services: 'tcp' is no service; write"),
            ("[filter]\ndefault_security_groups = [\"a b\"]\n", "f.toml:2: filter.default_security_groups: 'a b'"),
            ("[dns]\nupstream = [\"here\"]\n", "f.toml:2: dns.upstream: 'here' is not a name server"),
            ("[dns]\nserve_stale_seconds = -1\n", "f.toml:2: dns.serve_stale_seconds: -1 is out of range"),
            ("[dns.forwarders]\n\"a..b\" = []\n", "f.toml:2: dns.forwarders.\"a..b\": 'a..b' is not a DNS name"),
            ("[physical_networks.lan]\nvlans = \"1-2\"\n", "f.toml:1: physical_networks.lan: give interface"),
            (
                "[physical_networks.lan]\ninterface = \"eth1\"\nvlans = \"10-5000\"\n",
                "f.toml:3: physical_networks.lan.vlans: VLAN 5000 is out of range",
            ),
            (
                "[physical_networks.lan]\ninterface = \"an-interface-too-long\"\n",
                "f.toml:2: physical_networks.lan.interface: 'an-interface-too-long' cannot name",
            ),
            (
                "[physical_networks.lan]\ninterface = \"eth1\"\nbridge = \"br0\"\n",
                "f.toml:3: physical_networks.lan.bridge: give interface",
            ),
            (
                "[physical_networks.much-too-long]\ninterface = \"eth1\"\n",
                "f.toml:2: physical_networks.much-too-long.interface: physical network 'much-too-long' has a name too long",
            ),
            (
                "[physical_networks.a]\ninterface = \"eth1\"\n[physical_networks.b]\ninterface = \"eth1\"\n",
                "f.toml:3: physical_networks.b: eth1 is the physical network 'a' already",
            ),
            (
                "[physical_networks.a]\ninterface = \"eth1\"\nnative_vlan = 0\n",
                "f.toml:3: physical_networks.a.native_vlan: 0 is",
            ),
        ];
        for (text, start) in cases {
            assert!(error(text).starts_with(start), "{text}: {}", error(text));
        }
    }
}
