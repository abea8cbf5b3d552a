//! Endpoints of the API that are there for tests: they echo, count, stream, stall, redirect and break off.

use crate::sandbox::api::only_get;
use crate::sandbox::form::Form;
use crate::sandbox::grants::Bearer;
use crate::sandbox::photos::hex;
use crate::sandbox::ranges::serve;
use crate::sandbox::respond::{Answer, Body, Hangup, api_error, bare, json, set, set_length};
use aws_lc_rs::digest;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::time::Duration;

const SLOW_MS_MAX: u64 = 600_000;

fn query(request: &Request<Incoming>, name: &str) -> Option<String> {
    Form::parse(request.uri().query().unwrap_or_default().as_bytes()).ok()?.get(name).map(str::to_owned)
}

fn number(request: &Request<Incoming>, name: &str, default: u64) -> u64 {
    query(request, name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The headers as they came, with the credential's scheme in place of the credential.
fn headers_json(headers: &HeaderMap) -> Vec<Value> {
    let shown = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let text = String::from_utf8_lossy(value.as_bytes());
        match name == AUTHORIZATION {
            true => json!([name.as_str(), format!("{} …", text.split(' ').next().unwrap_or_default())]),
            false => json!([name.as_str(), text]),
        }
    };
    headers.iter().map(shown).collect()
}

/// `/v1/echo` and everything under it, any method: what arrived.
pub(super) async fn echo(bearer: &Bearer, request: Request<Incoming>) -> Result<Answer, Hangup> {
    let (parts, body) = request.into_parts();
    let read = read(body).await?;
    let scheme = parts.headers.get(AUTHORIZATION).and_then(|line| line.to_str().ok()).and_then(|line| line.split(' ').next());
    let told = json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str),
        "version": format!("{:?}", parts.version),
        "headers": headers_json(&parts.headers),
        "authorization_scheme": scheme,
        "token_user": *bearer.user,
        "token_scopes": *bearer.scopes,
        "body_length": read.bytes,
        "body_sha256": read.sha256,
        "trailers": headers_json(&read.trailers),
    });
    Ok(json(StatusCode::OK, &told))
}

struct Read {
    bytes: u64,
    sha256: String,
    trailers: HeaderMap,
}

async fn read(mut body: Incoming) -> Result<Read, Hangup> {
    let mut hash = digest::Context::new(&digest::SHA256);
    let (mut bytes, mut trailers) = (0, HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| Hangup)?.into_data() {
            Ok(data) => {
                bytes += data.len() as u64;
                hash.update(&data);
            }
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok(Read { bytes, sha256: hex(hash.finish().as_ref()), trailers })
}

/// `/v1/sink`: counts a body of any length and keeps none of it.
pub(super) async fn sink(request: Request<Incoming>) -> Result<Answer, Hangup> {
    let mut body = request.into_body();
    let mut bytes: u64 = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.map_err(|_| Hangup)?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(json(StatusCode::OK, &json!({ "bytes": bytes })))
}

/// `/v1/bytes/N`: N bytes of a known pattern, with ranges; byte `i` is `i mod 65536 mod 251`.
pub(super) fn bytes(request: &Request<Incoming>, count: &str) -> Answer {
    if let Some(refused) = only_get(request.method()) {
        return refused;
    }
    let Ok(count) = count.parse::<u64>() else {
        return api_error(StatusCode::BAD_REQUEST, "invalid_argument", "the count is a number");
    };
    let mut answer = serve(request.method(), request.headers(), count, None, Body::fill);
    set(answer.headers_mut(), CONTENT_TYPE, "application/octet-stream");
    answer
}

/// `/v1/status/CODE?retry_after=`: that status.
pub(super) fn status(request: &Request<Incoming>, code: &str) -> Answer {
    let status = code.parse::<u16>().ok().filter(|code| (200..600).contains(code)).and_then(|code| StatusCode::from_u16(code).ok());
    let Some(status) = status else {
        return api_error(StatusCode::BAD_REQUEST, "invalid_argument", "the status is a number from 200 to 599");
    };
    let mut answer = match status {
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED => bare(status),
        _ => json(status, &json!({ "status": status.as_u16() })),
    };
    if let Some(after) = query(request, "retry_after") {
        set(answer.headers_mut(), RETRY_AFTER, &after);
    }
    answer
}

/// `/v1/slow?ms=`: an answer that takes its time.
pub(super) async fn slow(request: &Request<Incoming>) -> Answer {
    let wait_ms = number(request, "ms", 1_000).min(SLOW_MS_MAX);
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    json(StatusCode::OK, &json!({ "waited_ms": wait_ms }))
}

/// `/v1/redirect?to=&status=302`: sends the client elsewhere.
pub(super) fn redirect(request: &Request<Incoming>) -> Answer {
    let status = u16::try_from(number(request, "status", 302)).ok().filter(|code| matches!(code, 301 | 302 | 303 | 307 | 308));
    let (Some(to), Some(status)) = (query(request, "to"), status) else {
        return api_error(StatusCode::BAD_REQUEST, "invalid_argument", "to is missing, or status is no redirect");
    };
    let mut answer = bare(StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND));
    set(answer.headers_mut(), LOCATION, &to);
    answer
}

/// `/v1/cut?after=N`: promises more than N bytes, sends N, and cuts the connection; with `chunked` it promises nothing.
pub(super) fn cut(request: &Request<Incoming>) -> Answer {
    let after = number(request, "after", 1_000);
    let mut answer = bare(StatusCode::OK).map(|_| Body::cut(after));
    set(answer.headers_mut(), CONTENT_TYPE, "application/octet-stream");
    if query(request, "chunked").is_none() {
        set_length(answer.headers_mut(), after.saturating_add(1_000_000));
    }
    answer
}

/// `/v1/sse?n=&every_ms=`: server-sent events, the first at once.
pub(super) fn sse(request: &Request<Incoming>) -> Answer {
    let every = Duration::from_millis(number(request, "every_ms", 100).min(SLOW_MS_MAX));
    let mut answer = bare(StatusCode::OK).map(|_| Body::events(number(request, "n", 10), every));
    set(answer.headers_mut(), CONTENT_TYPE, "text/event-stream");
    set(answer.headers_mut(), CACHE_CONTROL, "no-store");
    answer
}
