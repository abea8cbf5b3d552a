//! One batch as one transaction: its rows are locked in their order, every expectation is judged on them, then all is written and told.

use super::Shared;
use crate::store::{Change, Kind, StoreError, Write};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use std::collections::BTreeMap;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

/// How often a transaction is begun anew that another writer came across.
const TRIES: usize = 8;

/// Why one try came to nothing.
enum Failed {
    /// Another writer came between: judge anew.
    Again,
    Store(StoreError),
}

type Place<'b> = (Kind, &'b [u8]);

/// What became of a record: its version, and the value that is to be written; `None` where it is gone.
type Staged<'b> = Option<(u64, &'b [u8])>;

/// Writes all or nothing; answers each write's new version and the changes to tell.
pub(super) async fn write(
    client: &mut Client,
    batch: &[Write],
    shared: &Shared,
    relaxed: bool,
) -> Result<(Vec<u64>, Vec<Change>), StoreError> {
    for _ in 0..TRIES {
        match attempt(client, batch, shared, relaxed).await {
            Ok(written) => return Ok(written),
            Err(failed) => {
                // Whatever was begun is taken back; a connection that cannot even do that is not used again.
                client.batch_execute("ROLLBACK").await.map_err(|error| shared.unavailable(&error))?;
                match failed {
                    Failed::Again => {}
                    Failed::Store(error) => return Err(error),
                }
            }
        }
    }
    Err(StoreError::Conflict)
}

async fn attempt(client: &Client, batch: &[Write], shared: &Shared, relaxed: bool) -> Result<(Vec<u64>, Vec<Change>), Failed> {
    let failed = |error: tokio_postgres::Error| match error.code() {
        Some(code) if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::UNIQUE_VIOLATION].contains(code) => {
            Failed::Again
        }
        _ => Failed::Store(shared.unavailable(&error)),
    };
    let begin = if relaxed { "BEGIN" } else { "BEGIN; SET LOCAL synchronous_commit TO on" };
    client.batch_execute(begin).await.map_err(failed)?;
    let mut places: Vec<Place<'_>> = batch.iter().map(|write| (write.kind, write.key.as_slice())).collect();
    places.sort_unstable();
    places.dedup();
    let found = lock(client, &places).await.map_err(failed)?;
    let found: BTreeMap<Place<'_>, u64> = found.iter().filter_map(|(at, version)| Some((*places.get(*at)?, *version))).collect();
    let (versions, staged, changes) = judge(batch, &found).map_err(Failed::Store)?;
    put(client, &staged, &found).await.map_err(failed)?;
    tell(client, &changes, shared).await.map_err(failed)?;
    // An answer that is lost leaves it done or not: the caller reads again.
    client.batch_execute("COMMIT").await.map_err(|error| Failed::Store(shared.unavailable(&error)))?;
    Ok((versions, changes))
}

