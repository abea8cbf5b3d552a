//! How a definition has a grant renewed: lost answers, early refreshes, and a refresh token that ends by itself (Q43, Q46, Q48).

use super::*;
use crate::provider::Path;

impl World {
    fn with(mut self, change: impl FnOnce(&mut Registration)) -> World {
        let mut reg = Registration::clone(&self.reg);
        change(&mut reg);
        self.reg = Arc::new(reg);
        self
    }

    /// Which end of its refresh token the log has told.
    fn told_end(&self) -> Option<UnixMillis> {
        self.keeper.table.find(key().borrow()).and_then(|slot| slot.state().told_end)
    }
}

const DAY: u64 = 24 * 3600;

#[tokio::test]
async fn the_end_of_a_refresh_token_is_told_once() {
    let world = World::expired().await.with(|reg| reg.dialect.reply.refresh_expires_in = Path::parse("life"));
    let grant = |life: &str| Answer::json(200, &format!(r#"{{"access_token":"A1","refresh_token":"R1","expires_in":3600{life}}}"#));
    world.endpoint.script([grant(&format!(r#","life":{}"#, 30 * DAY))]);
    assert_eq!(world.token().await, Ok("A1".into()));
    let end = world.clock.now().plus(Duration::from_secs(30 * DAY));
    let kept = |connection: &Connection| connection.metadata.get("refresh_expires_at").cloned();
    assert_eq!(kept(&world.stored().await.expect("stored")), Some(end.to_rfc3339().into()));
    assert_eq!(world.told_end(), None, "a month away");
    // 24 days on, and the refresh says nothing new of it.
    world.clock.advance(Duration::from_secs(24 * DAY));
    world.endpoint.script([Answer::json(200, r#"{"access_token":"A2","expires_in":3600}"#)]);
    assert_eq!(world.token().await, Ok("A2".into()));
    assert_eq!(world.told_end(), Some(end));
    assert_eq!(kept(&world.stored().await.expect("stored")), Some(end.to_rfc3339().into()));
    // A new refresh token without a word on its life has not the old one's.
    world.clock.advance(Duration::from_secs(DAY));
    world.endpoint.script([grant("")]);
    world.token().await.expect("refreshed");
    assert_eq!(kept(&world.stored().await.expect("stored")), None);
}

/// Though the margin would have it refreshed at once, a provider that refuses early refreshes is asked late.
#[tokio::test]
async fn no_token_is_refreshed_before_its_provider_takes_it() {
    let world = World::after(3400).await.with(|reg| reg.dialect.renewal.not_before = Some(Duration::from_secs(3590)));
    for _ in 0..3 {
        assert_eq!(world.token().await, Ok("A0".into()));
    }
    assert!(matches!(
        world.keeper.refresh_now(&world.reg, key().borrow()).await,
        Err(KeeperError::RefreshFailed { retry_after: Some(wait) }) if wait <= Duration::from_secs(190)
    ));
    assert_eq!(world.posts(), 0);
    world.clock.advance(Duration::from_secs(195));
    world.keeper.refresh_now(&world.reg, key().borrow()).await.expect("refreshed");
    assert_eq!(world.posts(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_once_more_where_the_definition_says_so() {
    for (replay, posts) in [(true, 2), (false, 1)] {
        let world = World::expired().await.with(|reg| reg.dialect.renewal.replay = replay);
        world.endpoint.script([Answer::hang_up()]);
        assert_eq!(world.token().await.is_ok(), replay);
        assert_eq!(world.posts(), posts);
        // The doubt stays on record where the answer stayed away.
        assert_eq!(world.records.intents().await.expect("read").len(), usize::from(!replay));
        assert!(world.endpoint.seen().iter().all(|seen| seen.form["refresh_token"] == "R0"));
    }
}

/// The first answer may have held a rotated token: what becomes of the second try does not settle that.
#[tokio::test]
async fn the_doubt_of_a_lost_answer_outlives_a_second_try_that_failed() {
    for (second, doubts) in [(Answer::json(503, "{}"), 1), (refused("invalid_client"), 1), (refused("invalid_grant"), 0)] {
        let world = World::expired().await.with(|reg| reg.dialect.renewal.replay = true);
        world.endpoint.script([Answer::hang_up(), second]);
        world.token().await.expect_err("no token");
        assert_eq!((world.posts(), world.records.intents().await.expect("read").len()), (2, doubts));
    }
}

/// One that was imported before its definition said so, or by a line without a refresh token, is renewed like those that were made here.
#[tokio::test]
async fn what_renews_itself_needs_no_refresh_token_on_record() {
    let world = World::empty().await.with(|reg| reg.dialect.renewal.by = crate::provider::RenewBy::AccessToken);
    world.put(&Connection { refresh_token: None, ..connection() }).await;
    world.clock.advance(Duration::from_secs(3500));
    assert_eq!(world.keeper.refresh_now(&world.reg, key().borrow()).await.expect("renewed").credential.access_token, "A1".into());
    assert_eq!(world.endpoint.seen().last().expect("a call").form["refresh_token"], "A0");
    let stored = world.stored().await.expect("stored");
    assert_eq!((stored.access_token, stored.refresh_token), ("A1".into(), Some("A1".into())));
    assert!(world.records.intents().await.expect("read").is_empty());
}

/// A provider may rotate both tokens of a reply at once: the second's connection would be left with a spent one.
#[tokio::test]
async fn a_refresh_that_brings_two_grants_renews_both_connections() {
    let world = World::expired().await.with(|reg| {
        reg.dialect.reply.also = vec![crate::provider::Also { account: "user".into(), at: Path::parse("user").expect("a path") }];
    });
    let users = ConnectionKey::new("acme", "megan@personalemail.com", "default:user");
    let users_now = async || world.records.connection(&users).await.expect("read").map(|keyed| keyed.record);
    let reply = |nth: u8| {
        let body = format!(
            r#"{{"access_token":"A{nth}","refresh_token":"R{nth}","expires_in":3600,"user":{{"access_token":"U{nth}","refresh_token":"V{nth}"}}}}"#
        );
        world.endpoint.script([Answer::json(200, &body)]);
    };
    reply(1);
    assert_eq!(world.token().await, Ok("A1".into()));
    assert!(users_now().await.is_none(), "no refresh makes a connection");
    world.put(&Connection { key: users.clone(), access_token: "U1".into(), refresh_token: Some("V1".into()), ..connection() }).await;
    world.clock.advance(HOUR);
    reply(2);
    assert_eq!(world.token().await, Ok("A2".into()));
    let renewed = users_now().await.expect("kept");
    assert_eq!((renewed.access_token, renewed.refresh_token), ("U2".into(), Some("V2".into())));
}
