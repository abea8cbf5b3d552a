//! Tokens that are bound to keys (RFC 9449), against a server that checks every proof as the RFC says, by another library than the one that
//! made it, and wants nonces of its own at the token endpoint and at the API.

use crate::browser::{Browser, param};
use crate::harness::*;
use crate::upstream::{Reply, Seen, Upstream};
use crate::wire::{self, Answer, empty};
use attache::base::ids::ConnectionKey;
use attache::store::Connection;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// What the server holds against each request.
#[derive(Default)]
struct Guard {
    state: Mutex<State>,
}

struct State {
    /// `None`: no nonce is wanted there.
    token_nonce: Option<String>,
    api_nonce: Option<String>,
    /// Wants another nonce each time, so that none is ever right.
    never_content: bool,
    proofs: HashSet<String>,
    /// Whose key each token is bound to.
    bound: HashMap<String, String>,
    count: usize,
    token_type: &'static str,
    /// Answers to the next API calls, before any check.
    refused: usize,
    faults: Vec<String>,
}

impl Default for State {
    fn default() -> Self {
        State {
            token_nonce: Some("as-1".into()),
            api_nonce: Some("rs-1".into()),
            never_content: false,
            proofs: HashSet::new(),
            bound: HashMap::new(),
            count: 0,
            token_type: "DPoP",
            refused: 0,
            faults: Vec::new(),
        }
    }
}

fn answer(status: u16, headers: &str, body: &Value) -> Reply {
    let body = body.to_string();
    Reply::Keep(
        format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into(),
    )
}

fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

/// RFC 9449 §4.3, without the times: the thumbprint of the key, and the claims.
fn verified(seen: &Seen, uri: &str) -> Result<(String, Value), String> {
    let all = seen.all("dpop");
    let [proof] = all[..] else { return Err(format!("{} proofs", all.len())) };
    let header: Value =
        proof.split('.').next().and_then(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()).ok_or("no header")?;
    if header["typ"] != "dpop+jwt" || header["alg"] != "ES256" || header["jwk"].get("d").is_some() {
        return Err(format!("header {header}"));
    }
    let jwk = &header["jwk"];
    let (x, y) = (jwk["x"].as_str().ok_or("no x")?, jwk["y"].as_str().ok_or("no y")?);
    let key = DecodingKey::from_ec_components(x, y).map_err(|error| error.to_string())?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_aud) = (false, false);
    let claims = jsonwebtoken::decode::<Value>(proof, &key, &validation).map_err(|error| error.to_string())?.claims;
    if claims["htm"] != *seen.method || claims["htu"] != uri || !claims["iat"].is_i64() {
        return Err(format!("{} {uri} against {claims}", seen.method));
    }
    Ok((hash(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)), claims))
}

impl Guard {
    fn answer(&self, seen: &Seen) -> Reply {
        let mut state = self.state.lock().expect("unpoisoned");
        let path = seen.target.split('?').next().expect("a path").to_owned();
        let uri = format!("http://{}{path}", seen.header("host"));
        let (thumbprint, claims) = match verified(seen, &uri) {
            Ok(verified) => verified,
            Err(fault) => {
                state.faults.push(fault);
                return answer(400, "", &json!({"error": "invalid_dpop_proof"}));
            }
        };
        if !state.proofs.insert(claims["jti"].to_string()) {
            state.faults.push("a proof came twice".into());
        }
        let is_api = path.starts_with("/api");
        if state.never_content {
            state.count += 1;
            let next = Some(format!("never-{}", state.count));
            (state.token_nonce, state.api_nonce) = (next.clone(), next);
        }
        let wanted = if is_api { state.api_nonce.clone() } else { state.token_nonce.clone() };
        if let Some(wanted) = wanted.filter(|wanted| claims["nonce"] != **wanted) {
            let headers = format!("DPoP-Nonce: {wanted}\r\n");
            return match is_api {
                true => answer(401, &format!("{headers}WWW-Authenticate: DPoP error=\"use_dpop_nonce\"\r\n"), &json!({})),
                false => answer(400, &headers, &json!({"error": "use_dpop_nonce"})),
            };
        }
        if is_api { state.api(seen, &thumbprint, &claims) } else { state.token(seen, thumbprint) }
    }
}

impl State {
    fn token(&mut self, _seen: &Seen, thumbprint: String) -> Reply {
        self.count += 1;
        let token = format!("A{}", self.count);
        self.bound.insert(token.clone(), thumbprint);
        let body =
            json!({"access_token": token, "token_type": self.token_type, "expires_in": 3600, "refresh_token": format!("R{}", self.count)});
        answer(200, "", &body)
    }

