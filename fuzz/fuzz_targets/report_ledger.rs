//! libFuzzer's way into `report_ledger`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::reports::report_ledger(bytes));
