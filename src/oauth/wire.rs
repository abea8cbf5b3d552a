//! Members of a token reply that OAuth itself does not have.

use serde::{Deserialize, Serialize};
use std::fmt;

/// OpenID Connect Core 1.0 §3.1.3.3.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Extra {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id_token: Option<IdToken>,
}

/// A JWT that tells who the end user is: not for logs.
#[derive(Serialize, Deserialize)]
pub(super) struct IdToken(pub(super) String);

impl fmt::Debug for IdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdToken(…)")
    }
}

impl oauth2::ExtraTokenFields for Extra {}
