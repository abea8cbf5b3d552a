//! Who may call: by client certificate, by user id; and the listeners' own certificates.

use crate::harness::*;
use crate::tls::{Authority, names};
use crate::upstream::Upstream;
use crate::wire::{self, Answer, empty, within};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

pub fn pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<_> = STANDARD.encode(der).into_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A folder with `cert.pem` and `key.pem` of a listener called localhost, and `ca.pem`.
pub fn certificates(server: &Authority, clients: &Authority) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    renew(folder.path(), server);
    fs::write(folder.path().join("ca.pem"), &clients.pem).expect("written");
    folder
}

fn renew(folder: &Path, server: &Authority) -> CertificateDer<'static> {
    let (chain, key) = server.sign(names(&["localhost"]));
    fs::write(folder.join("cert.pem"), pem("CERTIFICATE", &chain[0])).expect("written");
    fs::write(folder.join("key.pem"), pem("PRIVATE KEY", key.secret_der())).expect("written");
    chain[0].clone()
}

/// The lines of `tls`, in braces.
pub fn tls_of(folder: &TempDir, with_ca: bool) -> String {
    let at = folder.path().display();
    let ca = if with_ca { format!(", client_ca: '{at}/ca.pem'") } else { String::new() };
    format!("{{cert: '{at}/cert.pem', key: '{at}/key.pem'{ca}}}")
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn uri(name: &str) -> CertificateParams {
    let mut params = names(&[]);
    params.subject_alt_names.push(SanType::URI(name.try_into().expect("ascii")));
    params
}

/// A connection that trusts `server`, offers `alpn`, and shows a certificate if it has one.
pub async fn dial(
    address: SocketAddr,
    server: &Authority,
    identity: Option<Identity>,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(server.root.clone()).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("an identity"),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    within("a handshake", tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// One call over TLS; an error where the handshake is refused, which TLS 1.3 tells a client with the first read.
async fn call(address: SocketAddr, server: &Authority, identity: Option<Identity>, path: &str) -> Result<Answer, String> {
    let stream = dial(address, server, identity, &[b"http/1.1"]).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let request = wire::request("GET", path).header("x-end-user", MEGAN).body(empty()).expect("a request");
    let answer = within("a call", sender.send_request(request)).await.map_err(|error| error.to_string())?;
    Ok(Answer::read(answer).await.expect("whole"))
}

const CALLERS: &str = "callers:
  - {name: app, cert_san: [App.internal, 'spiffe://prod/app']}
  - {name: photos, cert_san: photos.internal, routes: [list-photos]}
  - {name: elsewhere, cert_san: elsewhere.internal, providers: [other]}
  - {name: both, cert_san: both.internal, key_sha256: 2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683}
";

#[tokio::test]
async fn a_caller_is_known_by_its_certificates_names() {
    let (server, clients, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let folder = certificates(&server, &clients);
    let listen = format!("  proxy: {{bind: 127.0.0.1:0, tls: {}}}\n  public: 127.0.0.1:0\n  admin: 127.0.0.1:0\n", tls_of(&folder, true));
    let other = "  other: {client_id: o, authorize_url: http://localhost/a, token_url: http://localhost/t, token_hosts: [localhost]}\n";
    let world = Plan::new().listen(&listen).top(CALLERS).providers(other).start().await;
    world.connect(MEGAN).await;
    let get = async |identity, path: &str| call(world.proxy, &server, identity, path).await.expect("an answer");
    let refused = |answer: Answer| answer.is_problem("caller-refused", 403, "http_request_denied");
    for params in [names(&["app.internal"]), names(&["APP.INTERNAL"]), names(&["x", "app.internal"]), uri("spiffe://prod/app")] {
        get(Some(clients.sign(params)), "/photos").await.is_ok();
    }
    for params in [names(&["other.internal"]), names(&["sub.app.internal"]), names(&["*.internal"]), uri("spiffe://prod/app2"), names(&[])]
    {
        refused(get(Some(clients.sign(params)), "/photos").await);
    }
    refused(get(None, "/photos").await);
    // Limited to routes and to providers.
    let photos = || Some(clients.sign(names(&["photos.internal"])));
    get(photos(), "/photos").await.is_ok();
    refused(get(photos(), "/api/photos").await);
    refused(get(Some(clients.sign(names(&["elsewhere.internal"]))), "/photos").await);
    // All conditions of a caller.
    refused(get(Some(clients.sign(names(&["both.internal"]))), "/photos").await);
    // An authority that nobody named: the handshake fails, whatever the names.
    let error = call(world.proxy, &server, Some(stranger.sign(names(&["app.internal"]))), "/photos").await.expect_err("refused");
    assert!(!error.is_empty());
    let mut expired = names(&["app.internal"]);
    (expired.not_before, expired.not_after) = (rcgen::date_time_ymd(2019, 1, 1), rcgen::date_time_ymd(2020, 1, 1));
    call(world.proxy, &server, Some(clients.sign(expired)), "/photos").await.expect_err("refused");
    // Plain HTTP is no way around.
    let mut raw = wire::Raw::open(world.proxy).await;
    raw.send(format!("GET /photos HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
    assert!(!String::from_utf8_lossy(&raw.rest().await).contains("HTTP/1.1"));
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_behind_tls_and_on_an_origin() {
    let server = Authority::new();
    let folder = certificates(&server, &server);
    let api = Upstream::plain().await;
    let tls = tls_of(&folder, false);
    let listen = format!(
        "  proxy: {{bind: 127.0.0.1:0, tls: {tls}}}\n  public: 127.0.0.1:0\n  admin: 127.0.0.1:0\n  origins:\n    - {{bind: 127.0.0.1:0, tls: {tls}, provider: sandbox, upstream: 'http://{}'}}\n",
        api.address
    );
    let world = Plan::new().listen(&listen).up(api.address, "").start().await;
    let token = world.connect(MEGAN).await.access_token;
    for (address, path) in [(world.proxy, "/up/a"), (world.running.origins[0], "/a")] {
        call(address, &server, None, path).await.expect("an answer").is_ok();
        let stream = dial(address, &server, None, &[b"h2", b"http/1.1"]).await.expect("connected");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "HTTP/2 is preferred");
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request = Request::get(format!("https://localhost:{}{path}", address.port())).header("x-end-user", MEGAN);
        let answer = within("a call", sender.send_request(request.body(empty()).expect("a request"))).await.expect("an answer");
        Answer::read(answer).await.expect("whole").is_ok();
        assert_eq!((&*api.last().target, api.last().header("authorization")), ("/a", &*format!("Bearer {}", token.expose())));
        // Without ALPN the first bytes tell.
        let mut stream = dial(address, &server, None, &[]).await.expect("connected");
        stream.write_all(format!("GET {path} HTTP/1.0\r\nX-End-User: {MEGAN}\r\n\r\n").as_bytes()).await.expect("written");
        let mut text = String::new();
        let _ = within("an answer", stream.read_to_string(&mut text)).await;
        assert!(text.starts_with("HTTP/1.0 200"), "{text}");
    }
}

#[tokio::test]
async fn the_other_listeners_speak_tls_and_a_client_ca_is_their_wall() {
    let (server, clients) = (Authority::new(), Authority::new());
    let folder = certificates(&server, &clients);
    let (plain, asking) = (tls_of(&folder, false), tls_of(&folder, true));
    let listen = format!(
        "  proxy: 127.0.0.1:0\n  public: {{bind: 127.0.0.1:0, tls: {plain}}}\n  admin: {{bind: 127.0.0.1:0, tls: {asking}}}\n  health: {{bind: 127.0.0.1:0, tls: {plain}}}\n"
    );
    let world = Plan::new().listen(&listen).start().await;
    assert_eq!(call(world.public, &server, None, "/connect/none").await.expect("an answer").status, 410);
    call(world.running.health[0], &server, None, "/healthz").await.expect("an answer").is_ok();
    call(world.admin, &server, Some(clients.sign(names(&["operator"]))), "/healthz").await.expect("an answer").is_ok();
    call(world.admin, &server, None, "/healthz").await.expect_err("none gets in without a certificate");
    call(world.admin, &server, Some(server.sign(names(&["operator"]))), "/healthz").await.expect_err("or with one of another authority");
    // Who says nothing in the handshake holds nobody up.
    let _silent: Vec<_> = futures_util::future::join_all((0..50).map(|_| TcpStream::connect(world.public))).await;
    assert_eq!(call(world.public, &server, None, "/connect/none").await.expect("an answer").status, 410);
}

async fn shown(address: SocketAddr, server: &Authority) -> CertificateDer<'static> {
    let stream = dial(address, server, None, &[]).await.expect("connected");
    stream.get_ref().1.peer_certificates().expect("shown")[0].clone().into_owned()
}

#[tokio::test]
async fn a_renewed_certificate_goes_live_and_a_broken_one_does_not() {
    let server = Authority::new();
    let folder = certificates(&server, &server);
    let tls = tls_of(&folder, false);
    let listen = format!("  proxy: {{bind: 127.0.0.1:0, tls: {tls}}}\n  public: {{bind: 127.0.0.1:0, tls: {tls}}}\n  admin: 127.0.0.1:0\n");
    let world = Plan::new().listen(&listen).start().await;
    let first = shown(world.proxy, &server).await;
    let mut open = dial(world.proxy, &server, None, &[]).await.expect("connected");
    // Half renewed: a new certificate beside the old key.
    let key = fs::read(folder.path().join("key.pem")).expect("read");
    renew(folder.path(), &server);
    let new_key = fs::read(folder.path().join("key.pem")).expect("read");
    fs::write(folder.path().join("key.pem"), key).expect("written");
    let answer = world.admin("POST", "/v1/reload").await;
    assert_eq!(answer.status, 422);
    let fault = answer.json()["errors"][0].clone();
    assert!(fault["message"].as_str().expect("text").contains("not the key of that certificate"), "{fault}");
    assert!(fault["line"] == 2 && fault["column"].as_u64() > Some(1), "{fault}");
    assert_eq!(shown(world.proxy, &server).await, first);
    // Whole: by the file watch or the reload, whichever is first.
    fs::write(folder.path().join("key.pem"), new_key).expect("written");
    world.admin("POST", "/v1/reload").await.is_ok();
    let second = shown(world.proxy, &server).await;
    assert_ne!(second, first);
    assert_eq!(shown(world.public, &server).await, second);
    let third = renew(folder.path(), &server);
    wire::until("the file watch saw it", async || shown(world.proxy, &server).await == third).await;
    // A listener that runs keeps its TLS, whatever the file says of it by now.
    let text = fs::read_to_string(world.config()).expect("read").replace(&format!(", tls: {tls}"), "");
    fs::write(world.config(), text).expect("written");
    let answer = world.admin("POST", "/v1/reload").await;
    assert_eq!(answer.is_ok().json()["restart_required"][0], "listen.proxy");
    assert_eq!(shown(world.proxy, &server).await, third);
    // Connections that were there are left alone.
    open.write_all(b"GET /none HTTP/1.0\r\n\r\n").await.expect("written");
    let mut text = String::new();
    let _ = within("an answer", open.read_to_string(&mut text)).await;
    assert!(text.starts_with("HTTP/1.0 404"), "{text}");
}

/// Fails when the peer's user id is not asked of the kernel, or not compared.
#[tokio::test]
async fn threat_39_a_caller_on_a_unix_socket_is_known_by_its_user_id() {
    let own = rustix::process::geteuid().as_raw();
    for (uid, expected) in [(own, 200), (own + 1, 403)] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("proxy.sock");
        let listen =
            format!("  proxy: {{bind: ['127.0.0.1:0', 'unix:{}']}}\n  public: 127.0.0.1:0\n  admin: 127.0.0.1:0\n", path.display());
        let world = Plan::new().listen(&listen).top(&format!("callers: [{{name: a, uid: {uid}}}]\n")).start().await;
        world.connect(MEGAN).await;
        let stream = UnixStream::connect(&path).await.expect("connected");
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request = Request::get("http://any.example/photos").header("x-end-user", MEGAN).body(empty()).expect("a request");
        let answer = within("a call", sender.send_request(request)).await.expect("an answer");
        assert_eq!(answer.status(), expected, "whoever the Host names: no browser reaches a unix socket");
        world.get("/photos").await.is_problem("caller-refused", 403, "http_request_denied");
    }
}
