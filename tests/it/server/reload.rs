//! Files that change while the server runs: what is noticed, what is said of
//! it, and what serves meanwhile.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::isolation::{await_engines, keyholders, master};
use super::sockets::strace;
use super::stores::{called, presenting};
use crate::harness::process::{Stop, group, status_field};
use crate::harness::{
    Authority, Dial, Identity, KeyKind, Leaf, Place, Server, Setup, compile, dial, eventually,
    need, need_root, ours, run, skip,
};

/// Puts a file in another's place as renewal tools do: written beside it, then
/// renamed over it.
fn replace(place: &Place, name: &str, bytes: impl AsRef<[u8]>) {
    place.write("beside", bytes);
    fs::rename(place.path("beside"), place.path(name)).unwrap();
}

fn served(server: &Server) -> String {
    Dial::to(server).connect().server_name()
}

/// Connects again and again, as clients do, until this certificate is shown.
fn until_served(server: &Server, name: &str) {
    eventually("the new certificate is served", || {
        (served(server) == name).then_some(())
    });
}

/// Connects until a line with `part` is in the log; every connection must be
/// served with the certificate `name`.
fn until_told(server: &Server, name: &str, part: &str) -> String {
    eventually("the log tells", || {
        assert_eq!(served(server), name);
        let log = server.log();
        log.lines()
            .find(|line| line.contains(part))
            .map(str::to_owned)
    })
}

/// Has the files looked at now. A signal that was sent is seen before the
/// second connection after it is accepted.
fn look(server: &Server) {
    server.signal(Signal::SIGHUP);
    for _ in 0..3 {
        served(server);
    }
}

/// How the log describes a certificate.
fn described(identity: &Identity, name: &str, word: &str) -> String {
    let key = identity.certificate.public_key().unwrap();
    let key = openssl::sha::sha256(&key.public_key_to_der().unwrap());
    let key: String = key
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .concat();
    format!(
        "\"CN={name}\" {word} SHA256:{} spki:{key} until {}",
        identity.fingerprint(),
        identity.certificate.not_after()
    )
}

const BROKEN: &str = "unable to reload, the old material keeps serving: ";

fn complaints(server: &Server) -> usize {
    server.log().matches(BROKEN).count()
}

/// A server with live.pem and live.key, and what it serves.
fn begin(place: &Place, first: &Identity) -> Server {
    let (certificate, key) = place.identity("live", first);
    Setup::new(place, &["cat"]).pair(certificate, key).start()
}

#[test]
fn a_pair_replaced_one_file_after_the_other_is_waited_for() {
    let place = Place::new("one-after-other");
    let first = called("first").issue();
    let second = called("second").other_key().issue();
    let third = called("third").key(KeyKind::Rsa2048).issue();
    let server = begin(&place, &first);
    assert_eq!(served(&server), "first");
    let mut before = Dial::to(&server).connect();
    replace(&place, "live.pem", second.chain_pem());
    let line = until_told(&server, "first", BROKEN);
    assert!(
        line.starts_with("sslserver: warning: ")
            && line.contains("key does not match certificate: KEYFILE ")
            && line.contains("live.key: it is not the key of CERTFILE ")
            && line.ends_with("live.pem"),
        "{line}"
    );
    // However often it is looked at, and though the file changes, once is
    // enough.
    for _ in 0..3 {
        look(&server);
        replace(&place, "live.pem", second.chain_pem());
    }
    look(&server);
    assert_eq!(served(&server), "first");
    assert_eq!(complaints(&server), 1, "{}", server.log());
    replace(&place, "live.key", second.key_pem());
    until_served(&server, "second");
    let path = place.text("live.pem");
    let changes = format!(
        "sslserver: CERTFILE {path} changed: from {} to {}",
        described(&first, "first", "ecdsa"),
        described(&second, "second", "ecdsa")
    );
    let log = server.log();
    assert_eq!(
        log.lines().filter(|line| *line == changes).count(),
        1,
        "{changes} once in {log}"
    );
    // The other file first, and it is told again.
    replace(&place, "live.key", third.key_pem());
    eventually("the second complaint", || {
        assert_eq!(served(&server), "second");
        (complaints(&server) == 2).then_some(())
    });
    replace(&place, "live.pem", third.chain_pem());
    until_served(&server, "third");
    server.line(&format!(" to {}", described(&third, "third", "rsa")));
    // Who was there before all this is served to the end.
    before.send("still here");
    assert_eq!(before.read_exact(10), b"still here");
    before.half_close();
    assert_eq!(before.text(), "");
    server.quiet();
}

/// Certificate and key in one file, pair.pem.
fn put(place: &Place, identity: &Identity) {
    let both = [identity.chain_pem(), identity.key_pem()].concat();
    replace(place, "pair.pem", both);
}

/// A server with this file.
fn of_one_file<'a>(place: &'a Place, first: &Identity) -> Setup<'a> {
    put(place, first);
    Setup::new(place, &["cat"])
        .env("CERTFILE", place.text("pair.pem"))
        .unset("KEYFILE")
}

/// Renews that file twice: when the certificate of the second one was read and a
/// process is wanted that reads the key, it is the third one's, and then so long as
/// `then` takes.
fn renew_in_between(
    place: &Place,
    server: &Server,
    [second, third]: [&Identity; 2],
    then: impl FnOnce(),
) {
    assert_eq!(served(server), "first");
    let master = Pid::from_raw(master(server));
    let opens = Opens::of(place);
    opens.settled(server);
    kill(master, Signal::SIGSTOP).unwrap();
    put(place, second);
    eventually("the certificate is read", || {
        let _client = Dial::to(server).connect();
        opens.taken().contains("pair.pem").then_some(())
    });
    put(place, third);
    then();
    kill(master, Signal::SIGCONT).unwrap();
    until_served(server, "third");
}

#[test]
fn a_pair_that_is_replaced_while_it_is_read_is_read_again() {
    need_root!();
    let place = Place::new("replaced-in-between");
    let server = of_one_file(&place, &called("first").issue()).start();
    // Certificate and key do not fit.
    let second = called("second").other_key().issue();
    let third = called("third").key(KeyKind::P384).issue();
    renew_in_between(&place, &server, [&second, &third], || ());
    assert_eq!(complaints(&server), 0, "{}", server.log());
}

