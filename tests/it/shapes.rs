//! Shapes of messages that are rare: half-closed clients, HTTP/1.0 on either side, lengths that lie, ends that are none.

use crate::harness::*;
use crate::streaming::{accepted, ask, by_hand, read_until};
use crate::tls::{Authority, names};
use crate::upstream::{Reply, Upstream};
use crate::wire::{Raw, within};
use rustls::ServerConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[tokio::test]
async fn a_client_that_shuts_its_side_gets_the_whole_answer() {
    let (world, listener) = by_hand("").await;
    for (method, body) in [("GET", ""), ("POST", "hello")] {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!("{method} /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n{length}\r\n{body}")).await;
        raw.stream.shutdown().await.expect("shut");
        let mut upstream = accepted(&listener).await;
        read_until(&mut upstream, if body.is_empty() { "\r\n\r\n" } else { body }).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        upstream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhello").await.expect("written");
        assert!(raw.head().await.expect("a head").starts_with("http/1.1 200"));
        tokio::time::sleep(Duration::from_millis(150)).await;
        upstream.write_all(b"world").await.expect("written");
        assert_eq!(raw.rest().await, b"helloworld", "and the connection ends");
    }
}

#[tokio::test]
async fn pipelined_calls_of_a_client_that_shut_its_side_are_all_answered() {
    let upstream = Upstream::plain().await;
    let world = Plan::new().up(upstream.address, "").start().await;
    world.connect(MEGAN).await;
    let mut raw = Raw::open(world.proxy).await;
    let one = format!("GET /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n");
    raw.send(one.repeat(3)).await;
    raw.stream.shutdown().await.expect("shut");
    for _ in 0..3 {
        assert_eq!(raw.answer().await.expect("an answer").status, 200);
    }
    assert!(raw.rest().await.is_empty());
    // An upload that breaks off is no half-close.
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("POST /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\nContent-Length: 10\r\n\r\nhello")).await;
    raw.stream.shutdown().await.expect("shut");
    assert_ne!(raw.answer().await.map(|answer| answer.status), Some(200));
    assert_eq!(upstream.seen().len(), 3);
}

