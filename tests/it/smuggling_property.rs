//! Request smuggling (THREATS 11) as a property: no bytes make two upstream requests of one.
//!
//! Each request that Attaché makes has its own `X-Request-Id` and a `Via`. What an upstream reads as a request without these, or with those of
//! another, was smuggled inside one.

use crate::harness::*;
use crate::upstream::Upstream;
use crate::wire::Raw;
use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::HashSet;
use std::time::Duration;

/// What heads are put together from. `CASE` becomes the number of the case.
const FIRST: &[&str] = &[
    "POST /any/CASE HTTP/1.1\r\n",
    "GET /any/CASE HTTP/1.1\r\n",
    "DELETE /any/CASE HTTP/1.1\r\n",
    "HEAD /any/CASE HTTP/1.1\r\n",
    "POST /any/CASE HTTP/1.0\r\n",
    "POST /any/CASE%0d%0aHost:%20x HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "POST http://localhost/any/CASE HTTP/1.1\r\n",
    "\r\nPOST /any/CASE HTTP/1.1\r\n",
    "POST /any/CASE HTTP/1.1\n",
];

const LINES: &[&str] = &[
    "Host: localhost\r\n",
    "Host: localhost\r\n",
    "Host: localhost\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 81\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length : 5\r\n",
    "Content-Length:\t5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: identity, chunked\r\n",
    "Transfer-Encoding:\x0bchunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "transfer-encoding: Chunked\r\n",
    "Transfer_Encoding: chunked\r\n",
    "X: a\r\n Content-Length: 5\r\n",
    "X: a\rContent-Length: 5\r\n",
    "X: a\nContent-Length: 5\r\n",
    "Connection: Content-Length, Transfer-Encoding\r\n",
    "Connection: keep-alive, X-Request-Id, Via\r\n",
    "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "TE: trailers\r\n",
    "Trailer: Content-Length\r\n",
];

const BODIES: &[&str] = &[
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
    "5\nhello\n0\n\n",
    "0\r\n\r\n",
    "0\r\nContent-Length: 5\r\nHost: x\r\n\r\n",
    "0\n\n",
    "ffffffffffffffff1\r\nhello",
    "+5\r\nhello\r\n0\r\n\r\n",
    "51\r\nGET /any/smuggled HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: smuggled\r\nX: 0123456\r\n\r\n\r\n0\r\n\r\n",
    "GET /any/smuggled HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: smuggled\r\nX: 0123456\r\n\r\n",
    "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "\r\n",
    "\n",
    "",
];

/// One to three requests, each of a line, some headers and some bodies.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let request = (
        prop::sample::select(FIRST),
        prop::collection::vec(prop::sample::select(LINES), 0..5),
        prop::bool::weighted(0.9),
        prop::collection::vec(prop::sample::select(BODIES), 0..4),
    );
    prop::collection::vec(request, 1..4).prop_map(|requests| {
        let mut bytes = Vec::new();
        for (first, lines, has_host, bodies) in requests {
            bytes.extend_from_slice(first.as_bytes());
            if has_host && !lines.contains(&"Host: localhost\r\n") {
                bytes.extend_from_slice(b"Host: localhost\r\n");
            }
            lines.iter().for_each(|line| bytes.extend_from_slice(line.as_bytes()));
            bytes.extend_from_slice(b"\r\n");
            bodies.iter().for_each(|body| bytes.extend_from_slice(body.as_bytes()));
        }
        bytes
    })
}

/// Fails when hyper's reading of a head is passed on instead of a head of our own: without `headers::outgoing` dropping `Transfer-Encoding` and
/// the length beside it, or with a second reader of the client's bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_11_no_bytes_make_two_upstream_requests_of_one() {
    let upstream = Upstream::plain().await;
    let route = format!("  - {{match: '/any/{{*rest}}', as: none, upstream: 'http://{}/{{rest}}'}}\n", upstream.address);
    let world = Plan::new().routes(&route).start().await;
    let mut runner = TestRunner::deterministic();
    for round in 0..20 {
        let cases: Vec<_> = (0..50)
            .map(|number| {
                let bytes = streams().new_tree(&mut runner).expect("generated").current();
                String::from_utf8(bytes).expect("all of it is text").replace("CASE", &format!("{round}-{number}"))
            })
            .collect();
        join_all(cases.iter().map(async |bytes| {
            let mut raw = Raw::open(world.proxy).await;
            raw.send(bytes).await;
            // One that is not whole is waited for no longer; a wait that is too short shows less, never more.
            let _ = tokio::time::timeout(Duration::from_millis(150), raw.rest()).await;
        }))
        .await;
    }
    let seen = upstream.seen();
    assert!(seen.len() > 200, "the cases are no longer any good: {}", seen.len());
    let mut ids = HashSet::new();
    for seen in &seen {
        assert_eq!(seen.all("via"), ["1.1 attache"], "{seen:?}");
        assert!(seen.all("content-length").len() + seen.all("transfer-encoding").len() <= 1, "two framings: {seen:?}");
        // A well-formed id of the client's own is kept.
        let id = seen.header("x-request-id");
        assert!(!id.is_empty() && (id == "smuggled" || ids.insert(id.to_owned())), "two requests with one id: {seen:?}");
        assert_eq!(seen.all("host").len(), 1, "{seen:?}");
    }
}
