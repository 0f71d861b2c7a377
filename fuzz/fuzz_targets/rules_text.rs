//! libFuzzer's way into `rules_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::rules_text(bytes));
