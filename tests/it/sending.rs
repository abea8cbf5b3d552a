//! `send`: an API that wants a POST, behind a plain GET (contract §3).

use crate::harness::*;
use crate::upstream::{Reply, Seen, Upstream};
use crate::wire::{Answer, Connection, Raw, empty, request, whole};
use serde_json::{Value, json};
use std::sync::OnceLock;

/// `UP` is the scripted upstream.
const ROUTES: &str = "
  - match: GET /json/{id}
    provider: sandbox
    upstream: http://UP/rpc?fixed=1
    query: {q: x}
    send: {json: {path: '{id}', deep: [{'a b': 'is {id}'}, 1, 2.5, true, ~, '{{id}}'], empty: ''}}
  - match: GET /form/{id}
    provider: sandbox
    upstream: http://UP/form
    send: {method: PUT, headers: {X-Id: 'n={id}'}, form: {id: '{id}', 'a&b': c}}
  - match: GET /arg/{id}
    provider: sandbox
    upstream: http://UP/download
    send: {method: POST, headers: {Dropbox-API-Arg: {json: {path: '{id}'}}}}
  - match: POST /turned/{id}
    provider: sandbox
    upstream: http://UP/turned/{id}
    send: {method: PATCH, headers: {Content-Type: application/merge-patch+json}}
";

async fn world_of(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> (World, Upstream) {
    let upstream = Upstream::start(script).await;
    (World::in_front_of(&upstream, ROUTES).await, upstream)
}

async fn world() -> (World, Upstream) {
    world_of(|_| Reply::ok("", "done")).await
}

fn body(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&seen.body)))
}