#[test]
fn stores_that_share_a_key_renewed_between_them_are_both_served() {
    need_root!();
    let place = Place::new("renewed-between-stores");
    let cdb = compile(
        &place,
        "rules.cdb",
        "127.0.0.7:allow,TLS_MIN=\"1.3\"\n:allow\n",
    );
    let server = of_one_file(&place, &called("first").issue())
        .rules(&cdb)
        .start();
    // One store wants a process that reads the key; the other reads its certificate
    // afterwards, which has the same key.
    let second = called("second").other_key().issue();
    let third = called("third").other_key().issue();
    renew_in_between(&place, &server, [&second, &third], || {
        eventually("a later change would have another stamp", || {
            let changed = fs::metadata(place.path("pair.pem")).unwrap();
            let changed = changed.modified().unwrap().elapsed().unwrap();
            (changed.as_millis() > 200).then_some(())
        });
    });
    for last in [1, 7] {
        let from = SocketAddr::from(([127, 0, 0, last], 0));
        assert_eq!(
            Dial::to(&server).from(from).connect().server_name(),
            "third"
        );
    }
    assert_eq!(complaints(&server), 0, "{}", server.log());
}

/// Points a link elsewhere, as certbot does.
fn point(place: &Place, link: &str, to: &str) {
    let beside = place.path("beside");
    symlink(to, &beside).unwrap();
    fs::rename(beside, place.path(link)).unwrap();
}

#[test]
fn links_that_are_pointed_elsewhere_count() {
    let place = Place::new("links");
    for folder in ["archive", "live"] {
        fs::create_dir(place.path(folder)).unwrap();
    }
    let names = ["first", "second", "third"];
    for (at, name) in names.iter().enumerate() {
        let identity = if at == 1 {
            called(name).other_key()
        } else {
            called(name)
        };
        place.identity(&format!("archive/{at}"), &identity.issue());
    }
    let aim = |at: usize| {
        point(&place, "live/key", &format!("../archive/{at}.key"));
        point(&place, "live/cert", &format!("../archive/{at}.pem"));
    };
    aim(0);
    let server = Setup::new(&place, &["true"])
        .pair(place.text("live/cert"), place.text("live/key"))
        .start();
    assert_eq!(served(&server), "first");
    aim(1);
    until_served(&server, "second");
    // The folder itself may be the link.
    fs::create_dir(place.path("next")).unwrap();
    symlink("../archive/2.pem", place.path("next/cert")).unwrap();
    symlink("../archive/2.key", place.path("next/key")).unwrap();
    fs::rename(place.path("live"), place.path("gone")).unwrap();
    symlink("next", place.path("live")).unwrap();
    until_served(&server, "third");
    server.quiet();
}

#[test]
fn a_file_that_is_written_in_pieces_is_waited_for() {
    let place = Place::new("pieces");
    let server = begin(&place, &called("first").issue());
    assert_eq!(served(&server), "first");
    let pem = called("second").issue().chain_pem();
    let mut told = 0;
    // In place: cut, then nothing, a part of the certificate, and all of it.
    for length in [0, pem.len() / 4] {
        place.write("live.pem", &pem[..length]);
        eventually("it is told", || {
            assert_eq!(served(&server), "first");
            (complaints(&server) > told).then_some(())
        });
        told = complaints(&server);
        look(&server);
        look(&server);
        assert_eq!(complaints(&server), told, "{}", server.log());
    }
    place.write("live.pem", &pem);
    until_served(&server, "second");
    // Gone for a while, and back.
    fs::remove_file(place.path("live.key")).unwrap();
    eventually("it is told", || {
        assert_eq!(served(&server), "second");
        (complaints(&server) > told).then_some(())
    });
    let third = called("third").other_key().issue();
    place.identity("live", &third);
    until_served(&server, "third");
    server.quiet();
}

#[test]
fn a_change_of_the_same_size_in_the_same_second_counts() {
    let place = Place::new("same-size");
    let first = called("first").issue();
    let length = first.chain_pem().len();
    // A signature's length varies by a byte or two.
    let second = eventually("a certificate of the same size", || {
        let one = called("other").issue();
        (one.chain_pem().len() == length).then_some(one)
    });
    let server = begin(&place, &first);
    assert_eq!(served(&server), "first");
    let before = fs::metadata(place.path("live.pem")).unwrap();
    place.write("live.pem", second.chain_pem());
    let file = fs::File::options()
        .write(true)
        .open(place.path("live.pem"))
        .unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    let after = fs::metadata(place.path("live.pem")).unwrap();
    let stamp = |about: &fs::Metadata| (about.ino(), about.len(), about.mtime());
    assert_eq!(stamp(&before), stamp(&after), "nothing but the change time");
    until_served(&server, "other");
}

#[test]
fn a_change_right_after_the_start_and_right_after_a_reload_counts() {
    let place = Place::new("at-once");
    let server = begin(&place, &called("first").issue());
    place.write("live.pem", called("second").issue().chain_pem());
    until_served(&server, "second");
    place.write("live.pem", called("third").issue().chain_pem());
    until_served(&server, "third");
}

#[test]
fn anchors_lists_and_pins_that_change_count() {
    let place = Place::new("others");
    let (one, two) = (Authority::root("One"), Authority::root("Two"));
    let of_one = Leaf::new("of one").issue_by(&one);
    let of_two = Leaf::new("of two").issue_by(&two);
    let stranger = Leaf::new("stranger").self_signed();
    fs::create_dir(place.path("anchors")).unwrap();
    place.write("anchors/one.pem", one.pem());
    let lists = |revoked: &[String]| {
        let mut all = one.crl(&place, revoked, false);
        all.extend(two.crl(&place, &[], false));
        all
    };
    let server = Setup::script(&place, "echo $SSL_CLIENT_VERIFY")
        .options("-m")
        .env("CADIR", place.text("anchors"))
        .env("CRLFILE", place.write("crl.pem", lists(&[])))
        .env("PINFILE", place.write("pins", "# none\n"))
        .start();
    let verdict = |theirs| presenting(Dial::to(&server), Some(theirs));
    let until = |theirs, wanted: Option<&str>| {
        eventually("the change counts", || {
            (verdict(theirs).as_deref() == wanted).then_some(())
        });
    };
    let good = Some("SUCCESS\n");
    assert_eq!(verdict(&of_one).as_deref(), good);
    assert_eq!(verdict(&of_two), None);
    assert_eq!(verdict(&stranger), None);
    // A new file in the folder, then one that is changed in place.
    place.write("anchors/two.pem", two.pem());
    until(&of_two, good);
    place.write("anchors/two.pem", one.pem());
    until(&of_two, None);
    assert_eq!(verdict(&of_one).as_deref(), good);
    replace(&place, "pins", format!("{}\n", stranger.fingerprint()));
    until(&stranger, Some("PINNED\n"));
    replace(&place, "crl.pem", lists(&[of_one.serial()]));
    until(&of_one, None);
    // A list that is cut is told, and the old one counts.
    place.write("crl.pem", "-----BEGIN X509 CRL-----\n");
    eventually("it is told", || {
        assert_eq!(verdict(&of_one), None);
        (complaints(&server) == 1).then_some(())
    });
    server.line("unable to load revocation lists: CRLFILE ");
    fs::remove_dir_all(place.path("anchors")).unwrap();
    eventually("and so is a folder that is gone", || {
        assert_eq!(verdict(&stranger).as_deref(), Some("PINNED\n"));
        (complaints(&server) == 2).then_some(())
    });
    server.quiet();
}

