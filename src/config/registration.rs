//! `providers:` of `routes.yaml`: each entry merged with the definition it uses.

use super::definition::{Draft, Reading, lint, moved, overlay};
use super::error::{At, did_you_mean};
use super::exchange;
use super::fields::{Fields, Problems, Shape};
use super::mint;
use super::node::{Key, Node};
use super::oauth1;
use super::proofs;
use super::providers::{Definitions, check_id};
use super::sources::Sources;
use crate::attach::Scheme;
use crate::base::secret::Secret;
use crate::provider::{Asks, ClientAuth, EndpointUrl, JwtKey, Mint, OAuth1, Pkce, Registration, Verified};
use crate::upstream::{TlsIdentity, Trust};
use std::collections::BTreeMap;
use std::sync::Arc;

const PROVIDER: Shape = Shape { name: "Provider", said: "a provider" };

/// Why optional providers are off, by id: what of theirs could not be filled in.
pub(super) type Missing = BTreeMap<String, Vec<String>>;

/// Reads every entry. One with faults is left out of the result; its id still counts as known.
pub(super) fn read(
    entries: &[(Key, Node)],
    definitions: &Definitions,
    missing: &Missing,
    sources: &Sources<'_>,
    problems: &Problems,
) -> BTreeMap<Arc<str>, Arc<Registration>> {
    let mut all = BTreeMap::new();
    for (key, node) in entries {
        if let Err(why) = check_id(&key.text) {
            problems.say(&key.at, format!("the provider id `{}` {why}", super::node::shown(&key.text)), None);
            continue;
        }
        let before = problems.count();
        let missing = missing.get(&key.text).map(Vec::as_slice).unwrap_or_default();
        let registration = one(key, node, &Known { entries, definitions, missing, sources }, problems);
        if let Some(registration) = registration
            && problems.count() == before
        {
            if let Some(off) = &registration.off {
                problems.warn(format!("provider `{}` is off: {off}", registration.id));
            }
            if registration.verified == Verified::Partial {
                problems.warn(format!("provider `{}`: the facts of its definition are not fully checked", registration.id));
            }
            all.insert(registration.id.clone(), Arc::new(registration));
        }
    }
    exchange::link(all, entries, problems)
}

/// Whether an entry says `optional: true`, asked before its variables are filled in.
pub(super) fn is_optional(node: &Node) -> bool {
    let super::node::Value::Map(entries) = &node.value else { return false };
    entries.iter().any(|(key, node)| key.text == "optional" && super::scalar::is_word(node, "true"))
}

/// What an entry is read against.
struct Known<'a> {
    entries: &'a [(Key, Node)],
    definitions: &'a Definitions,
    missing: &'a [String],
    sources: &'a Sources<'a>,
}

/// The keys that stand in a registration alone, for they are secrets or name other registrations.
struct Own {
    client_secret: Option<Secret>,
    client_key: Option<JwtKey>,
    mint: Option<Mint>,
    identity: Option<Arc<TlsIdentity>>,
    trust: Option<Arc<Trust>>,
    oauth1: Option<OAuth1>,
}

/// All that an entry says.
struct Keys {
    optional: bool,
    draft: Draft,
    bearer: Option<mint::Bearer>,
    exchange: Option<crate::provider::Exchange>,
    client_secret: Option<Secret>,
    client_key: Option<JwtKey>,
    identity: Option<Arc<TlsIdentity>>,
    trust: Option<Arc<Trust>>,
}

impl Keys {
    fn read(fields: &Fields<'_>, id: &str, entries: &[(Key, Node)], reading: Reading) -> Keys {
        let _taken_before = fields.get("use");
        Keys {
            optional: fields.flag("optional").unwrap_or(false),
            draft: Draft::read(fields, reading),
            bearer: mint::jwt_bearer(fields),
            exchange: mint::token_exchange(fields, id, entries),
            client_secret: fields.text("client_secret").filter(|secret| !secret.is_empty()).map(Secret::new),
            client_key: mint::key(fields, "client_key", "client_key_id", "client_key_algorithm"),
            identity: proofs::identity(fields),
            trust: proofs::trust(fields),
        }
    }
}

