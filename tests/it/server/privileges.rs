//! Users, groups and roots: who runs the program and who reads the network.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::harness::overlay::{self, AS_NOBODY, with_tester};
use crate::harness::process::{process, status_field, without_filters};
use crate::harness::{
    Client, Dial, Place, Server, Setup, Tls, compile, eventually, need, need_root, run, skip,
};

/// The program of most tests here: its own /proc/self/status.
const STATUS: [&str; 2] = ["/bin/cat", "/proc/self/status"];

fn status(server: &Server) -> String {
    Dial::to(server).connect().text()
}

/// All four numbers of a line in /proc/PID/status.
fn four(number: u32) -> String {
    [number.to_string().as_str(); 4].join(" ")
}

const NONE: &str = "0000000000000000";

#[test]
fn u_gives_a_user_with_all_its_groups() {
    need_root!();
    need!("unshare");
    let place = Place::new("user");
    if !overlay::possible(&place) {
        skip!("no mount namespace can be made");
    }
    let server = Setup::new(&place, &STATUS)
        .options("-u tester")
        .through(with_tester(&place))
        .start();
    let text = status(&server);
    assert_eq!(status_field(&text, "Uid"), four(4000));
    assert_eq!(status_field(&text, "Gid"), four(4000));
    assert_eq!(status_field(&text, "Groups"), "4000 4001 4002");
    assert_eq!(status_field(&text, "CapEff"), NONE);
    assert_eq!(status_field(&text, "CapPrm"), NONE);
    // Another main group; the supplementary ones stay the user's.
    let server = Setup::new(&place, &STATUS)
        .options("-u tester -g unrelated")
        .through(with_tester(&place))
        .start();
    let text = status(&server);
    assert_eq!(status_field(&text, "Uid"), four(4000));
    assert_eq!(status_field(&text, "Gid"), four(4003));
    let groups = status_field(&text, "Groups");
    assert!(
        groups.contains("4001 4002") && !groups.split(' ').any(|one| one == "0"),
        "{groups}"
    );
}

#[test]
fn bare_numbers_have_no_supplementary_groups() {
    need_root!();
    let place = Place::new("numbers");
    let wanted = |server: &Server| {
        let text = status(server);
        assert_eq!(status_field(&text, "Uid"), four(4711));
        assert_eq!(status_field(&text, "Gid"), four(4712));
        let groups = status_field(&text, "Groups");
        assert!(groups.is_empty() || groups == "4712", "{groups}");
        assert_eq!(status_field(&text, "CapEff"), NONE);
    };
    wanted(
        &Setup::new(&place, &STATUS)
            .options("-u 4711 -g 4712")
            .start(),
    );
    wanted(
        &Setup::new(&place, &STATUS)
            .options("-g 4712 -u 4711")
            .start(),
    );
    wanted(
        &Setup::new(&place, &STATUS)
            .options("-U")
            .env("UID", "4711")
            .env("GID", "4712")
            .start(),
    );
    // The last letter decides.
    for (options, user) in [("-U -u 4711", 4711), ("-u 4711 -U", 4713)] {
        let setup = Setup::new(&place, &STATUS).options(options);
        let text = status(&setup.env("UID", "4713").env("GID", "4712").start());
        assert_eq!(status_field(&text, "Uid"), four(user), "{options}");
        assert_eq!(status_field(&text, "Gid"), four(4712), "{options}");
    }
    // The group alone leaves root, in that group only.
    let text = status(&Setup::new(&place, &STATUS).options("-g 4712").start());
    assert_eq!(status_field(&text, "Gid"), four(4712));
    assert_eq!(status_field(&text, "Uid"), four(0));
}

#[test]
fn without_u_the_program_keeps_the_user() {
    let place = Place::new("same-user");
    let own = nix::unistd::geteuid().as_raw();
    let text = status(&Setup::new(&place, &STATUS).start());
    assert_eq!(status_field(&text, "Uid"), four(own));
}

/// A connection in progress, and the pids that serve it besides the program's.
fn engines(server: &Server) -> (Tls, Vec<i32>) {
    let mut client = Dial::to(server).connect();
    client.send("x");
    assert_eq!(client.read_exact(1), b"x");
    let ok = server.line("sslserver: ok ");
    let program: i32 = ok.split(' ').nth(2).unwrap().parse().unwrap();
    let engines = eventually("an engine beside the program", || {
        let mut pids: Vec<_> = server.busy().iter().map(|one| one.pid).collect();
        pids.retain(|pid| *pid != program);
        (!pids.is_empty()).then_some(pids)
    });
    (client, engines)
}

