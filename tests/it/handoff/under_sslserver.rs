//! starttls-handoff under sslserver -n: clients and programs of others, what
//! the process list shows, and what an attacker gets.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::harness::{
    Authority, Dial, Finished, Place, Server, Setup, compile, dial, eventually, need, need_root,
    ours, overlay, program, run, skip, wanted,
};
use crate::server::peers::with_mailbox;

/// Programs that are played by a shell: a greeting, then an answer by line.
const LMTP: &str = r#"printf '220 mx LMTP\r\n'; while read -r line; do case $line in
    LHLO*) printf '250-mx\r\n250 PIPELINING\r\n';;
    QUIT*) printf '221 bye %s\r\n' "$SSL_PROTOCOL"; exit;;
    *) printf '250 ok\r\n';; esac; done"#;
const SIEVE: &str = r#"list() { printf '"IMPLEMENTATION" "x"\r\n"SASL" "PLAIN"\r\n"SIEVE" ""\r\nOK "ready"\r\n'; }
    list; while read -r line; do case $line in
    CAPABILITY*) list;;
    LOGOUT*) printf 'OK "bye %s"\r\n' "$SSL_PROTOCOL"; exit;;
    *) printf 'OK\r\n';; esac; done"#;

/// Like qmail-popup over a checkpassword that knows APOP, and as strict: each
/// process has a timestamp of its own, and a wrong answer ends it.
const APOP: &str = r#"stamp="<$$.1@mx>"; printf '+OK %s\r\n' "$stamp"
    digest=$(printf %ssesame "$stamp" | md5sum | cut -c1-32)
    cr=$(printf '\r'); while read -r line; do case ${line%"$cr"} in
    "APOP tester $digest"|"PASS sesame") printf '+OK\r\n';;
    USER*) printf '+OK\r\n';;
    LIST) printf '+OK\r\n1 99\r\n.\r\n';;
    QUIT) printf '+OK\r\n'; exit;;
    APOP*|PASS*) printf -- '-ERR authorization failed\r\n'; exit;;
    *) printf -- '-ERR\r\n';; esac; done"#;

fn setup<'a>(place: &'a Place, protocol: &str, prog: &[&str]) -> Setup<'a> {
    let handoff = ours("starttls-handoff");
    let words = [&[&*handoff, "-v", protocol], prog].concat();
    Setup::new(place, &words).options("-nV")
}

fn anchors(place: &Place) -> String {
    place.write("root.pem", Authority::shared_root().pem())
}

