//! Q56, Q57 and what connecting asks for: values that choose where a secret or a token goes.

use super::quirk;
use super::stage::{Stage, answer, come_back, told};
use crate::harness::MEGAN;
use crate::upstream::Upstream;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn q56_api_host_in_the_token_reply() {
    let evil = Upstream::plain().await;
    let definition = "revoke_url: http://ACME/revoke\nmetadata: {api_domain: {from: reply.api_domain, kind: origin, hosts: [\"*.pipedrive.com\"], required: true}}\n";
    let stage = Stage::new(definition).await;
    let connection = stage.plays(&quirk("Q56")).await;
    assert_eq!(told(&connection, "api_domain"), "acme.pipedrive.com");
    stage.world.admin("DELETE", &format!("/v1/connections/acme/{MEGAN}")).await.is_ok();
    let revoked = |stage: &Stage| stage.token_calls().iter().filter(|seen| seen.target == "/revoke").count();
    let before = revoked(&stage);
    for (tries, domain) in [
        json!(format!("http://localhost:{}", evil.address.port())),
        json!("https://evil.test"),
        json!("https://acme.pipedrive.com.evil.test"),
        json!("https://pipedrive.com"),
        json!("https://acme.pipedrive.com@evil.test"),
        json!("acme.pipedrive.com"),
        json!(7),
        json!(null),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({"access_token": "A1", "refresh_token": "R1", "api_domain": domain});
        stage.will_answer([answer(200, &body), answer(200, &json!({}))]);
        assert_eq!(stage.connect().await.answer.status, 502, "{domain}");
        assert!(stage.stored().await.is_none(), "{domain}");
        assert_eq!(revoked(&stage), before + tries + 1, "{domain}: what was granted is revoked");
    }
    assert_eq!(evil.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_does_not_move_the_api_to_a_host_that_is_not_listed() {
    let stage =
        Stage::new("metadata: {api_domain: {from: reply.api_domain, kind: origin, hosts: [\"*.pipedrive.com\"], required: true}}\n").await;
    for (domain, expected) in [("https://b.pipedrive.com", "b.pipedrive.com"), ("https://evil.test", "a.pipedrive.com")] {
        stage.has_expired(json!({"api_domain": "a.pipedrive.com"})).await;
        stage.will_answer([answer(200, &json!({"access_token": "A1", "refresh_token": "R1", "api_domain": domain}))]);
        stage.call().await.is_ok();
        assert_eq!(told(&stage.stored().await.expect("there"), "api_domain"), expected);
    }
}

const MAILCHIMP: &str = r#"
revoke_url: http://ACME/revoke
lookups:
  - url: http://ACME/oauth2/metadata
    attach: {scheme: OAuth}
    metadata: {dc: dc, api: {from: api_endpoint, kind: origin, hosts: ["*.api.mailchimp.com"], required: true}}
  - url: http://ACME/tenants/{dc}
    metadata: {tenant: 0.id}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn q57_api_host_or_tenant_needs_another_call() {
    let stage = Stage::new(MAILCHIMP).await;
    let quirk = quirk("Q57");
    stage.publish("/oauth2/metadata", &quirk.responses[0]);
    stage.publish("/tenants/us6", &answer(200, &json!([{"id": 17_841_400_000_000_001_u64}])));
    stage.will_answer([answer(200, &json!({"access_token": "A1"}))]);
    stage.connect().await.answer.is_ok();
    let calls = stage.token_calls();
    super::stage::check(&calls[1], &quirk, &stage.redirect_uri(), &[]);
    assert_eq!((&*calls[2].target, calls[2].header("authorization")), ("/tenants/us6", "Bearer A1"));
    let connection = stage.stored().await.expect("connected");
    assert_eq!(
        (told(&connection, "dc"), told(&connection, "api"), told(&connection, "tenant")),
        ("us6", "us6.api.mailchimp.com", "17841400000000001")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_that_the_connection_needs_fails_it_and_another_does_not() {
    let evil = json!({"dc": "us6", "api_endpoint": "https://us6.api.mailchimp.com.evil.test"});
    for needed in
        [answer(500, &json!({})), answer(200, &json!({"dc": "us6"})), answer(200, &evil), answer(200, &json!("<html>")), json!("hang up")]
    {
        let stage = Stage::new(MAILCHIMP).await;
        stage.publish("/oauth2/metadata", &needed);
        assert_eq!(stage.connect().await.answer.status, 502, "{needed}");
        assert!(stage.stored().await.is_none());
        assert_eq!(stage.token_calls().pop().expect("a call").target, "/revoke", "what was granted is revoked");
    }
    let stage = Stage::new(MAILCHIMP).await;
    stage.publish("/oauth2/metadata", &quirk("Q57").responses[0]).publish("/tenants/us6", &answer(404, &json!({})));
    stage.connect().await.answer.is_ok();
    assert_eq!(told(&stage.stored().await.expect("connected"), "tenant"), "");
}

const ZENDESK: &str = r#"
authorize_url: http://{subdomain}.localhost/oauth/authorizations/new
token_url: http://ACME/{subdomain}/oauth/tokens
inputs:
  subdomain: {label: Zendesk subdomain, example: acme, suffix: .zendesk.com, kind: label}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_connecting_asks_for_is_typed_on_the_page() {
    let stage = Stage::new(ZENDESK).await;
    let (mut browser, trip) = stage.set_out(json!({}), &[]).await;
    assert_eq!(trip.answer.status, 400, "nothing was typed");
    assert!(trip.answer.text().contains("Enter “Zendesk subdomain”."), "{}", trip.answer.text());
    let (_, trip) = stage.set_out(json!({}), &[("subdomain", "evil.test/<b>")]).await;
    let text = trip.answer.text();
    assert_eq!(trip.answer.status, 400);
    assert!(text.contains("“Zendesk subdomain” is not as it must be. An example: acme"), "{text}");
    assert!(text.contains("value=\"evil.test/&#60;b&#62;\"") && text.contains("<label for=\"subdomain-acme\">Zendesk subdomain"), "{text}");
    let trip = stage.set_out_by(&mut browser, json!({}), &[("subdomain", "https://Acme.zendesk.com/agent")]).await;
    assert!(trip.authorize.starts_with("http://acme.localhost/oauth/authorizations/new?"), "{}", trip.authorize);
    come_back(&mut browser, &trip, &[("code", "C1")]).await.is_ok();
    assert_eq!(stage.token_call().target, "/acme/oauth/tokens");
    assert_eq!(told(&stage.stored().await.expect("connected"), "subdomain"), "acme");
    stage.world.clock.advance(crate::harness::seconds(3601));
    stage.call().await.is_ok();
    assert_eq!(stage.token_calls().pop().expect("a refresh").target, "/acme/oauth/tokens", "kept with the connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_or_the_operator_may_give_it_instead() {
    let stage = Stage::new(ZENDESK).await;
    let (mut browser, trip) = stage.set_out(json!({"metadata": {"subdomain": "acme", "order": 7}}), &[]).await;
    come_back(&mut browser, &trip, &[("code", "C1")]).await.is_ok();
    assert_eq!(stage.stored().await.expect("connected").metadata["order"], 7);
    let wrong = json!({"end_user": MEGAN, "providers": ["acme"], "metadata": {"subdomain": "evil.test"}});
    let refused = stage.world.admin_json("POST", "/v1/connect-sessions", &wrong).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    let fixed = Stage::new(&ZENDESK.replace("suffix:", "value: acme, suffix:")).await;
    let (_, trip) = fixed.set_out(json!({}), &[]).await;
    assert!(trip.authorize.starts_with("http://acme.localhost/"), "nobody is asked: {}", trip.answer.text());
}

/// An app's metadata is believed in what it may choose, and in nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_is_not_listed_sends_no_secret_anywhere() {
    let evil = Upstream::plain().await;
    let definition = r#"
metadata: {server: {from: callback.server, kind: host, hosts: [127.0.0.1]}}
calls: {refresh: {url: "http://{server}/token"}}
"#;
    let stage = Stage::new(definition).await;
    for server in [format!("localhost:{}", evil.address.port()), "evil.test".into(), format!("x@{}", evil.address), String::new()] {
        stage.has_expired(json!({"server": server})).await;
        stage.call().await.is_problem("refresh-failed", 502, "proxy_internal_response");
    }
    assert_eq!((evil.connections(), stage.token_calls().len()), (0, 0));
    stage.has_expired(json!({"server": stage.address()})).await;
    stage.call().await.is_ok();
}

/// Whoever connects anew may do so with another account: what was learnt of the one before is not carried over.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_learnt_of_another_account_does_not_stay() {
    let definition = "metadata: {tenant: reply.tenant, realm: callback.realm}\nreply: {refresh_expires_in: life}\n";
    let stage = Stage::new(definition).await;
    stage.will_answer([answer(200, &json!({"access_token": "A1", "refresh_token": "R1", "tenant": "T1", "life": 99}))]);
    let (mut browser, trip) = stage.set_out(json!({"metadata": {"order": 7}}), &[]).await;
    come_back(&mut browser, &trip, &[("code", "C1"), ("realm", "7")]).await.is_ok();
    let first = stage.stored().await.expect("connected");
    assert_eq!((told(&first, "tenant"), told(&first, "realm")), ("T1", "7"));
    assert!(first.metadata.contains_key("refresh_expires_at"));
    stage.connect().await.answer.is_ok();
    let second = stage.stored().await.expect("connected");
    assert_eq!(second.metadata.into_iter().collect::<Vec<_>>(), [("order".to_owned(), json!(7))], "the app's own stays");
}

/// With the app's last word, over a connection that stands: what was learnt comes with the grant.
#[tokio::test(flavor = "multi_thread")]
async fn a_completion_brings_what_was_learnt() {
    let stage = Stage::new("metadata: {tenant: reply.tenant}\n").await;
    let text = std::fs::read_to_string(stage.world.config()).expect("read");
    let allowed = text.replacen("providers:", "connect: {allowed_return_urls: [\"https://app.test/back\"]}\nproviders:", 1);
    std::fs::write(stage.world.config(), allowed).expect("written");
    stage.world.admin("POST", "/v1/reload").await.is_ok();
    for tenant in ["T1", "T2"] {
        stage.will_answer([answer(200, &json!({"access_token": tenant, "refresh_token": "R", "tenant": tenant}))]);
        let body = json!({"end_user": MEGAN, "providers": ["acme"], "complete": "app", "return_url": "https://app.test/back"});
        let made = stage.world.admin_json("POST", "/v1/connect-sessions", &body).await.json();
        let mut browser = crate::browser::Browser::default();
        let authorize = browser.set_out(made["connect_url"].as_str().expect("a link"), "acme").await;
        let back = format!("{}?code=C1&state={}", stage.redirect_uri(), crate::browser::param(&authorize, "state"));
        let completion = crate::browser::param(&browser.get(&back).await.header("location"), "completion");
        let path = format!("/v1/connect-sessions/{}/complete", made["session"].as_str().expect("an id"));
        stage.world.admin_json("POST", &path, &json!({"completion": completion, "end_user": MEGAN})).await.is_ok();
        let connection = stage.stored().await.expect("connected");
        assert_eq!((connection.access_token.expose(), told(&connection, "tenant")), (tenant, tenant));
    }
}
