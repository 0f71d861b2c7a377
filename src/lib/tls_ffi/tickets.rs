//! Session-ticket keys that outlive a process's connections and are replaced in
//! time: `SSL_CTX_set_tlsext_ticket_key_evp_cb` (RFC 5077 section 5.5).
//!
//! The keys are one process-wide pair: every context of a supervisor and its
//! engines uses them, and the session id context keeps listeners and policies
//! apart.

use std::ffi::{c_int, c_uchar};
use std::ptr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;
use openssl::ssl::SslContextBuilder;
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
        replace_at: Instant::now() + LIFE,
    };
    if let Ok(mut place) = KEYS.lock() {
        *place = Some(keys);
    }
    Ok(())
}

/// Replaces keys whose time has come; the retired one is wiped. Returns when to
/// call again.
///
/// # Errors
/// Libcrypto has no randomness; the old keys stay.
pub fn rotate() -> Result<Instant, ErrorStack> {
    let now = Instant::now();
    let Ok(mut place) = KEYS.lock() else {
        return Ok(now + LIFE);
    };
    match place.as_mut() {
        Some(keys) if now >= keys.replace_at => {
            let overdue = now.duration_since(keys.replace_at) >= LIFE;
            let retired = std::mem::replace(&mut keys.current, fresh()?);
            // A supervisor that was asleep for hours keeps nothing.
            keys.previous = (!overdue).then_some(retired);
            keys.replace_at = now + LIFE;
            Ok(keys.replace_at)
        }
        Some(keys) => Ok(keys.replace_at),
        None => Ok(now + LIFE),
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
