//! The prepared table: what the hot path reads, and the rules by which a slot may be filled and must be emptied.

use super::keeper::{KeeperError, Token};
use crate::attach::dpop::Nonces;
use crate::base::clock::UnixMillis;
use crate::base::ids::{ConnectionKey, ConnectionKeyRef};
use crate::base::secret::Secret;
use crate::oauth::Grant;
use arc_swap::ArcSwapOption;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long "no such connection" is believed, and how many misses are remembered at most (THREATS row 45).
const MISS_BELIEVED: Duration = Duration::from_secs(1);
const MISSES_MAX: usize = 10_000;

/// Why a key has no token though it has no record to say so, and until when that is believed.
#[derive(Debug, Clone)]
pub(super) struct Miss {
    error: KeeperError,
    until: Instant,
    /// Mints that failed in a row.
    failures: u32,
}

impl Miss {
    pub(super) fn not_connected() -> Self {
        Miss { error: KeeperError::NotConnected, until: Instant::now() + MISS_BELIEVED, failures: 0 }
    }

    /// The first token could not be minted: none is asked for until the wait is over.
    pub(super) fn unminted(failures: u32, wait: Duration) -> Self {
        Miss { error: KeeperError::RefreshFailed { retry_after: Some(wait) }, until: Instant::now() + wait, failures }
    }

    /// It was minted and could not be kept: no other is asked for until the store had a moment.
    pub(super) fn unkept() -> Self {
        Miss { error: KeeperError::StoreUnavailable, until: Instant::now() + MISS_BELIEVED, failures: 0 }
    }

    /// Said of one call, and not believed of the next: what is missing is not this key's to remember.
    pub(super) fn in_passing(error: KeeperError) -> Self {
        Miss { error, until: Instant::now(), failures: 0 }
    }

    pub(super) fn error(&self) -> KeeperError {
        match &self.error {
            KeeperError::RefreshFailed { .. } => {
                KeeperError::RefreshFailed { retry_after: Some(self.until.saturating_duration_since(Instant::now())) }
            }
            error => error.clone(),
        }
    }
}

pub(super) type Outcome = Result<Arc<Token>, KeeperError>;
pub(super) type Landing = watch::Receiver<Option<Outcome>>;

/// A grant that the provider gave and the store did not take: kept here, for the refresh token it replaced is spent.
#[derive(Debug)]
pub(super) struct Rotation {
    pub(super) grant: Grant,
    /// The connection and the refresh token that it replaces.
    pub(super) id: Box<str>,
    pub(super) sent: Secret,
    /// The connection's values, for the case that its record is gone when the answer comes.
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) began: UnixMillis,
    pub(super) took: Duration,
}

/// One connection's place.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) token: ArcSwapOption<Token>,
    /// Unix milliseconds of the last call that was given the token; 0 is never.
    pub(super) last_used: AtomicI64,
    /// Milliseconds since the keeper's start before which no background refresh begins; `u64::MAX` while one is under way.
    pub(super) ahead_from: AtomicU64,
    /// Of the token that was shown before: the servers are the same, and without their nonces the next call would be sent twice.
    nonces: Nonces,
    state: Mutex<SlotState>,
}

#[derive(Debug, Default)]
pub(super) struct SlotState {
    pub(super) flight: Option<Landing>,
    /// Out of the table: nothing may begin here any more.
    pub(super) detached: bool,
    /// Moves with each change told from outside; what was read before such a change is not published after it.
    epoch: u64,
    /// The last change told: its version, or a deletion.
    told: Option<Option<u64>>,
    /// The record version that this slot shows; 0 is none.
    shown: u64,
    /// The record says that the grant is dead: no call needs to ask the store again.
    pub(super) ended: bool,
    pub(super) not_before: Option<Instant>,
    pub(super) forced_at: Option<Instant>,
    pub(super) unsaved: Option<Rotation>,
    /// The token that was shown when changes were missed, and since when it is doubted: it serves while the store cannot be asked.
    pub(super) doubted: Option<(Arc<Token>, Instant)>,
    /// When a token call began whose answer was lost, after which none has settled what became of it: the provider may have rotated the token.
    pub(super) unanswered: Option<UnixMillis>,
    /// The refresh token's end that the log has told.
    pub(super) told_end: Option<UnixMillis>,
}

impl SlotState {
    /// Whether what was read at `epoch` is still the newest known: no change was told since, or just this very one.
    fn still(&self, epoch: u64, version: u64) -> bool {
        self.epoch == epoch || self.told == Some(Some(version))
    }
}

impl Slot {
    /// Held for a few assignments, never across an await.
    pub(super) fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stamps the last use, once a second at most: calls on many threads would fight over the cache line for nothing.
    pub(super) fn used(&self, now: UnixMillis) {
        if (now.0.wrapping_sub(self.last_used.load(Ordering::Relaxed))).unsigned_abs() >= 1000 {
            self.last_used.store(now.0, Ordering::Relaxed);
        }
    }

