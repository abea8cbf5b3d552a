//! The shapes of a provider definition, which a registration may hold too.

use super::proofs::SecretJwt;
use super::scalars::*;
use schemars::JsonSchema;
use std::collections::BTreeMap;

/// What `providers/ID.yaml` says of a provider.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Definition {
    /// The client's id, where all use the same one.
    client_id: Option<Text>,
    #[schemars(flatten)]
    keys: DefinitionKeys,
}

#[derive(JsonSchema)]
pub(super) struct DefinitionKeys {
    /// The provider's name for people.
    display_name: Option<Text>,
    /// Groups it on the connect page and in lists.
    category: Option<Category>,
    /// Where the end user consents (RFC 6749 §3.1). https only, unless the host is loopback; so for every URL here. `{name}` is an input's or metadata value; in a registration `none` takes the definition's away.
    authorize_url: Option<UrlOrNone>,
    /// Where codes and refresh tokens become tokens (RFC 6749 §3.2).
    token_url: Option<UrlOrNone>,
    /// OAuth 1.0a: where a connection begins (RFC 5849 §2.1). `authorize_url` and `token_url` are that protocol's then.
    request_token_url: Option<UrlOrNone>,
    /// OAuth 1.0a (RFC 5849): how requests are signed.
    oauth1: Option<OAuth1>,
    /// Where a token is revoked (RFC 7009).
    revoke_url: Option<UrlOrNone>,
    /// Where the device flow begins (RFC 8628).
    device_authorization_url: Option<UrlOrNone>,
    /// Where the authorization request is pushed (RFC 9126).
    par_url: Option<UrlOrNone>,
    /// Who issues the tokens, exactly as the provider writes it. URLs that are not said here are discovered from it (RFC 8414), and `iss` and id tokens are checked against it.
    issuer: Option<UrlOrNone>,
    /// Further texts that `iss` may hold; one `*` stands for one path segment or host label.
    issuers: Option<Vec<Text>>,
    /// Sent as `redirect_uri` instead of our own URL, as it is: a name that was registered at the provider.
    redirect_uri: Option<Text>,
    /// `S256` by default; `S256_hex` for a provider that reads the hash in hex; `plain` and `none` only for one that takes nothing better (RFC 7636).
    pkce: Option<Pkce>,
    /// What the tokens are for: absolute URIs, sent with each request for tokens (RFC 8707).
    resource: Option<Vec<Text>>,
    /// What connecting asks of the end user: `consent` at the provider by default, or an `api_key` or `password` typed on the connect page.
    credential: Option<Credential>,
    /// How the client proves itself at the token endpoint: `basic` by default (`basic_raw` without the form-encoding), in the form `body`, by an assertion signed with `client_key` (`private_key_jwt`), by a secret that is such a JWT (`secret_jwt`), or by a certificate (`mtls`).
    client_auth: Option<ClientAuth>,
    /// For `client_auth: secret_jwt`: what the secret says.
    secret_jwt: Option<SecretJwt>,
    /// Each connection has a key of its own, and its tokens are good only with proofs of it (RFC 9449). `attach` is `dpop` then.
    dpop: Option<Flag>,
    /// How a client without a secret shows itself: `none` (its id in the body) by default, or `basic` with an empty password.
    public_client: Option<PublicClient>,
    /// What to ask for.
    scopes: Option<Vec<Text>>,
    /// What stands between scopes; a space by default.
    scope_separator: Option<Text>,
    /// Scopes written `GROUP=scope` go into the parameter that stands here for the group, instead of `scope`.
    scope_groups: Option<BTreeMap<String, Text>>,
    /// More parameters of the authorization request; their values may hold places. A registration's join the definition's.
    authorize_params: Option<BTreeMap<String, Text>>,
    /// More parameters of each token request; their values may hold places.
    token_params: Option<BTreeMap<String, Text>>,
    /// How a kind of call looks on the wire, where it is not as the RFCs say.
    calls: Option<Calls>,
    /// Where a token reply holds what.
    reply: Option<Reply>,
    /// What refusals of the token endpoint mean.
    errors: Option<Errors>,
    /// How the answer of the authorization request looks.
    callback: Option<Callback>,
    /// How the device flow's answers look.
    device: Option<Device>,
    /// What connecting asks besides consent, by name. In a registration a plain value is what nobody is asked for any more.
    inputs: Option<BTreeMap<String, InputOrValue>>,
    /// What the callback and the token reply leave in the connection's metadata, by name.
    metadata: Option<BTreeMap<String, CaptureOrPlace>>,
    /// Calls made once after connecting, for what the token reply does not hold.
    lookups: Option<Vec<Lookup>>,
    /// What every API call carries besides the token.
    api: Option<Api>,
    /// API answers that mean an expired token though they are no 401.
    expired_when: Option<Vec<Sign>>,
    /// How the token goes on a call; `bearer` by default.
    attach: Option<Attach>,
    /// The only hosts its tokens may be sent to, with the port where it is not 443; `*.example.com` for all sub-domains, `{name}` for a value that chooses a host, `!` before one that never sees a token.
    token_hosts: Option<Vec<Text>>,
    /// The life of a token whose answer names none, or `never`.
    default_expires_in: Option<Lifetime>,
    /// When and how tokens are refreshed.
    refresh: Option<Refresh>,
    /// Refresh a grant that was not used for so long, because it would die of disuse.
    keep_alive: Option<Span>,
    /// How far these facts were checked.
    verified: Option<Verified>,
}

