//! What a delivery costs the host that sends: qmail-sslremote over STARTTLS
//! beside itself in plain and beside other clients, and with many rules. All
//! send the same message to the same scripted server in the bench's process.
//! Processor time is what the kernel adds to its parent when a client has ended.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod, SslVersion};
use ucspi_tls::internals::mta_sts::{Cache, PolicyDomain, now};

use crate::credentials::Key;
use crate::server::{Ground, look};
use crate::table::{Figures, Results};
use crate::{ATTEMPTS, Contest, Outcome, Settings, because, complain};

/// The label that deliveries with TLS are compared with.
pub const PLAIN: &str = "in plain";

/// The label that many rules are compared with.
pub const ONE_LINE: &str = "one line";

/// The label that deliveries with MTA-STS are compared with.
pub const STS_OFF: &str = "MTA-STS off";

/// How many lines a long tlsdestinations has.
const LINES: u32 = 10_000;

/// A relay that has its address from DNS.
const RELAY: &str = "relay.bench";

/// How long a delivery may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// The size of the short message, and of the long one.
const SIZES: [usize; 2] = [4 << 10, 16 << 20];

/// A client, and what is set up for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// msmtp over STARTTLS.
    Msmtp,
    /// qmail-sslremote with these rules.
    Remote(Rules),
    /// swaks over STARTTLS.
    Swaks,
}

/// A tlsdestinations file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// TLS is required and the server verified, for everybody.
    One,
    /// The same behind many lines for others.
    Many,
    /// The same, compiled.
    ManyCompiled,
    /// TLS is never tried.
    Never,
    /// No file, and the relay's name is asked of DNS.
    Named(Policies),
    /// No file: TLS is used as it is offered, and nothing is verified.
    NoFile,
}

/// What there is of MTA-STS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policies {
    /// No directory of policies.
    Off,
    /// A directory; the relay has no policy.
    None,
    /// A directory with a policy of the relay's, which nobody has to fetch.
    Kept,
}

/// One contest: who delivers a message of that size.
struct Case {
    title: String,
    size: usize,
    contest: Contest,
    ways: Vec<(&'static str, Way)>,
}

fn cases(settings: &Settings) -> Vec<Case> {
    let clients = vec![
        ("qmail-sslremote", Way::Remote(Rules::One)),
        (PLAIN, Way::Remote(Rules::Never)),
        ("swaks", Way::Swaks),
        ("msmtp", Way::Msmtp),
    ];
    let rules = vec![
        (ONE_LINE, Way::Remote(Rules::One)),
        ("no file", Way::Remote(Rules::NoFile)),
        ("10000 lines, cdb", Way::Remote(Rules::ManyCompiled)),
        ("10000 lines, text", Way::Remote(Rules::Many)),
    ];
    let names = vec![
        (STS_OFF, Way::Remote(Rules::Named(Policies::Off))),
        (
            "MTA-STS on, no policy",
            Way::Remote(Rules::Named(Policies::None)),
        ),
        (
            "MTA-STS on, cached policy",
            Way::Remote(Rules::Named(Policies::Kept)),
        ),
    ];
    let case = |size: usize, what: &str, contest, ways| Case {
        title: format!("outbound delivery of {what}, ECDSA P-256, TLS 1.3"),
        size,
        contest,
        ways,
    };
    let mut cases = vec![
        case(SIZES[0], "4 KiB", Contest::Outbound, clients.clone()),
        case(SIZES[1], "16 MiB", Contest::Outbound, clients),
        case(SIZES[0], "4 KiB under rules", Contest::Policies, rules),
        case(SIZES[0], "4 KiB to a name", Contest::Names, names),
    ];
    cases.retain(|case| {
        settings.only.is_empty()
            || settings.only.iter().any(|text| {
                let titles = titles(case);
                titles.iter().any(|title| title.contains(text))
            })
    });
    cases
}

fn titles(case: &Case) -> [String; 2] {
    ["CPU", "Wall time"].map(|what| format!("{what} per {}", case.title))
}

/// Whether any case is wanted.
pub fn is_wanted(settings: &Settings) -> bool {
    !cases(settings).is_empty()
}

/// All wanted cases, each as two results: processor time and wall time.
pub fn measure_all(settings: &Settings, ground: &Ground) -> Outcome<Vec<Results>> {
    let cases = cases(settings);
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let server = Server::start(ground)?;
    let mut results = Vec::new();
    for case in &cases {
        let message = write_message(ground, case.size)?;
        let mut runners = Vec::new();
        for &(label, way) in &case.ways {
            runners.push(Runner::new(label, way, ground, &server, &message)?);
        }
        results.extend(measure(settings, case, &runners, &server));
    }
    Ok(results)
}

fn measure(settings: &Settings, case: &Case, runners: &[Runner], server: &Server) -> [Results; 2] {
    let begin = |title: String| Results {
        title,
        unit: "ms",
        contest: case.contest,
        figures: runners
            .iter()
            .map(|runner| Figures {
                server: runner.label.to_owned(),
                rounds: Vec::new(),
                failures: 0,
                absent: runner.binary.is_none().then(|| "not installed".to_owned()),
            })
            .collect(),
    };
    let [cpu_title, wall_title] = titles(case);
    let (mut cpu, mut wall) = (begin(cpu_title), begin(wall_title));
    // Some clients take a tenth of a second each.
    let number = if case.size > 1 << 20 {
        1
    } else {
        (settings.connections / 5).max(1)
    };
    for round in 0..settings.rounds {
        complain(&format!(
            "round {} of {}: {}",
            round + 1,
            settings.rounds,
            case.title
        ));
        for turn in 0..runners.len() {
            let index = (turn + round as usize) % runners.len();
            let runner = &runners[index];
            if cpu.figures[index].absent.is_some() {
                continue;
            }
            for attempt in 1..=ATTEMPTS {
                // The first one pays for cold caches.
                let warmed = runner.deliver(server);
                let measured = warmed.and_then(|()| runner.round(server, number));
                match measured {
                    Ok((processor, elapsed)) => {
                        cpu.figures[index].rounds.push(processor);
                        wall.figures[index].rounds.push(elapsed);
                        break;
                    }
                    Err(why) => {
                        complain(&format!("{}: {why}", runner.label));
                        for figures in [&mut cpu.figures[index], &mut wall.figures[index]] {
                            figures.failures += 1;
                            if attempt == ATTEMPTS {
                                figures.absent = Some(why.clone());
                            }
                        }
                    }
                }
            }
        }
    }
    [cpu, wall]
}

/// A message of lines of text, about so many bytes.
fn write_message(ground: &Ground, size: usize) -> Outcome<Message> {
    let path = ground.directory.join(format!("message.{size}"));
    let mut text =
        String::from("Subject: bench\nFrom: <a@sender.example>\nTo: <b@far.example>\n\n");
    while text.len() < size {
        text.push_str("A line of text such as people write, some seventy bytes long.\n");
    }
    fs::write(&path, &text).map_err(because("write a message"))?;
    Ok(Message {
        path,
        lines: text.lines().count(),
    })
}

/// The message in a file.
struct Message {
    path: PathBuf,
    lines: usize,
}

/// A client ready to deliver.
struct Runner<'a> {
    label: &'static str,
    way: Way,
    binary: Option<PathBuf>,
    words: Vec<String>,
    home: PathBuf,
    message: &'a Message,
}

