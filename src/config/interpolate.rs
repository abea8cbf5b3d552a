//! Fills in `${NAME}`, `${NAME:-fallback}` and `${file:PATH}`: after parsing, inside scalar values only, never twice. `$${` is a literal `${`.

use super::error::{At, ConfigError, did_you_mean};
use super::node::{Node, Scalar, Value};
use super::sources::Sources;

/// A variable that could not be filled in.
pub(crate) struct Fault {
    pub(crate) error: ConfigError,
    /// What is missing, where that alone is wrong: an optional provider is then off instead.
    pub(crate) missing: Option<String>,
}

/// Fills in every scalar under `node`; one with a fault becomes [`Value::Broken`]. `names` are all names the file uses, for suggestions.
pub(crate) fn fill(node: &mut Node, sources: &Sources<'_>, names: &[String]) -> Vec<Fault> {
    let mut faults = Vec::new();
    walk(node, sources, names, &mut faults);
    faults
}

/// The names of all variables used under `node`.
pub(crate) fn names_used(node: &Node) -> Vec<String> {
    match &node.value {
        Value::Null | Value::Broken => Vec::new(),
        Value::List(nodes) => nodes.iter().flat_map(names_used).collect(),
        Value::Map(entries) => entries.iter().flat_map(|(_, node)| names_used(node)).collect(),
        Value::Scalar(scalar) => pieces(&scalar.text)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|piece| match piece {
                Piece::Variable { name, .. } => Some(name.to_owned()),
                Piece::Text(_) | Piece::File(_) => None,
            })
            .collect(),
    }
}

fn walk(node: &mut Node, sources: &Sources<'_>, names: &[String], faults: &mut Vec<Fault>) {
    match &mut node.value {
        Value::Null | Value::Broken => {}
        Value::List(nodes) => nodes.iter_mut().for_each(|node| walk(node, sources, names, faults)),
        Value::Map(entries) => {
            for (key, node) in entries {
                if key.text.contains("${") {
                    let error =
                        ConfigError::at(&key.at, "a variable cannot stand in a key", Some("variables are filled in in values only".into()));
                    faults.push(Fault { error, missing: None });
                }
                walk(node, sources, names, faults);
            }
        }
        Value::Scalar(scalar) => {
            if scalar.text.contains("${")
                && let Err(fault) = fill_scalar(scalar, &node.at, sources, names)
            {
                faults.push(*fault);
                node.value = Value::Broken;
            }
        }
    }
}

fn fill_scalar(scalar: &mut Scalar, at: &At, sources: &Sources<'_>, names: &[String]) -> Result<(), Box<Fault>> {
    let (mut text, mut template, mut filled) = (String::new(), String::new(), false);
    let malformed = |(message, hint): Malformed| Box::new(Fault { error: ConfigError::at(at, message, Some(hint.into())), missing: None });
    for piece in pieces(&scalar.text).map_err(malformed)? {
        let value = match piece {
            Piece::Text(literal) => {
                text.push_str(literal);
                template.push_str(literal);
                continue;
            }
            Piece::Variable { name, fallback } => match (sources.variable(name), fallback) {
                // As in a shell, `:-` stands in for an empty variable too.
                (Some(value), Some(fallback)) if value.is_empty() => fallback.to_owned(),
                (Some(value), _) => value,
                (None, Some(fallback)) => fallback.to_owned(),
                (None, None) => return Err(Box::new(undefined(name, at, sources, names))),
            },
            Piece::File(path) => match sources.read(&sources.path(path)) {
                Ok(value) => value.strip_suffix('\n').map(|cut| cut.strip_suffix('\r').unwrap_or(cut)).unwrap_or(&value).to_owned(),
                Err(error) => {
                    let message = format!("cannot read the file of `${{file:{path}}}`: {error}");
                    let hint = "a relative path begins at the folder of the config file".to_owned();
                    let missing = (error.kind() == std::io::ErrorKind::NotFound).then(|| format!("the file {path} is not there"));
                    return Err(Box::new(Fault { error: ConfigError::at(at, message, Some(hint)), missing }));
                }
            },
        };
        filled = true;
        sources.remember_filled(&value);
        template.push_str(&value.replace('{', "{{").replace('}', "}}"));
        text.push_str(&value);
    }
    scalar.template = filled.then_some(template);
    scalar.text = text;
    scalar.filled = filled;
    scalar.inset = None;
    Ok(())
}

fn undefined(name: &str, at: &At, sources: &Sources<'_>, names: &[String]) -> Fault {
    let defined = sources.variables_among(names.iter().map(String::as_str));
    let near = did_you_mean(name, defined.iter().map(String::as_str));
    let hint = near.unwrap_or_else(|| format!("set it, or give a fallback: ${{{name}:-…}}"));
    let missing = format!("{name} is not set");
    Fault { error: ConfigError::at(at, format!("the environment variable {name} is not set"), Some(hint)), missing: Some(missing) }
}

