//! What the fuzz targets share: configs that are loaded once, and request heads as a client writes them.

use attache::config::{Snapshot, load_str};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The config of a target: each has one.
pub fn snapshot(routes: &str) -> &'static Arc<Snapshot> {
    static LOADED: OnceLock<Arc<Snapshot>> = OnceLock::new();
    LOADED.get_or_init(|| {
        let text = format!("store: {{memory: {{}}, encryption_key_file: ./none}}\n{routes}");
        let loaded = load_str(&text, Path::new("routes.yaml"), Path::new("/nonexistent"), &|_: &str| None);
        Arc::new(loaded.unwrap_or_else(|errors| panic!("the target's own config: {errors}")))
    })
}

/// A request head as hyper hands it on: `METHOD SP TARGET` and header lines, by LF. What hyper would refuse is `None`.
pub fn head_of(data: &[u8]) -> Option<Parts> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.splitn(2, |byte| *byte == b' ');
    let method = Method::from_bytes(first.next()?).ok()?;
    let target = Uri::try_from(first.next()?).ok()?;
    let (mut head, ()) = Request::new(()).into_parts();
    (head.method, head.uri) = (method, target);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        head.headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some(head)
}
