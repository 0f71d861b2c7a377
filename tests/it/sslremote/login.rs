//! Logins to relays: with Exim, which checks them, and with a server that does
//! what real ones seldom do. Each row of the table in qmail-sslremote(8).
#![forbid(unsafe_code)]

use std::fs;

use openssl::ssl::SslContext;

use super::dns::Names;
use super::fake::{Fake, Running};
use super::remote::{Remote, fresh_ip};
use crate::harness::daemons::Exim;
use crate::harness::{Leaf, Place, eventually, need, need_root, peer, skip};

/// A password that a careless parser would cut.
const PASSWORD: &str = "tan|sta:af;1 #2";

fn good() -> SslContext {
    peer::context(&Leaf::new("x").address("127.0.0.1").issue(), |_| ())
}

/// Exim with one mechanism, which must be used.
fn exim(place: &Place, section: &str) -> Option<Exim> {
    let identity = Leaf::new("mx").address("127.0.0.1").issue();
    let exim = Exim::start(place, &identity, &[])?;
    let config = place.path("exim.conf");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("  accept\n", "  accept authenticated = *\n");
    let password = "tan|sta:af;1 #2";
    assert_eq!(password, PASSWORD, "it stands in the configuration below");
    fs::write(&config, format!("{text}begin authenticators\n{section}")).unwrap();
    Some(exim)
}

const PLAIN: &str = "plain:\n  driver = plaintext\n  public_name = PLAIN\n  server_prompts = :\n  \
    server_condition = ${if and{{eq{$auth1}{}}{eq{$auth2}{tim}}{eq{$auth3}{tan|sta:af;1 #2}}}}\n  \
    server_set_id = $auth2\n  server_advertise_condition = ${if def:tls_in_cipher}\n";
const LOGIN: &str = "login:\n  driver = plaintext\n  public_name = LOGIN\n  \
    server_prompts = <| Username: | Password:\n  \
    server_condition = ${if and{{eq{$auth1}{tim}}{eq{$auth2}{tan|sta:af;1 #2}}}}\n  \
    server_set_id = $auth1\n  server_advertise_condition = ${if def:tls_in_cipher}\n";
const CRAM: &str = "cram:\n  driver = cram_md5\n  public_name = CRAM-MD5\n  \
    server_secret = ${if eq{$auth1}{tim}{tan|sta:af;1 #2}fail}\n  server_set_id = $auth1\n";

#[test]
fn exim_takes_each_mechanism_and_refuses_a_wrong_password() {
    need_root!();
    let rule = "=[127.0.0.1]:CA\n";
    for (section, sign, policy, logged) in [
        (PLAIN, "", rule, "A=plain:tim"),
        (LOGIN, "", rule, "A=login:tim"),
        (CRAM, "", rule, "A=cram:tim"),
        // A rule that requires nothing: the login does.
        (PLAIN, "", "", "A=plain:tim"),
        (CRAM, "!", "!*:\n", "A=cram:tim"),
    ] {
        let place = Place::new("remote-login");
        let Some(exim) = exim(&place, section) else {
            skip!("exim4 is not installed");
        };
        let port = exim.at.port();
        let send = |password: &str| {
            let line = format!("@sender.example:{sign}[127.0.0.1];{port}|tim|{password}\n");
            let remote = Remote::new(&place)
                .control("authsenders", &line)
                .control("smtproutes", ":[127.0.0.1]:1\n")
                .policy(policy);
            remote.send("far.example")
        };
        let report = send("wrong");
        assert_eq!(
            report,
            format!(
                "ZConnected to 127.0.0.1 but it refused the login of authsenders line 1 \
                 (AUTH {}). (#4.7.8)\nRemote host said: 535\n",
                if section == PLAIN {
                    "PLAIN"
                } else if section == LOGIN {
                    "LOGIN"
                } else {
                    "CRAM-MD5"
                }
            )
        );
        let report = send(PASSWORD);
        assert!(
            report.starts_with("K127.0.0.1 accepted message ("),
            "{report}"
        );
        assert_eq!(report.contains("(TLSv1.3 "), sign.is_empty(), "{report}");
        eventually("exim's log names the user", || {
            exim.log().contains(logged).then_some(())
        });
        eventually("the mail is there", || {
            let count = fs::read_dir(place.path("mail")).unwrap().count();
            (count == 1).then_some(())
        });
    }
}

