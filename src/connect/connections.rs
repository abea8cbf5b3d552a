//! Connections as operators and back ends handle them: found page by page, imported, exported, refreshed, deleted and revoked (contract §6).

use super::Connect;
use super::answer::names_in;
use super::grant::value_names;
use crate::base::ids::ConnectionKey;
use crate::base::secret::Secret;
use crate::notices::{Event, Fact};
use crate::oauth::{REFRESH_EXPIRES_AT, Revoked, TokenError, Values};
use crate::provider::{Registration, RenewBy};
use crate::store::{Connection, Expect, State, StoreError};
use crate::token::KeeperError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// How many connections one page holds at most, and where none is asked for.
pub const LIMIT_MAX: usize = 1000;
pub const LIMIT_DEFAULT: usize = 100;
/// How many records one page looks at before it says where to go on: a filter that fits nothing must not read a whole store for one answer.
const LOOKED_AT_MAX: usize = 20_000;
const SCAN: usize = 500;
/// How often a change reads anew because another writer came between.
const TRIES: usize = 16;

/// Which connections.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub provider: Option<String>,
    pub end_user: Option<String>,
    pub state: Option<State>,
}

/// One page of connections, in the order of their keys.
#[derive(Debug, Clone)]
pub struct Page {
    pub items: Vec<Connection>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("`cursor` is not one that a page before gave")]
    Cursor,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of a token at its provider (RFC 7009).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// `yes`, `no` or `unsupported`.
    pub revoked: &'static str,
    pub detail: String,
}

impl Revocation {
    fn new(revoked: &'static str, detail: impl Into<String>) -> Self {
        Revocation { revoked, detail: detail.into() }
    }
}

/// A connection that was put, and whether it is a new one.
#[derive(Debug, Clone)]
pub struct Written {
    pub connection: Connection,
    pub is_new: bool,
}

/// What a forced refresh came to.
#[derive(Debug)]
pub enum Refreshed {
    Done(Box<Connection>),
    NotFound,
    Failed(KeeperError),
}

