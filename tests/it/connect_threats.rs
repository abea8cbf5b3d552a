//! What attackers try with connect links, callbacks and the admin API (THREATS rows 22 to 25, 27, 40 and 43).

use crate::browser::{Browser, param};
use crate::connect::{RETURN, link, plan, session};
use crate::harness::{ADMIN_TOKEN, ALEX, MEGAN, World, seconds, with_headers};
use crate::wire::{self, empty};
use serde_json::json;

/// Megan's browser at the provider with its answer in hand: her session's link, and the URL to come back by.
async fn on_the_way_back(world: &World, browser: &mut Browser) -> (String, String) {
    let session = session(world, json!({})).await;
    let authorize = browser.set_out(link(&session), "sandbox").await;
    let back = browser.decide(&authorize, MEGAN, "allow").await;
    (link(&session).to_owned(), back)
}

async fn connections(world: &World) -> usize {
    world.admin("GET", "/v1/connections").await.is_ok().json()["items"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_22_another_browser_neither_begins_nor_comes_back() {
    let world = plan().start().await;
    let (mut megan, mut other) = (Browser::default(), Browser::default());
    let (link, back) = on_the_way_back(&world, &mut megan).await;
    assert_eq!(other.get(&link).await.status, 403, "the link is bound to the browser that began");
    assert_eq!(other.post(&link, &[("provider", "sandbox")]).await.status, 403);
    let answer = other.get(&back).await;
    assert_eq!(answer.status, 403, "login CSRF: the callback in another browser");
    assert!(answer.text().to_lowercase().contains("browser"), "{}", answer.text());
    assert_eq!((connections(&world).await, world.sandbox.counters().authorization_code_posts), (0, 0));
    // None of it has spoilt it for her; and what she used is used.
    megan.get(&back).await.is_ok();
    assert_eq!(megan.get(&back).await.status, 410);
    assert_eq!((connections(&world).await, world.sandbox.counters().authorization_code_posts), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_22_a_state_of_another_session_and_an_old_one_are_refused() {
    let world = plan().start().await;
    let (mut megan, mut mallory) = (Browser::default(), Browser::default());
    let (link, back) = on_the_way_back(&world, &mut megan).await;
    let (_, others) = on_the_way_back(&world, &mut mallory).await;
    // Mallory's code and state in Megan's browser, and her own code under Mallory's state.
    assert_eq!(megan.get(&others).await.status, 403);
    let mixed = back.replace(&param(&back, "state"), &param(&others, "state"));
    assert_eq!(megan.get(&mixed).await.status, 403);
    for state in ["", "x", &"A".repeat(65)] {
        assert_eq!(megan.get(&back.replace(&param(&back, "state"), state)).await.status, 410, "{state:?}");
    }
    assert_eq!(megan.get(&format!("{back}&code=again")).await.status, 400, "a parameter that is there twice");
    // A second trip of the same browser makes the first one's state worthless.
    let again = megan.set_out(&link, "sandbox").await;
    assert_eq!(megan.get(&back).await.status, 410);
    let back = megan.decide(&again, MEGAN, "allow").await;
    world.clock.advance(seconds(901));
    assert_eq!(megan.get(&back).await.status, 410, "a session lives 15 minutes");
    assert_eq!((connections(&world).await, world.sandbox.counters().authorization_code_posts), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_22_a_forwarded_link_joins_nobody_elses_account_where_the_app_completes() {
    let world = plan().start().await;
    // Alex makes a link for himself and has Megan follow it: she consents at the provider, in her own browser.
    let body = json!({"end_user": ALEX, "providers": ["sandbox"], "complete": "app", "return_url": RETURN});
    let made = world.admin_json("POST", "/v1/connect-sessions", &body).await.json();
    let mut megan = Browser::default();
    let authorize = megan.set_out(link(&made), "sandbox").await;
    let back = megan.decide(&authorize, MEGAN, "allow").await;
    let done = megan.get(&back).await.header("location");
    // The app sees that it is Megan who came back.
    let complete = format!("/v1/connect-sessions/{}/complete", made["session"].as_str().expect("an id"));
    let answer = world.admin_json("POST", &complete, &json!({"completion": param(&done, "completion"), "end_user": MEGAN})).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!((connections(&world).await, world.sandbox.counters().revocations), (0, 1));
    world.get_as(ALEX, "/photos").await.is_problem("not-connected", 401, "http_request_denied");
    // Without the app's word the link can only be refused beforehand: `complete` without `return_url` is no session at all.
    let answer = world.admin_json("POST", "/v1/connect-sessions", &json!({"end_user": ALEX, "complete": "app"})).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_23_an_answer_of_another_provider_is_refused() {
    let second = "  second:\n    use: sandbox\n    client_id: printpixie\n    client_secret: sandbox-secret\n    authorize_url: http://SANDBOX/authorize\n";
    let world = plan().provider("    issuer: http://SANDBOX\n").providers(second).start().await;
    let mut megan = Browser::default();
    let (_, back) = on_the_way_back(&world, &mut megan).await;
    assert_eq!(megan.get(&back.replace("/callback/sandbox", "/callback/second")).await.status, 403, "provider A's answer at B's callback");
    assert_eq!(megan.get(&back.replace("/callback/sandbox", "/callback/nobody")).await.status, 404);
    // RFC 9207: `iss` of somebody else. The code goes nowhere.
    let issuer = format!("iss={}", form_urlencoded::byte_serialize(world.sandbox.issuer().as_bytes()).collect::<String>());
    assert!(back.contains(&issuer), "{back}");
    let wrong = megan.get(&back.replace(&issuer, "iss=https%3A%2F%2Fevil.example")).await;
    assert_eq!(wrong.status, 502, "{}", wrong.text());
    assert_eq!((connections(&world).await, world.sandbox.counters().authorization_code_posts), (0, 0));
    assert_eq!(megan.get(&back).await.status, 410, "and the session is spent");
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_24_a_return_url_that_is_not_the_apps_makes_no_session() {
    let world = plan().start().await;
    for url in [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "http://app.localhost:3000@evil.example/connected",
        "http://app.localhost:3000.evil.example/connected",
        "http://app.localhost:3000/connected%20",
        "http://app.localhost:3000/other",
        "javascript:alert(1)",
        "",
    ] {
        let answer = world.admin_json("POST", "/v1/connect-sessions", &json!({"end_user": MEGAN, "return_url": url})).await;
        assert_eq!((answer.status.as_u16(), answer.json()["type"].as_str()), (400, Some("urn:attache:invalid-request")), "{url}");
    }
    session(&world, json!({"return_url": format!("{RETURN}?order=7")})).await;
}

/// Without the same guard on the admin listener, and without the judgement of `Origin` on the form, a page could make connections in a user's name.
#[tokio::test(flavor = "multi_thread")]
async fn threat_25_no_web_page_reaches_the_admin_api_or_posts_the_connect_form() {
    let world = plan().start().await;
    let bearer = format!("Bearer {ADMIN_TOKEN}");
    for (name, value) in [
        ("host", "evil.example"),
        ("origin", "https://evil.example"),
        ("origin", "http://localhost:3000"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let host = if name == "host" { value } else { "localhost:7072" };
        let request = http::Request::builder().uri("/v1/connections").header("host", host).header("authorization", &bearer);
        let request = if name == "host" { request } else { request.header(name, value) };
        let answer = wire::call(world.admin, request.body(empty()).expect("a request")).await;
        assert_eq!(answer.status, 403, "{name}: {value}");
    }
    let session = session(&world, json!({})).await;
    let mut browser = Browser::default();
    for headers in [&[("origin", "https://evil.example")][..], &[("origin", "null")], &[]] {
        let answer = browser.post_from(link(&session), &[("provider", "sandbox")], headers).await;
        assert_eq!(answer.status, 403, "{headers:?}");
    }
    assert!(browser.seen_cookies.is_empty());
    browser.set_out(link(&session), "sandbox").await;
}

/// Fails when the login cookie is good for calls of other origins.
#[tokio::test(flavor = "multi_thread")]
async fn threat_25_a_browsers_login_serves_the_admin_pages_alone() {
    let world = plan().start().await;
    let home = format!("http://localhost:{}/", world.admin.port());
    let login = format!("{home}login");
    let mut browser = Browser::default();
    assert!(browser.get(&home).await.is_ok().text().contains("name=\"token\""));
    assert_eq!(browser.post(&login, &[("token", "wrong")]).await.status, 401);
    let cross = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")];
    assert_eq!(browser.post_from(&login, &[("token", ADMIN_TOKEN)], &cross).await.status, 403);
    assert_eq!(browser.post(&login, &[("token", ADMIN_TOKEN)]).await.status, 303);
    let cookie = browser.seen_cookies.last().expect("a cookie").clone();
    for attribute in ["HttpOnly", "SameSite=Strict", "Max-Age=43200"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    browser.get(&format!("{home}v1/connections")).await.is_ok();
    // A page elsewhere can make the browser send its cookie in some browsers yet, but not our Origin.
    for headers in [&[("origin", "http://localhost:3000")][..], &[]] {
        assert_eq!(browser.post_from(&format!("{home}v1/reload"), &[], headers).await.status, 403, "{headers:?}");
    }
    browser.post(&format!("{home}v1/reload"), &[]).await.is_ok();
    world.clock.advance(seconds(12 * 3600));
    assert_eq!(browser.get(&format!("{home}v1/connections")).await.status, 401, "12 hours");
    assert_eq!(browser.post(&login, &[("token", ADMIN_TOKEN)]).await.status, 303);
    assert_eq!(browser.post(&format!("{home}logout"), &[]).await.status, 303);
    assert_eq!(browser.get(&format!("{home}v1/connections")).await.status, 401, "logged out");
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_27_tokens_and_session_ids_are_told_apart_whole() {
    let world = plan().start().await;
    // The comparisons go by digests of the whole text (`connect::session::Digest`, `base::secret::Secret`): a longer common beginning is no closer.
    let long = format!("{ADMIN_TOKEN}x");
    for token in ["", "x", &ADMIN_TOKEN[..ADMIN_TOKEN.len() - 1], &long, &ADMIN_TOKEN.to_uppercase()] {
        let request = with_headers(wire::request("GET", "/v1/connections"), &[("authorization", &format!("Bearer {token}"))]);
        let answer = wire::call(world.admin, request.body(empty()).expect("a request")).await;
        assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, "Bearer".to_owned()), "{token}");
    }
    let session = session(&world, json!({})).await;
    let mut browser = Browser::default();
    let last = link(&session).chars().next_back().expect("a letter");
    let near = format!("{}{}", &link(&session)[..link(&session).len() - 1], if last == 'A' { 'B' } else { 'A' });
    assert_eq!(browser.get(&near).await.status, 410);
    browser.get(link(&session)).await.is_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_40_secrets_of_the_config_are_masked_wherever_it_is_shown() {
    let world = plan().routes("  - {match: '/k', provider: sandbox, upstream: 'http://SANDBOX/v1/photos?key=visible'}\n").start().await;
    world.connect(MEGAN).await;
    let session = session(&world, json!({"return_url": RETURN})).await;
    let mut browser = Browser::default();
    let page = browser.get(link(&session)).await.text();
    let mut shown = vec![page];
    for path in ["/v1/providers", "/v1/routes", "/v1/connections", "/v1/connections/export", "/openapi.json", "/v1/explain?url=/photos"] {
        shown.push(world.admin("GET", path).await.is_ok().text());
    }
    let stored = world.stored(MEGAN).await.expect("connected");
    let refresh_token = stored.refresh_token.expect("renewable");
    for text in shown {
        for secret in [attache::sandbox::Settings::DEV_CLIENT_SECRET, ADMIN_TOKEN, stored.access_token.expose(), refresh_token.expose()] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_43_opening_a_link_changes_nothing() {
    let world = plan().start().await;
    let session = session(&world, json!({})).await;
    for _ in 0..20 {
        let mut scanner = Browser::default();
        let page = scanner.get(link(&session)).await;
        page.is_ok();
        let head = scanner.head(link(&session)).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
        assert!(scanner.seen_cookies.is_empty());
    }
    let state = world.admin("GET", &format!("/v1/connect-sessions/{}", session["session"].as_str().expect("an id"))).await;
    assert_eq!(state.is_ok().json()["state"], "open");
    assert_eq!(world.sandbox.counters().authorizations, 0);
    Browser::default().set_out(link(&session), "sandbox").await;
}
