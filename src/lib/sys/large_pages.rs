//! This program's text and constants on large pages. Every forked process finds the
//! small ones of the file by faults, each of which maps neighbours that nobody needs
//! and that its end unmaps again; a large page of anonymous memory comes with the fork.

use std::ffi::c_void;
use std::fs;
use std::io;
use std::ops::Range;

use super::mappings::{self, Mapping};

/// How large they are on x86-64, and on aarch64 with small ones of 4 KiB. build.rs has the
/// linker keep what is of different rights in different ones.
const LARGE: usize = 2 * 1024 * 1024;

/// Moves them there, for a process that forks. Where the linker left no room, or the
/// system has no large pages (`never` in `/sys/kernel/mm/transparent_hugepage/enabled`,
/// or none free) or does not let memory that was written become text, they stay where
/// they are.
pub fn take_text() {
    let all = mappings::all();
    for (at, range) in ours(&all, take_text as *const () as usize) {
        let _ = move_over(&all[at], &range);
    }
}

/// How much of these mappings is on large pages, in bytes: proc(5), `AnonHugePages`.
fn large_bytes(smaps: &str, range: &Range<usize>) -> usize {
    let mut within = false;
    let mut kilobytes = 0;
    for line in smaps.lines() {
        if let Some(one) = mappings::parse(line).first() {
            within = one.range.start < range.end && range.start < one.range.end;
        } else if let Some(rest) = line.strip_prefix("AnonHugePages:").filter(|_| within) {
            let number = rest.trim().trim_end_matches(" kB").parse();
            kilobytes += number.unwrap_or(0);
        }
    }
    kilobytes * 1024
}

/// The mappings of the file that this address is of and which nobody writes to, each
/// with the large pages that it has to itself.
fn ours(all: &[Mapping], address: usize) -> Vec<(usize, Range<usize>)> {
    let Some(own) = all.iter().find(|one| one.range.contains(&address)) else {
        return Vec::new();
    };
    let fixed = |one: &Mapping| one.name == own.name && matches!(&*one.rights, "r-xp" | "r--p");
    let wide = |one: &Mapping| {
        let start = one.range.start / LARGE * LARGE;
        start..one.range.end.next_multiple_of(LARGE)
    };
    let alone = |at: usize, range: &Range<usize>| {
        let mut others = all.iter().enumerate().filter(|(other, _)| *other != at);
        !others.any(|(_, one)| one.range.start < range.end && range.start < one.range.end)
    };
    let found = all.iter().enumerate().filter(|(_, one)| fixed(one));
    let found = found.map(|(at, one)| (at, wide(one)));
    found.filter(|(at, range)| alone(*at, range)).collect()
}

/// Puts a copy on large pages in the place of a mapping.
fn move_over(old: &Mapping, place: &Range<usize>) -> io::Result<()> {
    let length = place.len();
    let rights = libc::PROT_READ
        | if old.rights.contains('x') {
            libc::PROT_EXEC
        } else {
            0
        };
    // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
    let raw = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length + LARGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if raw == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let copy = raw.wrapping_byte_add((raw as usize).next_multiple_of(LARGE) - raw as usize);
    let moved = fill(copy, length, old, place, rights);
    // SAFETY: what is left of that mapping is nobody's.
    unsafe { libc::munmap(raw, length + LARGE) };
    moved
}

