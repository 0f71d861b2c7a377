//! `sslclient -P -f -G`: what each row asks of a server, held against real
//! handshakes.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use openssl::hash::{MessageDigest, hash};
use openssl::ssl::{
    NameType, Ssl, SslContext, SslContextBuilder, SslMethod, SslVerifyMode, SslVersion,
};

use crate::harness::authority::hex;
use crate::harness::{
    Authority, Client, Finished, Identity, KeyKind, Leaf, Peer, Place, compile_destinations, peer,
    run,
};

/// An SMTP server that upgrades, or begins with TLS, and says who it sees.
fn server(context: SslContext, start_tls: bool) -> Peer<String> {
    Peer::plain(move |stream| {
        if start_tls {
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            (&stream).write_all(b"220 x\r\n").unwrap();
            for answer in ["250-x\r\n250 STARTTLS\r\n", "220 go\r\n"] {
                let mut line = String::new();
                if lines.read_line(&mut line).unwrap() == 0 {
                    return "gone".to_owned();
                }
                (&stream).write_all(answer.as_bytes()).unwrap();
            }
        }
        let Ok(mut tls) = Ssl::new(&context).unwrap().accept(stream) else {
            return "no handshake".to_owned();
        };
        let shown = tls.ssl().peer_certificate().map(|certificate| {
            let mut names = certificate.subject_name().entries();
            names.next().unwrap().data().to_string().unwrap()
        });
        let mut heard = String::new();
        let _ = tls.read_to_string(&mut heard);
        let _ = tls.shutdown();
        format!("{} {}", shown.unwrap_or_default(), heard.trim())
    })
}

fn plain(identity: &Identity) -> SslContext {
    peer::context(identity, |_| ())
}

/// `sslclient -P` with this file, to a server with this certificate.
struct Trial<'a> {
    options: Vec<String>,
    env: Vec<(String, String)>,
    name: &'a str,
}

impl<'a> Trial<'a> {
    fn new(place: &Place, file: &str) -> Trial<'a> {
        let path = place.write("tlsdestinations", file);
        Trial {
            options: vec!["-P".into(), path],
            env: Vec::new(),
            name: "localhost",
        }
    }

    fn option(mut self, word: &str) -> Self {
        self.options.push(word.to_owned());
        self
    }

    /// Trusts this file where no line names another.
    fn system(mut self, path: &str) -> Self {
        self.env.push(("SSL_CERT_FILE".into(), path.to_owned()));
        self
    }

    fn client(&self) -> Client {
        let mut client = Client::bare();
        for word in &self.options {
            client = client.option(word);
        }
        for (name, value) in &self.env {
            client = client.env(name, value);
        }
        client
    }

    fn at(&self, port: u16) -> Finished {
        let script = "printf %s \"$SSL_SERVER_VERIFY\"; echo said >&7";
        self.client().script(self.name, port, script)
    }

    /// With `-W`.
    fn explain(&self, host: &str) -> Finished {
        run(&mut self.client().option("-W").command(host, 25, &[]), b"")
    }

    fn with(&self, context: SslContext) -> Finished {
        let server = server(context, true);
        let ended = self.at(server.at.port());
        let heard = server.join();
        let ran = ended.code == Some(0);
        assert_eq!(heard.contains("said"), ran, "{heard} {}", ended.stderr);
        ended
    }
}

fn root(place: &Place) -> String {
    place.write("root.pem", Authority::shared_root().pem())
}

