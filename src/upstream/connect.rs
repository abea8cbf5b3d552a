//! A connected byte stream to an origin: DNS, staggered TCP connects (RFC 8305 in its simplest form), TLS with ALPN.

use super::dns::{Dns, Resolved};
use super::origin::Origin;
use super::reach::Reach;
use super::tls::TlsRoots;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long one address has a head start before the next is tried beside it (RFC 8305 §5 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);

/// HTTP/2 where the server has it.
const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// For what HTTP/2 has no way to ask.
const ALPN_H1: &[&[u8]] = &[b"http/1.1"];

/// Why no connection came about. Nothing of a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFault {
    Dns,
    Tcp,
    Tls,
    Timeout,
    /// This machine has no descriptor or port left: nothing of the upstream's.
    Local,
    /// The host has no address that this connector may go to.
    OutOfReach,
}

/// A failed connect, with words for the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct ConnectError {
    pub fault: ConnectFault,
    pub detail: String,
}

impl ConnectError {
    fn new(fault: ConnectFault, detail: impl Into<String>) -> Self {
        ConnectError { fault, detail: detail.into() }
    }
}

/// Dials origins; one a worker, sharing the TLS configuration and its session cache.
#[derive(Clone)]
pub struct Connector {
    roots: Arc<TlsRoots>,
    tls: Arc<ClientConfig>,
    reach: Reach,
    dns: Dns,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Connects that offer HTTP/2 and HTTP/1.1 by ALPN.
    pub fn new(roots: &Arc<TlsRoots>) -> Self {
        Connector { roots: Arc::clone(roots), tls: roots.client_config(ALPN), reach: Reach::Anywhere, dns: Dns::system() }
    }

    /// The same, to these addresses alone. What it connects must stay in a pool of its own, so that no connection made without the check is
    /// taken for one made with it.
    pub fn within(&self, reach: Reach) -> Self {
        Connector { reach, ..self.clone() }
    }

    /// A stream to the origin, and whether HTTP/2 was agreed on.
    ///
    /// # Errors
    /// When DNS, every address, the TLS handshake or the time fails.
    pub async fn connect(&self, origin: &Origin, within: Option<Duration>) -> Result<(Io, bool), ConnectError> {
        self.connect_by(origin, within, ALPN).await
    }

    /// The same for HTTP/1.1 alone.
    ///
    /// # Errors
    /// As [`Connector::connect`]; a server that speaks HTTP/2 alone refuses the TLS handshake.
    pub async fn connect_h1(&self, origin: &Origin, within: Option<Duration>) -> Result<Io, ConnectError> {
        self.connect_by(origin, within, ALPN_H1).await.map(|(io, _)| io)
    }

    async fn connect_by(
        &self,
        origin: &Origin,
        within: Option<Duration>,
        alpn: &'static [&'static [u8]],
    ) -> Result<(Io, bool), ConnectError> {
        let work = self.connect_unbounded(origin, alpn);
        match within {
            None => work.await,
            Some(within) => tokio::time::timeout(within, work)
                .await
                .unwrap_or_else(|_| Err(ConnectError::new(ConnectFault::Timeout, format!("no connection within {within:?}")))),
        }
    }

    async fn connect_unbounded(&self, origin: &Origin, alpn: &'static [&'static [u8]]) -> Result<(Io, bool), ConnectError> {
        let tcp = dial(&self.dns, origin.dial_host(), origin.port, self.reach).await?;
        if !origin.tls {
            return Ok((Io::Plain(tcp), false));
        }
        let name = ServerName::try_from(origin.dial_host().to_owned())
            .map_err(|_| ConnectError::new(ConnectFault::Tls, "the host is no name that a certificate can carry"))?;
        let roots = origin.trust.as_ref().map_or(&self.roots, |trust| trust.roots());
        let tls = match (&origin.identity, &origin.trust) {
            (None, None) if alpn == ALPN => Arc::clone(&self.tls),
            (None, _) => roots.client_config(alpn),
            (Some(identity), _) => identity.client_config(roots, alpn),
        };
        let stream = TlsConnector::from(tls)
            .connect(name, tcp)
            .await
            .map_err(|error| ConnectError::new(ConnectFault::Tls, format!("TLS handshake failed: {error}")))?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Io::Tls(Box::new(stream)), h2))
    }
}

