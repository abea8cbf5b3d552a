//! docs/reference/keys.md: each key of `routes.yaml`, made of the JSON Schema.
//!
//! A mapping that stands at several places has one section, under the shortest of its paths; the others lead there.

use crate::{holds, pages};
use attache::config;
use serde_json::{Map, Value};
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;

#[test]
fn the_page_of_all_keys_is_that_of_the_schema() {
    let schema = config::schema();
    let page = Keys::new(&schema).page();
    assert!(page.lines().count() > 300 && page.contains("| `token_hosts` |"), "it is a page of all keys");
    holds("docs/reference/keys.md", &page);
}

struct Keys<'a> {
    schema: &'a Value,
    defs: &'a Map<String, Value>,
    /// The path of each definition's section.
    paths: HashMap<&'a str, String>,
}

impl<'a> Keys<'a> {
    fn new(schema: &'a Value) -> Self {
        let defs = schema["$defs"].as_object().expect("definitions");
        let mut keys = Keys { schema, defs, paths: HashMap::new() };
        // In the order of their depth, so that the first path of a definition is its shortest.
        let mut queue = VecDeque::from([(String::new(), schema)]);
        while let Some((path, mapping)) = queue.pop_front() {
            for (name, def, key) in keys.below(mapping, &path) {
                if keys.paths.contains_key(name) {
                    continue;
                }
                let key = if keys.paths.values().any(|taken| *taken == key) { format!("{key}, another form") } else { key };
                keys.paths.insert(name, key.clone());
                queue.push_back((key, def));
            }
        }
        keys
    }

    /// The mappings right below one, in the order of its keys: name of the definition, itself, its path.
    fn below(&self, mapping: &'a Value, path: &str) -> Vec<(&'a str, &'a Value, String)> {
        let mut found = Vec::new();
        for (key, value) in mapping["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            self.mappings(value, &path, &mut found);
        }
        found
    }

    fn mappings(&self, value: &'a Value, path: &str, found: &mut Vec<(&'a str, &'a Value, String)>) {
        if let Some((name, def)) = self.named(value) {
            if def["properties"].is_object() {
                found.push((name, def, path.to_owned()));
            } else {
                self.mappings(def, path, found);
            }
        }
        for one in value["anyOf"].as_array().into_iter().flatten() {
            self.mappings(one, path, found);
        }
        if value["items"].is_object() {
            self.mappings(&value["items"], &format!("{path}[]"), found);
        }
        if value["additionalProperties"].is_object() {
            self.mappings(&value["additionalProperties"], &format!("{path}.NAME"), found);
        }
    }

    fn named(&self, value: &'a Value) -> Option<(&'a str, &'a Value)> {
        let name = value["$ref"].as_str()?.strip_prefix("#/$defs/")?;
        self.defs.get(name).map(|def| (name, def))
    }

    fn page(&self) -> String {
        let mut page = String::from(
            "# Every key of `routes.yaml`\n\n\
             <!-- Made of the schema by tests/book/keys.rs: ATTACHE_WRITE_DOCS=1 cargo test --test book -->\n\n\
             Made of the schema that `attache schema` prints and `attache check` reads by. What the keys do together, with examples, is in [configuration.md](../configuration.md); \
             what of a provider is rarely needed in [providers.md](../providers.md).\n\n\
             In a path, `[]` is each entry of a list and `NAME` a name that you choose. A *text* may hold `${NAME}`, `${NAME:-fallback}` and `${file:PATH}`; so may every other value, written as a text. \
             A *time* is written `500ms`, `30s`, `5m`, `1h`, `30d`, a *size* `65536`, `64KiB`, `10MB`. A key in bold is required.\n\n",
        );
        self.section(self.schema, "", &mut page);
        page
    }

