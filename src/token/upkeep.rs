//! Refreshes that no call begins: of registrations with `refresh.ahead: true`, whose tokens are to be fresh before anyone asks, and with
//! `keep_alive`, whose grants die of disuse.
//!
//! A schedule in memory says when each connection is due. It is read from the store at the start, when the config changes and when changes were
//! missed, and follows the store's watch in between. What is due is looked at once more before it is refreshed, by a flight like a call's; the
//! limits, waits and circuits of those hold. Where no registration wants any of this, nothing is read and nothing followed.

use super::keeper::Keeper;
use super::mint::Means;
use super::refresh::Want;
use super::resolve::Registrations;
use super::schedule;
use crate::base::backoff::spread;
use crate::base::clock::UnixMillis;
use crate::base::ids::ConnectionKey;
use crate::provider::{Registration, RenewBy};
use crate::store::{Change, Connection, Kind, State, StoreError};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Connections that are looked at or refreshed at once, over all providers; each provider's own limit is lower.
const AT_ONCE: usize = 256;

const PAGE: usize = 1_000;

/// What was overdue when the schedule was read is spread over so long for each, and over so long at most.
const OVERDUE_EACH: Duration = Duration::from_millis(20);
const OVERDUE_MOST: Duration = Duration::from_secs(60);

/// After a change a record is read so much later, spread by as much again: several changes of one are read once.
const SETTLES: Duration = Duration::from_secs(1);

/// What could not be refreshed is looked at again no sooner.
const AGAIN: Duration = Duration::from_secs(30);

/// A grant is not renewed sooner after it was, however short its tokens live: ahead of calls is no reason to ask all the time.
const LEAST: Duration = Duration::from_secs(5);

/// How long the schedule is kept before it is read anew because changes were missed.
const REREAD: Duration = Duration::from_secs(10);

/// No sleep is longer: a moment that is too far for the clock is none.
const FAR: Duration = Duration::from_secs(366 * 24 * 3600);