/// A connection to one of the host's addresses. Where a remembered address is all that failed, the name is asked for anew: it may have moved.
async fn dial(dns: &Dns, host: &str, port: u16, reach: Reach) -> Result<TcpStream, ConnectError> {
    let found = resolve(dns, host, port, false).await?;
    let (addresses, remembered) = (found.addresses, found.remembered);
    let failed = match race(host, addresses.clone(), reach).await {
        Err(failed) if remembered => failed,
        outcome => return outcome,
    };
    match resolve(dns, host, port, true).await {
        // Resolvers turn their answers about.
        Ok(found) if !found.remembered && found.addresses.iter().any(|address| !addresses.contains(address)) => {
            race(host, found.addresses, reach).await
        }
        _ => Err(failed),
    }
}

/// Tries addresses, families in turn, each with a head start on the next; the first to connect wins and the others are dropped. What is out of
/// reach is never dialled: the address that is judged is the one that is connected to (THREATS row 26).
async fn race(host: &str, mut found: Vec<SocketAddr>, reach: Reach) -> Result<TcpStream, ConnectError> {
    let had_any = !found.is_empty();
    found.retain(|address| reach.allows(address.ip()));
    if had_any && found.is_empty() {
        return Err(ConnectError::new(ConnectFault::OutOfReach, format!("{host} has no public address")));
    }
    let mut waiting = interleave(found).into_iter();
    let mut trying = FuturesUnordered::new();
    let mut last = None;
    loop {
        if let Some(address) = waiting.next() {
            trying.push(async move { (address, TcpStream::connect(address).await) });
        }
        let more_wait = waiting.len() > 0;
        // Losing either arm is safe: a connect in progress stays in `trying`, and the timer holds no state.
        tokio::select! {
            Some((address, outcome)) = trying.next() => match outcome {
                Ok(stream) => {
                    // Small writes go out at once; a proxy must not add Nagle's delay to the client's own.
                    let _ = stream.set_nodelay(true);
                    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive());
                    return Ok(stream);
                }
                Err(error) => last = Some((is_local(&error), format!("cannot connect to {address}: {error}"))),
            },
            () = tokio::time::sleep(STAGGER), if more_wait => {}
        }
        if trying.is_empty() && waiting.len() == 0 {
            let (local, detail) = last.unwrap_or_else(|| (false, format!("{host} has no address")));
            return Err(ConnectError::new(if local { ConnectFault::Local } else { ConnectFault::Tcp }, detail));
        }
    }
}

/// When the other end of a silent connection is asked whether it is still there: after a minute, then every 15 s.
pub fn keepalive() -> socket2::TcpKeepalive {
    socket2::TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15))
}

/// Out of descriptors (EMFILE, ENFILE) or of local ports (EADDRNOTAVAIL).
fn is_local(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24)) || error.kind() == io::ErrorKind::AddrNotAvailable
}

async fn resolve(dns: &Dns, host: &str, port: u16, anew: bool) -> Result<Resolved, ConnectError> {
    if let Some(loopback) = loopback(host, port) {
        return Ok(Resolved { addresses: loopback.to_vec(), remembered: false });
    }
    let found = dns.resolve(host, port, anew).await;
    found.map_err(|why| ConnectError::new(ConnectFault::Dns, format!("cannot resolve {host}: {why}")))
}

/// The addresses of a name that is loopback whatever a resolver says (RFC 6761 §6.3): plain http to it relies on that.
pub(super) fn loopback(host: &str, port: u16) -> Option<[SocketAddr; 2]> {
    let named = host == "localhost" || host.ends_with(".localhost");
    named.then(|| [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()])
}

/// IPv6 and IPv4 in turn, each in the resolver's order (RFC 8305 §4).
fn interleave(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut all = Vec::new();
    for address in first {
        all.push(address);
        all.extend(second.next());
    }
    all.extend(second);
    all
}

