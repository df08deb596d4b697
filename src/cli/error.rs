//! What can go wrong, and the exit code that says so to scripts.

use crate::dbus::Error;
use std::process::ExitCode;
use zbus::fdo;

/// The table that `--help` ends with.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done; status: all is well; plan: nothing to do
  1  failed; doctor: something is wrong
  2  wrong usage, or a value that is not valid
  3  there is no such network, subnet or port
  4  in conflict with what is there, in use, or no address free
  5  not authorized
  6  vmfabricd cannot be reached
  7  status: degraded
  8  plan, apply --dry-run: there are changes to make
  9  trace: the packet does not pass";

pub const DEGRADED: u8 = 7;
pub const CHANGES: u8 = 8;
pub const DROPPED: u8 = 9;

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    NotFound(String),
    #[error(
        "vmfabricd cannot be reached: {0}\nIs it running? systemctl status vmfabricd; systemctl start vmfabricd starts it."
    )]
    Unreachable(String),
    #[error("{}", description(.0))]
    Refused(#[from] Error),
    #[error("vmfabricd's answer is not understood ({0}); are vmfabric and vmfabricd of one version?")]
    Protocol(String),
    #[error("output: {0}")]
    Output(#[from] std::io::Error),
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            CliError::Usage(_) | CliError::Refused(Error::InvalidArgument(_)) => 2,
            CliError::NotFound(_) | CliError::Refused(Error::NotFound(_)) => 3,
            CliError::Refused(Error::Conflict(_) | Error::InUse(_) | Error::AddressExhausted(_)) => 4,
            CliError::Refused(Error::NotAuthorized(_)) => 5,
            CliError::Unreachable(_) => 6,
            // Whoever reads has seen enough (`vmfabric watch | head -1`).
            CliError::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
            CliError::Refused(_) | CliError::Protocol(_) | CliError::Output(_) | CliError::Failed(_) => 1,
        })
    }

    /// The daemon's refusal, or why there was none.
    pub fn of(error: Error) -> Self {
        match error {
            Error::Bus(error) => error.into(),
            refusal => CliError::Refused(refusal),
        }
    }
}

impl From<zbus::Error> for CliError {
    fn from(error: zbus::Error) -> Self {
        match &error {
            zbus::Error::FDO(named) => (**named).clone().into(),
            zbus::Error::InputOutput(_) | zbus::Error::Connection(..) | zbus::Error::Handshake(_) => {
                CliError::Unreachable(error.to_string())
            }
            // The bus had systemd start it, and the unit is disabled or masked.
            zbus::Error::MethodError(name, text, _) if name.starts_with("org.freedesktop.systemd1.") => {
                CliError::Unreachable(text.clone().unwrap_or_else(|| name.to_string()))
            }
            _ => CliError::Refused(Error::Bus(error)),
        }
    }
}

impl From<fdo::Error> for CliError {
    fn from(error: fdo::Error) -> Self {
        use fdo::Error as E;
        match error {
            E::ServiceUnknown(_) | E::NameHasNoOwner(_) => CliError::Unreachable("it is not on the bus".into()),
            // The bus would have started it.
            E::SpawnExecFailed(text)
            | E::SpawnForkFailed(text)
            | E::SpawnChildExited(text)
            | E::SpawnChildSignaled(text)
            | E::SpawnFailed(text)
            | E::SpawnFailedToSetup(text)
            | E::SpawnConfigInvalid(text)
            | E::SpawnServiceNotValid(text)
            | E::SpawnServiceNotFound(text)
            | E::SpawnPermissionsInvalid(text)
            | E::SpawnFileInvalid(text)
            | E::SpawnNoMemory(text) => {
                CliError::Unreachable(format!("it is not on the bus, and did not start ({text})"))
            }
            E::NoReply(text) | E::Timeout(text) | E::TimedOut(text) | E::Disconnected(text) => {
                CliError::Unreachable(format!("it does not answer ({text})"))
            }
            E::AccessDenied(text) => CliError::Refused(Error::NotAuthorized(text)),
            E::InvalidArgs(text) => CliError::Refused(Error::InvalidArgument(text)),
            // The object went away between two calls.
            E::UnknownObject(_) | E::UnknownInterface(_) => CliError::NotFound("it is there no more".into()),
            E::ZBus(error) => error.into(),
            other => CliError::Refused(Error::Failed(other.to_string())),
        }
    }
}

/// The daemon's words without the error's name.
fn description(error: &Error) -> String {
    match error {
        Error::Bus(error) => format!("D-Bus: {error}"),
        Error::NotFound(text)
        | Error::InvalidArgument(text)
        | Error::Conflict(text)
        | Error::AddressExhausted(text)
        | Error::InUse(text)
        | Error::NotAuthorized(text)
        | Error::Busy(text)
        | Error::StoreFailed(text)
        | Error::Failed(text) => text.clone(),
    }
}
