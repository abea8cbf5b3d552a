//! A provider `acme` whose answers are scripted, and an Attaché that knows it by a definition.

use super::Quirk;
use crate::browser::{Browser, param};
use crate::harness::{MEGAN, Plan, World, seconds};
use crate::upstream::{Reply, Seen, Upstream};
use crate::wire::{Answer, empty};
use attache::base::clock::Clock;
use attache::base::ids::ConnectionKey;
use attache::store::Connection;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use url::Url;

/// Where the API stands, beside the endpoints.
const API: &str = "/of-the-api/";

/// A running world in which `acme` is a provider.
pub struct Stage {
    pub world: World,
    pub acme: Upstream,
    script: Arc<Script>,
}

#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Value>>,
    /// What is answered at a path each time.
    pages: Mutex<HashMap<String, Value>>,
    /// Tokens that the API answers with a bare 401.
    refused: Mutex<Vec<String>>,
}

/// A trip of a browser to the provider and back.
pub struct Trip {
    pub authorize: String,
    pub redirect_uri: String,
    pub answer: Answer,
}

/// What stands in every definition unless it says otherwise itself. `ACME` becomes the scripted provider's address.
const BASE: &[(&str, &str)] = &[
    ("client_id", "id"),
    ("client_secret", "s3"),
    ("client_auth", "body"),
    ("pkce", "none"),
    ("authorize_url", "http://ACME/authorize"),
    ("token_url", "http://ACME/token"),
    ("token_hosts", "[\"ACME\"]"),
];

fn reply(answer: &Value) -> Reply {
    if answer == "hang up" {
        return Reply::Close(Vec::new());
    }
    let body = match &answer["body"] {
        Value::String(text) => text.clone(),
        body => body.to_string(),
    };
    let mut head = format!("HTTP/1.1 {} Status\r\nContent-Length: {}\r\n", answer["status"], body.len());
    for (name, value) in answer["headers"].as_object().into_iter().flatten() {
        head.push_str(&format!("{name}: {}\r\n", value.as_str().expect("text")));
    }
    Reply::Keep(format!("{head}\r\n{body}").into_bytes())
}

/// A JSON answer.
pub fn answer(status: u16, body: &Value) -> Value {
    json!({"status": status, "headers": {"Content-Type": "application/json"}, "body": body})
}

impl Script {
    fn answer(&self, seen: &Seen) -> Reply {
        let path = seen.target.split('?').next().expect("a path");
        if let Some(page) = self.pages.lock().expect("unpoisoned").get(path) {
            return reply(page);
        }
        if path.starts_with(API) {
            let refused = self.refused.lock().expect("unpoisoned");
            if refused.iter().any(|token| seen.all("authorization").iter().any(|value| value.ends_with(token))) {
                return reply(&answer(401, &json!({})));
            }
            return Reply::ok("", "ok");
        }
        let scripted = self.answers.lock().expect("unpoisoned").pop_front();
        reply(&scripted.unwrap_or_else(|| {
            answer(200, &json!({"access_token": "A9", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "R9"}))
        }))
    }
}

impl Stage {
    /// `definition` are lines of YAML at the provider's own level; a line `!KEY` takes that key of the base away.
    pub async fn new(definition: &str) -> Stage {
        let script: Arc<Script> = Arc::default();
        let own = Arc::clone(&script);
        let acme = Upstream::start(move |seen| own.answer(seen)).await;
        let says = |key: &str| definition.lines().any(|line| line.starts_with(&format!("{key}:")) || line == format!("!{key}"));
        let mut lines = vec!["  acme:".to_owned()];
        lines.extend(BASE.iter().filter(|(key, _)| !says(key)).map(|(key, value)| format!("    {key}: {value}")));
        lines.extend(
            definition
                .lines()
                .map(str::trim_end)
                .filter(|line| !line.is_empty() && !line.starts_with('!'))
                .map(|line| format!("    {line}")),
        );
        let yaml = format!("{}\n", lines.join("\n").replace("ACME", &acme.address.to_string()));
        let route = format!("  - {{match: '/acme/{{*rest}}', provider: acme, upstream: 'http://{}/of-the-api/{{rest}}'}}\n", acme.address);
        let world = Plan::new().providers(&yaml).routes(&route).start().await;
        Stage { world, acme, script }
    }

