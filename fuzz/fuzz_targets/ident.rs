//! libFuzzer's way into `ident`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::remote::ident(bytes));
