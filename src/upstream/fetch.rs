//! Control-plane HTTP: one small request, one small answer, on a connection of its own.
//!
//! For token, revocation and discovery endpoints; calls of client apps go through the pool. Deliberately absent: redirects (a token endpoint
//! that names another place gets no secret there), retries (the caller knows whether a second try is safe) and pooling.

use super::identity::TlsIdentity;
use super::origin::Origin;
use super::reach::Reach;
use super::tls::TlsRoots;
use super::trust::Trust;
use bytes::Bytes;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::uri::Uri;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const TOTAL: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
const BODY_BYTES_MAX: usize = 1024 * 1024;
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Addresses of one name that are tried before giving up.
const ADDRESSES_MAX: usize = 8;

/// What went wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchFault {
    /// No connection: name not found, refused, or a URL that is not to be called.
    Connect,
    /// The TLS handshake failed: most often a certificate that does not fit.
    Tls,
    Timeout,
    /// The answer is over the limit.
    TooLarge,
    /// The connection ended or spoke no HTTP.
    Broken,
}

/// A call without an answer. `detail` names hosts and causes, never what was sent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct FetchError {
    pub kind: FetchFault,
    pub detail: String,
    /// Whether the server could have seen the request: false only if not a byte of it was written.
    pub sent: bool,
}

/// The control-plane HTTP/1.1 client; clones share its TLS configuration.
#[derive(Debug, Clone)]
pub struct Fetch {
    tls: Arc<TlsRoots>,
    total: Duration,
    identity: Option<Arc<TlsIdentity>>,
    reach: Reach,
}

impl Fetch {
    pub fn new(tls: Arc<TlsRoots>) -> Fetch {
        Fetch { tls, total: TOTAL, identity: None, reach: Reach::Anywhere }
    }

    /// The same with another limit on a call's whole time.
    #[must_use]
    pub fn with_timeout(self, total: Duration) -> Fetch {
        Fetch { total, ..self }
    }

    /// The same, to these addresses alone.
    #[must_use]
    pub fn within(self, reach: Reach) -> Fetch {
        Fetch { reach, ..self }
    }

    /// The same, showing this certificate to servers that ask for one.
    #[must_use]
    pub fn called_as(self, identity: Option<Arc<TlsIdentity>>) -> Fetch {
        Fetch { identity, ..self }
    }

    /// The same, trusting these authorities in place of its own.
    #[must_use]
    pub fn trusting(self, trust: Option<&Trust>) -> Fetch {
        Fetch { tls: trust.map_or(self.tls, |trust| Arc::clone(trust.roots())), ..self }
    }

    /// Sends the request and reads the whole answer, whatever its status. The URI is absolute: `https`, or `http` to loopback.
    ///
    /// # Errors
    /// When there is no whole answer within the limits.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, FetchError> {
        let sent = AtomicBool::new(false);
        let outcome = match timeout(self.total, self.exchange(request, &sent)).await {
            Ok(outcome) => outcome,
            Err(_) => Err((FetchFault::Timeout, format!("no whole answer within {} s", self.total.as_secs_f32()))),
        };
        outcome.map_err(|(kind, detail)| FetchError { kind, detail, sent: sent.load(Ordering::Relaxed) })
    }

    /// The same to a server on a unix socket; the URI names no more than the path to ask for.
    ///
    /// # Errors
    /// As [`Fetch::send`].
    pub async fn send_unix(&self, socket: &Path, request: Request<Bytes>) -> Result<Response<Bytes>, FetchError> {
        let sent = AtomicBool::new(false);
        let exchange = async {
            let origin = origin_of(request.uri())?;
            let stream = UnixStream::connect(socket).await;
            let stream = stream.map_err(|error| (FetchFault::Connect, format!("cannot connect to {}: {error}", socket.display())))?;
            speak(stream, &origin, request, &sent).await
        };
        let outcome = timeout(self.total, exchange).await;
        let outcome =
            outcome.unwrap_or_else(|_| Err((FetchFault::Timeout, format!("no whole answer within {} s", self.total.as_secs_f32()))));
        outcome.map_err(|(kind, detail)| FetchError { kind, detail, sent: sent.load(Ordering::Relaxed) })
    }

    async fn exchange(&self, request: Request<Bytes>, sent: &AtomicBool) -> Result<Response<Bytes>, Fault> {
        let origin = origin_of(request.uri())?;
        let tcp = connect(&origin, self.reach).await?;
        if !origin.tls {
            return speak(tcp, &origin, request, sent).await;
        }
        let name = ServerName::try_from(origin.dial_host().to_owned())
            .map_err(|_| (FetchFault::Tls, format!("`{}` is no name that a certificate can hold", origin.authority)))?;
        let config = match &self.identity {
            None => self.tls.client_config(&[b"http/1.1"]),
            Some(identity) => identity.client_config(&self.tls, &[b"http/1.1"]),
        };
        let connector = tokio_rustls::TlsConnector::from(config);
        let tls = connector.connect(name, tcp).await;
        let tls = tls.map_err(|error| (FetchFault::Tls, format!("TLS with {} failed: {error}", origin.authority)))?;
        speak(tls, &origin, request, sent).await
    }
}

