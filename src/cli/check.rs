//! `attache check`: every error of the config at once, and what it would serve.

use super::{Failure, Outcome, print};
use crate::config::Snapshot;
use crate::connect::redirect_uri;
use crate::provider::{Asks, Registration};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

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
    text.push_str(&origins(&snapshot));
    text.push_str(&redirect_uris(&snapshot));
    print(&text)
}

/// The listeners that are one upstream's whole origin.
fn origins(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for (listener, origin) in snapshot.startup.origins.iter().zip(&snapshot.origins) {
        let binds = listener.binds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let upstream = origin.route.as_ref().map(|route| snapshot.masked(&route.upstream)).unwrap_or_default();
        // As above.
        let _ = writeln!(text, "origin {binds} -> {upstream}");
    }
    text
}

/// What to register at each provider that asks end users: it is compared byte for byte there (RFC 9700 §2.1).
fn redirect_uris(snapshot: &Snapshot) -> String {
    // Those that are off too: a client id is often to be had only once the redirect URI is registered.
    let asked = |registration: &&Arc<Registration>| {
        let consents = registration.authorize_url.is_some() || registration.issuer.is_some();
        consents && registration.asks == Asks::Consent && registration.mint.is_none()
    };
    let rows: Vec<_> = snapshot.providers.values().filter(asked).collect();
    let Some(width) = rows.iter().map(|registration| registration.id.len()).max() else { return String::new() };
    let mut text = "redirect URIs, each to be registered at its provider exactly so:\n".to_owned();
    for registration in rows {
        // As above.
        let _ = writeln!(text, "  {:<width$}  {}", registration.id, redirect_uri(&snapshot.startup.public_url, &registration.id));
    }
    text
}
