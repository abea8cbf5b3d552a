//! The sandbox as a provider of OAuth 1.0a (RFC 5849): temporary credentials, consent, tokens without an end, and the photo API behind signatures.

mod verify;

use crate::base::clock::UnixMillis;
use crate::base::ids::random_token;
use crate::base::secret::Secret;
use crate::sandbox::api::only_get;
use crate::sandbox::authorize::{Asked, send_to};
use crate::sandbox::core::Core;
use crate::sandbox::grants::{Approval, Bearer};
use crate::sandbox::respond::{Answer, Hangup, answer, api_error, json, method_not_allowed, no_store, set};
use crate::sandbox::{form::Form, pages, photos};
use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use verify::{Shown, Verified};

/// How long temporary credentials are good.
const TEMPORARY_LIFE: Duration = Duration::from_secs(600);
/// How far a timestamp may lie off.
const CLOCKS_APART: Duration = Duration::from_secs(300);
/// More than this is forgotten at once: it is a sandbox.
const KEPT_MAX: usize = 20_000;
/// The longest form that is read to check its signature.
const FORM_BYTES_MAX: usize = 1 << 20;

struct Temporary {
    secret: Secret,
    client_id: String,
    callback: String,
    issued_at: UnixMillis,
    /// Who allowed it, and the verifier that says so.
    allowed: Option<(String, String)>,
}

struct Token {
    secret: Secret,
    client_id: String,
    user: String,
}

#[derive(Default)]
pub(super) struct State {
    temporary: HashMap<String, Temporary>,
    tokens: HashMap<String, Token>,
    /// Timestamps and nonces that came (RFC 5849 §3.3).
    nonces: HashSet<(i64, String)>,
}

impl State {
    /// A token and its secret, as if the user had just allowed the client.
    pub(super) fn issue(&mut self, client_id: &str, user: &str) -> (Secret, Secret) {
        if self.tokens.len() >= KEPT_MAX {
            self.tokens.clear();
        }
        let (token, secret) = (format!("o1t_{}", random_token()), Secret::new(random_token()));
        self.tokens.insert(token.clone(), Token { secret: secret.clone(), client_id: client_id.to_owned(), user: user.to_owned() });
        (token.into(), secret)
    }

    /// Ends all tokens of a user.
    pub(super) fn end_user(&mut self, user: &str) {
        self.tokens.retain(|_, token| token.user != user);
    }

    fn is_new(&mut self, timestamp: i64, nonce: &str) -> bool {
        if self.nonces.len() >= KEPT_MAX {
            self.nonces.clear();
        }
        self.nonces.insert((timestamp, nonce.to_owned()))
    }
}

