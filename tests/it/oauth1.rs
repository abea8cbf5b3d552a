//! OAuth 1.0a (RFC 5849), end to end: the sandbox checks signatures by code of its own, and scripted upstreams show what was really sent.

use crate::browser::{Browser, param};
use crate::harness::{ALEX, MEGAN, Plan, World, seconds};
use crate::upstream::{Reply, Seen, Upstream};
use crate::wire::{Body, empty, whole};
use attache::attach::oauth1::{Consumer, Form, Method, Signed, TokenPair};
use attache::base::ids::ConnectionKey;
use attache::store::Expect;
use http::HeaderMap;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use std::collections::HashMap;

const FORM: &str = "application/x-www-form-urlencoded";
/// A token host that no test uses.
const OTHER: &str = "other.localhost:1";
const RETURN: &str = "http://app.localhost:3000/connected";

/// The provider `signed`: the sandbox, spoken to by OAuth 1.0a.
fn plan(oauth1: &str, host: &str) -> Plan {
    Plan::new()
        .providers(&format!(
            "  signed:\n    client_id: printpixie\n    client_secret: sandbox-secret\n    request_token_url: http://SANDBOX/oauth1/request_token\n    \
             authorize_url: http://SANDBOX/oauth1/authorize\n    token_url: http://SANDBOX/oauth1/access_token\n    token_hosts: [\"SANDBOX\", \"{host}\"]\n    \
             authorize_params: {{perms: read}}\n    calls: {{authorize: {{params: {{app: \"{{client_id}}\"}}}}}}\n    metadata: {{user_nsid: reply.user_nsid, screen_name: reply.screen_name}}\n    oauth1: {{{oauth1}}}\n"
        ))
        .top(&format!("connect: {{allowed_return_urls: [\"{RETURN}\"]}}\n"))
        .routes("  - {match: \"/signed/{*rest}\", provider: signed, upstream: \"http://SANDBOX/oauth1/v1/{rest}\"}\n")
}

async fn started(plan: Plan) -> World {
    let world = plan.start().await;
    let redirect = "http://localhost:7071/oauth/callback/signed";
    world.sandbox.change(|settings| settings.clients[0].redirect_uris.push(redirect.to_owned()));
    world
}

async fn world(oauth1: &str) -> World {
    started(plan(oauth1, OTHER)).await
}

async fn connect(world: &World, user: &str) {
    let (token, secret) = world.sandbox.issue_oauth1(user).expect("a client");
    world.import(&json!({"provider": "signed", "end_user": user, "access_token": token.expose(), "token_secret": secret.expose()})).await;
}

