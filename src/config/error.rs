//! What is wrong with a config, each fault at its line and column, all told at once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place in a file that the operator wrote. Lines and columns count from 1, columns in characters.
#[derive(Clone, PartialEq, Eq)]
pub struct At {
    pub file: Arc<Path>,
    pub line: usize,
    pub column: usize,
}

impl At {
    pub(crate) fn start_of(file: &Arc<Path>) -> At {
        At { file: file.clone(), line: 1, column: 1 }
    }

    /// The place so many characters to the right.
    pub(crate) fn right(&self, characters: usize) -> At {
        At { column: self.column + characters, ..self.clone() }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One fault. Messages show text as it was written, never what a variable or a secret file held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
    pub message: String,
    pub hint: Option<String>,
}

impl ConfigError {
    pub(crate) fn at(at: &At, message: impl Into<String>, hint: Option<String>) -> Self {
        ConfigError { file: at.file.to_path_buf(), line: at.line, column: at.column, message: message.into(), hint }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in the order of the files' lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// The name among `known` that `written` was most likely meant to be.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = written.to_ascii_lowercase().replace('-', "_");
    let scored = known.into_iter().map(|name| {
        let other = name.to_ascii_lowercase().replace('-', "_");
        (strsim::damerau_levenshtein(&folded, &other), strsim::jaro_winkler(&folded, &other), name)
    });
    // A third of the letters may be wrong; a name begun alike and cut short counts as near too.
    let longest = |name: &str| name.len().max(written.len());
    scored
        .filter(|(distance, alike, name)| *distance <= (longest(name) / 3).max(1) || *alike > 0.92)
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(_, _, name)| name)
}

/// "did you mean `x`?" for the nearest name.
pub(crate) fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, known).map(|name| format!("did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_name_that_was_meant() {
        let keys = ["match", "provider", "upstream", "upstream_host", "query", "set_query", "as"];
        for (written, expected) in [
            ("upstraem", Some("upstream")),
            ("Upstream-Host", Some("upstream_host")),
            ("porvider", Some("provider")),
            ("setquery", Some("set_query")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, keys), expected, "{written}");
        }
    }

    #[test]
    fn shows_place_message_and_hint() {
        let at = At { file: Path::new("routes.yaml").into(), line: 12, column: 5 };
        let with = ConfigError::at(&at, "unknown key", Some("did you mean `a`?".into()));
        let without = ConfigError::at(&at.right(2), "no", None);
        let shown = ConfigErrors(vec![with, without]).to_string();
        assert_eq!(shown, "routes.yaml:12:5: unknown key\n  hint: did you mean `a`?\nroutes.yaml:12:7: no");
    }
}
