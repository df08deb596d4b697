//! What hangs on what: physical networks, bridges, VLANs, networks, subnets, guests, addresses.

mod svg;

use super::{
    CliError, Output,
    client::{Client, Inventory},
    opt,
    output::printable,
};
use crate::dbus::{NetworkInfo, PortInfo, parse_path};
use clap::Args;
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf};

#[derive(Debug, Args)]
pub struct Topology {
    /// Write a drawing to a file, or to standard output where it is -
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    svg: Option<PathBuf>,
}

/// The JSON form of the topology.
#[derive(Debug, Serialize)]
struct Map {
    host: String,
    /// Those that have networks.
    physical_networks: Vec<Physical>,
    /// Of this host alone.
    local_networks: Vec<Network>,
}

#[derive(Debug, Serialize)]
struct Physical {
    name: String,
    bridge: Option<String>,
    networks: Vec<Network>,
}

#[derive(Debug, Serialize)]
struct Network {
    name: String,
    /// `local`, `flat` or `vlan`.
    segment: String,
    vlan: Option<u16>,
    bridge: Option<String>,
    mtu: u16,
    dns_domain: String,
    subnets: Vec<Subnet>,
    ports: Vec<Port>,
    status: String,
}

#[derive(Debug, Serialize)]
struct Subnet {
    name: String,
    cidr: String,
    gateway: Option<String>,
    forward: String,
    dhcp: bool,
}

#[derive(Debug, Serialize)]
struct Port {
    name: Option<String>,
    guest: Option<String>,
    mac: String,
    /// Its own, and those that it leases.
    addresses: Vec<String>,
    trunk_vlans: Vec<u16>,
    tap: Option<String>,
    status: String,
}

impl Network {
    /// What it is, in a few words.
    fn segment(&self) -> String {
        match self.vlan {
            Some(vlan) => format!("VLAN {vlan}"),
            None => self.segment.clone(),
        }
    }
}

impl Subnet {
    fn words(&self) -> String {
        let mut words = vec![self.cidr.clone()];
        words.extend(self.gateway.as_ref().map(|gateway| format!("gateway {gateway}")));
        words.extend(Some(self.forward.clone()).filter(|forward| forward != "none"));
        words.extend(self.dhcp.then(|| "DHCP".to_owned()));
        words.join(", ")
    }
}

impl Port {
    /// As people know it: by its guest.
    fn label(&self) -> &str {
        self.guest.as_deref().or(self.name.as_deref()).unwrap_or(&self.mac)
    }

    fn trunk(&self) -> Option<String> {
        let vlans: Vec<_> = self.trunk_vlans.iter().map(ToString::to_string).collect();
        (!vlans.is_empty()).then(|| format!("trunk {}", vlans.join(",")))
    }
}

pub async fn run(topology: Topology, client: &Client, out: &mut Output) -> Result<(), CliError> {
    let map = read(client).await?;
    match topology.svg {
        Some(file) if file.as_os_str() == "-" => out.line(svg::draw(&map).trim_end()),
        Some(file) => std::fs::write(&file, svg::draw(&map))
            .map_err(|error| CliError::Failed(format!("{}: {error}", file.display()))),
        None if out.json => out.document(&map),
        None => {
            let branches = if is_utf8() { ["├─ ", "└─ ", "│  "] } else { ["|- ", "`- ", "|  "] };
            tree(&map).print("", &branches, out, true)
        }
    }
}

async fn read(client: &Client) -> Result<Map, CliError> {
    let inventory = client.inventory().await?;
    let leases = client.manager.list_leases("").await.map_err(CliError::of)?;
    let mut leased: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for lease in leases {
        let text =
            |key: &str| lease.get(key).and_then(|value| crate::dbus::to_json(value)?.as_str().map(str::to_owned));
        if let (Some(port), Some(address)) = (text("port").filter(|port| !port.is_empty()), text("address")) {
            leased.entry(port).or_default().push(address);
        }
    }
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    Ok(arrange(&inventory, &leased, host.unwrap_or_else(|| "this host".into())))
}

fn arrange(inventory: &Inventory, leased: &BTreeMap<String, Vec<String>>, host: String) -> Map {
    let mut physical: BTreeMap<String, Physical> = BTreeMap::new();
    let mut local = Vec::new();
    let mut networks: Vec<&NetworkInfo> = inventory.networks.values().collect();
    networks.sort_by(|a, b| (a.vlan, &a.name).cmp(&(b.vlan, &b.name)));
    for info in networks {
        let network = network(info, inventory, leased);
        match opt(&info.physical_network) {
            None => local.push(network),
            Some(name) => {
                let (name, bridge) = (name.to_owned(), network.bridge.clone());
                let new = Physical { name: name.clone(), bridge, networks: Vec::new() };
                physical.entry(name).or_insert(new).networks.push(network);
            }
        }
    }
    Map { host, physical_networks: physical.into_values().collect(), local_networks: local }
}

