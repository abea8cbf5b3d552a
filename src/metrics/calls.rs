//! Counts of calls: by route, in cells that one worker writes and the scrape reads.
//!
//! A cell is an atomic that is only ever stored to by its worker's thread, so that counting costs no locked instruction and no cache line is
//! fought over. A scrape adds up the workers.

use super::recent::{Recent, Seen, Window};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Upper bounds of the times' buckets, in seconds; the last one has none.
const BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// By a status' first digit; what no status has stands under 0.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// A number that one thread writes.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

impl Cell {
    fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug, Default)]
struct Times {
    buckets: [Cell; BOUNDS.len() + 1],
    sum_us: Cell,
}

impl Times {
    fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS.iter().position(|bound| us as f64 <= bound * 1e6).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.buckets.get(at) {
            bucket.add(1);
        }
        self.sum_us.add(us);
    }
}

/// One route's cells of one worker.
#[derive(Debug, Default)]
struct Cells {
    by_class: [Cell; CLASSES.len()],
    took: Times,
    upstream: Times,
    bytes: Cell,
    waited: Cell,
    repeated: Cell,
    cut: Cell,
    /// Calls that ended in an error of Attaché's own, by its name (contract §5). Errors may take a lock; only the scrape wants it besides.
    errors: Mutex<BTreeMap<&'static str, u64>>,
}

type Label = (Box<str>, Box<str>);

/// Where a route's meter stands with every worker. Equal names have one slot, over all reloads; as many as configs have ever named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(usize);

static SLOTS: LazyLock<Mutex<HashMap<Label, usize>>> = LazyLock::new(Mutex::default);

impl Slot {
    /// For calls that no route took.
    pub const NONE: Slot = Slot(0);

    /// The slot of a route with its provider, `""` where it has none. Asked at config load alone.
    pub fn of(route: &str, provider: &str) -> Slot {
        let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        let next = slots.len() + 1;
        Slot(*slots.entry((route.into(), provider.into())).or_insert(next))
    }
}

/// What the scrape reads.
#[derive(Default)]
pub(super) struct Calls {
    cells: Mutex<Vec<(Label, Arc<Cells>)>>,
    in_flight: Mutex<Vec<Arc<AtomicU64>>>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub status: u16,
    pub took: Duration,
    /// From the last sending to the head of the upstream's answer; `None` where there was none.
    pub upstream: Option<Duration>,
    /// Of the answer's body, to the client.
    pub bytes: u64,
    pub waited_for_token: bool,
    pub repeated: u32,
    /// Whether the answer went through to its end.
    pub whole: bool,
    /// The name of Attaché's own error.
    pub error: Option<&'static str>,
}

/// One route's counters on one worker.
#[derive(Debug)]
pub struct Meter {
    route: Box<str>,
    provider: Box<str>,
    cells: Arc<Cells>,
}

impl Meter {
    /// The route's name; `""` where no route took the call.
    pub fn route(&self) -> &str {
        &self.route
    }

    /// Its provider's id, or `""`.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    pub fn count(&self, ended: &Ended) {
        let cells = &self.cells;
        if let Some(class) = cells.by_class.get(usize::from(ended.status / 100)) {
            class.add(1);
        }
        cells.took.observe(ended.took);
        if let Some(upstream) = ended.upstream {
            cells.upstream.observe(upstream);
        }
        cells.bytes.add(ended.bytes);
        if ended.waited_for_token {
            cells.waited.add(1);
        }
        if ended.repeated > 0 {
            cells.repeated.add(u64::from(ended.repeated));
        }
        if !ended.whole {
            cells.cut.add(1);
        }
        if let Some(error) = ended.error {
            *cells.errors.lock().unwrap_or_else(PoisonError::into_inner).entry(error).or_default() += 1;
        }
    }
}

/// One worker's meters, made at a route's first call. They outlive reloads: a counter never goes back.
pub struct Meters {
    calls: Arc<Calls>,
    known: RefCell<Vec<Option<Rc<Meter>>>>,
    in_flight: Arc<AtomicU64>,
    recent: Arc<Recent>,
    window: Window,
}

