//! How a replica learns of the others' changes: SUBSCRIBE on a connection of its own, and a count that shows when something was missed.
//!
//! When the channel breaks, or the count moved on without it, whoever watches is told that anything may have changed. The same look once a second
//! finds out that the server is out of reach, or that the records are not those that were here.

use super::{PREFIX, Shared, count_name, durability};
use crate::base::ids::random_token;
use crate::store::{Change, Kind, StoreError};
use futures_util::StreamExt;
use redis::aio::PubSubStream;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, timeout};

const LOOK_EVERY: Duration = Duration::from_secs(1);
const WITHIN: Duration = Duration::from_secs(2);
/// Looks in a row that find changes which were not heard: after so many the channel is made anew.
const DEAF_MAX: u32 = 2;

/// Subscribes, and follows until it is aborted.
///
/// # Errors
/// When the first subscription fails.
pub(super) async fn start(shared: Arc<Shared>) -> Result<JoinHandle<()>, StoreError> {
    let first = subscribe(&shared).await?;
    look(&shared).await;
    shared.check()?;
    Ok(tokio::spawn(run(shared, first)))
}

async fn subscribe(shared: &Shared) -> Result<PubSubStream, StoreError> {
    let subscribing = async {
        let mut pubsub = shared.client.get_async_pubsub().await?;
        pubsub.subscribe(&shared.channel).await?;
        Ok(pubsub.into_on_message())
    };
    match timeout(WITHIN, subscribing).await {
        Ok(subscribed) => subscribed.map_err(|error| shared.unavailable(&error)),
        Err(_) => Err(StoreError::Unavailable(format!("{}: no subscription within {} s", shared.place, WITHIN.as_secs()))),
    }
}

async fn run(shared: Arc<Shared>, first: PubSubStream) {
    let mut listening = Some(first);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut heard_to, mut counted, mut deaf) = (look(&shared).await.unwrap_or(0), None, 0);
    loop {
        let message = async {
            match &mut listening {
                Some(stream) => stream.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = message => match message {
                Some(message) => {
                    if let Some((who, place, change)) = parse(message.get_payload_bytes()) {
                        heard_to = place.max(heard_to);
                        deaf = 0;
                        if who != shared.me.as_bytes() {
                            let _ = shared.changes.send(change);
                        }
                    }
                }
                None => {
                    tracing::warn!(store = %shared.place, "the store's channel broke: changes are looked for every second until it is back");
                    listening = None;
                    shared.tell_doubt();
                }
            },
            _ = looks.tick() => {
                let now = look(&shared).await;
                let missed = match (counted, now, &listening) {
                    // What was counted a look ago must have been heard by now.
                    (Some(before), Some(_), Some(_)) => before > heard_to,
                    (Some(before), Some(now), None) => now != before,
                    _ => false,
                };
                if missed {
                    shared.tell_doubt();
                    heard_to = counted.unwrap_or(0).max(heard_to);
                    deaf += 1;
                }
                if let (Some(before), Some(now)) = (counted, now)
                    && now < before
                {
                    tracing::error!(store = %shared.place, "the store has lost changes that it had acknowledged: was it failed over, or restored?");
                    heard_to = now;
                    shared.tell_doubt();
                }
                counted = now.or(counted);
                if deaf > DEAF_MAX {
                    // It stands and says nothing: half-open.
                    (listening, deaf) = (None, 0);
                }
                if listening.is_none()
                    && let Ok(again) = subscribe(&shared).await
                {
                    tracing::info!(store = %shared.place, "the store's channel is back");
                    listening = Some(again);
                    heard_to = look(&shared).await.unwrap_or(heard_to);
                    shared.tell_doubt();
                }
            }
        }
    }
}

/// The count of changes; `None`, and the store said to be down, where it cannot be had or the records are others.
async fn look(shared: &Shared) -> Option<i64> {
    let name = format!("{PREFIX}generation");
    let mut command = redis::cmd("EVAL");
    // Made at the first look, with the records yet to come; never again by a process that has seen one.
    let script = "if ARGV[1] ~= '' then redis.call('SETNX', KEYS[1], ARGV[1]) end \
                  return {redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '0'}";
    let known = shared.generation.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let offered = if known.is_some() { String::new() } else { random_token() };
    command.arg(script).arg(2).arg(name).arg(count_name()).arg(offered);
    let looked = timeout(WITHIN, shared.run_unchecked::<(String, i64)>(&command)).await;
    let was_down = shared.check().is_err();
    match looked {
        Ok(Ok((generation, count))) => {
            if known.as_ref().is_some_and(|known| *known != generation) {
                shared.set_down(Some(format!(
                    "{}: its records are not those that were here a moment ago (flushed, or failed over to an empty one?): restore a backup, or restart to begin anew",
                    shared.place
                )));
                return None;
            }
            *shared.generation.lock().unwrap_or_else(PoisonError::into_inner) = Some(generation);
            if was_down && !is_durable_still(shared).await {
                return None;
            }
            shared.set_down(None);
            Some(count)
        }
        Ok(Err(StoreError::Unavailable(why))) => {
            shared.set_down(Some(why));
            None
        }
        Ok(Err(_)) => None,
        Err(_) => {
            shared.set_down(Some(format!("{}: no answer within {} s", shared.place, WITHIN.as_secs())));
            None
        }
    }
}

/// A server that comes back may have been started with other settings.
async fn is_durable_still(shared: &Shared) -> bool {
    let Some(mut connection) = shared.connection() else { return false };
    match durability::judge(&mut connection, shared.relaxed, &shared.place).await {
        Ok(kept) => {
            *shared.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
            true
        }
        Err(error) => {
            shared.set_down(Some(error.to_string()));
            false
        }
    }
}

/// `who:place:kind:version:key`, as the script tells it; the key is the rest, to the byte.
fn parse(payload: &[u8]) -> Option<(&[u8], i64, Change)> {
    let mut parts = payload.splitn(5, |byte| *byte == b':');
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    let (who, place) = (text()?, text()?.parse().ok()?);
    let kind = Kind::from_number(text()?.parse().ok()?)?;
    let version = match text()? {
        "" => None,
        version => Some(version.parse().ok()?),
    };
    Some((who.as_bytes(), place, Change { kind, key: parts.next()?.to_vec(), version }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_with_any_bytes_in_its_key() {
        let change = Change { kind: Kind::Connection, key: b"a:b\0\xff:".to_vec(), version: Some(7) };
        assert_eq!(parse(b"me:12:1:7:a:b\0\xff:"), Some((&b"me"[..], 12, change)));
        let gone = Change { kind: Kind::Outbox, key: Vec::new(), version: None };
        assert_eq!(parse(b"me:13:4::"), Some((&b"me"[..], 13, gone)));
        for strange in [&b""[..], b"me:1", b"me:x:1:1:k", b"me:1:9:1:k", b"me:1:1:x:k", b"me:1:1:1"] {
            assert!(parse(strange).is_none());
        }
    }
}
