//! Documents: `Apply` and `Export` of the Manager.

use super::{Error, insight, value};
use crate::{
    intent::{Difference, Document, export_document},
    reconciler::{Command, DocumentRequest, Handle, PreparedDocument},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    pub dry_run: bool,
    prune: bool,
    plan: Option<String>,
}

#[derive(Debug, Serialize)]
struct Outcome<'a> {
    plan: &'a str,
    changes: &'a [Difference],
    kept: &'a [String],
    host_changes: Option<Vec<String>>,
}

impl Options {
    pub fn request(self, document: &str) -> Result<DocumentRequest, Error> {
        Ok(DocumentRequest { document: parse(document)?, prune: self.prune, plan: self.plan })
    }
}

fn parse(document: &str) -> Result<Document, Error> {
    let document: Value = serde_json::from_str(document)
        .map_err(|error| Error::InvalidArgument(format!("the document is not JSON: {error}")))?;
    value::from_json(document)
}

/// What the document would change. Worked out beside the loop, which guests wait for; anybody may ask.
pub async fn preview(handle: &Handle, document: &str, options: Options) -> Result<insight::Answer, Error> {
    let view = handle.view().clone();
    let document = document.to_owned();
    let prepare = move || Ok::<_, Error>(options.request(&document)?.prepare(&view)?);
    let prepared = tokio::task::spawn_blocking(prepare).await;
    let prepared = prepared.map_err(|error| Error::Failed(format!("the document cannot be judged: {error}")))??;
    if prepared.plan.changes.is_empty() {
        return outcome(&prepared, Some(Vec::new()));
    }
    let (after, changes) = (Box::new(prepared.plan.after.clone()), prepared.plan.changes.clone());
    let host_changes = handle.call(|reply| Command::PlanWith(after, changes, reply)).await?;
    outcome(&prepared, Some(host_changes))
}

pub fn outcome(prepared: &PreparedDocument, host_changes: Option<Vec<String>>) -> Result<insight::Answer, Error> {
    let PreparedDocument { id, plan } = prepared;
    let mut answer =
        insight::answer(&Outcome { plan: id, changes: &plan.differences, kept: &plan.kept, host_changes })?;
    if plan.differences.is_empty() {
        // An empty list has its type all the same.
        answer.insert("changes".into(), Vec::<insight::Answer>::new().into());
    }
    Ok(answer)
}

pub fn export(handle: &Handle) -> Result<String, Error> {
    let (intent, host) = {
        let view = handle.view();
        (view.intent.clone(), view.host.clone())
    };
    serde_json::to_string(&export_document(&intent, &host)).map_err(|error| Error::Failed(error.to_string()))
}
