# shellcheck shell=sh
# The Debian package: what lintian says, and its way into a fresh Debian and out.
package=$(package/deb) || fail 'package/deb'
works lintian --allow-root --fail-on error,warning "$package"
[ ! -s "$work/out" ] || { cat "$work/out" >&2; fail 'lintian'; }
first=$(sha256sum <"$package")
works package/deb
[ "$first" = "$(sha256sum <"$package")" ] || fail 'two packages of the same sources differ'
depends=$(dpkg-deb -f "$package" Depends)
for library in libc6 libssl3 libunbound8; do
  case $depends in *"$library"*) ;; *) fail "no $library in $depends" ;; esac
done

. tests/packages/debian.sh
fresh_debian deb
there() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive chroot "$machine" "$@"; }
listing() { (cd "$machine" && find . -xdev \( -path ./proc -o -path ./dev \) -prune -o -path './var/cache/*' -o -path './var/lib/apt/*' -o -path './var/lib/dpkg/*' -o -path './var/log/*' -o -path './tmp/*' -o -path './root/*' -o -print | LC_ALL=C sort); }

# Its dependencies first, so that what it leaves is its own.
cp "$package" "$machine/root/"
file=/root/${package##*/}
for library in $(printf %s "$depends" | tr -d ' ' | sed 's/([^)]*)//g' | tr , ' '); do
  works there apt-get install -y --no-install-recommends "$library"
done
listing >"$work/before"
works there apt-get install -y --no-install-recommends "$file"
listing | comm -13 "$work/before" - >"$work/new"
there dpkg -L ucspi-tls | sed 's/^/./; s,^./lib/,./usr/lib/,' >"$work/listed"
strange=$(sed 's,^./lib/,./usr/lib/,' "$work/new" | grep -vxFf "$work/listed")
[ -z "$strange" ] || fail "installed, and not of the package: $strange"
# Nothing is started, nothing is enabled.
for process in /proc/[0-9]*/root; do
  [ "$(readlink "$process")" != "$machine" ] || fail "a process runs: $(tr '\0' ' ' <"${process%root}cmdline")"
done
[ -z "$(find "$machine/etc/systemd" -name 'sslserver*')" ] || fail 'a unit is enabled'
works there sh -c 'test -f /lib/systemd/system/sslserver@.service && test -f /usr/share/doc/ucspi-tls/moving.md && test -x /usr/share/doc/ucspi-tls/examples/https/run'

# Its server serves there.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost -keyout "$machine/root/key.pem" -out "$machine/root/cert.pem" 2>/dev/null ||
  fail 'openssl req'
there sh -c 'mkfifo /root/port; echo $$ >/root/pid; CERTFILE=/root/cert.pem KEYFILE=/root/key.pem \
  exec sslserver -v1RHl0 127.0.0.1 0 sh -c "read line; echo got \$line" >/root/port 2>/root/log' &
server=$!
port=
for try in 1 2 3 4 5 6 7 8 9 10; do
  [ -p "$machine/root/port" ] && port=$(timeout 30 head -n 1 "$machine/root/port") && break
  sleep 1
done
[ -n "$port" ] || { cat "$machine/root/log" >&2; fail "sslserver did not start (tried $try times)"; }
answer=$(there sslclient -RHl0 -a /root/cert.pem -m localhost 127.0.0.1 "$port" sh -c 'echo hello >&7; cat <&6')
kill "$(cat "$machine/root/pid")" && wait "$server" || fail 'sslserver did not end well'
[ "$answer" = 'got hello' ] || { cat "$machine/root/log" >&2; fail "answered: $answer"; }

# Removed without a trace.
works there apt-get purge -y ucspi-tls
listing | comm -13 "$work/before" - >"$work/left"
[ ! -s "$work/left" ] || fail "left: $(cat "$work/left")"
there dpkg -s ucspi-tls >/dev/null 2>&1 && fail 'still known to dpkg'
:
