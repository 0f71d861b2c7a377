//! libFuzzer's way into `handoff`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::control::handoff(bytes));
