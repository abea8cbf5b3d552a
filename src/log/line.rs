//! The line of a call: put together in a buffer of its worker's thread, written many at a time.

use super::{Calls, Format, OUTPUT, Rules};
use crate::base::clock::{Clock, SystemClock, UnixMillis};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// What RUST_LOG calls these lines.
const TARGET: &str = "attache::call";
/// A buffer goes out when it holds so much, or so long after its first line.
const BUFFER_MOST: usize = 64 * 1024;
const BUFFER_FOR: Duration = Duration::from_millis(20);

/// How a call ended. Never a query string, a name of an end user, nor a token.
#[derive(Debug, Clone, Copy)]
pub struct Call<'c> {
    /// Visible characters without quotes.
    pub request_id: &'c str,
    pub route: Option<&'c str>,
    pub provider: Option<&'c str>,
    /// Whose token went on, by the connection's id.
    pub connection_id: Option<&'c str>,
    pub method: &'c str,
    pub status: u16,
    /// Of the answer's body, or of a tunnel, to the client.
    pub bytes: u64,
    /// Of a tunnel, to the upstream.
    pub bytes_sent: Option<u64>,
    pub took: Duration,
    /// From the last sending to the head of the upstream's answer.
    pub upstream: Option<Duration>,
    pub waited_for_token: bool,
    pub replays: u32,
    pub cut: bool,
    /// The name of Attaché's own error.
    pub error: Option<&'c str>,
}

impl Call<'_> {
    fn went_well(&self) -> bool {
        self.status < 400 && !self.cut && self.error.is_none()
    }
}

thread_local! {
    static LINES: RefCell<Lines> = RefCell::new(Lines::default());
}

#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    count: u64,
    stamp: Stamp,
    /// Of the calls that went well: how much of a line is due.
    due: f64,
    /// Tells the thread's [`tail`] of a first line.
    tail: Option<Rc<Notify>>,
}

/// Writes the line, if the rules let this call have one.
pub fn write(rules: Rules, call: &Call<'_>) {
    match rules.calls {
        Calls::None => return,
        Calls::Errors if call.went_well() => return,
        Calls::All | Calls::Errors => {}
    }
    let is_left_out = call.went_well() && rules.sample < 1.0 && !LINES.with_borrow_mut(|lines| lines.is_due(rules.sample));
    match OUTPUT.get() {
        _ if is_left_out => {}
        Some(output) if output.is_direct => LINES.with_borrow_mut(|lines| lines.add(output.format, call)),
        _ => event(call),
    }
}

/// Lets this thread's lines out soon after they came. For each worker to spawn once; ends with it.
pub async fn tail() {
    let notify = LINES.with_borrow_mut(|lines| Rc::clone(lines.tail.get_or_insert_with(Rc::default)));
    loop {
        notify.notified().await;
        tokio::time::sleep(BUFFER_FOR).await;
        flush();
    }
}

/// Hands this thread's lines to the writer.
pub(super) fn flush() {
    LINES.with_borrow_mut(Lines::flush);
}

impl Lines {
    /// Of many calls the share that is asked for, evenly.
    fn is_due(&mut self, share: f64) -> bool {
        self.due += share;
        let is_due = self.due >= 1.0;
        if is_due {
            self.due -= 1.0;
        }
        is_due
    }

    fn add(&mut self, format: Format, call: &Call<'_>) {
        let was_empty = self.buffer.is_empty();
        self.stamp.set(SystemClock.now());
        match format {
            Format::Json => json(&mut self.buffer, self.stamp.text(), call),
            Format::Text => text(&mut self.buffer, self.stamp.text(), call),
        }
        self.buffer.push(b'\n');
        self.count += 1;
        match &self.tail {
            Some(tail) if self.buffer.len() < BUFFER_MOST => {
                if was_empty {
                    tail.notify_one();
                }
            }
            _ => self.flush(),
        }
    }

    fn flush(&mut self) {
        if self.count > 0
            && let Some(writer) = OUTPUT.get().and_then(|output| output.writer.as_ref())
        {
            // As much again as it came to hold: little on a quiet day.
            let next = Vec::with_capacity(self.buffer.len());
            writer.push(std::mem::replace(&mut self.buffer, next), std::mem::take(&mut self.count));
        }
    }
}

