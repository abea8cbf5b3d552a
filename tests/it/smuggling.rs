//! Request smuggling (THREATS 11): whatever is sent, the upstream sees what Attaché saw, and never two requests in one.

use crate::harness::*;
use crate::upstream::{Reply, Upstream};
use crate::wire::{Connection, Raw, empty, request};
use std::time::Duration;

const HOST: &str = "Host: localhost\r\n";
const SMUGGLED: &str = "GET /any/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

async fn world() -> (World, Upstream) {
    let upstream = Upstream::plain().await;
    let route = format!("  - {{match: '/any/{{*rest}}', as: none, upstream: 'http://{}/{{rest}}'}}\n", upstream.address);
    (Plan::new().routes(&route).start().await, upstream)
}

/// Sends the bytes; the statuses that came back until the connection was closed, or until nothing more came to what is not whole.
async fn statuses(world: &World, bytes: &[u8]) -> Vec<u16> {
    let mut raw = Raw::open(world.proxy).await;
    raw.send(bytes).await;
    let mut found = Vec::new();
    // A wait that is too short shows less, never more: it fails no test.
    while let Ok(Some(answer)) = tokio::time::timeout(Duration::from_millis(300), raw.answer()).await {
        found.push(answer.status);
    }
    found
}

/// Malformed framing: a bare 400 and a close, and the upstream hears no whole request.
/// Fails with a reader that forgives; each case is one that some proxy forgave.
#[tokio::test]
async fn threat_11_malformed_framing_is_refused_and_the_connection_closed() {
    let (world, upstream) = world().await;
    let te = |coding: &str| format!("POST /any/a HTTP/1.1\r\n{HOST}Transfer-Encoding: {coding}\r\n\r\n0\r\n\r\n{SMUGGLED}");
    let cl = |lines: &str| format!("POST /any/a HTTP/1.1\r\n{HOST}{lines}\r\nhello{SMUGGLED}");
    let chunk = |body: &str| format!("POST /any/a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}");
    for (what, bytes) in [
        ("TE: chunked, identity", te("chunked, identity")),
        ("TE: identity", te("identity")),
        ("TE: xchunked", te("xchunked")),
        ("TE: gzip", te("gzip")),
        (
            "TE: chunked twice",
            format!("POST /any/a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{SMUGGLED}"),
        ),
        ("TE behind a vertical tab", te("\x0bchunked")),
        ("HTTP/1.0 with TE", format!("POST /any/a HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}")),
        ("CL: +5", cl("Content-Length: +5\r\n")),
        ("CL: -5", cl("Content-Length: -5\r\n")),
        ("CL: 0x5", cl("Content-Length: 0x5\r\n")),
        ("CL: 5,6", cl("Content-Length: 5, 6\r\n")),
        ("CL: 2^64+5", cl("Content-Length: 18446744073709551621\r\n")),
        ("CL empty", cl("Content-Length: \r\n")),
        ("two CLs", cl("Content-Length: 5\r\nContent-Length: 6\r\n")),
        ("two CLs, shorter last", cl("Content-Length: 6\r\nContent-Length: 0\r\n")),
        ("space before the colon", te("chunked").replace("Encoding:", "Encoding :")),
        ("obs-fold", cl("X-A: 1\r\n Content-Length: 5\r\n")),
        ("obs-fold in TE", te("\r\n chunked")),
        ("a line without a colon", cl("Content-Length: 5\r\nnonsense\r\n")),
        ("a header before any name", cl(": 1\r\nContent-Length: 5\r\n")),
        ("NUL in a value", cl("X-A: a\0b\r\nContent-Length: 5\r\n")),
        ("a bare CR in a value", cl("X-A: a\rContent-Length: 0\r\nContent-Length: 5\r\n")),
        ("a space in the target", format!("GET /any/a b HTTP/1.1\r\n{HOST}\r\n{SMUGGLED}")),
        ("HTTP/1.2", format!("GET /any/a HTTP/1.2\r\n{HOST}\r\n{SMUGGLED}")),
        ("HTTP/0.9", format!("GET /any/a\r\n{HOST}\r\n{SMUGGLED}")),
        ("a chunk of 2^64", chunk("10000000000000000\r\nhello\r\n0\r\n\r\n")),
        ("a chunk size of 2^64 + 5", chunk("10000000000000005\r\nhello\r\n0\r\n\r\n")),
        ("a signed chunk size", chunk("+5\r\nhello\r\n0\r\n\r\n")),
        ("0x in a chunk size", chunk("0x5\r\nhello\r\n0\r\n\r\n")),
        ("an empty chunk size", chunk("\r\nhello\r\n0\r\n\r\n")),
        ("a chunk longer than said", chunk("3\r\nhello\r\n0\r\n\r\n")),
        ("a chunk shorter than said", chunk("8\r\nhello\r\n0\r\n\r\n")),
        ("a bare LF after a chunk", chunk("5\r\nhello\n0\r\n\r\n")),
        ("a bare LF after a chunk size", chunk("5\nhello\r\n0\r\n\r\n")),
        ("a bare CR after a chunk size", chunk("5\rhello\r\n0\r\n\r\n")),
        ("a bare LF in a chunk extension", chunk("5;a\nb\r\nhello\r\n0\r\n\r\n")),
    ] {
        let before = upstream.seen().len();
        let found = statuses(&world, bytes.as_bytes()).await;
        assert!(found.len() <= 1, "{what}: {found:?}");
        assert!(found.iter().all(|status| (400..600).contains(status)), "{what}: {found:?}");
        assert_eq!(upstream.seen().len(), before, "{what}: no whole request went on");
        assert!(!upstream.bytes().contains("GET /smuggled"), "{what}");
    }
}

