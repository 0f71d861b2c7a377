//! The sslserver-conf program: see sslserver-conf(1).
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ucspi_tls::sslserver_conf()
}
