//! `-k` as a gate: what would refuse or weaken a connection later makes it exit
//! 111, and what is only worth a word does not.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{
    Authority, Dial, Finished, Identity, KeyKind, Leaf, Place, Setup, compile, need, need_root,
    ours, program, skip,
};

/// Fails unless `-k` is content.
pub fn content(checked: &Finished) {
    assert_eq!(
        checked.code,
        Some(0),
        "{}{}",
        checked.text(),
        checked.stderr
    );
}

/// Fails unless `-k` says that this is wrong.
fn wrong(checked: &Finished, part: &str) {
    let text = checked.text();
    assert_eq!(
        checked.code,
        Some(111),
        "{part:?}: {text}{}",
        checked.stderr
    );
    let named = text
        .lines()
        .any(|line| line.starts_with("wrong: ") && line.contains(part));
    assert!(named, "{part:?} not in {text}");
}

fn check(setup: Setup<'_>) -> Finished {
    setup.option("-k").refused()
}

fn pem(certificates: &[&openssl::x509::X509]) -> Vec<u8> {
    let all = certificates.iter().map(|one| one.to_pem().unwrap());
    all.collect::<Vec<_>>().concat()
}

/// A leaf under two intermediates: it, the lower, the upper, the root.
fn long_chain() -> (Identity, [openssl::x509::X509; 4]) {
    let root = Authority::root("Check Root");
    let upper = root.below("Check Upper");
    let lower = upper.below("Check Lower");
    let identity = Leaf::localhost().issue_by(&lower);
    let all = [
        identity.certificate.clone(),
        lower.certificate.clone(),
        upper.certificate.clone(),
        root.certificate.clone(),
    ];
    (identity, all)
}

#[test]
fn a_chain_that_clients_cannot_follow_is_wrong() {
    let place = Place::new("check-chain");
    let (identity, [leaf, lower, upper, root]) = long_chain();
    let key = place.secret("key.pem", identity.key_pem());
    let setup = |chain: &[&openssl::x509::X509]| {
        let file = place.write("chain.pem", pem(chain));
        let setup = Setup::new(&place, &["true"]);
        setup.pair(file, &key)
    };
    content(&check(setup(&[&leaf, &lower, &upper])));
    content(&check(setup(&[&leaf, &lower, &upper, &root])));
    wrong(&check(setup(&[&leaf])), "no intermediate");
    wrong(
        &check(setup(&[&leaf, &upper, &lower])),
        "broken chain: certificate 2 of the file did not issue the one before it: wrong order, certificate 3 did",
    );
    wrong(
        &check(setup(&[&leaf, &upper])),
        "broken chain: certificate 2 of the file did not issue the one before it",
    );
    wrong(
        &check(setup(&[&leaf, &lower, &root])),
        "broken chain: certificate 3 of the file",
    );
    // The anchors complete what is alone, as with ucspi-ssl.
    let between = place.write("ca.pem", pem(&[&lower, &upper, &root]));
    content(&check(setup(&[&leaf]).env("CAFILE", between)));
    // Nobody misses an intermediate of one that signed itself.
    let alone = Leaf::localhost().self_signed();
    content(&check(Setup::new(&place, &["true"]).identity(&alone)));
    // The same under a name's rule.
    let file = place.write("name.pem", pem(&[&leaf, &upper, &lower]));
    let text = format!("sni=a.example:allow,CERTFILE=\"{file}\",KEYFILE=\"{key}\"\n");
    let cdb = compile(&place, "rules.cdb", &text);
    let setup = Setup::new(&place, &["true"]).option("-x").option(&cdb);
    wrong(&check(setup), "broken chain");
}

#[test]
fn a_broken_chain_is_warned_about_at_start() {
    let place = Place::new("start-chain");
    let (identity, [leaf, lower, upper, _]) = long_chain();
    let key = place.secret("key.pem", identity.key_pem());
    let setup = |chain: &[&openssl::x509::X509]| {
        let file = place.write("chain.pem", pem(chain));
        let setup = Setup::new(&place, &["echo", "served"]);
        setup.pair(file, &key)
    };
    let server = setup(&[&leaf, &upper, &lower]).start();
    server.line("warning: CERTFILE ");
    server.line("broken chain: certificate 2 of the file");
    assert_eq!(Dial::to(&server).blindly().connect().text(), "served\n");
    let server = setup(&[&leaf, &lower, &upper]).start();
    assert_eq!(server.log(), "");
}

#[test]
fn dates_of_the_whole_chain_count() {
    let place = Place::new("check-dates");
    let near = Leaf::localhost().ending_in(13).issue();
    let checked = check(Setup::new(&place, &["true"]).identity(&near));
    content(&checked);
    assert!(
        checked.text().contains("note: CERTFILE "),
        "{}",
        checked.text()
    );
    let over = Leaf::localhost().expired().issue();
    wrong(
        &check(Setup::new(&place, &["true"]).identity(&over)),
        "certificate expired at",
    );
    // A chain whose second certificate is over: both signed themselves, which is
    // a broken chain too.
    let good = Leaf::localhost().self_signed();
    let chain = place.write("chain.pem", pem(&[&good.certificate, &over.certificate]));
    let key = place.secret("key.pem", good.key_pem());
    let setup = Setup::new(&place, &["true"]);
    let checked = check(setup.pair(chain, key));
    wrong(&checked, "certificate 2 of the file expired at");
}

