//! The records of a running server's store, by its admin API.

use crate::cli::Failure;
use crate::cli::api::{Api, query};
use crate::store::pages::Source;
use crate::store::{Kind, Scanned, StoreError, Stored};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

/// The records behind an admin API: a server's, or those of the store that is open here.
pub(in crate::cli) struct Served<'a>(pub(in crate::cli) &'a Api);

impl Source for Served<'_> {
    fn page(&self, kind: Kind, after: Option<Vec<u8>>) -> BoxFuture<'_, Result<Scanned, StoreError>> {
        async move {
            let cursor = after.map(|key| URL_SAFE_NO_PAD.encode(key));
            let asked = query(&[("kind", Some(kind.name())), ("limit", Some("256")), ("cursor", cursor.as_deref())]);
            let answer = self.0.get(&format!("/v1/store/records{asked}")).await.and_then(|answer| answer.ok());
            let page = answer.map_err(|failure| match failure {
                Failure::Usage(why) | Failure::Runtime(why) => StoreError::Unavailable(why),
            })?;
            let items = page["items"].as_array().and_then(|items| items.iter().map(item).collect::<Option<Vec<_>>>());
            items.ok_or_else(|| StoreError::Unavailable("the server's answer is no page of records".to_owned()))
        }
        .boxed()
    }
}

fn item(value: &Value) -> Option<(Vec<u8>, Stored)> {
    let bytes = |name: &str| STANDARD.decode(value[name].as_str()?).ok();
    Some((bytes("key")?, Stored { version: value["version"].as_u64()?, value: bytes("value")? }))
}
