use super::{CliError, client::Client, opt};
use crate::dbus::{BUS_NAME, Kind, PortInfo, parse_path};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use std::{
    collections::BTreeSet,
    process::{Command, ExitCode},
};
use zbus::fdo;

#[derive(Debug, Args)]
pub struct Logs {
    /// A port's name, id or MAC address, or a guest's name
    #[arg(value_name = "PORT|GUEST", add = ArgValueCompleter::new(super::complete::ports_and_guests))]
    of: String,
    /// Go on with what comes, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines
    #[arg(short = 'n', long, default_value_t = 100)]
    lines: u32,
}

/// `client`: where there is a bus; without the daemon a guest's name is enough.
pub async fn run(logs: Logs, client: Option<&Client>, json: bool) -> Result<ExitCode, CliError> {
    let matches = match client {
        Some(client) => matches(&logs.of, &ports(client, &logs.of).await?),
        None => matches(&logs.of, &[]),
    };
    let mut journalctl = Command::new("journalctl");
    journalctl.args(["--quiet", "--output", if json { "json" } else { "short" }]);
    journalctl.args(["--lines", &logs.lines.to_string()]);
    if logs.follow {
        journalctl.arg("--follow");
    } else {
        journalctl.arg("--no-pager");
    }
    let status = journalctl.args(matches).status();
    let status =
        status.map_err(|error| CliError::Failed(format!("journalctl, which has the log, does not run: {error}")))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The ports that are meant: of that name, or of the guest of that name.
async fn ports(client: &Client, name: &str) -> Result<Vec<PortInfo>, CliError> {
    let bus = fdo::DBusProxy::new(&client.bus).await?;
    if !bus.name_has_owner(BUS_NAME.try_into()?).await? {
        return Ok(Vec::new());
    }
    let inventory = client.inventory().await?;
    let mut found: Vec<PortInfo> = inventory.ports.values().filter(|port| port.device_name == name).cloned().collect();
    match client.find(Kind::Port, name).await {
        Ok(path) => found.extend(parse_path(&path).and_then(|(_, id)| inventory.ports.get(&id)).cloned()),
        // A guest of a while ago, perhaps.
        Err(CliError::NotFound(_) | CliError::Refused(crate::dbus::Error::NotFound(_))) => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// What journalctl is to look for: alternatives, each from the daemon alone, since anybody may write fields of a name,
/// and be called as the daemon is, but not be root.
fn matches(name: &str, ports: &[PortInfo]) -> Vec<String> {
    let mut fields = BTreeSet::from([format!("VMFABRIC_DOMAIN={name}")]);
    for port in ports {
        fields.extend([format!("VMFABRIC_PORT={}", port.id), format!("VMFABRIC_MAC={}", port.mac)]);
        fields.extend(opt(&port.device_name).map(|guest| format!("VMFABRIC_DOMAIN={guest}")));
    }
    let mut matches = Vec::new();
    for field in fields {
        if !matches.is_empty() {
            matches.push("+".to_owned());
        }
        matches.extend(["_UID=0".to_owned(), "_COMM=vmfabricd".to_owned(), field]);
    }
    matches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_daemons_own_words_are_shown() {
        assert_eq!(matches("web", &[]), ["_UID=0", "_COMM=vmfabricd", "VMFABRIC_DOMAIN=web"]);
    }
}
