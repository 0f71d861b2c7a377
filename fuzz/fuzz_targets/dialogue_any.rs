//! libFuzzer's way into `dialogue_any`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::dialogue::dialogue_any(bytes));
