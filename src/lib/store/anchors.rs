//! Trust anchors and revocation lists out of PEM files and directories. A block
//! that is damaged is an error, whatever else the file holds: libcrypto passes
//! some by.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509Crl};

use super::certificate::issued;
use super::{FILE_LIMIT, FILES_LIMIT, Named, pem, read_file, unable};
use crate::report::Fail;
use crate::tls_ffi::{self, chain};

/// The label of a certificate with what it is trusted for.
pub(super) const TRUSTED: &str = "TRUSTED CERTIFICATE";
/// The labels that libcrypto takes for a certificate.
pub(super) const CERTIFICATE: &[&str] = &["CERTIFICATE", "X509 CERTIFICATE", TRUSTED];
/// The label of a revocation list.
const LIST: &[&str] = &["X509 CRL"];

/// The trust anchors of a file; none of no file.
///
/// # Errors
/// It cannot be read, is damaged, or holds none: option or variable, path, reason.
pub(super) fn of_file(file: Option<Named<'_>>) -> Result<Vec<X509>, Fail> {
    let Some(named) = file else {
        return Ok(Vec::new());
    };
    let path = named.1;
    let some = |found: Vec<X509>| match &*found {
        [] => Err(pem::PemContent::Certificate
            .missing_in(&read_file(path)?)
            .into()),
        _ => Ok(found),
    };
    read_certificates(path)
        .and_then(some)
        .map_err(|why| why.of(unable("load CA list", named)))
}

/// The trust anchors of every certificate file of a directory; none of no
/// directory. A file without any PEM block is passed by: there may be read-me's.
///
/// # Errors
/// A file cannot be read, or is damaged: option or variable, path, reason.
pub(super) fn of_folder(folder: Option<Named<'_>>) -> Result<Vec<X509>, Fail> {
    let Some((variable, folder)) = folder else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    let unable = |path: &Path| unable("load CA list", (variable, path));
    for path in files(folder).map_err(|why| why.of(unable(folder)))? {
        found.extend(find_certificates(&path).map_err(|why| why.of(unable(&path)))?);
    }
    Ok(found)
}

/// What a directory holds but for directories, devices and the like, in order;
/// in all no more than a file may hold.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Fail> {
    let mut paths = Vec::new();
    let mut length: u64 = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // A link that leads nowhere is kept, and told when it is read.
        let about = fs::metadata(&path);
        if about.as_ref().is_ok_and(|about| !about.is_file()) {
            continue;
        }
        length = length.saturating_add(about.map_or(0, |about| about.len()));
        if length > FILE_LIMIT {
            return Err("its files are larger than 16 MB in all".into());
        }
        if paths.len() == FILES_LIMIT {
            return Err(format!("it has more than {FILES_LIMIT} files").into());
        }
        paths.push(path);
    }
    paths.sort();
    Ok(paths)
}

/// Makes anchors of the authorities that are listed, whether or not a root is. An
/// intermediate from which listed ones lead to a root needs nothing: chains go on to
/// the root, past whatever lists revoke on the way.
///
/// # Errors
/// Libcrypto has no memory.
pub(super) fn trust_listed(listed: &mut [X509]) -> Result<(), ErrorStack> {
    let mut led: Vec<bool> = listed.iter().map(|one| chain::is_root(one)).collect();
    let may_issue = |at: &usize| led[*at] || chain::is_authority(&listed[*at]);
    let issuers: Vec<usize> = (0..listed.len()).filter(may_issue).collect();
    let lower: Vec<usize> = issuers.iter().copied().filter(|at| !led[*at]).collect();
    let above: Vec<Vec<usize>> = lower
        .iter()
        .map(|at| {
            let all = issuers.iter().copied();
            all.filter(|other| issued(&listed[*other], &listed[*at]))
                .collect()
        })
        .collect();
    loop {
        while let Some((at, _)) = lower
            .iter()
            .zip(&above)
            .find(|(at, above)| !led[**at] && above.iter().any(|above| led[*above]))
        {
            led[*at] = true;
        }
        let left = || lower.iter().zip(&above).filter(|(at, _)| !led[**at]);
        // Of authorities that signed each other, and that nobody else did, any will do.
        let highest = left().find(|(_, above)| above.is_empty());
        let Some((highest, _)) = highest.or_else(|| left().next()) else {
            return Ok(());
        };
        listed[*highest] = chain::trusted(&listed[*highest])?;
        led[*highest] = true;
    }
}

