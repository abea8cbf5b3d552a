//! Who calls, and for whom, under attack: rows 10, 13, 27, 39 and 45 of the threat table. The others of identity stand in `headers.rs`, `jwt.rs`,
//! `placeholder.rs` and `tokens.rs`.

use crate::harness::*;
use crate::process::{Process, run_with};
use crate::upstream::{Reply, Upstream};
use crate::wire::{self, Connection, Raw, empty, within};
use futures_util::future::join_all;
use jsonwebtoken::{EncodingKey, Header, encode};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A thousand users whose calls take turns on eight connections. Anything of a call that outlived it on its worker or its connection (a name, a
/// token, a prepared header) would show as another user's token upstream, or as another's answer here.
/// Fails when anything of a call is kept on its connection or worker, such as the name or the prepared header.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_10_a_thousand_interleaved_users_each_with_their_own_token() {
    let api = Upstream::start(|seen| Reply::ok("", seen.header("authorization"))).await;
    let world = Plan::new().up(api.address, "").start().await;
    let mut users = Vec::new();
    for number in 0..1000 {
        let user = format!("user-{number}@example.com");
        let token = world.connect(&user).await.access_token.expose().to_owned();
        users.push((user, format!("Bearer {token}")));
    }
    let users = Arc::new(users);
    let clients = (0..8).map(|client| {
        let (users, proxy) = (Arc::clone(&users), world.proxy);
        tokio::spawn(async move {
            let mut connection = Connection::open(proxy).await;
            // 389 and 1000 have no common divisor: each client comes by all of them, each in another order.
            for call in 0..1000 {
                let (user, token) = &users[(client * 125 + call * 389) % users.len()];
                let request = wire::request("GET", "/up/x").header("x-end-user", user).body(empty()).expect("a request");
                assert_eq!(connection.call(request).await.is_ok().text(), *token, "{user}");
            }
        })
    });
    for client in within("eight thousand calls", join_all(clients)).await {
        client.expect("each call its own user's");
    }
    assert_eq!(api.seen().len(), 8000);
    assert!(api.connections() <= 16, "over few connections: {}", api.connections());
}

