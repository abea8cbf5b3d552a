//! THREATS 21: a secret is nowhere but where it belongs. Every failure there is, with everything logged, and then a search.

use crate::process::{Process, run_with};
use crate::tls::{Authority, Secure, names};
use crate::upstream::{Reply, Upstream};
use crate::wire::{self, Raw, empty, until};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// Every secret of this test holds this word.
const CANARY: &str = "CANARYsecret";

/// The users, each named by what happens to their refresh; `fresh` needs none.
const USERS: [&str; 12] = ["fresh", "good", "500", "grant", "html", "cut", "gone", "type", "echo", "long", "client", "array"];

fn token_answer(user: &str) -> Reply {
    let (status, body) = match user {
        "500" => ("500 Oops", format!("{CANARY}-in-500")),
        "grant" => ("400 Bad Request", json!({"error": "invalid_grant", "error_description": format!("{CANARY}-described")}).to_string()),
        "client" => ("401 Unauthorized", json!({"error": "invalid_client", "error_uri": format!("https://x/{CANARY}")}).to_string()),
        "html" => ("200 OK", format!("<html>{CANARY}-in-html</html>")),
        "cut" => ("200 OK", format!("{{\"access_token\":\"{CANARY}-cut")),
        "gone" => return Reply::Close(Vec::new()),
        "type" => ("200 OK", json!({"access_token": {"a": format!("{CANARY}-typed")}, "expires_in": format!("{CANARY}-in"), "token_type": 7}).to_string()),
        "echo" => ("400 Bad Request", json!({"error": format!("{CANARY}-as-a-code")}).to_string()),
        "array" => ("200 OK", json!([format!("{CANARY}-in-a-list")]).to_string()),
        "long" => ("200 OK", CANARY.repeat(200_000)),
        user => (
            "200 OK",
            json!({"access_token": format!("{CANARY}-new-{user}"), "refresh_token": format!("{CANARY}-rotated-{user}"), "token_type": "Bearer", "expires_in": 3600})
                .to_string(),
        ),
    };
    Reply::Keep(format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into())
}

/// The registrations, each named by where its token calls carry the client's secret.
const PROVIDERS: [&str; 3] = ["body", "basic", "query"];

/// A token endpoint that answers by whose refresh token came.
async fn token_endpoint() -> Upstream {
    Upstream::start(|seen| {
        // Of a token call by GET the parameters stand in the target (Q03).
        let form = format!("{}&{}", String::from_utf8_lossy(&seen.body), seen.target);
        USERS
            .into_iter()
            .find(|user| form.contains(&format!("{CANARY}-refresh-{user}&")) || form.ends_with(&format!("{CANARY}-refresh-{user}")))
            .map_or_else(|| Reply::Close(Vec::new()), token_answer)
    })
    .await
}

fn config(token: SocketAddr, api: SocketAddr, secure: u16, admin_token: &str) -> String {
    let provider = |id: &str, auth: &str| {
        format!(
            "  {id}:\n    use: sandbox\n    client_id: app\n    client_secret: {CANARY}-client\n    client_auth: {auth}\n    token_url: http://{token}/token\n    \
             revoke_url: http://{token}/revoke\n    token_hosts: [\"{api}\", \"localhost:{secure}\"]\n"
        )
    };
    let mut routes = String::new();
    for id in PROVIDERS {
        for (name, keys) in [
            ("bearer", ""),
            ("query", "attach: {query: key}"),
            ("header", "attach: {header: X-Token}"),
            ("named", "attach: {scheme: token}"),
        ] {
            routes
                .push_str(&format!("  - {{match: '/{id}/{name}/{{*rest}}', provider: {id}, upstream: 'http://{api}/{{rest}}', {keys}}}\n"));
        }
        routes
            .push_str(&format!("  - {{match: '/{id}/tls/{{*rest}}', provider: {id}, upstream: 'https://localhost:{secure}/{{rest}}'}}\n"));
    }
    routes.push_str(&format!(
        "  - {{match: '/up/{{*rest}}', as: none, upstream: 'http://{api}/{{rest}}', headers: {{set: {{X-Key: {CANARY}-set}}}}}}\n"
    ));
    routes.push_str(&format!(
        "  - {{match: '/set', as: none, upstream: 'http://{api}/', set_query: {{key: {CANARY}-set-query}}, callers: [web]}}\n"
    ));
    let listen = "listen: {proxy: \"127.0.0.1:0\", public: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}\n";
    let callers = format!("callers: [{{name: web, key_sha256: {}}}]\n", sha256(&format!("{CANARY}-key")));
    format!(
        "{listen}admin: {{token: {admin_token}}}\n{callers}providers:\n{}{}{}    calls: {{token: {{method: GET}}}}\nroutes:\n{routes}",
        provider("body", "body"),
        provider("basic", "basic"),
        provider("query", "body")
    )
}

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What must never be seen: the word itself, and the encodings in which it may hide.
fn traces() -> Vec<String> {
    let mut traces = vec![CANARY.to_owned(), CANARY.to_lowercase(), CANARY.chars().rev().collect()];
    // Base64 of the word at each of the three places it may start at, less the ends that its neighbours take part in.
    for before in ["", "x", "xy"] {
        for encoded in [STANDARD.encode(format!("{before}{CANARY}")), URL_SAFE_NO_PAD.encode(format!("{before}{CANARY}"))] {
            traces.push(encoded[4..encoded.len() - 4].to_owned());
        }
    }
    traces.push(CANARY.bytes().map(|byte| format!("{byte:02x}")).collect());
    traces.push(CANARY.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", "));
    traces
}

