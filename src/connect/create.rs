//! Making a connect session: everything that can be wrong with one is told here, to the app's back end, and not later to its end user.

use super::book::Found;
use super::links;
use super::session::{Completes, Phase, Session, new_id};
use super::{Connect, ConnectError, inputs, is_connectable};
use crate::base::clock::UnixMillis;
use crate::config::Snapshot;
use crate::config::error::did_you_mean;
use crate::identity::check_name;
use crate::oauth::is_definitions;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a session may be asked to live.
const TTL_MIN: Duration = Duration::from_secs(10);
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// What one session's lists and texts may hold.
const LIST_MAX: usize = 100;
const METADATA_BYTES_MAX: usize = 8 * 1024;
/// A session is one record of the store, and holds the scopes twice once a browser has begun.
const TEXTS_BYTES_MAX: usize = 12 * 1024;

/// Parameters of the authorization request that are this program's alone: another value would undo a check.
const OURS: [&str; 11] = [
    "response_type",
    "client_id",
    "client_secret",
    "redirect_uri",
    "state",
    "nonce",
    "scope",
    "code_challenge",
    "code_challenge_method",
    "request",
    "request_uri",
];

/// What a session is asked to be (contract §6).
#[derive(Debug, Clone, Default)]
pub struct NewSession {
    pub end_user: String,
    pub account: Option<String>,
    /// Empty: every provider that can be connected.
    pub providers: Vec<String>,
    pub return_url: Option<String>,
    pub scopes: Option<Vec<String>>,
    pub params: Vec<(String, String)>,
    pub metadata: BTreeMap<String, Value>,
    pub completes: Completes,
    pub ttl: Option<Duration>,
}

/// A session that was made. Both texts are secrets until the end user's browser has them.
#[derive(Debug, Clone)]
pub struct Created {
    pub connect_url: String,
    pub session: String,
    pub expires_at: UnixMillis,
}

impl Connect {
    /// Makes a session.
    ///
    /// # Errors
    /// In words for the app's developer, or of the store.
    pub async fn create(&self, new: NewSession) -> Result<Created, ConnectError> {
        let snapshot = self.live.snapshot();
        let (account, ttl) = check(&snapshot, &new).map_err(ConnectError::Invalid)?;
        let return_url = new.return_url.as_deref().map(|url| links::return_url(url, &snapshot.connect.allowed_return_urls));
        let return_url = return_url.transpose().map_err(ConnectError::Invalid)?;
        if new.completes == Completes::App && return_url.is_none() {
            let why = "`complete: \"app\"` needs a `return_url`, which carries the completion code to the app";
            return Err(ConnectError::Invalid(why.to_owned()));
        }
        let (ticket, now) = (new_id(), self.clock.now());
        let session = Session {
            handle: ticket.handle,
            id: super::session::Digest::of(&ticket.text),
            end_user: new.end_user.into(),
            account,
            providers: new.providers.into_iter().map(Into::into).collect(),
            return_url,
            scopes: new.scopes,
            params: new.params,
            metadata: new.metadata,
            completes: new.completes,
            created_at: now,
            expires_at: now.plus(ttl),
            phase: Phase::Open,
        };
        let expires_at = session.expires_at;
        self.advance(&Found { version: 0, session }).await?;
        Ok(Created { connect_url: self.public(&format!("/connect/{}", ticket.text)), session: ticket.text, expires_at })
    }

    /// How far a session has come: its word, and the provider once one was chosen.
    ///
    /// # Errors
    /// When it is unknown or has expired, or of the store.
    pub async fn session_state(&self, id: &str) -> Result<(&'static str, Option<String>, UnixMillis), ConnectError> {
        let found = self.by_id(id).await?.ok_or(ConnectError::NotFound)?;
        let phase = &found.session.phase;
        Ok((phase.name(), phase.provider().map(str::to_owned), found.session.expires_at))
    }
}

