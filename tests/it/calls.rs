//! Ordinary calls, and every error of Attaché's own.

use crate::harness::*;
use crate::upstream::{Reply, Upstream};
use crate::wire::{self, Connection, Raw, empty, until, whole, within};
use attache::base::ids::ConnectionKey;
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LOCAL: &str = "Host: localhost:7070\r\nX-End-User: megan@personalemail.com\r\n";

#[tokio::test]
async fn she_lists_her_photos_and_fetches_one_in_full_size() {
    let world = World::connected().await;
    let list = world.get("/photos").await;
    let items = list.is_ok().json()["items"].as_array().expect("a list").clone();
    assert_eq!(items.len(), 12);
    let id = items[0]["id"].as_str().expect("an id");
    let photo = world.get(&format!("/photos/{id}")).await;
    assert_eq!(photo.is_ok().header("content-type"), "image/jpeg");
    assert_eq!(photo.header("content-length"), photo.body.len().to_string());
    assert_eq!((&photo.body[..2], &photo.body[photo.body.len() - 2..]), (&[0xff, 0xd8][..], &[0xff, 0xd9][..]));
    let comment = format!("user={MEGAN} photo={id}");
    assert!(photo.body.windows(comment.len()).any(|part| part == comment.as_bytes()), "the bytes are hers");
}

#[tokio::test]
async fn who_is_not_connected_is_told_how_to_connect() {
    let port = free_port();
    let listen = format!("  proxy: 127.0.0.1:0\n  public: 127.0.0.1:0\n  admin: 127.0.0.1:{port}\n");
    let world = Plan::new().listen(&listen).start().await;
    let answer = world.call("GET", "/photos", &[("x-end-user", ALEX), ("x-request-id", "call-1")], empty()).await;
    answer.is_problem("not-connected", 401, "http_request_denied");
    let body = answer.json();
    let members: Vec<_> = body.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["type", "title", "status", "detail", "instance", "connect"]);
    assert_eq!(body["instance"], "call-1");
    assert_eq!(
        body["connect"],
        json!({
            "method": "POST",
            "url": format!("http://127.0.0.1:{port}/v1/connect-sessions"),
            "body": {"end_user": ALEX, "providers": ["sandbox"]},
        })
    );
    assert!(!body["detail"].as_str().expect("a text").contains(ALEX), "no user's name in words that may be shown to another");
    assert_eq!(world.sandbox.counters().api_calls, 0);
}

/// A connect link without the account would make a connection under another label, and the call would stay refused.
#[tokio::test]
async fn the_way_to_connect_names_the_account_that_was_asked_for() {
    let world = World::connected().await;
    let answer = world.call("GET", "/photos", &[("x-end-user", MEGAN), ("x-end-user-account", "work")], empty()).await;
    answer.is_problem("not-connected", 401, "http_request_denied");
    assert_eq!(answer.json()["connect"]["body"], json!({"end_user": MEGAN, "providers": ["sandbox"], "account": "work"}));
}

#[tokio::test]
async fn accounts_of_one_user_are_kept_apart() {
    let world = World::connected().await;
    let grant = world.sandbox.issue_grant("megan-at-work", &["profile"]).expect("a client");
    world.import(&json!({"provider": "sandbox", "end_user": MEGAN, "account": "work", "access_token": grant.access_token.expose()})).await;
    let work = world.call("GET", "/api/me", &[("x-end-user", MEGAN), ("x-end-user-account", "work")], empty()).await;
    assert_eq!(work.is_ok().json()["user"], "megan-at-work");
    assert_eq!(world.get("/api/me").await.is_ok().json()["user"], MEGAN);
    assert!(world.running.records.connection(&ConnectionKey::new("sandbox", MEGAN, "work")).await.expect("read").is_some());
}

#[tokio::test]
async fn a_route_as_nobody_carries_no_token_and_needs_no_user() {
    let upstream = Upstream::plain().await;
    let route = format!("  - {{match: GET /open, as: none, upstream: \"http://{}/open\"}}\n", upstream.address);
    let world = Plan::new().routes(&route).start().await;
    world.call("GET", "/open", &[("authorization", "Bearer client-made-up")], empty()).await.is_ok();
    assert_eq!(upstream.last().all("authorization"), Vec::<&str>::new());
}

