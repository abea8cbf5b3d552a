//! The authorization server over real sockets.

use super::*;

#[tokio::test]
async fn a_code_with_pkce_becomes_tokens_that_open_the_users_photos() {
    let world = World::new(|_| {}).await;
    let verifier = random_token();
    let (code, back) = world.code(&verifier).await;
    let value = |name: &str| back.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!(value("state"), Some("a b&c=%/é"));
    assert_eq!(value("iss"), Some(world.sandbox.issuer()));
    let got = world.exchange(&code, &verifier).await;
    assert_eq!((got.status, got.header("cache-control")), (StatusCode::OK, "no-store"));
    let tokens = got.json();
    assert_eq!((text(&tokens, "token_type"), text(&tokens, "scope"), &tokens["expires_in"]), ("Bearer", "photos.read profile", &json!(30)));
    let me = world.api("GET", "/v1/me", text(&tokens, "access_token"), &[]).await.json();
    assert_eq!(text(&me, "user"), MEGAN);
    world.clock.advance(Duration::from_secs(30));
    let late = world.api("GET", "/v1/me", text(&tokens, "access_token"), &[]).await;
    assert_eq!(late.status, StatusCode::UNAUTHORIZED);
    assert!(late.header(WWW_AUTHENTICATE).contains("error=\"invalid_token\""), "{}", late.header(WWW_AUTHENTICATE));
}

#[tokio::test]
async fn a_wrong_verifier_redirect_or_client_gets_nothing() {
    let world = World::new(|settings| settings.clients.push(Client::new("other", Some("s"), &[REDIRECT]))).await;
    let verifier = random_token();
    let (code, _) = world.code(&verifier).await;
    assert_eq!(world.exchange(&code, &random_token()).await.error(), (400, "invalid_grant".into()));
    assert_eq!(world.exchange(&code, &verifier).await.error(), (400, "invalid_grant".into()), "a failed attempt spends the code");
    let (code, _) = world.code(&verifier).await;
    let pairs = [("grant_type", "authorization_code"), ("code", &*code), ("redirect_uri", REDIRECT), ("code_verifier", &*verifier)];
    assert_eq!(world.form("/token", basic("other", "s"), &pairs).await.error(), (400, "invalid_grant".into()));
    let elsewhere = [pairs[0], pairs[1], ("redirect_uri", "http://127.0.0.1:9/oauth/callback/sandbox"), pairs[3]];
    assert_eq!(world.form("/token", basic(ID, SECRET), &elsewhere).await.error(), (400, "invalid_grant".into()));
    let (code, _) = world.code(&verifier).await;
    world.clock.advance(grants::CODE_LIFE);
    assert_eq!(world.exchange(&code, &verifier).await.error(), (400, "invalid_grant".into()), "too late");
}

