//! HTTP/2 from client apps: what passes as over HTTP/1.1, and what floods it.

use crate::harness::*;
use crate::upstream::{Reply, Upstream};
use crate::wire::{Answer, Body, Raw, empty, until, whole, within};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A well-behaved client, and the end of its connection.
async fn client(address: SocketAddr) -> (SendRequest<Body>, tokio::task::JoinHandle<Result<(), hyper::Error>>) {
    let stream = TcpStream::connect(address).await.expect("connected");
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    (sender, tokio::spawn(connection))
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> http::request::Builder {
    with_headers(Request::builder().method(method).uri(format!("http://localhost:7070{path}")).version(Version::HTTP_2), headers)
}

async fn send(sender: &SendRequest<Body>, request: Request<Body>) -> Response<Incoming> {
    within("a call", sender.clone().send_request(request)).await.expect("an answer")
}

async fn call(sender: &SendRequest<Body>, request: Request<Body>) -> Answer {
    Answer::read(send(sender, request).await).await.expect("whole")
}

async fn world(keys: &str) -> (World, Upstream, String) {
    let upstream = Upstream::plain().await;
    let world = Plan::new().up(upstream.address, keys).start().await;
    let token = world.connect(MEGAN).await.access_token.expose().to_owned();
    (world, upstream, token)
}

#[tokio::test]
async fn ordinary_calls_pass_as_over_http_1() {
    let (world, upstream, token) = world("    cookies: pass\n").await;
    let (sender, _) = client(world.proxy).await;
    let headers = [("x-end-user", MEGAN), ("cookie", "a=b"), ("cookie", "c=d"), ("te", "trailers"), ("x-own", "1")];
    let posted = call(&sender, request("POST", "/up/a%2Fb//;x?q=%20", &headers).body(whole(vec![b'x'; 300_000])).expect("a request")).await;
    assert_eq!(posted.is_ok().text(), "ok");
    assert!(posted.headers.get("connection").is_none() && !posted.header("x-request-id").is_empty());
    let seen = upstream.last();
    assert_eq!((&*seen.method, &*seen.target, seen.body.len()), ("POST", "/a%2Fb//;x?q=%20", 300_000));
    assert_eq!((seen.header("authorization"), seen.header("host")), (&*format!("Bearer {token}"), &*upstream.address.to_string()));
    assert_eq!((seen.header("cookie"), seen.header("x-end-user"), seen.header("x-own")), ("a=b; c=d", "", "1"));
    let answer = call(&sender, request("HEAD", "/up/x", &[("x-end-user", MEGAN)]).body(empty()).expect("a request")).await;
    assert!(answer.is_ok().body.is_empty());
    call(&sender, request("GET", "/none", &[]).body(empty()).expect("a request")).await.is_problem("no-route", 404, "http_request_denied");
    // HTTP/1.0 and 1.1 on the same socket, as ever.
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("GET /up/y HTTP/1.0\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
    world.get("/up/z").await.is_ok();
}

/// Fails when only the `Host` line is judged, which HTTP/2 requests do not have.
#[tokio::test]
async fn threat_25_an_authority_is_judged_as_a_host() {
    let (world, upstream, _) = world("").await;
    let (sender, _) = client(world.proxy).await;
    let ask = async |uri: &str, headers: &[(&str, &str)]| {
        let request = with_headers(Request::get(uri).version(Version::HTTP_2).header("x-end-user", MEGAN), headers);
        call(&sender, request.body(empty()).expect("a request")).await
    };
    ask("http://127.0.0.1:1/up/x", &[]).await.is_ok();
    ask("https://localhost/up/x", &[("host", "localhost")]).await.is_ok();
    let before = upstream.seen().len();
    for uri in ["http://evil.example/up/x", "https://www.googleapis.com/up/x", "http://localhost.evil.example/up/x"] {
        ask(uri, &[]).await.is_problem("caller-refused", 403, "http_request_denied");
    }
    ask("http://localhost/up/x", &[("origin", "http://localhost:3000")]).await.is_problem("caller-refused", 403, "http_request_denied");
    for (uri, headers) in [("http://localhost/up/x", &[("host", "evil.example")][..]), ("http://evil@localhost/up/x", &[])] {
        ask(uri, headers).await.is_problem("bad-request", 400, "http_request_error");
    }
    ask("http://localhost/up/../x", &[]).await.is_problem("bad-path", 400, "http_request_error");
    assert_eq!(upstream.seen().len(), before);
    let connect = Request::builder().method("CONNECT").uri("localhost:443").version(Version::HTTP_2).body(empty()).expect("a request");
    call(&sender, connect).await.is_problem("connect-refused", 405, "http_request_denied");
}

/// Taken out, the token of a call looked up by anything but that call's own head would fail it.
#[tokio::test]
async fn threat_10_many_users_at_once_on_one_connection_each_have_their_own_token() {
    let upstream = Upstream::start(|seen| Reply::ok("", seen.header("authorization"))).await;
    let world = Plan::new().up(upstream.address, "").start().await;
    let mut users = Vec::new();
    for number in 0..20 {
        let user = format!("user{number}@example.com");
        let token = world.connect(&user).await.access_token.expose().to_owned();
        users.push((user, token));
    }
    let clients = join_all((0..2).map(|_| client(world.proxy))).await;
    let calls = (0..1000).map(|number| {
        let (user, token) = &users[number % users.len()];
        let sender = &clients[number % clients.len()].0;
        async move {
            let request = request("GET", &format!("/up/{number}"), &[("x-end-user", user)]);
            assert_eq!(call(sender, request.body(empty()).expect("a request")).await.is_ok().text(), format!("Bearer {token}"));
        }
    });
    join_all(calls).await;
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let upstream = Upstream::start(|_| {
        Reply::Keep(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 7\r\n\r\n".to_vec(),
        )
    })
    .await;
    let world = Plan::new().up(upstream.address, "").start().await;
    world.connect(MEGAN).await;
    let (sender, _) = client(world.proxy).await;
    let trailers: HeaderMap = [("x-sum".parse().expect("a name"), "9".parse().expect("a value"))].into_iter().collect();
    let frames = [Ok(Frame::data(Bytes::from_static(b"hi"))), Ok::<_, std::io::Error>(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
    let headers = [("x-end-user", MEGAN), ("te", "trailers"), ("trailer", "x-sum")];
    let answer = send(&sender, request("POST", "/up/x", &headers).body(body).expect("a request")).await;
    let collected = answer.into_body().collect().await.expect("whole");
    assert_eq!(collected.trailers().and_then(|trailers| trailers.get("grpc-status")).expect("passed"), "7");
    assert_eq!(collected.to_bytes(), "ok");
    assert!(upstream.bytes().contains("x-sum: 9"), "{}", upstream.bytes());
}

#[tokio::test]
async fn a_drain_says_goaway_and_finishes_the_calls_under_way() {
    let (world, upstream, _) = world("").await;
    let (sender, ended) = client(world.proxy).await;
    let (_idle, idle_ended) = client(world.proxy).await;
    // A call that lasts until its body is through.
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let rest = async move {
        let _ = released.await;
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"rest")))
    };
    let first = futures_util::future::ready(Ok(Frame::data(Bytes::from_static(b"first "))));
    let body = StreamBody::new(futures_util::StreamExt::chain(futures_util::stream::once(first), futures_util::stream::once(rest)));
    let slow = request("POST", "/up/slow", &[("x-end-user", MEGAN)]).body(body.boxed()).expect("a request");
    let calling = tokio::spawn(async move { call(&sender, slow).await });
    until("the call is upstream", async || upstream.bytes().contains("first ")).await;
    let World { running, .. } = world;
    let stopping = tokio::spawn(running.stop());
    within("the idle one is told", idle_ended).await.expect("no panic").expect("in good order");
    release.send(()).expect("waited for");
    let answer = calling.await.expect("no panic");
    assert!(answer.is_ok().headers.get("connection").is_none());
    within("the busy one is told", ended).await.expect("no panic").expect("in good order");
    within("the end", stopping).await.expect("no panic").expect("stopped");
}

/// A client that writes its frames by hand.
struct Frames {
    stream: TcpStream,
    next: u32,
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A string as HPACK has it without Huffman (RFC 7541 §5.2).
fn string(bytes: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        short @ 0..127 => bytes.push(short as u8),
        mut rest => {
            bytes.push(127);
            rest -= 127;
            while rest >= 128 {
                bytes.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            bytes.push(rest as u8);
        }
    }
    bytes.extend(text);
}

fn header(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.push(0);
    string(bytes, name.as_bytes());
    string(bytes, value);
}

/// The block of an ordinary call of Megan's.
fn block(path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", path), ("x-end-user", MEGAN)] {
        header(&mut bytes, name, value.as_bytes());
    }
    bytes
}

impl Frames {
    async fn open(address: SocketAddr) -> Frames {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("written");
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.expect("written");
        Frames { stream, next: 1 }
    }

    fn stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// Writes while the other side lets it: false when that has closed, or takes no more while nothing is read.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        matches!(tokio::time::timeout(seconds(2), self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// Reads to the end: the code of the GOAWAY, if one came.
    async fn end(&mut self) -> Option<u32> {
        let mut code = None;
        loop {
            let mut head = [0; 9];
            let read = within("the end of the connection", self.stream.read_exact(&mut head)).await;
            if read.is_err() {
                return code;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            if self.stream.read_exact(&mut payload).await.is_err() {
                return code;
            }
            if head[3] == GOAWAY {
                code = Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]));
            }
        }
    }

    /// Reads until a reset of a stream: the stream and the code.
    async fn reset(&mut self) -> (u32, u32) {
        loop {
            let mut head = [0; 9];
            within("a frame", self.stream.read_exact(&mut head)).await.expect("a frame");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.expect("a frame");
            if head[3] == RST_STREAM {
                let code = u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]);
                return (u32::from_be_bytes([head[5], head[6], head[7], head[8]]), code);
            }
        }
    }
}

