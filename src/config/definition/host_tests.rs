//! Hosts that values make: which texts of a definition are refused, so that no value leads to a host that is anyone's.

use crate::config::load_str;
use std::path::Path;

/// What is told of a provider with these keys in flow form.
fn told(keys: &str) -> String {
    let text = format!("providers:\n  p: {{client_id: id, client_secret: s, authorize_url: \"https://a.test/\", {keys}}}\n");
    match load_str(&text, Path::new("routes.yaml"), Path::new("/nonexistent"), &|_| None) {
        Ok(_) => String::new(),
        Err(errors) => errors.to_string(),
    }
}

#[track_caller]
fn check(host: &str, part: &str) {
    let values = "inputs: {lab: {kind: label}, team: {kind: label}, tld: {kind: label, value: com}, shop: {kind: host, hosts: [example.com]}, own: {kind: host, hosts: [b.example.com], value: b.example.com}}, metadata: {at: {from: reply.at, kind: origin, hosts: [\"*.c.test\"]}}";
    let told = told(&format!("{values}, token_url: \"https://{host}/t\", token_hosts: [a.test]"));
    assert!(if part.is_empty() { told.is_empty() } else { told.contains(part) }, "{host}: {told}");
}

#[test]
fn a_host_that_is_a_value_stands_alone_or_behind_a_dot() {
    for fine in ["{shop}", "auth.{shop}", "{lab}.{at}", "{shop}:8443", "{lab}.{team}.example.com", "{lab}-{team}.example.com", "api-{own}"]
    {
        check(fine, "");
    }
    for evil in ["{lab}{shop}", "evil{shop}", "{lab}-{at}", "{shop}{lab}", "{shop}x.example.com", "a.{lab}{shop}.example.com"] {
        check(evil, "is a whole host");
    }
    for evil in ["{lab}.{tld}", "{lab}.com", "{lab}{own}", "{own}{lab}"] {
        check(evil, if evil == "{lab}{own}" { "" } else { "would choose among hosts that are anyone's" });
    }
}

#[test]
fn a_lookup_at_a_fixed_host_carries_its_token_where_tokens_go() {
    let lookup = |url: &str, hosts: &str| {
        told(&format!("token_url: \"https://a.test/t\", lookups: [{{url: \"{url}\", metadata: {{id: id}}}}], token_hosts: [{hosts}]"))
    };
    assert_eq!(lookup("https://api.a.test/me", "api.a.test"), "");
    for (url, hosts) in [
        ("https://me.a.test/me", "api.a.test"),
        ("https://api.a.test:8443/me", "api.a.test"),
        ("https://api.a.test/me", "\"*.a.test\", \"!api.a.test\""),
    ] {
        assert!(lookup(url, hosts).contains("a lookup carries its token to a host that is not among `token_hosts`"), "{url} {hosts}");
    }
}
