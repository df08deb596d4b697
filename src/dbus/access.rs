//! Who may change what: uid 0 always, others as polkit says.

use super::{Error, Kind, turns::Quota};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use zbus::{
    Connection, fdo,
    message::{Flags, Header},
    proxy::CacheProperties,
};
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

/// What is done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Create,
    Change,
    Delete,
}

/// A polkit action (`dbus/org.vmfabric1.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Of(Verb, Kind),
    ImportNetworks,
    Apply,
    SetLogLevel,
}

impl Action {
    pub fn id(self) -> &'static str {
        use {Kind::*, Verb::*};
        match self {
            Action::Of(Create, Network) => "org.vmfabric1.create-networks",
            Action::Of(Change, Network) => "org.vmfabric1.change-networks",
            Action::Of(Delete, Network) => "org.vmfabric1.delete-networks",
            Action::Of(Create, Subnet) => "org.vmfabric1.create-subnets",
            Action::Of(Change, Subnet) => "org.vmfabric1.change-subnets",
            Action::Of(Delete, Subnet) => "org.vmfabric1.delete-subnets",
            Action::Of(Create, Port) => "org.vmfabric1.create-ports",
            Action::Of(Change, Port) => "org.vmfabric1.change-ports",
            Action::Of(Delete, Port) => "org.vmfabric1.delete-ports",
            Action::Of(Create, SecurityGroup) => "org.vmfabric1.create-security-groups",
            Action::Of(Change, SecurityGroup) => "org.vmfabric1.change-security-groups",
            Action::Of(Delete, SecurityGroup) => "org.vmfabric1.delete-security-groups",
            Action::Of(Create, AddressGroup) => "org.vmfabric1.create-address-groups",
            Action::Of(Change, AddressGroup) => "org.vmfabric1.change-address-groups",
            Action::Of(Delete, AddressGroup) => "org.vmfabric1.delete-address-groups",
            Action::ImportNetworks => "org.vmfabric1.import-networks",
            Action::Apply => "org.vmfabric1.apply",
            Action::SetLogLevel => "org.vmfabric1.set-log-level",
        }
    }

    /// The largest body of a call that is looked at, bytes. A port with every VLAN there is needs 17 KiB, a group of
    /// 10,000 addresses half a megabyte.
    pub fn max_body(self) -> u32 {
        match self {
            Action::Of(_, Kind::SecurityGroup | Kind::AddressGroup) => 1024 * 1024,
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
/// How many connections are remembered.
const MAX_CALLERS: usize = 1024;

/// Decides about mutations.
#[derive(Debug)]
pub struct Access {
    /// Who is allowed without asking polkit, so that root can work where polkit is not installed.
    trusted_uid: Option<u32>,
    open: Quota,
    /// Whose the connections are that called before. A bus gives a unique name once, and its end is ours.
    callers: Mutex<HashMap<String, u32>>,
}

impl Default for Access {
    fn default() -> Self {
        Self::new(Some(0))
    }
}

impl Access {
    pub(super) fn new(trusted_uid: Option<u32>) -> Self {
        Self { trusted_uid, open: Quota::new(MAX_OPEN_PER_USER, MAX_OPEN), callers: Mutex::default() }
    }

    /// Whether the sender of a call may do it; asks a person only where the caller allows that.
    pub async fn check(&self, connection: &Connection, header: &Header<'_>, action: Action) -> Result<(), Error> {
        let uid = self.uid_of_caller(connection, header).await?;
        if Some(uid) == self.trusted_uid {
            return Ok(());
        }
        let full = || Error::Busy("too many requests wait for authorization; answer those or try again".into());
        let _open = self.open.take(uid).ok_or_else(full)?;
        self.ask_polkit(connection, header, action).await
    }

    pub(super) async fn uid_of_caller(&self, connection: &Connection, header: &Header<'_>) -> Result<u32, Error> {
        let sender = header.sender().ok_or_else(|| Error::NotAuthorized("the call has no sender".into()))?;
        let known = self.callers.lock().unwrap_or_else(PoisonError::into_inner).get(sender.as_str()).copied();
        if let Some(uid) = known {
            return Ok(uid);
        }
        let bus = fdo::DBusProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
        let uid = bus.get_connection_unix_user(sender.clone().into()).await;
        let uid = uid.map_err(|error| Error::NotAuthorized(format!("the bus does not say who calls: {error}")))?;
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= MAX_CALLERS {
            callers.clear();
        }
        callers.insert(sender.as_str().to_owned(), uid);
        Ok(uid)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        let allowed =
            |authorized, challenge, interactive| verdict(authorized, challenge, interactive, Action::Apply).is_ok();
        assert!(allowed(true, false, false));
        for (challenge, interactive) in [(false, false), (false, true), (true, false), (true, true)] {
            assert!(!allowed(false, challenge, interactive));
        }
    }
}
