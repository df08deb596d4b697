//! Takes libvirt's own networks over, and gives them back: the steps between libvirt and the loop, which never waits for
//! libvirt itself.
//!
//! A network keeps its name and its UUID, so that guests' definitions need no change: libvirt's is stopped, ours of the
//! same identity takes its place when it is published, and the NICs of running guests are plugged in again by libvirt
//! (`virDomainUpdateDeviceFlags`). What it was is on disk before anything is stopped; whatever fails is undone.

use super::{Command, CommandError, Handle, ImportCommand, ImportMemo, PortStatus, TakeOver, TakenGuest};
use crate::{
    intent::{IntentError, Ipv6Mode, NetworkId, PortDraft, SubnetDraft},
    libvirt::{
        lease_file::{self, FoundLease},
        network_xml::{ImportError, Imported, PortGroup, parse_network},
        nic_source::Source,
        takeover::{Existing, Guest, GuestNic, Host, TakeOverError},
    },
    net::{IfName, MacAddr},
    protocol::dhcpv4::NEVER,
    server::greeting,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

/// How long libvirt may take for one piece of work, and the publication of a network.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a guest's port may take to come up behind its NIC.
const PORT_UP: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);
const RECOVER_EVERY: Duration = Duration::from_secs(5);

/// What is asked for. Without names or definitions: all networks of libvirt's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImportRequest {
    pub names: Vec<String>,
    /// `<network>` XML that libvirt need not have.
    pub definitions: Vec<String>,
    pub dry_run: bool,
    /// Gives networks back that were taken over.
    pub undo: bool,
}

/// What becomes, or would become, of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    pub network: String,
    /// Whether it is, or can be, taken over.
    pub imported: bool,
    pub steps: Vec<String>,
    pub left_out: Vec<String>,
}

/// A network on its way.
#[derive(Debug, Clone)]
struct Item {
    existing: Option<Existing>,
    imported: Imported,
    take: TakeOver,
    nics: Vec<Moving>,
    report: ImportReport,
}

#[derive(Debug, Clone)]
struct Moving {
    guest: Uuid,
    guest_name: String,
    nic: GuestNic,
    address: Option<IpAddr>,
}

/// Does what is asked for, all or nothing. To be run in a task of its own: it is not to be stopped half-way.
pub async fn import(handle: Handle, request: ImportRequest) -> Result<Vec<ImportReport>, CommandError> {
    let _turn = handle.import_turn().await;
    match request.undo {
        true => undo(&handle, &request).await,
        false => take_over(&handle, &request).await,
    }
}

async fn take_over(handle: &Handle, request: &ImportRequest) -> Result<Vec<ImportReport>, CommandError> {
    let (mut items, mut reports) = match request.definitions.is_empty() {
        true => from_libvirt(handle, &request.names).await?,
        false => (from_definitions(handle, &request.definitions, &request.names).await?, Vec::new()),
    };
    let taken = || items.iter().map(|item| item.take.clone()).collect::<Vec<_>>();
    let bridges = handle.call(|reply| Command::Import(ImportCommand::Check(taken(), reply))).await?;
    for (item, bridge) in items.iter_mut().zip(&bridges) {
        describe(item, bridge.as_ref());
    }
    if request.dry_run || items.is_empty() {
        reports.extend(items.into_iter().map(|item| item.report));
        return Ok(reports);
    }
    let memos: Vec<ImportMemo> = items
        .iter()
        .filter_map(|item| Some(ImportMemo::new(item.existing.as_ref()?, item.imported.bridge.clone())))
        .collect();
    let remembered = memos.clone();
    handle.call(|reply| Command::Import(ImportCommand::Remember(remembered, reply))).await?;
    if let Err(error) = carry_out(handle, &items, &bridges).await {
        tracing::warn!(%error, "a take-over of libvirt's networks failed; giving them back");
        let made: Vec<NetworkId> = items.iter().map(|item| item.take.id).collect();
        return Err(match give_back(handle, &memos, &made).await {
            Ok(()) => CommandError::Import(format!("{error}; all is as it was before")),
            Err(second) => {
                tokio::spawn(recover(handle.clone()));
                CommandError::Import(format!(
                    "{error}; and not all could be put back: {second}. It is tried again until it is done; \
                     'vmfabric import-libvirt --undo' does so at once"
                ))
            }
        });
    }
    for item in &items {
        tracing::info!(network = %item.imported.name, guests = item.nics.len(), "taken over from libvirt");
    }
    reports.extend(items.into_iter().map(|item| item.report));
    Ok(reports)
}

