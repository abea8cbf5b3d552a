//! The command line as an operator meets it: the real program, its exit codes, its words.

use crate::harness::{ADMIN_TOKEN, MEGAN, free_port};
use crate::process::{Finished, Process, run, run_with};
use crate::upstream::Upstream;
use crate::wire::{self, Raw, empty, until};
use attache::base::clock::SystemClock;
use attache::sandbox::{self, Sandbox};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tempfile::TempDir;

pub const CONFIG: &str = "listen:
  proxy: 127.0.0.1:0
  public: 127.0.0.1:0
  admin: 127.0.0.1:0
providers:
  sandbox:
    client_id: CLIENT
    client_secret: SECRET
    token_url: http://SANDBOX/token
    token_hosts: [\"SANDBOX\"]
routes:
  - name: list-photos
    match: GET /photos
    provider: sandbox
    upstream: http://SANDBOX/v1/photos
  - name: photo
    match: GET /photos/{id}
    provider: sandbox
    upstream: http://SANDBOX/v1/photos/{id}/content?x=1
  - name: api
    match: /api/{*rest}
    provider: sandbox
    upstream: http://SANDBOX/v1/{rest}
";

/// The config with what is left open filled in.
fn whole(config: &str, sandbox: &str) -> String {
    config
        .replace("SANDBOX", sandbox)
        .replace("CLIENT", sandbox::Settings::DEV_CLIENT_ID)
        .replace("SECRET", sandbox::Settings::DEV_CLIENT_SECRET)
}

pub fn folder(config: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("routes.yaml"), whole(config, "127.0.0.1:7080")).expect("written");
    folder
}

/// A sandbox, and a folder whose config leads to it with Megan connected.
async fn sandboxed(config: &str) -> (Sandbox, TempDir) {
    let settings = sandbox::Settings { bind: ([127, 0, 0, 1], 0).into(), ..sandbox::Settings::default() };
    let sandbox = Sandbox::start(settings, Arc::new(SystemClock)).await.expect("the sandbox starts");
    let folder = folder(&config.replace("SANDBOX", &sandbox.addr.to_string()));
    let grant = sandbox.issue_grant(MEGAN, &["photos.read", "profile"]).expect("a client");
    let line = json!({
        "provider": "sandbox", "end_user": MEGAN, "access_token": grant.access_token.expose(),
        "refresh_token": grant.refresh_token.as_ref().map(|token| token.expose()), "expires_at": grant.expires_at.to_rfc3339(),
    });
    let done = run_with(folder.path(), &["connections", "import"], &line.to_string());
    assert_eq!(done.code, Some(0), "{done:?}");
    (sandbox, folder)
}

async fn get(address: SocketAddr, path: &str) -> wire::Answer {
    wire::call(address, wire::request("GET", path).header("x-end-user", MEGAN).body(empty()).expect("a request")).await
}

#[track_caller]
pub fn ended(done: &Finished, code: i32) {
    assert_eq!(done.code, Some(code), "{done:?}");
}

#[test]
fn check_tells_every_fault_with_its_place_and_what_was_meant() {
    let config = CONFIG
        .replace("name: photo", "nam: photo")
        .replace("provider: sandbox\n    upstream: http://SANDBOX/v1/{rest}", "provider: sandbux\n    upstream: http://SANDBOX/v1/{rest}");
    let folder = folder(&config);
    for verb in ["check", "run"] {
        let done = run(folder.path(), &[verb]);
        ended(&done, 2);
        assert!(done.err.contains("routes.yaml:16:5: ") && done.err.contains("`name`"), "{}", done.err);
        assert!(done.err.contains("routes.yaml:22:15: ") && done.err.contains("`sandbox`"), "all at once: {}", done.err);
        assert_eq!(done.out, "");
    }
    let done = run(folder.path(), &["check", "-c", "missing.yaml"]);
    ended(&done, 2);
    assert!(done.err.contains("missing.yaml"), "{}", done.err);
}

