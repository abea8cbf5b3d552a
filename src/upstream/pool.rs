//! One worker's connections to upstreams: idle HTTP/1.1 connections in a stack per origin, one shared HTTP/2 connection per origin.
//!
//! A pool belongs to one thread, so that it needs no lock and a response wakes no other core. A sender goes back when its response body has
//! ended and its request body is through; hyper then still needs one turn of its connection task, for which the next checkout waits.
//! Deliberately absent: any retry of a request that may have been seen by the upstream. That is the proxy's decision.

use super::connect::{ConnectError, Connector, Io};
use super::origin::{Origin, OriginId};
use super::upgrade::{self, Upgrades};
use bytes::Bytes;
use http::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Idle connections kept per origin and worker.
const IDLE_MAX: usize = 128;
/// An idle connection older than this is closed: most servers and load balancers keep theirs for 60 s or longer.
const IDLE_FOR: Duration = Duration::from_secs(50);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How far a send has come, for whoever waits on it: connecting has a time limit of its own.
#[derive(Debug, Default)]
pub struct Stage {
    connecting: Cell<bool>,
    connected: Cell<Option<Instant>>,
}

impl Stage {
    pub fn connecting(&self) -> bool {
        self.connecting.get()
    }

    /// When a new connection stood, if one was needed.
    pub fn connected(&self) -> Option<Instant> {
        self.connected.get()
    }

    pub(super) async fn during<T>(&self, connect: impl Future<Output = T>) -> T {
        self.connecting.set(true);
        let connected = connect.await;
        self.connecting.set(false);
        self.connected.set(Some(Instant::now()));
        connected
    }
}

/// What went wrong with one send, by what the proxy may do about it.
#[derive(Debug)]
pub enum SendFault {
    /// No connection: nothing was sent.
    Connect(ConnectError),
    /// A connection that had idled was closed before it gave any part of an answer. The upstream has most likely not seen the request, yet
    /// may have: safe to repeat only where the method is idempotent.
    Stale,
    /// The connection broke, or what came back is no HTTP.
    Broken(hyper::Error),
}

/// A worker's pool; `B` is the request body it sends.
pub struct Pool<B> {
    connector: Connector,
    origins: RefCell<HashMap<OriginId, Connections<B>>>,
}

struct Connections<B> {
    idle: Vec<Idle<B>>,
    h2: Option<http2::SendRequest<B>>,
}

struct Idle<B> {
    sender: http1::SendRequest<B>,
    since: Instant,
}

/// The right to give an HTTP/1.1 connection back once its response is through; dropping it closes the connection.
pub struct Lease<B> {
    held: Option<(http1::SendRequest<B>, Weak<Pool<B>>, OriginId)>,
}

impl<B> std::fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

impl<B> std::fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lease")
    }
}

impl<B> Lease<B> {
    /// Puts the connection back for the next call. To be called only when the response body has ended and the request body is through.
    pub fn give_back(mut self) {
        if let Some((sender, pool, origin)) = self.held.take()
            && let Some(pool) = pool.upgrade()
            && !sender.is_closed()
        {
            let mut origins = pool.origins.borrow_mut();
            let idle = &mut origins.entry(origin).or_default().idle;
            if idle.len() < IDLE_MAX {
                idle.push(Idle { sender, since: Instant::now() });
            }
        }
    }
}

impl<B> Lease<B> {
    /// One of a connection that belongs to no pool: it is never given back.
    pub(super) fn of_none(sender: http1::SendRequest<B>, origin: OriginId) -> Self {
        Lease { held: Some((sender, Weak::new(), origin)) }
    }
}

impl<B> Default for Connections<B> {
    fn default() -> Self {
        Connections { idle: Vec::new(), h2: None }
    }
}

/// Spawns hyper's HTTP/2 tasks on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

enum Sender<B> {
    H1(http1::SendRequest<B>),
    H2(http2::SendRequest<B>),
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub fn new(connector: Connector) -> Rc<Self> {
        Rc::new(Pool { connector, origins: RefCell::default() })
    }

