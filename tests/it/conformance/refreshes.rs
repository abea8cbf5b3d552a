//! Q14, Q15 and Q43 to Q49, Q53: how a grant is renewed.

use super::quirk;
use super::stage::{Stage, answer, pairs, told};
use crate::harness::{MEGAN, seconds};
use crate::wire::until;
use attache::base::clock::Clock;
use attache::store::State;
use futures_util::future::join_all;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn q14_redirect_uri_demanded_on_refresh() {
    let stage = Stage::new("calls: {refresh: {params: {redirect_uri: \"{redirect_uri}\"}}}\n").await;
    stage.refreshes(&quirk("Q14")).await.is_ok();
    assert_eq!(stage.stored().await.expect("there").refresh_token, Some("R2".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn q15_another_url_for_refresh() {
    let stage = Stage::new("client_auth: basic\ncalls: {refresh: {url: http://ACME/v1/oauth/refresh, omit: [grant_type]}}\n").await;
    stage.refreshes(&quirk("Q15")).await.is_ok();
    let connection = stage.stored().await.expect("there");
    assert_eq!((connection.access_token.expose(), connection.refresh_token), ("A2", Some("R1".into())));
    stage.connect().await;
    assert_eq!(stage.token_calls().pop().expect("a call").target, "/token", "the code goes where it always went");
}

#[tokio::test(flavor = "multi_thread")]
async fn q43_refresh_token_lifetime_under_other_names() {
    let stage = Stage::new("reply: {refresh_expires_in: x_refresh_token_expires_in}\n").await;
    stage.refreshes(&quirk("Q43")).await.is_ok();
    let connection = stage.stored().await.expect("there");
    let ends = connection.obtained_at.plus(seconds(8_726_400)).to_rfc3339();
    assert_eq!(told(&connection, "refresh_expires_at"), ends);
    // The app sees it, to ask its end user in time.
    let shown = stage.world.admin("GET", &format!("/v1/connections/acme/{MEGAN}")).await.is_ok().json();
    assert_eq!(shown["metadata"]["refresh_expires_at"], ends);
}

#[tokio::test(flavor = "multi_thread")]
async fn q44_refresh_reply_without_refresh_token() {
    let stage = Stage::new("").await;
    stage.refreshes(&quirk("Q44")).await.is_ok();
    assert_eq!(stage.stored().await.expect("there").refresh_token, Some("R1".into()));
    for absent in [json!(""), json!(null)] {
        stage.has_expired(json!({})).await;
        stage.will_answer([answer(200, &json!({"access_token": "A3", "refresh_token": absent}))]);
        stage.call().await.is_ok();
        assert_eq!(stage.stored().await.expect("there").refresh_token, Some("R1".into()), "{absent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q45_refresh_token_is_single_use() {
    let stage = Stage::new("").await;
    stage.has_expired(json!({})).await;
    let quirk = quirk("Q45");
    stage.will_answer(quirk.responses.clone());
    // A second use would be answered with the end of the grant.
    for answer in join_all((0..50).map(|_| stage.call())).await {
        answer.is_ok();
    }
    assert_eq!(stage.token_calls().len(), 1);
    super::stage::check(&stage.token_call(), &quirk, &stage.redirect_uri(), &[]);
    let connection = stage.stored().await.expect("there");
    assert_eq!((connection.access_token.expose(), connection.refresh_token), ("A2", Some("R2".into())));
    // Used a second time, as after a restore from a backup, it ends the grant.
    stage.has_expired(json!({})).await;
    stage.call().await.is_problem("reconnect-required", 401, "http_request_denied");
    assert_eq!(stage.token_calls().len(), 2);
    // An answer that is lost is not asked for again at once: the token may be spent.
    stage.has_expired(json!({})).await;
    stage.will_answer([json!("hang up")]);
    stage.call().await.is_problem("refresh-failed", 502, "proxy_internal_response");
    assert_eq!(stage.token_calls().len(), 3, "one more, and no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn q46_previous_refresh_token_stays_valid() {
    let stage = Stage::new("refresh: {replay: true}\n").await;
    stage.has_expired(json!({})).await;
    stage.will_answer([json!("hang up")]);
    stage.will_answer(quirk("Q46").responses);
    stage.call().await.is_ok();
    let calls = stage.token_calls();
    assert_eq!(calls.iter().map(|call| pairs(&call.body)["refresh_token"][0].clone()).collect::<Vec<_>>(), ["R1", "R1"]);
    super::stage::check(&calls[1], &quirk("Q46"), &stage.redirect_uri(), &[]);
    let connection = stage.stored().await.expect("there");
    assert_eq!((connection.access_token.expose(), connection.refresh_token), ("A3", Some("R3".into())));
    // One replay, and only of what was lost.
    stage.has_expired(json!({})).await;
    stage.will_answer([json!("hang up"), json!("hang up")]);
    stage.call().await.is_problem("refresh-failed", 502, "proxy_internal_response");
    assert_eq!(stage.token_calls().len(), 4);
    stage.has_expired(json!({})).await;
    stage.will_answer([answer(503, &json!({}))]);
    stage.call().await.is_problem("refresh-failed", 502, "proxy_internal_response");
    assert_eq!(stage.token_calls().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn q47_refreshing_kills_the_old_access_token_at_once() {
    let stage = Stage::new("").await;
    stage.connect().await.answer.is_ok();
    stage.world.clock.advance(seconds(60));
    stage.call().await.is_ok();
    // Somebody refreshes, and every call that went out with the old token comes back with 401.
    stage.refuse("A9");
    stage.will_answer(quirk("Q47").responses);
    for answer in join_all((0..20).map(|_| stage.call())).await {
        answer.is_ok();
    }
    assert_eq!(stage.token_calls().len(), 2, "the code, and one refresh for all of them");
    assert_eq!(stage.api_call().header("authorization"), "Bearer A2");
}

#[tokio::test(flavor = "multi_thread")]
async fn q48_refresh_refused_when_too_early() {
    let definition = "refresh: {not_before: 9m30s}\nerrors: {passing: [{says: Access token not expired}]}\n";
    let stage = Stage::new(definition).await;
    stage.will_answer([answer(200, &json!({"access_token": "A1", "refresh_token": "R1", "expires_in": 600}))]);
    stage.connect().await.answer.is_ok();
    // Whatever asks for it: a 401, the margin, an operator.
    stage.world.clock.advance(seconds(500));
    stage.call().await.is_ok();
    let asked = stage.world.admin("POST", &format!("/v1/connections/acme/{MEGAN}/refresh")).await;
    assert_eq!(asked.status, 502, "{}", asked.text());
    stage.refuse("A1");
    assert_eq!(stage.call().await.status, 401);
    assert_eq!(stage.token_calls().len(), 1, "none was sent");
    // It is asked once it is old enough; a refusal all the same is no end of the grant, and nobody's fault.
    stage.world.clock.advance(seconds(75));
    stage.will_answer(quirk("Q48").responses);
    let asked = stage.world.admin("POST", &format!("/v1/connections/acme/{MEGAN}/refresh")).await;
    assert_eq!(asked.status, 502, "{}", asked.text());
    let connection = stage.stored().await.expect("there");
    assert_eq!((connection.state, connection.refresh_token), (State::Active, Some("R1".into())));
    assert_eq!(stage.token_calls().len(), 2);
}

const LONGER: &str = r#"
calls:
  extend: {method: GET, url: "http://ACME/access_token", omit: [client_id], params: {grant_type: ig_exchange_token, access_token: "{access_token}"}}
  refresh:
    method: GET
    url: http://ACME/refresh_access_token
    omit: [refresh_token, client_id, client_secret]
    params: {grant_type: ig_refresh_token, access_token: "{access_token}"}
refresh: {by: access_token}
metadata: {user_id: reply.user_id}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn q49_token_exchanged_for_a_longer_one() {
    const DAY: u64 = 24 * 3600;
    let stage = Stage::new(LONGER).await;
    stage.will_answer([
        answer(200, &json!({"access_token": "short", "user_id": 7})),
        answer(200, &json!({"access_token": "A1", "token_type": "bearer", "expires_in": 60 * DAY})),
    ]);
    stage.connect().await.answer.is_ok();
    let extend = stage.token_calls().remove(1);
    let query = pairs(extend.target.split_once('?').expect("a query").1.as_bytes());
    assert_eq!((&*extend.method, &*query["access_token"][0], &*query["client_secret"][0]), ("GET", "short", "s3"));
    let connection = stage.stored().await.expect("connected");
    assert_eq!((connection.access_token.expose(), &connection.refresh_token), ("A1", &Some("A1".into())));
    assert_eq!(connection.metadata["user_id"], "7");
    // Well before its end, for an expired one could not renew itself.
    stage.world.clock.advance(seconds(40 * DAY));
    stage.call().await.is_ok();
    assert_eq!(stage.token_calls().len(), 2);
    stage.world.clock.advance(seconds(10 * DAY));
    stage.will_answer(quirk("Q49").responses);
    stage.call().await.is_ok();
    until("the longer token", async || stage.stored().await.is_some_and(|connection| connection.access_token.expose() == "A2")).await;
    super::stage::check(&stage.token_calls()[2], &quirk("Q49"), &stage.redirect_uri(), &[]);
    // Once it has expired the end user must come back; nothing is asked of the provider for it.
    stage.world.clock.advance(seconds(61 * DAY));
    stage.call().await.is_problem("reconnect-required", 401, "http_request_denied");
    assert_eq!((stage.token_calls().len(), stage.stored().await.expect("kept").state), (3, State::Expired));
}

#[tokio::test(flavor = "multi_thread")]
async fn q49_what_is_put_renews_itself_too() {
    let stage = Stage::new(LONGER).await;
    let line = json!({"access_token": "A1", "expires_at": stage.world.clock.now().plus(seconds(3600)).to_rfc3339()});
    let put = stage.world.admin_json("PUT", &format!("/v1/connections/acme/{MEGAN}"), &line).await;
    assert_eq!(put.status, 201, "{}", put.text());
    assert_eq!(stage.stored().await.expect("put").refresh_token, Some("A1".into()));
    stage.call().await.is_ok();
    stage.world.clock.advance(seconds(3500));
    stage.call().await.is_ok();
    until("a new token", async || stage.stored().await.is_some_and(|connection| connection.access_token.expose() == "A9")).await;
}

/// Which host a grant is for was learnt of the account before: other tokens are for another, for all that is known.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_over_a_connection_does_not_go_to_its_hosts() {
    let stage = Stage::new("metadata: {shop: {from: reply.shop, kind: host, hosts: [\"*.shop.test\"]}}\n").await;
    let put = async |line: Value| {
        let put = stage.world.admin_json("PUT", &format!("/v1/connections/acme/{MEGAN}"), &line).await;
        assert!(put.status.is_success(), "{}", put.text());
        stage.stored().await.expect("put").metadata
    };
    put(json!({"access_token": "A", "refresh_token": "R", "metadata": {"shop": "a.shop.test", "refresh_expires_at": "2030-01-01T00:00:00Z", "plan": "x"}})).await;
    // A newer access token of the same grant says nothing new of the account.
    let same = put(json!({"access_token": "B", "refresh_token": "R"})).await;
    assert_eq!((same["shop"].as_str(), same.len()), (Some("a.shop.test"), 3));
    let others = put(json!({"access_token": "C", "refresh_token": "S"})).await;
    assert_eq!((others["plan"].as_str(), others.len()), (Some("x"), 1));
    let told = put(json!({"access_token": "D", "metadata": {"shop": "d.shop.test"}})).await;
    assert_eq!(told["shop"], "d.shop.test");
}

#[tokio::test(flavor = "multi_thread")]
async fn q49_without_the_longer_token_there_is_no_connection() {
    let revoke = r#"
  revoke: {url: "http://ACME/revoke", body: none, client_auth: none, headers: {Authorization: "Bearer {access_token}"}}
refresh: {by"#;
    let stage = Stage::new(&LONGER.replace("\nrefresh: {by", revoke)).await;
    stage.will_answer([answer(200, &json!({"access_token": "short"})), answer(400, &json!({"error": {"code": 190}}))]);
    assert_eq!(stage.connect().await.answer.status, 502);
    assert!(stage.stored().await.is_none());
    // What the code brought all the same is not left behind.
    let revoked = stage.token_calls().pop().expect("a call");
    assert_eq!((&*revoked.target, revoked.header("authorization"), revoked.body.len()), ("/revoke", "Bearer short", 0));
    assert!(revoked.all("content-type").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn q53_invalid_grant_for_a_passing_reason() {
    let stage = Stage::new("errors: {passing: [{member: error_codes.0, equals: 50076}]}\n").await;
    stage.refreshes(&quirk("Q53")).await.is_problem("refresh-failed", 502, "proxy_internal_response");
    assert_eq!(stage.stored().await.expect("kept").state, State::Active);
    // The same code without the sign is the end, once the record was read again: `token` holds that by
    // `a_refusal_after_another_writer_rotated_is_no_end`.
    let plain = Stage::new("").await;
    plain.refreshes(&quirk("Q53")).await.is_problem("reconnect-required", 401, "http_request_denied");
}
