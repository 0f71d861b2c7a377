# shellcheck shell=sh
# A renewal, as acme.sh's cron job writes it into place.
certbot renew --no-random-sleep-on-renew --force-renewal --cert-name mail.example.com
until_true grep -q ecdsa.pem /proc/"$(svstat /etc/service/pop3s | sed "s/.*pid \([0-9]*\).*/\1/")"/environ
acme.sh --install-cert -d mail.example.com --ecc \
  --fullchain-file /etc/ssl/mail/ecdsa.pem --key-file /etc/ssl/mail/ecdsa.key
