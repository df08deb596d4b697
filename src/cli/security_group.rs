use super::{
    CliError, Output,
    client::{Client, Inventory},
    field::{self, Fields, Form, Key, put, put_all},
    short,
};
use crate::{
    dbus::{Kind, RuleInfo, SecurityGroupInfo, parse_path},
    intent::{RemoteDraft, ResourceName, RuleDraft},
};
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub enum SecurityGroupCommand {
    /// Make a group; without rules given it allows all that its ports send
    Create(Create),
    /// List groups
    #[command(visible_alias = "ls")]
    List,
    /// Show all of a group: its rules, and who has it
    Show {
        /// Name or id
        #[arg(add = ArgValueCompleter::new(super::complete::security_groups))]
        name: String,
    },
    /// Change fields: description=… stateful=no; KEY= takes the default back
    ///
    /// Fields: name, description, stateful.
    Set {
        /// Name or id
        #[arg(add = ArgValueCompleter::new(super::complete::security_groups))]
        name: String,
        #[arg(required = true, value_name = "KEY=VALUE")]
        fields: Vec<String>,
    },
    /// Delete groups that nobody uses
    #[command(visible_alias = "rm")]
    Delete {
        /// Names or ids
        #[arg(required = true, add = ArgValueCompleter::new(super::complete::security_groups))]
        names: Vec<String>,
    },
    /// Add and remove rules
    #[command(subcommand)]
    Rule(RuleCommand),
}

#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Allow something: ingress tcp 22 from 192.0.2.0/24
    ///
    /// DIRECTION [ipv4|ipv6] [PROTOCOL [PORT[-PORT]|TYPE[/CODE]]] [from|to REMOTE]
    ///
    /// DIRECTION is ingress (to the guest) or egress (from it). PROTOCOL is any, a name (tcp, udp, icmp, icmpv6, gre, …)
    /// or a number. After from (ingress) or to (egress) comes a prefix, any, host (this host's gateways), group NAME or
    /// address-group NAME. What fits both families and names none is a rule for each.
    ///
    ///   ingress tcp 8000-8080 from group web
    ///   ingress icmp echo-request
    ///   egress udp 53 to address-group resolvers
    #[command(verbatim_doc_comment)]
    Add {
        /// Name or id of the group
        #[arg(add = ArgValueCompleter::new(super::complete::security_groups))]
        group: String,
        #[arg(required = true)]
        rule: Vec<String>,
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Remove a rule, by its id or as it is written
    #[command(visible_alias = "rm")]
    Remove {
        /// Name or id of the group
        #[arg(add = ArgValueCompleter::new(super::complete::security_groups))]
        group: String,
        #[arg(required = true)]
        rule: Vec<String>,
    },
}

impl SecurityGroupCommand {
    pub fn mutates(&self) -> bool {
        !matches!(self, Self::List | Self::Show { .. })
    }
}

#[derive(Debug, Args)]
pub struct Create {
    name: ResourceName,
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Answers need rules of their own
    #[arg(long)]
    stateless: bool,
    /// A rule, "ingress tcp 22 from 192.0.2.0/24" say; may be repeated [default: egress any]
    #[arg(long = "rule", value_name = "RULE")]
    rules: Vec<String>,
    /// Begin without any rule, so that nothing is allowed
    #[arg(long, conflicts_with = "rules")]
    no_rules: bool,
}

const KEYS: &[Key] = &[
    Key { names: &["name"], field: "name", form: Form::Text },
    Key { names: &["description"], field: "description", form: Form::Text },
    Key { names: &["stateful"], field: "stateful", form: Form::Flag },
];

/// The JSON form of a security group.
#[derive(Debug, Serialize)]
struct SecurityGroup<'a> {
    id: &'a str,
    name: &'a str,
    description: Option<&'a str>,
    stateful: bool,
    /// Each with all keys of a rule, its `id`, and `rule`, which says it in one line.
    rules: Vec<Map<String, Value>>,
    /// Names of networks that give it to their ports.
    networks: Vec<&'a str>,
    /// How many ports it applies to.
    ports: usize,
}

