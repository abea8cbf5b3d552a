//! How the command line reaches the admin API: over a socket where a server runs, else in this process on the store itself. Verbs are written
//! once, against the API.

use super::{ConfigArg, Failure};
use crate::app::{self, Offline, Settings};
use crate::base::secret::Secret;
use crate::config::{AdminToken, AdminTokens, Bind, ServerTls, Snapshot, Startup};
use crate::upstream::{Fetch, TlsRoots};
use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// All but RFC 3986 §2.3's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which Attaché.
#[derive(Args, Clone)]
pub(super) struct Target {
    #[command(flatten)]
    pub(super) config: ConfigArg,
    /// The admin listener of a running Attaché, as in `http://127.0.0.1:7072` or `unix:/run/attache/admin.sock`. By default the one that the
    /// config names, if it answers; if none does, the store is opened here.
    #[arg(long, value_name = "URL")]
    pub(super) server: Option<String>,
    /// The admin token for `--server`; else the one that the config names.
    #[arg(long, value_name = "TOKEN", env = "ATTACHE_ADMIN_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
}

/// The admin API, wherever it is.
pub(super) enum Api {
    Server(Remote),
    /// Nobody else has the store open.
    Here(Box<Offline>),
}

/// A running server.
pub(super) struct Remote {
    fetch: Fetch,
    place: Place,
    token: Option<Secret>,
}

#[derive(Debug, Clone)]
enum Place {
    Url(String),
    Unix(PathBuf),
}

/// What a call answered.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Answered {
    /// The body of a success, or the problem's own words.
    pub(super) fn ok(self) -> Result<Value, Failure> {
        if self.status.is_success() { Ok(self.body) } else { Err(self.failure()) }
    }

    pub(super) fn failure(&self) -> Failure {
        let detail = self.body["detail"].as_str().map_or_else(|| format!("the server answered {}", self.status), str::to_owned);
        if self.status == StatusCode::BAD_REQUEST { Failure::Usage(format!("attache: {detail}")) } else { Failure::Runtime(detail) }
    }
}

impl Api {
    /// The server that `--server` or the config names, or the store.
    pub(super) async fn open(target: &Target) -> Result<Api, Failure> {
        let given = target.token.as_deref().map(str::trim).filter(|token| !token.is_empty()).map(Secret::new);
        if let Some(server) = &target.server {
            let place = place(server)?;
            let token = given
                .or_else(|| crate::config::load(&target.config.config, &super::environment).ok().and_then(|found| token(&found.startup)));
            let remote = Remote { fetch: Fetch::new(TlsRoots::system()), place, token };
            return match remote.answers().await {
                Ok(()) => Ok(Api::Server(remote)),
                Err(error) => Err(Failure::runtime(format!("{server} does not answer: {error}"))),
            };
        }
        let snapshot = crate::config::load(&target.config.config, &super::environment).map_err(Failure::usage)?;
        if let Some(remote) = running(&snapshot, given).await {
            return Ok(Api::Server(remote));
        }
        if snapshot.startup.store == crate::config::StoreKind::Memory {
            return Err(Failure::usage("the store is `memory`, which lives inside the running server alone, and no server answers"));
        }
        let offline = app::offline(Settings::new(target.config.config.clone())).await.map_err(Failure::runtime)?;
        Ok(Api::Here(Box::new(offline)))
    }

    /// The server that `--server` names or that answers where the config says, if there is one; nothing is opened here.
    pub(super) async fn server(target: &Target) -> Result<Option<Api>, Failure> {
        if target.server.is_some() {
            return Api::open(target).await.map(Some);
        }
        let given = target.token.as_deref().map(str::trim).filter(|token| !token.is_empty()).map(Secret::new);
        let snapshot = crate::config::load(&target.config.config, &super::environment).map_err(Failure::usage)?;
        Ok(running(&snapshot, given).await.map(Api::Server))
    }

    pub(super) async fn get(&self, target: &str) -> Result<Answered, Failure> {
        self.call(&Method::GET, target, None).await
    }

    /// One call. `target` is a path with its query, as [`path`] makes it.
    pub(super) async fn call(&self, method: &Method, target: &str, body: Option<&Value>) -> Result<Answered, Failure> {
        let text = body.map(|body| zeroize::Zeroizing::new(body.to_string()));
        let (status, bytes) = match self {
            Api::Server(remote) => {
                let answer = remote.send(method, target, text.as_ref().map(|text| text.as_bytes())).await;
                answer.map_err(|error| Failure::runtime(format!("the server does not answer: {error}")))?
            }
            Api::Here(offline) => {
                let body = text.as_ref().map(|text| text.as_bytes()).unwrap_or_default();
                let answer = offline.admin.answer_locally(method, target, body).await;
                (answer.status(), answer.into_body())
            }
        };
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if matches!(self, Api::Server(_)) && status == StatusCode::UNAUTHORIZED {
            let why = "the running server does not take the admin token: give the right one with --token or ATTACHE_ADMIN_TOKEN";
            return Err(Failure::usage(why));
        }
        Ok(Answered { status, body })
    }

