//! OCSP responses under libFuzzer; the target is `clinch_tests::fuzz::ocsp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    clinch_tests::fuzz::ocsp(bytes);
});
