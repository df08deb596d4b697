//! Names of libvirt domains, which only libvirt knows.

use super::CliError;
use std::process::{Command, Stdio};
use uuid::Uuid;

/// The UUID of a domain given by UUID or name.
pub fn uuid_of(text: &str) -> Result<Uuid, CliError> {
    if let Ok(uuid) = text.parse() {
        return Ok(uuid);
    }
    let advice = "give its UUID (virsh domuuid prints it)";
    if text.starts_with('-') {
        return Err(CliError::Usage(format!("'{text}' is not a guest's name; {advice}")));
    }
    let uri = std::env::var("LIBVIRT_DEFAULT_URI").unwrap_or_else(|_| "qemu:///system".into());
    let output =
        Command::new("virsh").args(["--quiet", "--connect", &uri, "domuuid", text]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| {
        CliError::Failed(format!("virsh, which knows guests by name, does not run ({error}); {advice}"))
    })?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(CliError::NotFound(format!("libvirt does not know the guest '{text}': {}", why.trim())));
    }
    let uuid = String::from_utf8_lossy(&output.stdout);
    uuid.trim().parse().map_err(|_| CliError::Failed(format!("virsh does not tell the UUID of '{text}'; {advice}")))
}
