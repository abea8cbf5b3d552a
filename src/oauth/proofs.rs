//! What a call of an authorization server is proved by besides the client's secret: the connection's key (RFC 9449), the client's certificate
//! (RFC 8705), a secret that the client makes itself.
//!
//! Every call of this room that carries a secret or a token goes out through [`TokenClient::send`]. A nonce that the server wants is the one
//! thing for which a call is sent a second time here: the first was refused unread.

use super::client::unanswered;
use super::error::{Health, TokenError, Verdict};
use super::form::Pairs;
use super::{Grant, TokenClient};
use crate::attach::dpop::{self, DPOP, Proof, ProofKey};
use crate::base::secret::Secret;
use crate::provider::{ClientAuth, Registration};
use crate::upstream::{Fetch, Origin, Reach};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode, Uri};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// How far back a self-made secret says that it was made: clocks differ, and one from the future is refused.
const BACKDATED_S: u64 = 30;

/// Servers whose nonces are kept: they are no more than the config has providers.
const SERVERS_MAX: usize = 1000;

/// The error of a server that wants its nonce in the proof (RFC 9449 §8).
const NONCE_WANTED: &str = "use_dpop_nonce";

/// A connection's key in the hands of a client.
#[derive(Clone)]
pub(super) struct Held {
    stored: Secret,
    key: Arc<ProofKey>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

/// The newest nonce of each authorization server, for each registration.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerNonces(Arc<Mutex<HashMap<String, Arc<str>>>>);

impl ServerNonces {
    fn of(&self, server: &str) -> Option<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    fn learn(&self, server: String, nonce: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SERVERS_MAX && !all.contains_key(&server) {
            all.clear();
        }
        all.insert(server, nonce.into());
    }
}

/// A key for a new connection, where its registration's tokens are bound to keys. In the form that a connection keeps.
pub fn new_key(reg: &Registration) -> Option<Secret> {
    reg.proofs.dpop.then(ProofKey::generate).flatten()
}

impl TokenClient {
    /// The same client, its calls proved by a connection's key where the registration says so, and its grants bound to it. Without a key, for
    /// what was granted or imported before, by a new one: the grant that it brings tells it.
    ///
    /// # Errors
    /// When there is no key that can sign.
    pub fn holding(&self, reg: &Registration, key: Option<&Secret>) -> Result<TokenClient, TokenError> {
        if !reg.proofs.dpop {
            return Ok(self.clone());
        }
        let held = key.cloned().or_else(ProofKey::generate).and_then(|stored| {
            let key = Arc::new(ProofKey::parse(&stored)?);
            Some(Held { stored, key })
        });
        let held = held.ok_or_else(|| TokenError::cannot("the connection's key cannot sign"))?;
        Ok(TokenClient { held: Some(held), ..self.clone() })
    }

    /// `dpop_jkt` of an authorization request: its code is then good for this key alone (RFC 9449 §10).
    pub(super) fn thumbprint(&self) -> Option<&str> {
        self.held.as_ref().map(|held| held.key.thumbprint())
    }

    /// A first grant, or one that was asked for anew, with the key that it is bound to.
    ///
    /// # Errors
    /// When it is not bound as the registration says: to be good for whoever sees it is what `dpop` rules out, so it is discarded (RFC 9449 §5);
    /// and one that is bound though we showed no key is bound to somebody else's.
    pub(super) fn bound(&self, reg: &Registration, grant: Grant) -> Result<Grant, TokenError> {
        let wrong = |why: &str| TokenError {
            verdict: Verdict::Misconfigured,
            summary: why.to_owned(),
            sent: true,
            answered: true,
            health: Health::Unknown,
        };
        match (reg.proofs.dpop, dpop::is_bound(&grant.token_type)) {
            (true, false) => Err(wrong("the provider bound the token to no key (its type is not DPoP), and `dpop: true` takes no other")),
            (false, true) => Err(wrong("the provider's tokens are bound to keys (their type is DPoP): its definition needs `dpop: true`")),
            (true, true) | (false, false) => Ok(self.with_key(grant)),
        }
    }

    /// A refreshed grant, whatever its type: it is kept, for the refresh token before it is spent. One that is not bound as it should be goes on
    /// no call; the attach scheme holds that.
    pub(super) fn with_key(&self, mut grant: Grant) -> Grant {
        if let Some(held) = &self.held {
            grant.key = Some(held.stored.clone());
            grant.also.iter_mut().for_each(|(_, also)| also.key = Some(held.stored.clone()));
        }
        grant
    }

    /// The client with the registration's certificate and trust, for public addresses alone where a connection's values chose the host.
    pub(super) fn fetch_for(&self, reg: &Registration, uri: &Uri) -> Fetch {
        self.fetch.clone().called_as(reg.proofs.identity.clone()).trusting(reg.proofs.trust.as_deref()).within(reach(reg, uri))
    }

