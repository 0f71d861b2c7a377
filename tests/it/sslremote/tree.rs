//! Signed zones below a root of their own, answered as a resolver answers that
//! hands everything on. Answers are signed when they are asked for, so that a test
//! may sign, deny and forge what no signer of zones would.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey, PointConversionForm};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::pkey::Private;
use openssl::sha::{Sha1, sha256};

use domain::base::Rtype;
use domain::base::iana::Rcode;

use super::packet::{Packet, Record, wire, within};

pub const TTL: u32 = 60;
const DAY: i64 = 86400;
/// ECDSAP256SHA256.
const ALGORITHM: u8 = 13;

/// How a zone proves that something is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    Nsec,
    Nsec3 { rounds: u16, opt_out: bool },
}

/// When signatures hold, in seconds from now.
pub type Window = (i64, i64);

pub const NOW: Window = (-DAY, DAY);

/// A zone. Without a key it is not signed.
pub struct Zone {
    pub name: String,
    pub key: Option<EcKey<Private>>,
    pub denial: Denial,
    pub window: Window,
    /// The sets of records, by name in lower case and type.
    records: BTreeMap<(Canonical, u16), Vec<Record>>,
}

/// Labels from the root on, which sort as RFC 4034, 6.1, wants.
type Canonical = Vec<Vec<u8>>;

fn canonical(name: &str) -> Canonical {
    let name = name.to_ascii_lowercase();
    let labels = name.split('.').filter(|label| !label.is_empty());
    labels
        .rev()
        .map(|label| label.as_bytes().to_vec())
        .collect()
}

fn text(name: &[Vec<u8>]) -> String {
    let labels = name
        .iter()
        .rev()
        .map(|label| String::from_utf8_lossy(label) + ".");
    let name: Vec<_> = labels.collect();
    if name.is_empty() {
        ".".to_owned()
    } else {
        name.concat()
    }
}

pub fn key() -> EcKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    EcKey::generate(&group).unwrap()
}

/// The data of a DNSKEY.
pub fn dnskey(key: &EcKey<Private>) -> Vec<u8> {
    let mut context = BigNumContext::new().unwrap();
    let form = PointConversionForm::UNCOMPRESSED;
    let point = key.public_key().to_bytes(key.group(), form, &mut context);
    [&[1, 1, 3, ALGORITHM], &point.unwrap()[1..]].concat()
}

/// RFC 4034, appendix B.
pub fn tag(dnskey: &[u8]) -> u16 {
    let sum = dnskey.iter().enumerate().fold(0_u32, |sum, (at, &byte)| {
        sum + if at % 2 == 0 {
            u32::from(byte) << 8
        } else {
            u32::from(byte)
        }
    });
    u16::try_from((sum + (sum >> 16 & 0xffff)) & 0xffff).unwrap()
}

/// The data of a DS with SHA-256.
pub fn ds(zone: &str, dnskey: &[u8]) -> Vec<u8> {
    let digest = sha256(&[&wire(&zone.to_ascii_lowercase()), dnskey].concat());
    [&tag(dnskey).to_be_bytes()[..], &[dnskey[3], 2], &digest].concat()
}

pub fn mx(preference: u16, host: &str) -> Vec<u8> {
    [&preference.to_be_bytes()[..], &wire(host)].concat()
}

