# shellcheck shell=sh
# Sourced by every script of this directory, after it has set `here` to the
# checkout. Gives them their messages and exit codes (100 wrong usage, 111
# anything else), cargo, and packages from Debian where that is allowed.

prog=package/${0##*/}

shout() { printf '%s: %s\n' "$prog" "$*" >&2; }
barf() { shout "fatal: $*"; exit 111; }
safe() { "$@" || barf "cannot $*"; }
usage() { shout "usage: $prog $*"; exit 100; }

# What a script is for stands at its head.
case ${1-} in
  --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0 ;;
esac

# Where the caller is: what he names without a slash counts from there.
called_from=$PWD
umask 022
# Daemons live in sbin, which is not on everybody's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
[ -z "${HOME-}" ] || PATH=$PATH:$HOME/.cargo/bin
export PATH

# Scripts work from the checkout, whatever directory they are called from, so
# a relative CARGO_TARGET_DIR counts from there too.
: "${here:?}"
safe cd "$here"
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}
case $CARGO_TARGET_DIR in
  /*) ;;
  *) CARGO_TARGET_DIR=$here/$CARGO_TARGET_DIR ;;
esac
export CARGO_TARGET_DIR

has() { command -v "$1" >/dev/null 2>&1; }

# The oldest Rust that will do, as Cargo.toml says.
least_rust=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)

# rust_version COMMAND: 1.85.0
rust_version() { "$1" --version 2>/dev/null | sed -n '1s/^[a-z]* \([0-9.]*\).*/\1/p'; }

# is_older VERSION: than the least one.
is_older() {
  first=$(printf '%s\n%s\n' "$1" "$least_rust" | sort -t . -k 1,1n -k 2,2n | head -n 1)
  [ "$first" = "$1" ] && [ "${1%.*}" != "$least_rust" ] && [ "$1" != "$least_rust" ]
}

# Ends where Rust is missing or too old: what cargo itself says of an old one
# helps nobody.
rust_needed() {
  own=${HOME-}/.cargo/bin
  # A system's old cargo comes first in PATH; one from rustup may be there too.
  if has cargo && [ -x "$own/cargo" ] && is_older "$(rust_version cargo)"; then
    PATH=$own:$PATH
  fi
  has cargo || barf "cargo not found: Rust $least_rust or later is needed; get it from https://rustup.rs/"
  for rust_tool in cargo rustc; do
    version=$(rust_version "$rust_tool")
    [ -n "$version" ] || barf "$rust_tool --version says nothing: Rust $least_rust or later is needed; get it from https://rustup.rs/"
    is_older "$version" &&
      barf "$rust_tool is $version, and $least_rust or later is needed; get it from https://rustup.rs/ (Debian's own is often older)"
  done
  return 0
}

# Whether packages can be installed without asking anybody anything.
may_install() {
  has apt-get || return 1
  [ "$(id -u)" = 0 ] && return 0
  has sudo && sudo -n true 2>/dev/null
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# apt_get WORD... : quiet unless it fails. While it runs, a policy-rc.d keeps
# packages from starting their daemons: the tests want the programs only.
apt_get() {
  apt_log=$(mktemp) || barf 'cannot make a temporary file'
  apt_policy=
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    apt_policy=/usr/sbin/policy-rc.d
    trap 'as_root rm -f "$apt_policy"; rm -f "$apt_log"; exit 111' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$apt_policy" >/dev/null
    as_root chmod 755 "$apt_policy"
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get "$@" </dev/null >"$apt_log" 2>&1
  apt_code=$?
  if [ -n "$apt_policy" ]; then
    as_root rm -f "$apt_policy"
    trap - HUP INT TERM
  fi
  [ "$apt_code" = 0 ] || cat "$apt_log" >&2
  rm -f "$apt_log"
  return "$apt_code"
}

# install_packages NAME...
install_packages() {
  shout "installing $*"
  # A machine just set up has no package lists, an old one has stale lists:
  # either way the first try fails and fresh lists help.
  apt_get install -y --no-install-recommends "$@" 2>/dev/null && return 0
  apt_get update || barf 'cannot apt-get update'
  apt_get install -y --no-install-recommends "$@" || barf "cannot install $*"
}

# Of nobody's environment.
features=
feature_words=
# set_features [WORD...]: the words of package/compile that choose cargo's features:
# `feature_words` for cargo, and `features`, all of them with a comma before and
# behind each.
set_features() {
  feature_words=
  features=$(sed -n 's/^default = \[\(.*\)\]$/\1/p' Cargo.toml | tr -d '" ')
  if [ "${1-}" = --no-default-features ]; then
    feature_words=$1
    features=
    shift
  fi
  case $#:${1-} in
    0:) ;;
    2:--features)
      more=$(printf %s "$2" | tr -s ' ' ,)
      feature_words="${feature_words:+$feature_words }--features $more"
      features=$features,$more ;;
    *) usage '[--no-default-features] [--features list]' ;;
  esac
  features=,$features,
  # As Cargo.toml has it.
  case $features in *,unbound,* | *,gmp,*) features=${features}remote, ;; esac
}

