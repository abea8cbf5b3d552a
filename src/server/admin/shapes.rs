//! The bodies of the admin API as the OpenAPI document describes them, one field a member.
//!
//! Bodies are read and written member by member (`read.rs`, `store::wire`), so that no fault can quote a token; these shapes are what they are
//! documented by, and a test holds that both know the same members.

#![expect(dead_code, reason = "never built: their fields and comments are the schema")]

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A name as calls have it: 1 to 256 bytes, no control bytes, no comma.
#[derive(JsonSchema)]
struct Name(#[schemars(length(min = 1, max = 256), regex(pattern = r"^[^\x00-\x1f\x7f-\x9f,]+$"))] String);

/// A time as RFC 3339 has it, in UTC.
#[derive(JsonSchema)]
struct Time(#[schemars(extend("format" = "date-time"))] String);

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum State {
    Pending,
    Active,
    Expired,
    ReconnectRequired,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Completes {
    Browser,
    App,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum SessionWord {
    Open,
    Begun,
    Pending,
    Connected,
    Denied,
    Failed,
    Discarded,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum DeviceWord {
    Pending,
    Connected,
    Denied,
    Expired,
    Failed,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum RevokedWord {
    Yes,
    No,
    Unsupported,
}

/// A connect session to make.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct NewSession {
    /// Who connects: the name that calls have in `X-End-User`.
    end_user: Name,
    /// The registrations to choose from; all that can be connected if left out.
    providers: Option<Vec<String>>,
    /// Tells apart two connections of one end user at one provider.
    account: Option<Name>,
    /// Where the browser goes afterwards; one of `connect.allowed_return_urls`.
    return_url: Option<String>,
    /// What to ask for instead of what the registration says. What a connection has already is asked for again.
    scopes: Option<Vec<String>>,
    /// Further parameters of the authorization request, such as `login_hint`.
    params: Option<BTreeMap<String, String>>,
    /// Kept with the connection.
    metadata: Option<Map<String, Value>>,
    /// `app`: the connection is active only once the app says so. It stops a forwarded link from joining another's account.
    complete: Option<Completes>,
    /// How long the link is good, in seconds.
    #[schemars(range(min = 10, max = 86400))]
    ttl_s: Option<u64>,
}

/// A connect session.
#[derive(JsonSchema)]
struct Session {
    /// The link for the end user's browser.
    connect_url: String,
    /// The id to complete it with.
    session: String,
    expires_at: Time,
}

/// How far a connect session has come.
#[derive(JsonSchema)]
struct SessionState {
    state: SessionWord,
    /// Once one was chosen.
    provider: Option<String>,
    expires_at: Time,
}

/// The app's word on a session.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Completion {
    /// The `completion` of the `return_url`.
    completion: String,
    /// Who is logged in at the app.
    end_user: String,
}

/// A device session to make.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct NewDevice {
    provider: String,
    end_user: Name,
    account: Option<Name>,
    scopes: Option<Vec<String>>,
    metadata: Option<Map<String, Value>>,
}

/// What to show the end user: the code as text beside the link.
#[derive(JsonSchema)]
struct Device {
    id: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_at: Time,
}

/// What became of a device session.
#[derive(JsonSchema)]
struct DeviceState {
    state: DeviceWord,
    provider: String,
    expires_at: Time,
}

/// One end user's grant at one provider, without its tokens.
#[derive(JsonSchema)]
struct Connection {
    id: String,
    provider: String,
    /// Empty for an app's own token.
    end_user: String,
    account: String,
    state: State,
    scopes: Vec<String>,
    /// Asked for, and not granted.
    missing_scopes: Vec<String>,
    expires_at: Option<Time>,
    created_at: Time,
    updated_at: Time,
    last_used_at: Option<Time>,
    metadata: Map<String, Value>,
    last_error: Option<String>,
}

/// One page of connections.
#[derive(JsonSchema)]
struct ConnectionPage {
    items: Vec<Connection>,
    next_cursor: Option<String>,
}

/// A connection to import. One token or key is needed: `access_token`, `refresh_token`, `api_key`, `username` with `password`, or `sealed`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ImportLine {
    /// As in the path.
    provider: Option<String>,
    /// As in the path.
    end_user: Option<String>,
    /// As in the query.
    account: Option<Name>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    /// OAuth 1.0a: the secret that signs with `access_token`.
    token_secret: Option<String>,
    /// The key that the token is bound to (`dpop`): PKCS#8 in PEM, on P-256.
    dpop_key: Option<String>,
    /// `Bearer` if left out; `OAuth1` beside a `token_secret`.
    token_type: Option<String>,
    /// When the access token ends; never if left out.
    expires_at: Option<Time>,
    scopes: Option<Vec<String>>,
    metadata: Option<Map<String, Value>>,
    /// A static key instead of tokens.
    api_key: Option<String>,
    /// Basic credentials instead of tokens.
    username: Option<String>,
    password: Option<String>,
    /// What an export gave, instead of tokens.
    sealed: Option<String>,
}

/// What to change of the metadata.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct MetadataPatch {
    metadata: Map<String, Value>,
}

/// An exported connection: an import line.
#[derive(JsonSchema)]
struct ExportLine {
    provider: String,
    end_user: String,
    account: String,
    /// Everything else, sealed with the store's key for this connection alone.
    sealed: String,
}

/// One page of an export.
#[derive(JsonSchema)]
struct ExportPage {
    items: Vec<ExportLine>,
    next_cursor: Option<String>,
}

/// What became of a token at its provider.
#[derive(JsonSchema)]
struct Revocation {
    revoked: RevokedWord,
    detail: String,
}

/// An access token.
#[derive(JsonSchema)]
struct Token {
    access_token: String,
    token_type: String,
    expires_at: Option<Time>,
}

/// A reload that went live.
#[derive(JsonSchema)]
struct Reloaded {
    generation: u64,
    /// The keys whose change waits for a restart.
    restart_required: Vec<String>,
}

/// Everything that is wrong with the config.
#[derive(JsonSchema)]
struct ConfigErrors {
    errors: Vec<ConfigError>,
}

#[derive(JsonSchema)]
struct ConfigError {
    file: String,
    line: Option<u64>,
    column: Option<u64>,
    message: String,
    hint: Option<String>,
}

#[derive(JsonSchema)]
struct Routes {
    generation: u64,
    items: Vec<Route>,
}

#[derive(JsonSchema)]
struct Route {
    name: String,
    #[schemars(rename = "match")]
    matches: String,
    upstream: String,
    provider: Option<String>,
    attach: String,
    /// The addresses of its own listener, for one of `listen.origins`; null on the proxy listener.
    listen: Option<Vec<String>>,
}

#[derive(JsonSchema)]
struct Providers {
    items: Vec<Provider>,
}

#[derive(JsonSchema)]
struct Provider {
    id: String,
    definition: String,
    display_name: String,
    on: bool,
    off_because: Option<String>,
    /// To register at the provider, byte for byte.
    redirect_uri: String,
    /// Whether end users can connect to it.
    connectable: bool,
    category: String,
    /// How far the facts of its definition were checked: `full` or `partial`.
    verified: String,
    /// What connecting asks of the end user besides consent.
    inputs: Vec<ProviderInput>,
}

#[derive(JsonSchema)]
struct ProviderInput {
    name: String,
    label: String,
    example: Option<String>,
    /// Cut off what is typed.
    suffix: Option<String>,
    /// Given by the registration: nobody is asked.
    value: Option<String>,
}

/// What a call would become.
#[derive(JsonSchema)]
struct Explained {
    route: Option<String>,
    #[schemars(rename = "match")]
    matches: Option<String>,
    provider: Option<String>,
    upstream_url: Option<String>,
    attach: Option<String>,
    refused: Option<Refused>,
}

/// One call through the proxy, as it ended.
#[derive(JsonSchema)]
struct SeenCall {
    /// Counts up over the life of the process; the event's id too.
    number: u64,
    at: Time,
    request_id: String,
    /// Null where no route took it.
    route: Option<String>,
    provider: Option<String>,
    /// Whose token went on.
    connection_id: Option<String>,
    method: String,
    status: u16,
    /// Of the answer's body.
    bytes: u64,
    took_ms: f64,
    /// From the last sending to the head of the upstream's answer.
    upstream_ms: Option<f64>,
    waited_for_token: bool,
    replays: u32,
    /// The answer did not get through whole.
    cut: bool,
    /// The name of Attaché's own error.
    error: Option<String>,
}

#[derive(JsonSchema)]
struct Calls {
    items: Vec<SeenCall>,
    /// How many calls since the start were too many to be kept.
    left_out: u64,
}

#[derive(JsonSchema)]
struct Refused {
    #[schemars(rename = "type")]
    kind: String,
    detail: String,
}

/// How many records there are of each kind.
#[derive(JsonSchema)]
struct KindCounts {
    connections: u64,
    sessions: u64,
    intents: u64,
    outbox: u64,
}

/// How many connections there are in each state.
#[derive(JsonSchema)]
struct StateCounts {
    pending: u64,
    active: u64,
    expired: u64,
    reconnect_required: u64,
}

/// What the store holds.
#[derive(JsonSchema)]
struct StoreCheck {
    /// Whether every record opens.
    whole: bool,
    records: KindCounts,
    states: StateCounts,
    /// The fingerprint of the key that seals.
    first_key: Option<String>,
    keys: Vec<KeyUse>,
    /// Records that open, but not with the first key.
    rekey_needed: KindCounts,
    /// The first hundred of what does not open.
    faults: Vec<StoreFault>,
    faults_total: u64,
}

#[derive(JsonSchema)]
struct KeyUse {
    /// Its fingerprint, which tells nothing of the key itself.
    key: String,
    records: u64,
    /// Whether it is the key that seals.
    first: bool,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Flaw {
    KeyMissing,
    Newer,
    Broken,
}

/// A record that does not open.
#[derive(JsonSchema)]
struct StoreFault {
    kind: String,
    /// Provider, end user and account of a connection; a hash of the key of anything else.
    record: String,
    flaw: Flaw,
    why: String,
}

/// A record as it lies in the store.
#[derive(JsonSchema)]
struct SealedRecord {
    /// Base64.
    key: String,
    version: u64,
    /// Base64 of what is sealed.
    value: String,
}

/// One page of sealed records.
#[derive(JsonSchema)]
struct SealedPage {
    items: Vec<SealedRecord>,
    next_cursor: Option<String>,
}

/// What became of one page of records.
#[derive(JsonSchema)]
struct Rekeyed {
    resealed: u64,
    /// Sealed with the first key already.
    left: u64,
    /// What does not open, and is left as it is.
    faults: Vec<StoreFault>,
    next_cursor: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum GateWord {
    Open,
    Closing,
    Closed,
}

/// Whether the store takes writes.
#[derive(JsonSchema)]
struct StoreGate {
    gate: GateWord,
}

/// OpenAPI 3.1.
#[derive(JsonSchema)]
struct OpenApi {
    openapi: String,
}

/// An error (RFC 9457).
#[derive(JsonSchema)]
struct Problem {
    /// `urn:attache:NAME`.
    #[schemars(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    detail: String,
}

/// Every shape by its name, as `components.schemas` wants them.
pub(super) fn schemas() -> Map<String, Value> {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = SchemaGenerator::new(settings);
    macro_rules! shapes {
        ($($shape:ident),*) => { $( let _ = generator.subschema_for::<$shape>(); )* };
    }
    shapes!(
        NewSession,
        Session,
        SessionState,
        Completion,
        NewDevice,
        Device,
        DeviceState,
        ConnectionPage,
        ImportLine,
        MetadataPatch,
        ExportPage,
        Revocation,
        Token,
        Reloaded,
        ConfigErrors,
        Routes,
        Calls,
        Providers,
        Explained,
        StoreCheck,
        SealedPage,
        Rekeyed,
        StoreGate,
        OpenApi,
        Problem
    );
    generator.take_definitions(true)
}
