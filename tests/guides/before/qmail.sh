# shellcheck shell=sh
# qmail by name, with mailfront's server behind it; and clients that trust the
# certificate for a try.
mkdir -p /var/qmail/bin
printf '#!/bin/sh\nexec smtpfront-echo\n' >/var/qmail/bin/qmail-smtpd
chmod 755 /var/qmail/bin/qmail-smtpd
getent group nofiles >/dev/null || groupadd nofiles
id qmaild >/dev/null 2>&1 || useradd -g nofiles -M qmaild
cat /etc/pop3s/cert.pem >>/etc/ssl/certs/ca-certificates.crt
cp /etc/pop3s/cert.pem "/etc/ssl/certs/$(openssl x509 -in /etc/pop3s/cert.pem -noout -hash).0"
