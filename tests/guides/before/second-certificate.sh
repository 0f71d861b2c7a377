# shellcheck shell=sh
# The administrator has got an RSA certificate, and his run script names it.
openssl req -newkey rsa:2048 -nodes -subj /CN=mx.my.example \
  -keyout /etc/ssl/mail/rsa.key -out /test/ca/request.pem
printf 'subjectAltName=DNS:mx.my.example\n' >/test/ca/names
openssl x509 -req -in /test/ca/request.pem -CA /test/ca/ca.pem -CAkey /test/ca/ca.key \
  -days 20 -extfile /test/ca/names -out /etc/ssl/mail/rsa.pem
cat /test/ca/ca.pem >>/etc/ssl/mail/rsa.pem
CERTFILE=/etc/ssl/mail/ecdsa.pem KEYFILE=/etc/ssl/mail/ecdsa.key
CERTFILE_ALT=/etc/ssl/mail/rsa.pem KEYFILE_ALT=/etc/ssl/mail/rsa.key
export CERTFILE KEYFILE CERTFILE_ALT KEYFILE_ALT
restart mx.my.example 127.0.0.1 CERTFILE=/etc/ssl/mail/ecdsa.pem KEYFILE=/etc/ssl/mail/ecdsa.key \
  CERTFILE_ALT=/etc/ssl/mail/rsa.pem KEYFILE_ALT=/etc/ssl/mail/rsa.key
