//! The store as operators handle it: check, backup, restore, repair, copy and new keys, by the real program.

use crate::cli::{CONFIG, ended};
use crate::harness::{MEGAN, free_port};
use crate::process::{Process, run, run_with};
use crate::wire::{self, empty, until};
use attache::base::clock::SystemClock;
use attache::base::ids::ConnectionKey;
use attache::sandbox::{self, Sandbox};
use attache::store::seal::{Sealer, SealingKey};
use attache::store::sled::SledStore;
use attache::store::{Expect, Kind, Store, Write};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const USERS: usize = 30;

fn user(number: usize) -> String {
    format!("user{number:03}@personalemail.com")
}

/// A sandbox, and a folder whose config leads to it, with an admin port of its own.
async fn place() -> (Sandbox, TempDir) {
    let settings = sandbox::Settings { bind: ([127, 0, 0, 1], 0).into(), ..sandbox::Settings::default() };
    let sandbox = Sandbox::start(settings, Arc::new(SystemClock)).await.expect("the sandbox starts");
    let folder = tempfile::tempdir().expect("a folder");
    write_config(folder.path(), &sandbox, "");
    (sandbox, folder)
}

/// `store` is the section's lines, indented by two.
fn write_config(folder: &Path, sandbox: &Sandbox, store: &str) {
    let config = CONFIG
        .replacen("admin: 127.0.0.1:0", &format!("admin: 127.0.0.1:{}", free_port()), 1)
        .replace("SANDBOX", &sandbox.addr.to_string())
        .replace("CLIENT", sandbox::Settings::DEV_CLIENT_ID)
        .replace("SECRET", sandbox::Settings::DEV_CLIENT_SECRET);
    let store = if store.is_empty() { String::new() } else { format!("store:\n{store}") };
    fs::write(folder.join("routes.yaml"), store + &config).expect("written");
}

/// Import lines of users with grants of the sandbox. Of these who `have_ended` the access token has.
fn lines(sandbox: &Sandbox, users: impl Iterator<Item = String>, have_ended: bool) -> String {
    let line = |user: String| {
        let grant = sandbox.issue_grant(&user, &["photos.read", "profile"]).expect("a client");
        let ends = if have_ended { "2020-01-01T00:00:00Z".to_owned() } else { grant.expires_at.to_rfc3339() };
        let refresh = grant.refresh_token.as_ref().map(|token| token.expose());
        json!({"provider": "sandbox", "end_user": user, "access_token": grant.access_token.expose(), "refresh_token": refresh, "expires_at": ends})
    };
    users.map(|user| format!("{}\n", line(user))).collect()
}

async fn filled() -> (Sandbox, TempDir) {
    let (sandbox, folder) = place().await;
    ended(&run_with(folder.path(), &["connections", "import"], &lines(&sandbox, (0..USERS).map(user), false)), 0);
    (sandbox, folder)
}

async fn call(proxy: SocketAddr, user: &str) -> wire::Answer {
    wire::call(proxy, wire::request("GET", "/api/me").header("x-end-user", user).body(empty()).expect("a request")).await
}

fn listed(folder: &Path) -> Vec<String> {
    let list = run(folder, &["connections", "list", "--json"]);
    ended(&list, 0);
    let end_user = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["end_user"].as_str().expect("a name").to_owned();
    list.out.lines().map(end_user).collect()
}

fn everyone() -> Vec<String> {
    (0..USERS).map(user).collect()
}

fn check(folder: &Path) -> Value {
    serde_json::from_str(&run(folder, &["store", "check", "--json"]).out).expect("JSON")
}

fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("listed")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(&path).expect("read")))
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_serving_store_is_restored_on_another_machine() {
    let (sandbox, folder) = filled().await;
    let here = folder.path();
    let mut server = Process::spawn(here, &["run"], &[]);
    server.ready().await;
    let made = run(here, &["store", "backup", "nightly.backup"]);
    ended(&made, 0);
    assert!(made.out.contains("30 connections") && made.out.contains("encryption key"), "{}", made.out);
    assert_eq!(fs::metadata(here.join("nightly.backup")).expect("there").permissions().mode() & 0o777, 0o600);
    ended(&run(here, &["store", "backup", "nightly.backup"]), 2);
    // Not under the server's hands.
    let refused = run(here, &["store", "restore", "nightly.backup", "--force"]);
    ended(&refused, 1);
    assert!(refused.err.contains("stop it first"), "{}", refused.err);
    let asked = run(here, &["store", "check"]);
    ended(&asked, 0);
    assert!(asked.out.contains("every record opens"), "{}", asked.out);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await, Some(0));

    let there = tempfile::tempdir().expect("a folder");
    for file in ["routes.yaml", "nightly.backup"] {
        fs::copy(here.join(file), there.path().join(file)).expect("copied");
    }
    let without_key = run(there.path(), &["store", "restore", "nightly.backup"]);
    ended(&without_key, 1);
    assert!(
        without_key.err.contains("attache.key")
            && without_key.err.contains("put the key there first")
            && !there.path().join("attache.key").exists(),
        "{}",
        without_key.err
    );
    fs::write(there.path().join("attache.key"), SealingKey::generate().to_base64().expose()).expect("written");
    let other_key = run(there.path(), &["store", "restore", "nightly.backup"]);
    ended(&other_key, 1);
    assert!(other_key.err.contains("add that key") && other_key.err.contains("Nothing was changed"), "{}", other_key.err);
    assert!(!there.path().join("attache.db").exists());

    fs::copy(here.join("attache.key"), there.path().join("attache.key")).expect("copied");
    let done = run(there.path(), &["store", "restore", "nightly.backup"]);
    ended(&done, 0);
    assert!(done.out.contains("restored 30 connections") && done.out.contains("reconnect_required"), "{}", done.out);
    assert_eq!(listed(there.path()), everyone());
    let mut server = Process::spawn(there.path(), &["run"], &[]);
    let (proxy, _) = server.ready().await;
    assert_eq!(call(proxy, &user(7)).await.is_ok().json()["user"], user(7));
    drop(server);

    // Over a store that holds something only by force, and then it is kept.
    let again = run(there.path(), &["store", "restore", "nightly.backup"]);
    ended(&again, 1);
    assert!(again.err.contains("--force"), "{}", again.err);
    let forced = run(there.path(), &["store", "restore", "nightly.backup", "--force"]);
    ended(&forced, 0);
    assert!(forced.out.contains("attache.db.aside-"), "{}", forced.out);
    assert_eq!(listed(there.path()), everyone());
    drop(sandbox);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_backup_changes_nothing() {
    let (_sandbox, folder) = filled().await;
    let here = folder.path();
    ended(&run(here, &["store", "backup", "b"]), 0);
    let length = fs::metadata(here.join("b")).expect("there").len();
    OpenOptions::new().write(true).open(here.join("b")).expect("opened").set_len(length - 200).expect("cut");
    let before = tree(&here.join("attache.db"));
    let refused = run(here, &["store", "restore", "b", "--force"]);
    ended(&refused, 1);
    assert!(refused.err.contains("cut short"), "{}", refused.err);
    assert_eq!(tree(&here.join("attache.db")), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rekeying_while_serving_frees_the_old_key() {
    let (sandbox, folder) = place().await;
    let here = folder.path();
    let (old, new) = (SealingKey::generate(), SealingKey::generate());
    let keys = |keys: &[&SealingKey]| {
        let list: String = keys.iter().map(|key| format!("    - {}\n", key.to_base64().expose())).collect();
        format!("  encryption_keys:\n{list}")
    };
    write_config(here, &sandbox, &keys(&[&old]));
    ended(&run_with(here, &["connections", "import"], &lines(&sandbox, (0..USERS).map(user), true)), 0);
    write_config(here, &sandbox, &keys(&[&new, &old]));
    assert_eq!(check(here)["rekey_needed"]["connections"], 30);

    let mut server = Process::spawn(here, &["run"], &[]);
    let (proxy, _) = server.ready().await;
    // Each call rotates a refresh token while the records are sealed anew.
    let calls = tokio::spawn(async move {
        for number in 0..USERS {
            call(proxy, &user(number)).await.is_ok();
        }
    });
    let folder_of = here.to_owned();
    let done = tokio::task::spawn_blocking(move || run(&folder_of, &["rekey"])).await.expect("ran");
    ended(&done, 0);
    assert!(done.out.contains("no record needs another key"), "{}", done.out);
    calls.await.expect("every call was answered");
    let told = check(here);
    assert_eq!((&told["rekey_needed"]["connections"], &told["first_key"]), (&json!(0), &json!(new.id().to_string())));
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await, Some(0));

    // The old key taken out, everything opens, and the rotated grants go on.
    write_config(here, &sandbox, &keys(&[&new]));
    let mut server = Process::spawn(here, &["run"], &[]);
    let (proxy, _) = server.ready().await;
    sandbox.expire_access_tokens();
    for number in 0..USERS {
        ended(&run(here, &["connections", "refresh", "sandbox", &user(number)]), 0);
    }
    call(proxy, &user(3)).await.is_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_copied_while_its_server_runs_and_finished_after_it_stopped() {
    let (sandbox, folder) = filled().await;
    let here = folder.path();
    let mut server = Process::spawn(here, &["run"], &[]);
    server.ready().await;
    let copy = ["store", "copy", "routes.yaml", "sled:new.db"];
    let first = run(here, &copy);
    ended(&first, 0);
    assert!(first.out.contains("pass 1: 30 written") && first.out.contains("stop the server"), "{}", first.out);
    // What changes afterwards: a rotation, a deletion and a new connection.
    ended(&run(here, &["connections", "refresh", "sandbox", &user(1)]), 0);
    ended(&run(here, &["connections", "delete", "sandbox", &user(2)]), 0);
    ended(&run_with(here, &["connections", "import"], &lines(&sandbox, [MEGAN.to_owned()].into_iter(), false)), 0);
    let refused = run(here, &copy);
    ended(&refused, 1);
    assert!(refused.err.contains("--resume"), "{}", refused.err);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await, Some(0));
    let last = run(here, &[&copy[..], &["--resume"]].concat());
    ended(&last, 0);
    assert!(last.out.contains("TO is exact"), "{}", last.out);
    let before = listed(here);

    write_config(here, &sandbox, "  sled: {path: new.db}\n");
    assert_eq!(listed(here), before);
    assert!(before.contains(&MEGAN.to_owned()) && !before.contains(&user(2)));
    // The rotated refresh token came along: the one before it is spent.
    sandbox.expire_access_tokens();
    ended(&run(here, &["connections", "refresh", "sandbox", &user(1)]), 0);
    // Served from since, it is never taken back to what it was.
    let back = run(here, &["store", "copy", "sled:attache.db", "sled:new.db", "--resume"]);
    ended(&back, 1);
    assert!(back.err.contains("newer"), "{}", back.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_stops_its_writes_for_the_last_of_a_copy_and_serves_what_is_fresh() {
    let (sandbox, folder) = filled().await;
    let here = folder.path();
    ended(&run_with(here, &["connections", "import"], &lines(&sandbox, [MEGAN.to_owned()].into_iter(), true)), 0);
    let mut server = Process::spawn(here, &["run"], &[]);
    let (proxy, admin) = server.ready().await;
    let done = run(here, &["store", "copy", "routes.yaml", "sled:new.db", "--finish"]);
    ended(&done, 0);
    assert!(done.out.contains("31 records compared") && done.out.contains("TO is exact"), "{}", done.out);
    call(proxy, &user(1)).await.is_ok();
    let posts = sandbox.counters().token_posts;
    let refused = call(proxy, MEGAN).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["type"]), (503, &json!("urn:attache:store-unavailable")));
    assert_eq!(sandbox.counters().token_posts, posts, "no refresh token is spent");
    assert_eq!(wire::call(admin, wire::request("GET", "/readyz").body(empty()).expect("a request")).await.status, 503);
    ended(&run(here, &["store", "copy", "routes.yaml", "sled:new.db", "--cancel"]), 0);
    call(proxy, MEGAN).await.is_ok();
    ended(&run(here, &["store", "copy", "routes.yaml", "sled:new.db", "--resume", "--finish"]), 0);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await, Some(0));
    write_config(here, &sandbox, "  sled: {path: new.db}\n");
    sandbox.expire_access_tokens();
    ended(&run(here, &["connections", "refresh", "sandbox", MEGAN]), 0);
}