impl Meters {
    pub(super) fn new(calls: Arc<Calls>, recent: Arc<Recent>) -> Meters {
        let in_flight = Arc::new(AtomicU64::new(0));
        calls.in_flight.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&in_flight));
        Meters { calls, known: RefCell::default(), in_flight, recent, window: Window::default() }
    }

    /// The meter of a route, by its slot; its names are asked for at its first call.
    pub fn at<'n>(&self, slot: Slot, names: impl FnOnce() -> (&'n str, &'n str)) -> Rc<Meter> {
        let mut known = self.known.borrow_mut();
        if known.len() <= slot.0 {
            known.resize(slot.0 + 1, None);
        }
        match known.get_mut(slot.0) {
            Some(Some(meter)) => Rc::clone(meter),
            Some(empty) => Rc::clone(empty.insert(self.make(names()))),
            // It was just made room for.
            None => self.make(names()),
        }
    }

    fn make(&self, (route, provider): (&str, &str)) -> Rc<Meter> {
        let cells = Arc::new(Cells::default());
        let label = (route.into(), provider.into());
        self.calls.cells.lock().unwrap_or_else(PoisonError::into_inner).push((label, Arc::clone(&cells)));
        Rc::new(Meter { route: route.into(), provider: provider.into(), cells })
    }

    /// Keeps a call for people to look at, if it is not one too many; asked for only then.
    pub fn keep(&self, went_well: bool, now: Instant, seen: impl FnOnce() -> Seen) {
        if self.window.admits(went_well, now, &self.recent) {
            self.recent.keep(seen());
        }
    }

    /// Tells how many calls this worker has in flight; by its own thread alone.
    pub fn set_in_flight(&self, count: usize) {
        self.in_flight.store(count as u64, Relaxed);
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").field("known", &self.known.borrow().len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").finish_non_exhaustive()
    }
}

/// How many fell in each bucket, and the sum of all in microseconds.
type Spread = ([u64; BOUNDS.len() + 1], u64);
/// A histogram's name, its help, and where it stands in the sum.
type Histogram = (&'static str, &'static str, fn(&Sum) -> &Spread);

/// One route over all workers.
#[derive(Default)]
struct Sum {
    by_class: [u64; CLASSES.len()],
    took: Spread,
    upstream: Spread,
    bytes: u64,
    waited: u64,
    repeated: u64,
    cut: u64,
    errors: BTreeMap<&'static str, u64>,
}

impl Sum {
    fn add(&mut self, cells: &Cells) {
        for (sum, cell) in self.by_class.iter_mut().zip(&cells.by_class) {
            *sum += cell.get();
        }
        for ((buckets, sum_us), times) in [(&mut self.took, &cells.took), (&mut self.upstream, &cells.upstream)] {
            for (sum, cell) in buckets.iter_mut().zip(&times.buckets) {
                *sum += cell.get();
            }
            *sum_us += times.sum_us.get();
        }
        self.bytes += cells.bytes.get();
        self.waited += cells.waited.get();
        self.repeated += cells.repeated.get();
        self.cut += cells.cut.get();
        for (error, count) in &*cells.errors.lock().unwrap_or_else(PoisonError::into_inner) {
            *self.errors.entry(error).or_default() += count;
        }
    }
}

/// A counter's name, its help, and where it stands in the sum.
type Plain = (&'static str, &'static str, fn(&Sum) -> u64);

const PLAIN: [Plain; 4] = [
    ("response_bytes", "Bytes of answers' bodies to clients", |sum| sum.bytes),
    ("requests_waited_for_token", "Calls that waited for a token", |sum| sum.waited),
    ("upstream_repeats", "Calls made again: stale connections, refused tokens, retry", |sum| sum.repeated),
    ("responses_cut", "Answers that did not go through to their end", |sum| sum.cut),
];

impl Calls {
    /// Each route's calls, and those among them whose status is 5xx.
    pub(super) fn outcomes(&self) -> BTreeMap<Box<str>, (u64, u64)> {
        let mut outcomes: BTreeMap<Box<str>, (u64, u64)> = BTreeMap::new();
        for ((route, _), cells) in &*self.cells.lock().unwrap_or_else(PoisonError::into_inner) {
            let (all, failed) = outcomes.entry(route.clone()).or_default();
            *all += cells.by_class.iter().map(Cell::get).sum::<u64>();
            *failed += cells.by_class.last().map_or(0, Cell::get);
        }
        outcomes
    }
}

