//! `Expect: 100-continue` end to end (RFC 9110 §10.1.1): who asks for a body is the upstream.

use crate::harness::*;
use crate::streaming::{accepted, by_hand, read_until};
use crate::wire::{Raw, within};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const LENGTH: &str = "Content-Length: 5\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// Sends a head with the expectation; the upstream's connection once it has the head.
async fn expecting(world: &World, listener: &TcpListener, framing: &str) -> (Raw, TcpStream, String) {
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("POST /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\nExpect: 100-Continue\r\n{framing}\r\n")).await;
    let mut upstream = accepted(listener).await;
    let seen = read_until(&mut upstream, "\r\n\r\n").await;
    (raw, upstream, seen.to_ascii_lowercase())
}

/// That nothing comes for a short while.
async fn is_silent(stream: &mut TcpStream) {
    let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut [0; 64])).await;
    assert!(read.is_err(), "{read:?}");
}

async fn is_asked(raw: &mut Raw) {
    assert!(raw.head().await.expect("an interim answer").starts_with("http/1.1 100"));
}

async fn answers(upstream: &mut TcpStream, status: &str) {
    upstream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nbody").as_bytes()).await.expect("written");
}

#[tokio::test]
async fn the_body_is_asked_for_when_the_upstream_asks() {
    let (world, listener) = by_hand("").await;
    for (framing, body, sent) in [(LENGTH, "hello", "hello"), (CHUNKED, "5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n")] {
        let (mut raw, mut upstream, seen) = expecting(&world, &listener, framing).await;
        assert_eq!(seen.matches("expect: 100-continue\r\n").count(), 1, "{seen}");
        assert!(seen.contains(&framing.to_ascii_lowercase()) && !seen.contains("hello"), "{seen}");
        is_silent(&mut raw.stream).await;
        upstream.write_all(CONTINUE).await.expect("written");
        is_asked(&mut raw).await;
        is_silent(&mut upstream).await;
        raw.send(body).await;
        assert_eq!(read_until(&mut upstream, sent).await, sent);
        upstream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await.expect("written");
        let answer = raw.answer().await.expect("an answer");
        assert_eq!((answer.status, &*answer.body), (201, &b"ok"[..]));
        assert!(answer.header("connection").is_none(), "{answer:?}");
        drop(upstream);
        // The client's connection is good for another call, its expectation met.
        raw.send(format!("GET /up/next HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\nConnection: close\r\n\r\n")).await;
        let mut next = accepted(&listener).await;
        assert!(!read_until(&mut next, "\r\n\r\n").await.to_ascii_lowercase().contains("expect"));
        next.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await.expect("written");
        assert_eq!(raw.answer().await.expect("an answer").status, 200);
    }
}