fn network(info: &NetworkInfo, inventory: &Inventory, leased: &BTreeMap<String, Vec<String>>) -> Network {
    let on_it = |path: &str| parse_path(path).is_some_and(|(_, id)| id.to_string() == info.id);
    let mut subnets: Vec<Subnet> = inventory
        .subnets
        .values()
        .filter(|subnet| on_it(&subnet.network))
        .map(|subnet| Subnet {
            name: subnet.name.clone(),
            cidr: subnet.cidr.clone(),
            gateway: opt(&subnet.gateway).map(str::to_owned),
            forward: subnet.forward.clone(),
            dhcp: subnet.dhcp,
        })
        .collect();
    subnets.sort_by(|a, b| a.name.cmp(&b.name));
    let mut ports: Vec<Port> =
        inventory.ports.values().filter(|port| on_it(&port.network)).map(|port| described(port, leased)).collect();
    ports.sort_by(|a, b| (a.label(), &a.mac).cmp(&(b.label(), &b.mac)));
    Network {
        name: info.name.clone(),
        segment: info.segment.clone(),
        vlan: Some(info.vlan).filter(|vlan| *vlan != 0),
        bridge: opt(&info.bridge).map(str::to_owned),
        mtu: info.mtu,
        dns_domain: info.dns_domain.clone(),
        subnets,
        ports,
        status: info.status.clone(),
    }
}

fn described(port: &PortInfo, leased: &BTreeMap<String, Vec<String>>) -> Port {
    let mut addresses = port.addresses.clone();
    addresses.extend(leased.get(&port.id).into_iter().flatten().cloned());
    addresses.sort();
    addresses.dedup();
    let text = |text: &str| opt(text).map(str::to_owned);
    Port {
        name: text(&port.name),
        guest: text(&port.device_name),
        mac: port.mac.clone(),
        addresses,
        trunk_vlans: port.trunk_vlans.clone(),
        tap: text(&port.tap),
        status: port.status.clone(),
    }
}