fn one(key: &Key, node: &Node, known: &Known<'_>, problems: &Problems) -> Option<Registration> {
    let Known { entries, missing, .. } = *known;
    let Some((definition, whole)) = with_definition(key, node, known, problems) else {
        // Its own faults are told in the same breath.
        let fields = Fields::open(node, PROVIDER, problems)?;
        let _unused = Keys::read(&fields, &key.text, entries, Reading::Alone);
        fields.finish();
        return None;
    };
    let fields = Fields::open(&whole, PROVIDER, problems)?;
    // What is not filled in may be just what one that is off lacks.
    let reading = if is_optional(&whole) && !missing.is_empty() { Reading::Definition } else { Reading::Whole };
    let Keys { optional, mut draft, bearer, exchange, client_secret, client_key, identity, trust } =
        Keys::read(&fields, &key.text, entries, reading);
    // A key that is there but gave nothing had its fault told already.
    let there = |names: &[&str]| names.iter().any(|name| fields.peek(name).is_some());
    let (has_client_id, has_client_key, has_mint) =
        (there(&["client_id"]), there(&["client_key"]), there(&["jwt_bearer", "token_exchange"]));
    let client_key_pem = fields.peek("client_key").and_then(|node| super::scalar::text(node, problems));
    let has_token_url = there(&["token_url", "issuer", "jwt_bearer"]);
    let credential_at = fields.at_key("credential");
    let (client_auth_at, client_key_at) = (fields.at_key("client_auth"), fields.at_key("client_key"));
    if there(&["jwt_bearer"]) && there(&["token_exchange"]) {
        fields.say(fields.at_key("token_exchange"), "a provider has one of `jwt_bearer` and `token_exchange`", None);
    }
    let at = fields.at;
    if !optional || missing.is_empty() {
        let with = proofs::With {
            asks: draft.asks,
            attach: draft.attach.as_ref(),
            client_auth: draft.client_auth,
            key: client_key.as_ref(),
            has_key: has_client_key,
            has_cert: there(&["client_cert"]),
        };
        draft.proofs.check(&fields, &with);
    }
    fields.finish();
    let mint = minted(bearer, exchange, &mut draft);
    let typed = draft.asks.is_some_and(|asks| asks != Asks::Consent);
    if typed && has_mint {
        problems.say(credential_at, "`credential` asks the end user, and minted tokens ask nobody: write one of them", None);
    }
    let needs_client = !typed && !matches!(mint, Some(Mint::JwtBearer(_)));
    let off = off(optional, needs_client && draft.client_id.is_none(), missing);
    let is_oauth1 = oauth1::is_spoken(&draft);
    if off.is_none() && !typed && !is_oauth1 && draft.token_url.is_none() && draft.issuer.is_none() && !has_token_url {
        let hint = "write `authorize_url` and `token_url`, or `issuer` where the provider publishes its endpoints";
        problems.say(at, "a provider needs `token_url`", Some(hint.into()));
    }
    if off.is_none() && needs_client && draft.client_id.is_none() && !has_client_id {
        problems.warn(format!("provider `{}` has no client_id: it carries imported tokens, but can neither connect nor refresh", key.text));
    }
    if !oauth1::signs_by_key(&draft) {
        proof(off.is_some(), draft.client_auth, (client_auth_at, client_key_at), has_client_key, problems);
    }
    let rsa_key = match is_oauth1 && off.is_none() {
        true => oauth1::check(&draft, client_secret.is_some(), client_key_pem, (at, client_key_at), problems),
        false => None,
    };
    let oauth1 = oauth1::build(&draft, client_secret.as_ref(), rsa_key);
    let is_used = off.is_none() && !is_oauth1 && draft.client_id.is_some() && !typed && !has_mint;
    let (category, pkce) = (draft.category.clone(), draft.pkce);
    let registration = build(key, &definition, draft, Own { client_secret, client_key, mint, identity, trust, oauth1 }, off);
    let weak_pkce = lint::weak_pkce(pkce).filter(|_| is_used && !registration.proves_itself());
    let unbound_code = lint::unbound_code(&registration).filter(|_| is_used);
    for warning in lint::odd_category(category.as_deref()).into_iter().chain(weak_pkce).chain(unbound_code) {
        problems.warn(format!("provider `{}`: {warning}", key.text));
    }
    Some(registration)
}

