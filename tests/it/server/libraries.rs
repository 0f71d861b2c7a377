//! Clients on other TLS libraries than OpenSSL and GnuTLS: Java's own, NSS (its
//! tstclnt) and mbedTLS (a client built here). Each is served, resumes, shows a
//! certificate, and is told of in the log where it is refused.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use openssl::pkcs12::Pkcs12;
use openssl::stack::Stack;

use crate::harness::{
    Authority, Finished, Identity, KeyKind, Leaf, Place, Server, Setup, program, run, skip,
    skip_part,
};

/// What the program answers to each of them.
const SCRIPT: &str = "read line; echo \"says $SSL_PROTOCOL $SSL_SESSION_RESUMED \
                      $SSL_CLIENT_VERIFY $SSL_TLS_SNI $line\"";

const ECDHE_RSA: &str = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
const STATIC_RSA: &str = "TLS_RSA_WITH_AES_128_GCM_SHA256";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Library {
    Java,
    MbedTls,
    Nss,
}

/// What a client is asked to do.
#[derive(Clone, Copy)]
struct Call<'a> {
    /// The only version that it speaks.
    version: &'a str,
    /// The only suite that it offers, by IANA's name.
    suite: Option<&'a str>,
    /// What it shows where it is asked for a certificate.
    identity: Option<&'a Identity>,
    /// The only root that it trusts.
    anchor: &'a Authority,
    /// How often it connects.
    times: u32,
}

impl Call<'_> {
    fn new(version: &str) -> Call<'_> {
        Call {
            version,
            suite: None,
            identity: None,
            anchor: Authority::shared_root(),
            times: 1,
        }
    }
}

/// A folder of programs compiled for these tests; one for the whole run.
fn workshop() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("libraries-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    })
}

/// The mbedTLS client, or why there is none.
fn mbed_client() -> Result<&'static Path, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        if program("cc").is_none() || !Path::new("/usr/include/mbedtls/ssl.h").is_file() {
            return Err("no C compiler or no mbedTLS headers".to_owned());
        }
        let source = workshop().join("client.c");
        std::fs::write(&source, include_str!("libraries/client.c")).unwrap();
        let target = workshop().join("mbed-client");
        let mut command = Command::new("cc");
        command.arg("-o").arg(&target).arg(&source);
        let done = run(
            command.args(["-lmbedtls", "-lmbedx509", "-lmbedcrypto"]),
            b"",
        );
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        Ok(target)
    });
    built.as_deref().map_err(Clone::clone)
}

/// The folder of the Java client's class, or why there is none.
fn java_client() -> Result<&'static Path, String> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let compiler = ["javac", "ecj"].into_iter().find_map(program);
        let (Some(_), Some(compiler)) = (program("java"), compiler) else {
            return Err("no Java, or neither javac nor ecj".to_owned());
        };
        let source = workshop().join("Client.java");
        std::fs::write(&source, include_str!("libraries/Client.java")).unwrap();
        let mut command = Command::new(compiler);
        command.args(["-source", "11", "-target", "11", "-nowarn", "-d"]);
        let done = run(command.arg(workshop()).arg(source), b"");
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        Ok(())
    });
    built.clone().map(|()| workshop())
}

impl Library {
    /// Why it cannot be tried here.
    fn missing(self) -> Option<String> {
        match self {
            Library::Java => java_client().err(),
            Library::MbedTls => mbed_client().err(),
            Library::Nss => ["tstclnt", "certutil", "pk12util"]
                .into_iter()
                .find(|name| program(name).is_none())
                .map(|name| format!("{name} is not installed")),
        }
    }

    fn call(self, place: &Place, server: &Server, call: Call<'_>) -> Finished {
        let anchor = place.write("anchor.pem", call.anchor.pem());
        let port = server.port.to_string();
        let times = call.times.to_string();
        match self {
            Library::Java => {
                let mut command = Command::new("java");
                command.args(["-XX:TieredStopAtLevel=1", "-cp"]);
                command.arg(java_client().unwrap());
                command.args(["Client", &port, &anchor, &times]);
                command.arg(format!("protocol=TLSv{}", call.version));
                if let Some(suite) = call.suite {
                    command.arg(format!("suite={suite}"));
                }
                if let Some(identity) = call.identity {
                    let file = place.write("identity.p12", pkcs12(identity));
                    command.arg(format!("identity={file}"));
                }
                run(&mut command, b"")
            }
            Library::MbedTls => {
                let mut command = Command::new(mbed_client().unwrap());
                command.args([&port, &anchor, &times]);
                // It counts from SSL 3.0.
                let minor = 1 + call.version[2..].parse::<u32>().unwrap();
                command.arg(format!("version={minor}"));
                if let Some(suite) = call.suite {
                    command.arg(format!("suite={}", suite.replace('_', "-")));
                }
                if let Some(identity) = call.identity {
                    place.identity("identity", identity);
                    command.arg(format!("identity={}", place.text("identity")));
                }
                run(&mut command, b"")
            }
            Library::Nss => {
                let base = database(place, &anchor, call.identity);
                let mut command = Command::new("tstclnt");
                command.args(["-4", "-h", "localhost", "-p", &port, "-d", &base, "-u"]);
                command.args(["-V", &format!("tls{0}:tls{0}", call.version)]);
                command.args(["-A", &place.write("hello", "hello\n")]);
                if call.times > 1 {
                    command.args(["-L", &times]);
                }
                if let Some(suite) = call.suite {
                    let number = match suite {
                        ECDHE_RSA => ":C02F",
                        STATIC_RSA => ":009C",
                        other => panic!("{other}"),
                    };
                    command.args(["-c", number]);
                }
                if call.identity.is_some() {
                    command.args(["-n", "identity"]);
                }
                run(&mut command, b"")
            }
        }
    }

