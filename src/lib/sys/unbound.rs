//! libunbound: DNS answers that are validated with DNSSEC in this process. The
//! calls are those of libunbound(3); answers come through a pipe from a thread of
//! its own, so that a question can be given up.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
#[cfg(target_env = "gnu")]
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::thread::Builder;
use std::time::Instant;

use super::poll::{self, Ready};

/// `struct ub_ctx`, which is libunbound's own.
enum Context {}

/// The first members of `struct ub_result`, those that every version has. There
/// are more; only libunbound makes such objects.
#[repr(C)]
struct RawResult {
    qname: *mut c_char,
    qtype: c_int,
    qclass: c_int,
    data: *mut *mut c_char,
    len: *mut c_int,
    canonname: *mut c_char,
    rcode: c_int,
    answer_packet: *mut c_void,
    answer_len: c_int,
    havedata: c_int,
    nxdomain: c_int,
    secure: c_int,
    bogus: c_int,
    why_bogus: *mut c_char,
}

type Callback = unsafe extern "C" fn(*mut c_void, c_int, *mut RawResult);

/// Class IN.
const INTERNET: c_int = 1;

unsafe extern "C" {
    fn ub_ctx_create() -> *mut Context;
    fn ub_ctx_delete(context: *mut Context);
    fn ub_ctx_debugout(context: *mut Context, stream: *mut c_void) -> c_int;
    fn ub_ctx_set_option(
        context: *mut Context,
        option: *const c_char,
        value: *const c_char,
    ) -> c_int;
    fn ub_ctx_set_fwd(context: *mut Context, address: *const c_char) -> c_int;
    fn ub_ctx_add_ta(context: *mut Context, record: *const c_char) -> c_int;
    fn ub_ctx_async(context: *mut Context, by_thread: c_int) -> c_int;
    fn ub_ctx_zone_remove(context: *mut Context, zone: *const c_char) -> c_int;
    fn ub_resolve_async(
        context: *mut Context,
        name: *const c_char,
        kind: c_int,
        class: c_int,
        data: *mut c_void,
        callback: Callback,
        id: *mut c_int,
    ) -> c_int;
    fn ub_fd(context: *mut Context) -> c_int;
    fn ub_process(context: *mut Context) -> c_int;
    fn ub_resolve_free(result: *mut RawResult);
    fn ub_strerror(error: c_int) -> *const c_char;
}

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    // glibc 2.18; the crate libc does not have it.
    fn pthread_setattr_default_np(attributes: *const libc::pthread_attr_t) -> c_int;
}

/// An answer, and what libunbound found out about it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The message as on the wire, with the aliases on the way. Empty where there
    /// was none.
    pub packet: Vec<u8>,
    /// Its response code: 2 also where nobody answered.
    pub rcode: i32,
    /// Signatures prove it, and each alias.
    pub secure: bool,
    /// Why signatures that should have proved it do not.
    pub bogus: Option<String>,
}

/// A question: a name in the text form of zone files, and a type's number.
pub type Question = (CString, u16);

/// What a resolver starts from.
pub struct Setup<'a> {
    /// The servers that are asked; at least one.
    pub servers: &'a [SocketAddr],
    /// DNSKEY or DS records of the root, in the text form of zone files.
    pub anchors: &'a [String],
    /// Domains below which nothing is validated.
    pub insecure: &'a [String],
}

/// Where an answer goes when it comes.
#[derive(Default)]
struct Slot(Cell<Option<Result<Answer, c_int>>>);

/// A resolver that validates, with its cache. It ends, with its thread, when it
/// is dropped.
pub struct Resolver {
    context: NonNull<Context>,
    /// Of questions that were given up, too: their answers may still come. They
    /// stay where they are as long as the context lives.
    slots: RefCell<Vec<NonNull<Slot>>>,
}

/// The stack of libunbound's thread, in bytes; musl gives threads an eighth of it.
const STACK: usize = 1 << 20;

/// Makes that the stack of every thread that is begun without a word about it, as
/// libunbound's. By itself glibc takes what the limit on the stack was when the program
/// began: under softlimit -m that is all memory that there may be.
#[cfg(target_env = "gnu")]
fn size_stacks() -> io::Result<()> {
    fn done(error: c_int) -> io::Result<()> {
        match error {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: the object is ours, and made by this call.
    done(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
    // SAFETY: the call above made the object.
    let sized = done(unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK) });
    // SAFETY: likewise, and the object is copied.
    let set = sized.and_then(|()| done(unsafe { pthread_setattr_default_np(attributes.as_ptr()) }));
    // SAFETY: likewise, and it is not used after this.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    set
}

/// Other libraries have a size of their own that no limit changes.
#[cfg(not(target_env = "gnu"))]
fn size_stacks() -> io::Result<()> {
    Ok(())
}

/// Whether a thread can be had, with the stack that libunbound's will have. It
/// would not notice that there is none, and wait for its word for ever.
fn try_a_thread() -> io::Result<()> {
    let thread = Builder::new().stack_size(STACK);
    #[expect(
        clippy::disallowed_methods,
        reason = "it has ended before anything is forked"
    )]
    let ended = thread.spawn(|| ())?.join();
    ended.map_err(|_| io::ErrorKind::Other.into())
}

