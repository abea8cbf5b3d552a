//! What a definition must not say, and what its reader should know though nothing is wrong.

use crate::config::error::nearest;
use crate::config::fields::{Fields, Problems};
use crate::config::node::Node;
use crate::config::scalar;
use crate::provider::{Pkce, Registration, StateRule};
use url::Url;

/// What providers are grouped by.
const CATEGORIES: &[&str] = &[
    "storage",
    "photos",
    "productivity",
    "social",
    "identity",
    "finance",
    "media",
    "crm",
    "development",
    "communication",
    "gaming",
    "marketing",
    "ecommerce",
    "design",
    "fitness",
    "travel",
    "maps",
    "other",
];

/// The implicit and the password grant (RFC 9700 §2.1.2, §2.4) are not offered, however they are spelt.
pub(super) fn forbidden_grants(fields: &Fields<'_>, key: &'static str) {
    for (name, node) in fields.pairs(key) {
        let Some(text) = scalar::text(node, fields.problems) else { continue };
        if let Some(why) = forbidden(&name.text, text) {
            fields.say(&node.at, why, Some("use the authorization code grant".into()));
        }
    }
}

/// The same of a URL's own query.
pub(super) fn forbidden_in_url(url: &Url, node: &Node, problems: &Problems) {
    if let Some(why) = url.query_pairs().find_map(|(name, value)| forbidden(&name, &value)) {
        problems.say(&node.at, why, Some("use the authorization code grant".into()));
    }
}

fn forbidden(name: &str, value: &str) -> Option<&'static str> {
    match name {
        "response_type" if value.split_whitespace().any(|word| word == "token") => {
            Some("the implicit grant puts tokens into the browser's URL: `response_type=token` is not offered (RFC 9700 §2.1.2)")
        }
        "grant_type" if value == "password" => Some("the password grant is not offered (RFC 9700 §2.4)"),
        _ => None,
    }
}

/// What the reader of a category should know.
pub(in crate::config) fn odd_category(category: Option<&str>) -> Option<String> {
    let category = category.filter(|category| !CATEGORIES.contains(category))?;
    let near = nearest(category, CATEGORIES.iter().copied()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Some(format!("the category `{category}` is none of those that lists know{near}"))
}

/// What the operator of a client without a secret should know of its definition's `pkce`.
pub(in crate::config) fn weak_pkce(pkce: Option<Pkce>) -> Option<String> {
    let weak = match pkce {
        Some(Pkce::Plain) => "plain",
        Some(Pkce::None) => "none",
        Some(Pkce::S256 | Pkce::S256Hex) | None => return None,
    };
    Some(format!("a client without a secret by `pkce: {weak}`: whoever sees a code on its way can use it"))
}

/// What the operator should know of a code that only a cookie binds to its browser: PKCE and a signature would tell a stranger's from its own.
pub(in crate::config) fn unbound_code(registration: &Registration) -> Option<String> {
    let rules = &registration.dialect.callback;
    let is_unbound = rules.state == StateRule::Cookie && rules.hmac.is_none() && registration.pkce == Pkce::None;
    is_unbound.then(|| {
        "`callback.state: cookie` without PKCE or `hmac`: a link of somebody else's can connect an account of theirs while a connect is under way; use `cookie_on_error` if the provider returns `state` with its codes".to_owned()
    })
}
