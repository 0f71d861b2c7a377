//! libFuzzer's way into `first_flight`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::probe::first_flight(bytes));