/// TLS, and these mechanisms inside.
fn offering(list: &str) -> Fake {
    let lines = format!("250-fake\r\n250-STARTTLS\r\n{list}250 HELP\r\n");
    Fake::tls(good()).offers(&lines)
}

fn in_clear(list: &str) -> Fake {
    Fake::plain().offers(&format!("250-fake\r\n{list}250 HELP\r\n"))
}

/// Through a route with a login.
fn deliver(place: &Place, fake: Fake, sign: &str, policy: &str) -> (String, Running) {
    let running = fake.listen("127.0.0.1:0".parse().unwrap());
    let port = running.at.port();
    let route = format!("far.example:{sign}[127.0.0.1];{port}|tim|tanstaaf\n");
    let remote = Remote::new(place)
        .control("smtproutes", &route)
        .policy(policy);
    (remote.send("far.example"), running)
}

const ALL: &str = "250-AUTH PLAIN LOGIN CRAM-MD5\r\n";
/// `\0tim\0tanstaaf`.
const TOKEN: &str = "AHRpbQB0YW5zdGFhZg==";

#[test]
fn a_login_that_fails_is_tried_again_later_and_shows_no_secret() {
    let place = Place::new("remote-login-fails");
    for (fake, sign, policy, said) in [
        // No TLS: the login stays here.
        (
            in_clear(ALL),
            "",
            "",
            "it does not offer STARTTLS; the login of smtproutes line 1 requires TLS. (#4.7.5)\n",
        ),
        (
            offering(ALL).reply("STARTTLS", "454 later\r\n"),
            "",
            "*:\n",
            "it refused STARTTLS; the login of smtproutes line 1 requires TLS. (#4.7.5)\n",
        ),
        (
            Fake {
                context: None,
                ..offering(ALL)
            },
            "",
            "*:\n",
            "; the login of smtproutes line 1 requires TLS. (#4.7.5)\n",
        ),
        (
            in_clear(ALL),
            "",
            "!*:\n",
            "smtproutes line 1 has a login, which is not sent without TLS, and tlsdestinations \
             line 1 forbids TLS. (#4.7.5)\n",
        ),
        (
            in_clear("250-AUTH PLAIN LOGIN\r\n"),
            "!",
            "",
            "it does not offer AUTH CRAM-MD5, for the login of smtproutes line 1; no other \
             mechanism is used without TLS. (#4.7.0)\n",
        ),
        // TLS, and nothing in common.
        (
            offering(""),
            "",
            "",
            "it does not offer AUTH, for the login of smtproutes line 1. (#4.7.0)\n",
        ),
        (
            offering("250-AUTH GSSAPI NTLM\r\n"),
            "",
            "",
            "it offers neither AUTH PLAIN nor LOGIN nor CRAM-MD5, for the login of smtproutes \
             line 1. (#4.7.0)\n",
        ),
        // Refused, for now or for good.
        (
            offering(ALL).reply("AUTH", "535 5.7.8 tim tanstaaf AHRpbQB0YW5zdGFhZg== no\r\n"),
            "",
            "",
            "it refused the login of smtproutes line 1 (AUTH PLAIN). (#4.7.8)\n\
             Remote host said: 535 5.7.8\n",
        ),
        (
            offering(ALL).reply("AUTH", "454 4.7.0 later\r\n"),
            "",
            "",
            "(AUTH PLAIN). (#4.7.8)\nRemote host said: 454 4.7.0\n",
        ),
        (
            offering("250-AUTH LOGIN\r\n").reply("AUTH", "534 too weak\r\n"),
            "",
            "",
            "(AUTH LOGIN). (#4.7.8)\nRemote host said: 534\n",
        ),
        (
            offering("250-AUTH LOGIN\r\n").reply("AUTH", "334 VXNlcm5hbWU6\r\n"),
            "",
            "",
            "(AUTH LOGIN). (#4.7.8)\nRemote host said: 250\n",
        ),
        // What makes no sense.
        (
            offering(ALL).reply("AUTH", "334 \r\n"),
            "",
            "",
            "AUTH PLAIN failed with the login of smtproutes line 1. (#4.7.8)\n\
             Reason: it asks for more steps than the mechanism has\n",
        ),
        (
            offering("250-AUTH CRAM-MD5\r\n").reply("AUTH", "334 no base64!\r\n"),
            "",
            "",
            "AUTH CRAM-MD5 failed with the login of smtproutes line 1. (#4.7.8)\n\
             Reason: its challenge is not base64\n",
        ),
        (
            offering(ALL).reply("AUTH", "hello\r\n"),
            "",
            "",
            "it does not talk SMTP. (#4.5.0)\n",
        ),
        (
            offering(ALL).reply("AUTH", ""),
            "",
            "",
            "connection died. (#4.4.2)\nReason: server ended the connection after AUTH\n",
        ),
    ] {
        let (report, running) = deliver(&place, fake, sign, policy);
        assert!(report.starts_with('Z'), "{said}: {report}");
        assert!(report.contains(said), "{said}: {report}");
        for secret in ["tim", "tanstaaf", TOKEN, "dGlt"] {
            assert!(!report.contains(secret), "{said}: {report}");
        }
        for seen in running.seen() {
            let commands = seen.commands.join("\n");
            assert!(!commands.contains("MAIL"), "{said}: {commands}");
            for line in seen.commands.iter().filter(|line| line.contains("AUTH")) {
                assert!(line.starts_with("S: "), "{said}: in the clear: {line}");
            }
        }
    }
}

