//! The schema and the loader know the same keys, and what the loader takes the schema takes.

use super::fields::Problems;
use super::raw::{definition_schema, schema};
use super::sources::Sources;
use super::yaml::to_json;
use super::{load, tests::CONTRACT};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

/// Every section once, so that every reader runs.
const EVERY_SECTION: &str = r#"
listen: {proxy: {bind: ["127.0.0.1:1", "unix:./s"], hosts: [a.test]}, health: {bind: "127.0.0.1:2", tls: {cert: "${CERT}", key: "${CERT_KEY}", client_ca: "${CERT}"}}, public: {bind: "127.0.0.1:3", connections_per_address: 8}, allow_anonymous: "${FLAG}", allowed_origins: [http://localhost:3000], origins: [{bind: "127.0.0.1:7081", tls: {cert: "${CERT}", key: "${CERT_KEY}", client_ca: "${CERT}"}, provider: google, upstream: https://www.googleapis.com, timeout: {}, retry: {}}]}
end_user: {header: X-U, placeholder: "${FLAG}", jwt: {jwks_url: "https://id.example/jwks", algorithms: [ES256], audience: [a, "${TOKEN}"], issuer: i, claim: email}}
store: {sled: {}, encryption_key_file: ./k}
admin: {tokens: [{name: a, token: "${TOKEN}", allow: [read]}]}
callers: [{name: app, uid: "${NUMBER}", cert_san: [app.test]}]
providers:
  google: {client_id: 12345, refresh: {margin: 1m}, attach: {header: X-T}, default_expires_in: never, authorize_params: {a: true}}
  work:
    client_id: w
    issuer: https://login.example.com
    token_hosts: [api.example.com]
    resource: [https://api.example.com/, "api://x"]
    client_auth: private_key_jwt
    client_key: ${KEY}
    client_key_id: k1
    client_key_algorithm: ES256
  old:
    client_id: k
    client_secret: s
    request_token_url: https://old.example.com/request
    authorize_url: https://old.example.com/authorize
    token_url: https://old.example.com/token
    oauth1: {signature: PLAINTEXT, realm: Photos, callback_confirmed: false}
    attach: oauth1
  robot: {credential: consent, jwt_bearer: {key: "${KEY}", issuer: me, claims: {a: b}}, token_url: https://login.example.com/token}
  other: {client_id: o, client_key: "${KEY}", client_auth: private_key_jwt, issuer: https://o.example.com, token_exchange: {from: work, subject_token_type: jwt, audience: [a]}}
  fruit: {client_id: a, issuer: https://a.example.com, client_auth: secret_jwt, client_key: "${KEY}", secret_jwt: {audience: b, issuer: c, ttl: 5m, algorithm: ES256}}
  bound: {client_id: a, issuer: https://b.example.com, dpop: true, client_cert: "${CERT}", client_cert_key: "${CERT_KEY}"}
  shop:
    use: microsoft
    client_id: s
    public_client: basic
    pkce: S256_hex
    issuers: ["https://login.example.com/*/v2.0"]
    redirect_uri: Acme-Acme-PRD-1
    scope_groups: {user: user_scope}
    token_params: {sig: "{sha256:client_secret|code}"}
    calls:
      authorize: {rename: {client_id: key}, omit: [scope], params: {type: web}, fragment: redirect}
      token: {method: GET, body: json, client_auth: basic_raw, headers: {X-A: "{client_id}"}}
      code: {url: "https://{shop}/token"}
      refresh: {}
      app: {}
      extend: {params: {t: "{access_token}"}}
      device: {}
      poll: {}
      revoke: {method: DELETE, params: {access_token: "{token}"}}
    reply:
      {at: data, access_token: a, refresh_token: b, token_type: c, expires_in: d.0, expires_at: e, expires_in_unit: ms, refresh_expires_in: f, scope: g, also: [{account: user, at: u}]}
    errors: {at: [a.0.b], passing: [x], ends_grant: [40030, {status: 401, says: no, code: a, member: s, equals: 503}], client: [y]}
    callback: {code: a, code_suffix: '#_', error: e, denied: [no, "denied="], state: cookie, hmac: hmac, scope: s}
    device: {rename: {device_code: code}, pending: [a], slow_down: [b], denied: [c], expired: [d]}
    inputs: {shop: {label: Shop, example: a, suffix: .b, kind: host, hosts: ["*.example.com"], value: a.example.com}}
    metadata: {realm: callback.realmId, at: {from: reply.at, kind: origin, hosts: ["*.example.com"], required: true}}
    lookups: [{url: "https://graph.microsoft.com/me", attach: {scheme: OAuth}, metadata: {dc: dc}}]
    api: {headers: {A: "1"}, set_headers: {B: "{realm}"}, query: {v: 1}, set_query: {w: "{realm}"}}
    expired_when: [{status: 400, member: error.code, equals: "190"}]
    refresh: {by: access_token, replay: true, not_before: 9m, expected: true}
routes:
  - match: /a
    provider: google
    upstream: https://www.googleapis.com/
    query: {limit: 5, all: true}
    headers: {set: {A: b}}
    timeout: {idle: none, total: "${SPAN}"}
    retry: {attempts: 2, on: [429, connect], max_body: "${NUMBER}"}
    max_body: 10MB
    max_signed_body: 2MB
    callers: [app]
    rate_limit: {user: 10/s, route: {requests: "${NUMBER}", per: 1m, burst: 20}}
    follow: no_token
    send: {method: POST, headers: {X-A: b, X-J: {json: {a: 1}}}, json: {path: x, deep: [1, true, ~]}}
    response: {select: "a[].b", max: 64KiB}
  - match: /b
    provider: google
    upstream: https://www.googleapis.com/
    rate_limit: 50/30s
    follow: no_token
    send: {form: {a: b}}
    response: {location: a.b}
upstreams: {max_connections: 64, max_waiting: 10, wait: 1s, idle: 30s, max_calls: 100, circuit: {failures: 5, open: 2s, open_max: 1m}}
notify: [{webhook: "https://hooks.example.com/a", secret: "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", events: [connection.created]}, {exec: [tell]}]
log: {level: "info,attache::token=debug", calls: errors, sample: 0.25}
metrics: {enabled: "${FLAG}", on_health: true}
shutdown: {drain: 0}
connect: {app_name: A, logo: https://a.test/logo.svg, accent: '#abc', session_ttl: 5m}
"#;

const MEMORY: &str = "store:\n  memory:\nproviders:\n  sandbox:\n";
const REDIS: &str = "store: {redis: {url: \"redis://127.0.0.1/0\"}, max_stale: 30s}\n";
const POSTGRES: &str =
    "store: {postgres: {url: \"postgres://attache@127.0.0.1/attache\"}, max_stale: 30s, durability: relaxed, encryption_key_file: ./k}\n";

/// A certificate and its key.
static PAIR: LazyLock<(String, String)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(vec!["client.test".to_owned()]).expect("generated");
    (made.cert.pem(), made.signing_key.serialize_pem())
});

fn env(name: &str) -> Option<String> {
    match name {
        "CERT" => return Some(PAIR.0.clone()),
        "CERT_KEY" => return Some(PAIR.1.clone()),
        _ => {}
    }
    if name == "KEY" {
        return Some(rcgen::KeyPair::generate().expect("generated").serialize_pem());
    }
    let value = match name {
        "FLAG" => "true",
        "NUMBER" => "7",
        "SPAN" => "5s",
        "TOKEN" | "GOOGLE_CLIENT_ID" | "GOOGLE_CLIENT_SECRET" => "0123456789abcdef",
        _ => return None,
    };
    Some(value.into())
}

/// The keys of each definition of a schema, and of its root.
fn keys_of(schema: &Value, root: &str) -> BTreeMap<String, BTreeSet<String>> {
    let keys = |schema: &Value| schema["properties"].as_object().map(|keys| keys.keys().cloned().collect::<BTreeSet<_>>());
    let mut all: BTreeMap<_, _> = schema["$defs"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, schema)| Some((name.clone(), keys(schema).or_else(|| (schema["type"] == "object").then(BTreeSet::new))?)))
        .collect();
    all.insert(root.to_owned(), keys(schema).unwrap_or_default());
    all
}

#[test]
fn the_schema_and_the_readers_know_the_same_keys() {
    let mut read: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for text in [EVERY_SECTION, MEMORY, POSTGRES, REDIS] {
        let problems = Problems::default();
        let result = load::load_text(text, &Path::new("r.yaml").into(), &Sources::new(&env, Path::new("/")), &problems);
        assert!(result.is_ok(), "{}", result.err().map(|errors| errors.to_string()).unwrap_or_default());
        for (shape, keys) in problems.keys.borrow().iter() {
            read.entry((*shape).to_owned()).or_default().extend(keys.iter().map(|key| (*key).to_owned()));
        }
    }
    read.entry("Memory".to_owned()).or_default();
    let mut known = keys_of(&schema(), "Config");
    known.extend(keys_of(&definition_schema(), "Definition"));
    assert_eq!(known, read);
}

#[test]
fn what_the_loader_takes_the_schema_takes() {
    for text in [CONTRACT, EVERY_SECTION, MEMORY, "{}"] {
        let faults = validate(&to_json(text), &schema(), &schema(), "");
        assert!(faults.is_empty(), "{faults:?}");
    }
    let definitions = super::definitions(Path::new("/nonexistent"), &env).expect("built in");
    for definition in definitions {
        let schema = definition_schema();
        let faults = validate(&to_json(&definition.text), &schema, &schema, "");
        assert!(faults.is_empty(), "{}: {faults:?}", definition.id);
    }
}

#[test]
fn what_the_schema_refuses_it_refuses_where_it_stands() {
    for (text, place) in [
        ("lisen: {}", "/lisen"),
        ("routes: [{match: /a}]", "/routes/0"),
        ("routes: [{match: /a, upstream: https://a.b/, upstraem: x}]", "/routes/0/upstraem"),
        ("shutdown: {drain: soon}", "/shutdown/drain"),
        ("listen: {allow_anonymous: maybe}", "/listen/allow_anonymous"),
        ("providers: {google: {clientid: a}}", "/providers/google/clientid"),
    ] {
        let faults = validate(&to_json(text), &schema(), &schema(), "");
        assert!(faults.iter().any(|fault| fault.starts_with(place)), "{text}: {faults:?}");
    }
}

/// As much of JSON Schema as ours uses; a keyword that is not known here fails the test.
fn validate(value: &Value, schema: &Value, root: &Value, at: &str) -> Vec<String> {
    let Some(keywords) = schema.as_object() else {
        return if *schema == json!(true) { Vec::new() } else { vec![format!("{at} is refused")] };
    };
    let mut faults = Vec::new();
    for (keyword, rule) in keywords {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "examples" | "format" => {}
            "$ref" => {
                let target = rule.as_str().and_then(|path| root.pointer(path.trim_start_matches('#'))).expect("a definition");
                faults.extend(validate(value, target, root, at));
            }
            "anyOf" => {
                let tries: Vec<_> = rule.as_array().into_iter().flatten().map(|schema| validate(value, schema, root, at)).collect();
                if tries.iter().all(|faults| !faults.is_empty()) {
                    faults.push(format!("{at} fits nothing"));
                    faults.extend(tries.into_iter().flatten());
                }
            }
            "type" => {
                let named = |kind: &str| match kind {
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "null" => value.is_null(),
                    other => panic!("type {other}"),
                };
                let fits = rule.as_str().map_or_else(|| rule.as_array().into_iter().flatten().filter_map(Value::as_str).any(named), named);
                if !fits {
                    faults.push(format!("{at} is not {rule}"));
                }
            }
            "const" if rule != value => faults.push(format!("{at} is not {rule}")),
            "enum" if !rule.as_array().is_some_and(|all| all.contains(value)) => faults.push(format!("{at} is not of {rule}")),
            "const" | "enum" | "minimum" | "maximum" => {}
            "pattern" => {
                let fits = value.as_str().is_none_or(|text| matches_pattern(rule.as_str().unwrap_or_default(), text));
                if !fits {
                    faults.push(format!("{at} is not like {rule}"));
                }
            }
            "required" => {
                let names = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
                faults.extend(names.filter(|name| value.is_object() && value.get(name).is_none()).map(|name| format!("{at} lacks {name}")));
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    faults.extend(validate(item, rule, root, &format!("{at}/{index}")));
                }
            }
            "properties" => {
                for (name, item) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = rule.get(name) {
                        faults.extend(validate(item, schema, root, &format!("{at}/{name}")));
                    }
                }
            }
            "additionalProperties" => {
                for (name, item) in value.as_object().into_iter().flatten() {
                    if keywords.get("properties").is_none_or(|known| known.get(name).is_none()) {
                        faults.extend(validate(item, rule, root, &format!("{at}/{name}")));
                    }
                }
            }
            other => panic!("the schema uses `{other}`"),
        }
    }
    faults
}

/// The patterns of `raw.rs`, by their alternatives; there is no regex engine among our dependencies.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    if pattern.ends_with(r"\$\{") && text.contains("${") {
        return true;
    }
    let span = |text: &str| humantime::parse_duration(text).is_ok();
    match pattern {
        p if p.starts_with(r"^\s*([0-9]+") => {
            span(text) || p.contains("^none$") && text == "none" || p.contains("^never$") && text == "never"
        }
        p if p.starts_with(r"^\s*[0-9]+\s*/") => crate::limit::Rate::parse(text).is_ok(),
        p if p.starts_with(r"^[0-9]+\s*([kKmMgG]") => {
            text.starts_with(|c: char| c.is_ascii_digit()) || p.contains("^none$") && text == "none"
        }
        p if p.starts_with("^[hH][tT][tT][pP]") => text.starts_with("http://") || text.starts_with("https://"),
        p if p.starts_with("^#") => text.starts_with('#'),
        p if p.starts_with("^[0-9a-fA-F]{64}") => text.len() == 64,
        r"\$\{" => false,
        other => panic!("pattern {other}"),
    }
}
