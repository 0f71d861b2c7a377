//! A constant database in djb's cdb format: opened, looked up, replaced in one
//! step. Knows nothing of what keys and data mean.
//!
//! [`Database::open`] reads the whole file into memory and proves it sound: the
//! records fill the space between header and tables, the tables fill the rest,
//! and every record can be found by its hash. So no later look-up can fail, and
//! a file that was cut, overwritten or garbled is refused as a whole: that there is
//! no rule may mean that all is allowed, or that mail needs no TLS.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::report::Fail;
use crate::sys::fd;
use crate::sys::memory::{Bytes, shortage};
use crate::text;

/// The header: 256 pairs of a table's position and its number of slots.
const HEADER: usize = 2048;

/// The largest file that is read whole, in bytes, as of any file.
const LIMIT: u64 = 16 << 20;
/// The same in words.
const TOO_LARGE: &str = "larger than 16 MB";

/// How often a file that changes while it is read is read again.
const TRIES: usize = 3;

/// How many other writers of the same temporary file are waited for.
const TRIES_TO_LOCK: usize = 100;

/// A sound cdb, in memory. What happens to the file afterwards does not reach
/// it: a mapped file that someone cuts would end the reader with SIGBUS.
#[derive(Clone, Debug)]
pub struct Database {
    image: Bytes,
    data_end: usize,
}

impl Database {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// As open(2) and read(2); [`io::ErrorKind::InvalidData`] if the file is
    /// not a sound cdb, or changes faster than it can be read.
    pub fn open(path: &Path) -> io::Result<Database> {
        for _ in 0..TRIES {
            // Opening a fifo would wait for its writer.
            if !fs::metadata(path)?.is_file() {
                return Err(invalid("not a regular file"));
            }
            let file = File::open(path)?;
            let before = file.metadata()?;
            if before.len() > LIMIT {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("it is {TOO_LARGE}"),
                ));
            }
            let length = usize::try_from(before.len()).unwrap_or(usize::MAX);
            let mut image = shortage::room_for_file(length)?;
            (&file).take(LIMIT).read_to_end(&mut image)?;
            // Being renamed over, which touches the inode, does not count.
            let after = file.metadata()?;
            if after.len() == before.len() && after.modified()? == before.modified()? {
                return Database::from_image(image);
            }
        }
        Err(invalid("changed while it was read"))
    }

    /// Checks the bytes of a cdb.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if they are not a sound cdb.
    pub fn from_image(image: Vec<u8>) -> io::Result<Database> {
        let data_end = check(&image).ok_or_else(damaged)?;
        let image = Bytes::from(image);
        Ok(Database { image, data_end })
    }

    /// The same where a fork has nothing to do for it, however large it is.
    #[must_use]
    pub fn unforked(self) -> Database {
        let image = self.image.unforked();
        Database { image, ..self }
    }

    /// The first record with this key, key and data.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<(&[u8], &[u8])> {
        let hash = hash(key);
        let table = Table::of(&self.image, hash & 0xff)?;
        let first = table.start(hash)?;
        for slot in (first..table.slots).chain(0..first) {
            let (found, position) = table.slot(&self.image, slot)?;
            if position == 0 {
                return None;
            }
            if found == hash {
                let (record, data, _) = record(&self.image, position as usize, self.data_end)?;
                if record == key {
                    return Some((record, data));
                }
            }
        }
        None
    }

    /// Every record, key and data, in the order in which they were added.
    pub fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut position = HEADER;
        std::iter::from_fn(move || {
            let (key, data, next) = record(&self.image, position, self.data_end)?;
            position = next;
            Some((key, data))
        })
    }
}

/// Says so where a database of these records could not be opened again.
#[must_use]
pub fn too_large<'a>(records: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<&'static str> {
    // Two numbers before each record, and two slots of two for it.
    let size = records.fold(HEADER as u64, |sum, (key, data)| {
        sum + key.len() as u64 + data.len() as u64 + 24
    });
    (size > LIMIT).then_some(TOO_LARGE)
}

