//! Eight photo APIs in small: each asks for its credential and answers in its own shape.
//!
//! One socket serves all: the host `api.box.com` is `api.box.com.localhost` here, which is loopback by its name.

use super::library::{find, owner, photo, photos};
use crate::upstream::{Reply, Seen, Upstream};
use serde_json::{Value, json};
use std::net::SocketAddr;

pub struct Emulators {
    pub upstream: Upstream,
}

/// One request, read.
struct Call<'s> {
    host: &'s str,
    port: &'s str,
    path: String,
    query: Vec<(String, String)>,
    seen: &'s Seen,
}

impl Emulators {
    pub async fn start() -> Emulators {
        Emulators { upstream: Upstream::start(answer).await }
    }

    pub fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    /// The last request that an API got, hops not counted.
    #[track_caller]
    pub fn last_of(&self, host: &str) -> Seen {
        let seen = self.upstream.seen();
        seen.into_iter().rev().find(|seen| seen.header("host").starts_with(&format!("{host}."))).expect("a request came")
    }
}

fn answer(seen: &Seen) -> Reply {
    let Some((host, port)) = seen.header("host").split_once(".localhost:") else {
        return status(421, &json!({"error": "no host of ours"}));
    };
    let url = url::Url::parse(&format!("http://x{}", seen.target)).expect("a target");
    let call = Call { host, port, path: url.path().to_owned(), query: url.query_pairs().into_owned().collect(), seen };
    match host {
        "www.googleapis.com" => drive(&call),
        "photospicker.googleapis.com" => picker(&call),
        "lh3.googleusercontent.com" => google_bytes(&call),
        "graph.microsoft.com" => graph(&call),
        "api.dropboxapi.com" | "content.dropboxapi.com" => dropbox(&call),
        "api.box.com" => r#box(&call),
        "api.flickr.com" => flickr(&call),
        "api.smugmug.com" => smugmug(&call),
        "api.apple-cloudkit.com" => cloudkit(&call),
        _ => storage(&call),
    }
}

fn reply(code: u16, kind: &str, more: &str, body: &[u8]) -> Reply {
    let head = format!("HTTP/1.1 {code} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{more}\r\n", body.len());
    Reply::Keep([head.as_bytes(), body].concat())
}

fn status(code: u16, body: &Value) -> Reply {
    reply(code, "application/json; charset=utf-8", "", body.to_string().as_bytes())
}

fn ok(body: &Value) -> Reply {
    status(200, body)
}

fn bytes(body: &[u8]) -> Reply {
    reply(200, "image/jpeg", "", body)
}

fn redirect(to: &str) -> Reply {
    reply(302, "text/plain", &format!("Location: {to}\r\n"), b"")
}

impl Call<'_> {
    fn query(&self, name: &str) -> &str {
        let mut found = self.query.iter().filter(|(known, _)| known == name);
        let value = found.next().map_or("", |(_, value)| value);
        assert!(found.next().is_none(), "{name} is there twice: {:?}", self.query);
        value
    }

    fn origin(&self, host: &str) -> String {
        format!("http://{host}.localhost:{}", self.port)
    }

    /// An address that is signed already: whoever has it gets the bytes.
    fn signed(&self, provider: &str, user: &str, number: usize, kind: &str) -> String {
        format!("{}/{provider}/{user}/{number}/{kind}?sig=s%2Fe%3D", self.origin("storage.example"))
    }

    fn bearer(&self, provider: &str) -> Result<&'static str, Reply> {
        let given = self.seen.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        owner(provider, given).ok_or_else(|| status(401, &json!({"error": {"code": 401, "message": "Invalid Credentials"}})))
    }

    /// OAuth 1.0a: whose token it is, and that something signed it.
    fn signed_by(&self, provider: &str) -> Result<&'static str, Reply> {
        let refused = || status(401, &json!({"stat": "fail", "code": 98, "message": "Invalid auth token"}));
        let given = self.seen.header("authorization").strip_prefix("OAuth ").ok_or_else(refused)?;
        // The signature itself is held by `tests/it/oauth1.rs`.
        let (_, token) = given.split_once("oauth_token=\"").filter(|_| given.contains("oauth_signature=\"")).ok_or_else(refused)?;
        owner(provider, token.split('"').next().unwrap_or_default()).ok_or_else(refused)
    }

    fn body(&self) -> Value {
        serde_json::from_slice(&self.seen.body).unwrap_or_default()
    }
}

/// Runs `work` for whoever the credential is of.
fn with(user: Result<&'static str, Reply>, work: impl FnOnce(&'static str) -> Reply) -> Reply {
    user.map_or_else(|refused| refused, work)
}

