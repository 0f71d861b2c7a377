//! libFuzzer's way into `trust_anchors`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ucspi_tls_fuzz::dns::trust_anchors(bytes));
