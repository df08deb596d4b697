//! A bus of the test's own, on which an ordinary user may own every name.

use futures_util::StreamExt;
use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};
use zbus::{Connection, connection, fdo};

/// Ends with the test.
#[derive(Debug)]
pub struct Bus {
    daemon: Child,
    pub address: String,
    _directory: tempfile::TempDir,
}

impl Bus {
    pub fn start() -> Self {
        Self::with_policy(
            r#"<policy context="mandatory">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>"#,
        )
    }

    /// With the policy of the system's bus: what is not allowed by the shipped file is not allowed.
    pub fn start_strict() -> Self {
        Self::with_policy(
            r#"<policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <include ignore_missing="yes">/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf</include>
  <include ignore_missing="yes">/etc/dbus-1/system.d/org.freedesktop.PolicyKit1.conf</include>"#,
        )
    }

    fn with_policy(rules: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the bus");
        // Other users may come in, as on the system's bus.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        let config = directory.path().join("bus.conf");
        // The policy that is shipped goes through the real parser too.
        let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/dbus/org.vmfabric1.conf");
        let text = format!(
            r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:dir={}</listen>
  <auth>EXTERNAL</auth>
  {rules}
  <include>{policy}</include>
</busconfig>"#,
            directory.path().display()
        );
        std::fs::write(&config, text).expect("the configuration of the bus is written");
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon runs (Debian package dbus)");
        let mut address = String::new();
        let stdout = daemon.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut address).expect("dbus-daemon prints its address");
        assert!(!address.is_empty(), "dbus-daemon refuses its configuration; dbus/org.vmfabric1.conf is part of it");
        Self { daemon, address: address.trim().to_owned(), _directory: directory }
    }

    pub fn builder(&self) -> connection::Builder<'_> {
        connection::Builder::address(self.address.as_str())
    }

    pub async fn connect(&self) -> Connection {
        super::within(self.builder().build()).await.expect("the bus takes a connection")
    }

    /// Waits until somebody has a name.
    pub async fn owned(&self, name: &'static str) {
        let bus = self.connect().await;
        let daemon = fdo::DBusProxy::new(&bus).await.expect("a proxy");
        let mut changes = daemon.receive_name_owner_changed().await.expect("the bus takes the rule");
        let name = zbus::names::BusName::from_static_str(name).expect("a name");
        super::within(async {
            while !daemon.name_has_owner(name.clone()).await.expect("answered") {
                changes.next().await;
            }
        })
        .await;
    }

    /// As a restart of the system's bus.
    pub fn kill(&mut self) {
        self.daemon.kill().expect("the bus daemon runs");
        self.daemon.wait().expect("the bus daemon is a child of ours");
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
