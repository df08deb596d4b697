use super::{
    CliError, Output,
    client::{Client, read},
    output::printable,
};
use clap::Args;
use serde::Deserialize;
use serde_json::json;
use std::{collections::HashMap, path::PathBuf};
use zbus::Variant;

/// Take over networks that are libvirt's own
///
/// Shows what is done, then does it, all or nothing: libvirt's network is stopped, one of vmfabric's with the same name
/// takes its place, and running guests are moved to it with their addresses. Guests' definitions stay as they are.
#[derive(Debug, Args)]
pub struct ImportCommand {
    /// Names or UUIDs in libvirt [default: all of its own]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Make networks from <network> XML (virsh net-dumpxml) in place of what libvirt has
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "undo")]
    from_xml: Vec<PathBuf>,
    /// Show what would be done, and what cannot be carried over, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Give networks back to libvirt as they were, and move their guests back
    #[arg(long)]
    undo: bool,
}

/// The JSON form of a network: what is done with it, and what has no counterpart.
#[derive(Debug, Deserialize)]
struct Report {
    network: String,
    imported: bool,
    #[serde(default)]
    steps: Vec<String>,
    #[serde(default)]
    left_out: Vec<String>,
}

pub async fn run(command: ImportCommand, client: &Client, out: &mut Output) -> Result<(), CliError> {
    let mut definitions = Vec::new();
    for path in &command.from_xml {
        let text = std::fs::read_to_string(path);
        definitions.push(text.map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))?);
    }
    let ask = async |dry_run: bool| -> Result<Vec<Report>, CliError> {
        let options: HashMap<&str, Variant<'_>> = HashMap::from([
            ("names", command.names.clone().into()),
            ("definitions", definitions.clone().into()),
            ("dry_run", dry_run.into()),
            ("undo", command.undo.into()),
        ]);
        let answers = client.manager.import_libvirt(&options).await.map_err(CliError::of)?;
        answers.iter().map(read).collect()
    };
    let plan = ask(true).await?;
    if out.json {
        let done = if command.dry_run { plan } else { ask(false).await? };
        let form = |r: &Report| json!({"network": r.network, "imported": r.imported, "steps": r.steps, "left_out": r.left_out});
        return Ok(out.document(&json!({
            "dry_run": command.dry_run,
            "networks": done.iter().map(form).collect::<Vec<_>>(),
        }))?);
    }
    for report in &plan {
        show(report, command.undo, out)?;
    }
    if plan.is_empty() {
        let what = if command.undo { "No network was taken over." } else { "libvirt has no network of its own." };
        return Ok(out.line(what)?);
    }
    if command.dry_run || !command.undo && plan.iter().all(|report| !report.imported) {
        return Ok(out.line("Nothing was changed.")?);
    }
    ask(false).await?;
    let all = || plan.iter().filter(|report| report.imported || command.undo).map(|report| report.network.as_str());
    let names = printable(&all().collect::<Vec<_>>().join(" "));
    out.line(match command.undo {
        true => format!("Done: {names} is libvirt's again."),
        false if command.from_xml.is_empty() => format!("Done. vmfabric import-libvirt --undo {names} takes it back."),
        false => format!("Done: {names}."),
    })?;
    Ok(())
}

fn show(report: &Report, undo: bool, out: &mut Output) -> Result<(), CliError> {
    let name = printable(&report.network);
    out.line(match (undo, report.imported) {
        (true, _) => format!("Network {name}, back to libvirt:"),
        (false, true) => format!("Network {name}:"),
        (false, false) => format!("Network {name} stays libvirt's:"),
    })?;
    for step in &report.steps {
        out.line(format!("  {}", printable(step)))?;
    }
    if !report.left_out.is_empty() && report.imported {
        out.line("  not carried over:")?;
    }
    for what in &report.left_out {
        out.line(format!("    {}", printable(what)))?;
    }
    Ok(())
}
