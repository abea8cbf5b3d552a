//! Attaché as a client's HTTP proxy: whole URLs of upstreams, of its own, and of nobody.

use crate::harness::*;
use crate::tls::{Authority, Secure, names};
use crate::upstream::{Reply, Upstream};
use crate::wire::{Raw, RawAnswer};
use attache::config;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A request as a client with a proxy sends it; `more` are further header lines, each ended by `\r\n`.
async fn ask(proxy: SocketAddr, method: &str, url: &str, more: &str) -> RawAnswer {
    let authority = url.split('/').nth(2).unwrap_or_default();
    let mut raw = Raw::open(proxy).await;
    raw.send(format!("{method} {url} HTTP/1.1\r\nHost: {authority}\r\nProxy-Connection: Keep-Alive\r\n{more}\r\n")).await;
    raw.answer().await.expect("an answer")
}

async fn get(world: &World, url: &str) -> RawAnswer {
    ask(world.proxy, "GET", url, &format!("X-End-User: {MEGAN}\r\n")).await
}

fn problem(answer: &RawAnswer) -> (u16, String, String) {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (answer.status, text("type").replace("urn:attache:", ""), text("detail"))
}

#[track_caller]
fn refused(answer: &RawAnswer, status: u16, name: &str, part: &str) {
    let (found, kind, detail) = problem(answer);
    assert_eq!((found, &*kind), (status, name), "{detail}");
    assert!(detail.contains(part), "{detail}");
}

const ROUTES: &str = "
  - {name: all, match: '/all/{*rest}', provider: sandbox, upstream: 'http://UP/{rest}', query: {fields: id}, headers: {set: {X-Rest: 'r={rest}'}}}
  - {name: drive, match: 'GET drive.localhost/{*path}', provider: sandbox, upstream: 'http://UP/drive/v3/{path}?alt=media'}
  - {name: posts, match: 'POST /posts/{*rest}', as: none, upstream: 'http://UP/posts/{rest}'}
  - {name: send, match: '/send/{*rest}', provider: sandbox, upstream: 'http://UP/sent/{rest}', send: {method: POST, json: {a: 1}}}
  - {name: two, match: '/two/{id}/{*rest}', provider: sandbox, upstream: 'http://UP/two/{id}/{rest}', query: {lost: 'two'}}
  - {name: one, match: '/one/{id}', provider: sandbox, upstream: 'http://UP/one/{id}', query: {lost: 'one'}}
";

#[tokio::test]
async fn a_url_of_an_upstream_is_taken_by_the_route_that_it_falls_under_byte_for_byte() {
    let api = Upstream::plain().await;
    let world = World::in_front_of(&api, ROUTES).await;
    for (method, target, sent) in [
        ("GET", "/a//b%2Fc/;x?y=%20z&y=2", "/a//b%2Fc/;x?y=%20z&y=2&fields=id"),
        ("DELETE", "/drive/v3/x?fields=all", "/drive/v3/x?fields=all"),
        ("GET", "/drive/v3/x%7Ey?alt=json&q=1", "/drive/v3/x%7Ey?q=1&alt=media"),
        ("HEAD", "/drive/v3/", "/drive/v3/?alt=media"),
        ("GET", "/drive/v3", "/drive/v3?fields=id"),
        ("POST", "/posts/1", "/posts/1"),
        ("GET", "/posts/1", "/posts/1?fields=id"),
        // Routes that make a request of their own, or want more captures than a URL holds, take none.
        ("GET", "/sent/x", "/sent/x?fields=id"),
        ("GET", "/two/7/x", "/two/7/x?fields=id"),
        ("GET", "/one/7", "/one/7?fields=id"),
        ("GET", "", "/?fields=id"),
    ] {
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!(
            "{method} http://{0}{target} HTTP/1.1\r\nHost: {0}\r\nX-End-User: {MEGAN}\r\nX-Attache-Key: k\r\nProxy-Connection: Keep-Alive\r\n\r\n",
            api.address
        ))
        .await;
        assert_eq!(raw.answer_to_head().await.expect("an answer").status, 200, "{method} {target}");
        let seen = api.last();
        assert_eq!((&*seen.method, &*seen.target), (method, sent));
        assert_eq!(seen.header("host"), api.address.to_string());
        assert!(!seen.names().iter().any(|name| name.starts_with("x-attache") || name.starts_with("proxy-") || *name == "x-end-user"));
        assert_eq!(seen.header("authorization").is_empty(), target.starts_with("/posts") && method == "POST", "{target}");
    }
    let port = api.address.port();
    refused(&get(&world, &format!("http://{}/a/../b", api.address)).await, 400, "bad-path", "");
    refused(&get(&world, &format!("http://{}/a%5Cb", api.address)).await, 400, "bad-path", "");
    refused(&get(&world, &format!("https://{}/x", api.address)).await, 404, "no-route", "");
    refused(&get(&world, &format!("ftp://{}/x", api.address)).await, 400, "bad-request", "scheme");
    refused(&get(&world, &format!("http://127.0.0.1.evil.example:{port}/x")).await, 404, "no-route", "");
    refused(&get(&world, &format!("http://127.0.0.2:{port}/x")).await, 404, "no-route", "");
    refused(&ask(world.proxy, "GET", &format!("http://{}/x", api.address), "").await, 400, "end-user-missing", "");
}

