//! Upstreams whose host holds values of a connection: what is taken, and what is told where it stands.

use super::{RouteOrigin, Snapshot, load_str};
use std::path::Path;

fn load(provider: &str, route: &str) -> Result<Snapshot, String> {
    let text = format!(
        "providers:\n  desk:\n    client_id: a\n    authorize_url: https://www.desk.test/authorize\n    token_url: https://www.desk.test/token\n    token_hosts: [\"*.desk.test\", \"!www.desk.test\"]\n{provider}routes:\n  - {route}\n"
    );
    load_str(&text, Path::new("routes.yaml"), Path::new("/"), &|_| None).map_err(|errors| errors.to_string())
}

const VALUES: &str = "    inputs:
      team: {label: Sub-domain, kind: label}
      note: {label: Note}
    metadata:
      api: {from: reply.api, kind: origin, hosts: [\"*.desk.test\"]}
      away: {from: reply.away, kind: host, hosts: [desk.example]}
";

#[test]
fn a_host_takes_values_that_can_be_one() {
    for (upstream, written) in [
        ("https://{team}.desk.test/api/v2/{rest}", "{team}.desk.test"),
        ("https://{api}/{rest}", "{api}"),
        ("https://eu-{team}.desk.test:443/{rest}?n={note}", "eu-{team}.desk.test:443"),
    ] {
        let snapshot = load(VALUES, &format!("{{match: '/z/{{*rest}}', provider: desk, upstream: '{upstream}'}}")).expect(upstream);
        let RouteOrigin::PerConnection(template) = &snapshot.route_list[0].origin else { panic!("{upstream} is fixed") };
        assert_eq!(&*template.written, written);
        assert!(snapshot.route_list[0].has_own);
        assert_eq!(snapshot.route_list[0].needs.len(), usize::from(upstream.contains("note")));
    }
}

#[test]
fn values_that_the_registration_gives_make_a_fixed_host() {
    let given = VALUES.replace("kind: label", "kind: label, value: acme");
    let route = |upstream: &str| format!("{{match: '/z/{{*rest}}', provider: desk, upstream: '{upstream}'}}");
    let snapshot = load(&given, &route("https://{team}.desk.test/{team}/{rest}?s={team}")).expect("loaded");
    let RouteOrigin::Fixed(origin) = &snapshot.route_list[0].origin else { panic!("not fixed") };
    assert_eq!(&*origin.host, "acme.desk.test");
    assert!(snapshot.route_list[0].needs.is_empty() && !snapshot.route_list[0].has_own);
    let denied = VALUES.replace("kind: label", "kind: label, value: www");
    let told = load(&denied, &route("https://{team}.desk.test/{rest}")).expect_err("denied");
    assert!(told.contains("tokens of `desk` may not be sent to `www.desk.test`"), "{told}");
    // The app's own token has such values too.
    let app = "{match: '/z/{*rest}', provider: desk, as: app, upstream: 'https://{team}.desk.test/{team}/{rest}'}";
    load(&format!("    client_secret: s\n{given}"), app).expect("loaded");
}

#[test]
fn what_cannot_be_a_host_is_told_where_it_stands() {
    for (match_, upstream, more, column, part) in [
        ("/z/{*rest}", "https://{rest}.desk.test/", "", 62, "never comes from the request"),
        ("/z/{team}", "https://{team}.desk.test/", "", 61, "both a capture"),
        ("/z/{team}", "https://a.desk.test/{team}", "", 0, "both a capture"),
        ("/z/{*rest}", "https://{team2}.desk.test/", "", 62, "did you mean `team`"),
        ("/z/{*rest}", "https://{note}.desk.test/", "", 62, "may be any text"),
        ("/z/{*rest}", "https://{team}.evil.test/", "", 62, "may not be sent to such a host"),
        ("/z/{*rest}", "https://{away}/", "", 62, "may not be sent to such a host"),
        ("/z/{*rest}", "https://a.desk.test:{team}/", "", 62, "no place stands in a port"),
        ("/z/{*rest}", "https://{sub.desk.test/", "", 62, "not closed"),
        ("/z/{*rest}", "http://{team}.desk.test/", "", 0, ""),
        ("/z/{*rest}", "https://{team}.desk.test/", ", as: app", 62, "the app's own token has none"),
        ("/z/{*rest}", "https://{team}.desk.test/", ", as: none", 62, "no value `team`"),
        ("/z/{*rest}", "https://a.desk.test/{team}", ", as: none", 0, "no capture `team`"),
        ("/z/{*rest}", "https://a.desk.test/?s={teamm}", "", 0, "did you mean `{team}`"),
    ] {
        let route = format!("{{match: '{match_}', provider: desk, upstream: '{upstream}'{more}}}");
        let loaded = load(&format!("    client_secret: s\n{VALUES}"), &route);
        // Plain http is a matter of the loopback, which only the call knows; there is none here that is possible.
        let told = loaded.err().unwrap_or_else(|| panic!("{upstream} was taken"));
        assert!(told.contains(part), "{upstream}: {told}");
        assert!(column == 0 || told.contains(&format!(":{column}: ")), "{upstream}: {told}");
        assert_eq!(told.matches("routes.yaml:").count(), 1, "{upstream}: {told}");
    }
}
