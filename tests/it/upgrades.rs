//! Upgrades (RFC 9110 §7.8): WebSocket and its like with the token attached, the tunnel behind a 101, and what opens none.

use crate::harness::*;
use crate::process::Process;
use crate::streaming::{accepted, by_hand, read_until};
use crate::tls::{Authority, names};
use crate::wire::{Raw, RawAnswer, until, within};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const KEYS: &str = "    websocket: true\n";
const WEBSOCKET: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat\r\n";
const GRANTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\nSet-Cookie: a=b\r\n\r\n";

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n{lines}\r\n")
}

async fn ask(proxy: SocketAddr, bytes: impl AsRef<[u8]>) -> Raw {
    let mut raw = Raw::open(proxy).await;
    raw.send(bytes).await;
    raw
}

/// A tunnel that stands, from end to end.
async fn tunnel(world: &World, listener: &TcpListener) -> (Raw, TcpStream) {
    let mut raw = ask(world.proxy, get("/up/ws", WEBSOCKET)).await;
    let mut upstream = accepted(listener).await;
    read_until(&mut upstream, "\r\n\r\n").await;
    upstream.write_all(GRANTED).await.expect("written");
    assert!(raw.head().await.expect("a head").starts_with("http/1.1 101"));
    (raw, upstream)
}

/// What comes within a short while: a wait that is too short shows less, never more.
async fn soon(stream: &mut TcpStream) -> usize {
    let mut part = [0; 4096];
    tokio::time::timeout(Duration::from_millis(150), stream.read(&mut part)).await.map_or(0, |read| read.unwrap_or_default())
}

async fn echo(raw: &mut Raw, upstream: &mut TcpStream, text: &str) {
    raw.send(text).await;
    read_until(upstream, text).await;
    upstream.write_all(text.as_bytes()).await.expect("written");
    let mut back = String::new();
    while back.len() < text.len() {
        let some = raw.some().await;
        assert!(!some.is_empty(), "ended before {text:?}");
        back.push_str(&String::from_utf8_lossy(&some));
    }
    assert_eq!(back, text);
}

