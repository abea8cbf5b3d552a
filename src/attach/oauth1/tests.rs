//! The vectors of RFC 5849 and its errata, each method, and what escaping must hold for any text.

use super::*;
use crate::attach::{Around, Prepared, Scheme};
use crate::base::credential::Credential;
use proptest::prelude::*;
use std::collections::HashSet;
use std::sync::Arc;

fn consumer(key: &str, secret: &str, method: Method) -> Consumer {
    Consumer { key: key.into(), secret: secret.into(), method, realm: None }
}

fn signed<'a>(method: &'a str, tls: bool, host: &'a str, path: &'a str, query: &'a str, form: Form<'a>) -> Signed<'a> {
    Signed { method, tls, private: tls, host, path, query, form }
}

fn base(request: &Signed<'_>, protocol: &[(&str, &str)]) -> String {
    base_string::of(request, protocol)
}

fn encoded(text: &[u8]) -> String {
    let mut out = String::new();
    push_encoded(text, &mut out);
    out
}

const RFC: [(&str, &str); 5] = [
    ("oauth_consumer_key", "9djdj82h48djs9d2"),
    ("oauth_token", "kkk9d7dh3k39sjv7"),
    ("oauth_signature_method", "HMAC-SHA1"),
    ("oauth_timestamp", "137131201"),
    ("oauth_nonce", "7d8f3e4a"),
];

fn rfc_request() -> Signed<'static> {
    signed("POST", false, "EXAMPLE.COM:80", "/request", "b5=%3D%253D&a3=a&c%40=&a2=r%20b", Form::Whole(b"c2&a3=2+q"))
}

#[test]
fn p65_the_base_string_is_that_of_the_rfc() {
    let expected = "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26c2%3D%26\
                    oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1%26\
                    oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7";
    assert_eq!(base(&rfc_request(), &RFC), expected);
}

/// The RFC prints another signature for its §3.4.1.1 example; this is the one of erratum 2550.
#[test]
fn p66_the_signature_is_that_of_erratum_2550() {
    let consumer = consumer("9djdj82h48djs9d2", "j49sk3j29djd", Method::HmacSha1);
    let token = TokenPair { token: "kkk9d7dh3k39sjv7", secret: "dh893hdasih9" };
    assert_eq!(*consumer.sign(&rfc_request(), Some(token), &RFC).expect("signed"), "r6/TJjbCOr97/+UU0NsvSne7s5g=");
}

/// RFC 5849 §1.2: the whole trip.
#[test]
fn p66_the_signatures_of_section_1_2() {
    let consumer = consumer("dpf43f3p2l4k3l03", "kd94hf93k423kf44", Method::HmacSha1);
    let check = |request: Signed<'_>, token: Option<TokenPair<'_>>, more: &[(&'static str, &'static str)], expected: &str| {
        let mut protocol = vec![("oauth_consumer_key", "dpf43f3p2l4k3l03"), ("oauth_signature_method", "HMAC-SHA1")];
        protocol.extend(token.map(|token| ("oauth_token", token.token)));
        protocol.extend_from_slice(more);
        assert_eq!(*consumer.sign(&request, token, &protocol).expect("signed"), expected);
    };
    let https = |path| signed("POST", true, "photos.example.net", path, "", Form::None);
    let callback = ("oauth_callback", "http://printer.example.com/ready");
    check(
        https("/initiate"),
        None,
        &[("oauth_timestamp", "137131200"), ("oauth_nonce", "wIjqoS"), callback],
        "74KNZJeDHnMBp0EMJ9ZHt/XKycU=",
    );
    check(
        https("/token"),
        Some(TokenPair { token: "hh5s93j4hdidpola", secret: "hdhd0244k9j7ao03" }),
        &[("oauth_timestamp", "137131201"), ("oauth_nonce", "walatlh"), ("oauth_verifier", "hfdp7dh39dks9884")],
        "gKgrFCywp7rO0OXSjdot/IHF7IU=",
    );
    check(
        signed("GET", false, "photos.example.net", "/photos", "file=vacation.jpg&size=original", Form::None),
        Some(TokenPair { token: "nnch734d00sl2jdk", secret: "pfkkdhi9sl3r4s00" }),
        &[("oauth_timestamp", "137131202"), ("oauth_nonce", "chapoH")],
        "MdpQcU8iPSUjWoN/UDMsK2sui9I=",
    );
}

#[test]
fn p66_an_absent_token_leaves_the_ampersand() {
    let consumer = consumer("k", "s e&", Method::Plaintext);
    let request = signed("GET", true, "h", "/", "", Form::None);
    assert_eq!(*consumer.sign(&request, None, &[]).expect("signed"), "s%20e%26&");
    let token = TokenPair { token: "t", secret: "é" };
    assert_eq!(*consumer.sign(&request, Some(token), &[]).expect("signed"), "s%20e%26&%C3%A9");
    let without = Consumer { secret: Secret::default(), ..consumer };
    assert_eq!(*without.sign(&request, Some(token), &[]).expect("signed"), "&%C3%A9");
}

