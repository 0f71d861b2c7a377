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
is 0 sh -c 'ls -A /etc/systemd/system | grep -c conf || :'

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
