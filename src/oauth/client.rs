//! The client itself: a registration becomes requests, answers become grants.

use super::discovery::{self, Endpoint, MetadataCache};
use super::error::{TokenError, Verdict, known_code};
use super::form::put_resources;
use super::id_token::{self, KeyCache};
use super::reply::{self, Reply};
use super::wire::Extra;
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::provider::{ClientAuth, Lifetime, Registration};
use crate::upstream::{Fetch, FetchError};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use oauth2::basic::{BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType};
use oauth2::{
    AccessToken, AsyncHttpClient, AuthType, AuthorizationCode, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest,
    HttpResponse, PkceCodeVerifier, RefreshToken, RequestTokenError, RevocationUrl, StandardRevocableToken, StandardTokenResponse,
    TokenResponse, TokenUrl,
};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// The life of a token whose answer and definition name none: short enough to be refreshed before most providers' own end.
const EXPIRES_IN_UNTOLD: Duration = Duration::from_secs(3600);

/// The longest `Retry-After` that is believed; a longer one would lock an end user out for a provider's typo.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What a token endpoint granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub access_token: Secret,
    /// `None`: the old one stays in force (RFC 6749 §6).
    pub refresh_token: Option<Secret>,
    pub token_type: Box<str>,
    /// `None`: it does not expire.
    pub expires_in: Option<Duration>,
    /// `None`: as asked (RFC 6749 §5.1).
    pub scopes: Option<Vec<String>>,
    /// The `sub` of a verified id token, where one was asked for.
    pub subject: Option<Box<str>>,
}

/// How a revocation went that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    Yes,
    /// The provider has no revocation endpoint, or does not revoke this kind of token.
    Unsupported,
}

/// Calls the endpoints of authorization servers; clones share their connections' configuration and what was discovered.
#[derive(Debug, Clone)]
pub struct TokenClient {
    pub(super) fetch: Fetch,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metadata: MetadataCache,
    pub(super) keys: KeyCache,
}

pub(super) type Token = StandardTokenResponse<Extra, BasicTokenType>;
type Client<Revocation = EndpointNotSet, Endpoint = EndpointNotSet> = oauth2::Client<
    BasicErrorResponse,
    Token,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    Revocation,
    Endpoint,
>;
type Ready = Client<EndpointNotSet, EndpointSet>;
type Outcome = Result<Token, RequestTokenError<TokenError, BasicErrorResponse>>;
/// Parameters beside those that the crate knows.
type Extras = Vec<(String, String)>;

impl TokenClient {
    pub fn new(fetch: Fetch, clock: Arc<dyn Clock>) -> Self {
        let (metadata, keys) = (discovery::cache(clock.clone()), id_token::cache(clock.clone()));
        TokenClient { fetch, clock, metadata, keys }
    }

    /// RFC 6749 §6. No scope is sent: the grant stays as wide as it was.
    ///
    /// # Errors
    /// When there is no new token; the verdict says why.
    pub async fn refresh(&self, reg: &Registration, refresh_token: &Secret) -> Result<Grant, TokenError> {
        let (client, extras) = self.ready(reg).await?;
        let token = RefreshToken::new(refresh_token.expose().to_owned());
        let request = client.exchange_refresh_token(&token);
        let request = extras.into_iter().fold(request, |request, (name, value)| request.add_extra_param(name, value));
        let call = TokenCall { client: self, reg };
        token_of(request.request_async(&call).await).map(|token| granted(reg, &token))
    }

    /// RFC 6749 §4.1.3. The redirect URI is the one of the authorization request, byte for byte.
    ///
    /// # Errors
    /// When there is no token, or a nonce was sent and the id token does not prove itself. The code is spent then: it is never sent again.
    pub async fn exchange_code(
        &self,
        reg: &Registration,
        code: &Secret,
        redirect_uri: &str,
        verifier: Option<&Secret>,
        nonce: Option<&Secret>,
    ) -> Result<Grant, TokenError> {
        let (client, extras) = self.ready(reg).await?;
        // As a parameter of our own, for the crate's type takes URLs only and some providers' are names (Q12).
        let mut request =
            client.exchange_code(AuthorizationCode::new(code.expose().to_owned())).add_extra_param("redirect_uri", redirect_uri.to_owned());
        if let Some(verifier) = verifier {
            request = request.set_pkce_verifier(PkceCodeVerifier::new(verifier.expose().to_owned()));
        }
        let request = extras.into_iter().fold(request, |request, (name, value)| request.add_extra_param(name, value));
        let call = TokenCall { client: self, reg };
        let token = token_of(request.request_async(&call).await)?;
        let mut grant = granted(reg, &token);
        if let Some(nonce) = nonce {
            let id_token = token.extra_fields().id_token.as_ref().map(|token| &*token.0);
            grant.subject = Some(self.verify_id_token(reg, id_token, nonce, grant.access_token.expose()).await?);
        }
        Ok(grant)
    }

