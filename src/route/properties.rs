//! What holds of matching and rewriting together, whatever the routes and the requests (THREATS rows 5, 6, 8, 42).

use super::pattern::Segment;
use super::{Claim, Extras, Fallen, Found, Names, Pattern, Reverse, Rewrite, Site, Table, Upstreams, path};
use http::Method;
use percent_encoding::percent_decode_str;
use proptest::prelude::*;

struct Case {
    table: Table<()>,
    rewrite: Rewrite,
}

impl Case {
    fn new(pattern: &str, upstream: &str, defaults: &[(String, String)], set: &[(String, String)]) -> Self {
        let pattern = Pattern::parse(pattern).expect("a match");
        let rewrite = Rewrite::parse(upstream, defaults, set, &pattern.captures().collect::<Vec<_>>()).expect(upstream);
        Case { table: Table::build(vec![(pattern, ())]).expect("one route"), rewrite }
    }

    fn apply(&self, target: &str) -> Option<String> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        path::check(path).ok()?;
        let Found::Route { captures, .. } = self.table.find(&Method::GET, None, path) else { return None };
        let mut out = String::new();
        self.rewrite.apply(&captures, query, None, &mut out);
        Some(out)
    }
}

/// The path as the laxest server reads it: everything that may be decoded is, and dot segments are walked.
fn walked(path: &str) -> String {
    let mut walked: Vec<&str> = Vec::new();
    let text = path.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%2F", "/").replace('\\', "/");
    for segment in text.split('/').skip(1) {
        match segment.split(';').next() {
            Some(".") => {}
            Some("..") => {
                walked.pop();
            }
            _ => walked.push(segment),
        }
    }
    walked.iter().map(|segment| format!("/{segment}")).collect()
}

