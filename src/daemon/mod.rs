//! The composition root: configuration, wiring, readiness, reload and shutdown.

mod clean_up;
mod command_line;
mod config;
mod journal;
mod lease_files;
mod lease_names;
mod log;
mod outlets;

pub use clean_up::clean_up;
pub use command_line::main;
pub use config::{Config, ConfigError};
pub use log::Log;
pub use outlets::{Services, StoredLeases};

use crate::{
    backend::{Counters, DriverError, StoreError},
    dbus,
    driver::{
        firewalld::Firewalld,
        host::HostDriver,
        kernel::{self, KernelCounters, KernelDriver},
    },
    intent::HostConfig,
    libvirt::{self, LibvirtConfig},
    metrics::{self, Listen},
    planner::{drop_reasons, host_drop_reasons},
    reconciler::{Command, Engine, Handle, HookIndex, Inputs, StartError, View, forget_former_boot, importer},
    server::{
        clock::boot_id,
        dns::{DnsShared, UpstreamSource, Upstreams},
        hook,
        resolved::Resolved,
        thread::ServerThread,
    },
    store::sqlite::SqliteStore,
};
use std::{
    io,
    os::{fd::FromRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::Duration,
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::{broadcast, mpsc},
};

/// Commands that may wait for the loop; more are told to try again.
const COMMANDS: usize = 1024;
const EVENTS: usize = 1024;

/// Where the daemon keeps things.
#[derive(Debug, Clone)]
pub struct Paths {
    pub config: PathBuf,
    pub database: PathBuf,
    pub hook_socket: PathBuf,
    pub hook_index: PathBuf,
    /// The folder in which libvirt looks for leases.
    pub lease_files: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            config: "/etc/vmfabric/vmfabricd.toml".into(),
            database: "/var/lib/vmfabric/vmfabric.db".into(),
            hook_socket: hook::SOCKET.into(),
            hook_index: HookIndex::PATH.into(),
            lease_files: libvirt::lease_file::FOLDER.into(),
        }
    }
}

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("vmfabricd changes this host's networking and must run as root; start it with 'systemctl start vmfabricd'")]
    NotRoot,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("the main loop ended by itself; see the messages before this one")]
    LoopEnded,
    #[error("not all is cleaned up: {0}")]
    LeftBehind(String),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> DaemonError {
    let what = what.into();
    move |source| DaemonError::Io { what, source }
}

/// Of what tells that a guest's NIC comes, what is listened to. The third, the hook, comes or does not.
#[derive(Debug, Clone, Copy)]
struct Triggers {
    netlink: bool,
    libvirt: bool,
}

impl Triggers {
    /// For tests, which show that one is enough: `VMFABRIC_TRIGGERS=netlink` leaves libvirt alone, for example, and
    /// `VMFABRIC_TRIGGERS=hook` both.
    fn wanted() -> Self {
        let Some(only) = std::env::var_os("VMFABRIC_TRIGGERS") else { return Self { netlink: true, libvirt: true } };
        let only = only.to_string_lossy();
        tracing::warn!(%only, "VMFABRIC_TRIGGERS is set, as tests do: the other triggers are off");
        let has = |name| only.split(',').any(|word| word.trim() == name);
        Self { netlink: has("netlink"), libvirt: has("libvirt") }
    }
}

/// Runs until SIGTERM or SIGINT. Whatever guests have stays as it is when it ends.
pub async fn run(paths: Paths, log: Log) -> Result<(), DaemonError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(DaemonError::NotRoot);
    }
    let config = Config::load(&paths.config)?;
    log.set_default(&config.log_level);
    // First: its lock keeps a second daemon from taking the first one's socket.
    let store = Arc::new(SqliteStore::open(&paths.database)?);
    // Where the kernel does not tell, all boots are one.
    forget_former_boot(&*store, &boot_id()).await?;
    // Hooks that come from now on wait in the socket's queue.
    let listener = hook_listener(&paths.hook_socket)?;
    let triggers = Triggers::wanted();
    let (events, links) = mpsc::channel(kernel::CAPACITY);
    let driver = HostDriver::new(KernelDriver::new()?, Firewalld::watch(Some(events.clone())));
    let counters: Arc<dyn Counters> = Arc::new(KernelCounters::new(drop_reasons(), host_drop_reasons())?);
    if triggers.netlink {
        kernel::watch_into(events)?;
    }
    let upstreams = Upstreams::new(source_of(&config));
    let (libvirt_events, libvirt_inbox) = mpsc::channel(EVENTS);
    let libvirt = LibvirtConfig { uri: config.libvirt_uri.clone(), ..LibvirtConfig::default() };
    let libvirt = triggers.libvirt.then(|| libvirt::spawn(libvirt, libvirt_events)).transpose();
    let libvirt = libvirt.map_err(io_error("the libvirt thread cannot start"))?;
    let (dhcp_events, dhcp_inbox) = mpsc::channel(EVENTS);
    let dns = DnsShared::new(upstreams.clone()).map_err(io_error("the DNS thread cannot start"))?;
    let dhcp = ServerThread::start("dhcp").map_err(io_error("the DHCP thread cannot start"))?;
    let resolved = config.systemd_resolved.then(Resolved::watch);
    let services = Services::new(store.clone(), dhcp_events, dns, dhcp, libvirt, paths.hook_index.clone(), resolved);

    let meters = services.meters.clone();
    let view = Arc::new(RwLock::new(View::default()));
    let (notices, _) = broadcast::channel(EVENTS);
    let (commands, command_inbox) = mpsc::channel(COMMANDS);
    let (hooks, hook_inbox) = mpsc::channel(EVENTS);
    let (configs, config_inbox) = mpsc::channel(4);
    let engine =
        Engine::start(driver, store.clone(), services, config.host.clone(), view.clone(), notices.clone()).await?;
    let handle = Handle::new(commands, view, notices).with_libvirt(&config.libvirt_uri);
    let inputs = Inputs {
        commands: command_inbox,
        hooks: hook_inbox,
        links,
        libvirt: libvirt_inbox,
        leases: dhcp_inbox,
        config: config_inbox,
    };
    let mut engine = tokio::spawn(engine.run(inputs));
    let hooks = tokio::spawn(hook::serve(listener, hooks));
    let bus = tokio::spawn(serve_bus(handle.clone(), log.clone(), counters.clone()));
    let sources = metrics::Sources { handle: handle.clone(), counters, meters };
    let mut metrics = MetricsTask { sources, listen: None, task: None };
    metrics.follow(config.metrics);
    let lease_files = tokio::spawn(lease_files::follow(handle.clone(), paths.lease_files.clone()));
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    let recovery = tokio::spawn(importer::recover(handle.clone()));
    let watchdog = tokio::spawn(watch_over(handle.clone()));

    let outcome = tokio::select! {
        _ = &mut engine => Err(DaemonError::LoopEnded),
        outcome = signals(&paths, &log, &upstreams, &configs, &mut metrics) => outcome,
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    metrics.follow(None);
    for task in [hooks, bus, lease_files, recovery, watchdog] {
        task.abort();
        // It was told to end.
        let _ = task.await;
    }
    if outcome.is_ok() && handle.call(Command::Stop).await.is_ok() {
        let _ = engine.await;
    }
    // The store finishes what is queued; that waits for the disk.
    let _ = tokio::task::spawn_blocking(move || drop(store)).await;
    tracing::info!("stopped; guests keep their networks");
    outcome
}

