//! The shapes of `routes.yaml` and of provider definitions as editors and `attache schema` know them, one field a key.
//!
//! The loader reads keys one by one, so that it can tell every fault at its place; these shapes are what it is documented by. A test holds that
//! both know the same keys. The doc comments become the descriptions that an editor shows.

#![expect(dead_code, reason = "never built: their fields and comments are the schema")]

mod definition;
mod mint;
mod proofs;
mod scalars;

use definition::{Attach, Definition, DefinitionKeys};
use mint::{JwtBearer, TokenExchange};
use scalars::*;
use schemars::{JsonSchema, Schema};
use std::collections::BTreeMap;

/// The JSON Schema of `routes.yaml`.
pub fn schema() -> serde_json::Value {
    titled(schemars::schema_for!(Config), "Attaché: routes.yaml")
}

/// The JSON Schema of `providers/ID.yaml`.
pub fn definition_schema() -> serde_json::Value {
    titled(schemars::schema_for!(Definition), "Attaché: a provider definition")
}

fn titled(schema: Schema, title: &str) -> serde_json::Value {
    let mut schema = schema.to_value();
    schema["title"] = title.into();
    schema
}

/// `routes.yaml`. Scalars may hold `${NAME}`, `${NAME:-fallback}` (environment) or `${file:PATH}` (a mounted secret); `$${` is a literal `${`. Inside `[ ]` and `{ }` write the quotes: `["${NAME}"]`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Config {
    /// Where Attaché listens. A change needs a restart.
    listen: Option<Listen>,
    /// The address of the public listener as browsers see it; redirect URIs are `{public_url}/oauth/callback/{provider}`.
    public_url: Option<Url>,
    /// Which headers say on whose behalf a call is made.
    end_user: Option<EndUser>,
    /// Where connections are kept, and the keys that seal them. A change needs a restart.
    store: Option<Store>,
    /// Who may call the admin API. A change needs a restart.
    admin: Option<Admin>,
    /// The client apps that may call. Without any, whoever reaches the proxy listener may.
    callers: Option<Vec<Caller>>,
    /// The client registrations: one for each provider whose tokens routes carry. The id stands in the redirect URI.
    providers: Option<BTreeMap<String, Option<Provider>>>,
    /// A folder of provider definitions in place of `./providers`.
    providers_dir: Option<Text>,
    /// Which requests become which upstream calls. Their order decides nothing: the most specific match does.
    routes: Option<Vec<Route>>,
    /// How much is sent to upstreams at once, and when one that is down is left alone.
    upstreams: Option<Upstreams>,
    /// What is logged.
    log: Option<Log>,
    /// Whether calls are counted, and who may read `/metrics`.
    metrics: Option<Metrics>,
    /// Who is told of what happens, without asking.
    notify: Option<Vec<Notify>>,
    /// How Attaché stops. A change needs a restart.
    shutdown: Option<Shutdown>,
    /// How the connect pages look and where they may lead.
    connect: Option<Connect>,
}

/// The listeners: each an address, `unix:PATH`, or a mapping with `bind` and `hosts`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Listen {
    /// For the client app; every path belongs to the routes. By default `127.0.0.1:7070` and `[::1]:7070`.
    proxy: Option<Listener>,
    /// For end users' browsers: connect pages and OAuth callbacks. By default `127.0.0.1:7071`.
    public: Option<Listener>,
    /// For operators and the client app's back end. By default `127.0.0.1:7072`; off loopback and unix sockets it needs `tls`.
    admin: Option<Listener>,
    /// Only `/healthz` and `/readyz`, without a token. Off by default.
    health: Option<Health>,
    /// Further proxy listeners, each one upstream's whole origin: for SDKs that take a host and port but drop a path prefix.
    origins: Option<Vec<OriginListener>>,
    /// Web origins whose pages may call the proxy listener, as browsers send them: `http://localhost:3000`.
    allowed_origins: Option<Vec<Text>>,
    /// Lets a proxy listener off loopback start without `callers`. Anyone who reaches it can then use your users' tokens.
    allow_anonymous: Option<Flag>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Listener {
    Address(Address),
    Keys(ListenerKeys),
}

/// A listener with more to say than its address.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ListenerKeys {
    /// One address or several.
    bind: Binds,
    /// What the `Host` of a request may say, besides loopback names, the address itself and the hosts of routes.
    hosts: Option<Vec<Text>>,
    /// Of the proxy listener: as `end_user.placeholder`, for the calls that come in by it.
    placeholder: Option<Flag>,
    /// TLS on its addresses; unix sockets stay as they are.
    tls: Option<ListenerTls>,
    /// Of the public listener: the most connections that one address may hold; 64 by default.
    connections_per_address: Option<Count>,
}