impl Keeper {
    /// Keeps tokens and grants fresh until it is dropped; refreshes that it has begun go on. `generations` moves when the config changes.
    pub async fn upkeep(self: Arc<Self>, registrations: impl Fn() -> Registrations, mut generations: watch::Receiver<u64>) {
        loop {
            generations.mark_unchanged();
            let mut wanted = registrations();
            wanted.retain(|_, reg| reg.off.is_none() && (reg.refresh.ahead || reg.keep_alive.is_some()));
            let changed = if wanted.is_empty() {
                generations.changed().await
            } else {
                Upkeep::new(Arc::clone(&self), wanted).run(&mut generations).await
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

/// When a connection is due, and on which grant that was reckoned. `None`: its record is to be read first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Instant,
    of: Option<UnixMillis>,
}

/// What came of looking at one.
type Looked = (ConnectionKey, Option<Entry>);

struct Upkeep {
    keeper: Arc<Keeper>,
    wanted: Registrations,
    entries: HashMap<ConnectionKey, Entry>,
    queue: BTreeSet<(Instant, ConnectionKey)>,
    tasks: JoinSet<Looked>,
}

impl Upkeep {
    fn new(keeper: Arc<Keeper>, wanted: Registrations) -> Self {
        Upkeep { keeper, wanted, entries: HashMap::new(), queue: BTreeSet::new(), tasks: JoinSet::new() }
    }

    /// Until the config changes.
    async fn run(mut self, generations: &mut watch::Receiver<u64>) -> Result<(), watch::error::RecvError> {
        // From before the store is read, so that nothing falls between.
        let mut changes = self.keeper.records.watch();
        let mut reread_at = Some(Instant::now());
        loop {
            if reread_at.is_some_and(|at| at <= Instant::now()) {
                reread_at = match self.read().await {
                    Ok(()) => None,
                    Err(error) => {
                        tracing::warn!(error = %error, "the connections to refresh ahead of calls could not be read");
                        Some(Instant::now() + AGAIN)
                    }
                };
            }
            let next = self.queue.first().map(|(at, _)| *at).filter(|_| self.tasks.len() < AT_ONCE);
            let next = next.into_iter().chain(reread_at).min().unwrap_or_else(|| Instant::now() + FAR);
            // Losing any arm is safe: what is due stays in the queue, and the others keep what they have for the next turn.
            tokio::select! {
                changed = generations.changed() => return changed,
                change = changes.recv() => match change {
                    Ok(change) => self.note(change),
                    Err(RecvError::Lagged(_)) => reread_at = reread_at.or(Some(Instant::now() + REREAD)),
                    // The store is closing.
                    Err(RecvError::Closed) => return generations.changed().await,
                },
                Some(looked) = self.tasks.join_next() => if let Ok((key, entry)) = looked { self.looked(key, entry) },
                () = sleep_until(next) => self.begin_due(),
            }
        }
    }

    /// Reads the whole schedule anew.
    async fn read(&mut self) -> Result<(), StoreError> {
        let (mut found, mut overdue) = (Vec::new(), 0_u32);
        for reg in self.wanted.values() {
            let mut after = None;
            loop {
                let page = self.keeper.records.connections(Some(&reg.id), after.as_ref(), PAGE).await?;
                let (now, steady) = (self.keeper.clock.now(), Instant::now());
                let is_last = page.len() < PAGE;
                after = page.last().map(|keyed| keyed.record.key.clone());
                for keyed in page {
                    if let Some(entry) = entry(reg, &keyed.record, now, steady) {
                        overdue += u32::from(entry.at <= steady);
                        found.push((keyed.record.key, entry));
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        self.entries.clear();
        self.queue.clear();
        let over = OVERDUE_EACH.saturating_mul(overdue).min(OVERDUE_MOST);
        let steady = Instant::now();
        for (key, mut entry) in found {
            if entry.at <= steady {
                entry.at = steady + spread(over);
            }
            self.put(key, entry);
        }
        tracing::debug!(connections = self.entries.len(), overdue, "the connections to refresh ahead of calls are known");
        Ok(())
    }

    fn put(&mut self, key: ConnectionKey, entry: Entry) {
        self.take(&key);
        self.queue.insert((entry.at, key.clone()));
        self.entries.insert(key, entry);
    }

    fn take(&mut self, key: &ConnectionKey) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.queue.remove(&(entry.at, key.clone()));
        Some(entry)
    }

    fn note(&mut self, change: Change) {
        let Change { kind: Kind::Connection, key, version } = change else { return };
        let Some(key) = ConnectionKey::from_bytes(&key).filter(|key| self.wanted.contains_key(&*key.provider)) else { return };
        match version {
            Some(_) => self.put(key, Entry { at: Instant::now() + SETTLES + spread(SETTLES), of: None }),
            None => drop(self.take(&key)),
        }
    }

    fn looked(&mut self, key: ConnectionKey, entry: Option<Entry>) {
        // A change that came meanwhile has it read anew anyway.
        if let Some(entry) = entry.filter(|_| !self.entries.contains_key(&key)) {
            self.put(key, entry);
        }
    }

    fn begin_due(&mut self) {
        let now = Instant::now();
        while self.tasks.len() < AT_ONCE {
            let Some(key) = self.queue.first().filter(|(at, _)| *at <= now).map(|(_, key)| key.clone()) else { return };
            let Some(entry) = self.take(&key) else { return };
            let Some(reg) = self.wanted.get(&*key.provider) else { continue };
            let gate = self.keeper.gates.of(&reg.id);
            let permit = match Arc::clone(&gate.ahead).try_acquire_owned() {
                Ok(permit) => permit,
                // Spread, so that those that wait for a place do not all ask for it again in one moment.
                Err(_) => {
                    self.put(key, Entry { at: now + SETTLES + spread(4 * SETTLES), ..entry });
                    continue;
                }
            };
            if let Some(wait) = gate.outage.wait() {
                self.put(key, Entry { at: now + wait + spread(wait.max(SETTLES)), ..entry });
                continue;
            }
            self.tasks.spawn(look(Arc::clone(&self.keeper), Arc::clone(reg), key, entry, permit));
        }
    }
}

/// Reads the record, refreshes it if it is due, and says when it is due next.
async fn look(keeper: Arc<Keeper>, reg: Arc<Registration>, key: ConnectionKey, was: Entry, permit: OwnedSemaphorePermit) -> Looked {
    let retry = || Entry { at: Instant::now() + AGAIN + spread(AGAIN), of: None };
    let Ok(next) = next(&keeper, &reg, &key).await else { return (key, Some(retry())) };
    let Some(due) = next else { return (key, None) };
    // By the clock that is never set, which reckoned this moment for this very grant; or by the wall clock.
    let is_due = due.at <= Instant::now() || (was.of.is_some() && was.of == due.of);
    let Some(of) = due.of.filter(|_| is_due) else { return (key, Some(due)) };
    let (_, outcome) = keeper.fly(&reg, key.borrow(), &Want::Due { of }).await;
    drop(permit);
    if let Err(error) = outcome {
        tracing::debug!(provider.id = %reg.id, error = %error, "a refresh ahead of calls came to nothing");
    }
    match self::next(&keeper, &reg, &key).await {
        // Not renewed, and no wait on record: what stopped it was no answer of the provider's.
        Ok(Some(after)) if after.at <= Instant::now() => (key, Some(retry())),
        Ok(after) => (key, after),
        Err(_) => (key, Some(retry())),
    }
}

async fn next(keeper: &Keeper, reg: &Registration, key: &ConnectionKey) -> Result<Option<Entry>, StoreError> {
    let keyed = keeper.records.connection(key).await?;
    Ok(keyed.and_then(|keyed| entry(reg, &keyed.record, keeper.clock.now(), Instant::now())))
}

/// When this connection is due by what its registration wants; `None` where that is never.
fn entry(reg: &Registration, record: &Connection, now: UnixMillis, steady: Instant) -> Option<Entry> {
    if record.state != State::Active {
        return None;
    }
    let minted = Means::of(reg, record.key.borrow()).is_some();
    let by_itself = reg.dialect.renewal.by == RenewBy::AccessToken;
    if !minted && !by_itself && record.refresh_token.is_none() {
        return None;
    }
    // One that renews itself only does while it is valid (Q49).
    if by_itself && !minted && record.expires_at.is_some_and(|end| end <= now) {
        return None;
    }
    let ahead = reg.refresh.ahead.then(|| schedule::near(reg, record)).flatten();
    // Earlier by up to a tenth, so that grants that were made together are not all renewed together. A minted token is no grant.
    let alive = reg.keep_alive.filter(|_| !minted).map(|span| record.obtained_at.plus(span - spread(span / 10)));
    let due = ahead.into_iter().chain(alive).min()?.max(record.obtained_at.plus(LEAST));
    // A record from the future was written before the clock was set back: its wait says nothing.
    let wait = record.refresh_not_before.filter(|_| record.updated_at <= now);
    let due = wait.map_or(due, |wait| due.max(wait));
    Some(Entry { at: steady + due.since(now).min(FAR), of: Some(record.obtained_at) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::tests::{START, registration};
    use crate::token::tests::connection;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// How long after `START` it is due, within these seconds.
    fn check(change: impl FnOnce(&mut Registration, &mut Connection), expected: Option<(u64, u64)>) {
        let (mut reg, mut record) = (registration("http://127.0.0.1:1"), connection());
        change(&mut reg, &mut record);
        let steady = Instant::now();
        let due = entry(&reg, &record, START, steady).map(|entry| entry.at - steady);
        match (due, expected) {
            (None, None) => {}
            (Some(due), Some((least, most))) if (secs(least)..=secs(most)).contains(&due) => {}
            _ => panic!("{due:?} is not {expected:?}"),
        }
    }

    #[test]
    fn due_by_what_the_registration_wants() {
        let week = 7 * DAY.as_secs();
        check(|_, _| {}, None);
        check(|reg, _| reg.refresh.ahead = true, Some((3270, 3300)));
        check(|reg, _| reg.keep_alive = Some(7 * DAY), Some((week * 9 / 10, week)));
        check(|reg, _| (reg.refresh.ahead, reg.keep_alive) = (true, Some(7 * DAY)), Some((3270, 3300)));
        let endless = |reg: &mut Registration, record: &mut Connection| (reg.refresh.ahead, record.expires_at) = (true, None);
        check(endless, None);
        check(|reg, _| reg.keep_alive = Some(Duration::ZERO), Some((5, 5)));
        check(
            |reg, record| {
                endless(reg, record);
                reg.keep_alive = Some(7 * DAY);
            },
            Some((week * 9 / 10, week)),
        );
    }

    #[test]
    fn what_nobody_or_only_the_end_user_can_renew_is_never_due() {
        for change in [
            (|record| record.state = State::Pending) as fn(&mut Connection),
            |record| record.state = State::ReconnectRequired,
            |record| record.state = State::Expired,
            |record| record.refresh_token = None,
        ] {
            check(
                |reg, record| {
                    (reg.refresh.ahead, reg.keep_alive) = (true, Some(DAY));
                    change(record);
                },
                None,
            );
        }
        // A token that renews itself does so while it is valid, and with no refresh token on record.
        for (end, expected) in [(START.minus(secs(1)), None), (START.plus(secs(3600)), Some((2800, 2880)))] {
            check(
                |reg, record| {
                    reg.refresh.ahead = true;
                    reg.dialect.renewal.by = RenewBy::AccessToken;
                    (record.refresh_token, record.expires_at) = (None, Some(end));
                },
                expected,
            );
        }
    }

    #[test]
    fn a_wait_on_record_is_waited_for() {
        let until = |wait: UnixMillis, written: UnixMillis, expected: (u64, u64)| {
            check(
                |reg, record| {
                    reg.refresh.ahead = true;
                    (record.obtained_at, record.expires_at) = (START.minus(secs(3600)), Some(START));
                    (record.refresh_not_before, record.updated_at) = (Some(wait), written);
                },
                Some(expected),
            );
        };
        until(START.plus(secs(60)), START, (60, 60));
        until(START.minus(secs(60)), START, (0, 0));
        until(START.plus(secs(60)), START.plus(secs(1)), (0, 0));
    }
}
