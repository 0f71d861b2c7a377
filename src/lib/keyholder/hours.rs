//! The keys under which tickets are made, one for each hour. They are in the key
//! master, which makes them, and in its keyholders; the key of one ticket is
//! derived from them, and that is all that an engine gets.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::md::Md;
use openssl::pkey::Id;
use openssl::pkey_ctx::{HkdfMode, PkeyCtx};
use openssl::rand::rand_bytes;

use crate::secret::Secret;
use crate::tls_ffi::tickets::{Binding, NewTicket, ShownTicket, TicketKey, TicketName};
use crate::tls_ffi::wipe;

/// How long a key makes new tickets; as long again it opens old ones.
pub const LIFE: Duration = Duration::from_secs(3600);
/// How long a keyholder waits for the master's next key before it makes one.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long until a key that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes of a ticket's name that tell whose it is.
const MARK: usize = 4;
/// Bytes of an hour's key.
const SECRET: usize = 32;
/// The longest message that carries keys.
pub const MESSAGE_LIMIT: usize = 8 + 2 * (MARK + SECRET);

/// The key of one hour.
struct Hour(Box<[u8; MARK + SECRET]>);

impl Drop for Hour {
    fn drop(&mut self) {
        wipe(&mut self.0[..]);
    }
}

impl Hour {
    fn fresh() -> Result<Hour, ErrorStack> {
        let mut hour = Hour(Box::new([0; MARK + SECRET]));
        rand_bytes(&mut hour.0[..])?;
        Ok(hour)
    }

    fn mark(&self) -> &[u8] {
        &self.0[..MARK]
    }

    fn derive(&self, name: &TicketName, binding: &Binding) -> Result<TicketKey, ErrorStack> {
        derive(&self.0[MARK..], name, binding)
    }
}

/// The key of the ticket of this name under an hour's: HKDF (RFC 5869 section
/// 2.3; the hour's key is as random as an extracted one).
///
/// # Errors
/// Libcrypto's.
pub fn derive(
    secret: &[u8],
    name: &TicketName,
    binding: &Binding,
) -> Result<TicketKey, ErrorStack> {
    let mut context = PkeyCtx::new_id(Id::HKDF)?;
    context.derive_init()?;
    context.set_hkdf_mode(HkdfMode::EXPAND_ONLY)?;
    // Its digest is as long as the key: one round.
    context.set_hkdf_md(Md::sha512())?;
    context.set_hkdf_key(secret)?;
    context.add_hkdf_info(b"ucspi-tls ticket")?;
    context.add_hkdf_info(name)?;
    context.add_hkdf_info(binding)?;
    let mut key = TicketKey::zeroed();
    context.derive(Some(key.bytes_mut()))?;
    Ok(key)
}

/// The keys of this hour and of the one before.
pub struct Hours {
    current: Hour,
    previous: Option<Hour>,
    replace_at: Instant,
    life: Duration,
}

impl Hours {
    /// New ones; whoever had others has none any more. Each makes tickets for
    /// `life`, which is [`LIFE`] in every program that is installed.
    ///
    /// # Errors
    /// Libcrypto has no randomness.
    pub fn fresh(life: Duration) -> Result<Hours, ErrorStack> {
        Ok(Hours {
            current: Hour::fresh()?,
            previous: None,
            replace_at: Instant::now() + life,
            life,
        })
    }

    /// How long a key makes new tickets.
    #[must_use]
    pub fn life(&self) -> Duration {
        self.life
    }

    /// When the master replaces a key.
    #[must_use]
    pub fn replace_at(&self) -> Instant {
        self.replace_at
    }

    /// When a keyholder that hears nothing from the master does so by itself.
    #[must_use]
    pub fn give_up_at(&self) -> Instant {
        self.replace_at + PATIENCE.min(self.life / 10)
    }

    /// Makes the next key. The one before the last is wiped.
    ///
    /// # Errors
    /// Libcrypto has no randomness; the old keys stay for another second.
    pub fn replace(&mut self) -> Result<(), ErrorStack> {
        let now = Instant::now();
        let overdue = now.saturating_duration_since(self.replace_at) >= self.life;
        let fresh = Hour::fresh().inspect_err(|_| self.replace_at = now + RETRY)?;
        let retired = std::mem::replace(&mut self.current, fresh);
        // A process that was stopped for hours keeps nothing.
        self.previous = (!overdue).then_some(retired);
        self.replace_at = now + self.life;
        Ok(())
    }

    /// The key of a ticket that a client showed.
    ///
    /// # Errors
    /// Libcrypto's.
    pub fn open(&self, name: &TicketName, binding: &Binding) -> Result<ShownTicket, ErrorStack> {
        let mark = &name[..MARK];
        match &self.previous {
            _ if self.current.mark() == mark => {
                self.current.derive(name, binding).map(ShownTicket::Current)
            }
            Some(previous) if previous.mark() == mark => {
                previous.derive(name, binding).map(ShownTicket::Old)
            }
            _ => Ok(ShownTicket::Unknown),
        }
    }

