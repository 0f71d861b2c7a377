//! Finds the system's libraries that single programs use, and says which are there:
//! the conditions `validator` (qmail-sslremote checks DNSSEC itself, by libunbound)
//! and `gmp` (sslsurvey looks for common factors, by libgmp).
#![forbid(unsafe_code)]

use std::env;
use std::process::Command;

/// A library of the system.
struct Library {
    /// The cargo feature that wants it, as cargo names it here.
    feature: &'static str,
    /// What pkg-config calls it.
    package: &'static str,
    /// What the linker calls it.
    link: &'static str,
    /// The condition that says that it is there.
    condition: &'static str,
    /// The variable that names its directory.
    folder: &'static str,
    /// How to come by it, or do without.
    cure: &'static str,
}

const LIBRARIES: [Library; 2] = [
    Library {
        feature: "CARGO_FEATURE_UNBOUND",
        package: "libunbound",
        link: "unbound",
        condition: "validator",
        folder: "LIBUNBOUND_LIB_DIR",
        cure: "libunbound was not found: please install its development files (libunbound-dev or \
               unbound-devel), or name the library's directory in LIBUNBOUND_LIB_DIR, or build \
               without it: --no-default-features --features remote",
    },
    Library {
        feature: "CARGO_FEATURE_GMP",
        package: "gmp",
        link: "gmp",
        condition: "gmp",
        folder: "LIBGMP_LIB_DIR",
        cure: "libgmp was not found: please install its development files (libgmp-dev or \
               gmp-devel), or name the library's directory in LIBGMP_LIB_DIR, or build without \
               it: --no-default-features --features remote,unbound",
    },
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["PKG_CONFIG", "PKG_CONFIG_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    keep_text_apart();
    // A program without shared libraries has no use for the system's.
    let is_static = is_static();
    for library in &LIBRARIES {
        println!("cargo::rustc-check-cfg=cfg({})", library.condition);
        println!("cargo::rerun-if-env-changed={}", library.folder);
        if env::var_os(library.feature).is_some() && !is_static {
            library.link();
        }
    }
}

/// Leaves the text of sslserver room for large pages, see src/lib/sys/large_pages.rs. GNU
/// ld, mold and lld know the option; it was the default on x86-64 once.
fn keep_text_apart() {
    let value = |name| {
        let value = env::var_os(name).unwrap_or_default();
        value.to_string_lossy().into_owned()
    };
    let has_large = ["x86_64", "aarch64"].contains(&&*value("CARGO_CFG_TARGET_ARCH"));
    let is_linux = value("CARGO_CFG_TARGET_OS") == "linux";
    if is_linux && has_large {
        println!("cargo::rustc-link-arg-bin=sslserver=-Wl,-z,max-page-size=2097152");
    }
}

/// Whether the programs are to need no shared library: musl's default, and asked
/// for elsewhere. Newer versions of cargo do not name this among the target's
/// features.
fn is_static() -> bool {
    let value = |name| {
        env::var_os(name)
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let flags = value("CARGO_ENCODED_RUSTFLAGS");
    let features = value("CARGO_CFG_TARGET_FEATURE");
    let is_default = value("CARGO_CFG_TARGET_ENV") == "musl";
    features.split(',').any(|feature| feature == "crt-static")
        || flags.contains("+crt-static")
        || is_default && !flags.contains("-crt-static")
}

impl Library {
    fn link(&self) {
        if let Some(folder) = env::var_os(self.folder) {
            println!(
                "cargo::rustc-link-search=native={}",
                folder.to_string_lossy()
            );
        } else if !self.find() {
            println!("cargo::error={}", self.cure);
        }
        println!("cargo::rustc-link-lib={}", self.link);
        println!("cargo::rustc-cfg={}", self.condition);
    }

    /// Asks pkg-config where it is. Without pkg-config the linker has to know.
    ///
    /// The crate pkg-config asks for compiler flags, too, and fails where the headers
    /// are missing of libraries that only libunbound itself is built with.
    fn find(&self) -> bool {
        let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
        let asked = Command::new(program)
            .args(["--libs-only-L", self.package])
            .output();
        let Ok(output) = asked else {
            return true;
        };
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        for folder in words
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("-L"))
        {
            println!("cargo::rustc-link-search=native={folder}");
        }
        output.status.success()
    }
}