fn smtpfront() -> Option<Vec<String>> {
    let path = program("smtpfront-echo")?.to_str()?.to_owned();
    Some(vec![path, "accept".to_owned()])
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Every session must have ended inside TLS, with the program's own code 0.
fn all_inside_tls(server: &Server, sessions: usize) {
    server.lines("starttls-handoff: tls ", sessions);
    server.quiet();
    let log = server.log();
    assert!(!log.contains("without TLS"), "{log}");
    assert!(!log.contains("warning"), "{log}");
}

/// The real or played programs of a protocol, with what a client says inside
/// TLS and what it must hear.
fn programs() -> Vec<(&'static str, Vec<String>, &'static str, &'static str)> {
    let found = |name: &str, arguments: &[&str]| -> Option<Vec<String>> {
        let path = wanted(name)?;
        let mut words = vec![path.to_str()?.to_owned()];
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        Some(words)
    };
    let played = |script: &str| Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
    [
        (
            "smtp",
            found("smtpfront-echo", &["accept"]),
            "QUIT\n",
            "221 ",
        ),
        (
            "smtp",
            found("exim4", &["-bs", "-oMa", "127.0.0.1"]),
            "QUIT\n",
            "221 ",
        ),
        ("lmtp", played(LMTP), "QUIT\n", "221 bye TLSv1.3"),
        ("pop3", found("popa3d", &[]), "QUIT\n", "+OK"),
        ("imap", found("imap4d", &["--inetd"]), "x LOGOUT\n", "x OK"),
        ("sieve", played(SIEVE), "LOGOUT\n", "OK \"bye TLSv1.3\""),
    ]
    .into_iter()
    .filter_map(|(protocol, prog, say, hear)| Some((protocol, prog?, say, hear)))
    .collect()
}

#[test]
fn s_client_upgrades_in_every_protocol() {
    need!("openssl");
    for (protocol, prog, say, hear) in programs() {
        for policy in ["", "!"] {
            let place = Place::new("handoff-s-client");
            let anchors = anchors(&place);
            let server = setup(&place, protocol, &words(&prog))
                .env("UCSPITLS", policy)
                .start();
            let mut command = Command::new("openssl");
            command.args(["s_client", "-connect", &server.at.to_string()]);
            command.args([
                "-starttls",
                protocol,
                "-quiet",
                "-crlf",
                "-CAfile",
                &anchors,
            ]);
            command.args(["-verify_return_error", "-verify_hostname", "localhost"]);
            let ended = run(&mut command, say.as_bytes());
            assert!(
                ended.text().contains(hear),
                "{protocol} {prog:?} {policy:?}: {}{}{}",
                ended.text(),
                ended.stderr,
                server.log()
            );
            all_inside_tls(&server, 1);
        }
    }
}

#[test]
fn gnutls_upgrades_in_every_protocol() {
    let gnutls = need!("gnutls-cli");
    for (protocol, prog, say, hear) in programs() {
        let place = Place::new("handoff-gnutls");
        let anchors = anchors(&place);
        let server = setup(&place, protocol, &words(&prog)).start();
        let mut command = Command::new(&gnutls);
        command.args(["--x509cafile", &anchors, "--port", &server.port.to_string()]);
        command.args(["--starttls-proto", protocol, "localhost"]);
        // Its own --crlf garbles lines that come in one piece.
        let lines = say.replace("\r\n", "\n").replace('\n', "\r\n");
        let ended = run(&mut command, lines.as_bytes());
        assert!(
            ended.text().contains(hear),
            "{protocol} {prog:?}: {}{}{}",
            ended.text(),
            ended.stderr,
            server.log()
        );
        all_inside_tls(&server, 1);
    }
}

fn curl(
    server: &Server,
    anchors: &str,
    scheme: &str,
    path: &str,
    more: &[&str],
) -> Option<Finished> {
    let mut command = Command::new(wanted("curl")?);
    command.args([
        "-sSv",
        "--max-time",
        "25",
        "--cacert",
        anchors,
        "--ssl-reqd",
    ]);
    command.args(["--resolve", &format!("localhost:{}:127.0.0.1", server.port)]);
    command.args(more);
    command.arg(format!("{scheme}://localhost:{}/{path}", server.port));
    Some(run(&mut command, b""))
}

#[test]
fn curl_and_swaks_send_mail_inside_tls() {
    let Some(prog) = smtpfront() else {
        skip!("smtpfront-echo is not installed");
    };
    let place = Place::new("handoff-mail");
    let anchors = anchors(&place);
    let server = setup(&place, "smtp", &words(&prog)).start();
    let letter = place.write("letter", "Subject: two\r\n\r\nSTARTTLS\r\n.\r\nEnd\r\n");
    let mail = [
        "--mail-from",
        "a@x",
        "--mail-rcpt",
        "b@x",
        "--upload-file",
        &letter,
    ];
    let mut sessions = 0;
    if let Some(ended) = curl(&server, &anchors, "smtp", "", &mail) {
        assert_eq!(ended.code, Some(0), "{}{}", ended.stderr, server.log());
        sessions += 1;
    }
    if let Some(swaks) = wanted("swaks") {
        let mut command = Command::new(swaks);
        command.args(["--server", &server.at.to_string(), "-tls", "--tls-verify"]);
        command.args(["--tls-ca-path", &anchors, "--to", "b@x", "--from", "a@x"]);
        let ended = run(&mut command, b"");
        assert_eq!(ended.code, Some(0), "{}{}", ended.text(), server.log());
        sessions += 1;
    }
    all_inside_tls(&server, sessions);
}

/// Fetches the letter in POP3 and IMAP, from programs that know nothing of TLS.
#[test]
fn mailboxes_are_read_inside_tls_by_curl_and_python() {
    need_root!();
    need!("openssl");
    for (protocol, name, arguments) in [
        ("pop3", "popa3d", &[][..]),
        ("imap", "imap4d", &["--inetd"]),
    ] {
        let Some(path) = wanted(name) else {
            continue;
        };
        let place = Place::new("handoff-mailbox");
        if !overlay::possible(&place) {
            skip!("no mount namespace can be made");
        }
        let anchors = anchors(&place);
        let prog = [&[path.to_str().unwrap()], arguments].concat();
        let server = setup(&place, protocol, &prog)
            .through(with_mailbox(&place))
            .start();
        let mut sessions = 0;
        let path = if protocol == "pop3" {
            "1"
        } else {
            "INBOX;MAILINDEX=1"
        };
        for (password, code) in [("tester:sesame", 0), ("tester:wrong", 67)] {
            // curl would choose a mechanism that imap4d offers and cannot do.
            let words = ["--user", password, "--login-options", "AUTH=LOGIN"];
            let words = if protocol == "imap" {
                &words[..]
            } else {
                &words[..2]
            };
            if let Some(ended) = curl(&server, &anchors, protocol, path, words) {
                assert_eq!(ended.code, Some(code), "{}{}", ended.stderr, server.log());
                assert_eq!(ended.text().contains("The only letter."), code == 0);
                sessions += 1;
            }
        }
        if let Some(python) = wanted("python3") {
            let script = place.write("client.py", PYTHON);
            let mut command = Command::new(python);
            command.args([&script, protocol, &server.port.to_string(), &anchors]);
            let ended = run(&mut command, b"");
            assert_eq!(
                (ended.code, ended.text().as_str()),
                (Some(0), "done\n"),
                "{}{}",
                ended.stderr,
                server.log()
            );
            sessions += 1;
        }
        all_inside_tls(&server, sessions);
    }
}

/// curl prefers APOP to a password, and gives up where it fails.
#[test]
fn curl_logs_in_to_a_program_that_greets_with_a_timestamp() {
    need!("curl");
    let place = Place::new("handoff-apop");
    let anchors = anchors(&place);
    let server = setup(&place, "pop3", &["/bin/sh", "-c", APOP]).start();
    for (login, code) in [("tester:sesame", 0), ("tester:wrong", 67)] {
        let ended = curl(&server, &anchors, "pop3", "", &["--user", login]).unwrap();
        let told = format!("{}{}", ended.stderr, server.log());
        assert_eq!(ended.code, Some(code), "{told}");
        assert_eq!(ended.text().contains("1 99"), code == 0, "{told}");
    }
    all_inside_tls(&server, 2);
}

/// Clients that ask for CAPA again inside TLS, from a program that has none.
#[test]
fn fetchmail_and_mpop_fetch_from_a_program_without_capa() {
    need_root!();
    let popa3d = need!("popa3d");
    let place = Place::new("handoff-capa");
    if !overlay::possible(&place) {
        skip!("no mount namespace can be made");
    }
    let anchors = anchors(&place);
    let private = |name: &str, text: String| {
        let path = place.write(name, text);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, mode).unwrap();
        path
    };
    let mailbox = with_mailbox(&place);
    for policy in ["", "!"] {
        let server = setup(&place, "pop3", &[popa3d.to_str().unwrap()])
            .through(mailbox.clone())
            .env("UCSPITLS", policy)
            .start();
        let port = server.port;
        let mut sessions = 0;
        if let Some(fetchmail) = wanted("fetchmail") {
            let got = place.text("fetchmail.got");
            let rc = private(
                "fetchmailrc",
                format!(
                    "poll localhost protocol pop3 port {port} username tester password sesame \
                     sslcertck sslcertfile {anchors} keep mda \"/bin/cat >{got}\"\n"
                ),
            );
            let mut command = Command::new(fetchmail);
            command.args(["-v", "-f", &rc, "--pidfile", &place.text("fetchmail.pid")]);
            command.env("FETCHMAILHOME", place.path("."));
            let ended = run(&mut command, b"");
            let told = format!("{}{}{}", ended.text(), ended.stderr, server.log());
            assert_eq!(ended.code, Some(0), "{policy:?}: {told}");
            assert!(told.contains("POP3> CAPA"), "it asks: {told}");
            let letter = fs::read_to_string(&got).unwrap();
            assert!(letter.contains("The only letter."), "{letter}");
            fs::remove_file(&got).unwrap();
            sessions += 1;
        }
        if let Some(mpop) = wanted("mpop") {
            let got = place.text("mpop.got");
            let rc = private(
                "mpoprc",
                format!(
                    "account default\nhost localhost\nport {port}\ntls on\ntls_starttls on\n\
                     tls_trust_file {anchors}\nuser tester\npassword sesame\nkeep on\n\
                     delivery mbox {got}\nuidls_file {}\n",
                    place.fresh("uidls").display()
                ),
            );
            let ended = run(Command::new(mpop).args(["-C", &rc]), b"");
            assert_eq!(ended.code, Some(0), "{}{}", ended.stderr, server.log());
            let letter = fs::read_to_string(&got).unwrap();
            assert!(letter.contains("The only letter."), "{letter}");
            fs::remove_file(&got).unwrap();
            sessions += 1;
        }
        all_inside_tls(&server, sessions);
    }
}

