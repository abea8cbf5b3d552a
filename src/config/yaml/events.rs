//! The event parser's side: a tree with the place of every key and value.

use super::hints;
use crate::config::error::{At, ConfigError};
use crate::config::node::{Key, Kind, Node, Scalar, Value};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// How deep lists and mappings may stand in each other.
const DEPTH_MAX: usize = 64;

/// How many values a file may hold, each use of an alias counted with all that it stands for.
const VALUES_MAX: usize = 100_000;

/// Builds the tree of the first and only document.
pub(super) fn read(text: &str, file: &Arc<Path>) -> Result<Node, Vec<ConfigError>> {
    let mut builder = Builder {
        file,
        lines: text.split('\n').collect(),
        open: Vec::new(),
        anchors: HashMap::new(),
        values: 0,
        documents: 0,
        root: None,
        duplicates: Vec::new(),
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| vec![hints::of_syntax(&error, text, file)])?;
        builder.event(event, span).map_err(|error| vec![*error])?;
    }
    if builder.duplicates.is_empty() {
        Ok(builder.root.unwrap_or(Node { at: At::start_of(file), value: Value::Null }))
    } else {
        Err(builder.duplicates)
    }
}

type Refusal = Box<ConfigError>;

struct Builder<'t> {
    file: &'t Arc<Path>,
    lines: Vec<&'t str>,
    open: Vec<Open>,
    /// What each finished anchor stands for, and how many values that is.
    anchors: HashMap<usize, (Node, usize)>,
    values: usize,
    documents: usize,
    root: Option<Node>,
    duplicates: Vec<ConfigError>,
}

/// A list or mapping that is not closed yet.
struct Open {
    at: At,
    anchor: usize,
    /// `Builder::values` when it was opened.
    values_before: usize,
    parts: Parts,
}

enum Parts {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key> },
}

impl<'t> Builder<'t> {
    fn at(&self, mark: Marker) -> At {
        At { file: self.file.clone(), line: mark.line(), column: mark.col() + 1 }
    }

    fn refuse<T>(&self, mark: Marker, message: impl Into<String>, hint: Option<&str>) -> Result<T, Refusal> {
        Err(Box::new(ConfigError::at(&self.at(mark), message, hint.map(Into::into))))
    }

    fn event(&mut self, event: Event<'t>, span: Span) -> Result<(), Refusal> {
        let start = span.start;
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 { self.refuse(start, "a config is one document: `---` begins a second one", None) } else { Ok(()) }
            }
            Event::Alias(id) => {
                let Some((node, values)) = self.anchors.get(&id) else {
                    return self.refuse(start, "this alias stands inside itself", None);
                };
                let (node, values) = (node.clone(), *values);
                self.count(values, start)?;
                self.place(node, start)
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.no_tag(tag.is_some(), start)?;
                self.count(1, start)?;
                let node = Node { at: self.at(start), value: Value::Scalar(self.scalar(&text, style, span)) };
                if anchor > 0 {
                    self.anchors.insert(anchor, (node.clone(), 1));
                }
                self.place(node, start)
            }
            Event::SequenceStart(anchor, tag) => {
                self.no_tag(tag.is_some(), start)?;
                self.open(start, anchor, Parts::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.no_tag(tag.is_some(), start)?;
                self.open(start, anchor, Parts::Map { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(start),
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, span: Span) -> Scalar {
        // Until `serde_yaml` says what a plain scalar means, `Number` marks that it may be more than text.
        let kind = if style == ScalarStyle::Plain { Kind::Number } else { Kind::Text };
        let inset = match style {
            ScalarStyle::Plain => Some(0),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Some(1),
            ScalarStyle::Literal | ScalarStyle::Folded => None,
        };
        // Only where the file has the very text; a line far too long to be written by hand is not searched.
        let inset = inset.filter(|inset| {
            let column = span.start.col() + inset;
            let line = self.lines.get(span.start.line().saturating_sub(1)).copied().unwrap_or_default();
            column < 4096 && line.char_indices().nth(column).is_some_and(|(byte, _)| line[byte..].starts_with(text))
        });
        Scalar { text: text.to_owned(), written: text.to_owned(), kind, filled: false, template: None, inset }
    }

    fn no_tag(&self, tagged: bool, mark: Marker) -> Result<(), Refusal> {
        if tagged { self.refuse(mark, "a YAML tag has no meaning here", Some("leave out the word that begins with `!`")) } else { Ok(()) }
    }

    fn count(&mut self, values: usize, mark: Marker) -> Result<(), Refusal> {
        self.values = self.values.saturating_add(values);
        if self.values > VALUES_MAX {
            return self.refuse(mark, format!("the file holds over {VALUES_MAX} values, its aliases written out"), None);
        }
        Ok(())
    }

    fn open(&mut self, mark: Marker, anchor: usize, parts: Parts) -> Result<(), Refusal> {
        if self.open.len() >= DEPTH_MAX {
            return self.refuse(mark, format!("lists and mappings stand over {DEPTH_MAX} deep in each other"), None);
        }
        let values_before = self.values;
        self.count(1, mark)?;
        self.open.push(Open { at: self.at(mark), anchor, values_before, parts });
        Ok(())
    }

    fn close(&mut self, mark: Marker) -> Result<(), Refusal> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.parts {
            Parts::List(nodes) => Value::List(nodes),
            Parts::Map { entries, .. } => Value::Map(entries),
        };
        let node = Node { at: open.at, value };
        if open.anchor > 0 {
            self.anchors.insert(open.anchor, (node.clone(), self.values - open.values_before));
        }
        self.place(node, mark)
    }

    /// Puts a finished value where it belongs: the list or mapping that is open, or the root.
    fn place(&mut self, node: Node, mark: Marker) -> Result<(), Refusal> {
        match self.open.last_mut().map(|open| &mut open.parts) {
            None => self.root = Some(node),
            Some(Parts::List(nodes)) => nodes.push(node),
            Some(Parts::Map { entries, key }) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let Value::Scalar(Scalar { text, .. }) = node.value else {
                        return Err(Box::new(ConfigError::at(&node.at, "a key must be a plain word", None)));
                    };
                    if text == "<<" {
                        return self.refuse(
                            mark,
                            "YAML merge keys (`<<`) are not taken",
                            Some("write the keys out, or use an alias for a whole value"),
                        );
                    }
                    if let Some((first, _)) = entries.iter().find(|(first, _)| first.text == text) {
                        let message =
                            format!("the key `{text}` is here twice: first at line {}, column {}", first.at.line, first.at.column);
                        self.duplicates.push(ConfigError::at(&node.at, message, None));
                    }
                    *key = Some(Key { at: node.at, text });
                }
            },
        }
        Ok(())
    }
}
