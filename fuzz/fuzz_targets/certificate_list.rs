//! libFuzzer's way into `certificate_list`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::probe::certificate_list(bytes));
