//! What a provider definition says, each key there or not: the same keys stand in `providers/ID.yaml` and in an entry of `providers:`.
//!
//! A registration's keys are laid over its definition's as trees (`overlay`), and the whole is read once; so each reader knows one mapping, and
//! every place knows all values that may fill it.

mod api;
pub(super) mod attach;
mod callback;
mod calls;
mod hosts;
pub(super) mod lint;
pub(super) mod moved;
pub(super) mod overlay;
mod places;
mod reply;
mod values;

pub(super) use hosts::TokenHosts;
pub(super) use values::Reading;

use super::fields::{Fields, Shape};
use super::oauth1;
use super::proofs;
use super::scalar;
use crate::attach::Scheme;
use crate::provider::{
    Asks, CallShape, ClientAuth, Dialect, EndpointUrl, Filled, Lifetime, Pkce, RefreshPolicy, RenewBy, Renewal, Verified,
};
use places::{OF_AUTHORIZE, OF_TOKEN, Places};
use std::time::Duration;
use url::Url;

pub(super) const DEFINITION: Shape = Shape { name: "Definition", said: "a provider definition" };
const REFRESH: Shape = Shape { name: "Refresh", said: "`refresh`" };

const CLIENT_AUTH: &[(&str, ClientAuth)] = &[
    ("basic", ClientAuth::Basic),
    ("basic_raw", ClientAuth::BasicRaw),
    ("body", ClientAuth::Body),
    ("none", ClientAuth::None),
    ("private_key_jwt", ClientAuth::PrivateKeyJwt),
    ("secret_jwt", ClientAuth::SecretJwt),
    ("mtls", ClientAuth::Mtls),
];

const PKCE: &[(&str, Pkce)] = &[("S256", Pkce::S256), ("S256_hex", Pkce::S256Hex), ("plain", Pkce::Plain), ("none", Pkce::None)];

type Pairs = Vec<(Box<str>, Box<str>)>;

/// The keys that are there.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) display_name: Option<Box<str>>,
    pub(super) category: Option<Box<str>>,
    pub(super) client_id: Option<Box<str>>,
    pub(super) authorize_url: Option<EndpointUrl>,
    pub(super) token_url: Option<EndpointUrl>,
    pub(super) revoke_url: Option<EndpointUrl>,
    pub(super) device_authorization_url: Option<EndpointUrl>,
    pub(super) par_url: Option<EndpointUrl>,
    pub(super) issuer: Option<Box<str>>,
    pub(super) resource: Option<Vec<Box<str>>>,
    pub(super) asks: Option<Asks>,
    pub(super) pkce: Option<Pkce>,
    pub(super) client_auth: Option<ClientAuth>,
    /// A client without a secret shows itself by HTTP Basic with an empty password.
    pub(super) public_basic: bool,
    pub(super) scopes: Option<Vec<Box<str>>>,
    pub(super) scope_separator: Option<Box<str>>,
    pub(super) authorize_params: Pairs,
    pub(super) token_params: Pairs,
    pub(super) attach: Option<Scheme>,
    pub(super) token_hosts: TokenHosts,
    pub(super) default_expires_in: Option<Lifetime>,
    pub(super) refresh: RefreshPolicy,
    pub(super) keep_alive: Option<Duration>,
    pub(super) verified: Option<Verified>,
    pub(super) proofs: proofs::Keys,
    pub(super) oauth1: oauth1::Keys,
    pub(super) dialect: Dialect,
}

impl Draft {
    /// Reads the keys of a definition from a mapping that may hold others too.
    pub(super) fn read(fields: &Fields<'_>, reading: Reading) -> Draft {
        let owned = |text: &str| Box::<str>::from(text);
        let client_id: Option<Box<str>> = fields.word("client_id").map(owned);
        let (inputs, metadata) = (values::inputs(fields, reading), values::metadata(fields, reading));
        let looked_up = values::lookup_captures(fields, reading);
        let places = Places {
            values: values::declared(&inputs, metadata.iter().chain(looked_up.iter().flatten())),
            client_id: client_id.clone(),
            open: reading == Reading::Alone,
        };
        let url = |key| places.url(fields.get(key)?, fields.problems);
        let attach = fields.get("attach").and_then(|node| attach::read(node, fields.problems));
        let mut dialect = Dialect {
            calls: calls::read(fields, &places),
            reply: reply::reply(fields),
            errors: reply::errors(fields),
            callback: callback::read(fields),
            device: reply::device(fields),
            lookups: values::lookups(fields, looked_up, &places),
            api: api::read(fields, &places, attach.as_ref()),
            scope_groups: pairs(fields, "scope_groups"),
            expired_when: reply::signs(fields, "expired_when"),
            issuers: callback::issuers(fields),
            redirect_uri: fields.word("redirect_uri").map(owned),
            inputs,
            metadata,
            renewal: Renewal::default(),
        };
        let (authorize_params, later) = split(places.params(fields, "authorize_params", OF_AUTHORIZE));
        add(&mut dialect.calls.authorize, &later);
        let (token_params, later) = split(places.params(fields, "token_params", OF_TOKEN));
        let calls = &mut dialect.calls;
        let on_token = [&mut calls.code, &mut calls.refresh, &mut calls.app, &mut calls.poll];
        on_token.into_iter().for_each(|shape| add(shape, &later));
        lint::forbidden_grants(fields, "authorize_params");
        lint::forbidden_grants(fields, "token_params");
        let refresh = refresh(fields, &mut dialect.renewal);
        let token_hosts = hosts::read(fields, &places);
        if reading != Reading::Alone {
            hosts::check_lookups(&dialect.lookups, &token_hosts, fields);
        }
        Draft {
            display_name: fields.word("display_name").map(owned),
            category: fields.word("category").map(owned),
            client_id,
            authorize_url: url("authorize_url"),
            token_url: url("token_url"),
            revoke_url: url("revoke_url"),
            device_authorization_url: url("device_authorization_url"),
            par_url: url("par_url"),
            issuer: issuer(fields, &places, reading),
            resource: resource(fields),
            asks: fields.choice("credential", &[("consent", Asks::Consent), ("api_key", Asks::ApiKey), ("password", Asks::Password)]),
            pkce: fields.choice("pkce", PKCE),
            client_auth: fields.choice("client_auth", CLIENT_AUTH),
            public_basic: fields.choice("public_client", &[("none", false), ("basic", true)]).unwrap_or(false),
            scopes: fields.texts("scopes").map(|scopes| scopes.iter().map(|(_, scope)| owned(scope)).collect()),
            scope_separator: fields.text("scope_separator").map(owned),
            authorize_params,
            token_params,
            attach,
            token_hosts,
            default_expires_in: default_expires_in(fields),
            refresh,
            keep_alive: fields.duration("keep_alive"),
            verified: fields.choice("verified", &[("full", Verified::Full), ("partial", Verified::Partial)]),
            proofs: proofs::Keys::read(fields),
            oauth1: oauth1::Keys::read(fields, url("request_token_url")),
            dialect,
        }
    }
}