    pub fn will_answer(&self, answers: impl IntoIterator<Item = Value>) -> &Self {
        self.script.answers.lock().expect("unpoisoned").extend(answers);
        self
    }

    pub fn publish(&self, path: &str, answer: &Value) -> &Self {
        self.script.pages.lock().expect("unpoisoned").insert(path.into(), answer.clone());
        self
    }

    /// From now on the API does not know this token.
    pub fn refuse(&self, token: &str) {
        self.script.refused.lock().expect("unpoisoned").push(token.to_owned());
    }

    /// The provider's own address.
    pub fn address(&self) -> String {
        self.acme.address.to_string()
    }

    /// From a new link to the provider; the browser, and where it was sent.
    pub async fn set_out(&self, more: Value, form: &[(&str, &str)]) -> (Browser, Trip) {
        let mut browser = Browser::default();
        let trip = self.set_out_by(&mut browser, more, form).await;
        (browser, trip)
    }

    pub async fn set_out_by(&self, browser: &mut Browser, more: Value, form: &[(&str, &str)]) -> Trip {
        let mut body = json!({"end_user": MEGAN, "providers": ["acme"]});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let made = self.world.admin_json("POST", "/v1/connect-sessions", &body).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let link = made.json()["connect_url"].as_str().expect("a link").to_owned();
        browser.get(&link).await.is_ok();
        let answer = browser.post(&link, &[&[("provider", "acme")], form].concat()).await;
        let public = Url::parse(&link).expect("a URL").origin().ascii_serialization();
        let authorize = if answer.status == 303 { answer.header("location") } else { String::new() };
        Trip { authorize, redirect_uri: format!("{public}/oauth/callback/acme"), answer }
    }

    /// There, and back with these parameters besides `state`.
    pub async fn connect_with(&self, params: &[(&str, &str)]) -> Trip {
        let (mut browser, mut trip) = self.set_out(json!({}), &[]).await;
        assert_eq!(trip.answer.status, 303, "{}", trip.answer.text());
        trip.answer = come_back(&mut browser, &trip, params).await;
        trip
    }

    /// There, and back with the code `C1`.
    pub async fn connect(&self) -> Trip {
        self.connect_with(&[("code", "C1")]).await
    }

    /// Plays a quirk of the code's exchange: what was sent is the quirk's request, and its answer is a connection.
    #[track_caller]
    pub fn plays<'s>(&'s self, quirk: &'s Quirk) -> impl Future<Output = Connection> + 's {
        let caller = std::panic::Location::caller();
        async move {
            self.will_answer(quirk.responses.clone());
            let trip = self.connect().await;
            check(&self.token_call(), quirk, &trip.redirect_uri, &[]);
            assert_eq!(trip.answer.status, 200, "{caller}: {}", trip.answer.text());
            self.stored().await.expect("a connection")
        }
    }

    /// A connection whose access token has expired, with the refresh token `R1`.
    pub async fn has_expired(&self, metadata: Value) {
        let expires_at = self.world.clock.now().minus(seconds(1)).to_rfc3339();
        self.world
            .import(&json!({"provider": "acme", "end_user": MEGAN, "access_token": "A0", "refresh_token": "R1", "expires_at": expires_at, "metadata": metadata}))
            .await;
    }

    /// Plays a quirk of a refresh: an expired connection's call makes the quirk's request.
    pub async fn refreshes(&self, quirk: &Quirk) -> Answer {
        self.has_expired(json!({})).await;
        self.will_answer(quirk.responses.clone());
        let answer = self.call().await;
        check(&self.token_call(), quirk, &self.redirect_uri(), &[]);
        answer
    }