#[track_caller]
fn is_clean(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for trace in traces() {
        if let Some(at) = text.find(&trace) {
            let start = text[..at].char_indices().rev().nth(300).map_or(0, |(start, _)| start);
            panic!("{what} holds {trace:?}: …{}", &text[start..at + trace.len()]);
        }
    }
}

fn every_file(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() { every_file(&entry, found) } else { found.push(entry) }
    }
}

/// What the run's own answers were, searched as they come; an upstream's answer may hold what the upstream likes.
struct Client {
    proxy: SocketAddr,
    admin: SocketAddr,
}

impl Client {
    async fn call(&self, path: &str, user: &str, headers: &[(&str, &str)]) -> u16 {
        let key = format!("{CANARY}-key");
        let request = wire::request("GET", path).header("x-end-user", user).header("x-attache-key", key);
        let answer = wire::call(self.proxy, crate::harness::with_headers(request, headers).body(empty()).expect("a request")).await;
        is_clean(path, format!("{:?}", answer.headers).as_bytes());
        is_clean(path, &answer.body);
        answer.status.as_u16()
    }

    async fn admin(&self, method: &str, path: &str, token: &str) -> u16 {
        let request = wire::request(method, path).header("authorization", format!("Bearer {token}"));
        let answer = wire::call(self.admin, request.body(empty()).expect("a request")).await;
        is_clean(path, &answer.body);
        answer.status.as_u16()
    }

    async fn raw(&self, bytes: &str) {
        let mut raw = Raw::open(self.proxy).await;
        raw.send(bytes).await;
        let answer = tokio::time::timeout(std::time::Duration::from_secs(5), raw.rest()).await.unwrap_or_default();
        is_clean(bytes, &answer);
    }
}

