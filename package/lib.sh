# shellcheck shell=sh
# Sourced by every script of this directory, after it has set `here` to the
# checkout. Gives them their messages and exit codes (100 wrong usage, 111
# anything else), cargo, and packages from Debian where that is allowed.

prog=package/${0##*/}

shout() { printf '%s: %s\n' "$prog" "$*" >&2; }
barf() { shout "fatal: $*"; exit 111; }
safe() { "$@" || barf "cannot $*"; }
usage() { shout "usage: $prog $*"; exit 100; }

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

# Prints the packages that building with these features needs and that are not
# there.
missing_build_needs() {
  if has cc; then
    # Rust links with cc against the C library's development files.
    echo 'int main(void){return 0;}' | cc -x c -o /dev/null - 2>/dev/null || echo libc6-dev
  else
    echo gcc libc6-dev
  fi
  case ,$1, in
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
  case ${CARGO_BUILD_TARGET-}${LIBUNBOUND_LIB_DIR-} in
    '')
      has pkg-config || echo pkg-config
      # Not --exists, which wants the headers of other libraries, too.
      pkg-config --libs libunbound >/dev/null 2>&1 || echo libunbound-dev
      ;;
  esac
}

# build_needs [FEATURES]
build_needs() {
  has cargo || barf 'cargo not found: please install Rust 1.88 or later, for example from https://rustup.rs/'
  needs=$(missing_build_needs "${1-}" | tr '\n' ' ')
  [ -n "$needs" ] || return 0
  may_install || barf "please install: $needs"
  # shellcheck disable=SC2086 # a list of words
  install_packages $needs
  needs=$(missing_build_needs "${1-}" | tr '\n' ' ')
  [ -z "$needs" ] || barf "still missing after apt-get: $needs"
}
