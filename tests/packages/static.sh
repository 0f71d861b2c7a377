# shellcheck shell=sh
# Programs without shared libraries, in a chroot that holds nothing else; and that
# the directory of a build leaves no mark.
folder=$(package/static) || fail 'package/static'
empty=$work/empty
mkdir "$empty"
cp "$folder/sslserver" "$folder/sslclient" "$empty/"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost -keyout "$empty/key.pem" -out "$empty/cert.pem" 2>/dev/null ||
  fail 'openssl req'
mkfifo "$work/static-port"
# The program is one of ours, since there is no other: it says its version.
env -i PATH="$PATH" CERTFILE=/cert.pem KEYFILE=/key.pem chroot "$empty" /sslserver -v1RHl0 127.0.0.1 0 \
  /sslclient --version >"$work/static-port" 2>"$work/log" &
server=$!
port=$(timeout 30 head -n 1 "$work/static-port")
[ -n "$port" ] || { cat "$work/log" >&2; fail 'sslserver did not start'; }
answer=$(openssl s_client -connect "127.0.0.1:$port" -CAfile "$empty/cert.pem" -verify_return_error -quiet </dev/null 2>/dev/null)
kill "$server" && wait "$server" || fail 'sslserver did not end well'
case $answer in 'sslclient (ucspi-tls)'*) ;; *) cat "$work/log" >&2; fail "answered: $answer" ;; esac

shout 'compiling again in another directory'
mkdir "$work/another place"
cp -r package src doc build.rs Cargo.toml Cargo.lock tests benches "$work/another place/"
(unset CARGO_TARGET_DIR; works "$work/another place/package/compile") || exit 111
for program in command/*; do
  cmp "$program" "$work/another place/$program" || fail "$program depends on where it was built"
done
