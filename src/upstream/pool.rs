//! One worker's connections to upstreams: idle HTTP/1.1 connections in a stack per origin, one shared HTTP/2 connection per origin.
//!
//! A pool belongs to one thread, so that it needs no lock and a response wakes no other core. A sender goes back when its response body has
//! ended and its request body is through; hyper then still needs one turn of its connection task, for which the next checkout waits. Who finds
//! no connection and may open no further one waits in line (`pool/place.rs`).
//! Deliberately absent: any retry of a request that may have been seen by the upstream. That is the proxy's decision.

use super::bounds::Bounds;
use super::connect::{ConnectError, Connector, Io};
use super::origin::{Origin, OriginId};
use super::upgrade::{self, Upgrades};
use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use place::{Idle, Permit, Place, Turn};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

mod place;

/// What an HTTP/2 upstream may send of one answer before its client has taken any of it: enough for a fast line of 100 ms, and no more is ever
/// held of an answer.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same of all answers of a connection, which all users share: as much as the streams that servers usually allow (100 or 128) can leave
/// unread, so that clients that take nothing never hold up anyone else's answer. `h2` also ends a connection whose small frames wait in greater
/// number than this allows (256 bytes each count against half of it): a stream of short messages must not get there.
const CONNECTION_WINDOW: u32 = 128 << 20;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// What is given up before the upstream does, so that no call meets its close.
const CLOCKS_APART: Duration = Duration::from_secs(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How far a send has come, for whoever waits on it: connecting has a time limit of its own, and so has the wait for a connection.
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
    /// All connections that the upstream may have are in use, and so are the places in line, or the wait was too long. Nothing was sent.
    Busy,
    /// A connection that had idled was closed before it gave any part of an answer. The upstream has most likely not seen the request, yet
    /// may have: safe to repeat only where the method is idempotent.
    Stale,
    /// Over HTTP/2 the upstream said that it did not process the request (RFC 9113 §8.7): safe to repeat whatever it is.
    Refused,
    /// The connection broke, or what came back is no HTTP.
    Broken(hyper::Error),
}

/// A failed send, with the body where none of it was sent.
#[derive(Debug)]
pub struct Unsent<B> {
    pub fault: SendFault,
    pub body: Option<B>,
}

impl<B> From<SendFault> for Unsent<B> {
    fn from(fault: SendFault) -> Self {
        Unsent { fault, body: None }
    }
}

/// A worker's pool; `B` is the request body it sends.
pub struct Pool<B> {
    connector: Connector,
    bounds: Cell<Bounds>,
    places: RefCell<HashMap<OriginId, Rc<Place<B>>>>,
}

/// The right to give an HTTP/1.1 connection back once its response is through; dropping it closes the connection.
pub struct Lease<B> {
    held: Option<Held<B>>,
    /// Of a connection that belongs to no pool, which goes with it.
    _alone: Option<http1::SendRequest<B>>,
}

struct Held<B> {
    sender: http1::SendRequest<B>,
    permit: Permit<B>,
    /// How long the connection may idle.
    keep: Duration,
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

impl<B: 'static> Lease<B> {
    /// Puts the connection back for the next call. To be called only when the response body has ended and the request body is through.
    pub fn give_back(mut self) {
        if let Some(Held { sender, permit, keep }) = self.held.take()
            && !sender.is_closed()
        {
            permit.keep(|permit| Idle { sender, until: Instant::now() + keep, permit });
        }
    }
}

impl<B> Lease<B> {
    /// One of a connection that belongs to no pool: dropped at its end, and never given back.
    pub(super) fn alone(sender: http1::SendRequest<B>) -> Self {
        Lease { held: None, _alone: Some(sender) }
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
    H1(Idle<B>),
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
        Rc::new(Pool { connector, bounds: Cell::default(), places: RefCell::default() })
    }

    pub fn bounds(&self) -> Bounds {
        self.bounds.get()
    }

