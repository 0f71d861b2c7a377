//! Keys that are somewhere else: a built-in OpenSSL provider whose keys are a
//! public key and a number, and whose signatures come from a function of ours.
//!
//! Libssl first asks such a key to be exported to the default provider. What
//! would hold a private part is refused, and libcrypto then takes the signature
//! from the key's own provider, this one. It lives in a library context of its
//! own, so that no other use of libcrypto ever meets it. Numbers of functions
//! are those of core_dispatch.h; a test compares them with the installed one.

use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_void};
use std::ptr;
use std::sync::{Mutex, OnceLock};

use foreign_types::{ForeignType as _, ForeignTypeRef as _};
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, PKeyRef, Private, Public};
use openssl_sys as ffi;

/// How a signature is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// By the algorithm itself: ECDSA and EdDSA.
    None,
    /// RSASSA-PKCS1-v1_5.
    Pkcs1,
    /// RSASSA-PSS, with a salt as long as the digest.
    Pss,
}

/// The digest that is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// EdDSA has its own.
    None,
    /// MD5 and SHA-1 one behind the other, RSA below TLS 1.2.
    Md5Sha1,
    /// SHA-1.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Digest {
    /// The names that libcrypto's versions give it.
    const NAMES: [(&'static CStr, Digest); 11] = [
        (c"MD5-SHA1", Digest::Md5Sha1),
        (c"SHA1", Digest::Sha1),
        (c"SHA-1", Digest::Sha1),
        (c"SHA224", Digest::Sha224),
        (c"SHA2-224", Digest::Sha224),
        (c"SHA256", Digest::Sha256),
        (c"SHA2-256", Digest::Sha256),
        (c"SHA384", Digest::Sha384),
        (c"SHA2-384", Digest::Sha384),
        (c"SHA512", Digest::Sha512),
        (c"SHA2-512", Digest::Sha512),
    ];

    fn named(name: &CStr) -> Option<Digest> {
        Digest::NAMES
            .iter()
            .find(|(known, _)| known.to_bytes().eq_ignore_ascii_case(name.to_bytes()))
            .map(|(_, digest)| *digest)
    }
}

/// What libssl wants signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToSign<'a> {
    /// The number that the key was made with.
    pub key: u32,
    /// How it is padded.
    pub padding: Padding,
    /// What is applied to the message.
    pub digest: Digest,
    /// The whole message.
    pub message: &'a [u8],
}

