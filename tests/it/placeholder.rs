//! `placeholder`: the end user's name where an SDK wants its token (contract §3). It is read, replaced, and never seen upstream.

use crate::harness::*;
use crate::upstream::Upstream;
use crate::wire::empty;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const KEY: &str = "k-placeholder-5f0c";

async fn world(top: &str, keys: &str) -> (World, Upstream, String) {
    let api = Upstream::plain().await;
    let world = Plan::new().top(top).up(api.address, keys).start().await;
    let token = world.connect(MEGAN).await.access_token.expose().to_owned();
    (world, api, token)
}

const ON: &str = "end_user: {placeholder: true}\n";

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

#[tokio::test]
async fn an_sdk_names_the_end_user_where_it_wants_its_token() {
    let (world, api, token) = world(ON, "").await;
    let bearer = format!("Bearer {MEGAN}");
    for value in [&bearer, &format!("bearer  {MEGAN} "), &basic(&format!("{MEGAN}:")), &basic(&format!("{MEGAN}:x"))] {
        world.call("GET", "/up/x", &[("authorization", value)], empty()).await.is_ok();
        assert_eq!(api.last().header("authorization"), format!("Bearer {token}"), "{value}");
    }
    // The header may say the same, and names alone as ever.
    world.call("GET", "/up/x", &[("authorization", &bearer), ("x-end-user", MEGAN)], empty()).await.is_ok();
    world.get("/up/x").await.is_ok();
    assert!(!api.bytes().contains("megan"), "never seen upstream");
    assert!(!api.bytes().contains(&STANDARD.encode(MEGAN)[..20]));
}

#[tokio::test]
async fn two_names_that_differ_and_names_that_are_none_are_refused() {
    let (world, api, _) = world(ON, "").await;
    let bearer = format!("Bearer {MEGAN}");
    let long = format!("Bearer {}", "m".repeat(257));
    for headers in [
        &[("authorization", &*bearer), ("x-end-user", ALEX)][..],
        &[("authorization", &bearer), ("authorization", &bearer)],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer a,b")],
        &[("authorization", &long)],
        &[("authorization", "Basic !")],
        &[("authorization", "Basic Og==")],
        &[("authorization", &bearer), ("x_end_user", MEGAN)],
    ] {
        world.call("GET", "/up/x", headers, empty()).await.is_problem("end-user-invalid", 400, "http_request_denied");
    }
    world.call("GET", "/up/x", &[("authorization", "Digest a")], empty()).await.is_problem("end-user-missing", 400, "http_request_denied");
    let other = format!("Bearer {ALEX}");
    world.call("GET", "/up/x", &[("authorization", &other)], empty()).await.is_problem("not-connected", 401, "http_request_denied");
    assert_eq!(api.connections(), 0);
}

/// Without the question whether a placeholder is on, whoever sends an `Authorization` would choose the end user.
#[tokio::test]
async fn threat_12_it_names_nobody_where_it_is_off() {
    let bearer = format!("Bearer {MEGAN}");
    for (top, keys) in [("", ""), (ON, "    placeholder: false\n")] {
        let (world, api, _) = world(top, keys).await;
        let answer = world.call("GET", "/up/x", &[("authorization", &bearer)], empty()).await;
        answer.is_problem("end-user-missing", 400, "http_request_denied");
        world.call("GET", "/up/x", &[("authorization", &bearer), ("x-end-user", ALEX)], empty()).await.is_problem(
            "not-connected",
            401,
            "http_request_denied",
        );
        assert_eq!(api.connections(), 0);
    }
}

#[tokio::test]
async fn a_route_or_the_listener_may_turn_it_on_alone() {
    let bearer = format!("Bearer {MEGAN}");
    let (on_route, _api, _) = world("", "    placeholder: true\n").await;
    on_route.call("GET", "/up/x", &[("authorization", &bearer)], empty()).await.is_ok();
    on_route.call("GET", "/photos", &[("authorization", &bearer)], empty()).await.is_problem(
        "end-user-missing",
        400,
        "http_request_denied",
    );

    let api = Upstream::plain().await;
    let listen = "  proxy: {bind: 127.0.0.1:0, placeholder: true}\n  public: 127.0.0.1:0\n  admin: 127.0.0.1:0\n";
    let on_listener = Plan::new().listen(listen).up(api.address, "").start().await;
    on_listener.connect(MEGAN).await;
    on_listener.call("GET", "/up/x", &[("authorization", &bearer)], empty()).await.is_ok();
}

