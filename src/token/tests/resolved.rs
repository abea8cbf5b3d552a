//! What becomes of the token calls that a crash cut off.

use super::*;

const BEGUN: UnixMillis = UnixMillis(START.0 + 3_000_000);

impl World {
    /// A process that died in the middle of a refresh, and the one after it.
    async fn crashed() -> World {
        let world = World::after(3500).await;
        world.leave(&key()).await;
        world
    }

    async fn leave(&self, key: &ConnectionKey) {
        let intent = Intent { key: key.clone(), begun_at: BEGUN, version: 1 };
        self.records.begin_intent(&intent).await.expect("begun");
    }

    fn registrations(&self) -> Registrations {
        Registrations::from([(Arc::clone(&self.reg.id), Arc::clone(&self.reg))])
    }

    /// As at a start.
    async fn resolve(&self) {
        let intents = self.keeper.recover().await.expect("read");
        let registrations = self.registrations();
        let resolved = Arc::clone(&self.keeper).resolve(intents, move || registrations.clone());
        tokio::time::timeout(Duration::from_secs(20), resolved).await.expect("an end");
    }

    async fn doubts(&self) -> usize {
        self.records.intents().await.expect("read").len()
    }
}

/// Without `Keeper::resolve` the grant of a connection that nobody calls would be in doubt for good: here no call is made.
#[tokio::test]
async fn threat_32_a_call_that_was_cut_off_is_tried_again_after_the_start() {
    let world = World::crashed().await;
    world.resolve().await;
    let stored = world.stored().await.expect("stored");
    assert_eq!((stored.access_token, stored.refresh_token), ("A1".into(), Some("R1".into())));
    assert_eq!((world.posts(), world.doubts().await), (1, 0));
    world.resolve().await;
    assert_eq!(world.posts(), 1, "once");
}

#[tokio::test]
async fn a_grant_that_the_cut_off_call_lost_ends_with_words_that_say_so() {
    let world = World::crashed().await;
    world.endpoint.script([refused("invalid_grant")]);
    world.resolve().await;
    let stored = world.stored().await.expect("stored");
    assert_eq!(stored.state, State::ReconnectRequired);
    let why = stored.last_error.expect("told");
    for word in ["invalid_grant", &BEGUN.to_rfc3339(), "the answer to a refresh", "never came to be kept"] {
        assert!(why.contains(word), "{word} in {why}");
    }
    assert_eq!(world.doubts().await, 0);
}

/// A token endpoint that is out settles nothing: neither the doubt's end nor the grant's.
#[tokio::test]
async fn a_doubt_outlives_an_endpoint_that_is_out_and_a_restart() {
    let world = World::crashed().await;
    world.endpoint.script([Answer::json(503, "").with("retry-after", "1")]);
    world.resolve().await;
    let stored = world.stored().await.expect("stored");
    assert_eq!((stored.state, stored.refresh_failures), (State::Active, 1));
    assert_eq!((world.posts(), world.doubts().await), (1, 1));
    assert_eq!(world.records.intents().await.expect("read")[0].begun_at, BEGUN, "the doubt is as old as it is");
    // The valid token is given out all the while; the next start tries again, not before the wait on record is over.
    assert_eq!(world.token().await, Ok("A0".into()));
    let next = Keeper::new(world.records.clone(), token_client(&world.clock), Arc::new(world.clock.clone()), Handle::current());
    let world = World { keeper: next, ..world };
    world.resolve().await;
    assert_eq!((world.posts(), world.doubts().await), (1, 1));
    world.clock.advance(Duration::from_secs(2));
    world.keeper.forget(key().borrow());
    world.resolve().await;
    assert_eq!((world.posts(), world.doubts().await), (2, 0));
    assert_eq!(world.stored().await.expect("stored").refresh_token, Some("R2".into()));
}

#[tokio::test]
async fn what_is_nobodys_question_any_more_is_struck_without_a_call() {
    let world = World::after(3500).await;
    let other = |name: &str| ConnectionKey::new("acme", name, "default");
    // Deleted; connected anew since; without a refresh token by now.
    let anew = Connection { key: other("anew"), obtained_at: BEGUN.plus(Duration::from_secs(1)), ..connection() };
    let plain = Connection { key: other("plain"), refresh_token: None, ..connection() };
    for record in [&anew, &plain] {
        world.put(record).await;
    }
    for key in [other("gone"), anew.key.clone(), plain.key.clone()] {
        world.leave(&key).await;
    }
    world.resolve().await;
    assert_eq!((world.posts(), world.doubts().await), (0, 0));
    // A provider that the config no longer has: it may come back.
    world.leave(&ConnectionKey::new("other", "megan", "default")).await;
    world
        .records
        .put_connection(&Connection { key: ConnectionKey::new("other", "megan", "default"), ..connection() }, Expect::Any)
        .await
        .expect("put");
    world.resolve().await;
    assert_eq!((world.posts(), world.doubts().await), (0, 1));
}

/// The end of a grant that came after the doubt is not told as the doubt's.
#[tokio::test]
async fn a_doubt_ends_with_the_grant_that_it_is_of() {
    let world = World::crashed().await;
    world.keeper.recover().await.expect("read");
    let now = world.clock.now();
    world.put(&Connection { refresh_token: Some("S0".into()), obtained_at: now, expires_at: Some(now), ..connection() }).await;
    world.endpoint.script([refused("invalid_grant")]);
    assert_eq!(world.token().await, Err(KeeperError::ReconnectRequired));
    let why = world.stored().await.expect("stored").last_error.expect("told");
    assert!(!why.contains("was lost"), "{why}");
}

/// Without the limit of eight at once a crash under load would end in a burst at the token endpoint.
#[tokio::test]
async fn a_crash_under_load_is_resolved_a_few_at_a_time() {
    let world = World::after(3500).await;
    for user in 0..40 {
        let key = ConnectionKey::new("acme", &format!("u{user}"), "default");
        world.put(&Connection { key: key.clone(), id: format!("con_{user}").into(), ..connection() }).await;
        world.leave(&key).await;
    }
    world.endpoint.hold();
    let intents = world.keeper.recover().await.expect("read");
    let registrations = world.registrations();
    let task = tokio::spawn(Arc::clone(&world.keeper).resolve(intents, move || registrations.clone()));
    until("eight are asked", async || world.posts() >= 8).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(world.posts(), 8);
    world.endpoint.release();
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("an end").expect("no panic");
    assert_eq!((world.posts(), world.doubts().await), (40, 0));
}

/// Without the look at its lease the call that another replica is at just now would be taken for one that was cut off.
#[tokio::test]
async fn threat_32_another_replicas_call_is_not_taken_for_one_that_was_cut_off() {
    let world = World::crashed().await;
    world.store.shared.store(true, Ordering::SeqCst);
    world.store.leased.store(true, Ordering::SeqCst);
    let intents = world.keeper.recover().await.expect("read");
    let registrations = world.registrations();
    let task = tokio::spawn(Arc::clone(&world.keeper).resolve(intents, move || registrations.clone()));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(world.posts() == 0 && !task.is_finished());
    // That replica dies, and its lease ends.
    world.store.leased.store(false, Ordering::SeqCst);
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("an end").expect("no panic");
    assert_eq!((world.posts(), world.doubts().await), (1, 0));
    assert_eq!(world.stored().await.expect("stored").refresh_token, Some("R1".into()));
}
