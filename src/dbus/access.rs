//! Who may change what: uid 0 always, others as polkit says.

use super::Error;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use zbus::{
    Connection, fdo,
    message::{Flags, Header},
    proxy::CacheProperties,
};
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

/// A polkit action (`dbus/org.vmfabric1.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    ManageNetworks,
    ManageSubnets,
    ManagePorts,
    ManageSecurityGroups,
    ImportNetworks,
    Apply,
    SetLogLevel,
}

impl Action {
    pub fn id(self) -> &'static str {
        match self {
            Action::ManageNetworks => "org.vmfabric1.manage-networks",
            Action::ManageSubnets => "org.vmfabric1.manage-subnets",
            Action::ManagePorts => "org.vmfabric1.manage-ports",
            Action::ManageSecurityGroups => "org.vmfabric1.manage-security-groups",
            Action::ImportNetworks => "org.vmfabric1.import-networks",
            Action::Apply => "org.vmfabric1.apply",
            Action::SetLogLevel => "org.vmfabric1.set-log-level",
        }
    }

    /// The largest body of a call that is looked at, bytes. A port with every VLAN there is needs 17 KiB, a group of
    /// 10,000 addresses half a megabyte.
    pub fn max_body(self) -> u32 {
        match self {
            Action::ManageSecurityGroups => 1024 * 1024,
            Action::ImportNetworks => 4 * 1024 * 1024,
            Action::Apply => MAX_DOCUMENT,
            _ => 64 * 1024,
        }
    }
}

/// The largest document, bytes: 20,000 ports, say.
pub const MAX_DOCUMENT: u32 = 4 * 1024 * 1024;
/// How long a document may be whose effect everybody may ask for, bytes.
pub const FREE_DOCUMENT: usize = 64 * 1024;

/// Questions that one user, and all users, may have open at polkit: a password prompt lasts minutes.
const MAX_OPEN_PER_USER: usize = 4;
const MAX_OPEN: usize = 128;

/// Decides about mutations.
#[derive(Debug)]
pub struct Access {
    /// Who is allowed without asking polkit, so that root can work where polkit is not installed.
    trusted_uid: Option<u32>,
    open: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Default for Access {
    fn default() -> Self {
        Self::new(Some(0))
    }
}

impl Access {
    pub(super) fn new(trusted_uid: Option<u32>) -> Self {
        Self { trusted_uid, open: Arc::default() }
    }

    /// Whether the sender of a call may do it; asks a person only where the caller allows that.
    pub async fn check(&self, connection: &Connection, header: &Header<'_>, action: Action) -> Result<(), Error> {
        let sender = header.sender().ok_or_else(|| Error::NotAuthorized("the call has no sender".into()))?;
        let bus = fdo::DBusProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
        let uid = bus.get_connection_unix_user(sender.clone().into()).await;
        let uid = uid.map_err(|error| Error::NotAuthorized(format!("the bus does not say who calls: {error}")))?;
        if Some(uid) == self.trusted_uid {
            return Ok(());
        }
        let _open = self.open(uid)?;
        self.ask_polkit(connection, header, action).await
    }

    async fn ask_polkit(&self, connection: &Connection, header: &Header<'_>, action: Action) -> Result<(), Error> {
        let interactive = header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
        let flags = match interactive {
            true => CheckAuthorizationFlags::ALLOW_USER_INTERACTION,
            false => CheckAuthorizationFlags::empty(),
        };
        let subject = Subject::new_for_message_header(header)
            .map_err(|error| Error::NotAuthorized(format!("polkit cannot be asked: {error}")))?;
        let authority = AuthorityProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
        let details = HashMap::new();
        match authority.check_authorization(&subject, action.id(), &details, flags, "").await {
            Ok(result) => verdict(result.is_authorized, result.is_challenge, interactive, action),
            Err(error) => Err(Error::NotAuthorized(format!(
                "polkit, which decides who else than root may change networks, does not answer ({error}); \
                 do it as root, or start polkit"
            ))),
        }
    }

    /// Takes a place among the open questions.
    fn open(&self, uid: u32) -> Result<Open, Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = open.get(&uid).copied().unwrap_or_default();
        if mine >= MAX_OPEN_PER_USER || open.values().sum::<usize>() >= MAX_OPEN {
            return Err(Error::Busy("too many requests wait for authorization; answer those or try again".into()));
        }
        open.insert(uid, mine + 1);
        Ok(Open { uid, all: Arc::clone(&self.open) })
    }
}

/// polkit's answer in words.
fn verdict(authorized: bool, challenge: bool, interactive: bool, action: Action) -> Result<(), Error> {
    match (authorized, challenge) {
        (true, _) => Ok(()),
        (false, true) if !interactive => Err(Error::NotAuthorized(format!(
            "{} needs a password, and the caller does not allow to ask for one; do it as root",
            action.id()
        ))),
        (false, true) => Err(Error::NotAuthorized(format!(
            "{} needs a password, and no agent is there to ask for it; do it as root",
            action.id()
        ))),
        (false, false) => Err(Error::NotAuthorized(format!(
            "polkit does not allow {}; do it as root, or let a polkit rule allow it",
            action.id()
        ))),
    }
}

/// One open question; ends when dropped.
#[derive(Debug)]
struct Open {
    uid: u32,
    all: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&self.uid) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(all.remove(&self.uid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        let allowed = |authorized, challenge, interactive| {
            verdict(authorized, challenge, interactive, Action::ManagePorts).is_ok()
        };
        assert!(allowed(true, false, false));
        for (challenge, interactive) in [(false, false), (false, true), (true, false), (true, true)] {
            assert!(!allowed(false, challenge, interactive));
        }
    }

    #[test]
    fn open_questions_are_bounded() {
        let access = Access::default();
        let mine: Vec<_> = (0..MAX_OPEN_PER_USER).map(|_| access.open(1).expect("room")).collect();
        assert!(matches!(access.open(1), Err(Error::Busy(_))));
        let others: Vec<_> = (2..).map_while(|n| access.open(n).ok()).collect();
        assert_eq!(mine.len() + others.len(), MAX_OPEN);
        drop((mine, others));
        assert!(access.open.lock().expect("not poisoned").is_empty());
    }

    #[test]
    fn the_policy_file_knows_every_action() {
        let policy = include_str!("../../dbus/org.vmfabric1.policy");
        for action in [
            Action::ManageNetworks,
            Action::ManageSubnets,
            Action::ManagePorts,
            Action::ManageSecurityGroups,
            Action::ImportNetworks,
            Action::Apply,
            Action::SetLogLevel,
        ] {
            assert!(policy.contains(&format!("<action id=\"{}\">", action.id())), "{}", action.id());
        }
    }
}
