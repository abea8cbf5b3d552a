//! Attaché's own errors on the wire: `application/problem+json` (RFC 9457) with `Proxy-Status` (RFC 9209).

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

/// The header that tells a proxy's own error from an upstream's (RFC 9209 §2).
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// One error as a client sees it. `detail` is constant text or text made of the operator's own names: never a token or another user's name.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The last part of `urn:attache:NAME`.
    pub name: &'static str,
    pub status: StatusCode,
    pub title: &'static str,
    pub detail: String,
    /// The error type of `Proxy-Status`; absent on the admin API.
    pub proxy_error: Option<&'static str>,
    /// The request id.
    pub instance: Option<String>,
    /// Further members, such as `connect`.
    pub members: Map<String, Value>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub fn new(name: &'static str, status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Problem { name, status, title, detail: detail.into(), proxy_error: None, instance: None, members: Map::new(), headers: Vec::new() }
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The whole answer.
    pub fn into_response(self) -> Response<Bytes> {
        let mut body = json!({
            "type": format!("urn:attache:{}", self.name),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Value::Object(object) = &mut body {
            if let Some(instance) = self.instance {
                object.insert("instance".to_owned(), Value::String(instance));
            }
            object.extend(self.members);
        }
        let mut response = Response::new(Bytes::from(format!("{body}\n")));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(error) = self.proxy_error
            && let Ok(value) = HeaderValue::from_str(&format!("attache; error={error}"))
        {
            headers.insert(PROXY_STATUS, value);
        }
        headers.extend(self.headers);
        response
    }
}
