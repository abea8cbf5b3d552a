//! Serving the control plane's listeners (admin, health): ordinary tasks on the shared runtime, small bodies only.

use super::Phase;
use super::listen::Bound;
use super::tls::{HANDSHAKES_MAX, Tls};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// The longest request head, in bytes; past it, or past hyper's 100 headers, hyper answers 431 and closes.
const HEAD_MAX: usize = 64 * 1024;
const CONNECTIONS_MAX: usize = 512;
/// The most connections that one address holds on a listener that strangers reach, unless the config says otherwise: a browser opens six.
const PER_ADDRESS_MAX: usize = 64;
const _: () = assert!(CONNECTIONS_MAX <= HANDSHAKES_MAX, "each handshake holds a connection's place");

/// How many connections each address holds.
type Addresses = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// How connections come in by a control listener.
#[derive(Debug, Clone)]
pub struct Entry {
    tls: Option<Tls>,
    /// How many connections each address may hold, and how many it holds. `None`: no limit of its own.
    addresses: Option<(usize, Addresses)>,
}

impl Entry {
    /// Of operators and the like.
    pub fn known(tls: Option<Tls>) -> Entry {
        Entry { tls, addresses: None }
    }

    /// Of anyone: no single address may hold all the places. What a forwarding header says is not asked, for anyone can write one.
    pub fn strangers(tls: Option<Tls>, per_address_max: Option<usize>) -> Entry {
        Entry { tls, addresses: Some((per_address_max.unwrap_or(PER_ADDRESS_MAX), Arc::default())) }
    }

    /// A place for one more connection of that address; `None` where it has had all of its own.
    fn place(&self, ip: Option<IpAddr>) -> Option<Place> {
        let (Some((max, held)), Some(ip)) = (&self.addresses, ip.map(network)) else { return Some(Place(None)) };
        // This machine's own proxies bring everybody from one address.
        if ip.is_loopback() {
            return Some(Place(None));
        }
        let mut counts = held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        if *count >= *max {
            return None;
        }
        *count += 1;
        Some(Place(Some((ip, Arc::clone(held)))))
    }
}

/// An IPv6 host has a whole /64 to call from.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => IpAddr::from((ip.to_bits() >> 64 << 64).to_be_bytes()),
        ip => ip,
    }
}

/// One of an address's connections, given back when it is dropped.
struct Place(Option<(IpAddr, Addresses)>);

impl Drop for Place {
    fn drop(&mut self) {
        let Some((ip, held)) = &self.0 else { return };
        let mut counts = held.lock().unwrap_or_else(PoisonError::into_inner);
        let left = counts.get(ip).map_or(0, |count| count.saturating_sub(1));
        // An address without one is forgotten, so that the table never outgrows the connections.
        if left == 0 {
            counts.remove(ip)
        } else {
            counts.insert(*ip, left)
        };
    }
}

/// An answer's body: whole, or as it comes about.
pub type ControlBody = Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

/// What handlers may answer with.
pub trait IntoBody: Send + 'static {
    fn into_body(self) -> ControlBody;
}

impl IntoBody for Bytes {
    fn into_body(self) -> ControlBody {
        Either::Left(Full::new(self))
    }
}

impl IntoBody for ControlBody {
    fn into_body(self) -> ControlBody {
        self
    }
}

/// A body of what the stream gives, a piece at a time.
pub fn streaming(pieces: impl futures_util::Stream<Item = Bytes> + Send + 'static) -> ControlBody {
    Either::Right(StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece))).boxed()))
}

/// The other end of a control connection.
#[derive(Debug, Clone, Copy)]
pub struct ControlPeer {
    /// The peer's address; `None` on a unix socket.
    pub ip: Option<IpAddr>,
    /// The address the listener is bound to; `None` on a unix socket.
    pub bound: Option<IpAddr>,
    /// The peer's user id, on a unix socket.
    pub uid: Option<u32>,
}

