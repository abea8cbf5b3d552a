//! A connect session: one end user's short-lived permit to connect, and how far it has come. Its stored form stands in `codec.rs`.

use crate::base::clock::UnixMillis;
use crate::base::ids::{random_id, random_token};
use crate::base::secret::Secret;
use crate::oauth::Pair;
use crate::store::Connection;
use aws_lc_rs::digest;
use serde_json::Value;
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;

/// What stands before the handle in a session's id.
const PREFIX: &str = "cs_";
/// What stands before it in its cookie's name.
const COOKIE: &str = "attache_";
/// The length of a handle: 128 bits in base64url.
const HANDLE_LEN: usize = 22;

/// The SHA-256 of a secret text. Comparing takes the same time whatever differs, and the store holds nothing that could be sent.
#[derive(Debug, Clone, Copy)]
pub struct Digest(pub(super) [u8; 32]);

impl Digest {
    pub fn of(text: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        Digest(bytes)
    }

    pub fn fits(&self, text: &str) -> bool {
        Digest::of(text).0.ct_eq(&self.0).into()
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Who must say the last word before a connection is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Completes {
    /// Nobody: it is active once the browser is back.
    #[default]
    Browser,
    /// The app's back end, which knows who is logged in.
    App,
}

/// A session as it is stored. It is keyed by its handle, which is in its id, in `state` and in the cookie's name; none of these is good without
/// the secret text behind it.
#[derive(Debug, Clone)]
pub struct Session {
    pub handle: Box<str>,
    /// Of the whole id.
    pub id: Digest,
    pub end_user: Box<str>,
    pub account: Box<str>,
    /// The registrations to choose from; empty: all that can be connected.
    pub providers: Vec<Box<str>>,
    pub return_url: Option<Box<str>>,
    /// `None`: what the registration asks for.
    pub scopes: Option<Vec<String>>,
    pub params: Vec<(String, String)>,
    pub metadata: BTreeMap<String, Value>,
    pub completes: Completes,
    pub created_at: UnixMillis,
    pub expires_at: UnixMillis,
    pub phase: Phase,
}

/// How far a session has come. It only ever goes forward, by compare-and-swap, so that each step is taken once on every replica together.
#[derive(Debug, Clone)]
pub enum Phase {
    /// No browser has begun.
    Open,
    /// A browser is at the provider, and only that one may come back.
    Begun(Box<Attempt>),
    /// The callback was taken and its code is being spent (RFC 6749 §4.1.2: once).
    Exchanging {
        provider: Box<str>,
    },
    /// The grant is here, and the app has not said yet whose it is.
    Granted(Box<Granted>),
    Ended {
        provider: Option<Box<str>>,
        outcome: Outcome,
    },
}

/// One trip of one browser to one provider.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub provider: Box<str>,
    pub state: Digest,
    pub cookie: Digest,
    /// PKCE (RFC 7636 §4.1).
    pub verifier: Option<Secret>,
    pub nonce: Option<Secret>,
    /// What was sent, for it must be sent again byte for byte (RFC 6749 §4.1.3).
    pub redirect_uri: Box<str>,
    pub scopes: Vec<String>,
    /// What the definition's inputs were filled with, by their names.
    pub values: BTreeMap<String, String>,
    /// What the tokens will be bound to, made for this attempt (RFC 9449).
    pub key: Option<Secret>,
    /// OAuth 1.0a's temporary credentials (RFC 5849 §2.1), of whose token `state` is the digest. None for OAuth 2.0.
    pub temporary: Option<Pair>,
    /// An answer that came by a form POST, which carries no cookie: kept until the same browser fetches it.
    pub parked: Option<Parked>,
}

/// The parameters of a form-POST callback.
#[derive(Debug, Clone)]
pub struct Parked {
    pub id: Digest,
    pub answer: Answer,
    pub until: UnixMillis,
}

/// What a provider's answer says (RFC 6749 §4.1.2, RFC 9207 §2). Its text is the provider's: it reaches no log and no page.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub code: Option<Secret>,
    pub error: Option<String>,
    /// The error is a person's no.
    pub denied: bool,
    pub iss: Option<String>,
    /// The granted scopes, where the definition finds them here.
    pub scope: Option<String>,
    /// Parameters that the definition's calls carry on.
    pub callback: Vec<(String, String)>,
    /// Values for the connection's metadata, checked.
    pub learnt: BTreeMap<String, Value>,
    /// A value that may not stand where the definition has it stand, or a required one that is not there: by its name in the definition.
    pub unfit: Option<String>,
}

