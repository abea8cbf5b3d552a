//! Q50 to Q52 and Q72: how a grant is refused.

use super::quirk;
use super::stage::{Stage, answer};
use crate::harness::MEGAN;
use attache::store::State;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn q50_errors_with_http_200() {
    let stage = Stage::new("").await;
    stage.will_answer(quirk("Q50").responses);
    let trip = stage.connect().await;
    super::stage::check(&stage.token_call(), &quirk("Q50"), &trip.redirect_uri, &[]);
    assert_eq!((trip.answer.status.as_u16(), stage.stored().await), (502, None));
    assert_eq!(stage.token_calls().len(), 1, "the code is not sent again");
    for body in [json!({}), json!({"ok": true}), json!({"access_token": null}), json!({"access_token": ""})] {
        stage.will_answer([answer(200, &body)]);
        assert_eq!(stage.connect().await.answer.status, 502, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q51_non_rfc_error_shape() {
    let stage = Stage::new("errors: {at: [errors.0.errorType]}\n").await;
    stage.refreshes(&quirk("Q51")).await.is_problem("reconnect-required", 401, "http_request_denied");
    let deep = Stage::new("errors: {at: [fault.detail.0.code], passing: [busy], client: [bad_app]}\n").await;
    for (code, state) in [("busy", State::Active), ("bad_app", State::Active), ("invalid_grant", State::ReconnectRequired)] {
        deep.has_expired(json!({})).await;
        deep.will_answer([answer(400, &json!({"fault": {"detail": [{"code": code}]}}))]);
        deep.call().await;
        assert_eq!(deep.stored().await.expect("kept").state, state, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q52_invalid_grant_by_another_name() {
    let definition = r#"
errors:
  at: [errcode]
  ends_grant: [invalid_refresh_token, "40030", {status: 401, says: "Invalid refresh token"}, {member: status, equals: "503"}]
"#;
    let stage = Stage::new(definition).await;
    stage.refreshes(&quirk("Q52")).await.is_problem("reconnect-required", 401, "http_request_denied");
    for (status, body, state) in [
        (200, json!({"errcode": 40030, "errmsg": "invalid refresh_token"}), State::ReconnectRequired),
        (401, json!({"status": 401, "message": "Invalid refresh token"}), State::ReconnectRequired),
        (200, json!({"status": 503, "body": {}, "error": "Invalid Params"}), State::ReconnectRequired),
        (400, json!({"error": "something_unheard_of"}), State::Active),
        (400, json!({"errcode": 40031}), State::Active),
        (400, json!({"status": 401, "message": "Invalid refresh token"}), State::Active),
        (503, json!({"errcode": 40030}), State::Active),
        (503, json!("Invalid refresh token"), State::Active),
    ] {
        stage.has_expired(json!({})).await;
        stage.will_answer([answer(status, &body)]);
        stage.call().await;
        let connection = stage.stored().await.expect("kept");
        assert_eq!(connection.state, state, "{status} {body}");
        let told = connection.last_error.expect("told");
        assert!(!told.contains("unheard") && !told.contains("40031"), "no word of the provider's own: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q72_too_many_or_too_large() {
    let stage = Stage::new("").await;
    stage.connect().await.answer.is_ok();
    let first = stage.stored().await.expect("connected");
    // A second consent replaces the first, under the same id; nothing is revoked, for some providers would end both.
    stage.will_answer([answer(200, &json!({"access_token": "x".repeat(12 * 1024), "refresh_token": "R2"}))]);
    stage.connect().await.answer.is_ok();
    let shown = stage.world.admin("GET", "/v1/connections?provider=acme").await.is_ok().json();
    assert_eq!((shown["items"].as_array().map(Vec::len), &shown["items"][0]["id"]), (Some(1), &json!(*first.id)));
    stage.call().await.is_ok();
    assert_eq!(stage.api_call().header("authorization").len(), "Bearer ".len() + 12 * 1024, "a token of many kilobytes");
    // Being refused for asking too often ends nothing.
    stage.will_answer(quirk("Q72").responses);
    let trip = stage.connect().await;
    super::stage::check(&stage.token_calls()[2], &quirk("Q72"), &trip.redirect_uri, &[]);
    assert_eq!(trip.answer.status, 502);
    assert_eq!(stage.stored().await.expect("stands").refresh_token, Some("R2".into()));
    stage.has_expired(json!({})).await;
    stage.will_answer(quirk("Q72").responses);
    stage.call().await.is_problem("refresh-failed", 502, "proxy_internal_response");
    assert_eq!(stage.stored().await.expect("stands").state, State::Active);
    stage.world.admin("DELETE", &format!("/v1/connections/acme/{MEGAN}")).await.is_ok();
}