    /// RFC 6749 §4.4: a token of the app's own. A refresh token in the answer is dropped: the next token is asked for anew.
    ///
    /// # Errors
    /// When there is no token.
    pub async fn client_credentials(&self, reg: &Registration) -> Result<Grant, TokenError> {
        let (client, extras) = self.ready(reg).await?;
        let mut request = client.exchange_client_credentials();
        if !reg.scopes.is_empty() {
            request = request.add_extra_param("scope", reg.scopes.join(&*reg.scope_separator));
        }
        let request = extras.into_iter().fold(request, |request, (name, value)| request.add_extra_param(name, value));
        let call = TokenCall { client: self, reg };
        let token = token_of(request.request_async(&call).await)?;
        Ok(Grant { refresh_token: None, ..granted(reg, &token) })
    }

    /// RFC 7009 §2.1. `hint` is `refresh_token` or `access_token`; the caller revokes the refresh token first.
    ///
    /// # Errors
    /// When the provider did not take the token: deleting our own copy goes on all the same (P53).
    pub async fn revoke(&self, reg: &Registration, token: &Secret, hint: &str) -> Result<Revoked, TokenError> {
        let Some(url) = self.endpoint(reg, Endpoint::Revocation).await? else { return Ok(Revoked::Unsupported) };
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
        let client = proving(reg).set_revocation_url(RevocationUrl::from_url(stand_in));
        let request = client.revoke_token(token).map_err(|_| TokenError::cannot("the revocation URL is not https"))?;
        let request = self.proof(reg, &url)?.into_iter().fold(request, |request, (name, value)| request.add_extra_param(name, value));
        let call = RevokeCall { client: self, reg, url: &url };
        let outcome: Result<(), RequestTokenError<RevokeFault, BasicRevocationErrorResponse>> = request.request_async(&call).await;
        match outcome {
            Ok(()) => Ok(Revoked::Yes),
            Err(RequestTokenError::Request(RevokeFault::Unsupported)) => Ok(Revoked::Unsupported),
            Err(RequestTokenError::Request(RevokeFault::Failed(error))) => Err(error),
            Err(_) => Err(TokenError::cannot("the revocation request cannot be made")),
        }
    }

    /// The crate's client for the token endpoint, and what goes on each of its requests besides.
    async fn ready(&self, reg: &Registration) -> Result<(Ready, Extras), TokenError> {
        let url = self.token_endpoint(reg).await?;
        let mut extras = self.proof(reg, &url)?;
        extras.extend(reg.token_params.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        put_resources(&mut extras, reg);
        Ok((proving(reg).set_token_uri(TokenUrl::from_url(url)), extras))
    }

    /// The client's assertion, where that is how it proves itself; the crate knows the other ways.
    fn proof(&self, reg: &Registration, url: &Url) -> Result<Extras, TokenError> {
        match reg.client_auth {
            ClientAuth::PrivateKeyJwt => Ok(self.client_assertion(reg, url)?.map(|(name, value)| (name.to_owned(), value)).to_vec()),
            ClientAuth::Basic | ClientAuth::BasicRaw | ClientAuth::Body | ClientAuth::None | ClientAuth::SecretJwt | ClientAuth::Mtls => {
                Ok(Extras::new())
            }
        }
    }

    /// The injected HTTP client: what comes back to the crate is a grant it can parse, or a [`TokenError`].
    async fn call(&self, reg: &Registration, http: HttpRequest) -> Result<HttpResponse, TokenError> {
        let response = self.fetch.send(http.map(Bytes::from)).await.map_err(unanswered)?;
        let status = response.status().as_u16();
        let retry_after = self.retry_after(response.headers());
        match reply::read(status, response.body(), reg) {
            Reply::Granted(reply) => Ok(json_ok(reply.to_string())),
            Reply::Refused(code) => Err(TokenError::refused(status, code, retry_after)),
            Reply::Unusable(why) => Err(TokenError::unusable(status, why, retry_after)),
        }
    }

    async fn call_revoke(&self, reg: &Registration, url: &Url, mut http: HttpRequest) -> Result<HttpResponse, RevokeFault> {
        let uri = url.as_str().parse().map_err(|_| RevokeFault::Failed(TokenError::cannot("the revocation URL cannot be used")))?;
        *http.uri_mut() = uri;
        let response = self.fetch.send(http.map(Bytes::from)).await.map_err(|error| RevokeFault::Failed(unanswered(error)))?;
        let status = response.status().as_u16();
        // RFC 7009 §2.2: any 200 is a success, also for a token that the provider does not know; its body says nothing.
        if response.status().is_success() {
            return Ok(json_ok("{}".to_owned()));
        }
        let retry_after = self.retry_after(response.headers());
        match reply::read(status, response.body(), reg) {
            Reply::Refused(Some("unsupported_token_type")) => Err(RevokeFault::Unsupported),
            // A grant that is dead already is what the caller wanted.
            Reply::Refused(Some("invalid_grant" | "token_revoked")) => Ok(json_ok("{}".to_owned())),
            _ if status == 400 && says_invalid_token(response.body()) => Ok(json_ok("{}".to_owned())),
            Reply::Refused(code) => Err(RevokeFault::Failed(TokenError::refused(status, code, retry_after))),
            Reply::Granted(_) => Err(RevokeFault::Failed(TokenError::unusable(status, "an odd body", retry_after))),
            Reply::Unusable(why) => Err(RevokeFault::Failed(TokenError::unusable(status, why, retry_after))),
        }
    }

    /// Seconds or an HTTP date (RFC 9110 §10.2.3).
    pub(super) fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let wait = match text.parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                let at = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
                at.saturating_sub(Duration::from_millis(u64::try_from(self.clock.now().0).unwrap_or(0)))
            }
        };
        Some(wait.min(RETRY_AFTER_MAX))
    }
}

