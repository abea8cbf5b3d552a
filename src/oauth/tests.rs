//! A scripted token endpoint on loopback, for the tests of this room and the keeper's; and this room's own tests against it.

mod authorize;
mod device;
mod discovery;
mod id_token;
mod mint;
mod proofs;

use super::*;
use crate::attach::Scheme;
use crate::base::clock::{Clock, ManualClock, UnixMillis};
use crate::base::secret::Secret;
use crate::provider::{Asks, ClientAuth, Lifetime, Pkce, RefreshPolicy, Registration, Verified};
use crate::upstream::{Fetch, TlsRoots};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// One request as the endpoint saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) form: HashMap<String, String>,
    pub(crate) body: String,
}

/// One scripted answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
    /// Hang up without an answer.
    pub(crate) hang_up: bool,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Answer { status, headers: vec![("content-type", "application/json".into())], body: body.into(), hang_up: false }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn hang_up() -> Self {
        Answer { hang_up: true, ..Answer::json(200, "") }
    }
}

/// The endpoint: answers from the script in order, and once that is spent with a rotated grant (`A1`/`R1`, `A2`/`R2`, …) of an hour.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) base: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Mutex<VecDeque<Answer>>>,
    pages: Arc<Mutex<HashMap<String, Answer>>>,
    /// A permit is taken for each answer; a test that holds them holds the answers.
    pub(crate) gate: Arc<Semaphore>,
}

