# shellcheck shell=sh
before authority
printf '127.0.0.1 mail.example.com\n' >>/etc/hosts
issue mail.example.com
mkdir -p /etc/ssl/mail
cp /test/ca/mail.example.com.pem /etc/ssl/mail/cert.pem
cp /test/ca/mail.example.com.key /etc/ssl/mail/key.pem
