//! What is taken off a call and an answer, what is put on, and who may call at all (contract §2 and §4).

use crate::harness::*;
use crate::upstream::{Reply, Upstream};
use crate::wire::{self, Raw, empty};
use http::StatusCode;

/// A world whose `/up/` goes to an upstream that answers with these header lines.
async fn world(answered: &'static str, keys: &str) -> (World, Upstream) {
    let upstream = Upstream::start(move |_| Reply::ok(answered, "ok")).await;
    let world = Plan::new().up(upstream.address, keys).start().await;
    world.connect(MEGAN).await;
    (world, upstream)
}

fn lines(text: &str) -> String {
    format!("GET /up/x HTTP/1.1\r\nHost: localhost:7070\r\n{text}\r\n")
}

#[tokio::test]
async fn the_token_goes_on_and_the_name_stays_here() {
    let (world, upstream) = world("", "").await;
    let token = world.connect(MEGAN).await.access_token;
    let headers = [
        ("x-end-user", MEGAN),
        ("x-end-user-account", "default"),
        ("accept", "image/webp"),
        ("accept-encoding", "br"),
        ("user-agent", "pixie/1"),
        ("x-custom", "kept"),
        ("x-attache-key", "whatever"),
        ("x-attache-anything", "1"),
        ("proxy-authorization", "Bearer whatever"),
        ("proxy-connection", "keep-alive"),
        ("proxy-whatever", "1"),
        ("cookie", "session=1"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
        ("te", "gzip, trailers"),
    ];
    world.call("GET", "/up/x", &headers, empty()).await.is_ok();
    let seen = upstream.last();
    assert_eq!(seen.header("authorization"), format!("Bearer {}", token.expose()));
    assert_eq!(seen.header("host"), upstream.address.to_string());
    assert_eq!(seen.header("via"), "1.1 attache");
    assert_eq!(seen.header("te"), "trailers");
    for (name, value) in [("accept", "image/webp"), ("accept-encoding", "br"), ("user-agent", "pixie/1"), ("x-custom", "kept")] {
        assert_eq!(seen.header(name), value);
    }
    for name in seen.names() {
        let gone = name.starts_with("x-end-user") || name.starts_with("x-attache") || name.starts_with("proxy-");
        assert!(!gone && !["cookie", "keep-alive", "upgrade", "http2-settings", "connection"].contains(&name), "{name} went upstream");
    }
    assert!(!upstream.bytes().contains(MEGAN), "her name is nobody else's business");
}

#[tokio::test]
async fn repeated_headers_and_their_order_are_kept() {
    let (world, upstream) = world("X-Many: 1\r\nX-Many: 2\r\n", "").await;
    let headers = [("x-end-user", MEGAN), ("x-a", "1"), ("x-b", "2"), ("x-a", "3"), ("x-empty", ""), ("x-bytes", "caf\u{e9}")];
    let answer = world.call("GET", "/up/x", &headers, empty()).await;
    let seen = upstream.last();
    assert_eq!(seen.all("x-a"), ["1", "3"]);
    assert_eq!((seen.header("x-empty"), seen.header("x-bytes")), ("", "caf\u{e9}"));
    assert_eq!(answer.headers.get_all("x-many").iter().collect::<Vec<_>>(), ["1", "2"]);
}

/// Without `EndUserRules::refuse_twins` the twin would be one more header of the client's, and go upstream beside the token.
#[tokio::test]
async fn threat_01_underscore_twins_are_refused() {
    let (world, upstream) = world("", "").await;
    for twin in ["X_End_User: bob", "x_end-user: bob", "X-End_User: bob", "X_End_User_Account: work"] {
        let mut raw = Raw::open(world.proxy).await;
        raw.send(lines(&format!("X-End-User: {MEGAN}\r\n{twin}\r\n"))).await;
        assert_eq!(raw.answer().await.expect("an answer").status, 400, "{twin}");
    }
    assert_eq!(upstream.seen().len(), 0);
}

/// A route as nobody carries no token, but its upstream may still read the twin for a name that Attaché vouched for.
/// Fails without `refuse_twins` on routes that read no name.
#[tokio::test]
async fn threat_01_underscore_twins_are_refused_on_routes_as_nobody() {
    let upstream = Upstream::plain().await;
    let world =
        Plan::new().routes(&format!("  - {{match: GET /open, as: none, upstream: \"http://{}/\"}}\n", upstream.address)).start().await;
    let answer = world.call("GET", "/open", &[("x_end_user", "bob")], empty()).await;
    answer.is_problem("end-user-invalid", 400, "http_request_denied");
    assert_eq!(upstream.seen().len(), 0);
}

/// Without `check_name`, or with the first of several lines taken, each of these would be somebody's call.
#[tokio::test]
async fn threat_02_a_name_that_two_could_read_differently_is_refused() {
    let (world, upstream) = world("", "").await;
    let long = "m".repeat(257);
    let cases: &[&[u8]] = &[
        b"X-End-User: megan@personalemail.com\r\nX-End-User: alex@personalemail.com\r\n",
        b"X-End-User: megan@personalemail.com\r\nX-End-User: megan@personalemail.com\r\n",
        b"X-End-User: megan@personalemail.com, alex@personalemail.com\r\n",
        b"X-End-User: \r\n",
        b"X-End-User: megan\xff\r\n",
        b"X-End-User: megan\xc2\x85\r\n",
        b"X-End-User: a\tb\r\n",
        b"X-End-User: megan@personalemail.com\r\nX-End-User-Account: a\r\nX-End-User-Account: b\r\n",
        b"X-End-User: megan@personalemail.com\r\nX-End-User-Account: \r\n",
    ];
    let long = format!("X-End-User: {long}\r\n");
    for case in cases.iter().copied().chain([long.as_bytes()]) {
        let mut raw = Raw::open(world.proxy).await;
        raw.send([b"GET /up/x HTTP/1.1\r\nHost: localhost\r\n", case, b"\r\n"].concat()).await;
        let answer = raw.answer().await.expect("an answer");
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(case));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(body["type"], "urn:attache:end-user-invalid");
        assert!(!body.to_string().contains("personalemail"), "{body}");
    }
    // NUL and a bare CR are no header at all: hyper's bare 400.
    for case in [&b"X-End-User: megan\0\r\n"[..], b"X-End-User: megan\rX\r\n"] {
        let mut raw = Raw::open(world.proxy).await;
        raw.send([b"GET /up/x HTTP/1.1\r\nHost: localhost\r\n", case, b"\r\n"].concat()).await;
        assert!(raw.rest().await.starts_with(b"HTTP/1.1 400"));
    }
    assert_eq!(upstream.seen().len(), 0);
}

