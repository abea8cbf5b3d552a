//! `/v1/photos`: listing, metadata, pictures with ranges and validators, and uploads that stream.

use crate::sandbox::api::{needs, only_get};
use crate::sandbox::core::Core;
use crate::sandbox::form::Form;
use crate::sandbox::grants::Bearer;
use crate::sandbox::library::{KEPT_BYTES_MAX, Photo, Rendition};
use crate::sandbox::ranges::serve;
use crate::sandbox::respond::{Answer, Body, Hangup, api_error, json, method_not_allowed, set};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::fmt::Write;

const PAGE_SIZE_DEFAULT: usize = 50;
const PAGE_SIZE_MAX: usize = 100;

pub(super) async fn call(core: &Core, bearer: &Bearer, request: Request<Incoming>, rest: Option<&str>) -> Result<Answer, Hangup> {
    if rest.is_none() && request.method() == Method::POST {
        return match needs(bearer, "photos.write") {
            Some(refused) => Ok(refused),
            None => upload(core, bearer, request).await,
        };
    }
    if let Some(refused) = needs(bearer, "photos.read") {
        return Ok(refused);
    }
    let Some(rest) = rest else {
        return match only_get(request.method()) {
            Some(_) => Ok(method_not_allowed("GET, HEAD, POST")),
            None => Ok(list(core, bearer, request.uri().query().unwrap_or_default()).await),
        };
    };
    if let Some(refused) = only_get(request.method()) {
        return Ok(refused);
    }
    let (id, part) = rest.split_once('/').map_or((rest, None), |(id, part)| (id, Some(part)));
    let Some(photo) = core.library.photo(&bearer.user, id) else {
        return Ok(api_error(StatusCode::NOT_FOUND, "not_found", "this user has no such photo"));
    };
    Ok(match part {
        None => json(StatusCode::OK, &described(&photo).await),
        Some("content") => picture(&request, &photo, Rendition::Full).await,
        Some("thumbnail") => picture(&request, &photo, Rendition::Thumbnail).await,
        Some(_) => api_error(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path"),
    })
}

async fn described(photo: &Photo) -> Value {
    json!({
        "id": photo.id,
        "name": photo.name,
        "mime_type": "image/jpeg",
        "width": photo.size.0,
        "height": photo.size.1,
        "size": photo.bytes_len().await,
        "taken_at": photo.taken_at,
        "thumbnail": format!("/v1/photos/{}/thumbnail", photo.id),
        "content": format!("/v1/photos/{}/content", photo.id),
    })
}

async fn list(core: &Core, bearer: &Bearer, query: &str) -> Answer {
    let bad = |message| api_error(StatusCode::BAD_REQUEST, "invalid_argument", message);
    let Ok(form) = Form::parse(query.as_bytes()) else { return bad("a parameter is there twice") };
    let size = match form.get("page_size").map(str::parse::<usize>) {
        None => PAGE_SIZE_DEFAULT,
        Some(Ok(size)) if size > 0 => size.min(PAGE_SIZE_MAX),
        Some(_) => return bad("page_size is a number from 1"),
    };
    let start = match form.get("page_token").map(read_page_token) {
        None => 0,
        Some(Some(start)) => start,
        Some(None) => return bad("page_token is not one of this list"),
    };
    let words = form.get("q").unwrap_or_default().to_lowercase();
    let photos = core.library.photos(&bearer.user);
    let found: Vec<&Photo> = photos.iter().filter(|photo| photo.name.to_lowercase().contains(&words)).collect();
    let page = found.iter().skip(start).take(size);
    let items = join_all(page.map(|photo| described(photo))).await;
    let mut told = json!({ "items": items });
    if start + size < found.len() {
        told["next_page_token"] = json!(URL_SAFE_NO_PAD.encode(format!("from:{}", start + size)));
    }
    json(StatusCode::OK, &told)
}

fn read_page_token(token: &str) -> Option<usize> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    text.strip_prefix("from:")?.parse().ok().filter(|start| *start <= 1_000_000)
}

async fn picture(request: &Request<Incoming>, photo: &Photo, rendition: Rendition) -> Answer {
    let bytes = photo.bytes(rendition).await;
    let etag = match rendition {
        Rendition::Full => format!("\"{}\"", photo.id),
        Rendition::Thumbnail => format!("\"{}-thumbnail\"", photo.id),
    };
    let mut answer = serve(request.method(), request.headers(), bytes.len() as u64, Some(&etag), |from, to| {
        Body::Whole(Some(bytes.slice(from as usize..to as usize)))
    });
    if answer.status().is_success() {
        set(answer.headers_mut(), CONTENT_TYPE, "image/jpeg");
    }
    answer
}

/// Counts and hashes the body as it streams; keeps it only while it may be a small JPEG.
async fn upload(core: &Core, bearer: &Bearer, request: Request<Incoming>) -> Result<Answer, Hangup> {
    let query = Form::parse(request.uri().query().unwrap_or_default().as_bytes());
    let name = query.ok().and_then(|query| query.get("name").map(str::to_owned)).unwrap_or_else(|| "Upload.jpg".to_owned());
    let mut body = request.into_body();
    let mut kept = Some(BytesMut::new());
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut size: u64 = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Hangup)?.into_data() else { continue };
        size += data.len() as u64;
        hash.update(&data);
        kept = kept.filter(|kept| kept.len() + data.len() <= KEPT_BYTES_MAX).map(|mut kept| {
            kept.extend_from_slice(&data);
            kept
        });
    }
    let kept = kept.map(BytesMut::freeze).filter(|kept: &Bytes| kept.starts_with(&[0xFF, 0xD8]));
    let id = kept.and_then(|bytes| core.library.keep(&bearer.user, &name, core.now().to_rfc3339(), bytes));
    let told = json!({"id": id, "name": name, "size": size, "sha256": hex(hash.finish().as_ref()), "listed": id.is_some()});
    let mut answer = json(StatusCode::CREATED, &told);
    if let Some(id) = id {
        set(answer.headers_mut(), LOCATION, &format!("/v1/photos/{id}"));
    }
    Ok(answer)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
