//! `routes:`: each rule read and checked, then all of them together: names, overlaps.

use super::absolute;
use super::definition;
use super::error::{At, did_you_mean};
use super::fields::{Fields, Problems, Shape};
use super::headers::{self, HeaderRules};
use super::limit;
use super::node::{Node, Value, shown};
use super::oauth1;
use super::proofs;
use super::scalar;
use super::snapshot::{ActAs, HeaderEdits, HostSent, Route, RouteOrigin, Special, Timeouts};
use super::special;
use super::upstream_url::{self, Target};
use super::upstreams;
use crate::attach::Scheme;
use crate::identity::EndUserRules;
use crate::metrics::Slot;
use crate::provider::{Mint, Registration};
use crate::route::{Names, Need, Overlap, Pattern, Reverse, Rewrite, Table, Upstreams};
use http::HeaderValue;
use std::collections::BTreeMap;
use std::sync::Arc;

const ROUTE: Shape = Shape { name: "Route", said: "a route" };
const TIMEOUT: Shape = Shape { name: "Timeout", said: "`timeout`" };

/// How long a form may be that must be read before it is signed, unless `max_signed_body` says otherwise, and at most.
const SIGNED_BODY_DEFAULT: u64 = 1 << 20;
const SIGNED_BODY_MAX: u64 = 64 << 20;

/// What a route's words are checked against.
pub(super) struct Known<'k> {
    pub(super) providers: &'k BTreeMap<Arc<str>, Arc<Registration>>,
    /// Every id under `providers:`, those with faults too.
    pub(super) provider_ids: &'k [&'k str],
    pub(super) end_user: &'k EndUserRules,
    pub(super) callers: &'k [&'k str],
    /// The names of all routes.
    pub(super) route_names: &'k [&'k str],
}

/// Which requests a route takes.
pub(super) struct Taking<'t> {
    /// `None` where its match has faults.
    pub(super) captures: Option<&'t [&'t str]>,
    pub(super) name: &'t str,
    pub(super) matches: &'t str,
    /// Whether `upstream` is the whole origin of a listener: what is left of a path follows it.
    pub(super) whole_origin: bool,
}

/// The routes of a file, those with faults left out.
pub(super) struct Routes {
    pub(super) table: Table<Arc<Route>>,
    pub(super) upstreams: Upstreams<Arc<Route>>,
    pub(super) list: Vec<Arc<Route>>,
    /// The hosts that matches name, for the guard.
    pub(super) hosts: Vec<Box<str>>,
}

/// A route's pattern and place, there even if other keys of it are wrong, so that overlaps are told in the same breath.
struct Entry {
    pattern: Pattern,
    route: Option<Arc<Route>>,
    name: Box<str>,
    at: At,
}

pub(super) fn read(nodes: &[Node], known: &Known<'_>, problems: &Problems) -> Routes {
    let mut entries: Vec<Entry> = Vec::new();
    let mut names: BTreeMap<&str, &At> = BTreeMap::new();
    for node in nodes {
        let Some(fields) = Fields::open(node, ROUTE, problems) else { continue };
        if let Some(name) = fields.word("name") {
            let at = fields.at_key("name");
            if let Some(first) = names.insert(name, at) {
                fields.say(at, format!("two routes are called `{}`: the first at line {}", shown(name), first.line), None);
            }
            if name.len() > 128 || name.chars().any(char::is_control) {
                fields.say(at, "a route's name is one line of at most 128 bytes", None);
            }
        }
        entries.extend(one(fields, known));
    }
    let mut hosts: Vec<Box<str>> = entries.iter().filter_map(|entry| entry.pattern.host.clone()).collect();
    hosts.sort();
    hosts.dedup();
    let list: Vec<_> = entries.iter().filter_map(|entry| entry.route.clone()).collect();
    let patterns: Vec<_> = entries.iter().map(|entry| (entry.pattern.clone(), ())).collect();
    if let Err(overlaps) = Table::build(patterns) {
        overlaps.iter().for_each(|overlap| tell_overlap(overlap, &entries, problems));
        return Routes { table: Table::default(), upstreams: Upstreams::default(), list, hosts };
    }
    let upstreams = absolute::index(entries.iter().filter_map(|entry| Some((&entry.pattern, entry.route.as_ref()?))));
    let table = Table::build(entries.into_iter().filter_map(|entry| Some((entry.pattern, entry.route?))).collect());
    Routes { table: table.unwrap_or_default(), upstreams, list, hosts }
}