/// A listener's certificate and key, and whose client certificates it takes. A renewed file goes live without a restart.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ListenerTls {
    /// The listener's certificate, its issuers behind it: a path, or the PEM text itself by `${file:PATH}` or `${NAME}`.
    cert: Text,
    /// Its key, likewise.
    key: Text,
    /// The authorities whose client certificates are taken, likewise. On `proxy` and `origins` a client may come without one, and is then no
    /// caller with a `cert_san`; on the others it may not.
    client_ca: Option<Text>,
}

/// A proxy listener that is one upstream's whole origin: the route `/{*rest}` of that upstream, with every key a route may have.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OriginListener {
    /// One address or several.
    bind: Binds,
    /// What the `Host` of a request may say, besides loopback names and the address itself.
    hosts: Option<Vec<Text>>,
    /// TLS on its addresses; unix sockets stay as they are.
    tls: Option<ListenerTls>,
    /// Names it in the log and in callers' lists; its first address by default.
    name: Option<Text>,
    #[schemars(flatten)]
    route: RouteKeys,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Binds {
    One(Address),
    Several(Vec<Address>),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum OneOrMore {
    One(Text),
    Several(Vec<Text>),
}

/// Which headers name the end user.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EndUser {
    /// Names the end user on each call; `X-End-User` by default. Removed before the call goes upstream.
    header: Option<Text>,
    /// Tells apart two connections of one end user at one provider; `X-End-User-Account` by default.
    account_header: Option<Text>,
    /// Who calls when the header is absent: for one-person use.
    default: Option<Text>,
    /// Lets the end user's name, or `NAME:CALLERKEY`, stand where an SDK wants its token. It is read from there and replaced.
    placeholder: Option<Flag>,
    /// The header, and the placeholder, then hold a signed token (JWT) of at most 8 KiB that proves who the end user is.
    jwt: Option<Jwt>,
}

/// How signed tokens prove who the end user is. One of `jwks_url` and `secret_file`. `exp` is required.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Jwt {
    /// Where the issuer publishes its public keys (a JWK set): https, or http on loopback.
    jwks_url: Option<Url>,
    /// A file with the secret that the issuer signs with: at least 32 bytes, used as they are but for a last line end.
    secret_file: Option<Text>,
    /// What tokens may be signed by; by default all that the kind of key allows, `HS256` alone for a secret.
    algorithms: Option<Vec<JwtAlgorithm>>,
    /// Whom tokens must be for (`aud`): one text or several. Without it, tokens that have an audience are refused.
    audience: Option<Texts>,
    /// Whose tokens they must be (`iss`), exactly; anybody's by default.
    issuer: Option<Text>,
    /// The claim that holds the end user's name; `sub` by default.
    claim: Option<Text>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Texts {
    One(Text),
    Several(Vec<Text>),
}

/// The store and its keys.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Store {
    /// A folder on this machine; the default, at `./attache.db`.
    sled: Option<Sled>,
    /// A PostgreSQL that runs already, shared by as many replicas as there are.
    postgres: Option<Postgres>,
    /// A Redis that runs already and keeps what it acknowledges, shared likewise.
    redis: Option<Redis>,
    /// Nothing outlives the process: for trying things out.
    memory: Option<Memory>,
    /// How long fresh tokens are served while a shared store is out of reach; 60 s by default.
    max_stale: Option<Span>,
    /// `relaxed`: take a server that may lose what it acknowledged. A rotated token that is lost so costs its grant.
    durability: Option<Durability>,
    /// A file with the key that seals every record; `./attache.key` by default, made at the first start. Back it up, apart from the store.
    encryption_key_file: Option<Text>,
    /// The keys themselves, each base64 of 32 bytes: the first encrypts, all decrypt.
    encryption_keys: Option<Vec<Text>>,
}

/// A store in a folder.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sled {
    /// The folder; made at the first start.
    path: Option<Text>,
}

/// A store in PostgreSQL.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Postgres {
    /// `postgres://user:password@host/database`, best as `${DATABASE_URL}`. `sslmode` and `sslrootcert` as libpq knows them.
    url: Text,
}

/// A store in Redis.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Redis {
    /// `redis://user:password@host:6379/0`, or `rediss://` for TLS; best as `${REDIS_URL}`. `?ca=FILE` names the authorities.
    url: Text,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Durability {
    Strict,
    Relaxed,
}

/// A store in memory has no keys.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Memory {}

