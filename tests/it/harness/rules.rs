//! Rules and tlsdestinations, compiled.
#![forbid(unsafe_code)]

use std::process::Command;

use super::{Finished, Place, ours, run};

/// Compiles rules with sslrules into `NAME` of the place, and gives its path.
pub fn compile(place: &Place, name: &str, text: &(impl AsRef<[u8]> + ?Sized)) -> String {
    compile_with(&ours("sslrules"), place, name, text)
}

/// The same with another program, such as tcprules.
pub fn compile_with(
    program: &str,
    place: &Place,
    name: &str,
    text: &(impl AsRef<[u8]> + ?Sized),
) -> String {
    let made = made_by(&mut Command::new(program), place, name, text);
    assert_eq!(made.code, Some(0), "{program}: {}", made.stderr);
    place.text(name)
}

/// `sslrules -t` into tlsdestinations.cdb of the place.
pub fn compile_destinations(place: &Place, text: &str) -> Finished {
    let mut command = Command::new(ours("sslrules"));
    made_by(command.arg("-t"), place, "tlsdestinations.cdb", text)
}

fn made_by(
    command: &mut Command,
    place: &Place,
    name: &str,
    text: &(impl AsRef<[u8]> + ?Sized),
) -> Finished {
    command.args([place.text(name), place.text(&format!("{name}.tmp"))]);
    run(command, text.as_ref())
}