fn text(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn check(error: c_int) -> io::Result<()> {
    match error {
        0 => Ok(()),
        error => Err(failure(error)),
    }
}

fn failure(error: c_int) -> io::Error {
    // SAFETY: takes any number.
    let words = unsafe { ub_strerror(error) };
    // SAFETY: it is a constant string.
    let words = unsafe { CStr::from_ptr(words) };
    io::Error::other(format!("libunbound: {}", words.to_string_lossy()))
}

/// What ub_resolve_async calls, out of ub_process.
///
/// # Safety
/// `slot` is one of a [`Resolver`]'s, and no other thread uses it; `result` is null
/// or libunbound's, and ours to free.
unsafe extern "C" fn deliver(slot: *mut c_void, error: c_int, result: *mut RawResult) {
    // SAFETY: by this function's contract: either is null, or valid until it is
    // freed below.
    let (slot, found) = unsafe { (&*slot.cast::<Slot>(), result.as_ref()) };
    let answer = match found {
        Some(found) if error == 0 => {
            // SAFETY: libunbound made the object, and it is not freed yet.
            Ok(unsafe { answer(found) })
        }
        _ => Err(error),
    };
    slot.0.set(Some(answer));
    // SAFETY: `result` is ours to free, and not used after this; null is taken.
    unsafe { ub_resolve_free(result) };
}

/// # Safety
/// `result` is libunbound's, with pointers that are null or valid.
unsafe fn answer(result: &RawResult) -> Answer {
    let packet = match usize::try_from(result.answer_len) {
        Ok(length) if !result.answer_packet.is_null() => {
            // SAFETY: by this function's contract the pointer leads to that many
            // bytes.
            unsafe { slice::from_raw_parts(result.answer_packet.cast::<u8>(), length) }.to_vec()
        }
        _ => Vec::new(),
    };
    let bogus = (result.bogus != 0).then(|| {
        if result.why_bogus.is_null() {
            return String::new();
        }
        // SAFETY: by this function's contract the pointer leads to a string that
        // ends with a NUL.
        let words = unsafe { CStr::from_ptr(result.why_bogus) };
        words.to_string_lossy().into_owned()
    });
    Answer {
        packet,
        rcode: result.rcode,
        secure: result.secure != 0 && bogus.is_none(),
        bogus,
    }
}

impl Resolver {
    /// A resolver that forwards its questions.
    ///
    /// # Errors
    /// An address, an anchor or a domain is none, or there is no memory.
    pub fn new(setup: &Setup<'_>) -> io::Result<Resolver> {
        size_stacks()?;
        try_a_thread()?;
        // SAFETY: takes nothing; the object is this value's alone, and deleted
        // with it.
        let context = NonNull::new(unsafe { ub_ctx_create() });
        let resolver = Resolver {
            context: context.ok_or(io::ErrorKind::OutOfMemory)?,
            slots: RefCell::default(),
        };
        resolver.keep_quiet()?;
        for (option, value) in OPTIONS {
            resolver.set(option, value)?;
        }
        for (option, value) in NEWER_OPTIONS {
            // An older libunbound goes without.
            let _ = resolver.set(option, value);
        }
        for domain in setup.insecure {
            resolver.set(c"domain-insecure:", &text(domain)?)?;
        }
        for server in setup.servers {
            resolver.forward_to(*server)?;
        }
        for anchor in setup.anchors {
            let record = text(anchor)?;
            // SAFETY: the context lives, and the string is copied.
            check(unsafe { ub_ctx_add_ta(resolver.raw(), record.as_ptr()) })?;
        }
        // SAFETY: the context lives.
        check(unsafe { ub_ctx_async(resolver.raw(), 1) })?;
        for zone in OWN_ZONES {
            // SAFETY: the context lives, and the string is not kept.
            check(unsafe { ub_ctx_zone_remove(resolver.raw(), zone.as_ptr()) })?;
        }
        Ok(resolver)
    }

    fn raw(&self) -> *mut Context {
        self.context.as_ptr()
    }

    /// Nothing is written to descriptor 2.
    fn keep_quiet(&self) -> io::Result<()> {
        // SAFETY: the context lives; without a stream nothing is logged.
        check(unsafe { ub_ctx_debugout(self.raw(), ptr::null_mut()) })
    }

    fn set(&self, option: &CStr, value: &CStr) -> io::Result<()> {
        // SAFETY: the context lives, and the strings are copied.
        check(unsafe { ub_ctx_set_option(self.raw(), option.as_ptr(), value.as_ptr()) })
    }

    fn forward_to(&self, server: SocketAddr) -> io::Result<()> {
        let scope = match server {
            SocketAddr::V6(six) if six.scope_id() != 0 => format!("%{}", six.scope_id()),
            _ => String::new(),
        };
        let address = text(&format!("{}{scope}@{}", server.ip(), server.port()))?;
        // SAFETY: the context lives, and the string is copied.
        check(unsafe { ub_ctx_set_fwd(self.raw(), address.as_ptr()) })
    }

    /// The answers of questions that are put at the same time; `None` for one that
    /// was not answered by the deadline.
    ///
    /// # Errors
    /// There is no memory, or no thread can be had.
    pub fn ask(
        &self,
        questions: &[Question],
        deadline: Instant,
    ) -> io::Result<Vec<Option<Answer>>> {
        let mut open = Vec::new();
        for question in questions {
            open.push(self.put(question)?);
        }
        // SAFETY: the context lives.
        let pipe = unsafe { ub_fd(self.raw()) };
        if pipe < 0 {
            return Err(failure(pipe));
        }
        // SAFETY: the context, which lives, keeps the descriptor open.
        let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
        let mut answers: Vec<Option<Answer>> = vec![None; open.len()];
        let mut left = open.len();
        while left > 0 && Instant::now() < deadline {
            poll::wait(&mut [(pipe, Ready::READ)], Some(deadline))?;
            // SAFETY: the context lives. Slots that it calls back with do, too.
            check(unsafe { ub_process(self.raw()) })?;
            for (slot, answer) in open.iter().zip(&mut answers) {
                // SAFETY: slots live as long as the context, and only this
                // thread uses them.
                if let Some(came) = unsafe { slot.as_ref() }.0.take() {
                    *answer = Some(came.map_err(failure)?);
                    left -= 1;
                }
            }
        }
        Ok(answers)
    }

    fn put(&self, (name, kind): &Question) -> io::Result<NonNull<Slot>> {
        let slot = NonNull::from(Box::leak(Box::<Slot>::default()));
        self.slots.borrow_mut().push(slot);
        // SAFETY: the context lives, the name is copied, and the slot stays until
        // the context is deleted, which calls nothing back.
        check(unsafe {
            ub_resolve_async(
                self.raw(),
                name.as_ptr(),
                c_int::from(*kind),
                INTERNET,
                slot.as_ptr().cast(),
                deliver,
                ptr::null_mut(),
            )
        })?;
        Ok(slot)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // SAFETY: the context lives, and is not used after this. Its thread has
        // ended when the call returns.
        unsafe { ub_ctx_delete(self.raw()) };
        for slot in self.slots.get_mut().drain(..) {
            // SAFETY: it came from a box, and nobody knows it any more.
            drop(unsafe { Box::from_raw(slot.as_ptr()) });
        }
    }
}

/// What differs from libunbound's own choice.
const OPTIONS: &[(&CStr, &CStr)] = &[
    // A server on this host is the usual one.
    (c"do-not-query-localhost:", c"no"),
    // The root is not told which anchors are known here.
    (c"trust-anchor-signaling:", c"no"),
    (c"root-key-sentinel:", c"no"),
    // Answers stay below what a path without fragments takes.
    (c"edns-buffer-size:", c"1232"),
    // What a single delivery asks fits into one slab of each cache.
    (c"msg-cache-slabs:", c"1"),
    (c"rrset-cache-slabs:", c"1"),
    (c"infra-cache-slabs:", c"1"),
    (c"key-cache-slabs:", c"1"),
];

/// The same, for options that old versions do not know.
const NEWER_OPTIONS: &[(&CStr, &CStr)] = &[
    // A question is put again after so many milliseconds, then after twice and four
    // times as many. An answer that comes later than that is not taken.
    (c"infra-cache-min-rtt:", c"700"),
    // A server for which more is reckoned counts as dead. After a first slow answer
    // three times as much as it took is reckoned.
    (c"infra-cache-max-rtt:", c"5500"),
];

/// Zones that libunbound answers by itself, and that are the servers' business.
const OWN_ZONES: &[&CStr] = &[c"test.", c"home.arpa."];
