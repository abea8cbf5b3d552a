//! `log`: the level, and which calls have a line. Both live with the next reload.

use super::fields::{Fields, Shape};
use super::scalar;
use super::snapshot::LogRules;
use crate::log::{Calls, Rules, check_level};

const LOG: Shape = Shape { name: "Log", said: "`log`" };
const CALLS: [(&str, Calls); 3] = [("all", Calls::All), ("errors", Calls::Errors), ("none", Calls::None)];

pub(super) fn read(root: &Fields<'_>) -> LogRules {
    let Some(fields) = root.section("log", LOG) else { return LogRules::default() };
    let default = Rules::default();
    let rules = LogRules {
        level: level(&fields),
        calls: Rules { calls: fields.choice("calls", &CALLS).unwrap_or(default.calls), sample: sample(&fields).unwrap_or(default.sample) },
    };
    fields.finish();
    rules
}

fn level(fields: &Fields<'_>) -> Option<Box<str>> {
    let node = fields.get("level")?;
    let level = scalar::text(node, fields.problems)?;
    match check_level(level) {
        Ok(()) => Some(level.into()),
        Err(why) => {
            let hint = "a level (error, warn, info, debug, trace), or several with their targets: `info,attache::token=debug`";
            fields.say(&node.at, format!("`level` is not one: {why}"), Some(hint.to_owned()));
            None
        }
    }
}

fn sample(fields: &Fields<'_>) -> Option<f64> {
    let node = fields.get("sample")?;
    match scalar::text(node, fields.problems)?.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Some(share),
        _ => {
            fields.say(
                &node.at,
                "`sample` must be a number from 0 to 1",
                Some("the share of good calls that have a line: 0.01".to_owned()),
            );
            None
        }
    }
}
