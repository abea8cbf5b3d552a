//! An issuer alone as a definition: where its endpoints are found, when they are asked for, and what is refused.

use super::*;
use serde_json::{Value, json};

pub(super) const OPENID: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";

pub(super) fn metadata(issuer: &str, base: &str) -> Value {
    json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{base}/found/authorize"),
        "token_endpoint": format!("{base}/found/token"),
        "revocation_endpoint": format!("{base}/found/revoke"),
        "device_authorization_endpoint": format!("{base}/found/device"),
        "pushed_authorization_request_endpoint": format!("{base}/found/par"),
        "jwks_uri": format!("{base}/jwks"),
    })
}

/// A registration that says its issuer and no URL.
pub(super) fn issuer_alone(base: &str) -> Registration {
    let reg = registration(base);
    Registration { issuer: Some(base.into()), authorize_url: None, token_url: None, revoke_url: None, ..reg }
}

async fn discovered(document: impl Fn(&str) -> Value) -> (Endpoint, TokenClient, Registration, ManualClock) {
    let endpoint = Endpoint::start().await;
    endpoint.publish(OPENID, Answer::json(200, &document(&endpoint.base).to_string()));
    let clock = ManualClock::at(START);
    let (client, reg) = (token_client(&clock), issuer_alone(&endpoint.base));
    (endpoint, client, reg, clock)
}

#[tokio::test]
async fn an_issuer_alone_is_enough() {
    let (endpoint, client, reg, clock) = discovered(|base| metadata(base, base)).await;
    client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    client.exchange_code(&reg, &Secret::new("C"), "http://localhost/cb", None, None, Values::default()).await.expect("granted");
    client.clone().client_credentials(&reg).await.expect("granted");
    assert_eq!(client.revoke(&reg, &refresh_token(), "refresh_token", Values::default()).await.ok(), Some(Revoked::Yes));
    let counts = (endpoint.count("/found/token"), endpoint.count("/found/revoke"), endpoint.count(OPENID));
    assert_eq!(counts, (3, 1, 1), "clones share what was discovered");
    clock.advance(Duration::from_secs(24 * 3600 - 1));
    client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    assert_eq!(endpoint.count(OPENID), 1);
    clock.advance(Duration::from_secs(2));
    client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    assert_eq!(endpoint.count(OPENID), 2);
}

#[tokio::test]
async fn what_is_written_goes_before_what_is_discovered() {
    let (endpoint, client, reg, _) = discovered(|base| metadata(base, base)).await;
    let written = registration(&endpoint.base);
    let both = Registration { issuer: reg.issuer.clone(), ..written };
    client.refresh(&both, &refresh_token(), Values::default()).await.expect("granted");
    client.revoke(&both, &refresh_token(), "refresh_token", Values::default()).await.expect("revoked");
    assert_eq!((endpoint.count("/token"), endpoint.count("/revoke"), endpoint.count(OPENID)), (1, 1, 0), "nothing was asked for");
    let revoke = Registration { revoke_url: None, ..both };
    client.revoke(&revoke, &refresh_token(), "refresh_token", Values::default()).await.expect("revoked");
    assert_eq!((endpoint.count("/found/revoke"), endpoint.count(OPENID)), (1, 1));
}

#[tokio::test]
async fn an_issuer_that_publishes_nothing_is_taken_at_its_written_word() {
    let endpoint = Endpoint::start().await;
    endpoint.publish(OPENID, Answer::json(404, ""));
    endpoint.publish(OAUTH, Answer::json(404, ""));
    let client = token_client(&ManualClock::at(START));
    let reg = Registration { issuer: Some((*endpoint.base).into()), revoke_url: None, ..registration(&endpoint.base) };
    assert_eq!(client.revoke(&reg, &refresh_token(), "refresh_token", Values::default()).await.ok(), Some(Revoked::Unsupported));
    let error = client.refresh(&issuer_alone(&endpoint.base), &refresh_token(), Values::default()).await.expect_err("no endpoint");
    assert_eq!((error.verdict, error.sent), (Verdict::Misconfigured, false), "{error}");
}

