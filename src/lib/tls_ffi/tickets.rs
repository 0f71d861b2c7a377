//! Session-ticket keys that outlive a process's connections and are replaced in
//! time: `SSL_CTX_set_tlsext_ticket_key_evp_cb` (RFC 5077 section 5.5).
//!
//! The keys are one process-wide pair: every context of a supervisor and its
//! engines uses them, and the session id context keeps listeners and policies
//! apart.

use std::ffi::{c_int, c_uchar, c_void};
use std::ptr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use foreign_types::ForeignTypeRef as _;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;
use openssl::ssl::{SslContextBuilder, SslRef};
use openssl_sys as ffi;

/// How long a key makes new tickets; as long again it reads old ones.
pub const LIFE: Duration = Duration::from_secs(3600);

/// One generation: RFC 5077's recommended AES-CBC and HMAC-SHA-256, with 256 bits.
struct Key {
    name: [u8; 16],
    cipher: [u8; 32],
    mac: [u8; 32],
}

impl Drop for Key {
    fn drop(&mut self) {
        super::wipe(&mut self.cipher);
        super::wipe(&mut self.mac);
    }
}

struct Keys {
    current: Box<Key>,
    previous: Option<Box<Key>>,
    replace_at: Instant,
}

static KEYS: Mutex<Option<Keys>> = Mutex::new(None);

/// [`LIFE`], but for a test that cannot wait so long.
#[cfg(not(feature = "test-switches"))]
const fn life() -> Duration {
    LIFE
}

#[cfg(feature = "test-switches")]
static SHORT: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

#[cfg(feature = "test-switches")]
fn life() -> Duration {
    if SHORT.load(std::sync::atomic::Ordering::Relaxed) {
        Duration::from_secs(1)
    } else {
        LIFE
    }
}

/// Has keys live for a second, for a test.
#[cfg(feature = "test-switches")]
pub fn shorten() {
    SHORT.store(true, std::sync::atomic::Ordering::Relaxed);
}

fn fresh() -> Result<Box<Key>, ErrorStack> {
    let mut key = Box::new(Key {
        name: [0; 16],
        cipher: [0; 32],
        mac: [0; 32],
    });
    rand_bytes(&mut key.name)?;
    rand_bytes(&mut key.cipher)?;
    rand_bytes(&mut key.mac)?;
    Ok(key)
}

/// Makes new keys and forgets all old ones.
///
/// # Errors
/// Libcrypto has no randomness.
pub fn renew() -> Result<(), ErrorStack> {
    let keys = Keys {
        current: fresh()?,
        previous: None,
        replace_at: Instant::now() + life(),
    };
    if let Ok(mut place) = KEYS.lock() {
        *place = Some(keys);
    }
    Ok(())
}

/// Wipes all keys, in a process that has no use for them.
pub fn forget() {
    if let Ok(mut place) = KEYS.lock() {
        *place = None;
    }
}

/// Replaces keys whose time has come; the retired one is wiped. Returns when to
/// call again.
///
/// # Errors
/// Libcrypto has no randomness; the old keys stay.
pub fn rotate() -> Result<Instant, ErrorStack> {
    let now = Instant::now();
    let Ok(mut place) = KEYS.lock() else {
        return Ok(now + life());
    };
    match place.as_mut() {
        Some(keys) if now >= keys.replace_at => {
            let overdue = now.duration_since(keys.replace_at) >= life();
            let retired = std::mem::replace(&mut keys.current, fresh()?);
            // A supervisor that was asleep for hours keeps nothing.
            keys.previous = (!overdue).then_some(retired);
            keys.replace_at = now + life();
            Ok(keys.replace_at)
        }
        Some(keys) => Ok(keys.replace_at),
        None => Ok(now + life()),
    }
}

/// Has the contexts' connections use these keys.
pub fn use_in(context: &mut SslContextBuilder) {
    unsafe extern "C" {
        fn SSL_CTX_set_tlsext_ticket_key_evp_cb(
            ctx: *mut ffi::SSL_CTX,
            callback: Option<Callback>,
        ) -> c_int;
    }
    // SAFETY: the builder wraps a valid SSL_CTX; the callback is a plain
    // function, valid for ever.
    unsafe { SSL_CTX_set_tlsext_ticket_key_evp_cb(context.as_ptr(), Some(choose)) };
}

