//! `providers:` of `routes.yaml`: each entry merged with the definition it uses.

use super::definition::Draft;
use super::error::did_you_mean;
use super::exchange;
use super::fields::{Fields, Problems, Shape};
use super::node::{Key, Node};
use super::providers::{Definitions, check_id};
use crate::attach::Scheme;
use crate::base::secret::Secret;
use crate::provider::{Asks, ClientAuth, Pkce, Registration, Verified};
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
    problems: &Problems,
) -> BTreeMap<Arc<str>, Arc<Registration>> {
    let mut all = BTreeMap::new();
    for (key, node) in entries {
        if let Err(why) = check_id(&key.text) {
            problems.say(&key.at, format!("the provider id `{}` {why}", super::node::shown(&key.text)), None);
            continue;
        }
        let before = problems.count();
        let registration = one(key, node, definitions, missing.get(&key.text).map(Vec::as_slice).unwrap_or_default(), problems);
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

fn one(key: &Key, node: &Node, definitions: &Definitions, missing: &[String], problems: &Problems) -> Option<Registration> {
    let fields = Fields::open(node, PROVIDER, problems)?;
    let optional = fields.flag("optional").unwrap_or(false);
    let use_node = fields.get("use");
    let mine = Draft::read(&fields);
    // A key that is there but gave nothing had its fault told already.
    let has_client_id = fields.peek("client_id").is_some();
    let has_token_url = fields.peek("token_url").is_some() || fields.peek("issuer").is_some();
    let client_secret = fields.text("client_secret").filter(|secret| !secret.is_empty()).map(Secret::new);
    let (at, problems) = (fields.at, fields.problems);
    fields.finish();

    let in_place = has_token_url || mine.authorize_url.is_some();
    let base_id = match use_node {
        Some(node) => Some((super::scalar::text(node, problems)?, &node.at)),
        None if definitions.contains_key(&*key.text) => Some((&*key.text, &key.at)),
        None => None,
    };
    let base = match base_id {
        Some((id, at)) => match definitions.get(id) {
            Some(found) => found.draft.clone(),
            None => {
                let message = format!("no provider definition is called {}", use_node.map_or_else(|| format!("`{id}`"), Node::found));
                problems.say(at, message, did_you_mean(id, ids(definitions)));
                return None;
            }
        },
        None if in_place || mine.issuer.is_some() => Draft::default(),
        None => {
            let hint = did_you_mean(&key.text, ids(definitions))
                .unwrap_or_else(|| "name one with `use:`, or write `authorize_url`, `token_url` and `token_hosts` here".into());
            problems.say(&key.at, format!("no provider definition is called `{}`", key.text), Some(hint));
            return None;
        }
    };
    let draft = mine.over(base);
    let off = off(optional, &draft, missing);
    if off.is_none() && draft.token_url.is_none() && draft.issuer.is_none() && !has_token_url {
        let hint = "write `authorize_url` and `token_url`, or `issuer` where the provider publishes its endpoints";
        problems.say(at, "a provider needs `token_url`", Some(hint.into()));
    }
    if off.is_none() && draft.client_id.is_none() && !has_client_id {
        problems.warn(format!("provider `{}` has no client_id: it carries imported tokens, but can neither connect nor refresh", key.text));
    }
    Some(build(key, base_id.map_or(&*key.text, |(id, _)| id), draft, client_secret, off))
}

fn ids(definitions: &Definitions) -> impl Iterator<Item = &str> {
    definitions.keys().map(|id| &**id)
}

/// Why an optional provider is off.
fn off(optional: bool, draft: &Draft, missing: &[String]) -> Option<Box<str>> {
    match (optional, missing) {
        (false, _) => None,
        (true, []) if draft.client_id.is_some() => None,
        (true, []) => Some("it has no client_id".into()),
        (true, missing) => Some(missing.join(", ").into()),
    }
}

fn build(key: &Key, definition: &str, draft: Draft, client_secret: Option<Secret>, off: Option<Box<str>>) -> Registration {
    let refresh = draft.refresh();
    // Without a secret there is nothing to prove: a public client, whatever its definition would have it send.
    let client_auth = if client_secret.is_some() { draft.client_auth.unwrap_or(ClientAuth::Basic) } else { ClientAuth::None };
    Registration {
        id: key.text.as_str().into(),
        definition: definition.into(),
        display_name: draft.display_name.unwrap_or_else(|| definition.into()),
        category: draft.category.unwrap_or_else(|| "other".into()),
        off,
        client_id: draft.client_id.unwrap_or_default(),
        client_secret,
        client_key: None,
        asks: Asks::Consent,
        mint: None,
        resource: Vec::new(),
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
        attach: draft.attach.unwrap_or(Scheme::Bearer),
        token_hosts: draft.token_hosts,
        default_expires_in: draft.default_expires_in,
        refresh,
        keep_alive: draft.keep_alive,
        verified: draft.verified.unwrap_or(Verified::Full),
    }
}
