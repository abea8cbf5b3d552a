//! Members of a token reply that OAuth itself does not have.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// OpenID Connect Core 1.0 §3.1.3.3, and what `reply` reads by a definition's word.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Extra {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id_token: Option<Hidden<String>>,
    /// The refresh token's own life in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refresh_expires_in: Option<u64>,
    /// Values for the connection's metadata, checked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) learnt: BTreeMap<String, String>,
    /// The first required one that is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lacking: Option<String>,
    /// Further grants of the same reply, each a token reply of its own, by account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) also: Vec<(String, Hidden<Value>)>,
}

/// What is not for logs: a JWT that tells who the end user is, a reply with tokens in it.
#[derive(Serialize, Deserialize)]
pub(super) struct Hidden<T>(pub(super) T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(…)")
    }
}

impl oauth2::ExtraTokenFields for Extra {}
