//! libFuzzer's way into `pins`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::settings::pins(bytes));
