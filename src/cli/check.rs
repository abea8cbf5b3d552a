//! `attache check`: every error of the config at once, and what it would serve.

use super::{Failure, Outcome, print};
use std::fmt::Write;
use std::path::Path;

pub(super) fn run(path: &Path) -> Outcome {
    let snapshot = crate::config::load(path, &super::environment).map_err(Failure::usage)?;
    let mut text = String::new();
    for warning in &snapshot.warnings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "warning: {warning}");
    }
    let off = snapshot.providers.values().filter(|provider| provider.off.is_some()).count();
    let _ = writeln!(
        text,
        "{}: ok, {} routes, {} providers{}",
        path.display(),
        snapshot.route_list.len(),
        snapshot.providers.len(),
        if off > 0 { format!(" ({off} off)") } else { String::new() }
    );
    print(&text)
}