/// Accepts and serves until the phase is past `Serving`; calls under way may finish.
///
/// # Errors
/// When the socket cannot be given to the runtime.
pub fn serve<H, F, B>(bound: Bound, entry: Entry, phase: watch::Receiver<Phase>, handler: H) -> io::Result<()>
where
    H: Fn(ControlPeer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: IntoBody,
{
    let listener = match bound {
        Bound::Tcp { listener, address } => Listener::Tcp(TcpListener::from_std(listener)?, address.ip()),
        Bound::Unix { listener } => Listener::Unix(UnixListener::from_std(listener)?),
    };
    tokio::spawn(accept_all(listener, entry, phase, handler));
    Ok(())
}

enum Listener {
    Tcp(TcpListener, IpAddr),
    Unix(UnixListener),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, ControlPeer)> {
        match self {
            Listener::Tcp(listener, bound) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Tcp(stream), ControlPeer { ip: Some(peer.ip()), bound: Some(*bound), uid: None }))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok((Stream::Unix(stream), ControlPeer { ip: None, bound: None, uid: Some(uid) }))
            }
        }
    }
}

async fn accept_all<H, F, B>(listener: Listener, entry: Entry, mut phase: watch::Receiver<Phase>, handler: H)
where
    H: Fn(ControlPeer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: IntoBody,
{
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed, so that a permit is only ever waited for.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        // Losing `accept` is safe: tokio leaves the connection in the kernel's queue.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
        };
        match accepted {
            Err(error) => {
                tracing::debug!(%error, "a control connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok((stream, peer)) => {
                let Some(place) = entry.place(peer.ip) else {
                    tracing::debug!("a connection was closed: its address holds all that one may");
                    continue;
                };
                let tls = entry.tls.clone();
                let (handler, phase) = (handler.clone(), phase.clone());
                tokio::spawn(async move {
                    match (stream, tls) {
                        (Stream::Tcp(stream), None) => serve_one(stream, peer, phase, handler).await,
                        (Stream::Tcp(stream), Some(tls)) => match tls.handshake(stream).await {
                            Ok(secured) => serve_one(secured.stream, peer, phase, handler).await,
                            Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
                        },
                        (Stream::Unix(stream), _) => serve_one(stream, peer, phase, handler).await,
                    }
                    drop((permit, place));
                });
            }
        }
    }
}

async fn serve_one<S, H, F, B>(stream: S, peer: ControlPeer, mut phase: watch::Receiver<Phase>, handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(ControlPeer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: IntoBody,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = handler(peer, request);
        async move { Ok::<_, Infallible>(answer.await.map(IntoBody::into_body)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut asked = false;
    loop {
        // Losing the phase's arm is safe: it is asked again from its state.
        tokio::select! {
            served = connection.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a control connection ended");
                }
                return;
            }
            _ = phase.wait_for(|phase| *phase >= Phase::Draining), if !asked => {
                asked = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails without `connections_per_address`.
    #[test]
    fn threat_17_one_address_cannot_hold_every_place() {
        let entry = Entry::strangers(None, Some(2));
        let place = |ip: &str| entry.place(Some(ip.parse().expect("an address")));
        let held = [place("192.0.2.1"), place("::ffff:192.0.2.1")];
        assert!(held.iter().all(Option::is_some) && place("192.0.2.1").is_none());
        assert!(place("192.0.2.2").is_some(), "another address has places of its own");
        let six = [place("2001:db8::1"), place("2001:db8::ffff:2")];
        assert!(six.iter().all(Option::is_some) && place("2001:db8::3").is_none(), "a /64 is one client");
        assert!(place("2001:db8:0:1::1").is_some());
        let local: Vec<_> = (0..100).map(|_| (place("127.0.0.1"), place("::1"), entry.place(None))).collect();
        assert!(local.iter().all(|(four, six, unix)| four.is_some() && six.is_some() && unix.is_some()));
        drop((held, six));
        assert!(place("192.0.2.1").is_some(), "given back");
        assert!(entry.addresses.expect("limited").1.lock().expect("unpoisoned").is_empty(), "and forgotten");
    }
}
