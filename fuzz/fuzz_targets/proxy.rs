//! libFuzzer's way into `proxy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::proxy(bytes));
