//! What a path and a query become on their way (contract §3), by the exact bytes that reach the upstream.

use crate::harness::*;
use crate::upstream::Upstream;
use crate::wire::{Raw, empty};

/// `UP` is the scripted upstream.
const ROUTES: &str = "
  - {match: '/keep/{*rest}', provider: sandbox, upstream: 'http://UP/api/{rest}'}
  - {match: 'GET /one/{id}', provider: sandbox, upstream: 'http://UP/files/{id}?alt=media'}
  - {match: 'GET /asked/{id}', provider: sandbox, upstream: 'http://UP/search?id={id}&fixed=1'}
  - {match: 'GET /defaults', provider: sandbox, upstream: 'http://UP/list', query: {q: \"mimeType contains 'image/'\", fields: 'files(id,name)'}}
  - {match: 'GET /set', provider: sandbox, upstream: 'http://UP/list?a=1', query: {b: '2'}, set_query: {c: '3'}}
  - {match: 'GET /header/{name}', provider: sandbox, upstream: 'http://UP/h', headers: {set: {X-Name: 'n={name}'}}}
  - {match: 'GET /dir/', provider: sandbox, upstream: 'http://UP/dir'}
  - {match: 'GET /tie/{any}', provider: sandbox, upstream: 'http://UP/captured'}
  - {match: 'GET /tie/literal', provider: sandbox, upstream: 'http://UP/literal'}
  - {match: '/tie/{*rest}', provider: sandbox, upstream: 'http://UP/rest'}
  - {match: 'GET /host', provider: sandbox, upstream: 'http://UP/h', upstream_host: preserve}
  - {match: 'GET /named', provider: sandbox, upstream: 'http://UP/h', upstream_host: api.example.com}
";

async fn world() -> (World, Upstream) {
    let upstream = Upstream::plain().await;
    (World::in_front_of(&upstream, ROUTES).await, upstream)
}

/// The status, by a request line of exactly these bytes.
async fn raw(world: &World, target: &str) -> u16 {
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
    raw.answer().await.expect("an answer").status
}

#[tokio::test]
async fn paths_and_queries_become_what_the_route_says() {
    let (world, upstream) = world().await;
    for (asked, sent) in [
        // The rest keeps its bytes, an empty one too.
        ("/keep/a/b", "/api/a/b"),
        ("/keep/", "/api/"),
        ("/keep/a%2Fb%2fc", "/api/a%2Fb%2fc"),
        ("/keep/a//b/", "/api/a//b/"),
        ("/keep/a;v=1/b:c@d!$&'()*+,=~", "/api/a;v=1/b:c@d!$&'()*+,=~"),
        ("/keep/%E2%82%AC%20%25%3F", "/api/%E2%82%AC%20%25%3F"),
        ("/keep/x?a=1&a=2&b&c=&=d&%61=+", "/api/x?a=1&a=2&b&c=&=d&%61=+"),
        // A query without pairs is none.
        ("/keep/x?", "/api/x"),
        ("/keep/x?u=http://evil.example/?y", "/api/x?u=http://evil.example/?y"),
        // What `upstream` says of the query is not the client's to change.
        ("/one/42", "/files/42?alt=media"),
        ("/one/42?alt=json&x=1", "/files/42?x=1&alt=media"),
        ("/one/42?%61lt=json", "/files/42?alt=media"),
        ("/one/a%2Fb", "/files/a%2Fb?alt=media"),
        // Defaults give way to the client.
        ("/defaults", "/list?q=mimeType%20contains%20%27image%2F%27&fields=files%28id%2Cname%29"),
        ("/defaults?fields=id", "/list?fields=id&q=mimeType%20contains%20%27image%2F%27"),
        ("/defaults?q=&fields=", "/list?q=&fields="),
        ("/set?c=9&b=8&a=7&d=6", "/list?b=8&d=6&a=1&c=3"),
        ("/set", "/list?a=1&b=2&c=3"),
        // A literal goes before a capture, and that before the rest.
        ("/tie/literal", "/literal"),
        ("/tie/literal%20", "/captured"),
        ("/tie/a/b", "/rest"),
        ("/dir/", "/dir"),
    ] {
        assert_eq!(raw(&world, asked).await, 200, "{asked}");
        let seen = upstream.last().target;
        // How an operator's own text is escaped in a query is free, as long as it means the same.
        let same = |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        if asked.starts_with("/defaults") {
            assert_eq!(same(&seen), same(sent), "{asked}");
        } else {
            assert_eq!(seen, sent, "{asked}");
        }
    }
    for unrouted in ["/keep", "/one/", "/one/a/b", "/dir", "//keep/a", "/Keep/a", "/%6Beep/a"] {
        assert_eq!(raw(&world, unrouted).await, 404, "{unrouted}");
    }
}

/// Fails without `path::check`, for each of its rules.
#[tokio::test]
async fn threat_05_paths_that_servers_read_differently_are_refused() {
    let (world, upstream) = world().await;
    for path in [
        "/keep/../admin",
        "/keep/./x",
        "/keep/..",
        "/keep/.",
        "/keep/a/../../b",
        "/keep/%2e%2e/x",
        "/keep/%2E./x",
        "/keep/.%2e",
        "/keep/a%2F..%2Fb",
        "/keep/a%2f%2e%2e%2fb",
        "/keep/..;/admin",
        "/keep/..;x=1/admin",
        "/keep/%2e%2e;x/admin",
        "/keep/a\\b",
        "/keep/a%5Cb",
        "/keep/a%5cb",
        "/keep/..%5c..%5cx",
        "/keep/a%00b",
        "/keep/a%",
        "/keep/a%2",
        "/keep/a%zz",
        "/../keep/x",
        "/nowhere/../keep/x",
    ] {
        let answer = world_answer(&world, path).await;
        assert_eq!(answer, (400, "urn:attache:bad-path".into()), "{path}");
    }
    assert_eq!(upstream.seen().len(), 0);
    for path in
        ["/keep/api../x", "/keep/...", "/keep/..a", "/keep/a;b", "/keep/a//b", "/keep/%252e%252e/x", "/keep/x?a=../..", "/keep/.well-known"]
    {
        assert_eq!(raw(&world, path).await, 200, "{path}");
        assert_eq!(upstream.last().target, path.replacen("/keep", "/api", 1));
    }
}

async fn world_answer(world: &World, target: &str) -> (u16, String) {
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
    let answer = raw.answer().await.expect("an answer");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status, body["type"].as_str().unwrap_or_default().to_owned())
}

/// Fails when the match is given more than the path.
#[tokio::test]
async fn threat_06_neither_query_nor_fragment_has_a_part_in_the_match() {
    let (world, upstream) = world().await;
    for (asked, path) in
        [("/keep/x?/../one/1", "/api/x"), ("/keep/x?/tie/literal", "/api/x"), ("/tie/literal?/a/b", "/literal"), ("/dir/?x", "/dir")]
    {
        assert_eq!(raw(&world, asked).await, 200, "{asked}");
        assert_eq!(upstream.last().target.split('?').next(), Some(path), "{asked}");
    }
    let before = upstream.seen().len();
    for (asked, path) in [("/keep/x#/tie/literal", "/api/x"), ("/keep/x#?a=1", "/api/x"), ("/nowhere#/keep/x", "")] {
        // No client may send a fragment; refused or dropped, it must not choose.
        if raw(&world, asked).await == 200 {
            assert_eq!(upstream.last().target, path, "{asked}");
        }
    }
    assert!(upstream.seen().len() <= before + 2);
}

/// Fails without the guard's comparison of target and `Host`.
#[tokio::test]
async fn threat_07_an_absolute_target_must_agree_with_its_host() {
    let (world, upstream) = world().await;
    for (target, host) in [
        ("http://localhost/keep/x", "127.0.0.1"),
        ("http://evil.example/keep/x", "localhost"),
        ("http://localhost:7070/keep/x", "localhost:7071"),
        ("http://user@localhost/keep/x", "localhost"),
        ("http://localhost@evil.example/keep/x", "localhost@evil.example"),
        ("http://localhost/keep/x", "localhost@evil.example"),
    ] {
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
        let answer = raw.answer().await.expect("an answer");
        assert_eq!(answer.status, 400, "{target} with {host}");
    }
    // More than one Host, or none, is no request at all.
    for hosts in ["Host: localhost\r\nHost: localhost\r\n", "Host: localhost\r\nHost: evil.example\r\n", ""] {
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!("GET /keep/x HTTP/1.1\r\n{hosts}X-End-User: {MEGAN}\r\n\r\n")).await;
        assert_eq!(raw.answer().await.expect("an answer").status, 400, "{hosts:?}");
    }
    assert_eq!(upstream.seen().len(), 0);
}

