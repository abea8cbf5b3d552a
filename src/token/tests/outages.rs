//! A token endpoint that is out, for everybody: how it is left alone, found again, and told of.

use super::*;
use crate::notices::{Event, Target, Way};
use std::collections::BTreeSet;

fn named(user: usize) -> ConnectionKey {
    ConnectionKey::new("acme", &format!("u{user}"), "default")
}

impl World {
    /// So many end users, whose tokens have all expired.
    async fn of(users: usize) -> World {
        let world = World::after(3601).await;
        for user in 0..users {
            world.put(&Connection { key: named(user), id: format!("con_{user}").into(), ..connection() }).await;
        }
        world
    }

    async fn call(&self, user: usize) -> Result<String, KeeperError> {
        self.keeper.credential(&self.reg, named(user).borrow()).await.map(|token| token.credential.access_token.expose().to_owned())
    }

    async fn told(&self) -> Vec<String> {
        let letters = self.records.outbox(None, 100).await.expect("read");
        letters.into_iter().map(|(.., bytes)| String::from_utf8(bytes).expect("text")).collect()
    }

    fn wants_notices(&self) {
        let way = Way::Exec { argv: vec!["/bin/true".into()] };
        self.keeper.desk().set_targets(&[Target::new(way, Event::ALL.to_vec())].into());
    }
}

fn is_wait(outcome: &Result<String, KeeperError>) -> bool {
    matches!(outcome, Err(KeeperError::RefreshFailed { retry_after: Some(_) }))
}

/// Taken out, the circuit of the endpoint lets every connection find out for itself, and what comes back up is met by all of them at once.
#[tokio::test]
async fn threat_35_an_endpoint_that_is_out_is_asked_by_one_at_a_time() {
    let world = World::of(60).await;
    world.wants_notices();
    world.endpoint.publish("/token", Answer::json(503, "{}"));
    for user in 0..5 {
        assert!(is_wait(&world.call(user).await));
    }
    assert_eq!(world.posts(), 5);
    for outcome in join_all((5..60).map(|user| world.call(user))).await {
        assert!(is_wait(&outcome), "{outcome:?}");
    }
    assert_eq!(world.posts(), 5, "nothing more is sent");
    let waited = world.records.connection(&named(30)).await.expect("read").expect("there").record;
    assert_eq!((waited.refresh_failures, waited.state), (0, State::Active), "what was not sent did not fail");
    until("the outage is told", async || world.told().await.len() == 1).await;
    // After a second at most one tries, and the others go on waiting.
    world.endpoint.hold();
    tokio::time::sleep(Duration::from_millis(1050)).await;
    let calls: Vec<_> = (5..60)
        .map(|user| {
            let (keeper, reg) = (Arc::clone(&world.keeper), Arc::clone(&world.reg));
            tokio::spawn(async move { keeper.credential(&reg, named(user).borrow()).await.is_ok() })
        })
        .collect();
    until("the probe", async || world.posts() == 6).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.posts(), 6);
    world.endpoint.publish("/token", Answer::json(200, r#"{"access_token":"B","expires_in":3600}"#));
    world.endpoint.release();
    assert_eq!(join_all(calls).await.into_iter().filter(|call| *call.as_ref().expect("no panic")).count(), 1);
    until("it is told that it is back", async || world.told().await.len() == 2).await;
    for outcome in join_all((5..60).map(|user| world.call(user))).await {
        assert_eq!(outcome, Ok("B".into()));
    }
    let told = world.told().await;
    let sent: BTreeSet<bool> = told.iter().map(|told| told.contains("provider.outage")).collect();
    assert!(sent.len() == 2 && told.iter().any(|told| told.contains("provider.recovered") && told.contains("acme")), "{told:?}");
}

#[tokio::test]
async fn an_outage_leaves_valid_tokens_alone_and_an_operator_may_try() {
    let world = World::of(6).await;
    world.put(&Connection { key: named(9), expires_at: Some(START.plus(2 * HOUR)), ..connection() }).await;
    world.put(&Connection { key: named(8), expires_at: Some(world.clock.now().plus(Duration::from_secs(100))), ..connection() }).await;
    world.endpoint.publish("/token", Answer::json(500, "{}"));
    for user in 0..6 {
        assert!(is_wait(&world.call(user).await));
    }
    let before = world.posts();
    for _ in 0..20 {
        assert_eq!(world.call(9).await, Ok("A0".into()));
        assert_eq!(world.call(8).await, Ok("A0".into()), "near its end, and still valid");
    }
    assert_eq!(world.posts(), before);
    // Before the wait is over.
    world.endpoint.publish("/token", Answer::json(200, r#"{"access_token":"B","expires_in":3600}"#));
    world.keeper.refresh_now(&world.reg, named(5).borrow()).await.expect("refreshed");
    assert_eq!(world.call(5).await, Ok("B".into()));
    assert!(world.keeper.gates.of(&world.reg.id).outage.wait().is_none(), "and with it all the others may");
}

/// Without it one end user's grants, refused again and again, would stop the refreshes of all others.
#[tokio::test]
async fn refused_grants_stop_nobody_else() {
    let world = World::of(30).await;
    world.endpoint.script((0..29).map(|_| refused("invalid_grant")));
    for user in 0..29 {
        assert_eq!(world.call(user).await, Err(KeeperError::ReconnectRequired));
    }
    assert!(world.call(29).await.is_ok());
}

#[tokio::test]
async fn a_wait_that_the_endpoint_asks_for_is_kept_by_all() {
    for status in [429, 503] {
        let world = World::of(3).await;
        world.endpoint.script([Answer::json(status, "{}").with("retry-after", "30")]);
        assert!(is_wait(&world.call(0).await));
        let Err(KeeperError::RefreshFailed { retry_after: Some(wait) }) = world.call(1).await else { panic!("sent") };
        assert!(wait > Duration::from_secs(25) && wait <= Duration::from_secs(34), "{wait:?}");
        assert_eq!(world.posts(), 1);
    }
}

/// Where each tenant has an endpoint of its own, one that is out says nothing of the others.
#[tokio::test]
async fn the_endpoints_of_tenants_are_not_one() {
    let mut world = World::of(12).await;
    let mut reg = Registration::clone(&world.reg);
    let text = format!("{}/token", world.endpoint.base.replace("127.0.0.1", "{tenant}"));
    reg.token_url = Some(crate::provider::EndpointUrl::PerConnection(crate::provider::Filled::parse(&text).expect("a text with a place")));
    world.reg = Arc::new(reg);
    for user in 0..12 {
        let tenant = if user < 11 { "127.0.0.2" } else { "127.0.0.1" };
        let metadata = BTreeMap::from([("tenant".to_owned(), tenant.into())]);
        world.put(&Connection { key: named(user), metadata, ..connection() }).await;
    }
    for user in 0..11 {
        assert!(is_wait(&world.call(user).await));
    }
    assert_eq!(world.call(11).await, Ok("A1".into()));
}
