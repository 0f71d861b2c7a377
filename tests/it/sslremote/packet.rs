//! DNS messages that a test takes apart, changes and puts together again.
#![forbid(unsafe_code)]

use domain::base::iana::Rcode;
use domain::base::name::ToName as _;
use domain::base::rdata::ComposeRecordData as _;
use domain::base::{Message, Name, ParsedName, ParsedRecord, Rtype};
use domain::rdata::AllRecordData;

/// A record: its name and type, and its data without packed names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    pub kind: Rtype,
    pub ttl: u32,
    pub data: Vec<u8>,
}

/// A message. Names are as in zone files, with the dot at the end.
#[derive(Clone, Debug)]
pub struct Packet {
    pub id: u16,
    /// The second half of the header, with the code of the response.
    pub flags: u16,
    pub name: String,
    pub kind: Rtype,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    /// Whether there is an OPT record, and whether it asks for signatures.
    pub edns: Option<bool>,
}

const RESPONSE: u16 = 0x8000;
const RECURSION_DESIRED: u16 = 0x0100;

impl Packet {
    pub fn question(name: &str, kind: Rtype) -> Packet {
        Packet {
            id: 1,
            flags: RECURSION_DESIRED,
            name: name.to_owned(),
            kind,
            answers: Vec::new(),
            authorities: Vec::new(),
            edns: Some(true),
        }
    }

    /// An answer that says no more than a code.
    pub fn failure(&self, rcode: Rcode) -> Packet {
        Packet {
            flags: RESPONSE | u16::from(rcode.to_int()),
            edns: None,
            ..self.clone()
        }
    }

    pub fn parse(bytes: &[u8]) -> Packet {
        let message = Message::from_octets(bytes.to_vec()).unwrap();
        let asked = message.sole_question().unwrap();
        let opt = message.opt();
        let answer = message.answer().unwrap();
        let authority = message.authority().unwrap();
        Packet {
            id: message.header().id(),
            flags: u16::from_be_bytes([bytes[2], bytes[3]]),
            name: asked.qname().fmt_with_dot().to_string(),
            kind: asked.qtype(),
            answers: answer.map(|record| own(&record.unwrap())).collect(),
            authorities: authority.map(|record| own(&record.unwrap())).collect(),
            edns: opt.map(|opt| opt.dnssec_ok()),
        }
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let count = |records: &[Record]| u16::try_from(records.len()).unwrap().to_be_bytes();
        let mut bytes = Vec::new();
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(1_u16.to_be_bytes());
        bytes.extend(count(&self.answers));
        bytes.extend(count(&self.authorities));
        bytes.extend(u16::from(self.edns.is_some()).to_be_bytes());
        bytes.extend(wire(&self.name));
        bytes.extend(self.kind.to_int().to_be_bytes());
        bytes.extend(1_u16.to_be_bytes());
        for record in self.answers.iter().chain(&self.authorities) {
            bytes.extend(wire(&record.name));
            bytes.extend(record.kind.to_int().to_be_bytes());
            bytes.extend(1_u16.to_be_bytes());
            bytes.extend(record.ttl.to_be_bytes());
            bytes.extend(u16::try_from(record.data.len()).unwrap().to_be_bytes());
            bytes.extend(&record.data);
        }
        if let Some(signatures) = self.edns {
            bytes.extend([0, 0, 41, 16, 0, 0, 0]);
            bytes.extend([if signatures { 0x80 } else { 0 }, 0, 0, 0]);
        }
        bytes
    }
}

fn own(record: &ParsedRecord<'_, Vec<u8>>) -> Record {
    let whole = record.to_any_record::<AllRecordData<_, ParsedName<_>>>();
    let mut data = Vec::new();
    whole.unwrap().data().compose_rdata(&mut data).unwrap();
    Record {
        name: record.owner().fmt_with_dot().to_string(),
        kind: record.rtype(),
        ttl: record.ttl().as_secs(),
        data,
    }
}

/// A name as it goes into a message.
pub fn wire(name: &str) -> Vec<u8> {
    Name::vec_from_str(name).unwrap().as_slice().to_vec()
}

/// Whether a name is the other, or below it; both with their last dot.
pub fn within(name: &str, zone: &str) -> bool {
    let (name, zone) = (name.to_ascii_lowercase(), zone.to_ascii_lowercase());
    zone == "." || name == zone || name.ends_with(&format!(".{zone}"))
}