#[tokio::test]
async fn the_oauth_form_is_tried_where_the_openid_one_is_not() {
    for path in ["", "/tenant", "/tenant/"] {
        let endpoint = Endpoint::start().await;
        let issuer = format!("{}{path}", endpoint.base);
        let trimmed = path.trim_end_matches('/');
        endpoint.publish(&format!("{trimmed}{OPENID}"), Answer::json(404, "<html>"));
        endpoint.publish(&format!("{OAUTH}{trimmed}"), Answer::json(200, &metadata(&issuer, &endpoint.base).to_string()));
        let client = token_client(&ManualClock::at(START));
        let reg = Registration { issuer: Some(issuer.into()), ..issuer_alone(&endpoint.base) };
        client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
        assert_eq!(endpoint.count("/found/token"), 1, "{path}");
    }
}

#[tokio::test]
async fn metadata_that_cannot_be_trusted_is_refused() {
    const CANARY: &str = "canary-s3cr3t";
    let with = |name: &str, value: Value| {
        let name = name.to_owned();
        move |base: &str| {
            let mut document = metadata(base, base);
            document[&*name] = value.clone();
            document
        }
    };
    type Document = Box<dyn Fn(&str) -> Value>;
    let cases: Vec<Document> = vec![
        Box::new(with("issuer", json!(format!("https://{CANARY}.test")))),
        Box::new(|base: &str| metadata(&format!("{base}/"), base)),
        Box::new(|base: &str| metadata(&base.replace("http", "HTTP"), base)),
        Box::new(with("issuer", json!(null))),
        Box::new(with("issuer", json!([1]))),
        Box::new(with("token_endpoint", json!(format!("http://{CANARY}.test/token")))),
        Box::new(with("token_endpoint", json!(format!("https://a.test/#{CANARY}")))),
        Box::new(with("authorization_endpoint", json!(format!("javascript:{CANARY}")))),
        Box::new(with("jwks_uri", json!("not a URL"))),
    ];
    for (index, document) in cases.into_iter().enumerate() {
        let (endpoint, client, reg, _) = discovered(document).await;
        endpoint.publish(OAUTH, Answer::json(404, ""));
        let error = client.refresh(&reg, &refresh_token(), Values::default()).await.expect_err("refused");
        assert_eq!((error.verdict, error.sent), (Verdict::Misconfigured, false), "{index}: {error}");
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
        assert_eq!(endpoint.count("/found/token"), 0, "{index}");
    }
}

#[tokio::test]
async fn a_failed_fetch_is_passing_and_not_repeated_at_once() {
    let (endpoint, client, reg, clock) = discovered(|base| metadata(base, base)).await;
    for broken in [Answer::json(503, "CANARY"), Answer::json(200, "<html>CANARY"), Answer::hang_up()] {
        let before = endpoint.count(OPENID);
        endpoint.publish(OPENID, broken);
        endpoint.publish(OAUTH, Answer::json(404, ""));
        for _ in 0..3 {
            let error = client.refresh(&reg, &refresh_token(), Values::default()).await.expect_err("no metadata");
            assert_eq!((error.verdict, error.sent), (Verdict::Transient { retry_after: None }, false), "{error}");
            assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
        }
        assert_eq!(endpoint.count(OPENID), before + 1);
        clock.advance(Duration::from_secs(11));
    }
    endpoint.publish(OPENID, Answer::json(200, &metadata(&endpoint.base, &endpoint.base).to_string()));
    client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    // Old metadata stands in for new that cannot be had.
    endpoint.publish(OPENID, Answer::json(503, ""));
    clock.advance(Duration::from_secs(25 * 3600));
    let before = endpoint.count(OPENID);
    for _ in 0..3 {
        client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    }
    assert_eq!(endpoint.count(OPENID), before + 1);
}

#[tokio::test]
async fn a_crowd_asks_an_issuer_once() {
    let (endpoint, client, reg, _) = discovered(|base| metadata(base, base)).await;
    endpoint.hold();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (client, reg) = (client.clone(), reg.clone());
            tokio::spawn(async move { client.refresh(&reg, &refresh_token(), Values::default()).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    endpoint.release();
    for call in calls {
        call.await.expect("joined").expect("granted");
    }
    assert_eq!((endpoint.count(OPENID), endpoint.count("/found/token")), (1, 20));
}