#[test]
fn what_requires_certificates_that_nobody_is_asked_for_is_told() {
    let place = Place::new("check-unasked");
    let (ca, _) = place.identity("ca", &Leaf::localhost().self_signed());
    let told = |setup: Setup<'_>, by: &str| {
        let line = format!(
            "CCAFILE is \"-\": no client is asked for a certificate, and {by} has no effect"
        );
        let checked = check(setup);
        assert!(checked.text().contains(&line), "{by}: {}", checked.text());
    };
    let setup = || {
        let setup = Setup::new(&place, &["true"]);
        setup.env("CCAFILE", "-").env("CAFILE", &ca)
    };
    told(setup().option("-m"), "-m");
    told(setup().option("-z"), "-z");
    told(setup().env("CCAVERIFY", "1"), "CCAVERIFY");
    for silent in [
        check(setup()),
        check(setup().option("-Y")),
        check(
            Setup::new(&place, &["true"])
                .env("CAFILE", &ca)
                .option("-m"),
        ),
    ] {
        assert!(!silent.text().contains("no client is asked"));
    }
    let server = setup().option("-m").start();
    server.line("sslserver: warning: CCAFILE is \"-\": no client is asked for a certificate");
}

#[test]
fn a_program_that_does_not_run_is_told_of_with_its_connection() {
    let place = Place::new("no-program");
    let server = Setup::new(&place, &["/no/such"]).option("-v").start();
    let _ = Dial::to(&server).connect().text();
    let end = server.line(" status 28416");
    let id = end.split(' ').nth(2).expect("a process");
    let line = server.line("127.0.0.1: unable to run");
    assert_eq!(
        line,
        format!(
            "sslserver: warning: dropping connection, pid {id} from 127.0.0.1: unable to run /no/such: no such file or directory"
        )
    );
}

#[test]
fn a_program_that_could_not_run_is_wrong() {
    let place = Place::new("check-prog");
    wrong(
        &check(Setup::new(&place, &["no-such-program"])),
        "unable to run no-such-program: no such file or directory",
    );
    let script = place.write("script", "#!/bin/sh\n");
    let mode = |mode| fs::set_permissions(&script, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    wrong(&check(Setup::new(&place, &[&script])), "permission denied");
    mode(0o755);
    content(&check(Setup::new(&place, &[&script])));
    wrong(
        &check(Setup::new(&place, &[&place.text("")])),
        "permission denied",
    );
    // Found through PATH.
    let setup = || Setup::new(&place, &["script"]).env("PATH", place.text(""));
    content(&check(setup()));
    mode(0o600);
    wrong(&check(setup()), "unable to run script: permission denied");
}

#[test]
fn what_starttls_handoff_would_refuse_is_wrong_beforehand() {
    let place = Place::new("check-handoff");
    let folder = Path::new(&ours("starttls-handoff"))
        .parent()
        .unwrap()
        .display()
        .to_string();
    let path = format!("{folder}:/usr/bin:/bin");
    let setup = |words: &[&str]| Setup::new(&place, words).env("PATH", &path);
    let good = ["starttls-handoff", "smtp", "true"];
    content(&check(setup(&good).option("-n")));
    let unknown = "starttls-handoff: unknown protocol smpt; starttls-handoff [";
    wrong(
        &check(setup(&["starttls-handoff", "smpt", "true"]).option("-n")),
        unknown,
    );
    wrong(
        &check(setup(&["starttls-handoff", "-t", "x", "smtp", "true"]).option("-n")),
        "starttls-handoff: -t: \"x\" is not a number",
    );
    for words in [
        &["starttls-handoff", "smtp", "no-such-program"][..],
        &[
            "starttls-handoff",
            "-vt",
            "9",
            "imap",
            "no-such-program",
            "x",
        ],
    ] {
        wrong(
            &check(setup(words).option("-n")),
            "unable to run no-such-program: no such file",
        );
    }
    // TLS that is off needs no server that offers it.
    wrong(&check(setup(&good)), "starttls-handoff: it needs -n");
    content(&check(setup(&good).env("UCSPITLS", "-")));
    for value in ["require", "1", "?"] {
        let part = format!("starttls-handoff: unable to use UCSPITLS: \"{value}\": ");
        wrong(
            &check(setup(&good).option("-n").env("UCSPITLS", value)),
            &part,
        );
        // Another program may know the word.
        content(&check(setup(&["true"]).option("-n").env("UCSPITLS", value)));
    }
    let text =
        "127.:allow,UCSPITLS=\"!\"\n10.:allow,UCSPITLS=\"yes\"\n11.:allow,UCSPITLS=\"yes\"\n";
    let cdb = compile(&place, "rules.cdb", text);
    wrong(
        &check(setup(&good).options("-n").rules(&cdb)),
        "rule 10., 11.: starttls-handoff: unable to use UCSPITLS: \"yes\": ",
    );
}

#[test]
fn what_starttls_handoff_would_refuse_is_warned_about_at_start_and_with_new_rules() {
    let place = Place::new("start-handoff");
    let handoff = &*ours("starttls-handoff");
    let cdb = compile(&place, "rules.cdb", ":allow\n");
    let server = Setup::new(&place, &[handoff, "smtp", "true"])
        .options("-n")
        .rules(&cdb)
        .env("UCSPITLS", "require")
        .start();
    server.line("warning: starttls-handoff: unable to use UCSPITLS: \"require\": ");
    compile(&place, "rules.cdb", ":allow,UCSPITLS=\"yes\"\n");
    server.signal(Signal::SIGHUP);
    server.line("warning: rule (empty): starttls-handoff: unable to use UCSPITLS: \"yes\": ");
}

#[test]
fn a_program_that_the_user_of_u_may_not_run_is_wrong() {
    need_root!();
    let place = Place::new("check-prog-user");
    let script = place.write("script", "#!/bin/sh\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).unwrap();
    content(&check(Setup::new(&place, &[&script])));
    let setup = Setup::new(&place, &[&script]).options("-u nobody");
    wrong(&check(setup), "permission denied");
    // Nor may he go where it is.
    let folder = place.path("closed");
    fs::create_dir(&folder).unwrap();
    let inside = place.write("closed/script", "#!/bin/sh\n");
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).unwrap();
    for (mode, may) in [(0o700, false), (0o711, true)] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        let why = format!("unable to run {inside}: permission denied");
        for words in [vec![&*inside], vec!["setuidgid", "nobody", &inside]] {
            let as_nobody = match words.len() {
                1 => Setup::new(&place, &words).options("-u nobody"),
                _ => Setup::new(&place, &words),
            };
            let checked = check(as_nobody);
            assert_eq!(checked.text().contains(&why), !may, "{}", checked.text());
        }
        content(&check(Setup::new(&place, &[&inside])));
    }
}