async fn carry_out(handle: &Handle, items: &[Item], bridges: &[Option<IfName>]) -> Result<(), CommandError> {
    let stop: Vec<Uuid> = items
        .iter()
        .filter(|item| item.imported.mode != "bridge")
        .filter_map(|item| item.existing.as_ref().filter(|existing| existing.active))
        .map(|existing| existing.uuid)
        .collect();
    with_libvirt(handle, move |host| stop.into_iter().try_for_each(|uuid| host.stop_network(uuid))).await?;
    let taken = items.iter().map(|item| item.take.clone()).collect();
    handle.call(|reply| Command::Import(ImportCommand::TakeOver(taken, reply))).await?;
    for (item, bridge) in items.iter().zip(bridges) {
        let (Some(existing), Some(bridge)) = (item.existing.clone(), bridge.clone()) else { continue };
        let name = existing.name.clone();
        let on = bridge.clone();
        wait_for_libvirt(handle, move |host| host.runs_on(existing.uuid, &on))
            .await?
            .then_some(())
            .ok_or_else(|| CommandError::Import(format!("libvirt does not take network '{name}' on {bridge}")))?;
        let nics = item.nics.clone();
        with_libvirt(handle, move |host| plug_in(host, &nics, &name, &bridge)).await?;
    }
    for (item, bridge) in items.iter().zip(bridges) {
        wait_for_ports(handle, item).await?;
        greeting::greet(item.nics.iter().filter_map(|moving| moving.address).collect()).await;
        if let Some(bridge) = bridge {
            let from = item.take.subnets.iter().filter_map(|subnet| match subnet.host_address {
                Some(IpAddr::V6(address)) => Some(address),
                _ => None,
            });
            let guests = item.nics.iter().filter(|moving| moving.nic.live).map(|moving| moving.nic.mac);
            tokio::spawn(greeting::greet_ipv6(bridge.clone(), from.collect(), guests.collect()));
        }
    }
    Ok(())
}

fn plug_in(host: &Host, nics: &[Moving], network: &str, bridge: &IfName) -> Result<(), TakeOverError> {
    for Moving { guest, nic, .. } in nics {
        let to = match nic.on_network {
            true => Source::Network(network.to_owned()),
            false => Source::Bridge(bridge.clone()),
        };
        if nic.live {
            host.move_nic(*guest, nic.mac, &to, true)?;
        }
        // By name it is the right one already.
        if nic.config && !nic.on_network {
            host.move_nic(*guest, nic.mac, &to, false)?;
        }
    }
    Ok(())
}

