//! libFuzzer target of [`relata_fuzz::profile`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relata_fuzz::profile(data));