/// What a start makes of a store that was cut.
#[derive(Debug, PartialEq)]
enum Cut {
    /// What was cut off held nothing.
    Whole,
    SomeLost,
    NothingOpens,
}

async fn cut(here: &Path, by: usize) -> Cut {
    let db = here.join("attache.db/db");
    let bytes = fs::read(&db).expect("read");
    let last = bytes.iter().rposition(|byte| *byte != bytes[bytes.len() - 1]).expect("written") + 1;
    OpenOptions::new().write(true).open(&db).expect("opened").set_len(last.saturating_sub(by) as u64).expect("cut");
    let refused = run(here, &["connections", "list", "--json"]);
    if refused.code == Some(0) {
        assert_eq!(listed(here), everyone(), "a store that opens is whole");
        return Cut::Whole;
    }
    // Neither changes it: the second start says the same.
    let mut server = Process::spawn(here, &["run"], &[]);
    assert_eq!(server.ended().await, Some(1));
    until("its words came", async || !server.err().is_empty()).await;
    let told = server.err();
    assert!(told.contains("attache store repair") && told.contains("attache store restore"), "{told}");
    let checked = run(here, &["store", "check"]);
    ended(&checked, 1);
    assert!(checked.err.contains("attache store repair"), "{}", checked.err);
    let before = tree(&here.join("attache.db"));
    let looked = run(here, &["store", "repair", "--compare", "nightly.backup"]);
    assert_eq!(looked.code, Some(1), "{looked:?}");
    assert_eq!(tree(&here.join("attache.db")), before, "a look changes nothing");
    if looked.err.contains("no record of the store opens") {
        return Cut::NothingOpens;
    }
    assert!(looked.out.contains("are lost") && looked.err.contains("--yes"), "{looked:?}");
    let done = run(here, &["store", "repair", "--yes"]);
    ended(&done, 0);
    assert!(done.out.contains("attache.db.aside-"), "{}", done.out);
    let kept = listed(here);
    assert!(!kept.is_empty() && kept.len() < USERS && kept.iter().all(|user| everyone().contains(user)), "{kept:?}");
    // Each that is gone was named.
    let named = |user: &String| looked.out.contains(&format!("missing      sandbox {user} default"));
    assert!(everyone().iter().all(|user| named(user) != kept.contains(user)), "{}", looked.out);
    let whole = run(here, &["store", "repair"]);
    ended(&whole, 0);
    assert!(whole.out.contains("whole"), "{}", whole.out);
    Cut::SomeLost
}

