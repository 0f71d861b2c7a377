//! libFuzzer's way into `mta_sts_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::mta_sts::record(bytes));
