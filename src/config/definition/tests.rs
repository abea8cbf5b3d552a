//! The definition language: what each key becomes, how a registration lies over it, and what is refused where.

use crate::attach::Scheme;
use crate::config::{ConfigErrors, Snapshot, load_str};
use crate::provider::{
    Also, BodyFormat, CallShape, ClientAuth, EndpointUrl, Filled, From, Kind, Path, Pkce, Registration, RenewBy, Sign, StateRule, Unit,
};
use http::Method;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

/// The definition of `acme`, and the keys of its registration in flow form.
fn load(definition: &str, registration: &str) -> Result<Snapshot, ConfigErrors> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("providers")).expect("made");
    std::fs::write(folder.path().join("providers/acme.yaml"), definition).expect("written");
    let text = format!("providers:\n  acme: {{{registration}}}\n");
    load_str(&text, FilePath::new("routes.yaml"), folder.path(), &|_| None)
}

#[track_caller]
fn acme(definition: &str, registration: &str) -> Arc<Registration> {
    let snapshot = load(definition, registration).unwrap_or_else(|errors| panic!("{errors}\n--\n{definition}\n{registration}"));
    snapshot.providers["acme"].clone()
}

const CLIENT: &str = "client_id: app, client_secret: s3cret";
const URLS: &str =
    "authorize_url: https://acme.example/authorize\ntoken_url: https://acme.example/token\ntoken_hosts: [api.acme.example]\n";

fn text(text: &str) -> Filled {
    Filled::parse(text).expect(text)
}

fn path(text: &str) -> Path {
    Path::parse(text).expect(text)
}

fn code(code: &str) -> Sign {
    Sign { code: Some(code.into()), ..Sign::default() }
}

fn host(text: &str) -> Box<str> {
    text.into()
}

#[test]
fn flat_keys_become_what_they_say() {
    let keys = concat!(
        "client_auth: basic_raw\npkce: S256_hex\nissuers: [\"https://login.example.com/*/v2.0\"]\nredirect_uri: Acme-Acme-PRD-1\n",
        "scope_groups: {user: user_scope}\nexpired_when: [{status: 400, member: error.code, equals: 190}]\n",
        "refresh: {margin: 1m, by: access_token, replay: true, not_before: 9m30s, expected: true}\n",
    );
    let acme = acme(&format!("{URLS}{keys}"), CLIENT);
    assert_eq!((acme.client_auth, acme.pkce), (ClientAuth::BasicRaw, Pkce::S256Hex));
    let dialect = &acme.dialect;
    assert_eq!(dialect.issuers, [host("https://login.example.com/*/v2.0")]);
    assert_eq!(dialect.redirect_uri.as_deref(), Some("Acme-Acme-PRD-1"));
    assert_eq!(dialect.scope_groups, [("user".into(), "user_scope".into())]);
    let sign = Sign { status: Some(400), member: Some((path("error.code"), "190".into())), ..Sign::default() };
    assert_eq!(dialect.expired_when, [sign]);
    assert_eq!((dialect.renewal.by, dialect.renewal.replay, dialect.renewal.expected), (RenewBy::AccessToken, true, true));
    assert_eq!((dialect.renewal.not_before, acme.refresh.margin), (Some(Duration::from_secs(570)), Some(Duration::from_secs(60))));
}