/// Writes the records to `temporary`, syncs it, and renames it to `cdb`. Where
/// anything fails, `cdb` is what it was before; the temporary file is removed.
///
/// # Errors
/// In the words of tcprules, and after the rename `unable to sync`: then the
/// new file is in place, but a power failure may bring the old one back.
pub fn replace<'a>(
    cdb: &Path,
    temporary: &Path,
    records: impl IntoIterator<Item = (&'a [u8], &'a [u8]), IntoIter: Clone>,
) -> Result<(), Fail> {
    let name = |path: &Path| text::name(path.as_os_str().as_bytes(), 300);
    let identity = |path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    if let (Ok(old), Ok(new)) = (identity(cdb), identity(temporary)) {
        if old == new {
            // Opening it would already destroy the old database.
            return Err(Fail::never(format!(
                "unable to create {}: it is the database itself",
                name(temporary)
            )));
        }
    }
    let file = exclusive(temporary).map_err(Fail::unable(format!("create {}", name(temporary))))?;
    // Never a device: /dev/full must survive a test with it.
    let disposable = file.metadata().is_ok_and(|found| found.is_file());
    let written = write(&file, &records.into_iter())
        .map_err(Fail::unable(format!("write to {}", name(temporary))))
        .and_then(|()| {
            let step = format!("move {} to {}", name(temporary), name(cdb));
            fs::rename(temporary, cdb).map_err(Fail::unable(step))
        });
    if let Err(fail) = written {
        if disposable {
            // It is only a temporary file: what counts is the first failure.
            let _ = fs::remove_file(temporary);
        }
        return Err(fail);
    }
    let directory = match cdb.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|open| open.sync_all())
        .map_err(Fail::unable(format!("sync {}", name(directory))))
}

/// An empty file that no other call of [`replace`] is writing. Without the lock
/// one call could cut the file that the other is about to rename.
fn exclusive(path: &Path) -> io::Result<File> {
    for _ in 0..TRIES_TO_LOCK {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)?;
        // A file system without locks is used without.
        let _ = fd::lock(&file);
        let opened = file.metadata()?;
        match fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (opened.dev(), opened.ino()) => {}
            // The holder before us has renamed or removed it.
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        if opened.is_file() {
            file.set_len(0)?;
        }
        return Ok(file);
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        "other writers keep taking it",
    ))
}

/// Fills an empty file, proves that it holds what it should, and syncs it.
fn write<'a>(
    mut file: &File,
    records: &(impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone),
) -> io::Result<()> {
    if too_large(records.clone()).is_some() {
        return Err(invalid("too many rules"));
    }
    let image = image(records.clone()).ok_or_else(|| invalid("too many rules"))?;
    file.write_all(&image)?;
    let mut found = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(LIMIT).read_to_end(&mut found)?;
    if *Database::from_image(found)?.image != *image {
        return Err(invalid("it does not hold what was written"));
    }
    file.sync_all()
}

/// The bytes that cdbmake(1) writes for these records: the header, the records in
/// their order, and 256 hash tables, each with two slots for an entry.
fn image<'a>(records: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<Vec<u8>> {
    let mut image = vec![0; HEADER];
    let mut tables = vec![Vec::new(); 256];
    for (key, data) in records {
        let hash = hash(key);
        let entry = (hash, u32::try_from(image.len()).ok()?);
        tables.get_mut((hash & 0xff) as usize)?.push(entry);
        image.extend(u32::try_from(key.len()).ok()?.to_le_bytes());
        image.extend(u32::try_from(data.len()).ok()?.to_le_bytes());
        image.extend(key);
        image.extend(data);
    }
    let mut header = Vec::with_capacity(HEADER);
    for entries in tables {
        let mut slots = vec![(0, 0); entries.len() * 2];
        let mut free = Free::of(slots.len());
        header.extend(u32::try_from(image.len()).ok()?.to_le_bytes());
        header.extend(u32::try_from(slots.len()).ok()?.to_le_bytes());
        for entry in entries {
            let start = (entry.0 as usize >> 8) % slots.len();
            *slots.get_mut(free.take(start)?)? = entry;
        }
        for (hash, position) in slots {
            image.extend([hash.to_le_bytes(), position.to_le_bytes()].as_flattened());
        }
    }
    image.splice(..HEADER, header);
    Some(image)
}

