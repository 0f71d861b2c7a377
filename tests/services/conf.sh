# shellcheck shell=sh
# What sslserver-conf makes, from an empty machine to the end of the service.
letter=$1
directory='/etc/the services/echo'
link=/service/echo
log=$link/log/main/current
useradd -M echoer
useradd -M echolog
mkdir -p /service '/etc/the services'
umask 077
# Blanks, quotes and what shells and makefiles look at come to the program whole.
# shellcheck disable=SC2016 # the words of another shell
sslserver-conf "$letter" echoer echolog "$directory" 9995 \
  sh -c 'printf "%s\n" "$0 $1 $(id -un) $SSL_PROTOCOL $TCPREMOTEIP"; exec cat' "it's \"a\" \$HOME %n" "\\b
c"
umask 022
is 0 sh -c 'ls -A "/etc/the services" | grep -c sslserver-conf || :'
is 'echolog 750' stat -c '%U %a' "$directory/log/main"
is '755 755 644 644' sh -c "stat -c %a '$directory' '$directory/run' '$directory/rules.cdb' '$directory/env/CERTFILE' | xargs"
# Nothing is overwritten.
cp -a "$directory" /test/copy
code=0
sslserver-conf "$letter" echoer echolog "$directory" 9995 true 2>/test/refused || code=$?
is 111 echo "$code"
grep -q "^sslserver-conf: fatal: unable to create $directory: it exists" /test/refused
diff -r "$directory" /test/copy

# It starts as it is once CERTFILE is there, and until then says what it lacks.
ln -s "$directory" "$link"
supervise_all
eventually grep -q "unable to .*$directory/cert.pem" "$log"
closed 9995
cat "$pair.pem" "$pair.key" >"$directory/cert.new"
chmod 600 "$directory/cert.new"
mv "$directory/cert.new" "$directory/cert.pem"
eventually is_ready "$link"
eventually listens 9995
greeting="it's \"a\" \$HOME %n \\b
c echoer TLSv1.3 127.0.0.1"
is "$greeting
hello" answer 9995 hello
before=$(shows 9995)

# A connection that stays open.
mkfifo /test/in
client 9995 'cat <&6 7>&- >>/test/long & exec cat </test/in >&7' &
long=$!
exec 9>/test/in
echo one >&9
eventually grep -q '^one$' /test/long

# HUP, and a certificate that is replaced by moving a file there.
first=$(process "$link")
hangup "$link"
is "$greeting
again" answer 9995 again
is "$first" process "$link"
issue mail.example.com >>/test/authority.out 2>&1
cat "$pair.pem" "$pair.key" >"$directory/cert.new"
mv "$directory/cert.new" "$directory/cert.pem"
after() { [ "$(shows 9995)" != "$before" ]; }
eventually after
eventually grep -q 'CERTFILE .* changed: from' "$log"

# A restart that the open connection survives.
restart "$link"
other() { now=$(process "$link"); [ -n "$now" ] && [ "$now" != "$first" ] && [ "$now" != 0 ]; }
eventually other
eventually is_ready "$link"
eventually listens 9995
is "$greeting
new" answer 9995 new
echo two >&9
eventually grep -q '^two$' /test/long

# Rules: the text is compiled by make, and the running server sees them.
echo '127.:deny' >"$directory/rules"
(cd "$directory" && make) >/test/make.out
grep -q 'rules.cdb rules.tmp' /test/make.out
denied() { ! answer 9995 denied >/test/denied 2>&1; }
eventually denied
eventually grep -q ': deny ' "$log"

# The end: everything that is said of the connections is in the log, whole.
exec 9>&-
wait "$long"
# All but the one that outlived its supervisor.
all_ended() {
  began=$(grep -c ': \(ok\|deny\) ' "$log")
  [ "$(grep -c ': end ' "$log")" = $((began - 1)) ]
}
eventually all_ended
[ "$began" -ge 7 ]
finish "$link"
eventually is_over "$link"
eventually closed 9995
grep -c "${stamp}sslserver: " "$log" >/test/lines
is "$(cat /test/lines)" grep -c . "$log"
is echolog stat -c %U "$log"
is 0 sh -c 'ps -e -o comm= | grep -c "^\(sslserver\|engine\|key\)" || :'
