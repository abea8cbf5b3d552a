//! docs/providers/: the built-in provider definitions, a page a category, made of providers/*.yaml.

use crate::{holds, pages, root};
use serde_yaml::{Mapping, Value};
use std::collections::BTreeMap;
use std::fmt::Write;

struct Provider {
    id: String,
    /// What its file says before the first key.
    comment: Vec<String>,
    keys: Mapping,
    /// How one connects, as `attache providers list` tells.
    modes: Vec<String>,
    inputs: Vec<String>,
}

#[test]
fn the_pages_of_the_providers_are_those_of_their_files() {
    let all = providers();
    assert!(all.len() > 200);
    let mut categories: BTreeMap<&str, Vec<&Provider>> = BTreeMap::new();
    for provider in &all {
        categories.entry(provider.text("category").unwrap_or("other")).or_default().push(provider);
    }
    holds("docs/providers/index.md", &index(&categories));
    for (category, providers) in &categories {
        holds(&format!("docs/providers/{category}.md"), &page(category, providers));
    }
    for entry in std::fs::read_dir(root().join("docs/providers")).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        assert!(name == "index" || categories.contains_key(name), "{} is of no category", path.display());
    }
}

fn providers() -> Vec<Provider> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_attache")).args(["providers", "list", "--json"]).output().expect("it runs");
    let listed = String::from_utf8(output.stdout).expect("text");
    let told = listed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"));
    // Attaché's own sandbox is no place to keep photos.
    told.filter(|told| told["id"] != "sandbox")
        .map(|told| {
            let id = told["id"].as_str().expect("an id").to_owned();
            let file = std::fs::read_to_string(root().join(format!("providers/{id}.yaml"))).expect("its file");
            let comment = file.lines().take_while(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim().to_owned());
            let texts =
                |name: &str| told[name].as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect();
            Provider {
                comment: comment.collect(),
                keys: serde_yaml::from_str(&file).expect("YAML"),
                modes: texts("modes"),
                inputs: texts("inputs"),
                id,
            }
        })
        .collect()
}

impl Provider {
    fn text(&self, key: &str) -> Option<&str> {
        self.keys.get(key).and_then(Value::as_str)
    }

    fn name(&self) -> &str {
        self.text("display_name").unwrap_or(&self.id)
    }

    fn heading(&self) -> String {
        format!("`{}`: {}", self.id, self.name())
    }
}

fn title(category: &str) -> String {
    let name = match category {
        "crm" => "CRM",
        "ecommerce" => "E-commerce",
        other => return other.chars().take(1).flat_map(char::to_uppercase).chain(other.chars().skip(1)).collect(),
    };
    name.to_owned()
}

const MADE: &str = "<!-- Made of providers/*.yaml by tests/book/catalogue.rs: ATTACHE_WRITE_DOCS=1 cargo test --test book -->\n";

fn index(categories: &BTreeMap<&str, Vec<&Provider>>) -> String {
    let count: usize = categories.values().map(Vec::len).sum();
    let mut page = format!(
        "# The built-in providers\n\n{MADE}\n\
         {count} definitions, by category. A registration takes one by its name, and needs an id and a secret from the provider's own console:\n\n\
         ```yaml\nproviders:\n  google-drive: {{client_id: \"${{GOOGLE_CLIENT_ID}}\", client_secret: \"${{GOOGLE_CLIENT_SECRET}}\"}}\n```\n\n\
         Register the redirect URI `{{public_url}}/oauth/callback/NAME` there; `attache check` prints it whole. `attache providers show google-drive` prints a definition with all its remarks. \
         One that is missing is a [few lines of YAML](../providers.md), and one that has aged is mended by a file of yours of the same name.\n\n\
         **How** says what leads to a token: `code` is a consent in the browser, `device` a code typed elsewhere, `app` the app's own token (client credentials, where the provider gives them), `oauth1` a consent by OAuth 1.0a. \
         *Partial* ones rest on one source in part: try them before you rely on them, and tell us.\n\n",
    );
    for (category, providers) in categories {
        let _ = writeln!(page, "## {}\n\n| Name | | How | Verified |\n|---|---|---|---|", title(category));
        for provider in providers {
            let _ = writeln!(
                page,
                "| [`{}`]({category}.md#{}) | {} | {} | {} |",
                provider.id,
                pages::slug(&provider.heading()),
                provider.name().replace('|', "\\|"),
                provider.modes.join(", "),
                provider.text("verified").unwrap_or("full"),
            );
        }
        page.push('\n');
    }
    page.truncate(page.trim_end().len());
    page + "\n"
}

