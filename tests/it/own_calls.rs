//! Calls that are their connection's own: the host, path and headers that its values make, and what its provider puts on every call.

use crate::harness::*;
use crate::upstream::{Reply, Upstream};
use crate::wire::{Answer, empty, whole};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

const VALUES: &str = "    inputs:
      shop: {label: Shop, kind: label}
      region: {label: Region, kind: label, value: eu-1}
    metadata:
      api: {from: reply.api_domain, kind: host, hosts: [127.0.0.1, localhost]}
      realm: reply.realm
";

/// A user whose connection holds these values.
async fn connect(world: &World, user: &str, metadata: Value) -> String {
    let grant = world.sandbox.issue_grant(user, &["photos.read"]).expect("a client");
    world
        .import(&json!({
            "provider": "sandbox", "end_user": user, "access_token": grant.access_token.expose(), "metadata": metadata,
            "refresh_token": grant.refresh_token.as_ref().map(|token| token.expose()), "expires_at": grant.expires_at.to_rfc3339(),
        }))
        .await;
    format!("Bearer {}", grant.access_token.expose())
}

async fn patch(world: &World, user: &str, metadata: Value) {
    let answer = world.admin_json("PATCH", &format!("/v1/connections/sandbox/{user}"), &json!({"metadata": metadata})).await;
    answer.is_ok();
}

fn is_unfit(answer: &Answer, name: &str) {
    answer.is_problem("reconnect-required", 401, "http_request_denied");
    let body = answer.json();
    assert!(body["detail"].as_str().is_some_and(|detail| detail.contains(name)), "{body}");
    assert_eq!(body["connect"]["body"]["end_user"], MEGAN);
}

/// Two APIs that may see tokens, and a stranger.
async fn three(keys: &str) -> (World, Upstream, Upstream, Upstream) {
    let (a, b, stranger) = (Upstream::plain().await, Upstream::plain().await, Upstream::plain().await);
    let plan = Plan::new().token_host(a.address).token_host(b.address).provider(VALUES);
    let route = format!("  - {{name: own, match: '/own/{{*rest}}', provider: sandbox, upstream: 'http://{{api}}/v1/{{rest}}'{keys}}}\n");
    (plan.routes(&route).start().await, a, b, stranger)
}

#[tokio::test]
async fn q56_calls_go_to_the_host_that_each_connection_names() {
    let (world, a, b, _stranger) = three("").await;
    let megan = connect(&world, MEGAN, json!({"api": a.address.to_string()})).await;
    let alex = connect(&world, ALEX, json!({"api": b.address.to_string()})).await;
    for _ in 0..3 {
        world.get_as(MEGAN, "/own/me?x=1").await.is_ok();
        world.get_as(ALEX, "/own/me?x=1").await.is_ok();
    }
    for (api, token) in [(&a, &megan), (&b, &alex)] {
        assert_eq!(api.seen().len(), 3);
        for seen in api.seen() {
            assert_eq!((&*seen.target, seen.header("authorization")), ("/v1/me?x=1", &**token));
            assert_eq!(seen.header("host"), api.address.to_string());
        }
    }
}

/// A listed name may resolve to anything: what counts is the address that is dialled.
/// Fails without the pools of their own for such hosts.
#[tokio::test]
async fn threat_26_a_host_of_a_connections_own_is_a_public_one() {
    let values = "    metadata:\n      site: {from: reply.site, kind: origin, hosts: [10.255.255.1]}\n";
    let route = "  - {match: '/own/{*rest}', provider: sandbox, upstream: 'https://{site}/{rest}'}\n";
    let world = Plan::new().provider(values).token_name("10.255.255.1").routes(route).start().await;
    connect(&world, MEGAN, json!({"site": "10.255.255.1"})).await;
    let answer = world.get("/own/x").await;
    assert!(answer.text().contains("an address that is not public"), "{}", answer.text());
}

