//! `response`: what becomes of a JSON answer.

use crate::harness::*;
use crate::upstream::{Reply, Seen, Upstream};
use crate::wire::{Connection, Raw, empty, request};
use serde_json::json;

const ROUTES: &str = "
  - match: GET /list/{*rest}
    provider: sandbox
    upstream: http://UP/{rest}
    response: {select: \"files[].{id: id, name: name}\", max: 4KiB}
  - match: GET /bytes/{*rest}
    provider: sandbox
    upstream: http://UP/{rest}
    response: {location: where.url}
    follow: no_token
  - match: GET /as-is/{*rest}
    provider: sandbox
    upstream: http://UP/{rest}
";

const LIST: &str = r#"{"files": [{"id": "1", "name": "ä\"", "size": 3}], "kind": "list"}"#;

async fn world_of(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> (World, Upstream) {
    let upstream = Upstream::start(script).await;
    (World::in_front_of(&upstream, ROUTES).await, upstream)
}

fn json_of(body: &str) -> Reply {
    Reply::ok(
        "Content-Type: application/json; charset=utf-8\r\nETag: \"e\"\r\nAccept-Ranges: bytes\r\nX-Kept: yes\r\nSet-Cookie: a=b\r\n",
        body,
    )
}

#[tokio::test]
async fn a_list_takes_the_shape_that_the_route_says() {
    let (world, upstream) = world_of(|_| json_of(LIST)).await;
    let headers = [("x-end-user", MEGAN), ("accept-encoding", "gzip, br"), ("range", "bytes=0-1"), ("if-none-match", "\"e\"")];
    let mut client = Connection::open(world.proxy).await;
    let answer = client.call(with_headers(request("GET", "/list/a?b=1"), &headers).body(empty()).expect("a request")).await;
    assert_eq!(answer.is_ok().json(), json!([{"id": "1", "name": "ä\""}]));
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    assert_eq!(answer.header("content-type"), "application/json");
    for gone in ["etag", "accept-ranges", "set-cookie"] {
        assert_eq!(answer.header(gone), "", "{gone}");
    }
    assert_eq!(answer.header("x-kept"), "yes");
    assert!(answer.header("vary").contains("x-end-user") && !answer.header("x-request-id").is_empty());
    let seen = upstream.last();
    assert_eq!(
        (&*seen.target, seen.header("accept-encoding"), seen.header("range"), seen.header("if-none-match")),
        ("/a?b=1", "identity", "", "")
    );
    // The connection went back: the next call takes it.
    client.call(with_headers(request("GET", "/list/a"), &headers).body(empty()).expect("a request")).await.is_ok();
    assert_eq!(upstream.connections(), 1);
    // Beside it, without `response`, the bytes are the upstream's.
    assert_eq!(world.get("/as-is/a").await.is_ok().text(), LIST);
}

#[tokio::test]
async fn head_tells_the_length_of_what_get_would_give() {
    let (world, upstream) = world_of(|_| json_of(LIST)).await;
    let length = world.get("/list/a").await.is_ok().body.len().to_string();
    let mut raw = Raw::open(world.proxy).await;
    for _ in 0..2 {
        raw.send(format!("HEAD /list/a HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
        assert_eq!(raw.answer_to_head().await.expect("an answer").header("content-length"), Some(&*length));
        assert_eq!(upstream.last().method, "GET");
    }
}

#[tokio::test]
async fn only_success_is_selected_from() {
    let (world, _upstream) = world_of(|seen| {
        let status = seen.target.trim_start_matches('/');
        let length = if status == "204" { String::new() } else { "Content-Length: 14\r\n".to_owned() };
        let body = if status == "204" { "" } else { r#"{"error":"no"}"# };
        Reply::Keep(format!("HTTP/1.1 {status} X\r\n{length}Content-Type: application/json\r\nETag: \"e\"\r\n\r\n{body}").into_bytes())
    })
    .await;
    for status in [404, 409, 500] {
        let answer = world.get(&format!("/list/{status}")).await;
        assert_eq!((answer.status.as_u16(), answer.text(), answer.header("etag")), (status, r#"{"error":"no"}"#.into(), "\"e\"".into()));
        assert_eq!(world.get(&format!("/bytes/{status}")).await.status.as_u16(), status);
    }
    assert_eq!(world.get("/list/204").await.status, 204);
}

#[tokio::test]
async fn what_cannot_be_selected_from_is_a_bad_response() {
    let long = format!(r#"{{"files": ["{}"]}}"#, "x".repeat(5000));
    let (world, _upstream) = world_of(move |seen| match &*seen.target {
        "/html" => Reply::ok("Content-Type: text/html\r\n", "<p>no</p>"),
        "/none" => Reply::ok("", LIST),
        "/coded" => Reply::ok("Content-Type: application/json\r\nContent-Encoding: gzip\r\n", LIST),
        "/long" => json_of(&long),
        "/chunks" => Reply::Keep(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
                long.len()
            )
            .into_bytes(),
        ),
        "/broken" => json_of(r#"{"files": "#),
        "/null" => json_of(r#"{"stat": "fail", "message": "SECRET"}"#),
        "/number" => json_of(r#"{"where": {"url": 5}}"#),
        "/deep" => json_of(&"[".repeat(3000)),
        "/cut" => Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{".to_vec()),
        other => panic!("{other}"),
    })
    .await;
    for path in ["html", "none", "coded", "long", "chunks", "broken", "null", "deep", "cut"] {
        let answer = world.get(&format!("/list/{path}")).await;
        answer.is_problem("upstream-bad-response", 502, "http_protocol_error");
        assert!(!answer.text().contains("SECRET"), "{}", answer.text());
    }
    for path in ["html", "null", "number"] {
        world.get(&format!("/bytes/{path}")).await.is_problem("upstream-bad-response", 502, "http_protocol_error");
    }
}

#[tokio::test]
async fn a_location_in_json_is_fetched_without_the_token() {
    let storage = Upstream::start(|_| Reply::ok("Content-Type: image/jpeg\r\n", "bytes")).await;
    let target = format!(r#"{{"where": {{"url": "http://{}/signed"}}}}"#, storage.address);
    let (world, upstream) = world_of(move |seen| match &*seen.target {
        "/private" => json_of(r#"{"where": {"url": "https://10.0.0.1/"}}"#),
        _ => json_of(&target),
    })
    .await;
    let headers = [("x-end-user", MEGAN), ("range", "bytes=0-1")];
    let answer = world.call("GET", "/bytes/a", &headers, empty()).await;
    assert_eq!((answer.is_ok().text(), answer.header("content-type")), ("bytes".into(), "image/jpeg".into()));
    assert_eq!((upstream.last().header("range"), storage.last().header("range")), ("", "bytes=0-1"));
    assert_eq!(storage.last().header("authorization"), "");
    world.get("/bytes/private").await.is_problem("upstream-bad-response", 502, "http_protocol_error");
}