/// The names that `callers: [{routes: […]}]` may hold: a route's name, or its match where it has none.
pub(super) fn names(nodes: &[Node]) -> Vec<&str> {
    nodes.iter().filter_map(name_of).collect()
}

fn name_of(node: &Node) -> Option<&str> {
    let Value::Map(entries) = &node.value else { return None };
    let named = ["name", "match"].iter().find_map(|key| entries.iter().find(|(found, _)| found.text == **key))?;
    match &named.1.value {
        Value::Scalar(scalar) => Some(&scalar.text),
        _ => None,
    }
}

fn tell_overlap(overlap: &Overlap, entries: &[Entry], problems: &Problems) {
    let (first, second) = (&entries[overlap.first], &entries[overlap.second]);
    let method = overlap.method.as_ref().map(|method| format!(" for {method}")).unwrap_or_default();
    let message = format!("this route takes the same requests{method} as `{}` at line {}", shown(&first.name), first.at.line);
    problems.say(&second.at, message, Some("neither is more specific: the order in the file decides nothing".into()));
}

fn one(fields: Fields<'_>, known: &Known<'_>) -> Option<Entry> {
    let problems = fields.problems;
    let before = problems.count();
    let match_node = fields.need("match");
    let matches = match_node.and_then(|node| scalar::text(node, fields.problems));
    let pattern = match_node.zip(matches).and_then(|(node, text)| match Pattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            problems.say_inside(node, error.offset, error.message, error.hint);
            None
        }
    });
    let captures: Vec<&str> = pattern.iter().flat_map(Pattern::captures).collect();
    let name: Box<str> = fields.text("name").filter(|name| !name.is_empty()).or(matches).unwrap_or_default().into();
    let at = match_node.map_or_else(|| fields.at.clone(), |node| node.at.clone());
    // Without a pattern its captures are not known, and each use of one would be told as a fault of its own.
    let captures = pattern.as_ref().map(|_| &*captures);
    let taking = Taking { captures, name: &name, matches: matches.unwrap_or_default(), whole_origin: false };
    let route = read_route(&fields, known, &taking);
    fields.finish();
    let route = route.filter(|_| problems.count() == before).map(Arc::new);
    Some(Entry { route, name, at, pattern: pattern.clone()? })
}