/// The thread ends.
impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}

/// As an event, where lines are for people or for a subscriber of the embedding program's.
fn event(call: &Call<'_>) {
    tracing::info!(
        target: TARGET,
        {
            request.id = call.request_id,
            route.name = call.route,
            provider.id = call.provider,
            connection.id = call.connection_id,
            http.method = %call.method,
            http.status = call.status,
            body.bytes = call.bytes,
            tunnel.bytes_sent = call.bytes_sent,
            took_ms = millis(call.took),
            upstream_ms = call.upstream.map(millis),
            waited_for_token = call.waited_for_token,
            replays = call.replays,
            cut = call.cut,
            error = call.error
        },
        "call"
    );
}

/// As `tracing_subscriber` writes an event of the same fields, without its formatting machinery.
fn text(buffer: &mut Vec<u8>, timestamp: &str, call: &Call<'_>) {
    let mut number = itoa::Buffer::new();
    let out = &mut Out { buffer, quote: |value| format!("{value:?}") };
    out.put(timestamp, "  INFO call");
    out.quoted(" request.id=", Some(call.request_id));
    out.quoted(" route.name=", call.route);
    out.quoted(" provider.id=", call.provider);
    out.quoted(" connection.id=", call.connection_id);
    out.put(" http.method=", call.method);
    out.put(" http.status=", number.format(call.status));
    out.put(" body.bytes=", number.format(call.bytes));
    if let Some(sent) = call.bytes_sent {
        out.put(" tunnel.bytes_sent=", number.format(sent));
    }
    out.millis(" took_ms=", Some(call.took));
    out.millis(" upstream_ms=", call.upstream);
    out.put(" waited_for_token=", truth(call.waited_for_token));
    out.put(" replays=", number.format(call.replays));
    out.put(" cut=", truth(call.cut));
    out.quoted(" error=", call.error);
}

/// The same as JSON; texts that need more than quotes are serde_json's.
fn json(buffer: &mut Vec<u8>, timestamp: &str, call: &Call<'_>) {
    let mut number = itoa::Buffer::new();
    let out = &mut Out { buffer, quote: |value| serde_json::Value::from(value).to_string() };
    out.put("{\"timestamp\":\"", timestamp);
    out.put("\",\"level\":\"INFO\",\"message\":\"call\",\"target\":\"", TARGET);
    out.quoted("\",\"request.id\":", Some(call.request_id));
    out.quoted(",\"route.name\":", call.route);
    out.quoted(",\"provider.id\":", call.provider);
    out.quoted(",\"connection.id\":", call.connection_id);
    out.quoted(",\"http.method\":", Some(call.method));
    out.put(",\"http.status\":", number.format(call.status));
    out.put(",\"body.bytes\":", number.format(call.bytes));
    if let Some(sent) = call.bytes_sent {
        out.put(",\"tunnel.bytes_sent\":", number.format(sent));
    }
    out.millis(",\"took_ms\":", Some(call.took));
    out.millis(",\"upstream_ms\":", call.upstream);
    out.put(",\"waited_for_token\":", truth(call.waited_for_token));
    out.put(",\"replays\":", number.format(call.replays));
    out.put(",\"cut\":", truth(call.cut));
    out.quoted(",\"error\":", call.error);
    out.put("}", "");
}

const fn truth(is: bool) -> &'static str {
    if is { "true" } else { "false" }
}

struct Out<'b> {
    buffer: &'b mut Vec<u8>,
    /// Puts quotes around what needs more than that.
    quote: fn(&str) -> String,
}

impl Out<'_> {
    fn put(&mut self, name: &str, value: &str) {
        self.buffer.extend_from_slice(name.as_bytes());
        self.buffer.extend_from_slice(value.as_bytes());
    }

    fn quoted(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            self.put(name, "\"");
            self.put(value, "\"");
        } else {
            self.put(name, &(self.quote)(value));
        }
    }

    /// To a hundredth of a millisecond.
    fn millis(&mut self, name: &str, took: Option<Duration>) {
        let Some(took) = took else { return };
        let mut number = itoa::Buffer::new();
        let all = u64::try_from((took.as_micros() + 5) / 10).unwrap_or(u64::MAX);
        self.put(name, number.format(all / 100));
        let rest = all % 100;
        match rest % 10 {
            0 => self.put(".", number.format(rest / 10)),
            _ if rest < 10 => self.put(".0", number.format(rest)),
            _ => self.put(".", number.format(rest)),
        }
    }
}

