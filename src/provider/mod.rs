//! Floor 2: a provider as checked data: its definition (endpoints, habits) merged with the operator's registration (client id, scopes).
//!
//! Built by `config` from YAML; used by `oauth`, `token`, `connect` and `proxy`. Deliberately absent: any provider's name in code.

mod dialect;
mod endpoint;
mod hosts;
mod key;
mod oauth1;
mod place;
mod proofs;
mod text;
mod values;

pub use dialect::{
    Also, BodyFormat, CallShape, CallbackRules, Calls, Companions, DeviceRules, Dialect, ErrorRules, Path, RenewBy, Renewal, ReplyMap,
    Sign, StateRule, Unit,
};
pub use endpoint::{EndpointUrl, in_url};
pub use hosts::{DeniedHost, TokenHost};
pub use key::{JwtKey, KeyFault};
pub use oauth1::OAuth1;
pub use place::{Capture, From, Input, Kind, Lookup};
pub use proofs::{Proofs, SecretJwt};
pub use text::{Filled, FilledFault};
pub use values::{Metadata, NoOrigin, OriginTemplate, origin};

use crate::attach::Scheme;
use crate::base::secret::Secret;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// How the client proves itself at the token endpoint (RFC 6749 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// `Authorization: Basic`, id and secret form-encoded first (RFC 6749 §2.3.1).
    Basic,
    /// The same without the form-encoding, as many servers read it.
    BasicRaw,
    /// `client_id` and `client_secret` in the form body.
    Body,
    /// A public client: `client_id` alone in the body.
    None,
    /// A signed assertion in the body (RFC 7523 §2.2), made with [`Registration::client_key`].
    PrivateKeyJwt,
    /// `client_secret` in the body is a JWT that the client signs itself with [`Registration::client_key`] (Apple).
    SecretJwt,
    /// A certificate of the client's on the TLS connection, and `client_id` in the body (RFC 8705 §2).
    Mtls,
}

/// What connecting asks of the end user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Asks {
    /// Consent at the provider (RFC 6749 §4.1), or what stands in its place.
    #[default]
    Consent,
    /// A static API key, typed on the connect page.
    ApiKey,
    /// A user name and a password, typed on the connect page.
    Password,
}

/// Where tokens come from that no end user granted: they are asked for anew instead of refreshed.
#[derive(Debug, Clone, PartialEq)]
pub enum Mint {
    JwtBearer(JwtBearer),
    Exchange(Exchange),
}

/// RFC 7523 §2.1: a signed assertion for a token, as Google's service accounts have it.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtBearer {
    pub key: JwtKey,
    pub issuer: Box<str>,
    /// `sub`; `{end_user}` stands for the call's end user. `None`: the claim is left out.
    pub subject: Option<Box<str>>,
    /// `aud`; `None`: the token endpoint.
    pub audience: Option<Box<str>>,
    /// Further claims, as texts.
    pub claims: Vec<(Box<str>, Box<str>)>,
}

/// RFC 8693: the end user's token at another provider, exchanged for one here.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// The registration whose connection gives the subject token.
    pub from: Box<str>,
    /// That registration itself, put in by the load once all are read; so a call that holds this config exchanges by this config. Links make
    /// no circle.
    pub source: Option<Arc<Registration>>,
    pub subject_token_type: Box<str>,
    pub requested_token_type: Option<Box<str>>,
    pub audience: Vec<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pkce {
    /// RFC 7636 §4.2: the base64url of the verifier's SHA-256.
    S256,
    /// The same hash in hex, as one provider reads it.
    S256Hex,
    /// The verifier itself: only for a provider that takes nothing better.
    Plain,
    None,
}

/// The life of an access token whose answer names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    For(Duration),
    Never,
}

/// When tokens are refreshed (contract §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshPolicy {
    /// How long before its end a token is refreshed in the background; by default the smaller of 5 min and a fifth of its life.
    pub margin: Option<Duration>,
    /// A token younger than this is not refreshed because an upstream said 401 (30 s).
    pub min_age: Duration,
    /// Refresh within the margin without waiting for a call.
    pub ahead: bool,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        RefreshPolicy { margin: None, min_age: Duration::from_secs(30), ahead: false }
    }
}

/// How far the facts of a definition were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    Full,
    Partial,
}

impl Verified {
    /// The word that `verified` says.
    pub fn word(self) -> &'static str {
        match self {
            Verified::Full => "full",
            Verified::Partial => "partial",
        }
    }
}