// --- errors -------------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn without_a_name_there_is_no_call() {
    let world = World::connected().await;
    world.call("GET", "/photos", &[], empty()).await.is_problem("end-user-missing", 400, "http_request_denied");
    assert_eq!(world.sandbox.counters().api_calls, 0);
}

#[tokio::test]
async fn a_default_user_stands_in_for_a_missing_name() {
    let world = Plan::new().top(&format!("end_user: {{default: {MEGAN}}}\n")).start().await;
    world.connect(MEGAN).await;
    let answer = world.call("GET", "/api/me", &[], empty()).await;
    assert_eq!(answer.is_ok().json()["user"], MEGAN);
}

#[tokio::test]
async fn an_unknown_path_has_no_route() {
    let world = World::connected().await;
    world.get("/nowhere").await.is_problem("no-route", 404, "http_request_denied");
    world.get("/").await.is_problem("no-route", 404, "http_request_denied");
    world.get("/photos/").await.is_problem("no-route", 404, "http_request_denied");
}

#[tokio::test]
async fn a_known_path_with_another_method_says_which_it_takes() {
    let world = World::connected().await;
    let answer = world.call("DELETE", "/photos", &[("x-end-user", MEGAN)], empty()).await;
    answer.is_problem("method-not-allowed", 405, "http_request_denied");
    let allow = answer.header("allow");
    assert!(allow.split(", ").any(|method| method == "GET") && !allow.contains("DELETE"), "{allow}");
}

#[tokio::test]
async fn connect_is_refused_with_advice() {
    let world = World::connected().await;
    let mut raw = Raw::open(world.proxy).await;
    raw.send("CONNECT www.googleapis.com:443 HTTP/1.1\r\nHost: www.googleapis.com:443\r\n\r\n").await;
    let answer = raw.answer().await.expect("an answer");
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("proxy-status"), Some("attache; error=http_request_denied"));
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(body["type"], "urn:attache:connect-refused");
    assert!(body["detail"].as_str().expect("a text").contains("http://localhost"), "{body}");
    assert!(answer.header("allow").is_some());
}

#[tokio::test]
async fn a_body_over_the_routes_limit_is_refused_whether_its_length_is_told_or_not() {
    let upstream = Upstream::plain().await;
    let world = Plan::new().up(upstream.address, "    max_body: 1KiB\n").start().await;
    world.connect(MEGAN).await;
    let user = [("x-end-user", MEGAN)];
    world.call("POST", "/up/", &user, whole(vec![b'x'; 1024])).await.is_ok();
    let told = world.call("POST", "/up/", &user, whole(vec![b'x'; 1025])).await;
    told.is_problem("body-too-large", 413, "http_request_denied");
    assert!(told.json()["detail"].as_str().expect("a text").contains("1024"));
    let parts = futures_util::stream::iter((0..3).map(|_| Ok(Frame::data(Bytes::from(vec![b'x'; 1000])))));
    let untold = world.call("POST", "/up/", &user, StreamBody::new(parts).boxed()).await;
    untold.is_problem("body-too-large", 413, "http_request_denied");
    assert_eq!(upstream.seen().len(), 1, "no whole request but the first");
}

#[tokio::test]
async fn an_optional_provider_without_its_variables_answers_503() {
    let route = "  - {match: GET /off, provider: google, upstream: \"https://www.googleapis.com/\"}\n";
    let plan = Plan::new().provider("  google: {optional: true, client_id: \"${NOT_SET}\", client_secret: x}\n");
    let world = plan.routes(route).start().await;
    let answer = world.get("/off").await;
    answer.is_problem("provider-not-configured", 503, "proxy_configuration_error");
}

