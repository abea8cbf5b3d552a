//! Signed assertions, of a client for itself and for a grant, and exchanged tokens.

use super::*;
use crate::provider::{Exchange, JwtBearer, JwtKey};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:";

fn key() -> (JwtKey, DecodingKey) {
    let pair = KeyPair::generate().expect("generated");
    let key = JwtKey::parse(Secret::new(pair.serialize_pem()), None, Some("k1".into())).expect("a key");
    (key, DecodingKey::from_ec_der(pair.der_bytes()))
}

/// The claims of a JWT that this key signed.
fn claims(token: &str, key: &DecodingKey) -> Value {
    let mut validation = Validation::new(Algorithm::ES256);
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_aud) = (false, false);
    let data = jsonwebtoken::decode::<Value>(token, key, &validation).expect("signed by the key");
    assert_eq!(data.header.kid.as_deref(), Some("k1"));
    data.claims
}

#[tokio::test]
async fn a_client_proves_itself_by_a_fresh_assertion_each_time() {
    let (endpoint, client, mut reg) = set_up().await;
    let (private, public) = key();
    let url = |path: &str| Some(format!("{}{path}", endpoint.base).parse().expect("valid"));
    reg.client_auth = ClientAuth::PrivateKeyJwt;
    reg.client_key = Some(private);
    (reg.par_url, reg.device_authorization_url) = (url("/par"), url("/device"));
    client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    client.client_credentials(&reg).await.expect("granted");
    client.exchange_code(&reg, &Secret::new("C"), "http://localhost/cb", None, None, Values::default()).await.expect("granted");
    client.device_poll(&reg, &Secret::new("D"), Values::default()).await.expect("granted");
    client.revoke(&reg, &refresh_token(), "refresh_token", Values::default()).await.expect("revoked");
    // The endpoint's word for these is a grant, which is none; the requests are what is looked at.
    let request = AuthorizeRequest {
        redirect_uri: "http://localhost/cb",
        state: "S",
        scopes: &[],
        challenge: None,
        nonce: None,
        params: &[],
        values: Values::default(),
    };
    client.authorization_url(&reg, &request).await.expect_err("no request_uri");
    client.device_authorize(&reg, &[], Values::default()).await.expect_err("no code");
    let mut ids = std::collections::HashSet::new();
    let now = START.0 / 1000;
    for seen in endpoint.seen() {
        assert_eq!(seen.form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        assert_eq!((seen.form["client_id"].as_str(), seen.form.get("client_secret")), ("id", None), "{}", seen.target);
        assert!(!seen.headers.contains_key("authorization"));
        assert_eq!(seen.body.matches("client_id=").count(), 1, "{}", seen.body);
        let claims = claims(&seen.form["client_assertion"], &public);
        assert_eq!(
            (&claims["iss"], &claims["sub"], &claims["iat"], &claims["exp"]),
            (&json!("id"), &json!("id"), &json!(now), &json!(now + 60))
        );
        assert_eq!(claims["aud"], json!(format!("{}{}", endpoint.base, seen.target)));
        assert!(ids.insert(claims["jti"].as_str().expect("a jti").to_owned()));
    }
    assert_eq!(ids.len(), 8);
    reg.issuer = Some("https://issuer.test".into());
    client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    let last = endpoint.seen().pop().expect("a request");
    assert_eq!(claims(&last.form["client_assertion"], &public)["aud"], "https://issuer.test");
    reg.client_key = None;
    let error = client.refresh(&reg, &refresh_token(), Values::default()).await.expect_err("no key");
    assert_eq!((error.verdict, error.sent), (Verdict::Misconfigured, false));
}

#[tokio::test]
async fn an_assertion_becomes_a_token() {
    let (endpoint, client, mut reg) = set_up().await;
    let (private, public) = key();
    let mut bearer = JwtBearer {
        key: private,
        issuer: "robot@x.test".into(),
        subject: Some("{end_user}".into()),
        audience: None,
        claims: vec![("tenant".into(), "t1".into())],
    };
    let grant = client.jwt_bearer(&reg, &bearer, Some("megan@x.test")).await.expect("granted");
    assert_eq!(grant.refresh_token, None, "asked for anew instead");
    let seen = &endpoint.seen()[0];
    assert_eq!((&*seen.form["grant_type"], &*seen.form["scope"]), (&*format!("{GRANT}jwt-bearer"), "a b"));
    let told = claims(&seen.form["assertion"], &public);
    let now = START.0 / 1000;
    assert_eq!(
        (&told["iss"], &told["sub"], &told["tenant"], &told["aud"]),
        (&json!("robot@x.test"), &json!("megan@x.test"), &json!("t1"), &json!(format!("{}/token", endpoint.base)))
    );
    assert_eq!((&told["iat"], &told["exp"]), (&json!(now), &json!(now + 300)));
    let error = client.jwt_bearer(&reg, &bearer, None).await.expect_err("nobody to speak for");
    assert_eq!((error.verdict, error.sent), (Verdict::Misconfigured, false));
    // An app's own token, as a service account has it: no client, the scopes in the assertion.
    (bearer.subject, bearer.audience) = (None, Some("https://oauth2.example.com/token".into()));
    bearer.claims = vec![("scope".into(), "a b".into())];
    (reg.client_id, reg.client_secret, reg.client_auth) = ("".into(), None, ClientAuth::None);
    client.jwt_bearer(&reg, &bearer, None).await.expect("granted");
    let seen = &endpoint.seen()[1];
    assert!(!seen.form.contains_key("client_id") && !seen.form.contains_key("scope"), "{}", seen.body);
    let told = claims(&seen.form["assertion"], &public);
    assert_eq!((&told["aud"], &told["scope"], told.get("sub")), (&json!("https://oauth2.example.com/token"), &json!("a b"), None));
    endpoint.script([Answer::json(400, r#"{"error":"invalid_grant","error_description":"CANARY"}"#)]);
    let error = client.jwt_bearer(&reg, &bearer, None).await.expect_err("refused");
    assert_eq!(error.verdict, Verdict::GrantEnded);
    assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
}

#[tokio::test]
async fn a_token_is_exchanged_for_another() {
    let (endpoint, client, mut reg) = set_up().await;
    reg.resource = vec!["https://a.test/".into()];
    reg.token_params = Vec::new();
    let access = "urn:ietf:params:oauth:token-type:access_token";
    let mut exchange = Exchange {
        source: None,
        from: "google".into(),
        subject_token_type: access.into(),
        requested_token_type: None,
        audience: vec!["x".into(), "y".into()],
    };
    let subject = Secret::new("subject-token");
    for body in [
        format!(r#"{{"access_token":"A1","issued_token_type":"{access}","token_type":"Bearer","expires_in":60,"refresh_token":"R"}}"#),
        // Many servers leave `issued_token_type` out.
        r#"{"access_token":"A1","token_type":"Bearer","expires_in":60}"#.to_owned(),
    ] {
        endpoint.script([Answer::json(200, &body)]);
        let grant = client.token_exchange(&reg, &exchange, &subject).await.expect("granted");
        assert_eq!((grant.access_token.expose(), grant.refresh_token, grant.expires_in), ("A1", None, Some(Duration::from_secs(60))));
    }
    let seen = &endpoint.seen()[0];
    assert_eq!(
        (&*seen.form["grant_type"], &*seen.form["subject_token"], &*seen.form["subject_token_type"], &*seen.form["scope"]),
        (&*format!("{GRANT}token-exchange"), "subject-token", access, "a b")
    );
    assert!(seen.body.contains("audience=x&audience=y") && seen.body.contains("resource=https%3A%2F%2Fa.test%2F"), "{}", seen.body);
    assert!(!seen.form.contains_key("requested_token_type"));
    exchange.requested_token_type = Some("urn:ietf:params:oauth:token-type:jwt".into());
    endpoint.script([Answer::json(400, r#"{"error":"invalid_target","error_description":"CANARY"}"#)]);
    let error = client.token_exchange(&reg, &exchange, &subject).await.expect_err("refused");
    assert!(!format!("{error:?}").contains("CANARY") && !format!("{error:?}").contains("subject-token"), "{error:?}");
    assert_eq!(endpoint.seen()[2].form["requested_token_type"], "urn:ietf:params:oauth:token-type:jwt");
}