/// The admin API's tokens: one of the three ways.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Admin {
    /// A file with the token; `./attache.admin-token` by default, made at the first start.
    token_file: Option<Text>,
    /// The token itself, best as `${NAME}`. It may do all but read users' tokens.
    token: Option<Text>,
    /// Several tokens, each with what it may do.
    tokens: Option<Vec<AdminTokenEntry>>,
    /// The user ids that need no token when `listen.admin` is a unix socket, besides root and the one that Attaché runs as.
    uids: Option<Vec<Count>>,
}

/// One admin token.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AdminTokenEntry {
    /// Names it in the log.
    name: Text,
    /// The token itself, best as `${NAME}`.
    token: Text,
    /// What it may do: `connect`, `read` and `write` by default; `tokens` lets it read users' tokens.
    allow: Option<Vec<Allow>>,
}

/// A client app that may call.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Caller {
    /// Names it in the log and in a route's `callers`.
    name: Text,
    /// The SHA-256 of its key in hex: `printf %s "$KEY" | sha256sum`. The app sends the key as `X-Attache-Key` or in `Proxy-Authorization`.
    key_sha256: Option<KeyHash>,
    /// The user id of its process, on a unix socket.
    uid: Option<Count>,
    /// A subject alternative name of its client certificate, or several of which one is enough: DNS names and URIs, matched exactly.
    cert_san: Option<OneOrMore>,
    /// The routes it may call; all by default.
    routes: Option<Vec<Text>>,
    /// The providers whose tokens it may use; all by default.
    providers: Option<Vec<Text>>,
}

/// A client registration. It may also hold every key of a definition: its own then stand over the definition's, and `token_hosts` widens them.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Provider {
    /// The definition to use, where it is not called as this registration is.
    #[schemars(rename = "use")]
    definition: Option<Text>,
    /// If a variable of it is not set, the provider is off and its routes answer 503, instead of a config that does not load.
    optional: Option<Flag>,
    /// The client's id at the provider.
    client_id: Option<Text>,
    /// The client's secret, best as `${NAME}` or `${file:PATH}`. Without one the client is a public one.
    client_secret: Option<Text>,
    /// For `client_auth: private_key_jwt` and `secret_jwt`: the private key in PEM, best as `${file:PATH}`.
    client_key: Option<Text>,
    /// The `kid` that the provider knows the key by.
    client_key_id: Option<Text>,
    /// What the key signs by; the usual one of its kind by default.
    client_key_algorithm: Option<KeyAlgorithm>,
    /// The client's certificate in PEM, its issuers behind it: shown to the provider's token endpoint and API (RFC 8705).
    client_cert: Option<Text>,
    /// The private key of `client_cert` in PEM, best as `${file:PATH}`.
    client_cert_key: Option<Text>,
    /// Certificates of authorities in PEM, best as `${file:PATH}`: who vouches for the provider's servers, token endpoint and API alike, in place of the machine's roots.
    ca_cert: Option<Text>,
    /// Tokens for a signed assertion, as service accounts have it (RFC 7523): no end user consents.
    jwt_bearer: Option<JwtBearer>,
    /// Tokens for the end user's tokens at another provider (RFC 8693).
    token_exchange: Option<TokenExchange>,
    #[schemars(flatten)]
    definition_keys: DefinitionKeys,
}

/// A rule: which requests it takes, which upstream URL they become, whose token they carry.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Route {
    /// Names it in the log and in callers' lists; its match by default.
    name: Option<Text>,
    /// `[METHOD[,METHOD]] [host]/path`, with `{name}` for one segment and a last `{*name}` for the rest.
    #[schemars(rename = "match")]
    matches: Text,
    #[schemars(flatten)]
    keys: RouteKeys,
}