    /// Sends a request whose URI is in origin form and whose `Host` is set, on an idle connection or a new one.
    ///
    /// An idle connection that turns out closed before the request was handed to it is skipped without a word. Must run inside a `LocalSet`.
    ///
    /// # Errors
    /// By what may be done about it; see [`SendFault`].
    pub async fn send(
        self: &Rc<Self>,
        origin: &Origin,
        connect_within: Option<Duration>,
        stage: &Stage,
        mut request: Request<B>,
    ) -> Result<(Response<Incoming>, Lease<B>), SendFault> {
        if request.extensions().get::<Upgrades>().is_some() {
            return self.send_upgrade(origin, connect_within, stage, request).await;
        }
        while let Some(sender) = self.checkout(origin.id) {
            let sent = match sender {
                Sender::H1(mut sender) => {
                    if !sender.is_ready() && sender.ready().await.is_err() {
                        continue;
                    }
                    to_h1(&mut request);
                    let sent = sender.try_send_request(request).await;
                    sent.map(|response| (response, self.lease(sender, origin.id)))
                }
                Sender::H2(mut sender) => {
                    to_h2(&mut request, origin);
                    let sent = sender.try_send_request(request).await;
                    sent.map(|response| (response, Lease { held: None }))
                }
            };
            match sent {
                Ok(done) => return Ok(done),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(fault(failed.into_error(), true)),
                },
            }
        }
        self.send_on_new(origin, connect_within, stage, request).await
    }

    async fn send_on_new(
        self: &Rc<Self>,
        origin: &Origin,
        connect_within: Option<Duration>,
        stage: &Stage,
        mut request: Request<B>,
    ) -> Result<(Response<Incoming>, Lease<B>), SendFault> {
        let connected = stage.during(self.connector.connect(origin, connect_within)).await;
        let (io, h2) = connected.map_err(SendFault::Connect)?;
        let broken = |error| fault(error, false);
        if h2 {
            let mut sender = self.shared_h2(origin.id, io).await.map_err(broken)?;
            to_h2(&mut request, origin);
            let response = sender.send_request(request).await.map_err(broken)?;
            return Ok((response, Lease { held: None }));
        }
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        to_h1(&mut request);
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok((response, self.lease(sender, origin.id)))
    }

    /// The origin's shared HTTP/2 connection: this new one, unless another call's connect was there first.
    async fn shared_h2(self: &Rc<Self>, origin: OriginId, io: Io) -> Result<http2::SendRequest<B>, hyper::Error> {
        if let Some(Sender::H2(sender)) = self.checkout(origin) {
            return Ok(sender);
        }
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .adaptive_window(true)
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(io))
            .await?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream HTTP/2 connection ended");
            }
        });
        self.origins.borrow_mut().entry(origin).or_default().h2 = Some(sender.clone());
        Ok(sender)
    }

    fn lease(self: &Rc<Self>, sender: http1::SendRequest<B>, origin: OriginId) -> Lease<B> {
        Lease { held: Some((sender, Rc::downgrade(self), origin)) }
    }

    /// The freshest idle connection that is not known to be closed.
    fn checkout(&self, origin: OriginId) -> Option<Sender<B>> {
        let mut origins = self.origins.borrow_mut();
        let connections = origins.get_mut(&origin)?;
        if let Some(h2) = &connections.h2 {
            if !h2.is_closed() {
                return Some(Sender::H2(h2.clone()));
            }
            connections.h2 = None;
        }
        while let Some(idle) = connections.idle.pop() {
            if !idle.sender.is_closed() && idle.since.elapsed() < IDLE_FOR {
                return Some(Sender::H1(idle.sender));
            }
        }
        None
    }

    /// Lets go of an origin's idle connections: when one turned out dead under a call, its like are most likely dead too.
    pub fn distrust(&self, origin: &Origin) {
        if let Some(connections) = self.origins.borrow_mut().get_mut(&origin.id) {
            connections.idle.clear();
            connections.h2.take_if(|h2| h2.is_closed());
        }
    }

    /// Closes what has idled too long; called by the worker every few seconds.
    pub fn sweep(&self) {
        self.origins.borrow_mut().retain(|_, connections| {
            connections.idle.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < IDLE_FOR);
            connections.h2.take_if(|h2| h2.is_closed());
            !connections.idle.is_empty() || connections.h2.is_some()
        });
    }
}

fn fault(error: hyper::Error, reused: bool) -> SendFault {
    let closed = error.is_timeout() || error.is_incomplete_message() || error.is_canceled() || error.is_closed() || is_reset(&error);
    if reused && closed { SendFault::Stale } else { SendFault::Broken(error) }
}

/// A server that closes an idle connection just as a request arrives leaves it unread, and its kernel answers with a reset.
fn is_reset(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return matches!(io.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted);
        }
        cause = inner.source();
    }
    false
}

/// Origin form and `Host` (RFC 9112 §3.2.1).
pub(super) fn to_h1<B: Body>(request: &mut Request<B>) {
    *request.version_mut() = Version::HTTP_11;
    upgrade::expect_h1(request);
    if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
        // Said by name, because hyper takes a GET's or HEAD's body of unknown length for none at all.
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(authority) = request.uri().authority() {
        // Back from an HTTP/2 attempt that was not sent: the authority becomes the `Host` again.
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            request.headers_mut().insert(HOST, host);
        }
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
    }
}

/// `:scheme` and `:authority` instead of `Host` (RFC 9113 §8.3.1).
fn to_h2<B>(request: &mut Request<B>, origin: &Origin) {
    *request.version_mut() = Version::HTTP_2;
    upgrade::expect_h2(request);
    request.headers_mut().remove(TRANSFER_ENCODING);
    let host = request.headers_mut().remove(HOST);
    if request.uri().authority().is_some() {
        return;
    }
    let authority = host.and_then(|host| host.to_str().ok()?.parse().ok()).unwrap_or_else(|| origin.authority.clone());
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(origin.scheme());
    parts.authority = Some(authority);
    parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    // The three parts are each valid, which is all that `from_parts` asks for.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}