#[tokio::test]
async fn q56_a_place_may_stand_in_a_label_of_the_host_and_in_token_hosts() {
    let api = Upstream::plain().await;
    let port = api.address.port();
    let plan = Plan::new().provider(VALUES).token_name(&format!("{{shop}}.localhost:{port}"));
    let route = format!("  - {{match: '/own/{{*rest}}', provider: sandbox, upstream: 'http://{{shop}}.localhost:{port}/{{rest}}'}}\n");
    let world = plan.routes(&route).start().await;
    connect(&world, MEGAN, json!({"shop": "Acme"})).await;
    world.get("/own/x").await.is_ok();
    assert_eq!(api.last().header("host"), format!("acme.localhost:{port}"));
    for evil in ["a.b", "acme.evil.example/", "acme@evil", "", "acme:1"] {
        patch(&world, MEGAN, json!({"shop": evil})).await;
        is_unfit(&world.get("/own/x").await, "shop");
    }
    assert_eq!(api.seen().len(), 1);
}

#[tokio::test]
async fn q56_an_edited_host_gets_no_token() {
    let (world, a, b, stranger) = three("").await;
    connect(&world, MEGAN, json!({"api": a.address.to_string()})).await;
    world.get("/own/x").await.is_ok();
    let port = stranger.address.port();
    for evil in [
        "evil.example".to_owned(),
        stranger.address.to_string(),
        format!("localhost:{port}"),
        format!("{}@{}", a.address, stranger.address),
        format!("{}#@{}", stranger.address, a.address),
        format!("{}/{}", stranger.address, a.address),
        format!("127.0.0.1.evil.example:{port}"),
        "169.254.169.254".to_owned(),
        "127.0.0.1".to_owned(),
        "a\r\nb".to_owned(),
    ] {
        patch(&world, MEGAN, json!({"api": evil})).await;
        let answer = world.get("/own/x").await;
        answer.is_problem("reconnect-required", 401, "http_request_denied");
        assert!(!answer.text().contains("evil"), "{}", answer.text());
    }
    for odd in [json!(null), json!(["127.0.0.1"]), json!({"host": "x"}), json!(7)] {
        patch(&world, MEGAN, json!({"api": odd})).await;
        is_unfit(&world.get("/own/x").await, "api");
    }
    assert_eq!(stranger.connections(), 0, "not even a connection");
    // The very next call goes where the metadata says now.
    patch(&world, MEGAN, json!({"api": b.address.to_string()})).await;
    world.get("/own/x").await.is_ok();
    assert_eq!((a.seen().len(), b.seen().len()), (1, 1));
}

/// Whether a host is loopback is known only with the connection's value, so it is the call that is refused, not the config. The defence is
/// `secure` in `OriginTemplate::origin`.
#[tokio::test]
async fn a_connections_own_host_gets_no_token_over_plain_http_unless_the_route_says_so() {
    // A name that is nobody's (RFC 6761 §6.4).
    let away = "api.away.invalid:8080";
    let values = format!("    metadata:\n      api: {{from: reply.api, kind: host, hosts: [127.0.0.1, '{away}']}}\n");
    let api = Upstream::plain().await;
    let routes = "  - {match: '/own/{*rest}', provider: sandbox, upstream: 'http://{api}/{rest}'}
  - {match: '/open/{*rest}', provider: sandbox, upstream: 'http://{api}/{rest}', allow_plain_http: true}\n";
    let plan = Plan::new().token_host(api.address).token_name(away).provider(&values).routes(routes);
    let world = plan.start().await;
    connect(&world, MEGAN, json!({"api": api.address.to_string()})).await;
    world.get("/own/x").await.is_ok();
    patch(&world, MEGAN, json!({"api": away})).await;
    let refused = world.get("/own/x").await;
    refused.is_problem("reconnect-required", 401, "http_request_denied");
    assert!(refused.text().contains("a host that its tokens may not be sent to"), "{}", refused.text());
    // The value itself is fine: where the route allows it, the call gets as far as looking for the host.
    world.get("/open/x").await.is_problem("upstream-unreachable", 502, "destination_unavailable");
    assert_eq!(api.seen().len(), 1);
}

#[tokio::test]
async fn q56_nothing_of_a_request_chooses_the_host() {
    let (world, a, _b, stranger) = three("").await;
    connect(&world, MEGAN, json!({"api": a.address.to_string()})).await;
    let other = stranger.address.to_string();
    let headers = [("x-end-user", MEGAN), ("api", &*other), ("x-attache-api", &*other), ("x-forwarded-host", &*other)];
    world.call("GET", &format!("/own/{other}?api={other}"), &headers, empty()).await.is_ok();
    assert_eq!((a.seen().len(), stranger.connections()), (1, 0));
}

