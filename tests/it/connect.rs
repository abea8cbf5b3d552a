//! Connecting as an end user and the app's back end see it: from the link to the call that just works.

use crate::browser::{Browser, param};
use crate::harness::{ALEX, MEGAN, Plan, World, key, seconds};
use crate::upstream::{Reply, Upstream};
use attache::store::State;
use serde_json::{Value, json};

pub const RETURN: &str = "http://app.localhost:3000/connected";

pub fn plan() -> Plan {
    Plan::new()
        .provider("    scopes: [photos.read, photos.write]\n")
        .top(&format!("connect: {{app_name: PrintPixie, allowed_return_urls: [\"{RETURN}\"]}}\n"))
}

/// A session for Megan, with these further members.
pub async fn session(world: &World, more: Value) -> Value {
    let mut body = json!({"end_user": MEGAN, "providers": ["sandbox"]});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let answer = world.admin_json("POST", "/v1/connect-sessions", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

pub fn link(session: &Value) -> &str {
    session["connect_url"].as_str().expect("a link")
}

async fn shown(world: &World, user: &str) -> Value {
    world.admin("GET", &format!("/v1/connections/sandbox/{user}")).await.is_ok().json()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_link_to_a_call_that_works() {
    let world = plan().start().await;
    let refused = world.get("/photos").await;
    refused.is_problem("not-connected", 401, "http_request_denied");
    // The error says which admin call makes the link.
    let call = refused.json()["connect"].clone();
    assert_eq!(call["method"], "POST");
    assert!(
        call["url"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:") && url.ends_with("/v1/connect-sessions")),
        "{call}"
    );
    let mut body = call["body"].clone();
    body["return_url"] = RETURN.into();
    body["metadata"] = json!({"order": 7});
    let made = world.admin_json("POST", "/v1/connect-sessions", &body).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let session = made.json();
    assert_eq!(session["expires_at"], "2026-01-01T00:15:00Z");

    let mut browser = Browser::default();
    let page = browser.get(link(&session)).await;
    let text = page.is_ok().text();
    for word in ["PrintPixie", "Sandbox", MEGAN, "photos.read", "app.localhost"] {
        assert!(text.contains(word), "the page names {word}");
    }
    assert!(browser.seen_cookies.is_empty(), "opening binds nothing");
    let authorize = browser.set_out(link(&session), "sandbox").await;
    assert!(authorize.starts_with(&format!("{}/authorize?", world.sandbox.issuer())), "{authorize}");
    for (name, expected) in
        [("response_type", "code"), ("client_id", "printpixie"), ("scope", "photos.read photos.write"), ("code_challenge_method", "S256")]
    {
        assert_eq!(param(&authorize, name), expected, "{name}");
    }
    assert_eq!(param(&authorize, "redirect_uri"), format!("http://localhost:{}/oauth/callback/sandbox", world.public.port()));
    assert!(param(&authorize, "state").len() >= 43 && param(&authorize, "code_challenge").len() == 43);
    let cookie = browser.seen_cookies[0].clone();
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=900"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "public_url is http");

    let back = browser.decide(&authorize, MEGAN, "allow").await;
    let done = browser.get(&back).await;
    assert_eq!(done.status, 303, "{}", done.text());
    assert_eq!(done.header("location"), format!("{RETURN}?status=connected&provider=sandbox"));
    assert!(browser.seen_cookies.last().is_some_and(|cookie| cookie.contains("Max-Age=0")), "the cookie is spent");

    world.get("/photos").await.is_ok();
    let connection = shown(&world, MEGAN).await;
    assert_eq!((&connection["state"], &connection["missing_scopes"]), (&json!("active"), &json!([])));
    assert_eq!((&connection["scopes"], &connection["metadata"]["order"]), (&json!(["photos.read", "photos.write"]), &json!(7)));
    // Three lives later it still works, by rotated tokens alone.
    for _ in 0..3 {
        world.clock.advance(seconds(3601));
        world.get("/photos").await.is_ok();
    }
    assert_eq!((world.sandbox.counters().refreshes, world.sandbox.counters().reuse_detections), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_return_url_a_page_says_how_it_ended() {
    let world = plan().start().await;
    for (decision, status, words) in [("allow", 200, "connected"), ("deny", 200, "not connected")] {
        let session = session(&world, json!({"account": decision})).await;
        let mut browser = Browser::default();
        let authorize = browser.set_out(link(&session), "sandbox").await;
        let back = browser.decide(&authorize, MEGAN, decision).await;
        let page = browser.get(&back).await;
        assert_eq!(page.status, status);
        assert!(page.text().to_lowercase().contains(words), "{decision}: {}", page.text());
        assert_eq!(page.header("referrer-policy"), "no-referrer");
        assert_eq!(page.header("cache-control"), "no-store");
        assert!(page.header("content-security-policy").contains("default-src 'none'"));
        // What was used is used.
        assert_eq!(browser.get(link(&session)).await.status, 410);
        assert_eq!(browser.get(&back).await.status, 410);
    }
    let connected = world.admin("GET", "/v1/connections").await.is_ok().json();
    assert_eq!(connected["items"].as_array().map(Vec::len), Some(1), "the denied one left nothing: {connected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_authorize_and_callback_loses_nothing() {
    let port = crate::harness::free_port();
    let listen = format!("  proxy: 127.0.0.1:0\n  public: 127.0.0.1:{port}\n  admin: 127.0.0.1:0\n");
    let world = plan().on_disk().listen(&listen).start().await;
    let session = session(&world, json!({"return_url": RETURN})).await;
    let mut browser = Browser::default();
    let authorize = browser.set_out(link(&session), "sandbox").await;
    let world = world.restart().await;
    let back = browser.decide(&authorize, MEGAN, "allow").await;
    assert!(browser.get(&back).await.header("location").contains("status=connected"));
    world.get("/photos").await.is_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_fails_leaves_no_half_made_connection() {
    let token =
        Upstream::start(|seen| if String::from_utf8_lossy(&seen.body).contains("code=") { Reply::Close(Vec::new()) } else { Reply::Hang })
            .await;
    let world = plan().token_url(&format!("http://{}/token", token.address)).start().await;
    for (more, expected) in [(json!({"return_url": RETURN}), 303), (json!({}), 502)] {
        let session = session(&world, more).await;
        let mut browser = Browser::default();
        let authorize = browser.set_out(link(&session), "sandbox").await;
        let back = browser.decide(&authorize, MEGAN, "allow").await;
        let done = browser.get(&back).await;
        assert_eq!(done.status, expected, "{}", done.text());
        if expected == 303 {
            assert_eq!(done.header("location"), format!("{RETURN}?status=failed&provider=sandbox"));
        }
        assert_eq!(browser.get(&back).await.status, 410, "the code is not sent again");
        assert_eq!(world.stored(MEGAN).await, None);
    }
    assert_eq!(token.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_anew_keeps_the_connection_and_mends_it() {
    let world = plan().start().await;
    let first = session(&world, json!({"metadata": {"order": 7, "kept": true}})).await;
    let mut browser = Browser::default();
    let back = browser.there_and_back(link(&first), MEGAN, "allow").await;
    browser.get(&back).await.is_ok();
    let before = shown(&world, MEGAN).await;
    world.sandbox.revoke_user(MEGAN);
    world.clock.advance(seconds(4000));
    world.get("/photos").await.is_problem("reconnect-required", 401, "http_request_denied");
    let second = session(&world, json!({"metadata": {"order": 8}, "scopes": ["profile"]})).await;
    let authorize = browser.set_out(link(&second), "sandbox").await;
    assert_eq!(param(&authorize, "scope"), "profile photos.read photos.write", "what it has is asked for again");
    let back = browser.decide(&authorize, MEGAN, "allow").await;
    browser.get(&back).await.is_ok();
    world.get("/photos").await.is_ok();
    let after = shown(&world, MEGAN).await;
    assert_eq!((&after["id"], &after["created_at"]), (&before["id"], &before["created_at"]));
    assert_eq!(after["metadata"], json!({"order": 8, "kept": true}));
    assert_eq!(after["state"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_has_the_last_word_where_it_asks_for_it() {
    let world = plan().start().await;
    let session = session(&world, json!({"complete": "app", "return_url": RETURN})).await;
    let mut browser = Browser::default();
    let back = browser.there_and_back(link(&session), MEGAN, "allow").await;
    let done = browser.get(&back).await.header("location");
    let completion = param(&done, "completion");
    assert_eq!((param(&done, "status").as_str(), completion.len()), ("connected", 43));
    assert_eq!(shown(&world, MEGAN).await["state"], "pending");
    world.get("/photos").await.is_problem("not-connected", 401, "http_request_denied");
    let complete = format!("/v1/connect-sessions/{}/complete", session["session"].as_str().expect("an id"));
    let answer = world.admin_json("POST", &complete, &json!({"completion": completion, "end_user": MEGAN})).await;
    assert_eq!(answer.is_ok().json()["state"], "active");
    world.get("/photos").await.is_ok();
    let again = world.admin_json("POST", &complete, &json!({"completion": completion, "end_user": MEGAN})).await;
    assert_eq!(again.status, 404, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_that_never_comes_is_discarded_and_revoked() {
    let world = plan().start().await;
    let session = session(&world, json!({"complete": "app", "return_url": RETURN})).await;
    let mut browser = Browser::default();
    let back = browser.there_and_back(link(&session), MEGAN, "allow").await;
    browser.get(&back).await;
    world.clock.advance(seconds(901));
    world.running.connect.sweep().await.expect("swept");
    assert_eq!(world.stored(MEGAN).await, None);
    assert_eq!(world.sandbox.counters().revocations, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_connection_goes_on_until_the_app_has_spoken() {
    let world = plan().start().await;
    world.connect(MEGAN).await;
    let before = shown(&world, MEGAN).await;
    let session = session(&world, json!({"complete": "app", "return_url": RETURN})).await;
    let mut browser = Browser::default();
    let authorize = browser.set_out(link(&session), "sandbox").await;
    // Somebody else's account comes back.
    let back = browser.decide(&authorize, ALEX, "allow").await;
    let done = browser.get(&back).await.header("location");
    assert_eq!(shown(&world, MEGAN).await, before);
    world.get("/photos").await.is_ok();
    let complete = format!("/v1/connect-sessions/{}/complete", session["session"].as_str().expect("an id"));
    let answer = world.admin_json("POST", &complete, &json!({"completion": param(&done, "completion"), "end_user": ALEX})).await;
    // Its account at the provider may be the one of the active connection, which a revocation would end too.
    assert_eq!((answer.status.as_u16(), &answer.json()["revoked"]), (403, &json!("no")));
    assert_eq!(world.sandbox.counters().revocations, 0);
    world.get("/photos").await.is_ok();
    assert_eq!(world.stored(MEGAN).await.map(|connection| connection.state), Some(State::Active));
}

#[tokio::test(flavor = "multi_thread")]
async fn works_below_a_path_prefix_behind_a_balancer_that_ends_tls() {
    let world = plan().top("public_url: https://app.example.com/attache/\n").start().await;
    let session = session(&world, json!({})).await;
    let path = link(&session).strip_prefix("https://app.example.com").expect("below public_url").to_owned();
    assert!(path.starts_with("/attache/connect/"), "{path}");
    let at = format!("http://localhost:{}", world.public.port());
    let mut browser = Browser::default();
    // A balancer that strips the prefix, and one that does not.
    browser.get(&format!("{at}{path}")).await.is_ok();
    let stripped = format!("{at}{}", path.trim_start_matches("/attache"));
    assert!(browser.get(&stripped).await.is_ok().text().contains("action=\"/attache/connect/"));
    let own = [("origin", "https://app.example.com")];
    assert_eq!(browser.post_from(&stripped, &[], &[("origin", &at)]).await.status, 403, "public_url is the only truth");
    let sent = browser.post_from(&stripped, &[("provider", "sandbox")], &own).await;
    assert_eq!(sent.status, 303, "{}", sent.text());
    assert_eq!(param(&sent.header("location"), "redirect_uri"), "https://app.example.com/attache/oauth/callback/sandbox");
    let cookie = &browser.seen_cookies[0];
    assert!(cookie.contains("Secure") && cookie.contains("Path=/attache;"), "{cookie}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_providers_are_a_choice_and_accounts_stand_apart() {
    let second = "  second:\n    use: sandbox\n    client_id: printpixie\n    client_secret: sandbox-secret\n    authorize_url: http://SANDBOX/authorize\n";
    let world = plan().providers(second).start().await;
    let both = session(&world, json!({"providers": ["second", "sandbox"], "account": "work"})).await;
    let mut browser = Browser::default();
    let text = browser.get(link(&both)).await.is_ok().text();
    assert!(text.contains("value=\"sandbox\"") && text.contains("value=\"second\""), "{text}");
    assert_eq!(browser.post(link(&both), &[]).await.status, 400, "nothing was chosen");
    assert_eq!(browser.post(link(&both), &[("provider", "google")]).await.status, 400, "not among the choices");
    let back = browser.there_and_back(link(&both), MEGAN, "allow").await;
    browser.get(&back).await.is_ok();
    world.get("/photos").await.is_problem("not-connected", 401, "http_request_denied");
    let as_work = [("x-end-user", MEGAN), ("x-end-user-account", "work")];
    world.call("GET", "/photos", &as_work, crate::wire::empty()).await.is_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_passwords_are_typed_on_the_page() {
    let upstream = Upstream::start(|_| Reply::ok("", "ok")).await;
    let address = upstream.address;
    let providers = format!(
        "  keyed: {{credential: api_key, attach: {{header: X-Api-Key}}, token_hosts: [\"{address}\"]}}\n  basic: {{credential: password, attach: basic, token_hosts: [\"{address}\"]}}\n"
    );
    let routes = format!(
        "  - {{match: '/keyed', provider: keyed, upstream: 'http://{address}/'}}\n  - {{match: '/basic', provider: basic, upstream: 'http://{address}/'}}\n"
    );
    let world = plan().providers(&providers).routes(&routes).start().await;
    let mut browser = Browser::default();
    let keyed = session(&world, json!({"providers": ["keyed"]})).await;
    assert!(browser.get(link(&keyed)).await.is_ok().text().contains("name=\"api_key\""));
    assert_eq!(browser.post(link(&keyed), &[("provider", "keyed"), ("api_key", " ")]).await.status, 400);
    browser.post(link(&keyed), &[("provider", "keyed"), ("api_key", " k-123 ")]).await.is_ok();
    let basic = session(&world, json!({"providers": ["basic"]})).await;
    assert_eq!(browser.post(link(&basic), &[("provider", "basic"), ("username", "a:b"), ("password", "p")]).await.status, 400);
    browser.post(link(&basic), &[("provider", "basic"), ("username", "megan"), ("password", "p:w")]).await.is_ok();
    world.get("/keyed").await.is_ok();
    world.get("/basic").await.is_ok();
    let seen = upstream.seen();
    assert_eq!(seen[0].header("x-api-key"), "k-123");
    assert_eq!(seen[1].header("authorization"), "Basic bWVnYW46cDp3");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_flow_connects_by_a_code() {
    let world = plan().start().await;
    let body = json!({"provider": "sandbox", "end_user": MEGAN});
    let made = world.admin_json("POST", "/v1/device-sessions", &body).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    let id = made["id"].as_str().expect("an id");
    let state = async || world.admin("GET", &format!("/v1/device-sessions/{id}")).await.is_ok().json()["state"].clone();
    assert_eq!(state().await, "pending");
    let mut browser = Browser::default();
    let page = made["verification_uri"].as_str().expect("a URL");
    let code = made["user_code"].as_str().expect("a code");
    let allowed = browser.post(page, &[("user_code", code), ("decision", "allow"), ("user", MEGAN)]).await;
    allowed.is_ok();
    crate::wire::until("the device is connected", async || {
        world.clock.advance(seconds(2));
        state().await == "connected"
    })
    .await;
    world.get("/photos").await.is_ok();
    assert_eq!(world.admin("GET", "/v1/device-sessions/nothing").await.status, 404);
    assert_eq!(world.stored(MEGAN).await.map(|connection| connection.key), Some(key(MEGAN)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_leaves_while_its_code_is_spent_loses_nothing() {
    let world = plan().start().await;
    let session = session(&world, json!({"return_url": RETURN})).await;
    let mut browser = Browser::default();
    let back = browser.there_and_back(link(&session), MEGAN, "allow").await;
    world.sandbox.change(|settings| settings.token_delay = std::time::Duration::from_millis(300));
    let gone = browser.get_and_leave(&back).await;
    crate::wire::until("the code is being spent", async || world.sandbox.counters().authorization_code_posts == 1).await;
    drop(gone);
    crate::wire::until("the connection is there all the same", async || world.stored(MEGAN).await.is_some()).await;
    world.get("/photos").await.is_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_code_that_is_being_spent() {
    let world = plan().on_disk().start().await;
    let session = session(&world, json!({"return_url": RETURN})).await;
    let mut browser = Browser::default();
    let back = browser.there_and_back(link(&session), MEGAN, "allow").await;
    world.sandbox.change(|settings| settings.token_delay = std::time::Duration::from_millis(300));
    let _gone = browser.get_and_leave(&back).await;
    crate::wire::until("the code is being spent", async || world.sandbox.counters().authorization_code_posts == 1).await;
    let world = world.restart().await;
    assert!(world.stored(MEGAN).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_deleted_is_not_brought_back_by_its_completion() {
    let world = plan().start().await;
    let session = session(&world, json!({"complete": "app", "return_url": RETURN})).await;
    let mut browser = Browser::default();
    let back = browser.there_and_back(link(&session), MEGAN, "allow").await;
    let done = browser.get(&back).await.header("location");
    world.admin("DELETE", &format!("/v1/connections/sandbox/{MEGAN}")).await.is_ok();
    let complete = format!("/v1/connect-sessions/{}/complete", session["session"].as_str().expect("an id"));
    let answer = world.admin_json("POST", &complete, &json!({"completion": param(&done, "completion"), "end_user": MEGAN})).await;
    assert_eq!((answer.status.as_u16(), world.stored(MEGAN).await), (404, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_account_it_is_is_nobody_elses_to_say() {
    let world = plan().start().await;
    let sub = json!({"end_user": MEGAN, "metadata": {"sub": "somebody"}});
    assert_eq!(world.admin_json("POST", "/v1/connect-sessions", &sub).await.status, 400);
    world.connect(MEGAN).await;
    let path = format!("/v1/connections/sandbox/{MEGAN}");
    assert_eq!(world.admin_json("PATCH", &path, &json!({"metadata": {"sub": "somebody"}})).await.status, 400);
    let long = json!({"end_user": MEGAN, "scopes": (0..99).map(|number| format!("{number:0>400}")).collect::<Vec<_>>()});
    assert_eq!(world.admin_json("POST", "/v1/connect-sessions", &long).await.status, 400, "more than a session can hold");
    let large = json!({"access_token": "a", "metadata": {"x": "y".repeat(9000)}});
    assert_eq!(world.admin_json("PUT", &path, &large).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_narrower_than_asked_says_what_is_missing() {
    let narrow = r#"{"access_token":"a","token_type":"Bearer","expires_in":3600,"scope":"photos.read"}"#;
    let token = Upstream::start(move |_| Reply::ok("Content-Type: application/json\r\n", narrow)).await;
    let world = plan().token_url(&format!("http://{}/token", token.address)).start().await;
    let session = session(&world, json!({})).await;
    let mut browser = Browser::default();
    let back = browser.there_and_back(link(&session), MEGAN, "allow").await;
    let page = browser.get(&back).await.is_ok().text();
    assert!(page.contains("photos.write"), "the end user is told too: {page}");
    let connection = shown(&world, MEGAN).await;
    assert_eq!((&connection["scopes"], &connection["missing_scopes"]), (&json!(["photos.read"]), &json!(["photos.write"])));
}
