//! `headers:` of a route, and which headers are Attaché's own business.

use super::error::At;
use super::fields::{Fields, Problems, Shape};
use super::node::{Node, shown};
use super::scalar;
use super::snapshot::HeaderEdits;
use crate::attach::{Place, Scheme};
use crate::identity::EndUserRules;
use crate::route::{Names, Template};
use http::HeaderName;

const HEADERS: Shape = Shape { name: "Headers", said: "`headers`" };

/// A header's name from the scalar that holds it.
pub(super) fn name(text: &str, node: &Node, problems: &Problems) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        problems.say(&node.at, format!("{} cannot be the name of a header", node.found()), None);
    }
    name
}

/// Why a header is not the operator's to set, where it is not.
pub(super) fn reserved(name: &HeaderName) -> Option<&'static str> {
    match name.as_str() {
        "host" => Some("`upstream_host` says what it holds"),
        // RFC 9110 §7.6.1 and the framing of RFC 9112 §6.
        "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade" | "content-length" => {
            Some("it belongs to one connection, not to the call")
        }
        other if other.starts_with("proxy-") => Some("it belongs to one connection, not to the call"),
        other if other.starts_with("x-attache-") => Some("it is Attaché's own"),
        _ => None,
    }
}

/// What decides which headers a route cannot touch.
#[derive(Clone, Copy)]
pub(super) struct HeaderRules<'r> {
    pub(super) end_user: &'r EndUserRules,
    /// How the route's token goes on, where it has one.
    pub(super) attach: Option<&'r Scheme>,
}

/// The same of a route, whose calls carry an end user and a token.
pub(super) fn reserved_on_route(name: &HeaderName, rules: HeaderRules<'_>) -> Option<&'static str> {
    let HeaderRules { end_user: rules, attach } = rules;
    let dashed = name.as_str().replace('_', "-");
    let names_user = [&rules.header, &rules.account_header].iter().any(|ours| ours.as_str().replace('_', "-") == dashed);
    if names_user {
        return Some("it names the end user, which no upstream sees");
    }
    match attach.map(Scheme::place) {
        Some(Place::Header(place)) if place == name => Some("the token stands there"),
        _ => reserved(name),
    }
}

/// Reads `headers:`.
pub(super) fn read(route: &Fields<'_>, names: Names<'_>, rules: HeaderRules<'_>) -> HeaderEdits {
    let mut edits = HeaderEdits::default();
    let Some(fields) = route.section("headers", HEADERS) else { return edits };
    let allowed = |name: HeaderName, at: &At| match reserved_on_route(&name, rules) {
        Some(why) => {
            fields.say(at, format!("`headers` cannot touch `{name}`: {why}"), None);
            None
        }
        None => Some(name),
    };
    for (key, into) in [("set", &mut edits.set), ("add", &mut edits.add)] {
        for (header, node) in fields.pairs(key) {
            let Ok(name) = HeaderName::from_bytes(header.text.as_bytes()) else {
                fields.say(&header.at, format!("`{}` cannot be the name of a header", shown(&header.text)), None);
                continue;
            };
            let Some(name) = allowed(name, &header.at) else { continue };
            let Some(text) = scalar::template(node, fields.problems) else { continue };
            match Template::parse(text, names) {
                Ok(template) => into.push((name, template)),
                Err(error) => fields.problems.say_inside(node, error.offset, error.message, error.hint),
            }
        }
    }
    let removed = fields.texts("remove").unwrap_or_default();
    edits.remove = removed.into_iter().filter_map(|(node, text)| allowed(name(text, node, fields.problems)?, &node.at)).collect();
    fields.finish();
    edits
}