/// Fails if the check over all that sled recovered is taken out: the store then starts with connections missing, and nobody is told. Where the cut
/// falls in sled's log decides what is left; whatever that is, nothing is lost in silence, and a backup brings all of it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_33_a_cut_store_refuses_to_start_and_is_salvaged_beside_the_old_one() {
    let (_sandbox, folder) = filled().await;
    let here = folder.path();
    ended(&run(here, &["store", "backup", "nightly.backup"]), 0);
    let mut ends = Vec::new();
    for by in [2_000, 5_000, 9_000, 14_000] {
        ends.push(cut(here, by).await);
        ended(&run(here, &["store", "restore", "nightly.backup", "--force"]), 0);
        assert_eq!(listed(here), everyone(), "the backup brings all back");
    }
    assert!(ends.iter().any(|end| *end != Cut::Whole), "{ends:?}");
}

/// Without the marks for an unfinished snapshot and a lost side record, the first is refused as damage and the second starts unproven.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_33_a_lost_side_record_and_an_unfinished_snapshot() {
    let (_sandbox, folder) = filled().await;
    let here = folder.path();
    fs::write(here.join("attache.db/snap.00000000FFFFFFFF.generating"), b"half").expect("written");
    assert_eq!(listed(here), everyone(), "whole without it");
    assert!(here.join("attache.db/attache-aside.snap.00000000FFFFFFFF.generating").exists());
    fs::remove_file(here.join("attache.db/attache-side")).expect("removed");
    let refused = run(here, &["connections", "list"]);
    ended(&refused, 1);
    assert!(refused.err.contains("attache store repair"), "{}", refused.err);
    let done = run(here, &["store", "repair", "--yes"]);
    ended(&done, 0);
    assert!(done.out.contains("in doubt"), "{}", done.out);
    assert_eq!(listed(here), everyone());
}

