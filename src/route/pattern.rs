//! One `match` of a route: `[METHOD[,METHOD]] [host]/path/{name}/{*rest}` (contract §3), and what its captures took.

use super::extras::Extras;
use super::path;
use super::template::nearest;
use http::Method;

/// How many captures one match may have: so many are held without the heap.
pub const CAPTURES_MAX: usize = 8;
/// How many segments one match may have, which is also how deep a look-up may recurse.
const SEGMENTS_MAX: usize = 64;
/// The longest name DNS can carry.
pub(super) const HOST_BYTES_MAX: usize = 253;

/// A method that is none of these may be named too; it must then not look like a slip in one of them.
const KNOWN_METHODS: [&str; 24] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "QUERY",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "MKCALENDAR",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "ACL",
    "PURGE",
    "LINK",
    "UNLINK",
    "MERGE",
];

/// A checked `match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// Empty: any method.
    pub methods: Vec<Method>,
    /// Lower case, without a port.
    pub host: Option<Box<str>>,
    pub(super) segments: Vec<Segment>,
    pub(super) names: Vec<Box<str>>,
}

/// What one segment of a path must be. Names stand in [`Pattern::names`], from the left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(Box<str>),
    /// Any one segment that is not empty.
    Capture,
    /// All that is left, maybe nothing; the last segment.
    Rest,
}

/// A `match` that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PatternError {
    /// The byte of the text at which the fault begins.
    pub offset: usize,
    pub message: String,
    pub hint: Option<String>,
}

