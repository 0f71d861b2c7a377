//! The sslsurvey program: see sslsurvey(1).
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ucspi_tls::sslsurvey()
}
