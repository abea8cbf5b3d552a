//! The end user and account of a call, read from its headers. On the path of every call: no allocation, one pass over the headers.

use super::jwt::{JwtRules, TOKEN_BYTES_MAX};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use std::sync::Arc;

/// The longest name taken, in bytes (contract §5).
pub const NAME_BYTES_MAX: usize = 256;

/// Which headers name the end user and the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndUserRules {
    pub header: HeaderName,
    pub account_header: HeaderName,
    /// `end_user.default`: who calls when the header is absent.
    pub default: Option<Box<str>>,
    /// `end_user.placeholder`: whether the name may stand where an SDK wants its token, unless a listener or route says otherwise.
    pub placeholder: bool,
    /// `end_user.jwt`: the header and the placeholder hold a signed token instead of a name.
    pub jwt: Option<Arc<JwtRules>>,
    /// Whether a header's name holds an `-` or `_` that a twin could spell the other way; a name without one has no twins.
    has_twins: bool,
}

/// Who a call is for. Without an account header, `account` is `None`: the caller of this fills in `default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndUser<'h> {
    pub name: &'h str,
    pub account: Option<&'h str>,
}

/// The signed tokens of a call: one, or two that must name the same person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens<'h> {
    pub one: &'h str,
    pub other: Option<&'h str>,
}

/// Why a call's end user is not known. Never holds a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("no header names the end user")]
    Missing,
    #[error("the end user's name is refused: {0}")]
    Invalid(&'static str),
}

impl EndUserRules {
    pub fn new(header: HeaderName, account_header: HeaderName, default: Option<Box<str>>) -> Self {
        let has_twins = [&header, &account_header].iter().any(|name| name.as_str().contains(['-', '_']));
        EndUserRules { header, account_header, default, placeholder: false, jwt: None, has_twins }
    }

    /// Takes over what is known by the rules before: the whole of them where they are the same, so that tokens stay proved, and else the keys
    /// that were fetched, so that a reload needs no fetch.
    pub fn adopt(&mut self, before: &EndUserRules) {
        let (Some(rules), Some(before)) = (&mut self.jwt, &before.jwt) else { return };
        if rules == before {
            *rules = Arc::clone(before);
        } else if let Some(rules) = Arc::get_mut(rules) {
            rules.keys.adopt(&before.keys);
        }
    }

    /// The end user and account of a call.
    ///
    /// # Errors
    /// When the end user is absent and has no default, or a name is repeated, empty, joined by a comma, too long, not UTF-8 or holds
    /// control bytes, or an underscore twin of either header stands beside it (contract §5).
    pub fn read<'h>(&'h self, headers: &'h HeaderMap) -> Result<EndUser<'h>, IdentityError> {
        self.read_with(headers, None)
    }

    /// The same of a call that may name its end user in a placeholder too.
    ///
    /// # Errors
    /// As [`EndUserRules::read`], and when the two name different people.
    pub fn read_with<'h>(&'h self, headers: &'h HeaderMap, placeholder: Option<&'h str>) -> Result<EndUser<'h>, IdentityError> {
        if self.jwt.is_some() {
            // The backstop: where names are to be proved, none is taken at its word.
            return Err(IdentityError::Invalid("it must be proved by a signed token"));
        }
        self.refuse_twins(headers)?;
        let account = one(headers, &self.account_header)?;
        if let Some(name) = placeholder {
            check_name(name).map_err(IdentityError::Invalid)?;
        }
        let name = match (one(headers, &self.header)?, placeholder) {
            (Some(name), Some(other)) if name != other => {
                return Err(IdentityError::Invalid("the header and the placeholder name two people"));
            }
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => self.default.as_deref().ok_or(IdentityError::Missing)?,
        };
        Ok(EndUser { name, account })
    }

    /// The end user of that name, which a token proved, with the account that the call names.
    ///
    /// # Errors
    /// When the account's header cannot be one, or an underscore twin of either header is there.
    pub fn proved<'h>(&self, headers: &'h HeaderMap, name: &'h str) -> Result<EndUser<'h>, IdentityError> {
        self.refuse_twins(headers)?;
        Ok(EndUser { name, account: one(headers, &self.account_header)? })
    }

    /// The signed tokens in the header and the placeholder.
    ///
    /// # Errors
    /// When there is none, or what stands there can be none: repeated, empty, too long, or with what no token holds.
    pub fn tokens<'h>(&self, headers: &'h HeaderMap, placeholder: Option<&'h str>) -> Result<Tokens<'h>, IdentityError> {
        let header = only(headers, &self.header)?;
        let header =
            header.map(|value| value.to_str().map_err(|_| IdentityError::Invalid("its token holds what no token does"))).transpose()?;
        for token in [header, placeholder].into_iter().flatten() {
            if token.is_empty() {
                return Err(IdentityError::Invalid("it is empty"));
            }
            if token.len() > TOKEN_BYTES_MAX {
                return Err(IdentityError::Invalid("its token is longer than 8 KiB"));
            }
        }
        match (header, placeholder.filter(|placeholder| header != Some(placeholder))) {
            (Some(one), other) => Ok(Tokens { one, other }),
            (None, Some(one)) => Ok(Tokens { one, other: None }),
            (None, None) => Err(IdentityError::Missing),
        }
    }

    /// Refuses names that a CGI-like upstream or a sloppy proxy would take for ours (`X_End_User`). Also for calls that act as nobody.
    ///
    /// # Errors
    /// When there is one.
    pub fn refuse_twins(&self, headers: &HeaderMap) -> Result<(), IdentityError> {
        if self.has_twins && headers.keys().any(|name| self.is_twin(name.as_str())) {
            return Err(IdentityError::Invalid("a header spells its name with an underscore"));
        }
        Ok(())
    }

    fn is_twin(&self, name: &str) -> bool {
        [self.header.as_str(), self.account_header.as_str()].iter().any(|ours| {
            // Header names are lower case already; the length sorts out nearly all of them.
            name.len() == ours.len()
                && name != *ours
                && name
                    .bytes()
                    .zip(ours.bytes())
                    .all(|(found, ours)| found == ours || found == b'_' && ours == b'-' || found == b'-' && ours == b'_')
        })
    }
}

