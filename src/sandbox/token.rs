//! The machine endpoints of the authorization server: token, revocation and introspection, behind one client authentication.

use crate::base::clock::UnixMillis;
use crate::sandbox::core::Core;
use crate::sandbox::form::Form;
use crate::sandbox::grants::Issued;
use crate::sandbox::refused::Refused;
use crate::sandbox::respond::{self, Answer, Hangup, answer, bare, json, no_store, set};
use crate::sandbox::settings::{Client, FailToken, Settings};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use std::sync::atomic::Ordering::Relaxed;

pub(super) const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// `POST /token` (RFC 6749 §3.2). The work is done before the delay and before an answer is lost, as on a slow or broken network.
pub(super) async fn token(core: &Core, request: Request<Incoming>) -> Result<Answer, Hangup> {
    if request.method() != Method::POST {
        return Ok(respond::refused(Refused::NotPost));
    }
    core.counters.token_posts.fetch_add(1, Relaxed);
    let settings = core.settings();
    let (parts, body) = request.into_parts();
    let read = match parts.uri.query() {
        Some(query) if !query.is_empty() => Err(Refused::InvalidRequest("parameters belong in the body")),
        _ => Form::read(&parts.headers, body).await,
    };
    if let Ok(form) = &read {
        count(core, form);
    }
    let canned = core.take_token_failure();
    // Read once: a millisecond between issue and answer would turn a life of one second into `expires_in: 0`, which clients take as untold.
    let now = core.now();
    let answer = match (canned, read) {
        (Some(failure), _) => failed(&failure),
        (None, Err(why)) => respond::refused(why),
        (None, Ok(form)) => match grant(core, &settings, &parts.headers, &form, now) {
            Ok(issued) => no_store(json(StatusCode::OK, &issued_json(&issued, now))),
            Err(why) => {
                tracing::debug!(oauth.error = why.code(), "the sandbox refused a token request");
                respond::refused(why)
            }
        },
    };
    if !settings.token_delay.is_zero() {
        tokio::time::sleep(settings.token_delay).await;
    }
    if core.take_lost_answer() { Err(Hangup) } else { Ok(answer) }
}

/// Counts by grant type before anything can fail, so that tests see every attempt.
fn count(core: &Core, form: &Form) {
    let counter = match form.get("grant_type") {
        Some("authorization_code") => &core.counters.codes,
        Some("refresh_token") => &core.counters.refresh_posts,
        Some("client_credentials") => &core.counters.client_credentials,
        Some(DEVICE_GRANT) => &core.counters.device_codes,
        _ => return,
    };
    counter.fetch_add(1, Relaxed);
}

fn failed(failure: &FailToken) -> Answer {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = answer(status, "application/json", failure.body.clone());
    set(response.headers_mut(), CONTENT_TYPE, &failure.content_type);
    if let Some(after) = &failure.retry_after {
        set(response.headers_mut(), RETRY_AFTER, after);
    }
    no_store(response)
}

fn grant(core: &Core, settings: &Settings, headers: &HeaderMap, form: &Form, now: UnixMillis) -> Result<Issued, Refused> {
    let client = authenticate(settings, headers, form)?;
    match form.need("grant_type", "grant_type is missing")? {
        "authorization_code" => {
            let code = form.need("code", "code is missing")?;
            let redirect_uri = form.need("redirect_uri", "redirect_uri is missing")?;
            core.grants().exchange(settings, &client.id, code, redirect_uri, form.get("code_verifier"), now)
        }
        "refresh_token" => {
            let token = form.need("refresh_token", "refresh_token is missing")?;
            let scopes = form.get("scope").map(split_scopes);
            let issued = core.grants().refresh(settings, &client.id, token, scopes.as_deref(), now)?;
            core.counters.refreshes.fetch_add(1, Relaxed);
            Ok(issued)
        }
        "client_credentials" => {
            if client.secret.is_none() {
                return Err(Refused::UnauthorizedClient("a public client has no token of its own"));
            }
            let scopes = asked_scopes(settings, form.get("scope"))?;
            Ok(core.grants().issue_for_client(settings, &client.id, &scopes, now))
        }
        DEVICE_GRANT => {
            let code = form.need("device_code", "device_code is missing")?;
            let (user, scopes) = core.devices().poll(&client.id, code, now)?;
            Ok(core.grants().issue(settings, &client.id, &user, &scopes, now))
        }
        _ => Err(Refused::UnsupportedGrantType),
    }
}

/// RFC 6749 §5.1. `expires_in` is in whole seconds, never more than the life that is left.
fn issued_json(issued: &Issued, now: UnixMillis) -> serde_json::Value {
    let mut answer = json!({
        "access_token": issued.access_token.expose(),
        "token_type": "Bearer",
        "expires_in": issued.expires_at.since(now).as_secs(),
        "scope": issued.scopes.join(" "),
    });
    if let Some(refresh_token) = &issued.refresh_token {
        answer["refresh_token"] = json!(refresh_token.expose());
    }
    answer
}

/// The scopes that a request names, all known; without any, the first that the sandbox knows.
pub(super) fn asked_scopes(settings: &Settings, asked: Option<&str>) -> Result<Vec<String>, Refused> {
    let Some(asked) = asked else { return Ok(settings.scopes.iter().take(1).cloned().collect()) };
    let scopes = split_scopes(asked);
    match settings.scopes.is_empty() || scopes.iter().all(|scope| settings.scopes.contains(scope)) {
        true => Ok(scopes),
        false => Err(Refused::InvalidScope("a scope is unknown here")),
    }
}

