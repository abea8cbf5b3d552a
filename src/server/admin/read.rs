//! Reads a call's JSON body and query member by member, so that each fault is told by its name and no value is ever quoted: it may be a token.

use crate::config::error::did_you_mean;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// An object being read. [`Body::finish`] tells the members that nobody asked for.
pub(super) struct Body {
    members: Map<String, Value>,
    known: RefCell<Vec<&'static str>>,
}

pub(super) type Fault = String;

impl Body {
    pub(super) fn parse(bytes: &[u8]) -> Result<Body, Fault> {
        // The parser's own words may quote the text.
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| format!("the body is not JSON (line {}, column {})", error.line(), error.column()))?;
        match value {
            Value::Object(members) => Ok(Body { members, known: RefCell::default() }),
            _ => Err("the body must be a JSON object".to_owned()),
        }
    }

    /// A member that is there and not null.
    fn get(&self, name: &'static str) -> Option<&Value> {
        self.known.borrow_mut().push(name);
        self.members.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("`{name}` must be a text")),
        }
    }

    pub(super) fn need(&self, name: &'static str) -> Result<String, Fault> {
        self.text(name)?.ok_or_else(|| format!("`{name}` is missing"))
    }

    pub(super) fn texts(&self, name: &'static str) -> Result<Option<Vec<String>>, Fault> {
        let wrong = || format!("`{name}` must be a list of texts");
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(list)) => {
                list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect::<Result<_, _>>().map(Some)
            }
            Some(_) => Err(wrong()),
        }
    }

    pub(super) fn pairs(&self, name: &'static str) -> Result<Vec<(String, String)>, Fault> {
        let wrong = || format!("`{name}` must be an object of texts");
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Object(members)) => {
                members.iter().map(|(name, value)| value.as_str().map(|text| (name.clone(), text.to_owned())).ok_or_else(wrong)).collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    pub(super) fn object(&self, name: &'static str) -> Result<Option<Map<String, Value>>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(members.clone())),
            Some(_) => Err(format!("`{name}` must be an object")),
        }
    }

    pub(super) fn metadata(&self) -> Result<BTreeMap<String, Value>, Fault> {
        Ok(self.object("metadata")?.unwrap_or_default().into_iter().collect())
    }

    pub(super) fn seconds(&self, name: &'static str) -> Result<Option<Duration>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .map(|seconds| Some(Duration::from_secs(seconds)))
                .ok_or_else(|| format!("`{name}` must be a whole number of seconds")),
        }
    }

    pub(super) fn one_of<'w>(&self, name: &'static str, words: &[&'w str]) -> Result<Option<&'w str>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        words
            .iter()
            .find(|word| **word == text)
            .map(|word| Some(*word))
            .ok_or_else(|| format!("`{name}` must be one of `{}`", words.join("`, `")))
    }

    pub(super) fn finish(self) -> Result<(), Fault> {
        let known = self.known.into_inner();
        match self.members.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(unknown) => {
                let hint = did_you_mean(unknown, known.iter().copied()).map(|hint| format!("; {hint}")).unwrap_or_default();
                let shown: String = unknown.chars().filter(|letter| !letter.is_control()).take(64).collect();
                Err(format!("unknown member `{shown}`; known are `{}`{hint}", known.join("`, `")))
            }
        }
    }
}

/// The pairs of a query, each name once.
pub(super) fn query(call: &super::calls::Call, text: &str) -> Result<BTreeMap<String, String>, Fault> {
    use super::calls::QueryKind;
    let mut pairs = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let Some(known) = call.query.iter().find(|query| query.name == name) else {
            let hint = did_you_mean(&name, call.query.iter().map(|query| query.name)).map(|hint| format!("; {hint}")).unwrap_or_default();
            let shown: String = name.chars().filter(|letter| !letter.is_control()).take(64).collect();
            return Err(format!("unknown query parameter `{shown}`{hint}"));
        };
        match known.kind {
            QueryKind::Text => {}
            QueryKind::Number { least, most } => {
                let fits = value.bytes().all(|byte| byte.is_ascii_digit())
                    && value.parse::<u64>().is_ok_and(|number| (least..=most).contains(&number));
                if !fits {
                    return Err(format!("`{name}` is a whole number from {least} to {most}"));
                }
            }
            QueryKind::OneOf(words) => {
                if !words.contains(&&*value) {
                    return Err(format!("`{name}` is one of `{}`", words.join("`, `")));
                }
            }
        }
        if pairs.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(format!("`{}` is there twice", known.name));
        }
    }
    match call.query.iter().find(|query| query.required && !pairs.contains_key(query.name)) {
        Some(missing) => Err(format!("`{}` is missing", missing.name)),
        None => Ok(pairs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_by_name_and_no_value_is_quoted() {
        let body = Body::parse(br#"{"end_user": 7, "scopes": ["a", 1], "return_ulr": "CANARY", "ttl_s": -1, "complete": "CANARY"}"#)
            .expect("an object");
        assert_eq!(body.text("end_user"), Err("`end_user` must be a text".into()));
        assert_eq!(body.texts("scopes"), Err("`scopes` must be a list of texts".into()));
        assert_eq!(body.need("return_url"), Err("`return_url` is missing".into()));
        assert!(body.seconds("ttl_s").is_err());
        assert!(body.one_of("complete", &["app", "browser"]).is_err_and(|why| !why.contains("CANARY")));
        assert!(
            body.finish()
                .is_err_and(|why| why.contains("`return_ulr`") && why.contains("did you mean `return_url`?") && !why.contains("CANARY"))
        );
        assert!(Body::parse(b"{\"CANARY").is_err_and(|why| !why.contains("CANARY")));
        assert!(Body::parse(b"[]").is_err());
    }
}
