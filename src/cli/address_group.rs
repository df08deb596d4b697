use super::{
    CliError, Output,
    client::{Client, Inventory},
    field::{self, Fields, Form, Key, put, put_all},
    short,
};
use crate::{
    dbus::{AddressGroupInfo, Kind, parse_path},
    intent::{RemoteDraft, ResourceName},
};
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use serde::Serialize;

#[derive(Debug, Subcommand)]
pub enum AddressGroupCommand {
    /// Make a group of addresses and prefixes, of both families
    Create(Create),
    /// List groups
    #[command(visible_alias = "ls")]
    List,
    /// Show all of a group
    Show {
        /// Name or id
        #[arg(add = ArgValueCompleter::new(super::complete::address_groups))]
        name: String,
    },
    /// Change fields: description=…; KEY= takes the default back
    ///
    /// Fields: name, description.
    Set {
        /// Name or id
        #[arg(add = ArgValueCompleter::new(super::complete::address_groups))]
        name: String,
        #[arg(required = true, value_name = "KEY=VALUE")]
        fields: Vec<String>,
    },
    /// Add addresses and prefixes; rules that name the group follow at once
    Add {
        /// Name or id
        #[arg(add = ArgValueCompleter::new(super::complete::address_groups))]
        name: String,
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Remove addresses and prefixes
    Remove {
        /// Name or id
        #[arg(add = ArgValueCompleter::new(super::complete::address_groups))]
        name: String,
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Delete groups that no rule names
    #[command(visible_alias = "rm")]
    Delete {
        /// Names or ids
        #[arg(required = true, add = ArgValueCompleter::new(super::complete::address_groups))]
        names: Vec<String>,
    },
}

impl AddressGroupCommand {
    pub fn mutates(&self) -> bool {
        !matches!(self, Self::List | Self::Show { .. })
    }
}

#[derive(Debug, Args)]
pub struct Create {
    name: ResourceName,
    /// 192.0.2.7, 192.0.2.0/24, 2001:db8::/32
    addresses: Vec<String>,
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

const KEYS: &[Key] = &[
    Key { names: &["name"], field: "name", form: Form::Text },
    Key { names: &["description"], field: "description", form: Form::Text },
];

/// The JSON form of an address group.
#[derive(Debug, Serialize)]
struct AddressGroup<'a> {
    id: &'a str,
    name: &'a str,
    description: Option<&'a str>,
    /// Prefixes.
    addresses: &'a [String],
    /// Names of security groups whose rules name it.
    security_groups: Vec<&'a str>,
}

pub async fn run(command: AddressGroupCommand, client: &Client, out: &mut Output) -> Result<(), CliError> {
    match command {
        AddressGroupCommand::Create(create) => {
            let mut fields = Fields::from([("name", create.name.to_string().into())]);
            put(&mut fields, "description", create.description);
            put_all(&mut fields, "addresses", &create.addresses);
            let path = client.manager.create_address_group(&fields).await.map_err(CliError::of)?;
            show(client, &path, out).await
        }
        AddressGroupCommand::List => {
            let inventory = client.inventory().await?;
            let mut groups: Vec<_> =
                inventory.address_groups.values().map(|group| describe(group, &inventory)).collect();
            groups.sort_by_key(|group| group.name);
            out.table(&groups, &["name", "id", "addresses", "security groups", "description"], |group| {
                vec![
                    group.name.to_owned(),
                    short(group.id),
                    group.addresses.len().to_string(),
                    group.security_groups.join(", "),
                    group.description.unwrap_or_default().to_owned(),
                ]
            })
        }
        AddressGroupCommand::Show { name } => {
            let path = client.find(Kind::AddressGroup, &name).await?;
            show(client, &path, out).await
        }
        AddressGroupCommand::Set { name, fields } => {
            client.update(Kind::AddressGroup, &name, &field::parse(KEYS, &fields)?).await
        }
        AddressGroupCommand::Add { name, addresses } => {
            let path = client.find(Kind::AddressGroup, &name).await?;
            client.resource(Kind::AddressGroup, path).await?.add_addresses(&addresses).await.map_err(CliError::of)
        }
        AddressGroupCommand::Remove { name, addresses } => {
            let path = client.find(Kind::AddressGroup, &name).await?;
            client.resource(Kind::AddressGroup, path).await?.remove_addresses(&addresses).await.map_err(CliError::of)
        }
        AddressGroupCommand::Delete { names } => client.delete(Kind::AddressGroup, &names).await,
    }
}

fn describe<'a>(group: &'a AddressGroupInfo, inventory: &'a Inventory) -> AddressGroup<'a> {
    let named = RemoteDraft::AddressGroup(group.id.clone());
    let users = inventory.groups.values().filter(|user| user.rules.0.iter().any(|rule| rule.rule.remote == named));
    let mut users: Vec<_> = users.map(|user| user.name.as_str()).collect();
    users.sort_unstable();
    AddressGroup {
        id: &group.id,
        name: &group.name,
        description: super::opt(&group.description),
        addresses: &group.addresses,
        security_groups: users,
    }
}

async fn show(client: &Client, path: &str, out: &mut Output) -> Result<(), CliError> {
    let inventory = client.inventory().await?;
    let info = parse_path(path).and_then(|(_, id)| inventory.address_groups.get(&id));
    let group = describe(info.ok_or_else(|| CliError::NotFound("it is there no more".into()))?, &inventory);
    if out.json {
        return out.document(&group);
    }
    out.fields(&[
        ("name", group.name.to_owned()),
        ("id", group.id.to_owned()),
        ("description", group.description.unwrap_or_default().to_owned()),
        ("addresses", group.addresses.join("\n")),
        ("security groups", group.security_groups.join(", ")),
    ])
}
