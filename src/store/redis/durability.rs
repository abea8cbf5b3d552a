//! Whether a Redis keeps what it acknowledges (contract §8). By its defaults it forgets up to a second of it at a crash, and a rotated refresh token
//! that is forgotten costs its grant.

use crate::store::StoreError;
use redis::aio::ConnectionManager;
use std::collections::HashMap;

/// How an acknowledged write is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// The server syncs before it answers.
    Always,
    /// It syncs later, and each write waits until it has (WAITAOF, Redis 7.2).
    ByWaiting,
    /// It may lose it, and the operator took that risk.
    Relaxed,
}

/// # Errors
/// When the server may lose or evict records and nobody took the risk.
pub(super) async fn judge(connection: &mut ConnectionManager, relaxed: bool, place: &str) -> Result<Kept, StoreError> {
    let refuse =
        |why: &str| Err(StoreError::Unavailable(format!("{place}: {why}. Set it so, or take the risk with `store.durability: relaxed`")));
    let asked: Result<HashMap<String, String>, _> =
        redis::cmd("CONFIG").arg("GET").arg("appendonly").arg("appendfsync").arg("maxmemory-policy").query_async(connection).await;
    let settings = match asked {
        Ok(settings) => settings,
        // Managed servers forbid CONFIG; what cannot be seen is not believed.
        Err(error) if relaxed && error.is_connection_dropped() => {
            return Err(StoreError::Unavailable(format!("{place}: {}", error.to_string().escape_debug())));
        }
        Err(_) if relaxed => return Ok(Kept::Relaxed),
        Err(error) => {
            let words = error.to_string();
            return refuse(&format!("whether it keeps what it acknowledges cannot be seen (CONFIG GET: {})", words.escape_debug()));
        }
    };
    let setting = |name: &str| settings.get(name).map(String::as_str).unwrap_or_default();
    if relaxed {
        return Ok(Kept::Relaxed);
    }
    let evicts = setting("maxmemory-policy");
    if evicts != "noeviction" {
        return refuse(&format!(
            "it evicts records when memory is short (`maxmemory-policy {}`; needed is `noeviction`)",
            evicts.escape_debug()
        ));
    }
    if setting("appendonly") != "yes" {
        return refuse("it keeps records in memory alone (`appendonly no`; needed is `yes`)");
    }
    if setting("appendfsync") == "always" {
        return Ok(Kept::Always);
    }
    if has_waitaof(connection).await {
        return Ok(Kept::ByWaiting);
    }
    refuse(&format!(
        "it answers before a write is on disk (`appendfsync {}`; needed is `always`, or Redis 7.2 or later)",
        setting("appendfsync").escape_debug()
    ))
}

async fn has_waitaof(connection: &mut ConnectionManager) -> bool {
    let asked: Result<Vec<redis::Value>, _> = redis::cmd("COMMAND").arg("INFO").arg("WAITAOF").query_async(connection).await;
    asked.is_ok_and(|found| found.first().is_some_and(|found| *found != redis::Value::Nil))
}
