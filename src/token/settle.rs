//! What a token call's outcome writes: the rotated grant, the end of a grant, or a failure and the wait after it.

use super::failpoint::{Step, reach};
use super::keeper::{KeeperError, Token};
use super::refresh::{Flight, Round, Want};
use super::table::Rotation;
use crate::base::backoff::{backoff, spread};
use crate::base::clock::UnixMillis;
use crate::base::ids::ConnectionKey;
use crate::base::secret::Secret;
use crate::notices::{Event, Fact};
use crate::oauth::{Grant, REFRESH_EXPIRES_AT, Revoked, TokenError, Values, Verdict, note_learnt};
use crate::store::{Connection, Expect, Keyed, State, StoreError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Tries to write what must not be lost or repeated, while the store fails or others write the same record: some 3 s in all.
pub(super) const SAVES_MAX: u32 = 6;
pub(super) const SAVE_PAUSE: Duration = Duration::from_millis(100);

/// How long before its end a refresh token's is told.
const REFRESH_ENDS_SOON: Duration = Duration::from_secs(7 * 24 * 3600);

const PASSING_FIRST: Duration = Duration::from_secs(1);
const PASSING_MOST: Duration = Duration::from_secs(300);
/// An operator must act on these: asking often does not help.
const MISCONFIGURED_FIRST: Duration = Duration::from_secs(10);
const MISCONFIGURED_MOST: Duration = Duration::from_secs(900);

/// Failures in a row from which on a connection's refreshes are told to fail: one or two are the network's.
const FAILING_AT: u32 = 3;

/// What a failed call leaves to its flight.
pub(super) enum Settled {
    Outcome(Round),
    /// The grant stands: the old token does while it is valid, else this error.
    KeepOld(KeeperError),
}

impl Flight {
    /// Makes a rotated grant durable, then shows it. A store that does not take it keeps it here for the next flight, for the refresh token
    /// that it replaces is spent.
    pub(super) async fn settle(&mut self, rotation: Rotation) -> Round {
        self.want = Want::Usable;
        for attempt in 0..SAVES_MAX {
            match self.save(&rotation).await {
                Ok(round) => return round,
                Err(StoreError::Conflict) => {}
                Err(error) => {
                    tracing::warn!(provider.id = %self.reg.id, connection.id = %rotation.id, error = %error, "a rotated token was not taken by the store");
                    tokio::time::sleep(SAVE_PAUSE * 2u32.pow(attempt)).await;
                }
            }
        }
        tracing::error!(
            provider.id = %self.reg.id,
            connection.id = %rotation.id,
            "a rotated token is not on disk: it is kept in memory and written by the connection's next call; do not stop this process"
        );
        self.slot.state().unsaved = Some(rotation);
        Round::Done(Err(KeeperError::StoreUnavailable))
    }

    async fn save(&self, rotation: &Rotation) -> Result<Round, StoreError> {
        let (keeper, epoch) = (&self.keeper, self.slot.epoch());
        self.save_further(rotation).await;
        let Some(current) = keeper.records.connection(&self.key).await? else {
            self.disown(rotation).await;
            return Ok(self.not_connected(epoch));
        };
        if current.record.id != rotation.id || current.record.refresh_token.as_ref() != Some(&rotation.sent) {
            tracing::info!(provider.id = %self.reg.id, connection.id = %current.record.id, "another writer renewed the connection first: its token is used");
            keeper.records.clear_intent(&self.key).await?;
            self.slot.state().unanswered = None;
            return Ok(Round::Again);
        }
        let last_used = UnixMillis(self.slot.last_used.load(Ordering::Relaxed));
        let record = renewed(&current.record, &rotation.grant, rotation.began, last_used);
        self.tell_refresh_end(&record);
        let recovered = current.record.refresh_failures >= FAILING_AT && record.refresh_failures == 0;
        let notices = match recovered {
            true => keeper.desk.letters(Event::RefreshRecovered, &Fact::Connection(&record)),
            false => Vec::new(),
        };
        let version = keeper.records.settle_telling(&record, Expect::Version(current.version), true, &notices).await?;
        reach(Step::Written);
        tracing::info!(
            provider.id = %self.reg.id,
            connection.id = %record.id,
            took_ms = u64::try_from(rotation.took.as_millis()).unwrap_or(u64::MAX),
            expires_in_s = rotation.grant.expires_in.map(|life| life.as_secs()),
            "refreshed"
        );
        self.settled();
        let pending = record.state == State::Pending;
        let token = Token::of(&self.reg, &Keyed { version, record }, keeper.clock.now());
        let shown = !pending && self.slot.publish(&token, epoch);
        reach(Step::Published);
        Ok(if shown { Round::Done(Ok(token)) } else { Round::Again })
    }

    /// A grant came and is on disk: no wait is left, and no doubt.
    fn settled(&self) {
        let mut state = self.slot.state();
        (state.not_before, state.unanswered) = (None, None);
    }

    /// The further grants of the same reply, onto the connections that they renew. One that was never made here, or was deleted, is not made
    /// by a refresh. A failure is told and costs no more than that connection: the refresh token that it has may be good still.
    async fn save_further(&self, rotation: &Rotation) {
        for (account, grant) in &rotation.grant.also {
            let key = self.further_key(account);
            let mut written = Err(StoreError::Conflict);
            for _ in 0..SAVES_MAX {
                written = self.save_one(&key, grant, rotation.began).await;
                if !matches!(written, Err(StoreError::Conflict)) {
                    break;
                }
            }
            match written {
                Ok(()) => self.keeper.forget(key.borrow()),
                Err(error) => {
                    tracing::error!(provider.id = %self.reg.id, error = %error, "a further grant of a refresh was not taken by the store");
                }
            }
        }
    }

    fn further_key(&self, account: &str) -> ConnectionKey {
        ConnectionKey::new(&self.key.provider, &self.key.end_user, &format!("{}:{account}", self.key.account))
    }

    async fn save_one(&self, key: &ConnectionKey, grant: &Grant, began: UnixMillis) -> Result<(), StoreError> {
        let Some(known) = self.keeper.records.connection(key).await? else { return Ok(()) };
        // Written by this very reply at an earlier try, or renewed since.
        if known.record.access_token == grant.access_token || known.record.obtained_at > began {
            return Ok(());
        }
        let record = renewed(&known.record, grant, began, UnixMillis::default());
        self.keeper.records.put_connection(&record, Expect::Version(known.version)).await.map(drop)
    }

    /// Says once, as long as this process knows the connection, that the grant itself ends soon (Q43): nobody but the end user can renew it then.
    pub(super) fn tell_refresh_end(&self, record: &Connection) {
        let end = record.metadata.get(REFRESH_EXPIRES_AT).and_then(|end| end.as_str()).and_then(UnixMillis::from_rfc3339);
        let Some(end) = end.filter(|end| record.refresh_token.is_some() && end.since(self.keeper.clock.now()) < REFRESH_ENDS_SOON) else {
            return;
        };
        if self.slot.state().told_end.replace(end) != Some(end) {
            tracing::warn!(
                event = "connection.ends_soon",
                provider.id = %self.reg.id,
                connection.id = %record.id,
                grant.ends_at = %end.to_rfc3339(),
                "the refresh token ends soon: the end user must connect anew before"
            );
        }
    }

    /// The connection was deleted while its call was under way: the late reply must not bring it back, and what it granted is revoked (P51).
    async fn disown(&self, rotation: &Rotation) {
        for (account, further) in &rotation.grant.also {
            // One whose connection stands has been written to it.
            if matches!(self.keeper.records.connection(&self.further_key(account)).await, Ok(None)) {
                self.revoke(further, &rotation.metadata).await;
            }
        }
        let revoked = self.revoke(&rotation.grant, &rotation.metadata).await;
        tracing::info!(provider.id = %self.reg.id, connection.id = %rotation.id, revoked, "a connection was deleted during its refresh: the new token is dropped");
        if let Err(error) = self.keeper.records.clear_intent(&self.key).await {
            tracing::warn!(provider.id = %self.reg.id, error = %error, "an intent could not be removed");
        }
    }

    async fn revoke(&self, grant: &Grant, metadata: &BTreeMap<String, Value>) -> &'static str {
        let (token, hint) = match &grant.refresh_token {
            Some(token) => (token, "refresh_token"),
            None => (&grant.access_token, "access_token"),
        };
        let values = Values { access_token: Some(&grant.access_token), ..Values::of(metadata) };
        match self.keeper.client.revoke(&self.reg, token, hint, values).await {
            Ok(Revoked::Yes) => "yes",
            Ok(Revoked::Unsupported) => "unsupported",
            Err(_) => "no",
        }
    }

    /// A call that brought no token.
    pub(super) async fn failed(&self, keyed: Keyed<Connection>, sent: &Secret, error: TokenError, began: UnixMillis) -> Settled {
        let failures = keyed.record.refresh_failures.saturating_add(1);
        match error.verdict {
            Verdict::GrantEnded => Settled::Outcome(self.grant_ended(&keyed.record.id, sent, &error).await),
            Verdict::Transient { .. } | Verdict::Misconfigured => {
                tracing::warn!(
                    event = "refresh.failing",
                    provider.id = %self.reg.id,
                    connection.id = %keyed.record.id,
                    refresh.failures = failures,
                    refresh.misconfigured = error.verdict == Verdict::Misconfigured,
                    error = %error,
                    "refresh failed"
                );
                self.back_off(&keyed.record.id, sent, failures, &error, began).await
            }
        }
    }

    /// The provider refused the refresh token. Not believed before the record was read again: another writer may have replaced it (P45).
    async fn grant_ended(&self, id: &str, sent: &Secret, error: &TokenError) -> Round {
        let now = self.keeper.clock.now();
        let doubt = self.slot.state().unanswered.map(UnixMillis::to_rfc3339);
        let why = match &doubt {
            Some(since) => format!(
                "{}, after the answer to a refresh begun at {since} was lost: the provider may have replaced the refresh token with one that never came to be kept",
                error.summary
            ),
            None => error.summary.clone(),
        };
        let dead = |record: &mut Connection| {
            record.state = State::ReconnectRequired;
            record.last_error = Some(why.clone());
        };
        match self.amend(id, Basis::Refresh(sent), true, Some(Event::ConnectionReconnectRequired), dead).await {
            Amended::Written(keyed, epoch) => {
                tracing::warn!(
                    event = "connection.reconnect_required",
                    provider.id = %self.reg.id,
                    connection.id = id,
                    token.age_s = now.since(keyed.record.obtained_at).as_secs(),
                    refresh.begun_at = doubt,
                    error = %error,
                    "the grant has ended: the end user must connect anew"
                );
                self.slot.state().unanswered = None;
                self.ended(keyed.version, epoch)
            }
            Amended::Overtaken => Round::Again,
            Amended::Gone(epoch) => self.not_connected(epoch),
            Amended::Failed => Round::Done(Err(KeeperError::ReconnectRequired)),
        }
    }

    async fn back_off(&self, id: &str, sent: &Secret, failures: u32, error: &TokenError, began: UnixMillis) -> Settled {
        let wait = wait_after(error.verdict, failures);
        let until = self.keeper.clock.now().plus(wait);
        let note = |record: &mut Connection| note_failure(record, error, failures, until);
        // An intent stays where the provider may have rotated the token though no answer came: the record of a doubt.
        let lost = error.sent && !error.answered;
        let settled = {
            let mut state = self.slot.state();
            if lost && state.unanswered.is_none() {
                state.unanswered = Some(began);
            }
            // This call's outcome says nothing of an older one whose answer was lost.
            state.unanswered.is_none()
        };
        // Told once, when it is no single failure any more; what ends it is told by the refresh that succeeds.
        let event = (failures == FAILING_AT).then_some(Event::RefreshFailing);
        match self.amend(id, Basis::Refresh(sent), settled, event, note).await {
            Amended::Overtaken => return Settled::Outcome(Round::Again),
            Amended::Gone(epoch) => return Settled::Outcome(self.not_connected(epoch)),
            Amended::Written(keyed, epoch) if keyed.record.state != State::ReconnectRequired => {
                let token = Token::of(&self.reg, &keyed, self.keeper.clock.now());
                // A change that came between will be found by the next call, which reads it from the store.
                let _ = self.slot.publish(&token, epoch);
            }
            Amended::Written(..) | Amended::Failed => {}
        }
        self.slot.state().not_before = Some(Instant::now() + wait);
        Settled::KeepOld(KeeperError::RefreshFailed { retry_after: Some(wait) })
    }

    /// No refresh token and past its end: only the end user can mend it.
    pub(super) async fn expire(&self, keyed: Keyed<Connection>) -> Round {
        let epoch = self.slot.epoch();
        let record = Connection { state: State::Expired, updated_at: self.keeper.clock.now(), ..keyed.record };
        let notices = self.keeper.desk.letters(Event::ConnectionReconnectRequired, &Fact::Connection(&record));
        match self.keeper.records.settle_telling(&record, Expect::Version(keyed.version), false, &notices).await {
            Ok(version) => {
                tracing::warn!(
                    event = "connection.expired",
                    provider.id = %self.reg.id,
                    connection.id = %record.id,
                    "the token has expired and cannot be refreshed: the end user must connect anew"
                );
                self.ended(version, epoch)
            }
            Err(StoreError::Conflict) => Round::Again,
            // True all the same; the state is written when the store works again.
            Err(_) => Round::Done(Err(KeeperError::ReconnectRequired)),
        }
    }

    /// Writes an outcome onto the record as it stands now, if it still holds what the call began with.
    /// `event`: what the change is told as, in the same batch.
    pub(super) async fn amend(
        &self,
        id: &str,
        began_with: Basis<'_>,
        settled: bool,
        event: Option<Event>,
        change: impl Fn(&mut Connection),
    ) -> Amended {
        let records = &self.keeper.records;
        for _ in 0..SAVES_MAX {
            let epoch = self.slot.epoch();
            let mut keyed = match records.connection(&self.key).await {
                Ok(Some(keyed)) => keyed,
                Ok(None) => return Amended::Gone(epoch),
                Err(error) => return self.not_amended(&error),
            };
            if &*keyed.record.id != id || !began_with.stands_in(&keyed.record) {
                return Amended::Overtaken;
            }
            change(&mut keyed.record);
            keyed.record.updated_at = self.keeper.clock.now();
            let expect = Expect::Version(keyed.version);
            let notices = event.map(|event| self.keeper.desk.letters(event, &Fact::Connection(&keyed.record))).unwrap_or_default();
            match records.settle_telling(&keyed.record, expect, settled, &notices).await {
                Ok(version) => return Amended::Written(Box::new(Keyed { version, ..keyed }), epoch),
                Err(StoreError::Conflict) => {}
                Err(error) => return self.not_amended(&error),
            }
        }
        self.not_amended(&StoreError::Conflict)
    }

    fn not_amended(&self, error: &StoreError) -> Amended {
        tracing::warn!(provider.id = %self.reg.id, error = %error, "a refresh's outcome could not be written");
        Amended::Failed
    }
}