/// A store of anchors.
pub(super) fn anchor_store(anchors: &[X509]) -> Result<X509StoreBuilder, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    for anchor in anchors {
        store.add_cert(anchor.clone())?;
    }
    Ok(store)
}

/// Has chains checked against the revocation lists of a file too, and returns these.
pub(super) fn check_lists(
    store: &mut X509StoreBuilder,
    bytes: &[u8],
) -> Result<Vec<X509Crl>, Fail> {
    let lists = lists(bytes)?;
    for list in &lists {
        tls_ffi::chain::add_list(store, list)?;
    }
    store.set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL)?;
    Ok(lists)
}

/// Every certificate of a file; blocks of other kinds are passed by.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<X509>, Fail> {
    let bytes = read_file(path)?;
    if bytes.is_empty() {
        return Err("it is empty".into());
    }
    certificates(&bytes)
}

/// Every certificate of a file in a directory that may hold other files too: none
/// where the file has no PEM block.
pub(super) fn find_certificates(path: &Path) -> Result<Vec<X509>, Fail> {
    let bytes = read_file(path)?;
    if !lines(&bytes).any(|line| line.starts_with(b"-----") && line.ends_with(b"-----")) {
        return Ok(Vec::new());
    }
    certificates(&bytes)
}

fn certificates(bytes: &[u8]) -> Result<Vec<X509>, Fail> {
    let damaged = |why| Fail::from(why).of("its PEM certificate is damaged");
    let found = X509::stack_from_pem(bytes).map_err(damaged)?;
    whole(bytes, CERTIFICATE, found.len())?;
    Ok(found)
}

/// The revocation lists of a file: at least one.
fn lists(bytes: &[u8]) -> Result<Vec<X509Crl>, Fail> {
    const END: &str = "-----END X509 CRL-----";
    let text = String::from_utf8_lossy(bytes);
    let found: Result<Vec<X509Crl>, _> = text
        .split_inclusive(END)
        .filter(|part| part.ends_with(END))
        .map(|part| X509Crl::from_pem(part.as_bytes()))
        .collect();
    let damaged = |why| Fail::from(why).of("its PEM revocation list is damaged");
    let found = found.map_err(damaged)?;
    whole(bytes, LIST, found.len())?;
    if found.is_empty() {
        return Err(pem::PemContent::List.missing_in(bytes).into());
    }
    Ok(found)
}

/// Whether a file has a block with one of these lines.
pub(super) fn holds_lists(bytes: &[u8]) -> bool {
    count(bytes, "BEGIN", LIST) + count(bytes, "END", LIST) > 0
}

/// Whether each block that begins also ends, and was read.
pub(super) fn whole(bytes: &[u8], labels: &[&str], found: usize) -> Result<(), Fail> {
    let (begun, ended) = (count(bytes, "BEGIN", labels), count(bytes, "END", labels));
    if begun == found && ended == found {
        return Ok(());
    }
    let label = labels.first().unwrap_or(&"");
    Err(format!(
        "damaged: {begun} lines \"-----BEGIN {label}-----\", {ended} with END, {found} could be read"
    )
    .into())
}

fn count(bytes: &[u8], word: &str, labels: &[&str]) -> usize {
    lines(bytes)
        .filter(|line| {
            let label = line
                .strip_prefix(b"-----")
                .and_then(|line| line.strip_prefix(word.as_bytes()))
                .and_then(|line| line.strip_prefix(b" "))
                .and_then(|line| line.strip_suffix(b"-----"));
            label.is_some_and(|label| known(label, labels).is_some())
        })
        .count()
}

/// Which of these labels one is.
pub(super) fn known<'a>(label: &[u8], labels: &[&'a str]) -> Option<&'a str> {
    let mut labels = labels.iter().copied();
    labels.find(|known| known.as_bytes() == label)
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii_end)
}
