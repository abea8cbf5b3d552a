//! Calls about connections.

use super::read::Body;
use super::sessions::broke_off;
use super::{Admin, Asked, Outcome, Refused};
use crate::base::ids::{ConnectionKey, DEFAULT_ACCOUNT};
use crate::base::problem::Problem;
use crate::connect::connections::LIMIT_DEFAULT;
use crate::connect::create::check_metadata;
use crate::connect::{Filter, ListError, Refreshed};
use crate::identity::check_name;
use crate::store::wire::{parse_line, shown};
use crate::store::{Connection, State};
use crate::token::KeeperError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::RETRY_AFTER;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const NO_CONNECTION: &str = "There is no such connection.";

impl Asked<'_> {
    /// The connection that the path and `account` name. An app's own has no end user.
    fn key(&self) -> Result<ConnectionKey, Refused> {
        let account = self.query.get("account").map_or(DEFAULT_ACCOUNT, String::as_str);
        let (provider, end_user) = (&self.parts[0], &self.parts[1]);
        for (what, name) in [("provider", provider.as_str()), ("end user", end_user.as_str()), ("account", account)] {
            if !(what == "end user" && name.is_empty()) {
                check_name(name).map_err(|why| format!("the {what} is refused: {why}"))?;
            }
        }
        Ok(ConnectionKey::new(provider, end_user, account))
    }

    fn filter(&self) -> (Filter, usize, Option<&str>) {
        let value = |name: &str| self.query.get(name).cloned();
        let state = match self.query.get("state").map(String::as_str) {
            Some("pending") => Some(State::Pending),
            Some("active") => Some(State::Active),
            Some("expired") => Some(State::Expired),
            Some("reconnect_required") => Some(State::ReconnectRequired),
            _ => None,
        };
        let limit = self.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(LIMIT_DEFAULT);
        (Filter { provider: value("provider"), end_user: value("end_user"), state }, limit, self.query.get("cursor").map(String::as_str))
    }
}

impl Admin {
    pub(super) async fn list_connections(&self, asked: &Asked<'_>) -> Outcome {
        let (filter, limit, cursor) = asked.filter();
        let page = self.connect.list(&filter, limit, cursor).await?;
        let items: Vec<Value> = page.items.iter().map(shown).collect();
        Ok((StatusCode::OK, json!({"items": items, "next_cursor": page.next})))
    }

    pub(super) async fn export_connections(&self, asked: &Asked<'_>) -> Outcome {
        let (filter, limit, cursor) = asked.filter();
        let page = self.connect.list(&filter, limit, cursor).await?;
        let items = page.items.iter().map(|connection| self.export_line(connection)).collect::<Result<Vec<_>, _>>()?;
        Ok((StatusCode::OK, json!({"items": items, "next_cursor": page.next})))
    }

    fn export_line(&self, connection: &Connection) -> Result<Value, Refused> {
        let sealed = STANDARD.encode(self.records.seal_connection(connection)?);
        let key = &connection.key;
        Ok(json!({"provider": key.provider, "end_user": key.end_user, "account": key.account, "sealed": sealed}))
    }

    pub(super) async fn show_connection(&self, asked: &Asked<'_>) -> Outcome {
        let connection = self.connect.connection(&asked.key()?).await?.ok_or(Refused::NotFound(NO_CONNECTION))?;
        Ok((StatusCode::OK, shown(&connection)))
    }

    pub(super) async fn put_connection(&self, asked: &Asked<'_>) -> Outcome {
        let key = asked.key()?;
        let snapshot = self.live.snapshot();
        if !snapshot.providers.contains_key(&*key.provider) {
            return Err(Refused::NotFound("No provider of routes.yaml has this name."));
        }
        let connection = self.import_line(asked.body, &key)?;
        check_metadata(&connection.metadata)?;
        let written = self.connect.put(connection).await?;
        let status = if written.is_new { StatusCode::CREATED } else { StatusCode::OK };
        Ok((status, shown(&written.connection)))
    }

    /// The line of a body; what the path says already may be left out of it, and must not differ.
    fn import_line(&self, body: &[u8], key: &ConnectionKey) -> Result<Connection, Refused> {
        let parsed: Result<Value, _> = serde_json::from_slice(body);
        let Ok(Value::Object(mut fields)) = parsed else { return Err(Refused::Invalid("the body is not a JSON object".to_owned())) };
        for (name, value) in [("provider", &key.provider), ("end_user", &key.end_user), ("account", &key.account)] {
            match fields.get(name) {
                None | Some(Value::Null) => drop(fields.insert(name.to_owned(), Value::from(&**value))),
                Some(Value::String(text)) if **text == **value => {}
                Some(_) => return Err(Refused::Invalid(format!("`{name}` is not the one that the request's URL names"))),
            }
        }
        if fields.contains_key("sealed") {
            return self.sealed_line(&fields, key);
        }
        Ok(parse_line(fields, self.clock.now())?)
    }