/// Fails when captures may stand in the upstream's authority.
#[tokio::test]
async fn threat_08_nothing_in_a_request_chooses_the_upstreams_host() {
    let (world, upstream) = world().await;
    let evil = Upstream::plain().await;
    let host = evil.address.to_string();
    for header in ["X-Forwarded-Host", "X-Forwarded-Server", "X-Host", "Forwarded", "X-Original-Host", "X-Upstream", "X-Attache-Upstream"] {
        world.call("GET", "/keep/x", &[("x-end-user", MEGAN), (header, &host)], empty()).await.is_ok();
    }
    for path in [
        format!("/keep//{host}/x"),
        format!("/keep/@{host}/x"),
        format!("/keep/x?upstream=http://{host}/"),
        format!("/keep/http://{host}/"),
        format!("/one/@{host}"),
        format!("/one/x%23@{host}"),
        format!("/asked/{host}"),
    ] {
        assert_eq!(raw(&world, &path).await, 200, "{path}");
        assert_eq!(upstream.last().header("host"), upstream.address.to_string(), "{path}");
    }
    let answer = world.call("POST", "/keep/x", &[("x-end-user", MEGAN)], crate::wire::whole(format!("upstream=http://{host}/"))).await;
    answer.is_ok();
    assert_eq!(evil.connections(), 0);
}