/// Fails unless the process is that user for good, in no group but its own.
fn powerless(pid: i32, uid: u32, gid: u32) {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert_eq!(status_field(&text, "Uid"), four(uid));
    assert_eq!(status_field(&text, "Gid"), four(gid));
    let groups = status_field(&text, "Groups");
    assert!(groups.is_empty() || groups == gid.to_string(), "{groups}");
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(status_field(&text, set), NONE, "{set}");
    }
}

#[test]
fn each_engine_is_a_user_of_its_own_by_default() {
    need_root!();
    let place = Place::new("engine-default");
    for letters in ["-v", "-v -u 4711 -g 4712"] {
        let server = Setup::new(&place, &["cat"]).options(letters).start();
        let (client, engines) = engines(&server);
        assert_eq!(engines.len(), 1, "one engine: {:?}", server.busy());
        let own = 0x7080_0000 + engines[0].cast_unsigned();
        powerless(engines[0], own, own);
        let name = fs::read_to_string(format!("/proc/{}/comm", engines[0])).unwrap();
        assert_eq!(name, "engine\n");
        // Its parent is the supervisor, not the program.
        assert_eq!(
            process(engines[0]).unwrap().parent,
            server.pid().cast_signed()
        );
        drop(client);
        server.quiet();
    }
}

#[test]
fn the_engine_has_a_user_and_a_root_of_its_own() {
    need_root!();
    let place = Place::new("engine-jail");
    let jail = place.path("jail");
    fs::create_dir(&jail).unwrap();
    let jail = fs::canonicalize(jail).unwrap();
    let daemon = nix::unistd::User::from_name("daemon").unwrap().unwrap();
    let (uid, gid) = (daemon.uid.as_raw(), daemon.gid.as_raw());
    for (user, group, names, (uid, gid)) in [
        ("SSL_UID", "SSL_GID", ("4713", "4714"), (4713, 4714)),
        ("SSL_USER", "SSL_GROUP", ("daemon", "daemon"), (uid, gid)),
        ("SSL_UID", "SSL_GID", ("daemon", "4714"), (uid, 4714)),
    ] {
        let server = Setup::new(&place, &["cat"])
            .options("-v")
            .env("SSL_CHROOT", &jail)
            .env(user, names.0)
            .env(group, names.1)
            .start();
        let (mut client, engines) = engines(&server);
        for pid in engines {
            powerless(pid, uid, gid);
            for link in ["root", "cwd"] {
                let seen = fs::read_link(format!("/proc/{pid}/{link}")).unwrap();
                assert_eq!(seen, jail, "{link}");
            }
        }
        // The program runs outside.
        let ok = server.line("sslserver: ok ");
        let program = ok.split(' ').nth(2).unwrap();
        let seen = fs::read_link(format!("/proc/{program}/root")).unwrap();
        assert_eq!(seen.to_str(), Some("/"));
        client.half_close();
        assert_eq!(client.text(), "");
        server.quiet();
    }
}

#[test]
fn no_engine_runs_as_root() {
    need_root!();
    let place = Place::new("engine-root");
    for (variables, said) in [
        (
            &[("SSL_UID", "0")][..],
            "SSL_UID: \"0\": a TLS process never runs as root",
        ),
        (
            &[("SSL_USER", "root")],
            "SSL_USER: \"root\": a TLS process never runs as root",
        ),
        (
            &[("SSL_GID", "0")],
            "SSL_GID: \"0\": a TLS process never runs in group 0",
        ),
        (
            &[("SSL_GROUP", "root")],
            "SSL_GROUP: \"root\": a TLS process never runs in group 0",
        ),
        (
            &[("SSL_UID", "4713"), ("SSL_GID", "root")],
            "SSL_GID: \"root\": a TLS process never runs in group 0",
        ),
    ] {
        for letters in ["", "-k"] {
            let mut setup = Setup::new(&place, &["cat"]).options(letters);
            for (name, value) in variables {
                setup = setup.env(name, *value);
            }
            setup
                .refused()
                .failed(111, &format!("sslserver: fatal: unable to use {said}"));
        }
    }
    // A user that the system does not know is in no group of root's either.
    let server = Setup::new(&place, &["cat"])
        .options("-v")
        .env("SSL_UID", "4715")
        .start();
    let (_client, engines) = engines(&server);
    powerless(engines[0], 4715, 4715);
    // A group alone leaves the user as it is by default.
    let server = Setup::new(&place, &["cat"])
        .options("-v")
        .env("SSL_GID", "4716")
        .start();
    let (_client, engines) = self::engines(&server);
    powerless(engines[0], 0x7080_0000 + engines[0].cast_unsigned(), 4716);
}

