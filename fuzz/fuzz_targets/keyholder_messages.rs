//! libFuzzer's way into `keyholder_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::keyholder::keyholder_messages(bytes));
