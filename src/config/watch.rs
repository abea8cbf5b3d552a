//! Notices that a config file changed: by the kernel's word where it comes, by a slow look otherwise, and always by content.
//!
//! Folders are watched, not files: editors rename a new file over the old, and Kubernetes swaps a symlink two folders up, so a file's own
//! watch would be left behind. What an event means is not asked; after a short pause the contents are compared.

use super::reload::Live;
use super::sources::Watched;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How long files must be left alone after an event: an editor's write is several.
const QUIET: Duration = Duration::from_millis(75);

/// How many such pauses are waited for while events go on: a folder that is never quiet must not keep an edit back.
const WAITS_MAX: usize = 20;

/// How often contents are compared although no event came: network file systems send none.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Live {
    /// Reloads on SIGHUP and on every change of a file that the config is made of, until the task is aborted.
    pub fn spawn_watch(self: Arc<Self>, handle: &Handle) -> JoinHandle<()> {
        // Registered before this returns: until then SIGHUP would end the process.
        let _entered = handle.enter();
        let hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => Some(hangup),
            Err(error) => {
                tracing::warn!("SIGHUP will not reload the config: {error}");
                None
            }
        };
        handle.spawn(watch(self, hangup))
    }
}

async fn watch(live: Arc<Live>, mut hangup: Option<Signal>) {
    // One waiting event says all that a thousand would.
    let (tell, mut told) = mpsc::channel::<()>(1);
    let mut folders = Folders::new(tell);
    folders.follow(&live);
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Losing any arm is safe: each only leads to a comparison of contents, which sees whatever an event that was lost would have told.
        let forced = tokio::select! {
            Some(()) = async { hangup.as_mut()?.recv().await }, if hangup.is_some() => true,
            Some(()) = told.recv() => {
                // Until nothing came for a while: a file that is written in place is cut short for a moment, and that can be valid too.
                for _ in 0..WAITS_MAX {
                    sleep(QUIET).await;
                    if told.try_recv().is_err() {
                        break;
                    }
                }
                false
            }
            _ = look.tick() => false,
        };
        let live_now = live.clone();
        let work = move || if forced { Some(live_now.reload()) } else { live_now.reload_if_changed() };
        // Files are read off the runtime's threads; the outcome is logged where it is made.
        if matches!(tokio::task::spawn_blocking(work).await, Ok(Some(_))) {
            folders.follow(&live);
        }
    }
}

/// The folders that are watched now.
struct Folders {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Folders {
    fn new(tell: mpsc::Sender<()>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is an event too, and ours would follow our own looks for ever.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = tell.try_send(());
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!("config files are looked at every {} s only: {error}", LOOK_EVERY.as_secs());
        }
        Folders { watcher: watcher.ok(), watched: BTreeSet::new() }
    }

    /// Watches the folders of all that the config is made of now.
    fn follow(&mut self, live: &Live) {
        let Some(watcher) = &mut self.watcher else { return };
        let prints = live.prints();
        let wanted: BTreeSet<PathBuf> = prints.keys().flat_map(folders_of).filter(|folder| folder.is_dir()).collect();
        for gone in self.watched.difference(&wanted) {
            // It may have been removed, and its watch with it.
            let _ = watcher.unwatch(gone);
        }
        let mut watched: BTreeSet<PathBuf> = self.watched.intersection(&wanted).cloned().collect();
        for new in wanted.difference(&self.watched) {
            match watcher.watch(new, RecursiveMode::NonRecursive) {
                Ok(()) => drop(watched.insert(new.clone())),
                Err(error) => tracing::warn!(config.folder = %new.display(), "looked at every {} s only: {error}", LOOK_EVERY.as_secs()),
            }
        }
        self.watched = watched;
    }
}

/// A thing's folder as written, and that of the file that it leads to.
fn folders_of(watched: &Watched) -> Vec<PathBuf> {
    let parent =
        |path: &Path| path.parent().map(|parent| if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_path_buf() });
    match watched {
        Watched::File(path) => parent(path).into_iter().chain(path.canonicalize().ok().as_deref().and_then(parent)).collect(),
        // The folder above it too: it may come and go.
        Watched::Folder(folder) => std::iter::once(folder.clone()).chain(parent(folder)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reload::LiveEnv;
    use std::fs;

    fn config(id: &str) -> String {
        format!("providers:\n  google: {{client_id: {id}}}\n")
    }

    async fn reaches(generations: &mut tokio::sync::watch::Receiver<u64>, generation: u64) {
        let reached = tokio::time::timeout(Duration::from_secs(20), generations.wait_for(|now| *now >= generation)).await;
        assert!(matches!(reached, Ok(Ok(_))), "generation {generation} came live");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn edits_go_live_by_themselves() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("routes.yaml");
        fs::write(&path, config("one")).expect("written");
        let env: LiveEnv = Arc::new(|_| None);
        let live = Live::start(&path, env).unwrap_or_else(|errors| panic!("{errors}"));
        let mut generations = live.subscribe();
        let task = live.clone().spawn_watch(&Handle::current());

        // An editor's save: a new file renamed over the old one, twice, so that a watch on the file itself would be lost.
        for (generation, id) in [(2, "two"), (3, "three")] {
            let new = folder.path().join("routes.yaml.new");
            fs::write(&new, config(id)).expect("written");
            fs::rename(&new, &path).expect("renamed");
            reaches(&mut generations, generation).await;
            assert_eq!(&*live.snapshot().providers["google"].client_id, id);
        }
        // A folder that was not there at the start.
        fs::create_dir(folder.path().join("providers")).expect("folder");
        fs::write(folder.path().join("providers/google.yaml"), "display_name: Mine\ntoken_url: https://t.example.com/\n").expect("written");
        reaches(&mut generations, 4).await;
        assert_eq!(&*live.snapshot().providers["google"].display_name, "Mine");
        task.abort();
    }
}