async fn session(world: &World, more: Value) -> Value {
    let mut body = json!({"end_user": MEGAN, "providers": ["signed"], "return_url": RETURN});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let answer = world.admin_json("POST", "/v1/connect-sessions", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

fn link(session: &Value) -> &str {
    session["connect_url"].as_str().expect("a link")
}

async fn sent(world: &World, method: &str, path: &str, kind: &str, body: impl Into<bytes::Bytes>) -> crate::wire::Answer {
    world.call(method, path, &[("x-end-user", MEGAN), ("content-type", kind)], whole(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_link_to_signed_calls() {
    for method in ["", "signature: HMAC-SHA256", "signature: PLAINTEXT, realm: Photos"] {
        let world = world(method).await;
        world.call("GET", "/signed/me", &[("x-end-user", MEGAN)], empty()).await.is_problem("not-connected", 401, "http_request_denied");
        let session = session(&world, json!({"metadata": {"order": 7}})).await;
        let mut browser = Browser::default();
        let authorize = browser.set_out(link(&session), "signed").await;
        assert!(authorize.starts_with(&format!("{}/oauth1/authorize?oauth_token=o1r_", world.sandbox.issuer())), "{authorize}");
        assert_eq!((param(&authorize, "perms"), param(&authorize, "state")), ("read".to_owned(), String::new()));
        assert_eq!(param(&authorize, "app"), "printpixie", "the definition's own, places and all");
        let back = browser.decide(&authorize, MEGAN, "allow").await;
        // The callback is the registered one to the letter.
        let registered = format!("http://localhost:{}/oauth/callback/signed?oauth_token=", world.public.port());
        assert!(back.starts_with(&registered) && !param(&back, "oauth_verifier").is_empty(), "{back}");
        let done = browser.get(&back).await;
        assert_eq!((done.status.as_u16(), done.header("location")), (303, format!("{RETURN}?status=connected&provider=signed")));
        let shown = world.admin("GET", &format!("/v1/connections/signed/{MEGAN}")).await.is_ok().json();
        assert_eq!((&shown["state"], &shown["expires_at"]), (&json!("active"), &Value::Null));
        assert_eq!(shown["metadata"], json!({"order": 7, "user_nsid": "12037949754@N01", "screen_name": MEGAN}));
        // Years later it is still good.
        world.clock.advance(seconds(3600 * 24 * 400));
        for (verb, path, kind, body) in [
            ("GET", "/signed/me?b=2&a=z&a=a%20b+c&%C3%A9=%2B", "", ""),
            ("POST", "/signed/me?x=1", FORM, "c2&a3=2+q&a3=%C3%A9&=&a=b"),
            ("POST", "/signed/me", "application/json", "{\"a\":1}"),
            ("DELETE", "/signed/a!b(c)'*~", "", ""),
        ] {
            let answer = sent(&world, verb, path, kind, body).await;
            let told = answer.is_ok().json();
            assert_eq!(
                (&told["user"], &told["body_bytes"], &told["signed_form"]),
                (&json!(MEGAN), &json!(body.len()), &json!(kind == FORM))
            );
        }
        world.call("GET", "/signed/photos?page_size=1", &[("x-end-user", MEGAN)], empty()).await.is_ok();
        // The link and the callback are spent.
        assert_eq!(
            (browser.get(link(&session)).await.status, browser.get(&back).await.status),
            (410.try_into().expect("a status"), 410.try_into().expect("a status"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p63_nobody_elses_browser_brings_the_answer() {
    let world = world("").await;
    let session = session(&world, json!({})).await;
    let (mut megan, mut mallory) = (Browser::default(), Browser::default());
    // Mallory begins a trip of his own and has his own answer; Megan's browser is made to bring it.
    let his = self::session(&world, json!({"end_user": ALEX})).await;
    let authorize = mallory.set_out(link(&his), "signed").await;
    let his_back = mallory.decide(&authorize, ALEX, "allow").await;
    let authorize = megan.set_out(link(&session), "signed").await;
    assert_eq!(megan.get(&his_back).await.status, 410);
    // And the other way round: what he learnt of her answer is of no use to him.
    let back = megan.decide(&authorize, MEGAN, "allow").await;
    assert_eq!(mallory.get(&back).await.status, 410);
    for changed in [
        back.replace("oauth_token=o1r_", "oauth_token=o1r_x"),
        back.replace("callback/signed", "callback/sandbox"),
        format!("{back}&oauth_token=x"),
        format!("{back}&state=x"),
    ] {
        assert!(matches!(megan.get(&changed).await.status.as_u16(), 400 | 403 | 410), "{changed}");
    }
    // None of it has spent anything.
    assert!(megan.get(&back).await.header("location").contains("status=connected"));
    assert!(mallory.get(&his_back).await.header("location").contains("status=connected"));
    assert_eq!(world.call("GET", "/signed/me", &[("x-end-user", MEGAN)], empty()).await.is_ok().json()["user"], MEGAN);
}

#[tokio::test(flavor = "multi_thread")]
async fn p63_a_wrong_verifier_connects_nobody() {
    let world = world("").await;
    let session = session(&world, json!({})).await;
    let mut browser = Browser::default();
    let authorize = browser.set_out(link(&session), "signed").await;
    let back = browser.decide(&authorize, MEGAN, "allow").await;
    let done = browser.get(&back.replace("oauth_verifier=", "oauth_verifier=x")).await;
    assert!(done.header("location").contains("status=failed"), "{}", done.header("location"));
    assert_eq!(browser.get(&back).await.status, 410);
    assert_eq!(world.admin("GET", "/v1/connections").await.is_ok().json()["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn q29_denied_with_the_token_is_a_no() {
    let world = world("").await;
    let session = session(&world, json!({})).await;
    let mut browser = Browser::default();
    let authorize = browser.set_out(link(&session), "signed").await;
    let back = browser.decide(&authorize, MEGAN, "deny").await;
    assert_eq!(param(&back, "denied"), param(&authorize, "oauth_token"));
    assert!(browser.get(&back).await.header("location").contains("status=denied"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_the_two_steps_keeps_the_temporary_secret() {
    let port = crate::harness::free_port();
    let listen = format!("  proxy: 127.0.0.1:0\n  public: 127.0.0.1:{port}\n  admin: 127.0.0.1:0\n");
    let world = started(plan("", OTHER).on_disk().listen(&listen)).await;
    let session = session(&world, json!({})).await;
    let mut browser = Browser::default();
    let authorize = browser.set_out(link(&session), "signed").await;
    let world = world.restart().await;
    let back = browser.decide(&authorize, MEGAN, "allow").await;
    assert!(browser.get(&back).await.header("location").contains("status=connected"));
    world.call("GET", "/signed/me", &[("x-end-user", MEGAN)], empty()).await.is_ok();
    let world = world.restart().await;
    world.call("GET", "/signed/me", &[("x-end-user", MEGAN)], empty()).await.is_ok();
}

/// A provider whose first step answers so; what comes of the form on the page.
async fn begun_at(reply: &'static str, status: &'static str, oauth1: &str) -> (u16, String) {
    let provider =
        Upstream::start(move |_| Reply::Close(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{reply}", reply.len()).into_bytes()))
            .await;
    let at = provider.address;
    let yaml = format!(
        "  signed:\n    client_id: k\n    client_secret: s\n    request_token_url: http://{at}/r?x=1\n    authorize_url: http://{at}/a?b=1\n    \
         token_url: http://{at}/t\n    token_hosts: [\"{at}\"]\n    oauth1: {{{oauth1}}}\n"
    );
    let world = Plan::new().providers(&yaml).start().await;
    let made = world.admin_json("POST", "/v1/connect-sessions", &json!({"end_user": MEGAN, "providers": ["signed"]})).await.json();
    let mut browser = Browser::default();
    browser.get(link(&made)).await.is_ok();
    let answer = browser.post(link(&made), &[("provider", "signed")]).await;
    let seen = provider.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.body.len(), seen.header("content-length")), ("POST", "/r?x=1", 0, "0"));
    let redirect = world.public.port();
    let said = said(&seen);
    assert_eq!(said["oauth_callback"], format!("http://localhost:{redirect}/oauth/callback/signed"));
    assert!(!said.contains_key("oauth_token"));
    assert_eq!(said["oauth_signature"], *recomputed(&seen, &Consumer { key: "k".into(), secret: "s".into(), ..Consumer::default() }, ""));
    if answer.status != 303 {
        // The link is as good as before.
        browser.get(link(&made)).await.is_ok();
    }
    (answer.status.as_u16(), answer.header("location"))
}

#[tokio::test(flavor = "multi_thread")]
async fn p62_the_callback_must_be_confirmed() {
    const PAIR: &str = "oauth_token=t%2B&oauth_token_secret=s";
    for (reply, status, oauth1, expected) in [
        ("oauth_token=t%2B&oauth_token_secret=s&oauth_callback_confirmed=true\n", "200 OK", "", 303),
        ("oauth_token=t%2B&oauth_token_secret=&oauth_callback_confirmed=True", "200 OK", "", 303),
        (PAIR, "200 OK", "", 502),
        ("oauth_token=t&oauth_token_secret=s&oauth_callback_confirmed=false", "200 OK", "", 502),
        (PAIR, "200 OK", "callback_confirmed: false", 303),
        ("oauth_token=&oauth_token_secret=s&oauth_callback_confirmed=true", "200 OK", "", 502),
        ("oauth_token=t&oauth_callback_confirmed=true", "200 OK", "", 502),
        ("oauth_token=t&oauth_token=u&oauth_token_secret=s&oauth_callback_confirmed=true", "200 OK", "", 502),
        ("<html>", "200 OK", "", 502),
        ("oauth_problem=consumer_key_unknown", "401 Unauthorized", "", 502),
    ] {
        let (status, location) = begun_at(reply, status, oauth1).await;
        assert_eq!(status, expected, "{reply} {oauth1}");
        if expected == 303 {
            assert_eq!((param(&location, "oauth_token"), param(&location, "b")), ("t+".to_owned(), "1".to_owned()), "{location}");
        }
    }
}

/// The parameters of a request's `Authorization`.
fn said(seen: &Seen) -> HashMap<String, String> {
    let list = seen.header("authorization").strip_prefix("OAuth ").expect("OAuth").to_owned();
    let pairs = list.split(", ").map(|pair| pair.split_once('=').expect("a pair"));
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().expect("text").into_owned();
    pairs.map(|(name, value)| (name.to_owned(), decoded(value.trim_matches('"')))).collect()
}

/// The signature that fits what came over the wire.
fn recomputed(seen: &Seen, consumer: &Consumer, secret: &str) -> String {
    let said = said(seen);
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let mut headers = HeaderMap::new();
    for value in seen.all("content-type") {
        headers.append("content-type", value.parse().expect("a value"));
    }
    let form = if attache::attach::oauth1::is_form(&headers) { Form::Whole(&seen.body) } else { Form::None };
    let signed = Signed { method: &seen.method, tls: false, private: true, host: seen.header("host"), path, query, form };
    let protocol: Vec<_> = said
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "realm" | "oauth_signature"))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let token = said.get("oauth_token").map(|token| TokenPair { token, secret });
    consumer.sign(&signed, token, &protocol).expect("signed").to_string()
}

/// A route `/up/` to a scripted upstream, whose calls Megan's token `t` with the secret `x` signs.
async fn up(upstream: &Upstream, keys: &str) -> World {
    let at = upstream.address;
    let route =
        format!("  - name: up\n    match: /up/{{*rest}}\n    provider: signed\n    upstream: http://{at}/{{rest}}?fixed=f%20x\n{keys}");
    let world = plan("", &at.to_string()).routes(&route).start().await;
    world.import(&json!({"provider": "signed", "end_user": MEGAN, "access_token": "t", "token_secret": "x"})).await;
    world
}

fn printpixie() -> Consumer {
    Consumer { key: "printpixie".into(), secret: "sandbox-secret".into(), method: Method::HmacSha1, realm: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn p70_what_is_signed_is_what_the_upstream_gets() {
    let upstream = Upstream::plain().await;
    let keys = "    query: {d: \"é +\", kept: no}\n    set_query: {set: \"{rest}\"}\n";
    let world = up(&upstream, keys).await;
    const MULTIPART: &str = "multipart/form-data; boundary=x";
    for (method, path, kind, body, target) in [
        (
            "GET",
            "/up/api/v2/album/K!images?count=2&kept=1",
            "",
            "",
            "/api/v2/album/K!images?count=2&kept=1&fixed=f%20x&d=%C3%A9%20%2B&set=api%2Fv2%2Falbum%2FK%21images",
        ),
        ("POST", "/up/a%21b?fixed=mine", FORM, "c2&a3=2+q&b=%zz&b", "/a%21b?fixed=f%20x&d=%C3%A9%20%2B&kept=no&set=a%21b"),
        (
            "POST",
            "/up/p",
            "Application/x-www-form-urlencoded; charset=UTF-8",
            "status=%E2%98%83",
            "/p?fixed=f%20x&d=%C3%A9%20%2B&kept=no&set=p",
        ),
        ("PUT", "/up/p", MULTIPART, "--x\r\n\r\nb=2\r\n--x--", "/p?fixed=f%20x&d=%C3%A9%20%2B&kept=no&set=p"),
        ("POST", "/up/p", "application/json", "{\"a\":\"b=2\"}", "/p?fixed=f%20x&d=%C3%A9%20%2B&kept=no&set=p"),
        ("POST", "/up/p", FORM, "", "/p?fixed=f%20x&d=%C3%A9%20%2B&kept=no&set=p"),
    ] {
        let mut headers = vec![("x-end-user", MEGAN), ("authorization", "OAuth oauth_token=\"mine\"")];
        if !kind.is_empty() {
            headers.push(("content-type", kind));
        }
        world.call(method, path, &headers, whole(body)).await.is_ok();
        let seen = upstream.last();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), (method, target));
        assert_eq!(seen.body, body.as_bytes());
        assert_eq!(said(&seen)["oauth_token"], "t");
        assert_eq!(said(&seen)["oauth_signature"], recomputed(&seen, &printpixie(), "x"), "{method} {path}");
    }
    // What a client says in the protocol's own name goes from the query, and is refused in a form.
    world.call("GET", "/up/p?oauth_token=mine&a=1&oauth%5fverifier=v", &[("x-end-user", MEGAN)], empty()).await.is_ok();
    assert!(upstream.last().target.starts_with("/p?a=1&fixed="), "{}", upstream.last().target);
    let before = upstream.seen().len();
    sent(&world, "POST", "/up/p", FORM, "a=1&oauth_token=mine").await.is_problem("bad-request", 400, "http_request_error");
    assert_eq!(upstream.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_are_read_up_to_max_signed_body_and_nothing_else_is() {
    let upstream = Upstream::plain().await;
    let world = up(&upstream, "    max_signed_body: 1000B\n").await;
    let form = |length: usize| format!("a={}", "x".repeat(length - 2));
    sent(&world, "POST", "/up/p", FORM, form(1000)).await.is_ok();
    assert_eq!(upstream.last().body.len(), 1000);
    assert_eq!(said(&upstream.last())["oauth_signature"], recomputed(&upstream.last(), &printpixie(), "x"));
    let before = upstream.seen().len();
    sent(&world, "POST", "/up/p", FORM, form(1001)).await.is_problem("body-too-large", 413, "http_request_denied");
    // Without a length it is counted as it comes.
    let chunked = |text: String| -> Body { StreamBody::new(futures_util::stream::iter([Ok(Frame::data(text.into()))])).boxed() };
    let headers = [("x-end-user", MEGAN), ("content-type", FORM)];
    world.call("POST", "/up/p", &headers, chunked(form(1001))).await.is_problem("body-too-large", 413, "http_request_denied");
    assert_eq!(upstream.seen().len(), before, "nothing of it went upstream");
    world.call("POST", "/up/p", &headers, chunked(form(900))).await.is_ok();
    let seen = upstream.last();
    assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), ("900", ""), "what was read whole has a length");
    assert_eq!(said(&seen)["oauth_signature"], recomputed(&seen, &printpixie(), "x"));
    // Any other body has no such limit.
    sent(&world, "POST", "/up/p", "application/octet-stream", vec![7u8; 300_000]).await.is_ok();
    assert_eq!(upstream.last().body.len(), 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn p64_a_repeat_is_signed_anew() {
    let upstream = Upstream::start(|seen| {
        if said(seen)["oauth_token"] == "t" {
            Reply::Keep(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n".to_vec())
        } else {
            Reply::ok("", "ok")
        }
    })
    .await;
    let world = up(&upstream, "").await;
    // The keeper comes to hold the first token; then another process stores a newer one behind its back.
    assert_eq!(sent(&world, "POST", "/up/p", FORM, "a=1").await.status, 401);
    let key = ConnectionKey::new("signed", MEGAN, "default");
    let mut record = world.running.records.connection(&key).await.expect("read").expect("there").record;
    (record.access_token, record.key_material) = ("t2".into(), Some("x2".into()));
    world.running.records.put_connection(&record, Expect::Any).await.expect("written");
    world.clock.advance(seconds(60));
    sent(&world, "POST", "/up/p", FORM, "a=1").await.is_ok();
    let seen = upstream.seen();
    let [.., first, second] = seen.as_slice() else { panic!("two requests") };
    assert_eq!((first.body.as_slice(), second.body.as_slice()), (&b"a=1"[..], &b"a=1"[..]));
    assert_eq!(said(first)["oauth_signature"], recomputed(first, &printpixie(), "x"));
    assert_eq!(said(second)["oauth_signature"], recomputed(second, &printpixie(), "x2"));
    assert_ne!(said(first)["oauth_nonce"], said(second)["oauth_nonce"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn p64_an_idle_connection_that_closed_costs_a_new_nonce_and_no_more() {
    let upstream = Upstream::start(|seen| if seen.nth == 1 { Reply::Close(Vec::new()) } else { Reply::ok("", "ok") }).await;
    let world = up(&upstream, "").await;
    for _ in 0..2 {
        world.call("GET", "/up/p", &[("x-end-user", MEGAN)], empty()).await.is_ok();
    }
    let seen = upstream.seen();
    let nonces: std::collections::HashSet<_> = seen.iter().map(|seen| said(seen)["oauth_nonce"].clone()).collect();
    assert_eq!(nonces.len(), seen.len());
    for seen in &seen {
        assert_eq!(said(seen)["oauth_signature"], recomputed(seen, &printpixie(), "x"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_tokens_sign_and_their_end_is_told() {
    let world = world("").await;
    connect(&world, MEGAN).await;
    connect(&world, ALEX).await;
    for user in [MEGAN, ALEX] {
        let told = world.call("GET", "/signed/me", &[("x-end-user", user)], empty()).await;
        assert_eq!(told.is_ok().json()["user"], user);
    }
    let path = format!("/v1/connections/signed/{ALEX}");
    let line = json!({"access_token": "t", "token_secret": "s"});
    world.admin_json("PUT", &path, &line).await.is_ok();
    // The provider's own 401, for there is nothing to renew it by.
    let refused = world.call("GET", "/signed/me", &[("x-end-user", ALEX)], empty()).await;
    assert_eq!((refused.status.as_u16(), refused.text()), (401, "oauth_problem=token_rejected".to_owned()));
    let revoked = world.admin("DELETE", &path).await;
    assert_eq!(revoked.is_ok().json()["revoked"], "unsupported");
}
