//! The keys of the stores of a generation: those that the keyholder at work has and
//! whose file did not change keep their numbers, and a new keyholder is made only
//! where the keys, or what may be signed with them, differ.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use openssl::pkey::{PKey, PKeyRef, Public};

use super::holder::Keyholder;
use super::master::Master;
use super::meanwhile::Meanwhile;
use super::permits::Permits;
use super::worker::{NotDone, Worker};
use crate::report::Fail;
use crate::store::permit::Permit;
use crate::store::{self, KeyKind, KeyPlace, Signer, SignerSource};
use crate::tls_ffi::provider;
use crate::watch::{Changed, Watch};

/// RSA keys longer than this are slow enough for more than one worker.
const QUICK_BITS: u32 = 2048;
/// The most workers of one keyholder.
const WORKERS: usize = 4;

/// A key that workers have under its number.
#[derive(Clone)]
struct LoadedKey {
    path: PathBuf,
    public: PKey<Public>,
    /// Its file, as it was before the key was read.
    file: Watch,
}

/// Keys by number: no number stands for another key as long as any store has it.
#[derive(Clone, Default)]
pub struct KeyTable {
    by_number: BTreeMap<u16, LoadedKey>,
    numbers: HashMap<PathBuf, u16>,
}

/// What a key that is to be used again is to the keyholder at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyReuse {
    /// The one that it has, under the number that it has.
    Kept,
    /// Read for another store since, under a number of its own.
    Anew,
}

impl KeyTable {
    fn insert(&mut self, number: u16, key: LoadedKey) {
        self.numbers.insert(key.path.clone(), number);
        self.by_number.insert(number, key);
    }

    /// Whether a file of them is not what it was when its key was read: what it
    /// holds now is no key of this table, and only a reload brings it.
    #[must_use]
    pub fn have_changed(&self) -> bool {
        self.by_number
            .values()
            .any(|key| key.file.changed() == Changed::Surely)
    }

    fn get(&self, path: &Path) -> Option<(u16, &LoadedKey)> {
        let number = *self.numbers.get(path)?;
        Some((number, self.by_number.get(&number)?))
    }

    /// The numbers of the keys of these places, as far as they have one.
    pub(super) fn numbers(&self, places: &[KeyPlace]) -> BTreeSet<u16> {
        let numbers = places.iter().map(|place| self.numbers.get(&place.path));
        numbers.flatten().copied().collect()
    }

    /// The signer of a key that is here.
    fn known_signer(
        &self,
        place: &KeyPlace,
        public: &PKeyRef<Public>,
    ) -> Option<Result<Signer, Fail>> {
        let (number, key) = self.get(&place.path)?;
        // A signer is made from the certificate's key, so libssl's own
        // comparison of the two would always hold.
        if !key.public.public_eq(public) {
            return Some(Err(place.unfit()));
        }
        let signer = provider::key(public, number.into());
        Some(signer.map_err(|error| unable(place, error)))
    }

    /// Has the key of this path, under the number that `before` has it under unless
    /// its file changed since. `None` where it is to be read.
    fn take_over(&mut self, before: &KeyTable, path: &Path) -> Option<KeyReuse> {
        let old = before.get(path);
        if let Some((number, _)) = self.get(path) {
            let kept = old.is_some_and(|(old, _)| old == number);
            return Some(if kept { KeyReuse::Kept } else { KeyReuse::Anew });
        }
        let (number, key) = old.filter(|(_, key)| key.file.changed() == Changed::No)?;
        self.insert(number, key.clone());
        Some(KeyReuse::Kept)
    }

    fn are_slow(&self) -> bool {
        self.by_number.values().any(|key| {
            matches!(KeyKind::of(&key.public), KeyKind::Rsa(bits) | KeyKind::RsaPss(bits) if bits > QUICK_BITS)
        })
    }
}

fn unable(place: impl fmt::Display, why: impl Into<Fail>) -> Fail {
    why.into().of(format_args!("unable to load key: {place}"))
}

fn not_loaded(place: impl fmt::Display, why: NotDone) -> Fail {
    match why {
        NotDone::Unable(why) => unable(place, why),
        NotDone::Lost(why) => why,
    }
}

/// Where the stores of a server have their signers from.
pub trait KeySource: SignerSource {
    /// The signers alone: Rust 1.85 makes no trait object of another by itself.
    fn signers(&self) -> &dyn SignerSource;

    /// Hears what the handshakes of a store can be, and where its keys are.
    ///
    /// # Errors
    /// The keyholder cannot be told.
    fn permit(&self, keys: &[KeyPlace], permit: &Permit) -> Result<(), Fail>;

    /// Whether the signers of these keys that an earlier generation had are good for
    /// this one.
    fn keep(&self, keys: &[KeyPlace]) -> bool;

