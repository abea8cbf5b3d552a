//! The admin listener: connect sessions, connections, reload, health, and what is live. Operators and the client app's back end call it.
//!
//! `calls.rs` is the table of it all; [`Admin::handle`] reads a request, finds its row, asks whether its caller may, and lets the row's own
//! function answer. The command line uses the same calls: over a socket where a server runs, else by [`Admin::answer_locally`] in its own process.

mod auth;
mod calls;
mod connections;
pub mod openapi;
mod read;
mod recent;
mod sessions;
mod shapes;
mod snapshot;
mod upkeep;

use super::body;
use super::control::{ControlBody, ControlPeer, IntoBody};
use super::pages::{self, Page};
use super::public;
use crate::base::clock::Clock;
use crate::base::problem::Problem;
use crate::base::secret::Secret;
use crate::config::{AdminToken, Guard, Live};
use crate::connect::Connect;
use crate::connect::session::Digest;
use crate::metrics::{self, Metrics};
use crate::proxy::Peer;
use crate::store::{Records, StoreError};
use auth::{Logins, Who};
use bytes::Bytes;
use calls::{Found, Missed, Op};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION, ORIGIN, PRAGMA, RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The longest body of a call.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// What the admin and health listeners answer from.
pub struct Admin {
    live: Arc<Live>,
    records: Records,
    connect: Arc<Connect>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    tokens: Vec<(Digest, AdminToken)>,
    /// The user ids that need no token on a unix socket.
    peers: Vec<u32>,
    logins: Logins,
    /// One for each that follows the calls.
    followers: Arc<Semaphore>,
    /// Who may call by `Host` and `Origin`, as on the proxy.
    guard: Guard,
}

/// A call that was let in: what its own function needs.
pub(super) struct Asked<'a> {
    parts: &'a [String],
    query: BTreeMap<String, String>,
    body: &'a [u8],
}

/// Why a call of the API gives no result, before it becomes problem+json.
pub(super) enum Refused {
    Invalid(String),
    NotFound(&'static str),
    Store(StoreError),
    Other(Box<Problem>),
}

type Outcome = Result<(StatusCode, Value), Refused>;

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Refused::Store(error)
    }
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Refused::Invalid(why)
    }
}

impl Admin {
    pub fn new(connect: Arc<Connect>, metrics: Arc<Metrics>, tokens: Vec<AdminToken>, peers: Vec<u32>, hosts: Vec<Box<str>>) -> Arc<Self> {
        Arc::new(Admin {
            live: Arc::clone(&connect.live),
            records: connect.records.clone(),
            clock: Arc::clone(&connect.clock),
            connect,
            metrics,
            tokens: auth::digests(tokens),
            peers,
            logins: Logins::default(),
            followers: recent::followers(),
            guard: Guard { hosts, allowed_origins: Vec::new() },
        })
    }

    /// Answers one request of the admin listener.
    pub async fn handle(self: Arc<Self>, peer: ControlPeer, request: Request<Incoming>) -> Response<ControlBody> {
        let (head, incoming) = request.into_parts();
        if recent::wants_stream(&head) {
            return self.stream(&peer, head);
        }
        self.whole(peer, head, incoming).await.map(IntoBody::into_body)
    }

