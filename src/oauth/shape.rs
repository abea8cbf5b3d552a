//! From a standard request to what goes over the wire: one provider's shape of one kind of call, as its definition says it.
//!
//! The order is that of the definition language: the standard parameters, less those left out, renamed, with the definition's own set over
//! them. With a shape that says nothing the standard request goes out as it is (RFC 6749 §3.2: a form post with nothing in the URL).

use super::discovery;
use super::error::TokenError;
use super::form::{Pairs, basic};
use super::values::{Named, Values};
use crate::provider::{BodyFormat, CallShape, ClientAuth, Filled, Registration};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Method, Request};
use serde_json::{Map, Value};
use url::Url;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// One call on its way out.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) reg: &'a Registration,
    pub(super) shape: &'a CallShape,
    pub(super) values: Values<'a>,
    pub(super) redirect_uri: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// How the client proves itself on this call. Without a secret there is nothing to show, unless the registration shows it as empty.
    pub(super) fn client_auth(&self) -> ClientAuth {
        let by_secret = |auth| matches!(auth, ClientAuth::Basic | ClientAuth::BasicRaw | ClientAuth::Body);
        match self.shape.client_auth {
            Some(auth) if by_secret(auth) && self.reg.client_secret.is_none() => self.reg.client_auth,
            Some(auth) => auth,
            None => self.reg.client_auth,
        }
    }

    /// Whether a refresh token is what the call sends.
    pub(super) fn is_refresh(&self) -> bool {
        std::ptr::eq(self.shape, &self.reg.dialect.calls.refresh)
    }

    fn named<'n>(&self, standard: &'n [(String, String)]) -> Named<'n>
    where
        'a: 'n,
    {
        Named { reg: self.reg, values: self.values, standard, redirect_uri: self.redirect_uri }
    }

    /// The parameters as this provider wants them.
    pub(super) fn pairs(&self, standard: &Pairs) -> Pairs {
        let shape = self.shape;
        let mut pairs = Pairs::new();
        for (name, value) in standard {
            if shape.omit.iter().any(|omitted| **omitted == **name) {
                continue;
            }
            let theirs = shape.rename.iter().find(|(ours, _)| **ours == **name).map_or(name.as_str(), |(_, theirs)| theirs);
            pairs.push((theirs.to_owned(), value.clone()));
        }
        let named = self.named(standard);
        for (name, text) in &shape.params {
            if let Some(value) = text.fill(|place| named.text(place)) {
                pairs.retain(|(other, _)| **other != **name);
                pairs.push((name.to_string(), value));
            }
        }
        pairs
    }

    /// Where the call goes: the shape's own URL, or what `usual` says.
    pub(super) fn own_url(&self, standard: &Pairs) -> Result<Option<Url>, TokenError> {
        let Some(url) = &self.shape.url else { return Ok(None) };
        let url = self.named(standard).url(url).ok_or_else(lacking)?;
        discovery::allowed(&url)?;
        Ok(Some(url))
    }

    /// The request on the wire. `authorization` is the client's proof where it is a header.
    pub(super) fn request(&self, url: &Url, standard: &Pairs, authorization: Option<HeaderValue>) -> Result<Request<Bytes>, TokenError> {
        let unusable = |_| TokenError::cannot("the endpoint's URL cannot be used");
        let (shape, pairs) = (self.shape, self.pairs(standard));
        let method = shape.method.clone().unwrap_or(Method::POST);
        let mut builder = Request::builder().method(method.clone()).header(ACCEPT, JSON);
        let body = if method == Method::GET {
            let mut url = url.clone();
            if !pairs.is_empty() {
                url.query_pairs_mut().extend_pairs(&pairs);
            }
            builder = builder.uri(url.as_str());
            Bytes::new()
        } else {
            builder = builder.uri(url.as_str());
            match shape.body {
                _ if pairs.is_empty() && method == Method::DELETE => Bytes::new(),
                BodyFormat::None => {
                    builder = builder.header(CONTENT_LENGTH, HeaderValue::from_static("0"));
                    Bytes::new()
                }
                BodyFormat::Form => {
                    builder = builder.header(CONTENT_TYPE, FORM);
                    form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish().into()
                }
                BodyFormat::Json => {
                    builder = builder.header(CONTENT_TYPE, JSON);
                    json(pairs).to_string().into()
                }
            }
        };
        let mut request = builder.body(body).map_err(unusable)?;
        if let Some(value) = authorization {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let named = self.named(standard);
        for (name, text) in &shape.headers {
            if let Some(value) = header(text, &named)? {
                request.headers_mut().insert(name, value);
            }
        }
        Ok(request)
    }

    /// What the crate built, in this provider's shape; untouched where the shape says nothing.
    pub(super) fn reshaped(&self, standard: Request<Vec<u8>>) -> Result<Request<Bytes>, TokenError> {
        let raw = self.client_auth() == ClientAuth::BasicRaw;
        if *self.shape == CallShape::default() && !raw {
            return Ok(standard.map(Bytes::from));
        }
        let url = standard.uri().to_string().parse().map_err(|_| TokenError::cannot("the endpoint's URL cannot be used"))?;
        let pairs: Pairs = form_urlencoded::parse(standard.body()).into_owned().collect();
        let shown = standard.headers().get(AUTHORIZATION).cloned();
        let authorization = if raw { Some(basic(self.reg, ClientAuth::BasicRaw)?) } else { shown };
        self.request(&url, &pairs, authorization)
    }
}

