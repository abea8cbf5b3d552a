//! The built-in definitions, every one: each loads without a fault or a warning, and sends the browser where `tests/golden/authorize_urls.txt` says.
//!
//! `UPDATE_GOLDEN=1 cargo test --test it catalogue` writes that file anew; read what changed in it before it is committed.

use crate::browser::Browser;
use crate::connect::{link, session};
use crate::harness::Plan;
use attache::config::{self, Definition};
use attache::provider::{Input, Kind};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn built_in() -> Vec<Definition> {
    config::definitions(Path::new("/nonexistent"), &|_| None).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A value that the input takes: its example where that is one.
fn value(input: &Input) -> String {
    let host = |hosts: &[Box<str>]| hosts.first().map_or("acme.example.com".to_owned(), |host| host.replace('*', "acme"));
    let usual = match &input.kind {
        Kind::Text | Kind::Label => "acme".to_owned(),
        Kind::Host(hosts) => host(hosts),
        Kind::Origin(hosts) => format!("https://{}", host(hosts)),
    };
    input.example.as_deref().filter(|example| fits(input, example)).map_or(usual, str::to_owned)
}

fn fits(input: &Input, value: &str) -> bool {
    let bare = input.suffix.as_deref().and_then(|suffix| value.strip_suffix(suffix)).unwrap_or(value);
    match &input.kind {
        // Which hosts it may be is the registration's to say.
        Kind::Host(hosts) if hosts.is_empty() => !value.contains(['/', ' ']),
        Kind::Origin(hosts) if hosts.is_empty() => value.starts_with("https://"),
        kind => kind.check(bare).is_some(),
    }
}

/// A registration of the definition, with a value for each input; how the client proves itself does not show in a browser.
fn registration(definition: &Definition) -> String {
    let inputs: serde_json::Map<_, _> = definition.inputs.iter().map(|input| (input.name.to_string(), value(input).into())).collect();
    let client = if definition.modes.iter().any(|mode| matches!(*mode, "api_key" | "password")) {
        String::new()
    } else {
        "client_id: CLIENT, client_secret: SECRET, client_auth: body, ".to_owned()
    };
    format!("  {}: {{{client}inputs: {}}}\n", definition.id, json!(inputs))
}

#[test]
fn every_built_in_definition_is_taken_as_it_is() {
    let mut faults = Vec::new();
    for definition in built_in() {
        let id = &definition.id;
        faults.extend(definition.warnings.iter().map(|warning| format!("{id}: {warning}")));
        let config = format!("store: {{memory: {{}}}}\nproviders:\n{}routes: []\n", registration(&definition));
        let snapshot = match config::load_str(&config, Path::new("routes.yaml"), Path::new("/nonexistent"), &|_| None) {
            Ok(snapshot) => snapshot,
            Err(errors) => {
                faults.push(errors.to_string());
                continue;
            }
        };
        let registration = &snapshot.providers[&**id];
        if registration.token_hosts.is_empty() && registration.token_hosts_per_connection.is_empty() {
            faults.push(format!("{id}: without `token_hosts` no route can carry its tokens"));
        }
        if definition.modes.is_empty() {
            faults.push(format!("{id}: there is no way to connect to it"));
        }
        if definition.text.lines().all(|line| !line.starts_with("verified:")) {
            faults.push(format!("{id}: `verified` is not said"));
        }
        for input in definition.inputs.iter().filter(|input| input.example.as_deref().is_some_and(|example| !fits(input, example))) {
            faults.push(format!("{id}: the example of `{}` is none that it takes", input.name));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What differs from one attempt to the next, made the same: state, challenge, nonce, and the port of the listener.
fn settled(location: &str, port: u16) -> String {
    let location = location.replace(&format!("localhost%3A{port}"), "localhost%3A7071");
    let is_random =
        |value: &str| value.len() >= 43 && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let (head, query) = location.split_once('?').unwrap_or((&location, ""));
    let (query, fragment) = query.split_once('#').map_or((query, String::new()), |(query, fragment)| (query, format!("#{fragment}")));
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) if is_random(value) => format!("{name}=RANDOM"),
        _ => pair.to_owned(),
    });
    format!("{head}?{}{fragment}", pairs.collect::<Vec<_>>().join("&"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_built_in_provider_is_asked_as_the_golden_file_says() {
    let definitions = built_in();
    // The sandbox is this world's own, and asked in every other test.
    let asked: Vec<&Definition> =
        definitions.iter().filter(|definition| definition.modes.contains(&"code") && &*definition.id != "sandbox").collect();
    let providers: String = asked.iter().map(|definition| registration(definition)).collect();
    let world = Plan::new().providers(&providers).start().await;
    let snapshot = world.live().snapshot();
    let mut lines = Vec::new();
    for definition in asked {
        let id = &*definition.id;
        let registered = &snapshot.providers[id];
        if registered.authorize_url.is_none() || registered.par_url.is_some() {
            let why = if registered.par_url.is_some() { "pushed" } else { "discovered" };
            lines.push(format!("{id}\t({why})"));
            continue;
        }
        let session = session(&world, json!({"providers": [id]})).await;
        let location = Browser::default().set_out(link(&session), id).await;
        lines.push(format!("{id}\t{}", settled(&location, world.public.port())));
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/authorize_urls.txt");
    let text = format!("{}\n", lines.join("\n"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(&file, &text).expect("written");
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    let (found, expected): (BTreeSet<&str>, BTreeSet<&str>) = (text.lines().collect(), golden.lines().collect());
    let differ: Vec<String> = expected
        .difference(&found)
        .map(|line| format!("- {line}"))
        .chain(found.difference(&expected).map(|line| format!("+ {line}")))
        .collect();
    assert!(differ.is_empty(), "UPDATE_GOLDEN=1 takes over what is meant:\n{}", differ.join("\n"));
}
