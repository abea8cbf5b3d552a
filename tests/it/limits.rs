//! `upstreams:` over sockets: the line for connections, calls in flight, circuits, and how long connections idle.

use crate::harness::*;
use crate::upstream::{Reply, Upstream};
use crate::wire::{Answer, empty, request, within};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// With one worker, whose limits these are.
async fn world(listener: &TcpListener, upstreams: &str, keys: &str) -> World {
    let address = listener.local_addr().expect("bound");
    let world = Plan::new().workers(1).top(&format!("upstreams: {{{upstreams}}}\n")).up(address, keys).start().await;
    world.connect(MEGAN).await;
    world
}

async fn bound() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("bound")
}

/// A call on a connection of its own, left running.
fn calling(world: &World, path: &'static str) -> JoinHandle<Answer> {
    let proxy = world.proxy;
    let ask = request("GET", path).header("x-end-user", MEGAN).body(empty()).expect("a request");
    tokio::spawn(async move { crate::wire::call(proxy, ask).await })
}

async fn accepted(listener: &TcpListener) -> TcpStream {
    within("a connection", listener.accept()).await.expect("accepted").0
}

async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a head", stream.read_u8()).await.expect("a byte"));
    }
    String::from_utf8(head).expect("text")
}

async fn answer(stream: &mut TcpStream, headers: &str) {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{headers}\r\nok");
    stream.write_all(answer.as_bytes()).await.expect("written");
}

fn refused(answer: &Answer) -> (u16, String, bool) {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let name = problem["type"].as_str().unwrap_or_default().trim_start_matches("urn:attache:").to_owned();
    (answer.status.as_u16(), name, !answer.header("retry-after").is_empty())
}

#[tokio::test]
async fn calls_wait_in_line_for_a_connection_and_a_full_line_is_told() {
    let listener = bound().await;
    let world = world(&listener, "max_connections: 1, max_waiting: 1, wait: 30s", "").await;
    let first = calling(&world, "/up/first");
    let mut upstream = accepted(&listener).await;
    assert!(head_of(&mut upstream).await.starts_with("GET /first "));
    // There is room for one of these two.
    let mut others: FuturesUnordered<_> = ["/up/second", "/up/third"].into_iter().map(|path| calling(&world, path)).collect();
    let over = within("one too many", others.next()).await.expect("one").expect("answered");
    assert_eq!(refused(&over), (503, "overloaded".to_owned(), true));
    answer(&mut upstream, "").await;
    assert!(head_of(&mut upstream).await.starts_with("GET /"), "on the same connection");
    answer(&mut upstream, "").await;
    assert_eq!(within("the one in line", others.next()).await.expect("one").expect("answered").status.as_u16(), 200);
    assert_eq!(within("the first", first).await.expect("answered").status.as_u16(), 200);
}

#[tokio::test]
async fn who_waits_too_long_is_told_and_a_closed_connection_makes_room() {
    let listener = bound().await;
    let world = world(&listener, "max_connections: 1, wait: 100ms", "").await;
    let first = calling(&world, "/up/first");
    let mut upstream = accepted(&listener).await;
    head_of(&mut upstream).await;
    let second = within("the wait", calling(&world, "/up/second")).await.expect("answered");
    assert_eq!(refused(&second), (503, "overloaded".to_owned(), true));
    answer(&mut upstream, "Connection: close\r\n").await;
    assert_eq!(within("the first", first).await.expect("answered").status.as_u16(), 200);
    drop(upstream);
    let third = calling(&world, "/up/third");
    let mut upstream = accepted(&listener).await;
    head_of(&mut upstream).await;
    answer(&mut upstream, "").await;
    assert_eq!(within("the third", third).await.expect("answered").status.as_u16(), 200);
}

/// Fails when calls in flight are not counted, or one that ended is counted for ever.
#[tokio::test]
async fn threat_17_calls_over_the_limit_are_shed_before_memory_grows() {
    let listener = bound().await;
    let world = world(&listener, "max_calls: 1", "").await;
    for _ in 0..3 {
        let first = calling(&world, "/up/first");
        let mut upstream = accepted(&listener).await;
        head_of(&mut upstream).await;
        let second = within("the second", calling(&world, "/up/second")).await.expect("answered");
        assert_eq!(refused(&second), (503, "overloaded".to_owned(), true));
        answer(&mut upstream, "Connection: close\r\n").await;
        assert_eq!(within("the first", first).await.expect("answered").status.as_u16(), 200);
    }
}

#[tokio::test]
async fn an_upstream_that_fails_is_left_alone_and_asked_by_one_call_before_all_come_back() {
    let listener = bound().await;
    let address = listener.local_addr().expect("bound");
    let world = world(&listener, "circuit: {failures: 3, open: 1s}", "").await;
    drop(listener);
    for _ in 0..3 {
        let failed = within("a failure", calling(&world, "/up/x")).await.expect("answered");
        assert_eq!(refused(&failed), (502, "upstream-unreachable".to_owned(), false));
    }
    let open = within("at once", calling(&world, "/up/x")).await.expect("answered");
    assert_eq!(refused(&open), (503, "circuit-open".to_owned(), true));
    assert_eq!(open.header("proxy-status"), "attache; error=destination_unavailable");
    assert_eq!(open.header("retry-after"), "1");
    // Another upstream is none of its business.
    assert_eq!(world.get_as(MEGAN, "/photos").await.status.as_u16(), 200);
    let listener = TcpListener::bind(address).await.expect("bound again");
    let probe = loop {
        let call = calling(&world, "/up/x");
        let accept = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        match accept {
            Ok(accepted) => break (call, accepted.expect("accepted").0),
            Err(_) => assert_eq!(refused(&within("at once", call).await.expect("answered")).1, "circuit-open"),
        }
    };
    let (call, mut upstream) = probe;
    let meanwhile = within("at once", calling(&world, "/up/x")).await.expect("answered");
    assert_eq!(refused(&meanwhile).1, "circuit-open", "one probe at a time");
    head_of(&mut upstream).await;
    answer(&mut upstream, "").await;
    assert_eq!(within("the probe", call).await.expect("answered").status.as_u16(), 200);
    let after = calling(&world, "/up/x");
    head_of(&mut upstream).await;
    answer(&mut upstream, "").await;
    assert_eq!(within("all of them", after).await.expect("answered").status.as_u16(), 200);
}

#[tokio::test]
async fn no_status_opens_a_circuit() {
    let upstream = Upstream::start(|_| Reply::Keep(b"HTTP/1.1 503 Nope\r\nContent-Length: 0\r\n\r\n".to_vec())).await;
    let top = "upstreams: {circuit: {failures: 2, open: 60s}}\n";
    let world = Plan::new().workers(1).top(top).up(upstream.address, "").start().await;
    world.connect(MEGAN).await;
    for _ in 0..6 {
        assert_eq!(world.get_as(MEGAN, "/up/x").await.status.as_u16(), 503);
    }
    assert_eq!(upstream.seen().len(), 6);
}

#[tokio::test]
async fn a_connection_idles_for_less_than_its_upstream_says() {
    let told = Upstream::start(|_| Reply::ok("Keep-Alive: timeout=1, max=100\r\n", "ok")).await;
    let world = Plan::new().workers(1).up(told.address, "").start().await;
    world.connect(MEGAN).await;
    for _ in 0..3 {
        let answer = world.get_as(MEGAN, "/up/x").await;
        assert_eq!((answer.status.as_u16(), &*answer.header("keep-alive")), (200, ""));
    }
    assert_eq!(told.connections(), 3, "each would have met its close");
}
