//! `metrics`: whether calls are counted, and who may read the counts besides the admin listener.

use super::fields::{Fields, Shape};
use super::snapshot::MetricsRules;

const METRICS: Shape = Shape { name: "Metrics", said: "`metrics`" };

pub(super) fn read(root: &Fields<'_>) -> MetricsRules {
    let default = MetricsRules::default();
    let Some(fields) = root.section("metrics", METRICS) else { return default };
    let rules = MetricsRules {
        enabled: fields.flag("enabled").unwrap_or(default.enabled),
        on_health: fields.flag("on_health").unwrap_or(default.on_health),
    };
    fields.finish();
    rules
}