const ENHANCE_YOUR_CALM: u32 = 11;
const REFUSED_STREAM: u32 = 7;

/// Others are served while and after somebody floods.
async fn others_are_served(world: &World) {
    world.get("/up/other").await.is_ok();
    let (sender, _) = client(world.proxy).await;
    call(&sender, request("GET", "/up/other", &[("x-end-user", MEGAN)]).body(empty()).expect("a request")).await.is_ok();
}

async fn hanging() -> (World, Upstream) {
    let upstream = Upstream::start(|seen| if seen.target == "/hang" { Reply::Hang } else { Reply::ok("", "ok") }).await;
    let world = Plan::new().up(upstream.address, "").start().await;
    world.connect(MEGAN).await;
    (world, upstream)
}

/// CVE-2023-44487. Taken out, `max_pending_accept_reset_streams` lets this run on for ever.
#[tokio::test]
async fn threat_16_rapid_resets_end_the_connection() {
    let (world, _upstream) = hanging().await;
    let mut bad = Frames::open(world.proxy).await;
    let mut burst = Vec::new();
    for _ in 0..2000 {
        let stream = bad.stream();
        burst.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block("/up/hang")));
        burst.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    bad.write(&burst).await;
    assert_eq!(bad.end().await, Some(ENHANCE_YOUR_CALM));
    others_are_served(&world).await;
}

