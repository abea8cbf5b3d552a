//! The admin API as back ends and operators call it: connections page by page, import and export, refresh, deletion, and who may.

use crate::harness::{ALEX, MEGAN, Plan, World, with_headers};
use crate::wire::{self, Raw, whole};
use serde_json::{Value, json};

fn path(user: &str) -> String {
    format!("/v1/connections/sandbox/{user}")
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_come_page_by_page_and_by_filter() {
    let world = World::start().await;
    for number in 0..7 {
        world.connect(&format!("user-{number}")).await;
    }
    world.connect_expired(MEGAN).await;
    world.sandbox.revoke_user(MEGAN);
    world.get("/photos").await;
    let mut users: Vec<String> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let from = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page = world.admin("GET", &format!("/v1/connections?limit=3{from}")).await.is_ok().json();
        users.extend(page["items"].as_array().expect("a list").iter().map(|item| item["end_user"].as_str().expect("a name").to_owned()));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    let mut expected: Vec<String> = (0..7).map(|number| format!("user-{number}")).collect();
    expected.insert(0, MEGAN.to_owned());
    assert_eq!(users, expected);
    for (query, count) in [
        ("state=reconnect_required", 1),
        ("state=active", 7),
        ("end_user=user-3", 1),
        ("provider=sandbox&end_user=user-3", 1),
        ("provider=google", 0),
        ("end_user=user", 0),
    ] {
        let page = world.admin("GET", &format!("/v1/connections?{query}")).await.is_ok().json();
        assert_eq!(page["items"].as_array().map(Vec::len), Some(count), "{query}");
    }
    for query in ["limit=0", "limit=1001", "limit=x", "state=dead", "cursor=nonsense", "unknown=1", "limit=1&limit=2"] {
        let answer = world.admin("GET", &format!("/v1/connections?{query}")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["type"]), (400, &json!("urn:attache:invalid-request")), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_imports_and_a_second_one_keeps_the_connection() {
    let world = World::start().await;
    let grant = world.sandbox.issue_grant(MEGAN, &["photos.read"]).expect("a client");
    let line = json!({"access_token": grant.access_token.expose(), "metadata": {"a": 1}, "scopes": ["photos.read"]});
    let first = world.admin_json("PUT", &path(MEGAN), &line).await;
    assert_eq!(first.status, 201, "{}", first.text());
    world.get("/photos").await.is_ok();
    let second = world
        .admin_json(
            "PUT",
            &path(MEGAN),
            &json!({"provider": "sandbox", "end_user": MEGAN, "access_token": "worthless", "metadata": {"b": 2}}),
        )
        .await;
    assert_eq!(second.status, 200, "{}", second.text());
    assert_eq!((&second.json()["id"], &second.json()["metadata"]), (&first.json()["id"], &json!({"a": 1, "b": 2})));
    assert_eq!(world.get("/photos").await.status, 401, "the new token is in force for the next call");
    for (target, line, status) in [
        (path(MEGAN), json!({}), 400),
        (path(MEGAN), json!({"access_token": "a", "end_user": ALEX}), 400),
        (path(MEGAN), json!({"access_token": "a", "colour": "red"}), 400),
        (path(MEGAN), json!({"api_key": "a", "access_token": "b"}), 400),
        ("/v1/connections/nobody/megan".to_owned(), json!({"access_token": "a"}), 404),
        ("/v1/connections/sandbox/me%2cgan".to_owned(), json!({"access_token": "a"}), 400),
    ] {
        let answer = world.admin_json("PUT", &target, &line).await;
        assert_eq!(answer.status.as_u16(), status, "{target} {line}: {}", answer.text());
    }
    let patched = world.admin_json("PATCH", &path(MEGAN), &json!({"metadata": {"a": null, "c": [3]}})).await;
    assert_eq!(patched.is_ok().json()["metadata"], json!({"b": 2, "c": [3]}));
    assert_eq!(world.admin_json("PATCH", &path(ALEX), &json!({"metadata": {}})).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_any_letters_have_their_own_path() {
    let world = World::start().await;
    for user in ["a/b", "megan+1@personalemail.com", "日本", "a%2Fb"] {
        let encoded = percent_encoding::utf8_percent_encode(user, percent_encoding::NON_ALPHANUMERIC).to_string();
        let target = format!("/v1/connections/sandbox/{encoded}?account=w%20k");
        assert_eq!(world.admin_json("PUT", &target, &json!({"access_token": "a"})).await.status, 201, "{user}");
        let shown = world.admin("GET", &target).await.is_ok().json();
        assert_eq!((&shown["end_user"], &shown["account"]), (&json!(user), &json!("w k")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_sealed_and_comes_back_whole() {
    let world = World::connected().await;
    let before = world.stored(MEGAN).await.expect("connected");
    let page = world.admin("GET", "/v1/connections/export").await.is_ok().json();
    let line = page["items"][0].clone();
    let refresh_token = before.refresh_token.clone().expect("renewable");
    assert!(!line.to_string().contains(refresh_token.expose()) && !line.to_string().contains(before.access_token.expose()));
    world.admin("DELETE", &path(MEGAN)).await.is_ok();
    let back = world.admin_json("PUT", &path(MEGAN), &line).await;
    assert_eq!(back.status, 201, "{}", back.text());
    assert_eq!(world.stored(MEGAN).await, Some(before));
    // For another connection it does not open.
    let mut moved = line.clone();
    moved["end_user"] = ALEX.into();
    assert_eq!(world.admin_json("PUT", &path(ALEX), &moved).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_says_what_was_revoked() {
    let world = Plan::new()
        .providers("  silent: {token_url: https://silent.example/token, client_id: a, token_hosts: [silent.example]}\n")
        .start()
        .await;
    world.connect(MEGAN).await;
    world.get("/photos").await.is_ok();
    let deleted = world.admin("DELETE", &path(MEGAN)).await.is_ok().json();
    assert_eq!(deleted["revoked"], "yes", "{deleted}");
    assert_eq!(world.sandbox.counters().revocations, 1);
    world.get("/photos").await.is_problem("not-connected", 401, "http_request_denied");
    assert_eq!(world.admin("DELETE", &path(MEGAN)).await.status, 404);
    world.import(&json!({"provider": "silent", "end_user": MEGAN, "access_token": "a"})).await;
    let deleted = world.admin("DELETE", "/v1/connections/silent/megan@personalemail.com").await.is_ok().json();
    assert_eq!(deleted["revoked"], "unsupported", "{deleted}");
    // The provider is down: the connection goes all the same.
    world.connect(ALEX).await;
    world.sandbox.change(|settings| settings.clients.clear());
    let deleted = world.admin("DELETE", &path(ALEX)).await.is_ok().json();
    assert_eq!(deleted["revoked"], "no", "{deleted}");
    assert_eq!(world.stored(ALEX).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_refresh_tells_what_came_of_it() {
    let world = World::connected().await;
    let before = world.stored(MEGAN).await.expect("connected");
    let refresh = format!("{}/refresh", path(MEGAN));
    let answer = world.admin("POST", &refresh).await;
    assert_eq!(answer.is_ok().json()["state"], "active");
    assert_ne!(world.stored(MEGAN).await.expect("connected").access_token, before.access_token);
    world.sandbox.change(|settings| {
        settings.fail_token = Some(attache::sandbox::FailToken {
            status: 503,
            content_type: "text/plain".into(),
            body: "later".into(),
            retry_after: None,
            times: Some(1),
        });
    });
    let failed = world.admin("POST", &refresh).await;
    assert_eq!((failed.status.as_u16(), &failed.json()["type"]), (502, &json!("urn:attache:refresh-failed")));
    world.sandbox.revoke_user(MEGAN);
    let dead = world.admin("POST", &refresh).await;
    assert_eq!((dead.status.as_u16(), &dead.json()["type"]), (409, &json!("urn:attache:reconnect-required")));
    assert_eq!(world.admin("GET", &path(MEGAN)).await.is_ok().json()["state"], "reconnect_required");
    assert_eq!(world.admin("POST", &format!("{}/refresh", path(ALEX))).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_admin_token_may_what_its_allow_says() {
    let tokens = "admin:\n  tokens:\n    - {name: backend, token: token-of-the-back-end, allow: [connect]}\n    - {name: looker, token: token-of-the-looker, allow: [read]}\n    - {name: vault, token: token-of-the-vault, allow: [tokens]}\n";
    let world = Plan::new().admin(tokens).start().await;
    world.connect(MEGAN).await;
    let call = async |token: &str, method: &str, target: &str, body: Value| {
        let request = with_headers(wire::request(method, target), &[("authorization", &format!("Bearer token-of-the-{token}"))]);
        wire::call(world.admin, request.body(whole(body.to_string())).expect("a request")).await
    };
    let token = format!("{}/token", path(MEGAN));
    for (who, method, target, body, status) in [
        ("back-end", "POST", "/v1/connect-sessions", json!({"end_user": MEGAN}), 201),
        ("back-end", "GET", "/v1/connections", json!({}), 403),
        ("back-end", "GET", token.as_str(), json!({}), 403),
        ("looker", "GET", "/v1/connections", json!({}), 200),
        ("looker", "POST", "/v1/connect-sessions", json!({"end_user": MEGAN}), 403),
        ("looker", "DELETE", path(MEGAN).as_str(), json!({}), 403),
        ("looker", "POST", "/v1/reload", json!({}), 403),
        ("vault", "GET", token.as_str(), json!({}), 200),
        ("vault", "GET", path(MEGAN).as_str(), json!({}), 403),
    ] {
        let answer = call(who, method, target, body).await;
        assert_eq!(answer.status.as_u16(), status, "{who} {method} {target}: {}", answer.text());
    }
    let shown = call("vault", "GET", &token, json!({})).await.json();
    assert_eq!(shown["access_token"], world.stored(MEGAN).await.expect("connected").access_token.expose());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_knows_its_peers_by_uid() {
    let world = Plan::new()
        .listen("  proxy: 127.0.0.1:0\n  public: 127.0.0.1:0\n  admin: {bind: [\"127.0.0.1:0\", \"unix:./admin.sock\"]}\n")
        .start()
        .await;
    let socket = world.folder.path().join("admin.sock");
    let mut stream = tokio::net::UnixStream::connect(&socket).await.expect("connected");
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(b"GET /v1/connections HTTP/1.1\r\nHost: attache\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    // On TCP nobody is known without a token.
    let mut raw = Raw::open(world.admin).await;
    raw.send("GET /v1/connections HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(raw.answer().await.expect("an answer").status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_told_and_does_nothing() {
    let world = World::start().await;
    for (method, target, body, status) in [
        ("POST", "/v1/connect-sessions", "", 400),
        ("POST", "/v1/connect-sessions", "[]", 400),
        ("POST", "/v1/connect-sessions", "{\"end_user\": \"a,b\"}", 400),
        ("POST", "/v1/connect-sessions", "{\"end_user\": \"megan\", \"providers\": [\"sandbx\"]}", 400),
        ("POST", "/v1/connect-sessions", "{\"end_user\": \"megan\", \"ttl_s\": 5}", 400),
        ("POST", "/v1/connect-sessions", "{\"end_user\": \"megan\", \"params\": {\"redirect_uri\": \"x\"}}", 400),
        ("POST", "/v1/connect-sessions", "{\"end_user\": \"megan\", \"return_ulr\": \"x\"}", 400),
        ("POST", "/v1/device-sessions", "{\"end_user\": \"megan\"}", 400),
        ("DELETE", "/v1/connect-sessions", "", 405),
        ("GET", "/v1/nothing", "", 404),
        ("GET", "/v1/explain", "", 400),
    ] {
        let request = wire::request(method, target).header("authorization", format!("Bearer {}", crate::harness::ADMIN_TOKEN));
        let answer = wire::call(world.admin, request.body(whole(body.to_owned())).expect("a request")).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {target} {body}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let near = world.admin_json("POST", "/v1/connect-sessions", &json!({"end_user": MEGAN, "providers": ["sandbx"]})).await;
    assert!(near.text().contains("did you mean `sandbox`?"), "{}", near.text());
    let request = wire::request("POST", "/v1/connect-sessions").header("authorization", format!("Bearer {}", crate::harness::ADMIN_TOKEN));
    let large = wire::call(world.admin, request.body(whole(vec![b' '; 300_000])).expect("a request")).await;
    assert_eq!(large.status, 413);
    assert_eq!(world.admin("GET", "/v1/connections").await.is_ok().json()["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_tell_the_exact_redirect_uri() {
    let world = World::start().await;
    let shown = world.admin("GET", "/v1/providers").await.is_ok().json();
    let uri = format!("http://localhost:{}/oauth/callback/sandbox", world.public.port());
    assert_eq!((&shown["items"][0]["redirect_uri"], &shown["items"][0]["connectable"]), (&json!(uri), &json!(true)));
}

#[test]
fn the_committed_openapi_document_is_the_one_that_is_served() {
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json")).expect("docs/openapi.json");
    assert_eq!(
        committed,
        format!("{:#}\n", attache::server::admin::openapi::document()),
        "run: attache schema openapi > docs/openapi.json"
    );
}