#[test]
fn check_says_what_a_good_config_holds() {
    let folder = folder(CONFIG);
    let done = run(folder.path(), &["check"]);
    ended(&done, 0);
    assert!(done.out.contains("ok, 3 routes, 1 providers") || done.out.contains("ok, 3 routes, 1 provider"), "{}", done.out);
    assert!(!folder.path().join("attache.key").exists(), "a check makes nothing");
    let off = CONFIG.replace("routes:\n", "  google: {optional: true, client_id: \"${NOT_SET}\", client_secret: x}\nroutes:\n");
    fs::write(folder.path().join("routes.yaml"), whole(&off, "127.0.0.1:7080")).expect("written");
    let done = run(folder.path(), &["check"]);
    ended(&done, 0);
    assert!(done.out.contains("NOT_SET") && done.out.contains("(1 off)"), "{}", done.out);
}

#[test]
fn the_shipped_config_is_good() {
    let done = run(std::path::Path::new(env!("CARGO_MANIFEST_DIR")), &["check"]);
    ended(&done, 0);
}

#[test]
fn explain_tells_what_a_call_would_become() {
    let folder = folder(CONFIG);
    let done = run(folder.path(), &["explain", "GET", "http://localhost:7070/photos/a%2Fb?y=2", "--end-user", MEGAN]);
    ended(&done, 0);
    for part in ["photo", "GET /photos/{id}", "sandbox", "http://127.0.0.1:7080/v1/photos/a%2Fb/content?y=2&x=1", "bearer", MEGAN] {
        assert!(done.out.contains(part), "{part} is missing in {}", done.out);
    }
    for (method, url, refused) in
        [("GET", "/nowhere", "no-route"), ("POST", "/photos", "method-not-allowed"), ("GET", "/photos/../x", "bad-path")]
    {
        let done = run(folder.path(), &["explain", method, url]);
        ended(&done, 1);
        assert!(done.out.contains(refused), "{}", done.out);
    }
}

#[test]
fn the_schema_is_json_and_knows_the_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let done = run(folder.path(), &["schema"]);
    ended(&done, 0);
    let schema: Value = serde_json::from_str(&done.out).expect("JSON");
    for key in ["listen", "routes", "providers", "end_user", "store"] {
        assert!(schema["properties"].get(key).is_some(), "{key} is missing");
    }
}

#[test]
fn keygen_makes_another_key_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys: Vec<_> = (0..2).map(|_| run(folder.path(), &["keygen"])).collect();
    for key in &keys {
        ended(key, 0);
        assert_eq!(STANDARD.decode(key.out.trim_end()).expect("base64").len(), 32);
    }
    assert_ne!(keys[0].out, keys[1].out);
}

#[test]
fn providers_are_listed_and_shown() {
    let folder = folder(CONFIG);
    let list = run(folder.path(), &["providers", "list"]);
    ended(&list, 0);
    assert!(["google", "microsoft", "sandbox"].iter().all(|id| list.out.contains(id)), "{}", list.out);
    let google: Vec<&str> = list.out.lines().find(|line| line.starts_with("google ")).expect("a row").split_whitespace().collect();
    assert_eq!(google, ["google", "Google", "productivity", "code,device,app", "full"]);
    let json = run(folder.path(), &["providers", "list", "--json"]);
    let lines: Vec<serde_json::Value> = json.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let google = lines.iter().find(|line| line["id"] == "google").expect("a line");
    assert_eq!((&google["modes"][0], &google["verified"]), (&"code".into(), &"full".into()));
    let shown = run(folder.path(), &["providers", "show", "google"]);
    ended(&shown, 0);
    assert!(shown.out.contains("token_url: https://oauth2.googleapis.com/token"), "{}", shown.out);
    let unknown = run(folder.path(), &["providers", "show", "gogle"]);
    ended(&unknown, 2);
    assert!(unknown.err.contains("gogle"), "{}", unknown.err);
}

