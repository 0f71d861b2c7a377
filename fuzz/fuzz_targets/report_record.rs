//! libFuzzer's way into `report_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::reports::report_record(bytes));
