//! Q66 and Q67: how a grant is revoked, and the device grant's variants.

use super::quirk;
use super::stage::{Stage, answer, pairs};
use crate::harness::{MEGAN, seconds};
use crate::wire::{Answer, until};
use serde_json::{Value, json};

/// Connects, deletes the connection; what was answered to that.
async fn deleted(stage: &Stage, token: Value, revoked: Value) -> Answer {
    stage.will_answer([token]);
    stage.connect().await.answer.is_ok();
    stage.will_answer([revoked]);
    let answer = stage.world.admin("DELETE", &format!("/v1/connections/acme/{MEGAN}")).await;
    assert!(stage.stored().await.is_none(), "deleted here, whatever the provider says");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn q66_non_rfc_7009_revoke() {
    let token = || answer(200, &json!({"access_token": "A1"}));
    let github = r#"
calls:
  revoke:
    method: DELETE
    url: "http://ACME/applications/{client_id}/token"
    body: json
    client_auth: basic
    omit: [token, token_type_hint]
    params: {access_token: "{token}"}
"#;
    let stage = Stage::new(github).await;
    let quirk = quirk("Q66");
    assert_eq!(deleted(&stage, token(), quirk.responses[0].clone()).await.json()["revoked"], "yes");
    let call = stage.token_calls().pop().expect("a call");
    super::stage::check(&call, &quirk, "", &[]);

    // The token in Bearer and nothing else; the answer is a page (Q66), or no body though it says JSON.
    let bearer = "calls: {revoke: {url: \"http://ACME/2/auth/token/revoke\", client_auth: none, omit: [token, token_type_hint, client_id], headers: {Authorization: \"Bearer {token}\"}}}\n";
    for body in [json!("<html>gone</html>"), json!("")] {
        let stage = Stage::new(bearer).await;
        assert_eq!(deleted(&stage, token(), answer(200, &body)).await.json()["revoked"], "yes");
        let call = stage.token_calls().pop().expect("a call");
        assert_eq!(
            (&*call.method, &*call.target, call.header("authorization"), call.body.len()),
            ("POST", "/2/auth/token/revoke", "Bearer A1", 0)
        );
    }

    // By GET, under another name; the secret stands in no answer of ours.
    let query = "calls: {revoke: {method: GET, url: \"http://ACME/revokeoauth2\", omit: [token, token_type_hint, client_secret], params: {access_token: \"{access_token}\"}}}\n";
    let stage = Stage::new(query).await;
    let both = answer(200, &json!({"access_token": "A1", "refresh_token": "R1"}));
    let failed = deleted(&stage, both, answer(400, &json!({"error": "CANARY"}))).await;
    assert_eq!(failed.json()["revoked"], "no");
    assert!(!failed.text().contains("CANARY") && !failed.text().contains("A1"), "{}", failed.text());
    let call = stage.token_calls().pop().expect("a call");
    assert_eq!(call.target, "/revokeoauth2?client_id=id&access_token=A1", "by the access token, for the definition names it");
    assert_eq!(stage.token_calls().len(), 2);
}

const TRAKT: &str = r#"
device_authorization_url: http://ACME/oauth/device/code
calls:
  device: {body: json, omit: [client_secret]}
  poll: {url: "http://ACME/oauth/device/token", body: json, omit: [grant_type], rename: {device_code: code}}
device:
  rename: {verification_uri: verification_url}
  pending: [{status: 400}]
  slow_down: [{status: 429}]
  denied: [{status: 418}]
  expired: [{status: 410}]
"#;

async fn begun(stage: &Stage, code: &Value) -> Value {
    stage.will_answer([answer(200, code)]);
    let made = stage.world.admin_json("POST", "/v1/device-sessions", &json!({"provider": "acme", "end_user": MEGAN})).await;
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()
}

async fn state(stage: &Stage, made: &Value) -> String {
    let answer = stage.world.admin("GET", &format!("/v1/device-sessions/{}", made["id"].as_str().expect("an id"))).await;
    answer.is_ok().json()["state"].as_str().expect("a word").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn q67_device_grant_variants() {
    let code =
        json!({"device_code": "D1", "user_code": "U1", "verification_url": "https://acme.test/activate", "expires_in": 600, "interval": 1});
    let stage = Stage::new(TRAKT).await;
    let quirk = quirk("Q67");
    let made = begun(&stage, &code).await;
    assert_eq!((&made["user_code"], &made["verification_uri"]), (&json!("U1"), &json!("https://acme.test/activate")));
    stage.will_answer(quirk.responses.clone());
    stage.will_answer([answer(200, &json!({"access_token": "A1", "refresh_token": "R1"}))]);
    until("connected", async || state(&stage, &made).await == "connected").await;
    let calls = stage.token_calls();
    super::stage::check(&calls[1], &quirk, &stage.redirect_uri(), &[]);
    assert_eq!((calls.len(), &*calls[0].target), (3, "/oauth/device/code"), "asked once more after a bare 400");
    assert_eq!(stage.stored().await.expect("connected").refresh_token, Some("R1".into()));

    for (answers, expected) in
        [(json!({"status": 418, "headers": {}, "body": ""}), "denied"), (json!({"status": 410, "headers": {}, "body": ""}), "expired")]
    {
        let stage = Stage::new(TRAKT).await;
        let made = begun(&stage, &code).await;
        stage.will_answer([answers]);
        until(expected, async || state(&stage, &made).await == expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q67_a_poll_that_wants_the_user_code_and_numeric_errors() {
    let definition = r#"
device_authorization_url: http://ACME/device
calls: {device: {params: {response_type: device_code}}, poll: {rename: {device_code: code}, params: {grant_type: device_code, user_code: "{user_code}"}}}
device:
  rename: {device_code: code, expires_in: expire_in, verification_uri: verification_url}
  pending: [{member: error, equals: 1101}]
"#;
    let stage = Stage::new(definition).await;
    let code = json!({"code": "D1", "user_code": "U1", "verification_url": "https://acme.test/activate", "expire_in": 600, "interval": 1});
    let made = begun(&stage, &code).await;
    stage.will_answer([answer(400, &json!({"error": 1101, "sub_error": 20411})), answer(200, &json!({"access_token": "A1"}))]);
    until("connected", async || state(&stage, &made).await == "connected").await;
    let calls = stage.token_calls();
    assert_eq!(pairs(&calls[0].body)["response_type"], ["device_code"]);
    let poll = pairs(&calls[2].body);
    assert_eq!((&*poll["grant_type"][0], &*poll["code"][0], &*poll["user_code"][0]), ("device_code", "D1", "U1"));
    stage.world.clock.advance(seconds(1));
}
