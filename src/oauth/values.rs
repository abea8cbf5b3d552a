//! What the texts and URLs of a call may name: the client's own facts, the request's standard parameters, and one connection's values.
//!
//! A value that comes to stand in a URL is checked here once more by its kind, whoever put it into the metadata: only what the definition
//! lists may choose a host, and nothing else leaves the place in path or query that was meant for it.

use crate::base::secret::Secret;
use crate::provider::{EndpointUrl, From, Registration};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use url::Url;

/// One connection's values, as far as a call may need them. The default has none.
#[derive(Clone, Copy, Default)]
pub struct Values<'a> {
    pub metadata: Option<&'a BTreeMap<String, Value>>,
    /// Parameters of the callback, for `{callback.NAME}`.
    pub callback: &'a [(String, String)],
    /// The current access token, for calls that carry it besides the token they are for.
    pub access_token: Option<&'a Secret>,
    /// What the end user typed elsewhere (RFC 8628 §3.2), for polls that want it back.
    pub user_code: Option<&'a str>,
    /// What was asked for, joined, for codes' calls that want it again.
    pub scope: Option<&'a str>,
}

/// Some of them are the provider's or the end user's own: none is shown.
impl std::fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Values(…)")
    }
}

impl<'a> Values<'a> {
    pub fn of(metadata: &'a BTreeMap<String, Value>) -> Self {
        Values { metadata: Some(metadata), ..Values::default() }
    }

    /// A value of the registration or the connection, as text.
    fn own<'v>(&self, reg: &'v Registration, name: &str) -> Option<Cow<'v, str>>
    where
        'a: 'v,
    {
        let given = reg.dialect.inputs.iter().find(|input| *input.name == *name).and_then(|input| input.value.as_deref());
        match given {
            Some(value) => Some(value.into()),
            None => text_of(self.metadata?.get(name)?),
        }
    }
}

/// Everything that one call's texts may name.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) reg: &'a Registration,
    pub(super) values: Values<'a>,
    /// The standard parameters, before any is left out or renamed.
    pub(super) standard: &'a [(String, String)],
    pub(super) redirect_uri: Option<&'a str>,
}

impl<'a> Named<'a> {
    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        if let Some(param) = name.strip_prefix("callback.") {
            return self.callback(param);
        }
        let standard = self.standard.iter().find(|(other, _)| other == name).map(|(_, value)| Cow::from(value.as_str()));
        standard.or_else(|| match name {
            "client_id" => Some(Cow::from(&*self.reg.client_id)),
            "client_secret" => self.reg.client_secret.as_ref().map(|secret| secret.expose().into()),
            "access_token" => self.values.access_token.map(|token| token.expose().into()),
            "redirect_uri" => self.redirect_uri.map(Cow::from),
            "user_code" => self.values.user_code.map(Cow::from),
            "state" => self.callback("state"),
            "scope" if self.values.scope.is_some() => self.values.scope.map(Cow::from),
            _ => self.values.own(self.reg, name),
        })
    }

    fn callback(&self, param: &str) -> Option<Cow<'a, str>> {
        self.values.callback.iter().find(|(name, _)| name == param).map(|(_, value)| value.as_str().into())
    }

    /// As it may stand in a URL, before it is escaped for its place there: a declared value is what its kind would keep.
    pub(super) fn in_url(&self, name: &str) -> Option<Cow<'a, str>> {
        let text = self.text(name)?;
        let mut kinds = self.reg.dialect.kinds(name).peekable();
        let stands = kinds.peek().is_none() || kinds.any(|kind| kind.keep(&text).as_deref() == Some(&*text));
        stands.then_some(text)
    }

    /// The endpoint's URL for this connection. What values make of it is no host that `token_hosts` denies; a fixed one is the operator's own word.
    pub(super) fn url(&self, url: &EndpointUrl) -> Option<Url> {
        let found = url.url(|name| self.in_url(name))?;
        let is_denied =
            || self.reg.token_host_denied(found.host_str().unwrap_or_default(), found.port_or_known_default().unwrap_or_default());
        (url.fixed().is_some() || !is_denied()).then_some(found)
    }
}