/// One that is gone is known by its connection's reset, at the second write of its answer.
#[tokio::test]
async fn a_client_that_is_gone_ends_the_upstreams_work_when_the_answer_begins() {
    let (world, listener) = by_hand("").await;
    let raw = ask(world.proxy, "GET /up/x").await;
    let mut upstream = accepted(&listener).await;
    read_until(&mut upstream, "\r\n\r\n").await;
    drop(raw);
    upstream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("written");
    within("the upstream notices", async {
        while upstream.write_all(b"5\r\nhello\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_chunks() {
    let upstream = Upstream::start(|_| {
        Reply::Keep(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n".to_vec())
    })
    .await;
    let world = Plan::new().up(upstream.address, "").start().await;
    world.connect(MEGAN).await;
    for keep in ["", "Connection: keep-alive\r\n"] {
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!("GET /up/x HTTP/1.0\r\nX-End-User: {MEGAN}\r\n{keep}\r\n")).await;
        let head = raw.head().await.expect("a head");
        assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
        assert_eq!(raw.rest().await, b"hello", "the end of the connection is the end of the body");
    }
    assert!(upstream.bytes().contains("GET /x HTTP/1.1\r\n"));
}

/// Statuses that have no body, whatever their head says, and bytes behind them that are nobody's answer.
#[tokio::test]
async fn a_length_on_an_answer_without_a_body_is_not_waited_for() {
    for (status, surplus) in [("204 No Content", ""), ("304 Not Modified", ""), ("204 No Content", "hello"), ("304 Not Modified", "hello")]
    {
        let reply = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\nETag: \"e\"\r\n\r\n{surplus}");
        let upstream = Upstream::start(move |seen| match &*seen.target {
            "/none" => Reply::Keep(reply.clone().into_bytes()),
            _ => Reply::ok("", "mine"),
        })
        .await;
        let world = Plan::new().up(upstream.address, "").start().await;
        world.connect(MEGAN).await;
        let mut raw = Raw::open(world.proxy).await;
        for _ in 0..3 {
            raw.send(format!("GET /up/none HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
            let answer = raw.answer().await.expect("an answer");
            assert_eq!(answer.status.to_string(), status[..3]);
            assert!(answer.status == 304 || answer.header("content-length").is_none(), "RFC 9110 §8.6: {answer:?}");
            raw.send(format!("GET /up/next HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
            let next = raw.answer().await.expect("an answer");
            assert!(next.status == 502 || next.body == b"mine", "{status} {surplus}: {next:?}");
        }
    }
}

#[tokio::test]
async fn a_head_tells_any_length_and_has_no_body() {
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked", "X-None: 1"] {
        let reply = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
        let upstream = Upstream::start(move |seen| match &*seen.method {
            "HEAD" => Reply::Keep(reply.clone().into_bytes()),
            _ => Reply::ok("", "mine"),
        })
        .await;
        let world = Plan::new().up(upstream.address, "").start().await;
        world.connect(MEGAN).await;
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!("HEAD /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
        let answer = raw.answer_to_head().await.expect("an answer");
        assert_eq!(answer.header("content-length"), framing.strip_prefix("Content-Length: "), "{answer:?}");
        raw.send(format!("GET /up/y HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
        assert_eq!(raw.answer().await.expect("an answer").body, b"mine", "{framing}");
    }
}

/// Over TLS the end of a connection says that the body is whole only with a `close_notify` (RFC 9112 §9.8): taken out, the telling of the two
/// apart would fail it, for anybody on the way can cut a connection.
/// Fails when an end without close_notify is taken for a close.
#[tokio::test]
async fn threat_20_a_body_until_the_close_is_whole_over_tls_only_with_a_close_notify() {
    let authority = Authority::new();
    let (chain, key) = authority.sign(names(&["localhost"]));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let origin = format!("localhost:{}", listener.local_addr().expect("an address").port());
    let route = format!("  - {{match: '/tls/{{*rest}}', provider: sandbox, upstream: 'https://{origin}/{{rest}}'}}\n");
    let world = Plan::new().tls(authority.roots()).token_name(&origin).routes(&route).start().await;
    world.connect(MEGAN).await;
    for whole in [true, false] {
        let mut raw = ask(world.proxy, "GET /tls/x").await;
        let mut upstream = within("a handshake", acceptor.accept(accepted(&listener).await)).await.expect("TLS");
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            seen.push(within("a byte", upstream.read_u8()).await.expect("read"));
        }
        upstream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello").await.expect("written");
        upstream.flush().await.expect("flushed");
        match whole {
            true => upstream.shutdown().await.expect("shut"),
            false => upstream.into_inner().0.shutdown().await.expect("shut"),
        }
        assert!(raw.head().await.expect("a head").contains("transfer-encoding: chunked"));
        let body = raw.until_last_chunk().await;
        assert_eq!(body.ends_with(b"0\r\n\r\n"), whole, "{:?}", String::from_utf8_lossy(&body));
    }
}

/// Taken out, the judging of trailers by what passes as a header would fail it: who joins them with the headers would read a name or a token
/// that nobody checked.
#[tokio::test]
async fn threat_01_what_passes_as_no_header_passes_as_no_trailer() {
    let (world, listener) = by_hand("    attach: {header: X-Api-Token}\n    headers: {remove: [X-Debug], set: {X-Tenant: a}}\n").await;
    let never = [
        "X-End-User",
        "X_End_User",
        "X-Attache-Key",
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Host",
        "Content-Length",
        "X-Api-Token",
        "X_Api_Token",
        "X-Debug",
        "X-Tenant",
    ];
    let lines: String = never.iter().map(|name| format!("{name}: 7\r\n")).collect();
    for own in ["", "X-Sum: 1\r\n"] {
        let announced = format!("Trailer: {}, X-Sum\r\n", never.join(", "));
        let mut raw = Raw::open(world.proxy).await;
        let head = format!("POST /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\nTE: trailers\r\n{announced}");
        raw.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{lines}{own}\r\n")).await;
        let mut upstream = accepted(&listener).await;
        let seen = read_until(&mut upstream, "\r\n0\r\n").await;
        let mut seen = seen.split_once("hello").expect("a body").1.to_ascii_lowercase();
        while !seen.ends_with("\r\n\r\n") {
            seen.push_str(&read_until(&mut upstream, "\n").await.to_ascii_lowercase());
        }
        assert_eq!(seen, format!("\r\n0\r\n{}\r\n", own.to_ascii_lowercase()));
        let answered = "Set-Cookie: a=b\r\nConnection: close\r\nProxy-Status: attache; error=x\r\n";
        let announced = "Trailer: Set-Cookie, Connection, Proxy-Status, X-Sum\r\n";
        let answer = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n{announced}\r\n2\r\nok\r\n0\r\n{answered}{own}\r\n"
        );
        upstream.write_all(answer.as_bytes()).await.expect("written");
        raw.head().await.expect("a head");
        let mut body = String::new();
        while !body.ends_with("\r\n\r\n") {
            body.push_str(&String::from_utf8_lossy(&raw.some().await).to_ascii_lowercase());
        }
        assert_eq!(body, format!("2\r\nok\r\n0\r\n{}\r\n", own.to_ascii_lowercase()));
    }
}

/// Taken out, the refusal of codings besides `chunked` would fail it: the body would go on still coded, and say nothing of it.
#[tokio::test]
async fn threat_11_a_body_of_another_coding_is_refused_and_its_connection_closed() {
    let upstream = Upstream::plain().await;
    let world = Plan::new().up(upstream.address, "").start().await;
    world.connect(MEGAN).await;
    for lines in ["gzip, chunked", "chunked, chunked", "chunked\r\nTransfer-Encoding: chunked", "gzip\r\nTransfer-Encoding: chunked"] {
        let next = format!("GET /up/next HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n");
        let head = format!("POST /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\nTransfer-Encoding: {lines}\r\n\r\n");
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!("{head}5\r\nhello\r\n0\r\n\r\n{next}")).await;
        assert_eq!(raw.answer().await.map(|answer| answer.status), Some(400), "{lines}");
        assert!(raw.rest().await.is_empty(), "{lines}");
    }
    assert!(upstream.seen().is_empty());
}

/// Fails when the client's lines of framing are copied instead of written anew.
#[tokio::test]
async fn threat_11_two_equal_lengths_go_on_as_one() {
    let upstream = Upstream::plain().await;
    let world = Plan::new().up(upstream.address, "").start().await;
    world.connect(MEGAN).await;
    let mut raw = ask(world.proxy, "GET /up/first").await;
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
    raw.send(format!(
        "POST /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"
    ))
    .await;
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
    assert_eq!(upstream.last().header("content-length"), "5");
}
