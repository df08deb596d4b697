//! A bus of the test's own, on which an ordinary user may own every name.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};
use zbus::{Connection, connection};

/// Ends with the test.
#[derive(Debug)]
pub struct Bus {
    daemon: Child,
    pub address: String,
    _directory: tempfile::TempDir,
}

impl Bus {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory for the bus");
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
  <include>{policy}</include>
  <policy context="mandatory">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
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

    pub async fn connect(&self) -> Connection {
        let connection = connection::Builder::address(self.address.as_str()).build();
        super::within(connection).await.expect("the bus takes a connection")
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
