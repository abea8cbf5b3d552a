//! Tests that what past versions wrote still opens.