#[tokio::test]
async fn an_upstream_that_nobody_serves_is_unreachable() {
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let world = Plan::new().up(nobody, "").start().await;
    world.connect(MEGAN).await;
    let answer = world.get("/up/x").await;
    answer.is_problem("upstream-unreachable", 502, "destination_unavailable");
    assert!(!answer.text().contains("127.0.0.1"), "where things are is for the log");
}

#[tokio::test]
async fn an_upstream_that_never_answers_times_out() {
    let upstream = Upstream::start(|_| Reply::Hang).await;
    let world = Plan::new().up(upstream.address, "    timeout: {connect: 100ms, first_byte: 100ms}\n").start().await;
    world.connect(MEGAN).await;
    world.get("/up/x").await.is_problem("upstream-timeout", 504, "http_response_timeout");
    assert_eq!(upstream.seen().len(), 1, "a call that may have been done is not repeated");
}

#[tokio::test]
async fn an_upstream_that_speaks_no_http_is_a_bad_response() {
    for bytes in ["SSH-2.0-OpenSSH_9.6\r\n", "", "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let upstream = Upstream::start(|_| Reply::Close(bytes.into())).await;
        let world = Plan::new().up(upstream.address, "").start().await;
        world.connect(MEGAN).await;
        world.get("/up/x").await.is_problem("upstream-bad-response", 502, "http_protocol_error");
        assert_eq!(upstream.seen().len(), 1, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_total_timeout_ends_an_answer_that_never_ends() {
    let world = Plan::new()
        .routes("  - {match: GET /sse, provider: sandbox, upstream: \"http://SANDBOX/v1/sse\", timeout: {total: 400ms}}\n")
        .start()
        .await;
    world.connect(MEGAN).await;
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("GET /sse?n=100000&every_ms=20 HTTP/1.1\r\n{LOCAL}\r\n")).await;
    let text = String::from_utf8(raw.rest().await).expect("text");
    assert!(text.contains("data:") && !text.ends_with("0\r\n\r\n"), "cut, not ended: {text:?}");
}

// --- HTTP as it is ------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn head_tells_the_length_and_sends_no_body() {
    let world = World::connected().await;
    let length = world.get("/api/bytes/5000").await.is_ok().header("content-length");
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("HEAD /api/bytes/5000 HTTP/1.1\r\n{LOCAL}\r\nHEAD /photos HTTP/1.1\r\n{LOCAL}Connection: close\r\n\r\n")).await;
    let answer = raw.answer_to_head().await.expect("an answer");
    assert_eq!((answer.status, answer.header("content-length")), (200, Some(&*length)));
    let listed = raw.answer_to_head().await.expect("GET routes take HEAD");
    assert_eq!(listed.status, 200);
    assert_eq!(raw.rest().await, b"");
}

#[tokio::test]
async fn ranges_and_validators_pass() {
    let world = World::connected().await;
    let id = world.get("/photos").await.json()["items"][3]["id"].as_str().expect("an id").to_owned();
    let path = format!("/photos/{id}");
    let full = world.get(&path).await;
    let part = world.call("GET", &path, &[("x-end-user", MEGAN), ("range", "bytes=100-199")], empty()).await;
    assert_eq!(part.status, 206);
    assert_eq!(part.header("content-range"), format!("bytes 100-199/{}", full.body.len()));
    assert_eq!(part.body, full.body[100..200]);
    let beyond = world.call("GET", &path, &[("x-end-user", MEGAN), ("range", "bytes=99999999-")], empty()).await;
    assert_eq!((beyond.status.as_u16(), beyond.header("content-range")), (416, format!("bytes */{}", full.body.len())));
    let same = world.call("GET", &path, &[("x-end-user", MEGAN), ("if-none-match", &full.header("etag"))], empty()).await;
    assert_eq!((same.status.as_u16(), same.body.len(), same.header("etag")), (304, 0, full.header("etag")));
}

#[tokio::test]
async fn statuses_of_the_api_pass_as_they_are() {
    let world = World::connected().await;
    for code in [200, 201, 204, 205, 304, 400, 403, 404, 409, 418, 429, 500, 502, 503, 504, 599] {
        let answer = world.get(&format!("/api/status/{code}?retry_after=7")).await;
        assert_eq!(answer.status, code);
        assert_eq!(answer.header("retry-after"), "7", "{code}");
        assert_eq!(answer.header("proxy-status"), "", "an upstream's own error is not ours: {code}");
    }
}