/// Makes signatures; `None` where there is none to be had.
pub type Sign = Box<dyn FnMut(&ToSign<'_>) -> Option<Vec<u8>> + Send>;

static SIGN: Mutex<Option<Sign>> = Mutex::new(None);

/// Says who makes this process's signatures; `None` ends it.
pub fn sign_with(sign: Option<Sign>) {
    if let Ok(mut place) = SIGN.lock() {
        *place = sign;
    }
}

/// A list of parameters that libcrypto made.
struct Parts(*mut ffi::OSSL_PARAM);

impl Drop for Parts {
    fn drop(&mut self) {
        // SAFETY: the list is ours alone.
        unsafe { ffi::OSSL_PARAM_free(self.0) };
    }
}

/// A list with entries of its own that shares the data of others.
struct Merged(*mut ffi::OSSL_PARAM);

impl Drop for Merged {
    fn drop(&mut self) {
        // SAFETY: the entries are ours alone; null is let through.
        unsafe { CRYPTO_free(self.0.cast(), c"".as_ptr(), 0) };
    }
}

/// A key that libssl takes for private. Its signatures are asked of
/// [`sign_with`]'s function under this number.
///
/// # Errors
/// Libcrypto refuses, or the key is of a kind that has no signatures here.
pub fn key(public: &PKeyRef<Public>, number: u32) -> Result<PKey<Private>, ErrorStack> {
    ffi::init();
    let kind = KINDS
        .iter()
        // SAFETY: the key is valid for the call, the name a static string.
        .find(|kind| unsafe { EVP_PKEY_is_a(public.as_ptr(), kind.name.as_ptr()) } == 1)
        .ok_or_else(ErrorStack::get)?;
    let library = library()?;
    let mut number = number;
    let mut parts = ptr::null_mut();
    // SAFETY: the key is valid for the call.
    super::check(unsafe { ffi::EVP_PKEY_todata(public.as_ptr(), PUBLIC_KEY, &raw mut parts) })?;
    let parts = Parts(parts);
    // SAFETY: the name is a static string, and the number outlives the list.
    let own = unsafe { ffi::OSSL_PARAM_construct_uint(NUMBER.as_ptr(), &raw mut number) };
    // SAFETY: takes nothing.
    let own = [own, unsafe { ffi::OSSL_PARAM_construct_end() }];
    // SAFETY: both lists end with the empty entry.
    let all = Merged(unsafe { ffi::OSSL_PARAM_merge(parts.0, own.as_ptr()) });
    if all.0.is_null() {
        return Err(ErrorStack::get());
    }
    let selection = PUBLIC_KEY | SELECT_PRIVATE;
    // SAFETY: the library context lives for ever; the merged list ends with the
    // empty entry, and what it leads to lives until the end of this function.
    unsafe { super::key_of(library, kind.name, Some(PROPERTY), selection, all.0) }
}

unsafe extern "C" {
    fn OSSL_PROVIDER_add_builtin(
        context: *mut ffi::OSSL_LIB_CTX,
        name: *const c_char,
        init: Init,
    ) -> c_int;
    fn EVP_PKEY_is_a(key: *const ffi::EVP_PKEY, name: *const c_char) -> c_int;
    fn EVP_PKEY_export(
        key: *const ffi::EVP_PKEY,
        selection: c_int,
        callback: Callback,
        argument: *mut c_void,
    ) -> c_int;
    fn OSSL_PARAM_get_uint(param: *const ffi::OSSL_PARAM, value: *mut c_uint) -> c_int;
    fn OSSL_PARAM_get_int(param: *const ffi::OSSL_PARAM, value: *mut c_int) -> c_int;
    fn CRYPTO_free(start: *mut c_void, file: *const c_char, line: c_int);
}

type Init =
    unsafe extern "C" fn(*const c_void, *const Entry, *mut *const Entry, *mut *mut c_void) -> c_int;
type Callback = unsafe extern "C" fn(*const ffi::OSSL_PARAM, *mut c_void) -> c_int;

/// `OSSL_DISPATCH` of core.h.
#[repr(C)]
struct Entry {
    number: c_int,
    function: Option<unsafe extern "C" fn()>,
}

/// `OSSL_ALGORITHM` of core.h.
#[repr(C)]
struct Algorithm {
    names: *const c_char,
    property: *const c_char,
    functions: *const Entry,
    description: *const c_char,
}

/// Lets tables of static pointers stand in statics.
#[repr(transparent)]
struct Table<T, const N: usize>([T; N]);
// SAFETY: the tables hold functions and pointers to static data, all read-only.
unsafe impl<T, const N: usize> Sync for Table<T, N> {}

const NAME: &CStr = c"ucspi-tls-keyholder";
const PROPERTY: &CStr = c"provider=ucspi-tls-keyholder";
/// The parameter that carries a key's number.
const NUMBER: &CStr = c"ucspi-tls-key-number";

/// `EVP_PKEY_PUBLIC_KEY` of evp.h: all parameters and the public key.
const PUBLIC_KEY: c_int = 0x84 | 0x02;

/// Numbers of core_dispatch.h.
const SELECT_PRIVATE: c_int = 0x01;
const SELECT_KEYPAIR: c_int = 0x03;
const OP_KEYMGMT: c_int = 10;
const OP_SIGNATURE: c_int = 12;
const PROVIDER_QUERY_OPERATION: c_int = 1027;
const KEYMGMT_NEW: c_int = 1;
const KEYMGMT_FREE: c_int = 10;
const KEYMGMT_GET_PARAMS: c_int = 11;
const KEYMGMT_GETTABLE_PARAMS: c_int = 12;
const KEYMGMT_QUERY_OPERATION_NAME: c_int = 20;
const KEYMGMT_HAS: c_int = 21;
const KEYMGMT_MATCH: c_int = 23;
const KEYMGMT_IMPORT: c_int = 40;
const KEYMGMT_IMPORT_TYPES: c_int = 41;
const KEYMGMT_EXPORT: c_int = 42;
const KEYMGMT_EXPORT_TYPES: c_int = 43;
const SIGNATURE_NEWCTX: c_int = 1;
const SIGNATURE_DIGEST_SIGN_INIT: c_int = 8;
const SIGNATURE_DIGEST_SIGN: c_int = 11;
const SIGNATURE_FREECTX: c_int = 16;
const SIGNATURE_SET_CTX_PARAMS: c_int = 20;
const SIGNATURE_SETTABLE_CTX_PARAMS: c_int = 21;

/// A kind of key as libcrypto's default provider names it.
struct Kind {
    name: &'static CStr,
    signature: &'static CStr,
    padding: Padding,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: c"RSA",
        signature: c"RSA",
        padding: Padding::Pkcs1,
    },
    Kind {
        name: c"RSA-PSS",
        signature: c"RSA",
        padding: Padding::Pss,
    },
    Kind {
        name: c"EC",
        signature: c"ECDSA",
        padding: Padding::None,
    },
    Kind {
        name: c"ED25519",
        signature: c"ED25519",
        padding: Padding::None,
    },
    Kind {
        name: c"ED448",
        signature: c"ED448",
        padding: Padding::None,
    },
];