#[test]
fn a_login_goes_where_and_how_the_route_says() {
    let place = Place::new("remote-login-goes");
    let ok = |fake: Fake| fake.reply("AUTH", "235 ok\r\n");
    let (report, running) = deliver(&place, ok(offering(ALL)), "", "=[127.0.0.1]:CA\n");
    assert!(report.starts_with("K127.0.0.1 accepted"), "{report}");
    let commands = running.only().commands;
    assert_eq!(commands[3], format!("S: AUTH PLAIN {TOKEN}"));
    assert!(commands[4].starts_with("S: MAIL "), "{commands:?}");
    // With `!` TLS is still taken where it is to be had.
    let (report, running) = deliver(&place, ok(offering(ALL)), "!", "");
    assert!(
        report.starts_with("K127.0.0.1 accepted message (TLSv1.3"),
        "{report}"
    );
    assert_eq!(running.only().commands[3], format!("S: AUTH PLAIN {TOKEN}"));
    // In the clear the digest goes, and the password stays.
    let fake = in_clear(ALL).reply("AUTH", "334 eA==\r\n");
    let (_, running) = deliver(&place, fake, "!", "");
    let commands = running.only().commands;
    assert_eq!(commands[1], "AUTH CRAM-MD5");
    let decoded = openssl::base64::decode_block(&commands[2]).unwrap();
    let decoded = String::from_utf8(decoded).unwrap();
    let digest = decoded.strip_prefix("tim ").expect("the user");
    assert!(digest.len() == 32 && digest.bytes().all(|b| b.is_ascii_hexdigit()));
    // Mail for others takes another way, and no login.
    let running = in_clear(ALL).listen("127.0.0.1:0".parse().unwrap());
    let port = running.at.port();
    let route = format!("far.example:[127.0.0.1];1|tim|tanstaaf\n:[127.0.0.1]:{port}\n");
    let remote = Remote::new(&place).control("smtproutes", &route).policy("");
    assert!(remote.send("other.example").starts_with('K'));
    let commands = running.only().commands.join("\n");
    assert!(!commands.contains("AUTH"), "{commands}");
}

