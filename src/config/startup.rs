//! `store`, `admin`, `shutdown` and `connect`.

use super::fields::{Fields, Problems, Shape};
use super::node::Node;
use super::snapshot::{AdminToken, AdminTokens, Connect, KeySource, SharedStore, StoreKind};
use super::sources::Sources;
use super::{logo, scalar};
use crate::base::secret::Secret;
use crate::store::postgres::PostgresUrl;
use crate::store::redis::RedisUrl;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;
use url::Url;
use zeroize::Zeroizing;

const STORE: Shape = Shape { name: "Store", said: "`store`" };
const SLED: Shape = Shape { name: "Sled", said: "`sled`" };
const POSTGRES: Shape = Shape { name: "Postgres", said: "`postgres`" };
const REDIS: Shape = Shape { name: "Redis", said: "`redis`" };
const URL_HINT: &str = "best as `${DATABASE_URL}` or `${file:PATH}`, for it holds a password";
const MEMORY: Shape = Shape { name: "Memory", said: "`memory`" };
const ADMIN: Shape = Shape { name: "Admin", said: "`admin`" };
const ADMIN_TOKEN: Shape = Shape { name: "AdminTokenEntry", said: "an admin token" };
const SHUTDOWN: Shape = Shape { name: "Shutdown", said: "`shutdown`" };
const CONNECT: Shape = Shape { name: "Connect", said: "`connect`" };

/// What an admin token may do unless its `allow` says otherwise: all but reading tokens.
const ALLOW_DEFAULT: [&str; 3] = ["connect", "read", "write"];
const ALLOW_ALL: [&str; 4] = ["connect", "read", "write", "tokens"];

/// The store and its keys.
pub(super) fn store(root: &Fields<'_>, sources: &Sources<'_>) -> (StoreKind, KeySource) {
    let kind = StoreKind::Sled { path: sources.path("./attache.db") };
    let keys = KeySource::File(sources.path("./attache.key"));
    let Some(fields) = root.section("store", STORE) else { return (kind, keys) };
    let shared = shared(&fields);
    let sled = fields.section("sled", SLED).map(|sled| {
        let path = sled.word("path").map_or_else(|| sources.path("./attache.db"), |path| sources.path(path));
        sled.finish();
        StoreKind::Sled { path }
    });
    let memory = fields.section("memory", MEMORY).map(|memory| {
        memory.finish();
        StoreKind::Memory
    });
    let postgres = fields.section("postgres", POSTGRES).and_then(|postgres| {
        let node = postgres.need("url");
        postgres.finish();
        let node = node?;
        let url = PostgresUrl::parse(&Secret::new(scalar::text(node, fields.problems)?));
        let url = url.map_err(|fault| fields.say(&node.at, fault.to_string(), Some(URL_HINT.into()))).ok()?;
        Some(StoreKind::Postgres { url: Box::new(url), shared: shared.unwrap_or_default() })
    });
    let redis = fields.section("redis", REDIS).and_then(|redis| {
        let node = redis.need("url");
        redis.finish();
        let node = node?;
        let url = RedisUrl::parse(&Secret::new(scalar::text(node, fields.problems)?));
        let url = url.map_err(|fault| fields.say(&node.at, fault.to_owned(), Some(URL_HINT.replace("DATABASE_URL", "REDIS_URL")))).ok()?;
        Some(StoreKind::Redis { url: Box::new(url), shared: shared.unwrap_or_default() })
    });
    let named: Vec<&str> = ["sled", "memory", "postgres", "redis"].into_iter().filter(|key| fields.peek(key).is_some()).collect();
    if let [_, second, ..] = named.as_slice() {
        fields.say(fields.at_key(second), "`store` takes one of `sled`, `postgres`, `redis` and `memory`", None);
    }
    if shared.is_some() && fields.peek("postgres").is_none() && fields.peek("redis").is_none() {
        let at = ["max_stale", "durability"].into_iter().find(|key| fields.peek(key).is_some()).unwrap_or("max_stale");
        fields.say(fields.at_key(at), format!("`{at}` is for a store that replicas share (`postgres`, `redis`)"), None);
    }
    let file = fields.word("encryption_key_file").map(|path| KeySource::File(sources.path(path)));
    let given = fields.list("encryption_keys").map(|nodes| {
        if nodes.is_empty() {
            fields.say(fields.at_key("encryption_keys"), "`encryption_keys` names no key", None);
        }
        KeySource::Given(nodes.iter().filter_map(|node| sealing_key(node, fields.problems)).collect())
    });
    if file.is_some() && given.is_some() {
        fields.say(fields.at_key("encryption_keys"), "`store` takes one of `encryption_key_file` and `encryption_keys`", None);
    }
    fields.finish();
    (sled.or(memory).or(postgres).or(redis).unwrap_or(kind), given.or(file).unwrap_or(keys))
}

/// `max_stale` and `durability`, where either is there.
fn shared(store: &Fields<'_>) -> Option<SharedStore> {
    let default = SharedStore::default();
    let said = store.peek("max_stale").is_some() || store.peek("durability").is_some();
    let max_stale = store.duration("max_stale").unwrap_or(default.max_stale);
    let relaxed = store.choice("durability", &[("strict", false), ("relaxed", true)]).unwrap_or(default.relaxed);
    said.then_some(SharedStore { max_stale, relaxed })
}

