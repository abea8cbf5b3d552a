//! The data plane: one thread a core, each with its own runtime, sockets, upstream pool and connections. Nothing here is shared or locked.

use super::Phase;
use super::connection::{self, HEAD_WITHIN, Stop};
use super::listen::Bound;
use super::sniff::{self, Rewound, Spoken};
use super::tls::{self, HANDSHAKES_MAX, Secured, Tls};
use crate::proxy::{Peer, Proxy, Via};
use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::LocalSet;

/// The most client connections of one worker. More wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 20_000;
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How long connections are kept open at the beginning of a drain: for the first call of one that was just accepted, and so that busy clients
/// are told `Connection: close` with an answer instead of finding their connection gone under a call.
const LINGER: Duration = Duration::from_millis(200);

/// A socket of the proxy's, and what is to be known of it.
#[derive(Debug)]
pub struct Port {
    pub bound: Bound,
    pub via: Via,
    /// Of TCP alone: what stands on a unix socket is this machine's.
    pub tls: Option<Tls>,
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Workers {
    /// Starts a thread for each set of sockets. `make` builds the worker's proxy on its own thread.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be had.
    pub fn start<F>(sets: Vec<Vec<Port>>, phase: &watch::Receiver<Phase>, make: F) -> io::Result<Workers>
    where
        F: Fn() -> Rc<Proxy> + Clone + Send + 'static,
    {
        let mut threads = Vec::new();
        for (number, set) in sets.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (make, phase) = (make.clone(), phase.clone());
            let run = move || {
                LocalSet::new().block_on(&runtime, async move {
                    if let Err(error) = run(set, phase, make()).await {
                        tracing::error!(%error, "a worker could not listen");
                    }
                });
            };
            threads.push(std::thread::Builder::new().name(format!("attache-{number}")).spawn(run)?);
        }
        Ok(Workers { threads })
    }

    /// Waits for every worker to end, which they do once the phase is `Draining` and their calls are through, or at `Stopping`.
    pub fn join(self) {
        for thread in self.threads {
            // A panic in one worker was told by the panic hook; the others are still to be waited for.
            let _ = thread.join();
        }
    }
}

/// What a worker's connections share.
struct Worker {
    proxy: Rc<Proxy>,
    live: RefCell<HashMap<u64, Rc<Stop>>>,
    next: Cell<u64>,
    handshaking: Cell<usize>,
    /// Answers say `Connection: close` (RFC 9112 §9.6).
    closing: Cell<bool>,
    /// Wakes those who wait for a connection to end: the accept loops at their limit, the drain for the last one.
    ended: tokio::sync::Notify,
}

async fn run(set: Vec<Port>, mut phase: watch::Receiver<Phase>, proxy: Rc<Proxy>) -> io::Result<()> {
    let worker = Rc::new(Worker {
        proxy,
        live: RefCell::default(),
        next: Cell::new(0),
        handshaking: Cell::new(0),
        closing: Cell::new(false),
        ended: tokio::sync::Notify::new(),
    });
    let mut accepting = Vec::new();
    for Port { bound, via, tls } in set {
        let (worker, phase) = (Rc::clone(&worker), phase.clone());
        accepting.push(match bound {
            Bound::Tcp { listener, address } => {
                let listener = TcpListener::from_std(listener)?;
                tokio::task::spawn_local(accept_tcp(worker, listener, (address.ip(), via, tls), phase))
            }
            Bound::Unix { listener } => {
                let listener = UnixListener::from_std(listener)?;
                tokio::task::spawn_local(accept_unix(worker, listener, via, phase))
            }
        });
    }
    tokio::task::spawn_local(crate::log::tail());
    let sweeping = Rc::clone(&worker);
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            sweeping.proxy.sweep();
            let now = tokio::time::Instant::now();
            for stop in sweeping.live.borrow().values() {
                stop.sweep(now);
            }
        }
    });
    // A closed channel means that whoever would tell us to drain is gone: the same as being told.
    let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
    worker.closing.set(true);
    for task in accepting {
        // Losing the task is safe: whatever it still accepts is dropped with the runtime.
        tokio::select! {
            _ = task => {}
            _ = phase.wait_for(|phase| *phase >= Phase::Stopping) => return Ok(()),
        }
    }
    if !worker.live.borrow().is_empty() {
        // Losing either arm is safe: both are only waits.
        tokio::select! {
            () = tokio::time::sleep(LINGER) => {}
            _ = phase.wait_for(|phase| *phase >= Phase::Stopping) => {}
        }
    }
    for stop in worker.live.borrow().values() {
        stop.ask();
    }
    loop {
        let ended = worker.ended.notified();
        if worker.live.borrow().is_empty() {
            break;
        }
        // Losing either arm is safe: both are asked again from the state they watch.
        tokio::select! {
            () = ended => {}
            _ = phase.wait_for(|phase| *phase >= Phase::Stopping) => return Ok(()),
        }
    }
    // Losing either arm is safe: both are only waits.
    tokio::select! {
        () = worker.proxy.tunnels().all_ended() => {}
        _ = phase.wait_for(|phase| *phase >= Phase::Stopping) => {}
    }
    Ok(())
}

