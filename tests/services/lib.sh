# shellcheck shell=sh
# What every script here begins with: an authority, a certificate of this machine,
# and clients. A script runs with -e: what fails ends it, and is the last to be seen.
set -x
. /test/before/authority.sh >/test/authority.out 2>&1
issue mail.example.com >>/test/authority.out 2>&1
echo '127.0.0.1 mail.example.com' >>/etc/hosts
pair=/test/ca/mail.example.com

# client PORT WORD...: sslclient with verification, around words of the shell that
# write to descriptor 7 and read from 6.
client() {
  port=$1
  shift
  timeout 60 sslclient -RHl0 mail.example.com "$port" sh -ec "$*"
}

# answer PORT LINE: what a service answers to a line, up to its end.
answer() { client "$1" "echo '$2' >&7; exec 7>&-; cat <&6"; }

# shows PORT: the serial number of the certificate that a service shows.
shows() {
  openssl s_client -connect "127.0.0.1:$1" </dev/null 2>/dev/null |
    openssl x509 -noout -serial
}

# is WANTED COMMAND...: fails unless this is what the command prints.
is() {
  wanted=$1
  shift
  got=$("$@")
  [ "$got" = "$wanted" ] || { echo "wanted: $wanted; got: $got" >&2; exit 1; }
}

# eventually COMMAND...: until_true, without its tries in what is printed.
eventually() {
  { set +x; } 2>/dev/null
  until_true "$@"
  set -x
}

closed() { ! listens "$1"; }
