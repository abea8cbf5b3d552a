//! `placeholder`: the end user's name where an SDK wants its token, for those that cannot add a header (contract §3).
//!
//! `NAME`, or `NAME:CALLERKEY`. It is read and never sent: what stands in `Authorization` or in the attach place is replaced on every call.

use crate::attach::{Place, Scheme};
use crate::config::Route;
use crate::identity::IdentityError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use std::borrow::Cow;

/// What stood in the token's place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placeholder<'h> {
    pub(super) name: Cow<'h, str>,
    pub(super) key: Option<Cow<'h, str>>,
}

/// What the client's SDK sent as its token. `has_keys`: whether callers show keys at all; without them a colon is part of the name.
///
/// # Errors
/// When a place is filled twice, or with what is no text.
pub(super) fn read<'h>(head: &'h Parts, route: &Route, has_keys: bool) -> Result<Option<Placeholder<'h>>, IdentityError> {
    if let Some(value) = one(&head.headers, &AUTHORIZATION)? {
        return of_authorization(value, &route.attach, has_keys);
    }
    if !route.act_as.carries_token() {
        return Ok(None);
    }
    match route.attach.place() {
        Place::Header(name) => Ok(one(&head.headers, name)?.map(|value| split(Cow::Borrowed(value.trim()), has_keys))),
        Place::Query(name) => {
            let query = head.uri.query().unwrap_or_default().as_bytes();
            let mut found = form_urlencoded::parse(query).filter(|(known, _)| known == name);
            match (found.next(), found.next()) {
                (Some((_, value)), None) => Ok(Some(split(value, has_keys))),
                (None, _) => Ok(None),
                (Some(_), Some(_)) => Err(IdentityError::Invalid("the placeholder is there more than once")),
            }
        }
    }
}

fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, IdentityError> {
    let mut lines = headers.get_all(name).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(IdentityError::Invalid("the placeholder is there more than once"));
    }
    std::str::from_utf8(line.as_bytes()).map(Some).map_err(|_| IdentityError::Invalid("it is not UTF-8"))
}

/// `Bearer`, `Basic`, or the provider's own word; another scheme names nobody.
fn of_authorization<'h>(value: &'h str, attach: &Scheme, has_keys: bool) -> Result<Option<Placeholder<'h>>, IdentityError> {
    if matches!(attach, Scheme::Header(name) if *name == AUTHORIZATION) {
        return Ok(Some(split(Cow::Borrowed(value.trim()), has_keys)));
    }
    let (word, rest) = value.split_once(' ').unwrap_or((value, ""));
    let rest = rest.trim();
    if word.eq_ignore_ascii_case("basic") {
        let invalid = || IdentityError::Invalid("the placeholder is no Basic credentials");
        let pair = STANDARD.decode(rest).map_err(|_| invalid())?;
        let pair = String::from_utf8(pair).map_err(|_| invalid())?;
        // RFC 7617 §2: the first colon ends the user name.
        let (name, key) = pair.split_once(':').unwrap_or((&pair, ""));
        let key = (has_keys && !key.is_empty()).then(|| Cow::Owned(key.to_owned()));
        return Ok(Some(Placeholder { name: Cow::Owned(name.to_owned()), key }));
    }
    let own_word = matches!(attach, Scheme::Word(own) if own.eq_ignore_ascii_case(word));
    Ok((own_word || word.eq_ignore_ascii_case("bearer")).then(|| split(Cow::Borrowed(rest), has_keys)))
}

/// Keys hold no colon that matters here: the last one parts them from the name.
fn split(text: Cow<'_, str>, has_keys: bool) -> Placeholder<'_> {
    let Some(colon) = text.rfind(':').filter(|_| has_keys) else { return Placeholder { name: text, key: None } };
    let (name, key) = match text {
        Cow::Borrowed(text) => (Cow::Borrowed(&text[..colon]), Cow::Borrowed(&text[colon + 1..])),
        Cow::Owned(text) => (Cow::Owned(text[..colon].to_owned()), Cow::Owned(text[colon + 1..].to_owned())),
    };
    Placeholder { name, key: (!key.is_empty()).then_some(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, attach: &Scheme, has_keys: bool, expected: Option<(&str, Option<&str>)>) {
        let found = of_authorization(value, attach, has_keys).expect(value);
        let found = found.as_ref().map(|found| (&*found.name, found.key.as_deref()));
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn the_name_stands_where_an_sdk_puts_its_token() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (value, has_keys, expected) in [
            ("Bearer megan@personalemail.com".to_owned(), true, Some(("megan@personalemail.com", None))),
            ("bearer  megan:k3y".to_owned(), true, Some(("megan", Some("k3y")))),
            ("Bearer urn:user:7".to_owned(), false, Some(("urn:user:7", None))),
            ("Bearer megan:".to_owned(), true, Some(("megan", None))),
            ("token megan".to_owned(), true, Some(("megan", None))),
            ("Bearer".to_owned(), true, Some(("", None))),
            (basic("megan:"), true, Some(("megan", None))),
            (basic("megan"), true, Some(("megan", None))),
            (basic("megan:k3y"), true, Some(("megan", Some("k3y")))),
            (basic("megan:x"), false, Some(("megan", None))),
            ("Digest megan".to_owned(), true, None),
            ("megan".to_owned(), true, None),
        ] {
            check(&value, &Scheme::Word("Token".into()), has_keys, expected);
        }
        assert!(of_authorization("Basic !!", &Scheme::Bearer, true).is_err());
        check("megan", &Scheme::Header(AUTHORIZATION), true, Some(("megan", None)));
    }
}
