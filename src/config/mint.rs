//! Private keys of a registration and the two ways to tokens that no end user granted: `jwt_bearer` (RFC 7523) and `token_exchange` (RFC 8693).

use super::error::did_you_mean;
use super::fields::{Fields, Shape};
use super::node::{Key, Node, Value};
use super::scalar;
use crate::base::secret::Secret;
use crate::provider::{Exchange, JwtBearer, JwtKey, KeyFault};
use url::Url;

const JWT_BEARER: Shape = Shape { name: "JwtBearer", said: "`jwt_bearer`" };
const TOKEN_EXCHANGE: Shape = Shape { name: "TokenExchange", said: "`token_exchange`" };

/// RFC 8693 §3.
const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:";
const TOKEN_TYPES: &[&str] = &["access_token", "jwt", "id_token", "refresh_token", "saml1", "saml2"];

/// Claims that each assertion has of its own accord.
const OWN_CLAIMS: &[&str] = &["iss", "sub", "aud", "exp", "iat", "jti"];

/// What `jwt_bearer` says, with what only a service account's file says.
pub(super) struct Bearer {
    pub(super) bearer: JwtBearer,
    /// `token_uri` of a service account.
    pub(super) token_url: Option<Url>,
    /// Whether the scopes go into the assertion, as Google reads them.
    pub(super) claims_scopes: bool,
}

/// The key in `key`, with what the two other keys say of it. A fault never shows a byte of it, wherever it stands.
pub(super) fn key(fields: &Fields<'_>, key: &'static str, id: &'static str, algorithm: &'static str) -> Option<JwtKey> {
    let (node, key_id, algorithm) = (fields.get(key), fields.word(id), algorithm_in(fields, algorithm));
    let node = node?;
    let pem = scalar::text(node, fields.problems)?;
    parsed(fields, node, key, pem, algorithm, key_id)
}

fn algorithm_in(fields: &Fields<'_>, key: &'static str) -> Option<&'static str> {
    let names: Vec<_> = JwtKey::algorithms().map(|name| (name, name)).collect();
    fields.choice(key, &names)
}

fn parsed(fields: &Fields<'_>, node: &Node, key: &str, pem: &str, algorithm: Option<&str>, key_id: Option<&str>) -> Option<JwtKey> {
    match JwtKey::parse(Secret::new(pem), algorithm, key_id.map(Box::from)) {
        Ok(key) => Some(key),
        Err(fault) => {
            let hint = match fault {
                KeyFault::NoKey => "name the file that `openssl genpkey` wrote: `${file:./key.pem}`; it has no passphrase",
                KeyFault::Unfit => "RS256 and PS256 take an RSA key, ES256 one on P-256, ES384 one on P-384, EdDSA an Ed25519 key",
            };
            fields.say(&node.at, format!("`{key}` {fault}"), Some(hint.into()));
            None
        }
    }
}

pub(super) fn jwt_bearer(fields: &Fields<'_>) -> Option<Bearer> {
    let fields = fields.section("jwt_bearer", JWT_BEARER)?;
    let before = fields.problems.count();
    let account_node = fields.get("service_account");
    let account = account_node.and_then(|node| service_account(&fields, node));
    let own_key = key(&fields, "key", "key_id", "algorithm");
    let account_key = match (&account, account_node) {
        (Some(account), Some(node)) if fields.peek("key").is_none() => {
            let (id, algorithm) = (fields.word("key_id").or(account.key_id.as_deref()), algorithm_in(&fields, "algorithm"));
            parsed(&fields, node, "private_key", account.private_key.expose(), algorithm, id)
        }
        _ => None,
    };
    let owned = |text: &str| Box::<str>::from(text);
    let issuer = fields.word("issuer").map(owned).or_else(|| account.as_ref().map(|account| account.client_email.clone()));
    let subject = fields.word("subject").map(owned);
    let audience = fields.word("audience").map(owned);
    let claims = claims(&fields);
    if account_node.is_none() {
        fields.need("key");
        fields.need("issuer");
    }
    let problems = fields.problems;
    fields.finish();
    if problems.count() != before {
        return None;
    }
    let claims_scopes = account.is_some() && !claims.iter().any(|(name, _)| &**name == "scope");
    let token_url = account.as_ref().and_then(|account| account.token_uri.clone());
    // Google compares the audience with the text of the file.
    let audience = audience.or_else(|| account.and_then(|account| account.audience));
    let bearer = JwtBearer { key: own_key.or(account_key)?, issuer: issuer?, subject, audience, claims };
    Some(Bearer { bearer, token_url, claims_scopes })
}

