//! HTTPS upstreams: certificates that hold and ones that do not, HTTP/1.1 and HTTP/2 by ALPN.

use crate::harness::*;
use crate::wire::{empty, whole};
use attache::upstream::TlsRoots;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A certificate authority that signs whatever a test asks of it.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub root: CertificateDer<'static>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("signed");
        Authority { root: root.der().clone(), pem: root.pem(), issuer: Issuer::new(params, key) }
    }

    pub fn roots(&self) -> Arc<TlsRoots> {
        TlsRoots::with_roots(vec![self.root.clone()])
    }

    pub fn sign(&self, params: CertificateParams) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

pub fn names(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).expect("names")
}

/// The version, target, `Authorization` and `Host` or authority of a request.
pub type Call = (http::Version, String, String, String);

/// An HTTPS server that says what it saw.
pub struct Secure {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Call>>>,
    pub handshakes: Arc<AtomicUsize>,
}

impl Secure {
    /// `alpn` in the server's order of preference.
    pub async fn start(authority: &Authority, params: CertificateParams, alpn: &[&[u8]]) -> Secure {
        let (chain, key) = authority.sign(params);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate");
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let server = Secure { address: listener.local_addr().expect("an address"), seen: Arc::default(), handshakes: Arc::default() };
        let (seen, handshakes, acceptor) = (Arc::clone(&server.seen), Arc::clone(&server.handshakes), TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (seen, handshakes, acceptor) = (Arc::clone(&seen), Arc::clone(&handshakes), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    handshakes.fetch_add(1, Ordering::SeqCst);
                    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request| answer(Arc::clone(&seen), request));
                    let io = TokioIo::new(stream);
                    let _ = match h2 {
                        true => hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await,
                        false => hyper::server::conn::http1::Builder::new().serve_connection(io, service).await,
                    };
                });
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub fn seen(&self) -> Vec<Call> {
        self.seen.lock().expect("unpoisoned").clone()
    }
}

async fn answer(seen: Arc<Mutex<Vec<Call>>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let header =
        |name: &str| head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default();
    let host = head.uri.authority().map_or_else(|| header("host"), ToString::to_string);
    let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    seen.lock().expect("unpoisoned").push((head.version, target.clone(), header("authorization"), host.clone()));
    let length = body.collect().await.map(|body| body.to_bytes().len()).unwrap_or_default();
    let text = match &*target {
        "/token" => r#"{"access_token":"granted","token_type":"Bearer","expires_in":3600}"#.to_owned(),
        "/.well-known/openid-configuration" => format!(r#"{{"issuer":"https://{host}","token_endpoint":"https://{host}/token"}}"#),
        _ => format!("{:?} {length}", head.version),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    if target.contains("refused") {
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    }
    Ok(response)
}

/// A world that trusts `roots` and whose `/up/` goes to `url`.
async fn world(roots: Arc<TlsRoots>, url: &str) -> World {
    let port = url.rsplit_once(':').expect("a port").1;
    let routes = format!("  - {{match: '/up/{{*rest}}', provider: sandbox, upstream: '{url}/{{rest}}'}}\n");
    let plan = Plan::new().tls(roots).routes(&routes).token_name(&format!("localhost:{port}")).token_name(&format!("127.0.0.1:{port}"));
    let world = plan.start().await;
    world.connect(MEGAN).await;
    world
}

#[tokio::test]
async fn a_good_certificate_carries_calls_over_either_version() {
    let authority = Authority::new();
    for (alpn, version) in [
        (&[&b"h2"[..], b"http/1.1"][..], http::Version::HTTP_2),
        (&[&b"http/1.1"[..]][..], http::Version::HTTP_11),
        (&[][..], http::Version::HTTP_11),
    ] {
        let server = Secure::start(&authority, names(&["localhost"]), alpn).await;
        let world = world(authority.roots(), &server.url()).await;
        let token = world.connect(MEGAN).await.access_token;
        for _ in 0..5 {
            let answer = world.call("POST", "/up/a%2Fb?x=1", &[("x-end-user", MEGAN)], whole(vec![b'x'; 100_000])).await;
            assert_eq!(answer.is_ok().text(), format!("{version:?} 100000"));
            assert_eq!(world.get("/up/y").await.is_ok().text(), format!("{version:?} 0"));
        }
        let host = format!("localhost:{}", server.address.port());
        assert_eq!(server.seen()[0], (version, "/a%2Fb?x=1".into(), format!("Bearer {}", token.expose()), host));
        assert!(server.handshakes.load(Ordering::SeqCst) <= 2, "a worker's calls share a connection");
    }
}

#[tokio::test]
async fn a_certificate_for_an_address_is_good_for_that_address() {
    let authority = Authority::new();
    let server = Secure::start(&authority, names(&["127.0.0.1"]), &[]).await;
    let world = world(authority.roots(), &format!("https://{}", server.address)).await;
    world.get("/up/x").await.is_ok();
}

/// Fails with any verifier but the whole one of rustls.
#[tokio::test]
async fn threat_15_a_bad_certificate_is_refused_before_any_byte_of_the_call() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut expired = names(&["localhost"]);
    (expired.not_before, expired.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
    let mut early = names(&["localhost"]);
    (early.not_before, early.not_after) = (date_time_ymd(2099, 1, 1), date_time_ymd(2100, 1, 1));
    let mut common_name = names(&[]);
    common_name.distinguished_name.push(rcgen::DnType::CommonName, "localhost");
    let mut email = names(&[]);
    email.subject_alt_names.push(rcgen::SanType::Rfc822Name("localhost".try_into().expect("ascii")));
    for (what, signer, params) in [
        ("another name", &authority, names(&["example.com"])),
        ("a longer name", &authority, names(&["localhost.example.com"])),
        ("a wildcard", &authority, names(&["*.localhost"])),
        ("an address instead of a name", &authority, names(&["127.0.0.1"])),
        ("no name but the common one", &authority, common_name),
        ("a name of another kind", &authority, email),
        ("expired", &authority, expired),
        ("not yet valid", &authority, early),
        ("an unknown authority", &stranger, names(&["localhost"])),
    ] {
        let server = Secure::start(signer, params, &[b"h2", b"http/1.1"]).await;
        let world = world(authority.roots(), &server.url()).await;
        let answer = world.get("/up/x").await;
        answer.is_problem("upstream-unreachable", 502, "destination_unavailable");
        assert_eq!(server.seen().len(), 0, "{what}");
        assert!(!answer.text().contains("ertificate"), "what was wrong is for the log: {}", answer.text());
    }
}

/// Fails when a failed handshake falls back to plain HTTP.
#[tokio::test]
async fn threat_15_plain_http_behind_an_https_upstream_is_refused() {
    let authority = Authority::new();
    let plain = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let world = world(authority.roots(), &format!("https://localhost:{}", plain.local_addr().expect("an address").port())).await;
    let token = world.connect(MEGAN).await.access_token;
    let reading = tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.expect("accepted");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.expect("written");
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8_lossy(&bytes).into_owned()
    });
    world.get("/up/x").await.is_problem("upstream-unreachable", 502, "destination_unavailable");
    assert!(!reading.await.expect("no panic").contains(token.expose()));
}