/// Whether the terminal's locale is UTF-8 (`setlocale(3)`).
fn is_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().filter_map(std::env::var_os).find(|value| !value.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_string_lossy().to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

struct Tree {
    text: String,
    below: Vec<Tree>,
}

impl Tree {
    fn leaf(text: String) -> Self {
        Self { text, below: Vec::new() }
    }

    fn print(&self, indent: &str, branches: &[&str; 3], out: &mut Output, root: bool) -> Result<(), CliError> {
        if root {
            out.line(printable(&self.text))?;
        }
        for (index, child) in self.below.iter().enumerate() {
            let last = index + 1 == self.below.len();
            out.line(format!("{indent}{}{}", branches[usize::from(last)], printable(&child.text)))?;
            let deeper = format!("{indent}{}", if last { "   " } else { branches[2] });
            child.print(&deeper, branches, out, false)?;
        }
        Ok(())
    }
}

fn tree(map: &Map) -> Tree {
    let on = |bridge: &Option<String>| bridge.as_ref().map(|bridge| format!(" (bridge {bridge})")).unwrap_or_default();
    let mut below: Vec<Tree> = Vec::new();
    for physical in &map.physical_networks {
        let networks =
            physical.networks.iter().map(|n| network_tree(n, format!("network {}: {}", n.name, n.segment())));
        let text = format!("physical network {}{}", physical.name, on(&physical.bridge));
        below.push(Tree { text, below: networks.collect() });
    }
    for network in &map.local_networks {
        below.push(network_tree(network, format!("network {}: local{}", network.name, on(&network.bridge))));
    }
    Tree { text: format!("host {}", map.host), below }
}

fn network_tree(network: &Network, text: String) -> Tree {
    let subnets =
        network.subnets.iter().map(|subnet| Tree::leaf(format!("subnet {}: {}", subnet.name, subnet.words())));
    let ports = network.ports.iter().map(|port| {
        let kind = if port.guest.is_some() { "guest" } else { "port" };
        let mut words = vec![format!("{kind} {}", port.label())];
        words.extend(Some(port.mac.clone()).filter(|mac| mac != port.label()));
        words.extend(Some(port.addresses.join(" ")).filter(|addresses| !addresses.is_empty()));
        words.extend(port.trunk());
        words.extend(port.tap.clone());
        words.push(port.status.clone());
        Tree::leaf(words.join("  "))
    });
    Tree { text, below: subnets.chain(ports).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host of so many guests, with long names and many addresses among them.
    pub(super) fn sample(guests: usize) -> Map {
        let port = |index: usize| Port {
            name: None,
            guest: Some(match index % 5 {
                3 => format!("customer-facing-web-frontend-number-{index}.production"),
                4 => format!("веб-сервер <{index}>"),
                _ => format!("guest{index}"),
            }),
            mac: format!("52:54:00:00:00:{index:02x}"),
            addresses: (0..=index % 3).map(|n| format!("10.{n}.0.{index}")).collect(),
            trunk_vlans: if index % 7 == 6 { (20..40).collect() } else { Vec::new() },
            tap: (index % 4 != 1).then(|| format!("vnet{index}")),
            status: ["active", "down", "build", "active", "error"][index % 5].into(),
        };
        let network = |name: &str, vlan: Option<u16>, ports: Vec<Port>| Network {
            name: name.into(),
            segment: if vlan.is_some() { "vlan" } else { "local" }.into(),
            vlan,
            bridge: Some(if vlan.is_some() { "vmf-lan".into() } else { format!("vmf-{name}") }),
            mtu: 1500,
            dns_domain: format!("{name}.internal"),
            subnets: vec![Subnet {
                name: name.into(),
                cidr: "10.7.0.0/24".into(),
                gateway: Some("10.7.0.1".into()),
                forward: "nat".into(),
                dhcp: true,
            }],
            ports,
            status: "active".into(),
        };
        let (mut one, mut two, mut three) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..guests {
            [&mut one, &mut two, &mut three][index % 3].push(port(index));
        }
        let networks = vec![
            network("dmz", Some(10), one),
            network("a-network-whose-name-has-all-of-the-sixty-three-bytes-that-are-ok", Some(4000), two),
        ];
        let lan = Physical { name: "lan".into(), bridge: Some("vmf-lan".into()), networks };
        Map {
            host: "rack7".into(),
            physical_networks: vec![lan],
            local_networks: vec![network("lab", None, three), network("empty", None, Vec::new())],
        }
    }

    #[test]
    fn the_tree_is_drawn_for_every_terminal() {
        #[derive(Clone, Default)]
        struct Sink(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().expect("not poisoned").write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        let mut out = Output::to(false, sink.clone());
        tree(&sample(3)).print("", &["|- ", "`- ", "|  "], &mut out, true).expect("printed");
        let text = String::from_utf8(sink.0.lock().expect("not poisoned").clone()).expect("UTF-8");
        let expected = "host rack7\n|- physical network lan (bridge vmf-lan)\n|  |- network dmz: VLAN 10\n|  |  |- subnet dmz: 10.7.0.0/24, gateway 10.7.0.1, nat, DHCP\n|  |  `- guest guest0  52:54:00:00:00:00  10.0.0.0  vnet0  active\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("`- network empty: local (bridge vmf-empty)\n   `- subnet empty: 10.7.0.0/24, gateway 10.7.0.1, nat, DHCP\n"), "{text}");
    }

    #[test]
    fn drawings_are_well_formed_and_nothing_leaves_its_box() {
        for guests in [0, 1, 7, 60] {
            let map = sample(guests);
            let text = svg::draw(&map);
            if let Some(folder) = std::env::var_os("VMFABRIC_SVG_FOLDER") {
                std::fs::write(PathBuf::from(folder).join(format!("{guests}.svg")), &text).expect("written");
            }
            let document = roxmltree::Document::parse(&text).expect("XML");
            let number = |node: roxmltree::Node<'_, '_>, name: &str| -> f64 {
                node.attribute(name).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{name}"))
            };
            let (width, height) = (number(document.root_element(), "width"), number(document.root_element(), "height"));
            let boxes: Vec<[f64; 4]> = document
                .descendants()
                .filter(|node| node.attribute("class") == Some("port"))
                .map(|node| ["x", "y", "width", "height"].map(|name| number(node, name)))
                .collect();
            assert_eq!(boxes.len(), guests);
            for (index, [x, y, w, h]) in boxes.iter().enumerate() {
                assert!(*x >= 0.0 && x + w <= width && *y >= 0.0 && y + h <= height);
                for [x2, y2, w2, h2] in &boxes[..index] {
                    assert!(x + w <= *x2 || x2 + w2 <= *x || y + h <= *y2 || y2 + h2 <= *y, "boxes overlap");
                }
            }
        }
    }
}