/// Fails if records are opened only when they are called for: a server then starts without the key, or on records of a newer version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_33_another_key_a_newer_version_and_a_second_opener_are_refused() {
    let (_sandbox, folder) = filled().await;
    let here = folder.path();
    let kept = fs::read_to_string(here.join("attache.key")).expect("read");
    let key = SealingKey::from_base64(&kept).expect("a key");

    let mut server = Process::spawn(here, &["run"], &[]);
    server.ready().await;
    let second = run(here, &["connections", "list", "-c", "other.yaml"]);
    ended(&second, 2);
    let same_store = fs::read_to_string(here.join("routes.yaml")).expect("read").replacen("admin: 127.0.0.1:", "admin: 127.0.0.2:", 1);
    fs::write(here.join("other.yaml"), same_store).expect("written");
    for verb in [&["connections", "list"][..], &["store", "check"], &["store", "repair"], &["store", "backup", "x"]] {
        let second = run(here, &[verb, &["-c", "other.yaml"]].concat());
        ended(&second, 1);
        assert!(second.err.contains("another attache has the store"), "{verb:?}: {}", second.err);
    }
    drop(server);

    fs::write(here.join("attache.key"), SealingKey::generate().to_base64().expose()).expect("written");
    for verb in [&["run"][..], &["store", "repair", "--yes"]] {
        let refused = run(here, verb);
        ended(&refused, 1);
        assert!(refused.err.contains(&key.id().to_string()) && refused.err.contains("add that key"), "{verb:?}: {}", refused.err);
    }
    let told = check(here);
    assert_eq!((&told["faults_total"], &told["faults"][0]["flaw"]), (&json!(30), &json!("key_missing")));
    fs::write(here.join("attache.key"), kept).expect("written");
    assert_eq!(listed(here), everyone());

    let newer = ConnectionKey::new("sandbox", "zoe@personalemail.com", "default").to_bytes();
    let sealed = Sealer::new(&[key]).seal(Kind::Connection, &newer, b"\x63{}").expect("sealed");
    let store = SledStore::open(&here.join("attache.db")).expect("opened");
    store.write(vec![Write { kind: Kind::Connection, key: newer, expect: Expect::Absent, value: Some(sealed) }]).await.expect("written");
    store.close().await.expect("closed");
    for verb in [&["run"][..], &["store", "check"], &["store", "repair", "--yes"]] {
        let refused = run(here, verb);
        ended(&refused, 1);
        let told = refused.out + &refused.err;
        assert!(told.contains("newer attache") && told.contains("run that version"), "{verb:?}: {told}");
    }
    let dropped = run(here, &["store", "repair", "--yes", "--drop-unopened"]);
    ended(&dropped, 0);
    assert!(dropped.out.contains("zoe@personalemail.com"), "what is lost is named: {}", dropped.out);
    assert_eq!(listed(here), everyone());
}

/// The program with a limit on the size of its files as its disk, which is full at will. Without a mark on disk before each token call, a refresh
/// token is spent here whose successor no disk takes; without the way back, only a restart would help.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_32_a_full_disk_serves_what_is_fresh_refuses_rotations_and_goes_on_by_itself() {
    let (sandbox, folder) = filled().await;
    let here = folder.path();
    ended(&run_with(here, &["connections", "import"], &lines(&sandbox, [MEGAN.to_owned()].into_iter(), true)), 0);
    // The shell makes the kernel answer a write over the limit with an error instead of a signal, and becomes the program.
    let mut server = Process::spawn_by_shell(here, "trap '' XFSZ; exec", &["run"]);
    let (proxy, admin) = server.ready().await;
    call(proxy, &user(1)).await.is_ok();
    let pid = Pid::from_raw(i32::try_from(server.id()).expect("small")).expect("a process");
    let limits = rustix::process::getrlimit(Resource::Fsize);
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: Some(0), ..limits }).expect("limited");
    let refreshes = sandbox.counters().token_posts;
    let refused = call(proxy, MEGAN).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["type"]), (503, &json!("urn:attache:store-unavailable")));
    assert_eq!(sandbox.counters().token_posts, refreshes, "no refresh token is spent that could not be kept");
    call(proxy, &user(1)).await.is_ok();
    let ready = async || wire::call(admin, wire::request("GET", "/readyz").body(empty()).expect("a request")).await.status.as_u16();
    assert_eq!(ready().await, 503);
    prlimit(Some(pid), Resource::Fsize, limits).expect("unlimited");
    until("the store takes writes again", async || ready().await == 200).await;
    until("the refresh goes through", async || call(proxy, MEGAN).await.status == 200).await;
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await, Some(0));
    let mut expected = everyone();
    expected.insert(0, MEGAN.to_owned());
    assert_eq!(listed(here), expected);
    ended(&run(here, &["connections", "refresh", "sandbox", MEGAN]), 0);
}

