//! Where a provider departs from the RFCs, as data: the default of everything here is the RFC's own word.
//!
//! `config` reads it from a definition, `oauth` speaks it, `connect` and `proxy` ask it. Each type says which deviation it is for.

use super::ClientAuth;
use super::endpoint::EndpointUrl;
use super::place::{Capture, Input, Lookup};
use super::text::Filled;
use http::{HeaderName, Method};
use std::time::Duration;

/// A provider's deviations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dialect {
    pub calls: Calls,
    pub reply: ReplyMap,
    pub errors: ErrorRules,
    pub callback: CallbackRules,
    pub device: DeviceRules,
    /// What connecting asks of the end user besides consent: a sub-domain, a shop, a host.
    pub inputs: Vec<Input>,
    /// What the callback and the token reply leave in the connection's metadata.
    pub metadata: Vec<Capture>,
    /// Calls made once after connecting, for what the token reply does not hold.
    pub lookups: Vec<Lookup>,
    /// What goes on every API call besides the token.
    pub api: Companions,
    /// A scope written `GROUP=scope` goes into this parameter of the authorization request instead of `scope`: group and parameter.
    pub scope_groups: Vec<(Box<str>, Box<str>)>,
    /// API answers that mean an expired token though they are no 401.
    pub expired_when: Vec<Sign>,
    /// Further texts that `iss` may hold, each with one `*` for a path segment or host label.
    pub issuers: Vec<Box<str>>,
    /// What stands in `redirect_uri` instead of our own URL (a registered name).
    pub redirect_uri: Option<Box<str>>,
    pub renewal: Renewal,
}

/// One shape a kind of call. `config` has laid `calls.token` under each of those that go to the token endpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Calls {
    pub authorize: CallShape,
    /// A code for tokens (RFC 6749 §4.1.3).
    pub code: CallShape,
    /// A refresh token for tokens (RFC 6749 §6).
    pub refresh: CallShape,
    /// The app's own token (RFC 6749 §4.4).
    pub app: CallShape,
    /// Once, right after the code: the token of the reply for a longer one (Facebook's family).
    pub extend: Option<CallShape>,
    pub device: CallShape,
    pub poll: CallShape,
    pub revoke: CallShape,
}

/// How one kind of call looks on the wire. All of it is optional: the default is the RFC's form post.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallShape {
    /// Where it goes instead of the endpoint's usual URL.
    pub url: Option<EndpointUrl>,
    /// `POST` by default. Of a GET the parameters stand in the query.
    pub method: Option<Method>,
    pub body: BodyFormat,
    /// How the client proves itself on this call, where it is not as on the others.
    pub client_auth: Option<ClientAuth>,
    /// Standard parameter name to theirs.
    pub rename: Vec<(Box<str>, Box<str>)>,
    /// Standard parameters (by their standard names) that are left out.
    pub omit: Vec<Box<str>>,
    /// Further parameters, set over whatever stands there. One whose value is missing is left out.
    pub params: Vec<(Box<str>, Filled)>,
    pub headers: Vec<(HeaderName, Filled)>,
    /// Behind the authorization URL (`#wechat_redirect`).
    pub fragment: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyFormat {
    #[default]
    Form,
    Json,
    /// No body and no word on its kind: what the call says stands in its URL and headers.
    None,
}

/// Where a token reply holds what. A path is member names and list indexes joined by dots: `data.tokens.0`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReplyMap {
    /// The object that holds the token's members; the whole reply by default. `errors` and `metadata` still see the whole.
    pub at: Option<Path>,
    pub access_token: Option<Path>,
    pub refresh_token: Option<Path>,
    pub token_type: Option<Path>,
    pub expires_in: Option<Path>,
    /// RFC 3339, or seconds or milliseconds since 1970. A relative life goes before it.
    pub expires_at: Option<Path>,
    pub expires_in_unit: Unit,
    /// The refresh token's own life in seconds.
    pub refresh_expires_in: Option<Path>,
    pub scope: Option<Path>,
    /// A second grant in the same reply, kept as a connection of its own under this account label behind the first's (`default:user`).
    pub also: Vec<Also>,
}

/// A further grant of one reply (a bot's and a user's token).
#[derive(Debug, Clone, PartialEq)]
pub struct Also {
    pub account: Box<str>,
    pub at: Path,
}

