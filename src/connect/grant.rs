//! From what was gained to a connection: the record, written together with the end of its session.

use super::book::{Found, SESSIONS, key};
use super::callback::landing;
use super::session::{Completes, Digest, Granted, Outcome, Phase, Session};
use super::{Connect, Landing, Refusal, codec};
use crate::base::clock::UnixMillis;
use crate::base::ids::{ConnectionKey, random_id, random_token};
use crate::base::secret::Secret;
use crate::oauth::Grant;
use crate::provider::{Asks, Registration};
use crate::store::{Connection, Expect, SessionWrite, State, StoreError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Tries to write what was gained while the store fails or others write the same record: some 3 s in all.
const SAVES_MAX: u32 = 6;
pub(super) const SAVE_PAUSE: Duration = Duration::from_millis(100);
/// How long the app has at least to complete what came back.
const COMPLETED_WITHIN: Duration = Duration::from_secs(300);

/// What a connection is made of.
#[derive(Debug, Clone)]
pub(super) struct Gained {
    grant: Grant,
    /// What was asked for.
    asked: Vec<String>,
    /// Before the request went out: a token may be older than its arrival, never younger.
    began: UnixMillis,
}

impl Gained {
    pub(super) fn granted(grant: Grant, asked: &[String], began: UnixMillis) -> Self {
        Gained { grant, asked: asked.to_vec(), began }
    }

    /// A key or a password that a person typed: it does not end by itself.
    pub(super) fn typed(secret: Secret, token_type: &str) -> Self {
        let grant = Grant {
            access_token: secret,
            refresh_token: None,
            token_type: token_type.into(),
            expires_in: None,
            scopes: None,
            subject: None,
        };
        Gained { grant, asked: Vec::new(), began: UnixMillis::default() }
    }
}

impl Connect {
    pub(super) async fn land_typed(
        &self,
        found: &mut Found,
        registration: &Arc<Registration>,
        mut gained: Gained,
    ) -> Result<Landing, Refusal> {
        gained.began = self.clock.now();
        self.land(found, registration, gained).await
    }

    /// Ends the session with a connection, or, where the app has the last word, with a grant that waits for it.
    pub(super) async fn land(&self, found: &mut Found, registration: &Arc<Registration>, gained: Gained) -> Result<Landing, Refusal> {
        let session = &found.session;
        let key = ConnectionKey::new(&registration.id, &session.end_user, &session.account);
        let (metadata, completes) = (session.metadata.clone(), session.completes);
        let completion = (completes == Completes::App).then(random_token);
        for attempt in 0..SAVES_MAX {
            let written = match &completion {
                None => self.land_active(found, &key, &gained, &metadata).await,
                Some(code) => self.land_pending(found, &key, &gained, &metadata, code).await,
            };
            match written {
                Ok(record) => {
                    self.keeper.forget(key.borrow());
                    tell(&record, completion.is_some());
                    return Ok(landing(&found.session, &registration.id, Outcome::Connected, completion.as_deref(), record.missing_scopes));
                }
                Err(StoreError::Conflict) if self.is_moved(found).await => {
                    self.drop_gained(registration, &key, &gained).await;
                    return Err(Refusal::Gone);
                }
                Err(StoreError::Conflict) => {}
                Err(error) => {
                    tracing::warn!(provider.id = %registration.id, error = %error, "a new connection was not taken by the store");
                    tokio::time::sleep(SAVE_PAUSE * 2u32.pow(attempt)).await;
                }
            }
        }
        tracing::error!(provider.id = %registration.id, "a new connection could not be stored: what was granted is dropped");
        self.drop_gained(registration, &key, &gained).await;
        Err(Refusal::Unavailable)
    }

    /// What was gained and could not be kept. Revoked only where no connection stands, or could stand for all the store says, that a revocation
    /// might end too; a typed secret is the end user's own and is never sent anywhere.
    pub(super) async fn drop_gained(&self, registration: &Registration, key: &ConnectionKey, gained: &Gained) {
        if registration.asks == Asks::Consent && matches!(self.records.connection(key).await, Ok(None)) {
            self.revoke_tokens(registration, &gained.grant.access_token, gained.grant.refresh_token.as_ref()).await;
        }
    }

    /// Whether the session itself was moved by somebody else, rather than the connection.
    async fn is_moved(&self, found: &Found) -> bool {
        let now = self.by_handle(&found.session.handle).await;
        now.is_ok_and(|now| now.is_none_or(|now| now.version != found.version))
    }

    async fn land_active(
        &self,
        found: &mut Found,
        key: &ConnectionKey,
        gained: &Gained,
        metadata: &BTreeMap<String, Value>,
    ) -> Result<Connection, StoreError> {
        let known = self.records.connection(key).await?;
        let expect = known.as_ref().map_or(Expect::Absent, |known| Expect::Version(known.version));
        let record = record(key, known.map(|known| known.record).as_ref(), gained, metadata);
        let ended = Phase::Ended { provider: Some(key.provider.clone()), outcome: Outcome::Connected };
        self.write(found, ended, key, Some(&record), expect).await?;
        Ok(record)
    }

    /// The grant is kept with the session. The record that shows it as pending stands only where there is no connection yet: an active one goes
    /// on as it is until the app has spoken.
    async fn land_pending(
        &self,
        found: &mut Found,
        key: &ConnectionKey,
        gained: &Gained,
        metadata: &BTreeMap<String, Value>,
        completion: &str,
    ) -> Result<Connection, StoreError> {
        let known = self.records.connection(key).await?;
        let (standing, version) =
            (known.as_ref().is_some_and(|known| known.record.state != State::Pending), known.as_ref().map(|known| known.version));
        let mut record = record(key, known.map(|known| known.record).filter(|_| standing).as_ref(), gained, metadata);
        // One that the standing connection has may be rotated before the app speaks: it is taken over then, not now.
        record.refresh_token = gained.grant.refresh_token.clone();
        // The app gets the time to speak though the end user came back in the last second.
        found.session.expires_at = found.session.expires_at.max(self.clock.now().plus(COMPLETED_WITHIN));
        let granted = Phase::Granted(Box::new(Granted { completion: Digest::of(completion), connection: record.clone() }));
        if standing {
            found.session.phase = granted;
            found.version = self.advance(found).await?;
        } else {
            let pending = Connection { state: State::Pending, ..record.clone() };
            let expect = version.map_or(Expect::Absent, Expect::Version);
            self.write(found, granted, key, Some(&pending), expect).await?;
        }
        Ok(record)
    }

    /// The connection and the session's next phase in one write. Without a connection, the one under `key` is deleted.
    pub(super) async fn write(
        &self,
        found: &mut Found,
        phase: Phase,
        connection_key: &ConnectionKey,
        connection: Option<&Connection>,
        expect: Expect,
    ) -> Result<(), StoreError> {
        let next = Session { phase, ..found.session.clone() };
        let plain = codec::encode(&next)?;
        let session_key = key(SESSIONS, &next.handle);
        let session = SessionWrite { key: &session_key, expect: Expect::Version(found.version), value: Some(&plain) };
        self.records.land(connection_key, connection, expect, session).await?;
        (found.session, found.version) = (next, found.version + 1);
        Ok(())
    }
}

/// The record of what was gained. A connection that is made anew stays the same one: its id, its birthday and what the app left with it.
pub(super) fn record(key: &ConnectionKey, known: Option<&Connection>, gained: &Gained, metadata: &BTreeMap<String, Value>) -> Connection {
    let Gained { grant, asked, began } = gained;
    let scopes = grant.scopes.clone().unwrap_or_else(|| asked.clone());
    let missing_scopes = asked.iter().filter(|scope| !scopes.contains(scope)).cloned().collect();
    let subject = grant.subject.as_deref().map(Value::from);
    let kept = known.filter(|known| is_same_account(known, subject.as_ref())).and_then(|known| known.refresh_token.clone());
    let all_metadata = metadata_of(known, metadata, subject);
    Connection {
        id: known.map_or_else(|| random_id("con").into(), |known| known.id.clone()),
        key: key.clone(),
        state: State::Active,
        access_token: grant.access_token.clone(),
        refresh_token: grant.refresh_token.clone().or(kept),
        token_type: grant.token_type.clone(),
        obtained_at: *began,
        expires_at: grant.expires_in.map(|life| began.plus(life)),
        scopes,
        missing_scopes,
        created_at: known.map_or(*began, |known| known.created_at),
        updated_at: *began,
        last_used_at: known.and_then(|known| known.last_used_at),
        metadata: all_metadata,
        last_error: None,
        refresh_failures: 0,
        refresh_not_before: None,
        key_material: None,
    }
}

/// A provider that gives no new refresh token at a second consent means the old one to go on; whose it is, only the same `sub` proves.
pub(super) fn is_same_account(known: &Connection, subject: Option<&Value>) -> bool {
    subject.is_some() && known.metadata.get("sub") == subject
}

/// What the app left with the connection, now and before, and whose account it is. Without a proof of that, an older one says nothing.
pub(super) fn metadata_of(known: Option<&Connection>, new: &BTreeMap<String, Value>, subject: Option<Value>) -> BTreeMap<String, Value> {
    let mut all = known.map(|known| known.metadata.clone()).unwrap_or_default();
    all.extend(new.clone());
    all.remove("sub");
    all.extend(subject.map(|subject| ("sub".to_owned(), subject)));
    all
}

fn tell(record: &Connection, pending: bool) {
    tracing::info!(
        event = if pending { "connection.pending" } else { "connection.created" },
        provider.id = %record.key.provider,
        connection.id = %record.id,
        scopes.missing = record.missing_scopes.len(),
        renewable = record.refresh_token.is_some(),
        "{}", if pending { "an end user came back: the app has the last word" } else { "an end user connected" }
    );
}
