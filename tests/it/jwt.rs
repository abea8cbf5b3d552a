//! `end_user.jwt`: the end user's header holds a signed token (contract §3), judged by RFC 8725's rules; keys come, rotate and go over real
//! sockets.

use crate::harness::*;
use crate::upstream::{Reply, Upstream};
use crate::wire::{Answer, empty, request, until};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::fs;
use std::sync::{Arc, Mutex};

const NOW_S: i64 = START.0 / 1000;

/// A signing key of the issuer's.
struct Key {
    kid: &'static str,
    pair: rcgen::KeyPair,
    signs: EncodingKey,
}

impl Key {
    fn new(kid: &'static str) -> Key {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let signs = EncodingKey::from_ec_der(&pair.serialize_der());
        Key { kid, pair, signs }
    }

    fn published(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.signs, Algorithm::ES256).expect("a key");
        jwk.common.key_id = Some(self.kid.to_owned());
        serde_json::to_value(jwk).expect("JSON")
    }

    fn header(&self) -> Header {
        Header { kid: Some(self.kid.to_owned()), ..Header::new(Algorithm::ES256) }
    }

    fn token(&self, changes: &Value) -> String {
        encode(&self.header(), &claims(changes), &self.signs).expect("signed")
    }
}

/// Megan's, good for an hour, with changes: `null` takes a claim away.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({"iss": "https://id.example", "aud": "attache", "sub": MEGAN, "iat": NOW_S, "exp": NOW_S + 3600});
    let all = claims.as_object_mut().expect("an object");
    for (key, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            all.remove(key);
        } else {
            all.insert(key.clone(), value.clone());
        }
    }
    claims
}

/// The issuer's key set, which tests change; `None` is an issuer that is down.
#[derive(Clone, Default)]
struct Published(Arc<Mutex<Option<String>>>);

impl Published {
    fn set(&self, keys: &[&Key]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.published()).collect();
        *self.0.lock().expect("unpoisoned") = Some(json!({ "keys": keys }).to_string());
    }

    fn down(&self) {
        *self.0.lock().expect("unpoisoned") = None;
    }

    async fn serve(&self) -> Upstream {
        let own = self.clone();
        Upstream::start(move |_| match &*own.0.lock().expect("unpoisoned") {
            Some(document) => Reply::ok("Content-Type: application/json\r\n", document),
            None => Reply::Close(b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n".to_vec()),
        })
        .await
    }
}

struct Setting {
    world: World,
    api: Upstream,
    issuer: Upstream,
    published: Published,
    /// Megan's access token at the provider.
    token: String,
}

const RULES: &str = "algorithms: [ES256], audience: attache, issuer: 'https://id.example'";

fn section(issuer: &Upstream, more: &str) -> String {
    format!("end_user:\n  jwt: {{jwks_url: 'http://{}/jwks', {RULES}}}\n{more}", issuer.address)
}

impl Setting {
    async fn with(keys: &[&Key], more: &str, route: &str) -> Setting {
        let (published, api) = (Published::default(), Upstream::plain().await);
        if !keys.is_empty() {
            published.set(keys);
        }
        let issuer = published.serve().await;
        let world = Plan::new().top(&section(&issuer, more)).up(api.address, route).start().await;
        let token = world.connect(MEGAN).await.access_token.expose().to_owned();
        Setting { world, api, issuer, published, token }
    }

    async fn call(&self, token: &str) -> Answer {
        self.world.call("GET", "/up/x", &[("x-end-user", token)], empty()).await
    }

    async fn refuses(&self, token: &str, why: &str) {
        let answer = self.call(token).await;
        answer.is_problem("end-user-invalid", 400, "http_request_denied");
        assert!(answer.text().contains(why), "{why}: {}", answer.text());
        assert!(token.len() < 20 || !answer.text().contains(&token[..20]), "no token in an answer");
    }

    fn fetches(&self) -> usize {
        self.issuer.seen().len()
    }
}

#[tokio::test]
async fn a_signed_token_names_the_end_user_and_is_seen_by_nobody_else() {
    let key = Key::new("one");
    let set = Setting::with(&[&key], "", "").await;
    let token = key.token(&json!({}));
    for _ in 0..3 {
        set.call(&token).await.is_ok();
        assert_eq!(set.api.last().header("authorization"), format!("Bearer {}", set.token));
    }
    assert!(!set.api.bytes().contains(&token[..20]) && !set.api.bytes().contains("x-end-user"));
    // The account stays a plain name.
    let account = set.world.call("GET", "/up/x", &[("x-end-user", &token), ("x-end-user-account", "work")], empty()).await;
    account.is_problem("not-connected", 401, "http_request_denied");
    assert_eq!(account.json()["connect"]["body"], json!({"end_user": MEGAN, "providers": ["sandbox"], "account": "work"}));
    // Another person's token is another person.
    let alex = set.call(&key.token(&json!({"sub": ALEX}))).await;
    alex.is_problem("not-connected", 401, "http_request_denied");
    assert_eq!(alex.json()["connect"]["body"]["end_user"], ALEX);
    assert_eq!(set.fetches(), 1);
}

