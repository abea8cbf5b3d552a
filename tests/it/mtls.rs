//! Client certificates (RFC 8705) over real TLS: whose certificate each connection shows, at the token endpoint and at the API.

use crate::harness::*;
use crate::tls::{Authority, names};
use crate::wire::empty;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// One request: on which connection, by whose certificate, for what, with which token.
#[derive(Debug, Clone)]
struct Seen {
    connection: usize,
    certificate: CertificateDer<'static>,
    path: String,
    authorization: String,
}

/// A provider that talks to nobody without a certificate. Its tokens are named after the certificate that they were asked for with.
struct Provider {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

fn name_of(certificate: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    STANDARD.encode(digest).chars().filter(char::is_ascii_alphanumeric).collect()
}

fn pem(label: &str, der: &[u8]) -> String {
    // In YAML's double quotes.
    format!("-----BEGIN {label}-----\\n{}\\n-----END {label}-----\\n", STANDARD.encode(der))
}

struct Client {
    certificate: CertificateDer<'static>,
    keys: String,
}

impl Client {
    fn of(authority: &Authority, name: &str) -> Client {
        let (chain, key) = authority.sign(names(&[name]));
        let keys =
            format!("client_cert: \"{}\", client_cert_key: \"{}\"", pem("CERTIFICATE", &chain[0]), pem("PRIVATE KEY", key.secret_der()));
        Client { certificate: chain[0].clone(), keys }
    }

    fn token(&self) -> String {
        format!("Bearer {}", name_of(&self.certificate))
    }
}

impl Provider {
    async fn start(authority: &Authority, alpn: &[&[u8]]) -> Provider {
        let mut roots = RootCertStore::empty();
        roots.add(authority.root.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().expect("a verifier");
        let (chain, key) = authority.sign(names(&["localhost"]));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .expect("a certificate");
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let server = Provider { address: listener.local_addr().expect("an address"), seen: Arc::default() };
        let (seen, acceptor) = (Arc::clone(&server.seen), TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((tcp, _)) = listener.accept().await {
                connection += 1;
                let (seen, acceptor) = (Arc::clone(&seen), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let session = stream.get_ref().1;
                    let certificate = session.peer_certificates().expect("one was shown")[0].clone().into_owned();
                    let h2 = session.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request| answer(Arc::clone(&seen), (connection, certificate.clone()), request));
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

    fn seen(&self, prefix: &str) -> Vec<Seen> {
        self.seen.lock().expect("unpoisoned").iter().filter(|seen| seen.path.starts_with(prefix)).cloned().collect()
    }
}

async fn answer(
    seen: Arc<Mutex<Vec<Seen>>>,
    (connection, certificate): (usize, CertificateDer<'static>),
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let authorization = request.headers().get("authorization").map(|value| value.to_str().expect("ASCII").to_owned()).unwrap_or_default();
    let token = json!({"access_token": name_of(&certificate), "token_type": "Bearer", "expires_in": 3600}).to_string();
    let path = request.uri().path().to_owned();
    let body = if path == "/token" { token } else { "{}".to_owned() };
    seen.lock().expect("unpoisoned").push(Seen { connection, certificate, path, authorization });
    Ok(Response::new(Full::new(body.into())))
}

fn plan(authority: &Authority, provider: &Provider, clients: &[(&str, &str)]) -> Plan {
    let host = format!("localhost:{}", provider.address.port());
    let mut plan = Plan::new().tls(authority.roots());
    for (name, keys) in clients {
        plan = plan
            .providers(&format!("  {name}: {{client_id: {name}, token_url: 'https://{host}/token', token_hosts: ['{host}'], {keys}}}\n"))
            .routes(&format!(
                "  - {{match: '/{name}/{{*rest}}', provider: {name}, as: app, upstream: 'https://{host}/api/{name}/{{rest}}'}}\n"
            ));
    }
    plan
}

#[tokio::test]
async fn p29_each_registrations_calls_show_its_own_certificate_and_share_no_connection() {
    for alpn in [&[&b"http/1.1"[..]][..], &[b"h2", b"http/1.1"]] {
        let authority = Authority::new();
        let provider = Provider::start(&authority, alpn).await;
        let (first, second) = (Client::of(&authority, "first.test"), Client::of(&authority, "second.test"));
        let keys = [&first, &second].map(|client| format!("client_auth: mtls, {}", client.keys));
        let world = plan(&authority, &provider, &[("first", &keys[0]), ("second", &keys[1]), ("open", "client_secret: s3")]).start().await;
        for _ in 0..20 {
            for (path, client) in [("/first/x", &first), ("/second/x", &second)] {
                world.call("GET", path, &[], empty()).await.is_ok();
                let last = provider.seen("/api").pop().expect("a call");
                assert_eq!((last.certificate, last.authorization), (client.certificate.clone(), client.token()));
            }
        }
        // Neither the idle connections nor a session of theirs serve a registration without a certificate.
        assert_eq!(world.call("GET", "/open/x", &[], empty()).await.status, 502);
        let calls = provider.seen("/api");
        assert_eq!(calls.len(), 40);
        for call in &calls {
            let others = calls.iter().filter(|other| other.connection == call.connection);
            assert!(others.into_iter().all(|other| other.certificate == call.certificate), "{call:?}");
        }
        let connections = calls.iter().map(|call| call.connection).collect::<std::collections::HashSet<_>>().len();
        assert!(connections < 20, "they are kept and used again: {connections}");
        let tokens = provider.seen("/token");
        assert_eq!(tokens.len(), 2, "the one without a certificate did not come so far");
        assert!(tokens.iter().all(|seen| seen.authorization.is_empty()), "the certificate alone proves the client");
    }
}

#[tokio::test]
async fn p29_a_reload_with_another_certificate_is_in_force_for_the_next_call() {
    let authority = Authority::new();
    let provider = Provider::start(&authority, &[b"http/1.1"]).await;
    let (old, new) = (Client::of(&authority, "client.test"), Client::of(&authority, "client.test"));
    let world = plan(&authority, &provider, &[("first", &format!("client_auth: mtls, {}", old.keys))]).start().await;
    world.call("GET", "/first/x", &[], empty()).await.is_ok();
    let text = std::fs::read_to_string(world.config()).expect("read");
    // One that does not fit leaves the old one in force.
    std::fs::write(world.config(), text.replace("BEGIN PRIVATE KEY", "BEGIN NO KEY")).expect("written");
    assert_ne!(world.admin("POST", "/v1/reload").await.status, 200);
    std::fs::write(world.config(), text.replace(&old.keys, &new.keys)).expect("written");
    world.admin("POST", "/v1/reload").await.is_ok();
    world.call("GET", "/first/x", &[], empty()).await.is_ok();
    let shown: Vec<_> = provider.seen("/api").into_iter().map(|seen| seen.certificate).collect();
    assert_eq!(shown, [old.certificate, new.certificate]);
}
