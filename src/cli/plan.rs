use super::{CliError, Output, client::Client, error::CHANGES};
use serde_json::json;
use std::process::ExitCode;

/// JSON: `{"changes": [TEXT…]}`.
pub async fn run(client: &Client, out: &mut Output) -> Result<ExitCode, CliError> {
    let changes = client.manager.plan().await.map_err(CliError::of)?;
    if out.json {
        out.document(&json!({ "changes": changes }))?;
    } else if changes.is_empty() {
        out.line("Nothing to do: this host is as it should be.")?;
    } else {
        changes.iter().try_for_each(|change| out.line(super::output::printable(change)))?;
    }
    Ok(if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(CHANGES) })
}
