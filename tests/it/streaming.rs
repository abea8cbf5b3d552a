//! Bodies under way: large, slow, endless, cut, and on connections that went stale.

use crate::harness::*;
use crate::upstream::{Reply, Upstream};
use crate::wire::{self, Connection, Raw, empty, until, within};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const MIB: usize = 1 << 20;

/// An upstream of which the test itself plays every byte.
pub async fn by_hand(keys: &str) -> (World, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let world = Plan::new().up(listener.local_addr().expect("an address"), keys).start().await;
    world.connect(MEGAN).await;
    (world, listener)
}

pub async fn accepted(listener: &TcpListener) -> TcpStream {
    within("a connection", listener.accept()).await.expect("accepted").0
}

/// Reads until the bytes hold `text`.
pub async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut found = Vec::new();
    within("the upstream's reading", async {
        while !String::from_utf8_lossy(&found).contains(text) {
            let mut part = [0; 4096];
            let count = stream.read(&mut part).await.expect("read");
            assert!(count > 0, "the connection ended before {text:?}: {:?}", String::from_utf8_lossy(&found));
            found.extend_from_slice(&part[..count]);
        }
    })
    .await;
    String::from_utf8_lossy(&found).into_owned()
}

pub async fn ask(proxy: SocketAddr, lines: &str) -> Raw {
    let mut raw = Raw::open(proxy).await;
    raw.send(format!("{lines} HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
    raw
}

#[tokio::test]
async fn twenty_mebibytes_come_down_whole() {
    let world = World::connected().await;
    let mut connection = Connection::open(world.proxy).await;
    let request = wire::request("GET", &format!("/api/bytes/{}", 20 * MIB)).header("x-end-user", MEGAN).body(empty()).expect("a request");
    let response = connection.send(request).await.expect("an answer");
    assert_eq!(response.headers()["content-length"], (20 * MIB).to_string());
    let mut body = response.into_body();
    let mut at = 0;
    while let Some(frame) = within("a part", body.frame()).await {
        let data = frame.expect("whole").into_data().expect("data");
        assert!(data.len() <= MIB, "in parts: {}", data.len());
        for (offset, byte) in data.iter().enumerate().step_by(509) {
            assert_eq!(usize::from(*byte), (at + offset) % 65_536 % 251);
        }
        at += data.len();
    }
    assert_eq!(at, 20 * MIB);
}

#[tokio::test]
async fn twenty_mebibytes_go_up_whole() {
    let world = World::connected().await;
    let part = Bytes::from(vec![b'x'; 64 * 1024]);
    let parts = futures_util::stream::iter((0..320).map(move |_| Ok(Frame::data(part.clone()))));
    let answer = world.call("POST", "/api/sink", &[("x-end-user", MEGAN)], StreamBody::new(parts).boxed()).await;
    assert_eq!(answer.is_ok().json()["bytes"], 20 * MIB);
}

#[tokio::test]
async fn parts_of_an_upload_go_on_as_they_come() {
    let (world, listener) = by_hand("").await;
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("POST /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"))
        .await;
    let mut upstream = accepted(&listener).await;
    read_until(&mut upstream, "first").await;
    raw.send("6\r\nsecond\r\n").await;
    read_until(&mut upstream, "second").await;
    raw.send("0\r\n\r\n").await;
    read_until(&mut upstream, "0\r\n\r\n").await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("written");
    assert_eq!(raw.answer().await.expect("an answer").body, b"ok");
}

#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    let (world, listener) = by_hand("").await;
    let mut raw = ask(world.proxy, "GET /up/events").await;
    let mut upstream = accepted(&listener).await;
    read_until(&mut upstream, "\r\n\r\n").await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("written");
    assert!(raw.head().await.expect("the head comes before any event").contains("text/event-stream"));
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        upstream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await.expect("written");
        // The next is sent only once this one has arrived.
        let mut text = String::new();
        while !text.contains(event) {
            let some = raw.some().await;
            assert!(!some.is_empty(), "ended before {event:?}");
            text.push_str(&String::from_utf8_lossy(&some));
        }
    }
    upstream.write_all(b"0\r\n\r\n").await.expect("written");
    assert!(String::from_utf8_lossy(&raw.some().await).ends_with("0\r\n\r\n"));
}

