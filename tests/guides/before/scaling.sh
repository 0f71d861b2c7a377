# shellcheck shell=sh
# Three machines in one: each has its address here.
before authority
for address in 192.0.2.10 192.0.2.11 192.0.2.12; do
  ip addr add "$address/32" dev lo
done
printf '192.0.2.10 mail.example.com\n' >>/etc/hosts
issue mail.example.com
mkdir -p /etc/ssl/mail
cat /test/ca/mail.example.com.pem /test/ca/mail.example.com.key >/etc/ssl/mail/both.pem
getent passwd poplog >/dev/null || useradd -r -M poplog
before svscan