#[tokio::test]
async fn a_refused_token_is_replaced_over_http_2_too() {
    let authority = Authority::new();
    let server = Secure::start(&authority, names(&["localhost"]), &[b"h2"]).await;
    let world = world(authority.roots(), &server.url()).await;
    world.clock.advance(seconds(31));
    let answer = world.call("POST", "/up/refused", &[("x-end-user", MEGAN)], whole("hello")).await;
    assert_eq!(answer.status, 401);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0].2, seen[1].2, "once more, with the new token");
}

#[tokio::test]
async fn many_calls_at_once_share_an_http_2_connection() {
    let authority = Authority::new();
    let server = Secure::start(&authority, names(&["localhost"]), &[b"h2"]).await;
    let world = world(authority.roots(), &server.url()).await;
    world.get("/up/first").await.is_ok();
    let world = &world;
    let calls = (0..200).map(|number| async move {
        let path = format!("/up/{number}");
        world.call("GET", &path, &[("x-end-user", MEGAN)], empty()).await.is_ok().text()
    });
    for text in join_all(calls).await {
        assert_eq!(text, "HTTP/2.0 0");
    }
    // Both workers have their connection by now.
    let warm = server.handshakes.load(Ordering::SeqCst);
    for answer in join_all((0..100).map(|_| world.get("/up/again"))).await {
        answer.is_ok();
    }
    assert_eq!((server.seen().len(), server.handshakes.load(Ordering::SeqCst)), (301, warm));
}

/// Over HTTP/2 a body that is cut off resets its stream, which must not pass for a failure of the upstream.
#[tokio::test]
async fn bodies_that_are_too_large_open_no_circuit() {
    let authority = Authority::new();
    let server = Secure::start(&authority, names(&["localhost"]), &[b"h2"]).await;
    let url = server.url();
    let port = server.address.port();
    let plan = Plan::new().tls(authority.roots()).workers(1).top("upstreams: {circuit: {failures: 2, open: 60s}}\n");
    let routes = format!("  - {{match: '/up/{{*rest}}', provider: sandbox, upstream: '{url}/{{rest}}', max_body: 1KiB}}\n");
    let world = plan.routes(&routes).token_name(&format!("localhost:{port}")).start().await;
    world.connect(MEGAN).await;
    for _ in 0..4 {
        let mut raw = crate::wire::Raw::open(world.proxy).await;
        raw.send(format!("POST /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
        raw.send(format!("800\r\n{}\r\n0\r\n\r\n", "a".repeat(0x800))).await;
        assert_eq!(raw.answer().await.expect("an answer").status, 413);
    }
    assert_eq!(world.get_as(MEGAN, "/up/x").await.status.as_u16(), 200);
}
