//! libFuzzer target of [`relata_fuzz::weights`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = relata_fuzz::weights(data);
});
