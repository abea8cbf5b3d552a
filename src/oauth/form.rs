//! A POST with the client's proof, for the requests that the `oauth2` crate does not have: pushed requests, the device grant, minted tokens.

use super::error::TokenError;
use super::refusal::Refusal;
use super::reply::{self, Reply};
use super::shape::Call;
use super::values::Values;
use super::{Grant, TokenClient, client};
use crate::base::ids::random_token;
use crate::base::secret::Secret;
use crate::provider::{CallShape, ClientAuth, Registration};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Response;
use http::header::HeaderValue;
use serde_json::json;
use std::time::Duration;
use url::Url;

/// How long a client's assertion is good for; each request makes its own.
const ASSERTION_TTL: Duration = Duration::from_secs(60);

/// RFC 7523 §2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Form fields in order; a name may come more than once (RFC 8707 §2).
pub(super) type Pairs = Vec<(String, String)>;

impl TokenClient {
    /// Sends a call with the client's proof to an endpoint and gives the answer as it came.
    pub(super) async fn post(&self, call: Call<'_>, url: &Url, mut pairs: Pairs) -> Result<Response<Bytes>, TokenError> {
        let (reg, auth) = (call.reg, call.client_auth());
        let mut authorization = None;
        match auth {
            ClientAuth::Basic | ClientAuth::BasicRaw => authorization = Some(basic(reg, auth)?),
            ClientAuth::Body => {
                put(&mut pairs, "client_id", &reg.client_id);
                if let Some(secret) = &reg.client_secret {
                    put(&mut pairs, "client_secret", secret.expose());
                }
            }
            ClientAuth::None | ClientAuth::Mtls => put(&mut pairs, "client_id", &reg.client_id),
            ClientAuth::SecretJwt => {
                put(&mut pairs, "client_id", &reg.client_id);
                put(&mut pairs, "client_secret", &self.own_secret(reg)?);
            }
            ClientAuth::PrivateKeyJwt => {
                put(&mut pairs, "client_id", &reg.client_id);
                for (name, value) in self.client_assertion(reg, url)? {
                    put(&mut pairs, name, &value);
                }
            }
        }
        self.send(reg, call.request(url, &pairs, authorization)?).await
    }

    /// A grant of the token endpoint for these fields, in the standard shape, the registration's own parameters beside them.
    pub(super) async fn grant_for(&self, reg: &Registration, mut pairs: Pairs) -> Result<Grant, TokenError> {
        for (name, value) in &reg.token_params {
            put(&mut pairs, name, value);
        }
        let shape = CallShape::default();
        let call = Call { reg, shape: &shape, values: Values::default(), redirect_uri: None };
        self.grant_by(call, pairs).await.map_err(|(_, error)| error)
    }

    /// A grant by a call of this shape, or the error code where the provider gave one that we know.
    pub(super) async fn grant_by(&self, call: Call<'_>, pairs: Pairs) -> Result<Grant, (Option<&'static str>, TokenError)> {
        let response = self.answer_to(call, pairs).await.map_err(|error| (None, error))?;
        self.grant_in(call, &response)
    }

    /// What the token endpoint answered to these fields.
    pub(super) async fn answer_to(&self, call: Call<'_>, pairs: Pairs) -> Result<Response<Bytes>, TokenError> {
        let url = match call.own_url(&pairs)? {
            Some(url) => url,
            None => self.token_endpoint(call.reg, call.values).await?,
        };
        self.post(call, &url, pairs).await
    }

    /// The grant that an answer holds.
    pub(super) fn grant_in(&self, call: Call<'_>, response: &Response<Bytes>) -> Result<Grant, (Option<&'static str>, TokenError)> {
        let (status, retry_after) = (response.status().as_u16(), self.retry_after(response.headers()));
        match reply::read(status, response.body(), call.reg, self.clock.now()) {
            Reply::Granted(value) => match serde_json::from_value(value) {
                Ok(token) => client::granted(call.reg, &token).and_then(|grant| self.bound(call.reg, grant)).map_err(|error| (None, error)),
                Err(_) => Err((None, TokenError::unusable(status, "a reply that cannot be read", None))),
            },
            Reply::Refused(refusal) => {
                let Refusal { code, .. } = refusal;
                Err((code, TokenError::refused(status, refusal, retry_after)))
            }
            Reply::Unusable(why) => Err((None, TokenError::unusable(status, why, retry_after))),
        }
    }

    /// The fields of RFC 7523 §2.2, with a `jti` of their own. The audience is the issuer where it is known, as the update of the RFC asks
    /// (draft-ietf-oauth-rfc7523bis), for an endpoint's URL could be a stranger's; else the endpoint that the request goes to.
    pub(super) fn client_assertion(&self, reg: &Registration, url: &Url) -> Result<[(&'static str, String); 2], TokenError> {
        let key = reg.client_key.as_ref().ok_or_else(|| TokenError::cannot("the registration has no client_key"))?;
        let now = self.now_s();
        let claims = json!({
            "iss": *reg.client_id,
            "sub": *reg.client_id,
            "aud": reg.issuer.as_deref().unwrap_or(url.as_str()),
            "jti": random_token(),
            "iat": now,
            "exp": now.saturating_add(ASSERTION_TTL.as_secs()),
        });
        let signed = key.sign(&claims).ok_or_else(|| TokenError::cannot("the client_key cannot sign"))?;
        Ok([("client_assertion_type", ASSERTION_TYPE.to_owned()), ("client_assertion", signed.expose().to_owned())])
    }

    /// Seconds since 1970, as JWTs count.
    pub(super) fn now_s(&self) -> u64 {
        u64::try_from(self.clock.now().0 / 1000).unwrap_or_default()
    }
}

/// Adds a field unless one of that name is there.
pub(super) fn put(pairs: &mut Pairs, name: &str, value: &str) {
    // An assertion for a grant needs no client (RFC 7521 §4.1): one without an id names none.
    let nameless = name == "client_id" && value.is_empty();
    if !nameless && !pairs.iter().any(|(other, _)| other == name) {
        pairs.push((name.to_owned(), value.to_owned()));
    }
}

/// Every resource under one name (RFC 8707 §2).
pub(super) fn put_resources(pairs: &mut Pairs, reg: &Registration) {
    pairs.extend(reg.resource.iter().map(|resource| ("resource".to_owned(), resource.to_string())));
}

/// Id and secret form-encoded first (RFC 6749 §2.3.1), or as they are where the provider reads them so (Q06).
pub(super) fn basic(reg: &Registration, auth: ClientAuth) -> Result<HeaderValue, TokenError> {
    let encode = |text: &str| match auth {
        ClientAuth::BasicRaw => text.to_owned(),
        _ => form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>(),
    };
    let secret = encode(reg.client_secret.as_ref().map_or("", Secret::expose));
    let value = format!("Basic {}", STANDARD.encode(format!("{}:{secret}", encode(&reg.client_id))));
    let mut value = HeaderValue::from_str(&value).map_err(|_| TokenError::cannot("the client's proof cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}
