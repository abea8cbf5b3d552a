//! Connections as JSON outside the store: an import line in (contract §7), a connection without its tokens out (contract §6).
//!
//! Fields are read one by one rather than by serde's derive, whose errors quote the value that did not fit: here that could be a token.

use super::record::{Connection, State};
use crate::base::clock::UnixMillis;
use crate::base::ids::{ConnectionKey, DEFAULT_ACCOUNT, random_id};
use crate::base::secret::Secret;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const FIELDS: [&str; 14] = [
    "provider",
    "end_user",
    "account",
    "access_token",
    "refresh_token",
    "token_secret",
    "token_type",
    "expires_at",
    "scopes",
    "metadata",
    "api_key",
    "username",
    "password",
    "dpop_key",
];

/// The type of a token that is bound to a key (RFC 9449 §5).
const BOUND: &str = "DPoP";

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// Reads one import line. A grant with a refresh token alone counts as expired now, so that its first call refreshes it.
///
/// # Errors
/// A text that names the field and what was expected, never a value.
pub fn parse_import(line: &str, now: UnixMillis) -> Result<Connection, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("not JSON (column {})", error.column()))?;
    let Value::Object(fields) = value else { return Err("expected a JSON object".to_owned()) };
    parse_line(fields, now)
}

/// The same of a line whose JSON was read already.
///
/// # Errors
/// As [`parse_import`].
pub fn parse_line(fields: Map<String, Value>, now: UnixMillis) -> Result<Connection, String> {
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(format!("unknown field `{unknown}`; known are {}", FIELDS.join(", ")));
    }
    let provider = name(&fields, "provider")?.ok_or("`provider` is missing")?;
    let end_user = name(&fields, "end_user")?.ok_or("`end_user` is missing")?;
    let account = name(&fields, "account")?.unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned());
    let (typed, typed_as) = typed(&fields)?;
    let access_token = token(&fields, "access_token")?;
    let refresh_token = token(&fields, "refresh_token")?;
    if typed.is_some() && (access_token.is_some() || refresh_token.is_some()) {
        return Err("an `api_key` or a `username` with its `password` stands instead of tokens, not beside them".to_owned());
    }
    let token_secret = token(&fields, "token_secret")?;
    if token_secret.is_some() && access_token.is_none() {
        return Err("`token_secret` signs with an `access_token` (OAuth 1.0a), which is missing".to_owned());
    }
    let key = dpop_key(&fields)?;
    if key.is_some() && typed.is_some() {
        return Err("`dpop_key` is what a token is bound to, and an `api_key` or a password is bound to none".to_owned());
    }
    if key.is_some() && token_secret.is_some() {
        return Err("`dpop_key` and `token_secret` do not go together".to_owned());
    }
    let typed_as = match (&key, &token_secret) {
        (Some(_), _) => BOUND,
        (None, Some(_)) => "OAuth1",
        (None, None) => typed_as,
    };
    let access_token = access_token.or(typed);
    if access_token.is_none() && refresh_token.is_none() {
        return Err("one of `access_token`, `refresh_token`, `api_key`, and `username` with `password` is needed".to_owned());
    }
    let told = text(&fields, "expires_at")?
        .map(|at| UnixMillis::from_rfc3339(&at).ok_or("`expires_at` is not an RFC 3339 time, as in 2026-03-01T10:00:00Z".to_owned()))
        .transpose()?;
    let expires_at = if access_token.is_none() { Some(now) } else { told };
    Ok(Connection {
        id: random_id("con").into(),
        key: ConnectionKey::new(&provider, &end_user, &account),
        state: State::Active,
        access_token: Secret::new(access_token.unwrap_or_default()),
        refresh_token: refresh_token.map(Secret::new),
        token_type: text(&fields, "token_type")?.unwrap_or_else(|| typed_as.to_owned()).into(),
        obtained_at: now,
        expires_at,
        scopes: scopes(&fields)?,
        missing_scopes: Vec::new(),
        created_at: now,
        updated_at: now,
        last_used_at: None,
        metadata: metadata(&fields)?,
        last_error: None,
        refresh_failures: 0,
        refresh_not_before: None,
        key_material: key.or(token_secret.map(Secret::new)),
    })
}

