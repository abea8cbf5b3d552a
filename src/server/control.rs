//! Serving the control plane's listeners (admin, health): ordinary tasks on the shared runtime, small bodies only.

use super::Phase;
use super::listen::Bound;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

const HEAD_WITHIN: Duration = Duration::from_secs(30);
const CONNECTIONS_MAX: usize = 512;

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
pub fn serve<H, F>(bound: Bound, phase: watch::Receiver<Phase>, handler: H) -> io::Result<()>
where
    H: Fn(ControlPeer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Bytes>> + Send + 'static,
{
    let listener = match bound {
        Bound::Tcp { listener, address } => Listener::Tcp(TcpListener::from_std(listener)?, address.ip()),
        Bound::Unix { listener } => Listener::Unix(UnixListener::from_std(listener)?),
    };
    tokio::spawn(accept_all(listener, phase, handler));
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

async fn accept_all<H, F>(listener: Listener, mut phase: watch::Receiver<Phase>, handler: H)
where
    H: Fn(ControlPeer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Bytes>> + Send + 'static,
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
                let (handler, phase) = (handler.clone(), phase.clone());
                tokio::spawn(async move {
                    match stream {
                        Stream::Tcp(stream) => serve_one(stream, peer, phase, handler).await,
                        Stream::Unix(stream) => serve_one(stream, peer, phase, handler).await,
                    }
                    drop(permit);
                });
            }
        }
    }
}

async fn serve_one<S, H, F>(stream: S, peer: ControlPeer, mut phase: watch::Receiver<Phase>, handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(ControlPeer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Bytes>> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = handler(peer, request);
        async move { Ok::<_, Infallible>(answer.await.map(Full::new)) }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).serve_connection(TokioIo::new(stream), service);
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
