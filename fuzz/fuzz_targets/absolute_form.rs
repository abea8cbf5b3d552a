//! Absolute-form targets and `Host` (RFC 9112 §3.2.2): whatever they say, a call goes to an upstream that the operator wrote, by the bytes of
//! the path that was sent, and only where target and `Host` agree and nobody is named in either.

#![no_main]

use attache::proxy::fuzzing::outgoing;
use attache_fuzz::{head_of, snapshot};
use libfuzzer_sys::fuzz_target;

const ROUTES: &str = "
providers:
  fuzz-one: {client_id: a, authorize_url: 'https://as.example/a', token_url: 'https://as.example/t', token_hosts: [up.example, 'up.example:8443']}
  fuzz-two: {client_id: a, authorize_url: 'https://as.example/a', token_url: 'https://as.example/t', token_hosts: [up.example]}
routes:
  - {match: '/one/{*rest}', provider: fuzz-one, upstream: 'https://up.example/api/{rest}'}
  - {match: '/two/{*rest}', provider: fuzz-two, upstream: 'https://up.example/api/{rest}'}
  - {match: 'GET /deep/{*rest}', provider: fuzz-two, upstream: 'https://up.example/api/v1/{rest}', set_query: {s: '1'}}
  - {match: '/port/{*rest}', provider: fuzz-one, upstream: 'https://up.example:8443/{rest}'}
";

fuzz_target!(|data: &[u8]| {
    let Some(head) = head_of(data) else { return };
    let Some(sent) = outgoing(snapshot(ROUTES), &head, "canary-token") else { return };
    assert!(matches!(&*sent.authority, "up.example" | "up.example:8443"), "the request chose the host");
    let hosts: Vec<_> = head.headers.get_all("host").iter().collect();
    assert!(hosts.len() <= 1 && !hosts.iter().any(|host| host.as_bytes().contains(&b'@')));
    let (path, _) = sent.path_and_query.split_once('?').unwrap_or((&sent.path_and_query, ""));
    match head.uri.authority().filter(|authority| authority.host().trim_end_matches('.').eq_ignore_ascii_case("up.example")) {
        Some(authority) => {
            assert!(!authority.as_str().contains('@'));
            assert_eq!(path, head.uri.path(), "other bytes than were sent");
        }
        None => assert!(["/one/", "/two/", "/deep/", "/port/"].iter().any(|route| head.uri.path().starts_with(route)), "no route of ours"),
    }
    assert!(sent.headers.get_all("authorization").iter().eq(["Bearer canary-token"]));
    assert!(!sent.headers.contains_key("x-attache-provider") && !sent.headers.contains_key("x-end-user"));
});