impl PatternError {
    fn new(offset: usize, message: impl Into<String>) -> Self {
        PatternError { offset, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Pattern {
    /// # Errors
    /// The first fault from the left.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        const BLANK: [char; 2] = [' ', '\t'];
        let start = text.len() - text.trim_start_matches(BLANK).len();
        let body = text[start..].trim_end_matches(BLANK);
        let (methods, target_at, target) = match body.split_once(BLANK) {
            Some((first, _)) if first.contains('/') => (Vec::new(), start, body),
            Some((first, rest)) => {
                let target = rest.trim_start_matches(BLANK);
                (parse_methods(first, start)?, start + body.len() - target.len(), target)
            }
            None => (Vec::new(), start, body),
        };
        let Some(slash) = target.find('/') else {
            return Err(PatternError::new(target_at, "the path is missing: it begins with `/`").hint("for example `GET /photos/{id}`"));
        };
        let host = parse_host(&target[..slash], target_at)?;
        let (segments, names) = parse_path(&target[slash..], target_at + slash)?;
        Ok(Pattern { methods, host, segments, names })
    }

    /// The captures' names, from the left.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// Whether the last segment is `{*name}`: such a route stands for everything under its upstream.
    pub fn ends_in_rest(&self) -> bool {
        self.segments.last() == Some(&Segment::Rest)
    }
}

fn parse_methods(text: &str, at: usize) -> Result<Vec<Method>, PatternError> {
    let mut methods = Vec::new();
    let mut offset = at;
    for name in text.split(',') {
        let method = parse_method(name, offset)?;
        if methods.contains(&method) {
            return Err(PatternError::new(offset, format!("`{name}` is named twice")));
        }
        methods.push(method);
        offset += name.len() + 1;
    }
    Ok(methods)
}

fn parse_method(name: &str, at: usize) -> Result<Method, PatternError> {
    let upper = name.to_ascii_uppercase();
    if name.is_empty() {
        return Err(PatternError::new(at, "a method is missing beside the comma")
            .hint("methods are joined by a comma without a space: `GET,POST /x`"));
    }
    if name == "CONNECT" {
        return Err(PatternError::new(at, "`CONNECT` is never routed").hint("a client sends its requests in absolute form instead"));
    }
    if KNOWN_METHODS.contains(&name) {
        return Method::from_bytes(name.as_bytes()).map_err(|_| PatternError::new(at, format!("`{name}` is no method")));
    }
    let near = nearest(&upper, KNOWN_METHODS).filter(|known| *known == upper || strsim::damerau_levenshtein(known, &upper) == 1);
    let is_word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    match (near, Method::from_bytes(name.as_bytes())) {
        (None, Ok(method)) if is_word => Ok(method),
        (Some(near), _) => Err(PatternError::new(at, format!("`{name}` is no method")).hint(format!("did you mean `{near}`?"))),
        (None, _) => Err(PatternError::new(at, format!("`{name}` is no method")).hint("methods are upper case, as in `GET,POST /x`")),
    }
}

fn parse_host(host: &str, at: usize) -> Result<Option<Box<str>>, PatternError> {
    if host.is_empty() {
        return Ok(None);
    }
    let refused = |message: &str| PatternError::new(at, format!("`{host}` is no host to match: {message}"));
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    if host.contains(':') && !v6 {
        return Err(refused("it stands without scheme and port").hint("for example `GET drive.localhost/files`"));
    }
    if host.contains(['{', '}', '*']) {
        return Err(refused("it is literal, without captures or wildcards"));
    }
    if host.len() > HOST_BYTES_MAX {
        return Err(refused("it is over 253 bytes long"));
    }
    if !v6 && !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')) {
        return Err(refused("only letters, digits, `-`, `.` and `_` can stand in one"));
    }
    Ok(Some(host.to_ascii_lowercase().into()))
}

fn parse_path(path: &str, at: usize) -> Result<(Vec<Segment>, Vec<Box<str>>), PatternError> {
    let mut segments = Vec::new();
    let mut names: Vec<Box<str>> = Vec::new();
    let mut offset = at + 1;
    for text in path.split('/').skip(1) {
        if segments.len() == SEGMENTS_MAX {
            return Err(PatternError::new(offset, format!("the path has more than {SEGMENTS_MAX} segments")));
        }
        if segments.last() == Some(&Segment::Rest) {
            return Err(PatternError::new(offset - 1, "nothing can follow `{*name}`: it takes all that is left of the path"));
        }
        let (segment, name) = parse_segment(text, offset)?;
        if let Some(name) = name {
            if names.iter().any(|known| **known == *name) {
                return Err(PatternError::new(offset, format!("two captures are named `{name}`")));
            }
            if names.len() == CAPTURES_MAX {
                return Err(PatternError::new(offset, format!("the path has more than {CAPTURES_MAX} captures")));
            }
            names.push(name.into());
        }
        segments.push(segment);
        offset += text.len() + 1;
    }
    Ok((segments, names))
}

fn parse_segment(text: &str, at: usize) -> Result<(Segment, Option<&str>), PatternError> {
    if !text.contains(['{', '}']) {
        check_literal(text, at)?;
        return Ok((Segment::Literal(text.into()), None));
    }
    let Some(inner) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).filter(|inner| !inner.contains(['{', '}'])) else {
        return Err(PatternError::new(
            at,
            format!("`{text}` is neither a literal nor a capture: a segment is all literal or all `{{name}}`"),
        )
        .hint("let the capture take the whole segment; a brace that is meant as text is `%7B` or `%7D`"));
    };
    let (segment, name) = match inner.strip_prefix('*') {
        Some(name) => (Segment::Rest, name),
        None => (Segment::Capture, inner),
    };
    if !is_capture_name(name) {
        let error = PatternError::new(at, format!("`{text}` names no capture"));
        return Err(error.hint("a name is made of letters, digits, `_` and `-`, as in `{id}` or `{*rest}`"));
    }
    Ok((segment, Some(name)))
}

pub(super) fn is_capture_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Refuses a literal that no request can carry or that [`path::check`] refuses: such a route would never match.
fn check_literal(text: &str, at: usize) -> Result<(), PatternError> {
    for (index, char) in text.char_indices() {
        let message = match char {
            '?' | '#' => "a match is a path alone, without query and fragment".to_owned(),
            ' ' | '\t' => "a space cannot stand in a path".to_owned(),
            '<' | '>' => format!("`{char}` cannot stand in a path"),
            char if !char.is_ascii() => format!("a request carries `{char}` escaped"),
            char if char.is_ascii_control() => "a control byte cannot stand in a path".to_owned(),
            _ => continue,
        };
        let error = PatternError::new(at + index, message);
        let escaped =
            || percent_encoding::utf8_percent_encode(char.encode_utf8(&mut [0; 4]), percent_encoding::NON_ALPHANUMERIC).to_string();
        return Err(if matches!(char, '?' | '#') { error } else { error.hint(format!("write `{}`", escaped())) });
    }
    path::check(text).map_err(|fault| PatternError::new(at, format!("no request passes with this: {}", fault.reason())))
}

/// What the captures of one match took: the request path's bytes, as they came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Captures<'r> {
    names: &'r [Box<str>],
    values: [&'r str; CAPTURES_MAX],
    extras: Option<&'r Extras>,
}

