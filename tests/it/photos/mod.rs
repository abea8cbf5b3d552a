//! The photo use case whole: `examples/photos.yaml` as it ships, with its hosts' names made loopback ones, against emulators of eight APIs.

mod emulators;
mod library;

use crate::wire::{self, Answer, Raw, empty};
use attache::app::{self, Running, Settings};
use attache::base::clock::ManualClock;
use attache::store::{Expect, wire::parse_import};
use attache::upstream::TlsRoots;
use emulators::Emulators;
use library::{PROVIDERS, Photo, USERS, photos, token};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

const SHIPPED: &str = include_str!("../../../examples/photos.yaml");

struct World {
    _folder: TempDir,
    running: Running,
    emulators: Emulators,
}

/// The shipped file with `https://api.box.com` as `http://api.box.com.localhost:PORT`, token hosts likewise, and listeners of the test's own.
fn rewritten(emulators: SocketAddr) -> String {
    let port = emulators.port();
    let mut hosts = Vec::new();
    let mut text = String::from("listen: {proxy: \"127.0.0.1:0\", public: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}\n");
    let mut in_routes = false;
    for line in SHIPPED.lines() {
        in_routes |= line == "routes:";
        match line.split_once("https://").filter(|_| in_routes) {
            Some((_, rest)) => {
                let host = rest.split(['/', '\'', '?']).next().expect("a host");
                hosts.push(format!("\"{host}.localhost:{port}\""));
                text.push_str(&line.replace(&format!("https://{host}"), &format!("http://{host}.localhost:{port}")));
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    hosts.sort();
    hosts.dedup();
    // A provider's tokens may go where it says and, here, to the same names of this machine.
    let widened = format!("    token_hosts: [{}]\n", hosts.join(", "));
    let text: String = text.lines().filter(|line| !line.starts_with("    token_hosts:")).map(|line| format!("{line}\n")).collect();
    text.replace("    optional: true\n", &format!("    optional: true\n{widened}"))
}

impl World {
    async fn start() -> World {
        let emulators = Emulators::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("routes.yaml");
        std::fs::write(&config, rewritten(emulators.address())).expect("written");
        let clock = ManualClock::at(crate::harness::START);
        let environment = |name: &str| {
            let value = match name {
                "ICLOUD_CONTAINER" => "iCloud.com.example.printpixie".to_owned(),
                "ICLOUD_API_TOKEN" => "the-api-token".to_owned(),
                name if name.ends_with("_CLIENT_ID") || name.ends_with("_CLIENT_SECRET") => format!("set-{name}"),
                _ => return None,
            };
            Some(value)
        };
        let settings = Settings {
            config,
            environment: Arc::new(environment),
            clock: Arc::new(clock),
            tls: TlsRoots::with_roots(Vec::new()),
            workers: NonZeroUsize::new(2),
        };
        let running = app::start(settings).await.unwrap_or_else(|error| panic!("attache starts: {error}"));
        let world = World { _folder: folder, running, emulators };
        for user in USERS {
            for provider in PROVIDERS {
                world.connect(provider, user, &token(provider, user)).await;
            }
        }
        world
    }

    async fn connect(&self, provider: &str, user: &str, token: &str) {
        let registration = if provider == "onedrive" { "microsoft" } else { provider };
        let line = match provider {
            "icloud" => json!({"provider": registration, "end_user": user, "api_key": token}),
            "flickr" | "smugmug" => json!({"provider": registration, "end_user": user, "access_token": token, "token_secret": "s"}),
            _ => json!({"provider": registration, "end_user": user, "access_token": token}),
        };
        let connection = parse_import(&line.to_string(), crate::harness::START).expect("an import line");
        self.running.records.put_connection(&connection, Expect::Any).await.expect("written");
    }

    async fn get(&self, user: &str, path: &str) -> Answer {
        let request = wire::request("GET", path).header("x-end-user", user).body(empty()).expect(path);
        wire::call(self.running.proxy[0], request).await
    }

    async fn list(&self, user: &str, provider: &str) -> Vec<Value> {
        let answer = self.get(user, &list_path(user, provider)).await;
        assert_eq!(answer.status, 200, "{provider}: {}", answer.text());
        answer.json().as_array().expect("a list").clone()
    }
}

/// The Picker lists what was picked in a session; all others list by themselves.
fn list_path(user: &str, provider: &str) -> String {
    match provider {
        "google-photos" => format!("/photos/google-photos?sessionId=session-{user}"),
        _ => format!("/photos/{provider}"),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn the_shipped_example_loads_with_every_provider_off_and_on() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/photos.yaml");
    let off = attache::config::load(&file, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(off.providers.values().all(|provider| provider.off.is_some()));
    let on = attache::config::load(&file, &|name| (!name.starts_with("ATTACHE")).then(|| "iCloud.com.example.a".to_owned()));
    assert!(on.unwrap_or_else(|errors| panic!("{errors}")).providers.values().all(|provider| provider.off.is_none()));
}

#[tokio::test]
async fn q65_one_loop_lists_all_eight_without_knowing_which_is_which() {
    let world = World::start().await;
    for user in USERS {
        let mut paths = Vec::new();
        for provider in PROVIDERS {
            paths.push((provider, list_path(user, provider)));
        }
        for (provider, path) in paths {
            let list = world.get(user, &path).await.is_ok().json();
            let photos: Vec<Photo> = photos(provider, user);
            let items = list.as_array().expect("a list");
            assert_eq!(items.len(), photos.len(), "{provider}: {list}");
            for (item, photo) in items.iter().zip(&photos) {
                let names: Vec<_> = item.as_object().expect("an object").keys().cloned().collect();
                assert_eq!(names, ["id", "name", "thumbnail"], "{provider}");
                assert_eq!(text(&item["name"]), photo.name, "{provider}");
                let full = world.get(user, &format!("/photos/{provider}/{}", text(&item["id"]))).await;
                assert_eq!(full.status, 200, "{provider}: {}", full.text());
                assert!(full.body == photo.full, "{provider}: other bytes");
                assert_eq!(full.header("content-type"), "image/jpeg", "{provider}");
                for thumbnail in [text(&item["thumbnail"]).to_owned(), format!("/photos/{provider}/{}/thumbnail", text(&item["id"]))] {
                    let small = world.get(user, &thumbnail).await;
                    assert_eq!(small.status, 200, "{provider} {thumbnail}: {}", small.text());
                    assert!(small.body == photo.thumbnail, "{provider} {thumbnail}: other bytes");
                }
            }
        }
    }
}

#[tokio::test]
async fn who_is_not_connected_or_has_another_token_gets_nothing() {
    let world = World::start().await;
    for provider in PROVIDERS {
        let id = text(&world.list("megan", provider).await[0]["id"]).to_owned();
        let photo = format!("/photos/{provider}/{id}");
        for path in [list_path("megan", provider), photo.clone(), format!("{photo}/thumbnail")] {
            let nobody = world.get("nobody", &path).await;
            nobody.is_problem("not-connected", 401, "http_request_denied");
            // Alex is connected, and what is Megan's is not his.
            if path != format!("/photos/{provider}") {
                let other = world.get("alex", &path).await;
                assert!(!other.status.is_success(), "{provider} {path}: {}", other.status);
            }
        }
    }
    // A token that the provider does not know: its refusal passes as it is, whatever the route would have made of an answer.
    for provider in PROVIDERS {
        world.connect(provider, "mallory", "guessed").await;
        let refused = if provider == "icloud" { 421 } else { 401 };
        for path in [list_path("megan", provider), format!("/photos/{provider}/x"), format!("/photos/{provider}/x/thumbnail")] {
            let path = if provider == "google-photos" && !path.contains('?') { path.replace("/x", "/ppa/x") } else { path };
            let answer = world.get("mallory", &path).await;
            assert_eq!(answer.status.as_u16(), refused, "{provider} {path}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn q64_a_part_of_a_photo_comes_through_the_redirect() {
    let world = World::start().await;
    for provider in ["onedrive", "box", "flickr", "smugmug", "icloud"] {
        let id = text(&world.list("megan", provider).await[1]["id"]).to_owned();
        let request =
            wire::request("GET", &format!("/photos/{provider}/{id}")).header("x-end-user", "megan").header("range", "bytes=100-199");
        let part = wire::call(world.running.proxy[0], request.body(empty()).expect("a request")).await;
        assert_eq!(part.status, 206, "{provider}: {}", part.text());
        assert_eq!(&part.body[..], &photos(provider, "megan")[1].full[100..200], "{provider}");
    }
}

/// Fails without the escaping of captures by their place.
#[tokio::test]
async fn threat_42_hostile_ids_are_data_at_every_provider() {
    let world = World::start().await;
    for (sent, meant) in [
        ("%22%7D%2C%22x%22%3A%22", "\"},\"x\":\""),
        ("%0d%0aX-Evil:%201", "\r\nX-Evil: 1"),
        ("x&alt=media&method=flickr.photos.delete", "x&alt=media&method=flickr.photos.delete"),
        ("x%26alt=media%26method=flickr.photos.delete%23", "x&alt=media&method=flickr.photos.delete#"),
        ("caf%C3%A9%F0%9F%93%B7", "café📷"),
        ("%7Bid%7D", "{id}"),
        ("a%3Fb%3Dc", "a?b=c"),
    ] {
        let mut raw = Raw::open(world.running.proxy[0]).await;
        for (provider, host) in [
            ("dropbox", "content.dropboxapi.com"),
            ("icloud", "api.apple-cloudkit.com"),
            ("flickr", "api.flickr.com"),
            ("google", "www.googleapis.com"),
            ("onedrive", "graph.microsoft.com"),
        ] {
            raw.send(format!("GET /photos/{provider}/{sent} HTTP/1.1\r\nHost: localhost\r\nX-End-User: megan\r\n\r\n")).await;
            let answer = raw.answer().await.expect("an answer");
            assert_ne!(answer.status, 200, "{provider} {sent}");
            let seen = world.emulators.last_of(host);
            let url = url::Url::parse(&format!("http://x{}", seen.target)).expect("a target");
            let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
            match provider {
                "dropbox" => {
                    let arg: Value = serde_json::from_str(seen.header("dropbox-api-arg")).expect("JSON");
                    assert_eq!(arg, json!({"path": meant}), "{sent}");
                }
                "icloud" => {
                    let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
                    assert_eq!(body, json!({"records": [{"recordName": meant}]}), "{sent}");
                    assert_eq!(query.len(), 2, "{query:?}");
                }
                "flickr" => {
                    let value = |name: &str| query.iter().filter(|(known, _)| known == name).map(|(_, value)| &**value).collect::<Vec<_>>();
                    assert_eq!((value("photo_id"), value("method")), (vec![meant], vec!["flickr.photos.getSizes"]), "{sent}");
                    assert_eq!(query.len(), 4, "{query:?}");
                }
                // In a path the bytes stay as they came, and cannot leave it.
                "google" => {
                    assert_eq!(url.path(), format!("/drive/v3/files/{sent}"));
                    assert_eq!(query, [("alt".to_owned(), "media".to_owned())], "{sent}");
                }
                _ => assert_eq!(seen.target, format!("/v1.0/me/drive/items/{sent}/content")),
            }
            assert_eq!(seen.header("x-evil"), "", "{provider} {sent}");
        }
    }
    for path in ["../etc", "..%2f..%2fetc", "%2e%2e", "a%5Cb", "%00"] {
        for provider in PROVIDERS {
            let mut raw = Raw::open(world.running.proxy[0]).await;
            raw.send(format!("GET /photos/{provider}/{path} HTTP/1.1\r\nHost: localhost\r\nX-End-User: megan\r\n\r\n")).await;
            assert_eq!(raw.answer().await.expect("an answer").status, 400, "{provider} {path}");
        }
    }
}

#[tokio::test]
async fn what_an_api_refuses_with_a_200_is_not_taken_for_photos() {
    let world = World::start().await;
    for path in ["/photos/flickr/999", "/photos/icloud/nothing"] {
        world.get("megan", path).await.is_problem("upstream-bad-response", 502, "http_protocol_error");
    }
    // One that says so by its status passes as it is.
    let missing = world.get("megan", "/photos/dropbox/id:nothing").await;
    assert_eq!((missing.status.as_u16(), missing.json()["error_summary"].clone()), (409, json!("path/not_found/.")));
}

#[tokio::test]
async fn a_picking_session_is_made_through_attache() {
    let world = World::start().await;
    let request = wire::request("POST", "/photos/google-photos/sessions").header("x-end-user", "alex").body(empty()).expect("a request");
    let session = wire::call(world.running.proxy[0], request).await.is_ok().json();
    assert!(text(&session["pickerUri"]).starts_with("https://photos.google.com/"));
    let list = world.get("alex", &format!("/photos/google-photos?sessionId={}", text(&session["id"]))).await;
    assert_eq!(list.is_ok().json().as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn the_example_app_saves_a_photo_of_each_place() {
    let world = World::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut app = std::process::Command::new("python3");
    app.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/photos.py"));
    app.arg("--out").arg(folder.path());
    app.args(PROVIDERS.map(|provider| list_path("megan", provider).trim_start_matches("/photos/").to_owned()));
    app.env("ATTACHE_URL", format!("http://{}", world.running.proxy[0])).env("END_USER", "megan");
    // On a thread of its own: the emulators answer on this one.
    let ran = tokio::task::spawn_blocking(move || app.output()).await.expect("joined");
    let ran = match ran {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return eprintln!("skipped: there is no python3 here"),
        ran => ran.expect("ran"),
    };
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}");
    for provider in PROVIDERS {
        let [photo, _] = &photos(provider, "megan")[..] else { panic!("two photos") };
        assert!(said.contains(&format!("{provider}: 2 photos\n  saved {}", photo.name)), "{said}");
        let saved = |name: String| std::fs::read(folder.path().join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(saved(format!("{provider}.jpg")) == photo.full, "{provider}");
        assert!(saved(format!("{provider}-thumbnail.jpg")) == photo.thumbnail, "{provider}");
    }
}
