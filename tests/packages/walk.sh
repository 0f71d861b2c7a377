# shellcheck shell=sh
# A newcomer's walk: a fresh Debian with nothing but Rust, where README and
# doc/first-service.md are typed as they stand, up to POP3 over TLS and SMTP with
# STARTTLS under a supervisor, both seen from outside. Left out is the certificate of a
# public authority (section 6), which needs a name that the world knows: the one
# for a try stands in for it.
. /etc/os-release
walk=${work:?}/walk
works debootstrap --variant=minbase "${VERSION_CODENAME:-stable}" "$walk"
safe mount -t proc proc "$walk/proc"
safe mount --rbind /dev "$walk/dev"
safe mount --make-rslave "$walk/dev"
# Rust, as rustup puts it, and copies of the crates that this machine has already.
rust=$(rustc --print sysroot) || fail 'rustc --print sysroot'
crates=${CARGO_HOME:-$HOME/.cargo}/registry
mkdir -p "$walk/opt/rust" "$walk/root/.cargo/registry" "$walk/root/ucspi-tls"
safe mount --bind "$rust" "$walk/opt/rust"
safe mount -o remount,ro,bind "$walk/opt/rust"
for part in cache index; do
  [ ! -d "$crates/$part" ] || cp -r "$crates/$part" "$walk/root/.cargo/registry/" || fail 'copy the crates'
done
cp -r package src doc examples benches tests build.rs Cargo.toml Cargo.lock README.md INSTALL CHANGES LICENSE* \
  "$walk/root/ucspi-tls/" || fail 'copy the sources'
printf '127.0.0.1 mail.example.com\n' >>"$walk/etc/hosts"
there() {
  env -i HOME=/root PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    DEBIAN_FRONTEND=noninteractive "$@"
}

# typed PAGE FROM TO KIND: the commands of a page between two headings; KIND is
# `fetched` for those that fetch packages, `run` for the others. Those marked retry
# are typed again until they work.
typed() {
  awk -v from="$2" -v to="$3" -v kind="$4" '
    $0 == from { on = 1 }
    $0 == to { exit }
    /^```/ && code { if (retry) print "}\nuntil_true retried"; code = 0; next }
    on && /^```sh/ {
      fetched = /not-run: the test has no network/
      if (kind == "fetched" ? !fetched : / file=|not-run:/) next
      code = 1
      retry = / retry/
      if (retry) print "retried() {"
      next
    }
    code' "$walk/root/ucspi-tls/$1"
}
begun=$(date +%s)
there chroot "$walk" sh -ec 'cd /root/ucspi-tls && package/install' >"$work/out" 2>&1 ||
  { cat "$work/out" >&2; fail 'package/install in a fresh Debian'; }
installed=$(date +%s)
page=doc/first-service.md
starttls='## 7. STARTTLS'
{
  typed "$page" '' '## 6. A certificate that clients trust' fetched
  typed "$page" "$starttls" '## The other supervisors' fetched
} | sed 's/apt-get install/& -y --no-install-recommends/' >"$walk/root/fetched"
for wanted in popa3d mailfront; do
  grep -q "$wanted" "$walk/root/fetched" || fail "the page does not fetch $wanted"
done
works there chroot "$walk" sh -e /root/fetched
{
  cat <<'INIT'
until_true() {
  tries=0
  until "$@"; do tries=$((tries + 1)); [ "$tries" -lt 60 ] || exit 1; sleep 1; done
}
# What Debian's init does for daemontools-run.
svscan /etc/service >/root/svscan.log 2>&1 &
echo "$!" >/root/svscan.pid
INIT
  typed "$page" '' '## 6. A certificate that clients trust' run
  echo 'export SSL_CERT_FILE=/etc/pop3s/cert.pem'
  typed "$page" "$starttls" '## The other supervisors' run
  echo 'echo walked to the end'
} >"$walk/root/typed"
# Ports of its own; nothing of it outlives the last process.
# shellcheck disable=SC2016 # the words of another shell
there unshare -n -p -f --kill-child sh -c 'ip link set lo up && exec chroot "$0" sh -e /root/typed' "$walk" \
  >"$work/out" 2>&1 || { cat "$work/out" >&2; fail 'the walk through first-service'; }
grep -q '^walked to the end$' "$work/out" || fail 'the walk ended early'
# Twice two answers of popa3d's, one farewell of the mail server's.
answers=$(grep -c -e '^+OK' -e '^221 ' "$work/out")
[ "$answers" -ge 5 ] || { cat "$work/out" >&2; fail "$answers answers"; }
shout "from the sources to installed programs in $((installed - begun)) s, from there to POP3S and STARTTLS in $(($(date +%s) - installed)) s"
