//! libFuzzer target of [`relata_fuzz::sql`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relata_fuzz::sql(data));
