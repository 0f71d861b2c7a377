//! What may be served: certificates and marks of rules, each from the moment it
//! is put in its place until it may be seen no more.
#![forbid(unsafe_code)]

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::client::Lost;
use crate::harness::{Authority, Leaf, Place, compile};

/// The server name of a rule's store, beside `localhost`.
pub const OTHER: &str = "other.test";
/// The server name that a rule denies.
pub const DENIED: &str = "denied.test";

/// One thing that is replaced again and again.
#[derive(Default)]
struct Chain(Mutex<Vec<(String, Instant)>>);

impl Chain {
    fn put(&self, value: String) {
        self.0.lock().unwrap().push((value, Instant::now()));
    }

    /// For how long a value had been replaced at that time; none for one that
    /// never was.
    fn age(&self, value: &str, at: Instant) -> Option<Duration> {
        let all = self.0.lock().unwrap();
        let place = all.iter().rposition(|(one, _)| one == value)?;
        let replaced = all.get(place + 1);
        Some(replaced.map_or(Duration::ZERO, |(_, since)| {
            at.saturating_duration_since(*since)
        }))
    }
}

/// Everything that is renewed under a server's feet.
pub struct Truth<'a> {
    place: &'a Place,
    own: Chain,
    other: Chain,
    marks: Chain,
    /// The oldest that was served, by how long it had been replaced.
    oldest: Mutex<Duration>,
}

impl<'a> Truth<'a> {
    /// Writes the first of everything.
    pub fn new(place: &'a Place) -> Truth<'a> {
        let truth = Truth {
            place,
            own: Chain::default(),
            other: Chain::default(),
            marks: Chain::default(),
            oldest: Mutex::default(),
        };
        place.write("anchors.pem", Authority::shared_root().pem());
        truth.renew_certificates(false);
        truth.replace_rules(0);
        truth
    }

    /// The file of the server's own certificate and key.
    pub fn own_file(&self) -> String {
        self.place.text("own.pem")
    }

    pub fn rules_file(&self) -> String {
        self.place.text("rules.cdb")
    }

    /// As an ACME client does it, with the key of before or with another.
    pub fn renew_certificates(&self, other_key: bool) {
        let leaf = |leaf: Leaf| if other_key { leaf.other_key() } else { leaf }.issue();
        for (chain, file, identity) in [
            (&self.own, "own.pem", leaf(Leaf::localhost())),
            (&self.other, "other.pem", leaf(Leaf::new("x").dns(OTHER))),
        ] {
            // Known before it can be seen.
            chain.put(identity.fingerprint());
            let new = format!("{file}.new");
            let text = [identity.chain_pem(), identity.key_pem()].concat();
            self.place.secret(&new, text);
            fs::rename(self.place.path(&new), self.place.path(file)).unwrap();
        }
    }

    pub fn replace_rules(&self, round: u64) {
        let mark = format!("m{round}");
        self.marks.put(mark.clone());
        let text = format!(
            "127.200.:deny\n127.201.:allow,CCAVERIFY=\"1\",CAFILE=\"{}\",MARK=\"{mark}\"\n\
             127.:allow,MARK=\"{mark}\"\nsni={OTHER}:allow,CERTFILE=\"{}\",KEYFILE=\"\"\n\
             sni={DENIED}:deny\n",
            self.place.text("anchors.pem"),
            self.place.text("other.pem"),
        );
        compile(self.place, "rules.cdb", &text);
    }

    /// Fails where a client that came at that time was served what never was, or
    /// what is long gone.
    pub fn judge(
        &self,
        name: &str,
        mark: &str,
        certificate: Option<&str>,
        came: Instant,
    ) -> Result<(), Lost> {
        let chain = if name == OTHER {
            &self.other
        } else {
            &self.own
        };
        let of_mark = (&self.marks, mark);
        for (chain, value) in certificate
            .map(|certificate| (chain, certificate))
            .into_iter()
            .chain([of_mark])
        {
            let Some(age) = chain.age(value, came) else {
                return Err(Lost::Wrong(format!("{value}, which never was")));
            };
            let mut oldest = self.oldest.lock().unwrap();
            *oldest = age.max(*oldest);
            if age > LONG_GONE {
                return Err(Lost::Wrong(format!("{value}, replaced {age:?} before")));
            }
        }
        Ok(())
    }

    pub fn oldest(&self) -> Duration {
        *self.oldest.lock().unwrap()
    }
}

/// A second until it is looked for, and then as long as a busy machine takes whose
/// key master is stopped for five.
const LONG_GONE: Duration = Duration::from_secs(20);
