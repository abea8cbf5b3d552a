//! What a matched request's path and query become upstream (contract §3, "Rewriting").
//!
//! In the path a capture keeps its bytes, so that what was matched is what is forwarded; in the query it is decoded once and escaped again.
//! Deliberately absent: the upstream's host, which no part of a request can touch.

use super::extras::{Extras, Names, Need};
use super::path;
use super::pattern::Captures;
use super::template::{Piece, Place, TemplateError, given, join, push_query_capture, query_text, scan, values};
use percent_encoding::percent_decode_str;

/// `upstream`, `query` and `set_query` of a route, checked.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// Begins with `/`.
    path: Box<[Piece]>,
    /// The pairs of `upstream`'s query, joined.
    upstream: Box<[Piece]>,
    defaults: Box<[DefaultPair]>,
    /// The pairs of `set_query`, joined.
    set: Box<[Piece]>,
    /// The decoded names in `upstream` and `set_query`: a client's own pairs of these names are dropped.
    dropped: Box<[Box<[u8]>]>,
}

/// One entry of `query`: a pair for a client that sent none of this name.
#[derive(Debug, Clone)]
struct DefaultPair {
    name: Box<[u8]>,
    /// `name=value`, escaped.
    pair: Box<[Piece]>,
}

impl Rewrite {
    /// Reads the path and query of `upstream` (what follows its host), the entries of `query` and those of `set_query`. `names` are those that
    /// the route may write: the captures of its match, and values of its connections.
    ///
    /// # Errors
    /// The first fault; its `place` says in which of the texts.
    pub fn parse<'n>(
        upstream_path_and_query: &str,
        query_defaults: &[(String, String)],
        set_query: &[(String, String)],
        names: impl Into<Names<'n>>,
    ) -> Result<Rewrite, TemplateError> {
        let known = names.into();
        let Upstream { path, pairs, names: mut dropped } =
            parse_upstream(upstream_path_and_query, known).map_err(|error| error.at(Place::Upstream))?;
        let mut set = Vec::new();
        for (index, (name, value)) in set_query.iter().enumerate() {
            set.push(parse_pair(name, value, known).map_err(|error| error.at(Place::SetQuery(index)))?);
            dropped.push(name.as_bytes().into());
        }
        let mut defaults = Vec::new();
        for (index, (name, value)) in query_defaults.iter().enumerate() {
            let pair = parse_pair(name, value, known).map_err(|error| error.at(Place::Query(index)))?;
            // What `upstream` or `set_query` name is never missing.
            if !dropped.iter().any(|known| **known == *name.as_bytes()) {
                defaults.push(DefaultPair { name: name.as_bytes().into(), pair });
            }
        }
        dropped.sort();
        dropped.dedup();
        Ok(Rewrite { path, upstream: join_pairs(pairs), defaults: defaults.into(), set: join_pairs(set), dropped: dropped.into() })
    }

    /// The path's literal text before its first capture: everything that this route can reach lies under it.
    pub fn literal_prefix(&self) -> &str {
        match self.path.first() {
            Some(Piece::Text(text)) => text,
            _ => "/",
        }
    }

    pub(super) fn path_pieces(&self) -> &[Piece] {
        &self.path
    }

    /// The prefix and the capture, where the path is literal text up to a `/` and one capture after it, and nothing else: whatever lies under
    /// the prefix is then the route's.
    pub fn whole_prefix(&self) -> Option<(&str, &str)> {
        match &*self.path {
            [Piece::Text(prefix), Piece::Capture(rest)] if prefix.ends_with('/') => Some((prefix, rest)),
            _ => None,
        }
    }

    /// The values of a connection that stand in it, each with its strictest place.
    pub fn needs(&self) -> impl Iterator<Item = Need> {
        let in_path = values(&self.path).map(|name| (name, true));
        let in_query =
            self.defaults.iter().map(|default| &default.pair).chain([&self.upstream, &self.set]).flat_map(|pieces| values(pieces));
        in_path.chain(in_query.map(|name| (name, false))).map(|(name, in_path)| Need { name: name.into(), in_path })
    }

    /// Appends `path` or `path?query` to `out`. `attach_query` names the parameter that the token will stand in; the client's own goes.
    pub fn apply(&self, captures: &Captures<'_>, client_query: Option<&str>, attach_query: Option<&str>, out: &mut String) {
        let client_query = client_query.unwrap_or_default();
        out.reserve(self.literal_prefix().len() + client_query.len() + 64);
        push_pieces(&self.path, captures, out, |raw, out| out.push_str(raw));
        let mut query = Query { start: out.len(), out };
        self.push_client(client_query, attach_query, captures.extras(), &mut query);
        query.push_pieces(&self.upstream, captures);
        for default in &self.defaults {
            let taken = attach_query.is_some_and(|name| name.as_bytes() == &*default.name);
            if !taken && !pairs(client_query).any(|pair| is_named(pair, &default.name)) {
                query.push_pieces(&default.pair, captures);
            }
        }
        query.push_pieces(&self.set, captures);
        if let Some(extras) = captures.extras() {
            self.push_extras(extras, client_query, attach_query, &mut query);
        }
        query.end();
    }

    /// The provider's own pairs. Whatever the route names goes over them.
    fn push_extras(&self, extras: &Extras, client_query: &str, attach_query: Option<&str>, query: &mut Query<'_>) {
        let open = |name: &[u8]| !self.names(name) && attach_query.is_none_or(|attach| attach.as_bytes() != name);
        let set = extras.set_query.iter().filter(|pair| open(&pair.name));
        let missing = |name: &[u8]| !pairs(client_query).any(|pair| is_named(pair, name)) && !extras.sets(|set| set == name);
        let defaults = extras.query.iter().filter(|pair| open(&pair.name) && missing(&pair.name));
        for pair in defaults.chain(set) {
            query.push(&pair.text);
        }
    }

    /// Whether the route itself says what this parameter holds.
    fn names(&self, name: &[u8]) -> bool {
        self.dropped.iter().any(|known| **known == *name) || self.defaults.iter().any(|default| *default.name == *name)
    }

    fn push_client(&self, client_query: &str, attach_query: Option<&str>, extras: Option<&Extras>, query: &mut Query<'_>) {
        let extras = extras.filter(|extras| !extras.set_query.is_empty());
        if self.dropped.is_empty() && attach_query.is_none() && extras.is_none() {
            if !client_query.is_empty() {
                query.push(client_query);
            }
            return;
        }
        for pair in pairs(client_query) {
            let is_dropped = self.dropped.iter().any(|name| is_named(pair, name))
                || extras.is_some_and(|extras| extras.sets(|name| is_named(pair, name) && !self.names(name)));
            if !is_dropped && !attach_query.is_some_and(|name| is_named(pair, name.as_bytes())) {
                query.push(pair);
            }
        }
    }
}