/// Serves SIGHUP until SIGTERM or SIGINT.
async fn signals(
    paths: &Paths,
    log: &Log,
    upstreams: &Upstreams,
    configs: &mpsc::Sender<HostConfig>,
    metrics: &mut MetricsTask,
) -> Result<(), DaemonError> {
    let wait = |kind| signal(kind).map_err(io_error("signals cannot be received"));
    let mut terminate = wait(SignalKind::terminate())?;
    let mut interrupt = wait(SignalKind::interrupt())?;
    let mut reload = wait(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = reload.recv() => {
                let reloading = sd_notify::NotifyState::monotonic_usec_now().ok();
                notify(&[Some(sd_notify::NotifyState::Reloading), reloading].into_iter().flatten().collect::<Vec<_>>());
                match Config::load(&paths.config) {
                    Ok(config) => {
                        log.set_default(&config.log_level);
                        upstreams.set_source(source_of(&config));
                        metrics.follow(config.metrics);
                        // The loop is alive as long as this runs.
                        let _ = configs.send(config.host).await;
                    }
                    Err(error) => tracing::error!(%error, "the configuration stays as it was"),
                }
                notify(&[sd_notify::NotifyState::Ready]);
            }
        }
    }
}

/// Whoever serves metrics, where the configuration says.
#[derive(Debug)]
struct MetricsTask {
    sources: metrics::Sources,
    listen: Option<Listen>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl MetricsTask {
    fn follow(&mut self, listen: Option<Listen>) {
        if self.listen == listen {
            return;
        }
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.listen.clone_from(&listen);
        self.task = listen.map(|listen| tokio::spawn(metrics::serve(listen, self.sources.clone())));
    }
}

fn source_of(config: &Config) -> UpstreamSource {
    match config.upstream_dns.as_slice() {
        [] => UpstreamSource::host(),
        servers => UpstreamSource::Fixed(servers.to_vec()),
    }
}

/// systemd's socket, or one of our own where there is no systemd.
fn hook_listener(path: &Path) -> Result<UnixListener, DaemonError> {
    let given = sd_notify::listen_fds().map_err(io_error("LISTEN_FDS"))?.next();
    let listener = match given {
        #[expect(unsafe_code, reason = "the descriptor that systemd passes has no other owner (sd_listen_fds(3))")]
        // SAFETY: listen_fds gives each descriptor once, and nothing else in this process uses it.
        Some(fd) => unsafe { std::os::unix::net::UnixListener::from_raw_fd(fd) },
        None => bind(path).map_err(io_error(format!("the hook's socket {}", path.display())))?,
    };
    listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener))
        .map_err(io_error(format!("the hook's socket {}", path.display())))
}

fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody but root may connect, from the first moment on.
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = std::os::unix::net::UnixListener::bind(path);
    nix::sys::stat::umask(old);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener
}

/// The bus may come later than the daemon, and may be restarted: guests do not depend on it.
async fn serve_bus(handle: Handle, log: Log, counters: Arc<dyn Counters>) {
    const DELAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
    let mut delay = DELAY.0;
    let mut complained = false;
    loop {
        let bus = zbus::connection::Builder::system();
        match dbus::serve(bus, handle.clone(), log.clone(), counters.clone()).await {
            Ok(mut service) => {
                (delay, complained) = (DELAY.0, false);
                service.lost().await;
                tracing::warn!("the bus is lost; connecting again");
            }
            Err(error) => {
                if !complained {
                    tracing::warn!(%error, "no D-Bus interface yet; guests are served all the same");
                    complained = true;
                }
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(DELAY.1);
            }
        }
    }
}

/// Tells systemd's watchdog that the loop is alive, for as long as it is.
async fn watch_over(handle: Handle) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    loop {
        tokio::time::sleep(period / 3).await;
        if handle.call(Command::Ping).await.is_ok() {
            notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd is not told");
    }
}