/// What a call began with: a record that holds another one by now was renewed by another writer.
#[derive(Clone, Copy)]
pub(super) enum Basis<'s> {
    Refresh(&'s Secret),
    /// The access token that a minted one is to replace.
    Access(&'s Secret),
}

impl Basis<'_> {
    fn stands_in(self, record: &Connection) -> bool {
        match self {
            Basis::Refresh(sent) => record.refresh_token.as_ref() == Some(sent),
            Basis::Access(old) => record.access_token == *old,
        }
    }
}

/// What became of writing an outcome. The epochs are those before the record was read.
pub(super) enum Amended {
    Written(Box<Keyed<Connection>>, u64),
    /// The record holds another token by now.
    Overtaken,
    Gone(u64),
    Failed,
}

/// The record with the new grant on it. What the answer leaves out stays as it was (RFC 6749 §5.1, §6).
pub(super) fn renewed(old: &Connection, grant: &Grant, began: UnixMillis, last_used: UnixMillis) -> Connection {
    let mut new = old.clone();
    new.access_token = grant.access_token.clone();
    if let Some(refresh_token) = &grant.refresh_token {
        new.refresh_token = Some(refresh_token.clone());
    }
    new.token_type = grant.token_type.clone();
    if grant.key.is_some() {
        new.key_material = grant.key.clone();
    }
    // From before the request went out: the token may be older than its arrival, never younger.
    new.obtained_at = began;
    new.expires_at = grant.expires_in.map(|life| began.plus(life));
    if let Some(scopes) = &grant.scopes {
        let asked = old.scopes.iter().chain(&old.missing_scopes);
        let mut missing: Vec<String> = asked.filter(|scope| !scopes.contains(scope)).cloned().collect();
        missing.sort_unstable();
        missing.dedup();
        (new.scopes, new.missing_scopes) = (scopes.clone(), missing);
    }
    note_learnt(&mut new.metadata, grant, began);
    if new.state != State::Pending {
        new.state = State::Active;
    }
    new.updated_at = began;
    if last_used.0 != 0 {
        new.last_used_at = new.last_used_at.max(Some(last_used));
    }
    (new.last_error, new.refresh_failures, new.refresh_not_before) = (None, 0, None);
    new
}

