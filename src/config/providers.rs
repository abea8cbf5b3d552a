//! The provider definitions: those built into the binary, and the operator's files over them, read by the same loader.

use super::definition::{DEFINITION, Draft, Reading, lint};
use super::error::At;
use super::fields::{Fields, Problems};
use super::interpolate;
use super::node::Node;
use super::sources::Sources;
use super::yaml;
use crate::provider::{Asks, Input, Verified};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `providers/*.yaml` of this repository: id and text.
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/providers.rs"));

/// A definition as `attache providers list` and `show` tell it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub id: Box<str>,
    pub display_name: Box<str>,
    pub category: Box<str>,
    /// How a connection comes about: `code`, `device`, `app`, `api_key`, `password`.
    pub modes: Vec<&'static str>,
    /// What connecting asks of the end user besides consent.
    pub inputs: Vec<Input>,
    /// What its author should see though nothing is wrong.
    pub warnings: Vec<String>,
    pub verified: Verified,
    /// The operator's file; `None` for one that is built in.
    pub file: Option<PathBuf>,
    /// The YAML as written.
    pub text: Box<str>,
}

/// One definition. Most are never used, so it is parsed when the first registration does, and no more than once.
pub(super) struct Found {
    file: Option<PathBuf>,
    text: Cow<'static, str>,
    parsed: OnceCell<Parsed>,
}

/// What a text became. With faults, which are told, there is no tree.
#[derive(Default)]
pub(super) struct Parsed {
    pub(super) tree: Option<Node>,
    pub(super) draft: Draft,
}

/// All definitions by id.
pub(super) type Definitions = BTreeMap<Box<str>, Found>;

impl Found {
    fn new(file: Option<PathBuf>, text: impl Into<Cow<'static, str>>) -> Found {
        Found { file, text: text.into(), parsed: OnceCell::new() }
    }

    /// What it says; its faults go to the `problems` of the first that asks.
    pub(super) fn parsed(&self, id: &str, sources: &Sources<'_>, problems: &Problems) -> &Parsed {
        self.parsed.get_or_init(|| {
            let file = self.file.clone().unwrap_or_else(|| format!("built-in providers/{id}.yaml").into());
            read(&self.text, &file.into(), sources, problems).unwrap_or_default()
        })
    }
}

/// The built-in definitions with those of `folder` over them, whole files each. Those of the folder are parsed at once: they are the operator's,
/// who wants to know of a fault before a registration uses one.
pub(super) fn gather(folder: &Path, sources: &Sources<'_>, problems: &Problems) -> Definitions {
    let mut all: Definitions = BUILT_IN.iter().map(|(id, text)| (Box::from(*id), Found::new(None, *text))).collect();
    for path in sources.list(folder) {
        let Some(id) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        let file: Arc<Path> = path.clone().into();
        if let Err(why) = check_id(id) {
            problems.say(&At::start_of(&file), format!("the file's name makes the provider id `{id}`, which {why}"), None);
            continue;
        }
        let text = match sources.read(&path) {
            Ok(text) => text,
            Err(error) => {
                problems.say(&At::start_of(&file), format!("cannot read the file: {error}"), None);
                continue;
            }
        };
        // One with faults is kept too, so that its users are not told to be unknown besides.
        let is_built_in = BUILT_IN.binary_search_by(|(other, _)| (*other).cmp(id)).is_ok_and(|at| BUILT_IN[at].1 == text);
        let found = Found::new(Some(path.clone()), text);
        // A copy of a built-in one, as in the repository itself, has no news for the operator.
        if !is_built_in {
            found.parsed(id, sources, problems);
        }
        all.insert(id.into(), found);
    }
    all
}

fn read(text: &str, file: &Arc<Path>, sources: &Sources<'_>, problems: &Problems) -> Option<Parsed> {
    let before = problems.count();
    let mut node = match yaml::parse(text, file) {
        Ok(node) => node,
        Err(errors) => {
            errors.into_iter().for_each(|error| problems.push(error));
            return None;
        }
    };
    let names = interpolate::names_used(&node);
    interpolate::fill(&mut node, sources, &names).into_iter().for_each(|fault| problems.push(fault.error));
    let fields = Fields::open(&node, DEFINITION, problems)?;
    let draft = Draft::read(&fields, Reading::Definition);
    fields.finish();
    Some(Parsed { tree: (problems.count() == before).then_some(node), draft })
}

/// Whether a text can name a provider: it stands in URLs and store keys.
pub(super) fn check_id(id: &str) -> Result<(), &'static str> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if id.is_empty() || id.len() > 64 {
        return Err("is empty or longer than 64 bytes");
    }
    if !id.bytes().all(fine) || !id.as_bytes()[0].is_ascii_alphanumeric() {
        return Err("is not made of letters, digits, `-`, `_` and `.`, beginning with a letter or digit");
    }
    Ok(())
}

