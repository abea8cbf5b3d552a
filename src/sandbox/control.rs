//! `/control`: how tests and developers turn the sandbox's switches and see what it did. Never shows a token, but the ones it issues.

use crate::base::secret::Secret;
use crate::sandbox::core::Core;
use crate::sandbox::grants::Grant;
use crate::sandbox::respond::{Answer, api_error, json, method_not_allowed, no_store};
use crate::sandbox::settings::{FailToken, Settings};
use crate::sandbox::{IssuedGrant, authorize, issue};
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use std::time::Duration;

const BODY_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error("send a JSON object of at most 64 KiB as application/json")]
    NotAnObject,
    #[error("{0} is not a switch")]
    Unknown(String),
    #[error("{name} must be {wanted}")]
    Wrong { name: String, wanted: &'static str },
}

pub(super) async fn control(core: &Core, request: Request<Incoming>) -> Answer {
    match *request.method() {
        Method::GET | Method::HEAD => json(StatusCode::OK, &shown(core)),
        Method::POST => match object(request).await.and_then(|switches| turn(core, &switches)) {
            Ok(()) => json(StatusCode::OK, &shown(core)),
            Err(why) => api_error(StatusCode::BAD_REQUEST, "invalid_argument", &why.to_string()),
        },
        _ => method_not_allowed("GET, HEAD, POST"),
    }
}

/// `GET` lists the grants, `POST {"user", "scopes", "client_id"}` makes one.
pub(super) async fn grants(core: &Core, request: Request<Incoming>) -> Answer {
    match *request.method() {
        Method::GET | Method::HEAD => {
            let shown = |(id, grant): (u64, &Grant)| {
                json!({"id": id, "user": *grant.user, "client_id": *grant.client_id, "scopes": *grant.scopes, "live": grant.live,
                       "refreshes": grant.refreshes, "reuse_detected": grant.reuse_detected})
            };
            let listed: Vec<Value> = core.grants().iter().map(shown).collect();
            json(StatusCode::OK, &json!({ "items": listed }))
        }
        Method::POST => match object(request).await.and_then(|asked| issue_asked(core, &asked)) {
            Ok(grant) => no_store(json(StatusCode::CREATED, &grant_json(&grant))),
            Err(why) => api_error(StatusCode::BAD_REQUEST, "invalid_argument", &why.to_string()),
        },
        _ => method_not_allowed("GET, HEAD, POST"),
    }
}

/// Wants `application/json`, which a browser sends to another origin only after asking, and this sandbox never allows it.
async fn object(request: Request<Incoming>) -> Result<Map<String, Value>, ControlError> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(ControlError::NotAnObject);
    }
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await.map_err(|_| ControlError::NotAnObject)?;
    match serde_json::from_slice(&body.to_bytes()) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) | Err(_) => Err(ControlError::NotAnObject),
    }
}

fn issue_asked(core: &Core, asked: &Map<String, Value>) -> Result<IssuedGrant, ControlError> {
    let wrong = |name: &str, wanted| ControlError::Wrong { name: name.to_owned(), wanted };
    if let Some(other) = asked.keys().find(|name| !["user", "scopes", "client_id"].contains(&name.as_str())) {
        return Err(ControlError::Unknown(other.clone()));
    }
    let user = asked.get("user").and_then(Value::as_str).filter(|user| authorize::is_user(user));
    let user = user.ok_or_else(|| wrong("user", "a name of at most 256 bytes"))?;
    let scopes = match asked.get("scopes") {
        None => None,
        Some(Value::Array(scopes)) => {
            let texts: Option<Vec<&str>> = scopes.iter().map(Value::as_str).collect();
            Some(texts.ok_or_else(|| wrong("scopes", "a list of texts"))?)
        }
        Some(_) => return Err(wrong("scopes", "a list of texts")),
    };
    let client_id = asked.get("client_id").and_then(Value::as_str);
    issue(core, client_id, user, scopes.as_deref()).ok_or_else(|| wrong("client_id", "the id of a registered client"))
}

fn grant_json(grant: &IssuedGrant) -> Value {
    json!({
        "access_token": grant.access_token.expose(),
        "refresh_token": grant.refresh_token.as_ref().map(Secret::expose),
        "token_type": "Bearer",
        "expires_at": grant.expires_at.to_rfc3339(),
        "scopes": grant.scopes,
    })
}

fn turn(core: &Core, switches: &Map<String, Value>) -> Result<(), ControlError> {
    // All or nothing: the settings are tried on a copy first.
    let mut tried = Settings::clone(&core.settings());
    for (name, value) in switches {
        if !set_one(&mut tried, name, value)? && !act(None, name, value)? {
            return Err(ControlError::Unknown(name.clone()));
        }
    }
    core.change(|settings| switches.iter().try_for_each(|(name, value)| set_one(settings, name, value).map(drop)))?;
    switches.iter().try_for_each(|(name, value)| act(Some(core), name, value).map(drop))
}

