//! Other users, names and mailboxes than the machine's, for one child and those
//! below it: files mounted over the system's in a namespace that dies with them.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Place, ours, program, run};

/// Words that run the rest as an ordinary user.
pub const AS_NOBODY: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// Whether an ordinary user can run the programs where they were built.
pub fn reachable() -> bool {
    program("setpriv").is_some() && {
        let mut test = Command::new(AS_NOBODY[0]);
        test.args(&AS_NOBODY[1..]).args([
            "test",
            "-x",
            &*ours("sslserver"),
            "-a",
            "-r",
            env!("CARGO_TARGET_TMPDIR"),
        ]);
        run(&mut test, b"").code == Some(0)
    }
}

/// Words that run the rest with `source` seen in place of `target`.
pub fn mounted(pairs: &[(&str, &str)]) -> Vec<String> {
    let mut script = String::new();
    for (source, target) in pairs {
        script.push_str("mount --bind ");
        script.push_str(source);
        script.push(' ');
        script.push_str(target);
        script.push_str(" && ");
    }
    script.push_str("exec \"$@\"");
    ["unshare", "-m", "/bin/sh", "-c", &script, "sh"]
        .map(str::to_owned)
        .to_vec()
}

/// Words that run the rest with another /etc/hosts.
pub fn hosts(place: &Place, text: &str) -> Vec<String> {
    let file = place.write("hosts", text);
    mounted(&[(&file, "/etc/hosts")])
}

/// The user `tester`, 4000, of the groups 4000, 4001 and 4002.
pub fn tester(place: &Place) -> Vec<(String, &'static str)> {
    let beside = |target: &'static str, lines: &str| {
        let text = fs::read_to_string(target).unwrap();
        let name = Path::new(target).file_name().unwrap().to_str().unwrap();
        (place.write(name, text + lines), target)
    };
    vec![
        beside(
            "/etc/passwd",
            "tester:x:4000:4000:a test:/nonexistent:/bin/sh\n",
        ),
        beside(
            "/etc/group",
            "tester:x:4000:\nextra1:x:4001:tester\nextra2:x:4002:other,tester\nunrelated:x:4003:other\n",
        ),
    ]
}

/// Words that run the rest where [`tester`] exists.
pub fn with_tester(place: &Place) -> Vec<String> {
    let files = tester(place);
    let pairs: Vec<_> = files
        .iter()
        .map(|(file, target)| (file.as_str(), *target))
        .collect();
    mounted(&pairs)
}

/// Whether files can be mounted over others here.
pub fn possible(place: &Place) -> bool {
    let words = hosts(place, "127.0.0.1 localhost\n");
    let mut command = Command::new(&words[0]);
    run(command.args(&words[1..]).arg("true"), b"").code == Some(0)
}