/// [`TokenClient::call`] as the crate's injected client. A type of its own, for the future of a closure here cannot be told to be `Send`.
struct TokenCall<'a> {
    client: &'a TokenClient,
    reg: &'a Registration,
}

impl<'c> AsyncHttpClient<'c> for TokenCall<'_> {
    type Error = TokenError;
    type Future = BoxFuture<'c, Result<HttpResponse, TokenError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        self.client.call(self.reg, request).boxed()
    }
}

struct RevokeCall<'a> {
    client: &'a TokenClient,
    reg: &'a Registration,
    url: &'a Url,
}

impl<'c> AsyncHttpClient<'c> for RevokeCall<'_> {
    type Error = RevokeFault;
    type Future = BoxFuture<'c, Result<HttpResponse, RevokeFault>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        self.client.call_revoke(self.reg, self.url, request).boxed()
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

pub(super) fn unanswered(error: FetchError) -> TokenError {
    let verdict = Verdict::Transient { retry_after: None };
    TokenError { verdict, summary: format!("the token endpoint gave no answer: {}", error.detail), sent: error.sent, answered: false }
}

/// Google says `invalid_token` for a token that is gone already, which is what a revocation is for.
fn says_invalid_token(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|body| body["error"] == json!("invalid_token"))
}

fn json_ok(body: String) -> HttpResponse {
    let mut response = Response::new(body.into_bytes());
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A client that proves itself as its registration says.
fn proving(reg: &Registration) -> Client {
    let client = Client::new(ClientId::new(reg.client_id.to_string()));
    let secret = || reg.client_secret.as_ref().map(|secret| secret.expose().to_owned());
    match reg.client_auth {
        // Without a secret the header holds an empty password (Q07).
        ClientAuth::Basic | ClientAuth::BasicRaw => {
            client.set_auth_type(AuthType::BasicAuth).set_client_secret(ClientSecret::new(secret().unwrap_or_default()))
        }
        ClientAuth::Body => {
            let client = client.set_auth_type(AuthType::RequestBody);
            match secret() {
                Some(secret) => client.set_client_secret(ClientSecret::new(secret)),
                None => client,
            }
        }
        ClientAuth::None | ClientAuth::PrivateKeyJwt | ClientAuth::SecretJwt | ClientAuth::Mtls => {
            client.set_auth_type(AuthType::RequestBody)
        }
    }
}

fn token_of(outcome: Outcome) -> Result<Token, TokenError> {
    match outcome {
        Ok(token) => Ok(token),
        Err(RequestTokenError::Request(error)) => Err(error),
        Err(RequestTokenError::ServerResponse(error)) => Err(TokenError::refused(400, known_code(error.error().as_ref()), None)),
        // The payload of these is dropped unread: a parse error holds the raw body.
        Err(RequestTokenError::Parse(..) | RequestTokenError::Other(_)) => {
            Err(TokenError::unusable(200, "a reply that cannot be read", None))
        }
    }
}

pub(super) fn granted(reg: &Registration, reply: &Token) -> Grant {
    let untold = || match reg.default_expires_in {
        Some(Lifetime::Never) => None,
        Some(Lifetime::For(life)) => Some(life),
        None => Some(EXPIRES_IN_UNTOLD),
    };
    let token_type = match reply.token_type().as_ref() {
        "bearer" => "Bearer",
        other => other,
    };
    Grant {
        access_token: Secret::new(reply.access_token().secret().clone()),
        refresh_token: reply.refresh_token().map(|token| Secret::new(token.secret().clone())),
        token_type: token_type.into(),
        expires_in: reply.expires_in().map_or_else(untold, Some),
        scopes: reply.scopes().map(|scopes| scopes.iter().map(|scope| scope.to_string()).collect()),
        subject: None,
    }
}