/// The names of an algorithm, as the default provider lists them.
static KEYS: Table<Algorithm, 6> = Table([
    keys(c"RSA:rsaEncryption:1.2.840.113549.1.1.1", &RSA_KEY),
    keys(c"RSA-PSS:RSASSA-PSS:1.2.840.113549.1.1.10", &RSA_PSS_KEY),
    keys(c"EC:id-ecPublicKey:1.2.840.10045.2.1", &EC_KEY),
    keys(c"ED25519:1.3.101.112", &ED25519_KEY),
    keys(c"ED448:1.3.101.113", &ED448_KEY),
    END,
]);
static SIGNATURES: Table<Algorithm, 5> = Table([
    signatures(c"RSA:rsaEncryption:1.2.840.113549.1.1.1"),
    signatures(c"ECDSA"),
    signatures(c"ED25519:1.3.101.112"),
    signatures(c"ED448:1.3.101.113"),
    END,
]);
const END: Algorithm = Algorithm {
    names: ptr::null(),
    property: ptr::null(),
    functions: ptr::null(),
    description: ptr::null(),
};

const fn keys(names: &'static CStr, functions: &'static Table<Entry, 12>) -> Algorithm {
    Algorithm {
        names: names.as_ptr(),
        property: PROPERTY.as_ptr(),
        functions: functions.0.as_ptr(),
        description: ptr::null(),
    }
}

const fn signatures(names: &'static CStr) -> Algorithm {
    Algorithm {
        names: names.as_ptr(),
        property: PROPERTY.as_ptr(),
        functions: SIGNATURE.0.as_ptr(),
        description: ptr::null(),
    }
}

/// One line of a table of functions. The type of the function is that of the
/// header's `OSSL_CORE_MAKE_FUNC` for its number.
macro_rules! entry {
    ($number:expr, $function:expr, fn($($argument:ty),*) $(-> $result:ty)?) => {
        Entry {
            number: $number,
            // SAFETY: a function pointer without its type; libcrypto calls it
            // with the type that its number stands for, which is the one here.
            function: Some(unsafe {
                std::mem::transmute::<
                    unsafe extern "C" fn($($argument),*) $(-> $result)?,
                    unsafe extern "C" fn(),
                >($function)
            }),
        }
    };
}
const LAST: Entry = Entry {
    number: 0,
    function: None,
};

type Params = *const ffi::OSSL_PARAM;

static PROVIDER: Table<Entry, 2> = Table([
    entry!(
        PROVIDER_QUERY_OPERATION,
        query_operation,
        fn(*mut c_void, c_int, *mut c_int) -> *const Algorithm
    ),
    LAST,
]);

static RSA_KEY: Table<Entry, 12> = key_functions::<0>();
static RSA_PSS_KEY: Table<Entry, 12> = key_functions::<1>();
static EC_KEY: Table<Entry, 12> = key_functions::<2>();
static ED25519_KEY: Table<Entry, 12> = key_functions::<3>();
static ED448_KEY: Table<Entry, 12> = key_functions::<4>();

