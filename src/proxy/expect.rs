//! `Expect: 100-continue` end to end (RFC 9110 §10.1.1): the client is asked for its body when the upstream asks for it.
//!
//! hyper's server asks a client when the body is first polled. So the body is left alone until the upstream's own `100 Continue`, or for a
//! second, since an older upstream may not know it. Where the final answer comes first, nobody ever asks.

use super::body::{OutBody, Upload};
use crate::upstream::{Continue, Said};
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Request, Version};
use http_body::{Body, SizeHint};
use hyper::body::Incoming;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long an upstream may leave the question unanswered (curl's own wait).
const WAIT: Duration = Duration::from_secs(1);
const HUNDRED: HeaderValue = HeaderValue::from_static("100-continue");

/// The body that waits, and what the upstream said of it.
#[derive(Debug)]
pub(super) struct Waiting {
    incoming: Incoming,
    said: Continue,
}

/// The same as the upstream's connection holds it.
#[derive(Debug)]
pub struct Withheld {
    upload: Rc<Upload>,
    said: Continue,
    /// Begins once the head is written: a slow connect is no silence.
    wait: Option<Pin<Box<Sleep>>>,
}

/// Whether the client waits to be asked. One of HTTP/1.0 cannot be (RFC 9110 §10.1.1); other expectations are ignored, as most servers do.
pub(super) fn is_expected(head: &Parts) -> bool {
    head.version == Version::HTTP_11
        && head.headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(HUNDRED.as_bytes()))
}

/// Passes the client's wish on with the request.
pub(super) fn say(request: &mut Request<OutBody>) {
    if let OutBody::Withheld(withheld) = request.body() {
        let said = withheld.said.clone();
        request.headers_mut().insert(EXPECT, HUNDRED);
        request.extensions_mut().insert(said);
    }
}

/// The final answer is here.
pub(super) fn answered(upload: &Upload) {
    if let Some(waiting) = &*upload.withheld.borrow() {
        waiting.said.answered();
    }
}

/// The exchange is over: whatever still waits for the body is let go.
pub(super) fn over(upload: &Upload) {
    if let Some(waiting) = upload.withheld.borrow_mut().take() {
        waiting.said.over();
    }
}

/// Lets go of the waiting body when the call ends, unless its answer takes that on.
#[derive(Debug)]
pub(super) struct Until(pub(super) Option<Rc<Upload>>);

impl Drop for Until {
    fn drop(&mut self) {
        if let Some(upload) = &self.0 {
            over(upload);
        }
    }
}

/// A client that was never asked for its body may send it or not; only a new connection knows which (RFC 9110 §10.1.1). The same holds for what
/// comes behind trailers.
pub(super) fn close_if_unsure(upload: Option<&Upload>, answer: &mut HeaderMap) {
    if upload.is_some_and(|upload| upload.withheld.borrow().is_some() || upload.ends_connection()) {
        answer.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

impl Withheld {
    pub(super) fn begin(incoming: Incoming, upload: &Rc<Upload>) -> OutBody {
        let said = Continue::default();
        *upload.withheld.borrow_mut() = Some(Waiting { incoming, said: said.clone() });
        OutBody::Withheld(Withheld { upload: Rc::clone(upload), said, wait: None })
    }

    /// For another try, where nobody asked in the first.
    pub(super) fn again(upload: &Rc<Upload>) -> Option<OutBody> {
        let Waiting { incoming, said } = upload.withheld.borrow_mut().take()?;
        said.over();
        Some(Withheld::begin(incoming, upload))
    }

    /// The client's body once it may be sent.
    pub(super) fn poll_asked(&mut self, cx: &mut Context<'_>) -> Poll<Result<OutBody, BoxError>> {
        let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(WAIT)));
        match self.said.poll_said(cx) {
            Said::Nothing if wait.as_mut().poll(cx).is_pending() => Poll::Pending,
            Said::Nothing | Said::GoOn => Poll::Ready(match self.upload.withheld.borrow_mut().take() {
                Some(Waiting { incoming, .. }) => Ok(OutBody::Stream { incoming, upload: Rc::clone(&self.upload) }),
                None => Err("the body went another way".into()),
            }),
            Said::Answered => Poll::Pending,
            Said::Over => Poll::Ready(Err("the upstream answered without asking for the body".into())),
        }
    }

    pub(super) fn is_none(&self) -> bool {
        self.upload.withheld.borrow().as_ref().is_some_and(|waiting| waiting.incoming.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.upload.withheld.borrow().as_ref().map(|waiting| waiting.incoming.size_hint()).unwrap_or_default()
    }
}
