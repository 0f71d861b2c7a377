//! The sslclient program: see sslclient(1).
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ucspi_tls::sslclient()
}