/// CVE-2025-8671: the client makes the server do the resetting. Taken out, `max_local_error_reset_streams` lets this run on.
#[tokio::test]
async fn threat_16_provoked_resets_end_the_connection() {
    let (world, _upstream) = hanging().await;
    let mut bad = Frames::open(world.proxy).await;
    for _ in 0..2000 {
        let stream = bad.stream();
        let mut both = frame(HEADERS, END_STREAM | END_HEADERS, stream, &block("/up/hang"));
        // An increment of nothing is a fault of the stream (RFC 9113 §6.9).
        both.extend(frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes()));
        if !bad.write(&both).await {
            break;
        }
    }
    assert!(matches!(bad.end().await, Some(code) if code != 0));
    others_are_served(&world).await;
}

/// CVE-2024-27316. Fails without `h2`'s limit on CONTINUATION frames, which `max_header_list_size` sets.
#[tokio::test]
async fn threat_16_a_header_block_without_end_ends_the_connection() {
    let (world, upstream) = hanging().await;
    let mut bad = Frames::open(world.proxy).await;
    let stream = bad.stream();
    bad.write(&frame(HEADERS, END_STREAM, stream, &block("/up/x"))).await;
    let mut sent = 0;
    while sent < 64 << 20 && bad.write(&frame(CONTINUATION, 0, stream, &[])).await {
        let mut more = Vec::new();
        header(&mut more, "x-more", &[b'a'; 8000]);
        if !bad.write(&frame(CONTINUATION, 0, stream, &more)).await {
            break;
        }
        sent += more.len();
    }
    assert!(sent < 4 << 20, "it was read on and on: {sent}");
    assert!(!upstream.seen().iter().any(|seen| seen.target == "/x"));
    others_are_served(&world).await;
}

