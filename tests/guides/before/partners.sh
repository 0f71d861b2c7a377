# shellcheck shell=sh
# Our mail server with an ECDSA certificate alone, and a bank whose certificate is
# of its own making; both under their names.
. /test/before/authority.sh
mkdir -p /var/qmail/control /etc/ssl/mail
printf '127.0.0.1 mx.my.example\n127.0.0.2 mx.bank.example\n' >>/etc/hosts
issue mx.my.example
cp /test/ca/mx.my.example.pem /etc/ssl/mail/ecdsa.pem
cp /test/ca/mx.my.example.key /etc/ssl/mail/ecdsa.key
openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=mx.bank.example \
  -addext subjectAltName=DNS:mx.bank.example -keyout /test/ca/bank.key -out /test/ca/bank.pem

# mail NAME ADDRESS VARIABLE=VALUE...: a mail server, whose process is in NAME.pid.
mail() {
  name=$1
  address=$2
  shift 2
  setsid env -u CERTFILE_ALT -u KEYFILE_ALT "$@" sslserver -1neRHl "$name" "$address" 25 \
    starttls-handoff smtp smtpfront-echo </dev/null >>/test/before.out 2>&1 &
  echo "$!" >"/test/$name.pid"
  until_true smtp_listens "$address"
}

# smtp_listens ADDRESS: whether somebody does on port 25 of it.
smtp_listens() {
  last=${1##*.}
  grep -qi "0$last"'00007F:0019 0*:0000 0A' /proc/net/tcp
}

# restart NAME ADDRESS VARIABLE=VALUE...
restart() {
  kill "$(cat "/test/$1.pid")"
  until_true gone "$2"
  mail "$@"
}

gone() { ! smtp_listens "$1"; }

mail mx.my.example 127.0.0.1 CERTFILE=/etc/ssl/mail/ecdsa.pem KEYFILE=/etc/ssl/mail/ecdsa.key
mail mx.bank.example 127.0.0.2 CERTFILE=/test/ca/bank.pem KEYFILE=/test/ca/bank.key