/// The id of the definition that an entry uses, and the entry's keys over its. `None`, and told, where there is none that could be used.
fn with_definition(key: &Key, node: &Node, known: &Known<'_>, problems: &Problems) -> Option<(Box<str>, Node)> {
    let definitions = known.definitions;
    let use_node = overlay::under(node, "use");
    let base_id = match use_node {
        Some(node) => Some((super::scalar::text(node, problems)?, &node.at)),
        None if definitions.contains_key(&*key.text) => Some((&*key.text, &key.at)),
        None => None,
    };
    let Some((id, at)) = base_id else {
        let names = ["token_url", "authorize_url", "issuer", "credential", "jwt_bearer", "token_exchange", "request_token_url", "oauth1"];
        if names.iter().any(|name| overlay::under(node, name).is_some()) {
            return Some((key.text.as_str().into(), moved::without_none(node.clone())));
        }
        let hint = did_you_mean(&key.text, ids(definitions))
            .unwrap_or_else(|| "name one with `use:`, or write `authorize_url`, `token_url` and `token_hosts` here".into());
        problems.say(&key.at, format!("no provider definition is called `{}`", super::node::shown(&key.text)), Some(hint));
        return None;
    };
    let Some(found) = definitions.get(id) else {
        let message = format!("no provider definition is called {}", use_node.map_or_else(|| format!("`{id}`"), Node::found));
        problems.say(at, message, did_you_mean(id, ids(definitions)));
        return None;
    };
    let tree = found.parsed(id, known.sources, problems).tree.as_ref()?;
    moved::tell(node, tree, id, problems);
    Some((id.into(), moved::without_none(overlay::over(node, tree))))
}

/// Tells a key without the word that uses it, and the word without a key.
fn proof(is_off: bool, client_auth: Option<ClientAuth>, (auth_at, key_at): (&At, &At), has_key: bool, problems: &Problems) {
    let is_signed = client_auth == Some(ClientAuth::PrivateKeyJwt);
    // What else a key of `secret_jwt` needs is told where its own keys are read.
    let by_key = is_signed || client_auth == Some(ClientAuth::SecretJwt);
    if is_signed && !has_key && !is_off {
        let hint = "write `client_key: ${file:./key.pem}`; its public half is registered at the provider";
        problems.say(auth_at, "`client_auth: private_key_jwt` needs `client_key`", Some(hint.into()));
    }
    if has_key && !by_key {
        let hint = "write `client_auth: private_key_jwt`";
        problems.say(key_at, "`client_key` proves nothing by this `client_auth`", Some(hint.into()));
    }
}

/// What the two sections became, with what a service account's file says of the endpoint and of the scopes' place.
fn minted(bearer: Option<mint::Bearer>, exchange: Option<crate::provider::Exchange>, draft: &mut Draft) -> Option<Mint> {
    let Some(mint::Bearer { mut bearer, token_url, claims_scopes }) = bearer else { return exchange.map(Mint::Exchange) };
    draft.token_url = draft.token_url.take().or(token_url.map(EndpointUrl::Fixed));
    if claims_scopes && let Some(scopes) = draft.scopes.as_ref().filter(|scopes| !scopes.is_empty()) {
        bearer.claims.push(("scope".into(), scopes.join(draft.scope_separator.as_deref().unwrap_or(" ")).into()));
    }
    Some(Mint::JwtBearer(bearer))
}

