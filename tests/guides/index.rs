//! doc/README.md, the index of doc/: no page is missing and none is invented.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_page_of_doc_is_in_its_index_and_no_other() {
    let doc = Path::new(env!("CARGO_MANIFEST_DIR")).join("doc");
    let index = fs::read_to_string(doc.join("README.md")).unwrap();
    let there: BTreeSet<String> = fs::read_dir(&doc)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md" && !picture(name))
        .collect();
    // [text](page): one line each.
    let mut named = BTreeSet::new();
    for part in index.split("](").skip(1) {
        let (name, _) = part.split_once(')').unwrap();
        if !name.starts_with("../") {
            assert!(named.insert(name.to_owned()), "{name} is there twice");
        }
    }
    assert_eq!(there, named);
}

/// A link to a page or a file of the checkout leads somewhere.
#[test]
fn no_link_of_a_page_is_broken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for entry in fs::read_dir(root.join("doc")).unwrap() {
        pages.push(entry.unwrap().path());
    }
    for page in pages {
        if page.extension().is_none_or(|ending| ending != "md") {
            continue;
        }
        let text = fs::read_to_string(&page).unwrap();
        for part in text.split("](").skip(1) {
            let (link, _) = part.split_once(')').unwrap();
            let file = link.split('#').next().unwrap();
            if link.contains("://") || file.is_empty() {
                continue;
            }
            let target = page.parent().unwrap().join(file);
            assert!(target.exists(), "{}: {link}", page.display());
        }
    }
}

#[test]
fn every_guide_is_followed() {
    let doc = Path::new(env!("CARGO_MANIFEST_DIR")).join("doc");
    for entry in fs::read_dir(doc).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let followed = super::PAGES.contains(&format!("doc/{name}").as_str());
        assert!(
            followed || name == "README.md" || manual(&name) || picture(&name),
            "no test follows doc/{name}"
        );
    }
}

/// package/test-packages types what only a fresh Debian is given; it reads these.
#[test]
fn what_a_fresh_debian_is_given_is_on_pages_of_the_walk() {
    for page in super::PAGES {
        let fresh = super::page::blocks(page);
        let fresh = fresh
            .iter()
            .any(|block| matches!(block.used, super::page::Use::Fresh));
        let walked = ["README.md", "doc/first-service.md"].contains(page);
        assert_eq!(fresh, walked, "{page}");
    }
    let walk = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packages/walk.sh");
    let walk = fs::read_to_string(walk).unwrap();
    for typed in ["typed README.md", "typed doc/first-service.md"] {
        assert!(walk.contains(typed), "the walk has no longer: {typed}");
    }
}

/// Whether it is a picture of a page's.
fn picture(name: &str) -> bool {
    let doc = Path::new(env!("CARGO_MANIFEST_DIR")).join("doc");
    let picture = doc.join(name);
    let page = picture.with_extension("md");
    picture.extension().is_some_and(|ending| ending == "svg")
        && fs::read_to_string(page).is_ok_and(|text| text.contains(&format!("]({name})")))
}

/// Whether a page's name ends in a section of the manual.
fn manual(name: &str) -> bool {
    name.ends_with(|last: char| last.is_ascii_digit())
}
