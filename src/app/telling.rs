//! What is told beside the changes of connections: a config that was refused, calls that fail in numbers; and who takes notices to their receivers.

use crate::base::clock::Clock;
use crate::base::ids::random_bytes;
use crate::config::Live;
use crate::metrics::Metrics;
use crate::notices::{Deliverer, Desk, Event, Fact};
use crate::store::Records;
use crate::upstream::Fetch;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How often the calls of each route are judged.
const JUDGE_EVERY: Duration = Duration::from_secs(60);
/// A route is told of when so many of its calls in that time failed, and they were at least half; and is well again at less than a tenth.
const FAILED_LEAST: u64 = 10;

/// Starts all of it.
pub(super) fn start(live: &Arc<Live>, desk: &Arc<Desk>, records: &Records, fetch: Fetch, clock: &Arc<dyn Clock>, metrics: &Arc<Metrics>) {
    desk.set_targets(&live.snapshot().notify);
    follow_config(live, desk);
    tell_refusals(live, desk, records);
    judge_calls(live, desk, records, metrics);
    let deliverer = Deliverer { desk: Arc::clone(desk), records: records.clone(), fetch, clock: Arc::clone(clock) };
    tokio::spawn(deliverer.run(random_bytes()));
}

/// Keeps the log's level as the live config says.
pub(super) fn follow_log(live: &Arc<Live>) {
    let (mut generations, live) = (live.subscribe(), Arc::downgrade(live));
    generations.mark_changed();
    tokio::spawn(async move {
        let mut level = None;
        while generations.changed().await.is_ok() {
            let Some(live) = live.upgrade() else { return };
            let wanted = live.snapshot().log.level.clone();
            if wanted != level {
                crate::log::set_level(wanted.as_deref());
                level = wanted;
            }
        }
    });
}

fn follow_config(live: &Arc<Live>, desk: &Arc<Desk>) {
    let (mut generations, live, desk) = (live.subscribe(), Arc::downgrade(live), Arc::clone(desk));
    tokio::spawn(async move {
        while generations.changed().await.is_ok() {
            let Some(live) = live.upgrade() else { return };
            desk.set_targets(&live.snapshot().notify);
        }
    });
}

fn tell_refusals(live: &Arc<Live>, desk: &Arc<Desk>, records: &Records) {
    let (mut refusals, desk, records) = (live.refusals(), Arc::clone(desk), records.clone());
    tokio::spawn(async move {
        while refusals.changed().await.is_ok() {
            let errors = refusals.borrow_and_update().clone();
            if !errors.is_empty() {
                put(&desk, &records, Event::ConfigRefused, &Fact::Config { errors: &errors }).await;
            }
        }
    });
}

fn judge_calls(live: &Arc<Live>, desk: &Arc<Desk>, records: &Records, metrics: &Arc<Metrics>) {
    let (live, desk, records, metrics) = (Arc::downgrade(live), Arc::clone(desk), records.clone(), Arc::clone(metrics));
    tokio::spawn(async move {
        let mut before = BTreeMap::new();
        let mut failing: BTreeSet<Box<str>> = BTreeSet::new();
        loop {
            tokio::time::sleep(JUDGE_EVERY).await;
            if live.upgrade().is_none() {
                return;
            }
            let now = metrics.outcomes();
            for (route, (all, failed)) in &now {
                let (all_before, failed_before) = before.get(route).copied().unwrap_or_default();
                let (all, failed) = (all - all_before, failed - failed_before);
                if failed >= FAILED_LEAST && failed * 2 >= all && failing.insert(route.clone()) {
                    let detail = format!("{failed} of {all} calls in the last minute ended in a server's error");
                    put(&desk, &records, Event::UpstreamErrors, &Fact::Route { name: route, detail: &detail }).await;
                } else if failed * 10 < all {
                    failing.remove(route);
                }
            }
            before = now;
        }
    });
}

async fn put(desk: &Desk, records: &Records, event: Event, fact: &Fact<'_>) {
    let letters = desk.letters(event, fact);
    if !letters.is_empty()
        && let Err(error) = records.put_notices(&letters).await
    {
        tracing::warn!(error = %error, notice.event = event.name(), "a notice could not be put into the outbox");
    }
}