/// Identity is read before `Connection` is honoured, and the token goes on after: in any other order what it names would be gone. With its first line
/// read alone, `X-One` or `X-Two` would go upstream.
/// Fails when hop-by-hop headers are removed before the name is read, or after the token is on.
#[tokio::test]
async fn threat_03_connection_takes_neither_the_name_nor_the_token_away() {
    let (world, upstream) = world("", "    headers: {set: {X-From-Route: \"yes\"}}\n").await;
    let token = world.connect(MEGAN).await.access_token;
    let mut raw = Raw::open(world.proxy).await;
    let named = "Connection: X-End-User, Authorization, Host, Via, X-Request-Id, X-From-Route\r\nX-One: 1\r\nConnection: X-One , keep-alive\r\nX-Two: 2\r\nconnection:x-two\r\n";
    raw.send(lines(&format!("X-End-User: {MEGAN}\r\n{named}X-Three: 3\r\n"))).await;
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("authorization"), format!("Bearer {}", token.expose()));
    assert_eq!(seen.header("host"), upstream.address.to_string());
    assert_eq!((seen.header("via"), seen.header("x-from-route")), ("1.1 attache", "yes"));
    assert!(!seen.header("x-request-id").is_empty());
    assert_eq!(seen.header("x-three"), "3");
    for name in ["x-one", "x-two", "connection", "x-end-user"] {
        assert!(seen.all(name).is_empty(), "{name} went upstream");
    }
    // Without a name of its own the call stays refused, whatever Connection says.
    let mut raw = Raw::open(world.proxy).await;
    raw.send(lines("Connection: X-End-User\r\n")).await;
    assert_eq!(raw.answer().await.expect("an answer").status, 400);
}

/// Fails when any of these headers is read at all.
#[tokio::test]
async fn threat_04_no_header_changes_the_route() {
    let (world, upstream) = world("", "").await;
    for header in [
        "X-Forwarded-Uri",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Original-URI",
        "X-Forwarded-Path",
        "X-Forwarded-Prefix",
        "X-Accel-Redirect",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "Forwarded",
        "X-Attache-Provider",
    ] {
        world.call("GET", "/up/real", &[("x-end-user", MEGAN), (header, "/photos")], empty()).await.is_ok();
        assert_eq!(upstream.last().target, "/real", "{header}");
    }
    for header in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        world.call("GET", "/up/real", &[("x-end-user", MEGAN), (header, "DELETE")], empty()).await.is_ok();
        assert_eq!(upstream.last().method, "GET", "{header}");
    }
}

