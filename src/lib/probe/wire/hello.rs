//! A ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2, RFC 6101 for
//! SSL 3.0), written as a record.
#![forbid(unsafe_code)]

use super::{content, extension};
use crate::probe::result::Version;

/// The signature algorithms of each kind of key, the strongest first.
pub const RSA_SIGNATURES: &[u16] = &[
    0x0806, 0x0805, 0x0804, 0x080b, 0x080a, 0x0809, 0x0601, 0x0501, 0x0401, 0x0301, 0x0201, 0x0101,
];
/// Those of ECDSA.
pub const ECDSA_SIGNATURES: &[u16] = &[0x0603, 0x0503, 0x0403, 0x0303, 0x0203];
/// Those of Ed25519 and Ed448.
pub const EDWARDS_SIGNATURES: &[u16] = &[0x0808, 0x0807];
/// Those of DSS.
const DSS_SIGNATURES: &[u16] = &[0x0602, 0x0502, 0x0402, 0x0302, 0x0202];

/// Values that mean nothing (RFC 8701): a server must pass them by.
const GREASE: u16 = 0x5a5a;
const GREASE_TOO: u16 = 0xaaaa;
/// An extension that nobody has defined.
const UNKNOWN_EXTENSION: u16 = 0x7c3d;

/// All that a ClientHello offers.
#[derive(Clone, Debug)]
pub struct ClientHello<'a> {
    /// The highest version; below TLS 1.3 it stands for all below it.
    pub version: Version,
    /// With TLS 1.3, the older versions that are offered besides.
    pub older: &'a [Version],
    /// Suites in order.
    pub suites: &'a [u16],
    /// Groups in order.
    pub groups: &'a [u16],
    /// Signature algorithms in order, from TLS 1.2 on; none: the extension is
    /// left out.
    pub signatures: &'a [u16],
    /// SNI.
    pub server_name: Option<&'a str>,
    /// A public key of X25519's, for servers that send no HelloRetryRequest;
    /// without it TLS 1.3 servers say which group they want.
    pub share: Option<[u8; 32]>,
    /// Values that mean nothing in each list.
    pub grease: bool,
    /// At least so many bytes, by padding (RFC 7685).
    pub least_length: usize,
    /// For random and session id.
    pub random: [u8; 64],
}

impl<'a> ClientHello<'a> {
    /// One that offers these suites and groups, with signatures of every kind.
    #[must_use]
    pub fn new(version: Version, suites: &'a [u16], groups: &'a [u16], random: [u8; 64]) -> Self {
        ClientHello {
            version,
            older: &[],
            suites,
            groups,
            signatures: ALL_SIGNATURES,
            server_name: None,
            share: None,
            grease: false,
            least_length: 0,
            random,
        }
    }

    /// The record's version: that which old servers want of a first record.
    fn record_version(&self) -> u16 {
        self.version.number().min(Version::Tls10.number())
    }

    /// As it goes on the wire: one record, or two where it is too long for one.
    #[must_use]
    pub fn record(&self) -> Vec<u8> {
        let mut body = self.body(0);
        let missing = self.least_length.saturating_sub(body.len() + 4 + 4);
        if missing > 0 && self.version > Version::Ssl3 {
            body = self.body(missing);
        }
        let mut message = vec![1];
        message.extend(&u32::try_from(body.len()).unwrap_or(0).to_be_bytes()[1..]);
        message.extend(body);
        let mut out = Vec::new();
        for piece in message.chunks(1 << 14) {
            out.push(content::HANDSHAKE);
            out.extend(self.record_version().to_be_bytes());
            push_with_length(&mut out, piece);
        }
        out
    }

    fn body(&self, padding: usize) -> Vec<u8> {
        let mut out = self
            .version
            .number()
            .min(Version::Tls12.number())
            .to_be_bytes()
            .to_vec();
        let (random, session) = self.random.split_at(32);
        out.extend(random);
        if self.version == Version::Tls13 {
            // RFC 8446 appendix D.4: middleboxes want to see a session.
            out.push(32);
            out.extend(session);
        } else {
            out.push(0);
        }
        let mut suites = Vec::new();
        if self.grease {
            suites.extend(GREASE.to_be_bytes());
        }
        suites.extend(self.suites.iter().flat_map(|suite| suite.to_be_bytes()));
        // RFC 5746: secure renegotiation, by its signalling value.
        suites.extend(0x00ff_u16.to_be_bytes());
        push_with_length(&mut out, &suites);
        out.extend([1, 0]);
        if self.version > Version::Ssl3 {
            push_with_length(&mut out, &self.extensions(padding));
        }
        out
    }

    fn extensions(&self, padding: usize) -> Vec<u8> {
        let mut out = Vec::new();
        if self.grease {
            push_extension(&mut out, GREASE, &[]);
        }
        if let Some(name) = self.server_name {
            let mut entry = vec![0];
            push_with_length(&mut entry, name.as_bytes());
            push_extension(&mut out, extension::SERVER_NAME, &with_length(&entry));
        }
        let grease = self.grease.then_some(GREASE);
        let groups: Vec<u16> = grease
            .into_iter()
            .chain(self.groups.iter().copied())
            .collect();
        if !groups.is_empty() {
            push_extension(&mut out, extension::SUPPORTED_GROUPS, &list(&groups));
            push_extension(&mut out, extension::POINT_FORMATS, &[1, 0]);
        }
        if self.version >= Version::Tls12 && !self.signatures.is_empty() {
            let signatures: Vec<u16> = grease
                .into_iter()
                .chain(self.signatures.iter().copied())
                .collect();
            push_extension(
                &mut out,
                extension::SIGNATURE_ALGORITHMS,
                &list(&signatures),
            );
        }
        push_extension(&mut out, extension::EXTENDED_MASTER_SECRET, &[]);
        if self.version == Version::Tls13 {
            self.push_thirteen(&mut out);
        }
        if self.grease {
            push_extension(&mut out, UNKNOWN_EXTENSION, b"nobody knows this");
            push_extension(&mut out, GREASE_TOO, &[0]);
        }
        if padding > 0 {
            push_extension(&mut out, extension::PADDING, &vec![0; padding]);
        }
        out
    }