/// A registration of a provider, with everything of its definition: what one entry of `providers:` in `routes.yaml` became.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// The key in `routes.yaml`; names connections and the redirect URI.
    pub id: Arc<str>,
    /// The definition it uses (`google`), or its own id when defined in place.
    pub definition: Box<str>,
    pub display_name: Box<str>,
    pub category: Box<str>,
    /// Why it is off, when it is `optional` and a variable was undefined: its routes answer 503 `provider-not-configured`.
    pub off: Option<Box<str>>,
    pub client_id: Box<str>,
    pub client_secret: Option<Secret>,
    /// For [`ClientAuth::PrivateKeyJwt`].
    pub client_key: Option<JwtKey>,
    pub asks: Asks,
    pub mint: Option<Mint>,
    /// RFC 8707: what the tokens are for.
    pub resource: Vec<Box<str>>,
    pub authorize_url: Option<EndpointUrl>,
    pub token_url: Option<EndpointUrl>,
    pub revoke_url: Option<EndpointUrl>,
    pub device_authorization_url: Option<EndpointUrl>,
    pub par_url: Option<EndpointUrl>,
    /// The text as written: it is compared byte for byte (RFC 8414 §3.3, RFC 9207 §2.4), and a `Url` would add a slash to a bare host.
    pub issuer: Option<Box<str>>,
    pub pkce: Pkce,
    pub client_auth: ClientAuth,
    pub scopes: Vec<Box<str>>,
    pub scope_separator: Box<str>,
    pub authorize_params: Vec<(Box<str>, Box<str>)>,
    pub token_params: Vec<(Box<str>, Box<str>)>,
    pub attach: Scheme,
    pub token_hosts: Vec<TokenHost>,
    /// Those with places that a connection's own values fill in (`{subdomain}.zendesk.com`).
    pub token_hosts_per_connection: Vec<Filled>,
    /// Hosts that never see a token, whatever the other two say.
    pub token_hosts_denied: Vec<DeniedHost>,
    pub default_expires_in: Option<Lifetime>,
    pub refresh: RefreshPolicy,
    /// Refresh a grant that was not used for so long, because it would die of disuse.
    pub keep_alive: Option<Duration>,
    pub verified: Verified,
    /// Keys and certificates that the client and its tokens are proved by.
    pub proofs: Proofs,
    /// There where the provider speaks OAuth 1.0a; `authorize_url` and `token_url` are that protocol's then.
    pub oauth1: Option<OAuth1>,
    /// Where the provider departs from the RFCs.
    pub dialect: Dialect,
}

impl Registration {
    /// Whether the client proves itself at the token endpoint: a confidential one (RFC 6749 §2.1).
    pub fn proves_itself(&self) -> bool {
        match self.client_auth {
            ClientAuth::Basic | ClientAuth::BasicRaw | ClientAuth::Body => self.client_secret.is_some(),
            ClientAuth::PrivateKeyJwt | ClientAuth::SecretJwt => self.client_key.is_some(),
            ClientAuth::Mtls => true,
            ClientAuth::None => false,
        }
    }

    /// Whether this registration's tokens may be sent to that host and port, whoever's connection it is.
    pub fn token_host_allowed(&self, host: &str, port: u16) -> bool {
        self.token_hosts.iter().any(|allowed| allowed.takes(host, port)) && !self.token_host_denied(host, port)
    }

    /// The same for one connection, whose own values fill the places in.
    pub fn token_host_allowed_for<'v>(&self, host: &str, port: u16, value: impl Fn(&str) -> Option<Cow<'v, str>>) -> bool {
        let is_its_own = || {
            let mut texts = self.token_hosts_per_connection.iter().filter_map(|text| text.fill(&value));
            texts.any(|text| TokenHost::parse(&text).is_some_and(|allowed| allowed.takes(host, port)))
        };
        self.token_host_allowed(host, port) || (!self.token_host_denied(host, port) && is_its_own())
    }

    /// Whether a connection's values chose that host, by any endpoint, and nothing that the operator wrote is there. Where an issuer publishes
    /// endpoints, they may be anywhere.
    pub fn is_chosen(&self, host: &str) -> bool {
        let calls = &self.dialect.calls;
        let shapes = [&calls.authorize, &calls.code, &calls.refresh, &calls.app, &calls.device, &calls.poll, &calls.revoke];
        let called = shapes.into_iter().chain(&calls.extend).filter_map(|shape| shape.url.as_ref());
        let flat = [&self.authorize_url, &self.token_url, &self.revoke_url, &self.device_authorization_url, &self.par_url];
        let looked_up = self.dialect.lookups.iter().map(|lookup| &lookup.url);
        let urls: Vec<_> = flat.into_iter().flatten().chain(called).chain(looked_up).collect();
        self.issuer.is_none() && urls.iter().any(|url| url.chooses_host()) && !urls.iter().any(|url| url.is_at(host))
    }

    /// Whether no secret and no token of this registration goes there, if a value chose it.
    pub fn token_host_denied(&self, host: &str, port: u16) -> bool {
        self.token_hosts_denied.iter().any(|denied| denied.takes(host, port))
    }
}
