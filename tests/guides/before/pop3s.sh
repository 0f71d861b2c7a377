# shellcheck shell=sh
# The service of doc/first-service.md, with its certificate for a try.
before svscan
getent passwd poplog >/dev/null || useradd -r -M -s /usr/sbin/nologin poplog
sslserver-conf root poplog /etc/pop3s 995 popa3d
cd /etc/pop3s
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
  -subj '/CN=try' -keyout key.pem -out cert.pem
echo /etc/pop3s/key.pem >env/KEYFILE
ln -s /etc/pop3s /etc/service/pop3s
until_true listens 995
