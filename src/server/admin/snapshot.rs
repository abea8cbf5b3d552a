//! Calls about the config: reload, routes, providers, explain.

use super::{Admin, Asked, Outcome, Refused};
use crate::base::problem::Problem;
use crate::config::{Bind, ConfigErrors, Route, Snapshot};
use crate::connect::is_connectable;
use crate::provider::Input;
use crate::proxy::explain;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

impl Admin {
    pub(super) async fn reload(&self) -> Outcome {
        let live = Arc::clone(&self.live);
        // Reading and checking files blocks.
        match tokio::task::spawn_blocking(move || live.reload()).await {
            Ok(Ok(done)) => Ok((StatusCode::OK, json!({"generation": done.generation, "restart_required": done.restart_required}))),
            Ok(Err(errors)) => Ok((StatusCode::UNPROCESSABLE_ENTITY, json!({"errors": errors_json(&errors)}))),
            Err(_) => {
                let detail = "The reload broke off; the old config stays. The log says more.";
                Err(Refused::Other(Box::new(Problem::new("internal", StatusCode::INTERNAL_SERVER_ERROR, "Attaché failed", detail))))
            }
        }
    }

    pub(super) fn routes(&self) -> (StatusCode, Value) {
        let snapshot = self.live.snapshot();
        let item = |route: &Route, listen: Option<Vec<String>>| {
            json!({
                "name": route.name, "match": route.matches, "upstream": snapshot.masked(&route.upstream),
                "provider": route.provider.as_ref().map(|provider| &*provider.id),
                "attach": explain::scheme_words(&route.attach),
                "listen": listen,
            })
        };
        let origins = snapshot.startup.origins.iter().zip(&snapshot.origins);
        let origins = origins.filter_map(|(listener, origin)| {
            let listen = listener.binds.iter().map(Bind::to_string).collect();
            Some(item(origin.route.as_deref()?, Some(listen)))
        });
        let items: Vec<Value> = snapshot.route_list.iter().map(|route| item(route, None)).chain(origins).collect();
        (StatusCode::OK, json!({"generation": snapshot.generation, "items": items}))
    }

    pub(super) fn providers(&self) -> (StatusCode, Value) {
        let snapshot = self.live.snapshot();
        let items: Vec<Value> = snapshot
            .providers
            .values()
            .map(|provider| {
                let inputs: Vec<Value> = provider.dialect.inputs.iter().map(|input| input_json(&snapshot, input)).collect();
                json!({
                    "id": &*provider.id, "definition": provider.definition, "display_name": provider.display_name,
                    "on": provider.off.is_none(), "off_because": provider.off,
                    "redirect_uri": self.connect.redirect_uri(&provider.id), "connectable": is_connectable(provider),
                    "category": provider.category, "verified": provider.verified.word(), "inputs": inputs,
                })
            })
            .collect();
        (StatusCode::OK, json!({"items": items}))
    }

    pub(super) fn explain(&self, asked: &Asked<'_>) -> Outcome {
        let value = |name: &str| asked.query.get(name).map(String::as_str);
        let method = value("method").unwrap_or("GET").parse::<Method>().map_err(|_| "`method` is no HTTP method".to_owned())?;
        let explained = explain::explain(&self.live.snapshot(), &method, value("url").unwrap_or_default())?;
        Ok((StatusCode::OK, explained.to_json()))
    }
}

fn input_json(snapshot: &Snapshot, input: &Input) -> Value {
    let value = input.value.as_deref().map(|value| snapshot.masked_value(value));
    json!({"name": input.name, "label": input.label, "example": input.example, "suffix": input.suffix, "value": value})
}

fn errors_json(errors: &ConfigErrors) -> Vec<Value> {
    let one = |error: &crate::config::ConfigError| json!({"file": error.file.display().to_string(), "line": error.line, "column": error.column, "message": error.message, "hint": error.hint});
    errors.0.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_value_that_a_variable_gave_is_not_shown() {
        let env = |name: &str| (name == "SHOP").then(|| "https://Secret-Shop.shop.test".to_owned());
        let inputs =
            "inputs: {host: {kind: host, hosts: [\"*.shop.test\"], value: HOST}, sub: {kind: label, suffix: .shop.test, value: SUB}}";
        let inputs = inputs.replace("sub:", "shop:").replace("HOST", "a.shop.test").replace("SUB", "acme");
        let check = |inputs: &str, expected: [&str; 2]| {
            let text = format!("providers:\n  w: {{client_id: a, token_url: \"https://w.test/t\", {inputs}}}\n");
            let snapshot = crate::config::load_str(&text, Path::new("routes.yaml"), Path::new("/"), &env).expect("loads");
            let shown: Vec<Value> =
                snapshot.providers["w"].dialect.inputs.iter().map(|input| input_json(&snapshot, input)["value"].clone()).collect();
            assert_eq!(shown, expected, "{inputs}");
        };
        check(&inputs, ["a.shop.test", "acme"]);
        let origin = inputs.replace("kind: host", "kind: origin").replace("a.shop.test", "\"${SHOP}\"");
        check(&origin, ["…", "acme"]);
    }
}