#[test]
fn each_row_asks_what_it_says() {
    let place = Place::new("policy-rows");
    let ca = root(&place);
    let good = Identity::localhost(KeyKind::P256);
    let other = Leaf::new("x").dns("other.example").issue();
    let unknown = Leaf::localhost().self_signed();
    let late = Leaf::localhost().expired().issue();
    let verify = "unable to verify server certificate";
    let name = "server name does not match certificate";
    for (key, identity, refused) in [
        ("=localhost", &good, None),
        ("=localhost", &other, Some(name)),
        ("=localhost", &unknown, Some(verify)),
        ("=localhost", &late, Some(verify)),
        ("~localhost", &good, None),
        ("~localhost", &other, Some(name)),
        ("~localhost", &unknown, Some(verify)),
        ("localhost", &good, None),
        ("localhost", &other, None),
        ("localhost", &unknown, Some(verify)),
        ("localhost", &late, Some(verify)),
        ("-localhost", &unknown, None),
        ("-localhost", &late, None),
        ("=*", &good, None),
        ("=*", &other, Some(name)),
        ("~*", &good, None),
        ("~*", &unknown, Some(verify)),
        ("+*", &other, None),
        ("+*", &unknown, Some(verify)),
        ("-*", &unknown, None),
        ("*", &good, None),
        ("*", &unknown, None),
        ("*", &other, None),
        ("-", &unknown, None),
    ] {
        let trial = Trial::new(&place, &format!("{key}:{ca}\n"));
        let ended = trial.with(plain(identity));
        let what = format!("{key}: {}", ended.stderr);
        if let Some(part) = refused {
            ended.failed(111, part);
        } else {
            assert_eq!(ended.code, Some(0), "{what}");
            let logged = key == "*" && std::ptr::eq(identity, &raw const unknown);
            assert_eq!(ended.stderr.contains("allows that"), logged, "{what}");
        }
    }
}

#[test]
fn without_a_ca_the_system_s_store_counts_where_one_is_needed() {
    let place = Place::new("policy-system");
    let ca = root(&place);
    let other_ca = place.write("other.pem", Authority::root("Other Root").pem());
    let good = Identity::localhost(KeyKind::P256);
    for (line, system, works) in [
        ("=localhost:", &ca, true),
        ("=localhost:", &other_ca, false),
        (&format!("=localhost:{other_ca}"), &ca, false),
        (&format!("=localhost:{ca}"), &other_ca, true),
        ("localhost:", &other_ca, true),
        ("*:", &other_ca, true),
    ] {
        let ended = Trial::new(&place, line).system(system).with(plain(&good));
        let code = if works { 0 } else { 111 };
        assert_eq!(ended.code, Some(code), "{line} {}", ended.stderr);
    }
    let folder = place.path("cas");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(&ca, folder.join("one.pem")).unwrap();
    let line = format!("=localhost:{}/", folder.display());
    assert_eq!(Trial::new(&place, &line).with(plain(&good)).code, Some(0));
}

#[test]
fn names_are_matched_exactly_or_with_wildcards() {
    let place = Place::new("policy-names");
    let ca = root(&place);
    let star = Leaf::new("x").dns("*.a.example").issue();
    let many = Leaf::new("x")
        .dns("b.example")
        .dns("MX.A.Example")
        .address("192.0.2.1")
        .issue();
    let cn = Leaf::new("mx.a.example").issue();
    let address = Leaf::new("x").dns("b.example").address("127.0.0.1").issue();
    for (key, name, identity, works) in [
        ("~*", "mx.a.example", &star, true),
        ("~*", "b.mx.a.example", &star, false),
        ("~*", "a.example", &star, false),
        ("=*", "mx.a.example", &star, false),
        ("=*", "mx.a.example", &many, true),
        ("~*", "mx.a.example", &many, true),
        ("=*", "mx.a.example", &cn, false),
        ("~*", "mx.a.example", &cn, false),
        ("=*", "127.0.0.1", &address, true),
        ("~*", "127.0.0.1", &address, true),
        ("~*", "127.0.0.1", &many, false),
    ] {
        let trial = Trial::new(&place, &format!("{key}:{ca}\n"));
        let ended = trial.option("-m").option(name).with(plain(identity));
        let code = if works { 0 } else { 111 };
        assert_eq!(ended.code, Some(code), "{key} {name} {}", ended.stderr);
    }
}

