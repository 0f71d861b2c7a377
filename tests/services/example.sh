# shellcheck shell=sh
# One example: NAME PORT.
name=$1
expected=
start "$name" "$2"
case $name in
  pop3s-*) says '+OK*' talk "$2" -- 'USER reader' 'PASS secret' STAT ;;
  pop3-*)
    says '+OK*' talk "$2" -y pop3 -- 'USER reader' 'PASS secret' STAT
    says '-ERR*' talk "$2" -y pop3 -- 'USER reader' 'PASS wrong'
    # In the clear there is no password.
    says '-ERR*' sh -c "printf 'USER reader\r\nPASS secret\r\nQUIT\r\n' | nc -q 5 127.0.0.1 $2 | tail -n 2 | head -n 1" ;;
  imap)
    says 'b OK*' talk "$2" -y imap -- 'a LOGIN reader secret' 'b LOGOUT'
    says 'a NO*' sh -c "printf 'a LOGIN reader secret\r\nb LOGOUT\r\n' | nc -q 5 127.0.0.1 $2 | grep '^a '" ;;
  smtp-* | smtps)
    options='-y smtp'
    [ "$name" != smtps ] || options=
    # shellcheck disable=SC2086 # words
    says '250 *' talk "$2" $options -- 'EHLO c' 'MAIL FROM:<a@elsewhere.example>' \
      'RCPT TO:<b@example.com>' DATA "$(printf 'Subject: x\r\n\r\nthe letter\r\n.')"
    grep -q 'the letter' /var/qmail/message
    grep -q '^Tb@example.com$' /var/qmail/envelope
    # shellcheck disable=SC2086 # words
    says '5[0-9][0-9] *' talk "$2" $options -- 'EHLO c' 'MAIL FROM:<a@elsewhere.example>' \
      'RCPT TO:<b@elsewhere.example>'
    [ "$name" = smtps ] || says '250 *' sh -c "printf 'HELO c\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@example.com>\r\nQUIT\r\n' | nc -q 5 127.0.0.1 $2 | tail -n 2 | head -n 1" ;;
  submission)
    own="-c $pair.pem -k $pair.key"
    # shellcheck disable=SC2086 # words
    says '250 *' talk "$2" $own -y smtp -- 'EHLO c' 'MAIL FROM:<a@example.com>' \
      'RCPT TO:<b@elsewhere.example>' DATA "$(printf 'Subject: x\r\n\r\nthe letter\r\n.')"
    grep -q '^Tb@elsewhere.example$' /var/qmail/envelope
    # Without a certificate it ends with the handshake.
    talk "$2" -y smtp -- 'EHLO c' 'MAIL FROM:<a@example.com>' >/test/refused 2>&1 || :
    is '' sed -n '/^250/p' /test/refused
    expected='dropping \(TLS \)\?connection.*\(certificate\|handshake\)'
    eventually grep -q "$expected" "/etc/$name/log/main/current"
    says '530 *' sh -c "printf 'EHLO c\r\nMAIL FROM:<a@example.com>\r\nQUIT\r\n' | nc -q 5 127.0.0.1 $2 | tail -n 2 | head -n 1" ;;
  https)
    echo 'the page' >/srv/www/page.txt
    is 'the page' https@ mail.example.com page.txt
    ;;
  dns) is 192.0.2.7 dig +tls +short +tries=1 +time=30 -p "$2" @127.0.0.1 www.example.com a ;;
  *) echo "nothing is known of $name" >&2; exit 1 ;;
esac
eventually grep -q ': end ' "/etc/$name/log/main/current"
stop "$name" "$2" "$expected"