/// A query that is being written, from its `?` on.
struct Query<'o> {
    out: &'o mut String,
    start: usize,
}

impl Query<'_> {
    fn joint(&mut self) {
        self.out.push(if self.out.len() == self.start { '?' } else { '&' });
    }

    fn push(&mut self, text: &str) {
        self.joint();
        self.out.push_str(text);
    }

    fn push_pieces(&mut self, pieces: &[Piece], captures: &Captures<'_>) {
        if !pieces.is_empty() {
            self.joint();
            push_pieces(pieces, captures, self.out, push_query_capture);
        }
    }

    /// No `?` stands alone.
    fn end(self) {
        if self.out.len() == self.start + 1 {
            self.out.truncate(self.start);
        }
    }
}

pub(super) fn push_pieces(pieces: &[Piece], captures: &Captures<'_>, out: &mut String, push_capture: impl Fn(&str, &mut String)) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Capture(name) => push_capture(captures.get(name).unwrap_or_default(), out),
            Piece::Value(name) => match captures.extras() {
                // Whether it is there was asked before the call was built: see `Need`.
                Some(extras) => out.push_str(extras.escaped(name).unwrap_or_default()),
                // What is only explained has no connection: the place is shown.
                None => out.extend(["{", name, "}"]),
            },
        }
    }
}

fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(move |_| !query.is_empty())
}

/// A query without its pairs of this name.
pub fn without(query: &str, name: &str) -> String {
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_named(pair, name.as_bytes())).collect();
    kept.join("&")
}

/// Whether the pair's name, decoded once, is `name`: `%61lt` is `alt` to the upstream, so it is to us.
fn is_named(pair: &str, name: &[u8]) -> bool {
    let raw = pair.split_once('=').map_or(pair, |(name, _)| name);
    if !raw.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return raw.as_bytes() == name;
    }
    // Plus means a space in a form's encoding (WHATWG URL §5.1), and only an escaped one is itself; so the cut comes before the decoding.
    let words = raw.split('+').enumerate();
    words.flat_map(|(index, word)| (index > 0).then_some(b' ').into_iter().chain(percent_decode_str(word))).eq(name.iter().copied())
}

/// One pair as it is sent.
pub(super) type Pair = Box<[Piece]>;
/// A parameter's name, decoded.
type Name = Box<[u8]>;

/// `upstream`, taken apart.
struct Upstream {
    path: Box<[Piece]>,
    pairs: Vec<Pair>,
    /// Of the pairs, in their order.
    names: Vec<Name>,
}

fn parse_upstream(text: &str, known: Names<'_>) -> Result<Upstream, TemplateError> {
    if let Some(offset) = text.find('#') {
        return Err(TemplateError::new(offset, "an upstream has no fragment").hint("a `#` that is meant as text is `%23`"));
    }
    let (path_text, query) = text.split_once('?').unwrap_or((text, ""));
    let path = if path_text.is_empty() { Box::new([Piece::Text("/".into())]) as Box<[Piece]> } else { parse_path(path_text, known)? };
    let mut upstream = Upstream { path, pairs: Vec::new(), names: Vec::new() };
    let mut at = path_text.len() + 1;
    for pair in query.split('&') {
        if !pair.is_empty() {
            let (name, pieces) = parse_upstream_pair(pair, known).map_err(|error| TemplateError { offset: error.offset + at, ..error })?;
            upstream.pairs.push(pieces);
            upstream.names.push(name);
        }
        at += pair.len() + 1;
    }
    Ok(upstream)
}

fn parse_path(text: &str, known: Names<'_>) -> Result<Box<[Piece]>, TemplateError> {
    if !text.starts_with('/') {
        return Err(TemplateError::new(0, "the path begins with `/`").hint("no capture can stand in the upstream's host or port"));
    }
    let pieces = scan(text, known)?;
    for (at, piece) in &pieces {
        if let Piece::Text(literal) = piece {
            check_uri_text(literal, *at, |byte| byte == b'/')?;
            // Each literal by itself, even one that stands beside a capture: `..{rest}` would be a dot segment when a request's rest is empty
            // or begins with `%2F`. A literal that is none by itself makes none with any capture that has passed the same check.
            path::check(literal)
                .map_err(|fault| TemplateError::new(*at, format!("this literal part cannot stand there: {}", fault.reason())))?;
        }
    }
    let mut joined = Vec::new();
    for (at, piece) in pieces {
        let piece = match (matches!(piece, Piece::Value(_)), given(piece, known, query_text)) {
            (true, Piece::Text(text)) => {
                path::check(&text)
                    .map_err(|fault| TemplateError::new(at, format!("the value given for this cannot stand there: {}", fault.reason())))?;
                Piece::Text(text)
            }
            (_, piece) => piece,
        };
        joined.push(piece);
    }
    Ok(join(joined))
}

