//! Settings that ucspi-ssl obeys when they are set to nothing, where here that counts
//! as unset.
#![forbid(unsafe_code)]

use std::env;
use std::fmt;

/// A setting whose empty value makes ucspi-ssl's server stricter than it is without:
/// of the first it asks no more than whether it is set, the second is a directory that
/// there is not, and of the third it reads 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emptied {
    /// Its name.
    pub name: &'static str,
    left: &'static str,
    cure: &'static str,
}

/// The variable that requires a client's certificate.
pub const REQUIRES: &str = "CCAVERIFY";

const STRICT: [Emptied; 3] = [
    Emptied {
        name: REQUIRES,
        left: "no client needs a certificate",
        cure: "set it to 1",
    },
    Emptied {
        name: "SSL_CHROOT",
        left: "there is no chroot",
        cure: "name a directory",
    },
    Emptied {
        name: "VERIFYDEPTH",
        left: "a client's chain may be as long as by default",
        cure: "set it to a number",
    },
];

impl Emptied {
    /// Those that these names hold.
    pub fn among<'a>(names: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = Emptied> {
        names.filter_map(|name| {
            let mut strict = STRICT.into_iter();
            strict.find(|one| one.name.as_bytes() == name)
        })
    }

    /// Those that this process was started with.
    pub fn in_environment() -> impl Iterator<Item = Emptied> {
        let empty = |one: &Emptied| env::var_os(one.name).is_some_and(|value| value.is_empty());
        STRICT.into_iter().filter(empty)
    }
}

/// `CCAVERIFY is empty, which counts as unset: ...`
impl fmt::Display for Emptied {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Emptied { name, left, cure } = self;
        write!(
            out,
            "{name} is empty, which counts as unset: {left}; {cure}, or leave it out"
        )
    }
}