/// A file system of our own, which is full and then read-only for real. It needs the right to mount.
struct Disk(TempDir);

impl Disk {
    fn mounted() -> Option<Disk> {
        let disk = Disk(tempfile::tempdir().expect("a folder"));
        let mounted = mount(&["-t", "tmpfs", "-o", "size=120m,mode=0700", "tmpfs", disk.path()]);
        mounted.then_some(disk)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().expect("text")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Whether this process has the capability that mounting takes (CAP_SYS_ADMIN, bit 21).
fn may_mount() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> 21 & 1 == 1)
}

fn mount(args: &[&str]) -> bool {
    std::process::Command::new("mount").args(args).status().is_ok_and(|status| status.success())
}

/// As above, on a real disk. Taken out the look at the free space before each write, sled meets the full disk half-way and the store must be
/// opened anew, or worse.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_32_a_disk_without_space_and_a_read_only_one_lose_nothing() {
    let Some(disk) = Disk::mounted() else {
        eprintln!("SKIPPED: no file system can be mounted here (root is needed), so a full disk was tried by a limit on files alone");
        assert!(std::env::var_os("CI").is_none() || !may_mount(), "whoever may mount in CI must be able to");
        return;
    };
    let (sandbox, folder) = place().await;
    let here = folder.path();
    write_config(here, &sandbox, &format!("  sled: {{path: {}/attache.db}}\n", disk.path()));
    let users = [user(1), user(2), MEGAN.to_owned()];
    ended(&run_with(here, &["connections", "import"], &lines(&sandbox, users[..2].iter().cloned(), false)), 0);
    ended(&run_with(here, &["connections", "import"], &lines(&sandbox, users[2..].iter().cloned(), true)), 0);
    let mut server = Process::spawn(here, &["run"], &[]);
    let (proxy, admin) = server.ready().await;
    call(proxy, &user(1)).await.is_ok();
    let ready = async || wire::call(admin, wire::request("GET", "/readyz").body(empty()).expect("a request")).await.status.as_u16();
    let is_refused = async || {
        let posts = sandbox.counters().token_posts;
        let refused = call(proxy, MEGAN).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["type"]), (503, &json!("urn:attache:store-unavailable")));
        assert_eq!(sandbox.counters().token_posts, posts, "no refresh token is spent that could not be kept");
        assert_eq!(ready().await, 503);
        call(proxy, &user(1)).await.is_ok();
    };
    let filler = Path::new(disk.path()).join("filler");
    // Written in pieces until the disk takes no more.
    {
        use std::io::Write as _;
        let mut file = fs::File::create(&filler).expect("made");
        while file.write_all(&[1; 65_536]).is_ok() {}
    }
    is_refused().await;
    fs::remove_file(&filler).expect("removed");
    until("the store takes writes again", async || ready().await == 200).await;
    // A file that is open for writing keeps a disk from being made read-only, and the store's are; a bind mount need not ask them.
    if mount(&["--bind", disk.path(), disk.path()]) && mount(&["-o", "remount,bind,ro", disk.path()]) {
        is_refused().await;
        assert!(mount(&["-o", "remount,bind,rw", disk.path()]));
        until("the store takes writes again", async || ready().await == 200).await;
    }
    until("the refresh goes through", async || call(proxy, MEGAN).await.status == 200).await;
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await, Some(0));
    assert_eq!(listed(here).len(), 3);
    ended(&run(here, &["connections", "refresh", "sandbox", MEGAN]), 0);
}