/// Why a signed request is refused.
pub(super) struct Refused(StatusCode, &'static str);

impl Refused {
    fn into_answer(self) -> Answer {
        let mut response = no_store(answer(self.0, "application/x-www-form-urlencoded", format!("oauth_problem={}", self.1)));
        set(response.headers_mut(), WWW_AUTHENTICATE, "OAuth realm=\"sandbox\"");
        response
    }
}

const fn bad(why: &'static str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, why)
}

const fn denied(why: &'static str) -> Refused {
    Refused(StatusCode::UNAUTHORIZED, why)
}

/// Takes every path under `/oauth1/`.
pub(super) async fn call(core: &Core, request: Request<Incoming>, rest: &str) -> Result<Answer, Hangup> {
    match (rest, request.method()) {
        ("request_token" | "access_token", method) if *method != Method::POST => Ok(method_not_allowed("POST")),
        ("request_token", _) => Ok(request_token(core, request).await.unwrap_or_else(Refused::into_answer)),
        ("access_token", _) => Ok(access_token(core, request).await.unwrap_or_else(Refused::into_answer)),
        ("authorize", method) if only_get(method).is_none() => Ok(ask(core, request.uri().query().unwrap_or_default())),
        _ => match rest.strip_prefix("v1/") {
            Some(rest) => api(core, request, rest).await,
            None => Ok(api_error(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")),
        },
    }
}

/// RFC 5849 §2.1.
async fn request_token(core: &Core, request: Request<Incoming>) -> Result<Answer, Refused> {
    let (shown, body) = read(request).await?;
    let verified = check(core, &shown, &body, |_, _| Err(denied("token_rejected")))?;
    let callback = verified.get("oauth_callback").ok_or(bad("parameter_absent"))?.to_owned();
    let settings = core.settings();
    let client = settings.client(&verified.client_id).ok_or(denied("consumer_key_unknown"))?;
    if verified.token.is_some() || !client.may_redirect_to(&callback) {
        return Err(bad("parameter_rejected"));
    }
    let (token, secret, now) = (format!("o1r_{}", random_token()), Secret::new(random_token()), core.now());
    let temporary = Temporary { secret: secret.clone(), client_id: verified.client_id.clone(), callback, issued_at: now, allowed: None };
    let mut state = core.oauth1();
    state.temporary.retain(|_, temporary| now.since(temporary.issued_at) < TEMPORARY_LIFE);
    if state.temporary.len() >= KEPT_MAX {
        state.temporary.clear();
    }
    state.temporary.insert(token.clone(), temporary);
    drop(state);
    Ok(form(&[("oauth_token", &token), ("oauth_token_secret", secret.expose()), ("oauth_callback_confirmed", "true")]))
}

/// RFC 5849 §2.2: the consent page, whose form is the one of OAuth 2.0.
fn ask(core: &Core, query: &str) -> Answer {
    core.counters.authorizations.fetch_add(1, Relaxed);
    let token = Form::parse(query.as_bytes()).ok().and_then(|form| form.get("oauth_token").map(str::to_owned));
    let now = core.now();
    let approval = token.as_ref().and_then(|token| {
        let state = core.oauth1();
        let temporary = state.temporary.get(token).filter(|temporary| now.since(temporary.issued_at) < TEMPORARY_LIFE)?;
        let scopes = core.settings().scopes.clone();
        let (client_id, redirect_uri) = (temporary.client_id.clone(), temporary.callback.clone());
        Some(Approval { client_id, redirect_uri, scopes, challenge: None })
    });
    let (Some(approval), Some(token)) = (approval, token) else {
        return pages::problem(StatusCode::BAD_REQUEST, "The oauth_token is unknown here, or has expired.");
    };
    let ticket = core.tickets().add(Asked::of_oauth1(approval.clone(), token), now);
    pages::consent(&core.settings(), &approval, &ticket, None)
}

/// The user's word on a temporary token; `None` is a no.
pub(super) fn decide(core: &Core, asked: &Asked, token: &str, user: Option<&str>) -> Answer {
    let callback = &asked.approval.redirect_uri;
    let Some(user) = user else { return send_to(callback, &[("denied", token)]) };
    let verifier = random_token();
    match core.oauth1().temporary.get_mut(token) {
        Some(temporary) => temporary.allowed = Some((user.to_owned(), verifier.clone())),
        None => return pages::problem(StatusCode::BAD_REQUEST, "The oauth_token has expired. Start again from the app."),
    }
    send_to(callback, &[("oauth_token", token), ("oauth_verifier", &verifier)])
}

/// RFC 5849 §2.3. Temporary credentials are good for one answer.
async fn access_token(core: &Core, request: Request<Incoming>) -> Result<Answer, Refused> {
    core.counters.token_posts.fetch_add(1, Relaxed);
    let (shown, body) = read(request).await?;
    let verified = check(core, &shown, &body, |state, token| {
        state.temporary.get(token).map(|temporary| temporary.secret.clone()).ok_or(denied("token_rejected"))
    })?;
    let token = verified.token.clone().ok_or(bad("parameter_absent"))?;
    let mut state = core.oauth1();
    let temporary = state.temporary.remove(&token).ok_or(denied("token_rejected"))?;
    let (user, verifier) = temporary.allowed.ok_or(denied("permission_unknown"))?;
    if verified.get("oauth_verifier") != Some(&verifier) || temporary.client_id != verified.client_id {
        return Err(denied("verifier_invalid"));
    }
    let (token, secret) = state.issue(&verified.client_id, &user);
    drop(state);
    Ok(form(&[
        ("oauth_token", token.expose()),
        ("oauth_token_secret", secret.expose()),
        ("user_nsid", "12037949754@N01"),
        ("screen_name", &user),
    ]))
}

/// The API: `me` tells what was signed, `photos` is the one of `/v1/`.
async fn api(core: &Core, request: Request<Incoming>, rest: &str) -> Result<Answer, Hangup> {
    core.counters.api_calls.fetch_add(1, Relaxed);
    let told = |refused: Refused| {
        core.counters.api_rejected.fetch_add(1, Relaxed);
        refused.into_answer()
    };
    let secret_of = |state: &State, token: &str| state.tokens.get(token).map(|token| token.secret.clone()).ok_or(denied("token_rejected"));
    if core.take_rejection() {
        return Ok(told(denied("token_rejected")));
    }
    let head = Shown::of(&request);
    if let Some(rest) = rest.strip_prefix("photos") {
        // Its uploads are no forms: they stream on unread.
        let verified = match head.and_then(|head| check(core, &head, &[], secret_of)) {
            Ok(verified) => verified,
            Err(refused) => return Ok(told(refused)),
        };
        let bearer = bearer(core, &verified);
        return photos::call(core, &bearer, request, rest.strip_prefix('/')).await;
    }
    let read = async {
        let (shown, body) = read(request).await?;
        let verified = check(core, &shown, &body, secret_of)?;
        Ok((shown, body, verified))
    };
    match read.await {
        Ok((shown, body, verified)) => {
            let user = &*bearer(core, &verified).user;
            let told = json!({"user": user, "method": shown.method, "target": shown.target, "body_bytes": body.len(), "signed_form": shown.is_form});
            Ok(json(StatusCode::OK, &told))
        }
        Err(refused) => Ok(told(refused)),
    }
}

fn bearer(core: &Core, verified: &Verified) -> Bearer {
    let state = core.oauth1();
    let user = verified.token.as_ref().and_then(|token| state.tokens.get(token)).map(|token| token.user.as_str()).unwrap_or_default();
    Bearer { user: user.into(), client_id: verified.client_id.as_str().into(), scopes: core.settings().scopes.clone().into() }
}

/// The whole of a request.
async fn read(request: Request<Incoming>) -> Result<(Shown, Bytes), Refused> {
    let shown = Shown::of(&request)?;
    match Limited::new(request.into_body(), FORM_BYTES_MAX).collect().await {
        Ok(body) => Ok((shown, body.to_bytes())),
        Err(_) => Err(Refused(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large")),
    }
}

/// Signature, time and nonce (RFC 5849 §3.2).
fn check(
    core: &Core,
    shown: &Shown,
    body: &[u8],
    secret_of: impl Fn(&State, &str) -> Result<Secret, Refused>,
) -> Result<Verified, Refused> {
    let settings = core.settings();
    let client_id = shown.get("oauth_consumer_key").ok_or(bad("parameter_absent"))?;
    let client = settings.client(client_id).ok_or(denied("consumer_key_unknown"))?;
    let token = shown.get("oauth_token");
    let mut state = core.oauth1();
    let secret = token.map(|token| secret_of(&state, token)).transpose()?.unwrap_or_default();
    if let Some(token) = token.and_then(|token| state.tokens.get(token))
        && token.client_id != client_id
    {
        return Err(denied("token_rejected"));
    }
    let client_secret = client.secret.as_ref().map_or("", |secret| secret.expose());
    let verified = shown.verify(body, client_secret, secret.expose())?;
    let timestamp: i64 =
        shown.get("oauth_timestamp").and_then(|text| text.parse().ok()).filter(|at| *at > 0).ok_or(bad("timestamp_refused"))?;
    let (now, at) = (core.now(), UnixMillis(timestamp.saturating_mul(1000)));
    if now.since(at) > CLOCKS_APART || at.since(now) > CLOCKS_APART {
        return Err(denied("timestamp_refused"));
    }
    let nonce = shown.get("oauth_nonce").ok_or(bad("parameter_absent"))?;
    if !state.is_new(timestamp, nonce) {
        return Err(denied("nonce_used"));
    }
    Ok(verified)
}

fn form(pairs: &[(&str, &str)]) -> Answer {
    let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    no_store(answer(StatusCode::OK, "application/x-www-form-urlencoded", text))
}
