//! One client connection of the proxy: its limits for HTTP/1 and HTTP/2, and how it is asked to end.
//!
//! The limits are those against floods and clients that stand still (RFC 9113 §10.5). What they bound is told in docs/operations.md.

use super::sniff::{Rewound, Spoken};
use super::stall::{self, Watched};
use crate::proxy::ProxyBody;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// How long a connection may take to send a request's head, and how long it may idle between two.
pub(super) const HEAD_WITHIN: Duration = Duration::from_secs(75);
/// The longest request head, in bytes; past it hyper answers 431 and closes.
pub(super) const HEAD_MAX: usize = 64 * 1024;
/// How long an HTTP/2 connection may be there without ever a call: its client may never have come as far as HTTP/2.
const SILENT_MAX: Duration = Duration::from_secs(90);
/// How long one that was asked to end may take to read the rest of its answers.
const LINGER_MAX: Duration = Duration::from_secs(600);

/// The most calls at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// How many of them a client may reset before they were taken up (CVE-2023-44487): more end the connection with ENHANCE_YOUR_CALM.
const RESETS_MAX: usize = 32;
/// How many faults of its own streams a client may provoke us to reset (MadeYouReset, CVE-2025-8671), likewise.
const PROVOKED_RESETS_MAX: usize = 64;
/// What a client may send ahead on one stream, in bytes: what HTTP/2 begins with (RFC 9113 §6.9.2), for the way is short.
const STREAM_WINDOW: u32 = 65_535;
/// And on all of a connection together: a connection may carry many users' calls, and uploads that stand still must leave the others their room.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX;
/// How much of an answer waits in memory for a slow client, in bytes a stream.
const SEND_BUFFER_MAX: usize = 64 * 1024;
/// A peer that is gone without a word is found out by a PING that nobody answers.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WITHIN: Duration = Duration::from_secs(20);

/// Asks one connection to finish its calls and close. A flag and a waker instead of a channel: nothing is polled per event.
#[derive(Debug)]
pub(super) struct Stop {
    asked: Cell<bool>,
    /// Ends at once, whatever is under way.
    killed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Since when an HTTP/2 connection has had no call; `None` while there is one. HTTP/1 is timed by hyper.
    idle_since: Cell<Option<Instant>>,
    had_call: Cell<bool>,
}

impl Stop {
    pub(super) fn new() -> Rc<Stop> {
        Rc::new(Stop {
            asked: Cell::new(false),
            killed: Cell::new(false),
            waker: RefCell::default(),
            idle_since: Cell::new(None),
            had_call: Cell::new(false),
        })
    }

