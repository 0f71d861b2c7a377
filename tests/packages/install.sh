# shellcheck shell=sh
# package/install, package/uninstall and package/dist, and what keeps them from it.
to="$work/a place"
files() { (cd "$1" && find . -type f | LC_ALL=C sort); }

# What is there already stays, whatever happens.
mkdir -p "$to/opt/bin"
echo theirs >"$to/opt/bin/theirs"
(umask 077 && cd "$work" && works env DESTDIR='a place' "$here/package/install" /opt) || exit 111
[ "$(stat -c %a "$to/opt/bin/sslserver" "$to/opt/share/doc/ucspi-tls" | xargs)" = '755 755' ] ||
  fail 'modes under another umask'
for wanted in bin/sslserver bin/https@ share/man/man1/sslserver.1.gz share/man/man8/qmail-sslremote.8.gz \
  share/doc/ucspi-tls/LICENSE share/doc/ucspi-tls/moving.md share/doc/ucspi-tls/examples/https/run
do
  [ -f "$to/opt/$wanted" ] || fail "not installed: $wanted"
done
[ -x "$to/opt/share/doc/ucspi-tls/examples/https/run" ] || fail 'an example that cannot be run'
if grep -aqF -e "$here" -e "${CARGO_HOME:-$HOME/.cargo}" "$to/opt/bin/sslserver"; then
  fail 'a path of this machine in sslserver'
fi
[ -z "$(find "$to" -name '.*.ucspi-tls')" ] || fail 'something half-made is left'

# Over another version: what only that one had goes, what somebody changed stays.
manifest=$to/opt/share/ucspi-tls/manifest
for name in old changed; do
  echo "$name" >"$to/opt/bin/$name"
  printf '%s  /opt/bin/%s\n' "$(echo old | sha256sum | cut -d ' ' -f 1)" "$name" >>"$manifest"
done
echo damaged >"$to/opt/bin/sslcat"
# A server that runs goes on, its file is replaced below it.
printf 'x' >>"$to/opt/bin/sslserver"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null ||
  fail 'openssl req'
mkfifo "$work/port" "$work/speak"
CERTFILE=$work/cert.pem KEYFILE=$work/key.pem "$to/opt/bin/sslserver" -v1RHl0 127.0.0.1 0 cat \
  >"$work/port" 2>"$work/log" &
server=$!
port=$(timeout 60 head -n 1 "$work/port")
[ -n "$port" ] || { cat "$work/log" >&2; fail 'sslserver did not start'; }
client() { PATH=$here/command:$PATH timeout 120 sslconnect 127.0.0.1 "$port" -a "$work/cert.pem" -m localhost; }
client <"$work/speak" >"$work/heard" &
open=$!
exec 9>"$work/speak"
heard() {
  echo "$1" >&9
  tries=0
  until grep -q "^$1" "$work/heard"; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || { cat "$work/log" >&2; fail "no answer to $1"; }
    sleep 1
  done
}
heard before
env DESTDIR="$to" package/install /opt 2>"$work/said" || fail 'install over another version'
for part in 'bin/changed is not what was installed, and stays' \
  'bin/sslserver was changed since it was installed, and is replaced' \
  'bin/sslcat was changed since it was installed, and is replaced'
do
  grep -qF "$part" "$work/said" || { cat "$work/said" >&2; fail "not said: $part"; }
done
[ "$(grep -c . "$work/said")" = 3 ] || { cat "$work/said" >&2; fail 'install says more'; }
cmp -s command/sslserver "$to/opt/bin/sslserver" || fail 'a program that runs is not replaced'
heard after
exec 9>&-
wait "$open" || fail 'an open connection did not live through it'
[ "$(echo new | client | tr -d '\r')" = new ] || fail 'the running server serves no more'
kill "$server" && wait "$server" || { cat "$work/log" >&2; fail 'sslserver did not end well'; }
[ ! -e "$to/opt/bin/old" ] && [ -f "$to/opt/bin/changed" ] || fail 'an older version is not cleared away'
cmp -s "$to/opt/bin/sslcat" src/sh/sslcat || fail 'a damaged file is not replaced'

# Guides lead to what is beside them; systemd wants whole paths.
grep -q '^ExecStart=/opt/bin/sslserver ' "$to/opt/share/doc/ucspi-tls/examples/systemd/sslserver@.service" ||
  fail 'the unit names another place'
for page in "$to/opt/share/doc/ucspi-tls"/*.md; do
  grep -o '](\([^)]*\))' "$page" | grep -v -e '://' -e '](#' | sed 's/^](//; s/[)#].*//' >"$work/links"
  while read -r link; do
    [ -e "${page%/*}/$link" ] || fail "$page links to $link, which is not installed"
  done <"$work/links"
done