#[tokio::test]
async fn a_name_that_is_not_proved_is_nobodys() {
    let key = Key::new("one");
    let set = Setting::with(&[&key], "", "").await;
    set.world.call("GET", "/up/x", &[], empty()).await.is_problem("end-user-missing", 400, "http_request_denied");
    let good = key.token(&json!({}));
    for (token, why) in [
        (MEGAN.to_owned(), "no signed token"),
        (String::new(), "empty"),
        (key.token(&json!({"exp": NOW_S - 3600})), "expired"),
        (key.token(&json!({"exp": null})), "`exp`"),
        (key.token(&json!({"nbf": NOW_S + 3600})), "future"),
        (key.token(&json!({"aud": "other"})), "audience"),
        (key.token(&json!({"aud": null})), "audience"),
        (key.token(&json!({"iss": "https://evil.example"})), "issuer"),
        (key.token(&json!({"sub": null})), "lacks the claim"),
        (key.token(&json!({"sub": 7})), "no text"),
        (key.token(&json!({"sub": "megan,alex"})), "comma"),
        (key.token(&json!({"sub": ""})), "empty"),
        (Key::new("one").token(&json!({})), "no key that is known here signed it"),
        (good[..good.len() - 8].to_owned(), "does not verify"),
        (format!("{good},{good}"), ""),
        (format!("Bearer {good}"), "no signed token"),
        ("x".repeat(8 * 1024 + 1), "8 KiB"),
    ] {
        set.refuses(&token, why).await;
    }
    let twice = set.world.call("GET", "/up/x", &[("x-end-user", &good), ("x-end-user", &good)], empty()).await;
    twice.is_problem("end-user-invalid", 400, "http_request_denied");
    let twin = set.world.call("GET", "/up/x", &[("x-end-user", &good), ("x_end_user", &good)], empty()).await;
    twin.is_problem("end-user-invalid", 400, "http_request_denied");
    assert_eq!((set.api.connections(), set.fetches()), (0, 1));
    // Up to the limit it is read: a long one that holds is taken.
    let long = key.token(&json!({"groups": "g".repeat(5500)}));
    assert!((7000..=8192).contains(&long.len()), "{}", long.len());
    set.call(&long).await.is_ok();
}

/// RFC 8725 §2.1: what is published is no secret. Two defences hold it, and one alone would: algorithms that `end_user.jwt` does not name are
/// refused, and a key verifies those of its own kind alone.
#[tokio::test]
async fn the_tokens_own_header_chooses_nothing() {
    let (key, evil) = (Key::new("one"), Key::new("one"));
    let set = Setting::with(&[&key], "", "").await;
    let good = claims(&json!({}));
    let with = |header: Header, signs: &EncodingKey| encode(&header, &good, signs).expect("signed");
    let hmac = |secret: &[u8]| with(Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) }, &EncodingKey::from_secret(secret));
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for token in [
        hmac(key.pair.public_key_pem().as_bytes()),
        hmac(key.pair.public_key_pem().trim().as_bytes()),
        hmac(rcgen::PublicKeyData::der_bytes(&key.pair)),
        hmac(key.published().to_string().as_bytes()),
        format!("{}.{}.", part(&json!({"alg": "none"})), part(&good)),
        format!("{}.{}.", part(&json!({"alg": "None", "kid": "one"})), part(&good)),
        with(Header { jwk: Some(Jwk::from_encoding_key(&evil.signs, Algorithm::ES256).expect("a key")), ..evil.header() }, &evil.signs),
        with(Header { jku: Some(format!("http://{}/evil", set.api.address)), ..evil.header() }, &evil.signs),
        with(Header { x5u: Some(format!("http://{}/evil", set.api.address)), ..evil.header() }, &evil.signs),
        with(Header { crit: Some(vec!["exp".into()]), ..key.header() }, &key.signs),
    ] {
        set.refuses(&token, "").await;
    }
    assert_eq!((set.api.connections(), set.fetches()), (0, 1), "nothing that a token names is fetched");
}