#[test]
fn what_a_program_would_run_in_its_turn_is_looked_for_too() {
    let place = Place::new("check-wrappers");
    let folder = place.path("env");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("PATH"), "/nonexistent \nsecond\n").unwrap();
    let folder = place.text("env");
    let none = "no such file or directory";
    let gone = format!("unable to run gone: {none}");
    for (line, why) in [
        ("env gone", &*gone),
        ("env A=b -x gone", "unable to run -x: "),
        ("env -i A=b gone x", &gone),
        ("env PATH=/nonexistent true", "unable to run true: "),
        ("nice -n 5 gone", &gone),
        ("nice -n5 nohup -- gone", &gone),
        ("env starttls-handoff smtp env gone", &gone),
        ("env starttls-handoff sntp true", "unknown protocol sntp"),
        (
            "env UCSPITLS=1 starttls-handoff smtp true",
            "unable to use UCSPITLS: \"1\"",
        ),
        ("env starttls-handoff smtp true", "it needs -n"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        wrong(&check(Setup::new(&place, &words)), why);
    }
    for line in [
        "env -i true",
        "env -S gone",
        "nice -5 gone",
        "nice -n 5 true",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        content(&check(Setup::new(&place, &words)));
    }
    let handoff = ours("starttls-handoff");
    let words = ["env", "UCSPITLS=-", &*handoff, "smtp", "true"];
    content(&check(Setup::new(&place, &words)));
    // What these are need not be here to know what they would run.
    for (words, why) in [
        (
            vec!["setuidgid", "no-such-user", "true"],
            "setuidgid: unknown user no-such-user: every client is dropped",
        ),
        (
            vec!["envdir", "/no/such", "true"],
            "envdir /no/such: no such file or directory: every client is dropped",
        ),
        (vec!["envdir", &folder, "true"], "unable to run true: "),
        (
            vec!["qmail-popup", "host", "checkpassword", "gone", "Maildir"],
            &*gone,
        ),
        (
            vec!["rblsmtpd", "-b", "-r", "zen.example", "recordio", "gone"],
            &*gone,
        ),
        (vec!["softlimit", "-m9000000", "-d", "9", "gone"], &*gone),
        (vec!["setlock", "-nx", "file", "gone"], &*gone),
    ] {
        wrong(&check(Setup::new(&place, &words)), why);
    }
    let server = Setup::new(&place, &["env", "gone"]).start();
    server.line(&format!("warning: {gone}"));
}

#[test]
fn what_is_wrong_with_the_store_of_a_rule_names_the_rule() {
    let place = Place::new("check-rule-stores");
    let rules = "192.0.2.7:allow,CCAVERIFY=\"1\"\n192.0.2.8:allow,CIPHERS=\"HIGH:NONESUCH\"\n\
                 192.0.2.9:allow,TICKETS=\"0\"\n:allow\n";
    let cdb = compile(&place, "rules.cdb", rules);
    let no_anchors = "rule 192.0.2.7: a client certificate is required, but CAFILE and CADIR";
    let unknown = "rule 192.0.2.8: CIPHERS: OpenSSL does not know \"NONESUCH\"";
    let setup = || Setup::new(&place, &["true"]).rules(&cdb);
    let checked = check(setup());
    wrong(&checked, no_anchors);
    wrong(&checked, unknown);
    let server = setup().start();
    server.line(&format!("sslserver: warning: {no_anchors}"));
    server.line(&format!("sslserver: warning: {unknown}"));
    // What is everybody's is no rule's.
    let checked = check(setup().env("CIPHERS", "HIGH:UNHEARD"));
    wrong(
        &checked,
        "wrong: CIPHERS: OpenSSL does not know \"UNHEARD\"",
    );
    assert!(
        !checked.text().contains("192.0.2.9: CIPHERS"),
        "{}",
        checked.text()
    );
}

