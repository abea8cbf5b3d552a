//! The quirks of `tests/conformance/quirks.json`, each played by a scripted provider against the real connect flow, refresh and proxy: what goes
//! over the wire must be the quirk's request, and its answer must be understood. A definition says each deviation as data, in YAML.

mod callbacks;
mod devices;
mod identity;
mod lives;
mod protocol;
mod refreshes;
mod refusals;
mod replies;
mod requests;
mod stage;
mod tables;
mod values;

use serde_json::Value;

/// One entry of the file.
pub struct Quirk {
    pub request: Value,
    /// One, or several in order.
    pub responses: Vec<Value>,
}

#[track_caller]
pub fn quirk(id: &str) -> Quirk {
    let all: Value = serde_json::from_str(include_str!("../../conformance/quirks.json")).expect("JSON");
    let found = all.as_array().expect("a list").iter().find(|quirk| quirk["id"] == id).expect(id);
    let responses = match &found["response"] {
        Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    };
    Quirk { request: found["request"].clone(), responses }
}