impl<'r> Captures<'r> {
    pub(super) fn new(names: &'r [Box<str>], values: [&'r str; CAPTURES_MAX]) -> Self {
        Captures { names, values, extras: None }
    }

    /// The same captures beside what the call's connection brings.
    #[must_use]
    pub fn with<'w>(self, extras: &'w Extras) -> Captures<'w>
    where
        'r: 'w,
    {
        Captures { extras: Some(extras), ..self }
    }

    pub(super) fn extras(&self) -> Option<&'r Extras> {
        self.extras
    }

    pub fn get(&self, name: &str) -> Option<&'r str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Name and value, from the left of the path.
    pub fn iter(&self) -> impl Iterator<Item = (&'r str, &'r str)> {
        self.names.iter().map(AsRef::as_ref).zip(self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_methods_host_and_path() {
        for (text, methods, host, segments, captures) in [
            ("/", "", "", 1, ""),
            ("GET /photos/google", "GET", "", 2, ""),
            ("GET,HEAD,POST /a//{id}/", "GET,HEAD,POST", "", 4, "id"),
            ("PROPFIND Drive.LOCALHOST/{a}/{b_2}/{*r-3}", "PROPFIND", "drive.localhost", 3, "a,b_2,r-3"),
            ("drive.localhost/", "", "drive.localhost", 1, ""),
            ("  M-SEARCH \t [::1]/x  ", "M-SEARCH", "[::1]", 1, ""),
            ("/api../%7Bx%7D/a;b/:id/it's", "", "", 5, ""),
        ] {
            let pattern = Pattern::parse(text).expect(text);
            assert_eq!(pattern.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(","), methods, "{text}");
            assert_eq!(pattern.host.as_deref().unwrap_or(""), host, "{text}");
            assert_eq!(pattern.segments.len(), segments, "{text}");
            assert_eq!(pattern.captures().collect::<Vec<_>>().join(","), captures, "{text}");
            assert_eq!(pattern.ends_in_rest(), text.contains('*'), "{text}");
        }
    }

    #[test]
    fn tells_where_and_what_is_wrong() {
        for (text, offset, part) in [
            ("", 0, "path is missing"),
            ("GET", 0, "path is missing"),
            ("GET photos", 4, "path is missing"),
            ("get /x", 0, "did you mean `GET`"),
            ("GET,PSOT /x", 4, "did you mean `POST`"),
            ("GET, POST /x", 4, "without a space"),
            ("GET,GET /x", 4, "named twice"),
            ("fetch-it /x", 0, "upper case"),
            ("CONNECT /x", 0, "never routed"),
            ("GET https://drive.localhost/x", 4, "without scheme and port"),
            ("GET drive.localhost:7070/x", 4, "without scheme and port"),
            ("{host}.localhost/x", 0, "without captures"),
            ("*.localhost/x", 0, "wildcards"),
            ("a_b!/x", 0, "only letters"),
            ("/a/{id}.json", 3, "all literal or all `{name}`"),
            ("/a/v{id}", 3, "all literal or all `{name}`"),
            ("/a/{id}{ext}", 3, "all literal or all `{name}`"),
            ("/a/{id", 3, "all literal or all `{name}`"),
            ("/a/{}", 3, "names no capture"),
            ("/a/{*}", 3, "names no capture"),
            ("/a/{a.b}", 3, "names no capture"),
            ("/a/{id}/{id}", 8, "two captures are named `id`"),
            ("/{*rest}/x", 8, "nothing can follow"),
            ("/a b", 2, "write `%20`"),
            ("GET /a b", 6, "write `%20`"),
            ("/a?b=c", 2, "without query"),
            ("/café", 4, "write `%C3%A9`"),
            ("/a/../b", 3, "`.` or `..`"),
            ("/a/%2", 3, "hexadecimal"),
            ("/a\\b", 1, "backslash"),
            ("/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}", 33, "more than 8 captures"),
        ] {
            let error = Pattern::parse(text).expect_err(text);
            let told = format!("{error}; {}", error.hint.as_deref().unwrap_or(""));
            assert!(told.contains(part), "{text}: {told}");
            assert_eq!(error.offset, offset, "{text}: {told}");
        }
        assert!(Pattern::parse(&"/a".repeat(65)).is_err());
        assert!(Pattern::parse(&format!("{}/x", "a".repeat(254))).is_err());
    }
}
