//! The keeper as others call it: the hot path, and the ways to wait for a flight.

use super::gate::{Gate, Gates};
use super::mint::Means;
use super::own::OwnSlot;
use super::refresh::{Flight, Want};
use super::schedule::{self, Phase, Schedule};
use super::table::{Landing, Outcome, Slot, Table};
use crate::attach::Prepared;
use crate::base::clock::{Clock, UnixMillis};
use crate::base::credential::Credential;
use crate::base::ids::{ConnectionKey, ConnectionKeyRef};
use crate::metrics::Events;
use crate::notices::Desk;
use crate::oauth::TokenClient;
use crate::provider::{Registration, RenewBy};
use crate::store::{Change, Connection, Keyed, Kind, Records};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::Instant;

/// One usable token as calls share it.
#[derive(Debug)]
pub struct Token {
    pub credential: Credential,
    pub prepared: Prepared,
    /// The version of the record that it is of.
    pub version: u64,
    pub obtained_at: UnixMillis,
    pub expires_at: Option<UnixMillis>,
    pub connection_id: Arc<str>,
    pub(super) own: OwnSlot,
    schedule: Schedule,
    /// When this process came to hold it, by the clock that is never set.
    held_since: Instant,
}

impl Token {
    pub(super) fn of(reg: &Registration, keyed: &Keyed<Connection>, now: UnixMillis) -> Arc<Token> {
        let (record, steady) = (&keyed.record, Instant::now());
        let by_itself = reg.dialect.renewal.by == RenewBy::AccessToken;
        let renewable = record.refresh_token.is_some() || by_itself || Means::of(reg, record.key.borrow()).is_some();
        let life = record.expires_at.map_or(Duration::ZERO, |end| end.since(record.obtained_at));
        let policy = schedule::policy(reg, life);
        Arc::new(Token {
            credential: Credential {
                access_token: record.access_token.clone(),
                token_type: record.token_type.clone(),
                key: record.key_material.clone(),
            },
            prepared: Prepared::new(),
            version: keyed.version,
            obtained_at: record.obtained_at,
            expires_at: record.expires_at,
            connection_id: (*record.id).into(),
            own: OwnSlot::new(&record.metadata),
            schedule: Schedule::of(record.obtained_at, record.expires_at, renewable, &policy, now, steady),
            held_since: steady,
        })
    }

    pub(super) fn phase(&self, now: UnixMillis) -> Phase {
        self.schedule.at(now, Instant::now())
    }

    /// How old it is by whichever clock says more, so that a clock set back does not make it young.
    pub(super) fn age(&self, now: UnixMillis) -> Duration {
        now.since(self.obtained_at).max(self.held_since.elapsed())
    }

    fn is_other_than(&self, used: &Token) -> bool {
        self.credential.access_token != used.credential.access_token || self.credential.key != used.credential.key
    }
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeeperError {
    /// No connection, or one that its app has not confirmed yet.
    #[error("the end user is not connected")]
    NotConnected,
    /// The grant is dead, or expired without a refresh token: only the end user can mend it.
    #[error("the end user must connect anew")]
    ReconnectRequired,
    /// The token endpoint failed and no usable token is left. No call is sent there before `retry_after`.
    #[error("the token could not be refreshed")]
    RefreshFailed { retry_after: Option<Duration> },
    /// The store could not be read, or could not take what must be on disk first.
    #[error("the store is unavailable")]
    StoreUnavailable,
    /// The provider is off, for a variable of its registration is undefined.
    #[error("the provider is not configured")]
    ProviderOff,
    /// The token that is to be exchanged for this one (RFC 8693) cannot be had of its own provider.
    #[error("the token to exchange, of `{provider}`: {error}")]
    Source { provider: Arc<str>, error: Box<KeeperError> },
}

/// Keeps every connection's token fresh. One a process, shared.
pub struct Keeper {
    pub(super) records: Records,
    pub(super) client: TokenClient,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) table: Table,
    pub(super) gates: Gates,
    control: Handle,
    pub(super) events: Events,
    pub(super) desk: Arc<Desk>,
    max_stale: OnceLock<Duration>,
    started: Instant,
    /// How many flights are in the air.
    flights: watch::Sender<usize>,
}

