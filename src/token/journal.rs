//! What a crash left: intents whose outcome is not on disk.

use super::keeper::Keeper;
use crate::store::StoreError;

impl Keeper {
    /// Tells of each token call that was cut off before its answer was on disk, and answers how many there were.
    ///
    /// They stay: the next refresh of the connection replaces its intent and removes it when its outcome is known. Nothing is refreshed here,
    /// for the kept refresh token is the best one there is, and a provider that rotates it mostly leaves the last one a leeway.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let intents = self.records.intents().await?;
        for intent in &intents {
            let connection = self.records.connection(&intent.key).await?;
            let id = connection.as_ref().map_or("gone", |keyed| &*keyed.record.id);
            tracing::warn!(
                provider.id = %intent.key.provider,
                connection.id = id,
                refresh.begun_at = %intent.begun_at.to_rfc3339(),
                "a token call was cut off before its answer was on disk: the next refresh will tell whether the grant still stands"
            );
        }
        Ok(intents.len())
    }
}
