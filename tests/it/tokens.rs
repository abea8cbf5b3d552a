//! Tokens over their life, as calls see them: refreshes, rejections, ends and faults of the token endpoint.

use crate::harness::*;
use crate::upstream::{Reply, Upstream};
use crate::wire::{self, Connection, Raw, empty, until, whole, within};
use attache::sandbox::FailToken;
use futures_util::future::join_all;
use serde_json::json;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

fn failing(status: u16, body: &str) -> Option<FailToken> {
    Some(FailToken { status, content_type: "application/json".into(), body: body.into(), retry_after: None, times: None })
}

fn get(path: &str, user: &str) -> http::Request<wire::Body> {
    wire::request("GET", path).header("x-end-user", user).body(empty()).expect("a request")
}

#[tokio::test]
async fn an_expired_token_is_refreshed_before_the_call() {
    let world = World::start().await;
    let old = world.connect_expired(MEGAN).await;
    assert_eq!(world.get("/api/me").await.is_ok().json()["user"], MEGAN);
    let stored = world.stored(MEGAN).await.expect("there");
    assert_ne!(stored.access_token, old.access_token);
    assert_ne!(stored.refresh_token, old.refresh_token, "the rotated one is kept");
    assert_eq!(world.sandbox.counters().refresh_posts, 1);
    assert_eq!(world.sandbox.counters().api_rejected, 0, "the old token was not even tried");
}

#[tokio::test]
async fn a_grant_without_an_access_token_is_refreshed_by_its_first_call() {
    let world = World::start().await;
    let grant = world.sandbox.issue_grant(MEGAN, &["profile"]).expect("a client");
    let refresh_token = grant.refresh_token.expect("given");
    world.import(&json!({"provider": "sandbox", "end_user": MEGAN, "refresh_token": refresh_token.expose()})).await;
    world.get("/api/me").await.is_ok();
    world.get("/api/me").await.is_ok();
    assert_eq!(world.sandbox.counters().refresh_posts, 1);
}

/// Without the one flight a connection a second POST would replay the token that the first one rotated.
#[tokio::test]
async fn threat_29_a_thousand_calls_on_one_expired_token_make_one_post() {
    let world = Plan::new().on_disk().start().await;
    world.connect_expired(MEGAN).await;
    world.sandbox.change(|settings| settings.token_delay = Duration::from_millis(500));
    let calls = join_all((0..1000).map(|_| wire::call(world.proxy, get("/api/me", MEGAN))));
    for answer in within("a thousand calls", calls).await {
        assert_eq!(answer.is_ok().json()["user"], MEGAN);
    }
    let counters = world.sandbox.counters();
    assert_eq!((counters.token_posts, counters.refreshes, counters.reuse_detections), (1, 1, 0));
    assert_eq!(counters.api_rejected, 0);
}

/// Without the landing that all callers wait at, each would ask the token endpoint itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_35_ten_thousand_callers_of_the_keeper_make_one_post() {
    let world = World::start().await;
    world.connect_expired(MEGAN).await;
    let (reg, keeper) = (world.registration(), Arc::clone(&world.running.keeper));
    let calls: Vec<_> = (0..10_000)
        .map(|_| {
            let (reg, keeper) = (Arc::clone(&reg), Arc::clone(&keeper));
            tokio::spawn(async move { keeper.credential(&reg, key(MEGAN).borrow()).await.map(|token| token.version) })
        })
        .collect();
    let versions: Vec<_> = within("ten thousand calls", join_all(calls))
        .await
        .into_iter()
        .map(|version| version.expect("no panic").expect("a token"))
        .collect();
    assert!(versions.iter().all(|version| *version == versions[0]));
    assert_eq!(world.sandbox.counters().token_posts, 1);
}