#[test]
fn the_root_of_engines_is_a_directory_that_keeps_something_away() {
    let place = Place::new("bad-jails");
    let jail = place.text("jail");
    fs::create_dir(&jail).unwrap();
    let mode = |mode| fs::set_permissions(&jail, fs::Permissions::from_mode(mode)).unwrap();
    std::os::unix::fs::symlink(&jail, place.path("link")).unwrap();
    mode(0o755);
    let refused = |root: &str, why: &str| {
        let ended = Setup::new(&place, &["cat"])
            .env("SSL_CHROOT", root)
            .refused();
        let said = format!("sslserver: fatal: unable to use SSL_CHROOT: {root}: {why}");
        ended.failed(111, &said);
    };
    refused("/", "the whole file system");
    refused("//", "the whole file system");
    refused("/./", "the whole file system");
    refused(
        &format!("{jail}/../../../../../../../.."),
        "a path with \"..\" in it",
    );
    refused(".", "not an absolute path");
    refused("var/empty", "not an absolute path");
    refused(&place.text("missing"), "no such file or directory");
    refused(&place.write("file", ""), "not a directory");
    refused(
        &place.text("link"),
        "a symbolic link; name the directory itself",
    );
    refused(
        &place.text("link/"),
        "a symbolic link; name the directory itself",
    );
    for (bits, shown) in [(0o775, "0775"), (0o757, "0757"), (0o1777, "1777")] {
        mode(bits);
        let why = format!("others than its owner may write to it (mode {shown}); chmod go-w it");
        refused(&jail, &why);
    }
    mode(0o555);
    for root in [jail.clone(), format!("{jail}/")] {
        let server = Setup::new(&place, &["echo", "served"])
            .env("SSL_CHROOT", root)
            .start();
        assert_eq!(Dial::to(&server).connect().text(), "served\n");
    }
}

#[test]
fn the_program_s_user_is_not_the_engines() {
    need_root!();
    let place = Place::new("same-user-engines");
    let setup = |sandbox: &str| {
        Setup::new(&place, &["echo", "served"])
            .options("-u 4717 -g 4718")
            .env("SSL_UID", "4717")
            .env("SSL_SANDBOX", sandbox)
    };
    let server = setup("").start();
    assert_eq!(status(&server), "served\n");
    let line = server.line("TLS processes run as user 4717, as -u has the program run");
    assert!(line.starts_with("sslserver: warning: "), "{line}");
    setup("require").refused().failed(
        111,
        "unable to use SSL_SANDBOX: \"require\": TLS processes run as user 4717, as -u",
    );
}

#[test]
fn a_root_without_capabilities_is_told_at_the_start() {
    need_root!();
    need!("setpriv");
    let place = Place::new("no-capabilities");
    let jail = place.text("jail");
    fs::create_dir(&jail).unwrap();
    fs::set_permissions(&jail, fs::Permissions::from_mode(0o755)).unwrap();
    for (lacks, said) in [
        (
            "-setuid",
            "unable to change user: operation not permitted: root lacks a capability",
        ),
        (
            "-setgid",
            "unable to change user: operation not permitted: root lacks a capability",
        ),
        (
            "-sys_chroot",
            "unable to use SSL_CHROOT: operation not permitted: root lacks a",
        ),
    ] {
        for letters in ["", "-k", "-u 4711"] {
            let words = ["setpriv", "--bounding-set", lacks, "--inh-caps", lacks];
            let ended = Setup::new(&place, &["cat"])
                .options(letters)
                .env("SSL_CHROOT", &jail)
                .through(words)
                .refused();
            assert_eq!(ended.code, Some(111), "{lacks} {letters}: {}", ended.stderr);
            let line = ended.stderr.lines().last().unwrap_or_default();
            assert!(line.starts_with("sslserver: fatal: unable to "), "{line}");
            assert!(
                line.contains("CAP_SETUID, CAP_SETGID and CAP_SYS_CHROOT"),
                "{line}"
            );
            if letters != "-u 4711" {
                assert!(line.contains(said), "{line}");
            }
        }
    }
    // What is not asked for needs no capability.
    let server = Setup::new(&place, &["echo", "served"])
        .through(["setpriv", "--bounding-set", "-sys_chroot"])
        .start();
    assert_eq!(status(&server), "served\n");
}