    /// What TLS 1.3 wants.
    fn push_thirteen(&self, out: &mut Vec<u8>) {
        let mut versions: Vec<u8> = Vec::new();
        if self.grease {
            versions.extend(GREASE.to_be_bytes());
        }
        for version in std::iter::once(&self.version).chain(self.older) {
            versions.extend(version.number().to_be_bytes());
        }
        versions.insert(0, u8::try_from(versions.len()).unwrap_or(0));
        push_extension(out, extension::SUPPORTED_VERSIONS, &versions);
        // psk_dhe_ke.
        push_extension(out, extension::PSK_MODES, &[1, 1]);
        let mut shares = Vec::new();
        if self.grease {
            shares.extend(GREASE.to_be_bytes());
            push_with_length(&mut shares, &[0]);
        }
        if let Some(key) = self.share {
            shares.extend(0x001d_u16.to_be_bytes());
            push_with_length(&mut shares, &key);
        }
        push_extension(out, extension::KEY_SHARE, &with_length(&shares));
    }
}

/// Signatures of every kind.
pub const ALL_SIGNATURES: &[u16] = &{
    const COUNT: usize = RSA_SIGNATURES.len()
        + ECDSA_SIGNATURES.len()
        + EDWARDS_SIGNATURES.len()
        + DSS_SIGNATURES.len();
    let mut all = [0; COUNT];
    let lists = [
        ECDSA_SIGNATURES,
        EDWARDS_SIGNATURES,
        RSA_SIGNATURES,
        DSS_SIGNATURES,
    ];
    let (mut at, mut which) = (0, 0);
    while which < lists.len() {
        let mut own = 0;
        while own < lists[which].len() {
            all[at] = lists[which][own];
            at += 1;
            own += 1;
        }
        which += 1;
    }
    all
};

/// A list of numbers with its length.
fn list(numbers: &[u16]) -> Vec<u8> {
    let bytes: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect();
    with_length(&bytes)
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 2);
    push_with_length(&mut out, bytes);
    out
}

/// Bytes behind their length in 16 bits. Nothing here is longer.
fn push_with_length(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(bytes);
}

fn push_extension(out: &mut Vec<u8>, number: u16, body: &[u8]) {
    out.extend(number.to_be_bytes());
    push_with_length(out, body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version: Version) -> ClientHello<'static> {
        ClientHello::new(version, &[0x0035, 0x000a], &[0x1d, 0x17], [7; 64])
    }

    #[test]
    fn ssl_3_has_no_extensions_and_its_own_version() {
        let bytes = hello(Version::Ssl3).record();
        assert_eq!(&bytes[..5], [22, 3, 0, 0, 49]);
        assert_eq!(&bytes[5..11], [1, 0, 0, 45, 3, 0]);
        assert_eq!(bytes[11..43], [7; 32]);
        // No session; two suites and the signalling one; no compression.
        assert_eq!(bytes[43..], [0, 0, 6, 0, 0x35, 0, 0x0a, 0, 0xff, 1, 0]);
    }

    #[test]
    fn tls_13_has_its_versions_and_a_session() {
        let mut hello = hello(Version::Tls13);
        hello.older = &[Version::Tls12];
        hello.server_name = Some("mx.example");
        let bytes = hello.record();
        assert_eq!(&bytes[..3], [22, 3, 1]);
        assert_eq!(bytes[9..11], [3, 3], "TLS 1.2 for who knows no extension");
        assert_eq!(bytes[43], 32);
        let holds = |wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
        assert!(holds(&[0, 43, 0, 5, 4, 3, 4, 3, 3]));
        assert!(holds(b"\0\0\0\x0f\0\x0d\0\0\x0amx.example"));
        assert!(
            holds(&[0, 51, 0, 2, 0, 0]),
            "no share: the server names its group"
        );
    }

    #[test]
    fn a_long_one_has_the_length_that_was_asked_for() {
        let mut hello = hello(Version::Tls12);
        hello.least_length = 2000;
        let bytes = hello.record();
        assert_eq!(bytes.len(), 2000 + 5);
        let length = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
        assert_eq!(length, 2000);
        let inner = u32::from_be_bytes([0, bytes[6], bytes[7], bytes[8]]);
        assert_eq!(inner, 1996);
    }

    #[test]
    fn grease_is_in_every_list() {
        let mut hello = hello(Version::Tls13);
        hello.grease = true;
        let bytes = hello.record();
        let count = bytes
            .windows(2)
            .filter(|pair| **pair == [0x5a, 0x5a])
            .count();
        // Suites, extension, groups, signatures, versions, shares.
        assert_eq!(count, 6);
    }
}