#[tokio::test]
async fn a_replayed_code_ends_the_grant_it_led_to() {
    let world = World::new(|_| {}).await;
    let verifier = random_token();
    let (code, _) = world.code(&verifier).await;
    let tokens = world.exchange(&code, &verifier).await.json();
    assert_eq!(world.api("GET", "/v1/me", text(&tokens, "access_token"), &[]).await.status, StatusCode::OK);
    assert_eq!(world.exchange(&code, &verifier).await.error(), (400, "invalid_grant".into()));
    assert_eq!(world.api("GET", "/v1/me", text(&tokens, "access_token"), &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.refresh(text(&tokens, "refresh_token")).await.error(), (400, "invalid_grant".into()));
}

#[tokio::test]
async fn faults_of_a_request_go_back_to_the_client_or_to_the_user() {
    let world = World::new(|_| {}).await;
    let back = world.get(&authorize_path("short", "")).await;
    assert_eq!(back.status, StatusCode::SEE_OTHER);
    assert!(
        back.header(LOCATION).contains("error=invalid_request") && back.header(LOCATION).contains("&iss="),
        "{}",
        back.header(LOCATION)
    );
    let silent = world.get(&authorize_path(&challenge("x"), "&prompt=none")).await;
    assert!(silent.header(LOCATION).contains("error=login_required"));
    for path in ["/authorize", "/authorize?client_id=printpixie&redirect_uri=https://evil.example", "/authorize?client_id=a&client_id=b"] {
        let told = world.get(path).await;
        assert_eq!((told.status, told.header(LOCATION)), (StatusCode::BAD_REQUEST, ""), "{path}");
    }
}

#[tokio::test]
async fn the_consent_page_decides_once() {
    let world = World::new(|_| {}).await;
    let verifier = random_token();
    let ticket = async || {
        let page = world.get(&authorize_path(&challenge(&verifier), "")).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.header("content-security-policy").contains("default-src 'none'"));
        let html = String::from_utf8(page.body.to_vec()).expect("UTF-8");
        assert!(html.contains(MEGAN) && html.contains("photos.read"));
        html.split("name=\"ticket\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a ticket").to_owned()
    };
    let denied = world.form("/authorize", None, &[("ticket", &ticket().await), ("decision", "deny")]).await;
    assert!(denied.header(LOCATION).contains("error=access_denied"));
    let open = ticket().await;
    let decision = [("ticket", &*open), ("decision", "allow"), ("user", MEGAN), ("other_user", "zoe@example.com")];
    let allowed = world.form("/authorize", None, &decision).await;
    let back = Url::parse(allowed.header(LOCATION)).expect("a URL");
    let code = back.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned();
    let tokens = world.exchange(&code, &verifier).await.json();
    let me = world.api("GET", "/v1/me", text(&tokens, "access_token"), &[]).await.json();
    assert_eq!(text(&me, "user"), "zoe@example.com");
    assert_eq!(world.form("/authorize", None, &decision).await.status, StatusCode::BAD_REQUEST, "single use");
}

#[tokio::test]
async fn a_rotated_token_is_good_again_within_the_leeway() {
    let world = World::new(|_| {}).await;
    let (_, first) = world.grant();
    let second = world.refresh(&first).await.json();
    assert_ne!(text(&second, "refresh_token"), first);
    world.clock.advance(Duration::from_secs(10));
    let again = world.refresh(&first).await.json();
    assert_ne!(text(&again, "refresh_token"), text(&second, "refresh_token"));
    assert_eq!(world.refresh(text(&again, "refresh_token")).await.status, StatusCode::OK);
    let counters = world.sandbox.counters();
    assert_eq!((counters.token_posts, counters.refresh_posts, counters.refreshes), (3, 3, 3));
    assert_eq!((counters.late_refreshes, counters.reuse_detections), (1, 0));
}