/// A call that brought no token, onto the record: what went wrong, how often in a row, and when none is tried again.
pub(super) fn note_failure(record: &mut Connection, error: &TokenError, failures: u32, until: UnixMillis) {
    record.last_error = Some(error.summary.clone());
    record.refresh_failures = failures;
    record.refresh_not_before = Some(until);
}

/// How long no call is sent after the `failures`-th failure in a row. The provider's own word goes first.
pub(super) fn wait_after(verdict: Verdict, failures: u32) -> Duration {
    match verdict {
        Verdict::Transient { retry_after: Some(told) } if !told.is_zero() => told + spread(told / 20),
        Verdict::Transient { .. } => backoff(failures, PASSING_FIRST, PASSING_MOST),
        Verdict::Misconfigured | Verdict::GrantEnded => backoff(failures, MISCONFIGURED_FIRST, MISCONFIGURED_MOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_providers_word_on_waiting_goes_first() {
        let secs = Duration::from_secs;
        for (verdict, failures, least, most) in [
            (Verdict::Transient { retry_after: Some(secs(20)) }, 9, secs(20), secs(21)),
            (Verdict::Transient { retry_after: Some(secs(0)) }, 1, PASSING_FIRST / 2, PASSING_FIRST),
            (Verdict::Transient { retry_after: None }, 1, PASSING_FIRST / 2, PASSING_FIRST),
            (Verdict::Transient { retry_after: None }, 40, PASSING_MOST / 2, PASSING_MOST),
            (Verdict::Misconfigured, 1, MISCONFIGURED_FIRST / 2, MISCONFIGURED_FIRST),
            (Verdict::Misconfigured, 40, MISCONFIGURED_MOST / 2, MISCONFIGURED_MOST),
        ] {
            let wait = wait_after(verdict, failures);
            assert!((least..=most).contains(&wait), "{verdict:?} {failures}: {wait:?}");
        }
    }
}