#[test]
fn what_was_read_again_is_named() {
    let place = Place::new("named");
    let root = Authority::root("Named");
    let client = Leaf::new("client").issue_by(&root);
    let (ca, crl) = (
        place.write("ca.pem", root.pem()),
        place.write("crl.pem", root.crl(&place, &[], false)),
    );
    let first = called("first").issue();
    let (certificate, key) = place.identity("live", &first);
    let cdb = compile(&place, "rules.cdb", ":allow\n");
    let server = Setup::new(&place, &["true"])
        .options("-Y")
        .rules(&cdb)
        .env("CAFILE", &ca)
        .env("CRLFILE", &crl)
        .pair(&certificate, &key)
        .start();
    let told = |line: &str| {
        let line = format!("sslserver: {line}");
        eventually("it is told", || {
            served(&server);
            let log = server.log();
            log.lines().any(|one| one == line).then_some(())
        });
    };
    replace(
        &place,
        "crl.pem",
        root.crl(&place, &[client.serial()], false),
    );
    told(&format!("CRLFILE {crl} changed"));
    replace(&place, "ca.pem", Authority::root("Another").pem());
    told(&format!("CAFILE {ca} changed"));
    compile(&place, "rules.cdb", "127.0.0.1:allow\n");
    told(&format!("rules {cdb} changed"));
    // The same certificate with another chain is a change as well.
    let short = first.certificate.to_pem().unwrap();
    replace(&place, "live.pem", short);
    eventually("it is told", || {
        Dial::to(&server).blindly().connect();
        let line = format!("sslserver: CERTFILE {certificate} changed");
        server.log().lines().any(|one| one == line).then_some(())
    });
    // A file that was touched and is what it was is not worth more.
    assert_eq!(server.log().lines().count(), 4, "{}", server.log());
}

#[test]
fn rules_that_change_count() {
    let place = Place::new("rules-change");
    let rules = |text: &str| compile(&place, "rules.cdb", text);
    let cdb = rules(":allow,RULE=\"first\"\n");
    let server = Setup::script(&place, "echo $RULE")
        .options("-v")
        .rules(&cdb)
        .start();
    let said = || Some(Dial::to(&server).attempt().ok()?.text());
    let until = |wanted: Option<&str>| {
        eventually("the rules count", || {
            (said().as_deref() == wanted).then_some(())
        });
    };
    assert_eq!(said().as_deref(), Some("first\n"));
    rules("127.0.0.1:allow,RULE=\"second\"\n");
    until(Some("second\n"));
    // A certificate that only a rule names.
    let (certificate, key) = place.identity("own", &called("own").issue());
    rules(&format!(
        "127.0.0.1:allow,CERTFILE=\"{certificate}\",KEYFILE=\"{key}\",RULE=\"third\"\n\
         sni=named.example:allow,CERTFILE=\"{certificate}\",KEYFILE=\"{key}\"\n"
    ));
    until(Some("third\n"));
    until_served(&server, "own");
    server.line(&format!("CERTFILE {certificate} added: \"CN=own\" ecdsa "));
    // It is watched from now on, whoever names it.
    replace(&place, "own.pem", called("renewed").issue().chain_pem());
    until_served(&server, "renewed");
    let named = Dial::to(&server).blindly().name(Some("named.example"));
    assert_eq!(named.connect().server_name(), "renewed");
    // A rule that does not load keeps the old ones, all of them.
    let missing = place.text("missing.pem");
    rules(&format!(
        "127.0.0.1:allow,RULE=\"fourth\"\n127.0.0.2:allow,CERTFILE=\"{missing}\"\n"
    ));
    let line = until_told(&server, "renewed", BROKEN);
    assert!(
        line.contains("rule 127.0.0.2: unable to load certificate: CERTFILE "),
        "{line}"
    );
    assert_eq!(said().as_deref(), Some("third\n"));
    // A damaged file does too: it may be on its way.
    place.write("rules.cdb", "junk");
    eventually("it is told", || {
        assert_eq!(said().as_deref(), Some("third\n"));
        (complaints(&server) == 2).then_some(())
    });
    look(&server);
    assert_eq!(complaints(&server), 2, "{}", server.log());
    rules(":deny\n");
    until(None);
    rules(":allow,RULE=\"fifth\"\n");
    until(Some("fifth\n"));
    // One that is gone lets nobody in.
    fs::remove_file(&cdb).unwrap();
    until(None);
    let line = server.line("every client is denied");
    assert!(line.contains("no such file"), "{line}");
    rules(":allow,RULE=\"sixth\"\n");
    until(Some("sixth\n"));
    server.quiet();
}

#[test]
fn rules_that_were_taken_away_let_nobody_in() {
    let place = Place::new("taken-away");
    let (certificate, key) = place.identity("own", &called("own").issue());
    let text = format!("127.0.0.1:allow,CERTFILE=\"{certificate}\",KEYFILE=\"{key}\"\n");
    let cdb = compile(&place, "rules.cdb", &text);
    // Not even where all certificates came from them.
    let server = Setup::new(&place, &["true"])
        .unset("CERTFILE")
        .unset("KEYFILE")
        .option("-x")
        .option(&cdb)
        .start();
    let served = || Some(Dial::to(&server).attempt().ok()?.server_name());
    let until = |wanted: Option<&str>| {
        eventually("the rules count", || {
            (served().as_deref() == wanted).then_some(())
        });
    };
    assert_eq!(served().as_deref(), Some("own"));
    fs::remove_file(&cdb).unwrap();
    until(None);
    server.line("every client is denied");
    compile(&place, "rules.cdb", &text);
    until(Some("own"));
    server.quiet();
}