fn page(category: &str, providers: &[&Provider]) -> String {
    let mut page = format!(
        "# Providers: {}\n\n{MADE}\nHow to use one: [the index](index.md). What the words mean: [providers.md](../providers.md#plain-keys).\n\n",
        title(category)
    );
    for provider in providers {
        section(provider, &mut page);
    }
    page.truncate(page.trim_end().len());
    page + "\n"
}

fn section(provider: &Provider, page: &mut String) {
    let _ = writeln!(page, "## {}\n", provider.heading());
    let remark = remark(&provider.comment.join(" "));
    if !remark.is_empty() {
        let _ = writeln!(page, "{remark}\n");
    }
    page.push_str("| | |\n|---|---|\n");
    let mut row = |name: &str, text: String| {
        if !text.is_empty() {
            let _ = writeln!(page, "| {name} | {} |", text.replace('|', "\\|"));
        }
    };
    row("Connects by", provider.modes.join(", "));
    row("Asks for", codes(provider.inputs.iter().map(String::as_str)));
    for (key, name) in [
        ("issuer", "Issuer"),
        ("request_token_url", "Temporary credentials"),
        ("authorize_url", "Consent"),
        ("token_url", "Tokens"),
        ("device_authorization_url", "Device codes"),
        ("revoke_url", "Revocation"),
    ] {
        row(name, provider.text(key).map(code).unwrap_or_default());
    }
    row("Client authentication", provider.text("client_auth").map(code).unwrap_or_default());
    row("PKCE", provider.text("pkce").map(code).unwrap_or_default());
    row("Scopes, unless you say", codes(list(provider.keys.get("scopes"))));
    row("Parameters", pairs(provider.keys.get("authorize_params")));
    row("The token goes on as", provider.keys.get("attach").map(inline).unwrap_or_default());
    row("Token hosts", codes(list(provider.keys.get("token_hosts"))));
    row("Life of an access token", provider.text("default_expires_in").map(code).unwrap_or_default());
    row("Refreshed when unused for", provider.text("keep_alive").map(code).unwrap_or_default());
    row("Verified", provider.text("verified").unwrap_or("full").to_owned());
    page.push('\n');
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value.and_then(Value::as_sequence).into_iter().flatten().filter_map(Value::as_str)
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn codes<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.map(code).collect::<Vec<_>>().join(", ")
}

fn pairs(value: Option<&Value>) -> String {
    let pairs = value.and_then(Value::as_mapping).into_iter().flatten();
    pairs.map(|(name, value)| format!("`{}={}`", scalar(name), scalar(value))).collect::<Vec<_>>().join(", ")
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_yaml::to_string(other).unwrap_or_default().trim().to_owned(),
    }
}

/// `bearer`, or a mapping on one line.
fn inline(value: &Value) -> String {
    match value.as_mapping() {
        None => code(&scalar(value)),
        Some(map) => map.iter().map(|(name, value)| format!("`{}: {}`", scalar(name), scalar(value))).collect::<Vec<_>>().join(", "),
    }
}

/// A file's remark as Markdown: addresses become links, and what would be markup stays text.
fn remark(text: &str) -> String {
    let mut code = false;
    let words = text.split_whitespace().map(|word| {
        let inside = code || word.contains('`');
        code ^= word.matches('`').count() % 2 == 1;
        if inside {
            return word.to_owned();
        }
        let bare = word.trim_end_matches(['.', ',', ';', ':', ')']);
        match bare.find("https://") {
            Some(at) => format!("{}<{}>{}", &word[..at], &bare[at..], &word[bare.len()..]),
            None => word.replace('<', "\\<").replace('*', "\\*").replace('_', "\\_"),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