/// The free slots of a table, half of which stay so. Equal keys all begin their search
/// at one slot: a search that passed each full one would cost their square.
struct Free {
    /// From each slot one at or behind it, before which none is free; a free slot has
    /// itself.
    next: Vec<usize>,
}

impl Free {
    fn of(slots: usize) -> Free {
        Free {
            next: (0..slots).collect(),
        }
    }

    /// The first free slot from this one on, around the end; it is free no more.
    fn take(&mut self, start: usize) -> Option<usize> {
        let mut found = start;
        while *self.next.get(found)? != found {
            found = *self.next.get(found)?;
        }
        let behind = (found + 1) % self.next.len();
        let mut at = start;
        while at != found {
            at = std::mem::replace(self.next.get_mut(at)?, behind);
        }
        *self.next.get_mut(found)? = behind;
        Some(found)
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn damaged() -> io::Error {
    invalid("damaged or not a cdb")
}

/// The hash of the format: djb's, from 5381, with exclusive or.
fn hash(key: &[u8]) -> u32 {
    key.iter().fold(5381, |hash: u32, &byte| {
        hash.wrapping_mul(33) ^ u32::from(byte)
    })
}

/// Two little-endian numbers.
fn pair(image: &[u8], position: usize) -> Option<(u32, u32)> {
    let bytes = image.get(position..position.checked_add(8)?)?;
    let (low, high) = bytes.split_at(4);
    Some((
        u32::from_le_bytes(low.try_into().ok()?),
        u32::from_le_bytes(high.try_into().ok()?),
    ))
}

/// The key and data of the record at `position`, and where the next one begins.
fn record(image: &[u8], position: usize, end: usize) -> Option<(&[u8], &[u8], usize)> {
    let image = image.get(..end)?;
    let (key, data) = pair(image, position)?;
    let key_at = position.checked_add(8)?;
    let data_at = key_at.checked_add(key as usize)?;
    let next = data_at.checked_add(data as usize)?;
    Some((image.get(key_at..data_at)?, image.get(data_at..next)?, next))
}

/// One of the 256 hash tables.
#[derive(Clone, Copy)]
struct Table {
    number: u32,
    position: usize,
    slots: usize,
}

impl Table {
    fn of(image: &[u8], number: u32) -> Option<Table> {
        let (position, slots) = pair(image, number as usize * 8)?;
        Some(Table {
            number,
            position: position as usize,
            slots: slots as usize,
        })
    }

    /// Where the search for a hash starts; `None` in an empty table.
    fn start(&self, hash: u32) -> Option<usize> {
        (hash as usize >> 8).checked_rem(self.slots)
    }

    /// The hash and the position in a slot; position 0 marks an empty one.
    fn slot(&self, image: &[u8], slot: usize) -> Option<(u32, u32)> {
        pair(image, self.position.checked_add(slot.checked_mul(8)?)?)
    }

    fn end(&self) -> Option<usize> {
        self.position.checked_add(self.slots.checked_mul(8)?)
    }
}

/// The tables that are not empty, and where the records end, in a file of that
/// size: without gap or overlap, up to the last byte, so no cut goes unnoticed.
fn tables(header: &[u8], size: usize) -> Option<(Vec<Table>, usize)> {
    // Even the tables of an empty database stand somewhere. After a power failure a
    // file may be all zeros.
    if header.iter().take(HEADER).all(|&byte| byte == 0) {
        return None;
    }
    let mut tables = (0..256)
        .map(|number| Table::of(header, number))
        .collect::<Option<Vec<_>>>()?;
    tables.retain(|table| table.slots > 0);
    tables.sort_unstable_by_key(|table| table.position);
    let mut data_end = size;
    for table in tables.iter().rev() {
        if table.end()? != data_end {
            return None;
        }
        data_end = table.position;
    }
    Some((tables, data_end))
}

/// Where the records end, if the whole image is sound. Takes time in proportion
/// to the image, whatever it holds.
fn check(image: &[u8]) -> Option<usize> {
    let (tables, data_end) = tables(image, image.len())?;
    let mut starts = Vec::new();
    let mut position = HEADER;
    while position != data_end {
        let (key, _, next) = record(image, position, data_end)?;
        starts.push((position, hash(key), false));
        position = next;
    }

    let mut found = 0;
    for table in &tables {
        found += check_table(image, table, &mut starts)?;
    }
    (found == starts.len()).then_some(data_end)
}

/// How many records the table leads to: each is where a search finds it, and
/// none was found before.
fn check_table(image: &[u8], table: &Table, starts: &mut [(usize, u32, bool)]) -> Option<usize> {
    let mut slots = Vec::new();
    for slot in 0..table.slots {
        slots.push(table.slot(image, slot)?);
    }
    // A search passes full slots only. Begin behind an empty one, so that the
    // run of full slots before each slot is known; a full table is one run.
    let empty = slots.iter().position(|&(_, position)| position == 0);
    let (first, mut run) = empty.map_or((0, table.slots), |slot| (slot, 0));
    let mut found = 0;
    for at in (first..table.slots).chain(0..first) {
        let (hash, position) = *slots.get(at)?;
        if position == 0 {
            if hash != 0 {
                return None;
            }
            run = 0;
            continue;
        }
        let index = starts
            .binary_search_by_key(&(position as usize), |start| start.0)
            .ok()?;
        let (_, real, seen) = starts.get_mut(index)?;
        let distance = (at + table.slots - table.start(hash)?) % table.slots;
        if *seen || *real != hash || hash & 0xff != table.number || distance > run {
            return None;
        }
        *seen = true;
        found += 1;
        run += 1;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image with one table that holds everything, and its records' keys.
    fn crowded(keys: &[&[u8]], slots: usize) -> Vec<u8> {
        let mut image = vec![0; HEADER];
        let mut table = vec![(0, 0); slots];
        for key in keys {
            let hash = hash(key);
            let mut slot = (hash as usize >> 8) % slots;
            while table[slot].1 != 0 {
                slot = (slot + 1) % slots;
            }
            table[slot] = (hash, u32::try_from(image.len()).expect("small"));
            let length = u32::try_from(key.len()).expect("small");
            image.extend([length.to_le_bytes(), 0_u32.to_le_bytes()].concat());
            image.extend(*key);
        }
        let start = u32::try_from(image.len()).expect("small");
        let at = 8 * (hash(keys[0]) as usize % 256);
        image[at..at + 4].copy_from_slice(&start.to_le_bytes());
        image[at + 4..at + 8].copy_from_slice(&u32::try_from(slots).expect("small").to_le_bytes());
        for (hash, position) in table {
            image.extend([hash.to_le_bytes(), position.to_le_bytes()].concat());
        }
        image
    }

    #[test]
    fn equal_keys_are_placed_where_cdbmake_places_them() {
        let keys = [&b"a"[..], b"a", b"b", b"a", b"", b"a"].repeat(20);
        let written = image(keys.iter().map(|key| (*key, &b"x"[..]))).expect("small");
        for number in 0..256 {
            let table = Table::of(&written, number).expect("whole");
            let entries = |key: &&&[u8]| hash(key) & 0xff == number;
            let mut slots = vec![None; table.slots];
            for key in keys.iter().filter(entries) {
                let start = table.start(hash(key)).expect("slots");
                let free = (start..table.slots).chain(0..start);
                let mut free = free.filter(|&slot| slots[slot].is_none());
                let slot = free.next().expect("half are free");
                slots[slot] = Some(hash(key));
            }
            for (slot, wanted) in slots.into_iter().enumerate() {
                let (found, position) = table.slot(&written, slot).expect("whole");
                assert_eq!((position != 0).then_some(found), wanted);
            }
        }
    }

    #[test]
    fn very_many_equal_keys_are_written_in_a_moment() {
        let many = std::iter::repeat_n((&b"k"[..], &b""[..]), 300_000);
        let written = Database::from_image(image(many).expect("small")).expect("sound");
        assert_eq!(written.records().count(), 300_000);
    }

    #[test]
    fn no_cut_no_zeros_and_no_bit_of_a_key_go_unnoticed() {
        let keys: Vec<Vec<u8>> = (0..30).map(|n| format!("key{n}").into_bytes()).collect();
        let records = keys.iter().map(|key| (&key[..], &b""[..]));
        let sound = image(records).expect("small");
        let refused = |image: Vec<u8>| {
            let refused = Database::from_image(image).expect_err("damaged");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        };
        for size in 0..sound.len() {
            refused(sound[..size].to_vec());
        }
        for (from, to) in [(0, HEADER), (0, sound.len()), (HEADER, sound.len())] {
            let mut zeros = sound.clone();
            zeros[from..to].fill(0);
            refused(zeros);
        }
        refused(vec![0; HEADER]);
        // Where a table without slots stands is no matter, and there is no data in which
        // any bit may be right.
        let is_nowhere = |byte: usize| {
            byte < HEADER && byte % 8 < 4 && pair(&sound, byte / 8 * 8).is_some_and(|at| at.1 == 0)
        };
        for byte in (0..sound.len()).filter(|byte| !is_nowhere(*byte)) {
            for bit in 0..8 {
                let mut turned = sound.clone();
                turned[byte] ^= 1 << bit;
                refused(turned);
            }
        }
        // An empty list of rules.
        let none = Database::from_image([[0, 8, 0, 0, 0, 0, 0, 0]; 256].concat());
        assert_eq!(none.expect("sound").find(b"key"), None);
    }

    #[test]
    fn hashes_are_those_of_the_format() {
        assert_eq!(hash(b""), 5381);
        assert_eq!(hash(b"Hello, world!"), 0x5643_69e8);
    }

    #[test]
    fn a_full_table_is_searched_once_round() {
        // Three records of one key, no empty slot to stop at.
        let key: &[u8] = b"key";
        let image = crowded(&[key, key, key], 3);
        let database = Database::from_image(image).expect("sound");
        assert_eq!(database.find(key), Some((key, &b""[..])));
        assert_eq!(database.records().count(), 3);
        // The same table, but another key of the same hash table.
        let other = (0..100_000_u32)
            .map(|number| number.to_string().into_bytes())
            .find(|other| hash(other) & 0xff == hash(key) & 0xff)
            .expect("one of 256");
        assert_eq!(database.find(&other), None);
    }

    #[test]
    fn a_record_that_no_search_finds_is_damage() {
        let key: &[u8] = b"key";
        let sound = crowded(&[key], 4);
        assert!(Database::from_image(sound.clone()).is_ok());
        let table = sound.len() - 4 * 8;
        let slot = (0..4)
            .find(|slot| sound[table + slot * 8 + 4] != 0 || sound[table + slot * 8 + 5] != 0)
            .expect("the record");
        // One slot further, behind an empty one.
        let mut moved = sound.clone();
        let entry: Vec<u8> = moved[table + slot * 8..table + slot * 8 + 8].to_vec();
        moved[table + slot * 8..table + slot * 8 + 8].fill(0);
        let next = (slot + 1) % 4;
        moved[table + next * 8..table + next * 8 + 8].copy_from_slice(&entry);
        assert!(Database::from_image(moved).is_err());
        // In no slot at all.
        let mut lost = sound.clone();
        lost[table..].fill(0);
        assert!(Database::from_image(lost).is_err());
        // In two.
        let mut twice = sound;
        twice[table + next * 8..table + next * 8 + 8].copy_from_slice(&entry);
        assert!(Database::from_image(twice).is_err());
        // In two, in the place of another one with the same hash.
        let mut hidden = crowded(&[key, key], 2);
        let table = hidden.len() - 2 * 8;
        let entry = hidden[table..table + 8].to_vec();
        hidden[table + 8..].copy_from_slice(&entry);
        assert!(Database::from_image(hidden).is_err());
    }
}