#[test]
fn the_root_of_a_namespace_with_one_user_serves_as_an_ordinary_user() {
    need_root!();
    need!("unshare");
    let place = Place::new("one-user");
    let words = ["unshare", "--user", "--map-root-user"];
    let possible = run(Command::new(words[0]).args(&words[1..]).arg("true"), b"");
    if possible.code != Some(0) {
        skip!("no user namespace can be made");
    }
    let server = Setup::new(&place, &["cat"])
        .options("-v")
        .through(words)
        .start();
    server.line("TLS processes run without a user of their own (this container has one)");
    let (mut client, engines) = engines(&server);
    let text = fs::read_to_string(format!("/proc/{}/status", engines[0])).unwrap();
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status_field(&text, set), NONE, "{set}");
    }
    client.half_close();
    assert_eq!(client.text(), "");
    server.quiet();
    // What was asked for by name and cannot be had is fatal.
    for (variable, value) in [("SSL_UID", "4711"), ("SSL_GID", "4711")] {
        Setup::new(&place, &["cat"])
            .env(variable, value)
            .through(words)
            .refused()
            .failed(111, "sslserver: fatal: unable to change user: ");
    }
    Setup::new(&place, &["cat"])
        .options("-u 4711")
        .through(words)
        .refused()
        .failed(111, "sslserver: fatal: unable to use -u and -g: ");
}

/// The words before a server that an ordinary user starts: none where that user
/// runs the tests. `None`: root runs them, and nobody cannot reach the program.
fn as_ordinary_user() -> Option<&'static [&'static str]> {
    if !crate::harness::root() {
        return Some(&[]);
    }
    overlay::reachable().then_some(&AS_NOBODY)
}

#[test]
fn an_ordinary_user_is_told_what_it_lacks_without_asking() {
    let place = Place::new("told");
    let Some(before) = as_ordinary_user() else {
        skip!("the user nobody cannot reach the program");
    };
    let server = Setup::new(&place, &["echo", "served"])
        .through(before)
        .start();
    assert_eq!(status(&server), "served\n");
    for who in ["TLS processes run", "the keyholder runs"] {
        let said = format!("sslserver: {who} without ");
        let line = server.line(&said);
        assert!(line.contains("(not started as root)"), "{line}");
        assert_eq!(server.log().matches(&said).count(), 1);
    }
    // Who demands protection by name is not served without.
    let jail = place.text("jail");
    fs::create_dir(&jail).unwrap();
    fs::set_permissions(&jail, fs::Permissions::from_mode(0o755)).unwrap();
    Setup::new(&place, &["cat"])
        .env("SSL_CHROOT", &jail)
        .env("SSL_SANDBOX", "require")
        .through(before)
        .refused()
        .failed(
            111,
            "SSL_SANDBOX is \"require\"; start sslserver as root, or unset them",
        );
}

#[test]
fn the_program_stays_in_the_directory_of_the_server() {
    let place = Place::new("directory");
    let folder = place.text("here");
    fs::create_dir(&folder).unwrap();
    let words = ["/bin/sh", "-c", "cd \"$0\" && exec \"$@\"", &folder];
    let mut setup = Setup::new(&place, &["/bin/pwd"]).through(words);
    if crate::harness::root() {
        fs::create_dir(place.path("jail")).unwrap();
        setup = setup.env("SSL_CHROOT", place.path("jail"));
    }
    let server = setup.start();
    assert_eq!(
        Dial::to(&server).connect().text().trim_end(),
        fs::canonicalize(&folder).unwrap().to_str().unwrap()
    );
}

#[test]
fn an_ordinary_user_needs_no_root() {
    let place = Place::new("ordinary");
    let Some(before) = as_ordinary_user() else {
        skip!("the user nobody cannot reach the program");
    };
    let server = Setup::new(&place, &["cat"])
        .options("-v")
        .through(before)
        .start();
    let (mut client, engines) = engines(&server);
    let text = fs::read_to_string(format!("/proc/{}/status", engines[0])).unwrap();
    assert_eq!(status_field(&text, "CapEff"), NONE);
    client.half_close();
    assert_eq!(client.text(), "");
    server.quiet();
    assert!(
        !server.log().contains("warning"),
        "nothing was asked for: {}",
        server.log()
    );
    // A root that it cannot have is warned about, once.
    let jail = place.text("jail");
    fs::create_dir(&jail).unwrap();
    let server = Setup::new(&place, &["echo", "served"])
        .env("SSL_CHROOT", &jail)
        .through(before)
        .start();
    for _ in 0..2 {
        assert_eq!(status(&server), "served\n");
    }
    server.quiet();
    let log = server.log();
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("SSL_CHROOT"))
        .collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].starts_with("sslserver: warning: "), "{log}");
    // So is another user that it cannot become.
    if crate::harness::root() {
        let server = Setup::new(&place, &["id", "-u"])
            .options("-u 4711")
            .through(before)
            .start();
        assert_eq!(status(&server), "65534\n");
        assert!(server.line("sslserver: warning: ").contains("-u"));
    }
}