#[test]
fn a_connection_without_tls_says_so_at_its_end() {
    let place = Place::new("handoff-plain");
    // starttls-handoff forgotten, or a client that does not want TLS.
    let echo = Setup::script(&place, "echo hello").options("-nv").start();
    assert_eq!(Clear::to(&echo).rest(), b"hello\n");
    let line = echo.line("in plaintext");
    assert!(
        line.starts_with("sslserver: pid ")
            && line.ends_with(" from 127.0.0.1: in plaintext: the program did not ask for TLS"),
        "{line}"
    );
    let Some(prog) = smtpfront() else {
        skip!("smtpfront-echo is not installed");
    };
    let server = setup(&place, "smtp", &words(&prog)).start();
    let mut client = Clear::to(&server);
    client.expect("220 ");
    client.send("QUIT\r\n");
    client.rest();
    server.line("in plaintext");
    assert!(upgraded(&server, "EHLO c\r\n").contains("250"));
    server.lines("sslserver: end ", 2);
    server.quiet();
    assert_eq!(
        server.log().matches("in plaintext").count(),
        1,
        "{}",
        server.log()
    );
}

/// A program between server and starttls-handoff swallows the ClientHello.
#[test]
fn recordio_and_fixcrio_belong_behind_starttls_handoff() {
    let place = Place::new("handoff-recordio");
    let Some(prog) = smtpfront() else {
        skip!("smtpfront-echo is not installed");
    };
    for name in ["recordio", "fixcrio"] {
        let Some(between) = wanted(name) else {
            continue;
        };
        let between = between.to_str().unwrap();
        let handoff = ours("starttls-handoff");
        let before = [&[between, &*handoff, "smtp"], &words(&prog)[..]].concat();
        let server = Setup::new(&place, &before).options("-nv").start();
        let client = Clear::to(&server);
        assert_eq!(client.rest(), b"", "{name}: no greeting, and no waiting");
        let line = server.line("starttls-handoff: fatal: ");
        assert!(
            line.ends_with(
                "descriptor 0 is not the client's socket: a program such as recordio or \
                 fixcrio belongs behind starttls-handoff, not before it"
            ),
            "{line}"
        );
        server.quiet();
        // Behind it they work.
        let behind = [&[between], &words(&prog)[..]].concat();
        let server = setup(&place, "smtp", &behind).start();
        let talk = "EHLO c\r\n";
        let text = upgraded(&server, talk);
        assert!(text.contains("250"), "{name}: {text}");
        all_inside_tls(&server, 1);
    }
}

