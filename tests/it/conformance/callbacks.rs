//! Q24 to Q30: how the browser comes back.

use super::quirk;
use super::stage::{Stage, answer, come_back, pairs, told};
use crate::browser::param;
use crate::upstream::Upstream;
use aws_lc_rs::hmac;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn q24_get_callback_replaced_by_form_post() {
    let stage = Stage::new("authorize_params: {response_mode: form_post}\n").await;
    let (mut browser, trip) = stage.set_out(json!({}), &[]).await;
    let state = param(&trip.authorize, "state");
    let mut form: Vec<(String, String)> = Vec::new();
    for (name, value) in quirk("Q24").request["body"].as_object().expect("a form") {
        let value = if name == "state" { state.clone() } else { value.as_str().expect("text").to_owned() };
        form.push((name.clone(), value));
    }
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // It comes from the provider's site, so that the browser sends no Lax cookie along.
    let posted = crate::browser::Browser::default().post_from(&trip.redirect_uri, &form, &[("origin", "https://as.test")]).await;
    assert_eq!(posted.status, 303, "{}", posted.text());
    assert!(stage.token_calls().is_empty(), "nothing is spent before the browser has shown itself");
    let other = crate::browser::Browser::default().get(&posted.header("location")).await;
    assert_eq!(other.status, 403, "another browser cannot take it");
    browser.get(&posted.header("location")).await.is_ok();
    assert_eq!(pairs(&stage.token_call().body)["code"], ["C1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn q25_fragment_or_suffix_junk_on_the_callback() {
    let stage = Stage::new("callback: {code_suffix: \"#_\"}\ncalls: {authorize: {fragment: wechat_redirect}}\n").await;
    let trip = stage.connect_with(&[("code", quirk("Q25").request["query"]["code"].as_str().expect("a code"))]).await;
    trip.answer.is_ok();
    assert!(trip.authorize.ends_with("#wechat_redirect"));
    assert_eq!(pairs(&stage.token_call().body)["code"], ["C1"]);
    let plain = Stage::new("").await;
    plain.connect_with(&[("code", "C1#_")]).await;
    assert_eq!(pairs(&plain.token_call().body)["code"], ["C1#_"], "only where it is declared");
}

/// The quirk's callback, which has no `state`.
async fn without_state(browser: &mut crate::browser::Browser, redirect_uri: &str) -> crate::wire::Answer {
    let mut url = url::Url::parse(redirect_uri).expect("a URL");
    for (name, value) in quirk("Q26").request["query"].as_object().expect("parameters") {
        url.query_pairs_mut().append_pair(name, value.as_str().expect("text"));
    }
    browser.get(url.as_str()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn q26_state_missing_or_altered() {
    let strict = Stage::new("").await;
    let (mut browser, trip) = strict.set_out(json!({}), &[]).await;
    assert_eq!(without_state(&mut browser, &trip.redirect_uri).await.status, 410);
    let altered = [("code", "C1"), ("state", &*param(&trip.authorize, "state").to_lowercase())];
    assert_eq!(come_back(&mut browser, &trip, &altered).await.status, 410);
    assert!(strict.token_calls().is_empty());

    let definition = r#"
callback: {state: cookie}
metadata: {host: {from: callback.hostname, kind: host, hosts: [eapi.pcloud.com, api.pcloud.com], required: true}}
"#;
    let stage = Stage::new(definition).await;
    let (mut browser, trip) = stage.set_out(json!({}), &[]).await;
    assert_eq!(without_state(&mut crate::browser::Browser::default(), &trip.redirect_uri).await.status, 410, "a stranger's browser");
    without_state(&mut browser, &trip.redirect_uri).await.is_ok();
    assert_eq!(told(&stage.stored().await.expect("connected"), "host"), "eapi.pcloud.com");
    // A wrong state is no missing one, and of two attempts none is taken.
    let (mut browser, trip) = stage.set_out(json!({}), &[]).await;
    assert_eq!(come_back(&mut browser, &trip, &[("code", "C1"), ("state", "x")]).await.status, 410);
    stage.set_out_by(&mut browser, json!({}), &[]).await;
    assert_eq!(without_state(&mut browser, &trip.redirect_uri).await.status, 403);
}

/// A provider that forgets `state` on errors alone: a stranger's code must not come in by that door (RFC 9700 §4.7).
#[tokio::test(flavor = "multi_thread")]
async fn q26_a_code_without_state_is_refused_where_errors_alone_lack_it() {
    let stage = Stage::new("callback: {state: cookie_on_error}\n").await;
    let (mut browser, trip) = stage.set_out(json!({}), &[]).await;
    for strangers in ["code=STRANGERS", "code=STRANGERS&error=access_denied", ""] {
        assert_eq!(browser.get(&format!("{}?{strangers}", trip.redirect_uri)).await.status, 410, "{strangers}");
    }
    assert!(stage.token_calls().is_empty() && stage.stored().await.is_none());
    assert_eq!(come_back(&mut browser, &trip, &[("code", "C1")]).await.status, 200, "its own goes on");
    let (mut browser, trip) = stage.set_out(json!({}), &[]).await;
    let denied = browser.get(&format!("{}?error=access_denied", trip.redirect_uri)).await;
    assert!(denied.status == 200 && denied.text().contains("was not connected"));
}

/// `denied=` is OAuth 1.0a's word too, but only where that is spoken.
#[tokio::test(flavor = "multi_thread")]
async fn q26_a_denial_without_state_is_heard() {
    let stage = Stage::new("callback: {state: cookie, denied: [\"denied=\"]}\n").await;
    for param in ["denied=x", "denied=x&oauth_token=y"] {
        let (mut browser, trip) = stage.set_out(json!({}), &[]).await;
        let denied = browser.get(&format!("{}?{param}", trip.redirect_uri)).await;
        assert!(denied.status == 200 && denied.text().contains("was not connected"), "{param}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q27_callback_picks_the_token_or_api_host() {
    let evil = Upstream::plain().await;
    let definition = r#"
metadata: {server: {from: callback.accounts-server, kind: origin, hosts: [127.0.0.1, "*.zoho.eu"], required: true}, location: callback.location}
calls:
  code: {url: "http://{server}/oauth/v2/token"}
  refresh: {url: "http://{server}/oauth/v2/token"}
"#;
    let stage = Stage::new(definition).await;
    let server = format!("http://{}", stage.address());
    stage.connect_with(&[("code", "C1"), ("location", "eu"), ("accounts-server", &server)]).await.answer.is_ok();
    let connection = stage.stored().await.expect("connected");
    assert_eq!((told(&connection, "server"), told(&connection, "location")), (&*stage.address(), "eu"));
    assert_eq!(stage.token_call().target, "/oauth/v2/token");
    stage.world.clock.advance(crate::harness::seconds(3601));
    stage.call().await.is_ok();
    assert_eq!(stage.token_calls().len(), 2, "the refresh goes to the same host");

    // The quirk's own host is on the list; where it leads is not this test's.
    let quirks = quirk("Q27").request["query"]["accounts-server"].as_str().expect("a URL").to_owned();
    let evils = [
        format!("http://localhost:{}", evil.address.port()),
        format!("https://localhost:{}", evil.address.port()),
        format!("{quirks}.evil.test"),
        format!("{quirks}@localhost:{}", evil.address.port()),
        format!("http://127.0.0.1@localhost:{}", evil.address.port()),
        format!("{quirks}:x"),
        "https://169.254.169.254".to_owned(),
        "zoho.eu".to_owned(),
        String::new(),
    ];
    let before = stage.token_calls().len();
    for evil in &evils {
        let trip = stage.connect_with(&[("code", "C1"), ("accounts-server", evil)]).await;
        assert_eq!(trip.answer.status, 502, "{evil}");
        assert!(!trip.answer.text().contains("zoho"), "{evil}: nothing of it on the page");
    }
    assert_eq!((evil.connections(), stage.token_calls().len()), (0, before), "no secret went anywhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn q28_callback_is_signed() {
    let stage = Stage::new(
        "callback: {hmac: hmac}\nmetadata: {shop: {from: callback.shop, kind: host, hosts: [\"*.myshopify.com\"], required: true}}\n",
    )
    .await;
    let (mut browser, trip) = stage.set_out(json!({}), &[]).await;
    let state = param(&trip.authorize, "state");
    let query = quirk("Q28").request["query"].clone();
    let all = |shop: &str, hmac: &str| -> Vec<(String, String)> {
        query
            .as_object()
            .expect("parameters")
            .iter()
            .map(|(name, value)| {
                let value = match &**name {
                    "state" => state.clone(),
                    "shop" => shop.to_owned(),
                    "hmac" => hmac.to_owned(),
                    _ => value.as_str().expect("text").to_owned(),
                };
                (name.clone(), value)
            })
            .collect()
    };
    let mut others: Vec<String> =
        all("a.myshopify.com", "").into_iter().filter(|(name, _)| name != "hmac").map(|(name, value)| format!("{name}={value}")).collect();
    others.sort();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"s3"), others.join("&").as_bytes());
    let signature: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    for (shop, hmac) in
        [("b.myshopify.com", &*signature), ("a.myshopify.com", &"0".repeat(64)), ("a.myshopify.com", "b1..."), ("a.myshopify.com", "")]
    {
        let params = all(shop, hmac);
        let params: Vec<_> = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(come_back(&mut browser, &trip, &params).await.status, 403, "{shop} {hmac}");
    }
    assert!(stage.token_calls().is_empty(), "before the code was spent");
    let params = all("a.myshopify.com", &signature);
    let params: Vec<_> = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    come_back(&mut browser, &trip, &params).await.is_ok();
    assert_eq!(told(&stage.stored().await.expect("connected"), "shop"), "a.myshopify.com");
}

#[tokio::test(flavor = "multi_thread")]
async fn q29_denial_not_said_by_access_denied() {
    let stage = Stage::new("callback: {error: error_reason, denied: [no_thanks, \"denied=\"]}\n").await;
    let quirks = quirk("Q29").request["query"]["error"].as_str().expect("a code").to_owned();
    for (params, status) in [
        (&[("error", &*quirks), ("error_description", "<script>x</script>")][..], 200),
        (&[("error_reason", "no_thanks"), ("error", "odd")], 200),
        (&[("denied", "token")], 200),
        (&[("error", "server_error"), ("error_description", "<script>x</script>")], 502),
    ] {
        let trip = stage.connect_with(params).await;
        assert_eq!(trip.answer.status, status, "{params:?}");
        assert!(!trip.answer.text().contains("script"), "no text of the provider's");
        assert_eq!(trip.answer.text().contains("was not connected"), status == 200, "{params:?}");
    }
    assert!(stage.token_calls().is_empty() && stage.stored().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn q30_granted_scopes_come_on_the_callback() {
    let stage =
        Stage::new("callback: {scope: scope}\nscopes: [read, \"activity:read\", \"activity:write\"]\nscope_separator: \",\"\n").await;
    stage.will_answer([answer(200, &json!({"access_token": "A1", "expires_in": 21600, "refresh_token": "R1"}))]);
    let scope = quirk("Q30").request["query"]["scope"].as_str().expect("scopes").to_owned();
    stage.connect_with(&[("code", "C1"), ("scope", &scope)]).await.answer.is_ok();
    let connection = stage.stored().await.expect("connected");
    assert_eq!(connection.scopes, ["read", "activity:read"]);
    assert_eq!(connection.missing_scopes, ["activity:write"]);
    // What the token endpoint says goes before what came through the browser.
    stage.will_answer([answer(200, &json!({"access_token": "A2", "scope": "read"}))]);
    stage.connect_with(&[("code", "C2"), ("scope", &scope)]).await.answer.is_ok();
    assert_eq!(stage.stored().await.expect("connected").scopes, ["read"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_codes_call_may_name_the_scopes_that_were_asked_for() {
    let stage = Stage::new("scopes: [a, b]\nscope_separator: \",\"\ncalls: {code: {params: {scope: \"{scope}\"}}}\n").await;
    stage.connect().await.answer.is_ok();
    assert_eq!(pairs(&stage.token_call().body)["scope"], ["a,b"]);
}
