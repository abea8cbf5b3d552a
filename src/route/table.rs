//! All routes, and the most specific one for a request (contract §3): a trie by segments of the raw path.
//!
//! A node of the trie stands at one depth, so one look-up visits it at most once: backtracking costs no more than there are routes, whatever
//! the path. Deliberately absent: file order, and any decoding.

use super::pattern::{CAPTURES_MAX, Captures, HOST_BYTES_MAX, Pattern, Segment};
use http::Method;
use std::collections::HashMap;

/// An index into [`Table::nodes`].
type NodeId = usize;
/// An index into [`Table::routes`].
type RouteId = usize;

/// Up to so many literal children are searched one by one, which beats a hash.
const LINEAR_MAX: usize = 8;

/// Routes, each with its value.
#[derive(Debug)]
pub struct Table<T> {
    nodes: Vec<Node>,
    hosts: HashMap<Box<str>, NodeId>,
    no_host: NodeId,
    routes: Vec<Routed<T>>,
}

/// What a look-up finds.
#[derive(Debug)]
pub enum Found<'t, 'p, T> {
    Route {
        value: &'t T,
        captures: Captures<'p>,
    },
    /// Routes take the path, but with other methods: these, sorted. `HEAD` stands beside `GET`.
    MethodNotAllowed {
        allow: Vec<Method>,
    },
    None,
}

/// Two routes of which neither is more specific for a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// Indices into the routes as given; `first` is the smaller.
    pub first: usize,
    pub second: usize,
    /// The first method that both name; `None` where both take any.
    pub method: Option<Method>,
}

#[derive(Debug)]
struct Routed<T> {
    names: Vec<Box<str>>,
    value: T,
}

#[derive(Debug, Default)]
struct Node {
    literals: Literals,
    capture: Option<NodeId>,
    /// Who takes a path that ends here.
    end: Vec<Take>,
    /// Who takes all that is left.
    rest: Vec<Take>,
}

/// One route at one place, for one method or for any.
#[derive(Debug)]
struct Take {
    method: Option<Method>,
    route: RouteId,
}

#[derive(Debug)]
enum Literals {
    Few(Vec<(Box<str>, NodeId)>),
    Many(HashMap<Box<str>, NodeId>),
}

impl Default for Literals {
    fn default() -> Self {
        Literals::Few(Vec::new())
    }
}

impl Literals {
    fn get(&self, segment: &str) -> Option<NodeId> {
        match self {
            Literals::Few(few) => few.iter().find(|(literal, _)| **literal == *segment).map(|(_, node)| *node),
            Literals::Many(many) => many.get(segment).copied(),
        }
    }

    fn insert(&mut self, segment: &str, node: NodeId) {
        match self {
            Literals::Few(few) if few.len() < LINEAR_MAX => few.push((segment.into(), node)),
            Literals::Few(few) => {
                let mut many: HashMap<_, _> = few.drain(..).collect();
                many.insert(segment.into(), node);
                *self = Literals::Many(many);
            }
            Literals::Many(many) => {
                many.insert(segment.into(), node);
            }
        }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { nodes: vec![Node::default()], hosts: HashMap::new(), no_host: 0, routes: Vec::new() }
    }
}

impl<T> Table<T> {
    /// # Errors
    /// Every pair of routes that overlap equally in one method.
    pub fn build(routes: Vec<(Pattern, T)>) -> Result<Table<T>, Vec<Overlap>> {
        let mut table = Table::default();
        let mut overlaps = Vec::new();
        for (route, (pattern, value)) in routes.into_iter().enumerate() {
            table.add(route, &pattern, &mut overlaps);
            table.routes.push(Routed { names: pattern.names, value });
        }
        if overlaps.is_empty() { Ok(table) } else { Err(overlaps) }
    }

    fn add(&mut self, route: RouteId, pattern: &Pattern, overlaps: &mut Vec<Overlap>) {
        let mut node = match &pattern.host {
            None => self.no_host,
            Some(host) => match self.hosts.get(host) {
                Some(node) => *node,
                None => {
                    let node = self.new_node();
                    self.hosts.insert(host.clone(), node);
                    node
                }
            },
        };
        for segment in &pattern.segments {
            node = match segment {
                Segment::Literal(literal) => self.literal_child(node, literal),
                Segment::Capture => self.capture_child(node),
                Segment::Rest => break,
            };
        }
        let node = &mut self.nodes[node];
        let takes = if pattern.ends_in_rest() { &mut node.rest } else { &mut node.end };
        let methods: &mut dyn Iterator<Item = Option<Method>> =
            if pattern.methods.is_empty() { &mut [None].into_iter() } else { &mut pattern.methods.iter().cloned().map(Some) };
        for method in methods {
            if let Some(first) = takes.iter().find(|take| take.method == method).map(|take| take.route) {
                if !overlaps.iter().any(|known| known.first == first && known.second == route) {
                    overlaps.push(Overlap { first, second: route, method });
                }
            } else {
                takes.push(Take { method, route });
            }
        }
    }

