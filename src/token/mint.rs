//! Tokens that no end user granted: the app's own, and those of registrations that mint. Instead of a refresh, a new one is asked for.
//!
//! A flight does this as it does a refresh: one at a time a connection, and what it brings is on disk before any call sees it. But there is
//! no intent: nothing is spent by asking and nothing rotates, so an answer that is lost loses nothing, and the next call asks again.

use super::keeper::{KeeperError, Token};
use super::refresh::{Flight, Round, Want};
use super::settle::{Amended, Basis, SAVE_PAUSE, SAVES_MAX, note_failure, renewed, wait_after};
use super::table::Miss;
use crate::base::clock::UnixMillis;
use crate::base::ids::{ConnectionKey, ConnectionKeyRef, random_id};
use crate::base::secret::Secret;
use crate::oauth::{Grant, TokenError, Verdict};
use crate::provider::{Exchange, JwtBearer, Mint, Registration};
use crate::store::{Connection, Expect, Keyed, State, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// By what a connection's token is minted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Means<'r> {
    /// RFC 6749 §4.4.
    ClientCredentials,
    /// RFC 7523 §2.1.
    JwtBearer(&'r JwtBearer),
    /// RFC 8693 §2.1.
    Exchange(&'r Exchange),
}

impl<'r> Means<'r> {
    /// `None`: an end user's grant, which is refreshed. The app has no token elsewhere to exchange, so its own is by its credentials.
    pub(super) fn of(reg: &'r Registration, key: ConnectionKeyRef<'_>) -> Option<Self> {
        match &reg.mint {
            Some(Mint::JwtBearer(bearer)) => Some(Means::JwtBearer(bearer)),
            _ if key.is_app() => Some(Means::ClientCredentials),
            Some(Mint::Exchange(exchange)) => Some(Means::Exchange(exchange)),
            None => None,
        }
    }
}

/// A token that was minted and is not on disk yet.
struct Minted {
    grant: Grant,
    began: UnixMillis,
    took: Duration,
}

impl Flight {
    /// Asks for a new token in place of the one that `old` holds, or for the first. What is valid goes on being used if none comes.
    pub(super) async fn mint(&mut self, old: Option<Keyed<Connection>>, epoch: u64) -> Round {
        if let Some(keyed) = &old
            && let Some(wait) = self.wait_left(&keyed.record, self.keeper.clock.now())
        {
            return Round::Done(self.old_or(&old, KeeperError::RefreshFailed { retry_after: Some(wait) }));
        }
        let reg = Arc::clone(&self.reg);
        // What the round read said so already; were it otherwise, there would be nothing to mint by.
        let Some(means) = Means::of(&reg, self.key.borrow()) else { return self.not_connected(epoch) };
        let subject = match means {
            Means::Exchange(exchange) => match self.subject(exchange).await {
                Ok(token) => Some(token),
                Err(error) if old.is_none() => return self.missing(epoch, Miss::in_passing(error)),
                Err(error) => return Round::Done(self.old_or(&old, error)),
            },
            Means::ClientCredentials | Means::JwtBearer(_) => None,
        };
        // After the subject's, so that no flight holds a provider's leave while it waits for another's.
        if !self.permitted().await {
            return Round::Again;
        }
        let gate = self.keeper.gates.of(&self.reg.id);
        let pass = match gate.outage.enter(matches!(self.want, Want::Now)) {
            Ok(pass) => pass,
            Err(wait) if old.is_none() => {
                let failures = self.keeper.table.unminted(self.key.borrow());
                return self.missing(epoch, Miss::unminted(failures, wait));
            }
            Err(wait) => return Round::Done(self.old_or(&old, KeeperError::RefreshFailed { retry_after: Some(wait) })),
        };
        let (began, stopwatch) = (self.keeper.clock.now(), Instant::now());
        let key = old.as_ref().and_then(|keyed| keyed.record.key_material.as_ref());
        let answer = self.ask(means, subject.as_deref(), key).await;
        self.note_health(pass, answer.as_ref().err());
        match answer {
            Ok(grant) => self.keep(old.as_ref(), Minted { grant, began, took: stopwatch.elapsed() }, epoch).await,
            Err(error) => match old {
                Some(keyed) => self.not_minted_anew(keyed, &error).await,
                None => self.not_minted(&error, epoch),
            },
        }
    }

    /// `key` is the one that the connection's tokens are bound to so far, where they are.
    async fn ask(&self, means: Means<'_>, subject: Option<&Token>, key: Option<&Secret>) -> Result<Grant, TokenError> {
        let reg = &*self.reg;
        let client = self.keeper.client.holding(reg, key)?;
        match (means, subject) {
            (Means::JwtBearer(bearer), _) => {
                let end_user = (!self.key.is_app()).then_some(&*self.key.end_user);
                client.jwt_bearer(reg, bearer, end_user).await
            }
            (Means::Exchange(exchange), Some(subject)) => client.token_exchange(reg, exchange, &subject.credential.access_token).await,
            (Means::ClientCredentials | Means::Exchange(_), _) => client.client_credentials(reg).await,
        }
    }

    /// The same end user's token, under the same account, at the provider whose tokens are exchanged here.
    async fn subject(&self, exchange: &Exchange) -> Result<Arc<Token>, KeeperError> {
        let provider = &*exchange.from;
        let of_source = |error| match error {
            KeeperError::StoreUnavailable | KeeperError::Source { .. } => error,
            error => KeeperError::Source { provider: provider.into(), error: Box::new(error) },
        };
        let source = exchange.source.as_ref().ok_or_else(|| of_source(KeeperError::ProviderOff))?;
        let key = ConnectionKeyRef { provider: &source.id, end_user: &self.key.end_user, account: &self.key.account };
        // Boxed, for its own flight may come by here again: links make no circle, but types would.
        Box::pin(self.keeper.credential(source, key)).await.map_err(of_source)
    }

    /// Makes a minted token durable, then shows it.
    async fn keep(&mut self, old: Option<&Keyed<Connection>>, minted: Minted, epoch: u64) -> Round {
        let want = std::mem::replace(&mut self.want, Want::Usable);
        let mut failed = StoreError::Conflict;
        for attempt in 0..SAVES_MAX {
            match self.save_minted(old, &minted).await {
                Ok(round) => return round,
                Err(StoreError::Conflict) => {}
                Err(error) => {
                    tracing::warn!(provider.id = %self.reg.id, error = %error, "a minted token was not taken by the store");
                    failed = error;
                    tokio::time::sleep(SAVE_PAUSE * 2u32.pow(attempt)).await;
                }
            }
        }
        // It is dropped, not held: another is to be had for the asking, only not at each call while the disk is full.
        self.want = want;
        if old.is_none() {
            return self.missing(epoch, Miss::unkept());
        }
        self.slot.state().not_before = Some(Instant::now() + wait_after(Verdict::Transient { retry_after: None }, 1));
        Round::Done(self.without_store(&failed))
    }

    async fn save_minted(&self, old: Option<&Keyed<Connection>>, minted: &Minted) -> Result<Round, StoreError> {
        let (keeper, epoch) = (&self.keeper, self.slot.epoch());
        let current = keeper.records.connection(&self.key).await?;
        let (base, expect) = match current {
            Some(current) if old.is_some_and(|old| old.record.access_token == current.record.access_token) => {
                (current.record, Expect::Version(current.version))
            }
            Some(current) => {
                tracing::info!(provider.id = %self.reg.id, connection.id = %current.record.id, "another writer minted the token first: its token is used");
                return Ok(Round::Again);
            }
            // Also where a record was deleted meanwhile: nobody's consent went with it, and the next call would ask for the same again.
            None => (blank(&self.key, &self.reg, minted.began), Expect::Absent),
        };
        // A refresh token that came along is not kept: the next token is minted as this one was.
        let grant = Grant { refresh_token: None, ..minted.grant.clone() };
        let last_used = UnixMillis(self.slot.last_used.load(Ordering::Relaxed));
        let record = renewed(&base, &grant, minted.began, last_used);
        let version = keeper.records.put_connection(&record, expect).await?;
        tracing::info!(
            provider.id = %self.reg.id,
            connection.id = %record.id,
            took_ms = u64::try_from(minted.took.as_millis()).unwrap_or(u64::MAX),
            expires_in_s = grant.expires_in.map(|life| life.as_secs()),
            "minted"
        );
        self.slot.state().not_before = None;
        let pending = record.state == State::Pending;
        let token = Token::of(&self.reg, &Keyed { version, record }, keeper.clock.now());
        Ok(if !pending && self.slot.publish(&token, epoch) { Round::Done(Ok(token)) } else { Round::Again })
    }

    /// No first token. The wait is remembered among the misses, which are bounded: names made up by the million leave no record and no slot.
    fn not_minted(&self, error: &TokenError, epoch: u64) -> Round {
        let failures = self.keeper.table.unminted(self.key.borrow()).saturating_add(1);
        self.tell_failure(None, failures, error);
        self.missing(epoch, Miss::unminted(failures, wait_after(error.verdict, failures)))
    }

    /// No new token in place of an old one. Never an end of the connection: what was refused, `invalid_grant` too, is the app's assertion or
    /// credentials (RFC 7521 §4.1.1), and no end user can mend those, only the operator.
    async fn not_minted_anew(&mut self, old: Keyed<Connection>, error: &TokenError) -> Round {
        let failures = old.record.refresh_failures.saturating_add(1);
        self.tell_failure(Some(&old.record.id), failures, error);
        let wait = wait_after(error.verdict, failures);
        let until = self.keeper.clock.now().plus(wait);
        let note = |record: &mut Connection| note_failure(record, error, failures, until);
        let want_now = matches!(self.want, Want::Now);
        match self.amend(&old.record.id, Basis::Access(&old.record.access_token), false, None, note).await {
            Amended::Overtaken => {
                self.want = Want::Usable;
                return Round::Again;
            }
            Amended::Gone(epoch) => return self.missing(epoch, Miss::unminted(failures, wait)),
            Amended::Written(keyed, epoch) if keyed.record.state != State::ReconnectRequired => {
                let token = Token::of(&self.reg, &keyed, self.keeper.clock.now());
                // A change that came between will be found by the next call, which reads it from the store.
                let _ = self.slot.publish(&token, epoch);
            }
            Amended::Written(..) | Amended::Failed => {}
        }
        self.slot.state().not_before = Some(Instant::now() + wait);
        let failed = KeeperError::RefreshFailed { retry_after: Some(wait) };
        Round::Done(if want_now { Err(failed) } else { self.old_or(&Some(old), failed) })
    }

    fn tell_failure(&self, connection_id: Option<&str>, failures: u32, error: &TokenError) {
        tracing::warn!(
            event = "refresh.failing",
            provider.id = %self.reg.id,
            connection.id = connection_id,
            refresh.failures = failures,
            refresh.misconfigured = !matches!(error.verdict, Verdict::Transient { .. }),
            error = %error,
            "refresh failed"
        );
    }

    /// The old token while it is valid (P46), else the error. One that a provider ended, before its registration minted, is not valid.
    fn old_or(&self, old: &Option<Keyed<Connection>>, error: KeeperError) -> Result<Arc<Token>, KeeperError> {
        match old.as_ref().filter(|keyed| keyed.record.state == State::Active) {
            Some(keyed) => self.still(&Token::of(&self.reg, keyed, self.keeper.clock.now()), error),
            None => Err(error),
        }
    }
}

/// A connection that is to get its first token.
fn blank(key: &ConnectionKey, reg: &Registration, now: UnixMillis) -> Connection {
    Connection {
        id: random_id("con").into(),
        key: key.clone(),
        state: State::Active,
        access_token: Secret::new(""),
        refresh_token: None,
        token_type: "Bearer".into(),
        obtained_at: now,
        expires_at: None,
        scopes: reg.scopes.iter().map(ToString::to_string).collect(),
        missing_scopes: Vec::new(),
        created_at: now,
        updated_at: now,
        last_used_at: None,
        metadata: BTreeMap::new(),
        last_error: None,
        refresh_failures: 0,
        refresh_not_before: None,
        key_material: None,
    }
}