#[test]
fn authorities_past_their_date_are_told() {
    let place = Place::new("check-authorities");
    let (one, other) = (Authority::root("One Root"), Authority::root("Other Root"));
    let old = one.dated((-400, -30));
    let asking = |all: &[&Authority], letter: &str| {
        let pem: Vec<Vec<u8>> = all.iter().map(|one| one.pem()).collect();
        let anchors = place.write("anchors.pem", pem.concat());
        Setup::new(&place, &["true"])
            .option(letter)
            .env("CAFILE", anchors)
    };
    let about = format!(
        "CAFILE {}: authority CN=One Root ",
        place.text("anchors.pem")
    );
    let nobody = ": no client certificate can verify: put a current one there";
    for letter in ["-m", "-Y"] {
        let checked = check(asking(&[&old], letter));
        wrong(&checked, nobody);
        wrong(&checked, &format!("{about}expired at "));
    }
    let early = one.dated((2, 30));
    wrong(
        &check(asking(&[&early], "-m")),
        &format!("{about}is not valid before "),
    );
    // Others are left, as in a bundle.
    let checked = check(asking(&[&old, &other], "-m"));
    content(&checked);
    let text = checked.text();
    assert!(
        text.contains(&format!("note: {about}expired at ")),
        "{text}"
    );
    assert!(
        text.contains(": certificates that it issued are refused\n"),
        "{text}"
    );
    for (days, told) in [(13, true), (15, false)] {
        let checked = check(asking(&[&one.dated((-1, days))], "-m"));
        content(&checked);
        let noted = checked
            .text()
            .contains(&format!("note: {about}expires at "));
        assert_eq!(noted, told, "{days}");
    }
    // It was renewed under its key, or nobody is judged by it.
    for (all, letter) in [(vec![&old, &one], "-m"), (vec![&old], "-Z")] {
        let checked = check(asking(&all, letter));
        content(&checked);
        assert!(!checked.text().contains("One Root"), "{}", checked.text());
    }
    let namesake = one.forged_root();
    let text = check(asking(&[&old, &namesake], "-m")).text();
    assert!(
        text.contains(&format!("note: {about}expired at ")),
        "{text}"
    );
    let server = asking(&[&old], "-m").start();
    server.line(nobody);
}

#[test]
fn believing_the_header_of_everybody_is_wrong() {
    let place = Place::new("check-senders");
    let setup = |nets: &str| Setup::new(&place, &["true"]).option("-L").option(nets);
    for nets in ["0.0.0.0/0", "127.0.0.1,::/0", "::ffff:0:0/96"] {
        wrong(&check(setup(nets)), "-L names every address: ");
    }
    content(&check(setup("10.0.0.0/8,2001:db8::/32")));
    setup("0.0.0.0/0")
        .start()
        .line("warning: -L names every address: ");
}

#[test]
fn variables_that_come_too_late_for_a_program_under_n_are_noted() {
    let place = Place::new("check-late");
    let rules = "sni=localhost:allow,A=\"b\",TLS_MIN=\"1.3\"\n\
                 sni=other.example:allow,TLS_MIN=\"1.3\"\n127.0.0.1:allow,A=\"b\"\n:allow\n";
    let cdb = compile(&place, "rules.cdb", rules);
    let setup = || Setup::new(&place, &["true"]).rules(&cdb);
    let why = "note: rule sni=localhost: its variables do not reach the program, which under -n runs before a client names a server\n";
    let checked = check(setup().option("-n"));
    content(&checked);
    assert!(checked.text().contains(why), "{}", checked.text());
    assert!(!check(setup()).text().contains("do not reach"));
}

#[test]
fn files_that_everybody_may_write_or_keys_that_they_may_read_are_wrong() {
    let place = Place::new("check-modes");
    let identity = Identity::localhost(KeyKind::P256);
    let (certificate, key) = place.identity("own", &identity);
    let root = place.write("ca.pem", Authority::shared_root().pem());
    let cdb = compile(&place, "rules.cdb", ":allow\n");
    let setup = || {
        Setup::new(&place, &["true"])
            .pair(&certificate, &key)
            .env("CAFILE", &root)
            .option("-x")
            .option(&cdb)
    };
    content(&check(setup()));
    for (path, mode, part) in [
        (&key, 0o644, "everybody may read this private key"),
        (&key, 0o602, "everybody may write this private key"),
        (&certificate, 0o646, "everybody may write it"),
        (&root, 0o666, "everybody may write it"),
        (&cdb, 0o666, "everybody may write it"),
    ] {
        let before = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let checked = check(setup());
        wrong(&checked, part);
        wrong(&checked, path);
        fs::set_permissions(path, before).unwrap();
    }
    // Its group may read it.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    content(&check(setup()));
    // A key in the certificate's file.
    let both = [identity.chain_pem(), identity.key_pem()].concat();
    let file = place.write("both.pem", both);
    let alone = || {
        Setup::new(&place, &["true"])
            .env("CERTFILE", &file)
            .unset("KEYFILE")
    };
    wrong(&check(alone()), "everybody may read this private key");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    content(&check(alone()));
    // And in a rule for a name.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let text = format!("sni=a.example:allow,CERTFILE=\"{certificate}\",KEYFILE=\"{key}\"\n");
    compile(&place, "rules.cdb", &text);
    let setup = alone().option("-x").option(&cdb);
    wrong(&check(setup), "everybody may read this private key");
}

