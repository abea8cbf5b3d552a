//! What a provider definition says, each key there or not: the same keys stand in `providers/ID.yaml` and in an entry of `providers:`.

use super::fields::{Fields, Problems, Shape};
use super::headers;
use super::node::{Node, Value};
use super::scalar;
use crate::attach::Scheme;
use crate::provider::{Asks, ClientAuth, Lifetime, Pkce, RefreshPolicy, TokenHost, Verified};
use http::HeaderName;
use std::time::Duration;
use url::Url;

pub(super) const DEFINITION: Shape = Shape { name: "Definition", said: "a provider definition" };
const REFRESH: Shape = Shape { name: "Refresh", said: "`refresh`" };
const ATTACH: Shape = Shape { name: "AttachPlace", said: "`attach`" };

const CLIENT_AUTH: &[(&str, ClientAuth)] =
    &[("basic", ClientAuth::Basic), ("body", ClientAuth::Body), ("none", ClientAuth::None), ("private_key_jwt", ClientAuth::PrivateKeyJwt)];

type Pairs = Vec<(Box<str>, Box<str>)>;

/// The keys that are there.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) display_name: Option<Box<str>>,
    pub(super) category: Option<Box<str>>,
    pub(super) client_id: Option<Box<str>>,
    pub(super) authorize_url: Option<Url>,
    pub(super) token_url: Option<Url>,
    pub(super) revoke_url: Option<Url>,
    pub(super) device_authorization_url: Option<Url>,
    pub(super) par_url: Option<Url>,
    pub(super) issuer: Option<Box<str>>,
    pub(super) resource: Option<Vec<Box<str>>>,
    pub(super) asks: Option<Asks>,
    pub(super) pkce: Option<Pkce>,
    pub(super) client_auth: Option<ClientAuth>,
    pub(super) scopes: Option<Vec<Box<str>>>,
    pub(super) scope_separator: Option<Box<str>>,
    pub(super) authorize_params: Pairs,
    pub(super) token_params: Pairs,
    pub(super) attach: Option<Scheme>,
    pub(super) token_hosts: Vec<TokenHost>,
    pub(super) default_expires_in: Option<Lifetime>,
    pub(super) refresh_margin: Option<Duration>,
    pub(super) refresh_min_age: Option<Duration>,
    pub(super) refresh_ahead: Option<bool>,
    pub(super) keep_alive: Option<Duration>,
    pub(super) verified: Option<Verified>,
}

impl Draft {
    /// Reads the keys of a definition from a mapping that may hold others too.
    pub(super) fn read(fields: &Fields<'_>) -> Draft {
        let url = |key| scalar::secure_url(fields.get(key)?, fields.problems);
        let owned = |text: &str| Box::<str>::from(text);
        fields.not_yet(&["request_token_url"]);
        let refresh = fields.section("refresh", REFRESH);
        let (mut refresh_margin, mut refresh_min_age, mut refresh_ahead) = (None, None, None);
        if let Some(refresh) = refresh {
            (refresh_margin, refresh_min_age) = (refresh.duration("margin"), refresh.duration("min_age"));
            refresh_ahead = refresh.flag("ahead");
            refresh.finish();
        }
        Draft {
            display_name: fields.word("display_name").map(owned),
            category: fields.word("category").map(owned),
            client_id: fields.word("client_id").map(owned),
            authorize_url: url("authorize_url"),
            token_url: url("token_url"),
            revoke_url: url("revoke_url"),
            device_authorization_url: url("device_authorization_url"),
            par_url: url("par_url"),
            issuer: issuer(fields),
            resource: resource(fields),
            asks: fields.choice("credential", &[("consent", Asks::Consent), ("api_key", Asks::ApiKey), ("password", Asks::Password)]),
            pkce: fields.choice("pkce", &[("S256", Pkce::S256), ("none", Pkce::None)]),
            client_auth: fields.choice("client_auth", CLIENT_AUTH),
            scopes: fields.texts("scopes").map(|scopes| scopes.iter().map(|(_, scope)| owned(scope)).collect()),
            scope_separator: fields.text("scope_separator").map(owned),
            authorize_params: pairs(fields, "authorize_params"),
            token_params: pairs(fields, "token_params"),
            attach: fields.get("attach").and_then(|node| attach(node, fields.problems)),
            token_hosts: token_hosts(fields),
            default_expires_in: default_expires_in(fields),
            refresh_margin,
            refresh_min_age,
            refresh_ahead,
            keep_alive: fields.duration("keep_alive"),
            verified: fields.choice("verified", &[("full", Verified::Full), ("partial", Verified::Partial)]),
        }
    }

