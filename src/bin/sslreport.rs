//! The sslreport program: see sslreport(8).
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ucspi_tls::sslreport()
}