#[tokio::test]
async fn bodies_pass_with_a_length_and_in_chunks() {
    let world = World::connected().await;
    let user = [("x-end-user", MEGAN)];
    let sum = |bytes: &[u8]| {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    let told = world.call("POST", "/api/echo", &user, whole(bytes.clone())).await.is_ok().json();
    assert_eq!((&told["body_length"], &told["body_sha256"]), (&json!(100_000), &json!(sum(&bytes))));
    let headers = told["headers"].as_array().expect("a list");
    assert!(headers.contains(&json!(["content-length", "100000"])), "a known length stays known: {headers:?}");

    let parts: Vec<_> = bytes.chunks(7_001).map(|part| Ok(Frame::data(Bytes::copy_from_slice(part)))).collect();
    let body = StreamBody::new(futures_util::stream::iter(parts)).boxed();
    let told = world.call("PUT", "/api/echo/x", &user, body).await.is_ok().json();
    assert_eq!((&told["method"], &told["body_length"], &told["body_sha256"]), (&json!("PUT"), &json!(100_000), &json!(sum(&bytes))));
    assert!(told["headers"].as_array().expect("a list").contains(&json!(["transfer-encoding", "chunked"])));

    let none = world.call("POST", "/api/echo", &user, empty()).await.is_ok().json();
    assert_eq!(none["body_length"], 0);
}

#[tokio::test]
async fn an_answer_in_chunks_or_until_the_close_arrives_whole() {
    for (reply, expected) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n", "hello world"),
        ("HTTP/1.1 200 Fine\r\n\r\nuntil the close", "until the close"),
        ("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold", "old"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
    ] {
        let upstream = Upstream::start(|_| Reply::Close(reply.into())).await;
        let world = Plan::new().up(upstream.address, "").start().await;
        world.connect(MEGAN).await;
        assert_eq!(world.get("/up/x").await.is_ok().text(), expected);
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let world = World::connected().await;
    let mut raw = Raw::open(world.proxy).await;
    let head = format!("POST /api/echo HTTP/1.1\r\n{LOCAL}TE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n");
    raw.send(format!("{head}5\r\nhello\r\n0\r\nX-Sum: 5d41\r\n\r\n")).await;
    let answer = raw.answer().await.expect("an answer");
    let told: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(told["body_length"], 5);
    assert_eq!(told["trailers"], json!([["x-sum", "5d41"]]), "to the upstream");

    let reply = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 5d41\r\n\r\n";
    let upstream = Upstream::start(|_| Reply::Keep(reply.into())).await;
    let world = Plan::new().up(upstream.address, "").start().await;
    world.connect(MEGAN).await;
    let mut connection = Connection::open(world.proxy).await;
    let request = wire::request("GET", "/up/x").header("x-end-user", MEGAN).header("te", "trailers").body(empty()).expect("a request");
    let collected = connection.send(request).await.expect("an answer").into_body().collect().await.expect("whole");
    let sum = collected.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
    assert_eq!(sum.expect("to the client"), "5d41");
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    let world = World::connected().await;
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("POST /api/echo HTTP/1.1\r\n{LOCAL}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")).await;
    assert_eq!(raw.answer().await.expect("an interim answer").status, 100);
    raw.send("hello").await;
    let answer = raw.answer().await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&answer.body).expect("JSON")["body_length"], 5);
    // Who would be refused anyway is told so before it sends its body.
    let mut raw = Raw::open(world.proxy).await;
    raw.send("POST /api/echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5000000\r\n\r\n").await;
    assert_eq!(raw.answer().await.expect("an answer").status, 400);
}