/// A plain or TLS stream. The TLS arm is boxed: its state is over a kilobyte, and plain streams should not carry that.
#[derive(Debug)]
pub enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("valid");
        let found = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"].map(at).to_vec();
        assert_eq!(interleave(found), ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"].map(at));
        assert!(interleave(Vec::new()).is_empty());
    }

    #[tokio::test]
    async fn loopback_names_are_never_asked_of_a_resolver() {
        for name in ["localhost", "api.localhost"] {
            let found = resolve(&Dns::system(), name, 80, false).await.expect("known").addresses;
            assert!(found.iter().all(|address| address.ip().is_loopback()), "{name}: {found:?}");
        }
        assert!(loopback("localhost.evil.example", 80).is_none());
    }

    #[tokio::test]
    async fn a_closed_port_is_a_tcp_fault_and_a_bad_name_a_dns_fault() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = taken.local_addr().expect("addr").port();
        drop(taken);
        assert_eq!(dial(&Dns::system(), "127.0.0.1", port, Reach::Anywhere).await.expect_err("closed").fault, ConnectFault::Tcp);
        assert_eq!(dial(&Dns::system(), "no-such-host.invalid", 80, Reach::Public).await.expect_err("no name").fault, ConnectFault::Dns);
    }

    /// Fails when the addresses that are judged are not those that are dialled: a name that is public when asked first, and this machine then.
    #[tokio::test]
    async fn threat_26_a_name_that_changes_between_two_looks_leads_nowhere_private() {
        let inside = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = inside.local_addr().expect("addr").port();
        inside.set_nonblocking(true).expect("set");
        let looks = std::sync::atomic::AtomicUsize::new(0);
        let dns = Dns::asking(move |_| {
            let first = looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
            Box::pin(async move { Ok(vec![if first { [192, 0, 2, 1].into() } else { [127, 0, 0, 1].into() }]) })
        });
        // Documentation addresses (RFC 5737) are as little public as any other of the kind.
        assert_eq!(dial(&dns, "evil.test", port, Reach::Public).await.expect_err("refused").fault, ConnectFault::OutOfReach);
        for anew in [false, true] {
            let found = dns.resolve("evil.test", port, anew).await.expect("resolved");
            assert_eq!(race("evil.test", found.addresses, Reach::Public).await.expect_err("refused").fault, ConnectFault::OutOfReach);
        }
        assert_eq!(dial(&dns, "evil.test", port, Reach::Public).await.expect_err("refused").fault, ConnectFault::OutOfReach);
        assert_eq!(inside.accept().expect_err("nobody came").kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn a_name_that_moved_is_asked_for_anew_when_its_remembered_address_is_dead() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = server.local_addr().expect("addr").port();
        let looks = std::sync::atomic::AtomicUsize::new(0);
        let dns = Dns::asking(move |_| {
            let first = looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
            // Nobody listens on the second loopback address.
            Box::pin(async move { Ok(vec![if first { [127, 0, 0, 2].into() } else { [127, 0, 0, 1].into() }]) })
        });
        dns.resolve("moved.test", port, false).await.expect("resolved");
        assert!(dial(&dns, "moved.test", port, Reach::Anywhere).await.is_ok());
    }

    /// Fails without `Reach` in the dial.
    #[tokio::test]
    async fn threat_26_what_is_out_of_reach_is_not_dialled() {
        let open = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = open.local_addr().expect("addr").port();
        for host in ["127.0.0.1", "localhost", "::1", "::ffff:127.0.0.1", "169.254.169.254", "10.0.0.1", "0.0.0.0"] {
            assert_eq!(dial(&Dns::system(), host, port, Reach::Public).await.expect_err(host).fault, ConnectFault::OutOfReach, "{host}");
        }
        assert!(dial(&Dns::system(), "127.0.0.1", port, Reach::PublicOrLoopback).await.is_ok());
        assert!(dial(&Dns::system(), "169.254.169.254", port, Reach::PublicOrLoopback).await.is_err());
    }
}
