//! Floor 1: where log lines go: levels that a reload may change, a writer that nobody waits for, and the line of each call.
//!
//! Events come by `tracing`. The line of each call, of which there may be a hundred thousand a second, is put together in a buffer of its worker's
//! (`line.rs`) and goes out many at a time; on a terminal it is an event like any other. A reader of the log that stands still holds nobody up:
//! what does not fit into the queue is dropped, and told in number (`writer.rs`).

mod line;
mod writer;

pub use line::{Call, tail, write};

use crate::base::clock::{Clock, SystemClock};
use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};
use tracing_subscriber::fmt::format::Writer as Text;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};
use writer::{Queue, Writer};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Which calls have a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Calls {
    #[default]
    All,
    /// Those that were answered 400 or more, that were cut, or that Attaché refused.
    Errors,
    None,
}

/// Which calls have a line, whatever their level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    pub calls: Calls,
    /// The share of the calls that went well which have a line, from 0 to 1.
    pub sample: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { calls: Calls::All, sample: 1.0 }
    }
}

struct Output {
    format: Format,
    /// `None` where lines are written at once, by whoever has them.
    writer: Option<Arc<Writer>>,
    /// Whether calls' lines may go around `tracing`.
    is_direct: bool,
    filter: reload::Handle<EnvFilter, Registry>,
    /// RUST_LOG decides, not the config.
    is_fixed: bool,
    /// Where neither says anything.
    default: Box<str>,
}

static OUTPUT: OnceLock<Output> = OnceLock::new();

/// Lets what is queued out when it is dropped, at the end of the process.
#[must_use]
#[derive(Debug)]
pub struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        flush();
    }
}

/// Sets up the process's log on standard error, once. `level` where RUST_LOG says none; `queued`: lines are written by a thread of their own.
pub fn start(format: Format, level: &str, queued: bool) -> Guard {
    let from_environment = EnvFilter::try_from_default_env();
    let is_fixed = from_environment.is_ok();
    let (filter, handle) = reload::Layer::new(from_environment.unwrap_or_else(|_| EnvFilter::new(level)));
    let is_terminal = std::io::stderr().is_terminal();
    // Without a thread, lines go out as they did in the days of old: slow, but there.
    let writer = if queued { Writer::start(std::io::stderr()).ok() } else { None };
    let lines = tracing_subscriber::fmt::layer().with_timer(Millis).with_ansi(is_terminal);
    let registry = tracing_subscriber::registry().with(filter);
    let set = match (format, writer.clone().map(Queue)) {
        (Format::Json, Some(writer)) => registry.with(lines.json().flatten_event(true).with_writer(writer)).try_init(),
        (Format::Json, None) => registry.with(lines.json().flatten_event(true).with_writer(std::io::stderr)).try_init(),
        (Format::Text, Some(writer)) => registry.with(lines.with_target(false).with_writer(writer)).try_init(),
        (Format::Text, None) => registry.with(lines.with_target(false).with_writer(std::io::stderr)).try_init(),
    };
    // A second start, as in a test, keeps the first: nothing to do about it.
    if set.is_ok() {
        let is_direct = writer.is_some() && !(is_terminal && format == Format::Text);
        let _ = OUTPUT.set(Output { format, writer, is_direct, filter: handle, is_fixed, default: level.into() });
    }
    Guard(())
}

/// Puts the config's level in force. RUST_LOG goes first.
pub fn set_level(level: Option<&str>) {
    let Some(output) = OUTPUT.get() else { return };
    if output.is_fixed {
        if level.is_some() {
            tracing::info!("`log.level` has no effect: the environment's RUST_LOG goes first");
        }
        return;
    }
    let Ok(filter) = EnvFilter::try_new(level.unwrap_or(&output.default)) else { return };
    let shown = filter.to_string();
    // It fails only once the subscriber is gone, with the process.
    let _ = output.filter.reload(filter);
    tracing::info!(log.level = shown, "the log has another level");
}

/// What is wrong with a level, if anything is.
///
/// # Errors
/// In words.
pub fn check_level(level: &str) -> Result<(), String> {
    EnvFilter::try_new(level).map(drop).map_err(|error| error.to_string())
}

/// How many lines were dropped because their reader was too slow.
pub fn dropped_lines() -> u64 {
    OUTPUT.get().and_then(|output| output.writer.as_ref()).map_or(0, |writer| writer.dropped())
}

/// Waits until what is queued is written, a few seconds at most.
pub fn flush() {
    line::flush();
    if let Some(writer) = OUTPUT.get().and_then(|output| output.writer.as_ref()) {
        writer.flush();
    }
}

/// RFC 3339 in UTC, always to the millisecond.
#[derive(Clone, Copy)]
struct Millis;

impl FormatTime for Millis {
    fn format_time(&self, text: &mut Text<'_>) -> fmt::Result {
        let now = SystemClock.now();
        let stamp = line::Stamp::of(now);
        text.write_str(stamp.text())
    }
}
