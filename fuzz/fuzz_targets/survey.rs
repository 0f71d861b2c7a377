//! libFuzzer's way into `survey`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::probe::survey_lines(bytes));
