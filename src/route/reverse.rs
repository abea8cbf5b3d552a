//! From a path of the upstream's back to the path of the route: a match and its rewriting, read backwards.
//!
//! Only where the way back is one: then what is matched there goes to the very path that it came from.

use super::pattern::{Pattern, Segment};
use super::rewrite::Rewrite;
use super::template::Piece;

/// A route's path template and its upstream's, both by segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reverse {
    upstream: Box<[Part]>,
    route: Box<[Part]>,
}

/// One segment. The number is the capture's, from the left of the match.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Capture(usize),
    Rest(usize),
}

impl Reverse {
    /// # Errors
    /// Why the upstream's path does not say where it came from.
    pub fn new(pattern: &Pattern, rewrite: &Rewrite) -> Result<Reverse, String> {
        let mut upstream = Vec::new();
        for segment in segments(rewrite.path_pieces()) {
            if let Some(Part::Rest(_)) = upstream.last() {
                return Err("something follows what is left of the path".to_owned());
            }
            upstream.push(match &segment[..] {
                [] => Part::Literal("".into()),
                [Piece::Text(text)] => Part::Literal(text.clone()),
                [Piece::Capture(name)] => capture(pattern, name)?,
                [Piece::Value(name)] => return Err(format!("`{{{name}}}` is a value of each connection's")),
                _ => return Err("a capture stands beside other text within one segment".to_owned()),
            });
        }
        for (number, name) in pattern.captures().enumerate() {
            let found = upstream.iter().filter(|part| matches!(part, Part::Capture(known) | Part::Rest(known) if *known == number));
            match found.count() {
                1 => {}
                0 => return Err(format!("`{{{name}}}` of the match does not stand in it")),
                _ => return Err(format!("`{{{name}}}` stands in it twice")),
            }
        }
        let mut number = 0..;
        let route = pattern.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => Part::Literal(text.clone()),
            Segment::Capture => Part::Capture(number.next().unwrap_or_default()),
            Segment::Rest => Part::Rest(number.next().unwrap_or_default()),
        });
        Ok(Reverse { route: route.collect(), upstream: upstream.into() })
    }

    /// The route's path for this one of the upstream's, if it lies within the route. Bytes are kept.
    pub fn path(&self, upstream: &str) -> Option<String> {
        let mut left = Some(upstream.strip_prefix('/')?);
        let mut values: Vec<(usize, &str)> = Vec::new();
        for part in &self.upstream {
            let here = left?;
            let (segment, after) = here.split_once('/').map_or((here, None), |(segment, after)| (segment, Some(after)));
            match part {
                Part::Literal(text) if **text == *segment => {}
                Part::Capture(number) if !segment.is_empty() => values.push((*number, segment)),
                Part::Rest(number) => {
                    values.push((*number, here));
                    left = None;
                    break;
                }
                Part::Literal(_) | Part::Capture(_) => return None,
            }
            left = after;
        }
        if left.is_some() {
            return None;
        }
        let value = |number: usize| values.iter().find(|(known, _)| *known == number).map(|(_, value)| *value);
        let mut path = String::with_capacity(upstream.len() + 32);
        for part in &self.route {
            path.push('/');
            path.push_str(match part {
                Part::Literal(text) => text,
                Part::Capture(number) | Part::Rest(number) => value(*number)?,
            });
        }
        Some(path)
    }
}

fn capture(pattern: &Pattern, name: &str) -> Result<Part, String> {
    let number = pattern.captures().position(|known| known == name).ok_or_else(|| format!("`{{{name}}}` is no capture of the match"))?;
    let is_rest = pattern.ends_in_rest() && number + 1 == pattern.captures().count();
    Ok(if is_rest { Part::Rest(number) } else { Part::Capture(number) })
}

/// The pieces of each segment of a path that begins with `/`.
fn segments(pieces: &[Piece]) -> Vec<Vec<Piece>> {
    let mut all: Vec<Vec<Piece>> = vec![Vec::new()];
    for piece in pieces {
        let Piece::Text(text) = piece else {
            all.last_mut().into_iter().for_each(|last| last.push(piece.clone()));
            continue;
        };
        for (index, part) in text.split('/').enumerate() {
            if index > 0 {
                all.push(Vec::new());
            }
            if !part.is_empty() {
                all.last_mut().into_iter().for_each(|last| last.push(Piece::Text(part.into())));
            }
        }
    }
    // What stands before the first slash is nothing.
    all.remove(0);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reverse(matches: &str, upstream: &str) -> Result<Reverse, String> {
        let pattern = Pattern::parse(matches).expect(matches);
        let rewrite = Rewrite::parse(upstream, &[], &[], &pattern.captures().collect::<Vec<_>>()).expect(upstream);
        Reverse::new(&pattern, &rewrite)
    }

    #[test]
    fn finds_the_way_back_where_there_is_one() {
        for (matches, upstream, from, to) in [
            ("/google/{*rest}", "/{rest}", "/drive/x%2Fy;z", Some("/google/drive/x%2Fy;z")),
            ("/google/{*rest}", "/{rest}", "/", Some("/google/")),
            ("/google/{*rest}", "/{rest}", "//x", Some("/google//x")),
            ("/{*rest}", "/v1/{rest}", "/v1/a", Some("/a")),
            ("/{*rest}", "/v1/{rest}", "/v1", None),
            ("/{*rest}", "/v1/{rest}", "/v10/a", None),
            ("/a/{id}/b/{*rest}", "/x/{rest}", "/x/y", None),
            ("/a/{id}/b/{*rest}", "/v/{id}/w/{rest}", "/v/7/w/x/y", Some("/a/7/b/x/y")),
            ("/a/{id}/b/{*rest}", "/v/{id}/w/{rest}", "/v//w/x", None),
            ("/a/{x}/{y}", "/v/{y}/{x}/", "/v/1/2/", Some("/a/2/1")),
            ("/a/{x}/{y}", "/v/{y}/{x}/", "/v/1/2", None),
            ("GET /photos", "/drive/v3/files?x=y", "/drive/v3/files", Some("/photos")),
            ("GET /photos", "/drive/v3/files", "/drive/v3/files/", None),
        ] {
            let found = reverse(matches, upstream).ok().and_then(|reverse| reverse.path(from));
            assert_eq!(found.as_deref(), to, "{matches} {upstream} {from}");
        }
    }

    #[test]
    fn tells_why_there_is_none() {
        for (matches, upstream, part) in [
            ("/a/{id}", "/v1/", "`{id}` of the match does not stand in it"),
            ("/a/{id}", "/v1?id={id}", "`{id}` of the match does not stand in it"),
            ("/a/{id}", "/v1/{id}/{id}", "twice"),
            ("/a/{id}", "/v1/{id}.json", "beside other text"),
            ("/a/{x}/{y}", "/{x}{y}", "beside other text"),
            ("/a/{*rest}", "/v1/{rest}/children", "something follows"),
        ] {
            let why = reverse(matches, upstream).expect_err(upstream);
            assert!(why.contains(part), "{upstream}: {why}");
        }
    }
}
