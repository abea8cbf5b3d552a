//! Tokens that are minted: the app's own, and those exchanged for an end user's elsewhere.

use super::*;
use crate::base::ids::ConnectionKeyRef;
use crate::provider::{Exchange, Mint};

const APP: ConnectionKeyRef<'static> = ConnectionKeyRef { provider: "acme", end_user: "", account: "default" };

type Got = Result<String, KeeperError>;

async fn get(keeper: &Arc<Keeper>, reg: &Arc<Registration>, key: ConnectionKeyRef<'_>) -> Got {
    keeper.credential(reg, key).await.map(|token| token.credential.access_token.expose().to_owned())
}

impl World {
    async fn app(&self) -> Got {
        get(&self.keeper, &self.reg, APP).await
    }

    async fn app_stored(&self) -> Option<Connection> {
        self.records.connection(&APP.to_owned()).await.expect("read").map(|keyed| keyed.record)
    }

    /// The same registration, exchanging tokens of `idp` at the same endpoint.
    fn exchanging(&self) -> (Arc<Registration>, Arc<Registration>) {
        let source = Arc::new(Registration { id: "idp".into(), ..(*self.reg).clone() });
        let exchange = Exchange {
            from: "idp".into(),
            source: Some(Arc::clone(&source)),
            subject_token_type: "urn:ietf:params:oauth:token-type:access_token".into(),
            requested_token_type: None,
            audience: Vec::new(),
        };
        (Arc::new(Registration { mint: Some(Mint::Exchange(exchange)), ..(*self.reg).clone() }), source)
    }

    fn restarted(&self) -> Arc<Keeper> {
        Keeper::new(self.records.clone(), token_client(&self.clock), Arc::new(self.clock.clone()), Handle::current())
    }
}

#[tokio::test]
async fn the_apps_token_is_asked_for_once_for_all() {
    let world = World::empty().await;
    for outcome in join_all((0..100).map(|_| world.app())).await {
        assert_eq!(outcome, Ok("A1".into()));
    }
    assert_eq!(world.posts(), 1);
    let form = &world.endpoint.seen()[0].form;
    assert_eq!((&*form["grant_type"], &*form["scope"]), ("client_credentials", "a b"));
    let stored = world.app_stored().await.expect("stored");
    assert_eq!((stored.state, stored.access_token.expose(), stored.refresh_token), (State::Active, "A1", None));
    assert_eq!((stored.scopes, stored.missing_scopes), (vec!["a".to_owned(), "b".to_owned()], vec![]));
    assert_eq!(stored.expires_at, Some(START.plus(HOUR)));
    assert!(world.keeper.fresh(&world.reg, APP).is_some(), "the hot path has it");
    assert_eq!(world.records.intents().await.expect("read"), []);
}

#[tokio::test]
async fn the_apps_token_is_nobodys_and_nobodys_is_the_apps() {
    let world = World::after(0).await;
    assert_eq!((world.app().await, world.token().await), (Ok("A1".into()), Ok("A0".into())));
    world.records.delete_connection(&key()).await.expect("deleted");
    until("gone", async || world.token().await == Err(KeeperError::NotConnected)).await;
    let named_like_it = ConnectionKeyRef { end_user: "default", ..APP };
    assert_eq!(get(&world.keeper, &world.reg, named_like_it).await, Err(KeeperError::NotConnected));
    assert_eq!((world.app().await, world.posts()), (Ok("A1".into()), 1));
}

#[tokio::test]
async fn an_expired_one_is_asked_for_anew_and_a_restart_finds_the_stored_one() {
    let world = World::empty().await;
    assert_eq!(world.app().await, Ok("A1".into()));
    assert_eq!(get(&world.restarted(), &world.reg, APP).await, Ok("A1".into()));
    assert_eq!(world.posts(), 1);
    let first = world.app_stored().await.expect("stored");
    world.clock.advance(Duration::from_secs(3601));
    for outcome in join_all((0..100).map(|_| world.app())).await {
        assert_eq!(outcome, Ok("A2".into()));
    }
    assert_eq!(world.posts(), 2);
    let stored = world.app_stored().await.expect("stored");
    assert_eq!((stored.id, stored.created_at, stored.access_token.expose()), (first.id, first.created_at, "A2"));
}