    /// These keys over those of `base`: parameters are joined by name, token hosts widened, all else replaced.
    pub(super) fn over(self, base: Draft) -> Draft {
        let joined = |mine: Pairs, base: Pairs| {
            let kept = base.into_iter().filter(|(name, _)| !mine.iter().any(|(other, _)| other == name)).collect::<Vec<_>>();
            kept.into_iter().chain(mine).collect()
        };
        let mut token_hosts = base.token_hosts;
        token_hosts.extend(self.token_hosts.into_iter().filter(|host| !token_hosts.contains(host)).collect::<Vec<_>>());
        Draft {
            display_name: self.display_name.or(base.display_name),
            category: self.category.or(base.category),
            client_id: self.client_id.or(base.client_id),
            authorize_url: self.authorize_url.or(base.authorize_url),
            token_url: self.token_url.or(base.token_url),
            revoke_url: self.revoke_url.or(base.revoke_url),
            device_authorization_url: self.device_authorization_url.or(base.device_authorization_url),
            par_url: self.par_url.or(base.par_url),
            issuer: self.issuer.or(base.issuer),
            resource: self.resource.or(base.resource),
            asks: self.asks.or(base.asks),
            pkce: self.pkce.or(base.pkce),
            client_auth: self.client_auth.or(base.client_auth),
            scopes: self.scopes.or(base.scopes),
            scope_separator: self.scope_separator.or(base.scope_separator),
            authorize_params: joined(self.authorize_params, base.authorize_params),
            token_params: joined(self.token_params, base.token_params),
            attach: self.attach.or(base.attach),
            token_hosts,
            default_expires_in: self.default_expires_in.or(base.default_expires_in),
            refresh_margin: self.refresh_margin.or(base.refresh_margin),
            refresh_min_age: self.refresh_min_age.or(base.refresh_min_age),
            refresh_ahead: self.refresh_ahead.or(base.refresh_ahead),
            keep_alive: self.keep_alive.or(base.keep_alive),
            verified: self.verified.or(base.verified),
        }
    }

    pub(super) fn refresh(&self) -> RefreshPolicy {
        let default = RefreshPolicy::default();
        RefreshPolicy {
            margin: self.refresh_margin.or(default.margin),
            min_age: self.refresh_min_age.unwrap_or(default.min_age),
            ahead: self.refresh_ahead.unwrap_or(default.ahead),
        }
    }
}