/// A connection with its tokens as an import line.
pub fn import_line(connection: &Connection) -> Value {
    let mut line = json!({
        "provider": connection.key.provider, "end_user": connection.key.end_user, "account": connection.key.account,
        "token_type": connection.token_type, "scopes": connection.scopes, "metadata": connection.metadata,
        "expires_at": connection.expires_at.map(UnixMillis::to_rfc3339),
    });
    if !connection.access_token.is_empty() {
        line["access_token"] = connection.access_token.expose().into();
    }
    if let Some(secret) = &connection.key_material {
        line["token_secret"] = secret.expose().into();
    }
    if let Some(token) = &connection.refresh_token {
        line["refresh_token"] = token.expose().into();
    }
    if let Some(key) = connection.key_material.as_ref().filter(|_| connection.token_type.eq_ignore_ascii_case(BOUND)) {
        line["dpop_key"] = format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", key.expose()).into();
    }
    line
}

/// A connection as the API shows it: everything but its tokens.
pub fn shown(connection: &Connection) -> Value {
    let time = |at: UnixMillis| at.to_rfc3339();
    json!({
        "id": connection.id,
        "provider": connection.key.provider,
        "end_user": connection.key.end_user,
        "account": connection.key.account,
        "state": connection.state.name(),
        "scopes": connection.scopes,
        "missing_scopes": connection.missing_scopes,
        "expires_at": connection.expires_at.map(time),
        "created_at": time(connection.created_at),
        "updated_at": time(connection.updated_at),
        "last_used_at": connection.last_used_at.map(time),
        "metadata": connection.metadata,
        "last_error": connection.last_error,
    })
}

fn text(fields: &Map<String, Value>, field: &str) -> Result<Option<String>, String> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(format!("`{field}` must be a text that is not empty")),
    }
}

/// A static key or Basic credentials (RFC 7617 §2: the user name holds no colon) as the one text that goes on a call, and what it is called.
fn typed(fields: &Map<String, Value>) -> Result<(Option<String>, &'static str), String> {
    let (key, user, password) = (token(fields, "api_key")?, token(fields, "username")?, token(fields, "password")?);
    match (key, user, password) {
        (None, None, None) => Ok((None, "Bearer")),
        (Some(key), None, None) => Ok((Some(key), "api_key")),
        (None, Some(user), _) if user.contains(':') => Err("`username` holds a colon, which Basic credentials cannot".to_owned()),
        (None, Some(user), Some(password)) => Ok((Some(format!("{user}:{password}")), "basic")),
        (Some(_), ..) => Err("`api_key` and `username` do not go together".to_owned()),
        (None, ..) => Err("`username` and `password` go together".to_owned()),
    }
}

/// The key that a token is bound to: PKCS#8 in PEM, on P-256. Its base64 is the form in which connections keep it.
fn dpop_key(fields: &Map<String, Value>) -> Result<Option<Secret>, String> {
    let Some(pem) = text(fields, "dpop_key")?.map(Zeroizing::new) else { return Ok(None) };
    let body = pem.trim().strip_prefix(PEM_BEGIN).and_then(|rest| rest.strip_suffix(PEM_END));
    let key = body.map(|body| Secret::new(body.split_ascii_whitespace().collect::<String>()));
    let is_key = |key: &Secret| {
        let der = STANDARD.decode(key.expose()).map(Zeroizing::new);
        der.is_ok_and(|der| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).is_ok())
    };
    key.filter(is_key).map(Some).ok_or_else(|| "`dpop_key` must be a private key on P-256 in PEM (PKCS#8)".to_owned())
}

/// A token that can stand in a header: what a file or a shell put around it would fail each call.
fn token(fields: &Map<String, Value>, field: &str) -> Result<Option<String>, String> {
    let token = text(fields, field)?;
    match &token {
        Some(token) if token.trim() != token || token.chars().any(char::is_control) => {
            Err(format!("`{field}` has white space around it, or a line end or another control character in it"))
        }
        _ => Ok(token),
    }
}

/// A part of the connection's key, by the same limits as the header that names it in calls.
fn name(fields: &Map<String, Value>, field: &str) -> Result<Option<String>, String> {
    let name = text(fields, field)?;
    match &name {
        Some(name) if name.len() > 256 || name.chars().any(|letter| letter.is_control() || letter == ',') => {
            Err(format!("`{field}` must have at most 256 bytes, no comma and no control characters"))
        }
        _ => Ok(name),
    }
}

