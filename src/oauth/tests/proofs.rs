//! What calls are proved by besides secrets: RFC 9449, RFC 8705 §5, and the secret that a client makes itself.

use super::*;
use crate::attach::dpop;
use crate::oauth::new_key;
use crate::provider::{JwtKey, Proofs, SecretJwt};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

const BOUND: &str = r#"{"access_token":"A","token_type":"DPoP","expires_in":60,"refresh_token":"R"}"#;

fn key() -> Secret {
    let reg = bound_registration("http://127.0.0.1:1");
    new_key(&reg).expect("a key")
}

fn bound_registration(base: &str) -> Registration {
    Registration { proofs: Proofs { dpop: true, ..Proofs::default() }, ..registration(base) }
}

fn claims(seen: &Seen) -> (Value, Value) {
    let proofs: Vec<_> = seen.headers.get_all("dpop").iter().collect();
    assert_eq!(proofs.len(), 1, "one proof (RFC 9449 §4.1)");
    dpop::tests::verified(proofs[0].to_str().expect("ASCII"))
}

fn nonce_wanted(nonce: &'static str) -> Answer {
    Answer::json(400, r#"{"error":"use_dpop_nonce"}"#).with("dpop-nonce", nonce)
}

fn ec_key() -> JwtKey {
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("generated").serialize_pem();
    JwtKey::parse(Secret::new(pem), None, Some("K1".into())).expect("a key")
}

#[tokio::test]
async fn p30_token_calls_carry_proofs_and_are_asked_once_more_with_the_servers_nonce() {
    let (endpoint, client, _) = set_up().await;
    let reg = bound_registration(&endpoint.base);
    let key = key();
    let holding = client.holding(&reg, Some(&key)).expect("a key");
    endpoint.script([nonce_wanted("n1"), Answer::json(200, BOUND).with("dpop-nonce", "n2")]);
    let grant = holding.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    assert_eq!((grant.key.as_ref(), &*grant.token_type), (Some(&key), "DPoP"));
    endpoint.script([Answer::json(200, BOUND)]);
    // The newest nonce is the server's, not the connection's: another's first call has it.
    let other = client.holding(&reg, None).expect("a key");
    let grant = other.client_credentials(&reg).await.expect("granted");
    assert!(grant.key.is_some() && grant.key != Some(key), "made, and told");
    let seen = endpoint.seen();
    let [(first_key, first), (second_key, second), (third_key, third)] = [0, 1, 2].map(|nth| claims(&seen[nth]));
    assert_eq!(first["htu"], format!("{}/token", endpoint.base));
    assert_eq!((&first["htm"], &first["iat"]), (&"POST".into(), &Value::from(START.0 / 1000)));
    assert!(first.get("nonce").is_none() && first.get("ath").is_none());
    assert_eq!((&second["nonce"], &third["nonce"]), (&"n1".into(), &"n2".into()));
    assert!(first["jti"] != second["jti"] && first_key == second_key && second_key != third_key);
    assert_eq!(seen[0].form, seen[1].form);
}

#[tokio::test]
async fn p30_a_second_wish_for_a_nonce_is_a_failure() {
    let (endpoint, client, _) = set_up().await;
    let reg = bound_registration(&endpoint.base);
    let holding = client.holding(&reg, Some(&key())).expect("a key");
    endpoint.script([nonce_wanted("n1"), nonce_wanted("n2"), Answer::json(200, BOUND)]);
    let error = holding.refresh(&reg, &refresh_token(), Values::default()).await.expect_err("refused");
    assert!(matches!(error.verdict, Verdict::Transient { .. }), "it says nothing against the grant: {error}");
    assert_eq!(endpoint.count("/token"), 2);
    holding.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    assert_eq!(claims(&endpoint.seen()[2]).1["nonce"], "n2");
    // Without a nonce there is nothing to try again with; a nonce beside another error is no wish.
    for answer in
        [Answer::json(400, r#"{"error":"use_dpop_nonce"}"#), Answer::json(400, r#"{"error":"invalid_grant"}"#).with("dpop-nonce", "n3")]
    {
        let before = endpoint.count("/token");
        endpoint.script([answer]);
        holding.refresh(&reg, &refresh_token(), Values::default()).await.expect_err("refused");
        assert_eq!(endpoint.count("/token"), before + 1);
    }
}

#[tokio::test]
async fn p30_the_code_is_bound_to_the_key_from_the_authorization_request_on() {
    let (endpoint, client, _) = set_up().await;
    let mut reg = bound_registration(&endpoint.base);
    let holding = client.holding(&reg, Some(&key())).expect("a key");
    let request = AuthorizeRequest {
        redirect_uri: "http://localhost/cb",
        state: "s",
        scopes: &[],
        challenge: None,
        nonce: None,
        params: &[],
        values: Values::default(),
    };
    let url = holding.authorization_url(&reg, &request).await.expect("a URL");
    let jkt = url.query_pairs().find(|(name, _)| name == "dpop_jkt").expect("there").1.into_owned();
    assert_eq!(Some(&*jkt), holding.thumbprint());
    reg.par_url = Some(format!("{}/par", endpoint.base).parse().expect("a URL"));
    endpoint.script([Answer::json(201, r#"{"request_uri":"urn:x","expires_in":60}"#)]);
    let url = holding.authorization_url(&reg, &request).await.expect("a URL");
    assert!(!url.as_str().contains("dpop_jkt"));
    let pushed = &endpoint.seen()[0];
    assert_eq!((&pushed.form["dpop_jkt"], &claims(pushed).1["htu"]), (&jkt, &format!("{}/par", endpoint.base).into()));
}

#[tokio::test]
async fn p31_a_grant_that_is_not_bound_as_the_registration_says_is_not_taken() {
    let (endpoint, client, plain) = set_up().await;
    let reg = bound_registration(&endpoint.base);
    let holding = client.holding(&reg, Some(&key())).expect("a key");
    let bearer = r#"{"access_token":"A","token_type":"Bearer","refresh_token":"R"}"#;
    endpoint.script([Answer::json(200, bearer), Answer::json(200, ""), Answer::json(200, bearer), Answer::json(200, bearer)]);
    let code = Secret::new("C");
    let error = holding.exchange_code(&reg, &code, "http://localhost/cb", None, None, Values::default()).await.expect_err("refused");
    assert_eq!(error.error.verdict, Verdict::Misconfigured);
    assert_eq!(endpoint.seen()[1].form["token"], "R", "what is not taken is given back");
    holding.client_credentials(&reg).await.expect_err("refused");
    holding.device_poll(&reg, &code, Values::default()).await.expect_err("refused");
    // Of a refresh it is kept, for the refresh token before it is spent; no call carries it.
    endpoint.script([Answer::json(200, bearer)]);
    let grant = holding.refresh(&reg, &refresh_token(), Values::default()).await.expect("kept");
    assert_eq!((&*grant.token_type, grant.key.is_some()), ("Bearer", true));
    // And one that is bound though no key was shown.
    endpoint.script([Answer::json(200, BOUND), Answer::json(200, BOUND)]);
    let error = client.client_credentials(&plain).await.expect_err("refused");
    assert!(error.to_string().contains("needs `dpop: true`"), "{error}");
    client.refresh(&plain, &refresh_token(), Values::default()).await.expect("kept");
    assert!(!endpoint.seen().last().expect("seen").headers.contains_key("dpop"));
}

#[tokio::test]
async fn p27_an_assertions_id_never_repeats_not_even_for_a_nonce() {
    let (endpoint, client, _) = set_up().await;
    let mut reg = bound_registration(&endpoint.base);
    (reg.client_auth, reg.client_key) = (ClientAuth::PrivateKeyJwt, Some(ec_key()));
    let holding = client.holding(&reg, Some(&key())).expect("a key");
    endpoint.script([nonce_wanted("n1"), Answer::json(200, BOUND)]);
    holding.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    let id = |seen: &Seen| payload(&seen.form["client_assertion"])["jti"].clone();
    let seen = endpoint.seen();
    assert_ne!(id(&seen[0]), id(&seen[1]));
    assert_eq!(seen[0].form["refresh_token"], seen[1].form["refresh_token"]);
}

fn payload(jwt: &str) -> Value {
    let claims = jwt.split('.').nth(1).expect("claims");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64url")).expect("JSON")
}

/// Q08's own wire, with a key of ours.
#[tokio::test]
async fn q08_the_client_secret_is_a_jwt_of_the_clients_own() {
    let (endpoint, client, mut reg) = set_up().await;
    (reg.client_auth, reg.client_key, reg.client_secret) = (ClientAuth::SecretJwt, Some(ec_key()), None);
    let secret_jwt = SecretJwt { issuer: "TEAM".into(), audience: "https://appleid.apple.com".into(), ttl: Duration::from_secs(300) };
    reg.proofs.secret_jwt = Some(secret_jwt);
    reg.device_authorization_url = Some(format!("{}/device", endpoint.base).parse().expect("a URL"));
    let code = Secret::new("C1");
    client.exchange_code(&reg, &code, "https://app.test/cb", None, None, Values::default()).await.expect("granted");
    client.revoke(&reg, &Secret::new("R1"), "refresh_token", Values::default()).await.expect("revoked");
    client.device_authorize(&reg, &[], Values::default()).await.expect_err("no device code in the answer");
    for seen in endpoint.seen() {
        assert_eq!((&*seen.form["client_id"], seen.headers.contains_key("authorization")), ("id", false));
        let secret = &seen.form["client_secret"];
        let header = jsonwebtoken::decode_header(secret).expect("a JWT");
        assert_eq!((header.alg, header.kid.as_deref()), (jsonwebtoken::Algorithm::ES256, Some("K1")));
        let claims = payload(secret);
        let now = START.0 / 1000;
        let expected =
            serde_json::json!({"iss": "TEAM", "sub": "id", "aud": "https://appleid.apple.com", "iat": now - 30, "exp": now + 300});
        assert_eq!(claims, expected);
    }
    assert_eq!(endpoint.seen().len(), 3);
}

#[tokio::test]
async fn p29_a_client_with_a_certificate_calls_the_aliases() {
    let (endpoint, client, mut reg) = set_up().await;
    let made = rcgen::generate_simple_self_signed(vec!["client.test".to_owned()]).expect("generated");
    let identity = crate::upstream::TlsIdentity::parse(&made.cert.pem(), &made.signing_key.serialize_pem()).expect("an identity");
    (reg.token_url, reg.revoke_url, reg.device_authorization_url, reg.authorize_url) = (None, None, None, None);
    reg.issuer = Some(endpoint.base.as_str().into());
    let base = &endpoint.base;
    let metadata = serde_json::json!({
        "issuer": base, "authorization_endpoint": format!("{base}/authorize"), "token_endpoint": format!("{base}/token"),
        "revocation_endpoint": format!("{base}/revoke"),
        "mtls_endpoint_aliases": {"token_endpoint": format!("{base}/mtls/token")},
    });
    endpoint.publish("/.well-known/openid-configuration", Answer::json(200, &metadata.to_string()));
    client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    (reg.client_auth, reg.client_secret, reg.proofs.identity) = (ClientAuth::Mtls, None, Some(Arc::new(identity)));
    client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    client.revoke(&reg, &refresh_token(), "refresh_token", Values::default()).await.expect("revoked");
    let calls: Vec<_> = endpoint.seen().into_iter().filter(|seen| !seen.target.starts_with("/.well")).collect();
    let targets: Vec<_> = calls.iter().map(|seen| &*seen.target).collect();
    assert_eq!(targets, ["/token", "/mtls/token", "/revoke"]);
    assert_eq!(calls[1].form["client_id"], "id");
    assert!(!calls[1].form.contains_key("client_secret") && !calls[1].headers.contains_key("authorization"));
}
