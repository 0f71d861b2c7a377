//! libFuzzer's way into `dialogue_smtp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::dialogue::dialogue_smtp(bytes));
