//! libFuzzer's way into `https_reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::mta_sts::reply(bytes));