/// Without the pause in `Published::want`, each made-up `kid` would be a fetch.
#[tokio::test]
async fn a_new_key_is_looked_for_once_a_minute_and_made_up_ones_hammer_nobody() {
    let (one, two, three) = (Key::new("one"), Key::new("two"), Key::new("three"));
    let set = Setting::with(&[&one], "", "").await;
    set.call(&one.token(&json!({}))).await.is_ok();
    // The issuer signs by a new key: its first token is good at once.
    set.published.set(&[&one, &two]);
    set.call(&two.token(&json!({}))).await.is_ok();
    assert_eq!(set.fetches(), 2);
    let flood = (0..200).map(|number| {
        let header = Header { kid: Some(format!("made-up-{number}")), ..Header::new(Algorithm::ES256) };
        encode(&header, &claims(&json!({})), &three.signs).expect("signed")
    });
    for token in flood {
        set.refuses(&token, "does not publish").await;
    }
    assert_eq!(set.fetches(), 2);
    set.world.clock.advance(seconds(61));
    let unknown = three.token(&json!({}));
    let all = (0..20).map(|_| set.call(&unknown));
    for answer in futures_util::future::join_all(all).await {
        answer.is_problem("end-user-invalid", 400, "http_request_denied");
    }
    assert_eq!(set.fetches(), 3, "callers share one fetch");
    // A key that is withdrawn is gone once the set is old enough to be fetched anew, and tokens that it proved with it.
    set.published.set(&[&two]);
    set.world.clock.advance(seconds(601));
    until("the withdrawn key is gone", async || set.call(&one.token(&json!({}))).await.status == 400).await;
    set.call(&two.token(&json!({}))).await.is_ok();
}

/// An issuer that names no keys rotates too, and one that withdraws its last is believed at once.
#[tokio::test]
async fn a_token_that_names_no_key_is_tried_on_all() {
    let (one, two) = (Key::new("one"), Key::new("two"));
    let set = Setting::with(&[&one], "", "").await;
    let unnamed = |key: &Key| encode(&Header::new(Algorithm::ES256), &claims(&json!({})), &key.signs).expect("signed");
    set.call(&unnamed(&one)).await.is_ok();
    set.published.set(&[&one, &two]);
    set.call(&unnamed(&two)).await.is_ok();
    set.call(&unnamed(&one)).await.is_ok();
    assert_eq!(set.fetches(), 2);
    for _ in 0..20 {
        set.refuses(&unnamed(&Key::new("two")), "does not publish").await;
    }
    assert_eq!(set.fetches(), 2);
    set.published.set(&[]);
    set.world.clock.advance(seconds(61));
    set.refuses(&Key::new("three").token(&json!({})), "does not publish").await;
    set.refuses(&one.token(&json!({})), "does not publish").await;
    assert_eq!(set.fetches(), 3);
}

/// The fetch is the control plane's: without that, the one worker of these connections would wait with it.
#[tokio::test]
async fn an_issuer_that_hangs_holds_up_nobody_else() {
    let (api, issuer) = (Upstream::plain().await, Upstream::start(|_| Reply::Hang).await);
    let open = format!("  - {{match: '/open/{{*rest}}', as: none, upstream: 'http://{}/{{rest}}'}}\n", api.address);
    let world = Plan::new().top(&section(&issuer, "")).up(api.address, "").routes(&open).start().await;
    let token = Key::new("one").token(&json!({}));
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let request = request("GET", "/up/x").header("x-end-user", &token).body(empty()).expect("a request");
        waiting.push(tokio::spawn(crate::wire::call(world.proxy, request)));
    }
    until("the issuer was asked", async || !issuer.seen().is_empty()).await;
    for _ in 0..20 {
        world.call("GET", "/open/x", &[], empty()).await.is_ok();
    }
    assert!(waiting.iter().all(|call| !call.is_finished()));
    assert_eq!(issuer.seen().len(), 1);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_token_that_was_good_ends_at_its_end() {
    let key = Key::new("one");
    let set = Setting::with(&[&key], "", "").await;
    let token = key.token(&json!({"exp": NOW_S + 30}));
    set.call(&token).await.is_ok();
    set.world.clock.advance(seconds(29));
    set.call(&token).await.is_ok();
    set.world.clock.advance(seconds(1));
    for _ in 0..4 {
        set.refuses(&token, "expired").await;
    }
}