#[tokio::test]
async fn q57_values_stand_escaped_in_path_query_and_headers() {
    let keys = ", query: {q: 'r {realm}'}, set_query: {region: '{region}'}, headers: {set: {X-Realm: 'r={realm}', X-Region: '{region}'}}";
    let api = Upstream::plain().await;
    let route = format!(
        "  - {{match: '/own/{{*rest}}', provider: sandbox, upstream: 'http://{}/{{region}}/{{realm}}/{{rest}}?r={{realm}}'{keys}}}\n",
        api.address
    );
    let world = Plan::new().token_host(api.address).provider(VALUES).routes(&route).start().await;
    connect(&world, MEGAN, json!({"realm": "a/b &é"})).await;
    world.get("/own/x?region=client").await.is_ok();
    let seen = api.last();
    assert_eq!(seen.target, "/eu-1/a%2Fb%20%26%C3%A9/x?r=a%2Fb%20%26%C3%A9&q=r%20a%2Fb%20%26%C3%A9&region=eu-1");
    assert_eq!((seen.header("x-realm"), seen.header("x-region")), ("r=a/b &é", "eu-1"));
    // A number is text (Q58), above 2^53 too.
    patch(&world, MEGAN, json!({"realm": 9_007_199_254_740_993_u64})).await;
    world.get("/own/x").await.is_ok();
    assert!(api.last().target.starts_with("/eu-1/9007199254740993/x"), "{}", api.last().target);
    for walking in ["..", "../admin", "a/../../b", ".", "a\\b"] {
        patch(&world, MEGAN, json!({"realm": walking})).await;
        is_unfit(&world.get("/own/x").await, "realm");
    }
    assert_eq!(api.seen().len(), 2);
}

#[tokio::test]
async fn a_route_whose_host_is_the_connections_own_is_explained_with_its_places() {
    let (world, ..) = three("").await;
    let explained = world.admin("GET", "/v1/explain?method=GET&url=/own/x").await.is_ok().json();
    assert_eq!(explained["upstream_url"], "http://{api}/v1/x");
}

// --- companions -----------------------------------------------------------------------------------------------------------------------

const COMPANIONS: &str = "    metadata: {tenant: reply.tenant, openid: reply.openid}
    api:
      headers: {X-Version: '2022-06-28', User-Agent: Attache/1}
      set_headers: {X-Client: 'id={client_id}', X-Tenant: '{tenant}', X-Other: '{openid}'}
      query: {v: '20250101'}
      set_query: {openid: '{openid}', lang: 'd e'}
";

async fn accompanied(keys: &str) -> (World, Upstream) {
    let api = Upstream::plain().await;
    let world = Plan::new().provider(COMPANIONS).up(api.address, keys).start().await;
    connect(&world, MEGAN, json!({"tenant": "t-1"})).await;
    (world, api)
}

#[tokio::test]
async fn q62_companions_go_on_every_call_that_carries_a_token() {
    let (world, api) = accompanied("").await;
    world.get("/up/x?v=1&lang=client&%6Cang=x&a").await.is_ok();
    let seen = api.last();
    assert_eq!(seen.target, "/x?v=1&a&lang=d%20e", "the client's `v` stands, its `lang` does not; what has no value is left out");
    assert_eq!((seen.header("x-version"), seen.header("x-tenant"), seen.header("x-other")), ("2022-06-28", "t-1", ""));
    assert!(seen.header("x-client").starts_with("id="), "{}", seen.header("x-client"));
    let headers = [("x-end-user", MEGAN), ("x-version", "mine"), ("x-tenant", "mine"), ("x-tenant", "mine too"), ("x-client", "mine")];
    world.call("GET", "/up/x", &headers, empty()).await.is_ok();
    let seen = api.last();
    assert_eq!((seen.header("x-version"), seen.header("x-tenant")), ("mine", "t-1"));
    assert_eq!(seen.target, "/x?v=20250101&lang=d%20e");
}

#[tokio::test]
async fn q62_a_routes_own_words_go_over_the_providers() {
    let keys = "    headers: {set: {X-Version: route, X-Tenant: route}, remove: [X-Client]}\n    query: {lang: route}\n    set_query: {v: route}\n";
    let (world, api) = accompanied(keys).await;
    world.get("/up/x").await.is_ok();
    let seen = api.last();
    assert_eq!((seen.header("x-version"), seen.header("x-tenant"), seen.header("x-client")), ("route", "route", ""));
    assert_eq!(seen.target, "/x?lang=route&v=route");
}

