//! What signing one call by OAuth 1.0a costs, by its method.

use attache::attach::oauth1::{Consumer, Form, Method, RsaKey, Signed, Stamp, TokenPair};
use attache::base::clock::UnixMillis;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

const KEY: &str = include_str!("../src/attach/oauth1/fixtures/rsa.pem");

fn sign(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("oauth1");
    let rsa = RsaKey::parse(KEY.into()).expect("a key");
    for (name, method) in [("hmac-sha1", Method::HmacSha1), ("hmac-sha256", Method::HmacSha256), ("rsa-sha1", Method::RsaSha1(rsa))] {
        let consumer = Consumer { key: "dpf43f3p2l4k3l03".into(), secret: "kd94hf93k423kf44".into(), method, realm: None };
        let request = Signed {
            method: "POST",
            tls: true,
            private: true,
            host: "api.example.com",
            path: "/1.1/statuses/update.json",
            query: "include_entities=true&count=20",
            form: Form::Whole(b"status=Hello%20Ladies%20%2b%20Gentlemen%2c%20a%20signed%20request%21"),
        };
        let token = TokenPair { token: "nnch734d00sl2jdk", secret: "pfkkdhi9sl3r4s00" };
        group.bench_function(name, |bencher| {
            bencher.iter(|| consumer.authorization(black_box(&request), Some(token), &[], &Stamp::at(UnixMillis(1_767_225_600_000))));
        });
    }
    group.finish();
}

criterion_group!(benches, sign);
criterion_main!(benches);
