//! What `send` and `response` of a route make of the upstream's request: method, headers and a body of the route's own.

use super::body::OutBody;
use super::error::ProxyError;
use crate::config::{BodySource, HeaderSource, Route, SendAs, Special};
use crate::route::{Captures, TemplateFault};
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TRAILER,
};
use http::{HeaderName, HeaderValue, Method, Request};
use hyper::body::{Body, Incoming};

const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// What a request says of its body; a body of our own has none of it.
const OF_BODY: [HeaderName; 5] = [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_LANGUAGE, TRAILER];
/// What asks for another answer than the whole JSON.
const OF_ANSWER: [HeaderName; 6] = [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];

/// Refuses a body of the client's on a route that sends one of its own: dropping it in silence would hide a mistake.
///
/// # Errors
/// `bad-request`.
pub(super) fn refuse_body(route: &Route, incoming: &Incoming) -> Result<(), ProxyError> {
    let sends = |special: &Special| special.send.as_ref().is_some_and(|send| send.body.is_some());
    if route.special.as_deref().is_some_and(sends) && !incoming.is_end_stream() {
        return Err(ProxyError::BadRequest("the route sends a body of its own, and this request has one too"));
    }
    Ok(())
}

/// The method that the upstream sees.
pub(super) fn method(client: &Method, special: Option<&Special>) -> Method {
    match special {
        Some(Special { send: Some(send), .. }) => send.method.clone(),
        // A HEAD has no JSON to look into: the answer is fetched and only its head goes on.
        Some(Special { response: Some(_), .. }) if *client == Method::HEAD => Method::GET,
        _ => client.clone(),
    }
}

/// Edits the upstream's request, after `headers:` and before the credential: its headers, and the body where the route has one of its own.
///
/// # Errors
/// When a capture cannot stand where it should.
pub(super) fn edit(request: &mut Request<OutBody>, special: &Special, captures: &Captures<'_>) -> Result<(), TemplateFault> {
    if special.response.is_some() {
        OF_ANSWER.iter().for_each(|name| drop(request.headers_mut().remove(name)));
        request.headers_mut().insert(ACCEPT_ENCODING, IDENTITY);
    }
    let Some(SendAs { headers: sent, body, method }) = &special.send else { return Ok(()) };
    if let Some(source) = body {
        let (kind, text) = match source {
            BodySource::Json(template) => (JSON, template.json(captures)?),
            BodySource::Form(template) => (FORM, template.form(captures)),
        };
        OF_BODY.iter().for_each(|name| drop(request.headers_mut().remove(name)));
        request.headers_mut().insert(CONTENT_TYPE, kind);
        *request.body_mut() = OutBody::Own(Some(Bytes::from(text)).filter(|text| !text.is_empty()));
    }
    if request.body().is_end_stream() && *method != Method::GET {
        // Servers refuse a POST that does not say how long it is (RFC 9110 §8.6).
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    for (name, source) in sent {
        let value = match source {
            HeaderSource::Text(template) => template.header_value(captures)?,
            HeaderSource::Json(template) => template.header_value(captures)?,
        };
        request.headers_mut().insert(name, value);
    }
    Ok(())
}

/// A capture that cannot stand where the route wants it.
pub(super) fn bad_path(fault: TemplateFault) -> ProxyError {
    ProxyError::BadPath(match fault {
        TemplateFault::HeaderBytes => "a part of it cannot stand in a header that the route sets",
        TemplateFault::NotText => "a part of it is no UTF-8 text, and the route makes JSON of it",
    })
}