const fn key_functions<const KIND: usize>() -> Table<Entry, 12> {
    Table([
        entry!(KEYMGMT_NEW, key_new::<KIND>, fn(*mut c_void) -> *mut c_void),
        entry!(KEYMGMT_FREE, key_free, fn(*mut c_void)),
        entry!(
            KEYMGMT_GET_PARAMS,
            key_get_params,
            fn(*mut c_void, *mut ffi::OSSL_PARAM) -> c_int
        ),
        entry!(
            KEYMGMT_GETTABLE_PARAMS,
            no_params,
            fn(*mut c_void) -> Params
        ),
        entry!(
            KEYMGMT_QUERY_OPERATION_NAME,
            operation_name::<KIND>,
            fn(c_int) -> *const c_char
        ),
        entry!(KEYMGMT_HAS, key_has, fn(*const c_void, c_int) -> c_int),
        entry!(
            KEYMGMT_MATCH,
            key_match,
            fn(*const c_void, *const c_void, c_int) -> c_int
        ),
        entry!(
            KEYMGMT_IMPORT,
            key_import,
            fn(*mut c_void, c_int, Params) -> c_int
        ),
        entry!(KEYMGMT_IMPORT_TYPES, no_types, fn(c_int) -> Params),
        entry!(
            KEYMGMT_EXPORT,
            key_export,
            fn(*mut c_void, c_int, Callback, *mut c_void) -> c_int
        ),
        entry!(KEYMGMT_EXPORT_TYPES, no_types, fn(c_int) -> Params),
        LAST,
    ])
}

static SIGNATURE: Table<Entry, 7> = Table([
    entry!(
        SIGNATURE_NEWCTX,
        signing_new,
        fn(*mut c_void, *const c_char) -> *mut c_void
    ),
    entry!(SIGNATURE_FREECTX, signing_free, fn(*mut c_void)),
    entry!(
        SIGNATURE_DIGEST_SIGN_INIT,
        signing_init,
        fn(*mut c_void, *const c_char, *mut c_void, Params) -> c_int
    ),
    entry!(
        SIGNATURE_DIGEST_SIGN,
        signing_sign,
        fn(*mut c_void, *mut c_uchar, *mut usize, usize, *const c_uchar, usize) -> c_int
    ),
    entry!(
        SIGNATURE_SET_CTX_PARAMS,
        signing_set_params,
        fn(*mut c_void, Params) -> c_int
    ),
    entry!(
        SIGNATURE_SETTABLE_CTX_PARAMS,
        signing_settable,
        fn(*mut c_void, *mut c_void) -> Params
    ),
    LAST,
]);

static NO_PARAMS: Table<ffi::OSSL_PARAM, 1> = Table([param_end()]);
/// What libssl sets for RSA.
static SIGNING_PARAMS: Table<ffi::OSSL_PARAM, 4> = Table([
    param(c"pad-mode"),
    param(c"saltlen"),
    param(c"digest"),
    param_end(),
]);

const fn param(name: &'static CStr) -> ffi::OSSL_PARAM {
    ffi::OSSL_PARAM {
        key: name.as_ptr(),
        data_type: UTF8_STRING,
        data: ptr::null_mut(),
        data_size: 0,
        return_size: 0,
    }
}

const fn param_end() -> ffi::OSSL_PARAM {
    ffi::OSSL_PARAM {
        key: ptr::null(),
        data_type: 0,
        data: ptr::null_mut(),
        data_size: 0,
        return_size: 0,
    }
}

/// `OSSL_PARAM_UTF8_STRING` of core.h.
const UTF8_STRING: c_uint = 4;

/// The library context that this provider alone lives in, made at first use
/// and kept for ever.
fn library() -> Result<*mut ffi::OSSL_LIB_CTX, ErrorStack> {
    struct Library(*mut ffi::OSSL_LIB_CTX);
    // SAFETY: a library context may be used by any thread.
    unsafe impl Send for Library {}
    // SAFETY: as above.
    unsafe impl Sync for Library {}
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    if let Some(library) = LIBRARY.get() {
        return Ok(library.0);
    }
    // SAFETY: takes nothing. The context is never freed, so it outlives all of its
    // keys.
    let made = unsafe { ffi::OSSL_LIB_CTX_new() };
    if made.is_null() {
        return Err(ErrorStack::get());
    }
    // SAFETY: the context is valid, the name a static string and the function a
    // plain one.
    super::check(unsafe { OSSL_PROVIDER_add_builtin(made, NAME.as_ptr(), init) })?;
    // SAFETY: as before.
    if unsafe { ffi::OSSL_PROVIDER_load(made, NAME.as_ptr()) }.is_null() {
        return Err(ErrorStack::get());
    }
    Ok(LIBRARY.get_or_init(|| Library(made)).0)
}

unsafe extern "C" fn init(
    _: *const c_void,
    _: *const Entry,
    out: *mut *const Entry,
    context: *mut *mut c_void,
) -> c_int {
    // SAFETY: libcrypto passes two valid places. The context only has to be
    // something: the provider has no state.
    unsafe {
        *out = PROVIDER.0.as_ptr();
        *context = PROVIDER.0.as_ptr().cast_mut().cast();
    }
    1
}