/// `store.max_stale`'s default.
const MAX_STALE: Duration = Duration::from_secs(60);

/// What came of asking for a flight.
enum Boarding {
    Answer(Outcome),
    Flight {
        landing: Landing,
        own: bool,
    },
    /// The slot left the table meanwhile: find it anew.
    Detached,
}

impl Keeper {
    /// The wall clock that tokens are judged by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Flights and the watch over the store run on `control`, whatever runtime the calls are on.
    pub fn new(records: Records, client: TokenClient, clock: Arc<dyn Clock>, control: Handle) -> Arc<Keeper> {
        let desk = Desk::new(Arc::clone(&clock));
        Keeper::telling(records, client, clock, control, Events::default(), desk)
    }

    /// The same, counting its refreshes where a scrape reads them and telling of connections by this desk.
    pub fn telling(
        records: Records,
        client: TokenClient,
        clock: Arc<dyn Clock>,
        control: Handle,
        events: Events,
        desk: Arc<Desk>,
    ) -> Arc<Keeper> {
        let changes = records.watch();
        let keeper = Arc::new(Keeper {
            records,
            client,
            clock,
            table: Table::default(),
            gates: Gates::default(),
            control,
            events,
            desk,
            max_stale: OnceLock::new(),
            started: Instant::now(),
            flights: watch::Sender::new(0),
        });
        keeper.follow(changes);
        keeper
    }

    pub(super) fn control(&self) -> &Handle {
        &self.control
    }

    /// How long a token that may have been changed elsewhere is served while the store is out of reach (`store.max_stale`). Said once.
    pub fn set_max_stale(&self, max_stale: Duration) {
        let _ = self.max_stale.set(max_stale);
    }

    pub(super) fn max_stale(&self) -> Duration {
        self.max_stale.get().copied().unwrap_or(MAX_STALE)
    }

    /// Where notices are begun.
    pub fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// The counters of what happens to connections.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The hot path: no await, no lock, no store. `None`: call [`Keeper::credential`]. A token within its margin is given out, and its
    /// refresh begun in the background.
    pub fn fresh(self: &Arc<Self>, reg: &Arc<Registration>, key: ConnectionKeyRef<'_>) -> Option<Arc<Token>> {
        if reg.off.is_some() {
            return None;
        }
        let slots = self.table.slots.pin();
        let slot = slots.get(&key)?;
        let token = slot.token.load_full()?;
        let (now, steady) = (self.clock.now(), Instant::now());
        match token.schedule.at(now, steady) {
            Phase::Fresh => {}
            Phase::Near => self.begin_ahead(reg, key, slot, steady),
            Phase::Expired => return None,
        }
        slot.used(now);
        Some(token)
    }

    /// A usable token, waiting for whatever that takes: a look-up, or a refresh.
    ///
    /// # Errors
    /// When there is none; a refresh that failed in passing is an error only if no valid token is left.
    pub async fn credential(self: &Arc<Self>, reg: &Arc<Registration>, key: ConnectionKeyRef<'_>) -> Result<Arc<Token>, KeeperError> {
        if reg.off.is_some() {
            return Err(KeeperError::ProviderOff);
        }
        if let Some(token) = self.fresh(reg, key) {
            return Ok(token);
        }
        if let Some(error) = self.table.missed(key) {
            return Err(error);
        }
        let (_, outcome) = self.fly(reg, key, &Want::Usable).await;
        if outcome.is_ok()
            && let Some(slot) = self.table.find(key)
        {
            slot.used(self.clock.now());
        }
        outcome
    }

    /// The upstream answered 401 to this token. `Some`: a newer one to replay the call with; `None`: the 401 passes on. At most one forced
    /// refresh per connection and `refresh.min_age`.
    pub async fn rejected(self: &Arc<Self>, reg: &Arc<Registration>, key: ConnectionKeyRef<'_>, used: &Arc<Token>) -> Option<Arc<Token>> {
        if reg.off.is_some() {
            return None;
        }
        let now = self.clock.now();
        let current = self.table.find(key).and_then(|slot| slot.token.load_full());
        if let Some(current) = current
            && current.is_other_than(used)
            && current.phase(now) != Phase::Expired
        {
            return Some(current);
        }
        if used.age(now) < reg.refresh.min_age {
            return None;
        }
        // A flight that was under way may have been a look-up only: then there is one try more.
        for _ in 0..2 {
            let (own, outcome) = self.fly(reg, key, &Want::Forced { used: Arc::clone(used) }).await;
            match outcome {
                Ok(token) if token.is_other_than(used) => return Some(token),
                Ok(_) if !own => {}
                Ok(_) | Err(_) => return None,
            }
        }
        None
    }