/// Without the removal of what stands in the attach place, and of `Authorization` whatever the place, the client's own would go upstream.
#[tokio::test]
async fn threat_12_the_clients_own_authorization_is_replaced_and_never_taken_for_a_name() {
    let (world, upstream) = world("", "").await;
    let token = world.connect(MEGAN).await.access_token;
    for own in ["Bearer client-made-up", "Basic bWVnYW46cHc=", "attache x"] {
        world.call("GET", "/up/x", &[("x-end-user", MEGAN), ("authorization", own)], empty()).await.is_ok();
        assert_eq!(upstream.last().header("authorization"), format!("Bearer {}", token.expose()));
    }
    let bearer = format!("Bearer {MEGAN}");
    let answer = world.call("GET", "/up/x", &[("authorization", &bearer)], empty()).await;
    answer.is_problem("end-user-missing", 400, "http_request_denied");
}

#[tokio::test]
async fn each_way_to_attach_puts_the_token_in_its_place_and_nowhere_else() {
    for (attach, header, before) in [
        ("bearer", "authorization", "Bearer "),
        ("{scheme: token}", "authorization", "token "),
        ("{header: X-Api-Token}", "x-api-token", ""),
    ] {
        let (world, upstream) = world("", &format!("    attach: {attach}\n")).await;
        let token = world.connect(MEGAN).await.access_token;
        let own = [("x-end-user", MEGAN), ("authorization", "Bearer own"), ("x-api-token", "own")];
        world.call("GET", "/up/x?access_token=own", &own, empty()).await.is_ok();
        let seen = upstream.last();
        assert_eq!(seen.header(header), format!("{before}{}", token.expose()), "{attach}");
        assert_eq!(upstream.bytes().matches(token.expose()).count(), 1, "{attach}");
        assert!(seen.all("authorization").iter().all(|value| !value.contains("own")), "{attach}");
    }
    let (world, upstream) = world("", "    attach: {query: access_token}\n").await;
    let token = world.connect(MEGAN).await.access_token;
    let own = [("x-end-user", MEGAN), ("authorization", "Bearer own")];
    world.call("GET", "/up/x?a=1&access_token=own&access%5Ftoken=own&b=2", &own, empty()).await.is_ok();
    let seen = upstream.last();
    assert_eq!(seen.target, format!("/x?a=1&b=2&access_token={}", token.expose()));
    assert!(seen.all("authorization").is_empty());
}

#[tokio::test]
async fn a_routes_own_headers_go_on() {
    let keys = "    headers:\n      set: {Accept: application/json, X-Rest: \"rest={rest}\"}\n      add: {X-Tag: two}\n      remove: [User-Agent]\n";
    let (world, upstream) = world("", keys).await;
    let headers = [("x-end-user", MEGAN), ("accept", "text/html"), ("x-tag", "one"), ("user-agent", "pixie/1"), ("x-rest", "forged")];
    world.call("GET", "/up/a%20b/c", &headers, empty()).await.is_ok();
    let seen = upstream.last();
    assert_eq!((seen.header("accept"), seen.header("x-rest")), ("application/json", "rest=a b/c"));
    assert_eq!(seen.all("x-tag"), ["one", "two"]);
    assert!(seen.all("user-agent").is_empty());
}

/// Without the removal of both headers, a cookie jar in the app would carry one user's session into another's call; without `Vary` a cache would
/// answer one with what is the other's.
#[tokio::test]
async fn threat_41_cookies_stay_out_unless_asked_for_and_vary_is_on_every_answer() {
    let answered = "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nVary: Accept\r\n";
    let (strip, upstream) = world(answered, "").await;
    let cookie = [("x-end-user", MEGAN), ("cookie", "session=1")];
    let answer = strip.call("GET", "/up/x", &cookie, empty()).await;
    assert_eq!(answer.is_ok().header("set-cookie"), "");
    let vary = answer.header("vary").to_ascii_lowercase();
    for name in ["accept", "x-end-user", "x-end-user-account"] {
        assert!(vary.split(',').any(|found| found.trim() == name), "{name} is missing in {vary}");
    }
    assert!(upstream.last().all("cookie").is_empty());
    assert!(strip.get("/nowhere").await.header("vary").contains("x-end-user"));

    let (pass, upstream) = world(answered, "    cookies: pass\n").await;
    let answer = pass.call("GET", "/up/x", &cookie, empty()).await;
    assert_eq!(answer.is_ok().header("set-cookie"), "a=1, b=2");
    assert_eq!(upstream.last().header("cookie"), "session=1");
}