impl<'a> Runner<'a> {
    fn new(
        label: &'static str,
        way: Way,
        ground: &Ground,
        server: &Server,
        message: &'a Message,
    ) -> Outcome<Runner<'a>> {
        let (port, ca) = (server.port, ground.credentials.ca.display());
        let (from, to) = ("a@sender.example", "b@far.example");
        let words: Vec<String> = match way {
            Way::Remote(_) => ["far.example", from, to].map(str::to_owned).into(),
            Way::Swaks => format!(
                "--server 127.0.0.1 --port {port} --tls --tls-verify --tls-ca-path {ca} --timeout 20 \
                 --ehlo bench.example --from {from} --to {to} --silent 3 --data @{}",
                message.path.display()
            )
            .split(' ')
            .map(str::to_owned)
            .collect(),
            Way::Msmtp => format!(
                "--file=/dev/null --host=127.0.0.1 --port={port} --tls=on --tls-starttls=on \
                 --tls-trust-file={ca} --auth=off --timeout=20 --domain=bench.example --from={from} {to}"
            )
            .split(' ')
            .map(str::to_owned)
            .collect(),
        };
        let binary = match way {
            Way::Remote(_) => option_env!("CARGO_BIN_EXE_qmail-sslremote").map(PathBuf::from),
            Way::Swaks => look("SWAKS", &["swaks"]),
            Way::Msmtp => look("MSMTP", &["msmtp"]),
        };
        let home = ground.directory.join(format!("home.{way:?}"));
        if let Way::Remote(rules) = way {
            rules.write(&home, ground, port)?;
        }
        Ok(Runner {
            label,
            way,
            binary,
            words,
            home,
            message,
        })
    }

    /// So many deliveries: milliseconds of processor time and of the clock for
    /// each.
    fn round(&self, server: &Server, number: u32) -> Outcome<(f64, f64)> {
        let (before, begin) = (children()?, Instant::now());
        for _ in 0..number {
            self.deliver(server)?;
        }
        let (after, elapsed) = (children()?, begin.elapsed());
        let each = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(number);
        Ok((each(after.saturating_sub(before)), each(elapsed)))
    }

    /// One delivery, from the start of the client to its end, checked at the
    /// server.
    fn deliver(&self, server: &Server) -> Outcome<()> {
        let binary = self.binary.as_ref().ok_or("not installed")?;
        let message = File::open(&self.message.path).map_err(because("open a message"))?;
        let mut command = Command::new(binary);
        if let Way::Remote(Rules::Named(_)) = self.way {
            command.env("DNSCACHEIP", server.resolver()?.to_string());
        }
        let kept = self.way == Way::Remote(Rules::Named(Policies::Kept));
        if kept {
            // The system has some hundred CAs, which are read then.
            command.env_remove("SSL_CERT_FILE");
        }
        let output = command
            .args(&self.words)
            .env("QMAILHOME", &self.home)
            .stdin(Stdio::from(message))
            .output()
            .map_err(because(format!("start {}", self.label)))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let good = match self.way {
            // The bench's CA is not the system's: mode `testing` tells of that.
            Way::Remote(_) => said.contains("\0K") && said.contains("(sts: testing: ") == kept,
            Way::Msmtp | Way::Swaks => output.status.success(),
        };
        if !good {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{}: {said}{told}", output.status));
        }
        let arrived = server
            .arrived
            .recv_timeout(PATIENCE)
            .map_err(because("see the message arrive"))?;
        let in_plain = self.way == Way::Remote(Rules::Never);
        let version = if in_plain {
            None
        } else {
            Some(SslVersion::TLS1_3)
        };
        if arrived.version != version {
            return Err(format!("the message came over {:?}", arrived.version));
        }
        if arrived.lines < self.message.lines {
            return Err(format!("{} lines arrived", arrived.lines));
        }
        Ok(())
    }
}