impl Definition {
    /// What a definition tells of itself.
    pub(super) fn of(id: &str, found: &Found, sources: &Sources<'_>, problems: &Problems) -> Definition {
        let draft = &found.parsed(id, sources, problems).draft;
        Definition {
            id: id.into(),
            display_name: draft.display_name.clone().unwrap_or_else(|| id.into()),
            category: draft.category.clone().unwrap_or_else(|| "other".into()),
            modes: modes(draft),
            inputs: draft.dialect.inputs.clone(),
            warnings: lint::odd_category(draft.category.as_deref()).into_iter().collect(),
            verified: draft.verified.unwrap_or(Verified::Partial),
            file: found.file.clone(),
            text: found.text.as_ref().into(),
        }
    }
}

/// The ways to a connection that a definition opens.
fn modes(draft: &Draft) -> Vec<&'static str> {
    if super::oauth1::is_spoken(draft) {
        return vec!["oauth1"];
    }
    let mut all = Vec::new();
    match draft.asks.unwrap_or_default() {
        Asks::ApiKey => all.push("api_key"),
        Asks::Password => all.push("password"),
        Asks::Consent => {}
    }
    let discovered = draft.issuer.is_some();
    if draft.authorize_url.is_some() || (discovered && all.is_empty()) {
        all.push("code");
    }
    if draft.device_authorization_url.is_some() {
        all.push("device");
    }
    if !all.contains(&"api_key") && !all.contains(&"password") && (draft.token_url.is_some() || discovered) {
        all.push("app");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{ClientAuth, Lifetime, Pkce};
    use std::time::Duration;

    fn drafts(folder: &Path, takes: impl Fn(&str) -> bool, problems: &Problems) -> BTreeMap<Box<str>, Draft> {
        let sources = Sources::new(&|_| None, folder);
        let all = gather(folder, &sources, problems);
        let taken = all.iter().filter(|(id, _)| takes(id));
        taken.map(|(id, found)| (id.clone(), found.parsed(id, &sources, problems).draft.clone())).collect()
    }

    fn built_in() -> BTreeMap<Box<str>, Draft> {
        let problems = Problems::default();
        let all = drafts(Path::new("/nonexistent"), |_| true, &problems);
        let (errors, _) = problems.take(&[]);
        assert!(errors.is_empty(), "{errors:?}");
        all
    }

    #[test]
    fn every_built_in_definition_is_whole() {
        let all = built_in();
        for id in ["box", "dropbox", "github", "google", "microsoft", "sandbox"] {
            let draft = &all[id];
            assert!(draft.authorize_url.is_some() && draft.token_url.is_some(), "{id}");
            assert!(draft.display_name.is_some() && draft.category.is_some() && draft.default_expires_in.is_some(), "{id}");
            assert!(draft.client_auth.is_some() && draft.pkce.is_some() && draft.verified.is_some(), "{id}");
            assert!(!draft.token_hosts.allowed.is_empty(), "{id}");
        }
        let google = &all["google"];
        assert_eq!((google.pkce, google.client_auth), (Some(Pkce::S256), Some(ClientAuth::Body)));
        assert_eq!(google.authorize_params.len(), 2);
        assert_eq!(google.default_expires_in, Some(Lifetime::For(Duration::from_secs(3600))));
        assert!(!google.token_hosts.allowed.iter().any(|host| host.takes("1.2.3.4.bc.googleusercontent.com", 443)));
        assert_eq!(all["github"].default_expires_in, Some(Lifetime::Never));
    }

    #[test]
    fn the_built_in_ones_are_in_the_order_of_their_ids() {
        assert!(BUILT_IN.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn an_operators_file_takes_the_built_in_ones_place() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("google.yaml"), "display_name: Mine\ntoken_url: https://t.example.com/\n").expect("written");
        std::fs::write(folder.path().join("bad.yaml"), "token_url: http://t.example.com/\nauthorise_url: x\nrevoke_url: https://a.b/#c\n")
            .expect("written");
        let problems = Problems::default();
        let all = drafts(folder.path(), |id| id == "google", &problems);
        assert_eq!(all["google"].display_name.as_deref(), Some("Mine"));
        assert!(all["google"].authorize_url.is_none(), "whole files, not keys");
        let shown: Vec<String> = problems.take(&[]).0.iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), 3, "{shown:?}");
        assert!(shown[0].contains("bad.yaml:1:12: expected an https:// URL, found `http://t.example.com/`"), "{shown:?}");
        assert!(
            shown[1].contains("bad.yaml:2:1: unknown key `authorise_url`") && shown[1].contains("did you mean `authorize_url`?"),
            "{shown:?}"
        );
        assert!(shown[2].contains("fragment"), "{shown:?}");
    }
}