    /// A refresh that an operator asks for: also of a token that is fresh, of a grant that was refused before, and in a wait between tries.
    ///
    /// # Errors
    /// When there is no new token, though the old one may still be valid.
    pub async fn refresh_now(self: &Arc<Self>, reg: &Arc<Registration>, key: ConnectionKeyRef<'_>) -> Result<Arc<Token>, KeeperError> {
        if reg.off.is_some() {
            return Err(KeeperError::ProviderOff);
        }
        let (own, outcome) = self.fly(reg, key, &Want::Now).await;
        if own { outcome } else { self.fly(reg, key, &Want::Now).await.1 }
    }

    /// To be called after a write to the connection's record by this process (connect, import, delete), so that it is in force for the very
    /// next call; other processes' writes are learnt from the store's watch.
    pub fn forget(&self, key: ConnectionKeyRef<'_>) {
        self.table.note(key, None);
    }

    /// When a call was last given this connection's token by this process; the record learns it with its next write.
    pub fn last_used(&self, key: ConnectionKeyRef<'_>) -> Option<UnixMillis> {
        let at = self.table.find(key)?.last_used.load(Ordering::Relaxed);
        (at != 0).then_some(UnixMillis(at))
    }

    /// Waits for the flights in the air, so that no rotated token is lost at shutdown.
    pub async fn drain(&self, within: Duration) {
        let mut flights = self.flights.subscribe();
        if tokio::time::timeout(within, flights.wait_for(|count| *count == 0)).await.is_err() {
            let left = *self.flights.borrow();
            tracing::warn!(refresh.left = left, "token calls were still in flight at the end of the drain: their intents stay on disk");
        }
    }

    /// Whether no flight is in the air.
    pub fn is_idle(&self) -> bool {
        *self.flights.borrow() == 0
    }

