//! Messages with fields, to the journal or to stderr, at a level that can be changed while the daemon runs.

use super::journal::Journal;
use crate::dbus::LogControl;
use std::{
    io::IsTerminal as _,
    sync::{Arc, Mutex, PoisonError},
};
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

/// hickory tells of every query at info, and guests could fill the journal with its warnings.
const QUIET: [&str; 3] = ["hickory_server=off", "hickory_net=off", "hickory_proto=off"];

/// The level, for whoever may change it.
#[derive(Debug, Clone)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    level: Arc<Mutex<Level>>,
}

#[derive(Debug)]
struct Level {
    text: String,
    /// Somebody asked for it, so that the configuration no longer decides.
    asked: bool,
}

impl Log {
    /// Starts logging: to journald where stderr is the journal (systemd.exec(5), `$JOURNAL_STREAM`), else to stderr.
    /// `level` overrides the configuration.
    pub fn start(level: Option<String>) -> Self {
        let asked = level.is_some();
        let text = level.unwrap_or_else(|| "info".to_owned());
        let (layer, filter) = reload::Layer::new(filter_of(&text).unwrap_or_else(|_| EnvFilter::new("info")));
        let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| Journal::connect().ok());
        let stderr = journal.is_none().then(|| {
            let ansi = std::io::stderr().is_terminal();
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi).with_target(false)
        });
        // A second subscriber is only tried for in tests.
        let _ = tracing_subscriber::registry().with(layer).with(journal).with(stderr).try_init();
        Self { filter, level: Arc::new(Mutex::new(Level { text, asked })) }
    }

    /// The configuration's level, unless somebody asked for another.
    pub fn set_default(&self, level: &str) {
        if !self.lock().asked
            && let Err(error) = self.apply(level, false)
        {
            tracing::error!(error, "the log level stays as it was");
        }
    }

    fn apply(&self, level: &str, asked: bool) -> Result<(), String> {
        let filter = filter_of(level)?;
        self.filter.reload(filter).map_err(|error| error.to_string())?;
        *self.lock() = Level { text: level.to_owned(), asked };
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Level> {
        self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogControl for Log {
    fn level(&self) -> String {
        self.lock().text.clone()
    }

    fn set_level(&self, level: &str) -> Result<(), String> {
        self.apply(level, true)
    }
}

pub(super) fn filter_of(level: &str) -> Result<EnvFilter, String> {
    let bad = || format!("'{level}' is not a log level; use error, warn, info, debug or trace");
    let filter: EnvFilter = level.parse().map_err(|_| bad())?;
    // EnvFilter takes any word for the name of a module.
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    if !level.contains('=') && !known.contains(&level.to_ascii_lowercase().as_str()) {
        return Err(bad());
    }
    Ok(QUIET.iter().filter_map(|quiet| quiet.parse().ok()).fold(filter, EnvFilter::add_directive))
}
