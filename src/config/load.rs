//! From the text of `routes.yaml` to a checked snapshot, or everything that is wrong with it.

use super::error::{At, ConfigError, ConfigErrors, did_you_mean};
use super::fields::{Fields, Problems, Shape};
use super::node::{Node, Value};
use super::providers::{self, Definition};
use super::registration::{self, Missing};
use super::snapshot::{Guard, Snapshot, Startup};
use super::sources::{Env, Prints, Sources};
use super::{interpolate, listen, log, metrics, notify, origins, people, routes, startup, upstreams, yaml};
use crate::base::secret::Secret;
use std::path::Path;
use std::sync::Arc;

const CONFIG: Shape = Shape { name: "Config", said: "`routes.yaml`" };

/// What a load gives besides the snapshot: what reload needs to know.
pub(super) struct Loaded {
    pub(super) snapshot: Snapshot,
    /// The hosts that routes name: the live part of [`Guard::hosts`].
    pub(super) route_hosts: Vec<Box<str>>,
    pub(super) proxy_at: At,
    /// `listen.origins` as this file has them, whatever runs.
    pub(super) origins: Vec<origins::Origin>,
}

/// Reads and checks a config file and everything that it names.
///
/// # Errors
/// Everything that is wrong, all at once.
pub fn load(path: &Path, env: Env<'_>) -> Result<Snapshot, ConfigErrors> {
    load_file(path, env).0.map(|loaded| loaded.snapshot)
}

/// The same of a text, as if it stood in `file`; relative paths begin at `folder`.
///
/// # Errors
/// Everything that is wrong, all at once.
pub fn load_str(text: &str, file: &Path, folder: &Path, env: Env<'_>) -> Result<Snapshot, ConfigErrors> {
    load_text(text, &file.into(), &Sources::new(env, folder), &Problems::default()).map(|loaded| loaded.snapshot)
}

/// The built-in provider definitions with those of a folder over them, in the order of their ids.
///
/// # Errors
/// Everything that is wrong with the folder's files.
pub fn definitions(folder: &Path, env: Env<'_>) -> Result<Vec<Definition>, ConfigErrors> {
    let problems = Problems::default();
    let sources = Sources::new(env, folder);
    let found = providers::gather(folder, &sources, &problems);
    let all = found.iter().map(|(id, found)| Definition::of(id, found, &sources, &problems)).collect();
    let (errors, _) = problems.take(&sources.filled());
    if errors.is_empty() { Ok(all) } else { Err(ConfigErrors(errors)) }
}

/// As [`load`], with the fingerprints of all that was read, whether it was good or not.
pub(super) fn load_file(path: &Path, env: Env<'_>) -> (Result<Loaded, ConfigErrors>, Prints) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let sources = Sources::new(env, folder);
    let file: Arc<Path> = path.into();
    let result = match sources.read(path) {
        Ok(text) => load_text(&text, &file, &sources, &Problems::default()),
        Err(error) => {
            let hint = Some("`-c PATH` names another; the README has a first one to copy".into());
            Err(ConfigErrors(vec![ConfigError::at(&At::start_of(&file), format!("cannot read the config: {error}"), hint)]))
        }
    };
    (result, sources.into_prints())
}

pub(super) fn load_text(text: &str, file: &Arc<Path>, sources: &Sources<'_>, problems: &Problems) -> Result<Loaded, ConfigErrors> {
    let mut root = yaml::parse(text, file).map_err(ConfigErrors)?;
    if matches!(root.value, Value::Null) {
        // An editor that writes in place leaves the file empty for a moment: taken for a config, it would serve no route until the rest is there.
        let hint = Some("write at least `providers:` and `routes:`; the README has a first one to copy".into());
        let message = "the config is empty: expected a mapping (`key: value` lines), found nothing".to_owned();
        return Err(ConfigErrors(vec![ConfigError::at(&At::start_of(file), message, hint)]));
    }
    let missing = fill_in(&mut root, sources, problems);
    let loaded = Fields::open(&root, CONFIG, problems).and_then(|fields| build(fields, &missing, sources));
    let (errors, warnings) = problems.take(&sources.filled());
    match loaded {
        Some(mut loaded) if errors.is_empty() => {
            loaded.snapshot.warnings = warnings;
            loaded.snapshot.filled = sources.filled().into_iter().map(Secret::from).collect();
            Ok(loaded)
        }
        _ => Err(ConfigErrors(errors)),
    }
}

/// Fills in all variables; what an optional provider misses is no error but the reason why it is off.
fn fill_in(root: &mut Node, sources: &Sources<'_>, problems: &Problems) -> Missing {
    let names = interpolate::names_used(root);
    let mut missing = Missing::new();
    let Value::Map(sections) = &mut root.value else { return missing };
    for (key, section) in sections {
        let faults = match &mut section.value {
            Value::Map(entries) if key.text == "providers" => {
                let mut all = Vec::new();
                for (id, entry) in entries {
                    let optional = registration::is_optional(entry);
                    for fault in interpolate::fill(entry, sources, &names) {
                        match fault.missing {
                            Some(what) if optional => missing.entry(id.text.clone()).or_default().push(what),
                            _ => all.push(fault),
                        }
                    }
                }
                all
            }
            _ => interpolate::fill(section, sources, &names),
        };
        faults.into_iter().for_each(|fault| problems.push(fault.error));
    }
    missing
}

