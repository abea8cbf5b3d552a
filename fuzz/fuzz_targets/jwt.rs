//! No text passes for a signed token but the one that the key's owner signed.

#![no_main]

use attache::oauth::fuzzing::signed_by;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::sync::LazyLock;

/// Of RFC 7515 Appendix A.3 (ES256) and A.2 (RS256): tokens, and the keys that made them.
const SIGNED: [&str; 2] = [include_str!("../seeds/jwt/es256"), include_str!("../seeds/jwt/rs256")];
static KEYS: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("../keys.json")).expect("a JWK Set"));

fuzz_target!(|text: &str| {
    if signed_by(text, &KEYS) {
        // The last letters of the base64 of a signature may hold bits that mean nothing; header and claims may not differ in one.
        let content = |token: &str| token.rsplit_once('.').map(|(content, _)| content.to_owned());
        assert!(SIGNED.iter().any(|token| content(token.trim()) == content(text)), "a forged token");
    }
});
