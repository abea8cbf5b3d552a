//! The live config: swapped as a whole when every file of it is right, kept as it is when one is not.

use super::error::{ConfigError, ConfigErrors};
use super::fields::Problems;
use super::load::{self, Loaded};
use super::snapshot::{ListenerTls, ServerTls, Snapshot, Startup};
use super::sources::{Prints, prints_now};
use super::{listen, origins};
use arc_swap::ArcSwap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The environment that a live config reads again at each reload.
pub type LiveEnv = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A reload that went live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    pub generation: u64,
    /// The keys whose change waits for a restart.
    pub restart_required: Vec<String>,
}

/// The config that calls see, and how it is renewed.
pub struct Live {
    path: PathBuf,
    env: LiveEnv,
    current: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
    /// The words of each refused edit.
    refusals: watch::Sender<Vec<String>>,
    /// Held for the whole of a reload, so that two never cross; never on the path of a call.
    state: Mutex<State>,
}

struct State {
    /// What every file held at the last try, good or bad, so that a bad one is told once and not at every look.
    prints: Prints,
    errors: Vec<ConfigError>,
    restart_required: Vec<String>,
    /// The origins of the first load: they belong to `listen`, which is kept back.
    allowed_origins: Vec<Box<str>>,
}

impl Live {
    /// Loads the config for the first time.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn start(path: &Path, env: LiveEnv) -> Result<Arc<Live>, ConfigErrors> {
        let (loaded, prints) = load::load_file(path, &*env);
        let snapshot = loaded?.snapshot;
        let allowed_origins = snapshot.guard.allowed_origins.clone();
        let state = State { prints, errors: Vec::new(), restart_required: Vec::new(), allowed_origins };
        Ok(Arc::new(Live {
            path: path.to_path_buf(),
            env,
            generation: watch::Sender::new(snapshot.generation),
            refusals: watch::Sender::new(Vec::new()),
            current: ArcSwap::from_pointee(snapshot),
            state: Mutex::new(state),
        }))
    }

    /// The config as it is now; a call takes it once and keeps it for its whole life.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    pub fn swap(&self) -> &ArcSwap<Snapshot> {
        &self.current
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The generation that is live, and each one after it.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// What each edit was refused for, from now on; empty again with one that goes live.
    pub fn refusals(&self) -> watch::Receiver<Vec<String>> {
        self.refusals.subscribe()
    }

    /// What was wrong with the last try; empty when it went live.
    pub fn last_errors(&self) -> Vec<ConfigError> {
        self.state().errors.clone()
    }

    /// The keys whose change waits for a restart.
    pub fn restart_required(&self) -> Vec<String> {
        self.state().restart_required.clone()
    }

    /// Reads everything anew. If all of it is right it goes live at once; if not, nothing changes.
    ///
    /// # Errors
    /// Everything that is wrong; also logged, and kept for [`Live::last_errors`].
    pub fn reload(&self) -> Result<Reloaded, ConfigErrors> {
        self.reload_holding(&mut self.state())
    }

    /// Reloads if any file's content is another than at the last try.
    pub(super) fn reload_if_changed(&self) -> Option<Result<Reloaded, ConfigErrors>> {
        let mut state = self.state();
        (prints_now(&state.prints) != state.prints).then(|| self.reload_holding(&mut state))
    }

    pub(super) fn prints(&self) -> Prints {
        self.state().prints.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reload_holding(&self, state: &mut State) -> Result<Reloaded, ConfigErrors> {
        let (loaded, mut prints) = load::load_file(&self.path, &*self.env);
        let checked = loaded.and_then(|loaded| self.keep_back(loaded, state));
        match checked {
            Ok((mut snapshot, restart_required)) => {
                let generation = self.current.load().generation + 1;
                snapshot.generation = generation;
                for warning in &snapshot.warnings {
                    tracing::warn!(config.generation = generation, "{warning}");
                }
                self.current.store(Arc::new(snapshot));
                state.prints = prints;
                state.errors.clear();
                state.restart_required.clone_from(&restart_required);
                self.generation.send_replace(generation);
                self.refusals.send_replace(Vec::new());
                let keys = restart_required.join(", ");
                tracing::info!(config.generation = generation, config.restart_required = keys, "the new config is live");
                Ok(Reloaded { generation, restart_required })
            }
            Err(errors) => {
                // A broken file may not have come to name the others: they stay watched.
                for (watched, print) in prints_now(&state.prints) {
                    prints.entry(watched).or_insert(print);
                }
                state.prints = prints;
                state.errors.clone_from(&errors.0);
                let words: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
                self.refusals.send_if_modified(|told| {
                    let is_new = *told != words;
                    *told = words;
                    is_new
                });
                for error in &errors.0 {
                    tracing::error!(config.file = %error.file.display(), config.line = error.line, "config refused, the old one stays: {error}");
                }
                Err(errors)
            }
        }
    }

    /// Puts the startup settings of the first load into a new snapshot and names those that differ.
    fn keep_back(&self, loaded: Loaded, state: &State) -> Result<(Snapshot, Vec<String>), ConfigErrors> {
        let Loaded { mut snapshot, route_hosts, proxy_at, origins } = loaded;
        let current = self.current.load();
        let first = current.startup.clone();
        let mut changed = changed_keys(&first, &snapshot.startup);
        if state.allowed_origins != snapshot.guard.allowed_origins {
            changed.push("listen.allowed_origins".to_owned());
        }
        // The listener that runs is the first one, whatever the file says of it by now: it must not lose its callers.
        let no_callers = snapshot.callers.0.is_empty();
        if [&first.proxy].into_iter().chain(&first.origins).any(|listener| listen::is_exposed(listener, first.allow_anonymous, no_callers))
        {
            let problems = Problems::default();
            load::exposed(&proxy_at, &problems);
            return Err(ConfigErrors(problems.take(&[]).0));
        }
        snapshot.guard = load::guard(&first.proxy.hosts, &route_hosts, state.allowed_origins.clone());
        snapshot.origins = origins::live(&first.origins, &origins, &current.origins, &snapshot.providers, &state.allowed_origins);
        snapshot.has_placeholders |=
            snapshot.origins.iter().any(|origin| origin.route.as_ref().is_some_and(|route| route.placeholder == Some(true)));
        snapshot.end_user.adopt(&current.end_user);
        snapshot.adopt_counts(&current);
        snapshot.tls = live_tls(&first, &current.tls, &snapshot.tls, &origins);
        snapshot.startup = first;
        Ok((snapshot, changed))
    }
}