/// What a route says besides which requests it takes.
#[derive(JsonSchema)]
struct RouteKeys {
    /// Whose tokens it carries: an id under `providers`.
    provider: Option<Text>,
    /// The whole upstream URL. Captures may stand in its path and query, never in its host; values of the connection (the provider's `inputs` and `metadata`) in all three.
    upstream: Url,
    /// Query parameters that are added unless the client sent them.
    query: Option<BTreeMap<String, Text>>,
    /// Query parameters that stand whatever the client sent.
    set_query: Option<BTreeMap<String, Text>>,
    /// Headers to set, add or remove.
    headers: Option<Headers>,
    /// How the token goes on, where it is not as the provider says.
    attach: Option<Attach>,
    /// `user`: the end user's token, the default. `app`: the app's own token (RFC 6749 §4.4), whoever calls. `none`: no token at all.
    #[schemars(rename = "as")]
    act_as: Option<ActAs>,
    /// The `Host` sent upstream: `upstream` (the default), `preserve` (the client's), or a name.
    upstream_host: Option<Text>,
    /// How long each part of a call may take; `none` is no limit.
    timeout: Option<Timeout>,
    /// What may be sent twice.
    retry: Option<Retry>,
    /// The longest request body taken; no limit by default.
    max_body: Option<SizeOrNone>,
    /// The longest form taken where `attach` signs forms (`oauth1`), which are read whole for it; 1 MiB by default. Other bodies stream.
    max_signed_body: Option<Size>,
    /// The callers that may use this route; all by default.
    callers: Option<Vec<Text>>,
    /// How many calls it takes of each end user, as `10/s`, `100/m`, `1000/h` or `50/30s`; no limit by default. Beyond it calls get 429.
    rate_limit: Option<RateLimit>,
    /// `strip` by default: end users share one origin, and a cookie jar would mix them. `pass` lets cookies through.
    cookies: Option<Cookies>,
    /// As `end_user.placeholder`, for this route's calls.
    placeholder: Option<Flag>,
    /// Lets a token travel over plain HTTP to a host that is not loopback.
    allow_plain_http: Option<Flag>,
    /// Lets upgrades to WebSocket (RFC 6455) and other single protocols pass, with the token on the request. `false` by default.
    websocket: Option<Flag>,
    /// Makes `Location` and `Content-Location` of answers the route's own path where they stay under its upstream.
    rewrite_location: Option<Flag>,
    /// The upstream's request, where it is not the client's: for APIs that want a POST behind a plain GET.
    send: Option<Send>,
    /// `no` by default: redirects are passed on. `no_token` fetches what a GET's redirect names, without token or identity, three hops at most and from public addresses alone.
    follow: Option<Follow>,
    /// What becomes of a JSON answer; by default it passes as it is.
    response: Option<Response>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum RateLimit {
    User(RateText),
    UserRate(Rate),
    Scopes(RateLimits),
}

/// One rate for each end user, and one for the route as a whole.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RateLimits {
    /// Of each end user; of each caller on routes that know no end user.
    user: Option<OneRate>,
    /// Of all together.
    route: Option<OneRate>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum OneRate {
    Text(RateText),
    Rate(Rate),
}

/// So many calls in a while, and so many at once.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Rate {
    /// How many calls.
    requests: Count,
    /// In how long: whole seconds, at most `1d`. They come back one by one, evenly over it.
    per: Span,
    /// How many may come at once; as many as `requests` by default.
    burst: Option<Count>,
}

/// The upstream's request.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Send {
    /// Its method; `POST` by default.
    method: Option<Text>,
    /// Headers to set, after those of `headers`; values may hold captures.
    headers: Option<BTreeMap<String, SendHeader>>,
    /// Its body as JSON, of which the texts may hold captures.
    json: Option<Anything>,
    /// Its body as a form, of which the values may hold captures.
    form: Option<BTreeMap<String, Text>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum SendHeader {
    Text(Text),
    Json(JsonHeader),
}

/// A header that holds JSON, in ASCII alone.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct JsonHeader {
    /// The JSON, of which the texts may hold captures.
    json: Anything,
}

/// What becomes of a JSON answer of status 2xx. One of `select` and `location`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Response {
    /// A JMESPath expression (jmespath.org): what it finds is the answer.
    select: Option<Text>,
    /// A JMESPath expression that finds the URL of the answer, which is then fetched as `follow: no_token` fetches a redirect's.
    location: Option<Text>,
    /// The longest answer that is read; 1MiB by default.
    max: Option<Size>,
}

/// Header edits; values may hold captures.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Headers {
    /// Replaces whatever the client sent.
    set: Option<BTreeMap<String, Text>>,
    /// Adds a line beside what the client sent.
    add: Option<BTreeMap<String, Text>>,
    /// Removes what the client sent.
    remove: Option<Vec<Text>>,
}

/// The time limits of a call.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Timeout {
    /// Until the connection stands, TLS included; 5 s by default.
    connect: Option<Limit>,
    /// Until the head of the answer comes; 60 s by default.
    first_byte: Option<Limit>,
    /// Between two pieces of the answer's body; 60 s by default.
    idle: Option<Limit>,
    /// For the whole call; none by default.
    total: Option<Limit>,
}