/// The processor time of all children that were waited for.
pub fn children() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(because("read the usage"))?;
    let micros = |time: nix::sys::time::TimeVal| {
        let (seconds, micros) = (time.tv_sec(), time.tv_usec());
        u64::try_from(seconds * 1_000_000 + micros).unwrap_or(0)
    };
    Ok(Duration::from_micros(
        micros(usage.user_time()) + micros(usage.system_time()),
    ))
}

impl Rules {
    /// A qmail home whose mail goes to the server under these rules.
    fn write(self, home: &Path, ground: &Ground, port: u16) -> Outcome<()> {
        let control = home.join("control");
        fs::create_dir_all(&control).map_err(because("make a home"))?;
        let relay = match self {
            Rules::Named(policies) => {
                policies.write(&home.join("mta-sts"))?;
                RELAY
            }
            _ => "[127.0.0.1]",
        };
        let everybody = format!("~*:{}\n", ground.credentials.ca.display());
        let mut text = String::new();
        if matches!(self, Rules::Many | Rules::ManyCompiled) {
            for at in 0..LINES {
                let _ = writeln!(
                    text,
                    "~mx{at}.partner.example:/etc/ssl/partner{at}.pem||3;25"
                );
            }
        }
        text.push_str(if self == Rules::Never {
            "!*:\n"
        } else {
            &everybody
        });
        for (name, content) in [
            ("me", "bench.example\n"),
            ("smtproutes", &format!(":{relay}:{port}\n")),
            ("timeoutremote", "20\n"),
            ("tlsdestinations", &text),
        ] {
            let no_file = matches!(self, Rules::NoFile | Rules::Named(_));
            if name == "tlsdestinations" && no_file {
                continue;
            }
            fs::write(control.join(name), content).map_err(because("write a control file"))?;
        }
        if self != Rules::ManyCompiled {
            return Ok(());
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_sslrules"))
            .arg("-t")
            .arg(control.join("tlsdestinations.cdb"))
            .arg(control.join("tmp"))
            .stdin(Stdio::piped())
            .spawn()
            .map_err(because("start sslrules"))?;
        let fed = child
            .stdin
            .take()
            .ok_or("no pipe to sslrules")?
            .write_all(text.as_bytes());
        let ended = child.wait().map_err(because("wait for sslrules"))?;
        fed.map_err(because("write rules"))?;
        if ended.success() {
            Ok(())
        } else {
            Err("sslrules failed".to_owned())
        }
    }
}

impl Policies {
    /// Makes the directory, and what is in it.
    fn write(self, folder: &Path) -> Outcome<()> {
        if self == Policies::Off {
            return Ok(());
        }
        fs::create_dir_all(folder).map_err(because("make a home"))?;
        if self == Policies::Kept {
            let cache = Cache::open(folder).ok_or("no directory of policies")?;
            let domain = PolicyDomain::new(RELAY).ok_or("no domain")?;
            let text = format!("version: STSv1\nmode: testing\nmax_age: 864000\nmx: {RELAY}\n");
            cache
                .write(&domain, "1", now(), text.as_bytes())
                .map_err(because("keep a policy"))?;
        }
        Ok(())
    }
}

/// What the server saw of a message.
struct Arrived {
    version: Option<SslVersion>,
    lines: usize,
}

/// An SMTP server in a thread, for one client at a time.
struct Server {
    port: u16,
    arrived: Receiver<Arrived>,
    resolver: OnceCell<Ipv4Addr>,
}

impl Server {
    fn start(ground: &Ground) -> Outcome<Server> {
        let acceptor = || {
            let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
            builder.set_certificate_chain_file(ground.credentials.certificate(Key::Ecdsa))?;
            builder.set_private_key_file(ground.credentials.key(Key::Ecdsa), SslFiletype::PEM)?;
            Ok(builder.build())
        };
        let acceptor = acceptor()
            .map_err(|error: openssl::error::ErrorStack| because("set up a server")(error))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(because("bind"))?;
        let port = listener
            .local_addr()
            .map_err(because("read a port"))?
            .port();
        let (sender, arrived) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                // A session that fails is one whose message does not arrive.
                let _ = serve(socket, &acceptor, &sender);
            }
        });
        Ok(Server {
            port,
            arrived,
            resolver: OnceCell::new(),
        })
    }

    /// A DNS server on port 53 of an address of its own, which knows the relay alone
    /// and no DNSSEC.
    fn resolver(&self) -> Outcome<Ipv4Addr> {
        if let Some(ip) = self.resolver.get() {
            return Ok(*ip);
        }
        let [_, _, b, c] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, 53, b, c.clamp(1, 254));
        let socket = UdpSocket::bind((ip, 53)).map_err(because("bind port 53"))?;
        thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((count, from)) = socket.recv_from(&mut bytes) {
                // Who asked may be gone.
                let _ = answer(&bytes[..count]).map(|reply| socket.send_to(&reply, from));
            }
        });
        Ok(*self.resolver.get_or_init(|| ip))
    }
}

