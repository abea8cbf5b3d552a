//! A token as a query parameter, for providers that take it nowhere else.

use super::AttachError;
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but RFC 3986 §2.3's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Appends `name=token`. The client's own parameter of that name is already gone: the query rewrite drops it (contract §3).
pub(super) fn attach(name: &str, token: &str, head: &mut Parts) -> Result<(), AttachError> {
    let refused = AttachError::Bytes { place: "a query" };
    if token.is_empty() {
        return Err(refused);
    }
    let old = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let joint = if old.contains('?') { '&' } else { '?' };
    let new = format!("{old}{joint}{}={}", utf8_percent_encode(name, ESCAPED), utf8_percent_encode(token, ESCAPED));
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(new).map_err(|_| refused.clone())?);
    head.uri = Uri::from_parts(parts).map_err(|_| refused)?;
    Ok(())
}
