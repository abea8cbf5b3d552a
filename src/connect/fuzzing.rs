//! What the fuzz targets may call of this room, which is not public otherwise. Built under `cfg(fuzzing)`, and with the tests, so that a change that breaks a target is seen at once.

use super::codec;

/// Reads bytes as each record there is, and answers what each that reads is written as again.
pub fn rewritten(bytes: &[u8]) -> Vec<Vec<u8>> {
    let session = codec::decode(bytes).and_then(|session| codec::encode(&session).ok());
    let device = codec::decode_device(bytes).and_then(|device| codec::encode_device(&device).ok());
    [session, device].into_iter().flatten().map(|bytes| bytes.to_vec()).collect()
}