    /// A ticket that an engine may make.
    ///
    /// # Errors
    /// Libcrypto's.
    pub fn make(&self, binding: &Binding) -> Result<NewTicket, ErrorStack> {
        let mut name = [0; 16];
        let (mark, rest) = name.split_at_mut(MARK);
        mark.copy_from_slice(self.current.mark());
        rand_bytes(rest)?;
        let key = self.current.derive(&name, binding)?;
        Ok(NewTicket { name, key })
    }

    /// All of it, for a keyholder: milliseconds until it is replaced, then the
    /// keys.
    #[must_use]
    pub fn to_bytes(&self) -> Secret {
        let left = self.replace_at.saturating_duration_since(Instant::now());
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let mut bytes = Vec::with_capacity(MESSAGE_LIMIT);
        bytes.extend(left.to_be_bytes());
        for hour in std::iter::once(&self.current).chain(&self.previous) {
            bytes.extend_from_slice(&hour.0[..]);
        }
        Secret::new(bytes)
    }

    /// Reads what [`Hours::to_bytes`] wrote, of keys with this life.
    #[must_use]
    pub fn parse(bytes: &[u8], life: Duration) -> Option<Hours> {
        let (left, keys) = bytes.split_first_chunk()?;
        let keys = keys.chunks_exact(MARK + SECRET);
        let rest = keys.remainder();
        let mut keys = keys.map(|key| {
            let mut hour = Hour(Box::new([0; MARK + SECRET]));
            hour.0.copy_from_slice(key);
            hour
        });
        let left = Duration::from_millis(u64::from_be_bytes(*left)).min(life);
        let hours = Hours {
            current: keys.next()?,
            previous: keys.next(),
            replace_at: Instant::now() + left,
            life,
        };
        (rest.is_empty() && keys.next().is_none()).then_some(hours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_s_key_is_its_own() {
        let hours = Hours::fresh(LIFE).expect("keys");
        let (here, there) = ([1; 32], [2; 32]);
        let new = hours.make(&here).expect("a ticket");
        let shown = hours.open(&new.name, &here).expect("an answer");
        assert_eq!(shown, ShownTicket::Current(new.key.clone()));
        let other = hours.make(&here).expect("a ticket");
        assert!(other.name != new.name && other.key != new.key);
        let elsewhere = hours.open(&new.name, &there).expect("an answer");
        assert!(matches!(elsewhere, ShownTicket::Current(key) if key != new.key));
        let mut foreign = new.name;
        foreign[0] ^= 1;
        assert_eq!(
            hours.open(&foreign, &here).expect("an answer"),
            ShownTicket::Unknown
        );
    }

    #[test]
    fn keys_open_for_one_hour_more_and_travel_whole() {
        let mut hours = Hours::fresh(LIFE).expect("keys");
        let first = hours.make(&[0; 32]).expect("a ticket");
        hours.replace().expect("a key");
        let open = |hours: &Hours| hours.open(&first.name, &[0; 32]).expect("an answer");
        assert_eq!(open(&hours), ShownTicket::Old(first.key.clone()));
        let copy = Hours::parse(&hours.to_bytes(), LIFE).expect("the same");
        assert_eq!(open(&copy), ShownTicket::Old(first.key.clone()));
        assert!(copy.replace_at() <= hours.replace_at());
        hours.replace().expect("a key");
        assert_eq!(open(&hours), ShownTicket::Unknown);
        for bytes in [&b""[..], &[0; 8], &[0; 43], &[0; 8 + 3 * 36]] {
            assert!(Hours::parse(bytes, LIFE).is_none(), "{}", bytes.len());
        }
    }

    /// RFC 5869 has no vectors for SHA-512: this is HMAC-SHA-512 of the info and
    /// a one, as its section 2.3 says.
    #[test]
    fn a_key_is_one_round_of_hkdf() {
        use openssl::hash::MessageDigest;
        use openssl::pkey::PKey;
        use openssl::sign::Signer;

        let key = derive(&[7; 32], &[8; 16], &[9; 32]).expect("a key");
        let hmac = PKey::hmac(&[7; 32]).expect("a key");
        let mut signer = Signer::new(MessageDigest::sha512(), &hmac).expect("a signer");
        let info = [b"ucspi-tls ticket", &[8; 16][..], &[9; 32], &[1]].concat();
        let expected = signer.sign_oneshot_to_vec(&info).expect("a digest");
        assert_eq!(key.bytes()[..], expected[..]);
    }
}
