//! The answers of the sandbox: bodies that cost no memory however long they are, and the few shapes of response.

use crate::sandbox::refused::Refused;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, PRAGMA, WWW_AUTHENTICATE};
use http::{HeaderMap, Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

pub(super) type Answer = Response<Body>;

/// Why a call gets no answer at all: its connection is cut instead.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox hung up")]
pub(super) struct Hangup;

pub(super) enum Body {
    Whole(Option<Bytes>),
    Fill { at: u64, end: u64, cut: Option<Pin<Box<Sleep>>> },
    Events { next: u64, end: u64, every: Duration, wait: Pin<Box<Sleep>> },
}

/// How much of [`Body::Fill`] goes out at once.
const FILL_BYTES: usize = 64 * 1024;
static FILL: LazyLock<Bytes> = LazyLock::new(|| (0..2 * FILL_BYTES).map(|at| fill_byte(at as u64)).collect());

/// The byte at `at` of what `/v1/bytes` sends, so that a test can tell a byte lost from a byte doubled.
fn fill_byte(at: u64) -> u8 {
    (at % FILL_BYTES as u64 % 251) as u8
}

impl Body {
    pub(super) fn empty() -> Body {
        Body::Whole(None)
    }

    /// Bytes `at` to `end` of the endless pattern.
    pub(super) fn fill(at: u64, end: u64) -> Body {
        Body::Fill { at, end, cut: None }
    }

    /// The first `after` bytes of the pattern, a moment for them to leave, and then the connection is cut.
    pub(super) fn cut(after: u64) -> Body {
        Body::Fill { at: 0, end: after, cut: Some(Box::pin(tokio::time::sleep(Duration::from_millis(50)))) }
    }

    pub(super) fn events(count: u64, every: Duration) -> Body {
        Body::Events { next: 0, end: count, every, wait: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Body::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Fill { at, end, cut } => {
                if at < end {
                    // The pattern repeats with FILL_BYTES, and the buffer holds it twice, so that any slice of that length is there.
                    let from = (*at % FILL_BYTES as u64) as usize;
                    let length = (*end - *at).min(FILL_BYTES as u64) as usize;
                    *at += length as u64;
                    return Poll::Ready(Some(Ok(Frame::data(FILL.slice(from..from + length)))));
                }
                match cut {
                    None => Poll::Ready(None),
                    Some(wait) => wait.as_mut().poll(cx).map(|()| Some(Err(io::Error::other(Hangup)))),
                }
            }
            Body::Events { next, end, every, wait } => {
                if next >= end {
                    return Poll::Ready(None);
                }
                std::task::ready!(wait.as_mut().poll(cx));
                wait.as_mut().reset(Instant::now() + *every);
                *next += 1;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(format!("id: {next}\ndata: {{\"n\":{next}}}\n\n"))))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.is_none(),
            Body::Fill { at, end, cut } => at >= end && cut.is_none(),
            Body::Events { next, end, .. } => next >= end,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Fill { at, end, cut: None } => SizeHint::with_exact(end - at),
            Body::Fill { .. } | Body::Events { .. } => SizeHint::default(),
        }
    }
}

pub(super) fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Body::Whole(Some(body.into()).filter(|body: &Bytes| !body.is_empty())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    answer(status, "application/json", value.to_string())
}

/// An answer without content, such as a redirect's.
pub(super) fn bare(status: StatusCode) -> Answer {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// An error of the photo API.
pub(super) fn api_error(status: StatusCode, reason: &str, message: &str) -> Answer {
    json(status, &serde_json::json!({"error": {"code": status.as_u16(), "reason": reason, "message": message}}))
}

/// An error of the authorization server's machine endpoints (RFC 6749 §5.2).
pub(super) fn refused(why: Refused) -> Answer {
    let mut response = json(why.status(), &serde_json::json!({"error": why.code(), "error_description": why.to_string()}));
    if why == Refused::InvalidClient {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"sandbox\", charset=\"UTF-8\""));
    }
    if why == Refused::NotPost {
        response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("POST"));
    }
    no_store(response)
}

/// RFC 6749 §5.1: what holds a token must not be kept.
pub(super) fn no_store(mut response: Answer) -> Answer {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

pub(super) fn method_not_allowed(allow: &'static str) -> Answer {
    let mut response = api_error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this method is not for this path");
    response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// Sets a header to text that was made here; what cannot be a header value is left out.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

pub(super) fn set_length(headers: &mut HeaderMap, length: u64) {
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
}