/// Fails without the guard's comparison of target and `Host`.
#[tokio::test]
async fn threat_07_authority_and_host_are_one_and_name_no_user() {
    // Taken out of `guard::host`, a cache or a balancer in front would be told another host than the one that is called.
    let api = Upstream::plain().await;
    let world = World::in_front_of(&api, ROUTES).await;
    let up = api.address.to_string();
    for (target, host) in [
        (format!("http://{up}/x"), "Host: localhost\r\n".to_owned()),
        (format!("http://{up}/x"), "Host: evil.example\r\n".to_owned()),
        (format!("http://{up}/x"), format!("Host: {up}\r\nHost: {up}\r\n")),
        (format!("http://{up}/x"), "Host:\r\n".to_owned()),
        (format!("http://{up}/x"), String::new()),
        (format!("http://megan@{up}/x"), format!("Host: {up}\r\n")),
        (format!("http://megan@{up}/x"), format!("Host: megan@{up}\r\n")),
        (format!("http://{up}/x"), format!("Host: megan@{up}\r\n")),
        ("http://127.0.0.1:99999/x".to_owned(), "Host: 127.0.0.1:99999\r\n".to_owned()),
    ] {
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!("GET {target} HTTP/1.1\r\n{host}X-End-User: {MEGAN}\r\n\r\n")).await;
        assert_eq!(raw.answer().await.expect("an answer").status, 400, "{target} {host}");
    }
    assert_eq!(api.seen().len(), 0);
}

#[tokio::test]
async fn a_url_of_its_own_is_a_path_and_one_of_nobody_is_none() {
    let api = Upstream::plain().await;
    let world = World::in_front_of(&api, ROUTES).await;
    let own = world.proxy.port();
    for authority in [format!("localhost:{own}"), format!("127.0.0.1:{own}"), "localhost".into(), format!("app.localhost:{own}")] {
        assert_eq!(get(&world, &format!("http://{authority}/all/x?y=1")).await.status, 200, "{authority}");
        assert_eq!(api.last().target, "/x?y=1&fields=id");
    }
    assert_eq!(get(&world, "http://drive.localhost/x").await.status, 200);
    assert_eq!(api.last().target, "/drive/v3/x?alt=media");
    refused(&get(&world, "http://localhost/nowhere").await, 404, "no-route", "No route in routes.yaml");
    let before = api.seen().len();
    // Another server of this machine, whose path would only look like one of ours.
    refused(&get(&world, &format!("http://localhost:{}/all/x", free_port())).await, 404, "no-route", "");
    refused(&get(&world, "http://evil.example/all/x").await, 404, "no-route", "falls under no route's `upstream`");
    refused(&get(&world, "http://evil.example/x").await, 404, "no-route", "attache explain");
    assert_eq!(api.seen().len(), before);
}