    /// For connections from now on; those that stand are kept.
    pub fn set_bounds(&self, bounds: Bounds) {
        self.bounds.set(bounds);
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
    ) -> Result<(Response<Incoming>, Lease<B>), Unsent<B>> {
        if request.extensions().get::<Upgrades>().is_some() {
            return self.send_upgrade(origin, connect_within, stage, request).await;
        }
        let place = self.place(origin.id);
        loop {
            let sender = match place.checkout() {
                Some(sender) => sender,
                None => {
                    let bounds = self.bounds.get();
                    match stage.during(place.turn(&bounds)).await {
                        Some(Turn::Open(permit)) => return self.send_on_new(&place, permit, origin, connect_within, stage, request).await,
                        Some(Turn::Take(idle)) => Sender::H1(idle),
                        // A shared connection came about meanwhile.
                        Some(Turn::Look) => continue,
                        None => return Err(Unsent { fault: SendFault::Busy, body: Some(request.into_body()) }),
                    }
                }
            };
            let sent = match sender {
                Sender::H1(Idle { mut sender, permit, .. }) => {
                    if !sender.is_ready() && sender.ready().await.is_err() {
                        continue;
                    }
                    to_h1(&mut request);
                    let sent = sender.try_send_request(request).await;
                    sent.map(|response| self.leased(response, sender, permit))
                }
                Sender::H2(mut sender) => {
                    to_h2(&mut request, origin);
                    let sent = sender.try_send_request(request).await;
                    sent.map(|response| (response, Lease { held: None, _alone: None }))
                }
            };
            match sent {
                Ok(done) => return Ok(done),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(fault(failed.into_error(), true).into()),
                },
            }
        }
    }

    async fn send_on_new(
        self: &Rc<Self>,
        place: &Rc<Place<B>>,
        permit: Permit<B>,
        origin: &Origin,
        connect_within: Option<Duration>,
        stage: &Stage,
        mut request: Request<B>,
    ) -> Result<(Response<Incoming>, Lease<B>), Unsent<B>> {
        let connected = stage.during(self.connector.connect(origin, connect_within)).await;
        let (io, h2) = match connected {
            Ok(connected) => connected,
            Err(error) => return Err(Unsent { fault: SendFault::Connect(error), body: Some(request.into_body()) }),
        };
        let broken = |error| fault(error, false);
        if h2 {
            let mut sender = shared_h2(place, permit, io).await.map_err(broken)?;
            to_h2(&mut request, origin);
            // Shared from its first moment on: it may end under this call for another's sake.
            let response = sender.send_request(request).await.map_err(|error| fault(error, true))?;
            return Ok((response, Lease { held: None, _alone: None }));
        }
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        to_h1(&mut request);
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok(self.leased(response, sender, permit))
    }

    fn leased(&self, response: Response<Incoming>, sender: http1::SendRequest<B>, permit: Permit<B>) -> (Response<Incoming>, Lease<B>) {
        let keep = self.bounds.get().idle;
        let keep = told_to_keep(response.headers()).map_or(keep, |told| told.min(keep));
        (response, Lease { held: Some(Held { sender, permit, keep }), _alone: None })
    }

    fn place(&self, origin: OriginId) -> Rc<Place<B>> {
        Rc::clone(self.places.borrow_mut().entry(origin).or_default())
    }

    /// Lets go of an origin's idle connections: when one turned out dead under a call, its like are most likely dead too.
    pub fn distrust(&self, origin: &Origin) {
        if let Some(place) = self.places.borrow().get(&origin.id) {
            place.distrust();
        }
    }

    /// Closes what has idled too long; called by the worker every few seconds.
    pub fn sweep(&self) {
        self.places.borrow_mut().retain(|_, place| place.sweep());
    }
}

/// The origin's shared HTTP/2 connection: this new one, unless another call's connect was there first.
async fn shared_h2<B>(place: &Rc<Place<B>>, permit: Permit<B>, io: Io) -> Result<http2::SendRequest<B>, hyper::Error>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    if let Some(sender) = place.h2() {
        return Ok(sender);
    }
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(io))
        .await?;
    tokio::task::spawn_local(async move {
        let _counted = permit;
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream HTTP/2 connection ended");
        }
    });
    place.share(sender.clone());
    Ok(sender)
}

/// How long the upstream says that it keeps an idle connection (`Keep-Alive: timeout=5`), less what clocks and wires are apart.
fn told_to_keep(headers: &HeaderMap) -> Option<Duration> {
    let told = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let timeout = told.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    Some(Duration::from_secs(timeout.trim().parse().ok()?).saturating_sub(CLOCKS_APART))
}

fn fault(error: hyper::Error, reused: bool) -> SendFault {
    if is_refused(&error) {
        return SendFault::Refused;
    }
    let closed = error.is_timeout() || error.is_incomplete_message() || error.is_canceled() || error.is_closed() || is_reset(&error);
    if reused && closed { SendFault::Stale } else { SendFault::Broken(error) }
}

/// A stream that was refused, or is above the last one that a GOAWAY without a fault names.
fn is_refused(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.reason() == Some(h2::Reason::REFUSED_STREAM)
            || cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR)
    })
}

/// How a connection that its other side closed shows itself.
const ENDS: [io::ErrorKind; 5] = [
    io::ErrorKind::ConnectionReset,
    io::ErrorKind::BrokenPipe,
    io::ErrorKind::ConnectionAborted,
    io::ErrorKind::UnexpectedEof,
    io::ErrorKind::NotConnected,
];

/// A server that closes an idle connection just as a request arrives leaves it unread, and its kernel answers with a reset.
fn is_reset(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        // HTTP/2's own errors hold the cause without naming it as one.
        let of_h2 = inner.downcast_ref::<h2::Error>().and_then(h2::Error::get_io);
        if let Some(io) = of_h2.or_else(|| inner.downcast_ref::<io::Error>()) {
            return ENDS.contains(&io.kind());
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
