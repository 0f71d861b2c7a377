//! doc/outbound.md, command by command: what it tells the reader to write works,
//! and its proof proves the rule that was written.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::fake::Fake;
use crate::harness::process::eventually;
use crate::harness::{Authority, Finished, Leaf, Place, need, peer, run};

/// The blocks of commands of the guide, in their order.
fn blocks() -> Vec<String> {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("doc/outbound.md");
    let text = fs::read_to_string(guide).unwrap();
    let parts = text.split("\n```\n");
    parts.skip(1).step_by(2).map(str::to_owned).collect()
}

/// A reader's machine: the guide's paths and ports lead into a test's place.
struct Reader {
    place: Place,
    replaced: Vec<(String, String)>,
    children: Vec<Child>,
}

impl Reader {
    fn new() -> Reader {
        let place = Place::new("guide");
        for folder in ["qmail/bin", "qmail/control", "qmail/ssl", "tmp"] {
            fs::create_dir_all(place.path(folder)).unwrap();
        }
        place.write("root.pem", Authority::shared_root().pem());
        place.write("qmail/ssl/partner-ca.pem", Authority::shared_root().pem());
        place.write("qmail/bin/qmail-remote", "old");
        let programs = Path::new(env!("CARGO_BIN_EXE_sslclient")).parent().unwrap();
        let ids = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
        let replaced = [
            ("/var/qmail", place.text("qmail")),
            ("/tmp", place.text("tmp")),
            ("/usr/local/bin", programs.display().to_string()),
            ("root:qmail", ids),
        ];
        Reader {
            replaced: replaced.map(|(from, to)| (from.to_owned(), to)).into(),
            place,
            children: Vec::new(),
        }
    }

    /// What the guide calls by this name is a server of this test.
    fn is(&mut self, name: &str, at: &str) {
        self.replaced.insert(0, (name.to_owned(), at.to_owned()));
    }

    fn shell(&self, script: &str) -> Command {
        let mut script = script.to_owned();
        // In two steps: what is put in is not to be replaced again.
        for (number, (from, _)) in self.replaced.iter().enumerate() {
            script = script.replace(from, &format!("\u{1}{number}\u{2}"));
        }
        for (number, (_, to)) in self.replaced.iter().enumerate() {
            script = script.replace(&format!("\u{1}{number}\u{2}"), to);
        }
        let programs = Path::new(env!("CARGO_BIN_EXE_sslclient")).parent().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", &script]).env_clear();
        shell.env(
            "PATH",
            format!("{}:/usr/sbin:/usr/bin:/bin", programs.display()),
        );
        shell.env("SSL_CERT_FILE", self.place.path("root.pem"));
        shell
    }

    /// Runs a block; what it leaves in the background goes on beside it.
    fn run(&mut self, block: &str) -> Finished {
        let mut script = String::new();
        for line in block.lines() {
            match line.strip_suffix(" &") {
                Some(command) => {
                    let mut shell = self.shell(&format!("exec {command}"));
                    shell.stdin(Stdio::null()).stdout(Stdio::null());
                    // It serves a file that the same block writes before it.
                    let ended = run(&mut self.shell(&script), b"");
                    assert_eq!(ended.code, Some(0), "{script}: {}", ended.stderr);
                    script.clear();
                    self.children.push(shell.process_group(0).spawn().unwrap());
                }
                None => script.extend([line, "\n"]),
            }
        }
        run(&mut self.shell(&script), b"")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            let _ = child.wait();
        }
    }
}

#[test]
fn every_command_of_the_guide_does_what_it_says() {
    let _ = need!("tcpserver");
    let mut reader = Reader::new();
    let leaf = |name: &str| peer::context(&Leaf::new("x").dns(name).issue(), |_| ());
    let loopback = || "127.0.0.1:0".parse().unwrap();
    let partner = Fake::tls(leaf("partner.example")).listen(loopback());
    let at = format!("localhost {}", partner.at.port());
    reader.is("mx.partner.example 25", &at);
    let provider = Fake::tls(leaf("smtp.provider.example")).listen(loopback());
    // Its name is the line's; it is only called elsewhere.
    let at = format!("-m smtp.provider.example localhost {}", provider.at.port());
    reader.is("smtp.provider.example 587", &at);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    reader.is("2525", &port.to_string());

    let mut ran = 0;
    for block in blocks() {
        if block.starts_with("delivery 7: ") {
            continue;
        }
        let ended = reader.run(&block);
        let (code, said, error) = expected(&block);
        assert_eq!(ended.code, Some(code), "{block}{}", ended.stderr);
        for part in said {
            assert!(ended.text().contains(part), "{block}{}", ended.text());
        }
        assert!(ended.stderr.contains(error), "{block}{}", ended.stderr);
        if block.contains("tcpserver") {
            eventually("tcpserver listens", || {
                TcpStream::connect(("127.0.0.1", port)).ok()
            });
        }
        ran += 1;
    }
    assert_eq!(ran, 11, "the blocks of the guide");
    let installed = fs::read(reader.place.path("qmail/bin/qmail-remote")).unwrap();
    assert!(installed.starts_with(b"\x7fELF"), "the new qmail-remote");
    assert_eq!(reader.place.read("qmail/bin/qmail-remote.old"), b"old");
    let quit = partner.seen();
    assert!(quit[0].commands.contains(&"S: QUIT".to_owned()), "{quit:?}");
}

/// How a block ends: its code, what it prints, what is in its messages.
fn expected(block: &str) -> (i32, &'static [&'static str], &'static str) {
    let mail = |line: &str| line.starts_with("echo 'Subject");
    let last = block.lines().last().unwrap_or_default();
    match block {
        _ if block.starts_with("sslclient -W") => (
            0,
            &["partner.example: line 1 \"~partner.example\" applies: TLS is required; "],
            "",
        ),
        _ if block.starts_with("sslclient -v") => (0, &[], "verify=OK"),
        // The proof, and its counter-proof.
        _ if mail(block) => (
            0,
            &[
                "ZConnected to 127.0.0.1 ([127.0.0.1]) but it does not offer STARTTLS; \
               tlsdestinations line 1 requires TLS. (#4.7.5)\n",
            ],
            "",
        ),
        _ if mail(last) => (
            0,
            &["r\nK127.0.0.1 accepted message (no TLS: it was not offered).\n"],
            "",
        ),
        _ if last.starts_with("sslclient -P") => (
            111,
            &[],
            "unable to start TLS with STARTTLS: server does not offer STARTTLS",
        ),
        _ => (0, &[], ""),
    }
}
