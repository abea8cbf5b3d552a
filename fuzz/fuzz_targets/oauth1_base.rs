//! The signature base string (RFC 5849 §3.4.1): three parts whatever the request holds, each in the one escaping, and from it the parameters
//! can be read again, so that two different requests never share one.

#![no_main]

use attache::attach::oauth1::fuzzing::base_string;
use attache::attach::oauth1::{Form, Signed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &str, Option<&[u8]>, bool)| {
    let (host, path, query, form, tls) = input;
    let form = form.map_or(Form::None, Form::Whole);
    let request = Signed { method: "post", tls, private: true, host, path, query, form };
    let base = base_string(&request, &[("oauth_nonce", "n&=%"), ("oauth_timestamp", "1")]);
    let parts: Vec<&str> = base.split('&').collect();
    assert_eq!(parts.len(), 3, "{base}");
    assert_eq!(parts[0], "POST");
    let mut bytes = base.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
                assert!(hex(bytes.next()) && hex(bytes.next()), "a broken escape: {base}");
            }
            byte => assert!(byte.is_ascii_alphanumeric() || b"-._~&".contains(&byte), "{byte} unescaped: {base}"),
        }
    }
    let whole: Vec<u8> = percent_encoding::percent_decode_str(parts[2]).collect();
    let text = String::from_utf8(whole).expect("escaped once more below");
    let pairs: Vec<&str> = text.split('&').collect();
    let mut sorted = pairs.clone();
    sorted.sort_by_key(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(pairs, sorted, "§3.4.1.3.2 sorts them");
    assert!(pairs.contains(&"oauth_nonce=n%26%3D%25") && pairs.contains(&"oauth_timestamp=1"));
});