/// Fails when an error in the upstream's body ends ours as if it were whole.
#[tokio::test]
async fn threat_20_an_answer_cut_in_mid_body_never_looks_whole() {
    let world = World::connected().await;
    let mut raw = ask(world.proxy, "GET /api/cut?after=5000").await;
    let head = raw.head().await.expect("a head");
    assert!(head.contains("content-length: 1005000"), "{head}");
    let body = raw.rest().await;
    assert!(body.len() <= 5000, "{}", body.len());

    let mut raw = ask(world.proxy, "GET /api/cut?after=5000&chunked=1").await;
    let head = raw.head().await.expect("a head");
    assert!(head.contains("chunked"), "{head}");
    let body = raw.rest().await;
    assert!(!body.ends_with(b"0\r\n\r\n"), "no last chunk: the answer was not whole");

    let world = World::connected().await;
    let request = wire::request("GET", "/api/cut?after=100").header("x-end-user", MEGAN).body(empty()).expect("a request");
    let mut connection = Connection::open(world.proxy).await;
    let response = connection.send(request).await.expect("a head");
    assert!(within("the body", response.into_body().collect()).await.is_err(), "an ordinary client sees an error");
}

#[tokio::test]
async fn an_upload_that_breaks_off_breaks_off_upstream_too() {
    let (world, listener) = by_hand("").await;
    for framing in ["Content-Length: 100\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!("POST /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n{framing}")).await;
        let mut upstream = accepted(&listener).await;
        read_until(&mut upstream, "hello").await;
        drop(raw);
        let mut rest = Vec::new();
        // An error (a reset) is a break as good as an early end.
        let _ = within("the end", upstream.read_to_end(&mut rest)).await;
        assert!(!String::from_utf8_lossy(&rest).ends_with("0\r\n\r\n"), "no end that looks like one");
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_upstreams_work() {
    let (world, listener) = by_hand("").await;
    let mut raw = ask(world.proxy, "GET /up/endless").await;
    let mut upstream = accepted(&listener).await;
    read_until(&mut upstream, "\r\n\r\n").await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("written");
    raw.head().await.expect("a head");
    drop(raw);
    within("the upstream notices", async {
        let chunk = [b"ffff\r\n".to_vec(), vec![b'x'; 0xffff], b"\r\n".to_vec()].concat();
        while upstream.write_all(&chunk).await.is_ok() {}
    })
    .await;
}

#[tokio::test]
async fn a_slow_client_slows_the_upstream_down() {
    let (world, listener) = by_hand("").await;
    let mut raw = ask(world.proxy, "GET /up/endless").await;
    let mut upstream = accepted(&listener).await;
    read_until(&mut upstream, "\r\n\r\n").await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await.expect("written");
    raw.head().await.expect("a head");
    // Nobody reads: what goes in is bounded by the sockets' buffers, and not by the answer's length.
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
    assert!(sent.load(Ordering::SeqCst) < 64 * MIB, "{} bytes went in", sent.load(Ordering::SeqCst));
    writing.abort();
}

#[tokio::test]
async fn an_upstream_that_falls_silent_in_mid_body_is_cut() {
    let (world, listener) = by_hand("    timeout: {idle: 200ms}\n").await;
    let mut raw = ask(world.proxy, "GET /up/x").await;
    let mut upstream = accepted(&listener).await;
    read_until(&mut upstream, "\r\n\r\n").await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await.expect("written");
    assert!(raw.head().await.is_some());
    assert_eq!(raw.rest().await, b"hello");
}

#[tokio::test]
async fn an_upload_that_moves_is_not_taken_for_a_silent_upstream() {
    let (world, listener) = by_hand("    timeout: {connect: 100ms, first_byte: 400ms}\n").await;
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("POST /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\nContent-Length: 10\r\n\r\n")).await;
    let mut upstream = accepted(&listener).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        raw.send("x").await;
    }
    read_until(&mut upstream, "xxxxxxxxxx").await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("written");
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
}

/// A GET with a body of unknown length is rare (searches send it), and once went up without it.
#[tokio::test]
async fn a_get_keeps_its_chunked_body() {
    let (world, listener) = by_hand("").await;
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!(
        "GET /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    ))
    .await;
    let mut upstream = accepted(&listener).await;
    let seen = read_until(&mut upstream, "0\r\n\r\n").await.to_ascii_lowercase();
    assert!(seen.contains("transfer-encoding: chunked") && seen.contains("5\r\nhello"), "{seen}");
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("written");
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
}

/// The connect's limit once came on top, however quick the connect was: this call then had an hour to wait.
#[tokio::test]
async fn the_wait_for_the_first_byte_does_not_begin_with_the_connects_limit() {
    let (world, listener) = by_hand("    timeout: {connect: 1h, first_byte: 100ms}\n").await;
    let mut raw = ask(world.proxy, "GET /up/x").await;
    let mut upstream = accepted(&listener).await;
    read_until(&mut upstream, "\r\n\r\n").await;
    assert_eq!(raw.answer().await.expect("an answer").status, 504);
}

#[tokio::test]
async fn an_answer_before_the_bodys_end_comes_through_and_its_connection_is_not_used_again() {
    let (world, listener) = by_hand("").await;
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("POST /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\nContent-Length: 1000\r\n\r\nhello")).await;
    let mut upstream = accepted(&listener).await;
    read_until(&mut upstream, "hello").await;
    upstream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch").await.expect("written");
    let answer = raw.answer().await.expect("an answer");
    assert_eq!((answer.status, &*answer.body), (413, &b"much"[..]));
    let mut next = ask(world.proxy, "GET /up/y").await;
    let mut fresh = accepted(&listener).await;
    assert!(read_until(&mut fresh, "\r\n\r\n").await.starts_with("GET /y"));
    fresh.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("written");
    assert_eq!(next.answer().await.expect("an answer").status, 200);
}