#[tokio::test]
async fn a_get_becomes_the_post_that_the_api_wants() {
    let (world, upstream) = world().await;
    assert_eq!(world.get("/json/7?q=mine").await.is_ok().text(), "done");
    let seen = upstream.last();
    assert_eq!((&*seen.method, &*seen.target), ("POST", "/rpc?q=mine&fixed=1"));
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.header("content-length"), seen.body.len().to_string());
    assert!(seen.header("authorization").starts_with("Bearer "));
    // A text stays one though it looks like a number, and what was written as a number or truth value is one.
    assert_eq!(body(&seen), json!({"path": "7", "deep": [{"a b": "is 7"}, 1, 2.5, true, null, "{id}"], "empty": ""}));

    world.get("/form/a%20b").await.is_ok();
    let seen = upstream.last();
    assert_eq!((&*seen.method, seen.header("x-id")), ("PUT", "n=a b"));
    assert_eq!(seen.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(String::from_utf8_lossy(&seen.body), "id=a%20b&a%26b=c");

    world.get("/arg/id:abc").await.is_ok();
    let seen = upstream.last();
    assert_eq!((&*seen.method, seen.header("dropbox-api-arg")), ("POST", r#"{"path":"id:abc"}"#));
    assert_eq!((seen.header("content-length"), seen.header("content-type")), ("0", ""));
}

#[tokio::test]
async fn a_method_alone_lets_the_clients_body_through() {
    let (world, upstream) = world().await;
    world.call("POST", "/turned/1", &[("x-end-user", MEGAN), ("content-type", "text/plain")], whole("hello")).await.is_ok();
    let seen = upstream.last();
    assert_eq!((&*seen.method, seen.header("content-type"), &*seen.body), ("PATCH", "application/merge-patch+json", &b"hello"[..]));
}

#[tokio::test]
async fn a_body_beside_the_routes_own_is_refused() {
    let (world, upstream) = world().await;
    let answer = world.call("GET", "/json/7", &[("x-end-user", MEGAN)], whole("mine")).await;
    answer.is_problem("bad-request", 400, "http_request_error");
    let empty_one =
        world.call("GET", "/json/7", &[("x-end-user", MEGAN), ("content-type", "text/plain"), ("content-length", "0")], empty());
    empty_one.await.is_ok();
    let seen = upstream.seen();
    assert_eq!(seen.len(), 1, "the refused one went nowhere");
    assert_eq!(seen[0].header("content-type"), "application/json", "the client's says nothing of the route's body");
}

#[tokio::test]
async fn head_is_sent_as_the_route_says_and_answered_without_a_body() {
    let (world, upstream) = world().await;
    let mut raw = Raw::open(world.proxy).await;
    for _ in 0..2 {
        raw.send(format!("HEAD /json/7 HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
        let answer = raw.answer_to_head().await.expect("an answer");
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("4")));
        assert_eq!(upstream.last().method, "POST");
    }
    // Nothing of the body that was not wanted stands in the next answer's place.
    raw.send(format!("GET /json/7 HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
    assert_eq!(raw.answer().await.expect("an answer").body, b"done");
}

#[tokio::test]
async fn the_routes_body_is_sent_again_on_a_new_connection() {
    let (world, upstream) = world_of(|seen| match (seen.header("authorization"), seen.nth) {
        (_, 1) => Reply::Close(Vec::new()),
        _ => Reply::ok("", "done"),
    })
    .await;
    let mut client = Connection::open(world.proxy).await;
    let get = |path| request("GET", path).header("x-end-user", MEGAN).body(empty()).expect("a request");
    client.call(get("/json/7")).await.is_ok();
    // The idle connection closes under the second call: a read by the client's method, so it is sent once more.
    client.call(get("/json/8")).await.is_ok();
    let bodies: Vec<_> = upstream.seen().iter().map(body).map(|body| body["path"].clone()).collect();
    assert_eq!(bodies, ["7", "8", "8"]);
}

#[tokio::test]
async fn the_routes_body_is_sent_again_with_a_newer_token() {
    let first = OnceLock::new();
    let (world, upstream) = world_of(move |seen| match first.get_or_init(|| seen.header("authorization").to_owned()) {
        refused if refused == seen.header("authorization") => {
            Reply::Keep(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_vec())
        }
        _ => Reply::ok("", "done"),
    })
    .await;
    world.clock.advance(seconds(60));
    assert_eq!(world.get("/json/7").await.is_ok().text(), "done");
    let seen = upstream.seen();
    assert_eq!(seen.iter().map(|seen| body(seen)["path"].clone()).collect::<Vec<_>>(), ["7", "7"]);
    assert_ne!(seen[0].header("authorization"), seen[1].header("authorization"));
}

/// What people put into an id, and what it means decoded once.
const HOSTILE: [(&str, &str); 9] = [
    ("%22%7D%2C%22x%22%3A%22", "\"},\"x\":\""),
    ("\"},\"x\":\"", "\"},\"x\":\""),
    ("%0d%0aX-Evil:%201", "\r\nX-Evil: 1"),
    ("x&acknowledgeAbuse=true", "x&acknowledgeAbuse=true"),
    ("%26alt=media%23", "&alt=media#"),
    ("caf%C3%A9%F0%9F%93%B7", "café📷"),
    ("{id}", "{id}"),
    ("%7B%7Bid%7D%7D", "{{id}}"),
    ("%00%1b", "\0\u{1b}"),
];

async fn raw(world: &World, target: &str) -> Answer {
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
    let answer = raw.answer().await.expect("an answer");
    Answer { status: answer.status.try_into().expect("a status"), headers: Default::default(), body: answer.body.into() }
}

/// Fails when captures are pasted into the body or header instead of being written by its serializer.
#[tokio::test]
async fn threat_42_hostile_captures_are_data_in_json_form_and_header() {
    let (world, upstream) = world().await;
    for (sent, meant) in HOSTILE {
        // What a path cannot hold unescaped never gets as far as here.
        if sent.contains('"') || sent.contains('{') {
            continue;
        }
        if !sent.contains("%00") {
            assert_eq!(raw(&world, &format!("/json/{sent}")).await.status, 200, "{sent}");
            let seen = upstream.last();
            assert_eq!(body(&seen)["path"], meant, "{sent}");
            assert_eq!(body(&seen)["deep"][0]["a b"], format!("is {meant}"), "{sent}");
            assert_eq!(body(&seen).as_object().map(serde_json::Map::len), Some(3), "{sent}");
            assert_eq!(seen.target, "/rpc?fixed=1&q=x", "{sent}");

            assert_eq!(raw(&world, &format!("/arg/{sent}")).await.status, 200, "{sent}");
            let arg = upstream.last().header("dropbox-api-arg").to_owned();
            assert!(arg.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{arg}");
            assert_eq!(serde_json::from_str::<Value>(&arg).expect(&arg), json!({"path": meant}), "{sent}");
        }
        let refused = meant.chars().any(char::is_control);
        let answer = raw(&world, &format!("/form/{sent}")).await;
        if refused {
            // `X-Id` holds it bare, and a header has no escape for it.
            assert_eq!(answer.status, 400, "{sent}");
            assert_eq!(answer.json()["type"], "urn:attache:bad-path", "{sent}");
        } else {
            let seen = upstream.last();
            let pairs: Vec<_> = form_urlencoded::parse(&seen.body).into_owned().collect();
            assert_eq!(pairs, [("id".to_owned(), meant.to_owned()), ("a&b".to_owned(), "c".to_owned())], "{sent}");
        }
    }
    assert!(!upstream.bytes().to_ascii_lowercase().contains("\r\nx-evil"), "no header was smuggled in");
    for path in ["/json/..%2F..%2Fetc", "/json/%2e%2e", "/arg/../x", "/json/a%5Cb"] {
        assert_eq!(raw(&world, path).await.json()["type"], "urn:attache:bad-path", "{path}");
    }
    let answer = raw(&world, "/json/%FF").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["type"]), (400, &json!("urn:attache:bad-path")));
}
