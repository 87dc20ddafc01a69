//! libFuzzer target of [`relata_fuzz::query`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = relata_fuzz::query(data);
});
