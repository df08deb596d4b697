//! A polkit agent that asks for a password on the terminal, where no desktop has one.

use std::{
    io::{IsTerminal, Read},
    process::{Child, Command, Stdio},
};

/// Ends when dropped.
#[derive(Debug)]
pub struct Agent(Child);

impl Agent {
    /// `None` where it is not needed (root; nobody at a terminal) or not installed: then polkit decides without.
    pub fn start() -> Option<Self> {
        if nix::unistd::geteuid().is_root() || !std::io::stdin().is_terminal() {
            return None;
        }
        let mut agent = Command::new("pkttyagent")
            .args(["--fallback", "--notify-fd=1", "--process", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        // It closes the pipe when polkit knows it; or by giving up.
        let _ = agent.stdout.take().map(|mut ready| ready.read(&mut [0]));
        Some(Self(agent))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It restores the terminal when told to end.
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap_or(0));
        if pid.as_raw() > 0 {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}