fn ids(definitions: &Definitions) -> impl Iterator<Item = &str> {
    definitions.keys().map(|id| &**id)
}

/// Why an optional provider is off.
fn off(optional: bool, lacks_client_id: bool, missing: &[String]) -> Option<Box<str>> {
    match (optional, missing) {
        (false, _) => None,
        (true, []) if !lacks_client_id => None,
        (true, []) => Some("it has no client_id".into()),
        (true, missing) => Some(missing.join(", ").into()),
    }
}

fn build(key: &Key, definition: &str, draft: Draft, own: Own, off: Option<Box<str>>) -> Registration {
    let Own { client_secret, client_key, mint, identity, trust, oauth1 } = own;
    let proof = |told: Option<ClientAuth>| match told {
        Some(by_key @ (ClientAuth::PrivateKeyJwt | ClientAuth::SecretJwt | ClientAuth::Mtls)) => by_key,
        // Without a secret there is nothing to prove: a public client, whatever its definition would have it send.
        _ if client_secret.is_none() && draft.public_basic => ClientAuth::Basic,
        _ if client_secret.is_none() => ClientAuth::None,
        told => told.unwrap_or(ClientAuth::Basic),
    };
    let client_auth = proof(draft.client_auth);
    let mut dialect = draft.dialect;
    for lookup in &mut dialect.lookups {
        lookup.scheme = lookup.scheme.take().and_then(|scheme| oauth1::signed_by(scheme, oauth1.as_ref()));
    }
    let calls = &mut dialect.calls;
    let shapes = [&mut calls.code, &mut calls.refresh, &mut calls.app, &mut calls.device, &mut calls.poll, &mut calls.revoke];
    for shape in shapes.into_iter().chain(&mut calls.extend) {
        shape.client_auth = shape.client_auth.map(|told| proof(Some(told)));
    }
    let asks = draft.asks.unwrap_or_default();
    let usual = match asks {
        _ if oauth1.is_some() => oauth1::unsigned(),
        // A user name and password are HTTP Basic's unless the definition says otherwise (RFC 7617).
        Asks::Password => Scheme::Basic,
        Asks::Consent | Asks::ApiKey => Scheme::Bearer,
    };
    // A provider that says `attach: oauth1` speaks it.
    let attach =
        oauth1::signed_by(draft.attach.or_else(|| draft.proofs.usual_attach()).unwrap_or(usual), oauth1.as_ref()).unwrap_or(Scheme::Bearer);
    Registration {
        id: key.text.as_str().into(),
        definition: definition.into(),
        display_name: draft.display_name.unwrap_or_else(|| definition.into()),
        category: draft.category.unwrap_or_else(|| "other".into()),
        off,
        client_id: draft.client_id.unwrap_or_default(),
        client_secret,
        client_key,
        asks,
        mint,
        resource: draft.resource.unwrap_or_default(),
        authorize_url: draft.authorize_url,
        token_url: draft.token_url,
        revoke_url: draft.revoke_url,
        device_authorization_url: draft.device_authorization_url,
        par_url: draft.par_url,
        issuer: draft.issuer,
        pkce: draft.pkce.unwrap_or(Pkce::S256),
        client_auth,
        scopes: draft.scopes.unwrap_or_default(),
        scope_separator: draft.scope_separator.unwrap_or_else(|| " ".into()),
        authorize_params: draft.authorize_params,
        token_params: draft.token_params,
        attach,
        token_hosts: draft.token_hosts.allowed,
        token_hosts_per_connection: draft.token_hosts.per_connection,
        token_hosts_denied: draft.token_hosts.denied,
        default_expires_in: draft.default_expires_in,
        refresh: draft.refresh,
        keep_alive: draft.keep_alive,
        verified: draft.verified.unwrap_or(Verified::Full),
        proofs: draft.proofs.build(identity, trust),
        oauth1,
        dialect,
    }
}
