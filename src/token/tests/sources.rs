//! Tokens of end users that are minted: by an assertion in their name, and in exchange for their token elsewhere.

use super::*;
use crate::base::secret::Secret;
use crate::provider::{Exchange, JwtBearer, JwtKey, Mint};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Registers the provider with this mint, and gives its source where it exchanges.
fn minting(world: &World, mint: Mint) -> Arc<Registration> {
    Arc::new(Registration { mint: Some(mint), ..(*world.reg).clone() })
}

fn bearer() -> Mint {
    let pem = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    Mint::JwtBearer(JwtBearer {
        key: JwtKey::parse(Secret::new(pem), None, None).expect("a key"),
        issuer: "app".into(),
        subject: Some("{end_user}".into()),
        audience: None,
        claims: Vec::new(),
    })
}

fn exchange(from: &Arc<Registration>) -> Mint {
    Mint::Exchange(Exchange {
        from: (*from.id).into(),
        source: Some(Arc::clone(from)),
        subject_token_type: "urn:ietf:params:oauth:token-type:access_token".into(),
        requested_token_type: None,
        audience: Vec::new(),
    })
}

fn source(world: &World) -> Arc<Registration> {
    Arc::new(Registration { id: "idp".into(), ..(*world.reg).clone() })
}

async fn get(world: &World, reg: &Arc<Registration>, end_user: &str) -> Result<String, KeeperError> {
    let key = ConnectionKey::new(&reg.id, end_user, "default");
    world.keeper.credential(reg, key.borrow()).await.map(|token| token.credential.access_token.expose().to_owned())
}

/// The subject of each assertion, in the order they came.
fn subjects(world: &World) -> Vec<String> {
    let subject = |assertion: &str| {
        let claims = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).expect("claims")).expect("base64");
        let claims: serde_json::Value = serde_json::from_slice(&claims).expect("JSON");
        claims["sub"].as_str().expect("a subject").to_owned()
    };
    world.endpoint.seen().iter().map(|seen| subject(&seen.form["assertion"])).collect()
}

#[tokio::test]
async fn an_assertion_in_each_end_users_name_mints_once_each() {
    let world = World::empty().await;
    let reg = minting(&world, bearer());
    for (user, token) in [("megan", "A1"), ("alex", "A2")] {
        for outcome in join_all((0..50).map(|_| get(&world, &reg, user))).await {
            assert_eq!(outcome, Ok(token.into()));
        }
    }
    assert_eq!(subjects(&world), ["megan", "alex"]);
    world.clock.advance(Duration::from_secs(3601));
    assert_eq!(get(&world, &reg, "megan").await, Ok("A3".into()));
    assert_eq!(subjects(&world), ["megan", "alex", "megan"]);
}

/// THREATS row 45: every made-up name is a try at the provider, and only what it grants is kept.
#[tokio::test]
async fn end_users_that_the_provider_does_not_know_leave_nothing() {
    let world = World::empty().await;
    let reg = minting(&world, bearer());
    world.endpoint.script((0..100).map(|_| refused("invalid_grant")));
    for user in 0..100 {
        let failed = get(&world, &reg, &format!("u{user}")).await;
        assert!(matches!(failed, Err(KeeperError::RefreshFailed { retry_after: Some(_) })), "{failed:?}");
    }
    assert_eq!(world.keeper.table.sizes(), (0, 100));
    assert!(matches!(get(&world, &reg, "u99").await, Err(KeeperError::RefreshFailed { .. })));
    assert_eq!(world.posts(), 100, "not again before its time");
    assert_eq!(world.records.connections(None, None, 10).await.expect("read"), []);
    assert_eq!(get(&world, &reg, "megan").await, Ok("A101".into()));
}

/// A grant that ended, before its registration came to mint, is replaced; its dead token is given to nobody.
#[tokio::test]
async fn a_connection_that_ended_lives_again_by_minting() {
    let world = World::after(10).await;
    world.put(&Connection { state: State::ReconnectRequired, ..connection() }).await;
    assert_eq!(world.token().await, Err(KeeperError::ReconnectRequired));
    let reg = minting(&world, bearer());
    world.endpoint.script([Answer::json(503, "").with("retry-after", "1")]);
    assert!(matches!(get(&world, &reg, "megan@personalemail.com").await, Err(KeeperError::RefreshFailed { .. })));
    until("minted", async || get(&world, &reg, "megan@personalemail.com").await == Ok("A2".into())).await;
    assert_eq!(world.stored().await.expect("stored").state, State::Active);
}

#[tokio::test]
async fn an_exchange_sends_the_token_of_the_source_and_refreshes_that_first() {
    let world = World::empty().await;
    let idp = source(&world);
    let reg = minting(&world, exchange(&idp));
    world.put(&Connection { key: ConnectionKey::new("idp", "megan", "default"), expires_at: Some(START), ..connection() }).await;
    for outcome in join_all((0..50).map(|_| get(&world, &reg, "megan"))).await {
        assert_eq!(outcome, Ok("A2".into()));
    }
    let seen = world.endpoint.seen();
    assert_eq!((&*seen[0].form["refresh_token"], &*seen[1].form["subject_token"], seen.len()), ("R0", "A1", 2));
    assert!(get(&world, &reg, "alex").await.is_err());
    // The source's end is told when the next one is due, and not before.
    let ended = Connection { key: ConnectionKey::new("idp", "megan", "default"), state: State::ReconnectRequired, ..connection() };
    world.put(&ended).await;
    assert_eq!(get(&world, &reg, "megan").await, Ok("A2".into()));
    world.clock.advance(Duration::from_secs(3601));
    let told = KeeperError::Source { provider: "idp".into(), error: Box::new(KeeperError::ReconnectRequired) };
    assert_eq!(get(&world, &reg, "megan").await, Err(told));
}

#[tokio::test]
async fn exchanges_chain() {
    let world = World::empty().await;
    let idp = source(&world);
    let broker = Arc::new(Registration { id: "broker".into(), mint: Some(exchange(&idp)), ..(*world.reg).clone() });
    let reg = minting(&world, exchange(&broker));
    let missing = KeeperError::Source { provider: "idp".into(), error: Box::new(KeeperError::NotConnected) };
    assert_eq!(get(&world, &reg, "megan").await, Err(missing), "the one to connect is named");
    world.put(&Connection { key: ConnectionKey::new("idp", "megan", "default"), ..connection() }).await;
    assert_eq!(get(&world, &reg, "megan").await, Ok("A2".into()));
    let sent: Vec<_> = world.endpoint.seen().iter().map(|seen| seen.form["subject_token"].clone()).collect();
    assert_eq!(sent, ["A0", "A1"]);
}
