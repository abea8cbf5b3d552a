//! The app's last word: with `complete: "app"` a connection is active only once the back end says that the person who came back is the one who
//! set out. A link that was forwarded to somebody else ends here (RFC 9700 §4.7; THREATS row 22).

use super::book::Found;
use super::grant::{is_same_account, metadata_of, value_names};
use super::session::{Granted, Outcome, Phase};
use super::{Connect, Revocation};
use crate::oauth::REFRESH_EXPIRES_AT;
use crate::store::{Connection, Expect, State, StoreError};

/// How often a completion reads anew because another writer came between.
const TRIES: usize = 16;

/// Why a session was not completed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CompleteError {
    /// Unknown, expired, or completed before.
    #[error("there is no such session to complete")]
    NotFound,
    /// Nobody has come back from the provider yet.
    #[error("the end user has not come back from the provider yet")]
    TooEarly,
    /// The code or the end user is not this session's: what was granted is discarded.
    #[error("the completion does not fit the session")]
    Mismatch(Revocation),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Connect {
    /// Makes the connection active, if the code and the end user are the session's.
    ///
    /// # Errors
    /// On a mismatch the grant is gone: deleted here, and revoked at the provider where that can be.
    pub async fn complete(&self, id: &str, completion: &str, end_user: &str) -> Result<Connection, CompleteError> {
        let mut found = self.by_id(id).await?.ok_or(CompleteError::NotFound)?;
        let granted = match &found.session.phase {
            Phase::Granted(granted) => granted.clone(),
            Phase::Open | Phase::Begun(_) | Phase::Exchanging { .. } => return Err(CompleteError::TooEarly),
            Phase::Ended { .. } => return Err(CompleteError::NotFound),
        };
        // Both are compared before either is told.
        let fits = granted.completion.fits(completion) & (*found.session.end_user == *end_user);
        if !fits {
            tracing::warn!(
                event = "connect.mismatch",
                provider.id = %granted.connection.key.provider,
                "a completion did not fit its session: what was granted is discarded"
            );
            let revocation = self.discard(&mut found, &granted).await?;
            return Err(CompleteError::Mismatch(revocation));
        }
        self.activate(&mut found, &granted).await
    }

    async fn activate(&self, found: &mut Found, granted: &Granted) -> Result<Connection, CompleteError> {
        let key = granted.connection.key.clone();
        for _ in 0..TRIES {
            let known = self.records.connection(&key).await?;
            let expect = known.as_ref().map_or(Expect::Absent, |known| Expect::Version(known.version));
            // Deleted since the end user came back: the app's word does not bring it back to life.
            let Some(known) = known else {
                self.discard(found, granted).await?;
                return Err(CompleteError::NotFound);
            };
            let names =
                self.live.snapshot().providers.get(&*key.provider).map(|registration| value_names(registration)).unwrap_or_default();
            let mut record = granted.connection.clone();
            record.updated_at = self.clock.now();
            if known.record.state != State::Pending {
                let subject = granted.connection.metadata.get("sub").cloned();
                let is_unbound = record.key_material.is_none();
                if record.refresh_token.is_none() && is_unbound && is_same_account(&known.record, subject.as_ref()) {
                    record.refresh_token = known.record.refresh_token.clone();
                }
                record.metadata = metadata_of(Some(&known.record), &found.session.metadata, subject, &names);
                if granted.connection.refresh_token.is_some() && !granted.connection.metadata.contains_key(REFRESH_EXPIRES_AT) {
                    record.metadata.remove(REFRESH_EXPIRES_AT);
                }
                (record.id, record.created_at, record.last_used_at) = (known.record.id, known.record.created_at, known.record.last_used_at);
            }
            let ended = Phase::Ended { provider: Some(key.provider.clone()), outcome: Outcome::Connected };
            let mut further = Vec::new();
            for also in &granted.also {
                let known = self.records.connection(&also.key).await?;
                let expect = known.as_ref().map_or(Expect::Absent, |known| Expect::Version(known.version));
                let mut also = Connection { updated_at: self.clock.now(), ..also.clone() };
                if let Some(known) = known {
                    // What the app left with it stays; what was learnt of an earlier grant does not.
                    let ends = also.metadata.get(REFRESH_EXPIRES_AT).cloned();
                    let subject = also.metadata.get("sub").cloned();
                    also.metadata = metadata_of(Some(&known.record), &also.metadata, subject, &names);
                    if also.refresh_token.is_some() && ends.is_none() {
                        also.metadata.remove(REFRESH_EXPIRES_AT);
                    }
                    (also.id, also.created_at, also.last_used_at) = (known.record.id, known.record.created_at, known.record.last_used_at);
                }
                further.push((also, expect));
            }
            match self.write(found, ended, &key, Some(&record), expect, &further).await {
                Ok(()) => {
                    self.keeper.forget(key.borrow());
                    further.iter().for_each(|(also, _)| self.keeper.forget(also.key.borrow()));
                    self.keeper.events().connected(&key.provider);
                    tracing::info!(event = "connection.created", provider.id = %key.provider, connection.id = %record.id, "the app completed a connection");
                    return Ok(record);
                }
                Err(StoreError::Conflict) if self.is_spent(found).await? => return Err(CompleteError::NotFound),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    async fn is_spent(&self, found: &Found) -> Result<bool, StoreError> {
        Ok(self.by_handle(&found.session.handle).await?.is_none_or(|now| now.version != found.version))
    }

    /// Ends the session, deletes the record that showed it as pending, and revokes the grant. The session moves first, so that of a completion
    /// and a discard at once one alone happens.
    pub(super) async fn discard(&self, found: &mut Found, granted: &Granted) -> Result<Revocation, StoreError> {
        let key = granted.connection.key.clone();
        let ended = Phase::Ended { provider: Some(key.provider.clone()), outcome: Outcome::Discarded };
        for _ in 0..TRIES {
            let known = self.records.connection(&key).await?;
            let standing = known.as_ref().filter(|known| known.record.state != State::Pending).map(|known| known.record.clone());
            let shown = known.filter(|known| known.record.state == State::Pending && known.record.id == granted.connection.id);
            let written = match &shown {
                Some(shown) => self.write(found, ended.clone(), &key, None, Expect::Version(shown.version), &[]).await,
                None => {
                    found.session.phase = ended.clone();
                    self.advance(found).await.map(|version| found.version = version)
                }
            };
            match written {
                Ok(()) => {
                    self.keeper.forget(key.borrow());
                    return Ok(match standing {
                        Some(standing) if !is_anothers(&standing, &granted.connection) => Revocation {
                            revoked: "no",
                            detail: "its tokens are dropped; it is not revoked, for the end user has an active connection that a revocation might end too".to_owned(),
                        },
                        _ => {
                            for also in &granted.also {
                                // One that stands of an earlier time might end with it.
                                if matches!(self.records.connection(&also.key).await, Ok(None)) {
                                    self.revoke(also).await;
                                }
                            }
                            self.revoke(&granted.connection).await
                        }
                    });
                }
                // The pending record was replaced meanwhile: read it anew. If it was the session, the next write says so again.
                Err(StoreError::Conflict) if shown.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict)
    }
}

/// Whether two grants are known to be of different accounts at the provider. Many providers keep one grant a person and client, so that revoking
/// what a session brought would end the connection that stands.
fn is_anothers(standing: &Connection, granted: &Connection) -> bool {
    let subject = |connection: &Connection| connection.metadata.get("sub").cloned();
    subject(standing).zip(subject(granted)).is_some_and(|(standing, granted)| standing != granted)
}
