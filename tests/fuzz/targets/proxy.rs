//! PROXY headers under libFuzzer; the target is `clinch_tests::fuzz::proxy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    clinch_tests::fuzz::proxy(bytes);
});
