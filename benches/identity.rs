//! What it costs to know whom a call is for: a signed token verified, and a call counted against its limits.

#![expect(clippy::expect_used, reason = "a bench that cannot set up must stop")]

use attache::base::clock::{Clock, SystemClock};
use attache::identity::jwt::SecretKey;
use attache::identity::{JwtRules, KeySet, Keys, Published};
use attache::limit::{Counted, Limit, Limits, Rate};
use criterion::{Criterion, criterion_group, criterion_main};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use std::hint::black_box;
use std::sync::Arc;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn rules(keys: Keys, algorithm: Algorithm) -> JwtRules {
    JwtRules { keys, algorithms: vec![algorithm], audiences: vec!["attache".into()], issuer: None, claim: "sub".into() }
}

fn bench(criterion: &mut Criterion) {
    let now = SystemClock.now();
    let claims = json!({"sub": "megan@personalemail.com", "aud": "attache", "exp": 4_000_000_000_u64, "groups": "g".repeat(600)});
    let pair = rcgen::KeyPair::generate().expect("a key");
    let signs = EncodingKey::from_ec_der(&pair.serialize_der());
    let jwk = Jwk::from_encoding_key(&signs, Algorithm::ES256).expect("a key");
    let set = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).expect("a set");
    let published = rules(Keys::Published(Published::new("https://id.example/jwks".parse().expect("a URL"))), Algorithm::ES256);
    let token = encode(&Header::new(Algorithm::ES256), &claims, &signs).expect("signed");
    criterion.bench_function("jwt/ES256", |bench| bench.iter(|| published.verify(black_box(&token), Some(&set), now).expect("good")));
    let shared = rules(Keys::Secret(SecretKey::new(SECRET)), Algorithm::HS256);
    let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)).expect("signed");
    criterion.bench_function("jwt/HS256", |bench| bench.iter(|| shared.verify(black_box(&token), None, now).expect("good")));
    // What a token costs that a worker knows already, but for one look-up in a map.
    criterion.bench_function("jwt/known", |bench| {
        bench.iter(|| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, black_box(token.as_bytes())));
    });

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let limits = Limits { user: Some(Limit::new(Rate::parse("1000000/s").expect("a rate"))), route: None };
    criterion
        .bench_function("limit/user", |bench| bench.iter(|| limits.admit(black_box(Counted::EndUser("megan@personalemail.com")), &clock)));
}

criterion_group!(benches, bench);
criterion_main!(benches);