fn claims(fields: &Fields<'_>) -> Vec<(Box<str>, Box<str>)> {
    let mut all = Vec::new();
    for (name, node) in fields.pairs("claims") {
        if OWN_CLAIMS.contains(&&*name.text) {
            let hint = "`iss`, `sub` and `aud` are `issuer`, `subject` and `audience`; the others are made anew for each assertion";
            fields.say(&name.at, format!("`claims` cannot hold `{}`", name.text), Some(hint.into()));
        } else if let Some(text) = scalar::text(node, fields.problems) {
            all.push((name.text.as_str().into(), text.into()));
        }
    }
    all
}

/// Google's file for a service account: <https://cloud.google.com/iam/docs/keys-create-delete>.
struct ServiceAccount {
    client_email: Box<str>,
    private_key: Secret,
    key_id: Option<Box<str>>,
    token_uri: Option<Url>,
    audience: Option<Box<str>>,
}

fn service_account(fields: &Fields<'_>, node: &Node) -> Option<ServiceAccount> {
    let text = scalar::text(node, fields.problems)?;
    let refuse = |message: &str| {
        let hint = "name the JSON file that Google made for the service account's key: `${file:./service-account.json}`";
        fields.say(&node.at, message, Some(hint.into()));
        None
    };
    // The parser's error may quote the text, which is a secret.
    let Ok(json) = serde_json::from_str::<serde_json::Value>(text) else {
        return refuse("`service_account` is no JSON");
    };
    let member = |name: &str| json[name].as_str().filter(|text| !text.is_empty());
    let (Some(client_email), Some(private_key)) = (member("client_email"), member("private_key")) else {
        return refuse("`service_account` has no `client_email` and `private_key`");
    };
    let token_uri = match member("token_uri").map(str::parse::<Url>) {
        None => None,
        Some(Ok(url)) if url.fragment().is_none() && (url.scheme() == "https" || (url.scheme() == "http" && scalar::is_loopback(&url))) => {
            Some(url)
        }
        Some(_) => return refuse("`token_uri` of `service_account` is no https:// URL"),
    };
    Some(ServiceAccount {
        client_email: client_email.into(),
        private_key: private_key.into(),
        key_id: member("private_key_id").map(Box::from),
        audience: member("token_uri").map(Box::from),
        token_uri,
    })
}

/// `own` is the registration's id, `entries` all of `providers:`.
pub(super) fn token_exchange(fields: &Fields<'_>, own: &str, entries: &[(Key, Node)]) -> Option<Exchange> {
    let fields = fields.section("token_exchange", TOKEN_EXCHANGE)?;
    let before = fields.problems.count();
    let from = fields.need("from").and_then(|node| from(&fields, node, own, entries));
    let subject_token_type = token_type(&fields, "subject_token_type").unwrap_or_else(|| format!("{TOKEN_TYPE}access_token").into());
    let requested_token_type = token_type(&fields, "requested_token_type");
    let audience = fields.texts("audience").unwrap_or_default().into_iter().map(|(_, text)| text.into()).collect();
    let problems = fields.problems;
    fields.finish();
    if problems.count() != before {
        return None;
    }
    // The source is put in once all registrations are read (`exchange.rs`).
    Some(Exchange { from: from?, source: None, subject_token_type, requested_token_type, audience })
}

/// A registration whose connections end users make. A chain of exchanges could come back to where it began.
fn from(fields: &Fields<'_>, node: &Node, own: &str, entries: &[(Key, Node)]) -> Option<Box<str>> {
    let id = scalar::text(node, fields.problems)?;
    let others = || entries.iter().map(|(key, _)| &*key.text).filter(|id| *id != own);
    match entries.iter().find(|(key, _)| key.text == id) {
        _ if id == own => fields.say(&node.at, "`from` names the provider itself: it needs another whose tokens are exchanged", None),
        None => fields.say(&node.at, format!("no provider is called {}", node.found()), did_you_mean(id, others())),
        Some((_, entry)) if matches!(&entry.value, Value::Map(keys) if keys.iter().any(|(key, _)| key.text == "token_exchange")) => {
            fields.say(&node.at, format!("the tokens of {} are exchanged ones themselves", node.found()), None);
        }
        Some(_) => return Some(id.into()),
    }
    None
}