#[test]
fn rules_that_may_be_missing_come_and_go() {
    let place = Place::new("come-and-go");
    let cdb = place.text("rules.cdb");
    let server = Setup::new(&place, &["true"])
        .options("-Xx")
        .option(&cdb)
        .start();
    let comes_in = || Dial::to(&server).attempt().is_ok();
    assert!(comes_in());
    compile(&place, "rules.cdb", ":deny\n");
    eventually("they are found", || (!comes_in()).then_some(()));
    // Damaged is not missing.
    place.write("rules.cdb", "");
    eventually("it is told", || {
        assert!(!comes_in());
        server.log().contains(BROKEN).then_some(())
    });
    fs::remove_file(&cdb).unwrap();
    eventually("nobody is kept out", || comes_in().then_some(()));
    server.quiet();
}

#[test]
fn a_broken_store_that_is_mended_serves() {
    let place = Place::new("mended");
    let certificate = place.text("late.pem");
    let key = place.text("late.key");
    let cdb = compile(
        &place,
        "rules.cdb",
        &format!("127.0.0.2:allow,CERTFILE=\"{certificate}\",KEYFILE=\"{key}\"\n"),
    );
    let server = Setup::new(&place, &["true"])
        .option("-x")
        .option(&cdb)
        .start();
    let from_two = || {
        let own = SocketAddr::from(([127, 0, 0, 2], 0));
        let client = Dial::to(&server).from(own).attempt().ok()?;
        Some(client.server_name())
    };
    server.line("warning: rule 127.0.0.2: unable to load certificate: CERTFILE ");
    assert_eq!(from_two(), None);
    place.identity("late", &called("late").issue());
    eventually("the rule serves", || {
        (from_two().as_deref() == Some("late")).then_some(())
    });
    // And when it breaks again, what was there serves on.
    fs::remove_file(&certificate).unwrap();
    until_told(&server, "localhost", BROKEN);
    assert_eq!(from_two().as_deref(), Some("late"));
}

#[test]
fn a_change_is_noticed_from_within_a_root_that_holds_nothing() {
    need_root!();
    let place = Place::new("jailed");
    fs::create_dir(place.path("jail")).unwrap();
    let first = called("first").issue();
    let (certificate, key) = place.identity("live", &first);
    for file in [&certificate, &key] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(file, mode).unwrap();
    }
    let server = Setup::new(&place, &["true"])
        .pair(certificate, key)
        .env("SSL_CHROOT", place.path("jail"))
        .env("SSL_UID", "4731")
        .env("SSL_GID", "4732")
        .options("-u 4733 -g 4734")
        .start();
    assert_eq!(served(&server), "first");
    let second = called("second").other_key().issue();
    replace(&place, "live.pem", second.chain_pem());
    replace(&place, "live.key", second.key_pem());
    until_served(&server, "second");
    let third = called("third").issue();
    replace(&place, "live.key", third.key_pem());
    replace(&place, "live.pem", third.chain_pem());
    server.signal(Signal::SIGHUP);
    until_served(&server, "third");
    server.quiet();
}

#[test]
fn certificates_near_their_end_are_warned_about_once_a_reload() {
    let place = Place::new("near-end");
    let server = begin(&place, &called("first").issue());
    assert!(!server.log().contains("expire"), "{}", server.log());
    let old = called("second").expired().issue();
    replace(&place, "live.pem", old.chain_pem());
    eventually("it is served", || {
        let client = Dial::to(&server).blindly().connect();
        (client.server_name() == "second").then_some(())
    });
    let line = server.line("certificate expired at");
    assert!(line.starts_with("sslserver: warning: CERTFILE "), "{line}");
    for _ in 0..2 {
        server.signal(Signal::SIGHUP);
        Dial::to(&server).blindly().connect();
    }
    Dial::to(&server).blindly().connect();
    assert_eq!(server.log().matches("certificate expired at").count(), 1);
}

/// Ten thousand rules whose stores share five certificates.
fn many(place: &Place, generation: &str) -> String {
    let mut text = String::new();
    for at in 0..5 {
        let identity = called(&format!("{generation} {at}")).issue();
        place.identity(&format!("shared-{at}"), &identity);
    }
    for at in 0..10_000 {
        let stem = place.text(&format!("shared-{}", at % 5));
        let (high, low) = (at / 250, at % 250 + 1);
        let _ = writeln!(
            text,
            "127.1.{high}.{low}:allow,CERTFILE=\"{stem}.pem\",KEYFILE=\"{stem}.key\",RULE=\"{at}\""
        );
    }
    compile(place, "rules.cdb", &text)
}

#[test]
fn ten_thousand_rules_share_their_stores() {
    let place = Place::new("many");
    let cdb = many(&place, "first");
    let begun = Instant::now();
    let server = Setup::script(&place, "echo $RULE")
        .option("-x")
        .option(&cdb)
        .start();
    println!("start with 10000 rules: {:?}", begun.elapsed());
    let meet = |at: u16| {
        let [high, low] = [at / 250, at % 250 + 1].map(|n| u8::try_from(n).unwrap());
        let dial = Dial::to(&server).from(SocketAddr::from(([127, 1, high, low], 0)));
        let mut client = dial.connect();
        (client.server_name(), client.text())
    };
    for at in [0, 1, 4999, 9999] {
        let name = format!("first {}", at % 5);
        assert_eq!(meet(at), (name, format!("{at}\n")));
    }
    many(&place, "second");
    let begun = Instant::now();
    server.signal(Signal::SIGHUP);
    eventually("the new certificates are served", || {
        (meet(9999).0 == "second 4").then_some(())
    });
    println!("reload with 10000 rules: {:?}", begun.elapsed());
    // Five stores and the default one: not one line more.
    assert_eq!(server.log().matches(" changed: from ").count(), 5);
    let words = ["-k", "-x", &cdb, "127.0.0.1", "0", "true"];
    let mut command = Command::new(ours("sslserver"));
    let (certificate, key) = place.identity("default", &called("default").issue());
    command.args(words).env_clear();
    command.env("CERTFILE", certificate).env("KEYFILE", key);
    let checked = run(&mut command, b"");
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let text = checked.text();
    assert_eq!(text.matches(" and 1990 more:\n").count(), 5, "{text}");
}

