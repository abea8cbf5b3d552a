//! `response` of a route: a JMESPath expression, compiled at load and run over an answer's JSON (jmespath.org).
//!
//! To the functions of the standard come four for names and links: `lower`, `replace` and `split` as JMESPath Community has them (JEP-014),
//! and `url_encode`, which makes any text one segment of a path.

use super::template::{nearest, query_text};
use jmespath::ast::Ast;
use jmespath::functions::{ArgumentType, CustomFunction, Signature};
use jmespath::{Context, ErrorReason, Expression, JmespathError, Rcvar, Runtime, Variable};
use std::fmt;
use std::sync::{Arc, LazyLock};

/// The most that `split` and `replace` may make of an answer that was no longer than `response.max`.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// The standard's functions, by name: an unknown one is told at load.
const STANDARD: [&str; 26] = [
    "abs",
    "avg",
    "ceil",
    "contains",
    "ends_with",
    "floor",
    "join",
    "keys",
    "length",
    "map",
    "max",
    "max_by",
    "merge",
    "min",
    "min_by",
    "not_null",
    "reverse",
    "sort",
    "sort_by",
    "starts_with",
    "sum",
    "to_array",
    "to_number",
    "to_string",
    "type",
    "values",
];
const OURS: [&str; 4] = ["lower", "replace", "split", "url_encode"];

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut runtime = Runtime::new();
    runtime.register_builtin_functions();
    let text = || ArgumentType::String;
    let mut add = |name: &str, inputs, function: fn(&[&str]) -> Result<Variable, String>| {
        let run = move |values: &[Rcvar], context: &mut Context<'_>| {
            let texts: Vec<&str> = values.iter().filter_map(|value| value.as_string()).map(String::as_str).collect();
            function(&texts).map(Arc::new).map_err(|why| JmespathError::from_ctx(context, ErrorReason::Parse(why)))
        };
        runtime.register_function(name, Box::new(CustomFunction::new(Signature::new(inputs, None), Box::new(run))));
    };
    add("lower", vec![text()], |texts| Ok(Variable::String(texts.first().unwrap_or(&"").to_lowercase())));
    add("replace", vec![text(), text(), text()], replace);
    add("split", vec![text(), text()], split);
    add("url_encode", vec![text()], |texts| Ok(Variable::String(query_text(texts.first().unwrap_or(&"")))));
    runtime
});

/// A compiled expression.
pub struct Selector {
    expression: Expression<'static>,
}

/// A text that is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectError {
    /// The byte at which the fault begins.
    pub offset: usize,
    pub message: String,
    pub hint: Option<String>,
}

/// Why an answer gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectFault {
    #[error("the answer is no JSON")]
    NotJson,
    /// The expression and the answer do not fit together. Words of the library's about types and functions, none of the answer's.
    #[error("the expression failed on it: {0}")]
    Failed(String),
    /// `null`: most often an error that was told with a 200.
    #[error("the expression found nothing in it")]
    Nothing,
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Selector").field(&self.expression.as_str()).finish()
    }
}

impl Selector {
    /// Compiles an expression.
    ///
    /// # Errors
    /// The first fault: of the grammar, or a function that is not known.
    pub fn parse(text: &str) -> Result<Selector, SelectError> {
        let expression = RUNTIME.compile(text).map_err(|error| SelectError {
            offset: error.offset.min(text.len()),
            message: format!("this is no JMESPath expression: {}", first_line(&error.reason)),
            hint: Some("its grammar is at jmespath.org; `files[].{id: id, name: name}` makes a list of objects".to_owned()),
        })?;
        known_functions(expression.as_ast())?;
        Ok(Selector { expression })
    }

    /// The selected value of a JSON text.
    ///
    /// # Errors
    /// When there is none.
    pub fn select(&self, json: &[u8]) -> Result<Rcvar, SelectFault> {
        let value: serde_json::Value = serde_json::from_slice(json).map_err(|_| SelectFault::NotJson)?;
        let value = Variable::try_from(value).map_err(|_| SelectFault::NotJson)?;
        let found = self.expression.search(value).map_err(|error| SelectFault::Failed(kind(&error.reason)))?;
        if found.is_null() { Err(SelectFault::Nothing) } else { Ok(found) }
    }

    /// The selected value as JSON.
    ///
    /// # Errors
    /// When there is none.
    pub fn select_json(&self, json: &[u8]) -> Result<Vec<u8>, SelectFault> {
        serde_json::to_vec(&*self.select(json)?).map_err(|_| SelectFault::Failed("it has no form in JSON".to_owned()))
    }

    /// The selected value where it is a text.
    ///
    /// # Errors
    /// When there is none or it is something else.
    pub fn select_text(&self, json: &[u8]) -> Result<String, SelectFault> {
        self.select(json)?.as_string().cloned().ok_or_else(|| SelectFault::Failed("what it found is no text".to_owned()))
    }
}

/// What failed, without the texts of the answer that the library may quote.
fn kind(reason: &ErrorReason) -> String {
    use jmespath::RuntimeError;
    match reason {
        ErrorReason::Parse(why) => why.clone(),
        ErrorReason::Runtime(RuntimeError::InvalidType { expected, actual, position }) => {
            format!("argument {position} of a function is {actual}, expected {expected}")
        }
        ErrorReason::Runtime(_) => "a function was called with what it does not take".to_owned(),
    }
}

