//! What a connection gives a request: the secret material that an attach scheme puts on it.

use crate::base::secret::Secret;

/// One usable credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub access_token: Secret,
    /// As the token endpoint said it (`Bearer`, `DPoP`, …); compared without regard to case.
    pub token_type: Box<str>,
    /// What signs with the token: OAuth 1.0a's token secret, DPoP's private key.
    pub key: Option<Secret>,
}

impl Credential {
    pub fn bearer(access_token: impl Into<Secret>) -> Self {
        Credential { access_token: access_token.into(), token_type: "Bearer".into(), key: None }
    }
}
