//! libFuzzer's way into `resolvers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::dns::resolvers(bytes));
