//! The client itself: a registration becomes requests, answers become grants.

use super::discovery::{self, MetadataCache};
use super::error::{Health, TokenError, Verdict, known_code};
use super::form::{Pairs, put, put_resources};
use super::id_token::{self, KeyCache};
use super::proofs::{Held, ServerNonces};
use super::reply::{self, Reply};
use super::shape::Call;
use super::values::Values;
use super::wire::Extra;
use crate::base::clock::{Clock, UnixMillis};
use crate::base::retry_after::retry_after;
use crate::base::secret::Secret;
use crate::provider::{ClientAuth, Lifetime, Registration, RenewBy};
use crate::upstream::{Fetch, FetchError};
use futures_util::future::{BoxFuture, FutureExt};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use oauth2::basic::{BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType};
use oauth2::{
    AsyncHttpClient, AuthType, AuthorizationCode, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse,
    PkceCodeVerifier, RefreshToken, RequestTokenError, StandardRevocableToken, StandardTokenResponse, TokenResponse, TokenUrl,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use url::Url;

/// The life of a token whose answer and definition name none: short enough to be refreshed before most providers' own end.
const EXPIRES_IN_UNTOLD: Duration = Duration::from_secs(3600);

/// The longest `Retry-After` that is believed; a longer one would lock an end user out for a provider's typo.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What a token endpoint granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// The refresh token's own life, where the definition says where it stands.
    pub refresh_expires_in: Option<Duration>,
    /// What the reply leaves in the connection's metadata, checked.
    pub learnt: BTreeMap<String, Value>,
    /// A value without which there is no connection, by its name in the definition, and the reply did not hold it.
    pub lacking: Option<Box<str>>,
    /// What signs with the access token, in the form that its connection keeps: OAuth 1.0a's token secret, or the key that a token is bound to
    /// (`dpop`).
    pub key: Option<Secret>,
    /// Further grants of the same reply, by the account label that follows the first's.
    pub also: Vec<(Box<str>, Grant)>,
}

/// A code that brought no grant to keep.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct Unexchanged {
    pub error: TokenError,
    /// What the code brought all the same, and is not used: it lives on at the provider unless it is revoked.
    pub dropped: Option<Box<Grant>>,
}

impl From<TokenError> for Unexchanged {
    fn from(error: TokenError) -> Self {
        Unexchanged { error, dropped: None }
    }
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
    /// What browsers see, once it is known: redirect URIs stand below it.
    pub(super) public_url: Arc<OnceLock<Url>>,
    pub(super) nonces: ServerNonces,
    /// The key of the connection that the calls are for.
    pub(super) held: Option<Held>,
}

pub(super) type Token = StandardTokenResponse<Extra, BasicTokenType>;
pub(super) type Client<Revocation = EndpointNotSet, Endpoint = EndpointNotSet> = oauth2::Client<
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

impl TokenClient {
    pub fn new(fetch: Fetch, clock: Arc<dyn Clock>) -> Self {
        let (metadata, keys) = (discovery::cache(clock.clone()), id_token::cache(clock.clone()));
        TokenClient { fetch, clock, metadata, keys, public_url: Arc::default(), nonces: ServerNonces::default(), held: None }
    }

    /// Tells this client, and its clones, what browsers see: some refreshes want the redirect URI too (Q14).
    pub fn set_public_url(&self, url: &Url) {
        // Told once a process; a second word would be the same.
        let _ = self.public_url.set(url.clone());
    }

    /// What stands in `redirect_uri` of this registration's requests.
    pub fn redirect_uri(&self, reg: &Registration) -> Option<String> {
        match &reg.dialect.redirect_uri {
            Some(name) => Some(name.to_string()),
            None => self.public_url.get().map(|public_url| redirect_uri(public_url, &reg.id)),
        }
    }