#[derive(Debug, PartialEq)]
enum Piece<'t> {
    Text(&'t str),
    Variable { name: &'t str, fallback: Option<&'t str> },
    File(&'t str),
}

type Malformed = (String, &'static str);

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, Malformed> {
    const LITERAL: &str = "write $${ for a literal ${";
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("${") {
        let before = &rest[..open];
        if let Some(before) = before.strip_suffix('$') {
            pieces.extend([Piece::Text(before), Piece::Text("${")]);
            rest = &rest[open + 2..];
            continue;
        }
        pieces.push(Piece::Text(before));
        let inside = &rest[open + 2..];
        let end = inside.find('}').ok_or_else(|| ("`${` is not closed by `}`".to_owned(), LITERAL))?;
        let what = &inside[..end];
        if what.contains("${") {
            return Err((format!("`${{{what}` stands inside another variable"), "variables do not nest"));
        }
        pieces.push(match (what.strip_prefix("file:"), what.split_once(":-")) {
            (Some(""), _) => return Err(("`${file:}` names no file".to_owned(), "write ${file:./path}")),
            (Some(path), _) => Piece::File(path),
            (None, Some((name, fallback))) if is_name(name) => Piece::Variable { name, fallback: Some(fallback) },
            (None, None) if is_name(what) => Piece::Variable { name: what, fallback: None },
            _ => {
                let message = format!(
                    "`${{{}}}` is no variable: expected ${{NAME}}, ${{NAME:-fallback}} or ${{file:PATH}}",
                    super::node::shown(what)
                );
                return Err((message, LITERAL));
            }
        });
        rest = &inside[end + 1..];
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn is_name(name: &str) -> bool {
    name.bytes().enumerate().all(|(index, byte)| byte == b'_' || byte.is_ascii_alphabetic() || index > 0 && byte.is_ascii_digit())
        && !name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;
    use std::path::Path;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".into()),
            "TWICE" => Some("${A}".into()),
            "BRACES" => Some("{x}".into()),
            "EMPTY" => Some(String::new()),
            "GOOGLE_CLIENT_ID" => Some("g".into()),
            _ => None,
        }
    }

    /// The scalar that `v: …` becomes: its text and its text as a template, or the first fault.
    fn fill_one(written: &str, folder: &Path) -> Result<(String, String), String> {
        let mut node =
            yaml::parse(&format!("v: {written}\nw: ${{GOOGLE_CLIENT_ID}}\n"), &Path::new("t.yaml").into()).map_err(|e| format!("{e:?}"))?;
        let names = names_used(&node);
        let faults = fill(&mut node, &Sources::new(&env, folder), &names);
        if let Some(fault) = faults.first() {
            return Err(fault.error.to_string());
        }
        match &node.value {
            Value::Map(entries) => match &entries[0].1.value {
                Value::Scalar(scalar) => Ok((scalar.text.clone(), scalar.as_template().to_owned())),
                _ => Err("no scalar".into()),
            },
            _ => Err("no mapping".into()),
        }
    }

    #[test]
    fn fills_in_once() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("secret"), "s3cret\n").expect("written");
        for (written, expected) in [
            ("${A}", "one"),
            ("x-${A}-${A}y", "x-one-oney"),
            ("${B:-two}", "two"),
            ("${B:-}", ""),
            ("${EMPTY:-full}", "full"),
            ("\"[${EMPTY}]\"", "[]"),
            ("${TWICE}", "${A}"),
            ("$${A}", "${A}"),
            ("$${A} ${A}", "${A} one"),
            ("${file:secret}", "s3cret"),
            ("${file:./secret}", "s3cret"),
            ("cost $5 {A}", "cost $5 {A}"),
        ] {
            assert_eq!(fill_one(written, folder.path()).map(|(text, _)| text), Ok(expected.to_owned()), "{written}");
        }
        assert_eq!(fill_one("/{id}/${BRACES}", folder.path()), Ok(("/{id}/{x}".into(), "/{id}/{{x}}".into())));
    }

    #[test]
    fn refusals_say_what_is_missing() {
        for (written, message, hint) in [
            ("${B}", "t.yaml:1:4: the environment variable B is not set", "${B:-…}"),
            ("${GOOGLE_CLIENTID}", "GOOGLE_CLIENTID is not set", "did you mean `GOOGLE_CLIENT_ID`?"),
            ("${A", "not closed", "$${"),
            ("${A:+x}", "is no variable", "$${"),
            ("${}", "is no variable", "$${"),
            ("${B:-${A}}", "inside another", "nest"),
            ("${file:nowhere}", "cannot read the file of `${file:nowhere}`", "folder of the config file"),
            ("{\"${A}\": 1}", "in a key", "values only"),
        ] {
            let error = fill_one(written, Path::new("/nonexistent")).expect_err(written);
            assert!(error.contains(message) && error.contains(hint), "{written}: {error}");
        }
    }
}