fn first_line(reason: &ErrorReason) -> String {
    let text = match reason {
        ErrorReason::Parse(text) => text.clone(),
        ErrorReason::Runtime(error) => error.to_string(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}

/// The library finds an unknown function only when it is called.
fn known_functions(ast: &Ast) -> Result<(), SelectError> {
    match ast {
        Ast::Function { offset, name, args } => {
            if RUNTIME.get_function(name).is_none() {
                let near = nearest(name, STANDARD.into_iter().chain(OURS));
                let hint = near.map(|near| format!("did you mean `{near}`?"));
                // The library's offset is that of the bracket after the name.
                let offset = offset.saturating_sub(name.len());
                return Err(SelectError { offset, message: format!("no function is called `{name}`"), hint });
            }
            args.iter().try_for_each(known_functions)
        }
        Ast::MultiList { elements, .. } => elements.iter().try_for_each(known_functions),
        Ast::MultiHash { elements, .. } => elements.iter().try_for_each(|pair| known_functions(&pair.value)),
        Ast::Comparison { lhs, rhs, .. }
        | Ast::Projection { lhs, rhs, .. }
        | Ast::And { lhs, rhs, .. }
        | Ast::Or { lhs, rhs, .. }
        | Ast::Subexpr { lhs, rhs, .. } => known_functions(lhs).and_then(|()| known_functions(rhs)),
        Ast::Condition { predicate, then, .. } => known_functions(predicate).and_then(|()| known_functions(then)),
        Ast::Expref { ast: node, .. } | Ast::Flatten { node, .. } | Ast::Not { node, .. } | Ast::ObjectValues { node, .. } => {
            known_functions(node)
        }
        Ast::Identity { .. } | Ast::Field { .. } | Ast::Index { .. } | Ast::Literal { .. } | Ast::Slice { .. } => Ok(()),
    }
}

/// `replace(text, old, new)`.
fn replace(texts: &[&str]) -> Result<Variable, String> {
    let [text, old, new] = texts else { return Err("`replace` takes three texts".to_owned()) };
    let count = if old.is_empty() { 0 } else { text.matches(old).count() };
    // Bounded before it is made: a short answer must not grow without end.
    if text.len().saturating_add(count.saturating_mul(new.len())) > TEXT_BYTES_MAX {
        return Err("`replace` would make too long a text".to_owned());
    }
    Ok(Variable::String(if count == 0 { (*text).to_owned() } else { text.replace(old, new) }))
}

/// `split(text, separator)`.
fn split(texts: &[&str]) -> Result<Variable, String> {
    let [text, separator] = texts else { return Err("`split` takes two texts".to_owned()) };
    if separator.is_empty() {
        return Err("`split` needs a separator".to_owned());
    }
    Ok(Variable::Array(text.split(separator).map(|part| Arc::new(Variable::String(part.to_owned()))).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn run(expression: &str, value: &Value) -> Result<Value, SelectFault> {
        let selector = Selector::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        selector.select_json(value.to_string().as_bytes()).map(|json| serde_json::from_slice(&json).expect("JSON"))
    }

    #[test]
    fn makes_one_shape_of_many() {
        let drive = json!({"files": [{"id": "a", "name": "A", "extra": 1}, {"id": "b/c", "name": "\"B\""}]});
        let expression = "files[].{id: id, name: name, thumbnail: join('', ['/photos/x/', url_encode(id), '/thumbnail'])}";
        let expected = json!([
            {"id": "a", "name": "A", "thumbnail": "/photos/x/a/thumbnail"},
            {"id": "b/c", "name": "\"B\"", "thumbnail": "/photos/x/b%2Fc/thumbnail"},
        ]);
        assert_eq!(run(expression, &drive), Ok(expected));
        assert_eq!(run("(files || `[]`)[].id", &json!({})), Ok(json!([])));
        assert_eq!(run("split(u, '/')[-1]", &json!({"u": "https://a/b/c"})), Ok(json!("c")));
        assert_eq!(run("replace(u, '${f}', 'x.jpg')", &json!({"u": "https://a/${f}?o"})), Ok(json!("https://a/x.jpg?o")));
    }

    #[test]
    fn finding_nothing_is_told() {
        assert_eq!(run("files[].id", &json!({"error": "SECRET"})), Err(SelectFault::Nothing));
        assert_eq!(Selector::parse("a").expect("valid").select_json(b"<html>"), Err(SelectFault::NotJson));
        for expression in ["join('', [a])", "split(a, '')", "replace(b, 'x', 'y')", "length(c)"] {
            let Err(SelectFault::Failed(why)) = run(expression, &json!({"a": 5, "b": [1], "c": 9, "s": "SECRET"})) else {
                panic!("{expression} went through");
            };
            assert!(!why.contains("SECRET"), "{why}");
        }
        let selector = Selector::parse("a").expect("valid");
        assert!(matches!(selector.select_text(b"{\"a\": 1}"), Err(SelectFault::Failed(_))));
    }

    #[test]
    fn a_text_cannot_grow_without_end() {
        let long = "x".repeat(1 << 11);
        assert!(matches!(run("replace(a, 'x', a)", &json!({"a": long})), Err(SelectFault::Failed(_))));
    }

    #[test]
    fn faults_are_told_where_they_stand() {
        for (text, offset, part) in [
            ("files[", 6, "no JMESPath"),
            ("files[].{id: }", 13, "no JMESPath"),
            ("joins('', a)", 0, "no function is called `joins`"),
            ("a[?contain(b, 'c')]", 3, "no function is called `contain`"),
            ("", 0, "no JMESPath"),
        ] {
            let error = Selector::parse(text).map(|_| ()).expect_err(text);
            assert!(error.message.contains(part), "{text}: {error}");
            assert_eq!(error.offset, offset, "{text}: {error}");
        }
    }
}
