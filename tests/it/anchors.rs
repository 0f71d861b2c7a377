//! Trust anchors that are kept as bytes and parsed when a chain asks for them: the
//! verdicts are those of libcrypto's own stores.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use openssl::error::ErrorStack;
use openssl::stack::Stack;
use openssl::x509::store::{X509Lookup, X509Store, X509StoreBuilder};
use openssl::x509::{X509, X509PurposeId, X509Ref, X509StoreContext};
use ucspi_tls::internals::anchor_pool;

use crate::harness::{Authority, Identity, Leaf, Place, process, skip};

/// What verification comes to: the error's number and depth, and the chain.
type Verdict = (bool, i32, u32, Vec<Vec<u8>>);

fn verdict(store: &X509Store, leaf: &X509Ref, sent: &[X509]) -> Verdict {
    let mut untrusted = Stack::new().unwrap();
    for one in sent {
        untrusted.push(one.clone()).unwrap();
    }
    let mut context = X509StoreContext::new().unwrap();
    let verdict = context.init(store, leaf, &untrusted, |context| {
        let good = context.verify_cert()?;
        let chain = context.chain().into_iter().flatten();
        let chain = chain.map(X509Ref::to_der).collect::<Result<_, _>>()?;
        Ok((good, context.error().as_raw(), context.error_depth(), chain))
    });
    drop(ErrorStack::get());
    verdict.unwrap()
}

fn built(mut store: X509StoreBuilder) -> X509Store {
    store.set_purpose(X509PurposeId::SSL_SERVER).unwrap();
    store.build()
}

/// A store of ours.
fn pooled(file: &Path, folder: &Path) -> X509Store {
    let found = anchor_pool::of_places(file, &[folder.to_owned()]);
    built(found.pool.store().unwrap())
}

/// A store of ours for a process that may open files.
fn opened(file: &Path, folder: &Path) -> X509Store {
    built(anchor_pool::store_of_places(file, &[folder.to_owned()]).unwrap())
}

/// What libcrypto itself makes of the same places.
fn plain(file: &Path, folder: &Path) -> X509Store {
    let mut store = X509StoreBuilder::new().unwrap();
    let lookup = store.add_lookup(X509Lookup::file()).unwrap();
    let _ = lookup.load_cert_file(file, openssl::ssl::SslFiletype::PEM);
    let lookup = store.add_lookup(X509Lookup::hash_dir()).unwrap();
    let folder = folder.to_str().unwrap();
    lookup
        .add_dir(folder, openssl::ssl::SslFiletype::PEM)
        .unwrap();
    drop(ErrorStack::get());
    built(store)
}

const NO_FILE: &str = "/nonexistent";

#[test]
fn each_of_the_system_s_anchors_counts_as_in_a_store_of_all() {
    let (bundle, folder) = ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs");
    let Ok(text) = fs::read(bundle) else {
        skip!("{bundle} is not there");
    };
    let all = X509::stack_from_pem(&text).unwrap();
    assert!(all.len() > 50, "{} in {bundle}", all.len());
    let mut whole = X509StoreBuilder::new().unwrap();
    for one in &all {
        whole.add_cert(one.clone()).unwrap();
    }
    let whole = built(whole);
    let (bundle, folder, none) = (Path::new(bundle), Path::new(folder), Path::new(NO_FILE));
    let places = [(bundle, none), (none, folder), (bundle, folder)];
    let stores = places.map(|(file, folder)| (pooled(file, folder), plain(file, folder)));
    let opened = places.map(|(file, folder)| opened(file, folder));
    let stranger = Authority::root("Stranger");
    for one in &all {
        let said = verdict(&whole, one, &[]);
        // Who calls himself so, and is not.
        let forged = stranger.called(one.subject_name());
        let forged = Leaf::localhost().issue_by(&forged).certificate;
        let of_forged = verdict(&whole, &forged, &[]);
        assert!(!of_forged.0, "{:?}", one.subject_name());
        let (pooled, _) = &stores[0];
        let title = one.subject_name();
        assert_eq!(verdict(pooled, one, &[]), said, "{title:?}");
        assert_eq!(verdict(pooled, &forged, &[]), of_forged, "{title:?}");
        // In the directory two of one name may stand in another order.
        for ((pooled, plain), opened) in stores.iter().zip(&opened) {
            for one in [one, &forged] {
                assert_eq!(
                    verdict(opened, one, &[]),
                    verdict(plain, one, &[]),
                    "{title:?}"
                );
                assert_eq!(
                    verdict(pooled, one, &[]),
                    verdict(plain, one, &[]),
                    "{title:?}"
                );
            }
        }
    }
    let known = Authority::shared_root();
    let unknown = Leaf::localhost().issue_by(known).certificate;
    let said = verdict(&whole, &unknown, &[]);
    assert!(!said.0);
    for (pooled, _) in &stores {
        assert_eq!(verdict(pooled, &unknown, &[]), said);
    }
}