fn fill(
    copy: *mut c_void,
    length: usize,
    old: &Mapping,
    place: &Range<usize>,
    rights: i32,
) -> io::Result<()> {
    // SAFETY: the range is of the mapping that the caller made.
    if unsafe { libc::madvise(copy, length, libc::MADV_HUGEPAGE) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let from = old.range.start as *const u8;
    let to = copy
        .cast::<u8>()
        .wrapping_add(old.range.start - place.start);
    // SAFETY: the old mapping is readable and stays as it is, the new one is
    // writable; both are as long as that, and they are two.
    unsafe { std::ptr::copy_nonoverlapping(from, to, old.range.len()) };
    let range = copy as usize..copy as usize + length;
    if large_bytes(&fs::read_to_string("/proc/self/smaps")?, &range) < length {
        // Every fork would copy the table of small ones: the file's cost less.
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    // SAFETY: nobody else has a reference to the copy.
    if unsafe { libc::mprotect(copy, length, rights) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: what was at the place has the same bytes and rights there afterwards, and
    // nothing else was: the text that runs now goes on in its copy.
    let moved = unsafe {
        libc::mremap(
            copy,
            length,
            length,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            place.start as *mut c_void,
        )
    };
    if moved == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55b699a00000-55b699b97000 r--p 00000000 fe:00 5464247 /a/sslserver
55b699c00000-55b699fe7000 r-xp 00200000 fe:00 5464247 /a/sslserver
55b69a000000-55b69a063000 r--p 00600000 fe:00 5464247 /a/sslserver
55b69a063000-55b69a207000 rw-p 00663000 fe:00 5464247 /a/sslserver
7f97fd1ca000-7f97fd1f0000 r--p 00000000 fe:00 326279 /lib/libc.so.6
7ffc32ad6000-7ffc32af7000 rw-p 00000000 00:00 0 [stack]
";

    #[test]
    fn what_shares_its_large_pages_with_nothing_else_is_found() {
        let all = mappings::parse(MAPS);
        assert_eq!(all.len(), 6);
        let found = ours(&all, 0x55b6_99c0_1234);
        assert_eq!(
            found,
            [
                (0, 0x55b6_99a0_0000..0x55b6_99c0_0000),
                (1, 0x55b6_99c0_0000..0x55b6_9a00_0000),
            ]
        );
        let close = MAPS.replace("55b699c00000-", "55b699b97000-");
        assert_eq!(ours(&mappings::parse(&close), 0x55b6_99c0_1234), []);
        assert_eq!(ours(&all, 0x1000), []);
        assert_eq!(mappings::parse("no map\n\n"), []);
    }

    #[test]
    fn what_is_on_large_pages_is_counted_where_it_is() {
        const SMAPS: &str = "\
7f0000000000-7f0000400000 rw-p 00000000 00:00 0
Size:               4096 kB
AnonHugePages:      2048 kB
VmFlags: rd wr mr mw me ac hg
7f0000400000-7f0000600000 rw-p 00000000 00:00 0
AnonHugePages:      2048 kB
7f0000600000-7f0000800000 r-xp 00000000 fe:00 12 /a/dead:beef
AnonHugePages:         0 kB
";
        let large = |start, end| large_bytes(SMAPS, &(start..end));
        assert_eq!(large(0x7f00_0020_0000, 0x7f00_0040_0000), LARGE);
        assert_eq!(large(0x7f00_0000_0000, 0x7f00_0060_0000), 2 * LARGE);
        assert_eq!(large(0x7f00_0060_0000, 0x7f00_0080_0000), 0);
        assert_eq!(large(0x1000, 0x2000), 0);
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a skip prints why")]
    fn a_mapping_has_the_same_bytes_and_rights_when_it_was_moved() {
        /// More than a large page, and none to its end.
        const LENGTH: usize = LARGE + 12_345;
        let path = std::env::temp_dir().join(format!("large-pages.{}", std::process::id()));
        let bytes: Vec<u8> = (0..=250).cycle().take(LENGTH).collect();
        fs::write(&path, &bytes).expect("a file");
        let file = fs::File::open(&path).expect("the file");
        fs::remove_file(&path).expect("removed");
        let room = 4 * LARGE;
        let (null, anonymous) = (
            std::ptr::null_mut(),
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping aliases nothing.
        let raw = unsafe { libc::mmap(null, room, libc::PROT_NONE, anonymous, -1, 0) };
        assert_ne!(raw, libc::MAP_FAILED);
        let start = (raw as usize).next_multiple_of(LARGE);
        let place = start..start + 2 * LARGE;
        let from = start + 4096;
        // SAFETY: it takes the place of a part of the mapping above, which nobody uses.
        let mapped = unsafe {
            libc::mmap(
                from as *mut c_void,
                LENGTH,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_FIXED,
                std::os::fd::AsRawFd::as_raw_fd(&file),
                0,
            )
        };
        assert_eq!(mapped as usize, from);
        let old = Mapping {
            range: from..from + LENGTH.next_multiple_of(4096),
            rights: "r--p".to_owned(),
            name: String::new(),
        };
        if let Err(why) = move_over(&old, &place) {
            println!("skipped: this system gives no large pages now: {why}");
            return;
        }
        // SAFETY: the mapping is readable, that long, and stays until the end.
        let now = unsafe { std::slice::from_raw_parts(from as *const u8, LENGTH) };
        assert!(now == bytes, "the same bytes");
        let maps = fs::read_to_string("/proc/self/maps").expect("maps");
        let moved = mappings::parse(&maps);
        let moved = moved.iter().find(|one| one.range.contains(&from));
        let moved = moved.expect("a mapping");
        assert_eq!((&*moved.rights, &*moved.name), ("r--p", ""));
    }
}
