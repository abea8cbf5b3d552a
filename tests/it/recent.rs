//! The last calls, as the admin API lists them and streams them.

use crate::harness::{ADMIN_TOKEN, ALEX, MEGAN, World};
use crate::wire::{Raw, until};
use serde_json::{Value, json};

async fn list(world: &World, query: &str) -> Value {
    world.admin("GET", &format!("/v1/calls{query}")).await.is_ok().json()
}

/// A follower, once its stream has begun.
async fn follow(world: &World, query: &str, more: &str) -> (Raw, String) {
    let mut raw = Raw::open(world.admin).await;
    let head = format!(
        "GET /v1/calls{query} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nAccept: text/event-stream\r\n{more}\r\n"
    );
    raw.send(head).await;
    let mut text = String::new();
    gather(&mut raw, &mut text, "\r\n\r\n").await;
    (raw, text)
}

/// Reads on until this stands in the text.
async fn gather(raw: &mut Raw, text: &mut String, wanted: &str) {
    while !text.contains(wanted) {
        let some = raw.some().await;
        assert!(!some.is_empty(), "the stream ended: {text}");
        text.push_str(std::str::from_utf8(&some).expect("text"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_calls_are_listed_newest_first_without_a_name() {
    let world = World::connected().await;
    world.get("/photos?secret=query").await.is_ok();
    assert_eq!(world.get_as(ALEX, "/photos").await.status, 401);
    assert_eq!(world.get("/nowhere").await.status, 404);
    // The first one's answer may end a moment after it was read.
    until("all are there", async || list(&world, "").await["items"].as_array().is_some_and(|items| items.len() == 3)).await;
    let all = list(&world, "").await;
    assert_eq!(all["left_out"], 0);
    let told: Vec<Value> = all["items"].as_array().expect("a list").iter().map(|call| json!([call["status"], call["error"]])).collect();
    assert!(
        told.contains(&json!([200, null])) && told.contains(&json!([401, "not-connected"])) && told.contains(&json!([404, "no-route"])),
        "{all}"
    );
    let numbers: Vec<u64> = all["items"].as_array().expect("a list").iter().filter_map(|call| call["number"].as_u64()).collect();
    assert_eq!(numbers, [3, 2, 1]);
    let good = all["items"].as_array().expect("a list").iter().find(|call| call["status"] == 200).expect("there").clone();
    let connection = world.admin("GET", &format!("/v1/connections/sandbox/{MEGAN}")).await.is_ok().json();
    assert_eq!((&good["connection_id"], &good["provider"], &good["method"]), (&connection["id"], &json!("sandbox"), &json!("GET")));
    assert!(good["took_ms"].as_f64() >= good["upstream_ms"].as_f64(), "{good}");
    for secret in [MEGAN, ALEX, "secret", "/photos"] {
        assert!(!good.to_string().contains(secret), "{good}");
    }
    let count = async |query: &str| list(&world, query).await["items"].as_array().expect("a list").len();
    assert_eq!(count("?only=errors").await, 2);
    assert_eq!(count("?limit=1").await, 1);
    assert_eq!(count(&format!("?connection={}", good["connection_id"].as_str().expect("an id"))).await, 1);
    assert_eq!(count("?route=none-such").await, 0);
    assert_eq!(world.admin("GET", "/v1/calls?only=good").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_come_to_a_follower_as_they_end() {
    let world = World::connected().await;
    let (mut live, mut text) = follow(&world, "", "").await;
    assert!(text.contains("200 OK") && text.to_lowercase().contains("content-type: text/event-stream"), "{text}");
    let (mut errors, mut errors_text) = follow(&world, "?only=errors", "").await;
    world.get("/photos").await.is_ok();
    assert_eq!(world.get("/nowhere").await.status, 404);
    gather(&mut live, &mut text, "no-route").await;
    assert!(text.contains("id: 1\nevent: call\ndata: {") && text.contains("\"status\":200"), "{text}");
    gather(&mut errors, &mut errors_text, "no-route").await;
    assert!(!errors_text.contains("\"status\":200"), "{errors_text}");
    // One that comes back gets what it missed.
    let (mut again, mut text) = follow(&world, "", "Last-Event-ID: 1\r\n").await;
    gather(&mut again, &mut text, "no-route").await;
    assert!(!text.contains("id: 1\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_are_let_in_as_every_other_caller_and_are_bounded() {
    let world = World::start().await;
    for (host, token, status) in [("localhost", "wrong", "401"), ("evil.example", ADMIN_TOKEN, "403")] {
        let mut raw = Raw::open(world.admin).await;
        let head = format!(
            "GET /v1/calls HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n"
        );
        raw.send(head).await;
        let answer = raw.head().await.expect("an answer");
        assert!(answer.contains(&format!(" {status} ")), "{answer}");
    }
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(follow(&world, "", "").await);
    }
    let (_, refused) = follow(&world, "", "").await;
    assert!(refused.contains(" 503 "), "{refused}");
    drop(held);
    until("a place is free again", async || follow(&world, "", "").await.1.contains("200 OK")).await;
}
