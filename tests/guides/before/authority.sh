# shellcheck shell=sh
# An authority that this machine trusts, as it trusts the public ones.
mkdir -p /test/ca
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
  -subj '/CN=Public CA' -addext keyUsage=critical,keyCertSign,cRLSign -keyout /test/ca/ca.key -out /test/ca/ca.pem
cat /test/ca/ca.pem >>/etc/ssl/certs/ca-certificates.crt
mkdir -p /usr/local/share/ca-certificates
cp /test/ca/ca.pem "/etc/ssl/certs/$(openssl x509 -in /test/ca/ca.pem -noout -hash).0"

# issue NAME: NAME.pem, with the authority behind it, and NAME.key.
issue() {
  printf '%s\n' "subjectAltName=DNS:$1" basicConstraints=CA:FALSE \
    extendedKeyUsage=serverAuth,clientAuth authorityKeyIdentifier=keyid \
    subjectKeyIdentifier=hash >/test/ca/names
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
    -keyout "/test/ca/$1.key" -out /test/ca/request.pem
  openssl x509 -req -in /test/ca/request.pem -CA /test/ca/ca.pem -CAkey /test/ca/ca.key \
    -days 20 -extfile /test/ca/names -out "/test/ca/$1.pem"
  cat /test/ca/ca.pem >>"/test/ca/$1.pem"
}
