//! The photo API's door: who the token is for (RFC 6750), and which endpoint takes the call.

use crate::sandbox::core::Core;
use crate::sandbox::grants::Bearer;
use crate::sandbox::respond::{Answer, Hangup, api_error, json, method_not_allowed, set};
use crate::sandbox::{photos, probes};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use std::sync::atomic::Ordering::Relaxed;

/// Takes every call under `/v1/`; `rest` is the path behind that, its bytes as they came.
pub(super) async fn call(core: &Core, request: Request<Incoming>, rest: &str) -> Result<Answer, Hangup> {
    core.counters.api_calls.fetch_add(1, Relaxed);
    let delay = core.settings().api_delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let bearer = match bearer(core, request.headers()) {
        Ok(bearer) => bearer,
        Err(Denied(status, error, message)) => {
            core.counters.api_rejected.fetch_add(1, Relaxed);
            return Ok(challenge(status, error, message));
        }
    };
    let (first, second) = rest.split_once('/').map_or((rest, None), |(first, second)| (first, Some(second)));
    let answer = match (first, second) {
        ("photos", second) => photos::call(core, &bearer, request, second).await?,
        ("me", None) => only_get(request.method()).unwrap_or_else(|| me(&bearer)),
        ("echo", _) => probes::echo(&bearer, request).await?,
        ("sink", None) => probes::sink(request).await?,
        ("bytes", Some(count)) => probes::bytes(&request, count),
        ("status", Some(code)) => probes::status(&request, code),
        ("slow", None) => probes::slow(&request).await,
        ("redirect", None) => probes::redirect(&request),
        ("cut", None) => probes::cut(&request),
        ("hangup", None) => return Err(Hangup),
        ("sse", None) => probes::sse(&request),
        _ => api_error(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path"),
    };
    Ok(answer)
}

fn me(bearer: &Bearer) -> Answer {
    json(StatusCode::OK, &json!({"user": *bearer.user, "client_id": *bearer.client_id, "scopes": *bearer.scopes}))
}

/// Refuses any method but GET and HEAD.
pub(super) fn only_get(method: &Method) -> Option<Answer> {
    (!matches!(*method, Method::GET | Method::HEAD)).then(|| method_not_allowed("GET, HEAD"))
}

/// Why a token opens nothing: the status and error of RFC 6750 §3.1, which is empty where no token came.
struct Denied(StatusCode, &'static str, &'static str);

/// RFC 6750 §3.1: without any token the challenge says nothing more; with a bad one it says `invalid_token`.
fn bearer(core: &Core, headers: &HeaderMap) -> Result<Bearer, Denied> {
    let absent = Denied(StatusCode::UNAUTHORIZED, "", "a Bearer token is needed");
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let line = match (lines.next(), lines.next()) {
        (Some(line), None) => line,
        (None, _) => return Err(absent),
        (Some(_), Some(_)) => return Err(Denied(StatusCode::BAD_REQUEST, "invalid_request", "Authorization is there twice")),
    };
    let Some((scheme, token)) = line.to_str().ok().and_then(|line| line.split_once(' ')) else {
        return Err(Denied(StatusCode::UNAUTHORIZED, "invalid_token", "Authorization is malformed"));
    };
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(absent);
    }
    let known = core.grants().bearer(token, core.now());
    match known {
        Some((bearer, _)) if !core.take_rejection() => Ok(bearer),
        _ => Err(Denied(StatusCode::UNAUTHORIZED, "invalid_token", "the token is unknown, expired or revoked")),
    }
}

/// Refuses a token that does not open `scope`.
pub(super) fn needs(bearer: &Bearer, scope: &str) -> Option<Answer> {
    if bearer.scopes.iter().any(|granted| granted == scope) {
        return None;
    }
    let mut answer = challenge(StatusCode::FORBIDDEN, "insufficient_scope", "the token lacks a scope");
    let told = format!("Bearer realm=\"sandbox\", error=\"insufficient_scope\", scope=\"{scope}\"");
    set(answer.headers_mut(), WWW_AUTHENTICATE, &told);
    Some(answer)
}

fn challenge(status: StatusCode, error: &str, message: &str) -> Answer {
    let reason = if error.is_empty() { "unauthenticated" } else { error };
    let mut answer = api_error(status, reason, message);
    let told = match error {
        "" => "Bearer realm=\"sandbox\"".to_owned(),
        error => format!("Bearer realm=\"sandbox\", error=\"{error}\", error_description=\"{message}\""),
    };
    set(answer.headers_mut(), WWW_AUTHENTICATE, &told);
    answer
}