/// Fails when the origin is taken from the target instead of from the route that it falls under.
#[tokio::test]
async fn threat_08_a_url_reaches_only_what_the_operator_wrote() {
    // The site is looked up, never dialled: without the look-up in `absolute::resolve`, any host would be called with a user's token.
    let (api, evil) = (Upstream::plain().await, Upstream::plain().await);
    let world = World::in_front_of(&api, ROUTES).await;
    for url in [
        format!("http://{}/drive/v3/x", evil.address),
        format!("http://{}/x", evil.address.to_string().replace("127.0.0.1", "localhost")),
        format!("https://{}/x", evil.address),
        format!("http://{}.evil.example/x", api.address.ip()),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ] {
        for more in ["", "X-Attache-Provider: sandbox\r\n", "X-Forwarded-Host: www.example.com\r\nForwarded: host=www.example.com\r\n"] {
            let answer = ask(world.proxy, "GET", &url, &format!("X-End-User: {MEGAN}\r\n{more}")).await;
            refused(&answer, 404, "no-route", "falls under no route's `upstream`");
        }
    }
    // In a URL of an upstream's, everything behind the authority is path.
    for path in [format!("//{}/x", evil.address), format!("/@{}/x", evil.address), format!("/http://{}/", evil.address)] {
        assert_eq!(get(&world, &format!("http://{}{path}", api.address)).await.status, 200);
        assert_eq!(api.last().target, format!("{path}?fields=id"));
    }
    assert_eq!(evil.connections(), 0);
}

#[tokio::test]
async fn a_tie_is_decided_by_the_named_provider_or_refused() {
    let api = Upstream::plain().await;
    let up = api.address;
    let routes = format!(
        "  - {{name: first, match: 'GET /first/{{*rest}}', provider: sandbox, upstream: 'http://{up}/a/{{rest}}'}}\n  \
         - {{name: second, match: '/second/{{*rest}}', provider: other, upstream: 'http://{up}/a/{{rest}}'}}\n  \
         - {{name: longer, match: 'GET /longer/{{*rest}}', provider: other, upstream: 'http://{up}/a/b/{{rest}}'}}\n  \
         - {{name: twin, match: 'GET /twin/{{*rest}}', provider: other, upstream: 'http://{up}/a/b/{{rest}}', as: none}}\n  \
         - {{name: puts, match: 'PUT /puts/{{*rest}}', provider: sandbox, upstream: 'http://{up}/puts/{{rest}}'}}\n"
    );
    let other = "  other: {client_id: x, client_secret: y, authorize_url: 'http://SANDBOX/authorize', token_url: 'http://SANDBOX/token', token_hosts: ['UP']}\n";
    let world = Plan::new().token_host(up).providers(&other.replace("UP", &up.to_string())).routes(&routes).start().await;
    let token = world.connect(MEGAN).await.access_token.expose().to_owned();
    world
        .import(&json!({"provider": "other", "end_user": MEGAN, "access_token": "other-token", "expires_at": "2027-01-01T00:00:00Z"}))
        .await;
    let named = async |method: &str, path: &str, provider: &str| {
        let line = if provider.is_empty() { String::new() } else { format!("X-Attache-Provider: {provider}\r\n") };
        ask(world.proxy, method, &format!("http://{up}{path}"), &format!("X-End-User: {MEGAN}\r\n{line}")).await
    };
    for (method, path, provider, sent) in [
        ("GET", "/a/x", "sandbox", &*token),
        ("GET", "/a/x", "other", "other-token"),
        ("POST", "/a/x", "", "other-token"),
        ("GET", "/a/b/x", "sandbox", &token),
    ] {
        assert_eq!(named(method, path, provider).await.status, 200, "{method} {path} {provider}");
        let seen = api.last();
        assert_eq!((seen.header("authorization"), &*seen.target), (&*format!("Bearer {sent}"), path));
        assert!(!seen.names().contains(&"x-attache-provider"));
    }
    let before = api.seen().len();
    refused(&named("GET", "/a/x", "").await, 400, "bad-request", "`first` (provider `sandbox`), `second` (provider `other`)");
    refused(&named("GET", "/a/x", "nobody").await, 400, "bad-request", "these routes do: `first` (provider `sandbox`)");
    refused(&named("POST", "/a/x", "sandbox").await, 400, "bad-request", "`second` (provider `other`)");
    refused(&named("GET", "/a/b/x", "").await, 400, "bad-request", "of one provider");
    refused(&named("GET", "/a/x", "sandbox\r\nX-Attache-Provider: other").await, 400, "bad-request", "More than one");
    let answer = named("DELETE", "/puts/x", "").await;
    refused(&answer, 405, "method-not-allowed", "PUT");
    assert_eq!(answer.header("allow"), Some("PUT"));
    refused(&named("GET", "/nowhere", "sandbox").await, 404, "no-route", "nearest host");
    assert_eq!(api.seen().len(), before);
    // A path on the listener is its route's, whatever the header says.
    world.call("GET", "/first/x", &[("x-end-user", MEGAN), ("x-attache-provider", "other")], crate::wire::empty()).await.is_ok();
    assert_eq!(api.last().header("authorization"), format!("Bearer {token}"));
}