#[tokio::test]
async fn q62_routes_without_a_token_carry_no_companions() {
    let api = Upstream::plain().await;
    let route = format!("  - {{match: /open, as: none, provider: sandbox, upstream: 'http://{}/x'}}\n", api.address);
    let world = Plan::new().provider(COMPANIONS).routes(&route).start().await;
    world.call("GET", "/open", &[], empty()).await.is_ok();
    assert_eq!((api.last().target.as_str(), api.last().header("x-version")), ("/x", ""));
}

#[tokio::test]
async fn q62_new_companions_go_live_with_the_config() {
    let (world, api) = accompanied("").await;
    world.get("/up/x").await.is_ok();
    let text = std::fs::read_to_string(world.config()).expect("read").replace("2022-06-28", "2030-01-01");
    std::fs::write(world.config(), text).expect("written");
    world.admin("POST", "/v1/reload").await.is_ok();
    world.get("/up/x").await.is_ok();
    assert_eq!(api.last().header("x-version"), "2030-01-01");
}

#[tokio::test]
async fn q63_a_user_agent_is_there_whether_the_client_has_one_or_not() {
    let (world, api) = accompanied("").await;
    world.get("/up/x").await.is_ok();
    assert_eq!(api.last().header("user-agent"), "Attache/1");
    world.call("GET", "/up/x", &[("x-end-user", MEGAN), ("user-agent", "photo-app/2")], empty()).await.is_ok();
    assert_eq!(api.last().header("user-agent"), "photo-app/2");
}

#[tokio::test]
async fn q60_a_token_in_a_header_of_its_own_replaces_the_clients() {
    let api = Upstream::plain().await;
    let world = Plan::new().provider("    attach: {header: X-Shop-Token}\n").up(api.address, "").start().await;
    let token = connect(&world, MEGAN, json!({})).await;
    let headers = [("x-end-user", MEGAN), ("x-shop-token", "mine"), ("x-shop-token", "twice"), ("authorization", "Bearer mine")];
    world.call("GET", "/up/x", &headers, empty()).await.is_ok();
    assert_eq!((api.last().header("x-shop-token"), api.last().header("authorization")), (token.trim_start_matches("Bearer "), ""));
}

#[tokio::test]
async fn q61_p36_a_token_in_the_query_replaces_the_clients_beside_its_companions() {
    let api = Upstream::plain().await;
    let keys = "    attach: {query: access_token}\n    metadata: {openid: reply.openid}\n    api: {set_query: {openid: '{openid}'}}\n";
    let world = Plan::new().provider(keys).up(api.address, "").start().await;
    let token = connect(&world, MEGAN, json!({"openid": "o&1"})).await;
    let headers = [("x-end-user", MEGAN), ("authorization", "Bearer mine")];
    world.call("GET", "/up/x?access_token=mine&openid=mine&%61ccess_token=mine&a=1", &headers, empty()).await.is_ok();
    let seen = api.last();
    assert_eq!(seen.target, format!("/x?a=1&openid=o%261&access_token={}", token.trim_start_matches("Bearer ")));
    assert_eq!(seen.header("authorization"), "");
}

// --- answers that mean an expired token -------------------------------------------------------------------------------------------------

const RULES: &str = "    expired_when:
      - {status: 400, member: error.code, equals: '190'}
      - {status: 200, code: token_expired}
      - {status: 403, says: session has ended}
";