unsafe extern "C" fn query_operation(
    _: *mut c_void,
    operation: c_int,
    no_store: *mut c_int,
) -> *const Algorithm {
    // SAFETY: libcrypto passes a valid place.
    unsafe { *no_store = 0 };
    match operation {
        OP_KEYMGMT => KEYS.0.as_ptr(),
        OP_SIGNATURE => SIGNATURES.0.as_ptr(),
        _ => ptr::null(),
    }
}

/// A key: the public half belongs to the default provider, which answers every
/// question about it.
struct Key {
    kind: usize,
    public: Option<PKey<Public>>,
    number: Option<u32>,
}

/// # Safety
/// `key` must come from [`key_new`] and not have been freed.
unsafe fn borrow<'a>(key: *const c_void) -> &'a Key {
    // SAFETY: by contract; libcrypto keeps a key while it calls with it.
    unsafe { &*key.cast::<Key>() }
}

unsafe extern "C" fn key_new<const KIND: usize>(_: *mut c_void) -> *mut c_void {
    Box::into_raw(Box::new(Key {
        kind: KIND,
        public: None,
        number: None,
    }))
    .cast()
}

unsafe extern "C" fn key_free(key: *mut c_void) {
    if !key.is_null() {
        // SAFETY: libcrypto frees what `key_new` gave it, once.
        drop(unsafe { Box::from_raw(key.cast::<Key>()) });
    }
}

unsafe extern "C" fn key_get_params(key: *mut c_void, params: *mut ffi::OSSL_PARAM) -> c_int {
    // SAFETY: a key of ours.
    let Some(public) = &unsafe { borrow(key) }.public else {
        return 0;
    };
    // SAFETY: a valid key, and a list that ends with the empty entry.
    unsafe { ffi::EVP_PKEY_get_params(public.as_ptr(), params) }
}

unsafe extern "C" fn no_params(_: *mut c_void) -> Params {
    NO_PARAMS.0.as_ptr()
}

unsafe extern "C" fn no_types(_: c_int) -> Params {
    NO_PARAMS.0.as_ptr()
}

unsafe extern "C" fn operation_name<const KIND: usize>(operation: c_int) -> *const c_char {
    if operation == OP_SIGNATURE {
        KINDS[KIND].signature.as_ptr()
    } else {
        ptr::null()
    }
}

unsafe extern "C" fn key_has(key: *const c_void, selection: c_int) -> c_int {
    if key.is_null() {
        return 0;
    }
    // SAFETY: a key of ours.
    let key = unsafe { borrow(key) };
    c_int::from(key.public.is_some() && (selection & SELECT_PRIVATE == 0 || key.number.is_some()))
}

unsafe extern "C" fn key_match(
    one: *const c_void,
    other: *const c_void,
    selection: c_int,
) -> c_int {
    // SAFETY: a key of ours.
    let one = unsafe { borrow(one) };
    // SAFETY: as before.
    let other = unsafe { borrow(other) };
    let (Some(one), Some(other)) = (&one.public, &other.public) else {
        return 0;
    };
    if selection & SELECT_KEYPAIR == 0 {
        // SAFETY: two valid keys of the default provider.
        return unsafe { ffi::EVP_PKEY_parameters_eq(one.as_ptr(), other.as_ptr()) };
    }
    c_int::from(one.public_eq(other))
}

unsafe extern "C" fn key_import(key: *mut c_void, _: c_int, params: Params) -> c_int {
    // SAFETY: a key of ours that libcrypto is building, so nobody else has it.
    let key = unsafe { &mut *key.cast::<Key>() };
    // SAFETY: the list ends with the empty entry.
    let number = unsafe { ffi::OSSL_PARAM_locate_const(params, NUMBER.as_ptr()) };
    let mut value = 0;
    // SAFETY: the entry is one of the list's, and the place is valid.
    if !number.is_null() && unsafe { OSSL_PARAM_get_uint(number, &raw mut value) } == 1 {
        key.number = Some(value);
    }
    let name = KINDS[key.kind].name;
    // SAFETY: null is libcrypto's own context; the list ends with the empty entry and
    // is only read.
    let made = unsafe { super::key_of(ptr::null_mut(), name, None, PUBLIC_KEY, params.cast_mut()) };
    let Ok(public) = made else { return 0 };
    key.public = Some(public);
    1
}

