//! The id token: taken when all of it is proved, refused for each thing that is not.

use super::discovery::{OPENID, issuer_alone, metadata};
use super::*;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData};
use serde_json::{Value, json};

struct Signer {
    pair: KeyPair,
    algorithm: Algorithm,
    kid: &'static str,
}

impl Signer {
    fn new(algorithm: Algorithm, kid: &'static str) -> Signer {
        let kind = match algorithm {
            Algorithm::EdDSA => &PKCS_ED25519,
            Algorithm::ES256 => &PKCS_ECDSA_P256_SHA256,
            _ => &PKCS_RSA_SHA256,
        };
        Signer { pair: KeyPair::generate_for(kind).expect("generated"), algorithm, kid }
    }

    fn key(&self) -> EncodingKey {
        let pem = self.pair.serialize_pem();
        let key = match self.algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        key.expect("a key")
    }

    /// RFC 7517 §4, RFC 7518 §6.2, RFC 8037 §2.
    fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
        if !matches!(self.algorithm, Algorithm::EdDSA | Algorithm::ES256) {
            let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key(), self.algorithm).expect("a public key")).expect("JSON");
            jwk["kid"] = self.kid.into();
            return jwk;
        }
        match self.pair.der_bytes() {
            [4, point @ ..] if self.algorithm == Algorithm::ES256 => {
                json!({"kty": "EC", "crv": "P-256", "x": encode(&point[..32]), "y": encode(&point[32..]), "kid": self.kid, "use": "sig"})
            }
            point => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(point), "kid": self.kid, "use": "sig"}),
        }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.into()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key()).expect("signed")
    }
}

struct World {
    endpoint: Endpoint,
    client: TokenClient,
    reg: Registration,
    signer: Signer,
}

impl World {
    async fn start(algorithm: Algorithm) -> World {
        let endpoint = Endpoint::start().await;
        let signer = Signer::new(algorithm, "k1");
        let world = World { client: token_client(&ManualClock::at(START)), reg: issuer_alone(&endpoint.base), endpoint, signer };
        world.endpoint.publish(OPENID, Answer::json(200, &metadata(&world.endpoint.base, &world.endpoint.base).to_string()));
        world.keys(&[world.signer.jwk()]);
        world
    }

    fn keys(&self, keys: &[Value]) {
        // A key of a kind of the future hides none of the others.
        let all: Vec<Value> = [json!({"kty": "PQ", "kid": "k0"})].into_iter().chain(keys.iter().cloned()).collect();
        self.endpoint.publish("/jwks", Answer::json(200, &json!({"keys": all}).to_string()));
    }

    fn claims(&self) -> Value {
        let now = START.0 / 1000;
        json!({"iss": self.endpoint.base, "sub": "user-7", "aud": "id", "exp": now + 300, "iat": now, "nonce": "N1"})
    }

    /// The exchange of a code whose answer holds this id token.
    async fn exchange(&self, id_token: Option<&str>) -> Result<Grant, TokenError> {
        let body = json!({"access_token": "A1", "token_type": "Bearer", "refresh_token": "R1", "id_token": id_token});
        self.endpoint.script([Answer::json(200, &body.to_string())]);
        self.client
            .exchange_code(&self.reg, &Secret::new("C"), "http://localhost/cb", None, Some(&Secret::new("N1")), Values::default())
            .await
            .map_err(|unexchanged| unexchanged.error)
    }

