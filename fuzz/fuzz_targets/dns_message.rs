//! libFuzzer's way into `dns_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::dns::dns_message(bytes));