async fn accept_tcp(
    worker: Rc<Worker>,
    listener: TcpListener,
    (bound, via, tls): (IpAddr, Via, Option<Tls>),
    mut phase: watch::Receiver<Phase>,
) {
    let port = listener.local_addr().ok().map(|address| address.port());
    let peer = Rc::new(Peer { bound: Some(bound), port, via, ..Peer::default() });
    let accept = |accepted: io::Result<(tokio::net::TcpStream, std::net::SocketAddr)>| {
        let (stream, _) = accepted?;
        // Answers go out at once; without this, small ones wait for the client's acknowledgement.
        stream.set_nodelay(true)?;
        match &tls {
            None => serve(&worker, stream, Rc::clone(&peer)),
            Some(tls) => serve_tls(&worker, stream, Rc::clone(&peer), tls.clone()),
        }
        Ok(())
    };
    loop {
        // Losing `accept` is safe: tokio leaves the connection in the kernel's queue.
        let accepted = tokio::select! {
            accepted = listener.accept() => accept(accepted),
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => break,
        };
        worker.after_accept(accepted, &mut phase).await;
    }
    // Who had already connected is served: their call may be on the way. The kernel is asked itself, because tokio answers from the readiness
    // that it last heard of, and would leave those who came since to be reset.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, address)) = listener.accept() {
        let accepted = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
        if accept(accepted.map(|stream| (stream, address))).is_err() {
            break;
        }
    }
}

async fn accept_unix(worker: Rc<Worker>, listener: UnixListener, via: Via, mut phase: watch::Receiver<Phase>) {
    let accept = |accepted: io::Result<(tokio::net::UnixStream, tokio::net::unix::SocketAddr)>| {
        let (stream, _) = accepted?;
        let uid = stream.peer_cred()?.uid();
        serve(&worker, stream, Rc::new(Peer { unix: true, uid: Some(uid), via, ..Peer::default() }));
        Ok(())
    };
    loop {
        // As above.
        let accepted = tokio::select! {
            accepted = listener.accept() => accept(accepted),
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => break,
        };
        worker.after_accept(accepted, &mut phase).await;
    }
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, address)) = listener.accept() {
        let accepted = stream.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(stream));
        if accept(accepted.map(|stream| (stream, address.into()))).is_err() {
            break;
        }
    }
}

impl Worker {
    /// Puts a connection on the list, for as long as what is returned lives.
    fn enter(self: &Rc<Self>, stop: &Rc<Stop>) -> End {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        self.live.borrow_mut().insert(number, Rc::clone(stop));
        End { worker: Rc::clone(self), number }
    }