#[test]
fn connections_go_in_and_out_and_their_tokens_are_never_shown() {
    let folder = folder(CONFIG);
    let line =
        |user: &str| json!({"provider": "sandbox", "end_user": user, "access_token": "CANARY-a", "refresh_token": "CANARY-r"}).to_string();
    let path = folder.path().join("lines.jsonl");
    fs::write(&path, format!("{}\n\n{}\n", line("megan"), line("alex"))).expect("written");
    let done = run(folder.path(), &["connections", "import", "lines.jsonl"]);
    ended(&done, 0);
    assert!(done.out.contains("imported 2 new"), "{}", done.out);
    let done = run_with(folder.path(), &["connections", "import"], &line("megan"));
    ended(&done, 0);
    assert!(done.out.contains("0 new") && done.out.contains("of 1"), "{}", done.out);

    let list = run(folder.path(), &["connections", "list"]);
    ended(&list, 0);
    assert_eq!(list.out.lines().count(), 2);
    let json_list = run(folder.path(), &["connections", "list", "--json", "--provider", "sandbox"]);
    let users: Vec<Value> =
        json_list.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["end_user"].clone()).collect();
    assert_eq!(users, ["alex", "megan"]);
    for done in [&list, &json_list] {
        assert!(!format!("{done:?}").contains("CANARY"), "{done:?}");
    }
    assert_eq!(run(folder.path(), &["connections", "list", "--provider", "other"]).out, "");

    ended(&run(folder.path(), &["connections", "delete", "sandbox", "megan"]), 0);
    let again = run(folder.path(), &["connections", "delete", "sandbox", "megan"]);
    ended(&again, 1);
    assert!(again.err.contains("no such connection"), "{}", again.err);
    assert_eq!(run(folder.path(), &["connections", "list"]).out.lines().count(), 1);

    let mode = |name: &str| fs::metadata(folder.path().join(name)).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode("attache.key"), 0o600);
}