fn build(fields: Fields<'_>, missing: &Missing, sources: &Sources<'_>) -> Option<Loaded> {
    let problems = fields.problems;
    let listen = listen::read(&fields, sources);
    let public_url = listen::public_url(&fields, &listen.public);
    let end_user = people::end_user(&fields, sources);
    let (store, keys) = startup::store(&fields, sources);
    let (admin_tokens, admin_uids) = startup::admin(&fields, sources);
    let folder = sources.path(fields.word("providers_dir").unwrap_or("providers"));
    let definitions = providers::gather(&folder, sources, problems);
    let entries = fields.pairs("providers");
    let provider_ids: Vec<&str> = entries.iter().map(|(key, _)| &*key.text).collect();
    let providers = registration::read(entries, &definitions, missing, sources, problems);
    let (callers, named_routes) = people::callers(&fields, &provider_ids);
    let caller_names: Vec<&str> = callers.0.iter().map(|caller| &*caller.name).collect();
    let nodes = fields.list("routes").unwrap_or_default();
    let mut route_names = routes::names(nodes);
    let known = routes::Known {
        providers: &providers,
        provider_ids: &provider_ids,
        end_user: &end_user,
        callers: &caller_names,
        route_names: &route_names,
    };
    let routes = routes::read(nodes, &known, problems);
    let origins = origins::read(listen.origins, &known, sources, problems);
    let others = [("`proxy`", &listen.proxy), ("`public`", &listen.public), ("`admin`", &listen.admin)];
    origins::refuse_shared(&origins, &others, problems);
    route_names.extend(origins::names(listen.origins));
    for (node, name) in named_routes {
        if !route_names.contains(&name) {
            let hint = did_you_mean(name, route_names.iter().copied());
            problems.say(&node.at, format!("no route is called {}", node.found()), hint);
        }
    }
    if nodes.is_empty() && origins.is_empty() {
        problems.warn("there are no routes: every call is answered 404");
    }
    let mut tls = listen.tls;
    tls.origins = origins.iter().map(|origin| origin.tls.clone()).collect();
    people::check_certificates(&fields, &callers, &tls);
    if listen::is_exposed(&listen.proxy, listen.allow_anonymous, callers.0.is_empty()) {
        exposed(&listen.proxy_at, problems);
    }
    for origin in &origins {
        if listen::is_exposed(&origin.listener, listen.allow_anonymous, callers.0.is_empty()) {
            exposed(&origin.at, problems);
        }
    }
    let (drain, connect) = (startup::drain(&fields), startup::connect(&fields, sources));
    let bounds = upstreams::upstreams(&fields);
    let log = log::read(&fields);
    let metrics = metrics::read(&fields);
    let notify = notify::read(&fields);
    fields.finish();
    let guard = guard(&listen.proxy.hosts, &routes.hosts, listen.allowed_origins);
    let listeners: Vec<_> = origins.iter().map(|origin| origin.listener.clone()).collect();
    let live_origins = origins::live(&listeners, &origins, &[], &providers, &guard.allowed_origins);
    let all_routes = routes.list.iter().chain(origins.iter().filter_map(|origin| origin.route.as_ref()));
    let has_placeholders = end_user.placeholder || all_routes.into_iter().any(|route| route.placeholder == Some(true));
    let startup = Startup {
        proxy: listen.proxy,
        public: listen.public,
        admin: listen.admin,
        health: listen.health,
        origins: listeners,
        allow_anonymous: listen.allow_anonymous,
        public_url,
        store,
        keys,
        admin_tokens,
        admin_uids,
        drain,
    };
    let snapshot = Snapshot {
        filled: Vec::new(),
        generation: 1,
        routes: routes.table,
        upstreams: routes.upstreams,
        route_list: routes.list,
        origins: live_origins,
        has_placeholders,
        providers,
        end_user,
        callers,
        guard,
        bounds,
        log,
        metrics,
        notify,
        connect,
        warnings: Vec::new(),
        tls,
        startup,
    };
    Some(Loaded { snapshot, route_hosts: routes.hosts, proxy_at: listen.proxy_at, origins })
}

/// Tells that strangers could reach tokens.
pub(super) fn exposed(at: &At, problems: &Problems) {
    let hint = "name `callers:` with a key each, bind it to loopback or a unix socket, or say `listen.allow_anonymous: true`";
    problems.say(
        at,
        "the proxy listener can be reached from other machines, and anyone there could use your users' tokens",
        Some(hint.into()),
    );
}

/// The hosts of the listener and of the routes, and the allowed origins.
pub(super) fn guard(listener: &[Box<str>], routes: &[Box<str>], allowed_origins: Vec<Box<str>>) -> Guard {
    let mut hosts: Vec<Box<str>> = listener.iter().chain(routes).cloned().collect();
    hosts.sort();
    hosts.dedup();
    Guard { hosts, allowed_origins }
}
