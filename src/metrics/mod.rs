//! Floor 1: what is counted, and how it is shown at `/metrics` (OpenMetrics by prometheus-client).
//!
//! Calls are counted by each worker in cells that it alone writes (`calls.rs`), so that the hot path shares nothing; the control plane's events,
//! which are rare, by shared counters (`events.rs`). Labels are routes, providers and fixed words: never an end user, nor anything that a request
//! may choose.

pub mod calls;
pub mod events;
pub mod recent;

pub use calls::{Ended, Meter, Meters, Slot};
pub use events::{Counted, Events, Refreshed};
pub use recent::{Recent, Seen};

use calls::Calls;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The content type of what [`Metrics::text`] answers.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every counter of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Arc<Calls>,
    events: Events,
    recent: Arc<Recent>,
}

/// The log's own count.
#[derive(Debug)]
struct Dropped(fn() -> u64);

impl Collector for Dropped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Log lines that were dropped because what reads the log was too slow";
        let dropped = encoder.encode_descriptor("log_lines_dropped", help, None, MetricType::Counter)?;
        ConstCounter::new((self.0)()).encode(dropped)
    }
}

impl Metrics {
    /// `dropped_log_lines`: asked at each scrape.
    pub fn new(dropped_log_lines: fn() -> u64) -> Arc<Metrics> {
        let mut registry = Registry::with_prefix("attache");
        let calls = Arc::new(Calls::default());
        registry.register_collector(Box::new(Arc::clone(&calls)));
        registry.register_collector(Box::new(Dropped(dropped_log_lines)));
        let events = Events::register(&mut registry);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What runs", build);
        Arc::new(Metrics { registry, calls, events, recent: Arc::default() })
    }

    /// The counters of one worker, which it alone writes.
    pub fn worker(&self) -> Meters {
        Meters::new(Arc::clone(&self.calls), Arc::clone(&self.recent))
    }

    /// The last calls.
    pub fn recent(&self) -> &Arc<Recent> {
        &self.recent
    }

    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Each route's calls since the start, and those among them that ended in a server's error.
    pub fn outcomes(&self) -> BTreeMap<Box<str>, (u64, u64)> {
        self.calls.outcomes()
    }

    /// All of it as OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