# Away again.
echo "# mine" >>"$to/opt/share/doc/ucspi-tls/README.md"
expect 0 'README.md is not what was installed, and stays' env DESTDIR="$to" package/uninstall /opt
[ "$(files "$to" | xargs)" = './opt/bin/changed ./opt/bin/theirs ./opt/share/doc/ucspi-tls/README.md' ] ||
  fail "left: $(files "$to" | xargs)"
expect 111 'nothing was installed there' env DESTDIR="$to" package/uninstall /opt
expect 100 'usage: the prefix must begin with a slash; package/install [/prefix]' package/install relative
expect 100 'usage: package/install' package/install / /
for script in package/*; do
  case $script in */lib.sh) continue ;; esac
  "$script" --help >"$work/out" 2>&1 && [ "$(grep -c . "$work/out")" -gt 1 ] || fail "$script --help"
done

# DESTDIR=/ is the whole file system, wherever the caller is.
mkdir "$work/elsewhere"
(cd "$work/elsewhere" && works env DESTDIR=/ "$here/package/install" "$work/whole") || exit 111
[ -x "$work/whole/bin/sslserver" ] && [ -z "$(ls -A "$work/elsewhere")" ] || fail 'DESTDIR=/ leads elsewhere'
(cd / && works env DESTDIR=// "$here/package/uninstall" "$work/whole") || exit 111
[ ! -e "$work/whole" ] || fail 'DESTDIR=// leads elsewhere'
expect 100 'usage: package/uninstall' package/uninstall / /

# A checkout whose path has blanks, under a umask that leaves nobody anything.
mkdir "$work/a checkout"
cp -r package src doc examples build.rs Cargo.toml Cargo.lock README.md INSTALL CHANGES LICENSE* "$work/a checkout/"
for script in install uninstall; do
  (umask 777 && works env COMMAND_DIR="$here/command" DESTDIR="$work/of blanks" "$work/a checkout/package/$script" '/o p t') || exit 111
  case $script in
    install)
      [ "$(stat -c %a "$work/of blanks" "$work/of blanks/o p t/bin/sslserver" "$work/of blanks/o p t/share/man/man1/sslserver.1.gz" | xargs)" = '755 755 644' ] ||
        fail 'modes under a umask of 777' ;;
    uninstall) [ ! -e "$work/of blanks/o p t" ] || fail 'not all below a prefix with blanks is removed' ;;
  esac
done

# Nothing half-installed: a directory in the way, a place that is not ours.
mkdir -p "$work/blocked/opt/share/man/man1/sslserver.1.gz"
expect 111 'it is a directory' env DESTDIR="$work/blocked" package/install /opt
[ -z "$(files "$work/blocked")" ] && [ ! -d "$work/blocked/opt/bin" ] || fail 'a half is left'
mkdir -p "$work/file/opt/share/man"
: >"$work/file/opt/share/man/man1"
expect 111 'share/man/man1 is not a directory' env DESTDIR="$work/file" package/install /opt
[ ! -e "$work/file/opt/bin" ] || fail 'a half is left'
expect 111 'COMMAND_DIR: /nowhere is not a directory' env COMMAND_DIR=/nowhere DESTDIR="$work/file" package/install /opt
if mkdir "$work/full" && mount -t tmpfs -o size=1m tmpfs "$work/full" 2>/dev/null; then
  expect 111 'No space left on device' env DESTDIR="$work/full" package/install /opt
  [ -z "$(files "$work/full")" ] || fail 'a half is left on a full disk'
  umount "$work/full"
fi
expect 111 'be root, or give a prefix' \
  setpriv --reuid=65534 --regid=65534 --clear-groups env DESTDIR= package/install /opt/none
# A source tree that cannot be written to, with nothing built in it.
if mount -t tmpfs tmpfs "$work/blocked" 2>/dev/null; then
  mkdir "$work/blocked/tree"
  cp -r package src doc build.rs Cargo.toml Cargo.lock "$work/blocked/tree"
  mount -o remount,ro "$work/blocked"
  expect 111 'work in a copy of this directory that is yours' env -u CARGO_TARGET_DIR "$work/blocked/tree/package/install" /opt
  umount "$work/blocked"
fi

# Without Rust, with an old one, without the network.
tools=$work/tools
mkdir "$tools"
for tool in cat cut dirname id sed sort head printf grep stat mktemp rm tr uname; do
  ln -s "$(command -v "$tool")" "$tools/"
done
ln -s "$(command -v sh)" "$tools/sh"
bare() { env -i HOME=/nowhere PATH="$tools" "$@"; }
for tool in cargo rustc; do
  printf '#!/bin/sh\necho "%s 1.63.0 (old)"\n' "$tool" >"$work/old-$tool"
  chmod 755 "$work/old-$tool"
done
mkdir "$work/old"
mv "$work/old-cargo" "$work/old/cargo"
mv "$work/old-rustc" "$work/old/rustc"
expect 111 "cargo is 1.63.0, and $least_rust or later is needed; get it from https://rustup.rs/" \
  env HOME=/nowhere PATH="$work/old:/usr/bin:/bin" package/compile
