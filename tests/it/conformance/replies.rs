//! Q31 to Q38, Q54, Q55 and Q58: how a grant is spelt.

use super::quirk;
use super::stage::{Stage, answer, told};
use crate::harness::MEGAN;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn q31_form_encoded_token_reply() {
    let connection = Stage::new("scopes: [repo, gist]\n").await.plays(&quirk("Q31")).await;
    assert_eq!((connection.access_token.expose(), connection.scopes), ("A1", vec!["repo".to_owned(), "gist".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn q32_json_with_wrong_content_type() {
    let connection = Stage::new("").await.plays(&quirk("Q32")).await;
    assert_eq!(connection.expires_at.map(|end| end.since(connection.obtained_at).as_secs()), Some(7200));
}

#[tokio::test(flavor = "multi_thread")]
async fn q33_jsonp_or_wrapped_script_error() {
    let stage = Stage::new("errors: {ends_grant: [100019]}\n").await;
    stage.will_answer(quirk("Q33").responses);
    assert_eq!(stage.connect().await.answer.status, 502);
    assert!(stage.stored().await.is_none());
    // The code within the wrapping is read: of a refresh it ends the grant.
    stage.has_expired(json!({})).await;
    stage.will_answer(quirk("Q33").responses);
    stage.call().await.is_problem("reconnect-required", 401, "http_request_denied");
    assert_eq!(stage.stored().await.expect("kept").last_error.as_deref(), Some("the provider answered 200 with 100019"));
}

#[tokio::test(flavor = "multi_thread")]
async fn q34_token_nested_or_enveloped() {
    let nested =
        Stage::new("token_url: http://ACME/api/oauth.v2.access\nreply: {at: authed_user}\nmetadata: {team: reply.team.id}\n").await;
    let connection = nested.plays(&quirk("Q34")).await;
    assert_eq!((connection.access_token.expose(), told(&connection, "team")), ("xoxp-1", "T1"));
    assert_eq!(connection.scopes, ["search:read"]);

    let definition = r#"
scopes: ["chat:write", "user=search:read", "user=files:read"]
scope_groups: {user: user_scope}
scope_separator: ","
reply: {also: [{account: user, at: authed_user}]}
"#;
    let both = Stage::new(definition).await;
    let mut reply = quirk("Q34").responses[0].clone();
    reply["body"]["access_token"] = "xoxb-1".into();
    reply["body"]["scope"] = "chat:write".into();
    both.will_answer([reply]);
    both.connect().await.answer.is_ok();
    let (bot, user) = (both.stored().await.expect("the bot's"), both.stored_as("default:user").await.expect("the user's"));
    assert_eq!((bot.access_token.expose(), bot.missing_scopes.len()), ("xoxb-1", 0));
    assert_eq!((user.access_token.expose(), user.missing_scopes), ("xoxp-1", vec!["files:read".to_owned()]));
    both.call().await.is_ok();
    assert_eq!(both.api_call().header("authorization"), "Bearer xoxb-1");
    both.call_as("/acme/x", &[("x-end-user-account", "default:user")]).await.is_ok();
    assert_eq!(both.api_call().header("authorization"), "Bearer xoxp-1");
    // Where only the second one came, as for a client that asked for a user's scopes alone, it is the connection.
    both.will_answer(quirk("Q34").responses);
    both.connect().await.answer.is_ok();
    let only = both.stored().await.expect("the user's");
    assert_eq!((only.access_token.expose(), only.missing_scopes), ("xoxp-1", vec!["chat:write".to_owned(), "files:read".to_owned()]));
}

/// Both of them wait for the app's word, and both come with it.
#[tokio::test(flavor = "multi_thread")]
async fn q34_a_second_grant_waits_for_the_app_too() {
    let stage = Stage::new("reply: {also: [{account: user, at: authed_user}]}\n").await;
    let mut reply = quirk("Q34").responses[0].clone();
    reply["body"]["access_token"] = "xoxb-1".into();
    stage.will_answer([reply]);
    let allowed = std::fs::read_to_string(stage.world.config()).expect("read").replacen(
        "providers:",
        "connect: {allowed_return_urls: [\"https://app.test/back\"]}\nproviders:",
        1,
    );
    std::fs::write(stage.world.config(), allowed).expect("written");
    stage.world.admin("POST", "/v1/reload").await.is_ok();
    let body = json!({"end_user": MEGAN, "providers": ["acme"], "complete": "app", "return_url": "https://app.test/back"});
    let made = stage.world.admin_json("POST", "/v1/connect-sessions", &body).await.json();
    let mut browser = crate::browser::Browser::default();
    let link = made["connect_url"].as_str().expect("a link").to_owned();
    let authorize = browser.set_out(&link, "acme").await;
    let back = format!("{}?code=C1&state={}", stage.redirect_uri(), crate::browser::param(&authorize, "state"));
    let completion = crate::browser::param(&browser.get(&back).await.header("location"), "completion");
    assert!(stage.stored_as("default:user").await.is_none());
    let path = format!("/v1/connect-sessions/{}/complete", made["session"].as_str().expect("an id"));
    stage.world.admin_json("POST", &path, &json!({"completion": completion, "end_user": MEGAN})).await.is_ok();
    assert_eq!(stage.stored_as("default:user").await.expect("there").access_token.expose(), "xoxp-1");
}

/// The second connection's name would be one that no call can say.
#[tokio::test(flavor = "multi_thread")]
async fn q34_a_second_grant_needs_a_name_that_fits() {
    let stage = Stage::new("reply: {also: [{account: user, at: authed_user}]}\n").await;
    let mut reply = quirk("Q34").responses[0].clone();
    reply["body"]["access_token"] = "xoxb-1".into();
    stage.will_answer([reply]);
    let account = "a".repeat(254);
    let (mut browser, trip) = stage.set_out(json!({"account": account}), &[]).await;
    super::stage::come_back(&mut browser, &trip, &[("code", "C1")]).await.is_ok();
    assert!(stage.stored_as(&account).await.is_some());
    assert!(stage.stored_as(&format!("{account}:user")).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn q35_camel_case_or_renamed_reply_fields() {
    let definition = r#"
calls: {token: {body: json, omit: [redirect_uri], rename: {client_id: clientId, client_secret: clientSecret, grant_type: grantType, refresh_token: refreshToken}}}
reply: {access_token: accessToken, refresh_token: refreshToken, expires_in: expireIn}
metadata: {corp: reply.corpId}
"#;
    let connection = Stage::new(definition).await.plays(&quirk("Q35")).await;
    assert_eq!((connection.access_token.expose(), connection.refresh_token), ("A1", Some("R1".into())));
    assert_eq!(connection.expires_at.map(|end| end.since(connection.obtained_at).as_secs()), Some(7200));
    assert_eq!(connection.metadata["corp"], "c");
}

#[tokio::test(flavor = "multi_thread")]
async fn q36_token_type_absent() {
    let definition = "token_url: http://ACME/admin/oauth/access_token\nscope_separator: \",\"\nscopes: [read_products, write_orders]\nattach: {header: X-Shopify-Access-Token}\ndefault_expires_in: never\n";
    let stage = Stage::new(definition).await;
    let connection = stage.plays(&quirk("Q36")).await;
    assert_eq!((&*connection.scopes, connection.expires_at), (&["read_products".to_owned(), "write_orders".to_owned()][..], None));
    stage.call().await.is_ok();
    assert_eq!((stage.api_call().header("x-shopify-access-token"), stage.api_call().header("authorization")), ("shpat_1", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn q37_token_type_not_bearer() {
    let stage = Stage::new("").await;
    stage.plays(&quirk("Q37")).await;
    stage.call().await.is_ok();
    assert_eq!(stage.api_call().header("authorization"), "Bearer A1", "the definition says how");
    stage.will_answer([answer(200, &json!({"access_token": "A2", "token_type": "MAC"}))]);
    assert_eq!(stage.connect().await.answer.status, 502, "a known binding that cannot be shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn q54_scope_reply_differs_in_form() {
    let connection = Stage::new("scopes: [\"user:read:email\"]\n").await.plays(&quirk("Q54")).await;
    assert_eq!((&*connection.scopes, connection.missing_scopes.len()), (&["user:read:email".to_owned()][..], 0));
    for (scope, expected) in
        [(json!(null), vec!["a", "b"]), (json!("b a"), vec!["b", "a"]), (json!("a,b"), vec!["a", "b"]), (json!(["b"]), vec!["b"])]
    {
        let stage = Stage::new("scopes: [a, b]\n").await;
        stage.will_answer([answer(200, &json!({"access_token": "A1", "scope": scope}))]);
        stage.connect().await.answer.is_ok();
        let connection = stage.stored().await.expect("connected");
        assert_eq!(connection.scopes, expected);
        assert_eq!(connection.missing_scopes.len(), 2 - expected.len(), "compared as sets");
    }
    let renamed = Stage::new("scopes: [a, b]\nreply: {scope: scopes}\n").await;
    renamed.will_answer([answer(200, &json!({"access_token": "A1", "scopes": "a"}))]);
    renamed.connect().await.answer.is_ok();
    assert_eq!(renamed.stored().await.expect("connected").scopes, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn q55_id_token_or_refresh_token_with_odd_value() {
    let connection = Stage::new("").await.plays(&quirk("Q55")).await;
    assert_eq!(connection.refresh_token, Some("R1".into()));
    for odd in [json!(null), json!(""), json!(false), json!({"a": 1})] {
        let stage = Stage::new("").await;
        stage.will_answer([answer(200, &json!({"access_token": "A1", "refresh_token": odd, "id_token": odd}))]);
        stage.connect().await.answer.is_ok();
        assert_eq!(stage.stored().await.expect("connected").refresh_token, None, "{odd}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q58_user_id_as_64_bit_number() {
    let stage = Stage::new("metadata: {user_id: reply.user_id}\n").await;
    let connection = stage.plays(&quirk("Q58")).await;
    assert_eq!(told(&connection, "user_id"), "17841400000000001");
}