unsafe extern "C" fn key_export(
    key: *mut c_void,
    selection: c_int,
    callback: Callback,
    argument: *mut c_void,
) -> c_int {
    // A key that could be exported would be used elsewhere.
    if selection & SELECT_PRIVATE != 0 {
        return 0;
    }
    // SAFETY: a key of ours.
    let Some(public) = &unsafe { borrow(key) }.public else {
        return 0;
    };
    // SAFETY: a valid key; callback and argument are passed on as they came.
    unsafe { EVP_PKEY_export(public.as_ptr(), selection, callback, argument) }
}

/// One signature in the making.
struct Signing {
    /// Number of the key and the most bytes of its signature.
    key: Option<(u32, usize)>,
    padding: Padding,
    digest: Digest,
    /// The digest that PSS's salt length refers to was asked for.
    salt_fits: bool,
}

unsafe extern "C" fn signing_new(_: *mut c_void, _: *const c_char) -> *mut c_void {
    Box::into_raw(Box::new(Signing {
        key: None,
        padding: Padding::None,
        digest: Digest::None,
        salt_fits: true,
    }))
    .cast()
}

unsafe extern "C" fn signing_free(signing: *mut c_void) {
    if !signing.is_null() {
        // SAFETY: libcrypto frees what `signing_new` gave it, once.
        drop(unsafe { Box::from_raw(signing.cast::<Signing>()) });
    }
}

unsafe extern "C" fn signing_init(
    signing: *mut c_void,
    digest: *const c_char,
    key: *mut c_void,
    params: Params,
) -> c_int {
    if key.is_null() {
        return 0;
    }
    // SAFETY: a key of ours.
    let key = unsafe { borrow(key) };
    let (Some(public), Some(number)) = (&key.public, key.number) else {
        return 0;
    };
    // SAFETY: the name is null or a string that ends with NUL.
    let digest = (!digest.is_null()).then(|| unsafe { CStr::from_ptr(digest) });
    let digest = match digest.filter(|name| !name.is_empty()) {
        None => Digest::None,
        Some(name) => match Digest::named(name) {
            Some(digest) => digest,
            None => return 0,
        },
    };
    // SAFETY: an object of ours that nobody else uses now.
    let place = unsafe { &mut *signing.cast::<Signing>() };
    place.key = Some((number, public.size()));
    place.padding = KINDS[key.kind].padding;
    place.digest = digest;
    // SAFETY: what libcrypto has passed to this function is good for that one.
    unsafe { signing_set_params(signing, params) }
}

unsafe extern "C" fn signing_set_params(signing: *mut c_void, params: Params) -> c_int {
    if params.is_null() {
        return 1;
    }
    // SAFETY: an object of ours that nobody else uses now.
    let place = unsafe { &mut *signing.cast::<Signing>() };
    // SAFETY: the list ends with the empty entry, and each string entry ends with
    // NUL inside its size.
    let value = |name| unsafe { value(params, name) };
    if let Some(value) = value(c"pad-mode") {
        place.padding = match value {
            Value::Number(1) => Padding::Pkcs1, // RSA_PKCS1_PADDING
            Value::Number(6) => Padding::Pss,   // RSA_PKCS1_PSS_PADDING
            Value::Text(name) if name.to_bytes() == b"pkcs1" => Padding::Pkcs1,
            Value::Text(name) if name.to_bytes() == b"pss" => Padding::Pss,
            _ => return 0,
        };
    }
    if let Some(value) = value(c"saltlen") {
        place.salt_fits = match value {
            Value::Number(number) => number == -1, // RSA_PSS_SALTLEN_DIGEST
            Value::Text(name) => matches!(name.to_bytes(), b"digest" | b"-1"),
        };
    }
    if let Some(Value::Text(name)) = value(c"digest") {
        match Digest::named(name) {
            Some(digest) => place.digest = digest,
            None => return 0,
        }
    }
    1
}

/// A parameter's value.
enum Value<'a> {
    Number(c_int),
    Text(&'a CStr),
}

/// # Safety
/// `params` must end with the empty entry and live as long as the result.
unsafe fn value<'a>(params: Params, name: &CStr) -> Option<Value<'a>> {
    // SAFETY: by contract.
    let param = unsafe { ffi::OSSL_PARAM_locate_const(params, name.as_ptr()) };
    if param.is_null() {
        return None;
    }
    // SAFETY: it is an entry of the list, valid by contract.
    let entry = unsafe { &*param };
    if entry.data_type == UTF8_STRING {
        let mut text = ptr::null();
        // SAFETY: the entry and the place are valid; the type is checked there.
        let found = unsafe { ffi::OSSL_PARAM_get_utf8_string_ptr(param, &raw mut text) };
        if found != 1 || text.is_null() {
            text = entry.data.cast::<c_char>().cast_const();
        }
        // SAFETY: the entry's string ends with NUL, by contract.
        return (!text.is_null()).then(|| Value::Text(unsafe { CStr::from_ptr(text) }));
    }
    let mut number = 0;
    // SAFETY: the entry and the place are valid; the type is checked there.
    let found = unsafe { OSSL_PARAM_get_int(param, &raw mut number) };
    (found == 1).then_some(Value::Number(number))
}

