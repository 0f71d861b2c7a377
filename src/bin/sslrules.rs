//! The sslrules program: see sslrules(1).
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ucspi_tls::sslrules()
}