#[test]
fn p65_default_ports_go_and_others_stay() {
    for (tls, host, expected) in [
        (true, "A.example:443", "https://a.example/"),
        (true, "a.example:80", "https://a.example:80/"),
        (false, "a.example:80", "http://a.example/"),
        (false, "a.example:443", "http://a.example:443/"),
        (false, "a.example:8080", "http://a.example:8080/"),
        (false, "[::1]:80", "http://[::1]/"),
    ] {
        let base = base(&signed("get", tls, host, "", "", Form::None), &[]);
        assert_eq!(base, format!("GET&{}&", encoded(expected.as_bytes())), "{host}");
    }
}

#[test]
fn p65_parameters_are_sorted_by_escaped_name_then_value_and_kept_when_they_repeat() {
    let request = signed("GET", true, "h", "/p", "b=2&a=z&a=a&b=2&=v&n&%62=1&a%5B%5D=1&a-=1", Form::Whole(b"c=%C3%A9+x&&c=%FF&d=%zz"));
    let expected = "=v&a=a&a=z&a%5B%5D=1&a-=1&b=1&b=2&b=2&c=%C3%A9%20x&c=%FF&d=%25zz&n=&oauth_token=t";
    let all = base(&request, &[("oauth_token", "t")]);
    assert_eq!(all, format!("GET&https%3A%2F%2Fh%2Fp&{}", encoded(expected.as_bytes())));
}

#[test]
fn p65_a_body_that_is_no_form_is_not_signed() {
    let of = |form| base(&signed("POST", true, "h", "/", "a=1", form), &[]);
    assert_eq!(of(Form::None), of(Form::Whole(b"")));
    assert_ne!(of(Form::None), of(Form::Whole(b"b=2")));
    let headers = |lines: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    };
    const FORM: &str = "application/x-www-form-urlencoded";
    for (lines, expected) in [
        (vec![("content-type", FORM)], true),
        (vec![("content-type", "Application/X-WWW-Form-URLencoded ; charset=UTF-8")], true),
        (vec![], false),
        (vec![("content-type", "multipart/form-data; boundary=x")], false),
        (vec![("content-type", "application/json")], false),
        (vec![("content-type", FORM), ("content-type", FORM)], false),
        (vec![("content-type", FORM), ("content-encoding", "gzip")], false),
    ] {
        assert_eq!(is_form(&headers(&lines)), expected, "{lines:?}");
    }
}

/// SmugMug's `!images`: the path is signed by the bytes that are sent.
#[test]
fn p65_the_path_is_signed_as_it_is_sent() {
    let of = |path| base(&signed("GET", true, "h", path, "", Form::None), &[]);
    assert_eq!(of("/api/v2/album/K!images"), "GET&https%3A%2F%2Fh%2Fapi%2Fv2%2Falbum%2FK%21images&");
    assert_eq!(of("/a%21b"), "GET&https%3A%2F%2Fh%2Fa%2521b&");
}

#[test]
fn p67_rsa_sha1_signs_as_openssl_does() {
    // `printf %s BASE | openssl dgst -sha1 -sign rsa.pem | base64 -w0`
    let (pem, pkcs1) = (include_str!("fixtures/rsa.pem"), include_str!("fixtures/rsa.pkcs1.pem"));
    for pem in [pem, pkcs1] {
        let consumer = consumer("9djdj82h48djs9d2", "", Method::RsaSha1(RsaKey::parse(pem.into()).expect("a key")));
        let mut protocol = RFC;
        protocol[2].1 = "RSA-SHA1";
        // A token's secret has no part in it (RFC 5849 §3.4.3).
        let token = TokenPair { token: "kkk9d7dh3k39sjv7", secret: "dh893hdasih9" };
        let signature = consumer.sign(&rfc_request(), Some(token), &protocol).expect("signed");
        assert_eq!(*signature, include_str!("fixtures/signature.txt").trim());
    }
    for text in ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        assert_eq!(RsaKey::parse(text.into()).err(), Some(RsaKeyFault::NoKey));
    }
    assert_eq!(RsaKey::parse(include_str!("fixtures/short.pem").into()).err(), Some(RsaKeyFault::Weak));
}

#[test]
fn p67_plaintext_is_for_private_wires_alone() {
    let consumer = consumer("k", "s", Method::Plaintext);
    let request = Signed { private: false, ..signed("GET", false, "h", "/", "", Form::None) };
    let stamp = Stamp { timestamp: 1, nonce: "n".into() };
    assert_eq!(consumer.authorization(&request, None, &[], &stamp), Err(AttachError::InTheOpen));
    let value = consumer.authorization(&Signed { private: true, ..request }, None, &[], &stamp).expect("signed");
    assert!(value.to_str().expect("text").ends_with("oauth_signature=\"s%26\""), "{value:?}");
    // The other methods show no secret.
    let hmac = Consumer { method: Method::HmacSha1, ..consumer };
    hmac.authorization(&request, None, &[], &stamp).expect("signed");
}

