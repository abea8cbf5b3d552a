//! A registration that takes its provider elsewhere, and the URLs of its definition that stayed: those would be sent the other server's secrets and tokens.

use super::overlay::under;
use crate::config::fields::Problems;
use crate::config::node::{Key, Node, Value, shown};
use crate::config::scalar::is_word;
use crate::provider::{Filled, TokenHost};
use std::borrow::Cow;

/// Keys that say which server a provider is.
const MOVERS: &[&str] = &["token_url", "authorize_url", "issuer", "request_token_url"];

/// Every key with a URL that stands by itself.
const FLAT: &[&str] = &["authorize_url", "token_url", "request_token_url", "revoke_url", "device_authorization_url", "par_url", "issuer"];

/// A URL of a definition.
struct Url<'n> {
    /// Its key, and those above it.
    path: Vec<&'n str>,
    text: &'n str,
}

/// Tells each URL of the definition that stands though the registration's own lead to a host that the definition does not know. Hosts that it does are
/// those of its URLs and `token_hosts`, so that a tenant's path or another of the provider's hosts moves nothing.
pub(in crate::config) fn tell<'n>(registration: &'n Node, definition: &Node, id: &str, problems: &Problems) {
    let urls = urls(definition);
    let Value::Map(entries) = &registration.value else { return };
    let leads = |(key, node): &'n (Key, Node)| {
        let text = MOVERS.contains(&&*key.text).then(|| plain(node)).flatten()?;
        let host = host(text)?;
        // What a variable held is not shown.
        let to = if node.is_filled() { node.found() } else { format!("`{}`", shown(&host)) };
        (!is_known(&host, registration, definition, &urls)).then_some((key, to))
    };
    let Some((mover, to)) = entries.iter().find_map(leads) else { return };
    for url in urls.iter().filter(|url| !stands_over(registration, &url.path) && !is_chosen(registration, url.text)) {
        let path = url.path.join(".");
        let stays = host(url.text).unwrap_or_default();
        let message =
            format!("`{}` leads to {to}, but `{path}` of the definition `{}` still goes to `{}`", mover.text, shown(id), shown(&stays));
        problems.say(&mover.at, message, Some(format!("{}: secrets and tokens would go there", way_out(&url.path))));
    }
}

fn way_out(path: &[&str]) -> String {
    match *path {
        [section @ "calls", call, ..] => {
            format!("write `{section}: {{{call}: {{url: …}}}}` too, or `{section}: {{{call}: none}}` to do without the definition's")
        }
        ["lookups", ..] => "write `lookups` too, or `lookups: []` to do without the definition's".to_owned(),
        _ => format!("write `{}` too, or `{0}: none` to do without the definition's", path.concat()),
    }
}

/// The registration's keys over the definition's, less those that it says are `none`.
pub(in crate::config) fn without_none(mut whole: Node) -> Node {
    let Value::Map(entries) = &mut whole.value else { return whole };
    entries.retain(|(key, node)| !(FLAT.contains(&&*key.text) && is_word(node, "none")));
    for (_, node) in entries.iter_mut().filter(|(key, _)| key.text == "calls") {
        let Value::Map(calls) = &mut node.value else { continue };
        calls.retain(|(_, call)| !is_word(call, "none"));
        for (_, call) in calls {
            if let Value::Map(keys) = &mut call.value {
                keys.retain(|(key, node)| !(key.text == "url" && is_word(node, "none")));
            }
        }
    }
    whole
}

fn plain(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar(scalar) => Some(scalar.as_template()),
        Value::Null | Value::List(_) | Value::Map(_) | Value::Broken => None,
    }
}

fn urls(definition: &Node) -> Vec<Url<'_>> {
    let flat = FLAT.iter().filter_map(|key| Some(Url { path: vec![key], text: plain(under(definition, key)?)? }));
    let calls = match under(definition, "calls").map(|calls| &calls.value) {
        Some(Value::Map(calls)) => calls.as_slice(),
        _ => &[],
    };
    let called =
        calls.iter().filter_map(|(key, call)| Some(Url { path: vec!["calls", &key.text, "url"], text: plain(under(call, "url")?)? }));
    let lookups = match under(definition, "lookups").map(|lookups| &lookups.value) {
        Some(Value::List(lookups)) => lookups.as_slice(),
        _ => &[],
    };
    let looked_up = lookups.iter().filter_map(|lookup| Some(Url { path: vec!["lookups", "url"], text: plain(under(lookup, "url")?)? }));
    flat.chain(called).chain(looked_up).collect()
}