/// A word of RFC 8693 §3, or a URI of the provider's own.
fn token_type(fields: &Fields<'_>, key: &'static str) -> Option<Box<str>> {
    let text = fields.word(key)?;
    if TOKEN_TYPES.contains(&text) {
        return Some(format!("{TOKEN_TYPE}{text}").into());
    }
    if text.contains(':') {
        return Some(text.into());
    }
    let node = fields.peek(key)?;
    let all = TOKEN_TYPES.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let message = format!("expected {all} or a URI, found {}", node.found());
    fields.say(&node.at, message, did_you_mean(text, TOKEN_TYPES.iter().copied()));
    None
}

#[cfg(test)]
mod tests {
    use super::super::load::load_str;
    use super::super::snapshot::Snapshot;
    use super::*;
    use crate::attach::Scheme;
    use crate::provider::{Asks, ClientAuth, Mint, Registration};
    use std::path::Path;
    use std::sync::{Arc, LazyLock};

    static KEY: LazyLock<String> = LazyLock::new(|| rcgen::KeyPair::generate().expect("generated").serialize_pem());

    fn env(name: &str) -> Option<String> {
        let account = |key: &str, uri: &str| serde_json::json!({"type": "service_account", "client_email": "robot@x.test", "private_key": key, "private_key_id": "k7", "token_uri": uri});
        match name {
            "KEY" => Some(KEY.clone()),
            "BROKEN" => Some(KEY.replace("MIG", "CANARY")),
            "ACCOUNT" => Some(account(&KEY, "https://oauth2.example.com/token").to_string()),
            "BAD_KEY" => Some(account("CANARY", "https://oauth2.example.com/token").to_string()),
            "BAD_URI" => Some(account(&KEY, "http://CANARY.example.com/").to_string()),
            "NO_JSON" => Some("{\"private_key\": \"CANARY".into()),
            "NO_KEY" => Some("{\"client_email\": \"CANARY\"}".into()),
            _ => None,
        }
    }

    fn load(entries: &str) -> Result<Snapshot, crate::config::error::ConfigErrors> {
        let text = format!("providers:\n{entries}");
        load_str(&text, Path::new("routes.yaml"), Path::new("/etc/attache"), &env)
    }

    fn one(entries: &str, id: &str) -> Arc<Registration> {
        load(entries).unwrap_or_else(|errors| panic!("{errors}\n{entries}")).providers[id].clone()
    }

    #[track_caller]
    fn check(entries: &str, column: usize, message: &str, hint: &str) {
        let errors = load(entries).err().unwrap_or_else(|| panic!("taken: {entries}"));
        assert_eq!(errors.0.len(), 1, "{errors}");
        let error = &errors.0[0];
        assert_eq!((error.line, error.column), (2, column), "{errors}");
        assert!(error.message.contains(message) && error.hint.as_deref().unwrap_or_default().contains(hint), "{errors}");
        assert!(!errors.to_string().contains("CANARY"), "{errors}");
    }

    #[test]
    fn a_client_proves_itself_by_its_key() {
        let reg =
            one("  q: {client_id: a, issuer: https://a.b, client_auth: private_key_jwt, client_key: \"${KEY}\", client_key_id: k1}\n", "q");
        assert_eq!((reg.client_auth, reg.client_key.as_ref().map(JwtKey::algorithm)), (ClientAuth::PrivateKeyJwt, Some("ES256")));
        assert_eq!((reg.issuer.as_deref(), reg.token_url.as_ref()), (Some("https://a.b"), None), "as written");
        let x = "  q: {client_id: a, issuer: https://a.b, client_auth: private_key_jwt, client_key: ";
        check(&format!("{x}\"${{BROKEN}}\"}}\n"), 84, "`client_key` is no private key in PEM", "genpkey");
        check(&format!("{x}CANARY}}\n"), 84, "`client_key` is no private key in PEM", "genpkey");
        check(&format!("{x}\"${{KEY}}\", client_key_algorithm: RS256}}\n"), 84, "`client_key` cannot sign by that algorithm", "an RSA key");
        check(&format!("{x}\"${{KEY}}\", client_key_algorithm: HS256}}\n"), 116, "expected `RS256`", "`RS256`");
        check("  q: {client_id: a, issuer: https://a.b, client_key: \"${KEY}\"}\n", 42, "proves nothing", "private_key_jwt");
    }