#[tokio::test]
async fn what_an_answers_connection_names_stays_behind() {
    let answered = "Connection: X-Hop\r\nConnection: X-Other, Content-Length\r\nX-Hop: 1\r\nX-Other: 2\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Kept: 3\r\nServer: up\r\n";
    let (world, _upstream) = world(answered, "").await;
    let answer = world.get("/up/x").await;
    assert_eq!(answer.is_ok().text(), "ok");
    for name in ["x-hop", "x-other", "keep-alive", "proxy-connection", "upgrade", "connection"] {
        assert_eq!(answer.header(name), "", "{name} came back");
    }
    assert_eq!((answer.header("x-kept"), answer.header("server"), answer.header("content-length")), ("3".into(), "up".into(), "2".into()));
}

#[tokio::test]
async fn a_request_id_is_kept_when_it_is_well_formed_and_made_when_it_is_not() {
    let (world, upstream) = world("X-Request-Id: of-the-upstream\r\n", "").await;
    let call = async |id: &str| {
        let answer = world.call("GET", "/up/x", &[("x-end-user", MEGAN), ("x-request-id", id)], empty()).await;
        let sent = upstream.last().header("x-request-id").to_owned();
        assert_eq!(answer.header("x-request-id"), sent, "one id for both sides");
        sent
    };
    assert_eq!(call("req-1.a:b").await, "req-1.a:b");
    for hostile in ["a b", "a\"b", "", &"x".repeat(129), "<script>"] {
        let made = call(hostile).await;
        assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hostile:?}: {made}");
    }
    let refused = world.call("GET", "/nowhere", &[("x-request-id", "seen-in-errors")], empty()).await;
    assert_eq!(refused.json()["instance"], "seen-in-errors");
}

#[tokio::test]
async fn a_trace_is_carried_or_begun() {
    let (world, upstream) = world("", "").await;
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    world.call("GET", "/up/x", &[("x-end-user", MEGAN), ("traceparent", given), ("tracestate", "a=b")], empty()).await.is_ok();
    let seen = upstream.last();
    let carried = seen.header("traceparent");
    assert!(carried.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && carried.ends_with("-01"), "{carried}");
    assert_eq!(seen.header("tracestate"), "a=b");
    world.get("/up/x").await.is_ok();
    let begun = upstream.last().header("traceparent").to_owned();
    assert_eq!(begun.split('-').map(str::len).collect::<Vec<_>>(), [2, 32, 16, 2], "{begun}");
}

/// Without `guard::check` a page that the browser has open, or a name that an attacker points at 127.0.0.1, would be answered with a user's data.
#[tokio::test]
async fn threat_25_no_web_page_reaches_a_users_tokens() {
    let (world, upstream) = world("", "").await;
    let refuse: &[(&str, &str)] = &[
        ("host", "evil.example"),
        ("host", "localhost.evil.example:7070"),
        ("host", "127.0.0.1.nip.io"),
        ("host", "10.0.0.1"),
        ("origin", "http://evil.example"),
        ("origin", "http://localhost:3000"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ];
    for (name, value) in refuse {
        for (address, path) in [(world.proxy, "/up/x"), (world.admin, "/v1/routes"), (world.admin, "/healthz")] {
            let mut request =
                wire::request("GET", path).header("x-end-user", MEGAN).header("authorization", format!("Bearer {ADMIN_TOKEN}"));
            if *name == "host" {
                request.headers_mut().expect("valid").remove("host");
            }
            let answer = wire::call(address, request.header(*name, *value).body(empty()).expect("a request")).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}: {value} on {path}");
            if address == world.proxy {
                answer.is_problem("caller-refused", 403, "http_request_denied");
            }
        }
    }
    assert_eq!(upstream.seen().len(), 0);
    for (name, value) in [("sec-fetch-site", "none"), ("sec-fetch-site", "same-origin")] {
        world.call("GET", "/up/x", &[("x-end-user", MEGAN), (name, value)], empty()).await.is_ok();
    }
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1:7070", "[::1]:7070", "photos.localhost"] {
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!("GET /up/x HTTP/1.1\r\nHost: {host}\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
        assert_eq!(raw.answer().await.expect("an answer").status, 200, "{host}");
    }
}

