//! The signature base string (RFC 5849 §3.4.1): everything of a request that its signature covers, in one order and one escaping.

use percent_encoding::percent_decode;
use std::borrow::Cow;

/// What of a request is signed, as it is sent.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    pub method: &'a str,
    pub tls: bool,
    /// Nobody else reads the wire: TLS, or loopback.
    pub private: bool,
    /// What the `Host` header says, which is what the server goes by (RFC 5849 §3.4.1.2).
    pub host: &'a str,
    /// Its bytes as they are sent.
    pub path: &'a str,
    /// The same, without the `?`.
    pub query: &'a str,
    pub form: Form<'a>,
}

/// The body, where it is a form.
#[derive(Debug, Clone, Copy)]
pub enum Form<'a> {
    Whole(&'a [u8]),
    /// Another body or none: no part of the signature.
    None,
}

pub(super) fn of(request: &Signed<'_>, protocol: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(512);
    push_encoded(request.method.to_ascii_uppercase().as_bytes(), &mut out);
    out.push('&');
    push_uri(request, &mut out);
    out.push('&');
    push_parameters(request, protocol, &mut out);
    out
}

/// §3.4.1.2: scheme and host in lower case, the port where it is not the scheme's own, the path as it is.
fn push_uri(request: &Signed<'_>, out: &mut String) {
    let (scheme, own_port) = if request.tls { ("https", ":443") } else { ("http", ":80") };
    let host = request.host.to_ascii_lowercase();
    let host = host.strip_suffix(own_port).unwrap_or(&host);
    let path = if request.path.is_empty() { "/" } else { request.path };
    for part in [scheme, "://", host, path] {
        push_encoded(part.as_bytes(), out);
    }
}

/// §3.4.1.3.2. Escaped once each before they are sorted, and once more as a whole.
fn push_parameters(request: &Signed<'_>, protocol: &[(&str, &str)], out: &mut String) {
    let escaped = |bytes: &[u8]| {
        let mut text = String::with_capacity(bytes.len() + 8);
        push_encoded(bytes, &mut text);
        text
    };
    let mut all: Vec<(String, String)> =
        protocol.iter().map(|(name, value)| (escaped(name.as_bytes()), escaped(value.as_bytes()))).collect();
    let body = match request.form {
        Form::Whole(body) => body,
        Form::None => &[],
    };
    for pair in pairs(request.query.as_bytes()).chain(pairs(body)) {
        let at = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = at.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
        all.push((escaped(&decoded(name)), escaped(&decoded(value))));
    }
    all.sort_unstable();
    for (index, (name, value)) in all.iter().enumerate() {
        if index > 0 {
            out.push_str("%26");
        }
        push_encoded(name.as_bytes(), out);
        out.push_str("%3D");
        push_encoded(value.as_bytes(), out);
    }
}

fn pairs(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty())
}

/// A form's name or value (WHATWG URL §5.1): a plus is a space. Bytes, for what a client sends need not be UTF-8.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// §3.6: all but letters, digits, `-`, `.`, `_` and `~`, as `%` and two capital digits; a space is `%20`.
pub(super) fn push_encoded(bytes: &[u8], out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(*byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}