    #[test]
    fn what_is_typed_needs_no_endpoint_and_no_client() {
        let snapshot = load(
            "  k: {credential: api_key, attach: {header: X-Api-Key}, token_hosts: [a.b.test]}\n  p: {optional: true, credential: password}\n",
        );
        let snapshot = snapshot.unwrap_or_else(|errors| panic!("{errors}"));
        let (key, password) = (&snapshot.providers["k"], &snapshot.providers["p"]);
        assert_eq!((key.asks, key.client_auth, &key.token_url), (Asks::ApiKey, ClientAuth::None, &None));
        assert_eq!((password.asks, &password.attach, &password.off), (Asks::Password, &Scheme::Basic, &None));
        assert_eq!(snapshot.warnings, ["there are no routes: every call is answered 404"]);
        check("  k: {credential: consent, token_hosts: [a.b]}\n", 6, "a provider needs `token_url`", "`issuer`");
    }

    #[test]
    fn a_service_account_is_an_assertion() {
        let reg = one("  g: {scopes: [a, b], jwt_bearer: {service_account: \"${ACCOUNT}\", subject: \"{end_user}\"}}\n", "g");
        assert_eq!(reg.token_url.as_ref().and_then(|url| url.fixed()).map(Url::as_str), Some("https://oauth2.example.com/token"));
        let Some(Mint::JwtBearer(bearer)) = &reg.mint else { panic!("{:?}", reg.mint) };
        assert_eq!((&*bearer.issuer, bearer.subject.as_deref()), ("robot@x.test", Some("{end_user}")));
        assert_eq!(bearer.audience.as_deref(), Some("https://oauth2.example.com/token"));
        assert_eq!(bearer.claims, [("scope".into(), "a b".into())]);
        assert!(format!("{bearer:?}").contains("k7"), "its key's id");
        let g = "  g: {jwt_bearer: {service_account: ";
        for (name, message) in [
            ("NO_JSON", "`service_account` is no JSON"),
            ("NO_KEY", "has no `client_email` and `private_key`"),
            ("BAD_URI", "`token_uri` of `service_account` is no https:// URL"),
            ("BAD_KEY", "`private_key` is no private key in PEM"),
        ] {
            check(&format!("{g}\"${{{name}}}\"}}}}\n"), 37, message, "");
        }
    }

    #[test]
    fn an_assertion_of_ones_own() {
        let reg = one("  s: {token_url: https://a.b/t, jwt_bearer: {key: \"${KEY}\", key_id: k, issuer: me, claims: {tenant: t}}}\n", "s");
        let Some(Mint::JwtBearer(bearer)) = &reg.mint else { panic!("{:?}", reg.mint) };
        assert_eq!((&*bearer.issuer, &bearer.audience, bearer.claims.len()), ("me", &None, 1));
        let s = "  s: {token_url: https://a.b/t, jwt_bearer: {";
        check(&format!("{s}issuer: me}}}}\n"), 45, "`jwt_bearer` needs `key`", "");
        check(&format!("{s}key: \"${{KEY}}\"}}}}\n"), 45, "`jwt_bearer` needs `issuer`", "");
        check(&format!("{s}key: \"${{KEY}}\", issuer: me, claims: {{exp: 1}}}}}}\n"), 82, "`claims` cannot hold `exp`", "anew");
        check(&format!("{s}key: \"${{BROKEN}}\", issuer: me}}}}\n"), 51, "`key` is no private key in PEM", "");
        check(&format!("{s}key: \"${{KEY}}\", issuer: me}}, credential: api_key}}\n"), 74, "minted tokens ask nobody", "");
    }

    #[test]
    fn a_token_is_exchanged_for_one_of_another_registration() {
        let two = |keys: &str| {
            format!("  q: {{client_id: x, token_url: https://a.b/t, token_exchange: {{{keys}}}}}\n  google: {{client_id: g}}\n")
        };
        let reg = one(&two("from: google, requested_token_type: jwt, audience: [a, b]"), "q");
        let Some(Mint::Exchange(exchange)) = &reg.mint else { panic!("{:?}", reg.mint) };
        assert_eq!(&*exchange.subject_token_type, "urn:ietf:params:oauth:token-type:access_token");
        assert_eq!(exchange.requested_token_type.as_deref(), Some("urn:ietf:params:oauth:token-type:jwt"));
        assert_eq!(exchange.audience.len(), 2);
        check(&two("from: googel"), 70, "no provider is called `googel`", "`google`");
        check(&two("from: q"), 70, "names the provider itself", "");
        check(&two("audience: [a]"), 63, "`token_exchange` needs `from`", "");
        check(&two("from: google, subject_token_type: acces_token"), 98, "expected `access_token`", "`access_token`");
        let chain = "  y: {client_id: y, token_url: https://a.b/t, token_exchange: {from: q}}\n";
        check(&format!("{chain}{}", two("from: google")), 70, "the tokens of `q` are exchanged ones themselves", "");
    }
}
