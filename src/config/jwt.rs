//! `end_user.jwt`: by which keys and rules a signed token proves who the end user is.

use super::error::did_you_mean;
use super::fields::{Fields, Shape, list};
use super::node::{Node, Value};
use super::scalar;
use super::sources::Sources;
use crate::identity::jwt::{ALGORITHMS, SecretKey};
use crate::identity::{JwtRules, Keys, Published};
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use std::sync::Arc;

const JWT: Shape = Shape { name: "Jwt", said: "`end_user.jwt`" };

/// The longest secret that is read.
const SECRET_BYTES_MAX: usize = 64 * 1024;

pub(super) fn read(end_user: &Fields<'_>, sources: &Sources<'_>) -> Option<Arc<JwtRules>> {
    let fields = end_user.section("jwt", JWT)?;
    let (url_node, file_node) = (fields.get("jwks_url"), fields.get("secret_file"));
    let by_secret = url_node.is_none() && file_node.is_some();
    match (url_node, file_node) {
        (None, None) => {
            fields.say(fields.at, "`end_user.jwt` needs `jwks_url`, where the issuer publishes its keys, or `secret_file`", None)
        }
        (Some(_), Some(_)) => {
            let message = "a token signed with a secret and one signed with a private key must not pass for each other: `jwks_url` or `secret_file`, not both";
            fields.say(fields.at_key("secret_file"), message, None);
        }
        _ => {}
    }
    let algorithms = algorithms(&fields, by_secret);
    let keys = match (url_node, file_node) {
        (Some(node), _) => scalar::secure_url(node, fields.problems).map(|url| Keys::Published(Published::new(url))),
        (None, Some(node)) => secret(node, &algorithms, &fields, sources).map(Keys::Secret),
        (None, None) => None,
    };
    let audiences = audiences(&fields);
    let issuer = fields.word("issuer").map(Box::from);
    let claim = fields.word("claim").unwrap_or("sub").into();
    fields.finish();
    Some(Arc::new(JwtRules { keys: keys?, algorithms, audiences: audiences?, issuer, claim }))
}

/// The algorithms that are taken: as written, or all that fit the kind of key. Each key takes its own kind alone either way.
fn algorithms(fields: &Fields<'_>, by_secret: bool) -> Vec<Algorithm> {
    let fits = |algorithm: Algorithm| AlgorithmFamily::Hmac.algorithms().contains(&algorithm) == by_secret;
    let Some(nodes) = fields.list("algorithms") else {
        return match by_secret {
            true => vec![Algorithm::HS256],
            false => ALGORITHMS.iter().map(|(_, algorithm)| *algorithm).filter(|algorithm| fits(*algorithm)).collect(),
        };
    };
    let mut found = Vec::new();
    for node in nodes {
        let Some(word) = scalar::text(node, fields.problems) else { continue };
        let known = ALGORITHMS.iter().find(|(name, _)| *name == word).map(|(_, algorithm)| *algorithm);
        let (message, hint) = match known {
            Some(algorithm) if fits(algorithm) => {
                found.push(algorithm);
                continue;
            }
            Some(_) if by_secret => (
                format!("`{word}` is verified by a public key, and `secret_file` holds a secret"),
                Some("publish the keys and write `jwks_url`".to_owned()),
            ),
            Some(_) => (
                format!("`{word}` is signed with a secret, and what `jwks_url` publishes is none: anyone could sign"),
                Some("write `secret_file` in place of `jwks_url`".to_owned()),
            ),
            None if word.eq_ignore_ascii_case("none") => ("`none` is no signature: anyone could name anyone".to_owned(), None),
            None => {
                let all = ALGORITHMS
                    .iter()
                    .filter(|(_, algorithm)| fits(*algorithm))
                    .map(|(name, _)| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", ");
                (
                    format!("no algorithm is called {}; expected one of {all}", node.found()),
                    did_you_mean(word, ALGORITHMS.iter().map(|(name, _)| *name)),
                )
            }
        };
        fields.say(&node.at, message, hint);
    }
    if nodes.is_empty() {
        fields.say(fields.at_key("algorithms"), "`algorithms` is empty: no token would be taken", None);
    }
    found
}

/// The content of `secret_file`, long enough for its algorithms (RFC 7518 §3.2).
fn secret(node: &Node, algorithms: &[Algorithm], fields: &Fields<'_>, sources: &Sources<'_>) -> Option<SecretKey> {
    let path = scalar::text(node, fields.problems)?;
    let refuse = |message: String, hint: Option<&str>| {
        fields.say(&node.at, message, hint.map(str::to_owned));
        None
    };
    let bytes = match sources.read_bytes(&sources.path(path)) {
        Ok(bytes) => zeroize::Zeroizing::new(bytes),
        Err(error) => {
            return refuse(
                format!("cannot read the secret {}: {error}", node.found()),
                Some("a relative path begins at the folder of the config file"),
            );
        }
    };
    // As `${file:…}` has it: an editor's line end is no part of the secret.
    let secret = bytes.strip_suffix(b"\n").map(|cut| cut.strip_suffix(b"\r").unwrap_or(cut)).unwrap_or(&bytes);
    if secret.trim_ascii_start().starts_with(b"-----BEGIN") {
        return refuse(
            format!("{} holds a key in PEM, which is no shared secret: whoever has the public half could sign", node.found()),
            Some("publish the public key as a JWK set and write `jwks_url`"),
        );
    }
    let most = algorithms.iter().map(|algorithm| match algorithm {
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 32,
    });
    let needed = most.max().unwrap_or(32);
    if secret.len() < needed {
        return refuse(
            format!("the secret in {} has {} bytes, and its algorithm needs at least {needed}", node.found(), secret.len()),
            Some("`openssl rand -base64 48 > FILE` makes one; it is used as the text it is"),
        );
    }
    if secret.len() > SECRET_BYTES_MAX {
        return refuse(format!("the secret in {} is longer than 64 KiB", node.found()), None);
    }
    if let Ok(text) = std::str::from_utf8(secret) {
        sources.remember_filled(text);
    }
    Some(SecretKey::new(secret))
}

/// One text or several.
fn audiences(fields: &Fields<'_>) -> Option<Vec<Box<str>>> {
    let Some(node) = fields.get("audience") else { return Some(Vec::new()) };
    let nodes = match &node.value {
        Value::List(_) => list(node, fields.problems)?,
        _ => std::slice::from_ref(node),
    };
    if nodes.is_empty() {
        fields.say(&node.at, "`audience` is empty: leave the key out, and tokens with an audience are refused", None);
    }
    let all = nodes.iter().map(|node| {
        let text = scalar::text(node, fields.problems)?;
        if text.is_empty() {
            fields.say(&node.at, "an audience is a text that is not empty", None);
            return None;
        }
        Some(Box::from(text))
    });
    all.collect()
}