#[tokio::test]
async fn an_upgrade_goes_up_with_the_token_and_becomes_a_tunnel() {
    let (world, listener) = by_hand(KEYS).await;
    let token = world.connect(MEGAN).await;
    let token = format!("authorization: bearer {}", token.access_token.expose()).to_ascii_lowercase();
    let own = "Authorization: Bearer mine\r\nX-Attache-Key: k\r\nCookie: a=b\r\nKeep-Alive: 5\r\n";
    let mut raw = ask(world.proxy, format!("{}early", get("/up/ws?room=1", &format!("{WEBSOCKET}{own}")))).await;
    let mut upstream = accepted(&listener).await;
    let seen = read_until(&mut upstream, "\r\n\r\n").await.to_ascii_lowercase();
    assert!(seen.starts_with("get /ws?room=1 http/1.1\r\n") && seen.contains(&token), "{seen}");
    for line in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n",
        "sec-websocket-protocol: chat\r\n",
    ] {
        assert_eq!(seen.matches(line).count(), 1, "{line:?} in {seen}");
    }
    for gone in ["x-end-user", "mine", "x-attache", "cookie", "keep-alive", "early"] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
    assert_eq!(soon(&mut upstream).await, 0, "what stands behind the head waits for the 101");
    upstream.write_all(&[GRANTED, b"hello"].concat()).await.expect("written");
    let head = raw.head().await.expect("a head");
    assert!(head.starts_with("http/1.1 101"), "{head}");
    for line in
        ["\nconnection: upgrade", "\nupgrade: websocket", "\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "\nx-request-id: "]
    {
        assert!(head.contains(line), "{line:?} in {head}");
    }
    assert!(!head.contains("set-cookie") && !head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(raw.some().await, b"hello");
    read_until(&mut upstream, "early").await;
    echo(&mut raw, &mut upstream, "one").await;
    echo(&mut raw, &mut upstream, "GET /up/other HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    // One side ends before the other.
    raw.stream.shutdown().await.expect("shut");
    assert_eq!(within("the end", upstream.read(&mut [0; 16])).await.expect("read"), 0);
    upstream.write_all(b"bye").await.expect("written");
    drop(upstream);
    assert_eq!(raw.rest().await, b"bye");
}

#[tokio::test]
async fn a_tunnels_connection_is_nobody_elses_before_or_after() {
    let (world, listener) = by_hand(KEYS).await;
    // An idle connection of this worker is there.
    let mut raw = ask(world.proxy, get("/up/a", "")).await;
    let mut idle = accepted(&listener).await;
    read_until(&mut idle, "\r\n\r\n").await;
    idle.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("written");
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
    raw.send(get("/up/ws", WEBSOCKET)).await;
    let mut upstream = accepted(&listener).await;
    read_until(&mut upstream, "\r\n\r\n").await;
    // Refused: an ordinary answer, and the connection was for this alone.
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await.expect("written");
    assert_eq!(raw.answer().await.expect("an answer").body, b"no");
    assert_eq!(within("the end", upstream.read(&mut [0; 16])).await.unwrap_or(0), 0);
    raw.send(get("/up/b", "")).await;
    assert!(read_until(&mut idle, "\r\n\r\n").await.starts_with("GET /b"), "the idle one is still good");
}

/// Taken out, the condition that the answer is a 101 would fail it: a client's next request would go into a tunnel (CVE-2026-2833).
#[tokio::test]
async fn threat_11_behind_a_refused_upgrade_the_next_request_is_a_request() {
    let (world, listener) = by_hand(KEYS).await;
    for refusal in ["200 OK", "426 Upgrade Required", "403 Forbidden"] {
        let both = format!("{}{}", get("/up/ws", WEBSOCKET), get("/up/next", "Authorization: Bearer smuggled\r\n"));
        let mut raw = ask(world.proxy, both).await;
        let mut upstream = accepted(&listener).await;
        let first = read_until(&mut upstream, "\r\n\r\n").await;
        assert!(first.starts_with("GET /ws ") && !first.contains("/next"), "{first}");
        upstream
            .write_all(format!("HTTP/1.1 {refusal}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno").as_bytes())
            .await
            .expect("written");
        let answer = raw.answer().await.expect("an answer");
        assert_eq!((answer.status.to_string(), &*answer.body), (refusal[..3].to_owned(), &b"no"[..]));
        assert!(answer.header("upgrade").is_none(), "{answer:?}");
        let mut fresh = accepted(&listener).await;
        let next = read_until(&mut fresh, "\r\n\r\n").await;
        assert!(next.starts_with("GET /next ") && !next.contains("smuggled") && !next.to_ascii_lowercase().contains("upgrade"), "{next}");
        fresh.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnext").await.expect("written");
        assert_eq!(raw.answer().await.expect("an answer").body, b"next");
    }
}

/// Taken out, the comparison of the protocol granted with the one asked for would fail it.
#[tokio::test]
async fn threat_11_a_101_that_nobody_asked_for_opens_no_tunnel() {
    let (world, listener) = by_hand(KEYS).await;
    let refused = async |asked: &str, granted: &str| {
        let mut raw = ask(world.proxy, format!("{}tunnelled", get("/up/ws", asked))).await;
        let mut upstream = accepted(&listener).await;
        read_until(&mut upstream, "\r\n\r\n").await;
        upstream.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{granted}\r\nhello").as_bytes()).await.expect("written");
        let answer: RawAnswer = raw.answer().await.expect("an answer");
        assert_eq!(answer.status, 502, "{asked:?} {granted:?}");
        assert!(String::from_utf8_lossy(&answer.body).contains("upstream-bad-response"));
        let mut rest = Vec::new();
        let _ = within("the end", upstream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    };
    let connection = "Connection: Upgrade\r\n";
    refused(WEBSOCKET, &format!("{connection}Upgrade: h2c\r\n")).await;
    refused(WEBSOCKET, &format!("{connection}Upgrade: websocket, h2c\r\n")).await;
    refused(WEBSOCKET, &format!("{connection}Upgrade: websocket\r\nUpgrade: h2c\r\n")).await;
    refused(WEBSOCKET, connection).await;
    refused(WEBSOCKET, "Upgrade: websocket\r\n").await;
    refused("", &format!("{connection}Upgrade: websocket\r\n")).await;
}

/// Taken out, the list of protocols that never pass would fail it: through such a tunnel calls would go that nobody judges.
#[tokio::test]
async fn threat_11_what_may_not_be_asked_for_goes_as_an_ordinary_request() {
    let (world, listener) = by_hand(KEYS).await;
    for lines in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        "Connection: keep-alive\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let body = match lines {
            lines if lines.contains("Length") => "body",
            lines if lines.contains("chunked") => "0\r\n\r\n",
            _ => "",
        };
        let mut raw = ask(world.proxy, format!("{}{body}", get("/up/ws", lines))).await;
        let mut upstream = accepted(&listener).await;
        let seen = read_until(&mut upstream, "\r\n\r\n").await.to_ascii_lowercase();
        assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{lines:?}: {seen}");
        upstream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await.expect("written");
        assert_eq!(raw.answer().await.expect("an answer").status, 200, "{lines:?}");
    }
    // HTTP/1.0 knows no upgrade.
    let old = format!("GET /up/ws HTTP/1.0\r\nX-End-User: {MEGAN}\r\n{WEBSOCKET}\r\n");
    let _raw = ask(world.proxy, old).await;
    let mut upstream = accepted(&listener).await;
    assert!(!read_until(&mut upstream, "\r\n\r\n").await.to_ascii_lowercase().contains("upgrade:"));
    // RFC 6455 begins by GET.
    let post = get("/up/ws", WEBSOCKET).replacen("GET ", "POST ", 1);
    let _raw = ask(world.proxy, post).await;
    let mut upstream = accepted(&listener).await;
    assert!(!read_until(&mut upstream, "\r\n\r\n").await.to_ascii_lowercase().contains("upgrade:"));
}

/// Taken out, the judging of `Origin` before the route is asked would fail it: pages may open WebSockets anywhere (no CORS stops them).
#[tokio::test]
async fn threat_25_a_web_page_opens_no_websocket() {
    let (world, listener) = by_hand(KEYS).await;
    for lines in ["Origin: https://evil.example\r\n", "Origin: http://localhost:3000\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        let mut raw = ask(world.proxy, get("/up/ws", &format!("{WEBSOCKET}{lines}"))).await;
        assert_eq!(raw.answer().await.expect("an answer").status, 403, "{lines}");
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err(), "nothing went on");
}

#[tokio::test]
async fn a_401_before_the_101_leads_to_the_one_forced_refresh() {
    let (world, listener) = by_hand(KEYS).await;
    world.clock.advance(seconds(31));
    let mut raw = ask(world.proxy, format!("{}early", get("/up/ws", WEBSOCKET))).await;
    let mut first = accepted(&listener).await;
    let old = read_until(&mut first, "\r\n\r\n").await;
    first.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await.expect("written");
    let mut second = accepted(&listener).await;
    let new = read_until(&mut second, "\r\n\r\n").await;
    let token = |seen: &str| seen.lines().find(|line| line.starts_with("authorization:")).map(str::to_owned);
    assert!(new.to_ascii_lowercase().contains("upgrade: websocket") && !new.contains("early"), "{new}");
    assert!(token(&old).is_some() && token(&old) != token(&new), "another token");
    second.write_all(GRANTED).await.expect("written");
    assert!(raw.head().await.expect("a head").starts_with("http/1.1 101"));
    read_until(&mut second, "early").await;
    echo(&mut raw, &mut second, "two").await;
    assert_eq!(world.sandbox.counters().token_posts, 1);
}

#[tokio::test]
async fn silence_cuts_no_tunnel_and_total_does() {
    let (world, listener) = by_hand("    websocket: true\n    timeout: {first_byte: 300ms, idle: 100ms, total: 1s}\n").await;
    let begun = tokio::time::Instant::now();
    let (mut raw, mut upstream) = tunnel(&world, &listener).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    echo(&mut raw, &mut upstream, "still here").await;
    assert!(raw.rest().await.is_empty());
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(within("the end", upstream.read(&mut [0; 16])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_slow_reader_of_a_tunnel_slows_the_other_side_down() {
    let (world, listener) = by_hand(KEYS).await;
    let (raw, mut upstream) = tunnel(&world, &listener).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&sent);
    let writing = tokio::spawn(async move {
        while let Ok(count) = upstream.write(&[b'x'; 64 * 1024]).await {
            counting.fetch_add(count, Ordering::SeqCst);
        }
    });
    let mut last = usize::MAX;
    until("the upstream is held back", async || {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = sent.load(Ordering::SeqCst);
        now == std::mem::replace(&mut last, now)
    })
    .await;
    assert!(sent.load(Ordering::SeqCst) < 64 << 20, "{} bytes went in", sent.load(Ordering::SeqCst));
    // A client that is gone ends the upstream's side too.
    drop(raw);
    within("the upstream notices", writing).await.expect("ended");
}

#[tokio::test]
async fn a_drain_waits_for_tunnels_as_long_as_for_calls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    for (drain, ends) in [("30s", true), ("300ms", false)] {
        let world = Plan::new().up(address, KEYS).top(&format!("shutdown: {{drain: {drain}}}\n")).start().await;
        world.connect(MEGAN).await;
        let (mut raw, mut upstream) = tunnel(&world, &listener).await;
        let stopping = tokio::spawn(world.running.stop());
        tokio::time::sleep(Duration::from_millis(250)).await;
        if ends {
            assert!(!stopping.is_finished());
            echo(&mut raw, &mut upstream, "while it drains").await;
            drop(upstream);
        }
        assert!(raw.rest().await.is_empty());
        // Both sides have ended now.
        drop(raw);
        within("the stop", stopping).await.expect("joined").expect("stopped");
    }
}

/// WebSocket over HTTP/2 is another thing (RFC 8441): here the connection offers HTTP/1.1 alone, whatever the pool has.
#[tokio::test]
async fn over_tls_an_upgrade_goes_by_http_1_also_where_calls_go_by_http_2() {
    let authority = Authority::new();
    let (chain, key) = authority.sign(names(&["localhost"]));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let origin = format!("localhost:{}", listener.local_addr().expect("an address").port());
    let route = format!("  - {{match: '/tls/{{*rest}}', provider: sandbox, upstream: 'https://{origin}/{{rest}}', websocket: true}}\n");
    let world = Plan::new().tls(authority.roots()).token_name(&origin).routes(&route).start().await;
    world.connect(MEGAN).await;
    let mut raw = ask(world.proxy, get("/tls/ws", WEBSOCKET)).await;
    let mut upstream = within("a handshake", acceptor.accept(accepted(&listener).await)).await.expect("TLS");
    assert_eq!(upstream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(within("a byte", upstream.read_u8()).await.expect("read"));
    }
    let seen = String::from_utf8_lossy(&seen).to_ascii_lowercase();
    assert!(seen.contains("authorization: bearer ") && seen.contains("upgrade: websocket"), "{seen}");
    upstream.write_all(GRANTED).await.expect("written");
    assert!(raw.head().await.expect("a head").starts_with("http/1.1 101"));
    raw.send("ping").await;
    let mut ping = [0; 4];
    within("the ping", upstream.read_exact(&mut ping)).await.expect("read");
    upstream.write_all(b"pong").await.expect("written");
    assert_eq!(raw.some().await, b"pong");
    // An end without close_notify is an end, too.
    drop(raw);
    assert_eq!(within("the end", upstream.read(&mut [0; 16])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn the_line_of_a_tunnel_comes_at_its_end_with_the_bytes_of_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let folder = tempfile::tempdir().expect("a folder");
    let address = listener.local_addr().expect("an address");
    let config = format!(
        "listen: {{proxy: '127.0.0.1:0', public: '127.0.0.1:0', admin: '127.0.0.1:0'}}\n\
         routes:\n  - {{name: ws, match: '/up/ws', as: none, upstream: 'http://{address}/ws', websocket: true}}\n"
    );
    std::fs::write(folder.path().join("routes.yaml"), config).expect("written");
    let mut attache = Process::spawn(folder.path(), &["run", "--log-format", "json"], &[("RUST_LOG", "info")]);
    let (proxy, _) = attache.ready().await;
    let mut raw = ask(proxy, get("/up/ws", WEBSOCKET)).await;
    let mut upstream = accepted(&listener).await;
    read_until(&mut upstream, "\r\n\r\n").await;
    upstream.write_all(GRANTED).await.expect("written");
    assert!(raw.head().await.expect("a head").starts_with("http/1.1 101"));
    raw.send("hello").await;
    read_until(&mut upstream, "hello").await;
    assert!(!attache.err().contains("attache::call"), "not before its end");
    upstream.write_all(b"bye").await.expect("written");
    drop(upstream);
    assert_eq!(raw.rest().await, b"bye");
    drop(raw);
    until("the line is written", async || attache.err().contains("attache::call")).await;
    let log = attache.err();
    let line = log.lines().find(|line| line.contains("attache::call")).expect("a line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let told = ["http.status", "body.bytes", "tunnel.bytes_sent", "cut", "route.name"].map(|name| line[name].to_string());
    assert_eq!(told, ["101", "3", "5", "false", "\"ws\""], "{line}");
}
