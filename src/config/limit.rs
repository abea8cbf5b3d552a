//! `rate_limit` of a route: how many calls it takes, of each end user and in all.

use super::fields::{Fields, Problems, Shape};
use super::node::{Node, Value};
use super::scalar;
use crate::limit::{BadRate, Limit, Limits, Rate};
use std::sync::Arc;

const RATE: Shape = Shape { name: "Rate", said: "a rate" };
const LIMITS: Shape = Shape { name: "RateLimits", said: "`rate_limit`" };

/// A rate for each end user, or `{user, route}`.
pub(super) fn read(route: &Fields<'_>) -> Option<Arc<Limits>> {
    let node = route.get("rate_limit")?;
    let problems = route.problems;
    let by_scope = matches!(&node.value, Value::Map(entries) if entries.iter().any(|(key, _)| key.text == "user" || key.text == "route"));
    if !by_scope {
        return Some(Arc::new(Limits { user: Some(Limit::new(rate(node, problems)?)), route: None }));
    }
    let fields = Fields::open(node, LIMITS, problems)?;
    let one = |key| fields.get(key).and_then(|node| rate(node, problems)).map(Limit::new);
    let limits = Limits { user: one("user"), route: one("route") };
    fields.finish();
    Some(Arc::new(limits))
}

/// `10/s`, or `{requests, per, burst}`.
fn rate(node: &Node, problems: &Problems) -> Option<Rate> {
    let refuse = |why: &BadRate| -> Option<Rate> {
        problems.say(&node.at, format!("expected {why}, found {}", node.found()), None);
        None
    };
    if !matches!(node.value, Value::Map(_)) {
        let text = scalar::text(node, problems)?;
        return Rate::parse(text).map_or_else(|why| refuse(&why), Some);
    }
    let fields = Fields::open(node, RATE, problems)?;
    let calls = fields.need("requests").and_then(|node| scalar::number(node, problems));
    let per = fields.need("per").and_then(|node| scalar::duration(node, problems));
    let burst = fields.get("burst").map(|node| scalar::number(node, problems));
    fields.finish();
    let (calls, per) = (calls?, per?);
    // A burst that is no number was told already.
    let burst = match burst {
        None => None,
        Some(burst) => Some(burst?),
    };
    Rate::new(calls, per, burst).map_or_else(|why| refuse(&why), Some)
}
