//! What the handshakes of a store can be: the measure by which the keyholder
//! judges what an engine wants signed. Libssl itself is asked, by a ClientHello
//! made from the same settings.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslContextBuilder, SslMethod, SslStream};

use super::Certificate;
use crate::hello::{self, Terms};
use crate::settings::Version;

/// Parameters of finite-field Diffie-Hellman, each number high byte first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Finite {
    /// The prime.
    pub prime: Vec<u8>,
    /// The generator.
    pub generator: Vec<u8>,
}

/// What is signed for a store. Numbers are those of the wire (RFC 8446 section
/// 4.2, IANA's "TLS Parameters").
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Permit {
    /// Lowest version.
    pub lowest: u16,
    /// Highest version.
    pub highest: u16,
    /// Whether a server of this store marks every older handshake as one that
    /// could have been TLS 1.3 (RFC 8446 section 4.1.3).
    pub marks_downgrades: bool,
    /// Groups for key exchange.
    pub groups: Vec<u16>,
    /// Signature schemes.
    pub schemes: Vec<u16>,
    /// Parameters of DHE below TLS 1.3.
    pub finite: Option<Finite>,
}

impl Permit {
    /// What a server does with these versions and certificates. `client` has
    /// been given the server's other settings.
    ///
    /// # Errors
    /// Libssl refuses.
    pub fn learn(
        client: SslContextBuilder,
        (lowest, highest): (Version, Option<Version>),
        certificates: &[&Certificate],
        finite: Option<Finite>,
    ) -> Result<Permit, ErrorStack> {
        let mut server = SslContextBuilder::new(SslMethod::tls_server())?;
        hello::record(&mut server, Arc::new(Terms::any()))?;
        let mut client = SslStream::new(Ssl::new(&client.build())?, Memory::default())?;
        // Each stops for want of the other's answer.
        let _ = client.connect();
        let client = Memory {
            sends: std::mem::take(&mut client.get_mut().heard),
            heard: Vec::new(),
        };
        let mut server = SslStream::new(Ssl::new(&server.build())?, client)?;
        let _ = server.accept();
        let hello = hello::of(server.ssl());
        let schemes = hello.and_then(hello::Hello::signatures).unwrap_or_default();
        let schemes: Vec<u16> = schemes.into_iter().map(|(scheme, _)| scheme).collect();
        let highest = highest.unwrap_or(Version::Tls13).wire();
        Ok(Permit {
            lowest: lowest.wire(),
            highest,
            // A server whose certificates TLS 1.3 has no use for does not speak it.
            marks_downgrades: highest >= Version::Tls13.wire()
                && certificates
                    .iter()
                    .any(|certificate| serves_tls13(certificate, &schemes)),
            groups: hello.map(hello::Hello::groups).unwrap_or_default(),
            schemes,
            finite,
        })
    }

    /// One under which nothing is signed.
    #[must_use]
    pub fn nothing() -> Permit {
        Permit {
            lowest: u16::MAX,
            highest: 0,
            marks_downgrades: true,
            groups: Vec::new(),
            schemes: Vec::new(),
            finite: None,
        }
    }

    /// Writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let none = Finite::default();
        let finite = self.finite.as_ref().unwrap_or(&none);
        let numbers = [self.lowest, self.highest, u16::from(self.marks_downgrades)];
        let mut bytes: Vec<u8> = numbers.into_iter().flat_map(u16::to_be_bytes).collect();
        let words = |list: &[u16]| list.iter().copied().flat_map(u16::to_be_bytes).collect();
        for part in [
            words(&self.groups),
            words(&self.schemes),
            finite.prime.clone(),
            finite.generator.clone(),
        ] {
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            bytes.extend(length.to_be_bytes());
            bytes.extend(&part[..usize::from(length)]);
        }
        bytes
    }

    /// Reads what [`Permit::to_bytes`] wrote.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Permit> {
        let mut rest = bytes;
        let lowest = number(&mut rest)?;
        let highest = number(&mut rest)?;
        let marks_downgrades = number(&mut rest)? != 0;
        let mut part = || -> Option<&[u8]> {
            let length = number(&mut rest)?;
            let (part, behind) = rest.split_at_checked(length.into())?;
            rest = behind;
            Some(part)
        };
        let (groups, schemes, prime, generator) = (part()?, part()?, part()?, part()?);
        let words = |part: &[u8]| {
            part.chunks_exact(2)
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
                .collect()
        };
        rest.is_empty().then(|| Permit {
            lowest,
            highest,
            marks_downgrades,
            groups: words(groups),
            schemes: words(schemes),
            finite: (!prime.is_empty()).then(|| Finite {
                prime: prime.to_vec(),
                generator: generator.to_vec(),
            }),
        })
    }
}

fn number(rest: &mut &[u8]) -> Option<u16> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u16::from_be_bytes(*number))
}

/// Whether libssl takes TLS 1.3 for possible with a certificate: an EC key must
/// be of the curve of a scheme (RFC 8446 section 4.2.3).
fn serves_tls13(certificate: &Certificate, schemes: &[u16]) -> bool {
    let Ok(key) = certificate.leaf.public_key() else {
        return false;
    };
    match key.ec_key() {
        Ok(key) => key
            .group()
            .curve_name()
            .and_then(hello::scheme_of_curve)
            .is_some_and(|scheme| schemes.contains(&scheme)),
        Err(_) => true,
    }
}

/// A peer that answers nothing: what it sends was given, what it hears is kept.
#[derive(Default)]
struct Memory {
    sends: Vec<u8>,
    heard: Vec<u8>,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.sends.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(self.sends.len());
        buffer[..count].copy_from_slice(&self.sends[..count]);
        self.sends.drain(..count);
        Ok(count)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(list: &[(&str, &str)], versions: (Version, Option<Version>)) -> Permit {
        let mut client = SslContextBuilder::new(SslMethod::tls_client()).expect("a context");
        for (what, value) in list {
            let set = match *what {
                "groups" => client.set_groups_list(value),
                "schemes" => client.set_sigalgs_list(value),
                _ => client.set_cipher_list(value),
            };
            set.expect("a list that OpenSSL knows");
        }
        Permit::learn(client, versions, &[], None).expect("a permit")
    }

    #[test]
    fn libssl_says_what_the_settings_mean() {
        let both = (Version::Tls12, None);
        let permit = learn(
            &[
                ("groups", "P-384:X25519"),
                ("schemes", "RSA+SHA256:ecdsa_secp256r1_sha256"),
            ],
            both,
        );
        assert_eq!(permit.groups, [24, 29]);
        assert_eq!(permit.schemes, [0x0401, 0x0403]);
        assert_eq!((permit.lowest, permit.highest), (0x0303, 0x0304));
        let default = learn(&[], both);
        assert!(default.groups.contains(&23) && default.schemes.contains(&0x0804));
        assert!(!default.schemes.contains(&0x0201), "SHA-1 at level 2");
        let level_zero = learn(&[("ciphers", "DEFAULT@SECLEVEL=0")], both);
        assert!(level_zero.schemes.contains(&0x0201));
    }

    #[test]
    fn a_permit_survives_its_way() {
        let mut permit = learn(&[], (Version::Tls12, Some(Version::Tls12)));
        assert_eq!(Permit::parse(&permit.to_bytes()).as_ref(), Some(&permit));
        permit.finite = Some(Finite {
            prime: vec![0xff; 256],
            generator: vec![2],
        });
        let bytes = permit.to_bytes();
        assert_eq!(Permit::parse(&bytes).as_ref(), Some(&permit));
        assert_eq!(Permit::parse(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Permit::parse(b""), None);
    }
}