/// Files that must not be read: a hole of 4 GB, a device without an end, a pipe
/// that nobody writes to.
fn unreadable(place: &Place) -> [(String, &'static str); 3] {
    let hole = place.text("hole");
    let file = fs::File::create(&hole).unwrap();
    file.set_len(4 << 30).unwrap();
    let fifo = place.text("fifo");
    nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    [
        (hole, "it is larger than 16 MB"),
        (fifo, "it is not a regular file"),
        ("/dev/zero".to_owned(), "it is not a regular file"),
    ]
}

/// The most memory that a process ever had, in kB.
fn peak(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status_field(&status, "VmHWM");
    line.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_file_that_grew_too_large_is_named_and_the_old_one_serves() {
    let place = Place::new("large");
    let first = called("first").issue();
    let (certificate, key) = place.identity("live", &first);
    let ca = place.write("live.ca", Authority::shared_root().pem());
    let pins = place.write("live.pins", "");
    let lists = place.write("live.crl", Authority::shared_root().crl(&place, &[], false));
    let anchors = place.text("anchors");
    fs::create_dir(&anchors).unwrap();
    place.write("anchors/one.pem", Authority::shared_root().pem());
    let files = [
        ("CERTFILE", certificate, "unable to load certificate: "),
        ("KEYFILE", key, "unable to load key: "),
        ("CAFILE", ca, "unable to load CA list: "),
        ("CRLFILE", lists, "unable to load revocation lists: "),
        ("PINFILE", pins, "unable to load pins: "),
    ];
    let mut setup = Setup::new(&place, &["cat"])
        .options("-Y")
        .env("CADIR", &anchors);
    for (variable, path, _) in &files {
        setup = setup.env(variable, path);
    }
    let server = setup.start();
    let before = peak(&server);
    for (at, (variable, path, step)) in files.iter().enumerate() {
        // Another reason each time: the same one is told once.
        let [hole, pipe, device] = unreadable(&place);
        for (bad, why) in [hole, if at % 2 == 0 { pipe } else { device }] {
            let (kept, beside) = (format!("{path}.kept"), place.text("beside"));
            fs::copy(path, &kept).unwrap();
            symlink(&bad, &beside).unwrap();
            fs::rename(&beside, path).unwrap();
            until_told(
                &server,
                "first",
                &format!("{BROKEN}{step}{variable} {path}: {why}"),
            );
            fs::rename(&kept, path).unwrap();
            look(&server);
        }
        for name in ["hole", "fifo"] {
            fs::remove_file(place.path(name)).unwrap();
        }
    }
    // So is a directory's sum.
    for name in ["a", "b"] {
        fs::File::create(place.path(&format!("anchors/{name}")))
            .unwrap()
            .set_len(9 << 20)
            .unwrap();
    }
    until_told(&server, "first", "its files are larger than 16 MB in all");
    let grown = peak(&server) - before;
    assert!(grown < 64 << 10, "{grown} kB more");
    server.quiet();
}

#[test]
fn rules_behind_a_loop_of_links_are_not_rules_that_were_taken_away() {
    let place = Place::new("loop");
    let cdb = compile(&place, "rules.cdb", "127.0.0.1:allow,SEEN=\"old\"\n:deny\n");
    let server = Setup::script(&place, "echo $SEEN").rules(&cdb).start();
    let says = |wanted: &str| {
        assert_eq!(Dial::to(&server).connect().text(), wanted);
    };
    says("old\n");
    for (name, why) in [
        ("rules.cdb", "too many symbolic links"),
        ("hole", "larger than 16 MB"),
    ] {
        fs::copy(place.path("rules.cdb"), place.path("kept")).unwrap();
        if name == "hole" {
            fs::File::create(place.path(name))
                .unwrap()
                .set_len(4 << 30)
                .unwrap();
        }
        symlink(name, place.path("beside")).unwrap();
        fs::rename(place.path("beside"), place.path("rules.cdb")).unwrap();
        eventually("it is told", || {
            says("old\n");
            let log = server.log();
            log.lines()
                .any(|line| line.contains(BROKEN) && line.contains(why))
                .then_some(())
        });
        fs::rename(place.path("kept"), place.path("rules.cdb")).unwrap();
        look_at(&server, || says("old\n"));
    }
    // Gone is gone.
    fs::remove_file(place.path("rules.cdb")).unwrap();
    eventually("nobody is let in", || Dial::to(&server).attempt().err());
}

/// As [`look`], for a program that ends by itself.
fn look_at(server: &Server, connect: impl Fn()) {
    server.signal(Signal::SIGHUP);
    for _ in 0..3 {
        connect();
    }
}

/// A server whose reloads take seconds: some of its keys do, which rules name. Its
/// own pair is `live`.
fn slow(place: &Place, first: &Identity, rules: std::ops::Range<u8>) -> Server {
    // A password is made a key in so many rounds.
    let mut locks = Command::new("openssl");
    locks.args(["pkcs8", "-topk8", "-iter", "300000", "-passout", "pass:x"]);
    let locked = run(&mut locks, &first.key_pem());
    assert_eq!(locked.code, Some(0), "{}", locked.stderr);
    let mut text = String::new();
    for last in rules {
        let (certificate, _) = place.identity(&format!("rule{last}"), first);
        let key = place.secret(&format!("rule{last}.key"), &locked.stdout);
        let _ = writeln!(
            text,
            "127.0.0.{last}:allow,CERTFILE=\"{certificate}\",KEYFILE=\"{key}\""
        );
    }
    let cdb = compile(place, "rules.cdb", &format!("{text}:allow\n"));
    let password = place.write("password", "x");
    let (certificate, key) = place.identity("live", first);
    let server = Setup::new(place, &["cat"])
        .options("-3x")
        .option(&cdb)
        .pair(certificate, key)
        .through([
            "/bin/sh",
            "-c",
            &format!("exec 3<{password}; exec \"$@\""),
            "sh",
        ])
        .start();
    // What the start has left to be looked at again is over.
    eventually("no reload goes on", || {
        let begun = Instant::now();
        assert_eq!(served(&server), "first");
        (begun.elapsed().as_millis() < 300).then_some(())
    });
    server
}

/// The keyholder that reads keys now, beside these.
fn loading(server: &Server, before: &[i32]) -> i32 {
    eventually("keys are loaded", || {
        let all = keyholders(server);
        all.into_iter().find(|one| !before.contains(one))
    })
}

#[test]
fn a_keyholder_that_dies_during_a_reload_leaves_nobody_behind() {
    need!("openssl");
    let place = Place::new("died-in-reload");
    let server = slow(&place, &called("first").issue(), 10..13);
    let before = keyholders(&server);
    server.signal(Signal::SIGHUP);
    loading(&server, &before);
    kill(Pid::from_raw(before[0]), Signal::SIGKILL).unwrap();
    server.line("ended; starting another");
    let mut waited = Dial::to(&server).connect();
    waited.send("served");
    assert_eq!(waited.read_exact(6), b"served");
    drop(waited);
    server.quiet();
}

/// A server that can wait no more, in the middle of a reload, leaves its clients to their
/// processes.
#[test]
fn clients_outlive_a_server_that_cannot_go_on_with_its_reload() {
    need!("openssl");
    let Some(strace) = strace() else {
        skip!("strace is not installed, or may not trace");
    };
    let place = Place::new("failed-in-reload");
    let mut server = slow(&place, &called("first").issue(), 10..13);
    let before = keyholders(&server);
    server.quiet();
    let (waiting, mut wrong) = (in_handshake(&server), dial::plain(server.at));
    await_engines(&server, 2);
    let mut open = Dial::to(&server).connect();
    server.signal(Signal::SIGHUP);
    loading(&server, &before);
    server.fail(&strace);
    let mut waited = Dial::to(&server).over(waiting).expect("a handshake");
    for client in [&mut open, &mut waited] {
        client.send("served");
        assert_eq!(client.read_exact(6), b"served");
    }
    assert!(
        !server.log().contains("unable to reload"),
        "{}",
        server.log()
    );
    // Somebody writes what their processes say.
    wrong.write_all(b"EHLO client.example.org\r\n").unwrap();
    server.line(": not TLS: client sent ");
    drop((open, waited, wrong));
    server.over();
}

/// A keyholder that is killed when it has just been made, and is to sign for the first
/// time, holds up nobody but those who need it.
#[test]
fn a_keyholder_that_dies_as_a_reload_ends_does_not_hold_up_its_server() {
    /// A wait for what it never signs took ten seconds each time.
    const ROUNDS: u32 = 3;
    const MOST: Duration = Duration::from_secs(25);
    let Some(strace) = strace() else {
        skip!("strace is not installed, or may not trace");
    };
    let place = Place::new("rehearsal");
    let server = Setup::new(&place, &["cat"]).start();
    let master = master(&server);
    let mut held_up = Duration::ZERO;
    for _ in 0..ROUNDS {
        let trace = place.fresh("trace");
        // Its key, twice that it knows what may be signed, and that it is confined: the
        // fifth is a signature.
        let mut tracer = Command::new(&strace)
            .args(["-f", "-qq", "-e", "trace=sendto", "-o"])
            .arg(&trace)
            .args(["-e", "inject=sendto:signal=KILL:when=5", "-p"])
            .arg(master.to_string())
            .spawn()
            .unwrap();
        eventually("the master is traced", || {
            let status = fs::read_to_string(format!("/proc/{master}/status")).unwrap();
            (status_field(&status, "TracerPid") != "0").then_some(())
        });
        server.signal(Signal::SIGHUP);
        let text = eventually("a keyholder is killed", || {
            let text = fs::read_to_string(&trace).unwrap();
            text.contains("killed by SIGKILL").then_some(text)
        });
        let begun = Instant::now();
        assert!(
            text.contains(r#", "S", 1, "#),
            "it was not confined: {text}"
        );
        kill(Pid::from_raw(tracer.id().cast_signed()), Signal::SIGTERM).unwrap();
        tracer.wait().unwrap();
        assert_eq!(served(&server), "localhost");
        held_up += begun.elapsed();
    }
    assert!(held_up < MOST, "{held_up:?}: {}", server.log());
    server.quiet();
}

/// A client in its handshake when files are read again is one of the keyholder of before,
/// whose place another takes as long as its key is there.
#[test]
fn a_keyholder_of_before_a_reload_is_replaced_for_those_that_wait_for_it() {
    let place = Place::new("retired");
    for (signal, said) in [
        (Signal::SIGKILL, "ended; starting another"),
        (Signal::SIGSTOP, "did not answer for"),
    ] {
        let server = begin(&place, &called("first").issue());
        let waiting = in_handshake(&server);
        let old = keyholders(&server);
        replace(&place, "live.pem", called("second").issue().chain_pem());
        renewed(&server);
        kill(Pid::from_raw(old[0]), signal).unwrap();
        server.line(said);
        let mut waited = Dial::to(&server).over(waiting).expect("a handshake");
        assert_eq!(waited.server_name(), "first");
        waited.send("served");
        assert_eq!(waited.read_exact(6), b"served");
        assert_eq!(served(&server), "second");
        drop(waited);
        server.quiet();
        // With the last that needs it, it ends.
        one_keyholder(&server);
    }
}

/// A key that was renewed is nowhere any more.
#[test]
fn a_keyholder_of_before_a_reload_is_given_up_without_its_key() {
    let place = Place::new("retired-key");
    let server = begin(&place, &called("first").issue());
    let waiting = in_handshake(&server);
    let old = keyholders(&server);
    let next = called("second").other_key().issue();
    replace(&place, "live.pem", next.chain_pem());
    replace(&place, "live.key", next.key_pem());
    renewed(&server);
    kill(Pid::from_raw(old[0]), Signal::SIGKILL).unwrap();
    server.line("unable to replace the keyholder: the key has changed since it was loaded: ");
    assert!(Dial::to(&server).over(waiting).is_err());
    server.line("the keyholder is gone");
    for _ in 0..3 {
        assert_eq!(served(&server), "second");
    }
    server.quiet();
    one_keyholder(&server);
    // It is none of the one at work, which has its key.
    assert_eq!(server.log().matches("unable to ").count(), 1);
}

fn one_keyholder(server: &Server) -> i32 {
    eventually("one keyholder is left", || match keyholders(server)[..] {
        [one] => Some(one),
        _ => None,
    })
}

/// Connected, and silent.
fn in_handshake(server: &Server) -> TcpStream {
    let client = dial::plain(server.at);
    await_engines(server, 1);
    client
}

/// HUP, until what was read serves.
fn renewed(server: &Server) {
    server.signal(Signal::SIGHUP);
    server.line(" changed: ");
}

/// What makes forks cheaper takes no memory that is not there.
#[test]
fn a_reload_without_a_byte_to_spare_ends_nobody() {
    let prlimit = need!("prlimit");
    let place = Place::new("no-byte");
    let (certificate, key) = place.identity("live", &called("first").issue());
    let server = Setup::new(&place, &["cat"])
        .options("-v")
        .pair(certificate, key)
        .start();
    assert_eq!(served(&server), "first");
    // A reload gives back what its heap has ready, and may take less than that.
    limit_data(&prlimit, &server, Some(-200));
    replace(&place, "live.pem", called("second").issue().chain_pem());
    server.signal(Signal::SIGHUP);
    eventually("it has tried", || {
        let log = server.log();
        let tried = log.contains("changed: ") || log.contains("unable to reload");
        tried.then_some(())
    });
    // The reload is over: a client is served, or its engine is short of memory.
    let before = server.log().matches(" from 127.0.0.1").count();
    let _ = Dial::to(&server).attempt();
    eventually("another client has come", || {
        let now = server.log().matches(" from 127.0.0.1").count();
        (now > before).then_some(())
    });
    limit_data(&prlimit, &server, None);
    until_served(&server, "second");
    server.quiet();
    server.stop();
}

#[test]
fn a_reload_without_room_for_a_file_ends_nobody() {
    let prlimit = need!("prlimit");
    let place = Place::new("no-room");
    let (certificate, key) = place.identity("live", &called("first").issue());
    let server = Setup::new(&place, &["cat"])
        .options("-v")
        .pair(certificate, key)
        .start();
    assert_eq!(served(&server), "first");
    for (times, (name, length)) in [("second", 900_000), ("third", 3_000_000)]
        .into_iter()
        .enumerate()
    {
        limit_data(&prlimit, &server, Some(200));
        let mut file = called(name).issue().chain_pem();
        file.resize(length, b'\n');
        replace(&place, "live.pem", file);
        server.signal(Signal::SIGHUP);
        let why = "unable to reload, the old material keeps serving: out of memory";
        server.lines(why, times + 1);
        limit_data(&prlimit, &server, None);
        until_served(&server, name);
    }
    server.quiet();
    server.stop();
}

/// Lets the server itself have so many KiB more than it has, or as much as it likes.
fn limit_data(prlimit: &Path, server: &Server, more: Option<i64>) {
    let pid = server.pid().to_string();
    let limit = more.map_or("unlimited".to_owned(), |more| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let has = status_field(&status, "VmData");
        let has: i64 = has.trim_end_matches(" kB").parse().unwrap();
        ((has + more) * 1024).to_string()
    });
    let mut command = Command::new(prlimit);
    command.args(["--pid", &pid, &format!("--data={limit}:")]);
    let set = run(&mut command, b"");
    assert_eq!(set.code, Some(0), "{}", set.stderr);
}

#[test]
fn a_reload_whose_process_died_is_tried_again() {
    need!("openssl");
    let place = Place::new("reload-died");
    let server = slow(&place, &called("first").issue(), 10..12);
    let before = keyholders(&server);
    server.signal(Signal::SIGHUP);
    let lost = loading(&server, &before);
    kill(Pid::from_raw(lost), Signal::SIGKILL).unwrap();
    server.line(BROKEN);
    assert_eq!(keyholders(&server), before);
    // No file changes, and no other signal comes.
    eventually("another keyholder serves", || {
        assert_eq!(served(&server), "first");
        let now = keyholders(&server);
        (now.len() == 1 && now != before).then_some(())
    });
    assert_eq!(complaints(&server), 1, "{}", server.log());
}

#[test]
fn a_slow_reload_keeps_nobody_waiting() {
    need!("openssl");
    let place = Place::new("slow-reload");
    let second = called("second").other_key().issue();
    let server = slow(&place, &called("first").issue(), 10..22);
    replace(&place, "live.key", second.key_pem());
    replace(&place, "live.pem", second.chain_pem());
    let before = keyholders(&server);
    server.signal(Signal::SIGHUP);
    let loading = loading(&server, &before);
    // It takes seconds, and the old one serves meanwhile, even while a key does not
    // get on at all.
    kill(Pid::from_raw(loading), Signal::SIGSTOP).unwrap();
    for _ in 0..3 {
        assert_eq!(served(&server), "first");
    }
    kill(Pid::from_raw(loading), Signal::SIGCONT).unwrap();
    until_served(&server, "second");
    assert!(!server.log().contains("unable"), "{}", server.log());
    // The end does not wait for one either.
    server.signal(Signal::SIGHUP);
    let mut client = Dial::to(&server).connect();
    server.signal(Signal::SIGTERM);
    eventually("the supervisor has ended", || {
        let one = crate::harness::process::process(server.pid().cast_signed());
        one.is_none_or(|one| one.state == 'Z').then_some(())
    });
    client.send("still here");
    assert_eq!(client.read_exact(10), b"still here");
    assert!(!server.log().contains("unable"), "{}", server.log());
    drop(client);
    server.over();
    server.stop();
}

#[test]
fn a_reload_under_load_loses_nobody() {
    let place = Place::new("reload-load");
    let identities = ["first", "second"].map(|name| called(name).issue());
    let server = begin(&place, &identities[0]);
    let done = AtomicBool::new(false);
    let count = std::thread::scope(|scope| {
        let stop = Stop(&done);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) {
                        let name = served(&server);
                        assert!(name == "first" || name == "second", "{name}");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for round in 1..=10 {
            let next = &identities[round % 2];
            replace(&place, "live.key", next.key_pem());
            replace(&place, "live.pem", next.chain_pem());
            // The client that has a change noticed waits for the reload.
            if round % 2 == 0 {
                server.signal(Signal::SIGHUP);
            }
            until_served(&server, if round % 2 == 0 { "first" } else { "second" });
        }
        drop(stop);
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum::<usize>()
    });
    assert!(count > 10, "{count}");
    server.quiet();
    assert!(!server.log().contains("dropping"), "{}", server.log());
}

fn is_a(name: &str, kind: &str) -> bool {
    Path::new(name).extension().is_some_and(|own| own == kind)
}

/// Sees which certificates and keys of a place are opened, by whatever process.
struct Opens(Inotify);

impl Opens {
    fn of(place: &Place) -> Opens {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
        inotify
            .add_watch(&place.path("."), AddWatchFlags::IN_OPEN)
            .unwrap();
        Opens(inotify)
    }

    /// Those since the last call, but for what the test itself writes.
    fn taken(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        while let Ok(events) = self.0.read_events() {
            let opened = events.into_iter().filter_map(|event| event.name);
            names.extend(opened.map(|name| name.to_string_lossy().into_owned()));
        }
        names.retain(|name| is_a(name, "pem") || is_a(name, "key"));
        names
    }

    /// Waits until nothing is opened: what changed shortly before the server read it
    /// is read once more.
    fn settled(&self, server: &Server) {
        eventually("no file is read again", || {
            self.taken();
            let begun = Instant::now();
            while begun.elapsed().as_millis() < 1500 {
                served(server);
            }
            self.taken().is_empty().then_some(())
        });
    }
}

fn keyholder(server: &Server) -> i32 {
    let holders: Vec<i32> = group(server.pid())
        .iter()
        .filter(|one| one.state != 'Z')
        .map(|one| one.pid)
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.trim_end() == "keyholder")
        })
        .collect();
    assert_eq!(holders.len(), 1, "{holders:?}");
    holders[0]
}

