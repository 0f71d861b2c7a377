//! What a probe of one host costs, us and the host: sslprobe beside sslyze,
//! testssl.sh and sslscan, each at a TLS server in the bench's process that counts
//! its connections. The slow ones are measured once.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};

use crate::credentials::Key;
use crate::outbound::children;
use crate::server::{Ground, look};
use crate::table::{Figures, Results};
use crate::{Contest, Outcome, Settings, because, complain};

/// The others, with which sslprobe is compared.
pub const OTHERS: [&str; 3] = ["sslyze", "testssl.sh", "sslscan"];

/// How long a client of the server's may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program that probes.
struct Prober {
    label: &'static str,
    binary: Option<PathBuf>,
    words: &'static [&'static str],
    /// It takes minutes.
    slow: bool,
}

fn probers() -> Vec<Prober> {
    let own = |label, words| Prober {
        label,
        binary: option_env!("CARGO_BIN_EXE_sslprobe").map(PathBuf::from),
        words,
        slow: false,
    };
    let other = |label, binary, words| Prober {
        label,
        binary,
        words,
        slow: true,
    };
    vec![
        own("sslprobe", &["-i", "0", "-r", "1000"]),
        own("sslprobe -q", &["-q", "-i", "0", "-r", "1000"]),
        own("sslprobe -F", &["-F", "-i", "0", "-r", "1000"]),
        other(OTHERS[0], look("SSLYZE", &["sslyze"]), &[]),
        other(
            OTHERS[1],
            look("TESTSSL", &["testssl.sh", "testssl"]),
            &["--quiet", "--warnings", "off", "--color", "0"],
        ),
        other(OTHERS[2], look("SSLSCAN", &["sslscan"]), &["--no-colour"]),
    ]
}

fn titles() -> [String; 2] {
    ["CPU", "Connections"].map(|what| format!("{what} per probe of one host, RSA-2048"))
}

/// Whether the case is wanted.
pub fn is_wanted(settings: &Settings) -> bool {
    let only = &settings.only;
    only.is_empty()
        || only
            .iter()
            .any(|text| titles().iter().any(|one| one.contains(text)))
}

/// Processor time and connections, where they are wanted.
pub fn measure_all(settings: &Settings, ground: &Ground) -> Outcome<Vec<Results>> {
    if !is_wanted(settings) {
        return Ok(Vec::new());
    }
    let server = Server::start(ground)?;
    let probers = probers();
    let begin = |title: String, unit| Results {
        title,
        unit,
        contest: Contest::Probes,
        figures: probers
            .iter()
            .map(|one| Figures {
                server: one.label.to_owned(),
                absent: one.binary.is_none().then(|| "not installed".to_owned()),
                ..Figures::default()
            })
            .collect(),
    };
    let [cpu_title, connections_title] = titles();
    let (mut cpu, mut connections) = (begin(cpu_title, "ms"), begin(connections_title, ""));
    for round in 0..settings.rounds {
        for (at, prober) in probers.iter().enumerate() {
            if cpu.figures[at].absent.is_some() || prober.slow && round > 0 {
                continue;
            }
            complain(&format!(
                "round {} of {}: {}",
                round + 1,
                settings.rounds,
                prober.label
            ));
            match prober.run(&server) {
                Ok((time, count)) => {
                    cpu.figures[at].rounds.push(time.as_secs_f64() * 1e3);
                    connections.figures[at].rounds.push(f64::from(count));
                }
                Err(why) => {
                    complain(&format!("{}: {why}", prober.label));
                    for figures in [&mut cpu.figures[at], &mut connections.figures[at]] {
                        figures.failures += 1;
                        figures.absent = Some(why.clone());
                    }
                }
            }
        }
    }
    Ok(vec![cpu, connections])
}

impl Prober {
    /// One probe: processor time and connections.
    fn run(&self, server: &Server) -> Outcome<(Duration, u32)> {
        let binary = self.binary.as_ref().ok_or("not installed")?;
        let (before, from) = (children()?, server.connections.load(Ordering::Relaxed));
        let ended = Command::new(binary)
            .args(self.words)
            .arg(format!("127.0.0.1:{}", server.port))
            .stdin(Stdio::null())
            .output()
            .map_err(because(format!("start {}", self.label)))?;
        let spent = children()?.saturating_sub(before);
        let count = server.connections.load(Ordering::Relaxed) - from;
        let said = String::from_utf8_lossy(&ended.stdout).replace([' ', 'v'], "");
        if count == 0 || !said.contains("TLS1.3") {
            return Err(format!("{}: it found no TLS 1.3", ended.status));
        }
        Ok((spent, count))
    }
}

/// A TLS server, a thread for each connection.
struct Server {
    port: u16,
    connections: Arc<AtomicU32>,
}

impl Server {
    fn start(ground: &Ground) -> Outcome<Server> {
        let acceptor = || {
            let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
            builder.set_certificate_chain_file(ground.credentials.certificate(Key::Rsa))?;
            builder.set_private_key_file(ground.credentials.key(Key::Rsa), SslFiletype::PEM)?;
            Ok(builder.build())
        };
        let acceptor = acceptor()
            .map_err(|error: openssl::error::ErrorStack| because("set up a server")(error))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(because("bind"))?;
        let port = listener.local_addr().map_err(because("bind"))?.port();
        let connections = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::Relaxed);
                let acceptor = acceptor.clone();
                thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    if let Ok(mut stream) = acceptor.accept(stream) {
                        // What is asked inside does not matter here.
                        let _ = stream.ssl_read(&mut [0; 4096]);
                        let _ = stream.shutdown();
                    }
                });
            }
        });
        Ok(Server { port, connections })
    }
}
