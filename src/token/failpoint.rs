//! Named steps of a rotation at which a debug build can be told to die, so that tests kill it just there. A release build has none of it.
//!
//! `ATTACHE_FAILPOINT` names a file: once the file holds a step's name, the process that comes by that step removes the file and kills itself with
//! SIGKILL, as a machine that loses its power would.

/// Where a rotation can be cut off, in the order in which it comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Decided upon; nothing is written, nothing sent.
    Intent,
    /// The intent is on disk; nothing is sent.
    Posting,
    /// The provider has answered; nothing of it is on disk.
    Answered,
    /// The new grant is on disk; no call has seen it.
    Written,
    /// The new token is shown; the calls that wait have not gone on.
    Published,
    /// The provider has failed or refused; nothing of that is on disk.
    Failed,
}

impl Step {
    #[cfg(debug_assertions)]
    const fn name(self) -> &'static str {
        match self {
            Step::Intent => "intent",
            Step::Posting => "posting",
            Step::Answered => "answered",
            Step::Written => "written",
            Step::Published => "published",
            Step::Failed => "failed",
        }
    }
}

/// Dies here, if told to.
#[cfg(debug_assertions)]
pub(super) fn reach(step: Step) {
    use std::sync::OnceLock;
    static FILE: OnceLock<Option<std::ffi::OsString>> = OnceLock::new();
    let Some(file) = FILE.get_or_init(|| std::env::var_os("ATTACHE_FAILPOINT")) else { return };
    if std::fs::read_to_string(file).is_ok_and(|told| told.trim() == step.name()) && std::fs::remove_file(file).is_ok() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(not(debug_assertions))]
pub(super) const fn reach(_: Step) {}
