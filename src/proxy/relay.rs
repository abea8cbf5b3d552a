//! The answer on its way to the client: the upstream's body streamed with back-pressure, or a short one of our own.

use super::body::{OutBody, Upload};
use super::context::{Account, InFlight};
use super::expect;
use super::expired::Held;
use super::trailers;
use crate::upstream::Lease;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A response body of the proxy listener.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "boxing the common arm would cost an allocation a call")]
pub enum ProxyBody {
    /// A whole body of our own.
    Own(Option<Bytes>),
    /// The upstream's.
    Relay(Relay),
}

/// The upstream's body as it comes. An error in it cuts the client's connection, so that a short answer never looks whole.
#[derive(Debug)]
pub struct Relay {
    incoming: Incoming,
    /// What was read of it already, to go on first.
    held: Held,
    lease: Option<Lease<OutBody>>,
    upload: Option<Rc<Upload>>,
    idle: Option<Duration>,
    /// The end of the route's `timeout.total`.
    deadline: Option<Instant>,
    /// Made at the first wait; most small bodies never wait.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether a part came since the timer was set: a part then costs no call to the timer, and silence is noticed within twice `idle`.
    moved: bool,
    status: u16,
    bytes: u64,
    account: Option<Account>,
    _in_flight: Option<InFlight>,
}

impl Relay {
    pub(super) fn new(
        incoming: Incoming,
        held: Held,
        lease: Lease<OutBody>,
        upload: Option<Rc<Upload>>,
        (idle, deadline): (Option<Duration>, Option<Instant>),
        (status, account, in_flight): (u16, Option<Account>, Option<InFlight>),
    ) -> Self {
        let mut relay = Relay {
            incoming,
            held,
            lease: Some(lease),
            upload,
            idle,
            deadline,
            timer: None,
            moved: false,
            status,
            bytes: 0,
            account,
            _in_flight: in_flight,
        };
        if relay.is_end_stream() {
            relay.finish(true, None);
        }
        relay
    }

    /// Gives the connection back and tells of the call, once.
    fn finish(&mut self, whole: bool, error: Option<&'static str>) {
        if let Some(lease) = self.lease.take() {
            // An answer that came before its request was through leaves a connection that is still sending: it is not fit for another call.
            if whole && self.upload.as_ref().is_none_or(|upload| upload.done()) {
                lease.give_back();
            }
        }
        if let Some(upload) = &self.upload {
            expect::over(upload);
        }
        if let Some(account) = self.account.take() {
            account.tell(self.status, self.bytes, whole, error);
        }
    }

    /// Ready when the upstream was silent for `idle`, or the deadline is past.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(timer) = &mut self.timer else {
                let Some(ends) = self.patience_ends() else { return Poll::Pending };
                self.timer = Some(Box::pin(tokio::time::sleep_until(ends)));
                self.moved = false;
                continue;
            };
            ready!(timer.as_mut().poll(cx));
            let overdue = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
            if !self.moved || overdue {
                return Poll::Ready(());
            }
            self.timer = None;
        }
    }

    fn patience_ends(&self) -> Option<Instant> {
        let idle_ends = self.idle.map(|idle| Instant::now() + idle);
        [idle_ends, self.deadline].into_iter().flatten().min()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let whole = self.is_end_stream();
        self.finish(whole, (!whole).then_some("client-gone"));
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = match this.held.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut this.incoming).poll_frame(cx),
        };
        match polled {
            Poll::Pending => {
                ready!(this.poll_patience(cx));
                this.finish(false, Some("upstream-timeout"));
                Poll::Ready(Some(Err("the upstream fell silent in mid-body".into())))
            }
            Poll::Ready(None) => {
                this.finish(true, None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                this.finish(false, Some("upstream-bad-response"));
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let frame = match frame.into_trailers() {
                    Err(frame) => frame,
                    Ok(map) => match trailers::answered(map) {
                        Some(map) => Frame::trailers(map),
                        None => {
                            this.finish(true, None);
                            return Poll::Ready(None);
                        }
                    },
                };
                this.moved = true;
                this.bytes += frame.data_ref().map_or(0, |part| part.len() as u64);
                if this.is_end_stream() {
                    this.finish(true, None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held: u64 = self.held.iter().filter_map(Frame::data_ref).map(|part| part.len() as u64).sum();
        let rest = self.incoming.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + held);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            ProxyBody::Own(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            ProxyBody::Relay(relay) => Pin::new(relay).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ProxyBody::Own(body) => body.is_none(),
            ProxyBody::Relay(relay) => relay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ProxyBody::Own(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            ProxyBody::Relay(relay) => relay.size_hint(),
        }
    }
}