/// A value as text. A number that a float could not hold to the digit is none (Q58).
pub(super) fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Bool(flag) => Some(flag.to_string().into()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string().into()),
        Value::Number(number) => number.as_f64().filter(|float| float.abs() < 9e15).map(|_| number.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What an answer leaves of the values that the definition names, checked; and the first required one that it lacks.
pub(super) fn captured(reg: &Registration, answer: &Value) -> (BTreeMap<String, String>, Option<String>) {
    capture(&reg.dialect.metadata, answer)
}

pub(super) fn capture(captures: &[crate::provider::Capture], answer: &Value) -> (BTreeMap<String, String>, Option<String>) {
    let (mut found, mut lacking) = (BTreeMap::new(), None);
    for capture in captures {
        let From::Reply(path) = &capture.from else { continue };
        match path.get(answer).and_then(text_of).and_then(|text| capture.kind.check(&text)) {
            Some(value) => drop(found.insert(capture.name.to_string(), value.into())),
            None if capture.required => lacking = lacking.or_else(|| Some(capture.name.to_string())),
            None => {}
        }
    }
    (found, lacking)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::tests::registration;
    use crate::provider::{Capture, Filled, Input, Kind, Path};
    use serde_json::json;

    fn with_values() -> Registration {
        let mut reg = registration("http://127.0.0.1:1");
        let input = |name: &str, kind| Input { name: name.into(), label: name.into(), example: None, kind, value: None, suffix: None };
        reg.dialect.inputs = vec![input("label", Kind::Label), input("host", Kind::Host(vec!["*.shop.test".into()]))];
        let capture =
            |name: &str, kind| Capture { name: name.into(), from: From::Reply(Path::parse("x").expect("a path")), kind, required: false };
        reg.dialect.metadata = vec![capture("origin", Kind::Origin(vec!["*.api.test:8443".into()])), capture("text", Kind::Text)];
        reg
    }

    fn check(url: &str, metadata: Value, expected: Option<&str>) {
        let reg = with_values();
        let metadata: BTreeMap<String, Value> = serde_json::from_value(metadata).expect("an object");
        let named = Named { reg: &reg, values: Values::of(&metadata), standard: &[], redirect_uri: None };
        let url = EndpointUrl::PerConnection(Filled::parse(url).expect("a text"));
        assert_eq!(named.url(&url).as_ref().map(Url::as_str), expected, "{url:?} {metadata:?}");
    }

    #[test]
    fn only_what_is_listed_chooses_a_host() {
        check("https://{label}.acme.test/t", json!({"label": "a"}), Some("https://a.acme.test/t"));
        check("https://{host}/t", json!({"host": "a.shop.test"}), Some("https://a.shop.test/t"));
        check("https://{origin}/t", json!({"origin": "a.api.test:8443"}), Some("https://a.api.test:8443/t"));
        for evil in ["evil.test", "evil.test/", "evil.test#", "a.b", "a@evil.test", "A", "", "x:1@evil.test"] {
            check("https://{label}.acme.test/t", json!({"label": evil}), None);
            check("https://{host}/t", json!({"host": evil}), None);
            check("https://{origin}/t", json!({"origin": evil}), None);
        }
        check("https://{host}/t", json!({}), None);
    }

    #[test]
    fn no_value_makes_a_host_that_is_denied() {
        let mut reg = with_values();
        reg.token_hosts_denied = vec![crate::provider::DeniedHost::parse("www.acme.test").expect("a host")];
        let found = |url: EndpointUrl, label: &str| {
            let metadata = BTreeMap::from([("label".to_owned(), json!(label))]);
            let named = Named { reg: &reg, values: Values::of(&metadata), standard: &[], redirect_uri: None };
            named.url(&url).is_some()
        };
        let filled = |text: &str| EndpointUrl::PerConnection(Filled::parse(text).expect("a text"));
        assert!(found(filled("https://{label}.acme.test/t"), "api"));
        assert!(!found(filled("https://{label}.acme.test/t"), "www"));
        assert!(!found(filled("https://{label}.acme.test:8443/t"), "www"), "at no port");
        assert!(found("https://www.acme.test/t".parse().expect("a URL"), "www"), "what is written is meant");
    }

    #[test]
    fn a_value_stays_in_its_place() {
        check("https://acme.test/a/{text}/b", json!({"text": "x/../y?z#@ é"}), Some("https://acme.test/a/x%2F..%2Fy%3Fz%23%40%20%C3%A9/b"));
        for climbs in [".", ".."] {
            check("https://acme.test/a/{text}/b", json!({"text": climbs}), None);
        }
        // Of no kind that may stand in a host: what comes of it is no host.
        check("https://{text}/", json!({"text": "evil.test/x"}), None);
        check("https://acme.test/{id}", json!({"id": 17_841_400_000_000_001_u64}), Some("https://acme.test/17841400000000001"));
    }

    #[test]
    fn numbers_are_kept_to_the_digit() {
        for (value, expected) in [
            (json!(17_841_400_000_000_001_u64), Some("17841400000000001")),
            (json!(u64::MAX), Some("18446744073709551615")),
            (json!(1.5), Some("1.5")),
            (json!(1e300), None),
            (json!("a"), Some("a")),
            (json!(true), Some("true")),
            (json!(null), None),
            (json!(["a"]), None),
        ] {
            assert_eq!(text_of(&value).as_deref(), expected, "{value}");
        }
    }
}