#[test]
fn settings_that_serve_nobody_are_wrong_and_names_of_another_openssl_are_not() {
    let place = Place::new("check-settings");
    let setup = || Setup::new(&place, &["true"]);
    wrong(
        &check(setup().env("CIPHERS", "ECDHE-RSA-AES128-GCM-SHA256")),
        "CIPHERS: none of its suites fits the key (ECDSA)",
    );
    wrong(
        &check(setup().env("CIPHERS", "ECDHE:DEFAULT")),
        "as the first word only",
    );
    wrong(
        &check(
            setup()
                .env("CIPHERS", "ECDHE:TLS_AES_128_GCM_SHA256")
                .env("CIPHERSUITES", "TLS_AES_256_GCM_SHA384"),
        ),
        "CIPHERSUITES is set",
    );
    wrong(
        &check(setup().env("CIPHERSUITES", "TLS_AES_128_GCM_SHA256:TLS_FOO")),
        "CIPHERSUITES: OpenSSL does not know \"TLS_FOO\"",
    );
    wrong(
        &check(setup().env("KEYFILE_ALT", "/nonexistent")),
        "KEYFILE_ALT has no effect",
    );
    wrong(
        &check(setup().env("SIGALGS", "RSA+SHA256:RSA-PSS+SHA256")),
        "SIGALGS: none of its algorithms fits the key (ECDSA) in TLS 1.3",
    );
    // No other setting is blamed for it.
    let unsigned = check(setup().env("SIGALGS", "RSA+SHA1"));
    wrong(
        &unsigned,
        "SIGALGS: none of its algorithms fits the key (ECDSA) in TLS 1.2",
    );
    for other in ["TLS_GROUPS", "CIPHERS:"] {
        assert!(!unsigned.text().contains(other), "{}", unsigned.text());
    }
    // PKCS #1 is of TLS 1.2 alone.
    let rsa = || setup().identity(&Identity::localhost(KeyKind::Rsa2048));
    let list = "RSA+SHA256:ECDSA+SHA256";
    let checked = check(rsa().env("SIGALGS", list));
    wrong(
        &checked,
        "fits the key (RSA) in TLS 1.3: no client of TLS 1.3",
    );
    assert!(!checked.text().contains("in TLS 1.2"), "{}", checked.text());
    content(&check(rsa().env("SIGALGS", list).env("TLS_MAX", "1.2")));
    // SHA-1 needs level 0.
    let old = || rsa().env("SIGALGS", "RSA+SHA1").env("TLS_MAX", "1.2");
    wrong(&check(old()), "fits the key (RSA) in TLS 1.2");
    content(&check(old().env("CIPHERS", "ECDHE:@SECLEVEL=0")));
    content(&check(
        rsa().env("SIGALGS", "ECDSA+SHA256:RSA-PSS+SHA256:RSA+SHA256"),
    ));
    // Of ECDSA's suites every one needs a curve; of RSA's some don't. A hybrid
    // group is none.
    let fields = || setup().env("TLS_GROUPS", "ffdhe2048");
    let checked = check(fields());
    wrong(
        &checked,
        "TLS_GROUPS: no curve, which TLS 1.2 needs with this key (ECDSA): only TLS 1.3 is served",
    );
    assert!(!checked.text().contains("ECDHE-"), "{}", checked.text());
    content(&check(fields().env("TLS_MIN", "1.3")));
    let checked = check(rsa().env("TLS_GROUPS", "ffdhe2048"));
    content(&checked);
    let text = checked.text();
    assert!(
        text.contains(" DHE-RSA-") && !text.contains("ECDHE-"),
        "{text}"
    );
    let server = rsa().env("SIGALGS", list).start();
    server.line("warning: SIGALGS: none of its algorithms fits");
    let thirteen = Dial::to(&server).version(openssl::ssl::SslVersion::TLS1_3);
    assert!(thirteen.attempt().is_err(), "and it is true");
    let checked = check(
        setup()
            .env("TLS_GROUPS", "nosuch:X25519")
            .env("CIPHERS", "kRSA:ECDHE"),
    );
    content(&checked);
    let text = checked.text();
    assert!(
        text.contains("note: TLS_GROUPS: OpenSSL does not know \"nosuch\""),
        "{text}"
    );
    assert!(
        text.contains("note: CIPHERS: these words ask for suites"),
        "{text}"
    );
    let ended = check(setup().host("no-such-host.invalid"));
    ended.failed(111, "no-such-host.invalid");
}

/// What openssl makes of a certificate's key.
fn key_digest(place: &Place, certificate: &openssl::x509::X509) -> String {
    let file = place.write("one.pem", certificate.to_pem().unwrap());
    let words = format!(
        "openssl x509 -in {file} -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r"
    );
    let output = Command::new("sh").args(["-c", &words]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    said.split_ascii_whitespace().next().unwrap().to_owned()
}

#[test]
fn the_check_prints_the_tlsa_records_to_publish() {
    let place = Place::new("check-tlsa");
    let root = Authority::root("Check Root");
    let lower = root.below("Check Lower");
    let leaf = Leaf::new("mx.check.example")
        .dns("mx.check.example")
        .dns("Second.check.example")
        .dns("*.wild.example");
    let identity = leaf.address("127.0.0.1").issue_by(&lower);
    let chain = [&identity.certificate, &lower.certificate, &root.certificate];
    let setup = Setup::new(&place, &["true"]);
    let setup = setup.pair(
        place.write("chain.pem", pem(&chain)),
        place.secret("key.pem", identity.key_pem()),
    );
    let text = check(setup).text();
    let printed: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(" IN TLSA "))
        .collect();
    let mut wanted = Vec::new();
    for host in [
        "mx.check.example",
        "Second.check.example",
        "HOST.wild.example",
    ] {
        for (usage, certificate) in [3, 2, 2].into_iter().zip(chain) {
            let digest = key_digest(&place, certificate);
            wanted.push(format!("    _25._tcp.{host}. IN TLSA {usage} 1 1 {digest}"));
        }
    }
    assert_eq!(printed, wanted, "{text}");
}

