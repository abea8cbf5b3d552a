//! No path and no query makes matching or rewriting panic, and none gets out of what the operator wrote.

#![no_main]

use attache::route::{Found, Pattern, Rewrite, Table, Template, path};
use http::Method;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// What the upstream's path must begin with, the rewrite, and a header that holds the same captures.
struct Target {
    prefix: &'static str,
    rewrite: Rewrite,
    header: Template,
}

static TABLE: LazyLock<Table<Target>> = LazyLock::new(|| {
    let routes = [
        ("GET /photos/google/{id}", "/drive/v3/files/{id}?alt=media", "/drive/v3/files/", "{id}"),
        ("/google/{*rest}", "/{rest}", "/", "{rest}"),
        ("drive.localhost/{a}/{*b}", "/v1/x{a};{b}?a={a}&b={b}", "/v1/x", "{a}, {b}"),
        ("POST /{a}/{b}/c", "/up/{b}/{a}", "/up/", "{b}"),
    ];
    let routes = routes.map(|(pattern, upstream, prefix, header)| {
        let pattern = Pattern::parse(pattern).expect("a match");
        let captures: Vec<&str> = pattern.captures().collect();
        let defaults = [("d".to_owned(), format!("{{{}}}", captures[0]))];
        let rewrite = Rewrite::parse(upstream, &defaults, &[("s".to_owned(), "1".to_owned())], &captures).expect("an upstream");
        let header = Template::parse(header, &captures).expect("a header");
        (pattern, Target { prefix, rewrite, header })
    });
    Table::build(routes.into()).expect("no overlap")
});

fuzz_target!(|text: &str| {
    // Patterns come from the operator, yet they must be refused in words, never by a panic.
    if let Ok(pattern) = Pattern::parse(text) {
        let captures: Vec<&str> = pattern.captures().collect();
        let _ = Template::parse(text, &captures);
        let _ = Rewrite::parse(text, &[], &[], &captures);
    }
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    if path::check(path).is_err() {
        return;
    }
    for (method, host) in [(Method::GET, None), (Method::POST, None), (Method::PUT, Some("Drive.localhost"))] {
        let Found::Route { value, captures } = TABLE.find(&method, host, path) else { continue };
        let mut out = String::new();
        value.rewrite.apply(&captures, query, Some("token"), &mut out);
        let (sent_path, sent_query) = out.split_once('?').expect("`s` is always set");
        assert!(sent_path.starts_with(value.prefix), "{out}");
        assert_eq!(path::check(sent_path), Ok(()), "{out}");
        let pairs = |query: &str| query.split('&').count();
        // `alt`, `a`, `b`, `d` and `s` are all that may be added.
        assert!(pairs(sent_query) <= query.map_or(0, pairs) + 5, "{out}");
        assert!(sent_query.ends_with("s=1") && !sent_query.split('&').any(|pair| pair.starts_with("token=")), "{out}");
        if let Ok(header) = value.header.header_value(&captures) {
            assert!(!header.as_bytes().iter().any(u8::is_ascii_control));
        }
    }
});