    /// RFC 6749 §6. No scope is sent: the grant stays as wide as it was.
    ///
    /// # Errors
    /// When there is no new token; the verdict says why.
    pub async fn refresh(&self, reg: &Registration, refresh_token: &Secret, values: Values<'_>) -> Result<Grant, TokenError> {
        let redirect_uri = self.redirect_uri(reg);
        let call = Call { reg, shape: &reg.dialect.calls.refresh, values, redirect_uri: redirect_uri.as_deref() };
        let token = RefreshToken::new(refresh_token.expose().to_owned());
        let mut standard = Pairs::new();
        put(&mut standard, "refresh_token", refresh_token.expose());
        let (client, extras) = self.ready(call, &standard).await?;
        let request = client.exchange_refresh_token(&token);
        let request = extras.into_iter().fold(request, |request, (name, value)| request.add_extra_param(name, value));
        let call = TokenCall { client: self, call };
        token_of(request.request_async(&call).await)
            .and_then(|token| granted(reg, &token))
            .map(|grant| renewable(reg, self.with_key(grant)))
    }

    /// RFC 6749 §4.1.3. The redirect URI is the one of the authorization request, byte for byte. Where the definition has an `extend` call, the
    /// grant is the longer one.
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
        values: Values<'_>,
    ) -> Result<Grant, Unexchanged> {
        let call = Call { reg, shape: &reg.dialect.calls.code, values, redirect_uri: Some(redirect_uri) };
        let mut standard = Pairs::new();
        put(&mut standard, "code", code.expose());
        let (client, extras) = self.ready(call, &standard).await?;
        // As a parameter of our own, for the crate's type takes URLs only and some providers' are names (Q12).
        let mut request =
            client.exchange_code(AuthorizationCode::new(code.expose().to_owned())).add_extra_param("redirect_uri", redirect_uri.to_owned());
        if let Some(verifier) = verifier {
            request = request.set_pkce_verifier(PkceCodeVerifier::new(verifier.expose().to_owned()));
        }
        let request = extras.into_iter().fold(request, |request, (name, value)| request.add_extra_param(name, value));
        let call = TokenCall { client: self, call };
        let token = token_of(request.request_async(&call).await)?;
        let mut grant = match self.bound(reg, granted(reg, &token)?) {
            Ok(grant) => grant,
            Err(error) => {
                self.discard(reg, &token, values).await;
                return Err(error.into());
            }
        };
        if let Some(nonce) = nonce {
            let id_token = token.extra_fields().id_token.as_ref().map(|token| &*token.0);
            match self.verify_id_token(reg, id_token, nonce, grant.access_token.expose()).await {
                Ok(subject) => grant.subject = Some(subject),
                Err(error) => return Err(Unexchanged { error, dropped: Some(Box::new(grant)) }),
            }
        }
        if let Some(shape) = &reg.dialect.calls.extend {
            grant = self.extend(grant, Call { shape, ..call.call }).await?;
        }
        Ok(renewable(reg, grant))
    }

    /// A grant that is not taken is given back, as well as that goes.
    async fn discard(&self, reg: &Registration, token: &Token, values: Values<'_>) {
        let (secret, hint) = match token.refresh_token() {
            Some(token) => (token.secret(), "refresh_token"),
            None => (token.access_token().secret(), "access_token"),
        };
        // A provider that cannot be told has an end user who can: the grant stands on its own pages.
        let _ = self.revoke(reg, &Secret::new(secret.clone()), hint, values).await;
    }

    /// The reply's token for a longer one (Q49). What the second reply leaves out is the first's.
    async fn extend(&self, first: Grant, call: Call<'_>) -> Result<Grant, Unexchanged> {
        let call = Call { values: Values { access_token: Some(&first.access_token), ..call.values }, ..call };
        let longer = match self.grant_by(call, Pairs::new()).await {
            Ok(longer) => longer,
            Err((_, error)) => return Err(Unexchanged { error: TokenError { sent: true, ..error }, dropped: Some(Box::new(first)) }),
        };
        let mut learnt = first.learnt;
        learnt.extend(longer.learnt);
        let lacking = first.lacking.filter(|name| !learnt.contains_key(&**name));
        Ok(Grant {
            refresh_token: longer.refresh_token.or(first.refresh_token),
            scopes: longer.scopes.or(first.scopes),
            subject: first.subject,
            refresh_expires_in: longer.refresh_expires_in.or(first.refresh_expires_in),
            learnt,
            lacking,
            key: first.key,
            also: first.also,
            access_token: longer.access_token,
            token_type: longer.token_type,
            expires_in: longer.expires_in,
        })
    }

    /// RFC 6749 §4.4: a token of the app's own. A refresh token in the answer is dropped: the next token is asked for anew.
    ///
    /// # Errors
    /// When there is no token.
    pub async fn client_credentials(&self, reg: &Registration) -> Result<Grant, TokenError> {
        let redirect_uri = self.redirect_uri(reg);
        let call = Call { reg, shape: &reg.dialect.calls.app, values: Values::default(), redirect_uri: redirect_uri.as_deref() };
        let (client, extras) = self.ready(call, &Pairs::new()).await?;
        let mut request = client.exchange_client_credentials();
        if !reg.scopes.is_empty() {
            request = request.add_extra_param("scope", reg.scopes.join(&*reg.scope_separator));
        }
        let request = extras.into_iter().fold(request, |request, (name, value)| request.add_extra_param(name, value));
        let call = TokenCall { client: self, call };
        let token = token_of(request.request_async(&call).await)?;
        Ok(Grant { refresh_token: None, ..self.bound(reg, granted(reg, &token)?)? })
    }

    /// The crate's client for the call's endpoint, and what goes on its request besides. `standard` is what a place in the URL may name.
    async fn ready(&self, call: Call<'_>, standard: &Pairs) -> Result<(Ready, Pairs), TokenError> {
        let reg = call.reg;
        let url = match call.own_url(standard)? {
            Some(url) => url,
            None => self.token_endpoint(reg, call.values).await?,
        };
        let mut extras = self.proof(reg, call.client_auth(), &url)?;
        extras.extend(reg.token_params.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        put_resources(&mut extras, reg);
        Ok((proving(reg, call.client_auth()).set_token_uri(TokenUrl::from_url(url)), extras))
    }

    /// The client's assertion or self-made secret, where that is how it proves itself; the crate knows the other ways.
    pub(super) fn proof(&self, reg: &Registration, auth: ClientAuth, url: &Url) -> Result<Pairs, TokenError> {
        match auth {
            ClientAuth::PrivateKeyJwt => Ok(self.client_assertion(reg, url)?.map(|(name, value)| (name.to_owned(), value)).to_vec()),
            ClientAuth::SecretJwt => Ok(vec![("client_secret".to_owned(), self.own_secret(reg)?)]),
            ClientAuth::Basic | ClientAuth::BasicRaw | ClientAuth::Body | ClientAuth::None | ClientAuth::Mtls => Ok(Pairs::new()),
        }
    }

    /// The injected HTTP client: what comes back to the crate is a grant it can parse, or a [`TokenError`].
    async fn call(&self, call: Call<'_>, http: HttpRequest) -> Result<HttpResponse, TokenError> {
        let response = self.send(call.reg, call.reshaped(http)?).await?;
        let status = response.status().as_u16();
        let retry_after = self.retry_after(response.headers());
        match reply::read_as(status, response.body(), call.reg, self.clock.now(), call.is_refresh()) {
            Reply::Granted(reply) => Ok(json_ok(reply.to_string())),
            Reply::Refused(refusal) => Err(TokenError::refused(status, refusal, retry_after)),
            Reply::Unusable(why) => Err(TokenError::unusable(status, why, retry_after)),
        }
    }

    /// Seconds or an HTTP date (RFC 9110 §10.2.3).
    pub(super) fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let wait = retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, self.clock.now())?;
        Some(wait.min(RETRY_AFTER_MAX))
    }
}

