//! What a delivery gives up before it calls a server.
#![forbid(unsafe_code)]

use std::process::Command;
use std::time::Duration;

use super::fake::Fake;
use super::remote::{MESSAGE, Remote};
use crate::harness::process::{Finished, run_within};
use crate::harness::{Authority, Leaf, Place, peer};

/// A delivery over required TLS, with more variables.
fn deliver(
    place: &Place,
    policy: &str,
    deed: Option<&str>,
    variables: &[(&str, &str)],
) -> Finished {
    let context = peer::context(&Leaf::new("x").address("127.0.0.1").issue(), |_| ());
    let running = Fake::tls(context).listen("127.0.0.1:0".parse().unwrap());
    let route = format!(":[127.0.0.1]:{}\n", running.at.port());
    let mut remote = Remote::new(place)
        .control("smtproutes", &route)
        .policy(policy);
    if let Some(deed) = deed {
        remote = remote.taken_over(deed);
    }
    let mut command = remote.command(&["x.example", "a@b", "c@x.example"]);
    command.envs(variables.iter().copied());
    run_within(&mut command, MESSAGE.as_bytes(), Duration::from_secs(120))
}

#[test]
fn what_the_sandbox_forbids_ends_the_delivery() {
    let place = Place::new("remote-sandbox");
    for what in ["open", "socket", "execve", "kill", "ptrace"] {
        let attempt = format!("try-{what}");
        let run = |sandbox| {
            let variables = [("SSL_SANDBOX", sandbox)];
            deliver(&place, "=[127.0.0.1]:CA\n", Some(&attempt), &variables)
        };
        let ended = run("1");
        // Nothing was reported: qmail-rspawn says that it crashed, and tries again.
        assert_eq!((ended.code, &*ended.stdout), (None, &b""[..]), "{what}");
        if what != "execve" {
            let ended = run("0");
            let said = String::from_utf8_lossy(&ended.stdout).into_owned();
            assert!(said.contains(" verified 127.0.0.1)"), "{what}: {said}");
        }
    }
}

#[test]
fn the_system_s_anchors_count_where_a_rule_names_none() {
    let place = Place::new("remote-anchors");
    let good = place.path("good");
    std::fs::create_dir(&good).unwrap();
    let pem = Authority::shared_root().pem();
    std::fs::write(good.join("root.pem"), &pem).unwrap();
    let rehashed = Command::new("openssl").arg("rehash").arg(&good).output();
    assert!(rehashed.unwrap().status.success());
    let (good, file) = (good.display().to_string(), place.write("ca.pem", &pem));
    let none = place.text("none");
    for (file, directory, verified) in [
        (&none, format!("{none}:{good}"), true),
        (&file, none.clone(), true),
        (&none, none.clone(), false),
    ] {
        let variables = [("SSL_CERT_FILE", &**file), ("SSL_CERT_DIR", &*directory)];
        let ended = deliver(&place, "=[127.0.0.1]:\n", None, &variables);
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert_eq!(said.contains(" verified 127.0.0.1)"), verified, "{said}");
        let deferred = said.starts_with('Z') && said.contains("unable to get local issuer");
        assert_eq!(deferred, !verified, "{said}");
        // Where nothing is asked of the certificate, nothing is said of it.
        let ended = deliver(&place, "*:\n", None, &variables);
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(said.contains(" unverified)"), "{said}");
    }
}
