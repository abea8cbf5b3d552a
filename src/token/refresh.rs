//! The flight: one at a time a connection, spawned, never cancelled by who waits for it. It reads, decides, and calls the token endpoint.

use super::failpoint::{Step, reach};
use super::keeper::{Keeper, KeeperError, Token};
use super::lease::Leave;
use super::mint::Means;
use super::outage::Pass;
use super::schedule::Phase;
use super::settle::Settled;
use super::table::{Miss, Outcome, Rotation, Slot};
use crate::base::clock::UnixMillis;
use crate::base::ids::ConnectionKey;
use crate::base::secret::Secret;
use crate::metrics::Refreshed;
use crate::oauth::{Grant, TokenError, Values, Verdict};
use crate::provider::{EndpointUrl, Registration, RenewBy};
use crate::store::{Connection, Expect, Intent, Keyed, State, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// How often a flight reads anew because the record was changed under it.
const ROUNDS_MAX: usize = 8;

/// A wait between tries that is longer than any we write comes of a clock that was set.
const WAIT_MAX: Duration = Duration::from_secs(2 * 3600);

/// What a flight was begun for.
#[derive(Debug, Clone)]
pub(super) enum Want {
    /// A token that is valid now.
    Usable,
    /// One past its margin, before its end; the old one does if that fails.
    Ahead,
    /// One newer than the grant of then, though the token may be fresh; the old one does if that fails.
    Due { of: UnixMillis },
    /// One other than this, which an upstream refused.
    Forced { used: Arc<Token> },
    /// A new one, because the operator says so.
    Now,
    /// A new one, to learn what became of a call that a crash cut off; not before the waits on record.
    Resolve,
}

impl Want {
    /// Whether nothing less than a token newer than the record's will do.
    pub(super) fn is_for_new(&self) -> bool {
        matches!(self, Want::Now | Want::Resolve)
    }
}

/// What one reading of the record led to.
pub(super) enum Round {
    Done(Outcome),
    /// The record was changed meanwhile: read it anew.
    Again,
}

pub(super) struct Flight {
    pub(super) keeper: Arc<Keeper>,
    pub(super) reg: Arc<Registration>,
    pub(super) key: ConnectionKey,
    pub(super) slot: Arc<Slot>,
    pub(super) want: Want,
    /// The provider's leave to make one call; kept over rounds.
    permit: Option<OwnedSemaphorePermit>,
}

impl Flight {
    pub(super) fn new(keeper: Arc<Keeper>, reg: Arc<Registration>, key: ConnectionKey, slot: Arc<Slot>, want: Want) -> Self {
        Flight { keeper, reg, key, slot, want, permit: None }
    }

    pub(super) async fn run(mut self) -> Outcome {
        for _ in 0..ROUNDS_MAX {
            // Taken by a statement of its own, so that the lock is gone before the await.
            let unsaved = self.slot.state().unsaved.take();
            let round = match unsaved {
                Some(rotation) => self.settle(rotation).await,
                None => self.round().await,
            };
            if let Round::Done(outcome) = round {
                return outcome;
            }
        }
        tracing::warn!(provider.id = %self.reg.id, "a connection's record was changed at each try to read it");
        Err(KeeperError::StoreUnavailable)
    }

    async fn round(&mut self) -> Round {
        let epoch = self.slot.epoch();
        let keyed = match self.keeper.records.connection(&self.key).await {
            Ok(Some(keyed)) if keyed.record.state != State::Pending => keyed,
            Ok(None) if Means::of(&self.reg, self.key.borrow()).is_some() => return self.mint(None, epoch).await,
            Ok(_) => return self.not_connected(epoch),
            Err(error) => return Round::Done(self.without_store(&error)),
        };
        let minted = Means::of(&self.reg, self.key.borrow()).is_some();
        if keyed.record.state == State::ReconnectRequired && !minted && !self.want.is_for_new() {
            return self.ended(keyed.version, epoch);
        }
        let now = self.keeper.clock.now();
        let token = Token::of(&self.reg, &keyed, now);
        let phase = token.phase(now);
        let enough = match &self.want {
            Want::Usable => phase != Phase::Expired,
            Want::Ahead => phase == Phase::Fresh,
            Want::Due { of } => keyed.record.obtained_at != *of,
            Want::Forced { used } => phase != Phase::Expired && record_differs(&keyed.record, used),
            Want::Now | Want::Resolve => false,
        };
        self.tell_refresh_end(&keyed.record);
        // A grant that was refused is shown to no call before a refresh proves it alive.
        let stands = keyed.record.state != State::ReconnectRequired;
        if stands && !self.slot.publish(&token, epoch) {
            return Round::Again;
        }
        if stands && enough {
            return Round::Done(Ok(token));
        }
        if minted {
            return self.mint(Some(keyed), epoch).await;
        }
        let by_itself = self.reg.dialect.renewal.by == RenewBy::AccessToken;
        if by_itself && phase == Phase::Expired {
            // It renewed itself while it was valid, or never will (Q49).
            return self.not_renewable(keyed, &token, phase, epoch).await;
        }
        if by_itself && keyed.record.refresh_token.is_none() && !keyed.record.access_token.is_empty() {
            return self.own_refresh_token(keyed, &token).await;
        }
        let Some(refresh_token) = keyed.record.refresh_token.clone() else {
            return self.not_renewable(keyed, &token, phase, epoch).await;
        };
        let own_wait = self.too_young(&token, now).or_else(|| self.wait_left(&keyed.record, now));
        if let Some(wait) = own_wait.or_else(|| self.endpoints_wait()) {
            return Round::Done(self.still(&token, KeeperError::RefreshFailed { retry_after: Some(wait) }));
        }
        if !self.permitted().await {
            return Round::Again;
        }
        let leave = match self.lease().await {
            Ok(leave) => leave,
            Err(error) => return Round::Done(self.without_store(&error).or_else(|error| self.still(&token, error))),
        };
        match leave {
            Leave::Waited => Round::Again,
            Leave::NotNeeded => self.call_if_in(keyed, refresh_token, &token).await,
            Leave::Held(held) => {
                // Another replica may have rotated between the reading and the lease: the lease's holder reads what stands now.
                let current = match self.keeper.records.connection(&self.key).await {
                    Ok(current) => current,
                    Err(error) => return Round::Done(self.without_store(&error).or_else(|error| self.still(&token, error))),
                };
                if current.is_none_or(|current| current.version != keyed.version) {
                    return Round::Again;
                }
                // The lease is ours: what stands there is of a replica that is gone.
                self.keeper.tell_left(&self.key).await;
                let round = self.call_if_in(keyed, refresh_token, &token).await;
                drop(held);
                round
            }
        }
    }

    /// How long no call goes to the endpoint, whoever's.
    fn endpoints_wait(&self) -> Option<Duration> {
        if matches!(self.want, Want::Now) { None } else { self.keeper.gates.of(&self.reg.id).outage.wait() }
    }

    /// Unless the endpoint is out by now.
    async fn call_if_in(&mut self, keyed: Keyed<Connection>, refresh_token: Secret, token: &Arc<Token>) -> Round {
        let gate = self.keeper.gates.of(&self.reg.id);
        match gate.outage.enter(matches!(self.want, Want::Now)) {
            Ok(pass) => self.call(keyed, refresh_token, token, pass).await,
            Err(wait) => Round::Done(self.still(token, KeeperError::RefreshFailed { retry_after: Some(wait) })),
        }
    }

    /// Since when it is not known what became of this very grant. One that came later (connected anew, imported) has no part in it.
    fn standing_doubt(&self, record: &Connection) -> Option<UnixMillis> {
        let mut state = self.slot.state();
        state.unanswered = state.unanswered.filter(|since| record.obtained_at <= *since);
        state.unanswered
    }

    /// A record of before the definition said that the access token renews itself (Q49). On disk before it is sent, for what comes back is
    /// written only over the token that went out.
    async fn own_refresh_token(&self, keyed: Keyed<Connection>, token: &Arc<Token>) -> Round {
        let refresh_token = Some(keyed.record.access_token.clone());
        let record = Connection { refresh_token, updated_at: self.keeper.clock.now(), ..keyed.record };
        match self.keeper.records.put_connection(&record, Expect::Version(keyed.version)).await {
            Ok(_) | Err(StoreError::Conflict) => Round::Again,
            Err(error) => Round::Done(self.without_store(&error).or_else(|error| self.still(token, error))),
        }
    }

    /// The call itself. Whatever comes of it is on disk before anyone hears of it.
    async fn call(&mut self, keyed: Keyed<Connection>, sent: Secret, token: &Arc<Token>, pass: Pass<'_>) -> Round {
        let keeper = Arc::clone(&self.keeper);
        let began = keeper.clock.now();
        // A doubt that stands is older than this call, and is kept in its name until it is settled.
        let begun_at = self.standing_doubt(&keyed.record).unwrap_or(began);
        let intent = Intent { key: self.key.clone(), begun_at, version: keyed.version };
        reach(Step::Intent);
        if let Err(error) = keeper.records.begin_intent(&intent).await {
            let failed = self.without_store(&error);
            return Round::Done(if self.want.is_for_new() { failed } else { failed.or_else(|error| self.still(token, error)) });
        }
        reach(Step::Posting);
        let stopwatch = Instant::now();
        let answer = self.ask_for_new(&keyed.record, &sent).await;
        reach(if answer.is_ok() { Step::Answered } else { Step::Failed });
        self.note_health(pass, answer.as_ref().err());
        let outcome = match &answer {
            Ok(_) => Refreshed::Ok,
            Err(error) if error.verdict == Verdict::GrantEnded => Refreshed::Ended,
            Err(_) => Refreshed::Failed,
        };
        keeper.events.refreshed(&self.reg.id, outcome, stopwatch.elapsed());
        let want = std::mem::replace(&mut self.want, Want::Usable);
        match answer {
            Ok(grant) => {
                let took = stopwatch.elapsed();
                self.settle(Rotation { grant, id: keyed.record.id, sent, metadata: keyed.record.metadata, began, took }).await
            }
            Err(error) => match self.failed(keyed, &sent, error, began).await {
                Settled::Outcome(round) => round,
                Settled::KeepOld(error) if want.is_for_new() => Round::Done(Err(error)),
                Settled::KeepOld(error) => Round::Done(self.still(token, error)),
            },
        }
    }

    /// One call; and one more at once where its answer was lost and the definition says that the old refresh token stays good until the new one
    /// is used (Q46).
    async fn ask_for_new(&self, record: &Connection, sent: &Secret) -> Result<Grant, TokenError> {
        let values = Values { access_token: Some(&record.access_token), ..Values::of(&record.metadata) };
        let client = self.keeper.client.holding(&self.reg, record.key_material.as_ref())?;
        let answer = client.refresh(&self.reg, sent, values).await;
        match answer {
            Err(error) if error.sent && !error.answered && self.reg.dialect.renewal.replay => {
                tracing::info!(provider.id = %self.reg.id, connection.id = %record.id, error = %error, "the answer to a refresh was lost: it is asked for once more");
                let again = client.refresh(&self.reg, sent, values).await;
                // A second try that came to nothing says nothing of the first, whose answer may have held a new token: the doubt stays on record.
                again.map_err(|error| match error.verdict {
                    Verdict::GrantEnded => error,
                    Verdict::Transient { .. } | Verdict::Misconfigured => TokenError { sent: true, answered: false, ..error },
                })
            }
            answer => answer,
        }
    }

    /// What a token call's end says of the endpoint, and what is told of it.
    pub(super) fn note_health(&self, pass: Pass<'_>, failed: Option<&TokenError>) {
        // Each tenant has an endpoint of its own then, and one that is out says nothing of the others.
        if self.reg.token_url.as_ref().is_some_and(EndpointUrl::chooses_host) {
            return;
        }
        if let Some(shift) = pass.ended(&self.key, failed) {
            self.keeper.tell_shift(&self.reg.id, shift);
        }
    }

    /// How long the provider would refuse to refresh so young a token (Q48).
    fn too_young(&self, token: &Token, now: UnixMillis) -> Option<Duration> {
        let least = self.reg.dialect.renewal.not_before?;
        least.checked_sub(token.age(now)).filter(|wait| !wait.is_zero())
    }

    /// Waits for the provider's leave to call. False if it had to wait: what was read is old then, and a refresh token that another replica
    /// has rotated meanwhile must not be sent.
    pub(super) async fn permitted(&mut self) -> bool {
        if self.permit.is_some() {
            return true;
        }
        let calls = Arc::clone(&self.keeper.gates.of(&self.reg.id).calls);
        if let Ok(permit) = Arc::clone(&calls).try_acquire_owned() {
            self.permit = Some(permit);
            return true;
        }
        // Never closed; an error would only mean one call without its limit.
        self.permit = calls.acquire_owned().await.ok();
        self.permit.is_none()
    }

    /// How long no call may be sent: by this process's own count, or by what the record says of another's or of the time before a restart.
    pub(super) fn wait_left(&self, record: &Connection, now: UnixMillis) -> Option<Duration> {
        if matches!(self.want, Want::Now) {
            return None;
        }
        let steady = Instant::now();
        // Our own count goes first, over or not: it is by the clock that is never set.
        if let Some(until) = self.slot.state().not_before {
            return (until > steady).then(|| until - steady);
        }
        // A record from the future was written before the clock was set back: its wait says nothing.
        let told = record.refresh_not_before.filter(|until| *until > now && record.updated_at <= now);
        let wait = told.map(|until| until.since(now)).filter(|wait| *wait <= WAIT_MAX)?;
        self.slot.state().not_before = Some(steady + wait);
        Some(wait)
    }

    pub(super) fn not_connected(&self, epoch: u64) -> Round {
        self.missing(epoch, Miss::not_connected())
    }

    /// There is no record, and none came about.
    pub(super) fn missing(&self, epoch: u64, miss: Miss) -> Round {
        let error = miss.error();
        if self.keeper.table.miss(&self.key, &self.slot, epoch, miss) { Round::Done(Err(error)) } else { Round::Again }
    }

    pub(super) fn ended(&self, version: u64, epoch: u64) -> Round {
        if self.slot.end(version, epoch) { Round::Done(Err(KeeperError::ReconnectRequired)) } else { Round::Again }
    }

    /// There is no refresh token. A valid access token does; an expired one is the connection's end.
    async fn not_renewable(&self, keyed: Keyed<Connection>, token: &Arc<Token>, phase: Phase, epoch: u64) -> Round {
        if phase != Phase::Expired {
            return Round::Done(if self.want.is_for_new() { Err(KeeperError::ReconnectRequired) } else { Ok(Arc::clone(token)) });
        }
        if keyed.record.state == State::Expired {
            return self.ended(keyed.version, epoch);
        }
        self.expire(keyed).await
    }

    /// The store cannot serve; the token that is shown goes on, if it is valid.
    pub(super) fn without_store(&self, error: &StoreError) -> Outcome {
        tracing::error!(provider.id = %self.reg.id, error = %error, "a connection's record cannot be read or written");
        let max_stale = self.keeper.max_stale();
        let doubted = || self.slot.state().doubted.clone().filter(|(_, since)| since.elapsed() <= max_stale).map(|(token, _)| token);
        let shown =
            self.slot.token.load_full().or_else(doubted).filter(|_| matches!(self.want, Want::Usable | Want::Ahead | Want::Due { .. }));
        let valid = shown.filter(|token| token.phase(self.keeper.clock.now()) != Phase::Expired);
        valid.ok_or(KeeperError::StoreUnavailable)
    }

    /// The old token while it is valid (P46), else the error.
    pub(super) fn still(&self, token: &Arc<Token>, error: KeeperError) -> Outcome {
        if token.phase(self.keeper.clock.now()) == Phase::Expired || self.want.is_for_new() { Err(error) } else { Ok(Arc::clone(token)) }
    }
}

fn record_differs(record: &Connection, used: &Token) -> bool {
    record.access_token != used.credential.access_token || record.key_material != used.credential.key
}
