//! Stored records: no bytes make a reader panic, and what reads is written as it was read, at once and for ever.

#![no_main]

use attache::base::clock::UnixMillis;
use attache::store::seal::{Sealer, SealingKey};
use attache::store::{Kind, wire};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SEALER: LazyLock<Sealer> = LazyLock::new(|| Sealer::new(&[SealingKey::generate()]));

fuzz_target!(|data: &[u8]| {
    for read in [attache::store::fuzzing::rewritten, attache::connect::fuzzing::rewritten] {
        for once in read(data) {
            assert!(read(&once).contains(&once), "a record that changes when it is written again");
        }
    }
    // Nothing that we did not seal opens.
    assert!(SEALER.open(Kind::Connection, b"key", data).is_err());
    if let Ok(line) = std::str::from_utf8(data)
        && let Ok(connection) = wire::parse_import(line, UnixMillis(1_767_225_600_000))
    {
        let exported = wire::import_line(&connection).to_string();
        let again = wire::parse_import(&exported, UnixMillis(1_767_225_600_000)).expect("an exported line imports");
        assert_eq!(again.key, connection.key);
        assert!(again.access_token == connection.access_token && again.refresh_token == connection.refresh_token);
    }
});
