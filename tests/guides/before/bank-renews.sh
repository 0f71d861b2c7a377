# shellcheck shell=sh
# The bank has a new key, and a certificate of a public authority for it.
openssl req -newkey rsa:2048 -nodes -subj /CN=mx.bank.example \
  -keyout /test/ca/bank.key -out /test/ca/request.pem
printf 'subjectAltName=DNS:mx.bank.example\n' >/test/ca/names
openssl x509 -req -in /test/ca/request.pem -CA /test/ca/ca.pem -CAkey /test/ca/ca.key \
  -days 90 -extfile /test/ca/names -out /test/ca/bank.pem
cat /test/ca/ca.pem >>/test/ca/bank.pem
restart mx.bank.example 127.0.0.2 CERTFILE=/test/ca/bank.pem KEYFILE=/test/ca/bank.key