/// The certificates of the listeners that run: the new config's, or those before where it has none by now.
fn live_tls(running: &Startup, before: &ListenerTls, new: &ListenerTls, origins: &[origins::Origin]) -> ListenerTls {
    let one =
        |runs: bool, new: &Option<Arc<ServerTls>>, before: &Option<Arc<ServerTls>>| new.clone().or_else(|| before.clone()).filter(|_| runs);
    ListenerTls {
        proxy: one(running.proxy.tls, &new.proxy, &before.proxy),
        public: one(running.public.tls, &new.public, &before.public),
        admin: one(running.admin.tls, &new.admin, &before.admin),
        health: one(running.health.as_ref().is_some_and(|health| health.tls), &new.health, &before.health),
        origins: origins::live_tls(&running.origins, origins, &before.origins),
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Live({}, generation {})", self.path.display(), self.current.load().generation)
    }
}

/// The keys in which two startup settings differ. Every field is named here, so that a new one cannot be forgotten.
fn changed_keys(old: &Startup, new: &Startup) -> Vec<String> {
    let Startup { proxy, public, admin, health, origins, allow_anonymous, public_url, store, keys, admin_tokens, admin_uids, drain } = new;
    let differs = [
        ("listen.proxy", old.proxy != *proxy),
        ("listen.public", old.public != *public),
        ("listen.admin", old.admin != *admin),
        ("listen.health", old.health != *health),
        ("listen.origins", old.origins != *origins),
        ("listen.allow_anonymous", old.allow_anonymous != *allow_anonymous),
        ("public_url", old.public_url != *public_url),
        ("store", old.store != *store),
        ("store.encryption_keys", old.keys != *keys),
        ("admin", old.admin_tokens != *admin_tokens || old.admin_uids != *admin_uids),
        ("shutdown", old.drain != *drain),
    ];
    differs.iter().filter(|(_, differs)| *differs).map(|(key, _)| (*key).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Logo;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn config(id: &str) -> String {
        format!(
            "providers:\n  google: {{client_id: {id}}}\nroutes:\n  - {{match: /a, provider: google, upstream: https://www.googleapis.com/}}\n"
        )
    }

    fn start(path: &Path) -> Arc<Live> {
        let env: LiveEnv = Arc::new(|name| (name == "HERE").then(|| "x".to_owned()));
        Live::start(path, env).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn a_new_logo_goes_live_and_a_bad_one_does_not() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("routes.yaml"), format!("connect: {{logo: ./logo}}\n{}", config("one"))).expect("written");
        fs::write(at("logo"), "<svg xmlns=\"http://www.w3.org/2000/svg\"/>").expect("written");
        let live = start(&at("routes.yaml"));
        let logo = |live: &Live| live.snapshot().connect.logo.clone();
        let svg = logo(&live);
        assert!(matches!(svg, Some(Logo::Inline { mime: "image/svg+xml", .. })), "{svg:?}");
        fs::write(at("logo"), "GIF89a").expect("written");
        assert!(matches!(live.reload_if_changed(), Some(Err(_))));
        assert_eq!(logo(&live), svg);
        fs::write(at("logo"), b"\xff\xd8\xff\xe0").expect("written");
        assert!(matches!(live.reload_if_changed(), Some(Ok(_))));
        assert_eq!(logo(&live), Some(Logo::Inline { mime: "image/jpeg", base64: "/9j/4A==".into() }));
    }

    fn client_id(live: &Live) -> String {
        live.snapshot().providers["google"].client_id.to_string()
    }

    #[test]
    fn a_good_edit_goes_live_and_a_bad_one_does_not() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("routes.yaml");
        fs::write(&path, config("one")).expect("written");
        let live = start(&path);
        let mut generations = live.subscribe();
        assert_eq!((live.snapshot().generation, live.reload_if_changed()), (1, None));

        for (text, what) in [
            (config("two").replace("client_id", "clientid"), "unknown key"),
            ("providers: [".to_owned(), "half written"),
            (config("${NOT_HERE}").replace("{client_id: ${NOT_HERE}}", "{client_id: \"${NOT_HERE}\"}"), "variable missing"),
        ] {
            fs::write(&path, text).expect("written");
            assert!(matches!(live.reload_if_changed(), Some(Err(_))), "{what}");
            assert!(!live.last_errors().is_empty(), "{what}");
            assert_eq!((client_id(&live), live.snapshot().generation), ("one".into(), 1), "{what}");
            assert_eq!(live.reload_if_changed(), None, "{what}: told once");
        }
        fs::remove_file(&path).expect("removed");
        assert!(matches!(live.reload_if_changed(), Some(Err(_))));
        assert_eq!(client_id(&live), "one", "the file is gone, the config is not");

        fs::write(&path, config("three")).expect("written");
        let Some(Ok(reloaded)) = live.reload_if_changed() else { panic!("live") };
        assert_eq!(reloaded, Reloaded { generation: 2, restart_required: Vec::new() });
        assert_eq!((client_id(&live), live.last_errors()), ("three".into(), Vec::new()));
        assert_eq!(*generations.borrow_and_update(), 2);
    }

    #[test]
    fn startup_keys_are_kept_back_and_named() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("routes.yaml");
        fs::write(&path, config("one")).expect("written");
        let live = start(&path);
        let more = "listen: {admin: 127.0.0.1:9, allowed_origins: [http://localhost:3000]}\nstore: {memory: {}}\nshutdown: {drain: 1s}\n";
        fs::write(&path, format!("{more}{}", config("two"))).expect("written");
        let reloaded = live.reload().unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(reloaded.restart_required, ["listen.admin", "store", "shutdown", "listen.allowed_origins"]);
        assert_eq!(live.restart_required(), reloaded.restart_required);
        assert_eq!(client_id(&live), "two", "the rest is live");
        assert_eq!(live.snapshot().startup.drain.as_secs(), 30);
        assert!(live.snapshot().guard.allowed_origins.is_empty());
    }

    #[test]
    fn an_open_listener_never_loses_its_callers() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("routes.yaml");
        fs::write(&path, format!("listen: {{proxy: 0.0.0.0:7070}}\ncallers: [{{name: a, uid: 1}}]\n{}", config("one"))).expect("written");
        let live = start(&path);
        // By itself this file is fine; but the listener that runs is still the open one.
        fs::write(&path, config("two")).expect("written");
        let errors = live.reload().expect_err("refused");
        assert!(errors.to_string().contains("anyone there could use"), "{errors}");
        assert_eq!(live.snapshot().callers.0.len(), 1);
    }

    #[test]
    fn provider_files_secret_files_and_swapped_symlinks_count_as_changes() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        // A Kubernetes volume: routes.yaml -> ..data/routes.yaml, ..data -> a folder that is swapped as one.
        for (version, id) in [("v1", "one"), ("v2", "two")] {
            fs::create_dir(at(version)).expect("folder");
            let text = config(id).replace("}\nroutes", ", client_secret: \"${file:secret}\"}\nroutes");
            fs::write(at(version).join("routes.yaml"), text).expect("written");
        }
        fs::write(at("secret"), "first\n").expect("written");
        symlink("v1", at("..data")).expect("linked");
        symlink("..data/routes.yaml", at("routes.yaml")).expect("linked");
        let live = start(&at("routes.yaml"));
        assert_eq!(client_id(&live), "one");
        symlink("v2", at("..tmp")).expect("linked");
        fs::rename(at("..tmp"), at("..data")).expect("swapped");
        assert!(matches!(live.reload_if_changed(), Some(Ok(_))));
        assert_eq!(client_id(&live), "two");

        fs::write(at("secret"), "second\n").expect("written");
        assert!(matches!(live.reload_if_changed(), Some(Ok(_))));
        let secret = live.snapshot().providers["google"].client_secret.clone();
        assert!(secret.is_some_and(|secret| secret.matches(b"second")));

        fs::create_dir(at("providers")).expect("folder");
        fs::write(
            at("providers/google.yaml"),
            "display_name: Mine\ntoken_url: https://t.example.com/\ntoken_hosts: [www.googleapis.com]\n",
        )
        .expect("written");
        assert!(matches!(live.reload_if_changed(), Some(Ok(_))));
        assert_eq!(&*live.snapshot().providers["google"].display_name, "Mine");
        assert_eq!(live.reload_if_changed(), None);
    }
}