#[test]
fn one_bad_line_imports_nothing_and_is_told_by_its_number() {
    let folder = folder(CONFIG);
    let good = r#"{"provider":"sandbox","end_user":"megan","access_token":"CANARY-a"}"#;
    for (bad, why) in [
        (r#"{"provider":"sandbox","end_user":"alex"}"#, "access_token"),
        (r#"{"provider":"sandbux","end_user":"alex","access_token":"CANARY-b"}"#, "sandbux"),
        (r#"{"provider":"sandbox","end_user":"alex","access_token":"CANARY-b","expires_at":"CANARY-c"}"#, "expires_at"),
        (r#"{"provider":"sandbox","end_user":"alex","acess_token":"CANARY-b"}"#, "acess_token"),
        (r#"{"provider":"sandbox","end_user":"al,ex","access_token":"CANARY-b"}"#, "end_user"),
        (r#"{"provider":"sandbox","access_token":"CANARY-b""#, "JSON"),
    ] {
        let done = run_with(folder.path(), &["connections", "import"], &format!("{good}\n{bad}\n{good}\n"));
        ended(&done, 2);
        assert!(done.err.contains("-:2: ") && done.err.contains(why) && done.err.contains("nothing was imported"), "{}", done.err);
        assert!(!done.err.contains("CANARY"), "{}", done.err);
    }
    assert_eq!(run(folder.path(), &["connections", "list"]).out, "");
}

#[test]
fn wrong_usage_is_told_apart_from_help() {
    let folder = tempfile::tempdir().expect("a folder");
    for args in [&["frobnicate"][..], &["run", "--nope"], &["explain", "GET"], &["explain", "G ET", "/x"], &[]] {
        ended(&run(folder.path(), args), 2);
    }
    for args in [&["--help"][..], &["run", "--help"], &["--version"], &["completions", "bash"]] {
        let done = run(folder.path(), args);
        ended(&done, 0);
        assert!(done.out.contains("attache"), "{}", done.out);
    }
}

#[tokio::test]
async fn a_run_serves_calls_and_a_second_one_is_told_who_has_the_port() {
    let port = free_port();
    let config = CONFIG.replacen("proxy: 127.0.0.1:0", &format!("proxy: 127.0.0.1:{port}"), 1);
    let (_sandbox, folder) = sandboxed(&config).await;
    let mut first = Process::spawn(folder.path(), &["run"], &[]);
    let (proxy, admin) = first.ready().await;
    assert_eq!(proxy.port(), port);
    assert_eq!(get(proxy, "/photos").await.is_ok().json()["items"].as_array().expect("a list").len(), 12);
    assert_eq!(get(proxy, "/api/me").await.is_ok().json()["user"], MEGAN);

    let mut second = Process::spawn(folder.path(), &["run"], &[]);
    assert_eq!(second.ended().await, Some(1));
    until("its words came", async || !second.err().is_empty()).await;
    let told = second.err();
    assert!(told.contains(&format!("127.0.0.1:{port}")) && told.contains("another program has it"), "{told}");

    // The store is the server's: who else wants it is told so.
    let list = run(folder.path(), &["connections", "list"]);
    ended(&list, 1);
    assert!(list.err.contains("attache.db"), "{}", list.err);

    let token = fs::read_to_string(folder.path().join("attache.admin-token")).expect("made at the first start");
    let request = wire::request("GET", "/v1/routes").header("authorization", format!("Bearer {}", token.trim()));
    wire::call(admin, request.body(empty()).expect("a request")).await.is_ok();

    let address = admin.to_string();
    ended(&run(folder.path(), &["health", "--address", &address]), 0);
    first.signal(Signal::TERM);
    assert_eq!(first.ended().await, Some(0));
    let gone = run(folder.path(), &["health", "--address", &address]);
    ended(&gone, 1);
    assert!(gone.err.contains(&address), "{}", gone.err);
}

#[tokio::test]
async fn the_command_line_knows_a_server_with_tls_by_its_own_certificate() {
    let made = rcgen::generate_simple_self_signed(vec!["attache.example".to_owned()]).expect("generated");
    let (admin, public) = (free_port(), free_port());
    let listen = format!(
        "listen:\n  proxy: 127.0.0.1:0\n  public: {{bind: '127.0.0.1:{public}', tls: TLS}}\n  admin: {{bind: '127.0.0.1:{admin}', tls: TLS}}\n"
    );
    let config = listen.replace("TLS", "{cert: cert.pem, key: key.pem}") + &CONFIG[CONFIG.find("providers:").expect("there")..];
    let folder = folder(&config);
    fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("written");
    fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    let mut attache = Process::spawn(folder.path(), &["run"], &[]);
    attache.ready().await;
    assert!(attache.err().contains(&format!("public=https://localhost:{public}")), "{}", attache.err());
    ended(&run(folder.path(), &["health"]), 0);
    // By the server: the store is locked.
    let list = run(folder.path(), &["connections", "list"]);
    ended(&list, 0);
    // Another certificate than the server's is another server: it is given no token.
    let other = rcgen::generate_simple_self_signed(vec!["attache.example".to_owned()]).expect("generated");
    let elsewhere = self::folder(&config.replace(&public.to_string(), "0"));
    fs::write(elsewhere.path().join("cert.pem"), other.cert.pem()).expect("written");
    fs::write(elsewhere.path().join("key.pem"), other.signing_key.serialize_pem()).expect("written");
    let refused = run(elsewhere.path(), &["health"]);
    ended(&refused, 1);
    assert!(refused.err.contains("TLS"), "{}", refused.err);
    attache.signal(Signal::TERM);
    assert_eq!(attache.ended().await, Some(0));
}

#[tokio::test]
async fn a_term_signal_lets_the_call_under_way_end() {
    let (sandbox, folder) = sandboxed(CONFIG).await;
    let mut attache = Process::spawn(folder.path(), &["run", "--workers", "2"], &[]);
    let (proxy, _) = attache.ready().await;
    let mut raw = Raw::open(proxy).await;
    raw.send(format!("GET /api/slow?ms=800 HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
    until("the call is under way", async || sandbox.counters().api_calls == 1).await;
    attache.signal(Signal::TERM);
    until("the port is closed", async || tokio::net::TcpStream::connect(proxy).await.is_err()).await;
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
    assert_eq!(attache.ended().await, Some(0));
}

#[tokio::test]
async fn a_second_term_signal_ends_at_once() {
    let (sandbox, folder) = sandboxed(CONFIG).await;
    let mut attache = Process::spawn(folder.path(), &["run"], &[]);
    let (proxy, _) = attache.ready().await;
    let mut raw = Raw::open(proxy).await;
    raw.send(format!("GET /api/slow?ms=600000 HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
    until("the call is under way", async || sandbox.counters().api_calls == 1).await;
    attache.signal(Signal::TERM);
    until("it drains", async || attache.err().contains("draining")).await;
    attache.signal(Signal::TERM);
    assert_eq!(attache.ended().await, Some(0), "{}", attache.err());
    assert!(raw.answer().await.is_none());
}

#[tokio::test]
async fn a_hang_up_signal_reloads() {
    let (_sandbox, folder) = sandboxed(CONFIG).await;
    let mut attache = Process::spawn(folder.path(), &["run"], &[]);
    attache.ready().await;
    until("it listens to signals", async || attache.catches(Signal::HUP)).await;
    attache.signal(Signal::HUP);
    until("the config is live anew", async || attache.err().contains("the new config is live")).await;
    attache.signal(Signal::INT);
    assert_eq!(attache.ended().await, Some(0));
    let reloads = attache.err().matches("the new config is live").count();
    assert_eq!(reloads, 1, "one signal, one reload: {}", attache.err());
}

#[tokio::test]
async fn the_log_holds_one_line_a_call() {
    let (_sandbox, folder) = sandboxed(CONFIG).await;
    let mut attache = Process::spawn(folder.path(), &["run", "--log-format", "json"], &[("RUST_LOG", "info")]);
    let (proxy, _) = attache.ready().await;
    let request = |path: &str, id: &str| {
        wire::request("GET", path).header("x-end-user", MEGAN).header("x-request-id", id).body(empty()).expect("a request")
    };
    wire::call(proxy, request("/photos?secret=CANARY", "call-1")).await.is_ok();
    wire::call(proxy, request("/nowhere/CANARY", "call-2")).await;
    attache.signal(Signal::TERM);
    assert_eq!(attache.ended().await, Some(0));
    until("the log is whole", async || attache.err().contains("attache has stopped")).await;
    let log = attache.err();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect();
    let mut calls: Vec<&Value> = lines.iter().filter(|line| line["target"] == "attache::call").collect();
    assert_eq!(calls.len(), 2, "{log}");
    // Each worker hands on its own lines: those of two of them may come in either order.
    calls.sort_by_key(|call| call["request.id"].as_str());
    assert_eq!(
        (&calls[0]["request.id"], &calls[0]["route.name"], &calls[0]["http.status"]),
        (&json!("call-1"), &json!("list-photos"), &json!(200))
    );
    assert_eq!(
        (&calls[1]["request.id"], &calls[1]["error"], &calls[1]["http.status"]),
        (&json!("call-2"), &json!("no-route"), &json!(404))
    );
    assert!(!log.contains("CANARY") && !log.contains(MEGAN), "{log}");
}

#[tokio::test]
async fn a_store_sealed_with_another_key_does_not_start() {
    let (_sandbox, folder) = sandboxed(CONFIG).await;
    let other = run(folder.path(), &["keygen"]).out;
    fs::write(folder.path().join("attache.key"), other).expect("written");
    let done = run(folder.path(), &["run"]);
    ended(&done, 1);
    assert!(done.err.contains("key"), "{}", done.err);
    fs::remove_file(folder.path().join("attache.key")).expect("removed");
    let done = run(folder.path(), &["run"]);
    ended(&done, 1);
    assert!(!folder.path().join("attache.key").exists(), "no new key for an old store: {}", done.err);
}

#[tokio::test]
async fn dev_prints_calls_that_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let any = "127.0.0.1:0";
    let mut dev = Process::spawn(folder.path(), &["dev", "--proxy", any, "--public", any, "--admin", any, "--sandbox", any], &[]);
    let (proxy, admin) = dev.ready().await;
    until("it says what to do", async || dev.out().contains("The route map is") && dev.out().contains("Ctrl-C")).await;
    let told = dev.out();
    let calls: Vec<&str> = told.lines().filter(|line| line.trim_start().starts_with("curl")).collect();
    assert_eq!(calls.len(), 4, "{told}");
    let quoted = |around: char, begins: &str| calls[3].split(around).find(|part| part.starts_with(begins)).expect("there").to_owned();
    let token_file = quoted('"', "Authorization").split("$(cat ").nth(1).expect("a file").trim_end_matches(')').to_owned();
    let token = fs::read_to_string(token_file).expect("the admin token");
    let request = wire::request("POST", "/v1/connect-sessions").header("authorization", format!("Bearer {}", token.trim()));
    let made = wire::call(admin, request.body(wire::whole(quoted('\'', "{"))).expect("a request")).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert!(made.json()["connect_url"].as_str().is_some_and(|url| url.starts_with("http://localhost:")), "{}", made.text());
    for (call, status) in calls.iter().zip([200, 200, 401]) {
        let header = call.split('\'').nth(1).and_then(|header| header.split_once(": ")).expect("a header");
        let url = call.split_whitespace().find(|word| word.starts_with("http://")).expect("a URL");
        let path = &url[url[7..].find('/').expect("a path") + 7..];
        assert!(url.starts_with(&format!("http://localhost:{}/", proxy.port())), "{url}");
        let request = wire::request("GET", path).header(header.0, header.1).body(empty()).expect("a request");
        let answer = wire::call(proxy, request).await;
        assert_eq!(answer.status, status, "{call}: {}", answer.text());
        if call.contains("photo.jpg") {
            assert_eq!(answer.header("content-type"), "image/jpeg");
        }
    }
    // Her token lives 30 s; the refresh after that needs a client that the sandbox knows.
    let path = told.lines().find_map(|line| line.strip_prefix("The route map is ")).expect("there").trim();
    let config = fs::read_to_string(path).expect("the route map");
    let value = |key: &str| config.lines().find_map(|line| line.trim().strip_prefix(key)).expect("there").trim().to_owned();
    let sandbox: SocketAddr = value("token_url: http://").trim_end_matches("/token").parse().expect("an address");
    let form = format!("grant_type=client_credentials&client_id={}&client_secret={}", value("client_id:"), value("client_secret:"));
    let request = wire::request("POST", "/token").header("content-type", "application/x-www-form-urlencoded");
    let answer = wire::call(sandbox, request.body(wire::whole(form)).expect("a request")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    dev.signal(Signal::INT);
    assert_eq!(dev.ended().await, Some(0));
    assert!(!std::path::Path::new(path).exists(), "its temporary folder is gone");
}

#[tokio::test]
async fn the_sandbox_verb_is_the_provider_of_the_shipped_config() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut sandbox = Process::spawn(folder.path(), &["sandbox", "--listen", "127.0.0.1:0"], &[]);
    until("it is ready", async || sandbox.err().contains("the sandbox is ready")).await;
    let log = sandbox.err();
    let address: SocketAddr =
        log.split("token=http://").nth(1).and_then(|text| text.split('/').next()).expect("there").parse().expect("an address");
    let shipped = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/routes.yaml")).expect("the shipped config");
    let section = shipped.split("  sandbox:").nth(1).expect("there");
    let value = |key: &str| section.lines().find_map(|line| line.trim().strip_prefix(key)).expect("there").trim().to_owned();
    let form = format!("grant_type=client_credentials&client_id={}&client_secret={}", value("client_id:"), value("client_secret:"));
    let request = wire::request("POST", "/token").header("content-type", "application/x-www-form-urlencoded");
    let answer = wire::call(address, request.body(wire::whole(form)).expect("a request")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    sandbox.signal(Signal::TERM);
    assert_eq!(sandbox.ended().await, Some(0));
}

#[tokio::test]
async fn an_admin_token_of_the_config_is_the_one_that_counts() {
    let upstream = Upstream::plain().await;
    let config = format!("admin: {{token: {ADMIN_TOKEN}}}\n{}", CONFIG.replace("SANDBOX", &upstream.address.to_string()));
    let folder = folder(&config);
    let mut attache = Process::spawn(folder.path(), &["run"], &[]);
    let (_, admin) = attache.ready().await;
    let request = wire::request("GET", "/v1/providers").header("authorization", format!("Bearer {ADMIN_TOKEN}"));
    wire::call(admin, request.body(empty()).expect("a request")).await.is_ok();
    assert!(!folder.path().join("attache.admin-token").exists());
}
