//! Frames of the egress protocol under libFuzzer; the target is `clinch_tests::fuzz::frame`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    clinch_tests::fuzz::frame(bytes);
});
