//! What a crash left: intents whose outcome is not on disk.

use super::keeper::Keeper;
use crate::base::ids::{ConnectionKey, random_bytes};
use crate::store::{Intent, Lease, StoreError};
use std::sync::Arc;
use std::time::Duration;

/// How long a lease is taken to see whether it can be.
const LOOK: Duration = Duration::from_millis(50);
/// How often, and how many times, an intent that another replica may be at is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOKS_MAX: usize = 120;

impl Keeper {
    /// Tells of each token call that was cut off before its answer was on disk, and answers all intents that stand, also those of calls that
    /// other replicas make just now.
    ///
    /// They stay until a refresh of the connection settles them: [`Keeper::resolve`] begins one, or the connection's next call does. The kept
    /// refresh token is the best one there is, and a provider that rotates it mostly leaves the last one a leeway.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn recover(self: &Arc<Self>) -> Result<Vec<Intent>, StoreError> {
        let intents = self.records.intents().await?;
        for intent in &intents {
            if self.is_anothers(intent).await {
                self.tell_later(intent.clone());
            } else {
                self.tell(intent).await?;
            }
        }
        Ok(intents)
    }

    /// Where replicas share the store, an intent may be of a call that another of them makes just now: it holds the connection's lease then. A
    /// killed one's ends by itself.
    pub(super) async fn is_anothers(&self, intent: &Intent) -> bool {
        if !self.records.is_shared() {
            return false;
        }
        let (key, holder) = (intent.key.to_bytes(), random_bytes());
        match self.records.lease(&key, holder, LOOK).await {
            Ok(Lease::Held) => {
                // One that is not let go of ends in a moment.
                let _ = self.records.release(&key, holder).await;
                false
            }
            Ok(Lease::Taken { .. }) | Err(_) => true,
        }
    }

    /// Tells of it once its lease has ended and it stands there still.
    fn tell_later(self: &Arc<Self>, intent: Intent) {
        let keeper = Arc::downgrade(self);
        self.control().spawn(async move {
            for _ in 0..LOOKS_MAX {
                tokio::time::sleep(LOOK_EVERY).await;
                let Some(keeper) = keeper.upgrade() else { return };
                match keeper.records.intent(&intent.key).await {
                    Ok(Some(found)) if found == intent => {}
                    Ok(_) => return,
                    Err(_) => continue,
                }
                if !keeper.is_anothers(&intent).await {
                    let _ = keeper.tell(&intent).await;
                    return;
                }
            }
        });
    }

    /// Tells of the intent that a dead replica left of this connection, if there is one: the refresh that comes now replaces it.
    pub(super) async fn tell_left(&self, key: &ConnectionKey) {
        if let Ok(Some(intent)) = self.records.intent(key).await {
            let _ = self.tell(&intent).await;
        }
    }

    async fn tell(&self, intent: &Intent) -> Result<(), StoreError> {
        let connection = self.records.connection(&intent.key).await?;
        let id = connection.as_ref().map_or("gone", |keyed| &*keyed.record.id);
        tracing::warn!(
            provider.id = %intent.key.provider,
            connection.id = id,
            refresh.begun_at = %intent.begun_at.to_rfc3339(),
            "a token call was cut off before its answer was on disk: the next refresh will tell whether the grant still stands"
        );
        if connection.is_some_and(|keyed| intent.is_open_on(&keyed.record)) {
            self.table.slot(intent.key.borrow()).state().unanswered.get_or_insert(intent.begun_at);
        }
        Ok(())
    }
}
