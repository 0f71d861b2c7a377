//! The sslprobe program: see sslprobe(1).
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ucspi_tls::sslprobe()
}