    fn api(&mut self, seen: &Seen, thumbprint: &str, claims: &Value) -> Reply {
        let token = seen.header("authorization").strip_prefix("DPoP ").unwrap_or_default();
        if self.bound.get(token).is_none_or(|bound| bound != thumbprint) || claims["ath"] != hash(token) {
            self.faults.push(format!("not of this token: {} {claims}", seen.header("authorization")));
        }
        if self.refused > 0 {
            self.refused -= 1;
            return answer(401, "WWW-Authenticate: DPoP error=\"invalid_token\"\r\n", &json!({}));
        }
        answer(200, "", &json!({"body": String::from_utf8_lossy(&seen.body)}))
    }
}

struct Stage {
    world: World,
    acme: Upstream,
    guard: Arc<Guard>,
}

impl Stage {
    async fn new() -> Stage {
        let guard: Arc<Guard> = Arc::default();
        let own = Arc::clone(&guard);
        let acme = Upstream::start(move |seen| own.answer(seen)).await;
        let address = acme.address;
        let provider = format!(
            "  acme:\n    client_id: id\n    dpop: true\n    authorize_url: http://{address}/authorize\n    token_url: http://{address}/token\n    \
             token_hosts: [\"{address}\"]\n    refresh: {{min_age: 0s}}\n"
        );
        let routes = format!(
            "  - {{match: '/acme/{{*rest}}', provider: acme, upstream: 'http://{address}/api/{{rest}}'}}\n  \
             - {{match: '/own/{{*rest}}', provider: acme, as: app, upstream: 'http://{address}/api/own/{{rest}}'}}\n"
        );
        // The app's own token is a confidential client's.
        let provider = provider.replace("client_id: id\n", "client_id: id\n    client_secret: s3\n");
        // A store whose watch tells of our own writes, as it does in production.
        let world = Plan::new().on_disk().providers(&provider).routes(&routes).start().await;
        Stage { world, acme, guard }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.guard.state.lock().expect("unpoisoned"))
    }

    /// Through the connect flow; the authorization URL, and where the browser ended.
    async fn connect(&self, user: &str) -> (String, Answer) {
        let body = json!({"end_user": user, "providers": ["acme"]});
        let made = self.world.admin_json("POST", "/v1/connect-sessions", &body).await;
        let link = made.json()["connect_url"].as_str().expect("a link").to_owned();
        let mut browser = Browser::default();
        browser.get(&link).await.is_ok();
        let sent = browser.post(&link, &[("provider", "acme")]).await;
        assert_eq!(sent.status, 303, "{}", sent.text());
        let authorize = sent.header("location");
        let state = param(&authorize, "state");
        let back = format!("{}?code=C1&state={state}", self.world.running.connect.redirect_uri("acme"));
        let landed = browser.get(&back).await;
        (authorize, landed)
    }

    async fn call(&self, method: &str, body: wire::Body) -> Answer {
        self.world.call(method, "/acme/x%20y?q=1", &[("x-end-user", MEGAN), ("dpop", "client's own")], body).await
    }

    async fn stored(&self, key: &ConnectionKey) -> Connection {
        self.world.running.records.connection(key).await.expect("read").expect("there").record
    }

    fn calls(&self, prefix: &str) -> usize {
        self.acme.seen().iter().filter(|seen| seen.target.starts_with(prefix)).count()
    }

    #[track_caller]
    fn content(&self) {
        self.with(|state| assert!(state.faults.is_empty(), "{:?}", state.faults));
    }
}

fn megan() -> ConnectionKey {
    ConnectionKey::new("acme", MEGAN, "default")
}

#[tokio::test]
async fn p30_from_the_link_to_the_call_and_over_a_refresh_with_one_key() {
    let stage = Stage::new().await;
    let (authorize, landed) = stage.connect(MEGAN).await;
    assert_eq!(landed.status, 200, "{}", landed.text());
    let stored = stage.stored(&megan()).await;
    let key = stored.key_material.clone().expect("a key");
    let bound = stage.with(|state| state.bound["A1"].clone());
    assert_eq!((param(&authorize, "dpop_jkt"), &*stored.token_type), (bound.clone(), "DPoP"));
    assert_eq!(stage.calls("/token"), 2, "one for the nonce");
    // The API's own nonce costs the first call a repeat, and no later one.
    stage.call("GET", empty()).await.is_ok();
    assert_eq!(stage.calls("/api"), 2);
    stage.call("GET", empty()).await.is_ok();
    assert_eq!(stage.calls("/api"), 3);
    // A refresh keeps the key, the server's nonce, and the API's.
    stage.world.clock.advance(seconds(3601));
    stage.call("GET", empty()).await.is_ok();
    assert_eq!((stage.calls("/token"), stage.calls("/api")), (3, 4));
    let refreshed = stage.stored(&megan()).await;
    assert_eq!((refreshed.key_material, refreshed.refresh_token), (Some(key.clone()), Some("R2".into())));
    assert_eq!(stage.with(|state| state.bound["A2"].clone()), bound);
    // Who connects anew has a new key.
    stage.connect(MEGAN).await;
    assert_ne!(stage.stored(&megan()).await.key_material, Some(key));
    stage.call("GET", empty()).await.is_ok();
    stage.content();
}

