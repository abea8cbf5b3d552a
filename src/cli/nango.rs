//! Reads what users of Nango export, a connection as its API shows it with its credentials, and makes import lines of them.
//!
//! The provider is Nango's `provider_config_key`, and the end user the one its connect session named (`end_user.id`, or the tag
//! `end_user_id`), else the connection's own id.

use serde_json::{Map, Value, json};

/// The connections of a text: an array, an object with `connections`, one object, or JSON lines.
///
/// # Errors
/// When the text is none of these. No value of it is quoted.
pub(super) fn connections(text: &str) -> Result<Vec<Value>, String> {
    let whole: Result<Value, _> = serde_json::from_str(text);
    match whole {
        Ok(Value::Array(list)) => Ok(list),
        Ok(Value::Object(mut object)) => match object.remove("connections") {
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err("`connections` is not a list".to_owned()),
            None => Ok(vec![Value::Object(object)]),
        },
        Ok(_) => Err("expected a connection, or a list of them".to_owned()),
        Err(_) => text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(number, line)| {
                serde_json::from_str(line).map_err(|_| format!("line {} is not JSON, and the whole is not either", number + 1))
            })
            .collect(),
    }
}

/// One connection as an import line; `renamed` gives a provider its name in routes.yaml.
///
/// # Errors
/// In words that name the member, never its value.
pub(super) fn import_line(connection: &Value, renamed: impl Fn(&str) -> String) -> Result<Map<String, Value>, String> {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let provider = text(&connection["provider_config_key"]).ok_or("`provider_config_key` is missing")?;
    let end_user = [&connection["end_user"]["id"], &connection["tags"]["end_user_id"], &connection["connection_id"], &connection["id"]];
    let end_user = end_user.into_iter().find_map(text).ok_or("`connection_id` is missing")?;
    let credentials = &connection["credentials"];
    let mut line = Map::new();
    line.insert("provider".to_owned(), renamed(&provider).into());
    line.insert("end_user".to_owned(), end_user.into());
    let kind = text(&credentials["type"]).unwrap_or_default();
    // Nango's members, and what an import line calls them.
    let members: &[(&str, &str)] = match kind.as_str() {
        "OAUTH2" | "OAUTH2_CC" | "APP" => {
            &[("access_token", "access_token"), ("token", "access_token"), ("refresh_token", "refresh_token"), ("expires_at", "expires_at")]
        }
        "OAUTH1" => &[("oauth_token", "access_token"), ("oauth_token_secret", "token_secret")],
        "API_KEY" => &[("apiKey", "api_key"), ("api_key", "api_key")],
        "BASIC" => &[("username", "username"), ("password", "password")],
        "" => return Err("`credentials` is missing: export connections with their credentials".to_owned()),
        _ => return Err("credentials of this `type` have no import line yet: OAUTH2, OAUTH1, API_KEY and BASIC do".to_owned()),
    };
    for (from, to) in members {
        if let Some(value) = text(&credentials[*from]) {
            line.insert((*to).to_owned(), value.into());
        }
    }
    if let Some(scopes) = text(&credentials["raw"]["scope"]) {
        line.insert("scopes".to_owned(), json!(scopes.split([' ', ',']).filter(|scope| !scope.is_empty()).collect::<Vec<_>>()));
    }
    let mut metadata = connection["metadata"].as_object().cloned().unwrap_or_default();
    // What a provider's URLs are filled in with (a subdomain, an instance) stands apart in Nango.
    metadata.extend(connection["connection_config"].as_object().cloned().unwrap_or_default());
    if !metadata.is_empty() {
        line.insert("metadata".to_owned(), metadata.into());
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(connection: Value) -> Result<Value, String> {
        import_line(&connection, |id| if id == "google-drive" { "google".to_owned() } else { id.to_owned() }).map(Value::Object)
    }

    #[test]
    fn an_oauth_connection_keeps_its_tokens_scopes_and_metadata() {
        let connection = json!({
            "id": 18, "connection_id": "c-1", "provider": "google-drive", "provider_config_key": "google-drive",
            "end_user": {"id": "megan@personalemail.com", "email": null},
            "credentials": {"type": "OAUTH2", "access_token": "A", "refresh_token": "R", "expires_at": "2026-03-01T10:00:00Z", "raw": {"scope": "a b"}},
            "connection_config": {"subdomain": "x"}, "metadata": {"order": 7},
        });
        let expected = json!({
            "provider": "google", "end_user": "megan@personalemail.com", "access_token": "A", "refresh_token": "R",
            "expires_at": "2026-03-01T10:00:00Z", "scopes": ["a", "b"], "metadata": {"order": 7, "subdomain": "x"},
        });
        assert_eq!(line(connection), Ok(expected));
    }

    #[test]
    fn keys_and_passwords_too_and_the_rest_is_told() {
        let of = |credentials: Value| json!({"connection_id": "c-1", "provider_config_key": "x", "credentials": credentials});
        assert_eq!(line(of(json!({"type": "API_KEY", "apiKey": "K"}))), Ok(json!({"provider": "x", "end_user": "c-1", "api_key": "K"})));
        assert_eq!(line(of(json!({"type": "BASIC", "username": "u", "password": "p"}))).expect("a line")["password"], "p");
        let signed = line(of(json!({"type": "OAUTH1", "oauth_token": "t", "oauth_token_secret": "s"}))).expect("a line");
        assert_eq!((&signed["access_token"], &signed["token_secret"]), (&json!("t"), &json!("s")));
        for (credentials, why) in
            [(json!({}), "`credentials` is missing"), (json!({"type": "TBA", "token_id": "CANARY"}), "no import line")]
        {
            let told = line(of(credentials)).expect_err("refused");
            assert!(told.contains(why) && !told.contains("CANARY"), "{told}");
        }
        assert!(line(json!({})).is_err());
    }

    #[test]
    fn lists_come_in_every_form() {
        for (text, count) in [("[{}, {}]", 2), (r#"{"connections": [{}]}"#, 1), (r#"{"connection_id": "c"}"#, 1), ("{}\n\n{}\n{}\n", 3)] {
            assert_eq!(connections(text).map(|list| list.len()), Ok(count), "{text}");
        }
        for text in ["7", "nonsense", r#"{"connections": 7}"#, "{}\nCANARY"] {
            assert!(connections(text).is_err_and(|why| !why.contains("CANARY")), "{text}");
        }
    }
}
