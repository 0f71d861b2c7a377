//! libFuzzer's way into `routes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::remote::routes(bytes));
