//! libFuzzer's way into `keyholder`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::keyholder::keyholder(bytes));