pub(super) fn read_route(fields: &Fields<'_>, known: &Known<'_>, taking: &Taking<'_>) -> Option<Route> {
    let problems = fields.problems;
    let &Taking { captures, name, matches, whole_origin } = taking;
    let act_as = act_as(fields);
    let provider = provider(fields, known, act_as);
    if let Some(registration) = provider.as_ref().filter(|_| act_as == ActAs::App) {
        check_app(registration, fields);
    }
    let own_attach = fields.get("attach").and_then(|node| definition::attach::read(node, problems));
    let allow_plain_http = fields.flag("allow_plain_http").unwrap_or(false);
    let upstream_node = fields.need("upstream");
    let carries = provider.as_ref().filter(|_| act_as.carries_token());
    let target = upstream_node.and_then(|node| {
        let registration = carries.map(|registration| &**registration);
        let known = upstream_url::Known { captures: captures.unwrap_or_default(), registration, act_as, allow_plain_http };
        let mut target = upstream_url::read(node, &known, problems)?;
        if whole_origin {
            target.extend(node, problems);
        }
        Some(target)
    });
    if let (Some(registration), Some(Target { origin: RouteOrigin::Fixed(origin), .. }), Some(node)) = (carries, &target, upstream_node) {
        upstream_url::check_token_host(registration, origin, node, problems);
    }
    if let (Some(registration), Some(own), Some(node)) = (carries, &own_attach, fields.peek("attach")) {
        proofs::check_route(registration, own, node, problems);
    }
    let attach = own_attach.or_else(|| provider.as_ref().map(|registration| registration.attach.clone())).unwrap_or(Scheme::Bearer);
    let attach = signer(attach, carries, target.as_ref(), fields);
    let header_rules = HeaderRules { end_user: known.end_user, attach: carries.map(|_| &attach) };
    let values = carries.map(|registration| values(registration, act_as)).unwrap_or_default();
    let special = special::read(fields, captures.map(|captures| Names { captures, values: &values }), header_rules);
    let (edits, rewrite) = match captures {
        Some(captures) => {
            let names = Names { captures, values: &values };
            let edits = headers::read(fields, names, header_rules);
            (Some(edits), rewrite(fields, target.as_ref(), upstream_node, names))
        }
        None => {
            for key in ["headers", "query", "set_query"] {
                let _known = fields.get(key);
            }
            (None, None)
        }
    };
    let reverse = reverse(fields, matches, target.as_ref(), rewrite.as_ref(), special.as_deref());
    let host = upstream_host(fields);
    let timeouts = timeouts(fields);
    let (retry, replay_body_max) = upstreams::retry(fields);
    let body_max = fields.get("max_body").filter(|node| !scalar::is_word(node, "none")).and_then(|node| scalar::size(node, problems));
    let signed_body_max = signed_body_max(fields);
    let cookies_pass = fields.choice("cookies", &[("strip", false), ("pass", true)]).unwrap_or(false);
    let websocket = websocket(fields, special.as_deref());
    let callers = callers(fields, known);
    let placeholder = fields.flag("placeholder");
    let limits = limit::read(fields);
    let upstream = upstream_node.and_then(|node| scalar::text(node, problems)).unwrap_or_default();
    let (origin, rewrite, edits) = (target?.origin, rewrite?, edits?);
    let origin = provider.as_ref().map_or_else(|| origin.clone(), |registration| origin.reached_by(registration, act_as));
    let needs = needs(&rewrite, &edits, special.as_deref());
    let has_own = match carries {
        Some(registration) => !needs.is_empty() || matches!(origin, RouteOrigin::PerConnection(_)) || !registration.dialect.api.is_empty(),
        None => false,
    };
    let slot = Slot::of(name, provider.as_ref().map_or("", |provider| &provider.id));
    Some(Route {
        slot,
        name: name.into(),
        matches: matches.into(),
        act_as,
        provider,
        origin,
        needs,
        has_own,
        placeholder,
        rewrite,
        reverse,
        upstream: upstream.into(),
        attach,
        headers: edits,
        host,
        timeouts,
        replay_body_max,
        retry,
        body_max,
        signed_body_max,
        cookies_pass,
        websocket,
        callers,
        limits,
        special,
    })
}

/// The values that a route's texts may hold: those of the end user's connection, or what the registration gives, which is the app's too.
fn values(registration: &Registration, act_as: ActAs) -> Vec<(&str, Option<&str>)> {
    let mut values = registration.dialect.value_names();
    values.retain(|(_, given)| act_as == ActAs::User || given.is_some());
    values
}

/// The values of a connection in a route's texts, each once.
fn needs(rewrite: &Rewrite, edits: &HeaderEdits, special: Option<&Special>) -> Box<[Need]> {
    let headers = edits.set.iter().chain(&edits.add).flat_map(|(_, template)| template.values());
    let sent = special.map(Special::values).unwrap_or_default();
    let others = headers.chain(sent).map(|name| Need { name: name.into(), in_path: false });
    let mut needs: Vec<Need> = rewrite.needs().chain(others).collect();
    needs.sort();
    needs.dedup();
    needs.into()
}

fn act_as(fields: &Fields<'_>) -> ActAs {
    let Some(node) = fields.get("as") else { return ActAs::User };
    let words = [("user", ActAs::User), ("app", ActAs::App), ("none", ActAs::None)];
    // What another word means is not known: nothing more is asked of the route for it.
    scalar::choice(node, &words, fields.problems).unwrap_or(ActAs::None)
}

/// `as: app` needs a provider that can give the app a token of its own. One that is off is judged once it is on, for what it lacks may be
/// what makes it so.
fn check_app(registration: &Registration, fields: &Fields<'_>) {
    if registration.off.is_some() {
        return;
    }
    let at = fields.at_key("as");
    let id = &registration.id;
    let say = |why: &str, hint: Option<&str>| {
        fields.say(at, format!("`as: app` asks for the app's own token, and `{id}` {why}"), hint.map(str::to_owned));
    };
    if registration.oauth1.is_some() {
        return say("speaks OAuth 1.0a, where all tokens are end users'", None);
    }
    if registration.token_url.is_none() && registration.issuer.is_none() {
        return say("has no `token_url` to ask", None);
    }
    match &registration.mint {
        Some(Mint::JwtBearer(bearer)) if bearer.subject.as_deref().is_some_and(|subject| subject.contains("{end_user}")) => {
            say(
                "asserts each call's end user, whom such a route has not",
                Some("register the provider once more, with `use:`, for the app itself"),
            );
        }
        Some(Mint::JwtBearer(_)) => {}
        // RFC 6749 §4.4: only a confidential client has a token of its own.
        _ if !registration.proves_itself() => say("has nothing to prove the app by", Some("give it a `client_secret`")),
        _ => {}
    }
}

