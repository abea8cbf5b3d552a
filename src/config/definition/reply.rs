//! `reply`, `errors`, `device` and `expired_when`: how to read what a provider answers.

use crate::config::fields::{Fields, Problems, Shape, list};
use crate::config::node::{Key, Node, Value, shown};
use crate::config::scalar;
use crate::provider::{Also, DeviceRules, ErrorRules, Path, ReplyMap, Sign, Unit};

const REPLY: Shape = Shape { name: "Reply", said: "`reply`" };
const ALSO: Shape = Shape { name: "Also", said: "a further grant" };
const ERRORS: Shape = Shape { name: "Errors", said: "`errors`" };
const SIGN: Shape = Shape { name: "SignKeys", said: "a sign" };
const DEVICE: Shape = Shape { name: "Device", said: "`device`" };

/// The members of a device reply (RFC 8628 §3.2).
const DEVICE_MEMBERS: &[&str] = &["device_code", "user_code", "verification_uri", "verification_uri_complete", "expires_in", "interval"];

fn path(node: &Node, problems: &Problems) -> Option<Path> {
    let path = Path::parse(scalar::text(node, problems)?);
    if path.is_none() {
        let hint = "join member names and list indexes by dots: `data.0.token`".to_owned();
        problems.say(&node.at, format!("expected the path of a member, found {}", node.found()), Some(hint));
    }
    path
}

pub(super) fn reply(fields: &Fields<'_>) -> ReplyMap {
    let Some(fields) = fields.section("reply", REPLY) else { return ReplyMap::default() };
    let at = |key| path(fields.get(key)?, fields.problems);
    let units = [("s", Unit::Seconds), ("ms", Unit::Milliseconds), ("min", Unit::Minutes)];
    let map = ReplyMap {
        at: at("at"),
        access_token: at("access_token"),
        refresh_token: at("refresh_token"),
        token_type: at("token_type"),
        expires_in: at("expires_in"),
        expires_at: at("expires_at"),
        expires_in_unit: fields.choice("expires_in_unit", &units).unwrap_or_default(),
        refresh_expires_in: at("refresh_expires_in"),
        scope: at("scope"),
        also: fields.list("also").unwrap_or_default().iter().filter_map(|node| also(node, fields.problems)).collect(),
    };
    fields.finish();
    map
}

fn also(node: &Node, problems: &Problems) -> Option<Also> {
    let fields = Fields::open(node, ALSO, problems)?;
    let account = fields.need("account").and_then(|_| fields.word("account"));
    let at = fields.need("at").and_then(|node| path(node, problems));
    fields.finish();
    Some(Also { account: account?.into(), at: at? })
}

pub(super) fn errors(fields: &Fields<'_>) -> ErrorRules {
    let Some(fields) = fields.section("errors", ERRORS) else { return ErrorRules::default() };
    let rules = ErrorRules {
        at: fields.list("at").unwrap_or_default().iter().filter_map(|node| path(node, fields.problems)).collect(),
        passing: signs(&fields, "passing"),
        ends_grant: signs(&fields, "ends_grant"),
        client: signs(&fields, "client"),
    };
    fields.finish();
    rules
}

pub(super) fn signs(fields: &Fields<'_>, key: &'static str) -> Vec<Sign> {
    let Some(node) = fields.get(key) else { return Vec::new() };
    list(node, fields.problems).unwrap_or_default().iter().filter_map(|node| sign(node, fields.problems)).collect()
}

/// A code, or a mapping of which everything must fit.
fn sign(node: &Node, problems: &Problems) -> Option<Sign> {
    if let Value::Scalar(scalar) = &node.value {
        if scalar.text.is_empty() {
            problems.say(&node.at, "an empty code fits nothing", None);
            return None;
        }
        return Some(Sign { code: Some(scalar.text.as_str().into()), ..Sign::default() });
    }
    let before = problems.count();
    let fields = Fields::open(node, SIGN, problems)?;
    let status = fields.get("status").and_then(|node| {
        let status = scalar::number(node, problems)?;
        let fits = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
        if fits.is_none() {
            problems.say(&node.at, format!("expected an HTTP status, found {}", node.found()), None);
        }
        fits
    });
    let code = fields.word("code").map(Box::from);
    let says = fields.word("says").map(Box::from);
    let member = fields.get("member").and_then(|node| path(node, problems));
    let equals: Option<Box<str>> = fields.text("equals").map(Box::from);
    if fields.peek("member").is_some() != fields.peek("equals").is_some() {
        fields.say(fields.at, "`member` and `equals` go together", None);
    }
    let sign = Sign { status, code, member: member.zip(equals), says };
    let at = fields.at;
    fields.finish();
    if sign == Sign::default() && problems.count() == before {
        problems.say(at, "a sign needs `status`, `code`, `says`, or `member` with `equals`: this one would fit everything", None);
    }
    (problems.count() == before).then_some(sign)
}

pub(super) fn device(fields: &Fields<'_>) -> DeviceRules {
    let Some(fields) = fields.section("device", DEVICE) else { return DeviceRules::default() };
    let renamed = |(key, node): &(Key, Node)| {
        if !DEVICE_MEMBERS.contains(&&*key.text) {
            let hint = crate::config::error::did_you_mean(&key.text, DEVICE_MEMBERS.iter().copied());
            fields.say(&key.at, format!("`{}` is no member of a device reply (RFC 8628 §3.2)", shown(&key.text)), hint);
            return None;
        }
        Some((key.text.as_str().into(), path(node, fields.problems)?))
    };
    let rules = DeviceRules {
        rename: fields.pairs("rename").iter().filter_map(renamed).collect(),
        pending: signs(&fields, "pending"),
        slow_down: signs(&fields, "slow_down"),
        denied: signs(&fields, "denied"),
        expired: signs(&fields, "expired"),
    };
    fields.finish();
    rules
}