#[test]
fn danetool_makes_the_same_record() {
    let Some(danetool) = program("danetool") else {
        skip!("danetool is not installed");
    };
    let place = Place::new("check-danetool");
    let identity = Leaf::new("x").dns("mx.check.example").issue();
    let file = place.write("cert.pem", identity.certificate.to_pem().unwrap());
    let key = place.secret("key.pem", identity.key_pem());
    let setup = Setup::new(&place, &["true"]);
    let text = check(setup.pair(&file, key)).text();
    let words = [
        "--tlsa-rr",
        "--host",
        "mx.check.example",
        "--port",
        "25",
        "--proto",
        "tcp",
    ];
    let output = Command::new(danetool)
        .args(words)
        .args(["--load-certificate", &file])
        .output();
    // `_25._tcp.mx.check.example. IN TLSA ( 03 01 01 hex )`
    let said = String::from_utf8(output.unwrap().stdout).unwrap();
    let theirs: Vec<&str> = said.split_ascii_whitespace().collect();
    let [name, "IN", "TLSA", "(", "03", "01", "01", digest, ")"] = theirs[..] else {
        panic!("{said}");
    };
    let ours = format!("{name} IN TLSA 3 1 1 {digest}");
    assert!(text.lines().any(|line| line.trim() == ours), "{said}{text}");
}

/// The server's own certificate is easily taken for its authority's.
#[test]
fn anchors_that_vouch_for_nobody_are_wrong() {
    let place = Place::new("check-anchors");
    let leaf = Leaf::localhost().issue();
    let file = place.write("leaf.pem", pem(&[&leaf.certificate]));
    let folder = place.text("folder");
    fs::create_dir(&folder).unwrap();
    fs::copy(&file, format!("{folder}/leaf.pem")).unwrap();
    let setup = || Setup::new(&place, &["true"]).identity(&leaf);
    for letter in ["-m", "-z", "-Y"] {
        let checked = check(setup().option(letter).env("CAFILE", &file));
        wrong(
            &checked,
            &format!(
                "CAFILE {file}: no certificate of an authority in it (CN=localhost is none): no client certificate can verify"
            ),
        );
        let checked = check(setup().option(letter).env("CADIR", &folder));
        wrong(
            &checked,
            &format!("CADIR {folder}: no certificate of an authority in it"),
        );
    }
    content(&check(setup().env("CAFILE", &file)));
    // An authority beside it vouches, and a certificate that signed itself for itself.
    let root = &Authority::shared_root().certificate;
    let both = place.write("both.pem", pem(&[&leaf.certificate, root]));
    content(&check(setup().option("-m").env("CAFILE", both)));
    let alone = Leaf::localhost().self_signed();
    let alone = place.write("alone.pem", pem(&[&alone.certificate]));
    content(&check(setup().option("-m").env("CAFILE", alone)));
    // It is said at the start, too.
    let server = setup().option("-m").env("CAFILE", &file).start();
    server.line("warning: CAFILE ");
    server.line("no certificate of an authority in it");
}

#[test]
fn a_file_of_the_wrong_kind_is_named_with_the_setting_that_is_missing() {
    let place = Place::new("check-kinds");
    let one = Leaf::localhost().issue();
    // Keys of one kind are the same here.
    let other = Leaf::localhost().key(KeyKind::P384).issue();
    let certificate = place.write("one.pem", one.chain_pem());
    let key = place.secret("other.key", other.key_pem());
    let setup = || {
        Setup::new(&place, &["true"])
            .env("CERTFILE", &certificate)
            .unset("KEYFILE")
    };
    let no_key = |variable: &str, key: &str| {
        format!(
            "unable to load key: {variable} {certificate}: no PEM private key in it: it holds a certificate; {key} is not set"
        )
    };
    setup()
        .refused()
        .failed(111, &no_key("CERTFILE", "KEYFILE"));
    let rsa = place.write(
        "rsa.pem",
        Leaf::localhost().key(KeyKind::Rsa2048).issue().chain_pem(),
    );
    let alternative = Setup::new(&place, &["true"])
        .identity(&one)
        .env("CERTFILE_ALT", &rsa);
    let no_key = no_key("CERTFILE_ALT", "KEYFILE_ALT").replace(&*certificate, &rsa);
    alternative.refused().failed(111, &no_key);
    let unfit = format!(
        "key does not match certificate: KEYFILE {key}: it is not the key of CERTFILE {certificate}"
    );
    setup().env("KEYFILE", &key).refused().failed(111, &unfit);
    let list = Setup::new(&place, &["true"])
        .option("-m")
        .env("CRLFILE", &certificate);
    list.refused()
        .failed(111, "no PEM revocation list in it: it holds a certificate");
}

#[test]
fn a_key_that_openssl_finds_too_short_is_refused_with_the_cure() {
    need!("openssl");
    let place = Place::new("check-short");
    let both = place.text("both.pem");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:1024",
            "-nodes",
            "-subj",
            "/CN=short",
        ])
        .args(["-keyout", &both, "-out", &both])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let setup = Setup::new(&place, &["true"])
        .env("CERTFILE", &both)
        .unset("KEYFILE");
    setup.refused().failed(
        111,
        &format!("unable to load certificate: CERTFILE {both}: its key is too short for OpenSSL's security level: make one with RSA of 2048 bits or more"),
    );
}