/// Whether `name` is a lasting setting; sets it if so.
fn set_one(settings: &mut Settings, name: &str, value: &Value) -> Result<bool, ControlError> {
    let wrong = |wanted| ControlError::Wrong { name: name.to_owned(), wanted };
    let count = || value.as_u64().ok_or_else(|| wrong("a whole number"));
    let millis = || count().map(Duration::from_millis);
    let flag = || value.as_bool().ok_or_else(|| wrong("true or false"));
    match name {
        "access_token_life_ms" => settings.access_token_life = millis()?,
        "refresh_token_life_ms" => settings.refresh_token_life = if value.is_null() { None } else { Some(millis()?) },
        "reuse_leeway_ms" => settings.reuse_leeway = millis()?,
        "rotate" => settings.rotate = flag()?,
        "require_pkce" => settings.require_pkce = flag()?,
        "token_delay_ms" => settings.token_delay = millis()?,
        "api_delay_ms" => settings.api_delay = millis()?,
        "device_interval_ms" => settings.device_interval = millis()?,
        "fail_token" => settings.fail_token = failure(value)?,
        "lose_token_answers" => settings.lose_token_answers = count()?,
        "api_reject_all" => settings.api_reject_all = flag()?,
        "api_reject_next" => settings.api_reject_next = count()?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Whether `name` is something to do at once; does it where there is a sandbox to do it to.
fn act(core: Option<&Core>, name: &str, value: &Value) -> Result<bool, ControlError> {
    let wrong = |wanted| ControlError::Wrong { name: name.to_owned(), wanted };
    match name {
        "revoke_user" => {
            let user = value.as_str().ok_or_else(|| wrong("a user's name"))?;
            core.map(|core| core.grants().end_user(user));
        }
        "expire_access_tokens" => {
            let now = value.as_bool().ok_or_else(|| wrong("true or false"))?;
            if let Some(core) = core.filter(|_| now) {
                core.grants().expire_access_tokens();
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// `null`, or `{status, body, content_type, retry_after, times}`; a body that is no text is sent as its JSON.
fn failure(value: &Value) -> Result<Option<FailToken>, ControlError> {
    let wrong = |wanted| ControlError::Wrong { name: "fail_token".to_owned(), wanted };
    if value.is_null() {
        return Ok(None);
    }
    let object = value.as_object().ok_or_else(|| wrong("null or an object with a status"))?;
    if let Some(other) = object.keys().find(|key| !["status", "body", "content_type", "retry_after", "times"].contains(&key.as_str())) {
        return Err(ControlError::Unknown(format!("fail_token.{other}")));
    }
    let status = object.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let status = status.filter(|status| (200..600).contains(status)).ok_or_else(|| wrong("given a status from 200 to 599"))?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let times = match object.get("times") {
        None | Some(Value::Null) => None,
        Some(times) => Some(times.as_u64().ok_or_else(|| wrong("given times as a whole number"))?),
    };
    if times == Some(0) {
        return Ok(None);
    }
    let body = object.get("body").map_or_else(|| r#"{"error":"server_error"}"#.to_owned(), text);
    let content_type = object.get("content_type").map_or_else(|| "application/json".to_owned(), text);
    let retry_after = object.get("retry_after").filter(|value| !value.is_null()).map(text);
    Ok(Some(FailToken { status, content_type, body, retry_after, times }))
}

fn shown(core: &Core) -> Value {
    let (settings, counters) = (core.settings(), core.count());
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let failure = settings.fail_token.as_ref().map(|failure| json!({"status": failure.status, "times": failure.times}));
    json!({
        "issuer": core.issuer,
        "counters": {
            "token_posts": counters.token_posts,
            "authorization_code_posts": counters.authorization_code_posts,
            "refresh_posts": counters.refresh_posts,
            "client_credentials_posts": counters.client_credentials_posts,
            "device_code_posts": counters.device_code_posts,
            "refreshes": counters.refreshes,
            "late_refreshes": counters.late_refreshes,
            "reuse_detections": counters.reuse_detections,
            "revocations": counters.revocations,
            "authorizations": counters.authorizations,
            "api_calls": counters.api_calls,
            "api_rejected": counters.api_rejected,
        },
        "settings": {
            "clients": settings.clients.iter().map(|client| client.id.as_str()).collect::<Vec<_>>(),
            "users": settings.users,
            "scopes": settings.scopes,
            "access_token_life_ms": millis(settings.access_token_life),
            "refresh_token_life_ms": settings.refresh_token_life.map(millis),
            "reuse_leeway_ms": millis(settings.reuse_leeway),
            "rotate": settings.rotate,
            "require_pkce": settings.require_pkce,
            "token_delay_ms": millis(settings.token_delay),
            "api_delay_ms": millis(settings.api_delay),
            "device_interval_ms": millis(settings.device_interval),
            "fail_token": failure,
            "lose_token_answers": settings.lose_token_answers,
            "api_reject_all": settings.api_reject_all,
            "api_reject_next": settings.api_reject_next,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: Value, expected: Result<bool, &str>) {
        let found = set_one(&mut Settings::default(), name, &value).map_err(|why| why.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{name} {value}");
    }

    #[test]
    fn switches_are_checked() {
        check("rotate", json!(false), Ok(true));
        check("rotate", json!("no"), Err("rotate must be true or false"));
        check("token_delay_ms", json!(-1), Err("token_delay_ms must be a whole number"));
        check("refresh_token_life_ms", Value::Null, Ok(true));
        check("fail_token", json!({"status": 503, "times": 2, "retry_after": 7}), Ok(true));
        check("fail_token", json!({"status": 99}), Err("fail_token must be given a status from 200 to 599"));
        check("fail_token", json!({"status": 500, "tmies": 1}), Err("fail_token.tmies is not a switch"));
        check("rotates", json!(true), Ok(false));
    }
}
