//! Listeners that are one upstream's whole origin, and routes that a host picks.

use crate::harness::*;
use crate::upstream::Upstream;
use crate::wire::{self, empty};
use attache::config;
use std::fs;

const LISTEN: &str = "  proxy: 127.0.0.1:0\n  public: 127.0.0.1:0\n  admin: 127.0.0.1:0\n";

async fn world(more: &str) -> (World, Upstream, String) {
    let api = Upstream::plain().await;
    let origins = format!(
        "{LISTEN}  origins:\n    - {{bind: 127.0.0.1:0, provider: sandbox, upstream: 'http://{}', timeout: {{total: 20s}}{more}}}\n    - {{bind: 127.0.0.1:0, name: versioned, as: none, upstream: 'http://{}/v2/?k=1', cookies: pass}}\n",
        api.address, api.address
    );
    let world = Plan::new().listen(&origins).token_host(api.address).start().await;
    let token = world.connect(MEGAN).await.access_token.expose().to_owned();
    (world, api, token)
}

#[tokio::test]
async fn a_listener_is_a_whole_origin() {
    let (world, api, token) = world("").await;
    let at = world.running.origins[0];
    for (method, path) in
        [("GET", "/"), ("GET", "/drive/v3/files?q=a%20b"), ("POST", "/a//b%2Fc/;x"), ("DELETE", "/photos"), ("OPTIONS", "/x")]
    {
        let request = wire::request(method, path).header("x-end-user", MEGAN).header("cookie", "a=b");
        wire::call(at, request.body(empty()).expect("a request")).await.is_ok();
        let seen = api.last();
        assert_eq!((&*seen.method, &*seen.target, seen.header("cookie")), (method, path, ""));
        assert_eq!((seen.header("authorization"), seen.header("host")), (&*format!("Bearer {token}"), &*api.address.to_string()));
    }
    let request = wire::request("GET", "/files").header("cookie", "a=b").body(empty()).expect("a request");
    wire::call(world.running.origins[1], request).await.is_ok();
    assert_eq!((&*api.last().target, api.last().header("cookie")), ("/v2/files?k=1", "a=b"));
    // The routes of the proxy listener are not here, nor is the origin there.
    world.get("/drive/v3/files").await.is_problem("no-route", 404, "http_request_denied");
}

#[tokio::test]
async fn guard_names_and_paths_hold_on_it_as_on_the_proxy_listener() {
    let (world, api, _) = world(", hosts: [api.internal]").await;
    let at = world.running.origins[0];
    let call = async |path: &str, headers: &[(&str, &str)]| {
        let request = with_headers(http::Request::builder().uri(path), headers);
        wire::call(at, request.body(empty()).expect("a request")).await
    };
    call("/x", &[("host", "api.internal"), ("x-end-user", MEGAN)]).await.is_ok();
    call("/x", &[("host", "evil.example"), ("x-end-user", MEGAN)]).await.is_problem("caller-refused", 403, "http_request_denied");
    call("/x", &[("host", "localhost"), ("origin", "http://localhost:3000")]).await.is_problem(
        "caller-refused",
        403,
        "http_request_denied",
    );
    call("/x", &[("host", "localhost")]).await.is_problem("end-user-missing", 400, "http_request_denied");
    call("/a/../x", &[("host", "localhost"), ("x-end-user", MEGAN)]).await.is_problem("bad-path", 400, "http_request_error");
    // Its hosts are its own: the proxy listener does not answer to them.
    let request = http::Request::builder().uri("/photos").header("host", "api.internal").header("x-end-user", MEGAN);
    let answer = wire::call(world.proxy, request.body(empty()).expect("a request")).await;
    answer.is_problem("caller-refused", 403, "http_request_denied");
    assert_eq!(api.seen().len(), 1);
}

#[tokio::test]
async fn an_sdk_needs_nothing_but_its_base_url_and_its_token_setting() {
    let (world, api, token) = world(", placeholder: true").await;
    let request = wire::request("GET", "/v1/me").header("authorization", format!("Bearer {MEGAN}")).body(empty()).expect("a request");
    wire::call(world.running.origins[0], request).await.is_ok();
    assert_eq!(api.last().header("authorization"), format!("Bearer {token}"));
}