    fn section(&self, mapping: &'a Value, path: &str, page: &mut String) {
        if !path.is_empty() {
            let _ = match path.split_once(", ") {
                None => writeln!(page, "## `{path}`\n"),
                Some((path, form)) => writeln!(page, "## `{path}`, {form}\n"),
            };
            if let Some(text) = mapping["description"].as_str() {
                let _ = writeln!(page, "{}\n", prose(text));
            }
        }
        let required: Vec<&str> = mapping["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = mapping["properties"].as_object().expect("a mapping");
        if properties.is_empty() {
            page.push_str("It has no keys.\n\n");
        } else {
            page.push_str("| Key | Value | Meaning |\n|---|---|---|\n");
        }
        for (key, value) in properties {
            let key = if required.contains(&key.as_str()) { format!("**`{key}`**") } else { format!("`{key}`") };
            let mut kinds = Vec::new();
            self.kinds(value, &mut kinds);
            let text = value["description"].as_str().map(prose).unwrap_or_default();
            let _ = writeln!(page, "| {key} | {} | {} |", kinds.join(" or ").replace('|', "\\|"), text.replace('|', "\\|"));
        }
        if !properties.is_empty() {
            page.push('\n');
        }
        for (name, def, key) in self.below(mapping, path) {
            let place = &self.paths[name];
            // A key may hold a mapping of one kind or another.
            if *place == key || place.strip_prefix(&key).is_some_and(|rest| rest.starts_with(", ")) {
                self.section(def, place, page);
            }
        }
    }

    /// What a value may be, in words, each said once.
    fn kinds(&self, value: &'a Value, kinds: &mut Vec<String>) {
        let mut say = |kind: String| {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        };
        if let Some((name, def)) = self.named(value) {
            return match self.paths.get(name).filter(|_| def["properties"].is_object()) {
                Some(path) => say(format!("[mapping](#{})", pages::slug(path))),
                None => self.kinds(def, kinds),
            };
        }
        if let Some(several) = value["anyOf"].as_array() {
            return several.iter().for_each(|one| self.kinds(one, kinds));
        }
        if !value["const"].is_null() {
            return say(literal(&value["const"]));
        }
        if let Some(words) = value["enum"].as_array() {
            return words.iter().for_each(|word| say(literal(word)));
        }
        match value["type"].as_str().or_else(|| value["type"].as_array().and_then(|several| several.first()).and_then(Value::as_str)) {
            Some("array") => say(format!("list of {}", self.several(&value["items"], "values"))),
            Some("object") => say(format!("mapping of names to {}", self.several(&value["additionalProperties"], "anything"))),
            Some("boolean") => say("`true` or `false`".to_owned()),
            Some("integer") => say("whole number".to_owned()),
            Some("number") => say("number".to_owned()),
            Some("string") => text_kind(value).into_iter().for_each(say),
            _ => {}
        }
    }

    fn several(&self, value: &'a Value, otherwise: &str) -> String {
        let mut kinds = Vec::new();
        self.kinds(value, &mut kinds);
        if kinds.is_empty() { otherwise.to_owned() } else { kinds.join(" or ") }
    }
}

fn literal(value: &Value) -> String {
    value.as_str().map_or_else(|| format!("`{value}`"), |text| format!("`{text}`"))
}

/// A text by its pattern. That of a variable alone says nothing: every value may be one.
fn text_kind(value: &Value) -> Vec<String> {
    let pattern = value["pattern"].as_str().unwrap_or_default();
    let mut kinds = Vec::new();
    let kind = match pattern {
        "\\$\\{" => return kinds,
        pattern if pattern.contains("[hH][tT][tT][pP]") => "URL",
        pattern if pattern.contains("[kKmMgG]") => "size",
        pattern if pattern.contains("/\\s*") => "rate",
        pattern if pattern.contains("[a-zA-Z]+\\s*)+$") => "time",
        pattern if pattern.contains("{64}") => "64 hex digits",
        pattern if pattern.starts_with("^#") => "colour, `#rrggbb`",
        _ => "text",
    };
    kinds.push(kind.to_owned());
    if let Some(examples) = value["examples"].as_array() {
        let shown: Vec<String> = examples.iter().map(literal).collect();
        kinds[0] = format!("{kind}, as {}", shown.join(", "));
    }
    for word in ["none", "never"] {
        if pattern.contains(&format!("^{word}$")) {
            kinds.push(format!("`{word}`"));
        }
    }
    kinds
}

/// A description on one line.
fn prose(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