/// What may be sent twice.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Retry {
    /// How often a call that failed is made again; 0 by default, at most 10. Only calls that can be repeated are: idempotent ones, those with an `Idempotency-Key`, and those that came to no connection or were answered 429.
    attempts: Option<Count>,
    /// After what: statuses from 400 to 599, `connect`, `reset` (the connection broke before an answer) and `timeout` (no answer within `first_byte`). `[429, 502, 503, 504, connect]` by default.
    on: Option<Vec<RetryOn>>,
    /// The longest request body kept to be sent again; 64KiB by default.
    max_body: Option<Size>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum RetryOn {
    Status(Count),
    Word(RetryWord),
}

/// One that is told: by a webhook or by a program.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Notify {
    /// Where notices are posted, in the Standard Webhooks format.
    webhook: Option<Url>,
    /// What signs them: base64 of 24 to 64 bytes, as `attache keygen` makes it, `whsec_` before it or not.
    secret: Option<Text>,
    /// A program, or a list of it and its arguments, that gets each notice on its standard input.
    exec: Option<Texts>,
    /// Which it wants; all by default.
    events: Option<Vec<EventName>>,
}

/// What can be told.
#[derive(JsonSchema)]
enum EventName {
    #[schemars(rename = "connection.created")]
    ConnectionCreated,
    #[schemars(rename = "connection.reconnect_required")]
    ConnectionReconnectRequired,
    #[schemars(rename = "connection.deleted")]
    ConnectionDeleted,
    #[schemars(rename = "refresh.failing")]
    RefreshFailing,
    #[schemars(rename = "refresh.recovered")]
    RefreshRecovered,
    #[schemars(rename = "provider.outage")]
    ProviderOutage,
    #[schemars(rename = "provider.recovered")]
    ProviderRecovered,
    #[schemars(rename = "upstream.errors")]
    UpstreamErrors,
    #[schemars(rename = "config.refused")]
    ConfigRefused,
}

/// What is logged, on standard error.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Log {
    /// `error`, `warn`, `info` (the default), `debug` or `trace`, also by target: `info,attache::token=debug`. The environment's RUST_LOG goes first.
    level: Option<Text>,
    /// Which calls have a line: `all` (the default), `errors` (those that were answered 400 or more or were cut) or `none`.
    calls: Option<LoggedCalls>,
    /// The share of the calls that went well which have a line, from 0 to 1; 1 by default. The others always have one.
    sample: Option<Share>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum LoggedCalls {
    All,
    Errors,
    None,
}

/// The counts at `/metrics`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Metrics {
    /// `false`: calls are not counted, and there is no `/metrics`. On by default.
    enabled: Option<Flag>,
    /// Show `/metrics` on the health listener too, without a token: for a scraper that comes from outside. Off by default.
    on_health: Option<Flag>,
}

/// Limits of what is sent to upstreams. Numbers are of one upstream and one worker; there is a worker a core.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Upstreams {
    /// Connections to one upstream; 512 by default.
    max_connections: Option<Count>,
    /// Calls that wait in line for one; 1024 by default. Past it calls are answered 503 `overloaded`.
    max_waiting: Option<Count>,
    /// How long a call waits in line; 5s by default.
    wait: Option<Span>,
    /// How long an unused connection is kept; 50s by default, and less where the upstream says so (`Keep-Alive: timeout`).
    idle: Option<Span>,
    /// Calls of one worker in flight to all upstreams; 10000 by default. Past it calls are answered 503 `overloaded`.
    max_calls: Option<Count>,
    /// When an upstream that fails is no longer asked; `off` for never.
    circuit: Option<CircuitOrOff>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum CircuitOrOff {
    Off(Off),
    Circuit(Circuit),
}

/// The circuit breaker of each upstream.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Circuit {
    /// Failures one after another that open it: no connection, or no HTTP on it. An answer of any status is none, nor is a slow one. 20 by default.
    failures: Option<Count>,
    /// How long it is open at first, doubled each time that the probe behind it fails; 1s by default.
    open: Option<Span>,
    /// And at most; 60s by default.
    open_max: Option<Span>,
}

/// How Attaché stops.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Shutdown {
    /// How long calls in flight may take to end; 30 s by default.
    drain: Option<Span>,
}

/// The connect pages.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Connect {
    /// Your app's name, as end users know it.
    app_name: Option<Text>,
    /// Your app's logo: an https URL, or the path of a PNG, JPEG, WebP or SVG file of at most 64 KiB.
    logo: Option<Image>,
    /// The colour of buttons, as `"#rrggbb"` or `"#rgb"`.
    accent: Option<Colour>,
    /// Where an end user's browser may be sent after connecting: exact URLs (with any query unless the entry has one), URLs that end in `/*` for every path below, or bare origins for every path of theirs.
    allowed_return_urls: Option<Vec<Text>>,
    /// How long a connect link is good for; 15 min by default.
    session_ttl: Option<Span>,
}
