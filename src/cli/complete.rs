//! Live names for the shell's completion. Nothing is started for it, and nobody waits long.

use super::client::{Client, Inventory};
use crate::dbus::BUS_NAME;
use clap_complete::engine::CompletionCandidate;
use std::{ffi::OsStr, time::Duration};
use zbus::fdo;

const PATIENCE: Duration = Duration::from_millis(800);
/// More would scroll the terminal away.
const MAX: usize = 500;

fn inventory() -> Option<Inventory> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, ask()).await.ok()? })
}

async fn ask() -> Option<Inventory> {
    let client = Client::connect().await.ok()?;
    let bus = fdo::DBusProxy::new(&client.bus).await.ok()?;
    bus.name_has_owner(BUS_NAME.try_into().ok()?).await.ok().filter(|owned| *owned)?;
    client.inventory().await.ok()
}

/// Names with a word about each.
type Names = Vec<(String, String)>;

fn candidates(typed: &OsStr, names: impl FnOnce(&Inventory) -> Names) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let mut names = inventory().map(|inventory| names(&inventory)).unwrap_or_default();
    names.retain(|(name, _)| name.starts_with(typed) && !name.chars().any(char::is_control));
    names.sort();
    names.dedup_by(|a, b| a.0 == b.0);
    names.truncate(MAX);
    names.into_iter().map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into()))).collect()
}

pub fn networks(typed: &OsStr) -> Vec<CompletionCandidate> {
    candidates(typed, |all| all.networks.values().map(|n| (n.name.clone(), n.segment.clone())).collect())
}

pub fn subnets(typed: &OsStr) -> Vec<CompletionCandidate> {
    candidates(typed, |all| all.subnets.values().map(|s| (s.name.clone(), s.cidr.clone())).collect())
}

fn port_names(all: &Inventory) -> Names {
    let name = |text: &String, mac: &String| if text.is_empty() { mac.clone() } else { text.clone() };
    all.ports.values().map(|p| (name(&p.name, &p.mac), p.addresses.join(" "))).collect()
}

pub fn ports(typed: &OsStr) -> Vec<CompletionCandidate> {
    candidates(typed, port_names)
}

pub fn ports_and_guests(typed: &OsStr) -> Vec<CompletionCandidate> {
    candidates(typed, |all| {
        let guests = all.ports.values().map(|p| (p.device_name.clone(), "guest".to_owned()));
        port_names(all).into_iter().chain(guests.filter(|(name, _)| !name.is_empty())).collect()
    })
}

pub fn security_groups(typed: &OsStr) -> Vec<CompletionCandidate> {
    candidates(typed, |all| all.groups.values().map(|g| (g.name.clone(), g.description.clone())).collect())
}

pub fn address_groups(typed: &OsStr) -> Vec<CompletionCandidate> {
    candidates(typed, |all| all.address_groups.values().map(|g| (g.name.clone(), g.description.clone())).collect())
}