#[tokio::test]
async fn it_goes_out_by_tls_whatever_the_client_could_say() {
    let authority = Authority::new();
    let server = Secure::start(&authority, names(&["localhost"]), &[b"http/1.1"]).await;
    let host = format!("localhost:{}", server.address.port());
    let route = format!("  - {{match: '/s/{{*rest}}', provider: sandbox, upstream: 'https://{host}/v1/{{rest}}'}}\n");
    let world = Plan::new().tls(authority.roots()).token_name(&host).routes(&route).start().await;
    world.connect(MEGAN).await;
    for scheme in ["http", "https"] {
        assert_eq!(get(&world, &format!("{scheme}://{host}/v1/files?x=1")).await.status, 200, "{scheme}");
    }
    let dotted = format!("http://LocalHost.:{}/v1/y", server.address.port());
    assert_eq!(get(&world, &dotted).await.status, 200);
    let seen: Vec<_> = server.seen().into_iter().map(|(_, target, _, host)| (target, host)).collect();
    assert_eq!(seen, ["/v1/files?x=1", "/v1/files?x=1", "/v1/y"].map(|target| (target.to_owned(), host.clone())));
}

/// Fails when a whole URL is routed before its caller is known.
#[tokio::test]
async fn threat_39_the_callers_key_is_the_proxys_password() {
    let api = Upstream::plain().await;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"the-key");
    let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let callers = format!("callers:\n  - {{name: app, key_sha256: {hash}, routes: [up]}}\n");
    let world = Plan::new().top(&callers).up(api.address, "").start().await;
    world.connect(MEGAN).await;
    let basic = |text: &str| {
        let coded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        format!("X-End-User: {MEGAN}\r\nProxy-Authorization: Basic {coded}\r\n")
    };
    let url = format!("http://{}/x", api.address);
    assert_eq!(ask(world.proxy, "GET", &url, &basic("app:the-key")).await.status, 200);
    assert!(!api.last().names().iter().any(|name| name.starts_with("proxy-")));
    for wrong in [basic("app:another"), format!("X-End-User: {MEGAN}\r\n")] {
        for url in [&*url, "http://evil.example/", "http://localhost/x"] {
            // Who shows no key learns nothing of the upstreams.
            refused(&ask(world.proxy, "GET", url, &wrong).await, 403, "caller-refused", "key");
        }
    }
}

/// Fails when absolute form goes past the guard's rules on `Origin` and `Sec-Fetch-Site`.
#[tokio::test]
async fn threat_25_a_web_page_gets_no_further_in_absolute_form() {
    let api = Upstream::plain().await;
    let world = World::in_front_of(&api, ROUTES).await;
    for line in ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"] {
        let answer = ask(world.proxy, "GET", &format!("http://{}/x", api.address), &format!("X-End-User: {MEGAN}\r\n{line}\r\n")).await;
        refused(&answer, 403, "caller-refused", "web page");
    }
    assert_eq!(api.seen().len(), 0);
}

#[tokio::test]
async fn a_listener_of_one_origin_takes_urls_of_that_alone() {
    let (api, other) = (Upstream::plain().await, Upstream::plain().await);
    let listen = format!(
        "  proxy: 127.0.0.1:0\n  public: 127.0.0.1:0\n  admin: 127.0.0.1:0\n  origins:\n    - {{bind: 127.0.0.1:0, provider: sandbox, upstream: 'http://{}/v2?k=1'}}\n",
        api.address
    );
    let world = Plan::new().listen(&listen).token_host(api.address).up(other.address, "").start().await;
    world.connect(MEGAN).await;
    let at = world.running.origins[0];
    let user = format!("X-End-User: {MEGAN}\r\n");
    assert_eq!(ask(at, "GET", &format!("http://{}/v2/files?a=1", api.address), &user).await.status, 200);
    assert_eq!(api.last().target, "/v2/files?a=1&k=1");
    assert_eq!(ask(at, "GET", &format!("http://{at}/files"), &user).await.status, 200);
    assert_eq!(api.last().target, "/v2/files?k=1");
    refused(&ask(at, "GET", &format!("http://{}/v1/files", api.address), &user).await, 404, "no-route", "");
    // Neither listener takes the other's.
    refused(&ask(world.proxy, "GET", &format!("http://{}/v2/files", api.address), &user).await, 404, "no-route", "");
    assert_eq!(ask(world.proxy, "GET", &format!("http://{}/v2/files", other.address), &user).await.status, 200);
    refused(&ask(at, "GET", &format!("http://{}/up/files", other.address), &user).await, 404, "no-route", "");
    assert_eq!((api.seen().len(), other.seen().len()), (2, 1));
}