fn missing() -> Reply {
    status(404, &json!({"error": {"code": 404, "message": "not found"}}))
}

/// A path part, decoded.
fn part(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn drive(call: &Call<'_>) -> Reply {
    with(call.bearer("google"), |user| {
        let link = |number: usize| format!("{}/drive-storage/AJQWtB{user}-{number}=s220", call.origin("lh3.googleusercontent.com"));
        match call.path.strip_prefix("/drive/v3/files") {
            Some("") => {
                assert!(call.query("q").contains("image/") && call.query("fields").contains("files(id,name,thumbnailLink)"));
                let file = |(number, photo): (usize, super::library::Photo)| json!({"id": photo.id, "name": photo.name, "thumbnailLink": link(number)});
                ok(&json!({"files": photos("google", user).into_iter().enumerate().map(file).collect::<Vec<_>>()}))
            }
            Some(id) => match (find("google", user, &part(id.trim_start_matches('/'))), call.query("alt"), call.query("fields")) {
                (None, ..) => missing(),
                (Some(number), "media", _) => bytes(&photo("google", user, number).full),
                // Of a file that is shared publicly, whose link wants no token.
                (Some(number), _, "thumbnailLink") => ok(&json!({"thumbnailLink": call.signed("google", user, number, "thumbnail")})),
                (Some(_), ..) => ok(&json!({"kind": "drive#file"})),
            },
            None => missing(),
        }
    })
}

fn picker(call: &Call<'_>) -> Reply {
    with(call.bearer("google-photos"), |user| match (&*call.seen.method, &*call.path) {
        ("POST", "/v1/sessions") => ok(&json!({"id": format!("session-{user}"), "pickerUri": "https://photos.google.com/picker/1"})),
        ("GET", "/v1/mediaItems") if call.query("sessionId") == format!("session-{user}") => {
            let item = |(number, photo): (usize, super::library::Photo)| {
                json!({"id": photo.id, "type": "PHOTO", "createTime": "2026-01-01T00:00:00Z", "mediaFile": {
                    "baseUrl": format!("{}/ppa/{user}-{number}", call.origin("lh3.googleusercontent.com")),
                    "mimeType": "image/jpeg", "filename": photo.name}})
            };
            ok(&json!({"mediaItems": photos("google-photos", user).into_iter().enumerate().map(item).collect::<Vec<_>>()}))
        }
        ("GET", "/v1/mediaItems") => status(400, &json!({"error": {"status": "FAILED_PRECONDITION"}})),
        _ => missing(),
    })
}

/// Bytes of Drive's thumbnails and the Picker's photos, which want the token.
fn google_bytes(call: &Call<'_>) -> Reply {
    let (provider, rest) = match (call.path.strip_prefix("/ppa/"), call.path.strip_prefix("/drive-storage/AJQWtB")) {
        (Some(rest), _) => ("google-photos", rest),
        (_, Some(rest)) => ("google", rest),
        _ => return missing(),
    };
    with(call.bearer(provider), |user| {
        let (name, size) = rest.split_once('=').unwrap_or((rest, ""));
        let number = name.strip_prefix(user).and_then(|number| number.strip_prefix('-')).and_then(|number| number.parse().ok());
        match (number, size) {
            (Some(number), "d") => bytes(&photo(provider, user, number).full),
            (Some(number), _) => bytes(&photo(provider, user, number).thumbnail),
            (None, _) => missing(),
        }
    })
}

fn graph(call: &Call<'_>) -> Reply {
    with(call.bearer("onedrive"), |user| {
        let Some(rest) = call.path.strip_prefix("/v1.0/me/drive/") else { return missing() };
        if rest == "special/photos/children" {
            let item = |photo: super::library::Photo| json!({"id": photo.id, "name": photo.name, "file": {"mimeType": "image/jpeg"}, "image": {"width": 1}});
            let mut items: Vec<_> = photos("onedrive", user).into_iter().map(item).collect();
            items.push(json!({"id": "folder!1", "name": "2025", "folder": {"childCount": 3}}));
            return ok(&json!({"@odata.context": "x", "value": items}));
        }
        let Some((id, what)) = rest.strip_prefix("items/").and_then(|rest| rest.split_once('/')) else { return missing() };
        match (find("onedrive", user, &part(id)), what) {
            (Some(number), "content") => redirect(&call.signed("onedrive", user, number, "full")),
            (Some(number), "thumbnails/0/medium/content") => redirect(&call.signed("onedrive", user, number, "thumbnail")),
            _ => missing(),
        }
    })
}

fn dropbox(call: &Call<'_>) -> Reply {
    if call.seen.method != "POST" {
        return status(400, &json!({"error": "POST, please"}));
    }
    with(call.bearer("dropbox"), |user| {
        let wrong = || status(409, &json!({"error_summary": "path/not_found/.", "error": {".tag": "path"}}));
        if call.host == "api.dropboxapi.com" {
            assert_eq!((&*call.path, call.seen.header("content-type")), ("/2/files/list_folder", "application/json"));
            assert_eq!(call.body(), json!({"path": "", "recursive": true, "limit": 2000}));
            let entry = |photo: super::library::Photo| json!({".tag": "file", "id": photo.id, "name": photo.name, "path_lower": "/x"});
            let mut entries: Vec<_> = photos("dropbox", user).into_iter().map(entry).collect();
            entries.push(json!({".tag": "folder", "id": "id:f", "name": "album.jpg"}));
            entries.push(json!({".tag": "file", "id": "id:t", "name": "notes.txt"}));
            return ok(&json!({"entries": entries, "cursor": "c", "has_more": false}));
        }
        // Content endpoints refuse a body and any kind but these (their own words: a bad Content-Type header).
        assert!(call.seen.body.is_empty() && matches!(call.seen.header("content-type"), "" | "application/octet-stream"));
        let arg: Value = serde_json::from_str(call.seen.header("dropbox-api-arg")).expect("JSON in the header");
        let (path, is_thumbnail) = match &*call.path {
            "/2/files/download" => (&arg["path"], false),
            "/2/files/get_thumbnail_v2" if arg["resource"][".tag"] == "path" => (&arg["resource"]["path"], true),
            _ => return wrong(),
        };
        match find("dropbox", user, path.as_str().expect("a text")).map(|number| photo("dropbox", user, number)) {
            None => wrong(),
            Some(photo) if is_thumbnail => bytes(&photo.thumbnail),
            Some(photo) => bytes(&photo.full),
        }
    })
}

fn r#box(call: &Call<'_>) -> Reply {
    with(call.bearer("box"), |user| {
        if call.path == "/2.0/folders/0/items" {
            assert_eq!(call.query("fields"), "id,type,name,extension");
            let entry =
                |photo: super::library::Photo| json!({"type": "file", "id": photo.id, "etag": "0", "name": photo.name, "extension": "JPG"});
            let mut entries: Vec<_> = photos("box", user).into_iter().map(entry).collect();
            entries.push(json!({"type": "folder", "id": "11", "etag": "0", "name": "Holiday"}));
            entries.push(json!({"type": "file", "id": "12", "etag": "0", "name": "tax.pdf", "extension": "pdf"}));
            return ok(&json!({"total_count": 4, "entries": entries, "offset": 0, "limit": 1000}));
        }
        let Some((id, what)) = call.path.strip_prefix("/2.0/files/").and_then(|rest| rest.split_once('/')) else { return missing() };
        match (find("box", user, &part(id)), what) {
            (Some(number), "content") => redirect(&call.signed("box", user, number, "full")),
            (Some(number), "thumbnail.jpg") => bytes(&photo("box", user, number).thumbnail),
            _ => missing(),
        }
    })
}

