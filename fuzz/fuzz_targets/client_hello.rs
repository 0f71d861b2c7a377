//! libFuzzer's way into `client_hello`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::handshake::client_hello(bytes));