/// What smtpfront says inside TLS to `talk` and QUIT.
fn upgraded(server: &Server, talk: &str) -> String {
    let openssl = program("openssl").unwrap();
    let mut command = Command::new(openssl);
    command.args(["s_client", "-quiet", "-verify_quiet", "-starttls", "smtp"]);
    command.args(["-connect", &server.at.to_string()]);
    run(&mut command, format!("{talk}QUIT\r\n").as_bytes()).text()
}

/// Python's own clients: what is offered before and inside TLS, a refused
/// password before, the mailbox or a mail inside.
const PYTHON: &str = r#"
import sys, ssl, smtplib, poplib, imaplib
protocol, port, anchors = sys.argv[1], int(sys.argv[2]), sys.argv[3]
context = ssl.create_default_context(cafile=anchors)
if protocol == "pop3":
    client = poplib.POP3("localhost", port, timeout=25)
    assert "STLS" in client.capa() and "USER" not in client.capa()
    try:
        client.user("tester")
        raise SystemExit("USER was taken in the clear")
    except poplib.error_proto as error:
        assert b"[AUTH]" in error.args[0]
    client.stls(context)
    client.user("tester")
    client.pass_("sesame")
    assert b"The only letter." in client.retr(1)[1]
    client.quit()
elif protocol == "imap":
    client = imaplib.IMAP4("localhost", port, timeout=25)
    assert "STARTTLS" in client.capabilities and "LOGINDISABLED" in client.capabilities
    try:
        client.login("tester", "sesame")
        raise SystemExit("LOGIN was taken in the clear")
    except imaplib.IMAP4.error as error:
        assert "PRIVACYREQUIRED" in str(error)
    client.starttls(context)
    assert "STARTTLS" not in client.capabilities
    client.login("tester", "sesame")
    client.select("INBOX", readonly=True)
    assert b"The only letter." in client.fetch("1", "(BODY[TEXT])")[1][0][1]
    client.logout()