    fn keep_nonces(&self, before: Option<Arc<Token>>) {
        if let Some(before) = before {
            self.nonces.follow(before.prepared.nonces());
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.state().epoch
    }

    /// Shows the token, unless its record was changed since `epoch`: false, then read again.
    #[must_use]
    pub(super) fn publish(&self, token: &Arc<Token>, epoch: u64) -> bool {
        let mut state = self.state();
        if !state.still(epoch, token.version) {
            return false;
        }
        (state.shown, state.ended, state.doubted) = (token.version, false, None);
        self.keep_nonces(self.token.swap(Some(Arc::clone(token))));
        token.prepared.nonces().adopt(&self.nonces);
        true
    }

    /// Shows that the grant is dead, under the same condition.
    #[must_use]
    pub(super) fn end(&self, version: u64, epoch: u64) -> bool {
        let mut state = self.state();
        if !state.still(epoch, version) {
            return false;
        }
        (state.shown, state.ended, state.doubted) = (version, true, None);
        self.token.store(None);
        true
    }

    /// The record was changed (`None`: deleted, or unknown how). Our own writes, shown already, come by here too and change nothing.
    fn note(&self, version: Option<u64>) {
        let mut state = self.state();
        if version.is_some_and(|version| version <= state.shown) {
            return;
        }
        state.epoch += 1;
        state.told = Some(version);
        (state.shown, state.ended, state.not_before, state.doubted) = (0, false, None, None);
        // A write of our own is told here before its token is shown.
        self.keep_nonces(self.token.swap(None));
        // An end to the wait between background refreshes; one that is under way sets its own.
        let _ = self.ahead_from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |from| (from != u64::MAX).then_some(0));
    }
}

impl Slot {
    /// Changes may have been missed: the store is asked before this token is given out again, and it serves only while the store is out of reach.
    /// The first doubt counts.
    fn doubt(&self, since: Instant) {
        let shown = self.token.load_full();
        let before = self.state().doubted.take();
        self.note(None);
        self.state().doubted = before.or_else(|| shown.map(|token| (token, since)));
    }
}

/// All slots, and the misses. Lookups by [`ConnectionKeyRef`] allocate nothing.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) slots: papaya::HashMap<ConnectionKey, Arc<Slot>>,
    misses: papaya::HashMap<ConnectionKey, Miss>,
}

impl Table {
    pub(super) fn slot(&self, key: ConnectionKeyRef<'_>) -> Arc<Slot> {
        let slots = self.slots.pin();
        match slots.get(&key) {
            Some(slot) => Arc::clone(slot),
            None => Arc::clone(slots.get_or_insert_with(key.to_owned(), Arc::default)),
        }
    }

    pub(super) fn find(&self, key: ConnectionKeyRef<'_>) -> Option<Arc<Slot>> {
        self.slots.pin().get(&key).map(Arc::clone)
    }

    /// The store had no usable record at `epoch`, and none came about. Takes the slot out, so that keys without a record cost no memory, and
    /// believes the miss for its time; false if a change came since.
    #[must_use]
    pub(super) fn miss(&self, key: &ConnectionKey, slot: &Arc<Slot>, epoch: u64, miss: Miss) -> bool {
        let mut state = slot.state();
        if state.epoch != epoch {
            return false;
        }
        let misses = self.misses.pin();
        if misses.len() >= MISSES_MAX {
            // The apps' own stay: they are no more than the config has providers, and names made up by a client must not end their waits.
            misses.retain(|key, _| key.is_app());
        }
        if miss.until > Instant::now() {
            // Believed before the slot goes: whoever tells of a change meets either the slot or the miss.
            misses.insert(key.clone(), miss);
        }
        self.detach(key, slot, &mut state);
        true
    }

    /// Why the key has no token, if that was found out a moment ago.
    pub(super) fn missed(&self, key: ConnectionKeyRef<'_>) -> Option<KeeperError> {
        self.misses.pin().get(&key).filter(|miss| miss.until > Instant::now()).map(Miss::error)
    }

    /// How many mints have failed in a row, as far as that is remembered.
    pub(super) fn unminted(&self, key: ConnectionKeyRef<'_>) -> u32 {
        self.misses.pin().get(&key).map_or(0, |miss| miss.failures)
    }

    /// Takes out a slot in which nothing is, held by its state.
    pub(super) fn vacate(&self, key: ConnectionKeyRef<'_>, slot: &Arc<Slot>, state: &mut SlotState) {
        self.detach(&key.to_owned(), slot, state);
    }

    /// A record was changed: by another replica, the admin API, a connect, or ourselves.
    pub(super) fn note(&self, key: ConnectionKeyRef<'_>, version: Option<u64>) {
        if let Some(slot) = self.find(key) {
            slot.note(version);
            let mut state = slot.state();
            // A deleted connection's slot goes, but not from under a flight, which then finds the record gone by itself.
            if version.is_none() && state.told == Some(None) && state.flight.is_none() && state.unsaved.is_none() {
                self.detach(&key.to_owned(), &slot, &mut state);
            }
        }
        self.misses.pin().remove(&key);
    }

    /// Nothing that is shown can be trusted: changes were missed.
    pub(super) fn forget_all(&self) {
        let since = Instant::now();
        for slot in self.slots.pin().values() {
            slot.doubt(since);
        }
        self.misses.pin().clear();
    }

    fn detach(&self, key: &ConnectionKey, slot: &Arc<Slot>, state: &mut SlotState) {
        state.detached = true;
        slot.token.store(None);
        // An error says that another slot stands there by now, which is as good.
        let _ = self.slots.pin().remove_if(key, |_, there| Arc::ptr_eq(there, slot));
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.slots.pin().len(), self.misses.pin().len())
    }
}