#[tokio::test]
async fn one_near_its_end_goes_on_while_the_next_is_asked_for() {
    let world = World::empty().await;
    assert_eq!(world.app().await, Ok("A1".into()));
    world.clock.advance(Duration::from_secs(3400));
    world.endpoint.script([Answer::json(503, "").with("retry-after", "60")]);
    assert_eq!(world.app().await, Ok("A1".into()));
    until("the failure", async || world.app_stored().await.is_some_and(|stored| stored.refresh_failures == 1)).await;
    assert!(world.app_stored().await.and_then(|stored| stored.last_error).is_some_and(|told| told.contains("503")));
    for _ in 0..20 {
        assert_eq!(world.app().await, Ok("A1".into()));
    }
    assert_eq!(world.posts(), 2, "no second try before its time");
    world.keeper.refresh_now(&world.reg, APP).await.expect("an operator's does not wait");
    let stored = world.app_stored().await.expect("stored");
    assert_eq!((stored.last_error, stored.refresh_failures, world.posts()), (None, 0, 3));
}

/// What is refused is the app's proof of itself: no end user can mend that, so it never ends the connection.
#[tokio::test]
async fn a_refusal_backs_off_and_ends_nothing() {
    for answer in [refused("invalid_grant"), refused("invalid_client"), Answer::json(500, ""), Answer::hang_up()] {
        // The first token: there is no record to say so, but the wait is kept.
        let world = World::empty().await;
        world.endpoint.script([answer.clone()]);
        for outcome in join_all((0..50).map(|_| world.app())).await {
            assert!(matches!(outcome, Err(KeeperError::RefreshFailed { retry_after: Some(_) })), "{outcome:?}");
        }
        assert!(matches!(world.app().await, Err(KeeperError::RefreshFailed { retry_after: Some(_) })));
        assert_eq!((world.posts(), world.app_stored().await), (1, None));
        assert_eq!(world.keeper.table.sizes().0, 0);
        assert!(world.keeper.refresh_now(&world.reg, APP).await.is_ok());
        // One that is to replace an expired token.
        world.clock.advance(Duration::from_secs(3601));
        world.endpoint.script([answer]);
        for _ in 0..20 {
            assert!(matches!(world.app().await, Err(KeeperError::RefreshFailed { retry_after: Some(_) })));
        }
        assert_eq!(world.posts(), 3);
        let stored = world.app_stored().await.expect("stored");
        assert_eq!((stored.state, stored.refresh_failures), (State::Active, 1));
        assert!(matches!(get(&world.restarted(), &world.reg, APP).await, Err(KeeperError::RefreshFailed { .. })), "the record says wait");
        assert_eq!(world.posts(), 3);
    }
}

#[tokio::test]
async fn the_wait_ends_and_grows_though_there_is_no_record() {
    let world = World::empty().await;
    world.endpoint.script([Answer::json(503, "").with("retry-after", "1"), Answer::json(503, "")]);
    assert!(matches!(world.app().await, Err(KeeperError::RefreshFailed { .. })));
    until("the second try", async || {
        let _ = world.app().await;
        world.posts() == 2
    })
    .await;
    until("the wait of a second failure", async || world.keeper.table.unminted(APP) == 2).await;
    until("minted", async || world.app().await == Ok("A3".into())).await;
}

/// THREATS row 44.
#[tokio::test]
async fn a_401_forces_one_new_token() {
    let world = World::empty().await;
    let used = world.keeper.credential(&world.reg, APP).await.expect("a token");
    world.clock.advance(Duration::from_secs(31));
    for newer in join_all((0..50).map(|_| world.keeper.rejected(&world.reg, APP, &used))).await {
        assert_eq!(newer.expect("newer").credential.access_token.expose(), "A2");
    }
    let new = world.keeper.credential(&world.reg, APP).await.expect("a token");
    assert!(world.keeper.rejected(&world.reg, APP, &new).await.is_none(), "not again within min_age");
    assert_eq!(world.posts(), 2);
}

#[tokio::test]
async fn what_the_store_does_not_take_is_given_to_nobody() {
    let world = World::empty().await;
    world.store.fail.store(true, Ordering::SeqCst);
    assert_eq!(world.app().await, Err(KeeperError::StoreUnavailable));
    assert_eq!(world.app().await, Err(KeeperError::StoreUnavailable));
    assert_eq!(world.posts(), 1, "not one a call while the disk is full");
    world.store.fail.store(false, Ordering::SeqCst);
    until("minted", async || world.app().await == Ok("A2".into())).await;
}

