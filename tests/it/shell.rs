//! The shell tools sslconnect, sslcat and https@: what they hand to sslclient,
//! what they send and print, and that no word of theirs becomes shell text.
//!
//! Most tests put a stand-in for sslclient into PATH and run the tools under
//! every shell that is installed; the rest talk to a real sslserver.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

use crate::harness::{Authority, Place, Server, Setup, ours, skip_part};

/// Every byte that a shell or a log might stumble over.
const NASTY: &str = "$(touch bad1)`touch bad2`;touch bad3;'\"\\ * ? & | < > \t#~{}[]!";

/// The stand-in: notes its words, then runs the program behind `-- host port`
/// with a server made of the files `answer` and `said`.
const STAND_IN: &str = r#"#!/bin/sh
for word; do printf '%s\0' "$word"; done > "$PLACE/args"
while [ "$1" != -- ]; do shift; done
shift 3
rm -f "$PLACE/to" "$PLACE/from" "$PLACE/said"
SSLREMOTEPORT=${PORT-443}
export SSLREMOTEPORT
case $MODE in
  # speaks when its client has said everything
  last)
    mkfifo "$PLACE/to" "$PLACE/from"
    ( cat < "$PLACE/to" > "$PLACE/said"; cat "$PLACE/answer" ) > "$PLACE/from" & ;;
  # speaks and hangs up, whatever its client does
  first)
    mkfifo "$PLACE/from"
    cat "$PLACE/answer" > "$PLACE/from" &
    ln -s said "$PLACE/to" ;;
esac
exec "$@" 6< "$PLACE/from" 7> "$PLACE/to"
"#;

/// What a place is for here: `bin` holds the `sslclient` and the `sh` of a test.
trait Tools {
    fn search_path(&self) -> String;
    fn tool(&self, name: &str) -> Command;
    fn stand_in(&self, answer: impl AsRef<[u8]>);
    fn words(&self) -> Vec<String>;
    fn run(&self, name: &str, args: &[&str], mode: &str, input: &[u8]) -> Output;
}

impl Tools for Place {
    /// `bin` first, so that what lies there is found before the system's.
    fn search_path(&self) -> String {
        let system = std::env::var_os("PATH").expect("PATH");
        format!(
            "{}:{}",
            self.path("bin").display(),
            system.to_string_lossy()
        )
    }

    /// A tool's command, run by the shell `sh` of this place, given up after a
    /// minute. A minute is for ever here: no test waits for it.
    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["60", "sh", &ours(name)])
            .current_dir(self)
            .env("PATH", self.search_path())
            .env("PLACE", self.as_ref());
        command
    }

    fn stand_in(&self, answer: impl AsRef<[u8]>) {
        self.write("answer", answer);
        self.script("bin/sslclient", STAND_IN);
    }

    /// The words that sslclient was started with, up to and with the program.
    fn words(&self) -> Vec<String> {
        let args = String::from_utf8(self.read("args")).expect("UTF-8");
        let mut words: Vec<String> = args.split('\0').map(str::to_owned).collect();
        let end = words.iter().position(|word| word == "sh").expect("sh");
        words.truncate(end + 1);
        words
    }

    /// Runs a tool against the stand-in.
    fn run(&self, name: &str, args: &[&str], mode: &str, input: &[u8]) -> Output {
        let input = fs::File::open(self.write("input", input)).expect("input");
        self.tool(name)
            .args(args)
            .env("MODE", mode)
            .stdin(input)
            .output()
            .expect("the tool runs")
    }
}