#[tokio::test]
async fn a_rotated_token_after_the_leeway_ends_the_family() {
    let world = World::new(|_| {}).await;
    let (_, first) = world.grant();
    let second = world.refresh(&first).await.json();
    world.clock.advance(Duration::from_millis(10_001));
    assert_eq!(world.refresh(&first).await.error(), (400, "invalid_grant".into()));
    assert_eq!(world.refresh(text(&second, "refresh_token")).await.error(), (400, "invalid_grant".into()));
    assert_eq!(world.api("GET", "/v1/me", text(&second, "access_token"), &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.sandbox.counters().reuse_detections, 1);
    let listed = world.get("/control/grants").await.json();
    let grant = &listed["items"][0];
    assert_eq!(
        (&grant["user"], &grant["live"], &grant["refreshes"], &grant["reuse_detected"]),
        (&json!(MEGAN), &json!(false), &json!(1), &json!(true))
    );
}

#[tokio::test]
async fn the_token_endpoint_is_strict_about_how_it_is_asked() {
    let world = World::new(|settings| settings.clients.push(Client::new("public", None, &[]))).await;
    let own = [("grant_type", "client_credentials")];
    assert_eq!(world.form("/token", basic(ID, SECRET), &own).await.status, StatusCode::OK);
    let in_body = [own[0], ("client_id", ID), ("client_secret", SECRET)];
    assert_eq!(world.form("/token", None, &in_body).await.status, StatusCode::OK);
    assert_eq!(world.form("/token", basic(ID, SECRET), &in_body).await.error(), (400, "invalid_request".into()));
    let wrong = world.form("/token", basic(ID, "wrong"), &own).await;
    assert_eq!((wrong.error(), wrong.header("cache-control")), ((401, "invalid_client".into()), "no-store"));
    assert!(wrong.header(WWW_AUTHENTICATE).starts_with("Basic "));
    assert_eq!(world.form("/token", None, &[own[0], ("client_id", "public")]).await.error(), (400, "unauthorized_client".into()));
    assert_eq!(world.form("/token", basic(ID, SECRET), &[own[0], own[0]]).await.error(), (400, "invalid_request".into()));
    assert_eq!(
        world.form("/token", basic(ID, SECRET), &[("grant_type", "password")]).await.error(),
        (400, "unsupported_grant_type".into())
    );
    assert_eq!(world.form("/token?code=x", basic(ID, SECRET), &own).await.error(), (400, "invalid_request".into()));
    assert_eq!(world.get("/token").await.status, StatusCode::METHOD_NOT_ALLOWED);
    let large = "x".repeat(70_000);
    assert_eq!(world.form("/token", basic(ID, SECRET), &[own[0], ("scope", &large)]).await.error(), (400, "invalid_request".into()));
    assert_eq!(world.control("/token", json!({})).await.error(), (400, "invalid_request".into()), "not a form");
}

#[tokio::test]
async fn a_clients_own_token_has_no_refresh_token() {
    let world = World::new(|_| {}).await;
    let pairs = [("grant_type", "client_credentials"), ("scope", "photos.read photos.write")];
    let tokens = world.form("/token", basic(ID, SECRET), &pairs).await.json();
    assert_eq!(tokens.get("refresh_token"), None);
    let me = world.api("GET", "/v1/me", text(&tokens, "access_token"), &[]).await.json();
    assert_eq!((text(&me, "user"), &me["scopes"]), ("app:printpixie", &json!(["photos.read", "photos.write"])));
}

#[tokio::test]
async fn revocation_and_introspection() {
    let world = World::new(|_| {}).await;
    let (access, refresh) = world.grant();
    let active = async |token: &str| world.form("/introspect", basic(ID, SECRET), &[("token", token)]).await.json()["active"].clone();
    assert_eq!((active(&access).await, active(&refresh).await, active("x").await), (json!(true), json!(true), json!(false)));
    assert_eq!(world.form("/revoke", basic(ID, "wrong"), &[("token", &refresh)]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.form("/revoke", basic(ID, SECRET), &[("token", "unknown")]).await.status, StatusCode::OK);
    assert_eq!(active(&refresh).await, json!(true));
    assert_eq!(
        world.form("/revoke", basic(ID, SECRET), &[("token", &refresh), ("token_type_hint", "refresh_token")]).await.status,
        StatusCode::OK
    );
    assert_eq!((active(&access).await, active(&refresh).await), (json!(false), json!(false)));
    assert_eq!(world.refresh(&refresh).await.error(), (400, "invalid_grant".into()));
}

#[tokio::test]
async fn a_device_gets_its_tokens_when_the_user_allows_it() {
    let world = World::new(|_| {}).await;
    let begun = world.form("/device_authorization", basic(ID, SECRET), &[("scope", "photos.read")]).await.json();
    let pairs = [("grant_type", token::DEVICE_GRANT), ("device_code", text(&begun, "device_code"))];
    assert_eq!(world.form("/token", basic(ID, SECRET), &pairs).await.error(), (400, "authorization_pending".into()));
    let page = world.get(&format!("/device?user_code={}", text(&begun, "user_code"))).await;
    assert!(String::from_utf8_lossy(&page.body).contains(text(&begun, "user_code")));
    let decision = [("user_code", text(&begun, "user_code")), ("user", MEGAN), ("decision", "allow")];
    assert_eq!(world.form("/device", None, &decision).await.status, StatusCode::OK);
    let tokens = world.form("/token", basic(ID, SECRET), &pairs).await.json();
    assert_eq!(world.refresh(text(&tokens, "refresh_token")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn metadata_names_the_endpoints_it_has() {
    let world = World::new(|_| {}).await;
    for path in ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"] {
        let told = world.get(path).await.json();
        assert_eq!((text(&told, "issuer"), &told["code_challenge_methods_supported"]), (world.sandbox.issuer(), &json!(["S256"])));
        assert_eq!(text(&told, "token_endpoint"), format!("{}/token", world.sandbox.issuer()));
    }
}
