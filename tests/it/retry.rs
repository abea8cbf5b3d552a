//! `retry:` over sockets: what is sent again, what is not, and what the upstream sees of it.

use crate::harness::*;
use crate::upstream::{Reply, Seen, Upstream};
use crate::wire::{call, empty, request, whole};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;

/// Answers the first `count` requests by `first`, then with a short 200.
async fn failing(count: usize, first: &'static str) -> Upstream {
    let seen = AtomicUsize::new(0);
    Upstream::start(move |_: &Seen| match seen.fetch_add(1, Ordering::SeqCst) < count {
        true if first.is_empty() => Reply::Close(Vec::new()),
        true => Reply::Keep(first.into()),
        false => Reply::ok("", "ok"),
    })
    .await
}

async fn world(upstream: &Upstream, keys: &str) -> World {
    let world = Plan::new().up(upstream.address, keys).start().await;
    world.connect(MEGAN).await;
    world
}

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nRetry-After: 0\r\n\r\nbusy";
const LATER: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\nRetry-After: 3600\r\n\r\nlater";
const MANY: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n";
const MOVED: &str = "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn a_get_is_sent_again_until_it_is_answered_and_carries_its_token_each_time() {
    let upstream = failing(2, BUSY).await;
    let world = world(&upstream, "    retry: {attempts: 3}\n").await;
    let answer = world.get_as(MEGAN, "/up/x").await;
    assert_eq!((answer.status.as_u16(), &*answer.text()), (200, "ok"));
    let seen = upstream.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.header("authorization").starts_with("Bearer ") && seen.target == "/x"));
    assert_eq!(upstream.connections(), 1, "the refused attempts' connection serves the next");
}

#[tokio::test]
async fn without_attempts_nothing_is_sent_again() {
    let upstream = failing(1, BUSY).await;
    let world = world(&upstream, "").await;
    assert_eq!(world.get_as(MEGAN, "/up/x").await.status.as_u16(), 503);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn the_last_answer_passes_when_attempts_are_used_up_or_the_wait_is_too_long() {
    let upstream = failing(9, BUSY).await;
    let other = failing(9, LATER).await;
    let one = world(&upstream, "    retry: {attempts: 2}\n").await;
    let answer = one.get_as(MEGAN, "/up/x").await;
    assert_eq!((answer.status.as_u16(), &*answer.text()), (503, "busy"));
    assert_eq!(upstream.seen().len(), 3);
    let two = world(&other, "    retry: {attempts: 2}\n").await;
    let answer = two.get_as(MEGAN, "/up/x").await;
    assert_eq!((answer.status.as_u16(), &*answer.header("retry-after"), &*answer.text()), (503, "3600", "later"));
    assert_eq!(other.seen().len(), 1);
}

/// Fails when a POST is repeated like a GET, or a body of which only a part was kept is sent again.
#[tokio::test]
async fn threat_19_what_could_be_done_twice_is_not_sent_again() {
    for (method, headers, status, sent) in
        [("POST", "", BUSY, 1), ("PATCH", "", BUSY, 1), ("POST", "idempotency-key", BUSY, 2), ("POST", "", MANY, 2), ("PUT", "", BUSY, 2)]
    {
        let upstream = failing(1, status).await;
        let world = world(&upstream, "    retry: {attempts: 1, max_body: 10}\n").await;
        let ask = |body: &'static str| {
            let mut ask = request(method, "/up/x").header("x-end-user", MEGAN);
            if !headers.is_empty() {
                ask = ask.header(headers, "k");
            }
            ask.body(whole(body)).expect("a request")
        };
        call(world.proxy, ask("hello")).await;
        let seen = upstream.seen();
        assert_eq!(seen.len(), sent, "{method} {headers} {status}");
        assert!(seen.iter().all(|seen| seen.body == b"hello"), "whole each time");
    }
    let upstream = failing(1, BUSY).await;
    let world = world(&upstream, "    retry: {attempts: 1, max_body: 10}\n").await;
    let long = request("PUT", "/up/x").header("x-end-user", MEGAN).body(whole("longer than ten")).expect("a request");
    assert_eq!(call(world.proxy, long).await.status.as_u16(), 503);
    assert_eq!(upstream.seen().len(), 1, "a body over `max_body` is not kept");
}

#[tokio::test]
async fn a_broken_connection_is_a_reason_only_where_the_route_says_so() {
    for (on, sent) in [("[503]", 1), ("[reset]", 2)] {
        let upstream = failing(1, "").await;
        let world = world(&upstream, &format!("    retry: {{attempts: 1, on: {on}}}\n")).await;
        let answer = world.get_as(MEGAN, "/up/x").await;
        assert_eq!(answer.status.as_u16(), if sent == 2 { 200 } else { 502 }, "{on}");
        assert_eq!(upstream.seen().len(), sent, "{on}");
    }
}

/// Fails when an answer that names another place is taken for one to try again at.
#[tokio::test]
async fn threat_09_a_retry_follows_no_redirect() {
    let upstream = failing(1, MOVED).await;
    let world = world(&upstream, "    retry: {attempts: 3}\n").await;
    let answer = world.get_as(MEGAN, "/up/x").await;
    assert_eq!((answer.status.as_u16(), &*answer.header("location")), (302, "/elsewhere"));
    assert_eq!(upstream.seen().len(), 1);
}

/// Over HTTP/2, where a client that is gone is known at once; over HTTP/1.1 it looks like one that has shut its side and waits.
#[tokio::test]
async fn a_client_that_is_gone_ends_the_attempts() {
    const SOON: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 2\r\n\r\n";
    let upstream = failing(9, SOON).await;
    let world = world(&upstream, "    retry: {attempts: 9}\n").await;
    let ask = |path: &str| request("GET", path).header("x-end-user", MEGAN).body(empty()).expect("a request");
    let stream = TokioIo::new(TcpStream::connect(world.proxy).await.expect("connected"));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let url = http::Uri::builder().scheme("http").authority("localhost").path_and_query("/up/x").build().expect("a URL");
    let mut first = ask("/up/x");
    *first.uri_mut() = url;
    first.headers_mut().remove("host");
    let answer = tokio::spawn(async move { sender.send_request(first).await.map(drop) });
    crate::wire::until("the first attempt", async || upstream.seen().len() == 1).await;
    answer.abort();
    connection.abort();
    // Another call's two attempts take as long as the one that must not come.
    let _ = tokio::time::timeout(Duration::from_millis(3500), call(world.proxy, ask("/up/y"))).await;
    assert_eq!(upstream.seen().iter().filter(|seen| seen.target == "/x").count(), 1);
}