/// Whether the registration has something of its own there. A section that is left empty says nothing.
fn stands_over(registration: &Node, path: &[&str]) -> bool {
    let mut at = registration;
    for (depth, key) in path.iter().enumerate() {
        match under(at, key) {
            None => return false,
            Some(node) => match &node.value {
                Value::Map(_) => at = node,
                Value::Null => return depth + 1 == path.len(),
                Value::Scalar(_) | Value::List(_) | Value::Broken => return true,
            },
        }
    }
    true
}

/// Whether a URL's host is one value alone that the registration itself says: it goes where the operator wants it.
fn is_chosen(registration: &Node, url: &str) -> bool {
    let name = host(url).and_then(|host| Some(host.strip_prefix('{')?.strip_suffix('}')?.to_owned()));
    name.is_some_and(|name| {
        ["inputs", "metadata"].iter().any(|section| under(registration, section).and_then(|section| under(section, &name)).is_some())
    })
}

/// Whether the definition itself, with the values that the registration gives, names that host.
fn is_known(wanted: &str, registration: &Node, definition: &Node, urls: &[Url<'_>]) -> bool {
    let token_hosts = match under(definition, "token_hosts").map(|hosts| &hosts.value) {
        Some(Value::List(hosts)) => hosts.as_slice(),
        _ => &[],
    };
    let listed = token_hosts.iter().filter_map(plain).filter(|text| !text.starts_with('!')).map(without_port);
    let mut hosts = urls.iter().filter_map(|url| host(url.text)).chain(listed);
    hosts.any(|known| wanted == known || fits(wanted, &filled(&known, registration, definition)))
}

/// The host with the values of all connections in their places.
fn filled(host: &str, registration: &Node, definition: &Node) -> Filled {
    let given = |tree: &Node, name: &str| {
        let input = under(under(tree, "inputs")?, name)?;
        plain(input).or_else(|| plain(under(input, "value")?)).map(without_port)
    };
    let value = |name: &str| given(registration, name).or_else(|| given(definition, name)).map(Cow::Owned);
    Filled::parse(host).unwrap_or_default().fill_known(value)
}

/// Whether `wanted` is that host; a place in it stands for one label or a part of it, never for the whole.
fn fits(wanted: &str, known: &Filled) -> bool {
    if wanted.contains(['{', '}']) {
        return false;
    }
    if let Some(fixed) = known.fixed() {
        let hosts = TokenHost::parse(fixed);
        return hosts.is_some_and(|known| known.takes(wanted, 443));
    }
    let Some(starred) = known.fill(|_| Some("*".into())) else { return false };
    let (mut wanted, mut known) = (wanted.split('.'), starred.split('.'));
    loop {
        match (wanted.next(), known.next()) {
            (None, None) => return starred != "*",
            (Some(label), Some(known)) if label == known => {}
            (Some(label), Some(known)) => match known.split_once('*') {
                Some((before, after)) if label.len() > before.len() && label.starts_with(before) && label.ends_with(after) => {}
                _ => return false,
            },
            _ => return false,
        }
    }
}

/// The host of a URL's text, places and all. This machine is one, however it is called.
fn host(url: &str) -> Option<String> {
    let behind = url.split_once("://")?.1;
    Some(without_port(&behind[..behind.find(['/', '?', '#']).unwrap_or(behind.len())]))
}

fn without_port(authority: &str) -> String {
    let authority = authority.trim();
    let end = authority.rfind(':').filter(|colon| !authority[*colon..].contains([']', '}'])).unwrap_or(authority.len());
    match &authority[..end] {
        "localhost" | "127.0.0.1" | "[::1]" => "localhost".to_owned(),
        // Names in places keep their case.
        host if host.contains('{') => host.to_owned(),
        host => host.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{ConfigErrors, Snapshot, load_str};
    use std::path::Path;

    fn load(provider: &str) -> Result<Snapshot, ConfigErrors> {
        let text = format!("providers:\n  p: {{client_id: id, client_secret: s, {provider}}}\n");
        load_str(&text, Path::new("routes.yaml"), Path::new("/nonexistent"), &|_| None)
    }

    /// The paths of the definition's URLs that are told to stay, and no other fault.
    #[track_caller]
    fn check(provider: &str, expected: &[&str]) {
        let told: Vec<String> = match load(provider) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.0.iter().map(|error| error.message.clone()).collect(),
        };
        let path = |message: &String| message.split("but `").nth(1).and_then(|rest| rest.split('`').next()).map(str::to_owned);
        let mut paths: Vec<String> = told.iter().map(|message| path(message).unwrap_or_else(|| message.clone())).collect();
        paths.sort();
        assert_eq!(paths, expected, "{provider}");
    }

    const GHE: &str =
        "use: github, authorize_url: \"https://ghe.example.com/login/oauth/authorize\", token_url: \"https://ghe.example.com/t\"";

    #[test]
    fn no_url_of_the_definition_stays_behind_unnoticed() {
        check(GHE, &["calls.revoke.url", "device_authorization_url"]);
        check("use: github, token_url: \"https://ghe.example.com/t\"", &["authorize_url", "calls.revoke.url", "device_authorization_url"]);
        let instagram = "use: instagram, authorize_url: \"https://a.example.com/\", token_url: \"https://a.example.com/t\"";
        check(instagram, &["calls.extend.url", "calls.refresh.url"]);
        let mailchimp = "use: mailchimp, authorize_url: \"https://a.example.com/\", token_url: \"https://a.example.com/t\"";
        check(mailchimp, &["lookups.url"]);
        // Discovery would not even be asked while the definition's own endpoints stand.
        check(
            "use: github, issuer: \"https://sso.example.com\"",
            &["authorize_url", "calls.revoke.url", "device_authorization_url", "token_url"],
        );
        let docusign = "use: docusign, token_url: \"https://a.example.com/t\"";
        check(docusign, &["authorize_url", "lookups.url"]);
        let text = load(GHE).expect_err("refused").to_string();
        assert!(text.contains("`calls: {revoke: {url: …}}`") && text.contains("`device_authorization_url: none`"), "{text}");
    }

    #[test]
    fn what_is_written_or_none_is_not_the_definitions() {
        check(&format!("{GHE}, device_authorization_url: none, calls: {{revoke: none}}"), &[]);
        let url = "\"https://ghe.example.com/revoke\"";
        check(&format!("{GHE}, device_authorization_url: {url}, calls: {{revoke: {{url: {url}}}}}"), &[]);
        let gone = load(&format!("{GHE}, device_authorization_url: none, calls: {{revoke: none}}")).expect("loads");
        let registration = &gone.providers["p"];
        assert_eq!((&registration.device_authorization_url, &registration.dialect.calls.revoke.url), (&None, &None));
        let mailchimp = "use: mailchimp, authorize_url: \"https://a.example.com/\", token_url: \"https://a.example.com/t\", lookups: []";
        check(mailchimp, &[]);
        assert!(load(mailchimp).expect("loads").providers["p"].dialect.lookups.is_empty());
        check(
            "use: github, issuer: \"https://sso.example.com\", authorize_url: none, token_url: none, device_authorization_url: none, calls: {revoke: none}",
            &[],
        );
    }

    #[test]
    fn another_place_of_the_same_provider_moves_nothing() {
        check("use: microsoft, token_url: \"https://login.microsoftonline.com/TENANT/oauth2/v2.0/token\"", &[]);
        check("use: google, token_url: \"https://www.googleapis.com/oauth2/v4/token\"", &[]);
        check("use: sandbox, token_url: \"http://127.0.0.1:9/token\"", &[]);
        check(
            "use: docusign, inputs: {account_host: account-d.docusign.com}, token_url: \"https://account-d.docusign.com/oauth/token\"",
            &[],
        );
        check("use: zendesk, inputs: {subdomain: acme}, token_url: \"https://acme.zendesk.com/oauth/tokens\"", &[]);
        check("use: github, client_auth: basic", &[]);
    }
}