#[test]
fn a_reload_reads_the_stores_that_changed_and_no_others() {
    let place = Place::new("changed-alone");
    let mut rules = String::new();
    for last in 10..22 {
        let name = format!("n{last}");
        let (certificate, key) = place.identity(&name, &called(&name).issue());
        let _ = writeln!(
            rules,
            "127.0.0.{last}:allow,CERTFILE=\"{certificate}\",KEYFILE=\"{key}\""
        );
    }
    let cdb = compile(&place, "rules.cdb", &format!("{rules}:allow\n"));
    let (certificate, key) = place.identity("own", &called("own").issue());
    let server = Setup::new(&place, &["cat"])
        .rules(&cdb)
        .pair(certificate, key)
        .start();
    let until = |last: u8, name: &str| {
        eventually("the new certificate is served", || {
            let address = SocketAddr::from(([127, 0, 0, last], 0));
            let served = Dial::to(&server).from(address).connect().server_name();
            (served == name).then_some(())
        });
    };
    let opens = Opens::of(&place);
    opens.settled(&server);
    // Another certificate under the same key: the keyholder is left alone.
    let before = keyholder(&server);
    replace(&place, "n11.pem", called("renewed").issue().chain_pem());
    until(11, "renewed");
    assert_eq!(opens.taken(), BTreeSet::from(["n11.pem".to_owned()]));
    assert_eq!(keyholder(&server), before);
    until(12, "n12");
    until(10, "n10");
    until(0, "own");
    // Under another key a new one has them all, and their certificates stay.
    opens.settled(&server);
    let other = called("other").other_key().issue();
    replace(&place, "n11.key", other.key_pem());
    replace(&place, "n11.pem", other.chain_pem());
    until(11, "other");
    let opened = opens.taken();
    let certificates = opened.iter().filter(|name| is_a(name, "pem"));
    assert_eq!(certificates.collect::<Vec<_>>(), ["n11.pem"]);
    assert!(opened.contains("n12.key"), "{opened:?}");
    eventually("the keyholder before has ended", || {
        crate::harness::process::process(before)
            .is_none()
            .then_some(())
    });
    until(12, "n12");
    until(10, "n10");
    until(0, "own");
    // A rule that goes takes its key with it.
    compile(&place, "rules.cdb", ":allow\n");
    until(12, "own");
    assert!(!server.log().contains("unable"), "{}", server.log());
}