else:
    client = smtplib.SMTP("localhost", port, timeout=25)
    client.ehlo()
    assert client.has_extn("starttls")
    client.starttls(context=context)
    client.ehlo()
    assert not client.has_extn("starttls")
    client.sendmail("a@x", ["b@x"], "Subject: x\r\n\r\nSTARTTLS\r\n.\r\nEnd\r\n")
    client.quit()
print("done")
"#;

#[test]
fn pythons_smtplib_sends_mail_inside_tls() {
    let python = need!("python3");
    let Some(prog) = smtpfront() else {
        skip!("smtpfront-echo is not installed");
    };
    let place = Place::new("handoff-smtplib");
    let anchors = anchors(&place);
    let server = setup(&place, "smtp", &words(&prog)).start();
    let script = place.write("client.py", PYTHON);
    let mut command = Command::new(python);
    command.args([&script, "smtp", &server.port.to_string(), &anchors]);
    let ended = run(&mut command, b"");
    assert_eq!(ended.code, Some(0), "{}{}", ended.stderr, server.log());
    all_inside_tls(&server, 1);
}

/// A client in the clear, as far as it goes.
struct Clear(TcpStream);

impl Clear {
    fn to(server: &Server) -> Clear {
        let stream = dial::plain(server.at);
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Clear(stream)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    fn expect(&mut self, text: &str) {
        let mut got = vec![0; text.len()];
        self.0.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8_lossy(&got), text);
    }

    fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset ends it too.
        let _ = self.0.read_to_end(&mut rest);
        rest
    }
}

const SHELL: &str = r#"printf '220 mx\r\n'; while read -r line; do case $line in
    QUIT*) printf '221 bye\r\n'; exit;; *) printf '250 %s %s\r\n' "$$" "$SSL_CIPHER";; esac; done"#;

