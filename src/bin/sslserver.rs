//! The sslserver program: see sslserver(1).
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ucspi_tls::sslserver()
}
