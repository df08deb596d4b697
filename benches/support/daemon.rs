use std::{
    fs,
    os::unix::net::UnixStream,
    process::{Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};
use vmfabric::server::hook::SOCKET;

/// The daemon under test, with what it says in /run/rig/vmfabricd.log; ends when dropped.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    pub fn start() -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open("/run/rig/vmfabricd.log").expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_vmfabricd"))
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("vmfabricd");
        let daemon = Self(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(SOCKET).is_err() {
            assert!(Instant::now() < deadline, "{}", fs::read_to_string("/run/rig/vmfabricd.log").unwrap_or_default());
            sleep(Duration::from_millis(20));
        }
        daemon.settle();
        daemon
    }

    /// CPU time of all its threads.
    pub fn cpu(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0.id())).expect("the daemon runs");
        let of_thread = |path: std::path::PathBuf| {
            let text = fs::read_to_string(path.join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(threads.filter_map(|thread| of_thread(thread.ok()?.path())).sum())
    }

    /// Waits until it has nothing to do.
    pub fn settle(&self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut quiet = 0;
        let mut last = self.cpu();
        while quiet < 4 {
            assert!(Instant::now() < deadline, "the daemon does not come to rest");
            sleep(Duration::from_millis(100));
            let now = self.cpu();
            quiet = if now - last < Duration::from_micros(500) { quiet + 1 } else { 0 };
            last = now;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}