    /// Hears of keys that a server name chooses: they sign for every store that is
    /// made from now on.
    fn serve_names(&self, keys: &[KeyPlace]);

    /// As [`Meanwhile::pause`].
    ///
    /// # Errors
    /// As there.
    fn pause(&self) -> io::Result<()>;
}

/// The keys of a generation in the making.
pub struct Loading<'a> {
    master: &'a Master,
    /// What the keyholder at work has.
    before: KeyTable,
    meanwhile: RefCell<&'a mut dyn Meanwhile>,
    wanted: RefCell<WantedKeys>,
}

/// The keys that a generation wants, what is to be signed with them, and a worker
/// that has those of them which are new.
#[derive(Default)]
pub struct WantedKeys {
    keys: KeyTable,
    permits: Permits,
    worker: Option<Worker>,
    /// What the worker has.
    loaded: BTreeSet<u16>,
}

impl<'a> Loading<'a> {
    /// Keys that `before` has are taken from there. Looks after others while it waits
    /// for a worker.
    pub fn new(
        master: &'a Master,
        before: KeyTable,
        meanwhile: &'a mut dyn Meanwhile,
    ) -> Loading<'a> {
        Loading {
            master,
            before,
            meanwhile: RefCell::new(meanwhile),
            wanted: RefCell::default(),
        }
    }

    /// All that was wanted of it.
    #[must_use]
    pub fn wanted(self) -> WantedKeys {
        self.wanted.into_inner()
    }

    /// Takes over a key that the keyholder at work has, if its file is the same.
    fn take_over(&self, place: &KeyPlace) -> Option<KeyReuse> {
        let keys = &mut self.wanted.borrow_mut().keys;
        keys.take_over(&self.before, &place.path)
    }

    /// Has a worker read a key.
    fn load(&self, place: &KeyPlace) -> Result<(), Fail> {
        let mut file = Watch::default();
        file.add(&place.path);
        let meanwhile = &mut **self.meanwhile.borrow_mut();
        let wanted = &mut *self.wanted.borrow_mut();
        let free = |number: &u16| {
            !self.before.by_number.contains_key(number)
                && !wanted.keys.by_number.contains_key(number)
        };
        let number = (0..=u16::MAX).find(free);
        let number = number.ok_or_else(|| unable(place, "too many keys"))?;
        let worker = match &mut wanted.worker {
            Some(worker) => worker,
            none => none.insert(Worker::fork(self.master, meanwhile)?),
        };
        let public = worker
            .load(number, &place.path, meanwhile)
            .map_err(|why| not_loaded(place, why))?;
        wanted.loaded.insert(number);
        let key = LoadedKey {
            path: place.path.clone(),
            public,
            file,
        };
        wanted.keys.insert(number, key);
        Ok(())
    }
}

impl SignerSource for Loading<'_> {
    fn signer(&self, place: &KeyPlace, public: &PKeyRef<Public>) -> Result<Signer, Fail> {
        if self.take_over(place).is_none() {
            self.load(place)?;
        }
        let signer = self.wanted.borrow().keys.known_signer(place, public);
        signer.unwrap_or_else(|| Err(unable(place, "it is gone")))
    }
}

impl KeySource for Loading<'_> {
    fn signers(&self) -> &dyn SignerSource {
        self
    }

    fn permit(&self, keys: &[KeyPlace], permit: &Permit) -> Result<(), Fail> {
        let wanted = &mut *self.wanted.borrow_mut();
        wanted.permits.grant(permit, &wanted.keys.numbers(keys));
        Ok(())
    }

    fn keep(&self, keys: &[KeyPlace]) -> bool {
        // A signer knows its key by the number: one that was read again, under
        // another, is no key of theirs, even if it is the same.
        keys.iter()
            .all(|place| self.take_over(place) == Some(KeyReuse::Kept))
    }

    fn serve_names(&self, keys: &[KeyPlace]) {
        let wanted = &mut *self.wanted.borrow_mut();
        wanted.permits.serve_names(wanted.keys.numbers(keys));
    }

    fn pause(&self) -> io::Result<()> {
        self.meanwhile.borrow_mut().pause()
    }
}

impl WantedKeys {
    /// Whether a keyholder has these keys and no others, and signs the same with
    /// them.
    #[must_use]
    pub fn is_held_by(&self, keyholder: &Keyholder) -> bool {
        let held = keyholder.keys().by_number.keys();
        self.worker.is_none()
            && held.eq(self.keys.by_number.keys())
            && self.permits.are(keyholder.permits())
    }