type Fault = (FetchFault, String);

fn origin_of(uri: &Uri) -> Result<Arc<Origin>, Fault> {
    let refused = |why: &str| (FetchFault::Connect, why.to_owned());
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(refused("only http and https URLs can be called")),
    };
    let host = uri.host().ok_or_else(|| refused("the URL names no host"))?;
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let origin = Origin::new(tls, host, port).map_err(|error| (FetchFault::Connect, error.to_string()))?;
    if !tls && !origin.is_loopback() {
        return Err(refused("plain http is called on loopback only"));
    }
    Ok(origin)
}

async fn connect(origin: &Origin, reach: Reach) -> Result<TcpStream, Fault> {
    let mut last = "the name has no address that may be called".to_owned();
    for address in addresses(origin).await?.into_iter().filter(|address| reach.allows(address.ip())) {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Latency alone is at stake; a socket without the option still works.
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = format!("no connection within {} s", CONNECT.as_secs()),
        }
    }
    Err((FetchFault::Connect, format!("cannot connect to {}: {last}", origin.authority)))
}

async fn addresses(origin: &Origin) -> Result<Vec<SocketAddr>, Fault> {
    let (host, port) = (origin.dial_host(), origin.port);
    if let Some(loopback) = super::connect::loopback(host, port) {
        return Ok(loopback.to_vec());
    }
    let found = timeout(CONNECT, tokio::net::lookup_host((host, port))).await;
    let found = found.map_err(|_| (FetchFault::Connect, format!("`{host}` was not resolved within {} s", CONNECT.as_secs())))?;
    let found = found.map_err(|error| (FetchFault::Connect, format!("`{host}` was not resolved: {error}")))?;
    Ok(found.take(ADDRESSES_MAX).collect())
}

/// Ends the connection's driver when the call ends or is dropped.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn speak<S>(stream: S, origin: &Origin, request: Request<Bytes>, sent: &AtomicBool) -> Result<Response<Bytes>, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: &hyper::Error| (FetchFault::Broken, format!("the exchange with {} broke: {error}", origin.authority));
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let _driver = Driver(tokio::spawn(async move {
        // Its error reaches the call through `sender`.
        let _ = connection.await;
    }));
    sent.store(true, Ordering::Relaxed);
    let response = sender.send_request(ready(request, origin)?).await.map_err(|error| broken(&error))?;
    let (head, body) = response.into_parts();
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => {
            Err((FetchFault::TooLarge, format!("the answer of {} is over {BODY_BYTES_MAX} bytes", origin.authority)))
        }
        Err(_) => Err((FetchFault::Broken, format!("the answer of {} broke off", origin.authority))),
    }
}