#[tokio::test]
async fn a_token_that_another_process_minted_first_is_used() {
    let world = World::empty().await;
    world.endpoint.hold();
    let (keeper, reg) = (Arc::clone(&world.keeper), Arc::clone(&world.reg));
    let call = tokio::spawn(async move { get(&keeper, &reg, APP).await });
    until("the POST", async || world.posts() == 1).await;
    let theirs = Connection { key: APP.to_owned(), access_token: "B0".into(), refresh_token: None, ..connection() };
    world.records.put_connection(&theirs, Expect::Absent).await.expect("written");
    world.endpoint.release();
    assert_eq!(call.await.expect("no panic"), Ok("B0".into()));
    assert_eq!(world.app_stored().await.expect("stored").access_token.expose(), "B0");
}

/// THREATS row 45, for exchanges: a name that the source does not know leaves no record and no slot.
/// Fails when a failure is kept in the table of connections instead of the bounded misses.
#[tokio::test]
async fn threat_45_names_made_up_cost_no_memory() {
    let world = World::empty().await;
    let (exchanging, _) = world.exchanging();
    for user in 0..12_000 {
        let name = format!("u{user}");
        let key = ConnectionKeyRef { end_user: &name, ..APP };
        assert!(matches!(get(&world.keeper, &exchanging, key).await, Err(KeeperError::Source { .. })));
    }
    let (slots, misses) = world.keeper.table.sizes();
    assert!(slots == 0 && misses <= 10_000, "{slots} {misses}");
    assert_eq!(world.posts(), 0);
    // The app's own wait outlives them.
    world.endpoint.script([refused("invalid_client")]);
    assert!(matches!(world.app().await, Err(KeeperError::RefreshFailed { .. })));
    for user in 0..12_000 {
        let name = format!("v{user}");
        assert!(get(&world.keeper, &world.reg, ConnectionKeyRef { end_user: &name, ..APP }).await.is_err());
    }
    assert!(matches!(world.app().await, Err(KeeperError::RefreshFailed { .. })));
    assert_eq!(world.posts(), 1);
}

#[tokio::test]
async fn an_exchange_says_what_is_wrong_with_its_source() {
    let world = World::empty().await;
    let (exchanging, idp) = world.exchanging();
    let source = |error| Err(KeeperError::Source { provider: "idp".into(), error: Box::new(error) });
    assert_eq!(get(&world.keeper, &exchanging, key().borrow()).await, source(KeeperError::NotConnected));
    // Connected at the source: the very next call exchanges, as the source's token is there.
    let theirs = Connection { key: ConnectionKey { provider: "idp".into(), ..key() }, ..connection() };
    world.put(&Connection { state: State::ReconnectRequired, ..theirs.clone() }).await;
    assert_eq!(get(&world.keeper, &exchanging, key().borrow()).await, source(KeeperError::ReconnectRequired));
    world.put(&Connection { expires_at: Some(START), ..theirs.clone() }).await;
    world.endpoint.script([Answer::json(503, "")]);
    let failed = get(&world.keeper, &exchanging, key().borrow()).await;
    assert!(
        matches!(&failed, Err(KeeperError::Source { provider, error }) if &**provider == "idp" && matches!(**error, KeeperError::RefreshFailed { .. })),
        "{failed:?}"
    );
    let off = Arc::new(Registration { off: Some("X".into()), ..(*idp).clone() });
    let Some(Mint::Exchange(exchange)) = exchanging.mint.clone() else { panic!("an exchange") };
    let with_off = Registration { mint: Some(Mint::Exchange(Exchange { source: Some(off), ..exchange })), ..(*exchanging).clone() };
    assert_eq!(get(&world.keeper, &Arc::new(with_off), key().borrow()).await, source(KeeperError::ProviderOff));
    assert_eq!(world.keeper.table.sizes().0, 1, "the source's slot alone");
}

#[tokio::test]
async fn an_exchange_asks_the_source_with_the_same_name_and_account() {
    let world = World::empty().await;
    let (exchanging, idp) = world.exchanging();
    world.put(&Connection { key: ConnectionKey::new("idp", "megan@personalemail.com", "work"), ..connection() }).await;
    let at = |account: &'static str| ConnectionKeyRef { end_user: "megan@personalemail.com", account, ..APP };
    let missing = Err(KeeperError::Source { provider: idp.id.clone(), error: Box::new(KeeperError::NotConnected) });
    assert_eq!(get(&world.keeper, &exchanging, at("default")).await, missing);
    assert_ne!(get(&world.keeper, &exchanging, at("work")).await, missing);
}