/// Until the ports of all guests that were moved are up.
async fn wait_for_ports(handle: &Handle, item: &Item) -> Result<(), CommandError> {
    let deadline = Instant::now() + PORT_UP;
    loop {
        let down: Vec<String> = {
            let view = handle.view();
            let is_up = |moving: &&Moving| {
                let port = view.intent.port_by_mac(item.take.id, moving.nic.mac);
                port.is_some_and(|port| view.port_status(port.id) == PortStatus::Active)
            };
            let live = item.nics.iter().filter(|moving| moving.nic.live);
            live.filter(|moving| !is_up(moving)).map(|m| format!("{} of '{}'", m.nic.mac, m.guest_name)).collect()
        };
        if down.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let why = format!("NIC {} did not come up on network '{}'", down.join(", "), item.imported.name);
            return Err(CommandError::Import(why));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn undo(handle: &Handle, request: &ImportRequest) -> Result<Vec<ImportReport>, CommandError> {
    let known: Vec<ImportMemo> = handle.view().imports.values().cloned().collect();
    let mut memos = Vec::new();
    for name in &request.names {
        let memo = known.iter().find(|memo| memo.name == *name || memo.uuid.to_string() == *name);
        memos.push(
            memo.cloned().ok_or_else(|| IntentError::not_found("network that was taken over from libvirt", name))?,
        );
    }
    if request.names.is_empty() {
        memos = known;
    }
    let report = |memo: &ImportMemo| ImportReport {
        network: memo.name.clone(),
        imported: false,
        steps: vec![
            format!("delete network '{}' of vmfabric with its subnets, ports and records", memo.name),
            format!("define network '{}' in libvirt as it was", memo.name),
            "move guests' NICs back; leases stay".to_owned(),
        ],
        left_out: Vec::new(),
    };
    let reports = memos.iter().map(report).collect();
    if !request.dry_run {
        let ids: Vec<NetworkId> = memos.iter().map(ImportMemo::id).collect();
        refuse_taken_bridges(handle, &memos).await?;
        give_back(handle, &memos, &ids).await?;
    }
    Ok(reports)
}

/// Before anything of ours goes: libvirt answers, and the bridges that its networks had are free.
async fn refuse_taken_bridges(handle: &Handle, memos: &[ImportMemo]) -> Result<(), CommandError> {
    let networks = with_libvirt(handle, Host::networks).await?;
    let is_memos = |uuid| memos.iter().any(|memo| memo.uuid == uuid);
    for other in networks.iter().filter(|network| !is_memos(network.uuid)) {
        let named = |memo: &&ImportMemo| memo.bridge.as_ref().is_some_and(|bridge| has_bridge(&other.xml, bridge));
        if let Some(memo) = memos.iter().find(named) {
            return Err(CommandError::Import(format!(
                "network '{}' cannot be given back: libvirt's network '{}' has its bridge by now; give that one another \
                 bridge (virsh net-edit {}), then undo again",
                memo.name, other.name, other.name
            )));
        }
    }
    Ok(())
}

/// Whether a libvirt network's definition names this bridge.
fn has_bridge(xml: &str, bridge: &IfName) -> bool {
    let name = bridge.as_str();
    roxmltree::Document::parse(xml).is_ok_and(|document| {
        let mut nodes = document.root_element().children();
        nodes.any(|node| node.has_tag_name("bridge") && node.attribute("name") == Some(name))
    })
}

/// Takes our networks away, makes libvirt's as they were, and moves the guests back.
async fn give_back(handle: &Handle, memos: &[ImportMemo], made: &[NetworkId]) -> Result<(), CommandError> {
    let (bridges, leases) = {
        let view = handle.view();
        let bridge = |id: &NetworkId| view.intent.network(*id).and_then(|network| view.bridge_of(network).cloned());
        let bridges: BTreeMap<NetworkId, Option<IfName>> = made.iter().map(|id| (*id, bridge(id))).collect();
        let leases = memos.iter().filter_map(|memo| Some((memo.bridge.clone()?, leases_of(&view, memo.id())?)));
        (bridges, leases.collect::<Vec<_>>())
    };
    let known: Vec<IpAddr> = {
        let view = handle.view();
        let of_ports = made.iter().flat_map(|id| view.intent.ports_of(*id)).flat_map(|port| &port.fixed_ips);
        let of_leases = view.leases.keys().filter(|(network, _)| made.contains(network));
        of_ports.map(|ip| ip.address).chain(of_leases.map(|(_, address)| *address)).filter(IpAddr::is_ipv4).collect()
    };
    let abandoned = made.to_vec();
    handle.call(|reply| Command::Import(ImportCommand::Abandon(abandoned, reply))).await?;
    if memos.is_empty() {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    while !handle.call(|reply| Command::Import(ImportCommand::AreWithdrawn(made.to_vec(), reply))).await? {
        if Instant::now() >= deadline {
            return Err(CommandError::Import("libvirt does not let go of our networks; is it running?".into()));
        }
        tokio::time::sleep(LOOK).await;
    }
    let all = memos.to_vec();
    let taps = with_libvirt(handle, move |host| {
        for (bridge, text) in leases {
            // dnsmasq takes them up as it starts; without them guests keep their addresses until they renew.
            let path = Path::new(lease_file::FOLDER).join(lease_file::file_name(&bridge));
            if let Err(error) = std::fs::write(&path, text) {
                tracing::info!(path = %path.display(), %error, "libvirt is not given the leases");
            }
        }
        let guests = host.guests()?;
        let mut taps = BTreeMap::new();
        for memo in &all {
            host.restore_network(&memo.existing())?;
            let ours = bridges.get(&memo.id()).cloned().flatten();
            let (Some(old), moved) = (&memo.bridge, ours.as_ref() != memo.bridge.as_ref()) else { continue };
            let nics = guests.iter().flat_map(|guest| {
                let nics = guest.nics_on(&memo.name, ours.as_ref()).into_iter();
                nics.map(|nic| Moving { guest: guest.uuid, guest_name: guest.name.clone(), nic, address: None })
            });
            let nics: Vec<Moving> = nics.collect();
            if moved && memo.active {
                plug_in(host, &nics, &memo.name, old)?;
                // Those that were not moved yet lost their bridge all the same.
                let stayed = guests.iter().flat_map(|guest| guest.nics_on("", Some(old)));
                let all = nics.into_iter().map(|moving| moving.nic).chain(stayed);
                taps.extend(all.filter_map(|nic| Some((nic.tap?, old.clone()))));
            }
        }
        Ok(taps)
    })
    .await?;
    handle.call(|reply| Command::Import(ImportCommand::Plug(taps, reply))).await?;
    tokio::spawn(async move {
        // libvirt's bridges run the spanning tree protocol, by which ports are deaf at first.
        for pause in [0, 1, 2, 4, 8, 16] {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            greeting::greet(known.clone()).await;
        }
    });
    let ids = memos.iter().map(ImportMemo::id).collect();
    handle.call(|reply| Command::Import(ImportCommand::Forget(ids, reply))).await
}

/// A network's leases as libvirt's own file has them.
fn leases_of(view: &super::View, id: NetworkId) -> Option<String> {
    view.intent.network(id)?;
    let of_network = view.leases.iter().filter(|((network, _), lease)| *network == id && lease.prefix_length.is_none());
    let leases: Vec<_> = of_network
        .map(|(_, lease)| {
            let expires = if lease.expires == NEVER { 0 } else { view.lease_clock.to_wall(lease.expires) };
            crate::backend::LeaseRecord { expires, ..lease.clone() }
        })
        .collect();
    Some(lease_file::render(&leases).0)
}

/// Ends take-overs that were cut short: where ours was not made, libvirt has its network back; where it was, guests that
/// are not on it yet are moved. Tries again while libvirt cannot be reached.
pub async fn recover(handle: Handle) {
    loop {
        let turn = handle.import_turn().await;
        let cut: Vec<ImportMemo> = {
            let view = handle.view();
            view.imports.values().filter(|memo| view.intent.network(memo.id()).is_none()).cloned().collect()
        };
        let ids: Vec<NetworkId> = cut.iter().map(ImportMemo::id).collect();
        let outcome = match cut.is_empty() {
            true => complete(&handle).await,
            false => give_back(&handle, &cut, &ids).await,
        };
        drop(turn);
        match outcome {
            Ok(()) if cut.is_empty() => return,
            Ok(()) => {
                let names: Vec<&str> = cut.iter().map(|memo| memo.name.as_str()).collect();
                tracing::warn!(networks = %names.join(", "), "libvirt has its networks back: their take-over was cut short");
            }
            Err(error) => {
                tracing::info!(%error, "a take-over of libvirt's networks that was cut short cannot be ended yet");
                tokio::time::sleep(RECOVER_EVERY).await;
            }
        }
    }
}

/// Moves the guests of networks that are ours from where these were in libvirt.
async fn complete(handle: &Handle) -> Result<(), CommandError> {
    let taken: Vec<(Uuid, String, IfName, Option<IfName>)> = {
        let view = handle.view();
        let one = |memo: &ImportMemo| {
            let network = view.intent.network(memo.id())?;
            Some((memo.uuid, network.name.to_string(), view.bridge_of(network)?.clone(), memo.bridge.clone()))
        };
        view.imports.values().filter_map(one).collect()
    };
    for (uuid, name, ours, old) in taken {
        let on = ours.clone();
        if !wait_for_libvirt(handle, move |host| host.runs_on(uuid, &on)).await? {
            return Err(CommandError::Import(format!("libvirt does not have network '{name}' on {ours} yet")));
        }
        with_libvirt(handle, move |host| {
            for guest in host.guests()? {
                let astray = |nic: &GuestNic| nic.live && nic.bridge.as_ref() != Some(&ours);
                let nics = guest.nics_on(&name, old.as_ref()).into_iter().filter(astray);
                let of = |nic| Moving { guest: guest.uuid, guest_name: guest.name.clone(), nic, address: None };
                plug_in(host, &nics.map(of).collect::<Vec<_>>(), &name, &ours)?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// What libvirt has, as items; and reports of what cannot be taken over where nobody asked for it by name.
async fn from_libvirt(handle: &Handle, names: &[String]) -> Result<(Vec<Item>, Vec<ImportReport>), CommandError> {
    let (networks, guests) = with_libvirt(handle, |host| Ok((host.networks()?, host.guests()?))).await?;
    let ours = |network: &Existing| handle.view().intent.network(NetworkId(network.uuid)).is_some();
    let mut chosen = Vec::new();
    for name in names {
        let found = networks.iter().find(|network| network.name == *name || network.uuid.to_string() == *name);
        let found = found.ok_or_else(|| IntentError::not_found("network in libvirt", name))?;
        if ours(found) {
            return Err(CommandError::Import(format!("network '{name}' is vmfabric's already")));
        }
        chosen.push(found.clone());
    }
    if names.is_empty() {
        chosen = networks.into_iter().filter(|network| !ours(network)).collect();
    }
    let (mut items, mut reports) = (Vec::new(), Vec::new());
    for existing in chosen {
        match item_of(handle, existing.clone(), &guests) {
            Ok(item) => items.push(item),
            Err(error) if names.is_empty() => reports.push(ImportReport {
                network: existing.name,
                left_out: vec![error.to_string()],
                ..ImportReport::default()
            }),
            Err(error) => return Err(error),
        }
    }
    Ok((items, reports))
}

fn item_of(handle: &Handle, existing: Existing, guests: &[Guest]) -> Result<Item, CommandError> {
    let imported = parse_network(&existing.xml)?;
    let bridge = imported.bridge.clone();
    let leases = bridge.as_ref().map(stored_leases).unwrap_or_default();
    let mut take = take_of(handle, NetworkId(existing.uuid), &imported)?;
    let reserved: BTreeMap<MacAddr, usize> =
        take.ports.iter().enumerate().filter_map(|(at, port)| Some((port.mac?, at))).collect();
    let mut nics = Vec::new();
    let mut left_out = Vec::new();
    for guest in guests {
        for (state, domain) in [("runs", &guest.live), ("is defined", &guest.config)] {
            if let Some(Err(error)) = domain {
                left_out.push(format!("guest '{}': how it {state} cannot be read: {error}", guest.name));
            }
        }
        for nic in guest.nics_on(&existing.name, bridge.as_ref()) {
            let lease = leases.iter().find(|lease| lease.mac == nic.mac && lease.address.is_ipv4());
            let group = group_of(&imported, &nic);
            let address = lease.map(|lease| lease.address).filter(|address| held(&take.subnets, *address));
            let at = reserved.get(&nic.mac);
            if let Some(&at) = at {
                let port = &mut take.ports[at];
                limit(port, group);
                // Reserved may be its IPv6 address alone.
                if let (Some(address), Some(addresses)) = (address, &mut port.addresses)
                    && addresses.iter().all(IpAddr::is_ipv6)
                {
                    addresses.insert(0, address);
                }
            } else if address.is_some() || group.is_some() {
                let mut port = PortDraft { mac: Some(nic.mac), ..PortDraft::on(imported.name.to_string()) };
                port.addresses = address.map(|address| vec![address]);
                limit(&mut port, group);
                take.guests.push(TakenGuest { guest: guest.uuid, mac: nic.mac, port });
            }
            let fixed = at.and_then(|&at| take.ports[at].addresses.as_ref()?.first().copied());
            nics.push(Moving { guest: guest.uuid, guest_name: guest.name.clone(), nic, address: fixed.or(address) });
        }
    }
    take.leases = leases;
    let mut report = ImportReport { network: existing.name.clone(), imported: true, ..ImportReport::default() };
    report.left_out = imported.left_out.iter().cloned().chain(left_out).collect();
    Ok(Item { existing: Some(existing), imported, take, nics, report })
}

fn held(subnets: &[SubnetDraft], address: IpAddr) -> bool {
    subnets.iter().any(|subnet| subnet.cidr.contains(&address))
}

fn group_of<'a>(imported: &'a Imported, nic: &GuestNic) -> Option<&'a PortGroup> {
    let named = nic.portgroup.as_ref().and_then(|name| imported.portgroups.get(name));
    named.or_else(|| imported.portgroups.values().find(|group| group.default && nic.portgroup.is_none()))
}

fn limit(port: &mut PortDraft, group: Option<&PortGroup>) {
    let Some(group) = group else { return };
    (port.ingress_kbps, port.ingress_burst_kb) =
        group.ingress.map_or((None, None), |(rate, burst)| (Some(rate), burst));
    (port.egress_kbps, port.egress_burst_kb) = group.egress.map_or((None, None), |(rate, burst)| (Some(rate), burst));
}

/// The leases of libvirt's dnsmasq that have not run out.
fn stored_leases(bridge: &IfName) -> Vec<FoundLease> {
    let path = Path::new(lease_file::FOLDER).join(lease_file::file_name(bridge));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut seen = BTreeSet::new();
    let mut leases = lease_file::parse(&text);
    leases.retain(|lease| (lease.expires == 0 || lease.expires > now) && seen.insert(lease.address));
    leases
}

fn take_of(handle: &Handle, id: NetworkId, imported: &Imported) -> Result<TakeOver, CommandError> {
    let mut network = imported.network.clone();
    if imported.mode == "bridge" {
        let view = handle.view();
        let mut known = view.host.physical_networks.iter();
        let found = known.find(|(_, physical)| Some(physical.bridge()) == imported.bridge.as_ref());
        let Some((name, _)) = found else {
            let bridge = imported.bridge.as_ref().map_or("", |bridge| bridge.as_str());
            return Err(CommandError::Import(format!(
                "libvirt's network '{}' is on the host's bridge {bridge}, which vmfabric does not know; write \
                 [physical_networks.NAME] with bridge = \"{bridge}\" into vmfabricd.toml and reload",
                imported.name
            )));
        };
        network.physical_network = Some(name.clone());
    }
    Ok(TakeOver {
        id,
        network,
        subnets: imported.subnets.clone(),
        ports: imported.ports.clone(),
        guests: Vec::new(),
        leases: Vec::new(),
        old_bridge: imported.bridge.clone().filter(|_| imported.mode != "bridge"),
    })
}

/// Networks from XML alone. A network of that name in libvirt is to be taken over as what it is.
async fn from_definitions(
    handle: &Handle,
    definitions: &[String],
    names: &[String],
) -> Result<Vec<Item>, CommandError> {
    // Without libvirt there is nothing to be in the way.
    let there = with_libvirt(handle, |host| host.networks()).await.unwrap_or_default();
    let mut items = Vec::new();
    for xml in definitions {
        let imported = parse_network(xml)?;
        let name = imported.name.as_str();
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let ours = |uuid| handle.view().intent.network(NetworkId(uuid)).is_some();
        if there.iter().any(|network| network.name == name && !ours(network.uuid)) {
            return Err(CommandError::Import(format!(
                "libvirt has a network '{name}'; take that over: vmfabric import-libvirt {name}"
            )));
        }
        let mut take = take_of(handle, NetworkId(Uuid::new_v4()), &imported)?;
        take.old_bridge = None;
        let report = ImportReport { network: name.to_owned(), imported: true, ..ImportReport::default() };
        let left_out = imported.left_out.clone();
        items.push(Item {
            existing: None,
            take,
            nics: Vec::new(),
            report: ImportReport { left_out, ..report },
            imported,
        });
    }
    Ok(items)
}

/// The steps in words.
fn describe(item: &mut Item, bridge: Option<&IfName>) {
    let Item { imported, take, nics, existing, report } = item;
    let steps = &mut report.steps;
    let on = bridge.map_or_else(String::new, |bridge| format!(" on bridge {bridge}"));
    if existing.as_ref().is_some_and(|existing| existing.active) && imported.mode != "bridge" {
        let old = imported.bridge.as_ref().map_or_else(String::new, |bridge| format!(", with its bridge {bridge}"));
        steps.push(format!("stop libvirt's network '{}'{old} and its dnsmasq", imported.name));
    }
    steps.push(format!("make network '{}'{on} (libvirt's mode was {})", imported.name, imported.mode));
    for subnet in &take.subnets {
        let forward = subnet.forward.map(|forward| forward.to_string()).unwrap_or_default();
        let host = subnet.host_address.map(|address| address.to_string()).unwrap_or_default();
        let dhcp = match (&subnet.dhcp, &subnet.pools) {
            (Some(true), Some(pools)) if !pools.is_empty() => {
                let pools: Vec<_> = pools.iter().map(ToString::to_string).collect();
                format!("DHCP from {}", pools.join(", "))
            }
            (Some(true), _) => "DHCP for reservations".to_owned(),
            _ if subnet.ipv6_mode == Some(Ipv6Mode::Slaac) => "guests make addresses of their own".to_owned(),
            _ => "no DHCP".to_owned(),
        };
        steps.push(format!("subnet {}: this host is {host}, forwarding {forward}, {dhcp}", subnet.cidr));
    }
    for port in &take.ports {
        let mac = port.mac.map(|mac| mac.to_string()).unwrap_or_default();
        let addresses: Vec<_> = port.addresses.iter().flatten().map(ToString::to_string).collect();
        let name = port.dns_name.as_ref().map_or_else(String::new, |name| format!(" as {name}"));
        steps.push(format!("reserve {} for {mac}{name}", addresses.join(", ")));
    }
    let records = take.network.dns_records.len();
    if records > 0 {
        steps.push(format!("DNS records: {records}"));
    }
    let leases = take.leases.iter().filter(|lease| held(&take.subnets, lease.address)).count();
    match leases {
        0 => {}
        1 => steps.push("carry 1 lease over, with its remaining time".to_owned()),
        _ => steps.push(format!("carry {leases} leases over, with their remaining time")),
    }
    for Moving { guest_name, nic, address, .. } in nics.iter() {
        let address = address.map_or_else(|| "an address by DHCP".to_owned(), |address| address.to_string());
        let how = match (nic.live, nic.on_network) {
            (true, _) => "move to the new bridge at once",
            (false, true) => "is there at its next start",
            (false, false) => "change its definition to the new bridge",
        };
        steps.push(format!("guest '{guest_name}', NIC {}, {address}: {how}", nic.mac));
    }
    if take.network.port_security == Some(false) {
        steps.push(format!(
            "port security stays off, as libvirt had none; vmfabric network set {} port-security=on",
            imported.name
        ));
    }
}

/// Runs `work` on a connection of its own, where it may block.
async fn with_libvirt<T: Send + 'static>(
    handle: &Handle,
    work: impl FnOnce(&Host) -> Result<T, TakeOverError> + Send + 'static,
) -> Result<T, CommandError> {
    let uri = handle.libvirt_uri();
    let work = tokio::task::spawn_blocking(move || work(&Host::open(&uri)?));
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(done)) => Ok(done?),
        Ok(Err(_)) => Err(CommandError::Import("vmfabricd is stopping".into())),
        Err(_) => Err(CommandError::Import(format!("libvirt does not answer in {} s", PATIENCE.as_secs()))),
    }
}

/// Whether that becomes true in time.
async fn wait_for_libvirt(handle: &Handle, is: impl Fn(&Host) -> bool + Send + 'static) -> Result<bool, CommandError> {
    with_libvirt(handle, move |host| {
        let deadline = std::time::Instant::now() + PATIENCE / 2;
        while !is(host) {
            if std::time::Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
        Ok(true)
    })
    .await
}

impl From<TakeOverError> for CommandError {
    fn from(error: TakeOverError) -> Self {
        Self::Import(error.to_string())
    }
}

impl From<ImportError> for CommandError {
    fn from(error: ImportError) -> Self {
        Self::Intent(IntentError::Invalid(error.to_string()))
    }
}