fn check(snapshot: &Snapshot, new: &NewSession) -> Result<(Box<str>, Duration), String> {
    let account = check_who(&new.end_user, new.account.as_deref())?.into();
    if new.providers.len() > LIST_MAX {
        return Err(format!("`providers` holds more than {LIST_MAX} names"));
    }
    for id in &new.providers {
        check_provider(snapshot, id)?;
    }
    if new.providers.is_empty() && !snapshot.providers.values().any(|registration| is_connectable(registration)) {
        return Err("no provider of routes.yaml can be connected to".to_owned());
    }
    check_scopes(new.scopes.as_deref())?;
    if new.params.len() > LIST_MAX || new.params.iter().any(|(name, value)| name.is_empty() || name.len() + value.len() > 2048) {
        return Err(format!("`params` holds more than {LIST_MAX} texts, an empty name, or one over 2048 bytes"));
    }
    if let Some((name, _)) = new.params.iter().find(|(name, _)| OURS.contains(&name.as_str())) {
        return Err(format!("`params` cannot set `{name}`: that is Attaché's own"));
    }
    check_new_metadata(&new.metadata)?;
    for registration in new.providers.iter().filter_map(|id| snapshot.providers.get(&**id)) {
        if let Some((name, _)) = new.params.iter().find(|(name, _)| is_definitions(registration, name)) {
            return Err(format!("`params` cannot set `{}`: that is said by the definition of `{}`", shown(name), registration.id));
        }
        inputs::check_given(registration, &new.metadata)?;
    }
    let total: usize = new.params.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        + new.scopes.iter().flatten().map(String::len).sum::<usize>()
        + new.return_url.as_ref().map_or(0, String::len)
        + new.providers.iter().map(String::len).sum::<usize>();
    if total > TEXTS_BYTES_MAX {
        return Err(format!("`providers`, `scopes`, `params` and `return_url` hold more than {TEXTS_BYTES_MAX} bytes together"));
    }
    let ttl = new.ttl.unwrap_or(snapshot.connect.session_ttl);
    if !(TTL_MIN..=TTL_MAX).contains(&ttl) && new.ttl.is_some() {
        return Err(format!("`ttl_s` is {} to {}", TTL_MIN.as_secs(), TTL_MAX.as_secs()));
    }
    Ok((account, ttl))
}

/// The names of a connection, by the same rules as the headers of a call; answers the account.
pub(super) fn check_who<'a>(end_user: &str, account: Option<&'a str>) -> Result<&'a str, String> {
    check_name(end_user).map_err(|why| format!("`end_user` is refused: {why}"))?;
    let account = account.unwrap_or(crate::base::ids::DEFAULT_ACCOUNT);
    check_name(account).map_err(|why| format!("`account` is refused: {why}"))?;
    Ok(account)
}

/// Whether a provider can be connected to, with the nearest name if it is unknown.
pub(super) fn check_provider(snapshot: &Snapshot, id: &str) -> Result<(), String> {
    let Some(registration) = snapshot.providers.get(id) else {
        let hint = did_you_mean(id, snapshot.providers.keys().map(|id| &**id)).map(|hint| format!(": {hint}")).unwrap_or_default();
        return Err(format!("no provider of routes.yaml is called `{}`{hint}", shown(id)));
    };
    if let Some(off) = &registration.off {
        return Err(format!("the provider `{id}` is off: {off}"));
    }
    if registration.mint.is_some() {
        return Err(format!("nobody connects to `{id}`: its tokens are made, not granted"));
    }
    if !is_connectable(registration) && registration.oauth1.is_some() {
        return Err(format!("the provider `{id}` has no `request_token_url` or no `client_id`: it takes imported tokens alone"));
    }
    if !is_connectable(registration) {
        return Err(format!("the provider `{id}` has no `authorize_url`, no `issuer` or no `client_id`: it takes imported tokens alone"));
    }
    Ok(())
}

/// Scope tokens (RFC 6749 §3.3): no spaces or quotes within one.
pub(super) fn check_scopes(scopes: Option<&[String]>) -> Result<(), String> {
    let scopes = scopes.unwrap_or_default();
    let fits = |scope: &String| {
        (1..=512).contains(&scope.len()) && scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
    };
    if scopes.len() > LIST_MAX || !scopes.iter().all(fits) {
        return Err(format!("`scopes` is a list of at most {LIST_MAX} scopes without spaces, quotes and backslashes"));
    }
    Ok(())
}

/// Whether metadata is small enough to be kept with a connection.
///
/// # Errors
/// In words for whoever sent it.
pub fn check_metadata(metadata: &BTreeMap<String, Value>) -> Result<(), String> {
    let length = serde_json::to_vec(metadata).map_or(usize::MAX, |text| text.len());
    if length > METADATA_BYTES_MAX { Err(format!("`metadata` is over {METADATA_BYTES_MAX} bytes")) } else { Ok(()) }
}

/// The same of metadata that an app gives to a session: `sub` says whose account the provider proved, and is nobody else's to say.
pub(super) fn check_new_metadata(metadata: &BTreeMap<String, Value>) -> Result<(), String> {
    if metadata.contains_key("sub") {
        return Err("`metadata.sub` is Attaché's own: whose account it is, as the provider said".to_owned());
    }
    check_metadata(metadata)
}

/// A name from outside, cut short for an error.
fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(64).collect()
}
