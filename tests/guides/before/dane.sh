# shellcheck shell=sh
# What a postmaster has before DANE: a mail service with a certificate of a public
# authority, a zone, and, elsewhere, those above it, whose keys everybody knows. Here
# they are a root of the test's own and this host's only resolver.
. /test/before/authority.sh
issue mail.example.com
mkdir -p /etc/mail-tls /etc/zone /var/qmail/control /test/root
cp /test/ca/mail.example.com.pem /etc/mail-tls/cert.pem
cp /test/ca/mail.example.com.key /etc/mail-tls/key.pem
echo elsewhere.example >/var/qmail/control/me
# The server's address: reached here, and no interface's.
ip route add local 192.0.2.25/32 dev lo

cat >/etc/zone/example.com <<'ZONE'
$ORIGIN example.com.
$TTL 300
@    IN SOA  ns hostmaster 1 3600 600 86400 300
@    IN NS   ns
ns   IN A    127.0.0.1
@    IN MX   10 mail
mail IN A    192.0.2.25
ZONE
cd /etc/zone
key=$(ldns-keygen -k -a ECDSAP256SHA256 -r /dev/urandom example.com)
for end in key private ds; do mv "$key.$end" "/etc/zone/zone-key.$end"; done
cat >/usr/local/bin/sign-zone <<'SIGN'
#!/bin/sh
# The zone's next serial number, its signatures, and the server that has it.
cd /etc/zone || exit
serial=$(($(sed -n 's/.*SOA.* hostmaster \([0-9]*\) .*/\1/p' example.com) + 1))
sed -i "s/\(SOA.* hostmaster\) [0-9]*/\1 $serial/" example.com
ldns-signzone -o example.com. -f example.com.signed example.com zone-key &&
  kill -HUP "$(cat /run/nsd.pid)"
# HUP is answered when it is.
until [ "$(dig +short @127.0.0.1 example.com SOA | cut -d ' ' -f 3)" = "$serial" ]; do sleep 0.1; done
SIGN
chmod 755 /usr/local/bin/sign-zone
ldns-signzone -o example.com. -f example.com.signed example.com zone-key
cd /test/root
printf '%s\n' "\$ORIGIN ." "\$TTL 300" '@ IN SOA ns hostmaster 1 3600 600 86400 300' '@ IN NS ns' \
  'ns IN A 127.0.0.1' 'example.com. IN NS ns.example.com.' 'ns.example.com. IN A 127.0.0.1' >root
cat /etc/zone/zone-key.ds >>root
key=$(ldns-keygen -k -a ECDSAP256SHA256 -r /dev/urandom .)
ldns-signzone -o . -f root.signed root "$key"
cp "$key.key" /var/qmail/control/dnssecanchors
cat >/test/root/nsd.conf <<'CONF'
server:
  ip-address: 127.0.0.1
  username: ""
  database: ""
  zonesdir: /etc/zone
  pidfile: /run/nsd.pid
  xfrdfile: /test/root/xfrd
  xfrdir: /test/root
  zonelistfile: /test/root/zones
  server-count: 1
  zonefiles-check: yes
remote-control:
  control-enable: no
zone:
  name: .
  zonefile: /test/root/root.signed
zone:
  name: example.com
  zonefile: /etc/zone/example.com.signed
CONF
background 53 nsd -d -c /test/root/nsd.conf
echo 'nameserver 127.0.0.1' >/etc/resolv.conf
cd /root
