//! What networks and ports take of security, as options.

use super::{
    CliError,
    client::Inventory,
    field::{Fields, put_all},
};
use crate::dbus::parse_path;
use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use serde::Serialize;
use zbus::OwnedObjectPath;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    On,
    Off,
}

#[derive(Debug, Args)]
pub struct SecurityOptions {
    /// Guests send from their own addresses alone, and play neither server nor router
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    port_security: Option<OnOff>,
    /// Security group, by name or id; may be repeated
    #[arg(long = "security-group", value_name = "NAME", add = ArgValueCompleter::new(super::complete::security_groups))]
    security_groups: Vec<String>,
    /// No security group: a network's ports are not filtered by groups; a port may do nothing but get its address
    #[arg(long, conflicts_with = "security_groups")]
    no_security_group: bool,
    /// Guests talk with the gateway and the uplink alone, not with one another
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    isolated: Option<OnOff>,
}

impl SecurityOptions {
    pub fn put(&self, fields: &mut Fields) {
        let flag = |value: OnOff| (value == OnOff::On).into();
        fields.extend(self.port_security.map(|value| ("port_security", flag(value))));
        fields.extend(self.isolated.map(|value| ("isolated", flag(value))));
        put_all(fields, "security_groups", &self.security_groups);
        if self.no_security_group {
            fields.insert("security_groups", Vec::<String>::new().into());
        }
    }
}

/// The assignments and the options of `set`.
pub fn merged(mut assigned: Fields, options: Fields) -> Result<Fields, CliError> {
    for (field, value) in options {
        if assigned.insert(field, value).is_some() {
            return Err(CliError::Usage(format!("'{}' is given twice", field.replace('_', "-"))));
        }
    }
    Ok(assigned)
}

/// A security group in the JSON form of others.
#[derive(Debug, Serialize)]
pub struct GroupRef<'a> {
    pub id: &'a str,
    pub name: &'a str,
}

pub fn groups<'a>(paths: &[OwnedObjectPath], inventory: &'a Inventory) -> Vec<GroupRef<'a>> {
    let known = paths.iter().filter_map(|path| inventory.groups.get(&parse_path(path)?.1));
    let mut groups: Vec<_> = known.map(|group| GroupRef { id: &group.id, name: &group.name }).collect();
    groups.sort_by_key(|group| group.name);
    groups
}

pub fn names(groups: &[GroupRef<'_>]) -> String {
    groups.iter().map(|group| group.name).collect::<Vec<_>>().join(", ")
}

pub fn on_off(flag: bool) -> &'static str {
    if flag { "on" } else { "off" }
}