/// The answer to a question: the relay's address, else that there is nothing.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let name = question.get(12..)?;
    let end = name.iter().position(|&byte| byte == 0)? + 5;
    let asked = name.get(..end)?;
    let known = asked.eq_ignore_ascii_case(b"\x05relay\x05bench\0\0\x01\0\x01");
    let head = [0x81, 0x80, 0, 1, 0, u8::from(known), 0, 0, 0, 0];
    let mut reply = [question.get(..2)?, &head, asked].concat();
    if known {
        reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01");
    }
    Some(reply)
}

fn serve(socket: TcpStream, acceptor: &SslAcceptor, arrived: &Sender<Arrived>) -> Outcome<()> {
    let set = || {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)
    };
    set().map_err(because("set socket options"))?;
    let mut clear = BufReader::new(socket);
    write(clear.get_mut(), b"220 bench ESMTP\r\n")?;
    if !talk(&mut clear, None, arrived)? {
        return Ok(());
    }
    let mut tls = acceptor
        .accept(clear.into_inner())
        .map_err(because("handshake"))?;
    let version = tls.ssl().version2();
    talk(&mut BufReader::new(&mut tls), version, arrived)?;
    // Some clients wait for the end.
    let _ = tls.shutdown();
    Ok(())
}

fn write(to: &mut impl Write, text: &[u8]) -> Outcome<()> {
    to.write_all(text).map_err(because("write"))
}

/// Answers commands; true where TLS is to begin.
fn talk<S: Read + Write>(
    stream: &mut BufReader<S>,
    version: Option<SslVersion>,
    arrived: &Sender<Arrived>,
) -> Outcome<bool> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if stream
            .read_until(b'\n', &mut line)
            .map_err(because("read"))?
            == 0
        {
            return Ok(false);
        }
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply: &[u8] = match verb.as_slice() {
            b"EHLO" if version.is_some() => b"250-bench\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
            b"EHLO" => b"250-bench\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 8BITMIME\r\n",
            b"STAR" => b"220 go\r\n",
            b"DATA" => b"354 go\r\n",
            b"QUIT" => b"221 bye\r\n",
            _ => b"250 ok\r\n",
        };
        write(stream.get_mut(), reply)?;
        match verb.as_slice() {
            b"STAR" => return Ok(true),
            b"QUIT" => return Ok(false),
            b"DATA" => {
                let mut lines = 0;
                loop {
                    line.clear();
                    if stream
                        .read_until(b'\n', &mut line)
                        .map_err(because("read"))?
                        == 0
                    {
                        return Ok(false);
                    }
                    if line == b".\r\n" {
                        break;
                    }
                    lines += 1;
                }
                write(stream.get_mut(), b"250 ok\r\n")?;
                let _ = arrived.send(Arrived { version, lines });
            }
            _ => {}
        }
    }
}