/// The unit of `expires_in`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unit {
    #[default]
    Seconds,
    Milliseconds,
    Minutes,
}

/// A path into a JSON document: `a.0.b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(pub Vec<Box<str>>);

impl Path {
    /// Reads `a.0.b`; `None` where a part is empty.
    pub fn parse(text: &str) -> Option<Path> {
        let parts: Vec<Box<str>> = text.split('.').map(Box::from).collect();
        (!parts.iter().any(|part| part.is_empty())).then_some(Path(parts))
    }

    /// What stands there.
    pub fn get<'v>(&self, value: &'v serde_json::Value) -> Option<&'v serde_json::Value> {
        self.0.iter().try_fold(value, |at, part| match at {
            serde_json::Value::Array(list) => list.get(part.parse::<usize>().ok()?),
            other => other.get(&**part),
        })
    }
}

/// What refusals mean. The first fit of these lists decides, in this order; after them the codes of the RFCs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ErrorRules {
    /// Further places of the error code in a reply.
    pub at: Vec<Path>,
    /// The grant stands: try again later.
    pub passing: Vec<Sign>,
    /// The grant is dead.
    pub ends_grant: Vec<Sign>,
    /// The registration is at fault.
    pub client: Vec<Sign>,
}

/// What an answer must hold to fit: all of those that are there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sign {
    pub status: Option<u16>,
    /// The error code, wherever it was found; compared as text without regard to case, numbers too.
    pub code: Option<Box<str>>,
    /// A member and its value as text.
    pub member: Option<(Path, Box<str>)>,
    /// A piece of the body's text.
    pub says: Option<Box<str>>,
}

/// How the answer of the authorization request looks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallbackRules {
    /// The parameter that holds the code; `code` by default.
    pub code: Option<Box<str>>,
    /// Cut off the code's end (`#_`).
    pub code_suffix: Option<Box<str>>,
    /// The parameter that holds the error; `error` by default.
    pub error: Option<Box<str>>,
    /// Further values of it that mean "denied", or `PARAM=` for a parameter that is there.
    pub denied: Vec<Box<str>>,
    pub state: StateRule,
    /// The parameter with the hex HMAC-SHA256, by the client's secret, of all others sorted and joined by `&`.
    pub hmac: Option<Box<str>>,
    /// The parameter that holds the granted scopes, where the token reply does not.
    pub scope: Option<Box<str>>,
}

/// What happens to a callback without `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StateRule {
    /// It is refused.
    #[default]
    Required,
    /// The browser's cookie alone finds the session, if it has exactly one that is at this provider.
    Cookie,
    /// The same, for a denial or an error alone: a code without `state` could be anybody's, brought to this browser by a link.
    CookieOnError,
}

/// The device grant's habits (RFC 8628).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceRules {
    /// Standard member of the device reply to theirs.
    pub rename: Vec<(Box<str>, Path)>,
    pub pending: Vec<Sign>,
    pub slow_down: Vec<Sign>,
    pub denied: Vec<Sign>,
    pub expired: Vec<Sign>,
}

/// What every API call carries besides the token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Companions {
    /// Set over the client's.
    pub set_headers: Vec<(HeaderName, Filled)>,
    /// Unless the client sent it.
    pub headers: Vec<(HeaderName, Filled)>,
    pub set_query: Vec<(Box<str>, Filled)>,
    pub query: Vec<(Box<str>, Filled)>,
}

impl Companions {
    pub fn is_empty(&self) -> bool {
        self.set_headers.is_empty() && self.headers.is_empty() && self.set_query.is_empty() && self.query.is_empty()
    }
}

/// How a grant is renewed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Renewal {
    pub by: RenewBy,
    /// A lost answer may be asked for once more at once, for the old refresh token stays good a while.
    pub replay: bool,
    /// No refresh of a token younger than this, whatever for: the provider refuses it.
    pub not_before: Option<Duration>,
    /// Whether a grant without a refresh token is told as one that cannot be renewed.
    pub expected: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RenewBy {
    #[default]
    RefreshToken,
    /// The access token itself is exchanged for a new one; kept as its own refresh token.
    AccessToken,
}