    /// Of TLS 1.2 and 1.3, what it speaks.
    fn versions(self) -> &'static [&'static str] {
        match self {
            Library::Java | Library::Nss => &["1.2", "1.3"],
            Library::MbedTls => &["1.2"],
        }
    }
}

const PASSWORD: &str = "sesame";

/// Certificate, intermediates and key in one file.
fn pkcs12(identity: &Identity) -> Vec<u8> {
    let mut between = Stack::new().unwrap();
    for one in &identity.between {
        between.push(one.clone()).unwrap();
    }
    let mut builder = Pkcs12::builder();
    builder.name("identity").ca(between);
    builder.pkey(&identity.key).cert(&identity.certificate);
    builder.build2(PASSWORD).unwrap().to_der().unwrap()
}

/// A new certificate database for NSS.
fn database(place: &Place, anchor: &str, identity: Option<&Identity>) -> String {
    let folder = place.fresh("nss");
    std::fs::create_dir(&folder).unwrap();
    let base = format!("sql:{}", folder.display());
    let must = |command: &mut Command| {
        let done = run(command, b"");
        assert_eq!(done.code, Some(0), "{command:?}: {}", done.stderr);
    };
    must(Command::new("certutil").args(["-N", "--empty-password", "-d", &base]));
    let add = ["-A", "-n", "root", "-t", "C,,", "-i", anchor];
    must(Command::new("certutil").args(["-d", &base]).args(add));
    if let Some(identity) = identity {
        let file = place.write("identity.p12", pkcs12(identity));
        let import = ["-i", &file, "-W", PASSWORD, "-K", ""];
        must(Command::new("pk12util").args(["-d", &base]).args(import));
    }
    base
}

/// The libraries that can be tried; says which cannot.
fn libraries() -> Vec<Library> {
    let mut all = vec![Library::Java, Library::MbedTls, Library::Nss];
    all.retain(|library| match library.missing() {
        Some(why) => {
            skip_part!("{library:?}: {why}");
            false
        }
        None => true,
    });
    all
}

#[test]
fn they_are_served_in_every_version_with_every_key_of_theirs() {
    let place = Place::new("libraries-served");
    let libraries = libraries();
    if libraries.is_empty() {
        skip!("none of the libraries is installed");
    }
    for kind in [KeyKind::Rsa2048, KeyKind::P256, KeyKind::Ed25519] {
        let server = Setup::script(&place, SCRIPT)
            .identity(&Identity::localhost(kind))
            .start();
        for &library in &libraries {
            // NSS and mbedTLS 2 do not know it.
            if kind == KeyKind::Ed25519 && library != Library::Java {
                continue;
            }
            for version in library.versions() {
                let done = library.call(&place, &server, Call::new(version));
                let said = format!("says TLSv{version} Initial NONE localhost hello\n");
                assert!(
                    done.code == Some(0) && done.text().ends_with(&said),
                    "{library:?} {version} {kind:?}: {done:?}{}",
                    server.log()
                );
            }
        }
        server.quiet();
        assert_eq!(server.log(), "");
    }
}

#[test]
fn they_resume_their_sessions() {
    let place = Place::new("libraries-resume");
    let libraries = libraries();
    if libraries.is_empty() {
        skip!("none of the libraries is installed");
    }
    let server = Setup::script(&place, SCRIPT).start();
    for library in libraries {
        for version in library.versions() {
            let mut call = Call::new(version);
            call.times = 2;
            let done = library.call(&place, &server, call);
            let text = done.text();
            for how in ["Initial", "Resumed"] {
                let said = format!("says TLSv{version} {how} NONE localhost hello\n");
                assert_eq!(
                    text.matches(&said).count(),
                    1,
                    "{library:?} {version} {how}: {done:?}{}",
                    server.log()
                );
            }
        }
    }
    server.quiet();
    assert_eq!(server.log(), "");
}

/// Both close their half and read on; in TLS 1.2 of Java's too.
#[test]
fn a_client_that_closes_its_half_hears_the_answer_whole() {
    let place = Place::new("libraries-half");
    let script = "cat >got; head -c 300000 /dev/zero | tr '\\0' x; cat got";
    let server = Setup::script(&place, &format!("cd '{}'; {script}", place.text(".")))
        .options("-V")
        .start();
    for library in libraries() {
        // tstclnt has no such thing.
        if library == Library::Nss {
            continue;
        }
        for version in library.versions() {
            let done = library.call(&place, &server, Call::new(version));
            let text = done.text();
            assert!(
                done.code == Some(0) && text.len() == 300_006 && text.ends_with("xhello\n"),
                "{library:?} {version}: {} {}{}",
                text.len(),
                done.stderr,
                server.log()
            );
        }
    }
    server.quiet();
    let log = server.log();
    assert!(
        !log.contains("warning") && !log.contains("truncat"),
        "{log}"
    );
}

