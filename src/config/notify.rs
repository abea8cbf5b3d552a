//! `notify`: who is told of what, by a webhook or by a program.

use super::error::did_you_mean;
use super::fields::{Fields, Shape};
use super::node::{Node, Value};
use super::scalar;
use crate::notices::{Event, Target, Targets, Way, WebhookSecret};

const NOTIFY: Shape = Shape { name: "Notify", said: "an entry of `notify`" };

pub(super) fn read(root: &Fields<'_>) -> Targets {
    let mut targets: Vec<Target> = Vec::new();
    for node in root.list("notify").unwrap_or_default() {
        let Some(target) = one(node, root) else { continue };
        if targets.iter().any(|other| other.id == target.id) {
            root.problems.say(&node.at, format!("{} stands here twice", target.name()), Some("name its events in one entry".into()));
            continue;
        }
        targets.push(target);
    }
    targets.into()
}

fn one(node: &Node, root: &Fields<'_>) -> Option<Target> {
    let fields = Fields::open(node, NOTIFY, root.problems)?;
    let (webhook, exec) = (fields.get("webhook"), fields.get("exec"));
    let secret = fields.get("secret");
    let way = match (webhook, exec) {
        (Some(url), None) => webhook_of(&fields, url, secret),
        (None, Some(exec)) => {
            if let Some(secret) = secret {
                fields.say(&secret.at, "`secret` signs webhooks; a program is not sent one".to_owned(), None);
            }
            exec_of(&fields, exec)
        }
        _ => {
            fields.say(&node.at, "an entry of `notify` has either `webhook` or `exec`".to_owned(), None);
            None
        }
    };
    let events = events(&fields);
    fields.finish();
    Some(Target::new(way?, events?))
}

fn webhook_of(fields: &Fields<'_>, node: &Node, secret: Option<&Node>) -> Option<Way> {
    let url = scalar::secure_url(node, fields.problems);
    let Some(secret) = secret else {
        let hint = "`attache keygen` makes one; give it to the receiver too".to_owned();
        fields.say(&node.at, "a webhook needs a `secret` that signs it".to_owned(), Some(hint));
        return None;
    };
    let text = scalar::text(secret, fields.problems)?;
    let parsed = WebhookSecret::parse(text);
    if parsed.is_none() {
        let hint = "`attache keygen` makes one; `whsec_` may stand before it".to_owned();
        fields.say(&secret.at, "`secret` is base64 of 24 to 64 bytes".to_owned(), Some(hint));
    }
    Some(Way::Webhook { url: url?.as_str().into(), secret: parsed? })
}

/// A program, or a list of it and its arguments. No shell reads it.
fn exec_of(fields: &Fields<'_>, node: &Node) -> Option<Way> {
    let argv: Vec<Box<str>> = match &node.value {
        Value::List(nodes) => nodes.iter().map(|node| scalar::text(node, fields.problems).map(Into::into)).collect::<Option<_>>()?,
        _ => vec![scalar::text(node, fields.problems)?.into()],
    };
    if argv.first().is_none_or(|program| program.is_empty()) {
        fields.say(&node.at, "expected a program, or a list of a program and its arguments".to_owned(), None);
        return None;
    }
    Some(Way::Exec { argv })
}

/// All where none are named.
fn events(fields: &Fields<'_>) -> Option<Vec<Event>> {
    let Some(named) = fields.texts("events") else { return Some(Event::ALL.to_vec()) };
    let mut events = Vec::new();
    let mut whole = true;
    for (node, text) in named {
        match Event::ALL.into_iter().find(|event| event.name() == text) {
            Some(event) => events.push(event),
            None => {
                let names: Vec<&str> = Event::ALL.iter().map(|event| event.name()).collect();
                let hint = did_you_mean(text, names.iter().copied());
                fields.say(&node.at, format!("expected an event, found {}; there are {}", node.found(), names.join(", ")), hint);
                whole = false;
            }
        }
    }
    whole.then_some(events)
}

#[cfg(test)]
mod tests {
    use super::super::load::load_str;
    use crate::notices::{Event, Way};
    use std::path::Path;

    fn load(notify: &str) -> Result<super::super::Snapshot, String> {
        let text = format!("notify:\n{notify}routes: []\n");
        load_str(&text, Path::new("routes.yaml"), Path::new("/nowhere"), &|_| None).map_err(|errors| errors.to_string())
    }

    #[test]
    fn targets_are_webhooks_and_programs() {
        let snapshot = load(
            "  - {webhook: 'https://hooks.example.com/attache', secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, events: [connection.created]}\n  - {exec: [/usr/local/bin/tell, --now]}\n",
        )
        .expect("loads");
        let [webhook, exec] = &*snapshot.notify else { panic!("{:?}", snapshot.notify) };
        assert_eq!((webhook.name(), &webhook.events), ("webhook hooks.example.com".to_owned(), &vec![Event::ConnectionCreated]));
        assert_eq!(exec.events.len(), 9);
        assert!(matches!(&exec.way, Way::Exec { argv } if argv.len() == 2));
        assert!(!format!("{:?}", snapshot.notify).contains("MfKQ9r8"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (notify, expected) in [
            ("  - {webhook: 'https://a.example', secret: short}\n", "routes.yaml:2:44: `secret` is base64 of 24 to 64 bytes"),
            ("  - {webhook: 'https://a.example'}\n", "a webhook needs a `secret`"),
            ("  - {webhook: 'http://a.example', secret: MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}\n", "http://"),
            ("  - {exec: tell, events: [conection.created]}\n", "did you mean `connection.created`?"),
            ("  - {exec: tell, secret: x}\n", "`secret` signs webhooks"),
            ("  - {exec: tell, webhook: 'https://a.example'}\n", "either `webhook` or `exec`"),
            ("  - {exec: []}\n", "expected a program"),
            ("  - {exec: tell}\n  - {exec: tell}\n", "routes.yaml:3:5: exec tell stands here twice"),
        ] {
            let errors = load(notify).expect_err(notify);
            assert!(errors.contains(expected), "{notify}: {errors}");
        }
    }
}
