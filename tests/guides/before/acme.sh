# shellcheck shell=sh
# A certificate authority of the ACME protocol in Let's Encrypt's place and under
# its name: pebble, Let's Encrypt's own test server, which asks this machine for
# the proof as the real one does. In front of it haproxy shows a certificate of
# an authority that this machine trusts, and gives the directory its usual path.
. /test/before/authority.sh
printf '127.0.0.1 mail.example.com acme-v02.api.letsencrypt.org\n' >>/etc/hosts
issue acme-v02.api.letsencrypt.org
cat /test/ca/acme-v02.api.letsencrypt.org.key >>/test/ca/acme-v02.api.letsencrypt.org.pem
mkdir -p /test/acme
cat >/test/acme/pebble.json <<'JSON'
{ "pebble": {
    "listenAddress": "127.0.0.1:14000",
    "managementListenAddress": "127.0.0.1:15000",
    "certificate": "/test/ca/acme-v02.api.letsencrypt.org.pem",
    "privateKey": "/test/ca/acme-v02.api.letsencrypt.org.key",
    "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "",
    "externalAccountBindingRequired": false } }
JSON
cat >/test/acme/haproxy.cfg <<'CFG'
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
listen acme
  bind 127.0.0.1:443 ssl crt /test/ca/acme-v02.api.letsencrypt.org.pem
  http-request set-path /dir if { path /directory }
  server pebble 127.0.0.1:14000 ssl verify none
CFG
# No nonce is refused for a try, and no proof waits for seconds.
background 14000 env PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 \
  pebble -config /test/acme/pebble.json
background 443 haproxy -db -f /test/acme/haproxy.cfg
# Its root is as known as Let's Encrypt's.
curl -sk -o /test/acme/root.pem https://127.0.0.1:15000/roots/0
cat /test/acme/root.pem >>/etc/ssl/certs/ca-certificates.crt
cp /test/acme/root.pem "/etc/ssl/certs/$(openssl x509 -in /test/acme/root.pem -noout -hash).0"
