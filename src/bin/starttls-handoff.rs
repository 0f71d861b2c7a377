//! The starttls-handoff program: see starttls-handoff(1).
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ucspi_tls::starttls_handoff()
}
