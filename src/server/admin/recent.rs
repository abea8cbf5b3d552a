//! The last calls: as a list, and as they end (server-sent events).

use super::calls::{self, Found};
use super::{Admin, Asked, Outcome, forbidden, read};
use crate::base::problem::Problem;
use crate::metrics::Seen;
use crate::proxy::Peer;
use crate::server::control::{ControlBody, ControlPeer, IntoBody, streaming};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::Instant;

const FOLLOWERS_MAX: usize = 16;
/// So that nothing between takes a quiet stream for a dead one.
const STILL_HERE_EVERY: Duration = Duration::from_secs(15);
/// Then the follower comes again, and shows anew that it may.
const STREAM_FOR: Duration = Duration::from_secs(3600);

pub(super) fn followers() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(FOLLOWERS_MAX))
}

/// Whether a request asks for the calls as they end.
pub(super) fn wants_stream(head: &Parts) -> bool {
    let accepts = head.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    head.method == Method::GET && head.uri.path() == "/v1/calls" && accepts.into_iter().any(|value| value.contains("text/event-stream"))
}

/// Which calls are asked for.
struct Filter {
    only_errors: bool,
    query: BTreeMap<String, String>,
}

impl Filter {
    fn new(query: BTreeMap<String, String>) -> Filter {
        Filter { only_errors: query.contains_key("only"), query }
    }

    fn takes(&self, seen: &Seen) -> bool {
        let is = |name: &str, value: &str| self.query.get(name).is_none_or(|wanted| wanted == value);
        (!self.only_errors || !seen.went_well())
            && is("route", &seen.route)
            && is("provider", &seen.provider)
            && is("connection", seen.connection_id.as_deref().unwrap_or_default())
    }
}

impl Admin {
    pub(super) fn calls(&self, asked: &Asked<'_>) -> Outcome {
        let filter = Filter::new(asked.query.clone());
        let limit = asked.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(100);
        let recent = self.metrics.recent();
        let all = recent.since(0, filter.only_errors);
        let items: Vec<Value> = all.iter().rev().filter(|seen| filter.takes(seen)).take(limit).map(|seen| call_json(seen)).collect();
        Ok((StatusCode::OK, json!({"items": items, "left_out": recent.left_out()})))
    }

    /// The calls as they end. Judged as every other request of this listener.
    pub(super) fn stream(&self, peer: &ControlPeer, mut head: Parts) -> Response<ControlBody> {
        if super::auth::is_own_page(&head.headers) {
            head.headers.remove(ORIGIN);
        }
        let from = Peer { unix: peer.ip.is_none(), uid: peer.uid, bound: peer.bound, ..Peer::default() };
        if crate::proxy::check_guard(&self.guard, &from, &head).is_err() {
            return forbidden("The Host or Origin is not one that may call the admin API.").map(IntoBody::into_body);
        }
        let Some(who) = self.who(peer, &head.headers) else { return super::unauthorized().map(IntoBody::into_body) };
        let Ok(Found { call, .. }) = calls::find(&Method::GET, "/v1/calls") else {
            return super::not_found("The admin API has no such path.").map(IntoBody::into_body);
        };
        if !who.may(call.allow.word()) {
            return forbidden("This admin token's `allow` does not hold `read`.").map(IntoBody::into_body);
        }
        let filter = match read::query(call, head.uri.query().unwrap_or_default()) {
            Ok(query) => Filter::new(query),
            Err(why) => return super::invalid(why).map(IntoBody::into_body),
        };
        let Ok(place) = Arc::clone(&self.followers).try_acquire_owned() else {
            let detail = format!("{FOLLOWERS_MAX} follow the calls already.");
            return Problem::new("overloaded", StatusCode::SERVICE_UNAVAILABLE, "Too many followers", detail)
                .header(RETRY_AFTER, HeaderValue::from(10))
                .into_response()
                .map(IntoBody::into_body);
        };
        let after = head.headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
        let mut answer = Response::new(streaming(self.events(filter, after, place)));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }

    /// First what is kept of the calls after `after`, then what comes.
    fn events(&self, filter: Filter, after: Option<u64>, place: OwnedSemaphorePermit) -> impl Stream<Item = Bytes> + Send + use<> {
        let recent = Arc::clone(self.metrics.recent());
        // Followed before the kept ones are read, so that none is missed between; those that are in both are told once.
        let live = recent.follow();
        let kept = after.map(|after| recent.since(after, filter.only_errors)).unwrap_or_default();
        let last = kept.last().map(|seen| seen.number).or(after).unwrap_or_default();
        let first: Vec<Bytes> = kept.iter().filter(|seen| filter.takes(seen)).map(|seen| event(seen)).collect();
        let follower = Follower { live, filter, last, until: Instant::now() + STREAM_FOR, _place: place };
        let begin = stream::once(async { Bytes::from_static(b": the calls as they end\n\n") });
        begin.chain(stream::iter(first)).chain(stream::unfold(follower, Follower::next))
    }
}

struct Follower {
    live: broadcast::Receiver<Arc<Seen>>,
    filter: Filter,
    /// The number of the last call that was told before this stream went live.
    last: u64,
    until: Instant,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    async fn next(mut self) -> Option<(Bytes, Follower)> {
        let quiet_until = Instant::now() + STILL_HERE_EVERY;
        while Instant::now() < self.until {
            // Losing the wait is safe: what comes stays in the channel.
            match tokio::time::timeout_at(quiet_until, self.live.recv()).await {
                Err(_) => return Some((Bytes::from_static(b": still here\n\n"), self)),
                Ok(Ok(seen)) if seen.number > self.last && self.filter.takes(&seen) => return Some((event(&seen), self)),
                Ok(Ok(_)) => {}
                Ok(Err(RecvError::Lagged(count))) => return Some((left_out(count), self)),
                Ok(Err(RecvError::Closed)) => return None,
            }
        }
        None
    }
}

fn event(seen: &Seen) -> Bytes {
    format!("id: {}\nevent: call\ndata: {}\n\n", seen.number, call_json(seen)).into()
}

/// The follower reads more slowly than calls end.
fn left_out(count: u64) -> Bytes {
    format!("event: left_out\ndata: {}\n\n", json!({"calls": count})).into()
}

fn call_json(seen: &Seen) -> Value {
    let millis = |took: Duration| (took.as_secs_f64() * 1e5).round() / 100.0;
    let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    json!({
        "number": seen.number, "at": seen.at.to_rfc3339(), "request_id": seen.request_id, "route": named(&seen.route),
        "provider": named(&seen.provider), "connection_id": seen.connection_id.as_deref(), "method": seen.method, "status": seen.status,
        "bytes": seen.bytes, "took_ms": millis(seen.took), "upstream_ms": seen.upstream.map(millis), "waited_for_token": seen.waited_for_token,
        "replays": seen.replays, "cut": seen.cut, "error": seen.error,
    })
}