expect 111 "cargo not found: Rust $least_rust or later is needed" bare "$here/package/compile"
expect 111 'git not found: please install it' bare "$here/package/dist"
expect 111 'dpkg-deb not found: Debian packages are built on Debian' bare "$here/package/deb"
# Without a compiler; with one, but without headers; without what else is named.
rust=$(rustc --print sysroot)/bin
ln -s "$rust/cargo" "$rust/rustc" "$tools/"
for script in compile demo; do
  expect 111 'please install: gcc libc6-dev libgmp-dev libssl-dev libunbound-dev pkg-config' \
    bare "$here/package/$script"
done
for tool in cc as ld pkg-config; do
  ln -s "$(command -v "$tool")" "$tools/"
done
expect 111 'please install: libgmp-dev libssl-dev libunbound-dev' \
  bare PKG_CONFIG_LIBDIR=/nowhere "$here/package/compile"
expect 111 'please install: libgmp-dev libssl-dev' \
  bare PKG_CONFIG_LIBDIR=/nowhere "$here/package/compile" --no-default-features --features 'remote gmp'
for words in '--no-default-features remote' '--features' '--all-features'; do
  # shellcheck disable=SC2086 # a list of words
  expect 100 'usage: package/compile [--no-default-features] [--features list]' package/compile $words
done
expect 111 'please install: openssl' bare "$here/package/demo"
mkdir "$work/crates"
expect 111 'cannot fetch the crates that Cargo.lock names (is there a network?)' \
  unshare -n env CARGO_HOME="$work/crates" CARGO_NET_RETRY=0 package/compile

# Other features than the usual ones: only their programs are installed, and after a
# pull they are compiled with the same. This cargo makes of each program what it was
# asked for.
mkdir "$work/few" "$work/few checkout"
cp -r package src doc examples build.rs Cargo.toml Cargo.lock README.md INSTALL CHANGES LICENSE* "$work/few checkout/"
cat >"$work/few/cargo" <<'END'
#!/bin/sh
case $1 in
  --version) echo 'cargo 9.0.0 (ours)' ;;
  build)
    shift
    mkdir -p "$CARGO_TARGET_DIR/release"
    for source in src/bin/*.rs; do
      name=${source##*/}
      echo "$*" >"$CARGO_TARGET_DIR/release/${name%.rs}"
    done ;;
esac
END
chmod 755 "$work/few/cargo"
few() {
  script=$1
  shift
  works env -u COMMAND_DIR PATH="$work/few:$PATH" CARGO_TARGET_DIR="$work/few/target" DESTDIR="$work/few" \
    "$work/few checkout/package/$script" "$@"
}
of_few() { (cd "$work/few/opt/bin" && LC_ALL=C ls | xargs); }
few compile
few install /opt
[ -f "$work/few/opt/bin/qmail-sslremote" ] || fail 'a program is missing'
few compile --no-default-features
few install /opt
[ "$(of_few)" = 'https@ sslcat sslclient sslconnect sslrules sslrulescheck sslserver sslserver-conf starttls-handoff' ] ||
  fail "with other features: $(of_few)"
few compile --no-default-features --features remote
few install /opt
touch -d '1 minute' "$work/few checkout/src/bin/sslserver.rs"
echo damaged >"$work/few checkout/command/sslserver"
few install /opt
grep -q -e '--no-default-features --features remote$' "$work/few/opt/bin/sslserver" && [ -f "$work/few/opt/bin/sslreport" ] ||
  fail 'after a pull it is compiled with other features'

# The release tarball: twice the same, and it holds what git has.
# A checkout may be another user's, or none.
printf '[safe]\n\tdirectory = *\n' >"$work/gitconfig"
GIT_CONFIG_GLOBAL=$work/gitconfig git clone -q "$here" "$work/release" 2>"$work/said" || {
  echo "skipped in part: no release is made of what git cannot clone: $(tail -n 1 "$work/said")" >&2
  return
}
tarball=$("$work/release/package/dist") || fail 'package/dist'
sum=$(sha256sum <"$tarball")
touch "$work/release"/*
(umask 077 && git -C "$work/release" config tar.umask 077 && works "$work/release/package/dist") || exit 111
[ "$sum" = "$(sha256sum <"$tarball")" ] || fail 'two tarballs of one commit differ'
(cd "$work/release" && git ls-files | LC_ALL=C sort) >"$work/listed"
tar tzf "$tarball" | sed 's,^[^/]*/,,; /\/$/d; /^$/d' | LC_ALL=C sort | cmp -s - "$work/listed" ||
  fail 'the tarball holds something else than git'
echo change >>"$work/release/README.md"
expect 111 'there are changes that no commit has' "$work/release/package/dist"
