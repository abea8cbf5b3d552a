//! What a callback says, by the provider's rules for it (RFC 6749 §4.1.2 where the definition says nothing).

use super::Refusal;
use super::session::Answer;
use crate::base::secret::Secret;
use crate::provider::{CallShape, EndpointUrl, From, Registration};
use aws_lc_rs::hmac;
use std::collections::HashMap;

const TEXT_BYTES_MAX: usize = 8 * 1024;

/// The parameters of a callback, each there once.
pub type Params = HashMap<String, String>;

/// A parameter that says something, and not too much.
pub(super) fn text_in<'p>(params: &'p Params, name: &str) -> Option<&'p str> {
    params.get(name).map(String::as_str).filter(|text| !text.is_empty() && text.len() <= TEXT_BYTES_MAX)
}

/// Reads the answer. A provider that signs its callbacks is believed only with its signature.
///
/// # Errors
/// When the signature does not fit: nothing of what came is used then.
pub(super) fn read(registration: Option<&Registration>, params: &Params) -> Result<Answer, Refusal> {
    let text = |name: &str| text_in(params, name).map(str::to_owned);
    let Some(registration) = registration else {
        return Ok(Answer { code: text("code").map(Secret::new), error: text("error"), iss: text("iss"), ..Answer::default() });
    };
    let rules = &registration.dialect.callback;
    if let Some(name) = &rules.hmac
        && !is_signed(registration, name, params)
    {
        return Err(Refusal::Refused("the answer's signature does not fit"));
    }
    let code = text(rules.code.as_deref().unwrap_or("code"));
    let code = code.map(|code| match &rules.code_suffix {
        Some(suffix) => code.strip_suffix(&**suffix).map(str::to_owned).unwrap_or(code),
        None => code,
    });
    let errors: Vec<String> = rules.error.as_deref().into_iter().chain(["error"]).filter_map(text).collect();
    let denied = rules.denied.iter().any(|denied| match denied.strip_suffix('=') {
        Some(param) => params.contains_key(param),
        None => errors.iter().any(|error| *error == **denied),
    });
    let mut answer = Answer {
        code: code.filter(|code| !code.is_empty()).map(Secret::new),
        denied: denied || errors.iter().any(|error| is_denial(error)),
        error: errors.into_iter().next(),
        iss: text("iss"),
        scope: rules.scope.as_deref().and_then(text),
        callback: wanted(registration).into_iter().filter_map(|name| Some((name.to_owned(), text(name)?))).collect(),
        ..Answer::default()
    };
    for capture in &registration.dialect.metadata {
        let From::Callback(param) = &capture.from else { continue };
        match params.get(&**param).map(|value| capture.kind.check(value)) {
            Some(Some(value)) => drop(answer.learnt.insert(capture.name.to_string(), (&*value).into())),
            // A host that the definition does not list is an attack, or a definition that is too narrow: either way nothing goes there.
            Some(None) => answer.unfit = Some(capture.name.to_string()),
            None if capture.required => answer.unfit = Some(capture.name.to_string()),
            None => {}
        }
    }
    Ok(answer)
}

/// RFC 6749 §4.1.2.1's word for a person's no, and the others that are in use for it.
fn is_denial(error: &str) -> bool {
    ["access_denied", "user_denied", "user_cancelled_login", "user_cancelled_authorize", "user_cancelled"].contains(&error)
}

