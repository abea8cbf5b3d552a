//! Range and conditional requests (RFC 9110 §13 and §14) over anything that can be cut by offsets.

use crate::sandbox::respond::{Answer, Body, bare, set, set_length};
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, ETAG, HeaderName, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, Method, StatusCode};

/// Which part of a representation a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// From the first offset up to, but not including, the second.
    Slice(u64, u64),
    Unsatisfiable,
}

/// Answers with `body(from, to)`, or with 304 or 416.
pub(super) fn serve(method: &Method, headers: &HeaderMap, length: u64, etag: Option<&str>, body: impl FnOnce(u64, u64) -> Body) -> Answer {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let mut answer = match etag {
        Some(etag) if text(&IF_NONE_MATCH).is_some_and(|known| matches_weakly(known, etag)) => bare(StatusCode::NOT_MODIFIED),
        _ => {
            // RFC 9110 §14.2: a range is for GET alone; §13.1.5: and only if `If-Range`, where it is there, still names this very thing.
            let ranged = *method == Method::GET && text(&IF_RANGE).is_none_or(|known| Some(known) == etag);
            match text(&RANGE).filter(|_| ranged).map_or(Part::Whole, |range| part(range, length)) {
                Part::Whole => sized(StatusCode::OK, 0, length, body),
                Part::Slice(from, to) => {
                    let mut answer = sized(StatusCode::PARTIAL_CONTENT, from, to, body);
                    set(answer.headers_mut(), CONTENT_RANGE, &format!("bytes {from}-{}/{length}", to - 1));
                    answer
                }
                Part::Unsatisfiable => {
                    let mut answer = bare(StatusCode::RANGE_NOT_SATISFIABLE);
                    set(answer.headers_mut(), CONTENT_RANGE, &format!("bytes */{length}"));
                    answer
                }
            }
        }
    };
    set(answer.headers_mut(), ACCEPT_RANGES, "bytes");
    if let Some(etag) = etag {
        set(answer.headers_mut(), ETAG, etag);
    }
    answer
}

fn sized(status: StatusCode, from: u64, to: u64, body: impl FnOnce(u64, u64) -> Body) -> Answer {
    let mut answer = bare(status).map(|_| body(from, to));
    set_length(answer.headers_mut(), to - from);
    answer
}

/// RFC 9110 §13.1.2: weak comparison, and `*` for anything.
fn matches_weakly(known: &str, etag: &str) -> bool {
    known.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

/// RFC 9110 §14.1.2. Anything but one well-formed range is ignored, which §14.2 allows.
fn part(range: &str, length: u64) -> Part {
    let Some((unit, spec)) = range.split_once('=') else { return Part::Whole };
    let Some((first, last)) = spec.trim().split_once('-').filter(|_| unit.eq_ignore_ascii_case("bytes") && !spec.contains(',')) else {
        return Part::Whole;
    };
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().unwrap_or(u64::MAX));
    let (from, to) = match (first.is_empty(), last.is_empty(), number(first), number(last)) {
        (false, true, Some(from), _) => (from, length),
        (false, false, Some(from), Some(last)) if from <= last => (from, last.saturating_add(1).min(length)),
        (true, false, _, Some(0)) => return Part::Unsatisfiable,
        (true, false, _, Some(suffix)) => (length.saturating_sub(suffix), length),
        _ => return Part::Whole,
    };
    if from < length { Part::Slice(from, to) } else { Part::Unsatisfiable }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(range: &str, expected: Part) {
        assert_eq!(part(range, 100), expected, "{range}");
    }

    #[test]
    fn reads_one_range_and_ignores_what_is_not_one() {
        check("bytes=0-0", Part::Slice(0, 1));
        check("bytes=10-19", Part::Slice(10, 20));
        check("Bytes=90-", Part::Slice(90, 100));
        check("bytes=90-500", Part::Slice(90, 100));
        check("bytes=-10", Part::Slice(90, 100));
        check("bytes=-500", Part::Slice(0, 100));
        check("bytes=0-99999999999999999999999", Part::Slice(0, 100));
        check("bytes=100-", Part::Unsatisfiable);
        check("bytes=99999999999999999999999-", Part::Unsatisfiable);
        check("bytes=-0", Part::Unsatisfiable);
        for ignored in ["bytes=9-1", "bytes=0-1,5-6", "lines=0-1", "bytes", "bytes=-", "bytes=a-b", "bytes=+1-2", ""] {
            check(ignored, Part::Whole);
        }
    }

    #[test]
    fn etags_match_weakly() {
        assert!(matches_weakly("\"a\"", "\"a\""));
        assert!(matches_weakly("\"b\", W/\"a\"", "\"a\""));
        assert!(matches_weakly("*", "\"a\""));
        assert!(!matches_weakly("\"b\"", "\"a\""));
    }
}
