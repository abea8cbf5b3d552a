//! One flight a connection: how often it calls, when, and what is on disk by then.

use super::*;

/// Without the one flight a connection, inside of which the refresh token is read, a late caller would send a spent one.
#[tokio::test]
async fn threat_29_ten_thousand_calls_on_an_expired_token_are_one_post() {
    let world = World::expired().await;
    let calls: Vec<_> = (0..10_000).map(|_| world.spawn()).collect();
    for outcome in join_all(calls).await {
        assert_eq!(outcome.expect("no panic"), Ok("A1".into()));
    }
    assert_eq!(world.posts(), 1);
    assert_eq!(world.endpoint.seen()[0].form["refresh_token"], "R0");
    assert_eq!(world.fresh(), Some("A1".into()));
    let stored = world.stored().await.expect("stored");
    assert_eq!((stored.access_token.expose(), stored.state), ("A1", State::Active));
    assert_eq!(stored.refresh_token, Some("R1".into()));
    assert_eq!(stored.expires_at, Some(START.plus(HOUR + Duration::from_secs(3601))));
    assert_eq!(world.records.intents().await.expect("read"), []);
}

/// Without the lock under which a flight is found or begun, two threads would each begin one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threat_29_calls_on_many_threads_are_one_post_too() {
    for _ in 0..20 {
        let world = World::expired().await;
        let calls: Vec<_> = (0..200).map(|_| world.spawn()).collect();
        for outcome in join_all(calls).await {
            assert_eq!(outcome.expect("no panic"), Ok("A1".into()));
        }
        assert_eq!(world.posts(), 1);
    }
}

/// Without the flight on a task of its own the caller's end would drop it between the provider's rotation and the disk.
#[tokio::test]
async fn threat_30_a_caller_that_goes_away_cancels_nothing() {
    let world = World::expired().await;
    world.endpoint.hold();
    let call = world.spawn();
    until("the POST", async || world.posts() == 1).await;
    assert_eq!(world.records.intents().await.expect("read").len(), 1, "the intent is on disk before the POST");
    call.abort();
    assert!(call.await.expect_err("aborted").is_cancelled());
    world.endpoint.release();
    until("the rotated token is stored", async || world.stored().await.is_some_and(|stored| stored.refresh_token == Some("R1".into())))
        .await;
    assert_eq!(world.token().await, Ok("A1".into()));
    assert_eq!(world.posts(), 1);
}

#[tokio::test]
async fn the_new_grant_is_on_disk_before_anyone_gets_it() {
    let world = World::expired().await;
    world.store.gate.forget_permits(OPEN);
    let call = world.spawn();
    until("the POST", async || world.posts() == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!call.is_finished());
    assert_eq!(world.fresh(), None);
    world.store.gate.add_permits(OPEN);
    assert_eq!(call.await.expect("no panic"), Ok("A1".into()));
    assert_eq!(world.stored().await.expect("stored").refresh_token, Some("R1".into()));
}

#[tokio::test]
async fn an_answer_that_never_came_leaves_its_intent() {
    for (answer, left) in [(Answer::hang_up(), 1), (Answer::json(503, ""), 0)] {
        let world = World::expired().await;
        world.endpoint.script([answer]);
        world.token().await.expect_err("failed");
        assert_eq!(world.keeper.recover().await.expect("read").len(), left);
        world.keeper.refresh_now(&world.reg, key().borrow()).await.expect("refreshed");
        assert_eq!(world.keeper.recover().await.expect("read").len(), 0);
    }
}

