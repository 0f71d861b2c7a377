//! Session tickets whose keys are made elsewhere, one for each ticket, and asked
//! for when they are needed: `SSL_CTX_set_tlsext_ticket_key_evp_cb` (RFC 5077
//! section 4). A process serves one connection at a time, so what one needs is
//! kept once.

use std::ffi::{c_int, c_uchar};
use std::fmt;
use std::ptr;
use std::sync::Mutex;

use foreign_types::ForeignTypeRef as _;
use openssl::sha::Sha256;
use openssl::ssl::{SslContextBuilder, SslRef, SslVerifyMode, SslVersion};
use openssl_sys as ffi;

/// How many tickets a full handshake of TLS 1.3 gives: a client that uses each
/// once can make two connections at a time.
pub const PER_HANDSHAKE: usize = 2;

/// Names a ticket: the first bytes of it.
pub type TicketName = [u8; 16];

/// What a ticket holds for, as a digest: it opens for nothing else.
pub type Binding = [u8; 32];

/// The key of one ticket: 32 bytes for AES-256-CBC and 32 for HMAC-SHA-256, as
/// RFC 5077 section 4 recommends. Overwritten when it is given up.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey(Box<[u8; TicketKey::LENGTH]>);

impl TicketKey {
    /// Bytes of a key.
    pub const LENGTH: usize = 64;

    /// A key of zeros, to be filled.
    #[must_use]
    pub fn zeroed() -> TicketKey {
        TicketKey(Box::new([0; TicketKey::LENGTH]))
    }

    /// A copy of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; TicketKey::LENGTH]) -> TicketKey {
        let mut key = TicketKey::zeroed();
        key.0.copy_from_slice(bytes);
        key
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; TicketKey::LENGTH] {
        &self.0
    }

    /// Its bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8; TicketKey::LENGTH] {
        &mut self.0
    }
}

impl Drop for TicketKey {
    fn drop(&mut self) {
        super::wipe(&mut self.0[..]);
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("...")
    }
}

/// A ticket that can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTicket {
    /// Its name.
    pub name: TicketName,
    /// Its key.
    pub key: TicketKey,
}

/// What is known of a ticket that a client showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShownTicket {
    /// Nothing: it is too old, or none of ours.
    Unknown,
    /// It is of the present hour.
    Current(TicketKey),
    /// It is of the hour before, and should be replaced.
    Old(TicketKey),
}

/// What is wanted of whoever makes the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicketsWanted {
    /// What all of these tickets hold for.
    pub binding: Binding,
    /// The ticket that the client showed.
    pub shown: Option<TicketName>,
    /// How many are to be made.
    pub new: u8,
}

/// What is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketsGiven {
    /// Of the ticket that was shown.
    pub shown: Option<ShownTicket>,
    /// Those to be made.
    pub new: Vec<NewTicket>,
}

/// Gets keys; `None` where there are none to be had.
pub type TicketSource = Box<dyn FnMut(&TicketsWanted) -> Option<TicketsGiven> + Send>;

/// What one connection has asked and heard.
struct State {
    ask: Option<TicketSource>,
    /// `None`: this connection has no tickets.
    binding: Option<Binding>,
    /// The client takes tickets below TLS 1.3.
    taken: bool,
    /// The one ticket that was looked up.
    shown: Option<(TicketName, ShownTicket)>,
    new: Vec<NewTicket>,
}

static STATE: Mutex<State> = Mutex::new(State {
    ask: None,
    binding: None,
    taken: false,
    shown: None,
    new: Vec::new(),
});

/// Says who makes this process's keys; `None` ends it, and wipes those that it
/// has.
pub fn ask_with(ask: Option<TicketSource>) {
    if let Ok(mut state) = STATE.lock() {
        state.ask = ask;
        state.binding = None;
        state.shown = None;
        state.new = Vec::new();
    }
}

/// Begins a connection, or goes on with it after a second ClientHello. A ticket
/// is good where it was given: in this `context`, and for this server name,
/// however that is written (RFC 6066 section 3). `taken` says whether the client
/// takes tickets below TLS 1.3.
pub fn begin(context: &[u8; 32], server_name: Option<&[u8]>, taken: bool) {
    let mut print = Sha256::new();
    print.update(context);
    if let Some(name) = server_name {
        print.update(b".");
        print.update(&name.to_ascii_lowercase());
    }
    let binding = print.finish();
    if let Ok(mut state) = STATE.lock() {
        if state.binding != Some(binding) {
            state.shown = None;
            state.new = Vec::new();
        }
        state.binding = Some(binding);
        state.taken = taken;
    }
}

/// What can be asked for together with the signature of a full handshake.
#[must_use]
pub fn wanted_with_signature(tls13: bool) -> Option<TicketsWanted> {
    let state = STATE.lock().ok()?;
    let wanted = if tls13 {
        PER_HANDSHAKE
    } else {
        usize::from(state.taken)
    };
    let new = u8::try_from(wanted.saturating_sub(state.new.len())).unwrap_or(0);
    Some(TicketsWanted {
        binding: state.binding?,
        shown: None,
        new,
    })
    .filter(|wanted| wanted.new > 0)
}

/// Takes what came with a signature.
pub fn supply(new: Vec<NewTicket>) {
    if let Ok(mut state) = STATE.lock() {
        state.new.extend(new);
    }
}

