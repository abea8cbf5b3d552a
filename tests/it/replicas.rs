//! Two Attachés on one store, as who grew past one machine runs them.

use crate::browser::Browser;
use crate::connect::{RETURN, link, plan, session};
use crate::harness::{MEGAN, Plan, World};
use crate::servers;
use crate::wire::{self, Answer, empty, until};
use futures_util::future::join_all;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

async fn stores() -> Vec<String> {
    let postgres = servers::postgres_url().await.map(|url| format!("{{postgres: {{url: '{url}'}}, encryption_keys: [{KEY}]}}"));
    let redis = servers::redis_url().await.map(|url| format!("{{redis: {{url: '{url}'}}, encryption_keys: [{KEY}]}}"));
    [postgres, redis].into_iter().flatten().collect()
}

async fn get(proxy: SocketAddr) -> Answer {
    wire::call(proxy, wire::request("GET", "/photos").header("x-end-user", MEGAN).body(empty()).expect("a request")).await
}

/// Connects Megan by the admin API, as any replica's would.
async fn connect(world: &World, expires_at: &str) {
    let grant = world.sandbox.issue_grant(MEGAN, &["photos.read"]).expect("a client");
    let line = json!({
        "access_token": grant.access_token.expose(), "refresh_token": grant.refresh_token.expect("one").expose(), "expires_at": expires_at,
    });
    let answer = world.admin_json("PUT", &format!("/v1/connections/sandbox/{MEGAN}"), &line).await;
    assert!(answer.status.is_success(), "{}", answer.text());
}

/// Taken out, the notifications of the store would fail it: the other replica would serve a deleted connection from its memory, and go on telling
/// that there is none once there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_28_what_one_replica_changes_is_in_force_on_the_other() {
    for store in stores().await {
        let world = Plan::new().store(&store).start().await;
        let other = world.replica().await;
        connect(&world, "2026-01-01T01:00:00Z").await;
        get(other.proxy[0]).await.is_ok();
        world.admin("DELETE", &format!("/v1/connections/sandbox/{MEGAN}")).await.is_ok();
        until("the other replica knows", async || get(other.proxy[0]).await.status == 401).await;
        connect(&world, "2026-01-01T01:00:00Z").await;
        until("and that it is back", async || get(other.proxy[0]).await.status == 200).await;
        other.stop().await.expect("stopped");
    }
}

/// Taken out, the lease that is kept while the token endpoint takes its time would fail it: each replica would spend the refresh token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_31_a_slow_token_endpoint_gets_one_post_of_all_replicas() {
    for store in stores().await {
        let world = Plan::new().store(&store).start().await;
        let other = world.replica().await;
        connect(&world, "2025-12-31T23:59:00Z").await;
        // Longer than a lease that is not kept.
        world.sandbox.change(|settings| settings.token_delay = Duration::from_secs(8));
        let calls = (0..20).map(|number| get(if number % 2 == 0 { world.proxy } else { other.proxy[0] }));
        for answer in join_all(calls).await {
            answer.is_ok();
        }
        let counters = world.sandbox.counters();
        assert_eq!((counters.refresh_posts, counters.late_refreshes), (1, 0), "{store}");
        other.stop().await.expect("stopped");
    }
}

/// A replica with a key of its own could read nothing that the others wrote, and they nothing of its: it does not start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_another_key_does_not_start() {
    for store in stores().await {
        let world = Plan::new().store(&store).start().await;
        connect(&world, "2026-01-01T01:00:00Z").await;
        let config = std::fs::read_to_string(world.config()).expect("there");
        std::fs::write(world.config(), config.replace("AAECAwQF", "AQECAwQF")).expect("written");
        let refused = attache::app::start(world.environment.clone()).await.err().expect("refused");
        assert!(refused.to_string().contains("key"), "{refused}");
    }
}

/// Behind a load balancer each step of a connect flow may meet another replica: the page, the form, the callback, the app's completion.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_replica_takes_the_next_step_of_a_connect_flow() {
    const PORT: u16 = 7071;
    for store in stores().await {
        let world = plan().top(&format!("public_url: http://localhost:{PORT}\n")).store(&store).start().await;
        let other = world.replica().await;
        let begun = session(&world, json!({"return_url": RETURN, "complete": "app"})).await;
        assert!(link(&begun).starts_with(&format!("http://localhost:{PORT}/connect/")), "{begun}");
        let mut browser = Browser::default();
        browser.balance(PORT, other.public[0]);
        browser.get(link(&begun)).await.is_ok();
        browser.balance(PORT, world.public);
        let authorize = browser.set_out(link(&begun), "sandbox").await;
        let back = browser.decide(&authorize, MEGAN, "allow").await;
        browser.balance(PORT, other.public[0]);
        let done = browser.get(&back).await;
        assert_eq!(done.status, 303, "{store}: {}", done.text());
        let returned = done.header("location");
        assert!(returned.starts_with(&format!("{RETURN}?status=connected&provider=sandbox")), "{returned}");
        // Spent for all of them.
        browser.balance(PORT, world.public);
        assert_eq!(browser.get(&back).await.status, 410);
        assert_eq!(get(world.proxy).await.status, 401, "pending");
        let completion = crate::browser::param(&returned, "completion");
        let path = format!("/v1/connect-sessions/{}/complete", begun["session"].as_str().expect("an id"));
        let completed = world.admin_json("POST", &path, &json!({"completion": completion, "end_user": MEGAN})).await;
        assert!(completed.status.is_success(), "{}", completed.text());
        for proxy in [world.proxy, other.proxy[0]] {
            until("both serve her", async || get(proxy).await.status == 200).await;
        }
        other.stop().await.expect("stopped");
    }
}