#[test]
fn the_process_list_shows_the_program_and_the_tls_process_alone() {
    let place = Place::new("handoff-processes");
    let server = setup(&place, "smtp", &["/bin/sh", "-c", SHELL]).start();
    let mut client = Clear::to(&server);
    client.expect("220 mx\r\n");
    client.send("STARTTLS\r\n");
    client.expect("220 2.0.0 Ready to start TLS\r\n");
    let mut tls = Dial::to(&server).over(client.0).unwrap();
    tls.send("WHO\r\n");
    let answer = tls.line();
    let id: i32 = answer.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(answer.contains("TLS_"), "{answer}");
    // The program's pid is the one that the server logged, and its own child.
    assert!(server.line("sslserver: ok ").contains(&format!(" {id} ")));
    let busy = server.busy();
    assert_eq!(busy.len(), 2, "{busy:?}");
    for process in &busy {
        assert_eq!(process.parent, server.pid().cast_signed(), "{busy:?}");
    }
    let command_line = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap();
    assert!(
        command_line.starts_with("/bin/sh\0-c\0"),
        "{command_line:?}"
    );
    let mut numbers: Vec<u32> = fs::read_dir(format!("/proc/{id}/fd"))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        // Those above belong to whoever runs the tests.
        .filter(|&number| number < 10)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    tls.send("QUIT\r\n");
    assert_eq!(tls.line(), "221 bye\r\n");
    drop(tls);
    all_inside_tls(&server, 1);
}

#[test]
fn no_byte_in_the_clear_gets_behind_the_upgrade() {
    let place = Place::new("handoff-injection");
    let server = setup(&place, "smtp", &["/bin/sh", "-c", SHELL]).start();
    let go = "220 2.0.0 Ready to start TLS\r\n";
    for (number, (first, answer, second)) in [
        ("STARTTLS\r\nRSET\r\n", "", ""),
        ("STARTTLS\r\nRS", "", ""),
        ("STARTTLS\r\n", go, "RSET\r\n"),
        ("STARTTLS\r\n", go, "R"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Clear::to(&server);
        client.expect("220 mx\r\n");
        client.send(first);
        client.expect(answer);
        client.send(second);
        assert_eq!(client.rest(), b"", "{first:?}");
        let line = server.lines(": injection", number + 1).remove(number);
        assert!(
            line.starts_with("starttls-handoff: warning: dropping connection, pid ")
                && line.contains(" from 127.0.0.1: "),
            "{line}"
        );
        server.quiet();
    }
    // What begins as a handshake and is none is the server's to judge.
    let mut client = Clear::to(&server);
    client.expect("220 mx\r\n");
    client.send("STARTTLS\r\n");
    client.expect(go);
    client.send("\x16RSET\r\nRSET\r\nRSET\r\nRSET\r\n");
    let _ = client.0.shutdown(std::net::Shutdown::Write);
    client.rest();
    server.line("sslserver: warning: dropping TLS connection");
    server.line("TLS handshake failed");
    server.quiet();
    assert!(
        !server.log().contains("starttls-handoff: tls "),
        "{}",
        server.log()
    );
}

#[test]
fn a_rule_chooses_the_policy_of_each_client() {
    let place = Place::new("handoff-rules");
    let compile = |text: &str| compile(&place, "rules.cdb", text);
    let cdb = compile("127.:allow,UCSPITLS=\"!\"\n");
    let server = setup(&place, "smtp", &["/bin/sh", "-c", SHELL])
        .rules(&cdb)
        .start();
    let greeting = |expected: &str| {
        let mut client = Clear::to(&server);
        client.expect(expected);
        client.send("HELO c\r\n");
        let mut answer = [0; 3];
        client.0.read_exact(&mut answer).unwrap();
        client.send("QUIT\r\n");
        client.rest();
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert_eq!(greeting("220 localhost ESMTP\r\n"), "530");
    compile("127.:allow\n");
    // A changed file serves within a second of the next connection.
    eventually("the new rules hold", || {
        let mut client = Clear::to(&server);
        let mut start = [0; 7];
        client.0.read_exact(&mut start).unwrap();
        (&start == b"220 mx\r").then_some(())
    });
    assert_eq!(greeting("220 mx\r\n"), "250");
    server.quiet();
}
