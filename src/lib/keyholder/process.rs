//! A keyholder's process, a worker, until it signs: it loads what the supervisor names,
//! and gives up all rights.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::hours::{self, Hours};
use super::keys::Keys;
use super::local::{self, Password};
use super::service::Service;
use crate::report::{self, Fail, Report};
use crate::sys::poll::{self, Ready};
use crate::sys::process::Forked;
use crate::sys::sandbox::{self, Sandbox};
use crate::sys::user::Identity;
use crate::sys::{memory, parcel, user};

/// The longest message of the supervisor: a path, a permit, or a list of keys.
pub(super) const ORDER_LIMIT: usize = 8192;
/// The longest answer to one: a public key, or a reason.
pub(super) const ANSWER_LIMIT: usize = 16384;
/// What the supervisor says; the rest of the message follows the first byte.
pub(super) mod order {
    /// Load a key: its number, two bytes, and its file.
    pub const LOAD: u8 = b'L';
    /// A permit; it gets the next number, from 0 on.
    pub const PERMIT: u8 = b'D';
    /// Keys that sign under a permit: its number, then theirs, two bytes each.
    pub const GRANT: u8 = b'G';
    /// Give up all rights and begin to sign.
    pub const SEAL: u8 = b'S';
    /// A link: how many signatures, whether to say that it came, and for how
    /// many seconds (four bytes, high byte first; 0 for ever). The descriptor
    /// comes along.
    pub const LINK: u8 = b'N';
    /// Say that you live.
    pub const PING: u8 = b'P';
    /// Make new keys for tickets, unless the master does.
    pub const RENEW: u8 = b'R';
}

/// What it hears.
pub(super) mod answer {
    /// The key's SubjectPublicKeyInfo.
    pub const KEY: u8 = b'K';
    /// Why it was not done.
    pub const ERROR: u8 = b'E';
    /// The permit or grant is known.
    pub const KNOWN: u8 = b'D';
    /// Done: what rights it could not give up, a line each.
    pub const SEALED: u8 = b'S';
    /// I live.
    pub const ALIVE: u8 = b'A';

    pub fn error(why: &super::Fail) -> Vec<u8> {
        [&[ERROR], why.to_string().as_bytes()].concat()
    }
}

/// What a worker has from the master.
pub(super) struct Inherited<'a> {
    pub control: OwnedFd,
    pub password: Option<Password>,
    /// The keys of tickets, and the master's word when they change.
    pub hours: Hours,
    pub master: OwnedFd,
    pub sandbox: &'a Sandbox,
    pub forked: &'a Forked,
    pub report: Report,
}

/// The whole process. Returns its exit code.
pub(super) fn run(mut inherited: Inherited<'_>) -> u8 {
    // Without keys the supervisor is gone, or could not use what it heard.
    if let Some(keys) = inherited.load() {
        let Inherited {
            control,
            hours,
            master,
            report,
            ..
        } = inherited;
        Service::new(control, keys, hours, master, report).run();
    }
    0
}

/// The time before any engine is near.
impl Inherited<'_> {
    /// Loads until told to seal; `None` if that never comes.
    fn load(&mut self) -> Option<Keys> {
        let mut keys = Keys::default();
        let mut buffer = vec![0; ORDER_LIMIT];
        loop {
            poll::wait(&mut [(self.control.as_fd(), Ready::READ)], None).ok()?;
            let length = parcel::receive(&self.control, &mut buffer).ok()?;
            match buffer[..length].split_first()? {
                (&order::LOAD, [high, low, path @ ..]) => {
                    let number = u16::from_be_bytes([*high, *low]);
                    let path = Path::new(OsStr::from_bytes(path));
                    let reply = match self.load_key(&mut keys, number, path) {
                        Ok(public) => [&[answer::KEY], &public[..]].concat(),
                        Err(why) => answer::error(&why),
                    };
                    parcel::send(&self.control, &reply).ok()?;
                }
                (&(order::PERMIT | order::GRANT), _) => {
                    keys.learn(&buffer[..length]);
                    parcel::send(&self.control, &[answer::KNOWN]).ok()?;
                }
                (&order::SEAL, _) => break,
                _ => return None,
            }
        }
        // From here on nobody needs the password.
        drop(self.password.take());
        keys.warm_up();
        let _ = hours::derive(&[0; 32], &[0; 16], &[0; 32]);
        let reply = match give_up_rights(self.sandbox, self.forked) {
            Ok(missing) => [&[answer::SEALED], missing.join("\n").as_bytes()].concat(),
            Err(why) => answer::error(&why),
        };
        parcel::send(&self.control, &reply).ok()?;
        (reply[0] == answer::SEALED).then_some(keys)
    }

    /// Reads one key. Its public half goes to the supervisor.
    fn load_key(&self, keys: &mut Keys, number: u16, path: &Path) -> Result<Vec<u8>, Fail> {
        let secret = local::read(path, self.password.as_ref(), local::BY_LETTER)?;
        let public = secret.public_key_to_der()?;
        keys.insert(number, secret);
        Ok(public)
    }
}

/// Locks memory, leaves the file system and the user, and takes the sandbox on.
/// Returns what could not be had.
fn give_up_rights(sandbox: &Sandbox, forked: &Forked) -> Result<Vec<String>, Fail> {
    let mut missing = sandbox.missing().to_vec();
    let root = user::is_root();
    if let Err(error) = memory::lock(root) {
        missing.push(format!("locked memory ({})", report::reason(&error)));
    }
    if root {
        if let Err(error) = sandbox::enter_nowhere() {
            missing.push(format!("chroot ({})", report::reason(&error)));
        }
        sandbox::drop_bounds();
        let own = Identity::of_this_process(user::Holder::Keyholder);
        if let Err(error) = own.assume() {
            // A container may map few users. Without capabilities, root is one
            // more user that engines are not.
            missing.push(format!("a user of its own ({})", report::reason(&error)));
            sandbox::drop_capabilities().map_err(Fail::unable("give up capabilities"))?;
        }
    } else {
        missing.push("chroot and a user of its own (not started as root)".to_owned());
    }
    sandbox
        .take_on_with_descriptors(forked)
        .map_err(Fail::unable("confine the keyholder"))?;
    Ok(missing)
}
