//! qmail-sslremote: see its man page.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ucspi_tls::qmail_sslremote()
}