/// Base64 of 32 bytes. Its fault never shows the text.
fn sealing_key(node: &Node, problems: &Problems) -> Option<Secret> {
    let text = scalar::text(node, problems)?.trim();
    let bytes = STANDARD.decode(text).map(Zeroizing::new).ok();
    if bytes.is_some_and(|bytes| bytes.len() == 32) {
        return Some(Secret::new(text));
    }
    problems.say(&node.at, "expected a key: base64 of 32 bytes", Some("`attache keygen` makes one".into()));
    None
}

/// The tokens, and the user ids that need none on a unix socket.
pub(super) fn admin(root: &Fields<'_>, sources: &Sources<'_>) -> (AdminTokens, Vec<u32>) {
    let default = AdminTokens::File(sources.path("./attache.admin-token"));
    let Some(fields) = root.section("admin", ADMIN) else { return (default, Vec::new()) };
    let file = fields.word("token_file").map(|path| AdminTokens::File(sources.path(path)));
    let one = fields.get("token").and_then(|node| {
        let allow = ALLOW_DEFAULT.map(Into::into).to_vec();
        Some(AdminTokens::Given(vec![AdminToken { name: "admin".into(), token: admin_secret(node, fields.problems)?, allow }]))
    });
    let many = fields.list("tokens").map(|nodes| admin_tokens(nodes, &fields));
    if [file.is_some(), one.is_some(), many.is_some()].iter().filter(|there| **there).count() > 1 {
        fields.say(fields.at, "`admin` takes one of `token_file`, `token` and `tokens`", None);
    }
    let uids = fields.list("uids").unwrap_or_default().iter().filter_map(|node| {
        let uid = u32::try_from(scalar::number(node, fields.problems)?).ok();
        if uid.is_none() {
            fields.say(&node.at, "a user id has at most 32 bits", None);
        }
        uid
    });
    let uids = uids.collect();
    fields.finish();
    (many.or(one).or(file).unwrap_or(default), uids)
}

fn admin_tokens(nodes: &[Node], admin: &Fields<'_>) -> AdminTokens {
    let mut tokens: Vec<AdminToken> = Vec::new();
    if nodes.is_empty() {
        admin.say(admin.at_key("tokens"), "`tokens` names no token: nobody could call the admin API", None);
    }
    for node in nodes {
        let Some(fields) = Fields::open(node, ADMIN_TOKEN, admin.problems) else { continue };
        let name = fields.need("name").and_then(|_| fields.word("name"));
        let token = fields.need("token").and_then(|node| admin_secret(node, admin.problems));
        let allow = fields.list("allow").map(|nodes| {
            let words = ALLOW_ALL.map(|word| (word, word));
            nodes.iter().filter_map(|node| scalar::choice(node, &words, admin.problems)).map(Into::into).collect()
        });
        if let Some(name) = name
            && tokens.iter().any(|token| *token.name == *name)
        {
            fields.say(fields.at_key("name"), format!("two admin tokens are called `{name}`"), None);
        }
        fields.finish();
        if let (Some(name), Some(token)) = (name, token) {
            tokens.push(AdminToken { name: name.into(), token, allow: allow.unwrap_or_else(|| ALLOW_DEFAULT.map(Into::into).to_vec()) });
        }
    }
    AdminTokens::Given(tokens)
}

fn admin_secret(node: &Node, problems: &Problems) -> Option<Secret> {
    let text = scalar::text(node, problems)?;
    if text.is_empty() {
        problems.say(&node.at, "an admin token is empty", None);
        return None;
    }
    if text.len() < 16 {
        problems.warn(format!("{}: an admin token is shorter than 16 characters and may be guessed", node.at));
    }
    Some(Secret::new(text))
}

/// `shutdown.drain`.
pub(super) fn drain(root: &Fields<'_>) -> Duration {
    let default = Duration::from_secs(30);
    let Some(fields) = root.section("shutdown", SHUTDOWN) else { return default };
    let drain = fields.duration("drain").unwrap_or(default);
    fields.finish();
    drain
}

pub(super) fn connect(root: &Fields<'_>, sources: &Sources<'_>) -> Connect {
    let mut connect = Connect::default();
    let Some(fields) = root.section("connect", CONNECT) else { return connect };
    connect.app_name = fields.word("app_name").map(Into::into);
    connect.logo = fields.get("logo").and_then(|node| logo::read(node, sources, fields.problems));
    connect.accent = fields.get("accent").and_then(|node| {
        let text = scalar::text(node, fields.problems)?;
        let is_colour =
            text.strip_prefix('#').is_some_and(|hex| matches!(hex.len(), 3 | 6) && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if !is_colour {
            fields.say(&node.at, format!("expected a colour such as `\"#1a73e8\"`, found {}", node.found()), None);
        }
        is_colour.then(|| text.into())
    });
    for (node, text) in fields.texts("allowed_return_urls").unwrap_or_default() {
        // How far a pattern reaches is the connect room's word; here only what could never be one is refused.
        let is_absolute = Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
        if is_absolute && !text.contains(['\\', '@', '#']) && !text.contains(char::is_whitespace) {
            connect.allowed_return_urls.push(text.into());
        } else {
            fields.say(&node.at, format!("expected an absolute URL without user and fragment, found {}", node.found()), None);
        }
    }
    if let Some(ttl) = fields.duration("session_ttl") {
        connect.session_ttl = ttl;
    }
    fields.finish();
    connect
}
