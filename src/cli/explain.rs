use super::{
    CliError, Output,
    client::{Client, read},
    port::{Drops, dropped},
};
use crate::dbus::Error;
use serde::{Deserialize, Serialize};

/// The JSON form of what a port may do.
#[derive(Debug, Serialize, Deserialize)]
struct Explanation {
    port: String,
    #[serde(default)]
    name: Option<String>,
    network: String,
    macs: Vec<String>,
    /// Empty: not checked.
    addresses: Vec<String>,
    port_security: bool,
    isolated: bool,
    /// `null`: not filtered by groups.
    #[serde(default)]
    groups: Option<Vec<String>>,
    /// Whether answers to what is allowed are allowed.
    stateful: bool,
    sends: Vec<Line>,
    receives: Vec<Line>,
    problems: Vec<String>,
    /// Frames that were dropped, by reason; `null`: no running guest has it.
    #[serde(default)]
    drops: Option<Drops>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    what: String,
    /// `null`: for every port.
    #[serde(default)]
    group: Option<String>,
    /// The rule's id.
    #[serde(default)]
    rule: Option<String>,
}

pub async fn run(port: &str, client: &Client, out: &mut Output) -> Result<(), CliError> {
    let answer = client.manager.explain(port).await.map_err(CliError::of);
    let answer = match answer {
        // The beginning of an id, as tables show it.
        Err(CliError::NotFound(_) | CliError::Refused(Error::NotFound(_))) => {
            let path = client.find(crate::dbus::Kind::Port, port).await?;
            let id = crate::dbus::parse_path(&path).map(|(_, id)| id.to_string()).unwrap_or_default();
            client.manager.explain(&id).await.map_err(CliError::of)?
        }
        answer => answer?,
    };
    let explained: Explanation = read(&answer)?;
    if out.json {
        return out.document(&explained);
    }
    let on = |flag: bool| if flag { "on" } else { "off" }.to_owned();
    let groups = match &explained.groups {
        None => "none: not filtered by groups".to_owned(),
        Some(groups) if groups.is_empty() => "of no group: nothing but address configuration passes".to_owned(),
        Some(groups) => {
            format!("{} ({})", groups.join(", "), if explained.stateful { "stateful" } else { "stateless" })
        }
    };
    let addresses = match explained.addresses.as_slice() {
        [] => "not checked".to_owned(),
        all => all.join("\n"),
    };
    out.fields(&[
        ("port", explained.name.clone().unwrap_or_else(|| explained.port.clone())),
        ("network", explained.network.clone()),
        ("port security", on(explained.port_security)),
        ("sends from", explained.macs.join("\n")),
        ("addresses", addresses),
        (
            "isolated",
            if explained.isolated { "yes: talks with the gateway and the uplink alone" } else { "no" }.to_owned(),
        ),
        ("groups", groups),
        ("sends", lines(&explained.sends)),
        ("receives", lines(&explained.receives)),
        ("dropped", explained.drops.as_ref().map(dropped).unwrap_or_default()),
        ("problems", if explained.problems.is_empty() { "none".to_owned() } else { explained.problems.join("\n") }),
    ])
}

fn lines(lines: &[Line]) -> String {
    let line = |line: &Line| match (&line.group, &line.rule) {
        (Some(group), Some(rule)) => format!("{} [{group}, rule {}]", line.what, super::short(rule)),
        _ => line.what.clone(),
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}
