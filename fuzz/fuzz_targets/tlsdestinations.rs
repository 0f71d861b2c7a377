//! libFuzzer's way into `tlsdestinations`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::tlsdestinations(bytes));