#[tokio::test]
async fn hosts_and_origins_that_the_config_names_may_call() {
    let listen = "  proxy: {bind: 127.0.0.1:0, hosts: [photos.internal]}\n  public: 127.0.0.1:0\n  admin: 127.0.0.1:0\n  allowed_origins: [\"http://localhost:3000\"]\n";
    let upstream = Upstream::plain().await;
    let route = format!("  - {{match: GET drive.internal/only, provider: sandbox, upstream: \"http://{}/drive\"}}\n", upstream.address);
    let world = Plan::new().listen(listen).up(upstream.address, "").routes(&route).start().await;
    world.connect(MEGAN).await;
    for (lines, path, status) in [
        ("Host: photos.internal:7070\r\n", "/up/x", 200),
        ("Host: localhost\r\nOrigin: http://localhost:3000\r\nSec-Fetch-Site: same-site\r\n", "/up/x", 200),
        ("Host: localhost\r\nOrigin: http://localhost:3001\r\n", "/up/x", 403),
        ("Host: drive.internal\r\n", "/only", 200),
        ("Host: localhost\r\n", "/only", 404),
    ] {
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!("GET {path} HTTP/1.1\r\n{lines}X-End-User: {MEGAN}\r\n\r\n")).await;
        assert_eq!(raw.answer().await.expect("an answer").status, status, "{lines}{path}");
    }
}

/// Without `Callers::identify` any process of the machine could call; without `guard::may_call` each caller could use every route.
#[tokio::test]
async fn threat_39_callers_with_keys_keep_others_out() {
    let hash = |key: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let top = format!(
        "callers:\n  - {{name: web, key_sha256: {}}}\n  - {{name: job, key_sha256: {}, routes: [list-photos]}}\n",
        hash("web-key"),
        hash("job-key")
    );
    let upstream = Upstream::plain().await;
    let world = Plan::new().top(&top).up(upstream.address, "    callers: [web]\n").start().await;
    world.connect(MEGAN).await;
    let basic = "Basic eDp3ZWIta2V5"; // x:web-key
    for (header, value, path, status) in [
        ("x-attache-key", "web-key", "/up/x", 200),
        ("proxy-authorization", "Bearer web-key", "/up/x", 200),
        ("proxy-authorization", basic, "/up/x", 200),
        ("x-attache-key", "job-key", "/photos", 200),
        ("x-attache-key", "job-key", "/up/x", 403),
        ("x-attache-key", "job-key", "/api/me", 403),
        ("x-attache-key", "wrong", "/up/x", 403),
        ("authorization", "Bearer web-key", "/up/x", 403),
        ("x-other", "web-key", "/up/x", 403),
    ] {
        let answer = world.call("GET", path, &[("x-end-user", MEGAN), (header, value)], empty()).await;
        assert_eq!(answer.status, status, "{header}: {value} {path}: {}", answer.text());
        if status == 403 {
            answer.is_problem("caller-refused", 403, "http_request_denied");
        }
    }
    assert!(!upstream.bytes().contains("web-key"));
}

#[tokio::test]
async fn the_admin_api_wants_its_token_and_health_does_not() {
    let world = World::start().await;
    for path in ["/healthz", "/readyz"] {
        let answer = wire::call(world.admin, wire::request("GET", path).body(empty()).expect("a request")).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    for token in [None, Some("Bearer wrong"), Some(ADMIN_TOKEN), Some("Basic YWRtaW4=")] {
        for (method, path) in [("GET", "/v1/routes"), ("POST", "/v1/reload"), ("GET", "/v1/explain?url=/photos"), ("GET", "/nothing")] {
            let mut request = wire::request(method, path);
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let answer = wire::call(world.admin, request.body(empty()).expect("a request")).await;
            assert_eq!((answer.status.as_u16(), &answer.json()["type"]), (401, &"urn:attache:unauthorized".into()), "{token:?} {path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    let routes = world.admin("GET", "/v1/routes").await.is_ok().json();
    assert_eq!(routes["items"][0]["name"], "list-photos");
    let explained = world.admin("GET", "/v1/explain?method=GET&url=/photos/1").await.is_ok().json();
    assert_eq!((&explained["route"], &explained["attach"]), (&"photo".into(), &"bearer".into()));
    assert_eq!(world.admin("GET", "/nothing").await.status, 404);
    assert_eq!(world.admin("GET", "/v1/reload").await.status, 405);
}
