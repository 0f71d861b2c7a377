# shellcheck shell=sh
# qmail's directory as a reader has it, a partner whose mail server shows a
# certificate of the partner's CA, and a relay.
mkdir -p /var/qmail/bin /var/qmail/control /var/qmail/ssl
echo 'the old one' >/var/qmail/bin/qmail-remote
chmod 755 /var/qmail/bin/qmail-remote
getent group qmail >/dev/null || groupadd qmail
getent passwd qmailr >/dev/null || useradd --system --no-create-home -g qmail qmailr
echo mail.me.example >/var/qmail/control/me
. /test/before/authority.sh
cp /test/ca/ca.pem /var/qmail/ssl/partner-ca.pem
printf '127.0.0.2 mx.partner.example\n127.0.0.3 smtp.provider.example\n' >>/etc/hosts
issue partner.example
issue smtp.provider.example
for at in '127.0.0.2 25 partner.example' '127.0.0.3 587 smtp.provider.example'; do
  # shellcheck disable=SC2086 # words
  set -- $at
  background "$2" env CERTFILE="/test/ca/$3.pem" KEYFILE="/test/ca/$3.key" \
    sslserver -1neRHl "$3" "$1" "$2" starttls-handoff smtp smtpfront-echo
done