pub fn a(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub fn record(name: &str, kind: Rtype, data: Vec<u8>) -> Record {
    Record {
        name: name.to_owned(),
        kind,
        ttl: TTL,
        data,
    }
}

/// Types as NSEC lists them: RFC 4034, 4.1.2.
fn bitmap(kinds: &BTreeSet<u16>) -> Vec<u8> {
    let mut out = Vec::new();
    for window in kinds.iter().map(|kind| kind >> 8).collect::<BTreeSet<_>>() {
        let mut bits = [0_u8; 32];
        for kind in kinds.iter().filter(|kind| *kind >> 8 == window) {
            let low = usize::from(kind & 255);
            bits[low / 8] |= 0x80 >> (low % 8);
        }
        let length = bits.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        out.push(u8::try_from(window).unwrap());
        out.push(u8::try_from(length).unwrap());
        out.extend(&bits[..length]);
    }
    out
}

/// A hash as the first label of a name: RFC 4648, 7.
fn base32(hash: &[u8]) -> String {
    let alphabet = b"0123456789abcdefghijklmnopqrstuv";
    let bits: String = hash
        .iter()
        .map(|byte| format!("{byte:08b}"))
        .collect::<Vec<_>>()
        .concat();
    let groups = bits.as_bytes().chunks(5);
    let digits = groups.map(|group| {
        let value = group
            .iter()
            .fold(0, |value, bit| value * 2 + usize::from(bit - b'0'));
        char::from(alphabet[value])
    });
    digits.collect()
}

/// RFC 5155, 5, without a salt.
pub fn hash(name: &str, rounds: u16) -> Vec<u8> {
    let mut out = wire(&name.to_ascii_lowercase());
    for _ in 0..=rounds {
        let mut one = Sha1::new();
        one.update(&out);
        out = one.finish().to_vec();
    }
    out
}

impl Zone {
    pub fn signed(name: &str, denial: Denial) -> Zone {
        let key = key();
        let public = dnskey(&key);
        let mut zone = Zone {
            name: name.to_owned(),
            key: Some(key),
            denial,
            window: NOW,
            records: BTreeMap::new(),
        };
        zone.add(name, Rtype::DNSKEY, public);
        zone.with_apex()
    }

    pub fn unsigned(name: &str) -> Zone {
        let zone = Zone {
            name: name.to_owned(),
            key: None,
            denial: Denial::Nsec,
            window: NOW,
            records: BTreeMap::new(),
        };
        zone.with_apex()
    }

    fn with_apex(mut self) -> Zone {
        let name = self.name.clone();
        let host = wire(&at("ns", &name));
        let soa = [&host[..], &host, &[0, 0, 0, 1].repeat(5)].concat();
        self.add(&name, Rtype::SOA, soa);
        self.add(&name, Rtype::NS, host);
        self
    }

    pub fn add(&mut self, name: &str, kind: Rtype, data: Vec<u8>) {
        let set = self.records.entry((canonical(name), kind.to_int()));
        set.or_default().push(record(name, kind, data));
    }

    /// With a record more; the name is relative to the zone.
    pub fn with(mut self, host: &str, kind: Rtype, data: Vec<u8>) -> Zone {
        let name = at(host, &self.name);
        self.add(&name, kind, data);
        self
    }

    pub fn valid(mut self, window: Window) -> Zone {
        self.window = window;
        self
    }

    pub fn public(&self) -> Vec<u8> {
        dnskey(self.key.as_ref().unwrap())
    }

    fn set(&self, name: &str, kind: Rtype) -> Option<Vec<Record>> {
        self.records.get(&(canonical(name), kind.to_int())).cloned()
    }

    fn kinds(&self, name: &[Vec<u8>]) -> BTreeSet<u16> {
        let all = self.records.keys();
        all.filter(|(owner, _)| owner == name)
            .map(|(_, kind)| *kind)
            .collect()
    }

    /// A set with its signature, each under the name that was asked for.
    pub fn sign_as(&self, set: &[Record], shown: &str) -> Vec<Record> {
        let mut out = set.to_vec();
        for one in &mut out {
            shown.clone_into(&mut one.name);
        }
        if let Some(key) = &self.key {
            out.push(self.signature(key, set, shown));
        }
        out
    }

    pub fn sign(&self, set: &[Record]) -> Vec<Record> {
        self.sign_as(set, &set[0].name)
    }

    /// RFC 4034, 3.1.8.1.
    pub fn signature(&self, key: &EcKey<Private>, set: &[Record], shown: &str) -> Record {
        let owner = set[0].name.to_ascii_lowercase();
        let labels = canonical(&owner)
            .iter()
            .filter(|label| *label != b"*")
            .count();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let time = |offset: i64| {
            let time = i64::try_from(now.as_secs()).unwrap() + offset;
            u32::try_from(time).unwrap().to_be_bytes()
        };
        let kind = set[0].kind.to_int().to_be_bytes();
        let mut head = kind.to_vec();
        head.extend([ALGORITHM, u8::try_from(labels).unwrap()]);
        head.extend(TTL.to_be_bytes());
        head.extend(time(self.window.1));
        head.extend(time(self.window.0));
        head.extend(tag(&dnskey(key)).to_be_bytes());
        head.extend(wire(&self.name.to_ascii_lowercase()));
        let mut signed = head.clone();
        let data: BTreeSet<Vec<u8>> = set.iter().map(|one| one.data.clone()).collect();
        for data in data {
            signed.extend(wire(&owner));
            signed.extend(kind);
            signed.extend(1_u16.to_be_bytes());
            signed.extend(TTL.to_be_bytes());
            signed.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            // Names within the data of these tests are in lower case.
            signed.extend(data);
        }
        let made = EcdsaSig::sign(&sha256(&signed), key).unwrap();
        for number in [made.r(), made.s()] {
            head.extend(number.to_vec_padded(32).unwrap());
        }
        record(shown, Rtype::RRSIG, head)
    }

    /// All names that are there, with those between that have no records. Without
    /// unsigned delegations and what is there only because of them, if so wanted.
    fn names(&self, opt_out: bool) -> BTreeSet<Canonical> {
        let apex = canonical(&self.name);
        let mut names = BTreeSet::new();
        for (owner, _) in self.records.keys() {
            let kinds = self.kinds(owner);
            let delegation = *owner != apex && kinds.contains(&Rtype::NS.to_int());
            if opt_out && delegation && !kinds.contains(&Rtype::DS.to_int()) {
                continue;
            }
            names.extend((apex.len()..=owner.len()).map(|length| owner[..length].to_vec()));
        }
        names
    }

    /// The NSEC or NSEC3 that matches a name, or else covers it, signed.
    pub fn denier(&self, name: &str) -> Vec<Record> {
        if self.key.is_none() {
            return Vec::new();
        }
        let one = match self.denial {
            Denial::Nsec => self.nsec(name),
            Denial::Nsec3 { rounds, opt_out } => self.nsec3(name, rounds, opt_out),
        };
        self.sign(&[one])
    }

    fn listed(&self, name: &[Vec<u8>], more: &[Rtype]) -> Vec<u8> {
        let mut kinds = self.kinds(name);
        // An unsigned delegation has nothing that is signed, unless NSEC itself.
        let apex = name.len() == canonical(&self.name).len();
        let unsigned = kinds.is_empty()
            || !apex && kinds.contains(&Rtype::NS.to_int()) && !kinds.contains(&Rtype::DS.to_int());
        if !unsigned {
            kinds.insert(Rtype::RRSIG.to_int());
        }
        kinds.extend(more.iter().map(|kind| kind.to_int()));
        bitmap(&kinds)
    }

    fn nsec(&self, name: &str) -> Record {
        let wanted = canonical(name);
        let mut names: Vec<_> = self.names(false).into_iter().collect();
        names.retain(|owner| !self.kinds(owner).is_empty());
        let at = names
            .iter()
            .rposition(|owner| *owner <= wanted)
            .unwrap_or(names.len() - 1);
        let next = &names[(at + 1) % names.len()];
        let bits = self.listed(&names[at], &[Rtype::NSEC, Rtype::RRSIG]);
        let data = [wire(&text(next)), bits].concat();
        record(&text(&names[at]), Rtype::NSEC, data)
    }

    fn nsec3(&self, name: &str, rounds: u16, opt_out: bool) -> Record {
        let names = self.names(opt_out).into_iter();
        let hashes: BTreeMap<Vec<u8>, Canonical> = names
            .map(|owner| (hash(&text(&owner), rounds), owner))
            .collect();
        let wanted = hash(name, rounds);
        let before = hashes.range(..=wanted.clone()).next_back();
        let (own, owner) = before.or_else(|| hashes.iter().next_back()).unwrap();
        let after = hashes.range(own.clone()..).nth(1);
        let next = after.or_else(|| hashes.iter().next()).unwrap().0;
        let apex = *owner == canonical(&self.name);
        let more: &[Rtype] = if apex { &[Rtype::NSEC3PARAM] } else { &[] };
        let mut data = vec![1, u8::from(opt_out)];
        data.extend(rounds.to_be_bytes());
        data.extend([0, 20]);
        data.extend(next);
        data.extend(self.listed(owner, more));
        record(&at(&base32(own), &self.name), Rtype::NSEC3, data)
    }

    fn soa(&self) -> Vec<Record> {
        self.sign(&self.set(&self.name, Rtype::SOA).unwrap())
    }

    /// The longest name above one that is there, and the name right below it on
    /// the way: RFC 5155, 1.3.
    fn encloser(&self, name: &str) -> (String, String) {
        let opt_out = matches!(self.denial, Denial::Nsec3 { opt_out: true, .. });
        let names = self.names(opt_out);
        let wanted = canonical(name);
        let length = (0..=wanted.len())
            .rev()
            .find(|&length| names.contains(&wanted[..length]));
        let length = length.unwrap_or(canonical(&self.name).len());
        let nearer = &wanted[..(length + 1).min(wanted.len())];
        (text(&wanted[..length]), text(nearer))
    }

    /// What proves that a name or its type is not there.
    fn denial_of(&self, name: &str) -> Vec<Record> {
        let mut out = self.soa();
        let (encloser, nearer) = self.encloser(name);
        let mut add = |records: Vec<Record>| {
            if !out.contains(&records[0]) {
                out.extend(records);
            }
        };
        if self.key.is_none() {
            return out;
        }
        match self.denial {
            _ if encloser == text(&canonical(name)) => add(self.denier(name)),
            Denial::Nsec => {
                add(self.denier(name));
                add(self.denier(&at("*", &encloser)));
            }
            Denial::Nsec3 { .. } => {
                add(self.denier(&encloser));
                add(self.denier(&nearer));
                add(self.denier(&at("*", &encloser)));
            }
        }
        out
    }

    fn has(&self, name: &str) -> bool {
        self.names(false).contains(&canonical(name))
    }

    fn answer(&self, question: &Packet) -> Packet {
        let name = &question.name;
        let mut reply = question.failure(Rcode::NOERROR);
        // A resolver answers; this one is asked for signatures always.
        reply.flags |= 0x0180;
        reply.edns = question.edns;
        if let Some(moved) = self.redirected(name, question.kind) {
            reply.answers = moved;
        } else if self.has(name) {
            match self.found(name, question.kind) {
                Some(set) => reply.answers = self.sign_as(&set, name),
                None => reply.authorities = self.denial_of(name),
            }
        } else {
            let (encloser, nearer) = self.encloser(name);
            let wild = at("*", &encloser);
            match self.found(&wild, question.kind) {
                Some(set) => {
                    reply.answers = self.sign_as(&set, name);
                    reply.authorities = match self.denial {
                        Denial::Nsec => self.denier(name),
                        Denial::Nsec3 { .. } => self.denier(&nearer),
                    };
                }
                None if self.has(&wild) => {
                    reply.authorities = self.denial_of(name);
                }
                None => {
                    reply.authorities = self.denial_of(name);
                    reply.flags |= u16::from(Rcode::NXDOMAIN.to_int());
                }
            }
        }
        reply
    }

    fn found(&self, name: &str, kind: Rtype) -> Option<Vec<Record>> {
        self.set(name, kind)
            .or_else(|| self.set(name, Rtype::CNAME))
    }

    /// The DNAME above a name, and the CNAME that is made of it.
    fn redirected(&self, name: &str, _: Rtype) -> Option<Vec<Record>> {
        let set = self.records.values().find(|set| {
            let above = &set[0].name;
            let same = canonical(above) == canonical(name);
            set[0].kind == Rtype::DNAME && within(name, above) && !same
        })?;
        let above = &set[0].name;
        let kept = &wire(name)[..wire(name).len() - wire(above).len()];
        let target = [kept, &set[0].data].concat();
        let mut out = self.sign_as(set, above);
        out.push(record(name, Rtype::CNAME, target));
        Some(out)
    }
}

/// A host of a zone.
pub fn at(host: &str, zone: &str) -> String {
    match (host, zone) {
        ("@", zone) => zone.to_owned(),
        (host, ".") => format!("{host}."),
        (host, zone) => format!("{host}.{zone}"),
    }
}

/// Zones that hang together.
pub struct Tree {
    pub zones: Vec<Zone>,
}

impl Tree {
    /// A signed root over these; a parent knows of each child that it is there, and
    /// where it is signed, of its key.
    pub fn new(zones: Vec<Zone>) -> Tree {
        let mut zones = zones;
        zones.push(Zone::signed(".", Denial::Nsec));
        for child in 0..zones.len() - 1 {
            let name = zones[child].name.clone();
            let ds = zones[child].key.as_ref().map(|key| ds(&name, &dnskey(key)));
            let parents = zones.iter().enumerate();
            let parents = parents.filter(|(at, zone)| *at != child && within(&name, &zone.name));
            let (parent, _) = parents
                .max_by_key(|(_, zone)| canonical(&zone.name).len())
                .unwrap();
            zones[parent].add(&name, Rtype::NS, wire(&at("ns", &name)));
            if let Some(ds) = ds {
                zones[parent].add(&name, Rtype::DS, ds);
            }
        }
        Tree { zones }
    }

    /// The root's key in the form of zone files.
    pub fn anchors(&self) -> String {
        let key = openssl::base64::encode_block(&self.zone(".").public()[4..]);
        format!(". IN DNSKEY 257 3 {ALGORITHM} {key}\n")
    }

    pub fn zone(&self, name: &str) -> &Zone {
        self.zones.iter().find(|zone| zone.name == name).unwrap()
    }

    /// The zone that a question is about: of a DS the parent.
    pub fn zone_of(&self, name: &str, kind: Rtype) -> &Zone {
        let zones = self.zones.iter();
        let above = zones.filter(|zone| {
            let apex = zone.name.eq_ignore_ascii_case(name) && zone.name != ".";
            within(name, &zone.name) && !(apex && kind == Rtype::DS)
        });
        above
            .max_by_key(|zone| canonical(&zone.name).len())
            .unwrap()
    }

    pub fn answer(&self, question: &Packet) -> Packet {
        self.zone_of(&question.name, question.kind).answer(question)
    }

    /// The answer to a question of the test's.
    pub fn ask(&self, name: &str, kind: Rtype) -> Packet {
        self.answer(&Packet::question(name, kind))
    }
}

/// An address that nobody calls.
pub fn somewhere() -> Vec<u8> {
    a(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)))
}