#[test]
fn a_client_without_a_secret_is_public_however_it_is_told_to_prove_itself() {
    let both = "client_auth: body\ncalls: {revoke: {client_auth: basic}}\n";
    let made = rcgen::generate_simple_self_signed(vec!["client.test".to_owned()]).expect("generated");
    let (cert, key) = (made.cert.pem().replace('\n', "\\n"), made.signing_key.serialize_pem().replace('\n', "\\n"));
    let certified = format!("client_id: app, client_cert: \"{cert}\", client_cert_key: \"{key}\"");
    for (keys, registration, expected, on_revoke) in [
        (both, CLIENT, ClientAuth::Body, ClientAuth::Basic),
        (both, "client_id: app", ClientAuth::None, ClientAuth::None),
        (&*format!("{both}public_client: basic\n"), "client_id: app", ClientAuth::Basic, ClientAuth::Basic),
        (&*format!("{both}public_client: basic\n"), CLIENT, ClientAuth::Body, ClientAuth::Basic),
        ("client_auth: mtls\ncalls: {revoke: {client_auth: mtls}}\n", &certified, ClientAuth::Mtls, ClientAuth::Mtls),
    ] {
        let acme = acme(&format!("{URLS}{keys}"), registration);
        assert_eq!((acme.client_auth, acme.dialect.calls.revoke.client_auth), (expected, Some(on_revoke)), "{keys} {registration}");
    }
}