/// Without the wait in the slot and on the record each call, and each restart, would ask again.
#[tokio::test]
async fn threat_35_retry_after_is_honoured() {
    let world = World::expired().await;
    world.endpoint.script([Answer::json(503, "").with("retry-after", "2")]);
    let failed_at = tokio::time::Instant::now();
    for _ in 0..50 {
        match world.token().await {
            Err(KeeperError::RefreshFailed { retry_after: Some(wait) }) => assert!(wait <= Duration::from_millis(2101), "{wait:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.posts(), 1);
    // A restart does not forget it: the record says so.
    let other = Keeper::new(world.records.clone(), token_client(&world.clock), Arc::new(world.clock.clone()), Handle::current());
    assert!(matches!(other.credential(&world.reg, key().borrow()).await, Err(KeeperError::RefreshFailed { retry_after: Some(_) })));
    assert_eq!(world.posts(), 1);
    until("refreshed", async || world.token().await.is_ok()).await;
    assert!(failed_at.elapsed() >= Duration::from_secs(2));
    assert_eq!(world.posts(), 2);
}

#[tokio::test]
async fn a_token_near_its_end_goes_on_and_is_refreshed_behind_the_call() {
    let world = World::after(3400).await;
    assert_eq!(world.token().await, Ok("A0".into()));
    world.endpoint.hold();
    for _ in 0..100 {
        assert_eq!(world.fresh(), Some("A0".into()));
    }
    until("the POST", async || world.posts() == 1).await;
    assert_eq!(world.fresh(), Some("A0".into()));
    world.endpoint.release();
    until("the new token", async || world.fresh() == Some("A1".into())).await;
    assert_eq!(world.posts(), 1);
}

/// Without `still` the failed refresh would be the call's, though its token is valid; without the end of it a stale token would be served (P46).
#[tokio::test]
async fn threat_18_a_valid_token_outlives_a_token_endpoint_that_is_down() {
    let world = World::after(3400).await;
    world.endpoint.script((0..3).map(|_| Answer::json(503, "").with("retry-after", "60")));
    assert_eq!(world.token().await, Ok("A0".into()));
    assert_eq!(world.fresh(), Some("A0".into()));
    until("the failure", async || world.stored().await.is_some_and(|stored| stored.refresh_failures == 1)).await;
    for _ in 0..20 {
        assert_eq!(world.token().await, Ok("A0".into()));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(world.posts(), 1, "no second try before its time");
    world.clock.advance(Duration::from_secs(201));
    assert_eq!(world.fresh(), None, "never a stale token");
    assert!(matches!(world.token().await, Err(KeeperError::RefreshFailed { .. })));
}

/// Without the second, steady clock a token set back in time would be served past its end; without a life that is reckoned anew it would be
/// refreshed at each call.
#[tokio::test]
async fn threat_34_a_clock_that_jumps_makes_no_storm() {
    let world = World::after(60).await;
    assert_eq!(world.token().await, Ok("A0".into()));
    world.clock.set(START.minus(HOUR));
    for _ in 0..50 {
        assert_eq!(world.token().await, Ok("A0".into()));
    }
    assert_eq!(world.posts(), 0);
    world.clock.set(START.plus(2 * HOUR));
    assert_eq!(world.fresh(), None, "past its end by the wall clock");
    for _ in 0..50 {
        assert_eq!(world.token().await, Ok("A1".into()));
    }
    assert_eq!(world.posts(), 1);
    world.clock.set(START.plus(Duration::from_secs(120)));
    for _ in 0..50 {
        assert_eq!(world.token().await, Ok("A1".into()));
    }
    assert_eq!(world.posts(), 1);
}

#[tokio::test]
async fn a_tiny_life_does_not_loop() {
    let world = World::expired().await;
    world.endpoint.script([
        Answer::json(200, r#"{"access_token":"T1","expires_in":1}"#),
        Answer::json(200, r#"{"access_token":"T2","expires_in":0}"#),
    ]);
    assert_eq!(world.token().await, Ok("T1".into()));
    world.clock.advance(Duration::from_secs(2));
    for _ in 0..20 {
        assert_eq!(world.token().await, Ok("T2".into()));
    }
    assert_eq!(world.posts(), 2);
}

/// Without `unsaved` the rotated token would be lost, for the disk was full when it came.
#[tokio::test]
async fn threat_32_a_rotation_that_the_store_did_not_take_is_written_by_the_next_call() {
    let world = World::expired().await;
    world.endpoint.hold();
    let call = world.spawn();
    until("the POST", async || world.posts() == 1).await;
    world.store.fail.store(true, Ordering::SeqCst);
    world.endpoint.release();
    assert_eq!(call.await.expect("no panic"), Err(KeeperError::StoreUnavailable));
    assert_eq!(world.stored().await.expect("stored").refresh_token, Some("R0".into()));
    world.store.fail.store(false, Ordering::SeqCst);
    assert_eq!(world.token().await, Ok("A1".into()));
    assert_eq!(world.stored().await.expect("stored").refresh_token, Some("R1".into()));
    assert_eq!(world.posts(), 1, "the spent refresh token was not sent again");
}

#[tokio::test]
async fn no_post_without_an_intent_on_disk() {
    let world = World::expired().await;
    world.store.fail_intents.store(true, Ordering::SeqCst);
    assert_eq!(world.token().await, Err(KeeperError::StoreUnavailable));
    assert_eq!(world.posts(), 0);
    world.store.fail_intents.store(false, Ordering::SeqCst);
    assert_eq!(world.token().await, Ok("A1".into()));
}

#[tokio::test]
async fn a_drain_waits_for_what_is_in_the_air() {
    let world = World::expired().await;
    world.keeper.drain(Duration::from_secs(5)).await;
    world.endpoint.hold();
    let call = world.spawn();
    until("the POST", async || world.posts() == 1).await;
    call.abort();
    let began = tokio::time::Instant::now();
    world.keeper.drain(Duration::from_millis(100)).await;
    assert!(began.elapsed() >= Duration::from_millis(100));
    world.endpoint.release();
    world.keeper.drain(Duration::from_secs(10)).await;
    assert_eq!(world.stored().await.expect("stored").refresh_token, Some("R1".into()));
}

#[tokio::test]
async fn recovery_tells_what_a_crash_left() {
    let world = World::after(0).await;
    assert_eq!(world.keeper.recover().await.expect("read").len(), 0);
    let gone = ConnectionKey::new("acme", "gone", "default");
    for key in [key(), gone] {
        world.records.begin_intent(&Intent { key, begun_at: UnixMillis(1), version: 1 }).await.expect("begun");
    }
    assert_eq!(world.keeper.recover().await.expect("read").len(), 2);
}