/// The versions of those that are there, by their index, each locked until the end.
async fn lock(client: &Client, places: &[Place<'_>]) -> Result<Vec<(usize, u64)>, tokio_postgres::Error> {
    let kinds: Vec<i16> = places.iter().map(|(kind, _)| kind.number()).collect();
    let keys: Vec<&[u8]> = places.iter().map(|(_, key)| *key).collect();
    let query = "SELECT wanted.at, found.version FROM unnest($1::int2[], $2::bytea[]) WITH ORDINALITY AS wanted (kind, key, at) \
                 JOIN attache.records AS found ON found.kind = wanted.kind AND found.key = wanted.key \
                 ORDER BY wanted.at FOR UPDATE OF found";
    let rows = client.query_typed(query, &[(&kinds, Type::INT2_ARRAY), (&keys, Type::BYTEA_ARRAY)]).await?;
    rows.iter()
        .map(|row| {
            let (at, version): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            Ok((usize::try_from(at - 1).unwrap_or(usize::MAX), version.unsigned_abs()))
        })
        .collect()
}

type Judged<'b> = (Vec<u64>, BTreeMap<Place<'b>, Staged<'b>>, Vec<Change>);

/// What the batch makes of what is there. A later write of a batch sees the earlier ones.
fn judge<'b>(batch: &'b [Write], found: &BTreeMap<Place<'_>, u64>) -> Result<Judged<'b>, StoreError> {
    let mut staged: BTreeMap<Place<'b>, Staged<'b>> = BTreeMap::new();
    let (mut versions, mut changes) = (Vec::new(), Vec::new());
    for write in batch {
        let place = (write.kind, write.key.as_slice());
        let current = match staged.get(&place) {
            Some(staged) => staged.map(|(version, _)| version),
            None => found.get(&place).copied(),
        };
        if !write.expect.holds(current) {
            return Err(StoreError::Conflict);
        }
        let after = write.value.as_deref().map(|value| (current.unwrap_or(0) + 1, value));
        let version = after.map(|(version, _)| version);
        versions.push(version.unwrap_or(0));
        if version.is_some() || current.is_some() {
            changes.push(Change { kind: write.kind, key: write.key.clone(), version });
        }
        staged.insert(place, after);
    }
    Ok((versions, staged, changes))
}

async fn put(
    client: &Client,
    staged: &BTreeMap<Place<'_>, Staged<'_>>,
    found: &BTreeMap<Place<'_>, u64>,
) -> Result<(), tokio_postgres::Error> {
    let is_there = |place: &Place<'_>| found.contains_key(place);
    let gone: Vec<_> = staged.iter().filter(|(place, after)| after.is_none() && is_there(place)).map(|(place, _)| *place).collect();
    if !gone.is_empty() {
        let kinds: Vec<i16> = gone.iter().map(|(kind, _)| kind.number()).collect();
        let keys: Vec<&[u8]> = gone.iter().map(|(_, key)| *key).collect();
        let query = "DELETE FROM attache.records AS old USING unnest($1::int2[], $2::bytea[]) AS gone (kind, key) \
                     WHERE old.kind = gone.kind AND old.key = gone.key";
        client.query_typed(query, &[(&kinds, Type::INT2_ARRAY), (&keys, Type::BYTEA_ARRAY)]).await?;
    }
    for is_update in [true, false] {
        let rows: Vec<_> = staged
            .iter()
            .filter(|(place, _)| is_there(place) == is_update)
            .filter_map(|(place, after)| after.map(|after| (*place, after)))
            .collect();
        if rows.is_empty() {
            continue;
        }
        let kinds: Vec<i16> = rows.iter().map(|((kind, _), _)| kind.number()).collect();
        let keys: Vec<&[u8]> = rows.iter().map(|((_, key), _)| *key).collect();
        let versions: Vec<i64> = rows.iter().map(|(_, (version, _))| i64::try_from(*version).unwrap_or(i64::MAX)).collect();
        let values: Vec<&[u8]> = rows.iter().map(|(_, (_, value))| *value).collect();
        let query = if is_update {
            "UPDATE attache.records AS old SET version = new.version, value = new.value \
             FROM unnest($1::int2[], $2::bytea[], $3::int8[], $4::bytea[]) AS new (kind, key, version, value) \
             WHERE old.kind = new.kind AND old.key = new.key"
        } else {
            // One that another writer made meanwhile is a unique violation, and all is judged anew.
            "INSERT INTO attache.records (kind, key, version, value) SELECT * FROM unnest($1::int2[], $2::bytea[], $3::int8[], $4::bytea[])"
        };
        let types = [Type::INT2_ARRAY, Type::BYTEA_ARRAY, Type::INT8_ARRAY, Type::BYTEA_ARRAY];
        let [a, b, c, d] = types;
        client.query_typed(query, &[(&kinds, a), (&keys, b), (&versions, c), (&values, d)]).await?;
    }
    Ok(())
}

/// In the transaction: told when it commits, and not if it does not.
async fn tell(client: &Client, changes: &[Change], shared: &Shared) -> Result<(), tokio_postgres::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = changes.iter().map(payload).collect();
    let query = "SELECT pg_notify('attache', $1 || ':' || nextval('attache.changes') || ':' || change) FROM unnest($2::text[]) AS change";
    client.query_typed(query, &[(&shared.me, Type::TEXT), (&texts, Type::TEXT_ARRAY)]).await.map(drop)
}

/// `kind:version:key`, without a version where it was deleted. The longest key stays well under NOTIFY's 8000 bytes.
fn payload(change: &Change) -> String {
    let version = change.version.map(|version| version.to_string()).unwrap_or_default();
    format!("{}:{version}:{}", change.kind.number(), STANDARD_NO_PAD.encode(&change.key))
}

/// Who told it, its place among all changes, and the change; `None` where the text is none of ours.
pub(super) fn parse(payload: &str) -> Option<(&str, i64, Change)> {
    let mut parts = payload.splitn(5, ':');
    let (who, place) = (parts.next()?, parts.next()?.parse().ok()?);
    let kind = Kind::from_number(parts.next()?.parse().ok()?)?;
    let version = match parts.next()? {
        "" => None,
        text => Some(text.parse().ok()?),
    };
    let key = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
    Some((who, place, Change { kind, key, version }))
}

pub(super) fn version(row: &Row, at: usize) -> Result<u64, StoreError> {
    let version: i64 = row.try_get(at).map_err(|_| misshapen())?;
    u64::try_from(version).map_err(|_| misshapen())
}

pub(super) fn bytes(row: &Row, at: usize) -> Result<Vec<u8>, StoreError> {
    row.try_get(at).map_err(|_| misshapen())
}

fn misshapen() -> StoreError {
    StoreError::Damaged("the table `attache.records` has columns of another kind".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_back_as_it_was_told() {
        for (key, version) in [(&b"a\0b\xff"[..], Some(7)), (b"", None), (&[0xff; 1024], Some(u64::MAX / 2))] {
            let change = Change { kind: Kind::Intent, key: key.to_vec(), version };
            let told = format!("0011223344556677:12:{}", payload(&change));
            assert!(told.len() < 8000);
            assert_eq!(parse(&told), Some(("0011223344556677", 12, change)));
        }
        for strange in ["", "a:b", "a:1:9:1:aa", "a:1:1:x:aa", "a:1:1:1:!", "a:x:1:1:aa"] {
            assert!(parse(strange).is_none(), "{strange}");
        }
    }
}