#[test]
fn calls_lie_over_what_all_token_calls_share() {
    let keys = r##"
calls:
  authorize: {rename: {client_id: client_key, response_type: type}, omit: [scope], params: {type: web_server}, fragment: wechat_redirect}
  token: {body: json, omit: [grant_type], params: {sig: "{sha256:client_secret|code}", v: 1}, headers: {X-Client: "{client_id}"}}
  code: {url: https://acme.example/code, params: {v: 2, device: "{callback.device_id}"}}
  extend: {method: GET, omit: [], params: {fb_exchange_token: "{access_token}"}}
  revoke: {method: DELETE, url: "https://api.acme.example/applications/{client_id}/token", body: json, client_auth: basic, headers: {Authorization: "Bearer {token}"}}
"##;
    let acme = acme(&format!("{URLS}{keys}"), "client_id: a b, client_secret: s3cret");
    let calls = &acme.dialect.calls;
    assert_eq!(calls.authorize.rename, [("client_id".into(), "client_key".into()), ("response_type".into(), "type".into())]);
    assert_eq!((calls.authorize.omit.len(), calls.authorize.fragment.as_deref()), (1, Some("wechat_redirect")));
    let sig = ("sig".into(), text("{sha256:client_secret|code}"));
    let shared = CallShape {
        body: BodyFormat::Json,
        omit: vec!["grant_type".into()],
        params: vec![sig.clone(), ("v".into(), text("1"))],
        headers: vec![("x-client".parse().expect("a name"), text("{client_id}"))],
        ..CallShape::default()
    };
    assert_eq!([&calls.refresh, &calls.app, &calls.device, &calls.poll], [&shared; 4]);
    assert_eq!(calls.code.params, [sig, ("v".into(), text("2")), ("device".into(), text("{callback.device_id}"))]);
    assert_eq!((&calls.code.omit, &calls.code.headers, calls.code.body), (&shared.omit, &shared.headers, BodyFormat::Json));
    let extend = calls.extend.as_ref().expect("there");
    assert_eq!((&extend.method, extend.omit.len(), extend.params.len()), (&Some(Method::GET), 0, 3));
    let revoke = &calls.revoke;
    assert_eq!(revoke.method, Some(Method::DELETE));
    let url = revoke.url.as_ref().and_then(EndpointUrl::fixed).expect("the client id is known at load");
    assert_eq!(url.as_str(), "https://api.acme.example/applications/a%20b/token");
    assert_eq!(revoke.body, BodyFormat::Json);
    assert!(revoke.params.is_empty(), "not under `token`");
}

#[test]
fn answers_are_read_as_they_are_told() {
    let keys = r##"
reply: {at: body, access_token: accessToken, expires_in: data.0.expireIn, expires_in_unit: ms, expires_at: until, refresh_expires_in: x_life, scope: scopes, also: [{account: user, at: authed_user}]}
errors: {at: [errors.0.errorType], passing: [{says: not expired}, interaction_required], ends_grant: [40030, {status: 401, says: Invalid}, {member: status, equals: 503}], client: [bad]}
callback: {code: authCode, code_suffix: "#_", error: error_reason, denied: [user_denied, "denied="], state: cookie, hmac: hmac, scope: scope}
device: {rename: {verification_uri: data.verification_url}, pending: [wait], slow_down: [{status: 429}], denied: [no], expired: [gone]}
"##;
    let acme = acme(&format!("{URLS}{keys}"), CLIENT);
    let (reply, errors, callback, device) = (&acme.dialect.reply, &acme.dialect.errors, &acme.dialect.callback, &acme.dialect.device);
    assert_eq!((&reply.at, &reply.access_token), (&Some(path("body")), &Some(path("accessToken"))));
    assert_eq!((&reply.expires_in, reply.expires_in_unit), (&Some(path("data.0.expireIn")), Unit::Milliseconds));
    assert_eq!(reply.also, [Also { account: "user".into(), at: path("authed_user") }]);
    assert_eq!(errors.passing, [Sign { says: Some("not expired".into()), ..Sign::default() }, code("interaction_required")]);
    assert_eq!(errors.ends_grant.len(), 3);
    assert_eq!((&errors.ends_grant[0], errors.ends_grant[1].status), (&code("40030"), Some(401)));
    assert_eq!(errors.ends_grant[2].member, Some((path("status"), "503".into())));
    assert_eq!((callback.code.as_deref(), callback.state, callback.denied.len()), (Some("authCode"), StateRule::Cookie, 2));
    assert_eq!(device.rename, [("verification_uri".into(), path("data.verification_url"))]);
    assert_eq!((&device.pending, device.slow_down[0].status), (&vec![code("wait")], Some(429)));
}

const ZENDESK: &str = r#"
authorize_url: https://{subdomain}.zendesk.com/oauth/authorize
token_url: https://{subdomain}.zendesk.com/oauth/tokens
token_hosts: ["{subdomain}.zendesk.com", "*.zendesk.com", "!evil.zendesk.com"]
inputs: {subdomain: {label: Zendesk subdomain, example: acme, suffix: .zendesk.com, kind: label}}
authorize_params: {hint: "{subdomain}", type: web}
api: {set_headers: {X-Client: "{client_id}", X-Sub: "{subdomain}"}, query: {v: 1}}
"#;

#[test]
fn what_the_end_user_types_fills_places_per_connection() {
    let acme = acme(ZENDESK, CLIENT);
    assert_eq!(acme.dialect.inputs[0].kind, Kind::Label);
    let token_url = acme.token_url.as_ref().expect("there");
    assert_eq!(token_url, &EndpointUrl::PerConnection(text("https://{subdomain}.zendesk.com/oauth/tokens")));
    assert_eq!(acme.token_hosts_per_connection, [text("{subdomain}.zendesk.com")]);
    assert_eq!(acme.authorize_params, [("type".into(), "web".into())]);
    assert_eq!(acme.dialect.calls.authorize.params, [("hint".into(), text("{subdomain}"))]);
    let allowed = |host: &str| acme.token_host_allowed_for(host, 443, |name| (name == "subdomain").then(|| "evil".into()));
    assert!(allowed("a.zendesk.com") && !allowed("evil.zendesk.com"), "`!` wins over all others");
}

#[test]
fn what_the_registration_gives_is_filled_in_at_load() {
    for value in ["inputs: {subdomain: Acme}", "inputs: {subdomain: {value: acme.zendesk.com}}", "inputs: {subdomain: ACME.Zendesk.com}"] {
        let acme = acme(ZENDESK, &format!("{CLIENT}, {value}"));
        assert_eq!(acme.dialect.inputs[0].value.as_deref(), Some("acme"), "{value}");
        assert_eq!(&*acme.dialect.inputs[0].label, "Zendesk subdomain");
        let token_url = acme.token_url.as_ref().and_then(EndpointUrl::fixed).expect("fixed");
        assert_eq!(token_url.as_str(), "https://acme.zendesk.com/oauth/tokens");
        assert!(acme.token_hosts.iter().any(|host| &*host.host == "acme.zendesk.com") && acme.token_hosts_per_connection.is_empty());
        assert_eq!(acme.authorize_params, [("hint".into(), "acme".into()), ("type".into(), "web".into())]);
        assert_eq!(acme.dialect.api.set_headers[1].1.fixed(), Some("acme"));
    }
}

const NEXTCLOUD: &str = r#"
authorize_url: https://{host}/authorize
token_url: https://{host}/token
token_hosts: ["{host}"]
inputs: {host: {label: Your Nextcloud's address, kind: host}}
"#;

#[test]
fn a_host_that_may_be_anyones_needs_a_value_or_hosts_in_the_registration() {
    let fixed = acme(NEXTCLOUD, &format!("{CLIENT}, inputs: {{host: \"cloud.example.com:8443\"}}"));
    assert_eq!(fixed.token_url.as_ref().and_then(EndpointUrl::fixed).map(url::Url::as_str), Some("https://cloud.example.com:8443/token"));
    assert!(fixed.token_host_allowed("cloud.example.com", 8443));
    let listed = acme(NEXTCLOUD, &format!("{CLIENT}, inputs: {{host: {{hosts: [\"*.cloud.example.com\"]}}}}"));
    assert_eq!(listed.dialect.inputs[0].kind, Kind::Host(vec![host("*.cloud.example.com")]));
    let wider = NEXTCLOUD.replace("kind: host", "kind: host, hosts: [a.example.com]");
    let wider = acme(&wider, &format!("{CLIENT}, inputs: {{host: {{hosts: [b.example.com]}}}}"));
    assert_eq!(wider.dialect.inputs[0].kind, Kind::Host(vec![host("a.example.com"), host("b.example.com")]));
    let error = load(NEXTCLOUD, CLIENT).expect_err("anyone's").to_string();
    assert!(error.contains("acme.yaml:5:16: `host` chooses a host"), "{error}");
    assert!(error.contains("`inputs: {host: cloud.example.com}`") && error.contains("`inputs: {host: {hosts:"), "{error}");
    // Unused, the definition is fine by itself.
    let error = load(NEXTCLOUD, "optional: true, client_id: \"${NOWHERE}\"").map(|snapshot| snapshot.providers["acme"].off.is_some());
    assert_eq!(error, Ok(true));
}

#[test]
fn what_answers_leave_may_choose_a_host_that_is_listed() {
    let keys = r#"
metadata: {realm_id: callback.realmId, instance_url: {from: reply.instance_url, kind: origin, hosts: ["*.salesforce.com"], required: true}}
lookups: [{url: "https://{instance_url}/meta", attach: {scheme: OAuth}, metadata: {dc: dc, api: {from: api.0.endpoint, kind: origin, hosts: ["*.api.example.com"]}}}]
revoke_url: https://{api}/revoke/{realm_id}
"#;
    let acme = acme(&format!("{URLS}{keys}"), CLIENT);
    let metadata = &acme.dialect.metadata;
    assert_eq!((&metadata[0].from, metadata[0].required), (&From::Callback("realmId".into()), false));
    assert_eq!((&metadata[1].from, metadata[1].required), (&From::Reply(path("instance_url")), true));
    let lookup = &acme.dialect.lookups[0];
    assert_eq!(lookup.scheme, Some(Scheme::Word("OAuth".into())));
    assert_eq!((&lookup.metadata[0].from, lookup.metadata.len()), (&From::Reply(path("dc")), 2));
    assert_eq!(acme.revoke_url, Some(EndpointUrl::PerConnection(text("https://{api}/revoke/{realm_id}"))));
    let widened = self::acme(
        &format!("{URLS}{keys}"),
        &format!("{CLIENT}, metadata: {{realm_id: reply.realm, instance_url: {{hosts: [a.example]}}}}"),
    );
    assert_eq!(
        widened.dialect.metadata.iter().find(|capture| &*capture.name == "realm_id").map(|capture| &capture.from),
        Some(&From::Reply(path("realm")))
    );
    assert!(widened.dialect.metadata.iter().any(|capture| capture.kind == Kind::Origin(vec![host("*.salesforce.com"), host("a.example")])));
}

#[test]
fn an_issuer_with_places_needs_their_values() {
    let keys = "issuer: https://{tenant}.example.com/\ninputs: {tenant: {kind: label}}\n";
    let acme = acme(keys, &format!("{CLIENT}, inputs: {{tenant: a}}"));
    assert_eq!(acme.issuer.as_deref(), Some("https://a.example.com/"));
    let error = load(keys, CLIENT).expect_err("no value").to_string();
    assert!(error.contains("acme.yaml:1:9: one issuer serves all end users"), "{error}");
}

#[test]
fn a_registration_lies_over_every_section_of_its_definition() {
    let keys = concat!(
        "calls: {code: {params: {a: 1, b: 2}, omit: [scope]}}\nreply: {at: data, scope: s}\nerrors: {passing: [x], client: [y]}\n",
        "attach: {scheme: OAuth}\nrefresh: {replay: true, margin: 1m}\ncallback: {code: c}\n",
    );
    let own = "calls: {code: {params: {b: 3}, omit: [nonce]}, revoke: {method: GET}}, reply: {at: body}, errors: {passing: [z]}, attach: {header: X-T}, refresh: {margin: 2m}, callback: ~";
    let acme = acme(&format!("{URLS}{keys}"), &format!("{CLIENT}, {own}"));
    let calls = &acme.dialect.calls;
    assert_eq!(calls.code.params, [("a".into(), text("1")), ("b".into(), text("3"))]);
    assert_eq!((&*calls.code.omit, &calls.revoke.method), (&[host("nonce")] as &[_], &Some(Method::GET)));
    assert_eq!((&acme.dialect.reply.at, &acme.dialect.reply.scope), (&Some(path("body")), &Some(path("s"))));
    assert_eq!((&acme.dialect.errors.passing, &acme.dialect.errors.client), (&vec![code("z")], &vec![code("y")]));
    assert!(matches!(acme.attach, Scheme::Header(_)));
    assert_eq!((acme.refresh.margin, acme.dialect.renewal.replay), (Some(Duration::from_secs(120)), true));
    assert_eq!(acme.dialect.callback.code.as_deref(), Some("c"));
}

/// The definition's one fault, at this place.
#[track_caller]
fn check(keys: &str, place: &str, message: &str, hint: &str) {
    refused(load(&format!("{keys}\n{URLS}"), CLIENT), &format!("acme.yaml:{place}: "), message, hint);
}

/// The registration's one fault.
#[track_caller]
fn check_own(definition: &str, keys: &str, message: &str, hint: &str) {
    refused(load(&format!("{definition}\n"), &format!("{CLIENT}, {keys}")), "routes.yaml:2:", message, hint);
}

#[track_caller]
fn refused(result: Result<Snapshot, ConfigErrors>, place: &str, message: &str, hint: &str) {
    let errors = match result {
        Ok(_) => panic!("taken, though {message}"),
        Err(errors) => errors,
    };
    assert_eq!(errors.0.len(), 1, "{errors}");
    assert!(errors.to_string().contains(place) && errors.0[0].message.contains(message), "{errors}");
    assert!(errors.0[0].hint.as_deref().unwrap_or_default().contains(hint), "{errors}");
}

#[test]
fn faults_are_told_where_they_stand() {
    check("callbak: {}", "1:1", "unknown key `callbak`", "`callback`");
    check("calls: {cod: {}}", "1:9", "unknown key `cod` in `calls`", "`code`");
    check("calls: {token: {url: https://a.example/}}", "1:22", "`calls.token` has no `url`", "");
    check("calls: {code: {method: post}}", "1:24", "expected `GET` or `POST`", "");
    check("calls: {code: {rename: {clientid: x}}}", "1:25", "`clientid` is no standard parameter", "`client_id`");
    check("calls: {code: {omit: [scop]}}", "1:23", "`scop` is no standard parameter", "`scope`");
    check("calls: {code: {params: {a: \"{b}\"}}}", "1:29", "no value is called `b` here", "declare it");
    check("calls: {code: {params: {a: \"{cod}\"}}}", "1:29", "no value is called `cod` here", "`code`");
    check("calls: {authorize: {params: {a: \"{client_secret}\"}}}", "1:34", "no value is called `client_secret` here", "");
    check("calls: {code: {params: {a: \"{b\"}}}", "1:29", "not closed", "");
    check("calls: {code: {headers: {Content-Length: 1}}}", "1:26", "cannot touch `content-length`", "");
    check("reply: {at: a..b}", "1:13", "expected the path of a member", "dots");
    check("reply: {expires_in_unit: sec}", "1:26", "`s` or `ms` or `min`", "");
    check("reply: {also: [{account: user}]}", "1:16", "a further grant needs `at`", "");
    check("errors: {passing: [{}]}", "1:20", "would fit everything", "");
    check("errors: {passing: [{member: a}]}", "1:20", "`member` and `equals` go together", "");
    check("errors: {passing: [{status: 4}]}", "1:29", "expected an HTTP status", "");
    check("callback: {state: none}", "1:19", "`required` or `cookie`", "");
    check("device: {rename: {verification_url: a}}", "1:19", "no member of a device reply", "`verification_uri`");
    check("issuers: [\"https://*\"]", "1:11", "expected an issuer's https:// URL", "segment");
    check("inputs: {code: {label: x}}", "1:10", "a value cannot be called `code`", "");
    check("inputs: {username: {label: x}}", "1:10", "a value cannot be called `username`", "");
    assert!(load(&format!("{URLS}metadata: {{username: reply.username}}\n"), CLIENT).is_ok());
    check("inputs: {\"a.b\": {label: x}}", "1:10", "cannot be the name of a value", "");
    check("inputs: {shop: acme}", "1:10", "no input called `shop`", "");
    check("inputs: {shop: {kind: hots}}", "1:23", "`text` or `label` or `host` or `origin`", "`host`");
    check("inputs: {shop: {kind: label, hosts: [a.b]}}", "1:30", "`hosts` goes with", "");
    check("inputs: {shop: {kind: host, hosts: [\"*.com\"]}}", "1:37", "expected a host", "*.example.com");
    check("metadata: {a: realm}", "1:15", "expected `callback.PARAMETER` or `reply.MEMBER`", "");
    check("metadata: {a: {kind: label}}", "1:15", "needs `from`", "");
    check("metadata: {a: {from: reply.a, kind: host}}", "1:15", "chooses a host", "hosts");
    check("lookups: [{url: https://a.example/}]", "1:11", "a lookup needs `metadata`", "");
    check("api: {set_headers: {Authorization: a}}", "1:21", "the token stands there", "");
    check("api: {query: {a: \"{code}\"}}", "1:19", "no value is called `code` here", "");
    check("scopes: [a]\nrefresh: {by: code}", "2:15", "`refresh_token` or `access_token`", "");
}

#[test]
fn urls_with_places_stay_https_at_hosts_that_are_known() {
    let url = |url: &str| format!("inputs: {{name: {{kind: text}}, dom: {{kind: label}}}}\nrevoke_url: \"{url}\"");
    assert!(load(&format!("{}\n{URLS}", url("https://{dom}.a.example/{name}?x={name}")), CLIENT).is_ok());
    assert!(load(&format!("{}\n{URLS}", url("http://{dom}.localhost:1/")), CLIENT).is_ok());
    check(&url("https://{do}.a.example/"), "2:22", "no value is called `do`", "`dom`");
    check(&url("https://{name}.a.example/"), "2:23", "`name` may be any text, so it cannot stand in a host", "kind: label");
    check(&url("https://{dom}.com/"), "2:23", "`dom` would choose among hosts that are anyone's", "{dom}.example.com");
    check(&url("https://{dom}/"), "2:23", "`dom` would choose among hosts that are anyone's", "{dom}.example.com");
    check(&url("https:///{dom}/"), "2:22", "a URL needs a host", "");
    check(&url("https://{dom}.a.example/?response_type=token"), "2:13", "the implicit grant", "");
    check(&url("http://{dom}.a.example/"), "2:14", "expected an https:// URL", "loopback");
    check(&url("{dom}://a.example/"), "2:14", "begins with `https://`", "");
    check(&url("https://{dom}@a.example/"), "2:22", "no user", "");
    check(&url("https://a.example/{name}#b"), "2:38", "no fragment", "fragment");
    check(&url("https://a.example/#b"), "2:13", "no fragment", "");
    check(&url("https://a.example/{client_secret}"), "2:32", "no value is called `client_secret`", "");
    check_own(
        "inputs: {name: {kind: text}}\ntoken_url: https://a.example/",
        "token_hosts: [\"{name}.a.example\"]",
        "may be any text",
        "kind: label",
    );
    check_own("token_url: https://a.example/", "token_hosts: [\"{name}.a.example\"]", "no value is called `name`", "");
    check_own("token_url: https://a.example/", "token_hosts: [\"!\"]", "expected a host that tokens", "never");
}

#[test]
fn values_of_a_registration_fit_their_kind() {
    check_own(ZENDESK, "inputs: {subdomain: a.b}", "expected one label of a host name", "");
    check_own(ZENDESK, "inputs: {sudbomain: a}", "no input called `sudbomain`", "`subdomain`");
    check_own(NEXTCLOUD, "inputs: {host: \"a b\"}", "expected a host", "");
    check_own(
        &NEXTCLOUD.replace("kind: host", "kind: host, hosts: [\"*.example.com\"]"),
        "inputs: {host: evil.net}",
        "`*.example.com`",
        "",
    );
}

#[test]
fn tokens_in_the_browsers_url_and_passwords_are_not_offered() {
    check("authorize_params: {response_type: token}", "1:35", "the implicit grant", "code");
    check("calls: {authorize: {params: {response_type: id_token token}}}", "1:45", "the implicit grant", "code");
    check("calls: {authorize: {url: \"https://a.example/?response_type=token\"}}", "1:26", "the implicit grant", "code");
    check("token_params: {grant_type: password}", "1:28", "the password grant", "code");
    check("calls: {token: {params: {grant_type: password}}}", "1:38", "the password grant", "code");
    assert!(load(&format!("{URLS}authorize_params: {{response_type: code id_token}}\n"), CLIENT).is_ok());
}

#[test]
fn odd_but_allowed_things_are_warnings() {
    let warnings = |keys: &str, registration: &str| load(&format!("{URLS}{keys}\n"), registration).expect("taken").warnings.join("\n");
    assert!(warnings("category: storag", CLIENT).contains("`storag` is none of those that lists know; did you mean `storage`?"));
    assert!(warnings("pkce: plain", "client_id: a").contains("without a secret by `pkce: plain`"));
    let unbound = |definition: &str| warnings(definition, "client_id: a, client_secret: s").contains("`callback.state: cookie`");
    assert!(unbound("pkce: none\ncallback: {state: cookie}"));
    for bound in
        ["callback: {state: cookie}", "pkce: none\ncallback: {state: cookie, hmac: h}", "pkce: none\ncallback: {state: cookie_on_error}"]
    {
        assert!(!unbound(bound), "{bound}");
    }
    assert!(!warnings("pkce: none\ncategory: storage", CLIENT).contains("pkce"));
}

#[test]
fn both_files_faults_are_told_at_once() {
    let errors = load("pkce: S265\nreply: {}\n", "clientid: a").expect_err("refused").to_string();
    assert!(errors.contains("acme.yaml:1:7") && errors.contains("routes.yaml:2:10: unknown key `clientid`"), "{errors}");
}