#[test]
fn revocation_lists_that_refuse_clients_are_wrong_beforehand() {
    need!("openssl");
    let place = Place::new("check-lists");
    let authority = Authority::root("Check Root");
    let anchor = place.write("anchor.pem", authority.pem());
    let asking = |list: &[u8]| {
        let list = place.write("list.pem", list);
        let setup = Setup::new(&place, &["true"]).option("-m");
        setup.env("CAFILE", &anchor).env("CRLFILE", list)
    };
    let fresh = authority.crl_for(&place, [-1, 30]);
    let checked = check(asking(&fresh));
    content(&checked);
    let text = checked.text();
    let about = format!(
        "  CRLFILE {}: list of CN=Check Root, ",
        place.text("list.pem")
    );
    assert!(text.contains(&format!("{about}next update ")), "{text}");
    assert!(!text.contains("note: CRLFILE"), "{text}");
    // Its last quarter, of those 14 days that a certificate has.
    for (days, near) in [([-60, 13], true), ([-60, 16], false), ([-6, 3], false)] {
        let checked = check(asking(&authority.crl_for(&place, days)));
        content(&checked);
        let text = checked.text();
        let told = text.contains("note: CRLFILE ") && text.contains("Check Root expires at ");
        assert_eq!(told, near, "{days:?}: {text}");
    }
    let over = authority.crl(&place, &[], true);
    let expired = ": list of CN=Check Root expired at Jan  2 00:00:00 2020 GMT: clients of that authority are refused: put a current list there";
    wrong(&check(asking(&over)), expired);
    let early = authority.crl_for(&place, [1, 30]);
    wrong(
        &check(asking(&early)),
        "list of CN=Check Root is not valid before ",
    );
    // Nobody is refused where nobody is judged.
    content(&check(asking(&over).option("-Z")));
    let server = asking(&over).start();
    let line = server.line(expired);
    assert!(line.starts_with("sslserver: warning: CRLFILE "), "{line}");
    server.stop();
    // The current one beside it counts, but not one of another key with this name.
    content(&check(asking(&[over.clone(), fresh.clone()].concat())));
    let namesake = authority.forged_root().crl(&place, &[], false);
    wrong(&check(asking(&[over, namesake].concat())), expired);
    let other = Authority::root("Other Root").crl(&place, &[], false);
    wrong(
        &check(asking(&other)),
        ": list of CN=Other Root: its signer is not among CAFILE and CADIR: ",
    );
    content(&check(asking(&[other, fresh].concat())));
    // One who only calls himself so.
    let forged = authority.forged_root().crl(&place, &[], false);
    wrong(&check(asking(&forged)), ": its signer is not among");
}

#[test]
fn rules_that_nobody_meets_are_told() {
    let place = Place::new("check-unmet");
    let cdb = |text: &str| compile(&place, "rules.cdb", text);
    let setup = |text: &str, letters: &str| {
        let setup = Setup::new(&place, &["true"]).options("-h");
        setup.rules(&cdb(text)).options(letters)
    };
    let hosts = "=bad.example.com:deny\n=good.example.com:allow\n";
    let no_name =
        " is met by no client: -H looks up no host's name: leave it out, or go by addresses";
    let checked = check(setup(hosts, "-H"));
    wrong(&checked, &format!("rule =bad.example.com{no_name}"));
    let text = checked.text();
    assert!(
        text.contains(&format!("note: rule =good.example.com{no_name}\n")),
        "{text}"
    );
    assert!(!text.contains("by whatever name"), "{text}");
    content(&check(setup(hosts, "-p")));
    // Whoever is let in by such a rule is not, and that weakens nothing.
    content(&check(setup("=good.example.com:allow\n:deny\n", "-H")));
    let ident = "joe@1.2.3.4:deny\n:allow\n";
    let without = "rule joe@1.2.3.4 is met by no client: without -r no ident server is asked";
    wrong(&check(setup(ident, "")), without);
    content(&check(setup(ident, "-r")));
    for (text, why) in [
        (
            "=*.example.com:deny\n",
            "rule =*.example.com is met by no client (* stands for nothing here: ",
        ),
        (
            "=Bad.example.com:deny\n",
            "rule =Bad.example.com is met by no client (names are looked up in small",
        ),
        ("1.2.3:deny\n", "rule 1.2.3 is met by no client"),
        (
            "=bad.example.com.:deny\n",
            "rule =bad.example.com. is met by no client (names are looked up without a dot",
        ),
        (
            "=b\u{fc}cher.example:deny\n",
            "cher.example is met by no client (names in DNS are ASCII: write it as xn--...)",
        ),
        (
            "SNI=a.example:deny\n",
            "rule SNI=a.example is met by no client (local= and sni= are written in small",
        ),
        (
            "sni=192.0.2.1:deny\n",
            "rule sni=192.0.2.1 is met by no client (an IP address is never sent",
        ),
    ] {
        wrong(&check(setup(text, "-p")), why);
    }
    let good = "1.2.3.:deny\n10.0.0.0/8:deny\n2001:db8::1:deny\n=.a.example:deny\n\
                local=192.0.2.1:deny\nsni=*.example.com:deny\n=:deny\n:allow\n";
    content(&check(setup(good, "-p")));
    let server = setup(hosts, "-H").start();
    let line = server.line("=bad.example.com");
    assert!(line.starts_with("sslserver: warning: rule "), "{line}");
}

