//! libFuzzer's way into `mta_sts_policy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::mta_sts::policy(bytes));