    pub(super) fn ask(&self) {
        self.asked.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Ends an HTTP/2 connection that had no call for too long, by a GOAWAY first.
    pub(super) fn sweep(&self, now: Instant) {
        let Some(since) = self.idle_since.get() else { return };
        let idle = now.saturating_duration_since(since);
        let idle_max = if self.had_call.get() { LINGER_MAX } else { SILENT_MAX };
        if idle > idle_max {
            self.killed.set(true);
            self.wake();
        } else if idle > HEAD_WITHIN {
            self.ask();
        }
    }

    fn remember(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        // A task's waker stays the same for its life, so once is enough.
        if waker.is_none() {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Ready when the connection was asked to end.
    pub(super) async fn asked(&self) {
        std::future::poll_fn(|cx| {
            if self.asked.get() || self.killed.get() {
                return Poll::Ready(());
            }
            self.remember(cx);
            Poll::Pending
        })
        .await;
    }
}

/// Serves one connection to its end.
pub(super) async fn serve<S, T>(spoken: Spoken, stream: Rewound<S>, stop: Rc<Stop>, service: T) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: Service<Request<Incoming>, Response = Response<ProxyBody>, Error = Infallible> + 'static,
    T::Future: 'static,
{
    let io = TokioIo::new(stream);
    match spoken {
        Spoken::Http1 => {
            // `pipeline_flush` stays off: it takes write back-pressure away, and a large answer would gather in memory.
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .max_buf_size(HEAD_MAX)
                // The end of what a client says is not the end of its listening. One that is gone is found out by writing to it.
                .half_close(true)
                .serve_connection(io, service)
                .with_upgrades();
            Serve { connection, stop }.await
        }
        Spoken::Http2 => {
            stop.idle_since.set(Some(Instant::now()));
            let streams = Streams { open: Rc::default(), stop: Rc::clone(&stop) };
            let connection = http2::Builder::new(streams)
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_pending_accept_reset_streams(RESETS_MAX)
                .max_local_error_reset_streams(PROVOKED_RESETS_MAX)
                .max_header_list_size(HEAD_MAX as u32)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER_MAX)
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_WITHIN)
                .serve_connection(
                    io,
                    service_fn(move |request| {
                        let answering = service.call(request);
                        async move { answering.await.map(|answer| answer.map(Watched::new)) }
                    }),
                );
            Serve { connection, stop }.await
        }
    }
}

/// Runs a connection's calls as tasks of the worker's own thread, and counts them.
#[derive(Clone)]
struct Streams {
    open: Rc<Cell<usize>>,
    stop: Rc<Stop>,
}

impl<F: Future + 'static> Executor<F> for Streams {
    fn execute(&self, call: F) {
        self.open.set(self.open.get() + 1);
        self.stop.idle_since.set(None);
        self.stop.had_call.set(true);
        let open = Open(self.clone());
        tokio::task::spawn_local(async move {
            stall::Watch::new(call, stall::STILL_MAX).await;
            drop(open);
        });
    }
}

/// One call under way.
struct Open(Streams);

impl Drop for Open {
    fn drop(&mut self) {
        let Streams { open, stop } = &self.0;
        open.set(open.get().saturating_sub(1));
        if open.get() == 0 {
            stop.idle_since.set(Some(Instant::now()));
        }
    }
}

/// What both kinds of connections can do.
trait Graceful {
    /// Ends it after the calls under way: by `Connection: close` (RFC 9112 §9.6), or a GOAWAY (RFC 9113 §6.8).
    fn end(self: Pin<&mut Self>);
}

impl<S, T> Graceful for http1::UpgradeableConnection<TokioIo<S>, T>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: HttpService<Incoming, ResBody = ProxyBody>,
    T::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S, T> Graceful for http2::Connection<TokioIo<S>, T, Streams>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    T: HttpService<Incoming, ResBody = Watched>,
    T::Future: 'static,
    T::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

pin_project_lite::pin_project! {
    /// A connection that closes after its current calls when asked.
    struct Serve<C> {
        #[pin]
        connection: C,
        stop: Rc<Stop>,
    }
}

impl<C> Future for Serve<C>
where
    C: Graceful + Future<Output = Result<(), hyper::Error>>,
{
    type Output = Result<(), hyper::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.stop.asked.take() {
            this.connection.as_mut().end();
        }
        if this.stop.killed.get() {
            return Poll::Ready(Ok(()));
        }
        this.stop.remember(cx);
        this.connection.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails without the sweep of idle connections: HTTP/2 has no limit of its own on them.
    #[test]
    fn threat_17_an_idle_http_2_connection_is_asked_to_end_and_a_silent_one_ended() {
        let after = |had_call: bool, idle: Duration| {
            let stop = Stop::new();
            stop.had_call.set(had_call);
            let now = Instant::now();
            stop.sweep(now + idle);
            assert!(!stop.asked.get() && !stop.killed.get(), "one with a call is none");
            stop.idle_since.set(Some(now));
            stop.sweep(now + idle);
            (stop.asked.get(), stop.killed.get())
        };
        let seconds = Duration::from_secs;
        assert_eq!(after(true, seconds(74)), (false, false));
        assert_eq!(after(true, seconds(91)), (true, false), "it may still read");
        assert!(after(true, seconds(601)).1);
        assert!(after(false, seconds(91)).1);
    }
}