#[tokio::test]
async fn the_host_that_goes_upstream_is_the_routes_to_say() {
    let (world, upstream) = world().await;
    for (path, host) in [("/keep/x", upstream.address.to_string()), ("/host", "localhost".into()), ("/named", "api.example.com".into())] {
        assert_eq!(raw(&world, path).await, 200);
        assert_eq!(upstream.last().header("host"), host, "{path}");
    }
}

/// Fails when a decoded capture is put into a query or header as it is.
#[tokio::test]
async fn threat_42_a_capture_is_escaped_for_its_place() {
    let (world, upstream) = world().await;
    for (id, sent) in [
        ("42", "/search?id=42&fixed=1"),
        ("x&acknowledgeAbuse=true", "/search?id=x%26acknowledgeAbuse%3Dtrue&fixed=1"),
        ("x%26a=b", "/search?id=x%26a%3Db&fixed=1"),
        ("x%23y", "/search?id=x%23y&fixed=1"),
        ("x+y%20z", "/search?id=x%2By%20z&fixed=1"),
        ("%0d%0aX:%201", "/search?id=%0D%0AX%3A%201&fixed=1"),
        ("a%2Fb", "/search?id=a%2Fb&fixed=1"),
        ("%22%7D", "/search?id=%22%7D&fixed=1"),
        ("%2526", "/search?id=%2526&fixed=1"),
    ] {
        assert_eq!(raw(&world, &format!("/asked/{id}")).await, 200, "{id}");
        // `/` and `:` may stand in a query as they are, and `+` for a space.
        let norm = |text: &str| text.to_ascii_uppercase().replace("%2F", "/").replace("%3A", ":").replace("%20", "+");
        assert_eq!(norm(&upstream.last().target), norm(sent), "{id}");
    }
    assert_eq!(raw(&world, "/header/meg%20an").await, 200);
    assert_eq!(upstream.last().header("x-name"), "n=meg an");
    let before = upstream.seen().len();
    for hostile in ["a%0d%0aX-Evil:%201", "a%0aX-Evil:1", "a%0d"] {
        // Refused or escaped; never a line of its own.
        if raw(&world, &format!("/header/{hostile}")).await == 200 {
            assert!(upstream.last().header("x-name").starts_with("n=a"));
        }
        assert!(!upstream.bytes().to_ascii_lowercase().contains("\nx-evil"), "{hostile}");
    }
    assert!(upstream.seen().len() <= before + 3);
}
