//! `upstreams:` and a route's `retry`: how much is sent at once, when it is sent again, and when it is not sent at all.

use super::error::did_you_mean;
use super::fields::{Fields, Shape};
use super::node::Value;
use super::scalar;
use super::snapshot::Retry;
use crate::upstream::{Bounds, CircuitBounds};
use http::StatusCode;

const UPSTREAMS: Shape = Shape { name: "Upstreams", said: "`upstreams`" };
const CIRCUIT: Shape = Shape { name: "Circuit", said: "`circuit`" };
const RETRY: Shape = Shape { name: "Retry", said: "`retry`" };

/// How much of a request body is kept for the replay after a 401, unless `retry.max_body` says otherwise, and at most.
const REPLAY_BODY_DEFAULT: u64 = 64 << 10;
const REPLAY_BODY_MAX: u64 = 64 << 20;

const ATTEMPTS_MAX: u64 = 10;
const STATUSES: [StatusCode; 4] =
    [StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
const WORDS: [&str; 3] = ["connect", "reset", "timeout"];

pub(super) fn upstreams(root: &Fields<'_>) -> Bounds {
    let default = Bounds::default();
    let Some(fields) = root.section("upstreams", UPSTREAMS) else { return default };
    let count = |key, default: usize| at_least_one(&fields, key).unwrap_or(default);
    let bounds = Bounds {
        connections_max: count("max_connections", default.connections_max),
        waiting_max: count("max_waiting", default.waiting_max),
        wait: fields.duration("wait").unwrap_or(default.wait),
        idle: fields.duration("idle").unwrap_or(default.idle),
        calls_max: count("max_calls", default.calls_max),
        circuit: circuit(&fields),
    };
    fields.finish();
    bounds
}

fn circuit(upstreams: &Fields<'_>) -> Option<CircuitBounds> {
    let default = CircuitBounds::default();
    let Some(node) = upstreams.peek("circuit") else { return Some(default) };
    // YAML 1.1 readers make `false` of `off`.
    if scalar::is_word(node, "off") || scalar::is_word(node, "false") {
        upstreams.get("circuit");
        return None;
    }
    let fields = upstreams.section("circuit", CIRCUIT)?;
    let failures = at_least_one(&fields, "failures").and_then(|failures| u32::try_from(failures).ok());
    let bounds = CircuitBounds {
        failures: failures.unwrap_or(default.failures),
        open: fields.duration("open").unwrap_or(default.open),
        open_max: fields.duration("open_max").unwrap_or(default.open_max),
    };
    if bounds.open > bounds.open_max {
        let at = if fields.peek("open_max").is_some() { fields.at_key("open_max") } else { fields.at_key("open") };
        fields.say(at, "`open_max` is shorter than `open`", None);
    }
    fields.finish();
    Some(bounds)
}

fn at_least_one(fields: &Fields<'_>, key: &'static str) -> Option<usize> {
    let number = scalar::number(fields.get(key)?, fields.problems)?;
    if number == 0 {
        fields.say(fields.at_key(key), format!("`{key}` is at least 1"), None);
    }
    usize::try_from(number).ok()
}

/// `retry` where it has attempts, and how much of a body is kept.
pub(super) fn retry(route: &Fields<'_>) -> (Option<Box<Retry>>, usize) {
    let default = usize::try_from(REPLAY_BODY_DEFAULT).unwrap_or(usize::MAX);
    let Some(fields) = route.section("retry", RETRY) else { return (None, default) };
    let most = fields.size("max_body").unwrap_or(REPLAY_BODY_DEFAULT);
    if most > REPLAY_BODY_MAX {
        fields.say(fields.at_key("max_body"), "`retry.max_body` is kept in memory for each call: at most 64MiB", None);
    }
    let attempts = fields.get("attempts").and_then(|node| scalar::number(node, fields.problems)).unwrap_or(0);
    if attempts > ATTEMPTS_MAX {
        fields.say(fields.at_key("attempts"), format!("`attempts` is at most {ATTEMPTS_MAX}"), None);
    }
    let mut retry = Retry {
        attempts: u32::try_from(attempts.min(ATTEMPTS_MAX)).unwrap_or_default(),
        statuses: STATUSES.into(),
        connect: true,
        reset: false,
        timeout: false,
    };
    if let Some(list) = fields.list("on") {
        let mut statuses = Vec::new();
        (retry.connect, retry.reset, retry.timeout) = (false, false, false);
        for node in list {
            let Value::Scalar(scalar) = &node.value else {
                fields.say(&node.at, format!("expected a status or one of {}, found {}", WORDS.join(", "), node.found()), None);
                continue;
            };
            match (&*scalar.text, scalar.text.parse::<u16>()) {
                ("connect", _) => retry.connect = true,
                ("reset", _) => retry.reset = true,
                ("timeout", _) => retry.timeout = true,
                (_, Ok(400..=599)) => statuses.extend(scalar.text.parse().ok().and_then(|code| StatusCode::from_u16(code).ok())),
                (text, _) => {
                    let message = format!("expected a status from 400 to 599, or one of {}, found {}", WORDS.join(", "), node.found());
                    fields.say(&node.at, message, did_you_mean(text, WORDS));
                }
            }
        }
        if statuses.contains(&StatusCode::UNAUTHORIZED) {
            let hint = "a 401 leads to one refresh and one replay by itself".to_owned();
            fields.say(fields.at_key("on"), "401 is not retried with the same token", Some(hint));
        }
        retry.statuses = statuses.into();
    }
    fields.finish();
    ((retry.attempts > 0).then(|| Box::new(retry)), usize::try_from(most).unwrap_or(default))
}
