# shellcheck shell=sh
# A newcomer's walk: a fresh Debian with nothing but Rust and a checkout, where
# README and doc/first-service.md are typed as they stand, up to POP3 over TLS and
# SMTP with STARTTLS under a supervisor, both seen from outside; and then INSTALL.
# Left out is the certificate of a public authority (section 6), which needs a name
# that the world knows: the one for a try stands in for it.
#
# With --built the checkout is this one, with what has been built in it: the same
# commands are typed, and the compiler finds nothing to do.
. tests/packages/debian.sh
rust_needed
fetch_crates
fresh_debian walk
# Its administrator says yes; no init starts daemons.
printf 'APT::Get::Assume-Yes "true";\nAPT::Install-Recommends "false";\n' >"$machine/etc/apt/apt.conf.d/99test"
printf '#!/bin/sh\nexit 101\n' >"$machine/usr/sbin/policy-rc.d"
safe chmod 755 "$machine/usr/sbin/policy-rc.d"
printf '127.0.0.1 localhost mail.example.com\n' >"$machine/etc/hosts"
rust=$(rustc --print sysroot) || fail 'rustc --print sysroot'
mkdir -p "$machine$rust"
safe mount --bind "$rust" "$machine$rust"
safe mount -o remount,ro,bind "$machine$rust"
# The crates that this machine has already.
crates=${CARGO_HOME:-$HOME/.cargo}/registry
lay_over "$crates" "$machine$crates" || fail 'mount the crates'

if [ -n "$built" ]; then
  checkout=$here
  lay_over "$here" "$machine$here" || fail 'mount the checkout'
  case $CARGO_TARGET_DIR/ in
    "$here"/*) ;;
    *) lay_over "$CARGO_TARGET_DIR" "$machine$CARGO_TARGET_DIR" || fail 'mount the build' ;;
  esac
else
  # On a disk: a build wants much room.
  checkout=/root/ucspi-tls
  mkdir -p "$work/checkout" "$machine$checkout"
  cp -r package src doc examples benches tests build.rs Cargo.toml Cargo.lock README.md INSTALL CHANGES LICENSE* \
    "$work/checkout/" || fail 'copy the sources'
  safe mount --bind "$work/checkout" "$machine$checkout"
fi

# there COMMAND...: with nothing of this machine's environment, but for where crates
# and build are, which make the same build with the same words.
there() {
  [ -z "$built" ] ||
    set -- CARGO_TARGET_DIR="$CARGO_TARGET_DIR" ${RUSTFLAGS:+RUSTFLAGS="$RUSTFLAGS"} "$@"
  env -i HOME="$HOME" PATH="$rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    DEBIAN_FRONTEND=noninteractive ${CARGO_HOME:+CARGO_HOME="$CARGO_HOME"} "$@"
}

# typed PAGE [FROM TO]: the commands of a page, between two headings; those too that
# only a fresh Debian is given. What is marked retry is typed again until it works.
typed() {
  awk -v from="${2-}" -v to="${3-}" '
    from == "" || $0 == from { on = 1 }
    to != "" && $0 == to { exit }
    /^```/ && code { if (retry) print "}\nuntil_true retried"; code = 0; next }
    on && /^```sh/ && !/ file=| not-run:| service=/ {
      code = 1
      retry = / retry/
      if (retry) print "retried() {"
      next
    }
    code' "$1"
}
# typed_of_install: INSTALL's, but for those that have a reason not to be.
typed_of_install() {
  cut -f 1 tests/packages/INSTALL.not-typed >"$work/not-typed"
  sed -n 's/^       \([^ ]\)/\1/p' INSTALL | grep -vxFf "$work/not-typed"
}

# session NAME: types what it reads, in one shell that the first failure ends, on a
# network that reaches nobody. Nothing of it outlives the shell.
session() {
  mkdir -p "$machine$HOME"
  {
    cat <<'BEGIN'
reached() { echo "$1 reached at $(date +%s)"; }
until_true() {
  tries=0
  until "$@"; do tries=$((tries + 1)); [ "$tries" -lt 60 ] || exit 1; sleep 1; done
}
BEGIN
    cat
    echo 'reached end'
  } >"$machine/root/typed"
  # shellcheck disable=SC2016 # the words of another shell
  there unshare -n -p -f --kill-child sh -c \
    'ip link set lo up && mount -t proc proc "$0/proc" && exec chroot "$0" sh -ex /root/typed' "$machine" \
    >"$work/$1" 2>&1 </dev/null || { cat "$work/$1" >&2; fail "typing $1 in a fresh Debian"; }
}
# seconds NAME: when a session came there.
seconds() { sed -n "s/^$1 reached at //p" "$work/guide"; }

service='## A service in six lines'
starttls='## 7. STARTTLS'
begun=$(date +%s)
{
  cat <<'BEGIN'
# What Debian's init does for daemontools-run.
{ until [ -d /etc/service ] && [ -x /usr/bin/svscan ]; do sleep 1; done; exec svscan /etc/service; } \
  >/root/svscan.log 2>&1 &
BEGIN
  printf "cd '%s'\n" "$checkout"
  typed README.md '' "$service"
  echo 'reached programs; cd /root'
  typed README.md "$service" '## Where to go on'
  echo 'reached readme'
  cat <<'AGAIN'
# He starts again, with the guide.
svc -dx /etc/pop3s /etc/pop3s/log
while svok /etc/pop3s || svok /etc/pop3s/log; do sleep 1; done
rm -r /etc/service/pop3s /etc/pop3s
userdel poplog
AGAIN
  typed doc/first-service.md '' '## 6. A certificate that clients trust'
  echo 'export SSL_CERT_FILE=/etc/pop3s/cert.pem'
  typed doc/first-service.md "$starttls" '## The other supervisors'
  echo 'svstat /etc/service/pop3s /etc/service/smtp; svstat /etc/service/pop3s /etc/service/smtp | grep -c ": up " >/root/up'
} | session guide
# Three times two answers of popa3d's, one farewell of the mail server's; both
# services are supervised.
answers=$(grep -c -e '^+OK' -e '^221 ' "$work/guide")
[ "$answers" -ge 7 ] || { cat "$work/guide" >&2; fail "$answers answers"; }
[ "$(cat "$machine/root/up")" = 2 ] || { cat "$work/guide" >&2; fail 'a service is not up'; }
ended=$(seconds end)
shout "from README to installed programs in $(($(seconds programs) - begun)) s, its service in $(($(seconds readme) - $(seconds programs))) s, the guide's POP3S and STARTTLS in $((ended - $(seconds readme))) s"

# INSTALL, on the same machine, up to the removal.
{
  printf "apt-get install man-db less\ncd '%s'\n" "$checkout"
  typed_of_install
} | session INSTALL
for place in /usr /tmp/staging/usr; do
  [ -x "$machine$place/bin/sslserver" ] || fail "INSTALL installs nothing in $place"
done
[ ! -e "$machine/usr/local/bin/sslserver" ] || fail 'INSTALL does not remove'
shout "INSTALL's commands in $(($(date +%s) - ended)) s"