/// Fails when a repeat needs no more than a short body, sent or not.
#[tokio::test]
async fn threat_19_a_call_whose_body_is_still_under_way_is_not_repeated() {
    let (world, listener) = by_hand("").await;
    world.clock.advance(seconds(31));
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("POST /up/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"))
        .await;
    let mut upstream = accepted(&listener).await;
    read_until(&mut upstream, "hello").await;
    upstream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nstale").await.expect("written");
    let answer = raw.answer().await.expect("an answer");
    assert_eq!((answer.status, &*answer.body), (401, &b"stale"[..]));
    assert_eq!(world.sandbox.counters().token_posts, 0);
}

// --- stale connections ------------------------------------------------------------------------------------------------------------------

/// On one client connection, so that all calls meet the same worker and its pool.
async fn calls(world: &World, method: &str, count: usize) -> Vec<u16> {
    let mut connection = Connection::open(world.proxy).await;
    let mut found = Vec::new();
    for _ in 0..count {
        let request = wire::request(method, "/up/x").header("x-end-user", MEGAN).body(empty()).expect("a request");
        found.push(connection.call(request).await.status.as_u16());
    }
    found
}

#[tokio::test]
async fn an_upstream_that_closes_after_each_answer_serves_every_call() {
    let upstream = Upstream::start(|_| Reply::Close("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into())).await;
    let world = Plan::new().up(upstream.address, "").start().await;
    world.connect(MEGAN).await;
    assert_eq!(calls(&world, "GET", 30).await, [200; 30]);
}

#[tokio::test]
async fn a_connection_found_closed_under_a_get_is_replaced_without_a_word() {
    // The second request of each connection is met by a close.
    let upstream = Upstream::start(|seen| if seen.nth == 0 { Reply::ok("", "ok") } else { Reply::Close(Vec::new()) }).await;
    let world = Plan::new().up(upstream.address, "").start().await;
    world.connect(MEGAN).await;
    assert_eq!(calls(&world, "GET", 10).await, [200; 10]);
    assert_eq!(calls(&world, "DELETE", 4).await, [200; 4], "repeating an idempotent call is safe");
}

#[tokio::test]
async fn a_connection_reset_under_a_get_is_replaced_without_a_word() {
    // What a server does that closes an idle connection just as a request comes in: the unread bytes make it a reset.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let world = Plan::new().up(listener.local_addr().expect("an address"), "").start().await;
    world.connect(MEGAN).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                read_until(&mut stream, "\r\n\r\n").await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("written");
                let _ = stream.peek(&mut [0; 1]).await;
                // Dropped with unread bytes.
            });
        }
    });
    assert_eq!(calls(&world, "GET", 10).await, [200; 10]);
}

/// Fails when a stale connection is retried whatever the method.
#[tokio::test]
async fn threat_19_a_post_on_a_connection_found_closed_is_not_repeated() {
    let upstream = Upstream::start(|seen| if seen.nth == 0 { Reply::ok("", "ok") } else { Reply::Close(Vec::new()) }).await;
    let world = Plan::new().up(upstream.address, "").start().await;
    world.connect(MEGAN).await;
    let statuses = calls(&world, "POST", 6).await;
    assert_eq!(upstream.seen().len(), 6, "each was sent once: {statuses:?}");
    assert_eq!(statuses, [200, 502, 200, 502, 200, 502]);
}

#[tokio::test]
async fn connections_to_an_upstream_are_used_again() {
    let upstream = Upstream::plain().await;
    let world = Plan::new().up(upstream.address, "").start().await;
    world.connect(MEGAN).await;
    assert_eq!(calls(&world, "GET", 50).await, [200; 50]);
    assert_eq!(upstream.connections(), 1);
}