fn provider(fields: &Fields<'_>, known: &Known<'_>, act_as: ActAs) -> Option<Arc<Registration>> {
    let Some(node) = fields.get("provider") else {
        if act_as.carries_token() {
            let hint = "`as: none` makes a route without a token".to_owned();
            fields.say(fields.at, "a route needs `provider`, whose tokens it carries", Some(hint));
        }
        return None;
    };
    let id = scalar::text(node, fields.problems)?;
    if !known.provider_ids.contains(&id) {
        let hint = did_you_mean(id, known.provider_ids.iter().copied()).unwrap_or_else(|| "register it under `providers:`".to_owned());
        fields.say(&node.at, format!("no provider is called {}", node.found()), Some(hint));
    }
    known.providers.get(id).cloned()
}

/// The scheme with who signs by it, and on a wire where it may.
fn signer(scheme: Scheme, carries: Option<&Arc<Registration>>, target: Option<&Target<'_>>, fields: &Fields<'_>) -> Scheme {
    let Some(registration) = carries else { return oauth1::signed_by(scheme, None).unwrap_or(Scheme::Bearer) };
    let Some(scheme) = oauth1::signed_by(scheme, registration.oauth1.as_ref()) else {
        let message = format!("`attach: oauth1` signs by OAuth 1.0a, which `{}` does not speak", registration.id);
        let hint = "write `oauth1: {}` in the provider, with `client_id` and `client_secret`";
        fields.say(fields.at_key("attach"), message, Some(hint.into()));
        return Scheme::Bearer;
    };
    let open = target.is_some_and(|target| match &target.origin {
        RouteOrigin::Fixed(origin) => !origin.tls && !origin.is_loopback(),
        RouteOrigin::PerConnection(template) => !template.tls && template.plain_http_anywhere,
    });
    if let Scheme::OAuth1(consumer) = &scheme
        && consumer.method.shows_its_secrets()
        && open
    {
        fields.say(
            fields.at_key("upstream"),
            "`signature: PLAINTEXT` puts the secrets themselves on the wire: the upstream must be https",
            None,
        );
    }
    scheme
}

fn rewrite(fields: &Fields<'_>, target: Option<&Target<'_>>, upstream: Option<&Node>, names: Names<'_>) -> Option<Rewrite> {
    let problems = fields.problems;
    let before = problems.count();
    let pairs = |key| -> Vec<(&Node, (String, String))> {
        let entries = fields.pairs(key).iter();
        entries.filter_map(|(name, node)| Some((node, (name.text.clone(), scalar::template(node, fields.problems)?.to_owned())))).collect()
    };
    let (defaults, set) = (pairs("query"), pairs("set_query"));
    // Each text alone first, so that every fault is told and not the first only.
    for (pairs, is_set) in [(&defaults, false), (&set, true)] {
        for (node, pair) in pairs {
            let one = std::slice::from_ref(pair);
            if let Err(error) = if is_set { Rewrite::parse("/", &[], one, names) } else { Rewrite::parse("/", one, &[], names) } {
                problems.say_inside(node, error.offset, error.message, error.hint);
            }
        }
    }
    let (target, node) = target.zip(upstream)?;
    let slash = if target.path_and_query.starts_with('/') { "" } else { "/" };
    let path_and_query = format!("{slash}{}", target.path_and_query);
    let alone = |pairs: Vec<(&Node, (String, String))>| pairs.into_iter().map(|(_, pair)| pair).collect::<Vec<_>>();
    if let Err(error) = Rewrite::parse(&path_and_query, &[], &[], names) {
        let offset = target.offset + error.offset.saturating_sub(slash.len());
        problems.say_inside(node, offset, error.message, error.hint);
    }
    if fields.problems.count() > before {
        return None;
    }
    match Rewrite::parse(&path_and_query, &alone(defaults), &alone(set), names) {
        Ok(rewrite) => Some(rewrite),
        Err(error) => {
            problems.say_inside(node, 0, error.message, error.hint);
            None
        }
    }
}

