//! The end of sessions that nobody ended: expired ones are deleted, and a grant that the app never confirmed is revoked.

use super::book::{DEVICES, Found, SESSIONS};
use super::session::Phase;
use super::{Connect, codec};
use crate::store::{Expect, SessionWrite, StoreError};
use std::sync::{Arc, Weak};
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(60);
const PAGE: usize = 256;

impl Connect {
    /// Sweeps once a minute for as long as the engine lives.
    pub fn spawn_sweep(self: &Arc<Self>) {
        let connect: Weak<Connect> = Arc::downgrade(self);
        self.control.spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let Some(connect) = connect.upgrade() else { return };
                if let Err(error) = connect.sweep().await {
                    tracing::warn!(error = %error, "expired connect sessions could not be removed");
                }
            }
        });
    }

    /// Removes what has expired.
    ///
    /// # Errors
    /// When the store cannot be read; what was removed stays removed.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        for prefix in [SESSIONS, DEVICES] {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = self.records.sessions(prefix, after.as_deref(), PAGE).await?;
                for (key, keyed) in &page {
                    match keyed {
                        // Sealed with a key that is gone: nobody can use it any more.
                        None => self.delete(key, Expect::Any).await,
                        Some(keyed) if prefix == SESSIONS => self.sweep_session(key, keyed.version, &keyed.record.0).await,
                        Some(keyed) => {
                            let over = codec::decode_device(&keyed.record.0).is_none_or(|device| device.is_over(self.clock.now()));
                            if over {
                                self.delete(key, Expect::Version(keyed.version)).await;
                            }
                        }
                    }
                }
                match page.into_iter().next_back() {
                    Some((key, _)) => after = Some(key),
                    None => break,
                }
            }
        }
        Ok(())
    }

    async fn sweep_session(&self, key: &[u8], version: u64, bytes: &[u8]) {
        let Some(session) = codec::decode(bytes) else { return self.delete(key, Expect::Version(version)).await };
        if self.clock.now() < session.expires_at {
            return;
        }
        if let Phase::Granted(granted) = session.phase.clone() {
            tracing::warn!(
                event = "connect.unconfirmed",
                provider.id = %granted.connection.key.provider,
                "the app never completed a connection: what was granted is discarded"
            );
            let mut found = Found { version, session };
            if let Err(error) = self.discard(&mut found, &granted).await {
                tracing::warn!(error = %error, "an unconfirmed connection could not be discarded: the next sweep tries again");
                return;
            }
            return self.delete(key, Expect::Version(found.version)).await;
        }
        self.delete(key, Expect::Version(version)).await;
    }

    async fn delete(&self, key: &[u8], expect: Expect) {
        // Moved meanwhile, or not deleted: the next sweep looks again.
        let _ = self.records.put_session(SessionWrite { key, expect, value: None }).await;
    }
}