#[tokio::test]
async fn other_attach_places_hold_it_too() {
    let api = Upstream::plain().await;
    let keys = "    attach: {header: X-Shop-Token}\n";
    let query = format!(
        "  - {{match: '/q/{{*rest}}', provider: sandbox, upstream: 'http://{}/{{rest}}', attach: {{query: access_token}}}}\n",
        api.address
    );
    let world = Plan::new().top(ON).up(api.address, keys).routes(&query).start().await;
    let token = world.connect(MEGAN).await.access_token.expose().to_owned();
    world.call("GET", "/up/x", &[("x-shop-token", MEGAN)], empty()).await.is_ok();
    assert_eq!(api.last().header("x-shop-token"), token);
    world.call("GET", "/q/x?access_token=megan%40personalemail.com&a=1", &[], empty()).await.is_ok();
    assert_eq!(api.last().target, format!("/x?a=1&access_token={token}"));
    assert!(!api.bytes().contains("megan"));
    let twice = world.call("GET", "/q/x?access_token=a&access_token=b", &[], empty()).await;
    twice.is_problem("end-user-invalid", 400, "http_request_denied");
}

/// A token that was left where the name belongs is told to nobody, and a caller's key goes nowhere.
#[tokio::test]
async fn what_may_be_a_secret_is_neither_told_back_nor_passed_on() {
    let (world, _api, _) = world(ON, "").await;
    let answer = world.call("GET", "/up/x", &[("authorization", "Bearer sk-live-0123456789")], empty()).await;
    answer.is_problem("not-connected", 401, "http_request_denied");
    assert!(!answer.text().contains("sk-live"), "{}", answer.text());
    let named = world.call("GET", "/up/x", &[("authorization", &format!("Bearer {ALEX}"))], empty()).await;
    assert!(named.text().contains(ALEX), "{}", named.text());

    let api = Upstream::plain().await;
    let hash: String =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, KEY.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let callers = format!("callers:\n  - {{name: app, key_sha256: {hash}}}\n");
    let open = format!("  - {{match: '/open/{{*rest}}', as: none, upstream: 'http://{}/{{rest}}'}}\n", api.address);
    let world = Plan::new().top(&format!("{ON}{callers}")).up(api.address, "").routes(&open).start().await;
    for value in [format!("{MEGAN}:{KEY}"), KEY.to_owned(), format!("Token {MEGAN}:{KEY}")] {
        world.call("GET", "/open/x", &[("x-api-key", &value), ("x-other", "a:b"), ("x-attache-key", KEY)], empty()).await.is_ok();
        assert_eq!(api.last().header("x-other"), "a:b");
    }
    assert!(!api.bytes().contains(KEY));
}

#[tokio::test]
async fn a_callers_key_in_it_counts_as_one_in_its_header() {
    // printf %s "$KEY" | sha256sum
    let hash: String =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, KEY.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let callers = format!("callers:\n  - {{name: app, key_sha256: {hash}}}\n");
    let (on, api, token) = world(&format!("{ON}{callers}"), "").await;
    let with_key = format!("Bearer {MEGAN}:{KEY}");
    for (authorization, own) in
        [(&*with_key, None), (&*basic(&format!("{MEGAN}:{KEY}")), None), (&*with_key, Some(KEY)), (&*format!("Bearer {MEGAN}"), Some(KEY))]
    {
        let mut headers = vec![("authorization", authorization)];
        headers.extend(own.map(|key| ("x-attache-key", key)));
        on.call("GET", "/up/x", &headers, empty()).await.is_ok();
        assert_eq!(api.last().header("authorization"), format!("Bearer {token}"));
    }
    assert!(!api.bytes().contains(KEY) && !api.bytes().contains("megan"));
    let wrong = format!("Bearer {MEGAN}:wrong");
    let bare = format!("Bearer {MEGAN}");
    for headers in [
        &[("authorization", &*wrong)][..],
        &[("authorization", &wrong), ("x-attache-key", KEY)],
        &[("authorization", &with_key), ("x-attache-key", "wrong")],
        &[("authorization", &bare)],
        &[("x-end-user", MEGAN)],
    ] {
        // No stranger learns which routes there are.
        let is_stranger = !headers.contains(&("x-attache-key", KEY));
        for path in ["/up/x", "/no/such/route", "/up/../x"].into_iter().take(if is_stranger { 3 } else { 1 }) {
            on.call("GET", path, headers, empty()).await.is_problem("caller-refused", 403, "http_request_denied");
        }
    }
    // Where the placeholder is off, a key in it is none.
    let (off, api, _) = world(&callers, "").await;
    off.call("GET", "/up/x", &[("authorization", &with_key)], empty()).await.is_problem("caller-refused", 403, "http_request_denied");
    let (one, _api, _) = world(&callers, "    placeholder: true\n").await;
    one.call("GET", "/up/x", &[("authorization", &with_key)], empty()).await.is_ok();
    one.call("GET", "/photos", &[("authorization", &with_key)], empty()).await.is_problem("caller-refused", 403, "http_request_denied");
    assert_eq!(api.connections(), 0);
}