/// `rewrite_location`: the way back from the upstream, where there is one.
fn reverse(
    fields: &Fields<'_>,
    matches: &str,
    target: Option<&Target<'_>>,
    rewrite: Option<&Rewrite>,
    special: Option<&Special>,
) -> Option<Arc<Reverse>> {
    if !fields.flag("rewrite_location").unwrap_or(false) {
        return None;
    }
    let at = fields.at_key("rewrite_location");
    if special.is_some_and(|special| special.follow) {
        fields.say(
            at,
            "`rewrite_location` has nothing to rewrite where redirects are followed",
            Some("`follow: no` passes them on".into()),
        );
    }
    if matches!(target?.origin, RouteOrigin::PerConnection(_)) {
        let hint = "take it away: the client is then told the upstream's own URLs";
        fields.say(at, "`rewrite_location` needs an upstream with one host, and this one is each connection's own", Some(hint.into()));
        return None;
    }
    // A match with faults is told of elsewhere.
    match Reverse::new(&Pattern::parse(matches).ok()?, rewrite?) {
        Ok(reverse) => Some(Arc::new(reverse)),
        Err(why) => {
            let hint = "it works where each capture is one whole segment of the upstream's path, and `{*name}` its end";
            fields.say(at, format!("`rewrite_location` cannot read this upstream's path backwards: {why}"), Some(hint.into()));
            None
        }
    }
}

fn websocket(fields: &Fields<'_>, special: Option<&Special>) -> bool {
    let takes = fields.flag("websocket").unwrap_or(false);
    if takes && special.is_some_and(|special| special.send.is_some() || special.response.is_some()) {
        let hint = "take it away, or `send` and `response`";
        fields.say(fields.at_key("websocket"), "`websocket` is for routes that pass request and answer as they are", Some(hint.into()));
    }
    takes
}

/// The `Host` that goes upstream.
fn upstream_host(fields: &Fields<'_>) -> HostSent {
    let Some(node) = fields.get("upstream_host") else { return HostSent::Upstream };
    match scalar::text(node, fields.problems) {
        Some("upstream") | None => HostSent::Upstream,
        Some("preserve") => HostSent::Preserve,
        Some(name) => {
            let is_authority = name.parse::<http::uri::Authority>().is_ok_and(|authority| !authority.as_str().contains('@'));
            match HeaderValue::from_str(name).ok().filter(|_| is_authority) {
                Some(value) => HostSent::Name(value),
                None => {
                    fields.say(&node.at, format!("expected `upstream`, `preserve` or a host, found {}", node.found()), None);
                    HostSent::Upstream
                }
            }
        }
    }
}

fn timeouts(route: &Fields<'_>) -> Timeouts {
    let default = Timeouts::default();
    let Some(fields) = route.section("timeout", TIMEOUT) else { return default };
    let timeouts = Timeouts {
        connect: fields.limit("connect").unwrap_or(default.connect),
        first_byte: fields.limit("first_byte").unwrap_or(default.first_byte),
        idle: fields.limit("idle").unwrap_or(default.idle),
        total: fields.limit("total").unwrap_or(default.total),
    };
    fields.finish();
    timeouts
}

fn signed_body_max(fields: &Fields<'_>) -> usize {
    let most = fields.size("max_signed_body").unwrap_or(SIGNED_BODY_DEFAULT);
    if most > SIGNED_BODY_MAX {
        fields.say(fields.at_key("max_signed_body"), "`max_signed_body` is kept in memory for each call: at most 64MiB", None);
    }
    usize::try_from(most.min(SIGNED_BODY_MAX)).unwrap_or(usize::MAX)
}

fn callers(fields: &Fields<'_>, known: &Known<'_>) -> Option<Vec<Box<str>>> {
    let names = fields.texts("callers")?;
    for (node, name) in &names {
        if !known.callers.contains(name) {
            fields.say(&node.at, format!("no caller is called {}", node.found()), did_you_mean(name, known.callers.iter().copied()));
        }
    }
    Some(names.into_iter().map(|(_, name)| name.into()).collect())
}
