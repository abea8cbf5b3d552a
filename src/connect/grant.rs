//! From what was gained to a connection: the record, written together with the end of its session.

use super::book::{Found, SESSIONS, key};
use super::callback::landing;
use super::session::{Completes, Digest, Granted, Outcome, Phase, Session};
use super::{Connect, Landing, Refusal, codec};
use crate::base::clock::UnixMillis;
use crate::base::ids::{ConnectionKey, random_id, random_token};
use crate::base::secret::Secret;
use crate::identity::check_name;
use crate::notices::{Event, Fact};
use crate::oauth::{Grant, Values, in_group, note_learnt};
use crate::provider::{Asks, Registration};
use crate::store::{Connection, Expect, OutboxWrite, SessionWrite, State, StoreError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Tries to write what was gained while the store fails or others write the same record: some 3 s in all.
const SAVES_MAX: u32 = 6;
pub(super) const SAVE_PAUSE: Duration = Duration::from_millis(100);
/// How long the app has at least to complete what came back.
const COMPLETED_WITHIN: Duration = Duration::from_secs(300);

/// What stands in `last_error` of a connection that cannot be renewed though its definition says it could.
const NOT_RENEWABLE: &str = "the provider gave no refresh token: the connection ends with its access token";

/// What a connection is made of.
#[derive(Debug, Clone)]
pub(super) struct Gained {
    grant: Grant,
    /// What was asked for.
    asked: Vec<String>,
    /// Before the request went out: a token may be older than its arrival, never younger.
    began: UnixMillis,
    /// What connecting taught besides, for the connection's metadata.
    pub(super) learnt: BTreeMap<String, Value>,
    /// Whether the definition promises a refresh token.
    renewal_expected: bool,
    /// The names of the registration's own values: what an earlier account left under them is not this one's.
    names: Vec<Box<str>>,
    /// The further grants of the same reply, each with its connection's key.
    also: Vec<(ConnectionKey, Gained)>,
}

impl Gained {
    pub(super) fn granted(
        registration: &Registration,
        key: &ConnectionKey,
        mut grant: Grant,
        asked: &[String],
        began: UnixMillis,
        learnt: BTreeMap<String, Value>,
    ) -> Self {
        let renewal_expected = registration.dialect.renewal.expected;
        let names = value_names(registration);
        // A group of scopes is the further grant's where there is one of its name, else the first's like those of none (Q22, Q34).
        let further = std::mem::take(&mut grant.also);
        let of = |group: Option<&str>| in_group(registration, asked, group).into_iter().map(str::to_owned).collect::<Vec<_>>();
        let groups = registration.dialect.scope_groups.iter().map(|(group, _)| &**group);
        let firsts = groups.filter(|group| !further.iter().any(|(account, _)| **account == **group));
        let asked = of(None).into_iter().chain(firsts.flat_map(|group| of(Some(group)))).collect();
        let also = further.into_iter().filter_map(|(account, grant)| {
            let key = further_key(key, &account);
            if check_name(&key.account).is_err() {
                // No call could name it, and no operator delete it.
                tracing::warn!(event = "connect.failed", provider.id = %registration.id, "a further grant is dropped: its connection's account label would be too long");
                return None;
            }
            let asked = of(Some(&account));
            let (learnt, names) = (learnt.clone(), names.clone());
            Some((key, Gained { grant, asked, began, learnt, renewal_expected: false, names, also: Vec::new() }))
        });
        let also = also.collect();
        Gained { grant, asked, began, learnt, renewal_expected, names, also }
    }

    /// The keys of the further grants' connections.
    pub(super) fn further_keys(&self) -> impl Iterator<Item = &ConnectionKey> {
        self.also.iter().map(|(key, _)| key)
    }

    /// A key or a password that a person typed: it does not end by itself.
    pub(super) fn typed(secret: Secret, token_type: &str, values: BTreeMap<String, String>) -> Self {
        let grant = Grant { access_token: secret, token_type: token_type.into(), ..Grant::default() };
        let learnt = values.into_iter().map(|(name, value)| (name, value.into())).collect();
        let (asked, names, also) = (Vec::new(), Vec::new(), Vec::new());
        Gained { grant, asked, began: UnixMillis::default(), learnt, renewal_expected: false, names, also }
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
        let session = &mut found.session;
        let key = ConnectionKey::new(&registration.id, &session.end_user, &session.account);
        // With the session from here on, so that a completion that comes later finds them too.
        session.metadata.extend(gained.learnt.clone());
        note_learnt(&mut session.metadata, &gained.grant, gained.began);
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
                    gained.further_keys().for_each(|key| self.keeper.forget(key.borrow()));
                    if completion.is_none() {
                        self.keeper.events().connected(&key.provider);
                    }
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
        if registration.asks == Asks::Consent && self.none_stands(key, gained).await {
            let metadata: BTreeMap<String, Value> = gained.learnt.clone().into_iter().chain(gained.grant.learnt.clone()).collect();
            for grant in std::iter::once(&gained.grant).chain(gained.also.iter().map(|(_, also)| &also.grant)) {
                self.revoke_tokens(registration, &grant.access_token, grant.refresh_token.as_ref(), Values::of(&metadata)).await;
            }
        }
    }

    /// Many providers keep one grant a person and client, so that the end of one of a reply's grants may be the end of all.
    async fn none_stands(&self, key: &ConnectionKey, gained: &Gained) -> bool {
        for key in std::iter::once(key).chain(gained.further_keys()) {
            if !matches!(self.records.connection(key).await, Ok(None)) {
                return false;
            }
        }
        true
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
        let further = self.further(gained, metadata).await?;
        let ended = Phase::Ended { provider: Some(key.provider.clone()), outcome: Outcome::Connected };
        self.write(found, ended, key, Some(&record), expect, &further).await?;
        Ok(record)
    }

    /// The records of the further grants of the same reply.
    pub(super) async fn further(
        &self,
        gained: &Gained,
        metadata: &BTreeMap<String, Value>,
    ) -> Result<Vec<(Connection, Expect)>, StoreError> {
        let mut further = Vec::new();
        for (key, gained) in &gained.also {
            let known = self.records.connection(key).await?;
            let expect = known.as_ref().map_or(Expect::Absent, |known| Expect::Version(known.version));
            further.push((record(key, known.map(|known| known.record).as_ref(), gained, metadata), expect));
        }
        Ok(further)
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
        let also = gained.also.iter().map(|(key, gained)| self::record(key, None, gained, metadata)).collect();
        let granted = Phase::Granted(Box::new(Granted { completion: Digest::of(completion), connection: record.clone(), also }));
        if standing {
            found.session.phase = granted;
            found.version = self.advance(found).await?;
        } else {
            let pending = Connection { state: State::Pending, ..record.clone() };
            let expect = version.map_or(Expect::Absent, Expect::Version);
            self.write(found, granted, key, Some(&pending), expect, &[]).await?;
        }
        Ok(record)
    }

    /// The connection, those of further grants, and the session's next phase in one write. Without a connection, the one under `key` is deleted.
    pub(super) async fn write(
        &self,
        found: &mut Found,
        phase: Phase,
        connection_key: &ConnectionKey,
        connection: Option<&Connection>,
        expect: Expect,
        further: &[(Connection, Expect)],
    ) -> Result<(), StoreError> {
        let next = Session { phase, ..found.session.clone() };
        let plain = codec::encode(&next)?;
        let session_key = key(SESSIONS, &next.handle);
        let session = SessionWrite { key: &session_key, expect: Expect::Version(found.version), value: Some(&plain) };
        let notices = self.created_letters(connection);
        self.records.land(connection_key, connection, expect, further, session, &notices).await?;
        (found.session, found.version) = (next, found.version + 1);
        Ok(())
    }

    /// What is told of a connection that is written with its session; nothing while the app has the last word.
    pub(super) fn created_letters(&self, connection: Option<&Connection>) -> Vec<OutboxWrite> {
        match connection.filter(|connection| connection.state == State::Active) {
            Some(connection) => self.keeper.desk().letters(Event::ConnectionCreated, &Fact::Connection(connection)),
            None => Vec::new(),
        }
    }
}

/// The record of what was gained. A connection that is made anew stays the same one: its id, its birthday and what the app left with it.
pub(super) fn record(key: &ConnectionKey, known: Option<&Connection>, gained: &Gained, metadata: &BTreeMap<String, Value>) -> Connection {
    let Gained { grant, asked, began, renewal_expected, names, .. } = gained;
    let scopes = grant.scopes.clone().unwrap_or_else(|| asked.clone());
    let missing_scopes = asked.iter().filter(|scope| !scopes.contains(scope)).cloned().collect();
    let subject = grant.subject.as_deref().map(Value::from);
    // One that is bound to the key before is no good with this one.
    let kept =
        known.filter(|known| grant.key.is_none() && is_same_account(known, subject.as_ref())).and_then(|known| known.refresh_token.clone());
    let mut all_metadata = metadata_of(known, metadata, subject, names);
    note_learnt(&mut all_metadata, grant, *began);
    let refresh_token = grant.refresh_token.clone().or(kept);
    // Said where an operator looks, for the definition promises otherwise (Q20).
    let last_error = (*renewal_expected && refresh_token.is_none()).then(|| NOT_RENEWABLE.to_owned());
    Connection {
        id: known.map_or_else(|| random_id("con").into(), |known| known.id.clone()),
        key: key.clone(),
        state: State::Active,
        access_token: grant.access_token.clone(),
        refresh_token,
        token_type: grant.token_type.clone(),
        obtained_at: *began,
        expires_at: grant.expires_in.map(|life| began.plus(life)),
        scopes,
        missing_scopes,
        created_at: known.map_or(*began, |known| known.created_at),
        updated_at: *began,
        last_used_at: known.and_then(|known| known.last_used_at),
        metadata: all_metadata,
        last_error,
        refresh_failures: 0,
        refresh_not_before: None,
        key_material: grant.key.clone(),
    }
}

/// A provider that gives no new refresh token at a second consent means the old one to go on; whose it is, only the same `sub` proves.
pub(super) fn is_same_account(known: &Connection, subject: Option<&Value>) -> bool {
    subject.is_some() && known.metadata.get("sub") == subject
}

/// The names of the values that a registration asks for or learns.
pub(super) fn value_names(registration: &Registration) -> Vec<Box<str>> {
    registration.dialect.value_names().into_iter().map(|(name, _)| name.into()).collect()
}

/// What the app left with the connection, now and before, and whose account it is. Without a proof of that, an older one says nothing, and
/// neither do the registration's own values (`names`) that were learnt of it.
pub(super) fn metadata_of(
    known: Option<&Connection>,
    new: &BTreeMap<String, Value>,
    subject: Option<Value>,
    names: &[Box<str>],
) -> BTreeMap<String, Value> {
    let mut all = known.map(|known| known.metadata.clone()).unwrap_or_default();
    all.retain(|name, _| !names.iter().any(|own| **own == **name));
    all.extend(new.clone());
    all.remove("sub");
    all.extend(subject.map(|subject| ("sub".to_owned(), subject)));
    all
}

/// The connection of a further grant of the same reply: under the first's account and the grant's own label.
fn further_key(key: &ConnectionKey, account: &str) -> ConnectionKey {
    ConnectionKey::new(&key.provider, &key.end_user, &format!("{}:{account}", key.account))
}

fn tell(record: &Connection, pending: bool) {
    if let Some(why) = &record.last_error {
        tracing::warn!(event = "connection.not_renewable", provider.id = %record.key.provider, connection.id = %record.id, "{why}");
    }
    tracing::info!(
        event = if pending { "connection.pending" } else { "connection.created" },
        provider.id = %record.key.provider,
        connection.id = %record.id,
        scopes.missing = record.missing_scopes.len(),
        renewable = record.refresh_token.is_some(),
        "{}", if pending { "an end user came back: the app has the last word" } else { "an end user connected" }
    );
}