#[test]
fn their_certificates_are_asked_for_and_judged() {
    let place = Place::new("libraries-certificates");
    let known = Leaf::new("known").issue();
    let stranger = Leaf::new("stranger").self_signed();
    let anchors = place.write("ca.pem", Authority::shared_root().pem());
    let server = Setup::script(&place, SCRIPT)
        .options("-mv")
        .env("CAFILE", anchors)
        .start();
    for library in libraries() {
        for version in library.versions() {
            let mut call = Call::new(version);
            call.identity = Some(&known);
            let done = library.call(&place, &server, call);
            let said = format!("says TLSv{version} Initial SUCCESS localhost hello\n");
            assert!(
                done.text().ends_with(&said),
                "{library:?} {version}: {done:?}{}",
                server.log()
            );
            for (shown, why) in [
                (None, "client gave no certificate; sent alert "),
                (
                    Some(&stranger),
                    "client certificate did not verify: depth 0, /CN=stranger: self-signed certificate",
                ),
            ] {
                call.identity = shown;
                let before = server.log().matches(why).count();
                let done = library.call(&place, &server, call);
                assert_ne!(done.code, Some(0), "{library:?} {version} {why}: {done:?}");
                assert!(!done.text().contains("says"), "{done:?}");
                server.lines(why, before + 1);
            }
        }
    }
    server.quiet();
}

/// Each refusal, and the words for it.
#[test]
fn what_they_lack_is_told_in_the_log() {
    let place = Place::new("libraries-refused");
    let plain = Setup::script(&place, SCRIPT).start();
    let new = Setup::script(&place, SCRIPT).env("TLS_MIN", "1.3").start();
    let stranger = Authority::root("Stranger");
    for library in libraries() {
        let old = Call::new("1.2");
        let with = |suite| Call {
            suite: Some(suite),
            ..old
        };
        let distrusting = |version| Call {
            anchor: &stranger,
            version,
            ..old
        };
        let newest = library.versions().last().unwrap();
        // Java does not say that it is the issuer that it does not know.
        let distrust = match library {
            Library::Java => {
                "received alert certificate_unknown (46): the client does not accept our certificate"
            }
            _ => {
                "received alert unknown_ca (48): the client does not trust our certificate's issuer"
            }
        };
        for (server, call, why) in [
            (
                &new,
                old,
                "no shared version: client offers at most TLSv1.2, TLS_MIN is 1.3; \
                 sent alert protocol_version (70)",
            ),
            (
                &plain,
                with(ECDHE_RSA),
                "no shared cipher: client offers only RSA authentication \
                 (ECDHE-RSA-AES128-GCM-SHA256; TLSv1.2), our certificate is ECDSA; \
                 an RSA certificate in CERTFILE_ALT would serve it; \
                 sent alert handshake_failure (40)",
            ),
            (
                &plain,
                with(STATIC_RSA),
                "no shared cipher: client offers only suites without forward secrecy \
                 (AES128-GCM-SHA256; TLSv1.2), which are never served; no setting serves it; \
                 sent alert handshake_failure (40)",
            ),
            (&plain, distrusting("1.2"), distrust),
            (&plain, distrusting(newest), distrust),
        ] {
            let before = server.log().matches(why).count();
            let done = library.call(&place, server, call);
            assert_ne!(done.code, Some(0), "{library:?} {why}: {done:?}");
            server.lines(why, before + 1);
        }
    }
    plain.quiet();
    new.quiet();
}

/// mbedTLS still speaks what is switched off by default.
#[test]
fn old_versions_are_served_where_they_are_asked_for() {
    let place = Place::new("libraries-old");
    if let Some(why) = Library::MbedTls.missing() {
        skip!("{why}");
    }
    let server = Setup::script(&place, SCRIPT)
        .env("TLS_MIN", "1.0")
        .env("CIPHERS", "DEFAULT:@SECLEVEL=0")
        .start();
    for (version, name) in [("1.0", "TLSv1"), ("1.1", "TLSv1.1"), ("1.2", "TLSv1.2")] {
        let done = Library::MbedTls.call(&place, &server, Call::new(version));
        let said = format!("says {name} Initial NONE localhost hello\n");
        assert!(
            done.code == Some(0) && done.text() == said,
            "{version}: {done:?}{}",
            server.log()
        );
    }
    server.quiet();
    let server = Setup::script(&place, SCRIPT).start();
    let done = Library::MbedTls.call(&place, &server, Call::new("1.1"));
    assert_ne!(done.code, Some(0), "{done:?}");
    server.line("no shared version: client offers at most TLSv1.1, TLS_MIN is 1.2");
}
