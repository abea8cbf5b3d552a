//! The request body on its way upstream: streamed, counted against `max_body`, and recorded while it is short enough to be replayed.

use super::error::ProxyError;
use super::expect::{self, Waiting, Withheld};
use super::{View, trailers};
use crate::attach::oauth1;
use crate::config::Route;
use bytes::Bytes;
use http::header::{HeaderMap, TRANSFER_ENCODING};
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request body as it is sent upstream.
#[derive(Debug)]
pub enum OutBody {
    Empty,
    /// One of the route's own (`send`).
    Own(Option<Bytes>),
    /// The client's body as it comes.
    Stream {
        incoming: Incoming,
        upload: Rc<Upload>,
    },
    /// The client's body, which it sends once the upstream asks for it (`Expect: 100-continue`).
    Withheld(Withheld),
    /// The same body again, from the record.
    Replay {
        parts: VecDeque<Bytes>,
        upload: Rc<Upload>,
    },
}

/// What is known of a streamed body while it is under way. Shared by the body, which hyper owns, and the call that waits for the answer.
#[derive(Debug)]
pub struct Upload {
    view: Rc<View>,
    body_max: Option<u64>,
    record_max: usize,
    seen: Cell<u64>,
    done: Cell<bool>,
    too_large: Cell<bool>,
    broken: Cell<bool>,
    /// It came over HTTP/1.1 and ended in trailers.
    trailed: Cell<bool>,
    is_http1: bool,
    /// When the last part went by: a long upload is no silent upstream.
    progress: Cell<Instant>,
    /// `None` once the body grew past what may be replayed.
    record: RefCell<Option<Vec<Bytes>>>,
    /// What nobody asked the client for yet.
    pub(super) withheld: RefCell<Option<Waiting>>,
}

impl OutBody {
    /// The bytes that will be sent, where all of them are here in one piece.
    pub(super) fn as_whole(&self) -> Option<&[u8]> {
        match self {
            OutBody::Empty => Some(&[]),
            OutBody::Own(body) => Some(body.as_deref().unwrap_or_default()),
            OutBody::Replay { parts, .. } if parts.len() < 2 => Some(parts.front().map_or(&[][..], |part| part)),
            OutBody::Replay { .. } | OutBody::Stream { .. } | OutBody::Withheld(_) => None,
        }
    }
}

impl Upload {
    pub(super) fn done(&self) -> bool {
        self.done.get()
    }

    /// Whether it ended by a fault of its own: it broke off, or is too large.
    pub(super) fn failed(&self) -> bool {
        self.broken.get() || self.too_large.get()
    }

    /// Whether nothing may be read behind it on its connection: hyper takes lines of trailers that end by a bare LF, and with them perhaps the next
    /// request (THREATS row 11).
    pub(super) fn ends_connection(&self) -> bool {
        self.trailed.get()
    }

    pub(super) fn too_large(&self) -> bool {
        self.too_large.get()
    }

    pub(super) fn progress(&self) -> Instant {
        self.progress.get()
    }

    /// Whether there is a [`Upload::replay`].
    pub(super) fn may_replay(&self) -> bool {
        self.withheld.borrow().is_some() || (self.done.get() && self.record.borrow().is_some())
    }

    /// The whole body again, where it has all gone by and was short enough.
    pub(super) fn replay(self: &Rc<Self>) -> Option<OutBody> {
        if let Some(again) = Withheld::again(self) {
            return Some(again);
        }
        if !self.done.get() {
            return None;
        }
        let parts: VecDeque<Bytes> = self.record.borrow().as_ref()?.iter().cloned().collect();
        // Under way once more: its connection is not fit for another call before all of it has gone by again.
        self.done.set(parts.is_empty());
        Some(OutBody::Replay { parts, upload: Rc::clone(self) })
    }

    fn see(&self, part: &Bytes) -> Result<(), BoxError> {
        let seen = self.seen.get() + part.len() as u64;
        self.seen.set(seen);
        if self.body_max.is_some_and(|max| seen > max) {
            self.too_large.set(true);
            return Err("the request body is over max_body".into());
        }
        self.progress.set(Instant::now());
        let mut record = self.record.borrow_mut();
        if seen > self.record_max as u64 {
            *record = None;
        } else if let Some(parts) = &mut *record {
            parts.push(part.clone());
        }
        Ok(())
    }
}

/// Whether a body has another coding than one `chunked`: what it means is not for us to say (RFC 9112 §6.1).
pub(super) fn is_coded(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => false,
        (Some(one), None) => !one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        _ => true,
    }
}

