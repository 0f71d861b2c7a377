# shellcheck shell=sh
# Examples as package/install puts them, and a certificate where theirs is.
before authority
issue mail.example.com
mkdir -p /etc/ssl/mail /usr/local/share/doc/ucspi-tls
cp -r /usr/src/ucspi-tls/examples /usr/local/share/doc/ucspi-tls/
cp /test/ca/mail.example.com.pem /etc/ssl/mail/cert.pem
cp /test/ca/mail.example.com.key /etc/ssl/mail/key.pem
chmod 600 /etc/ssl/mail/key.pem