/// The parameters that the code's call carries on.
fn wanted(registration: &Registration) -> Vec<&str> {
    let calls = &registration.dialect.calls;
    let mut names: Vec<&str> = std::iter::once(&calls.code).chain(&calls.extend).flat_map(names_in).collect();
    if let Some(EndpointUrl::PerConnection(text)) = &registration.token_url {
        names.extend(text.names());
    }
    let mut wanted: Vec<&str> =
        names.into_iter().filter_map(|name| name.strip_prefix("callback.").or_else(|| (name == "state").then_some(name))).collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

/// Every name that a shape's texts hold.
pub(super) fn names_in(shape: &CallShape) -> impl Iterator<Item = &str> {
    let url = match &shape.url {
        Some(EndpointUrl::PerConnection(text)) => Some(text),
        _ => None,
    };
    let params = shape.params.iter().map(|(_, text)| text);
    url.into_iter().chain(params).chain(shape.headers.iter().map(|(_, text)| text)).flat_map(|text| text.names())
}

/// The hex HMAC-SHA256, by the client's secret, of all other parameters, sorted and joined (Q28). Compared in constant time.
fn is_signed(registration: &Registration, name: &str, params: &Params) -> bool {
    let (Some(secret), Some(told)) = (&registration.client_secret, params.get(name).and_then(|told| unhex(told))) else { return false };
    let mut others: Vec<String> = params
        .iter()
        .filter(|(other, _)| *other != name)
        .map(|(name, value)| format!("{}={}", escaped(name).replace('=', "%3D"), escaped(value)))
        .collect();
    others.sort_unstable();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    hmac::verify(&key, others.join("&").as_bytes(), &told).is_ok()
}

/// What would end a pair stays within it.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('&', "%26")
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let pairs = digits.chunks_exact(2).filter_map(|pair| std::str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::tests::registration;
    use crate::provider::{Capture, Filled, Kind};

    fn params(pairs: &[(&str, &str)]) -> Params {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn read(registration: &Registration, pairs: &[(&str, &str)]) -> Answer {
        super::read(Some(registration), &params(pairs)).expect("believed")
    }

    #[test]
    fn the_standard_answer_is_read_as_it_is() {
        let reg = registration("http://127.0.0.1:1");
        let answer = read(&reg, &[("code", "C1#_"), ("state", "S"), ("iss", "https://i"), ("device_id", "D")]);
        assert_eq!((answer.code, answer.iss.as_deref(), answer.error), (Some("C1#_".into()), Some("https://i"), None));
        assert!(answer.callback.is_empty() && answer.learnt.is_empty() && !answer.denied, "nothing more is kept");
        for (error, denied) in [("access_denied", true), ("user_cancelled_authorize", true), ("server_error", false), ("denied", false)] {
            assert_eq!(read(&reg, &[("error", error)]).denied, denied, "{error}");
        }
    }

    #[test]
    fn names_suffixes_and_denials_are_the_definitions() {
        let mut reg = registration("http://127.0.0.1:1");
        let rules = &mut reg.dialect.callback;
        (rules.code, rules.code_suffix, rules.error) = (Some("authCode".into()), Some("#_".into()), Some("error_reason".into()));
        rules.denied = vec!["no_thanks".into(), "denied=".into()];
        let answer = read(&reg, &[("authCode", "C1#_"), ("code", "another")]);
        assert_eq!(answer.code, Some("C1".into()));
        for (pairs, error, denied) in [
            (&[("error_reason", "no_thanks"), ("error", "x")][..], Some("no_thanks"), true),
            (&[("error", "no_thanks")], Some("no_thanks"), true),
            (&[("denied", "")], None, true),
            (&[("error", "x")], Some("x"), false),
        ] {
            let answer = read(&reg, pairs);
            assert_eq!((answer.error.as_deref(), answer.denied), (error, denied), "{pairs:?}");
        }
    }

    #[test]
    fn only_what_the_definition_names_is_kept() {
        let mut reg = registration("http://127.0.0.1:1");
        let text = |text: &str| Filled::parse(text).expect("a text");
        reg.dialect.calls.code.params = vec![("device_id".into(), text("{callback.device_id}")), ("state".into(), text("{state}"))];
        reg.dialect.metadata = vec![Capture {
            name: "server".into(),
            from: From::Callback("accounts-server".into()),
            kind: Kind::Origin(vec!["*.acme.test".into()]),
            required: true,
        }];
        let pairs = [("code", "C"), ("state", "S"), ("device_id", "D"), ("more", "M"), ("accounts-server", "https://eu.acme.test")];
        let answer = read(&reg, &pairs);
        assert_eq!(answer.callback, [("device_id".to_owned(), "D".to_owned()), ("state".to_owned(), "S".to_owned())]);
        assert_eq!((answer.learnt["server"].as_str(), answer.unfit), (Some("eu.acme.test"), None));
        for evil in ["https://evil.test", "https://eu.acme.test.evil.test", "https://eu.acme.test@evil.test", "http://eu.acme.test", ""] {
            let answer = read(&reg, &[("code", "C"), ("accounts-server", evil)]);
            assert_eq!((answer.unfit.as_deref(), answer.learnt.len()), (Some("server"), 0), "{evil}");
        }
        assert_eq!(read(&reg, &[("code", "C")]).unfit.as_deref(), Some("server"), "required");
    }

    #[test]
    fn a_signed_callback_is_believed_with_its_signature_alone() {
        let mut reg = registration("http://127.0.0.1:1");
        reg.dialect.callback.hmac = Some("hmac".into());
        // printf 'code=C1&shop=a.myshopify.com&state=S1&timestamp=1700000000' | openssl dgst -sha256 -hmac s3
        let good = "8118ad34718b7bd32b450c96b50a2ecd27d075398851e007c843f4c40bd12f05";
        let signed = |shop: &str, hmac: &str| {
            super::read(
                Some(&reg),
                &params(&[("code", "C1"), ("hmac", hmac), ("shop", shop), ("state", "S1"), ("timestamp", "1700000000")]),
            )
        };
        assert!(signed("a.myshopify.com", good).is_ok());
        assert!(signed("a.myshopify.com", &good.to_uppercase()).is_ok());
        for (shop, hmac) in
            [("b.myshopify.com", good), ("a.myshopify.com", ""), ("a.myshopify.com", &good[1..]), ("a.myshopify.com", &"0".repeat(64))]
        {
            assert!(matches!(signed(shop, hmac), Err(Refusal::Refused(_))), "{shop} {hmac}");
        }
        reg.client_secret = None;
        assert!(super::read(Some(&reg), &params(&[("code", "C1"), ("hmac", good)])).is_err(), "nothing to believe it by");
    }
}