impl Collector for Calls {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut sums: BTreeMap<Label, Sum> = BTreeMap::new();
        for (label, cells) in &*self.cells.lock().unwrap_or_else(PoisonError::into_inner) {
            sums.entry(label.clone()).or_default().add(cells);
        }
        let counter = MetricType::Counter;
        let mut requests = encoder.encode_descriptor("requests", "Calls by the class of their answer's status", None, counter)?;
        for ((route, provider), sum) in &sums {
            for (class, count) in CLASSES.iter().zip(sum.by_class).filter(|(_, count)| *count > 0) {
                let labels = [("route", &**route), ("provider", &**provider), ("status", class)];
                ConstCounter::new(count).encode(requests.encode_family(&labels)?)?;
            }
        }
        let mut errors = encoder.encode_descriptor("request_errors", "Calls that ended in an error of Attaché's own", None, counter)?;
        for ((route, provider), sum) in &sums {
            for (error, count) in &sum.errors {
                let labels = [("route", &**route), ("provider", &**provider), ("error", error)];
                ConstCounter::new(*count).encode(errors.encode_family(&labels)?)?;
            }
        }
        for (name, help, of) in PLAIN {
            let mut plain = encoder.encode_descriptor(name, help, None, counter)?;
            for ((route, provider), sum) in &sums {
                let labels = [("route", &**route), ("provider", &**provider)];
                ConstCounter::new(of(sum)).encode(plain.encode_family(&labels)?)?;
            }
        }
        let seconds = Some(&prometheus_client::registry::Unit::Seconds);
        let histograms: [Histogram; 2] = [
            ("request_duration", "From a call's head to the end of its answer", |sum| &sum.took),
            ("upstream_first_byte", "From the last sending to the head of the upstream's answer", |sum| &sum.upstream),
        ];
        for (name, help, of) in histograms {
            let mut family = encoder.encode_descriptor(name, help, seconds, MetricType::Histogram)?;
            for ((route, provider), sum) in &sums {
                let labels = [("route", &**route), ("provider", &**provider)];
                let (counts, sum_us) = of(sum);
                let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
                let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
                let count = counts.iter().sum();
                family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(*sum_us as f64 / 1e6, count, &buckets, None)?;
            }
        }
        let in_flight: u64 = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|count| count.load(Relaxed)).sum();
        let gauge = encoder.encode_descriptor("requests_in_flight", "Calls under way", None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(in_flight).unwrap_or(i64::MAX)).encode(gauge)
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::calls::{Ended, Slot};
    use crate::metrics::{Meter, Meters, Metrics};
    use std::rc::Rc;
    use std::time::Duration;

    const ENDED: Ended = Ended {
        status: 200,
        took: Duration::from_millis(3),
        upstream: Some(Duration::from_millis(2)),
        bytes: 10,
        waited_for_token: false,
        repeated: 0,
        whole: true,
        error: None,
    };

    fn meter(meters: &Meters, route: &str, provider: &str) -> Rc<Meter> {
        let slot = if route.is_empty() { Slot::NONE } else { Slot::of(route, provider) };
        meters.at(slot, || (route, provider))
    }

    #[test]
    fn workers_are_added_up_by_route() {
        let metrics = Metrics::new(|| 0);
        let (one, other) = (metrics.worker(), metrics.worker());
        meter(&one, "photos", "google").count(&ENDED);
        meter(&one, "photos", "google").count(&Ended { status: 502, error: Some("refresh-failed"), whole: false, upstream: None, ..ENDED });
        meter(&other, "photos", "google").count(&Ended { repeated: 2, waited_for_token: true, took: Duration::from_secs(60), ..ENDED });
        meter(&other, "", "").count(&Ended { status: 404, error: Some("no-route"), upstream: None, ..ENDED });
        one.set_in_flight(3);
        other.set_in_flight(4);
        let text = metrics.text();
        for line in [
            "attache_requests_total{route=\"photos\",provider=\"google\",status=\"2xx\"} 2",
            "attache_requests_total{route=\"photos\",provider=\"google\",status=\"5xx\"} 1",
            "attache_requests_total{route=\"\",provider=\"\",status=\"4xx\"} 1",
            "attache_request_errors_total{route=\"photos\",provider=\"google\",error=\"refresh-failed\"} 1",
            "attache_response_bytes_total{route=\"photos\",provider=\"google\"} 30",
            "attache_requests_waited_for_token_total{route=\"photos\",provider=\"google\"} 1",
            "attache_upstream_repeats_total{route=\"photos\",provider=\"google\"} 2",
            "attache_responses_cut_total{route=\"photos\",provider=\"google\"} 1",
            "attache_request_duration_seconds_bucket{le=\"0.005\",route=\"photos\",provider=\"google\"} 2",
            "attache_request_duration_seconds_bucket{le=\"+Inf\",route=\"photos\",provider=\"google\"} 3",
            "attache_request_duration_seconds_count{route=\"photos\",provider=\"google\"} 3",
            "attache_upstream_first_byte_seconds_count{route=\"photos\",provider=\"google\"} 2",
            "attache_requests_in_flight 7",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_label_that_looks_like_syntax_is_one() {
        let metrics = Metrics::new(|| 0);
        meter(&metrics.worker(), "a\"} 1\nb{", "x\\").count(&ENDED);
        let text = metrics.text();
        assert!(text.contains("attache_requests_total{route=\"a\\\"} 1\\nb{\",provider=\"x\\\\\",status=\"2xx\"} 1"), "{text}");
    }
}
