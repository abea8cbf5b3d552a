//! The paths that are refused before any route is looked up (contract §3).
//!
//! Servers disagree about dot segments, their encodings and `\`; a proxy that matches one reading and forwards to a server of another has its
//! prefixes walked out of (CVE-2019-9901, CVE-2021-32779). What is refused here has such a reading; all else passes as it came.

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    #[error("a NUL byte stands in the path")]
    Nul,
    #[error("a backslash stands in the path")]
    Backslash,
    #[error("a `%` in the path is not followed by two hexadecimal digits")]
    BrokenPercent,
    #[error("a segment of the path is `.` or `..`")]
    DotSegment,
}

impl PathFault {
    /// Constant words for the client.
    pub fn reason(&self) -> &'static str {
        match self {
            PathFault::Nul => "the path holds a NUL byte",
            PathFault::Backslash => "the path holds a backslash",
            PathFault::BrokenPercent => "the path holds a `%` that is not followed by two hexadecimal digits",
            PathFault::DotSegment => "the path holds a segment that is `.` or `..`, plain or encoded",
        }
    }
}

/// Whether the raw `path` may be matched and forwarded.
///
/// # Errors
/// The first fault from the left.
pub fn check(path: &str) -> Result<(), PathFault> {
    let bytes = path.as_bytes();
    if is_ordinary(bytes) { Ok(()) } else { check_each_byte(bytes) }
}

/// True for nearly every path there is: nothing to decode, nothing to refuse, and no segment that begins with a dot.
fn is_ordinary(bytes: &[u8]) -> bool {
    // No early exit: without one the loop is a few vector instructions, and an ordinary path is read to its end anyway.
    let mut odd = bytes.first() == Some(&b'.');
    for byte in bytes {
        odd |= matches!(byte, b'%' | b'\\' | 0);
    }
    for pair in bytes.array_windows::<2>() {
        odd |= *pair == *b"/.";
    }
    !odd
}

/// The part of a segment before its first `;`, as far as it matters: how many dots, and whether anything else.
#[derive(Default)]
struct Stem {
    dots: usize,
    other: bool,
    closed: bool,
}

impl Stem {
    fn push(&mut self, byte: u8) {
        if !self.closed {
            match byte {
                b'.' => self.dots += 1,
                _ => self.other = true,
            }
        }
    }

    fn end(&mut self) -> Result<(), PathFault> {
        let stem = std::mem::take(self);
        if !stem.other && matches!(stem.dots, 1 | 2) { Err(PathFault::DotSegment) } else { Ok(()) }
    }
}

/// Decodes `%2E` and `%2F` on the way. One pass is stable: neither `.` nor `/` can complete another escape, since a broken one is refused.
/// `%25` stays, so `%252e` is the text `%2e` to the upstream and no dot.
fn check_each_byte(bytes: &[u8]) -> Result<(), PathFault> {
    let mut stem = Stem::default();
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            0 => return Err(PathFault::Nul),
            b'\\' => return Err(PathFault::Backslash),
            b'/' => stem.end()?,
            // Servlet containers cut a segment's parameters off before they look for dots (`..;x`).
            b';' => stem.closed = true,
            b'%' => {
                let Some(decoded) = escape(after) else { return Err(PathFault::BrokenPercent) };
                rest = &after[2..];
                match decoded {
                    0 => return Err(PathFault::Nul),
                    b'\\' => return Err(PathFault::Backslash),
                    b'/' => stem.end()?,
                    decoded => stem.push(decoded),
                }
            }
            byte => stem.push(byte),
        }
    }
    stem.end()
}

/// The byte that the two digits after a `%` stand for.
fn escape(after: &[u8]) -> Option<u8> {
    let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_servers_read_differently() {
        for (path, fault) in [
            ("/a\0b", PathFault::Nul),
            ("/a%00b", PathFault::Nul),
            ("/a\\b", PathFault::Backslash),
            ("/a%5Cb", PathFault::Backslash),
            ("/a%5cb", PathFault::Backslash),
            ("/a%", PathFault::BrokenPercent),
            ("/a%2", PathFault::BrokenPercent),
            ("/a%zz", PathFault::BrokenPercent),
            ("/a%+1", PathFault::BrokenPercent),
            ("/%%32e%%32e/", PathFault::BrokenPercent),
            ("/a%u002e", PathFault::BrokenPercent),
            ("/.", PathFault::DotSegment),
            ("/..", PathFault::DotSegment),
            ("/../x", PathFault::DotSegment),
            ("/a/./b", PathFault::DotSegment),
            ("/a/../b", PathFault::DotSegment),
            ("/a/..", PathFault::DotSegment),
            ("/%2e%2e/x", PathFault::DotSegment),
            ("/%2E%2E/x", PathFault::DotSegment),
            ("/.%2e/x", PathFault::DotSegment),
            ("/%2e./x", PathFault::DotSegment),
            ("/%2e", PathFault::DotSegment),
            ("/a%2f..%2fb", PathFault::DotSegment),
            ("/a%2F%2e%2e%2Fb", PathFault::DotSegment),
            ("/..%2f", PathFault::DotSegment),
            ("/..%2Fx", PathFault::DotSegment),
            ("/x%2f.", PathFault::DotSegment),
            ("/..;x", PathFault::DotSegment),
            ("/..;/x", PathFault::DotSegment),
            ("/.;a=b/x", PathFault::DotSegment),
            ("/%2e%2e;x/y", PathFault::DotSegment),
            ("/..;x%2fy", PathFault::DotSegment),
            ("/a;b%2f..", PathFault::DotSegment),
            ("..", PathFault::DotSegment),
            (".", PathFault::DotSegment),
        ] {
            assert_eq!(check(path), Err(fault), "{path:?}");
            assert!(!fault.reason().is_empty());
        }
    }

    #[test]
    fn passes_all_else() {
        for path in [
            "/",
            "//",
            "/a//b",
            "/a/",
            "/api../x",
            "/..api/x",
            "/...",
            "/.well-known/x",
            "/a/.git",
            "/;",
            "/a;v=1/b",
            "/;..",
            "/a;../b",
            "/%25",
            "/%252e%252e/x",
            "/%252f..x",
            "/a%2Fb",
            "/%2e%2e%2e/x",
            "/..%3bx",
            "/%e2%98%83",
            "/a.b/c..d",
            "/f%20g+h",
            "/files/mimeType='image/'",
            "*",
            "",
        ] {
            assert_eq!(check(path), Ok(()), "{path:?}");
        }
    }

    /// Decode, split, cut: the contract's words one after the other, with allocations.
    fn by_the_letter(path: &str) -> bool {
        let mut text = path.to_owned();
        loop {
            let next = text.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%2F", "/");
            if next == text {
                break;
            }
            text = next;
        }
        let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
        let broken = path.split('%').skip(1).any(|after| !(after.len() >= 2 && after.bytes().take(2).all(|b| b.is_ascii_hexdigit())));
        !(broken || path.contains(['\0', '\\']) || text.contains("%00") || text.to_lowercase().contains("%5c") || text.split('/').any(dots))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn says_what_the_contract_says(path in "(/|\\.|;|a|%2e|%2E|%2f|%2F|%25|%5c|%00|%3b|%|\\\\|2|e){0,10}") {
            prop_assert_eq!(check(&path).is_ok(), by_the_letter(&path), "{}", path);
        }
    }
}