    /// A call of the API for the end user.
    pub async fn call(&self) -> Answer {
        self.call_as("/acme/x", &[]).await
    }

    /// The same with these headers besides.
    pub async fn call_as(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.world.call("GET", path, &[&[("x-end-user", MEGAN)], headers].concat(), empty()).await
    }

    pub fn redirect_uri(&self) -> String {
        self.world.running.connect.redirect_uri("acme")
    }

    /// The requests that were no calls of the API.
    pub fn token_calls(&self) -> Vec<Seen> {
        self.acme.seen().into_iter().filter(|seen| !seen.target.starts_with(API)).collect()
    }

    #[track_caller]
    pub fn token_call(&self) -> Seen {
        self.token_calls().into_iter().next().expect("a call")
    }

    /// The last call of the API.
    #[track_caller]
    pub fn api_call(&self) -> Seen {
        self.acme.seen().into_iter().rev().find(|seen| seen.target.starts_with(API)).expect("a call")
    }

    pub async fn stored(&self) -> Option<Connection> {
        self.stored_as("default").await
    }

    pub async fn stored_as(&self, account: &str) -> Option<Connection> {
        let key = ConnectionKey::new("acme", MEGAN, account);
        self.world.running.records.connection(&key).await.expect("read").map(|keyed| keyed.record)
    }
}

/// Back from the provider with these parameters, and the trip's `state` unless they hold one.
pub async fn come_back(browser: &mut Browser, trip: &Trip, params: &[(&str, &str)]) -> Answer {
    let mut url = Url::parse(&trip.redirect_uri).expect("a URL");
    url.query_pairs_mut().extend_pairs(params);
    if !params.iter().any(|(name, _)| *name == "state") {
        url.query_pairs_mut().append_pair("state", &param(&trip.authorize, "state"));
    }
    browser.get(url.as_str()).await
}

pub fn pairs(text: &[u8]) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(text) {
        all.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    all
}

fn members(value: &Value) -> BTreeMap<String, Vec<String>> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    value.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), vec![text(value)])).collect()
}

/// Asserts that a request is the quirk's. `given` are values that only the test knows, in place of the quirk's own.
#[track_caller]
pub fn check(seen: &Seen, quirk: &Quirk, redirect_uri: &str, given: &[(&str, &str)]) {
    let Quirk { request, .. } = quirk;
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    assert_eq!((&*seen.method, path), (request["method"].as_str().expect("a method"), request["path"].as_str().expect("a path")));
    let expected = |value: &Value| {
        let mut all = members(value);
        for values in all.values_mut() {
            if values[0] == "https://app.test/cb" {
                values[0] = redirect_uri.to_owned();
            }
        }
        for (name, value) in given {
            all.entry((*name).to_owned()).and_modify(|values| values[0] = (*value).to_owned());
        }
        all
    };
    assert_eq!(pairs(query.as_bytes()), expected(&request["query"]), "the query");
    let kind = request["headers"]["Content-Type"].as_str().unwrap_or_default();
    let body = match kind {
        "application/json" => members(&serde_json::from_slice(&seen.body).expect("JSON")),
        _ => pairs(&seen.body),
    };
    assert_eq!(body, expected(&request["body"]), "the body");
    let headers = request["headers"].as_object().cloned().unwrap_or_default();
    for (name, value) in &headers {
        assert_eq!(seen.header(&name.to_ascii_lowercase()), value, "{name}");
    }
    if !headers.contains_key("Authorization") {
        assert_eq!(seen.header("authorization"), "", "no proof in two places");
    }
    if request["method"] == "GET" {
        assert!(seen.body.is_empty() && seen.header("content-type").is_empty());
    }
    assert_eq!(seen.header("accept"), "application/json");
    assert_eq!(seen.header("user-agent"), concat!("attache/", env!("CARGO_PKG_VERSION")));
}

/// What stands in a connection's metadata, as text.
pub fn told<'c>(connection: &'c Connection, name: &str) -> &'c str {
    connection.metadata.get(name).and_then(Value::as_str).unwrap_or_default()
}
