//! The trip of OAuth 1.0a (RFC 5849 §2): temporary credentials, the way out for the browser, and the token for what it brings back.

use super::authorize::is_definitions;
use super::discovery::{Endpoint, allowed};
use super::form::{Pairs, put};
use super::shape::{Call, lacking};
use super::values::{Named, Values, captured};
use super::{Grant, TokenClient, TokenError};
use crate::attach::oauth1::{Form, Signed, Stamp, TokenPair};
use crate::base::secret::Secret;
use crate::provider::{OAuth1, Registration};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, HeaderValue};
use http::{Request, Response};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use url::Url;

/// Longer tokens are no tokens: no request head would take them.
const TOKEN_BYTES_MAX: usize = 4 * 1024;

/// A token and the secret that signs with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub token: Secret,
    pub secret: Secret,
}

impl TokenClient {
    /// §2.1: temporary credentials, which the end user is then asked to allow.
    ///
    /// # Errors
    /// When the provider gives none, or does not say that it took the callback: an answer could then be led to another's browser.
    pub async fn temporary_credentials(&self, reg: &Registration, callback: &str, values: Values<'_>) -> Result<Pair, TokenError> {
        let oauth1 = spoken(reg)?;
        let url = oauth1.request_token_url.as_ref().ok_or_else(|| TokenError::cannot("the provider has no `request_token_url`"))?;
        let url = Named { reg, values, standard: &[], redirect_uri: None }.url(url).ok_or_else(lacking)?;
        let (status, members) = self.signed_post(reg, &url, None, &[("oauth_callback", callback)]).await?;
        if oauth1.confirms_callback && members.get("oauth_callback_confirmed").is_none_or(|said| !said.eq_ignore_ascii_case("true")) {
            return Err(TokenError::unusable(status, "no oauth_callback_confirmed", None));
        }
        pair(status, &members)
    }

    /// §2.2: where the browser goes with them. Of `params` and the registration's own none can take the place of `oauth_token`.
    ///
    /// # Errors
    /// When the provider has no authorization endpoint.
    pub async fn oauth1_authorize_url(
        &self,
        reg: &Registration,
        temporary: &Pair,
        scopes: &[String],
        params: &[(String, String)],
        values: Values<'_>,
    ) -> Result<Url, TokenError> {
        let mut standard = Pairs::new();
        put(&mut standard, "oauth_token", temporary.token.expose());
        if !scopes.is_empty() {
            put(&mut standard, "scope", &scopes.join(&reg.scope_separator));
        }
        for (name, value) in params.iter().filter(|(name, _)| !is_definitions(reg, name)) {
            put(&mut standard, name, value);
        }
        for (name, value) in &reg.authorize_params {
            put(&mut standard, name, value);
        }
        // The definition's own parameters too, those with places among them.
        let call = Call { reg, shape: &reg.dialect.calls.authorize, values, redirect_uri: None };
        let mut url = match call.own_url(&standard)? {
            Some(url) => url,
            None => {
                let endpoint = self.endpoint(reg, Endpoint::Authorization, values).await?;
                endpoint.ok_or_else(|| TokenError::cannot("the provider has no authorization endpoint"))?
            }
        };
        url.query_pairs_mut().extend_pairs(call.pairs(&standard));
        Ok(url)
    }

    /// §2.3: the token. The temporary credentials are spent then, whatever comes.
    ///
    /// # Errors
    /// When there is no token.
    pub async fn oauth1_token(
        &self,
        reg: &Registration,
        temporary: &Pair,
        verifier: &Secret,
        values: Values<'_>,
    ) -> Result<Grant, TokenError> {
        let url = self.token_endpoint(reg, values).await?;
        let (status, members) = self.signed_post(reg, &url, Some(temporary), &[("oauth_verifier", verifier.expose())]).await?;
        let pair = pair(status, &members)?;
        let reply = members.into_iter().map(|(name, value)| (name, Value::from(value))).collect::<Map<_, _>>();
        let (learnt, lacking) = captured(reg, &Value::Object(reply));
        Ok(Grant {
            access_token: pair.token,
            token_type: "OAuth1".into(),
            key: Some(pair.secret),
            learnt: learnt.into_iter().map(|(name, value)| (name, value.into())).collect(),
            lacking: lacking.map(Into::into),
            ..Grant::default()
        })
    }

    /// A POST without a body, signed in its header.
    async fn signed_post(
        &self,
        reg: &Registration,
        url: &Url,
        token: Option<&Pair>,
        more: &[(&str, &str)],
    ) -> Result<(u16, BTreeMap<String, String>), TokenError> {
        let oauth1 = spoken(reg)?;
        allowed(url)?;
        let unusable = || TokenError::cannot("the endpoint's URL cannot be used");
        let host = url.host_str().ok_or_else(unusable)?;
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let signed = Signed {
            method: "POST",
            tls: url.scheme() == "https",
            // What `allowed` let pass is either.
            private: true,
            host: &host,
            path: url.path(),
            query: url.query().unwrap_or_default(),
            form: Form::None,
        };
        let token = token.map(|pair| TokenPair { token: pair.token.expose(), secret: pair.secret.expose() });
        let authorization = oauth1.consumer.authorization(&signed, token, more, &Stamp::at(self.clock.now()));
        let authorization = authorization.map_err(|_| TokenError::cannot("the client's key does not sign"))?;
        let request = Request::post(url.as_str())
            .header(AUTHORIZATION, authorization)
            .header(ACCEPT, HeaderValue::from_static("*/*"))
            .header(CONTENT_LENGTH, HeaderValue::from_static("0"))
            .body(Bytes::new())
            .map_err(|_| unusable())?;
        let response = self.send(reg, request).await?;
        self.members(&response)
    }

    /// The members of a form-encoded success.
    fn members(&self, response: &Response<Bytes>) -> Result<(u16, BTreeMap<String, String>), TokenError> {
        let (status, retry_after) = (response.status().as_u16(), self.retry_after(response.headers()));
        let unusable = |why| Err(TokenError::unusable(status, why, retry_after));
        if !response.status().is_success() {
            return unusable("a refusal: the client's key and secret, this machine's clock, or the callback is not to its liking");
        }
        let Ok(text) = std::str::from_utf8(response.body()) else { return unusable("bytes that are not text") };
        let mut members = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text.trim().as_bytes()) {
            if members.insert(name.into_owned(), value.into_owned()).is_some() {
                return unusable("a member twice");
            }
        }
        Ok((status, members))
    }
}

fn spoken(reg: &Registration) -> Result<&OAuth1, TokenError> {
    reg.oauth1.as_ref().ok_or_else(|| TokenError::cannot("the provider does not speak OAuth 1.0a"))
}

/// Both must be there; a secret may be empty (it signs as it is), a token may not.
fn pair(status: u16, members: &BTreeMap<String, String>) -> Result<Pair, TokenError> {
    let fits = |text: &&String| text.len() <= TOKEN_BYTES_MAX && !text.chars().any(char::is_control);
    let token = members.get("oauth_token").filter(|token| !token.is_empty()).filter(fits);
    let secret = members.get("oauth_token_secret").filter(fits);
    match (token, secret) {
        (Some(token), Some(secret)) => Ok(Pair { token: Secret::new(token.as_str()), secret: Secret::new(secret.as_str()) }),
        _ => Err(TokenError::unusable(status, "no token and secret", None)),
    }
}