const HOSTILE: &str = "(/|\\.|\\.\\.|;|&|=|\\+|a|id|%2e|%2E|%2f|%2F|%25|%26|%3D|%3d|%23|%3f|%0d%0a|%c3%a9|\u{e9}|%ff){0,8}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_was_matched_is_what_is_forwarded(rest in HOSTILE, query in "[a-c&=%+;?]{0,8}") {
        let case = Case::new("/g/{*rest}", "/{rest}", &[], &[]);
        if let Some(out) = case.apply(&format!("/g/{rest}?{query}")) {
            let query = if query.is_empty() { query } else { format!("?{query}") };
            prop_assert_eq!(out, format!("/{rest}{query}"));
        } else {
            let refused = path::check(&format!("/g/{rest}")).is_err();
            prop_assert!(refused);
        }
    }

    #[test]
    fn no_path_leaves_the_literal_prefix(
        a in HOSTILE,
        rest in HOSTILE,
        template in "/api/v1/(\\.|\\.\\.|;|/|x|%2F|%2e|;\\.|\\{a\\}|\\{rest\\}){1,6}",
    ) {
        let Ok(rewrite) = Rewrite::parse(&template, &[], &[], &["a", "rest"]) else { return Ok(()) };
        let case = Case { rewrite, ..Case::new("/{a}/{*rest}", "/", &[], &[]) };
        if let Some(out) = case.apply(&format!("/{a}/{rest}")) {
            prop_assert!(out.starts_with(case.rewrite.literal_prefix()), "{out}");
            prop_assert!(walked(&out).starts_with("/api/v1/"), "{template}: {out}");
            prop_assert_eq!(path::check(&out), Ok(()), "{}: {}", template, out);
            prop_assert!(!out.contains(['?', '#']));
        }
    }

    #[test]
    fn no_capture_adds_a_pair(a in HOSTILE, rest in HOSTILE, query in "(a|q|d|s|%71|=|&|\\+|1){0,8}") {
        let case = Case::new("/{a}/{*rest}", "/u?q={rest}", &[("d".into(), "{a}".into())], &[("s".into(), "{rest}x{a}".into())]);
        if let Some(out) = case.apply(&format!("/{a}/{rest}?{query}")) {
            let (_, sent) = out.split_once('?').expect("a query");
            let sent: Vec<_> = form_urlencoded::parse(sent.as_bytes()).collect();
            let client: Vec<_> = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| !matches!(&**name, "q" | "s")).collect();
            let has_default = client.iter().any(|(name, _)| name == "d");
            prop_assert_eq!(&sent[..client.len()], &client[..]);
            let added = &sent[client.len()..];
            let names: Vec<&str> = added.iter().map(|(name, _)| &**name).collect();
            prop_assert_eq!(names, if has_default { vec!["q", "s"] } else { vec!["q", "d", "s"] });
            let path = format!("{a}/{rest}");
            let rest = path.split_once('/').map_or("", |(_, rest)| rest);
            prop_assert_eq!(&added[0].1, &percent_decode_str(rest).decode_utf8_lossy());
        }
    }

    /// A connection's value is nobody's word on the path or the query but for the place that it stands in.
    #[test]
    fn no_value_leaves_its_place(
        value in "(/|\\.|\\.\\.|;|&|=|\\?|#|%|%2e|%2F|\\\\|a| |\u{e9}|\\+){1,6}",
        rest in HOSTILE,
        template in "/api/(x|;|\\{v\\}|\\{rest\\}|/){1,5}",
    ) {
        let names = Names { captures: &["rest"], values: &[("v", None)] };
        let Ok(rewrite) = Rewrite::parse(&format!("{template}?q={{v}}"), &[("d".into(), "{v}".into())], &[], names) else { return Ok(()) };
        let extras = Extras::new([("v", value.as_str().into())]).with_query(&[("e".into(), value.clone())], &[("s".into(), value.clone())]);
        if !rewrite.needs().all(|need| extras.meets(&need)) {
            return Ok(());
        }
        let target = format!("/{rest}");
        prop_assume!(path::check(&target).is_ok());
        let table = Table::build(vec![(Pattern::parse("/{*rest}").expect("a match"), ())]).expect("one route");
        let Found::Route { captures, .. } = table.find(&Method::GET, None, &target) else { return Ok(()) };
        let mut out = String::new();
        rewrite.apply(&captures.with(&extras), None, None, &mut out);
        let (path, query) = out.split_once('?').expect("a query");
        prop_assert!(walked(path).starts_with("/api"), "{template} {value}: {out}");
        prop_assert_eq!(path::check(path), Ok(()), "{} {}: {}", template, value, out);
        let sent: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let expected: Vec<_> = ["q", "d", "e", "s"].iter().map(|name| ((*name).to_owned(), value.clone())).collect();
        prop_assert_eq!(sent, expected);
    }
}

