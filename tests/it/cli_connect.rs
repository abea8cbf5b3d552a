//! `attache connect` and `attache connections` as an operator types them: beside a running server, and on the store while none runs.

use crate::browser::Browser;
use crate::cli::{CONFIG, ended, folder};
use crate::harness::{ALEX, MEGAN, free_port};
use crate::process::{Process, run, run_with};
use crate::wire::until;
use attache::base::clock::SystemClock;
use attache::sandbox::{self, Sandbox};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

/// The config with ports that stay, a provider that end users can connect to, and the pages of an app.
fn config(sandbox: &str) -> String {
    let (admin, public) = (free_port(), free_port());
    CONFIG
        .replace("public: 127.0.0.1:0", &format!("public: 127.0.0.1:{public}"))
        .replace("admin: 127.0.0.1:0", &format!("admin: 127.0.0.1:{admin}"))
        .replace("    token_url:", &format!("    authorize_url: http://{sandbox}/authorize\n    device_authorization_url: http://{sandbox}/device_authorization\n    revoke_url: http://{sandbox}/revoke\n    scopes: [photos.read]\n    token_url:"))
}

/// A sandbox, and a folder whose config leads to it with nobody connected.
async fn world() -> (Sandbox, TempDir) {
    let settings = sandbox::Settings { bind: ([127, 0, 0, 1], 0).into(), ..sandbox::Settings::default() };
    let sandbox = Sandbox::start(settings, Arc::new(SystemClock)).await.expect("the sandbox starts");
    let address = sandbox.addr.to_string();
    let place = folder(&config(&address).replace("SANDBOX", &address));
    (sandbox, place)
}

/// The first URL that a program printed.
fn link(out: &str) -> Option<String> {
    out.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned)
}