#[tokio::test]
async fn a_link_inside_an_answer_is_followed_as_it_stands() {
    let api = Upstream::start(|seen| {
        let host = seen.header("host").to_owned();
        let page = |next: Option<&str>| match next {
            Some(next) => json!({"value": [1], "@odata.nextLink": format!("http://{host}{next}")}).to_string(),
            None => json!({"value": [2]}).to_string(),
        };
        match &*seen.target {
            "/v1.0/me/photos" => Reply::ok(
                &format!("Link: <http://{host}/v1.0/me/photos?page=2>; rel=\"next\"\r\n"),
                &page(Some("/v1.0/me/photos?$skiptoken=a%2Fb%20c")),
            ),
            "/v1.0/me/photos?$skiptoken=a%2Fb%20c" => Reply::ok("", &page(None)),
            _ => Reply::Keep(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()),
        }
    })
    .await;
    let world = World::in_front_of(&api, "  - {match: '/graph/{*rest}', provider: sandbox, upstream: 'http://UP/v1.0/{rest}'}\n").await;
    let first = world.get("/graph/me/photos").await;
    let next = first.is_ok().json()["@odata.nextLink"].as_str().expect("a link").to_owned();
    let second = get(&world, &next).await;
    assert_eq!((second.status, &*String::from_utf8_lossy(&second.body)), (200, r#"{"value":[2]}"#));
    assert!(!api.last().header("authorization").is_empty());
}

#[test]
fn explain_knows_urls_of_upstreams() {
    let yaml = "providers:\n  google: {client_id: a}\n  work: {use: google, client_id: b}\nroutes:\n  - {match: '/google/{*rest}', provider: google, upstream: 'https://www.googleapis.com/{rest}'}\n  - {match: '/tie/{*rest}', provider: google, upstream: 'https://www.googleapis.com/tie/{rest}'}\n  - {match: '/work/{*rest}', provider: work, upstream: 'https://www.googleapis.com/tie/{rest}'}\n  - {match: GET /photos, provider: google, upstream: 'https://www.googleapis.com/drive/v3/files'}\n";
    let file = std::path::Path::new("routes.yaml");
    let snapshot = config::load_str(yaml, file, std::path::Path::new("/"), &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    let explain = |url: &str| attache::proxy::explain::explain(&snapshot, &http::Method::GET, url).expect("explained");
    for (url, expected) in [
        ("https://www.googleapis.com/drive/v3/files?q=a%20b", "https://www.googleapis.com/drive/v3/files?q=a%20b"),
        ("http://www.googleapis.com/drive/v3/files", "https://www.googleapis.com/drive/v3/files"),
        ("http://WWW.googleapis.com.:80/x", "https://www.googleapis.com/x"),
        ("http://localhost:7070/photos", "https://www.googleapis.com/drive/v3/files"),
        ("http://10.0.0.5:7070/photos", "https://www.googleapis.com/drive/v3/files"),
        ("/google/x", "https://www.googleapis.com/x"),
    ] {
        let explained = explain(url);
        assert_eq!(explained.upstream_url.as_deref(), Some(expected), "{url}: {:?}", explained.refused);
    }
    for (url, name, part) in [
        ("https://www.googleapi.com/x", "no-route", "`www.googleapis.com` is the nearest"),
        ("https://example.org/photos", "no-route", "falls under no route"),
        ("http://www.googleapis.com/tie/x", "bad-request", "`/tie/{*rest}` (provider `google`), `/work/{*rest}` (provider `work`)"),
        ("http://www.googleapis.com:99999/x", "bad-request", "port"),
        ("http://megan@www.googleapis.com/x", "bad-request", "names a user"),
    ] {
        let (kind, detail) = explain(url).refused.expect(url);
        assert_eq!(kind, name, "{url}: {detail}");
        assert!(detail.contains(part), "{url}: {detail}");
    }
}