/// Those that are the same on each call, and those with places.
fn split(params: Vec<(Box<str>, Filled)>) -> (Pairs, Vec<(Box<str>, Filled)>) {
    let (mut same, mut later) = (Vec::new(), Vec::new());
    for (name, text) in params {
        match text.fixed() {
            Some(text) => same.push((name, text.into())),
            None => later.push((name, text)),
        }
    }
    (same, later)
}

/// Parameters of all calls, where the call does not say its own.
fn add(shape: &mut CallShape, params: &[(Box<str>, Filled)]) {
    let new: Vec<_> = params.iter().filter(|(name, _)| !shape.params.iter().any(|(other, _)| other == name)).cloned().collect();
    shape.params.extend(new);
}

fn refresh(fields: &Fields<'_>, renewal: &mut Renewal) -> RefreshPolicy {
    let default = RefreshPolicy::default();
    let Some(fields) = fields.section("refresh", REFRESH) else { return default };
    let policy = RefreshPolicy {
        margin: fields.duration("margin").or(default.margin),
        min_age: fields.duration("min_age").unwrap_or(default.min_age),
        ahead: fields.flag("ahead").unwrap_or(default.ahead),
    };
    let by = [("refresh_token", RenewBy::RefreshToken), ("access_token", RenewBy::AccessToken)];
    *renewal = Renewal {
        by: fields.choice("by", &by).unwrap_or_default(),
        replay: fields.flag("replay").unwrap_or_default(),
        not_before: fields.duration("not_before"),
        expected: fields.flag("expected").unwrap_or_default(),
    };
    fields.finish();
    policy
}

/// The issuer as written, for it is compared as text; it is a URL without a query (RFC 8414 §2). Its places are filled in at load or not at all.
fn issuer(fields: &Fields<'_>, places: &Places, reading: Reading) -> Option<Box<str>> {
    let node = fields.get("issuer")?;
    let url = places.url(node, fields.problems)?;
    if url.fixed().is_some_and(|url| url.query().is_some()) {
        fields.say(&node.at, format!("an issuer has no query (`?…`), found {}", node.found()), None);
        return None;
    }
    if url.fixed().is_none() && reading == Reading::Whole {
        let hint = "give its inputs a value in the registration: `inputs: {NAME: …}`".to_owned();
        fields.say(&node.at, format!("one issuer serves all end users, so {} needs its values here", node.found()), Some(hint));
        return None;
    }
    let text = places.text(node, &["client_id"], fields.problems)?;
    Some(text.fixed().or(scalar::text(node, fields.problems))?.into())
}

/// Absolute URIs of any scheme, without a fragment, as written (RFC 8707 §2).
fn resource(fields: &Fields<'_>) -> Option<Vec<Box<str>>> {
    let mut all = Vec::new();
    for (node, text) in fields.texts("resource")? {
        match Url::parse(text) {
            Ok(url) if url.fragment().is_none() => all.push(text.into()),
            _ => fields.say(&node.at, format!("expected an absolute URI without a fragment (`#…`), found {}", node.found()), None),
        }
    }
    Some(all)
}

fn default_expires_in(fields: &Fields<'_>) -> Option<Lifetime> {
    let node = fields.get("default_expires_in")?;
    if scalar::is_word(node, "never") { Some(Lifetime::Never) } else { scalar::duration(node, fields.problems).map(Lifetime::For) }
}

fn pairs(fields: &Fields<'_>, key: &'static str) -> Pairs {
    let entries = fields.pairs(key).iter();
    entries.filter_map(|(name, node)| Some((name.text.as_str().into(), scalar::text(node, fields.problems)?.into()))).collect()
}

#[cfg(test)]
mod host_tests;
#[cfg(test)]
mod tests;