/// The keys of a rule in JSON.
const RULE_KEYS: [&str; 12] = [
    "direction",
    "ethertype",
    "protocol",
    "port_range_min",
    "port_range_max",
    "icmp_type",
    "icmp_code",
    "remote_ip_prefix",
    "remote_group",
    "remote_address_group",
    "remote_host",
    "description",
];

pub async fn run(command: SecurityGroupCommand, client: &Client, out: &mut Output) -> Result<(), CliError> {
    match command {
        SecurityGroupCommand::Create(create) => {
            let path = client.manager.create_security_group(&create.fields()).await.map_err(CliError::of)?;
            show(client, &path, out).await
        }
        SecurityGroupCommand::List => {
            let inventory = client.inventory().await?;
            let mut groups: Vec<_> = inventory.groups.values().map(|group| describe(group, &inventory)).collect();
            groups.sort_by_key(|group| group.name);
            out.table(&groups, &["name", "id", "stateful", "rules", "networks", "ports", "description"], |group| {
                vec![
                    group.name.to_owned(),
                    short(group.id),
                    yes_no(group.stateful).to_owned(),
                    group.rules.len().to_string(),
                    group.networks.join(", "),
                    group.ports.to_string(),
                    group.description.unwrap_or_default().to_owned(),
                ]
            })
        }
        SecurityGroupCommand::Show { name } => {
            let path = client.find(Kind::SecurityGroup, &name).await?;
            show(client, &path, out).await
        }
        SecurityGroupCommand::Set { name, fields } => {
            client.update(Kind::SecurityGroup, &name, &field::parse(KEYS, &fields)?).await
        }
        SecurityGroupCommand::Delete { names } => client.delete(Kind::SecurityGroup, &names).await,
        SecurityGroupCommand::Rule(RuleCommand::Add { group, rule, description }) => {
            let text = rule.join(" ");
            RuleDraft::parse(&text).map_err(|error| CliError::Usage(error.to_string()))?;
            let mut fields = Fields::from([("rule", text.into())]);
            put(&mut fields, "description", description);
            let path = client.find(Kind::SecurityGroup, &group).await?;
            let resource = client.resource(Kind::SecurityGroup, path.clone()).await?;
            let added = resource.add_rule(&fields).await.map_err(CliError::of)?;
            show_rules(client, &path, &added, out).await
        }
        SecurityGroupCommand::Rule(RuleCommand::Remove { group, rule }) => {
            let path = client.find(Kind::SecurityGroup, &group).await?;
            let rule = match rule.as_slice() {
                [id] => full_id(client, &path, id).await?,
                words => words.join(" "),
            };
            client.resource(Kind::SecurityGroup, path).await?.remove_rule(&rule).await.map_err(CliError::of)
        }
    }
}

impl Create {
    fn fields(&self) -> Fields {
        let mut fields = Fields::from([("name", self.name.to_string().into()), ("stateful", (!self.stateless).into())]);
        put(&mut fields, "description", self.description.as_ref());
        put_all(&mut fields, "rules", &self.rules);
        if self.no_rules {
            fields.insert("rules", Vec::<String>::new().into());
        }
        fields
    }
}

