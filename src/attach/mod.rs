//! Floor 1: how a credential goes on a request, one file a scheme.
//!
//! Attaching comes last, over what is really sent: method, final URI and final headers. A scheme says through [`Scheme::needs`] what it must
//! see, so that the proxy streams the body unless a scheme signs it. To add a scheme: one file here, one variant, and the compiler shows the
//! rest. Deliberately absent: any choice by the request; the scheme is the operator's word alone.

mod basic;
mod header;
mod query;

use crate::base::credential::Credential;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::request::Parts;
use std::sync::OnceLock;

/// A checked `attach:` of a provider or route (contract §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheme {
    /// `Authorization: Bearer TOKEN` (RFC 6750 §2.1).
    Bearer,
    /// `Authorization: WORD TOKEN`, for providers with a word of their own (`token`, `OAuth`, `Zoho-oauthtoken`).
    Word(Box<str>),
    /// The bare token in a header of its own.
    Header(HeaderName),
    /// The token as a query parameter (RFC 6750 §2.3), because the provider takes it no other way.
    Query(Box<str>),
    /// `Authorization: Basic base64(TOKEN)`: the stored token is `user:password`, or a key that stands as the user with no password.
    Basic,
}

/// What a scheme must see before it can attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing of the request: a prepared value is placed.
    Nothing,
    /// The method, final URI and headers.
    FinalHead,
    /// The whole body too, up to so many bytes.
    Body { max: usize },
}

/// Where the credential stands in the request, and thus what of the client's own must go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    Header(&'a HeaderName),
    Query(&'a str),
}

/// A token cannot stand where the scheme puts it (control bytes, not ASCII). Never holds the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the token holds bytes that cannot stand in {place}")]
pub struct AttachError {
    pub place: &'static str,
}

/// The header value of one token, built at the first call that needs it and then cloned by reference count.
///
/// A token is attached by one scheme in all but odd set-ups; a second scheme of another route builds its value anew each call.
#[derive(Debug, Default)]
pub struct Prepared {
    first: OnceLock<(Scheme, HeaderValue)>,
}

impl Prepared {
    pub fn new() -> Self {
        Prepared::default()
    }

    fn value(&self, scheme: &Scheme, build: impl Fn() -> Result<HeaderValue, AttachError>) -> Result<HeaderValue, AttachError> {
        match self.first.get() {
            Some((for_scheme, value)) if for_scheme == scheme => Ok(value.clone()),
            Some(_) => build(),
            None => {
                let value = build()?;
                // A second caller that raced here built the same value; whichever is kept is right.
                let _ = self.first.set((scheme.clone(), value.clone()));
                Ok(value)
            }
        }
    }
}

impl Scheme {
    pub fn needs(&self) -> Needs {
        match self {
            Scheme::Bearer | Scheme::Word(_) | Scheme::Header(_) | Scheme::Query(_) | Scheme::Basic => Needs::Nothing,
        }
    }

    pub fn place(&self) -> Place<'_> {
        match self {
            Scheme::Bearer | Scheme::Word(_) | Scheme::Basic => Place::Header(&AUTHORIZATION),
            Scheme::Header(name) => Place::Header(name),
            Scheme::Query(name) => Place::Query(name),
        }
    }

    /// Puts the credential on the request. `body` is there when [`Scheme::needs`] asked for it.
    ///
    /// # Errors
    /// When the token cannot stand in its place: it is then not sent at all.
    pub fn attach(&self, credential: &Credential, prepared: &Prepared, head: &mut Parts, _body: Option<&[u8]>) -> Result<(), AttachError> {
        let token = credential.access_token.expose();
        match self {
            Scheme::Bearer => head.headers.insert(AUTHORIZATION, prepared.value(self, || header::value("Bearer ", token))?),
            Scheme::Word(word) => head.headers.insert(AUTHORIZATION, prepared.value(self, || header::value(&format!("{word} "), token))?),
            Scheme::Header(name) => head.headers.insert(name, prepared.value(self, || header::value("", token))?),
            Scheme::Basic => head.headers.insert(AUTHORIZATION, prepared.value(self, || basic::value(token))?),
            Scheme::Query(name) => return query::attach(name, token, head),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;

    fn check(scheme: Scheme, token: &str, uri: &str) -> Result<Parts, AttachError> {
        let (mut head, ()) = http::Request::builder().uri(uri).body(()).expect("valid").into_parts();
        let credential = Credential { access_token: Secret::new(token), token_type: "Bearer".into(), key: None };
        let prepared = Prepared::new();
        scheme.attach(&credential, &prepared, &mut head, None)?;
        // The second attach takes the prepared value: the result must not change.
        scheme.attach(&credential, &prepared, &mut head, None)?;
        Ok(head)
    }

    #[test]
    fn header_schemes_say_what_the_provider_wants() {
        for (scheme, name, expected) in [
            (Scheme::Bearer, "authorization", "Bearer t0k"),
            (Scheme::Word("token".into()), "authorization", "token t0k"),
            (Scheme::Header(HeaderName::from_static("x-api-key")), "x-api-key", "t0k"),
            (Scheme::Basic, "authorization", "Basic dDBrOg=="),
        ] {
            let head = check(scheme.clone(), "t0k", "/a").expect("attached");
            let values: Vec<_> = head.headers.get_all(name).iter().collect();
            assert_eq!(values, [expected], "{scheme:?}");
            assert!(values[0].is_sensitive(), "{scheme:?}");
        }
    }

    #[test]
    fn basic_keeps_a_password_that_the_token_names() {
        let head = check(Scheme::Basic, "user:pass", "/").expect("attached");
        assert_eq!(head.headers["authorization"], "Basic dXNlcjpwYXNz");
    }

    #[test]
    fn query_is_escaped_and_joins_what_is_there() {
        let (mut head, ()) = http::Request::builder().uri("http://h/p?a=1").body(()).expect("valid").into_parts();
        Scheme::Query("key".into()).attach(&Credential::bearer("a&b=c"), &Prepared::new(), &mut head, None).expect("attached");
        assert_eq!(head.uri, "http://h/p?a=1&key=a%26b%3Dc");
    }

    #[test]
    fn a_hostile_token_never_becomes_a_header() {
        for token in ["a\r\nX-Evil: 1", "a\0b", "snow☃", ""] {
            let failed = check(Scheme::Bearer, token, "/").expect_err(token);
            assert!(token.is_empty() || !format!("{failed} {failed:?}").contains(token));
        }
    }
}
