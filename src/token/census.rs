//! The census of connections for the metrics: how many there are of each state, and how many end soon that nothing renews. Counted anew every few
//! minutes, a page at a time, and more seldom where it takes long.

use super::keeper::Keeper;
use crate::metrics::Counted;
use crate::store::{State, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(300);
const PAGE: usize = 1_000;
/// Of the time between two counts, so much is spent on one at most: a hundredth.
const SHARE: u32 = 100;

impl Keeper {
    /// Counts from now on, until the process ends. It lets go of the keeper between two counts.
    pub fn spawn_census(self: &Arc<Self>) {
        let keeper = Arc::downgrade(self);
        self.control().spawn(async move {
            loop {
                let began = Instant::now();
                let Some(keeper) = keeper.upgrade() else { return };
                match keeper.census().await {
                    Ok(counted) => keeper.events.set_connections(&counted),
                    Err(error) => tracing::debug!(error = %error, "the connections could not be counted"),
                }
                drop(keeper);
                tokio::time::sleep(EVERY.max(began.elapsed() * SHARE)).await;
            }
        });
    }

    /// One count of all connections.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn census(&self) -> Result<BTreeMap<Box<str>, Counted>, StoreError> {
        let mut counted: BTreeMap<Box<str>, Counted> = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.records.connections(None, after.as_ref(), PAGE).await?;
            let now = self.clock.now();
            for keyed in &page {
                let record = &keyed.record;
                let one = counted.entry((*record.key.provider).into()).or_default();
                match record.state {
                    State::Pending => one.pending += 1,
                    State::Active => one.active += 1,
                    State::Expired => one.expired += 1,
                    State::ReconnectRequired => one.reconnect_required += 1,
                }
                // What a refresh renews does not end.
                let ends = record.expires_at.filter(|_| record.state == State::Active && record.refresh_token.is_none());
                if let Some(left) = ends.map(|ends| ends.since(now)) {
                    one.ends_within_day += u64::from(left <= Duration::from_secs(86_400));
                    one.ends_within_week += u64::from(left <= Duration::from_secs(7 * 86_400));
                }
                if record.refresh_failures > 0 && record.state == State::Active {
                    one.refresh_failing += 1;
                }
            }
            if page.len() < PAGE {
                return Ok(counted);
            }
            after = page.into_iter().last().map(|keyed| keyed.record.key);
        }
    }
}