impl State {
    fn look_up(&mut self, name: TicketName) -> ShownTicket {
        let Some(binding) = self.binding else {
            return ShownTicket::Unknown;
        };
        if let Some((known, shown)) = &self.shown {
            // One that shows a second ticket may resume with the first alone.
            return if *known == name {
                shown.clone()
            } else {
                ShownTicket::Unknown
            };
        }
        let wanted = TicketsWanted {
            binding,
            shown: Some(name),
            // What follows a resumption, or part of what a full handshake gives.
            new: 1,
        };
        let given = self.ask.as_mut().and_then(|ask| ask(&wanted));
        let mut found = ShownTicket::Unknown;
        if let Some(given) = given {
            self.new.extend(given.new);
            found = given.shown.unwrap_or(ShownTicket::Unknown);
        }
        self.shown = Some((name, found.clone()));
        found
    }

    fn next(&mut self) -> Option<NewTicket> {
        if self.new.is_empty() {
            let wanted = TicketsWanted {
                binding: self.binding?,
                shown: None,
                new: 1,
            };
            self.new = self.ask.as_mut()?(&wanted)?.new;
        }
        self.new.pop()
    }
}

/// Has the contexts' connections use such tickets.
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

/// The callback's answers.
const FAILED: c_int = -1;
/// A full handshake follows.
const UNKNOWN: c_int = 0;
const GOOD: c_int = 1;
const GOOD_AND_RENEW: c_int = 2;

/// The key of a new ticket, which gets its name, or of the one of this name.
fn key_for(ssl: &SslRef, name: &mut TicketName, new: bool) -> Option<(TicketKey, c_int)> {
    let mut state = STATE.lock().ok()?;
    if new {
        return state.next().map(|new| {
            *name = new.name;
            (new.key, GOOD)
        });
    }
    // Whoever may have to show a certificate shows it in each connection.
    if ssl.verify_mode() != SslVerifyMode::NONE {
        return None;
    }
    let renew = ssl.version2() == Some(SslVersion::TLS1_3);
    match state.look_up(*name) {
        ShownTicket::Unknown => None,
        // RFC 8446 appendix C.4: a ticket is used once, and brings the next.
        ShownTicket::Current(key) if !renew => Some((key, GOOD)),
        ShownTicket::Current(key) | ShownTicket::Old(key) => Some((key, GOOD_AND_RENEW)),
    }
}

unsafe extern "C" fn choose(
    ssl: *mut ffi::SSL,
    name: *mut c_uchar,
    vector: *mut c_uchar,
    cipher: *mut ffi::EVP_CIPHER_CTX,
    mac: *mut ffi::EVP_MAC_CTX,
    encrypt: c_int,
) -> c_int {
    const VECTOR: c_int = 16;
    // SAFETY: libssl calls with a valid SSL, borrowed for this call.
    let ssl = unsafe { SslRef::from_ptr(ssl) };
    // SAFETY: libssl passes 16 bytes of name, which nobody else uses now.
    let name = unsafe { &mut *name.cast::<TicketName>() };
    let (key, answer) = match key_for(ssl, name, encrypt == 1) {
        Some(chosen) => chosen,
        None if encrypt == 0 => return UNKNOWN,
        None => return FAILED,
    };
    if encrypt == 1 {
        // SAFETY: libssl passes room for 16 bytes of vector.
        if unsafe { ffi::RAND_bytes(vector, VECTOR) } != 1 {
            return FAILED;
        }
    }
    // SAFETY: the vector has 16 bytes, and libssl passes two valid contexts.
    if unsafe { set_up(&key, vector, cipher, mac, encrypt == 1) } {
        answer
    } else {
        FAILED
    }
}

/// Gives a key to libssl's contexts; false if they do not take it.
///
/// # Safety
/// The contexts must be valid, and `vector` must have 16 bytes.
unsafe fn set_up(
    key: &TicketKey,
    vector: *const c_uchar,
    cipher: *mut ffi::EVP_CIPHER_CTX,
    mac: *mut ffi::EVP_MAC_CTX,
    encrypt: bool,
) -> bool {
    let (for_cipher, for_mac) = key.bytes().split_at(32);
    let start = if encrypt {
        ffi::EVP_EncryptInit_ex
    } else {
        ffi::EVP_DecryptInit_ex
    };
    // SAFETY: the key lives as long as the entry, which only leads to it.
    let key = unsafe {
        ffi::OSSL_PARAM_construct_octet_string(
            c"key".as_ptr(),
            for_mac.as_ptr().cast_mut().cast(),
            for_mac.len(),
        )
    };
    let digest = ffi::OSSL_PARAM {
        key: c"digest".as_ptr(),
        data_type: 4, // OSSL_PARAM_UTF8_STRING
        data: c"SHA256".as_ptr().cast_mut().cast(),
        data_size: 6,
        return_size: usize::MAX,
    };
    // SAFETY: takes nothing.
    let end = unsafe { ffi::OSSL_PARAM_construct_end() };
    let params = [key, digest, end];
    // SAFETY: the list ends with the empty entry; the key is copied.
    let mac_done = unsafe { ffi::EVP_MAC_CTX_set_params(mac, params.as_ptr()) };
    // SAFETY: takes nothing.
    let kind = unsafe { ffi::EVP_aes_256_cbc() };
    let (key, no_engine) = (for_cipher.as_ptr(), ptr::null_mut());
    // SAFETY: by contract; the key has the 32 bytes of this cipher.
    let cipher_done = unsafe { start(cipher, kind, no_engine, key, vector) };
    mac_done == 1 && cipher_done == 1
}