/// Chains that are made up, and the anchors that they meet.
struct Case {
    title: &'static str,
    anchors: Vec<Vec<u8>>,
    leaf: Identity,
    /// Whether it is to verify.
    good: bool,
}

/// An anchor as `openssl x509` writes it, with what it is trusted for.
fn with_trust(place: &Place, root: &Authority, word: &str) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(["x509", "-trustout", word, "serverAuth", "-in"]);
    command.arg(place.write("trust.pem", root.pem()));
    let made = process::run(&mut command, b"");
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert!(made.stdout.starts_with(b"-----BEGIN TRUSTED CERTIFICATE"));
    made.stdout
}

/// A certificate with one byte of it changed: what a subject's key begins with.
pub fn damaged(root: &Authority) -> Vec<u8> {
    let der = root.certificate.to_der().unwrap();
    let key = root.key.public_key_to_der().unwrap();
    let at = der.windows(key.len()).position(|part| part == key).unwrap();
    let mut bad = der.clone();
    bad[at] = 0x04;
    let text = openssl::base64::encode_block(&bad);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n").into_bytes()
}

fn case(title: &'static str, anchors: &[Vec<u8>], leaf: Identity, good: bool) -> Case {
    Case {
        title,
        anchors: anchors.to_vec(),
        leaf,
        good,
    }
}

fn below(authority: &Authority) -> Identity {
    Leaf::localhost().issue_by(authority)
}

/// Who signed whom.
fn chains() -> Vec<Case> {
    let (root, other) = (Authority::root("Root"), Authority::root("Other"));
    let between = root.below("Between");
    let cross = other.cross_signed_by(&root);
    let twin = root.forged_root();
    let known = [&root, &other, &between, &cross, &twin].map(Authority::pem);
    let [a, b, mid, across, t] = known;
    let pair = |one: &Vec<u8>, two: &Vec<u8>| [one.clone(), two.clone()];
    let three = [across.clone(), b.clone(), a.clone()];
    let one = std::slice::from_ref;
    let expired = Leaf::localhost().expired().issue_by(&root);
    let alone = Leaf::localhost().self_signed();
    vec![
        case("its root", &pair(&b, &a), below(&root), true),
        case("nobody", one(&b), below(&root), false),
        case("one that is sent", one(&a), below(&between), true),
        case("twins, its own first", &pair(&a, &t), below(&root), true),
        case("twins, its own last", &pair(&t, &a), below(&root), false),
        case("the twin alone", one(&t), below(&root), false),
        case("between and root", &pair(&mid, &a), below(&between), true),
        case("between alone", one(&mid), below(&between), false),
        case("signed across, sent", one(&a), below(&cross), true),
        case("signed across, both there", &three, below(&other), true),
        case(
            "signed across, one there",
            one(&across),
            below(&other),
            false,
        ),
        case("twice", &pair(&a, &a), below(&root), true),
        case("expired", one(&a), expired, false),
        case("self-signed", one(&a), alone, false),
    ]
}

