# shellcheck shell=sh
# qmail's programs by name, with real servers behind the names; a certificate in
# the places that the page has; rules of tcprules; POP3 in the clear on port 110, and behind a proxy
# header on 8110; a provider's submission.
before authority
printf '127.0.0.1 mail.example.com\n127.0.0.3 smtp.provider.example\n' >>/etc/hosts
mkdir -p /var/qmail/bin /etc/ssl/mail /var/qmail/control
for name in 'bin/qmail-popup /usr/sbin/popa3d' 'bin/qmail-smtpd smtpfront-echo'; do
  printf '#!/bin/sh\nexec %s\n' "${name#* }" >"/var/qmail/${name% *}"
  chmod 755 "/var/qmail/${name% *}"
done
getent group nofiles >/dev/null || groupadd nofiles
id qmaild >/dev/null 2>&1 || useradd -g nofiles -M qmaild
echo ':allow' | tcprules /etc/tcp.smtp.cdb /etc/tcp.smtp.tmp
issue mail.example.com
issue smtp.provider.example
cp /test/ca/mail.example.com.pem /etc/ssl/mail/cert.pem
cp /test/ca/mail.example.com.key /etc/ssl/mail/key.pem
cat /etc/ssl/mail/key.pem /etc/ssl/mail/cert.pem >/etc/ssl/mail/both.pem
cp /etc/ssl/mail/both.pem /var/qmail/control/servercert.pem
cp /test/ca/ca.pem /etc/ssl/mail/staff.pem
issue alice
cp /test/ca/alice.pem /test/ca/alice.key /etc/ssl/mail/
background 110 tcpserver -RHl0 127.0.0.1 110 /usr/sbin/popa3d
printf 'defaults\n mode tcp\n timeout connect 9s\n timeout client 60s\n timeout server 60s
listen pop3\n bind 127.0.0.1:8110 accept-proxy\n server pop3 127.0.0.1:110\n' >/test/haproxy.cfg
background 8110 haproxy -db -f /test/haproxy.cfg
background 587 env CERTFILE=/test/ca/smtp.provider.example.pem \
  KEYFILE=/test/ca/smtp.provider.example.key sslserver -neRHl0 127.0.0.3 587 \
  starttls-handoff smtp smtpfront-echo