fn flickr(call: &Call<'_>) -> Reply {
    with(call.signed_by("flickr"), |user| {
        assert_eq!((call.query("format"), call.query("nojsoncallback")), ("json", "1"));
        match call.query("method") {
            "flickr.people.getPhotos" => {
                assert_eq!(call.query("user_id"), "me");
                let one = |photo: super::library::Photo| json!({"id": photo.id, "owner": "12@N01", "secret": "a1", "server": "65535", "farm": 66, "title": photo.name, "ispublic": 0});
                let all: Vec<_> = photos("flickr", user).into_iter().map(one).collect();
                ok(&json!({"photos": {"page": 1, "pages": 1, "perpage": 500, "total": 2, "photo": all}, "stat": "ok"}))
            }
            "flickr.photos.getSizes" => match find("flickr", user, call.query("photo_id")) {
                None => ok(&json!({"stat": "fail", "code": 1, "message": "Photo not found"})),
                Some(number) => {
                    let size = |label: &str, kind: &str| json!({"label": label, "width": 1, "source": call.signed("flickr", user, number, kind), "media": "photo"});
                    let sizes = [size("Square", "square"), size("Small", "thumbnail"), size("Large", "large"), size("Original", "full")];
                    ok(&json!({"sizes": {"canblog": 0, "candownload": 1, "size": sizes}, "stat": "ok"}))
                }
            },
            _ => ok(&json!({"stat": "fail", "code": 112, "message": "Method not found"})),
        }
    })
}