/// How specific one pattern is for one path, compared from the left, or `None` where it does not match.
fn rank(pattern: &Pattern, host: Option<&str>, path: &str) -> Option<Vec<u8>> {
    let mut rank = vec![match &pattern.host {
        Some(name) if Some(&**name) == host => 0,
        Some(_) => return None,
        None => 1,
    }];
    let mut given = path[1..].split('/').map(Some).chain([None]);
    for segment in &pattern.segments {
        let text = given.next().flatten()?;
        rank.push(match segment {
            Segment::Literal(literal) if **literal == *text => 0,
            Segment::Capture if !text.is_empty() => 1,
            Segment::Rest => {
                rank.push(2);
                return Some(rank);
            }
            _ => return None,
        });
    }
    given.next().flatten().is_none().then_some(rank)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn agrees_with_trying_every_route(
        texts in prop::collection::vec("(|GET |POST |HEAD |GET,POST )(|h)(/(a|b||\\{\\})){1,4}(|/\\{\\*\\})", 0..12),
        path in "(/(a|b|c||%61)){1,5}",
        host in prop::option::of("h|i"),
        method in prop::sample::select(vec![Method::GET, Method::POST, Method::HEAD, Method::PUT]),
    ) {
        let mut patterns: Vec<Pattern> = Vec::new();
        for text in texts {
            let (mut named, mut count) = (String::new(), 0);
            for char in text.chars() {
                if char == '}' {
                    named.push_str(&format!("n{count}"));
                    count += 1;
                }
                named.push(char);
            }
            patterns.push(Pattern::parse(&named).expect("well-formed"));
            if Table::build(patterns.iter().cloned().map(|pattern| (pattern, ())).collect()).is_err() {
                patterns.pop();
            }
        }
        let table = Table::build(patterns.iter().cloned().enumerate().map(|(index, pattern)| (pattern, index)).collect()).expect("no overlap");
        let by_method = |pattern: &Pattern| match &pattern.methods[..] {
            [] => Some(2),
            named if named.contains(&method) => Some(0),
            named if method == Method::HEAD && named.contains(&Method::GET) => Some(1),
            _ => None,
        };
        let host = host.as_deref();
        let fits = |index: &usize| rank(&patterns[*index], host, &path).is_some();
        let best = (0..patterns.len())
            .filter(fits)
            .filter_map(|index| Some(((rank(&patterns[index], host, &path)?, by_method(&patterns[index])?), index)))
            .min();
        match (table.find(&method, host, &path), best) {
            (Found::Route { value, captures }, Some((_, index))) => {
                prop_assert_eq!(*value, index);
                // Put back together, pattern and captures are the path's own bytes.
                let mut values = captures.iter().map(|(_, value)| value);
                let again: String = patterns[index].segments.iter().map(|segment| match segment {
                    Segment::Literal(literal) => format!("/{literal}"),
                    _ => format!("/{}", values.next().unwrap_or("?")),
                }).collect();
                prop_assert_eq!(&again, &path);
            }
            (Found::MethodNotAllowed { allow }, None) => {
                prop_assert!((0..patterns.len()).any(|index| fits(&index)));
                prop_assert!(!allow.is_empty() && !allow.contains(&method));
            }
            (Found::None, None) => prop_assert!(!(0..patterns.len()).any(|index| fits(&index))),
            (found, best) => prop_assert!(false, "{found:?} but {best:?}"),
        }
    }
}

/// A match and an upstream's path of it, by segments: literals of each side and up to four captures, which the upstream has in any order.
fn routes() -> impl Strategy<Value = (String, String)> {
    let segment = "(a|b;|%2F|\\.\\.\\.|~)";
    (prop::collection::vec(prop::option::of(segment), 0..5), any::<bool>(), prop::collection::vec(segment, 0..4), any::<u64>()).prop_map(
        |(segments, rest, literals, order)| {
            let (mut matches, mut captures) = (String::new(), Vec::new());
            for segment in segments {
                matches.push('/');
                match segment {
                    Some(literal) => matches.push_str(&literal),
                    None => {
                        captures.push(format!("{{c{}}}", captures.len()));
                        matches.push_str(captures.last().expect("one"));
                    }
                }
            }
            let mut upstream: Vec<String> = captures.into_iter().chain(literals).collect();
            let length = upstream.len().max(1);
            upstream.rotate_left(usize::try_from(order % length as u64).expect("small"));
            let mut upstream: String = upstream.iter().map(|segment| format!("/{segment}")).collect();
            if rest || matches.is_empty() {
                matches.push_str("/{*rest}");
                upstream.push_str("/{rest}");
            }
            if upstream.is_empty() {
                upstream.push('/');
            }
            (matches, upstream)
        },
    )
}

