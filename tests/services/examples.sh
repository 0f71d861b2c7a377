# shellcheck shell=sh
# A machine for the directories of examples/, which are run as they stand.
useradd -M --system sslog
getent group nofiles || groupadd nofiles
for user in qmaild axfrdns; do
  id "$user" 2>/dev/null || useradd -M --system "$user"
done
usermod -g nofiles qmaild
useradd -m reader
echo reader:secret | chpasswd
mkdir -p /etc/ssl/mail /home/reader/Maildir/new /var/qmail/bin /var/qmail/control /srv/www
chown -R reader /home/reader
cp "$pair.pem" /etc/ssl/mail/cert.pem
cp "$pair.key" /etc/ssl/mail/key.pem
chmod 600 /etc/ssl/mail/key.pem
examples=/usr/src/ucspi-tls/examples
cp /usr/src/ucspi-tls/tests/services/qmail/* /var/qmail/bin/
# qmail-smtpd speaks as this one does.
printf '#!/bin/sh\nQMAILHOME=/var/qmail exec smtpfront-qmail\n' >/var/qmail/bin/qmail-smtpd
chmod 755 /var/qmail/bin/qmail-smtpd
chmod 777 /var/qmail
echo example.com >/var/qmail/control/rcpthosts
echo mail.example.com >/var/qmail/control/me
cp /test/ca/ca.pem /etc/ssl/mail/staff-ca.pem
# The zone of tinydns.
zone() {
  mkdir -p "/etc/$1/root"
  printf '.example.com:192.0.2.1:a\n=www.example.com:192.0.2.7:300\n' >"/etc/$1/root/data"
  (cd "/etc/$1/root" && tinydns-data)
}

# start NAME PORT: an example, under svscan.
start() {
  cp -r "$examples/$1" "/etc/${1##*/}"
  [ "$1" != dns ] || zone "$1"
  mkdir -p "/scan/${1##*/}"
  ln -s "/etc/${1##*/}" "/scan/${1##*/}/"
  setsid svscan "/scan/${1##*/}" </dev/null >/test/scan.out 2>&1 &
  eventually listens "$2"
}

# stop NAME PORT [PATTERN]: and its log is its writer's, every line with its time,
# without warnings but those like the pattern.
stop() {
  svc -dx "/etc/$1" "/etc/$1/log"
  eventually closed "$2"
  over() { ! svok "/etc/$1" && ! svok "/etc/$1/log"; }
  eventually over "$1"
  log=/etc/$1/log/main/current
  is sslog stat -c %U "$log"
  is '' sed '/^@4[0-9a-f]\{23\} ./d' "$log"
  is '' sed -n "/${3:-^$}/d; /: \(warning\|fatal\): /p" "$log"
}

# talk PORT [OPTION...] -- LINE...: what is answered to each line, the last line of
# each answer, the greeting's first.
talk() {
  port=$1
  shift
  options=
  while [ "$1" != -- ]; do
    options="$options $1"
    shift
  done
  shift
  # shellcheck disable=SC2086 # words
  timeout 60 sslclient -RHl0 $options mail.example.com "$port" sh -c '
    hear() {
      while IFS= read -r line <&6; do
        case $line in
          [0-9][0-9][0-9]-* | "* "[A-Z]*) [ -n "$tag" ] || continue ;;
        esac
        printf "%s\n" "$line" | tr -d "\r"
        break
      done
    }
    tag=greeting
    hear
    tag=
    for line; do
      printf "%s\r\n" "$line" >&7
      hear
    done
  ' talk "$@"
}

# says PATTERN COMMAND...: fails unless the last line that it prints is like this.
says() {
  pattern=$1
  shift
  got=$("$@" | tail -n 1)
  # shellcheck disable=SC2254 # a pattern
  case $got in
    $pattern) ;;
    *) echo "wanted: $pattern; got: $got" >&2; exit 1 ;;
  esac
}