    pub(super) fn steady_millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX - 1)
    }

    /// Begins one background refresh, unless one is under way or a wait between tries is on.
    fn begin_ahead(self: &Arc<Self>, reg: &Arc<Registration>, key: ConnectionKeyRef<'_>, slot: &Arc<Slot>, steady: Instant) {
        let from = slot.ahead_from.load(Ordering::Relaxed);
        if self.steady_millis(steady) < from {
            return;
        }
        if slot.ahead_from.compare_exchange(from, u64::MAX, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let ahead = Ahead { keeper: Arc::clone(self), slot: Arc::clone(slot), gate: self.gates.of(&reg.id) };
        let (reg, key) = (Arc::clone(reg), key.to_owned());
        self.control.spawn(async move {
            // The semaphore is never closed; if it were, refreshing without its limit is the lesser evil.
            let _permit = ahead.gate.ahead.acquire().await;
            let _ = ahead.keeper.fly(&reg, key.borrow(), &Want::Ahead).await;
        });
    }

    /// Joins the connection's flight or begins one. Whether it was begun for this want, and what came of it.
    pub(super) async fn fly(self: &Arc<Self>, reg: &Arc<Registration>, key: ConnectionKeyRef<'_>, want: &Want) -> (bool, Outcome) {
        let (mut landing, own) = loop {
            let slot = self.table.slot(key);
            match self.board(reg, key, &slot, want) {
                Boarding::Answer(outcome) => return (true, outcome),
                Boarding::Flight { landing, own } => break (landing, own),
                Boarding::Detached => {}
            }
        };
        let landed = landing.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        // A flight that ends without an outcome panicked, or its runtime went down.
        (own, landed.unwrap_or(Err(KeeperError::RefreshFailed { retry_after: None })))
    }

    fn board(self: &Arc<Self>, reg: &Arc<Registration>, key: ConnectionKeyRef<'_>, slot: &Arc<Slot>, want: &Want) -> Boarding {
        let mut state = slot.state();
        if state.detached {
            return Boarding::Detached;
        }
        if let Some(landing) = &state.flight {
            return Boarding::Flight { landing: landing.clone(), own: false };
        }
        let (now, steady) = (self.clock.now(), Instant::now());
        let shown = slot.token.load_full();
        // A flight that ended since the caller looked left a miss, which was there before this slot was.
        if shown.is_none()
            && !state.ended
            && state.unsaved.is_none()
            && !want.is_for_new()
            && let Some(error) = self.table.missed(key)
        {
            self.table.vacate(key, slot, &mut state);
            return Boarding::Answer(Err(error));
        }
        match want {
            Want::Usable => match shown {
                Some(token) if token.phase(now) != Phase::Expired => return Boarding::Answer(Ok(token)),
                Some(_) => {
                    if let Some(wait) = state.not_before.filter(|until| *until > steady).map(|until| until - steady) {
                        return Boarding::Answer(Err(KeeperError::RefreshFailed { retry_after: Some(wait) }));
                    }
                    // Here already, so that calls on expired tokens do not each ask the store while the endpoint is out.
                    if let Some(wait) = self.gates.of(&reg.id).outage.wait() {
                        return Boarding::Answer(Err(KeeperError::RefreshFailed { retry_after: Some(wait) }));
                    }
                }
                None if state.ended && Means::of(reg, key).is_none() => return Boarding::Answer(Err(KeeperError::ReconnectRequired)),
                None => {}
            },
            Want::Forced { used } => {
                if let Some(token) = shown.filter(|token| token.is_other_than(used) && token.phase(now) != Phase::Expired) {
                    return Boarding::Answer(Ok(token));
                }
                if state.forced_at.is_some_and(|at| at.elapsed() < reg.refresh.min_age) {
                    return Boarding::Answer(Ok(Arc::clone(used)));
                }
                state.forced_at = Some(steady);
            }
            Want::Ahead | Want::Due { .. } | Want::Now | Want::Resolve => {}
        }
        let (tell, landing) = watch::channel(None);
        state.flight = Some(landing.clone());
        drop(state);
        self.flights.send_modify(|count| *count += 1);
        let aloft = Aloft { keeper: Arc::clone(self), slot: Arc::clone(slot) };
        let flight = Flight::new(Arc::clone(self), Arc::clone(reg), key.to_owned(), Arc::clone(slot), want.clone());
        self.control.spawn(async move {
            let outcome = flight.run().await;
            // Taken off before it is told: who comes now begins anew and finds what this flight left.
            drop(aloft);
            let _ = tell.send(Some(outcome));
        });
        Boarding::Flight { landing, own: true }
    }

    /// Follows the store's changes for as long as the keeper lives.
    fn follow(self: &Arc<Self>, mut changes: tokio::sync::broadcast::Receiver<Change>) {
        let keeper = Arc::downgrade(self);
        self.control.spawn(async move {
            loop {
                let change = changes.recv().await;
                let Some(keeper) = keeper.upgrade() else { return };
                match change {
                    Ok(Change { kind: Kind::Connection, key, version }) => match ConnectionKey::from_bytes(&key) {
                        Some(key) => keeper.table.note(key.borrow(), version),
                        None => keeper.table.forget_all(),
                    },
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => keeper.table.forget_all(),
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("flights", &*self.flights.borrow()).finish_non_exhaustive()
    }
}

/// A flight in the air; dropped when it ends, also by a panic or with its runtime.
struct Aloft {
    keeper: Arc<Keeper>,
    slot: Arc<Slot>,
}

impl Drop for Aloft {
    fn drop(&mut self) {
        self.slot.state().flight = None;
        self.keeper.flights.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// A background refresh under way; at its end the next may begin, after the wait that a failure left, of the connection or of the endpoint.
struct Ahead {
    keeper: Arc<Keeper>,
    slot: Arc<Slot>,
    gate: Arc<Gate>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let out_until = self.gate.outage.wait().map(|wait| Instant::now() + wait);
        let until = self.slot.state().not_before.max(out_until);
        let from = until.map_or(0, |until| self.keeper.steady_millis(until));
        self.slot.ahead_from.store(from, Ordering::Relaxed);
    }
}
