//! Tests that what past versions wrote still opens: `tests/golden/store_1.backup` has a record of each version of the stored forms, sealed.
//!
//! The file is never written anew. A new version of a form gets a file of its own beside it, made by [`make`] on the commit that brings it.

use crate::base::clock::UnixMillis;
use crate::base::ids::ConnectionKey;
use crate::store::backup::{self, Backup};
use crate::store::codec::{self, tests::full};
use crate::store::memory::MemoryStore;
use crate::store::seal::{Sealer, SealingKey};
use crate::store::survey::examine;
use crate::store::{Connection, Expect, Intent, Kind, Records, State};
use std::path::{Path, PathBuf};

/// Of no worth: it opens the golden files alone.
const KEY: &str = "Z29sZGVuIGdvbGRlbiBnb2xkZW4gZ29sZGVuIGtleSE=";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn sealer() -> Sealer {
    Sealer::new(&[SealingKey::from_base64(KEY).expect("a key")])
}

fn key(user: &str) -> ConnectionKey {
    ConnectionKey::new("google", user, "default")
}

/// Record version 1, and 2, which has key material.
fn connections() -> [Connection; 2] {
    let plain = Connection { state: State::Active, ..full(key("alex@personalemail.com"), "access-1") };
    [plain, Connection { key_material: Some("key material".into()), ..full(key("megan@personalemail.com"), "access-2") }]
}

fn intent() -> Intent {
    Intent { key: key("megan@personalemail.com"), begun_at: UnixMillis(9), version: 3 }
}

/// Writes a golden file, where there is none.
async fn make(name: &str) {
    let records = Records::new(MemoryStore::new(), sealer());
    for connection in connections() {
        records.put_connection(&connection, Expect::Absent).await.expect("written");
    }
    records.begin_intent(&intent()).await.expect("written");
    backup::write(&records, &path(name), UnixMillis(0), false).await.expect("made");
}

#[tokio::test]
async fn what_the_first_version_wrote_still_opens() {
    if std::env::var_os("ATTACHE_MAKE_GOLDEN").is_some() {
        make("store_1.backup").await;
    }
    let mut backup = Backup::open(&path("store_1.backup")).expect("a whole backup of form 1");
    let (mut versions, mut found, mut intents) = (Vec::new(), Vec::new(), Vec::new());
    let read = backup.each(|saved| {
        let plain = examine(&sealer(), saved.kind, &saved.key, &saved.value).unwrap_or_else(|fault| panic!("{fault:?}")).plain;
        let key = ConnectionKey::from_bytes(&saved.key).expect("a connection's key");
        versions.push((saved.kind, plain[0]));
        match saved.kind {
            Kind::Connection => found.push(codec::decode_connection(key, &plain)?),
            _ => intents.push(codec::decode_intent(key, &plain)?),
        }
        Ok(())
    });
    read.expect("read");
    assert_eq!(versions, [(Kind::Intent, 1), (Kind::Connection, 1), (Kind::Connection, 2)]);
    assert_eq!(found, connections());
    assert_eq!(intents, [intent()]);
}
