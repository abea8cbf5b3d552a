//! The log of the real program: which calls have a line, what a line says, what a reload changes, and a reader that stands still.

use crate::harness::free_port;
use crate::process::Process;
use crate::upstream::Upstream;
use crate::wire::{self, Connection, empty, request, until};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

fn write(folder: &Path, upstream: SocketAddr, port: u16, log: &str) {
    let config = format!(
        "listen: {{proxy: \"127.0.0.1:{port}\", public: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}}\n\
         store: {{memory: {{}}, encryption_key_file: ./attache.key}}\n{log}\n\
         routes:\n  - {{name: good, match: /good, as: none, upstream: \"http://{upstream}/\"}}\n"
    );
    fs::write(folder.join("routes.yaml"), config).expect("written");
}

fn lines(attache: &Process) -> Vec<Value> {
    attache.err().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn calls(attache: &Process) -> Vec<String> {
    let calls = lines(attache).into_iter().filter(|line| line["message"] == "call");
    calls.map(|line| line["request.id"].as_str().expect("an id").to_owned()).collect()
}

fn has_line(attache: &Process, id: &str) -> bool {
    attache.err().contains(&format!("INFO call request.id=\"{id}\" route.name=\"good\" http.method=GET"))
}

async fn get(proxy: SocketAddr, path: &str, id: &str) -> u16 {
    wire::call(proxy, request("GET", path).header("x-request-id", id).body(empty()).expect("a request")).await.status.as_u16()
}

/// Puts another `log:` in force.
async fn reload(attache: &Process, folder: &Path, upstream: SocketAddr, log: &str) {
    let before = attache.err().matches("the new config is live").count();
    write(folder, upstream, 0, log);
    until("the new config is live", async || attache.err().matches("the new config is live").count() > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn which_calls_have_a_line_follows_the_config() {
    let upstream = Upstream::plain().await;
    let folder = TempDir::new().expect("a folder");
    write(folder.path(), upstream.address, 0, "");
    let mut attache = Process::spawn(folder.path(), &["--log-format", "json", "run", "--workers", "1"], &[]);
    let (proxy, _) = attache.ready().await;
    assert_eq!((get(proxy, "/good", "a1").await, get(proxy, "/bad", "a2").await), (200, 404));
    until("both have a line", async || calls(&attache) == ["a1", "a2"]).await;

    reload(&attache, folder.path(), upstream.address, "log: {calls: errors}").await;
    assert_eq!((get(proxy, "/good", "b1").await, get(proxy, "/bad", "b2").await), (200, 404));
    until("the error has one", async || calls(&attache) == ["a1", "a2", "b2"]).await;

    reload(&attache, folder.path(), upstream.address, "log: {sample: 0.25}").await;
    for number in 0..8 {
        get(proxy, "/good", &format!("c{number}")).await;
    }
    get(proxy, "/bad", "c8").await;
    until("a quarter, and each error", async || calls(&attache)[3..] == ["c3", "c7", "c8"]).await;

    reload(&attache, folder.path(), upstream.address, "log: {calls: none}").await;
    get(proxy, "/bad", "d1").await;
    reload(&attache, folder.path(), upstream.address, "log: {level: \"warn,attache::call=info,attache::config=info\"}").await;
    get(proxy, "/good", "e1").await;
    until("there is one again", async || calls(&attache).last().is_some_and(|id| id == "e1")).await;
    assert!(!calls(&attache).contains(&"d1".to_owned()));

    let call = lines(&attache).into_iter().find(|line| line["request.id"] == "a1").expect("there");
    assert_eq!((&call["route.name"], &call["http.method"], &call["http.status"]), (&"good".into(), &"GET".into(), &200.into()));
    assert!(call["took_ms"].as_f64() >= call["upstream_ms"].as_f64() && call["upstream_ms"].is_number(), "{call}");
    assert_eq!((&call["level"], &call["target"], &call["cut"]), (&"INFO".into(), &"attache::call".into(), &false.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_goes_live_and_the_environments_goes_first() {
    let upstream = Upstream::plain().await;
    for (environment, is_followed) in [(&[][..], true), (&[("RUST_LOG", "info")][..], false)] {
        let folder = TempDir::new().expect("a folder");
        write(folder.path(), upstream.address, 0, "");
        let mut attache = Process::spawn(folder.path(), &["run"], environment);
        let (proxy, _) = attache.ready().await;
        get(proxy, "/good", "before").await;
        until("a line at info", async || has_line(&attache, "before")).await;
        write(folder.path(), upstream.address, 0, "log: {level: \"warn,attache::log=info\"}");
        let said = if is_followed { "the log has another level" } else { "RUST_LOG goes first" };
        until("it is said", async || attache.err().contains(said)).await;
        get(proxy, "/good", "after").await;
        // All lines are out by the end.
        attache.signal(Signal::TERM);
        assert_eq!(attache.ended().await, Some(0));
        assert_eq!(has_line(&attache, "after"), !is_followed, "{}", attache.err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_log_that_stands_still_holds_no_call_up() {
    let upstream = Upstream::plain().await;
    let folder = TempDir::new().expect("a folder");
    let port = free_port();
    write(folder.path(), upstream.address, port, "");
    // A pipe that nobody reads: a write past what it takes never returns.
    let _attache = Process::spawn_by_shell(folder.path(), "mkfifo log; exec 2<>log; exec", &["run", "--workers", "1"]);
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    until("it listens", async || tokio::net::TcpStream::connect(proxy).await.is_ok()).await;
    let mut connection = Connection::open(proxy).await;
    for _ in 0..2000 {
        // Its line is some 250 bytes; the pipe takes 64 KiB.
        assert_eq!(connection.call(request("GET", "/good").body(empty()).expect("a request")).await.status, 200);
    }
}

#[test]
fn what_is_wrong_with_it_is_told_by_line_and_column() {
    let folder = TempDir::new().expect("a folder");
    for (log, told) in [
        ("log: {level: \"attache::token=loud\"}", "`level` is not one"),
        ("log: {sample: 1.5}", "`sample` must be a number from 0 to 1"),
        ("log: {calls: error}", "errors"),
        ("log: {levle: info}", "did you mean `level`?"),
    ] {
        write(folder.path(), SocketAddr::from(([127, 0, 0, 1], 9)), 0, log);
        let checked = crate::process::run(folder.path(), &["check"]);
        assert_eq!(checked.code, Some(2), "{log}: {checked:?}");
        assert!((checked.out.clone() + &checked.err).contains(told), "{log}: {checked:?}");
        assert!((checked.out + &checked.err).contains("routes.yaml:3:"), "{log}");
    }
}