/// Runs a test once under each shell that is installed. Each must do: any of
/// them may be somebody's sh. (yash is left out: it cannot read bytes that are
/// no characters.)
fn under_every_shell(test: impl Fn(&Place, &str)) {
    let mut seen = 0;
    for (shell, binary) in [
        ("dash", "dash"),
        ("bash", "bash"),
        ("busybox", "busybox"),
        ("ksh93", "ksh93"),
        ("mksh", "mksh"),
        ("posh", "posh"),
        ("sh", "sh"),
    ] {
        let found = std::env::split_paths(&std::env::var_os("PATH").expect("PATH"))
            .map(|folder| folder.join(binary))
            .find(|path| path.exists());
        match found {
            Some(path) => {
                let place = empty();
                symlink(path, place.path("bin/sh")).expect("link");
                test(&place, shell);
                seen += 1;
            }
            None => skip_part!("{shell} is not installed"),
        }
    }
    assert!(seen > 0, "no shell at all");
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// Lines that hold every byte but NUL and LF, the last without LF; and the same
/// as a server should get them.
fn lines() -> (Vec<u8>, Vec<u8>) {
    let mut lines = vec![
        b"first \\ line\\".to_vec(),
        b"  blanks  ".to_vec(),
        Vec::new(),
    ];
    lines.extend(
        (1..=255)
            .filter(|byte| *byte != b'\n')
            .map(|byte| vec![b'<', byte, b'>']),
    );
    lines.push(b"no newline \\".to_vec());
    (lines.join(&b"\n"[..]), lines.join(&b"\r\n"[..]))
}

/// Every byte, many times.
fn binary() -> Vec<u8> {
    (0..=255).cycle().take(300_000).collect()
}

#[test]
fn words_reach_sslclient_whole_and_none_is_shell_text() {
    under_every_shell(|place, shell| {
        for (tool, path) in [
            ("sslconnect", None),
            ("sslcat", None),
            ("https@", Some("p")),
        ] {
            place.stand_in("HTTP/1.0 200 OK\r\n\r\n");
            let run = |args: &[&str]| {
                let output = place.run(tool, args, "first", b"");
                assert!(output.status.success(), "{shell} {tool}: {output:?}");
                assert_eq!(text(&output.stderr), "", "{shell} {tool}");
                place.words()
            };
            assert_eq!(
                run(&[]),
                ["-FRHl0", "--", "0", "443", "sh"],
                "{shell} {tool}"
            );
            assert_eq!(
                run(&["h"]),
                ["-FRHl0", "--", "h", "443", "sh"],
                "{shell} {tool}"
            );
            let mut args = vec!["-4", "h"];
            args.extend(path);
            args.extend(["pop3s", "-a", NASTY, "", "-X"]);
            assert_eq!(
                run(&args),
                [
                    "-FRHl0", "-4", "-a", NASTY, "", "-X", "--", "h", "pop3s", "sh"
                ],
                "{shell} {tool}"
            );
        }
        for tool in ["sslconnect", "sslcat"] {
            let output = place.run(tool, &[NASTY, NASTY, NASTY], "first", b"");
            assert!(output.status.success(), "{shell} {tool}: {output:?}");
            assert_eq!(
                place.words(),
                ["-FRHl0", NASTY, "--", NASTY, NASTY, "sh"],
                "{shell} {tool}"
            );
        }
        // https@ takes no blank, but all else.
        let nasty = NASTY.replace([' ', '\t'], "+");
        let output = place.run("https@", &[&nasty, &nasty, &nasty, &nasty], "first", b"");
        assert!(output.status.success(), "{shell}: {output:?}");
        assert_eq!(
            place.words(),
            ["-FRHl0", &nasty, "--", &nasty, &nasty, "sh"],
            "{shell}"
        );
        assert_eq!(
            text(&place.read("said")),
            format!("GET /{nasty} HTTP/1.0\r\nHost: {nasty}\r\n\r\n"),
            "{shell}"
        );
        for bad in ["bad1", "bad2", "bad3"] {
            assert!(!place.path(bad).exists(), "{shell}: a word was run");
        }
    });
}

#[test]
fn options_of_the_tools_are_known_or_refused() {
    under_every_shell(|place, shell| {
        for tool in ["sslconnect", "sslcat", "https@"] {
            place.stand_in("HTTP/1.0 200 OK\r\n\r\n");
            for word in ["-9", "-h", "--nonsense", "-4x", "-\n"] {
                for args in [&[word][..], &["-4", word, "h"]] {
                    let output = place.run(tool, args, "first", b"");
                    assert_eq!(output.status.code(), Some(100), "{shell} {tool} {word}");
                    let shown = if word == "-\n" {
                        String::new()
                    } else {
                        format!(" {word}")
                    };
                    let begin =
                        format!("{tool}: usage: unknown option{shown}; {tool} [ -46 ] [ host ");
                    assert!(
                        text(&output.stderr).starts_with(&begin),
                        "{shell}: {output:?}"
                    );
                    assert!(!place.path("args").exists(), "{shell}: it connected");
                }
            }
            let output = place.run(tool, &["--help"], "first", b"");
            assert!(output.status.success(), "{shell} {tool}: {output:?}");
            let begin = format!("usage: {tool} [ -46 ] [ host ");
            assert!(
                text(&output.stdout).starts_with(&begin),
                "{shell}: {output:?}"
            );
            let output = place.run(tool, &["-4", "-6", "--", "-h"], "first", b"");
            assert!(output.status.success(), "{shell} {tool}: {output:?}");
            assert_eq!(
                place.words(),
                ["-FRHl0", "-6", "--", "-h", "443", "sh"],
                "{shell} {tool}"
            );
            fs::remove_file(place.path("args")).unwrap();
            // The version is that of sslclient, which does the work.
            place.script("bin/sslclient", "#!/bin/sh\necho sslclient x y\n");
            let output = place.run(tool, &["--version"], "first", b"");
            assert_eq!(text(&output.stdout), format!("{tool} x y\n"), "{shell}");
        }
    });
}

#[test]
fn sslconnect_sends_lines_with_cr_and_reads_the_answer_to_its_end() {
    under_every_shell(|place, shell| {
        let (input, expected) = lines();
        place.stand_in(binary());
        let output = place.run("sslconnect", &["h"], "last", &input);
        assert!(output.status.success(), "{shell}: {output:?}");
        assert_eq!(text(&output.stderr), "", "{shell}");
        assert!(place.read("said") == expected, "{shell}: not what was sent");
        assert!(output.stdout == binary(), "{shell}: not what was answered");
    });
}

#[test]
fn sslcat_prints_every_byte() {
    under_every_shell(|place, shell| {
        place.stand_in(binary());
        let output = place.run("sslcat", &["h", "1"], "first", b"not for the server");
        assert!(output.status.success(), "{shell}: {output:?}");
        assert!(output.stdout == binary(), "{shell}: not what was sent");
        assert!(place.read("said").is_empty(), "{shell}: said something");
    });
}

#[test]
fn https_prints_the_body_byte_for_byte() {
    under_every_shell(|place, shell| {
        for end in ["\r\n", "\n"] {
            let mut answer =
                format!("HTTP/1.0 200 OK{end}X: \u{1}\u{ff} \\{end}{end}").into_bytes();
            answer.extend_from_slice(b"\r\n\r\n");
            answer.extend(binary());
            place.stand_in(answer);
            let output = place.run("https@", &["h.example", "a/b?c=d"], "first", b"");
            assert!(output.status.success(), "{shell}: {output:?}");
            assert!(output.stdout[..4] == *b"\r\n\r\n", "{shell}");
            assert!(output.stdout[4..] == binary(), "{shell}: another body");
            assert_eq!(
                text(&place.read("said")),
                "GET /a/b?c=d HTTP/1.0\r\nHost: h.example\r\n\r\n",
                "{shell}"
            );
        }
    });
}

#[test]
fn https_names_the_host_as_the_protocol_wants_it() {
    let place = empty();
    place.stand_in("\n");
    for (host, port, name) in [
        ("h.example", "443", "h.example"),
        ("h.example", "8443", "h.example:8443"),
        ("2001:db8::1", "8443", "[2001:db8::1]:8443"),
        ("[2001:db8::1]", "443", "[2001:db8::1]"),
        ("0", "443", "127.0.0.1"),
        ("", "443", "127.0.0.1"),
    ] {
        let output = place
            .tool("https@")
            .args([host, "", "https"])
            .env("MODE", "first")
            .env("PORT", port)
            .stdin(Stdio::null())
            .output()
            .expect("the tool runs");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(
            text(&place.read("said")),
            format!("GET / HTTP/1.0\r\nHost: {name}\r\n\r\n")
        );
    }
}

#[test]
fn https_refuses_what_would_be_another_request() {
    under_every_shell(|place, shell| {
        place.stand_in("");
        for (host, path) in [
            ("h", "a b"),
            ("h", "a\r\nX: y"),
            ("h", "a\nb"),
            ("h", "a\tb"),
            ("h\nX: y", ""),
            ("h x", ""),
        ] {
            let output = place.run("https@", &[host, path], "first", b"");
            assert_eq!(output.status.code(), Some(100), "{shell} {host:?} {path:?}");
            assert!(
                text(&output.stderr).starts_with("https@: fatal: "),
                "{shell}"
            );
            assert!(!place.path("args").exists(), "{shell}: it connected");
        }
    });
}

#[test]
fn https_says_when_there_is_no_body() {
    under_every_shell(|place, shell| {
        for answer in ["", "HTTP/1.0 200 OK\r\n", "HTTP/1.0 200 OK\r\nX: y"] {
            place.stand_in(answer);
            let output = place.run("https@", &["h"], "first", b"");
            assert_eq!(output.status.code(), Some(111), "{shell} {answer:?}");
            assert!(output.stdout.is_empty(), "{shell}");
            assert_eq!(
                text(&output.stderr),
                "https@: fatal: the answer ended inside its header\n",
                "{shell}"
            );
        }
    });
}

/// A place with an empty `bin`.
fn empty() -> Place {
    let place = Place::new("shell");
    fs::create_dir(place.path("bin")).expect("folder");
    place
}

/// The trust anchor of [`serve`]'s certificate.
fn anchor(place: &Place) -> String {
    place.write("anchor.pem", Authority::shared_root().pem())
}

/// A real sslserver around a shell text that finds the place in `$PLACE`.
fn serve(place: &Place, program: &str) -> Server {
    let folder = place.path("");
    Setup::script(place, program).env("PLACE", folder).start()
}

/// A place whose `sslclient` is the real one.
fn real_place() -> Place {
    let place = empty();
    symlink(ours("sslclient"), place.path("bin/sslclient")).expect("link");
    place
}

#[test]
fn sslconnect_gets_a_whole_answer_after_its_input_ended() {
    let place = real_place();
    let (input, expected) = lines();
    place.write("answer", binary());
    let anchor = anchor(&place);
    let server = serve(&place, r#"cat > "$PLACE/said"; exec cat "$PLACE/answer""#);
    let input = fs::File::open(place.write("input", input)).expect("input");
    let output = place
        .tool("sslconnect")
        .args(["127.0.0.1", &server.port.to_string(), "-a"])
        .arg(&anchor)
        .stdin(input)
        .output()
        .expect("the tool runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    assert!(place.read("said") == expected, "not what was sent");
    assert!(output.stdout == binary(), "not what was answered");
}

#[test]
fn sslconnect_talks_both_ways_and_ends_with_the_server() {
    let place = real_place();
    let program =
        r#"while read -r line; do echo "heard $line"; case $line in quit*) exit; esac; done"#;
    let anchor = anchor(&place);
    let server = serve(&place, program);
    let mut client = place
        .tool("sslconnect")
        .args(["0", &server.port.to_string(), "-a"])
        .arg(&anchor)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    // Kept open to the end: the server's end alone must be enough.
    let mut input = client.stdin.take().expect("a pipe");
    let mut output = BufReader::new(client.stdout.take().expect("a pipe"));
    for word in ["one", "two", "quit"] {
        input
            .write_all(format!("{word}\n").as_bytes())
            .expect("input");
        let mut line = String::new();
        output.read_line(&mut line).expect("an answer");
        assert_eq!(line, format!("heard {word}\r\n"));
    }
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).expect("the end");
    assert!(rest.is_empty());
    assert!(client.wait().expect("ends").success());
    drop(input);
}

#[test]
fn sslcat_and_https_read_from_a_real_server() {
    let place = real_place();
    let mut answer = b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n".to_vec();
    answer.extend(binary());
    place.write("answer", &answer);
    let program = r#"
        if [ -e "$PLACE/ask" ]; then
          while IFS= read -r line; do
            printf '%s\n' "$line"
            case $line in ?) break ;; esac
          done > "$PLACE/said"
        fi
        exec cat "$PLACE/answer""#;
    let anchor = anchor(&place);
    let server = serve(&place, program);
    let run = |tool: &str, args: &[&str]| {
        let output = place
            .tool(tool)
            .args(args)
            .arg("-a")
            .arg(&anchor)
            .stdin(Stdio::null())
            .output()
            .expect("the tool runs");
        assert!(output.status.success(), "{tool}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{tool}");
        output.stdout
    };
    let got = run("sslcat", &["127.0.0.1", &server.port.to_string()]);
    assert!(got == answer, "sslcat: not what was sent");
    place.write("ask", "");
    let got = run("https@", &["127.0.0.1", "a?b", &server.port.to_string()]);
    assert!(got == binary(), "https@: not the body");
    let request = format!(
        "GET /a?b HTTP/1.0\r\nHost: 127.0.0.1:{}\r\n\r\n",
        server.port
    );
    assert_eq!(text(&place.read("said")), request);
}

/// `sslcat host port > backup.tar`: half of it must not look like all of it.
#[test]
fn an_answer_that_was_cut_off_is_no_success() {
    let place = real_place();
    let anchor = anchor(&place);
    // A peer that ends its connection without close_notify.
    let authority = Authority::shared_root();
    let identity = crate::harness::Leaf::localhost().issue_by(authority);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut acceptor =
        openssl::ssl::SslAcceptor::mozilla_intermediate_v5(openssl::ssl::SslMethod::tls_server())
            .unwrap();
    acceptor.set_certificate(&identity.certificate).unwrap();
    acceptor.set_private_key(&identity.key).unwrap();
    let acceptor = acceptor.build();
    let server = std::thread::spawn(move || {
        for _ in 0..4 {
            let (socket, _) = listener.accept().unwrap();
            let mut session = acceptor.accept(socket).unwrap();
            session.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf").unwrap();
            // The other end sees an end of file, no reset: all of its own is read.
            session
                .get_ref()
                .shutdown(std::net::Shutdown::Write)
                .unwrap();
            let _ = session.get_mut().read_to_end(&mut Vec::new());
        }
    });
    let cut =
        "sslclient: warning: truncated: the server ended the connection without close_notify\n";
    for tool in ["sslconnect", "sslcat", "https@"] {
        let mut command = place.tool(tool);
        command.arg("127.0.0.1");
        command.args((tool == "https@").then_some("p"));
        command.args([&port, "-a", &anchor]).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(text(&output.stdout).ends_with("half"), "{tool}");
        assert_eq!(output.status.code(), Some(111), "{tool}");
        assert_eq!(text(&output.stderr), cut, "{tool}");
    }
    // Without -F the program's own code counts.
    let output = Command::new(ours("sslclient"))
        .args([
            "-RHl0",
            "-a",
            &anchor,
            "127.0.0.1",
            &port,
            "sh",
            "-c",
            "cat <&6 7>&-",
        ])
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), &*text(&output.stderr)),
        (Some(0), "")
    );
    server.join().unwrap();
}

#[test]
fn no_tool_prints_what_an_unverified_server_sends() {
    let place = real_place();
    let _anchor = anchor(&place);
    let server = serve(&place, "echo; echo secret");
    let port = server.port.to_string();
    for tool in ["sslconnect", "sslcat", "https@"] {
        let mut args = vec!["127.0.0.1"];
        args.extend((tool == "https@").then_some(""));
        args.push(&port);
        let run = |more: &[&str]| {
            let output = place
                .tool(tool)
                .args(&args)
                .args(more)
                .stdin(Stdio::null())
                .output();
            output.expect("the tool runs")
        };
        let output = run(&[]);
        assert_eq!(output.status.code(), Some(111), "{tool}");
        assert!(output.stdout.is_empty(), "{tool}");
        let said = text(&output.stderr);
        assert!(
            said.starts_with("sslclient: fatal: unable to verify server certificate"),
            "{said}"
        );
        let output = run(&["-X"]);
        assert!(output.status.success(), "{tool}: {}", text(&output.stderr));
        assert!(text(&output.stdout).ends_with("secret\n"), "{tool}");
    }
}