/// Origin form and `Host` (RFC 9112 §3.2), and a `User-Agent`, without which some providers refuse.
fn ready(request: Request<Bytes>, origin: &Origin) -> Result<Request<Full<Bytes>>, Fault> {
    let (mut head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    head.uri = target.parse().map_err(|_| (FetchFault::Connect, "the URL's path cannot be sent".to_owned()))?;
    head.headers.insert(HOST, origin.host_header.clone());
    let ours = HeaderValue::from_static(concat!("attache/", env!("CARGO_PKG_VERSION")));
    head.headers.entry(USER_AGENT).or_insert(ours);
    Ok(Request::from_parts(head, Full::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that reads one request's bytes, answers with `answer` and closes; gives back what it read.
    async fn serve(answer: Vec<u8>) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let base = format!("http://{}", listener.local_addr().expect("address"));
        let seen = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut buffer = vec![0; 4096];
            let read = stream.read(&mut buffer).await.expect("read");
            // The client may hang up early on an answer that is too large.
            let _ = stream.write_all(&answer).await;
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        });
        (base, seen)
    }

    fn fetch() -> Fetch {
        Fetch::new(TlsRoots::with_roots(Vec::new())).with_timeout(Duration::from_secs(5))
    }

    fn get(uri: &str) -> Request<Bytes> {
        Request::builder().uri(uri).body(Bytes::new()).expect("valid")
    }

    #[tokio::test]
    async fn sends_origin_form_host_and_agent() {
        let (base, seen) = serve(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".to_vec()).await;
        let answer = fetch().send(get(&format!("{base}/token?a=1"))).await.expect("answered");
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, b"hi".as_ref()));
        let seen = seen.await.expect("served").to_ascii_lowercase();
        assert!(seen.starts_with("get /token?a=1 http/1.1\r\n"), "{seen}");
        assert!(seen.contains(&format!("host: {}\r\n", &base["http://".len()..])), "{seen}");
        assert!(seen.contains(concat!("user-agent: attache/", env!("CARGO_PKG_VERSION"))), "{seen}");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer() {
        let (base, _) = serve(b"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/x\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
        assert_eq!(fetch().send(get(&base)).await.expect("answered").status(), 307);
    }

    #[tokio::test]
    async fn an_answer_over_the_limit_is_refused() {
        let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        answer.resize(BODY_BYTES_MAX + 100_000, b'x');
        let (base, _) = serve(answer).await;
        let failed = fetch().send(get(&base)).await.expect_err("refused");
        assert_eq!((failed.kind, failed.sent), (FetchFault::TooLarge, true));
    }

    #[tokio::test]
    async fn tells_whether_the_request_was_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let base = format!("http://{}", listener.local_addr().expect("address"));
        // Accepted by the kernel, never answered.
        let failed = fetch().with_timeout(Duration::from_millis(200)).send(get(&base)).await.expect_err("timed out");
        assert_eq!((failed.kind, failed.sent), (FetchFault::Timeout, true));
        drop(listener);
        let failed = fetch().send(get(&base)).await.expect_err("refused");
        assert_eq!((failed.kind, failed.sent), (FetchFault::Connect, false));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_broken_and_sent() {
        for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhi", "garbage\r\n\r\n"] {
            let (base, _) = serve(answer.into()).await;
            let failed = fetch().send(get(&base)).await.expect_err(answer);
            assert_eq!((failed.kind, failed.sent), (FetchFault::Broken, true), "{answer}");
        }
    }

    #[tokio::test]
    async fn plain_http_goes_to_loopback_alone() {
        for uri in ["http://example.com/token", "http://localhost.evil.net/", "ftp://127.0.0.1/", "/token"] {
            let failed = fetch().send(get(uri)).await.expect_err(uri);
            assert_eq!((failed.kind, failed.sent), (FetchFault::Connect, false), "{uri}");
        }
    }

    #[tokio::test]
    async fn a_certificate_is_checked() {
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("generated");
        let (cert, signing) = (key.cert.der().clone(), key.signing_key.serialize_der());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("address").port();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.clone()], rustls::pki_types::PrivateKeyDer::Pkcs8(signing.into()))
            .expect("config");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let mut buffer = [0; 1024];
                let _ = tls.read(&mut buffer).await;
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                let _ = tls.shutdown().await;
            }
        });
        let trusting = Fetch::new(TlsRoots::with_roots(vec![cert])).with_timeout(Duration::from_secs(5));
        assert_eq!(trusting.send(get(&format!("https://localhost:{port}/"))).await.expect("answered").status(), 200);
        let wrong_name = trusting.send(get(&format!("https://127.0.0.1:{port}/"))).await.expect_err("wrong name");
        let unknown_root = fetch().send(get(&format!("https://localhost:{port}/"))).await.expect_err("unknown root");
        for failed in [wrong_name, unknown_root] {
            assert_eq!((failed.kind, failed.sent), (FetchFault::Tls, false), "{failed}");
        }
    }
}
