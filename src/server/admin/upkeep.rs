//! Calls about the store as a whole: what it holds, its sealed records page by page, and sealing them anew.

use super::{Admin, Asked, Outcome, Refused};
use crate::store::pages::PAGE_RECORDS_MAX;
use crate::store::survey::Fault;
use crate::store::{Kind, Scanned};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::StatusCode;
use serde_json::{Value, json};

/// How many records a page has, if no `limit` is given.
const LIMIT_DEFAULT: usize = 100;

/// Which page of which kind.
struct Page {
    kind: Kind,
    after: Option<Vec<u8>>,
    limit: usize,
}

impl Asked<'_> {
    fn page(&self) -> Result<Page, Refused> {
        let kind = self.query.get("kind").and_then(|name| Kind::named(name)).ok_or_else(|| "`kind` is missing".to_owned())?;
        let read = |cursor: &String| URL_SAFE_NO_PAD.decode(cursor).map_err(|_| "`cursor` is none of this API's".to_owned());
        let after = self.query.get("cursor").map(read).transpose()?;
        let limit = self.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(LIMIT_DEFAULT);
        Ok(Page { kind, after, limit: limit.min(PAGE_RECORDS_MAX) })
    }
}

impl Admin {
    pub(super) async fn check_store(&self) -> Outcome {
        Ok((StatusCode::OK, self.records.survey().await?.to_json()))
    }

    pub(super) async fn store_records(&self, asked: &Asked<'_>) -> Outcome {
        let Page { kind, after, limit } = asked.page()?;
        let page = self.records.sealed_page(kind, after.as_deref(), limit).await?;
        Ok((StatusCode::OK, sealed_page(&page)))
    }

    pub(super) async fn rekey(&self, asked: &Asked<'_>) -> Outcome {
        let Page { kind, after, limit } = asked.page()?;
        let done = self.records.rekey_page(kind, after.as_deref(), limit).await?;
        let faults: Vec<Value> = done.faults.iter().map(Fault::to_json).collect();
        let next = done.next.map(|key| URL_SAFE_NO_PAD.encode(key));
        Ok((StatusCode::OK, json!({"resealed": done.resealed, "left": done.left, "faults": faults, "next_cursor": next})))
    }
}

impl Admin {
    pub(super) fn close_gate(&self) -> Outcome {
        let before = self.records.gate().position();
        let position = self.records.gate().close_gate(|| self.connect.is_idle());
        if position != before {
            tracing::warn!(store.gate = position.name(), "the store takes no writes until it is told to: its records are being moved");
        }
        Ok((StatusCode::OK, json!({"gate": position.name()})))
    }

    pub(super) fn open_gate(&self) -> Outcome {
        let position = self.records.gate().open_gate();
        tracing::info!(store.gate = position.name(), "the store takes writes again");
        Ok((StatusCode::OK, json!({"gate": position.name()})))
    }
}

fn sealed_page(page: &Scanned) -> Value {
    let item = |(key, stored): &(Vec<u8>, crate::store::Stored)| json!({"key": STANDARD.encode(key), "version": stored.version, "value": STANDARD.encode(&stored.value)});
    let next = page.last().map(|(key, _)| URL_SAFE_NO_PAD.encode(key));
    json!({"items": page.iter().map(item).collect::<Vec<_>>(), "next_cursor": next})
}