fn scopes(fields: &Map<String, Value>) -> Result<Vec<String>, String> {
    match fields.get("scopes") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(scopes)) => Ok(scopes.split_whitespace().map(str::to_owned).collect()),
        Some(Value::Array(scopes)) => {
            let all: Option<_> = scopes.iter().map(|scope| scope.as_str().map(str::to_owned)).collect();
            all.ok_or_else(|| "`scopes` must be a list of texts".to_owned())
        }
        Some(_) => Err("`scopes` must be a list of texts".to_owned()),
    }
}

fn metadata(fields: &Map<String, Value>) -> Result<BTreeMap<String, Value>, String> {
    match fields.get("metadata") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(metadata)) => Ok(metadata.clone().into_iter().collect()),
        Some(_) => Err("`metadata` must be an object".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<Connection, String> {
        parse_import(line, UnixMillis(1_000))
    }

    #[test]
    fn a_minimal_line_is_enough() {
        let connection = check(r#"{"provider":"google","end_user":"megan@personalemail.com","refresh_token":"r"}"#).expect("valid");
        assert_eq!(connection.key, ConnectionKey::new("google", "megan@personalemail.com", "default"));
        assert_eq!(connection.expires_at, Some(UnixMillis(1_000)), "refreshed by its first call");
        let forever = check(r#"{"provider":"google","end_user":"m","access_token":"a"}"#).expect("valid");
        assert_eq!(forever.expires_at, None);
    }

    #[test]
    fn a_token_secret_comes_in_and_goes_out_again() {
        let connection = check(r#"{"provider":"flickr","end_user":"m","access_token":"t","token_secret":"CANARY"}"#).expect("valid");
        assert_eq!((connection.key_material.as_ref(), &*connection.token_type), (Some(&Secret::new("CANARY")), "OAuth1"));
        assert_eq!((connection.expires_at, connection.refresh_token.clone()), (None, None));
        let again = check(&import_line(&connection).to_string()).expect("an import line");
        assert_eq!(again.key_material, connection.key_material);
        assert!(!shown(&connection).to_string().contains("CANARY"));
    }

    #[test]
    fn errors_name_the_field_and_never_the_token() {
        for (line, expected) in [
            ("{", "not JSON"),
            ("[]", "expected a JSON object"),
            (r#"{"provider":"g","end_user":"m"}"#, "one of `access_token`"),
            (r#"{"end_user":"m","access_token":"CANARY"}"#, "`provider` is missing"),
            (r#"{"provider":"g","end_user":"m","access_token":["CANARY"]}"#, "`access_token` must be a text"),
            (r#"{"provider":"g","end_user":"m","access_token":"CANARY","expires_at":"CANARY"}"#, "`expires_at` is not an RFC 3339 time"),
            (r#"{"provider":"g","end_user":"m","acess_token":"CANARY"}"#, "unknown field `acess_token`"),
            (r#"{"provider":"g","end_user":"m","access_token":"CANARY\n"}"#, "`access_token` has white space around it"),
            (r#"{"provider":"g","end_user":"m","token_secret":"CANARY"}"#, "`token_secret` signs with"),
            (r#"{"provider":"g","end_user":"m","refresh_token":"r","token_secret":"CANARY"}"#, "`token_secret` signs with"),
            (r#"{"provider":"g","end_user":"a,b","access_token":"CANARY"}"#, "`end_user` must have"),
        ] {
            let error = check(line).expect_err(line);
            assert!(error.contains(expected), "{line}: {error}");
            assert!(!error.contains("CANARY"), "{line}: {error}");
        }
    }

    #[test]
    fn p30_a_bound_token_comes_and_goes_with_its_key() {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("generated").serialize_pem();
        let line = json!({"provider": "g", "end_user": "m", "access_token": "a", "dpop_key": pem});
        let connection = check(&line.to_string()).expect("valid");
        assert_eq!(&*connection.token_type, "DPoP");
        let again = check(&import_line(&connection).to_string()).expect("valid");
        assert!(connection.key_material.is_some() && again.key_material == connection.key_material);
        assert!(!shown(&connection).to_string().contains("dpop_key"));
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("generated").serialize_pem();
        for key in ["CANARY", &other, &pem.replace("MIG", "CANARY")] {
            let error =
                check(&json!({"provider": "g", "end_user": "m", "access_token": "a", "dpop_key": key}).to_string()).expect_err("refused");
            assert!(error.contains("`dpop_key` must be") && !error.contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn what_is_shown_holds_no_token() {
        let connection = check(r#"{"provider":"g","end_user":"m","access_token":"CANARY1","refresh_token":"CANARY2"}"#).expect("valid");
        assert!(!shown(&connection).to_string().contains("CANARY"));
    }
}
