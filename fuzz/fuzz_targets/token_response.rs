//! Whatever a token endpoint answers: no panic, and what is taken for a grant has a token that fits into a request's head.

#![no_main]

use attache::oauth::fuzzing::granted;
use attache_fuzz::snapshot;
use libfuzzer_sys::fuzz_target;

/// One of the RFC's own shape, and real definitions whose answers differ from it each in its own way.
const PROVIDERS: &str = "
providers:
  fuzz-plain: {client_id: a, authorize_url: 'https://as.example/a', token_url: 'https://as.example/t', token_hosts: [up.example]}
  slack: {client_id: a, client_secret: b}
  github: {client_id: a, client_secret: b}
  google: {client_id: a, client_secret: b}
  facebook: {client_id: a, client_secret: b}
  tiktok: {client_id: a, client_secret: b}
routes:
  - {match: '/b/{*rest}', provider: fuzz-plain, upstream: 'https://up.example/b/{rest}'}
";

fuzz_target!(|input: (u16, &[u8])| {
    let (status, body) = input;
    for registration in snapshot(PROVIDERS).providers.values() {
        let Some(grant) = granted(status, body, registration) else { continue };
        assert!((200..300).contains(&status), "a grant under {status}");
        let token = grant["access_token"].as_str().expect("a grant has a token");
        assert!(!token.is_empty() && token.len() <= 16 * 1024);
        assert!(!token.bytes().any(|byte| byte.is_ascii_control()), "a token that no header takes");
    }
});