/// How a root is written down.
fn forms(place: &Place) -> Vec<Case> {
    let (root, other) = (Authority::root("Root"), Authority::root("Other"));
    let text = String::from_utf8(root.pem()).unwrap();
    let old = text.replace("CERTIFICATE", "X509 CERTIFICATE");
    let noted = format!("{}# Root\n{text}", text.replace("CERTIFICATE", "NOTE"));
    let noted = noted.replace('\n', "\r\n");
    let cut = text.lines().take(4).collect::<Vec<_>>().join("\n");
    // The same name by RFC 5280, 7.1.
    let respelled = Authority::root(" rOOt ");
    let respelled = root.called(respelled.certificate.subject_name());
    let long = Authority::root(&"long name ".repeat(6));
    let trusted = with_trust(place, &root, "-addtrust");
    let rejected = with_trust(place, &root, "-addreject");
    let bad = damaged(&root);
    let one = |bytes: &[u8]| [bytes.to_vec()];
    let two = |first: &[u8], second: Vec<u8>| [first.to_vec(), second];
    let leaf = below(&root);
    vec![
        case("an old label", &one(old.as_bytes()), leaf.clone(), true),
        case("notes, Windows", &one(noted.as_bytes()), leaf.clone(), true),
        case("respelled", &one(text.as_bytes()), below(&respelled), true),
        case("a long name", &one(&long.pem()), below(&long), true),
        case("trusted", &one(&trusted), leaf.clone(), true),
        case("rejected", &one(&rejected), leaf.clone(), false),
        case(
            "cut",
            &two(cut.as_bytes(), other.pem()),
            leaf.clone(),
            false,
        ),
        case("damaged", &two(&bad, other.pem()), leaf.clone(), false),
        case("damaged, and whole", &two(&bad, root.pem()), leaf, true),
    ]
}

#[test]
fn a_pool_gives_the_verdicts_of_libcrypto_s_own_store() {
    let place = Place::new("anchors-pool");
    let cases = chains().into_iter().chain(forms(&place));
    for (at, case) in cases.enumerate() {
        let folder = place.path(&format!("{at}"));
        fs::create_dir(&folder).unwrap();
        for (number, pem) in case.anchors.iter().enumerate() {
            // By the name of the root that the leaf asks for: a damaged file has none.
            let known = X509::from_pem(pem).ok();
            drop(ErrorStack::get());
            let asked = case.leaf.certificate.issuer_name_hash();
            let hash = known.map_or(asked, |known| known.subject_name_hash());
            let mut paths = (0..9).map(|number| folder.join(format!("{hash:08x}.{number}")));
            let free = paths.find(|path| !path.exists());
            fs::write(free.unwrap(), pem).unwrap();
            fs::write(folder.join(format!("readme.{number}")), "no PEM").unwrap();
        }
        let file = PathBuf::from(place.write(&format!("{at}.pem"), case.anchors.concat()));
        let none = Path::new(NO_FILE);
        let (leaf, sent) = (&case.leaf.certificate, &case.leaf.between);
        let is_as_libcrypto = |file| match case.title {
            // Libcrypto gives up a file for one block in it, and a hash for one file.
            "damaged, and whole" => false,
            "damaged" | "cut" => file == none,
            _ => true,
        };
        for (file, folder) in [(&*file, none), (none, &*folder), (&*file, &*folder)] {
            let (pooled, plain) = (pooled(file, folder), plain(file, folder));
            let said = verdict(&pooled, leaf, sent);
            assert_eq!(said.0, case.good, "{}: {said:?}", case.title);
            // A second chain meets what the first one had parsed.
            assert_eq!(verdict(&pooled, leaf, sent), said, "{}", case.title);
            // What is in a directory is libcrypto's business here.
            let opened = verdict(&opened(file, folder), leaf, sent);
            if file != none {
                assert_eq!(opened.0, case.good, "{}: {opened:?}", case.title);
            }
            if is_as_libcrypto(file) {
                assert_eq!(said, verdict(&plain, leaf, sent), "{}", case.title);
            }
            if is_as_libcrypto(file) || file == none {
                assert_eq!(opened, verdict(&plain, leaf, sent), "{}", case.title);
            }
        }
    }
}