    fn new_node(&mut self) -> NodeId {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    fn literal_child(&mut self, node: NodeId, literal: &str) -> NodeId {
        if let Some(child) = self.nodes[node].literals.get(literal) {
            return child;
        }
        let child = self.new_node();
        self.nodes[node].literals.insert(literal, child);
        child
    }

    fn capture_child(&mut self, node: NodeId) -> NodeId {
        if let Some(child) = self.nodes[node].capture {
            return child;
        }
        let child = self.new_node();
        self.nodes[node].capture = Some(child);
        child
    }

    pub fn len(&self) -> usize {
        self.routes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The route of a request. `host` is compared without regard to case and comes without its port; `path` is the raw path, without query,
    /// and has passed [`super::path::check`]. Nothing is allocated unless methods do not fit.
    pub fn find<'t: 'p, 'p>(&'t self, method: &Method, host: Option<&str>, path: &'p str) -> Found<'t, 'p, T> {
        // Only a path that begins with `/` has segments: `OPTIONS *` belongs to no route.
        let Some(left) = path.strip_prefix('/') else { return Found::None };
        let mut values = [""; CAPTURES_MAX];
        let mut path_fits = false;
        let mut by_method = |takes: &[Take]| {
            path_fits |= !takes.is_empty();
            choose(takes, method)
        };
        for root in self.roots(host) {
            if let Some(route) = self.walk(root, Some(left), 0, &mut values, &mut by_method) {
                let Routed { names, value } = &self.routes[route];
                return Found::Route { value, captures: Captures::new(names, values) };
            }
        }
        if path_fits { Found::MethodNotAllowed { allow: self.allowed(host, left) } } else { Found::None }
    }

    /// Where to begin: the host's own routes, then those of any host.
    fn roots(&self, host: Option<&str>) -> impl Iterator<Item = NodeId> {
        host.and_then(|host| self.host_root(host)).into_iter().chain([self.no_host])
    }

    fn host_root(&self, host: &str) -> Option<NodeId> {
        if self.hosts.is_empty() {
            return None;
        }
        let mut lower = [0; HOST_BYTES_MAX];
        let lower = lower.get_mut(..host.len())?;
        lower.copy_from_slice(host.as_bytes());
        lower.make_ascii_lowercase();
        self.hosts.get(std::str::from_utf8(lower).ok()?).copied()
    }

    /// Depth first, the most specific child first. `left` is what stands after the next `/`, or `None` where the path has ended; `taken` counts
    /// the captures so far. The depth is that of the longest pattern, which `Pattern::parse` bounds.
    fn walk<'p>(
        &self,
        node: NodeId,
        left: Option<&'p str>,
        taken: usize,
        values: &mut [&'p str; CAPTURES_MAX],
        choose: &mut impl FnMut(&[Take]) -> Option<RouteId>,
    ) -> Option<RouteId> {
        let node = &self.nodes[node];
        let Some(left) = left else { return choose(&node.end) };
        let (segment, after) = match left.bytes().position(|byte| byte == b'/') {
            Some(slash) => (&left[..slash], Some(&left[slash + 1..])),
            None => (left, None),
        };
        if let Some(child) = node.literals.get(segment)
            && let Some(route) = self.walk(child, after, taken, values, choose)
        {
            return Some(route);
        }
        if let Some(child) = node.capture
            && !segment.is_empty()
        {
            values[taken] = segment;
            if let Some(route) = self.walk(child, after, taken + 1, values, choose) {
                return Some(route);
            }
        }
        if node.rest.is_empty() {
            return None;
        }
        let route = choose(&node.rest)?;
        values[taken] = left;
        Some(route)
    }

    /// Every method that some route takes on this path.
    fn allowed(&self, host: Option<&str>, left: &str) -> Vec<Method> {
        let mut allow: Vec<Method> = Vec::new();
        let mut collect = |takes: &[Take]| {
            for method in takes.iter().filter_map(|take| take.method.as_ref()) {
                allow.push(method.clone());
                if method == Method::GET {
                    allow.push(Method::HEAD);
                }
            }
            None
        };
        for root in self.roots(host) {
            self.walk(root, Some(left), 0, &mut [""; CAPTURES_MAX], &mut collect);
        }
        allow.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        allow.dedup();
        allow
    }
}

/// A named method before any, and GET for HEAD where HEAD is not named (RFC 9110 §9.3.2).
fn choose(takes: &[Take], method: &Method) -> Option<RouteId> {
    let named = |method: &Method| takes.iter().find(|take| take.method.as_ref() == Some(method));
    named(method)
        .or_else(|| if method == Method::HEAD { named(&Method::GET) } else { None })
        .or_else(|| takes.iter().find(|take| take.method.is_none()))
        .map(|take| take.route)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(texts: &[&str]) -> Table<String> {
        let routes = texts.iter().map(|text| (Pattern::parse(text).expect(text), (*text).to_owned())).collect();
        Table::build(routes).expect("no overlap")
    }

    /// `METHOD [host]/path` to the match it took with its captures, or the methods allowed, or nothing.
    fn find(table: &Table<String>, request: &str) -> String {
        let (method, target) = request.split_once(' ').expect("a method and a target");
        let (host, path) = target.split_at(target.find('/').expect("a path"));
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        match table.find(&method, (!host.is_empty()).then_some(host), path) {
            Found::Route { value, captures } => captures.iter().fold(value.clone(), |told, (name, value)| format!("{told} {name}={value}")),
            Found::MethodNotAllowed { allow } => format!("405 {}", allow.iter().map(Method::as_str).collect::<Vec<_>>().join(",")),
            Found::None => "404".to_owned(),
        }
    }

    fn check(matches: &[&str], expected: &[(&str, &str)]) {
        // Never file order: every rotation of the routes gives the same.
        let mut matches = matches.to_vec();
        for _ in 0..matches.len() {
            let table = table(&matches);
            for (request, outcome) in expected {
                assert_eq!(find(&table, request), *outcome, "{request} in {matches:?}");
            }
            matches.rotate_left(1);
        }
    }

    #[test]
    fn the_most_specific_route_takes_the_request() {
        check(
            &["GET /photos/google", "GET /photos/google/{id}", "/google/{*rest}", "/{a}/google/x"],
            &[
                ("GET /photos/google", "GET /photos/google"),
                ("GET /photos/google/17", "GET /photos/google/{id} id=17"),
                ("GET /photos/google/%2E%2e", "GET /photos/google/{id} id=%2E%2e"),
                ("GET /photos/google/x", "GET /photos/google/{id} id=x"),
                ("POST /photos/google/x", "/{a}/google/x a=photos"),
                ("GET /photos/google/", "404"),
                ("GET /photos/google/1/2", "404"),
                ("GET /Photos/google", "404"),
                ("GET /%70hotos/google", "404"),
                ("DELETE /google/a//b/", "/google/{*rest} rest=a//b/"),
                ("GET /google/", "/google/{*rest} rest="),
                ("GET /google//", "/google/{*rest} rest=/"),
                ("GET /google", "404"),
                ("GET //google/a", "404"),
            ],
        );
    }

    #[test]
    fn backtracks_from_the_left() {
        check(
            &["/a/{x}/c", "/{y}/b/d", "/{y}/b/{*z}", "/{*all}", "/a/b/e/{*more}"],
            &[
                ("GET /a/b/c", "/a/{x}/c x=b"),
                ("GET /a/b/d", "/{y}/b/d y=a"),
                ("GET /a/b/q/r", "/{y}/b/{*z} y=a z=q/r"),
                ("GET /a/b/e", "/{y}/b/{*z} y=a z=e"),
                ("GET /a/b/e/", "/a/b/e/{*more} more="),
                ("GET /a/q/r", "/{*all} all=a/q/r"),
                ("GET /", "/{*all} all="),
                ("GET //b/d", "/{*all} all=/b/d"),
            ],
        );
    }

    #[test]
    fn host_comes_before_none_and_path_before_method() {
        check(
            &["drive.localhost/{*rest}", "/files/x", "GET /{*rest}", "POST drive.localhost/only"],
            &[
                ("GET drive.localhost/files/x", "drive.localhost/{*rest} rest=files/x"),
                ("GET DRIVE.LocalHost/files/x", "drive.localhost/{*rest} rest=files/x"),
                ("GET other/files/x", "/files/x"),
                ("GET /files/x", "/files/x"),
                ("GET drive.localhost.evil/only", "GET /{*rest} rest=only"),
                ("GET drive.localhost/only", "drive.localhost/{*rest} rest=only"),
                ("POST drive.localhost/only", "POST drive.localhost/only"),
                ("POST /only", "405 GET,HEAD"),
            ],
        );
        assert_eq!(find(&table(&["h/x"]), &format!("GET {}/x", "h".repeat(300))), "404");
    }

    #[test]
    fn a_path_whose_methods_do_not_fit_falls_on() {
        check(
            &["GET,PUT /a/b", "POST /a/{id}", "PATCH h/a/b", "/c", "DELETE /c"],
            &[
                ("PUT /a/b", "GET,PUT /a/b"),
                ("POST /a/b", "POST /a/{id} id=b"),
                ("DELETE /a/b", "405 GET,HEAD,POST,PUT"),
                ("DELETE h/a/b", "405 GET,HEAD,PATCH,POST,PUT"),
                ("GET h/a/b", "GET,PUT /a/b"),
                ("GET /a/x", "405 POST"),
                ("GET /c", "/c"),
                ("DELETE /c", "DELETE /c"),
                ("PROPFIND /c", "/c"),
            ],
        );
    }

    #[test]
    fn get_takes_head_unless_head_is_routed() {
        check(
            &["GET /a", "GET /b", "HEAD /b", "/a"],
            &[("HEAD /a", "GET /a"), ("HEAD /b", "HEAD /b"), ("GET /b", "GET /b"), ("POST /a", "/a"), ("POST /b", "405 GET,HEAD")],
        );
    }

    #[test]
    fn equal_routes_are_refused() {
        let overlaps = |texts: &[&str]| {
            let routes = texts.iter().map(|text| (Pattern::parse(text).expect(text), ())).collect();
            Table::build(routes).err().unwrap_or_default()
        };
        let one = |method: Option<Method>| vec![Overlap { first: 0, second: 1, method }];
        assert_eq!(overlaps(&["GET /a/{x}", "POST,GET /a/{y}"]), one(Some(Method::GET)));
        assert_eq!(overlaps(&["GET,POST /a", "POST,GET /a"]), one(Some(Method::POST)));
        assert_eq!(overlaps(&["/g/{*a}", "/g/{*b}"]), one(None));
        assert_eq!(overlaps(&["H/a", "h/a"]), one(None));
        assert_eq!(overlaps(&["/a", "/b", "/a", "GET /b", "/a"]).len(), 2);
        for apart in [["GET /a", "/a"], ["h/a", "/a"], ["GET /a", "HEAD /a"], ["/a", "/a/"], ["/{x}", "/{*x}"], ["/a/{x}", "/{y}/a"]] {
            assert_eq!(overlaps(&apart), [], "{apart:?}");
        }
    }

    #[test]
    fn a_request_target_without_a_path_matches_nothing() {
        let table = table(&["/{*rest}"]);
        for path in ["*", "", "x"] {
            assert!(matches!(table.find(&Method::OPTIONS, None, path), Found::None), "{path:?}");
        }
        assert!(matches!(Table::<()>::default().find(&Method::GET, None, "/"), Found::None));
    }

    /// Patterns that offer two ways at each segment: a look-up may visit each node once, never once a way through them.
    #[test]
    fn backtracking_visits_each_node_once() {
        let depth = 10;
        let texts: Vec<String> = (0..1 << depth)
            .map(|bits: u32| {
                let segments = (0..depth).map(|at| if bits >> at & 1 == 1 { "/a".to_owned() } else { format!("/{{c{at}}}") });
                segments.collect::<String>() + "/end"
            })
            // More captures than that are refused.
            .filter(|text| text.matches('{').count() <= CAPTURES_MAX)
            .collect();
        let table = table(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let path = "a/".repeat(depth) + "end";
        let mut tried = 0;
        let mut refuse = |_: &[Take]| {
            tried += 1;
            None
        };
        assert_eq!(table.walk(table.no_host, Some(&path), 0, &mut [""; CAPTURES_MAX], &mut refuse), None);
        assert_eq!(tried, texts.len());
        assert_eq!(find(&table, &format!("GET /{path}no")), "404");
        // A path far longer than any pattern is not even read to its end.
        assert_eq!(find(&table, &format!("GET /{}", "a/".repeat(100_000))), "404");
        assert!(find(&table, &format!("GET /{path}")).ends_with("/end"));
    }
}