fn split_scopes(text: &str) -> Vec<String> {
    text.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
}

/// Who asks (RFC 6749 §2.3): by Basic or in the body, never by both, and a public client by its bare id.
pub(super) fn authenticate<'s>(settings: &'s Settings, headers: &HeaderMap, form: &Form) -> Result<&'s Client, Refused> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (id, secret) = match (lines.next(), lines.next()) {
        (Some(_), Some(_)) => return Err(Refused::InvalidRequest("Authorization is there twice")),
        (Some(_), None) if form.get("client_secret").is_some() => {
            return Err(Refused::InvalidRequest("the client authenticated in two ways"));
        }
        (Some(line), _) => {
            let (id, secret) = basic(line.to_str().unwrap_or_default()).ok_or(Refused::InvalidClient)?;
            if form.get("client_id").is_some_and(|named| named != id) {
                return Err(Refused::InvalidRequest("client_id is not the client that authenticated"));
            }
            (id, Some(secret).filter(|secret| !secret.is_empty()))
        }
        (None, _) => (form.get("client_id").ok_or(Refused::InvalidClient)?.to_owned(), form.get("client_secret").map(str::to_owned)),
    };
    let client = settings.client(&id).ok_or(Refused::InvalidClient)?;
    let good = match (&client.secret, &secret) {
        (Some(known), Some(given)) => known.matches(given.as_bytes()),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    if good { Ok(client) } else { Err(Refused::InvalidClient) }
}

/// RFC 6749 §2.3.1: the id and the secret are form-encoded before they are joined.
fn basic(line: &str) -> Option<(String, String)> {
    let (scheme, encoded) = line.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((form_decode(id)?, form_decode(secret)?))
}

fn form_decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(String::from)
}

/// `POST /revoke` (RFC 7009).
pub(super) async fn revoke(core: &Core, request: Request<Incoming>) -> Answer {
    match authenticated_token(core, request).await {
        Ok((client_id, token)) => {
            core.counters.revocations.fetch_add(1, Relaxed);
            core.grants().revoke(&client_id, &token);
            no_store(bare(StatusCode::OK))
        }
        Err(why) => respond::refused(why),
    }
}

/// `POST /introspect` (RFC 7662).
pub(super) async fn introspect(core: &Core, request: Request<Incoming>) -> Answer {
    let (client_id, token) = match authenticated_token(core, request).await {
        Ok(found) => found,
        Err(why) => return respond::refused(why),
    };
    let (settings, now, grants) = (core.settings(), core.now(), core.grants());
    let told = if let Some((bearer, expires_at)) = grants.bearer(&token, now).filter(|(bearer, _)| *bearer.client_id == *client_id) {
        json!({"active": true, "token_type": "Bearer", "client_id": client_id, "username": *bearer.user,
               "scope": bearer.scopes.join(" "), "exp": expires_at.0.div_euclid(1000)})
    } else if let Some(grant) = grants.refreshable(&settings, &token, now).filter(|grant| *grant.client_id == *client_id) {
        json!({"active": true, "client_id": client_id, "username": *grant.user, "scope": grant.scopes.join(" ")})
    } else {
        json!({"active": false})
    };
    no_store(json(StatusCode::OK, &told))
}

async fn authenticated_token(core: &Core, request: Request<Incoming>) -> Result<(String, String), Refused> {
    if request.method() != Method::POST {
        return Err(Refused::NotPost);
    }
    let (parts, body) = request.into_parts();
    let form = Form::read(&parts.headers, body).await?;
    let settings = core.settings();
    let client = authenticate(&settings, &parts.headers, &form)?;
    Ok((client.id.clone(), form.need("token", "token is missing")?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(authorization: Option<&str>, body: &str, expected: Result<&str, &str>) {
        let clients = vec![Client::new("app", Some("s:e+c r%"), &[]), Client::new("public", None, &[])];
        let settings = Settings { clients, ..Settings::default() };
        let mut headers = HeaderMap::new();
        if let Some(pair) = authorization {
            set(&mut headers, AUTHORIZATION, &format!("Basic {}", STANDARD.encode(pair)));
        }
        let form = Form::parse(body.as_bytes()).expect("a form");
        let found = authenticate(&settings, &headers, &form).map(|client| client.id.as_str()).map_err(Refused::code);
        assert_eq!(found, expected, "{authorization:?} {body}");
    }

    #[test]
    fn clients_authenticate_in_one_way() {
        check(Some("app:s%3Ae%2Bc+r%25"), "", Ok("app"));
        check(Some("app:s%3Ae%2Bc+r%25"), "client_id=app", Ok("app"));
        check(Some("app:s%3Ae%2Bc+r%25"), "client_id=public", Err("invalid_request"));
        check(Some("app:s%3Ae%2Bc+r%25"), "client_id=app&client_secret=s%3Ae%2Bc+r%25", Err("invalid_request"));
        check(Some("app:wrong"), "", Err("invalid_client"));
        check(Some("app:"), "", Err("invalid_client"));
        check(Some("nobody:s"), "", Err("invalid_client"));
        check(Some("no colon"), "", Err("invalid_client"));
        check(None, "client_id=app&client_secret=s%3Ae%2Bc+r%25", Ok("app"));
        check(None, "client_id=app&client_secret=wrong", Err("invalid_client"));
        check(None, "client_id=app", Err("invalid_client"));
        check(None, "client_id=public", Ok("public"));
        check(None, "client_id=public&client_secret=x", Err("invalid_client"));
        check(None, "", Err("invalid_client"));
    }
}