const ANY_PATH: &str = "(/(a|b;|%2F|\\.\\.\\.|~|x%25|:@|%E2%82%AC||c){1,2}){1,7}/?";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Both ways: the upstream's path is its template with the very bytes that were matched, and read backwards it is the path that was asked for.
    /// Fails when a capture is decoded or normalised anywhere between the match and the rewrite.
    #[test]
    fn threat_05_matched_is_forwarded_and_the_way_back_is_the_way((matches, upstream) in routes(), asked in ANY_PATH, filled in any::<bool>()) {
        let pattern = Pattern::parse(&matches).expect("a match");
        let rewrite = Rewrite::parse(&upstream, &[], &[], &pattern.captures().collect::<Vec<_>>()).expect("an upstream");
        // Half of the paths are made to fit, or few would.
        let mut parts = asked.split('/').filter(|part| !part.is_empty()).cycle();
        let asked = match filled {
            false => asked,
            true => pattern.segments.iter().map(|segment| match segment {
                Segment::Literal(literal) => format!("/{literal}"),
                Segment::Capture => format!("/{}", parts.next().unwrap_or("x")),
                Segment::Rest => asked.clone(),
            }).collect(),
        };
        prop_assume!(path::check(&asked).is_ok());
        let table = Table::build(vec![(pattern.clone(), ())]).expect("one route");
        let Found::Route { captures, .. } = table.find(&Method::GET, None, &asked) else { return Ok(()) };
        let mut sent = String::new();
        rewrite.apply(&captures, None, None, &mut sent);
        let mut expected = upstream.clone();
        for (name, value) in captures.iter() {
            expected = expected.replace(&format!("{{{name}}}"), value);
        }
        prop_assert_eq!(&sent, &expected);
        let reverse = Reverse::new(&pattern, &rewrite).expect("a way back");
        prop_assert_eq!(reverse.path(&sent), Some(asked));
    }

    /// What leads back into the route comes out again where it pointed.
    #[test]
    fn what_is_told_leads_where_it_pointed((matches, upstream) in routes(), pointed in ANY_PATH) {
        let pattern = Pattern::parse(&matches).expect("a match");
        let rewrite = Rewrite::parse(&upstream, &[], &[], &pattern.captures().collect::<Vec<_>>()).expect("an upstream");
        let reverse = Reverse::new(&pattern, &rewrite).expect("a way back");
        let Some(told) = reverse.path(&pointed) else { return Ok(()) };
        let table = Table::build(vec![(pattern, ())]).expect("one route");
        let found = table.find(&Method::GET, None, &told);
        prop_assert!(matches!(found, Found::Route { .. }), "{told}: {found:?}");
        let Found::Route { captures, .. } = found else { return Ok(()) };
        let mut sent = String::new();
        rewrite.apply(&captures, None, None, &mut sent);
        prop_assert_eq!(sent, pointed);
    }

    /// A whole URL's path leaves as it came, by the longest of the upstreams that it lies under.
    /// Fails when the path is taken from a URL parser that tidies it.
    #[test]
    fn threat_05_a_path_in_absolute_form_is_forwarded_as_sent(
        prefixes in prop::collection::hash_set("(/(a|b;|~)){0,3}/", 1..5),
        asked in ANY_PATH,
        within in prop::option::of(0..5usize),
    ) {
        let prefixes: Vec<String> = prefixes.into_iter().collect();
        let asked = match within.and_then(|index| prefixes.get(index)) {
            Some(prefix) => format!("{}{asked}", &prefix[..prefix.len() - 1]),
            None => asked,
        };
        prop_assume!(path::check(&asked).is_ok());
        let claim = |prefix: &String| {
            let rewrite = Rewrite::parse(&format!("{prefix}{{rest}}"), &[], &[], &["rest"]).expect("an upstream");
            let (text, rest) = rewrite.whole_prefix().expect("a whole prefix");
            let (prefix, rest) = (text.into(), [rest.into()]);
            Claim { tls: true, host: "up.example".into(), port: 443, prefix, rest, methods: Vec::new(), owner: None, value: rewrite.clone() }
        };
        let upstreams: Upstreams<Rewrite> = prefixes.iter().map(claim).collect();
        let site = Site { tls: false, host: "Up.Example", port: None };
        let longest = prefixes.iter().filter(|prefix| asked.starts_with(*prefix)).max_by_key(|prefix| prefix.len());
        match upstreams.find(&Method::GET, &site, &asked, None) {
            Fallen::Under { value, captures } => {
                let mut sent = String::new();
                value.apply(&captures, None, None, &mut sent);
                prop_assert_eq!(&sent, &asked);
                prop_assert_eq!(value.whole_prefix().map(|(prefix, _)| prefix), longest.map(|prefix| &**prefix));
            }
            found => prop_assert!(longest.is_none(), "{found:?}"),
        }
    }
}
