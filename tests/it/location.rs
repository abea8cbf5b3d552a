//! `rewrite_location`: a URL of the upstream's in an answer's head becomes one that the client can call by the same route.

use crate::harness::*;
use crate::upstream::{Reply, Upstream};
use crate::wire::{Answer, Raw, empty};
use attache::config;

/// An upstream that answers by the words of its path: `/v1/STATUS?LOCATION`, percent-decoded once.
async fn api() -> Upstream {
    Upstream::start(|seen| {
        let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
        let status =
            path.rsplit('/').next().filter(|word| word.len() == 3 && word.bytes().all(|byte| byte.is_ascii_digit())).unwrap_or("200");
        let told = query.split('&').find_map(|pair| pair.strip_prefix("to=")).unwrap_or_default();
        let told = percent_encoding::percent_decode_str(told).decode_utf8_lossy().replace("UP", seen.header("host"));
        let token = query.split('&').find_map(|pair| pair.strip_prefix("key=")).unwrap_or_default();
        let told = told.replace("TOKEN", token);
        let lines = format!("Location: {told}\r\nContent-Location: {told}\r\nLink: <{told}>\r\n");
        Reply::Keep(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{lines}\r\n").into_bytes())
    })
    .await
}

const ROUTES: &str = "
  - {match: '/google/{*rest}', provider: sandbox, upstream: 'http://UP/v1/{rest}', rewrite_location: true}
  - {match: '/keyed/{*rest}', provider: sandbox, upstream: 'http://UP/v1/{rest}', rewrite_location: true, attach: {query: key}}
  - {match: '/albums/{id}/{*rest}', provider: sandbox, upstream: 'http://UP/v2/{id}/items/{rest}', rewrite_location: true}
  - {match: 'GET /plain/{*rest}', provider: sandbox, upstream: 'http://UP/v1/{rest}'}
";

async fn told(world: &World, path: &str, location: &str) -> Answer {
    let encoded = percent_encoding::utf8_percent_encode(location, percent_encoding::NON_ALPHANUMERIC);
    world.call("GET", &format!("{path}?to={encoded}"), &[("x-end-user", MEGAN)], empty()).await
}

#[tokio::test]
async fn what_stays_in_the_route_is_told_as_its_path() {
    let api = api().await;
    let world = World::in_front_of(&api, ROUTES).await;
    for (path, location, expected) in [
        ("/google/201", "http://UP/v1/drive/x%2Fy?y=1&z#f", "/google/drive/x%2Fy?y=1&z#f"),
        ("/google/302", "/v1/drive/x", "/google/drive/x"),
        ("/google/a/308", "b?c", "/google/a/b?c"),
        ("/google/a/202", "../b", "/google/b"),
        ("/albums/7/302", "/v2/8/items/x/y", "/albums/8/x/y"),
        ("/google/200", "http://UP/v1/upload?id=1", "/google/upload?id=1"),
        // What leaves the route passes.
        ("/albums/7/302", "/v2/8", "/v2/8"),
        ("/google/302", "http://UP/v2/x", "http://UP/v2/x"),
        ("/google/302", "https://UP/v1/x", "https://UP/v1/x"),
        ("/google/302", "https://evil.example/v1/x", "https://evil.example/v1/x"),
        ("/google/302", "//evil.example/v1/x", "//evil.example/v1/x"),
        ("/google/302", "/v1/../v2/x", "/v1/../v2/x"),
        ("/plain/302", "http://UP/v1/x", "http://UP/v1/x"),
    ] {
        let answer = told(&world, path, location).await;
        let expected = expected.replace("UP", &api.address.to_string());
        assert_eq!(answer.header("location"), expected, "{path} {location}");
        assert_eq!(answer.header("content-location"), expected, "{path} {location}");
        assert_eq!(answer.header("link"), format!("<{}>", location.replace("UP", &api.address.to_string())));
    }
    // And it can be called as it stands.
    let first = told(&world, "/google/303", "http://UP/v1/201?to=x").await;
    assert_eq!(world.get(&first.header("location")).await.header("location"), "/google/x");
}

/// Fails without the removal of the attach parameter from what is rewritten.
#[tokio::test]
async fn threat_21_a_token_in_the_query_never_comes_back_in_a_rewritten_location() {
    // Without `without` in `location::within`, an upstream that repeats its URL would hand the token to the client.
    let api = api().await;
    let world = World::in_front_of(&api, ROUTES).await;
    let token = world.stored(MEGAN).await.map(|_| api.address).expect("connected");
    for (location, expected) in [
        ("http://UP/v1/x?a=1&key=TOKEN&b=2", "/keyed/x?a=1&b=2"),
        ("/v1/x?%6Bey=TOKEN", "/keyed/x"),
        ("x?key=TOKEN&key=TOKEN#f", "/keyed/x#f"),
    ] {
        let answer = told(&world, "/keyed/302", location).await;
        assert!(api.last().target.contains("key="));
        assert_eq!(answer.header("location"), expected, "{location} {token}");
    }
    // Relative to what was asked, the token apart.
    let answer = told(&world, "/keyed/302", "#f").await;
    assert_eq!(answer.header("location"), "/keyed/302?to=%23f#f");
}

#[tokio::test]
async fn a_client_that_speaks_of_upstreams_is_told_of_upstreams() {
    let api = api().await;
    let world = World::in_front_of(
        &api,
        "  - {match: '/google/{*rest}', provider: sandbox, upstream: 'http://UP/v1/{rest}', rewrite_location: true}\n",
    )
    .await;
    let mut raw = Raw::open(world.proxy).await;
    let up = api.address;
    raw.send(format!("GET http://{up}/v1/302?to=http%3A%2F%2FUP%2Fv1%2Fx HTTP/1.1\r\nHost: {up}\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
    let answer = raw.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.header("location")), (302, Some(&*format!("http://{up}/v1/x"))));
}

#[test]
fn a_route_without_a_way_back_is_refused_at_load() {
    for (route, part) in [
        ("match: '/a/{id}', upstream: 'https://www.googleapis.com/v1'", "cannot read this upstream's path backwards: `{id}`"),
        ("match: '/a/{id}', upstream: 'https://www.googleapis.com/v1/{id}.json'", "beside other text"),
        ("match: 'GET /a/{*r}', upstream: 'https://www.googleapis.com/{r}', follow: no_token", "where redirects are followed"),
    ] {
        let yaml = format!("providers:\n  google: {{client_id: a}}\nroutes:\n  - {{{route}, provider: google, rewrite_location: true}}\n");
        let file = std::path::Path::new("routes.yaml");
        let errors = config::load_str(&yaml, file, std::path::Path::new("/"), &|_| None).map(drop).expect_err(route).to_string();
        assert!(errors.contains(part) && errors.contains("routes.yaml:4:"), "{errors}");
    }
}
