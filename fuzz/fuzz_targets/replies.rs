//! libFuzzer's way into `replies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::replies(bytes));