/// Taken out, the closing of a connection whose body nobody asked for would fail it: the client may send it or not, and what comes next would be
/// read as one or the other (THREATS 11: an early answer with an unread body).
#[tokio::test]
async fn threat_11_an_upstream_that_answers_at_once_asks_for_nothing() {
    let (world, listener) = by_hand("").await;
    for framing in [LENGTH, CHUNKED] {
        for status in ["413 Content Too Large", "200 OK", "417 Expectation Failed"] {
            let (mut raw, mut upstream, _) = expecting(&world, &listener, framing).await;
            answers(&mut upstream, status).await;
            let answer = raw.answer().await.expect("an answer");
            assert_eq!((answer.status.to_string(), &*answer.body), (status[..3].to_owned(), &b"body"[..]));
            assert_eq!(answer.header("connection"), Some("close"));
            raw.send(format!("GET /up/smuggled HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
            assert!(raw.rest().await.is_empty());
            let mut rest = Vec::new();
            let _ = within("the end", upstream.read_to_end(&mut rest)).await;
            assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
        }
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err(), "nothing else went on");
}

#[tokio::test]
async fn a_401_leads_to_the_one_forced_refresh_and_the_body_goes_up_once() {
    let (world, listener) = by_hand("").await;
    world.clock.advance(seconds(31));
    let (mut raw, mut first, old) = expecting(&world, &listener, LENGTH).await;
    answers(&mut first, "401 Unauthorized").await;
    let mut second = accepted(&listener).await;
    let new = read_until(&mut second, "\r\n\r\n").await.to_ascii_lowercase();
    let token = |seen: &str| seen.lines().find(|line| line.starts_with("authorization:")).map(str::to_owned);
    assert!(token(&old).is_some() && token(&old) != token(&new) && new.contains("expect: 100-continue"), "{new}");
    is_silent(&mut raw.stream).await;
    second.write_all(CONTINUE).await.expect("written");
    is_asked(&mut raw).await;
    raw.send("hello").await;
    read_until(&mut second, "hello").await;
    answers(&mut second, "200 OK").await;
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
    let mut rest = Vec::new();
    let _ = within("the end", first.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "the first saw no body: {:?}", String::from_utf8_lossy(&rest));
}

/// Where no newer token can be had, the 401 is the answer, and whole.
#[tokio::test]
async fn a_401_that_no_refresh_mends_passes_whole() {
    let (world, listener) = by_hand("").await;
    let (mut raw, mut upstream, _) = expecting(&world, &listener, LENGTH).await;
    upstream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 8\r\n\r\nhalf").await.expect("written");
    let head = raw.head().await.expect("a head");
    assert!(head.starts_with("http/1.1 401") && head.contains("connection: close"), "{head}");
    is_silent(&mut upstream).await;
    upstream.write_all(b"half").await.expect("written");
    assert_eq!(raw.rest().await, b"halfhalf");
    assert_eq!(world.sandbox.counters().token_posts, 0);
}

#[tokio::test]
async fn an_upstream_that_knows_no_expectation_gets_the_body_after_a_second() {
    let (world, listener) = by_hand("").await;
    let begun = tokio::time::Instant::now();
    let (mut raw, mut upstream, _) = expecting(&world, &listener, LENGTH).await;
    is_asked(&mut raw).await;
    assert!(begun.elapsed() >= Duration::from_millis(950), "{:?}", begun.elapsed());
    raw.send("hello").await;
    read_until(&mut upstream, "hello").await;
    answers(&mut upstream, "200 OK").await;
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_wait_is_served_too() {
    let (world, listener) = by_hand("").await;
    let (mut raw, mut upstream, _) = expecting(&world, &listener, LENGTH).await;
    raw.send("hello").await;
    is_silent(&mut upstream).await;
    upstream.write_all(CONTINUE).await.expect("written");
    read_until(&mut upstream, "hello").await;
    answers(&mut upstream, "200 OK").await;
    let first = raw.answer().await.expect("an answer");
    let last = if first.status == 100 { raw.answer().await.expect("an answer") } else { first };
    assert_eq!(last.status, 200);
}

#[tokio::test]
async fn other_interim_answers_neither_ask_nor_answer() {
    let (world, listener) = by_hand("").await;
    let interim = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
    let (mut raw, mut upstream, _) = expecting(&world, &listener, LENGTH).await;
    upstream.write_all(interim).await.expect("written");
    is_silent(&mut raw.stream).await;
    upstream.write_all(CONTINUE).await.expect("written");
    is_asked(&mut raw).await;
    raw.send("hello").await;
    read_until(&mut upstream, "hello").await;
    upstream.write_all(interim).await.expect("written");
    answers(&mut upstream, "200 OK").await;
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn http_1_0_has_no_expectations() {
    let (world, listener) = by_hand("").await;
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("POST /up/x HTTP/1.0\r\nX-End-User: {MEGAN}\r\nExpect: 100-continue\r\n{LENGTH}\r\nhello")).await;
    let mut upstream = accepted(&listener).await;
    assert!(!read_until(&mut upstream, "hello").await.to_ascii_lowercase().contains("expect"));
    answers(&mut upstream, "200 OK").await;
    assert_eq!(raw.answer().await.expect("an answer").status, 200, "and no 100 before it");
}

/// What Attaché refuses itself asks for nothing.
#[tokio::test]
async fn a_refused_call_is_not_asked_for_its_body() {
    let (world, _listener) = by_hand("    max_body: 4\n").await;
    for (path, user, status) in [("/none", MEGAN, 404), ("/up/x", "nobody@example.com", 401), ("/up/x", MEGAN, 413)] {
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nX-End-User: {user}\r\nExpect: 100-continue\r\n{LENGTH}\r\n")).await;
        assert_eq!(raw.answer().await.expect("an answer").status, status);
        assert!(raw.rest().await.is_empty(), "and the connection closes");
    }
}