/// Fails when a `Secret` is printed, or a record is stored unsealed.
#[tokio::test]
async fn threat_21_no_secret_is_ever_in_a_log_an_error_an_admin_answer_or_the_store() {
    let (authority, endpoint) = (Authority::new(), token_endpoint().await);
    let secure = Secure::start(&authority, names(&["localhost"]), &[b"h2"]).await;
    let api = Upstream::start(|seen| match seen.target.split('?').next().unwrap_or_default() {
        "/refused" => Reply::Keep("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".into()),
        "/broken" => Reply::Close(format!("HTTP/9 {CANARY}-from-the-api\r\n\r\n").into()),
        "/gone" => Reply::Close(Vec::new()),
        "/cut" => Reply::Close("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut".into()),
        _ => Reply::ok("", "ok"),
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let admin_token = format!("{CANARY}-admin-token");
    let text = config(endpoint.address, api.address, secure.address.port(), &admin_token);
    let path = folder.path().join("routes.yaml");
    fs::write(&path, &text).expect("written");
    fs::write(folder.path().join("ca.pem"), &authority.pem).expect("written");

    let lines: Vec<String> = PROVIDERS
        .into_iter()
        .flat_map(|provider| USERS.map(|user| (provider, user)))
        .map(|(provider, user)| {
            let expires_at = if user == "fresh" { "2099-01-01T00:00:00Z" } else { "2020-01-01T00:00:00Z" };
            json!({"provider": provider, "end_user": format!("{user}@personalemail.com"), "access_token": format!("{CANARY}-access-{user}"),
                   "refresh_token": format!("{CANARY}-refresh-{user}"), "expires_at": expires_at})
            .to_string()
        })
        .collect();
    let imported = run_with(folder.path(), &["connections", "import"], &lines.join("\n"));
    assert_eq!(imported.code, Some(0), "{imported:?}");

    let pem = folder.path().join("ca.pem").display().to_string();
    let mut attache = Process::spawn(folder.path(), &["run"], &[("RUST_LOG", "trace"), ("SSL_CERT_FILE", &pem), ("RUST_BACKTRACE", "1")]);
    let (proxy, admin) = attache.ready().await;
    let client = Client { proxy, admin };
    let own = format!("Bearer {CANARY}-own");
    let cookie = format!("session={CANARY}-cookie");
    for provider in PROVIDERS {
        for user in USERS {
            let status = client.call(&format!("/{provider}/bearer/x"), &format!("{user}@personalemail.com"), &[]).await;
            let expected = match user {
                "fresh" | "good" => 200,
                "grant" => 401,
                _ => 502,
            };
            assert_eq!(status, expected, "{provider} {user}");
        }
        for attach in ["bearer", "query", "header", "named", "tls"] {
            for target in ["x", "refused", "broken", "gone", "cut/", "%zz", "../x", "x?key=CANARYsecret-query&a=CANARYsecret-query"] {
                let path = format!("/{provider}/{attach}/{target}");
                client.call(&path, "fresh@personalemail.com", &[("authorization", &own), ("cookie", &cookie)]).await;
            }
        }
    }
    client.call("/up/x", "fresh@personalemail.com", &[("proxy-authorization", &own)]).await;
    client.call("/set", "fresh@personalemail.com", &[("x-request-id", &format!("{CANARY} id"))]).await;
    client.call(&format!("/nowhere/{CANARY}-path"), "nobody", &[]).await;
    client.call("/body/bearer/x", &format!("nobody-{CANARY}, other"), &[]).await;
    for raw in [
        format!("GET /body/bearer/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {CANARY}\0\r\n\r\n"),
        format!("GET /body/bearer/x HTTP/1.1\r\nHost: {CANARY}.evil.example\r\nX-Attache-Key: {CANARY}-wrong\r\nConnection: close\r\n\r\n"),
        format!("CONNECT {CANARY}:443 HTTP/1.1\r\nHost: {CANARY}:443\r\nConnection: close\r\n\r\n"),
        format!("BREW / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n{CANARY}"),
        format!(
            "GET /body/bearer/cut HTTP/1.1\r\nHost: localhost\r\nX-Attache-Key: {CANARY}-key\r\nX-End-User: fresh@personalemail.com\r\nConnection: close\r\n\r\n"
        ),
    ] {
        client.raw(&raw).await;
    }

    for path in ["/v1/routes", "/v1/providers", "/v1/explain?url=/body/query/x", "/v1/connections", "/metrics", "/healthz", "/readyz"] {
        client.admin("GET", path, &admin_token).await;
        client.admin("GET", path, &format!("{CANARY}-wrong")).await;
    }
    for (from, to) in [
        (format!("client_secret: {CANARY}-client"), format!("client_secret: [{CANARY}-client]")),
        (format!("client_secret: {CANARY}-client"), format!("client_secrett: {CANARY}-client")),
        (format!("client_secret: {CANARY}-client"), format!("client_secret: {{{CANARY}-client: 1}}")),
        (format!("token: {admin_token}"), format!("token: [{admin_token}]")),
        (format!("token: {admin_token}"), format!("tokenn: {admin_token}")),
        ("admin:".into(), format!("store: {{encryption_keys: [{CANARY}-sealing]}}\nadmin:")),
        (sha256(&format!("{CANARY}-key")), format!("{CANARY}-key")),
    ] {
        let broken = text.replace(&from, &to);
        assert_ne!(broken, text, "{from}");
        fs::write(&path, broken).expect("written");
        assert_eq!(client.admin("POST", "/v1/reload", &admin_token).await, 422, "{to}");
    }
    fs::write(&path, &text).expect("written");
    assert_eq!(client.admin("POST", "/v1/reload", &admin_token).await, 200);

    attache.signal(Signal::TERM);
    assert_eq!(attache.ended().await, Some(0));
    until("the log is whole", async || attache.err().contains("attache has stopped")).await;
    let log = attache.err();
    // What was logged covers the failures at all, and names no person.
    for part in ["refresh failed", "the grant has ended", "upstream failed", "TRACE", "config refused"] {
        assert!(log.contains(part), "{part:?} is not in the log");
    }
    is_clean("the log", log.as_bytes());
    is_clean("standard output", attache.out().as_bytes());
    assert!(!log.contains("personalemail.com"), "end users' names stay out of the log");
    assert!(!log.contains('\u{1b}'), "no control bytes");

    let mut files = Vec::new();
    every_file(folder.path(), &mut files);
    let kept = |path: &Path| path.starts_with(folder.path().join("attache.db"));
    assert!(files.iter().any(|path| kept(path)), "{files:?}");
    for file in files.iter().filter(|file| kept(file)) {
        let bytes = fs::read(file).expect("read");
        is_clean(&file.display().to_string(), &bytes);
        assert!(!String::from_utf8_lossy(&bytes).contains("-access-"), "{}", file.display());
    }
}

/// THREATS 40: what came from the environment is a secret until the operator says otherwise, also where a route puts it in its upstream's URL.
#[test]
fn threat_40_explain_masks_what_came_from_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("key"), format!("{CANARY}-key\n")).expect("written");
    let route = "routes:\n  - {match: /maps, as: none, upstream: 'https://maps.example.com/', set_query: {key: \"${file:key}\"}}\n";
    fs::write(folder.path().join("routes.yaml"), route).expect("written");
    let explained = run_with(folder.path(), &["explain", "GET", "/maps"], "");
    assert_eq!(explained.code, Some(0), "{explained:?}");
    is_clean("explain", explained.out.as_bytes());
}
