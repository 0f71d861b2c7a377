//! `sslclient -W`: what applies is said for each sender and behind each route, and
//! no file passes that has a wrong line.
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime};

use crate::harness::{Authority, Client, Finished, Place, compile_destinations, run};

/// A control directory, and `-W` in it.
struct Gate {
    place: Place,
}

impl Gate {
    fn new(name: &str) -> Gate {
        let place = Place::new(name);
        place.write("ca.pem", Authority::shared_root().pem());
        Gate { place }
    }

    fn control(&self, name: &str, text: &str) -> &Gate {
        let text = text.replace("CA", &self.place.text("ca.pem"));
        self.place.write(name, text);
        self
    }

    /// With these options besides, all words one after the other.
    fn ask(&self, host: &str, options: &[&str]) -> Finished {
        let mut client = Client::bare().option("-W").option("-P");
        client = client.option(&self.place.text("tlsdestinations"));
        for word in options {
            client = client.option(word);
        }
        run(&mut client.command(host, 25, &[]), b"")
    }
}

fn passed(ended: &Finished) -> String {
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{}",
        ended.text()
    );
    ended.text()
}

#[test]
fn the_line_that_applies_is_said_for_host_and_sender() {
    let gate = Gate::new("gate-lines");
    gate.control(
        "tlsdestinations",
        "# partners\n=mx.a.example:CA||;465|one.example\n~.a.example:\nmx.a.example:\n",
    );
    let ca = gate.place.text("ca.pem");
    let dead = "line 4 \"mx.a.example\" never applies: line 3 comes before it\n";
    let text = passed(&gate.ask("mx.a.example", &["-f", "a@one.example"]));
    let wanted = format!(
        "mx.a.example: line 2 \"=mx.a.example\" applies: TLS is required; the certificate must \
         verify with the CAs in {ca} and name mx.a.example exactly; port 465, TLS at once; for \
         mail of one.example\nmx.a.example: the line stands above DANE and MTA-STS: TLSA records and policies do not \
         count\n{dead}"
    );
    assert_eq!(text, wanted);
    for options in [&[][..], &["-f", ""], &["-f", "a@two.example"]] {
        let text = passed(&gate.ask("MX.a.example.", options));
        let begin = "MX.a.example.: line 3 \"~.a.example\" applies: TLS is required; ";
        assert!(text.starts_with(begin) && text.ends_with(dead), "{text}");
    }
    let text = passed(&gate.ask("c.example", &[]));
    let none = "c.example: no line applies: TLS is used if offered; no certificate is needed\n";
    assert!(text.starts_with(none), "{text}");
    let bare = || Client::bare().option("-W");
    run(&mut bare().command("h", 25, &[]), b"").failed(100, "-W needs -P");
    let path = gate.place.text("tlsdestinations");
    let file = || Client::bare().option("-P").option(&path);
    run(&mut file().command("h", 25, &[]), b"").failed(100, "too few arguments");
}

#[test]
fn every_wrong_line_is_named_and_no_such_file_passes() {
    let gate = Gate::new("gate-wrong");
    gate.place.write("empty.pem", "");
    let folder = gate.place.text("");
    for (line, said) in [
        (
            "=b.example.:CA||x",
            "the depth is not a number from 0 to 100",
        ),
        ("=b.example", "there is no colon after the key"),
        ("%b.example:=abcd", "has no known length"),
        (
            "*.b.example:",
            "the names below a domain are written .domain, not *.domain",
        ),
        ("==b.example:", "there are two signs before the host"),
        ("@b.example:", "write the name without @"),
        ("[b.example]:", "only an address may be in brackets"),
        ("b example:", "there is a blank in it"),
        ("tls://b.example:", "write the host alone"),
        (":x", "the key is empty"),
        (
            "=b.example:/nonexistent.pem",
            "cafile /nonexistent.pem: no such file",
        ),
        (
            "=b.example:/nonexistent/",
            "cafile /nonexistent: no such file",
        ),
        ("b.example:HOME/empty.pem", "empty.pem: it is empty"),
        (
            "=b.example:CA|HIGH:FOO:!BAR",
            "does not know these ciphers: FOO !BAR",
        ),
        ("=b.example:CA|FOO", "does not know these ciphers: FOO"),
        ("=b.example:|!ALL", "unable to set cipher list"),
        (
            "!b.example:dane",
            "dane needs a key under which TLS is required",
        ),
        ("*:dane", "or +* for everybody"),
        ("=b.example:||||a b", "a name of the fifth field"),
        ("-b.example:||||a", "names in the fifth field need"),
        (
            "=b.example:|||me@c.example",
            "the sender's field is not a domain",
        ),
    ] {
        let line = line.replace("HOME/", &folder);
        gate.control("tlsdestinations", &format!("=a.example:CA\n{line}\n*:\n"));
        let ended = gate.ask("a.example", &[]);
        ended.failed(111, "tlsdestinations line 2 is wrong");
        let text = ended.text();
        assert!(text.contains("a.example: line 1 "), "{line}: {text}");
        let named = text.lines().find(|said| said.starts_with("line 2 \""));
        assert!(
            named.is_some_and(|named| named.contains(said)),
            "{line}: {text}"
        );
    }
    gate.control(
        "tlsdestinations",
        "=a.example:/none\n=c.example:CA\n*.x:\n~d.example:/none\n",
    );
    let ended = gate.ask("a.example", &[]);
    let deferred = "a.example: deferred: tlsdestinations line 1: unable to load CA list: ";
    assert!(ended.text().contains(deferred), "{}", ended.text());
    let ended = gate.ask("c.example", &[]);
    ended.failed(111, "tlsdestinations lines 1, 3, 4 are wrong");
    assert_eq!(ended.text().lines().count(), 5, "{}", ended.text());
    // What decides for the host is said with it.
    let ended = gate.ask("x.example", &[]);
    ended.failed(111, "tlsdestinations line 3 \"*.x\": the key is not valid");
    assert!(
        ended.text().starts_with("x.example: deferred: "),
        "{}",
        ended.text()
    );
    // Known words, old ones and those of TLS 1.3 pass.
    for good in [
        "HIGH:!MD5:!EXPORT40:@STRENGTH",
        "TLS_AES_256_GCM_SHA384:HIGH",
        "ALL:!aNULL",
    ] {
        gate.control("tlsdestinations", &format!("=a.example:CA|{good}\n"));
        passed(&gate.ask("a.example", &[]));
    }
    std::fs::remove_file(gate.place.path("tlsdestinations")).unwrap();
    gate.ask("a.example", &[])
        .failed(111, "there is no such file");
}