    /// Waits where going on at once would do harm: out of file descriptors, or at the connection limit.
    async fn after_accept(&self, accepted: io::Result<()>, phase: &mut watch::Receiver<Phase>) {
        if let Err(error) = accepted {
            // ECONNABORTED and the like concern one client; running out of descriptors concerns all and passes only as connections end.
            tracing::debug!(%error, "a connection could not be accepted");
            if matches!(error.raw_os_error(), Some(23 | 24)) {
                tracing::warn!("out of file descriptors: raise the limit (`ulimit -n`)");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        loop {
            let ended = self.ended.notified();
            if self.live.borrow().len() + self.proxy.tunnels().open() < CONNECTIONS_MAX {
                return;
            }
            // Losing any arm is safe: all are asked again from the state they watch.
            tokio::select! {
                () = ended => {}
                () = self.proxy.tunnels().one_ended() => {}
                _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
            }
        }
    }
}

fn serve<S>(worker: &Rc<Worker>, stream: S, peer: Rc<Peer>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stop = Stop::new();
    let end = worker.enter(&stop);
    tokio::task::spawn_local(async move { sniff_and_serve(&end.worker, stream, peer, stop).await });
}

async fn sniff_and_serve<S>(worker: &Rc<Worker>, stream: S, peer: Rc<Peer>, stop: Rc<Stop>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Losing the sniffing is safe: nothing was begun.
    let sniffed = tokio::select! {
        sniffed = tokio::time::timeout(HEAD_WITHIN, sniff::sniff(stream)) => sniffed,
        () = stop.asked() => return,
    };
    if let Ok(Ok(Some(found))) = sniffed {
        serve_http(worker, found, peer, stop).await;
    }
}

/// The same behind TLS. The handshake is the connection's own work: the accept loop goes on.
fn serve_tls(worker: &Rc<Worker>, stream: TcpStream, peer: Rc<Peer>, tls: Tls) {
    if worker.handshaking.get() >= HANDSHAKES_MAX {
        tracing::debug!("a connection was closed: too many handshakes are under way");
        return;
    }
    let stop = Stop::new();
    let end = worker.enter(&stop);
    let shaking = Shaking::begin(worker);
    tokio::task::spawn_local(async move {
        // Losing the handshake is safe: nothing was begun.
        let secured = tokio::select! {
            secured = tls.handshake(stream) => secured,
            () = stop.asked() => return,
        };
        drop(shaking);
        let Secured { stream, cert_sans } = match secured {
            Ok(secured) => secured,
            Err(error) => return tracing::debug!(%error, "a TLS handshake failed"),
        };
        let peer = if cert_sans.is_empty() { peer } else { Rc::new(Peer { cert_sans, ..Peer::clone(&peer) }) };
        let spoken = match tls::alpn(&stream) {
            Some(b"h2") => Spoken::Http2,
            Some(_) => Spoken::Http1,
            None => return sniff_and_serve(&end.worker, stream, peer, stop).await,
        };
        serve_http(&end.worker, (spoken, Rewound::new(stream, Bytes::new())), peer, stop).await;
    });
}

/// A handshake under way, counted for as long as it lives.
struct Shaking(Rc<Worker>);

impl Shaking {
    fn begin(worker: &Rc<Worker>) -> Shaking {
        worker.handshaking.set(worker.handshaking.get() + 1);
        Shaking(Rc::clone(worker))
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        self.0.handshaking.set(self.0.handshaking.get().saturating_sub(1));
    }
}

async fn serve_http<S>(worker: &Rc<Worker>, (spoken, stream): (Spoken, Rewound<S>), peer: Rc<Peer>, stop: Rc<Stop>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let proxy = Rc::clone(&worker.proxy);
    let on = Rc::clone(worker);
    let service = service_fn(move |request: Request<Incoming>| {
        let (proxy, peer, on) = (Rc::clone(&proxy), Rc::clone(&peer), Rc::clone(&on));
        async move {
            let mut answer = proxy.handle(peer, request).await;
            // HTTP/2 has no such header (RFC 9113 §8.2.2): its connections end by a GOAWAY.
            if on.closing.get() && spoken == Spoken::Http1 && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    if let Err(error) = connection::serve(spoken, stream, stop, service).await {
        tracing::debug!(%error, "a client connection ended");
    }
}

/// Strikes a connection off the list, also when its task panics.
struct End {
    worker: Rc<Worker>,
    number: u64,
}

impl Drop for End {
    fn drop(&mut self) {
        self.worker.live.borrow_mut().remove(&self.number);
        self.worker.ended.notify_waiters();
    }
}
