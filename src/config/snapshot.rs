//! A whole checked config as the running program sees it: immutable, swapped as one, held for the whole life of a call.

use crate::attach::{Needs, Scheme};
use crate::base::secret::Secret;
use crate::identity::{Callers, EndUserRules};
use crate::limit::Limits;
use crate::provider::{OriginTemplate, Registration};
use crate::route::{FormTemplate, JsonTemplate, Need, Reverse, Rewrite, Selector, Table, Upstreams};
use crate::store::postgres::PostgresUrl;
use crate::store::redis::RedisUrl;
use crate::upstream::{Bounds, Origin};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What goes live at once when `routes.yaml` or a provider file changes.
#[derive(Debug)]
pub struct Snapshot {
    /// 1 for the config of the start, one more for each that went live since.
    pub generation: u64,
    pub routes: Table<Arc<Route>>,
    /// The same routes by their upstreams, for requests in absolute form.
    pub upstreams: Upstreams<Arc<Route>>,
    /// All routes in file order, for `explain` and the admin API.
    pub route_list: Vec<Arc<Route>>,
    /// `listen.origins`, in the order of the listeners that run.
    pub origins: Vec<OriginListener>,
    /// Whether a route or `end_user` has `placeholder` on.
    pub has_placeholders: bool,
    /// Every registration, also those that are off.
    pub providers: BTreeMap<Arc<str>, Arc<Registration>>,
    pub end_user: EndUserRules,
    pub callers: Callers,
    pub guard: Guard,
    /// `upstreams:`.
    pub bounds: Bounds,
    /// What is logged.
    pub log: LogRules,
    /// Whether calls are counted, and where `/metrics` is shown.
    pub metrics: MetricsRules,
    /// Who is told of what.
    pub notify: crate::notices::Targets,
    /// `connect:`: how the connect pages look and where they may lead.
    pub connect: Connect,
    /// What the operator should know though nothing is wrong: an optional provider that is off, thin provider facts.
    pub warnings: Vec<String>,
    /// What variables and files held that were filled in: never shown, not even by `explain`.
    pub filled: Vec<Secret>,
    /// The certificates of the listeners: a renewed one goes live with the config.
    pub tls: ListenerTls,
    /// What only a restart can change.
    pub startup: Startup,
}

impl Snapshot {
    /// Every route, also of `listen.origins`.
    pub fn all_routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.route_list.iter().chain(self.origins.iter().filter_map(|origin| origin.route.as_ref()))
    }

    /// Goes on counting calls where `before` was, for routes of the same name.
    pub(super) fn adopt_counts(&self, before: &Snapshot) {
        let counted: BTreeMap<&str, &Limits> =
            before.all_routes().filter_map(|route| Some((&*route.name, &**route.limits.as_ref()?))).collect();
        for (name, limits) in self.all_routes().filter_map(|route| Some((&*route.name, route.limits.as_ref()?))) {
            if let Some(before) = counted.get(name) {
                limits.adopt(before);
            }
        }
    }

    /// What a request may say that came in by this one of `listen.origins`, or by the proxy listener.
    pub fn guard_of(&self, origin: Option<usize>) -> &Guard {
        origin.and_then(|number| self.origins.get(number)).map_or(&self.guard, |origin| &origin.guard)
    }

    /// `text` without what was filled in from the environment or files, plain or percent-encoded. Very short values stay: they are no secrets,
    /// and would tear holes in everything.
    pub fn masked(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for value in self.filled.iter().filter(|value| value.expose().len() >= 6) {
            let encoded = percent_encoding::utf8_percent_encode(value.expose(), UNRESERVED).to_string();
            text = text.replace(value.expose(), "…").replace(&encoded, "…");
        }
        text
    }

    /// The same of a registration's value, which may have been folded to lower case or cut at its host since it was filled in.
    pub fn masked_value(&self, value: &str) -> String {
        let is_part = |filled: &str| {
            let filled = filled.trim().to_ascii_lowercase();
            let bare = filled.strip_prefix("https://").or_else(|| filled.strip_prefix("http://")).unwrap_or(&filled);
            let rest = bare.strip_prefix(&value.to_ascii_lowercase());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ':', '/', '?', '#']))
        };
        let mut filled = self.filled.iter().map(Secret::expose).filter(|filled| filled.len() >= 6);
        if filled.any(is_part) { "…".to_owned() } else { self.masked(value) }
    }
}