#[tokio::test]
async fn one_connection_serves_many_calls() {
    let world = World::connected().await;
    let mut connection = Connection::open(world.proxy).await;
    for count in 0..50 {
        let request = wire::request("GET", &format!("/api/bytes/{count}")).header("x-end-user", MEGAN).body(empty()).expect("a request");
        assert_eq!(connection.call(request).await.is_ok().body.len(), count);
    }
}

/// Fails when a connection goes on with a body of a refused request still unread on it.
#[tokio::test]
async fn threat_11_an_early_error_with_an_unread_body_leaves_the_next_request_intact() {
    let world = World::connected().await;
    let smuggled = format!("GET /api/bytes/666 HTTP/1.1\r\n{LOCAL}\r\n");
    for (why, framed) in [
        ("a length", format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len())),
        ("chunks", format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len())),
    ] {
        let before = world.sandbox.counters().api_calls;
        let mut raw = Raw::open(world.proxy).await;
        // No end user is named, so that the answer comes before the body is read.
        raw.send(format!("POST /api/sink HTTP/1.1\r\nHost: localhost\r\n{framed}")).await;
        raw.send(format!("GET /api/bytes/7 HTTP/1.1\r\n{LOCAL}Connection: close\r\n\r\n")).await;
        let first = raw.answer().await.expect("an answer");
        assert_eq!(first.status, 400, "{why}");
        let next = raw.answer().await;
        // Closing is right too; a body taken for a request is not.
        if let Some(next) = &next {
            assert_eq!((next.status, next.body.len()), (200, 7), "{why}: {}", next.head);
        }
        assert!(raw.answer().await.is_none(), "{why}: two answers at most");
        assert_eq!(world.sandbox.counters().api_calls - before, u64::from(next.is_some()), "{why}");
    }
}

#[tokio::test]
async fn a_large_unread_body_ends_its_connection_and_its_answer_arrives_all_the_same() {
    let world = World::connected().await;
    let stream = tokio::net::TcpStream::connect(world.proxy).await.expect("connected");
    let (mut read, mut write) = stream.into_split();
    let sending = tokio::spawn(async move {
        let head = "POST /api/sink HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n";
        let mut whole = write.write_all(head.as_bytes()).await.is_ok();
        for _ in 0..1000 {
            whole = whole && write.write_all(&[b'x'; 100_000]).await.is_ok();
        }
        whole
    });
    let mut text = [0; 12];
    within("reading", read.read_exact(&mut text)).await.expect("an answer came");
    assert_eq!(&text, b"HTTP/1.1 400");
    // Either all was read and thrown away, or the connection was closed: nothing hangs.
    within("the upload", sending).await.expect("no panic");
}

#[tokio::test]
async fn a_unix_socket_is_a_listener_like_any_other_and_needs_no_host() {
    let world = Plan::new()
        .listen("  proxy: {bind: [\"127.0.0.1:0\", \"unix:./attache.sock\"]}\n  public: 127.0.0.1:0\n  admin: 127.0.0.1:0\n")
        .start()
        .await;
    world.connect(MEGAN).await;
    let mut stream = tokio::net::UnixStream::connect(world.folder.path().join("attache.sock")).await.expect("connected");
    let call = format!("GET /api/me HTTP/1.1\r\nHost: photos.internal\r\nX-End-User: {MEGAN}\r\nConnection: close\r\n\r\n");
    stream.write_all(call.as_bytes()).await.expect("written");
    let mut text = String::new();
    within("an answer", stream.read_to_string(&mut text)).await.expect("text");
    assert!(text.starts_with("HTTP/1.1 200") && text.contains(MEGAN), "{text}");
}

#[tokio::test]
async fn stopping_lets_the_calls_under_way_end() {
    let world = World::connected().await;
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("GET /api/slow?ms=600 HTTP/1.1\r\n{LOCAL}\r\n")).await;
    until("the call is under way", async || world.sandbox.counters().api_calls == 1).await;
    let World { running, proxy, sandbox: _sandbox, .. } = world;
    let stopping = tokio::spawn(running.stop());
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
    within("the stop", stopping).await.expect("no panic").expect("stopped");
    assert!(tokio::net::TcpStream::connect(proxy).await.is_err(), "the port is free again");
}