    async fn whole(&self, peer: ControlPeer, mut head: http::request::Parts, incoming: Incoming) -> Response<Bytes> {
        let own_page = auth::is_own_page(&head.headers);
        if own_page {
            // Judged: the guard knows the origins of other pages alone. `Host` is still its to check.
            head.headers.remove(ORIGIN);
        }
        let from = Peer { unix: peer.ip.is_none(), uid: peer.uid, bound: peer.bound, ..Peer::default() };
        if crate::proxy::check_guard(&self.guard, &from, &head).is_err() {
            return forbidden("The Host or Origin is not one that may call the admin API.");
        }
        let health_open = peer.ip.is_none_or(|ip| ip.is_loopback());
        if health_open && let Some(answer) = self.vitals(&head.method, head.uri.path()) {
            return answer;
        }
        let who = self.who(&peer, &head.headers);
        // Strangers are read no further than their head, but for the login's own form.
        let is_page = matches!(head.uri.path(), "/" | "/login" | "/logout");
        if who.is_none() && !is_page {
            return unauthorized();
        }
        let body = match body::read(incoming, BODY_BYTES_MAX).await {
            Ok(body) => zeroize::Zeroizing::new(body.to_vec()),
            Err(body::BodyError::TooLarge) => {
                let detail = format!("A call's body has at most {BODY_BYTES_MAX} bytes.");
                return Problem::new("invalid-request", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large", detail).into_response();
            }
            Err(body::BodyError::Broken) => return invalid("the body broke off".to_owned()),
        };
        if let Some(answer) = self.browser(&head, &body, own_page, who.as_ref()) {
            return answer;
        }
        // A page's path by a method that no page has.
        let Some(who) = who else { return not_found("The admin API has no such path.") };
        if who.by_cookie && !own_page && !matches!(head.method, Method::GET | Method::HEAD) {
            return forbidden("A browser's login changes things from the admin pages alone.");
        }
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        self.answer(&who, &head.method, &target, &body).await
    }

    /// Answers one call of the API for somebody who may do everything but read tokens: the command line in its own process.
    pub async fn answer_locally(&self, method: &Method, target: &str, body: &[u8]) -> Response<Bytes> {
        self.answer(&Who { name: "cli".into(), allow: auth::default_allow(), by_cookie: false }, method, target, body).await
    }

    async fn answer(&self, who: &Who, method: &Method, target: &str, body: &[u8]) -> Response<Bytes> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let found = match calls::find(method, path) {
            Ok(found) => found,
            Err(Missed::NotFound) => return self.vitals(method, path).unwrap_or_else(|| not_found("The admin API has no such path.")),
            Err(Missed::BadPath) => return invalid("a part of the path is not UTF-8 once decoded".to_owned()),
            Err(Missed::Method(allow)) => return not_allowed(&allow),
        };
        let needed = found.call.allow.word();
        if !who.may(needed) {
            return forbidden(&format!("This admin token's `allow` does not hold `{needed}`."));
        }
        match self.run(&found, query, body).await {
            Ok((status, value)) => json_answer(status, &value),
            Err(Refused::Invalid(why)) => invalid(why),
            Err(Refused::NotFound(what)) => not_found(what),
            Err(Refused::Other(problem)) => problem.into_response(),
            Err(Refused::Store(error)) => {
                tracing::error!(error = %error, "a call of the admin API failed for want of the store");
                let detail = "The store could not be read or written. Nothing is lost: try again later.";
                Problem::new("store-unavailable", StatusCode::SERVICE_UNAVAILABLE, "The token store is unavailable", detail)
                    .header(RETRY_AFTER, HeaderValue::from(1))
                    .into_response()
            }
        }
    }

    async fn run(&self, found: &Found, query: &str, body: &[u8]) -> Outcome {
        let asked = Asked { parts: &found.parts, query: read::query(found.call, query)?, body };
        match found.call.op {
            Op::CreateSession => self.create_session(&asked).await,
            Op::ShowSession => self.show_session(&asked).await,
            Op::CompleteSession => self.complete_session(&asked).await,
            Op::CreateDevice => self.create_device(&asked).await,
            Op::ShowDevice => self.show_device(&asked).await,
            Op::ListConnections => self.list_connections(&asked).await,
            Op::ExportConnections => self.export_connections(&asked).await,
            Op::ShowConnection => self.show_connection(&asked).await,
            Op::PutConnection => self.put_connection(&asked).await,
            Op::PatchConnection => self.patch_connection(&asked).await,
            Op::DeleteConnection => self.delete_connection(&asked).await,
            Op::RefreshConnection => self.refresh_connection(&asked).await,
            Op::ShowToken => self.show_token(&asked).await,
            Op::Reload => self.reload().await,
            Op::Routes => Ok(self.routes()),
            Op::Providers => Ok(self.providers()),
            Op::Explain => self.explain(&asked),
            Op::Calls => self.calls(&asked),
            Op::CheckStore => self.check_store().await,
            Op::StoreRecords => self.store_records(&asked).await,
            Op::Rekey => self.rekey(&asked).await,
            Op::CloseGate => self.close_gate(),
            Op::OpenGate => self.open_gate(),
            Op::OpenApi => Ok((StatusCode::OK, openapi::document())),
        }
    }

    /// The few pages for people: login, and what is there after it.
    fn browser(&self, head: &http::request::Parts, body: &[u8], own_page: bool, who: Option<&Who>) -> Option<Response<Bytes>> {
        match (&head.method, head.uri.path()) {
            (&Method::GET | &Method::HEAD, "/") => Some(match who {
                Some(who) => page(StatusCode::OK, pages::admin_home(&who.name)),
                None => page(StatusCode::OK, pages::login(None)),
            }),
            (&Method::GET | &Method::HEAD, "/login") => Some(page(StatusCode::OK, pages::login(None))),
            (&Method::POST, "/login") if !own_page && head.headers.contains_key("sec-fetch-site") => {
                Some(forbidden("Log in from this listener's own page."))
            }
            (&Method::POST, "/login") => {
                let token = form_urlencoded::parse(body).find(|(name, _)| name == "token").map(|(_, value)| Secret::new(value.trim()));
                Some(match token.and_then(|token| self.log_in(token.expose())) {
                    Some(cookie) => to_home(&cookie),
                    None => page(StatusCode::UNAUTHORIZED, pages::login(Some("That is no admin token of this Attaché."))),
                })
            }
            (&Method::POST, "/logout") => Some(to_home(&self.log_out(&head.headers))),
            _ => None,
        }
    }