/// All but RFC 3986 §2.3's unreserved characters are encoded, as the rewriting of queries does it.
const UNRESERVED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a proxy request's `Host` and `Origin` may say (contract §2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    /// Host names besides loopback names and the bind address, lower case, without a port: `hosts` and the hosts of routes.
    pub hosts: Vec<Box<str>>,
    /// Exact values of `Origin`, as `listen.allowed_origins` says.
    pub allowed_origins: Vec<Box<str>>,
}

/// A proxy listener that is one upstream's whole origin.
#[derive(Debug, Default)]
pub struct OriginListener {
    /// Holds the one route; empty where a reload took it away, until the restart that takes the listener too.
    pub table: Table<Arc<Route>>,
    /// The same route by its upstream.
    pub upstreams: Upstreams<Arc<Route>>,
    pub route: Option<Arc<Route>>,
    pub guard: Guard,
}

/// `tls` of each listener, for the next connections. A listener that runs with TLS has one, whatever the config says by now.
#[derive(Debug, Clone, Default)]
pub struct ListenerTls {
    pub proxy: Option<Arc<ServerTls>>,
    pub public: Option<Arc<ServerTls>>,
    pub admin: Option<Arc<ServerTls>>,
    pub health: Option<Arc<ServerTls>>,
    /// In the order of the listeners that run.
    pub origins: Vec<Option<Arc<ServerTls>>>,
}

/// The server's side of TLS on one listener.
pub struct ServerTls {
    pub config: Arc<rustls::ServerConfig>,
    /// The listener's own certificate, by which the command line knows its server.
    pub certificate: rustls::pki_types::CertificateDer<'static>,
    /// Whether clients are asked for a certificate (`client_ca`).
    pub asks_certificate: bool,
}

/// Never its key.
impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("asks_certificate", &self.asks_certificate).finish_non_exhaustive()
    }
}

/// `log:`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogRules {
    /// In place of `info`, where the environment sets no RUST_LOG.
    pub level: Option<Box<str>>,
    pub calls: crate::log::Rules,
}

/// `metrics:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsRules {
    /// Whether calls are counted, and `/metrics` is there.
    pub enabled: bool,
    /// Whether the health listener has `/metrics` too, without a token.
    pub on_health: bool,
}

impl Default for MetricsRules {
    fn default() -> Self {
        MetricsRules { enabled: true, on_health: false }
    }
}

/// `connect:` (contract §6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    pub app_name: Option<Box<str>>,
    pub logo: Option<Logo>,
    /// A colour as `#rgb` or `#rrggbb`.
    pub accent: Option<Box<str>>,
    /// As written: absolute http or https URLs without user and fragment. What fits them is the connect room's to say.
    pub allowed_return_urls: Vec<Box<str>>,
    pub session_ttl: Duration,
}

/// The app's logo on the connect pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logo {
    /// Browsers fetch it themselves.
    Url(url::Url),
    /// The content of a file, which the pages carry in themselves.
    Inline { mime: &'static str, base64: Box<str> },
}

impl Default for Connect {
    fn default() -> Self {
        Connect { app_name: None, logo: None, accent: None, allowed_return_urls: Vec::new(), session_ttl: Duration::from_secs(15 * 60) }
    }
}

/// `listen`, `store`, `admin` and `shutdown`: read at the start, kept back on reload and told as `restart_required`.
#[derive(Debug, Clone, PartialEq)]
pub struct Startup {
    pub proxy: Listener,
    pub public: Listener,
    pub admin: Listener,
    pub health: Option<Listener>,
    /// `listen.origins`.
    pub origins: Vec<Listener>,
    /// `listen.allow_anonymous`.
    pub allow_anonymous: bool,
    pub public_url: url::Url,
    pub store: StoreKind,
    pub keys: KeySource,
    pub admin_tokens: AdminTokens,
    /// `admin.uids`: who needs no token on a unix socket, besides root and this process's own user.
    pub admin_uids: Vec<u32>,
    /// `shutdown.drain`.
    pub drain: Duration,
}

/// One listener: every address it is bound to, and the hosts it answers to besides those.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listener {
    pub binds: Vec<Bind>,
    pub hosts: Vec<Box<str>>,
    /// Its own word on `placeholder`; of proxy listeners alone.
    pub placeholder: Option<bool>,
    /// Whether its TCP addresses speak TLS; with which certificate is [`ListenerTls`]'s to say.
    pub tls: bool,
    /// `connections_per_address`: of the public listener alone, which strangers reach.
    pub per_address_max: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// As the file says it.
impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bind::Tcp(address) => write!(f, "{address}"),
            Bind::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    Memory,
    Sled {
        path: PathBuf,
    },
    /// Shared by replicas.
    Postgres {
        url: Box<PostgresUrl>,
        shared: SharedStore,
    },
    /// Likewise.
    Redis {
        url: Box<RedisUrl>,
        shared: SharedStore,
    },
}

impl StoreKind {
    /// What holds of a store that replicas share.
    pub fn shared(&self) -> Option<SharedStore> {
        match self {
            StoreKind::Memory | StoreKind::Sled { .. } => None,
            StoreKind::Postgres { shared, .. } | StoreKind::Redis { shared, .. } => Some(*shared),
        }
    }
}

/// `store.max_stale` and `store.durability`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedStore {
    /// How long fresh tokens are served while the store is out of reach.
    pub max_stale: Duration,
    /// `durability: relaxed`: a server that may lose acknowledged writes is taken.
    pub relaxed: bool,
}

impl Default for SharedStore {
    fn default() -> Self {
        SharedStore { max_stale: Duration::from_secs(60), relaxed: false }
    }
}

/// Where the sealing keys come from.
#[derive(Debug, Clone, PartialEq)]
pub enum KeySource {
    /// `store.encryption_key_file`: made at the first start.
    File(PathBuf),
    /// `store.encryption_keys`: base64 of 32 bytes each, checked at load; the first encrypts, all decrypt.
    Given(Vec<Secret>),
}

/// Where the admin API's tokens come from.
#[derive(Debug, Clone, PartialEq)]
pub enum AdminTokens {
    /// `admin.token_file`: made at the first start.
    File(PathBuf),
    /// `admin.token` or `admin.tokens`.
    Given(Vec<AdminToken>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct AdminToken {
    pub name: Box<str>,
    pub token: Secret,
    /// Of `connect`, `read`, `write`, `tokens`.
    pub allow: Vec<Box<str>>,
}

/// Whose token a route carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActAs {
    /// The end user's of the call.
    User,
    /// The app's own, whoever the call is for.
    App,
    /// None at all.
    None,
}

impl ActAs {
    /// The word that `as` says.
    pub fn word(self) -> &'static str {
        match self {
            ActAs::User => "user",
            ActAs::App => "app",
            ActAs::None => "none",
        }
    }

    pub fn carries_token(self) -> bool {
        self != ActAs::None
    }
}

/// Where a route's calls go.
#[derive(Debug, Clone)]
pub enum RouteOrigin {
    Fixed(Arc<Origin>),
    /// The host holds values of the call's connection.
    PerConnection(Arc<OriginTemplate>),
}

impl RouteOrigin {
    /// The same for calls of this registration: with its certificate where they carry its tokens, and trusted as it says. A connection's own
    /// host is given both when it is filled in.
    pub(super) fn reached_by(&self, registration: &Registration, act_as: ActAs) -> RouteOrigin {
        match self {
            RouteOrigin::Fixed(origin) if !act_as.carries_token() => RouteOrigin::Fixed(registration.proofs.trusted(Arc::clone(origin))),
            RouteOrigin::Fixed(origin) => RouteOrigin::Fixed(registration.proofs.reach(Arc::clone(origin))),
            RouteOrigin::PerConnection(template) => RouteOrigin::PerConnection(Arc::clone(template)),
        }
    }
}

/// `upstream_host` of a route.
#[derive(Debug, Clone)]
pub enum HostSent {
    /// Of the origin that the call goes to.
    Upstream,
    /// The client's own.
    Preserve,
    Name(HeaderValue),
}