/// Framing that is odd and has one meaning: one well-formed request goes on, or none.
/// Fails when the client's framing headers are passed on beside our own.
#[tokio::test]
async fn threat_11_what_has_one_meaning_is_one_request() {
    let (world, upstream) = world().await;
    let length = SMUGGLED.len();
    for (what, bytes) in [
        (
            "CL before TE",
            format!("POST /any/a HTTP/1.1\r\n{HOST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
        ),
        (
            "TE before CL",
            format!("POST /any/a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n{SMUGGLED}"),
        ),
        ("a body that looks like a request", format!("POST /any/a HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n{SMUGGLED}")),
        ("a GET with such a body", format!("GET /any/a HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n{SMUGGLED}")),
        (
            "the same length twice",
            format!("POST /any/a HTTP/1.1\r\n{HOST}Content-Length: {length}\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"),
        ),
        (
            "such a chunk",
            format!("POST /any/a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{length:x};ext=\"a\"\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        ),
        (
            "Connection names the length",
            format!("POST /any/a HTTP/1.1\r\n{HOST}Connection: Content-Length\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"),
        ),
        (
            "Connection names the coding",
            format!(
                "POST /any/a HTTP/1.1\r\n{HOST}Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"
            ),
        ),
        (
            "TE in capitals",
            format!("POST /any/a HTTP/1.1\r\n{HOST}TRANSFER-ENCODING: Chunked\r\n\r\n{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        ),
        ("bare LF between headers", format!("POST /any/a HTTP/1.1\nHost: localhost\nContent-Length: {length}\n\n{SMUGGLED}")),
        (
            "a trailer that would be framing",
            format!(
                "POST /any/a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 0\r\nX-End-User: bob\r\n\r\n"
            ),
        ),
    ] {
        let before = upstream.seen().len();
        let found = statuses(&world, bytes.as_bytes()).await;
        let seen = upstream.seen();
        assert!(seen.len() <= before + 1, "{what}: two requests out of one: {found:?}");
        assert!(!seen.iter().any(|seen| seen.target == "/smuggled"), "{what}");
        if let Some(seen) = seen.get(before) {
            let framings = seen.all("content-length").len() + seen.all("transfer-encoding").len();
            assert!(seen.target == "/a" && framings <= 1, "{what}: {seen:?}");
        }
    }
}

/// Fails when `Upgrade` is passed on where the route has no `websocket: true`.
#[tokio::test]
async fn threat_11_an_upgrade_opens_no_tunnel() {
    // An upstream that takes an upgrade nobody offered must not turn the connection into a tunnel.
    let upstream =
        Upstream::start(|_| Reply::Keep("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".into()))
            .await;
    let route = format!("  - {{match: '/any/{{*rest}}', as: none, upstream: 'http://{}/{{rest}}'}}\n", upstream.address);
    let world = Plan::new().routes(&route).start().await;
    let upgrade =
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let found = statuses(&world, format!("GET /any/ws HTTP/1.1\r\n{HOST}{upgrade}\r\n{SMUGGLED}").as_bytes()).await;
    assert!(!found.contains(&101) && found.iter().all(|status| *status == 502), "{found:?}");
    for seen in upstream.seen() {
        assert!(seen.all("upgrade").is_empty() && seen.nth == 0, "each on its own connection, and none asks for an upgrade: {seen:?}");
    }
}

/// What an upstream sends beyond its answer is no answer to the next call.
/// Fails when a connection with unread bytes on it is pooled.
#[tokio::test]
async fn threat_11_bytes_after_an_answer_are_nobodys_answer() {
    for surplus in ["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "\r\npoison", "poison"] {
        let upstream = Upstream::start(move |seen| match &*seen.target {
            "/first" => Reply::Keep(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{surplus}").into()),
            _ => Reply::ok("", "mine"),
        })
        .await;
        let world = Plan::new().up(upstream.address, "").start().await;
        world.connect(MEGAN).await;
        // One client connection, so that both calls meet the same worker and its pool.
        let mut connection = Connection::open(world.proxy).await;
        let get = |path: &str| request("GET", path).header("x-end-user", MEGAN).body(empty()).expect("a request");
        for _ in 0..10 {
            assert_eq!(connection.call(get("/up/first")).await.is_ok().text(), "ok");
            let next = connection.call(get("/up/second")).await;
            assert!(next.status == 502 || next.text() == "mine", "{surplus:?}: {} {}", next.status, next.text());
            assert!(!next.text().contains("poison"));
        }
    }
}

#[tokio::test]
async fn an_answer_with_two_framings_is_refused_or_read_by_the_coding_alone() {
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let upstream = Upstream::start(move |_| Reply::Close(reply.into())).await;
        let world = Plan::new().up(upstream.address, "").start().await;
        world.connect(MEGAN).await;
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!("GET /up/x HTTP/1.1\r\n{HOST}X-End-User: {MEGAN}\r\n\r\n")).await;
        let answer = raw.answer().await.expect("an answer");
        let both = answer.header("content-length").is_some() && answer.header("transfer-encoding").is_some();
        assert!(!both && (answer.status == 502 || answer.body == b"hello"), "{reply}: {answer:?}");
    }
}

#[tokio::test]
async fn a_header_block_without_end_is_refused() {
    let (world, upstream) = world().await;
    let many = format!("GET /any/a HTTP/1.1\r\n{HOST}{}\r\n", "X-A: 1\r\n".repeat(5_000));
    let long = format!("GET /any/a HTTP/1.1\r\n{HOST}X-A: {}\r\n\r\n", "a".repeat(1 << 20));
    let target = format!("GET /any/{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(1 << 20));
    for bytes in [many, long, target] {
        let found = statuses(&world, bytes.as_bytes()).await;
        assert!(found.is_empty() || [400, 414, 431].contains(&found[0]), "{found:?}");
    }
    assert_eq!(upstream.seen().len(), 0);
    // Everyone else is served.
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("GET /any/a HTTP/1.1\r\n{HOST}\r\n")).await;
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
}

/// hyper's reader of trailers takes a bare LF for the end of a line, and then the next request for trailers. Fails without the close behind a body
/// that ended in trailers: the answer to the third request would be taken for the second's.
#[tokio::test]
async fn threat_11_what_a_bare_lf_behind_the_last_chunk_swallows_is_not_answered_by_another() {
    for last in ["0\r\n\n", "0\r\nX-Sum: 1\n\r\n"] {
        let (world, upstream) = world().await;
        let bytes = format!(
            "POST /any/x HTTP/1.1\r\n{HOST}Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{last}GET /any/y HTTP/1.1\r\n{HOST}\r\nGET /any/z HTTP/1.1\r\n{HOST}\r\n"
        );
        let mut raw = Raw::open(world.proxy).await;
        raw.send(&bytes).await;
        let first = raw.answer().await.expect("an answer");
        assert_eq!((first.status, first.header("connection")), (200, Some("close")), "{last:?}");
        assert!(raw.answer().await.is_none(), "{last:?}: nothing else is answered");
        assert!(upstream.seen().iter().all(|seen| seen.target == "/x"), "{last:?}");
    }
}