#[test]
fn a_server_told_to_require_the_filter_refuses_to_start_without() {
    let place = Place::new("required-filter");
    let setup = |value: &str| {
        Setup::new(&place, &["echo", "served"])
            .options("-v")
            .env("SSL_SANDBOX", value)
    };
    let ended = without_filters(|| setup("require").refused());
    ended.failed(
        111,
        "sslserver: fatal: unable to use SSL_SANDBOX: \"require\": this system lacks ",
    );
    assert!(
        ended.stderr.contains("the filter of system calls ("),
        "{}",
        ended.stderr
    );
    assert!(ended.stdout.is_empty(), "no port is told");
    // Where it is only wanted, the server says what it lacks, and serves.
    for value in ["", "0"] {
        let server = without_filters(|| setup(value).start());
        assert_eq!(Dial::to(&server).connect().text(), "served\n");
        let line = server.line("sslserver: TLS processes run without ");
        assert!(line.contains("the filter of system calls ("), "{line}");
        server.quiet();
    }
    // Where it can be had, it is taken on.
    let server = Setup::new(&place, &["cat"])
        .options("-v")
        .env("SSL_SANDBOX", "require")
        .start();
    let (_client, engines) = engines(&server);
    let text = fs::read_to_string(format!("/proc/{}/status", engines[0])).unwrap();
    assert_eq!(status_field(&text, "Seccomp"), "2");
    assert!(
        !server.log().contains("the filter of system calls"),
        "{}",
        server.log()
    );
}

#[test]
fn a_rule_that_requires_the_filter_serves_nobody_without() {
    let place = Place::new("required-by-rule");
    let made = compile(&place, "rules.cdb", ":allow,SSL_SANDBOX=\"require\"\n");
    let setup = Setup::new(&place, &["echo", "served"]).rules(&made);
    let server = setup.start();
    assert_eq!(Dial::to(&server).connect().text(), "served\n");
    drop(server);
    let server = without_filters(|| setup.start());
    let warning = server.line("sslserver: warning: ");
    assert!(
        warning.contains("unable to use SSL_SANDBOX: \"require\": this system lacks "),
        "{warning}"
    );
    assert!(Dial::to(&server).attempt().is_err());
    server.quiet();
}

#[test]
fn a_client_told_to_require_the_filter_runs_no_program_without() {
    let place = Place::new("client-filter");
    let server = Setup::new(&place, &["echo", "served"]).start();
    let client = |value: &str| {
        Client::new(&place)
            .options("-v")
            .env("SSL_SANDBOX", value)
            .read(&server)
    };
    let started = place.text("started");
    for (value, said) in [
        ("require", "this system lacks "),
        ("required", "not one of 0, 1, require"),
    ] {
        let ended = without_filters(|| {
            Client::new(&place).env("SSL_SANDBOX", value).run(
                "localhost",
                server.port,
                &["touch", &started],
            )
        });
        let fatal = format!("sslclient: fatal: unable to use SSL_SANDBOX: \"{value}\": {said}");
        ended.failed(111, &fatal);
        // Whoever held its output has ended: a program would be done by now.
        assert!(!fs::exists(&started).unwrap());
    }
    let ended = without_filters(|| client(""));
    assert_eq!(ended.text(), "served\n");
    let without = "sslclient: the TLS process runs without ";
    let line = ended.stderr.lines().find(|line| line.starts_with(without));
    let line = line.unwrap_or_else(|| panic!("{}", ended.stderr));
    assert!(line.contains("the filter of system calls ("), "{line}");
    let ended = client("require");
    assert_eq!(ended.text(), "served\n");
    assert!(
        !ended.stderr.contains("the filter of system calls"),
        "{}",
        ended.stderr
    );
    server.quiet();
}