/// A grant that waits for the app's word.
#[derive(Debug, Clone)]
pub struct Granted {
    pub completion: Digest,
    /// The connection as it will stand.
    pub connection: Connection,
    /// Those of the further grants of the same reply.
    pub also: Vec<Connection>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Connected,
    Denied,
    Failed,
    /// The app's word did not fit, or never came: what was granted is revoked.
    Discarded,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Connected => "connected",
            Outcome::Denied => "denied",
            Outcome::Failed => "failed",
            Outcome::Discarded => "discarded",
        }
    }
}

impl Phase {
    /// The word for it in the API.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Open => "open",
            Phase::Begun(_) | Phase::Exchanging { .. } => "begun",
            Phase::Granted(_) => "pending",
            Phase::Ended { outcome, .. } => outcome.name(),
        }
    }

    pub fn provider(&self) -> Option<&str> {
        match self {
            Phase::Open => None,
            Phase::Begun(attempt) => Some(&attempt.provider),
            Phase::Exchanging { provider } => Some(provider),
            Phase::Granted(granted) => Some(&granted.connection.key.provider),
            Phase::Ended { provider, .. } => provider.as_deref(),
        }
    }
}

/// A handle and the whole text that it begins: a session's id, or a `state`.
pub struct Ticket {
    pub handle: Box<str>,
    pub text: String,
}

/// A new session id: `cs_`, its handle, and 256 random bits.
pub fn new_id() -> Ticket {
    let id = random_id("cs");
    let handle = id[PREFIX.len()..].into();
    Ticket { handle, text: format!("{id}{}", random_token()) }
}

/// A new text that leads back to a session: its handle and 256 random bits.
pub fn new_text(handle: &str) -> String {
    format!("{handle}{}", random_token())
}

/// The handle within a session's id.
pub fn handle_in_id(id: &str) -> Option<&str> {
    handle_in(id.strip_prefix(PREFIX)?)
}

/// The handle that a `state` or a parked answer's id begins with.
pub fn handle_in(text: &str) -> Option<&str> {
    let fits = text.len() == HANDLE_LEN + 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    fits.then(|| &text[..HANDLE_LEN])
}

/// The cookie that binds a session to a browser.
pub fn cookie_name(handle: &str) -> String {
    format!("{COOKIE}{handle}")
}

/// The handle that a cookie's name holds.
pub fn handle_of_cookie(name: &str) -> Option<&str> {
    name.strip_prefix(COOKIE).filter(|handle| handle.len() == HANDLE_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_states_lead_to_their_handle_and_nothing_else_does() {
        let ticket = new_id();
        assert_eq!(handle_in_id(&ticket.text), Some(&*ticket.handle));
        assert_eq!(handle_in(&new_text(&ticket.handle)), Some(&*ticket.handle));
        for text in
            ["", "cs_", "cs_short", &format!("{}x", ticket.text), &ticket.text.replace("cs_", "sc_"), &ticket.text.replacen('_', "/", 1)]
        {
            assert_eq!(handle_in_id(text), None, "{text}");
        }
        assert_ne!(new_text(&ticket.handle), new_text(&ticket.handle));
    }

    #[test]
    fn a_digest_fits_its_own_text_alone() {
        let digest = Digest::of("abc");
        assert!(digest.fits("abc"));
        assert!(!digest.fits("abd") && !digest.fits(""));
    }
}
