//! What a definition must not say, and what its reader should know though nothing is wrong.

use crate::config::error::nearest;
use crate::config::fields::{Fields, Problems};
use crate::config::scalar;
use crate::provider::{EndpointUrl, Pkce};

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
pub(super) fn forbidden_in_url(fields: &Fields<'_>, key: &'static str, url: Option<&EndpointUrl>) {
    let Some(url) = url.and_then(EndpointUrl::fixed) else { return };
    if let Some(why) = url.query_pairs().find_map(|(name, value)| forbidden(&name, &value)) {
        fields.say(fields.at_key(key), why, Some("use the authorization code grant".into()));
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

/// Warnings of one provider as it is used, or of a definition by itself.
pub(in crate::config) fn warn(id: &str, category: Option<&str>, pkce: Option<Pkce>, is_public: bool, problems: &Problems) {
    if let Some(category) = category.filter(|category| !CATEGORIES.contains(category)) {
        let near = nearest(category, CATEGORIES.iter().copied()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        problems.warn(format!("provider `{id}`: the category `{category}` is none of those that lists know{near}"));
    }
    let weak = match pkce {
        Some(Pkce::Plain) => "pkce: plain",
        Some(Pkce::None) => "pkce: none",
        Some(Pkce::S256 | Pkce::S256Hex) | None => return,
    };
    if is_public {
        problems.warn(format!("provider `{id}` has no client secret and `{weak}`: whoever sees a code can use it"));
    }
}
