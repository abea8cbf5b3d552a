//! `follow: no_token`: what a redirect names, fetched as a stranger would (contract §3).

use crate::harness::*;
use crate::upstream::{Reply, Seen, Upstream};
use crate::wire::{Connection, Raw, empty, request, whole};
use std::net::SocketAddr;

/// The lines of a route `/f/…`, and one beside it that does not follow.
fn routes(upstream: SocketAddr) -> String {
    format!(
        "  - {{match: '/f/{{*rest}}', provider: sandbox, upstream: 'http://{upstream}/{{rest}}', follow: no_token, headers: {{set: {{X-Own: mine}}}}}}\n  \
         - {{match: 'GET /plain/{{*rest}}', provider: sandbox, upstream: 'http://{upstream}/{{rest}}', follow: no}}\n"
    )
}

async fn world_of(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> (World, Upstream) {
    let upstream = Upstream::start(script).await;
    let world = Plan::new().token_host(upstream.address).routes(&routes(upstream.address)).start().await;
    world.connect(MEGAN).await;
    (world, upstream)
}

fn to(status: u16, location: &str) -> Reply {
    Reply::Keep(
        format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nSet-Cookie: a=b\r\nContent-Length: 5\r\n\r\nmoved").into_bytes(),
    )
}

/// Fails when a hop is built from the route's own request.
#[tokio::test]
async fn threat_09_a_redirect_is_fetched_without_token_or_identity() {
    let storage = Upstream::start(|seen| match seen.header("range") {
        "" => Reply::ok("Content-Type: image/jpeg\r\nSet-Cookie: s=1\r\nETag: \"e\"\r\n", "the whole photo"),
        _ => Reply::Keep(b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-2/15\r\nContent-Length: 3\r\n\r\nthe".to_vec()),
    })
    .await;
    let target = format!("http://{}/signed?sig=abc%2F%2B&x=1#part", storage.address);
    let (world, upstream) = world_of(move |_| to(302, &target)).await;
    let headers = [
        ("x-end-user", MEGAN),
        ("authorization", "Bearer the-clients-own"),
        ("cookie", "c=1"),
        ("x-other", "1"),
        ("accept", "image/*"),
        ("if-range", "\"e\""),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-attache-key", "none"),
    ];
    let mut client = Connection::open(world.proxy).await;
    let answer = client.call(with_headers(request("GET", "/f/photo"), &headers).body(empty()).expect("a request")).await;
    assert_eq!(answer.is_ok().text(), "the whole photo");
    assert_eq!(
        (answer.header("content-type"), answer.header("set-cookie"), answer.header("etag")),
        ("image/jpeg".into(), "".into(), "\"e\"".into())
    );
    assert!(!answer.header("x-request-id").is_empty() && answer.header("vary").contains("x-end-user"));
    assert!(upstream.last().header("authorization").starts_with("Bearer "));
    let seen = storage.last();
    assert_eq!((&*seen.method, &*seen.target), ("GET", "/signed?sig=abc%2F%2B&x=1"));
    let mut names = seen.names();
    names.sort_unstable();
    assert_eq!(names, ["accept", "host", "if-range", "via"], "nothing else goes along");
    assert_eq!(seen.header("host"), storage.address.to_string());
    assert!(!storage.bytes().to_ascii_lowercase().contains("megan"), "nor whose it is");

    let headers = [("x-end-user", MEGAN), ("range", "bytes=0-2")];
    let part = client.call(with_headers(request("GET", "/f/photo"), &headers).body(empty()).expect("a request")).await;
    assert_eq!((part.status.as_u16(), part.text(), part.header("content-range")), (206, "the".into(), "bytes 0-2/15".into()));
    // Both upstreams' connections served two calls each: the redirect's own body was read away, the photo's to its end.
    assert_eq!((upstream.connections(), storage.connections()), (1, 1));

    // Where the route does not say so, a redirect is the client's own affair.
    let answer = world.get("/plain/photo").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (302, "moved".into()));
    assert_eq!(storage.seen().len(), 2);
}

#[tokio::test]
async fn every_kind_of_redirect_is_followed_for_get_and_head_alone() {
    let (world, upstream) = world_of(|seen| match seen.target.trim_start_matches('/').parse() {
        Ok(status) => to(status, "done?a=1"),
        Err(_) if seen.method == "HEAD" => Reply::Keep(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n".to_vec()),
        Err(_) => Reply::ok("", "done"),
    })
    .await;
    for status in [301, 302, 303, 307, 308] {
        assert_eq!(world.get(&format!("/f/{status}")).await.is_ok().text(), "done", "{status}");
        assert_eq!(upstream.last().target, "/done?a=1", "relative to where it stood");
        let mut raw = Raw::open(world.proxy).await;
        raw.send(format!("HEAD /f/{status} HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
        assert_eq!(raw.answer_to_head().await.expect("an answer").header("content-length"), Some("4"), "{status}");
        assert_eq!(upstream.last().method, "HEAD");
    }
    for status in [300, 304, 305] {
        assert_eq!(world.get(&format!("/f/{status}")).await.status.as_u16(), status);
    }
    let post = world.call("POST", "/f/302", &[("x-end-user", MEGAN)], whole("data")).await;
    assert_eq!(post.status, 302);
}

#[tokio::test]
async fn three_hops_and_no_more() {
    let (world, upstream) = world_of(|seen| match &*seen.target {
        "/0" => Reply::ok("", "there"),
        "/nowhere" => Reply::Keep(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_vec()),
        target => to(302, &format!("/{}", target.trim_start_matches('/').parse::<u32>().unwrap_or(9) - 1)),
    })
    .await;
    assert_eq!(world.get("/f/3").await.is_ok().text(), "there");
    let before = upstream.seen().len();
    let answer = world.get("/f/4").await;
    answer.is_problem("upstream-bad-response", 502, "http_protocol_error");
    assert!(answer.text().contains("three times"), "{}", answer.text());
    assert_eq!(upstream.seen().len() - before, 4, "the first request and three hops");
    assert_eq!(world.get("/f/nowhere").await.status, 302, "a redirect that names nothing passes on");
}

/// Fails without the hops' own pool, whose connector keeps to public addresses.
#[tokio::test]
async fn threat_26_redirects_lead_to_no_private_address() {
    let secret = Upstream::plain().await;
    let port = secret.address.port();
    let targets = [
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "https://169.254.169.254/".to_owned(),
        "https://[::ffff:169.254.169.254]/".to_owned(),
        "https://[fd00:ec2::254]/".to_owned(),
        "https://10.0.0.1/".to_owned(),
        "https://192.168.1.1:8443/".to_owned(),
        "https://0x0a000001/".to_owned(),
        "https://167772161/".to_owned(),
        format!("https://0.0.0.0:{port}/"),
        "http://example.com/".to_owned(),
        "ftp://127.0.0.1/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "https://user:secret@example.com/".to_owned(),
        "https://".to_owned(),
        "http://[".to_owned(),
    ];
    let given = targets.clone();
    let script = move |seen: &Seen| to(302, &given[seen.target.trim_start_matches('/').parse::<usize>().expect("a number")]);
    let (world, _upstream) = world_of(script).await;
    for (index, target) in targets.iter().enumerate() {
        let answer = world.get(&format!("/f/{index}")).await;
        answer.is_problem("upstream-bad-response", 502, "http_protocol_error");
        assert!(!answer.text().contains("secret") && !answer.text().contains("169.254"), "{target}: {}", answer.text());
    }
    assert_eq!(secret.connections(), 0);
}

/// Fails when every route may be led to this machine.
#[tokio::test]
async fn threat_26_loopback_is_for_routes_of_loopback_alone() {
    let secret = Upstream::plain().await;
    let port = secret.address.port();
    let targets = [
        format!("http://127.0.0.1:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("https://localhost:{port}/"),
        format!("https://a.localhost:{port}/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
        format!("https://2130706433:{port}/"),
        format!("https://127.1:{port}/"),
        format!("//127.0.0.1:{port}/"),
        "/again".to_owned(),
    ];
    let given = targets.clone();
    let script = move |seen: &Seen| to(302, &given[seen.target.trim_start_matches('/').parse::<usize>().expect("a number")]);
    let upstream = Upstream::start(script).await;
    // This machine's by the wildcard address, which the operator's route may dial and which is not known as loopback.
    let name = format!("0.0.0.0:{}", upstream.address.port());
    let route = format!(
        "  - {{match: 'GET /f/{{rest}}', provider: sandbox, upstream: 'http://{name}/{{rest}}', allow_plain_http: true, follow: no_token}}\n"
    );
    let world = Plan::new().token_name(&name).routes(&route).start().await;
    world.connect(MEGAN).await;
    for (index, target) in targets.iter().enumerate() {
        let answer = world.get(&format!("/f/{index}")).await;
        assert_eq!(answer.status, 502, "{target}: {}", answer.text());
        answer.is_problem("upstream-bad-response", 502, "http_protocol_error");
    }
    assert_eq!(secret.connections(), 0);
    assert_eq!(upstream.seen().len(), targets.len());
}

#[tokio::test]
async fn a_hop_that_fails_is_told_as_the_upstreams() {
    let closed = free_port();
    let (world, _upstream) = world_of(move |seen| match &*seen.target {
        "/dead" => to(302, &format!("http://127.0.0.1:{closed}/")),
        "/cut" => to(302, "/cut-here"),
        _ => Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec()),
    })
    .await;
    world.get("/f/dead").await.is_problem("upstream-unreachable", 502, "destination_unavailable");
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("GET /f/cut HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
    let head = raw.head().await.expect("a head");
    assert!(head.contains("200"), "{head}");
    assert_eq!(raw.rest().await, b"half", "cut short, never a whole-looking answer");
}