async fn connect_in_a_browser(program: &Process) {
    until("it prints a link", async || link(&program.out()).is_some()).await;
    let mut browser = Browser::default();
    let authorize = browser.set_out(&link(&program.out()).expect("a link"), "sandbox").await;
    let back = browser.decide(&authorize, ALEX, "allow").await;
    browser.get(&back).await.is_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_handled_through_the_running_server() {
    let (sandbox, place) = world().await;
    let at = place.path();
    let grant = sandbox.issue_grant(MEGAN, &["photos.read"]).expect("a client");
    let refresh_token = grant.refresh_token.as_ref().expect("renewable").expose().to_owned();
    let line = json!({"provider": "sandbox", "end_user": MEGAN, "access_token": grant.access_token.expose(), "refresh_token": refresh_token, "scopes": ["photos.read"]});
    let mut attache = Process::spawn(at, &["run"], &[]);
    attache.ready().await;

    let done = run_with(at, &["connections", "import"], &line.to_string());
    ended(&done, 0);
    assert!(done.out.contains("imported 1 new"), "{}", done.out);
    let list = run(at, &["connections", "list", "--state", "active"]);
    assert!(list.out.contains(MEGAN) && list.out.lines().count() == 1, "{list:?}");
    let shown: Value = serde_json::from_str(&run(at, &["connections", "show", "sandbox", MEGAN]).out).expect("JSON");
    assert_eq!(shown["state"], "active");
    let refreshed = run(at, &["connections", "refresh", "sandbox", MEGAN]);
    ended(&refreshed, 0);
    assert!(refreshed.out.contains("refreshed"), "{}", refreshed.out);
    let sealed = run(at, &["connections", "export"]);
    ended(&sealed, 0);
    assert!(sealed.out.contains("\"sealed\"") && !sealed.out.contains("srt_"), "{}", sealed.out);
    let plain = run(at, &["connections", "export", "--plain"]);
    ended(&plain, 2);
    assert!(plain.err.contains("stop the server"), "{}", plain.err);
    let deleted = run(at, &["connections", "delete", "sandbox", MEGAN]);
    ended(&deleted, 0);
    assert!(deleted.out.contains("revoked at the provider: yes"), "{}", deleted.out);
    ended(&run(at, &["connections", "show", "sandbox", MEGAN]), 1);
    let wrong = run(at, &["connections", "list", "--token", "not-the-admin-token"]);
    ended(&wrong, 2);
    assert!(wrong.err.contains("admin token"), "{}", wrong.err);

    // Beside the server, a browser goes by its public listener.
    let mut connecting = Process::spawn(at, &["connect", "sandbox", "--end-user", ALEX], &[]);
    connect_in_a_browser(&connecting).await;
    assert_eq!(connecting.ended().await, Some(0), "{}", connecting.err());
    assert!(connecting.out().contains(&format!("Connected {ALEX} to sandbox")), "{}", connecting.out());
    attache.signal(Signal::TERM);
    assert_eq!(attache.ended().await, Some(0));

    // The sealed lines come back on the store itself, by the same key; in clear they hold what they held.
    let done = run_with(at, &["connections", "import"], &sealed.out);
    ended(&done, 0);
    let plain = run(at, &["connections", "export", "--plain", "--provider", "sandbox"]);
    ended(&plain, 0);
    let users: Vec<Value> = plain.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["end_user"].clone()).collect();
    assert_eq!(users, [ALEX, MEGAN]);
    assert!(plain.out.contains("srt_") && plain.err.contains("in clear"), "{plain:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_connecting_comes_back_to_the_terminal() {
    let (sandbox, place) = world().await;
    let at = place.path();
    let mut connecting = Process::spawn(at, &["connect", "sandbox", "--end-user", MEGAN, "--no-browser"], &[]);
    connect_in_a_browser(&connecting).await;
    assert_eq!(connecting.ended().await, Some(0), "{}", connecting.err());
    let mut by_code = Process::spawn(at, &["connect", "sandbox", "--user", ALEX, "--account", "work", "--device"], &[]);
    until("it prints a code", async || by_code.out().contains("Waiting")).await;
    let told = by_code.out();
    let (page, code) = (
        link(&told).expect("a URL"),
        told.lines().map(str::trim).find(|line| line.len() == 9 && line.contains('-')).expect("a code").to_owned(),
    );
    Browser::default().post(&page, &[("user_code", &code), ("decision", "allow"), ("user", ALEX)]).await.is_ok();
    assert_eq!(by_code.ended().await, Some(0), "{}", by_code.err());
    let list = run(at, &["connections", "list"]);
    ended(&list, 0);
    assert!(list.out.contains(MEGAN) && list.out.contains("work") && list.out.lines().count() == 2, "{list:?}");
    let denied = run(at, &["connect", "sandbux", "--end-user", MEGAN]);
    ended(&denied, 2);
    assert!(denied.err.contains("did you mean `sandbox`?"), "{}", denied.err);
    assert_eq!(sandbox.counters().device_code_posts.min(1), 1);
}

#[test]
fn what_nango_exports_comes_in_under_the_names_of_routes_yaml() {
    let place = folder(CONFIG);
    let export = json!([
        {"connection_id": "c-1", "provider_config_key": "photo-sandbox", "end_user": {"id": MEGAN}, "metadata": {"order": 7},
         "credentials": {"type": "OAUTH2", "access_token": "A", "refresh_token": "R", "expires_at": "2030-03-01T10:00:00Z"}},
        {"connection_id": ALEX, "provider_config_key": "photo-sandbox", "credentials": {"type": "API_KEY", "apiKey": "K"}},
    ]);
    fs::write(place.path().join("nango.json"), export.to_string()).expect("written");
    let unknown = run(place.path(), &["connections", "import", "--from", "nango", "nango.json"]);
    ended(&unknown, 2);
    assert!(unknown.err.contains("photo-sandbox") && unknown.err.contains("nothing was imported"), "{}", unknown.err);
    let done = run(place.path(), &["connections", "import", "--from", "nango", "--map", "photo-sandbox=sandbox", "nango.json"]);
    ended(&done, 0);
    assert!(done.out.contains("imported 2 new"), "{}", done.out);
    let shown: Value = serde_json::from_str(&run(place.path(), &["connections", "show", "sandbox", MEGAN]).out).expect("JSON");
    assert_eq!((&shown["metadata"]["order"], &shown["expires_at"]), (&json!(7), &json!("2030-03-01T10:00:00Z")));
}

#[test]
fn check_prints_what_to_register_at_each_provider() {
    let place = folder(&CONFIG.replace("listen:\n", "public_url: https://app.example.com/attache\nlisten:\n"));
    let done = run(place.path(), &["check"]);
    ended(&done, 0);
    assert!(done.out.contains("  sandbox  https://app.example.com/attache/oauth/callback/sandbox\n"), "{}", done.out);
}