impl Endpoint {
    pub(crate) async fn start() -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let endpoint = Endpoint {
            base: format!("http://{}", listener.local_addr().expect("address")),
            seen: Arc::default(),
            script: Arc::default(),
            pages: Arc::default(),
            gate: Arc::new(Semaphore::new(1_000_000)),
        };
        let server = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request| server.clone().answer(request));
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), answer).await;
                });
            }
        });
        endpoint
    }

    pub(crate) fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().expect("unpoisoned").extend(answers);
    }

    /// What is answered at this target each time, before the script.
    pub(crate) fn publish(&self, target: &str, answer: Answer) {
        self.pages.lock().expect("unpoisoned").insert(target.into(), answer);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("unpoisoned").clone()
    }

    pub(crate) fn count(&self, target: &str) -> usize {
        self.seen().iter().filter(|seen| seen.target == target).count()
    }

    /// From now on requests are taken but not answered, until [`Endpoint::release`].
    pub(crate) fn hold(&self) {
        self.gate.forget_permits(1_000_000);
    }

    pub(crate) fn release(&self) {
        self.gate.add_permits(1_000_000);
    }

    async fn answer(self, request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let target = head.uri.to_string();
        let seen = Seen {
            target: target.clone(),
            headers: head.headers,
            form: form_urlencoded::parse(&body).into_owned().collect(),
            body: String::from_utf8_lossy(&body).into_owned(),
        };
        let nth = {
            let mut all = self.seen.lock().expect("unpoisoned");
            all.push(seen);
            all.iter().filter(|seen| seen.target == target).count()
        };
        let _permit = self.gate.acquire().await;
        let page = self.pages.lock().expect("unpoisoned").get(&target).cloned();
        let scripted = page.or_else(|| self.script.lock().expect("unpoisoned").pop_front());
        let answer = scripted.unwrap_or_else(|| {
            Answer::json(200, &format!(r#"{{"access_token":"A{nth}","token_type":"Bearer","expires_in":3600,"refresh_token":"R{nth}"}}"#))
        });
        if answer.hang_up {
            return Err(std::io::Error::other("hang up"));
        }
        let response =
            answer.headers.iter().fold(Response::builder().status(answer.status), |built, (name, value)| built.header(*name, value));
        Ok(response.body(Full::new(Bytes::from(answer.body))).expect("valid"))
    }
}

/// A registration of a provider at `base`.
pub(crate) fn registration(base: &str) -> Registration {
    let url = |path: &str| Some(format!("{base}{path}").parse().expect("valid"));
    Registration {
        id: "acme".into(),
        definition: "acme".into(),
        display_name: "Acme".into(),
        category: "test".into(),
        off: None,
        client_id: "id".into(),
        client_secret: Some(Secret::new("s3")),
        client_key: None,
        asks: Asks::Consent,
        mint: None,
        resource: Vec::new(),
        authorize_url: url("/authorize"),
        token_url: url("/token"),
        revoke_url: url("/revoke"),
        device_authorization_url: None,
        par_url: None,
        issuer: None,
        pkce: Pkce::S256,
        client_auth: ClientAuth::Body,
        scopes: vec!["a".into(), "b".into()],
        scope_separator: " ".into(),
        authorize_params: Vec::new(),
        token_params: vec![("audience".into(), "x y".into())],
        attach: Scheme::Bearer,
        token_hosts: Vec::new(),
        token_hosts_per_connection: Vec::new(),
        token_hosts_denied: Vec::new(),
        default_expires_in: None,
        refresh: RefreshPolicy::default(),
        keep_alive: None,
        verified: Verified::Full,
        proofs: Default::default(),
        oauth1: None,
        dialect: Default::default(),
    }
}

pub(crate) fn token_client(clock: &ManualClock) -> TokenClient {
    let fetch = Fetch::new(TlsRoots::with_roots(Vec::new())).with_timeout(Duration::from_secs(10));
    TokenClient::new(fetch, Arc::new(clock.clone()) as Arc<dyn Clock>)
}

pub(crate) const START: UnixMillis = UnixMillis(1_767_225_600_000);

async fn set_up() -> (Endpoint, TokenClient, Registration) {
    let endpoint = Endpoint::start().await;
    let reg = registration(&endpoint.base);
    (endpoint, token_client(&ManualClock::at(START)), reg)
}

fn refresh_token() -> Secret {
    Secret::new("R&0 +")
}

#[tokio::test]
async fn a_refresh_says_what_the_rfc_wants() {
    let (endpoint, client, reg) = set_up().await;
    let grant = client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    assert_eq!(grant.access_token.expose(), "A1");
    assert_eq!(grant.refresh_token, Some(Secret::new("R1")));
    assert_eq!((&*grant.token_type, grant.expires_in, grant.scopes), ("Bearer", Some(Duration::from_secs(3600)), None));
    let seen = &endpoint.seen()[0];
    assert_eq!(seen.target, "/token");
    assert_eq!(seen.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(seen.headers["accept"], "application/json");
    assert!(!seen.headers.contains_key("authorization"));
    let expected =
        [("grant_type", "refresh_token"), ("refresh_token", "R&0 +"), ("client_id", "id"), ("client_secret", "s3"), ("audience", "x y")];
    assert_eq!(seen.form, expected.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
}

#[tokio::test]
async fn client_authentication_in_each_mode() {
    use base64::Engine;
    let (endpoint, client, mut reg) = set_up().await;
    reg.client_id = "i:d".into();
    reg.client_secret = Some(Secret::new("a:b%+ /é"));
    for mode in [ClientAuth::Basic, ClientAuth::Body, ClientAuth::None] {
        reg.client_auth = mode;
        client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    }
    reg.client_auth = ClientAuth::Basic;
    reg.client_secret = None;
    client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted");
    let seen = endpoint.seen();
    // RFC 6749 §2.3.1: form-encoded before base64; never in both places.
    let basic = |seen: &Seen| {
        let text = seen.headers["authorization"].to_str().expect("ascii").strip_prefix("Basic ").expect("basic").to_owned();
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).expect("base64")).expect("utf-8")
    };
    assert_eq!(basic(&seen[0]), "i%3Ad:a%3Ab%25%2B+%2F%C3%A9");
    assert!(!seen[0].form.contains_key("client_secret") && !seen[0].form.contains_key("client_id"));
    assert_eq!((&*seen[1].form["client_id"], &*seen[1].form["client_secret"]), ("i:d", "a:b%+ /é"));
    assert_eq!(seen[2].form["client_id"], "i:d");
    assert!(!seen[2].form.contains_key("client_secret"));
    assert!(seen[1..3].iter().all(|seen| !seen.headers.contains_key("authorization")));
    assert_eq!(basic(&seen[3]), "i%3Ad:");
}

#[tokio::test]
async fn a_code_is_exchanged_with_its_exact_redirect_uri() {
    let (endpoint, client, reg) = set_up().await;
    let redirect = "http://localhost:7071/oauth/callback/acme?x=1";
    client
        .exchange_code(&reg, &Secret::new("C/1"), redirect, Some(&Secret::new("v".repeat(43))), None, Values::default())
        .await
        .expect("granted");
    let form = &endpoint.seen()[0].form;
    assert_eq!((&*form["grant_type"], &*form["code"], &*form["redirect_uri"]), ("authorization_code", "C/1", redirect));
    assert_eq!(form["code_verifier"], "v".repeat(43));
    // Spent, whatever happens: not sent again.
    endpoint.script([Answer::json(503, "")]);
    client.exchange_code(&reg, &Secret::new("C2"), redirect, None, None, Values::default()).await.expect_err("failed");
    assert_eq!(endpoint.count("/token"), 2);
}

#[tokio::test]
async fn the_apps_own_token_has_no_refresh_token() {
    let (endpoint, client, reg) = set_up().await;
    assert_eq!(client.client_credentials(&reg).await.expect("granted").refresh_token, None);
    let form = &endpoint.seen()[0].form;
    assert_eq!((&*form["grant_type"], &*form["scope"]), ("client_credentials", "a b"));
}

#[tokio::test]
async fn a_life_that_is_not_told_is_the_definitions() {
    let (endpoint, client, mut reg) = set_up().await;
    let half = Duration::from_secs(1800);
    for (default, expected) in
        [(None, Some(Duration::from_secs(3600))), (Some(Lifetime::For(half)), Some(half)), (Some(Lifetime::Never), None)]
    {
        reg.default_expires_in = default;
        for body in [r#"{"access_token":"A"}"#, r#"{"access_token":"A","expires_in":0}"#] {
            endpoint.script([Answer::json(200, body)]);
            assert_eq!(client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted").expires_in, expected);
        }
    }
}

/// A bounded time and memory, the right outcome, and not a word of the answer in the error. Fails without the lenient reader before the crate's parser,
/// whose error holds the raw body.
#[tokio::test]
async fn threat_14_token_endpoint_answers_of_every_kind() {
    const CANARY: &str = "CANARY-s3cr3t";
    let (endpoint, client, reg) = set_up().await;
    let later = |seconds: Option<u64>| Verdict::Transient { retry_after: seconds.map(Duration::from_secs) };
    let refused = |code: &str| format!(r#"{{"error":"{code}","error_description":"{CANARY}","refresh_token":"{CANARY}"}}"#);
    let html = format!("<html>{CANARY}</html>");
    let cut = format!(r#"{{"access_token":"{CANARY}","#);
    let wrong = format!(r#"{{"access_token":{{"x":"{CANARY}"}}}}"#);
    let hostile = format!(r#"{{"access_token":"{CANARY}\r\nx"}}"#);
    let cases: Vec<(Answer, Verdict)> = vec![
        (Answer::json(400, &refused("invalid_grant")), Verdict::GrantEnded),
        (Answer::json(200, &refused("bad_refresh_token")), Verdict::GrantEnded),
        (Answer::json(401, &refused("invalid_client")), Verdict::Misconfigured),
        (Answer::json(400, &refused("unauthorized_client")), Verdict::Misconfigured),
        (Answer::json(400, &refused(CANARY)), later(None)),
        (Answer::json(500, &refused("invalid_grant")), later(None)),
        (Answer::json(503, &html).with("retry-after", "7"), later(Some(7))),
        (Answer::json(429, "").with("retry-after", "Thu, 01 Jan 2026 00:00:09 GMT"), later(Some(9))),
        (Answer::json(429, "").with("retry-after", "999999999"), later(Some(3600))),
        (Answer::json(429, "").with("retry-after", "-4 bananas"), later(None)),
        (Answer::json(200, &html), later(None)),
        (Answer::json(200, &cut), later(None)),
        (Answer::json(200, &wrong), later(None)),
        (Answer::json(200, &hostile), later(None)),
        (Answer::json(200, ""), later(None)),
        (Answer::json(204, ""), later(None)),
        (Answer::json(307, "").with("location", "http://127.0.0.1:1/"), later(None)),
        (Answer::json(200, &format!("{{\"access_token\":\"A\",\"x\":\"{}\"}}", CANARY.repeat(800_000))), later(None)),
        (Answer::hang_up(), later(None)),
    ];
    for (answer, verdict) in cases {
        let shown: String = format!("{answer:?}").chars().take(120).collect();
        endpoint.script([answer]);
        let error = client.refresh(&reg, &refresh_token(), Values::default()).await.expect_err(&shown);
        assert_eq!(error.verdict, verdict, "{shown}: {error}");
        assert!(error.sent, "{shown}");
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("s3"), "{error:?}");
    }
    for (body, status) in [(r#"{"access_token":"A9"}"#, 201), ("access_token=A9&token_type=bearer", 200)] {
        endpoint.script([Answer::json(status, body)]);
        assert_eq!(client.refresh(&reg, &refresh_token(), Values::default()).await.expect("granted").access_token.expose(), "A9");
    }
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_called_was_sent_nothing() {
    let client = token_client(&ManualClock::at(START));
    let mut reg = registration("http://127.0.0.1:1");
    let error = client.refresh(&reg, &refresh_token(), Values::default()).await.expect_err("refused");
    assert_eq!((error.verdict, error.sent), (Verdict::Transient { retry_after: None }, false));
    for url in [None, Some("http://example.com/token".parse().expect("valid"))] {
        reg.token_url = url;
        let error = client.refresh(&reg, &refresh_token(), Values::default()).await.expect_err("refused");
        assert_eq!((error.verdict, error.sent), (Verdict::Misconfigured, false), "{error}");
    }
}

#[tokio::test]
async fn revocation_says_whether_it_was_done() {
    let (endpoint, client, mut reg) = set_up().await;
    let token = Secret::new("R1");
    for (answer, expected) in [
        (Answer::json(200, ""), Some(Revoked::Yes)),
        (Answer::json(200, "<html>"), Some(Revoked::Yes)),
        (Answer::json(200, r#"{"ok":true,"revoked":true}"#), Some(Revoked::Yes)),
        (Answer::json(200, r#"{"ok":false}"#), None),
        (Answer::json(200, r#"{"ok":false,"error":"not_authed"}"#), None),
        (Answer::json(200, r#"{"ok":false,"error":"token_revoked"}"#), Some(Revoked::Yes)),
        (Answer::json(200, r#"{"error":"invalid_token"}"#), Some(Revoked::Yes)),
        (Answer::json(400, r#"{"error":"unsupported_token_type"}"#), Some(Revoked::Unsupported)),
        (Answer::json(400, r#"{"error":"invalid_token"}"#), Some(Revoked::Yes)),
        (Answer::json(401, r#"{"error":"invalid_client"}"#), None),
        (Answer::json(503, "").with("retry-after", "3"), None),
    ] {
        let shown = format!("{answer:?}");
        endpoint.script([answer]);
        assert_eq!(client.revoke(&reg, &token, "refresh_token", Values::default()).await.ok(), expected, "{shown}");
    }
    let seen = &endpoint.seen()[0];
    assert_eq!(seen.target, "/revoke");
    assert_eq!((&*seen.form["token"], &*seen.form["token_type_hint"], &*seen.form["client_id"]), ("R1", "refresh_token", "id"));
    assert!(!seen.body.contains("localhost"));
    reg.revoke_url = None;
    assert_eq!(client.revoke(&reg, &token, "refresh_token", Values::default()).await.ok(), Some(Revoked::Unsupported));
}
