//! The sandbox as its users see it: over real sockets, with a clock that the tests move.

mod api;
mod oauth;

use super::*;
use crate::base::clock::ManualClock;
use crate::base::ids::random_token;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::stream;
use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HOST, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::error::Error;
use tokio::net::TcpStream;
use url::Url;

const MEGAN: &str = "megan@personalemail.com";
const REDIRECT: &str = "http://127.0.0.1:7071/oauth/callback/sandbox";
const ID: &str = Settings::DEV_CLIENT_ID;
const SECRET: &str = Settings::DEV_CLIENT_SECRET;

struct World {
    sandbox: Sandbox,
    clock: ManualClock,
}

struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    fn error(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["error"].as_str().unwrap_or_default().to_owned())
    }
}

impl World {
    async fn new(change: impl FnOnce(&mut Settings)) -> World {
        let clock = ManualClock::at(UnixMillis(1_800_000_000_000));
        let mut settings = Settings { bind: ([127, 0, 0, 1], 0).into(), ..Settings::default() };
        change(&mut settings);
        let sandbox = Sandbox::start(settings, Arc::new(clock.clone())).await.expect("started");
        World { sandbox, clock }
    }

    async fn send<B>(&self, request: Request<B>) -> Result<Got, hyper::Error>
    where
        B: Body<Data: Send> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let stream = TcpStream::connect(self.sandbox.addr).await.expect("connected");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Got { status: parts.status, headers: parts.headers, body })
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(path).header(HOST, self.sandbox.addr.to_string())
    }

    async fn get(&self, path: &str) -> Got {
        self.send(self.request("GET", path).body(Full::<Bytes>::default()).expect("a request")).await.expect("an answer")
    }

    async fn api(&self, method: &str, path: &str, token: &str, headers: &[(&str, &str)]) -> Got {
        let mut request = self.request(method, path).header(AUTHORIZATION, format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::<Bytes>::default()).expect("a request")).await.expect("an answer")
    }

    async fn form(&self, path: &str, authorization: Option<String>, pairs: &[(&str, &str)]) -> Got {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let mut request = self.request("POST", path).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        self.send(request.body(Full::new(Bytes::from(body))).expect("a request")).await.expect("an answer")
    }

    async fn control(&self, path: &str, value: Value) -> Got {
        let request = self.request("POST", path).header(CONTENT_TYPE, "application/json");
        self.send(request.body(Full::new(Bytes::from(value.to_string()))).expect("a request")).await.expect("an answer")
    }

    /// A code for Megan, and what the browser was sent back with.
    async fn code(&self, verifier: &str) -> (String, Vec<(String, String)>) {
        let got = self.get(&authorize_path(&challenge(verifier), "&prompt=none&login_hint=megan%40personalemail.com")).await;
        assert_eq!(got.status, StatusCode::SEE_OTHER);
        let back = Url::parse(got.header(LOCATION)).expect("a URL");
        assert!(back.as_str().starts_with(REDIRECT), "{back}");
        let pairs: Vec<(String, String)> = back.query_pairs().into_owned().collect();
        (pairs.iter().find(|(name, _)| name == "code").expect("a code").1.clone(), pairs)
    }

    async fn exchange(&self, code: &str, verifier: &str) -> Got {
        let pairs = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", REDIRECT), ("code_verifier", verifier)];
        self.form("/token", basic(ID, SECRET), &pairs).await
    }

    async fn refresh(&self, token: &str) -> Got {
        self.form("/token", basic(ID, SECRET), &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    fn grant(&self) -> (String, String) {
        let grant = self.sandbox.issue_grant(MEGAN, &["photos.read"]).expect("a client");
        (grant.access_token.expose().to_owned(), grant.refresh_token.expect("given").expose().to_owned())
    }
}

fn basic(id: &str, secret: &str) -> Option<String> {
    Some(format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))))
}

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()))
}

fn authorize_path(challenge: &str, more: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("client_id", ID), ("redirect_uri", REDIRECT), ("response_type", "code"), ("state", "a b&c=%/é")])
        .extend_pairs([("scope", "photos.read profile"), ("code_challenge", challenge), ("code_challenge_method", "S256")])
        .finish();
    format!("/authorize?{query}{more}")
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name}"))
}
