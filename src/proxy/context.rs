//! What is known of one call besides its bytes: ids, start, what its end will tell to the metrics and the log.

use crate::base::clock::UnixMillis;
use crate::base::ids::random_bytes;
use crate::config::Route;
use crate::log;
use crate::metrics::recent::went_well;
use crate::metrics::{Ended, Meter, Meters, Seen, Slot};
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request};
use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The target of the one log line a call.
const CALL_LOG: &str = "attache::call";

/// Numbers for request and trace ids: unique, not secret, so a counter mixed with a random start serves (SplitMix64).
#[derive(Debug)]
pub(super) struct Ids {
    state: Cell<u64>,
}

impl Ids {
    pub(super) fn new() -> Self {
        Ids { state: Cell::new(u64::from_le_bytes(random_bytes::<8>())) }
    }

    fn next(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn hex(&self, words: usize, before: &str, between: &[usize], after: &str) -> Option<HeaderValue> {
        let mut text = String::with_capacity(before.len() + words * 16 + between.len() + after.len());
        text.push_str(before);
        for word in 0..words {
            if between.contains(&word) {
                text.push('-');
            }
            // Writing to a String cannot fail.
            let _ = write!(text, "{:016x}", self.next());
        }
        text.push_str(after);
        HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
    }
}

/// One call in the count of its worker's, until the end of its answer's body.
#[derive(Debug)]
pub(crate) struct InFlight(Rc<Cell<usize>>);

impl InFlight {
    /// `None` where there are as many already.
    pub(super) fn begin(count: &Rc<Cell<usize>>, most: usize) -> Option<InFlight> {
        if count.get() >= most {
            return None;
        }
        count.set(count.get() + 1);
        Some(InFlight(Rc::clone(count)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// One call's facts. Cells, because the call's one task writes them while it borrows the rest.
#[derive(Debug)]
pub(crate) struct Context {
    pub(super) request_id: HeaderValue,
    /// Set when the client sent none: a trace begins here (W3C Trace Context §3.2, not sampled).
    pub(super) traceparent: Option<HeaderValue>,
    /// There only when calls are counted or logged.
    account: RefCell<Option<Account>>,
    /// Handed on to the answer's body, where there is one to come.
    pub(super) in_flight: RefCell<Option<InFlight>>,
    waited: Cell<bool>,
    /// The end user's name stood in a token's place, and may be a real one that was left there.
    may_be_token: Cell<bool>,
}

/// What a call's end tells, gathered on its way.
#[derive(Debug)]
pub(crate) struct Account {
    started: Instant,
    /// The last sending to the upstream.
    sent: Option<Instant>,
    /// From there to the head of its answer.
    upstream: Option<Duration>,
    /// Its route's; `None` while there is none.
    meter: Option<Rc<Meter>>,
    /// Whom the call is counted with, where calls are counted.
    meters: Option<Rc<Meters>>,
    replays: u32,
    waited: bool,
    method: Method,
    request_id: HeaderValue,
    /// Whose token went on.
    connection_id: Option<Arc<str>>,
    /// Where calls have a line.
    rules: Option<log::Rules>,
}

impl Context {
    /// `rules`: which calls have a line. `meters`: where calls are counted.
    pub(super) fn open<B>(ids: &Ids, request: &Request<B>, rules: log::Rules, meters: Option<&Rc<Meters>>) -> Self {
        let headers = request.headers();
        let request_id = match headers.get(REQUEST_ID) {
            Some(given) if well_formed(given) => given.clone(),
            _ => ids.hex(2, "", &[], "").unwrap_or_else(|| HeaderValue::from_static("0")),
        };
        let traceparent = if headers.contains_key(TRACEPARENT) { None } else { ids.hex(3, "00-", &[2], "-00") };
        let is_logged = rules.calls != log::Calls::None && tracing::enabled!(target: CALL_LOG, tracing::Level::INFO);
        let account = (is_logged || meters.is_some()).then(|| Account {
            started: Instant::now(),
            sent: None,
            upstream: None,
            meter: None,
            meters: meters.cloned(),
            replays: 0,
            waited: false,
            method: request.method().clone(),
            request_id: request_id.clone(),
            connection_id: None,
            rules: is_logged.then_some(rules),
        });
        Context {
            request_id,
            traceparent,
            account: RefCell::new(account),
            in_flight: RefCell::new(None),
            waited: Cell::new(false),
            may_be_token: Cell::new(false),
        }
    }

    pub(super) fn routed(&self, meters: &Meters, route: &Route) {
        if let Some(account) = &mut *self.account.borrow_mut() {
            account.meter = Some(meters.at(route.slot, || (&route.name, route.provider.as_ref().map_or("", |provider| &provider.id))));
        }
    }

    /// The call carries this connection's token.
    pub(super) fn carries(&self, connection_id: &Arc<str>) {
        if let Some(account) = &mut *self.account.borrow_mut() {
            account.connection_id = Some(Arc::clone(connection_id));
        }
    }

    /// The call goes to the upstream now, for the first time or again.
    pub(super) fn sending(&self) {
        if let Some(account) = &mut *self.account.borrow_mut() {
            account.sent = Some(Instant::now());
        }
    }

    /// The head of the upstream's answer is here.
    pub(super) fn answered(&self) {
        if let Some(account) = &mut *self.account.borrow_mut() {
            account.upstream = account.sent.map(|sent| sent.elapsed());
        }
    }

    pub(super) fn waited_for_token(&self) {
        self.waited.set(true);
    }

    pub(super) fn named_by_placeholder(&self, name: &str) {
        // Tokens hold no `@`; a name without one is the client's to know.
        self.may_be_token.set(!name.contains('@'));
    }

    pub(super) fn may_name_token(&self) -> bool {
        self.may_be_token.get()
    }

    pub(super) fn replayed(&self) {
        if let Some(account) = &mut *self.account.borrow_mut() {
            account.replays += 1;
        }
    }

    /// What is to be told at the end of the response's body.
    pub(super) fn take_account(&self) -> Option<Account> {
        let mut account = self.account.borrow_mut().take()?;
        account.waited = self.waited.get();
        Some(account)
    }
}

/// A call whose client left before its answer began had effects all the same: its line is told here.
impl Drop for Context {
    fn drop(&mut self) {
        if let Some(account) = self.take_account() {
            account.tell(499, 0, false, Some("client-gone"));
        }
    }
}

impl Account {
    /// Once a call, at the end of its body.
    pub(super) fn tell(self, status: u16, bytes: u64, whole: bool, error: Option<&'static str>) {
        self.end(status, (bytes, None), whole, error);
    }

    /// At the end of a tunnel: bytes to the client and to the upstream.
    pub(super) fn tell_tunnel(self, (down, up): (u64, u64), whole: bool, error: Option<&'static str>) {
        self.end(101, (down, Some(up)), whole, error);
    }

    fn end(self, status: u16, (bytes, sent): (u64, Option<u64>), whole: bool, error: Option<&'static str>) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.started);
        if let Some(meters) = &self.meters {
            let (upstream, waited_for_token, repeated) = (self.upstream, self.waited, self.replays);
            let ended = Ended { status, took, upstream, bytes, waited_for_token, repeated, whole, error };
            match &self.meter {
                Some(meter) => meter.count(&ended),
                None => meters.at(Slot::NONE, || ("", "")).count(&ended),
            }
            meters.keep(went_well(status, !whole, error), now, || self.seen(&ended));
        }
        let Some(rules) = self.rules else { return };
        let named = |name: fn(&Meter) -> &str| self.meter.as_deref().map(name).filter(|name| !name.is_empty());
        let call = log::Call {
            request_id: self.request_id.to_str().unwrap_or_default(),
            route: named(Meter::route),
            provider: named(Meter::provider),
            connection_id: self.connection_id.as_deref(),
            method: self.method.as_str(),
            status,
            bytes,
            bytes_sent: sent,
            took,
            upstream: self.upstream,
            waited_for_token: self.waited,
            replays: self.replays,
            cut: !whole,
            error,
        };
        log::write(rules, &call);
    }

    fn seen(&self, ended: &Ended) -> Seen {
        let named = |name: fn(&Meter) -> &str| self.meter.as_deref().map(name).unwrap_or_default().into();
        Seen {
            // Given where it is kept.
            number: 0,
            at: UnixMillis::default(),
            request_id: self.request_id.to_str().unwrap_or_default().into(),
            route: named(Meter::route),
            provider: named(Meter::provider),
            connection_id: self.connection_id.clone(),
            method: self.method.as_str().into(),
            status: ended.status,
            bytes: ended.bytes,
            took: ended.took,
            upstream: ended.upstream,
            waited_for_token: ended.waited_for_token,
            replays: ended.repeated,
            cut: !ended.whole,
            error: ended.error,
        }
    }
}

/// A request id that may be kept: up to 128 visible characters without quotes or separators, so that it is safe in any log.
fn well_formed(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=128).contains(&bytes.len()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:=+/".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_well_formed_id_is_kept_and_a_hostile_one_replaced() {
        let ids = Ids::new();
        let open = |id: &'static [u8]| {
            let request = Request::builder().header("x-request-id", HeaderValue::from_bytes(id).expect("valid")).body(()).expect("valid");
            Context::open(&ids, &request, log::Rules::default(), None).request_id.clone()
        };
        assert_eq!(open(b"req-1.a:b"), "req-1.a:b");
        for hostile in [&b"a b"[..], b"a\"b", b"", b"\xc3\xa9"] {
            assert_eq!(open(hostile).len(), 32, "{hostile:?}");
        }
    }

    #[test]
    fn a_trace_is_begun_in_the_standard_form_or_carried() {
        let ids = Ids::new();
        let begun = Context::open(&ids, &Request::new(()), log::Rules::default(), None).traceparent.clone().expect("begun");
        let parts: Vec<_> = begun.to_str().expect("ascii").split('-').map(str::len).collect();
        assert_eq!(parts, [2, 32, 16, 2]);
        let carried = Request::builder().header("traceparent", "00-a-b-01").body(()).expect("valid");
        assert!(Context::open(&ids, &carried, log::Rules::default(), None).traceparent.is_none());
    }
}
