//! The doubts that a crash left, resolved by trying: soon after the start each connection whose token call was cut off is refreshed once, so that
//! a grant that is lost is known before its end user's next call, and one that stands is known to.
//!
//! It is a refresh like any other: one in flight a connection, under the provider's limits, after the waits that are on record. Where it comes to
//! nothing the doubt stays on disk, and the connection's next call goes on as it would have.

use super::keeper::{Keeper, KeeperError};
use super::refresh::Want;
use crate::base::backoff::spread;
use crate::provider::Registration;
use crate::store::{Intent, StoreError};
use futures_util::StreamExt;
use futures_util::stream;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// How many are looked into at once, over all providers.
const AT_ONCE: usize = 8;

/// How long each waits at most before its turn, so that replicas that start together do not ask in one moment.
const STAGGER: Duration = Duration::from_millis(500);

/// Waits on record that are longer are left to the connection's next call.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// How often one is looked at before it is left to its next call: another replica's call is waited for, and the waits on record are sat out, but
/// not again and again, for calls that fail meanwhile make new ones.
const LOOKS: usize = 120;
const WAITS: usize = 3;
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The registrations of the config that is live.
pub type Registrations = BTreeMap<Arc<str>, Arc<Registration>>;

impl Keeper {
    /// Refreshes each connection of these intents once, a few at a time and spread. Ends when all were tried; dropping it leaves the rest to calls.
    pub async fn resolve(self: Arc<Self>, intents: Vec<Intent>, registrations: impl Fn() -> Registrations) {
        let turns = Semaphore::new(AT_ONCE);
        let tries = intents.into_iter().map(|intent| {
            let turns = &turns;
            let reg = registrations().get(&*intent.key.provider).filter(|reg| reg.off.is_none()).cloned();
            let keeper = Arc::clone(&self);
            async move {
                match reg {
                    Some(reg) => keeper.resolve_one(&reg, &intent, turns).await,
                    None => tracing::info!(provider.id = %intent.key.provider, "a token call that was cut off is of a provider that is not configured: it is left as it is"),
                }
            }
        });
        // All of them begin, for some only wait; there are no more than there were token calls in flight.
        stream::iter(tries).for_each_concurrent(None, |attempt| attempt).await;
    }

    async fn resolve_one(self: &Arc<Self>, reg: &Arc<Registration>, intent: &Intent, turns: &Semaphore) {
        tokio::time::sleep(spread(STAGGER)).await;
        let Some(_turn) = self.turn(reg, intent, turns).await else { return };
        let began = Instant::now();
        let outcome = self.settled_by_flight(reg, intent).await;
        let (begun_at, took_ms) = (intent.begun_at.to_rfc3339(), u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        match outcome {
            Ok(()) => {
                tracing::info!(provider.id = %reg.id, refresh.begun_at = %begun_at, took_ms, "a token call that was cut off is resolved: the grant stands");
            }
            Err(KeeperError::ReconnectRequired) => {
                tracing::warn!(provider.id = %reg.id, refresh.begun_at = %begun_at, took_ms, "a token call that was cut off is resolved: the grant is lost, its end user must connect anew");
            }
            Err(KeeperError::NotConnected) => {
                tracing::info!(provider.id = %reg.id, refresh.begun_at = %begun_at, took_ms, "a token call that was cut off is of a connection that is gone or not confirmed");
            }
            Err(error) => {
                tracing::warn!(provider.id = %reg.id, refresh.begun_at = %begun_at, took_ms, error = %error, "a token call that was cut off is not resolved yet: the connection's next refresh tries again");
            }
        }
    }

    /// Waits for one of the turns, and first for what the record has its refreshes wait. `None` where there is nothing to try.
    async fn turn<'t>(&self, reg: &Registration, intent: &Intent, turns: &'t Semaphore) -> Option<SemaphorePermit<'t>> {
        let mut waits = 0;
        for _ in 0..LOOKS {
            // Never closed.
            let turn = turns.acquire().await.ok()?;
            match self.is_still_open(intent).await {
                Ok(Some(Duration::ZERO)) if self.may_try(intent).await => return Some(turn),
                Ok(Some(Duration::ZERO)) => {
                    drop(turn);
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Ok(Some(wait)) if wait <= WAIT_MAX && waits < WAITS => {
                    waits += 1;
                    drop(turn);
                    tokio::time::sleep(wait).await;
                }
                Ok(_) => return None,
                Err(error) => {
                    tracing::warn!(provider.id = %reg.id, error = %error, "a token call that was cut off could not be looked into");
                    return None;
                }
            }
        }
        None
    }

    /// How long the record has its refreshes wait, or `None` where there is nothing to resolve any more.
    async fn is_still_open(&self, intent: &Intent) -> Result<Option<Duration>, StoreError> {
        let Some(keyed) = self.records.connection(&intent.key).await?.filter(|keyed| intent.is_open_on(&keyed.record)) else {
            // Deleted, connected anew or imported over: what became of the old grant's call is nobody's question.
            self.records.clear_intent(&intent.key).await?;
            return Ok(None);
        };
        if !self.is_unsettled(intent).await? {
            return Ok(None);
        }
        let now = self.clock.now();
        let until = keyed.record.refresh_not_before.filter(|until| *until > now && keyed.record.updated_at <= now);
        Ok(Some(until.map_or(Duration::ZERO, |until| until.since(now))))
    }

    /// Whether no refresh has told since what became of the call.
    async fn is_unsettled(&self, intent: &Intent) -> Result<bool, StoreError> {
        let standing = self.records.intent(&intent.key).await?;
        // One that is tried again, and came to nothing again, is of the same beginning.
        Ok(standing.is_some_and(|standing| standing.begun_at == intent.begun_at))
    }

    /// On a shared store another replica may be alive in the middle of this very call. A store that is one process's own has only calls of a
    /// process that has ended.
    async fn may_try(&self, intent: &Intent) -> bool {
        !self.is_anothers(intent).await
    }

    async fn settled_by_flight(self: &Arc<Self>, reg: &Arc<Registration>, intent: &Intent) -> Result<(), KeeperError> {
        // A flight that was under way may have been a look-up only: then there is one try more.
        for _ in 0..2 {
            let (own, outcome) = self.fly(reg, intent.key.borrow(), &Want::Resolve).await;
            match outcome {
                Ok(_) if !own && self.is_unsettled(intent).await.unwrap_or(true) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(KeeperError::RefreshFailed { retry_after: None })
    }
}