#[test]
fn one_changed_file_of_a_thousand_is_the_one_that_is_read() {
    const MANY: usize = 1000;
    let place = Place::new("thousand");
    let (own, key) = place.identity("own", &called("own").issue());
    let one = called("one").issue().chain_pem();
    let mut rules = String::new();
    for at in 0..MANY {
        let certificate = place.write(&format!("n{at}.pem"), &one);
        let _ = writeln!(
            rules,
            "sni=n{at}.test:allow,CERTFILE=\"{certificate}\",KEYFILE=\"{key}\""
        );
    }
    let cdb = compile(&place, "rules.cdb", &format!("{rules}:allow\n"));
    let server = Setup::new(&place, &["cat"])
        .rules(&cdb)
        .pair(own, key)
        .start();
    let named = |name: &str| {
        Dial::to(&server)
            .blindly()
            .name(Some(name))
            .connect()
            .server_name()
    };
    let opens = Opens::of(&place);
    opens.settled(&server);
    replace(&place, "n500.pem", called("renewed").issue().chain_pem());
    eventually("the new certificate is served", || {
        (named("n500.test") == "renewed").then_some(())
    });
    assert_eq!(opens.taken(), BTreeSet::from(["n500.pem".to_owned()]));
    assert_eq!(named("n499.test"), "one");
    assert_eq!(served(&server), "own");
}

