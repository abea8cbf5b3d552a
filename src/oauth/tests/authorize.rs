//! The URL that the browser is sent to, pushed requests, and whose answer the callback is.

use super::discovery::{OPENID, issuer_alone, metadata};
use super::*;
use url::Url;

fn request<'a>(scopes: &'a [String], params: &'a [(String, String)]) -> AuthorizeRequest<'a> {
    AuthorizeRequest {
        redirect_uri: "http://localhost:7071/oauth/callback/acme?x=1",
        state: "S+1",
        scopes,
        challenge: Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        nonce: Some("N1"),
        params,
        values: Values::default(),
    }
}

fn scopes() -> Vec<String> {
    ["openid", "a,b", "c+d:e/f"].map(str::to_owned).to_vec()
}

fn pairs(url: &Url) -> Vec<(String, String)> {
    url.query_pairs().into_owned().collect()
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn the_url_says_each_thing_once() {
    let (endpoint, client, mut reg) = set_up().await;
    reg.authorize_url = Some(format!("{}/authorize?tenant=a%20b&prompt=none&state=evil", endpoint.base).parse().expect("valid"));
    reg.authorize_params =
        vec![("prompt".into(), "consent".into()), ("access_type".into(), "offline".into()), ("state".into(), "x".into())];
    reg.resource = vec!["https://api.example.com/".into(), "api://x y".into()];
    let (scopes, params) =
        (scopes(), owned(&[("prompt", "login"), ("login_hint", "me@x.test"), ("client_id", "evil"), ("code_challenge", "x")]));
    let url = client.authorization_url(&reg, &request(&scopes, &params)).await.expect("a URL");
    let expected = [
        ("tenant", "a b"),
        ("response_type", "code"),
        ("client_id", "id"),
        ("redirect_uri", "http://localhost:7071/oauth/callback/acme?x=1"),
        ("state", "S+1"),
        ("scope", "openid a,b c+d:e/f"),
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
        ("nonce", "N1"),
        ("resource", "https://api.example.com/"),
        ("resource", "api://x y"),
        ("prompt", "login"),
        ("login_hint", "me@x.test"),
        ("access_type", "offline"),
    ];
    assert_eq!(pairs(&url), owned(&expected));
    assert!(endpoint.seen().is_empty(), "nothing was fetched");
    reg.authorize_url = None;
    let error = client.authorization_url(&reg, &request(&scopes, &[])).await.expect_err("no endpoint");
    assert_eq!(error.verdict, Verdict::Misconfigured);
}

/// An app's parameter beside the definition's would be there twice, and the provider would choose.
#[tokio::test]
async fn what_a_definition_names_is_not_the_apps_to_say() {
    let (endpoint, client, mut reg) = set_up().await;
    reg.authorize_url = Some(format!("{}/authorize", endpoint.base).parse().expect("valid"));
    reg.dialect.calls.authorize.rename = vec![("client_id".into(), "client_key".into())];
    reg.dialect.calls.authorize.params = vec![("type".into(), crate::provider::Filled::parse("{nothing}").expect("a text"))];
    reg.dialect.scope_groups = vec![("user".into(), "user_scope".into())];
    let params = owned(&[("client_key", "evil"), ("user_scope", "evil"), ("type", "evil"), ("mine", "1")]);
    let url = client.authorization_url(&reg, &request(&[], &params)).await.expect("a URL");
    assert!(!url.as_str().contains("evil"), "{url}");
    assert!(pairs(&url).contains(&("mine".into(), "1".into())));
    assert_eq!(pairs(&url).iter().filter(|(name, _)| name == "client_key").count(), 1);
}

#[tokio::test]
async fn a_resource_is_named_wherever_tokens_are_asked_for() {
    let (endpoint, client, mut reg) = set_up().await;
    reg.resource = vec!["https://a.test/".into(), "https://b.test/".into()];
    client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    client.exchange_code(&reg, &Secret::new("C"), "http://localhost/", None, None, Values::default()).await.expect("granted");
    client.client_credentials(&reg).await.expect("granted");
    for seen in endpoint.seen() {
        assert!(seen.body.contains("resource=https%3A%2F%2Fa.test%2F&resource=https%3A%2F%2Fb.test%2F"), "{}", seen.body);
    }
}

#[tokio::test]
async fn a_pushed_request_leaves_its_reference_in_the_url() {
    let (endpoint, client, mut reg) = set_up().await;
    reg.par_url = Some(format!("{}/par", endpoint.base).parse().expect("valid"));
    let (scopes, params) = (scopes(), owned(&[("login_hint", "me@x.test")]));
    let pushed = || Answer::json(201, r#"{"request_uri":"urn:ietf:params:oauth:request_uri:6esc_11ACC5","expires_in":60}"#);
    for auth in [ClientAuth::Body, ClientAuth::Basic, ClientAuth::None] {
        reg.client_auth = auth;
        endpoint.script([pushed()]);
        let url = client.authorization_url(&reg, &request(&scopes, &params)).await.expect("a URL");
        assert_eq!(pairs(&url), owned(&[("client_id", "id"), ("request_uri", "urn:ietf:params:oauth:request_uri:6esc_11ACC5")]));
    }
    let seen = endpoint.seen();
    for seen in &seen {
        assert_eq!(
            (&*seen.target, &*seen.form["login_hint"], &*seen.form["state"], &*seen.form["nonce"]),
            ("/par", "me@x.test", "S+1", "N1")
        );
        assert_eq!(seen.body.matches("client_id=").count(), 1, "{}", seen.body);
    }
    assert_eq!(seen[0].form["client_secret"], "s3");
    assert!(seen[1].headers.contains_key("authorization") && !seen[1].form.contains_key("client_secret"));
    assert!(!seen[2].headers.contains_key("authorization") && !seen[2].form.contains_key("client_secret"));
    for (answer, verdict) in [
        (Answer::json(401, r#"{"error":"invalid_client","error_description":"CANARY"}"#), Verdict::Misconfigured),
        (Answer::json(201, r#"{"request_uri":""}"#), Verdict::Transient { retry_after: None }),
        (Answer::json(201, r#"{"request_uri":"CANARY\r\n"}"#), Verdict::Transient { retry_after: None }),
        (Answer::json(503, "CANARY").with("retry-after", "3"), Verdict::Transient { retry_after: Some(Duration::from_secs(3)) }),
    ] {
        endpoint.script([answer]);
        let error = client.authorization_url(&reg, &request(&scopes, &params)).await.expect_err("refused");
        assert_eq!(error.verdict, verdict, "{error}");
        assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
    }
}

#[tokio::test]
async fn requests_are_pushed_where_the_metadata_requires_it() {
    for (required, expected) in [(true, 1), (false, 0)] {
        let endpoint = Endpoint::start().await;
        let mut document = metadata(&endpoint.base, &endpoint.base);
        document["require_pushed_authorization_requests"] = required.into();
        endpoint.publish(OPENID, Answer::json(200, &document.to_string()));
        endpoint.publish("/found/par", Answer::json(201, r#"{"request_uri":"urn:x","expires_in":60}"#));
        let (client, reg) = (token_client(&ManualClock::at(START)), issuer_alone(&endpoint.base));
        let url = client.authorization_url(&reg, &request(&[], &[])).await.expect("a URL");
        assert_eq!((url.path(), endpoint.count("/found/par")), ("/found/authorize", expected));
        assert_eq!(url.query_pairs().any(|(name, _)| name == "redirect_uri"), !required, "{url}");
    }
}

#[tokio::test]
async fn an_answer_is_taken_from_its_own_issuer_alone() {
    let endpoint = Endpoint::start().await;
    let issuer = endpoint.base.clone();
    let (slash, upper) = (format!("{issuer}/"), issuer.to_uppercase());
    for promised in [true, false] {
        let mut document = metadata(&issuer, &issuer);
        document["authorization_response_iss_parameter_supported"] = promised.into();
        endpoint.publish(OPENID, Answer::json(200, &document.to_string()));
        let (client, reg) = (token_client(&ManualClock::at(START)), issuer_alone(&issuer));
        for (iss, taken) in
            [(Some(&*issuer), true), (Some(&*slash), false), (Some(&*upper), false), (Some("https://evil.test"), false), (Some(""), false)]
        {
            assert_eq!(client.check_issuer(&reg, iss).await.is_ok(), taken, "{iss:?}");
        }
        assert_eq!(client.check_issuer(&reg, None).await.is_ok(), !promised, "missing, promised: {promised}");
        let nobody = Registration { issuer: None, ..reg };
        assert!(client.check_issuer(&nobody, Some("https://evil.test")).await.is_ok(), "nothing to compare with");
    }
    // What cannot be learned is not assumed.
    endpoint.publish(OPENID, Answer::json(503, ""));
    let client = token_client(&ManualClock::at(START));
    assert!(client.check_issuer(&issuer_alone(&issuer), None).await.is_err());
}

#[test]
fn a_nonce_is_for_an_id_token_that_can_be_verified() {
    let reg = registration("http://127.0.0.1:1");
    let issuer = Registration { issuer: Some("https://a.test".into()), ..reg.clone() };
    let openid = ["openid".to_owned(), "a".to_owned()];
    for (reg, scopes, expected) in
        [(&issuer, &openid[..], true), (&issuer, &openid[1..], false), (&issuer, &[], false), (&reg, &openid[..], false)]
    {
        assert_eq!(wants_nonce(reg, scopes), expected);
    }
}
