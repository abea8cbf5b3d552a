//! `connect.logo`: a URL, or an image file read into the config.

use super::fields::Problems;
use super::node::Node;
use super::scalar;
use super::snapshot::Logo;
use super::sources::Sources;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A page carries the whole file, at each request.
const BYTES_MAX: usize = 64 * 1024;

pub(super) fn read(node: &Node, sources: &Sources<'_>, problems: &Problems) -> Option<Logo> {
    let text = scalar::text(node, problems)?;
    if text.contains("://") {
        return scalar::secure_url(node, problems).map(Logo::Url);
    }
    let refuse = |message: String, hint: &str| {
        problems.say(&node.at, message, Some(hint.to_owned()));
        None
    };
    let bytes = match sources.read_bytes(&sources.path(text)) {
        Ok(bytes) => bytes,
        Err(error) => {
            let hint = "a logo is an https:// URL or the path of a file, relative to the config's folder";
            return refuse(format!("cannot read the logo {}: {error}", node.found()), hint);
        }
    };
    if bytes.len() > BYTES_MAX {
        let hint = "make it smaller: pages show it 56 pixels high";
        return refuse(format!("the logo {} is longer than {} KiB", node.found(), BYTES_MAX / 1024), hint);
    }
    let Some(mime) = kind(&bytes) else {
        return refuse(format!("the logo {} is no PNG, JPEG, WebP or SVG image", node.found()), "its first bytes decide, not its name");
    };
    Some(Logo::Inline { mime, base64: STANDARD.encode(&bytes).into() })
}

/// The media type, by the first bytes (WHATWG MIME Sniffing §6.1; for SVG, which has no fixed ones, by its first element).
fn kind(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => is_svg(std::str::from_utf8(bytes).ok()?).then_some("image/svg+xml"),
    }
}

/// Whether the first element is `svg`, after what may stand before one: a declaration, comments, a document type.
fn is_svg(text: &str) -> bool {
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    loop {
        let ends = match rest {
            _ if rest.starts_with("<?") => "?>",
            _ if rest.starts_with("<!--") => "-->",
            _ if rest.starts_with("<!DOCTYPE svg") => ">",
            _ => break,
        };
        match rest.split_once(ends) {
            Some((_, after)) => rest = after.trim_start(),
            None => return false,
        }
    }
    rest.strip_prefix("<svg").is_some_and(|after| after.starts_with(|c: char| c.is_ascii_whitespace() || matches!(c, '>' | '/')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::At;
    use crate::config::node::{Kind, Scalar, Value};
    use std::path::Path;

    #[test]
    fn images_are_known_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b"\x89PNG\r\n\x1a\n..."[..], Some("image/png")),
            (b"\xff\xd8\xff\xe0", Some("image/jpeg")),
            (b"RIFF\x01\x02\x03\x04WEBPVP8 ", Some("image/webp")),
            (b"<svg/>", Some("image/svg+xml")),
            (
                b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- <p> -->\n<!DOCTYPE svg PUBLIC \"a\" \"b\">\n<svg viewBox=\"0 0 1 1\"></svg>",
                Some("image/svg+xml"),
            ),
            (b"<svgx/>", None),
            (b"<!-- <svg/>", None),
            (b"<html><svg/></html>", None),
            (b"GIF89a", None),
            (b"RIFF\x01\x02\x03\x04WAVE", None),
            (b"\x00\xff", None),
            (b"", None),
        ] {
            assert_eq!(kind(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_file_is_taken_up_to_its_limit() {
        let folder = tempfile::tempdir().expect("folder");
        let node = |text: &str| {
            let scalar =
                Scalar { text: text.into(), written: text.into(), kind: Kind::Text, filled: false, template: None, inset: Some(0) };
            Node { at: At::start_of(&Path::new("routes.yaml").into()), value: Value::Scalar(scalar) }
        };
        let taken = |bytes: usize| {
            let mut svg = "<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_owned();
            svg.extend(std::iter::repeat_n(' ', bytes - svg.len()));
            std::fs::write(folder.path().join("logo.png"), svg).expect("written");
            let problems = Problems::default();
            let logo = read(&node("logo.png"), &Sources::new(&|_| None, folder.path()), &problems);
            (logo.is_some(), problems.take(&[]).0)
        };
        assert_eq!(taken(BYTES_MAX), (true, Vec::new()));
        let (is_taken, errors) = taken(BYTES_MAX + 1);
        assert!(!is_taken && errors[0].message.contains("longer than 64 KiB"), "{errors:?}");
        let problems = Problems::default();
        let url = read(&node("https://a.b/l.png"), &Sources::new(&|_| None, folder.path()), &problems);
        assert_eq!(url, Some(Logo::Url(url::Url::parse("https://a.b/l.png").expect("a URL"))));
    }
}