/// What changed just before it was read is read once more: by the stores that were
/// loaded at that time, but not by those that came later and share the key.
#[test]
fn a_key_of_many_stores_signs_for_each_after_its_renewal() {
    let place = Place::new("shared-key");
    let mut rules = String::new();
    for last in 2..=251 {
        let _ = writeln!(rules, "127.0.0.{last}:allow,ALPN=\"own{last}\"");
    }
    let cdb = compile(&place, "rules.cdb", &format!("{rules}:allow\n"));
    let identities = [called("first").issue(), called("second").issue()];
    let (certificate, key) = place.identity("live", &identities[0]);
    let server = Setup::new(&place, &["cat"])
        .rules(&cdb)
        .pair(certificate, key)
        .start();
    let served_to = |last: u8| {
        let address = SocketAddr::from(([127, 0, 0, last], 0));
        Dial::to(&server).from(address).connect().server_name()
    };
    for round in [1, 0, 1] {
        // Nobody has looked for a second: the first client has the change noticed
        // while it is new.
        std::thread::sleep(Duration::from_millis(1100));
        let next = &identities[round];
        replace(&place, "live.pem", next.chain_pem());
        replace(&place, "live.key", next.key_pem());
        until_served(&server, ["first", "second"][round]);
        // Past the reload that reads again.
        let begun = Instant::now();
        while begun.elapsed().as_millis() < 2500 {
            for last in [1, 2, 127, 251] {
                assert_eq!(
                    served_to(last),
                    ["first", "second"][round],
                    "127.0.0.{last}"
                );
            }
        }
    }
    server.quiet();
    assert!(!server.log().contains("refused"), "{}", server.log());
}
