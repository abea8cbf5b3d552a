//! Floor 1: how a credential goes on a request, one file a scheme.
//!
//! Attaching comes last, over what is really sent: method, final URI and final headers. A scheme says through [`Scheme::needs`] what it must
//! see, so that the proxy streams the body unless a scheme signs it. To add a scheme: one file here, one variant, and the compiler shows the
//! rest. Deliberately absent: any choice by the request; the scheme is the operator's word alone.

mod basic;
mod header;
pub mod oauth1;
mod query;

use crate::base::clock::UnixMillis;
use crate::base::credential::Credential;
use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use oauth1::{Consumer, Form, Signed, Stamp, TokenPair};
use std::sync::{Arc, OnceLock};

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
    /// `Authorization: OAuth …`: each request is signed by the client's secret and the token's (RFC 5849).
    OAuth1(Arc<Consumer>),
}

/// What a scheme must see before it can attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing of the request: a prepared value is placed.
    Nothing,
    /// The method, final URI and headers.
    FinalHead,
    /// The whole body too where it is a form; other bodies go by unread.
    Form,
}

/// What of a request its head does not say.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    pub now: UnixMillis,
    pub tls: bool,
    /// Nobody else reads the wire: TLS, or loopback.
    pub private: bool,
    /// There when [`Scheme::needs`] asked for it and the body is one.
    pub form: Option<&'a [u8]>,
}

/// Where the credential stands in the request, and thus what of the client's own must go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    Header(&'a HeaderName),
    Query(&'a str),
}

/// Why a request is not sent with its credential: then it is not sent at all. Never holds the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Control bytes, or what is not ASCII.
    #[error("the token holds bytes that cannot stand in {place}")]
    Bytes { place: &'static str },
    #[error("PLAINTEXT signatures are sent over https or to loopback only")]
    InTheOpen,
    #[error("the client's key did not sign")]
    NoSignature,
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
            Scheme::OAuth1(_) => Needs::Form,
        }
    }

    pub fn place(&self) -> Place<'_> {
        match self {
            Scheme::Bearer | Scheme::Word(_) | Scheme::Basic | Scheme::OAuth1(_) => Place::Header(&AUTHORIZATION),
            Scheme::Header(name) => Place::Header(name),
            Scheme::Query(name) => Place::Query(name),
        }
    }

    /// Puts the credential on the request. `around` is asked for where the scheme [needs](Scheme::needs) more than a value prepared once.
    ///
    /// # Errors
    /// When the token cannot stand in its place: it is then not sent at all.
    pub fn attach<'a>(
        &self,
        credential: &Credential,
        prepared: &Prepared,
        head: &mut Parts,
        around: impl FnOnce() -> Around<'a>,
    ) -> Result<(), AttachError> {
        let token = credential.access_token.expose();
        match self {
            Scheme::Bearer => head.headers.insert(AUTHORIZATION, prepared.value(self, || header::value("Bearer ", token))?),
            Scheme::Word(word) => head.headers.insert(AUTHORIZATION, prepared.value(self, || header::value(&format!("{word} "), token))?),
            Scheme::Header(name) => head.headers.insert(name, prepared.value(self, || header::value("", token))?),
            Scheme::Basic => head.headers.insert(AUTHORIZATION, prepared.value(self, || basic::value(token))?),
            Scheme::Query(name) => return query::attach(name, token, head),
            Scheme::OAuth1(consumer) => head.headers.insert(AUTHORIZATION, signed(consumer, credential, head, &around())?),
        };
        Ok(())
    }
}

/// The signature over a request that is whole but for it.
fn signed(consumer: &Consumer, credential: &Credential, head: &Parts, around: &Around<'_>) -> Result<HeaderValue, AttachError> {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).or_else(|| head.uri.authority().map(|host| host.as_str()));
    let request = Signed {
        method: head.method.as_str(),
        tls: around.tls,
        private: around.private,
        host: host.unwrap_or_default(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        form: around.form.map_or(Form::None, Form::Whole),
    };
    let secret = credential.key.as_ref().map_or("", |secret| secret.expose());
    let token = TokenPair { token: credential.access_token.expose(), secret };
    consumer.authorization(&request, Some(token), &[], &Stamp::at(around.now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;

    fn none() -> Around<'static> {
        panic!("a prepared value needs nothing of the request")
    }

    fn check(scheme: Scheme, token: &str, uri: &str) -> Result<Parts, AttachError> {
        let (mut head, ()) = http::Request::builder().uri(uri).body(()).expect("valid").into_parts();
        let credential = Credential { access_token: Secret::new(token), token_type: "Bearer".into(), key: None };
        let prepared = Prepared::new();
        scheme.attach(&credential, &prepared, &mut head, none)?;
        // The second attach takes the prepared value: the result must not change.
        scheme.attach(&credential, &prepared, &mut head, none)?;
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
        Scheme::Query("key".into()).attach(&Credential::bearer("a&b=c"), &Prepared::new(), &mut head, none).expect("attached");
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