pub fn yes_no(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

/// A rule in one line, with the names of groups.
pub fn text_of(rule: &RuleInfo, inventory: &Inventory) -> String {
    let mut named = rule.rule.clone();
    let id = |text: &str| Uuid::try_parse(text).unwrap_or_default();
    match &mut named.remote {
        RemoteDraft::Group(group) => {
            if let Some(known) = inventory.groups.get(&id(group)) {
                group.clone_from(&known.name);
            }
        }
        RemoteDraft::AddressGroup(group) => {
            if let Some(known) = inventory.address_groups.get(&id(group)) {
                group.clone_from(&known.name);
            }
        }
        RemoteDraft::Any | RemoteDraft::Prefix(_) | RemoteDraft::Host => {}
    }
    named.to_string()
}

fn document(rule: &RuleInfo, inventory: &Inventory) -> Map<String, Value> {
    let mut fields: Map<String, Value> = RULE_KEYS.iter().map(|key| ((*key).to_owned(), Value::Null)).collect();
    fields.insert("remote_host".to_owned(), false.into());
    if let Ok(Value::Object(said)) = serde_json::to_value(&rule.rule) {
        fields.extend(said);
    }
    fields.insert("id".to_owned(), rule.id.clone().into());
    fields.insert("rule".to_owned(), text_of(rule, inventory).into());
    fields
}

fn describe<'a>(group: &'a SecurityGroupInfo, inventory: &'a Inventory) -> SecurityGroup<'a> {
    let path = Kind::SecurityGroup.path(group.id.parse().unwrap_or_default());
    let networks = inventory.networks.values().filter(|network| network.security_groups.contains(&path));
    let mut networks: Vec<_> = networks.map(|network| network.name.as_str()).collect();
    networks.sort_unstable();
    SecurityGroup {
        id: &group.id,
        name: &group.name,
        description: super::opt(&group.description),
        stateful: group.stateful,
        rules: group.rules.0.iter().map(|rule| document(rule, inventory)).collect(),
        networks,
        ports: inventory.ports.values().filter(|port| port.effective_security_groups.contains(&path)).count(),
    }
}

fn find<'a>(inventory: &'a Inventory, path: &str) -> Result<&'a SecurityGroupInfo, CliError> {
    let info = parse_path(path).and_then(|(_, id)| inventory.groups.get(&id));
    info.ok_or_else(|| CliError::NotFound("it is there no more".into()))
}

/// A rule for people: its short id, what it says, and what is said of it.
fn line(rule: &RuleInfo, inventory: &Inventory) -> String {
    let text = format!("{}  {}", short(&rule.id), text_of(rule, inventory));
    match rule.rule.description.as_str() {
        "" => text,
        description => format!("{text}  ({description})"),
    }
}

async fn show(client: &Client, path: &str, out: &mut Output) -> Result<(), CliError> {
    let inventory = client.inventory().await?;
    let info = find(&inventory, path)?;
    let group = describe(info, &inventory);
    if out.json {
        return out.document(&group);
    }
    let rules: Vec<_> = info.rules.0.iter().map(|rule| line(rule, &inventory)).collect();
    let rules = if rules.is_empty() { "none: nothing is allowed".to_owned() } else { rules.join("\n") };
    out.fields(&[
        ("name", group.name.to_owned()),
        ("id", group.id.to_owned()),
        ("description", group.description.unwrap_or_default().to_owned()),
        ("stateful", yes_no(group.stateful).to_owned()),
        ("networks", group.networks.join(", ")),
        ("ports", group.ports.to_string()),
        ("rules", rules),
    ])
}

async fn show_rules(client: &Client, path: &str, ids: &[String], out: &mut Output) -> Result<(), CliError> {
    let inventory = client.inventory().await?;
    let group = find(&inventory, path)?;
    let rules: Vec<_> = group.rules.0.iter().filter(|rule| ids.contains(&rule.id)).collect();
    if out.json {
        return out.document(&rules.iter().map(|rule| document(rule, &inventory)).collect::<Vec<_>>());
    }
    rules.iter().try_for_each(|rule| out.line(super::output::printable(&line(rule, &inventory))))
}

/// A rule's id by its beginning, as it is shown; or the text that is no id.
async fn full_id(client: &Client, path: &str, text: &str) -> Result<String, CliError> {
    if text.len() < 4 || !text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Ok(text.to_owned());
    }
    let inventory = client.inventory().await?;
    let group = find(&inventory, path)?;
    let mut ids = group.rules.0.iter().filter(|rule| rule.id.starts_with(text));
    match (ids.next(), ids.next()) {
        (Some(rule), None) => Ok(rule.id.clone()),
        (Some(_), Some(_)) => Err(CliError::Usage(format!("more than one rule has an id that begins with '{text}'"))),
        (None, _) => Err(CliError::NotFound(format!("security group '{}' has no rule '{text}'", group.name))),
    }
}