    fn sealed_line(&self, fields: &Map<String, Value>, key: &ConnectionKey) -> Result<Connection, Refused> {
        if let Some(other) = fields.keys().find(|name| !["provider", "end_user", "account", "sealed"].contains(&name.as_str())) {
            return Err(Refused::Invalid(format!("`{other}` does not go with `sealed`, which holds everything")));
        }
        let bytes = fields.get("sealed").and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.ok_or_else(|| "`sealed` is not base64 as an export writes it".to_owned())?;
        let connection = self.records.open_sealed(key, &bytes);
        connection.map_err(|_| {
            let why = "`sealed` does not open: it was sealed with a key that is not in `store.encryption_keys`, or for another connection";
            Refused::Invalid(why.to_owned())
        })
    }

    pub(super) async fn patch_connection(&self, asked: &Asked<'_>) -> Outcome {
        let body = Body::parse(asked.body)?;
        let change = body.object("metadata")?.ok_or_else(|| "`metadata` is missing".to_owned())?;
        if change.contains_key("sub") {
            return Err(Refused::Invalid("`metadata.sub` is Attaché's own: whose account it is, as the provider said".to_owned()));
        }
        body.finish()?;
        let connection = self.connect.patch_metadata(&asked.key()?, &change).await?;
        connection.map(|connection| (StatusCode::OK, shown(&connection))).ok_or(Refused::NotFound(NO_CONNECTION))
    }

    pub(super) async fn delete_connection(&self, asked: &Asked<'_>) -> Outcome {
        let (connect, key) = (Arc::clone(&self.connect), asked.key()?);
        // To its end, though the caller hangs up: once the record is gone, only this call still has the token to revoke.
        let done = self.connect.to_its_end(async move { connect.disconnect(&key).await }).await;
        let revocation = done.ok_or_else(broke_off)??.ok_or(Refused::NotFound(NO_CONNECTION))?;
        Ok((StatusCode::OK, json!({"revoked": revocation.revoked, "detail": revocation.detail})))
    }

    pub(super) async fn refresh_connection(&self, asked: &Asked<'_>) -> Outcome {
        match self.connect.refresh(&asked.key()?).await? {
            Refreshed::Done(connection) => Ok((StatusCode::OK, shown(&connection))),
            Refreshed::NotFound => Err(Refused::NotFound(NO_CONNECTION)),
            Refreshed::Failed(error) => Err(no_token(&error)),
        }
    }

    pub(super) async fn show_token(&self, asked: &Asked<'_>) -> Outcome {
        let key = asked.key()?;
        let snapshot = self.live.snapshot();
        let registration = snapshot.providers.get(&*key.provider).ok_or(Refused::NotFound(NO_CONNECTION))?;
        match self.connect.keeper.credential(registration, key.borrow()).await {
            Ok(token) => {
                tracing::info!(provider.id = %key.provider, connection.id = %token.connection_id, "an access token was read by the admin API");
                let expires_at = token.expires_at.map(|at| at.to_rfc3339());
                let credential = &token.credential;
                Ok((
                    StatusCode::OK,
                    json!({"access_token": credential.access_token.expose(), "token_type": credential.token_type, "expires_at": expires_at}),
                ))
            }
            Err(KeeperError::NotConnected) => Err(Refused::NotFound(NO_CONNECTION)),
            Err(error) => Err(no_token(&error)),
        }
    }
}

/// Why there is no new token, as the API tells it.
fn no_token(error: &KeeperError) -> Refused {
    let (name, status, title, detail) = match error {
        KeeperError::NotConnected => return Refused::NotFound(NO_CONNECTION),
        // What the token is exchanged for is told as its own.
        KeeperError::Source { error, .. } => return no_token(error),
        KeeperError::ReconnectRequired => {
            let detail = "The grant is dead, or there is no refresh token: only the end user can mend it, by connecting anew.";
            ("reconnect-required", StatusCode::CONFLICT, "The end user must connect anew", detail)
        }
        KeeperError::RefreshFailed { .. } => {
            let detail = "The provider gave no new token just now. The grant is kept: try again later. The log says more.";
            ("refresh-failed", StatusCode::BAD_GATEWAY, "The token could not be refreshed", detail)
        }
        KeeperError::StoreUnavailable => {
            let detail = "The connection could not be read or kept. Nothing is lost: try again later.";
            ("store-unavailable", StatusCode::SERVICE_UNAVAILABLE, "The token store is unavailable", detail)
        }
        KeeperError::ProviderOff => {
            let detail = "The provider is off or no longer in routes.yaml; `attache check` says why.";
            ("provider-not-configured", StatusCode::SERVICE_UNAVAILABLE, "The provider is not configured", detail)
        }
    };
    let mut problem = Problem::new(name, status, title, detail);
    if let KeeperError::RefreshFailed { retry_after: Some(wait) } = error {
        problem = problem.header(RETRY_AFTER, http::HeaderValue::from(wait.as_secs().max(1)));
    }
    Refused::Other(Box::new(problem))
}

impl From<ListError> for Refused {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Cursor => Refused::Invalid(error.to_string()),
            ListError::Store(error) => Refused::Store(error),
        }
    }
}