#[tokio::test]
async fn its_route_changes_live_and_its_address_at_a_restart() {
    let (world, api, _) = world("").await;
    let at = world.running.origins[0];
    let call = async || {
        let request = wire::request("GET", "/x").header("x-end-user", MEGAN).body(empty()).expect("a request");
        wire::call(at, request).await
    };
    let text = fs::read_to_string(world.config()).expect("read");
    let reload = async |text: &str| {
        fs::write(world.config(), text).expect("written");
        world.admin("POST", "/v1/reload").await.is_ok().json()["restart_required"].clone()
    };
    let new = text.replace("timeout: {total: 20s}", "headers: {set: {X-New: yes}}");
    assert_eq!(reload(&new).await, serde_json::json!([]));
    call().await.is_ok();
    assert_eq!(api.last().header("x-new"), "yes");
    // Gone from the file, it goes on as it was until the restart.
    let entry = new.lines().find(|line| line.contains("X-New")).expect("the entry");
    let gone = new.replace(&format!("{entry}\n"), "");
    // The listener that is left has the same address text, port 0: give it another, so that it is not taken for the first.
    let gone = gone.replace("bind: 127.0.0.1:0, name: versioned", "bind: 127.0.0.2:0, name: versioned");
    assert_eq!(reload(&gone).await, serde_json::json!(["listen.origins"]));
    call().await.is_ok();
    assert_eq!(api.last().header("x-new"), "yes");
    // With its provider's leave withdrawn, it is a route no longer.
    let hosts = gone.replace(&format!("\"{}\", ", api.address), "");
    reload(&hosts).await;
    let before = api.seen().len();
    call().await.is_problem("no-route", 404, "http_request_denied");
    assert_eq!(api.seen().len(), before);
}

#[test]
fn explain_knows_an_origin_by_its_address() {
    let yaml = "listen:\n  origins:\n    - {bind: ['127.0.0.1:7081', 'localhost:7083'], hosts: [g.internal], provider: google, upstream: https://www.googleapis.com}\nproviders:\n  google: {client_id: a}\nroutes:\n  - {match: GET /x, provider: google, upstream: https://www.googleapis.com/other}\n";
    let file = std::path::Path::new("routes.yaml");
    let snapshot = config::load_str(yaml, file, std::path::Path::new("/"), &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    let explain = |url: &str| attache::proxy::explain::explain(&snapshot, &http::Method::GET, url).expect("explained");
    for (url, expected) in [
        ("http://127.0.0.1:7081/x?a=1", Some("https://www.googleapis.com/x?a=1")),
        ("http://localhost:7081/", Some("https://www.googleapis.com/")),
        ("http://[::1]:7083/y", Some("https://www.googleapis.com/y")),
        ("http://g.internal:7081/y", Some("https://www.googleapis.com/y")),
        ("http://127.0.0.1:7070/x", Some("https://www.googleapis.com/other")),
        ("/x", Some("https://www.googleapis.com/other")),
        ("http://127.0.0.1:7070/y", None),
    ] {
        assert_eq!(explain(url).upstream_url.as_deref(), expected, "{url}");
    }
    assert_eq!(explain("http://127.0.0.1:7081/x").route.as_deref(), Some("127.0.0.1:7081"));
}

// --- routes with a host -----------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_host_in_the_match_picks_the_route_before_one_without() {
    let (drive, other) = (Upstream::plain().await, Upstream::plain().await);
    let routes = format!(
        "  - {{match: 'GET Drive.localhost/{{*rest}}', provider: sandbox, upstream: 'http://{0}/drive/{{rest}}'}}\n  \
         - {{match: 'drive.internal/files', provider: sandbox, upstream: 'http://{0}/internal'}}\n  \
         - {{match: '/files', provider: sandbox, upstream: 'http://{1}/plain'}}\n",
        drive.address, other.address
    );
    let world = Plan::new().token_host(drive.address).token_host(other.address).routes(&routes).start().await;
    world.connect(MEGAN).await;
    let call = async |method: &str, host: &str| {
        let request = http::Request::builder().method(method).uri("/files").header("host", host).header("x-end-user", MEGAN);
        wire::call(world.proxy, request.body(empty()).expect("a request")).await
    };
    let mut expected = (0, 0);
    for (method, host, target) in [
        ("GET", "drive.localhost", "/drive/files"),
        ("GET", "DRIVE.localhost:7070", "/drive/files"),
        ("HEAD", "drive.localhost:1", "/drive/files"),
        ("GET", "drive.internal", "/internal"),
        ("POST", "drive.internal:99", "/internal"),
        // Its host fits, its method does not: on to the next that takes it.
        ("POST", "drive.localhost", "/plain"),
        ("GET", "localhost:7070", "/plain"),
        ("GET", "other.localhost", "/plain"),
    ] {
        call(method, host).await.is_ok();
        let is_drive = target != "/plain";
        if is_drive {
            expected.0 += 1
        } else {
            expected.1 += 1
        }
        assert_eq!((drive.seen().len(), other.seen().len()), expected, "{method} {host}");
        let seen = if is_drive { drive.last() } else { other.last() };
        assert_eq!(&*seen.target, target, "{method} {host}");
        assert_eq!(seen.header("host"), if is_drive { drive.address.to_string() } else { other.address.to_string() });
    }
    for host in ["drive.internal.evil.example", "xdrive.internal", "evil.example"] {
        call("GET", host).await.is_problem("caller-refused", 403, "http_request_denied");
    }
}
