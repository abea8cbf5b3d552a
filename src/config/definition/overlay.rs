//! A registration's keys laid over its definition's: both are trees with places, so that each fault is told where its key was written.

use crate::config::node::{Key, Node, Value};

/// How a key's value meets the one under it, where both are there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meet {
    /// Names are joined, at every depth; all else is replaced.
    Join,
    /// The upper one alone stands.
    Replace,
    /// Lists one behind the other.
    Widen,
    /// Names are joined, and `hosts` are widened; a plain value is the input's `value`.
    Inputs,
    /// The same, but a plain value is another place.
    Metadata,
}

fn meet(key: &str) -> Meet {
    match key {
        "attach" | "jwt_bearer" | "token_exchange" => Meet::Replace,
        "token_hosts" => Meet::Widen,
        "inputs" => Meet::Inputs,
        "metadata" => Meet::Metadata,
        _ => Meet::Join,
    }
}

/// The mapping `upper` over `lower`. The whole has `upper`'s place.
pub(in crate::config) fn over(upper: &Node, lower: &Node) -> Node {
    let (Value::Map(mine), Value::Map(base)) = (&upper.value, &lower.value) else {
        return match &upper.value {
            Value::Null => Node { at: upper.at.clone(), value: lower.value.clone() },
            _ => upper.clone(),
        };
    };
    let entries = joined(mine, base, |key, mine, base| match meet(key) {
        Meet::Join => join(mine, base),
        Meet::Replace => mine.clone(),
        Meet::Widen => widened(mine, base),
        Meet::Inputs => values(mine, base, true),
        Meet::Metadata => values(mine, base, false),
    });
    Node { at: upper.at.clone(), value: Value::Map(entries) }
}

/// Mappings joined by name at every depth; anything else of `upper` takes the place of what is below it.
pub(super) fn join(upper: &Node, lower: &Node) -> Node {
    match (&upper.value, &lower.value) {
        (Value::Map(mine), Value::Map(base)) => {
            let entries = joined(mine, base, |key, mine, base| if key == "attach" { mine.clone() } else { join(mine, base) });
            Node { at: upper.at.clone(), value: Value::Map(entries) }
        }
        // A section that is opened and left empty says nothing.
        (Value::Null, Value::Map(_)) => lower.clone(),
        _ => upper.clone(),
    }
}

/// The entries of `base` that are not in `mine`, then `mine`.
fn joined(mine: &[(Key, Node)], base: &[(Key, Node)], both: impl Fn(&str, &Node, &Node) -> Node) -> Vec<(Key, Node)> {
    let kept = base.iter().filter(|(key, _)| !mine.iter().any(|(other, _)| other.text == key.text)).cloned();
    let own = mine.iter().map(|(key, node)| match base.iter().find(|(other, _)| other.text == key.text) {
        Some((_, below)) => (key.clone(), both(&key.text, node, below)),
        None => (key.clone(), node.clone()),
    });
    kept.chain(own).collect()
}

fn widened(upper: &Node, lower: &Node) -> Node {
    match (&upper.value, &lower.value) {
        (Value::List(mine), Value::List(base)) => {
            Node { at: upper.at.clone(), value: Value::List(base.iter().chain(mine).cloned().collect()) }
        }
        (Value::Null, _) => lower.clone(),
        _ => upper.clone(),
    }
}

fn values(upper: &Node, lower: &Node, plain_is_value: bool) -> Node {
    let (Value::Map(mine), Value::Map(base)) = (&upper.value, &lower.value) else { return join(upper, lower) };
    let entries = joined(mine, base, |_, mine, base| match (&mine.value, &base.value) {
        (Value::Scalar(_) | Value::Broken, Value::Map(keys)) if plain_is_value => {
            let value = (Key { at: mine.at.clone(), text: "value".to_owned() }, mine.clone());
            let kept = keys.iter().filter(|(key, _)| key.text != "value").cloned();
            Node { at: mine.at.clone(), value: Value::Map(kept.chain([value]).collect()) }
        }
        (Value::Map(own), Value::Map(keys)) => {
            let entries = joined(own, keys, |key, mine, base| if key == "hosts" { widened(mine, base) } else { mine.clone() });
            Node { at: mine.at.clone(), value: Value::Map(entries) }
        }
        (Value::Null, _) => base.clone(),
        _ => mine.clone(),
    });
    Node { at: upper.at.clone(), value: Value::Map(entries) }
}

/// What stands under a key of a mapping.
pub(in crate::config) fn under<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(found, _)| found.text == key).map(|(_, node)| node)
}