    async fn refused(&self, id_token: Option<&str>, why: &str) {
        let error = self.exchange(id_token).await.expect_err(why);
        assert!(error.summary.contains(why) && error.sent, "{why}: {error}");
        for text in [id_token.unwrap_or("user-7"), "user-7", "evil", "A1"].into_iter().filter(|text| !text.is_empty()) {
            assert!(!format!("{error:?}").contains(text), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_proved_id_token_says_whose_account_it_is() {
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256, Algorithm::PS256] {
        let world = World::start(algorithm).await;
        let grant = world.exchange(Some(&world.signer.sign(&world.claims()))).await.expect("granted");
        assert_eq!((grant.subject.as_deref(), grant.access_token.expose()), (Some("user-7"), "A1"));
        for (claim, value) in
            [("aud", json!(["id"])), ("azp", json!("id")), ("exp", json!(START.0 / 1000 - 59)), ("iat", json!(START.0 / 1000 + 59))]
        {
            let mut claims = world.claims();
            claims[claim] = value;
            world.exchange(Some(&world.signer.sign(&claims))).await.unwrap_or_else(|error| panic!("{claim}: {error}"));
        }
        assert_eq!((world.endpoint.count("/jwks"), world.endpoint.count(OPENID)), (1, 1));
    }
}

#[tokio::test]
async fn without_a_nonce_an_id_token_is_not_read() {
    let world = World::start(Algorithm::ES256).await;
    world.endpoint.script([Answer::json(200, r#"{"access_token":"A1","id_token":"junk"}"#)]);
    let grant = world
        .client
        .exchange_code(&world.reg, &Secret::new("C"), "http://localhost/cb", None, None, Values::default())
        .await
        .expect("granted");
    assert_eq!((grant.subject, world.endpoint.count("/jwks")), (None, 0));
}

#[tokio::test]
async fn what_came_with_an_unproved_id_token_can_be_revoked() {
    let world = World::start(Algorithm::ES256).await;
    world.endpoint.script([Answer::json(200, r#"{"access_token":"A1","refresh_token":"R1","id_token":"junk"}"#)]);
    let (code, nonce) = (Secret::new("C"), Secret::new("N1"));
    let exchange = world.client.exchange_code(&world.reg, &code, "http://localhost/cb", None, Some(&nonce), Values::default());
    let dropped = exchange.await.expect_err("not proved").dropped.expect("there");
    assert_eq!((dropped.access_token, dropped.refresh_token), ("A1".into(), Some("R1".into())));
}

#[tokio::test]
async fn each_claim_that_does_not_fit_is_refused() {
    let world = World::start(Algorithm::ES256).await;
    let now = START.0 / 1000;
    for (claim, value, why) in [
        ("iss", json!("https://evil.test"), "another issuer"),
        ("iss", json!(format!("{}/", world.endpoint.base)), "another issuer"),
        ("iss", Value::Null, "another issuer"),
        ("aud", json!("evil"), "another client"),
        ("aud", json!(["evil"]), "another client"),
        ("aud", Value::Null, "another client"),
        ("aud", json!(["id", "evil"]), "several clients"),
        ("azp", json!("evil"), "another client asked for"),
        ("azp", json!(7), "another client asked for"),
        ("exp", json!(now - 60), "expired"),
        ("exp", json!("soon"), "expired"),
        ("exp", Value::Null, "expired"),
        ("iat", json!(now + 61), "from the future"),
        ("iat", Value::Null, "from the future"),
        ("nonce", json!("evil"), "another request"),
        ("nonce", Value::Null, "another request"),
        ("at_hash", json!("evil"), "another access token"),
        ("sub", json!(""), "without a subject"),
        ("sub", json!(7), "without a subject"),
    ] {
        let mut claims = world.claims();
        claims[claim] = value;
        world.refused(Some(&world.signer.sign(&claims)), why).await;
    }
    world.refused(None, "no id token").await;
}

#[tokio::test]
async fn a_signature_that_is_not_the_issuers_is_refused() {
    let world = World::start(Algorithm::ES256).await;
    let good = world.signer.sign(&world.claims());
    let (head, _) = good.rsplit_once('.').expect("a JWT");
    let encode = |value: &Value| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, value.to_string());
    let with_header = |header: Value, rest: &str| format!("{}.{}.{rest}", encode(&header), encode(&world.claims()));
    let public = world.signer.jwk().to_string();
    let hmac = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &world.claims(), &EncodingKey::from_secret(public.as_bytes()));
    for (token, why) in [
        (format!("{head}."), "no key of the issuer"),
        (format!("{head}.AAAA"), "no key of the issuer"),
        (Signer::new(Algorithm::ES256, "k1").sign(&world.claims()), "no key of the issuer"),
        (Signer::new(Algorithm::EdDSA, "k1").sign(&world.claims()), "no key of the issuer"),
        (with_header(json!({"alg": "none"}), ""), "no signed JWT"),
        (with_header(json!({"alg": "ES256", "kid": "k1", "crit": ["x"]}), "AAAA"), "extensions"),
        (hmac.expect("signed"), "without a public key"),
        ("junk".to_owned(), "no signed JWT"),
        ("a.b.c".to_owned(), "no signed JWT"),
        (String::new(), "no signed JWT"),
    ] {
        world.refused(Some(&token), why).await;
    }
    assert_eq!(world.endpoint.count("/jwks"), 1, "a known key's bad signature is no reason to ask again");
}

#[tokio::test]
async fn a_new_key_is_looked_for_once() {
    let world = World::start(Algorithm::ES256).await;
    world.exchange(Some(&world.signer.sign(&world.claims()))).await.expect("granted");
    let next = Signer::new(Algorithm::ES256, "k2");
    world.refused(Some(&next.sign(&world.claims())), "no key of the issuer").await;
    assert_eq!(world.endpoint.count("/jwks"), 2);
    world.keys(&[world.signer.jwk(), next.jwk()]);
    world.exchange(Some(&next.sign(&world.claims()))).await.expect("granted");
    world.exchange(Some(&next.sign(&world.claims()))).await.expect("granted");
    assert_eq!(world.endpoint.count("/jwks"), 3);
}

#[tokio::test]
async fn an_issuer_that_announces_its_algorithms_is_held_to_them() {
    let world = World::start(Algorithm::ES256).await;
    let mut document = metadata(&world.endpoint.base, &world.endpoint.base);
    document["id_token_signing_alg_values_supported"] = json!(["RS256", "none"]);
    world.endpoint.publish(OPENID, Answer::json(200, &document.to_string()));
    world.refused(Some(&world.signer.sign(&world.claims())), "does not announce").await;
}

#[tokio::test]
async fn without_published_keys_nothing_is_proved() {
    for without in ["jwks_uri", "issuer"] {
        let world = World::start(Algorithm::ES256).await;
        let mut document = metadata(&world.endpoint.base, &world.endpoint.base);
        document[without] = Value::Null;
        world.endpoint.publish(OPENID, Answer::json(200, &document.to_string()));
        world.endpoint.publish("/.well-known/oauth-authorization-server", Answer::json(404, ""));
        assert!(world.exchange(Some(&world.signer.sign(&world.claims()))).await.is_err(), "{without}");
    }
    let mut world = World::start(Algorithm::ES256).await;
    let token = format!("{}/token", world.endpoint.base).parse().expect("valid");
    world.reg = Registration { issuer: None, token_url: Some(token), ..world.reg };
    assert!(world.exchange(Some(&world.signer.sign(&world.claims()))).await.is_err(), "no issuer");
}