#[tokio::test]
async fn while_the_issuer_is_down_the_old_keys_serve_for_a_day() {
    let key = Key::new("one");
    let set = Setting::with(&[], "", "").await;
    let token = key.token(&json!({"exp": NOW_S + 1_000_000}));
    let answer = set.call(&token).await;
    answer.is_problem("store-unavailable", 503, "proxy_internal_error");
    assert_eq!(answer.header("retry-after"), "10");
    for _ in 0..20 {
        set.call(&token).await.is_problem("store-unavailable", 503, "proxy_internal_error");
    }
    assert_eq!(set.fetches(), 1, "a fetch that failed is not repeated at once");
    set.published.set(&[&key]);
    set.world.clock.advance(seconds(10));
    set.call(&token).await.is_ok();
    assert_eq!(set.fetches(), 2);
    set.published.down();
    for hours in [1, 10, 12] {
        set.world.clock.advance(seconds(hours * 3600));
        set.world.connect(MEGAN).await;
        set.call(&token).await.is_ok();
    }
    set.world.clock.advance(seconds(3600));
    set.call(&token).await.is_problem("store-unavailable", 503, "proxy_internal_error");
    set.published.set(&[&key]);
    set.world.clock.advance(seconds(10));
    set.world.connect(MEGAN).await;
    set.call(&token).await.is_ok();
}

#[tokio::test]
async fn a_placeholder_holds_the_signed_token_too() {
    let caller = "k-jwt-77aa";
    let hash: String = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, caller.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let key = Key::new("one");
    let more = format!("  placeholder: true\ncallers:\n  - {{name: app, key_sha256: {hash}}}\n");
    let set = Setting::with(&[&key], &more, "").await;
    let (token, alex) = (key.token(&json!({})), key.token(&json!({"sub": ALEX})));
    let again = key.token(&json!({"jti": "2"}));
    let basic = format!("Basic {}", STANDARD.encode(format!("{token}:{caller}")));
    for headers in [
        &[("authorization", &*format!("Bearer {token}:{caller}"))][..],
        &[("authorization", &basic)],
        &[("authorization", &format!("Bearer {token}")), ("x-attache-key", caller)],
        &[("authorization", &format!("Bearer {token}:{caller}")), ("x-end-user", &token)],
        &[("authorization", &format!("Bearer {token}:{caller}")), ("x-end-user", &again)],
    ] {
        set.world.call("GET", "/up/x", headers, empty()).await.is_ok();
        assert_eq!(set.api.last().header("authorization"), format!("Bearer {}", set.token));
    }
    assert!(!set.api.bytes().contains(&token[..20]) && !set.api.bytes().contains(caller));
    for headers in [
        &[("authorization", &*format!("Bearer {token}:{caller}")), ("x-end-user", &alex)][..],
        &[("authorization", &format!("Bearer {MEGAN}:{caller}"))],
        &[("authorization", &format!("Bearer :{caller}"))],
        &[("authorization", &format!("Bearer {MEGAN}:{caller}")), ("x-end-user", &token)],
        &[("authorization", &format!("Bearer {token}:{caller}")), ("x-end-user", MEGAN)],
    ] {
        set.world.call("GET", "/up/x", headers, empty()).await.is_problem("end-user-invalid", 400, "http_request_denied");
    }
    // The name that a token proved may be told; the token may not.
    let answer = set.world.call("GET", "/up/x", &[("authorization", &format!("Bearer {alex}:{caller}"))], empty()).await;
    answer.is_problem("not-connected", 401, "http_request_denied");
    assert!(answer.text().contains(ALEX) && !answer.text().contains(&alex[..20]));
}

#[tokio::test]
async fn a_shared_secret_and_a_claim_of_ones_own() {
    let (api, secret) = (Upstream::plain().await, "a-shared-secret-of-more-than-32-bytes");
    let world = Plan::new().up(api.address, "").start().await;
    world.connect(MEGAN).await;
    world.get("/up/x").await.is_ok();
    // A reload brings it live.
    let before = fs::read_to_string(world.config()).expect("the config");
    fs::write(world.folder.path().join("jwt.secret"), format!("{secret}\n")).expect("written");
    let with = |keys: &str| fs::write(world.config(), format!("end_user: {{jwt: {{{keys}}}}}\n{before}")).expect("written");
    with("secret_file: jwt.secret, claim: email");
    world.live().reload().unwrap_or_else(|errors| panic!("{errors}"));
    world.get("/up/x").await.is_problem("end-user-invalid", 400, "http_request_denied");
    let signed =
        |claims: Value, secret: &str| encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes())).expect("signed");
    let good = signed(json!({"email": MEGAN, "sub": "7", "exp": NOW_S + 60}), secret);
    world.get_as(&good, "/up/x").await.is_ok();
    for bad in [
        signed(json!({"sub": MEGAN, "exp": NOW_S + 60}), secret),
        signed(json!({"email": MEGAN, "aud": "attache", "exp": NOW_S + 60}), secret),
        signed(json!({"email": MEGAN, "exp": NOW_S + 60}), "a-shared-secret-of-more-than-32-bytes\n"),
    ] {
        world.get_as(&bad, "/up/x").await.is_problem("end-user-invalid", 400, "http_request_denied");
    }
    // Another secret ends what the old one proved.
    fs::write(world.folder.path().join("jwt.secret"), "b-shared-secret-of-more-than-32-bytes").expect("written");
    world.live().reload().unwrap_or_else(|errors| panic!("{errors}"));
    for _ in 0..4 {
        world.get_as(&good, "/up/x").await.is_problem("end-user-invalid", 400, "http_request_denied");
    }
    assert!(!api.bytes().contains(&good[..20]));
}