    /// `/healthz`, `/readyz` and `/metrics`.
    fn vitals(&self, method: &Method, path: &str) -> Option<Response<Bytes>> {
        if path == "/metrics" && self.live.swap().load().metrics.enabled {
            return Some(match *method {
                Method::GET | Method::HEAD => self.metrics(),
                _ => not_allowed("GET"),
            });
        }
        self.health(method, path)
    }

    fn metrics(&self) -> Response<Bytes> {
        let events = self.metrics.events();
        events.set_config(self.live.snapshot().generation, !self.live.last_errors().is_empty());
        events.set_store_up(self.records.ready().is_ok());
        answer(StatusCode::OK, metrics::CONTENT_TYPE, self.metrics.text())
    }

    /// `/healthz` and `/readyz`: all that the health listener knows, with any `Host` and no token.
    pub fn health(&self, method: &Method, path: &str) -> Option<Response<Bytes>> {
        match path {
            "/healthz" | "/readyz" if !matches!(*method, Method::GET | Method::HEAD) => Some(not_allowed("GET")),
            "/healthz" => Some(text(StatusCode::OK, "ok\n")),
            "/readyz" => Some(match self.records.ready() {
                Ok(()) => text(StatusCode::OK, "ready\n"),
                Err(error) => {
                    tracing::warn!(%error, "not ready");
                    text(StatusCode::SERVICE_UNAVAILABLE, "the store is unavailable\n")
                }
            }),
            _ => None,
        }
    }
}

/// The health listener: `/healthz` and `/readyz`, whatever the `Host`.
pub fn health_only(admin: &Admin, request: &Request<Incoming>) -> Response<Bytes> {
    let (method, path) = (request.method(), request.uri().path());
    let found = if admin.live.swap().load().metrics.on_health { admin.vitals(method, path) } else { admin.health(method, path) };
    found.unwrap_or_else(|| not_found("This listener has `/healthz` and `/readyz` alone."))
}

/// A token with every permission but reading tokens, for a token file or `admin.token`.
pub fn whole_token(token: Secret) -> AdminToken {
    AdminToken { name: "admin".into(), token, allow: auth::default_allow() }
}

fn page(status: StatusCode, page: Page) -> Response<Bytes> {
    public::answer(status, page, "same-origin")
}

fn to_home(cookie: &cookie::Cookie<'_>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().extend(HeaderValue::try_from(cookie.to_string()).ok().map(|value| (SET_COOKIE, value)));
    response
}

fn json_answer(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = answer(status, "application/json", format!("{body}\n"));
    // RFC 6749 §5.1 asks this of answers that may hold tokens; the others lose nothing by it.
    response.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Bytes> {
    answer(status, "text/plain; charset=utf-8", body.to_owned())
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn invalid(why: String) -> Response<Bytes> {
    Problem::new("invalid-request", StatusCode::BAD_REQUEST, "The request is not valid", why).into_response()
}

fn forbidden(detail: &str) -> Response<Bytes> {
    Problem::new("forbidden", StatusCode::FORBIDDEN, "The caller may not do this", detail).into_response()
}

fn unauthorized() -> Response<Bytes> {
    let detail = "Send the admin token: `Authorization: Bearer TOKEN`. It is in the file that `admin.token_file` names.";
    Problem::new("unauthorized", StatusCode::UNAUTHORIZED, "No valid admin token", detail)
        .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
        .into_response()
}

fn not_found(detail: &str) -> Response<Bytes> {
    Problem::new("not-found", StatusCode::NOT_FOUND, "Nothing is here", detail).into_response()
}

fn not_allowed(allow: &str) -> Response<Bytes> {
    let mut problem =
        Problem::new("invalid-request", StatusCode::METHOD_NOT_ALLOWED, "Not this method", format!("This path takes {allow}."));
    problem.headers.extend(HeaderValue::try_from(allow).ok().map(|allow| (ALLOW, allow)));
    problem.into_response()
}
