//! libFuzzer's way into `policy_cache`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::mta_sts::cache(bytes));