#[tokio::test]
async fn p30_the_apps_own_token_has_a_key_of_its_own() {
    let stage = Stage::new().await;
    for _ in 0..2 {
        stage.world.call("GET", "/own/x", &[], empty()).await.is_ok();
    }
    let key = stage.stored(&ConnectionKey::app("acme")).await.key_material;
    assert!(key.is_some());
    stage.world.clock.advance(seconds(3601));
    stage.world.call("GET", "/own/x", &[], empty()).await.is_ok();
    assert_eq!(stage.stored(&ConnectionKey::app("acme")).await.key_material, key);
    stage.content();
}

#[tokio::test]
async fn p30_a_short_body_is_sent_again_with_the_nonce_and_a_second_wish_passes_on() {
    let stage = Stage::new().await;
    stage.connect(MEGAN).await;
    let answer = stage.call("POST", wire::whole("hello".to_owned())).await;
    assert_eq!(answer.is_ok().json()["body"], "hello");
    assert_eq!(stage.calls("/api"), 2);
    stage.with(|state| state.never_content = true);
    let answer = stage.call("GET", empty()).await;
    assert_eq!((answer.status.as_u16(), answer.header("www-authenticate").contains("use_dpop_nonce")), (401, true));
    assert_eq!((stage.calls("/api"), stage.calls("/token")), (4, 2), "once more, and no refresh: the token is not at fault");
    stage.content();
}

#[tokio::test]
async fn p30_a_401_that_means_the_token_is_refreshed_and_proved_anew() {
    let stage = Stage::new().await;
    stage.connect(MEGAN).await;
    stage.call("GET", empty()).await.is_ok();
    stage.with(|state| state.refused = 1);
    stage.world.clock.advance(seconds(60));
    stage.call("GET", empty()).await.is_ok();
    assert_eq!((stage.calls("/token"), stage.calls("/api")), (3, 4));
    stage.content();
}

#[tokio::test]
async fn p31_a_bearer_token_is_never_taken_where_a_bound_one_was_asked_for() {
    let stage = Stage::new().await;
    stage.with(|state| state.token_type = "Bearer");
    stage.connect(MEGAN).await;
    assert!(stage.world.running.records.connection(&megan()).await.expect("read").is_none());
    // Nor on a call: what a refresh brought is kept, and goes nowhere.
    stage.with(|state| state.token_type = "DPoP");
    stage.connect(MEGAN).await;
    stage.call("GET", empty()).await.is_ok();
    let before = stage.calls("/api");
    stage.with(|state| state.token_type = "Bearer");
    stage.world.clock.advance(seconds(3601));
    assert_eq!(stage.call("GET", empty()).await.status, 500);
    assert_eq!(stage.calls("/api"), before);
    let kept = stage.stored(&megan()).await;
    assert_ne!(kept.refresh_token, Some("R2".into()), "the newest one, for the one before is spent");
    // Once the provider binds again, so does the next refresh.
    stage.with(|state| state.token_type = "DPoP");
    stage.world.clock.advance(seconds(3601));
    stage.call("GET", empty()).await.is_ok();
}

#[tokio::test]
async fn p30_an_imported_grant_gets_a_key_by_its_first_refresh() {
    let stage = Stage::new().await;
    stage.world.import(&json!({"provider": "acme", "end_user": MEGAN, "refresh_token": "R0"})).await;
    stage.call("GET", empty()).await.is_ok();
    assert!(stage.stored(&megan()).await.key_material.is_some());
    // And one that comes with its token's key goes at once.
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("generated");
    let raw = pem.public_key_raw().to_vec();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&raw[1..33]), URL_SAFE_NO_PAD.encode(&raw[33..65]));
    let thumbprint = hash(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#));
    stage.with(|state| state.bound.insert("OLD".into(), thumbprint));
    stage.world.import(&json!({"provider": "acme", "end_user": ALEX, "access_token": "OLD", "dpop_key": pem.serialize_pem()})).await;
    stage.world.call("GET", "/acme/x", &[("x-end-user", ALEX)], empty()).await.is_ok();
    stage.content();
}