/// A checked route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Where its calls are counted.
    pub slot: crate::metrics::Slot,
    /// `name`, or the match itself where it has none; unique.
    pub name: Box<str>,
    /// `match` as written.
    pub matches: Box<str>,
    pub act_as: ActAs,
    /// There unless `as: none` without a provider.
    pub provider: Option<Arc<Registration>>,
    pub origin: RouteOrigin,
    /// The values of the call's connection that its texts hold, but for the host's.
    pub needs: Box<[Need]>,
    /// Whether its calls have a part that is their connection's own: `needs`, a host, or what the provider puts on every call.
    pub has_own: bool,
    /// `placeholder`, where the route has a word of its own on it.
    pub placeholder: Option<bool>,
    /// How path and query become the upstream's, from `upstream`, `query` and `set_query`.
    pub rewrite: Rewrite,
    /// `rewrite_location`: the way back from the upstream's paths.
    pub reverse: Option<Arc<Reverse>>,
    /// `upstream` as written.
    pub upstream: Box<str>,
    /// The route's `attach` or its provider's.
    pub attach: Scheme,
    pub headers: HeaderEdits,
    /// The `Host` sent upstream.
    pub host: HostSent,
    pub timeouts: Timeouts,
    /// `retry.max_body`: up to how long a request body is kept for the one replay after a 401.
    pub replay_body_max: usize,
    /// `retry`, where it has attempts.
    pub retry: Option<Box<Retry>>,
    /// `max_body`: the longest request body taken.
    pub body_max: Option<u64>,
    /// `max_signed_body`: the longest form taken where the attach scheme signs forms.
    pub signed_body_max: usize,
    /// `cookies: pass`.
    pub cookies_pass: bool,
    /// `websocket: true`: upgrades pass, and become tunnels where the upstream agrees.
    pub websocket: bool,
    /// The names in `callers`, when the route narrows them.
    pub callers: Option<Vec<Box<str>>>,
    /// `rate_limit`, with what was counted.
    pub limits: Option<Arc<Limits>>,
    /// What few routes have, apart, so that the others' calls ask for it once.
    pub special: Option<Arc<Special>>,
}

/// `retry:` of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How often a call is made again.
    pub attempts: u32,
    pub statuses: Box<[StatusCode]>,
    /// After no connection came about.
    pub connect: bool,
    /// After a connection broke before an answer.
    pub reset: bool,
    /// After no answer came within `timeout.first_byte`.
    pub timeout: bool,
}

/// `send`, `follow` and `response` of a route.
#[derive(Debug, Default)]
pub struct Special {
    pub send: Option<SendAs>,
    /// `follow: no_token`.
    pub follow: bool,
    pub response: Option<ResponseAs>,
}

impl Special {
    /// The values of a connection that stand in `send`.
    pub fn values(&self) -> Vec<&str> {
        let Some(send) = &self.send else { return Vec::new() };
        let headers = send.headers.iter().flat_map(|(_, source)| match source {
            HeaderSource::Text(template) => template.values().collect(),
            HeaderSource::Json(template) => template.values(),
        });
        let body = match &send.body {
            Some(BodySource::Json(template)) => template.values(),
            Some(BodySource::Form(template)) => template.values().collect(),
            None => Vec::new(),
        };
        headers.chain(body).collect()
    }
}

/// `send`: the upstream's request, where it is not the client's.
#[derive(Debug)]
pub struct SendAs {
    pub method: Method,
    pub headers: Vec<(HeaderName, HeaderSource)>,
    pub body: Option<BodySource>,
}

/// What a header of `send` is made of.
#[derive(Debug)]
pub enum HeaderSource {
    Text(crate::route::Template),
    Json(JsonTemplate),
}

/// What the body of `send` is made of.
#[derive(Debug)]
pub enum BodySource {
    Json(JsonTemplate),
    Form(FormTemplate),
}

/// `response`: what becomes of a JSON answer.
#[derive(Debug)]
pub struct ResponseAs {
    pub selector: Selector,
    /// `location`: the text that is found says where the answer is, instead of being it.
    pub is_location: bool,
    /// `max`: the longest answer that is read.
    pub bytes_max: usize,
}

impl Route {
    /// Whether each call names an end user, whose token it carries; not where the provider is off.
    pub fn names_end_user(&self) -> bool {
        self.act_as == ActAs::User && self.provider.as_ref().is_some_and(|provider| provider.off.is_none())
    }

    /// Whether forms are signed on this route, and so must be read before they are sent.
    pub fn signs_form(&self) -> bool {
        self.act_as.carries_token() && self.attach.needs() == Needs::Form
    }
}

/// `headers:` of a route; values may hold captures.
#[derive(Debug, Clone, Default)]
pub struct HeaderEdits {
    pub set: Vec<(HeaderName, crate::route::Template)>,
    pub add: Vec<(HeaderName, crate::route::Template)>,
    pub remove: Vec<HeaderName>,
}

/// `timeout:` of a route. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Option<Duration>,
    pub first_byte: Option<Duration>,
    pub idle: Option<Duration>,
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |n| Some(Duration::from_secs(n));
        Timeouts { connect: seconds(5), first_byte: seconds(60), idle: seconds(60), total: None }
    }
}