/// A few bytes that name one large header over and over (an HPACK bomb). Taken out, `max_header_list_size` lets each block grow to megabytes.
#[tokio::test]
async fn threat_16_a_header_list_that_unpacks_large_is_refused() {
    let (world, upstream) = hanging().await;
    let mut bad = Frames::open(world.proxy).await;
    let stream = bad.stream();
    let mut bomb = block("/up/bomb");
    bomb.push(0x40);
    string(&mut bomb, b"x-bomb");
    string(&mut bomb, &[b'a'; 4000]);
    bomb.extend([0x80 | 62; 8000]);
    bad.write(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &bomb)).await;
    // Answered 431 or reset, and the connection may go on: what counts is that it went no further.
    others_are_served(&world).await;
    let fine = bad.stream();
    bad.write(&frame(PING, 0, 0, &[7; 8])).await;
    let _ = fine;
    assert!(!upstream.seen().iter().any(|seen| seen.target == "/bomb"));
}

/// Fails when answers to frames are queued without the socket's back-pressure.
#[tokio::test]
async fn threat_16_floods_of_pings_and_settings_are_held_back_by_their_own_answers() {
    let (world, _upstream) = hanging().await;
    for (kind, payload) in [(PING, &[1; 8][..]), (SETTINGS, &[0, 4, 0, 1, 0, 0][..])] {
        let mut bad = Frames::open(world.proxy).await;
        let burst = frame(kind, 0, 0, payload).repeat(4096);
        // Nothing is read: at last the server writes no more, and so reads no more.
        let mut bursts = 0;
        while bursts < 2000 && bad.write(&burst).await {
            bursts += 1;
            if bursts % 50 == 0 {
                others_are_served(&world).await;
            }
        }
        assert!(bursts < 2000, "frame {kind}: answers gathered in memory without end");
        others_are_served(&world).await;
    }
}

/// Fails without `max_concurrent_streams`.
#[tokio::test]
async fn threat_16_more_streams_than_allowed_are_refused_and_others_served() {
    let (world, upstream) = hanging().await;
    let mut bad = Frames::open(world.proxy).await;
    let mut all = Vec::new();
    for _ in 0..300 {
        let stream = bad.stream();
        all.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block("/up/hang")));
    }
    bad.write(&all).await;
    assert_eq!(bad.reset().await, (2 * 256 + 1, REFUSED_STREAM));
    others_are_served(&world).await;
    assert!(upstream.seen().iter().filter(|seen| seen.target == "/hang").count() <= 256);
}