/// How requests are signed by OAuth 1.0a; `{}` is enough.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OAuth1 {
    /// `HMAC-SHA1` by default. `RSA-SHA1` signs by `client_key`; `PLAINTEXT` sends the secrets themselves, over https or to loopback only.
    signature: Option<OAuth1Signature>,
    /// Goes into the `Authorization` header as it is.
    realm: Option<Text>,
    /// `false` for a provider that does not answer `oauth_callback_confirmed=true`.
    callback_confirmed: Option<Flag>,
}

/// When and how tokens are refreshed.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Refresh {
    /// How long before its end a token is refreshed in the background; by default the smaller of 5 min and a fifth of its life.
    margin: Option<Span>,
    /// A token younger than this is not refreshed because an upstream said 401; 30 s by default.
    min_age: Option<Span>,
    /// Refresh within the margin without waiting for a call.
    ahead: Option<Flag>,
    /// What is exchanged for a new token: the `refresh_token` by default, or the `access_token` itself.
    by: Option<RenewBy>,
    /// A lost answer may be asked for once more at once, for the old refresh token stays good a while.
    replay: Option<Flag>,
    /// No refresh of a token younger than this, whatever for: the provider refuses it.
    not_before: Option<Span>,
    /// Tell a grant without a refresh token as one that cannot be renewed.
    expected: Option<Flag>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Attach {
    /// `Authorization: Bearer TOKEN`, the token as HTTP Basic credentials, or a signature by OAuth 1.0a.
    Word(AttachWord),
    Place(AttachPlace),
}

/// Where the token stands: exactly one of these.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct AttachPlace {
    /// `Authorization: WORD TOKEN`.
    scheme: Option<Text>,
    /// The bare token in this header.
    header: Option<Text>,
    /// The token as this query parameter, for providers that take it nowhere else.
    query: Option<Text>,
}

/// The kinds of calls.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Calls {
    /// The authorization request.
    authorize: Option<CallOrNone>,
    /// What lies under `code`, `refresh`, `app`, `extend`, `device` and `poll`.
    token: Option<CallOrNone>,
    /// A code for tokens (RFC 6749 §4.1.3).
    code: Option<CallOrNone>,
    /// A refresh token for tokens (RFC 6749 §6).
    refresh: Option<CallOrNone>,
    /// The app's own token (RFC 6749 §4.4).
    app: Option<CallOrNone>,
    /// Once, right after the code: the token of the reply for a longer one.
    extend: Option<CallOrNone>,
    /// The device authorization request (RFC 8628 §3.1).
    device: Option<CallOrNone>,
    /// The device flow's polls (RFC 8628 §3.4).
    poll: Option<CallOrNone>,
    /// Revocation (RFC 7009).
    revoke: Option<CallOrNone>,
}

/// In a registration `none` takes the definition's away.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum CallOrNone {
    None(NoCall),
    Call(Box<Call>),
}

/// How one kind of call looks. Names are settled in this order: the standard ones, less `omit`, by `rename`, and then `params` over all.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Call {
    /// Where it goes, instead of the endpoint's usual URL.
    url: Option<UrlOrNone>,
    /// `POST` by default; a GET's parameters stand in the query.
    method: Option<Method>,
    /// `form` by default.
    body: Option<BodyFormat>,
    /// How the client proves itself on this call.
    client_auth: Option<ClientAuth>,
    /// Standard parameter name to theirs.
    rename: Option<BTreeMap<String, Text>>,
    /// Standard parameters that are left out.
    omit: Option<Vec<Text>>,
    /// Further parameters, over whatever stands there; their values may hold places, and one whose value is missing is left out.
    params: Option<BTreeMap<String, Text>>,
    /// Further headers; their values may hold places.
    headers: Option<BTreeMap<String, Text>>,
    /// Behind the authorization URL, after a `#`.
    fragment: Option<Text>,
}

/// Paths of the token's members: names and list indexes joined by dots.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Reply {
    /// The object that holds the token's members; the whole reply by default.
    at: Option<Text>,
    access_token: Option<Text>,
    refresh_token: Option<Text>,
    token_type: Option<Text>,
    /// How long the token lives.
    expires_in: Option<Text>,
    /// When it ends: RFC 3339, or seconds or milliseconds since 1970.
    expires_at: Option<Text>,
    /// The unit of `expires_in`: `s` by default.
    expires_in_unit: Option<Unit>,
    /// The refresh token's own life in seconds.
    refresh_expires_in: Option<Text>,
    scope: Option<Text>,
    /// Further grants of one reply, each kept as a connection of its own.
    also: Option<Vec<Also>>,
}

