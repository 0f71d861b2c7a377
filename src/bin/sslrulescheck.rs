//! The sslrulescheck program: see sslrulescheck(1).
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ucspi_tls::sslrulescheck()
}