/// Megan, and an API that answers her first token so, and any other with 200.
async fn expiring(answer: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> (World, Upstream) {
    let first = std::sync::OnceLock::new();
    let api =
        Upstream::start(move |seen| match *first.get_or_init(|| seen.header("authorization").to_owned()) == seen.header("authorization") {
            true => Reply::Keep(answer()),
            false => Reply::ok("", &format!("whole {}", seen.body.len())),
        })
        .await;
    let world = Plan::new().provider(RULES).up(api.address, "").start().await;
    world.connect(MEGAN).await;
    world.clock.advance(seconds(31));
    (world, api)
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn q71_an_expired_token_that_is_told_otherwise_than_401_is_replaced_and_the_call_repeated() {
    for (status, headers, body) in [
        ("400 Bad Request", JSON, r#"{"error":{"message":"Session has expired","code":190,"error_subcode":463}}"#),
        ("400 Bad Request", "Content-Type: text/javascript\r\n", r#"{"error":{"code":"190"}}"#),
        ("200 OK", JSON, r#"{"ok":false,"error":"token_expired"}"#),
        ("403 Forbidden", "", "Your session has ended."),
    ] {
        let (world, api) = expiring(move || answer(status, headers, body)).await;
        let answer = world.call("POST", "/up/x", &[("x-end-user", MEGAN)], whole("abc")).await;
        assert_eq!(answer.is_ok().text(), "whole 3", "{status} {body}");
        assert_eq!((world.sandbox.counters().refresh_posts, api.seen().len()), (1, 2), "{status} {body}");
    }
}

#[tokio::test]
async fn q71_p37_every_other_answer_passes_byte_for_byte_and_refreshes_nothing() {
    let long = format!("{{\"error\":{{\"code\":190}},\"pad\":\"{}\"}}", "x".repeat(100 << 10));
    for (status, headers, body) in [
        ("400 Bad Request", JSON, r#"{"error":{"code":4}}"#.to_owned()),
        ("400 Bad Request", JSON, "190".to_owned()),
        ("400 Bad Request", JSON, long.clone()),
        ("400 Bad Request", "Content-Type: application/json\r\nContent-Encoding: gzip\r\n", r#"{"error":{"code":190}}"#.to_owned()),
        ("403 Forbidden", JSON, r#"{"error":"insufficient_scope"}"#.to_owned()),
        ("404 Not Found", JSON, r#"{"error":{"code":190}}"#.to_owned()),
        ("200 OK", JSON, r#"{"ok":true}"#.to_owned()),
        ("200 OK", "Content-Type: text/plain\r\n", r#"{"error":"token_expired"}"#.to_owned()),
        ("200 OK", "Content-Type: application/x-ndjson\r\n", r#"{"error":"token_expired"}"#.to_owned()),
        ("200 OK", JSON, String::new()),
    ] {
        let expected = body.clone();
        let (world, api) = expiring(move || answer(status, headers, &body)).await;
        let answer = world.get("/up/x").await;
        assert_eq!(answer.status.as_u16(), status[..3].parse::<u16>().expect("a status"));
        assert!(answer.text() == expected, "{status} {headers}: {} bytes of {}", answer.body.len(), expected.len());
        assert_eq!(answer.header("content-length"), expected.len().to_string());
        assert_eq!((world.sandbox.counters().refresh_posts, api.seen().len()), (0, 1), "{status} {headers}");
        // Its connection is good for the next call.
        world.get("/up/x").await;
        assert_eq!(world.sandbox.counters().refresh_posts, 0);
    }
}

#[tokio::test]
async fn q71_chunks_and_trailers_of_what_was_read_pass_whole() {
    let chunked =
        "HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\n{\"a\":\r\n2\r\n1}\r\n0\r\nX-Sum: 7\r\n\r\n";
    let (world, _api) = expiring(move || chunked.into()).await;
    let answer = world.get("/up/x").await;
    assert_eq!((answer.status.as_u16(), &*answer.text()), (400, "{\"a\":1}"));
}

#[tokio::test]
async fn q71_an_answer_that_breaks_off_while_it_is_judged_is_no_whole_one() {
    let (world, _api) = expiring(|| b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\n{\"error\"".to_vec()).await;
    let api = Upstream::start(|_| Reply::Close(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\n{\"error\"".to_vec())).await;
    drop(world);
    let world = Plan::new().provider(RULES).up(api.address, "").start().await;
    world.connect(MEGAN).await;
    world.get("/up/x").await.is_problem("upstream-bad-response", 502, "http_protocol_error");
}

#[tokio::test]
async fn p37_without_a_rule_only_a_401_refreshes() {
    for status in ["400 Bad Request", "403 Forbidden", "500 Internal Server Error"] {
        let seen = Arc::new(AtomicU16::new(0));
        let count = Arc::clone(&seen);
        let api = Upstream::start(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Reply::Keep(answer(status, JSON, r#"{"error":{"code":190}}"#))
        })
        .await;
        let world = Plan::new().up(api.address, "").start().await;
        world.connect(MEGAN).await;
        world.clock.advance(seconds(31));
        assert_eq!(world.get("/up/x").await.status.as_u16(), status[..3].parse::<u16>().expect("a status"));
        assert_eq!((seen.load(Ordering::Relaxed), world.sandbox.counters().refresh_posts), (1, 0), "{status}");
    }
}
