# shellcheck shell=sh
# acme.sh's --install-cert, where the real one is not installed: it writes over
# the files with cat, the key first made for root alone, and the certificate last
# (_installcert of acme.sh 3.1). The certificates are certbot's.
cat >/usr/local/bin/acme.sh <<'SCRIPT'
#!/bin/sh
from=/etc/letsencrypt/live/mail.example.com-rsa
while [ $# != 0 ]; do
  case $1 in
    --ecc) from=/etc/letsencrypt/live/mail.example.com ;;
    --fullchain-file) certificate=$2; shift ;;
    --key-file) key=$2; shift ;;
    -d) shift ;;
  esac
  shift
done
[ -f "$key" ] || { touch "$key"; chmod 600 "$key"; }
cat "$from/privkey.pem" >"$key"
cat "$from/fullchain.pem" >"$certificate"
SCRIPT
chmod 755 /usr/local/bin/acme.sh
