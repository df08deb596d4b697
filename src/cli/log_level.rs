use super::{CliError, Output, client::Client};
use serde_json::json;

/// JSON: `{"level": TEXT}`.
pub async fn run(level: Option<String>, client: &Client, out: &mut Output) -> Result<(), CliError> {
    if let Some(level) = level {
        return client.manager.set_log_level(&level).await.map_err(CliError::of);
    }
    let level = client.manager.log_level().await.map_err(CliError::of)?;
    if out.json { out.document(&json!({ "level": level })) } else { out.line(level) }
}
