//! Calls about connect sessions and device sessions.

use super::read::Body;
use super::{Admin, Asked, Outcome, Refused};
use crate::base::problem::Problem;
use crate::connect::{CompleteError, Completes, ConnectError, NewDevice, NewSession};
use crate::store::wire::shown;
use http::StatusCode;
use serde_json::json;
use std::sync::Arc;

impl Admin {
    pub(super) async fn create_session(&self, asked: &Asked<'_>) -> Outcome {
        let body = Body::parse(asked.body)?;
        let new = NewSession {
            end_user: body.need("end_user")?,
            account: body.text("account")?,
            providers: body.texts("providers")?.unwrap_or_default(),
            return_url: body.text("return_url")?,
            scopes: body.texts("scopes")?,
            params: body.pairs("params")?,
            metadata: body.metadata()?,
            completes: match body.one_of("complete", &["browser", "app"])? {
                Some("app") => Completes::App,
                _ => Completes::Browser,
            },
            ttl: body.seconds("ttl_s")?,
        };
        body.finish()?;
        let created = self.connect.create(new).await?;
        let expires_at = created.expires_at.to_rfc3339();
        Ok((StatusCode::CREATED, json!({"connect_url": created.connect_url, "session": created.session, "expires_at": expires_at})))
    }

    pub(super) async fn show_session(&self, asked: &Asked<'_>) -> Outcome {
        let (state, provider, expires_at) = self.connect.session_state(&asked.parts[0]).await?;
        Ok((StatusCode::OK, json!({"state": state, "provider": provider, "expires_at": expires_at.to_rfc3339()})))
    }

    pub(super) async fn complete_session(&self, asked: &Asked<'_>) -> Outcome {
        let body = Body::parse(asked.body)?;
        let (completion, end_user) = (body.need("completion")?, body.need("end_user")?);
        body.finish()?;
        let (connect, id) = (Arc::clone(&self.connect), asked.parts[0].clone());
        // To its end, though the caller hangs up: of a mismatch the revocation belongs to the discard.
        let done = self.connect.to_its_end(async move { connect.complete(&id, &completion, &end_user).await }).await;
        match done.ok_or_else(broke_off)? {
            Ok(connection) => Ok((StatusCode::OK, shown(&connection))),
            Err(CompleteError::NotFound) => {
                Err(Refused::NotFound("The session is unknown, has expired, or was completed or discarded before."))
            }
            Err(CompleteError::TooEarly) => {
                Err(Refused::Invalid("the end user has not come back from the provider yet: there is nothing to complete".to_owned()))
            }
            Err(CompleteError::Mismatch(revocation)) => {
                let detail = "The completion code or the end user is not this session's. What was granted is discarded: let the end user start again.";
                let mut problem = Problem::new("forbidden", StatusCode::FORBIDDEN, "The completion does not fit the session", detail);
                problem.members.insert("revoked".to_owned(), revocation.revoked.into());
                Err(Refused::Other(Box::new(problem)))
            }
            Err(CompleteError::Store(error)) => Err(error.into()),
        }
    }

    pub(super) async fn create_device(&self, asked: &Asked<'_>) -> Outcome {
        let body = Body::parse(asked.body)?;
        let new = NewDevice {
            provider: body.need("provider")?,
            end_user: body.need("end_user")?,
            account: body.text("account")?,
            scopes: body.texts("scopes")?,
            metadata: body.metadata()?,
        };
        body.finish()?;
        let created = self.connect.create_device(new).await?;
        let answer = json!({
            "id": created.id, "user_code": created.user_code, "verification_uri": created.verification_uri,
            "verification_uri_complete": created.verification_uri_complete, "expires_at": created.expires_at.to_rfc3339(),
        });
        Ok((StatusCode::CREATED, answer))
    }

    pub(super) async fn show_device(&self, asked: &Asked<'_>) -> Outcome {
        let device = self.connect.device_state(&asked.parts[0]).await?;
        let (state, provider) = (device.state.name(), device.key.provider);
        Ok((StatusCode::OK, json!({"state": state, "provider": provider, "expires_at": device.expires_at.to_rfc3339()})))
    }
}

/// The work of a call ended without an outcome.
pub(super) fn broke_off() -> Refused {
    let detail = "The call broke off; the log says more.";
    Refused::Other(Box::new(Problem::new("internal", StatusCode::INTERNAL_SERVER_ERROR, "Attaché failed", detail)))
}

impl From<ConnectError> for Refused {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Invalid(why) => Refused::Invalid(why),
            ConnectError::NotFound => Refused::NotFound("The session is unknown or has expired."),
            ConnectError::Store(error) => Refused::Store(error),
            ConnectError::Provider(why) => {
                let detail = format!("{why}. The log says more.");
                Refused::Other(Box::new(Problem::new(
                    "provider-failed",
                    StatusCode::BAD_GATEWAY,
                    "The provider did not do its part",
                    detail,
                )))
            }
        }
    }
}
