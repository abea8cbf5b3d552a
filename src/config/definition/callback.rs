//! `callback`: how the answer of the authorization request looks, and `issuers`, which it may name.

use crate::config::fields::{Fields, Shape};
use crate::provider::{CallbackRules, StateRule};
use url::Url;

const CALLBACK: Shape = Shape { name: "Callback", said: "`callback`" };

const STATES: &[(&str, StateRule)] =
    &[("required", StateRule::Required), ("cookie", StateRule::Cookie), ("cookie_on_error", StateRule::CookieOnError)];

pub(super) fn read(fields: &Fields<'_>) -> CallbackRules {
    let Some(fields) = fields.section("callback", CALLBACK) else { return CallbackRules::default() };
    let word = |key| fields.word(key).map(Box::from);
    let rules = CallbackRules {
        code: word("code"),
        code_suffix: word("code_suffix"),
        error: word("error"),
        denied: fields.texts("denied").unwrap_or_default().into_iter().map(|(_, text)| text.into()).collect(),
        state: fields.choice("state", STATES).unwrap_or_default(),
        hmac: word("hmac"),
        scope: word("scope"),
    };
    fields.finish();
    rules
}

/// Texts that are compared with `iss`: a URL, with at most one `*` for one segment or label.
pub(super) fn issuers(fields: &Fields<'_>) -> Vec<Box<str>> {
    let mut all = Vec::new();
    for (node, text) in fields.texts("issuers").unwrap_or_default() {
        let is_url = Url::parse(&text.replacen('*', "x", 1)).is_ok_and(|url| {
            let secure = url.scheme() == "https" || (url.scheme() == "http" && crate::base::loopback::is_loopback(&url));
            secure && url.fragment().is_none()
        });
        // A star in place of the whole host, or of what is left of a top-level domain, would be anybody's.
        let host = text.trim_start_matches("https://").split('/').next().unwrap_or_default();
        let is_narrow = !host.contains('*') || (host.starts_with("*.") && host.matches('.').count() >= 2);
        if is_url && is_narrow && text.matches('*').count() <= 1 {
            all.push(text.into());
        } else {
            let hint = "one `*` stands for one segment: `https://login.example.com/*/v2.0`".to_owned();
            fields.say(&node.at, format!("expected an issuer's https:// URL, found {}", node.found()), Some(hint));
        }
    }
    all
}