/// To a hundredth.
fn millis(took: Duration) -> f64 {
    ((took.as_micros() + 5) / 10) as f64 / 100.0
}

/// A time as a line shows it, `2026-01-01T00:00:00.000Z`; what is before the milliseconds is written once a second.
#[derive(Debug)]
pub(super) struct Stamp {
    second: i64,
    text: [u8; 24],
}

impl Default for Stamp {
    fn default() -> Self {
        Stamp { second: i64::MIN, text: *b"0000-00-00T00:00:00.000Z" }
    }
}

impl Stamp {
    pub(super) fn of(now: UnixMillis) -> Stamp {
        let mut stamp = Stamp::default();
        stamp.set(now);
        stamp
    }

    fn set(&mut self, now: UnixMillis) {
        let (second, millis) = (now.0.div_euclid(1000), now.0.rem_euclid(1000));
        if second != self.second {
            let whole = UnixMillis(second * 1000).to_rfc3339();
            if let (Some(to), Some(from)) = (self.text.get_mut(..19), whole.as_bytes().get(..19)) {
                to.copy_from_slice(from);
            }
            self.second = second;
        }
        for (place, unit) in [(20, 100), (21, 10), (22, 1)] {
            let digit = u8::try_from(millis / unit % 10).unwrap_or_default();
            if let Some(at) = self.text.get_mut(place) {
                *at = b'0' + digit;
            }
        }
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call<'static> {
        Call {
            request_id: "req-1",
            route: Some("a \"b\""),
            provider: Some("acme"),
            connection_id: Some("con_1"),
            method: "GET",
            status: 200,
            bytes: 3149,
            bytes_sent: None,
            took: Duration::from_micros(1604),
            upstream: Some(Duration::from_micros(20)),
            waited_for_token: false,
            replays: 0,
            cut: false,
            error: None,
        }
    }

    #[test]
    fn both_formats_say_the_same() {
        let mut line = Vec::new();
        text(&mut line, "2026-01-01T00:00:00.000Z", &call());
        assert_eq!(
            String::from_utf8(line).expect("text"),
            "2026-01-01T00:00:00.000Z  INFO call request.id=\"req-1\" route.name=\"a \\\"b\\\"\" provider.id=\"acme\" connection.id=\"con_1\" \
             http.method=GET http.status=200 body.bytes=3149 took_ms=1.6 upstream_ms=0.02 waited_for_token=false replays=0 cut=false"
        );
        let mut line = Vec::new();
        json(&mut line, "2026-01-01T00:00:00.000Z", &Call { error: Some("overloaded"), ..call() });
        let line: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(
            line,
            serde_json::json!({
                "timestamp": "2026-01-01T00:00:00.000Z", "level": "INFO", "message": "call", "request.id": "req-1", "route.name": "a \"b\"", "provider.id": "acme",
                "connection.id": "con_1", "http.method": "GET", "http.status": 200, "body.bytes": 3149, "took_ms": 1.6, "upstream_ms": 0.02,
                "waited_for_token": false, "replays": 0, "cut": false, "error": "overloaded", "target": "attache::call"
            })
        );
    }

    #[test]
    fn a_stamp_is_a_time_to_the_millisecond() {
        let mut stamp = Stamp::default();
        for at in ["2026-11-25T13:43:12.007Z", "2026-11-25T13:43:12.120Z", "2026-11-25T13:43:13.000Z", "1999-12-31T23:59:59.999Z"] {
            stamp.set(UnixMillis::from_rfc3339(at).expect("valid"));
            assert_eq!(stamp.text(), at);
        }
    }

    #[test]
    fn a_sample_is_the_share_that_was_asked_for() {
        for (share, of_thousand) in [(1.0, 1000), (0.25, 250), (0.0, 0)] {
            let mut lines = Lines::default();
            assert_eq!((0..1000).filter(|_| lines.is_due(share)).count(), of_thousand);
        }
    }
}