#[test]
fn hmac_sha256_is_another_signature_under_its_own_name() {
    let consumer = consumer("k", "s", Method::HmacSha256);
    let stamp = Stamp { timestamp: 7, nonce: "n".into() };
    let value = consumer.authorization(&signed("GET", true, "h", "/", "", Form::None), None, &[], &stamp).expect("signed");
    // By Python's hmac and hashlib.
    let expected = "OAuth oauth_consumer_key=\"k\", oauth_nonce=\"n\", oauth_signature_method=\"HMAC-SHA256\", oauth_timestamp=\"7\", \
                    oauth_version=\"1.0\", oauth_signature=\"HMAC256\"";
    assert_eq!(value.to_str().expect("text"), expected.replace("HMAC256", &encoded(b"C00Y8kLOaBLcEp0Bivae6vTD2gcqa2NE4bmb0KL5f9Y=")));
}

#[test]
fn p64_timestamps_are_positive_and_nonces_never_repeat() {
    assert_eq!(Stamp::at(UnixMillis(1_500)).timestamp, 1);
    assert_eq!(Stamp::at(UnixMillis(-5)).timestamp, 1);
    let nonces: HashSet<String> = (0..100_000).map(|_| Stamp::at(UnixMillis(0)).nonce).collect();
    assert_eq!(nonces.len(), 100_000);
    assert!(nonces.iter().all(|nonce| nonce.len() == 30 && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric())));
}

fn attached(query: &str, form: Option<&'static [u8]>) -> http::request::Parts {
    let consumer = Consumer { realm: Some("a \"b\"".into()), ..consumer("k", "s", Method::HmacSha1) };
    let uri = format!("/p?{query}");
    let (mut head, ()) = http::Request::post(uri).header("host", "h.example").body(()).expect("valid").into_parts();
    let credential = Credential { access_token: "t+k".into(), token_type: "OAuth1".into(), key: Some("x".into()) };
    let around = || Around { now: UnixMillis(1_000), tls: true, private: true, server: 0, form };
    Scheme::OAuth1(Arc::new(consumer)).attach(&credential, &Prepared::new(), &mut head, around).expect("attached");
    head
}

#[test]
fn p68_the_signature_stands_in_the_header_and_nowhere_else() {
    let head = attached("a=1", Some(b"b=2"));
    assert_eq!(head.uri, "/p?a=1");
    let values: Vec<_> = head.headers.get_all("authorization").iter().collect();
    assert!(values.len() == 1 && values[0].is_sensitive());
    let text = values[0].to_str().expect("text");
    assert!(text.starts_with("OAuth realm=\"a \\\"b\\\"\", oauth_consumer_key=\"k\", oauth_nonce=\""), "{text}");
    assert!(text.contains("oauth_token=\"t%2Bk\"") && text.contains("oauth_timestamp=\"1\""), "{text}");
    assert!(!text.contains("\"s\"") && !text.contains("\"x\""), "{text}");
}

#[test]
fn p68_a_clients_own_protocol_parameters_go() {
    for (query, expected) in [
        ("a=1&b=2", "a=1&b=2"),
        ("oauth_token=x&a=1&oauth_signature=y", "a=1"),
        ("%6fauth_nonce=x&a=oauth_b", "a=oauth_b"),
        ("oauth_callback", ""),
        ("OAUTH_x=1&oauthx=2&oauth=3", "OAUTH_x=1&oauthx=2&oauth=3"),
        ("", ""),
    ] {
        assert_eq!(without_protocol(query), expected, "{query}");
    }
    assert!(holds_protocol(b"a=1&oauth%5Ftoken=2"));
    assert!(!holds_protocol(b"a=oauth_token&\xff=1"));
}

proptest! {
    #[test]
    fn p69_all_but_the_unreserved_is_escaped(text in prop_oneof![".*", "[!*()' %+~._-]{0,12}"]) {
        let out = encoded(text.as_bytes());
        prop_assert!(out.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
        prop_assert!(!out.contains('+') && !["%2D", "%2E", "%5F", "%7E"].iter().any(|kept| out.contains(kept)));
        prop_assert_eq!(out.to_ascii_uppercase().matches('%').count(), text.bytes().filter(|byte| !byte.is_ascii_alphanumeric() && !b"-._~".contains(byte)).count());
        for escape in out.split('%').skip(1) {
            prop_assert!(escape.bytes().take(2).all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte)));
        }
        prop_assert_eq!(percent_encoding::percent_decode_str(&out).collect::<Vec<u8>>(), text.as_bytes());
    }

    /// However a client escapes a query, what it means is what is signed.
    #[test]
    fn p69_escapes_of_a_client_are_undone_first(pairs in proptest::collection::vec((".{0,8}", ".{0,8}"), 0..6)) {
        let strict: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", encoded(name.as_bytes()), encoded(value.as_bytes()))).collect();
        let loose = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        let of = |query: &str| base(&signed("GET", true, "h", "/", query, Form::None), &[]);
        prop_assert_eq!(of(&strict.join("&")), of(&loose));
        prop_assert_eq!(of(&loose), base(&signed("GET", true, "h", "/", "", Form::Whole(loose.as_bytes())), &[]));
    }
}