/// The issuer as written, for it is compared as text; it is a URL without a query (RFC 8414 §2).
fn issuer(fields: &Fields<'_>) -> Option<Box<str>> {
    let node = fields.get("issuer")?;
    let url = scalar::secure_url(node, fields.problems)?;
    if url.query().is_some() {
        fields.say(&node.at, format!("an issuer has no query (`?…`), found {}", node.found()), None);
        return None;
    }
    scalar::text(node, fields.problems).map(Box::from)
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

fn token_hosts(fields: &Fields<'_>) -> Vec<TokenHost> {
    let mut hosts = Vec::new();
    for (node, text) in fields.texts("token_hosts").unwrap_or_default() {
        match token_host(text) {
            Some(host) => hosts.push(host),
            None => {
                let hint = "write `api.example.com`, `localhost:7080` where the port is not 443, or `*.example.com` for all sub-domains";
                fields.say(&node.at, format!("expected a host that tokens may be sent to, found {}", node.found()), Some(hint.into()));
            }
        }
    }
    hosts
}

/// `host`, `host:port` or `*.host`; the port is 443 where it is not named.
fn token_host(text: &str) -> Option<TokenHost> {
    let (stars, rest) = match text.strip_prefix("*.") {
        // A wildcard over a whole top level would be no limit at all.
        Some(rest) if rest.split(':').next()?.contains('.') => ("*.", rest),
        Some(_) => return None,
        None => ("", text),
    };
    if rest.is_empty() || rest.contains(['/', '@', '*', '?', '#', '\\', '%']) || rest.contains(char::is_whitespace) {
        return None;
    }
    let url = Url::parse(&format!("https://{rest}/")).ok()?;
    Some(TokenHost { host: format!("{stars}{}", url.host_str()?).into(), port: url.port_or_known_default()? })
}

/// `bearer`, `basic`, `{scheme: WORD}`, `{header: NAME}` or `{query: NAME}`.
pub(super) fn attach(node: &Node, problems: &Problems) -> Option<Scheme> {
    if let Value::Scalar(scalar) = &node.value {
        if matches!(&*scalar.text, "oauth1" | "dpop") {
            problems.say(&node.at, format!("`attach: {}` is not in this version yet", scalar.text), None);
            return None;
        }
        let found = [("bearer", Scheme::Bearer), ("basic", Scheme::Basic)].into_iter().find(|(word, _)| *word == scalar.text);
        if found.is_none() {
            let hint = super::error::did_you_mean(&scalar.written, ["bearer", "basic"]);
            let expected = "`bearer`, `basic`, `{scheme: WORD}`, `{header: NAME}` or `{query: NAME}`";
            problems.say(&node.at, format!("expected {expected}, found {}", node.found()), hint);
        }
        return found.map(|(_, scheme)| scheme);
    }
    let fields = Fields::open(node, ATTACH, problems)?;
    let (scheme, header, query) = (fields.word("scheme"), fields.word("header"), fields.word("query"));
    let (scheme_node, header_node) = (fields.peek("scheme"), fields.peek("header"));
    fields.finish();
    let at = &node.at;
    match (scheme, header, query) {
        (Some(word), None, None) => scheme_word(word, scheme_node.unwrap_or(node), problems),
        (None, Some(name), None) => attach_header(name, header_node.unwrap_or(node), problems),
        (None, None, Some(name)) => Some(Scheme::Query(name.into())),
        (None, None, None) => None,
        _ => {
            problems.say(at, "`attach` takes one of `scheme`, `header` and `query`", None);
            None
        }
    }
}

fn scheme_word(word: &str, node: &Node, problems: &Problems) -> Option<Scheme> {
    // The scheme is a token (RFC 9110 §11.1), as header names are.
    if HeaderName::from_bytes(word.as_bytes()).is_ok() {
        return Some(Scheme::Word(word.into()));
    }
    problems.say(&node.at, format!("{} cannot be a scheme of the Authorization header", node.found()), None);
    None
}

fn attach_header(name: &str, node: &Node, problems: &Problems) -> Option<Scheme> {
    let header = headers::name(name, node, problems)?;
    if let Some(why) = headers::reserved(&header) {
        problems.say(&node.at, format!("a token cannot stand in `{header}`: {why}"), None);
        return None;
    }
    Some(Scheme::Header(header))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_hosts_are_hosts_and_ports() {
        for (text, expected) in [
            ("api.example.com", Some(("api.example.com", 443))),
            ("API.Example.com", Some(("api.example.com", 443))),
            ("localhost:7080", Some(("localhost", 7080))),
            ("*.googleapis.com", Some(("*.googleapis.com", 443))),
            ("[::1]:7080", Some(("[::1]", 7080))),
            ("*.com", None),
            ("*", None),
            ("https://api.example.com", None),
            ("api.example.com/v1", None),
            ("user@api.example.com", None),
            ("a b", None),
            ("", None),
            ("host:99999", None),
        ] {
            let found = token_host(text);
            assert_eq!(found.as_ref().map(|host| (&*host.host, host.port)), expected, "{text}");
        }
    }
}
