# shellcheck shell=sh
# The service of doc/first-service.md, with its certificate for a try.
before svscan
getent group poplog >/dev/null || groupadd -r poplog
id poplog >/dev/null 2>&1 || useradd -r -g poplog poplog
mkdir -p /etc/pop3s/env /etc/pop3s/log/main
chown poplog /etc/pop3s/log/main
cd /etc/pop3s
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
  -subj '/CN=try' -keyout key.pem -out cert.pem
echo /etc/pop3s/cert.pem >env/CERTFILE
echo /etc/pop3s/key.pem >env/KEYFILE
printf '#!/bin/sh\nexec 2>&1\nexec envdir ./env sslserver -vVHRl mail.example.com -C 20 0 995 /usr/sbin/popa3d\n' >run
printf '#!/bin/sh\nexec setuidgid poplog multilog t ./main\n' >log/run
chmod 755 run log/run
ln -s /etc/pop3s /etc/service/pop3s
until_true listens 995