impl Connect {
    /// The connection, with the last use that is known here and not yet on disk.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn connection(&self, key: &ConnectionKey) -> Result<Option<Connection>, StoreError> {
        Ok(self.records.connection(key).await?.map(|keyed| self.with_last_use(keyed.record)))
    }

    fn with_last_use(&self, mut connection: Connection) -> Connection {
        let here = self.keeper.last_used(connection.key.borrow());
        connection.last_used_at = connection.last_used_at.max(here);
        connection
    }

    /// One page of the connections that fit.
    ///
    /// # Errors
    /// When the cursor is none, or the store cannot be read.
    pub async fn list(&self, filter: &Filter, limit: usize, cursor: Option<&str>) -> Result<Page, ListError> {
        let mut after = cursor.map(|cursor| read_cursor(cursor).ok_or(ListError::Cursor)).transpose()?;
        let limit = limit.clamp(1, LIMIT_MAX);
        let (mut items, mut looked_at) = (Vec::new(), 0);
        loop {
            let page = self.records.connections_of(filter.provider.as_deref(), filter.end_user.as_deref(), after.as_ref(), SCAN).await?;
            let is_last = page.len() < SCAN;
            for keyed in page {
                if items.len() == limit || looked_at == LOOKED_AT_MAX {
                    let next = after.as_ref().map(cursor_of);
                    return Ok(Page { items, next });
                }
                looked_at += 1;
                after = Some(keyed.record.key.clone());
                let fits = filter.end_user.as_deref().is_none_or(|end_user| *keyed.record.key.end_user == *end_user)
                    && filter.state.is_none_or(|state| keyed.record.state == state);
                if fits {
                    items.push(self.with_last_use(keyed.record));
                }
            }
            if is_last {
                return Ok(Page { items, next: None });
            }
        }
    }

    /// Puts an imported connection. One that is known stays the same one: its id and its birthday; what the line leaves out of its metadata stays,
    /// but for the registration's own values where the tokens are of another grant.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn put(&self, mut connection: Connection) -> Result<Written, StoreError> {
        let snapshot = self.live.snapshot();
        let registration = snapshot.providers.get(&*connection.key.provider);
        let by_itself = registration.is_some_and(|registration| registration.dialect.renewal.by == RenewBy::AccessToken);
        if by_itself && !connection.access_token.is_empty() {
            // As of a connection that was made here: what renews it is what it is (Q49).
            connection.refresh_token = Some(connection.access_token.clone());
        }
        let names = registration.map(|registration| value_names(registration)).unwrap_or_default();
        let (id, created_at, metadata) = (connection.id.clone(), connection.created_at, connection.metadata.clone());
        for _ in 0..TRIES {
            let known = self.records.connection(&connection.key).await?;
            let is_new = known.is_none();
            let expect = known.as_ref().map_or(Expect::Absent, |known| Expect::Version(known.version));
            match known {
                Some(known) => {
                    let is_same_grant = is_same_grant(&connection, &known.record);
                    (connection.id, connection.created_at) = (known.record.id, known.record.created_at);
                    (connection.metadata, connection.last_used_at) = (known.record.metadata, known.record.last_used_at);
                    // The line's tokens may be of another account: whose, only the line can say.
                    connection.metadata.remove("sub");
                    if !is_same_grant {
                        // And so which host they are for, and when they end.
                        connection.metadata.remove(REFRESH_EXPIRES_AT);
                        connection.metadata.retain(|name, _| !names.iter().any(|own| **own == **name));
                    }
                    connection.metadata.extend(metadata.clone());
                }
                None => (connection.id, connection.created_at, connection.metadata) = (id.clone(), created_at, metadata.clone()),
            }
            // With its intent gone too: a token call of the grant before, cut off by a crash, is no concern of this one.
            let notices = self.keeper.desk().letters(Event::ConnectionCreated, &Fact::Connection(&connection));
            match self.records.settle_telling(&connection, expect, true, &notices).await {
                Ok(_) => {
                    self.keeper.forget(connection.key.borrow());
                    self.keeper.events().connected(&connection.key.provider);
                    tracing::info!(event = "connection.created", provider.id = %connection.key.provider, connection.id = %connection.id, is_new, "a connection was imported");
                    return Ok(Written { connection, is_new });
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict)
    }

    /// Changes the metadata: names with a value are set, names with null go (RFC 7396 at the first level).
    ///
    /// # Errors
    /// When the result is too large, or the store does not take it; `Ok(None)` if there is no such connection.
    pub async fn patch_metadata(
        &self,
        key: &ConnectionKey,
        change: &Map<String, Value>,
    ) -> Result<Option<Connection>, super::ConnectError> {
        for _ in 0..TRIES {
            let Some(mut known) = self.records.connection(key).await? else { return Ok(None) };
            for (name, value) in change {
                match value {
                    Value::Null => known.record.metadata.remove(name),
                    value => known.record.metadata.insert(name.clone(), value.clone()),
                };
            }
            super::create::check_metadata(&known.record.metadata).map_err(super::ConnectError::Invalid)?;
            known.record.updated_at = self.clock.now();
            match self.records.put_connection(&known.record, Expect::Version(known.version)).await {
                Ok(_) => {
                    // Calls go where the metadata says: the next one by what it says now.
                    self.keeper.forget(key.borrow());
                    return Ok(Some(self.with_last_use(known.record)));
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// A refresh that an operator asks for.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn refresh(&self, key: &ConnectionKey) -> Result<Refreshed, StoreError> {
        let snapshot = self.live.snapshot();
        if self.records.connection(key).await?.is_none() {
            return Ok(Refreshed::NotFound);
        }
        let Some(registration) = snapshot.providers.get(&*key.provider) else { return Ok(Refreshed::Failed(KeeperError::ProviderOff)) };
        match self.keeper.refresh_now(registration, key.borrow()).await {
            Ok(_) => Ok(match self.connection(key).await? {
                Some(connection) => Refreshed::Done(Box::new(connection)),
                None => Refreshed::NotFound,
            }),
            Err(KeeperError::NotConnected) => Ok(Refreshed::NotFound),
            Err(error) => Ok(Refreshed::Failed(error)),
        }
    }

    /// Deletes the connection, then revokes it at the provider where that can be. Deleted first: a revocation that hangs keeps no call alive.
    ///
    /// # Errors
    /// When the store does not take it; `Ok(None)` if there is no such connection.
    pub async fn disconnect(&self, key: &ConnectionKey) -> Result<Option<Revocation>, StoreError> {
        let notices = |connection: &Connection| self.keeper.desk().letters(Event::ConnectionDeleted, &Fact::Connection(connection));
        let Some(connection) = self.records.delete_connection_telling(key, notices).await? else { return Ok(None) };
        self.keeper.forget(key.borrow());
        let revocation = self.revoke(&connection).await;
        tracing::info!(
            event = "connection.deleted",
            provider.id = %key.provider,
            connection.id = %connection.id,
            revoked = revocation.revoked,
            "a connection was deleted"
        );
        Ok(Some(revocation))
    }

    /// Revokes a connection's tokens at its provider.
    pub(super) async fn revoke(&self, connection: &Connection) -> Revocation {
        let snapshot = self.live.snapshot();
        match snapshot.providers.get(&*connection.key.provider) {
            None => Revocation::new("no", format!("the provider `{}` is no longer in routes.yaml", connection.key.provider)),
            Some(registration) => {
                let values = Values::of(&connection.metadata);
                self.revoke_tokens(registration, &connection.access_token, connection.refresh_token.as_ref(), values).await
            }
        }
    }

    /// The refresh token first, which takes the grant with it (RFC 7009 §2.1); the access token where there is no other, or the provider does not
    /// revoke refresh tokens.
    pub(super) async fn revoke_tokens(
        &self,
        registration: &Registration,
        access_token: &Secret,
        refresh_token: Option<&Secret>,
        values: Values<'_>,
    ) -> Revocation {
        if registration.off.is_some() {
            return Revocation::new("no", format!("the provider `{}` is off", registration.id));
        }
        let name = &registration.display_name;
        let told = |outcome: &Result<Revoked, TokenError>| match outcome {
            Ok(Revoked::Yes) => Revocation::new("yes", format!("{name} has revoked the grant")),
            Ok(Revoked::Unsupported) => Revocation::new(
                "unsupported",
                format!("{name} has no revocation endpoint: the grant lives on there until the end user removes it"),
            ),
            Err(error) => Revocation::new("no", format!("{name} did not revoke the grant: {error}")),
        };
        let values = Values { access_token: Some(access_token), ..values };
        // Some definitions revoke by the access token, and say so by its name.
        let by_access_token = names_in(&registration.dialect.calls.revoke).any(|name| name == "access_token");
        if let Some(token) = refresh_token.filter(|_| !by_access_token) {
            let outcome = self.client.revoke(registration, token, "refresh_token", values).await;
            if !matches!(outcome, Ok(Revoked::Unsupported)) || access_token.is_empty() {
                return told(&outcome);
            }
        }
        told(&self.client.revoke(registration, access_token, "access_token", values).await)
    }
}

/// Whether two records hold tokens of one grant, as far as the tokens show it.
fn is_same_grant(new: &Connection, known: &Connection) -> bool {
    let same_refresh = new.refresh_token.is_some() && new.refresh_token == known.refresh_token;
    same_refresh || (!new.access_token.is_empty() && new.access_token == known.access_token)
}

fn cursor_of(key: &ConnectionKey) -> String {
    URL_SAFE_NO_PAD.encode(key.to_bytes())
}

fn read_cursor(cursor: &str) -> Option<ConnectionKey> {
    ConnectionKey::from_bytes(&URL_SAFE_NO_PAD.decode(cursor).ok()?)
}