unsafe extern "C" fn signing_settable(_: *mut c_void, _: *mut c_void) -> Params {
    SIGNING_PARAMS.0.as_ptr()
}

unsafe extern "C" fn signing_sign(
    signing: *mut c_void,
    out: *mut c_uchar,
    length: *mut usize,
    room: usize,
    message: *const c_uchar,
    message_length: usize,
) -> c_int {
    // SAFETY: an object of ours.
    let signing = unsafe { &*signing.cast::<Signing>() };
    // SAFETY: libcrypto passes a valid place.
    let length = unsafe { &mut *length };
    let Some((number, longest)) = signing.key else {
        return 0;
    };
    if out.is_null() {
        *length = longest;
        return 1;
    }
    if message.is_null() || (signing.padding == Padding::Pss && !signing.salt_fits) {
        return 0;
    }
    // SAFETY: libcrypto passes a message of this length.
    let message = unsafe { std::slice::from_raw_parts(message, message_length) };
    let wanted = ToSign {
        key: number,
        padding: signing.padding,
        digest: signing.digest,
        message,
    };
    let signature = SIGN
        .lock()
        .ok()
        .and_then(|mut sign| sign.as_mut()?(&wanted));
    match signature {
        Some(signature) if !signature.is_empty() && signature.len() <= room => {
            // SAFETY: `out` has `room` bytes, which the guard compared.
            unsafe { ptr::copy_nonoverlapping(signature.as_ptr(), out, signature.len()) };
            *length = signature.len();
            1
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::hash::MessageDigest;
    use openssl::sign::{Signer, Verifier};

    /// The header that comes with the libcrypto of this build.
    /// The headers of every OpenSSL that may be linked here: the system's, one
    /// that is named, one that this build made.
    fn headers() -> Vec<String> {
        let own = std::env::current_exe().ok();
        let built = own
            .as_ref()
            .and_then(|own| own.parent()?.parent())
            .and_then(|folder| std::fs::read_dir(folder.join("build")).ok());
        let installed = built
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("out/openssl-build/install/include"));
        let named = std::env::var_os("OPENSSL_INCLUDE_DIR").map(Into::into);
        let folders = ["/usr/include", "/usr/local/include"].map(Into::into);
        installed
            .chain(named)
            .chain(folders)
            .filter_map(|folder: std::path::PathBuf| {
                std::fs::read_to_string(folder.join("openssl/core_dispatch.h")).ok()
            })
            .collect()
    }

    #[test]
    #[allow(clippy::print_stdout)]
    fn every_number_is_that_of_the_header() {
        let headers = headers();
        if headers.is_empty() {
            println!("skipped: no core_dispatch.h is installed");
        }
        for header in headers {
            compare(&header);
        }
    }

    fn compare(header: &str) {
        let number = |name: &str| -> Option<c_int> {
            header.lines().find_map(|line| {
                let mut words = line.strip_prefix('#')?.split_whitespace();
                if words.next()? != "define" || words.next()? != name {
                    return None;
                }
                let value = words.next()?;
                match value.strip_prefix("0x") {
                    Some(digits) => c_int::from_str_radix(digits, 16).ok(),
                    None => value.parse().ok(),
                }
            })
        };
        for (name, ours) in [
            ("OSSL_KEYMGMT_SELECT_PRIVATE_KEY", SELECT_PRIVATE),
            ("OSSL_OP_KEYMGMT", OP_KEYMGMT),
            ("OSSL_OP_SIGNATURE", OP_SIGNATURE),
            (
                "OSSL_FUNC_PROVIDER_QUERY_OPERATION",
                PROVIDER_QUERY_OPERATION,
            ),
            ("OSSL_FUNC_KEYMGMT_NEW", KEYMGMT_NEW),
            ("OSSL_FUNC_KEYMGMT_FREE", KEYMGMT_FREE),
            ("OSSL_FUNC_KEYMGMT_GET_PARAMS", KEYMGMT_GET_PARAMS),
            ("OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS", KEYMGMT_GETTABLE_PARAMS),
            (
                "OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME",
                KEYMGMT_QUERY_OPERATION_NAME,
            ),
            ("OSSL_FUNC_KEYMGMT_HAS", KEYMGMT_HAS),
            ("OSSL_FUNC_KEYMGMT_MATCH", KEYMGMT_MATCH),
            ("OSSL_FUNC_KEYMGMT_IMPORT", KEYMGMT_IMPORT),
            ("OSSL_FUNC_KEYMGMT_IMPORT_TYPES", KEYMGMT_IMPORT_TYPES),
            ("OSSL_FUNC_KEYMGMT_EXPORT", KEYMGMT_EXPORT),
            ("OSSL_FUNC_KEYMGMT_EXPORT_TYPES", KEYMGMT_EXPORT_TYPES),
            ("OSSL_FUNC_SIGNATURE_NEWCTX", SIGNATURE_NEWCTX),
            (
                "OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT",
                SIGNATURE_DIGEST_SIGN_INIT,
            ),
            ("OSSL_FUNC_SIGNATURE_DIGEST_SIGN", SIGNATURE_DIGEST_SIGN),
            ("OSSL_FUNC_SIGNATURE_FREECTX", SIGNATURE_FREECTX),
            (
                "OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS",
                SIGNATURE_SET_CTX_PARAMS,
            ),
            (
                "OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS",
                SIGNATURE_SETTABLE_CTX_PARAMS,
            ),
        ] {
            assert_eq!(number(name), Some(ours), "{name}");
        }
    }

    /// One test for all that signs: the function is one for the whole process.
    #[test]
    fn a_key_signs_through_the_function_and_is_never_exported() {
        let own = PKey::generate_ed25519().expect("a key");
        let raw = own.raw_public_key().expect("its public half");
        let public = PKey::public_key_from_raw_bytes(&raw, openssl::pkey::Id::ED25519)
            .expect("a public key");
        let far = key(&public, 7).expect("a key that is elsewhere");
        assert!(far.public_eq(&public) && public.public_eq(&far));
        assert!(far.private_key_to_der().is_err(), "nothing to be written");
        assert!(far.raw_private_key().is_err());
        let sign = |far: &PKey<Private>| -> Result<Vec<u8>, ErrorStack> {
            Signer::new_without_digest(far)?.sign_oneshot_to_vec(b"message")
        };
        assert!(sign(&far).is_err(), "nobody signs yet");
        let signer = own.clone();
        sign_with(Some(Box::new(move |wanted| {
            assert_eq!((wanted.key, wanted.message), (7, &b"message"[..]));
            assert_eq!(
                (wanted.padding, wanted.digest),
                (Padding::None, Digest::None)
            );
            Signer::new_without_digest(&signer)
                .ok()?
                .sign_oneshot_to_vec(wanted.message)
                .ok()
        })));
        let signature = sign(&far).expect("a signature");
        let good = Verifier::new_without_digest(&public)
            .and_then(|mut verifier| verifier.verify_oneshot(&signature, b"message"));
        assert!(good.expect("verified"));
        // Longer than the key's signatures can be: never copied.
        sign_with(Some(Box::new(|_| Some(vec![0; 65]))));
        assert!(sign(&far).is_err());
        // What libcrypto asks for RSA.
        let rsa = openssl::rsa::Rsa::generate(2048).expect("a key");
        let rsa = PKey::from_rsa(rsa).expect("a key");
        let public =
            PKey::public_key_from_der(&rsa.public_key_to_der().expect("der")).expect("key");
        let far = key(&public, 1).expect("a key that is elsewhere");
        sign_with(Some(Box::new(|wanted| {
            assert_eq!(
                (wanted.padding, wanted.digest),
                (Padding::Pss, Digest::Sha384)
            );
            Some(vec![7; 256])
        })));
        let mut signer = Signer::new(MessageDigest::sha384(), &far).expect("a signer");
        signer
            .set_rsa_padding(openssl::rsa::Padding::PKCS1_PSS)
            .expect("PSS");
        signer
            .set_rsa_pss_saltlen(openssl::sign::RsaPssSaltlen::DIGEST_LENGTH)
            .expect("salt");
        assert_eq!(
            signer.sign_oneshot_to_vec(b"message").expect("a signature"),
            vec![7; 256]
        );
        sign_with(None);
    }
}
