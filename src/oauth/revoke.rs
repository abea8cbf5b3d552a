//! Revocation (RFC 7009), and the shapes that other providers give it (Q66). A success whose body says an error is none.

use super::client::{Client, json_ok, proving};
use super::discovery::{Endpoint, allowed};
use super::error::TokenError;
use super::form::{Pairs, put};
use super::refusal::{self, Meaning, Refusal};
use super::reply::{self, Reply};
use super::shape::Call;
use super::values::Values;
use super::{Revoked, TokenClient};
use crate::base::secret::Secret;
use crate::provider::Registration;
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http::Request;
use oauth2::basic::BasicRevocationErrorResponse;
use oauth2::{
    AccessToken, AsyncHttpClient, EndpointNotSet, HttpRequest, HttpResponse, RefreshToken, RequestTokenError, RevocationUrl,
    StandardRevocableToken,
};
use serde_json::{Value, json};
use url::Url;

impl TokenClient {
    /// RFC 7009 §2.1. `hint` is `refresh_token` or `access_token`; the caller revokes the refresh token first.
    ///
    /// # Errors
    /// When the provider did not take the token: deleting our own copy goes on all the same (P53).
    pub async fn revoke(&self, reg: &Registration, token: &Secret, hint: &str, values: Values<'_>) -> Result<Revoked, TokenError> {
        let redirect_uri = self.redirect_uri(reg);
        let call = Call { reg, shape: &reg.dialect.calls.revoke, values, redirect_uri: redirect_uri.as_deref() };
        let mut standard = Pairs::new();
        put(&mut standard, "token", token.expose());
        let url = match call.own_url(&standard)? {
            Some(url) => url,
            None => match self.endpoint(reg, Endpoint::Revocation, values).await? {
                Some(url) => url,
                None => return Ok(Revoked::Unsupported),
            },
        };
        allowed(&url)?;
        let text = token.expose().to_owned();
        let token = match hint {
            "refresh_token" => StandardRevocableToken::RefreshToken(RefreshToken::new(text)),
            _ => StandardRevocableToken::AccessToken(AccessToken::new(text)),
        };
        // The crate refuses plain http here even to loopback, which `allowed` and the fetch let pass; the call below goes to the real URL.
        let mut stand_in = url.clone();
        if url.scheme() == "http" {
            stand_in = Url::parse("https://localhost/").map_err(|_| TokenError::cannot("the revocation URL cannot be used"))?;
        }
        let client: Client<EndpointNotSet> = proving(reg, call.client_auth());
        let client = client.set_revocation_url(RevocationUrl::from_url(stand_in));
        let request = client.revoke_token(token).map_err(|_| TokenError::cannot("the revocation URL is not https"))?;
        let proof = self.proof(reg, call.client_auth(), &url)?;
        let request = proof.into_iter().fold(request, |request, (name, value)| request.add_extra_param(name, value));
        let call = RevokeCall { client: self, call, url: &url };
        let outcome: Result<(), RequestTokenError<RevokeFault, BasicRevocationErrorResponse>> = request.request_async(&call).await;
        match outcome {
            Ok(()) => Ok(Revoked::Yes),
            Err(RequestTokenError::Request(RevokeFault::Unsupported)) => Ok(Revoked::Unsupported),
            Err(RequestTokenError::Request(RevokeFault::Failed(error))) => Err(error),
            Err(_) => Err(TokenError::cannot("the revocation request cannot be made")),
        }
    }

    async fn call_revoke(&self, call: Call<'_>, url: &Url, mut http: HttpRequest) -> Result<HttpResponse, RevokeFault> {
        let uri = url.as_str().parse().map_err(|_| RevokeFault::Failed(TokenError::cannot("the revocation URL cannot be used")))?;
        *http.uri_mut() = uri;
        let request: Request<Bytes> = call.reshaped(http).map_err(RevokeFault::Failed)?;
        let response = self.send(call.reg, request).await.map_err(RevokeFault::Failed)?;
        let status = response.status().as_u16();
        // RFC 7009 §2.2: any 200 is a success, also for a token that the provider does not know. Some say their no under 200 all the same.
        let answer = match response.status().is_success() {
            true => match said_no(status, response.body(), call.reg) {
                Some(refusal) => Reply::Refused(refusal),
                None => return Ok(json_ok("{}".to_owned())),
            },
            false => reply::read(status, response.body(), call.reg, self.clock.now()),
        };
        let retry_after = self.retry_after(response.headers());
        match answer {
            Reply::Refused(Refusal { code: Some("unsupported_token_type"), .. }) => Err(RevokeFault::Unsupported),
            // A grant that is dead already is what the caller wanted.
            Reply::Refused(
                Refusal { code: Some("invalid_grant" | "token_revoked"), .. } | Refusal { rule: Some((Meaning::EndsGrant, _)), .. },
            ) => Ok(json_ok("{}".to_owned())),
            _ if matches!(status, 200 | 400) && says_invalid_token(response.body()) => Ok(json_ok("{}".to_owned())),
            Reply::Refused(refusal) => Err(RevokeFault::Failed(TokenError::refused(status, refusal, retry_after))),
            Reply::Granted(_) => Err(RevokeFault::Failed(TokenError::unusable(status, "an odd body", retry_after))),
            Reply::Unusable(why) => Err(RevokeFault::Failed(TokenError::unusable(status, why, retry_after))),
        }
    }
}

struct RevokeCall<'a> {
    client: &'a TokenClient,
    call: Call<'a>,
    url: &'a Url,
}

impl<'c> AsyncHttpClient<'c> for RevokeCall<'_> {
    type Error = RevokeFault;
    type Future = BoxFuture<'c, Result<HttpResponse, RevokeFault>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        self.client.call_revoke(self.call, self.url, request).boxed()
    }
}

/// The revocation call's two ways not to succeed.
#[derive(Debug, thiserror::Error)]
enum RevokeFault {
    #[error("not supported")]
    Unsupported,
    #[error(transparent)]
    Failed(TokenError),
}

/// The refusal that a success holds: an error code, what the definition's rules know, or `ok: false`.
fn said_no(status: u16, body: &[u8], reg: &Registration) -> Option<Refusal> {
    let whole = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object)?;
    let said = refusal::of(status, &whole, body, reg).or_else(|| refusal::by_rule(status, None, &whole, body, reg));
    said.or_else(|| (whole.get("ok") == Some(&Value::Bool(false))).then(Refusal::default))
}

/// Google says `invalid_token` for a token that is gone already, which is what a revocation is for.
fn says_invalid_token(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body["error"] == json!("invalid_token"))
}
