//! Refreshes that no call begins, by the whole program: ahead of calls, against disuse, and after a crash.

use crate::harness::*;
use crate::wire::until;
use std::time::Duration;

async fn renewed(world: &World, user: &str, posts: u64) {
    until("it is refreshed though nobody calls", async || {
        let stored = world.stored(user).await.expect("there");
        world.sandbox.counters().refresh_posts == posts && stored.obtained_at == world.running.keeper.clock().now()
    })
    .await;
}

#[tokio::test]
async fn a_token_is_refreshed_though_nobody_calls_and_over_a_restart() {
    let world = Plan::new().on_disk().provider("    refresh: {ahead: true}\n").start().await;
    world.connect_expired(MEGAN).await;
    renewed(&world, MEGAN, 1).await;
    // Overdue at the next start.
    world.clock.advance(Duration::from_secs(3590));
    let world = world.restart().await;
    renewed(&world, MEGAN, 2).await;
    assert!(world.get("/api/me").await.is_ok().json()["user"] == MEGAN);
    assert_eq!((world.sandbox.counters().refresh_posts, world.sandbox.counters().api_rejected), (2, 0), "the call found it fresh");
}

#[tokio::test]
async fn keep_alive_goes_live_with_an_edit_and_without_it_nothing_is_begun() {
    let world = Plan::new().start().await;
    world.connect(MEGAN).await;
    world.clock.advance(Duration::from_secs(8 * 24 * 3600));
    let config = std::fs::read_to_string(world.config()).expect("read");
    assert_eq!(world.sandbox.counters().refresh_posts, 0);
    std::fs::write(world.config(), config.replace("    token_url:", "    keep_alive: 7d\n    token_url:")).expect("written");
    world.admin("POST", "/v1/reload").await.is_ok();
    renewed(&world, MEGAN, 1).await;
}

/// Without the try after the start the connection would stay in doubt until its end user's next call, past the time in which its provider takes
/// the old refresh token.
#[tokio::test]
async fn threat_32_what_an_answer_that_was_lost_left_is_resolved_at_the_next_start() {
    let world = Plan::new().on_disk().start().await;
    world.connect_expired(MEGAN).await;
    world.sandbox.change(|settings| settings.lose_token_answers = 1);
    world.get("/api/me").await.is_problem("refresh-failed", 502, "proxy_internal_response");
    assert_eq!(world.running.records.intents().await.expect("read").len(), 1);
    // Past the wait that the failure left on record.
    world.clock.advance(Duration::from_secs(5));
    let world = world.restart().await;
    renewed(&world, MEGAN, 2).await;
    assert_eq!(world.running.records.intents().await.expect("read"), []);
    assert_eq!(world.sandbox.counters().reuse_detections, 0);
}

/// A provider that leaves the old token no time: the grant is lost, which is told in words before anyone calls.
#[tokio::test]
async fn a_grant_that_was_lost_is_told_at_the_next_start() {
    let world = Plan::new().on_disk().start().await;
    world.connect_expired(MEGAN).await;
    world.sandbox.change(|settings| (settings.lose_token_answers, settings.reuse_leeway) = (1, Duration::ZERO));
    world.get("/api/me").await.is_problem("refresh-failed", 502, "proxy_internal_response");
    world.clock.advance(Duration::from_secs(5));
    let world = world.restart().await;
    let shown = async || world.admin("GET", &format!("/v1/connections/sandbox/{MEGAN}")).await.is_ok().json();
    until("it is found to be lost", async || shown().await["state"] == "reconnect_required").await;
    let why = shown().await["last_error"].as_str().expect("told").to_owned();
    assert!(why.contains("invalid_grant") && why.contains("the answer to a refresh") && why.contains("was lost"), "{why}");
}
