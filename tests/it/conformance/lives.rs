//! Q38 to Q42: how long a token is good for.

use super::quirk;
use super::stage::{Stage, answer};
use crate::harness::{START, seconds};
use attache::store::Connection;
use serde_json::json;

fn life(connection: &Connection) -> Option<u64> {
    connection.expires_at.map(|end| end.since(connection.obtained_at).as_secs())
}

#[tokio::test(flavor = "multi_thread")]
async fn q38_expires_in_is_a_string() {
    assert_eq!(life(&Stage::new("").await.plays(&quirk("Q38")).await), Some(3600));
}

#[tokio::test(flavor = "multi_thread")]
async fn q39_expires_in_zero_means_never() {
    let stage = Stage::new("default_expires_in: never\n").await;
    assert_eq!(life(&stage.plays(&quirk("Q39")).await), None);
    for _ in 0..3 {
        stage.world.clock.advance(seconds(400 * 24 * 3600));
        stage.call().await.is_ok();
    }
    assert_eq!(stage.token_calls().len(), 1, "no refresh loop");
}

#[tokio::test(flavor = "multi_thread")]
async fn q40_expires_in_missing() {
    let definition = "default_expires_in: 2h\nmetadata: {instance: {from: reply.instance_url, kind: origin, hosts: [na1.test]}}\n";
    let connection = Stage::new(definition).await.plays(&quirk("Q40")).await;
    assert_eq!((life(&connection), &connection.metadata["instance"]), (Some(7200), &json!("na1.test")));
}

#[tokio::test(flavor = "multi_thread")]
async fn q41_expires_in_in_another_unit() {
    assert_eq!(life(&Stage::new("reply: {expires_in_unit: ms}\n").await.plays(&quirk("Q41")).await), Some(86_399));
    let minutes = Stage::new("reply: {expires_in_unit: min}\n").await;
    minutes.will_answer([answer(200, &json!({"access_token": "A1", "expires_in": 90}))]);
    minutes.connect().await.answer.is_ok();
    assert_eq!(life(&minutes.stored().await.expect("connected")), Some(5400));
}

#[tokio::test(flavor = "multi_thread")]
async fn q42_absolute_expiry() {
    let definition = "calls: {token: {body: json}}\nreply: {expires_at: expires_at}\nmetadata: {merchant: reply.merchant_id}\n";
    let connection = Stage::new(definition).await.plays(&quirk("Q42")).await;
    assert_eq!(connection.expires_at.map(|end| end.to_rfc3339()), Some("2030-01-01T00:00:00Z".into()));
    let soon = START.0 / 1000 + 1800;
    for (body, expected) in [
        (json!({"expires_at": soon}), 1800),
        (json!({"expires_at": soon * 1000}), 1800),
        (json!({"expires_at": soon.to_string()}), 1800),
        (json!({"expires_at": "2026-01-01T02:30:00+02:00"}), 1800),
        (json!({"expires_at": soon, "expires_in": 60}), 60),
        (json!({"expires_at": START.0 / 1000 - 5}), 1),
        (json!({"expires_at": "soon"}), 3600),
    ] {
        let stage = Stage::new("reply: {expires_at: expires_at}\n").await;
        let mut reply = body.clone();
        reply["access_token"] = "A1".into();
        stage.will_answer([answer(200, &reply)]);
        stage.connect().await.answer.is_ok();
        assert_eq!(life(&stage.stored().await.expect("connected")), Some(expected), "{body}");
    }
}