impl Default for EndUserRules {
    fn default() -> Self {
        EndUserRules::new(HeaderName::from_static("x-end-user"), HeaderName::from_static("x-end-user-account"), None)
    }
}

/// The only value of a header, checked.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, IdentityError> {
    only(headers, name)?.map(checked).transpose()
}

fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, IdentityError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(IdentityError::Invalid("the header is there more than once"));
    }
    Ok(value)
}

fn checked(value: &HeaderValue) -> Result<&str, IdentityError> {
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| IdentityError::Invalid("it is not UTF-8"))?;
    check_name(text).map_err(IdentityError::Invalid)?;
    Ok(text)
}

/// Whether a text can be an end user's or account's name at all; for names that come from elsewhere than a header, too.
///
/// # Errors
/// Why not, in constant words.
pub fn check_name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > NAME_BYTES_MAX {
        return Err("it is longer than 256 bytes");
    }
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b',') {
        return Ok(());
    }
    if text.contains(',') {
        return Err("it holds a comma, as joined headers do");
    }
    // C1 controls (U+0080 to U+009F) are control characters in UTF-8 too.
    if text.chars().any(char::is_control) { Err("it holds control bytes") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &[u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        map
    }

    fn check(lines: &[(&str, &[u8])], expected: Result<(&str, Option<&str>), IdentityError>) {
        let rules = EndUserRules::default();
        let map = headers(lines);
        assert_eq!(rules.read(&map).map(|user| (user.name, user.account)), expected, "{lines:?}");
    }

    #[test]
    fn takes_one_clean_name() {
        check(&[("X-End-User", b"megan@personalemail.com")], Ok(("megan@personalemail.com", None)));
        check(&[("x-end-user", "zoë".as_bytes()), ("X-End-User-Account", b"work")], Ok(("zoë", Some("work"))));
        check(&[("x-end-user", b"a"), ("x_other_header", b"b")], Ok(("a", None)));
        let most = "m".repeat(256);
        check(&[("x-end-user", most.as_bytes())], Ok((&most, None)));
    }

    #[test]
    fn refuses_what_two_readers_could_read_differently() {
        let long = "m".repeat(257);
        let refused: &[&[(&str, &[u8])]] = &[
            &[("x-end-user", b"a"), ("x-end-user", b"b")],
            &[("x-end-user", b"a"), ("x-end-user", b"a")],
            &[("x-end-user", b"")],
            &[("x-end-user", b"a, b")],
            &[("x-end-user", b"a,b")],
            &[("x-end-user", long.as_bytes())],
            &[("x-end-user", b"\xff\xfe")],
            &[("x-end-user", b"a\tb")],
            &[("x-end-user", "a\u{85}b".as_bytes())],
            &[("x-end-user", b"a"), ("x_end_user", b"b")],
            &[("x-end-user", b"a"), ("x-end_user", b"b")],
            &[("x_end-user", b"b")],
            &[("x-end-user", b"a"), ("x-end-user_account", b"b")],
            &[("x-end-user", b"a"), ("x-end-user-account", b"")],
            &[("x-end-user", b"a"), ("x-end-user-account", b"b"), ("x-end-user-account", b"c")],
        ];
        for lines in refused {
            let map = headers(lines);
            let rules = EndUserRules::default();
            assert!(matches!(rules.read(&map), Err(IdentityError::Invalid(_))), "{lines:?}: {:?}", rules.read(&map));
        }
        check(&[("accept", b"*/*")], Err(IdentityError::Missing));
        check(&[("x-end-user-account", b"work")], Err(IdentityError::Missing));
    }

    #[test]
    fn a_placeholder_names_as_the_header_does_and_nobody_else() {
        let rules = EndUserRules { default: Some("me".into()), ..EndUserRules::default() };
        let (none, megan) = (HeaderMap::new(), headers(&[("x-end-user", b"megan")]));
        assert_eq!(rules.read_with(&none, Some("megan")).map(|user| user.name), Ok("megan"));
        assert_eq!(rules.read_with(&megan, Some("megan")).map(|user| user.name), Ok("megan"));
        for (map, placeholder) in [(&megan, "alex"), (&none, ""), (&none, "a,b"), (&none, "a\tb")] {
            assert!(matches!(rules.read_with(map, Some(placeholder)), Err(IdentityError::Invalid(_))), "{placeholder}");
        }
    }

    #[test]
    fn a_default_stands_in_for_an_absent_header_alone() {
        let rules = EndUserRules { default: Some("me@example.com".into()), ..EndUserRules::default() };
        assert_eq!(rules.read(&HeaderMap::new()).map(|user| user.name), Ok("me@example.com"));
        let empty = headers(&[("x-end-user", b"")]);
        assert!(rules.read(&empty).is_err(), "an empty name is not an absent one");
    }
}