type Callback = unsafe extern "C" fn(
    *mut ffi::SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut ffi::EVP_CIPHER_CTX,
    *mut ffi::EVP_MAC_CTX,
    c_int,
) -> c_int;

/// Returns 1 for a usable ticket, 2 for one to be renewed, 0 for one whose key
/// is gone (a full handshake follows), -1 for an error.
unsafe extern "C" fn choose(
    _: *mut ffi::SSL,
    name: *mut c_uchar,
    vector: *mut c_uchar,
    cipher: *mut ffi::EVP_CIPHER_CTX,
    mac: *mut ffi::EVP_MAC_CTX,
    encrypt: c_int,
) -> c_int {
    const FAILED: c_int = -1;
    const NAME: usize = 16;
    const VECTOR: c_int = 16;
    let Ok(keys) = KEYS.lock() else { return FAILED };
    let Some(keys) = keys.as_ref() else {
        return 0;
    };
    // SAFETY: libssl passes 16 bytes of name, room for 16 bytes of vector, and
    // two valid contexts; they are used within this call only. The parameter
    // list ends with the empty entry, and set_params copies the key.
    unsafe {
        let (key, answer) = if encrypt == 1 {
            ptr::copy_nonoverlapping(keys.current.name.as_ptr(), name, NAME);
            if ffi::RAND_bytes(vector, VECTOR) != 1 {
                return FAILED;
            }
            (&keys.current, 1)
        } else {
            let wanted = std::slice::from_raw_parts(name, NAME);
            match &keys.previous {
                _ if keys.current.name == wanted => (&keys.current, 1),
                Some(previous) if previous.name == wanted => (previous, 2),
                _ => return 0,
            }
        };
        let mut mac_key = key.mac;
        let params = [
            ffi::OSSL_PARAM_construct_octet_string(
                c"key".as_ptr(),
                mac_key.as_mut_ptr().cast(),
                mac_key.len(),
            ),
            ffi::OSSL_PARAM {
                key: c"digest".as_ptr(),
                data_type: 4, // OSSL_PARAM_UTF8_STRING
                data: c"SHA256".as_ptr().cast_mut().cast(),
                data_size: 6,
                return_size: usize::MAX,
            },
            ffi::OSSL_PARAM_construct_end(),
        ];
        let mac_done = ffi::EVP_MAC_CTX_set_params(mac, params.as_ptr());
        super::wipe(&mut mac_key);
        let start = if encrypt == 1 {
            ffi::EVP_EncryptInit_ex
        } else {
            ffi::EVP_DecryptInit_ex
        };
        let cipher_done = start(
            cipher,
            ffi::EVP_aes_256_cbc(),
            ptr::null_mut(),
            key.cipher.as_ptr(),
            vector,
        );
        if mac_done != 1 || cipher_done != 1 {
            return FAILED;
        }
        answer
    }
}

/// Has the tickets of a context end with the certificates they vouch for: a
/// session is not resumed after the first end of validity in the client's
/// verified chain, nor after `latest` (seconds since 1970, such as the end of a
/// revocation list). Sessions without a client certificate are not limited.
/// `SSL_CTX_set_session_ticket_cb`.
///
/// # Errors
/// Libssl refuses.
pub fn end_with_certificates(
    context: &mut SslContextBuilder,
    latest: Option<i64>,
) -> Result<(), ErrorStack> {
    unsafe extern "C" {
        fn SSL_CTX_set_session_ticket_cb(
            ctx: *mut ffi::SSL_CTX,
            generate: Option<unsafe extern "C" fn(*mut ffi::SSL, *mut c_void) -> c_int>,
            decrypt: Option<Decrypted>,
            argument: *mut c_void,
        ) -> c_int;
    }
    // The number itself travels in the pointer; it is never dereferenced.
    let argument = usize::try_from(latest.unwrap_or(0)).unwrap_or(0);
    // SAFETY: the builder wraps a valid SSL_CTX; the callbacks are plain
    // functions, valid for ever, and treat the argument as a number.
    let done = unsafe {
        SSL_CTX_set_session_ticket_cb(
            context.as_ptr(),
            Some(stamp),
            Some(examine),
            ptr::without_provenance_mut(argument),
        )
    };
    super::check(done)
}