#[test]
fn z_without_names_is_wrong() {
    let place = Place::new("check-names");
    let anchor = place.write("ca.pem", Authority::shared_root().pem());
    let setup = |letters: &str| {
        let setup = Setup::new(&place, &["true"]).options(letters);
        setup.env("CAFILE", &anchor)
    };
    let why = "and -H looks none up: every client is refused";
    wrong(&check(setup("-zH")), why);
    content(&check(setup("-zh")));
    content(&check(setup("-mH")));
    setup("-zH").start().line(why);
}

#[test]
fn a_program_that_could_not_run_is_warned_about_at_start() {
    let place = Place::new("start-prog");
    let script = place.write("script", "#! /no/such/interpreter -x\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let why = format!(
        "unable to run {script}: its interpreter, /no/such/interpreter: no such file or directory"
    );
    wrong(&check(Setup::new(&place, &[&script])), &why);
    let server = Setup::new(&place, &[&script]).start();
    let line = server.line(&why);
    assert_eq!(line, format!("sslserver: warning: {why}"));
    // What the client meets is told in the same words.
    let _ = Dial::to(&server).blindly().attempt();
    server.line("dropping connection, pid ");
    assert_eq!(server.lines(&why, 2).len(), 2);
    let server = Setup::new(&place, &["no-such-program"]).start();
    server.line("warning: unable to run no-such-program: no such file or directory");
    let good = place.write("good", "#!/bin/sh\necho served\n");
    fs::set_permissions(&good, fs::Permissions::from_mode(0o755)).unwrap();
    content(&check(Setup::new(&place, &[&good])));
    let server = Setup::new(&place, &[&good]).start();
    assert_eq!(server.log(), "");
}

#[test]
fn a_certificate_that_is_not_for_servers_is_wrong() {
    let place = Place::new("check-purpose");
    let why = ": its extended key usage has no serverAuth, and clients refuse it";
    let setup = |identity: &Identity| Setup::new(&place, &["true"]).identity(identity);
    let clients = Leaf::localhost().purpose("1.3.6.1.5.5.7.3.2").issue();
    wrong(&check(setup(&clients)), why);
    let server = setup(&clients).start();
    let line = server.line(why);
    assert!(line.starts_with("sslserver: warning: CERTFILE "), "{line}");
    let client = Dial::to(&server).attempt();
    assert!(client.is_err(), "a client takes it");
    for good in ["1.3.6.1.5.5.7.3.1", "2.5.29.37.0"] {
        content(&check(setup(&Leaf::localhost().purpose(good).issue())));
    }
    content(&check(setup(&Leaf::localhost().issue())));
}

#[test]
fn a_certificate_whose_key_may_not_sign_is_wrong() {
    let place = Place::new("check-usage");
    let why = ": its key usage has no digitalSignature, and many clients refuse it";
    let setup = |identity: &Identity| Setup::new(&place, &["true"]).identity(identity);
    for kind in [KeyKind::P256, KeyKind::Rsa2048] {
        let leaf = |words: &'static str| Leaf::localhost().key(kind).usage(words).issue();
        let encipherment = leaf("keyEncipherment");
        wrong(&check(setup(&encipherment)), why);
        let server = setup(&encipherment).start();
        let line = server.line(why);
        assert!(line.starts_with("sslserver: warning: CERTFILE "), "{line}");
        // With RSA OpenSSL leaves the refusal to the client, and its own does not refuse.
        if kind == KeyKind::P256 {
            let dial = Dial::to(&server).version(openssl::ssl::SslVersion::TLS1_2);
            assert!(dial.attempt().is_err(), "a client of TLS 1.2 is served");
        }
        content(&check(setup(&leaf("digitalSignature,keyEncipherment"))));
    }
}

#[test]
fn server_names_that_no_certificate_bears_are_noted() {
    let place = Place::new("check-server-names");
    let named = |name: &str| Leaf::new("own").dns(name).issue();
    let write = |file: &str, identity: &Identity| {
        let all = [identity.chain_pem(), identity.key_pem()].concat();
        place.secret(file, all)
    };
    let one = write("one.pem", &named("one.example"));
    let stars = write("stars.pem", &named("*.two.example"));
    let text = format!(
        "sni=one.example:allow,CERTFILE=\"{one}\"\n\
         sni=other.example:allow,CERTFILE=\"{one}\"\n\
         sni=*.two.example:allow,CERTFILE=\"{stars}\"\n\
         sni=*.three.example:allow,CERTFILE=\"{stars}\",TLS_MIN=\"1.3\"\n\
         sni=localhost:allow,ALPN=\"x\"\n\
         sni=elsewhere.example:allow,A=\"x\"\n\
         sni=gone.example:deny\n"
    );
    let cdb = compile(&place, "rules.cdb", &text);
    let checked = check(Setup::new(&place, &["true"]).rules(&cdb));
    content(&checked);
    let text = checked.text();
    let mut noted: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("  note: no certificate here names "))
        .filter_map(|line| line.strip_suffix(": clients that check names refuse it"))
        .collect();
    noted.sort_unstable();
    assert_eq!(
        noted,
        ["*.three.example", "elsewhere.example", "other.example"],
        "{text}"
    );
}
