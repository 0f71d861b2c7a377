//! libFuzzer's way into `certificate_variables`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::certificates::variables(bytes));
