//! Connections that are to become tunnels: HTTP/1.1 alone, each new, and never anyone else's afterwards.

use super::origin::Origin;
use super::pool::{Lease, Pool, SendFault, Stage, Unsent};
use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Marks a request that asks for an upgrade (RFC 9110 §7.8), as one of its extensions. HTTP/2 has none, so that it goes over a connection
/// whose ALPN offers HTTP/1.1 alone; and what may become a tunnel is never shared.
#[derive(Clone, Copy, Debug)]
pub struct Upgrades;

/// A body that waits for the upstream's `100 Continue` (RFC 9110 §10.1.1), as an extension of its request.
#[derive(Clone, Debug, Default)]
pub struct Continue(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: AtomicU8,
    waker: futures_util::task::AtomicWaker,
}

/// What a waiting body is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The upstream has said nothing yet.
    Nothing,
    /// It asked for the body.
    GoOn,
    /// It answered without asking; nothing is to be sent, and its answer is still being read.
    Answered,
    /// The exchange is over: the connection that waits for the body can go.
    Over,
}

impl Continue {
    /// What was said so far; the task is woken when that changes.
    pub fn poll_said(&self, cx: &std::task::Context<'_>) -> Said {
        self.0.waker.register(cx.waker());
        match self.0.state.load(Ordering::Acquire) {
            0 => Said::Nothing,
            1 => Said::GoOn,
            2 => Said::Answered,
            _ => Said::Over,
        }
    }

    fn say(&self, state: u8) {
        // It only ever moves on: a `100` after the final answer asks for nothing any more.
        self.0.state.fetch_max(state, Ordering::AcqRel);
        self.0.waker.wake();
    }

    /// The upstream asks for the body.
    pub fn go_on(&self) {
        self.say(1);
    }

    /// The upstream gave its final answer.
    pub fn answered(&self) {
        self.say(2);
    }

    /// Nobody waits for anything of this exchange any more.
    pub fn over(&self) {
        self.say(3);
    }
}

/// Makes a request's `Expect` one of HTTP/1.1's own exchange.
pub(super) fn expect_h1<B>(request: &mut Request<B>) {
    if let Some(expected) = request.extensions().get::<Continue>().cloned() {
        hyper::ext::on_informational(request, move |interim| {
            if interim.status() == http::StatusCode::CONTINUE {
                expected.go_on();
            }
        });
    }
}

/// hyper tells of no interim answers over HTTP/2, so that the body is asked for at once.
pub(super) fn expect_h2<B>(request: &mut Request<B>) {
    if let Some(expected) = request.extensions_mut().remove::<Continue>() {
        request.headers_mut().remove(EXPECT);
        expected.go_on();
    }
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Sends a request that asks for an upgrade, on a new connection that nobody else will have. What it becomes is the answer's
    /// `hyper::upgrade::OnUpgrade` to say.
    ///
    /// # Errors
    /// As [`Pool::send`], but never [`SendFault::Stale`], and without the bounds of pools: a tunnel holds no place that calls wait for.
    pub(super) async fn send_upgrade(
        self: &Rc<Self>,
        origin: &Origin,
        connect_within: Option<Duration>,
        stage: &Stage,
        mut request: Request<B>,
    ) -> Result<(Response<Incoming>, Lease<B>), Unsent<B>> {
        let connected = stage.during(self.connector().connect_h1(origin, connect_within)).await;
        let io = match connected {
            Ok(io) => io,
            Err(error) => return Err(Unsent { fault: SendFault::Connect(error), body: Some(request.into_body()) }),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(SendFault::Broken)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        super::pool::to_h1(&mut request);
        let response = sender.send_request(request).await.map_err(SendFault::Broken)?;
        Ok((response, Lease::alone(sender)))
    }
}
