//! Whatever a client's headers and target say: no identity, no key, no hop-by-hop header and no credential of the client's goes upstream, the
//! token goes where the route says and nowhere else, and doing it all again changes nothing.

#![no_main]

use attache::proxy::fuzzing::{Sent, outgoing};
use attache_fuzz::{head_of, snapshot};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeSet;

const TOKEN: &str = "canary-token";
const ROUTES: &str = "
providers:
  fuzz-bearer: {client_id: a, authorize_url: 'https://as.example/a', token_url: 'https://as.example/t', token_hosts: [up.example]}
  fuzz-header: {client_id: a, authorize_url: 'https://as.example/a', token_url: 'https://as.example/t', token_hosts: [up.example], attach: {header: X-Api-Key}}
  fuzz-query: {client_id: a, authorize_url: 'https://as.example/a', token_url: 'https://as.example/t', token_hosts: [up.example], attach: {query: api_key}}
routes:
  - {match: '/b/{*rest}', provider: fuzz-bearer, upstream: 'https://up.example/b/{rest}', headers: {set: {X-Set: '{rest}'}, remove: [X-Gone]}}
  - {match: '/h/{*rest}', provider: fuzz-header, upstream: 'https://up.example/h/{rest}'}
  - {match: '/q/{*rest}', provider: fuzz-query, upstream: 'https://up.example/q/{rest}', query: {d: '1'}, set_query: {s: '2'}}
  - {match: '/c/{*rest}', provider: fuzz-bearer, upstream: 'https://up.example/c/{rest}', cookies: pass}
";

/// What never goes upstream, whoever sent it.
const NEVER: [&str; 12] = [
    "x-end-user",
    "x-end-user-account",
    "x-attache-key",
    "x-attache-provider",
    "proxy-authorization",
    "proxy-connection",
    "connection",
    "keep-alive",
    "upgrade",
    "http2-settings",
    "transfer-encoding",
    "expect",
];

fuzz_target!(|data: &[u8]| {
    let Some(head) = head_of(data) else { return };
    let snapshot = snapshot(ROUTES);
    let Some(sent) = outgoing(snapshot, &head, TOKEN) else { return };
    assert_eq!(sent.authority, "up.example", "the request chose the host");
    for name in NEVER {
        assert!(!sent.headers.contains_key(name), "{name} went upstream");
        // Only those that carry our own meaning: a twin of `keep-alive` is somebody's ordinary header.
        let twin = name.replace('-', "_");
        assert!(
            !name.starts_with("x-end") && !name.starts_with("x-attache") && !name.starts_with("proxy-")
                || !sent.headers.contains_key(&*twin),
            "{twin} went upstream"
        );
    }
    let passes = sent.path_and_query.starts_with("/c/");
    assert!(passes || !sent.headers.contains_key("cookie"), "a cookie went upstream");
    where_the_token_is(&sent);
    if head.headers.get_all("connection").iter().all(|line| line.to_str().is_ok()) {
        let named: BTreeSet<String> = head
            .headers
            .get_all("connection")
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .collect();
        for name in named.iter().filter(|name| !OURS.contains(&name.as_str())) {
            assert!(!sent.headers.contains_key(name.as_str()), "`Connection` named {name}");
        }
    }
    // Once more with what was sent: nothing is added or lost but the line that each proxy adds.
    let mut again = head.clone();
    again.headers = sent.headers.clone();
    for name in ["host", "x-end-user"] {
        again.headers.remove(name);
        if let Some(value) = head.headers.get(name) {
            again.headers.insert(http::HeaderName::from_static(name), value.clone());
        }
    }
    let Some(twice) = outgoing(snapshot, &again, TOKEN) else { panic!("what was sent is refused") };
    let plain = |sent: &Sent| {
        let mut headers = sent.headers.clone();
        headers.remove("via");
        let mut lines: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
        lines.sort();
        lines
    };
    assert_eq!(plain(&sent), plain(&twice));
    assert_eq!(sent.path_and_query, twice.path_and_query);
});

/// What a `Connection` line may name and still find upstream, because Attaché itself says it there.
const OURS: [&str; 10] = ["", "host", "content-length", "authorization", "x-api-key", "via", "x-request-id", "traceparent", "x-set", "te"];

fn where_the_token_is(sent: &Sent) {
    let lines: Vec<_> = sent.headers.iter().filter(|(_, value)| holds(value.as_bytes())).map(|(name, _)| name.as_str()).collect();
    let (_, query) = sent.path_and_query.split_once('?').unwrap_or((&sent.path_and_query, ""));
    let asked: Vec<_> = query.split('&').filter(|pair| pair.starts_with("api_key=")).collect();
    match &sent.path_and_query.as_bytes()[..3] {
        b"/h/" => assert!(
            lines.contains(&"x-api-key") && sent.headers.get_all("x-api-key").iter().count() == 1 && sent.headers["x-api-key"] == TOKEN
        ),
        b"/q/" => assert_eq!(asked, ["api_key=canary-token"]),
        _ => assert!(sent.headers.get_all("authorization").iter().eq(["Bearer canary-token"])),
    }
    if !sent.path_and_query.starts_with("/b/") && !sent.path_and_query.starts_with("/c/") {
        assert!(!sent.headers.contains_key("authorization"), "the client's own credential went upstream");
    }
}

fn holds(value: &[u8]) -> bool {
    value.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes())
}