/// Takes a form whole, because the attach scheme signs it: what was read here is what is sent, in one piece.
///
/// # Errors
/// `body-too-large` over the route's `max_signed_body` or `max_body`; `bad-request` when it breaks off, stands still for `first_byte`, or holds
/// a parameter that is the protocol's own.
pub(super) async fn whole_form(
    mut incoming: Incoming,
    view: &Rc<View>,
    route: &Route,
) -> Result<(OutBody, Option<Rc<Upload>>), ProxyError> {
    let max = route.body_max.unwrap_or(u64::MAX).min(route.signed_body_max as u64);
    let length = incoming.size_hint().exact();
    if length.is_some_and(|length| length > max) {
        return Err(ProxyError::BodyTooLarge { max });
    }
    let mut bytes = Vec::with_capacity(length.and_then(|length| usize::try_from(length).ok()).unwrap_or_default());
    let still = route.timeouts.first_byte.unwrap_or(Duration::MAX);
    loop {
        let next = tokio::time::timeout(still, incoming.frame()).await;
        let frame = match next.map_err(|_| ProxyError::BadRequest("the request body stood still"))? {
            None => break,
            Some(frame) => frame.map_err(|_| ProxyError::BadRequest("the request body broke off"))?,
        };
        // A form has no trailers.
        let part = frame.into_data().unwrap_or_default();
        if bytes.len() as u64 + part.len() as u64 > max {
            return Err(ProxyError::BodyTooLarge { max });
        }
        bytes.extend_from_slice(&part);
    }
    if oauth1::holds_protocol(&bytes) {
        return Err(ProxyError::BadRequest("the form holds a parameter of OAuth's own (`oauth_…`), which Attaché alone may say"));
    }
    if bytes.is_empty() {
        return Ok((OutBody::Empty, None));
    }
    let parts = VecDeque::from([Bytes::from(bytes)]);
    let upload = Rc::new(Upload {
        view: Rc::clone(view),
        body_max: None,
        record_max: usize::MAX,
        seen: Cell::new(0),
        done: Cell::new(false),
        too_large: Cell::new(false),
        broken: Cell::new(false),
        trailed: Cell::new(false),
        is_http1: false,
        progress: Cell::new(Instant::now()),
        record: RefCell::new(Some(parts.iter().cloned().collect())),
        withheld: RefCell::default(),
    });
    Ok((OutBody::Replay { parts, upload: Rc::clone(&upload) }, Some(upload)))
}

/// Takes the client's body: the body to send, and its progress where there is one at all.
///
/// # Errors
/// `body-too-large` when its length is known and over the route's `max_body`.
pub(super) fn prepare(
    incoming: Incoming,
    head: &Parts,
    view: &Rc<View>,
    route: &Route,
) -> Result<(OutBody, Option<Rc<Upload>>), ProxyError> {
    if incoming.is_end_stream() && !head.headers.contains_key(TRANSFER_ENCODING) {
        return Ok((OutBody::Empty, None));
    }
    let length = incoming.size_hint().exact();
    if let (Some(length), Some(max)) = (length, route.body_max)
        && length > max
    {
        return Err(ProxyError::BodyTooLarge { max });
    }
    let recordable = length.is_none_or(|length| length <= route.replay_body_max as u64);
    let upload = Rc::new(Upload {
        view: Rc::clone(view),
        body_max: route.body_max,
        record_max: route.replay_body_max,
        seen: Cell::new(0),
        done: Cell::new(false),
        too_large: Cell::new(false),
        broken: Cell::new(false),
        trailed: Cell::new(false),
        is_http1: head.version < http::Version::HTTP_2,
        progress: Cell::new(Instant::now()),
        record: RefCell::new(recordable.then(Vec::new)),
        withheld: RefCell::default(),
    });
    // A route that reads answers itself asks for the body at once: nobody would tell the upstream's connection when it is through.
    if route.special.is_none() && expect::is_expected(head) {
        return Ok((Withheld::begin(incoming, &upload), Some(upload)));
    }
    Ok((OutBody::Stream { incoming, upload: Rc::clone(&upload) }, Some(upload)))
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let OutBody::Withheld(withheld) = this {
            match ready!(withheld.poll_asked(cx)) {
                Ok(asked) => *this = asked,
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        match this {
            OutBody::Withheld(_) => Poll::Pending,
            OutBody::Empty => Poll::Ready(None),
            OutBody::Own(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            OutBody::Replay { parts, upload } => {
                let part = parts.pop_front();
                upload.done.set(parts.is_empty());
                Poll::Ready(part.map(|part| Ok(Frame::data(part))))
            }
            OutBody::Stream { incoming, upload } => {
                let frame = match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                    None => None,
                    Some(Err(error)) => {
                        upload.broken.set(true);
                        Some(Err(error.into()))
                    }
                    Some(Ok(frame)) => match frame.into_trailers() {
                        Ok(map) => {
                            // They cannot be replayed from the record; without them the body is another one.
                            *upload.record.borrow_mut() = None;
                            upload.trailed.set(upload.is_http1);
                            trailers::outgoing(map, &upload.view).map(|map| Ok(Frame::trailers(map)))
                        }
                        Err(frame) => {
                            let seen = frame.data_ref().map_or(Ok(()), |part| upload.see(part));
                            Some(seen.map(|()| frame))
                        }
                    },
                };
                if frame.is_none() || incoming.is_end_stream() {
                    upload.done.set(true);
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            OutBody::Empty => true,
            OutBody::Own(body) => body.is_none(),
            OutBody::Replay { parts, .. } => parts.is_empty(),
            OutBody::Withheld(withheld) => withheld.is_none(),
            OutBody::Stream { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            OutBody::Empty => SizeHint::with_exact(0),
            OutBody::Own(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            OutBody::Replay { parts, .. } => SizeHint::with_exact(parts.iter().map(|part| part.len() as u64).sum()),
            OutBody::Stream { incoming, .. } => incoming.size_hint(),
            OutBody::Withheld(withheld) => withheld.size_hint(),
        }
    }
}