/// The log as a process writes it, in text and in JSON, at the level of every byte. Without the escapes of what a client or a server said, a
/// line of its own or a colour would show.
#[tokio::test]
async fn threat_13_nobody_writes_into_the_log() {
    let api = Upstream::start(|seen| match seen.target.split('?').next().unwrap_or_default() {
        "/broken" => Reply::Close(b"HTTP/1.1 200 \x1b[31mOK\r\nX: \x1b]0;FORGED\x07\r\nFORGED line\r\n\r\n".to_vec()),
        "/reason" => Reply::ok("X-Odd: \x7f\r\nServer: \"FORGED\"\r\n", "\x1b[31m\nFORGED\n"),
        _ => Reply::ok("", "ok"),
    })
    .await;
    let token = Upstream::start(|_| {
        let body = json!({"error": "bad\nFORGED", "error_description": "\u{1b}[31m\r\nFORGED refused"}).to_string();
        Reply::Keep(format!("HTTP/1.1 400 Bad\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    })
    .await;
    for format in ["text", "json"] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "listen: {{proxy: \"127.0.0.1:0\", public: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}}\nproviders:\n  sandbox:\n    client_id: a\n    client_secret: b\n    \
             authorize_url: http://{0}/a\n    token_url: http://{0}/t\n    token_hosts: [\"{1}\"]\nroutes:\n  - {{match: '/up/{{*rest}}', as: none, upstream: 'http://{1}/{{rest}}'}}\n  \
             - {{match: '/own/{{*rest}}', provider: sandbox, upstream: 'http://{1}/{{rest}}'}}\n",
            token.address, api.address
        );
        fs::write(folder.path().join("routes.yaml"), config).expect("written");
        let line = json!({"provider": "sandbox", "end_user": "a\u{a0}FORGED", "access_token": "x", "refresh_token": "y", "expires_at": "2020-01-01T00:00:00Z"});
        assert_eq!(run_with(folder.path(), &["connections", "import"], &line.to_string()).code, Some(0));
        let mut attache = Process::spawn(folder.path(), &["run", "--log-format", format], &[("RUST_LOG", "trace")]);
        let (proxy, _) = attache.ready().await;
        for request in [
            "GET /up/x%0d%0aFORGED%1b[31m?a=%0aFORGED HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET /up/\x1b[31mFORGED HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET /up/x HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\x1b[31mFORGED\r\nUser-Agent: \tFORGED\r\n\r\n",
            "GET /up/x HTTP/1.1\r\nHost: \x1b[31mFORGED\r\n\r\n",
            "GET /up/x HTTP/1.1\r\nHost: localhost\r\nX\x0bForged: 1\r\n\r\n",
            "FORGED|~ /up/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET /up/broken HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET /up/reason HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET /own/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: a\u{a0}FORGED\r\n\r\n",
            "GET /own/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: \x1b[31mFORGED\r\n\r\n",
            "GET /own/x HTTP/1.1\r\nHost: localhost\r\nX-End-User: a\r\nX-End-User-Account: \"}\\n FORGED\r\n\r\n",
            "\x1b[31mFORGED\r\n\r\n",
        ] {
            let mut raw = Raw::open(proxy).await;
            raw.send(request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
            raw.rest().await;
        }
        attache.signal(Signal::TERM);
        assert_eq!(attache.ended().await, Some(0));
        let log = attache.err();
        assert!(log.contains("upstream failed") && log.lines().count() > 15, "{format}: {log}");
        for line in log.lines() {
            assert!(!line.chars().any(char::is_control), "{format}: {line:?}");
            assert!(!line.trim_start().starts_with("FORGED"), "{format}: {line:?}");
            let is_a_line = match format {
                "json" => serde_json::from_str::<Value>(line).is_ok_and(|line| line["timestamp"].is_string() && line["level"].is_string()),
                _ => line.starts_with("20"),
            };
            assert!(is_a_line, "{format}: {line:?}");
        }
    }
}

/// A signed end user's token, like any other secret, is in no log at any level.
/// Fails when the header that names the end user is logged.
#[tokio::test]
async fn threat_21_the_end_users_own_token_is_in_no_log() {
    let (api, secret) = (Upstream::plain().await, "CANARY-a-secret-of-more-than-32-bytes");
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "listen: {{proxy: \"127.0.0.1:0\", public: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}}\nend_user: {{placeholder: true, jwt: {{secret_file: ./jwt}}}}\n\
         providers:\n  sandbox: {{client_id: a, client_secret: b, authorize_url: 'http://127.0.0.1:1/a', token_url: 'http://127.0.0.1:1/t', token_hosts: ['{0}']}}\n\
         routes:\n  - {{match: '/up/{{*rest}}', provider: sandbox, upstream: 'http://{0}/{{rest}}'}}\n",
        api.address
    );
    fs::write(folder.path().join("routes.yaml"), config).expect("written");
    fs::write(folder.path().join("jwt"), secret).expect("written");
    let mut attache = Process::spawn(folder.path(), &["run"], &[("RUST_LOG", "trace")]);
    let (proxy, _) = attache.ready().await;
    let token = |name: &str, exp: i64| {
        encode(&Header::default(), &json!({"sub": name, "exp": exp}), &EncodingKey::from_secret(secret.as_bytes())).expect("signed")
    };
    let tokens = [token("nobody", 4_000_000_000), token("a,b", 4_000_000_000), token("nobody", 1), "CANARY".repeat(2000)];
    for token in &tokens {
        for (name, value) in [("x-end-user", token.clone()), ("authorization", format!("Bearer {token}"))] {
            let request = wire::request("GET", "/up/x").header(name, value).body(empty()).expect("a request");
            let answer = wire::call(proxy, request).await;
            assert!([400, 401].contains(&answer.status.as_u16()), "{}", answer.status);
            assert!(!answer.text().contains(&token[..16]) && !answer.text().contains("CANARY"), "{}", answer.text());
        }
    }
    attache.signal(Signal::TERM);
    assert_eq!(attache.ended().await, Some(0));
    let log = attache.err();
    for part in tokens.iter().flat_map(|token| token.split('.')).chain([secret]) {
        assert!(!log.contains(&part[..16.min(part.len())]) || part.starts_with("eyJ0eXAi") || part.starts_with("eyJhbGci"), "{part}");
        assert!(!log.contains(part), "{part}");
    }
    assert_eq!(api.connections(), 0);
}

/// Keys are compared by their digests, all of them, in constant time (`Callers::identify_with`): what is seen from outside is that a wrong key,
/// one that shares a beginning with a good one, and none get one and the same answer. An early return for any of these makes it fail.
#[tokio::test]
async fn threat_27_a_wrong_key_and_none_get_the_same_answer() {
    let key = "k-0123456789abcdef";
    let top = format!("callers:\n  - {{name: app, key_sha256: {}}}\n  - {{name: peer, uid: 4000000000}}\n", sha256(key));
    let api = Upstream::plain().await;
    let world = Plan::new().top(&top).up(api.address, "").start().await;
    world.connect(MEGAN).await;
    let long = "k".repeat(20_000);
    let mut answers = Vec::new();
    for shown in
        [None, Some(""), Some("wrong"), Some("k-0123456789abcde"), Some("k-0123456789abcdef0"), Some("K-0123456789ABCDEF"), Some(&*long)]
    {
        for path in ["/up/x", "/no/such/route", "/up/../x"] {
            for place in ["x-attache-key", "proxy-authorization"] {
                let value = shown.map(|shown| if place == "x-attache-key" { shown.to_owned() } else { format!("Bearer {shown}") });
                let mut headers = vec![("x-end-user", MEGAN)];
                headers.extend(value.as_deref().map(|value| (place, value)));
                let answer = world.call("GET", path, &headers, empty()).await;
                answer.is_problem("caller-refused", 403, "http_request_denied");
                let mut body = answer.json();
                body.as_object_mut().expect("an object").remove("instance");
                let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
                names.sort();
                answers.push((body, names));
            }
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    // Two keys that differ are no key, whichever comes first; twice the same in two places is one.
    let basic = format!("Bearer {key}");
    for (headers, status) in [
        (&[("x-attache-key", key), ("proxy-authorization", "Bearer wrong")][..], 403),
        (&[("x-attache-key", "wrong"), ("proxy-authorization", &basic)], 403),
        (&[("x-attache-key", key), ("x-attache-key", "wrong")], 403),
        (&[("x-attache-key", key), ("proxy-authorization", &basic)], 200),
    ] {
        let headers: Vec<_> = headers.iter().copied().chain([("x-end-user", MEGAN)]).collect();
        assert_eq!(world.call("GET", "/up/x", &headers, empty()).await.status, status, "{headers:?}");
    }
    assert!(!api.bytes().contains("k-0123"), "no key goes upstream");
}

/// One call over a unix socket: its status.
async fn over_unix(socket: &Path, lines: &str) -> u16 {
    let mut stream = tokio::net::UnixStream::connect(socket).await.expect("connected");
    let call = format!("GET /up/x HTTP/1.1\r\nX-End-User: {MEGAN}\r\nHost: any\r\n{lines}Connection: close\r\n\r\n");
    stream.write_all(call.as_bytes()).await.expect("written");
    let mut text = String::new();
    within("an answer", stream.read_to_string(&mut text)).await.expect("text");
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// A caller is known by the user id that the kernel tells of the socket's other end: nothing that a client sends can change it. With a key
/// beside it both must fit; over TCP there is no user id, and nobody is taken for one.
/// Fails when a caller with a `uid` is found by anything else, or by nothing.
#[tokio::test]
async fn threat_39_a_unix_socket_lets_in_the_users_that_the_config_names() {
    let own = rustix::process::geteuid().as_raw();
    let listen = "  proxy: {bind: [\"127.0.0.1:0\", \"unix:./proxy.sock\"]}\n  public: 127.0.0.1:0\n  admin: 127.0.0.1:0\n";
    let key = "k-unix-3c";
    for (callers, lines, unix, tcp) in [
        (format!("[{{name: me, uid: {own}}}]"), "", 200, 403),
        (format!("[{{name: other, uid: {}}}]", own + 1), "", 403, 403),
        (format!("[{{name: both, uid: {own}, key_sha256: {}}}]", sha256(key)), "X-Attache-Key: k-unix-3c\r\n", 200, 403),
        (format!("[{{name: both, uid: {own}, key_sha256: {}}}]", sha256(key)), "", 403, 403),
        (format!("[{{name: both, uid: {}, key_sha256: {}}}]", own + 1, sha256(key)), "X-Attache-Key: k-unix-3c\r\n", 403, 403),
        (format!("[{{name: key, key_sha256: {}}}]", sha256(key)), "X-Attache-Key: k-unix-3c\r\n", 200, 200),
        (format!("[{{name: me, uid: {own}, providers: []}}]"), "", 403, 403),
        (format!("[{{name: me, uid: {own}, routes: [list-photos]}}]"), "", 403, 403),
        (format!("[{{name: me, uid: {own}, routes: [up], providers: [sandbox]}}]"), "", 200, 403),
        // A key that fits nobody is a mistake to tell, not one to overlook.
        (format!("[{{name: me, uid: {own}}}]"), "X-Attache-Key: wrong\r\n", 403, 403),
    ] {
        let api = Upstream::plain().await;
        let world = Plan::new().listen(listen).top(&format!("callers: {callers}\n")).up(api.address, "").start().await;
        world.connect(MEGAN).await;
        assert_eq!(over_unix(&world.folder.path().join("proxy.sock"), lines).await, unix, "{callers}");
        let headers: Vec<(&str, &str)> =
            lines.lines().filter_map(|line| line.split_once(": ")).chain([("x-end-user", MEGAN), ("x-attache-uid", "0")]).collect();
        let headers: Vec<(String, &str)> = headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, *value)).collect();
        assert_eq!(world.call("GET", "/up/x", &headers, empty()).await.status, tcp, "{callers} over TCP");
        assert!(!api.bytes().contains(key));
    }
}

/// Without the bound of what is remembered of misses (`MISSES_MAX`), of who calls (`KEYS_MAX` of a limit) or of slots, each round would cost as
/// much memory as the one before: some 400 bytes a name. The exact bounds are held by `token::tests::grants` and `limit::buckets`, where they can
/// be counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_45_twenty_thousand_unknown_users_leave_nothing_behind() {
    let (api, token) = (Upstream::plain().await, Upstream::plain().await);
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "listen: {{proxy: \"127.0.0.1:0\", public: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}}\nproviders:\n  sandbox: {{client_id: a, client_secret: b, \
         authorize_url: 'http://{0}/a', token_url: 'http://{0}/t', token_hosts: ['{1}']}}\nroutes:\n  - {{match: '/up/{{*rest}}', provider: sandbox, \
         upstream: 'http://{1}/{{rest}}', rate_limit: {{user: 1/d, route: 1000000/s}}}}\n",
        token.address, api.address
    );
    fs::write(folder.path().join("routes.yaml"), config).expect("written");
    let mut attache = Process::spawn(folder.path(), &["run"], &[("RUST_LOG", "warn,attache=warn,attache::app=info")]);
    let (proxy, _) = attache.ready().await;
    let mut after = Vec::new();
    for round in 0..4 {
        let clients = (0..8).map(|client| {
            tokio::spawn(async move {
                let mut connection = Connection::open(proxy).await;
                for number in 0..625 {
                    let name = format!("nobody-{round}-{client}-{number}-{}", "x".repeat(200));
                    let request = wire::request("GET", "/up/x").header("x-end-user", name).body(empty()).expect("a request");
                    assert_eq!(connection.call(request).await.status, 401);
                }
            })
        });
        for client in within("five thousand calls", join_all(clients)).await {
            client.expect("answered");
        }
        after.push(attache.resident_kib());
    }
    assert_eq!((token.connections(), api.connections()), (0, 0), "nobody else hears of any of it");
    let grown = after[3].saturating_sub(after[1]);
    assert!(grown < 3_000, "ten thousand more names cost {grown} KiB: {after:?}");
}
