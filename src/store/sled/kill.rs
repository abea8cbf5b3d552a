//! Tests with a process of its own, which is killed or refused disk space in the middle of its writes.
//!
//! The process is this test binary again, told by an environment variable which store to write to. It prints what was acknowledged.

use super::SledStore;
use crate::base::ids::random_bytes;
use crate::store::contract::put;
use crate::store::{Expect, Kind, Store, StoreError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

const ROUNDS: u8 = 20;
const TASKS: u32 = 8;
const KILLED: &str = "ATTACHE_TEST_KILLED_STORE";
const FULL: &str = "ATTACHE_TEST_FULL_STORE";

fn told(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

fn say(text: &str) {
    // A pipe takes so short a line whole; libtest's own capture would keep it back.
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).expect("said");
}

/// The killed process: no test of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_writer() {
    let Some(path) = told(KILLED) else { return };
    let store = SledStore::open(&path).expect("opened");
    let round = std::process::id();
    let write = |store: Arc<SledStore>, task: u32| async move {
        for number in 0u64.. {
            let name = format!("{round}/{task}/{number}");
            // Padded, so that sled is also killed while it moves what still lives out of old segments.
            let last = put(Kind::Connection, format!("last/{task}").as_bytes(), Expect::Any, format!("{name:20000}").as_bytes());
            store.write(vec![put(Kind::Session, name.as_bytes(), Expect::Absent, &[b'x'; 600]), last]).await.expect("written");
            say(&format!("\nacked {name} "));
        }
    };
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(write(store.clone(), task))).collect();
    for task in tasks {
        task.await.expect("never ends");
    }
}

/// What the process said was acknowledged. A line cut by the kill lacks its closing space.
fn acked(said: &str) -> Vec<String> {
    said.lines().filter_map(|line| line.strip_prefix("acked ")?.strip_suffix(' ')).map(str::to_owned).collect()
}

/// The number in a name of this task's.
fn number(name: &str, task: &str) -> Option<u64> {
    let mut parts = name.split('/').skip(1);
    (parts.next() == Some(task)).then(|| parts.next().and_then(|number| number.parse().ok())).flatten()
}

fn child(variable: &str, path: &Path, test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", &format!("store::sled::kill::{test}"), "--nocapture", "--test-threads=1"]).env(variable, path);
    command
}

/// Fails if a group is answered before it is flushed: without that order, what was acknowledged is gone after the kill.
#[tokio::test]
async fn threat_32_kill_9_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let mut known: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let mut writer = child(KILLED, &path, "killed_writer").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
        let writer_id = writer.id();
        let mut out = BufReader::new(writer.stdout.take().expect("piped"));
        let mut said = String::new();
        // Killed after a random number of answers, and so anywhere in the writer's round.
        for _ in 0..random_bytes::<1>()[0] % 100 + u8::from(round > 0) * 3 {
            if out.read_line(&mut said).expect("read") == 0 {
                break;
            }
        }
        writer.kill().expect("killed");
        out.read_to_string(&mut said).expect("read");
        writer.wait().expect("waited");
        let said = acked(&said);

        let store = SledStore::open(&path).expect("opened after a kill");
        let kept = store.scan(Kind::Session, b"", None, usize::MAX).await.expect("scanned");
        let keys: std::collections::BTreeSet<_> = kept.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect();
        known.extend(said.iter().cloned());
        for name in &known {
            assert!(keys.contains(name), "round {round}: {name} was acknowledged and is gone");
        }
        let lasts = store.scan(Kind::Connection, b"last/", None, usize::MAX).await.expect("scanned");
        for (key, last) in lasts {
            let last = String::from_utf8_lossy(&last.value).trim_end().to_owned();
            assert!(keys.contains(&last), "round {round}: half a batch");
            // The rewritten record is the newest acknowledged one, or the one that was under way.
            let task = String::from_utf8_lossy(&key["last/".len()..]).into_owned();
            let acked = said.iter().filter_map(|name| number(name, &task)).max();
            assert!(
                acked <= number(&last, &task).filter(|_| last.starts_with(&format!("{writer_id}/"))),
                "round {round}: {last} is older than {acked:?}"
            );
        }
        store.close().await.expect("closed");
    }
    assert!(known.len() > usize::from(ROUNDS), "only {} writes were acknowledged", known.len());
}

/// The process whose disk is full for a while, by a limit on the size of its files.
#[tokio::test]
async fn full_writer() {
    let Some(path) = told(FULL) else { return };
    let store = SledStore::open(&path).expect("opened");
    let write = |name: String| {
        let store = store.clone();
        async move {
            store
                .write(vec![put(Kind::Session, name.as_bytes(), Expect::Absent, &[b'x'; 4000])])
                .await
                .map(|_| say(&format!("\nacked {name} ")))
        }
    };
    write("early".into()).await.expect("written");
    let before = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(300_000), ..before }).expect("limited");
    let mut number = 0;
    let refusal = loop {
        match write(format!("before/{number}")).await {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
        assert!(number < 1000, "no write was refused");
    };
    assert!(matches!(refusal, StoreError::Unavailable(_)), "{refusal}");
    assert!(write("while full".into()).await.is_err());
    assert!(store.ready().is_err());
    // The limit lifted, a write goes through within a second or so, without a restart.
    setrlimit(Resource::Fsize, before).expect("unlimited");
    let mut tries = 0;
    while let Err(error) = write(format!("after/{tries}")).await {
        tries += 1;
        assert!(tries < 100, "{error}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    store.ready().expect("ready again");
    assert!(store.get(Kind::Session, b"early").await.expect("read").is_some());
    say("\nacked the end \n");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    // The shell makes the kernel answer a write over the limit with an error instead of a signal.
    let writer = child(FULL, &path, "full_writer");
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(writer.get_program()).args(writer.get_args()).env(FULL, &path);
    let output = shell.output().expect("ran");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let names = acked(&said);
    assert!(names.iter().any(|name| name == "the end"), "{said}");
    let store = SledStore::open(&path).expect("opened");
    for name in names.iter().filter(|name| *name != "the end") {
        assert!(store.get(Kind::Session, name.as_bytes()).await.expect("read").is_some(), "{name} is gone");
    }
}
