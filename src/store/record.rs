//! The typed records, as the rest of the program knows them. Their stored form stands in `codec.rs`.

use crate::base::clock::UnixMillis;
use crate::base::ids::ConnectionKey;
use crate::base::secret::Secret;
use std::collections::BTreeMap;

/// A connection's state (contract §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Made, not yet confirmed by the app.
    Pending,
    Active,
    /// No refresh token, and the access token is past its end.
    Expired,
    /// The provider refused the refresh token; only the end user can mend it.
    ReconnectRequired,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Active => "active",
            State::Expired => "expired",
            State::ReconnectRequired => "reconnect_required",
        }
    }
}

/// One end user's grant at one provider, under one account label.
#[derive(Debug, Clone, PartialEq)]
pub struct Connection {
    /// `con_…`; kept when the end user connects anew.
    pub id: Box<str>,
    pub key: ConnectionKey,
    pub state: State,
    pub access_token: Secret,
    pub refresh_token: Option<Secret>,
    pub token_type: Box<str>,
    /// What signs with the token, sealed with it: OAuth 1.0a's token secret, DPoP's private key (PKCS#8 in base64).
    pub key_material: Option<Secret>,
    /// When the access token was received.
    pub obtained_at: UnixMillis,
    /// When it ends; `None` if it does not.
    pub expires_at: Option<UnixMillis>,
    pub scopes: Vec<String>,
    pub missing_scopes: Vec<String>,
    pub created_at: UnixMillis,
    pub updated_at: UnixMillis,
    pub last_used_at: Option<UnixMillis>,
    /// What the app or the provider left with the connection; readable in the API.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// What went wrong last, in words of our own, never a provider's raw answer.
    pub last_error: Option<String>,
    /// Refreshes that failed in a row, and before when none is tried again.
    pub refresh_failures: u32,
    pub refresh_not_before: Option<UnixMillis>,
}

/// A token call was begun for this connection at this version, and its outcome is not on disk yet. Found at start, it marks the one
/// ambiguous window: the provider may have rotated the refresh token without our having kept the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub key: ConnectionKey,
    pub begun_at: UnixMillis,
    /// The connection's version whose refresh token was sent.
    pub version: u64,
}

impl Intent {
    /// Whether the call's outcome still matters to this record: it can be refreshed, and its grant did not come after the call.
    pub fn is_open_on(&self, record: &Connection) -> bool {
        record.refresh_token.is_some() && record.obtained_at <= self.begun_at
    }
}
