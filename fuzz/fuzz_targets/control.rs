//! libFuzzer's way into `control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::control::control(bytes));