    /// Lets go of the store.
    pub(super) async fn close(self) -> Result<(), Failure> {
        match self {
            Api::Server(_) => Ok(()),
            Api::Here(offline) => offline.close().await.map_err(Failure::runtime),
        }
    }
}

/// The server that answers where the config says.
async fn running(snapshot: &Snapshot, given: Option<Secret>) -> Option<Remote> {
    for place in places(&snapshot.startup) {
        let token = given.clone().or_else(|| token(&snapshot.startup));
        let remote = Remote { fetch: fetch_of(snapshot.tls.admin.as_deref()), place, token };
        if remote.answers().await.is_ok() {
            return Some(remote);
        }
    }
    None
}

impl Remote {
    /// Whether an Attaché answers there at all. Without the token: whoever else has that port by now must not be given it.
    async fn answers(&self) -> Result<(), String> {
        let anonymous = Remote { fetch: self.fetch.clone(), place: self.place.clone(), token: None };
        anonymous.send(&Method::GET, "/healthz", None).await.and_then(|(status, body)| {
            let ours = status == StatusCode::OK && *body == *b"ok\n";
            if ours { Ok(()) } else { Err(format!("what listens there is no Attaché (it answered {status})")) }
        })
    }

    async fn send(&self, method: &Method, target: &str, body: Option<&[u8]>) -> Result<(StatusCode, Bytes), String> {
        let base = match &self.place {
            Place::Url(url) => url.trim_end_matches('/'),
            Place::Unix(_) => "http://localhost",
        };
        let mut request = Request::builder().method(method.clone()).uri(format!("{base}{target}"));
        if let Some(token) = &self.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| "the admin token cannot stand in a header".to_owned())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let request = request.body(Bytes::copy_from_slice(body.unwrap_or_default())).map_err(|error| error.to_string())?;
        let answer = match &self.place {
            Place::Url(_) => self.fetch.send(request).await,
            Place::Unix(path) => self.fetch.send_unix(path, request).await,
        };
        answer.map(|answer| (answer.status(), answer.into_body())).map_err(|error| error.to_string())
    }
}

fn place(server: &str) -> Result<Place, Failure> {
    match server.strip_prefix("unix:") {
        Some(path) => Ok(Place::Unix(path.into())),
        None if server.starts_with("http://") || server.starts_with("https://") => Ok(Place::Url(server.to_owned())),
        None => Err(Failure::usage(format!("attache: --server is a URL or `unix:PATH`, found `{server}`"))),
    }
}

/// The addresses of the admin listener, as this machine can dial them.
fn places(startup: &Startup) -> Vec<Place> {
    let scheme = if startup.admin.tls { "https" } else { "http" };
    let one = |bind: &Bind| match bind {
        Bind::Unix(path) => Place::Unix(path.clone()),
        Bind::Tcp(address) => Place::Url(format!("{scheme}://{}", dialable(*address))),
    };
    startup.admin.binds.iter().filter(|bind| !matches!(bind, Bind::Tcp(address) if address.port() == 0)).map(one).collect()
}

/// An address that this machine can dial: an unspecified one is reached by loopback.
pub(super) fn dialable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()) } else { address }
}

/// A client for a listener of the config: where it has TLS, of that listener's very certificate, whose name needs not fit a loopback address.
pub(super) fn fetch_of(tls: Option<&ServerTls>) -> Fetch {
    Fetch::new(tls.map_or_else(TlsRoots::system, |tls| TlsRoots::only(tls.certificate.clone())))
}

/// The token that the config names and that may do most. A file that is not there is no fault: there may be no server either.
fn token(startup: &Startup) -> Option<Secret> {
    match &startup.admin_tokens {
        AdminTokens::Given(tokens) => tokens.iter().max_by_key(|token: &&AdminToken| token.allow.len()).map(|token| token.token.clone()),
        AdminTokens::File(path) => std::fs::read_to_string(path).ok().map(|text| Secret::new(text.trim())),
    }
}

/// A path of the API, each part encoded, and the account in the query where it is not the default one.
pub(super) fn connection_path(provider: &str, end_user: &str, account: &str, tail: &str) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
    let query = if account == crate::base::ids::DEFAULT_ACCOUNT { String::new() } else { format!("?account={}", encoded(account)) };
    format!("/v1/connections/{}/{}{tail}{query}", encoded(provider), encoded(end_user))
}

/// A query of the pairs that are there.
pub(super) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs.iter().filter_map(|(name, value)| Some((name, (*value)?))));
    let query = query.finish();
    if query.is_empty() { query } else { format!("?{query}") }
}

/// Runs a verb on the command line's own runtime.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(Failure::runtime)?;
    runtime.block_on(work)
}