/// The decoded name of one pair of `upstream`'s query, and the pair.
fn parse_upstream_pair(pair: &str, known: Names<'_>) -> Result<(Name, Pair), TemplateError> {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    if let Some(offset) = name.find(['{', '}']) {
        return Err(TemplateError::new(offset, "a capture cannot stand in a parameter's name").hint("write it after a `=`"));
    }
    let mut pieces = Vec::new();
    for (at, piece) in scan(pair, known)? {
        pieces.push(match piece {
            Piece::Text(brace) if matches!(&*brace, "{" | "}") => Piece::Text(query_text(&brace).into()),
            Piece::Text(literal) => {
                check_uri_text(&literal, at, |byte| matches!(byte, b'/' | b'?' | b'[' | b']' | b'|'))?;
                Piece::Text(literal)
            }
            place @ (Piece::Capture(_) | Piece::Value(_)) => given(place, known, query_text),
        });
    }
    let decoded: Vec<u8> = percent_decode_str(&name.replace('+', " ")).collect();
    Ok((decoded.into(), join(pieces)))
}

/// One entry of `query` or `set_query`: plain text, escaped here once and for all but for its captures.
pub(super) fn parse_pair(name: &str, value: &str, known: Names<'_>) -> Result<Pair, TemplateError> {
    if name.is_empty() {
        return Err(TemplateError::new(0, "a parameter without a name"));
    }
    let value = scan(value, known)?.into_iter().map(|(_, piece)| match piece {
        Piece::Text(text) => Piece::Text(query_text(&text).into()),
        place @ (Piece::Capture(_) | Piece::Value(_)) => given(place, known, query_text),
    });
    Ok(join([Piece::Text((query_text(name) + "=").into())].into_iter().chain(value)))
}

pub(super) fn join_pairs(pairs: Vec<Pair>) -> Box<[Piece]> {
    let mut joined: Vec<Piece> = Vec::new();
    for pair in pairs {
        if !joined.is_empty() {
            joined.push(Piece::Text("&".into()));
        }
        joined.extend(pair);
    }
    join(joined)
}

