//! libFuzzer's way into `smtp_replies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::remote::smtp_replies(bytes));