#[tokio::test]
async fn a_reload_keeps_the_keys_and_routes_without_an_end_user_need_no_token() {
    let key = Key::new("one");
    let set = Setting::with(&[&key], "", "").await;
    let token = key.token(&json!({}));
    set.call(&token).await.is_ok();
    let before = fs::read_to_string(set.world.config()).expect("the config");
    let open = format!("  - {{match: '/open/{{*rest}}', as: none, upstream: 'http://{}/{{rest}}'}}\n", set.api.address);
    fs::write(set.world.config(), format!("{}{open}", before.replace("audience: attache", "audience: [attache, other]"))).expect("written");
    set.world.live().reload().unwrap_or_else(|errors| panic!("{errors}"));
    set.published.down();
    set.call(&token).await.is_ok();
    set.call(&key.token(&json!({"aud": "other"}))).await.is_ok();
    set.world.call("GET", "/open/x", &[("x-end-user", &token)], empty()).await.is_ok();
    assert!(!set.api.bytes().contains(&token[..20]));
    assert_eq!(set.fetches(), 1);
    // What was proved under wider rules is not under narrower ones.
    fs::write(set.world.config(), &before).expect("written");
    set.world.live().reload().unwrap_or_else(|errors| panic!("{errors}"));
    set.refuses(&key.token(&json!({"aud": "other"})), "audience").await;
}

#[tokio::test]
async fn rules_that_cannot_hold_are_refused_where_they_stand() {
    let world = World::start().await;
    let before = fs::read_to_string(world.config()).expect("the config");
    for (name, content) in
        [("short", "x".repeat(31)), ("good", "x".repeat(32)), ("pem", format!("-----BEGIN PUBLIC KEY-----\n{}", "x".repeat(64)))]
    {
        fs::write(world.folder.path().join(name), content).expect("written");
    }
    for (lines, place, part) in [
        ("end_user: {jwt: {jwks_url: 'https://id.example/k', algorithms: [none]}}", "none]", "`none` is no signature"),
        ("end_user: {jwt: {jwks_url: 'https://id.example/k', algorithms: [HS256]}}", "HS256", "anyone could sign"),
        ("end_user: {jwt: {jwks_url: 'https://id.example/k', algorithms: [ES265]}}", "ES265", "did you mean `ES256`?"),
        ("end_user: {jwt: {jwks_url: 'https://id.example/k', algorithms: []}}", "algorithms", "empty"),
        ("end_user: {jwt: {jwks_url: 'http://id.example/k'}}", "'http", "https"),
        ("end_user: {jwt: {secret_file: good, algorithms: [ES256]}}", "ES256", "public key"),
        ("end_user: {jwt: {secret_file: good, algorithms: [HS512]}}", "good", "at least 64"),
        ("end_user: {jwt: {secret_file: short}}", "short", "at least 32"),
        ("end_user: {jwt: {secret_file: pem}}", "pem", "PEM"),
        ("end_user: {jwt: {secret_file: absent}}", "absent", "cannot read"),
        ("end_user: {jwt: {secret_file: good, jwks_url: 'https://id.example/k'}}", "secret_file", "not both"),
        ("end_user: {jwt: {audience: x}}", "{audience", "needs `jwks_url`"),
        ("end_user: {jwt: {secret_file: good, audience: []}}", "[]", "empty"),
        ("end_user: {jwt: {secret_file: good, clam: email}}", "clam", "did you mean `claim`?"),
        ("end_user: {default: me, jwt: {secret_file: good}}", "default", "without any proof"),
    ] {
        fs::write(world.config(), format!("{lines}\n{before}")).expect("written");
        let errors = world.live().reload().expect_err(lines).to_string();
        assert!(
            errors.contains(&format!("routes.yaml:1:{}: ", lines.find(place).expect("there") + 1)) && errors.contains(part),
            "{lines}: {errors}"
        );
    }
}