/// A further grant of one reply.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Also {
    /// Its connection's account label, behind the first's: `default:user`.
    account: Text,
    /// The object that holds its members.
    at: Text,
}

/// What refusals mean. The first list that fits decides, in this order; after them the codes of the RFCs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Errors {
    /// Further places of the error code in a reply.
    at: Option<Vec<Text>>,
    /// The grant stands: try again later.
    passing: Option<Vec<Sign>>,
    /// The grant is dead.
    ends_grant: Option<Vec<Sign>>,
    /// The registration is at fault.
    client: Option<Vec<Sign>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Sign {
    /// The error code.
    Code(Text),
    Keys(SignKeys),
}

/// What an answer must hold: all of those that are there.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SignKeys {
    /// The HTTP status.
    status: Option<Count>,
    /// The error code, without regard to case.
    code: Option<Text>,
    /// The path of a member; its value must be that of `equals`.
    member: Option<Text>,
    /// With `member`: its value as text.
    equals: Option<Text>,
    /// A piece of the body's text.
    says: Option<Text>,
}

/// How the answer of the authorization request looks.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Callback {
    /// The parameter that holds the code; `code` by default.
    code: Option<Text>,
    /// Cut off the code's end.
    code_suffix: Option<Text>,
    /// The parameter that holds the error; `error` by default.
    error: Option<Text>,
    /// Further values of it that mean "denied", or `PARAM=` for a parameter that is there.
    denied: Option<Vec<Text>>,
    /// `cookie`: a callback without `state` is taken if the browser's cookie alone finds the session; `cookie_on_error`: only one that grants
    /// nothing. `required` by default.
    state: Option<StateRule>,
    /// The parameter with the hex HMAC-SHA256, by the client's secret, of all others sorted and joined by `&`.
    hmac: Option<Text>,
    /// The parameter that holds the granted scopes, where the token reply does not.
    scope: Option<Text>,
}

/// The device flow's habits.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Device {
    /// Standard member of the device reply to the path of theirs.
    rename: Option<BTreeMap<String, Text>>,
    /// Answers to a poll that mean: not yet.
    pending: Option<Vec<Sign>>,
    /// Those that mean: less often.
    slow_down: Option<Vec<Sign>>,
    /// Those that mean: the end user said no.
    denied: Option<Vec<Sign>>,
    /// Those that mean: the code is past its end.
    expired: Option<Vec<Sign>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum InputOrValue {
    /// The value itself, of an input that the definition has.
    Value(Text),
    Keys(Input),
}

/// What the end user types on the connect page.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Input {
    /// What the connect page calls it; its name by default.
    label: Option<Text>,
    /// Shown beside the field.
    example: Option<Text>,
    /// Cut off what is typed, so that a pasted address does too.
    suffix: Option<Text>,
    /// `text` by default. Only a `label`, a `host` and an `origin` may stand in a URL's host.
    kind: Option<ValueKind>,
    /// The hosts that it may be: `shop.example.com`, or `*.example.com` for all sub-domains.
    hosts: Option<Vec<Text>>,
    /// Given here: nobody is asked.
    value: Option<Text>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum CaptureOrPlace {
    /// `callback.PARAMETER` or `reply.MEMBER`; in a lookup the path of a member.
    Place(Text),
    Keys(Capture),
}

/// One value that an answer leaves.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Capture {
    /// `callback.PARAMETER` or `reply.MEMBER`; in a lookup the path of a member.
    from: Text,
    /// `text` by default. Only a `label`, a `host` and an `origin` may stand in a URL's host.
    kind: Option<ValueKind>,
    /// The hosts that it may be.
    hosts: Option<Vec<Text>>,
    /// Without it there is no connection.
    required: Option<Flag>,
}

/// A call made once after connecting.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Lookup {
    /// Where it goes, with GET and the new token.
    url: Url,
    /// How the token goes on, where it is not as on other calls.
    attach: Option<Attach>,
    /// What its answer leaves: name to the path of a member.
    metadata: BTreeMap<String, CaptureOrPlace>,
}

/// What every API call carries besides the token; the values may hold places.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Api {
    /// Headers, unless the client sent them.
    headers: Option<BTreeMap<String, Text>>,
    /// Headers, whatever the client sent.
    set_headers: Option<BTreeMap<String, Text>>,
    /// Query parameters, unless the client sent them.
    query: Option<BTreeMap<String, Text>>,
    /// Query parameters, whatever the client sent.
    set_query: Option<BTreeMap<String, Text>>,
}