#[test]
fn with_m_the_domain_s_line_applies_to_its_server() {
    let place = Place::new("policy-domain");
    let ca = root(&place);
    let domain = Leaf::new("x").dns("far.example").issue();
    let host = Leaf::new("x").dns("localhost").issue();
    let wild = Leaf::new("x").dns("*.far.example").issue();
    let system = |line: &str| format!("{line}\n-*:\n");
    for (line, identity, said) in [
        (format!("=far.example:{ca}"), &domain, ""),
        (
            format!("=far.example:{ca}"),
            &host,
            "wanted far.example, it names localhost",
        ),
        (
            format!("=mx.far.example:{ca}||||x.far.example"),
            &wild,
            "it names *.far.example, and a wildcard counts under ~ only, not under =",
        ),
        (format!("~far.example:{ca}"), &domain, ""),
        // The line has a CA of its own.
        (format!("~far.example:{ca}"), &host, ""),
        (system("~far.example:"), &domain, ""),
        (
            system("~far.example:"),
            &host,
            "wanted far.example, it names localhost; localhost does not count, since DNS gave it \
             without a signature: if it is the partner's, put it into the fifth field (names) of \
             tlsdestinations line 1",
        ),
        (system("~far.example:||||localhost"), &host, ""),
        (
            system("~far.example:||||a.example,.b.example"),
            &host,
            "wanted a.example or .b.example, it names localhost",
        ),
        // The host's own line, and everybody's: the name that was asked for.
        (format!("~localhost:{ca}"), &domain, ""),
        (
            format!("~*:{ca}"),
            &host,
            "wanted far.example, it names localhost",
        ),
    ] {
        let trial = Trial::new(&place, &line).system(&ca);
        let name = if line.contains("mx.far") {
            "mx.far.example"
        } else {
            "far.example"
        };
        let trial = trial.option("-m").option(name);
        let ended = trial.with(plain(identity));
        if said.is_empty() {
            assert_eq!(ended.code, Some(0), "{line} {}", ended.stderr);
        } else {
            ended.failed(111, said);
        }
    }
}

#[test]
fn with_m_a_server_is_asked_for_that_name() {
    let place = Place::new("policy-sni");
    let identity = Leaf::new("x").dns("far.example").dns("localhost").issue();
    let ca = root(&place);
    for (key, host) in [
        ("~far.example", "localhost"),
        ("~far.example", "127.0.0.1"),
        ("~localhost", "localhost"),
        ("~*", "localhost"),
    ] {
        let asked = Arc::new(Mutex::new(None));
        let context = peer::context(&identity, |builder| {
            let asked = Arc::clone(&asked);
            builder.set_servername_callback(move |ssl, _| {
                *asked.lock().unwrap() = ssl.servername(NameType::HOST_NAME).map(str::to_owned);
                Ok(())
            });
        });
        let mut trial = Trial::new(&place, &format!("{key}:{ca}\n"));
        trial.name = host;
        let ended = trial.option("-m").option("far.example").with(context);
        assert_eq!(ended.code, Some(0), "{key} {host} {}", ended.stderr);
        let asked = asked.lock().unwrap().take();
        assert_eq!(asked.as_deref(), Some("far.example"), "{key} {host}");
    }
}

#[test]
fn a_fingerprint_stands_for_a_certificate_whoever_signed_it() {
    let place = Place::new("policy-pins");
    let leaf = Leaf::new("x").dns("other.example").expired().self_signed();
    let print = |digest| hex(&leaf.certificate.digest(digest).unwrap());
    let key = leaf.key.public_key_to_der().unwrap();
    let key = hex(&hash(MessageDigest::sha256(), &key).unwrap());
    let sha256 = print(MessageDigest::sha256());
    let colons: Vec<String> = sha256
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|two| String::from_utf8_lossy(two).into_owned())
        .collect();
    let zeros = "0".repeat(64);
    for (value, works) in [
        (format!("={}", print(MessageDigest::sha1())), true),
        (format!("={}", print(MessageDigest::sha224())), true),
        (format!("={sha256}"), true),
        (format!("={}", print(MessageDigest::sha512())), true),
        (format!("={}", colons.join(":")), true),
        (format!("={zeros},={sha256}"), true),
        (format!("={zeros},spki:{key}"), true),
        (format!("spki:{key}"), true),
        (format!("={zeros}"), false),
        (format!("spki:{sha256}"), false),
        (format!("={key}"), false),
    ] {
        let trial = Trial::new(&place, &format!("%localhost:{value}\n"));
        let ended = trial.with(plain(&leaf));
        if works {
            assert_eq!(ended.text(), "PINNED", "{value} {}", ended.stderr);
        } else {
            ended.failed(111, &format!("it is ={sha256}"));
        }
    }
}

