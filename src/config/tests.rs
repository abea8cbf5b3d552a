//! What an operator sees: the contract's own config taken, and each typo told at its place with what was meant.

use super::*;
use crate::attach::Scheme;
use crate::provider::{ClientAuth, Lifetime, Pkce};
use crate::route::Found;
use http::Method;
use std::path::Path;
use std::time::Duration;

/// The file that the contract prints (§3).
pub(super) const CONTRACT: &str = r#"
listen:
  proxy:  127.0.0.1:7070
  public: 127.0.0.1:7071
  admin:  127.0.0.1:7072
public_url: http://localhost:7071        # what browsers see; redirect URI = {public_url}/oauth/callback/{provider}

end_user:
  header: X-End-User                     # required on each call unless the route says `as: app` or `as: none`
  account_header: X-End-User-Account

store:
  sled: {path: ./attache.db}
  encryption_key_file: ./attache.key

admin:
  token_file: ./attache.admin-token

providers:                               # the client registrations
  google:
    optional: true
    client_id: ${GOOGLE_CLIENT_ID}
    client_secret: ${GOOGLE_CLIENT_SECRET}
    scopes: [https://www.googleapis.com/auth/drive.readonly]
  work-google: {use: google, client_id: "…"}    # a second registration of one definition
  intranet:                              # a definition written in place instead of in providers/
    authorize_url: https://sso.example.com/authorize
    token_url: https://sso.example.com/token
    token_hosts: [api.example.com]

routes:
  - name: list-photos                    # the seed's GetListOfPhoto
    match: GET /photos/google
    provider: google
    upstream: https://www.googleapis.com/drive/v3/files
    query: {q: "mimeType contains 'image/'", fields: "files(id,name,thumbnailLink)"}   # added unless the client sent it
  - name: high-res-photo                 # GetHighResLocation
    match: GET /photos/google/{id}
    provider: google
    upstream: https://www.googleapis.com/drive/v3/files/{id}?alt=media
  - match: /google/{*rest}               # everything else of that API, any method
    provider: google
    upstream: https://www.googleapis.com/{rest}
"#;

/// A few lines that make any route below whole.
const HEAD: &str = "providers:\n  google: {client_id: g, client_secret: s}\nroutes:\n";

fn env(name: &str) -> Option<String> {
    match name {
        "GOOGLE_CLIENT_ID" => Some("from-env".into()),
        "GOOGLE_CLIENT_SECRET" => Some("s3cr3t-canary".into()),
        "PORT" => Some("9090".into()),
        "DIGITS" => Some("12345".into()),
        "YES" => Some("true".into()),
        "DRAIN" => Some("5s".into()),
        "BRACES" => Some("{id}".into()),
        _ => None,
    }
}

fn load_one(text: &str) -> Result<Snapshot, ConfigErrors> {
    load_str(text, Path::new("routes.yaml"), Path::new("/etc/attache"), &env)
}

fn loaded(text: &str) -> Snapshot {
    load_one(text).unwrap_or_else(|errors| panic!("{errors}\n--\n{text}"))
}

#[test]
fn the_contracts_own_file_is_taken() {
    let snapshot = loaded(CONTRACT);
    assert_eq!(snapshot.route_list.len(), 3);
    let google = &snapshot.providers["google"];
    assert_eq!((&*google.client_id, google.client_auth, google.pkce), ("from-env", ClientAuth::Body, Pkce::S256));
    assert_eq!(google.scopes, [Box::<str>::from("https://www.googleapis.com/auth/drive.readonly")]);
    assert_eq!(google.off, None);
    let work = &snapshot.providers["work-google"];
    assert_eq!((&*work.definition, &*work.client_id, work.client_auth), ("google", "…", ClientAuth::None));
    assert_eq!(snapshot.startup.proxy.binds, [Bind::Tcp("127.0.0.1:7070".parse().expect("an address"))]);
    assert_eq!(snapshot.startup.store, StoreKind::Sled { path: "/etc/attache/./attache.db".into() });
    assert_eq!(snapshot.route_list[2].name, Box::<str>::from("/google/{*rest}"));
    let found = snapshot.routes.find(&Method::GET, None, "/photos/google/a%2Fb");
    let Found::Route { value, captures } = found else { panic!("{found:?}") };
    let mut out = String::new();
    value.rewrite.apply(&captures, None, None, &mut out);
    assert_eq!((&*value.name, &*out), ("high-res-photo", "/drive/v3/files/a%2Fb?alt=media"));
    assert_eq!(value.attach, Scheme::Bearer);
    assert_eq!(snapshot.warnings.len(), 1, "intranet has no client_id: {:?}", snapshot.warnings);
}

#[test]
fn nothing_at_all_is_all_defaults() {
    let snapshot = loaded("routes: []");
    let shown: Vec<String> = snapshot.startup.proxy.binds.iter().map(|bind| format!("{bind:?}")).collect();
    assert_eq!(shown, ["Tcp(127.0.0.1:7070)", "Tcp([::1]:7070)"]);
    assert_eq!(snapshot.startup.public_url.as_str(), "http://localhost:7071/");
    assert_eq!((snapshot.startup.drain, snapshot.startup.health.clone()), (Duration::from_secs(30), None));
    assert_eq!(snapshot.end_user.header, "x-end-user");
    assert_eq!(snapshot.warnings.len(), 1);
}

#[test]
fn an_optional_provider_is_off_when_its_variable_is_not_set() {
    let text = "providers:\n  google: {optional: true, client_id: \"${NOWHERE}\", client_secret: \"${NOR_HERE}\"}\nroutes:\n  - \
                {match: /g, provider: google, upstream: https://www.googleapis.com/}\n";
    let snapshot = loaded(text);
    assert_eq!(snapshot.providers["google"].off.as_deref(), Some("NOWHERE is not set, NOR_HERE is not set"));
    assert_eq!(snapshot.route_list.len(), 1, "its routes stay, to answer 503");
    assert_eq!(snapshot.warnings, ["provider `google` is off: NOWHERE is not set, NOR_HERE is not set"]);
    let errors = load_one(&text.replace("optional: true", "optional: false")).expect_err("not optional");
    assert_eq!(errors.0.len(), 2, "{errors}");
    assert_eq!((errors.0[0].line, errors.0[0].column), (2, 40), "{errors}");
}

#[test]
fn interpolated_text_is_read_as_what_is_expected_there() {
    let snapshot = loaded(concat!(
        "listen: {proxy: \"127.0.0.1:${PORT}\"}\n",
        "shutdown: {drain: \"${DRAIN}\"}\n",
        "providers:\n  google:\n    optional: ${YES}\n    client_id: ${DIGITS}\n    refresh: {ahead: \"${YES}\"}\n",
        "routes:\n  - {match: \"/x/{id}\", provider: google, max_body: \"${DIGITS}\", upstream: \"https://www.googleapis.com/{id}\", headers: {set: {X-A: \"${BRACES}-{id}\"}}}\n",
    ));
    assert_eq!(snapshot.startup.drain, Duration::from_secs(5));
    assert_eq!(&*snapshot.providers["google"].client_id, "12345");
    assert!(snapshot.providers["google"].refresh.ahead);
    assert_eq!(snapshot.route_list[0].body_max, Some(12345));
    let Found::Route { value, captures } = snapshot.routes.find(&Method::GET, None, "/x/7") else { panic!("a route") };
    let sent = value.headers.set[0].1.header_value(&captures).expect("a value");
    assert_eq!(sent, "{id}-7", "a variable's braces are no captures");
}

#[test]
fn a_registration_stands_over_its_definition() {
    let snapshot = loaded(concat!(
        "providers:\n",
        "  sandbox:\n    token_url: http://127.0.0.1:9999/token\n    token_hosts: [\"127.0.0.1:9999\"]\n",
        "  google: {client_id: a, authorize_params: {prompt: select_account}, attach: {scheme: OAuth}, default_expires_in: never}\n",
        "  gh: {use: github, client_id: b, client_secret: c, client_auth: basic, keep_alive: 7d, refresh: {margin: 2m, min_age: 10s}}\n",
    ));
    let sandbox = &snapshot.providers["sandbox"];
    assert_eq!(
        (&*sandbox.client_id, sandbox.token_url.as_ref().and_then(|url| url.fixed()).map(url::Url::as_str)),
        ("printpixie", Some("http://127.0.0.1:9999/token"))
    );
    assert_eq!(sandbox.authorize_url.as_ref().and_then(|url| url.fixed()).map(url::Url::as_str), Some("http://localhost:7080/authorize"));
    assert_eq!(sandbox.token_hosts.len(), 3, "widened");
    let google = &snapshot.providers["google"];
    assert_eq!(google.authorize_params, [("access_type".into(), "offline".into()), ("prompt".into(), "select_account".into())]);
    assert_eq!((&google.attach, google.default_expires_in), (&Scheme::Word("OAuth".into()), Some(Lifetime::Never)));
    let gh = &snapshot.providers["gh"];
    assert_eq!(
        (gh.client_auth, gh.keep_alive, gh.refresh.margin),
        (ClientAuth::Basic, Some(Duration::from_secs(604_800)), Some(Duration::from_secs(120)))
    );
}

#[test]
fn a_routes_keys_are_read() {
    let route = concat!(
        "  - match: GET,POST drive.localhost/x/{id}\n    provider: google\n    upstream: HTTPS://WWW.googleapis.com:443/y/{id}\n",
        "    headers: {set: {X-Id: \"i-{id}\"}, add: {Accept-Language: de}, remove: [Referer]}\n",
        "    timeout: {connect: 1s, first_byte: none, total: 2m}\n    retry: {attempts: 0, max_body: 1MiB}\n    max_body: 10MB\n",
        "    cookies: pass\n    upstream_host: preserve\n    callers: [app]\n    websocket: true\n    follow: no\n    rewrite_location: false\n",
        "callers:\n  - {name: app, uid: 1000, routes: [\"GET,POST drive.localhost/x/{id}\"], providers: [google]}\n",
    );
    let snapshot = loaded(&format!("{HEAD}{route}"));
    let route = &snapshot.route_list[0];
    assert!(route.websocket);
    let RouteOrigin::Fixed(origin) = &route.origin else { panic!("a literal host") };
    assert_eq!((&*origin.host, origin.port), ("www.googleapis.com", 443));
    assert_eq!((route.headers.set.len(), route.headers.add.len(), route.headers.remove.len()), (1, 1, 1));
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(route.timeouts, Timeouts { connect: seconds(1), first_byte: None, idle: seconds(60), total: seconds(120) });
    assert_eq!((route.replay_body_max, route.body_max), (1 << 20, Some(10_000_000)));
    assert!(route.cookies_pass && matches!(route.host, HostSent::Preserve));
    assert_eq!(snapshot.guard.hosts, [Box::<str>::from("drive.localhost")]);
    assert!(snapshot.callers.0[0].may("GET,POST drive.localhost/x/{id}", Some("google")));
}

/// `text` is refused with exactly one fault, at this place, whose words hold `message` and whose hint holds `hint`.
#[track_caller]
fn check(text: &str, line: usize, column: usize, message: &str, hint: &str) {
    let errors = match load_one(text) {
        Ok(_) => panic!("taken:\n{text}"),
        Err(errors) => errors,
    };
    assert_eq!(errors.0.len(), 1, "{errors}\n--\n{text}");
    let error = &errors.0[0];
    assert_eq!((error.line, error.column), (line, column), "{errors}\n--\n{text}");
    assert!(error.message.contains(message), "{errors}");
    assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{errors}");
}

#[test]
fn typos_in_sections_are_told_where_they_stand() {
    check("lisen: {}\n", 1, 1, "unknown key `lisen` in `routes.yaml`; expected one of `listen`", "`listen`");
    check("listen: 7070\n", 1, 9, "expected `listen` as a mapping", "");
    check("listen: {proxy: 7070}\n", 1, 17, "expected an address", "127.0.0.1:7070");
    check("listen: {proxy: \":7070\"}\n", 1, 17, "expected an address", "0.0.0.0:7070");
    check("listen:\n  admin: 0.0.0.0:7072\n", 2, 10, "needs `tls`", "loopback");
    check("listen:\n  proxy: {bind: 127.0.0.1:2, tls: 1}\n", 2, 35, "expected `tls` as a mapping", "");
    check("listen:\n  proxy: 0.0.0.0:7070\n", 2, 10, "anyone there could use your users' tokens", "callers");
    check("listen:\n  origins: [{bind: 127.0.0.1:7071, as: none, upstream: https://a.test}]\n", 2, 13, "bound by `public` too", "");
    check("listen:\n  origins: [{bind: 0.0.0.0:1, as: none, upstream: https://a.test}]\n", 2, 13, "anyone there could use", "callers");
    check("listen:\n  origins: [{bind: 127.0.0.1:1, as: none, upstream: https://a.test, match: /a}]\n", 2, 69, "unknown key `match`", "");
    check(
        "listen:\n  origins: [{bind: 127.0.0.1:1, as: none, upstream: \"https://a.test/{rest}\"}]\n",
        2,
        69,
        "follows the upstream by itself",
        "",
    );
    check("listen: {admin: {bind: 127.0.0.1:1, placeholder: true}}\n", 1, 37, "is the proxy listener's", "");
    check("listen: {public: 127.0.0.1:1, admin: 127.0.0.1:1}\n", 1, 38, "`public` and `admin` are both bound to 127.0.0.1:1", "");
    check("listen: {proxy: 127.0.0.1:7072}\n", 1, 17, "`proxy` and `admin` are both bound to 127.0.0.1:7072", "");
    check("listen: {allowed_origins: [localhost:3000]}\n", 1, 28, "expected an origin", "http://localhost:3000");
    check("listen: {allow_anonymous: \"true\"}\n", 1, 27, "expected `true` or `false`", "");
    check("listen: {proxy: {bind: 127.0.0.1:1, hosts: [\"a:1\"]}}\n", 1, 45, "without a port", "");
    check("public_url: localhost:7071\n", 1, 13, "expected an https:// URL", "");
    check("end_user: {header: X End}\n", 1, 20, "cannot be the name of a header", "");
    check("end_user: {header: Authorization}\n", 1, 20, "the token stands there", "");
    check("end_user: {header: a, account_header: A}\n", 1, 11, "both `a`", "");
    check("end_user: {jwt: {}}\n", 1, 17, "needs `jwks_url`", "");
    check("end_user: {default: \"a,b\"}\n", 1, 21, "comma", "");
    check("store: {postgres: {url: x}}\n", 1, 25, "expected a URL like `postgres://", "DATABASE_URL");
    check("store: {redis: {url: x}}\n", 1, 22, "expected a URL like `redis://", "REDIS_URL");
    check("store: {postgres: {}}\n", 1, 19, "needs `url`", "");
    check("store: {sled: {}, max_stale: 5s}\n", 1, 19, "`max_stale` is for a store that replicas share", "");
    check("store: {sled: {}, memory: {}}\n", 1, 19, "one of `sled`, `postgres`, `redis` and `memory`", "");
    check("store: {encryption_keys: [c2hvcnQ=]}\n", 1, 27, "base64 of 32 bytes", "keygen");
    check("admin: {token: a-long-enough-token, token_file: b}\n", 1, 8, "one of", "");
    check("admin: {tokens: [{name: a, token: a-long-enough-token, allow: [reed]}]}\n", 1, 64, "`connect` or `read`", "`read`");
    check("shutdown: {drain: 5}\n", 1, 19, "expected a duration", "`5s`");
    check("connect: {accent: blue}\n", 1, 19, "expected a colour", "");
    check("connect: {logo: http://a.b/logo.png}\n", 1, 17, "expected an https:// URL", "loopback");
    check("connect: {logo: ./no-such-logo.png}\n", 1, 17, "cannot read the logo", "https://");
    check("connect: {allowed_return_urls: [/x]}\n", 1, 33, "expected an absolute URL", "");
    check("callers:\n  - {name: a}\n", 2, 5, "needs `key_sha256`, `uid` or `cert_san`", "sha256sum");
    check("callers:\n  - {name: a, key_sha256: hunter2}\n", 2, 27, "64 hex digits", "sha256sum");
    check("callers:\n  - {name: a, uid: 1, routes: [x]}\n", 2, 32, "no route is called `x`", "");
    check("callers:\n  - {name: a, uid: 1, providers: [googel]}\nproviders: {google: {client_id: g}}\n", 2, 35, "no provider", "`google`");
    check("shutdown: {drain: \"${NOWHERE_AT_ALL}\"}\n", 1, 19, "NOWHERE_AT_ALL is not set", ":-");
}

#[test]
fn typos_in_providers_are_told_where_they_stand() {
    check("providers:\n  gogle: {client_id: g}\n", 2, 3, "no provider definition is called `gogle`", "`google`");
    check("providers:\n  g: {use: googl, client_id: g}\n", 2, 12, "no provider definition is called `googl`", "`google`");
    check("providers:\n  google: {clientid: g, client_id: a}\n", 2, 12, "unknown key `clientid` in a provider", "`client_id`");
    check("providers:\n  q: {client_id: g, authorize_url: https://a.b/}\n", 2, 6, "a provider needs `token_url`", "");
    check("providers:\n  q: {client_id: g, issuer: http://a.b/}\n", 2, 29, "expected an https:// URL", "loopback");
    check("providers:\n  q: {client_id: g, issuer: \"https://a.b/?t=1\"}\n", 2, 29, "an issuer has no query", "");
    check("providers:\n  q: {client_id: g, token_url: http://a.b/}\n", 2, 32, "expected an https:// URL", "loopback");
    check("providers:\n  google: {client_id: g, pkce: s256}\n", 2, 32, "`S256` or `S256_hex` or `plain` or `none`", "`S256`");
    check("providers:\n  google: {client_id: g, client_auth: private_key_jwt}\n", 2, 26, "needs `client_key`", "${file:./key.pem}");
    check("providers:\n  google: {client_id: g, credential: apikey}\n", 2, 38, "`consent` or `api_key` or `password`", "`api_key`");
    check("providers:\n  google: {client_id: g, resource: [drive]}\n", 2, 37, "expected an absolute URI", "");
    check("providers:\n  google: {client_id: g, resource: [\"https://a.b/#c\"]}\n", 2, 37, "without a fragment", "");
    check(
        "providers:\n  google: {client_id: g, attach: dpop}\n",
        2,
        34,
        "`attach: dpop` sends tokens that are bound to keys",
        "`dpop: true`",
    );
    check("providers:\n  q: {client_id: g, oauth1: {}}\n", 2, 6, "`client_secret` is needed", "");
    check(
        "providers:\n  q: {client_id: g, client_secret: s, oauth1: {signature: RSA-SHA1}}\n",
        2,
        6,
        "needs `client_key`",
        "${file:./key.pem}",
    );
    check("providers:\n  q: {client_id: g, client_secret: s, oauth1: {signature: HMAC-SHA512}}\n", 2, 59, "`HMAC-SHA1` or", "");
    check("providers:\n  q: {client_id: g, client_secret: s, request_token_url: https://a.b/}\n", 2, 6, "all three are needed", "");
    check("providers:\n  q: {client_id: g, client_secret: s, issuer: https://a.b/, oauth1: {}}\n", 2, 6, "OAuth 1.0a or 2.0", "");
    check("providers:\n  google: {client_id: g, attach: Bearer}\n", 2, 34, "expected `bearer`", "`bearer`");
    check("providers:\n  google: {client_id: g, attach: {header: Host}}\n", 2, 43, "cannot stand in `host`", "");
    check(
        "providers:\n  google: {client_id: g, token_hosts: [https://a.b]}\n",
        2,
        40,
        "a host that tokens may be sent to",
        "api.example.com",
    );
    check(
        &format!("providers:\n  google: {{client_id: g}}\nroutes:\n  - {{{WHOLE}, as: app}}\n"),
        4,
        74,
        "`google` has nothing to prove the app by",
        "client_secret",
    );
    check("providers:\n  google: {client_id: g, scopes: drive}\n", 2, 34, "expected a list, found `drive`", "[one, two]");
    check("providers:\n  \"a/b\": {use: google, client_id: g}\n", 2, 3, "the provider id `a/b` is not made of", "");
    check("providers:\n  google: {client_id: ~}\n", 2, 23, "expected text, found nothing", "");
    check("providers:\n  google: {client_id: \"${GOOGLE_CLIENT_ID\"}\n", 2, 23, "not closed", "");
}

/// The same of one route in flow form, at line 4; columns count from its `{`.
#[track_caller]
fn check_route(keys: &str, column: usize, message: &str, hint: &str) {
    check(&format!("{HEAD}  - {{{keys}}}\n"), 4, column + 4, message, hint);
}

const WHOLE: &str = "match: /a, provider: google, upstream: https://www.googleapis.com/";

#[test]
fn typos_in_routes_are_told_where_they_stand() {
    loaded(&format!("{HEAD}  - {{{WHOLE}}}\n"));
    loaded(&format!("{HEAD}  - {{{WHOLE}, as: app}}\n"));
    check_route(
        "match: /a, provider: google, upstraem: https://www.googleapis.com/, upstream: https://www.googleapis.com/",
        31,
        "unknown key `upstraem` in a route",
        "`upstream`",
    );
    check_route("match: /a, provider: google", 1, "a route needs `upstream`", "");
    check_route("match: /a, upstream: https://www.googleapis.com/", 1, "a route needs `provider`", "`as: none`");
    check_route("match: /a, provider: gogle, upstream: https://www.googleapis.com/", 23, "no provider is called `gogle`", "`google`");
    check_route(
        "match: /a, provider: google, upstream: https://www.googleapis.co/",
        41,
        "tokens of `google` may not be sent to `www.googleapis.co`: they may go to `*.googleapis.com`",
        "token_hosts",
    );
    check_route("match: /a, provider: google, upstream: \"https://www.googleapis.com:8443/\"", 41, "`www.googleapis.com:8443`", "");
    check_route("match: /a, provider: google, upstream: http://www.googleapis.com/", 41, "plain http://", "allow_plain_http");
    check_route("match: /a, provider: google, upstream: www.googleapis.com", 41, "begins with `https://`", "");
    check_route("match: \"/{h}\", provider: google, upstream: \"https://{h}.googleapis.com/\"", 54, "never comes from the request", "");
    check_route("match: /a, provider: google, upstream: \"https://u@www.googleapis.com/\"", 50, "no user or password", "");
    check_route("match: /a, provider: google, upstream: \"https://www.googleapis.com/#x\"", 69, "no fragment", "%23");
    check_route("match: /a, provider: google, upstream: \"https://www.googleapis.com/{idd}\"", 69, "idd", "");
    check_route("match: /a, as: app, upstream: https://www.googleapis.com/", 1, "a route needs `provider`", "`as: none`");
    check_route(&format!("{WHOLE}, as: usr"), 74, "`user` or `app` or `none`", "`user`");
    check_route(&format!("{WHOLE}, rate_limit: 5"), 82, "expected calls and a span", "");
    check_route(&format!("{WHOLE}, rate_limit: 5/500ms"), 82, "whole seconds", "");
    check_route(&format!("{WHOLE}, rate_limit: {{user: 5/s, route: 0/s}}"), 101, "from 1 to 1000000 calls", "");
    check_route(&format!("{WHOLE}, rate_limit: {{requests: 5}}"), 82, "a rate needs `per`", "");
    check_route(&format!("{WHOLE}, rate_limit: {{requests: 5, per: 2d}}"), 82, "`1d`", "");
    check_route(&format!("{WHOLE}, rate_limit: {{requests: 5, per: 1m, burst: 0}}"), 82, "a burst of 1", "");
    check_route(&format!("{WHOLE}, rate_limit: {{usr: 5/s, route: 5/s}}"), 83, "unknown key `usr`", "`user`");
    check_route(&format!("{WHOLE}, websocket: often"), 81, "expected `true` or `false`", "");
    check_route(
        &format!("{WHOLE}, websocket: true, send: {{method: POST}}"),
        70,
        "`websocket` is for routes that pass",
        "`send` and `response`",
    );
    check_route(&format!("{WHOLE}, follow: token"), 78, "expected `no` or `no_token`", "");
    check_route(&format!("{WHOLE}, retry: {{attempts: 11}}"), 78, "`attempts` is at most 10", "");
    check_route(&format!("{WHOLE}, retry: {{on: [503, conect]}}"), 88, "expected a status from 400 to 599", "`connect`");
    check_route(&format!("{WHOLE}, retry: {{on: [401]}}"), 78, "401 is not retried", "one refresh");
    check("upstreams: {max_connections: 0}\n", 1, 13, "at least 1", "");
    check("upstreams: {circuit: {open: 2m}}\n", 1, 23, "shorter than `open`", "");
    check("upstreams: {max_conections: 5}\n", 1, 13, "unknown key `max_conections`", "`max_connections`");
    check_route(&format!("{WHOLE}, timeout: {{connect: 5 parsecs}}"), 89, "expected a duration", "");
    check_route(&format!("{WHOLE}, timeout: {{conect: 5s}}"), 80, "unknown key `conect`", "`connect`");
    check_route(&format!("{WHOLE}, max_body: 64K"), 80, "expected a size", "");
    check_route(&format!("{WHOLE}, cookies: yes"), 79, "`strip` or `pass`", "");
    check_route(&format!("{WHOLE}, callers: [app]"), 80, "no caller is called `app`", "");
    check_route(&format!("{WHOLE}, headers: {{set: {{Host: a}}}}"), 86, "`headers` cannot touch `host`", "");
    check_route(&format!("{WHOLE}, headers: {{set: {{X_End_User: a}}}}"), 86, "names the end user", "");
    check_route(&format!("{WHOLE}, headers: {{set: {{Authorization: a}}}}"), 86, "the token stands there", "");
    check_route(&format!("{WHOLE}, headers: {{remove: [Connection]}}"), 89, "`headers` cannot touch `connection`", "");
    check_route(&format!("{WHOLE}, headers: {{add: {{X-Attache-Key: a}}}}"), 86, "Attaché's own", "");
    check_route(&format!("{WHOLE}, upstream_host: \"a b\""), 85, "`upstream`, `preserve` or a host", "");
    check_route("match: \"/a/{id}\", provider: google, upstream: https://www.googleapis.com/, query: {q: \"{ix}\"}", 89, "ix", "id");
    check_route("match: GETT /a/b, provider: google, upstream: https://www.googleapis.com/", 9, "", "GET");
}

#[test]
fn typos_in_send_and_response_are_told_where_they_stand() {
    for right in [
        "send: {method: PUT, headers: {X-A: \"{id}\", X-J: {json: [\"{id}\", 1]}}, json: {a: \"{id}\", b: [1, -2.5, true, ~]}}",
        "send: {form: {a: \"{id}\"}}",
        "send: {}",
        "follow: no_token",
        "follow: no",
        "response: {select: \"a[].{b: c}\", max: 2MiB}",
        "follow: no_token, response: {location: a.b}",
    ] {
        loaded(&format!("{HEAD}  - {{{ID}, {right}}}\n"));
    }
    // `^` stands where the fault is told.
    for (marked, message, hint) in [
        ("send: {^methd: POST}", "unknown key `methd`", "`method`"),
        ("send: {method: ^post}", "expected a method", ""),
        ("send: {method: ^CONNECT}", "expected a method", ""),
        ("send: {json: {a: {b: [1, \"^{ix}\"]}}}", "no capture `ix`", "{id}"),
        ("send: {json: {a: ^.inf}}", "no number that JSON can hold", "quotes"),
        ("send: {form: {a: \"^{\"}}", "opens or closes no capture", ""),
        ("send: {form: {a: ^[b]}}", "expected text", ""),
        ("send: {json: {}, ^form: {}}", "one body", ""),
        ("send: {headers: {^Authorization: a}}", "the token stands there", ""),
        ("send: {headers: {^X-End-User: a}}", "names the end user", ""),
        ("send: {headers: {X-A: {json: a, ^x: b}}}", "unknown key `x` in a header of `send`", ""),
        ("send: {headers: {^\"X A\": a}}", "cannot be the name of a header", ""),
        ("response: {select: \"a[^\"}", "no JMESPath", "jmespath.org"),
        ("response: {select: \"^joinn('', a)\"}", "no function is called `joinn`", "`join`"),
        ("response: ^{}", "needs `select`", ""),
        ("response: ^{select: a, location: b}, follow: no_token", "one of them", ""),
        ("response: {^location: a}", "the route must follow", "follow: no_token"),
        ("response: {select: a, ^max: 65MiB}", "at most 64MiB", ""),
    ] {
        let at = marked.find('^').expect("a mark");
        check_route(&format!("{ID}, {}", marked.replace('^', "")), ID.len() + ", {".len() + at + 1, message, hint);
    }
}

const ID: &str = "match: \"/a/{id}\", provider: google, upstream: https://www.googleapis.com/";

#[test]
fn overlaps_and_names_are_told_at_the_second_route() {
    let two = |a: &str, b: &str| {
        format!(
            "{HEAD}  - {{name: one, match: {a}, provider: google, upstream: https://www.googleapis.com/}}\n  - {{name: two, match: {b}, provider: google, upstream: https://www.googleapis.com/}}\n"
        )
    };
    check(&two("GET /a", "GET /a"), 5, 24, "as `one` at line 4", "order");
    check(&two("\"/a/{x}\"", "\"/a/{y}\""), 5, 24, "as `one` at line 4", "");
    check(&two("\"GET,PUT /a\"", "\"PUT,POST /a\""), 5, 24, "for PUT", "");
    loaded(&two("GET /a", "/a"));
    check(&two("/a", "/b").replace("two", "one"), 5, 6, "two routes are called `one`: the first at line 4", "");
}

#[test]
fn every_fault_is_told_in_one_go() {
    let text = "lisen: {}\nproviders:\n  gogle: {client_id: \"${NOPE}\"}\nroutes:\n  - match: /a\n    provider: gogel\n    upstream: ftp://x\n    timeout: {total: x}\n";
    let errors = load_one(text).expect_err("refused");
    let places: Vec<_> = errors.0.iter().map(|error| (error.line, error.column)).collect();
    assert_eq!(places, [(1, 1), (3, 3), (3, 22), (6, 15), (7, 15), (8, 22)], "{errors}");
}

#[test]
fn no_fault_shows_what_a_variable_held() {
    let text = concat!(
        "listen: {proxy: \"${GOOGLE_CLIENT_SECRET}\", allow_anonymous: \"${GOOGLE_CLIENT_SECRET}\"}\n",
        "public_url: ${GOOGLE_CLIENT_SECRET}\nend_user: {header: \"a b${GOOGLE_CLIENT_SECRET}\", default: \"${GOOGLE_CLIENT_SECRET},\"}\n",
        "store: {encryption_keys: [\"${GOOGLE_CLIENT_SECRET}\"]}\nshutdown: {drain: \"${GOOGLE_CLIENT_SECRET}\"}\n",
        "providers:\n  google: {client_id: a, use: \"${GOOGLE_CLIENT_SECRET}\", pkce: \"${GOOGLE_CLIENT_SECRET}\", token_url: \"https://x y${GOOGLE_CLIENT_SECRET}\", ",
        "token_hosts: [\"/${GOOGLE_CLIENT_SECRET}\"], attach: \"${GOOGLE_CLIENT_SECRET}\", client_secret: \"${GOOGLE_CLIENT_SECRET}\"}\n",
        "  places: {client_id: a, token_url: \"https://{${GOOGLE_CLIENT_SECRET}}/\", revoke_url: \"http://{a}.${GOOGLE_CLIENT_SECRET}/\", inputs: {a: {kind: host, value: \"${GOOGLE_CLIENT_SECRET}\"}}, ",
        "metadata: {b: \"${GOOGLE_CLIENT_SECRET}\"}, calls: {code: {omit: [\"${GOOGLE_CLIENT_SECRET}\"], params: {a: \"{b ${GOOGLE_CLIENT_SECRET}\"}}}, reply: {at: \"${GOOGLE_CLIENT_SECRET}..\"}, ",
        "errors: {passing: [{status: \"${GOOGLE_CLIENT_SECRET}\"}]}, issuers: [\"${GOOGLE_CLIENT_SECRET}\"], category: \"${GOOGLE_CLIENT_SECRET}\"}\n",
        "  ok: {use: google, client_id: b, client_secret: \"${GOOGLE_CLIENT_SECRET}\"}\n",
        "callers: [{name: a, key_sha256: \"${GOOGLE_CLIENT_SECRET}\", routes: [\"${GOOGLE_CLIENT_SECRET}\"], providers: [\"${GOOGLE_CLIENT_SECRET}\"]}]\n",
        "routes:\n  - {match: \"/{${GOOGLE_CLIENT_SECRET}\", provider: \"${GOOGLE_CLIENT_SECRET}\", upstream: \"${GOOGLE_CLIENT_SECRET}\"}\n",
        "  - {match: \"/a\", provider: ok, upstream: \"https://${GOOGLE_CLIENT_SECRET}.evil/\", attach: {header: \"a ${GOOGLE_CLIENT_SECRET}\"}, callers: [\"${GOOGLE_CLIENT_SECRET}\"]}\n",
        "  - {match: \"/b\", provider: ok, upstream: \"https://x%${GOOGLE_CLIENT_SECRET}/\", attach: {scheme: \"a ${GOOGLE_CLIENT_SECRET}\"}}\n",
    );
    let errors = load_one(text).expect_err("refused");
    assert!(errors.0.len() > 22, "{errors}");
    for shown in [errors.to_string(), format!("{errors:?}")] {
        assert!(!shown.contains("s3cr3t-canary"), "{shown}");
    }
    let snapshot = loaded(CONTRACT);
    assert!(!format!("{snapshot:?}").contains("s3cr3t-canary"));
}
