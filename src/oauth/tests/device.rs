//! The device grant: what the user is shown, and what each poll says.

use super::*;

async fn set_up_device() -> (Endpoint, TokenClient, Registration) {
    let (endpoint, client, reg) = set_up().await;
    let url = format!("{}/device", endpoint.base).parse().expect("valid");
    (endpoint, client, Registration { device_authorization_url: Some(url), ..reg })
}

#[tokio::test]
async fn a_code_to_type_elsewhere() {
    let (endpoint, client, reg) = set_up_device().await;
    // RFC 8628 §3.2, its example.
    let example = r#"{"device_code":"GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS","user_code":"WDJB-MJHT","verification_uri":"https://example.com/device",
        "verification_uri_complete":"https://example.com/device?user_code=WDJB-MJHT","expires_in":1800,"interval":7}"#;
    let google = r#"{"device_code":"D","user_code":"U","verification_url":"https://www.google.com/device","expires_in":"900"}"#;
    let evil = r#"{"device_code":"D","user_code":"U","verification_uri":"https://a.test/","verification_uri_complete":"javascript:x","interval":0}"#;
    endpoint.script([example, google, evil].map(|body| Answer::json(200, body)));
    let scopes = ["a".to_owned(), "b".to_owned()];
    let code = client.device_authorize(&reg, &scopes, Values::default()).await.expect("a code");
    let seconds = Duration::from_secs;
    assert_eq!(
        (&*code.user_code, &*code.verification_uri, code.expires_in, code.interval),
        ("WDJB-MJHT", "https://example.com/device", seconds(1800), seconds(7))
    );
    assert_eq!(code.verification_uri_complete.as_deref(), Some("https://example.com/device?user_code=WDJB-MJHT"));
    let code = client.device_authorize(&reg, &scopes, Values::default()).await.expect("a code");
    assert_eq!((&*code.verification_uri, code.expires_in, code.interval), ("https://www.google.com/device", seconds(900), seconds(5)));
    let code = client.device_authorize(&reg, &scopes, Values::default()).await.expect("a code");
    assert_eq!((code.verification_uri_complete, code.interval), (None, seconds(5)), "no link that runs");
    let seen = &endpoint.seen()[0];
    assert_eq!(
        (&*seen.target, &*seen.form["client_id"], &*seen.form["scope"], &*seen.form["client_secret"]),
        ("/device", "id", "a b", "s3")
    );
}

#[tokio::test]
async fn an_endpoint_without_a_code_is_refused() {
    let (endpoint, client, reg) = set_up_device().await;
    for (answer, verdict) in [
        (Answer::json(400, r#"{"error":"invalid_client","error_description":"CANARY"}"#), Verdict::Misconfigured),
        (Answer::json(200, r#"{"device_code":"CANARY","user_code":"U"}"#), Verdict::Transient { retry_after: None }),
        (
            Answer::json(200, r#"{"device_code":"CANARY","user_code":"U","verification_uri":"javascript:x"}"#),
            Verdict::Transient { retry_after: None },
        ),
        (Answer::json(200, r#"{"user_code":"CANARY","verification_uri":"https://a.test"}"#), Verdict::Transient { retry_after: None }),
        (Answer::json(404, "<html>CANARY"), Verdict::Transient { retry_after: None }),
    ] {
        endpoint.script([answer]);
        let error = client.device_authorize(&reg, &[], Values::default()).await.expect_err("refused");
        assert_eq!(error.verdict, verdict, "{error}");
        assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
    }
    let none = Registration { device_authorization_url: None, ..reg };
    let error = client.device_authorize(&none, &[], Values::default()).await.expect_err("no endpoint");
    assert_eq!((error.verdict, error.sent), (Verdict::Misconfigured, false));
}

#[tokio::test]
async fn a_poll_says_what_became_of_it() {
    let (endpoint, client, reg) = set_up_device().await;
    let code = Secret::new("D/1");
    for (status, error, expected) in [
        (400, "authorization_pending", Some(DevicePoll::Pending)),
        (428, "authorization_pending", Some(DevicePoll::Pending)),
        (400, "slow_down", Some(DevicePoll::SlowDown)),
        (429, "slow_down", Some(DevicePoll::SlowDown)),
        (400, "access_denied", Some(DevicePoll::Denied)),
        (400, "authorization_declined", Some(DevicePoll::Denied)),
        (400, "expired_token", Some(DevicePoll::Expired)),
        (400, "invalid_grant", None),
        (503, "their_own", None),
    ] {
        endpoint.script([Answer::json(status, &format!(r#"{{"error":"{error}","error_description":"CANARY"}}"#))]);
        assert_eq!(client.device_poll(&reg, &code, Values::default()).await.ok(), expected, "{status} {error}");
    }
    let Ok(DevicePoll::Granted(grant)) = client.device_poll(&reg, &code, Values::default()).await else { panic!("granted") };
    assert!(grant.refresh_token.is_some());
    let seen = endpoint.seen();
    let form = &seen.last().expect("a poll").form;
    assert_eq!(
        (&*form["grant_type"], &*form["device_code"], &*form["client_id"], &*form["audience"]),
        ("urn:ietf:params:oauth:grant-type:device_code", "D/1", "id", "x y")
    );
}
