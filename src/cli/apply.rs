use super::{
    CliError, Output,
    client::Client,
    document_text::{Format, Source},
    error::CHANGES,
    output::printable,
    progress,
};
use crate::dbus::{self, Dictionary, Error};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    process::ExitCode,
};

#[derive(Debug, Args)]
pub struct Apply {
    /// TOML, YAML or JSON; - for standard input
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: String,
    /// What the file is [default: as its name ends, or as it looks]
    #[arg(long)]
    format: Option<Format>,
    /// Delete what the document does not name, but for ports that guests made and what these need
    #[arg(long)]
    prune: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub struct Export {
    #[arg(long, default_value = "toml")]
    format: Format,
}

/// The daemon's answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    plan: String,
    changes: Vec<Difference>,
    kept: Vec<String>,
    host_changes: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Difference {
    action: String,
    kind: String,
    name: String,
    #[serde(default)]
    fields: Vec<FieldText>,
}

#[derive(Debug, Deserialize)]
struct FieldText {
    field: String,
    old: Option<String>,
    new: Option<String>,
}

/// The JSON form of what an `apply` changes.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    /// Whether it was done; no with `--dry-run`.
    applied: bool,
    changes: Vec<Change<'a>>,
    /// What `--prune` left all the same, and why.
    kept: &'a [String],
    /// What changes on this host, as `plan` says it; may be told by words that change.
    host_changes: &'a [String],
}

#[derive(Debug, Serialize)]
struct Change<'a> {
    /// `create`, `update` or `delete`.
    action: &'a str,
    /// `network`, `subnet`, `port`, `security_group` or `address_group`.
    kind: &'a str,
    name: &'a str,
    fields: Vec<Field<'a>>,
}

#[derive(Debug, Serialize)]
struct Field<'a> {
    field: &'a str,
    /// `null`: not said.
    old: Value,
    new: Value,
}

pub async fn run(apply: Apply, client: &Client, out: &mut Output) -> Result<ExitCode, CliError> {
    let source = Source::read(&apply.file, apply.format)?;
    let shown = call(client, &source, &apply, None).await?;
    if shown.changes.is_empty() {
        print(&shown, false, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    if apply.dry_run {
        print(&shown, false, out)?;
        return Ok(ExitCode::from(CHANGES));
    }
    if !out.json {
        print(&shown, false, out)?;
    }
    if !apply.yes && !agreed()? {
        return Err(CliError::Failed("nothing was changed".into()));
    }
    let done = call(client, &source, &apply, Some(&shown.plan)).await?;
    if out.json {
        print(&Answer { host_changes: shown.host_changes, ..done }, true, out)?;
    } else {
        out.line(format!("Done: {}.", counted(&done.changes)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `plan`: what was agreed to, which is then done; without it nothing is.
async fn call(client: &Client, source: &Source, apply: &Apply, plan: Option<&str>) -> Result<Answer, CliError> {
    let mut options = HashMap::from([("prune", apply.prune.into())]);
    match plan {
        Some(plan) => drop(options.insert("plan", plan.to_owned().into())),
        None => drop(options.insert("dry_run", true.into())),
    }
    let document = source.value.to_string();
    let answer = client.manager.apply(&document, &options);
    let answer = progress::waiting("vmfabricd works on the document", answer).await;
    read(&answer.map_err(|error| CliError::of(placed(error, source)))?)
}

/// With the file and the line that the daemon's refusal is about.
fn placed(error: Error, source: &Source) -> Error {
    match error {
        Error::NotFound(text) => Error::NotFound(source.placed(&text)),
        Error::InvalidArgument(text) => Error::InvalidArgument(source.placed(&text)),
        Error::Conflict(text) => Error::Conflict(source.placed(&text)),
        Error::InUse(text) => Error::InUse(source.placed(&text)),
        Error::AddressExhausted(text) => Error::AddressExhausted(source.placed(&text)),
        other => other,
    }
}

fn read(answer: &Dictionary) -> Result<Answer, CliError> {
    let fields = answer.iter().filter_map(|(key, value)| Some((key.clone(), dbus::to_json(value)?)));
    serde_json::from_value(Value::Object(fields.collect())).map_err(|error| CliError::Protocol(error.to_string()))
}

/// Asks the person at the terminal; standard input may be the document.
fn agreed() -> Result<bool, CliError> {
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty");
    let Ok(mut terminal) = terminal else {
        let text = "nobody is there to ask; --yes applies without asking, --dry-run only shows";
        return Err(CliError::Usage(text.into()));
    };
    write!(terminal, "Apply these changes? [y/N] ")?;
    let mut answer = String::new();
    BufReader::new(terminal).read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn counted(changes: &[Difference]) -> String {
    let count = |action: &str| changes.iter().filter(|change| change.action == action).count();
    format!("{} created, {} changed, {} deleted", count("create"), count("update"), count("delete"))
}

fn print(answer: &Answer, applied: bool, out: &mut Output) -> Result<(), CliError> {
    if out.json {
        let parsed =
            |text: &Option<String>| text.as_deref().and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
        let field = |f: &FieldText| (parsed(&f.old), parsed(&f.new));
        let changes = answer.changes.iter().map(|change| Change {
            action: &change.action,
            kind: &change.kind,
            name: &change.name,
            fields: change
                .fields
                .iter()
                .map(|f| (f, field(f)))
                .map(|(f, (old, new))| Field { field: &f.field, old, new })
                .collect(),
        });
        let (kept, host_changes) = (answer.kept.as_slice(), answer.host_changes.as_slice());
        return out.document(&Outcome { applied, changes: changes.collect(), kept, host_changes });
    }
    for change in &answer.changes {
        let sign = match change.action.as_str() {
            "create" => out.tinted(32, "+"),
            "delete" => out.tinted(31, "-"),
            _ => out.tinted(33, "~"),
        };
        out.line(format!("{sign} {} {}", change.kind.replace('_', " "), printable(&change.name)))?;
        for FieldText { field, old, new } in &change.fields {
            let text = |text: &Option<String>| printable(text.as_deref().unwrap_or("(not said)"));
            match change.action.as_str() {
                "create" => out.line(format!("    {field} = {}", text(new)))?,
                _ => out.line(format!("    {field}: {} -> {}", text(old), text(new)))?,
            }
        }
    }
    for kept in &answer.kept {
        out.line(format!("  {}", printable(kept)))?;
    }
    if answer.changes.is_empty() {
        return out.line("Nothing to do: all is as the document says.");
    }
    if !answer.host_changes.is_empty() {
        out.line("On this host:")?;
        answer.host_changes.iter().try_for_each(|change| out.line(format!("    {}", printable(change))))?;
    }
    let count = |action: &str| answer.changes.iter().filter(|change| change.action == action).count();
    out.line(format!(
        "Plan: {} to create, {} to change, {} to delete.",
        count("create"),
        count("update"),
        count("delete")
    ))
}

pub async fn export(export: Export, client: &Client, out: &mut Output) -> Result<(), CliError> {
    let text = client.manager.export().await.map_err(CliError::of)?;
    let document: Value = serde_json::from_str(&text).map_err(|error| CliError::Protocol(error.to_string()))?;
    let format = if out.json { Format::Json } else { export.format };
    out.line(format.write(&document)?.trim_end())
}
