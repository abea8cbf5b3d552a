//! Routes that carry the app's own token (`as: app`), through the real listener.

use crate::harness::*;
use crate::upstream::{Reply, Upstream};
use crate::wire::{self, empty, until};
use attache::base::ids::ConnectionKey;
use attache::sandbox::FailToken;
use attache::store::State;
use futures_util::future::join_all;
use serde_json::Value;
use std::sync::OnceLock;

const APP: &str = "
  - name: own
    match: /own/{*rest}
    as: app
    provider: sandbox
    upstream: http://SANDBOX/v1/{rest}
";

async fn start() -> World {
    Plan::new().routes(APP).provider("    scopes: [profile, photos.read]\n").start().await
}

impl World {
    async fn own(&self, path: &str) -> wire::Answer {
        self.call("GET", path, &[], empty()).await
    }
}

#[tokio::test]
async fn the_app_calls_for_itself_with_one_token_for_all() {
    let world = start().await;
    let one = |number: usize| {
        let request = wire::request("GET", "/own/me");
        // Whom a call is for makes no difference, and naming nobody is fine.
        let request = if number.is_multiple_of(2) { request } else { request.header("x-end-user", format!("user-{number}")) };
        wire::call(world.proxy, request.body(empty()).expect("a request"))
    };
    for answer in join_all((0..100).map(one)).await {
        assert!(answer.is_ok().json()["user"].as_str().is_some_and(|user| user.starts_with("app:")), "the app itself");
    }
    let counters = world.sandbox.counters();
    assert_eq!((counters.client_credentials_posts, counters.token_posts, counters.api_rejected), (1, 1, 0));
    let stored = world.running.records.connection(&ConnectionKey::app("sandbox")).await.expect("read").expect("kept").record;
    assert_eq!((stored.state, stored.scopes), (State::Active, vec!["profile".to_owned(), "photos.read".to_owned()]));
    assert!(world.stored("user-1").await.is_none());
    // Past its end: one more.
    world.clock.advance(seconds(3601));
    for answer in join_all((0..20).map(one)).await {
        answer.is_ok();
    }
    assert_eq!(world.sandbox.counters().client_credentials_posts, 2);
}

#[tokio::test]
async fn the_upstream_sees_the_apps_token_and_no_end_user() {
    let api = Upstream::start(|_| Reply::ok("", "x")).await;
    let world = Plan::new().up(api.address, "    as: app\n").start().await;
    world.connect(MEGAN).await;
    let headers = [("x-end-user", MEGAN), ("x-end-user-account", "work"), ("authorization", "Bearer forged"), ("x-attache-key", "k")];
    world.call("GET", "/up/x", &headers, empty()).await.is_ok();
    let seen = &api.seen()[0];
    for name in ["x-end-user", "x-end-user-account", "x-attache-key"] {
        assert_eq!(seen.header(name), "", "{name}");
    }
    let app = world.running.records.connection(&ConnectionKey::app("sandbox")).await.expect("read").expect("kept").record;
    assert_eq!(seen.header("authorization"), format!("Bearer {}", app.access_token.expose()));
    assert_ne!(app.access_token, world.stored(MEGAN).await.expect("there").access_token);
    // A twin of the end user's header would be read by an upstream all the same.
    world.call("GET", "/up/x", &[("x_end_user", MEGAN)], empty()).await.is_problem("end-user-invalid", 400, "http_request_denied");
    // And no call can name the app's connection on a user's route.
    world.get_as("", "/api/me").await.is_problem("end-user-invalid", 400, "http_request_denied");
}

#[tokio::test]
async fn a_token_that_the_api_refuses_is_replaced_once() {
    let first = OnceLock::new();
    let api =
        Upstream::start(move |seen| match *first.get_or_init(|| seen.header("authorization").to_owned()) == seen.header("authorization") {
            true => Reply::Keep("HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nstale".into()),
            false => Reply::ok("", "good"),
        })
        .await;
    let world = Plan::new().up(api.address, "    as: app\n").start().await;
    assert_eq!(world.own("/up/x").await.status, 401, "as fresh as can be: it is not the token's age");
    world.clock.advance(seconds(31));
    for answer in join_all((0..20).map(|_| world.own("/up/x"))).await {
        assert_eq!(answer.is_ok().text(), "good");
    }
    assert_eq!(world.sandbox.counters().client_credentials_posts, 2);
}

#[tokio::test]
async fn a_provider_that_refuses_the_app_is_a_refresh_that_failed() {
    for (status, body) in [(400, r#"{"error":"invalid_grant"}"#), (401, r#"{"error":"invalid_client"}"#), (503, "{}")] {
        let world = start().await;
        let failure = FailToken { status, content_type: "application/json".into(), body: body.into(), retry_after: None, times: None };
        world.sandbox.change(|settings| settings.fail_token = Some(failure));
        for _ in 0..3 {
            let answer = world.own("/own/me").await;
            answer.is_problem("refresh-failed", 502, "proxy_internal_response");
            assert_eq!(answer.json().get("connect"), None, "nobody to connect");
            assert_ne!(answer.header("retry-after"), "");
        }
        assert_eq!((world.sandbox.counters().token_posts, world.sandbox.counters().api_calls), (1, 0), "{body}");
    }
}

#[tokio::test]
async fn a_kept_token_is_found_again() {
    let world = Plan::new().on_disk().routes(APP).start().await;
    world.own("/own/me").await.is_ok();
    let records = world.running.records.clone();
    let stored = records.connection(&ConnectionKey::app("sandbox")).await.expect("read").expect("kept");
    world.running.keeper.forget(ConnectionKey::app("sandbox").borrow());
    world.own("/own/me").await.is_ok();
    assert_eq!(world.sandbox.counters().client_credentials_posts, 1);
    assert_eq!(records.connection(&ConnectionKey::app("sandbox")).await.expect("read"), Some(stored));
}

#[tokio::test]
async fn a_provider_that_is_off_is_told_and_explain_knows_whose_token_it_is() {
    let lines = "  later:\n    optional: true\n    client_id: \"${NOT_SET}\"\n    token_url: http://SANDBOX/token\n    token_hosts: [\"SANDBOX\"]\n";
    let routes = "  - {match: GET /later, as: app, provider: later, upstream: \"http://SANDBOX/v1/me\"}\n";
    let world = Plan::new().provider(lines).routes(routes).routes(APP).start().await;
    world.own("/later").await.is_problem("provider-not-configured", 503, "proxy_configuration_error");
    for (path, whose) in [("/own/me", "app"), ("/api/me", "user")] {
        let explained: Value = world.admin("GET", &format!("/v1/explain?method=GET&url={path}")).await.is_ok().json();
        assert_eq!((explained["as"].as_str(), explained["attach"].as_str()), (Some(whose), Some("bearer")));
    }
    // Turning a user's route into the app's is live with the next call.
    let config = std::fs::read_to_string(world.config()).expect("read");
    let changed = config.replace("  - name: api\n", "  - name: api\n    as: app\n");
    std::fs::write(world.config(), changed).expect("written");
    world.live().reload().expect("taken");
    until("the app's token is carried", async || world.own("/api/me").await.status == 200).await;
}
