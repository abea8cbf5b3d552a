//! Counts of what happens beside the calls: refreshes, reloads, connect sessions. Rare, so that shared counters cost nothing.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::time::Duration;

/// Of token calls, in seconds.
const BOUNDS: [f64; 10] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What came of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    Ok,
    /// It is tried again; the grant stands.
    Failed,
    /// The provider refused the grant: its end user has to connect anew.
    Ended,
}

impl Refreshed {
    fn word(self) -> &'static str {
        match self {
            Refreshed::Ok => "ok",
            Refreshed::Failed => "failed",
            Refreshed::Ended => "ended",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refresh {
    provider: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Provider {
    provider: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    provider: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ending {
    provider: String,
    within: &'static str,
}

/// One provider's connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    pub active: u64,
    pub pending: u64,
    pub expired: u64,
    pub reconnect_required: u64,
    /// Active ones whose last refresh failed and is tried again.
    pub refresh_failing: u64,
    /// Active ones that nothing renews, and that end within so long; the week's hold the day's.
    pub ends_within_day: u64,
    pub ends_within_week: u64,
}

/// The counters of the control plane. Clones are the same counters.
#[derive(Debug, Clone)]
pub struct Events {
    refreshes: Family<Refresh, Counter>,
    refresh_seconds: Family<Provider, Histogram, fn() -> Histogram>,
    connected: Family<Provider, Counter>,
    connections: Family<State, Gauge>,
    ending: Family<Ending, Gauge>,
    failing: Family<Provider, Gauge>,
    generation: Gauge,
    config_refused: Gauge,
    store_up: Gauge,
}

impl Default for Events {
    /// Counters that no scrape reads.
    fn default() -> Self {
        Events {
            refreshes: Family::default(),
            refresh_seconds: Family::new_with_constructor(|| Histogram::new(BOUNDS)),
            connected: Family::default(),
            connections: Family::default(),
            ending: Family::default(),
            failing: Family::default(),
            generation: Gauge::default(),
            config_refused: Gauge::default(),
            store_up: Gauge::default(),
        }
    }
}

impl Events {
    pub(super) fn register(registry: &mut Registry) -> Events {
        let events = Events::default();
        registry.register("refreshes", "Refreshes of connections by what came of them", events.refreshes.clone());
        let help = "How long token calls took";
        registry.register_with_unit("refresh_duration", help, Unit::Seconds, events.refresh_seconds.clone());
        registry.register("connections_made", "Connections that end users made or that were imported", events.connected.clone());
        registry.register("connections", "Connections by their state, counted every few minutes", events.connections.clone());
        registry.register(
            "connections_ending",
            "Active connections that nothing renews, and that end within so long",
            events.ending.clone(),
        );
        registry.register(
            "connections_refresh_failing",
            "Active connections whose last refresh failed and is tried again",
            events.failing.clone(),
        );
        registry.register("config_generation", "The number of the config that is live", events.generation.clone());
        registry.register(
            "config_refused",
            "1 while the last config read was refused and an older one is live",
            events.config_refused.clone(),
        );
        registry.register("store_up", "1 while the store takes writes", events.store_up.clone());
        events.store_up.set(1);
        events
    }

    pub fn refreshed(&self, provider: &str, outcome: Refreshed, took: Duration) {
        self.refreshes.get_or_create(&Refresh { provider: provider.to_owned(), outcome: outcome.word() }).inc();
        self.refresh_seconds.get_or_create(&Provider { provider: provider.to_owned() }).observe(took.as_secs_f64());
    }

    pub fn connected(&self, provider: &str) {
        self.connected.get_or_create(&Provider { provider: provider.to_owned() }).inc();
    }

    pub fn set_connections(&self, counted: &BTreeMap<Box<str>, Counted>) {
        // A provider whose connections are gone shows none.
        self.connections.clear();
        self.ending.clear();
        self.failing.clear();
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (provider, counted) in counted {
            let provider = || provider.to_string();
            for (state, count) in [
                ("active", counted.active),
                ("pending", counted.pending),
                ("expired", counted.expired),
                ("reconnect_required", counted.reconnect_required),
            ] {
                self.connections.get_or_create(&State { provider: provider(), state }).set(number(count));
            }
            for (within, count) in [("1d", counted.ends_within_day), ("7d", counted.ends_within_week)] {
                self.ending.get_or_create(&Ending { provider: provider(), within }).set(number(count));
            }
            self.failing.get_or_create(&Provider { provider: provider() }).set(number(counted.refresh_failing));
        }
    }

    /// The number of the config that is live, and whether a later one was refused.
    pub fn set_config(&self, generation: u64, refused: bool) {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.config_refused.set(i64::from(refused));
    }

    pub fn set_store_up(&self, up: bool) {
        self.store_up.set(i64::from(up));
    }
}