/// Without the flight on the control plane the refresh would end with its client, after the provider had rotated the token.
#[tokio::test]
async fn threat_30_a_client_that_hangs_up_in_mid_refresh_loses_no_token() {
    let world = Plan::new().on_disk().start().await;
    let old = world.connect_expired(MEGAN).await;
    // No leeway: a rotated refresh token that was not kept would be the grant's end.
    world.sandbox.change(|settings| {
        settings.token_delay = Duration::from_millis(300);
        settings.reuse_leeway = Duration::ZERO;
    });
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("GET /api/me HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
    until("the refresh is under way", async || world.sandbox.counters().refreshes == 1).await;
    drop(raw);
    until("the rotated token is kept", async || {
        world.stored(MEGAN).await.is_some_and(|stored| stored.refresh_token.is_some() && stored.refresh_token != old.refresh_token)
    })
    .await;
    world.get("/api/me").await.is_ok();
    assert_eq!(world.sandbox.counters().refresh_posts, 1);
}

#[tokio::test]
async fn a_token_near_its_end_goes_on_while_one_refresh_runs_behind() {
    let world = World::connected().await;
    world.get("/api/me").await.is_ok();
    world.clock.advance(seconds(3400));
    world.sandbox.change(|settings| settings.token_delay = Duration::from_secs(5));
    let calls = join_all((0..20).map(|_| wire::call(world.proxy, get("/api/me", MEGAN))));
    // Far shorter than the token endpoint takes: nobody waits for it.
    let answers = tokio::time::timeout(Duration::from_secs(4), calls).await.expect("no call waits for the refresh");
    for answer in answers {
        answer.is_ok();
    }
    until("the refresh began", async || world.sandbox.counters().refresh_posts > 0).await;
    assert_eq!(world.sandbox.counters().refresh_posts, 1);
}

#[tokio::test]
async fn after_a_refresh_behind_the_new_token_is_used() {
    let world = World::connected().await;
    let old = world.stored(MEGAN).await.expect("there").access_token;
    world.clock.advance(seconds(3400));
    world.get("/api/me").await.is_ok();
    until("the new token is stored", async || {
        world.get("/api/me").await.is_ok();
        world.stored(MEGAN).await.is_some_and(|stored| stored.access_token != old)
    })
    .await;
    world.clock.advance(seconds(300));
    world.get("/api/me").await.is_ok();
    assert_eq!((world.sandbox.counters().refresh_posts, world.sandbox.counters().api_rejected), (1, 0));
}

// --- the upstream says 401 ------------------------------------------------------------------------------------------------------------

/// Megan, and an API that reads each call whole and then refuses the first token it ever saw.
async fn refused_once() -> (World, Upstream) {
    let first = OnceLock::new();
    let api =
        Upstream::start(move |seen| match *first.get_or_init(|| seen.header("authorization").to_owned()) == seen.header("authorization") {
            true => {
                Reply::Keep("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"api\"\r\nContent-Length: 5\r\n\r\nstale".into())
            }
            false => Reply::ok("", &seen.body.len().to_string()),
        })
        .await;
    let world = Plan::new().up(api.address, "").start().await;
    world.connect(MEGAN).await;
    world.clock.advance(seconds(31));
    (world, api)
}

#[tokio::test]
async fn a_token_that_the_api_refuses_is_replaced_once_and_the_call_repeated() {
    for length in [0, 1, 10 * 1024, 64 * 1024] {
        let (world, api) = refused_once().await;
        let answer = world.call("POST", "/up/x", &[("x-end-user", MEGAN)], whole(vec![b'x'; length])).await;
        assert_eq!(answer.is_ok().text(), length.to_string(), "the whole body again");
        assert_eq!((world.sandbox.counters().refresh_posts, api.seen().len()), (1, 2));
    }
}

#[tokio::test]
async fn a_401_to_a_body_too_long_to_repeat_passes_on() {
    let (world, api) = refused_once().await;
    let long = || world.call("POST", "/up/x", &[("x-end-user", MEGAN)], whole(vec![b'x'; 100 * 1024]));
    let answer = long().await;
    assert_eq!(
        (answer.status.as_u16(), answer.text(), answer.header("www-authenticate")),
        (401, "stale".into(), "Bearer realm=\"api\"".into())
    );
    assert_eq!(answer.header("proxy-status"), "", "the API's own answer");
    assert_eq!(api.seen().len(), 1);
    // A call that can be repeated mends it for all.
    world.get("/up/x").await.is_ok();
    long().await.is_ok();
}

/// Fails without `refresh.min_age`.
#[tokio::test]
async fn threat_44_an_api_that_refuses_everything_forces_one_refresh_in_a_while() {
    let world = World::connected().await;
    world.sandbox.change(|settings| settings.api_reject_all = true);
    for _ in 0..20 {
        assert_eq!(world.get("/api/me").await.status, 401);
    }
    assert_eq!(world.sandbox.counters().refresh_posts, 0, "a token younger than min_age is not the one at fault");
    for _ in 0..3 {
        world.clock.advance(seconds(31));
        for answer in join_all((0..20).map(|_| wire::call(world.proxy, get("/api/me", MEGAN)))).await {
            assert_eq!(answer.status, 401);
            assert!(answer.text().contains("unknown, expired or revoked"), "the API's own words");
        }
    }
    let posts = world.sandbox.counters().refresh_posts;
    assert!((1..=3).contains(&posts), "{posts}");
}

#[tokio::test]
async fn forty_calls_that_are_all_refused_make_one_refresh() {
    let world = World::connected().await;
    world.get("/api/me").await.is_ok();
    world.clock.advance(seconds(31));
    world.sandbox.expire_access_tokens();
    for answer in join_all((0..40).map(|_| wire::call(world.proxy, get("/api/me", MEGAN)))).await {
        answer.is_ok();
    }
    assert_eq!(world.sandbox.counters().refresh_posts, 1);
}

// --- the token endpoint fails -----------------------------------------------------------------------------------------------------------

/// Fails when a token is served past its end, or a failed refresh takes a good one away.
#[tokio::test]
async fn threat_18_without_the_token_endpoint_an_expired_token_is_refused_and_a_valid_one_goes_on() {
    let world = World::start().await;
    world.connect_expired(MEGAN).await;
    world.connect(ALEX).await;
    world.sandbox.change(|settings| settings.fail_token = failing(503, "{}"));
    let answer = world.get("/api/me").await;
    answer.is_problem("refresh-failed", 502, "proxy_internal_response");
    assert!(answer.json().get("connect").is_none(), "connecting anew would not help");
    assert_eq!(world.sandbox.counters().api_calls, 0, "never a stale token");
    // Near its end, and the refresh behind fails: it is still valid.
    world.clock.advance(seconds(3400));
    for _ in 0..5 {
        assert_eq!(world.get_as(ALEX, "/api/me").await.is_ok().json()["user"], ALEX);
    }
    assert!(world.stored(MEGAN).await.is_some_and(|stored| stored.state == attache::store::State::Active), "the grant is kept");
}

/// Without the verdicts on answers a failure that passes would end the grant.
#[tokio::test]
async fn threat_37_every_passing_failure_leaves_the_grant_alone() {
    let cases: [(u16, &str, &str); 9] = [
        (500, "application/json", r#"{"error":"server_error"}"#),
        (503, "text/html", "<html>down</html>"),
        (429, "application/json", "{}"),
        (400, "application/json", r#"{"error":"temporarily_unavailable"}"#),
        (401, "application/json", r#"{"error":"invalid_client"}"#),
        (200, "application/json", r#"{"error":"server_error"}"#),
        (200, "text/html", "<html>sign in to the hotel's network</html>"),
        (200, "application/json", r#"{"access_token":""}"#),
        (403, "text/plain", "forbidden"),
    ];
    for (status, content_type, body) in cases {
        let world = World::start().await;
        world.connect_expired(MEGAN).await;
        let failure = FailToken { status, content_type: content_type.into(), body: body.into(), retry_after: None, times: None };
        world.sandbox.change(|settings| settings.fail_token = Some(failure));
        let answer = world.get("/api/me").await;
        answer.is_problem("refresh-failed", 502, "proxy_internal_response");
        let stored = world.stored(MEGAN).await.expect("there");
        assert_eq!(stored.state, attache::store::State::Active, "{status} {body}");
        // A second call is not sent at once: a provider that is down is not hammered.
        world.get("/api/me").await.is_problem("refresh-failed", 502, "proxy_internal_response");
        assert_eq!(world.sandbox.counters().token_posts, 1, "{status} {body}");
    }
}

#[tokio::test]
async fn a_retry_after_of_the_token_endpoint_is_passed_on_and_kept() {
    let world = World::start().await;
    world.connect_expired(MEGAN).await;
    let failure = FailToken {
        status: 503,
        content_type: "application/json".into(),
        body: "{}".into(),
        retry_after: Some("120".into()),
        times: Some(1),
    };
    world.sandbox.change(|settings| settings.fail_token = Some(failure));
    for _ in 0..3 {
        let answer = world.get("/api/me").await;
        answer.is_problem("refresh-failed", 502, "proxy_internal_response");
        let wait: u64 = answer.header("retry-after").parse().expect("seconds");
        assert!((100..=126).contains(&wait), "{wait}");
    }
    assert_eq!(world.sandbox.counters().token_posts, 1);
}

/// Without the second try, after a wait that is short at first, an answer that was lost would be the grant's end.
#[tokio::test]
async fn threat_32_an_answer_lost_on_the_way_is_asked_for_again() {
    let world = Plan::new().on_disk().start().await;
    world.connect_expired(MEGAN).await;
    world.sandbox.change(|settings| settings.lose_token_answers = 1);
    world.get("/api/me").await.is_problem("refresh-failed", 502, "proxy_internal_response");
    assert_eq!(world.sandbox.counters().refreshes, 1, "the provider rotated, and nobody heard of it");
    // The wait between tries is short at first; within the provider's leeway the old token still works.
    until("the grant works again", async || world.get("/api/me").await.status == 200).await;
    assert_eq!(world.sandbox.counters().reuse_detections, 0);
}

#[tokio::test]
async fn a_dead_grant_tells_how_to_connect_anew() {
    let world = World::start().await;
    world.connect_expired(MEGAN).await;
    assert_eq!(world.sandbox.revoke_user(MEGAN), 1);
    for _ in 0..3 {
        let answer = world.get("/api/me").await;
        answer.is_problem("reconnect-required", 401, "http_request_denied");
        assert_eq!(answer.json()["connect"]["body"], json!({"end_user": MEGAN, "providers": ["sandbox"]}));
    }
    assert_eq!(world.sandbox.counters().token_posts, 1, "a dead grant is not tried again");
    // Connected anew, the very next call works.
    world.connect(MEGAN).await;
    world.get("/api/me").await.is_ok();
}

#[tokio::test]
async fn an_expired_token_without_a_refresh_token_wants_a_new_connection() {
    let world = World::start().await;
    let grant = world.sandbox.issue_grant(MEGAN, &["profile"]).expect("a client");
    let expires_at = grant.expires_at.to_rfc3339();
    world
        .import(&json!({"provider": "sandbox", "end_user": MEGAN, "access_token": grant.access_token.expose(), "expires_at": expires_at}))
        .await;
    world.get("/api/me").await.is_ok();
    world.clock.advance(seconds(3601));
    world.get("/api/me").await.is_problem("reconnect-required", 401, "http_request_denied");
    assert_eq!(world.sandbox.counters().token_posts, 0);
}

// --- whose token --------------------------------------------------------------------------------------------------------------------------

/// Without the watch of the store the table would go on serving the deleted connection's token.
#[tokio::test]
async fn threat_28_a_deleted_connection_is_gone_with_the_next_call() {
    let world = Plan::new().on_disk().start().await;
    world.connect(MEGAN).await;
    for _ in 0..5 {
        world.get("/api/me").await.is_ok();
        world.running.records.delete_connection(&key(MEGAN)).await.expect("written").expect("there");
        world.get("/api/me").await.is_problem("not-connected", 401, "http_request_denied");
        world.connect(MEGAN).await;
    }
}

/// With half the tokens to be refreshed first, all at once: a flight or a slot that was shared by two keys would show as another's answer.
/// Fails when a flight or a slot is keyed by less than provider, end user and account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_10_users_are_never_mixed() {
    let world = World::start().await;
    let users: Vec<String> = (0..50).map(|number| format!("user-{number}@example.com")).collect();
    for (number, user) in users.iter().enumerate() {
        if number % 2 == 0 {
            world.connect(user).await
        } else {
            world.connect_expired(user).await
        };
    }
    let clients = (0..8).map(|client| {
        let (users, proxy) = (users.clone(), world.proxy);
        tokio::spawn(async move {
            let mut connection = Connection::open(proxy).await;
            for call in 0..125 {
                let user = &users[(client * 7 + call * 13) % users.len()];
                let answer = connection.call(get("/api/me", user)).await;
                assert_eq!(answer.is_ok().json()["user"], **user);
            }
        })
    });
    for client in within("a thousand calls", join_all(clients)).await {
        client.expect("each call its own user's");
    }
    assert_eq!(world.sandbox.counters().refresh_posts, 25);
}

/// Fails with an HTTP client that follows redirects.
#[tokio::test]
async fn threat_09_a_redirect_of_the_api_is_passed_on() {
    let elsewhere = Upstream::plain().await;
    let world = World::connected().await;
    for status in [301, 302, 303, 307, 308] {
        let to = format!("http://{}/elsewhere", elsewhere.address);
        let answer = world.get(&format!("/api/redirect?status={status}&to={to}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (status, to));
    }
    assert_eq!(elsewhere.connections(), 0);
}

/// Fails with an HTTP client that follows redirects.
#[tokio::test]
async fn threat_09_a_redirect_of_the_token_endpoint_is_not_followed() {
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let elsewhere = Upstream::plain().await;
        let to = format!("http://{}/token", elsewhere.address);
        let endpoint =
            Upstream::start(move |_| Reply::Keep(format!("HTTP/1.1 {status}\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into())).await;
        let world = Plan::new().token_url(&format!("http://{}/token", endpoint.address)).start().await;
        world.connect_expired(MEGAN).await;
        world.get("/api/me").await.is_problem("refresh-failed", 502, "proxy_internal_response");
        assert_eq!((endpoint.seen().len(), elsewhere.connections()), (1, 0), "{status}");
    }
}

/// Without the steady clock beside the wall clock the token would live an hour longer than its provider takes it.
#[tokio::test]
async fn threat_34_a_clock_set_back_brings_no_storm_and_no_expired_token() {
    let world = World::connected().await;
    world.get("/api/me").await.is_ok();
    world.clock.set(START.minus(seconds(3600)));
    for _ in 0..20 {
        world.get("/api/me").await.is_ok();
    }
    assert_eq!(world.sandbox.counters().token_posts, 0);
    world.clock.set(START.plus(seconds(7200)));
    for _ in 0..20 {
        world.get("/api/me").await.is_ok();
    }
    let counters = world.sandbox.counters();
    assert_eq!((counters.token_posts, counters.api_rejected), (1, 0));
}

/// Without the record of misses, or with a refresh begun before a connection is known, the provider would hear of each name.
#[tokio::test]
async fn threat_45_unknown_users_by_the_thousand_ask_the_provider_nothing() {
    let world = World::connected().await;
    let mut connection = Connection::open(world.proxy).await;
    for number in 0..2_000 {
        assert_eq!(connection.call(get("/api/me", &format!("nobody-{number}"))).await.status, 401);
    }
    let counters = world.sandbox.counters();
    assert_eq!((counters.token_posts, counters.api_calls), (0, 0));
    world.get("/api/me").await.is_ok();
}
