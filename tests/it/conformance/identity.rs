//! Q59 to Q61, Q63 and Q68: how the token goes on a call, who we say we are, and whom we believe to be the provider.

use super::quirk;
use super::stage::{Stage, answer, come_back};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn q59_scheme_word_other_than_bearer() {
    let stage = Stage::new("attach: {scheme: Zoho-oauthtoken}\n").await;
    stage.will_answer([answer(200, &json!({"access_token": "A1"}))]);
    stage.connect().await.answer.is_ok();
    stage.call_as("/acme/x", &[("authorization", "Bearer the-apps-own")]).await.is_ok();
    assert_eq!(stage.api_call().header("authorization"), quirk("Q59").request["headers"]["Authorization"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn q60_token_in_a_custom_header() {
    let stage = Stage::new("attach: {header: X-Shopify-Access-Token}\n").await;
    stage.will_answer([answer(200, &json!({"access_token": "A1"}))]);
    stage.connect().await.answer.is_ok();
    stage.call_as("/acme/x", &[("x-shopify-access-token", "the-apps-own")]).await.is_ok();
    let call = stage.api_call();
    assert_eq!(call.all("x-shopify-access-token"), [quirk("Q60").request["headers"]["X-Shopify-Access-Token"].as_str().expect("text")]);
    assert_eq!(call.header("authorization"), "", "no Authorization at all");
}

#[tokio::test(flavor = "multi_thread")]
async fn q61_token_in_the_query() {
    let stage = Stage::new("attach: {query: access_token}\n").await;
    stage.will_answer([answer(200, &json!({"access_token": "A1"}))]);
    stage.connect().await.answer.is_ok();
    stage.call_as("/acme/x?access_token=the-apps-own&v=20250101", &[]).await.is_ok();
    let call = stage.api_call();
    let query = super::stage::pairs(call.target.split_once('?').expect("a query").1.as_bytes());
    let quirk = quirk("Q61");
    assert_eq!(query["access_token"], [quirk.request["query"]["access_token"].as_str().expect("text")], "the app's own is replaced");
    assert_eq!(query["v"], [quirk.request["query"]["v"].as_str().expect("text")]);
    assert_eq!(call.header("authorization"), "");
}

/// Of calls to the authorization server; what an API call carries is `api`'s (Q62).
#[tokio::test(flavor = "multi_thread")]
async fn q63_user_agent_on_every_token_call() {
    let stage = Stage::new("revoke_url: http://ACME/revoke\nlookups: [{url: \"http://ACME/me\", metadata: {login: login}}]\n").await;
    stage.publish("/me", &quirk("Q63").responses[0]);
    stage.connect().await.answer.is_ok();
    stage.has_expired(json!({})).await;
    stage.call().await.is_ok();
    stage.world.admin("DELETE", &format!("/v1/connections/acme/{}", crate::harness::MEGAN)).await.is_ok();
    let calls = stage.token_calls();
    assert_eq!(calls.iter().map(|call| &*call.target).collect::<Vec<_>>(), ["/token", "/me", "/token", "/revoke"]);
    for call in calls {
        assert_eq!(call.header("user-agent"), concat!("attache/", env!("CARGO_PKG_VERSION")), "{}", call.target);
        assert_eq!(call.header("accept"), "application/json", "{}", call.target);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q68_discovery_document_lies_or_lacks() {
    let definition = "!authorize_url\n!token_url\nissuer: http://ACME\nissuers: [\"http://ACME/*/v2.0\"]\n";
    let publish = |stage: &Stage| {
        let base = format!("http://{}", stage.address());
        let mut document = quirk("Q68").responses[0].clone();
        document["body"] = json!({
            "issuer": document["body"]["issuer"].as_str().expect("text").replace("https://login.microsoftonline.com", &base),
            "token_endpoint": document["body"]["token_endpoint"].as_str().expect("text").replace("https://as.test", &base),
            "authorization_endpoint": format!("{base}/authorize"),
            "authorization_response_iss_parameter_supported": true,
        });
        stage.publish("/.well-known/openid-configuration", &document);
        base
    };
    let stage = Stage::new(definition).await;
    let base = publish(&stage);
    let (mut browser, trip) = stage.set_out(json!({}), &[]).await;
    assert_eq!((&*stage.token_call().method, &*stage.token_call().target), ("GET", "/.well-known/openid-configuration"));
    come_back(&mut browser, &trip, &[("code", "C1"), ("iss", &format!("{base}/tenant-1/v2.0"))]).await.is_ok();
    for iss in [Some("https://evil.test/x/v2.0".to_owned()), Some(format!("{base}/a/b/v2.0")), None] {
        let (mut browser, trip) = stage.set_out(json!({}), &[]).await;
        let iss: Vec<(&str, &str)> = iss.iter().map(|iss| ("iss", iss.as_str())).collect();
        let before = stage.token_calls().len();
        assert_eq!(come_back(&mut browser, &trip, &[&[("code", "C1")], &iss[..]].concat()).await.status, 502);
        assert_eq!(stage.token_calls().len(), before, "the code went nowhere");
    }
    // Only where it is declared.
    let strict = Stage::new(&definition.replace("issuers:", "display_name: Acme #")).await;
    publish(&strict);
    let (_, trip) = strict.set_out(json!({}), &[]).await;
    assert_eq!(trip.answer.status, 502, "{}", trip.answer.text());
    // What the definition says goes before what is discovered.
    let written = Stage::new(&definition.replace("!token_url", "token_url: http://ACME/written")).await;
    publish(&written);
    let (mut browser, trip) = written.set_out(json!({}), &[]).await;
    come_back(&mut browser, &trip, &[("code", "C1"), ("iss", &format!("http://{}", written.address()))]).await.is_ok();
    assert_eq!(written.token_calls().pop().expect("a call").target, "/written");
}
