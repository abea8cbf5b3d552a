//! The process's log: a server's lines are written by a thread of their own, a verb's at once.

use super::LogFormat;
use crate::log::{Format, Guard};

/// Sets it up, once; hold on to the guard until the end.
pub(super) fn start(format: LogFormat, serves: bool) -> Guard {
    let format = if format == LogFormat::Json { Format::Json } else { Format::Text };
    // A server tells what it does; a verb answers what it was asked.
    crate::log::start(format, if serves { "info" } else { "warn" }, serves)
}
