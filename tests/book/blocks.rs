//! The examples of the pages are taken: route maps by the loader, commands and their flags by the program.

use crate::pages;
use attache::config;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;

/// Variables that must hold something of a certain shape; any other holds `set`.
fn env(name: &str) -> Option<String> {
    let value = match name {
        name if name.contains("WEBHOOK_SECRET") || name.contains("_KEY") => "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "DATABASE_URL" => "postgres://attache:hunter2@localhost/attache",
        "REDIS_URL" => "redis://localhost",
        name if name.contains("TOKEN") => "0123456789abcdef0123456789abcdef",
        _ => "set",
    };
    Some(value.to_owned())
}

#[test]
fn every_route_map_of_the_pages_is_taken() {
    let schema = config::schema();
    let keys = schema["properties"].as_object().expect("the schema has properties");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("logo.svg"), "<svg xmlns=\"http://www.w3.org/2000/svg\"/>").expect("written");
    let (mut taken, mut refused) = (0, Vec::new());
    for page in pages::all() {
        // docs/providers.md has provider files among its blocks, which its routes name: tests/shipped.rs holds it as one.
        for block in page.blocks().iter().filter(|block| block.language == "yaml" && page.name != Path::new("docs/providers.md")) {
            let place = format!("{}:{}", page.name.display(), block.line);
            let tree: serde_yaml::Value = match serde_yaml::from_str(&block.text) {
                Ok(tree) => tree,
                Err(error) => {
                    refused.push(format!("{place}: {error}"));
                    continue;
                }
            };
            let map = tree.as_mapping().is_some_and(|map| map.keys().all(|key| key.as_str().is_some_and(|key| keys.contains_key(key))));
            // A mounted secret or certificate is not there.
            if !map || block.text.contains("${file:") || block.text.contains("tls:") {
                continue;
            }
            // An ellipsis stands for a hash; registrations that a piece of a map leaves out are put in.
            let text = format!("{}\n{}", block.text.replace("\"…\"", &format!("{:064}", 0)), registrations(&tree));
            match config::load_str(&text, Path::new("routes.yaml"), folder.path(), &|name| env(name)) {
                Ok(_) => taken += 1,
                Err(errors) => refused.push(format!("{place}: {errors}")),
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(taken > 20, "{taken} route maps only");
}

/// `providers:` with what the routes of a piece of a map name, where it has none itself.
fn registrations(tree: &serde_yaml::Value) -> String {
    let routes = [&tree["routes"], &tree["listen"]["origins"]].into_iter().filter_map(serde_yaml::Value::as_sequence).flatten();
    let callers = tree["callers"].as_sequence().into_iter().flatten().filter_map(|caller| caller["providers"].as_sequence());
    let named = routes.map(|route| &route["provider"]).chain(callers.flatten());
    let named: BTreeSet<&str> = named.filter_map(serde_yaml::Value::as_str).collect();
    if tree["providers"].is_mapping() || named.is_empty() {
        return String::new();
    }
    named.iter().fold(String::from("providers:\n"), |text, name| text + &format!("  {name}: {{client_id: a, client_secret: b}}\n"))
}

#[test]
fn every_route_map_among_the_examples_is_taken() {
    for name in ["examples/photos.yaml", "examples/printpixie/routes.yaml"] {
        if let Err(errors) = config::load(&crate::root().join(name), &|name| match name {
            "LUMEN" => Some("127.0.0.1:7081".to_owned()),
            "PINEBOX" => Some("127.0.0.1:7082".to_owned()),
            name if name.starts_with("ATTACHE_") || name == "PRINTPIXIE_URL" => None,
            name => env(name),
        }) {
            panic!("{name}: {errors}");
        }
    }
}

/// What `--help` of a command says, each asked once.
#[derive(Default)]
struct Program(HashMap<Vec<String>, String>);

impl Program {
    fn help(&mut self, path: &[String]) -> &str {
        self.0.entry(path.to_vec()).or_insert_with(|| {
            let output = Command::new(env!("CARGO_BIN_EXE_attache")).args(path).arg("--help").output().expect("it runs");
            String::from_utf8(output.stdout).expect("text")
        })
    }

    fn commands(&mut self, path: &[String]) -> Vec<String> {
        let help = self.help(path);
        let Some(list) = help.split("Commands:\n").nth(1) else { return Vec::new() };
        let lines = list.lines().take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    }

    /// What is wrong with the words behind `attache`.
    fn fault(&mut self, words: &[&str]) -> Option<String> {
        let mut path: Vec<String> = Vec::new();
        for word in words.iter().copied() {
            if word.starts_with('-') && word.len() > 1 {
                let flag = word.split(['=', '…']).next().unwrap_or(word);
                if flag == "--" {
                    return None;
                }
                let known =
                    self.help(&path).split(|letter: char| letter.is_whitespace() || ",[]".contains(letter)).any(|known| known == flag);
                // The flags of the whole program may stand before the command.
                if !known {
                    return Some(format!("`attache {}` has no {flag}", path.join(" ")));
                }
                continue;
            }
            let commands = self.commands(&path);
            if commands.is_empty() {
                continue;
            }
            // `list|show` and `list`, `show` stand for several.
            let several: Vec<&str> = word.split('|').collect();
            if let Some(unknown) = several.iter().find(|word| !commands.iter().any(|known| known == *word)) {
                return Some(format!("`attache {}` has no command {unknown}", path.join(" ")));
            }
            if several.len() > 1 {
                return None;
            }
            path.push(word.to_owned());
        }
        None
    }
}

/// The words of each call of `attache` on a line of shell: up to a pipe, a redirection or the next command.
fn calls(line: &str) -> Vec<Vec<&str>> {
    let line = line.split(" #").next().unwrap_or(line);
    let mut calls: Vec<Vec<&str>> = Vec::new();
    let (mut inside, mut first) = (false, true);
    for word in line.split_whitespace() {
        let bare = word.trim_start_matches(['$', '(', '"', '<']).trim_end_matches([')', '"', ';']);
        if ["|", "&&", "||", "&", ">", "2>", "then", "do"].contains(&word) || word.starts_with('<') || word.starts_with('>') {
            (inside, first) = (false, !word.starts_with(['<', '>']));
        } else if first && !inside && (bare == "attache" || bare.ends_with("/attache")) {
            calls.push(Vec::new());
            inside = true;
        } else if inside {
            let word = word.trim_matches(['[', ']', '"', '\'', ')', ';', ',']);
            // `docker exec attache attache …` names the container first.
            if word != "attache" {
                calls.last_mut().expect("one is open").push(word);
            }
        } else {
            first = bare.contains('=') || ["sudo", "exec", "$", "time", "env"].contains(&word);
        }
        if inside && word.ends_with(';') {
            (inside, first) = (false, true);
        }
    }
    calls
}

#[test]
fn every_command_of_the_pages_and_its_flags_are_there() {
    let mut program = Program::default();
    let (mut seen, mut faults) = (0, Vec::new());
    for page in pages::all().iter().filter(|page| page.name != Path::new("CHANGELOG.md")) {
        let mut lines: Vec<(usize, String)> = Vec::new();
        for block in page.blocks().iter().filter(|block| ["sh", "console", "bash"].contains(&block.language)) {
            let text = block.text.replace("\\\n", " ");
            lines.extend(text.lines().map(|line| (block.line, line.strip_prefix("$ ").unwrap_or(line).to_owned())));
        }
        for (at, line) in page.prose() {
            lines.extend(pages::code_spans(line).filter(|span| span.starts_with("attache ")).map(|span| (at, span.to_owned())));
        }
        for (at, line) in &lines {
            for call in calls(line) {
                seen += 1;
                if let Some(fault) = program.fault(&call) {
                    faults.push(format!("{}:{at}: {fault}: {line}", page.name.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(seen > 100, "{seen} commands only");
}

#[test]
fn a_wrong_flag_or_command_would_be_seen() {
    let mut program = Program::default();
    let mut check = |line: &str, expected: Option<&str>| {
        let found = calls(line).iter().find_map(|call| program.fault(call));
        assert_eq!(found.is_some(), expected.is_some(), "{line}: {found:?}");
        assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{line}");
    };
    check("attache check -c routes.yaml && attache run", None);
    check("X=1 target/release/attache connections import --from nango FILE", None);
    check("docker exec attache attache connections list --json", None);
    check("cat attache.key | attache connections list|show", None);
    check("attache chekc", Some("chekc"));
    check("true && attache connections lsit", Some("lsit"));
    check("attache run --prot 1", Some("--prot"));
    check("attache connections export --plane", Some("--plane"));
}
