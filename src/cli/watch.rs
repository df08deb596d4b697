use super::{
    CliError, Output,
    client::Client,
    output::printable,
    time::{now, of_day},
};
use crate::dbus::{self, BUS_NAME, Dictionary, ROOT};
use futures_util::{StreamExt, stream::select};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use zbus::{MatchRule, Message, MessageStream, OwnedObjectPath, fdo, message::Type};

/// One change, and its JSON form.
#[derive(Debug, Serialize)]
struct Event<'a> {
    /// Seconds since 1970.
    time: u64,
    /// `added`, `changed`, `removed`, `started` or `stopped`.
    event: &'a str,
    /// `network`, `subnet`, `port`, `security_group`, `address_group` or `daemon`.
    kind: &'a str,
    id: Option<String>,
    name: Option<&'a str>,
    /// Added: all of them; changed: those that changed. Named as on D-Bus, in snake case.
    properties: &'a Map<String, Value>,
}

/// Signals that may wait to be printed.
const QUEUE: std::num::NonZeroUsize = std::num::NonZeroUsize::new(16_384).expect("not zero");

/// What was last known of the objects' names.
#[derive(Debug, Default)]
struct Watcher {
    names: HashMap<String, String>,
}

/// Prints what changes, until interrupted.
pub async fn run(client: &Client, out: &mut Output) -> Result<(), CliError> {
    let rule = MatchRule::builder().msg_type(Type::Signal).sender(BUS_NAME).path_namespace(ROOT).build()?;
    let signals = MessageStream::for_match_rule(rule, &client.bus, Some(QUEUE)).await?;
    let owners = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg(0, BUS_NAME)
        .build()?;
    let owners = MessageStream::for_match_rule(owners, &client.bus, None).await?;
    let mut watcher = Watcher::default();
    watcher.learn(client).await?;
    let mut messages = select(signals, owners);
    while let Some(message) = messages.next().await {
        watcher.tell(&message?, client, out).await?;
    }
    Err(CliError::Unreachable("the connection to the bus is lost".into()))
}

impl Watcher {
    async fn learn(&mut self, client: &Client) -> Result<(), CliError> {
        let objects = fdo::ObjectManagerProxy::new(&client.bus, BUS_NAME, ROOT).await?.get_managed_objects().await?;
        for (path, interfaces) in objects {
            for properties in interfaces.values() {
                self.note_name(&path, &to_map(properties));
            }
        }
        Ok(())
    }

    /// A port without a name is known by its MAC address.
    fn note_name(&mut self, path: &str, properties: &Map<String, Value>) {
        let text = |key: &str| properties.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(name) = text("name").or_else(|| text("mac")) {
            self.names.insert(path.to_owned(), name.to_owned());
        }
    }

    async fn tell(&mut self, message: &Message, client: &Client, out: &mut Output) -> Result<(), CliError> {
        let header = message.header();
        let none = Map::new();
        match header.member().map(|member| member.as_str()) {
            Some("NameOwnerChanged") => {
                let (_, _, new): (String, String, String) = message.body().deserialize()?;
                if new.is_empty() {
                    return self.print("stopped", ROOT, &none, out);
                }
                self.learn(client).await?;
                self.print("started", ROOT, &none, out)
            }
            Some("InterfacesAdded") => {
                let (path, interfaces): (OwnedObjectPath, HashMap<String, Dictionary>) =
                    message.body().deserialize()?;
                let ours = interfaces.iter().find(|(name, _)| name.starts_with(BUS_NAME));
                let Some((_, properties)) = ours else { return Ok(()) };
                let properties = to_map(properties);
                self.note_name(&path, &properties);
                self.print("added", &path, &properties, out)
            }
            Some("InterfacesRemoved") => {
                let (path, _): (OwnedObjectPath, Vec<String>) = message.body().deserialize()?;
                self.print("removed", &path, &none, out)?;
                self.names.remove(path.as_str());
                Ok(())
            }
            Some("PropertiesChanged") => {
                let (_, properties, _): (String, Dictionary, Vec<String>) = message.body().deserialize()?;
                let Some(path) = header.path() else { return Ok(()) };
                let properties = to_map(&properties);
                self.note_name(path, &properties);
                self.print("changed", path, &properties, out)
            }
            _ => Ok(()),
        }
    }

    fn print(
        &self,
        event: &str,
        path: &str,
        properties: &Map<String, Value>,
        out: &mut Output,
    ) -> Result<(), CliError> {
        let about = dbus::parse_path(path);
        let kind = about.map_or("daemon", |(kind, _)| kind.as_str());
        let name = self.names.get(path).map(String::as_str);
        let time = now();
        if out.json {
            let id = about.map(|(_, id)| id.to_string());
            return out.record(&Event { time, event, kind, id, name, properties });
        }
        let subject = match (about, name) {
            (Some((kind, _)), Some(name)) => format!("{} {name}", kind.words()),
            (Some((kind, id)), None) => format!("{} {id}", kind.words()),
            (None, _) => "vmfabricd".to_owned(),
        };
        let changes: Vec<_> = match event {
            "changed" => properties.iter().map(|(key, value)| format!("{key} {}", plain(value))).collect(),
            _ => Vec::new(),
        };
        let what = if event == "changed" { changes.join(", ") } else { event.to_owned() };
        out.line(printable(&format!("{} {subject}: {what}", of_day(time))))
    }
}

/// Properties in JSON, named as the rest of the JSON is.
fn to_map(properties: &Dictionary) -> Map<String, Value> {
    let sorted: BTreeMap<_, _> = properties.iter().collect();
    let field = |(key, value): (&String, &zbus::OwnedVariant)| Some((snake(key), dbus::to_json(value)?));
    sorted.into_iter().filter_map(field).collect()
}

/// `DnsName` as `dns_name`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// A value as a person writes it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        // Rules of a security group have spaces in them.
        Value::Array(items) if items.iter().all(Value::is_object) => {
            items.iter().map(plain).collect::<Vec<_>>().join("; ")
        }
        Value::Object(_) => match serde_json::from_value::<dbus::RuleInfo>(value.clone()) {
            Ok(rule) => rule.rule.to_string(),
            Err(_) => value.to_string(),
        },
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