/// Literal text of a URL is sent as written, so it must be one (RFC 3986 §3.3): pchar, whole escapes, and what else its part allows.
fn check_uri_text(text: &str, at: usize, also: impl Fn(u8) -> bool) -> Result<(), TemplateError> {
    for (index, char) in text.char_indices() {
        let after = &text.as_bytes()[index + 1..];
        let fault = match u8::try_from(char) {
            Ok(b'%') if !matches!(after, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()) => {
                "a `%` that is not followed by two hexadecimal digits".to_owned()
            }
            Ok(byte) if byte.is_ascii_alphanumeric() || b"%-._~!$&'()*+,;=:@".contains(&byte) || also(byte) => continue,
            _ => format!("`{}` cannot stand in a URL", char.escape_debug()),
        };
        return Err(TemplateError::new(at + index, fault).hint(format!("write `{}`", query_text(char.encode_utf8(&mut [0; 4])))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Found, Pattern, Table};
    use http::Method;

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    struct Case {
        table: Table<()>,
        rewrite: Rewrite,
    }

    impl Case {
        fn new(pattern: &str, upstream: &str, defaults: &[(&str, &str)], set: &[(&str, &str)]) -> Self {
            let pattern = Pattern::parse(pattern).expect("a match");
            let rewrite = Rewrite::parse(upstream, &owned(defaults), &owned(set), &pattern.captures().collect::<Vec<_>>()).expect(upstream);
            Case { table: Table::build(vec![(pattern, ())]).expect("one route"), rewrite }
        }

        fn apply(&self, target: &str, attach_query: Option<&str>) -> Option<String> {
            let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
            path::check(path).ok()?;
            let Found::Route { captures, .. } = self.table.find(&Method::GET, None, path) else { return None };
            let mut out = String::new();
            self.rewrite.apply(&captures, query, attach_query, &mut out);
            Some(out)
        }
    }

    #[test]
    fn a_capture_keeps_its_bytes_in_the_path() {
        for (pattern, upstream, target, expected) in [
            ("/g/{*rest}", "/{rest}", "/g/drive/v3/files", "/drive/v3/files"),
            ("/g/{*rest}", "/{rest}", "/g/", "/"),
            ("/g/{*rest}", "/{rest}", "/g//a//b/", "//a//b/"),
            ("/g/{*rest}", "/{rest}", "/g/a%2Fb%2fc;d=1/%252e%252e/api../+", "/a%2Fb%2fc;d=1/%252e%252e/api../+"),
            ("/p/{id}", "/drive/v3/files/{id}?alt=media", "/p/a%2Fb%20c", "/drive/v3/files/a%2Fb%20c?alt=media"),
            ("/{a}/{b}", "/x/{b}/{a}.json", "/1/2", "/x/2/1.json"),
            ("/h", "", "/h", "/"),
            ("/h", "?alt=media", "/h", "/?alt=media"),
            ("/h", "/v1%2Fx", "/h?", "/v1%2Fx"),
        ] {
            assert_eq!(Case::new(pattern, upstream, &[], &[]).apply(target, None).expect(target), expected, "{pattern} {upstream}");
        }
    }

    #[test]
    fn a_capture_in_the_query_is_decoded_once_and_escaped() {
        for (id, expected) in [
            ("a", "a"),
            ("x&acknowledgeAbuse=true", "x%26acknowledgeAbuse%3Dtrue"),
            ("x%26acknowledgeAbuse=true", "x%26acknowledgeAbuse%3Dtrue"),
            ("%2526", "%2526"),
            ("a+b%20c%2F", "a%2Bb%20c%2F"),
            ("%0D%0A%23", "%0D%0A%23"),
            ("'%22\u{e9}", "%27%22%C3%A9"),
            ("%ff", "%FF"),
        ] {
            for (upstream, defaults, set) in
                [("/?q={id}", vec![], vec![]), ("/", vec![("q", "{id}")], vec![]), ("/", vec![], vec![("q", "{id}")])]
            {
                let out = Case::new("/p/{id}", upstream, &defaults, &set).apply(&format!("/p/{id}"), None);
                assert_eq!(out.expect(id), format!("/?q={expected}"), "{upstream} {defaults:?} {set:?}");
            }
        }
    }

    #[test]
    fn the_query_sent_follows_the_contract() {
        let check = |upstream: &str, defaults: &[(&str, &str)], set: &[(&str, &str)], attach: Option<&str>, table: &[(&str, &str)]| {
            let case = Case::new("/a", upstream, defaults, set);
            for (query, expected) in table {
                assert_eq!(case.apply(&format!("/a{query}"), attach).expect("matched"), *expected, "{query}");
            }
        };
        // Nothing to add or drop: the bytes pass.
        check("/u", &[], &[], None, &[("", "/u"), ("?", "/u"), ("?&", "/u?&"), ("?b=%zz&a=+&&b", "/u?b=%zz&a=+&&b")]);
        check(
            "/u?alt=media&x",
            &[("q", "mimeType contains 'image/'"), ("fields", "files(id,name)"), ("alt", "json")],
            &[("key s", "1&2")],
            Some("token"),
            &[
                ("", "/u?alt=media&x&q=mimeType%20contains%20%27image%2F%27&fields=files%28id%2Cname%29&key%20s=1%262"),
                ("?q=&fields=%2A&z=1", "/u?q=&fields=%2A&z=1&alt=media&x&key%20s=1%262"),
                // A name is a name however it is written, and goes each time it stands there.
                (
                    "?%61lt=json&z=1&alt&x=2&ALT=1",
                    "/u?z=1&ALT=1&alt=media&x&q=mimeType%20contains%20%27image%2F%27&fields=files%28id%2Cname%29&key%20s=1%262",
                ),
                ("?%71=1&fields&key+s=9&key%20s=8&token=evil&t%6Fken=evil", "/u?%71=1&fields&alt=media&x&key%20s=1%262"),
                // Encoded twice it is another name to the upstream too.
                ("?q=1&fields=1&%2561lt=1&&", "/u?q=1&fields=1&%2561lt=1&&&alt=media&x&key%20s=1%262"),
            ],
        );
        check("/u", &[], &[], Some("key"), &[("?key=1", "/u"), ("?key=1&a", "/u?a"), ("?a&key", "/u?a"), ("?akey=key", "/u?akey=key")]);
        // A default neither doubles the token's place nor what is set.
        check("/u", &[("key", "1"), ("s", "1")], &[("s", "2")], Some("key"), &[("", "/u?s=2"), ("?s=3", "/u?s=2")]);
        // `+` is a plus only when escaped.
        check("/u", &[("a+b", "1")], &[], None, &[("?a+b=2", "/u?a+b=2&a%2Bb=1"), ("?a%2Bb=2", "/u?a%2Bb=2"), ("?a%2bb", "/u?a%2bb")]);
        check("/u?f[x]={{1}}", &[], &[], None, &[("?f%5Bx%5D=2", "/u?f[x]=%7B1%7D")]);
    }

    #[test]
    fn tells_where_and_what_is_wrong() {
        let check = |upstream: &str, defaults: &[(&str, &str)], set: &[(&str, &str)], place: Place, offset: usize, part: &str| {
            let error = Rewrite::parse(upstream, &owned(defaults), &owned(set), &["id", "rest"]).expect_err(upstream);
            let told = format!("{error}; {}", error.hint.as_deref().unwrap_or(""));
            assert!(told.contains(part), "{upstream}: {told}");
            assert_eq!((error.place, error.offset), (place, offset), "{upstream}: {told}");
        };
        for (upstream, offset, part) in [
            ("{rest}", 0, "begins with `/`"),
            (".evil.net/", 0, "begins with `/`"),
            ("/a/{ide}", 3, "did you mean `{id}`"),
            ("/a?x=1&b={ide}", 9, "did you mean `{id}`"),
            ("/a?x=1&{id}=b", 7, "parameter's name"),
            ("/a b", 2, "write `%20`"),
            ("/a?q=mimeType contains", 13, "write `%20`"),
            ("/é", 1, "write `%C3%A9`"),
            ("/a/{{x}}", 3, "write `%7B`"),
            ("/a%2", 2, "hexadecimal"),
            ("/a?b=%zz", 5, "hexadecimal"),
            ("/a#b", 2, "no fragment"),
            ("/a\\b", 2, "cannot stand in a URL"),
            ("/a/../b", 0, "`.` or `..`"),
            ("/a/%2e%2E", 0, "`.` or `..`"),
            // Empty, or beginning with `%2F`, these captures would make dot segments of text that is none as written.
            ("/a/..{rest}", 0, "`.` or `..`"),
            ("/a/{rest}.", 9, "`.` or `..`"),
            ("/a/{id}../b", 7, "`.` or `..`"),
            ("/a%00", 0, "NUL"),
        ] {
            check(upstream, &[], &[], Place::Upstream, offset, part);
        }
        check("/", &[("a", "1"), ("q", "x {ide}")], &[], Place::Query(1), 2, "did you mean `{id}`");
        check("/", &[], &[("q", "{")], Place::SetQuery(0), 0, "literal brace");
        check("/", &[("", "1")], &[], Place::Query(0), 0, "without a name");
    }

    #[test]
    fn the_literal_prefix_is_what_stands_before_the_first_capture() {
        for (upstream, prefix) in [("", "/"), ("/a/b?c", "/a/b"), ("/a/{rest}/b", "/a/"), ("/{rest}", "/")] {
            assert_eq!(Case::new("/{*rest}", upstream, &[], &[]).rewrite.literal_prefix(), prefix);
        }
    }
}
