# shellcheck shell=sh
# Two partners that tell in DNS what holds for them, below a root of the test's own:
# one whose zone is signed and has TLSA records, one with a policy on the web.
mkdir -p /test/dns
cd /test/dns
cat >signed.example <<'ZONE'
$ORIGIN signed.example.
$TTL 300
@    IN SOA  ns hostmaster 1 3600 600 86400 300
@    IN NS   ns
ns   IN A    127.0.0.1
@    IN MX   10 mx
mx   IN A    192.0.2.1
_25._tcp.mx IN TLSA 3 1 1 6f0e8d01000000000000000000000000000000000000000000000000000000b1
ZONE
cat >policy.example <<'ZONE'
$ORIGIN policy.example.
$TTL 300
@    IN SOA  ns hostmaster 1 3600 600 86400 300
@    IN NS   ns
ns   IN A    127.0.0.1
@    IN MX   10 mx
mx   IN A    192.0.2.1
_mta-sts IN TXT "v=STSv1; id=20260101"
mta-sts  IN A   127.0.0.4
ZONE
key=$(ldns-keygen -k -a ECDSAP256SHA256 -r /dev/urandom signed.example)
ldns-signzone -o signed.example. -f signed.example.signed signed.example "$key"
printf '%s\n' "\$ORIGIN ." "\$TTL 300" '@ IN SOA ns hostmaster 1 3600 600 86400 300' '@ IN NS ns' \
  'ns IN A 127.0.0.1' 'signed.example. IN NS ns.signed.example.' 'ns.signed.example. IN A 127.0.0.1' \
  'policy.example. IN NS ns.policy.example.' 'ns.policy.example. IN A 127.0.0.1' >root
cat "$key.ds" >>root
key=$(ldns-keygen -k -a ECDSAP256SHA256 -r /dev/urandom .)
ldns-signzone -o . -f root.signed root "$key"
cp "$key.key" /var/qmail/control/dnssecanchors
cat >nsd.conf <<'CONF'
server:
  ip-address: 127.0.0.1
  username: ""
  database: ""
  zonesdir: /test/dns
  pidfile: /run/nsd.pid
  xfrdfile: /test/dns/xfrd
  xfrdir: /test/dns
  zonelistfile: /test/dns/zones
  server-count: 1
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: .
  zonefile: root.signed
zone:
  name: signed.example
  zonefile: signed.example.signed
zone:
  name: policy.example
  zonefile: policy.example
CONF
background 53 nsd -d -c /test/dns/nsd.conf
echo 'nameserver 127.0.0.1' >/etc/resolv.conf
issue mta-sts.policy.example
cat >/test/dns/web-server <<'WEB'
#!/bin/sh
while read -r line && [ "$line" != "$(printf '\r')" ]; do :; done
policy='version: STSv1
mode: enforce
mx: mx.policy.example
max_age: 604800
'
printf 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %s\r\n\r\n%s' "${#policy}" "$policy"
WEB
chmod 755 /test/dns/web-server
background 443 env CERTFILE=/test/ca/mta-sts.policy.example.pem KEYFILE=/test/ca/mta-sts.policy.example.key \
  sslserver -RHl0 127.0.0.4 443 /test/dns/web-server
cd /root
