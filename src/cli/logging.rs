//! The log: text or JSON on standard error, levels by RUST_LOG.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Sets up the process's log, once; `level` where RUST_LOG says none.
pub(super) fn start(json: bool, level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // A second start, as in a test, keeps the first: nothing to do about it.
    let _ = if json { log.json().flatten_event(true).try_init() } else { log.with_target(false).try_init() };
}