/// [`TokenClient::call`] as the crate's injected client. A type of its own, for the future of a closure here cannot be told to be `Send`.
struct TokenCall<'a> {
    client: &'a TokenClient,
    call: Call<'a>,
}

impl<'c> AsyncHttpClient<'c> for TokenCall<'_> {
    type Error = TokenError;
    type Future = BoxFuture<'c, Result<HttpResponse, TokenError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        self.client.call(self.call, request).boxed()
    }
}

pub(super) fn unanswered(error: FetchError) -> TokenError {
    let verdict = Verdict::Transient { retry_after: None };
    TokenError {
        verdict,
        summary: format!("the token endpoint gave no answer: {}", error.detail),
        sent: error.sent,
        answered: false,
        health: Health::Out { retry_after: None },
    }
}

pub(super) fn json_ok(body: String) -> HttpResponse {
    let mut response = Response::new(body.into_bytes());
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A client that proves itself in this way.
pub(super) fn proving(reg: &Registration, auth: ClientAuth) -> Client {
    let client = Client::new(ClientId::new(reg.client_id.to_string()));
    let secret = || reg.client_secret.as_ref().map(|secret| secret.expose().to_owned());
    match auth {
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

pub(super) fn granted(reg: &Registration, reply: &Token) -> Result<Grant, TokenError> {
    let untold = || match reg.default_expires_in {
        Some(Lifetime::Never) => None,
        Some(Lifetime::For(life)) => Some(life),
        None => Some(EXPIRES_IN_UNTOLD),
    };
    let token_type = match reply.token_type().as_ref() {
        // The crate gives them in lower case.
        "bearer" => "Bearer",
        "dpop" => "DPoP",
        // What such a token is bound to cannot be shown (Q37); a call with it as a bearer's would be refused at best.
        mac if mac.eq_ignore_ascii_case("mac") => return Err(TokenError::unusable(200, "a token of a kind that cannot be attached", None)),
        other => other,
    };
    let extra = reply.extra_fields();
    let also = extra.also.iter().filter_map(|(account, reply)| {
        let token = serde_json::from_value::<Token>(reply.0.clone()).ok()?;
        Some((account.as_str().into(), granted(reg, &token).ok()?))
    });
    Ok(Grant {
        access_token: Secret::new(reply.access_token().secret().clone()),
        refresh_token: reply.refresh_token().map(|token| Secret::new(token.secret().clone())),
        token_type: token_type.into(),
        expires_in: reply.expires_in().map_or_else(untold, Some),
        scopes: reply.scopes().map(|scopes| scopes.iter().map(|scope| scope.to_string()).collect()),
        subject: None,
        refresh_expires_in: extra.refresh_expires_in.map(Duration::from_secs),
        learnt: extra.learnt.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect(),
        lacking: extra.lacking.as_deref().map(Box::from),
        key: None,
        also: also.collect(),
    })
}

/// Where the access token itself is what renews, it is kept as its own refresh token (Q49).
pub(super) fn renewable(reg: &Registration, grant: Grant) -> Grant {
    if reg.dialect.renewal.by != RenewBy::AccessToken {
        return grant;
    }
    let also = grant.also.into_iter().map(|(account, grant)| (account, renewable(reg, grant))).collect();
    Grant { refresh_token: Some(grant.access_token.clone()), also, ..grant }
}

/// In a connection's metadata: when its refresh token ends by itself.
pub const REFRESH_EXPIRES_AT: &str = "refresh_expires_at";

/// Notes in a connection's metadata what a grant left: its values, and the refresh token's own end. A new refresh token without a told life has
/// none of the old one's.
pub fn note_learnt(metadata: &mut BTreeMap<String, Value>, grant: &Grant, began: UnixMillis) {
    metadata.extend(grant.learnt.clone());
    match grant.refresh_expires_in {
        Some(life) => drop(metadata.insert(REFRESH_EXPIRES_AT.to_owned(), began.plus(life).to_rfc3339().into())),
        None if grant.refresh_token.is_some() => drop(metadata.remove(REFRESH_EXPIRES_AT)),
        None => {}
    }
}

/// The redirect URI of a provider under a public URL.
pub fn redirect_uri(public_url: &Url, provider: &str) -> String {
    format!("{}/oauth/callback/{provider}", public_url.as_str().trim_end_matches('/'))
}
