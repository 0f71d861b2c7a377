# shellcheck shell=sh
# Units for systemd, judged by its own tools, and its own way of handing over a
# socket. systemd itself needs a machine that it has booted.
useradd -M echoer
mkdir -p '/etc/a b' /etc/systemd/system
# shellcheck disable=SC2016 # the words of another shell
sslserver-conf -S echoer nobody-at-all '/etc/a b/echo' 9995 sh -c 'echo "$1"; exec cat' "it's % \\"
sslserver-conf -S echoer nobody-at-all /etc/systemd/system 127.0.0.1 9996 starttls-handoff pop3 popa3d
unit='/etc/a b/echo/echo.service'
other=/etc/systemd/system/sslserver-9996.service
is echo.service ls '/etc/a b/echo'
for file in "$unit" "$other"; do
  is 644 stat -c %a "$file"
  for line in Type=notify KillMode=process 'ExecReload=/bin/kill -HUP $MAINPID'; do
    grep -qxF "$line" "$file"
  done
  systemd-analyze verify --man=no --recursive-errors=no "$file" 2>/test/verify
  is '' cat /test/verify
  # As far as that can be had around programs that become other users.
  systemd-analyze security --offline=true --threshold=75 "$file" >/test/security
done
grep -q ' -n -u echoer 127.0.0.1 9996 starttls-handoff pop3 popa3d$' "$other"
grep -q '"Environment=CERTFILE=\|CERTFILE=/etc/sslserver/sslserver-9996/cert.pem' "$other"
code=0
sslserver-conf -S echoer root /etc/systemd/system 127.0.0.1 9996 true 2>/test/refused || code=$?
is 111 echo "$code"
grep -q 'it exists, and nothing is overwritten$' /test/refused
grep -q popa3d "$other"
# Nor is a second unit put beside the first in a directory of its own.
code=0
sslserver-conf -S echoer root '/etc/a b/echo' 9997 true 2>/test/refused || code=$?
is 111 echo "$code"
grep -q 'it exists, and nothing is overwritten$' /test/refused
code=0
sslserver-conf -S echoer root /etc/systemd/system/pop3s.service 995 true 2>/test/refused || code=$?
is 100 echo "$code"
grep -q 'give /etc/systemd/system/pop3s, or a directory that is there' /test/refused
is 0 sh -c 'ls -A /etc/systemd/system | grep -c conf || :'

# The template, as an instance of it.
ln -sf /usr/local/bin/sslserver /usr/bin/sslserver
cp '/usr/src/ucspi-tls/examples/systemd/sslserver@.service' /etc/systemd/system/
systemd-analyze verify --man=no --recursive-errors=no sslserver@pop3s.service 2>/test/verify
is '' cat /test/verify
systemd-analyze security --offline=true --threshold=75 '/etc/systemd/system/sslserver@.service' >/test/security
# The settings of its example are settings, and the command line is one.
sed -n 's/^\([A-Z]*\)=.*/\1/p' /usr/src/ucspi-tls/examples/systemd/pop3s.conf | xargs >/test/names
is 'CERTFILE KEYFILE ARGS' cat /test/names
mkdir -p /etc/ssl/mail
cp "$pair.pem" /etc/ssl/mail/cert.pem
cp "$pair.key" /etc/ssl/mail/key.pem
chmod 600 /etc/ssl/mail/key.pem
(
  set -a
  . /usr/src/ucspi-tls/examples/systemd/pop3s.conf
  # shellcheck disable=SC2086 # systemd splits it, too
  sslserver -k $ARGS
) >/test/check
grep -q 'subject: CN=mail.example.com' /test/check

# Socket activation: the first client starts the server, and the port is never closed.
systemd-socket-activate -l 9995 -E CERTFILE="$pair.pem" -E KEYFILE="$pair.key" \
  --fdname=echo sslserver -vRHl0 0 9995 sh -c 'echo ${LISTEN_FDS-none}; exec cat' \
  2>/test/activated &
activated=$!
eventually listens 9995
is 'none
hello' answer 9995 hello
is 'none
again' answer 9995 again
is 0 sh -c 'grep -c warning /test/activated || :'
kill "$activated"
wait "$activated"
