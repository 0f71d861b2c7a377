//! libFuzzer's way into `destinations`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::probe::destinations(bytes));