    /// Makes a keyholder of it: its workers give up their rights and sign.
    ///
    /// # Errors
    /// Out of processes, a key cannot be loaded again, or a worker cannot give up
    /// its rights.
    pub fn keyholder(
        mut self,
        master: &Master,
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<Keyholder, Fail> {
        let recipe = Recipe::new(&self.keys, &self.permits);
        let first = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::fork(master, meanwhile)?,
        };
        let (first, missing) = recipe.teach(first, &self.loaded, meanwhile)?;
        let mut workers = vec![first];
        let wanted = if self.keys.are_slow() {
            std::thread::available_parallelism().map_or(1, |count| count.get().min(WORKERS))
        } else {
            1
        };
        while workers.len() < wanted {
            workers.push(recipe.make(master, meanwhile)?);
        }
        Ok(Keyholder::of(workers, self.keys, self.permits, missing))
    }
}

/// The keys of a keyholder that is at work: it reads no more.
impl SignerSource for KeyTable {
    fn signer(&self, place: &KeyPlace, public: &PKeyRef<Public>) -> Result<Signer, Fail> {
        let signer = self.known_signer(place, public);
        signer.unwrap_or_else(|| Err(unable(place, "no rule alone names this key")))
    }
}

impl KeySource for KeyTable {
    fn signers(&self) -> &dyn SignerSource {
        self
    }

    fn permit(&self, _keys: &[KeyPlace], _permit: &Permit) -> Result<(), Fail> {
        Ok(())
    }

    fn keep(&self, _keys: &[KeyPlace]) -> bool {
        false
    }

    fn serve_names(&self, _keys: &[KeyPlace]) {}

    fn pause(&self) -> io::Result<()> {
        Ok(())
    }
}

/// How to make a worker that takes another's place.
pub struct Recipe {
    keys: BTreeMap<u16, LoadedKey>,
    orders: Vec<Vec<u8>>,
}

impl Recipe {
    pub(super) fn new(keys: &KeyTable, permits: &Permits) -> Recipe {
        Recipe {
            keys: keys.by_number.clone(),
            orders: permits.orders().to_vec(),
        }
    }

    /// Makes one.
    ///
    /// # Errors
    /// Out of processes, or a key cannot be loaded again.
    pub fn make(&self, master: &Master, meanwhile: &mut dyn Meanwhile) -> Result<Worker, Fail> {
        let worker = Worker::fork(master, meanwhile)?;
        let (worker, _) = self.teach(worker, &BTreeSet::new(), meanwhile)?;
        Ok(worker)
    }

    /// Has a worker load the keys that it has not, hear what may be signed, and give
    /// up its rights. Returns also what it could not give up.
    fn teach(
        &self,
        mut worker: Worker,
        loaded: &BTreeSet<u16>,
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<(Worker, Vec<String>), Fail> {
        let taught = self.teach_all(&mut worker, loaded, meanwhile);
        if taught.is_err() {
            worker.end();
        }
        taught.map(|missing| (worker, missing))
    }

    fn teach_all(
        &self,
        worker: &mut Worker,
        loaded: &BTreeSet<u16>,
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<Vec<String>, Fail> {
        for (number, key) in &self.keys {
            if loaded.contains(number) {
                continue;
            }
            let shown = store::shown(&key.path);
            let public = worker
                .load(*number, &key.path, meanwhile)
                .map_err(|why| not_loaded(&shown, why))?;
            if !public.public_eq(&key.public) {
                return Err(Fail::temporary(format!(
                    "the key has changed since it was loaded: {shown}"
                )));
            }
        }
        worker.learn(&self.orders, meanwhile)?;
        worker.seal(meanwhile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(path: &Path, public: &PKey<Public>) -> LoadedKey {
        let mut file = Watch::default();
        file.add(path);
        LoadedKey {
            path: path.to_owned(),
            public: public.clone(),
            file,
        }
    }

    /// Of two stores with one key, the first may find its file changed and the other
    /// not: files that are written while a generation is loaded are looked at again.
    #[test]
    fn signers_are_kept_only_while_their_number_is_the_keys() {
        let key = PKey::generate_ed25519().expect("a key");
        let public = key.raw_public_key().expect("its public half");
        let public = PKey::public_key_from_raw_bytes(&public, key.id()).expect("a public key");
        let path = Path::new("/nonexistent/key");
        let mut before = KeyTable::default();
        before.insert(0, loaded(path, &public));

        let mut wanted = KeyTable::default();
        assert_eq!(
            wanted.take_over(&before, Path::new("/nonexistent/other")),
            None
        );
        assert_eq!(wanted.take_over(&before, path), Some(KeyReuse::Kept));
        assert_eq!(wanted.take_over(&before, path), Some(KeyReuse::Kept));
        assert_eq!(wanted.get(path).map(|(number, _)| number), Some(0));

        let mut wanted = KeyTable::default();
        wanted.insert(1, loaded(path, &public));
        assert_eq!(wanted.take_over(&before, path), Some(KeyReuse::Anew));
        assert_eq!(wanted.get(path).map(|(number, _)| number), Some(1));
    }
}
