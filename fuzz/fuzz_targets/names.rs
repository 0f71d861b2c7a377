//! libFuzzer's way into `names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::dns::names(bytes));
