//! Rules of the RFCs that hold for every provider and that no other test holds, each by its number in `tests/conformance/README.md`.

use super::stage::{Stage, answer, pairs};
use crate::harness::{MEGAN, seconds};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn p04_p06_the_redirect_uri_is_the_same_text_twice_and_a_code_is_sent_once() {
    for failure in [answer(503, &json!({})), answer(400, &json!({"error": "invalid_grant"})), json!("hang up")] {
        let stage = Stage::new("").await;
        stage.will_answer([failure]);
        let trip = stage.connect().await;
        assert_eq!(trip.answer.status, 502);
        let calls = stage.token_calls();
        assert_eq!(calls.len(), 1, "once, whatever came of it");
        assert_eq!(pairs(&calls[0].body)["redirect_uri"], [crate::browser::param(&trip.authorize, "redirect_uri")]);
    }
}

/// RFC 6749 §5.1: a token that the API tells to one who may read it is kept by nobody on the way.
#[tokio::test(flavor = "multi_thread")]
async fn p23_an_answer_with_a_token_in_it_is_not_stored() {
    let stage = Stage::new("").await;
    stage.connect().await.answer.is_ok();
    for path in [format!("/v1/connections/acme/{MEGAN}/token"), format!("/v1/connections/acme/{MEGAN}")] {
        let told = stage.world.admin("GET", &path).await;
        assert_eq!(told.header("cache-control"), "no-store", "{path}: {}", told.text());
    }
}

/// RFC 6749 §6: the same proof as of the code, no scope, nothing in the URL.
#[tokio::test(flavor = "multi_thread")]
async fn p21_p40_a_refresh_is_a_form_post_with_nothing_in_the_url_and_no_scope() {
    let stage = Stage::new("scopes: [a, b]\n").await;
    stage.connect().await.answer.is_ok();
    stage.world.clock.advance(seconds(3601));
    stage.call().await.is_ok();
    let calls = stage.token_calls();
    let (code, refresh) = (pairs(&calls[0].body), pairs(&calls[1].body));
    assert_eq!((&code["client_id"], &code["client_secret"]), (&refresh["client_id"], &refresh["client_secret"]));
    assert_eq!(refresh.keys().collect::<Vec<_>>(), ["client_id", "client_secret", "grant_type", "refresh_token"]);
    for call in &calls {
        assert_eq!((&*call.method, &*call.target, call.header("content-type")), ("POST", "/token", "application/x-www-form-urlencoded"));
    }
}

/// RFC 8414 §2: where nothing says how, it is Basic.
#[tokio::test(flavor = "multi_thread")]
async fn p56_without_a_word_on_it_the_client_proves_itself_by_basic() {
    let stage = Stage::new("!client_auth\n").await;
    stage.connect().await.answer.is_ok();
    let call = stage.token_call();
    assert_eq!((call.header("authorization"), pairs(&call.body).get("client_secret")), ("Basic aWQ6czM=", None));
}

/// RFC 7009 §2.2.1: what the provider says to a revocation does not keep the connection here.
#[tokio::test(flavor = "multi_thread")]
async fn p53_a_deletion_goes_on_whatever_becomes_of_the_revocation() {
    for (told, revoked) in [
        (answer(200, &json!("")), "yes"),
        (answer(400, &json!({"error": "unsupported_token_type"})), "unsupported"),
        (json!({"status": 503, "headers": {"Retry-After": "3"}, "body": ""}), "no"),
        (json!("hang up"), "no"),
    ] {
        let stage = Stage::new("revoke_url: http://ACME/revoke\n").await;
        stage.connect().await.answer.is_ok();
        stage.publish("/revoke", &told);
        let answer = stage.world.admin("DELETE", &format!("/v1/connections/acme/{MEGAN}")).await;
        assert_eq!(answer.is_ok().json()["revoked"], revoked, "{told}");
        assert!(stage.stored().await.is_none());
        let first = pairs(&stage.token_calls()[1].body);
        assert_eq!((&*first["token"][0], &*first["token_type_hint"][0]), ("R9", "refresh_token"), "the refresh token first");
    }
}
