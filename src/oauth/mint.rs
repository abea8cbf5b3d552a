//! Tokens that no end user granted: JWT bearer assertions (RFC 7523 §2.1) and token exchange (RFC 8693).

use super::form::{Pairs, put, put_resources};
use super::values::Values;
use super::{Grant, TokenClient, TokenError};
use crate::base::ids::random_token;
use crate::base::secret::Secret;
use crate::provider::{Exchange, JwtBearer, Registration};
use serde_json::{Map, Value};
use std::time::Duration;

/// How long an assertion is good for: it is sent at once.
const ASSERTION_TTL: Duration = Duration::from_secs(300);

/// Stands for the call's end user in a subject.
const END_USER: &str = "{end_user}";

impl TokenClient {
    /// RFC 7523 §2.1. `end_user` takes the place of `{end_user}` in the subject; an app's own token has none. A refresh token in the answer
    /// is dropped: the next token is asked for anew.
    ///
    /// # Errors
    /// When there is no token.
    pub async fn jwt_bearer(&self, reg: &Registration, bearer: &JwtBearer, end_user: Option<&str>) -> Result<Grant, TokenError> {
        let url = self.token_endpoint(reg, Values::default()).await?;
        let subject = match (&bearer.subject, end_user) {
            (Some(subject), Some(end_user)) => Some(subject.replace(END_USER, end_user)),
            (Some(subject), None) if subject.contains(END_USER) => {
                return Err(TokenError::cannot("the assertion's subject is the end user, and this call has none"));
            }
            (subject, _) => subject.as_deref().map(str::to_owned),
        };
        let now = self.now_s();
        let mut claims = Map::new();
        claims.extend(bearer.claims.iter().map(|(name, value)| (name.to_string(), Value::from(&**value))));
        claims.extend(subject.map(|subject| ("sub".to_owned(), subject.into())));
        for (name, value) in [
            ("iss", Value::from(&*bearer.issuer)),
            ("aud", bearer.audience.as_deref().unwrap_or(url.as_str()).into()),
            ("iat", now.into()),
            ("exp", now.saturating_add(ASSERTION_TTL.as_secs()).into()),
            ("jti", random_token().into()),
        ] {
            claims.insert(name.to_owned(), value);
        }
        // Google reads the scopes in the assertion; saying them in two places could only contradict.
        let scope_is_claimed = claims.contains_key("scope");
        let signed = bearer.key.sign(&Value::Object(claims)).ok_or_else(|| TokenError::cannot("the assertion cannot be signed"))?;
        let mut pairs = Pairs::new();
        put(&mut pairs, "grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
        put(&mut pairs, "assertion", signed.expose());
        if !scope_is_claimed {
            put_scopes(&mut pairs, reg);
        }
        put_resources(&mut pairs, reg);
        self.minted(reg, pairs).await
    }

    /// RFC 8693 §2.1. `issued_token_type`, which §2.2.1 requires of the answer, is not asked for: many servers leave it out, and what the
    /// token is follows from what was requested. A refresh token in the answer is dropped.
    ///
    /// # Errors
    /// When there is no token.
    pub async fn token_exchange(&self, reg: &Registration, exchange: &Exchange, subject_token: &Secret) -> Result<Grant, TokenError> {
        let mut pairs = Pairs::new();
        put(&mut pairs, "grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
        put(&mut pairs, "subject_token", subject_token.expose());
        put(&mut pairs, "subject_token_type", &exchange.subject_token_type);
        if let Some(requested) = &exchange.requested_token_type {
            put(&mut pairs, "requested_token_type", requested);
        }
        pairs.extend(exchange.audience.iter().map(|audience| ("audience".to_owned(), audience.to_string())));
        put_scopes(&mut pairs, reg);
        put_resources(&mut pairs, reg);
        self.minted(reg, pairs).await
    }

    async fn minted(&self, reg: &Registration, pairs: Pairs) -> Result<Grant, TokenError> {
        let granted = self.grant_for(reg, pairs).await?;
        Ok(Grant { refresh_token: None, ..granted })
    }
}

fn put_scopes(pairs: &mut Pairs, reg: &Registration) {
    if !reg.scopes.is_empty() {
        put(pairs, "scope", &reg.scopes.join(&*reg.scope_separator));
    }
}
