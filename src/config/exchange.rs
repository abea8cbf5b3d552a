//! Which registration's tokens another exchanges (RFC 8693): found by name once all of them are read, so that a call has both by one config.

use super::error::{At, did_you_mean};
use super::fields::Problems;
use super::node::{Key, Node};
use crate::provider::{Exchange, Mint, Registration};
use std::collections::BTreeMap;
use std::sync::Arc;

type Registrations = BTreeMap<Arc<str>, Arc<Registration>>;

/// Puts into each exchange the registration that it names. Those whose source is unknown, or goes round in a circle, are left out and told.
pub(super) fn link(mut unlinked: Registrations, entries: &[(Key, Node)], problems: &Problems) -> Registrations {
    let mut linked = Registrations::new();
    let exchanges = |registration: &Arc<Registration>| exchange_of(registration).is_some();
    let plain: Vec<_> = unlinked.values().filter(|registration| !exchanges(registration)).map(|found| found.id.clone()).collect();
    linked.extend(plain.into_iter().filter_map(|id| unlinked.remove_entry(&id)));
    // Each pass links those whose source is linked by now; what is left when a pass finds none has no source that could be.
    loop {
        let ready: Vec<_> = unlinked.values().filter_map(|waiting| with_source(waiting, &linked)).collect();
        if ready.is_empty() {
            break;
        }
        for registration in ready {
            unlinked.remove(&registration.id);
            linked.insert(registration.id.clone(), Arc::new(registration));
        }
    }
    for (registration, exchange) in unlinked.values().filter_map(|left| Some((left, exchange_of(left)?))) {
        if let Some((key, _)) = entries.iter().find(|(key, _)| *key.text == *registration.id) {
            tell(&key.at, registration, exchange, &unlinked, entries, problems);
        }
    }
    linked
}

fn tell(at: &At, registration: &Registration, exchange: &Exchange, left: &Registrations, entries: &[(Key, Node)], problems: &Problems) {
    let (id, from) = (&registration.id, &exchange.from);
    let known = || entries.iter().map(|(key, _)| &*key.text);
    if left.contains_key(&**from) {
        problems.say(at, format!("`{id}` exchanges tokens of `{from}`, which come round to where they began"), None);
    } else if !known().any(|known| *known == **from) {
        let hint = did_you_mean(from, known()).unwrap_or_else(|| "register it under `providers:`".to_owned());
        problems.say(at, format!("`{id}` exchanges tokens of `{from}`, and no provider is called that"), Some(hint));
    }
    // Else the source has faults of its own, which are told.
}

fn exchange_of(registration: &Registration) -> Option<&Exchange> {
    match &registration.mint {
        Some(Mint::Exchange(exchange)) => Some(exchange),
        Some(Mint::JwtBearer(_)) | None => None,
    }
}

fn with_source(waiting: &Registration, linked: &Registrations) -> Option<Registration> {
    let exchange = exchange_of(waiting)?;
    let source = Some(Arc::clone(linked.get(&*exchange.from)?));
    Some(Registration { mint: Some(Mint::Exchange(Exchange { source, ..exchange.clone() })), ..waiting.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::node::Value;
    use crate::oauth::tests::registration;
    use std::path::Path;

    fn check(links: &[(&str, Option<&str>)], expected: &[(&str, Option<&str>)], faults: &[&str]) {
        let at = At::start_of(&Arc::from(Path::new("routes.yaml")));
        let (mut all, mut entries) = (Registrations::new(), Vec::new());
        for (id, from) in links {
            let mint = from.map(|from| {
                let exchange = Exchange {
                    from: from.into(),
                    source: None,
                    subject_token_type: "t".into(),
                    requested_token_type: None,
                    audience: Vec::new(),
                };
                Mint::Exchange(exchange)
            });
            all.insert((*id).into(), Arc::new(Registration { id: (*id).into(), mint, ..registration("http://127.0.0.1:1") }));
            entries.push((Key { text: (*id).into(), at: at.clone() }, Node { value: Value::Null, at: at.clone() }));
        }
        let problems = Problems::default();
        let linked = link(all, &entries, &problems);
        let source = |registration: &Registration| exchange_of(registration).and_then(|exchange| exchange.source.clone());
        let found: Vec<_> =
            linked.values().map(|found| (found.id.to_string(), source(found).map(|source| source.id.to_string()))).collect();
        let expected: Vec<_> = expected.iter().map(|(id, source)| ((*id).to_owned(), source.map(str::to_owned))).collect();
        assert_eq!(found, expected);
        let told: Vec<_> = problems.take(&[]).0.into_iter().map(|fault| fault.message).collect();
        assert_eq!(told.len(), faults.len(), "{told:?}");
        assert!(told.iter().zip(faults).all(|(told, fault)| told.contains(fault)), "{told:?}");
    }

    #[test]
    fn exchanges_are_linked_whatever_their_order_and_length() {
        check(
            &[("a", Some("b")), ("b", Some("c")), ("c", None), ("d", Some("c"))],
            &[("a", Some("b")), ("b", Some("c")), ("c", None), ("d", Some("c"))],
            &[],
        );
    }

    #[test]
    fn a_circle_and_an_unknown_source_are_told() {
        check(&[("a", Some("b")), ("b", Some("a")), ("c", None)], &[("c", None)], &["come round", "come round"]);
        check(&[("a", Some("a"))], &[], &["come round"]);
        check(&[("acme", Some("idp")), ("ipd", None)], &[("ipd", None)], &["no provider is called that"]);
    }
}