fn smugmug(call: &Call<'_>) -> Reply {
    with(call.signed_by("smugmug"), |user| {
        assert_eq!(call.seen.header("accept"), "application/json", "without it there is HTML");
        if call.path == "/api/v2!authuser" {
            assert_eq!(call.query("_expand"), "UserRecentImages");
            let uri = format!("/api/v2/user/{user}!recentimages");
            let image = |photo: super::library::Photo| json!({"Uri": format!("/api/v2/image/{}-0", photo.id), "ImageKey": photo.id, "FileName": photo.name});
            let images: Vec<_> = photos("smugmug", user).into_iter().map(image).collect();
            return ok(&json!({
                "Response": {"Uri": "/api/v2!authuser", "User": {"NickName": user, "Uris": {"UserRecentImages": {"Uri": uri}}}},
                "Code": 200, "Message": "Ok",
                "Expansions": {uri: {"Uri": "x", "Image": images, "Pages": {"Total": 2}}},
            }));
        }
        let rest = call.path.strip_prefix("/api/v2/image/").unwrap_or_default();
        let (id, what) = rest.split_once('!').unwrap_or((rest, ""));
        match (find("smugmug", user, &part(id)), what) {
            (Some(number), "largestimage") => ok(
                &json!({"Response": {"LargestImage": {"Url": call.signed("smugmug", user, number, "full"), "Usable": true}}, "Code": 200}),
            ),
            (Some(number), "") => {
                ok(&json!({"Response": {"Image": {"ThumbnailUrl": call.signed("smugmug", user, number, "thumbnail")}}, "Code": 200}))
            }
            _ => missing(),
        }
    })
}

fn cloudkit(call: &Call<'_>) -> Reply {
    let user = match (call.query("ckAPIToken"), owner("icloud", call.query("ckWebAuthToken"))) {
        ("the-api-token", Some(user)) => user,
        _ => return status(421, &json!({"serverErrorCode": "AUTHENTICATION_REQUIRED", "redirectURL": "https://idmsa.apple.com/"})),
    };
    assert_eq!((&*call.seen.method, call.seen.header("authorization")), ("POST", ""));
    let asset = |number, kind| {
        let url = format!("{}/icloud/{user}/{number}/{kind}/${{f}}?sig=s%2Fe%3D", call.origin("cvws.icloud-content.com"));
        json!({"type": "ASSETID", "value": {"fileChecksum": "c", "size": 1, "downloadURL": url}})
    };
    let record = |number: usize| {
        let photo = photo("icloud", user, number);
        json!({"recordName": photo.id, "recordType": "Photo", "fields": {
            "name": {"type": "STRING", "value": photo.name}, "image": asset(number, "full"), "thumbnail": asset(number, "thumbnail")}})
    };
    match call.path.strip_prefix("/database/1/iCloud.com.example.printpixie/production/private/records/") {
        Some("query") if call.body() == json!({"query": {"recordType": "Photo"}, "resultsLimit": 200}) => {
            ok(&json!({"records": [record(0), record(1)]}))
        }
        Some("lookup") => {
            let body = call.body();
            let name = body["records"][0]["recordName"].as_str().expect("a text");
            assert_eq!(body, json!({"records": [{"recordName": name}]}), "and nothing beside it");
            match find("icloud", user, name) {
                Some(number) => ok(&json!({"records": [record(number)]})),
                None => ok(&json!({"records": [{"recordName": name, "reason": "Record not found", "serverErrorCode": "NOT_FOUND"}]})),
            }
        }
        _ => status(400, &json!({"serverErrorCode": "BAD_REQUEST"})),
    }
}

/// Storage with signed addresses: it must see nothing of who asks.
fn storage(call: &Call<'_>) -> Reply {
    let known = ["host", "via", "accept", "accept-encoding", "range", "if-range", "user-agent"];
    let strange: Vec<_> = call.seen.names().into_iter().filter(|name| !known.contains(name)).collect();
    if !strange.is_empty() || call.query("sig") != "s/e=" || call.seen.method != "GET" {
        return status(400, &json!({"leaked": strange}));
    }
    let parts: Vec<_> = call.path.trim_start_matches('/').split('/').collect();
    let [provider, user, number, kind, ..] = parts[..] else { return missing() };
    let Ok(number) = number.parse() else { return missing() };
    let photo = photo(provider, user, number);
    let whole = if kind == "full" { photo.full } else { photo.thumbnail };
    match call.seen.header("range").strip_prefix("bytes=").and_then(|range| range.split_once('-')) {
        None => bytes(&whole),
        Some((from, to)) => {
            let (from, to): (usize, usize) = (from.parse().expect("a start"), to.parse().expect("an end"));
            let more = format!("Content-Range: bytes {from}-{to}/{}\r\n", whole.len());
            reply(206, "image/jpeg", &more, &whole[from..=to])
        }
    }
}