#[test]
fn what_a_key_that_is_none_brings_about_is_said() {
    let gate = Gate::new("gate-keys");
    for (text, said) in [
        (
            "*.x:\n",
            "line 1 \"*.x\" is wrong: the key is not valid: the names below a domain are written \
             .domain, not *.domain; all mail that no line before it decides is deferred\n",
        ),
        (
            "-a.example:\n:\n",
            "line 2 \"\" is wrong: the key is empty; all mail that no line for a host without - \
             decides is deferred\n",
        ),
        (
            "*.x:\n!*:\n",
            "not *.domain; all mail that no line before it decides is deferred\n",
        ),
        (
            ":\n!*:\n",
            "the key is empty; it defers no mail, since line 2 \"!*\" decides before it\n",
        ),
        (
            "!*:|||one.example\n*.x:\n",
            "not *.domain; all mail that no line before it decides is deferred\n",
        ),
    ] {
        gate.control("tlsdestinations", text);
        let ended = gate.ask("a.example", &[]);
        assert_eq!(ended.code, Some(111), "{text}: {}", ended.text());
        assert!(ended.text().contains(said), "{text}: {}", ended.text());
    }
}

#[test]
fn a_line_for_another_sender_is_named() {
    let gate = Gate::new("gate-senders");
    gate.control(
        "tlsdestinations",
        "=a.example:CA|||one.example\n~.example:CA|||two.example\n=b.example:CA|||three.example\n",
    );
    let text = passed(&gate.ask("a.example", &[]));
    let lines: Vec<&str> = text.lines().collect();
    for (line, begin) in lines.iter().zip([
        "a.example: no line applies: TLS is used if offered; ",
        "a.example: with -f one.example: line 1 \"=a.example\" applies: TLS is required; ",
        "a.example: with -f two.example: line 2 \"~.example\" applies: TLS is required; ",
    ]) {
        assert!(line.starts_with(begin), "{text}");
    }
    assert_eq!(lines.len(), 3, "{text}");
    let text = passed(&gate.ask("a.example", &["-f", "me@two.example"]));
    assert!(text.starts_with("a.example: line 2 "), "{text}");
    assert!(
        text.contains("\na.example: with -f one.example: line 1 "),
        "{text}"
    );
    assert_eq!(text.lines().count(), 3, "{text}");
    // What is published counts where the line says so, or is everybody's.
    gate.control("tlsdestinations", "~a.example:dane\n+*:\n");
    let text = passed(&gate.ask("a.example", &[]));
    let wanted = "a.example: line 1 \"~a.example\" applies: TLS is required; the certificate must \
                  match a signed TLSA record of its host (DANE) and name a.example or its MX host";
    assert!(text.starts_with(wanted), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let text = passed(&gate.ask("b.example", &[]));
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn routes_beside_the_file_are_followed() {
    let gate = Gate::new("gate-routes");
    gate.control(
        "tlsdestinations",
        "~far.example:CA\n=r.test:CA||;465\n-*:\n",
    );
    gate.control(
        "smtproutes",
        "far.example:127.0.0.1:2525\nr.example:R.test;587|me|secret\n",
    );
    gate.control(
        "authsenders",
        "me@my.example:other.test|me|secret\nbad@my.example:x;y\n",
    );
    gate.control("qmtproutes", "q.example:q.test\n");
    let far = "applies: TLS is required; the certificate must verify with the CAs in";
    for (host, sender, lines) in [
        (
            "far.example",
            "",
            &[
                "far.example: smtproutes line 1 leads to 127.0.0.1 port 2525, STARTTLS",
                "far.example: line 1 \"~far.example\" applies: ",
                " and name 127.0.0.1 or far.example, wildcards allowed",
            ][..],
        ),
        (
            "r.example",
            "a@b",
            &[
                "smtproutes line 2 leads to r.test port 587, STARTTLS, with a login",
                "r.example: line 2 \"=r.test\" applies: ",
                "r.example: port 587, STARTTLS of smtproutes line 2 counts, not the line's",
            ],
        ),
        (
            "far.example",
            "me@my.example",
            &[
                "authsenders line 1 leads to other.test, with a login",
                "far.example: line 1 \"~far.example\" applies: ",
                // Who owns the domain is not who may have the password.
                " and name other.test, wildcards allowed",
            ],
        ),
        (
            "x.example",
            "me@my.example",
            &[
                "line 3 \"-*\" applies: ",
                "the login of authsenders line 1 goes to whoever",
            ],
        ),
        (
            "q.example",
            "",
            &["qmtproutes line 1 leads to q.test, by QMTP"],
        ),
        ("y.example", "", &["y.example: line 3 \"-*\" applies: "]),
    ] {
        let text = passed(&gate.ask(host, &["-f", sender]));
        for line in lines {
            assert!(text.contains(line), "{host}: {line:?} not in {text}");
        }
        assert_eq!(text.contains("leads"), host != "y.example", "{text}");
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains(far) || !text.contains("~far"), "{text}");
    }
    // qmail takes the keys of its own files as they are written.
    gate.control(
        "smtproutes",
        "far.example.:127.0.0.1\n x.example:r\n:[::1]\n[::1]:r\n",
    );
    let text = passed(&gate.ask("far.example", &[]));
    for stray in [
        "smtproutes line 1 \"far.example.\" never applies: write \"far.example\"\n",
        "smtproutes line 2 \" x.example\" never applies: write \"x.example\"\n",
    ] {
        assert!(text.contains(stray), "{text}");
    }
    assert_eq!(text.matches("never applies").count(), 2, "{text}");
    let ended = gate.ask("far.example", &["-f", "bad@my.example"]);
    ended.failed(111, "authsenders line 2 is wrong: the port is not a number");
    assert!(
        ended
            .text()
            .contains("far.example: deferred: authsenders line 2")
    );
}

#[test]
fn the_line_of_domaincerts_is_checked_too() {
    let gate = Gate::new("gate-own");
    gate.control("tlsdestinations", "*:\n");
    gate.control("domaincerts", "a.example:CA\nb.example:/none.pem\n");
    let own = gate.place.text("domaincerts");
    let ask = |sender: &str| gate.ask("h.example", &["-G", &own, "-f", sender]);
    let text = passed(&ask("x@a.example"));
    assert!(text.contains("ca.pem, domaincerts line 1\n"), "{text}");
    ask("x@b.example").failed(111, "domaincerts line 2 is wrong: ");
    // A wrong line does not pass, whosever it is.
    gate.control(
        "domaincerts",
        "a.example:CA\n@c.example:CA\n.d.example:|key\ne.example\n",
    );
    for sender in ["x@a.example", "x@z.example"] {
        let ended = ask(sender);
        for said in [
            "domaincerts line 2 \"@c.example\": the key is not valid",
            "domaincerts line 3 \".d.example\": no certificate",
            "domaincerts line 4 \"e.example\": there is no colon after the key",
        ] {
            ended.failed(111, said);
            assert!(ended.text().contains(said), "{}", ended.text());
        }
    }
    std::fs::remove_file(gate.place.path("domaincerts")).unwrap();
    ask("x@a.example").failed(111, "domaincerts: there is no such file, which -G names");
}

#[test]
fn a_compiled_form_of_another_file_does_not_pass() {
    let gate = Gate::new("gate-cdb");
    let compile = || {
        let text = String::from_utf8(gate.place.read("tlsdestinations")).unwrap();
        let ended = compile_destinations(&gate.place, &text);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    };
    gate.control("tlsdestinations", "=a.example:CA\n");
    compile();
    passed(&gate.ask("a.example", &[]));
    gate.control("tlsdestinations", "=a.example:CA\n~b.example:\n");
    // As after `cp -p`.
    let past = SystemTime::now() - Duration::from_secs(3600);
    let path = gate.place.path("tlsdestinations");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(past).unwrap();
    let ended = gate.ask("b.example", &[]);
    ended.failed(
        111,
        "tlsdestinations.cdb is used, and was made from another file",
    );
    assert!(ended.text().contains("b.example: no line applies"));
    compile();
    let text = passed(&gate.ask("b.example", &[]));
    assert!(text.starts_with("b.example: line 2 "), "{text}");
}
