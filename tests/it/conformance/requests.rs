//! Q01 to Q23: what is sent, to the authorization page and for a code.

use super::quirk;
use super::stage::{Stage, check, come_back, pairs, told};
use crate::browser::param;
use serde_json::json;

/// The parameters of the page that the browser was sent to.
fn asked(authorize: &str) -> std::collections::BTreeMap<String, Vec<String>> {
    pairs(url::Url::parse(authorize).expect("a URL").query().unwrap_or_default().as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn q01_client_id_under_another_name() {
    let stage = Stage::new(
        "calls: {authorize: {rename: {client_id: client_key}}, token: {rename: {client_id: client_key}}}\nmetadata: {open_id: reply.open_id}\n",
    )
    .await;
    stage.will_answer(quirk("Q01").responses);
    let trip = stage.connect().await;
    check(&stage.token_call(), &quirk("Q01"), &trip.redirect_uri, &[]);
    assert_eq!((param(&trip.authorize, "client_key").as_str(), param(&trip.authorize, "client_id").as_str()), ("id", ""));
    assert_eq!(told(&stage.stored().await.expect("connected"), "open_id"), "u1");
}

#[tokio::test(flavor = "multi_thread")]
async fn q02_json_token_request_body() {
    let stage = Stage::new("client_auth: basic\ncalls: {token: {body: json}}\n").await;
    let connection = stage.plays(&quirk("Q02")).await;
    assert_eq!(connection.access_token.expose(), "A1");
    // Of the refresh too.
    stage.has_expired(json!({})).await;
    stage.call().await.is_ok();
    let refresh = stage.token_calls().pop().expect("a refresh");
    let body: serde_json::Value = serde_json::from_slice(&refresh.body).expect("JSON");
    assert_eq!(body, json!({"grant_type": "refresh_token", "refresh_token": "R1"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn q03_token_request_by_get_with_query_params() {
    let definition = r##"
token_url: http://ACME/sns/oauth2/access_token
calls:
  authorize: {rename: {client_id: appid}, fragment: "#wechat_redirect"}
  token: {method: GET, rename: {client_id: appid, client_secret: secret}, omit: [redirect_uri]}
metadata: {openid: reply.openid}
"##;
    let stage = Stage::new(definition).await;
    stage.will_answer(quirk("Q03").responses);
    let trip = stage.connect().await;
    check(&stage.token_call(), &quirk("Q03"), &trip.redirect_uri, &[]);
    assert!(trip.authorize.ends_with("#wechat_redirect"), "{}", trip.authorize);
    let connection = stage.stored().await.expect("connected");
    assert_eq!((told(&connection, "openid"), &*connection.scopes), ("o1", &["snsapi_login".to_owned()][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn q04_basic_auth_only() {
    Stage::new("client_auth: basic\n").await.plays(&quirk("Q04")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn q05_body_auth_only() {
    let stage = Stage::new("client_auth: body\n").await;
    stage.plays(&quirk("Q05")).await;
    // A refusal is not answered by trying the other way.
    stage.will_answer([super::stage::answer(401, &json!({"error": "invalid_client"}))]);
    assert_eq!(stage.connect().await.answer.status, 502);
    assert_eq!(stage.token_calls().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn q06_basic_auth_without_form_encoding() {
    let raw = Stage::new("client_auth: basic_raw\nclient_secret: \"s%+3\"\n").await;
    raw.plays(&quirk("Q06")).await;
    let strict = Stage::new("client_auth: basic\nclient_secret: \"s%+3\"\n").await;
    strict.connect().await;
    // id:s%25%2B3
    assert_eq!(strict.token_call().header("authorization"), "Basic aWQ6cyUyNSUyQjM=");
}

#[tokio::test(flavor = "multi_thread")]
async fn q07_basic_with_empty_password() {
    let stage = Stage::new("client_secret: \"\"\nclient_auth: basic\npublic_client: basic\n").await;
    stage.plays(&quirk("Q07")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn q09_client_id_in_custom_header() {
    let definition = r#"
token_url: http://ACME/openplatform/exchangetoken
attach: {scheme: OAuth}
calls: {token: {body: json, omit: [client_id], headers: {client-id: "{client_id}"}}}
"#;
    let stage = Stage::new(definition).await;
    let connection = stage.plays(&quirk("Q09")).await;
    assert_eq!(connection.scopes, ["user_details_self"]);
    stage.call().await.is_ok();
    assert_eq!(stage.api_call().header("authorization"), "OAuth A1");
}

#[tokio::test(flavor = "multi_thread")]
async fn q10_type_instead_of_grant_type() {
    let definition = r#"
token_url: http://ACME/authorization/token
calls:
  authorize: {omit: [response_type], params: {type: web_server}}
  token: {omit: [grant_type]}
  code: {params: {type: web_server}}
  refresh: {params: {type: refresh, redirect_uri: "{redirect_uri}"}}
"#;
    let stage = Stage::new(definition).await;
    stage.refreshes(&quirk("Q10")).await.is_ok();
    assert_eq!(stage.api_call().header("authorization"), "Bearer A2");
    let trip = stage.connect().await;
    let query = asked(&trip.authorize);
    assert_eq!((&query["type"], query.get("response_type")), (&vec!["web_server".to_owned()], None));
    let code = pairs(&stage.token_calls().pop().expect("a call").body);
    assert_eq!((&code["type"], code.get("grant_type")), (&vec!["web_server".to_owned()], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn q11_code_under_another_name_or_grant() {
    let definition = r#"
token_url: http://ACME/oauth2/token
callback: {code: authCode}
calls:
  code:
    omit: [client_id]
    rename: {code: assertion, client_secret: client_assertion}
    params:
      grant_type: urn:ietf:params:oauth:grant-type:jwt-bearer
      client_assertion_type: urn:ietf:params:oauth:client-assertion-type:jwt-bearer
"#;
    let stage = Stage::new(definition).await;
    stage.will_answer(quirk("Q11").responses);
    let trip = stage.connect_with(&[("authCode", "C1")]).await;
    trip.answer.is_ok();
    check(&stage.token_call(), &quirk("Q11"), &trip.redirect_uri, &[]);
    let connection = stage.stored().await.expect("connected");
    assert_eq!(connection.expires_at.map(|end| end.since(connection.obtained_at).as_secs()), Some(3599));
}

#[tokio::test(flavor = "multi_thread")]
async fn q12_redirect_uri_that_is_a_name() {
    let stage = Stage::new("redirect_uri: Acme-AcmeApp-PRD-abcdef\nreply: {refresh_expires_in: refresh_token_expires_in}\n").await;
    stage.will_answer(quirk("Q12").responses);
    let trip = stage.connect().await;
    trip.answer.is_ok();
    check(&stage.token_call(), &quirk("Q12"), &trip.redirect_uri, &[]);
    assert_eq!(param(&trip.authorize, "redirect_uri"), "Acme-AcmeApp-PRD-abcdef");
    let renamed =
        Stage::new("calls: {authorize: {rename: {redirect_uri: redirect_url}}, code: {rename: {redirect_uri: redirect_url}}}\n").await;
    let trip = renamed.connect().await;
    assert_eq!(
        (param(&trip.authorize, "redirect_url"), param(&trip.authorize, "redirect_uri")),
        (trip.redirect_uri.clone(), String::new())
    );
    assert_eq!(pairs(&renamed.token_call().body)["redirect_url"], [trip.redirect_uri]);
}

#[tokio::test(flavor = "multi_thread")]
async fn q13_redirect_uri_forbidden_at_the_token_endpoint() {
    Stage::new("calls: {code: {omit: [redirect_uri]}}\n").await.plays(&quirk("Q13")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn q16_callback_data_echoed_into_the_token_call() {
    let definition = r#"
token_url: http://ACME/oauth2/auth
pkce: S256
metadata: {device_id: callback.device_id}
calls:
  code: {params: {device_id: "{callback.device_id}", state: "{state}"}}
  refresh: {params: {device_id: "{device_id}"}}
"#;
    let stage = Stage::new(definition).await;
    stage.will_answer(quirk("Q16").responses);
    let trip = stage.connect_with(&[("code", "C1"), ("device_id", "D1")]).await;
    trip.answer.is_ok();
    let call = stage.token_call();
    let verifier = pairs(&call.body)["code_verifier"][0].clone();
    check(&call, &quirk("Q16"), &trip.redirect_uri, &[("state", &param(&trip.authorize, "state")), ("code_verifier", &verifier)]);
    // Kept with the connection, for its refreshes.
    stage.world.clock.advance(crate::harness::seconds(3601));
    stage.call().await.is_ok();
    let refresh = pairs(&stage.token_calls().pop().expect("a refresh").body);
    assert_eq!((&*refresh["grant_type"][0], &*refresh["device_id"][0]), ("refresh_token", "D1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn q17_extra_static_token_params() {
    let definition = r#"
token_url: http://ACME/v2/oauth2
token_params: {action: requesttoken}
reply: {at: body}
metadata: {userid: reply.body.userid}
"#;
    let stage = Stage::new(definition).await;
    let connection = stage.plays(&quirk("Q17")).await;
    assert_eq!((connection.access_token.expose(), told(&connection, "userid")), ("A1", "1"));
    assert_eq!(connection.refresh_token, Some("R1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn q18_secret_replaced_by_a_hash() {
    let definition = r#"
token_url: http://ACME/2.0/token
calls: {code: {omit: [redirect_uri, client_secret], params: {hash: "{sha256:client_secret|code}"}}}
"#;
    let stage = Stage::new(definition).await;
    stage.will_answer(quirk("Q18").responses);
    let trip = stage.connect().await;
    trip.answer.is_ok();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"s3|C1");
    let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    check(&stage.token_call(), &quirk("Q18"), &trip.redirect_uri, &[("hash", &hash)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn q19_audience_or_resource_needed() {
    let stage =
        Stage::new("authorize_params: {audience: api.atlassian.com, prompt: consent}\nscopes: [\"read:me\", offline_access]\n").await;
    holds(&stage.connect().await.authorize, "Q19");
}

/// The page's parameters are the quirk's, among others.
#[track_caller]
fn holds(authorize: &str, id: &str) {
    let (asked, quirk) = (asked(authorize), quirk(id));
    for (name, value) in quirk.request["query"].as_object().expect("parameters") {
        assert_eq!(asked.get(name).map(|values| json!(values)), Some(json!([value])), "{name} of {authorize}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q20_offline_switch_differs() {
    let stage = Stage::new("authorize_params: {token_access_type: offline}\nrefresh: {expected: true}\n").await;
    stage.will_answer(quirk("Q20").responses);
    let trip = stage.connect().await;
    holds(&trip.authorize, "Q20");
    let connection = stage.stored().await.expect("connected");
    assert!(connection.last_error.expect("told").contains("no refresh token"));
    // With one, nothing is to be told.
    stage.connect().await.answer.is_ok();
    assert_eq!(stage.stored().await.expect("connected").last_error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn q21_scope_separator_not_a_space() {
    let trip = Stage::new("scopes: [a, b]\nscope_separator: \",\"\n").await.connect().await;
    holds(&trip.authorize, "Q21");
    assert!(trip.authorize.contains("scope=a%2Cb"), "{}", trip.authorize);
    let plus = Stage::new("scopes: [\"a+b\", \"c/d:e\"]\n").await.connect().await;
    assert!(plus.authorize.contains("scope=a%2Bb+c%2Fd%3Ae"), "{}", plus.authorize);
}

#[tokio::test(flavor = "multi_thread")]
async fn q22_second_scope_parameter() {
    let definition = "authorize_url: http://ACME/oauth/v2/authorize\nscopes: [\"chat:write\", \"user=search:read\"]\nscope_groups: {user: user_scope}\nscope_separator: \",\"\n";
    let stage = Stage::new(definition).await;
    stage.will_answer([super::stage::answer(200, &json!({"access_token": "A1", "scope": "chat:write,search:read"}))]);
    let trip = stage.connect().await;
    holds(&trip.authorize, "Q22");
    assert!(trip.authorize.contains("/oauth/v2/authorize?"));
    assert_eq!(stage.stored().await.expect("connected").missing_scopes, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn q23_pkce_variants() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    for (pkce, method) in [("S256", "S256"), ("S256_hex", "S256"), ("plain", "plain")] {
        let stage = Stage::new(&format!("pkce: {pkce}\n")).await;
        let trip = stage.connect().await;
        let call = stage.token_call();
        let verifier = pairs(&call.body)["code_verifier"][0].clone();
        // 256 random bits in the characters of RFC 7636 §4.1, in the token call alone.
        assert!(
            verifier.len() == 43 && verifier.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')),
            "{verifier}"
        );
        assert!(pkce == "plain" || !trip.authorize.contains(&verifier));
        check(&call, &quirk("Q23"), &trip.redirect_uri, &[("code_verifier", &verifier)]);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
        let expected = match pkce {
            "S256" => URL_SAFE_NO_PAD.encode(hash),
            "S256_hex" => hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
            _ => verifier,
        };
        assert_eq!(
            (param(&trip.authorize, "code_challenge"), param(&trip.authorize, "code_challenge_method").as_str()),
            (expected, method)
        );
    }
    let none = Stage::new("pkce: none\n").await;
    let trip = none.connect().await;
    assert!(!trip.authorize.contains("code_challenge") && !pairs(&none.token_call().body).contains_key("code_verifier"));
}

/// Of no quirk: two trips in one browser do not disturb each other.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_comes_back_from_the_trip_that_it_went_on() {
    let stage = Stage::new("").await;
    let (mut browser, first) = stage.set_out(json!({}), &[]).await;
    let second = stage.set_out_by(&mut browser, json!({"account": "work"}), &[]).await;
    come_back(&mut browser, &second, &[("code", "C2")]).await.is_ok();
    come_back(&mut browser, &first, &[("code", "C1")]).await.is_ok();
    assert!(stage.stored().await.is_some() && stage.stored_as("work").await.is_some());
}