pub(super) fn lacking() -> TokenError {
    TokenError::cannot("the endpoint's URL needs a value that this connection does not have, or that may not stand there")
}

pub(super) fn header(text: &Filled, named: &Named<'_>) -> Result<Option<HeaderValue>, TokenError> {
    let Some(filled) = text.fill(|place| named.text(place)) else { return Ok(None) };
    let mut value = HeaderValue::from_str(&filled).map_err(|_| TokenError::cannot("a header of the call cannot be sent"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Members in order; a name that comes more than once is a list.
fn json(pairs: Pairs) -> Value {
    let mut members = Map::new();
    for (name, value) in pairs {
        match members.get_mut(&name) {
            None => drop(members.insert(name, value.into())),
            Some(Value::Array(list)) => list.push(value.into()),
            Some(one) => *one = Value::Array(vec![one.take(), value.into()]),
        }
    }
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::tests::registration;

    fn standard() -> Pairs {
        [("grant_type", "authorization_code"), ("code", "C1"), ("client_id", "id"), ("client_secret", "s3")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    fn check(shape: CallShape, expected: &str) {
        let reg = registration("http://127.0.0.1:1");
        let call = Call { reg: &reg, shape: &shape, values: Values::default(), redirect_uri: None };
        let request = call.request(&"https://as.test/t?v=1".parse().expect("a URL"), &standard(), None).expect("a request");
        let body = String::from_utf8_lossy(request.body()).into_owned();
        assert_eq!(format!("{} {} {body}", request.method(), request.uri()), expected);
    }

    fn text(text: &str) -> Filled {
        Filled::parse(text).expect("a text")
    }

    #[test]
    fn omit_goes_before_rename_and_params_over_all() {
        check(CallShape::default(), "POST https://as.test/t?v=1 grant_type=authorization_code&code=C1&client_id=id&client_secret=s3");
        let shape = CallShape {
            omit: vec!["grant_type".into(), "client_secret".into()],
            rename: vec![("client_id".into(), "appid".into()), ("client_secret".into(), "secret".into())],
            params: vec![("code".into(), text("{code}-{client_secret}")), ("none".into(), text("{nothing}")), ("type".into(), text("web"))],
            ..CallShape::default()
        };
        check(
            CallShape { body: BodyFormat::Json, ..shape.clone() },
            r#"POST https://as.test/t?v=1 {"appid":"id","code":"C1-s3","type":"web"}"#,
        );
        check(CallShape { method: Some(Method::GET), ..shape }, "GET https://as.test/t?v=1&appid=id&code=C1-s3&type=web ");
    }

    #[test]
    fn a_call_may_have_no_body() {
        let reg = registration("http://127.0.0.1:1");
        let shape = CallShape { body: BodyFormat::None, headers: vec![(AUTHORIZATION, text("Bearer {code}"))], ..CallShape::default() };
        let call = Call { reg: &reg, shape: &shape, values: Values::default(), redirect_uri: None };
        let request = call.request(&"https://as.test/t".parse().expect("a URL"), &standard(), None).expect("a request");
        let headers = request.headers();
        assert_eq!((request.method(), request.body().len(), &headers[CONTENT_LENGTH]), (&Method::POST, 0, &HeaderValue::from_static("0")));
        assert!(!headers.contains_key(CONTENT_TYPE) && headers[AUTHORIZATION] == "Bearer C1");
    }

    #[test]
    fn a_name_that_comes_twice_is_a_list_in_json() {
        let pairs = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(json(pairs.to_vec()).to_string(), r#"{"a":["1","3","4"],"b":"2"}"#);
    }
}