# set_features_of FOLDER: those with which package/compile made the programs there,
# or the usual ones.
set_features_of() {
  # shellcheck disable=SC2046 # a list of words
  set_features $(cat "$1/.compiled" 2>/dev/null)
}

# programs: those that these features make, one a line.
programs() {
  awk -v RS= -v features="$features" '
    !/^\[\[bin\]\]/ || !/path = "src\/bin\// { next }
    match($0, /required-features = \["[a-z]*/) {
      feature = substr($0, RSTART, RLENGTH)
      sub(/.*"/, "", feature)
      if (!index(features, "," feature ",")) next
    }
    match($0, /name = "[^"]*/) { print substr($0, RSTART + 8, RLENGTH - 8) }' Cargo.toml
}

# Prints the packages that building with these features needs and that are not
# there.
missing_build_needs() {
  if has cc; then
    # Rust links with cc against the C library's development files.
    echo 'int main(void){return 0;}' | cc -x c -o /dev/null - 2>/dev/null || echo libc6-dev
  else
    echo gcc libc6-dev
  fi
  case $features in
    *,vendored,*)
      has make || echo make
      # perl-base is not enough for OpenSSL's Configure.
      perl -MIPC::Cmd -MFile::Compare -e 1 2>/dev/null || echo perl
      ;;
    *)
      if [ -z "${OPENSSL_DIR-}${OPENSSL_LIB_DIR-}" ]; then
        has pkg-config || echo pkg-config
        pkg-config --exists 'openssl >= 3.0' 2>/dev/null || echo libssl-dev
      fi
      ;;
  esac
  # Programs that need no shared library check no DNSSEC themselves.
  case $features:${CARGO_BUILD_TARGET-}${LIBUNBOUND_LIB_DIR-} in
    *,unbound,*:)
      has pkg-config || echo pkg-config
      # Not --exists, which wants the headers of other libraries, too.
      pkg-config --libs libunbound >/dev/null 2>&1 || echo libunbound-dev
      ;;
  esac
  case $features:${CARGO_BUILD_TARGET-}${LIBGMP_LIB_DIR-} in
    *,gmp,*:)
      has pkg-config || echo pkg-config
      pkg-config --libs gmp >/dev/null 2>&1 || echo libgmp-dev
      ;;
  esac
}

# build_needs: of the features that were set, or of the usual ones.
build_needs() {
  rust_needed
  [ -n "$features" ] || set_features
  needs=$(missing_build_needs | sort -u | tr '\n' ' ')
  [ -n "$needs" ] || return 0
  may_install || barf "please install: $needs"
  # shellcheck disable=SC2086 # a list of words
  install_packages $needs
  needs=$(missing_build_needs | sort -u | tr '\n' ' ')
  [ -z "$needs" ] || barf "still missing after apt-get: $needs"
}

# absolute PATH: where it is, seen from the caller.
absolute() {
  case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$called_from/$1" ;;
  esac
}

# set_places [PREFIX]: `prefix` from a script's only argument, and `root`, where
# DESTDIR is, without a slash at the end: the whole file system is the empty word.
set_places() {
  case $#:${1-} in
    0:) prefix=/usr/local ;;
    1:/*) prefix=${1%/} ;;
    1:*) shout "usage: the prefix must begin with a slash; $prog [/prefix]"; exit 100 ;;
    *) usage '[/prefix]' ;;
  esac
  root=${DESTDIR:+$(absolute "$DESTDIR")}
  while [ "$root" != "${root%/}" ]; do root=${root%/}; done
}

# make_folder PATH: or one line that says why not.
make_folder() {
  mkdir -p "$1" 2>/dev/null && [ -w "$1" ] && return 0
  barf "cannot write to $1: work in a copy of this directory that is yours, or make it writable"
}

# Seconds since 1970 of the sources: of their commit, or of the release.
source_date() {
  git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml
}

# Crates that are here already need no network.
fetch_crates() {
  target=${CARGO_BUILD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
  fetch_log=$(mktemp) || barf 'cannot make a temporary file'
  if cargo fetch --quiet --locked --target "$target" 2>"$fetch_log"; then
    rm -f "$fetch_log"
    return 0
  fi
  # The last line of its reasons is the one that names the cause.
  why=$(grep -v '^ *$' "$fetch_log" | tail -n 1 | sed 's/^ *//')
  rm -f "$fetch_log"
  barf "cannot fetch the crates that Cargo.lock names (is there a network?): $why"
}

# version: of Cargo.toml.
version() { sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml; }

# is_installed SUM PATH: whether a file is what was installed.
is_installed() {
  [ ! -L "$2" ] && [ "$(sha256sum <"$2" | cut -d ' ' -f 1)" = "$1" ]
}

# remove_unchanged SUM PATH: a file that is what was installed.
remove_unchanged() {
  [ -e "$2" ] || [ -L "$2" ] || return 0
  if ! is_installed "$1" "$2"; then
    shout "warning: $2 is not what was installed, and stays"
    return 0
  fi
  why=$(LC_ALL=C rm -f "$2" 2>&1) || barf "cannot remove $2: ${why##*: }"
}
