//! Floor 1: how a credential goes on a request, one file a scheme.
//!
//! Attaching comes last, over what is really sent: method, final URI and final headers. A scheme says through [`Scheme::needs`] what it must
//! see, so that the proxy streams the body unless a scheme signs it. To add a scheme: one file here, one variant, and the compiler shows the
//! rest. Deliberately absent: any choice by the request; the scheme is the operator's word alone.

mod basic;
pub mod dpop;
mod header;
pub mod oauth1;
mod query;

use crate::base::clock::UnixMillis;
use crate::base::credential::Credential;
use dpop::{Bound, DPOP, Nonces};
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
    /// `Authorization: DPoP TOKEN`, and a proof of the key that the token is bound to (RFC 9449 §7.1).
    Dpop,
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
    /// Which server it goes to: the number of its origin.
    pub server: u32,
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
    #[error("the token is bound to no key that is here, and is not sent as if it were (`dpop`)")]
    Unbound,
    #[error("the token is bound to a key (its type is DPoP), and is not sent without the proof of it")]
    Unproven,
    #[error("PLAINTEXT signatures are sent over https or to loopback only")]
    InTheOpen,
    #[error("the key did not sign")]
    NoSignature,
}

/// The header value of one token, built at the first call that needs it and then cloned by reference count.
///
/// A token is attached by one scheme in all but odd set-ups; a second scheme of another route builds its value anew each call. Beside it
/// stands what a token that is bound to a key needs: the key, parsed once, and the nonces that servers want.
#[derive(Debug, Default)]
pub struct Prepared {
    first: OnceLock<(Scheme, HeaderValue)>,
    bound: OnceLock<Box<Bound>>,
    nonces: Nonces,
}

impl Prepared {
    pub fn new() -> Self {
        Prepared::default()
    }

    /// The nonces that this token's proofs hold.
    pub fn nonces(&self) -> &Nonces {
        &self.nonces
    }

    fn bound(&self, credential: &Credential) -> Result<&Bound, AttachError> {
        if let Some(bound) = self.bound.get() {
            return Ok(bound);
        }
        let bound = Box::new(Bound::of(credential)?);
        Ok(self.bound.get_or_init(|| bound))
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
            Scheme::Dpop => Needs::FinalHead,
            Scheme::OAuth1(_) => Needs::Form,
        }
    }

    pub fn place(&self) -> Place<'_> {
        match self {
            Scheme::Bearer | Scheme::Word(_) | Scheme::Basic | Scheme::Dpop | Scheme::OAuth1(_) => Place::Header(&AUTHORIZATION),
            Scheme::Header(name) => Place::Header(name),
            Scheme::Query(name) => Place::Query(name),
        }
    }

    /// Puts the credential on the request. `around` is asked for where the scheme [needs](Scheme::needs) more than a value prepared once.
    ///
    /// # Errors
    /// When the token cannot stand in its place, or is of a kind that does not belong there: it is then not sent at all.
    pub fn attach<'a>(
        &self,
        credential: &Credential,
        prepared: &Prepared,
        head: &mut Parts,
        around: impl FnOnce() -> Around<'a>,
    ) -> Result<(), AttachError> {
        let token = credential.access_token.expose();
        // Asked when a value is built, not at each call.
        let free = || if dpop::is_bound(&credential.token_type) { Err(AttachError::Unproven) } else { Ok(token) };
        match self {
            Scheme::Bearer => head.headers.insert(AUTHORIZATION, prepared.value(self, || header::value("Bearer ", free()?))?),
            Scheme::Word(word) => head.headers.insert(AUTHORIZATION, prepared.value(self, || header::value(&format!("{word} "), free()?))?),
            Scheme::Header(name) => head.headers.insert(name, prepared.value(self, || header::value("", free()?))?),
            Scheme::Basic => head.headers.insert(AUTHORIZATION, prepared.value(self, || basic::value(free()?))?),
            Scheme::Query(name) => return query::attach(name, free()?, head),
            Scheme::Dpop => {
                let proof = prepared.bound(credential)?.prove(head, &around(), &prepared.nonces)?;
                // Whatever proof the client sent itself goes.
                head.headers.insert(DPOP, proof);
                head.headers.insert(AUTHORIZATION, prepared.value(self, || header::value("DPoP ", token))?)
            }
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
    #[test]
    fn p31_a_bound_token_goes_with_its_proof_and_never_as_a_bearers() {
        let key = dpop::ProofKey::generate();
        let credential =
            |token_type: &str, key: Option<Secret>| Credential { access_token: "t0k".into(), token_type: token_type.into(), key };
        let attach = |scheme: &Scheme, credential: &Credential, prepared: &Prepared| {
            let builder =
                http::Request::builder().method("PUT").uri("/a%20b?q=1").header("host", "api.test:8443").header("dpop", "client's");
            let (mut head, ()) = builder.body(()).expect("valid").into_parts();
            let around = || Around { now: UnixMillis(5_000), tls: true, private: true, server: 7, form: None };
            scheme.attach(credential, prepared, &mut head, around).map(|()| head)
        };
        let (bound, prepared) = (credential("dpop", key.clone()), Prepared::new());
        let first = attach(&Scheme::Dpop, &bound, &prepared).expect("attached");
        assert_eq!(first.headers["authorization"], "DPoP t0k");
        let proofs: Vec<_> = first.headers.get_all("dpop").iter().collect();
        let (_, claims) = dpop::tests::verified(proofs[0].to_str().expect("ASCII"));
        assert_eq!((proofs.len(), &claims["htm"], &claims["htu"]), (1, &"PUT".into(), &"https://api.test:8443/a%20b".into()));
        assert_eq!(claims["ath"], dpop::hash_of("t0k"));
        prepared.nonces().learn(7, "n7");
        let second = attach(&Scheme::Dpop, &bound, &prepared).expect("attached");
        let (_, again) = dpop::tests::verified(second.headers["dpop"].to_str().expect("ASCII"));
        assert_eq!(again["nonce"], "n7");
        assert_ne!(again["jti"], claims["jti"]);
        for (scheme, credential, expected) in [
            (Scheme::Dpop, credential("Bearer", key.clone()), AttachError::Unbound),
            (Scheme::Dpop, credential("DPoP", None), AttachError::Unbound),
            (Scheme::Bearer, credential("DPoP", key.clone()), AttachError::Unproven),
            (Scheme::Word("token".into()), credential("DPoP", key.clone()), AttachError::Unproven),
            (Scheme::Header(HeaderName::from_static("x-api-key")), credential("dpop", key.clone()), AttachError::Unproven),
            (Scheme::Query("key".into()), credential("DPOP", key.clone()), AttachError::Unproven),
            (Scheme::Basic, credential("DPoP", key), AttachError::Unproven),
        ] {
            assert_eq!(attach(&scheme, &credential, &Prepared::new()).expect_err("refused"), expected, "{scheme:?}");
        }
    }
}