    /// Sends a call with the client's certificate and the connection's proof. It is sent once more where the server refused it for want of a
    /// nonce, and then never again.
    pub(super) async fn send(&self, reg: &Registration, request: Request<Bytes>) -> Result<Response<Bytes>, TokenError> {
        let fetch = self.fetch_for(reg, request.uri());
        let Some(held) = &self.held else { return fetch.send(request).await.map_err(unanswered) };
        let server = format!("{} {}", reg.id, server_of(request.uri()));
        let again = request.clone();
        let known = self.nonces.of(&server);
        let response = fetch.send(self.proven(held, request, known.as_deref())?).await.map_err(unanswered)?;
        let Some(nonce) = dpop::nonce_in(response.headers()) else { return Ok(response) };
        self.nonces.learn(server.clone(), nonce);
        if !wants_nonce(&response) {
            return Ok(response);
        }
        let again = self.with_new_assertion(reg, again)?;
        let response = fetch.send(self.proven(held, again, Some(nonce))?).await.map_err(unanswered)?;
        if let Some(nonce) = dpop::nonce_in(response.headers()) {
            self.nonces.learn(server, nonce);
        }
        Ok(response)
    }

    fn proven(&self, held: &Held, mut request: Request<Bytes>, nonce: Option<&str>) -> Result<Request<Bytes>, TokenError> {
        let uri = format!("{}{}", server_of(request.uri()), request.uri().path());
        let proof = Proof { method: request.method().as_str(), uri: &uri, at: self.clock.now(), nonce, token_hash: None };
        let proof = held.key.prove(&proof).ok_or_else(|| TokenError::cannot("the connection's key cannot sign"))?;
        request.headers_mut().insert(DPOP, proof);
        Ok(request)
    }

    /// An assertion's id is good once, also at a server that read it before it missed the nonce (RFC 7523 §3).
    fn with_new_assertion(&self, reg: &Registration, request: Request<Bytes>) -> Result<Request<Bytes>, TokenError> {
        let is_form =
            request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
        if reg.client_auth != ClientAuth::PrivateKeyJwt || !is_form {
            return Ok(request);
        }
        let url = request.uri().to_string().parse().map_err(|_| TokenError::cannot("the endpoint's URL cannot be used"))?;
        let [_, (name, assertion)] = self.client_assertion(reg, &url)?;
        let (head, body) = request.into_parts();
        let mut pairs: Pairs = form_urlencoded::parse(&body).into_owned().collect();
        pairs.iter_mut().filter(|(other, _)| other == name).for_each(|(_, value)| value.clone_from(&assertion));
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        Ok(Request::from_parts(head, body.into()))
    }

    /// The secret that the client makes itself, for one request (Q08).
    pub(super) fn own_secret(&self, reg: &Registration) -> Result<String, TokenError> {
        let (Some(secret), Some(key)) = (&reg.proofs.secret_jwt, &reg.client_key) else {
            return Err(TokenError::cannot("the registration cannot make its client secret: it needs `secret_jwt` and `client_key`"));
        };
        let now = self.now_s();
        let claims = json!({
            "iss": *secret.issuer,
            "sub": *reg.client_id,
            "aud": *secret.audience,
            "iat": now.saturating_sub(BACKDATED_S),
            "exp": now.saturating_add(secret.ttl.as_secs()),
        });
        let signed = key.sign(&claims).ok_or_else(|| TokenError::cannot("the client_key cannot sign"))?;
        Ok(signed.expose().to_owned())
    }
}

/// A name that a value chose may resolve to anything (THREATS row 26); this machine is called only where it is named.
fn reach(reg: &Registration, uri: &Uri) -> Reach {
    let host = uri.host().unwrap_or_default();
    let is_local = || Origin::new(false, host, 80).is_ok_and(|origin| origin.is_loopback());
    match reg.is_chosen(host) {
        false => Reach::Anywhere,
        true if is_local() => Reach::PublicOrLoopback,
        true => Reach::Public,
    }
}

/// Scheme and authority, as they stand in a proof's `htu`.
fn server_of(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}", uri.scheme_str().unwrap_or("https"))
}

/// 400 by RFC 9449 §8; 401 is in use for it too.
fn wants_nonce(response: &Response<Bytes>) -> bool {
    let refused = matches!(response.status(), StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED);
    let says = |body: &Value| body["error"] == NONCE_WANTED;
    let challenged = || {
        let mut challenges = response.headers().get_all(http::header::WWW_AUTHENTICATE).iter();
        challenges.any(|value| value.to_str().is_ok_and(|text| text.contains(NONCE_WANTED)))
    };
    refused && (serde_json::from_slice(response.body()).is_ok_and(|body: Value| says(&body)) || challenged())
}
