//! What to do about a text that is no YAML: the parsers' words made friendly.

use crate::config::error::{At, ConfigError};
use saphyr_parser::ScanError;
use std::path::Path;
use std::sync::Arc;

/// The event parser's refusal.
pub(super) fn of_syntax(error: &ScanError, text: &str, file: &Arc<Path>) -> ConfigError {
    let at = At { file: file.clone(), line: error.marker().line(), column: error.marker().col() + 1 };
    explain(at, error.info(), text)
}

/// The value parser's refusal of a text that the event parser took.
pub(super) fn of_values(error: &serde_yaml::Error, text: &str, start: &At) -> ConfigError {
    let at = error.location().map_or_else(|| start.clone(), |at| At { line: at.line(), column: at.column(), ..start.clone() });
    // Its message ends in the place, which stands at the front already.
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    explain(at, said, text)
}

fn explain(at: At, said: &str, text: &str) -> ConfigError {
    if let Some((line, column, variable)) = unquoted_variable(text, at.line) {
        let hint = format!("inside `[ ]` and `{{ }}` YAML wants quotes, so quote it: \"{variable}\"");
        return ConfigError::at(&At { line, column, ..at }, "a variable stands unquoted in a list or mapping on one line", Some(hint));
    }
    for line in [at.line, at.line.saturating_sub(1)] {
        let indent = text.lines().nth(line.saturating_sub(1)).map(|text| &text[..text.len() - text.trim_start().len()]);
        if let Some(column) = indent.and_then(|indent| indent.find('\t')) {
            let hint = Some("indent with spaces".to_owned());
            return ConfigError::at(&At { line, column: column + 1, ..at }, "a tab stands in the indentation", hint);
        }
    }
    let hint = if said.contains("mapping values are not allowed") {
        Some(
            "a value that holds `: ` must stand in quotes; otherwise check the indentation, and that the line before ends its key with `:`",
        )
    } else if said.contains("quoted scalar") {
        Some("a quote that is opened must be closed")
    } else if said.contains("simple key") || said.contains("block mapping") || said.contains("block collection") || said.contains("indent")
    {
        Some("check the indentation, and that each key ends in `: `")
    } else if said.contains("flow") || said.contains("','") {
        Some("a `[` or `{` that is opened must be closed, with commas between what it holds")
    } else if said.contains("cannot start any token") || said.contains("character") {
        Some("a value that begins with `@`, `%` or a backtick must stand in quotes")
    } else {
        None
    };
    ConfigError::at(&at, format!("this is not YAML: {said}"), hint.map(Into::into))
}

/// The last `${…}` up to the end of line `last` that stands outside quotes and inside `[ ]` or `{ }`: line, column, text.
fn unquoted_variable(text: &str, last: usize) -> Option<(usize, usize, String)> {
    let mut found = None;
    let (mut depth, mut quote, mut before) = (0usize, None, '\n');
    for (index, line) in text.lines().enumerate().take(last) {
        let characters: Vec<char> = line.chars().collect();
        let mut column = 0;
        while let Some(&c) = characters.get(column) {
            let token_starts = matches!(before, '\n' | '[' | '{' | ',' | ':' | '-' | '?');
            match (quote, c) {
                (Some('"'), '\\') => column += 1,
                (Some(open), _) if open == c => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') if token_starts => quote = Some(c),
                (None, '#') if column == 0 || characters[column - 1].is_whitespace() => break,
                (None, '$') if characters.get(column + 1) == Some(&'{') => {
                    let end = characters[column..].iter().position(|c| *c == '}').map_or(characters.len(), |end| column + end + 1);
                    if depth > 0 {
                        found = Some((index + 1, column + 1, characters[column..end].iter().collect()));
                    }
                    column = end - 1;
                }
                (None, '[' | '{') if depth > 0 || token_starts => depth += 1,
                (None, ']' | '}') => depth = depth.saturating_sub(1),
                (None, _) => {}
            }
            if !c.is_whitespace() {
                before = c;
            }
            column += 1;
        }
        if quote.is_none() {
            before = '\n';
        }
    }
    found
}