type Decrypted = unsafe extern "C" fn(
    *mut ffi::SSL,
    *mut ffi::SSL_SESSION,
    *const c_uchar,
    usize,
    c_int,
    *mut c_void,
) -> c_int;

/// Writes the end of the client's chain into a new ticket. Returns 1.
unsafe extern "C" fn stamp(ssl: *mut ffi::SSL, argument: *mut c_void) -> c_int {
    unsafe extern "C" {
        fn SSL_SESSION_set1_ticket_appdata(
            session: *mut ffi::SSL_SESSION,
            data: *const c_void,
            len: usize,
        ) -> c_int;
    }
    // SAFETY: libssl calls with a valid SSL; the certificates are borrowed
    // from it for this call only.
    let ssl = unsafe { SslRef::from_ptr(ssl) };
    let Some(leaf) = ssl.peer_certificate() else {
        return 1;
    };
    let chain = ssl.verified_chain();
    let mut end = chain
        .iter()
        .flat_map(|chain| chain.iter())
        .chain(std::iter::once(&*leaf))
        .filter_map(|certificate| seconds(certificate.not_after()))
        .min()
        .unwrap_or(0);
    let latest = i64::try_from(argument.addr()).unwrap_or(0);
    if latest != 0 {
        end = end.min(latest);
    }
    let data = end.to_be_bytes();
    if let Some(session) = ssl.session() {
        // SAFETY: the session is valid while the SSL is; the data is copied.
        unsafe {
            SSL_SESSION_set1_ticket_appdata(session.as_ptr(), data.as_ptr().cast(), data.len())
        };
    }
    1
}

/// Looks at a ticket that was read: the answers of `SSL_CTX_set_session_ticket_cb(3)`.
unsafe extern "C" fn examine(
    _: *mut ffi::SSL,
    session: *mut ffi::SSL_SESSION,
    _: *const c_uchar,
    _: usize,
    status: c_int,
    _: *mut c_void,
) -> c_int {
    const SUCCESS: c_int = 5;
    const SUCCESS_RENEW: c_int = 6;
    const IGNORE_RENEW: c_int = 2;
    const USE: c_int = 3;
    const USE_RENEW: c_int = 4;
    unsafe extern "C" {
        fn SSL_SESSION_get0_ticket_appdata(
            session: *mut ffi::SSL_SESSION,
            data: *mut *mut c_void,
            len: *mut usize,
        ) -> c_int;
    }
    // For an empty or unreadable ticket there is no session to look at.
    if !matches!(status, SUCCESS | SUCCESS_RENEW) || session.is_null() {
        return IGNORE_RENEW;
    }
    let mut data = ptr::null_mut();
    let mut length = 0;
    // SAFETY: the session is valid for this call; on success the data is
    // `length` bytes inside it.
    let bytes = unsafe {
        if SSL_SESSION_get0_ticket_appdata(session, &raw mut data, &raw mut length) != 1
            || data.is_null()
        {
            &[]
        } else {
            std::slice::from_raw_parts(data.cast::<u8>(), length)
        }
    };
    if let Ok(end) = <[u8; 8]>::try_from(bytes) {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(i64::MAX, |since| {
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
            });
        if now >= i64::from_be_bytes(end) {
            return IGNORE_RENEW;
        }
    }
    if status == SUCCESS { USE } else { USE_RENEW }
}

/// Seconds since 1970 of a certificate's time.
#[must_use]
pub fn seconds(time: &Asn1TimeRef) -> Option<i64> {
    let epoch = Asn1Time::from_unix(0).ok()?;
    let since = epoch.diff(time).ok()?;
    Some(i64::from(since.days) * 86400 + i64::from(since.secs))
}
