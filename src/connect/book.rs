//! Sessions in the store: found by their handle, written by compare-and-swap.

use super::session::{self, Session};
use super::{Connect, Refusal, codec};
use crate::store::{Expect, SessionWrite, StoreError};

/// What stands before a connect session's handle in its key, and before a device session's.
pub(super) const SESSIONS: &[u8] = b"s\0";
pub(super) const DEVICES: &[u8] = b"d\0";

/// A session and the version it was read at.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) version: u64,
    pub(super) session: Session,
}

pub(super) fn key(prefix: &[u8], handle: &str) -> Vec<u8> {
    [prefix, handle.as_bytes()].concat()
}

impl Connect {
    /// The session of this handle, in whatever phase, unless it has expired.
    pub(super) async fn by_handle(&self, handle: &str) -> Result<Option<Found>, StoreError> {
        let found = self.records.session(&key(SESSIONS, handle)).await?;
        let now = self.clock.now();
        Ok(found.and_then(|keyed| {
            let session = codec::decode(&keyed.record.0)?;
            (now < session.expires_at).then_some(Found { version: keyed.version, session })
        }))
    }

    /// The session of this id.
    pub(super) async fn by_id(&self, id: &str) -> Result<Option<Found>, StoreError> {
        let Some(handle) = session::handle_in_id(id) else { return Ok(None) };
        Ok(self.by_handle(handle).await?.filter(|found| found.session.id.fits(id)))
    }

    /// Writes the session's next phase, if nobody else has moved it since it was read.
    pub(super) async fn advance(&self, found: &Found) -> Result<u64, StoreError> {
        let plain = codec::encode(&found.session)?;
        let key = key(SESSIONS, &found.session.handle);
        let expect = if found.version == 0 { Expect::Absent } else { Expect::Version(found.version) };
        self.records.put_session(SessionWrite { key: &key, expect, value: Some(&plain) }).await
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            // Somebody else moved the session: it was used.
            StoreError::Conflict => Refusal::Gone,
            StoreError::Unavailable(_) | StoreError::Damaged(_) => {
                tracing::error!(error = %error, "a connect session cannot be read or written");
                Refusal::Unavailable
            }
        }
    }
}
