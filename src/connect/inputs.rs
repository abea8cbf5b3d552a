//! What connecting asks of the end user besides consent (a sub-domain, a shop, a host): who gives it, and whether it is what it should be.
//!
//! In this order: the operator in the registration, the app in the session's metadata, the end user on the connect page. Whoever it was, the
//! value is checked by its kind before it chooses where a secret goes.

use crate::provider::{Input, Kind, Registration};
use serde_json::Value;
use std::collections::BTreeMap;

type Metadata = BTreeMap<String, Value>;

/// What nobody has given yet, in the definition's order.
pub(super) fn open(registration: &Registration, metadata: &Metadata) -> Vec<Input> {
    let inputs = registration.dialect.inputs.iter();
    inputs.filter(|input| input.value.is_none() && given(input, metadata).is_none()).cloned().collect()
}

/// Every input's value, what is typed for those that are open.
///
/// # Errors
/// In words for whoever fills in the form.
pub(super) fn fill<'f>(
    registration: &Registration,
    metadata: &Metadata,
    typed: impl Fn(&str) -> Option<&'f str>,
) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    for input in &registration.dialect.inputs {
        let value = match (&input.value, given(input, metadata)) {
            (Some(value), _) => value.to_string(),
            (None, Some(value)) => value,
            (None, None) => {
                let text = typed(&input.name).unwrap_or_default();
                check(input, text).ok_or_else(|| problem(input, text))?
            }
        };
        all.insert(input.name.to_string(), value);
    }
    Ok(all)
}

/// Whether what an app gives fits, so that its developer hears of it and not its end user.
///
/// # Errors
/// In words for the app's developer.
pub(super) fn check_given(registration: &Registration, metadata: &Metadata) -> Result<(), String> {
    for input in &registration.dialect.inputs {
        if metadata.contains_key(&*input.name) && given(input, metadata).is_none() {
            return Err(format!("`metadata.{}` is no value that `{}` can be connected to with", input.name, registration.id));
        }
    }
    Ok(())
}

fn given(input: &Input, metadata: &Metadata) -> Option<String> {
    check(input, metadata.get(&*input.name)?.as_str()?)
}

/// The value as it is kept. A pasted address does for a host or for what stands before the input's suffix.
fn check(input: &Input, text: &str) -> Option<String> {
    let mut text = text.trim();
    if matches!(input.kind, Kind::Host(_) | Kind::Label) {
        text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        text = text.split('/').next().unwrap_or(text);
    }
    if let Some(suffix) = input.suffix.as_deref() {
        let cut = text.len().checked_sub(suffix.len()).filter(|cut| text.is_char_boundary(*cut));
        if let Some(cut) = cut.filter(|cut| text[*cut..].eq_ignore_ascii_case(suffix)) {
            text = &text[..cut];
        }
    }
    input.kind.check(text).map(Into::into)
}

fn problem(input: &Input, text: &str) -> String {
    let label = &input.label;
    if text.trim().is_empty() {
        return format!("Enter “{label}”.");
    }
    match &input.example {
        Some(example) => format!("“{label}” is not as it must be. An example: {example}"),
        None => format!("“{label}” is not as it must be."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::tests::registration;
    use serde_json::json;

    fn input(name: &str, kind: Kind, suffix: Option<&str>) -> Input {
        Input { name: name.into(), label: name.into(), example: Some("acme".into()), kind, value: None, suffix: suffix.map(Into::into) }
    }

    fn with_inputs() -> Registration {
        let mut reg = registration("http://127.0.0.1:1");
        reg.dialect.inputs = vec![
            input("sub", Kind::Label, Some(".acme.test")),
            input("host", Kind::Host(vec!["*.shop.test".into()]), None),
            Input { value: Some("fixed".into()), ..input("own", Kind::Text, None) },
        ];
        reg
    }

    fn metadata(value: Value) -> Metadata {
        serde_json::from_value(value).expect("an object")
    }

    fn typed(sub: &str, host: &str) -> Result<BTreeMap<String, String>, String> {
        fill(&with_inputs(), &Metadata::new(), |name| Some(if name == "sub" { sub } else { host }).filter(|text| !text.is_empty()))
    }

    #[test]
    fn a_pasted_address_does_too() {
        for sub in ["acme", " ACME ", "acme.acme.test", "https://acme.acme.test/agent/1", "Acme.ACME.test"] {
            let all = typed(sub, "https://a.shop.test/admin").expect(sub);
            assert_eq!((&*all["sub"], &*all["host"], &*all["own"]), ("acme", "a.shop.test", "fixed"), "{sub}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_by_its_label() {
        for (sub, host, problem) in [
            ("", "a.shop.test", "Enter “sub”."),
            ("a b", "a.shop.test", "“sub” is not as it must be. An example: acme"),
            ("evil.test", "a.shop.test", "“sub” is not as it must be. An example: acme"),
            ("acme.acme.test.evil.test", "a.shop.test", "“sub” is not as it must be. An example: acme"),
            ("é", "a.shop.test", "“sub” is not as it must be. An example: acme"),
            ("acme", "evil.test", "“host” is not as it must be. An example: acme"),
            ("acme", "a.shop.test@evil.test", "“host” is not as it must be. An example: acme"),
            ("acme", "", "Enter “host”."),
        ] {
            assert_eq!(typed(sub, host).expect_err("refused"), problem);
        }
    }

    #[test]
    fn nobody_is_asked_for_what_is_given() {
        let reg = with_inputs();
        let names = |metadata: &Metadata| open(&reg, metadata).iter().map(|input| input.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&Metadata::new()), ["sub", "host"]);
        let given = metadata(json!({"sub": "acme", "host": "evil.test", "own": "another"}));
        assert_eq!(names(&given), ["host"], "what does not fit is not given");
        assert!(check_given(&reg, &given).expect_err("refused").contains("metadata.host"));
        let all = fill(&reg, &given, |_| Some("a.shop.test")).expect("filled");
        assert_eq!((&*all["sub"], &*all["own"]), ("acme", "fixed"));
        assert!(check_given(&reg, &metadata(json!({"sub": "acme", "order": 7}))).is_ok());
    }
}
