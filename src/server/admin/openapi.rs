//! The OpenAPI 3.1 document, made of the table that dispatches the calls and of the shapes of their bodies.

use super::calls::{CALLS, Call, Query, QueryKind};
use super::shapes;
use serde_json::{Map, Value, json};

/// The whole document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for call in CALLS {
        let path = paths.entry(call.path).or_insert_with(|| json!({}));
        path[call.method.to_ascii_lowercase()] = operation(call);
    }
    paths.insert("/healthz".to_owned(), json!({"get": health("The process answers.")}));
    paths.insert("/readyz".to_owned(), json!({"get": health("The store works too.")}));
    paths.insert(
        "/metrics".to_owned(),
        json!({"get": {
            "operationId": "metrics",
            "summary": "What was counted, in OpenMetrics text.",
            "description": "Without a token on loopback.",
            "security": [{"token": []}, {}],
            "responses": {"200": {"description": "The counts", "content": {crate::metrics::CONTENT_TYPE: {"schema": {"type": "string"}}}}},
        }}),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Attaché: the admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Connect sessions, connections, reload and what is live. Errors are `application/problem+json` (RFC 9457).",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:7072", "description": "The admin listener by default"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": shapes::schemas(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "The admin token: see `admin` in routes.yaml."},
            },
        },
    })
}

fn operation(call: &Call) -> Value {
    let mut operation = json!({
        "operationId": format!("{:?}", call.op),
        "summary": call.says,
        "description": format!("The admin token must allow `{}`.", call.allow.word()),
        "parameters": parameters(call),
        "responses": responses(call),
    });
    if let Some(body) = call.body {
        operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": reference(body)}}});
    }
    operation
}

fn parameters(call: &Call) -> Vec<Value> {
    let names = call.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = names.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    in_path.chain(call.query.iter().map(in_query)).collect()
}

fn in_query(query: &Query) -> Value {
    let schema = match query.kind {
        QueryKind::Text => json!({"type": "string"}),
        QueryKind::Number { least, most } => json!({"type": "integer", "minimum": least, "maximum": most}),
        QueryKind::OneOf(words) => json!({"type": "string", "enum": words}),
    };
    json!({"name": query.name, "in": "query", "required": query.required, "description": query.says, "schema": schema})
}

fn responses(call: &Call) -> Value {
    let mut responses = Map::new();
    for (status, shape, says) in call.answers {
        let body = json!({"application/json": {"schema": reference(shape)}});
        responses.insert(status.to_string(), json!({"description": says, "content": body}));
    }
    let common = [
        (400, "`invalid-request`: the detail says what is wrong."),
        (401, "`unauthorized`: no valid admin token."),
        (403, "`forbidden`: the token does not allow this, or the `Host` or `Origin` may not call."),
        (413, "`invalid-request`: the body is too large."),
        (503, "`store-unavailable`: try again later."),
    ];
    for (status, says) in call.errors.iter().chain(&common) {
        let body = json!({"application/problem+json": {"schema": reference("Problem")}});
        responses.entry(status.to_string()).or_insert_with(|| json!({"description": says, "content": body}));
    }
    Value::Object(responses)
}

fn health(says: &str) -> Value {
    let body = json!({"text/plain": {"schema": {"type": "string"}}});
    json!({
        "operationId": says.split_whitespace().nth(1).unwrap_or_default(),
        "summary": says,
        "description": "Without a token on loopback.",
        "security": [{"token": []}, {}],
        "responses": {"200": {"description": "Yes.", "content": body}, "503": {"description": "No.", "content": body}},
    })
}

fn reference(shape: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{shape}")})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_that_a_call_names_is_there() {
        let document = document();
        let schemas = &document["components"]["schemas"];
        for call in CALLS {
            for shape in call.body.iter().chain(call.answers.iter().map(|(_, shape, _)| shape)) {
                assert!(schemas.get(shape).is_some(), "{shape}");
            }
        }
        let text = document.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap_or_default();
            assert!(schemas.get(name).is_some(), "{name}");
        }
    }
}