/// A server that has no certificate at all.
fn anonymous() -> SslContext {
    let mut context = SslContextBuilder::new(SslMethod::tls_server()).unwrap();
    context
        .set_max_proto_version(Some(SslVersion::TLS1_2))
        .unwrap();
    context.set_cipher_list("aNULL:@SECLEVEL=0").unwrap();
    context.build()
}

#[test]
fn anonymous_ciphers_are_for_those_who_need_no_certificate() {
    let place = Place::new("policy-anonymous");
    for (line, works) in [
        ("-localhost:", true),
        ("-*:", true),
        ("-:", true),
        ("localhost:", false),
        ("*:", false),
        ("=localhost:", false),
    ] {
        let ended = Trial::new(&place, line).with(anonymous());
        if works {
            assert_eq!(ended.text(), "NONE", "{line} {}", ended.stderr);
        } else {
            assert_eq!(ended.code, Some(111), "{line}");
        }
    }
    // The ciphers field may say what it likes: a certificate must be there.
    for line in ["localhost", "=localhost", "~*", "%localhost"] {
        let value = if line.starts_with('%') {
            format!("={}", "0".repeat(64))
        } else {
            String::new()
        };
        let text = format!("{line}:{value}|aNULL:ECDHE:@SECLEVEL=0\n");
        let ended = Trial::new(&place, &text).with(anonymous());
        assert_eq!(ended.code, Some(111), "{line}");
        assert!(
            ended
                .stderr
                .contains("received alert handshake_failure (40)"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn depth_ciphers_and_port_are_the_line_s() {
    let place = Place::new("policy-fields");
    let ca = root(&place);
    let good = Identity::localhost(KeyKind::P256);
    for (depth, works) in [("0", false), ("1", true)] {
        let ended = Trial::new(&place, &format!("=localhost:{ca}||{depth}")).with(plain(&good));
        assert_eq!(ended.code == Some(0), works, "{depth} {}", ended.stderr);
    }
    let old = |context: &mut SslContextBuilder| {
        context
            .set_max_proto_version(Some(SslVersion::TLS1_2))
            .unwrap();
    };
    let cipher = "ECDHE-ECDSA-CHACHA20-POLY1305";
    let listed = server(peer::context(&good, old), true);
    let trial = Trial::new(&place, &format!("=localhost:{ca}|{cipher}"));
    let ended = trial
        .client()
        .script("localhost", listed.at.port(), "echo $SSL_CIPHER");
    assert_eq!(ended.text().trim(), cipher, "{}", ended.stderr);
    listed.join();
    let at_once = server(plain(&good), false);
    let line = format!("=localhost:{ca}||;s{}", at_once.at.port());
    let ended = Trial::new(&place, &line).at(1);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    at_once.join();
    let later = server(plain(&good), true);
    let line = format!("=localhost:{ca}||;{}", later.at.port());
    assert_eq!(Trial::new(&place, &line).at(1).code, Some(0));
    later.join();
}

#[test]
fn a_line_for_a_sender_holds_for_that_sender() {
    let place = Place::new("policy-sender");
    let ca = root(&place);
    let unknown = Leaf::localhost().self_signed();
    let text = format!("=localhost:{ca}|||one.example\n-localhost:\n");
    for (sender, works) in [
        ("a@one.example", false),
        ("a@One.Example", false),
        ("a@two.example", true),
        ("", true),
    ] {
        let trial = Trial::new(&place, &text).option("-f").option(sender);
        let ended = trial.with(plain(&unknown));
        assert_eq!(ended.code == Some(0), works, "{sender} {}", ended.stderr);
    }
}

#[test]
fn what_is_wrong_with_a_line_is_said_and_not_passed_over() {
    let place = Place::new("policy-wrong");
    let folder = place.write("empty.pem", "");
    for (text, said) in [
        (
            "=localhost:/nonexistent.pem\n*:\n",
            "line 1: unable to load CA list: cafile /nonexistent.pem: no such file",
        ),
        ("localhost:/nonexistent/\n", "cafile /nonexistent"),
        (&format!("~localhost:{folder}\n"), "it is empty"),
        ("*:/nonexistent.pem\n", "cafile /nonexistent.pem"),
        (
            "\n%localhost:=abcd\n*:\n",
            "tlsdestinations line 2 \"%localhost\": a fingerprint",
        ),
        ("%localhost:/ca.pem\n", "% needs a fingerprint"),
        (":x\n-localhost:\n", "line 1 \"\": the key is empty"),
        ("=localhost\n-*:\n", "there is no colon after the key"),
        ("=localhost:||;70000\n", "the port is not a number"),
        (
            "=localhost:|NOSUCHCIPHER\n",
            "line 1: unable to set cipher list: ciphers \"NOSUCHCIPHER\"",
        ),
        (
            "!localhost:\n",
            "unable to use TLS: tlsdestinations line 1 says that it is never tried",
        ),
        (
            "!*:\n=localhost:\n",
            "tlsdestinations line 1 says that it is never tried",
        ),
    ] {
        let ended = Trial::new(&place, text).at(1);
        ended.failed(111, said);
        assert!(ended.stdout.is_empty());
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let place = Place::new("policy-none");
    let mut trial = Trial::new(&place, "");
    trial.options[1] = place.text("missing");
    for trial in [trial.at(1), trial.explain("localhost")] {
        trial.failed(111, "missing: there is no such file");
        assert!(trial.stdout.is_empty());
    }
    trial.options[1] = place.text(".");
    trial.at(1).failed(111, "unable to read");
}

#[test]
fn a_key_that_is_none_is_an_error_and_named() {
    let place = Place::new("policy-keys");
    let unknown = Leaf::localhost().self_signed();
    for key in ["*.x", "==localhost", "@x", "[localhost]", "a b"] {
        let text = format!("{key}:\n-*:\n*:\n");
        let trial = Trial::new(&place, &text);
        trial.at(1).failed(
            111,
            &format!("tlsdestinations line 1 \"{key}\": the key is "),
        );
        let ended = trial.explain("localhost");
        ended.failed(111, "the key is ");
        assert!(
            ended
                .text()
                .contains(&format!("line 1 \"{key}\" is wrong: ")),
            "{}",
            ended.text()
        );
        // Even who has a line of its own behind it waits; who has one before it does not.
        let own = format!("{text}-localhost:\n");
        Trial::new(&place, &own).at(1).failed(111, "line 1 \"");
        for line in ["-localhost:", "-*:"] {
            let ended = Trial::new(&place, &format!("{line}\n{text}"));
            assert_eq!(ended.with(plain(&unknown)).code, Some(0), "{key} {line}");
        }
    }
}

#[test]
fn keys_are_cleaned_as_destinations_are() {
    let place = Place::new("policy-clean");
    let ca = root(&place);
    let unknown = Leaf::localhost().self_signed();
    for key in ["\u{feff}=localhost", " =LocalHost.\t", "~localhost."] {
        let trial = Trial::new(&place, &format!("{key}:{ca}\r\n-*:\n"));
        let ended = trial.with(plain(&unknown));
        ended.failed(111, "unable to verify server certificate");
    }
}

#[test]
fn our_certificate_goes_by_the_sender() {
    let place = Place::new("policy-own");
    let ca = root(&place);
    for name in ["one", "all"] {
        let identity = Leaf::new(name).issue();
        place.write(&format!("{name}.pem"), identity.chain_pem());
        place.write(&format!("{name}.key"), identity.locked_key_pem("se|cret"));
    }
    let certs = place.write(
        "domaincerts",
        format!(
            ".example:{0}|{1}|se|cret\n*:{2}|{3}|se|cret\nbad.test:/nonexistent\n\
             none.test:{0}|{1}\n",
            place.text("one.pem"),
            place.text("one.key"),
            place.text("all.pem"),
            place.text("all.key"),
        ),
    );
    let from = |sender: &str| {
        Trial::new(&place, &format!("=localhost:{ca}\n"))
            .option("-G")
            .option(&certs)
            .option("-f")
            .option(sender)
    };
    let good = Identity::localhost(KeyKind::P256);
    for (sender, shown) in [
        ("a@x.example", "one said"),
        ("a@other.test", "all said"),
        ("", "all said"),
    ] {
        let ask = |context: &mut SslContextBuilder| {
            context.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        };
        let server = server(peer::context(&good, ask), true);
        let ended = from(sender).at(server.at.port());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(server.join(), shown, "{sender}");
    }
    for (sender, said) in [
        ("a@bad.test", "domaincerts /nonexistent: no such file"),
        (
            "a@none.test",
            "no password was given in the third field of its line or with -3",
        ),
    ] {
        from(sender).at(1).failed(111, said);
    }
}

#[test]
fn no_program_is_run_in_the_plaintext_that_a_line_allows() {
    let place = Place::new("policy-plaintext");
    for line in ["*:\n", "-:\n", "\n"] {
        let server = Peer::plain(|stream| {
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            (&stream).write_all(b"220 x\r\n").unwrap();
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            (&stream).write_all(b"250 x\r\n").unwrap();
            let mut rest = String::new();
            let _ = lines.read_to_string(&mut rest);
        });
        let ended = Trial::new(&place, line).at(server.at.port());
        ended.failed(
            111,
            "allows plaintext for mail, but no program is run in it here",
        );
        assert!(ended.stderr.contains("250 x"), "{}", ended.stderr);
        assert!(ended.stdout.is_empty());
        server.join();
    }
    let ended = Trial::new(&place, "!*:\n").at(1);
    ended.failed(111, "no program is run in plaintext");
    // No record is looked up here, and none is done without.
    let ended = Trial::new(&place, "+*:dane\n").at(1);
    let said =
        "tlsdestinations line 1 asks for DANE, which only qmail-sslremote checks; no program";
    ended.failed(111, said);
}

#[test]
fn the_key_s_password_is_a_file_s_first_line() {
    let place = Place::new("policy-password");
    let ca = root(&place);
    let identity = Leaf::new("me").issue();
    let certificate = place.write("me.pem", identity.chain_pem());
    let key = place.write("me.key", identity.locked_key_pem("se cret"));
    let good = Identity::localhost(KeyKind::P256);
    let ask = |context: &mut SslContextBuilder| {
        context.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
    };
    for (text, shown) in [
        ("se cret\nother\n", true),
        ("se cret\r\n", true),
        ("se cret", true),
        ("\nse cret\n", false),
        ("other\n", false),
    ] {
        let file = place.write("password", text);
        // -M is one of ucspi-ssl's flags.
        let words = ["-M", "-c", &certificate, "-k", &key, "-K", &file];
        let mut trial = Trial::new(&place, &format!("=localhost:{ca}\n"));
        trial.options.extend(words.map(str::to_owned));
        if shown {
            let server = server(peer::context(&good, ask), true);
            let ended = trial.at(server.at.port());
            assert_eq!(ended.code, Some(0), "{text:?} {}", ended.stderr);
            assert_eq!(server.join(), "me said");
        } else {
            trial.at(1).failed(111, "unable to load key");
        }
    }
    let trial = Trial::new(&place, "*:\n").option("-K").option("/none");
    let trial = trial
        .option("-c")
        .option(&certificate)
        .option("-k")
        .option(&key);
    trial
        .at(1)
        .failed(111, "unable to read password: -K /none: no such file");
}

#[test]
fn the_compiled_form_is_used_where_it_is_not_older() {
    let place = Place::new("policy-cdb");
    let ca = root(&place);
    let unknown = Leaf::localhost().self_signed();
    let compile = |text: &str| compile_destinations(&place, text);
    let ended = compile(&format!(
        "# x\n=localhost:{ca}\n=localhost:|||one.example\n"
    ));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let trial = Trial::new(&place, "-localhost:\n");
    let age = |name: &str, seconds: u64| {
        let time = SystemTime::now() - Duration::from_secs(seconds);
        let file = std::fs::File::options()
            .write(true)
            .open(place.path(name))
            .unwrap();
        file.set_modified(time).unwrap();
    };
    age("tlsdestinations", 100);
    age("tlsdestinations.cdb", 50);
    assert_eq!(trial.with(plain(&unknown)).code, Some(111), "compiled");
    age("tlsdestinations.cdb", 150);
    assert_eq!(trial.with(plain(&unknown)).code, Some(0), "text");
    age("tlsdestinations.cdb", 50);
    std::fs::remove_file(place.path("tlsdestinations")).unwrap();
    assert_eq!(trial.with(plain(&unknown)).code, Some(111), "alone");
    // As a file system may leave a file after a power failure, too: no rule in it would
    // mean that no TLS is needed.
    let sound = std::fs::read(place.path("tlsdestinations.cdb")).unwrap();
    let mut turned = sound.clone();
    turned[2048 + 8] ^= 1;
    let zeros_from = |at: usize| [&sound[..at], &vec![0; sound.len() - at]].concat();
    for damaged in [
        b"no cdb".to_vec(),
        vec![0; 2048],
        vec![0; 4096],
        zeros_from(0),
        zeros_from(2048),
        [&[0; 2048], &sound[2048..]].concat(),
        turned,
    ] {
        place.write("tlsdestinations.cdb", &damaged);
        let ended = trial.at(1);
        ended.failed(111, "tlsdestinations.cdb: damaged or not a cdb");
    }
    for (text, said) in [
        ("a:\n:x\n", "line 2 \"\": the key is empty"),
        ("=a:||x\n", "line 1 \"=a\": the depth"),
        ("%a:=ab\n", "a fingerprint"),
        ("a\n", "no colon"),
    ] {
        compile(text).failed(100, said);
    }
    let ended = compile("a:||x\n*:\n*.x:\n=a.:=ab\n");
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(100), 3));
    for said in [
        "line 1 \"a\": the depth",
        "line 3 \"*.x\": the key is not valid",
        "line 4 \"=a.\": a fingerprint",
    ] {
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
}

#[test]
fn lists_in_the_file_of_anchors_revoke() {
    let place = Place::new("policy-crl");
    let root = Authority::shared_root();
    let good = Leaf::localhost().issue_by(root);
    let bad = Leaf::localhost().issue_by(root);
    let list = root.crl(&place, &[bad.serial()], false);
    let ca = place.write("with-lists.pem", [root.pem(), list].concat());
    for (identity, works) in [(&good, true), (&bad, false)] {
        let ended = Trial::new(&place, &format!("=localhost:{ca}")).with(plain(identity));
        assert_eq!(ended.code == Some(0), works, "{}", ended.stderr);
        let server = server(plain(identity), false);
        let client = Client::bare().option("-a").option(&ca);
        let ended = client.script("localhost", server.at.port(), "echo said >&7");
        assert_eq!(ended.code == Some(0), works, "{}", ended.stderr);
        assert_eq!(
            ended.stderr.contains("certificate revoked"),
            !works,
            "{}",
            ended.stderr
        );
        server.join();
    }
}
