//! libFuzzer's way into `settings`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::settings::settings(bytes));