#[test]
fn a_mechanism_that_is_refused_makes_room_for_the_next() {
    let place = Place::new("remote-login-next");
    let plain = format!("AUTH PLAIN {TOKEN}");
    let refused = |list: &str, reply: &str| {
        let fake = offering(list);
        let mut fake = fake.reply("AUTH LOGIN", "334 VXNlcm5hbWU6\r\n");
        fake.replies.insert("AUTH", reply.to_owned());
        fake.reply("DGLT", "334 UGFzc3dvcmQ6\r\n")
            .reply("DGFUC3RHYWY=", "235 ok\r\n")
    };
    for reply in ["504 5.5.4 what\r\n", "504 what\r\n", "501 5.5.4 no\r\n"] {
        let fake = refused(ALL, reply);
        let (report, running) = deliver(&place, fake, "", "=[127.0.0.1]:CA\n");
        assert!(report.starts_with("K127.0.0.1 accepted"), "{report}");
        let commands = running.only().commands;
        assert_eq!(commands[3], format!("S: {plain}"));
        assert_eq!(commands[4], "S: AUTH LOGIN");
    }
    // None is left.
    let fake = offering(ALL).reply("AUTH", "504 5.5.4 what\r\n");
    let (report, running) = deliver(&place, fake, "", "=[127.0.0.1]:CA\n");
    let said = "ZConnected to 127.0.0.1 but it refused the login of smtproutes line 1 (AUTH CRAM-MD5). (#4.7.8)\nRemote host said: 504 5.5.4\n";
    assert_eq!(report, said);
    let commands = running.only().commands;
    let tried = commands.iter().filter(|line| line.contains("AUTH")).count();
    assert_eq!(tried, 3, "{commands:?}");
    // A refused login is not tried in another way, and 421 ends the talk.
    for (reply, last) in [
        ("535 5.7.8 no\r\n", "S: QUIT"),
        ("421 bye\r\n", &format!("S: {plain}")),
    ] {
        let fake = offering(ALL).reply("AUTH", reply);
        let (report, running) = deliver(&place, fake, "", "=[127.0.0.1]:CA\n");
        assert!(report.starts_with('Z'), "{report}");
        let code = reply
            .trim_end()
            .trim_end_matches(" no")
            .trim_end_matches(" bye");
        assert!(
            report.ends_with(&format!("Remote host said: {code}\n")),
            "{report}"
        );
        let commands = running.ended().commands;
        assert_eq!(commands.last().unwrap(), last);
        let tried = commands.iter().filter(|line| line.contains("AUTH")).count();
        assert_eq!(tried, 1, "{commands:?}");
    }
    // In the clear nothing but CRAM-MD5 is tried, whatever is refused.
    let fake = in_clear(ALL).reply("AUTH", "504 what\r\n");
    let (report, running) = deliver(&place, fake, "!", "");
    assert!(report.contains("(AUTH CRAM-MD5). (#4.7.8)"), "{report}");
    let commands = running.ended().commands;
    assert_eq!(commands[1..], ["AUTH CRAM-MD5", "QUIT"]);
}

#[test]
fn lines_that_are_wrong_decide_nothing_but_a_delay() {
    let place = Place::new("remote-login-lines");
    for (file, line, said) in [
        (
            "smtproutes",
            ":[127.0.0.1]|tim\n",
            "smtproutes line 1 is wrong: a login needs a user and a password",
        ),
        (
            "smtproutes",
            ":|tim|tanstaaf\n",
            "smtproutes line 1 is wrong: there is a login but no relay",
        ),
        (
            "authsenders",
            "# c\n:x;99999|tim|tanstaaf\n",
            "authsenders line 2 is wrong: the port is not a number from 1 to 65535, with s before \
             it or not (an IPv6 address needs brackets)",
        ),
        (
            "qmtproutes",
            ":[127.0.0.1]|tim|tanstaaf\n",
            "qmtproutes line 1 is wrong: QMTP has no login",
        ),
    ] {
        let bare = Place::new("remote-login-line");
        let report = Remote::new(&bare).control(file, line).send("x");
        let wanted = format!("ZUnable to read control files. (#4.3.0)\nReason: {said}\n");
        assert_eq!(report, wanted, "{line}");
    }
    // What is wrong for others is no trouble.
    let running = Fake::plain().listen("127.0.0.1:0".parse().unwrap());
    let route = format!("x.example:y;z\n:[127.0.0.1]:{}\n", running.at.port());
    let remote = Remote::new(&place).control("smtproutes", &route);
    assert!(remote.send("far.example").starts_with('K'));
}

#[test]
fn a_refused_login_is_not_tried_at_the_next_address() {
    need_root!();
    need!("nsd");
    let place = Place::new("remote-login-once");
    let (one, two) = (fresh_ip(), fresh_ip());
    let zone = format!("relay IN A {one}\nrelay IN A {two}");
    let names = Names::serve(&place, &zone);
    let fake = offering(ALL).reply("AUTH", "535 no\r\n");
    let running = [fake.clone().at(one), fake.at(two)];
    let remote = Remote::new(&place)
        .dns(names.ip)
        .control("smtproutes", ":relay.test|tim|tanstaaf\n")
        .policy("");
    let report = remote.send("far.example");
    assert!(report.contains("(#4.7.8)"), "{report}");
    let tries: usize = running.iter().map(|one| one.seen().len()).sum();
    assert_eq!(tries, 1);
}
